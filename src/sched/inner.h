/* inner.h: the scheduler's data, shared by the files of src/sched and its unit tests, nobody else.
 *
 *     Sched ── Class[4] ── groups that may be served now       Payer (a tenant) ── Flow[4]
 *       │                      │                                                     │
 *       ├─ Model ── Group[4] ──┴── urgent: Row (tasks with a deadline)               │
 *       │    │        └── lines: heap of Line (one tenant's Row in this group) ──────┘
 *       │    └── idle, joinable: heaps of Fit ──┐
 *       └─ Device ──────── Fit ─────────────────┘
 *              (device × model: can run, resident, value)
 */
#ifndef SCHED_INNER_H
#define SCHED_INNER_H

#include "sched/sched.h"

typedef struct Model Model;
typedef struct Group Group;
typedef struct Line Line;
typedef struct Device Device;

/* ---- row.c: ready tasks in the order (deadline, number) ---- */
#define ROW_RUNS 4 /* clients use few different times to deadline: each makes a run */
typedef struct {
    Group *group;
    Line *line; /* NULL: the group's urgent row */
    struct {
        Task *first, *last;
    } runs[ROW_RUNS]; /* those that came in order */
    Heap rest;        /* those that did not */
    size_t len;       /* of all */
} Row;

void row_add(Row *r, Task *t); /* sets t->sched_queue = r */
void row_del(Row *r, Task *t);
Task *row_first(const Row *r); /* NULL when empty */
/* About how many tasks of r come before t, which may be in another row; 0 … len. */
size_t row_rank(const Row *r, const Task *t);
void row_done(Row *r);
static inline bool task_before(const Task *a, const Task *b)
{
    return a->deadline_ns != b->deadline_ns ? a->deadline_ns < b->deadline_ns : a->no < b->no;
}

/* ---- share.c: fair shares ---- */
typedef struct {
    struct Payer *payer;
    TaskClass class;
    int64_t vt;   /* virtual time: charged device ns / weight */
    size_t ready; /* its tasks in lines of groups that may be served */
    size_t running;
    HeapNode active; /* in Class.active while ready + running > 0 */
    List lines;      /* its lines, also of groups that may not be served */
} Flow;

typedef struct Payer {
    TableNode node;
    Sym tenant;
    double weight;
    Flow flows[CLASSES];
} Payer;

Payer *payer_of(Sched *s, Sym tenant); /* made when new */
/* Where a flow starts that becomes active by work of g (NULL: of no served group): level with the
 * one there that is served next, else with the class. */
int64_t flow_floor(const Sched *s, TaskClass class, const Group *g);
void flow_enter(Flow *f, int64_t floor);      /* f is about to become active, if it is not */
void flow_charge(Flow *f, int64_t device_ns); /* may be negative: a refund; then flow_place */
void flow_place(Sched *s, Flow *f);           /* after any change of vt, ready, running */

/* ---- ready.c: the index of the ready tasks ---- */
struct Line {
    TableNode node; /* in Sched.lines */
    Row row;        /* never empty: an empty line is freed */
    Flow *flow;
    HeapNode at; /* in Group.lines: (flow's vt, number of the first task) */
    List in_flow, in_group;
};

struct Group { /* class × model */
    Model *model;
    TaskClass class;
    Row urgent; /* tasks with a deadline */
    Heap lines;
    List line_list;   /* the same lines */
    size_t ready;     /* tasks in all its rows */
    int64_t since_ns; /* while ready > 0: about since when its longest waiting task waits */
    int64_t ran_ns;   /* when one of its tasks was started last; 0: never */
    List served;      /* in Class.groups while ready > 0 and the model is served */
};

typedef struct {
    List groups;
    Heap active; /* of Flow */
    int64_t vt;  /* the greatest start tag given: where a flow starts when it is alone */
} Class;

struct Model {
    TableNode node;
    Sym name, version;
    SchedModel is;
    bool paused, served; /* served: not paused, and some device is able to run it */
    double cost_ns;      /* mean device time of a task, learnt; 0: nothing yet */
    size_t ready, solo;  /* tasks in all its groups; those of them that are solo */
    size_t able;         /* fits that are able */
    size_t warm;         /* fits that are warm: D6 */
    List warming;        /* in Sched.warming while is.min_warm > 0 */
    Group groups[CLASSES];
    List fits;
    Heap idle, joinable; /* of Fit: where its tasks could start now, best first */
    struct Fit *claim;   /* on the device that is kept for it, NULL: none */
};

