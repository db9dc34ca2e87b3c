/* sched.h: which batch goes to which device. Pure: (state, devices, now) -> decisions; the same
 * code runs in the server and in the simulator.
 *
 * The scheduler keeps its own index of the ready tasks (told by sched_task_ready / _unready) and
 * its own picture of the devices (told by sched_device_*). sched_next then gives one decision at a
 * time: the caller carries it out (the lease is logged, the worker is told) and asks again until
 * there is none. now_ns is shard time, as in the tasks' own fields, and never steps back.
 *
 * First policy: class, then deadline (earliest first; a task without one comes after those with),
 * then fair share between the tenants of the class by device time (virtual time = device seconds /
 * weight, start-time fair queueing, Goyal, Vin and Cheng, SIGCOMM'96), then age. Same-model work is
 * batched up to the model's batch limit; an idle device waits batch_delay_ms for companions unless
 * the batch is full. A device runs one model at a time. A model that no device holds is loaded on
 * demand; least valuable residents are evicted (GreedyDual: H = L + frequency * load time / size;
 * Young, SODA'91). Resident work goes before a swap until the swap's work has waited
 * max(2 * load_ns, 100 ms) since it was served last.
 *
 * A solo task (t->solo) has a device to itself: it starts alone on an idle one, and nothing joins
 * it. A batch stops before it. While it is the next of its model, nothing of that model starts
 * until a device is idle for it: running batches take no joins, so they drain.
 *
 * A batch takes no joins either, of lower classes at once, of its own class once the other has
 * starved, while work of another model waits for a device and only this one comes into question:
 * it drains and goes to that work. One device drains for each model that waits (P6 in sched.c).
 *
 * No device is meant to hold more than its memory: what a model takes is told per device
 * (sched_device_needs), room is made before a load, and where it does not fit at all it never runs.
 * A model with min_warm is kept resident on so many devices: loaded ahead of demand, and evicted
 * only when work could not start otherwise (P7 in sched.c). */
#ifndef SCHED_SCHED_H
#define SCHED_SCHED_H

#include "base/base.h"
#include "task/task.h"

typedef struct Sched Sched;

Sched *sched_new(void);
void sched_free(Sched *s);

/* ---- models ---- */
typedef struct {
    uint32_t max_batch; /* ≥ 1 */
    uint32_t batch_delay_ms;
    bool continuous;       /* tasks may join a running batch */
    uint64_t memory_bytes; /* what it takes where sched_device_needs has not said otherwise */
    int64_t load_ns;       /* learnt or guessed; 0: unknown */
    uint32_t min_warm;     /* keep it resident on so many devices, as far as memory allows */
} SchedModel;
/* Announces or updates a model; key (name, version) as the core's symbols. A model that was never
 * announced has max_batch 1 and takes no memory. */
void sched_model(Sched *s, Sym name, Sym version, const SchedModel *m);
/* Every version of it, also those announced later. Running tasks go on. */
void sched_model_pause(Sched *s, Sym name, bool paused);
typedef struct {
    size_t ready; /* its tasks that wait */
    size_t open;  /* open devices that are able to run it, now or once they are free */
    size_t warm; /* those of them that hold it; with a min_warm, they are kept as far as possible */
    bool starts; /* not paused, and open > 0: its tasks start in their turn */
} SchedStanding;
/* O(its devices); zeroes when unknown. */
void sched_model_standing(const Sched *s, Sym name, Sym version, SchedStanding *ret);
/* The last of these alone: mostly O(1). */
bool sched_model_starts(const Sched *s, Sym name, Sym version);

/* ---- tenants ---- */
void sched_tenant_weight(Sched *s, Sym tenant, double weight); /* > 0; default 1 */

/* ---- tasks: uses t->sched_node and t->sched_queue, zero in a new task; t->solo may change only
 * while t is not in the index ----
 * A task that ran is ready again only after its sched_device_done. It has waited since
 * max(created_ns, not_before_ns). */
