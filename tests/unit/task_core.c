/* The task machine: one transition each, then chance: a long random run whose log, replayed, and
 * whose snapshot plus tail give the same state (invariants 3, 5, 6, 7, 8, 9, 11, 13, 18 of the
 * design's list). */
#include "task/directory.h"

#include "unit/task_rig.h"

/* ---- one at a time ---- */

static void a_task_succeeds_once(void **ctx)
{
    (void)ctx;
    World w;
    world_init(&w);
    lead(&w);
    uint64_t no = submit(&w), token = lease(&w, no);
    Usage u = {5, 6};
    assert_int_equal(core_succeed(w.core, no, token, STR("42"), NULL, 0, u, &w.b).code, CODE_OK);
    commit(&w);
    assert_int_equal(state_of(&w, no), TASK_SUCCEEDED);
    Decision again = core_succeed(w.core, no, token, STR("43"), NULL, 0, u, &w.b);
    assert_true(again.code == CODE_OK && again.duplicate && w.b.records == 0);
    assert_int_equal(core_succeed(w.core, no, token + 1, STR("43"), NULL, 0, u, &w.b).code,
                     CODE_CONFLICT);
    assert_int_equal(w.b.records, 0);
    assert_memory_equal(core_task(w.core, no)->run->output.bytes, "42", 2);
    assert_int_equal(w.charged, 5);
    assert_int_equal(core_cancel(w.core, no, w.now, &w.b).code, CODE_ALREADY_TERMINAL);
    world_done(&w);
}

static void cancel_while_running_holds_the_slot(void **ctx)
{
    (void)ctx;
    World w;
    world_init(&w);
    lead(&w);
    uint64_t no = submit(&w), token = lease(&w, no);
    assert_int_equal(core_cancel(w.core, no, w.now, &w.b).code, CODE_OK);
    commit(&w);
    assert_int_equal(state_of(&w, no), TASK_CANCELED);
    assert_int_equal(w.voided, 1);
    assert_int_equal(w.freed, 0);
    /* The late result changes nothing, but frees and charges the slot, once. */
    assert_int_equal(core_succeed(w.core, no, token, STR("1"), NULL, 0, (Usage){9, 9}, &w.b).code,
                     CODE_CONFLICT);
    commit(&w);
    assert_int_equal(state_of(&w, no), TASK_CANCELED);
    assert_int_equal(w.charged, 9);
    Decision d = core_release(w.core, no, token, FAIL_NONE, false, (Usage){9, 9}, w.now, &w.b);
    assert_true(d.duplicate && w.b.records == 0);
    world_done(&w);
}

static void failures_burn_attempts_with_backoff(void **ctx)
{
    (void)ctx;
    World w;
    world_init(&w);
    lead(&w);
    uint64_t no = submit(&w);
    for (int i = 1; i <= 3; i++) {
        uint64_t token = lease(&w, no);
        assert_int_equal(core_task(w.core, no)->run->attempt, i);
        core_fail(w.core, no, token, FAIL_MODEL_ERROR, true, STR("no"), (Usage){0}, w.now, &w.b);
        commit(&w);
        if (i == 3) break;
        assert_int_equal(state_of(&w, no), TASK_QUEUED);
        assert_int_equal(w.ready, 0);
        pass(&w, SECOND / 4);
        assert_int_equal(w.ready, 0); /* at least half the backoff */
        pass(&w, 4 * SECOND);
        assert_int_equal(w.ready, 1);
    }
    assert_int_equal(state_of(&w, no), TASK_FAILED);
    /* A release without cause burns nothing; a final error ends it at once. */
    no = submit(&w);
    core_release(w.core, no, lease(&w, no), FAIL_NONE, false, (Usage){0}, w.now, &w.b);
    commit(&w);
    assert_int_equal(w.ready, 1);
    uint64_t token = lease(&w, no);
    assert_int_equal(core_task(w.core, no)->run->attempt, 1);
    core_fail(w.core, no, token, FAIL_BAD_INPUT, false, STR("bad"), (Usage){0}, w.now, &w.b);
    commit(&w);
    assert_int_equal(state_of(&w, no), TASK_FAILED);
    world_done(&w);
}

