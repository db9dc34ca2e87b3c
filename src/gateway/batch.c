/* POST /v1/tasks:batch: one submit a line, one answer a line, in order; both directions stream.
 * Lines are independent: one that is refused changes nothing for the others. A line whose input
 * must be stored first holds up those behind it. */
#include "gateway/internal.h"

#include <stdio.h>
#include <string.h>

#define LINES_MAX 10000
#define STALL_MAX_MS 10000 /* so long a line waits for room in the log; then it is refused */
/* bytes of lines that wait for a large one to be stored; then reading stops */
#define AHEAD_MAX (16 * MIB)

typedef struct Repeat Repeat;

typedef struct {
    Exchange *x;
    Buf in;    /* bytes of lines not yet handled */
    size_t at; /* handled up to here */
    uint32_t lines;
    bool over;      /* the body has ended, or no more of it counts */
    BigInput *big;  /* a line that is being stored */
    Repeat *repeat; /* a line whose task the history view is asked for */
    List stalled;   /* in Gateway.stalled: the log has no room for the next line until a commit */
    uint64_t stalled_ms; /* since when; 0: it is not */
} Batch;

struct Repeat {
    PastQuery q;
    Batch *b; /* NULL: it is gone */
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
    exchange_put(b->x, buf_str(out), g->p.last_seq(g->p.ctx));
}

static void past_answered(PastQuery *q);

static void put_task(Batch *b, Task *t, uint64_t no, bool repeat)
{
    Gateway *g = b->x->g;
    if (!t && no && g->p.past) {
        b->repeat = mem_new(sizeof *b->repeat);
        b->repeat->b = b;
        b->repeat->q = (PastQuery){.kind = PAST_TASK, .no = no, .done = past_answered};
        g->p.past(g->p.ctx, &b->repeat->q);
        return;
    }
    if (!t) {
        Problem p = problem_of(410, CODE_GONE, NULL,
                               "this line was accepted before; its task has ended and left memory");
        put_refusal(b, &p);
        return;
    }
    Buf *out = &g->lines;
    buf_clear(out);
    buf_puts(out,
             repeat ? "{\"status\":202,\"replayed\":true,\"task\":" : "{\"status\":202,\"task\":");
    render_task(g, t, false, false, out);
    buf_put(out, "}\n", 2);
    exchange_put(b->x, buf_str(out), task_last_seq(t));
}

static void past_answered(PastQuery *q)
{
    Repeat *r = CONTAINER_OF(q, Repeat, q);
    Batch *b = r->b;
    if (b) {
        b->repeat = NULL;
        put_task(b, q->tasks_len ? q->tasks[0] : NULL, 0, true);
        pump(b);
    }
    mem_free(r);
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
        put_task(b, t, no, repeat);
    else
        put_refusal(b, &p);
    pump(b);
}

/* False: not now; gateway_go_on comes back to it. */
static bool one_line(Batch *b, Str line)
{
    Exchange *x = b->x;
    Gateway *g = x->g;
    Submit s = {0};
    Problem p;
    Task *t = NULL;
    bool repeat = false;
    uint32_t retry_ms = 0;
    buf_clear(&g->text);
    Decision d = g->p.accepting(g->p.ctx);
    if (d.code != CODE_OK) {
        p = problem_of_decision(&d);
    } else if (!auth_rate(x, x->tenant, false, &retry_ms)) {
        p = problem_of(429, CODE_RATE_LIMITED, NULL,
                       "the tenant may submit %g tasks a second; send this line again in %u ms",
                       g->o.tenant_rate, retry_ms);
    } else if (line.n > g->o.body_max) {
        p = problem_of(413, CODE_TOO_LARGE, NULL, "the line is longer than %zu bytes",
                       g->o.body_max);
    } else if (submit_read(x, line, true, &s, &p) &&
               submit_identity(x, (Str){NULL, 0}, line, &s, &p)) {
        if (s.input.n > TASK_INLINE_MAX) {
            b->big = mem_new(sizeof *b->big);
            b->big->done = big_stored;
            submit_store_big(x, &s, b->big);
            submit_done(&s);
            return true;
        }
        uint64_t no = 0;
        bool fine = submit_decide(x, &s, &t, &no, &repeat, &p);
        uint64_t now_ms = uv_now(g->loop);
        if (!fine && p.code == CODE_LOG_STALLED &&
            (!b->stalled_ms || now_ms - b->stalled_ms < STALL_MAX_MS)) {
            if (!b->stalled_ms) b->stalled_ms = MAX(now_ms, 1);
            submit_done(&s);
            list_push_back(&g->stalled, &b->stalled);
            return false;
        }
        b->stalled_ms = 0;
        if (fine) {
            submit_done(&s);
            put_task(b, t, no, repeat);
            return true;
        }
    }
    submit_done(&s);
    put_refusal(b, &p);
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
    while (!b->big && !b->repeat && list_empty(&b->stalled) && b->at < b->in.len) {
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
            break;
        }
    }
    if (b->at) {
        buf_drop(&b->in, b->at);
        b->at = 0;
    }
    bool paused = x->paused_in;
    bool waits = b->big || b->repeat || !list_empty(&b->stalled);
    x->paused_in = waits && b->in.len > AHEAD_MAX;
    /* After either of these, x may be gone. */
    if (b->over && !waits && !b->in.len)
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

static void drop(Exchange *x)
{
    Batch *b = x->state;
    if (b->big) b->big->x = NULL;
    if (b->repeat) b->repeat->b = NULL;
    list_del(&b->stalled);
    buf_done(&b->in);
    mem_free(b);
    x->state = NULL;
}

bool gateway_go_on(Gateway *g)
{
    if (list_empty(&g->stalled)) return false;
    List now;
    list_init(&now);
    while (!list_empty(&g->stalled)) {
        Batch *b = LIST_FIRST(&g->stalled, Batch, stalled);
        list_del(&b->stalled);
        list_push_back(&now, &b->stalled);
    }
    while (!list_empty(&now)) { /* one that ends meanwhile takes itself out */
        Batch *b = LIST_FIRST(&now, Batch, stalled);
        list_del(&b->stalled);
        pump(b);
    }
    return !list_empty(&g->stalled);
}

void batch_post(Exchange *x)
{
    Batch *b = mem_new(sizeof *b);
    list_init(&b->stalled);
    b->x = x;
    x->state = b;
    x->drop = drop;
    x->take = take;
}
