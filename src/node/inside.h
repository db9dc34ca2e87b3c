/* inside.h: what shard.c and the fleet_*.c files share. */
#ifndef NODE_INSIDE_H
#define NODE_INSIDE_H

#include "node/shard.h"

#define LOG_STALL_NS NS_PER_S /* submits are refused when the oldest unsynced record is older */
#define VOID_GRACE_NS                                                                              \
    (15 * NS_PER_S) /* to let go of a canceled task, before the worker's process is ended */

struct Shard {
    Core *core;
    Log *log;
    Sched *sched;
    Fleet *fleet;
    Clock *clock;
    ShardOptions options;
    ShardOut out;
    LogPoint at;
    FrameBuilder builder;
    Buf frame;
    uint64_t durable_seq, replayed;
    int64_t time_base_ns, boot_base_ns;
    int64_t unsynced_since_ns; /* 0: all is durable */
    int64_t open_since_ns;     /* the first append since a commit was last told of; 0: none */
    int64_t stepped_ns, freeze_until_ns;
    int64_t retry_ns;      /* the log refused a reserved append: no step before it */
    int64_t full_until_ns; /* the disk was full: no submit is tried before it */
    bool claimed, leading, draining, failed, dirty, due_again;
};

/* Seals, appends and applies what is in s->builder. `reserved`: may use the log's reserved room
 * (results, cancels, releases). On a refusal nothing has happened, and *d says why. */
bool shard_commit(Shard *s, bool reserved, Decision *d);

/* ---- the fleet ---- */

/* Beyond it the logs written to longest ago go, of tasks in memory and of those in the history. */
#define LOGS_BYTES_MAX (64 * MIB)

typedef struct Worker Worker;

typedef struct {
    Sym name, version;
    int64_t load_ns;
    uint64_t memory_bytes;
} Resident;

typedef struct { /* a model of its worker's on a device */
    Sym name, version;
    uint64_t needs;    /* memory: what the worker declares, or has measured */
    bool measured;     /* it is more than was declared */
    bool unfit;        /* it wants another kind of device: never runs here */
    uint32_t failures; /* to load it, in a row */
    int64_t retry_ns;  /* closed to it until then; 0: it is not */
    char *problem;     /* why the last load failed; owned; NULL: it did not */
} DeviceModel;

typedef struct {
    Worker *worker;
    SchedDeviceId id;
    uint32_t index;
    char kind[32];
    uint64_t memory_bytes;
    uint32_t threads;
    uint32_t running;
    uint64_t finished_total;
    Resident *residents;
    uint32_t residents_len;
    DeviceModel *models;
    uint32_t models_len;
    uint32_t handed_back;  /* batches handed back in a row, without a reason */
    uint64_t handed_batch; /* the last one of those */
    int64_t held_until_ns; /* closed until then, as it hands back whatever it gets; 0: it is not */
} Device;

typedef struct { /* a worker holds a task: the volatile side of a live token */
    TableNode by_token;
    List in_worker;
    uint64_t no, token;
    Worker *worker;
    Device *device;
    int64_t void_since_ns; /* canceled or expired under it; 0: live */
} Lease;

typedef struct {
    Sym name, version;
    uint32_t max_batch;
} WorkerModelState;

struct Worker {
    List in_fleet;
    char id[40];
    char name[64], region[64], runtime[128];
    int64_t pid;
    bool stream, draining, cordoned, suspected;
    int64_t seen_ns, since_ns;
    uint64_t ping_n;
    int64_t pinged_ns;
    Device **devices;
    uint32_t devices_len;
    WorkerModelState *models, *refused; /* refused: it has them with another digest */
    uint32_t models_len, refused_len;
    List leases;
    uint32_t leases_len;
};

typedef struct { /* learnt about a model */
    TableNode by_name;
    Sym name, version;
    uint32_t max_batch;
    bool continuous;
    uint32_t batch_delay_ms;
    uint64_t memory_bytes;   /* as the last hello declared it; what counts is DeviceModel.needs */
    uint32_t min_warm;       /* of its model.yaml */
    char device_kind[32];    /* likewise; "": any */
    int64_t load_ns, run_ns; /* moving averages; 0: unknown */
    int64_t unit_ns[9];
    uint64_t succeeded, failed;
    char *problem;          /* the latest load failure; owned */
    int64_t stuck_since_ns; /* tasks wait that cannot start; 0: none do */
    int said;               /* the WaitReason that was said of them */
} ModelState;

