/* sched.h: which batch goes to which device. Pure: (state, devices, now) -> decisions; the same code runs in the server and
 * in the simulator.
 *
 * The scheduler keeps its own index of the ready tasks (told by sched_task_ready / _unready, O(log n) each) and its own
 * picture of the devices (told by sched_device_*). sched_next then gives one decision at a time: the caller carries it out (the lease is
 * logged, the worker is told) and asks again until there is none.
 *
 * First policy: class, then deadline (earliest first; a task without one comes after those with), then fair share between
 * tenants by device time (virtual time = device seconds / weight, start-time fair queueing, Goyal, Vin and Cheng, SIGCOMM'96),
 * then age. Same-model work is batched up to the model's batch limit; an idle device waits batch_delay_ms for companions
 * unless the batch is full. A model that no device holds is loaded on demand; least valuable residents are evicted
 * (GreedyDual: H = L + frequency · load time / size; Young, SODA'91). */
#ifndef SCHED_SCHED_H
#define SCHED_SCHED_H

#include "base/base.h"
#include "task/task.h"

typedef struct Sched Sched;

Sched *sched_new(void);
void sched_free(Sched *s);

/* ---- models ---- */
typedef struct {
    uint32_t max_batch;       /* ≥ 1 */
    uint32_t batch_delay_ms;
    bool continuous;          /* tasks may join a running batch */
    uint64_t memory_bytes;
    int64_t load_ns;          /* learnt or guessed; 0: unknown */
} SchedModel;
/* Announces or updates a model; key (name, version) as the core's symbols. */
void sched_model(Sched *s, Sym name, Sym version, const SchedModel *m);
void sched_model_pause(Sched *s, Sym name, bool paused);

/* ---- tenants ---- */
void sched_tenant_weight(Sched *s, Sym tenant, double weight); /* > 0; default 1 */

/* ---- tasks: uses t->sched_node and t->sched_queue ---- */
void sched_task_ready(Sched *s, Task *t);
void sched_task_unready(Sched *s, Task *t);
size_t sched_ready(const Sched *s);
/* How many ready tasks the policy would start before t (an estimate, O(log n) or O(queues)). */
size_t sched_ahead(const Sched *s, const Task *t);

/* ---- devices ---- */
typedef uint32_t SchedDeviceId; /* given by the caller, small and dense */
typedef struct {
    uint64_t memory_bytes;      /* 0: no limit known */
    const char *kind;           /* "cpu", "nvidia-h200"; copied */
} SchedDevice;
void sched_device_add(Sched *s, SchedDeviceId d, const SchedDevice *info);
void sched_device_remove(Sched *s, SchedDeviceId d);
/* open: takes new work; false while suspected, cordoned, draining, or without a stream. */
void sched_device_open(Sched *s, SchedDeviceId d, bool open);
/* This device's worker has the model (with the right digest), and what it measured. */
void sched_device_can_run(Sched *s, SchedDeviceId d, Sym name, Sym version, bool can);
void sched_device_resident(Sched *s, SchedDeviceId d, Sym name, Sym version, bool resident);
/* A lease ended there: the slot is free; device_ns is charged to the tenant. */
void sched_device_done(Sched *s, SchedDeviceId d, const Task *t, int64_t device_ns);
/* After a takeover: the device runs t already. */
void sched_device_adopt(Sched *s, SchedDeviceId d, const Task *t);

/* ---- deciding ---- */
typedef enum { SCHED_NONE, SCHED_RUN, SCHED_LOAD, SCHED_UNLOAD } SchedAct;
#define SCHED_BATCH_MAX 256
typedef struct {
    SchedAct act;
    SchedDeviceId device;
    Sym model, version;
    size_t tasks_len;                 /* RUN: these were taken out of the ready index by the decision itself; they
                                         count as running there until sched_device_done */
    Task *tasks[SCHED_BATCH_MAX];
} SchedDecision;
/* The next decision, or SCHED_NONE; then *ret_wake_ns is when to ask again if nothing else happens (a batch delay that runs out; INT64_MAX:
 * never). RUN of a model that is not resident implies its load (the worker loads on demand); LOAD/UNLOAD come
 * before it where memory must be made. O(models + log tasks), never O(tasks). */
void sched_next(Sched *s, int64_t now_ns, SchedDecision *ret, int64_t *ret_wake_ns);

/* The ledger's first lines: busy and idle time a device so far. */
typedef struct {
    int64_t busy_ns, idle_ns, idle_with_work_ns; /* the last: idle while a ready task could have run there */
    size_t running;
} SchedDeviceStats;
void sched_device_stats(Sched *s, SchedDeviceId d, int64_t now_ns, SchedDeviceStats *ret);

#endif
