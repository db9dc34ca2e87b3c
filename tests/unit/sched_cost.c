/* sched_cost.c: what a decision costs does not depend on how many tasks wait. Counted, not timed.
 * */
#include "sched_help.h"

enum { MODELS = 5, TENANTS = 20 };

typedef struct {
    double next, ready; /* steps a decision's task, a task made ready */
} Cost;

/* n tasks wait; then a thousand decisions are made, and as many tasks as they take come in. */
static Cost cost(size_t n, uint32_t max_batch, bool deadlines)
{
    Fix x;
    fix_open(&x);
    for (Sym m = 0; m < MODELS; m++) model(&x, M_A + m, max_batch);
    for (SchedDeviceId d = 0; d < 4; d++) {
        device(&x, d, M_A, M_B, M_C);
        sched_device_can_run(x.s, d, M_A + 3, V1, true);
        sched_device_can_run(x.s, d, M_A + 4, V1, true);
    }
    Random r;
    random_seed(&r, 7);
    Task *all = calloc(n, sizeof *all);
    assert_non_null(all);
    for (size_t i = 0; i < n; i++) {
        Task *t = &all[i];
        t->no = ++x.no;
        t->class = CLASS_STANDARD;
        t->tenant = 1 + (Sym)random_below(&r, TENANTS);
        t->model = M_A + (Sym)random_below(&r, MODELS);
        t->version = V1;
        if (deadlines) t->deadline_ns = SEC(100) + (int64_t)random_below(&r, SEC(100));
        sched_task_ready(x.s, t);
    }
    Cost c = {.ready = (double)x.s->steps / (double)n};
    uint64_t before = x.s->steps, taken = 0;
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(next(&x), SCHED_RUN);
        taken += x.d.tasks_len;
        for (size_t j = 0; j < x.d.tasks_len; j++) {
            Task *t = x.d.tasks[j];
            done(&x, x.d.device, t, MS(1));
            t->no = ++x.no; /* comes again as a new one */
            sched_task_ready(x.s, t);
        }
    }
    c.next = (double)(x.s->steps - before) / (double)taken;
    fix_close(&x);
    free(all);
    return c;
}

static void in_order(void **state)
{
    (void)state;
    for (uint32_t batch = 1; batch <= 256; batch *= 256) {
        Cost few = cost(10000, batch, false), many = cost(1000000, batch, false);
        print_message(
            "batch %3u: %.2f steps a task with 10 thousand waiting, %.2f with a million\n", batch,
            few.next, many.next);
        assert_true(many.next <= few.next * 1.1);
        assert_true(many.ready <= few.ready * 1.1);
    }
}

/* Deadlines in no order at all: the logarithm, no more. */
static void in_no_order(void **state)
{
    (void)state;
    Cost few = cost(10000, 64, true), many = cost(1000000, 64, true);
    print_message("no order: %.2f steps a task with 10 thousand waiting, %.2f with a million\n",
                  few.next, many.next);
    assert_true(many.next <= few.next * 2);
    assert_true(many.ready <= few.ready * 2);
}

/* Work that cannot run now is passed over by model, not by task. */
static void blocked_work_is_free(void **state)
{
    (void)state;
    Fix x;
    fix_open(&x);
    model(&x, M_A, 1);
    model(&x, M_B, 1);
    device(&x, 0, M_B, 0, 0);
    enum { N = 20000 };
    Task *all = calloc(N, sizeof *all);
    assert_non_null(all);
    for (size_t i = 0; i < N; i++) {
        all[i].no = ++x.no;
        all[i].tenant = 1;
        all[i].model = M_A;
        all[i].version = V1;
        sched_task_ready(x.s, &all[i]);
    }
    Task *b = task(&x, CLASS_HARVEST, 1, M_B, 0);
    uint64_t before = x.s->steps;
    assert_runs(&x, 0, b);
    assert_true(x.s->steps - before < 20);
    done_free(&x, 0, b, 1);
    fix_close(&x);
    free(all);
}

