/* log.c: the shard's thread appends to the open group; the committing thread takes it, writes,
 * syncs.
 *
 * The two share `mutex`, held for a copy at most, never over a disk operation. What a commit needs
 * to know is decided while it takes the group: its place, and whether a spare becomes the live
 * segment. So the room that log_append counts is right at any time. Invariants I1 to I9 are in
 * segment.c. */
#include "log/inside.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int64_t now_ns(const Log *log)
{
    return log->options.clock->boot_ns(log->options.clock);
}

int log_fail(Log *log, int err)
{
    pthread_mutex_lock(&log->mutex);
    log->failed = true;
    pthread_mutex_unlock(&log->mutex);
    return err;
}

uint64_t log_next_generation(Log *log)
{
    log->generation = ((log->generation >> 32) + 1) << 32 | (random_u64(&log->random) & UINT32_MAX);
    return log->generation;
}

/* ---- room ---- */

static uint64_t spare_room(const Spare *s)
{
    return s->room > SEGMENT_HEAD_LEN ? s->room - SEGMENT_HEAD_LEN : 0;
}

static uint64_t live_room(const Log *log)
{
    return log->live_room > log->tail ? log->live_room - log->tail : 0;
}

/* Where a group of `len` bytes would go: IN_LIVE, a spare's number, or NOWHERE. */
enum { IN_LIVE = -1, NOWHERE = -2 };

static int place_of(const Log *log, uint64_t len)
{
    if (len <= live_room(log)) return IN_LIVE;
    for (size_t i = 0; i < log->spares_len; i++)
        if (len <= spare_room(&log->spares[i])) return (int)i;
    return NOWHERE;
}

/* What is left for others when the group goes to `place`. The rest of a live segment that it passes
 * by is lost. */
static uint64_t room_behind(const Log *log, int place, uint64_t len)
{
    uint64_t sum = place == IN_LIVE ? live_room(log) : 0;
    for (size_t i = 0; i < log->spares_len; i++) sum += spare_room(&log->spares[i]);
    return sum - len;
}

static int check_room(Log *log, uint64_t len, uint64_t keep)
{
    int place = place_of(log, len);
    if (place != NOWHERE && room_behind(log, place, len) >= keep) return 0;
    if (log->no_space && now_ns(log) - log->no_space_ns < ROOM_RETRY_NS) return ERR_NOSPC;
    log->need = MAX(log->need, len);
    return ERR_AGAIN;
}

int log_new_spare(Log *log, Spare *ret)
{
    Spare s = {0};
    snprintf(s.name, sizeof s.name, "log/%010" PRIu64 ".free", ++log->spare_number);
    int err = log->disk->ops->open(log->disk, s.name, DISK_WRITE | DISK_CREATE | DISK_EXCLUSIVE,
                                   &s.file);
    if (err) return err;
    *ret = s;
    return 0;
}

void log_add_spare(Log *log, const Spare *s)
{
    log->spares = mem_grow(log->spares, (log->spares_len + 1) * sizeof *s);
    log->spares[log->spares_len++] = *s;
}

bool log_wants_spare(const Log *log)
{
    return log->spares_len < SPARES_MAX + log->options.reserve_bytes / log->options.segment_bytes;
}

/* One thing to allocate next: which file, from where, how much. */
typedef struct {
    DiskFile *file;
    uint64_t at, n;
    size_t spare; /* its place among the spares; SIZE_MAX = the live file */
    bool create;  /* a spare must be made first */
} RoomStep;

