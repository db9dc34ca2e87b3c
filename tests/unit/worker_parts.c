/* worker_parts.c: the pure parts of the worker: messages, the outbox, lines, the knee. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

#include "worker/knee.h"
#include "worker/message.h"
#include "worker/outbox.h"

static void assert_str(Str got, const char *want)
{
    if (!str_eqz(got, want)) fail_msg("got '%.*s', want '%s'", STR_ARG(got), want);
}

/* ---- messages ---- */

static int parse(const char *line, Message *m)
{
    Buf why = {0};
    int err = message_parse(str_from(line), 1000, m, &why);
    assert_true(err == 0 || why.len > 0); /* every refusal says why */
    buf_done(&why);
    return err;
}

static void test_lease(void **state)
{
    (void)state;
    Message m;
    assert_int_equal(
        parse("{\"t\": \"lease\", \"device\": 3, \"model\": \"sdxl\", \"version\": \"3\","
              " \"batch\": 77, \"tasks\": ["
              "{\"id\": \"task_A\", \"token\": 9223372036854775807, \"attempt\": 2, \"input\": "
              "{\"x\": 0.10000000000000000001, \"big\": 123456789012345678901234567890,"
              " \"e\": -1E+2, \"s\": \"\\u00e9\\n\"},"
              "\"deadline_in_ms\": 28000, \"resume\": {\"unit\": 12, \"file\": \"file_R\"},"
              " \"traceparent\": \"00-ab\"},"
              "{\"id\": \"task_B\", \"token\": 5, \"input\": 17}]}",
              &m),
        0);
    assert_int_equal(m.kind, MESSAGE_LEASE);
    assert_int_equal(m.lease->device, 3);
    assert_int_equal(m.lease->len, 2);
    assert_str(m.lease->model, "sdxl");
    assert_str(m.lease->version, "3");
    const Held *h = &m.lease->tasks[0];
    assert_str(h->id, "task_A");
    assert_true(h->token == 9223372036854775807U);
    assert_int_equal(h->attempt, 2);
    assert_str(h->task.input,
               "{\"x\":0.10000000000000000001,\"big\":123456789012345678901234567890,"
               "\"e\":-1E+2,\"s\":\"\u00e9\\n\"}");
    assert_true(h->deadline_ns == 1000 + 28 * NS_PER_S);
    assert_int_equal(h->resume_unit, 12);
    assert_str(h->resume_file, "file_R");
    assert_str(h->traceparent, "00-ab");
    h = &m.lease->tasks[1];
    assert_str(h->task.input, "17");
    assert_str(h->task.id, "task_B");
    assert_int_equal(h->attempt, 1);
    assert_true(h->deadline_ns == 0 && h->resume_file.n == 0);
    message_done(&m);
}

static void test_other_messages(void **state)
{
    (void)state;
    Message m;
    assert_int_equal(
        parse("{\"t\":\"cancel\",\"id\":\"task_A\",\"token\":12,\"why\":\"expired\"}", &m), 0);
    assert_true(m.kind == MESSAGE_CANCEL && m.token == 12 && strcmp(m.why, "expired") == 0);
    assert_int_equal(parse("{\"t\":\"load\",\"device\":1,\"model\":\"m\",\"version\":\"2\"}", &m),
                     0);
    assert_true(m.kind == MESSAGE_LOAD && m.device == 1 && strcmp(m.model, "m") == 0);
    assert_int_equal(parse("{\"t\":\"unload\",\"device\":0,\"model\":\"m\",\"version\":\"2\"}", &m),
                     0);
    assert_true(m.kind == MESSAGE_UNLOAD && strcmp(m.version, "2") == 0);
    assert_int_equal(parse("{\"t\":\"drain\",\"exit\":true}", &m), 0);
    assert_true(m.kind == MESSAGE_DRAIN && m.exit);
    assert_int_equal(parse("{\"t\":\"drain\"}", &m), 0);
    assert_true(m.kind == MESSAGE_DRAIN && !m.exit);
    assert_int_equal(parse("{\"t\":\"ping\",\"n\":7}", &m), 0);
    assert_true(m.kind == MESSAGE_PING && m.ping == 7);
    assert_int_equal(parse("{\"t\":\"sing\",\"n\":7}", &m), 0);
    assert_true(m.kind == MESSAGE_UNKNOWN);
}

