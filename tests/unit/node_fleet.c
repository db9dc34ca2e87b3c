/* node_fleet.c: workers, their leases and their ends, through a whole shard on a disk in memory.
 * The workers are played by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "sim/mem_disk.h"
#include "node/fleet.h"

#define MS(n)  ((int64_t)(n)*NS_PER_MS)
#define SEC(n) ((int64_t)(n)*NS_PER_S)

typedef struct {
    Clock clock;
    int64_t now_ns, tick_ns; /* tick: time goes on by it at each look at the clock */
    MemDisk *disk;
    Shard *shard;
    Fleet *fleet;
    Core *core;
    uint64_t lives;
    uint32_t max_batch;  /* of the model */
    uint64_t needs, has; /* memory of the model, of a device */
    uint8_t digest;
    bool refused_next;        /* the next hello's model is refused */
    const char *kind, *wants; /* of the next hello's device and model; NULL: "cpu", any */
    uint64_t finished_bytes;  /* with a history view, at the next start; 0: without one */
    Buf lines;                /* said to workers since the last look */
    size_t kicks, kills;
} Rig;

/* ---- the world around the shard ---- */

static int64_t clock_now(Clock *c)
{
    Rig *r = CONTAINER_OF(c, Rig, clock);
    return r->now_ns += r->tick_ns;
}

static void on_changed(void *ctx, Task *t, const TaskEvent *e)
{
    (void)ctx;
    (void)t;
    (void)e;
}

static void on_task(void *ctx, Task *t)
{
    (void)ctx;
    (void)t;
}

static void on_file(void *ctx, const File *f)
{
    (void)ctx;
    (void)f;
}

static void on_line(void *ctx, Str worker_id, Str line, uint64_t hold_seq)
{
    Rig *r = ctx;
    assert_true(fleet_known(r->fleet, worker_id));
    assert_true(hold_seq <= shard_last_seq(r->shard));
    buf_put_str(&r->lines, line);
}

static void on_kick(void *ctx, Str worker_id)
{
    (void)worker_id;
    ((Rig *)ctx)->kicks++;
}

static void on_kill(void *ctx, Str worker_name, int64_t pid)
{
    (void)worker_name;
    assert_int_equal(pid, 77);
    ((Rig *)ctx)->kills++;
}

static void commit(Rig *r)
{
    uint64_t seq;
    (void)shard_take_dirty(r->shard);
    assert_int_equal(log_commit(shard_log(r->shard), &seq), 0);
    shard_durable(r->shard, seq);
}

/* One turn of the server's loop, ns later. */
static void turn(Rig *r, int64_t ns)
{
    r->now_ns += ns;
    (void)shard_step(r->shard);
    commit(r);
}

static void start(Rig *r)
{
    ShardOptions o = {.ping_s = 5, .seed = ++r->lives, .address = "test"};
    core_limits_default(&o.limits);
    o.limits.payload_memory_max = 100; /* nearly all are spilled */
    o.limits.history = r->finished_bytes > 0;
    if (o.limits.history) o.limits.finished_bytes_max = r->finished_bytes;
    ShardOut out = {r, on_changed, on_task, on_task, on_file, on_line, on_kick, on_kill, NULL};
    Buf why = {0};
    assert_int_equal(shard_open(&r->disk->base, &r->clock, &o, &out, &r->shard, &why), 0);
    assert_int_equal(shard_claim(r->shard, &why), 0);
    commit(r);
    shard_lead(r->shard);
    r->fleet = shard_fleet(r->shard);
    r->core = shard_core(r->shard);
    buf_done(&why);
}

/* The power fails: what was not synced is gone. */
static void restart(Rig *r)
{
    shard_free(r->shard);
    mem_disk_crash(r->disk, CRASH_DROP);
    start(r);
}

static int setup(void **state)
{
    Rig *r = mem_new(sizeof *r);
    r->clock = (Clock){clock_now, clock_now};
    r->now_ns = SEC(1795000000);
    r->disk = mem_disk_new(5);
    r->max_batch = 8;
    start(r);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    Rig *r = *state;
    shard_free(r->shard);
    disk_free(&r->disk->base);
    buf_done(&r->lines);
    mem_free(r);
    return 0;
}

/* ---- short words ---- */

typedef struct {
    char id[40];
    Buf stale;
} Hand;

/* A worker registers and opens its stream. former: its id of before, or NULL. */
static Hand hello(Rig *r, const char *name, const char *former, const WorkerHeld *held, size_t n)
{
    Hand h = {0};
    Buf refused = {0};
    WorkerDevice device = {.index = 0,
                           .kind = str_from(r->kind ? r->kind : "cpu"),
                           .threads = 1,
                           .memory_bytes = r->has};
    WorkerModel model = {.name = STR("echo"),
                         .version = STR("1"),
                         .engine = STR("echo"),
                         .max_batch = r->max_batch,
                         .memory_bytes = r->needs,
                         .device_kind = str_from(r->wants ? r->wants : ""),
                         .digest = {.b = {r->digest}}};
    WorkerHello w = {.name = str_from(name),
                     .former_id = former ? str_from(former) : STR(""),
                     .pid = 77,
                     .devices = &device,
                     .devices_len = 1,
                     .models = &model,
                     .models_len = 1,
                     .running = held,
                     .running_len = n};
    assert_int_equal(fleet_hello(r->fleet, &w, h.id, &refused, &h.stale).code, CODE_OK);
    assert_true(!refused.len == !r->refused_next);
    r->refused_next = false;
    buf_done(&refused);
    fleet_stream(r->fleet, str_from(h.id), true);
    turn(r, 0);
    return h;
}

