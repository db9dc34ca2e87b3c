/* Every invariant that the model of the log holds, broken on purpose: a judge that cannot fail is
 * worth nothing. Records are written by hand here, without a core. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "sim/model.h"
#include "task/record.h"

#define SECOND NS_PER_S
#define START  (INT64_C(1795000000) * SECOND)

typedef struct {
    Model *m;
    FrameBuilder b;
    LogPoint at;
    Buf log, why;
    int64_t now;
    int broken;
} Log;

static int seal(Log *l)
{
    size_t begin = l->log.len;
    frame_seal(&l->b, l->now, &l->at, &l->log);
    frame_reset(&l->b);
    buf_clear(&l->why);
    l->broken = model_frame(l->m, (Str){(char *)l->log.data + begin, l->log.len - begin}, &l->why);
    model_durable(l->m, l->at.next_seq - 1);
    return l->broken;
}

static int put(Log *l, RecordType type, RecordData d)
{
    record_put(&l->b, type, &d);
    return seal(l);
}

static int claim(Log *l, uint64_t epoch)
{
    RecordData d = {.claim = {.epoch = epoch, .holder = epoch * 7, .address = STR("x")}};
    if (l->at.next_seq == 1) d.claim.id_key = (Str){"0123456789abcdef", 16};
    l->at.epoch = epoch;
    l->at.holder = epoch * 7;
    return put(l, REC_CLAIM, d);
}

static CoreLimits limits(void)
{
    CoreLimits c;
    core_limits_default(&c);
    c.finished_max = 2;
    c.queued_max = 5;
    c.idem_ttl_ns = 100 * SECOND;
    c.platform_losses_max = 3;
    return c;
}

static int setup(void **ctx)
{
    Log *l = mem_new(sizeof *l);
    CoreLimits c = limits();
    *l = (Log){.m = model_new(&c), .now = START, .at = {.next_seq = 1}};
    model_judge_lease_ends(l->m, true);
    *ctx = l;
    return claim(l, 1);
}

static int teardown(void **ctx)
{
    Log *l = *ctx;
    model_free(l->m);
    frame_done(&l->b);
    buf_done(&l->log);
    buf_done(&l->why);
    mem_free(l);
    return 0;
}

static RecSubmit a_submit(uint64_t no)
{
    return (RecSubmit){.no = no,
                       .tenant = STR("t"),
                       .model = STR("m"),
                       .version = STR("1"),
                       .max_attempts = 2,
                       .retention_s = 50,
                       .input = {.bytes = STR("{}"), .len = 2}};
}

/* The number that is told, and nothing is where 0 is. */
#define IS(number, what)                                                                           \
    do {                                                                                           \
        int is_ = (what);                                                                          \
        if (is_ != (number))                                                                       \
            fail_msg("%d instead of %d: %s", is_, (number), buf_z(&((Log *)*ctx)->why));           \
    } while (0)

static int submit(Log *l)
{
    return put(l, REC_SUBMIT, (RecordData){.submit = a_submit(model_tasks(l->m) + 1)});
}

static int lease(Log *l, uint64_t no)
{
    return put(l, REC_LEASE, (RecordData){.lease = {no, 1, STR("w"), 0, 1}});
}

static int finish(Log *l, uint64_t no, uint64_t token)
{
    return put(l, REC_FINISH,
               (RecordData){.finish = {.no = no,
                                       .token = token,
                                       .ok = 1,
                                       .device_ns = 5,
                                       .output = {.bytes = STR("42"), .len = 2}}});
}

static int requeue(Log *l, uint64_t no, RecRequeue r)
{
    r.no = no;
    if (!r.token) r.token = model_token(l->m, no);
    return put(l, REC_REQUEUE, (RecordData){.requeue = r});
}

static int about(Log *l, RecordType type, uint64_t no)
{
    return put(l, type, (RecordData){.task = {no}});
}

/* A task that runs; its token. */
static uint64_t running(Log *l)
{
    assert_int_equal(submit(l), 0);
    assert_int_equal(lease(l, model_tasks(l->m)), 0);
    return model_token(l->m, model_tasks(l->m));
}

