/* internal.h: what the gateway's files share. One thread: the loop's.
 *
 *     server.c     connections: bytes to requests, answers in order, time limits
 *     exchange.c   one request and its answer; holding answers until they are durable
 *     watch.c      who waits for a task: long polls, `Prefer: wait`, event streams
 *     route.c      the table of routes; what every request must pass
 *     auth.c problem.c render.c query.c    keys, refusals, JSON of things, query parameters
 *     past.c       tasks that have left memory: asked of the history view
 *     submit.c batch.c tasks.c events.c files.c upload.c workers.c views.c ops.c backup.c
 *                  openapi.c   the routes
 *
 * A handler sees an Exchange, never a connection: it reads the request and answers by
 * exchange_reply (at once), or keeps the exchange (watch.c, a stream, a job) and answers later.
 * Who carries the bytes is behind Exchange.moved. */
#ifndef GATEWAY_INTERNAL_H
#define GATEWAY_INTERNAL_H

#include "gateway/gateway.h"
#include "io/disk.h"
#include "io/tcp.h"
#include "wire/http.h"
#include "wire/json.h"

typedef struct Exchange Exchange;
typedef void (*Handler)(Exchange *x);
typedef void (*TaskHandler)(Exchange *x, Task *t);

/* ---- routes ---- */

enum {
    ROUTE_OPEN = 1,       /* no key needed */
    ROUTE_JSON = 2,       /* has a JSON body: Content-Type demanded */
    ROUTE_STREAM_IN = 4,  /* the handler runs at the head and takes the body by pieces */
    ROUTE_BODY_EMPTY = 8, /* a POST without a body (one is refused) */
    ROUTE_WORKER = 16,    /* needs a worker's key, even where no other key is configured */
    ROUTE_NDJSON = 32,
};

typedef struct {
    HttpMethod method;
    const char *pattern; /* "/v1/tasks/{id}/events" */
    Handler handle;
    uint32_t scope; /* SCOPE_*, one of which the key must have */
    uint32_t flags;
    const char *summary; /* for openapi.json */
    const char *query;   /* names of query parameters, blank-separated; others are refused */
    const char *body;    /* schema of the body, or NULL */
    int status;          /* of success */
    const char *answer;  /* schema of the answer; NULL: none or not JSON */
} Route;
extern const Route routes[];
extern const size_t routes_len;

/* ---- an exchange ---- */

typedef enum {
    WATCH_NONE,
    WATCH_SUBMIT /* 202 when it is not met */,
    WATCH_FINISH,
    WATCH_CHANGE,
    WATCH_EVENTS,
    WATCH_BATCH /* the first task of a batch that is not answered yet */
} WatchMode;

/* Stream text that waits for its records: pieces in order, each with the sequence it needs. */
typedef struct {
    uint64_t seq;
    size_t len;
} HeldPiece;
typedef struct {
    Buf text, pieces; /* of HeldPiece */
    size_t first;     /* the first piece not yet released */
    bool ends;        /* the stream ends after the last piece */
    List link;        /* in Gateway.held_texts while pieces are left */
    Exchange *x;
} HeldText;

#define AUTH_TEXT_MAX 256
typedef struct { /* the last key a connection showed: spares a SHA-256 a request */
    char text[AUTH_TEXT_MAX];
    size_t len;
    const GatewayKey *key;
} AuthCache;

struct Exchange {
    Gateway *g;
    List link;                  /* in its connection's, in order of request */
    void *conn;                 /* of the transport */
    void (*moved)(Exchange *x); /* the transport's: bytes came free in out, or it ended */
    AuthCache *auth;            /* or NULL */

    /* the request; borrowed, valid until the handler returns (ROUTE_STREAM_IN: until the body has
     * ended) */
    const HttpRequest *req;
    char *path; /* what is kept of req for a problem's "instance" when the answer comes later */
    const Route *route;
    Str params[2];
    Str tenant;      /* the caller's; borrowed from its key, which lives as long as the gateway */
    bool any_tenant; /* it may see every tenant's things */
    uint32_t scopes;
    uint64_t began_ns; /* hrtime */