static uint64_t submit(Rig *r)
{
    SubmitSpec s = {.tenant = STR("t"),
                    .model = STR("echo"),
                    .version = STR("1"),
                    .input = STR("{}"),
                    .class = CLASS_STANDARD,
                    .max_attempts = 3,
                    .retention_s = 3600};
    Decision d = shard_submit(r->shard, &s);
    assert_int_equal(d.code, CODE_OK);
    return d.task_no;
}

static Decision submit_big(Rig *r, size_t bytes, int64_t deadline_ns)
{
    Buf input = {0};
    memset(buf_extend(&input, bytes), '1', bytes);
    SubmitSpec s = {.tenant = STR("t"),
                    .model = STR("echo"),
                    .version = STR("1"),
                    .input = buf_str(&input),
                    .class = CLASS_STANDARD,
                    .deadline_ns = deadline_ns,
                    .max_attempts = 3,
                    .retention_s = 3600};
    Decision d = shard_submit(r->shard, &s);
    buf_done(&input);
    return d;
}

static const Task *task(const Rig *r, uint64_t no)
{
    const Task *t = core_task(r->core, no);
    assert_non_null(t);
    return t;
}

static WorkerHeld held(const Rig *r, uint64_t no)
{
    return (WorkerHeld){no, task(r, no)->run->token};
}

static ReportAnswer report(Rig *r, const Hand *h, WorkerReport w)
{
    Buf detail = {0};
    ReportAnswer a = fleet_report(r->fleet, str_from(h->id), &w, &detail);
    buf_done(&detail);
    commit(r);
    return a;
}

static ReportAnswer result(Rig *r, const Hand *h, WorkerHeld lease)
{
    return report(
        r, h,
        (WorkerReport){
            .kind = REPORT_RESULT, .lease = lease, .output = STR("{}"), .usage = {MS(3), MS(4)}});
}

static ReportAnswer released(Rig *r, const Hand *h, WorkerHeld lease)
{
    return report(r, h,
                  (WorkerReport){.kind = REPORT_RELEASED, .lease = lease, .usage = {MS(2), MS(2)}});
}

static bool said(Rig *r, const char *what)
{
    bool found = r->lines.len && strstr(buf_z(&r->lines), what) != NULL;
    buf_clear(&r->lines);
    return found;
}

static size_t running(const Rig *r, const uint64_t *no, size_t n, uint64_t *ret_one)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        if (task(r, no[i])->state != TASK_RUNNING) continue;
        *ret_one = no[i];
        count++;
    }
    return count;
}

/* ---- crashes ---- */

static int take_piece(void *ctx, Str piece)
{
    buf_put_str(ctx, piece);
    return 0;
}

static void assert_solo_is_in_snapshots(const Rig *r, const uint64_t *no, size_t n)
{
    Buf stream = {0};
    assert_int_equal(core_snapshot(r->core, take_piece, &stream), 0);
    CoreLimits limits;
    core_limits_default(&limits);
    Core *copy = core_new(&limits, 1);
    LogPoint covers = {.epoch = core_epoch(r->core), .next_seq = UINT64_MAX};
    assert_int_equal(core_restore(copy, &covers, buf_str(&stream)), 0);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(core_task(copy, no[i])->solo, task(r, no[i])->solo);
    assert_true(core_hash(copy) == core_hash(r->core));
    core_free(copy);
    buf_done(&stream);
}

/* Five tasks in one batch, one of them is poison. It pays, the others do not. */
static void crash_of_a_batch(void **state)
{
    Rig *r = *state;
    enum { N = 5, POISON = 2 };
    uint64_t no[N], one = 0;
    for (int i = 0; i < N; i++) no[i] = submit(r);
    Hand h = hello(r, "local-0", NULL, NULL, 0);
    assert_int_equal(running(r, no, N, &one), N);
    for (int i = 0; i < N; i++) {
        assert_int_equal(task(r, no[i])->run->batch, task(r, no[0])->run->batch);
        assert_int_equal(task(r, no[i])->run->batch_size, N);
        assert_false(task(r, no[i])->solo);
    }

    fleet_process_ended(r->fleet, STR("local-0"), true);
    commit(r);
    assert_int_equal(r->kicks, 1);
    assert_false(fleet_known(r->fleet, str_from(h.id)));
    assert_int_equal(fleet_running(r->fleet), 0);
    restart(r); /* it is on record */
    for (int i = 0; i < N; i++) {
        const Task *t = task(r, no[i]);
        assert_int_equal(t->state, TASK_QUEUED);
        assert_int_equal(t->run->fail, FAIL_MODEL_CRASHED);
        assert_int_equal(t->run->burned, 0);
        assert_int_equal(t->run->platform_losses, 1);
        assert_true(t->solo);
    }
    uint64_t fresh = submit(r);
    assert_solo_is_in_snapshots(r, no, N);
    assert_false(task(r, fresh)->solo);

    h = hello(r, "local-0", NULL, NULL, 0);
    assert_int_equal(result(r, &h, held(r, fresh)), REPORT_ACCEPTED); /* the others' delay runs */
    int crashes = 0, turns = 0, runs[N] = {0};
    for (; core_count(r->core, TASK_QUEUED) + core_count(r->core, TASK_RUNNING) > 0; turns++) {
        assert_true(turns < 1000);
        turn(r, MS(100));
        size_t n = running(r, no, N, &one);
        assert_true(n <= 1); /* each alone */
        if (n == 0) continue;
        const Task *t = task(r, one);
        assert_int_equal(t->run->batch_size, 1);
        for (int i = 0; i < N; i++) runs[i] += no[i] == one;
        if (one != no[POISON]) {
            assert_int_equal(result(r, &h, held(r, one)), REPORT_ACCEPTED);
            continue;
        }
        assert_int_equal(t->run->attempt, ++crashes);
        fleet_process_ended(r->fleet, STR("local-0"), true);
        commit(r);
        assert_int_equal(task(r, one)->run->burned, crashes);
        h = hello(r, "local-0", NULL, NULL, 0);
    }
    assert_int_equal(crashes, 3);
    for (int i = 0; i < N; i++) {
        const Task *t = task(r, no[i]);
        assert_int_equal(t->state, i == POISON ? TASK_FAILED : TASK_SUCCEEDED);
        assert_int_equal(t->run->fail, i == POISON ? FAIL_MODEL_CRASHED : FAIL_NONE);
        assert_int_equal(t->run->burned, i == POISON ? 3 : 0);
        assert_int_equal(runs[i], i == POISON ? 3 : 1);
        assert_int_equal(t->run->platform_losses, 1);
    }
}

