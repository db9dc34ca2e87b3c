/* due.c: what time does. All of it is volatile but for the records that core_due writes. One timer
 * a task: the next thing that time will do to it, whatever that is. */
#include "task/core.h"

#define EVICT_BATCH    64              /* records a frame: a bounded pause */
#define IDEM_CHECK_NS  (60 * NS_PER_S) /* keys leave a minute late at most */
#define FREEZE_STEP_NS NS_PER_S

void task_make_ready(Core *c, Task *t)
{
    if (t->ready) return;
    CHECK(t->state == TASK_QUEUED);
    t->ready = true;
    c->ready++;
    c->observer.task_ready(c->observer.ctx, t);
}

void task_make_unready(Core *c, Task *t)
{
    if (!t->ready) return;
    t->ready = false;
    c->ready--;
    c->observer.task_unready(c->observer.ctx, t);
}

static int64_t earlier(int64_t a, int64_t b) /* 0 = never */
{
    if (!a || !b) return a ? a : b;
    return MIN(a, b);
}

static int64_t next_ns(const Task *t)
{
    switch ((TaskState)t->state) {
    case TASK_QUEUED:
        return earlier(t->ready ? 0 : t->not_before_ns, t->deadline_ns);
    case TASK_RUNNING:
        return earlier(t->run->lease_until_ns, t->deadline_ns);
    default:
        return t->run->token ? t->run->lease_until_ns
                             : t->run->finished_ns + (int64_t)t->retention_s * NS_PER_S;
    }
}

void task_retime(Core *c, Task *t)
{
    if (!c->observed) return;
    int64_t at = next_ns(t);
    if (at)
        heap_set(&c->timers, &task_run(c, t)->timer, at, t->no);
    else if (t->run != &task_no_run)
        heap_del(&c->timers, &t->run->timer);
}

void file_retime(Core *c, File *f)
{
    if (!c->observed) return;
    if (f->refs == 0)
        heap_set(&c->file_timers, &f->timer, f->expires_ns, f->no);
    else
        heap_del(&c->file_timers, &f->timer);
}

void core_observe(Core *c, const CoreObserver *o, int64_t now_ns)
{
    CHECK(!c->observed);
    c->observer = *o;
    c->observed = true;
    c->idem_check_ns = now_ns;
    for (Task *t = directory_newer(&c->tasks, 0); t; t = directory_newer(&c->tasks, t->no)) {
        if (t->run->token) t->run->lease_until_ns = now_ns + c->limits.lease_ns;
        if (t->state == TASK_QUEUED && t->not_before_ns <= now_ns) task_make_ready(c, t);
        task_retime(c, t);
    }
    for (File *f = directory_newer(&c->files, 0); f; f = directory_newer(&c->files, f->no))
        file_retime(c, f);
}

static void put_task(FrameBuilder *b, RecordType type, uint64_t no)
{
    RecordData d = {.task = {no}};
    record_put(b, type, &d);
}

static bool evict_over_bound(const Core *c, FrameBuilder *b)
{
    uint64_t over = 0, n = 0;
    for (int s = TASK_SUCCEEDED; s < TASK_STATES; s++) n += c->counts[s];
    uint64_t bytes = c->finished_bytes;
    if (c->limits.history) return false; /* they wait for it */
    if (n <= c->limits.finished_max && bytes <= c->limits.finished_bytes_max) return false;
    LIST_FOR (r, &c->settled, TaskRun, settled) {
        const Task *t = r->task;
        if (over == EVICT_BATCH ||
            (n <= c->limits.finished_max && bytes <= c->limits.finished_bytes_max))
            break;
        put_task(b, REC_EVICT, t->no);
        n--;
        bytes -= (payload_is_there(&t->input) ? t->input.len : 0) +
                 (payload_is_there(&r->output) ? r->output.len : 0);
        over++;
    }
    return over > 0;
}

static bool expire_keys(Core *c, int64_t now_ns, FrameBuilder *b)
{
    int64_t before = now_ns - c->limits.idem_ttl_ns;
    if (now_ns < c->idem_check_ns) return false;
    c->idem_check_ns = now_ns + IDEM_CHECK_NS;
    bool old = !list_empty(&c->idem_order) &&
               LIST_FIRST(&c->idem_order, IdemEntry, order)->accepted_ns < before;
    if (!old && list_empty(&c->idem_linger)) return false;
    RecordData d = {.idem_expire = {before}};
    record_put(b, REC_IDEM_EXPIRE, &d);
    return true;
}

static void lease_over(Core *c, Task *t, int64_t now_ns, FrameBuilder *b)
{
    Decision d = core_release(c, t->no, t->run->token, FAIL_WORKER_LOST, false, (Usage){0}, now_ns,
                              b);
    CHECK(b->records == 1);
    (void)d; /* a held slot answers "fenced" and is freed all the same */
}

bool core_expire(const Task *t, int64_t now_ns, FrameBuilder *b)
{
    if (task_state_terminal((TaskState)t->state) || !t->deadline_ns || t->deadline_ns > now_ns)
        return false;
    put_task(b, REC_EXPIRE, t->no);
    return true;
}

static void task_due(Core *c, Task *t, int64_t now_ns, bool freeze_leases, FrameBuilder *b)
{
    bool terminal = task_state_terminal((TaskState)t->state);
    if (core_expire(t, now_ns, b)) return;
    if (t->run->token) {
        CHECK(t->run->lease_until_ns <= now_ns);
        if (freeze_leases) {
            t->run->lease_until_ns = now_ns + FREEZE_STEP_NS;
            task_retime(c, t);
        } else {
            lease_over(c, t, now_ns, b);
        }
        return;
    }
    if (terminal) {
        put_task(b, REC_EVICT, t->no);
        return;
    }
    CHECK(t->state == TASK_QUEUED && t->not_before_ns <= now_ns);
    task_make_ready(c, t);
    task_retime(c, t);
}

bool core_due(Core *c, int64_t now_ns, bool freeze_leases, FrameBuilder *b)
{
    HeapNode *n = heap_min(&c->timers);
    if (n && n->key <= now_ns) {
        task_due(c, CONTAINER_OF(n, TaskRun, timer)->task, now_ns, freeze_leases, b);
        return true;
    }
    n = heap_min(&c->file_timers);
    if (n && n->key <= now_ns) {
        RecordData d = {.file_delete = {CONTAINER_OF(n, File, timer)->no}};
        record_put(b, REC_FILE_DELETE, &d);
        return true;
    }
    return evict_over_bound(c, b) || expire_keys(c, now_ns, b);
}

int64_t core_next_due_ns(const Core *c)
{
    int64_t next = INT64_MAX;
    HeapNode *n = heap_min(&c->timers);
    if (n) next = MIN(next, n->key);
    n = heap_min(&c->file_timers);
    if (n) next = MIN(next, n->key);
    if (!list_empty(&c->idem_order) || !list_empty(&c->idem_linger))
        next = MIN(next, c->idem_check_ns);
    return next;
}