/* Under the mutex. False when there is room enough. */
static bool next_step(const Log *log, RoomStep *ret)
{
    uint64_t limit = log->options.segment_bytes, need = log->need;
    uint64_t ahead = MAX(2 * log->step, 2 * log->group_last);
    uint64_t have = live_room(log), want = MAX(log->options.reserve_bytes, RESTART_ROOM);
    want += MAX(ahead, need + log->step);
    int place = need ? place_of(log, need) : IN_LIVE;
    size_t growing = SIZE_MAX; /* the first spare that can still grow */
    for (size_t i = 0; i < log->spares_len; i++) {
        have += spare_room(&log->spares[i]);
        if (growing == SIZE_MAX && log->spares[i].room < limit) growing = i;
    }
    uint64_t n = log->step;
    bool in_live;
    /* As in room_behind: what passes by the live segment's rest loses it. */
    if (place >= 0) have -= live_room(log);
    if (place == NOWHERE) {
        /* All of it in one file: the live one when that has the right to be so long. */
        in_live = log->tail + need <= limit || log->tail == SEGMENT_HEAD_LEN;
        if (!in_live && growing == SIZE_MAX && log->spares_len > 0) growing = 0;
        uint64_t begin = in_live ? log->tail : SEGMENT_HEAD_LEN;
        uint64_t room = in_live               ? log->live_room
                        : growing == SIZE_MAX ? 0
                                              : log->spares[growing].room;
        n = MAX(n, begin + need - room);
    } else if (have < want) {
        in_live = place < 0 && log->live_room < limit;
        uint64_t room = in_live               ? log->live_room
                        : growing == SIZE_MAX ? 0
                                              : log->spares[growing].room;
        n = MIN(n, limit - room);
    } else {
        return false;
    }
    if (in_live)
        *ret = (RoomStep){.file = log->live, .at = log->live_room, .n = n, .spare = SIZE_MAX};
    else if (growing == SIZE_MAX)
        *ret = (RoomStep){.n = n, .create = true};
    else
        *ret = (RoomStep){.file = log->spares[growing].file,
                          .at = log->spares[growing].room,
                          .n = n,
                          .spare = growing};
    return true;
}

/* Keeps I8. Only this thread takes from the spares and changes the live file; others only add
 * spares. */
int log_make_room(Log *log)
{
    int err = 0;
    for (;;) {
        RoomStep step = {0};
        pthread_mutex_lock(&log->mutex);
        bool failed = log->failed, more = next_step(log, &step);
        bool wait = log->no_space && now_ns(log) - log->no_space_ns < ROOM_RETRY_NS;
        if (!more) {
            log->need = 0;
            log->no_space = false;
        }
        if (wait) log->need = 0;
        pthread_mutex_unlock(&log->mutex);
        if (failed) return ERR_CLOSED;
        if (!more || wait) return 0;

        Spare made = {0};
        if (step.create) {
            err = log_new_spare(log, &made);
            step.file = made.file;
        }
        if (!err) {
            err = step.file->ops->allocate(step.file, step.at, step.n);
            if (!err) err = step.file->ops->sync(step.file);
        }
        pthread_mutex_lock(&log->mutex);
        if (made.file) {
            step.spare = log->spares_len;
            log_add_spare(log, &made);
        }
        if (!err) {
            if (step.spare == SIZE_MAX)
                log->live_room += step.n;
            else
                log->spares[step.spare].room += step.n;
            log->no_space = false;
        } else if (err == ERR_NOSPC) {
            log->need = 0;
            log->no_space = true;
            log->no_space_ns = now_ns(log);
        } else {
            log->failed = true;
        }
        pthread_mutex_unlock(&log->mutex);
        if (err) return err == ERR_NOSPC ? 0 : err;
    }
}

/* ---- append ---- */

int log_append(Log *log, Str bytes, uint64_t last_seq, bool reserved)
{
    Frame f;
    size_t len;
    int err = frame_read(bytes, &f, &len);
    if (err) return err;
    if (len != bytes.n) return ERR_INVALID;
    CHECK(log->started);
    /* What would be void at its place must never be acknowledged. Only this thread changes
     * `appended`. */
    LogPoint behind = log->appended;
    if (!frame_counts(&f, frame_is_claim(&f), (const uint8_t *)bytes.p, bytes.n, &behind) ||
        behind.next_seq - 1 != last_seq)
        return ERR_INVALID;

    LogThread *tell = NULL;
    uint64_t keep = frame_is_claim(&f) ? 0 /* a start: what RESTART_ROOM was kept for */
                    : reserved         ? RESTART_ROOM
                                       : MAX(log->options.reserve_bytes, RESTART_ROOM);
    pthread_mutex_lock(&log->mutex);
    uint64_t body = log->open_frames ? log->open.len - GROUP_HEAD_LEN : 0;
    if (log->failed)
        err = ERR_CLOSED;
    else if (log->open_frames && body + ENTRY_HEAD_LEN + len > LOG_GROUP_MAX)
        err = ERR_AGAIN;
    else
        err = check_room(log, group_len(body + ENTRY_HEAD_LEN + len), keep);
    if (!err) {
        if (!log->open_frames) {
            log->open.len = 0;
            buf_extend(&log->open, GROUP_HEAD_LEN);
        }
        buf_u32(&log->open, (uint32_t)len);
        buf_u32(&log->open, 0); /* the CRC depends on the place: the commit knows it */
        buf_put_str(&log->open, bytes);
        log->open_frames++;
        log->appended = behind;
    } else if (err == ERR_AGAIN) {
        tell = log->thread;
    }
    pthread_mutex_unlock(&log->mutex);
    if (tell) log_thread_wake(tell);
    return err;
}

