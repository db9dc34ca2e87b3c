/* recover.c: from files to a log that goes on: open (what is there, is it whole?), replay, and the
 * new live segment. Until the replay has succeeded nothing is changed but the lock, "format" and
 * the folder.
 *
 * What is needed is the newest snapshot that checks and every segment from the one that holds its
 * point to the last. What lies before is kept for the case that this snapshot goes bad (S2), and
 * its bytes are checked by log_scan. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "log/inside.h"

void log_why(Buf *why, const char *file, uint64_t offset, const char *what)
{
    buf_printf(
        why,
        "%s, byte %" PRIu64 ": %s. This was acknowledged, so the log is not opened: nothing may be "
        "lost silently. Restore the data directory from a backup. Or keep a copy of it, and in the "
        "original remove this file and the later .seg files: what they held from that byte on is "
        "then lost. `headrace log verify DIR` shows what is there.",
        file, offset, what);
}

static int system_why(Buf *why, const char *what, int err)
{
    buf_printf(why, "%s: %s", what, err_text(err));
    if (err == ERR_NOSPC)
        buf_puts(why, ". Free some space on the disk of the data directory and start again; "
                      "nothing is lost");
    else if (err == ERR_READONLY)
        buf_puts(why, ". A server writes its log: make the data directory writable, or name "
                      "another with --data");
    else if (err == ERR_PERMISSION)
        buf_puts(why, ". The data directory and all in it must belong to the user who runs the "
                      "server");
    else if (err == ERR_UNSUPPORTED)
        buf_puts(why, ". A newer version of headrace wrote it: run that one, or a newer one");
    return err;
}

static bool point_eq(const LogPoint *a, const LogPoint *b)
{
    return a->shard == b->shard && a->epoch == b->epoch && a->holder == b->holder &&
           a->next_seq == b->next_seq && a->chain == b->chain && a->time_ns == b->time_ns;
}

/* ---- open ---- */

static void lock_why(Disk *d, Buf *why, int err)
{
    if (err != ERR_LOCKED) {
        system_why(why, "lock", err);
        return;
    }
    char pid[24] = {0};
    size_t n = 0;
    DiskFile *f;
    if (d->ops->open(d, "lock", DISK_READ, &f) == 0) {
        if (d->ops->read(f, 0, pid, sizeof pid - 1, &n) != 0) n = 0;
        d->ops->close(f);
    }
    while (n && (pid[n - 1] < '0' || pid[n - 1] > '9')) n--;
    pid[n] = 0;
    buf_printf(
        why,
        "another process uses this data directory (process %s); stop it, or use another directory",
        n ? pid : "number unknown");
}

static int load_heads(Log *log, const LogNames *names, Buf *why)
{
    log->sealed = mem_new(names->segments_len * sizeof *log->sealed);
    log->sealed_len = names->segments_len;
    for (size_t i = 0; i < names->segments_len; i++) {
        Sealed *s = &log->sealed[i];
        char name[LOG_NAME_LEN];
        segment_name(name, names->segments[i]);
        int err = segment_head_load(log->disk, name, &s->head, &s->size);
        if (!err && s->head.number != names->segments[i]) err = ERR_CORRUPT; /* renamed by hand */
        if (err && err != ERR_CORRUPT) return system_why(why, name, err);
        if (err) *s = (Sealed){.head_err = err};
        s->head.number = names->segments[i];
        log->generation = MAX(log->generation, s->head.generation);
        if (i > 0 && !err && s[-1].head.number + 1 == s->head.number) s[-1].end = s->head.prev_end;
    }
    for (size_t i = 0; i < names->spares_len; i++) {
        SegmentHead h;
        uint64_t number;
        if (segment_head_load(log->disk, names->spares[i], &h, NULL) == 0)
            log->generation = MAX(log->generation, h.generation);
        Str digits = {names->spares[i] + 4, strcspn(names->spares[i] + 4, ".")};
        if (parse_u64(digits, &number) == 0) log->spare_number = MAX(log->spare_number, number);
    }
    return 0;
}

