/* sched.c: the first policy: what goes where next. See sched.h for its order.
 *
 * A task that runs has in sched_node: key = device ns charged for it in advance, tie = its device's
 * serial (0: it does not run), and no sched_queue.
 *
 * P1  Within a class, work whose model is resident on a free device goes before any that needs a
 *     swap, unless that has starved (waited max(2 × load, 100 ms) since it was served last): then
 *     plain order decides. Measured so, two backlogs do not swap each other out at every task.
 * P2  A group is held for companions only while its model's ready tasks do not fill a batch, never
 *     in class critical, never for a continuous model, and never past its first deadline. Devices
 *     do other work meanwhile, but do not swap for it.
 * P3  Class before everything: a lower class gets a device only when no group of a higher one could
 *     start there now.
 * P4  What is decided is booked at once: asking again at the same time never gives the same task or
 *     slot twice.
 * P5  A solo task runs alone on its device, from idle to idle. While it is the next of its model
 *     (first of the highest class that waits there), the model starts nothing else and holds for no
 *     companions: devices that run it take no joins, so each is idle once its longest task ends,
 *     and the solo task then waits as anything that needs an idle device does. What its model has
 *     before it in the order (a higher class, an earlier deadline, a tenant owed more) still goes
 *     first; nothing behind it does.
 * P6  Joins never keep other models from a device for good. Before work joins a running batch, the
 *     groups of other models that could run on this device are asked, those that are held (P2) or
 *     may start somewhere (on an idle device, or by joining) left out. One of them may claim the
 *     device: from then on no other model starts or joins there work of a class from the bound on,
 *     so the device drains within its longest task and then is the claimer's. The bound is
 *     - the class behind the claimer's: joins of lower classes stop at once, of higher ones never;
 *     - the claimer's class itself once it has starved, as in P1, and goes before what the running
 *       model has ready in this class. A backlog that goes before it in the order (deadlines,
 *       tenants owed more) may thus run on; one that only trickles may not.
 *     A device goes to the claim with the lowest bound, and a model has one claim at a time:
 *     waiting work drains one device, not all. The claim lasts until its model starts anything
 *     anywhere, its group has nothing that may start, or the device is no longer open and able;
 *     what comes meanwhile does not undo it, or the wait would begin anew.
 * P7  When nothing can start, a model that is warm on fewer devices than its min_warm is loaded on
 *     an idle one that is not claimed and where nothing is held: at once where there is room, first
 *     where little is held; else where room can be made without evicting what is kept, once the
 *     device has been idle for max(2 × load, 1 s), so that work which comes now and then does not
 *     meet a swap every time. Work goes before warmth: a task may evict even what is kept. */
#include "sched/inner.h"

#define STARVE_MIN_NS (100 * NS_PER_MS)
#define WARM_IDLE_NS  NS_PER_S
#define COST_ALPHA    0.125 /* weight of the newest measurement */
#define WEIGHT_MIN    1e-2  /* virtual time cannot overflow: 2^63 ns x 1e-2 = 3 device years */
#define WEIGHT_MAX    1e6

Sched *sched_new(void)
{
    Sched *s = mem_new(sizeof *s);
    for (int c = 0; c < CLASSES; c++) list_init(&s->classes[c].groups);
    list_init(&s->held);
    list_init(&s->claimed);
    list_init(&s->warming);
    return s;
}

void sched_free(Sched *s)
{
    if (!s) return;
    for (size_t i = 0; i < s->devices_len; i++) {
        if (s->devices[i]) device_free(s, s->devices[i]);
    }
    TableNode *n;
    for (TableIter it = {0}; (n = table_each(&s->lines, &it));) {
        Line *l = CONTAINER_OF(n, Line, node);
        row_done(&l->row);
        mem_free(l);
    }
    for (TableIter it = {0}; (n = table_each(&s->models, &it));) {
        Model *m = CONTAINER_OF(n, Model, node);
        for (int c = 0; c < CLASSES; c++) {
            row_done(&m->groups[c].urgent);
            heap_done(&m->groups[c].lines);
        }
        heap_done(&m->idle);
        heap_done(&m->joinable);
        mem_free(m);
    }
    for (TableIter it = {0}; (n = table_each(&s->payers, &it));)
        mem_free(CONTAINER_OF(n, Payer, node));
    for (int c = 0; c < CLASSES; c++) heap_done(&s->classes[c].active);
    table_done(&s->lines);
    table_done(&s->models);
    table_done(&s->payers);
    mem_free(s->paused);
    mem_free(s->devices);
    mem_free(s);
}

