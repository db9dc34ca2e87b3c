/* apply.c: the only code that changes logged state (I1). Each apply_… takes one record; false means
 * that the record does not fit the state: a deterministic no-op, counted. */
#include "task/core.h"

#include <string.h>

typedef struct {
    Core *c;
    uint64_t seq;
    int64_t time_ns;
} At;

/* ---- pieces of state ---- */

TaskExtra *task_extra(Task *t)
{
    if (!t->extra) t->extra = mem_new(sizeof *t->extra);
    return t->extra;
}

static void set_text(Buf *b, Str s)
{
    buf_done(b);
    buf_put_str(b, s);
}

/* The latest failure; FAIL_NONE leaves none behind. */
static void set_failure(Core *c, Task *t, uint8_t fail, bool retryable, Str message)
{
    task_run(c, t)->fail = fail;
    t->run->fail_retryable = retryable;
    if (t->extra || message.n) set_text(&task_extra(t)->error, message);
}

static void payload_set(Core *c, Payload *p, const PayloadRef *r)
{
    if (r->erased) {
        p->len = r->len;
        p->forgotten = true;
    } else {
        payloads_put(c->payloads, p, r->bytes);
    }
}

static void payload_forget(Core *c, Payload *p)
{
    payloads_drop(c->payloads, p);
    p->forgotten = true;
}

static uint64_t payload_bytes(const Task *t)
{
    return (payload_is_there(&t->input) ? t->input.len : 0) +
           (payload_is_there(&t->run->output) ? t->run->output.len : 0);
}

const TaskRun task_no_run;

TaskRun *task_run(Core *c, Task *t)
{
    if (t->run == &task_no_run) {
        t->run = pool_take(&c->runs);
        t->run->task = t;
        list_init(&t->run->settled);
    }
    return t->run;
}

Task *task_new(Core *c)
{
    Task *t = pool_take(&c->pool);
    t->run = (TaskRun *)&task_no_run;
    return t;
}

void task_room_for_events(TaskRun *r, uint32_t cap)
{
    CHECK(cap <= 2 * TASK_EVENTS_MAX);
    if (cap <= ARRAY_LEN(r->first_events)) {
        r->events = r->first_events;
        r->events_cap = ARRAY_LEN(r->first_events);
        return;
    }
    TaskEvent *more = mem_new(cap * sizeof *more);
    if (r->events_len) memcpy(more, r->events, r->events_len * sizeof *more);
    if (r->events != r->first_events) mem_free(r->events);
    r->events = more;
    r->events_cap = (uint16_t)cap;
}

void task_free(Core *c, Task *t)
{
    if (!t) return;
    payloads_drop(c->payloads, &t->input);
    if (t->run != &task_no_run) {
        payloads_drop(c->payloads, &t->run->output);
        if (t->run->events != t->run->first_events) mem_free(t->run->events);
        pool_give(&c->runs, t->run);
    }
    if (t->extra) {
        buf_done(&t->extra->metadata);
        buf_done(&t->extra->traceparent);
        buf_done(&t->extra->error);
        mem_free(t->extra->files);
        mem_free(t->extra);
    }
    pool_give(&c->pool, t);
}

void core_task_forget(Core *c, Task *decoded)
{
    payload_forget(c, &decoded->input);
    payload_forget(c, &task_run(c, decoded)->output);
}

void file_free(File *f)
{
    if (!f) return;
    mem_free(f->name);
    mem_free(f->content_type);
    mem_free(f);
}

/* ---- files ---- */

void file_link(Core *c, File *f)
{
    directory_set(&c->files, f->no, f);
    table_add(&c->files_by_id, &f->by_id, hash_bytes(f->id, strlen(f->id)));
}

static void file_remove(Core *c, File *f, bool for_good)
{
    if (c->observed && for_good) c->observer.file_leaving(c->observer.ctx, f);
    heap_del(&c->file_timers, &f->timer);
    directory_set(&c->files, f->no, NULL);
    table_del(&c->files_by_id, &f->by_id);
    file_free(f);
}

static void task_add_files(Core *c, Task *t, const NumberList *l)
{
    if (l->len == 0) return;
    TaskExtra *x = task_extra(t);
    x->files = mem_grow(x->files, (x->files_len + l->len) * sizeof *x->files);
    for (uint32_t i = 0; i < l->len; i++) {
        uint64_t no = number_list_at(l, i);
        File *f = core_file(c, no);
        if (f && f->refs++ == 0) file_retime(c, f); /* it stays as long as a task refers to it */
        x->files[x->files_len++] = no;
    }
}

