/* task.h: the face of src/task: the task machine of one shard. Pure: no clock, no kernel.
 *
 * Deciding (core_submit, core_lease, core_finish, …) is a function of (state, request, now): it
 * writes the records of one frame into a FrameBuilder or refuses, and changes nothing. Applying a
 * sealed frame (core_apply) is the only way the logged state changes, so replaying the log gives
 * the same state. What is not logged (lease ends, progress, ready flags) is marked "volatile" and
 * is rebuilt after a replay.
 *
 *     QUEUED ──lease──► RUNNING ──finish──► SUCCEEDED | FAILED
 *       │ ▲               │ │
 *       │ └────requeue────┘ └─cancel, deadline──► CANCELED | EXPIRED   (from QUEUED too)
 *       └─ a queued task whose not_before lies ahead is delayed: not ready yet
 *
 * Terminal states never change. A task that was canceled or expired while it ran keeps its lease
 * (token ≠ 0) until the worker lets go or the lease ends: its slot is held and its device time is
 * charged then, once.
 *
 * Times are int64_t nanoseconds of shard time (close to Unix time, never steps); 0 means none. */
#ifndef TASK_TASK_H
#define TASK_TASK_H

#include "base/base.h"
#include "task/payloads.h"
#include "wire/frame.h"

/* ---- names ---- */

typedef enum {
    TASK_QUEUED,
    TASK_RUNNING,
    TASK_SUCCEEDED,
    TASK_FAILED,
    TASK_CANCELED,
    TASK_EXPIRED,
    TASK_STATES
} TaskState;
typedef enum { CLASS_CRITICAL, CLASS_STANDARD, CLASS_BATCH, CLASS_HARVEST, CLASSES } TaskClass;

const char *task_state_name(TaskState s); /* "queued", … */
const char *task_class_name(TaskClass c); /* "critical", "standard", "batch", "harvest" */
int task_state_from(Str s, TaskState *ret) HR_MUST_CHECK;
int task_class_from(Str s, TaskClass *ret) HR_MUST_CHECK;
static inline bool task_state_terminal(TaskState s)
{
    return s >= TASK_SUCCEEDED;
}

/* Why a request was refused (problem codes of the API), and why a task failed. */
typedef enum {
    CODE_OK,
    CODE_INVALID_REQUEST,
    CODE_UNKNOWN_FIELD,
    CODE_UNKNOWN_MODEL,
    CODE_NOT_FOUND,
    CODE_GONE,
    CODE_METHOD_NOT_ALLOWED,
    CODE_UNAUTHORIZED,
    CODE_FORBIDDEN,
    CODE_IDEMPOTENCY_MISMATCH,
    CODE_ALREADY_TERMINAL,
    CODE_CONFLICT,
    CODE_TOO_LARGE,
    CODE_RATE_LIMITED,
    CODE_QUOTA_EXCEEDED,
    CODE_QUEUE_FULL,
    CODE_DEADLINE_UNREACHABLE,
    CODE_NO_LEADER,
    CODE_LOG_STALLED,
    CODE_DISK_FULL,
    CODE_INTERNAL,
    CODES
} Code;
const char *code_name(Code c); /* "invalid_request", … */
int code_status(Code c);       /* the HTTP status: 400, 404, 410, 422, … */

typedef enum {
    FAIL_NONE,
    FAIL_MODEL_ERROR,
    FAIL_MODEL_CRASHED,
    FAIL_OUT_OF_MEMORY,
    FAIL_WORKER_LOST,
    FAIL_BAD_INPUT,
    FAIL_BAD_OUTPUT,
    FAIL_TIMEOUT,
    FAIL_EXPIRED,
    FAIL_INTERNAL,
    FAILS
} FailCode;
const char *fail_name(FailCode f); /* "model_error", …; FAIL_NONE: "" */
int fail_from(Str s, FailCode *ret) HR_MUST_CHECK;

/* ---- ids ---- */

/* A task's number is dense: 1, 2, 3 … in one shard. Its id is a ULID whose last 80 bits are not
 * chance but [16 shard][40 number][24 check], the check keyed by the shard's secret, time and
 * tenant: so an id names its cell, finds its task in O(1), cannot be guessed, and one that is no
 * longer in memory is known to have been real (410, not 404). */
#define TASK_ID_LEN 31 /* "task_" + 26 */
typedef struct {
    char z[TASK_ID_LEN + 1];
} TaskIdText;

