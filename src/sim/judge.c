/* The judge's rows, and what can be said of an operation at once. The rest waits for judge_finish,
 * in judge_end.c: a task may be seen before the answer to its submit. */
#include "sim/judge_inside.h"

#include <stdio.h>

#define SLACK_NS (2 * NS_PER_MS)
#define TOLD_MAX 20

/* ---- life ---- */

Judge *judge_new(const JudgeBounds *b)
{
    Judge *j = mem_new(sizeof *j);
    j->bounds = *b;
    if (!j->bounds.slack_ns) j->bounds.slack_ns = SLACK_NS;
    return j;
}

void judge_reset(Judge *j, const JudgeBounds *b)
{
    for (size_t i = 0; i < j->seen.len; i++) array_done(&ROW(j->seen, Seen, i)->far);
    Array *arrays[] = {&j->submits, &j->keys,    &j->seen,   &j->leases,
                       &j->told,    &j->streams, &j->claims, &j->accepted};
    for (size_t i = 0; i < ARRAY_LEN(arrays); i++) array_done(arrays[i]);
    Map64 *maps[] = {&j->submit_at, &j->key_at,    &j->seen_at,   &j->lease_at,
                     &j->told_at,   &j->stream_at, &j->receipt_at};
    for (size_t i = 0; i < ARRAY_LEN(maps); i++) map64_done(maps[i]);
    buf_done(&j->why);
    *j = (Judge){.bounds = *b};
    if (!j->bounds.slack_ns) j->bounds.slack_ns = SLACK_NS;
}

void judge_free(Judge *j)
{
    if (!j) return;
    judge_reset(j, &j->bounds);
    mem_free(j);
}

int judge_broken(const Judge *j)
{
    return j->broken;
}

Str judge_why(const Judge *j)
{
    return buf_str(&j->why);
}

void judge_bad(Judge *j, int invariant, const char *fmt, ...)
{
    if (!j->broken) j->broken = invariant;
    if (j->told_of++ >= TOLD_MAX) return;
    va_list ap;
    va_start(ap, fmt);
    buf_printf(&j->why, "invariant %d: ", invariant);
    buf_vprintf(&j->why, fmt, ap);
    buf_putc(&j->why, '\n');
    va_end(ap);
}

void judge_summary(const Judge *j, Buf *ret)
{
    buf_printf(ret,
               "%zu submits, %zu tasks, %llu reads, %llu lists, %llu cancels, %llu deletes, %llu "
               "events, %zu leases, %llu answers to workers",
               j->submits.len, j->seen.len, ULL(j->reads), ULL(j->lists), ULL(j->cancels),
               ULL(j->deletes), ULL(j->events), j->leases.len, ULL(j->answers));
}

/* ---- rows ---- */

static uint64_t id_hash(const char *id)
{
    uint64_t h = hash_bytes(id, strlen(id));
    return h ? h : 1;
}

Seen *judge_seen_find(const Judge *j, const char *id)
{
    uint32_t row = map64_find(&j->seen_at, id_hash(id));
    return row ? SEEN(j, row) : NULL;
}

Seen *judge_seen(Judge *j, const char *id)
{
    uint32_t *at = map64_at(&j->seen_at, id_hash(id));
    if (*at) return SEEN(j, *at);
    Seen *n = array_add(&j->seen, sizeof *n);
    snprintf(n->id, sizeof n->id, "%s", id);
    *at = (uint32_t)j->seen.len;
    return n;
}

uint32_t judge_row(const Judge *j, const Seen *n)
{
    return (uint32_t)(n - (const Seen *)j->seen.at) + 1;
}

Submit *judge_submit_of(Judge *j, const Seen *n)
{
    uint32_t row = n->submit ? n->submit : map64_find(&j->submit_at, n->first.nonce);
    return row ? SUBMIT(j, row) : NULL;
}

const char *judge_accepted(const Judge *j, size_t index)
{
    return index < j->accepted.len ? SEEN(j, *ROW(j->accepted, uint32_t, index))->id : NULL;
}

/* ---- views ---- */