/* Sets log->base: the segments from there to the last are whole in number and linked, and hold
 * everything from `covers` (NULL: from the beginning) on. */
static int find_base(Log *log, const LogPoint *covers, Buf *why)
{
    char name[LOG_NAME_LEN];
    size_t base = SIZE_MAX;
    for (size_t i = 0; i < log->sealed_len; i++) {
        const Sealed *s = &log->sealed[i];
        if (s->head_err) continue;
        if (covers ? s->head.start.next_seq <= covers->next_seq : s->head.prev_generation == 0)
            base = i;
    }
    if (base == SIZE_MAX) {
        segment_name(name, log->sealed_len ? log->sealed[0].head.number : 1);
        log_why(why, name, 0,
                covers ? "the segments that follow the snapshot are missing"
                       : "the log's first segments are missing, and no snapshot replaces them");
        return ERR_CORRUPT;
    }
    for (size_t i = base; i < log->sealed_len; i++) {
        const Sealed *s = &log->sealed[i];
        segment_name(name, s->head.number);
        const char *what = NULL;
        if (s->head_err)
            what = "the segment's head does not check";
        else if (i > base && s->head.number != s[-1].head.number + 1)
            what = "the segment before it is missing";
        else if (i > base && (s->head.prev_generation != s[-1].head.generation ||
                              s->head.prev_end < SEGMENT_HEAD_LEN))
            what = "the segment does not belong to the one before it";
        if (what) {
            log_why(why, name, 0, what);
            return ERR_CORRUPT;
        }
        if (s->head.start.shard != log->options.shard) {
            buf_printf(why, "%s: this is the log of shard %u, not %u", name, s->head.start.shard,
                       log->options.shard);
            return ERR_INVALID;
        }
    }
    log->base = base;
    return 0;
}

/* The newest snapshot that checks and can be gone on from. */
static int choose_snapshot(Log *log, const LogNames *names, Buf *why)
{
    Buf faults = {0};
    int err = ERR_NOT_FOUND,
        unread = 0; /* unread: why one could not even be read: weather, not damage */
    log->snapshots = mem_new(names->snapshots_len * sizeof *log->snapshots);
    for (size_t i = names->snapshots_len; i-- > 0;) {
        SnapshotFile *s = &log->snapshots[log->snapshots_len++];
        char name[LOG_NAME_LEN];
        snapshot_name(name, names->snapshots[i]);
        s->covers.next_seq = names->snapshots[i];
        if (err == 0) continue; /* older than the chosen one: checked when it was made */
        uint64_t bad_at = 0;
        const char *what = "";
        LogPoint covers;
        err = snapshot_read(log->disk, name, NULL, &covers, &s->bytes, &bad_at, &what);
        if (!err && covers.next_seq != names->snapshots[i]) {
            what = "the name is not the one it was written under";
            err = ERR_CORRUPT;
        }
        if (err == ERR_UNSUPPORTED) {
            buf_done(&faults);
            return system_why(why, name, err);
        }
        if (err) {
            if (err != ERR_CORRUPT) {
                unread = err;
                what = err_text(err);
            }
            s->bad = true;
            buf_printf(&faults, "%s, byte %" PRIu64 ": %s. ", name, bad_at, what);
            continue;
        }
        s->covers = covers;
        err = find_base(log, &covers, &faults);
        if (err) break; /* an older one would need these segments too */
    }
    if (err == ERR_NOT_FOUND ||
        (err && log->snapshots_len && log->snapshots[log->snapshots_len - 1].bad)) {
        /* No snapshot: from the beginning, when that is still there. */
        if (log->sealed_len == 0 && log->snapshots_len == 0)
            err = 0;
        else
            err = find_base(log, NULL, &faults);
        if (err && unread) err = unread;
    }
    if (err)
        buf_put_str(why, buf_str(&faults));
    else if (faults.len)
        say_warn("%s", buf_z(&faults));
    buf_done(&faults);
    return err;
}

