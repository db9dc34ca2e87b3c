/* What each record may say in the state so far, and what it makes of it.
 *
 *     M1  task numbers are dense, tokens are sequences of LEASE records
 *     M2  a task has one end; what comes after it is the end of its lease, DELETE, or leaving
 *     M3  a lease ends on record once, by its own token, and is charged there
 *     M4  a burned attempt is never more than allowed, and a task fails for good only when none is
 *         left or its failure was final
 *     M5  keys outlive their time to live and their task's end */
#include "sim/model_inside.h"

#define LATE_NS (5 * NS_PER_MS) /* a deadline is looked at between steps, not within one */

typedef struct {
    Model *m;
    State *s;
    const Frame *f;
    const Record *r;
    RecordData d;
    int64_t now;
    Buf *why;
    ModelTask *t; /* of records about a task */
    unsigned long long no;
} Rule;

#define BAD(number, ...) model_bad(r->m, r->why, (number), __VA_ARGS__)
#define ULL(v)           ((unsigned long long)(v))

/* ---- pieces ---- */

static Digest128 text_digest(Str s)
{
    return s.n ? digest128(s.p, s.n) : (Digest128){0};
}

ModelTenant *model_tenant(Model *m, Name name)
{
    Array *rows = &m->now.tenants;
    for (size_t i = 0; i < rows->len; i++)
        if (ROW(*rows, ModelTenant, i)->name == name) return ROW(*rows, ModelTenant, i);
    ModelTenant *n = array_add(rows, sizeof *n);
    n->name = name;
    return n;
}

bool model_flag(const State *s, Name kind, Name subject)
{
    for (size_t i = 0; i < s->flags.len; i++) {
        const ModelFlag *f = ROW(s->flags, ModelFlag, i);
        if (f->kind == kind && f->subject == subject) return f->on;
    }
    return false;
}

static bool flag_of(const Model *m, const char *kind, Name subject)
{
    Name k = model_name_find(m, str_from(kind));
    return k != UINT32_MAX && model_flag(&m->now, k, subject);
}

uint64_t model_file_refs(const State *s, uint64_t file, bool live_only)
{
    uint64_t refs = 0;
    for (uint64_t no = s->low; no <= s->tasks.len; no++) {
        const ModelTask *t = model_task(s, no);
        if (!t->here || (live_only && task_state_terminal((TaskState)t->state))) continue;
        bool has = false;
        for (uint32_t i = 0; i < t->in_len; i++)
            has |= *ROW(s->numbers, uint64_t, t->in_at + i) == file;
        for (uint32_t i = 0; i < t->out_len; i++)
            has |= *ROW(s->numbers, uint64_t, t->out_at + i) == file;
        refs += has;
    }
    return refs;
}

static bool terminal(const ModelTask *t)
{
    return task_state_terminal((TaskState)t->state);
}

static void count(Rule *r, const ModelTask *t, int64_t by)
{
    r->s->counts[t->state] += (uint64_t)by;
    model_tenant(r->m, t->tenant)->states[t->state] += (uint64_t)by;
    if (terminal(t) && !t->forgotten)
        r->s->finished_bytes += (uint64_t)(by * (int64_t)(t->input_len + t->output_len));
}

static void move(Rule *r, ModelTask *t, TaskState to)
{
    count(r, t, -1);
    t->state = (uint8_t)to;
    count(r, t, +1);
    if (task_state_terminal(to)) t->finished_ns = r->now;
}

static void event(Rule *r, ModelTask *t, EventKind kind, uint8_t fail)
{
    t->last_seq = r->r->seq;
    t->events++;
    t->event_kind = (uint8_t)kind;
    t->event_fail = fail;
}

/* M3: the only place where a lease ends. */
static void lease_over(Rule *r, ModelTask *t, int64_t device_ns, int64_t run_ns)
{
    t->ended_token = t->token;
    t->token = 0;
    t->lease_ends++;
    t->device_ns += device_ns;
    t->run_ns += run_ns;
    model_tenant(r->m, t->tenant)->device_ns += device_ns;
    uint64_t last = *ROW(r->s->leased, uint64_t, r->s->leased.len - 1);
    *ROW(r->s->leased, uint64_t, t->leased_at) = last;
    model_task(r->s, last)->leased_at = t->leased_at;
    r->s->leased.len--;
}

