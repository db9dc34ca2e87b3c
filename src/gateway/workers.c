/* The worker protocol (docs/worker-protocol.md), server side: register, the stream of orders,
 * reports. */
#include "gateway/internal.h"

#include <stdio.h>
#include <string.h>

#define PROTOCOL         1
#define REPORT_LINES_MAX 4096
#define DEVICES_MAX      64
#define MODELS_MAX       1024
#define RUNNING_MAX      4096
#define TEXT_MAX         4096 /* of a model's description */
/* What the fleet keeps of a worker's words. */
#define NAME_MAX_LEN    63
#define KIND_MAX_LEN    31
#define RUNTIME_MAX_LEN 127
/* No sum or product that the scheduler makes of a worker's numbers may overflow. */
#define DURATION_MAX (30 * 86400 * NS_PER_S)
#define MEMORY_MAX   (1ULL << 50)

/* ---- register ---- */

static yyjson_val *in(yyjson_val *obj, const char *name)
{
    return yyjson_obj_get(obj, name);
}

static Str str_in(yyjson_val *obj, const char *name)
{
    Str s = {"", 0};
    (void)json_val_str(in(obj, name), &s);
    return s;
}

static uint64_t uint_in(yyjson_val *obj, const char *name)
{
    uint64_t v = 0;
    (void)json_val_uint(in(obj, name), &v);
    return v;
}

static uint32_t u32_in(yyjson_val *obj, const char *name)
{
    return (uint32_t)MIN(uint_in(obj, name), (uint64_t)UINT32_MAX);
}

/* Names go into tables, metrics and the server's own lines: no control character gets there. */
static bool shown_valid(Str s, size_t max)
{
    if (s.n > max) return false;
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7F) return false;
    return true;
}

/* At most max bytes of it, cut between characters. */
static Str clipped(Str s, size_t max)
{
    if (s.n <= max) return s;
    while (max && ((unsigned char)s.p[max] & 0xC0) == 0x80) max--;
    return (Str){s.p, max};
}

static bool name_valid(Str s, size_t max)
{
    if (s.n == 0 || s.n > max) return false;
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] <= 0x20 || s.p[i] == 0x7F || s.p[i] == ':' || s.p[i] == '/')
            return false;
    return true;
}

/* Lists of a hello; false: *fault. */
static bool read_devices(yyjson_val *list, WorkerDevice *ret, size_t *len, JsonFault *f)
{
    size_t i, n;
    yyjson_val *v;
    if (!yyjson_is_arr(list) || !yyjson_arr_size(list) || yyjson_arr_size(list) > DEVICES_MAX) {
        json_fault(f, "devices", "\"devices\" must be a list of 1 to %d objects", DEVICES_MAX);
        return false;
    }
    yyjson_arr_foreach(list, i, n, v)
    {
        ret[i] = (WorkerDevice){.index = u32_in(v, "index"),
                                .kind = str_in(v, "kind"),
                                .memory_bytes = MIN(uint_in(v, "memory_bytes"), MEMORY_MAX),
                                .threads = u32_in(v, "threads")};
        if (!ret[i].kind.n || !shown_valid(ret[i].kind, KIND_MAX_LEN)) {
            json_fault(f, "devices",
                       "device %zu needs a \"kind\" of at most %d bytes, such as \"cpu\" or "
                       "\"cuda\"",
                       i, KIND_MAX_LEN);
            return false;
        }
        for (size_t k = 0; k < i; k++) {
            if (ret[k].index != ret[i].index) continue;
            json_fault(f, "devices", "devices %zu and %zu have the same \"index\"", k, i);
            return false;
        }
    }
    *len = yyjson_arr_size(list);
    return true;
}

