/* shard_disk.c: a whole shard (task core, log, scheduler, fleet) on a disk where every operation
 * fails once, and on one that crashes at every operation. What was acknowledged, a task, its end or
 * its cancel, is there after each; nothing is there twice; and the shard goes on.
 *
 * Lives with spilled payloads are apart: a payload that cannot be read back ends the process by
 * design (task/payloads.c), so there reads never fail. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "log_model.h"
#include "node/fold.h"
#include "node/shard.h"

#define ROUNDS  24
#define SEGMENT (16 * KIB)

/* A task as its client knows it. `did`: decided, but the commit has not said so yet. */
typedef struct {
    uint64_t no;
    size_t len;
    char fill;
    bool accepted, ended, canceled;
    bool did_end, did_cancel;
    bool may_end, may_cancel; /* decided in a life that ended before the commit: it may have come */
} Known;

typedef struct {
    Clock clock;
    int64_t now_ns;
    MemDisk *disk;
    Shard *shard;
    bool spills;
    Known known[ROUNDS * 8 * 3];
    size_t known_len;
    uint64_t seed, lives, folds, seen;
} Rig;

static int64_t clock_now(Clock *c)
{
    return CONTAINER_OF(c, Rig, clock)->now_ns;
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
    const Rig *r = ctx;
    (void)worker_id;
    (void)line;
    MUST(hold_seq <= shard_last_seq(r->shard));
}

static void on_kick(void *ctx, Str worker_id)
{
    (void)ctx;
    (void)worker_id;
}

static void on_kill(void *ctx, Str worker_name, int64_t pid)
{
    (void)ctx;
    (void)worker_name;
    (void)pid;
}

static Rig *rig_new(uint64_t seed, bool spills)
{
    Rig *r = mem_new(sizeof *r);
    r->clock = (Clock){clock_now, clock_now};
    r->now_ns = INT64_C(1795000000) * NS_PER_S;
    r->disk = mem_disk_new(seed);
    r->disk->spared = spills ? "" : NULL;
    r->seed = seed;
    r->spills = spills;
    return r;
}

static void rig_free(Rig *r)
{
    disk_free(&r->disk->base);
    mem_free(r);
}

/* ---- what must be there ---- */

static Buf payload_of(const Known *k)
{
    Buf b = {0};
    buf_putc(&b, '"');
    memset(buf_extend(&b, k->len), k->fill, k->len);
    buf_putc(&b, '"');
    return b;
}

static void check(const Rig *r, bool all_ended)
{
    Core *c = shard_core(r->shard);
    for (size_t i = 0; i < r->known_len; i++) {
        const Known *k = &r->known[i];
        const Task *t = core_task(c, k->no);
        MUST(t || !k->accepted);
        if (!t) continue;
        Buf want = payload_of(k);
        if (k->ended) MUST(t->state == TASK_SUCCEEDED);
        if (k->canceled) MUST(t->state == TASK_CANCELED);
        if (t->state == TASK_SUCCEEDED) {
            MUST(k->ended || k->did_end || k->may_end);
            MUST(str_eq(core_payload(c, &t->run->output), buf_str(&want)));
        }
        if (t->state == TASK_CANCELED) MUST(k->canceled || k->did_cancel || k->may_cancel);
        if (t->state == TASK_QUEUED || t->state == TASK_RUNNING)
            MUST(!all_ended && str_eq(core_payload(c, &t->input), buf_str(&want)));
        buf_done(&want);
    }
    MUST(core_misfits(c) == 0);
}

/* 0: what was decided so far is acknowledged. */
static int commit(Rig *r)
{
    uint64_t seq;
    (void)shard_take_dirty(r->shard);
    int err = log_commit(shard_log(r->shard), &seq);
    if (err) return err;
    MUST(seq == shard_last_seq(r->shard));
    shard_durable(r->shard, seq);
    for (size_t i = 0; i < r->known_len; i++) {
        Known *k = &r->known[i];
        k->accepted = true;
        k->ended |= k->did_end;
        k->canceled |= k->did_cancel;
    }
    return 0;
}

/* The process is gone. What no commit confirmed may be there or not; a task's number may be given
 * to another one then. */
static void forget(Rig *r)
{
    size_t left = 0;
    for (size_t i = 0; i < r->known_len; i++) {
        Known k = r->known[i];
        k.may_end |= k.did_end;
        k.may_cancel |= k.did_cancel;
        k.did_end = k.did_cancel = false;
        if (k.accepted) r->known[left++] = k;
    }
    r->known_len = left;
}

/* ---- a life ---- */

static bool weather(Code code)
{
    return code == CODE_DISK_FULL || code == CODE_LOG_STALLED || code == CODE_NO_LEADER;
}

