/* bench.h: the parts of `headrace bench`: a histogram, answers of HTTP/1.1, a load generator, the
 * machine and the server that are measured, the scenarios, and what is said of them.
 *
 * One thread. Times are CLOCK_MONOTONIC in ns. */
#ifndef CLI_BENCH_H
#define CLI_BENCH_H

#include <sys/socket.h>
#include <sys/types.h>

#include "cli/client.h"

/* ---- latencies (bench_hist.c): pure ----
 *
 * Log-linear buckets as in HdrHistogram (Tene, hdrhistogram.org): exact below 512, then 256 steps
 * an octave, so that a value read from it is at most 0.4 % too large. Any unit; ours is ns. */
#define HIST_STEP_BITS 8
#define HIST_STEPS     (1u << HIST_STEP_BITS)
#define HIST_BITS      42 /* 2^42 ns: 73 minutes; what is larger counts as that */
#define HIST_LEN       ((HIST_BITS - HIST_STEP_BITS + 1) * HIST_STEPS)

typedef struct {
    uint64_t counts[HIST_LEN];
    uint64_t total, min, max; /* min, max: exact, and only valid when total > 0 */
    double sum;
} Hist; /* zeroed: empty */

void hist_add(Hist *h, uint64_t v);
/* The smallest value that at least the share q (0 to 1) of all values does not exceed; 0: empty. */
uint64_t hist_at(const Hist *h, double q);
double hist_mean(const Hist *h);
/* Corrects a closed loop for coordinated omission, as HdrHistogram's
 * copyCorrectedForCoordinatedOmission does: a value v stands for v, v − interval, v − 2 interval
 * and so on, down to one interval: what would have been sent had the client not waited. */
void hist_correct(const Hist *h, uint64_t interval, Hist *ret);

/* ---- answers (bench_http.c): pure ---- */

typedef struct {
    int status;
    size_t head_len; /* up to and with the blank line */
    uint64_t length; /* of the body, unless chunked */
    bool chunked, close;
} AnswerHead;
/* ERR_AGAIN: the head is not whole yet. ERR_INVALID: no answer of HTTP/1.1, or one of no length. */
int answer_head(Str in, AnswerHead *ret) HR_MUST_CHECK;

/* Takes the chunk framing off. Zeroed: at the first chunk. */
typedef struct {
    uint64_t left; /* data bytes to come of this chunk */
    enum { CHUNK_SIZE, CHUNK_DATA, CHUNK_DATA_END, CHUNK_LAST, CHUNK_OVER } at;
} Dechunk;
/* Moves what it can from the front of *in to ret. ERR_INVALID. d->at is CHUNK_OVER at the end. */
int dechunk(Dechunk *d, Str *in, Buf *ret) HR_MUST_CHECK;

/* ---- where to (bench_target.c) ---- */

typedef struct {
    struct sockaddr_storage address;
    socklen_t address_len;
    Buf fields; /* "Host: …\r\nAuthorization: …\r\n" */
    bool loopback;
} Target;
int target_of(const Client *c, Target *ret); /* status, said */
void target_done(Target *t);

/* ---- the load (bench_load.c) ---- */

typedef enum {
    LOAD_SUBMIT,    /* a task a request; answered once it is durable */
    LOAD_ROUNDTRIP, /* a task a request; answered with its result */
    LOAD_BATCH,     /* lines of tasks:batch, each answered with its result */
    LOAD_BATCH_GET, /* the same where the server does not wait: a GET waits for the last task */
    LOAD_ENQUEUE,   /* lines of tasks:batch, answered once durable */
} LoadKind;

typedef struct {
    const Target *target;
    LoadKind kind;
    const char *model;
    Str input;                      /* JSON */
    bool echo;                      /* the result must be the input */
    uint32_t connections, lines;    /* lines of a batch; 1 otherwise */
    int64_t warmup_ns, duration_ns; /* duration_ns 0: until tasks_max */
    uint64_t tasks_max;             /* tasks to submit in all, 0: no limit */
    double rate;                    /* tasks a second in all, on a fixed schedule; 0: closed loop */
    /* The measured time begins, or ends. May be NULL. */
    void (*mark)(void *ctx, bool begins);
    void (*tick)(void *ctx); /* every half second of the measured time; may be NULL */
    void *mark_ctx;          /* of both */
    /* How many requests may be sent until it is asked again, 20 ms later. NULL: any number. */
    uint64_t (*allowed)(void *ctx);
    void *allowed_ctx;
} Load;

typedef struct {
    Hist latency;             /* ns a request; open loop: since it should have been sent */
    uint64_t tasks, requests; /* that ended well within the measured time */
    uint64_t tasks_all;       /* accepted, from the first one on */
    uint64_t errors;
    uint64_t late;      /* open loop: not answered at the end; they count with their age so far */
    double device_ms;   /* that the tasks' engine worked, as their answers say; of echo unknown */
    int64_t elapsed_ns; /* the measured time */
    int status;         /* CLI_OK, or why it stopped early; said */
} LoadResult;

/* Its parts that are pure (bench_exchange.c). */
#define LOAD_WAIT_S 60 /* Prefer: wait; the most the server grants */
void load_put_request(const Load *l, Buf *ret);
void load_put_output(const Load *l, Buf *ret); /* what an echo's answer must hold */
/* What is wrong with an answer, and in *ret_part where; NULL: nothing, and *ret_part is a batch's
 * last line. getting: the answer to the GET of LOAD_BATCH_GET. output: "" or what it must hold. */
const char *load_check(const Load *l, bool getting, int status, Str body, Str output,
                       Str *ret_part);
void load_put_reason(Str text, Buf *ret); /* a refusal's detail, clean */
double load_device_ms(Str task);

