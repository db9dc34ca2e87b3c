/* Server-sent events of one task: `status` events with the record's sequence as id, `progress`
 * with "seq.n". A reader that comes back with Last-Event-ID gets the transitions after it, then
 * the latest progress. The stream ends with the terminal event; one that comes back after that is
 * told to stay away (204, as the HTML standard has it). */
#include "gateway/internal.h"

#include <stdio.h>
#include <string.h>

#define BEAT_MS 15000 /* below the usual 30 s of proxies */
/* A reader this far behind misses progress, never transitions. */
#define PROGRESS_UNSENT_MAX (256 * KIB)

static void put_event(Exchange *x, const char *id, const char *name, uint64_t seq)
{
    Buf *b = &x->g->lines;
    Buf *data = &x->g->body;
    buf_clear(b);
    buf_printf(b, "id: %s\nevent: %s\ndata: ", id, name);
    buf_put_str(b, buf_str(data)); /* JSON without line breaks */
    buf_put(b, "\n\n", 2);
    exchange_put(x, buf_str(b), seq);
}

void events_push(Exchange *x, Task *t, const TaskEvent *e)
{
    if (e->seq <= x->seen_seq || e->kind == EVENT_FORGOTTEN) return;
    x->seen_seq = e->seq;
    x->seen_n = 0;
    char id[24];
    snprintf(id, sizeof id, "%llu", (unsigned long long)e->seq);
    buf_clear(&x->g->body);
    render_event(x->g, t, e, &x->g->body);
    put_event(x, id, "status", e->seq);
    if (e->kind == EVENT_FINISHED) exchange_end(x);
}

void events_progress(Exchange *x, Task *t)
{
    if (t->state != TASK_RUNNING || !t->run->token || !t->run->steps) return;
    if (t->run->token == x->seen_seq && t->run->progress_n <= x->seen_n) return;
    if (server_unsent(x) > PROGRESS_UNSENT_MAX) return;
    x->seen_n = t->run->progress_n;
    char id[40];
    snprintf(id, sizeof id, "%llu.%u", (unsigned long long)t->run->token, t->run->progress_n);
    Buf *b = &x->g->body;
    TaskIdText task;
    core_task_id(core_of(x->g), t, &task);
    buf_clear(b);
    buf_printf(b, "{\"id\":\"%s\",\"step\":%u,\"steps\":%u,\"attempt\":%u}", task.z, t->run->step,
               t->run->steps, t->run->attempt);
    put_event(x, id, "progress", task_last_seq(t));
}

void events_beat(Exchange *x)
{
    exchange_put(x, STR(": still here\n\n"), 0);
    watch_again(x, BEAT_MS);
}

/* "17" or "17.3". */
static bool read_id(Str s, uint64_t *seq, uint32_t *n)
{
    const char *dot = s.n ? memchr(s.p, '.', s.n) : NULL;
    uint64_t part = 0;
    if (parse_u64((Str){s.p, dot ? (size_t)(dot - s.p) : s.n}, seq)) return false;
    if (dot &&
        (parse_u64((Str){dot + 1, s.n - (size_t)(dot + 1 - s.p)}, &part) || part > UINT32_MAX))
        return false;
    *n = (uint32_t)part;
    return true;
}

/* What came after x->seen_seq, x->seen_n; then, while it is not over, what comes. */
static void stream(Exchange *x, Task *t)
{
    Gateway *g = x->g;
    uint64_t after = x->seen_seq;
    uint32_t after_n = x->seen_n;
    bool over = task_state_terminal(t->state);
    const TaskEvent *final = NULL;
    for (uint16_t i = 0; i < t->run->events_len; i++)
        if (t->run->events[i].kind == EVENT_FINISHED) final = &t->run->events[i];
    if (over && after && after >= (final ? final->seq : task_last_seq(t))) {
        exchange_hold(x, task_last_seq(t));
        exchange_reply(x, 204, NULL, (Str){"", 0});
        return;
    }
    x->seen_n = 0;
    exchange_begin(x, 200, "text/event-stream", -1);
    if (x->head_only) return;
    exchange_put(x, STR("retry: 1000\n\n"), 0);
    TaskEvent created = {.seq = t->created_seq,
                         .time_ns = t->created_ns,
                         .kind = EVENT_CREATED,
                         .state = TASK_QUEUED};
    events_push(x, t, &created);
    for (uint16_t i = 0; i < t->run->events_len && !x->ended; i++) {
        if (t->run->events[i].kind == EVENT_CREATED) continue;
        events_push(x, t, &t->run->events[i]);
    }
    if (over) {
        exchange_end(x);
        return;
    }
    if (x->seen_seq == after) x->seen_n = after_n;
    if (g->draining) {
        exchange_end(x);
        return;
    }
    watch_task(x, t, WATCH_EVENTS, BEAT_MS);
    events_progress(x, t);
}

void events_get(Exchange *x)
{
    Str last = http_field(x->req, "Last-Event-ID");
    if (!last.p) (void)query_get(x, "last_event_id", &last);
    uint64_t after = 0;
    uint32_t after_n = 0;
    if (last.p && last.n && !read_id(last, &after, &after_n)) {
        problem_say(x, 400, CODE_INVALID_REQUEST, "Last-Event-ID",
                    "Last-Event-ID must be an id of this stream, such as 17 or 17.3");
        return;
    }
    x->seen_seq = after;
    x->seen_n = after_n;
    Task *t = query_task(x, stream);
    if (t) stream(x, t);
}
