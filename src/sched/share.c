/* share.c: fair shares of device time. Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM'96),
 * one flow for each tenant and class, for classes are served strictly in order.
 *
 * A task is charged its model's mean device time / weight when it starts and the truth when it
 * ends. A flow that becomes active starts no earlier than those it will compete with: idling earns
 * nothing. Work that cannot be served (paused model, no device) does not make a flow active, so it
 * earns nothing either.
 *
 * S1  A flow is in its class's active heap, keyed by its vt, exactly while ready + running > 0.
 * S2  Each of its lines has the flow's vt as key in its group's heap. */
#include "sched/inner.h"

Payer *payer_of(Sched *s, Sym tenant)
{
    uint64_t hash = hash_u64(tenant);
    for (TableNode *n = table_first(&s->payers, hash); n; n = table_next(n)) {
        Payer *p = CONTAINER_OF(n, Payer, node);
        if (p->tenant == tenant) return p;
    }
    Payer *p = mem_new(sizeof *p);
    p->tenant = tenant;
    p->weight = 1;
    for (int c = 0; c < CLASSES; c++) {
        p->flows[c].payer = p;
        p->flows[c].class = (TaskClass)c;
        list_init(&p->flows[c].lines);
    }
    table_add(&s->payers, &p->node, hash);
    return p;
}

int64_t flow_floor(const Sched *s, TaskClass class, const Group *g)
{
    const Class *c = &s->classes[class];
    const HeapNode *rival = g ? heap_min(&g->lines) : NULL, *anyone = heap_min(&c->active);
    return rival ? rival->key : anyone ? anyone->key : c->vt;
}

void flow_enter(Flow *f, int64_t floor)
{
    if (f->ready + f->running == 0) f->vt = MAX(f->vt, floor);
}

void flow_charge(Flow *f, int64_t device_ns)
{
    f->vt += (int64_t)((double)device_ns / f->payer->weight);
}

void flow_place(Sched *s, Flow *f)
{
    Class *c = &s->classes[f->class];
    if (f->ready + f->running > 0)
        heap_set(&c->active, &f->active, f->vt, f->payer->tenant);
    else
        heap_del(&c->active, &f->active);    /* keeps S1 */
    LIST_FOR (l, &f->lines, Line, in_flow) { /* keeps S2 */
        s->steps++;
        if (l->at.key == f->vt && heap_has(&l->at)) continue;
        heap_set(&l->row.group->lines, &l->at, f->vt, row_first(&l->row)->no);
    }
}
