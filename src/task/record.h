/* record.h: the records of a shard's log as structs. One function a record (in record.c) both
 * writes and reads it, so that the two cannot drift. Strings and payloads of a record that was read
 * are borrowed from the frame.
 *
 * A record's version grows when its fields change; a reader knows the versions up to its own and
 * stops at a newer one. */
#ifndef TASK_RECORD_H
#define TASK_RECORD_H

#include "base/base.h"
#include "task/task.h"
#include "wire/frame.h"

typedef enum {
    REC_CLAIM = 1,
    REC_SUBMIT,
    REC_LEASE,
    REC_FINISH,  /* succeeded or failed: the first terminal record wins */
    REC_REQUEUE, /* a lease ended without a result; the task waits again */
    REC_CANCEL,
    REC_EXPIRE,
    REC_SLOT_FREE, /* the lease of a task that was canceled or expired meanwhile */
    REC_EVICT,     /* a finished task leaves memory */
    REC_FORGET,    /* input and output are deleted, of a task that may have left memory */
    REC_FILE_PUT,
    REC_FILE_DELETE,
    REC_IDEM_EXPIRE, /* watermark: keys accepted before it, of tasks that are terminal */
    REC_MODEL,
    REC_FLAG,
    REC_CHECKPOINT,
    REC_HISTORY, /* what settled up to a sequence is in the history view, and leaves memory */
    REC_TYPES
} RecordType;
#define RECORD_VERSION 1

/* A payload inside a record: where it lies in the frame's payload section, and what it must be. */
typedef struct {
    Str bytes; /* borrowed */
    Digest128 digest;
    bool erased; /* reading: the payload section was wiped; len is known, bytes are not */
    uint32_t len;
} PayloadRef;

typedef struct {
    const uint64_t *at; /* writing */
    Str raw;            /* reading: len * 8 bytes, unaligned */
    uint32_t len;
} NumberList;

typedef struct {
    uint64_t epoch, holder;
    Str address;
    Str id_key;             /* 16 bytes on the first claim of a shard, else empty */
    uint32_t feature_level; /* every node knows the records up to this level */
} RecClaim;

typedef struct {
    uint64_t no;
    Str tenant, model, version;
    uint8_t class, max_attempts;
    int64_t not_before_ns, deadline_ns; /* absolute; 0 = none */
    uint32_t retention_s;
    Str metadata, traceparent, retry_of;
    uint64_t rollout; /* assignment; 0 until rollouts exist */
    uint8_t rollout_arm;
    Str webhook; /* JSON; empty until delivery exists */
    uint8_t has_key;
    Digest128 key, body; /* idempotency: hash of (tenant, key), digest of route and body */
    NumberList files;
    PayloadRef input;
} RecSubmit;

typedef struct {
    uint64_t no, batch;
    Str worker;
    uint32_t device, batch_size;
} RecLease;

typedef struct {
    uint64_t no, token;
    uint8_t ok, fail, retryable, burn;
    Str message;
    int64_t device_ns, run_ns; /* usage: charged with this lease's end, once */
    NumberList files;
    PayloadRef output;
} RecFinish;

typedef struct {
    uint64_t no, token;
    uint8_t fail, burn, loss; /* loss: counts as the platform's failure */
    Str message;
    int64_t not_before_ns, device_ns, run_ns;
} RecRequeue;

typedef struct {
    uint64_t no;
} RecTask; /* CANCEL, EXPIRE, EVICT, FORGET */

typedef struct {
    uint64_t no, token;
    int64_t device_ns, run_ns;
} RecSlotFree;

typedef struct {
    uint64_t no;
    Str id, tenant, name, content_type, sha256 /* 32 bytes */;
    uint64_t size, owner_task;
    int64_t expires_ns;
} RecFilePut;

typedef struct {
    uint64_t no;
} RecFileDelete;

typedef struct {
    int64_t before_ns;
} RecIdemExpire;

typedef struct {
    Str name, version, digest /* 32 bytes */, info;
} RecModel;

typedef struct {
    Str kind, subject;
    uint8_t on;
} RecFlag;

typedef struct {
    uint64_t no, token, unit, file;
} RecCheckpoint;

typedef struct {
    uint64_t settled_seq;
} RecHistory;

typedef union {
    RecClaim claim;
    RecSubmit submit;
    RecLease lease;
    RecFinish finish;
    RecRequeue requeue;
    RecTask task;
    RecSlotFree slot_free;
    RecFilePut file_put;
    RecFileDelete file_delete;
    RecIdemExpire idem_expire;
    RecModel model;
    RecFlag flag;
    RecCheckpoint checkpoint;
    RecHistory history;
} RecordData;

/* Writes one record of this type into the builder. Payload bytes are copied, their digest is
 * computed here. */
void record_put(FrameBuilder *b, RecordType type, RecordData *data);

/* Reads one. ERR_UNSUPPORTED: a type or version this build does not know; ERR_INVALID: it breaks
 * its format. */
int record_get(const Frame *f, const Record *r, RecordData *ret) HR_MUST_CHECK;

uint64_t number_list_at(const NumberList *l, uint32_t i);

const char *record_type_name(uint8_t type); /* "submit"; "unknown" */
/* Appends what the record says, for people, without its name (no newline); returns the name. */
const char *record_describe(const Frame *f, const Record *r, Buf *ret);

#endif