static void what_is_right_passes(void **ctx)
{
    Log *l = *ctx;
    uint64_t token = running(l);
    l->now += SECOND;
    IS(0,
       requeue(l, 1,
               (RecRequeue){
                   .fail = FAIL_MODEL_ERROR, .burn = 1, .not_before_ns = l->now + SECOND * 3 / 4}));
    l->now += SECOND;
    IS(0, lease(l, 1));
    assert_true(model_token(l->m, 1) > token);
    IS(0, model_lease_left(l->m, 1, model_token(l->m, 1), &l->why));
    IS(0, about(l, REC_CANCEL, 1));
    IS(0, put(l, REC_SLOT_FREE, (RecordData){.slot_free = {1, model_token(l->m, 1), 3, 3}}));
    IS(0, finish(l, 2, (running(l), model_token(l->m, 2))));
    l->now += 50 * SECOND;
    IS(0, about(l, REC_EVICT, 1));
    IS(0, about(l, REC_FORGET, 2));
    IS(0, claim(l, 2));
    IS(0, model_drained(l->m, &l->why));
    assert_int_equal(model_device_ns(l->m, STR("t")), 8);
}

static void i1_what_was_durable_is_there(void **ctx)
{
    Log *l = *ctx;
    LogPoint before = l->at;
    IS(0, submit(l));
    IS(1, model_restart(l->m, &before, &l->why));
}

static void i1_nothing_is_left(void **ctx)
{
    Log *l = *ctx;
    IS(0, submit(l));
    IS(1, model_drained(l->m, &l->why));
}

static void i1_a_task_leaves_too_early(void **ctx)
{
    Log *l = *ctx;
    IS(0, submit(l));
    IS(0, about(l, REC_CANCEL, 1));
    l->now += 49 * SECOND;
    IS(1, about(l, REC_EVICT, 1));
}

static void i1_a_live_task_leaves(void **ctx)
{
    Log *l = *ctx;
    IS(0, submit(l));
    l->now += 100 * SECOND;
    IS(1, about(l, REC_EVICT, 1));
}

static void i2_nobody_submitted_it(void **ctx)
{
    Log *l = *ctx;
    IS(2, lease(l, 1));
    IS(2, put(l, REC_SUBMIT, (RecordData){.submit = a_submit(2)}));
}

static void i2_it_had_left(void **ctx)
{
    Log *l = *ctx;
    IS(0, submit(l));
    IS(0, about(l, REC_CANCEL, 1));
    l->now += 50 * SECOND;
    IS(0, about(l, REC_EVICT, 1));
    IS(2, lease(l, 1));
}

static void i3_two_ends(void **ctx)
{
    Log *l = *ctx;
    uint64_t token = running(l);
    IS(0, finish(l, 1, token));
    IS(3, finish(l, 1, token));
    IS(3, about(l, REC_CANCEL, 1));
    IS(3, lease(l, 1));
}

static void i3_a_cancel_is_an_end(void **ctx)
{
    Log *l = *ctx;
    uint64_t token = running(l);
    IS(0, about(l, REC_CANCEL, 1));
    IS(3, finish(l, 1, token));
}

static void i4_a_lease_that_is_not_on_record(void **ctx)
{
    Log *l = *ctx;
    IS(0, submit(l));
    IS(4, model_lease_left(l->m, 1, 2, &l->why));
}

static void i5_two_leases(void **ctx)
{
    Log *l = *ctx;
    (void)running(l);
    IS(5, lease(l, 1));
}

static void i6_a_stale_token(void **ctx)
{
    Log *l = *ctx;
    (void)running(l);
    l->now += 40 * SECOND;
    IS(0, requeue(l, 1, (RecRequeue){.fail = FAIL_WORKER_LOST, .loss = 1}));
    IS(0, lease(l, 1));
    IS(6, finish(l, 1, 1));
}

