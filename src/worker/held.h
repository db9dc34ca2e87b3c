/* held.h: a task that this worker holds, from its lease line to the answer to its last report.
 *
 *     FETCHING ──► WITH_EXECUTOR ──► STORING ──► REPORTING ──► gone
 *      files of     queued there,     output       its last
 *      the input    then running      over 64 KiB  report waits
 *      come in                        goes out     for its answer
 *
 * I1  Exactly one thread owns the fields marked "owner": the executor's while WITH_EXECUTOR, one of
 *     libuv's pool while FETCHING or STORING, the main thread otherwise. Ownership passes through a
 *     queue under its lock.
 * I2  A Held is in the main thread's tables from the lease until it is gone, and its token is in
 *     every pong for as long.
 * I3  Tasks of one lease line live in one LeaseBatch, which is freed with the last of them. */
#ifndef WORKER_HELD_H
#define WORKER_HELD_H

#include <stdatomic.h>

#include "base/base.h"
#include "engine/engine.h"

typedef enum {
    HELD_FETCHING,
    HELD_WITH_EXECUTOR,
    HELD_STORING,
    HELD_REPORTING,
} HeldState;

typedef enum {
    STOP_NO,
    STOP_RELEASE, /* canceled, expired, fenced or handed back: end soon and report `released` */
    STOP_DROP,    /* nobody wants to hear of it any more: end soon and say nothing */
} HeldStop;

typedef enum { OUTCOME_NONE, OUTCOME_RESULT, OUTCOME_ERROR, OUTCOME_RELEASED } HeldOutcome;

/* One line for the server, kept until it is answered. */
typedef struct {
    List link;
    uint8_t kind;   /* ReportKind of outbox.h */
    uint64_t token; /* of the task it is about; 0: of none */
    Buf line;       /* JSON with its newline; owned */
} Report;

/* What an executor's queue holds: a task, an order about a model, or the mark of a hand-back: what
 * stands before it goes back. */
typedef enum { ITEM_TASK, ITEM_LOAD, ITEM_UNLOAD, ITEM_HAND_BACK } ItemKind;
typedef struct {
    List link;
    ItemKind kind;
    const ModelSpec *spec; /* NULL: this worker does not have the model */
} ExecutorItem;

typedef struct HeldFile {
    struct HeldFile *next;
    char *id;   /* owned */
    char *path; /* of an input, removed with the task; NULL: an output */
} HeldFile;

typedef struct LeaseBatch LeaseBatch;

typedef struct Held {
    /* Fixed from the lease on. */
    LeaseBatch *batch;
    Str id;
    uint64_t token;
    uint32_t attempt;
    int64_t deadline_ns; /* clock_mono(); 0: none */
    Str traceparent;     /* may be empty */
    Str resume_file;     /* empty: from the start */
    uint64_t resume_unit;

    /* The main thread's. */
    TableNode by_token, by_id;
    List in_all;
    HeldState state;
    bool said_started;
    uint32_t said_step;
    int64_t said_ns;         /* when progress was last sent */
    bool seen_begun;         /* it was under way when the tasks were last looked over */
    bool storing_checkpoint; /* one is on its way: no second one */

    /* Any thread. */
    atomic_int stop;   /* HeldStop; only rises */
    atomic_bool begun; /* the engine has it */
    atomic_uint step, steps;

    /* The executor's lock. */
    EngineModel *model; /* while the engine has it; NULL otherwise: nothing to cancel */

    /* The owner's (I1). */
    ExecutorItem item; /* in the executor's queue; afterwards in its queue of ended tasks */
    EngineTask task;   /* task.input is the input: in the batch's memory, or in `fetched` */
    Buf fetched;       /* the input when it came as a file */
    Buf checkpoint;    /* to resume from; empty: from the start */
    HeldFile *files;
    int64_t begun_ns, checkpoint_ns; /* clock_mono() */
    HeldOutcome outcome;
    const char *error_code; /* with OUTCOME_ERROR; static; the words are in task.error */
    Buf output;             /* with OUTCOME_RESULT */
    int64_t run_ns;
    Report report;
} Held;

struct LeaseBatch {
    size_t left; /* main thread: how many of `tasks` are not gone */
    uint32_t device;
    Str model, version;
    const ModelSpec *spec; /* set by the worker; NULL: unknown here */
    size_t len;
    char *text; /* strings of all tasks; owned */
    Held tasks[];
};

/* Frees what the task owns, its input files on disk too, and the batch with its last task. */
void held_free(Held *h);
void lease_batch_free(LeaseBatch *b); /* one whose tasks were never handed out; accepts NULL */

int64_t clock_mono(void);
/* For a simulation: from now on it is what now says; NULL: the machine's again. */
void clock_mono_simulate(int64_t (*now)(void));

#endif