bool log_has_pending(const Log *log)
{
    Log *l = (Log *)log; /* the mutex is no part of what const promises */
    pthread_mutex_lock(&l->mutex);
    bool pending = log->open_frames > 0 || log->need > 0;
    pthread_mutex_unlock(&l->mutex);
    return pending;
}

bool log_unproven(Log *log)
{
    pthread_mutex_lock(&log->mutex);
    bool unproven = !log->tail_proven;
    pthread_mutex_unlock(&log->mutex);
    return unproven;
}

uint64_t log_appended_seq(const Log *log)
{
    Log *l = (Log *)log;
    pthread_mutex_lock(&l->mutex);
    uint64_t seq = log->appended.next_seq - 1;
    pthread_mutex_unlock(&l->mutex);
    return seq;
}

uint64_t log_durable_seq(const Log *log)
{
    return atomic_load_explicit(&log->durable_seq, memory_order_acquire);
}

/* ---- commit ---- */

int log_install(Log *log, Spare *spare, const SegmentHead *h)
{
    const DiskOps *ops = log->disk->ops;
    uint8_t bytes[SEGMENT_HEAD_LEN];
    char name[LOG_NAME_LEN];
    segment_head_put(bytes, h);
    segment_name(name, h->number);
    int err = ops->write(spare->file, 0, bytes, sizeof bytes);
    if (!err) err = ops->sync(spare->file);
    if (!err) err = ops->rename(log->disk, spare->name, name);
    if (!err) err = ops->sync_dir(log->disk, "log");
    return err;
}

static void seal_bytes(Buf *group, const GroupHead *h)
{
    group_head_put(group->data, h);
    for (size_t at = GROUP_HEAD_LEN; at < group->len;) {
        uint8_t *entry = group->data + at;
        uint32_t len = load_u32(entry);
        store_u32(entry + 4,
                  entry_crc(h->generation, h->position + at, entry + ENTRY_HEAD_LEN, len));
        at += ENTRY_HEAD_LEN + len;
    }
    size_t padded = (size_t)group_len(h->body_len), pad = padded - group->len;
    memset(buf_extend(group, pad), 0, pad);
}

/* What a commit took over while it held the mutex. */
typedef struct {
    uint32_t frames;
    uint64_t seq, at, bytes;
    DiskFile *file;
    SegmentHead head;
    bool rotates;
    Spare spare;      /* rotates: the new live file, under its old name */
    DiskFile *before; /* rotates: the file that was live */
    Sealed sealed;    /* rotates: what it becomes */
} Taken;

/* Under the mutex. False when there is nothing to write. */
static bool take(Log *log, Taken *t)
{
    if (log->open_frames == 0) {
        if (log->tail_proven) return false;
        log->open.len = 0;
        buf_extend(&log->open, GROUP_HEAD_LEN);
    }
    uint64_t body = log->open.len - GROUP_HEAD_LEN, len = group_len(body);
    int place = place_of(log, len);
    if (place == NOWHERE && log->open_frames == 0)
        return false;        /* a full disk: the proof comes later */
    CHECK(place != NOWHERE); /* by log_append: I8 */

    Buf empty = log->flight;
    log->flight = log->open;
    log->open = empty;
    log->open.len = 0;
    t->frames = log->open_frames;
    t->seq = log->appended.next_seq - 1;
    t->bytes = len;
    log->open_frames = 0;
    if (place != IN_LIVE) {
        t->rotates = true;
        t->spare = log->spares[place];
        log->spares[place] = log->spares[--log->spares_len];
        t->before = log->live;
        t->sealed = (Sealed){.head = log->live_head, .end = log->tail, .size = log->live_room};
        log->live_head = (SegmentHead){.number = log->live_head.number + 1,
                                       .generation = log_next_generation(log),
                                       .prev_generation = t->sealed.head.generation,
                                       .prev_end = log->tail,
                                       .start = log->open_start};
        log->live = t->spare.file;
        log->live_room = t->spare.room;
        log->tail = SEGMENT_HEAD_LEN;
    }
    t->file = log->live;
    t->head = log->live_head;
    t->at = log->tail;
    log->tail += len;
    log->open_start = log->appended;
    return true;
}