/* ---- what the caller tells ---- */

void sched_model(Sched *s, Sym name, Sym version, const SchedModel *is)
{
    CHECK(is->max_batch >= 1);
    Model *m = model_of(s, name, version);
    m->is = *is;
    list_del(&m->warming);
    if (is->min_warm) list_push_back(&s->warming, &m->warming);
    LIST_FOR (f, &m->fits, Fit, in_model) {
        fit_refresh(s, f);
        device_place(s, f->device);
    }
}

void sched_model_pause(Sched *s, Sym name, bool paused)
{
    size_t at = 0;
    while (at < s->paused_len && s->paused[at] != name) at++;
    if (paused == (at < s->paused_len)) return;
    if (paused) {
        s->paused = mem_grow(s->paused, (s->paused_len + 1) * sizeof *s->paused);
        s->paused[s->paused_len++] = name;
    } else {
        s->paused[at] = s->paused[--s->paused_len];
    }
    TableNode *n;
    for (TableIter it = {0}; (n = table_each(&s->models, &it));) {
        Model *m = CONTAINER_OF(n, Model, node);
        if (m->name != name) continue;
        m->paused = paused;
        model_serve(s, m);
    }
}

void sched_tenant_weight(Sched *s, Sym tenant, double weight)
{
    CHECK(weight > 0);
    payer_of(s, tenant)->weight = MIN(MAX(weight, WEIGHT_MIN), WEIGHT_MAX);
}

static bool task_runs(const Task *t)
{
    return !t->sched_queue && t->sched_node.tie != 0;
}

void sched_task_ready(Sched *s, Task *t)
{
    CHECK(!t->sched_queue && !task_runs(t));
    ready_add(s, t);
}

void sched_task_unready(Sched *s, Task *t)
{
    if (t->sched_queue) ready_del(s, t);
}

size_t sched_ready(const Sched *s)
{
    return s->ready;
}

/* t starts on d: charged in advance. The flow is charged while t still counts as ready, so that it
 * stays active throughout. */
static void task_start(Sched *s, Task *t, Model *m, uint64_t serial)
{
    const Row *row = t->sched_queue;
    Flow *f = row && row->line ? row->line->flow : &payer_of(s, t->tenant)->flows[t->class];
    int64_t cost = model_cost(m);
    flow_enter(f, flow_floor(s, f->class, &m->groups[f->class]));
    Class *c = &s->classes[t->class];
    c->vt = MAX(c->vt, f->vt);
    f->running++;
    flow_charge(f, cost);
    if (row) ready_del(s, t);
    flow_place(s, f);
    t->sched_node = (HeapNode){.key = cost, .tie = serial};
}

void sched_device_done(Sched *s, SchedDeviceId id, Task *t, int64_t device_ns, int64_t now_ns)
{
    Flow *f = &payer_of(s, t->tenant)->flows[t->class];
    Model *m = model_of(s, t->model, t->version);
    int64_t charged = 0;
    if (device_ns > 0) {
        double x = (double)device_ns;
        m->cost_ns = m->cost_ns > 0 ? m->cost_ns + COST_ALPHA * (x - m->cost_ns) : x;
    }
    if (task_runs(t)) {
        Device *d = device_of(s, id);
        if (d && d->serial == t->sched_node.tie) device_slot_free(s, d, now_ns);
        charged = t->sched_node.key;
        CHECK(f->running > 0);
        f->running--;
        t->sched_node = (HeapNode){0};
    }
    flow_charge(f, MAX(device_ns, 0) - charged);
    flow_place(s, f);
}

void sched_device_adopt(Sched *s, SchedDeviceId id, Task *t, int64_t now_ns)
{
    Device *d = device_of(s, id);
    CHECK(d && !t->sched_queue);
    Model *m = model_of(s, t->model, t->version);
    if (task_runs(t)) { /* and is charged: it only moves */
        if (t->sched_node.tie == d->serial) return;
        for (size_t i = 0; i < s->devices_len; i++) {
            Device *old = s->devices[i];
            if (old && old->serial == t->sched_node.tie) device_slot_free(s, old, now_ns);
        }
        t->sched_node.tie = d->serial;
    } else {
        task_start(s, t, m, d->serial);
    }
    fit_run(fit_of(d, m), 1, t->solo, now_ns);
    device_place(s, d);
}