/* The task lets go of its files. Those that a task's worker wrote live and die with the tasks that
 * refer to them; to_history: there, from now on, when it is the task that made them. */
static void task_drop_files(Core *c, Task *t, bool to_history)
{
    TaskExtra *x = t->extra;
    if (!x) return;
    for (uint16_t i = 0; i < x->files_len; i++) {
        File *f = core_file(c, x->files[i]);
        if (!f) continue;
        CHECK(f->refs > 0);
        f->refs--;
        if (f->refs == 0 && f->owner_task)
            file_remove(c, f, !to_history || f->owner_task != t->no);
        else
            file_retime(c, f);
    }
    mem_free(x->files);
    x->files = NULL;
    x->files_len = 0;
}

/* ---- counts, lists, events ---- */

void settled_link(Core *c, Task *t)
{
    list_push_back(&c->settled, &task_run(c, t)->settled);
    c->finished_bytes += payload_bytes(t);
}

static void settle(const At *at, Task *t)
{
    t->run->settled_seq = at->seq;
    settled_link(at->c, t); /* keeps I4 */
}

static void count(Core *c, const Task *t, TaskState s, int by)
{
    c->counts[s] += (uint64_t)(int64_t)by;
    tenant_get(c, t->tenant)->tasks[s] += (uint64_t)(int64_t)by;
}

/* For a task that a snapshot brings: what apply would have counted. Its `settled` link is made by
 * the restore, in order. */
void task_link(Core *c, Task *t)
{
    directory_set(&c->tasks, t->no, t);
    count(c, t, (TaskState)t->state, 1);
    for (size_t i = 0; i < task_files_len(t); i++) {
        File *f = core_file(c, t->extra->files[i]);
        if (f) f->refs++;
    }
}

static const TaskEvent *task_event(Task *t, const At *at, EventKind kind)
{
    if (t->run->events_len == TASK_EVENTS_MAX) { /* the first stay, the middle goes */
        memmove(t->run->events + TASK_EVENTS_MAX / 2, t->run->events + TASK_EVENTS_MAX / 2 + 1,
                (TASK_EVENTS_MAX / 2 - 1) * sizeof *t->run->events);
        t->run->events_len--;
    }
    if (t->run->events_len == t->run->events_cap)
        task_room_for_events(t->run, 2 * t->run->events_cap);
    TaskEvent *e = &t->run->events[t->run->events_len++];
    *e = (TaskEvent){.seq = at->seq,
                     .time_ns = at->time_ns,
                     .kind = (uint8_t)kind,
                     .state = t->state,
                     .attempt = t->run->attempt,
                     .fail = t->run->fail};
    return e;
}

/* The one place where a task's state changes. The edges of the diagram in task.h, and no others. */
static void task_move(const At *at, Task *t, TaskState to)
{
    static const bool edge[TASK_STATES][TASK_STATES] = {
        [TASK_QUEUED] = {[TASK_RUNNING] = true, [TASK_CANCELED] = true, [TASK_EXPIRED] = true},
        [TASK_RUNNING] = {[TASK_QUEUED] = true,
                          [TASK_SUCCEEDED] = true,
                          [TASK_FAILED] = true,
                          [TASK_CANCELED] = true,
                          [TASK_EXPIRED] = true},
    };
    Core *c = at->c;
    CHECK(edge[t->state][to]);
    if (t->state == TASK_QUEUED) task_make_unready(c, t);
    count(c, t, (TaskState)t->state, -1);
    t->state = (uint8_t)to;
    count(c, t, to, 1);
    task_run(c, t)->last_seq = at->seq;
    if (!task_state_terminal(to)) return;
    t->run->finished_ns = at->time_ns;
    t->run->step = t->run->steps = 0;
    if (!t->run->token) settle(at, t);
}

static void tell_changed(const At *at, Task *t, TaskState before, EventKind kind)
{
    const TaskEvent *e = task_event(t, at, kind);
    if (at->c->observed) at->c->observer.task_changed(at->c->observer.ctx, t, before, e);
    task_retime(at->c, t);
}

