/* log_hold.c: what a backup copies of a log while it is written, and a log that begins anew. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "log_model.h"

#define SEGMENT (4 * KIB)

static void write_some(Model *m, Log *log, int frames)
{
    for (int i = 0; i < frames; i++) {
        int err = model_append(m, log, (size_t)random_below(&m->random, 600), false);
        if (err == ERR_AGAIN) {
            MUST(model_commit(m, log) == 0);
            err = model_append(m, log, 100, false);
        }
        MUST(err == 0);
        if (random_below(&m->random, 3) == 0) MUST(model_commit(m, log) == 0);
    }
}

/* As a backup does: only the bytes that count. */
static MemDisk *copy_of(MemDisk *d, const LogHold *h)
{
    MemDisk *to = mem_disk_new(1);
    size_t n;
    const uint8_t *p = mem_disk_bytes(d, "format", &n);
    mem_disk_put(to, "format", p, n);
    for (size_t i = 0; i < h->parts_len; i++) {
        p = mem_disk_bytes(d, h->parts[i].name, &n);
        MUST(p && n >= h->parts[i].bytes);
        mem_disk_put(to, h->parts[i].name, p, (size_t)h->parts[i].bytes);
    }
    return to;
}

static int count_frame(void *ctx, const Frame *f, Str bytes)
{
    (void)bytes;
    *(uint64_t *)ctx += f->records;
    return 0;
}

static bool same(const LogPoint *a, const LogPoint *b)
{
    return a->epoch == b->epoch && a->holder == b->holder && a->next_seq == b->next_seq &&
           a->chain == b->chain && a->time_ns == b->time_ns;
}

static void replays_to(MemDisk *d, const LogPoint *want)
{
    LogOptions o = {.shard = 5, .segment_bytes = SEGMENT, .seed = 3};
    Log *log;
    Buf why = {0};
    uint64_t records = 0;
    LogReplay r = {&records, NULL, count_frame};
    LogPoint at, from;
    MUST(log_scan(&d->base, &(LogScan){0}) == 0);
    int err = log_open(&d->base, &o, &log, &why);
    if (err) fprintf(stderr, "%s: %s\n", model_context, buf_z(&why));
    MUST(err == 0);
    MUST(log_replay_retained(log, &r, &from, &at, &why) == 0);
    MUST(same(&at, want) && from.next_seq + records == at.next_seq);
    records = 0;
    MUST(log_replay(log, &r, &at, &why) == 0);
    MUST(same(&at, want) && log_torn_bytes(log) == 0);
    log_close(log);
    buf_done(&why);
}

static void holds_still(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        snprintf(model_context, sizeof model_context, "seed %d", (int)seed);
        Model m;
        model_init(&m, seed, SEGMENT);
        MemDisk *d = mem_disk_new(seed);
        Log *log;
        LogHold *h;
        LogStats before, after;
        Buf why = {0};
        MUST(model_open(&m, &d->base, &log, NULL) == 0 && model_claim(&m, log) == 0);
        for (uint32_t n = (uint32_t)random_below(&m.random, 5); n > 0; n--) {
            write_some(&m, log, 30);
            MUST(model_commit(&m, log) == 0);
            if (random_below(&m.random, 4)) MUST(model_snapshot(&m, log, 100) == 0);
        }
        MUST(model_commit(&m, log) == 0);
        LogPoint want = m.at;
        /* What is appended and not yet durable is not in it. */
        if (random_below(&m.random, 2)) MUST(model_append(&m, log, 50, true) == 0);
        MUST(log_hold(log, &h, &why) == 0 && h->last_seq == want.next_seq - 1);
        for (int i = 0; i < 4; i++) {
            write_some(&m, log, 40);
            MUST(model_commit(&m, log) == 0);
            MUST(model_snapshot(&m, log, 100) == 0);
        }
        log_stats(log, &before);
        MUST(log_hold_check(h, &why) == 0);
        MemDisk *copy = copy_of(d, h);
        replays_to(copy, &want);
        /* A byte of it that goes bad is noticed. */
        const LogPart *p = &h->parts[random_below(&m.random, h->parts_len)];
        size_t n;
        uint8_t *bytes = mem_disk_bytes(d, p->name, &n);
        uint64_t at = random_below(&m.random, p->bytes);
        bytes[at] ^= 4;
        int err = log_hold_check(h, &why);
        /* But for zeroes that fill a sector up, and frames that lie before the snapshot's point. */
        MUST(err == ERR_CORRUPT || err == 0);
        MUST(err || strstr(p->name, ".seg"));
        bytes[at] ^= 4;
        log_release(h);
        MUST(model_snapshot(&m, log, 100) == 0);
        log_stats(log, &after);
        MUST(after.segments < before.segments);
        log_close(log);
        MUST(model_open(&m, &d->base, &log, NULL) == 0);
        log_close(log);
        copy->base.ops->free(&copy->base);
        d->base.ops->free(&d->base);
        model_done(&m);
        buf_done(&why);
    }
}

static int fill(void *ctx, LogSnapshot *s)
{
    return log_snapshot_put(s, *(const Str *)ctx);
}

static int keep_snapshot(void *ctx, const LogPoint *covers, Str piece)
{
    (void)covers;
    buf_put_str(ctx, piece);
    return 0;
}

static void begins_anew(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        snprintf(model_context, sizeof model_context, "seed %d", (int)seed);
        Model m;
        model_init(&m, seed, SEGMENT);
        MemDisk *d = mem_disk_new(seed);
        Log *log;
        Buf why = {0}, got = {0};
        Str text = STR("the state");
        MUST(model_open(&m, &d->base, &log, NULL) == 0 && model_claim(&m, log) == 0);
        for (uint64_t i = 0; i < seed; i++) {
            write_some(&m, log, 30);
            MUST(model_commit(&m, log) == 0);
            if (seed % 2) MUST(model_snapshot(&m, log, 100) == 0);
        }
        log_close(log);
        LogOptions o = {.shard = 5, .segment_bytes = SEGMENT, .seed = seed};
        LogPoint from, at, now;
        LogReplay nobody = {0};
        MUST(log_open(&d->base, &o, &log, &why) == 0);
        MUST(log_replay_retained(log, &nobody, &from, &at, &why) == 0);
        at.next_seq += UINT64_C(1) << 50;
        at.epoch += 1000;
        MUST(log_begin_at(log, &at, fill, &text, &why) == 0);
        log_close(log);
        replays_to(d, &at);
        LogReplay r = {&got, keep_snapshot, NULL};
        MUST(log_open(&d->base, &o, &log, &why) == 0);
        MUST(log_replay(log, &r, &now, &why) == 0 && same(&now, &at));
        MUST(str_eq(buf_str(&got), text));
        log_close(log);
        /* Without its snapshot nobody takes what is left for a whole log. */
        char name[64];
        snprintf(name, sizeof name, "log/%020llu.snap", (unsigned long long)at.next_seq);
        mem_disk_remove(d, name);
        MUST(log_open(&d->base, &o, &log, &why) == ERR_CORRUPT);
        d->base.ops->free(&d->base);
        model_done(&m);
        buf_done(&why);
        buf_done(&got);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(holds_still),
                                       cmocka_unit_test(begins_anew)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