/* The n-th of all files that a task refers to; 0 behind the end, and for one that came before. */
static uint64_t task_file(const State *s, const ModelTask *t, uint32_t n)
{
    uint64_t no = *ROW(s->numbers, uint64_t,
                       n < t->in_len ? t->in_at + n : t->out_at + n - t->in_len);
    for (uint32_t i = 0; i < n; i++)
        if (*ROW(s->numbers, uint64_t, i < t->in_len ? t->in_at + i : t->out_at + i - t->in_len) ==
            no)
            return 0;
    return no;
}

/* The files of an input, or of a result. */
static void refer(Rule *r, ModelTask *t, const NumberList *l, bool input)
{
    State *s = r->s;
    *(input ? &t->in_at : &t->out_at) = (uint32_t)s->numbers.len;
    *(input ? &t->in_len : &t->out_len) = l->len;
    for (uint32_t i = 0; i < l->len; i++)
        *(uint64_t *)array_add(&s->numbers, sizeof(uint64_t)) = number_list_at(l, i);
    for (uint32_t i = input ? 0 : t->in_len; i < t->in_len + t->out_len; i++) {
        ModelFile *f = model_file(s, task_file(s, t, i));
        if (f) f->refs++;
    }
}

static int judge_payload(Rule *r, const PayloadRef *p, const char *what)
{
    if (p->erased) return 0;
    if (p->bytes.n != p->len || !digest128_eq(p->digest, digest128(p->bytes.p, p->bytes.n)))
        return BAD(15, "the %s in record %llu does not fit its digest", what, ULL(r->r->seq));
    if (p->len > TASK_INLINE_MAX)
        return BAD(25, "the %s in record %llu has %u bytes", what, ULL(r->r->seq), p->len);
    return 0;
}

static int judge_files(Rule *r, const NumberList *l, Name tenant)
{
    if (l->len > TASK_FILES_MAX)
        return BAD(25, "record %llu refers to %u files", ULL(r->r->seq), l->len);
    for (uint32_t i = 0; i < l->len; i++) {
        const ModelFile *f = model_file(r->s, number_list_at(l, i));
        if (!f || !f->here || f->tenant != tenant)
            return BAD(15, "record %llu refers to file %llu, which %s", ULL(r->r->seq),
                       ULL(number_list_at(l, i)),
                       !f         ? "never was"
                       : !f->here ? "is deleted"
                                  : "is another tenant's");
    }
    return 0;
}

/* Sets r->t: a task that is in memory. */
static int find(Rule *r, uint64_t no)
{
    r->no = ULL(no);
    r->t = model_task(r->s, no);
    if (!r->t)
        return BAD(2, "%s of task %llu, which nobody submitted", record_type_name(r->r->type),
                   ULL(no));
    if (!r->t->here)
        return BAD(2, "%s of task %llu, which has left memory", record_type_name(r->r->type),
                   ULL(no));
    return 0;
}

static int judge_token(Rule *r, uint64_t token)
{
    if (token && token == r->t->token) return 0;
    return BAD(
        token && token == r->t->ended_token ? 18 : 6,
        "%s of task %llu with the token %llu; its live one is %llu, the last that ended %llu",
        record_type_name(r->r->type), r->no, ULL(token), ULL(r->t->token), ULL(r->t->ended_token));
}

static int judge_running(Rule *r)
{
    if (r->t->state == TASK_RUNNING) return 0;
    return BAD(3, "%s of task %llu, which is %s", record_type_name(r->r->type), r->no,
               task_state_name((TaskState)r->t->state));
}

static int judge_usage(Rule *r, int64_t device_ns, int64_t run_ns)
{
    if (device_ns >= 0 && run_ns >= 0) return 0;
    return BAD(18, "task %llu is charged %lld ns", r->no, (long long)MIN(device_ns, run_ns));
}