static void test_bad_messages(void **state)
{
    (void)state;
#define HEAD "{\"t\":\"lease\",\"device\":0,\"model\":\"m\",\"version\":\"1\",\"tasks\":"
    static const char *const bad[] = {
        "",
        "x",
        "[]",
        "{}",
        "{\"t\":1}",
        "{\"t\":\"lease\"}",
        HEAD "[]}",
        "{\"t\":\"lease\",\"model\":\"m\",\"version\":\"1\",\"tasks\":[{}]}",
        "{\"t\":\"lease\",\"device\":0,\"version\":\"1\",\"tasks\":[{}]}",
        HEAD "[{\"token\":1,\"input\":1}]}",
        HEAD "[{\"id\":\"a\",\"input\":1}]}",
        HEAD "[{\"id\":\"a\",\"token\":0,\"input\":1}]}",
        HEAD "[{\"id\":\"a\",\"token\":-1,\"input\":1}]}",
        HEAD "[{\"id\":\"a\",\"token\":1.5,\"input\":1}]}",
        HEAD "[{\"id\":\"a\",\"token\":1}]}",
        HEAD "[7]}",
        HEAD "[{\"id\":\"a\",\"token\":1,\"input\":1,\"resume\":{}}]}",
        "{\"t\":\"cancel\"}",
        "{\"t\":\"load\"}",
        "{\"t\":\"ping\"}",
        "{\"t\":\"ping\",\"n\":\"7\"}",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        Message m;
        if (parse(bad[i], &m) != ERR_INVALID) fail_msg("taken: %s", bad[i]);
    }
}

static void test_welcome(void **state)
{
    (void)state;
    Welcome w;
    Buf why = {0};
    assert_int_equal(
        welcome_parse(STR("{\"worker\":\"worker_1\",\"protocol\":1,\"lease_s\":30,\"ping_s\":5,"
                          "\"refused\":[{\"name\":\"sdxl\",\"version\":\"3\",\"why\":\"digest\"}],"
                          "\"stale\":[123,124]}"),
                      &w, &why),
        0);
    assert_string_equal(w.worker, "worker_1");
    assert_true(w.lease_s == 30 && w.ping_s == 5 && w.stale_len == 2 && w.stale[1] == 124);
    assert_str(buf_str(&w.refused), "sdxl:3: digest\n");
    welcome_done(&w);
    assert_int_equal(welcome_parse(STR("{}"), &w, &why), ERR_INVALID);
    assert_int_equal(welcome_parse(STR("<html>"), &w, &why), ERR_INVALID);
    buf_done(&why);
}

static void test_answers(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        int err;
        Answer answer;
    } cases[] = {
        {"{\"status\":\"accepted\"}", 0, ANSWER_ACCEPTED},
        {"{\"status\": \"accepted\"}", 0, ANSWER_ACCEPTED},
        {"{ \"status\" : \"accepted\", \"more\": 1 }", 0, ANSWER_ACCEPTED},
        {"{\"status\":\"duplicate\"}", 0, ANSWER_DUPLICATE},
        {"{\"status\":\"fenced\"}", 0, ANSWER_FENCED},
        {"{\"status\":\"invalid\",\"detail\":\"no\"}", 0, ANSWER_INVALID},
        {"{\"status\":\"maybe\"}", ERR_INVALID, 0},
        {"", ERR_INVALID, 0},
        {"[]", ERR_INVALID, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        Answer a = 0;
        Buf detail = {0};
        assert_int_equal(answer_parse(str_from(cases[i].line), &a, &detail), cases[i].err);
        assert_int_equal(a, cases[i].answer);
        if (a == ANSWER_INVALID) assert_str(buf_str(&detail), "no");
        buf_done(&detail);
    }
}

static void test_input_is_file(void **state)
{
    (void)state;
    Buf id = {0};
    assert_true(input_is_file(STR("{\"$file\":\"file_1\"}"), &id));
    assert_str(buf_str(&id), "file_1");
    buf_clear(&id);
    assert_false(input_is_file(STR("{\"$file\":\"file_1\",\"x\":1}"), &id));
    assert_false(input_is_file(STR("{\"image\":{\"$file\":\"file_1\"}}"), &id));
    assert_false(input_is_file(STR("[\"$file\"]"), &id));
    assert_false(input_is_file(STR("{\"$file\":12}     "), &id));
    assert_false(input_is_file(STR("\"a text with \\\"$file\\\" in it\""), &id));
    assert_int_equal(id.len, 0);
    buf_done(&id);
}