/* What ran alone pays, but not in a crash loop, and not for an end that is no crash. A canceled
 * task that still holds its slot was there too. */
static void who_pays(void **state)
{
    Rig *r = *state;
    struct {
        bool crashed, loop, canceled_too;
        int burned, losses;
        bool solo;
    } cases[] = {
        {true, false, false, 1, 0, true},
        {true, true, false, 0, 1, true},
        {false, false, false, 0, 0, false},
        {true, false, true, 0, 1, true},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        bool loop = false; /* crashes with nothing running: of no known cause */
        for (int k = 0; cases[i].loop && k < 8; k++)
            loop = fleet_process_ended(r->fleet, STR("local-0"), true);
        assert_int_equal(loop, cases[i].loop);
        uint64_t no = submit(r), other = cases[i].canceled_too ? submit(r) : 0;
        Hand h = hello(r, "local-0", NULL, NULL, 0);
        const Task *t = task(r, no);
        assert_int_equal(t->state, TASK_RUNNING);
        if (other) assert_int_equal(shard_cancel(r->shard, other).code, CODE_OK);
        fleet_process_ended(r->fleet, STR("local-0"), cases[i].crashed);
        commit(r);
        assert_false(fleet_known(r->fleet, str_from(h.id)));
        assert_int_equal(t->state, TASK_QUEUED);
        assert_int_equal(t->run->burned, cases[i].burned);
        assert_int_equal(t->run->platform_losses, cases[i].losses);
        assert_int_equal(t->solo, cases[i].solo);
        if (other) {
            assert_int_equal(task(r, other)->state, TASK_CANCELED);
            assert_int_equal(task(r, other)->run->token, 0);
        }
        assert_int_equal(shard_cancel(r->shard, no).code, CODE_OK);
        commit(r);
    }
    fleet_process_ended(r->fleet, STR("nobody"), true);
    assert_int_equal(r->kicks, ARRAY_LEN(cases));
}

/* ---- coming back ---- */

static void same_process_comes_back(void **state)
{
    Rig *r = *state;
    uint64_t no[3];
    for (int i = 0; i < 3; i++) no[i] = submit(r);
    Hand first = hello(r, "w", NULL, NULL, 0);
    fleet_stream(r->fleet, str_from(first.id), false);
    turn(r, SEC(20));
    WorkerHeld has[] = {held(r, no[0]), held(r, no[1]), {no[0], 999999}, {0, 4}};
    Hand h = hello(r, "w", first.id, has, ARRAY_LEN(has));
    assert_string_equal(h.id, first.id);
    assert_string_equal(buf_z(&h.stale), "999999,4");
    buf_done(&h.stale);
    assert_int_equal(task(r, no[2])->state, TASK_QUEUED); /* it never got it */
    assert_int_equal(task(r, no[2])->run->fail, FAIL_WORKER_LOST);
    assert_int_equal(task(r, no[2])->run->burned, 0);
    assert_false(task(r, no[2])->solo);
    turn(r, SEC(10));
    assert_int_equal(report(r, &h, (WorkerReport){.kind = REPORT_PONG}), REPORT_ACCEPTED);
    turn(r, SEC(10)); /* longer than a lease since it was given: the hello counted */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(task(r, no[i])->state, TASK_RUNNING);
        assert_int_equal(task(r, no[i])->run->token, has[i].token);
    }
    assert_int_equal(task(r, no[2])->state, TASK_QUEUED); /* the device is busy */
    assert_int_equal(result(r, &h, has[0]), REPORT_ACCEPTED);
    turn(r, MS(1));
    assert_int_equal(task(r, no[2])->state, TASK_QUEUED);
    assert_int_equal(result(r, &h, has[1]), REPORT_ACCEPTED);
    turn(r, MS(1));
    assert_int_equal(task(r, no[2])->state, TASK_RUNNING);

    /* And over a restart of the server. */
    WorkerHeld has_2 = held(r, no[2]);
    restart(r);
    uint64_t next = submit(r);
    h = hello(r, "w", first.id, &has_2, 1);
    assert_string_equal(h.id, first.id);
    assert_int_equal(h.stale.len, 0);
    assert_int_equal(task(r, next)->state, TASK_QUEUED);
    assert_int_equal(task(r, no[2])->run->token, has_2.token);
    assert_int_equal(result(r, &h, has_2), REPORT_ACCEPTED);
    turn(r, MS(1));
    assert_int_equal(task(r, no[2])->state, TASK_SUCCEEDED);
    assert_int_equal(task(r, next)->state, TASK_RUNNING);
}

