/* judge_inside.h: what the judge keeps. One row a submit, a key, a task, a lease, an event, a
 * stream; found by number or by the hash of an id. */
#ifndef SIM_JUDGE_INSIDE_H
#define SIM_JUDGE_INSIDE_H

#include "sim/arrays.h"
#include "sim/judge.h"

typedef struct { /* a nonce: one submit, or all tries under one key */
    JudgeSubmit s;
    int64_t first_start;
    uint32_t tries, answered_ok, maybe; /* maybe: of unknown outcome */
    uint32_t tasks;                     /* different ids seen of it, retries apart */
    uint32_t task;                      /* 1 + row of the first */
} Submit;

typedef struct {
    uint64_t body;
    uint32_t task;       /* 1 + row of what it gave last */
    int64_t accepted_ns; /* shard time: that task's created_at */
    uint32_t other_body; /* tries with another body */
} Key;

/* A view that ended at `end` and was further than every one before. */
typedef struct {
    int64_t end;
    int64_t rank; /* started_at; INT64_MAX: terminal */
    uint32_t attempt;
    int64_t device_ms;
} Far;

typedef struct {
    char id[TASK_ID_LEN + 1];
    JudgeView first; /* the first whole view; id "" while there was none */
    JudgeView end;   /* the first terminal one */
    bool ended, changed_charge;
    uint32_t submit;     /* 1 + row; 0: not known yet */
    int64_t started_ns;  /* the earliest start in any view; 0: none */
    int64_t first_seen;  /* world time: end of that operation */
    int64_t accepted_at; /* … of the first OK submit; 0: none */
    Array far;           /* Far, both rising */
    int64_t cancel_ok;   /* end of the first that was acknowledged; 0: none */
    int64_t delete_ok;
    int64_t gone_at;   /* end of the first 410 */
    int64_t last_look; /* start of the last read, or 410 */
    bool cancel_maybe, delete_maybe, removed_seen;
    uint64_t listed;                          /* number of the last list that had it */
    TaskState told;                           /* terminal state in events; 0: none */
    uint32_t retries, retries_maybe, retried; /* retries of it: accepted, unknown, seen */
    uint64_t accepted_token; /* whose result was answered accepted or duplicate; 0: none */
    bool final_error;
    int64_t sent_ns, charged_ns; /* device time of all reports; of those accepted */
} Seen;

typedef struct {
    uint64_t token;
    uint32_t task; /* 1 + row */
    uint32_t worker, attempt;
    uint64_t input, output; /* output: 0 no result was sent, or an error */
    bool given, sent, ok, final, accepted, duplicate, fenced;
    uint32_t sends;
    int64_t device_ns, given_at;
} Leased;

typedef struct {
    uint32_t task; /* 1 + row */
    uint64_t seq;
    TaskState status;
    uint32_t attempt;
} Told;

typedef struct {
    uint32_t task;
    uint64_t after, last, count;
    bool ended;
} Stream;

typedef struct {
    uint64_t epoch;
    int64_t at;
} Claim;

struct Judge {
    JudgeBounds bounds;
    Array submits, keys, seen, leases, told, streams, claims;
    Map64 submit_at, key_at, seen_at, lease_at, told_at, stream_at, receipt_at;
    Array accepted; /* uint32_t: rows of seen, in order of the answers */
    uint64_t lists, reads, cancels, deletes, events, answers;
    int64_t latest_ns; /* the latest shard time in any view */
    int64_t calm_at, drained_at;
    int broken, told_of;
    Buf why;
};

void judge_bad(Judge *j, int invariant, const char *fmt, ...) HR_PRINTF(3, 4);
Seen *judge_seen(Judge *j, const char *id); /* made when new */
Seen *judge_seen_find(const Judge *j, const char *id);
Submit *judge_submit_of(Judge *j, const Seen *n); /* NULL: not known (yet) */
/* One view: kept, and held against those before. */
void judge_view(Judge *j, const JudgeOp *op, const JudgeView *v);
/* It was terminal (rank INT64_MAX) or there at a moment. */
void judge_far(Judge *j, Seen *n, int64_t start, int64_t end, int64_t rank, uint32_t attempt,
               int64_t device_ms, TaskState status);
uint32_t judge_row(const Judge *j, const Seen *n); /* 1 + its row */

#define SEEN(j, row1)   ROW((j)->seen, Seen, (row1)-1)
#define SUBMIT(j, row1) ROW((j)->submits, Submit, (row1)-1)
#define LEASED(j, row1) ROW((j)->leases, Leased, (row1)-1)
#define ULL(v)          ((unsigned long long)(v))
#define LL(v)           ((long long)(v))

#endif