Model *model_of(Sched *s, Sym name, Sym version);               /* made when new */
const Model *model_find(const Sched *s, Sym name, Sym version); /* NULL: unknown */
void model_serve(Sched *s, Model *m); /* after a change of paused or able */
int64_t model_cost(const Model *m);
void ready_add(Sched *s, Task *t);
void ready_del(Sched *s, Task *t);
/* Is the one that the policy starts first of all of m's a solo task? */
bool model_solo(const Model *m);
Task *group_first(const Group *g); /* the one that the policy starts first; NULL when empty */
bool group_before(const Group *a, const Group *b); /* both not empty, same class */
void group_refresh(Group *g); /* after a batch was taken: since_ns from those now first */

/* ---- device.c: the devices ---- */
typedef struct Fit {
    Model *model;
    Device *device;
    bool can, able;      /* able: can, and the model fits into the device's memory at all */
    bool resident, warm; /* warm: D6 */
    uint64_t needs;      /* memory it takes here; 0: as the model says */
    double uses, value;  /* GreedyDual, while resident */
    Heap *where;         /* its model's idle or joinable while it is in there, else NULL */
    HeapNode free;       /* in *where: (bound of a claim, cost of starting there, device) */
    List in_model, in_device;
} Fit;

struct Device {
    SchedDeviceId id;
    uint64_t serial; /* never given twice: tells what ran here from what ran on its forerunner */
    uint64_t memory_bytes; /* 0: unknown */
    bool open;
    List fits;
    size_t running;
    bool solo;         /* until it is idle again: a solo task runs, so nothing joins */
    Model *runs;       /* while running > 0; NULL: several (after a takeover) */
    double floor;      /* GreedyDual's L: value of what was evicted last */
    int64_t freed_ns;  /* when it became idle; while it is */
    int64_t booked_ns; /* the ledger is right up to here */
    int64_t busy_ns, idle_ns, idle_with_work_ns;
    List held;    /* in Sched.held: idle, and the last sched_next kept work back from it */
    Group *claim; /* it is kept for this one's model; NULL: for none */
    int bound;    /* other models start and join only work of classes before this; CLASSES: all */
    List claimed; /* in Sched.claimed while claim is set */
};

Device *device_of(const Sched *s, SchedDeviceId d); /* NULL: unknown */
Fit *fit_of(Device *d, Model *m);                   /* made when new */
void fit_refresh(Sched *s, Fit *f);                 /* after a change of can, or of the model */
void fit_evict(Sched *s, Fit *f);
void fit_run(Fit *f, size_t tasks, bool solo, int64_t now_ns);
void device_place(Sched *s, Device *d); /* after any change of open, running, residency */
void device_book(Device *d, int64_t now_ns);
void device_slot_free(Sched *s, Device *d, int64_t now_ns);
bool fit_kept(const Fit *f); /* D7 */
uint64_t fit_needs(const Fit *f);
/* Memory of d that is free now, or would be if all residents but the kept ones were gone;
 * UINT64_MAX: no limit known. */
uint64_t device_room(const Device *d, bool all_gone_but_kept);
void fit_load(Sched *s, Fit *f);
Fit *device_victim(const Fit *need);                      /* NULL: there is room for it there */
void device_claim(Sched *s, Fit *f, Group *g, int bound); /* instead of any claim there was */
void device_unclaim(Sched *s, Device *d);                 /* no-op when there is none */
void device_free(Sched *s, Device *d);
/* May work of this class start or join there, as far as claims go? */
static inline bool fit_open_to(const Fit *f, int class)
{
    const Device *d = f->device;
    return class < d->bound || d->claim->model == f->model;
}
static inline bool device_held(const Device *d)
{
    return !list_empty(&d->held);
}

struct Sched {
    Class classes[CLASSES];
    Table models, payers, lines;
    Sym *paused; /* names */
    size_t paused_len;
    Device **devices; /* by id; NULL where there is none */
    size_t devices_len;
    uint64_t serial;
    size_t ready;
    List held, claimed; /* devices */
    List warming;       /* models that are to be kept warm */
    uint64_t steps;     /* work done so far, counted: for the tests of cost */
};

void sched_sane(const Sched *s); /* checks every invariant; O(everything), for tests */

#endif