/* ---- lines ---- */

static void test_lines(void **state)
{
    (void)state;
    Buf b = {0};
    line_result(&b, STR("task_A"), 12, STR("{\"a\":\n [1,\n2]}"), 5, -3);
    assert_str(buf_str(&b),
               "{\"t\":\"result\",\"id\":\"task_A\",\"token\":12,\"output\":{\"a\":  [1, 2]},"
               "\"device_ns\":5,\"run_ns\":0}\n");
    buf_clear(&b);
    line_error(&b, STR("task_A"), 18446744073709551615U, "bad_input",
               STR("a \"b\"\\\n\t\xff\xc3\xa9"), false, 0, 10);
    assert_str(
        buf_str(&b),
        "{\"t\":\"error\",\"id\":\"task_A\",\"token\":18446744073709551615,\"code\":\"bad_input\","
        "\"message\":\"a \\\"b\\\"\\\\\\n\\t\xef\xbf\xbd\xc3\xa9\",\"retryable\":false,"
        "\"device_ns\":0,\"run_ns\":10}\n");
    buf_clear(&b);
    line_pong(&b, 3);
    line_pong_end(&b);
    line_pong(&b, 4);
    line_pong_held(&b, 1);
    line_pong_held(&b, 22);
    line_pong_end(&b);
    line_progress(&b, STR("t"), 1, 2, 30);
    line_checkpoint(&b, STR("t"), 1, 2, STR("file_1"));
    line_started(&b, STR("t"), 1);
    line_released(&b, STR("t"), 1, 2, 3);
    line_log(&b, STR("t"), 1, STR("hello\n"));
    assert_str(buf_str(&b),
               "{\"t\":\"pong\",\"n\":3,\"held\":[]}\n{\"t\":\"pong\",\"n\":4,\"held\":[1,22]}\n"
               "{\"t\":\"progress\",\"id\":\"t\",\"token\":1,\"step\":2,\"steps\":30}\n"
               "{\"t\":\"checkpoint\",\"id\":\"t\",\"token\":1,\"unit\":2,\"file\":\"file_1\"}\n"
               "{\"t\":\"started\",\"id\":\"t\",\"token\":1}\n"
               "{\"t\":\"released\",\"id\":\"t\",\"token\":1,\"device_ns\":2,\"run_ns\":3}\n"
               "{\"t\":\"log\",\"id\":\"t\",\"token\":1,\"text\":\"hello\\n\"}\n");
    buf_done(&b);
}

/* ---- the outbox ---- */

static Report *report_of(const char *text)
{
    Buf b = {0};
    buf_puts(&b, text);
    return report_new(REPORT_TELEMETRY, 0, &b);
}

static void test_outbox_keeps_and_resends(void **state)
{
    (void)state;
    Outbox o;
    outbox_init(&o);
    assert_true(outbox_empty(&o));
    static const char *const lines[] = {"a\n", "b\n", "c\n", "d\n"};
    Report *r[4];
    for (size_t i = 0; i < 4; i++) outbox_put(&o, r[i] = report_of(lines[i]));

    Buf body = {0};
    assert_int_equal(outbox_begin(&o, &body, 3), 3);
    assert_str(buf_str(&body), "a\nb\nc\n");
    Report *late = report_of("e\n"); /* put while they are under way */
    outbox_put(&o, late);
    assert_ptr_equal(outbox_answered(&o), r[0]);
    outbox_end(
        &o); /* the rest was not answered: the same order again, and before what came later */

    buf_clear(&body);
    assert_int_equal(outbox_begin(&o, &body, 100), 4);
    assert_str(buf_str(&body), "b\nc\nd\ne\n");
    outbox_end(&o);
    outbox_drop(&o, r[2]);
    buf_clear(&body);
    assert_int_equal(outbox_begin(&o, &body, 100), 3);
    assert_str(buf_str(&body), "b\nd\ne\n");
    assert_ptr_equal(outbox_answered(&o), r[1]);
    assert_ptr_equal(outbox_answered(&o), r[3]);
    assert_ptr_equal(outbox_answered(&o), late);
    assert_null(outbox_answered(&o));
    outbox_end(&o);
    assert_true(outbox_empty(&o));
    for (size_t i = 0; i < 4; i++) report_free(r[i]);
    report_free(late);
    buf_done(&body);
}