static void new_process_ends_the_orphans(void **state)
{
    Rig *r = *state;
    r->max_batch = 1;
    uint64_t a = submit(r), b = submit(r), canceled = submit(r);
    Hand wa = hello(r, "a", NULL, NULL, 0), wb = hello(r, "b", NULL, NULL, 0);
    (void)hello(r, "c", NULL, NULL, 0);
    assert_int_equal(shard_cancel(r->shard, canceled).code, CODE_OK);
    commit(r);
    WorkerHeld old_a = held(r, a), old_b = held(r, b);
    assert_true(old_a.token && old_b.token && held(r, canceled).token);
    restart(r);
    turn(r, MS(1));
    assert_int_equal(task(r, a)->state, TASK_RUNNING); /* nobody has said anything yet */
    (void)hello(r, "a", NULL, NULL, 0);
    assert_int_equal(task(r, a)->state, TASK_QUEUED);
    assert_int_equal(task(r, a)->run->fail, FAIL_WORKER_LOST);
    assert_int_equal(task(r, a)->run->burned, 0);
    assert_int_equal(task(r, a)->run->platform_losses, 1);
    assert_false(task(r, a)->solo);
    assert_int_equal(task(r, b)->run->token, old_b.token); /* not a's */
    (void)hello(r, "c", NULL, NULL, 0);
    assert_int_equal(held(r, canceled).token, 0); /* its slot is charged and done with */
    turn(r, SEC(2));
    assert_int_equal(task(r, a)->state, TASK_RUNNING);
    assert_true(task(r, a)->run->token != old_a.token);
    for (int i = 0; i < 29; i++) turn(r, SEC(1)); /* b never comes back */
    assert_int_equal(task(r, b)->state, TASK_QUEUED);
    assert_int_equal(task(r, b)->run->fail, FAIL_WORKER_LOST);
    assert_false(fleet_known(r->fleet, str_from(wa.id)) || fleet_known(r->fleet, str_from(wb.id)));
}

/* ---- reports ---- */

static void canceled_task_frees_its_slot(void **state)
{
    Rig *r = *state;
    r->max_batch = 1;
    uint64_t a = submit(r), b = submit(r);
    Hand h = hello(r, "w", NULL, NULL, 0);
    WorkerHeld lease = held(r, a);
    assert_true(said(r, "\"t\":\"lease\""));
    assert_int_equal(shard_cancel(r->shard, a).code, CODE_OK);
    turn(r, MS(1));
    assert_true(said(r, "\"t\":\"cancel\""));
    assert_int_equal(task(r, a)->state, TASK_CANCELED);
    assert_int_equal(task(r, a)->run->token, lease.token);
    assert_int_equal(task(r, b)->state, TASK_QUEUED); /* the slot is held */
    assert_int_equal(fleet_running(r->fleet), 1);
    assert_int_equal(released(r, &h, lease), REPORT_FENCED);
    assert_int_equal(task(r, a)->run->token, 0);
    assert_int_equal(task(r, a)->run->device_ns, MS(2));
    turn(r, MS(1));
    assert_int_equal(task(r, b)->state, TASK_RUNNING);
    assert_int_equal(released(r, &h, lease), REPORT_DUPLICATE);
    assert_int_equal(task(r, a)->run->device_ns, MS(2)); /* charged once */

    /* A worker that does not let go is ended. */
    lease = held(r, b);
    assert_int_equal(shard_cancel(r->shard, b).code, CODE_OK);
    for (int i = 0; i < 14; i++) turn(r, SEC(1));
    assert_int_equal(r->kills, 0);
    for (int i = 0; i < 2; i++) turn(r, SEC(1));
    assert_int_equal(r->kills, 1);
    fleet_process_ended(r->fleet, STR("w"), true);
    assert_int_equal(task(r, b)->state, TASK_CANCELED);
    assert_int_equal(task(r, b)->run->token, 0);
}

static void tokens_fence(void **state)
{
    Rig *r = *state;
    uint64_t a = submit(r);
    Hand h = hello(r, "w", NULL, NULL, 0);
    WorkerHeld first = held(r, a);
    assert_int_equal(released(r, &h, first), REPORT_ACCEPTED); /* a drain: burns nothing */
    turn(r, MS(1));
    WorkerHeld second = held(r, a);
    assert_true(second.token > first.token);
    assert_int_equal(task(r, a)->run->attempt, 1);
    assert_int_equal(released(r, &h, second), REPORT_ACCEPTED);
    turn(r, MS(1));
    WorkerHeld third = held(r, a), never = {a, third.token + 7}, nobody = {a + 7, third.token};
    assert_int_equal(result(r, &h, first), REPORT_FENCED);
    assert_int_equal(result(r, &h, never), REPORT_FENCED);
    assert_int_equal(result(r, &h, nobody), REPORT_FENCED);
    assert_int_equal(result(r, &h, (WorkerHeld){a, 0}), REPORT_FENCED);
    WorkerReport progress = {.kind = REPORT_PROGRESS, .lease = second, .step = 1, .steps = 2};
    assert_int_equal(report(r, &h, progress), REPORT_FENCED);
    assert_int_equal(task(r, a)->state, TASK_RUNNING);
    assert_int_equal(task(r, a)->run->token, third.token);
    assert_int_equal(task(r, a)->run->device_ns, 2 * MS(2));
    progress.lease = third;
    assert_int_equal(report(r, &h, progress), REPORT_ACCEPTED);
    assert_int_equal(task(r, a)->run->step, 1);

    assert_int_equal(result(r, &h, third), REPORT_ACCEPTED);
    assert_int_equal(task(r, a)->state, TASK_SUCCEEDED);
    uint64_t seq = task(r, a)->run->last_seq;
    assert_int_equal(result(r, &h, third), REPORT_DUPLICATE);
    WorkerReport log = {.kind = REPORT_LOG, .lease = {a, 0}, .text = STR("no lease, no word")};
    assert_int_equal(report(r, &h, log), REPORT_FENCED);
    WorkerReport error = {
        .kind = REPORT_ERROR, .lease = third, .fail = FAIL_MODEL_ERROR, .text = STR("late")};
    assert_int_equal(report(r, &h, error), REPORT_DUPLICATE); /* the first word counts */
    restart(r);
    h = hello(r, "w", h.id, NULL, 0);
    assert_int_equal(result(r, &h, third), REPORT_DUPLICATE);
    assert_int_equal(task(r, a)->state, TASK_SUCCEEDED);
    assert_int_equal(task(r, a)->run->last_seq, seq);
    assert_int_equal(task(r, a)->run->device_ns, 2 * MS(2) + MS(3));
    strcpy(h.id, "worker_nobody");
    assert_int_equal(result(r, &h, third), REPORT_INVALID);
}

