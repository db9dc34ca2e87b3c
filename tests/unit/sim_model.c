/* The simulator's model beside the real core: random decisions, crashes, replays and snapshots, and
 * the two are of one mind; then every invariant that the model holds, broken on purpose. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "sim/model.h"
#include "task/record.h"

#define SECOND NS_PER_S
#define START  (INT64_C(1795000000) * SECOND)

typedef struct {
    Core *core;
    Model *model;
    FrameBuilder b;
    LogPoint at;
    Buf log, why; /* log: frames, one after another */
    int64_t now;
    CoreLimits limits;
    uint64_t durable_seq;
    size_t durable_bytes;
    bool freeze;
} World;

static void fail_with(World *w, int broken)
{
    if (broken) fail_msg("%d: %s", broken, buf_z(&w->why));
}

static void to_model(World *w, size_t begin)
{
    fail_with(
        w, model_frame(w->model, (Str){(char *)w->log.data + begin, w->log.len - begin}, &w->why));
}

static void apply_at(World *w, size_t begin)
{
    Frame f;
    size_t len;
    assert_int_equal(frame_read((Str){(char *)w->log.data + begin, w->log.len - begin}, &f, &len),
                     0);
    assert_int_equal(core_apply(w->core, &f), 0);
}

static void commit(World *w)
{
    if (!w->b.records) return;
    size_t begin = w->log.len;
    frame_seal(&w->b, w->now, &w->at, &w->log);
    frame_reset(&w->b);
    to_model(w, begin);
    apply_at(w, begin);
}

static void durable(World *w)
{
    w->durable_seq = w->at.next_seq - 1;
    w->durable_bytes = w->log.len;
    model_durable(w->model, w->durable_seq);
}

/* ---- the observer wants to be told nothing ---- */
static void on_changed(void *c, Task *t, TaskState s, const TaskEvent *e)
{
    (void)c, (void)t, (void)s, (void)e;
}
static void on_task(void *c, Task *t)
{
    (void)c, (void)t;
}
static void on_freed(void *c, Task *t, uint64_t token, int64_t ns)
{
    (void)c, (void)t, (void)token, (void)ns;
}
static void on_void(void *c, Task *t, uint64_t token)
{
    (void)c, (void)t, (void)token;
}
static void on_file(void *c, const File *f)
{
    (void)c, (void)f;
}

static void claim(World *w)
{
    static const uint8_t key[16] = {1, 2, 3};
    core_claim(w->core, w->at.epoch + 1, 99, STR("test"), key, &w->b);
    w->at.epoch++;
    w->at.holder = 99;
    commit(w);
    durable(w);
    CoreObserver o = {w, on_changed, on_task, on_task, on_freed, on_void, on_task, on_file};
    core_observe(w->core, &o, w->now);
}

static void world_init(World *w, bool history)
{
    *w = (World){.now = START, .at = {.next_seq = 1}};
    core_limits_default(&w->limits);
    w->limits.history = history;
    w->limits.finished_max = 40;
    w->limits.idem_ttl_ns = 100 * SECOND;
    w->limits.platform_losses_max = 5;
    w->limits.file_ttl_s = 200;
    w->core = core_new(&w->limits, 7);
    w->model = model_new(&w->limits);
    model_judge_lease_ends(w->model, true);
    claim(w);
}

static void world_done(World *w)
{
    core_free(w->core);
    model_free(w->model);
    frame_done(&w->b);
    buf_done(&w->log);
    buf_done(&w->why);
}

/* ---- chance ---- */

static Task *some_task(World *w, Random *r, bool leased)
{
    Task *t = core_older(w->core, UINT64_MAX);
    for (uint64_t skip = random_below(r, 30); t && skip; skip--) {
        Task *older = core_older(w->core, t->no);
        if (!older) break;
        t = older;
    }
    while (t && leased && !t->run->token) t = core_older(w->core, t->no);
    return t;
}

