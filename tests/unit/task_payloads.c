/* Payloads come back as they went in, in memory or spilled; files shrink when a backlog drains. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sim/mem_disk.h"
#include "task/payloads.h"

#define MANY 3000

static size_t draw_len(Random *r)
{
    uint64_t kind = random_below(r, 10);
    if (kind == 0) return 0;
    if (kind == 1) return 1 + (size_t)random_below(r, 64 * KIB);
    return 1 + (size_t)random_below(r, 700);
}

/* Bytes that tell their payload and place. */
static void fill(Buf *b, uint64_t seed, size_t n)
{
    buf_clear(b);
    Random r;
    random_seed(&r, seed);
    for (size_t i = 0; i < n; i++) buf_u8(b, (uint8_t)random_u64(&r));
}

static void payloads_come_back(void **state)
{
    (void)state;
    MemDisk *disk = mem_disk_new(1);
    mem_disk_put(disk, "spill/64", "old", 3); /* of a former run */
    Payloads *s = payloads_new();
    assert_int_equal(payloads_spill(s, &disk->base, "spill", 20 * KIB), 0);
    size_t left;
    assert_null(mem_disk_bytes(disk, "spill/64", &left));
    Payload *all = mem_new(MANY * sizeof *all);
    uint64_t *seeds = mem_new(MANY * sizeof *seeds);
    Random r;
    Buf want = {0};
    random_seed(&r, 7);
    uint64_t sum = 0;
    for (uint64_t step = 1; step < 30000; step++) {
        size_t i = (size_t)random_below(&r, MANY);
        if (all[i].len) {
            fill(&want, seeds[i], all[i].len);
            assert_true(str_eq(payloads_get(s, &all[i]), buf_str(&want)));
            sum -= all[i].len;
            payloads_drop(s, &all[i]);
            all[i] = (Payload){0};
        } else {
            seeds[i] = step;
            fill(&want, step, draw_len(&r));
            payloads_put(s, &all[i], buf_str(&want));
            sum += want.len;
        }
        assert_int_equal(payloads_bytes(s), sum);
        assert_true(payloads_memory_bytes(s) <= 20 * KIB + MANY * 32);
    }
    assert_true(mem_disk_used(disk) > MIB);
    for (size_t i = 0; i < MANY; i++) payloads_drop(s, &all[i]);
    assert_int_equal(payloads_bytes(s), 0);
    assert_int_equal(payloads_memory_bytes(s), 0);
    assert_int_equal(mem_disk_used(disk), 0); /* all files are cut */
    payloads_free(s);
    buf_done(&want);
    mem_free(all);
    mem_free(seeds);
    disk_free(&disk->base);
}

/* Read in the order in which they were put, many together; slots are used again meanwhile. */
static void a_queue_comes_back(void **state)
{
    (void)state;
    enum { LENGTH = 2000 };
    MemDisk *disk = mem_disk_new(3);
    Payloads *s = payloads_new();
    assert_int_equal(payloads_spill(s, &disk->base, "spill", 0), 0);
    static Payload queue[LENGTH];
    Buf want = {0};
    Random r;
    random_seed(&r, 11);
    for (uint64_t put = 0, got = 0; got < 40000;) {
        bool full = put - got == LENGTH, empty = put == got;
        if (!full && put < 40000 && (empty || random_below(&r, 100) < 52)) {
            Payload *p = &queue[put % LENGTH];
            *p = (Payload){0};
            fill(&want, put++, 220 + (size_t)random_below(&r, 30));
            payloads_put(s, p, buf_str(&want));
            if (random_below(&r, 50) == 0) { /* and one from somewhere */
                uint64_t i = got + random_below(&r, put - got);
                fill(&want, i, queue[i % LENGTH].len);
                assert_true(str_eq(payloads_get(s, &queue[i % LENGTH]), buf_str(&want)));
            }
        } else {
            Payload *p = &queue[got % LENGTH];
            fill(&want, got++, p->len);
            assert_true(str_eq(payloads_get(s, p), buf_str(&want)));
            payloads_drop(s, p);
        }
    }
    assert_int_equal(mem_disk_used(disk), 0);
    payloads_free(s);
    buf_done(&want);
    disk_free(&disk->base);
}

static void a_full_disk_leaves_them_in_memory(void **state)
{
    (void)state;
    MemDisk *disk = mem_disk_new(2);
    Payloads *s = payloads_new();
    assert_int_equal(payloads_spill(s, &disk->base, "spill", 0), 0);
    disk->capacity = 100 * KIB;
    static Payload all[1200];
    Buf want = {0};
    for (uint64_t i = 0; i < 1200; i++) {
        fill(&want, i, 250);
        payloads_put(s, &all[i], buf_str(&want));
    }
    assert_true(all[0].spilled);
    assert_false(all[1199].spilled);
    for (uint64_t i = 0; i < 1200; i++) {
        fill(&want, i, 250);
        assert_true(str_eq(payloads_get(s, &all[i]), buf_str(&want)));
        payloads_drop(s, &all[i]);
    }
    payloads_free(s);
    buf_done(&want);
    disk_free(&disk->base);
}

/* The only way on from damage is the log: the process ends. It is tried in a child. */
static bool survives(Payloads *s, const Payload *p)
{
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)!freopen("/dev/null", "w", stderr);
        signal(SIGABRT, SIG_DFL);
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        (void)payloads_get(s, p);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) || WTERMSIG(status) == SIGABRT);
    return WIFEXITED(status);
}

static void a_changed_byte_is_never_given_out(void **state)
{
    (void)state;
    enum { N = 600 };
    MemDisk *disk = mem_disk_new(4);
    Payloads *s = payloads_new();
    assert_int_equal(payloads_spill(s, &disk->base, "spill", 0), 0);
    static Payload all[N];
    Buf want = {0};
    for (uint64_t i = 0; i < N; i++) {
        fill(&want, i, 300);
        payloads_put(s, &all[i], buf_str(&want));
    }
    size_t len, slot = 320;
    uint8_t *bytes = mem_disk_bytes(disk, "spill/320", &len);
    assert_true(bytes && len > 100 * slot);
    bytes[50 * slot + 200] ^= 4;                        /* in a payload */
    bytes[60 * slot + 3] ^= 1;                          /* in its check */
    memcpy(bytes + 70 * slot, bytes + 71 * slot, slot); /* another's, whole */
    for (size_t i = 49; i < 73; i++)
        assert_int_equal(survives(s, &all[i]), i != 50 && i != 60 && i != 70);
    for (size_t i = 0; i < N; i++) payloads_drop(s, &all[i]);
    payloads_free(s);
    buf_done(&want);
    disk_free(&disk->base);
}

static void forgotten_ones_are_not_there(void **state)
{
    (void)state;
    Payloads *s = payloads_new();
    Payload p = {0};
    payloads_put(s, &p, STR("secret"));
    payloads_drop(s, &p);
    p.forgotten = true;
    assert_false(payload_is_there(&p));
    assert_int_equal(payloads_get(s, &p).n, 0);
    assert_int_equal(p.len, 6);
    payloads_drop(s, &p); /* no-op */
    payloads_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(payloads_come_back),
        cmocka_unit_test(a_queue_comes_back),
        cmocka_unit_test(a_full_disk_leaves_them_in_memory),
        cmocka_unit_test(a_changed_byte_is_never_given_out),
        cmocka_unit_test(forgotten_ones_are_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