/* ---- records ---- */

static int rule_claim(Rule *r)
{
    const RecClaim *c = &r->d.claim;
    if (c->epoch != r->f->epoch || c->holder != r->f->holder)
        return BAD(10, "the claim says epoch %llu, its frame %llu", ULL(c->epoch),
                   ULL(r->f->epoch));
    if (r->f->seq != r->r->seq)
        return BAD(10, "a claim inside a frame, at sequence %llu", ULL(r->r->seq));
    if (c->epoch != r->s->at.epoch + 1)
        return BAD(10, "epoch %llu is claimed after epoch %llu", ULL(c->epoch),
                   ULL(r->s->at.epoch));
    if ((r->r->seq == 1) != (c->id_key.n != 0))
        return BAD(10, "a key of ids in the claim at sequence %llu", ULL(r->r->seq));
    for (size_t i = 0; i < r->s->leased.len; i++) { /* a takeover: a full fresh period */
        ModelTask *t = model_task(r->s, *ROW(r->s->leased, uint64_t, i));
        t->lease_until_ns = r->now + r->m->limits.lease_ns;
        t->holder_gone = false;
    }
    return 0;
}

static ModelKey *live_key(const State *s, Digest128 key, Name tenant)
{
    for (uint32_t i = s->key_heads[key.lo % KEY_BUCKETS]; i;) {
        ModelKey *k = ROW(s->keys, ModelKey, i - 1);
        if (k->live && k->tenant == tenant && digest128_eq(k->key, key)) return k;
        i = k->next;
    }
    return NULL;
}

static void add_key(Rule *r, const RecSubmit *c, Name tenant)
{
    ModelKey *k = array_add(&r->s->keys, sizeof *k);
    uint32_t *head = &r->s->key_heads[c->key.lo % KEY_BUCKETS];
    *k = (ModelKey){c->key, c->body, c->no, tenant, r->now, *head, true};
    *head = (uint32_t)r->s->keys.len;
    model_tenant(r->m, tenant)->keys++;
}

static int judge_submit_room(Rule *r, const RecSubmit *c, const ModelTenant *n)
{
    const CoreLimits *l = &r->m->limits;
    if (r->s->counts[TASK_QUEUED] >= l->queued_max)
        return BAD(25, "task %llu is accepted with %llu queued", ULL(c->no),
                   ULL(r->s->counts[TASK_QUEUED]));
    if (n->states[TASK_QUEUED] >= l->tenant_queued_max && l->tenant_queued_max)
        return BAD(25, "task %llu is accepted with %llu of its tenant queued", ULL(c->no),
                   ULL(n->states[TASK_QUEUED]));
    if (c->has_key && n->keys >= l->idem_tenant_max)
        return BAD(25, "task %llu is accepted with %llu keys of its tenant", ULL(c->no),
                   ULL(n->keys));
    return 0;
}

