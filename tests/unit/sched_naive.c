/* sched_naive.c: the scheduler against a model of it without any index: plain arrays, every
 * question answered by looking at everything. Random work, both must decide the same, every time.
 * */
#include "sched_help.h"

enum { TASKS = 60, MODELS = 4, TENANTS = 3, DEVICES = 3, NAME = 1 };

typedef enum { GONE, READY, RUNS } NState;
typedef struct {
    Task *t;
    NState state;
    int64_t charged;
    uint64_t serial;
} NTask;
typedef struct {
    SchedModel is;
    bool paused;
    double cost;
    int64_t since[CLASSES], ran[CLASSES];
} NModel;
typedef struct {
    bool exists, open, can[MODELS], resident[MODELS], held;
    uint64_t memory, serial, needs[MODELS];
    int64_t freed;
    double uses[MODELS], value[MODELS], floor;
    bool claimed; /* for this group, against other models from this class on */
    int by_class, by_model, bound;
} NDevice;
typedef struct {
    double weight;
    int64_t vt[CLASSES];
} NTenant;

static NTask tasks[TASKS];
static NModel models[MODELS];
static NDevice devices[DEVICES];
static NTenant tenants[TENANTS];
static int64_t class_vt[CLASSES];
static uint64_t serials;

static int model_at(const Task *t)
{
    return (int)t->model - NAME;
}

static uint64_t needs(int d, int m)
{
    return devices[d].needs[m] ? devices[d].needs[m] : models[m].is.memory_bytes;
}

static bool able(int d, int m)
{
    const NDevice *v = &devices[d];
    return v->exists && v->can[m] && (!v->memory || needs(d, m) <= v->memory);
}

static size_t warm(int m)
{
    size_t n = 0;
    for (int d = 0; d < DEVICES; d++) n += able(d, m) && devices[d].open && devices[d].resident[m];
    return n;
}

/* May m not be evicted from d for another model's warmth? */
static bool kept(int d, int m)
{
    return able(d, m) && devices[d].open && devices[d].resident[m] && models[m].is.min_warm &&
           warm(m) <= models[m].is.min_warm;
}

static bool served(int m)
{
    for (int d = 0; d < DEVICES; d++) {
        if (able(d, m)) return !models[m].paused;
    }
    return false;
}

static size_t ready_in(int c, int m) /* -1: any */
{
    size_t n = 0;
    for (int i = 0; i < TASKS; i++) {
        const Task *t = tasks[i].t;
        n += tasks[i].state == READY && (c < 0 || t->class == c) && model_at(t) == m;
    }
    return n;
}

static size_t running_on(int d, int m) /* -1: any */
{
    size_t n = 0;
    for (int i = 0; i < TASKS; i++) {
        n += tasks[i].state == RUNS && tasks[i].serial == devices[d].serial &&
             (m < 0 || model_at(tasks[i].t) == m);
    }
    return n;
}

static bool flow_active(int c, int tenant)
{
    for (int i = 0; i < TASKS; i++) {
        const Task *t = tasks[i].t;
        if (tasks[i].state == GONE || t->class != c || (int)t->tenant != tenant + 1) continue;
        if (tasks[i].state == RUNS || (!t->deadline_ns && served(model_at(t)))) return true;
    }
    return false;
}

static int64_t floor_of(int c, int m) /* -1: of no model */
{
    int64_t floor = INT64_MAX;
    for (int i = 0; i < TASKS && m >= 0; i++) {
        const Task *t = tasks[i].t;
        if (tasks[i].state != READY || t->class != c || model_at(t) != m || t->deadline_ns)
            continue;
        floor = MIN(floor, tenants[t->tenant - 1].vt[c]);
    }
    if (floor != INT64_MAX) return floor;
    for (int j = 0; j < TENANTS; j++) {
        if (flow_active(c, j)) floor = MIN(floor, tenants[j].vt[c]);
    }
    return floor == INT64_MAX ? class_vt[c] : floor;
}

static void enter(int c, int tenant, int m)
{
    int64_t floor = floor_of(c, m);
    if (!flow_active(c, tenant)) tenants[tenant].vt[c] = MAX(tenants[tenant].vt[c], floor);
}