static void i7_two_tasks_under_a_key(void **ctx)
{
    Log *l = *ctx;
    RecSubmit s = a_submit(1);
    s.has_key = 1;
    s.key.lo = 17;
    IS(0, put(l, REC_SUBMIT, (RecordData){.submit = s}));
    s.no = 2;
    l->now += 200 * SECOND;
    IS(7, put(l, REC_SUBMIT, (RecordData){.submit = s}));
}

static void i7_keys_leave_too_early(void **ctx)
{
    Log *l = *ctx;
    l->now += 200 * SECOND;
    IS(0, put(l, REC_IDEM_EXPIRE, (RecordData){.idem_expire = {START + 100 * SECOND}}));
    IS(7, put(l, REC_IDEM_EXPIRE, (RecordData){.idem_expire = {START + 100 * SECOND + 1}}));
}

static void i7_a_key_leaves_in_time(void **ctx)
{
    Log *l = *ctx;
    RecSubmit s = a_submit(1);
    s.has_key = 1;
    IS(0, put(l, REC_SUBMIT, (RecordData){.submit = s}));
    l->now += 200 * SECOND;
    RecordData expire = {.idem_expire = {l->now - 100 * SECOND}};
    IS(0, put(l, REC_IDEM_EXPIRE, expire)); /* not yet: its task lives */
    s.no = 2;
    IS(7, put(l, REC_SUBMIT, (RecordData){.submit = s}));
}

static void i8_attempts_left(void **ctx)
{
    Log *l = *ctx;
    uint64_t token = running(l);
    IS(8,
       put(l, REC_FINISH,
           (RecordData){
               .finish = {
                   .no = 1, .token = token, .fail = FAIL_MODEL_ERROR, .retryable = 1, .burn = 1}}));
}

static void i8_no_attempts_left(void **ctx)
{
    Log *l = *ctx;
    (void)running(l);
    IS(0, requeue(
              l, 1,
              (RecRequeue){.fail = FAIL_MODEL_ERROR, .burn = 1, .not_before_ns = l->now + SECOND}));
    l->now += SECOND;
    IS(0, lease(l, 1));
    IS(8, requeue(
              l, 1,
              (RecRequeue){.fail = FAIL_MODEL_ERROR, .burn = 1, .not_before_ns = l->now + SECOND}));
}

static void i8_an_error_that_burns_nothing(void **ctx)
{
    Log *l = *ctx;
    (void)running(l);
    IS(8, requeue(l, 1, (RecRequeue){.fail = FAIL_MODEL_ERROR}));
}

static void i8_a_loss_that_burns(void **ctx)
{
    Log *l = *ctx;
    (void)running(l);
    l->now += 40 * SECOND;
    IS(8, requeue(l, 1, (RecRequeue){.fail = FAIL_WORKER_LOST, .burn = 1, .loss = 1}));
}

static void i8_lost_too_often(void **ctx)
{
    Log *l = *ctx;
    (void)running(l);
    for (int i = 0; i < 3; i++) {
        l->now += 40 * SECOND;
        IS(i < 2 ? 0 : 8, requeue(l, 1, (RecRequeue){.fail = FAIL_WORKER_LOST, .loss = 1}));
        if (i < 2) IS(0, lease(l, 1));
    }
}

static void i9_a_lease_too_early(void **ctx)
{
    Log *l = *ctx;
    RecSubmit s = a_submit(1);
    s.not_before_ns = l->now + SECOND;
    IS(0, put(l, REC_SUBMIT, (RecordData){.submit = s}));
    IS(9, lease(l, 1));
}

static void i9_a_lease_after_a_cancel(void **ctx)
{
    Log *l = *ctx;
    IS(0, submit(l));
    IS(0, about(l, REC_CANCEL, 1));
    IS(9, lease(l, 1));
}

static void i9_a_lease_after_the_deadline(void **ctx)
{
    Log *l = *ctx;
    RecSubmit s = a_submit(1);
    s.deadline_ns = l->now + SECOND;
    IS(0, put(l, REC_SUBMIT, (RecordData){.submit = s}));
    l->now += 2 * SECOND;
    IS(9, lease(l, 1));
    IS(0, about(l, REC_EXPIRE, 1));
}

