/* http_client.c: HTTP calls over libcurl: one exchange (Call), the blocking calls around it, and
 * the multi interface driven by a libuv loop.
 *
 * I1  Nothing of libcurl's multi interface is called from inside one of its callbacks: a request
 *     that is started or canceled there is marked, and swept when libcurl has returned.
 * I2  A request is in its client's list until it is freed. */
#include "io/http_client.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

enum {
    CONNECT_TIMEOUT_MS = 10000,
    BUFFER_SIZE = 256 * 1024, /* one batch lease or answer in one piece */
    SPARES_MAX = 4,           /* handles a client keeps for the next request */
};

/* ---- one exchange ---- */

typedef struct {
    CURL *easy;
    struct curl_slist *headers;
    HttpReply *reply;
    bool (*on_data)(void *ctx, Str piece); /* NULL: collect */
    void *ctx;
    FILE *to; /* NULL: not to a file */
    int stop; /* why a callback ended it; 0: none did */
    char why[CURL_ERROR_SIZE];
} Call;

static char *no_proxy; /* hosts that are reached directly: the environment's, and this machine */

static void init_once(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
    const char *env = getenv("no_proxy");
    if (env == NULL) env = getenv("NO_PROXY");
    Buf b = {0};
    buf_puts(&b, "localhost,127.0.0.1,::1");
    if (env != NULL && env[0] != '\0') {
        if (strcmp(env, "*") == 0)
            buf_clear(&b);
        else
            buf_putc(&b, ',');
        buf_puts(&b, env);
    }
    no_proxy = mem_dup(b.data, b.len);
    buf_done(&b);
}

static void http_init(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, init_once);
}

static bool is_success(long status)
{
    return status >= 200 && status < 300;
}

static size_t on_body(char *p, size_t size, size_t n, void *ctx)
{
    Call *c = ctx;
    n *= size;
    if (c->reply->status == 0) {
        curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &c->reply->status);
    }
    if (c->on_data != NULL && is_success(c->reply->status)) {
        if (!c->on_data(c->ctx, (Str){p, n})) {
            c->stop = ERR_CANCELED;
            return 0;
        }
        return n;
    }
    if (c->to != NULL && is_success(c->reply->status)) {
        if (fwrite(p, 1, n, c->to) != n) {
            c->stop = errno == ENOSPC ? ERR_NOSPC : ERR_IO;
            return 0;
        }
        return n;
    }
    if (c->reply->body.len + n > HTTP_BODY_MAX) {
        c->stop = ERR_LIMIT;
        return 0;
    }
    buf_put(&c->reply->body, p, n);
    return n;
}

static bool has_header(const char *const *headers, const char *name)
{
    size_t n = strlen(name);
    for (; headers != NULL && *headers != NULL; headers++) {
        if (strncasecmp(*headers, name, n) == 0 && (*headers)[n] == ':') return true;
    }
    return false;
}

/* body: NULL for none at all; content_type: NULL when headers say it, or nothing does. */
static void call_setup(Call *c, const char *method, const char *url, const char *const *headers,
                       const Str *body, const char *content_type, int64_t timeout_ms)
{
    CURL *e = c->easy;
    curl_easy_reset(e); /* keeps the connections */
    curl_easy_setopt(e, CURLOPT_URL, url);
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(e, CURLOPT_USERAGENT, "headrace/" HR_VERSION);
    curl_easy_setopt(e, CURLOPT_NOPROXY, no_proxy);
    curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_TIMEOUT_MS);
    curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(e, CURLOPT_BUFFERSIZE, (long)BUFFER_SIZE);
    curl_easy_setopt(e, CURLOPT_UPLOAD_BUFFERSIZE, (long)BUFFER_SIZE);
    curl_easy_setopt(e, CURLOPT_ERRORBUFFER, c->why);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, c);

    bool post = strcmp(method, "POST") == 0;
    if (body != NULL && (body->n > 0 || post)) {
        curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body->n);
        curl_easy_setopt(e, CURLOPT_POSTFIELDS, body->n > 0 ? body->p : "");
        if (!post) curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, method);
    } else if (strcmp(method, "HEAD") == 0) {
        curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
    } else if (strcmp(method, "GET") != 0) {
        curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, method);
    }
    /* No round trip before large bodies, and no content type that nobody gave. */
    c->headers = curl_slist_append(NULL, "Expect:");
    if (content_type != NULL) {
        Buf h = {0};
        buf_printf(&h, "Content-Type: %s", content_type);
        c->headers = curl_slist_append(c->headers, buf_z(&h));
        buf_done(&h);
    } else if (!has_header(headers, "Content-Type")) {
        c->headers = curl_slist_append(c->headers, "Content-Type:");
    }
    for (; headers != NULL && *headers != NULL; headers++) {
        c->headers = curl_slist_append(c->headers, *headers);
    }
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, c->headers);
}