/* Does a come before b? Both of one class. */
static bool sooner(const Task *a, const Task *b)
{
    if (a->deadline_ns || b->deadline_ns) {
        if (a->deadline_ns && b->deadline_ns && a->deadline_ns != b->deadline_ns)
            return a->deadline_ns < b->deadline_ns;
        if (!a->deadline_ns != !b->deadline_ns) return a->deadline_ns != 0;
        return a->no < b->no;
    }
    int64_t x = tenants[a->tenant - 1].vt[a->class], y = tenants[b->tenant - 1].vt[b->class];
    return x != y ? x < y : a->no < b->no;
}

static NTask *first_of(int c, int m)
{
    NTask *best = NULL;
    for (int i = 0; i < TASKS; i++) {
        const Task *t = tasks[i].t;
        if (tasks[i].state != READY || t->class != c || model_at(t) != m) continue;
        if (!best || sooner(t, best->t)) best = &tasks[i];
    }
    return best;
}

/* Is the next of all that wait for m a solo task? */
static bool next_is_solo(int m)
{
    for (int c = 0; c < CLASSES; c++) {
        const NTask *first = first_of(c, m);
        if (first) return first->t->solo;
    }
    return false;
}

static bool runs_solo(int d)
{
    for (int i = 0; i < TASKS; i++) {
        if (tasks[i].state == RUNS && tasks[i].serial == devices[d].serial && tasks[i].t->solo)
            return true;
    }
    return false;
}

static uint64_t used_on(int d, bool only_kept)
{
    uint64_t used = 0;
    for (int m = 0; m < MODELS; m++) {
        if (devices[d].resident[m] && (!only_kept || kept(d, m))) used += needs(d, m);
    }
    return used;
}

static bool has_room(int d, int m, bool but_kept)
{
    return !devices[d].memory || used_on(d, but_kept) + needs(d, m) <= devices[d].memory;
}

static int victim_on(int d)
{
    const NDevice *v = &devices[d];
    int victim = -1;
    for (int m = 0; m < MODELS; m++) {
        if (!v->resident[m]) continue;
        bool worse = victim < 0 || (kept(d, victim) && !kept(d, m)) ||
                     (kept(d, victim) == kept(d, m) && v->value[m] < v->value[victim]);
        if (worse) victim = m;
    }
    return victim;
}

static bool open_to(int d, int c, int m)
{
    const NDevice *v = &devices[d];
    return !v->claimed || v->by_model == m || c < v->bound;
}

static int64_t cost_of(int m)
{
    return models[m].cost > 0 ? MAX((int64_t)models[m].cost, 1) : MS(100);
}

/* A load into spare memory that takes no longer than a task, or 100 ms. */
static bool quick_on(int d, int m)
{
    int64_t load_ns = models[m].is.load_ns;
    return load_ns > 0 && load_ns <= MAX(cost_of(m), MS(100)) && has_room(d, m, false);
}

/* The best device that could start work of class c of m now, or -1. */
static int free_for(int c, int m, bool solo_joins, bool *ret_swap)
{
    int best[2] = {-1, -1}; /* idle, by joining */
    int64_t least[2] = {INT64_MAX, INT64_MAX};
    bool best_swaps = false;
    for (int d = 0; d < DEVICES; d++) {
        const NDevice *v = &devices[d];
        if (!able(d, m) || !v->open || !open_to(d, c, m)) continue;
        int64_t all = (int64_t)running_on(d, -1), mine = (int64_t)running_on(d, m), cost = all;
        if (all && (mine < all || !models[m].is.continuous || mine >= models[m].is.max_batch))
            continue;
        if (all && (runs_solo(d) || (next_is_solo(m) && !solo_joins))) continue;
        bool swap = !all && !v->resident[m];
        if (swap) {
            cost = 1000;
            for (int i = 0; i < MODELS; i++) cost += v->resident[i];
            if (!has_room(d, m, false)) cost += 1000;
            if (!has_room(d, m, true)) cost += 3000;
        }
        if (v->claimed && v->by_model != m) cost += (CLASSES - v->bound) * 10000;
        if (cost >= least[all > 0]) continue;
        best[all > 0] = d;
        least[all > 0] = cost;
        if (!all) best_swaps = swap;
    }
    bool join = best[1] >= 0 && (best[0] < 0 || (best_swaps && !quick_on(best[0], m)));
    *ret_swap = !join && best_swaps;
    return best[join];
}

