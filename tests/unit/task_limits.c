/* What a core refuses, and says why: limits met, things that are not there, words of workers that
 * come too late. And files: who holds them, and when they go. */
#include "unit/task_rig.h"

#define HOUR (3600 * SECOND)

static SubmitSpec plain(void)
{
    return (SubmitSpec){.tenant = STR("a"),
                        .model = STR("m"),
                        .version = STR("1"),
                        .input = STR("{}"),
                        .max_attempts = 2,
                        .retention_s = 1000};
}

static Decision ask(World *w, const SubmitSpec *s)
{
    Decision d = core_submit(w->core, s, w->now, &w->b);
    if (d.code != CODE_OK) assert_int_equal(w->b.records, 0);
    commit(w);
    return d;
}

static World small_world(void)
{
    World w = {.now = INT64_C(1795000000) * SECOND};
    core_limits_default(&w.limits);
    w.limits.queued_max = 5;
    w.limits.tenant_queued_max = 3;
    w.limits.idem_tenant_max = 2;
    w.limits.platform_losses_max = 2;
    w.limits.backoff_first_ns = SECOND;
    w.limits.backoff_max_ns = 3 * SECOND;
    w.core = core_new(&w.limits, 7);
    w.at = (LogPoint){.next_seq = 1, .epoch = 1, .holder = 99};
    core_claim(w.core, 1, 99, STR("test"), (const uint8_t *)"0123456789abcdef", &w.b);
    return w;
}

static void queues_have_limits(void **state)
{
    (void)state;
    World w = small_world();
    lead(&w);
    SubmitSpec s = plain();
    for (int i = 0; i < 3; i++) assert_int_equal(ask(&w, &s).code, CODE_OK);
    Decision d = ask(&w, &s);
    assert_int_equal(d.code, CODE_QUOTA_EXCEEDED);
    assert_true(d.retry_after_ms > 0);
    assert_non_null(strstr(d.detail, "'a' has 3 tasks"));
    /* The configuration may say otherwise of one tenant; others have room of their own. */
    core_tenant_configure(w.core, STR("a"), 4);
    assert_int_equal(ask(&w, &s).code, CODE_OK);
    assert_int_equal(ask(&w, &s).code, CODE_QUOTA_EXCEEDED);
    s.tenant = STR("b");
    assert_int_equal(ask(&w, &s).code, CODE_OK);
    d = ask(&w, &s);
    assert_int_equal(d.code, CODE_QUEUE_FULL);
    assert_true(d.retry_after_ms > 0);
    /* What runs is not queued. */
    lease(&w, 1);
    assert_int_equal(ask(&w, &s).code, CODE_OK);
    world_done(&w);
}

static void keys_have_a_limit(void **state)
{
    (void)state;
    World w = small_world();
    lead(&w);
    SubmitSpec s = plain();
    s.idempotency_key = STR("1");
    assert_int_equal(ask(&w, &s).code, CODE_OK);
    s.idempotency_key = STR("2");
    uint64_t second = ask(&w, &s).task_no;
    s.idempotency_key = STR("3");
    Decision d = ask(&w, &s);
    assert_int_equal(d.code, CODE_QUOTA_EXCEEDED);
    assert_string_equal(d.field, "Idempotency-Key");
    s.idempotency_key = STR("2"); /* one in force is no new one */
    assert_true(ask(&w, &s).duplicate);
    /* Its task has left memory: without a history view that is all that can be said. */
    core_cancel(w.core, second, w.now, &w.b);
    commit(&w);
    pass(&w, 1100 * SECOND);
    assert_null(core_task(w.core, second));
    assert_int_equal(ask(&w, &s).code, CODE_GONE);
    world_done(&w);
}

static void submits_have_limits(void **state)
{
    (void)state;
    World w = small_world();
    lead(&w);
    char *large = mem_new(TASK_INLINE_MAX + 1);
    uint64_t files[TASK_FILES_MAX + 1] = {0};
    SubmitSpec s = plain();
    s.input = (Str){large, TASK_INLINE_MAX + 1};
    Decision d = ask(&w, &s);
    assert_true(d.code == CODE_TOO_LARGE && !strcmp(d.field, "input"));
    s.input.n--;
    assert_int_equal(ask(&w, &s).code, CODE_OK);
    s = plain();
    s.files = files;
    s.files_len = TASK_FILES_MAX + 1;
    assert_int_equal(ask(&w, &s).code, CODE_TOO_LARGE);
    s = plain();
    s.delay_ns = s.deadline_ns = 5 * SECOND;
    d = ask(&w, &s);
    assert_true(d.code == CODE_INVALID_REQUEST && !strcmp(d.field, "delay_s"));
    s.deadline_ns++;
    assert_int_equal(ask(&w, &s).code, CODE_OK);
    s = plain();
    s.max_attempts = 1000;
    uint64_t no = ask(&w, &s).task_no;
    assert_int_equal(core_task(w.core, no)->max_attempts, TASK_ATTEMPTS_MAX);
    mem_free(large);
    world_done(&w);
}