static int rule_submit(Rule *r)
{
    const RecSubmit *c = &r->d.submit;
    int bad;
    if (c->no != r->s->tasks.len + 1)
        return BAD(2, "task number %llu after %llu", ULL(c->no), ULL(r->s->tasks.len));
    if (!c->tenant.n || !c->model.n || !c->version.n || c->class >= CLASSES ||
        c->max_attempts < 1 || c->max_attempts > TASK_ATTEMPTS_MAX)
        return BAD(2, "task %llu is accepted without a model, or with %u attempts", ULL(c->no),
                   c->max_attempts);
    if (c->deadline_ns && (c->deadline_ns <= r->now || c->not_before_ns >= c->deadline_ns))
        return BAD(9, "task %llu is accepted at %lld for %lld to %lld", ULL(c->no),
                   (long long)r->now, (long long)c->not_before_ns, (long long)c->deadline_ns);
    Name tenant = model_name(r->m, c->tenant);
    ModelTenant *n = model_tenant(r->m, tenant);
    if ((bad = judge_submit_room(r, c, n)) || (bad = judge_payload(r, &c->input, "input")) ||
        (bad = judge_files(r, &c->files, tenant)))
        return bad;
    const ModelKey *k = c->has_key ? live_key(r->s, c->key, tenant) : NULL;
    if (k)
        return BAD(7, "task %llu is accepted under the key of task %llu, %lld ns old", ULL(c->no),
                   ULL(k->no), (long long)(r->now - k->created_ns));
    ModelTask *t = array_add(&r->s->tasks, sizeof *t);
    *t = (ModelTask){
        .created_seq = r->r->seq,
        .last_seq = r->r->seq,
        .created_epoch = r->f->epoch,
        .created_ns = r->now,
        .not_before_ns = c->not_before_ns,
        .deadline_ns = c->deadline_ns,
        .retention_s = c->retention_s,
        .tenant = tenant,
        .model = model_name(r->m, c->model),
        .version = model_name(r->m, c->version),
        .input = c->input.digest,
        .input_len = c->input.len,
        .metadata = text_digest(c->metadata),
        .traceparent = text_digest(c->traceparent),
        .retry_of = text_digest(c->retry_of),
        .class = c->class,
        .max_attempts = c->max_attempts,
        .here = true,
    };
    refer(r, t, &c->files, true);
    count(r, t, +1);
    model_tenant(r->m, tenant)->submitted++;
    if (c->has_key) add_key(r, c, tenant);
    return 0;
}

static int rule_lease(Rule *r)
{
    const RecLease *c = &r->d.lease;
    int bad = find(r, c->no);
    if (bad) return bad;
    ModelTask *t = r->t;
    if (terminal(t))
        return BAD(t->state == TASK_CANCELED || t->state == TASK_EXPIRED ? 9 : 3,
                   "lease of task %llu, which is %s", r->no, task_state_name((TaskState)t->state));
    if (t->token || t->state != TASK_QUEUED)
        return BAD(5, "lease of task %llu, which %s holds under %llu", r->no,
                   model_name_text(r->m, t->worker).p, ULL(t->token));
    if (t->not_before_ns > r->now)
        return BAD(9, "lease of task %llu %lld ns before its time", r->no,
                   (long long)(t->not_before_ns - r->now));
    if (t->deadline_ns && t->deadline_ns < r->now)
        return BAD(9, "lease of task %llu %lld ns after its deadline", r->no,
                   (long long)(r->now - t->deadline_ns));
    if (t->burned >= t->max_attempts)
        return BAD(8, "lease of task %llu, which has burned %u of %u attempts", r->no, t->burned,
                   t->max_attempts);
    if (flag_of(r->m, "model_paused", t->model))
        return BAD(9, "lease of task %llu, whose model is paused", r->no);
    if (r->r->seq <= t->ended_token || r->r->seq <= t->created_seq)
        return BAD(5, "token %llu of task %llu after token %llu", ULL(r->r->seq), r->no,
                   ULL(t->ended_token));
    Name worker = model_name(r->m, c->worker);
    if (flag_of(r->m, "worker_cordoned", worker))
        return BAD(9, "lease of task %llu to a worker that is cordoned", r->no);
    move(r, t, TASK_RUNNING);
    t->token = r->r->seq;
    t->leases++;
    t->attempt = (uint8_t)(t->burned + 1);
    t->started_ns = r->now;
    if (!t->first_started_ns) t->first_started_ns = r->now;
    t->worker = worker;
    t->device = c->device;
    t->batch = c->batch;
    t->batch_size = c->batch_size;
    t->lease_until_ns = r->now + r->m->limits.lease_ns;
    t->holder_gone = false;
    t->leased_at = (uint32_t)r->s->leased.len;
    *(uint64_t *)array_add(&r->s->leased, sizeof(uint64_t)) = c->no;
    event(r, t, EVENT_LEASED, 0);
    return 0;
}