static bool read_models(yyjson_val *list, WorkerModel *ret, size_t *len, JsonFault *f)
{
    size_t i, n;
    yyjson_val *v;
    if (list && (!yyjson_is_arr(list) || yyjson_arr_size(list) > MODELS_MAX)) {
        json_fault(f, "models", "\"models\" must be a list of at most %d objects", MODELS_MAX);
        return false;
    }
    yyjson_arr_foreach(list, i, n, v)
    {
        WorkerModel *m = &ret[i];
        *m = (WorkerModel){
            .name = str_in(v, "name"),
            .version = str_in(v, "version"),
            .engine = clipped(str_in(v, "engine"), 64),
            .description = clipped(str_in(v, "description"), TEXT_MAX), /* it goes into a frame */
            .max_batch = u32_in(v, "max_batch"),
            .batch_delay_ms = u32_in(v, "batch_delay_ms"),
            .continuous = yyjson_is_true(in(v, "continuous")),
            .memory_bytes = MIN(uint_in(v, "memory_bytes"), MEMORY_MAX),
            .min_warm = MIN(u32_in(v, "min_warm"), 64U),
            .device_kind = str_in(v, "device_kind"),
        };
        if (!name_valid(m->name, 128) || !name_valid(m->version, 64)) {
            json_fault(f, "models",
                       "model %zu needs a \"name\" and a \"version\" without blanks, ':' and '/'",
                       i);
            return false;
        }
        if (!shown_valid(m->device_kind, KIND_MAX_LEN)) {
            json_fault(f, "models", "the \"device_kind\" of \"%.*s\" has at most %d bytes",
                       STR_ARG(m->name), KIND_MAX_LEN);
            return false;
        }
        if (sha256_from_hex(str_in(v, "digest"), &m->digest)) {
            json_fault(f, "models",
                       "the \"digest\" of \"%.*s\" must be a SHA-256 in 64 hexadecimal digits",
                       STR_ARG(m->name));
            return false;
        }
    }
    *len = list ? yyjson_arr_size(list) : 0;
    return true;
}

static bool read_running(Gateway *g, yyjson_val *list, WorkerHeld *ret, size_t *len, JsonFault *f)
{
    size_t i, n;
    yyjson_val *v;
    if (list && (!yyjson_is_arr(list) || yyjson_arr_size(list) > RUNNING_MAX)) {
        json_fault(f, "running", "\"running\" must be a list of at most %d objects", RUNNING_MAX);
        return false;
    }
    yyjson_arr_foreach(list, i, n, v)
    {
        ret[i] = (WorkerHeld){.task_no = query_task_no(g, str_in(v, "id")),
                              .token = uint_in(v, "token")};
    }
    *len = list ? yyjson_arr_size(list) : 0;
    return true;
}

static bool speaks(yyjson_val *list)
{
    size_t i, n;
    yyjson_val *v;
    uint64_t version;
    yyjson_arr_foreach(list, i, n,
                       v) if (json_val_uint(v, &version) && version == PROTOCOL) return true;
    return false;
}

