/* task_rig.h: a core that is led, its log kept as bytes: for the tests of src/task. */
#ifndef UNIT_TASK_RIG_H
#define UNIT_TASK_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "task/record.h"
#include "task/task.h"

#define SECOND NS_PER_S

typedef struct {
    Core *core;
    FrameBuilder b;
    LogPoint at;
    Buf log; /* frames, one after another */
    int64_t now;
    CoreLimits limits;
    uint64_t ready, freed, voided, left, charged;
} World;

/* ---- the observer: checks what it is told ---- */

static inline void on_changed(void *ctx, Task *t, TaskState before, const TaskEvent *e)
{
    World *w = ctx;
    assert_true(e->seq == w->at.next_seq || e->seq < w->at.next_seq + 64);
    if (e->kind == EVENT_FINISHED)
        assert_true(before < TASK_SUCCEEDED && task_state_terminal(t->state));
}

static inline void on_ready(void *ctx, Task *t)
{
    assert_int_equal(t->state, TASK_QUEUED);
    assert_true(t->not_before_ns <= ((World *)ctx)->now);
    ((World *)ctx)->ready++;
}

static inline void on_unready(void *ctx, Task *t)
{
    (void)t;
    ((World *)ctx)->ready--;
}

static inline void on_freed(void *ctx, Task *t, uint64_t token, int64_t device_ns)
{
    World *w = ctx;
    assert_int_equal(t->run->token, 0);
    assert_int_equal(t->run->ended_token, token);
    w->freed++;
    w->charged += (uint64_t)device_ns;
}

static inline void on_void(void *ctx, Task *t, uint64_t token)
{
    assert_int_equal(t->run->token, token);
    ((World *)ctx)->voided++;
}

static inline void on_leaving(void *ctx, Task *t)
{
    assert_true(task_state_terminal(t->state) && t->run->token == 0);
    ((World *)ctx)->left++;
}

static inline void on_file_leaving(void *ctx, const File *f)
{
    (void)ctx;
    (void)f;
}

static inline void world_with(World *w, bool history)
{
    *w = (World){.now = INT64_C(1795000000) * SECOND};
    core_limits_default(&w->limits);
    w->limits.history = history;
    w->limits.finished_max = 40;
    w->limits.idem_ttl_ns = 100 * SECOND;
    w->core = core_new(&w->limits, 7);
    w->at = (LogPoint){.next_seq = 1, .epoch = 1, .holder = 99};
    const uint8_t key[16] = {1, 2, 3};
    core_claim(w->core, 1, 99, STR("test"), key, &w->b);
}

static inline void world_init(World *w)
{
    world_with(w, false);
}

static inline void world_done(World *w)
{
    core_free(w->core);
    frame_done(&w->b);
    buf_done(&w->log);
}

/* Seals, applies and keeps what the builder holds. */
static inline void commit(World *w)
{
    if (w->b.records == 0) return;
    size_t start = w->log.len, len;
    frame_seal(&w->b, w->now, &w->at, &w->log);
    frame_reset(&w->b);
    Frame f;
    assert_int_equal(frame_read((Str){(char *)w->log.data + start, w->log.len - start}, &f, &len),
                     0);
    assert_int_equal(core_apply(w->core, &f), 0);
    assert_int_equal(core_misfits(w->core), 0);
}

static inline void lead(World *w)
{
    commit(w);
    CoreObserver o = {w,        on_changed, on_ready,   on_unready,
                      on_freed, on_void,    on_leaving, on_file_leaving};
    core_observe(w->core, &o, w->now);
}

static inline uint64_t submit_with(World *w, SubmitSpec s)
{
    if (!s.tenant.n) s.tenant = STR("default");
    if (!s.model.n) s.model = STR("echo");
    if (!s.version.n) s.version = STR("1");
    if (!s.input.n) s.input = STR("{}");
    if (!s.max_attempts) s.max_attempts = 3;
    if (!s.retention_s) s.retention_s = 1000;
    Decision d = core_submit(w->core, &s, w->now, &w->b);
    assert_int_equal(d.code, CODE_OK);
    commit(w);
    return d.task_no;
}

static inline uint64_t submit(World *w)
{
    return submit_with(w, (SubmitSpec){.class = CLASS_STANDARD});
}

static inline uint64_t lease(World *w, uint64_t no)
{
    LeaseSpec l = {.no = no, .worker = STR("w"), .batch = 1, .batch_size = 1};
    assert_int_equal(core_lease(w->core, &l, w->now, &w->b).code, CODE_OK);
    commit(w);
    return core_task(w->core, no)->run->token;
}

static inline void pass(World *w, int64_t ns)
{
    w->now += ns;
    while (core_due(w->core, w->now, false, &w->b)) commit(w);
}

static inline TaskState state_of(World *w, uint64_t no)
{
    Task *t = core_task(w->core, no);
    assert_non_null(t);
    return (TaskState)t->state;
}

/* ---- replay and snapshots ---- */

static inline Core *replay(World *w, Core *into, size_t from)
{
    if (!into) into = core_new(&w->limits, 1);
    for (size_t at = from, len; at < w->log.len; at += len) {
        Frame f;
        assert_int_equal(frame_read((Str){(char *)w->log.data + at, w->log.len - at}, &f, &len), 0);
        assert_int_equal(core_apply(into, &f), 0);
    }
    return into;
}

static inline int to_buf(void *ctx, Str piece)
{
    buf_put_str(ctx, piece);
    return 0;
}

static inline Core *restore(World *w, const Buf *snapshot, const LogPoint *covers)
{
    Core *c = core_new(&w->limits, 1);
    for (size_t at = 0; at < snapshot->len; at += 1000) /* pieces need not end where items do */
        assert_int_equal(
            core_restore(c, covers,
                         (Str){(char *)snapshot->data + at, MIN((size_t)1000, snapshot->len - at)}),
            0);
    assert_int_equal(core_restore(c, covers, (Str){"", 0}), 0);
    return c;
}

#endif