/* A deadline passes between the look at what is due and the lease: the turn ends all the same. */
static void deadline_passes_within_a_turn(void **state)
{
    Rig *r = *state;
    (void)hello(r, "w", NULL, NULL, 0);
    Decision d = submit_big(r, 9, SEC(1));
    assert_int_equal(d.code, CODE_OK);
    r->now_ns += SEC(1) - MS(2);
    r->tick_ns = MS(1);
    turn(r, 0);
    turn(r, 0);
    assert_int_equal(task(r, d.task_no)->state, TASK_EXPIRED);
    uint64_t next = submit(r);
    turn(r, 0);
    assert_int_equal(task(r, next)->state, TASK_RUNNING);
}

/* A result that comes after the deadline, but before anybody looked at what is due. */
static void a_late_result_is_no_success(void **state)
{
    Rig *r = *state;
    Hand h = hello(r, "w", NULL, NULL, 0);
    uint64_t no[2];
    WorkerHeld lease[2];
    for (int i = 0; i < 2; i++) no[i] = submit_big(r, 9, SEC(1)).task_no;
    turn(r, 0);
    for (int i = 0; i < 2; i++) lease[i] = held(r, no[i]);
    r->now_ns += SEC(1) - MS(1);
    assert_int_equal(result(r, &h, lease[0]), REPORT_ACCEPTED);
    assert_int_equal(task(r, no[0])->state, TASK_SUCCEEDED);
    r->now_ns += MS(1);
    (void)result(r, &h, lease[1]);
    assert_int_equal(task(r, no[1])->state, TASK_EXPIRED);
    assert_int_equal(task(r, no[1])->run->device_ns, MS(3)); /* what it took is charged */
    turn(r, 0);
    assert_int_equal(fleet_running(r->fleet), 0);
}

/* ---- a full disk ---- */

static void fill_the_disk(Rig *r)
{
    r->disk->capacity = mem_disk_used(r->disk);
    int n = 0;
    while (submit_big(r, 60000, 0).code != CODE_DISK_FULL) {
        assert_true(n++ < 10000);
        commit(r);
    }
}

/* Submits that are refused stop nothing else: what is queued runs, workers are pinged. */
static void full_disk_goes_on_with_what_there_is(void **state)
{
    Rig *r = *state;
    r->max_batch = 1;
    uint64_t a = submit(r), b = submit(r);
    fill_the_disk(r);
    Hand h = hello(r, "w", NULL, NULL, 0);
    r->now_ns += SEC(2);
    for (int i = 0; i < 200 && task(r, b)->state != TASK_SUCCEEDED; i++) {
        assert_true(submit_big(r, 60000, 0).code != CODE_OK); /* clients try again and again */
        turn(r, MS(100));
        uint64_t no = task(r, a)->state == TASK_SUCCEEDED ? b : a;
        if (task(r, no)->state == TASK_RUNNING)
            assert_int_equal(result(r, &h, held(r, no)), REPORT_ACCEPTED);
    }
    assert_int_equal(task(r, b)->state, TASK_SUCCEEDED);
    buf_clear(&r->lines);
    for (int i = 0; i < 60; i++) {
        (void)submit_big(r, 60000, 0);
        turn(r, MS(100));
    }
    assert_true(said(r, "\"t\":\"ping\""));
}

/* Not even the reserved room is left. Workers that live keep their leases all the while. */
/* The whole process slept (a suspend): its workers get a lease's time to speak up. */
static void leases_outlive_a_pause(void **state)
{
    Rig *r = *state;
    uint64_t a = submit(r);
    (void)hello(r, "w", NULL, NULL, 0);
    uint64_t token = held(r, a).token;
    assert_true(token);
    turn(r, SEC(1));
    turn(r, SEC(300));
    for (int i = 0; i < 28; i++) turn(r, SEC(1));
    assert_int_equal(task(r, a)->run->token, token);
    for (int i = 0; i < 5; i++) turn(r, SEC(1));
    assert_int_equal(task(r, a)->state, TASK_QUEUED);
    assert_int_equal(task(r, a)->run->fail, FAIL_WORKER_LOST);
}

static void leases_outlive_a_full_log(void **state)
{
    Rig *r = *state;
    r->max_batch = 1;
    uint64_t a = submit(r);
    Hand h = hello(r, "w", NULL, NULL, 0);
    WorkerHeld lease = held(r, a);
    assert_true(lease.token);
    uint64_t due = submit_big(r, 9, SEC(60)).task_no;
    fill_the_disk(r);
    for (int n = 0;; n++) { /* the rest goes to results of other workers, and the like */
        Decision d = shard_put_file(r->shard, STR("file_x"), STR("t"), 1, &(Sha256){0}, STR("n"),
                                    STR("t"), a);
        assert_true(n < 100000);
        if (d.code == CODE_DISK_FULL) break;
        commit(r);
    }
    for (int i = 0; i < 1200; i++) {
        turn(r, MS(100));
        if (said(r, "\"t\":\"ping\""))
            assert_int_equal(
                report(r, &h, (WorkerReport){.kind = REPORT_PONG, .held = &lease, .held_len = 1}),
                REPORT_ACCEPTED);
    }
    assert_int_equal(task(r, due)->state, TASK_QUEUED); /* no room to say that it expired */
    r->disk->capacity = 0;
    for (int i = 0; i < 20; i++) turn(r, MS(100));
    assert_int_equal(task(r, due)->state, TASK_EXPIRED);
    assert_int_equal(task(r, a)->state, TASK_RUNNING);
    assert_int_equal(task(r, a)->run->token, lease.token);
}