    /* the answer */
    Buf headers; /* further header lines of the answer to come */
    Buf out;     /* bytes to leave, unless held */
    uint16_t status;
    bool head_only, answered, ended, close;
    bool chunked, exclusive; /* exclusive: the next request of this connection waits for its end */
    bool held;               /* out waits in Gateway.held for hold_seq */
    bool foreign_worker;     /* its key is not that of `serve`'s own workers */
    bool body_whole;         /* ROUTE_STREAM_IN: the body has ended */
    bool paused_in;          /* take no more body for now */
    char want_range[64], want_match[80]; /* of a file's content: Range, If-None-Match; or "" */
    struct RetryKey *retry_key;          /* of a retry with an Idempotency-Key; owned */
    bool asked;                          /* waits for the history view: nothing is parsed before */
    char missing_file[32]; /* of submit_files: the core has it not, the history view may; or "" */
    Sym missing_tenant;
    bool missing_for_good;      /* the view has it not, either */
    bool rated;                 /* took its token of the tenant's rate */
    struct SavedRequest *saved; /* req, while a submit waits for the history view; owned */
    bool wanted_wait;           /* a submit with `Prefer: wait` */
    bool with_input;            /* the answer is to show the task's input */
    bool counted;
    uint64_t hold_seq;
    List hold;
    HeldText *later; /* streams only */

    /* waiting for a task */
    WatchMode watching;
    uint64_t watch_no;
    TableNode watch;
    HeapNode timer;    /* key: loop ms */
    uint64_t seen_seq; /* events: the last transition sent */
    uint32_t seen_n;

    /* a handler's own state; drop frees it when the exchange ends, early or not */
    void *state;
    void (*take)(Exchange *x, Str piece); /* body pieces; then once with body_whole set */
    void (*drained)(Exchange *x);         /* all of out has left: make more */
    void (*drop)(Exchange *x);
};

/* ---- the gateway ---- */

#define INSTANCE_MAX     256 /* bytes of a path that a problem names */
#define ROUTES_MAX       64
#define DURATION_BUCKETS 14
typedef struct {
    uint64_t by_class[6]; /* [status / 100] */
    uint64_t duration[DURATION_BUCKETS];
    uint64_t duration_sum_ns, count;
} RouteCount;

typedef struct Conn Conn;
typedef struct Gone Gone;

struct Gateway {
    Loop *loop;
    GatewayOptions o;
    GatewayKey *keys; /* owned copy; the worker's is the last */
    size_t keys_len;
    bool keyless; /* no key but the worker's: loopback only */
    GatewayPorts p;
    TcpListener *listener;
    char address[96];
    Disk *files, *own_files; /* contents; own_files: NULL when somebody else's */
    bool draining, closing, handles_closed;
    int handles;

    /* scratch memory, each for one use at a time: body for the answer being rendered (no port that
     * changes tasks may be called between its first byte and exchange_reply), lines for a piece of
     * a stream (the same), text for what a handler decodes */
    Buf body, text, lines;
    Json json;
    char common[160]; /* Date and the headers every answer has */
    size_t common_len;
    uint64_t common_until_ms;

    List held; /* of Exchange.hold, by hold_seq */
    size_t held_len;
    List held_texts; /* of HeldText.link */
    List batches;    /* of Batch.later: gateway_go_on takes them up */
    Exchange *spare[256];
    size_t spare_len, exchanges; /* live ones */

    Table watch; /* Exchange.watch by task number */
    size_t watching;
    Heap timers; /* Exchange.timer */
    LoopTimer timer, sweep;
    uint64_t swept_ms; /* when on_sweep last ran (loop time) */