static int rule_finish(Rule *r)
{
    const RecFinish *c = &r->d.finish;
    int bad = find(r, c->no);
    if (bad || (bad = judge_running(r)) || (bad = judge_token(r, c->token)) ||
        (bad = judge_usage(r, c->device_ns, c->run_ns)) ||
        (bad = judge_files(r, &c->files, r->t->tenant)) ||
        (bad = judge_payload(r, &c->output, "output")))
        return bad;
    ModelTask *t = r->t;
    if (c->ok && (c->fail || c->message.n))
        return BAD(3, "task %llu succeeds with the error %s", r->no, fail_name((FailCode)c->fail));
    if (!c->ok && (c->fail == FAIL_NONE || c->fail >= FAILS))
        return BAD(3, "task %llu fails without a cause", r->no);
    if (!c->ok && c->output.len) return BAD(3, "task %llu fails with an output", r->no);
    if (c->ok && t->deadline_ns && r->now > t->deadline_ns + LATE_NS)
        return BAD(9, "task %llu succeeds %lld ns after its deadline", r->no,
                   (long long)(r->now - t->deadline_ns));
    t->burned = (uint8_t)(t->burned + (c->burn ? 1 : 0));
    if (t->burned > t->max_attempts)
        return BAD(8, "task %llu has burned %u of %u attempts", r->no, t->burned, t->max_attempts);
    if (!c->ok && c->retryable && t->burned < t->max_attempts &&
        !(t->losses + 1U >= r->m->limits.platform_losses_max))
        return BAD(8, "task %llu fails for good by %s with %u of %u attempts burned", r->no,
                   fail_name((FailCode)c->fail), t->burned, t->max_attempts);
    if (c->ok) {
        t->output = c->output.digest;
        t->output_len = c->output.len;
    }
    t->fail = c->fail;
    t->retryable = c->retryable;
    t->message = text_digest(c->message);
    refer(r, t, &c->files, false);
    lease_over(r, t, c->device_ns, c->run_ns);
    move(r, t, c->ok ? TASK_SUCCEEDED : TASK_FAILED);
    t->settled_seq = r->r->seq;
    event(r, t, EVENT_FINISHED, c->fail);
    return 0;
}

/* Doubled an attempt from backoff_first, at most backoff_max, chance on its upper half. */
static int judge_backoff(Rule *r, const RecRequeue *c, uint32_t burned)
{
    int64_t wait = c->not_before_ns ? c->not_before_ns - r->now : 0;
    const CoreLimits *l = &r->m->limits;
    if (!c->burn) {
        if (wait <= l->backoff_max_ns) return 0;
        return BAD(22, "task %llu waits for %lld ns though no attempt was burned", r->no,
                   (long long)wait);
    }
    int64_t full = l->backoff_first_ns;
    for (uint32_t i = 1; i < burned && full < l->backoff_max_ns; i++) full *= 2;
    full = MIN(full, l->backoff_max_ns);
    if (wait < full / 2 || wait > full)
        return BAD(22, "task %llu waits for %lld ns after %u burned attempts, not %lld to %lld",
                   r->no, (long long)wait, burned, (long long)full / 2, (long long)full);
    return 0;
}

static int rule_requeue(Rule *r)
{
    const RecRequeue *c = &r->d.requeue;
    int bad = find(r, c->no);
    if (bad || (bad = judge_running(r)) || (bad = judge_token(r, c->token)) ||
        (bad = judge_usage(r, c->device_ns, c->run_ns)))
        return bad;
    ModelTask *t = r->t;
    t->burned = (uint8_t)(t->burned + (c->burn ? 1 : 0));
    t->losses = (uint16_t)(t->losses + (c->loss ? 1 : 0));
    if (t->burned >= t->max_attempts)
        return BAD(8, "task %llu is queued again with %u of %u attempts burned", r->no, t->burned,
                   t->max_attempts);
    if (t->losses >= r->m->limits.platform_losses_max)
        return BAD(8, "task %llu is queued again after %u losses", r->no, t->losses);
    bool own = c->fail == FAIL_MODEL_ERROR || c->fail == FAIL_BAD_INPUT ||
               c->fail == FAIL_BAD_OUTPUT;
    if ((own && !c->burn) ||
        (c->burn && (c->loss || c->fail == FAIL_NONE || c->fail == FAIL_WORKER_LOST)))
        return BAD(8, "task %llu is queued again by %s, burn %u, loss %u", r->no,
                   fail_name((FailCode)c->fail), c->burn, c->loss);
    if ((bad = judge_backoff(r, c, t->burned))) return bad;
    if (r->m->judge_lease_ends && !r->m->quiet && r->m->limits.lease_ns &&
        c->fail == FAIL_WORKER_LOST && !t->holder_gone && r->now < t->lease_until_ns)
        return BAD(22, "task %llu lost its lease %lld ns before that ended, and its worker lives",
                   r->no, (long long)(t->lease_until_ns - r->now));
    if (c->fail == FAIL_MODEL_CRASHED) t->solo = true;
    t->not_before_ns = c->not_before_ns;
    lease_over(r, t, c->device_ns, c->run_ns);
    move(r, t, TASK_QUEUED);
    event(r, t, EVENT_REQUEUED, c->fail);
    return 0;
}

