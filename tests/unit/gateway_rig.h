/* gateway_rig.h: a gateway on a real core, with a log whose syncs the test decides, and clients
 * over loopback. */
#ifndef GATEWAY_RIG_H
#define GATEWAY_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "gateway/gateway.h"

#define WORKER_KEY "hr_worker_test"
#define WORKER     "worker_01TEST"

typedef struct {
    uv_loop_t loop;
    Loop io;
    Gateway *g;
    GatewayOptions o;
    GatewayPorts ports;
    Core *core;
    LogPoint at;
    FrameBuilder b;
    Buf frame;
    uint64_t durable;
    bool hold; /* records stay not durable until rig_sync */
    int64_t now_ns;
    Decision accepting;
    char dir[64];
    int port;
    int streams_opened, streams_closed, orders, reports;
    bool log_full; /* reports find no room */
    char last_order[16];
    bool no_worker, ready;
} Rig;

static inline Decision rig_commit(Rig *r, Decision d)
{
    if (d.code == CODE_OK && r->b.records) {
        Frame f;
        size_t len;
        buf_clear(&r->frame);
        frame_seal(&r->b, MAX(r->now_ns, r->at.time_ns), &r->at, &r->frame);
        assert_int_equal(frame_read(buf_str(&r->frame), &f, &len), 0);
        assert_int_equal(core_apply(r->core, &f), 0);
        assert_int_equal(core_misfits(r->core), 0);
    }
    frame_reset(&r->b);
    return d;
}

/* ---- ports ---- */