/* ---- limits (fixed by the format) ---- */
#define TASK_INLINE_MAX     (64 * KIB) /* input or output held in the log; larger ones are files */
#define TASK_METADATA_PAIRS 16         /* keys ≤ 64, values ≤ 512 bytes */
#define TASK_ATTEMPTS_MAX   20
#define TASK_EVENTS_MAX     64   /* kept of one task: the first and the latest */
#define TASK_FILES_MAX      64   /* files one task may refer to */
#define TASK_MESSAGE_MAX    1024 /* of an error */

/* ---- state ---- */

typedef uint32_t Sym; /* an interned string of the core: tenant, model, version, worker; 0 = none */

typedef enum {
    EVENT_CREATED,
    EVENT_LEASED,
    EVENT_REQUEUED,
    EVENT_FINISHED /* any terminal state */,
    EVENT_FORGOTTEN
} EventKind;

typedef struct {
    uint64_t seq; /* of the record: the event's id in streams */
    int64_t time_ns;
    uint8_t kind;  /* EventKind */
    uint8_t state; /* TaskState after it */
    uint8_t attempt;
    uint8_t fail; /* FailCode, for REQUEUED and FINISHED */
} TaskEvent;

typedef struct {  /* what few tasks have */
    Buf metadata; /* JSON object text, or empty */
    Buf traceparent;
    Buf error;                /* message */
    TaskIdText retry_of;      /* empty string when none */
    uint64_t checkpoint_unit; /* next unit to run; 0: from the start */
    uint64_t checkpoint_file; /* file number */
    uint64_t rollout;         /* which rollout assigned the version; 0: none */
    uint8_t rollout_arm;      /* 0 stable, 1 canary */
    uint16_t files_len;
    uint64_t *files; /* numbers of the files it refers to (owned array) */
} TaskExtra;

/* What a task that merely waits its turn does not have: its lease, and what became of it. */
typedef struct {
    uint64_t last_seq;    /* of the last record about it */
    uint64_t settled_seq; /* of the record since which it is terminal and no lease holds a slot */
    int64_t started_ns /* of the latest lease */, first_started_ns, finished_ns;
    uint64_t token;       /* of the live lease: sequence of its record; 0 = none */
    uint64_t ended_token; /* the last lease whose end is on record: tells a duplicate from a stale
                             report */
    uint64_t batch;       /* which leases were given together */
    int64_t device_ns, run_ns; /* charged so far; wall time in the engine */
    uint32_t batch_size;
    Sym worker; /* of the lease, or of the last one */
    uint16_t device;
    uint16_t platform_losses; /* leases lost without the task's fault */
    uint8_t attempt; /* number of the current or last attempt, from 1; 0 before the first */
    uint8_t burned;  /* attempts that counted against max_attempts */
    uint8_t fail;    /* FailCode */
    bool fail_retryable;
    uint16_t events_len, events_cap;
    TaskEvent *events;         /* since the first lease; EVENT_CREATED is implied by created_seq */
    TaskEvent first_events[2]; /* most have no more: events points here, or to owned memory */
    Payload output;
    List settled; /* in Core's list of settled tasks, by settled_seq */

    /* volatile */
    int64_t lease_until_ns;           /* while token ≠ 0 */
    uint32_t progress_n, step, steps; /* numbered inside (token, n) */
    HeapNode timer;                   /* next thing time does to it */
    struct Task *task;                /* whose it is */
} TaskRun;
extern const TaskRun task_no_run; /* all zeros: what `run` of a waiting task points to */

typedef struct Task { /* 128 bytes: a backlog is millions of them */
    uint64_t no;
    uint64_t created_seq; /* sequence of its submit record */
    int64_t created_ns, not_before_ns, deadline_ns;
    Sym tenant, model, version;
    uint32_t retention_s;
    uint32_t created_epoch; /* of the claim under which it was accepted */
    uint8_t state, class;
    uint8_t max_attempts;
    bool solo : 1;  /* its model's process ended while it ran: from then on it is leased alone, so
                       that it cannot cost others an attempt */
    bool ready : 1; /* volatile: QUEUED and due: known to the scheduler */
    Payload input;
    TaskExtra *extra; /* may be NULL */
    TaskRun *run;     /* never NULL; only apply.c writes, into one that is its own */

    /* volatile */
    HeapNode sched_node; /* the scheduler's: its place in a ready queue */
    void *sched_queue;   /* the scheduler's: which queue */
} Task;

_Static_assert(sizeof(Task) == 128, "see above");