static int start(Rig *r)
{
    ShardOptions o = {.ping_s = 5, .seed = ++r->lives, .address = "test", .segment_bytes = SEGMENT};
    core_limits_default(&o.limits);
    o.limits.payload_memory_max = r->spills ? 100 : UINT64_MAX;
    ShardOut out = {r, on_changed, on_task, on_task, on_file, on_line, on_kick, on_kill, NULL};
    Buf why = {0};
    r->now_ns += NS_PER_S;
    int err = shard_open(&r->disk->base, &r->clock, &o, &out, &r->shard, &why);
    if (err) {
        r->shard = NULL;
    } else {
        check(r, false);
        err = shard_claim(r->shard, &why);
    }
    if (!err) err = commit(r);
    if (!err) shard_lead(r->shard);
    if (err && err != ERR_IO && err != ERR_NOSPC) /* never ERR_CORRUPT */
        fprintf(stderr, "%s: %s\n", model_context, buf_z(&why));
    MUST(err == 0 || err == ERR_IO || err == ERR_NOSPC);
    buf_done(&why);
    return err;
}

static bool hello(Rig *r, char id[40])
{
    Buf refused = {0}, stale = {0};
    WorkerDevice device = {.index = 0, .kind = STR("cpu"), .threads = 1};
    WorkerModel model = {
        .name = STR("echo"), .version = STR("1"), .engine = STR("echo"), .max_batch = 4};
    WorkerHello w = {.name = STR("w"),
                     .former_id = STR(""),
                     .pid = 77,
                     .devices = &device,
                     .devices_len = 1,
                     .models = &model,
                     .models_len = 1};
    Decision d = fleet_hello(shard_fleet(r->shard), &w, id, &refused, &stale);
    MUST(d.code == CODE_OK || weather(d.code));
    if (!d.code) fleet_stream(shard_fleet(r->shard), str_from(id), true);
    buf_done(&refused);
    buf_done(&stale);
    return !d.code;
}

static SubmitSpec spec_of(Str input, char key[24])
{
    return (SubmitSpec){.tenant = STR("t"),
                        .model = STR("echo"),
                        .version = STR("1"),
                        .input = input,
                        .idempotency_key = str_from(key),
                        .class = CLASS_STANDARD,
                        .max_attempts = 3,
                        .retention_s = 3600};
}

static void submit(Rig *r, Random *x)
{
    if (r->known_len == ARRAY_LEN(r->known)) return;
    Known k = {.fill = (char)('a' + random_below(x, 26)),
               .len = (size_t)random_below(x, random_below(x, 6) ? 300 : 9000)};
    Buf input = payload_of(&k);
    char key[24];
    snprintf(key, sizeof key, "key-%u", (unsigned)++r->seen);
    SubmitSpec s = spec_of(buf_str(&input), key);
    Decision d = shard_submit(r->shard, &s);
    MUST(d.code == CODE_OK || weather(d.code));
    if (!d.code) {
        Decision again = shard_submit(r->shard, &s);
        MUST(!again.code && again.duplicate && again.task_no == d.task_no);
        k.no = d.task_no;
        for (size_t i = 0; i < r->known_len; i++) MUST(r->known[i].no != k.no);
        r->known[r->known_len++] = k;
    }
    buf_done(&input);
}

static void work(Rig *r, const char *worker, Random *x)
{
    for (size_t i = 0; i < r->known_len; i++) {
        Known *k = &r->known[i];
        const Task *t = core_task(shard_core(r->shard), k->no);
        if (t->state == TASK_RUNNING && random_below(x, 3)) {
            Buf output = payload_of(k), detail = {0};
            WorkerReport w = {.kind = REPORT_RESULT,
                              .lease = {k->no, t->run->token},
                              .output = buf_str(&output),
                              .usage = {NS_PER_MS, NS_PER_MS}};
            ReportAnswer a = fleet_report(shard_fleet(r->shard), str_from(worker), &w, &detail);
            k->did_end |= a == REPORT_ACCEPTED;
            buf_done(&output);
            buf_done(&detail);
        } else if (t->state == TASK_QUEUED && random_below(x, 12) == 0) {
            k->did_cancel |= !shard_cancel(r->shard, k->no).code;
        }
    }
}

static int fold_now(Rig *r)
{
    CoreLimits limits = *core_limits(shard_core(r->shard));
    Buf why = {0};
    int err = fold_run(shard_log(r->shard), &r->disk->base, &limits, &why);
    if (err && err != ERR_IO && err != ERR_NOSPC)
        fprintf(stderr, "%s: %s: %s\n", model_context, err_text(err), buf_z(&why));
    MUST(!err || err == ERR_IO || err == ERR_NOSPC);
    buf_done(&why);
    r->folds += !err;
    return err;
}

