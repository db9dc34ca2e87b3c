/* fleet_report.c: what workers say. Reports re-enter at the front: each is decided by the core and
 * answered once it is durable. */
#include "node/inside.h"

#include <string.h>

#define TASK_LOG_MAX (64 * KIB)

/* How long a device is closed to a model after its n-th failure to load it in a row: what lacked
 * memory may lack it for long; one that is broken is to fail its tasks before they are tired. */
#define LOAD_RETRY_NS       NS_PER_S
#define LOAD_RETRY_MAX_NS   (5 * NS_PER_S)
#define MEMORY_RETRY_MAX_NS (60 * NS_PER_S)
/* A device that hands back batch after batch is left alone for a while, longer each time. */
#define HANDED_FREE   2
#define HANDED_NS     (100 * NS_PER_MS)
#define HANDED_MAX_NS (10 * NS_PER_S)

static void average(int64_t *mean, int64_t sample)
{
    *mean = *mean ? *mean + (sample - *mean) / 8 : sample;
}

static ModelState *model_of(Fleet *f, const Task *t)
{
    return fleet_model_state(f, t->model, t->version);
}

/* A decision about a lease as an answer. */
static ReportAnswer settle(Fleet *f, Decision d, Buf *detail)
{
    Shard *s = f->shard;
    Decision refused;
    if (!shard_commit(s, true, &refused)) {
        buf_puts(detail, refused.detail);
        return REPORT_RETRY;
    }
    if (d.code == CODE_OK) return d.duplicate ? REPORT_DUPLICATE : REPORT_ACCEPTED;
    buf_puts(detail, d.detail);
    if (d.code != CODE_CONFLICT) return REPORT_INVALID;
    f->fenced_total++;
    return REPORT_FENCED;
}

/* first, doubled n − 1 times, at most `most`. */
static int64_t doubled(int64_t first, uint32_t n, int64_t most)
{
    return MIN(first << MIN(n - 1, 20u), most);
}

/* The device did what it was asked to. */
static void note_served(Fleet *f, const WorkerReport *r)
{
    const Lease *l = fleet_lease(f, r->lease.token);
    if (l) l->device->handed_back = 0;
}

/* A worker may hand back what it holds, in its drain or when it was told to stop. One that does so
 * with whatever it gets would be given it again and again. */
static void note_handed_back(Fleet *f, const WorkerReport *r)
{
    const Lease *l = fleet_lease(f, r->lease.token);
    const Task *t = core_task(f->shard->core, r->lease.task_no);
    int64_t now = shard_now_ns(f->shard);
    if (!l || !t || l->no != t->no || l->void_since_ns || l->worker->draining) return;
    if (t->deadline_ns && now >= t->deadline_ns) return;
    Device *d = l->device;
    const DeviceModel *m = device_model(d, t->model, t->version);
    if ((m && m->retry_ns) || t->run->batch == d->handed_batch) return;
    d->handed_batch = t->run->batch;
    if (++d->handed_back <= HANDED_FREE) return;
    int64_t pause = doubled(HANDED_NS, d->handed_back - HANDED_FREE, HANDED_MAX_NS);
    if (d->handed_back == HANDED_FREE + 1)
        say_warn("worker %s hands back whatever it gets: new tasks for device %u are held for a "
                 "while, longer each time",
                 l->worker->name, d->index);
    d->held_until_ns = now + pause;
    f->next_look_ns = MIN(f->next_look_ns, d->held_until_ns);
    fleet_open_devices(f, l->worker);
}

