/* Tasks that have left memory: asked of the history view, answered when it has answered. An
 * exchange that ends before leaves its question behind, which frees itself. */
#include "gateway/internal.h"

#include <string.h>
#include <strings.h>

typedef struct {
    PastQuery q;
    Exchange *x; /* NULL: it is gone */
    void (*then)(Exchange *x, PastQuery *q);
    TaskHandler then_task;
    char id[TASK_ID_LEN + 1]; /* that the task must have; "": any */
} Asked;

/* A number comes again after a restore, an id does not (node/restore.h). */
static bool is_other(const Asked *a)
{
    TaskIdText id;
    if (!a->id[0]) return false;
    core_task_id(core_of(a->x->g), a->q.tasks[0], &id);
    return strcasecmp(id.z, a->id) != 0;
}

static void drop(Exchange *x)
{
    ((Asked *)x->state)->x = NULL;
}

static void answered(PastQuery *q)
{
    Asked *a = CONTAINER_OF(q, Asked, q);
    Exchange *x = a->x;
    if (x) {
        /* An answer that leaves frees its exchange: not before the handler is through with it. */
        void (*moved)(Exchange *) = x->moved;
        x->moved = NULL;
        x->state = NULL;
        x->drop = NULL;
        x->asked = false;
        if (q->err && q->err != ERR_NOT_FOUND) {
            Problem p = problem_of(503, CODE_LOG_STALLED, NULL,
                                   "the history of finished tasks cannot be read %s (%s)%s",
                                   q->err == ERR_CORRUPT ? "here" : "now", err_text(q->err),
                                   q->err == ERR_CORRUPT
                                       ? "; its operator can stop the server and run: headrace "
                                         "history rebuild"
                                       : "");
            p.retry_after_ms = 1000;
            problem_reply(x, &p);
        } else if (a->then_task && q->err) {
            problem_say(x, 410, CODE_GONE, NULL,
                        "this task ended and its retention is over, or newer ones needed the room");
        } else if (a->then_task && is_other(a)) {
            problem_say(x, 404, CODE_NOT_FOUND, NULL, "there is no task \"%s\"", a->id);
        } else if (a->then_task) {
            a->then_task(x, q->tasks[0]);
        } else {
            a->then(x, q);
        }
        x->moved = moved;
        if (!x->held && moved) moved(x);
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

void past_task_by_id(Exchange *x, Str id, TaskHandler then)
{
    Asked *a = mem_new(sizeof *a);
    a->q = (PastQuery){.kind = PAST_TASK, .no = core_id_no(id)};
    a->then_task = then;
    memcpy(a->id, id.p, MIN(id.n, (size_t)TASK_ID_LEN));
    ask(x, a);
}

bool past_wants_file(const Exchange *x, PastQuery *q)
{
    if (!x->missing_file[0] || !x->missing_tenant || x->missing_for_good || !x->g->p.past)
        return false;
    *q = (PastQuery){.kind = PAST_FILE, .tenant = x->missing_tenant};
    memcpy(q->id, x->missing_file, sizeof q->id);
    return true;
}

/* As a file of its own, with the old one's id and maker: the view still has that one, so that the
 * bytes stay as long as either of them (archive_file_left). */
Decision past_file_back(Gateway *g, const PastQuery *q)
{
    Str id = str_from(q->id);
    const File *f = q->file;
    const Core *c = core_of(g);
    if (core_file_find(c, id, core_sym(c, q->tenant))) return (Decision){.code = CODE_OK};
    if (!f) return (Decision){.code = CODE_NOT_FOUND};
    return g->p.put_file(g->p.ctx, id, core_sym(c, f->tenant), f->size, &f->sha256,
                         str_from(f->name), str_from(f->content_type), f->owner_task);
}