static void results_have_limits(void **state)
{
    (void)state;
    World w = small_world();
    lead(&w);
    uint64_t no = submit(&w), token = lease(&w, no), files[TASK_FILES_MAX + 1] = {0};
    char *large = mem_new(TASK_INLINE_MAX + 1);
    Usage u = {-5, -7}; /* a worker's word: nothing below zero is charged */
    Decision d = core_succeed(w.core, no, token, (Str){large, TASK_INLINE_MAX + 1}, NULL, 0, u,
                              &w.b);
    assert_true(d.code == CODE_TOO_LARGE && w.b.records == 0);
    d = core_succeed(w.core, no, token, STR("1"), files, TASK_FILES_MAX + 1, u, &w.b);
    assert_true(d.code == CODE_TOO_LARGE && w.b.records == 0);
    assert_int_equal(core_succeed(w.core, no, token, STR("1"), NULL, 0, u, &w.b).code, CODE_OK);
    commit(&w);
    assert_int_equal(w.charged, 0);
    mem_free(large);
    world_done(&w);
}

static void what_is_not_there(void **state)
{
    (void)state;
    World w = small_world();
    lead(&w);
    Usage u = {0};
    assert_int_equal(core_cancel(w.core, 9, w.now, &w.b).code, CODE_NOT_FOUND);
    assert_int_equal(core_forget(w.core, 9, &w.b).code, CODE_NOT_FOUND);
    assert_int_equal(core_delete_file(w.core, 9, &w.b).code, CODE_NOT_FOUND);
    assert_int_equal(core_checkpoint(w.core, 9, 1, 1, 1, &w.b).code, CODE_CONFLICT);
    assert_int_equal(core_succeed(w.core, 9, 1, STR("1"), NULL, 0, u, &w.b).code, CODE_CONFLICT);
    assert_int_equal(core_lease(w.core, &(LeaseSpec){.no = 9}, w.now, &w.b).code, CODE_CONFLICT);
    assert_false(core_renew(w.core, 9, 1, w.now));
    assert_false(core_progress(w.core, 9, 1, 1, 2));
    uint64_t no = submit(&w);
    assert_int_equal(core_forget(w.core, no, &w.b).code, CODE_CONFLICT);
    assert_false(core_renew(w.core, no, 0, w.now));
    assert_false(core_progress(w.core, no, 0, 1, 2));
    assert_int_equal(core_succeed(w.core, no, 0, STR("1"), NULL, 0, u, &w.b).code, CODE_CONFLICT);
    uint64_t token = lease(&w, no);
    assert_false(core_progress(w.core, no, token + 1, 1, 2));
    assert_true(core_progress(w.core, no, token, 1, 2));
    assert_int_equal(core_checkpoint(w.core, no, token, 1, 77, &w.b).code, CODE_NOT_FOUND);
    core_cancel(w.core, no, w.now, &w.b);
    commit(&w);
    assert_false(core_progress(w.core, no, token, 2, 2)); /* its lease lives, the task does not */
    assert_true(core_renew(w.core, no, token, w.now));
    assert_int_equal(core_checkpoint(w.core, no, token, 1, 77, &w.b).code, CODE_CONFLICT);
    /* A deadline that has passed, before the timer said so. */
    no = submit_with(&w, (SubmitSpec){.deadline_ns = SECOND});
    w.now += 2 * SECOND;
    Decision d = core_lease(w.core, &(LeaseSpec){.no = no, .worker = STR("w")}, w.now, &w.b);
    assert_true(d.code == CODE_CONFLICT && strstr(d.detail, "deadline"));
    assert_int_equal(w.b.records, 0);
    world_done(&w);
}

