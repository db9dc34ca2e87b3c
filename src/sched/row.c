/* row.c: a row of ready tasks in the order (deadline, number).
 *
 * Tasks mostly come in order: numbers grow, and so do deadlines that lie equally far ahead. So a
 * row is a few lists, the runs, to whose ends they are appended; those that fit behind no run
 * (numbers of requeued tasks, deadlines in no order) go to a heap. The first of all is the first of
 * the row. Taking from a run costs the same with ten million behind it as with ten.
 *
 * A task in a run has its neighbours' addresses in sched_node: key = the one before, tie = the one
 * behind, at = 0. A task in the heap has sched_node as the heap made it, at > 0.
 *
 * R1  Every run is sorted by (deadline, number); so a task is appended only behind its last.
 * R2  t->sched_queue is the row that t is in.
 * R3  len = tasks in the runs + rest.len. */
#include "sched/inner.h"

static Task *before_of(const Task *t)
{
    return (Task *)(uintptr_t)t->sched_node.key;
}

static Task *behind_of(const Task *t)
{
    return (Task *)(uintptr_t)t->sched_node.tie;
}

static void set_before(Task *t, const Task *n)
{
    t->sched_node.key = (int64_t)(uintptr_t)n;
}

static void set_behind(Task *t, const Task *n)
{
    t->sched_node.tie = (uint64_t)(uintptr_t)n;
}

void row_add(Row *r, Task *t)
{
    t->sched_queue = r; /* keeps R2 */
    r->len++;
    /* The run that ends nearest before t, else an empty one (patience sorting). */
    int at = -1;
    for (int i = 0; i < ROW_RUNS; i++) {
        const Task *last = r->runs[i].last, *best = at < 0 ? NULL : r->runs[at].last;
        if (last && !task_before(last, t)) continue; /* keeps R1 */
        if (at < 0 || (last && (!best || task_before(best, last)))) at = i;
    }
    if (at < 0) {
        heap_set(&r->rest, &t->sched_node, t->deadline_ns, t->no);
        return;
    }
    Task *last = r->runs[at].last;
    t->sched_node.at = 0;
    set_before(t, last);
    set_behind(t, NULL);
    if (last)
        set_behind(last, t);
    else
        r->runs[at].first = t;
    r->runs[at].last = t;
}

void row_del(Row *r, Task *t)
{
    CHECK(t->sched_queue == r && r->len > 0);
    t->sched_queue = NULL;
    r->len--;
    if (heap_has(&t->sched_node)) {
        heap_del(&r->rest, &t->sched_node);
    } else {
        Task *before = before_of(t), *behind = behind_of(t);
        if (before) set_behind(before, behind);
        if (behind) {
            set_before(behind, before);
            /* Often far apart in memory, and needed when behind is taken in its turn. */
            const Task *next = behind_of(behind);
            __builtin_prefetch(next ? &next->sched_node : NULL, 1);
            __builtin_prefetch(next ? &next->no : NULL);
        }
        for (int i = 0; i < ROW_RUNS; i++) {
            if (r->runs[i].first == t) r->runs[i].first = behind;
            if (r->runs[i].last == t) r->runs[i].last = before;
        }
    }
    t->sched_node = (HeapNode){0};
}

Task *row_first(const Row *r)
{
    HeapNode *n = heap_min(&r->rest);
    Task *first = n ? CONTAINER_OF(n, Task, sched_node) : NULL;
    for (int i = 0; i < ROW_RUNS; i++) {
        Task *t = r->runs[i].first;
        if (t && (!first || task_before(t, first))) first = t;
    }
    return first;
}

static const Task *last_in_runs(const Row *r)
{
    const Task *last = NULL;
    for (int i = 0; i < ROW_RUNS; i++) {
        const Task *t = r->runs[i].last;
        if (t && (!last || task_before(last, t))) last = t;
    }
    return last;
}

size_t row_rank(const Row *r, const Task *t)
{
    const Task *first = row_first(r), *last = last_in_runs(r);
    if (!first || !task_before(first, t)) return 0;
    if (!last) return r->len / 2;
    if (task_before(last, t)) return r->len;
    /* Between the two: as if they were spread evenly. */
    double lo, hi, at;
    if (first->deadline_ns != last->deadline_ns) {
        lo = (double)first->deadline_ns;
        hi = (double)last->deadline_ns;
        at = (double)t->deadline_ns;
    } else {
        lo = (double)first->no;
        hi = (double)last->no;
        at = (double)t->no;
    }
    if (hi <= lo) return 0;
    size_t rank = (size_t)((at - lo) / (hi - lo) * (double)(r->len - 1) + 0.5);
    return MIN(MAX(rank, 1), r->len - 1);
}

void row_done(Row *r)
{
    heap_done(&r->rest);
}