typedef struct
{ /* a lease that was live when this process took over; its holder has not come back */
    List in_fleet;
    uint64_t no, token;
    Sym worker;
} Orphan;

typedef struct { /* a local worker whose process crashed since its last result */
    List in_fleet;
    char name[64];
    int64_t since_ns;
    uint64_t crashes;
    uint32_t causes;      /* crashes, those of one lone task counted once */
    uint64_t culprits[8]; /* numbers of lone tasks; a ring */
} Trouble;

typedef struct { /* what a task's model printed */
    TableNode by_task;
    List in_fleet; /* written to last: at the end */
    uint64_t no;
    Buf text;
} TaskLog;

struct Fleet {
    Shard *shard;
    List workers, orphans, troubles;
    uint32_t workers_len;
    Device **devices; /* by SchedDeviceId; NULL: free */
    uint32_t devices_len;
    Table leases, models, logs;
    List logs_order;
    size_t logs_bytes; /* of their text */
    uint64_t next_batch;
    int64_t panic_since_ns; /* 0: no panic */
    int64_t next_look_ns;   /* pings and suspicion */
    uint64_t lease_expirations_total, leases_total, fenced_total, batches_total;
    SchedDecision decision; /* large: kept here */
    Buf line;
};

Fleet *fleet_new(Shard *s);
void fleet_free(Fleet *f);
void fleet_lead(Fleet *f); /* after core_observe's time: announces known models and flags */
Worker *fleet_worker_by_id(const Fleet *f, Str id);
Worker *fleet_worker_named(const Fleet *f, Str name);
void fleet_log_free(Fleet *f, TaskLog *l);
Lease *fleet_lease(const Fleet *f, uint64_t token);
ModelState *fleet_model_state(Fleet *f, Sym name, Sym version);
const ModelState *fleet_model_find(const Fleet *f, Sym name, Sym version);
void fleet_model_announce(Fleet *f, const ModelState *m);
Lease *fleet_lease_add(Fleet *f, Worker *w, Device *d, const Task *t, uint64_t token);
void fleet_open_devices(Fleet *f, Worker *w);
void fleet_worker_send(Fleet *f, Worker *w, Str line, uint64_t hold_seq);
void fleet_worker_remove(Fleet *f, Worker *w, FailCode cause, bool burn);
/* Ends a lease from our side. */
void fleet_release(Fleet *f, uint64_t no, uint64_t token, FailCode cause, bool burn);

DeviceModel *device_model(const Device *d, Sym name, Sym version); /* NULL: it does not have it */
const char *worker_standing(const Worker *w); /* "ready", "cordoned", "disconnected" … */
bool worker_keeps_away(const Worker *w);      /* its devices take no new work */

/* fleet_why.c, fleet_warm.c; more in fleet.h */
void fleet_say_waits(Fleet *f, int64_t now);
/* On how many devices the model is to be loaded, and whether that is an operator's order. */
uint32_t fleet_min_warm(const Fleet *f, const ModelState *m, bool *ret_ordered);
void fleet_announce_all(Fleet *f, Sym name); /* every version */
void fleet_warm_json(const Fleet *f, const ModelState *m, Buf *b);

/* Told by the core. */
void fleet_slot_freed(Fleet *f, Task *t, uint64_t token, int64_t device_ns);
void fleet_lease_void(Fleet *f, Task *t, uint64_t token);
void fleet_task_leaving(Fleet *f, const Task *t);

/* fleet_crash.c */
bool trouble_is_loop(const Trouble *t);
void fleet_calm(Fleet *f, const Worker *w); /* it gave a result, or has been up for a while */

/* fleet_dispatch.c: asks the scheduler until it has nothing more. Returns when to ask again. */
int64_t fleet_dispatch(Fleet *f);
/* fleet.c: pings, suspicion, workers that are gone. */
int64_t fleet_look(Fleet *f, int64_t now_ns);
/* Do leases not end by time now? (architecture's panic rule) */
bool fleet_freezes_leases(const Fleet *f, int64_t now_ns);

#endif