static int64_t held_to(int c, int m)
{
    const SchedModel *is = &models[m].is;
    if (c == CLASS_CRITICAL || is->continuous || !is->batch_delay_ms) return INT64_MIN;
    if (ready_in(-1, m) >= is->max_batch || next_is_solo(m)) return INT64_MIN;
    int64_t until = models[m].since[c] + MS(is->batch_delay_ms);
    const Task *first = first_of(c, m)->t;
    if (first->deadline_ns) until = MIN(until, first->deadline_ns - cost_of(m));
    return until;
}

static int64_t since(const Task *t)
{
    return MAX(t->created_ns, t->not_before_ns);
}

static void value(int d, int m)
{
    const SchedModel *is = &models[m].is;
    devices[d].value[m] = devices[d].floor + devices[d].uses[m] *
                                                 (double)(is->load_ns ? is->load_ns : NS_PER_S) /
                                                 (double)MAX(needs(d, m), MIB);
}

static void reside(int d, int m, bool resident)
{
    if (devices[d].resident[m] == resident) return;
    devices[d].resident[m] = resident;
    devices[d].uses[m] = resident ? 1 : 0;
    value(d, m);
}

static void start(NTask *n, int d)
{
    Task *t = n->t;
    int c = t->class, m = model_at(t);
    enter(c, (int)t->tenant - 1, m);
    NTenant *tenant = &tenants[t->tenant - 1];
    class_vt[c] = MAX(class_vt[c], tenant->vt[c]);
    n->charged = cost_of(m);
    tenant->vt[c] += (int64_t)((double)n->charged / tenant->weight);
    n->state = RUNS;
    n->serial = devices[d].serial;
}

static bool group_starved(int c, int m, int64_t now)
{
    return now - MAX(models[m].since[c], models[m].ran[c]) >=
           MAX(2 * models[m].is.load_ns, MS(100));
}

/* Can something of this group start, but nowhere? */
static bool waits(int c, int m, int64_t now)
{
    bool swap;
    return served(m) && ready_in(c, m) && held_to(c, m) <= now && free_for(c, m, true, &swap) < 0;
}

static int claim_of(int m)
{
    for (int d = 0; d < DEVICES; d++) {
        if (devices[d].exists && devices[d].claimed && devices[d].by_model == m) return d;
    }
    return -1;
}

/* joins is about to join on d. Who has the best right to keep it from that? */
static bool contend(int d, int joins, int64_t now)
{
    int to_class = -1, to_model = -1, least = devices[d].claimed ? devices[d].bound : CLASSES;
    for (int c = 0; c < CLASSES; c++) {
        for (int m = 0; m < MODELS; m++) {
            if (m == joins || !able(d, m) || !waits(c, m, now)) continue;
            bool higher_waits = false;
            for (int k = 0; k < c; k++) higher_waits |= waits(k, m, now);
            if (higher_waits || (claim_of(m) >= 0 && claim_of(m) != d)) continue;
            const Task *mine = first_of(c, m)->t;
            const NTask *theirs = first_of(c, joins);
            bool due = group_starved(c, m, now) && (!theirs || sooner(mine, theirs->t));
            int bound = due ? c : c + 1;
            if (bound > least || (bound == least && to_model < 0)) continue;
            if (bound == least && (c > to_class || sooner(first_of(to_class, to_model)->t, mine)))
                continue;
            to_class = c;
            to_model = m;
            least = bound;
        }
    }
    if (to_model < 0) return false;
    devices[d].claimed = true;
    devices[d].by_class = to_class;
    devices[d].by_model = to_model;
    devices[d].bound = least;
    return true;
}

static size_t kept_evicted, warm_waits; /* counted */

static void naive_unload(int d, int m, SchedDecision *ret)
{
    ret->act = SCHED_UNLOAD;
    ret->device = (SchedDeviceId)d;
    ret->model = (Sym)(NAME + m);
    devices[d].floor = devices[d].value[m];
    reside(d, m, false);
}

/* Warms up models in this order (the one in which their min_warm was set); false: nothing to do. */
static int warm_order[MODELS], warm_order_len;