static void i9_an_end_after_the_deadline(void **ctx)
{
    Log *l = *ctx;
    RecSubmit s = a_submit(1);
    s.deadline_ns = l->now + SECOND;
    IS(0, put(l, REC_SUBMIT, (RecordData){.submit = s}));
    IS(0, lease(l, 1));
    l->now += 2 * SECOND;
    IS(9, finish(l, 1, model_token(l->m, 1)));
}

static void i9_expired_too_early(void **ctx)
{
    Log *l = *ctx;
    RecSubmit s = a_submit(1);
    s.deadline_ns = l->now + SECOND;
    IS(0, put(l, REC_SUBMIT, (RecordData){.submit = s}));
    IS(9, about(l, REC_EXPIRE, 1));
}

static void i9_a_lease_while_paused(void **ctx)
{
    Log *l = *ctx;
    IS(0, submit(l));
    IS(0, put(l, REC_FLAG, (RecordData){.flag = {STR("model_paused"), STR("m"), 1}}));
    IS(9, lease(l, 1));
}

static void i10_an_old_claim(void **ctx)
{
    Log *l = *ctx;
    IS(0, claim(l, 2));
    IS(10, claim(l, 2));
}

static void i10_another_history(void **ctx)
{
    Log *l = *ctx;
    IS(0, submit(l));
    LogPoint at = l->at;
    at.chain++;
    IS(10, model_restart(l->m, &at, &l->why));
}

static void i10_a_lease_that_is_not_durable(void **ctx)
{
    Log *l = *ctx;
    IS(0, submit(l));
    RecordData d = {.lease = {1, 1, STR("w"), 0, 1}};
    record_put(&l->b, REC_LEASE, &d);
    size_t begin = l->log.len;
    uint64_t token = l->at.next_seq;
    frame_seal(&l->b, l->now, &l->at, &l->log);
    IS(0, model_frame(l->m, (Str){(char *)l->log.data + begin, l->log.len - begin}, &l->why));
    IS(10, model_lease_left(l->m, 1, token, &l->why));
    model_durable(l->m, token);
    IS(0, model_lease_left(l->m, 1, token, &l->why));
}

static void i11_i13_i18_the_core_differs(void **ctx)
{
    Log *l = *ctx;
    CoreLimits c = limits();
    uint64_t token = running(l);
    size_t all = l->log.len;
    IS(0, finish(l, 1, token));
    Core *core = core_new(&c, 1);
    for (size_t at = 0, len; at < l->log.len; at += len) {
        Frame f;
        assert_int_equal(frame_read((Str){(char *)l->log.data + at, l->log.len - at}, &f, &len), 0);
        if (at == all) IS(3, model_compare(l->m, core, &l->why));
        assert_int_equal(core_apply(core, &f), 0);
    }
    IS(0, model_compare(l->m, core, &l->why));
    Task *k = core_task(core, 1);
#define BREAK(number, field, by)                                                                   \
    do {                                                                                           \
        (field) += by;                                                                             \
        IS(number, model_compare(l->m, core, &l->why));                                            \
        (field) -= by;                                                                             \
    } while (0)
    BREAK(18, k->run->device_ns, 5);
    BREAK(8, k->run->burned, 1);
    BREAK(5, k->run->token, 1);
    BREAK(5, k->run->ended_token, 1);
    BREAK(9, k->not_before_ns, 1);
    BREAK(9, k->deadline_ns, 1);
    BREAK(3, k->run->finished_ns, 1);
    BREAK(11, k->retention_s, 1);
    BREAK(15, k->input.bytes[0], 1);
    BREAK(15, k->run->output.len, 1);
    BREAK(14, k->run->last_seq, 1);
    const Tenant *tenants;
    (void)core_tenants(core, &tenants);
    BREAK(13, ((Tenant *)(uintptr_t)tenants)->tasks[TASK_QUEUED], 1);
    BREAK(7, ((Tenant *)(uintptr_t)tenants)->idem_keys, 1);
    BREAK(18, ((Tenant *)(uintptr_t)tenants)->device_ns_total, 1);
    core_free(core);
}

