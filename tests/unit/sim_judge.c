/* The judge of what clients and workers saw: a history that is right passes, and for each invariant
 * one that is not is caught. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "sim/judge.h"

#define MS     NS_PER_MS
#define SECOND NS_PER_S
#define SHARD  (INT64_C(1795000000) * SECOND) /* shard time of the world's 0 */
#define A      "task_0000000000000000000000000A"
#define B      "task_0000000000000000000000000B"

static Judge *j;

static int setup(void **ctx)
{
    (void)ctx;
    j = judge_new(&(JudgeBounds){.key_ttl_ns = 1000 * SECOND, .end_ns_max = 60 * SECOND});
    return 0;
}

static int teardown(void **ctx)
{
    (void)ctx;
    judge_free(j);
    return 0;
}

static JudgeOp at(int64_t start_s, int64_t end_s)
{
    return (JudgeOp){.start = start_s * SECOND, .end = end_s * SECOND};
}

static JudgeView view(const char *id, TaskState status)
{
    JudgeView v = {.nonce = id[strlen(id) - 1] == 'A' ? 1 : 2,
                   .status = status,
                   .max_attempts = 3,
                   .fixed = 99,
                   .created_ns = SHARD,
                   .epoch = 1};
    v.seq = v.nonce;
    snprintf(v.id, sizeof v.id, "%s", id);
    if (status == TASK_QUEUED) return v;
    if (status != TASK_CANCELED) v.started_ns = SHARD + 2 * SECOND, v.attempt = 1;
    if (status == TASK_SUCCEEDED) v.output = 77, v.device_ms = 5;
    if (status == TASK_FAILED) v.error = 66, v.fail = FAIL_MODEL_ERROR;
    if (task_state_terminal(status)) v.finished_ns = SHARD + 4 * SECOND;
    return v;
}

static JudgeSubmit submit_of(uint64_t nonce)
{
    return (JudgeSubmit){
        .nonce = nonce, .body = 5, .input = 55, .max_attempts = 3, .retention_ns = 100 * SECOND};
}

static void submit(const char *id)
{
    JudgeOp op = at(0, 1);
    JudgeView v = view(id, TASK_QUEUED);
    JudgeSubmit s = submit_of(v.nonce);
    judge_submit(j, &op, &s, &v);
}

static void see(int64_t start_s, const JudgeView *v)
{
    JudgeOp op = at(start_s, start_s + 1);
    judge_read(j, &op, v->id, v);
}

static void read_as(int64_t start_s, const char *id, TaskState status)
{
    JudgeView v = view(id, status);
    see(start_s, &v);
}

static void refused(int64_t start_s, const char *id, Code code)
{
    JudgeOp op = at(start_s, start_s + 1);
    op.out = OUT_REFUSED;
    op.code = code;
    judge_read(j, &op, id, NULL);
}

static void worked(const char *id, uint64_t token, JudgeAnswer answer)
{
    judge_lease_given(j, 2 * SECOND, 1, id, token, 1, 55);
    judge_result_sent(j, 3 * SECOND, 1, id, token, true, 77, 5 * MS);
    judge_result_answered(j, 4 * SECOND, 1, id, token, answer);
}

static void told(int invariant)
{
    if (judge_broken(j) != invariant)
        fail_msg("%d instead of %d: %.*s", judge_broken(j), invariant, STR_ARG(judge_why(j)));
}