/* A result that found no room in the log was a word of its worker all the same. */
static void a_report_that_must_wait_renews_its_lease(void **state)
{
    Rig *r = *state;
    r->max_batch = 1;
    uint64_t a = submit(r);
    Hand h = hello(r, "w", NULL, NULL, 0);
    WorkerHeld lease = held(r, a);
    fill_the_disk(r);
    for (int n = 0;; n++) {
        Decision d = shard_put_file(r->shard, STR("file_x"), STR("t"), 1, &(Sha256){0}, STR("n"),
                                    STR("t"), a);
        assert_true(n < 100000);
        if (d.code == CODE_DISK_FULL) break;
        commit(r);
    }
    for (int i = 0; i < 25; i++) turn(r, SEC(1));
    assert_int_equal(result(r, &h, lease), REPORT_RETRY);
    r->disk->capacity = 0;
    for (int i = 0; i < 28; i++) turn(r, SEC(1)); /* the worker sleeps */
    assert_int_equal(task(r, a)->run->token, lease.token);
    assert_int_equal(result(r, &h, lease), REPORT_ACCEPTED);
    assert_int_equal(task(r, a)->state, TASK_SUCCEEDED);
}

/* A model that cannot be put on record is not silently left out of the registration. */
/* A registration that comes while the worker's stream is open may be a late one: its worker goes by
 * the other, and would never open the devices that this one closed. */
static void a_registration_closes_the_stream_before_it(void **state)
{
    Rig *r = *state;
    Hand first = hello(r, "w", NULL, NULL, 0);
    assert_int_equal(r->kicks, 0);
    Hand again = hello(r, "w", first.id, NULL, 0);
    assert_int_equal(r->kicks, 1);
    assert_string_equal(first.id, again.id);
    buf_done(&first.stale);
    buf_done(&again.stale);
}

static void hello_waits_for_the_log(void **state)
{
    Rig *r = *state;
    fill_the_disk(r);
    for (int n = 0;; n++) {
        Decision d = shard_put_file(r->shard, STR("file_x"), STR("t"), 1, &(Sha256){0}, STR("n"),
                                    STR("t"), 1);
        assert_true(n < 100000);
        if (d.code == CODE_DISK_FULL) break;
        commit(r);
    }
    WorkerDevice device = {.index = 0, .kind = STR("cpu"), .threads = 1};
    WorkerModel model = {.name = STR("new"), .version = STR("1"), .max_batch = 1};
    WorkerHello w = {
        .name = STR("w"), .devices = &device, .devices_len = 1, .models = &model, .models_len = 1};
    char id[40];
    Buf refused = {0}, stale = {0};
    assert_int_equal(fleet_hello(r->fleet, &w, id, &refused, &stale).code, CODE_DISK_FULL);
    r->disk->capacity = 0;
    turn(r, SEC(2));
    turn(r, SEC(2));
    assert_int_equal(fleet_hello(r->fleet, &w, id, &refused, &stale).code, CODE_OK);
    assert_int_equal(refused.len, 0);
    commit(r);
    assert_non_null(core_model(r->core, STR("new"), STR("1")));
}

/* ---- memory, and why tasks wait ---- */

static void assert_waits_for(Rig *r, WaitReason want, const char *words)
{
    Buf text = {0};
    Sym name = core_sym_find(r->core, STR("echo")), version = core_sym_find(r->core, STR("1"));
    WaitReason got = fleet_why_waits(r->fleet, name, version, &text);
    if (got != want || !strstr(buf_z(&text), words))
        fail_msg("%s: '%s', not %s: '%s'", wait_reason_name(got), buf_z(&text),
                 wait_reason_name(want), words);
    buf_done(&text);
}

static ReportAnswer load_failed(Rig *r, const Hand *h, uint64_t memory)
{
    return report(r, h,
                  (WorkerReport){.kind = REPORT_LOAD_FAILED,
                                 .model = STR("echo"),
                                 .version = STR("1"),
                                 .memory_bytes = memory,
                                 .text = STR("no such luck")});
}

static ReportAnswer loaded(Rig *r, const Hand *h, uint64_t memory)
{
    return report(r, h,
                  (WorkerReport){.kind = REPORT_LOADED,
                                 .model = STR("echo"),
                                 .version = STR("1"),
                                 .memory_bytes = memory,
                                 .load_ns = MS(10)});
}

/* Each step of the way to a worker that runs it is told. */
static void waiting_has_a_reason(void **state)
{
    Rig *r = *state;
    uint64_t a = submit(r);
    r->needs = 12 * GIB;
    r->has = 8 * GIB;
    Hand small = hello(r, "small", NULL, NULL, 0);
    assert_waits_for(r, WAIT_NO_MEMORY,
                     "needs 12 GiB; the largest device has 8.0 GiB (worker small)");
    turn(r, SEC(1));
    assert_int_equal(task(r, a)->state, TASK_QUEUED);
    r->has = 16 * GIB;
    Hand large = hello(r, "large", NULL, NULL, 0);
    assert_int_equal(task(r, a)->state, TASK_RUNNING); /* by itself */
    assert_waits_for(r, WAIT_TURN, "");
    assert_int_equal(result(r, &large, held(r, a)), REPORT_ACCEPTED);

    assert_int_equal(fleet_order(r->fleet, STR("large"), STR("cordon")).code, CODE_OK);
    assert_waits_for(r, WAIT_UNAVAILABLE, "worker large is cordoned");
    assert_int_equal(fleet_order(r->fleet, STR("large"), STR("uncordon")).code, CODE_OK);
    assert_waits_for(r, WAIT_TURN, "");
    assert_int_equal(shard_pause_model(r->shard, STR("echo"), true).code, CODE_OK);
    assert_waits_for(r, WAIT_PAUSED, "headrace resume echo");
    assert_int_equal(shard_pause_model(r->shard, STR("echo"), false).code, CODE_OK);

    assert_int_equal(fleet_order(r->fleet, STR("large"), STR("drain")).code, CODE_OK);
    fleet_stream(r->fleet, str_from(large.id), false);
    assert_waits_for(r, WAIT_UNAVAILABLE, "worker large is drained");
    fleet_stream(r->fleet, str_from(small.id), false);
    for (int i = 0; i < 14; i++) turn(r, SEC(5)); /* both are forgotten */
    assert_waits_for(r, WAIT_NO_WORKER, "no worker is connected");
}

