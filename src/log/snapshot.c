/* snapshot.c: the state at one point of the log, folded by the caller, in one file.
 *
 *     log/00000000000000123457.snap   named by the first sequence that it does not cover
 *     head (128): magic, version, shard, the LogPoint it covers, zeroes, CRC of all before it
 *     chunk …   : u32 length (1 … 64 KiB), u32 CRC over (head's CRC, chunk's number, length,
 *                 bytes), bytes
 *     end (40)  : u32 0, u32 magic, u64 chunks, u64 bytes, u32 CRC of all bytes, u32 zero,
 *                 u32 head's CRC, u32 CRC of all before it; then the file ends
 *
 * S1  It is written as *.tmp, synced, read again and checked, renamed, and the directory is synced.
 *     Only then is anything older removed.
 * S2  The two newest good ones stay, and every segment that a replay from the older one needs: so
 *     one damaged snapshot costs time and not data. Before the second one exists, every segment
 *     stays.
 * S3  Segments go from the oldest on: what is left is always a suffix of the log.
 * S4  While a backup holds the log (hold.c), nothing goes. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "log/inside.h"

#define SNAPSHOT_VERSION 1
#define HEAD_LEN         128
#define CHUNK_HEAD_LEN   8
#define CHUNK_MAX        (64 * KIB)
#define END_LEN          40
#define END_MAGIC        UINT32_C(0x444e4553) /* "SEND" */
#define SYNC_EVERY                                                                                 \
    (8 * MIB) /* small syncs, so that the log's own do not queue behind a large one */

static const uint8_t magic[8] = {'H', 'R', 'S', 'N', 'A', 'P', '\n', 0x1a};

struct LogSnapshot {
    Log *log;
    DiskFile *file;
    LogPoint covers;
    char name[LOG_NAME_LEN], temp[LOG_NAME_LEN];
    Buf chunk; /* head of the chunk (unset) and bytes so far */
    uint64_t at, synced_at, chunks, bytes;
    uint32_t head_crc, all_crc;
    int err; /* the first one: nothing more is written */
};

/* ---- names and bytes ---- */

void snapshot_name(char ret[LOG_NAME_LEN], uint64_t next_seq)
{
    snprintf(ret, LOG_NAME_LEN, "log/%020" PRIu64 ".snap", next_seq);
}

bool snapshot_number(const char *file_name, uint64_t *ret_next_seq)
{
    size_t n = strlen(file_name);
    return n == 25 && strcmp(file_name + 20, ".snap") == 0 &&
           parse_u64((Str){file_name, 20}, ret_next_seq) == 0;
}

static uint32_t head_put(uint8_t ret[HEAD_LEN], const LogPoint *p)
{
    memset(ret, 0, HEAD_LEN);
    memcpy(ret, magic, sizeof magic);
    store_u32(ret + 8, SNAPSHOT_VERSION);
    store_u32(ret + 12, p->shard);
    store_u64(ret + 16, p->epoch);
    store_u64(ret + 24, p->holder);
    store_u64(ret + 32, p->next_seq);
    store_u64(ret + 40, p->chain);
    store_u64(ret + 48, (uint64_t)p->time_ns);
    uint32_t crc = crc32c(0, ret, HEAD_LEN - 4);
    store_u32(ret + HEAD_LEN - 4, crc);
    return crc;
}

static uint32_t chunk_crc(uint32_t head_crc, uint64_t number, const uint8_t *p, uint32_t len)
{
    uint8_t place[16];
    store_u32(place, head_crc);
    store_u64(place + 4, number);
    store_u32(place + 12, len);
    return crc32c(crc32c(0, place, sizeof place), p, len);
}

static void end_put(uint8_t ret[END_LEN], uint64_t chunks, uint64_t bytes, uint32_t all,
                    uint32_t head)
{
    memset(ret, 0, END_LEN);
    store_u32(ret + 4, END_MAGIC);
    store_u64(ret + 8, chunks);
    store_u64(ret + 16, bytes);
    store_u32(ret + 24, all);
    store_u32(ret + 32, head);
    store_u32(ret + 36, crc32c(0, ret, 36));
}

/* ---- reading ---- */

typedef struct {
    const char **ret_what;
    uint64_t *ret_at;
} Fault;

static int damaged(const Fault *f, uint64_t at, const char *what)
{
    *f->ret_what = what;
    *f->ret_at = at;
    return ERR_CORRUPT;
}

