/* inside.h: the worker process's state, shared by the files of src/worker that run on its main
 * thread: worker.c (life), session.c (the server), tasks.c (what is held). */
#ifndef WORKER_INSIDE_H
#define WORKER_INSIDE_H

#include <uv.h>

#include "base/base.h"
#include "engine/engine.h"
#include "io/http_client.h"
#include "io/loop.h"
#include "worker/executor.h"
#include "worker/files.h"
#include "worker/held.h"
#include "worker/message.h"
#include "worker/outbox.h"
#include "worker/worker.h"

/*     OFF ──register──► REGISTERING ──200──► ON
 *      ▲                                      │ the stream ends, or is silent; 404: unknown worker
 *      └──────────── backoff ─────────────────┘ */
typedef enum { SESSION_OFF, SESSION_REGISTERING, SESSION_ON } SessionState;

enum {
    HELD_MAX = 32768,  /* tasks in all: over it, leases are handed back */
    TICK_BUSY_MS = 50, /* deadlines, progress */
    TICK_IDLE_MS = 1000,
    PROGRESS_EVERY_MS = 100,
    CHECKPOINT_EVERY_S = 5,
    HURRY_MS = 3000, /* after a second signal */
};

typedef struct { /* what the server is told again after each registration */
    uint32_t device;
    const ModelSpec *spec;
    Buf line;
} Resident;

typedef struct Worker Worker;

/* Where the main thread meets the world: libuv, libcurl and threads (worker.c), or the simulator.
 * The first two as in io/http_client.h, the others as in executor.h. */
typedef struct {
    HttpRequest *(*call)(Worker *w, const HttpRequestOptions *o);
    void (*cancel_call)(Worker *w, HttpRequest *r); /* accepts NULL */
    bool (*idle)(Executor *e);
    void (*put)(Executor *e, List *items);
    void (*order)(Executor *e, ItemKind kind, const ModelSpec *spec);
    void (*cancel)(Executor *e, Held *h);
    void (*hand_back)(Executor *e);
    void (*take)(Executor *e, List *ended, List *notes);
    void (*end)(Worker *w); /* the main loop is to end */
} WorkerWorld;

struct Worker {
    const WorkerOptions *o;
    const WorkerWorld *world;
    Loop *loop;
    long pid;
    char name[129]; /* the protocol's limit */
    Files files;
    ModelRepository models;
    Buf runtime; /* "ONNX Runtime 1.30.0", or empty */
    uint32_t first_device, threads;
    uint64_t device_memory;
    Executor **executors;
    size_t executors_len;

    uv_loop_t uv; /* the real loop, and what only it has */
    Loop real;
    uv_async_t *wake;
    uv_signal_t *term, *intr;
    LoopTimer tick, retry;
    uint64_t tick_ms; /* how often it comes now */
    HttpClient *http;
    Random random;
    int exit_code;
    bool leaving; /* drains, then ends: takes no more */
    bool deaf;    /* leaving by its own will: the stream stays closed, so that no lease comes */
    int64_t hurry_until_ns; /* a second signal came; 0: none */

    SessionState session;
    char id[64]; /* given by the server; "" before the first registration */
    uint32_t lease_s, ping_s;
    HttpRequest *registering, *stream, *post;
    unsigned failures;   /* in a row */
    int64_t heard_ns;    /* last line of the stream */
    int64_t answered_ns; /* last answer of any kind */
    bool warned;         /* that there is no server */
    Buf hello;           /* body under way */

    Table by_token, by_id;
    List all;
    size_t held_len, jobs;
    int64_t looked_ns; /* when the tasks were last looked over for progress */
    Outbox outbox;
    List logs; /* Notes: what models printed */
    Resident *residents;
    size_t residents_len, residents_cap;

    Buf body;       /* of the POST under way */
    uint64_t *said; /* tokens of its lines that are not the outbox's; 0: of no task */
    size_t said_len, said_cap, said_answered;
    size_t lines_max; /* of the next POST */
    bool pong_due;
    uint64_t pong_n;
    int64_t pong_ns;       /* when the last one was sent */
    int64_t post_after_ns; /* backoff */
    unsigned post_failures;
    bool post_progressed;
};

/* worker.c */
Worker *worker_new(const WorkerOptions *o); /* no world, no loop, no models, no executors yet */
void worker_free(Worker *w);
void worker_tick(LoopTimer *t);
void worker_leave(Worker *w, bool deaf);
void worker_end(Worker *w, int exit_code);
void worker_check_end(Worker *w);
void worker_busy(Worker *w); /* a task is held: deadlines and progress are looked at often */
Executor *worker_executor(Worker *w, uint32_t device); /* NULL: there is no such device */

/* session.c */
void session_start(Worker *w);
void session_retry(LoopTimer *t);
void session_deafen(Worker *w); /* closes the stream */
void session_post(Worker *w);   /* what there is to say, if nothing is under way */
void session_tick(Worker *w);
void session_done(Worker *w);

/* tasks.c */
void tasks_init(Worker *w);
void tasks_lease(Worker *w, LeaseBatch *b); /* takes b */
void tasks_stop(Worker *w, uint64_t token, HeldStop how);
void tasks_stop_all(Worker *w);
void tasks_hand_back(Worker *w); /* what has not begun */
void tasks_take(Worker *w);      /* what the executors have for us */
void tasks_answered(Worker *w, Report *r, Answer a, Str detail); /* takes r */
void tasks_tick(Worker *w);
Held *tasks_find(const Worker *w, uint64_t token);
void tasks_done(Worker *w);

#endif