/* The lease ends here, and is charged here: nowhere else, so once (I2). */
static void end_lease(const At *at, Task *t, int64_t device_ns, int64_t run_ns)
{
    uint64_t token = t->run->token;
    CHECK(token != 0);
    t->run->token = 0;
    t->run->ended_token = token;
    t->run->lease_until_ns = 0;
    t->run->step = t->run->steps = 0;
    t->run->device_ns = time_sum(t->run->device_ns, device_ns);
    t->run->run_ns = time_sum(t->run->run_ns, run_ns);
    Tenant *tenant = tenant_get(at->c, t->tenant);
    tenant->device_ns_total = time_sum(tenant->device_ns_total, device_ns);
    if (at->c->observed) at->c->observer.slot_freed(at->c->observer.ctx, t, token, device_ns);
}

/* ---- idempotency ---- */

IdemEntry *idem_find(const Core *c, Digest128 key)
{
    for (TableNode *n = table_first(&c->idem, key.lo); n; n = table_next(n)) {
        IdemEntry *e = CONTAINER_OF(n, IdemEntry, node);
        if (digest128_eq(e->key, key)) return e;
    }
    return NULL;
}

void idem_link(Core *c, IdemEntry *e)
{
    table_add(&c->idem, &e->node, e->key.lo);
    list_push_back(e->lingers ? &c->idem_linger : &c->idem_order, &e->order);
    tenant_get(c, e->tenant)->idem_keys++;
}

static void idem_remove(Core *c, IdemEntry *e)
{
    table_del(&c->idem, &e->node);
    list_del(&e->order);
    tenant_get(c, e->tenant)->idem_keys--;
    mem_free(e);
}

static bool idem_still_needed(const Core *c, const IdemEntry *e)
{
    const Task *t = core_task(c, e->no);
    return t && !task_state_terminal((TaskState)t->state);
}

static bool apply_idem_expire(const At *at, const RecIdemExpire *r)
{
    Core *c = at->c;
    LIST_FOR (e, &c->idem_linger, IdemEntry, order)
        if (!idem_still_needed(c, e)) idem_remove(c, e);
    LIST_FOR (e, &c->idem_order, IdemEntry, order) {
        if (e->accepted_ns >= r->before_ns) break;
        if (!idem_still_needed(c, e)) {
            idem_remove(c, e);
            continue;
        }
        e->lingers = true;
        list_del(&e->order);
        list_push_back(&c->idem_linger, &e->order);
    }
    return true;
}

/* ---- records ---- */

static bool apply_claim(const At *at, const RecClaim *r)
{
    Core *c = at->c;
    c->epoch = r->epoch;
    if (r->id_key.n == sizeof c->id_key) memcpy(c->id_key, r->id_key.p, sizeof c->id_key);
    c->feature_level = MAX(c->feature_level, r->feature_level);
    return true;
}

static bool apply_submit(const At *at, const RecSubmit *r)
{
    Core *c = at->c;
    if (r->no != c->next_no || r->class >= CLASSES || r->tenant.n == 0 ||
        !time_fits(r->not_before_ns) || !time_fits(r->deadline_ns) || !id_fits(r->retry_of) ||
        r->input.len > TASK_INLINE_MAX)
        return false;
    Task *t = task_new(c);
    c->next_no++;
    t->no = r->no;
    t->created_seq = at->seq;
    t->created_epoch = (uint32_t)c->epoch;
    t->created_ns = at->time_ns;
    t->not_before_ns = r->not_before_ns;
    t->deadline_ns = r->deadline_ns;
    t->tenant = sym_intern(c, r->tenant);
    t->model = sym_intern(c, r->model);
    t->version = sym_intern(c, r->version);
    t->retention_s = r->retention_s;
    t->class = r->class;
    t->max_attempts = r->max_attempts;
    t->state = TASK_QUEUED;
    if (r->metadata.n || r->traceparent.n || r->retry_of.n || r->rollout) {
        TaskExtra *x = task_extra(t);
        set_text(&x->metadata, r->metadata);
        set_text(&x->traceparent, r->traceparent);
        memcpy(x->retry_of.z, r->retry_of.p, MIN(r->retry_of.n, (size_t)TASK_ID_LEN));
        x->rollout = r->rollout;
        x->rollout_arm = r->rollout_arm;
    }
    payload_set(c, &t->input, &r->input);
    task_add_files(c, t, &r->files);
    directory_set(&c->tasks, t->no, t);
    count(c, t, TASK_QUEUED, 1);
    tenant_get(c, t->tenant)->submitted_total++;
    if (r->has_key && !idem_find(c, r->key)) {
        IdemEntry *e = mem_new(sizeof *e);
        *e = (IdemEntry){.key = r->key,
                         .body = r->body,
                         .no = t->no,
                         .accepted_ns = at->time_ns,
                         .tenant = t->tenant};
        idem_link(c, e);
    }
    if (c->observed) {
        TaskEvent created = {
            .seq = at->seq, .time_ns = at->time_ns, .kind = EVENT_CREATED, .state = TASK_QUEUED};
        c->observer.task_changed(c->observer.ctx, t, TASK_QUEUED, &created);
        if (t->not_before_ns <= at->time_ns) task_make_ready(c, t);
    }
    task_retime(c, t);
    return true;
}