static int read_chunks(DiskFile *f, const LogReplay *r, const LogPoint *covers, uint32_t head_crc,
                       uint8_t *buf, uint64_t *ret_len, const Fault *fault)
{
    uint64_t at = HEAD_LEN, chunks = 0, bytes = 0;
    uint32_t all = 0;
    for (;;) {
        /* A chunk and the head of the next at once, or the end and one byte more (there is none).
         */
        size_t got;
        int err = f->ops->read(f, at, buf, CHUNK_HEAD_LEN + CHUNK_MAX, &got);
        if (err) return err;
        if (got < CHUNK_HEAD_LEN) return damaged(fault, at, "the snapshot ends too early");
        uint32_t len = load_u32(buf);
        if (len == 0) {
            uint8_t end[END_LEN];
            end_put(end, chunks, bytes, all, head_crc);
            if (got != END_LEN || memcmp(buf, end, END_LEN) != 0)
                return damaged(fault, at, "the snapshot's end does not fit");
            *ret_len = at + END_LEN;
            return 0;
        }
        if (len > CHUNK_MAX || len > got - CHUNK_HEAD_LEN)
            return damaged(fault, at, "a chunk is longer than the snapshot");
        const uint8_t *data = buf + CHUNK_HEAD_LEN;
        if (load_u32(buf + 4) != chunk_crc(head_crc, chunks, data, len))
            return damaged(fault, at, "the CRC of a chunk does not fit");
        if (r && r->snapshot) {
            err = r->snapshot(r->ctx, covers, (Str){(const char *)data, len});
            if (err) return err;
        }
        all = crc32c(all, data, len);
        bytes += len;
        chunks++;
        at += CHUNK_HEAD_LEN + len;
    }
}

static int read_file(DiskFile *f, const LogReplay *r, LogPoint *ret_covers, uint64_t *ret_bytes,
                     const Fault *fault)
{
    uint8_t head[HEAD_LEN], again[HEAD_LEN];
    size_t n;
    int err = f->ops->read(f, 0, head, sizeof head, &n);
    if (err) return err;
    uint32_t crc = crc32c(0, head, HEAD_LEN - 4);
    if (n < sizeof head || memcmp(head, magic, sizeof magic) != 0 ||
        load_u32(head + HEAD_LEN - 4) != crc)
        return damaged(fault, 0, "the snapshot's head does not check");
    if (load_u32(head + 8) > SNAPSHOT_VERSION) return ERR_UNSUPPORTED;
    LogPoint covers = {.shard = load_u32(head + 12),
                       .epoch = load_u64(head + 16),
                       .holder = load_u64(head + 24),
                       .next_seq = load_u64(head + 32),
                       .chain = load_u64(head + 40),
                       .time_ns = (int64_t)load_u64(head + 48)};
    head_put(again, &covers);
    if (covers.next_seq == 0 || memcmp(head, again, sizeof head) != 0)
        return damaged(fault, 0, "the snapshot's head is not one of ours");
    uint8_t *buf = mem_grow(NULL, CHUNK_HEAD_LEN + CHUNK_MAX);
    err = read_chunks(f, r, &covers, crc, buf, ret_bytes, fault);
    mem_free(buf);
    if (err) return err;
    *ret_covers = covers;
    return 0;
}

int snapshot_read(Disk *d, const char *name, const LogReplay *r, LogPoint *ret_covers,
                  uint64_t *ret_bytes, uint64_t *ret_bad_at, const char **ret_what)
{
    DiskFile *f;
    LogPoint covers;
    uint64_t bytes = 0;
    int err = d->ops->open(d, name, DISK_READ, &f);
    if (err) return err;
    err = read_file(f, r, &covers, &bytes, &(Fault){ret_what, ret_bad_at});
    d->ops->close(f);
    if (!err && r && r->snapshot) err = r->snapshot(r->ctx, &covers, (Str){"", 0});
    if (err) return err;
    *ret_covers = covers;
    *ret_bytes = bytes;
    return 0;
}

/* ---- writing ---- */

bool log_snapshot_due(const Log *log, uint64_t min_bytes)
{
    Log *l = (Log *)log;
    uint64_t bytes = 0, covered = 0, many = 0, least = min_bytes;
    pthread_mutex_lock(&l->mutex);
    for (size_t i = 0; i < log->snapshots_len && !covered; i++)
        if (!log->snapshots[i].bad) {
            covered = log->snapshots[i].covers.next_seq;
            least = MAX(least, log->snapshots[i].bytes); /* so a long backlog is copied rarely */
        }
    for (size_t i = 0; i < log->sealed_len; i++) {
        const Sealed *next = i + 1 < log->sealed_len ? &log->sealed[i + 1] : NULL;
        uint64_t behind = next ? next->head.start.next_seq : log->live_head.start.next_seq;
        /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): sealed_len says that it is there */
        if (log->sealed[i].head_err || behind <= covered) continue;
        bytes += log->sealed[i].end;
        many++;
    }
    pthread_mutex_unlock(&l->mutex);
    return many > 0 && (bytes >= least || many >= SEALED_MANY);
}

