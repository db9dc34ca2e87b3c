/* segment.c: the bytes of segment files.
 *
 *     log/0000000007.seg            all integers little-endian
 *     ┌───────────────┐ 0
 *     │ file head     │ 512 bytes: magic, version, shard, number, generation, the previous
 *     │               │ segment's generation and end, LogPoint at the start, zeroes, CRC of all
 *     ├───────────────┤ 512                                                        before it
 *     │ group         │ head (48): magic, frames, generation, position, synced generation and
 *     │  entry entry  │            position, body length, CRC of all before it
 *     │  entry … 0000 │ entry: u32 length, u32 CRC, frame     zeroes up to the sector's end
 *     ├───────────────┤ n × 512
 *     │ group …       │ one group a commit
 *     ├───────────────┤ the tail
 *     │ (allocated)   │ zeroes, or what an earlier use of the file left there
 *     └───────────────┘
 *
 * Invariants
 *  I1  A file named *.seg has a durable, valid head: it is written and synced under another name,
 *      renamed, and the directory is synced before the first group is written.
 *  I2  Every use of a file has its own generation, higher than any before; its lower half is
 *      chance. The CRC of an entry covers generation and position, so neither stale nor misdirected
 *      bytes check, and nobody who does not read the disk can put bytes into a payload that look
 *      like a group.
 *  I3  One group is in flight at most: a group is written only after everything before it is
 *      durable. So a valid group head at p proves that every byte below p was durable, and a
 *      segment's head proves the segment before it up to prev_end. (The head says so itself:
 *      synced_position.)
 *  I4  A byte below the proven position that does not check is damage to acknowledged data:
 *      ERR_CORRUPT, never repaired, never skipped. The first bad byte above it begins the torn
 *      tail: nobody was told about it.
 *  I5  Groups begin on sectors and fill them, so no write touches a sector with durable data.
 *  I6  A file is never appended to after a recovery. The recovered end is written again and synced
 *      (the process before us may have seen its sync fail, after which the page cache says more
 *      than the disk), the file is cut there, and a new segment with a new generation names that
 *      end in its head. So torn bytes can never come back.
 *  I7  Every byte of the file below the tail is covered: by the head's CRC, a group head's, an
 *      entry's, or by being zero.
 *  I8  Room is allocated (zeroes written and synced) before a frame is accepted, so a commit
 *      neither meets a full disk nor changes the file's metadata.
 *  I9  Numbers are dense from the oldest segment that the older snapshot needs to the live one;
 *      each head names its predecessor's generation. Segments are removed from the oldest on. */
#include "log/segment.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define WINDOW_MIN (2 * MIB) /* one read: large enough that the call does not count */

static const uint8_t file_magic[8] = {'H', 'R', 'S', 'E', 'G', '\r', '\n', 0x1a};
#define GROUP_MAGIC UINT32_C(0x47524c48) /* "HLRG" */

/* ---- names ---- */

void segment_name(char ret[LOG_NAME_LEN], uint64_t number)
{
    snprintf(ret, LOG_NAME_LEN, "log/%010" PRIu64 ".seg", number);
}

bool segment_number(const char *file_name, uint64_t *ret)
{
    size_t n = strlen(file_name);
    return n >= 14 && n <= 24 && strcmp(file_name + n - 4, ".seg") == 0 &&
           parse_u64((Str){file_name, n - 4}, ret) == 0 && *ret > 0;
}

/* ---- the file's head ---- */

void segment_head_put(uint8_t ret[SEGMENT_HEAD_LEN], const SegmentHead *h)
{
    memset(ret, 0, SEGMENT_HEAD_LEN);
    memcpy(ret, file_magic, sizeof file_magic);
    store_u32(ret + 8, SEGMENT_VERSION);
    store_u32(ret + 12, h->start.shard);
    store_u64(ret + 16, h->number);
    store_u64(ret + 24, h->generation);
    store_u64(ret + 32, h->prev_generation);
    store_u64(ret + 40, h->prev_end);
    store_u64(ret + 48, h->start.epoch);
    store_u64(ret + 56, h->start.holder);
    store_u64(ret + 64, h->start.next_seq);
    store_u64(ret + 72, h->start.chain);
    store_u64(ret + 80, (uint64_t)h->start.time_ns);
    store_u32(ret + SEGMENT_HEAD_LEN - 4, crc32c(0, ret, SEGMENT_HEAD_LEN - 4));
}