/* 14, 8, 18: what ended before this began is no further than this. */
void judge_far(Judge *j, Seen *n, int64_t start, int64_t end, int64_t rank, uint32_t attempt,
               int64_t device_ms, TaskState status)
{
    Far *best = NULL;
    for (size_t i = n->far.len; i-- && !best;) {
        best = ROW(n->far, Far, i);
        if (best->end >= start) best = NULL;
    }
    if (best && rank >= 0 && rank < best->rank)
        judge_bad(j, 14, "%s is %s at %lld, but was %s (attempt %u) at %lld", n->id,
                  task_state_name(status), LL(start),
                  best->rank == INT64_MAX ? "terminal" : "further", best->attempt, LL(best->end));
    if (best && attempt < best->attempt && device_ms >= 0)
        judge_bad(j, 8, "%s went from attempt %u to %u", n->id, best->attempt, attempt);
    if (best && device_ms >= 0 && device_ms < best->device_ms)
        judge_bad(j, 18, "%s was charged %lld ms, then %lld", n->id, LL(best->device_ms),
                  LL(device_ms));
    Far *last = n->far.len ? ROW(n->far, Far, n->far.len - 1) : NULL;
    Far now = {end, rank, attempt, device_ms};
    if (last) {
        now.end = MAX(now.end, last->end);
        now.rank = MAX(now.rank, last->rank);
        now.attempt = MAX(now.attempt, last->attempt);
        now.device_ms = MAX(now.device_ms, last->device_ms);
        if (now.rank == last->rank && now.attempt == last->attempt &&
            now.device_ms == last->device_ms)
            return;
    }
    *(Far *)array_add(&n->far, sizeof(Far)) = now;
}

/* 3, 18: after the first terminal view only the charge of a task that ended under its worker. */
static void judge_end_again(Judge *j, Seen *n, const JudgeView *v)
{
    const JudgeView *e = &n->end;
    if (v->status != e->status)
        judge_bad(j, 3, "%s is %s, but was %s", n->id, task_state_name(v->status),
                  task_state_name(e->status));
    if (v->brief || e->brief) return;
    if (v->error != e->error || v->attempt != e->attempt || v->finished_ns != e->finished_ns ||
        v->started_ns != e->started_ns ||
        (!v->data_removed && !e->data_removed && v->output != e->output))
        judge_bad(j, 3,
                  "%s ended in two ways: %s, attempt %u and %u, output %llx and %llx, error %llx "
                  "and %llx, finished %lld and %lld",
                  n->id, task_state_name(v->status), e->attempt, v->attempt, ULL(e->output),
                  ULL(v->output), ULL(e->error), ULL(v->error), LL(e->finished_ns),
                  LL(v->finished_ns));
    if (v->device_ms == e->device_ms) return;
    bool late = v->status == TASK_CANCELED || v->status == TASK_EXPIRED;
    if (late && !n->changed_charge) { /* its worker let go of it */
        n->changed_charge = true;
        n->end.device_ms = MAX(v->device_ms, e->device_ms);
    } else if (!late || v->device_ms > e->device_ms) {
        judge_bad(j, 18, "%s ended and was charged %lld ms, then %lld", n->id, LL(e->device_ms),
                  LL(v->device_ms));
    }
}

