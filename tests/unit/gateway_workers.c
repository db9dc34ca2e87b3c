/* gateway_workers.c: the worker protocol's server side, and what operators see. */
#include "gateway_rig.h"

#include <yyjson.h>

#include "gateway/internal.h"

static int setup(void **state)
{
    Rig *r = mem_new(sizeof *r);
    rig_options(r);
    rig_open(r);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    rig_close(*state);
    mem_free(*state);
    return 0;
}

#define DIGEST "8ff76b84557c1745fe2003155f68de27f0c501ccceefd947b5746fe7a7de831e"

static void registers(void **state)
{
    Rig *r = *state;
    const char *good =
        "{\"protocol\":[1,2],\"name\":\"w\",\"pid\":7,\"devices\":[{\"index\":0,\"kind\":\"cpu\","
        "\"threads\":2}],"
        "\"models\":[{\"name\":\"echo\",\"version\":\"1\",\"digest\":\"" DIGEST
        "\"}],\"running\":[{\"id\":\"x\","
        "\"token\":12}],\"later\":true}";
    const char *a = rig_post(r, "/v1/worker/register", JSON AS_WORKER, good);
    ASSERT_STATUS(a, 200);
    ASSERT_HAS(a, "{\"worker\":\"" WORKER
                  "\",\"protocol\":1,\"lease_s\":30,\"ping_s\":5,\"refused\":[],\"stale\":[12]}");
    ASSERT_STATUS(rig_post(r, "/v1/worker/register", JSON, good), 401);
    static const char *const bad[] = {
        "{}",
        "[]",
        "{\"protocol\":[2],\"name\":\"w\",\"devices\":[{\"kind\":\"cpu\"}]}",
        "{\"protocol\":[1],\"devices\":[{\"kind\":\"cpu\"}]}",
        "{\"protocol\":[1],\"name\":\"w\",\"devices\":[]}",
        "{\"protocol\":[1],\"name\":\"w\",\"devices\":[7]}",
        "{\"protocol\":[1],\"name\":\"w\",\"devices\":{}}",
        "{\"protocol\":[1],\"name\":\"w\",\"devices\":[{\"kind\":\"cpu\"}],"
        "\"models\":[{\"name\":\"a b\",\"version\":\"1\"}]}",
        "{\"protocol\":[1],\"name\":\"w\",\"devices\":[{\"kind\":\"cpu\"}],"
        "\"models\":[{\"name\":\"a\",\"version\":\"1\","
        "\"digest\":\"12\"}]}",
        "{\"protocol\":[1],\"name\":\"w\",\"devices\":[{\"kind\":\"cpu\"}],\"running\":7}",
        /* names as the fleet shows them; a device once */
        "{\"protocol\":[1],\"name\":\"a\\nb\",\"devices\":[{\"kind\":\"cpu\"}]}",
        "{\"protocol\":[1],\"name\":\"w\\u0000\",\"devices\":[{\"kind\":\"cpu\"}]}",
        "{\"protocol\":[1],\"name\":\"12345678901234567890123456789012"
        "34567890123456789012345678901234\",\"devices\":[{\"kind\":\"cpu\"}]}",
        "{\"protocol\":[1],\"name\":\"w\",\"worker\":\"../x\","
        "\"devices\":[{\"kind\":\"cpu\"}]}",
        "{\"protocol\":[1],\"name\":\"w\","
        "\"devices\":[{\"kind\":\"12345678901234567890123456789012\"}]}",
        "{\"protocol\":[1],\"name\":\"w\",\"devices\":[{\"index\":1,\"kind\":\"cpu\"},"
        "{\"index\":1,\"kind\":\"cpu\"}]}",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        a = rig_post(r, "/v1/worker/register", JSON AS_WORKER, bad[i]);
        if (rig_status(a) != 422) fail_msg("%s: %s", bad[i], a);
    }
}