/* From open to the last round, or to the first error that ends a process. */
static int live(Rig *r, int rounds)
{
    char worker[40] = "";
    Random x;
    random_seed(&x, r->seed * 100 + r->lives);
    int err = start(r);
    for (int i = 0; i < rounds && !err; i++) {
        if (!worker[0] && !hello(r, worker)) worker[0] = 0;
        for (uint64_t n = random_below(&x, 5); n; n--) submit(r, &x);
        r->now_ns += 20 * NS_PER_MS;
        (void)shard_step(r->shard);
        if (worker[0]) work(r, worker, &x);
        err = commit(r);
        if (!err && i % 8 == 5) (void)fold_now(r); /* when it fails, the segments stay */
    }
    if (err && r->shard) {
        shard_failed(r->shard, err);
        Buf input = {0};
        buf_puts(&input, "1");
        char key[24] = "";
        SubmitSpec s = spec_of(buf_str(&input), key);
        MUST(shard_submit(r->shard, &s).code != CODE_OK); /* nothing is taken any more */
        buf_done(&input);
    }
    shard_free(r->shard);
    r->shard = NULL;
    forget(r);
    return err;
}

/* No faults any more: all of it ends, and a replay of that gives the same. */
static void finish(Rig *r)
{
    char worker[40] = "";
    Random x;
    random_seed(&x, 1);
    MUST(start(r) == 0);
    for (int i = 0; i < 500; i++) {
        if (!worker[0] && !hello(r, worker)) worker[0] = 0;
        r->now_ns += 100 * NS_PER_MS;
        (void)shard_step(r->shard);
        if (worker[0]) work(r, worker, &x);
        MUST(commit(r) == 0);
        Core *c = shard_core(r->shard);
        if (!core_count(c, TASK_QUEUED) && !core_count(c, TASK_RUNNING)) break;
    }
    check(r, true);
    uint64_t hash = core_hash(shard_core(r->shard));
    shard_free(r->shard);
    forget(r);
    mem_disk_crash(r->disk, CRASH_DROP);

    ShardOptions o = {.seed = 1, .address = "test", .segment_bytes = SEGMENT};
    core_limits_default(&o.limits);
    ShardOut out = {r, on_changed, on_task, on_task, on_file, on_line, on_kick, on_kill, NULL};
    Buf why = {0};
    MUST(shard_open(&r->disk->base, &r->clock, &o, &out, &r->shard, &why) == 0);
    MUST(core_hash(shard_core(r->shard)) == hash);
    check(r, true);
    shard_free(r->shard);
    r->shard = NULL;
    buf_done(&why);
}

/* ---- every operation ---- */

static uint64_t count_ops(uint64_t seed, bool spills)
{
    Rig *r = rig_new(seed, spills);
    snprintf(model_context, sizeof model_context, "seed %d, calm", (int)seed);
    MUST(live(r, ROUNDS) == 0);
    uint64_t ops = r->disk->ops;
    MUST(r->known_len > ROUNDS && r->folds);
    finish(r);
    rig_free(r);
    return ops;
}

static void crash_at_every_operation(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        bool spills = seed % 2 == 0;
        uint64_t ops = count_ops(seed, spills);
        for (uint64_t at = 1; at <= ops; at++) {
            for (int how = 0; how < CRASHES; how++) {
                Rig *r = rig_new(seed, spills);
                snprintf(model_context, sizeof model_context, "seed %d, crash %d at %d", (int)seed,
                         how, (int)at);
                r->disk->die_at = at;
                (void)!live(r, ROUNDS);
                mem_disk_crash(r->disk, (MemCrash)how);
                r->disk->die_at = r->disk->ops + 1 + at % 50; /* and soon again */
                (void)!live(r, 4);
                mem_disk_crash(r->disk, (MemCrash)(at % CRASHES));
                r->disk->die_at = 0;
                finish(r);
                rig_free(r);
            }
        }
        printf("seed %d: crashes at each of %d operations\n", (int)seed, (int)ops);
    }
}

static void fail_every_operation(void **state)
{
    (void)state;
    static const int errors[] = {ERR_IO, ERR_NOSPC};
    for (uint64_t seed = 1; seed <= 4; seed++) {
        bool spills = seed % 2 == 0;
        uint64_t ops = count_ops(seed, spills), ended = 0;
        for (uint64_t at = 1; at <= ops; at++) {
            for (size_t e = 0; e < ARRAY_LEN(errors); e++) {
                Rig *r = rig_new(seed, spills);
                snprintf(model_context, sizeof model_context, "seed %d, %s at %d", (int)seed,
                         err_text(errors[e]), (int)at);
                r->disk->fail_at = at;
                r->disk->fail_err = errors[e];
                ended += live(r, ROUNDS) != 0;
                r->disk->fail_at = 0;
                /* The next process sees the page cache, which may say more than the disk. */
                if (at % 2) MUST(live(r, 3) == 0);
                mem_disk_crash(r->disk, (MemCrash)(at / 2 % CRASHES));
                finish(r);
                rig_free(r);
            }
        }
        printf("seed %d: each of %d operations failed twice; %d lives ended by that\n", (int)seed,
               (int)ops, (int)ended);
    }
}

int main(void)
{
    say_setup((SayLevel)(SAY_ERROR + 1), SAY_TEXT, "test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crash_at_every_operation),
        cmocka_unit_test(fail_every_operation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