int log_open(Disk *disk, const LogOptions *options, Log **ret, Buf *why)
{
    Log *log = mem_new(sizeof *log);
    LogNames names = {0};
    log->disk = disk;
    if (options) log->options = *options;
    LogOptions *o = &log->options;
    if (!o->segment_bytes) o->segment_bytes = SEGMENT_BYTES_DEFAULT;
    o->segment_bytes = MAX(o->segment_bytes, SEGMENT_BYTES_MIN) / SECTOR * SECTOR;
    if (!o->reserve_bytes) o->reserve_bytes = o->segment_bytes / 4;
    if (!o->clock) o->clock = &clock_real;
    uint64_t seed = o->seed;
    if (!seed) random_secret(&seed, sizeof seed);
    random_seed(&log->random, seed);
    log->step = MIN(MAX(o->segment_bytes / 16, SEGMENT_BYTES_MIN), 4 * MIB);
    CHECK(pthread_mutex_init(&log->mutex, NULL) == 0);

    int err = disk->ops->lock(disk, "lock", &log->lock);
    if (err) {
        lock_why(disk, why, err);
        goto out;
    }
    err = log_names(disk, &names);
    if (err && err != ERR_NOT_FOUND) {
        system_why(why, "log", err);
        goto out;
    }
    size_t before = why->len;
    err = log_format_check(disk, true, names.segments_len || names.snapshots_len, why);
    if (err && why->len == before) system_why(why, "format", err);
    if (err) goto out;
    err = disk->ops->make_dir(disk, "log");
    if (!err) err = disk->ops->sync_dir(disk, "");
    if (err) {
        system_why(why, "log", err);
        goto out;
    }
    err = load_heads(log, &names, why);
    if (!err) err = choose_snapshot(log, &names, why);
out:
    log_names_done(&names);
    if (err) {
        log_close(log);
        return err;
    }
    *ret = log;
    return 0;
}

void log_close(Log *log)
{
    if (!log) return;
    const DiskOps *ops = log->disk->ops;
    CHECK(!log->thread);
    ops->close(log->live);
    for (size_t i = 0; i < log->spares_len; i++) ops->close(log->spares[i].file);
    ops->close(log->lock);
    mem_free(log->spares);
    mem_free(log->sealed);
    mem_free(log->snapshots);
    buf_done(&log->open);
    buf_done(&log->flight);
    pthread_mutex_destroy(&log->mutex);
    mem_free(log);
}

/* ---- replay ---- */

typedef struct {
    const LogReplay *r;
    const LogPoint *covers; /* NULL once it is passed */
    LogPoint at;
    bool has_frames; /* of the current segment */
    Buf *why;
    const char *name;
} Player;

static int play_corrupt(Player *p, uint64_t offset, const char *what)
{
    log_why(p->why, p->name, offset, what);
    return ERR_CORRUPT;
}

/* Has the log come to where the snapshot was taken? Then it must be the same log. */
static int meet_snapshot(Player *p, uint64_t offset)
{
    if (!p->covers || p->at.next_seq < p->covers->next_seq) return 0;
    if (!point_eq(&p->at, p->covers))
        return play_corrupt(p, offset, "the snapshot does not belong to this log");
    p->covers = NULL;
    return 0;
}

static int play_frame(Player *p, const SegmentItem *item)
{
    Frame f;
    size_t len;
    int err = frame_read(item->frame, &f, &len);
    if (err == ERR_UNSUPPORTED) {
        buf_printf(p->why,
                   "%s, byte %" PRIu64
                   ": a frame of version %u; this version of headrace knows up to %d. Run "
                   "the version that wrote it, or a newer one.",
                   p->name, item->offset, load_u32(item->frame.p) & 0xffff, FRAME_VERSION);
        return err;
    }
    if (err || len != item->frame.n)
        return play_corrupt(p, item->offset, "the frame breaks its format");
    err = meet_snapshot(p, item->offset);
    if (err) return err;
    p->has_frames = true;
    if (!frame_counts(&f, frame_is_claim(&f), (const uint8_t *)item->frame.p, len, &p->at))
        return 0;
    err = p->covers || !p->r->frame ? 0 : p->r->frame(p->r->ctx, &f, item->frame);
    if (err && p->why->len == 0) {
        char where[LOG_NAME_LEN + 40];
        snprintf(where, sizeof where, "%s, byte %" PRIu64 ": a record", p->name, item->offset);
        return system_why(p->why, where, err);
    }
    return err;
}

