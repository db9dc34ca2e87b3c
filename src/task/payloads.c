#include "task/payloads.h"

#include "base/pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOT_MIN     64         /* bytes; below it a pointer costs as much as what it saves */
#define CHECK_BYTES  8          /* of a slot, before the payload */
#define CLASSES_MAX  128        /* four a doubling: up to 64 << 31 bytes */
#define POOLS        17         /* up to 1 KiB in memory; beyond it what malloc takes is small */
#define SHRINK_BYTES (4 * MIB)  /* a file is cut when that much of its end is free */
#define TAIL_BYTES   (64 * KIB) /* neighbours are written together */
#define WINDOW_BYTES (32 * KIB) /* and read together, when they are asked for in turn */

/* One size class. Bit i of `used` is slot i. */
typedef struct {
    DiskFile *file; /* NULL: not made yet */
    uint64_t *used;
    size_t words, cap; /* words behind the last used slot are 0; cap: allocated */
    size_t low;        /* every word before it is full */
    uint64_t file_len; /* bytes, those of the tail included */
    Buf tail;          /* put but not written yet: the bytes at tail_at */
    uint64_t tail_at;
    Buf window; /* the file's bytes at window_at, as they are there now */
    uint64_t window_at, asked_at /* the last payload asked for */;
} Class;

struct Payloads {
    uint64_t bytes, memory_bytes, memory_max;
    Disk *disk; /* NULL: all in memory */
    char folder[32];
    Buf read; /* the spilled payload asked for last */
    Class classes[CLASSES_MAX];
    Pool pools[POOLS]; /* of the same classes: payloads in memory */
};

/* Class k holds up to SLOT_MIN * (4 + k % 4) / 4 << k / 4 bytes. */
static uint64_t class_size(unsigned k)
{
    return ((uint64_t)SLOT_MIN * (4 + k % 4) / 4) << (k / 4);
}

static unsigned class_of(uint64_t len)
{
    unsigned k = 0;
    if (len > SLOT_MIN) k = 4 * (63 - (unsigned)__builtin_clzll((len - 1) / SLOT_MIN));
    while (class_size(k) < len) k++;
    CHECK(k < CLASSES_MAX);
    return k;
}

Payloads *payloads_new(void)
{
    Payloads *s = mem_new(sizeof *s);
    s->memory_max = UINT64_MAX;
    for (unsigned k = 0; k < POOLS; k++) pool_init(&s->pools[k], class_size(k));
    return s;
}

typedef struct {
    Payloads *s;
    int err;
} Emptying;

static void remove_one(void *ctx, const char *name)
{
    Emptying *e = ctx;
    char path[96];
    snprintf(path, sizeof path, "%s/%.40s", e->s->folder, name);
    int err = e->s->disk->ops->unlink(e->s->disk, path);
    if (err) e->err = err;
}

int payloads_spill(Payloads *s, Disk *disk, const char *folder, uint64_t memory_max)
{
    CHECK(!s->disk);
    snprintf(s->folder, sizeof s->folder, "%s", folder);
    s->disk = disk;
    Emptying e = {.s = s};
    int err = disk->ops->make_dir(disk, folder);
    if (!err) err = disk->ops->list(disk, folder, remove_one, &e);
    if (!err) err = e.err;
    if (err) s->disk = NULL;
    s->memory_max = memory_max;
    return err;
}

void payloads_free(Payloads *s)
{
    if (!s) return;
    for (unsigned k = 0; k < CLASSES_MAX; k++) {
        Class *c = &s->classes[k];
        char path[96];
        snprintf(path, sizeof path, "%s/%llu", s->folder, (unsigned long long)class_size(k));
        if (c->file) {
            c->file->ops->close(c->file);
            (void)s->disk->ops->unlink(s->disk, path); /* a start empties the folder anyway */
        }
        mem_free(c->used);
        buf_done(&c->tail);
        buf_done(&c->window);
    }
    for (unsigned k = 0; k < POOLS; k++) pool_done(&s->pools[k]);
    buf_done(&s->read);
    mem_free(s);
}

/* ---- slots ---- */

static uint64_t slot_take(Class *c)
{
    while (c->low < c->words && c->used[c->low] == UINT64_MAX) c->low++;
    if (c->low == c->words) {
        if (c->words == c->cap) {
            c->cap = c->cap ? c->cap * 2 : 16;
            c->used = mem_grow(c->used, c->cap * sizeof *c->used);
        }
        c->used[c->words++] = 0;
    }
    unsigned bit = (unsigned)__builtin_ctzll(~c->used[c->low]);
    c->used[c->low] |= UINT64_C(1) << bit;
    return (uint64_t)c->low * 64 + bit;
}

static void slot_give(Class *c, uint64_t slot, uint64_t size)
{
    size_t word = (size_t)(slot / 64);
    CHECK(word < c->words && (c->used[word] >> slot % 64 & 1));
    c->used[word] &= ~(UINT64_C(1) << slot % 64);
    c->low = MIN(c->low, word);
    while (c->words && !c->used[c->words - 1]) c->words--;
    c->low = MIN(c->low, c->words);
    uint64_t end = (uint64_t)c->words * 64 * size;
    if (end <= c->tail_at) buf_clear(&c->tail); /* nobody's any more */
    if (c->tail.len) return;
    if (c->file && (c->file_len > end + SHRINK_BYTES || (!end && c->file_len)) &&
        !c->file->ops->truncate(c->file, end))
        c->file_len = end;
}