static void what_is_right_passes(void **ctx)
{
    (void)ctx;
    judge_claimed(j, 1, 0);
    submit(A);
    submit(B);
    read_as(2, A, TASK_RUNNING);
    worked(A, 7, JUDGE_ACCEPTED);
    judge_event(j, 1, 2 * SECOND, A, 0, 1, TASK_QUEUED, 0);
    judge_event(j, 1, 3 * SECOND, A, 0, 7, TASK_RUNNING, 1);
    judge_event(j, 1, 5 * SECOND, A, 0, 8, TASK_SUCCEEDED, 1);
    judge_event(j, 2, 6 * SECOND, A, 1, 7, TASK_RUNNING, 1);
    judge_event(j, 2, 6 * SECOND, A, 1, 8, TASK_SUCCEEDED, 1);
    read_as(7, A, TASK_SUCCEEDED);
    JudgeOp op = at(7, 8);
    JudgeView v = view(B, TASK_CANCELED);
    judge_cancel(j, &op, B, &v);
    judge_drained(j, 9 * SECOND);
    read_as(10, A, TASK_SUCCEEDED);
    read_as(10, B, TASK_CANCELED);
    JudgeView list[] = {view(B, TASK_CANCELED), view(A, TASK_SUCCEEDED)};
    op = at(11, 12);
    judge_list(j, &op, list, 2, true);
    judge_finish(j);
    told(0);
    assert_string_equal(judge_accepted(j, 1), B);
    assert_null(judge_accepted(j, 2));
    judge_reset(j, &(JudgeBounds){.evicts = true});
    assert_null(judge_accepted(j, 0));
}

static void i1_accepted_and_not_ended(void **ctx)
{
    (void)ctx;
    submit(A);
    judge_drained(j, 5 * SECOND);
    read_as(6, A, TASK_RUNNING);
    told(1);
}

static void i1_accepted_and_never_seen_again(void **ctx)
{
    (void)ctx;
    submit(A);
    judge_drained(j, 5 * SECOND);
    judge_finish(j);
    told(1);
}

static void i1_accepted_and_not_known(void **ctx)
{
    (void)ctx;
    submit(A);
    refused(2, A, CODE_NOT_FOUND);
    told(1);
}

static void i1_gone_before_its_time(void **ctx)
{
    (void)ctx;
    submit(A);
    refused(2, A, CODE_GONE);
    judge_finish(j);
    told(1);
}

static void i1_missing_in_a_list(void **ctx)
{
    (void)ctx;
    submit(A);
    JudgeOp op = at(2, 3);
    judge_list(j, &op, NULL, 0, true);
    told(1);
}

static void i2_nobody_submitted_it(void **ctx)
{
    (void)ctx;
    read_as(2, A, TASK_QUEUED);
    judge_finish(j);
    told(2);
}

static void i2_resurrected(void **ctx)
{
    (void)ctx;
    submit(A);
    refused(200, A, CODE_GONE);
    read_as(202, A, TASK_SUCCEEDED);
    told(2);
}

static void i2_deleted_data_come_back(void **ctx)
{
    (void)ctx;
    submit(A);
    worked(A, 7, JUDGE_ACCEPTED);
    JudgeOp op = at(5, 6);
    judge_delete(j, &op, A);
    read_as(7, A, TASK_SUCCEEDED);
    told(2);
}

static void i3_two_ends(void **ctx)
{
    (void)ctx;
    submit(A);
    read_as(5, A, TASK_SUCCEEDED);
    read_as(5, A, TASK_FAILED);
    told(3);
}

static void i3_two_outputs(void **ctx)
{
    (void)ctx;
    submit(A);
    read_as(5, A, TASK_SUCCEEDED);
    JudgeView v = view(A, TASK_SUCCEEDED);
    v.output = 78;
    see(7, &v);
    told(3);
}

static void i3_two_results_accepted(void **ctx)
{
    (void)ctx;
    submit(A);
    worked(A, 7, JUDGE_ACCEPTED);
    worked(A, 9, JUDGE_ACCEPTED);
    told(3);
}

static void i3_what_never_changes_changed(void **ctx)
{
    (void)ctx;
    submit(A);
    JudgeView v = view(A, TASK_QUEUED);
    v.fixed = 98;
    see(2, &v);
    told(3);
}

