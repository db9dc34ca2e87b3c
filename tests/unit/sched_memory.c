/* sched_memory.c: which model lies where: what is resident is preferred, what is evicted, what is
 * loaded ahead of demand, and that no device holds more than it has. One property a test. */
#include "sched_help.h"

static void prefers_resident(void **state)
{
    (void)state;
    Fix x;
    fix_open(&x);
    model(&x, M_A, 1);
    model(&x, M_B, 1);
    device(&x, 0, M_A, M_B, 0);
    device(&x, 1, M_A, M_B, 0);
    device(&x, 2, M_A, M_B, 0);
    sched_device_resident(x.s, 2, M_A, V1, true);
    sched_device_resident(x.s, 0, M_B, V1, true);
    Task *a1 = task(&x, CLASS_STANDARD, 1, M_A, 0), *a2 = task(&x, CLASS_STANDARD, 1, M_A, 0);
    Task *a3 = task(&x, CLASS_STANDARD, 1, M_A, 0);
    assert_runs(&x, 2, a1);
    assert_runs(&x, 1, a2); /* holds nothing */
    assert_runs(&x, 0, a3);
    done_free(&x, 0, a3, 1);
    done_free(&x, 1, a2, 1);
    done_free(&x, 2, a1, 1);
    fix_close(&x);
}

static void swap_waits_until_starved(void **state)
{
    (void)state;
    Fix x;
    fix_open(&x);
    x.now = SEC(50);
    model(&x, M_A, 1);
    sched_model(x.s, M_B, V1, &(SchedModel){.max_batch = 1, .load_ns = MS(400)});
    device(&x, 0, M_A, M_B, 0);
    sched_device_resident(x.s, 0, M_A, V1, true);
    Task *b = task(&x, CLASS_STANDARD, 1, M_B, 0);
    for (int i = 0; i < 8; i++) { /* b is the oldest, but for 800 ms resident work goes first */
        Task *a = task(&x, CLASS_STANDARD, 1, M_A, 0);
        assert_runs(&x, 0, a);
        x.now += MS(100);
        done_free(&x, 0, a, MS(100));
    }
    Task *a = task(&x, CLASS_STANDARD, 2, M_A, 0);
    sched_tenant_weight(x.s, 1, 1);
    Flow *f = &payer_of(x.s, 2)->flows[CLASS_STANDARD];
    assert_true(f->vt <= payer_of(x.s, 1)->flows[CLASS_STANDARD].vt);
    assert_runs(&x, 0, b); /* starved: back to the plain order, where it is older */
    done_free(&x, 0, b, MS(1));
    Task *critical = task(&x, CLASS_CRITICAL, 1, M_C, 0);
    sched_device_can_run(x.s, 0, M_C, V1, true);
    assert_runs(&x, 0, critical); /* affinity never crosses classes */
    done_free(&x, 0, critical, MS(1));
    assert_runs(&x, 0, a);
    done_free(&x, 0, a, MS(1));
    fix_close(&x);
}

/* Two backlogs on one device: they take turns by the bound, not by the task. */
static void backlogs_do_not_thrash(void **state)
{
    (void)state;
    Fix x;
    fix_open(&x);
    x.now = SEC(1);
    enum { N = 1000 };
    for (Sym m = M_A; m <= M_B; m++)
        sched_model(x.s, m, V1, &(SchedModel){.max_batch = 1, .load_ns = MS(500)});
    device(&x, 0, M_A, M_B, 0);
    for (int i = 0; i < N; i++) task(&x, CLASS_STANDARD, 1, i % 2 ? M_A : M_B, 0);
    int swaps = 0;
    Sym held = 0;
    for (int i = 0; i < N; i++) {
        assert_int_equal(next(&x), SCHED_RUN);
        if (x.d.model != held) { /* room for one only */
            swaps++;
            if (held) sched_device_resident(x.s, 0, held, V1, false);
            held = x.d.model;
            x.now += MS(500);
        }
        x.now += MS(20);
        done_free(&x, 0, x.d.tasks[0], MS(20));
    }
    assert_in_range(swaps, 2, 45); /* 20 s of work in turns of a second; 1000 by the task */
    fix_close(&x);
}