static void leases_end_by_time_and_renew(void **ctx)
{
    (void)ctx;
    World w;
    world_init(&w);
    lead(&w);
    uint64_t no = submit(&w), token = lease(&w, no);
    pass(&w, 20 * SECOND);
    assert_true(core_renew(w.core, no, token, w.now));
    pass(&w, 20 * SECOND);
    assert_int_equal(state_of(&w, no), TASK_RUNNING);
    pass(&w, 11 * SECOND);
    assert_int_equal(state_of(&w, no), TASK_QUEUED);
    assert_int_equal(core_task(w.core, no)->run->platform_losses, 1);
    assert_int_equal(core_task(w.core, no)->run->burned, 0);
    assert_false(core_renew(w.core, no, token, w.now));
    world_done(&w);
}

static void delays_and_deadlines(void **ctx)
{
    (void)ctx;
    World w;
    world_init(&w);
    lead(&w);
    uint64_t delayed = submit_with(&w, (SubmitSpec){.delay_ns = 5 * SECOND});
    LeaseSpec l = {.no = delayed, .worker = STR("w")};
    assert_int_equal(core_lease(w.core, &l, w.now, &w.b).code, CODE_CONFLICT);
    uint64_t late = submit_with(&w, (SubmitSpec){.deadline_ns = 3 * SECOND});
    uint64_t running = submit_with(&w, (SubmitSpec){.deadline_ns = 3 * SECOND});
    lease(&w, running);
    pass(&w, 4 * SECOND);
    assert_int_equal(state_of(&w, late), TASK_EXPIRED);
    assert_int_equal(state_of(&w, running), TASK_EXPIRED);
    assert_int_equal(state_of(&w, delayed), TASK_QUEUED);
    pass(&w, 2 * SECOND);
    assert_true(lease(&w, delayed));
    world_done(&w);
}

static void idempotency_keys(void **ctx)
{
    (void)ctx;
    World w;
    world_init(&w);
    lead(&w);
    SubmitSpec s = {.tenant = STR("a"),
                    .model = STR("echo"),
                    .version = STR("1"),
                    .input = STR("1"),
                    .idempotency_key = STR("k"),
                    .body = {1, 2},
                    .max_attempts = 1,
                    .retention_s = 1000};
    uint64_t no = submit_with(&w, s);
    Decision d = core_submit(w.core, &s, w.now, &w.b);
    assert_true(d.code == CODE_OK && d.duplicate && d.task_no == no && w.b.records == 0);
    s.body.lo = 9;
    assert_int_equal(core_submit(w.core, &s, w.now, &w.b).code, CODE_IDEMPOTENCY_MISMATCH);
    s.body.lo = 1;
    s.tenant = STR("b"); /* another tenant's key is another key */
    assert_int_not_equal(submit_with(&w, s), no);
    s.tenant = STR("a");
    pass(&w, 500 * SECOND); /* over its time, but the task is not terminal */
    assert_true(core_submit(w.core, &s, w.now, &w.b).duplicate);
    core_cancel(w.core, no, w.now, &w.b);
    commit(&w);
    pass(&w, 200 * SECOND);
    assert_false(core_submit(w.core, &s, w.now, &w.b).duplicate);
    frame_reset(&w.b);
    world_done(&w);
}

/* A file's time runs only while no task refers to it: neither a client's nor a worker's goes from
 * under a task that has it. */
static void files_stay_with_their_tasks(void **ctx)
{
    (void)ctx;
    World w;
    world_init(&w);
    w.limits.file_ttl_s = 100;
    core_free(w.core);
    w.core = core_new(&w.limits, 7);
    lead(&w);
    const Sha256 sha = {{1}};
    core_put_file(w.core, STR("file_a"), STR("default"), 5, &sha, STR(""), STR(""), 0, w.now, &w.b);
    commit(&w);
    uint64_t input = core_file_find(w.core, STR("file_a"), STR(""))->no;
    uint64_t no = submit_with(
        &w, (SubmitSpec){.files = &input, .files_len = 1, .delay_ns = 300 * SECOND});
    pass(&w, 200 * SECOND);
    assert_non_null(core_file(w.core, input));
    pass(&w, 100 * SECOND);
    uint64_t token = lease(&w, no);
    core_put_file(w.core, STR("file_b"), STR("default"), 5, &sha, STR(""), STR(""), no, w.now,
                  &w.b);
    commit(&w);
    uint64_t output = core_file_find(w.core, STR("file_b"), STR(""))->no;
    core_succeed(w.core, no, token, STR("1"), &output, 1, (Usage){0}, &w.b);
    commit(&w);
    pass(&w, 999 * SECOND); /* of its retention's 1000 */
    assert_non_null(core_file(w.core, input));
    assert_non_null(core_file(w.core, output));
    pass(&w, 2 * SECOND);
    assert_null(core_file(w.core, input));
    assert_null(core_file(w.core, output));
    world_done(&w);
}

