/* gateway_http.c: connections: order, refusals, limits, time. */
#include "gateway_rig.h"

static int start(void **state, void (*change)(GatewayOptions *o))
{
    Rig *r = mem_new(sizeof *r);
    rig_options(r);
    if (change) change(&r->o);
    rig_open(r);
    *state = r;
    return 0;
}

static int setup(void **state)
{
    return start(state, NULL);
}

static void impatient(GatewayOptions *o)
{
    o->header_timeout_ms = 200;
    o->idle_timeout_ms = 400;
    o->connections_max = 3;
    o->body_max = 2000;
}

static int setup_small(void **state)
{
    return start(state, impatient);
}

static int teardown(void **state)
{
    rig_close(*state);
    mem_free(*state);
    return 0;
}

#define HOST "Host: localhost\r\n"

static void refusals(void **state)
{
    Rig *r = *state;
    static const struct {
        const char *request;
        int status;
    } cases[] = {
        {"GET /livez HTTP/1.1\r\n\r\n", 400},
        {"GET /livez HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400},
        {"GET /livez HTTP/1.1\r\nHost:\r\n\r\n", 400},
        {"GET /livez HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
        {"GET /livez HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
        {"GET /livez HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403},
        {"GET /livez HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n", 403},
        {"GET /livez HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\n\r\n", 403},
        {"GET /livez HTTP/1.0\r\n" HOST "\r\n", 505},
        {"GET /livez HTTP/1.1\n" HOST "\r\n", 400},
        {"GET /livez HTTP/1.1\r\nHost: localhost\n\r\n", 400},
        {"GET /livez HTTP/1.1\r\n" HOST "A: b\r\n c\r\n\r\n", 400},
        {"GET /livez HTTP/1.1\r\n" HOST "A : b\r\n\r\n", 400},
        {"GET /livez HTTP/1.1\r\n" HOST "A\r\n\r\n", 400},
        {"GET /livez HTTP/1.1\r\n" HOST "A: b\rc\r\n\r\n", 400},
        {"GET /livez HTTP/1.1\r\n" HOST "A: b\x01\r\n\r\n", 400},
        {"GET http://localhost/livez HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET livez HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET /livez#x HTTP/1.1\r\n" HOST "\r\n", 400},
        {"BREW /livez HTTP/1.1\r\n" HOST "\r\n", 400},
        {"CONNECT localhost:1 HTTP/1.1\r\n" HOST "\r\n", 400},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
        {"\x16\x03\x01\x02", 400},
        {"POST /v1/tasks HTTP/1.1\r\n" HOST "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400},
        {"POST /v1/tasks HTTP/1.1\r\n" HOST "Content-Length: 1, 1\r\n\r\nx", 400},
        {"POST /v1/tasks HTTP/1.1\r\n" HOST "Content-Length: +1\r\n\r\nx", 400},
        {"POST /v1/tasks HTTP/1.1\r\n" HOST "Content-Length: 0x1\r\n\r\nx", 400},
        {"POST /v1/tasks HTTP/1.1\r\n" HOST "Content-Length: 99999999999999999999999\r\n\r\nx",
         400},
        {"POST /v1/tasks HTTP/1.1\r\n" HOST
         "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         400},
        {"POST /v1/tasks HTTP/1.1\r\n" HOST
         "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
         400},
        {"POST /v1/tasks HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n", 501},
        {"POST /v1/tasks HTTP/1.1\r\n" HOST "Transfer-Encoding: xchunked\r\n\r\n", 501},
        {"POST /v1/tasks HTTP/1.1\r\n" HOST
         "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
         400},
        {"POST /v1/tasks HTTP/1.1\r\n" HOST JSON "Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
        {"POST /v1/tasks HTTP/1.1\r\n" HOST JSON "Transfer-Encoding: chunked\r\n\r\n1\nx\r\n", 400},
        {"POST /v1/tasks HTTP/1.1\r\n" HOST JSON "Transfer-Encoding: chunked\r\n\r\n1\r\nxy", 400},
        {"POST /v1/tasks HTTP/1.1\r\n" HOST JSON "Expect: magic\r\nContent-Length: 1\r\n\r\n", 417},
        {"POST /v1/tasks HTTP/1.1\r\n" HOST JSON "Content-Length: 10000000000\r\n\r\n", 413},
        {"POST /v1/tasks HTTP/1.1\r\n" HOST JSON
         "Expect: 100-continue\r\nContent-Length: 9000000\r\n\r\n",
         413},
        {"POST /nothing HTTP/1.1\r\n" HOST "Content-Length: 10000000000\r\n\r\n", 404},
        {"GET /livez HTTP/1.1\r\n" HOST "Content-Length: 100000\r\n\r\n", 400},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        Buf got = {0};
        int fd = rig_connect(r);
        (void)rig_send(r, fd, cases[i].request, strlen(cases[i].request));
        bool closed = rig_recv(r, fd, NULL, &got);
        if (rig_status(buf_z(&got)) != cases[i].status || (cases[i].status != 403 && !closed))
            fail_msg("%s: closed %d, %s", cases[i].request, closed, buf_z(&got));
        ASSERT_HAS(buf_z(&got), "\"code\":");
        close(fd);
        buf_done(&got);
    }
    ASSERT_STATUS(rig_get(r, "/livez"), 200); /* it lives on */
}

static void heads_have_limits(void **state)
{
    Rig *r = *state;
    Buf headers = {0};
    for (int i = 0; i < 101; i++) buf_printf(&headers, "X-%d: y\r\n", i);
    ASSERT_STATUS(rig_call_with(r, "GET", "/livez", buf_z(&headers), NULL, 0), 431);
    buf_clear(&headers);
    buf_puts(&headers, "X-Long: ");
    for (int i = 0; i < 16400; i++) buf_putc(&headers, 'x');
    buf_puts(&headers, "\r\n");
    ASSERT_STATUS(rig_call_with(r, "GET", "/livez", buf_z(&headers), NULL, 0), 431);
    buf_clear(&headers);
    buf_puts(&headers, "/livez?");
    for (int i = 0; i < 17000; i++) buf_putc(&headers, 'x');
    ASSERT_STATUS(rig_get(r, buf_z(&headers)), 431);
    /* Chunk extensions and trailers, without end. */
    buf_clear(&headers);
    buf_puts(&headers,
             "POST /v1/tasks HTTP/1.1\r\n" HOST JSON "Transfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 3000; i++) buf_puts(&headers, "1;aaaaaaaaaaaa=b\r\nx\r\n");
    Buf got = {0};
    int fd = rig_connect(r);
    (void)rig_send(r, fd, headers.data, headers.len);
    rig_recv(r, fd, NULL, &got);
    ASSERT_STATUS(buf_z(&got), 431);
    close(fd);
    buf_done(&got);
    buf_done(&headers);
}

static void answers_keep_the_order(void **state)
{
    Rig *r = *state;
    Buf got = {0};
    r->hold = true;
    int fd = rig_connect(r);
    const char *text = "POST /v1/tasks HTTP/1.1\r\n" HOST JSON
                       "Content-Length: 26\r\n\r\n{\"model\":\"echo\",\"input\":1}"
                       "GET /livez HTTP/1.1\r\n" HOST "\r\nGET /nothing HTTP/1.1\r\n" HOST
                       "\r\nHEAD /livez HTTP/1.1\r\n" HOST "\r\nGET /readyz HTTP/1.1\r\n" HOST
                       "Connection: close\r\n\r\nGET /late HTTP/1.1\r\n" HOST "\r\n";
    rig_say(r, fd, text);
    rig_recv(r, fd, NULL, &got);
    assert_int_equal(got.len, 0); /* all behind the one that is held */
    rig_sync(r);
    assert_true(rig_recv(r, fd, NULL, &got));
    const char *p = buf_z(&got);
    static const char *const order[] = {
        "202 Accepted",      "200 OK", "\r\n\r\nok\n",      "404 Not Found", "200 OK",
        "Content-Length: 3", "200 OK", "Connection: close", "ok\n"};
    for (size_t i = 0; i < ARRAY_LEN(order); i++) {
        p = strstr(p, order[i]);
        if (!p) fail_msg("%zu: %s", i, buf_z(&got));
        p++;
    }
    assert_null(strstr(p, "HTTP/1.1")); /* nothing after the close */
    close(fd);
    buf_done(&got);
}

static void byte_by_byte(void **state)
{
    Rig *r = *state;
    Buf got = {0};
    int fd = rig_connect(r);
    const char *text =
        "POST /v1/tasks HTTP/1.1\r\n" HOST JSON "Transfer-Encoding: chunked\r\n\r\n"
        "5;a=b\r\n{\"mod\r\n15\r\nel\":\"echo\",\"input\":1}\r\n0\r\nTrailer: x\r\n\r\n";
    for (const char *p = text; *p; p++) assert_true(rig_send(r, fd, p, 1));
    assert_true(rig_recv(r, fd, "receipt", &got));
    ASSERT_STATUS(buf_z(&got), 202);
    buf_clear(&got);
    rig_say(r, fd, "GET /livez HTTP/1.1\r\n" HOST "\r\n");
    assert_true(rig_recv(r, fd, "ok\n", &got));
    buf_clear(&got);
    /* An expectation: the go-ahead, then the answer. */
    rig_say(r, fd,
            "POST /v1/tasks HTTP/1.1\r\n" HOST JSON
            "Expect: 100-continue\r\nContent-Length: 26\r\n\r\n");
    assert_true(rig_recv(r, fd, "100 Continue\r\n\r\n", &got));
    rig_say(r, fd, "{\"model\":\"echo\",\"input\":1}");
    assert_true(rig_recv(r, fd, "receipt", &got));
    buf_clear(&got);
    /* A refused request with a small body leaves the connection as it is. */
    rig_say(r, fd, "POST /nothing HTTP/1.1\r\n" HOST "Content-Length: 4\r\n\r\nbody");
    assert_true(rig_recv(r, fd, "not_found", &got));
    rig_recv(r, fd, NULL, &got);
    buf_clear(&got);
    rig_say(r, fd, "GET /livez HTTP/1.1\r\n" HOST "\r\n");
    assert_true(rig_recv(r, fd, "ok\n", &got));
    close(fd);
    buf_done(&got);
}

static void methods(void **state)
{
    Rig *r = *state;
    const char *a = rig_call_with(r, "PUT", "/v1/tasks", NULL, NULL, 0);
    ASSERT_STATUS(a, 405);
    ASSERT_HAS(a, "Allow: GET, HEAD, POST\r\n");
    ASSERT_STATUS(rig_call_with(r, "OPTIONS", "*", NULL, NULL, 0), 404);
    ASSERT_STATUS(rig_call_with(r, "DELETE", "/livez", NULL, NULL, 0), 405);
    a = rig_call_with(r, "HEAD", "/metrics", NULL, NULL, 0);
    ASSERT_STATUS(a, 200);
    assert_string_equal(rig_body(a), "");
}

static void slow_and_idle_clients_are_cut(void **state)
{
    Rig *r = *state;
    Buf got = {0};
    int slow = rig_connect(r), idle = rig_connect(r), body = rig_connect(r);
    rig_say(r, slow, "GET /livez HTT");
    rig_say(r, body, "POST /v1/tasks HTTP/1.1\r\n" HOST JSON "Content-Length: 100\r\n\r\n{");
    for (int i = 0; i < 100 && !got.len; i++) {
        usleep(20000);
        rig_recv(r, slow, "time", &got);
    }
    ASSERT_STATUS(buf_z(&got), 408);
    buf_clear(&got);
    for (int i = 0; i < 200 && !got.len; i++) {
        usleep(10000);
        rig_recv(r, body, "slowly", &got);
    }
    ASSERT_STATUS(buf_z(&got), 408);
    buf_clear(&got);
    bool closed = false;
    for (int i = 0; i < 20 && !closed; i++) closed = rig_recv(r, idle, NULL, &got);
    assert_true(closed);
    assert_int_equal(got.len, 0);
    close(slow);
    close(idle);
    close(body);
    buf_done(&got);
}

static void connections_have_a_cap(void **state)
{
    Rig *r = *state;
    Buf got = {0};
    int fds[3];
    for (int i = 0; i < 3; i++) {
        fds[i] = rig_connect(r);
        rig_turn(r);
    }
    int over = rig_connect(r);
    assert_true(rig_recv(r, over, NULL, &got));
    ASSERT_STATUS(buf_z(&got), 503);
    ASSERT_HAS(buf_z(&got), "Retry-After: 1");
    close(over);
    for (int i = 0; i < 3; i++) close(fds[i]);
    for (int i = 0; i < 10; i++) rig_turn(r);
    ASSERT_STATUS(rig_get(r, "/livez"), 200);
    /* The body's limit, chunked: noticed as it grows. */
    Buf body = {0};
    buf_puts(&body, "POST /v1/tasks HTTP/1.1\r\n" HOST JSON "Transfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 50; i++)
        buf_puts(&body, "32\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n");
    int fd = rig_connect(r);
    (void)rig_send(r, fd, body.data, body.len);
    buf_clear(&got);
    rig_recv(r, fd, NULL, &got);
    ASSERT_STATUS(buf_z(&got), 413);
    close(fd);
    buf_done(&body);
    buf_done(&got);
}

static void listens_where_it_may(void **state)
{
    Rig *r = *state;
    Buf why = {0};
    Gateway *g = NULL;
    GatewayOptions o = r->o;
    o.listen = "0.0.0.0:0";
    assert_int_equal(gateway_open(&r->io, &o, &r->ports, &g, &why), ERR_PERMISSION);
    ASSERT_HAS(buf_z(&why), "no API key is configured");
    GatewayKey key = {.tenant = "t", .scopes = SCOPE_READ};
    o.keys = &key;
    o.keys_len = 1;
    buf_clear(&why);
    assert_int_equal(gateway_open(&r->io, &o, &r->ports, &g, &why), ERR_PERMISSION);
    ASSERT_HAS(buf_z(&why), "plain HTTP");
    char taken[40];
    snprintf(taken, sizeof taken, "127.0.0.1:%d", r->port);
    o.listen = taken;
    buf_clear(&why);
    assert_int_equal(gateway_open(&r->io, &o, &r->ports, &g, &why), ERR_EXISTS);
    ASSERT_HAS(buf_z(&why), "another program uses this port");
    static const char *const bad[] = {"localhost", "1.2.3.4:99999", "::", "127.0.0.1:x",
                                      "256.1.1.1:1"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        o.listen = bad[i];
        assert_true(gateway_open(&r->io, &o, &r->ports, &g, &why) < 0);
    }
    assert_null(g);
    buf_done(&why);
}

int main(void)
{
#define T(f)     cmocka_unit_test_setup_teardown(f, setup, teardown)
#define SMALL(f) cmocka_unit_test_setup_teardown(f, setup_small, teardown)
    const struct CMUnitTest tests[] = {
        T(refusals),
        T(heads_have_limits),
        T(answers_keep_the_order),
        T(byte_by_byte),
        T(methods),
        SMALL(slow_and_idle_clients_are_cut),
        SMALL(connections_have_a_cap),
        T(listens_where_it_may),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