void worker_register(Exchange *x)
{
    Gateway *g = x->g;
    JsonFault f = {0};
    yyjson_val *root = json_read(&g->json, x->req->body, &f);
    struct {
        WorkerDevice devices[DEVICES_MAX];
        WorkerModel models[MODELS_MAX];
        WorkerHeld running[RUNNING_MAX];
    } *lists = mem_new(sizeof *lists);
    Buf refused = {0}, stale = {0};
    WorkerHello h = {.devices = lists->devices, .models = lists->models, .running = lists->running};
    char id[40] = "";
    if (f.bad) goto out;
    if (!yyjson_is_obj(root))
        json_fault(&f, NULL, "a JSON object is expected");
    else if (!speaks(in(root, "protocol")))
        json_fault(
            &f, "protocol",
            "this server speaks version %d of the worker protocol; \"protocol\" must list it",
            PROTOCOL);
    if (f.bad) goto out;
    h.name = str_in(root, "name");
    h.region = str_in(root, "region");
    h.former_id = str_in(root, "worker");
    h.runtime = str_in(root, "runtime");
    (void)json_val_int(in(root, "pid"), &h.pid);
    h.foreign = x->foreign_worker;
    if (h.name.n == 0 || !shown_valid(h.name, NAME_MAX_LEN) ||
        !shown_valid(h.region, NAME_MAX_LEN) || !shown_valid(h.runtime, RUNTIME_MAX_LEN))
        json_fault(&f, "name",
                   "\"name\" must be 1 to %d bytes long, \"region\" at most %d, \"runtime\" at "
                   "most %d, without control characters",
                   NAME_MAX_LEN, NAME_MAX_LEN, RUNTIME_MAX_LEN);
    else if (h.former_id.n && !name_valid(h.former_id, 39))
        json_fault(&f, "worker", "\"worker\" must be the id that a former answer gave");
    if (f.bad || !read_devices(in(root, "devices"), lists->devices, &h.devices_len, &f) ||
        !read_models(in(root, "models"), lists->models, &h.models_len, &f) ||
        !read_running(g, in(root, "running"), lists->running, &h.running_len, &f))
        goto out;
    Decision d = g->p.worker_hello(g->p.ctx, &h, id, &refused, &stale);
    if (d.code != CODE_OK) {
        Problem p = problem_of_decision(&d);
        problem_reply(x, &p);
    } else {
        exchange_hold(x, g->p.last_seq(g->p.ctx));
        Buf *b = &g->body;
        buf_clear(b);
        buf_puts(b, "{\"worker\":");
        json_put_str(b, str_from(id));
        buf_printf(b, ",\"protocol\":%d,\"lease_s\":%lld,\"ping_s\":%d,\"refused\":[", PROTOCOL,
                   (long long)(core_limits(core_of(g))->lease_ns / NS_PER_S), (int)g->o.ping_s);
        buf_put_str(b, buf_str(&refused));
        buf_puts(b, "],\"stale\":[");
        buf_put_str(b, buf_str(&stale));
        buf_puts(b, "]}");
        exchange_reply_json(x, 200);
    }
out:
    if (f.bad) {
        Problem p = problem_of_fault(&f);
        problem_reply(x, &p);
    }
    buf_done(&refused);
    buf_done(&stale);
    mem_free(lists);
}

/* ---- the stream ---- */

typedef struct {
    TableNode node;
    Gateway *g;
    Exchange *x;
    char id[40];
} WorkerStream;

static WorkerStream *stream_of(Gateway *g, Str id)
{
    for (TableNode *n = table_first(&g->streams, hash_bytes(id.p, id.n)); n; n = table_next(n)) {
        WorkerStream *s = CONTAINER_OF(n, WorkerStream, node);
        if (str_eqz(id, s->id)) return s;
    }
    return NULL;
}

static void forget_stream(WorkerStream *s, bool tell)
{
    Gateway *g = s->g;
    s->x->state = NULL;
    s->x->drop = NULL;
    table_del(&g->streams, &s->node);
    if (tell && !g->closing) g->p.worker_stream(g->p.ctx, str_from(s->id), false);
    mem_free(s);
}

static void drop_stream(Exchange *x)
{
    forget_stream(x->state, true);
}

static bool known_worker(Exchange *x)
{
    Gateway *g = x->g;
    if (x->params[0].n < 40 && g->p.worker_known(g->p.ctx, x->params[0])) return true;
    problem_say(x, 404, CODE_NOT_FOUND, NULL, "there is no worker \"%.*s\" here; register again",
                (int)MIN(x->params[0].n, (size_t)60), x->params[0].p);
    return false;
}

void worker_stream(Exchange *x)
{
    Gateway *g = x->g;
    if (!known_worker(x)) return;
    if (x->head_only) {
        exchange_begin(x, 200, "application/x-ndjson", -1);
        return;
    }
    WorkerStream *old = stream_of(g, x->params[0]);
    /* the newer one counts: the worker would not have opened it if the old one were alive */
    if (old) {
        Exchange *other = old->x;
        forget_stream(old, false);
        other->close = true;
        exchange_end(other);
    }
    WorkerStream *s = mem_new(sizeof *s);
    s->g = g;
    s->x = x;
    snprintf(s->id, sizeof s->id, "%.*s", STR_ARG(x->params[0]));
    table_add(&g->streams, &s->node, hash_bytes(s->id, strlen(s->id)));
    x->state = s;
    x->drop = drop_stream;
    exchange_begin(x, 200, "application/x-ndjson", -1);
    g->p.worker_stream(g->p.ctx, str_from(s->id), true);
}