static void copy_header(CURL *e, const char *name, char *ret, size_t cap)
{
    struct curl_header *h;
    if (curl_easy_header(e, name, 0, CURLH_HEADER, -1, &h) == CURLHE_OK) {
        snprintf(ret, cap, "%s", h->value);
    }
}

static int call_code(const Call *c, CURLcode code)
{
    if (c->stop != 0) return c->stop;
    switch (code) {
    case CURLE_OK:
        return 0;
    case CURLE_OPERATION_TIMEDOUT:
        return ERR_TIMEOUT;
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
        return ERR_INVALID;
    case CURLE_OUT_OF_MEMORY:
        return ERR_NOMEM;
    case CURLE_READ_ERROR:
        return ERR_IO;
    default:
        return ERR_CLOSED;
    }
}

/* Fills the reply from the finished exchange; frees what the call holds, not the easy handle. */
static int call_end(Call *c, CURLcode code)
{
    HttpReply *r = c->reply;
    int err = call_code(c, code);
    curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &r->status);
    if (r->status != 0) {
        copy_header(c->easy, "Content-Type", r->content_type, sizeof r->content_type);
        copy_header(c->easy, "Location", r->location, sizeof r->location);
        char etag[sizeof r->etag + 2] = "";
        copy_header(c->easy, "ETag", etag, sizeof etag);
        size_t n = strlen(etag);
        if (n >= 2 && etag[0] == '"' && etag[n - 1] == '"') {
            memcpy(r->etag, etag + 1, n - 2);
            r->etag[n - 2] = '\0';
        }
        curl_off_t after = 0;
        curl_easy_getinfo(c->easy, CURLINFO_RETRY_AFTER, &after);
        r->retry_after_s = (uint32_t)MIN(MAX(after, 0), 86400);
    }
    if (err == ERR_LIMIT) {
        snprintf(r->error, sizeof r->error, "the answer is over %zu MiB", HTTP_BODY_MAX / MIB);
    } else if (err != 0) {
        snprintf(r->error, sizeof r->error, "%s",
                 c->stop != 0        ? err_text(err)
                 : c->why[0] != '\0' ? c->why
                                     : curl_easy_strerror(code));
    }
    curl_slist_free_all(c->headers);
    c->headers = NULL;
    return err;
}

void http_reply_done(HttpReply *r)
{
    if (r == NULL) return;
    buf_done(&r->body);
    memset(r, 0, sizeof *r);
}

void http_url_escape(Buf *ret, Str text)
{
    static const char hex[] = "0123456789ABCDEF";
    for (size_t i = 0; i < text.n; i++) {
        unsigned char ch = (unsigned char)text.p[i];
        bool plain = (ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'z') ||
                     (ch >= 'A' && ch <= 'Z') || ch == '-' || ch == '.' || ch == '_' || ch == '~';
        if (plain) {
            buf_putc(ret, (char)ch);
        } else {
            buf_putc(ret, '%');
            buf_putc(ret, hex[ch >> 4]);
            buf_putc(ret, hex[ch & 15]);
        }
    }
}

/* ---- blocking: a handle a thread, so that its connection lives on ---- */

static pthread_key_t easy_key;

