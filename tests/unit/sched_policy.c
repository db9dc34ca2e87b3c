/* sched_policy.c: what the first policy does with shares, batches, order. One property a test. */
#include "sched_help.h"

static void classes_deadlines_age(void **state)
{
    (void)state;
    Fix x;
    fix_open(&x);
    model(&x, M_A, 1);
    device(&x, 0, M_A, 0, 0);
    Task *harvest = task(&x, CLASS_HARVEST, 1, M_A, 1), *batch = task(&x, CLASS_BATCH, 1, M_A, 0);
    Task *old = task(&x, CLASS_STANDARD, 1, M_A, 0), *young = task(&x, CLASS_STANDARD, 1, M_A, 0);
    Task *late = task(&x, CLASS_STANDARD, 2, M_A, SEC(9));
    Task *soon = task(&x, CLASS_STANDARD, 3, M_A, SEC(5));
    Task *critical = task(&x, CLASS_CRITICAL, 1, M_A, 0);
    Task *want[] = {critical, soon, late, old, young, batch, harvest};
    assert_int_equal(sched_ready(x.s), 7);
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        assert_runs(&x, 0, want[i]);
        assert_waits(&x, INT64_MAX); /* one device, busy */
        done_free(&x, 0, want[i], MS(10));
    }
    assert_int_equal(sched_ready(x.s), 0);
    assert_waits(&x, INT64_MAX);
    fix_close(&x);
}

static void requeued_keeps_its_age(void **state)
{
    (void)state;
    Fix x;
    fix_open(&x);
    model(&x, M_A, 1);
    device(&x, 0, M_A, 0, 0);
    Task *t[5];
    for (int i = 0; i < 5; i++) t[i] = task(&x, CLASS_STANDARD, 1, M_A, 0);
    assert_runs(&x, 0, t[0]);
    sched_task_unready(x.s, t[0]); /* as the core tells when the lease is applied: no-op */
    sched_task_unready(x.s, t[2]); /* canceled */
    sched_task_unready(x.s, t[4]);
    done(&x, 0, t[0], 0);
    sched_task_ready(x.s, t[0]);
    sched_sane(x.s);
    sched_task_ready(x.s, t[4]);
    sched_task_ready(x.s, t[2]); /* out of order */
    sched_sane(x.s);
    int order[] = {0, 1, 2, 3, 4};
    for (size_t i = 0; i < 5; i++) {
        assert_runs(&x, 0, t[order[i]]);
        done_free(&x, 0, t[order[i]], MS(1));
    }
    fix_close(&x);
}

/* Two backlogged tenants, weights 1 : 3, tasks of 40 and 10 ms in different models: device time
 * goes 1 : 3. */
static void shares_follow_weights(void **state)
{
    (void)state;
    for (uint32_t max_batch = 1; max_batch <= 4; max_batch += 3) {
        Fix x;
        fix_open(&x);
        model(&x, M_A, max_batch);
        model(&x, M_B, max_batch);
        device(&x, 0, M_A, M_B, 0);
        sched_device_resident(x.s, 0, M_A, V1, true);
        sched_device_resident(x.s, 0, M_B, V1, true);
        sched_tenant_weight(x.s, 1, 1);
        sched_tenant_weight(x.s, 2, 3);
        for (int i = 0; i < 20000; i++) {
            task(&x, CLASS_STANDARD, 1, M_A, 0);
            task(&x, CLASS_STANDARD, 2, M_B, 0);
        }
        double used[3] = {0};
        while (x.now < SEC(200)) {
            assert_int_equal(next(&x), SCHED_RUN);
            for (size_t i = 0; i < x.d.tasks_len; i++) {
                Task *t = x.d.tasks[i];
                int64_t ns = t->tenant == 1 ? MS(40) : MS(10);
                x.now += ns;
                used[t->tenant] += (double)ns;
                done_free(&x, 0, t, ns);
            }
        }
        double ratio = used[2] / used[1];
        assert_true(ratio > 2.9 && ratio < 3.1);
        SchedDeviceStats stats;
        sched_device_stats(x.s, 0, x.now, &stats);
        assert_int_equal(stats.busy_ns, x.now);
        sched_sane(x.s);
        while (x.s->ready) { /* the rest, so that nothing leaks */
            assert_int_equal(next(&x), SCHED_RUN);
            for (size_t i = 0; i < x.d.tasks_len; i++) done_free(&x, 0, x.d.tasks[i], MS(1));
        }
        fix_close(&x);
    }
}

/* A tenant that comes late, or comes back, or only had work that nobody can run, gets its share
 * from now on, not the past as well. */
static void idling_earns_nothing(void **state)
{
    (void)state;
    Fix x;
    fix_open(&x);
    model(&x, M_A, 1);
    device(&x, 0, M_A, 0, 0);
    Task *stuck = task(&x, CLASS_STANDARD, 3, M_B, 0); /* nobody runs M_B */
    for (int i = 0; i < 1000; i++) task(&x, CLASS_STANDARD, 1, M_A, 0);
    for (int i = 0; i < 500; i++) {
        assert_int_equal(next(&x), SCHED_RUN);
        x.now += MS(10);
        done_free(&x, 0, x.d.tasks[0], MS(10));
    }
    for (int i = 0; i < 100; i++) {
        task(&x, CLASS_STANDARD, 2, M_A, 0);
        task(&x, CLASS_STANDARD, 3, M_A, 0);
    }
    int count[4] = {0};
    for (int i = 0; i < 150; i++) {
        assert_int_equal(next(&x), SCHED_RUN);
        count[x.d.tasks[0]->tenant]++;
        done_free(&x, 0, x.d.tasks[0], MS(10));
    }
    for (int tenant = 1; tenant <= 3; tenant++)
        assert_true(count[tenant] >= 48 && count[tenant] <= 52);
    sched_task_unready(x.s, stuck);
    free(stuck);
    while (next(&x) == SCHED_RUN) done_free(&x, 0, x.d.tasks[0], MS(10));
    fix_close(&x);
}