static void some_submit(World *w, Random *r)
{
    static const char *const tenants[] = {"a", "b", "c"};
    char key[2] = {(char)('a' + random_below(r, 26))};
    char input[64];
    snprintf(input, sizeof input, "{\"n\":%u}", (unsigned)random_below(r, 1000000));
    SubmitSpec s = {.tenant = str_from(tenants[random_below(r, 3)]),
                    .model = random_below(r, 2) ? STR("m") : STR("n"),
                    .version = STR("1"),
                    .input = str_from(input),
                    .max_attempts = 1 + (uint32_t)random_below(r, 4),
                    .class = (TaskClass)random_below(r, CLASSES),
                    .retention_s = (uint32_t)random_below(r, 100),
                    .delay_ns = random_below(r, 4) ? 0 : (int64_t)random_below(r, 10) * SECOND,
                    .metadata = random_below(r, 3) ? STR("") : STR("{\"k\":\"v\"}")};
    if (random_below(r, 4) == 0)
        s.deadline_ns = s.delay_ns + (1 + (int64_t)random_below(r, 30)) * SECOND;
    if (random_below(r, 3) == 0) s.idempotency_key = (Str){key, 1};
    if (random_below(r, 8) == 0) s.retry_of = some_task(w, r, false);
    uint64_t files[3];
    for (uint64_t i = random_below(r, 4); i; i--) {
        uint64_t no = random_below(r, 60);
        const File *f = no ? core_file(w->core, no) : NULL;
        if (!f || !str_eq(core_sym(w->core, f->tenant), s.tenant)) continue;
        if (s.files_len && files[s.files_len - 1] >= no) continue; /* different ones */
        files[s.files_len++] = no;
        if (s.files_len == 3) break;
    }
    s.files = files;
    (void)core_submit(w->core, &s, w->now, &w->b);
}

static void some_file(World *w, Random *r)
{
    char id[32];
    snprintf(id, sizeof id, "file_%026llu", (unsigned long long)w->at.next_seq);
    Sha256 sha = {{(uint8_t)random_below(r, 256)}};
    Task *t = random_below(r, 2) ? some_task(w, r, true) : NULL;
    static const char *const tenants[] = {"a", "b", "c"};
    Str tenant = t ? core_sym(w->core, t->tenant) : str_from(tenants[random_below(r, 3)]);
    (void)core_put_file(w->core, str_from(id), tenant, random_below(r, 1000), &sha, STR("n"),
                        STR("text/plain"), t ? t->no : 0, w->now, &w->b);
}

static void some_end(World *w, Random *r)
{
    Task *t = some_task(w, r, true);
    if (!t) return;
    Usage u = {(int64_t)random_below(r, 100), (int64_t)random_below(r, 100)};
    uint64_t token = random_below(r, 8) ? t->run->token : 1 + random_below(r, w->at.next_seq);
    switch (random_below(r, 6)) {
    case 0:
    case 1: {
        uint64_t files[4];
        size_t len = 0;
        for (uint64_t no = 1; no < 4000 && len < 4; no++) {
            const File *f = core_file(w->core, no);
            if (f && f->owner_task == t->no) files[len++] = no;
        }
        char out[64];
        snprintf(out, sizeof out, "{\"of\":%llu}", (unsigned long long)token);
        (void)core_succeed(w->core, t->no, token, str_from(out), files, len, u, &w->b);
        break;
    }
    case 2:
        (void)core_fail(w->core, t->no, token, FAIL_MODEL_ERROR, random_below(r, 3) != 0, STR("oh"),
                        u, w->now, &w->b);
        break;
    case 3:
        (void)core_release(w->core, t->no, token, FAIL_NONE, false, u, w->now, &w->b);
        break;
    case 4: {
        bool crash = random_below(r, 2);
        if (!crash) model_holder_gone(w->model, core_sym(w->core, t->run->worker));
        (void)core_release(w->core, t->no, token, crash ? FAIL_MODEL_CRASHED : FAIL_WORKER_LOST,
                           crash && random_below(r, 2), u, w->now, &w->b);
        break;
    }
    default: {
        uint64_t file = random_below(r, 2) ? random_below(r, 100) : 0;
        if (file && !core_file(w->core, file)) file = 0;
        (void)core_checkpoint(w->core, t->no, token, random_below(r, 30), file, &w->b);
    }
    }
}

static void pass(World *w, int64_t ns)
{
    w->now += ns;
    while (core_due(w->core, w->now, false, &w->b)) commit(w);
    commit(w);
}

