/* gateway.h: the HTTP API. It turns bytes into typed requests, asks the shard through GatewayPorts,
 * and renders the answers; it decides nothing about tasks. One thread: the shard's loop.
 *
 * Nothing leaves before it is durable: an answer that depends on a record is held until
 * gateway_durable says so. */
#ifndef GATEWAY_GATEWAY_H
#define GATEWAY_GATEWAY_H

#include "base/base.h"
#include "io/loop.h"
#include "task/task.h"

typedef struct Gateway Gateway;

/* ---- a worker's words, parsed ---- */

typedef struct {
    uint32_t index;
    Str kind;
    uint64_t memory_bytes;
    uint32_t threads;
} WorkerDevice;

typedef struct {
    Str name, version, engine, description;
    Sha256 digest;
    uint32_t max_batch, batch_delay_ms;
    bool continuous;
    uint64_t memory_bytes;
    uint32_t min_warm; /* devices that are to keep it loaded */
    Str device_kind;   /* it runs on devices of this kind only; empty: of any */
} WorkerModel;

typedef struct {
    uint64_t task_no; /* 0: not an id of this shard */
    uint64_t token;
} WorkerHeld;

typedef struct {
    Str name, region, former_id, runtime;
    int64_t pid;
    bool foreign; /* it came with another key than that of `serve`'s own workers */
    const WorkerDevice *devices;
    size_t devices_len;
    const WorkerModel *models;
    size_t models_len;
    const WorkerHeld *running;
    size_t running_len;
} WorkerHello;

typedef enum {
    REPORT_STARTED,
    REPORT_PROGRESS,
    REPORT_CHECKPOINT,
    REPORT_LOG,
    REPORT_RESULT,
    REPORT_ERROR,
    REPORT_RELEASED,
    REPORT_PONG,
    REPORT_LOADED,
    REPORT_UNLOADED,
    REPORT_LOAD_FAILED
} ReportKind;

typedef struct {
    ReportKind kind;
    WorkerHeld lease; /* of the task it is about */
    uint32_t step, steps;
    uint64_t unit, file_no; /* CHECKPOINT */
    Str text;               /* LOG: the text; LOAD_FAILED, ERROR: the message */
    Str output;             /* RESULT: JSON text, ≤ TASK_INLINE_MAX */
    const uint64_t *files;  /* RESULT: file numbers in the output */
    size_t files_len;
    FailCode fail; /* ERROR */
    bool retryable;
    Usage usage;
    const WorkerHeld *held; /* PONG: tokens only (task_no 0) */
    size_t held_len;
    uint32_t device; /* telemetry */
    Str model, version;
    int64_t load_ns;
    uint64_t memory_bytes;
    uint32_t max_batch;
    int64_t unit_ns[9]; /* of batches 1, 2, 4 … 256; 0 = not measured */
} WorkerReport;

typedef enum {
    REPORT_ACCEPTED,
    REPORT_DUPLICATE, /* on record already */
    REPORT_FENCED,    /* the token is stale */
    REPORT_INVALID,
    REPORT_RETRY /* not now (the log has no room): "retry", the worker sends it again */
} ReportAnswer;

/* ---- a question to the history view: about finished tasks that have left memory ---- */

typedef enum { PAST_TASK, PAST_LIST, PAST_FORGET, PAST_FILE } PastKind;

typedef struct PastQuery PastQuery;
struct PastQuery { /* the asker's, who zeroes it first */
    PastKind kind;
    uint64_t no; /* TASK, FORGET */
    Buf body;    /* FORGET: the task from now on, encoded; the asker frees it in done */
    Buf output;  /* FORGET: what its output was: the files that it names go, too; likewise */
    char id[32]; /* FILE */
    Sym tenant;  /* FILE, LIST: 0 = any */
    struct {     /* LIST: newest first */
        uint64_t before;
        uint32_t states, classes; /* bit masks; 0: any */
        Sym model, version;       /* 0: any */
        int64_t created_after_ns;
        uint32_t limit;
    } list;
    void (*done)(PastQuery *q); /* once, on the loop's thread, never before past() has returned */