static void lost_workers_are_counted_apart(void **state)
{
    (void)state;
    World w = small_world();
    lead(&w);
    uint64_t no = submit(&w);
    Usage u = {0};
    core_release(w.core, no, lease(&w, no), FAIL_WORKER_LOST, false, u, w.now, &w.b);
    commit(&w);
    assert_int_equal(state_of(&w, no), TASK_QUEUED);
    assert_int_equal(core_task(w.core, no)->run->burned, 0);
    pass(&w, 10 * SECOND);
    core_release(w.core, no, lease(&w, no), FAIL_WORKER_LOST, false, u, w.now, &w.b);
    commit(&w); /* the second is the last that is borne */
    assert_int_equal(state_of(&w, no), TASK_FAILED);
    assert_int_equal(core_task(w.core, no)->run->fail, FAIL_WORKER_LOST);
    /* A crash of the model burns an attempt, and marks the task. */
    no = submit_with(&w, (SubmitSpec){.max_attempts = 2});
    core_release(w.core, no, lease(&w, no), FAIL_MODEL_CRASHED, true, u, w.now, &w.b);
    commit(&w);
    assert_true(core_task(w.core, no)->solo);
    pass(&w, 10 * SECOND);
    core_release(w.core, no, lease(&w, no), FAIL_MODEL_CRASHED, true, u, w.now, &w.b);
    commit(&w);
    assert_int_equal(state_of(&w, no), TASK_FAILED);
    world_done(&w);
}

/* However many attempts: the wait grows to its maximum, and only the first and the latest events
 * are kept. */
static void many_attempts(void **state)
{
    (void)state;
    World w = small_world();
    lead(&w);
    uint64_t no = submit(&w);
    for (int i = 0; i < TASK_EVENTS_MAX; i++) {
        core_release(w.core, no, lease(&w, no), FAIL_NONE, false, (Usage){0}, w.now, &w.b);
        commit(&w);
    }
    const TaskRun *r = core_task(w.core, no)->run;
    assert_int_equal(r->events_len, TASK_EVENTS_MAX);
    for (int i = 1; i < TASK_EVENTS_MAX; i++) assert_true(r->events[i].seq > r->events[i - 1].seq);
    assert_int_equal(r->events[0].kind, EVENT_LEASED);
    assert_int_equal(r->events[TASK_EVENTS_MAX - 1].seq, r->last_seq);
    no = submit_with(&w, (SubmitSpec){.max_attempts = TASK_ATTEMPTS_MAX});
    for (int i = 1; i < TASK_ATTEMPTS_MAX; i++) {
        core_fail(w.core, no, lease(&w, no), FAIL_MODEL_ERROR, true, STR(""), (Usage){0}, w.now,
                  &w.b);
        commit(&w);
        assert_true(core_task(w.core, no)->not_before_ns <= w.now + 3 * SECOND);
        assert_false(core_task(w.core, no)->ready);
        assert_true(core_delayed(w.core) == 1);
        pass(&w, 3 * SECOND);
    }
    world_done(&w);
}

/* ---- files ---- */

static uint64_t file_gone_no;

static void file_gone(void *ctx, const File *f)
{
    (void)ctx;
    file_gone_no = f->no;
}

static void lead_and_watch_files(World *w)
{
    commit(w);
    CoreObserver o = {w,        on_changed, on_ready,   on_unready,
                      on_freed, on_void,    on_leaving, file_gone};
    core_observe(w->core, &o, w->now);
    file_gone_no = 0;
}

static uint64_t put_file(World *w, Str id, uint64_t owner)
{
    Sha256 digest = {{1}};
    assert_int_equal(
        core_put_file(w->core, id, STR("a"), 5, &digest, STR("n"), STR(""), owner, w->now, &w->b)
            .code,
        CODE_OK);
    commit(w);
    const File *f = core_file_find(w->core, id, STR(""));
    assert_non_null(f);
    return f->no;
}

static void a_clients_file_lives_while_it_is_referred_to(void **state)
{
    (void)state;
    World w = small_world();
    lead_and_watch_files(&w);
    uint64_t no = put_file(&w, STR("file_1"), 0);
    assert_null(core_file_find(w.core, STR("file_1"), STR("b")));
    assert_null(core_file_find(w.core, STR("file_2"), STR("")));
    SubmitSpec s = plain();
    s.files = &no;
    s.files_len = 1;
    uint64_t one = ask(&w, &s).task_no, two = ask(&w, &s).task_no;
    assert_int_equal(core_file(w.core, no)->refs, 2);
    assert_int_equal(core_delete_file(w.core, no, &w.b).code, CODE_CONFLICT);
    assert_int_equal(w.b.records, 0);
    pass(&w, 8 * 24 * HOUR); /* over its time, but two tasks wait with it */
    assert_non_null(core_file(w.core, no));
    /* A checkpoint names a file, too. */
    uint64_t token = lease(&w, one);
    assert_int_equal(core_checkpoint(w.core, one, token, 3, no, &w.b).code, CODE_OK);
    commit(&w);
    assert_int_equal(core_task(w.core, one)->extra->checkpoint_unit, 3);
    core_cancel(w.core, two, w.now, &w.b);
    commit(&w);
    core_forget(w.core, two, &w.b);
    commit(&w);
    assert_int_equal(core_file(w.core, no)->refs, 1);
    assert_true(core_next_due_ns(w.core) < INT64_MAX);
    core_succeed(w.core, one, token, STR("1"), NULL, 0, (Usage){0}, &w.b);
    commit(&w);
    pass(&w, 2000 * SECOND); /* the task's retention; then the file's time, long over, counts */
    assert_null(core_task(w.core, one));
    assert_null(core_file(w.core, no));
    assert_int_equal(file_gone_no, no);
    assert_int_equal(core_next_due_ns(w.core), INT64_MAX);
    world_done(&w);
}