void gateway_worker_send(Gateway *g, Str worker_id, Str line, uint64_t hold_seq)
{
    WorkerStream *s = stream_of(g, worker_id);
    if (s) exchange_put(s->x, line, hold_seq);
}

void gateway_worker_kick(Gateway *g, Str worker_id)
{
    WorkerStream *s = stream_of(g, worker_id);
    if (!s) return;
    Exchange *x = s->x;
    forget_stream(s, true);
    x->close = true;
    exchange_end(x);
}

void worker_done_gateway(Gateway *g)
{
    table_done(&g->streams); /* its nodes went with their exchanges */
}

/* ---- reports ---- */

static const char *const kinds[] = {"started", "progress", "checkpoint", "log",      "result",
                                    "error",   "released", "pong",       "telemetry"};
static const char *const answers[] = {"accepted", "duplicate", "fenced", "invalid", "retry"};
_Static_assert(ARRAY_LEN(answers) == REPORT_RETRY + 1, "a word for each ReportAnswer");

typedef struct {
    WorkerReport r;
    uint64_t files[TASK_FILES_MAX];
    WorkerHeld held[RUNNING_MAX];
    char why[400];
} Report;

static bool invalid(Report *p, const char *fmt, ...) HR_PRINTF(2, 3);
static bool invalid(Report *p, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->why, sizeof p->why, fmt, ap);
    va_end(ap);
    return false;
}

static bool read_lease(Exchange *x, Report *p)
{
    const Json *j = &x->g->json;
    const JsonMember *id = json_member(j, "id"), *token = json_member(j, "token");
    Str text;
    if (!id || !json_val_str(id->val, &text)) return invalid(p, "\"id\" must be a task's id");
    if (!token || !json_val_uint(token->val, &p->r.lease.token) ||
        p->r.lease.token > (uint64_t)INT64_MAX)
        return invalid(p, "\"token\" must be the lease's token");
    p->r.lease.task_no = core_id_no(text); /* the token is what counts */
    return true;
}

static int64_t duration(uint64_t ns)
{
    return (int64_t)MIN(ns, (uint64_t)DURATION_MAX);
}

static bool read_usage(const Json *j, Report *p)
{
    uint64_t device = 0, run = 0;
    JsonFault f = {0};
    if (json_uint(json_member(j, "device_ns"), 0, UINT64_MAX, &device, &f) &&
        json_uint(json_member(j, "run_ns"), 0, UINT64_MAX, &run, &f)) {
        p->r.usage = (Usage){duration(device), duration(run)};
        return true;
    }
    return invalid(p, "%s", f.detail);
}

static bool read_result(Exchange *x, Report *p)
{
    const Json *j = &x->g->json;
    const JsonMember *out = NULL;
    Problem problem;
    for (size_t i = 0; i < j->members_len; i++)
        if (str_eqz(j->members[i].name, "output")) out = &j->members[i];
    if (!out) return invalid(p, "\"output\" is missing");
    if (out->text.n > TASK_INLINE_MAX)
        return invalid(p, "the output has %zu bytes; over %zu upload it as a file and refer to it",
                       out->text.n, TASK_INLINE_MAX);
    p->r.output = out->text;
    p->r.files = p->files;
    const Task *t = core_task(core_of(x->g), p->r.lease.task_no);
    if (!t || (!memchr(out->text.p, '$', out->text.n) && !memchr(out->text.p, '\\', out->text.n)))
        return true;
    if (submit_files(x, out->val, core_sym(core_of(x->g), t->tenant), "output", p->files,
                     &p->r.files_len, &problem))
        return true;
    return invalid(p, "%s", problem.detail);
}

