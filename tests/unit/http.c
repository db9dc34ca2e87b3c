/* http.c: the request parser alone: pieces of every size give the same request; the small parts of
 * the grammar. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "wire/http.h"

static const char two_requests[] =
    "POST /a/b?x=1&y=%41+b HTTP/1.1\r\nHost: localhost:80\r\nEmpty:\r\nX-Long:   spaced value "
    "\t\r\nTransfer-Encoding: chunked\r\n\r\n"
    "4;ext=\"a\"\r\nWiki\r\n6\r\npedia \r\n0\r\nTrailer: t\r\n\r\n"
    "PUT /c HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc";

static void any_pieces(void **state)
{
    (void)state;
    for (size_t piece = 1; piece <= sizeof two_requests; piece++) {
        HttpParser p;
        http_init(&p);
        int done = 0;
        for (size_t at = 0; at < sizeof two_requests - 1; at += piece) {
            Str in = {two_requests + at, MIN(piece, sizeof two_requests - 1 - at)};
            HttpStep step;
            while ((step = http_step(&p, &in)) != HTTP_MORE) {
                assert_int_not_equal(step, HTTP_REFUSED);
                if (step == HTTP_HEAD_OK) p.body_max = 10;
                if (step != HTTP_DONE) continue;
                const HttpRequest *r = &p.req;
                if (done++ == 0) {
                    assert_int_equal(r->method, HTTP_M_POST);
                    assert_true(str_eqz(r->path, "/a/b") && str_eqz(r->query, "x=1&y=%41+b"));
                    assert_true(str_eqz(r->host, "localhost:80"));
                    assert_true(str_eqz(http_field(r, "x-lonG"), "spaced value"));
                    assert_true(http_field(r, "empty").p && !http_field(r, "empty").n &&
                                !http_field(r, "none").p);
                    assert_true(str_eqz(r->body, "Wikipedia "));
                    assert_true(r->keep_alive && r->chunked);
                } else {
                    assert_int_equal(r->method, HTTP_M_PUT);
                    assert_true(str_eqz(r->body, "abc"));
                    assert_true(!r->keep_alive && r->has_length && r->length == 3);
                }
            }
        }
        assert_int_equal(done, 2);
        http_done(&p);
    }
}

static void bodies_have_limits(void **state)
{
    (void)state;
    HttpParser p;
    http_init(&p);
    Str in = {two_requests, sizeof two_requests - 1};
    assert_int_equal(http_step(&p, &in), HTTP_HEAD_OK);
    p.body_max = 9;
    assert_int_equal(http_step(&p, &in), HTTP_REFUSED);
    assert_int_equal(p.status, 413);
    assert_int_equal(http_step(&p, &in), HTTP_REFUSED); /* and stays so */
    http_done(&p);
}

static void parts(void **state)
{
    (void)state;
    Buf b = {0};
    Str q = STR("a=1&&b&c=x=y&"), name, value;
    static const char *const want[][2] = {{"a", "1"}, {"b", ""}, {"c", "x=y"}};
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        assert_true(http_next_pair(&q, &name, &value));
        assert_true(str_eqz(name, want[i][0]) && str_eqz(value, want[i][1]));
    }
    assert_false(http_next_pair(&q, &name, &value));
    assert_int_equal(http_decode(STR("a%2Fb+c%C3%A9"), true, &b), 0);
    assert_string_equal(buf_z(&b), "a/b c\xC3\xA9");
    buf_clear(&b);
    assert_int_equal(http_decode(STR("a+b"), false, &b), 0);
    assert_string_equal(buf_z(&b), "a+b");
    static const char *const bad[] = {"%", "%4", "a%4", "%zz", "%00", "%FF"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(http_decode(str_from(bad[i]), true, &b), ERR_INVALID);
    assert_int_equal(b.len, 3);
    assert_true(str_eqz(http_bearer(STR("bearer  abc")), "abc") &&
                !http_bearer(STR("Basic abc")).n && !http_bearer(STR("Bearer")).n);
    assert_true(http_media_is(STR("Application/JSON ; charset=utf-8"), "application/json"));
    assert_false(http_media_is(STR("application/jsonx"), "application/json"));
    buf_clear(&b);
    assert_int_equal(http_quoted(STR("\"a\\\"\\\\b\""), &b), 0);
    assert_string_equal(buf_z(&b), "a\"\\b");
    static const char *const unquoted[] = {
        "",        "\"",      "a",        "\"a",          "\"a\"b\"",
        "\"\\x\"", "\"a\\\"", "\"\x01\"", "\"\xC3\xA9\"", "\"a\";p=1"};
    for (size_t i = 0; i < ARRAY_LEN(unquoted); i++)
        assert_int_equal(http_quoted(str_from(unquoted[i]), &b), ERR_INVALID);
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(any_pieces),
                                       cmocka_unit_test(bodies_have_limits),
                                       cmocka_unit_test(parts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