static int rule_stop(Rule *r, TaskState to)
{
    int bad = find(r, r->d.task.no);
    if (bad) return bad;
    ModelTask *t = r->t;
    if (terminal(t))
        return BAD(3, "%s of task %llu, which is %s", record_type_name(r->r->type), r->no,
                   task_state_name((TaskState)t->state));
    if (to == TASK_EXPIRED && (!t->deadline_ns || r->now < t->deadline_ns))
        return BAD(9, "task %llu expires at %lld, its deadline is %lld", r->no, (long long)r->now,
                   (long long)t->deadline_ns);
    move(r, t, to);
    t->fail = to == TASK_EXPIRED ? FAIL_EXPIRED : FAIL_NONE;
    t->settled_seq = t->token ? 0 : r->r->seq;
    event(r, t, EVENT_FINISHED, t->fail);
    return 0;
}

static int rule_slot_free(Rule *r)
{
    const RecSlotFree *c = &r->d.slot_free;
    int bad = find(r, c->no);
    if (bad || (bad = judge_token(r, c->token)) || (bad = judge_usage(r, c->device_ns, c->run_ns)))
        return bad;
    if (r->t->state != TASK_CANCELED && r->t->state != TASK_EXPIRED)
        return BAD(18, "the slot of task %llu is freed while it is %s", r->no,
                   task_state_name((TaskState)r->t->state));
    lease_over(r, r->t, c->device_ns, c->run_ns);
    r->t->settled_seq = r->t->last_seq = r->r->seq;
    return 0;
}

static int judge_settled(Rule *r)
{
    if (terminal(r->t) && !r->t->token) return 0;
    return BAD(1, "%s of task %llu, which is %s and held under %llu", record_type_name(r->r->type),
               r->no, task_state_name((TaskState)r->t->state), ULL(r->t->token));
}

static void file_over(Rule *r, ModelFile *f)
{
    f->here = false;
    f->over_seq = r->r->seq;
}

/* A worker's file lives with its task; one that nothing refers to goes by time. */
static void let_go_files(Rule *r, ModelTask *t)
{
    for (uint32_t i = 0; i < t->in_len + t->out_len; i++) {
        ModelFile *f = model_file(r->s, task_file(r->s, t, i));
        if (f && f->here && --f->refs == 0 && f->owner_task) file_over(r, f);
    }
    t->in_len = t->out_len = 0;
}

static void leave(Rule *r, ModelTask *t)
{
    State *s = r->s;
    count(r, t, -1);
    t->here = false;
    let_go_files(r, t);
    while (s->low <= s->tasks.len && !model_task(s, s->low)->here) s->low++;
}

