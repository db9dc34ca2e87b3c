/* Tasks that have left memory: asked of the history view, answered when it has answered. An
 * exchange that ends before leaves its question behind, which frees itself. */
#include "gateway/internal.h"

typedef struct {
    PastQuery q;
    Exchange *x; /* NULL: it is gone */
    void (*then)(Exchange *x, PastQuery *q);
    TaskHandler then_task;
} Asked;

static void drop(Exchange *x)
{
    ((Asked *)x->state)->x = NULL;
}

static void answered(PastQuery *q)
{
    Asked *a = CONTAINER_OF(q, Asked, q);
    Exchange *x = a->x;
    if (x) {
        x->state = NULL;
        x->drop = NULL;
        x->asked = false;
        if (q->err && q->err != ERR_NOT_FOUND) {
            Problem p = problem_of(503, CODE_LOG_STALLED, NULL,
                                   "the history of finished tasks cannot be read now (%s)",
                                   err_text(q->err));
            p.retry_after_ms = 1000;
            problem_reply(x, &p);
        } else if (a->then_task && q->err) {
            problem_say(x, 410, CODE_GONE, NULL,
                        "this task ended and its retention is over, or newer ones needed the room");
        } else if (a->then_task) {
            a->then_task(x, q->tasks[0]);
        } else {
            a->then(x, q);
        }
    }
    buf_done(&q->body);
    buf_done(&q->output);
    mem_free(a);
}

static void ask(Exchange *x, Asked *a)
{
    Gateway *g = x->g;
    CHECK(!x->state && !x->drop);
    a->x = x;
    a->q.done = answered;
    x->state = a;
    x->drop = drop;
    x->asked = true;
    g->p.past(g->p.ctx, &a->q);
}

void past_ask(Exchange *x, const PastQuery *q, void (*then)(Exchange *x, PastQuery *q))
{
    Asked *a = mem_new(sizeof *a);
    a->q = *q;
    a->then = then;
    ask(x, a);
}

void past_task(Exchange *x, uint64_t no, TaskHandler then)
{
    Asked *a = mem_new(sizeof *a);
    a->q = (PastQuery){.kind = PAST_TASK, .no = no};
    a->then_task = then;
    ask(x, a);
}