static bool naive_warm(int64_t now, SchedDecision *ret, int64_t *wake)
{
    for (int i = 0; i < warm_order_len; i++) {
        int m = warm_order[i], best = -1;
        int64_t least = INT64_MAX;
        if (models[m].paused || warm(m) >= models[m].is.min_warm) continue;
        for (int d = 0; d < DEVICES; d++) {
            const NDevice *v = &devices[d];
            if (!able(d, m) || !v->open || v->resident[m] || running_on(d, -1) || v->claimed ||
                v->held)
                continue;
            int64_t cost = 0;
            for (int k = 0; k < MODELS; k++) cost += v->resident[k];
            if (!has_room(d, m, false)) {
                cost += 1000;
                if (!has_room(d, m, true)) continue;
                int64_t at = v->freed + MAX(2 * models[m].is.load_ns, SEC(1));
                if (at > now) {
                    *wake = MIN(*wake, at);
                    warm_waits++;
                    continue;
                }
            }
            if (cost >= least) continue;
            best = d;
            least = cost;
        }
        if (best < 0) continue;
        if (!has_room(best, m, false)) {
            assert_false(kept(best, victim_on(best))); /* warmth never costs another one's */
            naive_unload(best, victim_on(best), ret);
        } else {
            ret->act = SCHED_LOAD;
            ret->device = (SchedDeviceId)best;
            ret->model = (Sym)(NAME + m);
            reside(best, m, true);
        }
        return true;
    }
    return false;
}

static size_t claims, claims_strict, claims_moved, claims_vain; /* counted */

static void naive_next(int64_t now, SchedDecision *ret, int64_t *wake)
{
    ret->act = SCHED_NONE;
    *wake = INT64_MAX;
    for (int d = 0; d < DEVICES; d++) {
        NDevice *v = &devices[d];
        v->held = false;
        if (v->claimed &&
            (!served(v->by_model) || !ready_in(v->by_class, v->by_model) ||
             held_to(v->by_class, v->by_model) > now || !v->open || !able(d, v->by_model))) {
            v->claimed = false;
            claims_vain++;
        }
    }
    for (int c = 0; c < CLASSES; c++) {
        int best = -1, best_device = -1;
        bool best_easy = false, best_swap = false, swap = false;
        for (int m = 0; m < MODELS; m++) {
            if (!served(m) || !ready_in(c, m)) continue;
            int d = free_for(c, m, false, &swap);
            if (d < 0 || held_to(c, m) <= now) continue;
            *wake = MIN(*wake, held_to(c, m));
            devices[d].held = true;
        }
        for (int m = 0; m < MODELS; m++) {
            if (!served(m) || !ready_in(c, m)) continue;
            int d = free_for(c, m, false, &swap);
            if (d < 0 || held_to(c, m) > now) continue;
            bool easy = !swap || group_starved(c, m, now);
            if (!easy && devices[d].held) continue;
            if (best < 0 || (easy && !best_easy) ||
                (easy == best_easy && sooner(first_of(c, m)->t, first_of(c, best)->t))) {
                best = m;
                best_device = d;
                best_easy = easy;
                best_swap = swap;
            }
        }
        if (best < 0) continue;
        if (running_on(best_device, -1)) {
            bool had = devices[best_device].claimed;
            if (contend(best_device, best, now)) {
                claims++;
                claims_moved += had;
                claims_strict += devices[best_device].bound == devices[best_device].by_class;
            }
            if (!open_to(best_device, c, best)) {
                c--; /* the same class again */
                continue;
            }
        }
        *wake = INT64_MAX;
        NDevice *v = &devices[best_device];
        ret->device = (SchedDeviceId)best_device;
        ret->model = (Sym)(NAME + best);
        if (best_swap && !has_room(best_device, best, false)) {
            int victim = victim_on(best_device);
            kept_evicted += kept(best_device, victim);
            naive_unload(best_device, victim, ret);
            return;
        }
        ret->act = SCHED_RUN;
        ret->tasks_len = 0;
        size_t room = models[best].is.max_batch - running_on(best_device, best);
        ret->join = running_on(best_device, -1) > 0;
        bool full = false;
        for (int k = 0; k < CLASSES && !full && open_to(best_device, k, best); k++) {
            NTask *n;
            while (!full && (n = first_of(k, best))) {
                full = n->t->solo || ret->tasks_len + 1 == room;
                if (n->t->solo && ret->tasks_len > 0) break;
                models[best].ran[k] = now;
                start(n, best_device);
                ret->tasks[ret->tasks_len++] = n->t;
            }
            /* Since when the rest waits: of the first with, the first without deadline. */
            const Task *dl = NULL, *plain = NULL;
            for (int i = 0; i < TASKS; i++) {
                const Task *t = tasks[i].t;
                if (tasks[i].state != READY || t->class != k || model_at(t) != best) continue;
                const Task **p = t->deadline_ns ? &dl : &plain;
                if (!*p || sooner(t, *p)) *p = t;
            }
            int64_t oldest = MIN(dl ? since(dl) : INT64_MAX, plain ? since(plain) : INT64_MAX);
            if (dl || plain) models[best].since[k] = MAX(models[best].since[k], oldest);
        }
        if (v->resident[best]) {
            v->uses[best]++;
            value(best_device, best);
        }
        reside(best_device, best, true);
        if (claim_of(best) >= 0) devices[claim_of(best)].claimed = false;
        return;
    }
    if (naive_warm(now, ret, wake)) *wake = INT64_MAX;
}