/* False: the disk takes no more; the tail stays. */
static bool flush(Class *c)
{
    if (c->file->ops->write(c->file, c->tail_at, c->tail.data, c->tail.len)) {
        buf_clear(&c->window); /* some of it may have been written */
        return false;
    }
    uint64_t from = MAX(c->tail_at, c->window_at);
    uint64_t to = MIN(c->tail_at + c->tail.len, c->window_at + c->window.len);
    if (from < to)
        memcpy(c->window.data + (from - c->window_at), c->tail.data + (from - c->tail_at),
               to - from);
    buf_clear(&c->tail);
    return true;
}

static bool spill(Payloads *s, Payload *p, Str bytes)
{
    unsigned k = class_of(CHECK_BYTES + bytes.n);
    Class *c = &s->classes[k];
    if (!c->file) {
        char path[96];
        snprintf(path, sizeof path, "%s/%llu", s->folder, (unsigned long long)class_size(k));
        if (s->disk->ops->open(s->disk, path, DISK_WRITE | DISK_CREATE, &c->file)) return false;
    }
    if (c->tail.len >= TAIL_BYTES && !flush(c)) return false;
    uint64_t slot = slot_take(c), at = slot * class_size(k);
    if (c->tail.len && at != c->tail_at + c->tail.len && !flush(c)) {
        slot_give(c, slot, class_size(k));
        return false;
    }
    if (!c->tail.len) c->tail_at = at;
    size_t rest = class_size(k) - CHECK_BYTES - bytes.n;
    buf_u64(&c->tail, chain64(at, bytes.p, bytes.n));
    buf_put_str(&c->tail, bytes);
    memset(buf_extend(&c->tail, rest), 0, rest);
    c->file_len = MAX(c->file_len, at + class_size(k));
    p->slot = slot;
    p->spilled = true;
    return true;
}

/* ---- payloads ---- */

void payloads_put(Payloads *s, Payload *p, Str bytes)
{
    CHECK(bytes.n <= UINT32_MAX);
    p->len = (uint32_t)bytes.n;
    if (!bytes.n) return;
    s->bytes += bytes.n;
    if (s->disk && bytes.n > SLOT_MIN / 2 && s->memory_bytes + bytes.n > s->memory_max &&
        spill(s, p, bytes))
        return;
    unsigned k = class_of(bytes.n);
    p->bytes = k < POOLS ? pool_take(&s->pools[k]) : mem_new(bytes.n);
    memcpy(p->bytes, bytes.p, bytes.n);
    s->memory_bytes += bytes.n;
}

static void stop(const Payloads *s, unsigned k, const char *why)
{
    say_error("cannot read %s/%llu back (%s): stopping; the next start has it from the log",
              s->folder, (unsigned long long)class_size(k), why);
    abort();
}

/* At least len bytes at `at`, at most n, into b. */
static void read_back(Payloads *s, unsigned k, uint64_t at, size_t len, size_t n, Buf *b)
{
    const Class *c = &s->classes[k];
    size_t got = 0;
    buf_clear(b);
    int err = c->file->ops->read(c->file, at, buf_extend(b, n), n, &got);
    if (err) stop(s, k, err_text(err));
    if (got < len) stop(s, k, "the file is shorter than it was");
    b->len = got;
}

static bool lies_in(const Buf *b, uint64_t b_at, uint64_t at, size_t len)
{
    return at >= b_at && at + len <= b_at + b->len;
}

/* The slot at `at`, of len bytes with its check; borrowed. */
static const uint8_t *slot_bytes(Payloads *s, unsigned k, uint64_t at, size_t len)
{
    Class *c = &s->classes[k];
    uint64_t before = c->asked_at;
    c->asked_at = at;
    if (lies_in(&c->tail, c->tail_at, at, len)) return c->tail.data + (at - c->tail_at);
    if (lies_in(&c->window, c->window_at, at, len)) return c->window.data + (at - c->window_at);
    /* A queue is read in the order in which it was written; what is asked for here and there is
     * read alone. */
    bool in_turn = at > before && at - before < WINDOW_BYTES && class_size(k) < WINDOW_BYTES;
    if (!in_turn) {
        read_back(s, k, at, len, len, &s->read);
        return s->read.data;
    }
    read_back(s, k, at, len, WINDOW_BYTES, &c->window);
    c->window_at = at;
    return c->window.data;
}

Str payloads_get(Payloads *s, const Payload *p)
{
    if (!payload_is_there(p)) return STR("");
    if (!p->spilled) return (Str){(const char *)p->bytes, p->len};
    unsigned k = class_of(CHECK_BYTES + p->len);
    uint64_t at = p->slot * class_size(k);
    const uint8_t *slot = slot_bytes(s, k, at, CHECK_BYTES + p->len);
    if (load_u64(slot) != chain64(at, slot + CHECK_BYTES, p->len))
        stop(s, k, "its bytes are not those that were written");
    return (Str){(const char *)slot + CHECK_BYTES, p->len};
}

void payloads_drop(Payloads *s, Payload *p)
{
    if (!payload_is_there(p)) return;
    s->bytes -= p->len;
    if (p->spilled) {
        unsigned k = class_of(CHECK_BYTES + p->len);
        slot_give(&s->classes[k], p->slot, class_size(k));
    } else {
        unsigned k = class_of(p->len);
        s->memory_bytes -= p->len;
        if (k < POOLS)
            pool_give(&s->pools[k], p->bytes);
        else
            mem_free(p->bytes);
    }
    p->bytes = NULL;
    p->spilled = false;
}

uint64_t payloads_bytes(const Payloads *s)
{
    return s->bytes;
}

uint64_t payloads_memory_bytes(const Payloads *s)
{
    return s->memory_bytes;
}