static void stream(void **state)
{
    Rig *r = *state;
    Buf got = {0};
    const char *open = "GET /v1/worker/" WORKER "/stream HTTP/1.1\r\nHost: localhost\r\n" AS_WORKER
                       "\r\n";
    ASSERT_STATUS(rig_call_with(r, "GET", "/v1/worker/none/stream", AS_WORKER, NULL, 0), 404);
    int fd = rig_connect(r);
    rig_say(r, fd, open);
    assert_true(rig_recv(r, fd, "\r\n\r\n", &got));
    assert_int_equal(r->streams_opened, 1);
    buf_clear(&got);
    gateway_worker_send(r->g, STR(WORKER), STR("{\"t\":\"ping\"}\n"), 0);
    assert_true(rig_recv(r, fd, "ping", &got));
    /* A line waits for its record, and those behind it wait with it. */
    buf_clear(&got);
    r->hold = true;
    gateway_worker_send(r->g, STR(WORKER), STR("{\"t\":\"lease\"}\n"), rig_last(r) + 1);
    gateway_worker_send(r->g, STR(WORKER), STR("{\"t\":\"ping2\"}\n"), 0);
    rig_recv(r, fd, NULL, &got);
    assert_int_equal(got.len, 0);
    gateway_durable(r->g, rig_last(r) + 1);
    assert_true(rig_recv(r, fd, "ping2", &got));
    assert_true(strstr(buf_z(&got), "lease") < strstr(buf_z(&got), "ping2"));
    r->hold = false;
    /* A second stream takes the place of the first, without a word that the worker has gone. */
    int other = rig_connect(r);
    rig_say(r, other, open);
    assert_true(rig_recv(r, fd, NULL, &got));
    assert_int_equal(r->streams_closed, 0);
    buf_clear(&got);
    rig_recv(r, other, "\r\n\r\n", &got);
    gateway_worker_send(r->g, STR(WORKER), STR("{\"t\":\"ping3\"}\n"), 0);
    assert_true(rig_recv(r, other, "ping3", &got));
    close(other);
    for (int i = 0; i < 10; i++) rig_turn(r);
    assert_int_equal(r->streams_closed, 1);
    gateway_worker_send(r->g, STR(WORKER), STR("{\"t\":\"lost\"}\n"),
                        0); /* nobody there: dropped */
    close(fd);
    fd = rig_connect(r);
    rig_say(r, fd, open);
    buf_clear(&got);
    rig_recv(r, fd, "\r\n\r\n", &got);
    gateway_worker_kick(r->g, STR(WORKER));
    assert_true(rig_recv(r, fd, NULL, &got));
    assert_int_equal(r->streams_closed, 2);
    close(fd);
    buf_done(&got);
}

static void reports(void **state)
{
    Rig *r = *state;
    char id[40], body[1500];
    rig_submit_echo(r, id);
    unsigned long long token = rig_lease(r, id);
    snprintf(body, sizeof body,
             "{\"t\":\"started\",\"id\":\"%s\",\"token\":%llu}\n{\"t\":\"progress\",\"id\":\"%s\","
             "\"token\":%llu,\"step\":1,\"steps\":9}\n"
             "{\"t\":\"result\",\"id\":\"%s\",\"token\":%llu,\"output\":1}\n{\"t\":\"result\","
             "\"id\":\"%s\",\"token\":%llu,\"output\":"
             "{\"x\": [1.0]},\"device_ns\":5,\"run_ns\":6}\n"
             "{\"t\":\"result\",\"id\":\"%s\",\"token\":%llu,\"output\":2}\nnot "
             "json\n{\"t\":\"nothing\"}\n"
             "{\"t\":\"pong\",\"n\":1,\"held\":[1,2]}\n{\"t\":\"telemetry\",\"device\":0,"
             "\"model\":\"echo\",\"version\":\"1\","
             "\"event\":\"loaded\",\"load_ns\":5,\"unit_ns\":{\"1\":5,\"8\":9}}\n{\"t\":\"error\","
             "\"id\":\"%s\",\"token\":%llu,"
             "\"code\":\"what\"}\n{\"t\":\"result\",\"id\":\"%s\",\"token\":\"x\",\"output\":1}\n",
             id, token, id, token, id, token + 1, id, token, id, token, id, token, id);
    const char *a = rig_post(r, "/v1/worker/" WORKER "/reports", NDJSON AS_WORKER, body);
    ASSERT_STATUS(a, 200);
    static const char *const want[] = {"accepted",  "accepted", "fenced",  "accepted",
                                       "duplicate", "invalid",  "invalid", "accepted",
                                       "accepted",  "invalid",  "invalid"};
    const char *p = rig_body(a);
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        char line[40];
        snprintf(line, sizeof line, "{\"status\":\"%s\"", want[i]);
        if (strncmp(p, line, strlen(line)) != 0) fail_msg("line %zu: %.200s", i, p);
        p = strchr(p, '\n') + 1;
    }
    assert_int_equal(*p, 0);
    snprintf(body, sizeof body, "/v1/tasks/%s", id);
    ASSERT_HAS(rig_get(r, body), "\"output\":{\"x\": [1.0]}"); /* as the model wrote it */
    r->log_full = true;
    a = rig_post(r, "/v1/worker/" WORKER "/reports", NDJSON AS_WORKER,
                 "{\"t\":\"pong\",\"n\":1,\"held\":[]}\n");
    ASSERT_STATUS(a, 200);
    assert_string_equal(rig_body(a), "{\"status\":\"retry\"}\n");
    r->no_worker = true;
    ASSERT_STATUS(rig_post(r, "/v1/worker/" WORKER "/reports", NDJSON AS_WORKER, "{}"), 404);
}