static void i3_a_stream_with_two_ends(void **ctx)
{
    (void)ctx;
    submit(A);
    judge_event(j, 1, 2 * SECOND, A, 0, 5, TASK_CANCELED, 1);
    judge_event(j, 1, 2 * SECOND, A, 0, 6, TASK_SUCCEEDED, 1);
    told(3);
}

static void i4_accepted_and_lost(void **ctx)
{
    (void)ctx;
    submit(A);
    worked(A, 7, JUDGE_ACCEPTED);
    read_as(5, A, TASK_FAILED);
    judge_finish(j);
    told(4);
}

static void i4_an_output_that_nobody_sent(void **ctx)
{
    (void)ctx;
    submit(A);
    worked(A, 7, JUDGE_OTHER);
    JudgeView v = view(A, TASK_SUCCEEDED);
    v.output = 78;
    see(7, &v);
    judge_finish(j);
    told(4);
}

static void i5_one_token_twice(void **ctx)
{
    (void)ctx;
    submit(A);
    submit(B);
    judge_lease_given(j, 2, 1, A, 7, 1, 55);
    judge_lease_given(j, 2, 2, B, 7, 1, 55);
    told(5);
}

static void i6_a_fenced_result_is_seen(void **ctx)
{
    (void)ctx;
    submit(A);
    worked(A, 7, JUDGE_FENCED);
    read_as(5, A, TASK_SUCCEEDED);
    judge_finish(j);
    told(6);
}

static void i6_fenced_then_accepted(void **ctx)
{
    (void)ctx;
    submit(A);
    worked(A, 7, JUDGE_FENCED);
    judge_result_answered(j, 5 * SECOND, 1, A, 7, JUDGE_ACCEPTED);
    told(6);
}

static void i7_one_key_two_tasks(void **ctx)
{
    (void)ctx;
    JudgeOp op = at(0, 1);
    JudgeView v = view(A, TASK_QUEUED), w = view(B, TASK_QUEUED);
    JudgeSubmit s = submit_of(1);
    s.key = 4;
    judge_submit(j, &op, &s, &v);
    w.nonce = 1;
    w.created_ns += 900 * SECOND;
    op = at(900, 901);
    judge_submit(j, &op, &s, &w);
    told(7);
}

static void i7_a_key_that_is_over(void **ctx)
{
    (void)ctx;
    JudgeOp op = at(0, 1);
    JudgeView v = view(A, TASK_QUEUED), w = view(B, TASK_QUEUED);
    JudgeSubmit s = submit_of(1);
    s.key = 4;
    judge_submit(j, &op, &s, &v);
    read_as(5, A, TASK_SUCCEEDED);
    w.created_ns += 1001 * SECOND;
    op = at(1001, 1002);
    s = submit_of(2);
    s.key = 4;
    s.body = 6;
    judge_submit(j, &op, &s, &w);
    told(0);
}

static void i7_one_key_two_bodies(void **ctx)
{
    (void)ctx;
    JudgeOp op = at(0, 1);
    JudgeView v = view(A, TASK_QUEUED);
    JudgeSubmit s = submit_of(1);
    s.key = 4;
    judge_submit(j, &op, &s, &v);
    s.body = 6;
    judge_submit(j, &op, &s, &v);
    told(7);
}

static void i7_a_repeat_is_refused(void **ctx)
{
    (void)ctx;
    JudgeOp op = at(0, 1);
    JudgeView v = view(A, TASK_QUEUED);
    JudgeSubmit s = submit_of(1);
    s.key = 4;
    judge_submit(j, &op, &s, &v);
    op.out = OUT_REFUSED;
    op.code = CODE_IDEMPOTENCY_MISMATCH;
    judge_submit(j, &op, &s, NULL);
    told(7);
}

static void i8_attempts_fall(void **ctx)
{
    (void)ctx;
    submit(A);
    JudgeView v = view(A, TASK_RUNNING);
    v.attempt = 2;
    see(2, &v);
    read_as(4, A, TASK_RUNNING);
    told(8);
}