static void batches_fill_up(void **state)
{
    (void)state;
    Fix x;
    fix_open(&x);
    model(&x, M_A, 4);
    model(&x, M_B, 4);
    device(&x, 0, M_A, M_B, 0);
    Task *low = task(&x, CLASS_BATCH, 1, M_A, 0), *other = task(&x, CLASS_BATCH, 1, M_B, 0);
    Task *a = task(&x, CLASS_STANDARD, 1, M_A, 0), *b = task(&x, CLASS_STANDARD, 1, M_A, 0);
    Task *c = task(&x, CLASS_STANDARD, 1, M_A, SEC(1)), *lower = task(&x, CLASS_HARVEST, 1, M_A, 0);
    assert_runs(&x, 0, c, a, b, low); /* the lower class fills, in its order */
    assert_false(x.d.join);
    assert_waits(&x, INT64_MAX);
    done_free(&x, 0, a, 1);
    done_free(&x, 0, b, 1);
    done_free(&x, 0, c, 1);
    assert_waits(&x, INT64_MAX); /* one is still there */
    done_free(&x, 0, low, 1);
    assert_runs(&x, 0, other);
    done_free(&x, 0, other, 1);
    assert_runs(&x, 0, lower);
    done_free(&x, 0, lower, 1);
    fix_close(&x);
}

static void batch_delay(void **state)
{
    (void)state;
    Fix x;
    fix_open(&x);
    x.now = SEC(1000);
    sched_model(x.s, M_A, V1, &(SchedModel){.max_batch = 3, .batch_delay_ms = 20});
    model(&x, M_B, 1);
    device(&x, 0, M_A, M_B, 0);
    Task *a = task(&x, CLASS_STANDARD, 1, M_A, 0);
    assert_waits(&x, x.now + MS(20));
    x.now += MS(5);
    Task *b = task(&x, CLASS_STANDARD, 2, M_A, 0);
    assert_waits(&x, x.now + MS(15)); /* since the oldest */
    x.now += MS(15);
    assert_runs(&x, 0, a, b);
    SchedDeviceStats stats;
    sched_device_stats(x.s, 0, x.now, &stats);
    assert_int_equal(stats.idle_ns, MS(20));
    assert_int_equal(stats.idle_with_work_ns, MS(20));
    x.now += MS(3);
    done_free(&x, 0, a, MS(1));
    done_free(&x, 0, b, MS(2));
    sched_device_stats(x.s, 0, x.now + MS(4), &stats);
    assert_int_equal(stats.busy_ns, MS(3));
    assert_int_equal(stats.idle_ns, MS(24));
    assert_int_equal(stats.idle_with_work_ns, MS(20));
    x.now += MS(4);

    /* A full batch goes at once. */
    Task *t[3];
    for (int i = 0; i < 3; i++) t[i] = task(&x, CLASS_STANDARD, 1, M_A, 0);
    assert_runs(&x, 0, t[0], t[1], t[2]);
    for (int i = 0; i < 3; i++) done_free(&x, 0, t[i], MS(1));

    /* So does critical work, and takes the others along. */
    t[0] = task(&x, CLASS_STANDARD, 1, M_A, 0);
    assert_waits(&x, x.now + MS(20));
    t[1] = task(&x, CLASS_CRITICAL, 1, M_A, 0);
    assert_runs(&x, 0, t[1], t[0]);
    for (int i = 0; i < 2; i++) done_free(&x, 0, t[i], MS(1));

    /* No waiting into a deadline. */
    t[0] = task(&x, CLASS_STANDARD, 1, M_A, x.now + MS(10));
    assert_waits(&x, t[0]->deadline_ns - model_cost(model_of(x.s, M_A, V1)));
    x.now = x.wake;
    assert_runs(&x, 0, t[0]);
    done_free(&x, 0, t[0], MS(1));

    /* The device does other work meanwhile if that is resident, even of a lower class. */
    t[0] = task(&x, CLASS_STANDARD, 1, M_A, 0);
    t[1] = task(&x, CLASS_BATCH, 1, M_B, 0);
    assert_waits(&x, x.now + MS(20));
    sched_device_resident(x.s, 0, M_B, V1, true);
    assert_runs(&x, 0, t[1]);
    done_free(&x, 0, t[1], MS(1));
    x.now += MS(20);
    assert_runs(&x, 0, t[0]);
    done_free(&x, 0, t[0], MS(1));
    fix_close(&x);
}

static void joins_running(void **state)
{
    (void)state;
    Fix x;
    fix_open(&x);
    sched_model(x.s, M_A, V1,
                &(SchedModel){.max_batch = 3, .batch_delay_ms = 20, .continuous = true});
    model(&x, M_B, 4);
    device(&x, 0, M_A, M_B, 0);
    Task *a = task(&x, CLASS_STANDARD, 1, M_A, 0);
    assert_runs(&x, 0, a);
    Task *other = task(&x, CLASS_HARVEST, 1, M_B, 0);
    assert_waits(&x, INT64_MAX); /* not another model */
    Task *b = task(&x, CLASS_BATCH, 1, M_A, 0), *c = task(&x, CLASS_STANDARD, 1, M_A, 0);
    Task *d = task(&x, CLASS_STANDARD, 1, M_A, 0);
    assert_runs(&x, 0, c, d);
    assert_true(x.d.join);
    assert_waits(&x, INT64_MAX); /* full */
    done_free(&x, 0, a, 1);
    assert_runs(&x, 0, b);
    done_free(&x, 0, b, 1);
    done_free(&x, 0, c, 1);
    sched_device_open(x.s, 0, false);
    Task *e = task(&x, CLASS_STANDARD, 1, M_A, 0);
    assert_waits(&x, INT64_MAX); /* closed */
    sched_device_open(x.s, 0, true);
    done_free(&x, 0, d, 1);
    device(&x, 1, M_A, 0, 0);
    sched_device_resident(x.s, 1, M_A, V1, true);
    assert_runs(&x, 0, e); /* both hold it: the first */
    Task *f = task(&x, CLASS_STANDARD, 1, M_A, 0);
    assert_runs(&x, 1, f); /* the least loaded */
    done_free(&x, 0, e, 1);
    done_free(&x, 1, f, 1);
    assert_runs(&x, 0, other);
    done_free(&x, 0, other, 1);
    fix_close(&x);
}