static void a_pause_is_of_every_version(void **ctx)
{
    (void)ctx;
    World w;
    world_init(&w);
    lead(&w);
    core_put_model(w.core, STR("m"), STR("1"), &(Sha256){{1}}, STR("{}"), &w.b);
    core_set_flag(w.core, STR("model_paused"), STR("m"), true, &w.b);
    core_put_model(w.core, STR("m"), STR("2"), &(Sha256){{2}}, STR("{}"), &w.b);
    commit(&w);
    assert_true(core_model(w.core, STR("m"), STR("1"))->paused);
    assert_true(core_model(w.core, STR("m"), STR("2"))->paused); /* it came later */
    core_set_flag(w.core, STR("model_paused"), STR("m"), false, &w.b);
    commit(&w);
    assert_false(core_model(w.core, STR("m"), STR("2"))->paused);
    world_done(&w);
}

static void ids_know_their_task(void **ctx)
{
    (void)ctx;
    World w;
    world_init(&w);
    lead(&w);
    w.limits.finished_max = 40;
    uint64_t no = submit_with(&w, (SubmitSpec){.tenant = STR("a")});
    TaskIdText id;
    Task *t = NULL;
    core_task_id(w.core, core_task(w.core, no), &id);
    assert_int_equal(core_find(w.core, str_from(id.z), STR("a"), &t), CODE_OK);
    assert_int_equal(t->no, no);
    assert_int_equal(core_find(w.core, str_from(id.z), STR("b"), &t), CODE_NOT_FOUND);
    TaskIdText forged = id;
    forged.z[30] = forged.z[30] == 'A' ? 'B' : 'A';
    assert_int_equal(core_find(w.core, str_from(forged.z), STR(""), &t), CODE_NOT_FOUND);
    core_cancel(w.core, no, w.now, &w.b);
    commit(&w);
    pass(&w, 2000 * SECOND); /* retention */
    assert_null(core_task(w.core, no));
    assert_int_equal(core_find(w.core, str_from(id.z), STR("a"), &t), CODE_GONE);
    assert_int_equal(core_find(w.core, str_from(id.z), STR(""), &t), CODE_GONE);
    assert_int_equal(core_find(w.core, str_from(id.z), STR("b"), &t), CODE_NOT_FOUND);
    assert_int_equal(core_find(w.core, str_from(forged.z), STR("a"), &t), CODE_NOT_FOUND);
    world_done(&w);
}

static void the_oldest_finished_leave_first(void **ctx)
{
    (void)ctx;
    World w;
    world_init(&w);
    lead(&w);
    for (int i = 0; i < 100; i++) {
        uint64_t no = submit(&w);
        core_cancel(w.core, no, w.now, &w.b);
        commit(&w);
    }
    pass(&w, 1);
    assert_null(core_task(w.core, 60));
    assert_non_null(core_task(w.core, 61));
    assert_int_equal(core_count(w.core, TASK_CANCELED), 40);
    Task *t = core_older(w.core, UINT64_MAX);
    assert_int_equal(t->no, 100);
    for (int i = 0; i < 39; i++) t = core_older(w.core, t->no);
    assert_int_equal(t->no, 61);
    assert_null(core_older(w.core, t->no));
    world_done(&w);
}