static void i8_a_final_error_is_tried_again(void **ctx)
{
    (void)ctx;
    submit(A);
    judge_lease_given(j, 2, 1, A, 7, 1, 55);
    judge_result_sent(j, 3, 1, A, 7, false, 0, 0);
    judge_error_final(j, A, 7);
    judge_result_answered(j, 4, 1, A, 7, JUDGE_ACCEPTED);
    read_as(5, A, TASK_SUCCEEDED);
    judge_finish(j);
    told(8);
}

static void i9_a_canceled_task_succeeds(void **ctx)
{
    (void)ctx;
    submit(A);
    JudgeOp op = at(2, 3);
    judge_cancel(j, &op, A, NULL);
    read_as(4, A, TASK_SUCCEEDED);
    told(9);
}

static void i9_nobody_canceled_it(void **ctx)
{
    (void)ctx;
    submit(A);
    read_as(4, A, TASK_CANCELED);
    judge_finish(j);
    told(9);
}

static void i9_started_too_early(void **ctx)
{
    (void)ctx;
    JudgeOp op = at(0, 1);
    JudgeView v = view(A, TASK_QUEUED);
    JudgeSubmit s = submit_of(1);
    s.delay_ns = 3 * SECOND;
    judge_submit(j, &op, &s, &v);
    read_as(2, A, TASK_RUNNING);
    read_as(4, A, TASK_SUCCEEDED);
    judge_finish(j);
    told(9);
}

static void i9_started_after_its_deadline(void **ctx)
{
    (void)ctx;
    JudgeView v = view(A, TASK_RUNNING);
    v.deadline_ns = v.created_ns + SECOND;
    see(4, &v);
    told(9);
}

static void i10_one_receipt_two_tasks(void **ctx)
{
    (void)ctx;
    submit(A);
    JudgeView v = view(B, TASK_QUEUED);
    v.seq = 1;
    see(2, &v);
    told(10);
}

static void i13_a_list_with_one_twice(void **ctx)
{
    (void)ctx;
    submit(A);
    JudgeOp op = at(2, 3);
    JudgeView list[] = {view(A, TASK_QUEUED), view(A, TASK_QUEUED)};
    judge_list(j, &op, list, 2, true);
    told(13);
}

static void i13_a_list_in_disorder(void **ctx)
{
    (void)ctx;
    submit(A);
    submit(B);
    JudgeOp op = at(2, 3);
    JudgeView list[] = {view(A, TASK_QUEUED), view(B, TASK_QUEUED)};
    judge_list(j, &op, list, 2, true);
    told(13);
}

static void i14_backwards(void **ctx)
{
    (void)ctx;
    submit(A);
    read_as(2, A, TASK_RUNNING);
    read_as(4, A, TASK_QUEUED);
    told(14);
}

static void i14_side_by_side_is_fine(void **ctx)
{
    (void)ctx;
    submit(A);
    JudgeOp op = at(2, 9);
    JudgeView v = view(A, TASK_SUCCEEDED);
    judge_read(j, &op, A, &v);
    op = at(8, 10);
    v = view(A, TASK_RUNNING);
    judge_read(j, &op, A, &v);
    told(0);
    read_as(10, A, TASK_RUNNING);
    told(14);
}

static void i14_not_known_after_it_was_seen(void **ctx)
{
    (void)ctx;
    read_as(2, A, TASK_QUEUED);
    refused(4, A, CODE_NOT_FOUND);
    told(14);
}

static void i14_events_in_disorder(void **ctx)
{
    (void)ctx;
    submit(A);
    judge_event(j, 1, 2 * SECOND, A, 0, 7, TASK_RUNNING, 1);
    judge_event(j, 1, 2 * SECOND, A, 0, 6, TASK_RUNNING, 1);
    told(14);
}