/* Of the last record about it: a reader waits until this one is durable. */
static inline uint64_t task_last_seq(const Task *t)
{
    return MAX(t->created_seq, t->run->last_seq);
}

static inline size_t task_files_len(const Task *t)
{
    return t->extra ? t->extra->files_len : 0;
}

typedef struct File {
    uint64_t no;
    char id[32]; /* "file_" + 26; NUL-terminated */
    Sym tenant;
    uint64_t size;
    Sha256 sha256;
    int64_t created_ns, expires_ns; /* 0: lives with the task that made it */
    uint64_t owner_task;            /* the task whose worker wrote it; 0: a client's */
    char *name, *content_type;      /* owned; "" when not given */
    uint32_t refs;                  /* tasks in memory that refer to it */
    TableNode by_id;
    HeapNode timer; /* volatile: expiry */
} File;

typedef struct {
    Sym sym;
    uint64_t tasks[TASK_STATES]; /* counts of tasks in memory by state; delayed ones are queued */
    uint64_t submitted_total, idem_keys;
    int64_t device_ns_total;
    uint64_t queued_max; /* volatile: of the configuration; 0: the limits' tenant_queued_max */
} Tenant;

typedef struct { /* what the cell knows of a model: it outlives the workers that told it */
    Sym name, version;
    Sha256 digest;
    char *info; /* JSON object text from the worker's registration; owned */
    bool paused;
} ModelEntry;

typedef struct {
    uint64_t queued_max;         /* default 10,000,000: then queue_full */
    uint64_t tenant_queued_max;  /* default queued_max */
    uint64_t finished_max;       /* default 1,000,000 finished tasks in memory */
    uint64_t finished_bytes_max; /* default 1 GiB of their inputs and outputs */
    uint64_t payload_memory_max; /* default 16 MiB of inputs and outputs; the rest is spilled */
    uint64_t idem_tenant_max;    /* default 5,000,000 keys */
    int64_t idem_ttl_ns;         /* 24 h */
    int64_t lease_ns;            /* 30 s */
    int64_t backoff_first_ns,
        backoff_max_ns;           /* 1 s, 60 s; doubled an attempt, full jitter on the upper half */
    uint32_t platform_losses_max; /* 20: then a task fails with worker_lost all the same */
    uint32_t file_ttl_s;          /* 7 days for a client's file that no task in memory refers to */
    bool history; /* settled tasks stay until core_history; else the oldest leave beyond
                     finished_max and finished_bytes_max. Default false */
} CoreLimits;
void core_limits_default(CoreLimits *l);

typedef struct Core Core;

/* ---- what apply tells (never during a replay) ---- */
typedef struct {
    void *ctx;
    void (*task_changed)(void *ctx, Task *t, TaskState before,
                         const TaskEvent *event); /* a logged transition */
    void (*task_ready)(void *ctx, Task *t);       /* QUEUED and due: may be leased now */
    void (*task_unready)(void *ctx,
                         Task *t); /* was ready, is not any more (leased, canceled, expired) */
    void (*slot_freed)(void *ctx, Task *t, uint64_t token,
                       int64_t device_ns); /* a lease ended, for whatever reason */
    void (*lease_void)(
        void *ctx, Task *t,
        uint64_t token); /* canceled or expired while running: tell the worker to stop */
    void (*task_leaving)(void *ctx, Task *t); /* evicted; the pointer is dead afterwards */
    void (*file_leaving)(void *ctx,
                         const File *f); /* its bytes may be removed once the record is durable */
} CoreObserver;

/* ---- life ---- */
Core *core_new(const CoreLimits *limits, uint64_t random_seed /* jitter */);
void core_free(Core *c);
/* Payloads beyond limits.payload_memory_max go to files in that folder of disk (borrowed), as
 * payloads_spill; before the first record. Without it all stay in memory. */
int core_spill(Core *c, Disk *disk, const char *folder) HR_MUST_CHECK;
/* After the replay (o is copied): announces every ready task, and gives every live lease a full
 * fresh period. */
void core_observe(Core *c, const CoreObserver *o, int64_t now_ns);

/* Applies the records of a frame that counts (frame_counts). Total: a record that does not fit is a
 * counted no-op; ERR_UNSUPPORTED for an unknown record type or version (the reader must stop). */
int core_apply(Core *c, const Frame *f) HR_MUST_CHECK;

/* Snapshot of the logged state: pieces to `put` (≤ 64 KiB each, one whole record each);
 * core_restore reads them back into a fresh core, in order. */