    Table streams;    /* WorkerStream by worker id */
    Table buckets;    /* rate limits by tenant */
    Table leased;     /* running tasks that refer to files */
    List gone_files;  /* contents to unlink once durable */
    bool files_held;  /* a backup reads them: not now */
    size_t jobs;      /* on libuv's threads */
    size_t transfers; /* uploads and downloads: a descriptor each */
    Buf openapi;

    RouteCount counts[ROUTES_MAX + 1]; /* the last: no route */
    uint64_t refused_connections, replays;
};

/* ---- exchange.c ---- */
Exchange *exchange_new(Gateway *g);
void exchange_free(Exchange *x); /* early too: everything it waits for is let go */
/* A header line of the answer to come. */
void exchange_header(Exchange *x, const char *name, const char *fmt, ...) HR_PRINTF(3, 4);
/* Answers with `body`; complete. type NULL: no body. */
void exchange_reply(Exchange *x, int status, const char *type, Str body);
void exchange_reply_json(Exchange *x, int status); /* Gateway.body */
/* Answers piece by piece: length < 0 = chunked. */
void exchange_begin(Exchange *x, int status, const char *type, int64_t length);
void exchange_put(Exchange *x, Str piece,
                  uint64_t seq); /* leaves once seq is durable; 0: at once, in order */
void exchange_end(Exchange *x);
/* What is put out from now on waits until seq is durable. Call it before exchange_reply. */
void exchange_hold(Exchange *x, uint64_t seq);
size_t exchange_waiting(const Exchange *x); /* bytes of a stream not yet durable */
void exchange_start_gateway(Gateway *g);
bool exchange_nothing_held(const Gateway *g);

/* ---- watch.c ---- */
void watch_task(Exchange *x, const Task *t, WatchMode mode, uint32_t timeout_ms);
void watch_stop(Exchange *x);
void watch_again(Exchange *x, uint32_t timeout_ms); /* moves the timer only */
void watch_answer_all(Gateway *g);                  /* draining */
void watch_due(Gateway *g);
void watch_done_gateway(Gateway *g);

/* ---- route.c ---- */
/* At the head: finds the route and checks host, origin, key and form. False: answered with a
 * problem. *ret_body_max: what may follow. */
bool route_head(Exchange *x, uint64_t *ret_body_max);
void route_body(Exchange *x); /* the request is whole: run the handler */
void route_count(Exchange *x);
int route_index(const Route *r); /* routes_len for NULL */

/* ---- auth.c ---- */
bool auth_check(Exchange *x);                 /* false: answered */
bool auth_scope(Exchange *x, uint32_t scope); /* has it (without keys: yes, but for the worker's) */
bool auth_rate(Exchange *x, Str tenant, bool headers,
               uint32_t *ret_retry_ms); /* takes one submit's token */
void auth_done_gateway(Gateway *g);
/* The tenant that lookups are limited to: empty for those who see all. */
static inline Str auth_view(const Exchange *x)
{
    return x->any_tenant ? (Str){"", 0} : x->tenant;
}

/* ---- problem.c ---- */
typedef struct {
    int status;
    Code code;
    uint32_t retry_after_ms;
    char field[64];
    char detail[320];
} Problem;
Problem problem_of(int status, Code code, const char *field, const char *fmt, ...) HR_PRINTF(4, 5);
Problem problem_of_fault(const JsonFault *f);
Problem problem_of_decision(const Decision *d);
void problem_json(Buf *b, const Problem *p, Str instance);
void problem_reply(Exchange *x, const Problem *p);
void problem_say(Exchange *x, int status, Code code, const char *field, const char *fmt, ...)
    HR_PRINTF(5, 6);

/* ---- render.c ---- */
void render_task(Gateway *g, const Task *t, bool with_input, bool with_queue, Buf *b);
void render_task_minimal(Gateway *g, const Task *t, Buf *b); /* id and status */
void render_file(Gateway *g, const File *f, Buf *b);
void render_event(Gateway *g, const Task *t, const TaskEvent *e,
                  Buf *b); /* JSON of a status event */
void render_problem_code(Code c, Buf *b);

