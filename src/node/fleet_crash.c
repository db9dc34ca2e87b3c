/* fleet_crash.c: what a crash of a local worker's process costs, and whom.
 *
 *  C1  A task that ran alone pays an attempt: it did it. Of several any one may have: none pays,
 *      and each runs alone from then on, so that the next crash names the one.
 *  C2  One task that crashes again and again is a bad task, and its attempts end. Many crashes of
 *      which each has another cause, with no result in between, are a bad machine: a crash loop. It
 *      is shown, burns no attempts, and the process is started again slowly. */
#include "node/inside.h"

#include <stdio.h>

#define CRASH_LOOP 8 /* crashes with different causes and no result in between */

static Trouble *trouble_of(const Fleet *f, Str name)
{
    LIST_FOR (t, &f->troubles, Trouble, in_fleet)
        if (str_eqz(name, t->name)) return t;
    return NULL;
}

static Trouble *trouble_for(Fleet *f, Str name)
{
    Trouble *t = trouble_of(f, name);
    if (t) return t;
    t = mem_new(sizeof *t);
    snprintf(t->name, sizeof t->name, "%.*s", STR_ARG(name));
    t->since_ns = shard_now_ns(f->shard);
    list_push_back(&f->troubles, &t->in_fleet);
    return t;
}

bool trouble_is_loop(const Trouble *t)
{
    return t->causes >= CRASH_LOOP;
}

/* culprit: the task that ran alone; 0: none, or several. */
static bool note_crash(Fleet *f, Str name, uint64_t culprit)
{
    Trouble *t = trouble_for(f, name);
    bool known = false;
    for (uint32_t i = 0; i < ARRAY_LEN(t->culprits); i++)
        known |= culprit && t->culprits[i] == culprit;
    t->crashes++;
    if (!known) {
        if (culprit) t->culprits[t->causes % ARRAY_LEN(t->culprits)] = culprit;
        t->causes++;
    }
    return trouble_is_loop(t);
}

void fleet_calm(Fleet *f, const Worker *w)
{
    Trouble *t = trouble_of(f, str_from(w->name));
    if (!t) return;
    list_del(&t->in_fleet);
    mem_free(t);
}

bool fleet_process_ended(Fleet *f, Str worker_name, bool crashed)
{
    Worker *w = fleet_worker_named(f, worker_name);
    bool alone = w && w->leases_len == 1;
    uint64_t culprit = alone ? LIST_FIRST(&w->leases, Lease, in_worker)->no : 0;
    bool loop = crashed && note_crash(f, worker_name, culprit);
    if (!w) return loop;
    f->shard->out.worker_kick(f->shard->out.ctx, str_from(w->id));
    bool burn = crashed && alone && !loop; /* keeps C1, C2 */
    fleet_worker_remove(f, w, crashed ? FAIL_MODEL_CRASHED : FAIL_NONE, burn);
    return loop;
}