static bool read_error(const Json *j, Report *p)
{
    JsonFault f = {0};
    Str code = {"", 0};
    if (!json_str(json_member(j, "code"), 1, 64, &code, &f) ||
        !json_str(json_member(j, "message"), 0, 1 * MIB, &p->r.text, &f) ||
        !json_bool(json_member(j, "retryable"), &p->r.retryable, &f))
        return invalid(p, "%s", f.detail);
    if (fail_from(code, &p->r.fail) || p->r.fail == FAIL_NONE)
        return invalid(
            p, "\"code\" must be one of model_error, model_crashed, out_of_memory, bad_input, "
               "bad_output, timeout, "
               "internal");
    /* A message is for people and bounded: cut between characters. */
    p->r.text = clipped(p->r.text, TASK_MESSAGE_MAX);
    return true;
}

static bool read_checkpoint(Exchange *x, Report *p)
{
    const Json *j = &x->g->json;
    JsonFault f = {0};
    Str id = {"", 0};
    if (!json_uint(json_member(j, "unit"), 0, INT64_MAX, &p->r.unit, &f) ||
        !json_str(json_member(j, "file"), 1, 64, &id, &f))
        return invalid(p, "%s", f.detail);
    if (!id.n) return true;
    const File *file = core_file_find(core_of(x->g), id, (Str){"", 0});
    if (!file || file->owner_task != p->r.lease.task_no)
        return invalid(p, "\"file\" is not a file of this task");
    p->r.file_no = file->no;
    return true;
}

static bool read_telemetry(const Json *j, Report *p)
{
    JsonFault f = {0};
    Str event = {"", 0};
    uint64_t device = 0, load = 0, batch = 0;
    if (!json_str(json_member(j, "event"), 1, 32, &event, &f) ||
        !json_str(json_member(j, "model"), 1, 128, &p->r.model, &f) ||
        !json_str(json_member(j, "version"), 1, 64, &p->r.version, &f) ||
        !json_uint(json_member(j, "device"), 0, UINT32_MAX, &device, &f) ||
        !json_uint(json_member(j, "load_ns"), 0, UINT64_MAX, &load, &f) ||
        !json_uint(json_member(j, "memory_bytes"), 0, UINT64_MAX, &p->r.memory_bytes, &f) ||
        !json_uint(json_member(j, "max_batch"), 0, UINT32_MAX, &batch, &f) ||
        !json_str(json_member(j, "message"), 0, 64 * KIB, &p->r.text, &f))
        return invalid(p, "%s", f.detail);
    if (str_eqz(event, "loaded"))
        p->r.kind = REPORT_LOADED;
    else if (str_eqz(event, "unloaded"))
        p->r.kind = REPORT_UNLOADED;
    else if (str_eqz(event, "load_failed"))
        p->r.kind = REPORT_LOAD_FAILED;
    else
        return invalid(p, "\"event\" must be loaded, unloaded or load_failed");
    if (!p->r.model.p || !p->r.version.p) return invalid(p, "\"model\" and \"version\" are needed");
    p->r.device = (uint32_t)device;
    p->r.load_ns = duration(load);
    p->r.memory_bytes = MIN(p->r.memory_bytes, MEMORY_MAX);
    p->r.max_batch = (uint32_t)batch;
    p->r.text = clipped(p->r.text, TASK_MESSAGE_MAX);
    const JsonMember *unit = json_member(j, "unit_ns");
    size_t i, n;
    yyjson_val *key, *val;
    if (!unit) return true;
    yyjson_obj_foreach(unit->val, i, n, key, val)
    {
        uint64_t size, ns;
        if (parse_u64((Str){yyjson_get_str(key), yyjson_get_len(key)}, &size) ||
            !json_val_uint(val, &ns) || size < 1 || size > 256 || (size & (size - 1)))
            return invalid(p, "\"unit_ns\" gives nanoseconds for batches of 1, 2, 4 … 256");
        p->r.unit_ns[__builtin_ctzll(size)] = duration(ns);
    }
    return true;
}

static bool read_pong(const Json *j, Report *p)
{
    const JsonMember *held = json_member(j, "held");
    size_t i, n;
    yyjson_val *v;
    p->r.held = p->held;
    if (!held) return true;
    if (!yyjson_is_arr(held->val) || yyjson_arr_size(held->val) > RUNNING_MAX)
        return invalid(p, "\"held\" must be a list of at most %d tokens", RUNNING_MAX);
    yyjson_arr_foreach(held->val, i, n, v)
    {
        p->held[i].task_no = 0;
        if (!json_val_uint(v, &p->held[i].token))
            return invalid(p, "\"held\" must be a list of tokens");
    }
    p->r.held_len = yyjson_arr_size(held->val);
    return true;
}

