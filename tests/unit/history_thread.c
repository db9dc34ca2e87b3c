/* history_thread.c: jobs run one at a time, reads first, and are done in the order they ran. */
#include "unit/history_rig.h"

#include <poll.h>
#include <stdatomic.h>

#include "history/history_thread.h"

#define JOBS 4000

typedef struct {
    int wakes[2]; /* a pipe, as a loop's */
    HistoryThread *t;
    _Atomic bool hold; /* jobs wait while it is set */
    _Atomic int at_work, ran;
    int done, more;
    int order[JOBS * 2]; /* of done, by name */
} Desk;

typedef struct {
    HistoryJob job;
    Desk *desk;
    int name, ran_as;
    bool again; /* done adds another */
} Work;

static void wake(void *ctx)
{
    Desk *d = ctx;
    assert_int_equal(write(d->wakes[1], "w", 1), 1);
}

static void work_run(HistoryJob *job, History *h)
{
    Work *w = CONTAINER_OF(job, Work, job);
    assert_int_equal(atomic_fetch_add(&w->desk->at_work, 1), 0); /* one at a time */
    while (atomic_load(&w->desk->hold)) usleep(100);
    HistoryTask t;
    assert_int_equal(history_get(h, 1, &t), ERR_NOT_FOUND);
    w->ran_as = atomic_fetch_add(&w->desk->ran, 1);
    atomic_fetch_sub(&w->desk->at_work, 1);
}

static void add(Desk *d, int name, bool urgent, bool again);

static void work_done(HistoryJob *job)
{
    Work *w = CONTAINER_OF(job, Work, job);
    Desk *d = w->desk;
    assert_int_equal(w->ran_as, d->done); /* in the order in which they ran */
    d->order[d->done++] = w->name;
    if (w->again) add(d, w->name + 1, true, false);
    mem_free(w);
}

static void add(Desk *d, int name, bool urgent, bool again)
{
    Work *w = mem_new(sizeof *w);
    *w = (Work){.job = {.run = work_run, .done = work_done, .urgent = urgent},
                .desk = d,
                .name = name,
                .again = again};
    history_thread_add(d->t, &w->job);
}

static void start(Desk *d, Rig *r)
{
    rig_start(r);
    memset(d, 0, sizeof *d);
    assert_int_equal(pipe(d->wakes), 0);
    assert_int_equal(history_thread_start(r->h, wake, d, &d->t), 0);
}

static void end(Desk *d, Rig *r)
{
    close(d->wakes[0]);
    close(d->wakes[1]);
    rig_end(r);
}

/* As a loop does: sleeps until it is woken, then polls. */
static void poll_until(Desk *d, int done)
{
    char some[64];
    while (d->done < done) {
        struct pollfd p = {.fd = d->wakes[0], .events = POLLIN};
        assert_int_equal(poll(&p, 1, 10000), 1); /* a wake-up is never lost */
        assert_true(read(d->wakes[0], some, sizeof some) > 0);
        history_thread_poll(d->t);
    }
}

static void all_are_done_in_order(void **state)
{
    (void)state;
    Rig r;
    Desk *d = mem_new(sizeof *d);
    start(d, &r);
    for (int i = 0; i < JOBS; i++) {
        add(d, i, false, false);
        if (i % 500 == 0) poll_until(d, i / 2);
    }
    poll_until(d, JOBS);
    for (int i = 0; i < JOBS; i++) assert_int_equal(d->order[i], i);
    assert_int_equal(history_thread_queued(d->t), 0);
    history_thread_stop(d->t);
    end(d, &r);
    mem_free(d);
}

static void reads_go_first_but_not_for_ever(void **state)
{
    (void)state;
    Rig r;
    Desk *d = mem_new(sizeof *d);
    start(d, &r);
    atomic_store(&d->hold, true);
    add(d, -1, false, false);
    while (!atomic_load(&d->at_work)) usleep(100); /* it runs: what comes now queues */
    for (int i = 0; i < 5; i++) add(d, 1000 + i, false, false);
    for (int i = 0; i < 40; i++) add(d, i, true, false);
    assert_int_equal(history_thread_queued(d->t), 46);
    atomic_store(&d->hold, false);
    poll_until(d, 46);
    int at = 0, urgent = 0, other = 1000;
    assert_int_equal(d->order[at++], -1);
    while (at < 46) {
        for (int i = 0; i < 16 && urgent < 40; i++) assert_int_equal(d->order[at++], urgent++);
        if (other < 1005) assert_int_equal(d->order[at++], other++);
    }
    assert_int_equal(urgent + other, 1045);
    history_thread_stop(d->t);
    end(d, &r);
    mem_free(d);
}

static void stopping_runs_what_is_left(void **state)
{
    (void)state;
    Rig r;
    Desk *d = mem_new(sizeof *d);
    for (int round = 0; round < 20; round++) {
        start(d, &r);
        for (int i = 0; i < 50; i++) add(d, i, i % 3 == 0, i % 2 == 0);
        if (round % 2) usleep((useconds_t)round * 50);
        history_thread_stop(d->t);
        assert_int_equal(d->done, 75); /* also what done added */
        end(d, &r);
    }
    history_thread_stop(NULL);
    mem_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_are_done_in_order),
        cmocka_unit_test(reads_go_first_but_not_for_ever),
        cmocka_unit_test(stopping_runs_what_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