static void free_easy(void *p)
{
    curl_easy_cleanup(p);
}

static void make_key(void)
{
    CHECK(pthread_key_create(&easy_key, free_easy) == 0);
}

static CURL *thread_easy(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    http_init();
    pthread_once(&once, make_key);
    CURL *e = pthread_getspecific(easy_key);
    if (e == NULL) {
        e = curl_easy_init();
        CHECK(e != NULL);
        CHECK(pthread_setspecific(easy_key, e) == 0);
    }
    return e;
}

static int call_run(Call *c)
{
    int err = call_end(c, curl_easy_perform(c->easy));
    /* The handle outlives this frame: it must not point into it. */
    curl_easy_reset(c->easy);
    return err;
}

int http_call(const char *method, const char *url, const char *const *headers, Str body,
              int64_t timeout_ms, HttpReply *ret)
{
    memset(ret, 0, sizeof *ret);
    Call c = {.easy = thread_easy(), .reply = ret};
    call_setup(&c, method, url, headers, &body, NULL, timeout_ms);
    return call_run(&c);
}

int http_stream(const char *url, const char *const *headers, bool (*on_data)(void *ctx, Str piece),
                void *ctx, HttpReply *ret)
{
    memset(ret, 0, sizeof *ret);
    Call c = {.easy = thread_easy(), .reply = ret, .on_data = on_data, .ctx = ctx};
    call_setup(&c, "GET", url, headers, NULL, NULL, 0);
    return call_run(&c);
}

static int local_error(HttpReply *ret, const char *what, const char *path)
{
    int err = errno == ENOSPC ? ERR_NOSPC : errno == ENOENT ? ERR_NOT_FOUND : ERR_IO;
    snprintf(ret->error, sizeof ret->error, "cannot %s %s: %s", what, path, strerror(errno));
    return err;
}