static void memory(void **state)
{
    (void)state;
    Fix x;
    fix_open(&x);
    /* B is dear to load and small, A is cheap to load and large: A's value is the least. */
    sched_model(x.s, M_A, V1,
                &(SchedModel){.max_batch = 1, .memory_bytes = 6 * GIB, .load_ns = SEC(1)});
    sched_model(x.s, M_B, V1,
                &(SchedModel){.max_batch = 1, .memory_bytes = 3 * GIB, .load_ns = SEC(9)});
    sched_model(x.s, M_C, V1,
                &(SchedModel){.max_batch = 1, .memory_bytes = 5 * GIB, .load_ns = SEC(2)});
    sched_device_add(x.s, 0, &(SchedDevice){.memory_bytes = 10 * GIB}, 0);
    for (Sym m = M_A; m <= M_C; m++) sched_device_can_run(x.s, 0, m, V1, true);
    sched_device_open(x.s, 0, true);
    Sym sequence[] = {M_A, M_B, M_C};
    for (size_t i = 0; i < 3; i++) {
        Task *t = task(&x, CLASS_STANDARD, 1, sequence[i], 0);
        if (i == 2) {
            assert_int_equal(next(&x), SCHED_UNLOAD);
            assert_int_equal(x.d.model, M_A);
            assert_int_equal(x.d.device, 0);
            sched_sane(x.s);
        }
        assert_runs(&x, 0, t);
        done_free(&x, 0, t, MS(1));
    }
    /* 8 of 10 GiB are held. One that needs all of it unloads both, the cheaper first. */
    sched_model(x.s, 200, V1, &(SchedModel){.max_batch = 1, .memory_bytes = 10 * GIB});
    sched_device_can_run(x.s, 0, 200, V1, true);
    Task *whole = task(&x, CLASS_STANDARD, 1, 200, 0);
    assert_int_equal(next(&x), SCHED_UNLOAD);
    assert_int_equal(x.d.model, M_C);
    assert_int_equal(next(&x), SCHED_UNLOAD);
    assert_int_equal(x.d.model, M_B);
    assert_runs(&x, 0, whole);
    done_free(&x, 0, whole, MS(1));
    /* One that never fits waits, and holds nobody up. */
    sched_model(x.s, 201, V1, &(SchedModel){.max_batch = 1, .memory_bytes = 10 * GIB + 1});
    sched_device_can_run(x.s, 0, 201, V1, true);
    Task *never = task(&x, CLASS_CRITICAL, 1, 201, 0), *small = task(&x, CLASS_BATCH, 1, M_B, 0);
    assert_int_equal(next(&x), SCHED_UNLOAD);
    assert_int_equal(x.d.model, 200);
    assert_runs(&x, 0, small);
    done_free(&x, 0, small, MS(1));
    assert_waits(&x, INT64_MAX);
    /* ... until it turns out to be smaller. */
    sched_model(x.s, 201, V1, &(SchedModel){.max_batch = 1, .memory_bytes = 7 * GIB});
    assert_runs(&x, 0, never);
    done_free(&x, 0, never, MS(1));
    fix_close(&x);
}

static void sized(Fix *x, Sym name, uint64_t gib, uint32_t min_warm)
{
    SchedModel m = {
        .max_batch = 1, .memory_bytes = gib * GIB, .load_ns = MS(100), .min_warm = min_warm};
    sched_model(x->s, name, V1, &m);
}

static void device_of_gib(Fix *x, SchedDeviceId id, uint64_t gib)
{
    sched_device_add(x->s, id, &(SchedDevice){.memory_bytes = gib * GIB}, x->now);
    for (Sym m = M_A; m <= M_C; m++) sched_device_can_run(x->s, id, m, V1, true);
    sched_device_open(x->s, id, true);
}

#define assert_act(x, want, dev, name)                                                             \
    do {                                                                                           \
        assert_int_equal(next(x), want);                                                           \
        assert_int_equal((x)->d.device, dev);                                                      \
        assert_int_equal((x)->d.model, name);                                                      \
        sched_sane((x)->s);                                                                        \
    } while (0)

/* What one worker says of a model's size counts on its own device. */
static void sizes_are_per_device(void **state)
{
    (void)state;
    Fix x;
    fix_open(&x);
    sized(&x, M_A, 2, 0);
    device_of_gib(&x, 0, 8);
    device_of_gib(&x, 1, 8);
    sched_device_needs(x.s, 0, M_A, V1, 1000 * GIB);
    assert_true(sched_model_starts(x.s, M_A, V1));
    Task *a = task(&x, CLASS_STANDARD, 1, M_A, 0), *b = task(&x, CLASS_STANDARD, 1, M_A, 0);
    assert_runs(&x, 1, a);
    assert_waits(&x, INT64_MAX);
    sched_device_needs(x.s, 1, M_A, V1, 9 * GIB); /* measured while it runs */
    done_free(&x, 1, a, MS(1));
    assert_waits(&x, INT64_MAX);
    SchedStanding st;
    sched_model_standing(x.s, M_A, V1, &st);
    assert_true(st.ready == 1 && st.open == 0 && !st.starts);
    sched_device_needs(x.s, 0, M_A, V1, 8 * GIB);
    assert_true(sched_model_starts(x.s, M_A, V1));
    assert_runs(&x, 0, b);
    done_free(&x, 0, b, MS(1));
    fix_close(&x);
}

static uint64_t held_by(const Fix *x, SchedDeviceId id)
{
    uint64_t sum = 0;
    LIST_FOR (f, &device_of(x->s, id)->fits, Fit, in_device) sum += f->resident ? fit_needs(f) : 0;
    return sum;
}