/* ---- deciding ---- */

static bool needs_swap(const Fit *f)
{
    return !f->resident && f->device->running == 0;
}

/* The first of a model's idle or joinable that takes work of this class; NULL: none does. */
static Fit *first_open(const Heap *h, int class)
{
    const HeapNode *n = heap_min(h);
    Fit *f = n ? CONTAINER_OF(n, Fit, free) : NULL;
    return f && fit_open_to(f, class) ? f : NULL; /* by D4 */
}

/* Is it there in no time? Then an idle device is better than company, which may be slow or hang. */
static bool quick_load(const Fit *f)
{
    const Model *m = f->model;
    int64_t soon = MAX(model_cost(m), STARVE_MIN_NS);
    return m->is.load_ns > 0 && m->is.load_ns <= soon && !device_victim(f);
}

/* Where g's next task starts: on an idle device that holds its model or has it soon, else by
 * joining, else by a swap. */
static Fit *free_fit(const Group *g)
{
    const Model *m = g->model;
    Fit *idle = first_open(&m->idle, g->class);
    if ((idle && !needs_swap(idle)) || model_solo(m)) return idle; /* keeps P5 */
    Fit *joinable = first_open(&m->joinable, g->class);
    return joinable && !(idle && quick_load(idle)) ? joinable : idle;
}

static bool starved(const Group *g, int64_t now_ns)
{
    return now_ns - MAX(g->since_ns, g->ran_ns) >= MAX(2 * g->model->is.load_ns, STARVE_MIN_NS);
}

/* Until when g waits for companions; INT64_MIN: it does not. */
static int64_t held_until(const Group *g)
{
    const SchedModel *m = &g->model->is;
    if (!m->batch_delay_ms || m->continuous || g->class == CLASS_CRITICAL) return INT64_MIN;
    if (g->model->ready >= MIN(m->max_batch, SCHED_BATCH_MAX) || model_solo(g->model))
        return INT64_MIN;
    int64_t until = g->since_ns + (int64_t)m->batch_delay_ms * NS_PER_MS;
    if (g->urgent.len) {
        int64_t latest = row_first(&g->urgent)->deadline_ns - model_cost(g->model);
        until = MIN(until, latest);
    }
    return until; /* keeps P2 */
}

static void hold(Sched *s, Device *d, int64_t now_ns)
{
    if (d->running || device_held(d)) return;
    device_book(d, now_ns);
    list_push_back(&s->held, &d->held);
}

static void unhold_all(Sched *s, int64_t now_ns)
{
    LIST_FOR (d, &s->held, Device, held) {
        device_book(d, now_ns);
        list_del(&d->held);
    }
}

/* ---- claims ---- */

/* Has g work that could start if only there were a device for it? A solo task is not waiting while
 * its own model could be joined: those batches drain for it. */
static bool waits(const Group *g, int64_t now_ns)
{
    return g->ready && g->model->served && held_until(g) <= now_ns &&
           !first_open(&g->model->idle, g->class) && !first_open(&g->model->joinable, g->class);
}

/* From which class on does g, which waits, stop the joins of a model? */
static int bound_of(const Group *g, const Model *joins, int64_t now_ns)
{
    const Group *peer = &joins->groups[g->class];
    bool first = !peer->ready || group_before(g, peer);
    return (int)g->class + (first && starved(g, now_ns) ? 0 : 1);
}

/* Work is about to join on d: does other work claim it? */
static void contend(Sched *s, Device *d, int64_t now_ns)
{
    Fit *best = NULL;
    Group *by = NULL;
    int least = d->bound;
    LIST_FOR (f, &d->fits, Fit, in_device) {
        Model *m = f->model;
        s->steps++;
        if (!f->able || !m->ready || m == d->runs || (m->claim && m->claim != f)) continue;
        int c = 0;
        while (c < CLASSES && !waits(&m->groups[c], now_ns)) c++;
        if (c == CLASSES) continue;
        Group *g = &m->groups[c];
        int bound = bound_of(g, d->runs, now_ns);
        if (bound > least || (bound == least && !best)) continue;
        if (bound == least &&
            (g->class > by->class || (g->class == by->class && !group_before(g, by))))
            continue;
        best = f;
        by = g;
        least = bound;
    }
    if (best) device_claim(s, best, by, least); /* keeps P6 */
}