static void what_has_left_memory_can_be_forgotten(void **ctx)
{
    (void)ctx;
    for (int history = 0; history < 2; history++) {
        World w;
        world_with(&w, history);
        lead(&w);
        uint64_t no = submit(&w);
        core_cancel(w.core, no, w.now, &w.b);
        commit(&w);
        core_history(w.core, core_task(w.core, no)->run->settled_seq, &w.b);
        commit(&w);
        assert_null(core_task(w.core, no));
        assert_int_equal(core_forget(w.core, no + 1, &w.b).code, CODE_NOT_FOUND);
        assert_int_equal(core_forget(w.core, 0, &w.b).code, CODE_NOT_FOUND);
        assert_int_equal(w.b.records, 0);
        for (int i = 0; i < 2; i++) {
            uint64_t hash = core_hash(w.core);
            assert_int_equal(core_forget(w.core, no, &w.b).code,
                             history ? CODE_OK : CODE_NOT_FOUND);
            assert_int_equal(w.b.records, history);
            commit(&w); /* it fits */
            assert_true(core_hash(w.core) == hash);
        }
        world_done(&w);
    }
}

static void unknown_records_stop_the_reader(void **ctx)
{
    (void)ctx;
    World w;
    world_init(&w);
    commit(&w);
    frame_begin_record(&w.b, 200, 1);
    frame_end_record(&w.b);
    Buf bytes = {0};
    frame_seal(&w.b, w.now, &w.at, &bytes);
    Frame f;
    size_t len;
    assert_int_equal(frame_read(buf_str(&bytes), &f, &len), 0);
    assert_int_equal(core_apply(w.core, &f), ERR_UNSUPPORTED);
    buf_done(&bytes);
    world_done(&w);
}

/* ---- chance ---- */

static Task *some_task(World *w, Random *r, bool leased)
{
    Task *t = core_older(w->core, random_below(r, 400) ? UINT64_MAX : 50);
    for (uint64_t skip = random_below(r, 60); t && skip; skip--) {
        Task *older = core_older(w->core, t->no);
        if (!older) break;
        t = older;
    }
    while (t && leased && !t->run->token) t = core_older(w->core, t->no);
    return t;
}

static void one_step(World *w, Random *r)
{
    Task *t;
    uint64_t stale = random_below(r, 8) == 0 ? 1 + random_below(r, 50) : 0;
    Usage u = {(int64_t)random_below(r, 100), (int64_t)random_below(r, 100)};
    switch (random_below(r, 9)) {
    case 0:
    case 1: {
        static const char *const tenants[] = {"a", "b", "c"};
        char key[8];
        key[0] = (char)('a' + random_below(r, 20));
        SubmitSpec s = {.tenant = str_from(tenants[random_below(r, 3)]),
                        .model = STR("m"),
                        .version = STR("1"),
                        .input = {"[1,2,3,4,5,6,7,8]", 17},
                        .max_attempts = 1 + (uint32_t)random_below(r, 4),
                        .class = (TaskClass)random_below(r, CLASSES),
                        .retention_s = (uint32_t)random_below(r, 100),
                        .delay_ns = random_below(r, 4) ? 0 : (int64_t)random_below(r, 10) * SECOND,
                        .metadata = random_below(r, 3) ? STR("") : STR("{\"k\":\"v\"}")};
        if (random_below(r, 4) == 0)
            s.deadline_ns = s.delay_ns + (1 + (int64_t)random_below(r, 30)) * SECOND;
        if (random_below(r, 3) == 0) s.idempotency_key = (Str){key, 1};
        core_submit(w->core, &s, w->now, &w->b);
        break;
    }
    case 2:
    case 3:
        if ((t = some_task(w, r, false))) {
            LeaseSpec l = {.no = t->no,
                           .worker = STR("w1"),
                           .device = 1,
                           .batch = w->at.next_seq,
                           .batch_size = 1};
            core_lease(w->core, &l, w->now, &w->b);
        }
        break;
    case 4:
    case 5:
        if ((t = some_task(w, r, true)))
            core_succeed(w->core, t->no, stale ? stale : t->run->token, STR("{\"answer\":42}"),
                         NULL, 0, u, &w->b);
        break;
    case 6:
        if ((t = some_task(w, r, true)))
            core_fail(w->core, t->no, stale ? stale : t->run->token, FAIL_MODEL_ERROR,
                      random_below(r, 3), STR("oh"), u, w->now, &w->b);
        break;
    case 7:
        if ((t = some_task(w, r, random_below(r, 2)))) {
            if (random_below(r, 3) == 0)
                core_cancel(w->core, t->no, w->now, &w->b);
            else if (random_below(r, 2))
                core_forget(w->core, t->no, &w->b);
            else
                core_release(w->core, t->no, t->run->token, FAIL_MODEL_CRASHED, random_below(r, 2),
                             u, w->now, &w->b);
        }
        break;
    default:
        commit(w);
        pass(w, (int64_t)random_below(r, 3) * SECOND);
        break;
    }
    commit(w);
}