static void results_wait_for_the_log(void **state)
{
    Rig *r = *state;
    Buf got = {0};
    char id[40], body[300], text[700];
    rig_submit_echo(r, id);
    unsigned long long token = rig_lease(r, id);
    r->hold = true;
    snprintf(body, sizeof body, "{\"t\":\"result\",\"id\":\"%s\",\"token\":%llu,\"output\":1}\n",
             id, token);
    snprintf(text, sizeof text,
             "POST /v1/worker/" WORKER "/reports HTTP/1.1\r\nHost: localhost\r\n" NDJSON AS_WORKER
             "Content-Length: %zu\r\n\r\n%s",
             strlen(body), body);
    int fd = rig_connect(r);
    rig_say(r, fd, text);
    rig_recv(r, fd, NULL, &got);
    assert_int_equal(got.len, 0);
    rig_sync(r);
    assert_true(rig_recv(r, fd, "accepted", &got));
    r->hold = false;
    close(fd);
    buf_done(&got);
}

static void what_operators_see(void **state)
{
    Rig *r = *state;
    ASSERT_HAS(rig_get(r, "/v1/models"), "{\"models\":[{\"name\":\"echo\",\"latest\":\"2\"");
    ASSERT_HAS(rig_get(r, "/v1/models/echo"), "\"loaded_on\":[]");
    ASSERT_HAS(rig_get(r, "/v1/models/ec%68o/versions/1"), "\"version\":\"1\"");
    ASSERT_STATUS(rig_get(r, "/v1/models/none"), 404);
    ASSERT_STATUS(rig_get(r, "/v1/models/echo/versions/9"), 404);
    ASSERT_HAS(rig_get(r, "/v1/workers"), "{\"workers\":[]}");
    ASSERT_STATUS(rig_get(r, "/v1/workers/none"), 404);
    ASSERT_HAS(rig_get(r, "/v1/queues"), "{\"queues\":[]}");
    const char *a = rig_get(r, "/metrics");
    ASSERT_HAS(a, "headrace_rig 1");
    ASSERT_HAS(
        a, "headrace_http_requests_total{method=\"GET\",route=\"/v1/models\",status=\"2xx\"} 1");
    ASSERT_HAS(rig_get(r, "/readyz?verbose"), "shard ok");
    r->ready = false;
    a = rig_get(r, "/readyz");
    ASSERT_STATUS(a, 503);
    ASSERT_HAS(a, "no workers yet");
    ASSERT_HAS(rig_get(r, "/"), "default-src 'none'");
}

static void every_route_is_described(void **state)
{
    Rig *r = *state;
    const char *a = rig_body(rig_get(r, "/openapi.json"));
    yyjson_doc *doc = yyjson_read(a, strlen(a), 0);
    assert_non_null(doc);
    yyjson_val *root = yyjson_doc_get_root(doc), *paths = yyjson_obj_get(root, "paths");
    assert_string_equal(yyjson_get_str(yyjson_obj_get(root, "openapi")), "3.1.0");
    for (size_t i = 0; i < routes_len; i++) {
        yyjson_val *path = yyjson_obj_get(paths, routes[i].pattern);
        const char *method = routes[i].method == HTTP_M_GET    ? "get"
                             : routes[i].method == HTTP_M_POST ? "post"
                                                               : "delete";
        yyjson_val *op = yyjson_obj_get(path, method);
        if (!op) fail_msg("%s %s is not described", method, routes[i].pattern);
        /* Every query parameter and schema it names is there. */
        size_t want = 0, have = 0, k, n;
        for (const char *q = routes[i].query; *q;) {
            want++;
            q += strcspn(q, " ");
            while (*q == ' ') q++;
        }
        yyjson_val *v;
        yyjson_arr_foreach(yyjson_obj_get(op, "parameters"), k, n, v)
            have += yyjson_equals_str(yyjson_obj_get(v, "in"), "query");
        assert_int_equal(have, want);
        yyjson_val *schemas = yyjson_obj_get(yyjson_obj_get(root, "components"), "schemas");
        if (routes[i].answer && !yyjson_obj_get(schemas, routes[i].answer))
            fail_msg("no schema %s", routes[i].answer);
    }
    yyjson_doc_free(doc);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(registers),
        T(stream),
        T(reports),
        T(results_wait_for_the_log),
        T(what_operators_see),
        T(every_route_is_described),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