static int play_segment(Player *p, SegmentReader *reader)
{
    if (!point_eq(&p->at, &reader->head.start))
        return play_corrupt(p, 0, "the segment does not begin where the one before it ends");
    p->has_frames = false;
    for (;;) {
        SegmentItem item;
        int got = segment_reader_next(reader, &item);
        if (got == ERR_CORRUPT) return play_corrupt(p, reader->bad_at, reader->bad_what);
        if (got < 0) return system_why(p->why, p->name, got);
        if (got == 0) return 0;
        if (item.is_group) continue;
        int err = play_frame(p, &item);
        if (err) return err;
    }
}

int log_play(Disk *disk, const Sealed *segments, size_t n, const LogPoint *covers,
             const LogReplay *r, LogPoint *at, TailFound *last, Buf *why)
{
    Player p = {.r = r, .covers = covers, .why = why};
    CHECK(n > 0);
    p.at = segments[0].head.start;
    for (size_t i = 0; i < n; i++) {
        char name[LOG_NAME_LEN];
        segment_name(name, segments[i].head.number);
        p.name = name;
        SegmentReader reader;
        int err = segment_reader_open(&reader, disk, name, segments[i].end);
        if (err == ERR_CORRUPT) return play_corrupt(&p, 0, "the segment's head does not check");
        if (err) return system_why(why, name, err);
        err = play_segment(&p, &reader);
        if (!err && i + 1 == n) {
            err = meet_snapshot(&p, reader.at);
            if (!err && p.covers && last)
                err = play_corrupt(&p, reader.at, "the log ends below its snapshot");
            if (!err && p.covers) p.at = *p.covers; /* it goes on in the live segment */
            if (!err && last)
                *last = (TailFound){.end = reader.at,
                                    .last_group_at = reader.last_group_at,
                                    .torn_bytes = reader.torn_bytes,
                                    .has_frames = p.has_frames};
        }
        segment_reader_done(&reader);
        if (err) return err;
    }
    *at = p.at;
    return 0;
}

/* Keeps I6: what the reader accepted is on the disk, not just in the page cache, and what it
 * refused is gone. */
static int settle_tail(Log *log, Sealed *last, const TailFound *tail)
{
    const DiskOps *ops = log->disk->ops;
    char name[LOG_NAME_LEN];
    DiskFile *f;
    segment_name(name, last->head.number);
    int err = ops->open(log->disk, name, DISK_WRITE, &f);
    if (err) return err;
    size_t len = (size_t)(tail->end - tail->last_group_at), got;
    uint8_t *bytes = mem_grow(NULL, len);
    err = ops->read(f, tail->last_group_at, bytes, len, &got);
    if (!err && got != len) err = ERR_IO;
    if (!err) err = ops->write(f, tail->last_group_at, bytes, len);
    if (!err) err = ops->sync(f);
    if (!err && last->size > tail->end) err = ops->truncate(f, tail->end);
    mem_free(bytes);
    ops->close(f);
    if (err) return err;
    last->end = last->size = tail->end;
    return 0;
}

/* Files of earlier runs: unfinished snapshots go, spares are kept as far as they are wanted. */
static int tidy(Log *log)
{
    const DiskOps *ops = log->disk->ops;
    LogNames names;
    int err = log_names(log->disk, &names);
    if (err) return err;
    /* What a spare was before must be gone for good before its bytes change (as in snapshot.c,
     * recycle). */
    err = ops->sync_dir(log->disk, "log");
    for (size_t i = 0; i < names.leftovers_len && !err; i++)
        err = ops->unlink(log->disk, names.leftovers[i]);
    for (size_t i = 0; i < names.spares_len && !err; i++) {
        Spare s = {0};
        memcpy(s.name, names.spares[i], sizeof s.name);
        if (log_wants_spare(log)) {
            err = ops->open(log->disk, s.name, DISK_WRITE, &s.file);
            if (!err) err = ops->size(s.file, &s.room);
            if (err)
                ops->close(s.file);
            else
                log_add_spare(log, &s);
        } else {
            err = ops->unlink(log->disk, s.name);
        }
    }
    log_names_done(&names);
    return err;
}