/* What waits for a device stops the joins of lower classes, nobody else's. */
static void higher_class_stops_joins(void **state)
{
    (void)state;
    Fix x;
    fix_open(&x);
    sched_model(x.s, M_A, V1, &(SchedModel){.max_batch = 8, .continuous = true});
    model(&x, M_B, 1);
    model(&x, M_C, 1);
    device(&x, 0, M_A, M_B, M_C);
    for (Sym m = M_A; m <= M_C; m++) sched_device_resident(x.s, 0, m, V1, true);
    Task *first = task(&x, CLASS_STANDARD, 1, M_A, 0);
    assert_runs(&x, 0, first);
    Task *b = task(&x, CLASS_STANDARD, 1, M_B, 0);
    Task *a0 = task(&x, CLASS_CRITICAL, 1, M_A, 0), *a1 = task(&x, CLASS_STANDARD, 1, M_A, 0);
    Task *a2 = task(&x, CLASS_BATCH, 1, M_A, 0), *a3 = task(&x, CLASS_HARVEST, 1, M_A, 0);
    assert_runs(&x, 0, a0, a1); /* takes no lower ones along */
    assert_true(x.d.join);
    assert_waits(&x, INT64_MAX);
    Task *c = task(&x, CLASS_CRITICAL, 1, M_C, 0), *a4 = task(&x, CLASS_STANDARD, 1, M_A, 0);
    Task *a5 = task(&x, CLASS_CRITICAL, 1, M_A, 0);
    assert_runs(&x, 0, a5);
    assert_waits(&x, INT64_MAX);
    done_free(&x, 0, a5, 1);
    done_free(&x, 0, a0, 1);
    done_free(&x, 0, a1, 1);
    assert_waits(&x, INT64_MAX); /* one still runs */
    done_free(&x, 0, first, 1);
    assert_runs(&x, 0, c);
    done_free(&x, 0, c, 1);
    assert_runs(&x, 0, b); /* older than a4 */
    done_free(&x, 0, b, 1);
    assert_runs(&x, 0, a4, a2, a3);

    /* The claim ends with its reason: canceled, paused, or the device cannot run it any more. */
    for (int why = 0; why < 3; why++) {
        c = task(&x, CLASS_CRITICAL, 1, M_C, 0);
        Task *more = task(&x, CLASS_STANDARD, 1, M_A, 0);
        assert_waits(&x, INT64_MAX);
        if (why == 0) sched_task_unready(x.s, c);
        if (why == 1) sched_model_pause(x.s, M_C, true);
        if (why == 2) sched_device_can_run(x.s, 0, M_C, V1, false);
        assert_runs(&x, 0, more);
        if (why == 1) sched_model_pause(x.s, M_C, false);
        done_free(&x, 0, more, 1);
        sched_task_unready(x.s, c);
        free(c);
    }
    done_free(&x, 0, a2, 1);
    done_free(&x, 0, a3, 1);
    done_free(&x, 0, a4, 1);
    fix_close(&x);
}

/* Within a class: a backlog that is before it in the order runs on, one that trickles does not. */
static void starved_stops_joins(void **state)
{
    (void)state;
    Fix x;
    fix_open(&x);
    x.now = SEC(1);
    sched_model(x.s, M_A, V1, &(SchedModel){.max_batch = 2, .continuous = true});
    model(&x, M_B, 1);
    device(&x, 0, M_A, M_B, 0);
    Task *a = task(&x, CLASS_STANDARD, 1, M_A, SEC(5));
    assert_runs(&x, 0, a);
    Task *b = task(&x, CLASS_STANDARD, 1, M_B, 0);
    x.now += MS(99);
    Task *a1 = task(&x, CLASS_STANDARD, 1, M_A, 0);
    assert_runs(&x, 0, a1); /* younger, but b waits not long enough yet */
    x.now += MS(1);
    done_free(&x, 0, a1, 1);
    a1 = task(&x, CLASS_STANDARD, 1, M_A, SEC(5));
    assert_runs(&x, 0, a1); /* before b in the order */
    done_free(&x, 0, a1, 1);
    a1 = task(&x, CLASS_STANDARD, 1, M_A, 0);
    assert_waits(&x, INT64_MAX);
    Task *a2 = task(&x, CLASS_STANDARD, 1, M_A, SEC(5));
    assert_waits(&x, INT64_MAX); /* too late */
    Task *a3 = task(&x, CLASS_CRITICAL, 1, M_A, 0);
    assert_runs(&x, 0, a3); /* a higher class is never stopped */
    done_free(&x, 0, a3, 1);
    done_free(&x, 0, a, 1);
    assert_runs(&x, 0, b);
    Task *b2 = task(&x, CLASS_STANDARD, 1, M_B, 0);
    done_free(&x, 0, b, 1);
    assert_runs(&x, 0, a2, a1); /* in the order again */
    done_free(&x, 0, a1, 1);
    a1 = task(&x, CLASS_STANDARD, 1, M_A, 0);
    x.now += MS(99);
    assert_runs(&x, 0, a1); /* M_B was served: it starves anew */
    done_free(&x, 0, a1, 1);
    done_free(&x, 0, a2, 1);
    assert_runs(&x, 0, b2);
    done_free(&x, 0, b2, 1);
    fix_close(&x);
}