    /* the answer, valid until done returns; the tasks and the file are decoded ones */
    int err; /* ERR_NOT_FOUND; or the view cannot be read now */
    Task **tasks;
    size_t tasks_len;
    uint64_t next; /* LIST: as history_list says it */
    File *file;
};

/* ---- what the shard offers ---- */

typedef struct {
    size_t ahead;               /* ready tasks before it; SIZE_MAX: unknown */
    int64_t estimated_start_ns; /* 0: unknown */
} QueueEstimate;

typedef struct GatewayPorts {
    void *ctx;
    Core *(*core)(void *ctx);
    int64_t (*now_ns)(void *ctx); /* shard time */
    /* CODE_OK, or why no new work is taken: CODE_NO_LEADER, CODE_LOG_STALLED, CODE_DISK_FULL, with
     * detail and retry_after_ms. */
    Decision (*accepting)(void *ctx);
    uint64_t (*last_seq)(void *ctx); /* of the last applied record */
    uint64_t (*durable_seq)(void *ctx);

    /* Each decides and applies at once; the answer must wait for last_seq() to be durable. */
    Decision (*submit)(void *ctx, const SubmitSpec *s);
    Decision (*cancel)(void *ctx, uint64_t no);
    Decision (*forget)(void *ctx, uint64_t no);
    Decision (*put_file)(void *ctx, Str id, Str tenant, uint64_t size, const Sha256 *sha256,
                         Str name, Str type, uint64_t owner_task);
    Decision (*delete_file)(void *ctx, uint64_t file_no);
    Decision (*pause_model)(void *ctx, Str name, bool paused);
    /* Keep the model loaded on so many devices, at most 64; −1: as its model.yaml says. */
    Decision (*warm_model)(void *ctx, Str name, int replicas);
    Decision (*worker_order)(void *ctx, Str worker_id,
                             Str order /* "drain", "cordon", "uncordon" */);

    /* Workers. id_out receives "worker_…" (NUL-terminated); refused and stale are appended as JSON
     * arrays' contents. */
    Decision (*worker_hello)(void *ctx, const WorkerHello *h, char id_out[40], Buf *refused_json,
                             Buf *stale_json);
    bool (*worker_known)(void *ctx, Str worker_id);
    void (*worker_stream)(void *ctx, Str worker_id, bool open); /* its stream opened or closed */
    ReportAnswer (*worker_report)(void *ctx, Str worker_id, const WorkerReport *r, Buf *detail);
    bool (*worker_holds)(void *ctx, Str worker_id,
                         uint64_t task_no); /* may it read that task's files? */
    bool (*lease_is_live)(void *ctx, uint64_t task_no, uint64_t token);

    /* Reading. */
    QueueEstimate (*estimate)(void *ctx, const Task *t);
    /* Why t cannot start, however long it waits its turn: ,"reason":"…","reason_code":"…", or
     * nothing. NULL: nobody knows. */
    void (*queue_reason)(void *ctx, const Task *t, Buf *ret);
    void (*workers_json)(void *ctx, Str only_id /* empty: all, as an array */,
                         Buf *ret); /* empty ret: not found */
    void (*model_json)(void *ctx, const ModelEntry *m,
                       Buf *ret); /* extra members: ,"loaded_on":[…],"load_ms":…,… */
    void (*queues_json)(void *ctx, Buf *ret); /* an array */
    void (*task_log)(void *ctx, uint64_t task_no,
                     Buf *ret);             /* what the model printed (bounded, volatile) */
    void (*metrics)(void *ctx, Buf *ret);   /* the shard's part of /metrics */
    bool (*ready)(void *ctx, Buf *why_not); /* /readyz */
    void (*past)(void *ctx, PastQuery *q);  /* NULL: there is no history view */
    /* A backup as a tar, one at a time. CODE_OK: more(arg) is called on the loop's thread, never
     * inside these calls, when there may be something to read or it has ended; backup_end lets go
     * of it, early or not. */
    Decision (*backup_begin)(void *ctx, void (*more)(void *arg), void *arg);
    /* 1: bytes were appended; 0: none yet; ERR_CLOSED: it is whole; others: it failed, and why says
     * so. */
    int (*backup_read)(void *ctx, Buf *ret, Buf *why);
    void (*backup_want)(void *ctx); /* call more on the loop's next turn */
    void (*backup_end)(void *ctx);
    /* Does the view know this file? Blocks; for the start only. */
    bool (*past_file_is_known)(void *ctx, Str id);
} GatewayPorts;

