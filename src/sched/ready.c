/* ready.c: the index of the ready tasks: class → model → tenant → row.
 *
 * Q1  Every ready task is in exactly one row: its group's urgent row if it has a deadline, else its
 *     tenant's line in the group. ready counts (Sched, Model, Group) are the sums of the rows'
 *     lengths; Model.solo counts the solo tasks in them.
 * Q2  A line is never empty; it is in its group's heap with the key (flow's vt, number of its first
 *     task).
 * Q3  A group is in its class's list exactly while ready > 0 and its model is served.
 * Q4  A flow's ready = lengths of its lines in groups of served models.
 * Q5  model.served = not paused and able > 0. */
#include "sched/inner.h"

/* Before anything was measured. Wrong for a moment: the end of a task corrects its charge. */
#define COST_GUESS_NS (100 * NS_PER_MS)

static int64_t waits_since(const Task *t)
{
    return MAX(t->created_ns, t->not_before_ns);
}

/* ---- models ---- */

static bool name_paused(const Sched *s, Sym name)
{
    for (size_t i = 0; i < s->paused_len; i++) {
        if (s->paused[i] == name) return true;
    }
    return false;
}

static uint64_t model_hash(Sym name, Sym version)
{
    return hash_u64((uint64_t)name << 32 | version);
}

const Model *model_find(const Sched *s, Sym name, Sym version)
{
    for (TableNode *n = table_first(&s->models, model_hash(name, version)); n; n = table_next(n)) {
        Model *m = CONTAINER_OF(n, Model, node);
        if (m->name == name && m->version == version) return m;
    }
    return NULL;
}

Model *model_of(Sched *s, Sym name, Sym version)
{
    const Model *known = model_find(s, name, version);
    if (known) return (Model *)known;
    Model *m = mem_new(sizeof *m);
    m->name = name;
    m->version = version;
    m->is.max_batch = 1;
    m->paused = name_paused(s, name);
    list_init(&m->fits);
    list_init(&m->warming);
    for (int c = 0; c < CLASSES; c++) {
        Group *g = &m->groups[c];
        g->model = m;
        g->class = (TaskClass)c;
        g->urgent.group = g;
        list_init(&g->line_list);
        list_init(&g->served);
    }
    table_add(&s->models, &m->node, model_hash(name, version));
    return m;
}

int64_t model_cost(const Model *m)
{
    return m->cost_ns > 0 ? MAX((int64_t)m->cost_ns, 1) : COST_GUESS_NS;
}

static void group_place(Sched *s, Group *g)
{
    bool in = !list_empty(&g->served), should = g->ready > 0 && g->model->served;
    if (should && !in) list_push_back(&s->classes[g->class].groups, &g->served); /* keeps Q3 */
    if (!should && in) list_del(&g->served);
}

void model_serve(Sched *s, Model *m)
{
    bool served = !m->paused && m->able > 0;
    if (served == m->served) return;
    m->served = served; /* keeps Q5 */
    for (int c = 0; c < CLASSES; c++) {
        Group *g = &m->groups[c];
        int64_t floor = flow_floor(s, g->class, NULL);
        LIST_FOR (l, &g->line_list, Line, in_group) { /* keeps Q4 */
            if (served) {
                flow_enter(l->flow, floor);
                l->flow->ready += l->row.len;
            } else {
                l->flow->ready -= l->row.len;
            }
            flow_place(s, l->flow);
        }
        group_place(s, g);
    }
}

/* ---- lines ---- */

static uint64_t line_hash(const Flow *f, const Group *g)
{
    return hash_u64(hash_u64((uint64_t)(uintptr_t)f) ^ (uint64_t)(uintptr_t)g);
}

