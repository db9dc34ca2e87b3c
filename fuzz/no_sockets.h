/* no_sockets.h: a gateway's handlers on a real core, called without a connection. Everything is
 * durable at once. */
#ifndef FUZZ_NO_SOCKETS_H
#define FUZZ_NO_SOCKETS_H

#include <string.h>

#include "gateway/internal.h"

#define RUNS_A_CORE 2000 /* then a fresh one: what inputs submit does not pile up */

typedef struct {
    uv_loop_t loop;
    Loop io;
    Gateway g;
    Core *core;
    LogPoint at;
    FrameBuilder b;
    Buf frame;
    int runs;
    uint64_t task_no, token; /* a task that runs */
} Bare;

static Bare bare;

static Decision bare_commit(Decision d)
{
    if (d.code == CODE_OK && bare.b.records) {
        Frame f;
        size_t len;
        buf_clear(&bare.frame);
        frame_seal(&bare.b, MAX(NS_PER_S, bare.at.time_ns), &bare.at, &bare.frame);
        CHECK(frame_read(buf_str(&bare.frame), &f, &len) == 0 && core_apply(bare.core, &f) == 0);
        CHECK(core_misfits(bare.core) == 0);
    }
    frame_reset(&bare.b);
    return d;
}

static Core *p_core(void *ctx)
{
    (void)ctx;
    return bare.core;
}
static int64_t p_now(void *ctx)
{
    (void)ctx;
    return NS_PER_S;
}
static Decision p_accepting(void *ctx)
{
    (void)ctx;
    return (Decision){.code = CODE_OK};
}
static uint64_t p_seq(void *ctx)
{
    (void)ctx;
    return bare.at.next_seq - 1;
}
static Decision p_submit(void *ctx, const SubmitSpec *s)
{
    (void)ctx;
    return bare_commit(core_submit(bare.core, s, NS_PER_S, &bare.b));
}
static QueueEstimate p_estimate(void *ctx, const Task *t)
{
    (void)ctx;
    (void)t;
    return (QueueEstimate){.ahead = SIZE_MAX};
}
static bool p_known(void *ctx, Str id)
{
    (void)ctx;
    (void)id;
    return true;
}
static ReportAnswer p_report(void *ctx, Str id, const WorkerReport *r, Buf *detail)
{
    (void)ctx;
    (void)id;
    buf_puts(detail, "seen");
    CHECK(r->files_len <= TASK_FILES_MAX && r->text.n <= 1 * MIB);
    if (r->kind == REPORT_RESULT) CHECK(r->output.n && !memchr(r->output.p, '\n', r->output.n));
    return REPORT_ACCEPTED;
}

static void o_changed(void *ctx, Task *t, TaskState before, const TaskEvent *e)
{
    (void)ctx;
    (void)before;
    gateway_task_changed(&bare.g, t, e);
}
static void o_task(void *ctx, Task *t)
{
    (void)ctx;
    (void)t;
}
static void o_freed(void *ctx, Task *t, uint64_t token, int64_t device_ns)
{
    (void)ctx;
    (void)t;
    (void)token;
    (void)device_ns;
}
static void o_void(void *ctx, Task *t, uint64_t token)
{
    (void)ctx;
    (void)t;
    (void)token;
}
static void o_file(void *ctx, const File *f)
{
    (void)ctx;
    (void)f;
}

static void bare_fresh(void)
{
    core_free(bare.core);
    CoreLimits limits;
    core_limits_default(&limits);
    bare.core = core_new(&limits, 1);
    bare.at = (LogPoint){.next_seq = 1, .epoch = 1, .holder = 7};
    Sha256 digest = {{1}};
    CoreObserver o = {NULL, o_changed, o_task, o_task, o_freed, o_void, o_task, o_file};
    core_observe(bare.core, &o, NS_PER_S);
    core_claim(bare.core, 1, 7, STR("bare"), (const uint8_t *)"0123456789abcdef", &bare.b);
    bare_commit((Decision){.code = CODE_OK});
    CHECK(bare_commit(core_put_model(bare.core, STR("echo"), STR("1"), &digest, STR("{}"), &bare.b))
              .code == CODE_OK);
    SubmitSpec s = {.tenant = STR("default"),
                    .model = STR("echo"),
                    .version = STR("1"),
                    .input = STR("1"),
                    .class = CLASS_STANDARD,
                    .max_attempts = 3,
                    .retention_s = 60};
    Decision d = p_submit(NULL, &s);
    LeaseSpec l = {.no = d.task_no, .worker = STR("w"), .batch = 1, .batch_size = 1};
    CHECK(bare_commit(core_lease(bare.core, &l, NS_PER_S, &bare.b)).code == CODE_OK);
    bare.task_no = d.task_no;
    bare.token = core_task(bare.core, d.task_no)->run->token;
}

/* Calls a handler with a body; its answer must be one whole HTTP response. */
static void bare_call(const char *path, const uint8_t *body, size_t n)
{
    Gateway *g = &bare.g;
    if (!g->loop) {
        CHECK(uv_loop_init(&bare.loop) == 0);
        loop_uv_init(&bare.io, &bare.loop);
        g->loop = &bare.io;
        gateway_options_default(&g->o);
        g->keyless = true;
        g->p = (GatewayPorts){.core = p_core,
                              .now_ns = p_now,
                              .accepting = p_accepting,
                              .last_seq = p_seq,
                              .durable_seq = p_seq,
                              .submit = p_submit,
                              .estimate = p_estimate,
                              .worker_known = p_known,
                              .worker_report = p_report};
        exchange_start_gateway(g);
        loop_timer_init(g->loop, &g->timer, NULL);
    }
    if (bare.runs++ % RUNS_A_CORE == 0) bare_fresh();
    HttpRequest r = {
        .method = HTTP_M_POST, .path = str_from(path), .query = {"", 0}, .host = STR("localhost")};
    r.body = (Str){(const char *)body, n};
    Exchange *x = exchange_new(g);
    x->req = &r;
    x->tenant = STR("default");
    x->any_tenant = true;
    x->scopes = SCOPE_SUBMIT | SCOPE_READ;
    x->params[0] = STR("worker_1");
    buf_clear(&g->text);
    buf_reserve(&g->text, 64 * KIB);
    for (size_t i = 0; i < routes_len; i++)
        if (strcmp(routes[i].pattern, path) == 0 && routes[i].method == HTTP_M_POST)
            x->route = &routes[i];
    CHECK(x->route);
    x->route->handle(x);
    CHECK(x->ended && x->out.len > 12 && memcmp(x->out.data, "HTTP/1.1 ", 9) == 0);
    CHECK(x->status >= 200 && x->status < 500);
    exchange_free(x);
}

#endif