/* Devices kept busy by tasks of 100 ms, of a continuous model (M_A), that join each other all the
 * time; then one of another model comes. */
enum { STREAM_NS = 100000000, STREAM_SLOTS = 64, STREAM_DEVICES = 4 };
typedef struct {
    SchedDeviceId devices;
    TaskClass class, others;
    bool solo;
    int64_t load_ns;
    /* what came of it */
    int64_t waited;                 /* until it started; -1: never */
    size_t joins;                   /* after it came */
    int64_t gap_ns[STREAM_DEVICES]; /* the longest time without a start there until it started */
    int64_t idle_ns;                /* of all devices together */
} Stream;

static void stream(Stream *c)
{
    Fix x;
    fix_open(&x);
    x.now = SEC(1);
    sched_model(x.s, M_A, V1, &(SchedModel){.max_batch = 16, .continuous = true});
    sched_model(x.s, M_B, V1, &(SchedModel){.max_batch = 4, .load_ns = c->load_ns});
    for (SchedDeviceId d = 0; d < c->devices; d++) {
        device(&x, d, M_A, M_B, 0);
        sched_device_resident(x.s, d, M_A, V1, true);
    }
    struct {
        Task *t;
        SchedDeviceId device;
        int64_t end_ns;
    } slots[STREAM_SLOTS] = {0};
    Task *b = NULL;
    int64_t since = 0, last[STREAM_DEVICES] = {0};
    c->waited = -1;
    for (int step = 0; step < 1000; step++, x.now += MS(5)) {
        for (int i = 0; i < STREAM_SLOTS; i++) {
            if (!slots[i].t || slots[i].end_ns > x.now) continue;
            done(&x, slots[i].device, slots[i].t, STREAM_NS / 16);
            if (slots[i].t != b) free(slots[i].t);
            slots[i].t = NULL;
        }
        if (c->devices > 1 || step % 2) task(&x, c->others, 2, M_A, 0);
        if (step == 100) {
            b = task(&x, c->class, 1, M_B, 0);
            if (c->solo) solo(&x, b);
            since = x.now;
            for (SchedDeviceId d = 0; d < c->devices; d++) last[d] = x.now;
        }
        while (next(&x) == SCHED_RUN) {
            SchedDeviceId d = x.d.device;
            if (b && c->waited < 0) c->gap_ns[d] = MAX(c->gap_ns[d], x.now - last[d]);
            if (x.d.tasks[0] == b) c->waited = x.now - since;
            c->joins += b && x.d.join;
            last[d] = x.now;
            for (size_t k = 0, i = 0; k < x.d.tasks_len; i++) {
                assert_true(i < STREAM_SLOTS);
                if (slots[i].t) continue;
                slots[i].t = x.d.tasks[k++];
                slots[i].device = x.d.device;
                slots[i].end_ns = x.now + STREAM_NS;
            }
        }
        if (step % 10 == 0) sched_sane(x.s);
    }
    c->idle_ns = 0;
    for (SchedDeviceId d = 0; d < c->devices; d++) {
        SchedDeviceStats stats;
        sched_device_stats(x.s, d, x.now, &stats);
        c->idle_ns += stats.idle_ns;
        assert_int_equal(stats.idle_with_work_ns, 0);
    }
    for (int i = 0; i < STREAM_SLOTS; i++) {
        if (!slots[i].t) continue;
        done(&x, slots[i].device, slots[i].t, 1);
        if (slots[i].t != b) free(slots[i].t);
    }
    while (next(&x) == SCHED_RUN) {
        for (size_t k = 0; k < x.d.tasks_len; k++) {
            done(&x, x.d.device, x.d.tasks[k], 1);
            if (x.d.tasks[k] != b) free(x.d.tasks[k]);
        }
    }
    free(b);
    fix_close(&x);
}

static void no_model_starves_another(void **state)
{
    (void)state;
    for (int alone = 0; alone < 2; alone++) {
        for (SchedDeviceId devices = 1; devices <= 3; devices += 2) {
            Stream higher = {.devices = devices, .solo = alone, .others = CLASS_STANDARD};
            higher.class = CLASS_CRITICAL;
            stream(&higher);
            assert_in_range(higher.waited, 1, STREAM_NS);
            Stream equal = {.devices = devices, .solo = alone, .others = CLASS_STANDARD};
            equal.class = CLASS_STANDARD;
            stream(&equal);
            assert_in_range(equal.waited, MS(100), MS(100) + STREAM_NS + MS(5));
            equal.load_ns = MS(300);
            stream(&equal);
            assert_in_range(equal.waited, MS(600), MS(600) + STREAM_NS + MS(5));
            assert_true(equal.idle_ns <= MS(20)); /* until the stream came to each */
            if (devices == 1) continue;
            int stopped = 0; /* one device drains, the others take what comes */
            for (SchedDeviceId d = 0; d < devices; d++) {
                stopped += higher.gap_ns[d] > MS(40);
                assert_true(higher.gap_ns[d] <= STREAM_NS + MS(5));
            }
            assert_int_equal(stopped, 1);
        }
        Stream lower = {.devices = 1, .solo = alone, .class = CLASS_BATCH};
        lower.others = CLASS_STANDARD;
        stream(&lower);
        assert_int_equal(lower.waited, -1);
        assert_in_range(lower.joins, 440, 460); /* every one, as if it were not there */
    }
}

