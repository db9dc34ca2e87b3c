/* inside.h: private to src/log: what an open log is made of. */
#ifndef LOG_INSIDE_H
#define LOG_INSIDE_H

#include <pthread.h>
#include <stdatomic.h>

#include "log/log.h"
#include "log/segment.h"

#define SEGMENT_BYTES_DEFAULT (64 * MIB)
#define SEGMENT_BYTES_MIN     (4 * KIB)
#define SPARES_MAX            2 /* recycled files kept beyond what the reserve needs */
/* Kept free of all but claims: a start on a full disk takes it for a new segment's head and the
 * claim in it, of which START_ROOM is the least. */
#define RESTART_ROOM (8 * KIB)
#define START_ROOM   (4 * KIB)
/* A snapshot is due then, however small they are: each restart seals one. */
#define SEALED_MANY   64
#define ROOM_RETRY_NS NS_PER_S         /* after a full disk: how often to ask again */
#define IDLE_PROOF_NS (50 * NS_PER_MS) /* the unproven tail is never older than this */

/* A segment that is no longer written. */
typedef struct {
    SegmentHead head;
    uint64_t
        end; /* where its successor says it ended; 0: the last one, of a log not yet recovered */
    uint64_t size; /* of the file */
    int head_err;  /* the head did not check: only `head.number` is known (from the name) */
} Sealed;

typedef struct {
    DiskFile *file;
    char name[LOG_NAME_LEN];
    uint64_t room; /* bytes from the file's start that are allocated */
} Spare;

typedef struct {
    LogPoint covers;
    uint64_t bytes;
    bool bad; /* it did not check */
} SnapshotFile;

struct Log {
    Disk *disk;
    LogOptions options;
    DiskFile *lock;
    uint64_t step; /* how much is allocated at once */

    pthread_mutex_t mutex; /* guards what follows, down to the next heading */
    bool started;          /* replayed: there is a live segment */
    bool failed;           /* a commit failed: for good */

    Buf open; /* the open group: head (unset), entries (CRC unset); empty = no frame yet */
    uint32_t open_frames;
    LogPoint open_start, appended; /* where the log stands before and behind the open group */

    DiskFile *live;
    SegmentHead live_head;
    uint64_t tail;      /* where the next group goes; the group in flight lies below */
    uint64_t live_room; /* bytes of the live file that are allocated */
    /* The last group that was synced ends there: behind the live segment's begin, or still in the
     * one before it. Set before durable_seq says so. */
    SegmentHead synced_head;
    uint64_t synced_end, synced_seq;
    uint32_t holds;   /* of LogHold: while there are any, no segment and no snapshot goes */
    bool tail_proven; /* the last group written is empty: nothing is left to prove */
    Spare *spares;    /* owned; any order */
    size_t spares_len;

    Sealed *sealed; /* oldest first; from log_open to the end of log_replay it includes the last */
    size_t sealed_len;
    SnapshotFile *snapshots; /* newest first */
    size_t snapshots_len;

    uint64_t need;       /* a group this large was refused for want of room; 0 = none */
    bool no_space;       /* the last attempt to allocate met a full disk… */
    int64_t no_space_ns; /* …at this time */
    LogStats stats;
    LogThread *thread; /* told when room is needed; NULL when there is none */

    /* Of the committing thread. */
    Buf flight;
    uint64_t generation;   /* the last one given */
    uint64_t spare_number; /* the last one given */
    uint64_t group_last;   /* bytes of the last group */
    Random random;

    /* Of the thread that opens and replays. */
    uint64_t torn_bytes;
    size_t base; /* in sealed: the first segment that a replay needs */

    _Atomic uint64_t durable_seq;
};

/* ---- log.c ---- */
uint64_t log_next_generation(Log *log);
/* Gets room ahead of the tail, in steps; a full disk is noted, not returned. ERR_IO: fatal. */
int log_make_room(Log *log) HR_MUST_CHECK;
int log_commit_group(Log *log, uint64_t *ret_seq) HR_MUST_CHECK; /* without the room */
int log_fail(Log *log, int err);                                 /* for good; gives err back */
int log_new_spare(Log *log, Spare *ret) HR_MUST_CHECK;
void log_add_spare(Log *log, const Spare *s); /* takes it; under the mutex */
/* Makes spare the segment h->number: head, sync, rename, directory sync (I1). */
int log_install(Log *log, Spare *spare, const SegmentHead *h) HR_MUST_CHECK;
bool log_wants_spare(const Log *log); /* is a file worth keeping? Under the mutex */
bool log_unproven(Log *log);

/* ---- recover.c ---- */
/* Plays segments[0 … n) from their start; frames at or above `covers` (NULL: all) go to r. The
 * point reached goes to *at; last (may be NULL) gets the state of the last segment's reader at its
 * end. */
typedef struct {
    uint64_t end, last_group_at, torn_bytes;
    bool has_frames;
} TailFound;
int log_play(Disk *disk, const Sealed *segments, size_t n, const LogPoint *covers,
             const LogReplay *r, LogPoint *at, TailFound *last, Buf *why) HR_MUST_CHECK;
void log_why(Buf *why, const char *file, uint64_t offset, const char *what);

/* ---- snapshot.c ---- */
void snapshot_name(char ret[LOG_NAME_LEN], uint64_t next_seq);
bool snapshot_number(const char *file_name, uint64_t *ret_next_seq);
/* Reads all of it. r may be NULL: only checks. ERR_CORRUPT with *ret_bad_at and *ret_what. */
int snapshot_read(Disk *d, const char *name, const LogReplay *r, LogPoint *ret_covers,
                  uint64_t *ret_bytes, uint64_t *ret_bad_at, const char **ret_what) HR_MUST_CHECK;

/* ---- names.c: what lies in "log/" ---- */
typedef struct {
    uint64_t *segments, *snapshots; /* numbers, ascending */
    size_t segments_len, snapshots_len;
    char (*spares)[LOG_NAME_LEN]; /* names with the folder, ascending */
    size_t spares_len;
    char (*leftovers)[LOG_NAME_LEN]; /* unfinished snapshots */
    size_t leftovers_len;
} LogNames;
int log_names(Disk *d, LogNames *ret) HR_MUST_CHECK;
void log_names_done(LogNames *n);
/* The file "format" in the root: makes it (make) or checks it. */
int log_format_check(Disk *d, bool make, bool has_data, Buf *why) HR_MUST_CHECK;

#endif