void sched_task_ready(Sched *s, Task *t);
/* No-op when it is not in the index: a decision may have taken it already. */
void sched_task_unready(Sched *s, Task *t);
size_t sched_ready(const Sched *s);
/* How many ready tasks the policy would start before t (an estimate, O(log n) or O(queues)). */
size_t sched_ahead(const Sched *s, const Task *t);

/* ---- devices ---- */
typedef uint32_t SchedDeviceId; /* given by the caller, small and dense */
typedef struct {
    uint64_t memory_bytes; /* 0: no limit known */
    const char *kind;      /* "cpu", "nvidia-h200"; this policy makes no use of it */
} SchedDevice;
/* A new device is closed, empty and idle; its ledger begins at now_ns. d must be free. */
void sched_device_add(Sched *s, SchedDeviceId d, const SchedDevice *info, int64_t now_ns);
/* What it ran still counts as running (for fairness) until its sched_device_done, also when d has
 * been given to another device by then. No-op when unknown. */
void sched_device_remove(Sched *s, SchedDeviceId d);
/* open: takes new work; false while suspected, cordoned, draining, or without a stream. */
void sched_device_open(Sched *s, SchedDeviceId d, bool open);
/* This device's worker has the model (with the right digest), and what it measured. */
void sched_device_can_run(Sched *s, SchedDeviceId d, Sym name, Sym version, bool can);
void sched_device_resident(Sched *s, SchedDeviceId d, Sym name, Sym version, bool resident);
/* What the model takes on this very device, as its worker declares or has measured; 0: as announced
 * for all. One worker's word changes nothing for the others. */
void sched_device_needs(Sched *s, SchedDeviceId d, Sym name, Sym version, uint64_t memory_bytes);
/* A lease ended there, for whatever reason, or could not be given after all (device_ns 0): the slot
 * is free; device_ns (this task's share of its batch) is charged to the tenant, once. */
void sched_device_done(Sched *s, SchedDeviceId d, Task *t, int64_t device_ns, int64_t now_ns);
/* The device runs t already: after a takeover, or when its worker has come back under another id. t
 * must not be ready. */
void sched_device_adopt(Sched *s, SchedDeviceId d, Task *t, int64_t now_ns);

/* ---- deciding ---- */
typedef enum { SCHED_NONE, SCHED_RUN, SCHED_LOAD, SCHED_UNLOAD } SchedAct;
#define SCHED_BATCH_MAX 256
typedef struct {
    SchedAct act;
    SchedDeviceId device;
    Sym model, version;
    bool join;        /* RUN: the device runs this model already (continuous); these join it */
    size_t tasks_len; /* RUN: these were taken out of the ready index by the decision itself; they
                         count as running there until sched_device_done */
    Task *tasks[SCHED_BATCH_MAX];
} SchedDecision;
/* The next decision, or SCHED_NONE; then *ret_wake_ns is when to ask again if nothing else happens
 * (a batch delay that runs out; INT64_MAX: never, and with every decision). A decision counts as
 * carried out: after RUN the model is resident there (its load is implied, the worker loads on
 * demand), after UNLOAD it is not; sched_device_resident corrects that. UNLOADs come before the RUN
 * or LOAD for which they make room. LOADs only come for the sake of min_warm, when no task can
 * start. A decision's first tasks_len tasks are set, the rest is not touched. O(models + tasks_len
 * * log, and the devices of models that are not warm enough), never O(tasks). */
void sched_next(Sched *s, int64_t now_ns, SchedDecision *ret, int64_t *ret_wake_ns);

/* The ledger's first lines: busy and idle time of a device so far; busy + idle = its age. */
typedef struct {
    int64_t busy_ns, idle_ns;
    int64_t
        idle_with_work_ns; /* part of idle_ns: while the last sched_next had work for it but held
                                  it back (a batch delay) */
    size_t running;
} SchedDeviceStats;
/* Zeroes when unknown. */
void sched_device_stats(Sched *s, SchedDeviceId d, int64_t now_ns, SchedDeviceStats *ret);

#endif