static void i12_a_file_from_under_a_task(void **ctx)
{
    Log *l = *ctx;
    IS(0, put(l, REC_FILE_PUT,
              (RecordData){.file_put = {.no = 1,
                                        .id = STR("file_1"),
                                        .tenant = STR("t"),
                                        .sha256 = {"01234567890123456789012345678901", 32},
                                        .expires_ns = l->now + SECOND}}));
    uint64_t file = 1;
    RecSubmit s = a_submit(1);
    s.files = (NumberList){.at = &file, .len = 1};
    IS(0, put(l, REC_SUBMIT, (RecordData){.submit = s}));
    IS(12, put(l, REC_FILE_DELETE, (RecordData){.file_delete = {1}}));
    IS(0, about(l, REC_CANCEL, 1));
    IS(0, put(l, REC_FILE_DELETE, (RecordData){.file_delete = {1}}));
    s.no = 2;
    IS(15, put(l, REC_SUBMIT, (RecordData){.submit = s}));
}

static void what_is_only_in_the_history_may_be_forgotten(void **ctx)
{
    for (int history = 0; history < 2; history++) {
        CoreLimits c = limits();
        c.history = history;
        Log *l = *ctx;
        model_free(l->m);
        buf_clear(&l->log);
        *l = (Log){.m = model_new(&c), .now = START, .at = {.next_seq = 1}, .log = l->log};
        IS(0, claim(l, 1));
        IS(0, submit(l));
        IS(0, about(l, REC_CANCEL, 1));
        l->now += 3600 * 24 * 100 * SECOND;
        IS(0, about(l, REC_EVICT, 1));
        IS(history ? 0 : 2, about(l, REC_FORGET, 1));
        if (history) IS(2, about(l, REC_FORGET, 2)); /* which nobody submitted */
    }
}

static void i15_input_of_a_live_task_is_deleted(void **ctx)
{
    Log *l = *ctx;
    IS(0, submit(l));
    IS(15, about(l, REC_FORGET, 1));
}

static void i15_i19_a_changed_byte(void **ctx)
{
    Log *l = *ctx;
    IS(0, submit(l));
    size_t begin = l->log.len;
    record_put(&l->b, REC_SUBMIT, &(RecordData){.submit = a_submit(2)});
    frame_seal(&l->b, l->now, &l->at, &l->log);
    l->log.data[l->log.len - 1] ^= 1; /* its payload */
    IS(15, model_frame(l->m, (Str){(char *)l->log.data + begin, l->log.len - begin}, &l->why));
    l->log.data[begin] ^= 1; /* its head */
    IS(19, model_frame(l->m, (Str){(char *)l->log.data + begin, l->log.len - begin}, &l->why));
}

static void i17_a_deposed_leader(void **ctx)
{
    Log *l = *ctx;
    LogPoint old = l->at;
    IS(0, claim(l, 2));
    l->at.epoch = old.epoch;
    l->at.holder = old.holder;
    IS(17, submit(l));
}

static void i18_charged_twice(void **ctx)
{
    Log *l = *ctx;
    uint64_t token = running(l);
    IS(0, about(l, REC_CANCEL, 1));
    RecordData d = {.slot_free = {1, token, 5, 5}};
    IS(0, put(l, REC_SLOT_FREE, d));
    IS(18, put(l, REC_SLOT_FREE, d));
}

static void i18_a_negative_charge(void **ctx)
{
    Log *l = *ctx;
    uint64_t token = running(l);
    IS(18, put(l, REC_FINISH,
               (RecordData){.finish = {.no = 1, .token = token, .ok = 1, .device_ns = -1}}));
}

static void i21_a_deadline_is_forgotten(void **ctx)
{
    Log *l = *ctx;
    RecSubmit s = a_submit(1);
    s.deadline_ns = l->now + SECOND;
    IS(0, put(l, REC_SUBMIT, (RecordData){.submit = s}));
    IS(0, model_late(l->m, l->now + 3 * SECOND, 2 * SECOND, &l->why));
    IS(21, model_late(l->m, l->now + 4 * SECOND, 2 * SECOND, &l->why));
}