/* What one whole view must be in itself. */
static void judge_whole(Judge *j, Seen *n, const JudgeView *v)
{
    bool terminal = task_state_terminal(v->status);
    int64_t slack = j->bounds.slack_ns;
    if ((v->finished_ns != 0) != terminal || (terminal && v->finished_ns < v->created_ns))
        judge_bad(j, 3, "%s is %s, created %lld, finished %lld", n->id, task_state_name(v->status),
                  LL(v->created_ns), LL(v->finished_ns));
    if ((v->error != 0) != (v->status == TASK_FAILED || v->status == TASK_EXPIRED))
        judge_bad(j, 3, "%s is %s with the error '%s'", n->id, task_state_name(v->status),
                  fail_name(v->fail));
    if (v->output && v->status != TASK_SUCCEEDED)
        judge_bad(j, 3, "%s is %s and has an output", n->id, task_state_name(v->status));
    if (!v->output && v->status == TASK_SUCCEEDED && !v->data_removed)
        judge_bad(j, 15, "%s succeeded and has no output", n->id);
    if (v->attempt > v->max_attempts)
        judge_bad(j, 8, "%s is at attempt %u of %u", n->id, v->attempt, v->max_attempts);
    if (v->deadline_ns && v->started_ns > v->deadline_ns + slack)
        judge_bad(j, 9, "%s started %lld ns after its deadline", n->id,
                  LL(v->started_ns - v->deadline_ns));
    if (v->deadline_ns && v->status == TASK_SUCCEEDED && v->finished_ns > v->deadline_ns + slack)
        judge_bad(j, 9, "%s succeeded %lld ns after its deadline", n->id,
                  LL(v->finished_ns - v->deadline_ns));
    if (v->status == TASK_EXPIRED && (!v->deadline_ns || v->finished_ns + slack < v->deadline_ns))
        judge_bad(j, 9, "%s expired at %lld, its deadline is %lld", n->id, LL(v->finished_ns),
                  LL(v->deadline_ns));
    if (v->status == TASK_RUNNING && !v->started_ns)
        judge_bad(j, 3, "%s runs and never started", n->id);
    if (v->started_ns && (!n->started_ns || v->started_ns < n->started_ns))
        n->started_ns = v->started_ns;
    j->latest_ns = MAX(j->latest_ns, MAX(v->created_ns, MAX(v->started_ns, v->finished_ns)));
}

/* 10: a place in the log is one task's. */
static void judge_receipt(Judge *j, Seen *n, const JudgeView *v)
{
    uint32_t *at = map64_at(&j->receipt_at, v->seq ? v->seq : UINT64_MAX);
    if (!*at) *at = judge_row(j, n);
    if (*at != judge_row(j, n))
        judge_bad(j, 10, "%s and %s both have the receipt %llu", SEEN(j, *at)->id, n->id,
                  ULL(v->seq));
}

static void first_whole(Judge *j, Seen *n, const JudgeView *v)
{
    n->first = *v;
    judge_receipt(j, n, v);
    if (!v->retry_of[0]) return;
    judge_seen(j, v->retry_of)->retried++; /* n may have moved */
}

void judge_view(Judge *j, const JudgeOp *op, const JudgeView *v)
{
    bool terminal = task_state_terminal(v->status);
    Seen *n = judge_seen(j, v->id);
    if (!n->first_seen) n->first_seen = op->end;
    if (!v->brief && !n->first.id[0]) {
        first_whole(j, n, v);
        n = judge_seen(j, v->id);
    }
    if (!v->brief && (v->fixed != n->first.fixed || v->nonce != n->first.nonce ||
                      v->seq != n->first.seq || v->epoch != n->first.epoch))
        judge_bad(j, 3, "%s: what never changes was %llx (receipt %llu), is %llx (receipt %llu)",
                  n->id, ULL(n->first.fixed), ULL(n->first.seq), ULL(v->fixed), ULL(v->seq));
    if (!v->brief) judge_whole(j, n, v);
    if (!v->brief)
        judge_far(j, n, op->start, op->end, terminal ? INT64_MAX : v->started_ns, v->attempt,
                  v->device_ms, v->status);
    else
        judge_far(j, n, op->start, op->end, terminal ? INT64_MAX : 0, 0, -1, v->status);
    if (terminal && n->ended)
        judge_end_again(j, n, v);
    else if (terminal)
        n->ended = true, n->end = *v;
    if (terminal && n->end.brief && !v->brief) n->end = *v;
    if (n->gone_at && op->start > n->gone_at)
        judge_bad(j, 2, "%s is there at %lld, but was gone at %lld", n->id, LL(op->start),
                  LL(n->gone_at));
    if (n->cancel_ok && op->start > n->cancel_ok && v->status != TASK_CANCELED)
        judge_bad(j, 9, "%s is %s at %lld, but its cancel was acknowledged at %lld", n->id,
                  task_state_name(v->status), LL(op->start), LL(n->cancel_ok));
    if (n->delete_ok && op->start > n->delete_ok && !v->brief && !v->data_removed)
        judge_bad(j, 2, "%s has its data at %lld, but they were deleted at %lld", n->id,
                  LL(op->start), LL(n->delete_ok));
    n->removed_seen |= v->data_removed;
    n->last_look = MAX(n->last_look, op->start);
    if (terminal) return;
    /* A submit of unknown outcome may arrive behind the drain: what it makes was never seen. */
    if (j->drained_at && op->start >= j->drained_at && n->first_seen < j->drained_at)
        judge_bad(j, 1, "%s is %s after everything should have ended", n->id,
                  task_state_name(v->status));
    const Submit *s = judge_submit_of(j, n);
    int64_t delay = s ? s->s.delay_ns : 0, since = MAX(j->calm_at, n->first_seen);
    if (j->calm_at && j->bounds.end_ns_max && op->start > since + delay + j->bounds.end_ns_max)
        judge_bad(j, 21, "%s is %s %lld ms after the last fault", n->id, task_state_name(v->status),
                  LL((op->start - since) / NS_PER_MS));
}

