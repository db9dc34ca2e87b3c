/* fleet_report.c: what workers say. Reports re-enter at the front: each is decided by the core and
 * answered once it is durable. */
#include "node/inside.h"

#include <string.h>

#define TASK_LOG_MAX (64 * KIB)

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

static ReportAnswer result(Fleet *f, Worker *w, const WorkerReport *r, Buf *detail)
{
    Core *c = f->shard->core;
    const Task *t = core_task(c, r->lease.task_no);
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
        table_add(&f->logs, &l->by_task, hash_u64(t->no));
    }
    Str text = r->text;
    if (text.n > TASK_LOG_MAX) text = (Str){text.p + (text.n - TASK_LOG_MAX), TASK_LOG_MAX};
    if (l->text.len + text.n > TASK_LOG_MAX) {
        size_t drop = l->text.len + text.n - TASK_LOG_MAX;
        const uint8_t *line = memchr(l->text.data + drop, '\n', l->text.len - drop);
        buf_drop(&l->text, line ? (size_t)(line - l->text.data) + 1 : drop);
    }
    buf_put_str(&l->text, text);
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
    bool loaded = r->kind == REPORT_LOADED;
    resident_set(d, name, version, loaded ? r : NULL);
    sched_device_resident(s->sched, d->id, name, version, loaded);
    if (loaded) {
        average(&m->load_ns, r->load_ns);
        if (r->memory_bytes) m->memory_bytes = r->memory_bytes;
        if (r->max_batch) m->max_batch = MIN(r->max_batch, (uint32_t)SCHED_BATCH_MAX);
        for (size_t i = 0; i < ARRAY_LEN(m->unit_ns); i++)
            if (r->unit_ns[i]) m->unit_ns[i] = r->unit_ns[i];
        mem_free(m->problem);
        m->problem = NULL;
        fleet_model_announce(f, m);
    } else if (r->kind == REPORT_LOAD_FAILED) {
        mem_free(m->problem);
        m->problem = mem_dup(r->text.p, MIN(r->text.n, (size_t)TASK_MESSAGE_MAX));
        say_warn("worker %s cannot load %.*s:%.*s: %s", w->name, STR_ARG(r->model),
                 STR_ARG(r->version), m->problem);
    }
    return REPORT_ACCEPTED;
}

ReportAnswer fleet_report(Fleet *f, Str worker_id, const WorkerReport *r, Buf *detail)
{
    Shard *s = f->shard;
    Worker *w = fleet_worker_by_id(f, worker_id);
    if (!w) return REPORT_INVALID;
    if (s->failed) return REPORT_RETRY;
    w->seen_ns = shard_now_ns(s);
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
        return result(f, w, r, detail);
    case REPORT_ERROR:
        return error(f, r, detail);
    case REPORT_RELEASED:
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
