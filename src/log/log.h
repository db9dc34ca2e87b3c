/* log.h: the durable log of one shard: open, replay, claim, append, commit, snapshot. This is the
 * interface every backend offers; segment files (segment.c) are the first.
 *
 * Appending and committing are apart: the shard's thread appends frames to the open group (memory
 * only); the log's thread (log_thread.c), or the simulator, commits the group: one write, one
 * fdatasync. No effect may leave before the commit that covers its record has returned 0. */
#ifndef LOG_LOG_H
#define LOG_LOG_H

#include "base/base.h"
#include "io/clock.h"
#include "io/disk.h"
#include "wire/frame.h"

typedef struct Log Log;

typedef struct {
    uint32_t shard;
    uint64_t segment_bytes; /* default 64 MiB; tiny in tests (≥ 4 KiB) */
    uint64_t reserve_bytes; /* kept free for results, cancels and releases when the disk fills;
                               default ¼ segment */
    Clock *clock;           /* NULL: the real one */
    uint64_t seed; /* of the chance in generations; 0: the kernel's. A simulation gives one */
} LogOptions;      /* all zeros: the defaults */

/* Opens (makes when empty) the log below disk's "log/" and takes its lock file. Finds and checks
 * segments and the newest valid snapshot. why: on failure text for people: file, offset, what is
 * wrong, how to go on. ERR_LOCKED, ERR_CORRUPT (a bad frame below a proven synced position:
 * acknowledged data is damaged), ERR_UNSUPPORTED (newer format), ERR_READONLY, ERR_NOSPC, ERR_IO.
 */
int log_open(Disk *disk, const LogOptions *options, Log **ret, Buf *why) HR_MUST_CHECK;
void log_close(Log *log); /* the commit thread must have ended; accepts NULL */

/* Replay, once, before the first append: the snapshot's bytes in pieces (if there is one), then
 * every frame that follows it in order (those that do not count are left out; the torn tail is cut
 * off and reported by log_torn_bytes). A callback that returns an error stops the replay with it.
 * *at: where the log stands at the end. */
typedef struct {
    void *ctx;
    int (*snapshot)(void *ctx, const LogPoint *covers, Str piece); /* an empty piece ends it */
    int (*frame)(void *ctx, const Frame *f, Str bytes);
} LogReplay;
int log_replay(Log *log, const LogReplay *r, LogPoint *ret_at, Buf *why) HR_MUST_CHECK;
uint64_t log_torn_bytes(const Log *log);

/* Replays as far back as the log reaches: from its first record, else from the oldest snapshot from
 * which all is whole, to the end. *ret_from: what the replay began with (next_seq 1: everything).
 * Instead of log_replay, on a log that was opened and not replayed; changes nothing. What had to be
 * passed over is told to why, also on success. Everything is read twice. */
int log_replay_retained(Log *log, const LogReplay *r, LogPoint *ret_from, LogPoint *ret_at,
                        Buf *why) HR_MUST_CHECK;

/* ---- the shard's thread ---- */

/* Adds a sealed frame to the open group (copied). last_seq: of its last record. All but 0: nothing
 * was appended. ERR_NOSPC: the disk is full, and was so at the last attempt, at most 1 s ago
 * (`reserved` frames may use the reserved room). ERR_AGAIN: the open group is full (LOG_GROUP_MAX),
 * or room must be allocated first: the next commit does that, and log_has_pending says that it is
 * wanted (a commit thread is woken); append again after it. ERR_CLOSED: the log has failed.
 * ERR_INVALID: the frame would not count at its place (our mistake: it must never be acknowledged).
 * Also frame_read's errors. */
#define LOG_GROUP_MAX (32 * MIB)
int log_append(Log *log, Str frame, uint64_t last_seq, bool reserved) HR_MUST_CHECK;
bool log_has_pending(
    const Log *log); /* appended and not yet taken by a commit, or room is wanted */
uint64_t log_appended_seq(const Log *log);

/* ---- the committing thread: at most one call at a time ---- */

/* Writes and syncs the group that is open now (frames appended meanwhile go into the next one). 0:
 * *ret_seq is durable. A full disk cannot be met here (room is taken at append; but for filesystems
 * that copy on write). Any error is fatal: the log answers everything with ERR_CLOSED from then on,
 * and the process must stop being the leader; what was in the group is of unknown outcome. Without
 * pending frames it writes one empty group, which proves the tail durable, unless the last group
 * was empty already: so call it again when idle for 50 ms (LogThread does). Then it allocates room
 * ahead. */
int log_commit(Log *log, uint64_t *ret_seq) HR_MUST_CHECK;

/* Any thread. */
uint64_t log_durable_seq(const Log *log);