/* A fresh live segment behind everything that was found. */
static int begin_segment(Log *log, const LogPoint *at, const TailFound *tail)
{
    SegmentHead h = {.number = 1, .start = *at};
    Sealed *last = log->sealed_len ? &log->sealed[log->sealed_len - 1] : NULL;
    int err = 0;
    if (last && !tail->has_frames) {
        /* It never got a frame: the new one takes its place and its name. */
        h.number = last->head.number;
        h.prev_generation = last->head.prev_generation;
        h.prev_end = last->head.prev_end;
        log->sealed_len--;
    } else if (last) {
        err = settle_tail(log, last, tail);
        if (err) return err;
        h.number = last->head.number + 1;
        h.prev_generation = last->head.generation;
        h.prev_end = last->end;
    }
    Spare spare;
    if (log->spares_len > 0) {
        size_t best = 0;
        for (size_t i = 1; i < log->spares_len; i++)
            if (log->spares[i].room > log->spares[best].room) best = i;
        spare = log->spares[best];
        log->spares[best] = log->spares[--log->spares_len];
    } else {
        err = log_new_spare(log, &spare);
        if (err) return err;
    }
    /* On a disk that is nearly full as much of a step as there is. */
    for (uint64_t room = log->step; spare.room < room; room /= 2) {
        err = spare.file->ops->allocate(spare.file, spare.room, room - spare.room);
        if (!err) spare.room = room;
        if (err != ERR_NOSPC || room / 2 < START_ROOM) break;
    }
    if (err == ERR_NOSPC && spare.room >= START_ROOM) err = 0;
    h.generation = log_next_generation(log);
    if (!err) err = log_install(log, &spare, &h);
    if (err) {
        spare.file->ops->close(spare.file);
        return err;
    }
    log->live = spare.file;
    log->live_head = h;
    log->live_room = spare.room;
    log->tail = SEGMENT_HEAD_LEN;
    log->tail_proven = true;
    return 0;
}

static const SnapshotFile *newest_good(const Log *log)
{
    for (size_t i = 0; i < log->snapshots_len; i++)
        if (!log->snapshots[i].bad) return &log->snapshots[i];
    return NULL;
}

static int play_snapshot(Log *log, const SnapshotFile *s, const LogReplay *r, Buf *why)
{
    char name[LOG_NAME_LEN];
    uint64_t bytes, bad_at;
    const char *what;
    LogPoint covers;
    snapshot_name(name, s->covers.next_seq);
    int err = snapshot_read(log->disk, name, r, &covers, &bytes, &bad_at, &what);
    if (err == ERR_CORRUPT)
        log_why(why, name, bad_at, what);
    else if (err)
        system_why(why, name, err);
    if (!err) CHECK(point_eq(&covers, &s->covers));
    return err;
}

int log_replay(Log *log, const LogReplay *r, LogPoint *ret_at, Buf *why)
{
    CHECK(!log->started);
    const SnapshotFile *snapshot = newest_good(log);
    LogPoint at = {.shard = log->options.shard, .next_seq = 1};
    TailFound tail = {0};
    int err = snapshot ? play_snapshot(log, snapshot, r, why) : 0;
    if (!err && log->sealed_len)
        err = log_play(log->disk, log->sealed + log->base, log->sealed_len - log->base,
                       snapshot ? &snapshot->covers : NULL, r, &at, &tail, why);
    if (err) return err;

    log->torn_bytes = tail.torn_bytes;
    err = tidy(log);
    if (!err) err = begin_segment(log, &at, &tail);
    if (!err) {
        log->open_start = log->appended = at;
        log->synced_head = log->live_head;
        log->synced_end = log->tail;
        log->synced_seq = at.next_seq - 1;
        atomic_store(&log->durable_seq, at.next_seq - 1);
        log->started = true;
        err = log_make_room(log);
    }
    if (err) return system_why(why, "log", err);
    *ret_at = at;
    return 0;
}