static ReportAnswer result(Fleet *f, Worker *w, const WorkerReport *r, Buf *detail)
{
    Core *c = f->shard->core;
    const Task *t = core_task(c, r->lease.task_no);
    note_served(f, r);
    if (t && t->run->token == r->lease.token) {
        ModelState *m = model_of(f, t);
        average(&m->run_ns, r->usage.run_ns);
        m->succeeded++;
        fleet_calm(f, w);
    }
    Decision d = core_succeed(c, r->lease.task_no, r->lease.token, r->output, r->files,
                              r->files_len, r->usage, &f->shard->builder);
    /* A result that cannot be kept is the model's failure: the task must not hang on it. */
    if (d.code == CODE_TOO_LARGE)
        d = core_fail(c, r->lease.task_no, r->lease.token, FAIL_BAD_OUTPUT, false,
                      str_from(d.detail), r->usage, shard_now_ns(f->shard), &f->shard->builder);
    return settle(f, d, detail);
}

/* A model's program that died under several tasks says nothing about which of them killed it: none
 * burns an attempt, and each runs alone from then on. */
static bool crashed_in_company(const Fleet *f, const Task *t, const WorkerReport *r)
{
    const Lease *l = fleet_lease(f, r->lease.token);
    return r->fail == FAIL_MODEL_CRASHED && r->retryable && t && !t->solo && l &&
           (t->run->batch_size > 1 || l->device->running > 1);
}

static ReportAnswer error(Fleet *f, const WorkerReport *r, Buf *detail)
{
    Shard *s = f->shard;
    const Task *t = core_task(s->core, r->lease.task_no);
    note_served(f, r);
    if (t && t->run->token == r->lease.token) model_of(f, t)->failed++;
    if (crashed_in_company(f, t, r))
        return settle(f,
                      core_release(s->core, r->lease.task_no, r->lease.token, FAIL_MODEL_CRASHED,
                                   false, r->usage, shard_now_ns(s), &s->builder),
                      detail);
    /* These are the platform's words, not a worker's. */
    FailCode fail = r->fail == FAIL_EXPIRED || r->fail == FAIL_WORKER_LOST ? FAIL_INTERNAL
                                                                           : r->fail;
    Decision d = core_fail(s->core, r->lease.task_no, r->lease.token, fail, r->retryable, r->text,
                           r->usage, shard_now_ns(s), &s->builder);
    return settle(f, d, detail);
}

static ReportAnswer progress(Fleet *f, const WorkerReport *r)
{
    Shard *s = f->shard;
    if (!core_progress(s->core, r->lease.task_no, r->lease.token, r->step, r->steps))
        return REPORT_FENCED;
    core_renew(s->core, r->lease.task_no, r->lease.token, shard_now_ns(s));
    s->out.task_progress(s->out.ctx, core_task(s->core, r->lease.task_no));
    return REPORT_ACCEPTED;
}

static TaskLog *task_log(const Fleet *f, uint64_t no)
{
    for (TableNode *n = table_first(&f->logs, hash_u64(no)); n; n = table_next(n)) {
        TaskLog *l = CONTAINER_OF(n, TaskLog, by_task);
        if (l->no == no) return l;
    }
    return NULL;
}

void fleet_task_log(const Fleet *f, uint64_t task_no, Buf *ret)
{
    const TaskLog *l = task_log(f, task_no);
    if (l) buf_put_str(ret, buf_str(&l->text));
}

/* The latest TASK_LOG_MAX bytes, cut at a line where there is one. */
static ReportAnswer log_text(Fleet *f, const WorkerReport *r)
{
    const Task *t = core_task(f->shard->core, r->lease.task_no);
    if (!t || !t->run->token || t->run->token != r->lease.token) return REPORT_FENCED;
    TaskLog *l = task_log(f, t->no);
    if (!l) {
        l = mem_new(sizeof *l);
        l->no = t->no;
        list_init(&l->in_fleet);
        table_add(&f->logs, &l->by_task, hash_u64(t->no));
    }
    f->logs_bytes -= l->text.len;
    Str text = r->text;
    if (text.n > TASK_LOG_MAX) text = (Str){text.p + (text.n - TASK_LOG_MAX), TASK_LOG_MAX};
    if (l->text.len + text.n > TASK_LOG_MAX) {
        size_t drop = l->text.len + text.n - TASK_LOG_MAX;
        const uint8_t *line = memchr(l->text.data + drop, '\n', l->text.len - drop);
        buf_drop(&l->text, line ? (size_t)(line - l->text.data) + 1 : drop);
    }
    buf_put_str(&l->text, text);
    f->logs_bytes += l->text.len;
    list_del(&l->in_fleet);
    list_push_back(&f->logs_order, &l->in_fleet);
    while (f->logs_bytes > LOGS_BYTES_MAX)
        fleet_log_free(f, LIST_FIRST(&f->logs_order, TaskLog, in_fleet));
    return REPORT_ACCEPTED;
}