int segment_head_get(const uint8_t p[SEGMENT_HEAD_LEN], SegmentHead *ret)
{
    if (memcmp(p, file_magic, sizeof file_magic) != 0) return ERR_CORRUPT;
    if (load_u32(p + SEGMENT_HEAD_LEN - 4) != crc32c(0, p, SEGMENT_HEAD_LEN - 4))
        return ERR_CORRUPT;
    if (load_u32(p + 8) > SEGMENT_VERSION) return ERR_UNSUPPORTED;
    SegmentHead h = {
        .number = load_u64(p + 16),
        .generation = load_u64(p + 24),
        .prev_generation = load_u64(p + 32),
        .prev_end = load_u64(p + 40),
        .start = {.shard = load_u32(p + 12),
                  .epoch = load_u64(p + 48),
                  .holder = load_u64(p + 56),
                  .next_seq = load_u64(p + 64),
                  .chain = load_u64(p + 72),
                  .time_ns = (int64_t)load_u64(p + 80)},
    };
    if (h.generation == 0 || h.start.next_seq == 0) return ERR_CORRUPT;
    *ret = h;
    return 0;
}

int segment_head_load(Disk *d, const char *name, SegmentHead *ret, uint64_t *ret_size)
{
    DiskFile *file;
    uint8_t bytes[SEGMENT_HEAD_LEN];
    uint64_t size;
    size_t n;
    int err = d->ops->open(d, name, DISK_READ, &file);
    if (err) return err;
    err = d->ops->size(file, &size);
    if (!err) err = d->ops->read(file, 0, bytes, sizeof bytes, &n);
    d->ops->close(file);
    if (err) return err;
    if (ret_size) *ret_size = size;
    return n < sizeof bytes ? ERR_CORRUPT : segment_head_get(bytes, ret);
}

/* ---- groups and entries ---- */

void group_head_put(uint8_t ret[GROUP_HEAD_LEN], const GroupHead *h)
{
    store_u32(ret, GROUP_MAGIC);
    store_u32(ret + 4, h->frames);
    store_u64(ret + 8, h->generation);
    store_u64(ret + 16, h->position);
    store_u64(ret + 24, h->synced_generation);
    store_u64(ret + 32, h->synced_position);
    store_u32(ret + 40, h->body_len);
    store_u32(ret + 44, crc32c(0, ret, 44));
}

bool group_head_get(const uint8_t p[GROUP_HEAD_LEN], GroupHead *ret)
{
    if (load_u32(p) != GROUP_MAGIC || load_u32(p + 44) != crc32c(0, p, 44)) return false;
    GroupHead h = {
        .frames = load_u32(p + 4),
        .generation = load_u64(p + 8),
        .position = load_u64(p + 16),
        .synced_generation = load_u64(p + 24),
        .synced_position = load_u64(p + 32),
        .body_len = load_u32(p + 40),
    };
    if (h.body_len > GROUP_BODY_MAX || (uint64_t)h.frames * ENTRY_HEAD_LEN > h.body_len)
        return false;
    if (h.synced_generation > h.generation) return false;
    if (h.synced_generation == h.generation && h.synced_position > h.position) return false;
    *ret = h;
    return true;
}

uint32_t entry_crc(uint64_t generation, uint64_t position, const uint8_t *frame, uint32_t len)
{
    uint8_t place[20];
    store_u64(place, generation);
    store_u64(place + 8, position);
    store_u32(place + 16, len);
    return crc32c(crc32c(0, place, sizeof place), frame, len);
}

/* ---- reading ---- */

int segment_reader_open(SegmentReader *r, Disk *d, const char *name, uint64_t sealed_end)
{
    *r = (SegmentReader){0};
    uint64_t size;
    int err = segment_head_load(d, name, &r->head, &size);
    if (err) return err;
    err = d->ops->open(d, name, DISK_READ, &r->file);
    if (err) return err;
    r->sealed = sealed_end != 0;
    r->end = r->sealed ? sealed_end : size;
    r->at = SEGMENT_HEAD_LEN;
    return 0;
}

void segment_reader_done(SegmentReader *r)
{
    if (r->file) r->file->ops->close(r->file);
    mem_free(r->window);
    *r = (SegmentReader){0};
}

/* The n bytes at `at`, in the window. 1; 0 when the file (or the log's part of it) is shorter;
 * ERR_IO. */
static int want(SegmentReader *r, uint64_t at, size_t n, const uint8_t **ret)
{
    if (at > r->end || n > r->end - at) return 0;
    if (at < r->window_at || at + n > r->window_at + r->window_len) {
        size_t cap = MAX(n, (size_t)MIN(r->end, (uint64_t)WINDOW_MIN));
        if (cap > r->window_cap) {
            mem_free(r->window);
            r->window = NULL;
            r->window_cap = r->window_len = 0;
            r->window = mem_grow(NULL, cap);
            r->window_cap = cap;
        }
        r->window_at = at;
        r->window_len = 0;
        size_t ask = (size_t)MIN((uint64_t)r->window_cap, r->end - at);
        int err = r->file->ops->read(r->file, at, r->window, ask, &r->window_len);
        CHECK(err <= 0);
        if (err) return err;
        if (r->window_len < n) return 0;
    }
    *ret = r->window + (at - r->window_at);
    return 1;
}