int http_download(const char *url, const char *const *headers, const char *path, HttpReply *ret)
{
    memset(ret, 0, sizeof *ret);
    Buf part = {0};
    buf_printf(&part, "%s.part", path);
    const char *part_path = buf_z(&part);
    int err = 0;
    int fd = open(part_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FILE *to = fd < 0 ? NULL : fdopen(fd, "wb");
    if (to == NULL) {
        err = local_error(ret, "write", part_path);
        if (fd >= 0) close(fd);
        buf_done(&part);
        return err;
    }
    Call c = {.easy = thread_easy(), .reply = ret, .to = to};
    call_setup(&c, "GET", url, headers, NULL, NULL, 0);
    /* A transfer that stands still for a minute is broken. */
    curl_easy_setopt(c.easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(c.easy, CURLOPT_LOW_SPEED_TIME, 60L);
    err = call_run(&c);
    if (fclose(to) != 0 && err == 0) err = local_error(ret, "write", part_path);
    if (err == 0 && is_success(ret->status)) {
        if (rename(part_path, path) != 0) err = local_error(ret, "write", path);
    }
    if (err != 0 || !is_success(ret->status)) unlink(part_path);
    buf_done(&part);
    return err;
}

int http_upload_file(const char *url, const char *const *headers, const char *path,
                     const char *content_type, HttpReply *ret)
{
    memset(ret, 0, sizeof *ret);
    FILE *from = fopen(path, "rbe");
    struct stat st;
    if (from == NULL || fstat(fileno(from), &st) != 0) {
        int err = local_error(ret, "read", path);
        if (from != NULL) fclose(from);
        return err;
    }
    Call c = {.easy = thread_easy(), .reply = ret};
    call_setup(&c, "POST", url, headers, NULL, content_type, 0);
    curl_easy_setopt(c.easy, CURLOPT_CUSTOMREQUEST, NULL);
    curl_easy_setopt(c.easy, CURLOPT_POST, 1L);
    curl_easy_setopt(c.easy, CURLOPT_READDATA, from);
    curl_easy_setopt(c.easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)st.st_size);
    int err = call_run(&c);
    fclose(from);
    return err;
}

/* ---- on a libuv loop ---- */

struct HttpRequest {
    Call call;
    HttpReply reply;
    HttpClient *client;
    List in_client;
    bool added;    /* libcurl has it */
    bool canceled; /* inside a callback of libcurl: freed when it has returned */
    Buf line;      /* the beginning of a line whose end has not come */
    void (*on_line)(void *ctx, Str line);
    void (*on_done)(void *ctx, int err, HttpReply *reply);
    void *ctx;
};

struct HttpClient {
    uv_loop_t *loop;
    CURLM *multi;
    uv_timer_t *timer; /* libcurl's next time-out; freed by its close callback */
    List requests;
    bool inside; /* libcurl is running: I1 */
    bool sweep;  /* some request was started or canceled meanwhile */
    CURL *spares[SPARES_MAX];
    size_t spares_len;
};

typedef struct {
    uv_poll_t poll;
    HttpClient *client;
    curl_socket_t fd;
} Watch; /* one socket of libcurl's */

static void request_free(HttpRequest *r)
{
    HttpClient *c = r->client;
    CURL *e = r->call.easy;
    list_del(&r->in_client);
    curl_slist_free_all(r->call.headers);
    curl_easy_reset(e);
    if (c->spares_len < SPARES_MAX)
        c->spares[c->spares_len++] = e;
    else
        curl_easy_cleanup(e);
    http_reply_done(&r->reply);
    buf_done(&r->line);
    mem_free(r);
}

static void request_add(HttpRequest *r)
{
    CHECK(curl_multi_add_handle(r->client->multi, r->call.easy) == CURLM_OK);
    r->added = true;
}

static void finish_done(HttpClient *c)
{
    if (c->sweep) {
        c->sweep = false;
        LIST_FOR (r, &c->requests, HttpRequest, in_client) {
            if (r->canceled) {
                if (r->added) curl_multi_remove_handle(c->multi, r->call.easy);
                request_free(r);
            } else if (!r->added) {
                request_add(r);
            }
        }
    }
    CURLMsg *m;
    int left;
    while ((m = curl_multi_info_read(c->multi, &left)) != NULL) {
        if (m->msg != CURLMSG_DONE) continue;
        CURL *e = m->easy_handle;
        CURLcode code = m->data.result;
        HttpRequest *r = NULL;
        curl_easy_getinfo(e, CURLINFO_PRIVATE, (char **)&r);
        curl_multi_remove_handle(c->multi, e);
        int err = call_end(&r->call, code);
        /* What r->line holds has no end: it was cut off, and is dropped. */
        r->canceled = true; /* on_done may not cancel it any more */
        r->on_done(r->ctx, err, &r->reply);
        request_free(r);
    }
}

static void drive(HttpClient *c, curl_socket_t fd, int events)
{
    int running;
    c->inside = true;
    curl_multi_socket_action(c->multi, fd, events, &running);
    c->inside = false;
    finish_done(c);
}

static void on_poll(uv_poll_t *p, int status, int events)
{
    Watch *w = CONTAINER_OF(p, Watch, poll);
    int flags = status < 0 ? CURL_CSELECT_ERR : 0;
    if (events & UV_READABLE) flags |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE) flags |= CURL_CSELECT_OUT;
    drive(w->client, w->fd, flags);
}

static void on_timer(uv_timer_t *t)
{
    drive(t->data, CURL_SOCKET_TIMEOUT, 0);
}

static void free_handle(uv_handle_t *h)
{
    mem_free(h);
}

static void free_watch(uv_handle_t *h)
{
    mem_free(CONTAINER_OF(h, Watch, poll));
}

static int want_timer(CURLM *multi, long ms, void *ctx)
{
    (void)multi;
    HttpClient *c = ctx;
    if (ms < 0)
        uv_timer_stop(c->timer);
    else
        uv_timer_start(c->timer, on_timer, (uint64_t)ms, 0);
    return 0;
}