typedef struct {
    uint64_t segments, bytes; /* on disk */
    uint64_t commits, committed_frames, committed_bytes;
    int64_t commit_ns_last, commit_ns_sum;
    uint64_t snapshot_seq; /* covers every record below; 0 = none */
} LogStats;
void log_stats(const Log *log, LogStats *ret);

/* ---- the commit thread: group commit with a queue of one ---- */

typedef struct LogThread LogThread;
/* on_durable(ctx, seq) and on_failed(ctx, err) are called on the commit thread: they only wake the
 * shard's loop. */
int log_thread_start(Log *log, void (*on_durable)(void *ctx, uint64_t seq),
                     void (*on_failed)(void *ctx, int err), void *ctx,
                     LogThread **ret) HR_MUST_CHECK;
void log_thread_wake(LogThread *t); /* something was appended */
void log_thread_stop(
    LogThread *t); /* commits what is pending, then ends the thread; accepts NULL */

/* ---- snapshots: a background thread folds the previous one and the sealed segments into a new one
 * ---- */

/* Is it worth while? True when sealed segments not covered by the newest snapshot hold at least
 * min_bytes and as much as that snapshot (so what is written stays below twice what came), or are
 * 64 or more (each start of the process seals one, however small). */
bool log_snapshot_due(const Log *log, uint64_t min_bytes);

/* Replays, on the calling (background) thread, the newest snapshot and then every sealed segment,
 * never the live one; ret_at: where that ends. Safe beside appends and commits. */
int log_replay_sealed(Log *log, const LogReplay *r, LogPoint *ret_at, Buf *why) HR_MUST_CHECK;

typedef struct LogSnapshot LogSnapshot;
int log_snapshot_begin(Log *log, const LogPoint *covers, LogSnapshot **ret) HR_MUST_CHECK;
int log_snapshot_put(LogSnapshot *s, Str piece) HR_MUST_CHECK;
/* Piece boundaries are not kept: a replay gives the same bytes in pieces of at most 64 KiB. An
 * error stays: log_snapshot_put and commit give it again. */
/* Durable (fsync, read again and checked, rename, directory fsync); then all but the two newest
 * snapshots go, and the segments that a replay from the older of them does not need are recycled:
 * one damaged snapshot costs time, not data. Before there are two, no segment goes. Frees s, also
 * on failure. */
int log_snapshot_commit(LogSnapshot *s) HR_MUST_CHECK;
void log_snapshot_abandon(LogSnapshot *s);

/* ---- for a backup ---- */

typedef struct {
    char name[32];  /* below the disk: "log/0000000001.seg" */
    uint64_t bytes; /* those that count, all of them durable; what follows them does not */
} LogPart;

/* What a replay up to some durable record needs, held still: none of it is removed or used again
 * until the hold is let go. New records and snapshots come as ever. */
typedef struct {
    uint64_t last_seq; /* the last record in it; everything that log_durable_seq said is in it */
    LogPart *parts;    /* the newest snapshot, if there is one, then segments in order */
    size_t parts_len;
    /* private */
    Log *log;
    LogPoint covers;
    void *segments;
    size_t segments_len;
} LogHold;
/* Any thread, once the log is replayed. Allocates and copies a few words: never waits for a disk.
 * ERR_CORRUPT: a head in it could not be read at the start. */
int log_hold(Log *log, LogHold **ret, Buf *why) HR_MUST_CHECK;
/* Reads all of it and checks it as a start would. Any thread, beside appends and commits. */
int log_hold_check(const LogHold *h, Buf *why) HR_MUST_CHECK;
void log_release(LogHold *h); /* accepts NULL */

/* Makes a log that begins at `at`: a snapshot of all before it, which fill writes by
 * log_snapshot_put, and an empty segment; whatever there was is removed. For a restore: on a log
 * that was opened and read by log_replay_retained, and is closed next. No crash safety: a crash
 * leaves neither the old nor the new log. */
int log_begin_at(Log *log, const LogPoint *at, int (*fill)(void *ctx, LogSnapshot *s), void *ctx,
                 Buf *why) HR_MUST_CHECK;

/* ---- for `headrace log`: read-only, no lock taken, works on a copy of a data directory ---- */

typedef struct {
    void *ctx;
    /* One line of text a segment, snapshot, group or frame; frame is NULL but for frames. */
    void (*item)(void *ctx, const char *file, uint64_t offset, const char *what,
                 const Frame *frame);
    void (*fault)(void *ctx, const char *file, uint64_t offset, bool acknowledged,
                  const char *what);
} LogScan;
/* Reads everything; 0 = no fault below a synced position (a torn tail above it is reported with
 * acknowledged = false); ERR_CORRUPT. */
int log_scan(Disk *disk, const LogScan *scan) HR_MUST_CHECK;

#endif