static int rule_evict(Rule *r)
{
    int bad = find(r, r->d.task.no);
    if (bad || (bad = judge_settled(r))) return bad;
    const CoreLimits *l = &r->m->limits;
    uint64_t finished = 0;
    for (int s = TASK_SUCCEEDED; s < TASK_STATES; s++) finished += r->s->counts[s];
    bool over = r->t->finished_ns + (int64_t)r->t->retention_s * NS_PER_S <= r->now;
    bool full = finished > l->finished_max || r->s->finished_bytes > l->finished_bytes_max;
    if (!over && (l->history || !full))
        return BAD(1, "task %llu leaves memory before its retention is over, with %llu finished",
                   r->no, ULL(finished));
    leave(r, r->t);
    return 0;
}

static int rule_forget(Rule *r)
{
    const ModelTask *left = model_task(r->s, r->d.task.no);
    if (left && !left->here && r->m->limits.history) return 0; /* it is in the history view only */
    int bad = find(r, r->d.task.no);
    if (bad) return bad;
    if (!terminal(r->t))
        return BAD(15, "input of task %llu is deleted while it is %s", r->no,
                   task_state_name((TaskState)r->t->state));
    count(r, r->t, -1);
    r->t->forgotten = true;
    let_go_files(r, r->t);
    count(r, r->t, +1);
    event(r, r->t, EVENT_FORGOTTEN, 0);
    return 0;
}

static int rule_history(Rule *r)
{
    uint64_t seq = r->d.history.settled_seq;
    if (seq <= r->s->history_seq || seq >= r->r->seq)
        return BAD(12, "history up to %llu after %llu, at sequence %llu", ULL(seq),
                   ULL(r->s->history_seq), ULL(r->r->seq));
    if (!r->m->quiet && seq > r->m->durable_seq)
        return BAD(10, "history has what settled up to %llu, but only %llu is durable", ULL(seq),
                   ULL(r->m->durable_seq));
    r->s->history_seq = seq;
    for (uint64_t no = r->s->low; no <= r->s->tasks.len; no++) {
        ModelTask *t = model_task(r->s, no);
        if (t->here && t->settled_seq && t->settled_seq <= seq) leave(r, t);
    }
    return 0;
}

static int rule_file_put(Rule *r)
{
    const RecFilePut *c = &r->d.file_put;
    if (c->no != r->s->files.len + 1)
        return BAD(2, "file number %llu after %llu", ULL(c->no), ULL(r->s->files.len));
    const ModelTask *owner = c->owner_task ? model_task(r->s, c->owner_task) : NULL;
    if (c->owner_task && (!owner || !owner->here))
        return BAD(4, "file %llu is said to be of task %llu, which is not there", ULL(c->no),
                   ULL(c->owner_task));
    if (!c->id.n || c->sha256.n != 32 || (c->expires_ns && c->expires_ns <= r->now))
        return BAD(15, "file %llu has no id, or is over at once", ULL(c->no));
    ModelFile *f = array_add(&r->s->files, sizeof *f);
    *f = (ModelFile){.id = model_name(r->m, c->id),
                     .tenant = model_name(r->m, c->tenant),
                     .name = model_name(r->m, c->name),
                     .content_type = model_name(r->m, c->content_type),
                     .size = c->size,
                     .owner_task = c->owner_task,
                     .created_ns = r->now,
                     .expires_ns = c->expires_ns,
                     .here = true};
    memcpy(f->sha256.b, c->sha256.p, 32);
    return 0;
}

static int rule_file_delete(Rule *r)
{
    ModelFile *f = model_file(r->s, r->d.file_delete.no);
    if (!f || !f->here)
        return BAD(15, "file %llu is deleted, but not there", ULL(r->d.file_delete.no));
    if (model_file_refs(r->s, r->d.file_delete.no, true))
        return BAD(12, "file %llu is deleted while a live task refers to it",
                   ULL(r->d.file_delete.no));
    file_over(r, f);
    return 0;
}

static int rule_idem_expire(Rule *r)
{
    int64_t before = r->d.idem_expire.before_ns;
    if (before > r->now - r->m->limits.idem_ttl_ns)
        return BAD(7, "keys leave %lld ns before their time",
                   (long long)(before - (r->now - r->m->limits.idem_ttl_ns)));
    r->s->idem_before_ns = MAX(r->s->idem_before_ns, before);
    for (size_t i = 0; i < r->s->keys.len; i++) {
        ModelKey *k = ROW(r->s->keys, ModelKey, i);
        if (!k->live || k->created_ns >= before || !terminal(model_task(r->s, k->no))) continue;
        k->live = false;
        model_tenant(r->m, k->tenant)->keys--;
    }
    return 0;
}