/* No device is drained for what may start elsewhere. */
static void no_needless_drain(void **state)
{
    (void)state;
    Fix x;
    fix_open(&x);
    x.now = SEC(1);
    sched_model(x.s, M_A, V1, &(SchedModel){.max_batch = 8, .continuous = true});
    sched_model(x.s, M_B, V1, &(SchedModel){.max_batch = 2, .continuous = true});
    model(&x, M_C, 1);
    device(&x, 0, M_A, M_B, M_C);
    device(&x, 1, M_B, M_C, 0);
    sched_device_resident(x.s, 0, M_A, V1, true);
    Task *a[4], *b[4];
    a[0] = task(&x, CLASS_BATCH, 1, M_A, 0);
    assert_runs(&x, 0, a[0]);
    b[0] = task(&x, CLASS_STANDARD, 1, M_B, 0);
    a[1] = task(&x, CLASS_BATCH, 1, M_A, 0);
    assert_runs(&x, 1, b[0]); /* idle */
    assert_runs(&x, 0, a[1]);
    b[1] = task(&x, CLASS_STANDARD, 1, M_B, 0);
    a[2] = task(&x, CLASS_BATCH, 1, M_A, 0);
    assert_runs(&x, 1, b[1]); /* by joining */
    assert_runs(&x, 0, a[2]);
    b[2] = solo(&x, task(&x, CLASS_STANDARD, 1, M_B, 0));
    done_free(&x, 1, b[0], 1);
    a[3] = task(&x, CLASS_BATCH, 1, M_A, 0);
    assert_runs(&x, 0, a[3]); /* device 1 drains for it already */
    done_free(&x, 1, b[1], 1);
    assert_runs(&x, 1, b[2]);
    for (int i = 0; i < 4; i++) done_free(&x, 0, a[i], 1);
    a[0] = task(&x, CLASS_BATCH, 1, M_A, 0);
    assert_runs(&x, 0, a[0]);

    /* A device that drains is given up as soon as its claimer runs elsewhere. */
    b[3] = task(&x, CLASS_STANDARD, 1, M_B, 0);
    a[1] = task(&x, CLASS_BATCH, 1, M_A, 0);
    assert_waits(&x, INT64_MAX);
    done_free(&x, 1, b[2], 1);
    assert_runs(&x, 1, b[3]);
    assert_runs(&x, 0, a[1]);

    /* While it drains, an earlier end elsewhere is taken by whoever is due, not kept. */
    Task *c = task(&x, CLASS_CRITICAL, 1, M_C, 0);
    a[2] = task(&x, CLASS_BATCH, 1, M_A, 0);
    assert_waits(&x, INT64_MAX);
    done_free(&x, 1, b[3], 1);
    assert_runs(&x, 1, c);
    assert_runs(&x, 0, a[2]);
    done_free(&x, 1, c, 1);
    for (int i = 0; i < 3; i++) done_free(&x, 0, a[i], 1);
    fix_close(&x);
}

/* Two continuous models with a backlog on one device: it changes over once in a while, not all the
 * time, and tenants have their shares as ever. */
static void backlogs_take_turns(void **state)
{
    (void)state;
    Fix x;
    fix_open(&x);
    SchedModel is = {.max_batch = 4, .continuous = true, .memory_bytes = GIB, .load_ns = MS(400)};
    sched_model(x.s, M_A, V1, &is);
    sched_model(x.s, M_B, V1, &is);
    sched_device_add(x.s, 0, &(SchedDevice){.memory_bytes = GIB}, 0);
    sched_device_can_run(x.s, 0, M_A, V1, true);
    sched_device_can_run(x.s, 0, M_B, V1, true);
    sched_device_open(x.s, 0, true);
    sched_tenant_weight(x.s, 2, 3);
    struct {
        Task *t;
        int64_t end_ns;
    } slots[4] = {0};
    size_t swaps = 0;
    int64_t used[3] = {0}, ends[3] = {0}, longest = 0;
    uint64_t loaded = 0;
    for (int64_t n = 0; x.now < SEC(400); n++, x.now += MS(10)) {
        for (int i = 0; i < 4; i++) {
            Task *t = slots[i].t;
            if (!t || slots[i].end_ns > x.now) continue;
            used[t->tenant] += MS(10);
            longest = MAX(longest, ends[t->tenant] ? x.now - ends[t->tenant] : 0);
            ends[t->tenant] = x.now;
            done_free(&x, 0, t, MS(10));
            slots[i].t = NULL;
        }
        for (Sym m = 0; m < 2; m++) {
            while (model_of(x.s, M_A + m, V1)->ready < 20)
                task(&x, CLASS_STANDARD, 1 + m, M_A + m, 0);
        }
        SchedAct act;
        while ((act = next(&x)) != SCHED_NONE) {
            if (act == SCHED_UNLOAD) continue;
            bool swap = x.d.tasks[0]->model != loaded;
            loaded = x.d.tasks[0]->model;
            swaps += swap;
            for (size_t k = 0, i = 0; k < x.d.tasks_len; i++) {
                assert_true(i < 4);
                if (slots[i].t) continue;
                slots[i].t = x.d.tasks[k++];
                slots[i].end_ns = x.now + MS(40 + (n + (int64_t)i) % 3 * 10) + (swap ? MS(400) : 0);
            }
        }
    }
    double ratio = (double)used[2] / (double)used[1];
    print_message("%zu swaps in 400 s, shares 1 : %.2f, longest wait %.1f s\n", swaps, ratio,
                  (double)longest / 1e9);
    assert_true(ratio > 2.9 && ratio < 3.1);
    assert_in_range(swaps, 100, 500);
    assert_true(longest < SEC(5));
    for (int i = 0; i < 4; i++) {
        if (slots[i].t) done_free(&x, 0, slots[i].t, 1);
    }
    SchedAct act;
    while ((act = next(&x)) != SCHED_NONE) {
        for (size_t k = 0; k < x.d.tasks_len; k++) done_free(&x, 0, x.d.tasks[k], 1);
    }
    fix_close(&x);
}

