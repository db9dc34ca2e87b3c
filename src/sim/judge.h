/* judge.h: what clients and workers saw of a server, from outside, and whether it can be true. It
 * knows nothing of logs and cores: operations go in with the times around them, violations come
 * out, as the number of an invariant of the design (1 to 25) and a sentence.
 *
 * Two clocks. `start` and `end` are the world's time, which never steps, in ns: only operations
 * that do not overlap are ordered by it. Times inside views are the server's (shard time), and are
 * compared with each other only.
 *
 * The simulated device must compute an output from the input and the lease's token, so that it can
 * be told whose output is seen: judge_result_sent says what was computed. Client tasks carry their
 * nonce in metadata: {"nonce": "17"}. Memory is bounded by the operations of one seed;
 * judge_reset empties it for the next. */
#ifndef SIM_JUDGE_H
#define SIM_JUDGE_H

#include "base/base.h"
#include "task/task.h"

typedef struct Judge Judge;

typedef struct {
    bool evicts;        /* finished tasks may leave before their retention is over
                            (limits.finished_max without a history) */
    int64_t key_ttl_ns; /* how long an idempotency key is kept at least */
    int64_t end_ns_max; /* 21: every task ends within that, once judge_calm was told; 0: any */
    int64_t slack_ns;   /* rounding of times in views; default 2 ms */
} JudgeBounds;

Judge *judge_new(const JudgeBounds *b);
void judge_free(Judge *j); /* accepts NULL */
void judge_reset(Judge *j, const JudgeBounds *b);

/* The first violation: its number, 0 while there is none; and all of them (the first 20), a line
 * each: "invariant 14: …". Look after each step, or once at the end. */
int judge_broken(const Judge *j);
Str judge_why(const Judge *j);
/* How much was judged, for the report: "1200 submits, 3100 reads, …". */
void judge_summary(const Judge *j, Buf *ret);

/* ---- clients ---- */

/* A task as somebody saw it. Texts are borrowed during the call. */
typedef struct {
    char id[TASK_ID_LEN + 1];
    uint64_t nonce; /* of its metadata; 0: none was there */
    TaskState status;
    uint32_t attempt, max_attempts;
    uint64_t output; /* judge_text of it; 0: none */
    uint64_t error;  /* the same of the error object; 0: none */
    FailCode fail;   /* its code */
    uint64_t fixed;  /* hash of what must never change: model, version, priority, metadata, … */
    int64_t created_ns, started_ns, finished_ns, deadline_ns; /* 0: null */
    int64_t device_ms;
    uint32_t shard;
    uint64_t epoch, seq;      /* of the receipt */
    bool data_removed, brief; /* brief: only id and status were said (return=minimal) */
    char retry_of[TASK_ID_LEN + 1];
} JudgeView;

/* A task object of the API's JSON. 0, or ERR_INVALID and what is wrong with it. */
int judge_view_read(Str json, JudgeView *ret, Buf *why) HR_MUST_CHECK;
/* What metadata's member "nonce" says, as a number: a decimal one, or the hash of any other. */
uint64_t judge_nonce(Str text);
/* A JSON text as a number that is never 0: equal for equal values, whatever the blanks. */
uint64_t judge_text(Str json);

typedef enum {
    OUT_OK,
    OUT_REFUSED,
    OUT_UNKNOWN /* no answer came, or 5xx in its middle */
} JudgeOut;

typedef struct {
    uint32_t client;
    int64_t start, end; /* end of an unknown outcome: when the client gave up */
    JudgeOut out;
    Code code;      /* of a refusal */
    uint64_t epoch; /* of the server process that answered, when the simulator knows; else 0 */
} JudgeOp;

typedef struct {
    uint64_t nonce; /* names the try; the same for all tries under one key, never 0 */
    uint64_t key;   /* names the idempotency key (and tenant); 0: none */
    uint64_t body;  /* hash of what was sent, route and body */
    uint32_t tenant;
    uint64_t input;                              /* judge_text of the input */
    int64_t delay_ns, deadline_ns, retention_ns; /* relative; deadline 0: none */
    uint32_t max_attempts;
    uint32_t expect;      /* mask of 1 << TaskState in which it may end; 0: any. A cancel adds
                          canceled by itself, a deadline expired */
    const char *retry_of; /* id, or NULL: it is no retry. Of a retry, input 0: that of the old */
    bool replayed;        /* the answer said that it was a repeat */
} JudgeSubmit;

/* view: of an OUT_OK; NULL otherwise. One call for each line of a batch, with the same times. */
void judge_submit(Judge *j, const JudgeOp *op, const JudgeSubmit *s, const JudgeView *view);
/* OUT_OK with a view; OUT_REFUSED with CODE_NOT_FOUND or CODE_GONE. Unknown ones need no call. */
void judge_read(Judge *j, const JudgeOp *op, const char *id, const JudgeView *view);
/* A list that was read to its end, newest first, in one order of pages: one op over all pages.
 * complete: it had no filter, so that every task there is must be in it. */
void judge_list(Judge *j, const JudgeOp *op, const JudgeView *views, size_t len, bool complete);
/* Status events of one stream, in the order in which they came; `stream` numbers the connection,
 * `after` is the Last-Event-ID that it was begun with (0: none). Progress needs no call. */
void judge_event(Judge *j, uint64_t stream, int64_t now, const char *id, uint64_t after,
                 uint64_t seq, TaskState status, uint32_t attempt);
void judge_cancel(Judge *j, const JudgeOp *op, const char *id, const JudgeView *view /* or NULL */);
void judge_delete(Judge *j, const JudgeOp *op, const char *id);

/* ---- servers ---- */

/* A process claimed the shard with that epoch; the claim is durable. */
void judge_claimed(Judge *j, uint64_t epoch, int64_t now);

/* ---- workers ---- */

/* A worker read a lease line; input: judge_text of the input that came with it. 0: it is in a file;
 * said again when that is read. */
void judge_lease_given(Judge *j, int64_t now, uint32_t worker, const char *id, uint64_t token,
                       uint32_t attempt, uint64_t input);
/* A worker sent a result (ok), an error or a release; again each time it is sent. output:
 * judge_text of it. device_ns: what it says that it took, whatever the report. */
void judge_result_sent(Judge *j, int64_t now, uint32_t worker, const char *id, uint64_t token,
                       bool ok, uint64_t output, int64_t device_ns);
/* The error that was sent for that lease is not retryable: accepted, it ends the task. */
void judge_error_final(Judge *j, const char *id, uint64_t token);
typedef enum { JUDGE_ACCEPTED, JUDGE_DUPLICATE, JUDGE_FENCED, JUDGE_OTHER } JudgeAnswer;
void judge_result_answered(Judge *j, int64_t now, uint32_t worker, const char *id, uint64_t token,
                           JudgeAnswer answer);

/* ---- the end ---- */

/* Faults stop here and a capable worker lives (21 counts from here). */
void judge_calm(Judge *j, int64_t now);
/* Everything should have ended. From here on every accepted task is read once more, or listed. */
void judge_drained(Judge *j, int64_t now);
/* After those reads. What can only be said at the end: 1, 3, 4, 6, 7, 16, 18. */
void judge_finish(Judge *j);
/* Ids of accepted tasks, to be read after the drain: index 0 …; NULL behind the last. */
const char *judge_accepted(const Judge *j, size_t index);

#endif