/* Nor is looking past solo tasks: there is no such thing. */
static void behind_solo_is_free(void **state)
{
    (void)state;
    Fix x;
    fix_open(&x);
    sched_model(x.s, M_A, V1, &(SchedModel){.max_batch = 64, .continuous = true});
    device(&x, 0, M_A, 0, 0);
    enum { N = 20000 };
    Task *all = calloc(N, sizeof *all);
    assert_non_null(all);
    for (size_t i = 0; i < N; i++) {
        all[i].no = ++x.no;
        all[i].tenant = 1;
        all[i].model = M_A;
        all[i].version = V1;
        all[i].solo = true;
        sched_task_ready(x.s, &all[i]);
    }
    Task *b = task(&x, CLASS_HARVEST, 1, M_A, 0);
    for (size_t i = 0; i < N / 2; i++) {
        uint64_t before = x.s->steps;
        assert_int_equal(next(&x), SCHED_RUN);
        assert_int_equal(x.d.tasks_len, 1);
        assert_int_equal(next(&x), SCHED_NONE);
        done(&x, 0, x.d.tasks[0], 1);
        assert_true(x.s->steps - before < 40);
    }
    sched_task_unready(x.s, b);
    free(b);
    fix_close(&x);
    free(all);
}

/* Nor do claims cost more than a look at every model: many wait, on many devices that take joins
 * all the time. Returns the mean steps of a decision; *ret_most: of the dearest. */
static double claims(Sym others, SchedDeviceId fleet, uint64_t *ret_most)
{
    enum { BATCH = 8 };
    Fix x;
    fix_open(&x);
    x.now = SEC(1);
    sched_model(x.s, M_A, V1, &(SchedModel){.max_batch = BATCH, .continuous = true});
    for (SchedDeviceId d = 0; d < fleet; d++) {
        device(&x, d, M_A, 0, 0);
        for (Sym m = 1; m <= others; m++) sched_device_can_run(x.s, d, M_A + m, V1, true);
    }
    size_t slots = (size_t)fleet * BATCH, claimed = 0;
    Task **runs = calloc(slots, sizeof(Task *));
    SchedDeviceId *where = calloc(slots, sizeof *where);
    assert_true(runs && where);
    uint64_t steps = 0, decisions = 0;
    *ret_most = 0;
    for (size_t i = 0; i < 20 * slots; i++) { /* one ends, one comes */
        Task *t = runs[i % slots];
        if (t) done_free(&x, where[i % slots], t, MS(1));
        runs[i % slots] = NULL;
        x.now += MS(1);
        task(&x, CLASS_STANDARD, 1, M_A, 0);
        for (Sym m = 1; i % (4 * slots) == slots && m <= others; m++)
            task(&x, m % 2 ? CLASS_CRITICAL : CLASS_STANDARD, 1, M_A + m, 0);
        while (true) {
            uint64_t before = x.s->steps;
            SchedAct act = next(&x);
            steps += x.s->steps - before;
            decisions++;
            *ret_most = MAX(*ret_most, x.s->steps - before);
            if (act == SCHED_NONE) break;
            for (size_t j = 0, k = 0; k < x.d.tasks_len; j++) {
                if (runs[(i + j) % slots]) continue;
                runs[(i + j) % slots] = x.d.tasks[k++];
                where[(i + j) % slots] = x.d.device;
            }
        }
        claimed += !list_empty(&x.s->claimed);
    }
    sched_sane(x.s);
    for (size_t i = 0; i < slots; i++) {
        if (runs[i]) done_free(&x, where[i], runs[i], 1);
    }
    while (next(&x) != SCHED_NONE) {
        for (size_t k = 0; k < x.d.tasks_len; k++) done_free(&x, x.d.device, x.d.tasks[k], 1);
    }
    free(runs);
    free(where);
    fix_close(&x);
    print_message("%u models wait for %u devices: %.1f steps a decision, at most %llu\n", others,
                  fleet, (double)steps / (double)decisions, (unsigned long long)*ret_most);
    assert_true(claimed > 100);
    return (double)steps / (double)decisions;
}

static void claims_are_cheap(void **state)
{
    (void)state;
    uint64_t most, most_large, most_models;
    double small = claims(10, 20, &most), large = claims(10, 200, &most_large);
    double models = claims(40, 200, &most_models);
    assert_true(large < small * 2 && models < large * 6);
    assert_true(most_large < most * 2 && most_models < most_large * 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_order),
        cmocka_unit_test(in_no_order),
        cmocka_unit_test(blocked_work_is_free),
        cmocka_unit_test(behind_solo_is_free),
        cmocka_unit_test(claims_are_cheap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