/* ---- the same change to both ---- */

/* Models that are about to be served again: their tenants start where the class is. */
static void serve_again(int m)
{
    if (served(m)) return;
    for (int c = 0; c < CLASSES; c++) {
        int64_t floor = floor_of(c, -1);
        bool waits[TENANTS] = {false};
        for (int i = 0; i < TASKS; i++) {
            const Task *t = tasks[i].t;
            if (tasks[i].state == READY && t->class == c && model_at(t) == m && !t->deadline_ns)
                waits[t->tenant - 1] = true;
        }
        for (int j = 0; j < TENANTS; j++) {
            if (waits[j] && !flow_active(c, j)) tenants[j].vt[c] = MAX(tenants[j].vt[c], floor);
        }
    }
}

static void finish(Fix *x, NTask *n, int64_t ns)
{
    Task *t = n->t;
    int m = model_at(t), at = 0;
    for (int d = 0; d < DEVICES; d++) {
        if (devices[d].exists && devices[d].serial == n->serial) at = d;
    }
    done(x, (SchedDeviceId)at, t, ns);
    double v = (double)ns;
    if (ns > 0)
        models[m].cost = models[m].cost > 0 ? models[m].cost + 0.125 * (v - models[m].cost) : v;
    NTenant *tenant = &tenants[t->tenant - 1];
    tenant->vt[t->class] += (int64_t)((double)(ns - n->charged) / tenant->weight);
    n->state = GONE;
    for (int d = 0; d < DEVICES; d++) {
        if (devices[d].exists && devices[d].serial == n->serial && !running_on(d, -1))
            devices[d].freed = x->now;
    }
}

static void make_ready(Fix *x, NTask *n)
{
    Task *t = n->t;
    int m = model_at(t);
    bool first = ready_in(t->class, m) == 0;
    if (!t->deadline_ns && served(m)) enter(t->class, (int)t->tenant - 1, m);
    models[m].since[t->class] = first ? since(t) : MIN(models[m].since[t->class], since(t));
    n->state = READY;
    sched_task_ready(x->s, t);
}

static void new_task(Fix *x, Random *r, NTask *n)
{
    Task *t = n->t;
    *t = (Task){.no = ++x->no, .version = V1, .created_ns = x->now};
    t->class = (uint8_t)random_below(r, CLASSES);
    t->tenant = 1 + (Sym)random_below(r, TENANTS);
    t->model = NAME + (Sym)random_below(r, MODELS);
    if (random_below(r, 3) == 0)
        t->deadline_ns = x->now + 1 + (int64_t)random_below(r, (uint64_t)MS(500));
    make_ready(x, n);
}

static void add_device(Fix *x, Random *r, int d)
{
    devices[d] = (NDevice){.exists = true, .serial = ++serials, .freed = x->now};
    devices[d].memory = random_below(r, 2) ? (8 + random_below(r, 8)) * GIB : 0;
    sched_device_add(x->s, (SchedDeviceId)d, &(SchedDevice){.memory_bytes = devices[d].memory},
                     x->now);
}