static void i22_a_lease_ends_early_or_never(void **ctx)
{
    Log *l = *ctx;
    uint64_t token = running(l);
    l->now += 20 * SECOND;
    model_renewed(l->m, token, l->now);
    l->now += 20 * SECOND;
    IS(0, model_late(l->m, l->now + 12 * SECOND, 5 * SECOND, &l->why));
    IS(22, model_late(l->m, l->now + 16 * SECOND, 5 * SECOND, &l->why));
    IS(22, requeue(l, 1, (RecRequeue){.fail = FAIL_WORKER_LOST, .loss = 1}));
}

static void i22_a_dead_worker_holds_nothing(void **ctx)
{
    Log *l = *ctx;
    (void)running(l);
    model_holder_gone(l->m, STR("w"));
    IS(0, requeue(l, 1, (RecRequeue){.fail = FAIL_WORKER_LOST, .loss = 1}));
}

static void i22_backoff(void **ctx)
{
    Log *l = *ctx;
    (void)running(l);
    IS(22, requeue(l, 1,
                   (RecRequeue){
                       .fail = FAIL_MODEL_ERROR, .burn = 1, .not_before_ns = l->now + 2 * SECOND}));
}

static void i25_bounds(void **ctx)
{
    Log *l = *ctx;
    for (int i = 0; i < 5; i++) IS(0, submit(l));
    IS(25, submit(l));
}

static void i25_what_stays_too_long(void **ctx)
{
    Log *l = *ctx;
    IS(0, submit(l));
    IS(0, about(l, REC_CANCEL, 1));
    IS(0, model_late(l->m, l->now + 50 * SECOND, SECOND, &l->why));
    IS(25, model_late(l->m, l->now + 52 * SECOND, SECOND, &l->why));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_right_passes),
        TEST(i1_what_was_durable_is_there),
        TEST(i1_nothing_is_left),
        TEST(i1_a_task_leaves_too_early),
        TEST(i1_a_live_task_leaves),
        TEST(i2_nobody_submitted_it),
        TEST(i2_it_had_left),
        TEST(i3_two_ends),
        TEST(i3_a_cancel_is_an_end),
        TEST(i4_a_lease_that_is_not_on_record),
        TEST(i5_two_leases),
        TEST(i6_a_stale_token),
        TEST(i7_two_tasks_under_a_key),
        TEST(i7_keys_leave_too_early),
        TEST(i7_a_key_leaves_in_time),
        TEST(i8_attempts_left),
        TEST(i8_no_attempts_left),
        TEST(i8_an_error_that_burns_nothing),
        TEST(i8_a_loss_that_burns),
        TEST(i8_lost_too_often),
        TEST(i9_a_lease_too_early),
        TEST(i9_a_lease_after_a_cancel),
        TEST(i9_a_lease_after_the_deadline),
        TEST(i9_an_end_after_the_deadline),
        TEST(i9_expired_too_early),
        TEST(i9_a_lease_while_paused),
        TEST(i10_an_old_claim),
        TEST(i10_another_history),
        TEST(i10_a_lease_that_is_not_durable),
        TEST(i11_i13_i18_the_core_differs),
        TEST(i12_a_file_from_under_a_task),
        TEST(what_is_only_in_the_history_may_be_forgotten),
        TEST(i15_input_of_a_live_task_is_deleted),
        TEST(i15_i19_a_changed_byte),
        TEST(i17_a_deposed_leader),
        TEST(i18_charged_twice),
        TEST(i18_a_negative_charge),
        TEST(i21_a_deadline_is_forgotten),
        TEST(i22_a_lease_ends_early_or_never),
        TEST(i22_a_dead_worker_holds_nothing),
        TEST(i22_backoff),
        TEST(i25_bounds),
        TEST(i25_what_stays_too_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