static void i14_an_event_left_out(void **ctx)
{
    (void)ctx;
    submit(A);
    judge_event(j, 1, 2 * SECOND, A, 0, 7, TASK_RUNNING, 1);
    judge_event(j, 2, 2 * SECOND, A, 0, 8, TASK_QUEUED, 1);
    judge_finish(j);
    told(14);
}

static void i15_anothers_input(void **ctx)
{
    (void)ctx;
    submit(A);
    judge_lease_given(j, 2 * SECOND, 1, A, 7, 1, 56);
    judge_finish(j);
    told(15);
}

static void i15_no_output(void **ctx)
{
    (void)ctx;
    submit(A);
    JudgeView v = view(A, TASK_SUCCEEDED);
    v.output = 0;
    see(5, &v);
    told(15);
}

static void i16_refused_and_there(void **ctx)
{
    (void)ctx;
    JudgeOp op = at(0, 1);
    op.out = OUT_REFUSED;
    op.code = CODE_QUEUE_FULL;
    JudgeSubmit s = submit_of(1);
    judge_submit(j, &op, &s, NULL);
    read_as(4, A, TASK_QUEUED);
    judge_finish(j);
    told(16);
}

static void i16_one_submit_two_tasks(void **ctx)
{
    (void)ctx;
    JudgeOp op = at(0, 1);
    op.out = OUT_UNKNOWN;
    JudgeSubmit s = submit_of(1);
    judge_submit(j, &op, &s, NULL);
    JudgeView v = view(A, TASK_QUEUED), w = view(B, TASK_QUEUED);
    w.nonce = 1;
    see(4, &v);
    see(4, &w);
    judge_finish(j);
    told(16);
}

static void i17_an_answer_of_a_deposed_leader(void **ctx)
{
    (void)ctx;
    judge_claimed(j, 1, 0);
    judge_claimed(j, 2, 5 * SECOND);
    JudgeOp op = at(6, 7);
    JudgeView v = view(A, TASK_QUEUED);
    JudgeSubmit s = submit_of(1);
    judge_submit(j, &op, &s, &v);
    told(17);
}

static void i18_charged_twice(void **ctx)
{
    (void)ctx;
    submit(A);
    worked(A, 7, JUDGE_ACCEPTED);
    JudgeView v = view(A, TASK_SUCCEEDED);
    v.device_ms = 10;
    see(5, &v);
    judge_finish(j);
    told(18);
}

static void i18_a_charge_after_the_end(void **ctx)
{
    (void)ctx;
    submit(A);
    read_as(5, A, TASK_SUCCEEDED);
    JudgeView v = view(A, TASK_SUCCEEDED);
    v.device_ms = 10;
    see(7, &v);
    told(18);
}

static void i18_a_charge_that_got_lost(void **ctx)
{
    (void)ctx;
    submit(A);
    worked(A, 7, JUDGE_ACCEPTED);
    JudgeView v = view(A, TASK_SUCCEEDED);
    v.device_ms = 1;
    see(5, &v);
    judge_finish(j);
    told(18);
}

static void i21_not_as_expected(void **ctx)
{
    (void)ctx;
    JudgeOp op = at(0, 1);
    JudgeView v = view(A, TASK_QUEUED);
    JudgeSubmit s = submit_of(1);
    s.expect = 1U << TASK_SUCCEEDED;
    judge_submit(j, &op, &s, &v);
    read_as(5, A, TASK_FAILED);
    judge_finish(j);
    told(21);
}

static void i21_it_takes_too_long(void **ctx)
{
    (void)ctx;
    submit(A);
    judge_calm(j, 10 * SECOND);
    read_as(69, A, TASK_RUNNING);
    told(0);
    read_as(71, A, TASK_RUNNING);
    told(21);
}