int core_snapshot(const Core *c, int (*put)(void *ctx, Str piece), void *ctx) HR_MUST_CHECK;
int core_restore(Core *c, const LogPoint *covers,
                 Str piece) HR_MUST_CHECK; /* ERR_INVALID, ERR_UNSUPPORTED */
uint64_t core_hash(const Core *c); /* of the logged state, independent of how it was reached */

/* ---- deciding ---- */

typedef struct {
    Code code;               /* CODE_OK: the builder holds records (or none: nothing to change) */
    uint64_t task_no;        /* the task it is about */
    bool duplicate;          /* idempotent repeat, or a report that is on record already */
    uint32_t retry_after_ms; /* for 429 and 503 */
    char detail[256];        /* for people */
    char field[32];          /* the field at fault, or "" */
} Decision;

/* The first record of a leader: must be the first frame after a replay. epoch: the last one + 1. */
void core_claim(const Core *c, uint64_t epoch, uint64_t holder, Str address,
                const uint8_t id_key[16] /* used on
the very first claim only */
                ,
                FrameBuilder *b);

typedef struct {
    Str tenant, model, version; /* version resolved by the caller, never empty */
    Str input;                  /* JSON text, ≤ TASK_INLINE_MAX */
    Str metadata, traceparent;  /* JSON object text or empty; empty or W3C */
    Str idempotency_key;        /* empty: none */
    Digest128 body; /* first 16 bytes of SHA-256 over route and body bytes; with a key only */
    TaskClass class;
    int64_t deadline_ns, delay_ns; /* relative; 0 = none */
    uint32_t max_attempts, retention_s;
    const Task *retry_of;  /* or NULL */
    const uint64_t *files; /* file numbers the input refers to */
    size_t files_len;
} SubmitSpec;
Decision core_submit(const Core *c, const SubmitSpec *s, int64_t now_ns, FrameBuilder *b);
/* Is this key in force? Then *ret is what core_submit answers, whatever else it is given: a repeat
 * makes no record, and needs no room in the log. */
bool core_repeat(const Core *c, Str tenant, Str key, Digest128 body, Decision *ret);

Decision core_cancel(const Core *c, uint64_t no, int64_t now_ns, FrameBuilder *b);
/* DELETE of a terminal task. One that has left memory for the history view: the record changes
 * nothing here, but tells a view that is made again of the log. */
Decision core_forget(const Core *c, uint64_t no, FrameBuilder *b);

typedef struct {
    uint64_t no;
    Str worker;
    uint16_t device;
    uint64_t batch;
    uint32_t batch_size;
} LeaseSpec;
/* One lease; refuses (CODE_CONFLICT) what is not ready. The token is the sequence of the record:
 * the frame's seq + the number of records before it. */
Decision core_lease(const Core *c, const LeaseSpec *l, int64_t now_ns, FrameBuilder *b);

typedef struct {
    int64_t device_ns, run_ns;
} Usage;

/* A worker's word about a lease. CODE_OK and not duplicate: on record when the frame is. duplicate:
 * it is on record already. CODE_CONFLICT: fenced, the token is stale (when it was the token of a
 * canceled task that holds its slot, the frame frees and charges the slot all the same). */
Decision core_succeed(const Core *c, uint64_t no, uint64_t token,
                      Str output /* JSON ≤ inline max */, const uint64_t *files, size_t files_len,
                      Usage u, FrameBuilder *b);
Decision core_fail(Core *c /* draws jitter */, uint64_t no, uint64_t token, FailCode fail,
                   bool retryable, Str message, Usage u, int64_t now_ns, FrameBuilder *b);
/* Hands a lease back without burning an attempt (drain, preemption), or with cause FAIL_WORKER_LOST
 * / FAIL_MODEL_CRASHED because its holder is gone. burn: counts as an attempt. */
Decision core_release(Core *c, uint64_t no, uint64_t token, FailCode cause, bool burn, Usage u,
                      int64_t now_ns, FrameBuilder *b);
Decision core_checkpoint(const Core *c, uint64_t no, uint64_t token, uint64_t unit, uint64_t file,
                         FrameBuilder *b);

/* Volatile: extends a live lease (any report or ping answer does); false: the token is stale. */
bool core_renew(Core *c, uint64_t no, uint64_t token, int64_t now_ns);
/* Volatile: progress; false: stale. Tells task_changed's listeners nothing: the caller does. */
bool core_progress(Core *c, uint64_t no, uint64_t token, uint32_t step, uint32_t steps);