/* ---- query.c ---- */
/* A query parameter by name, decoded into Gateway.text; false: not there. Unknown names and bad
 * escapes are refused by route_head. */
bool query_get(Exchange *x, const char *name, Str *ret);
bool query_check(Exchange *x); /* false: answered */
bool query_uint(Exchange *x, const char *name, uint64_t max, uint64_t *ret,
                bool *ret_given); /* false: answered */
/* `Prefer: wait=N`: seconds (0: not asked for); false: answered. */
bool query_prefer_wait(Exchange *x, uint32_t *ret_s);
/* `Prefer: return=minimal`: of a task only id and status. */
bool query_prefer_minimal(const Exchange *x);
/* The task of params[0], visible to the caller. NULL: answered; or it has left memory, and `past`
 * is called later with what the history view has (or that answers). */
Task *query_task(Exchange *x, TaskHandler past);

/* ---- past.c ---- */
/* Answers may come later: what they need of the request must have been read. t is valid during the
 * call, in no list of the core, and durable. */
void past_task(Exchange *x, uint64_t no, TaskHandler then);
void past_task_by_id(Exchange *x, Str id, TaskHandler then); /* an id of this shard's (core_find) */
/* The same with a question of the caller's: then(x, q), unless the view failed (answered 503) or x
 * is gone. Found or not: q->err. */
void past_ask(Exchange *x, const PastQuery *q, void (*then)(Exchange *x, PastQuery *q));
/* What submit_files found missing: the question (no is the caller's), and its answer: the file
 * comes back into the core, for a task is about to refer to it. False: the history view need not be
 * asked. */
bool past_wants_file(const Exchange *x, PastQuery *q);
Decision past_file_back(Gateway *g, const PastQuery *q); /* CODE_NOT_FOUND: the view has it not */
uint64_t query_task_no(Gateway *g, Str id);              /* 0: not a task in memory */

/* ---- submit.c ---- */
typedef struct {
    Str model, version, input, metadata, traceparent, key;
    TaskClass class;
    int64_t deadline_ns, delay_ns;
    uint32_t max_attempts, retention_s;
    Digest128 body;
    uint64_t files[TASK_FILES_MAX];
    size_t files_len;
    Buf compacted;   /* owns input when it had line breaks */
    bool known;      /* its key is in force: nothing else of it matters, and … */
    Decision repeat; /* … submit_decide answers this */
} Submit;
void submit_done(Submit *s);
/* Reads and checks a submit's JSON (Gateway.json holds it). line: of a batch, which may carry its
 * idempotency_key. */
bool submit_read(Exchange *x, Str body, bool line, Submit *ret, Problem *problem);
/* Hands it to the shard. False: *problem. True: *ret_task (NULL: it has left memory), its number,
 * and whether it is a repeat. */
bool submit_decide(Exchange *x, Submit *s, Task **ret_task, uint64_t *ret_no, bool *ret_repeat,
                   Problem *problem);
/* The files an input or output refers to by {"$file": "file_…"}. False: *problem; when
 * past_wants_file says so, the history view is to be asked before it is answered. */
bool submit_files(Exchange *x, yyjson_val *v, Str tenant, const char *field,
                  uint64_t files[TASK_FILES_MAX], size_t *ret_len, Problem *problem);
void submit_forget_request(Exchange *x); /* frees x->saved */
/* Sets known by key and body, both of this tenant's. */
bool submit_known(Exchange *x, Str tenant, Submit *s);
/* May a task be made for this tenant now? Room, and its rate; what is known (s) needs neither. */
bool submit_may(Exchange *x, Str tenant, Submit *s, Problem *problem);
/* Where no new line is taken: only its key is looked at. */
bool submit_line_known(Exchange *x, Str line, Submit *s);
bool submit_identity(Exchange *x, Str key_header, Str body, Submit *s, Problem *problem);
/* Stores an input that is too large for the log, then calls back with a Submit whose input is a
 * reference. */