static bool apply_lease(const At *at, const RecLease *r)
{
    Core *c = at->c;
    Task *t = core_task(c, r->no);
    if (!t || t->state != TASK_QUEUED) return false;
    task_move(at, t, TASK_RUNNING);
    t->run->token = at->seq;
    t->run->attempt = (uint8_t)(t->run->burned + 1);
    t->run->worker = sym_intern(c, r->worker);
    t->run->device = (uint16_t)r->device;
    t->run->batch = r->batch;
    t->run->batch_size = r->batch_size;
    t->run->started_ns = at->time_ns;
    if (!t->run->first_started_ns) t->run->first_started_ns = at->time_ns;
    t->run->fail = FAIL_NONE;
    t->run->fail_retryable = false;
    t->run->progress_n = 0;
    t->run->lease_until_ns = at->time_ns + c->limits.lease_ns;
    tell_changed(at, t, TASK_QUEUED, EVENT_LEASED);
    return true;
}

static Task *leased(const Core *c, uint64_t no, uint64_t token)
{
    Task *t = core_task(c, no);
    return t && token != 0 && t->run->token == token ? t : NULL;
}

static bool apply_finish(const At *at, const RecFinish *r)
{
    Core *c = at->c;
    Task *t = leased(c, r->no, r->token);
    if (!t || t->state != TASK_RUNNING || r->fail >= FAILS || !time_fits(r->device_ns) ||
        !time_fits(r->run_ns) || r->output.len > TASK_INLINE_MAX)
        return false;
    if (r->burn) t->run->burned++;
    set_failure(c, t, r->ok ? FAIL_NONE : r->fail, r->retryable, r->message);
    if (r->ok) {
        payload_set(c, &t->run->output, &r->output);
        task_add_files(c, t, &r->files);
    }
    end_lease(at, t, r->device_ns, r->run_ns);
    task_move(at, t, r->ok ? TASK_SUCCEEDED : TASK_FAILED);
    tell_changed(at, t, TASK_RUNNING, EVENT_FINISHED);
    return true;
}

static bool apply_requeue(const At *at, const RecRequeue *r)
{
    Core *c = at->c;
    Task *t = leased(c, r->no, r->token);
    if (!t || t->state != TASK_RUNNING || r->fail >= FAILS || !time_fits(r->not_before_ns) ||
        !time_fits(r->device_ns) || !time_fits(r->run_ns))
        return false;
    if (r->burn) t->run->burned++;
    if (r->loss) t->run->platform_losses++;
    set_failure(c, t, r->fail, true, r->message);
    if (r->fail == FAIL_MODEL_CRASHED) t->solo = true;
    t->not_before_ns = r->not_before_ns;
    end_lease(at, t, r->device_ns, r->run_ns);
    task_move(at, t, TASK_QUEUED);
    tell_changed(at, t, TASK_RUNNING, EVENT_REQUEUED);
    if (c->observed && t->not_before_ns <= at->time_ns) task_make_ready(c, t);
    task_retime(c, t);
    return true;
}