/* One way to replay it all: from the snapshot (covers 0: from the first record), only read (r NULL)
 * or played. */
static int play_from(Log *log, const LogPoint *covers, const LogReplay *r, LogPoint *ret_at,
                     Buf *why)
{
    static const LogReplay nobody;
    SnapshotFile snapshot = {.covers = *covers};
    bool from_snapshot = covers->next_seq > 1;
    TailFound tail;
    int err = from_snapshot ? play_snapshot(log, &snapshot, r ? r : &nobody, why) : 0;
    if (err) return err;
    return log_play(log->disk, log->sealed + log->base, log->sealed_len - log->base,
                    from_snapshot ? covers : NULL, r ? r : &nobody, ret_at, &tail, why);
}

int log_replay_retained(Log *log, const LogReplay *r, LogPoint *ret_from, LogPoint *ret_at,
                        Buf *why)
{
    CHECK(!log->started);
    LogPoint none = {.shard = log->options.shard, .next_seq = 1}, at;
    if (log->sealed_len == 0) { /* a new log */
        *ret_from = *ret_at = none;
        return 0;
    }
    size_t before = log->base;
    int err = ERR_CORRUPT;
    /* n: the beginning; below it the snapshots, which lie newest first. */
    for (size_t n = log->snapshots_len + 1; n-- > 0 && err;) {
        Buf said = {0};
        LogPoint covers = none;
        if (n < log->snapshots_len) {
            const SnapshotFile *s = &log->snapshots[n];
            char name[LOG_NAME_LEN];
            uint64_t bytes, bad_at = 0;
            const char *what = "it cannot be read";
            snapshot_name(name, s->covers.next_seq);
            err = s->bad ? ERR_CORRUPT
                         : snapshot_read(log->disk, name, NULL, &covers, &bytes, &bad_at, &what);
            if (err) buf_printf(&said, "%s, byte %" PRIu64 ": %s", name, bad_at, what);
        } else if (log->sealed[0].head_err || log->sealed[0].head.prev_generation) {
            continue; /* its beginning was recycled, as it should be */
        } else {
            err = 0;
        }
        if (!err) err = find_base(log, n < log->snapshots_len ? &covers : NULL, &said);
        if (!err) err = play_from(log, &covers, NULL, &at, &said);
        if (!err) { /* it is whole: what fails now would fail from any other place */
            *ret_from = covers;
            err = play_from(log, &covers, r, &at, &said);
            n = 0;
        }
        if (said.len) buf_printf(why, "%s%.*s", why->len ? "\n" : "", STR_ARG(buf_str(&said)));
        buf_done(&said);
    }
    log->base = before;
    if (err) return err;
    *ret_at = at;
    return 0;
}

int log_replay_sealed(Log *log, const LogReplay *r, LogPoint *ret_at, Buf *why)
{
    CHECK(log->started);
    pthread_mutex_lock(&log->mutex);
    const SnapshotFile *good = newest_good(log);
    SnapshotFile snapshot = good ? *good : (SnapshotFile){0};
    size_t n = log->sealed_len, base = 0;
    Sealed *sealed = mem_grow(NULL, n * sizeof *sealed + 1);
    if (n) memcpy(sealed, log->sealed, n * sizeof *sealed);
    pthread_mutex_unlock(&log->mutex);

    LogPoint at = good ? snapshot.covers : (LogPoint){.shard = log->options.shard, .next_seq = 1};
    int err = good ? play_snapshot(log, &snapshot, r, why) : 0;
    for (size_t i = 0; good && i < n; i++)
        if (!sealed[i].head_err && sealed[i].head.start.next_seq <= snapshot.covers.next_seq)
            base = i;
    if (!err && n > 0)
        err = log_play(log->disk, sealed + base, n - base, good ? &snapshot.covers : NULL, r, &at,
                       NULL, why);
    mem_free(sealed);
    if (err) return err;
    *ret_at = at;
    return 0;
}
