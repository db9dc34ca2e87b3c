/* log_crash.c: the log on a disk that crashes at every operation there is, and on one where every
 * operation fails once. After each: nothing acknowledged is lost, nothing is invented, and the log
 * goes on. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "log_model.h"

#define SEGMENT (8 * KIB)

/* One process' life: open, claim, then `rounds` of appends, commits, now and then a snapshot. Any
 * error ends it. */
static int live(Model *m, MemDisk *d, int rounds)
{
    Log *log;
    Random r;
    random_seed(&r, m->at.next_seq * 31 + (uint64_t)rounds);
    Buf why = {0};
    int err = model_open(m, &d->base, &log, &why);
    if (err != 0 && err != ERR_IO && err != ERR_NOSPC) fprintf(stderr, "%s\n", buf_z(&why));
    buf_done(&why);
    if (err) {
        MUST(err == ERR_IO || err == ERR_NOSPC); /* weather; never ERR_CORRUPT */
        return err;
    }
    err = model_claim(m, log);
    if (err == ERR_AGAIN && !(err = model_commit(m, log))) err = model_claim(m, log);
    if (err == ERR_NOSPC) { /* not a failure of the log: the claim was refused */
        log_close(log);
        return err;
    }
    for (int i = 0; i < rounds && !err; i++) {
        uint64_t n = random_below(&r, 4);
        for (uint64_t k = 0; k < n && !err; k++) {
            size_t bytes = (size_t)random_below(&r, random_below(&r, 8) ? 700 : 9000);
            err = model_append(m, log, bytes, random_below(&r, 2));
            if (err == ERR_AGAIN || err == ERR_NOSPC) {
                err = model_commit(m, log);
                break;
            }
        }
        if (!err && random_below(&r, 5)) err = model_commit(m, log);
        if (!err &&
            random_below(&r, m->options.seed % 2 ? 2 : 10) == 0) { /* often: files are recycled */
            int snap = model_snapshot(m, log, (size_t)random_below(&r, 3000));
            MUST(snap == 0 || snap == ERR_IO || snap == ERR_NOSPC);
        }
    }
    bool failed = err != 0;
    if (failed) {
        MUST(err == ERR_IO || err == ERR_CLOSED || (d->fail_at && err == d->fail_err));
        uint64_t seq;
        MUST(log_commit(log, &seq) == ERR_CLOSED);
        MUST(model_append(m, log, 10, true) == ERR_CLOSED);
    }
    log_close(log);
    return err;
}

static uint64_t count_ops(uint64_t seed, int rounds)
{
    Model m;
    MemDisk *d = mem_disk_new(seed);
    model_init(&m, seed, SEGMENT);
    MUST(live(&m, d, rounds) == 0);
    uint64_t ops = d->ops;
    disk_free(&d->base);
    model_done(&m);
    return ops;
}

static void say_fault(void *ctx, const char *file, uint64_t offset, bool acknowledged,
                      const char *what)
{
    (void)ctx;
    if (acknowledged)
        fprintf(stderr, "%s: %s, byte %d: %s\n", model_context, file, (int)offset, what);
}

static void check_scan(Disk *d)
{
    int err = log_scan(d, &(LogScan){.fault = say_fault});
    MUST(err == 0);
}

static void crash_at_every_operation(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        uint64_t ops = count_ops(seed, 40);
        for (uint64_t at = 1; at <= ops; at++) {
            for (int how = 0; how < CRASHES; how++) {
                snprintf(model_context, sizeof model_context, "seed %d, crash %d at %d", (int)seed,
                         how, (int)at);
                Model m;
                MemDisk *d = mem_disk_new(seed);
                model_init(&m, seed, SEGMENT);
                d->die_at = at;
                (void)!live(&m, d, 40);
                mem_disk_crash(d, (MemCrash)how);
                check_scan(&d->base);
                /* And again while it recovers or soon after, three times: torn upon torn. */
                for (uint64_t again = 0; again < 3; again++) {
                    d->die_at = d->ops + 1 + random_below(&d->random, 60);
                    (void)!live(&m, d, 6);
                    mem_disk_crash(d, (MemCrash)random_below(&d->random, CRASHES));
                    check_scan(&d->base);
                }
                MUST(live(&m, d, 8) == 0);
                check_scan(&d->base);
                MUST(live(&m, d, 0) == 0);
                disk_free(&d->base);
                model_done(&m);
            }
        }
    }
}

static void fail_every_operation(void **state)
{
    (void)state;
    static const int errors[] = {ERR_IO, ERR_NOSPC};
    for (uint64_t seed = 1; seed <= 8; seed++) {
        uint64_t ops = count_ops(seed, 40);
        for (uint64_t at = 1; at <= ops; at++) {
            for (size_t e = 0; e < ARRAY_LEN(errors); e++) {
                for (int how = 0; how < CRASHES; how++) {
                    snprintf(model_context, sizeof model_context, "seed %d, %s at %d, crash %d",
                             (int)seed, err_text(errors[e]), (int)at, how);
                    Model m;
                    MemDisk *d = mem_disk_new(seed);
                    model_init(&m, seed, SEGMENT);
                    d->fail_at = at;
                    d->fail_err = errors[e];
                    (void)!live(&m, d, 40);
                    d->fail_at = 0;
                    /* Without a crash first: the next process sees the page cache, which may say
                     * more than the disk after the failed sync. What it accepts must outlive a
                     * crash. */
                    if (at % 2) {
                        MUST(live(&m, d, 0) == 0);
                    }
                    mem_disk_crash(d, (MemCrash)how);
                    MUST(live(&m, d, 5) == 0);
                    check_scan(&d->base);
                    disk_free(&d->base);
                    model_done(&m);
                }
            }
        }
    }
}

static void long_lives(void **state)
{
    (void)state;
    for (uint64_t seed = 100; seed < 200; seed++) {
        Model m;
        MemDisk *d = mem_disk_new(seed);
        model_init(&m, seed, SEGMENT);
        for (int life = 0; life < 40; life++) {
            snprintf(model_context, sizeof model_context, "seed %d, life %d", (int)seed, life);
            if (random_below(&d->random, 8)) d->die_at = d->ops + 1 + random_below(&d->random, 400);
            /* Now and then the disk is nearly full: no spare but a recycled one. */
            if (random_below(&d->random, 3) == 0)
                d->capacity = mem_disk_used(d) + random_below(&d->random, 20000);
            (void)!live(&m, d, 100);
            d->capacity = 0;
            mem_disk_crash(d, (MemCrash)random_below(&d->random, CRASHES));
            check_scan(&d->base);
        }
        MUST(live(&m, d, 1) == 0);
        check_scan(&d->base);
        disk_free(&d->base);
        model_done(&m);
    }
}

int main(void)
{
    say_setup(SAY_ERROR, SAY_TEXT, "test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crash_at_every_operation),
        cmocka_unit_test(fail_every_operation),
        cmocka_unit_test(long_lives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
