/* json.c: limits, field errors, values as they were written, escapes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "wire/json.h"

static const char *const known[] = {"name", "count", "wait", "flag", "any", NULL};

static void members_as_written(void **state)
{
    (void)state;
    Json j = {0};
    JsonFault f = {0};
    Str text = STR(
        " { \"any\" : {\"a\":[1.50, 1e400, \"},:\\\"\"]} ,\"name\":\"x\\u0041\", \"count\":12,"
        "\n\"flag\":true, \"wait\": 0.25 } ");
    assert_true(json_read_object(&j, text, known, &f));
    assert_true(str_eqz(json_member(&j, "any")->text, "{\"a\":[1.50, 1e400, \"},:\\\"\"]}"));
    Str name = {0};
    uint64_t count = 0;
    bool flag = false;
    int64_t ns = 0;
    assert_true(json_str(json_member(&j, "name"), 1, 2, &name, &f) && str_eqz(name, "xA"));
    assert_true(json_uint(json_member(&j, "count"), 12, 12, &count, &f) && count == 12);
    assert_true(json_bool(json_member(&j, "flag"), &flag, &f) && flag);
    assert_true(json_seconds(json_member(&j, "wait"), 0, NS_PER_S, &ns, &f) && ns == NS_PER_S / 4);
    assert_true(json_str(json_member(&j, "none"), 1, 2, &name,
                         &f)); /* what is not there leaves the value alone */
    assert_false(f.bad);
    assert_false(json_uint(json_member(&j, "count"), 13, 20, &count, &f));
    assert_string_equal(f.field, "count");
    assert_non_null(strstr(f.detail, "from 13 to 20; got a number: 12"));
    assert_false(json_str(json_member(&j, "count"), 1, 2, &name, &f));
    assert_false(json_str(json_member(&j, "name"), 3, 9, &name, &f));
    assert_false(json_seconds(json_member(&j, "wait"), NS_PER_S, 2 * NS_PER_S, &ns, &f));
    assert_false(json_bool(json_member(&j, "count"), &flag, &f));
    json_done(&j);
}

static void refusals(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
        bool syntax, unknown;
    } cases[] = {
        {"", "empty", true, false},
        {"{", "line 1", true, false},
        {"{\"name\":\n\n  x}", "line 3, column 3", true, false},
        {"{\"name\":1,}", "not JSON", true, false},
        {"{\"name\":1}{}", "not JSON", true, false},
        {"{\"name\":NaN}", "not JSON", true, false},
        {"{\"name\":01}", "not JSON", true, false},
        {"{\"name\":\"\xC3\"}", "not JSON", true, false},
        {"{'name':1}", "not JSON", true, false},
        {"{\"name\":1 /* c */}", "not JSON", true, false},
        {"7", "a number", false, false},
        {"[]", "a list", false, false},
        {"{\"nmae\":1}", "unknown field", false, true},
        {"{\"counts\":1}", "did you mean \"count\"", false, true},
        {"{\"name\":1,\"n\\u0061me\":2}", "given twice", false, false},
    };
    Json j = {0};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        JsonFault f = {0};
        if (json_read_object(&j, str_from(cases[i].text), known, &f)) fail_msg("%s", cases[i].text);
        if (!strstr(f.detail, cases[i].part) || f.syntax != cases[i].syntax ||
            f.unknown != cases[i].unknown)
            fail_msg("%s: %s", cases[i].text, f.detail);
    }
    json_done(&j);
}

static void depth(void **state)
{
    (void)state;
    Json j = {0};
    for (int deep = 63; deep < 67; deep++) {
        Buf b = {0};
        JsonFault f = {0};
        for (int i = 0; i < deep; i++) buf_putc(&b, '[');
        buf_puts(&b, "\"[[[[[[[[[[[[[[[[[[\"");
        for (int i = 0; i < deep; i++) buf_putc(&b, ']');
        assert_int_equal(json_read(&j, buf_str(&b), &f) != NULL, deep <= JSON_DEPTH_MAX);
        buf_done(&b);
    }
    json_done(&j);
}

static void memory_is_given_back(void **state)
{
    (void)state;
    Json j = {0};
    JsonFault f = {0};
    Buf b = {0};
    buf_putc(&b, '[');
    for (int i = 0; i < 200000; i++) buf_puts(&b, "1,");
    buf_puts(&b, "1]");
    assert_non_null(json_read(&j, buf_str(&b), &f));
    assert_true(j.cap > JSON_KEEP_MAX);
    assert_non_null(json_read(&j, STR("1"), &f));
    assert_true(j.cap <= JSON_KEEP_MAX);
    json_done(&j);
    buf_done(&b);
}

static void writing(void **state)
{
    (void)state;
    Buf b = {0};
    json_put_str(&b, STR("a\"\\\n\t\x01\x7F\xC3\xA9\xFF\xF0\x9F\x98\x80\xED\xA0\x80"));
    assert_string_equal(buf_z(&b),
                        "\"a\\\"\\\\\\n\\t\\u0001\\u007f\xC3\xA9\xEF\xBF\xBD\xF0\x9F\x98\x80"
                        "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"");
    buf_clear(&b);
    json_put_u64(&b, UINT64_MAX);
    buf_putc(&b, ' ');
    json_put_i64(&b, INT64_MIN);
    buf_putc(&b, ' ');
    json_put_u64(&b, 0);
    assert_string_equal(buf_z(&b), "18446744073709551615 -9223372036854775808 0");
    buf_clear(&b);
    json_compact(STR("{ \"a b\" :\n[1 , \"\\\" \" ]\r\n}"), &b);
    assert_string_equal(buf_z(&b), "{\"a b\":[1,\"\\\" \"]}");
    /* Times: the same as base's, over leap years and ages. */
    Random random;
    random_seed(&random, 9);
    for (int i = 0; i < 20000; i++) {
        int64_t ns = (int64_t)random_below(&random, (uint64_t)INT64_MAX - 1) + 1;
        Buf want = {0};
        buf_clear(&b);
        json_put_time(&b, ns);
        buf_putc(&want, '"');
        buf_put_time(&want, ns);
        buf_putc(&want, '"');
        assert_string_equal(buf_z(&b), buf_z(&want));
        buf_done(&want);
    }
    buf_clear(&b);
    json_put_time(&b, 0);
    assert_string_equal(buf_z(&b), "null");
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_as_written),   cmocka_unit_test(refusals), cmocka_unit_test(depth),
        cmocka_unit_test(memory_is_given_back), cmocka_unit_test(writing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