static ReportAnswer pong(Fleet *f, const WorkerReport *r)
{
    int64_t now = shard_now_ns(f->shard);
    for (size_t i = 0; i < r->held_len; i++) {
        const Lease *l = fleet_lease(f, r->held[i].token);
        if (l) core_renew(f->shard->core, l->no, l->token, now);
    }
    return REPORT_ACCEPTED;
}

static Device *device_of(Worker *w, uint32_t index)
{
    for (uint32_t i = 0; i < w->devices_len; i++)
        if (w->devices[i]->index == index) return w->devices[i];
    return NULL;
}

static void resident_set(Device *d, Sym name, Sym version,
                         const WorkerReport *r /* NULL: not any more */)
{
    for (uint32_t i = 0; i < d->residents_len; i++) {
        if (d->residents[i].name != name || d->residents[i].version != version) continue;
        d->residents[i] = d->residents[--d->residents_len];
        break;
    }
    if (!r) return;
    d->residents = mem_grow(d->residents, (d->residents_len + 1) * sizeof *d->residents);
    d->residents[d->residents_len++] = (Resident){name, version, r->load_ns, r->memory_bytes};
}

/* It is loaded there, and takes what it takes. */
static void take_loaded(Fleet *f, Device *d, DeviceModel *dm, ModelState *m, const WorkerReport *r)
{
    average(&m->load_ns, MAX(r->load_ns, 1)); /* 0 would be: unknown */
    if (r->max_batch) m->max_batch = MIN(r->max_batch, (uint32_t)SCHED_BATCH_MAX);
    for (size_t i = 0; i < ARRAY_LEN(m->unit_ns); i++)
        if (r->unit_ns[i]) m->unit_ns[i] = r->unit_ns[i];
    mem_free(m->problem);
    m->problem = NULL;
    fleet_model_announce(f, m);
    if (!dm) return;
    mem_free(dm->problem);
    dm->problem = NULL;
    dm->failures = 0;
    if (r->memory_bytes && r->memory_bytes != dm->needs) {
        dm->measured = dm->measured || r->memory_bytes > dm->needs;
        dm->needs = r->memory_bytes;
    }
    if (dm->retry_ns)
        sched_device_can_run(f->shard->sched, d->id, dm->name, dm->version, !dm->unfit);
    dm->retry_ns = 0;
    sched_device_needs(f->shard->sched, d->id, dm->name, dm->version, dm->needs); /* F4 */
}

/* Nothing of it goes there for a while; other devices may have more luck with it meanwhile. With
 * memory_bytes it was for want of so much memory. */
static void take_load_failed(Fleet *f, Device *d, DeviceModel *dm, ModelState *m,
                             const WorkerReport *r)
{
    Shard *s = f->shard;
    mem_free(m->problem);
    m->problem = mem_dup(r->text.p, MIN(r->text.n, (size_t)TASK_MESSAGE_MAX));
    say_warn("worker %s cannot load %.*s:%.*s: %s", d->worker->name, STR_ARG(r->model),
             STR_ARG(r->version), m->problem);
    if (!dm) return;
    mem_free(dm->problem);
    dm->problem = mem_dup(m->problem, strlen(m->problem));
    if (r->memory_bytes > dm->needs) {
        dm->needs = r->memory_bytes;
        dm->measured = true;
        sched_device_needs(s->sched, d->id, dm->name, dm->version, dm->needs);
    }
    int64_t most = r->memory_bytes ? MEMORY_RETRY_MAX_NS : LOAD_RETRY_MAX_NS;
    dm->failures++;
    dm->retry_ns = shard_now_ns(s) + doubled(LOAD_RETRY_NS, dm->failures, most);
    f->next_look_ns = MIN(f->next_look_ns, dm->retry_ns);
    sched_device_can_run(s->sched, d->id, dm->name, dm->version, false);
}