static void unclaim_vain(Sched *s, int64_t now_ns)
{
    LIST_FOR (d, &s->claimed, Device, claimed) {
        const Group *g = d->claim;
        s->steps++;
        if (!g->ready || !g->model->served || held_until(g) > now_ns || !d->open ||
            !g->model->claim->able)
            device_unclaim(s, d);
    }
}

/* The group of class c that starts next, or NULL. */
static Group *pick(Sched *s, const Class *c, int64_t now_ns, int64_t *wake_ns)
{
    LIST_FOR (g, &c->groups, Group, served) {
        const Fit *f = free_fit(g);
        int64_t until = held_until(g);
        s->steps++;
        if (!f || until <= now_ns) continue;
        *wake_ns = MIN(*wake_ns, until);
        hold(s, f->device, now_ns);
    }
    Group *best = NULL;
    bool best_easy = false;
    LIST_FOR (g, &c->groups, Group, served) {
        const Fit *f = free_fit(g);
        s->steps++;
        if (!f || held_until(g) > now_ns) continue;
        bool easy = !needs_swap(f) || starved(g, now_ns);
        if (!easy && device_held(f->device)) continue; /* keeps P2 */
        if (!best || (easy && !best_easy) || (easy == best_easy && group_before(g, best))) {
            best = g; /* keeps P1 */
            best_easy = easy;
        }
    }
    return best;
}

static void run(Sched *s, Fit *f, int64_t now_ns, SchedDecision *ret)
{
    Model *m = f->model;
    Device *d = f->device;
    ret->act = SCHED_RUN;
    ret->device = d->id;
    ret->model = m->name;
    ret->version = m->version;
    ret->join = d->running > 0;
    size_t room = MIN(m->is.max_batch - d->running, SCHED_BATCH_MAX), n = 0;
    bool solo = model_solo(m);
    if (solo) room = 1;
    for (int c = 0; c < CLASSES && n < room && fit_open_to(f, c); c++) {
        Group *g = &m->groups[c];
        while (n < room && g->ready) {
            Task *t = group_first(g);
            if (t->solo && n > 0) {
                room = n; /* keeps P5: the batch ends here */
                break;
            }
            g->ran_ns = now_ns;
            task_start(s, t, m, d->serial); /* keeps P4 */
            ret->tasks[n++] = t;
        }
        group_refresh(g);
    }
    ret->tasks_len = n;
    fit_run(f, n, solo, now_ns);
    device_place(s, d);
    if (m->claim) device_unclaim(s, m->claim->device);
}

static void unload(Sched *s, Fit *victim, SchedDecision *ret)
{
    ret->act = SCHED_UNLOAD;
    ret->device = victim->device->id;
    ret->model = victim->model->name;
    ret->version = victim->model->version;
    fit_evict(s, victim);
}

/* Where m, which is not warm enough, is to be loaded now; NULL: nowhere. */
static Fit *warm_fit(Sched *s, const Model *m, int64_t now_ns, int64_t *wake_ns)
{
    Fit *best = NULL;
    size_t least = SIZE_MAX;
    bool best_room = false;
    LIST_FOR (f, &m->fits, Fit, in_model) {
        const Device *d = f->device;
        s->steps++;
        if (!d->open || !f->able || f->resident || d->running || d->claim || device_held(d))
            continue;
        bool room = fit_needs(f) <= device_room(d, false);
        if (!room) {
            int64_t at = d->freed_ns + MAX(2 * m->is.load_ns, WARM_IDLE_NS);
            if (fit_needs(f) > device_room(d, true)) continue; /* keeps D7 */
            if (at > now_ns) {
                *wake_ns = MIN(*wake_ns, at);
                continue;
            }
        }
        size_t residents = 0;
        LIST_FOR (other, &d->fits, Fit, in_device) residents += other->resident;
        if (best && (room != best_room
                         ? best_room
                         : residents > least || (residents == least && d->id > best->device->id)))
            continue;
        best = f;
        best_room = room;
        least = residents;
    }
    return best;
}