static inline Core *rig_core(void *ctx)
{
    return ((Rig *)ctx)->core;
}
static inline int64_t rig_now(void *ctx)
{
    return ((Rig *)ctx)->now_ns;
}
static inline Decision rig_accepting(void *ctx)
{
    return ((Rig *)ctx)->accepting;
}
static inline uint64_t rig_last(void *ctx)
{
    return ((Rig *)ctx)->at.next_seq - 1;
}
static inline uint64_t rig_durable(void *ctx)
{
    return ((Rig *)ctx)->durable;
}
static inline Decision rig_submit(void *ctx, const SubmitSpec *s)
{
    Rig *r = ctx;
    return rig_commit(r, core_submit(r->core, s, r->now_ns, &r->b));
}
static inline Decision rig_cancel(void *ctx, uint64_t no)
{
    Rig *r = ctx;
    return rig_commit(r, core_cancel(r->core, no, r->now_ns, &r->b));
}
static inline Decision rig_forget(void *ctx, uint64_t no)
{
    Rig *r = ctx;
    return rig_commit(r, core_forget(r->core, no, &r->b));
}
static inline Decision rig_put_file(void *ctx, Str id, Str tenant, uint64_t size, const Sha256 *sha,
                                    Str name, Str type, uint64_t owner)
{
    Rig *r = ctx;
    return rig_commit(
        r, core_put_file(r->core, id, tenant, size, sha, name, type, owner, r->now_ns, &r->b));
}
static inline Decision rig_delete_file(void *ctx, uint64_t no)
{
    Rig *r = ctx;
    return rig_commit(r, core_delete_file(r->core, no, &r->b));
}
static inline Decision rig_pause(void *ctx, Str name, bool paused)
{
    Rig *r = ctx;
    return rig_commit(r, core_set_flag(r->core, STR("model_paused"), name, paused, &r->b));
}
static inline Decision rig_order(void *ctx, Str id, Str order)
{
    Rig *r = ctx;
    r->orders++;
    snprintf(r->last_order, sizeof r->last_order, "%.*s", STR_ARG(order));
    if (str_eqz(id, WORKER)) return (Decision){.code = CODE_OK};
    return (Decision){.code = CODE_NOT_FOUND, .detail = "no such worker"};
}
static inline Decision rig_hello(void *ctx, const WorkerHello *h, char id[40], Buf *refused,
                                 Buf *stale)
{
    (void)ctx;
    (void)refused;
    assert_true(h->devices_len >= 1);
    for (size_t i = 0; i < h->running_len; i++) {
        if (stale->len) buf_putc(stale, ',');
        buf_printf(stale, "%llu", (unsigned long long)h->running[i].token);
    }
    strcpy(id, WORKER);
    return (Decision){.code = CODE_OK};
}
static inline bool rig_known(void *ctx, Str id)
{
    return !((Rig *)ctx)->no_worker && str_eqz(id, WORKER);
}
static inline void rig_stream(void *ctx, Str id, bool open)
{
    (void)id;
    if (open)
        ((Rig *)ctx)->streams_opened++;
    else
        ((Rig *)ctx)->streams_closed++;
}
static inline ReportAnswer rig_answer(Decision d)
{
    return d.duplicate               ? REPORT_DUPLICATE
           : d.code == CODE_CONFLICT ? REPORT_FENCED
           : d.code == CODE_OK       ? REPORT_ACCEPTED
                                     : REPORT_INVALID;
}
static inline ReportAnswer rig_report(void *ctx, Str id, const WorkerReport *w, Buf *detail)
{
    Rig *r = ctx;
    (void)id;
    (void)detail;
    r->reports++;
    if (r->log_full) return REPORT_RETRY;
    uint64_t no = w->lease.task_no, token = w->lease.token;
    switch (w->kind) {
    case REPORT_RESULT:
        if (!no) return REPORT_FENCED;
        return rig_answer(rig_commit(r, core_succeed(r->core, no, token, w->output, w->files,
                                                     w->files_len, w->usage, &r->b)));
    case REPORT_ERROR:
        if (!no) return REPORT_FENCED;
        return rig_answer(rig_commit(r, core_fail(r->core, no, token, w->fail, w->retryable,
                                                  w->text, w->usage, r->now_ns, &r->b)));
    case REPORT_PROGRESS:
        if (!core_progress(r->core, no, token, w->step, w->steps)) return REPORT_FENCED;
        gateway_task_progress(r->g, core_task(r->core, no));
        return REPORT_ACCEPTED;
    default:
        return REPORT_ACCEPTED;
    }
}
static inline bool rig_holds(void *ctx, Str id, uint64_t no)
{
    (void)ctx;
    (void)id;
    (void)no;
    return true;
}
static inline bool rig_live(void *ctx, uint64_t no, uint64_t token)
{
    const Task *t = core_task(((Rig *)ctx)->core, no);
    return t && token && t->run->token == token;
}
static inline QueueEstimate rig_estimate(void *ctx, const Task *t)
{
    (void)ctx;
    (void)t;
    return (QueueEstimate){.ahead = 3};
}
static inline void rig_workers(void *ctx, Str id, Buf *ret)
{
    (void)ctx;
    if (!id.n)
        buf_puts(ret, "[]");
    else if (str_eqz(id, WORKER))
        buf_puts(ret, "{\"id\":\"" WORKER "\"}");
}
static inline void rig_model(void *ctx, const ModelEntry *m, Buf *ret)
{
    (void)ctx;
    (void)m;
    buf_puts(ret, ",\"loaded_on\":[]");
}
static inline void rig_queues(void *ctx, Buf *ret)
{
    (void)ctx;
    buf_puts(ret, "[]");
}
static inline void rig_log(void *ctx, uint64_t no, Buf *ret)
{
    (void)ctx;
    (void)no;
    buf_puts(ret, "printed\n");
}
static inline void rig_metrics(void *ctx, Buf *ret)
{
    (void)ctx;
    buf_puts(ret, "headrace_rig 1\n");
}
static inline bool rig_ready(void *ctx, Buf *why)
{
    if (!((Rig *)ctx)->ready) buf_puts(why, "no workers yet");
    return ((Rig *)ctx)->ready;
}

/* ---- the core's observer ---- */

static inline void rig_changed(void *ctx, Task *t, TaskState before, const TaskEvent *e)
{
    (void)before;
    if (((Rig *)ctx)->g) gateway_task_changed(((Rig *)ctx)->g, t, e);
}
static inline void rig_nothing(void *ctx, Task *t)
{
    (void)ctx;
    (void)t;
}
static inline void rig_freed(void *ctx, Task *t, uint64_t token, int64_t device_ns)
{
    (void)ctx;
    (void)t;
    (void)token;
    (void)device_ns;
}
static inline void rig_void(void *ctx, Task *t, uint64_t token)
{
    (void)ctx;
    (void)t;
    (void)token;
}
static inline void rig_leaving(void *ctx, Task *t)
{
    if (((Rig *)ctx)->g) gateway_task_leaving(((Rig *)ctx)->g, t);
}
static inline void rig_file_leaving(void *ctx, const File *f)
{
    if (((Rig *)ctx)->g) gateway_file_leaving(((Rig *)ctx)->g, f);
}

/* ---- life ---- */