static void no_head_of_line(void **state)
{
    (void)state;
    Fix x;
    fix_open(&x);
    model(&x, M_A, 1);
    model(&x, M_B, 1);
    device(&x, 0, M_A, 0, 0);
    device(&x, 1, M_B, 0, 0);
    Task *a1 = task(&x, CLASS_CRITICAL, 1, M_A, 0), *a2 = task(&x, CLASS_CRITICAL, 1, M_A, 0);
    Task *nobody = task(&x, CLASS_CRITICAL, 1, M_C, 0), *b = task(&x, CLASS_HARVEST, 1, M_B, 0);
    assert_runs(&x, 0, a1);
    assert_runs(&x, 1, b);
    assert_waits(&x, INT64_MAX);
    done_free(&x, 0, a1, 1);
    assert_runs(&x, 0, a2);
    done_free(&x, 0, a2, 1);
    done_free(&x, 1, b, 1);
    assert_waits(&x, INT64_MAX);
    assert_int_equal(sched_ready(x.s), 1);
    sched_device_can_run(x.s, 1, M_C, V1, true);
    assert_runs(&x, 1, nobody);
    done_free(&x, 1, nobody, 1);
    fix_close(&x);
}

static void pausing(void **state)
{
    (void)state;
    Fix x;
    fix_open(&x);
    sched_model_pause(x.s, M_B, true); /* before anybody knows it */
    model(&x, M_A, 1);
    model(&x, M_B, 1);
    sched_model(x.s, M_B, V1 + 1, &(SchedModel){.max_batch = 1});
    device(&x, 0, M_A, M_B, 0);
    Task *b = task(&x, CLASS_CRITICAL, 1, M_B, 0), *a = task(&x, CLASS_BATCH, 1, M_A, 0);
    assert_runs(&x, 0, a);
    sched_model_pause(x.s, M_A, true);
    done_free(&x, 0, a, 1); /* running work goes on */
    a = task(&x, CLASS_BATCH, 1, M_A, 0);
    assert_waits(&x, INT64_MAX);
    sched_model_pause(x.s, M_B, false);
    assert_runs(&x, 0, b);
    done_free(&x, 0, b, 1);
    sched_model_pause(x.s, M_A, false);
    sched_model_pause(x.s, M_A, false);
    assert_runs(&x, 0, a);
    done_free(&x, 0, a, 1);
    fix_close(&x);
}

static void device_goes_while_running(void **state)
{
    (void)state;
    Fix x;
    fix_open(&x);
    model(&x, M_A, 2);
    device(&x, 0, M_A, 0, 0);
    Task *a = task(&x, CLASS_STANDARD, 1, M_A, 0), *b = task(&x, CLASS_STANDARD, 1, M_A, 0);
    assert_runs(&x, 0, a, b);
    sched_device_remove(x.s, 0);
    sched_device_remove(x.s, 0);
    sched_sane(x.s);
    assert_int_equal(payer_of(x.s, 1)->flows[CLASS_STANDARD].running, 2);
    device(&x, 0, M_A, 0, 0); /* another worker with the same number */
    Task *c = task(&x, CLASS_STANDARD, 1, M_A, 0);
    assert_runs(&x, 0, c);
    done(&x, 0, a, MS(7)); /* its lease ended: of the device that went */
    SchedDeviceStats stats;
    sched_device_stats(x.s, 0, x.now, &stats);
    assert_int_equal(stats.running, 1);
    assert_int_equal(payer_of(x.s, 1)->flows[CLASS_STANDARD].running, 2);
    sched_device_remove(x.s, 0);
    done_free(&x, 0, b, MS(7));
    done_free(&x, 0, c, MS(7));
    sched_task_ready(x.s, a);
    assert_waits(&x, INT64_MAX);
    device(&x, 5, M_A, 0, 0);
    assert_runs(&x, 5, a);
    done_free(&x, 5, a, MS(7));
    assert_int_equal(payer_of(x.s, 1)->flows[CLASS_STANDARD].running, 0);
    sched_device_stats(x.s, 77, x.now, &stats);
    assert_int_equal(stats.running, 0);
    fix_close(&x);
}

/* After a takeover: what runs is told, even what this policy would not mix. */
static void adopting(void **state)
{
    (void)state;
    Fix x;
    fix_open(&x);
    sched_model(x.s, M_A, V1, &(SchedModel){.max_batch = 3, .continuous = true});
    model(&x, M_B, 1);
    device(&x, 0, M_A, M_B, 0);
    Task *a = task(&x, CLASS_STANDARD, 1, M_A, 0), *b = task(&x, CLASS_STANDARD, 1, M_B, 0);
    sched_task_unready(x.s, a);
    sched_task_unready(x.s, b);
    sched_device_adopt(x.s, 0, a, x.now);
    sched_sane(x.s);
    sched_device_adopt(x.s, 0, b, x.now);
    Task *c = task(&x, CLASS_STANDARD, 1, M_A, 0);
    assert_waits(&x, INT64_MAX); /* mixed: nothing joins */
    done_free(&x, 0, b, 1);
    assert_waits(&x, INT64_MAX);
    done_free(&x, 0, a, 1);
    assert_runs(&x, 0, c);
    sched_device_adopt(x.s, 0, c, x.now); /* it does: no change */
    SchedDeviceStats stats;
    sched_device_stats(x.s, 0, x.now, &stats);
    assert_int_equal(stats.running, 1);
    device(&x, 1, M_A, 0, 0); /* its worker came back as another device */
    int64_t vt = payer_of(x.s, 1)->flows[CLASS_STANDARD].vt;
    sched_device_adopt(x.s, 1, c, x.now);
    assert_int_equal(payer_of(x.s, 1)->flows[CLASS_STANDARD].vt, vt); /* charged once */
    sched_device_stats(x.s, 0, x.now, &stats);
    assert_int_equal(stats.running, 0);
    sched_device_stats(x.s, 1, x.now, &stats);
    assert_int_equal(stats.running, 1);
    sched_sane(x.s);
    done_free(&x, 1, c, 1);
    fix_close(&x);
}