/* CANCEL and EXPIRE: at once, also while running; the lease stays until its holder lets go. */
static bool apply_stop(const At *at, uint64_t no, TaskState to)
{
    Core *c = at->c;
    Task *t = core_task(c, no);
    if (!t || task_state_terminal((TaskState)t->state)) return false;
    TaskState before = (TaskState)t->state;
    if (to == TASK_EXPIRED)
        set_failure(c, t, FAIL_EXPIRED, false, STR("the deadline passed before the task finished"));
    else
        set_failure(c, t, FAIL_NONE, false, STR(""));
    task_move(at, t, to);
    tell_changed(at, t, before, EVENT_FINISHED);
    if (c->observed && t->run->token) c->observer.lease_void(c->observer.ctx, t, t->run->token);
    return true;
}

static bool apply_slot_free(const At *at, const RecSlotFree *r)
{
    Task *t = leased(at->c, r->no, r->token);
    if (!t || !task_state_terminal((TaskState)t->state) || !time_fits(r->device_ns) ||
        !time_fits(r->run_ns))
        return false;
    end_lease(at, t, r->device_ns, r->run_ns);
    t->run->last_seq = at->seq;
    settle(at, t);
    task_retime(at->c, t);
    return true;
}

static void leave(Core *c, Task *t, bool to_history)
{
    if (c->observed) c->observer.task_leaving(c->observer.ctx, t);
    heap_del(&c->timers, &t->run->timer);
    task_drop_files(c, t, to_history);
    list_del(&t->run->settled);
    c->finished_bytes -= payload_bytes(t);
    count(c, t, (TaskState)t->state, -1);
    directory_set(&c->tasks, t->no, NULL);
    task_free(c, t);
}

static bool apply_evict(const At *at, uint64_t no)
{
    Task *t = core_task(at->c, no);
    if (!t || !task_state_terminal((TaskState)t->state) || t->run->token) return false;
    leave(at->c, t, false);
    return true;
}

static bool apply_history(const At *at, const RecHistory *r)
{
    at->c->history_seq = MAX(at->c->history_seq, r->settled_seq);
    LIST_FOR (run, &at->c->settled, TaskRun, settled) {
        if (run->settled_seq > r->settled_seq) break;
        leave(at->c, run->task, true);
    }
    return true;
}

static bool apply_forget(const At *at, uint64_t no)
{
    Core *c = at->c;
    Task *t = core_task(c, no);
    if (!t) return no && no < c->next_no; /* it is in the history view only: nothing to keep here */
    if (!task_state_terminal((TaskState)t->state) || t->input.forgotten) return false;
    if (!t->run->token) c->finished_bytes -= payload_bytes(t);
    payload_forget(c, &t->input);
    payload_forget(c, &t->run->output);
    task_drop_files(c, t, false);
    t->run->last_seq = at->seq;
    tell_changed(at, t, (TaskState)t->state, EVENT_FORGOTTEN);
    return true;
}

static bool apply_file_put(const At *at, const RecFilePut *r)
{
    Core *c = at->c;
    if (r->no != c->next_file_no || r->id.n == 0 || r->id.n >= sizeof((File *)0)->id ||
        !id_fits(r->id) || r->tenant.n == 0 || r->sha256.n != sizeof(Sha256) ||
        !time_fits(r->expires_ns))
        return false;
    File *f = mem_new(sizeof *f);
    c->next_file_no++;
    f->no = r->no;
    memcpy(f->id, r->id.p, r->id.n);
    f->tenant = sym_intern(c, r->tenant);
    f->size = r->size;
    memcpy(f->sha256.b, r->sha256.p, sizeof f->sha256.b);
    f->created_ns = at->time_ns;
    f->expires_ns = r->expires_ns;
    f->owner_task = r->owner_task;
    f->name = mem_dup(r->name.p, r->name.n);
    f->content_type = mem_dup(r->content_type.p, r->content_type.n);
    file_link(c, f);
    file_retime(c, f);
    return true;
}

static bool apply_file_delete(const At *at, uint64_t no)
{
    File *f = core_file(at->c, no);
    if (!f) return false;
    file_remove(at->c, f, true);
    return true;
}

ModelEntry *model_entry(Core *c, Sym name, Sym version)
{
    for (uint32_t i = 0; i < c->models_len; i++)
        if (c->models[i].name == name && c->models[i].version == version) return &c->models[i];
    c->models = mem_grow(c->models, (c->models_len + 1) * sizeof *c->models);
    ModelEntry *m = &c->models[c->models_len++];
    *m = (ModelEntry){.name = name,
                      .version = version,
                      .paused = core_flag(c, STR("model_paused"), core_sym(c, name))};
    return m;
}