static inline void rig_options(Rig *r)
{
    memset(r, 0, sizeof *r);
    gateway_options_default(&r->o);
    r->o.listen = "127.0.0.1:0";
    sha256(WORKER_KEY, strlen(WORKER_KEY), &r->o.worker_key.sha256);
    r->ready = true;
    r->now_ns = INT64_C(1795000000) * NS_PER_S;
    r->ports = (GatewayPorts){
        .ctx = r,
        .core = rig_core,
        .now_ns = rig_now,
        .accepting = rig_accepting,
        .last_seq = rig_last,
        .durable_seq = rig_durable,
        .submit = rig_submit,
        .cancel = rig_cancel,
        .forget = rig_forget,
        .put_file = rig_put_file,
        .delete_file = rig_delete_file,
        .pause_model = rig_pause,
        .worker_order = rig_order,
        .worker_hello = rig_hello,
        .worker_known = rig_known,
        .worker_stream = rig_stream,
        .worker_report = rig_report,
        .worker_holds = rig_holds,
        .lease_is_live = rig_live,
        .estimate = rig_estimate,
        .workers_json = rig_workers,
        .model_json = rig_model,
        .queues_json = rig_queues,
        .task_log = rig_log,
        .metrics = rig_metrics,
        .ready = rig_ready,
    };
}

static inline void rig_sync(Rig *r)
{
    r->durable = rig_last(r);
    gateway_durable(r->g, r->durable);
}

static inline void rig_open(Rig *r)
{
    strcpy(r->dir, "/tmp/hr-gateway-XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    r->o.files_dir = r->dir;
    assert_int_equal(uv_loop_init(&r->loop), 0);
    loop_uv_init(&r->io, &r->loop);
    CoreLimits limits;
    core_limits_default(&limits);
    r->core = core_new(&limits, 1);
    r->at.next_seq = 1;
    Sha256 digest = {{1}};
    core_claim(r->core, 1, 7, STR("rig"), (const uint8_t *)"0123456789abcdef", &r->b);
    r->at.epoch = 1;
    r->at.holder = 7;
    rig_commit(r, (Decision){.code = CODE_OK});
    CoreObserver ob = {r,         rig_changed, rig_nothing, rig_nothing,
                       rig_freed, rig_void,    rig_leaving, rig_file_leaving};
    core_observe(r->core, &ob, r->now_ns);
    rig_commit(r, core_put_model(r->core, STR("echo"), STR("1"), &digest, STR("{}"), &r->b));
    rig_commit(r, core_put_model(r->core, STR("echo"), STR("2"), &digest, STR("{}"), &r->b));
    r->durable = rig_last(r);
    Buf why = {0};
    if (gateway_open(&r->io, &r->o, &r->ports, &r->g, &why)) fail_msg("%s", buf_z(&why));
    buf_done(&why);
    r->port = atoi(strrchr(gateway_address(r->g), ':') + 1);
}

static inline void rig_turn(Rig *r)
{
    uv_run(&r->loop, UV_RUN_NOWAIT);
    if (!r->hold && r->durable != rig_last(r)) rig_sync(r);
}

static inline void rig_close(Rig *r)
{
    gateway_close(r->g);
    while (uv_run(&r->loop, UV_RUN_NOWAIT)) {
    }
    gateway_free(r->g);
    r->g = NULL;
    assert_int_equal(uv_loop_close(&r->loop), 0);
    core_free(r->core);
    frame_done(&r->b);
    buf_done(&r->frame);
    char cmd[100];
    snprintf(cmd, sizeof cmd, "rm -rf %s", r->dir);
    assert_int_equal(system(cmd), 0);
}

/* ---- clients ---- */

static inline int rig_connect(Rig *r)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)r->port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

/* Sends all of it, with turns of the loop in between. False: the server has closed. */
static inline bool rig_send(Rig *r, int fd, const void *p, size_t n)
{
    const char *at = p;
    for (int quiet = 0; n && quiet < 20000;) {
        ssize_t k = send(fd, at, n, MSG_NOSIGNAL);
        if (k > 0) {
            at += k;
            n -= (size_t)k;
            quiet = 0;
        } else if (k < 0 && errno != EAGAIN) {
            return false;
        } else {
            quiet++;
        }
        rig_turn(r);
    }
    return n == 0;
}

static inline void rig_say(Rig *r, int fd, const char *z)
{
    assert_true(rig_send(r, fd, z, strlen(z)));
}

/* What comes, until `until` is in it, the peer closes, or nothing comes for a while.
 * NUL-terminated in ret. */