static int rule_model(Rule *r)
{
    const RecModel *c = &r->d.model;
    Name name = model_name(r->m, c->name), version = model_name(r->m, c->version);
    ModelVersion *v = NULL;
    for (size_t i = 0; i < r->s->versions.len && !v; i++) {
        v = ROW(r->s->versions, ModelVersion, i);
        if (v->name != name || v->version != version) v = NULL;
    }
    if (!v) v = array_add(&r->s->versions, sizeof *v);
    *v = (ModelVersion){.name = name, .version = version, .info = model_name(r->m, c->info)};
    if (c->digest.n == 32) memcpy(v->digest.b, c->digest.p, 32);
    return 0;
}

static int rule_flag(Rule *r)
{
    const RecFlag *c = &r->d.flag;
    Name kind = model_name(r->m, c->kind), subject = model_name(r->m, c->subject);
    for (size_t i = 0; i < r->s->flags.len; i++) {
        ModelFlag *f = ROW(r->s->flags, ModelFlag, i);
        if (f->kind != kind || f->subject != subject) continue;
        f->on = c->on;
        return 0;
    }
    *(ModelFlag *)array_add(&r->s->flags, sizeof(ModelFlag)) = (ModelFlag){kind, subject, c->on};
    return 0;
}

static int rule_checkpoint(Rule *r)
{
    const RecCheckpoint *c = &r->d.checkpoint;
    int bad = find(r, c->no);
    if (bad || (bad = judge_running(r)) || (bad = judge_token(r, c->token))) return bad;
    const ModelFile *f = model_file(r->s, c->file);
    if (c->file && (!f || !f->here))
        return BAD(15, "a checkpoint of task %llu refers to file %llu, which is not there", r->no,
                   ULL(c->file));
    r->t->unit = c->unit;
    r->t->unit_file = c->file;
    r->t->last_seq = r->r->seq;
    return 0;
}

int model_rule(Model *m, const Frame *f, const Record *record, Buf *why)
{
    Rule rule = {.m = m, .s = &m->now, .f = f, .r = record, .now = f->time_ns, .why = why},
         *r = &rule;
    if (record_get(f, record, &r->d))
        return BAD(19, "the record at sequence %llu breaks its format", ULL(record->seq));
    if (!m->quiet && record->type < REC_TYPES) m->records[record->type]++;
    if (record->seq > 1 && !m->now.at.epoch && record->type != REC_CLAIM)
        return BAD(10, "the log begins without a claim");
    switch ((RecordType)record->type) {
    case REC_CLAIM:
        return rule_claim(r);
    case REC_SUBMIT:
        return rule_submit(r);
    case REC_LEASE:
        return rule_lease(r);
    case REC_FINISH:
        return rule_finish(r);
    case REC_REQUEUE:
        return rule_requeue(r);
    case REC_CANCEL:
        return rule_stop(r, TASK_CANCELED);
    case REC_EXPIRE:
        return rule_stop(r, TASK_EXPIRED);
    case REC_SLOT_FREE:
        return rule_slot_free(r);
    case REC_EVICT:
        return rule_evict(r);
    case REC_FORGET:
        return rule_forget(r);
    case REC_FILE_PUT:
        return rule_file_put(r);
    case REC_FILE_DELETE:
        return rule_file_delete(r);
    case REC_IDEM_EXPIRE:
        return rule_idem_expire(r);
    case REC_MODEL:
        return rule_model(r);
    case REC_FLAG:
        return rule_flag(r);
    case REC_CHECKPOINT:
        return rule_checkpoint(r);
    case REC_HISTORY:
        return rule_history(r);
    case REC_TYPES:
        break;
    }
    return BAD(19, "unknown record type %u", record->type);
}
