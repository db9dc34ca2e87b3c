/* frame.h: one decision as bytes. A frame holds one or more records and is applied wholly or not at
 * all.
 *
 *     frame = head (64 bytes) | meta | payload          all integers little-endian
 *     head:     0 u16 version     2 u16 flags      4 u32 records
 *               8 u32 meta_len   12 u32 payload_len
 *              16 u32 shard      20 u32 zero
 *              24 u64 epoch      32 u64 holder
 *              40 u64 seq (of the first record)
 *              48 u64 prev (hash chain)
 *              56 i64 time_ns (shard time)
 *     meta:    records, each  u8 type | u8 version | u16 zero | u32 len | len bytes
 *     payload: the bytes of inputs and outputs; records in meta refer to them by offset, length
 *              and digest
 *
 * The chain hash of a frame covers head and meta (flags as 0), not the payload: so a payload can be
 * erased (zeroed, flag FRAME_ERASED) without breaking the chain. Damage is found by the log's CRC,
 * which covers all of it. */
#ifndef WIRE_FRAME_H
#define WIRE_FRAME_H

#include "base/base.h"

#define FRAME_VERSION      1
#define FRAME_HEAD_LEN     64
#define FRAME_LEN_MAX      (16 * MIB) /* room for many records of at most 64 KiB inline */
#define FRAME_ERASED       0x1
#define FRAME_RECORD_CLAIM 1 /* the one record type that the log itself knows */

/* Where a shard's log stands: what the next frame must carry to count. */
typedef struct {
    uint32_t shard;
    uint64_t epoch;    /* of the current claim; 0 before the first */
    uint64_t holder;   /* random number of the process that claimed */
    uint64_t next_seq; /* sequence of the next record; the first is 1 */
    uint64_t chain;    /* hash of the last frame that counted */
    int64_t time_ns;   /* shard time of the last frame that counted */
} LogPoint;

typedef struct {
    uint16_t version, flags;
    uint32_t records;
    uint32_t shard;
    uint64_t epoch, holder, seq, prev;
    int64_t time_ns;
    Str meta, payload; /* borrowed from the bytes read */
} Frame;

/* Checks lengths only (not fences, not records). ERR_INVALID, ERR_UNSUPPORTED (version), ERR_LIMIT.
 * *ret_len: bytes used. */
int frame_read(Str bytes, Frame *ret, size_t *ret_len) HR_MUST_CHECK;

/* Is its first record a CLAIM? */
bool frame_is_claim(const Frame *f);

/* The chain value after this frame (whose lengths were checked). */
uint64_t frame_chain(const uint8_t *frame, size_t len);

/* Does the frame count at `at`? Its claim is current, its sequence the next, its chain fits, its
 * time does not step back. A frame whose first record is a CLAIM counts when its epoch is higher
 * than the current one (is_claim). Every reader ignores a frame that does not count. On true *at
 * moves behind it. */
bool frame_counts(const Frame *f, bool is_claim, const uint8_t *bytes, size_t len, LogPoint *at);

/* ---- building ---- */

typedef struct {
    Buf meta, payload;
    uint32_t records;
    size_t begun; /* where the open record begins in meta; valid while open */
    bool open;
} FrameBuilder; /* all zeros: empty and valid */

void frame_reset(FrameBuilder *b);
void frame_done(FrameBuilder *b);
/* Starts a record; its bytes are then appended to b->meta; frame_end_record closes it. */
void frame_begin_record(FrameBuilder *b, uint8_t type, uint8_t version);
void frame_end_record(FrameBuilder *b);
/* Appends head | meta | payload to out, with the place `at`, and moves *at behind it. For a CLAIM
 * the caller has put the new epoch and holder into *at. time_ns is at least at->time_ns; at least
 * one record; at most FRAME_LEN_MAX bytes. */
void frame_seal(const FrameBuilder *b, int64_t time_ns, LogPoint *at, Buf *out);

typedef struct {
    uint8_t type, version;
    uint64_t seq; /* of this record */
    Str body;     /* borrowed */
} Record;

/* Walks the records: *at starts at 0. 1 = a record, 0 = the end, ERR_INVALID. */
int frame_next_record(const Frame *f, size_t *at, uint32_t *index, Record *ret) HR_MUST_CHECK;

#endif
