/* POST /v1/tasks:batch: one submit a line, one answer a line, in order; both directions stream.
 * Lines are independent: one that is refused changes nothing for the others. A line whose input
 * must be stored first holds up those behind it.
 *
 * With `Prefer: wait=N` all lines are submitted as they come, and each is answered when its task
 * has ended: the batch watches the first one that is not answered yet. */
#include "gateway/internal.h"

#include <stdio.h>
#include <string.h>

#define LINES_MAX    10000
#define STALL_MAX_MS 10000 /* so long a line waits for room in the log; then it is refused */
/* bytes of lines that wait for a large one to be stored; then reading stops */
#define AHEAD_MAX (16 * MIB)
/* bytes of answers that the client has not read; then no more are made. Half of what ends its
 * connection (server.c). */
#define UNREAD_MAX (32 * MIB)

typedef struct Repeat Repeat;

typedef struct {
    Exchange *x;
    Buf in;    /* bytes of lines not yet handled */
    size_t at; /* handled up to here */
    uint32_t lines;
    bool over;           /* the body has ended, or no more of it counts */
    BigInput *big;       /* a line that is being stored */
    Repeat *repeat;      /* a line whose task the history view is asked for */
    Repeat *fetch;       /* a line that refers to a file which the history view is asked for … */
    int view_err;        /* … and that it cannot read now */
    List later;          /* in Gateway.batches: gateway_go_on comes back to it */
    uint64_t stalled_ms; /* since when the log has no room for the next line; 0: it has */

    bool minimal;           /* of a task id and status only */
    bool waits;             /* answers wait for the end of their tasks … */
    uint64_t wait_until_ms; /* … until then (loop's time); 0: no longer */
    Buf queue;              /* of Waiting */
    size_t queue_at;        /* answered up to here */
    Buf refusals;           /* text of the queue's refusals */
    size_t refusals_at;
} Batch;

typedef struct { /* an answer in its turn */
    uint64_t no; /* 0: a refusal */
    uint32_t refusal_len;
    bool repeat;
} Waiting;

struct Repeat {
    PastQuery q;
    Batch *b;    /* NULL: it is gone */
    bool repeat; /* else its task has ended while another one was waited for */
};

static void pump(Batch *b);

static void put_refusal(Batch *b, const Problem *p)
{
    Gateway *g = b->x->g;
    Buf *out = &g->lines;
    buf_clear(out);
    buf_printf(out, "{\"status\":%d,\"error\":", p->status);
    problem_json(out, p, (Str){"", 0});
    buf_put(out, "}\n", 2);
    if (b->waits) {
        Waiting w = {.refusal_len = (uint32_t)out->len};
        buf_put(&b->queue, &w, sizeof w);
        buf_put_str(&b->refusals, buf_str(out));
    } else {
        exchange_put(b->x, buf_str(out), g->p.last_seq(g->p.ctx));
    }
}

static void past_answered(PastQuery *q);

/* no: 0 when the history view has been asked already. */
static void put_task(Batch *b, Task *t, uint64_t no, bool repeat)
{
    Gateway *g = b->x->g;
    if (!t && no && g->p.past) {
        b->repeat = mem_new(sizeof *b->repeat);
        b->repeat->b = b;
        b->repeat->repeat = repeat;
        b->x->asked = true;
        b->repeat->q = (PastQuery){.kind = PAST_TASK, .no = no, .done = past_answered};
        g->p.past(g->p.ctx, &b->repeat->q);
        return;
    }
    if (!t) {
        Problem p = problem_of(410, CODE_GONE, NULL,
                               "this line was accepted; its task has ended and left memory");
        put_refusal(b, &p);
        return;
    }
    Buf *out = &g->lines;
    buf_clear(out);
    buf_puts(out, b->waits && task_state_terminal((TaskState)t->state) ? "{\"status\":200"
                                                                       : "{\"status\":202");
    buf_puts(out, repeat ? ",\"replayed\":true,\"task\":" : ",\"task\":");
    if (b->minimal)
        render_task_minimal(g, t, out);
    else
        render_task(g, t, false, false, out);
    buf_put(out, "}\n", 2);
    exchange_put(b->x, buf_str(out), task_last_seq(t));
}

/* The line was accepted: its answer goes out, or waits for its turn. */
static void accepted(Batch *b, Task *t, uint64_t no, bool repeat)
{
    Waiting w = {.no = no, .repeat = repeat};
    if (b->waits)
        buf_put(&b->queue, &w, sizeof w);
    else
        put_task(b, t, no, repeat);
}

static bool unread(const Batch *b)
{
    return server_unsent(b->x) + exchange_waiting(b->x) > UNREAD_MAX;
}