/* ---- clients ---- */

static uint64_t epoch_at(const Judge *j, int64_t when)
{
    uint64_t epoch = 0;
    for (size_t i = 0; i < j->claims.len; i++)
        if (ROW(j->claims, Claim, i)->at < when) epoch = ROW(j->claims, Claim, i)->epoch;
    return epoch;
}

static void judge_leader(Judge *j, const JudgeOp *op)
{
    uint64_t epoch = epoch_at(j, op->start);
    if (op->epoch && op->epoch < epoch)
        judge_bad(j, 17, "an answer of epoch %llu to what began at %lld, in epoch %llu",
                  ULL(op->epoch), LL(op->start), ULL(epoch));
}

/* 7: as long as a key is kept, it gives one task. */
static void judge_key(Judge *j, const JudgeSubmit *s, const JudgeView *v, uint32_t row)
{
    uint32_t *at = map64_at(&j->key_at, s->key);
    if (!*at) {
        array_add(&j->keys, sizeof(Key));
        *at = (uint32_t)j->keys.len;
    }
    Key *k = ROW(j->keys, Key, *at - 1);
    if (!k->task) *k = (Key){.body = s->body, .task = row, .accepted_ns = v->created_ns};
    const Seen *old = SEEN(j, k->task);
    bool kept = v->created_ns < k->accepted_ns + j->bounds.key_ttl_ns ||
                (old->ended && old->end.finished_ns > v->created_ns + j->bounds.slack_ns);
    if (k->task != row && v->brief) return;
    if (k->task != row && kept)
        judge_bad(j, 7, "key %llu gave %s at %lld, then %s at %lld", ULL(s->key), old->id,
                  LL(k->accepted_ns), v->id, LL(v->created_ns));
    if (k->task == row && k->body != s->body)
        judge_bad(j, 7, "key %llu gave %s for two different bodies", ULL(s->key), v->id);
    if (k->task != row && v->created_ns > k->accepted_ns)
        *k = (Key){.body = s->body, .task = row, .accepted_ns = v->created_ns};
}

static Submit *submit_row(Judge *j, const JudgeOp *op, const JudgeSubmit *s)
{
    uint32_t *at = map64_at(&j->submit_at, s->nonce);
    if (*at) return SUBMIT(j, *at);
    Submit *n = array_add(&j->submits, sizeof *n);
    *at = (uint32_t)j->submits.len;
    n->s = *s;
    n->s.retry_of = NULL; /* borrowed */
    n->first_start = op->start;
    return n;
}

