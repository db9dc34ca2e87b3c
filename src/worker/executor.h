/* executor.h: one thread that owns one device: it loads models, runs tasks in batches, and hands
 * them back.
 *
 * Its queue is first in, first out, orders about models among the tasks, so that the server's
 * order stands: a task of another model, or an order, waits until what runs has ended, and nothing
 * overtakes it. Tasks of the running model at the head of the queue join between steps when the
 * engine is continuous. The queue is bounded by the leases that the worker holds. */
#ifndef WORKER_EXECUTOR_H
#define WORKER_EXECUTOR_H

#include <pthread.h>

#include "worker/files.h"
#include "worker/held.h"
#include "worker/knee.h"

/* What an executor tells besides ended tasks. */
typedef enum { NOTE_LOADED, NOTE_UNLOADED, NOTE_LOAD_FAILED, NOTE_CHECKPOINT, NOTE_LOG } NoteKind;
typedef struct {
    List link;
    NoteKind kind;
    const ModelSpec *spec; /* LOADED, UNLOADED, LOAD_FAILED */
    int64_t load_ns;
    Knee knee; /* LOADED */
    /* LOADED: what it takes, as declared or, when that is more, as measured; said again when it has
     * grown. LOAD_FAILED: so much memory was wanting, at least; 0: that was not why. */
    uint64_t memory_bytes;
    uint64_t token; /* CHECKPOINT, LOG */
    uint64_t unit;  /* CHECKPOINT: the next one to run */
    Buf bytes;      /* the checkpoint; what was printed; why the load failed */
} Note;
void note_free(Note *n);

typedef struct {
    EngineDevice device;
    uint64_t memory_bytes; /* for models */
    bool alone; /* no other executor in this process: how it grows is our models' doing */
    const Files *files;
    int64_t checkpoint_every_ns; /* 0: never */
    /* Called on the executor's thread when something waits for executor_take. */
    void (*wake)(void *ctx);
    void *wake_ctx;
} ExecutorOptions;

typedef struct Executor Executor;

Executor *executor_start(const ExecutorOptions *o); /* NULL: the system has no thread; it is said */
/* Asks the thread to end: what runs is canceled and, with what waits, comes back through
 * executor_take. Then executor_join, once nothing is left: it frees the executor. */
void executor_stop(Executor *e);
void executor_join(Executor *e);
bool executor_idle(Executor *e); /* nothing waits, runs or loads */

/* Any thread. The items' links are used until they come back. */
void executor_put(Executor *e, List *items);
void executor_order(Executor *e, ItemKind kind, const ModelSpec *spec); /* ITEM_LOAD, ITEM_UNLOAD */
/* After h->stop was raised: tells the engine, if it has the task. */
void executor_cancel(Executor *e, Held *h);
/* What was put before and has not begun comes back through executor_take as OUTCOME_RELEASED. */
void executor_hand_back(Executor *e);

/* The main thread: ended tasks (Held.item.link) and notes, in order each. The lists must be
 * initialised. */
void executor_take(Executor *e, List *ended, List *notes);

#endif