static void an_output_file_lives_and_dies_with_its_tasks(void **state)
{
    (void)state;
    World w = small_world();
    lead_and_watch_files(&w);
    uint64_t no = submit(&w), token = lease(&w, no), out = put_file(&w, STR("file_1"), no);
    uint64_t orphan = put_file(&w, STR("file_2"), no), files[] = {out, 99}; /* 99: gone already */
    core_succeed(w.core, no, token, STR("1"), files, 2, (Usage){0}, &w.b);
    commit(&w);
    SubmitSpec s = plain(); /* another task takes it as its input */
    s.files = &out;
    s.files_len = 1;
    uint64_t reader = ask(&w, &s).task_no;
    assert_int_equal(core_file(w.core, out)->refs, 2);
    core_forget(w.core, no, &w.b);
    commit(&w);
    assert_non_null(core_file(w.core, out));
    core_cancel(w.core, reader, w.now, &w.b);
    commit(&w);
    core_forget(w.core, reader, &w.b);
    commit(&w);
    assert_null(core_file(w.core, out)); /* nobody is left */
    assert_int_equal(file_gone_no, out);
    assert_non_null(core_file(w.core, orphan));
    pass(&w, 25 * HOUR);
    assert_null(core_file(w.core, orphan));
    /* By hand. */
    uint64_t mine = put_file(&w, STR("file_3"), 0);
    assert_int_equal(core_delete_file(w.core, mine, &w.b).code, CODE_OK);
    commit(&w);
    assert_int_equal(file_gone_no, mine);
    world_done(&w);
}

/* With a history view the tasks wait for it, however many; their own files stay behind for it. */
static void the_history_takes_tasks_over(void **state)
{
    (void)state;
    World w = small_world();
    w.limits.history = true;
    w.limits.finished_max = 1;
    core_free(w.core);
    frame_reset(&w.b);
    w.core = core_new(&w.limits, 7);
    core_claim(w.core, 1, 99, STR("test"), (const uint8_t *)"0123456789abcdef", &w.b);
    lead_and_watch_files(&w);
    uint64_t no[3], last_seq = 0, out = 0;
    for (int i = 0; i < 3; i++) {
        no[i] = submit(&w);
        uint64_t token = lease(&w, no[i]);
        if (i == 0) out = put_file(&w, STR("file_1"), no[i]);
        core_succeed(w.core, no[i], token, STR("1"), &out, i == 0, (Usage){0}, &w.b);
        commit(&w);
        if (i == 1) last_seq = core_task(w.core, no[i])->run->settled_seq;
    }
    pass(&w, 1);
    assert_int_equal(core_count(w.core, TASK_SUCCEEDED), 3);
    Task *t = core_settled(w.core, NULL);
    for (int i = 0; i < 3; i++, t = core_settled(w.core, t)) assert_int_equal(t->no, no[i]);
    assert_null(t);
    core_history(w.core, last_seq, &w.b);
    commit(&w);
    assert_int_equal(core_history_seq(w.core), last_seq);
    assert_null(core_task(w.core, no[1]));
    assert_non_null(core_task(w.core, no[2]));
    assert_null(core_file(w.core, out));
    assert_int_equal(file_gone_no, 0); /* its bytes are the view's from now on */
    core_history(w.core, 1, &w.b);     /* an old word changes nothing */
    commit(&w);
    assert_int_equal(core_history_seq(w.core), last_seq);
    world_done(&w);
}

/* ---- models, flags, names ---- */