void judge_submit(Judge *j, const JudgeOp *op, const JudgeSubmit *s, const JudgeView *view)
{
    Submit *n = submit_row(j, op, s);
    n->tries++;
    n->first_start = MIN(n->first_start, op->start);
    if (op->out == OUT_OK) n->answered_ok++;
    if (op->out == OUT_UNKNOWN) n->maybe++;
    judge_leader(j, op);
    if (op->out == OUT_REFUSED && op->code == CODE_IDEMPOTENCY_MISMATCH) {
        uint32_t key = map64_find(&j->key_at, s->key);
        if (key && ROW(j->keys, Key, key - 1)->body == s->body &&
            !ROW(j->keys, Key, key - 1)->other_body)
            judge_bad(j, 7, "key %llu with the same body was refused", ULL(s->key));
    }
    if (s->retry_of && op->out != OUT_REFUSED) {
        Seen *old = judge_seen(j, s->retry_of);
        if (op->out == OUT_OK)
            old->retries++;
        else
            old->retries_maybe++;
    }
    if (op->out != OUT_OK || !view) return;
    if (!s->retry_of && !view->brief && view->nonce != s->nonce)
        judge_bad(j, 7, "submit %llu was answered with %s, which is of submit %llu", ULL(s->nonce),
                  view->id, ULL(view->nonce));
    if (s->retry_of && !view->brief && strcmp(view->retry_of, s->retry_of) != 0)
        judge_bad(j, 7, "a retry of %s gave %s, which is one of '%s'", s->retry_of, view->id,
                  view->retry_of);
    if (!s->replayed && !view->brief && n->tries == 1 && view->epoch < epoch_at(j, op->start))
        judge_bad(j, 17, "%s was accepted in epoch %llu, after epoch %llu was claimed", view->id,
                  ULL(view->epoch), ULL(epoch_at(j, op->start)));
    judge_view(j, op, view);
    Seen *t = judge_seen(j, view->id);
    if (!s->retry_of) t->submit = map64_find(&j->submit_at, s->nonce);
    if (!t->accepted_at) {
        t->accepted_at = op->end;
        *(uint32_t *)array_add(&j->accepted, sizeof(uint32_t)) = judge_row(j, t);
    }
    if (s->key) judge_key(j, s, view, judge_row(j, t));
}

void judge_read(Judge *j, const JudgeOp *op, const char *id, const JudgeView *view)
{
    j->reads++;
    judge_leader(j, op);
    if (op->out == OUT_OK && view) {
        if (strcmp(view->id, id) != 0) judge_bad(j, 3, "a read of %s gave %s", id, view->id);
        judge_view(j, op, view);
        return;
    }
    if (op->out != OUT_REFUSED) return;
    Seen *n = judge_seen_find(j, id);
    if (!n || (op->code != CODE_NOT_FOUND && op->code != CODE_GONE)) return;
    if (op->code == CODE_NOT_FOUND && n->accepted_at && op->start > n->accepted_at)
        judge_bad(j, 1, "%s was accepted, and is not known at %lld", id, LL(op->start));
    else if (op->code == CODE_NOT_FOUND && n->first_seen && op->start > n->first_seen)
        judge_bad(j, 14, "%s was seen, and is not known at %lld", id, LL(op->start));
    if (op->code == CODE_GONE && !n->gone_at) n->gone_at = op->end;
    n->last_look = MAX(n->last_look, op->start);
}

/* May it have left? Its retention may be over, or a bound may have been met. */
static bool may_be_gone(Judge *j, const Seen *n)
{
    if (j->bounds.evicts || n->gone_at) return true;
    const Submit *s = judge_submit_of(j, n);
    if (!s || !n->first.id[0]) return true;
    int64_t end = n->ended && n->end.finished_ns ? n->end.finished_ns : n->first.created_ns;
    return j->latest_ns + NS_PER_S >= end + s->s.retention_ns;
}

void judge_list(Judge *j, const JudgeOp *op, const JudgeView *views, size_t len, bool complete)
{
    j->lists++;
    judge_leader(j, op);
    for (size_t i = 0; i < len; i++) {
        judge_view(j, op, &views[i]);
        Seen *n = judge_seen(j, views[i].id);
        if (n->listed == j->lists) judge_bad(j, 13, "%s is twice in a list", n->id);
        n->listed = j->lists;
        const JudgeView *a = i ? &views[i - 1] : NULL, *b = &views[i];
        if (a && (a->created_ns < b->created_ns ||
                  (a->created_ns == b->created_ns && strcmp(a->id, b->id) < 0)))
            judge_bad(j, 13, "%s is behind %s in a list", b->id, a->id);
    }
    for (size_t i = 0; complete && i < j->accepted.len; i++) {
        Seen *n = SEEN(j, *ROW(j->accepted, uint32_t, i));
        if (n->listed == j->lists || n->accepted_at >= op->start || may_be_gone(j, n)) continue;
        judge_bad(j, 1, "%s was accepted, and is not in the list at %lld", n->id, LL(op->start));
    }
}