/* What it is, told anew: only its min_warm differs. */
static void set_warm(Fix *x, Random *r, int m)
{
    int at = 0;
    while (at < warm_order_len && warm_order[at] != m) at++;
    if (at < warm_order_len) {
        memmove(&warm_order[at], &warm_order[at + 1],
                (size_t)(warm_order_len - at - 1) * sizeof warm_order[0]);
        warm_order_len--;
    }
    models[m].is.min_warm = random_below(r, 3) ? 0 : 1 + (uint32_t)random_below(r, DEVICES);
    if (models[m].is.min_warm) warm_order[warm_order_len++] = m;
    sched_model(x->s, (Sym)(NAME + m), V1, &models[m].is);
}

static void set_model(Fix *x, Random *r, int m)
{
    models[m].is = (SchedModel){.max_batch = 1 + (uint32_t)random_below(r, 5)};
    models[m].is.batch_delay_ms = random_below(r, 2) ? (uint32_t)random_below(r, 60) : 0;
    models[m].is.continuous = random_below(r, 3) == 0;
    models[m].is.memory_bytes = (1 + random_below(r, 9)) * GIB + random_below(r, 1000);
    models[m].is.load_ns = MS(random_below(r, 300));
    set_warm(x, r, m);
}

static NTask *random_task(Random *r, NState state)
{
    uint64_t at = random_below(r, TASKS);
    for (int i = 0; i < TASKS; i++, at = (at + 1) % TASKS) {
        if (tasks[at].state == state) break;
    }
    return &tasks[at]; /* of another state when there is none */
}

static void random_change(Fix *x, Random *r, uint64_t load)
{
    NTask *n;
    int d = (int)random_below(r, DEVICES), m = (int)random_below(r, MODELS);
    uint64_t dice = random_below(r, 100);
    Sym name = (Sym)(NAME + m);
    SchedDeviceId id = (SchedDeviceId)d;
    if (dice < load) {
        n = random_task(r, GONE);
        if (n->state == GONE) new_task(x, r, n);
    } else if (dice < 75) {
        n = random_task(r, RUNS);
        if (n->state != RUNS) return;
        finish(x, n, random_below(r, 5) ? (int64_t)random_below(r, (uint64_t)MS(50)) : 0);
        if (random_below(r, 4)) return;
        if (random_below(r, 3) == 0) n->t->solo = true;
        make_ready(x, n); /* requeued: an old number comes late */
    } else if (dice < 80) {
        n = random_task(r, READY);
        if (n->state != READY) return;
        sched_task_unready(x->s, n->t);
        n->state = GONE;
    } else if (dice < 86 && devices[d].exists) {
        devices[d].open = random_below(r, 8) != 0;
        sched_device_open(x->s, id, devices[d].open);
    } else if (dice < 92 && devices[d].exists) {
        bool can = random_below(r, 5) != 0, had = devices[d].can[m];
        devices[d].can[m] = can;
        bool now_served = served(m);
        devices[d].can[m] = had;
        if (now_served) serve_again(m);
        devices[d].can[m] = can;
        sched_device_can_run(x->s, id, name, V1, can);
    } else if (dice < 94 && devices[d].exists) {
        bool resident = random_below(r, 2);
        sched_device_resident(x->s, id, name, V1, resident);
        reside(d, m, resident);
    } else if (dice < 96) {
        bool paused = models[m].paused ? false : random_below(r, 3) == 0;
        if (models[m].paused && !paused) {
            models[m].paused = false;
            bool now_served = served(m);
            models[m].paused = true;
            if (now_served) serve_again(m);
        }
        models[m].paused = paused;
        sched_model_pause(x->s, name, paused);
    } else if (dice == 96 && random_below(r, 3)) {
        if (random_below(r, 2) || !devices[d].exists) {
            set_warm(x, r, m);
            return;
        }
        uint64_t bytes = random_below(r, 4) ? (1 + random_below(r, 12)) * GIB : 0;
        uint64_t had = devices[d].needs[m];
        devices[d].needs[m] = bytes;
        bool now_served = served(m);
        devices[d].needs[m] = had;
        if (now_served) serve_again(m);
        devices[d].needs[m] = bytes;
        sched_device_needs(x->s, id, name, V1, bytes);
    } else if (dice < 97) {
        sched_tenant_weight(x->s, 1 + (Sym)m % TENANTS, 0.5 + m);
        tenants[m % TENANTS].weight = 0.5 + m;
    } else {
        if (devices[d].exists) {
            if (random_below(r, 4)) return;
            sched_device_remove(x->s, id);
            devices[d].exists = false;
            devices[d].serial = 0;
            devices[d].claimed = false;
        } else {
            add_device(x, r, d);
        }
    }
}