static void views_are_read_from_json(void **ctx)
{
    (void)ctx;
    JudgeView v, w;
    Buf why = {0};
    const char *text =
        "{\"id\":\"" A "\",\"model\":\"m\",\"version\":\"1\",\"priority\":\"batch\","
        "\"tenant\":\"t\",\"status\":\"succeeded\",\"output\":{\"of\": 5},\"error\":null,"
        "\"attempt\":2,\"max_attempts\":3,\"created_at\":\"2026-11-22T19:34:15.146Z\","
        "\"started_at\":\"2026-11-22T19:34:16.000Z\",\"finished_at\":\"2026-11-22T19:34:17Z\","
        "\"deadline_at\":null,\"metrics\":{\"device_ms\":12},\"metadata\":{\"nonce\":\"17\"},"
        "\"receipt\":{\"shard\":0,\"epoch\":4,\"seq\":5}}";
    assert_int_equal(judge_view_read(str_from(text), &v, &why), 0);
    assert_string_equal(v.id, A);
    assert_true(v.nonce == 17 && v.status == TASK_SUCCEEDED && v.attempt == 2 && !v.brief);
    assert_true(v.output == judge_text(STR("{\"of\":5}")) && !v.error && v.device_ms == 12);
    assert_true(v.epoch == 4 && v.seq == 5 && !v.deadline_ns && !v.data_removed);
    assert_true(v.finished_ns - v.started_ns == SECOND);
    assert_int_equal(judge_view_read(STR("{\"id\":\"" A "\",\"status\":\"queued\"}"), &w, &why), 0);
    assert_true(w.brief && w.status == TASK_QUEUED);
    assert_int_equal(judge_view_read(STR("{\"id\":\"x\"}"), &w, &why), ERR_INVALID);
    assert_true(why.len > 0);
    buf_done(&why);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_right_passes),
        TEST(i1_accepted_and_not_ended),
        TEST(i1_accepted_and_never_seen_again),
        TEST(i1_accepted_and_not_known),
        TEST(i1_gone_before_its_time),
        TEST(i1_missing_in_a_list),
        TEST(i2_nobody_submitted_it),
        TEST(i2_resurrected),
        TEST(i2_deleted_data_come_back),
        TEST(i3_two_ends),
        TEST(i3_two_outputs),
        TEST(i3_two_results_accepted),
        TEST(i3_what_never_changes_changed),
        TEST(i3_a_stream_with_two_ends),
        TEST(i4_accepted_and_lost),
        TEST(i4_an_output_that_nobody_sent),
        TEST(i5_one_token_twice),
        TEST(i6_a_fenced_result_is_seen),
        TEST(i6_fenced_then_accepted),
        TEST(i7_one_key_two_tasks),
        TEST(i7_a_key_that_is_over),
        TEST(i7_one_key_two_bodies),
        TEST(i7_a_repeat_is_refused),
        TEST(i8_attempts_fall),
        TEST(i8_a_final_error_is_tried_again),
        TEST(i9_a_canceled_task_succeeds),
        TEST(i9_nobody_canceled_it),
        TEST(i9_started_too_early),
        TEST(i9_started_after_its_deadline),
        TEST(i10_one_receipt_two_tasks),
        TEST(i13_a_list_with_one_twice),
        TEST(i13_a_list_in_disorder),
        TEST(i14_backwards),
        TEST(i14_side_by_side_is_fine),
        TEST(i14_not_known_after_it_was_seen),
        TEST(i14_events_in_disorder),
        TEST(i14_an_event_left_out),
        TEST(i15_anothers_input),
        TEST(i15_no_output),
        TEST(i16_refused_and_there),
        TEST(i16_one_submit_two_tasks),
        TEST(i17_an_answer_of_a_deposed_leader),
        TEST(i18_charged_twice),
        TEST(i18_a_charge_after_the_end),
        TEST(i18_a_charge_that_got_lost),
        TEST(i21_not_as_expected),
        TEST(i21_it_takes_too_long),
        TEST(views_are_read_from_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