static Told *told_row(Judge *j, const Seen *n, uint64_t seq)
{
    uint64_t h = hash_u64(id_hash(n->id) + seq);
    uint32_t *at = map64_at(&j->told_at, h ? h : 1);
    if (*at) return ROW(j->told, Told, *at - 1);
    Told *t = array_add(&j->told, sizeof *t);
    *at = (uint32_t)j->told.len;
    t->task = judge_row(j, n);
    t->seq = seq;
    return t;
}

void judge_event(Judge *j, uint64_t stream, int64_t now, const char *id, uint64_t after,
                 uint64_t seq, TaskState status, uint32_t attempt)
{
    j->events++;
    Seen *n = judge_seen(j, id);
    if (!n->first_seen) n->first_seen = now;
    uint32_t *at = map64_at(&j->stream_at, stream + 1);
    if (!*at) {
        Stream *s = array_add(&j->streams, sizeof *s);
        *s = (Stream){.task = judge_row(j, n), .after = after, .last = after};
        *at = (uint32_t)j->streams.len;
    }
    Stream *s = ROW(j->streams, Stream, *at - 1);
    if (seq <= s->last)
        judge_bad(j, 14, "%s: stream %llu gave event %llu after %llu", id, ULL(stream), ULL(seq),
                  ULL(s->last));
    if (s->ended) judge_bad(j, 3, "%s: stream %llu goes on behind its end", id, ULL(stream));
    s->last = MAX(s->last, seq);
    s->count++;
    s->ended = task_state_terminal(status);
    size_t known = j->told.len;
    Told *t = told_row(j, n, seq);
    if (j->told.len > known)
        t->status = status, t->attempt = attempt;
    else if (t->status != status || t->attempt != attempt)
        judge_bad(j, 3, "%s: event %llu was %s (attempt %u), is %s (attempt %u)", id, ULL(seq),
                  task_state_name(t->status), t->attempt, task_state_name(status), attempt);
    if (!s->ended) return;
    if (n->told && n->told != status)
        judge_bad(j, 3, "%s: %s in one stream, %s in another", id, task_state_name(n->told),
                  task_state_name(status));
    n->told = status;
    judge_far(j, n, now, now, INT64_MAX, 0, -1, status);
}

void judge_cancel(Judge *j, const JudgeOp *op, const char *id, const JudgeView *view)
{
    j->cancels++;
    judge_leader(j, op);
    Seen *n = judge_seen(j, id);
    if (op->out != OUT_REFUSED) n->cancel_maybe = true;
    if (op->out != OUT_OK) return;
    if (!n->cancel_ok) n->cancel_ok = op->end;
    if (view && view->status != TASK_CANCELED)
        judge_bad(j, 9, "the cancel of %s was acknowledged with %s", id,
                  task_state_name(view->status));
    if (view) judge_view(j, op, view);
}

void judge_delete(Judge *j, const JudgeOp *op, const char *id)
{
    j->deletes++;
    judge_leader(j, op);
    Seen *n = judge_seen(j, id);
    if (op->out != OUT_REFUSED) n->delete_maybe = true;
    if (op->out == OUT_OK && !n->delete_ok) n->delete_ok = op->end;
}

/* ---- servers ---- */

void judge_claimed(Judge *j, uint64_t epoch, int64_t now)
{
    const Claim *last = j->claims.len ? ROW(j->claims, Claim, j->claims.len - 1) : NULL;
    if (last && epoch <= last->epoch)
        judge_bad(j, 10, "epoch %llu is claimed after epoch %llu", ULL(epoch), ULL(last->epoch));
    *(Claim *)array_add(&j->claims, sizeof(Claim)) = (Claim){epoch, now};
}

void judge_calm(Judge *j, int64_t now)
{
    j->calm_at = now;
}

void judge_drained(Judge *j, int64_t now)
{
    j->drained_at = now;
}