/* A lease that the core refused: the slot comes back, nobody pays. */
static void refused_lease(void **state)
{
    (void)state;
    Fix x;
    fix_open(&x);
    model(&x, M_A, 1);
    device(&x, 0, M_A, 0, 0);
    Task *a = task(&x, CLASS_STANDARD, 1, M_A, 0);
    int64_t vt = payer_of(x.s, 1)->flows[CLASS_STANDARD].vt;
    assert_runs(&x, 0, a);
    assert_true(payer_of(x.s, 1)->flows[CLASS_STANDARD].vt > vt);
    done(&x, 0, a, 0);
    assert_int_equal(payer_of(x.s, 1)->flows[CLASS_STANDARD].vt, vt);
    done(&x, 0, a, MS(3)); /* a charge alone */
    assert_int_equal(payer_of(x.s, 1)->flows[CLASS_STANDARD].vt, vt + MS(3));
    free(a);
    fix_close(&x);
}

static void solo_runs_alone(void **state)
{
    (void)state;
    Fix x;
    fix_open(&x);
    x.now = SEC(1);
    sched_model(x.s, M_A, V1, &(SchedModel){.max_batch = 3, .batch_delay_ms = 20});
    device(&x, 0, M_A, 0, 0);
    Task *t[8];
    for (int i = 0; i < 6; i++) t[i] = task(&x, CLASS_STANDARD, 1, M_A, 0);
    solo(&x, t[1]);
    solo(&x, t[2]);
    assert_runs(&x, 0, t[0]); /* the batch ends before it */
    assert_waits(&x, INT64_MAX);
    done_free(&x, 0, t[0], 1);
    assert_runs(&x, 0, t[1]);
    assert_waits(&x, INT64_MAX);
    done_free(&x, 0, t[1], 1);
    assert_runs(&x, 0, t[2]);
    done_free(&x, 0, t[2], 1);
    assert_runs(&x, 0, t[3], t[4], t[5]);
    for (int i = 3; i < 6; i++) done_free(&x, 0, t[i], 1);

    /* No lower class jumps over it; those with a deadline go before, as ever. */
    t[0] = solo(&x, task(&x, CLASS_STANDARD, 1, M_A, 0));
    t[1] = task(&x, CLASS_BATCH, 1, M_A, 0);
    t[2] = task(&x, CLASS_STANDARD, 1, M_A, x.now + SEC(5));
    assert_runs(&x, 0, t[2]);
    done_free(&x, 0, t[2], 1);
    assert_runs(&x, 0, t[0]); /* companions could not come along: it waits for none */
    done_free(&x, 0, t[0], 1);
    assert_waits(&x, x.now + MS(20));
    x.now += MS(20);
    assert_runs(&x, 0, t[1]);
    done_free(&x, 0, t[1], 1);

    /* A solo task of a lower class ends the batch of a higher one, and what is behind it waits. */
    t[0] = solo(&x, task(&x, CLASS_BATCH, 1, M_A, 0));
    t[1] = task(&x, CLASS_CRITICAL, 1, M_A, 0);
    t[2] = task(&x, CLASS_HARVEST, 1, M_A, 0);
    assert_runs(&x, 0, t[1]);
    done_free(&x, 0, t[1], 1);
    assert_runs(&x, 0, t[0]);
    done_free(&x, 0, t[0], 1);
    x.now += MS(20);
    assert_runs(&x, 0, t[2]);
    done_free(&x, 0, t[2], 1);
    fix_close(&x);
}

static void nothing_joins_a_solo(void **state)
{
    (void)state;
    Fix x;
    fix_open(&x);
    sched_model(x.s, M_A, V1, &(SchedModel){.max_batch = 4, .continuous = true});
    device(&x, 0, M_A, 0, 0);
    device(&x, 1, M_A, 0, 0);
    sched_device_resident(x.s, 0, M_A, V1, true);
    Task *a = task(&x, CLASS_STANDARD, 1, M_A, 0);
    assert_runs(&x, 0, a);
    Task *s = solo(&x, task(&x, CLASS_STANDARD, 1, M_A, 0));
    Task *b = task(&x, CLASS_STANDARD, 1, M_A, 0);
    assert_runs(&x, 1, s); /* rather a load than a join */
    assert_false(x.d.join);
    assert_runs(&x, 0, b); /* where there is no solo, b may join */
    assert_true(x.d.join);
    sched_device_open(x.s, 0, false);
    Task *c = task(&x, CLASS_CRITICAL, 1, M_A, 0);
    assert_waits(&x, INT64_MAX); /* whatever its class */
    done_free(&x, 1, s, 1);
    assert_runs(&x, 1, c);
    done_free(&x, 0, a, 1);
    done_free(&x, 0, b, 1);
    sched_device_open(x.s, 0, true);

    /* The same when it was told only after a takeover. */
    s = solo(&x, task(&x, CLASS_STANDARD, 1, M_A, 0));
    sched_task_unready(x.s, s);
    sched_device_adopt(x.s, 0, s, x.now);
    sched_device_open(x.s, 1, false);
    a = task(&x, CLASS_STANDARD, 1, M_A, 0);
    assert_waits(&x, INT64_MAX);
    done_free(&x, 0, s, 1);
    assert_runs(&x, 0, a);
    done_free(&x, 0, a, 1);
    done_free(&x, 1, c, 1);
    fix_close(&x);
}

/* Two devices, kept busy by tasks of 100 ms that join each other all the time. A solo task comes:
 * it runs as soon as its tenant's turn has come and one device has drained; then all goes on. */