static int put(LogSnapshot *s, const void *p, size_t n)
{
    if (s->err) return s->err;
    s->err = s->file->ops->write(s->file, s->at, p, n);
    if (s->err) return s->err;
    s->at += n;
    if (s->at - s->synced_at >= SYNC_EVERY) {
        s->err = s->file->ops->sync(s->file);
        s->synced_at = s->at;
    }
    return s->err;
}

int log_snapshot_begin(Log *log, const LogPoint *covers, LogSnapshot **ret)
{
    CHECK(log->started && covers->next_seq <= log_durable_seq(log) + 1);
    LogSnapshot *s = mem_new(sizeof *s);
    s->log = log;
    s->covers = *covers;
    snapshot_name(s->name, covers->next_seq);
    memcpy(s->temp, s->name, sizeof s->temp);
    memcpy(s->temp + strlen(s->temp) - 4, "tmp", sizeof "tmp");
    int err = log->disk->ops->open(log->disk, s->temp, DISK_WRITE | DISK_CREATE, &s->file);
    if (err) {
        mem_free(s);
        return err;
    }
    uint8_t head[HEAD_LEN];
    s->head_crc = head_put(head, covers);
    err = s->file->ops->truncate(s->file, 0); /* one that was never finished */
    if (!err) err = put(s, head, sizeof head);
    if (err) {
        log_snapshot_abandon(s);
        return err;
    }
    *ret = s;
    return 0;
}

static int put_chunk(LogSnapshot *s)
{
    uint32_t len = (uint32_t)(s->chunk.len - CHUNK_HEAD_LEN);
    const uint8_t *data = s->chunk.data + CHUNK_HEAD_LEN;
    store_u32(s->chunk.data, len);
    store_u32(s->chunk.data + 4, chunk_crc(s->head_crc, s->chunks, data, len));
    s->all_crc = crc32c(s->all_crc, data, len);
    s->chunks++;
    s->bytes += len;
    int err = put(s, s->chunk.data, s->chunk.len);
    s->chunk.len = 0;
    return err;
}

int log_snapshot_put(LogSnapshot *s, Str piece)
{
    while (piece.n && !s->err) {
        if (s->chunk.len == 0) buf_extend(&s->chunk, CHUNK_HEAD_LEN);
        size_t n = MIN(piece.n, CHUNK_HEAD_LEN + CHUNK_MAX - s->chunk.len);
        buf_put(&s->chunk, piece.p, n);
        piece.p += n;
        piece.n -= n;
        if (s->chunk.len == CHUNK_HEAD_LEN + CHUNK_MAX) s->err = put_chunk(s);
    }
    return s->err;
}

/* Files that the log no longer needs, taken from its lists. */
typedef struct {
    Sealed *segments;
    size_t segments_len;
    uint64_t *snapshots;
    size_t snapshots_len;
} Unneeded;

/* Puts the new snapshot into the list, and takes out what S2 lets go. Under the mutex. */
static Unneeded let_go(Log *log, const SnapshotFile *made)
{
    Unneeded u = {0};
    if (log->holds) { /* the next one lets them go */
        size_t same = log->snapshots_len &&
                      log->snapshots[0].covers.next_seq == made->covers.next_seq;
        log->snapshots = mem_grow(log->snapshots, (log->snapshots_len + 1) * sizeof *made);
        if (!same) memmove(log->snapshots + 1, log->snapshots, log->snapshots_len++ * sizeof *made);
        log->snapshots[0] = *made;
        return u;
    }
    SnapshotFile kept[2] = {*made};
    size_t kept_len = 1;
    for (size_t i = 0; i < log->snapshots_len; i++) {
        const SnapshotFile *old = &log->snapshots[i];
        if (old->covers.next_seq == made->covers.next_seq) continue; /* replaced by the rename */
        if (kept_len < ARRAY_LEN(kept) && !old->bad) {
            kept[kept_len++] = *old;
            continue;
        }
        u.snapshots = mem_grow(u.snapshots, (u.snapshots_len + 1) * sizeof *u.snapshots);
        u.snapshots[u.snapshots_len++] = old->covers.next_seq;
    }
    log->snapshots = mem_grow(log->snapshots, kept_len * sizeof *kept);
    memcpy(log->snapshots, kept, kept_len * sizeof *kept);
    log->snapshots_len = kept_len;
    if (kept_len < ARRAY_LEN(kept)) return u;

    uint64_t needed = kept[kept_len - 1].covers.next_seq;
    size_t n = 0;
    while (n < log->sealed_len) {
        const SegmentHead *next = n + 1 < log->sealed_len ? &log->sealed[n + 1].head
                                                          : &log->live_head;
        bool known = n + 1 == log->sealed_len || !log->sealed[n + 1].head_err;
        if (!known || next->start.next_seq > needed) break;
        n++;
    }
    if (n == 0) return u;
    u.segments = mem_grow(NULL, n * sizeof *u.segments);
    memcpy(u.segments, log->sealed, n * sizeof *u.segments);
    u.segments_len = n;
    log->sealed_len -= n;
    memmove(log->sealed, log->sealed + n, log->sealed_len * sizeof *log->sealed);
    return u;
}