bool bench_interrupted(void); /* Ctrl-C */
int64_t bench_now_ns(void);
/* Runs it. Returns the status, said. */
int load_run(const Load *l, LoadResult *ret);

/* ---- the machine (bench_machine.c) ---- */

typedef struct {
    double cpu_s;           /* of all its threads, since it began */
    uint64_t rss, rss_peak; /* bytes */
} ProcessUse;
bool process_use(pid_t pid, ProcessUse *ret); /* false: there is no such process */
pid_t process_parent(pid_t pid);              /* 0: unknown */
double thread_cpu_s(pid_t pid, pid_t tid);    /* 0: there is none */
size_t process_threads(pid_t pid, pid_t *ret, size_t cap);
bool process_same_program(pid_t a, pid_t b); /* false: not so, or unknown */

/* What an overwrite of 4 KiB and its fdatasync take in dir. */
typedef struct {
    int64_t p50_ns, p99_ns;
    bool known, in_memory; /* in_memory: a tmpfs, where nothing is durable */
} SyncProbe;
int sync_probe(const char *dir, SyncProbe *ret); /* status, said */

/* ---- a server of our own (bench_server.c) ---- */

typedef struct {
    char *folder;     /* temporary: data/, models/, server.log; NULL: none */
    pid_t pid;        /* 0: not running */
    int64_t start_ns; /* what the last start took, until it was ready */
} OwnServer;

/* Makes the folder in parent. Status, said. */
int own_server_make(const char *parent, OwnServer *ret);
/* Starts it, and waits until it is ready. models: a repository or NULL (echo only). sets: further
 * KEY=VALUE, NULL-ended. Status, said. */
int own_server_start(OwnServer *s, const char *models, const char *const *sets);
char *own_server_url(const OwnServer *s); /* owned by the caller */
void own_server_stop(OwnServer *s);       /* SIGTERM; after 20 s SIGKILL */
void own_server_done(OwnServer *s);       /* stops it, removes the folder */

/* ---- a measurement (bench_measure.c) ---- */

#define WORKERS_MAX 64
#define THREADS_MAX 32

typedef struct {
    bool own;         /* start a server for each scenario */
    const char *data; /* folder for its data, or of the server that is measured; or NULL */
    const char *models, *model, *input;          /* input: JSON or NULL */
    uint64_t connections, payload, lines, tasks; /* 0: the scenario's default */
    double rate, duration_s, warmup_s, patience_s;
    bool json;
} Settings;

/* What the server counts. */
typedef struct {
    int64_t at_ns;
    double server_cpu_s, worker_cpu_s; /* 0: not on this machine */
    double client_cpu_s;               /* our own */
    double lasting_cpu_s;              /* of the server's threads that were there from the start */
    double commits, commit_s, frames, busy_s, idle_s; /* since it began */
    uint64_t finished, failed;                        /* tasks of the model */
} Count;

typedef struct {
    const char *name; /* "submit" */
    uint64_t connections;
    double rate;               /* tasks a second; 0: does not apply */
    Hist *latency, *corrected; /* owned; NULL: none. corrected: of a closed loop */
    bool open;
    double server_cpu, worker_cpu; /* CPU seconds for 1,000 tasks; 0: unknown */
    uint64_t rss;                  /* of the server at the end; 0: unknown */
    uint64_t errors;
    Buf note; /* for people */
    Buf json; /* further members: ,"name":value … */
    SyncProbe before, after;
    double commit_ms; /* mean, within the measured time; 0: none */
    bool slow_disk;   /* not comparable */
    bool whole;       /* measured to the end: only then it is shown */
} Row;

typedef struct {
    Settings set;
    Client client;
    Target target;
    OwnServer server;
    pid_t pid, workers[WORKERS_MAX];
    size_t workers_len;
    pid_t threads[THREADS_MAX]; /* of the server, when it was found */
    size_t threads_len;
    Buf input;      /* a task's */
    Count from, to; /* at the marks of the last load */
    Count ticked;   /* at its last tick */
    uint32_t ticks, slow_ticks;
    LoadResult *result;
    Row *rows;
    size_t rows_len;
    int status; /* the first one that is not CLI_OK */
} Bench;

/* Before a scenario: a fresh server when it is our own, the disk's probe, and waiting for it. */
int bench_begin(Bench *b, const char *const *sets);
void bench_end(Bench *b);
int bench_restart(Bench *b, const char *const *sets); /* our own server, on the same data */
int bench_connect(Bench *b);                          /* address and processes of the server */
Row *bench_row(Bench *b, const char *name);           /* valid until the next one */
Load bench_load(Bench *b, LoadKind kind);             /* by the settings */
/* Runs the load and fills a row of it. */
int bench_run(Bench *b, const Load *l, Row *row);
int bench_pause(Bench *b, bool pause); /* the model */
int bench_count(Bench *b, Count *ret);
int bench_count_tasks(Bench *b, Count *ret); /* only finished and failed */
int bench_probe(Bench *b, SyncProbe *ret);
void bench_say(const Bench *b, const char *fmt, ...) HR_PRINTF(2, 3); /* progress, on stderr */
HR_PRINTF(3, 4) void row_member(Row *r, const char *name, const char *fmt, ...);

/* ---- scenarios (bench_scenarios.c, bench_backlog.c) ---- */

typedef struct {
    const char *name;
    int (*run)(Bench *b);
    bool usual; /* part of a run that names none */
} Scenario;
extern const Scenario scenarios[]; /* ends with a NULL name */
int scenario_memory(Bench *b);
int scenario_backlog(Bench *b);

/* ---- what is said (bench_report.c) ---- */

void put_grouped(Buf *b, uint64_t v); /* "1,000,000" */
void report_print(const Bench *b);
void report_json(const Bench *b);

#endif