static ReportAnswer telemetry(Fleet *f, Worker *w, const WorkerReport *r, Buf *detail)
{
    Shard *s = f->shard;
    Sym name = core_sym_find(s->core, r->model), version = core_sym_find(s->core, r->version);
    Device *d = device_of(w, r->device);
    if (!d || !name || !version) {
        buf_puts(detail, "no such device or model");
        return REPORT_INVALID;
    }
    ModelState *m = fleet_model_state(f, name, version);
    DeviceModel *dm = device_model(d, name, version); /* NULL: it was refused */
    bool loaded = r->kind == REPORT_LOADED;
    resident_set(d, name, version, loaded ? r : NULL);
    sched_device_resident(s->sched, d->id, name, version, loaded);
    if (loaded) take_loaded(f, d, dm, m, r);
    if (r->kind == REPORT_LOAD_FAILED) take_load_failed(f, d, dm, m, r);
    return REPORT_ACCEPTED;
}

/* A result may come before the look at what is due: with a busy loop, or a log without room. */
static bool expire_first(Fleet *f, const WorkerReport *r)
{
    Shard *s = f->shard;
    const Task *t = core_task(s->core, r->lease.task_no);
    Decision refused;
    return !t || !core_expire(t, shard_now_ns(s), &s->builder) || shard_commit(s, true, &refused);
}

static ReportAnswer take(Fleet *f, Worker *w, const WorkerReport *r, Buf *detail)
{
    Shard *s = f->shard;
    switch (r->kind) {
    case REPORT_STARTED:
        return core_renew(s->core, r->lease.task_no, r->lease.token, w->seen_ns) ? REPORT_ACCEPTED
                                                                                 : REPORT_FENCED;
    case REPORT_PROGRESS:
        return progress(f, r);
    case REPORT_LOG:
        return log_text(f, r);
    case REPORT_CHECKPOINT:
        return settle(f,
                      core_checkpoint(s->core, r->lease.task_no, r->lease.token, r->unit,
                                      r->file_no, &s->builder),
                      detail);
    case REPORT_RESULT:
        return expire_first(f, r) ? result(f, w, r, detail) : REPORT_RETRY;
    case REPORT_ERROR:
        return expire_first(f, r) ? error(f, r, detail) : REPORT_RETRY;
    case REPORT_RELEASED:
        note_handed_back(f, r);
        return settle(f,
                      core_release(s->core, r->lease.task_no, r->lease.token, FAIL_NONE, false,
                                   r->usage, w->seen_ns, &s->builder),
                      detail);
    case REPORT_PONG:
        return pong(f, r);
    case REPORT_LOADED:
    case REPORT_UNLOADED:
    case REPORT_LOAD_FAILED:
        return telemetry(f, w, r, detail);
    }
    CHECK(!"a report kind");
    return REPORT_INVALID;
}

ReportAnswer fleet_report(Fleet *f, Str worker_id, const WorkerReport *r, Buf *detail)
{
    Shard *s = f->shard;
    Worker *w = fleet_worker_by_id(f, worker_id);
    if (!w) return REPORT_INVALID;
    if (s->failed) return REPORT_RETRY;
    w->seen_ns = shard_now_ns(s);
    ReportAnswer a = take(f, w, r, detail);
    /* Any report renews the lease that it names. Those that end it need not; `started` and
     * `progress` have done it. */
    if (a == REPORT_RETRY || r->kind == REPORT_LOG || r->kind == REPORT_CHECKPOINT)
        (void)core_renew(s->core, r->lease.task_no, r->lease.token, w->seen_ns);
    return a;
}