/* Does a later group of this use of the file prove that the byte at `bad` was durable? (I3) */
static int proven(SegmentReader *r, uint64_t bad)
{
    for (uint64_t p = bad / SECTOR * SECTOR + SECTOR; p < r->end; p += SECTOR) {
        const uint8_t *bytes = NULL;
        int got = want(r, p, GROUP_HEAD_LEN, &bytes);
        if (got <= 0) return got;
        GroupHead h;
        if (load_u32(bytes) == GROUP_MAGIC && group_head_get(bytes, &h) &&
            h.generation == r->head.generation && h.position == p &&
            h.synced_generation == h.generation && h.synced_position > bad)
            return 1;
    }
    return 0;
}

/* What is at `bad` does not check: damage (ERR_CORRUPT), or the torn tail (0), which begins at
 * r->at. */
static int bad_spot(SegmentReader *r, uint64_t bad, const char *what, uint64_t torn)
{
    int is_proven = r->sealed ? 1 : proven(r, bad);
    if (is_proven < 0) return is_proven;
    if (is_proven) {
        r->bad_at = bad;
        r->bad_what = what;
        return ERR_CORRUPT;
    }
    r->end = r->at; /* the next call says the same */
    r->group_end = 0;
    r->torn_bytes = torn;
    return 0;
}

static int next_group(SegmentReader *r, SegmentItem *ret)
{
    const uint8_t *bytes = NULL;
    GroupHead h;
    if (r->at == r->end) return 0;
    int got = want(r, r->at, GROUP_HEAD_LEN, &bytes);
    if (got < 0) return got;
    if (got == 0) return bad_spot(r, r->at, "the file is shorter than its groups", 0);
    if (!group_head_get(bytes, &h) || h.generation != r->head.generation || h.position != r->at) {
        /* Zeroes and stale bytes are what a clean tail looks like; only a head of ours is torn. */
        bool ours = load_u32(bytes) == GROUP_MAGIC && load_u64(bytes + 8) == r->head.generation;
        return bad_spot(r, r->at, "the head of a group does not check",
                        ours ? MIN((uint64_t)SECTOR, r->end - r->at) : 0);
    }
    r->group_at = r->last_group_at = r->at;
    r->group_end = r->at + GROUP_HEAD_LEN + h.body_len;
    r->entries_left = h.frames;
    *ret = (SegmentItem){.is_group = true, .offset = r->at, .group = h};
    r->at += GROUP_HEAD_LEN;
    return 1;
}

/* Behind the last entry: the padding, and that the group's length is what its entries take. 0 = go
 * on. */
static int end_group(SegmentReader *r, bool *ret_ended)
{
    uint64_t next = r->group_at + group_len(r->group_end - r->group_at - GROUP_HEAD_LEN);
    const uint8_t *bytes = NULL;
    *ret_ended = true;
    if (r->sealed && r->at == r->end) { /* a recovery cut the padding off (I6) */
        r->group_end = 0;
        return 0;
    }
    if (r->at != r->group_end)
        return bad_spot(r, r->at, "a group is longer than its entries", next - r->at);
    int got = want(r, r->at, (size_t)(next - r->at), &bytes);
    if (got < 0) return got;
    if (got == 0) return bad_spot(r, r->at, "the file is shorter than its groups", r->end - r->at);
    CHECK(bytes);
    for (uint64_t i = 0; i < next - r->at; i++)
        if (bytes[i])
            return bad_spot(r, r->at + i, "a group's padding is not zero", next - r->at - i);
    r->at = next;
    r->group_end = 0;
    *ret_ended = false;
    return 0;
}

int segment_reader_next(SegmentReader *r, SegmentItem *ret)
{
    if (r->bad_what) return ERR_CORRUPT;
    if (r->group_end != 0 && r->entries_left == 0) {
        bool ended;
        int err = end_group(r, &ended);
        if (err || ended) return err;
    }
    if (r->group_end == 0) return next_group(r, ret);

    /* A recovery may have cut a torn group behind its good entries: those count (I6). */
    if (r->sealed && r->at == r->end) {
        r->group_end = 0;
        return 0;
    }
    const uint8_t *bytes = NULL;
    uint64_t left = r->group_end - r->at;
    uint32_t len = 0;
    int got = left < ENTRY_HEAD_LEN ? 0 : want(r, r->at, ENTRY_HEAD_LEN, &bytes);
    if (got > 0) {
        CHECK(bytes);
        len = load_u32(bytes);
        got = len > left - ENTRY_HEAD_LEN || len > FRAME_LEN_MAX
                  ? 0
                  : want(r, r->at, ENTRY_HEAD_LEN + len, &bytes);
    }
    if (got < 0) return got;
    if (got == 0 ||
        load_u32(bytes + 4) != entry_crc(r->head.generation, r->at, bytes + ENTRY_HEAD_LEN, len))
        return bad_spot(r, r->at, "the CRC of a frame does not fit", r->group_end - r->at);
    *ret = (SegmentItem){.offset = r->at, .frame = {(const char *)bytes + ENTRY_HEAD_LEN, len}};
    r->at += ENTRY_HEAD_LEN + len;
    r->entries_left--;
    return 1;
}