static bool read_report(Exchange *x, Str line, Report *p)
{
    Json *j = &x->g->json;
    JsonFault f = {0};
    Str kind = {"", 0};
    uint64_t step = 0, steps = 0;
    memset(&p->r, 0, sizeof p->r);
    if (!json_read_object(j, line, NULL, &f) || !json_str(json_member(j, "t"), 1, 32, &kind, &f))
        return invalid(p, "%s", f.detail);
    size_t k = 0;
    while (k < ARRAY_LEN(kinds) && !str_eqz(kind, kinds[k])) k++;
    if (k == ARRAY_LEN(kinds))
        return invalid(p,
                       "\"t\" must name a report, such as \"result\"; see docs/worker-protocol.md");
    p->r.kind = (ReportKind)k;
    if (k == ARRAY_LEN(kinds) - 1) return read_telemetry(j, p);
    if (p->r.kind == REPORT_PONG) return read_pong(j, p);
    if (!read_lease(x, p) || !read_usage(j, p)) return false;
    switch (p->r.kind) {
    case REPORT_PROGRESS:
        if (!json_uint(json_member(j, "step"), 0, UINT32_MAX, &step, &f) ||
            !json_uint(json_member(j, "steps"), 0, UINT32_MAX, &steps, &f))
            return invalid(p, "%s", f.detail);
        p->r.step = (uint32_t)step;
        p->r.steps = (uint32_t)steps;
        return true;
    case REPORT_CHECKPOINT:
        return read_checkpoint(x, p);
    case REPORT_LOG:
        return json_str(json_member(j, "text"), 0, 1 * MIB, &p->r.text, &f) ||
               invalid(p, "%s", f.detail);
    case REPORT_RESULT:
        return read_result(x, p);
    case REPORT_ERROR:
        return read_error(j, p);
    default:
        return true;
    }
}

void worker_reports(Exchange *x)
{
    Gateway *g = x->g;
    if (!known_worker(x)) return;
    Report *p = mem_new(sizeof *p);
    Buf detail = {0}, answer = {0}, *out = &answer; /* the ports call back into the gateway */
    Str left = x->req->body;
    size_t lines = 0;
    bool durable = false; /* something that is on record, or will be */
    while (left.n) {
        const char *end = memchr(left.p, '\n', left.n);
        Str line = {left.p, end ? (size_t)(end - left.p) : left.n};
        size_t used = line.n + (end != NULL);
        left.p += used;
        left.n -= used;
        if (line.n && line.p[line.n - 1] == '\r') line.n--;
        if (!line.n) continue;
        if (++lines > REPORT_LINES_MAX) {
            buf_puts(
                out,
                "{\"status\":\"invalid\",\"detail\":\"at most 4096 lines a call; send this one "
                "again\"}\n");
            continue;
        }
        buf_clear(&detail);
        ReportAnswer a = REPORT_INVALID;
        if (read_report(x, line, p)) {
            a = g->p.worker_report(g->p.ctx, x->params[0], &p->r, &detail);
            durable |= p->r.kind == REPORT_CHECKPOINT || p->r.kind == REPORT_RESULT ||
                       p->r.kind == REPORT_ERROR || p->r.kind == REPORT_RELEASED;
        } else {
            buf_puts(&detail, p->why);
        }
        buf_puts(out, "{\"status\":\"");
        buf_puts(out, answers[a]);
        buf_putc(out, '"');
        if (detail.len) {
            buf_puts(out, ",\"detail\":");
            json_put_str(out, buf_str(&detail));
        }
        buf_put(out, "}\n", 2);
    }
    if (durable) exchange_hold(x, g->p.last_seq(g->p.ctx));
    exchange_reply(x, 200, "application/x-ndjson", buf_str(out));
    buf_done(&detail);
    buf_done(&answer);
    mem_free(p);
}