/* Keeps P7. False: there is nothing to do for it. */
static bool warm_next(Sched *s, int64_t now_ns, SchedDecision *ret, int64_t *wake_ns)
{
    LIST_FOR (m, &s->warming, Model, warming) {
        s->steps++;
        if (m->paused || m->warm >= m->is.min_warm) continue;
        Fit *f = warm_fit(s, m, now_ns, wake_ns);
        if (!f) continue;
        Fit *victim = device_victim(f);
        if (victim) {
            unload(s, victim, ret);
            return true;
        }
        ret->act = SCHED_LOAD;
        ret->device = f->device->id;
        ret->model = m->name;
        ret->version = m->version;
        fit_load(s, f);
        return true;
    }
    return false;
}

void sched_next(Sched *s, int64_t now_ns, SchedDecision *ret, int64_t *ret_wake_ns)
{
    int64_t wake_ns = INT64_MAX;
    ret->act = SCHED_NONE;
    ret->device = 0;
    ret->model = ret->version = 0;
    ret->join = false;
    ret->tasks_len = 0;
    *ret_wake_ns = INT64_MAX;
    unhold_all(s, now_ns);
    unclaim_vain(s, now_ns);
    for (int c = 0; c < CLASSES; c++) { /* keeps P3 */
        Group *g;
        Fit *f = NULL;
        while ((g = pick(s, &s->classes[c], now_ns, &wake_ns))) {
            f = free_fit(g);
            if (!f->device->running) break;
            contend(s, f->device, now_ns); /* claims end this loop: bounds only fall */
            if (fit_open_to(f, c)) break;
        }
        if (!g) continue;
        Fit *victim = needs_swap(f) ? device_victim(f) : NULL;
        if (victim)
            unload(s, victim, ret);
        else
            run(s, f, now_ns, ret);
        return;
    }
    if (!warm_next(s, now_ns, ret, &wake_ns)) *ret_wake_ns = wake_ns;
}

/* ---- telling ---- */

bool sched_model_starts(const Sched *s, Sym name, Sym version)
{
    const Model *m = model_find(s, name, version);
    if (!m || !m->served) return false;
    LIST_FOR (f, &m->fits, Fit, in_model) {
        if (f->able && f->device->open) return true;
    }
    return false;
}

void sched_model_standing(const Sched *s, Sym name, Sym version, SchedStanding *ret)
{
    const Model *m = model_find(s, name, version);
    *ret = (SchedStanding){0};
    if (!m) return;
    LIST_FOR (f, &m->fits, Fit, in_model) ret->open += f->able && f->device->open;
    ret->ready = m->ready;
    ret->warm = m->warm;
    ret->starts = !m->paused && ret->open > 0;
}

size_t sched_ahead(const Sched *s, const Task *t)
{
    const Row *own = t->sched_queue;
    if (!own) return 0;
    size_t ahead = 0;
    for (int c = 0; c < t->class; c++) {
        LIST_FOR (g, &s->classes[c].groups, Group, served) ahead += g->ready;
    }
    const Class *c = &s->classes[t->class];
    if (!own->line) { /* by deadline, whatever the tenant */
        LIST_FOR (g, &c->groups, Group, served) ahead += row_rank(&g->urgent, t);
        return ahead;
    }
    /* By virtual time: what the others start until t's tenant has come to t. */
    const Flow *flow = own->line->flow;
    double cost = (double)model_cost(own->group->model), rank = 0;
    LIST_FOR (l, &flow->lines, Line, in_flow) {
        if (l == own->line || l->row.group->model->served) rank += (double)row_rank(&l->row, t);
    }
    double until = (double)flow->vt + rank * cost / flow->payer->weight;
    double others = rank;
    LIST_FOR (g, &c->groups, Group, served) {
        others += (double)g->urgent.len;
        LIST_FOR (l, &g->line_list, Line, in_group) {
            if (l->flow == flow) continue;
            double n = (until - (double)l->flow->vt) * l->flow->payer->weight /
                       (double)model_cost(g->model);
            others += MIN(MAX(n, 0), (double)l->row.len);
        }
    }
    return ahead + (size_t)others;
}

/* ---- checking ---- */