static void models_and_flags(void **state)
{
    (void)state;
    World w = small_world();
    lead(&w);
    Sha256 digest = {{1}}, other = {{2}};
    Str m = STR("m"), kind = STR("model_paused");
    static const struct {
        const char *version;
    } versions[] = {{"2"}, {"10"}, {"x"}, {"9"}};
    for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
        core_put_model(w.core, m, str_from(versions[i].version), &digest, STR("{}"), &w.b);
        commit(&w);
    }
    /* The same again is no record; another digest or description is. */
    core_put_model(w.core, m, STR("10"), &digest, STR("{}"), &w.b);
    assert_int_equal(w.b.records, 0);
    core_put_model(w.core, m, STR("10"), &other, STR("{}"), &w.b);
    assert_int_equal(w.b.records, 1);
    frame_reset(&w.b);
    core_put_model(w.core, m, STR("10"), &digest, STR("{\"a\":1}"), &w.b);
    commit(&w);
    assert_string_equal(core_model(w.core, m, STR("10"))->info, "{\"a\":1}");
    const ModelEntry *latest = core_model_latest(w.core, m);
    assert_memory_equal(core_sym(w.core, latest->version).p, "10", 2); /* by number, not by text */
    assert_null(core_model_latest(w.core, STR("none")));
    assert_null(core_model(w.core, m, STR("77")));
    core_put_model(w.core, STR("k"), STR("77"), &digest, STR("{}"), &w.b);
    commit(&w);
    assert_null(core_model(w.core, m, STR("77"))); /* another model's version */

    core_set_flag(w.core, kind, m, false, &w.b);
    assert_int_equal(w.b.records, 0); /* it is off */
    core_set_flag(w.core, STR("worker_cordoned"), m, true, &w.b);
    core_set_flag(w.core, kind, STR("k"), true, &w.b);
    core_set_flag(w.core, kind, m, true, &w.b);
    core_set_flag(w.core, kind, m, true, &w.b); /* twice in a frame: once */
    commit(&w);
    assert_true(core_flag(w.core, kind, m) && core_model(w.core, m, STR("2"))->paused);
    core_set_flag(w.core, kind, m, false, &w.b);
    commit(&w);
    assert_false(core_flag(w.core, kind, m) || core_model(w.core, m, STR("2"))->paused);
    assert_true(core_flag(w.core, kind, STR("k")));
    assert_true(core_flag(w.core, STR("worker_cordoned"), m));
    world_done(&w);
}

static void ids_that_are_none(void **state)
{
    (void)state;
    World w = small_world();
    lead(&w);
    uint64_t no = submit(&w);
    TaskIdText id;
    Task *t;
    core_task_id(w.core, core_task(w.core, no), &id);
    assert_int_equal(core_id_no(str_from(id.z)), no);
    static const char *const bad[] = {"",
                                      "task_",
                                      "task",
                                      "file_01ARZ3NDEKTSV4RRFFQ69G5FAV",
                                      "task_01ARZ3NDEKTSV4RRFFQ69G5FA",
                                      "task_!!!!!!!!!!!!!!!!!!!!!!!!!!"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(core_find(w.core, str_from(bad[i]), STR(""), &t), CODE_NOT_FOUND);
        assert_int_equal(core_id_no(str_from(bad[i])), 0);
    }
    /* Another shard's; of number 0; of one that was never given out; of another moment. */
    uint8_t raw[16], odd[16];
    assert_int_equal(base32_get((Str){id.z + 5, 26}, raw), 0);
    static const struct {
        int at;
        uint8_t to;
    } changes[] = {{7, 9}, {12, 0}, {12, 200}, {5, 1}};
    for (size_t i = 0; i < ARRAY_LEN(changes); i++) {
        memcpy(odd, raw, sizeof raw);
        odd[changes[i].at] = changes[i].to;
        base32_put(id.z + 5, odd);
        assert_int_equal(core_find(w.core, str_from(id.z), STR(""), &t), CODE_NOT_FOUND);
    }
    for (int f = FAIL_MODEL_ERROR; f < FAILS; f++) {
        FailCode code;
        assert_int_equal(fail_from(str_from(fail_name((FailCode)f)), &code), 0);
        assert_int_equal(code, f);
    }
    FailCode none;
    assert_int_equal(fail_from(STR("bored"), &none), ERR_NOT_FOUND);
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queues_have_limits),
        cmocka_unit_test(keys_have_a_limit),
        cmocka_unit_test(submits_have_limits),
        cmocka_unit_test(results_have_limits),
        cmocka_unit_test(what_is_not_there),
        cmocka_unit_test(lost_workers_are_counted_apart),
        cmocka_unit_test(many_attempts),
        cmocka_unit_test(a_clients_file_lives_while_it_is_referred_to),
        cmocka_unit_test(an_output_file_lives_and_dies_with_its_tasks),
        cmocka_unit_test(the_history_takes_tasks_over),
        cmocka_unit_test(models_and_flags),
        cmocka_unit_test(ids_that_are_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