static int want_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *socket_ctx)
{
    (void)easy;
    HttpClient *c = ctx;
    Watch *w = socket_ctx;
    if (what == CURL_POLL_REMOVE) {
        if (w != NULL) {
            uv_poll_stop(&w->poll);
            uv_close((uv_handle_t *)&w->poll, free_watch);
            curl_multi_assign(c->multi, fd, NULL);
        }
        return 0;
    }
    if (w == NULL) {
        w = mem_new(sizeof *w);
        w->client = c;
        w->fd = fd;
        if (uv_poll_init_socket(c->loop, &w->poll, fd) != 0) {
            mem_free(w);
            return -1;
        }
        curl_multi_assign(c->multi, fd, w);
    }
    int events = 0;
    if (what != CURL_POLL_OUT) events |= UV_READABLE;
    if (what != CURL_POLL_IN) events |= UV_WRITABLE;
    uv_poll_start(&w->poll, events, on_poll);
    return 0;
}

HttpClient *http_client_new(uv_loop_t *loop)
{
    http_init();
    HttpClient *c = mem_new(sizeof *c);
    c->loop = loop;
    list_init(&c->requests);
    c->timer = mem_new(sizeof *c->timer);
    CHECK(uv_timer_init(loop, c->timer) == 0);
    c->timer->data = c;
    c->multi = curl_multi_init();
    CHECK(c->multi != NULL);
    curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, want_socket);
    curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c);
    curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, want_timer);
    curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c);
    return c;
}

void http_client_free(HttpClient *c)
{
    if (c == NULL) return;
    CHECK(!c->inside);
    LIST_FOR (r, &c->requests, HttpRequest, in_client) {
        if (r->added) curl_multi_remove_handle(c->multi, r->call.easy);
        request_free(r);
    }
    for (size_t i = 0; i < c->spares_len; i++) curl_easy_cleanup(c->spares[i]);
    curl_multi_cleanup(c->multi); /* closes the sockets, through want_socket */
    uv_close((uv_handle_t *)c->timer, free_handle);
    mem_free(c);
}

/* Cuts what came into lines; the rest stays in r->line. */
static bool on_piece(void *ctx, Str piece)
{
    HttpRequest *r = ctx;
    while (piece.n > 0 && !r->canceled) {
        const char *end = memchr(piece.p, '\n', piece.n);
        if (end == NULL) {
            if (r->line.len + piece.n > HTTP_BODY_MAX) return false;
            buf_put(&r->line, piece.p, piece.n);
            break;
        }
        size_t n = (size_t)(end - piece.p);
        if (r->line.len > 0) {
            buf_put(&r->line, piece.p, n);
            Buf whole = r->line;
            r->line = (Buf){0};
            r->on_line(r->ctx, buf_str(&whole));
            buf_done(&whole);
        } else if (n > 0) {
            r->on_line(r->ctx, (Str){piece.p, n});
        }
        piece.p += n + 1;
        piece.n -= n + 1;
    }
    return !r->canceled;
}

HttpRequest *http_client_start(HttpClient *c, const HttpRequestOptions *o)
{
    HttpRequest *r = mem_new(sizeof *r);
    r->client = c;
    r->on_line = o->on_line;
    r->on_done = o->on_done;
    r->ctx = o->ctx;
    r->call.easy = c->spares_len > 0 ? c->spares[--c->spares_len] : curl_easy_init();
    CHECK(r->call.easy != NULL);
    r->call.reply = &r->reply;
    r->call.on_data = o->on_line != NULL ? on_piece : NULL;
    r->call.ctx = r;
    call_setup(&r->call, o->method, o->url, o->headers, &o->body, NULL, o->timeout_ms);
    curl_easy_setopt(r->call.easy, CURLOPT_PRIVATE, r);
    list_push_back(&c->requests, &r->in_client);
    if (c->inside)
        c->sweep = true; /* keeps I1 */
    else
        request_add(r);
    return r;
}

void http_request_cancel(HttpRequest *r)
{
    if (r == NULL || r->canceled) return;
    HttpClient *c = r->client;
    if (c->inside) { /* keeps I1 */
        r->canceled = true;
        c->sweep = true;
        return;
    }
    curl_multi_remove_handle(c->multi, r->call.easy);
    request_free(r);
}