static int64_t solo_waits(int64_t had_ns, TaskClass others)
{
    enum { RUN_NS = 100000000, SLOTS = 64 };
    Fix x;
    fix_open(&x);
    x.now = SEC(1);
    sched_model(x.s, M_A, V1, &(SchedModel){.max_batch = 16, .continuous = true});
    device(&x, 0, M_A, 0, 0);
    device(&x, 1, M_A, 0, 0);
    struct {
        Task *t;
        SchedDeviceId device;
        int64_t end_ns;
    } slots[SLOTS] = {0};
    Task *s = NULL;
    int64_t since = 0, waited = -1, joins_after = 0;
    for (int step = 0; step < 2000; step++, x.now += MS(5)) {
        for (int i = 0; i < SLOTS; i++) {
            if (!slots[i].t || slots[i].end_ns > x.now) continue;
            done(&x, slots[i].device, slots[i].t, RUN_NS / 16);
            if (slots[i].t != s) free(slots[i].t);
            slots[i].t = NULL;
        }
        task(&x, others, 2, M_A, 0); /* about ten of 16 places on each */
        if (step == 100) {
            s = task(&x, CLASS_STANDARD, 1, M_A, 0);
            sched_task_unready(x.s, s);
            payer_of(x.s, 1)->flows[CLASS_STANDARD].vt += had_ns;
            solo(&x, s);
            since = x.now;
        }
        while (next(&x) == SCHED_RUN) {
            bool is_solo = x.d.tasks[0] == s;
            if (is_solo) {
                assert_int_equal(x.d.tasks_len, 1);
                assert_false(x.d.join);
                waited = x.now - since;
            }
            joins_after += waited >= 0 && x.d.join;
            for (size_t k = 0, i = 0; k < x.d.tasks_len; i++) {
                assert_true(i < SLOTS);
                assert_true(!s || slots[i].t != s || slots[i].device != x.d.device);
                if (slots[i].t) continue;
                slots[i].t = x.d.tasks[k++];
                slots[i].device = x.d.device;
                slots[i].end_ns = x.now + RUN_NS;
            }
        }
        if (step % 10 == 0) sched_sane(x.s);
    }
    assert_true(waited < 0 || joins_after > 100);
    for (int i = 0; i < SLOTS; i++) {
        if (!slots[i].t) continue;
        done(&x, slots[i].device, slots[i].t, 1);
        if (slots[i].t != s) free(slots[i].t);
    }
    sched_device_remove(x.s, 1);
    while (next(&x) == SCHED_RUN) {
        for (size_t k = 0; k < x.d.tasks_len; k++) {
            done(&x, x.d.device, x.d.tasks[k], 1);
            if (x.d.tasks[k] != s) free(x.d.tasks[k]);
        }
    }
    free(s);
    fix_close(&x);
    return waited;
}

static void solo_is_not_starved_by_joins(void **state)
{
    (void)state;
    int64_t waited = solo_waits(0, CLASS_STANDARD);
    assert_in_range(waited, 1, MS(105)); /* one task's time */
    waited = solo_waits(0, CLASS_BATCH);
    assert_in_range(waited, 1, MS(105));
    waited = solo_waits(SEC(1),
                        CLASS_STANDARD); /* its tenant has had a second more than the rest */
    assert_in_range(waited, MS(500), SEC(2));
}

static void ahead(void **state)
{
    (void)state;
    Fix x;
    fix_open(&x);
    model(&x, M_A, 1);
    device(&x, 0, M_A, 0, 0);
    Task *all[200];
    for (int i = 0; i < 100; i++) {
        all[2 * i] = task(&x, CLASS_STANDARD, 1, M_A, 0);
        all[2 * i + 1] = task(&x, CLASS_STANDARD, 2, M_A, 0);
    }
    Task *critical = task(&x, CLASS_CRITICAL, 3, M_A, 0);
    Task *urgent = task(&x, CLASS_STANDARD, 3, M_A, SEC(5));
    assert_int_equal(sched_ahead(x.s, critical), 0);
    assert_int_equal(sched_ahead(x.s, urgent), 1);
    assert_in_range(sched_ahead(x.s, all[0]), 2, 3);
    assert_in_range(sched_ahead(x.s, all[100]), 98, 106);
    assert_in_range(sched_ahead(x.s, all[199]), 198, 202);
    for (int i = 0; i < 200; i++) sched_task_unready(x.s, all[i]), free(all[i]);
    assert_int_equal(sched_ahead(x.s, critical), 0);
    sched_task_unready(x.s, critical);
    assert_int_equal(sched_ahead(x.s, critical), 0); /* not ready at all */
    assert_int_equal(sched_ahead(x.s, urgent), 0);
    sched_task_unready(x.s, urgent);
    free(critical);
    free(urgent);
    fix_close(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(classes_deadlines_age),
        cmocka_unit_test(requeued_keeps_its_age),
        cmocka_unit_test(shares_follow_weights),
        cmocka_unit_test(idling_earns_nothing),
        cmocka_unit_test(batches_fill_up),
        cmocka_unit_test(batch_delay),
        cmocka_unit_test(joins_running),
        cmocka_unit_test(higher_class_stops_joins),
        cmocka_unit_test(starved_stops_joins),
        cmocka_unit_test(no_model_starves_another),
        cmocka_unit_test(no_needless_drain),
        cmocka_unit_test(backlogs_take_turns),
        cmocka_unit_test(no_head_of_line),
        cmocka_unit_test(pausing),
        cmocka_unit_test(device_goes_while_running),
        cmocka_unit_test(adopting),
        cmocka_unit_test(refused_lease),
        cmocka_unit_test(solo_runs_alone),
        cmocka_unit_test(nothing_joins_a_solo),
        cmocka_unit_test(solo_is_not_starved_by_joins),
        cmocka_unit_test(ahead),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
