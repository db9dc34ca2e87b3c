/* hold.c: a log held still for a backup, and one that begins anew for a restore. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "log/inside.h"

/* ---- hold ---- */

/* Under the mutex: the sealed segments, and the one that was synced last as far as it was. While a
 * commit changes to a new segment, the one before it may be in `sealed` already. */
static size_t all_segments(const Log *log, Sealed *ret)
{
    size_t n = 0;
    while (n < log->sealed_len && log->sealed[n].head.number < log->synced_head.number) n++;
    memcpy(ret, log->sealed, n * sizeof *ret);
    ret[n++] = (Sealed){.head = log->synced_head, .end = log->synced_end, .size = log->synced_end};
    return n;
}

/* The first segment that a replay from covers (next_seq 1: from the first record) needs; n: there
 * is none. */
static size_t base_of(const Sealed *s, size_t n, const LogPoint *covers)
{
    size_t base = n;
    for (size_t i = 0; i < n; i++) {
        if (s[i].head_err) continue;
        if (covers->next_seq > 1 ? s[i].head.start.next_seq <= covers->next_seq
                                 : s[i].head.prev_generation == 0)
            base = i;
    }
    for (size_t i = base; i < n; i++)
        if (s[i].head_err) return n;
    return base;
}

int log_hold(Log *log, LogHold **ret, Buf *why)
{
    CHECK(log->started);
    LogHold *h = mem_new(sizeof *h);
    h->log = log;
    pthread_mutex_lock(&log->mutex);
    Sealed *segments = mem_new((log->sealed_len + 1) * sizeof *segments);
    SnapshotFile snapshot = {.covers = {.shard = log->options.shard, .next_seq = 1}};
    for (size_t i = log->snapshots_len; i-- > 0;)
        if (!log->snapshots[i].bad) snapshot = log->snapshots[i];
    size_t n = all_segments(log, segments);
    h->last_seq = log->synced_seq;
    log->holds++;
    pthread_mutex_unlock(&log->mutex);

    size_t base = base_of(segments, n, &snapshot.covers);
    h->segments_len = n - base;
    memmove(segments, segments + base, h->segments_len * sizeof *segments);
    h->segments = segments;
    h->covers = snapshot.covers;
    h->parts = mem_new((h->segments_len + 1) * sizeof *h->parts);
    if (snapshot.covers.next_seq > 1) {
        LogPart *p = &h->parts[h->parts_len++];
        snapshot_name(p->name, snapshot.covers.next_seq);
        p->bytes = snapshot.bytes;
    }
    for (size_t i = 0; i < h->segments_len; i++) {
        LogPart *p = &h->parts[h->parts_len++];
        segment_name(p->name, segments[i].head.number);
        p->bytes = segments[i].end;
    }
    if (!h->segments_len) {
        buf_puts(why, "a segment of the log could not be read when the server started; see "
                      "`headrace log verify DIR`");
        log_release(h);
        return ERR_CORRUPT;
    }
    *ret = h;
    return 0;
}

int log_hold_check(const LogHold *h, Buf *why)
{
    static const LogReplay nobody;
    Disk *disk = h->log->disk;
    bool from_snapshot = h->covers.next_seq > 1;
    if (from_snapshot) {
        LogPoint covers;
        uint64_t bytes, bad_at = 0;
        const char *what = "it cannot be read";
        int err = snapshot_read(disk, h->parts[0].name, NULL, &covers, &bytes, &bad_at, &what);
        if (!err && bytes != h->parts[0].bytes) err = ERR_CORRUPT;
        if (err) {
            buf_printf(why, "%s, byte %" PRIu64 ": %s", h->parts[0].name, bad_at,
                       err == ERR_CORRUPT ? what : err_text(err));
            return err;
        }
    }
    LogPoint at;
    TailFound tail;
    int err = log_play(disk, h->segments, h->segments_len, from_snapshot ? &h->covers : NULL,
                       &nobody, &at, &tail, why);
    if (!err && at.next_seq - 1 != h->last_seq) {
        buf_puts(why, "the log does not end where it was written to");
        err = ERR_CORRUPT;
    }
    return err;
}

void log_release(LogHold *h)
{
    if (!h) return;
    pthread_mutex_lock(&h->log->mutex);
    CHECK(h->log->holds > 0);
    h->log->holds--;
    pthread_mutex_unlock(&h->log->mutex);
    mem_free(h->parts);
    mem_free(h->segments);
    mem_free(h);
}

/* ---- begin anew ---- */

static int remove_others(Log *log, const LogNames *names)
{
    const DiskOps *ops = log->disk->ops;
    char name[LOG_NAME_LEN];
    int err = 0;
    for (size_t i = 0; i < names->segments_len && !err; i++) {
        segment_name(name, names->segments[i]);
        err = ops->unlink(log->disk, name);
    }
    for (size_t i = 0; i < names->snapshots_len && !err; i++) {
        snapshot_name(name, names->snapshots[i]);
        err = ops->unlink(log->disk, name);
    }
    for (size_t i = 0; i < names->spares_len && !err; i++)
        err = ops->unlink(log->disk, names->spares[i]);
    return err;
}

/* The empty segment behind the last one: its head says that there was something before it, so that
 * without the snapshot nobody takes it for a log's beginning. */
static int put_segment(Log *log, const SegmentHead *last, const LogPoint *at)
{
    Spare spare;
    SegmentHead h = {.number = last->number + 1,
                     .generation = log_next_generation(log),
                     .prev_generation = last->generation,
                     .prev_end = SEGMENT_HEAD_LEN,
                     .start = *at};
    int err = log_new_spare(log, &spare);
    if (err) return err;
    err = spare.file->ops->allocate(spare.file, 0, SEGMENT_BYTES_MIN);
    if (!err) err = log_install(log, &spare, &h);
    spare.file->ops->close(spare.file);
    return err;
}

int log_begin_at(Log *log, const LogPoint *at, int (*fill)(void *ctx, LogSnapshot *s), void *ctx,
                 Buf *why)
{
    CHECK(!log->started && log->sealed_len > 0);
    SegmentHead last = log->sealed[log->sealed_len - 1].head;
    LogNames names;
    LogSnapshot *s;
    int err = log_names(log->disk, &names);
    if (err) goto out;
    log->started = true; /* as far as a snapshot is concerned */
    log->holds++;
    atomic_store(&log->durable_seq, at->next_seq - 1);
    err = log_snapshot_begin(log, at, &s);
    if (!err) {
        err = fill(ctx, s);
        if (!err)
            err = log_snapshot_commit(s);
        else
            log_snapshot_abandon(s);
    }
    log->holds--;
    log->started = false;
    if (!err) err = put_segment(log, &last, at);
    if (!err) err = remove_others(log, &names);
    if (!err) err = log->disk->ops->sync_dir(log->disk, "log");
    log_names_done(&names);
out:
    if (err) buf_printf(why, "log: %s", err_text(err));
    return err;
}