static bool apply_model(const At *at, const RecModel *r)
{
    Core *c = at->c;
    if (r->name.n == 0 || r->digest.n != sizeof(Sha256)) return false;
    ModelEntry *m = model_entry(c, sym_intern(c, r->name), sym_intern(c, r->version));
    memcpy(m->digest.b, r->digest.p, sizeof m->digest.b);
    mem_free(m->info);
    m->info = mem_dup(r->info.p, r->info.n);
    return true;
}

void flag_set(Core *c, Str kind, Str subject, bool on)
{
    if (core_flag(c, kind, subject) == on) return;
    if (on) {
        c->flags = mem_grow(c->flags, (c->flags_len + 1) * sizeof *c->flags);
        c->flags[c->flags_len++] = (Flag){mem_dup(kind.p, kind.n), mem_dup(subject.p, subject.n)};
        return;
    }
    for (uint32_t i = 0; i < c->flags_len; i++) {
        if (!str_eqz(kind, c->flags[i].kind) || !str_eqz(subject, c->flags[i].subject)) continue;
        mem_free(c->flags[i].kind);
        mem_free(c->flags[i].subject);
        memmove(&c->flags[i], &c->flags[i + 1], (c->flags_len - i - 1) * sizeof *c->flags);
        c->flags_len--;
        return;
    }
}

static bool apply_flag(const At *at, const RecFlag *r)
{
    Core *c = at->c;
    if (!flag_fits(r->kind) || !flag_fits(r->subject)) return false;
    flag_set(c, r->kind, r->subject, r->on);
    if (str_eqz(r->kind, "model_paused")) {
        Sym name = sym_intern(c, r->subject);
        for (uint32_t i = 0; i < c->models_len; i++)
            if (c->models[i].name == name) c->models[i].paused = r->on;
    }
    return true;
}

static bool apply_checkpoint(const At *at, const RecCheckpoint *r)
{
    Core *c = at->c;
    Task *t = leased(c, r->no, r->token);
    if (!t || t->state != TASK_RUNNING) return false;
    TaskExtra *x = task_extra(t);
    x->checkpoint_unit = r->unit;
    x->checkpoint_file = r->file;
    t->run->last_seq = at->seq;
    return true;
}

static bool apply_record(const At *at, RecordType type, const RecordData *d)
{
    switch (type) {
    case REC_CLAIM:
        return apply_claim(at, &d->claim);
    case REC_SUBMIT:
        return apply_submit(at, &d->submit);
    case REC_LEASE:
        return apply_lease(at, &d->lease);
    case REC_FINISH:
        return apply_finish(at, &d->finish);
    case REC_REQUEUE:
        return apply_requeue(at, &d->requeue);
    case REC_CANCEL:
        return apply_stop(at, d->task.no, TASK_CANCELED);
    case REC_EXPIRE:
        return apply_stop(at, d->task.no, TASK_EXPIRED);
    case REC_SLOT_FREE:
        return apply_slot_free(at, &d->slot_free);
    case REC_EVICT:
        return apply_evict(at, d->task.no);
    case REC_FORGET:
        return apply_forget(at, d->task.no);
    case REC_FILE_PUT:
        return apply_file_put(at, &d->file_put);
    case REC_FILE_DELETE:
        return apply_file_delete(at, d->file_delete.no);
    case REC_IDEM_EXPIRE:
        return apply_idem_expire(at, &d->idem_expire);
    case REC_MODEL:
        return apply_model(at, &d->model);
    case REC_FLAG:
        return apply_flag(at, &d->flag);
    case REC_CHECKPOINT:
        return apply_checkpoint(at, &d->checkpoint);
    case REC_HISTORY:
        return apply_history(at, &d->history);
    case REC_TYPES:
        break;
    }
    CHECK(!"a record type that record_get passed");
    return false;
}

int core_apply(Core *c, const Frame *f)
{
    size_t at_byte = 0;
    uint32_t index = 0;
    Record r;
    int more;
    while ((more = frame_next_record(f, &at_byte, &index, &r)) == 1) {
        RecordData d;
        int err = record_get(f, &r, &d);
        if (err == ERR_UNSUPPORTED) return err;
        At at = {c, r.seq, f->time_ns};
        if (err || !apply_record(&at, (RecordType)r.type, &d)) c->misfits++;
    }
    return more;
}