static Line *line_of(Sched *s, Flow *f, Group *g)
{
    uint64_t hash = line_hash(f, g);
    for (TableNode *n = table_first(&s->lines, hash); n; n = table_next(n)) {
        Line *l = CONTAINER_OF(n, Line, node);
        if (l->flow == f && l->row.group == g) return l;
    }
    Line *l = mem_new(sizeof *l);
    l->row.group = g;
    l->row.line = l;
    l->flow = f;
    list_push_back(&f->lines, &l->in_flow);
    list_push_back(&g->line_list, &l->in_group);
    table_add(&s->lines, &l->node, hash);
    return l;
}

static void line_place(Sched *s, Line *l)
{
    Group *g = l->row.group;
    const Task *first = row_first(&l->row);
    if (first) {
        if (heap_has(&l->at) && l->at.key == l->flow->vt && l->at.tie == first->no) return;
        heap_set(&g->lines, &l->at, l->flow->vt, first->no); /* keeps Q2, S2 */
        return;
    }
    heap_del(&g->lines, &l->at);
    list_del(&l->in_flow);
    list_del(&l->in_group);
    table_del(&s->lines, &l->node);
    row_done(&l->row);
    mem_free(l);
}

/* ---- tasks ---- */

static uint64_t log2_steps(size_t n)
{
    return n ? 64 - (uint64_t)__builtin_clzll(n) : 0;
}

void ready_add(Sched *s, Task *t)
{
    Model *m = model_of(s, t->model, t->version);
    Group *g = &m->groups[t->class];
    Flow *f = &payer_of(s, t->tenant)->flows[t->class];
    g->since_ns = g->ready ? MIN(g->since_ns, waits_since(t)) : waits_since(t);
    if (t->deadline_ns) { /* keeps Q1 */
        row_add(&g->urgent, t);
        s->steps += 1 + log2_steps(g->urgent.rest.len);
    } else {
        if (m->served) flow_enter(f, flow_floor(s, f->class, g));
        Line *l = line_of(s, f, g);
        row_add(&l->row, t);
        s->steps += 1 + log2_steps(l->row.rest.len);
        if (m->served) f->ready++; /* keeps Q4 */
        line_place(s, l);
        if (m->served && f->ready == 1) flow_place(s, f);
    }
    g->ready++;
    m->ready++;
    m->solo += t->solo;
    s->ready++;
    group_place(s, g);
}

void ready_del(Sched *s, Task *t)
{
    Row *r = t->sched_queue;
    Group *g = r->group;
    Model *m = g->model;
    s->steps += 1 + log2_steps(r->rest.len);
    row_del(r, t);
    if (r->line) {
        Flow *f = r->line->flow;
        line_place(s, r->line); /* r may be gone from here on */
        if (m->served && --f->ready == 0) flow_place(s, f);
    }
    g->ready--;
    m->ready--;
    m->solo -= t->solo;
    s->ready--;
    group_place(s, g);
}

Task *group_first(const Group *g)
{
    if (g->urgent.len) return row_first(&g->urgent);
    HeapNode *n = heap_min(&g->lines);
    return n ? row_first(&CONTAINER_OF(n, Line, at)->row) : NULL;
}

bool model_solo(const Model *m)
{
    if (!m->solo) return false; /* so that it costs the others nothing */
    int c = 0;
    while (!m->groups[c].ready) c++;
    const Task *first = group_first(&m->groups[c]);
    CHECK(first);
    return first->solo;
}

bool group_before(const Group *a, const Group *b)
{
    const Task *ta = row_first(&a->urgent), *tb = row_first(&b->urgent);
    if (ta && tb) return task_before(ta, tb);
    if (ta || tb) return ta != NULL;
    const HeapNode *x = heap_min(&a->lines), *y = heap_min(&b->lines);
    return x->key != y->key ? x->key < y->key : x->tie < y->tie;
}

void group_refresh(Group *g)
{
    if (!g->ready) return;
    const HeapNode *n = heap_min(&g->lines);
    int64_t since = INT64_MAX;
    if (g->urgent.len) since = waits_since(row_first(&g->urgent));
    if (n) since = MIN(since, waits_since(row_first(&CONTAINER_OF(n, Line, at)->row)));
    g->since_ns = MAX(g->since_ns, since);
}
