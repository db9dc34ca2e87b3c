/* core_checks.h: what must hold of a core, whatever it was fed. */
#ifndef FUZZ_CORE_CHECKS_H
#define FUZZ_CORE_CHECKS_H

#include <string.h>

#include "task/core.h"

static int checks_to_buf(void *ctx, Str piece)
{
    CHECK(piece.n && piece.n <= 64 * KIB);
    buf_put_str(ctx, piece);
    return 0;
}

/* Its snapshot restores to the same state. */
static inline void check_restores(const Core *c)
{
    Buf snapshot = {0};
    CHECK(core_snapshot(c, checks_to_buf, &snapshot) == 0);
    LogPoint covers = {.shard = c->shard, .epoch = c->epoch, .next_seq = INT64_MAX};
    Core *again = core_new(core_limits(c), 1);
    CHECK(core_restore(again, &covers, buf_str(&snapshot)) == 0);
    CHECK(core_restore(again, &covers, (Str){"", 0}) == 0);
    CHECK(core_hash(again) == core_hash(c));
    core_free(again);
    buf_done(&snapshot);
}

/* I2, I4 and I5 of task/core.h. */
static inline void check_core(const Core *c)
{
    uint64_t counts[TASK_STATES] = {0}, n = 0, settled = 0, bytes = 0;
    for (const Task *t = core_older(c, UINT64_MAX); t; t = core_older(c, t->no)) {
        bool terminal = task_state_terminal((TaskState)t->state);
        CHECK(t->state < TASK_STATES && t->class < CLASSES && t->run->fail < FAILS);
        counts[t->state]++;
        n++;
        CHECK(t->state == TASK_RUNNING ? t->run->token != 0 : terminal || !t->run->token);
        bool is_settled = t->run != &task_no_run && !list_empty(&t->run->settled);
        CHECK(is_settled == (terminal && !t->run->token));
        settled += is_settled;
        if (!is_settled) continue;
        if (payload_is_there(&t->input)) bytes += t->input.len;
        if (payload_is_there(&t->run->output)) bytes += t->run->output.len;
    }
    for (const Task *t = core_settled(c, NULL); t; t = core_settled(c, t)) settled--;
    CHECK(n == c->tasks.count && settled == 0 && bytes == c->finished_bytes);
    for (int s = 0; s < TASK_STATES; s++) {
        uint64_t of_tenants = 0;
        for (uint32_t i = 0; i < c->tenants_len; i++) of_tenants += c->tenants[i].tasks[s];
        CHECK(core_count(c, (TaskState)s) == counts[s] && of_tenants == counts[s]);
    }
}

static void checks_changed(void *ctx, Task *t, TaskState before, const TaskEvent *e)
{
    (void)ctx;
    CHECK(before < TASK_STATES && e->state == t->state);
}
static void checks_task(void *ctx, Task *t)
{
    (void)ctx;
    CHECK(t->state == TASK_QUEUED);
}
static void checks_unready(void *ctx, Task *t)
{
    (void)ctx;
    CHECK(!t->ready);
}
static void checks_freed(void *ctx, Task *t, uint64_t token, int64_t device_ns)
{
    (void)ctx;
    (void)device_ns;
    CHECK(token && t->run->token == 0);
}
static void checks_void(void *ctx, Task *t, uint64_t token)
{
    (void)ctx;
    CHECK(token && t->run->token == token);
}
static void checks_leaving(void *ctx, Task *t)
{
    (void)ctx;
    CHECK(task_state_terminal((TaskState)t->state) && t->run->token == 0);
}
static void checks_file(void *ctx, const File *f)
{
    (void)ctx;
    CHECK(f->id[0]);
}

static inline void check_observed(Core *c, int64_t now_ns)
{
    CoreObserver o = {NULL,         checks_changed, checks_task,    checks_unready,
                      checks_freed, checks_void,    checks_leaving, checks_file};
    core_observe(c, &o, now_ns);
}

/* Lets time pass: what is due writes records, which all fit. */
static inline void check_due(Core *c, LogPoint *at, int64_t now_ns, int times)
{
    FrameBuilder b = {0};
    Buf frame = {0};
    Frame f;
    size_t len;
    while (times-- > 0 && core_due(c, now_ns, false, &b)) {
        if (!b.records) continue;
        uint64_t misfits = core_misfits(c);
        buf_clear(&frame);
        frame_seal(&b, MAX(now_ns, at->time_ns), at, &frame);
        frame_reset(&b);
        CHECK(frame_read(buf_str(&frame), &f, &len) == 0 && core_apply(c, &f) == 0);
        CHECK(core_misfits(c) == misfits);
    }
    frame_done(&b);
    buf_done(&frame);
}

#endif
