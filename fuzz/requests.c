/* A whole request of any bytes, from its head to the handler's answer: route, host, key, query,
 * conditions and ranges, bodies of every route. The answer is one sound HTTP response: no line that
 * the request has smuggled in, a length that fits, JSON that is JSON. The first byte says whether
 * keys are needed ("Bearer k" is one that may do anything). */
#include "no_sockets.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void tidy_up(bool all)
{
    char path[512];
    DIR *d = opendir(bare_dir);
    struct dirent *e;
    while (d && (e = readdir(d))) {
        if (e->d_name[0] == '.' || (!all && strcmp(e->d_name, BARE_FILE) == 0)) continue;
        snprintf(path, sizeof path, "%s/%s", bare_dir, e->d_name);
        if (strcmp(e->d_name, "tmp") != 0) unlink(path);
    }
    closedir(d);
    if (!all) return;
    snprintf(path, sizeof path, "%s/tmp", bare_dir);
    rmdir(path);
    rmdir(bare_dir);
}

static void tidy_all(void)
{
    tidy_up(true);
}

static void begin(void)
{
    static GatewayKey key = {.name = "k",
                             .tenant = "default",
                             .scopes = SCOPE_SUBMIT | SCOPE_READ | SCOPE_OPERATE | SCOPE_ADMIN |
                                       SCOPE_WORKER};
    char path[512];
    if (!bare.g.loop) {
        CHECK(mkdtemp(bare_dir));
        snprintf(path, sizeof path, "%s/tmp", bare_dir);
        CHECK(mkdir(path, 0700) == 0);
        snprintf(path, sizeof path, "%s/" BARE_FILE, bare_dir);
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        CHECK(fd >= 0 && write(fd, "0123456789", 10) == 10 && close(fd) == 0);
        atexit(tidy_all);
        sha256("k", 1, &key.sha256);
        memcpy(bare.g.address, "http://127.0.0.1:8700", 22);
        bare.g.keys = &key;
        bare.g.keys_len = 1;
    }
    bare_begin();
}

/* What a header line of ours may be. */
static void check_line(Str line)
{
    const char *colon = memchr(line.p, ':', line.n);
    CHECK(colon && colon > line.p && colon[1] == ' ');
    for (size_t i = 0; i < line.n; i++) CHECK(line.p[i] >= 0x20 && line.p[i] < 0x7F);
}

static Str field(Str head, const char *name)
{
    size_t n = strlen(name);
    const char *at = memmem(head.p, head.n, name, n);
    if (!at) return (Str){0};
    at += n;
    return (Str){at, (size_t)((const char *)memchr(at, '\r', head.n) - at)};
}

static void check_answer(const Exchange *x, bool head_only)
{
    Str out = buf_str(&x->out);
    const char *end = memmem(out.p, out.n, "\r\n\r\n", 4);
    CHECK(end && str_starts(out, STR("HTTP/1.1 ")));
    /* 500: of a file that an upload made and tidy_up took away. */
    bool taken = x->status == 500 && x->route && strstr(x->route->pattern, "/content");
    CHECK(x->status >= 200 && (x->status < 500 || x->status == 503 || taken));
    Str head = {out.p, (size_t)(end - out.p) + 2}, body = {end + 4, out.n - head.n - 2},
        line = head;
    for (bool first = true; line.n; first = false) {
        size_t n = (size_t)((const char *)memmem(line.p, line.n, "\r\n", 2) - line.p);
        if (!first) check_line((Str){line.p, n});
        line = (Str){line.p + n + 2, line.n - n - 2};
    }
    Str length = field(head, "Content-Length: "), type = field(head, "Content-Type: ");
    uint64_t want = 0;
    if (!length.p) {
        CHECK(x->chunked || x->status == 204 || x->status == 304);
        return;
    }
    CHECK(parse_u64(length, &want) == 0);
    CHECK(head_only ? body.n == 0 : x->ended ? body.n == want : body.n <= want);
    bool json = str_eqz(type, "application/json") || str_eqz(type, "application/problem+json");
    if (!json || head_only) return;
    yyjson_doc *doc = yyjson_read(body.p, body.n, YYJSON_READ_NUMBER_AS_RAW);
    CHECK(doc);
    yyjson_doc_free(doc);
}

static void take(void *ctx, Str piece)
{
    Exchange *x = *(Exchange **)ctx;
    if (x && x->take && !x->ended) x->take(x, piece);
}

/* The connection's part, as server.c does it, for one request. */
static void run(HttpParser *p, Str in)
{
    Exchange *x = NULL;
    Gateway *g = &bare.g;
    bool used_disk = false;
    for (HttpStep step = HTTP_HEAD_OK; step == HTTP_HEAD_OK;) {
        step = http_step(p, &in);
        if (step == HTTP_HEAD_OK) {
            uint64_t body_max = 0;
            x = exchange_new(g);
            x->req = &p->req;
            x->head_only = p->req.method == HTTP_M_HEAD;
            if (!route_head(x, &body_max)) {
                CHECK(x->ended);
                break;
            }
            p->body_max = MIN(body_max, 1 * MIB);
            if (x->route->flags & ROUTE_STREAM_IN) {
                p->take = take;
                p->ctx = &x;
                route_body(x);
            }
        } else if (step == HTTP_DONE && !x->ended) {
            x->body_whole = true;
            if (!(x->route->flags & ROUTE_STREAM_IN))
                route_body(x);
            else if (x->take)
                x->take(x, (Str){"", 0});
        }
        /* What is written or read happens on libuv's threads. */
        while (x && g->jobs) {
            used_disk = true;
            uv_run(&bare.loop, UV_RUN_ONCE);
            if (x->drained && x->answered && !x->ended && !x->held) x->drained(x);
        }
    }
    if (!x) return;
    if (x->answered) check_answer(x, x->head_only);
    x->req = NULL;
    exchange_free(x);
    while (g->jobs) uv_run(&bare.loop, UV_RUN_ONCE);
    CHECK(g->transfers == 0);
    if (used_disk) tidy_up(false);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 64 * KIB) return 0;
    say_setup(SAY_ERROR, SAY_TEXT, "fuzz");
    begin();
    bare.g.keyless = data[0] & 1;
    HttpParser p;
    http_init(&p);
    run(&p, (Str){(const char *)data + 1, size - 1});
    http_done(&p);
    return 0;
}