/* What waits for the history view is bounded in bytes too. */
static void a_view_that_is_behind_stops_submits(void **state)
{
    Rig *r = *state;
    r->finished_bytes = 5000;
    restart(r);
    (void)hello(r, "w", NULL, NULL, 0);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(shard_accepting(r->shard).code, CODE_OK);
        uint64_t no = submit_big(r, 999, 0).task_no;
        assert_int_equal(shard_cancel(r->shard, no).code, CODE_OK);
    }
    Decision d = shard_accepting(r->shard);
    assert_true(d.code == CODE_LOG_STALLED && strstr(d.detail, "history view"));
    uint64_t upto = core_settled(r->core, NULL)->run->settled_seq;
    assert_int_equal(shard_history(r->shard, upto).code, CODE_OK); /* one has left */
    assert_int_equal(shard_accepting(r->shard).code, CODE_OK);
}

static void another_kind_of_device_is_a_reason(void **state)
{
    Rig *r = *state;
    uint64_t a = submit(r);
    r->wants = "cuda";
    r->has = 8 * GIB;
    Hand cpu = hello(r, "cpu", NULL, NULL, 0);
    assert_waits_for(r, WAIT_NO_DEVICE, "no device of kind cuda is connected");
    for (int i = 0; i < 5; i++) turn(r, SEC(1));
    assert_int_equal(task(r, a)->state, TASK_QUEUED);
    r->kind = "cuda";
    r->needs = 12 * GIB;
    (void)hello(r, "little", NULL, NULL, 0);
    assert_waits_for(r, WAIT_NO_MEMORY, "needs 12 GiB"); /* of the kind there is one now */
    r->has = 16 * GIB;
    Hand gpu = hello(r, "gpu", NULL, NULL, 0);
    turn(r, SEC(1));
    assert_int_equal(task(r, a)->state, TASK_RUNNING);
    assert_true(str_eqz(core_sym(r->core, task(r, a)->run->worker), "gpu"));
    assert_int_equal(result(r, &gpu, held(r, a)), REPORT_ACCEPTED);
    fleet_stream(r->fleet, str_from(gpu.id), false);
    fleet_stream(r->fleet, str_from(cpu.id), false);
    assert_waits_for(r, WAIT_UNAVAILABLE, "worker gpu is");
}

static void another_digest_is_a_reason(void **state)
{
    Rig *r = *state;
    Hand a = hello(r, "a", NULL, NULL, 0);
    r->digest = 1;
    r->refused_next = true;
    (void)hello(r, "b", NULL, NULL, 0);
    fleet_stream(r->fleet, str_from(a.id), false);
    for (int i = 0; i < 14; i++) turn(r, SEC(5));
    (void)submit(r);
    assert_waits_for(r, WAIT_NO_WORKER, "worker b has echo:1 with another digest");
}

/* One worker's figure, however large, changes nothing for the others. */
static void sizes_are_the_workers_own(void **state)
{
    Rig *r = *state;
    r->max_batch = 1;
    r->needs = GIB;
    r->has = 2 * GIB;
    Hand a = hello(r, "a", NULL, NULL, 0);
    r->needs = UINT64_C(1) << 50;
    (void)hello(r, "b", NULL, NULL, 0);
    uint64_t x = submit(r), y = submit(r);
    turn(r, MS(1));
    assert_int_equal(task(r, x)->state, TASK_RUNNING);
    assert_int_equal(task(r, y)->state, TASK_QUEUED);
    assert_int_equal(loaded(r, &a, 3 * GIB), REPORT_ACCEPTED); /* measured: too much */
    assert_int_equal(result(r, &a, held(r, x)), REPORT_ACCEPTED);
    turn(r, MS(1));
    assert_int_equal(task(r, y)->state, TASK_QUEUED);
    assert_waits_for(r, WAIT_NO_MEMORY, "as measured; the largest device has 2.0 GiB (worker a)");
    r->needs = GIB;
    (void)hello(r, "c", NULL, NULL, 0);
    assert_int_equal(task(r, y)->state, TASK_RUNNING);
}

