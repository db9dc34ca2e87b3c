/* worker_fake.h: a server for one worker, in this process, that says and answers what a test
 * wants; the worker runs in a child process. A thread a connection, blocking sockets: short. */
#ifndef TESTS_UNIT_WORKER_FAKE_H
#define TESTS_UNIT_WORKER_FAKE_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"
#include "worker/worker.h"

typedef struct Fake {
    struct Fake *older;
    int fd;
    char url[64];
    pid_t worker;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* Under the lock. */
    int stream; /* the open stream's socket; -1: none */
    int registers, streams, posts, lines, results;
    Buf hello;   /* last registration's body */
    Buf reports; /* every line that was answered */
    Buf uploads; /* of every output file: its URL, a blank, its size, a line end; then its bytes */
    char file_type[64];
    Buf file;       /* content of every input file */
    int fail_posts; /* so many POSTs of reports get fail_status, or (0) a closed connection */
    int fail_status;
    int register_status; /* instead of 200; 0: 200 */
    const char *stale;   /* contents of the next registrations' stale array */
    const char *answer;  /* a line's status instead of accepted */
} Fake;

/* Called under the lock for every line of a report, when set. */
static void (*fake_on_line)(Fake *f, Str line);

typedef struct {
    Fake *f;
    int fd;
    Buf in;
} FakeConn;

static inline bool fake_write(int fd, const void *p, size_t n)
{
    while (n > 0) {
        ssize_t got = send(fd, p, n, MSG_NOSIGNAL);
        if (got <= 0) return false;
        p = (const char *)p + got;
        n -= (size_t)got;
    }
    return true;
}

static inline bool fake_reply(int fd, int status, const char *type, Str body)
{
    Buf b = {0};
    buf_printf(&b, "HTTP/1.1 %d X\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n", status, type,
               body.n);
    buf_put_str(&b, body);
    bool good = fake_write(fd, b.data, b.len);
    buf_done(&b);
    return good;
}

static inline bool fake_reports(FakeConn *c, Str body)
{
    Fake *f = c->f;
    pthread_mutex_lock(&f->lock);
    f->posts++;
    if (f->fail_posts > 0) {
        f->fail_posts--;
        int status = f->fail_status;
        pthread_cond_broadcast(&f->changed);
        pthread_mutex_unlock(&f->lock);
        if (status == 0) return false;
        return fake_reply(c->fd, status, "application/problem+json",
                          STR("{\"detail\":\"not now\"}"));
    }
    Buf out = {0};
    while (body.n > 0) {
        const char *end = memchr(body.p, '\n', body.n);
        CHECK(end != NULL);
        Str line = {body.p, (size_t)(end - body.p)};
        f->lines++;
        if (str_starts(line, STR("{\"t\":\"result\""))) f->results++;
        if (fake_on_line != NULL)
            fake_on_line(f, line);
        else
            buf_put(&f->reports, line.p, line.n + 1);
        buf_printf(&out, "{\"status\":\"%s\",\"detail\":\"as the test wants\"}\n",
                   f->answer != NULL && memmem(line.p, line.n, "pong", 4) == NULL ? f->answer
                                                                                  : "accepted");
        body.p += line.n + 1;
        body.n -= line.n + 1;
    }
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    bool good = fake_reply(c->fd, 200, "application/x-ndjson", buf_str(&out));
    buf_done(&out);
    return good;
}