/* What time does: call until it returns false, or the next time lies ahead. Each call looks at the
 * one task, file or key that is due first: a delay that is over makes it ready (no record), a
 * deadline, a lease's end or retention writes records. */
bool core_due(Core *c, int64_t now_ns, bool freeze_leases, FrameBuilder *b);
int64_t core_next_due_ns(const Core *c); /* INT64_MAX: nothing */
/* Is its deadline over, and not on record yet? Before a report about it is decided. */
bool core_expire(const Task *t, int64_t now_ns, FrameBuilder *b);

Decision core_put_file(const Core *c, Str id, Str tenant, uint64_t size, const Sha256 *sha256,
                       Str name, Str content_type, uint64_t owner_task, int64_t now_ns,
                       FrameBuilder *b);
Decision core_delete_file(const Core *c, uint64_t file_no,
                          FrameBuilder *b); /* CODE_CONFLICT while a task in memory refers to it, or
                                               the one that makes it has not ended */
Decision core_put_model(const Core *c, Str name, Str version, const Sha256 *digest, Str info,
                        FrameBuilder *b);
Decision core_set_flag(const Core *c, Str kind /* "model_paused", "worker_cordoned" */, Str subject,
                       bool on, FrameBuilder *b);

/* ---- the history view ---- */

/* A task is settled when nothing will happen to it any more but DELETE and the end of its
 * retention. In the order in which they settled; after NULL: the first; NULL at the end. */
Task *core_settled(const Core *c, const Task *after);
/* All that settled up to this sequence are in the history view: they leave memory, and the files
 * that their workers wrote leave with them. */
void core_history(const Core *c, uint64_t settled_seq, FrameBuilder *b);
uint64_t core_history_seq(const Core *c); /* the greatest of these so far */

/* A task or file as bytes, appended; and back, in no list of the core, for reading only (its names
 * are made symbols). NULL: the bytes break the format. */
void core_task_encode(const Core *c, const Task *t, Buf *ret);
Task *core_task_decode(Core *c, Str bytes);
void core_task_forget(Core *c, Task *decoded); /* as a FORGET record would */
void core_task_discard(Core *c, Task *decoded);
void core_file_encode(const Core *c, const File *f, Buf *ret);
File *core_file_decode(Core *c, Str bytes);
void core_file_discard(File *decoded);

/* ---- reading ---- */
Str core_sym(const Core *c, Sym s);
Sym core_sym_find(const Core *c, Str s); /* 0 when unknown */
/* A tenant of the configuration, made when it is new (volatile); its symbol. */
Sym core_tenant_configure(Core *c, Str name, uint64_t queued_max);
Task *core_task(const Core *c, uint64_t no); /* NULL when not in memory */
void core_task_id(const Core *c, const Task *t, TaskIdText *ret);
/* By id text. CODE_OK, CODE_NOT_FOUND (never issued by this shard to this tenant, or malformed),
 * CODE_GONE (it was real and has left memory). */
Code core_find(const Core *c, Str id, Str tenant /* empty: any */, Task **ret);
uint64_t core_id_no(Str id); /* the number in an id; 0: malformed. core_find says if it is real */
/* Newest first: the task with the greatest number < before (UINT64_MAX: from the newest); NULL at
 * the end. */
Task *core_older(const Core *c, uint64_t before);
File *core_file(const Core *c, uint64_t no);
File *core_file_find(const Core *c, Str id, Str tenant /* empty: any */);
bool core_flag(const Core *c, Str kind, Str subject);
size_t core_models(const Core *c, const ModelEntry **ret);
const ModelEntry *core_model(const Core *c, Str name, Str version);
/* The version a submit without one gets: the highest number. NULL: unknown model. */
const ModelEntry *core_model_latest(const Core *c, Str name);
size_t core_tenants(const Core *c, const Tenant **ret);
uint64_t core_count(const Core *c, TaskState s);
uint64_t core_finished_bytes(const Core *c); /* of the settled tasks' inputs and outputs */
uint64_t core_delayed(const Core *c);
uint64_t core_ready(const Core *c);
uint64_t core_misfits(const Core *c); /* records that were no-ops */
uint64_t core_epoch(const Core *c);
uint64_t core_payload_bytes(const Core *c);
uint64_t core_payload_memory_bytes(const Core *c); /* of them, not in spill files */
Str core_payload(const Core *c, const Payload *p); /* a task's input or output, as payloads_get */
const CoreLimits *core_limits(const Core *c);

#endif