typedef struct BigInput BigInput;
struct BigInput {
    Exchange *x; /* NULL: it is gone */
    Gateway *g;
    Submit s; /* strings point into copy */
    Buf copy;
    char file_id[32];
    Sha256 sha256;
    uint64_t size;
    int err;
    LoopWork work;
    void (*done)(BigInput *b); /* s is ready, or err; runs only while x is there */
};
void submit_store_big(Exchange *x, Submit *s, BigInput *b);
bool submit_big_decide(BigInput *b, Task **ret_task, uint64_t *ret_no, bool *ret_repeat,
                       Problem *problem);
void submit_big_free(BigInput *b);

void submit_post(Exchange *x);
void batch_post(Exchange *x);
void batch_wake(Exchange *x,
                bool wait_over); /* what it watched has ended, or is waited for no more */

/* ---- tasks.c ---- */
void tasks_answer(Exchange *x, Task *t, int status, bool with_input);
void tasks_get(Exchange *x);
void tasks_list(Exchange *x);
void tasks_cancel(Exchange *x);
void tasks_retry(Exchange *x);
void tasks_forget(Exchange *x);
void tasks_log(Exchange *x);

/* ---- events.c ---- */
void events_get(Exchange *x);
void events_push(Exchange *x, Task *t, const TaskEvent *e);
void events_progress(Exchange *x, Task *t);
void events_beat(Exchange *x);

/* ---- files.c, upload.c ---- */
int files_open(Gateway *g, Buf *why);
void files_done_gateway(Gateway *g);
void files_durable(Gateway *g, uint64_t seq);
void files_new_id(const Gateway *g, char ret[32]);
Problem files_busy(const Gateway *g); /* as many transfers as there may be are under way */
/* These block. A content that is being written, out of sight; then either of the two that follow,
 * which close f: it is synced and moved to its place, or nothing stays of it. */
int files_create(const Gateway *g, const char *id, DiskFile **ret);
int files_publish(const Gateway *g, const char *id, DiskFile *f);
void files_discard(const Gateway *g, const char *id, DiskFile *f);
int files_store(const Gateway *g, const char *id, Str bytes); /* all of that, of bytes in memory */
void files_unlink(const Gateway *g, const char *id);
void files_get(Exchange *x);
void files_content(Exchange *x);
void files_delete(Exchange *x);
void files_post(Exchange *x);
void files_task_changed(Gateway *g, const Task *t, const TaskEvent *e);
bool files_is_leased(Gateway *g, const File *f);

/* ---- workers.c (its API for workers), views.c (for people) ---- */
void worker_register(Exchange *x);
void worker_stream(Exchange *x);
void worker_reports(Exchange *x);
void worker_done_gateway(Gateway *g);
void view_workers(Exchange *x);
void view_worker(Exchange *x);
void view_drain(Exchange *x);
void view_cordon(Exchange *x);
void view_uncordon(Exchange *x);
void view_models(Exchange *x);
void view_model(Exchange *x);
void view_version(Exchange *x);
void view_pause(Exchange *x);
void view_resume(Exchange *x);
void view_warm(Exchange *x);
void view_queues(Exchange *x);
void view_tenants(Exchange *x);

/* ---- ops.c, openapi.c ---- */
void ops_livez(Exchange *x);
void ops_readyz(Exchange *x);
void ops_startupz(Exchange *x);
void ops_metrics(Exchange *x);
void ops_home(Exchange *x);
void openapi_get(Exchange *x);

/* ---- backup.c ---- */
void backup_get(Exchange *x);

/* ---- server.c ---- */
void server_resume_body(Exchange *x);    /* paused_in was cleared */
size_t server_unsent(const Exchange *x); /* bytes put out that the peer has not taken */

static inline Core *core_of(const Gateway *g)
{
    return g->p.core(g->p.ctx);
}
static inline int64_t now_of(const Gateway *g)
{
    return g->p.now_ns(g->p.ctx);
}

#endif