/* Answers what has its turn, up to a task that is not at its end. */
static void answer_some(Batch *b)
{
    Gateway *g = b->x->g;
    while (b->queue_at < b->queue.len && !b->repeat && b->x->watching == WATCH_NONE && !unread(b)) {
        Waiting w;
        memcpy(&w, b->queue.data + b->queue_at, sizeof w);
        Task *t = w.no ? core_task(core_of(g), w.no) : NULL;
        uint64_t now = loop_now_ms(g->loop);
        if (t && !task_state_terminal((TaskState)t->state) && now < b->wait_until_ms &&
            !g->draining) {
            watch_task(b->x, t, WATCH_BATCH, (uint32_t)(b->wait_until_ms - now));
            return;
        }
        b->queue_at += sizeof w;
        if (w.no) {
            put_task(b, t, w.no, w.repeat);
        } else {
            Str text = {(char *)b->refusals.data + b->refusals_at, w.refusal_len};
            b->refusals_at += w.refusal_len;
            exchange_put(b->x, text, g->p.last_seq(g->p.ctx));
        }
    }
}

void batch_wake(Exchange *x, bool wait_over)
{
    Batch *b = x->state;
    watch_stop(x);
    if (wait_over) b->wait_until_ms = 0;
    /* Not from here: the caller walks over those who watch. */
    if (list_empty(&b->later)) list_push_back(&x->g->batches, &b->later);
}

static void past_answered(PastQuery *q)
{
    Repeat *r = CONTAINER_OF(q, Repeat, q);
    Batch *b = r->b;
    if (b) {
        b->repeat = NULL;
        b->x->asked = b->fetch != NULL;
        put_task(b, q->tasks_len ? q->tasks[0] : NULL, 0, r->repeat);
        pump(b);
    }
    mem_free(r);
}

static void file_answered(PastQuery *q)
{
    Repeat *r = CONTAINER_OF(q, Repeat, q);
    Batch *b = r->b;
    if (b) {
        b->fetch = NULL;
        b->x->asked = b->repeat != NULL;
        b->view_err = q->err == ERR_NOT_FOUND ? 0 : q->err;
        b->x->missing_for_good = past_file_back(b->x->g, q).code != CODE_OK;
        pump(b);
    }
    mem_free(r);
}

static void ask_for_file(Batch *b, const PastQuery *q)
{
    Gateway *g = b->x->g;
    b->fetch = mem_new(sizeof *b->fetch);
    b->fetch->b = b;
    b->fetch->q = *q;
    b->fetch->q.done = file_answered;
    b->x->asked = true;
    g->p.past(g->p.ctx, &b->fetch->q);
}

static void big_stored(BigInput *big)
{
    Batch *b = big->x->state;
    Task *t = NULL;
    bool repeat = false;
    Problem p;
    uint64_t no = 0;
    bool fine = submit_big_decide(big, &t, &no, &repeat, &p);
    b->big = NULL;
    submit_big_free(big);
    if (fine)
        accepted(b, t, no, repeat);
    else
        put_refusal(b, &p);
    pump(b);
}

/* False: not now; gateway_go_on or the history view's answer comes back to it. */
static bool try_line(Batch *b, Str line)
{
    Exchange *x = b->x;
    Gateway *g = x->g;
    PastQuery q;
    Submit s = {0};
    Problem p;
    Task *t = NULL;
    bool repeat = false;
    uint32_t retry_ms = 0;
    buf_clear(&g->text);
    Decision d = g->p.accepting(g->p.ctx);
    bool room = d.code == CODE_OK;
    if (!room &&
        (d.code == CODE_NO_LEADER || line.n > g->o.body_max || !submit_line_known(x, line, &s))) {
        p = problem_of_decision(&d);
    } else if (room && !x->rated && !auth_rate(x, x->tenant, false, &retry_ms)) {
        p = problem_of(429, CODE_RATE_LIMITED, NULL,
                       "the tenant may submit %g tasks a second; send this line again in %u ms",
                       g->o.tenant_rate, retry_ms);
    } else if (line.n > g->o.body_max) {
        p = problem_of(413, CODE_TOO_LARGE, NULL, "the line is longer than %zu bytes",
                       g->o.body_max);
    } else if (s.known || (submit_read(x, line, true, &s, &p) &&
                           submit_identity(x, (Str){NULL, 0}, line, &s, &p))) {
        if (s.input.n > TASK_INLINE_MAX && !submit_known(x, x->tenant, &s)) {
            b->big = mem_new(sizeof *b->big);
            b->big->done = big_stored;
            submit_store_big(x, &s, b->big);
            submit_done(&s);
            return true;
        }
        uint64_t no = 0;
        bool fine = submit_decide(x, &s, &t, &no, &repeat, &p);
        uint64_t now_ms = loop_now_ms(g->loop);
        if (!fine && p.code == CODE_LOG_STALLED &&
            (!b->stalled_ms || now_ms - b->stalled_ms < STALL_MAX_MS)) {
            if (!b->stalled_ms) b->stalled_ms = MAX(now_ms, 1);
            submit_done(&s);
            if (list_empty(&b->later)) list_push_back(&g->batches, &b->later);
            return false;
        }
        b->stalled_ms = 0;
        if (fine) {
            submit_done(&s);
            accepted(b, t, no, repeat);
            return true;
        }
    } else if (past_wants_file(x, &q)) {
        submit_done(&s);
        x->rated = true;
        ask_for_file(b, &q);
        return false;
    } else if (x->missing_file[0] && b->view_err) {
        p = problem_of(503, CODE_LOG_STALLED, "input",
                       "the history of finished tasks cannot be read now (%s)",
                       err_text(b->view_err));
    }
    submit_done(&s);
    put_refusal(b, &p);
    return true;
}

