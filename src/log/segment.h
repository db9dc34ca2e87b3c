/* segment.h: private to src/log: the bytes of segment files, written and read. */
#ifndef LOG_SEGMENT_H
#define LOG_SEGMENT_H

#include "base/base.h"
#include "io/disk.h"
#include "log/log.h"
#include "wire/frame.h"

#define SEGMENT_VERSION  1
#define SECTOR           512 /* what a disk writes wholly or not at all */
#define SEGMENT_HEAD_LEN SECTOR
#define GROUP_HEAD_LEN   48
#define ENTRY_HEAD_LEN   8
/* A group's frames with their heads: the open group's limit, and one largest frame more. */
#define GROUP_BODY_MAX (LOG_GROUP_MAX + FRAME_LEN_MAX + ENTRY_HEAD_LEN)
#define LOG_NAME_LEN   32 /* "log/0000000001.seg" and its like, NUL included */

typedef struct {
    uint64_t number; /* place in the log and name of the file; the first is 1 */
    uint64_t
        generation; /* of this use of the file: counter << 32 | chance; grows, never comes again */
    uint64_t prev_generation; /* of the segment before; 0 = this is the first */
    uint64_t prev_end;        /* where the segment before ended: below it every byte was durable */
    LogPoint start;           /* where the log stood when this segment began */
} SegmentHead;

void segment_name(char ret[LOG_NAME_LEN], uint64_t number);
bool segment_number(const char *file_name,
                    uint64_t *ret); /* of "0000000001.seg", without the folder */

void segment_head_put(uint8_t ret[SEGMENT_HEAD_LEN], const SegmentHead *h);
/* ERR_CORRUPT, ERR_UNSUPPORTED (newer format). */
int segment_head_get(const uint8_t p[SEGMENT_HEAD_LEN], SegmentHead *ret) HR_MUST_CHECK;
/* Opens and reads the head; *ret_size (may be NULL) is the file's. Also ERR_IO and the like. */
int segment_head_load(Disk *d, const char *name, SegmentHead *ret,
                      uint64_t *ret_size) HR_MUST_CHECK;

typedef struct {
    uint32_t frames;
    uint32_t body_len; /* entries: each a head of 8 bytes and a frame */
    uint64_t generation, position;
    uint64_t synced_generation,
        synced_position; /* proven: all below was durable when this was written */
} GroupHead;

/* Bytes that a group takes in the file: head, body, zeroes up to the sector's end. */
static inline uint64_t group_len(uint64_t body_len)
{
    return (GROUP_HEAD_LEN + body_len + SECTOR - 1) / SECTOR * SECTOR;
}

void group_head_put(uint8_t ret[GROUP_HEAD_LEN], const GroupHead *h);
bool group_head_get(const uint8_t p[GROUP_HEAD_LEN],
                    GroupHead *ret); /* magic, CRC and lengths fit */

/* The CRC of an entry: over its place, so that bytes of another use of the file, or at another
 * place, never check. */
uint32_t entry_crc(uint64_t generation, uint64_t position, const uint8_t *frame, uint32_t len);

/* ---- reading ---- */

typedef struct {
    bool is_group;
    uint64_t offset; /* of the group's head, or of the entry */
    GroupHead group; /* when is_group */
    Str frame;       /* when not; borrowed until the next call */
} SegmentItem;

typedef struct {
    DiskFile *file;
    SegmentHead head;
    bool sealed;  /* a next segment proves everything below `end` */
    uint64_t end; /* sealed: where the log left it; else the file's size */

    uint64_t at; /* what is read next: a group's head or an entry */
    uint64_t group_at,
        group_end;          /* of the current group's entries; group_end = 0: between groups */
    uint64_t last_group_at; /* the last group that began well; 0 = none */
    uint32_t entries_left;

    uint8_t *window; /* file bytes [window_at, window_at + window_len) */
    size_t window_cap, window_len;
    uint64_t window_at;

    /* After the end (0): the unproven bytes that looked like a group and did not check. */
    uint64_t torn_bytes;
    /* After ERR_CORRUPT. */
    uint64_t bad_at;
    const char *bad_what;
} SegmentReader;

/* Opens name and reads its head. sealed_end: 0 when this is the log's last segment. */
int segment_reader_open(SegmentReader *r, Disk *d, const char *name,
                        uint64_t sealed_end) HR_MUST_CHECK;
/* 1: an item. 0: the end; r->at is where the good bytes end. ERR_CORRUPT: see bad_at and bad_what;
 * the same when called again. ERR_IO. */
int segment_reader_next(SegmentReader *r, SegmentItem *ret) HR_MUST_CHECK;
void segment_reader_done(SegmentReader *r); /* accepts a zeroed one */

#endif
