/* model_inside.h: what the model is made of. All arrays of plain values, so that a state is copied
 * by copying arrays. */
#ifndef SIM_MODEL_INSIDE_H
#define SIM_MODEL_INSIDE_H

#include "sim/arrays.h"
#include "sim/model.h"
#include "task/record.h"

typedef uint32_t Name; /* of a text that the model has seen: index into Model.names; 0: empty */

typedef struct {
    uint64_t created_seq, last_seq, settled_seq;
    uint64_t created_epoch;
    int64_t created_ns, not_before_ns, deadline_ns;
    int64_t started_ns, first_started_ns, finished_ns;
    uint64_t token, ended_token; /* of the live lease, 0: none; of the last one that ended */
    uint64_t batch;
    int64_t device_ns, run_ns;
    uint32_t leases, lease_ends; /* given, and ended on record: one charge each */
    uint32_t batch_size, device, retention_s;
    Name tenant, model, version, worker;
    Digest128 input, output, metadata, traceparent, retry_of, message;
    uint32_t input_len, output_len;
    uint64_t unit, unit_file;                /* checkpoint */
    uint32_t in_at, in_len, out_at, out_len; /* files: in State.numbers */
    uint16_t losses;
    uint8_t state, class, max_attempts, attempt, burned, fail;
    bool retryable, solo;
    bool here;                      /* in the core's memory */
    bool forgotten;                 /* input and output were deleted */
    uint32_t events;                /* since the first lease */
    uint8_t event_kind, event_fail; /* of the last */

    /* volatile */
    int64_t lease_until_ns;
    bool holder_gone;
    uint32_t leased_at; /* place in State.leased */
} ModelTask;

typedef struct {
    Digest128 key, body;
    uint64_t no;
    Name tenant;
    int64_t created_ns;
    uint32_t next; /* in its bucket: 1 + index; 0: the end */
    bool live;
} ModelKey;

typedef struct {
    Name id, tenant, name, content_type;
    uint64_t size, owner_task;
    Sha256 sha256;
    int64_t created_ns, expires_ns;
    uint32_t refs;     /* tasks in memory that refer to it */
    uint64_t over_seq; /* the record that ended it */
    bool here;
} ModelFile;

typedef struct {
    Name name, version, info;
    Sha256 digest;
} ModelVersion;

typedef struct {
    Name kind, subject;
    bool on;
} ModelFlag;

typedef struct {
    Name name;
    uint64_t states[TASK_STATES]; /* in memory */
    uint64_t submitted, keys;
    int64_t device_ns;
} ModelTenant;

#define KEY_BUCKETS 4096

typedef struct {
    LogPoint at; /* behind the last frame */
    Array tasks, keys, files, versions, flags, tenants, numbers;
    Array leased; /* numbers of the tasks with a live lease, in no order */
    uint32_t key_heads[KEY_BUCKETS];
    uint64_t low;                 /* every task with a smaller number has left memory */
    uint64_t counts[TASK_STATES]; /* in memory */
    uint64_t finished_bytes;
    uint64_t history_seq;
    int64_t idem_before_ns;
} State;

typedef struct {
    uint64_t last_seq;
    size_t begin, len; /* in Model.bytes */
} KeptFrame;

struct Model {
    CoreLimits limits;
    State now;  /* behind all frames */
    State base; /* at some durable place: restarts begin here */
    Array kept; /* KeptFrame: those behind base */
    Buf bytes;
    uint64_t durable_seq;
    uint64_t records[REC_TYPES];
    bool judge_lease_ends;
    bool quiet; /* while it goes again over what was judged */

    Buf name_text; /* names: the texts, one behind another */
    Array names;   /* NameAt */
    Table name_by_text;
};

typedef struct {
    size_t at, len;
} NameAt;

Name model_name(Model *m, Str s);
Name model_name_find(const Model *m, Str s); /* UINT32_MAX: never seen */
Str model_name_text(const Model *m, Name n); /* borrowed until the next model_name */

static inline ModelTask *model_task(const State *s, uint64_t no)
{
    return no && no <= s->tasks.len ? ROW(s->tasks, ModelTask, no - 1) : NULL;
}

static inline ModelFile *model_file(const State *s, uint64_t no)
{
    return no && no <= s->files.len ? ROW(s->files, ModelFile, no - 1) : NULL;
}

ModelTenant *model_tenant(Model *m, Name name); /* of m->now; made when new */
bool model_flag(const State *s, Name kind, Name subject);
uint64_t model_file_refs(const State *s, uint64_t file, bool live_only);

/* Writes the sentence, returns the number. */
int model_bad(const Model *m, Buf *why, int invariant, const char *fmt, ...) HR_PRINTF(4, 5);

/* One record of a frame that counts: judges it by m->now, then changes m->now. */
int model_rule(Model *m, const Frame *f, const Record *r, Buf *why);

#endif