static bool one_line(Batch *b, Str line)
{
    Exchange *x = b->x;
    memset(x->missing_file, 0, sizeof x->missing_file);
    if (!try_line(b, line)) return false;
    x->rated = x->missing_for_good = false;
    b->view_err = 0;
    return true;
}

static void too_many(Batch *b)
{
    Problem p = problem_of(413, CODE_TOO_LARGE, NULL,
                           "a batch has at most %d lines; the rest was not read", LINES_MAX);
    put_refusal(b, &p);
    b->over = true;
    b->at = b->in.len;
    b->x->close = true;
}

static void pump(Batch *b)
{
    Exchange *x = b->x;
    bool stalled = false;
    bool full = false;
    while (!b->big && !b->fetch && (!b->repeat || b->waits) && !stalled && b->at < b->in.len) {
        if (!b->waits && (full = unread(b))) break;
        const char *first = (char *)b->in.data + b->at;
        size_t left = b->in.len - b->at;
        const char *end = memchr(first, '\n', left);
        if (!end && !b->over && left <= x->g->o.body_max) break;
        if (!end && !b->over) { /* a line that never ends */
            Problem p = problem_of(413, CODE_TOO_LARGE, NULL,
                                   "a line is longer than %zu bytes; the rest was not read",
                                   x->g->o.body_max);
            put_refusal(b, &p);
            b->over = true;
            b->at = b->in.len;
            x->close = true;
            break;
        }
        Str line = {first, end ? (size_t)(end - first) : left};
        b->at += line.n + (end != NULL);
        while (line.n && (line.p[line.n - 1] == '\r' || line.p[line.n - 1] == ' ')) line.n--;
        if (!line.n) continue;
        if (b->lines == LINES_MAX) {
            too_many(b);
        } else if (one_line(b, line)) {
            b->lines++;
        } else {
            b->at = (size_t)((const uint8_t *)first - b->in.data);
            stalled = true;
        }
    }
    if (b->at) {
        buf_drop(&b->in, b->at);
        b->at = 0;
    }
    bool paused = x->paused_in;
    answer_some(b);
    bool waits = b->big || b->fetch || (b->repeat && !b->waits) || stalled || full;
    x->paused_in = waits && b->in.len > AHEAD_MAX;
    /* After either of these, x may be gone. */
    if (b->over && !waits && !b->in.len && !b->repeat && b->queue_at == b->queue.len)
        exchange_end(x);
    else if (paused && !x->paused_in)
        server_resume_body(x);
}

static void take(Exchange *x, Str piece)
{
    Batch *b = x->state;
    if (b->over) return;
    if (!x->answered) exchange_begin(x, 200, "application/x-ndjson", -1);
    buf_put_str(&b->in, piece);
    if (x->body_whole) b->over = true;
    pump(b);
}

static void drained(Exchange *x)
{
    pump(x->state);
}

static void drop(Exchange *x)
{
    Batch *b = x->state;
    if (b->big) b->big->x = NULL;
    if (b->repeat) b->repeat->b = NULL;
    if (b->fetch) b->fetch->b = NULL;
    list_del(&b->later);
    buf_done(&b->queue);
    buf_done(&b->refusals);
    buf_done(&b->in);
    mem_free(b);
    x->state = NULL;
}

bool gateway_go_on(Gateway *g)
{
    if (list_empty(&g->batches)) return false;
    List now;
    list_init(&now);
    while (!list_empty(&g->batches)) {
        Batch *b = LIST_FIRST(&g->batches, Batch, later);
        list_del(&b->later);
        list_push_back(&now, &b->later);
    }
    while (!list_empty(&now)) { /* one that ends meanwhile takes itself out */
        Batch *b = LIST_FIRST(&now, Batch, later);
        list_del(&b->later);
        pump(b);
    }
    return !list_empty(&g->batches);
}

void batch_post(Exchange *x)
{
    uint32_t wait_s;
    if (!query_prefer_wait(x, &wait_s)) return;
    Batch *b = mem_new(sizeof *b);
    list_init(&b->later);
    b->minimal = query_prefer_minimal(x);
    b->waits = wait_s > 0;
    b->wait_until_ms = wait_s ? loop_now_ms(x->g->loop) + (uint64_t)wait_s * 1000 : 0;
    b->x = x;
    x->state = b;
    x->drop = drop;
    x->drained = drained;
    x->take = take;
}