/* A device that cannot load it is left alone for a while, longer each time; another one is not. */
static void failed_loads_back_off(void **state)
{
    Rig *r = *state;
    r->has = 2 * GIB;
    r->needs = GIB;
    Hand a = hello(r, "a", NULL, NULL, 0);
    uint64_t no = submit(r);
    turn(r, MS(1));
    static const int64_t memory[] = {1, 2, 4, 8, 16, 32, 60, 60};
    for (size_t i = 0; i < ARRAY_LEN(memory); i++) {
        assert_int_equal(task(r, no)->state, TASK_RUNNING);
        assert_int_equal(load_failed(r, &a, GIB), REPORT_ACCEPTED);
        assert_int_equal(released(r, &a, held(r, no)), REPORT_ACCEPTED);
        turn(r, MS(1));
        assert_int_equal(task(r, no)->state, TASK_QUEUED);
        assert_int_equal(task(r, no)->run->burned, 0);
        assert_waits_for(r, WAIT_LOAD_FAILED, "worker a could not load it: no such luck; tried");
        for (int64_t s = 0; s < memory[i]; s++) {
            assert_int_equal(task(r, no)->state, TASK_QUEUED);
            WorkerReport pong = {.kind = REPORT_PONG};
            assert_int_equal(report(r, &a, pong), REPORT_ACCEPTED);
            turn(r, SEC(1));
        }
    }
    assert_int_equal(load_failed(r, &a, GIB), REPORT_ACCEPTED);
    assert_int_equal(released(r, &a, held(r, no)), REPORT_ACCEPTED);
    Hand b = hello(r, "b", NULL, NULL, 0);
    assert_int_equal(task(r, no)->state, TASK_RUNNING);
    assert_int_equal(loaded(r, &b, GIB), REPORT_ACCEPTED);
    assert_int_equal(result(r, &b, held(r, no)), REPORT_ACCEPTED);
    assert_waits_for(r, WAIT_TURN, "");
}

/* A worker that hands everything back does not make the server spin. */
static void hand_backs_back_off(void **state)
{
    Rig *r = *state;
    Hand a = hello(r, "a", NULL, NULL, 0);
    uint64_t no = submit(r);
    size_t leases = 0;
    for (int i = 0; i < 600; i++) { /* a minute */
        turn(r, MS(100));
        if (said(r, "\"t\":\"ping\""))
            assert_int_equal(report(r, &a, (WorkerReport){.kind = REPORT_PONG}), REPORT_ACCEPTED);
        if (task(r, no)->state != TASK_RUNNING) continue;
        leases++;
        assert_int_equal(released(r, &a, held(r, no)), REPORT_ACCEPTED);
    }
    assert_true(leases >= 8 && leases <= 16);
    assert_waits_for(r, WAIT_UNAVAILABLE, "worker a hands its tasks back at once");
    assert_int_equal(task(r, no)->run->burned, 0);
    while (task(r, no)->state != TASK_RUNNING) turn(r, MS(100));
    assert_int_equal(result(r, &a, held(r, no)), REPORT_ACCEPTED);
    no = submit(r);
    for (int i = 0; i < 3; i++) { /* that is forgotten; one or two are nothing */
        turn(r, MS(1));
        assert_int_equal(task(r, no)->state, TASK_RUNNING);
        if (i < 2) assert_int_equal(released(r, &a, held(r, no)), REPORT_ACCEPTED);
    }
}

/* An order to keep a model warm loads it ahead of demand, and outlives a restart. */
static void warmth_is_on_record(void **state)
{
    Rig *r = *state;
    assert_int_equal(fleet_warm(r->fleet, STR("echo"), 1).code, CODE_UNKNOWN_MODEL);
    Hand a = hello(r, "a", NULL, NULL, 0);
    assert_false(said(r, "\"t\":\"load\""));
    assert_int_equal(fleet_warm(r->fleet, STR("echo"), 1).code, CODE_OK);
    turn(r, MS(1));
    assert_true(said(r, "{\"t\":\"load\",\"device\":0,\"model\":\"echo\",\"version\":\"1\"}"));
    assert_int_equal(loaded(r, &a, MIB), REPORT_ACCEPTED);
    turn(r, SEC(1));
    assert_false(said(r, "\"t\":\"load\""));
    restart(r);
    a = hello(r, "a", NULL, NULL, 0);
    assert_true(said(r, "\"t\":\"load\""));
    assert_int_equal(load_failed(r, &a, 0), REPORT_ACCEPTED); /* tried again, not at once */
    turn(r, MS(500));
    assert_false(said(r, "\"t\":\"load\""));
    turn(r, MS(600));
    assert_true(said(r, "\"t\":\"load\""));

    assert_int_equal(fleet_warm(r->fleet, STR("echo"), 64).code, CODE_OK);
    commit(r);
    (void)hello(r, "b", NULL, NULL, 0);
    assert_true(said(r, "\"t\":\"load\""));
    assert_int_equal(fleet_warm(r->fleet, STR("echo"), 0).code, CODE_OK);
    commit(r);
    restart(r);
    (void)hello(r, "a", NULL, NULL, 0);
    assert_false(said(r, "\"t\":\"load\""));
    assert_int_equal(fleet_warm(r->fleet, STR("echo"), -1).code, CODE_OK);
    commit(r);
    for (int n = 0; n <= 64; n++) {
        char flag[24];
        snprintf(flag, sizeof flag, "model_warm_%d", n);
        assert_false(core_flag(r->core, str_from(flag), STR("echo")));
    }
    assert_false(core_flag(r->core, STR("model_warm"), STR("echo")));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    say_setup(SAY_ERROR, SAY_TEXT, "test");
    const struct CMUnitTest tests[] = {
        TEST(crash_of_a_batch),
        TEST(who_pays),
        TEST(same_process_comes_back),
        TEST(new_process_ends_the_orphans),
        TEST(canceled_task_frees_its_slot),
        TEST(tokens_fence),
        TEST(deadline_passes_within_a_turn),
        TEST(a_late_result_is_no_success),
        TEST(full_disk_goes_on_with_what_there_is),
        TEST(leases_outlive_a_pause),
        TEST(leases_outlive_a_full_log),
        TEST(a_report_that_must_wait_renews_its_lease),
        TEST(a_registration_closes_the_stream_before_it),
        TEST(hello_waits_for_the_log),
        TEST(waiting_has_a_reason),
        TEST(a_view_that_is_behind_stops_submits),
        TEST(another_kind_of_device_is_a_reason),
        TEST(another_digest_is_a_reason),
        TEST(sizes_are_the_workers_own),
        TEST(failed_loads_back_off),
        TEST(hand_backs_back_off),
        TEST(warmth_is_on_record),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