static void test_outbox_limits(void **state)
{
    (void)state;
    Outbox o;
    outbox_init(&o);
    enum { N = 40 };
    for (int i = 0; i < N; i++) { /* 40 × 300 KiB: more than one POST may hold */
        Buf b = {0};
        memset(buf_extend(&b, 300 * KIB), 'x', 300 * KIB);
        outbox_put(&o, report_new(REPORT_TELEMETRY, 0, &b));
    }
    size_t seen = 0;
    while (!outbox_empty(&o)) {
        Buf body = {0};
        size_t n = outbox_begin(&o, &body, POST_LINES_MAX);
        assert_true(n > 0 && body.len <= POST_BYTES_MAX);
        for (size_t i = 0; i < n; i++) report_free(outbox_answered(&o));
        outbox_end(&o);
        seen += n;
        buf_done(&body);
    }
    assert_int_equal(seen, N);
    Buf big = {
        0}; /* one that is over the limit alone still goes out: the server says what is wrong */
    memset(buf_extend(&big, POST_BYTES_MAX + 1), 'x', POST_BYTES_MAX + 1);
    outbox_put(&o, report_new(REPORT_TELEMETRY, 0, &big));
    Buf body = {0};
    assert_int_equal(outbox_begin(&o, &body, POST_LINES_MAX), 1);
    report_free(outbox_answered(&o));
    buf_done(&body);
}

/* ---- the knee ---- */

static void test_knee_choose(void **state)
{
    (void)state;
    static const struct {
        int64_t unit_ns[KNEE_SIZES];
        uint32_t want;
    } cases[] = {
        {{0, 0, 0, 0, 0}, 1},
        {{100, 0, 0, 0, 0}, 1},
        {{100, 100, 100, 100, 100}, 16}, /* free batching */
        {{100, 200, 400, 800, 1600}, 1}, /* none */
        {{100, 150, 240, 440, 860}, 8},  /* 8 has 98 % of 16's rate, 4 has 90 % of neither */
        {{100, 120, 190, 378, 756}, 4},
        {{100, 260, 600, 1300, 3000}, 1}, /* batching hurts */
        {{100, 105, 110, 0, 0}, 4},       /* the rest did not fit */
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(knee_choose(cases[i].unit_ns), cases[i].want);
    }
}

typedef struct {
    int64_t base_ns, each_ns;
    uint32_t fail_from; /* batches of so many and more do not fit; 0: all do */
    uint32_t largest, calls;
} FakeModel;

static int fake_measure(void *ctx, uint32_t batch, int64_t *ret_ns)
{
    FakeModel *m = ctx;
    m->calls++;
    m->largest = MAX(m->largest, batch);
    if (m->fail_from > 0 && batch >= m->fail_from) return ERR_NOMEM;
    *ret_ns = m->base_ns + m->each_ns * batch;
    return 0;
}

static void test_knee_measure(void **state)
{
    (void)state;
    FakeModel gemm = {.base_ns = 1000000, .each_ns = 10000};
    Knee k = knee_measure(fake_measure, &gemm, NS_PER_S);
    assert_int_equal(k.max_batch, 16);
    assert_int_equal(k.unit_ns[0], 1010000);

    FakeModel small = gemm; /* memory ends it */
    small.fail_from = 8;
    k = knee_measure(fake_measure, &small, NS_PER_S);
    assert_int_equal(k.max_batch, 4);
    assert_int_equal(k.unit_ns[3], 0);

    FakeModel slow = {.base_ns = 0, .each_ns = 3 * NS_PER_S}; /* the budget ends it */
    k = knee_measure(fake_measure, &slow, 8 * NS_PER_S);
    assert_int_equal(k.max_batch, 1);
    assert_true(slow.calls <= 2);

    FakeModel none = {.fail_from = 1}; /* nothing to measure: exec, echo */
    k = knee_measure(fake_measure, &none, NS_PER_S);
    assert_int_equal(k.max_batch, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lease),         cmocka_unit_test(test_other_messages),
        cmocka_unit_test(test_bad_messages),  cmocka_unit_test(test_welcome),
        cmocka_unit_test(test_answers),       cmocka_unit_test(test_input_is_file),
        cmocka_unit_test(test_lines),         cmocka_unit_test(test_outbox_keeps_and_resends),
        cmocka_unit_test(test_outbox_limits), cmocka_unit_test(test_knee_choose),
        cmocka_unit_test(test_knee_measure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