int log_commit_group(Log *log, uint64_t *ret_seq)
{
    CHECK(log->started);
    Taken t = {0};
    int64_t begin = now_ns(log);
    pthread_mutex_lock(&log->mutex);
    bool failed = log->failed, any = !failed && take(log, &t);
    pthread_mutex_unlock(&log->mutex);
    if (failed) return ERR_CLOSED;
    if (!any) {
        *ret_seq = log_durable_seq(log);
        return 0;
    }

    if (t.rotates) {
        /* Only now may others see it: behind it everything is durable (I3), its head will be (I1).
         */
        int err = log_install(log, &t.spare, &t.head);
        if (err) {
            log->disk->ops->close(t.before);
            return log_fail(log, err);
        }
        if (t.sealed.size > t.sealed.end &&
            t.sealed.size - t.sealed.end > log->options.segment_bytes / 4)
            if (log->disk->ops->truncate(t.before, t.sealed.end) == 0) t.sealed.size = t.sealed.end;
        log->disk->ops->close(t.before);
        pthread_mutex_lock(&log->mutex);
        log->sealed = mem_grow(log->sealed, (log->sealed_len + 1) * sizeof *log->sealed);
        log->sealed[log->sealed_len++] = t.sealed;
        pthread_mutex_unlock(&log->mutex);
    }
    Buf *group = &log->flight;
    seal_bytes(group, &(GroupHead){.frames = t.frames,
                                   .body_len = (uint32_t)(group->len - GROUP_HEAD_LEN),
                                   .generation = t.head.generation,
                                   .position = t.at,
                                   .synced_generation = t.head.generation,
                                   .synced_position = t.at});
    int err = t.file->ops->write(t.file, t.at, group->data, group->len);
    if (!err) err = t.file->ops->sync(t.file);
    if (err) return log_fail(log, err);

    if (group->cap > 2 * MIB && t.bytes < MIB) buf_done(group); /* after a burst */
    log->group_last = t.bytes;
    int64_t took = now_ns(log) - begin;
    pthread_mutex_lock(&log->mutex);
    log->synced_head = t.head;
    log->synced_end = t.at + t.bytes;
    log->synced_seq = t.seq;
    log->tail_proven = t.frames == 0;
    log->stats.commits++;
    log->stats.committed_frames += t.frames;
    log->stats.committed_bytes += t.bytes;
    log->stats.commit_ns_last = took;
    log->stats.commit_ns_sum += took;
    pthread_mutex_unlock(&log->mutex);
    atomic_store_explicit(&log->durable_seq, t.seq, memory_order_release);
    *ret_seq = t.seq;
    return 0;
}

int log_commit(Log *log, uint64_t *ret_seq)
{
    uint64_t seq;
    int err = log_commit_group(log, &seq);
    if (!err) err = log_make_room(log);
    if (err) return err;
    *ret_seq = seq;
    return 0;
}

/* ---- what it says about itself ---- */

uint64_t log_torn_bytes(const Log *log)
{
    return log->torn_bytes;
}

void log_stats(const Log *log, LogStats *ret)
{
    Log *l = (Log *)log;
    pthread_mutex_lock(&l->mutex);
    LogStats s = log->stats;
    s.segments = log->sealed_len + (log->live ? 1 : 0);
    s.bytes = log->live_room;
    for (size_t i = 0; i < log->sealed_len; i++) s.bytes += log->sealed[i].size;
    for (size_t i = 0; i < log->spares_len; i++) s.bytes += log->spares[i].room;
    for (size_t i = 0; i < log->snapshots_len; i++) {
        s.bytes += log->snapshots[i].bytes;
        if (!log->snapshots[i].bad && !s.snapshot_seq)
            s.snapshot_seq = log->snapshots[i].covers.next_seq - 1;
    }
    pthread_mutex_unlock(&l->mutex);
    *ret = s;
}