static void recount(World *w)
{
    uint64_t counts[TASK_STATES] = {0}, ready = 0;
    for (Task *t = core_older(w->core, UINT64_MAX); t; t = core_older(w->core, t->no)) {
        counts[t->state]++;
        ready += t->ready;
        assert_true((t->run->token != 0) == (t->state == TASK_RUNNING) ||
                    task_state_terminal(t->state));
    }
    for (int s = 0; s < TASK_STATES; s++)
        assert_int_equal(core_count(w->core, (TaskState)s), counts[s]);
    assert_int_equal(core_ready(w->core), ready);
    assert_int_equal(w->ready, ready);
}

static void replay_is_exact(void **ctx)
{
    (void)ctx;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        World w;
        Random r;
        random_seed(&r, seed);
        world_init(&w);
        lead(&w);
        Buf snapshot = {0};
        LogPoint covers = {0};
        size_t tail = 0;
        for (int i = 0; i < 3000; i++) {
            one_step(&w, &r);
            if (i == 1500) {
                assert_int_equal(core_snapshot(w.core, to_buf, &snapshot), 0);
                covers = w.at;
                tail = w.log.len;
            }
        }
        recount(&w);
        uint64_t live = core_hash(w.core);
        Core *replayed = replay(&w, NULL, 0);
        assert_int_equal(core_hash(replayed), live);
        assert_int_equal(core_misfits(replayed), 0);
        Core *restored = restore(&w, &snapshot, &covers);
        replay(&w, restored, tail);
        assert_int_equal(core_hash(restored), live);
        core_free(replayed);
        core_free(restored);
        buf_done(&snapshot);
        world_done(&w);
    }
}

/* Tasks that leave as they come leave no memory behind, wherever a chunk of numbers ends. */
static void directory_lets_go(void **state)
{
    (void)state;
    Directory d = {0};
    int thing;
    uint64_t last = 100 * DIRECTORY_CHUNK, kept = DIRECTORY_CHUNK / 2;
    for (uint64_t no = 1; no <= last; no++) {
        directory_set(&d, no, &thing);
        if (no != kept) directory_set(&d, no, NULL);
    }
    size_t chunks = 0;
    for (size_t i = 0; i < d.len; i++) chunks += d.chunks[i] != NULL;
    assert_int_equal(chunks, 2); /* that of the one kept, and the last */
    assert_ptr_equal(directory_get(&d, kept), &thing);
    directory_set(&d, kept, NULL);
    for (uint64_t no = last + 1; no <= last + 10 * DIRECTORY_CHUNK; no++) {
        directory_set(&d, no, &thing);
        assert_ptr_equal(directory_get(&d, no), &thing);
        assert_ptr_equal(directory_older(&d, UINT64_MAX), &thing);
        directory_set(&d, no, NULL);
    }
    assert_true(d.len <= 2);
    assert_int_equal(d.count, 0);
    directory_done(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_task_succeeds_once),
        cmocka_unit_test(cancel_while_running_holds_the_slot),
        cmocka_unit_test(failures_burn_attempts_with_backoff),
        cmocka_unit_test(leases_end_by_time_and_renew),
        cmocka_unit_test(delays_and_deadlines),
        cmocka_unit_test(idempotency_keys),
        cmocka_unit_test(files_stay_with_their_tasks),
        cmocka_unit_test(a_pause_is_of_every_version),
        cmocka_unit_test(ids_know_their_task),
        cmocka_unit_test(the_oldest_finished_leave_first),
        cmocka_unit_test(what_has_left_memory_can_be_forgotten),
        cmocka_unit_test(unknown_records_stop_the_reader),
        cmocka_unit_test(replay_is_exact),
        cmocka_unit_test(directory_lets_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
