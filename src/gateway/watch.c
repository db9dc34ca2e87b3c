/* Who waits for a task. One table by task number; one heap of times, with one timer of the loop at
 * its head. */
#include "gateway/internal.h"

static void arm(Gateway *g)
{
    HeapNode *first = heap_min(&g->timers);
    if (!first || g->closing) {
        loop_timer_stop(&g->timer);
        return;
    }
    uint64_t now = loop_now_ms(g->loop), due = (uint64_t)first->key;
    loop_timer_start(&g->timer, due > now ? due - now : 0, 0);
}

static void set_timer(Exchange *x, uint32_t timeout_ms)
{
    Gateway *g = x->g;
    const HeapNode *before = heap_min(&g->timers);
    heap_set(&g->timers, &x->timer, (int64_t)(loop_now_ms(g->loop) + timeout_ms), 0);
    if (heap_min(&g->timers) != before || before == &x->timer) arm(g);
}

void watch_task(Exchange *x, const Task *t, WatchMode mode, uint32_t timeout_ms)
{
    Gateway *g = x->g;
    CHECK(x->watching == WATCH_NONE);
    x->watching = mode;
    x->watch_no = t->no;
    table_add(&g->watch, &x->watch, hash_u64(t->no));
    g->watching++;
    set_timer(x, timeout_ms);
}

void watch_again(Exchange *x, uint32_t timeout_ms)
{
    set_timer(x, timeout_ms);
}

void watch_stop(Exchange *x)
{
    Gateway *g = x->g;
    if (heap_has(&x->timer))
        heap_del(&g->timers, &x->timer); /* the timer may fire early and find nothing: harmless */
    if (x->watching == WATCH_NONE) return;
    x->watching = WATCH_NONE;
    table_del(&g->watch, &x->watch);
    g->watching--;
}

/* The answer to a submit says where its task is, also when it waited. */
static void locate(Exchange *x, WatchMode mode, const Task *t)
{
    TaskIdText id;
    if (mode != WATCH_SUBMIT) return;
    core_task_id(core_of(x->g), t, &id);
    exchange_header(x, "Location", "/v1/tasks/%s", id.z);
}

/* The wait is over without what was waited for. */
static void answer_now(Exchange *x)
{
    WatchMode mode = x->watching;
    Task *t = core_task(core_of(x->g), x->watch_no);
    watch_stop(x);
    if (mode == WATCH_EVENTS)
        exchange_end(x);
    else if (mode == WATCH_BATCH)
        batch_wake(x, true);
    else if (t) {
        locate(x, mode, t);
        tasks_answer(x, t, mode == WATCH_SUBMIT && !task_state_terminal(t->state) ? 202 : 200,
                     false);
    } else
        problem_say(x, 410, CODE_GONE, NULL, "the task has left memory");
}

void watch_due(Gateway *g)
{
    int64_t now = (int64_t)loop_now_ms(g->loop);
    for (HeapNode *n = heap_min(&g->timers); n && n->key <= now; n = heap_min(&g->timers)) {
        Exchange *x = CONTAINER_OF(n, Exchange, timer);
        if (x->watching == WATCH_EVENTS)
            events_beat(x);
        else
            answer_now(x);
    }
    arm(g);
}

void watch_answer_all(Gateway *g)
{
    /* Each has a timer. From the head anew every time: an answer ends its connection, and with it
     * whatever else was asked on it. */
    for (HeapNode *n = heap_min(&g->timers); n; n = heap_min(&g->timers))
        answer_now(CONTAINER_OF(n, Exchange, timer));
}

void watch_done_gateway(Gateway *g)
{
    table_done(&g->watch);
    heap_done(&g->timers);
}

/* ---- what the shard tells ---- */

static void changed(Exchange *x, Task *t, const TaskEvent *e)
{
    bool over = task_state_terminal(t->state);
    switch (x->watching) {
    case WATCH_SUBMIT:
    case WATCH_FINISH:
        if (!over) break;
        locate(x, x->watching, t);
        tasks_answer(x, t, 200, false);
        break;
    case WATCH_CHANGE:
        tasks_answer(x, t, 200, false);
        break;
    case WATCH_EVENTS:
        events_push(x, t, e);
        break;
    case WATCH_BATCH:
        if (over) batch_wake(x, false);
        break;
    case WATCH_NONE:
        break;
    }
}

void gateway_task_changed(Gateway *g, Task *t, const TaskEvent *e)
{
    files_task_changed(g, t, e);
    if (!g->watching) return;
    for (TableNode *n = table_first(&g->watch, hash_u64(t->no)), *next; n; n = next) {
        next = table_next(n);
        changed(CONTAINER_OF(n, Exchange, watch), t, e);
    }
}

void gateway_task_progress(Gateway *g, Task *t)
{
    if (!g->watching) return;
    for (TableNode *n = table_first(&g->watch, hash_u64(t->no)), *next; n; n = next) {
        next = table_next(n);
        Exchange *x = CONTAINER_OF(n, Exchange, watch);
        if (x->watching == WATCH_EVENTS)
            events_progress(x, t);
        else if (x->watching == WATCH_CHANGE)
            tasks_answer(x, t, 200, false);
    }
}

void gateway_task_leaving(Gateway *g, Task *t)
{
    if (!g->watching) return;
    for (TableNode *n = table_first(&g->watch, hash_u64(t->no)), *next; n; n = next) {
        next = table_next(n);
        answer_now(CONTAINER_OF(n, Exchange, watch));
    }
}