static void one_step(World *w, Random *r)
{
    Task *t;
    switch (random_below(r, 14)) {
    case 0:
    case 1:
    case 2:
        some_submit(w, r);
        break;
    case 3:
    case 4:
    case 5:
        if ((t = some_task(w, r, false))) {
            LeaseSpec l = {.no = t->no,
                           .worker = random_below(r, 2) ? STR("w1") : STR("w2"),
                           .device = 1,
                           .batch = w->at.next_seq,
                           .batch_size = 1};
            if (!core_flag(w->core, STR("model_paused"), core_sym(w->core, t->model)) &&
                !core_flag(w->core, STR("worker_cordoned"), l.worker))
                (void)core_lease(w->core, &l, w->now, &w->b);
        }
        break;
    case 6:
    case 7:
        some_end(w, r);
        break;
    case 8:
        if ((t = some_task(w, r, random_below(r, 2)))) {
            if (random_below(r, 2))
                (void)core_cancel(w->core, t->no, w->now, &w->b);
            else
                (void)core_forget(w->core, t->no, &w->b);
        } else { /* one that has left memory, perhaps */
            (void)core_forget(w->core, random_below(r, 200), &w->b);
        }
        break;
    case 9:
        some_file(w, r);
        break;
    case 10:
        if (random_below(r, 2)) {
            const File *f = core_file(w->core, 1 + random_below(r, 100));
            if (f) (void)core_delete_file(w->core, f->no, &w->b);
        } else if ((t = some_task(w, r, true)) &&
                   core_renew(w->core, t->no, t->run->token, w->now)) {
            model_renewed(w->model, t->run->token, w->now);
        }
        break;
    case 11:
        if (random_below(r, 10) == 0)
            (void)core_set_flag(
                w->core, random_below(r, 2) ? STR("model_paused") : STR("worker_cordoned"),
                random_below(r, 2) ? STR("n") : STR("w2"), random_below(r, 2), &w->b);
        else if (random_below(r, 10) == 0)
            (void)core_put_model(w->core, STR("n"), random_below(r, 2) ? STR("1") : STR("2"),
                                 &(Sha256){{1}}, STR("{}"), &w->b);
        break;
    case 12:
        if (w->limits.history && random_below(r, 3) == 0) {
            Task *s = core_settled(w->core, NULL);
            for (uint64_t n = random_below(r, 20); s && n; n--) {
                Task *next = core_settled(w->core, s);
                if (!next || next->run->settled_seq > w->durable_seq) break;
                s = next;
            }
            if (s && s->run->settled_seq <= w->durable_seq)
                core_history(w->core, s->run->settled_seq, &w->b);
        } else {
            durable(w);
        }
        break;
    default:
        pass(w, (int64_t)random_below(r, 3) * SECOND + (int64_t)random_below(r, 1000));
        break;
    }
    commit(w);
}

/* The process dies; of what was not durable, some is lost. A new core replays what is there. */
static void crash(World *w, Random *r)
{
    size_t keep = w->durable_bytes, len;
    LogPoint at = {.next_seq = 1};
    core_free(w->core);
    w->core = core_new(&w->limits, random_u64(r));
    size_t pos = 0;
    Frame f;
    while (pos < w->log.len) {
        Str bytes = {(char *)w->log.data + pos, w->log.len - pos};
        assert_int_equal(frame_read(bytes, &f, &len), 0);
        if (pos >= keep && random_below(r, 10) == 0) break;
        assert_true(frame_counts(&f, frame_is_claim(&f), (const uint8_t *)bytes.p, len, &at));
        assert_int_equal(core_apply(w->core, &f), 0);
        pos += len;
    }
    w->log.len = pos;
    w->at = at;
    fail_with(w, model_restart(w->model, &at, &w->why));
    fail_with(w, model_compare(w->model, w->core, &w->why));
    claim(w);
}

static int to_buf(void *ctx, Str piece)
{
    buf_put_str(ctx, piece);
    return 0;
}

static void compare_snapshot(World *w)
{
    Buf b = {0};
    assert_int_equal(core_snapshot(w->core, to_buf, &b), 0);
    Core *c = core_new(&w->limits, 1);
    assert_int_equal(core_restore(c, &w->at, buf_str(&b)), 0);
    assert_int_equal(core_restore(c, &w->at, (Str){"", 0}), 0);
    fail_with(w, model_compare(w->model, c, &w->why));
    core_free(c);
    buf_done(&b);
}

static void side_by_side(bool history, uint64_t seed, int steps)
{
    World w;
    Random r;
    random_seed(&r, seed);
    world_init(&w, history);
    for (int i = 0; i < steps; i++) {
        one_step(&w, &r);
        if (i % 50 == 0) fail_with(&w, model_compare(w.model, w.core, &w.why));
        if (i % 1000 == 999) compare_snapshot(&w);
        if (random_below(&r, 4000) == 0) crash(&w, &r);
    }
    for (uint8_t type = REC_CLAIM; type < REC_TYPES; type++)
        if ((type != REC_HISTORY || history) && (type != REC_EVICT || !history) &&
            !model_records(w.model, type))
            fail_msg("no %s record was met", record_type_name(type));
    world_done(&w);
}

static void the_core_and_the_model_agree(void **ctx)
{
    (void)ctx;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        side_by_side(false, seed, 20000);
        side_by_side(true, seed, 20000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_core_and_the_model_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
