/* no_sockets.h: a gateway's handlers on a real core, called without a connection. Everything is
 * durable at once. */
#ifndef FUZZ_NO_SOCKETS_H
#define FUZZ_NO_SOCKETS_H

#include <stddef.h>
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

/* Files lie there; the core has one of them, "file_" and 26 zeros, of 10 bytes. */
#define BARE_FILE "file_00000000000000000000000000"
static char bare_dir[] = "/tmp/headrace-fuzz-XXXXXX";

static inline Decision bare_commit(Decision d)
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
static Decision p_cancel(void *ctx, uint64_t no)
{
    (void)ctx;
    return bare_commit(core_cancel(bare.core, no, NS_PER_S, &bare.b));
}
static Decision p_forget(void *ctx, uint64_t no)
{
    (void)ctx;
    return bare_commit(core_forget(bare.core, no, &bare.b));
}
static Decision p_put_file(void *ctx, Str id, Str tenant, uint64_t size, const Sha256 *sha256,
                           Str name, Str type, uint64_t owner)
{
    (void)ctx;
    return bare_commit(
        core_put_file(bare.core, id, tenant, size, sha256, name, type, owner, NS_PER_S, &bare.b));
}
static Decision p_delete_file(void *ctx, uint64_t file_no)
{
    (void)ctx;
    return bare_commit(core_delete_file(bare.core, file_no, &bare.b));
}
static Decision p_pause(void *ctx, Str name, bool paused)
{
    (void)ctx;
    return bare_commit(core_set_flag(bare.core, STR("model_paused"), name, paused, &bare.b));
}
static Decision p_warm(void *ctx, Str name, int replicas)
{
    (void)ctx;
    CHECK(name.n && replicas >= -1 && replicas <= 64);
    return (Decision){.code = CODE_OK};
}
static Decision p_order(void *ctx, Str id, Str order)
{
    (void)ctx;
    CHECK(order.n);
    return (Decision){.code = str_eqz(id, "worker_1") ? CODE_OK : CODE_NOT_FOUND};
}
static Decision p_hello(void *ctx, const WorkerHello *h, char id_out[40], Buf *refused, Buf *stale)
{
    (void)ctx;
    (void)refused;
    (void)stale;
    CHECK(h->devices_len && h->name.p && h->region.p && h->runtime.p);
    for (size_t i = 0; i < h->models_len; i++) CHECK(h->models[i].name.n && h->models[i].version.n);
    memcpy(id_out, "worker_1", 9);
    return (Decision){.code = CODE_OK};
}
static void p_stream(void *ctx, Str id, bool open)
{
    (void)ctx;
    (void)id;
    (void)open;
}
static bool p_holds(void *ctx, Str id, uint64_t no)
{
    (void)ctx;
    (void)id;
    return no == bare.task_no;
}
static bool p_live(void *ctx, uint64_t no, uint64_t token)
{
    (void)ctx;
    return no == bare.task_no && token == bare.token;
}
static void p_workers_json(void *ctx, Str id, Buf *ret)
{
    (void)ctx;
    if (!id.n) buf_puts(ret, "[]");
    if (str_eqz(id, "worker_1")) buf_puts(ret, "{}");
}
static void p_model_json(void *ctx, const ModelEntry *m, Buf *ret)
{
    (void)ctx;
    (void)m;
    buf_puts(ret, ",\"loaded_on\":[]");
}
static void p_queues_json(void *ctx, Buf *ret)
{
    (void)ctx;
    buf_puts(ret, "[]");
}
static void p_log(void *ctx, uint64_t no, Buf *ret)
{
    (void)ctx;
    (void)no;
    buf_puts(ret, "what it printed\n");
}
static void p_metrics(void *ctx, Buf *ret)
{
    (void)ctx;
    buf_puts(ret, "headrace_x 1\n");
}
static bool p_ready(void *ctx, Buf *why)
{
    (void)ctx;
    (void)why;
    return true;
}
static Decision p_backup(void *ctx, void (*more)(void *arg), void *arg)
{
    (void)ctx;
    (void)more;
    (void)arg;
    return (Decision){.code = CODE_CONFLICT};
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
    CHECK(p_put_file(NULL, STR(BARE_FILE), STR("default"), 10, &digest, STR("a \"b\" \xC3\xA9.png"),
                     STR("image/png"), 0)
              .code == CODE_OK);
    bare.task_no = d.task_no;
    bare.token = core_task(bare.core, d.task_no)->run->token;
}

static void bare_begin(void)
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
                              .cancel = p_cancel,
                              .forget = p_forget,
                              .put_file = p_put_file,
                              .delete_file = p_delete_file,
                              .pause_model = p_pause,
                              .warm_model = p_warm,
                              .worker_order = p_order,
                              .worker_hello = p_hello,
                              .worker_stream = p_stream,
                              .worker_holds = p_holds,
                              .lease_is_live = p_live,
                              .workers_json = p_workers_json,
                              .model_json = p_model_json,
                              .queues_json = p_queues_json,
                              .task_log = p_log,
                              .metrics = p_metrics,
                              .ready = p_ready,
                              .backup_begin = p_backup,
                              .estimate = p_estimate,
                              .worker_known = p_known,
                              .worker_report = p_report};
        exchange_start_gateway(g);
        loop_timer_init(g->loop, &g->timer, NULL);
        if (!strstr(bare_dir, "XXXXXX")) CHECK(disk_posix_open(bare_dir, &g->files) == 0);
        static max_align_t no_listener[512]; /* without connections: metrics count them */
        g->listener = (TcpListener *)no_listener;
    }
    if (bare.runs++ % RUNS_A_CORE == 0) bare_fresh();
}

/* Calls a handler with a body; its answer must be one whole HTTP response. */
static inline void bare_call(const char *path, const uint8_t *body, size_t n)
{
    bare_begin();
    Gateway *g = &bare.g;
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