static void same_decisions(void **state)
{
    (void)state;
    size_t counts[4] = {0}, joins = 0, held = 0, batched = 0, solo = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        Random r;
        Fix x;
        random_seed(&r, seed);
        fix_open(&x);
        memset(models, 0, sizeof models);
        memset(devices, 0, sizeof devices);
        memset(class_vt, 0, sizeof class_vt);
        warm_order_len = 0;
        serials = 0;
        static Task store[TASKS];
        for (int i = 0; i < TASKS; i++) tasks[i] = (NTask){.t = &store[i]};
        for (int i = 0; i < TENANTS; i++) tenants[i] = (NTenant){.weight = 1};
        for (int m = 0; m < MODELS; m++) set_model(&x, &r, m);
        for (int d = 0; d < DEVICES; d++) {
            add_device(&x, &r, d);
            for (int m = 0; m < MODELS; m++) {
                devices[d].can[m] = true;
                sched_device_can_run(x.s, (SchedDeviceId)d, (Sym)(NAME + m), V1, true);
            }
            devices[d].open = true;
            sched_device_open(x.s, (SchedDeviceId)d, true);
        }
        for (int step = 0; step < 3000; step++) {
            x.now += (int64_t)random_below(&r, (uint64_t)MS(10));
            for (uint64_t k = random_below(&r, 4); k > 0; k--) random_change(&x, &r, 5 + seed % 50);
            static SchedDecision want;
            int64_t wake;
            do {
                naive_next(x.now, &want, &wake);
                next(&x);
                counts[want.act]++;
                if (x.d.act != want.act || x.wake != wake)
                    fail_msg("seed %u step %d: act %d, not %d", (unsigned)seed, step, (int)x.d.act,
                             (int)want.act);
                held += want.act == SCHED_NONE && wake != INT64_MAX;
                if (want.act == SCHED_NONE) break;
                assert_int_equal(x.d.device, want.device);
                assert_int_equal(x.d.model, want.model);
                if (want.act != SCHED_RUN) continue;
                joins += want.join;
                batched += want.tasks_len > 1;
                solo += want.tasks[0]->solo;
                for (size_t i = 0; i < want.tasks_len; i++)
                    assert_true(!want.tasks[i]->solo || (want.tasks_len == 1 && !want.join));
                assert_int_equal(x.d.join, want.join);
                assert_int_equal(x.d.tasks_len, want.tasks_len);
                for (size_t i = 0; i < want.tasks_len; i++)
                    assert_int_equal(x.d.tasks[i]->no, want.tasks[i]->no);
            } while (true);
            if (step % 16 == 0) sched_sane(x.s);
        }
        SchedDeviceStats stats;
        for (int d = 0; d < DEVICES; d++) {
            if (!devices[d].exists) continue;
            sched_device_stats(x.s, (SchedDeviceId)d, x.now, &stats);
            assert_int_equal(stats.running, running_on(d, -1));
        }
        fix_close(&x);
    }
    print_message("runs %zu (%zu of several, %zu solo, %zu joins), unloads %zu, waits for "
                  "companions %zu\n",
                  counts[SCHED_RUN], batched, solo, joins, counts[SCHED_UNLOAD], held);
    assert_true(joins > 100 && batched > 100 && solo > 100 && held > 100);
    assert_true(counts[SCHED_UNLOAD] > 100);
    print_message("loads for warmth %zu, waits for one %zu, kept ones evicted for work %zu\n",
                  counts[SCHED_LOAD], warm_waits, kept_evicted);
    assert_true(counts[SCHED_LOAD] > 100 && warm_waits > 100 && kept_evicted > 10);
    print_message("claims %zu (%zu against the same class, %zu on a claimed device), %zu in vain\n",
                  claims, claims_strict, claims_moved, claims_vain);
    assert_true(claims > 100 && claims_strict > 100 && claims_moved > 20 && claims_vain > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_decisions)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
