/* sched_help.h: short words for the tests of src/sched. */
#ifndef SCHED_HELP_H
#define SCHED_HELP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sched/inner.h"

#define MS(n)  ((int64_t)(n)*NS_PER_MS)
#define SEC(n) ((int64_t)(n)*NS_PER_S)

enum { M_A = 101, M_B, M_C, V1 = 7 };

typedef struct {
    Sched *s;
    uint64_t no;
    int64_t now;
    SchedDecision d; /* the last one */
    int64_t wake;
} Fix;

__attribute__((unused)) static void fix_open(Fix *x)
{
    *x = (Fix){.s = sched_new()};
}

__attribute__((unused)) static void fix_close(Fix *x)
{
    sched_sane(x->s);
    sched_free(x->s);
}

__attribute__((unused)) static void model(Fix *x, Sym name, uint32_t max_batch)
{
    sched_model(x->s, name, V1, &(SchedModel){.max_batch = max_batch});
}

/* A device, open, with no known memory, that can run the models given (0 ends them). */
__attribute__((unused)) static void device(Fix *x, SchedDeviceId id, Sym a, Sym b, Sym c)
{
    sched_device_add(x->s, id, &(SchedDevice){.kind = "cpu"}, x->now);
    for (int i = 0; i < 3; i++) {
        Sym m = i == 0 ? a : i == 1 ? b : c;
        if (m) sched_device_can_run(x->s, id, m, V1, true);
    }
    sched_device_open(x->s, id, true);
}

__attribute__((unused)) static Task *task(Fix *x, TaskClass class, Sym tenant, Sym name,
                                          int64_t deadline_ns)
{
    Task *t = calloc(1, sizeof *t);
    assert_non_null(t);
    t->no = ++x->no;
    t->class = (uint8_t) class;
    t->tenant = tenant;
    t->model = name;
    t->version = V1;
    t->deadline_ns = deadline_ns;
    t->created_ns = x->now;
    sched_task_ready(x->s, t);
    return t;
}

/* As the core does it: while it is not in the index. */
__attribute__((unused)) static Task *solo(Fix *x, Task *t)
{
    sched_task_unready(x->s, t);
    t->solo = true;
    sched_task_ready(x->s, t);
    return t;
}

__attribute__((unused)) static SchedAct next(Fix *x)
{
    sched_next(x->s, x->now, &x->d, &x->wake);
    return x->d.act;
}

/* The next decision is to run exactly these on the device. */
#define assert_runs(x, dev, ...)                                                                   \
    do {                                                                                           \
        Task *want_[] = {__VA_ARGS__};                                                             \
        assert_int_equal(next(x), SCHED_RUN);                                                      \
        assert_int_equal((x)->d.device, (dev));                                                    \
        assert_int_equal((x)->d.tasks_len, ARRAY_LEN(want_));                                      \
        for (size_t i_ = 0; i_ < ARRAY_LEN(want_); i_++)                                           \
            assert_int_equal((x)->d.tasks[i_]->no, want_[i_]->no);                                 \
        sched_sane((x)->s);                                                                        \
    } while (0)

#define assert_waits(x, until)                                                                     \
    do {                                                                                           \
        assert_int_equal(next(x), SCHED_NONE);                                                     \
        assert_int_equal((x)->wake, (until));                                                      \
        sched_sane((x)->s);                                                                        \
    } while (0)

__attribute__((unused)) static void done(Fix *x, SchedDeviceId dev, Task *t, int64_t device_ns)
{
    sched_device_done(x->s, dev, t, device_ns, x->now);
}

#define done_free(x, dev, t, ns) (done(x, dev, t, ns), free(t))

#endif