static size_t row_sane(const Row *r, size_t *solo)
{
    size_t n = r->rest.len;
    for (size_t i = 0; i < n; i++)
        *solo += CONTAINER_OF(r->rest.slots[i].node, Task, sched_node)->solo;
    for (int i = 0; i < ROW_RUNS; i++) {
        const Task *before = NULL;
        for (const Task *t = r->runs[i].first; t; n++) {
            CHECK(t->sched_queue == r && t->sched_node.at == 0); /* R2 */
            CHECK((const Task *)(uintptr_t)t->sched_node.key == before);
            CHECK(!before || task_before(before, t));          /* R1 */
            CHECK((t->deadline_ns != 0) == (r->line == NULL)); /* Q1 */
            before = t;
            *solo += t->solo;
            t = (const Task *)(uintptr_t)t->sched_node.tie;
        }
        CHECK(r->runs[i].last == before);
    }
    CHECK(n == r->len); /* R3 */
    return n;
}

static void model_sane(const Sched *s, const Model *m)
{
    size_t sum = 0, solo = 0, able = 0, warm = 0;
    CHECK(m->served == (!m->paused && m->able > 0)); /* Q5 */
    for (int c = 0; c < CLASSES; c++) {
        const Group *g = &m->groups[c];
        size_t n = row_sane(&g->urgent, &solo), lines = 0;
        LIST_FOR (l, &g->line_list, Line, in_group) {
            CHECK(l->row.len > 0 && heap_has(&l->at)); /* Q2 */
            CHECK(l->at.key == l->flow->vt && l->at.tie == row_first(&l->row)->no);
            n += row_sane(&l->row, &solo);
            lines++;
        }
        CHECK(lines == g->lines.len && n == g->ready);          /* Q1, Q2 */
        CHECK(!list_empty(&g->served) == (n > 0 && m->served)); /* Q3 */
        sum += n;
    }
    CHECK(sum == m->ready && solo == m->solo); /* Q1 */
    LIST_FOR (f, &m->fits, Fit, in_model) {
        const Device *d = f->device;
        bool fits = !d->memory_bytes || fit_needs(f) <= d->memory_bytes;
        bool joins = d->runs == m && m->is.continuous && d->running < m->is.max_batch && !d->solo;
        const Heap *where = !d->running ? &m->idle : joins ? &m->joinable : NULL;
        CHECK(f->able == (f->can && fits));                     /* D1 */
        CHECK(f->where == (d->open && f->able ? where : NULL)); /* D2 */
        CHECK(heap_has(&f->free) == (f->where != NULL));
        CHECK(f->warm == (f->resident && f->able && d->open)); /* D6 */
        able += f->able;
        warm += f->warm;
    }
    CHECK(able == m->able && warm == m->warm);
    CHECK(list_empty(&m->warming) == !m->is.min_warm);
    (void)s;
}

void sched_sane(const Sched *s)
{
    size_t ready = 0;
    TableNode *n;
    for (TableIter it = {0}; (n = table_each(&s->models, &it));) {
        const Model *m = CONTAINER_OF(n, Model, node);
        model_sane(s, m);
        ready += m->ready;
    }
    CHECK(ready == s->ready); /* Q1 */
    for (TableIter it = {0}; (n = table_each(&s->payers, &it));) {
        Payer *p = CONTAINER_OF(n, Payer, node);
        for (int c = 0; c < CLASSES; c++) {
            Flow *f = &p->flows[c];
            size_t served = 0;
            LIST_FOR (l, &f->lines, Line, in_flow) {
                if (l->row.group->model->served) served += l->row.len;
            }
            CHECK(served == f->ready);                                  /* Q4 */
            CHECK(heap_has(&f->active) == (f->ready + f->running > 0)); /* S1 */
            CHECK(!heap_has(&f->active) || f->active.key == f->vt);
        }
    }
    for (size_t i = 0; i < s->devices_len; i++) {
        const Device *d = s->devices[i];
        CHECK(!d || !device_held(d) || d->running == 0);
        CHECK(!d || !d->solo || d->running > 0);
        if (!d) continue;
        CHECK(list_empty(&d->claimed) == !d->claim); /* D4 */
        CHECK(d->claim ? d->bound >= 0 && d->bound < CLASSES : d->bound == CLASSES);
        CHECK(!d->claim || d->claim->model->claim->device == d);
        CHECK(!d || d->idle_with_work_ns <= d->idle_ns); /* D5 */
    }
}