/* ---- options ---- */

typedef struct {
    char name[64];
    Sha256 sha256; /* of the key */
    char tenant[64];
    uint32_t scopes;    /* SCOPE_* */
    int64_t expires_ns; /* 0: never */
} GatewayKey;
enum { SCOPE_SUBMIT = 1, SCOPE_READ = 2, SCOPE_OPERATE = 4, SCOPE_ADMIN = 8, SCOPE_WORKER = 16 };

typedef struct {
    const char *listen;    /* "HOST:PORT"; port 0 takes a free one */
    const char *files_dir; /* where file contents lie; made when missing */
    struct Disk *files;    /* not NULL: they lie there instead; borrowed */
    const GatewayKey
        *keys; /* without any key but the worker's, the server must listen on loopback */
    size_t keys_len;
    GatewayKey worker_key;    /* of `serve`'s own workers */
    bool insecure_http;       /* keys over plain HTTP off loopback: refused unless set */
    size_t body_max;          /* 8 MiB */
    uint64_t file_max;        /* 1 GiB */
    uint32_t connections_max; /* 10,000 */
    uint32_t transfers_max;   /* file contents sent or received at a time: each has a descriptor */
    uint32_t idle_timeout_ms; /* 60,000 */
    uint32_t header_timeout_ms; /* 10,000: a request's head must be whole by then */
    uint32_t ping_s;            /* told to workers; default 5 */
    double tenant_rate;         /* submits a second a tenant; 0: no limit */
} GatewayOptions;
void gateway_options_default(GatewayOptions *o);

/* ---- life ---- */

int gateway_open(Loop *loop, const GatewayOptions *o, const GatewayPorts *ports, Gateway **ret,
                 Buf *why) HR_MUST_CHECK;
const char *
gateway_address(const Gateway *g); /* "http://127.0.0.1:8700", the bound one; borrowed */
void gateway_drain(Gateway *g); /* no new connections; waits (long polls, streams) are answered now;
                                   keep-alive ends */
bool gateway_idle(const Gateway *g); /* nothing is held or in flight */
void gateway_close(
    Gateway *g); /* everything; run the loop until its handles are closed; then gateway_free */
void gateway_free(Gateway *g);

/* ---- what the shard tells ---- */

void gateway_durable(Gateway *g, uint64_t seq); /* held answers up to seq leave */
/* Takes up what waits for room in the log. True: something still does; ask again in some ms. */
bool gateway_go_on(Gateway *g);
void gateway_task_changed(Gateway *g, Task *t,
                          const TaskEvent *e); /* watchers: polls and event streams */
void gateway_task_progress(Gateway *g, Task *t);
void gateway_task_leaving(Gateway *g, Task *t);
void gateway_file_leaving(Gateway *g, const File *f); /* unlink its content once durable */
void gateway_file_gone(Gateway *g, Str id); /* the history view let go of it, durably: likewise */
/* While held no content is unlinked; what became due meanwhile is when it is let go. */
void gateway_hold_files(Gateway *g, bool held);
/* A line (with its newline) for a worker's stream, sent once hold_seq is durable; dropped when no
 * stream is open. */
void gateway_worker_send(Gateway *g, Str worker_id, Str line, uint64_t hold_seq);
void gateway_worker_kick(Gateway *g, Str worker_id); /* closes its stream */

/* The API's JSON of a task (with input when asked), for gateway and webhooks alike. */
void gateway_task_json(Gateway *g, const Task *t, bool with_input, Buf *ret);

#endif