static inline bool fake_request(FakeConn *c, const char *method, const char *path, Str body)
{
    Fake *f = c->f;
    Buf out = {0};
    bool good = true;
    pthread_mutex_lock(&f->lock);
    if (strcmp(path, "/v1/worker/register") == 0) {
        f->registers++;
        buf_clear(&f->hello);
        buf_put_str(&f->hello, body);
        buf_printf(&out,
                   "{\"worker\":\"worker_fake\",\"protocol\":1,\"lease_s\":2,\"ping_s\":1,"
                   "\"refused\":[],\"stale\":[%s]}",
                   f->stale != NULL ? f->stale : "");
        int status = f->register_status != 0 ? f->register_status : 200;
        if (status != 200) {
            buf_clear(&out);
            buf_puts(&out, "{\"detail\":\"no such key\"}");
        }
        pthread_cond_broadcast(&f->changed);
        pthread_mutex_unlock(&f->lock);
        good = fake_reply(c->fd, status, "application/json", buf_str(&out));
    } else if (strstr(path, "/stream") != NULL) {
        static const char head[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        good = fake_write(c->fd, head, sizeof head - 1);
        f->stream = c->fd;
        f->streams++;
        pthread_cond_broadcast(&f->changed);
        pthread_mutex_unlock(&f->lock);
    } else if (strstr(path, "/reports") != NULL) {
        pthread_mutex_unlock(&f->lock);
        good = fake_reports(c, body);
    } else if (strcmp(method, "GET") == 0 && strstr(path, "/content") != NULL) {
        buf_put(&out, f->file.data, f->file.len);
        pthread_mutex_unlock(&f->lock);
        good = fake_reply(c->fd, 200, "application/json", buf_str(&out));
    } else if (strcmp(method, "POST") == 0 && strncmp(path, "/v1/files?", 10) == 0) {
        buf_printf(&f->uploads, "%s %zu\n", path, body.n);
        buf_put_str(&f->uploads, body);
        pthread_cond_broadcast(&f->changed);
        pthread_mutex_unlock(&f->lock);
        good = fake_reply(c->fd, 201, "application/json", STR("{\"id\":\"file_OUT\"}"));
    } else {
        pthread_mutex_unlock(&f->lock);
        good = fake_reply(c->fd, 404, "application/json", STR("{\"detail\":\"what?\"}"));
    }
    buf_done(&out);
    return good;
}

/* One whole request at the head of c->in: answers it and drops it. */
static inline bool fake_take(FakeConn *c, bool *ret_took)
{
    *ret_took = false;
    char *end = c->in.len > 0 ? memmem(c->in.data, c->in.len, "\r\n\r\n", 4) : NULL;
    if (end == NULL) return true;
    size_t head = (size_t)(end - (char *)c->in.data) + 4, length = 0;
    char line[512] = "";
    memcpy(line, c->in.data, MIN(head, sizeof line - 1));
    for (char *p = (char *)c->in.data; p < end; p++) {
        if (p[0] == '\n' && strncasecmp(p + 1, "content-length:", 15) == 0) {
            length = strtoul(p + 16, NULL, 10);
        }
    }
    if (c->in.len < head + length) return true;
    char method[16], path[400];
    CHECK(sscanf(line, "%15s %399s", method, path) == 2);
    bool good = fake_request(c, method, path, (Str){(char *)c->in.data + head, length});
    buf_drop(&c->in, head + length);
    *ret_took = true;
    return good;
}

static inline void *fake_serve_one(void *arg)
{
    FakeConn *c = arg;
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    for (bool good = true; good;) {
        bool took = true;
        while (good && took) good = fake_take(c, &took);
        if (!good) break;
        uint8_t *p = buf_extend(&c->in, 256 * KIB);
        ssize_t n = recv(c->fd, p, 256 * KIB, 0);
        c->in.len -= 256 * KIB - (n > 0 ? (size_t)n : 0);
        good = n > 0;
    }
    pthread_mutex_lock(&c->f->lock);
    if (c->f->stream == c->fd) c->f->stream = -1;
    pthread_cond_broadcast(&c->f->changed);
    pthread_mutex_unlock(&c->f->lock);
    close(c->fd);
    buf_done(&c->in);
    mem_free(c);
    return NULL;
}

static inline void *fake_serve(void *arg)
{
    Fake *f = arg;
    for (;;) {
        int fd = accept(f->fd, NULL, NULL);
        if (fd < 0) return NULL;
        FakeConn *c = mem_new(sizeof *c);
        c->f = f;
        c->fd = fd;
        pthread_t t;
        CHECK(pthread_create(&t, NULL, fake_serve_one, c) == 0);
        pthread_detach(t);
    }
}

/* The worker is this program once more: its main begins with fake_be_worker. */
static inline bool fake_be_worker(const WorkerOptions *o, int *ret_exit_code)
{
    const char *url = getenv("FAKE_WORKER_URL");
    if (url == NULL) return false;
    WorkerOptions mine = *o;
    mine.server_url = url;
    *ret_exit_code = worker_run(&mine);
    return true;
}

static inline Fake *fake_new(void)
{
    static Fake *all; /* never freed, as connections may still look at it; but no leak */
    Fake *f = mem_new(sizeof *f);
    f->older = all;
    all = f;
    f->stream = -1;
    f->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof a;
    CHECK(bind(f->fd, (struct sockaddr *)&a, n) == 0 && listen(f->fd, 64) == 0);
    CHECK(getsockname(f->fd, (struct sockaddr *)&a, &n) == 0);
    snprintf(f->url, sizeof f->url, "http://127.0.0.1:%d", ntohs(a.sin_port));
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
    CHECK(pthread_create(&f->thread, NULL, fake_serve, f) == 0);
    return f;
}

static inline Fake *fake_start(void)
{
    Fake *f = fake_new();
    f->worker = fork();
    CHECK(f->worker >= 0);
    if (f->worker == 0) {
        setenv("FAKE_WORKER_URL", f->url, 1);
        execl("/proc/self/exe", "worker", (char *)NULL);
        _exit(126);
    }
    return f;
}

static inline void fake_wait(Fake *f, int64_t *left_ms) /* under the lock */
{
    CHECK(*left_ms > 0); /* the test's patience ended */
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_nsec += 20 * NS_PER_MS;
    if (t.tv_nsec >= NS_PER_S) {
        t.tv_nsec -= NS_PER_S;
        t.tv_sec++;
    }
    if (pthread_cond_timedwait(&f->changed, &f->lock, &t) != 0) *left_ms -= 20;
}

/* Says a line on the stream, once there is one. */
static inline void fake_say(Fake *f, Str line)
{
    int64_t left = 20000;
    pthread_mutex_lock(&f->lock);
    while (f->stream < 0) fake_wait(f, &left);
    Buf b = {0};
    buf_printf(&b, "%zx\r\n", line.n + 1);
    buf_put_str(&b, line);
    buf_puts(&b, "\n\r\n");
    fake_write(f->stream, b.data, b.len);
    buf_done(&b);
    pthread_mutex_unlock(&f->lock);
}

static inline void fake_sayz(Fake *f, const char *line)
{
    fake_say(f, str_from(line));
}

static inline bool fake_has(const Buf *b, const char *text)
{
    return b->len > 0 && memmem(b->data, b->len, text, strlen(text)) != NULL;
}

static inline bool fake_saw(Fake *f, const Buf *b, const char *text)
{
    pthread_mutex_lock(&f->lock);
    bool has = fake_has(b, text);
    pthread_mutex_unlock(&f->lock);
    return has;
}

/* Waits until some report, of those since the last fake_forget, holds the text. */
static inline void fake_expect(Fake *f, const char *text)
{
    int64_t left = 20000;
    pthread_mutex_lock(&f->lock);
    while (!fake_has(&f->reports, text)) {
        if (left <= 20) {
            fprintf(stderr, "never came: %s\nbut:\n%.*s\n", text, (int)f->reports.len,
                    (char *)f->reports.data);
        }
        fake_wait(f, &left);
    }
    pthread_mutex_unlock(&f->lock);
}

static inline void fake_forget(Fake *f)
{
    pthread_mutex_lock(&f->lock);
    buf_clear(&f->reports);
    pthread_mutex_unlock(&f->lock);
}

#define FAKE_SET(f, field, value)                                                                  \
    do {                                                                                           \
        pthread_mutex_lock(&(f)->lock);                                                            \
        (f)->field = (value);                                                                      \
        pthread_mutex_unlock(&(f)->lock);                                                          \
    } while (0)

#define FAKE_WAIT_FOR(f, condition)                                                                \
    do {                                                                                           \
        int64_t left_ms = 20000;                                                                   \
        pthread_mutex_lock(&(f)->lock);                                                            \
        while (!(condition)) fake_wait((f), &left_ms);                                             \
        pthread_mutex_unlock(&(f)->lock);                                                          \
    } while (0)

/* Waits for the worker to end by itself; its exit code. */
static inline int fake_join_worker(Fake *f)
{
    int status = 0;
    for (int i = 0; i < 1000; i++) {
        pid_t got = waitpid(f->worker, &status, WNOHANG);
        if (got == f->worker) {
            f->worker = 0;
            return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
        }
        nanosleep(&(struct timespec){.tv_nsec = 20 * NS_PER_MS}, NULL);
    }
    return -1;
}

static inline void fake_stop(Fake *f)
{
    if (f->worker != 0) {
        kill(f->worker, SIGKILL);
        waitpid(f->worker, NULL, 0);
    }
    shutdown(f->fd, SHUT_RDWR);
    pthread_join(f->thread, NULL);
    close(f->fd);
    /* Connections end with the worker; their threads need a moment. */
    nanosleep(&(struct timespec){.tv_nsec = 50 * NS_PER_MS}, NULL);
    pthread_mutex_lock(&f->lock);
    buf_done(&f->hello);
    buf_done(&f->reports);
    buf_done(&f->uploads);
    buf_done(&f->file);
    pthread_mutex_unlock(&f->lock);
}

#endif