/* Keeps the file of a segment as a spare when one is wanted; else removes it. Failing leaves a file
 * too many, which the next start or snapshot removes. */
static void recycle(Log *log, const Sealed *segment)
{
    const DiskOps *ops = log->disk->ops;
    char name[LOG_NAME_LEN];
    Spare spare = {.room = segment->size};
    segment_name(name, segment->head.number);
    snprintf(spare.name, sizeof spare.name, "log/r%010" PRIu64 ".free", segment->head.number);
    uint64_t limit = log->options.segment_bytes;
    pthread_mutex_lock(&log->mutex);
    bool wanted = log_wants_spare(log) && segment->size >= limit / 4 && segment->size <= 2 * limit;
    pthread_mutex_unlock(&log->mutex);
    if (!wanted || ops->rename(log->disk, name, spare.name) != 0) {
        int ignored = ops->unlink(log->disk, name);
        (void)ignored;
        return;
    }
    /* The old name must be gone for good before the bytes change: it would name a wrong head (I1).
     */
    int err = ops->sync_dir(log->disk, "log");
    if (err) {
        (void)log_fail(log, err); /* no failed sync of the log's folder is gone on from */
        return;
    }
    if (ops->open(log->disk, spare.name, DISK_WRITE, &spare.file) != 0) return;
    pthread_mutex_lock(&log->mutex);
    log_add_spare(log, &spare);
    pthread_mutex_unlock(&log->mutex);
}

/* Keeps S1 to S3. */
int log_snapshot_commit(LogSnapshot *s)
{
    Log *log = s->log;
    const DiskOps *ops = log->disk->ops;
    int err = s->err;
    if (!err && s->chunk.len > CHUNK_HEAD_LEN) err = put_chunk(s);
    uint8_t end[END_LEN];
    end_put(end, s->chunks, s->bytes, s->all_crc, s->head_crc);
    if (!err) err = put(s, end, sizeof end);
    if (!err) err = ops->sync(s->file);

    LogPoint covers;
    uint64_t bytes, bad_at;
    const char *what;
    if (!err) err = snapshot_read(log->disk, s->temp, NULL, &covers, &bytes, &bad_at, &what);
    if (!err) err = ops->rename(log->disk, s->temp, s->name);
    if (err) {
        log_snapshot_abandon(s);
        return err;
    }
    err = ops->sync_dir(log->disk, "log");
    if (err) { /* it may or may not be there after a crash: both are fine, but nothing older may go
                */
        ops->close(s->file);
        buf_done(&s->chunk);
        mem_free(s);
        return log_fail(log, err); /* no failed sync of the log's folder is gone on from */
    }

    SnapshotFile made = {.covers = s->covers, .bytes = bytes};
    pthread_mutex_lock(&log->mutex);
    Unneeded u = let_go(log, &made);
    pthread_mutex_unlock(&log->mutex);
    for (size_t i = 0; i < u.snapshots_len; i++) {
        char name[LOG_NAME_LEN];
        snapshot_name(name, u.snapshots[i]);
        int ignored = ops->unlink(log->disk,
                                  name); /* the next snapshot tries again after a restart */
        (void)ignored;
    }
    for (size_t i = 0; i < u.segments_len; i++) recycle(log, &u.segments[i]);
    mem_free(u.snapshots);
    mem_free(u.segments);
    ops->close(s->file);
    buf_done(&s->chunk);
    mem_free(s);
    return 0;
}

void log_snapshot_abandon(LogSnapshot *s)
{
    if (!s) return;
    const DiskOps *ops = s->log->disk->ops;
    ops->close(s->file);
    int ignored = ops->unlink(s->log->disk, s->temp); /* the next start removes it too */
    (void)ignored;
    buf_done(&s->chunk);
    mem_free(s);
}