static inline bool rig_recv(Rig *r, int fd, const char *until, Buf *ret)
{
    bool closed = false;
    for (int quiet = 0; quiet < 300 && !closed; quiet++) {
        rig_turn(r);
        for (;;) {
            buf_reserve(ret, 65536);
            ssize_t k = recv(fd, ret->data + ret->len, 65536, 0);
            if (k > 0) {
                ret->len += (size_t)k;
                quiet = 0;
                continue;
            }
            closed = k == 0 || (k < 0 && errno != EAGAIN);
            break;
        }
        if (until && strstr(buf_z(ret), until)) return true;
        if (quiet > 50) usleep(1000);
    }
    buf_z(ret);
    return closed;
}

/* One call on its own connection, which the server ends; the whole answer, in a static buffer. */
static inline const char *rig_call_with(Rig *r, const char *method, const char *target,
                                        const char *headers, const char *body, size_t body_len)
{
    static Buf answer, request;
    buf_clear(&answer);
    buf_clear(&request);
    buf_printf(&request, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s", method,
               target, headers ? headers : "");
    if (body) buf_printf(&request, "Content-Length: %zu\r\n", body_len);
    buf_puts(&request, "\r\n");
    buf_put(&request, body, body_len);
    int fd = rig_connect(r);
    (void)rig_send(r, fd, request.data, request.len);
    rig_recv(r, fd, NULL, &answer);
    close(fd);
    rig_turn(r);
    return buf_z(&answer);
}

#define JSON      "Content-Type: application/json\r\n"
#define NDJSON    "Content-Type: application/x-ndjson\r\n"
#define AS_WORKER "Authorization: Bearer " WORKER_KEY "\r\n"

static inline const char *rig_get(Rig *r, const char *target)
{
    return rig_call_with(r, "GET", target, NULL, NULL, 0);
}
static inline const char *rig_post(Rig *r, const char *target, const char *headers,
                                   const char *body)
{
    return rig_call_with(r, "POST", target, headers, body ? body : "", body ? strlen(body) : 0);
}

static inline int rig_status(const char *answer)
{
    return strncmp(answer, "HTTP/1.1 ", 9) == 0 ? atoi(answer + 9) : 0;
}
static inline const char *rig_body(const char *answer)
{
    const char *p = strstr(answer, "\r\n\r\n");
    return p ? p + 4 : "";
}

#define ASSERT_STATUS(answer, want)                                                                \
    do {                                                                                           \
        const char *answer_ = (answer);                                                            \
        if (rig_status(answer_) != (want)) fail_msg("wanted %d, got: %.600s", (want), answer_);    \
    } while (0)
#define ASSERT_HAS(text, part)                                                                     \
    do {                                                                                           \
        const char *text_ = (text);                                                                \
        if (!strstr(text_, (part))) fail_msg("no %s in: %.1500s", (part), text_);                  \
    } while (0)

/* The id of the first task or file in an answer. */
static inline void rig_id(const char *answer, const char *prefix, char ret[40])
{
    const char *p = strstr(rig_body(answer), prefix);
    if (!p) fail_msg("no %s in: %.600s", prefix, answer);
    snprintf(ret, 40, "%.31s", p);
}

static inline void rig_submit_echo(Rig *r, char id[40])
{
    const char *a = rig_post(r, "/v1/tasks", JSON, "{\"model\":\"echo\",\"input\":{\"a\":1}}");
    ASSERT_STATUS(a, 202);
    rig_id(a, "task_", id);
}

static inline Task *rig_task(Rig *r, const char *id)
{
    Task *t = NULL;
    assert_int_equal(core_find(r->core, str_from(id), (Str){"", 0}, &t), CODE_OK);
    return t;
}

/* Leases a task; its token. */
static inline uint64_t rig_lease(Rig *r, const char *id)
{
    LeaseSpec l = {.no = rig_task(r, id)->no, .worker = STR(WORKER), .batch = 1, .batch_size = 1};
    Decision d = rig_commit(r, core_lease(r->core, &l, r->now_ns, &r->b));
    if (d.code != CODE_OK) fail_msg("lease: %s", d.detail);
    return rig_task(r, id)->run->token;
}

static inline void rig_succeed(Rig *r, const char *id, uint64_t token, const char *output)
{
    Decision d = rig_commit(r, core_succeed(r->core, rig_task(r, id)->no, token, str_from(output),
                                            NULL, 0, (Usage){5, 6}, &r->b));
    if (d.code != CODE_OK) fail_msg("succeed: %s", d.detail);
}

#endif