/* Whatever comes: no device is made to hold more than it has. */
static void memory_is_never_overcommitted(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        Fix x;
        Random r;
        fix_open(&x);
        random_seed(&r, seed);
        for (Sym m = M_A; m <= M_C; m++)
            sized(&x, m, 1 + random_below(&r, 6), (uint32_t)random_below(&r, 3));
        device_of_gib(&x, 0, 4 + random_below(&r, 6));
        device_of_gib(&x, 1, 4 + random_below(&r, 6));
        for (int step = 0; step < 500; step++) {
            x.now += MS(random_below(&r, 200));
            Task *t = task(&x, CLASS_STANDARD, 1, M_A + (Sym)random_below(&r, 3), 0);
            Task *runs[2] = {NULL, NULL};
            while (next(&x) != SCHED_NONE) {
                for (SchedDeviceId d = 0; d < 2; d++)
                    assert_true(held_by(&x, d) <= device_of(x.s, d)->memory_bytes);
                if (x.d.act == SCHED_RUN) runs[x.d.device] = x.d.tasks[0];
            }
            if (t->sched_queue) { /* it fits nowhere, or its turn has not come */
                sched_task_unready(x.s, t);
                free(t);
            }
            for (SchedDeviceId d = 0; d < 2; d++) {
                if (runs[d]) done_free(&x, d, runs[d], MS(1));
            }
        }
        fix_close(&x);
    }
}

/* Loaded before the first task, on as many devices as wanted, those with little on them first; and
 * again where it is lost. */
static void warm_ahead_of_demand(void **state)
{
    (void)state;
    Fix x;
    fix_open(&x);
    sized(&x, M_A, 2, 2);
    device_of_gib(&x, 0, 8);
    assert_act(&x, SCHED_LOAD, 0, M_A);
    assert_waits(&x, INT64_MAX); /* no second device */
    device_of_gib(&x, 1, 8);
    device_of_gib(&x, 2, 8);
    sched_device_resident(x.s, 1, M_B, V1, true);
    assert_act(&x, SCHED_LOAD, 2, M_A); /* 1 holds something */
    assert_waits(&x, INT64_MAX);
    sched_device_open(x.s, 2, false); /* its worker is cordoned, say */
    assert_act(&x, SCHED_LOAD, 1, M_A);
    sched_device_open(x.s, 2, true);
    sched_device_resident(x.s, 0, M_A, V1, false); /* its worker lost it: 1 and 2 are enough */
    assert_waits(&x, INT64_MAX);
    sched_device_remove(x.s, 1);
    assert_act(&x, SCHED_LOAD, 0, M_A);
    sched_model_pause(x.s, M_A, true);
    sched_device_resident(x.s, 0, M_A, V1, false);
    assert_waits(&x, INT64_MAX);
    sched_model_pause(x.s, M_A, false);
    assert_act(&x, SCHED_LOAD, 0, M_A);
    Task *t = task(&x, CLASS_STANDARD, 1, M_A, 0);
    assert_runs(&x, 0, t); /* no load in its way */
    done_free(&x, 0, t, MS(1));
    fix_close(&x);
}

/* The victim is another one; where there is none, work goes before warmth, which comes back once
 * the device has been idle for a while. */
static void what_is_warm_is_evicted_last(void **state)
{
    (void)state;
    Fix x;
    fix_open(&x);
    sized(&x, M_A, 4, 1);
    sized(&x, M_B, 4, 0);
    sized(&x, M_C, 4, 0);
    device_of_gib(&x, 0, 8);
    assert_act(&x, SCHED_LOAD, 0, M_A);
    for (int i = 0; i < 4; i++) { /* B is used much more than A, and goes all the same */
        Sym name = i == 3 ? M_C : M_B;
        Task *t = task(&x, CLASS_STANDARD, 1, name, 0);
        if (name == M_C) assert_act(&x, SCHED_UNLOAD, 0, M_B);
        assert_runs(&x, 0, t);
        done_free(&x, 0, t, MS(10));
    }
    sized(&x, M_C, 8, 0); /* it needs the whole device now */
    sched_device_resident(x.s, 0, M_C, V1, false);
    Task *t = task(&x, CLASS_STANDARD, 1, M_C, 0);
    assert_act(&x, SCHED_UNLOAD, 0, M_A);
    assert_runs(&x, 0, t);
    x.now += MS(50);
    done_free(&x, 0, t, MS(50));
    assert_waits(&x, x.now + SEC(1));
    x.now += SEC(1);
    assert_act(&x, SCHED_UNLOAD, 0, M_C);
    assert_act(&x, SCHED_LOAD, 0, M_A);
    /* Of two that are to be warm and do not fit beside each other, one stays. */
    sized(&x, M_B, 6, 1);
    x.now += SEC(60);
    assert_waits(&x, INT64_MAX);
    SchedStanding st;
    sched_model_standing(x.s, M_B, V1, &st);
    assert_true(st.open == 1 && st.warm == 0 && st.starts);
    sized(&x, M_A, 4, 0);
    assert_act(&x, SCHED_UNLOAD, 0, M_A);
    assert_act(&x, SCHED_LOAD, 0, M_B);
    fix_close(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prefers_resident),       cmocka_unit_test(swap_waits_until_starved),
        cmocka_unit_test(backlogs_do_not_thrash), cmocka_unit_test(memory),
        cmocka_unit_test(sizes_are_per_device),   cmocka_unit_test(memory_is_never_overcommitted),
        cmocka_unit_test(warm_ahead_of_demand),   cmocka_unit_test(what_is_warm_is_evicted_last),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
