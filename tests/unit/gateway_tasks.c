/* gateway_tasks.c: tasks over HTTP: submit, wait, read, list, events, batches; and that nothing
 * leaves before it is durable. */
#include "gateway_rig.h"

#include "task/record.h"

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

static void submit_and_read(void **state)
{
    Rig *r = *state;
    char id[40], path[100];
    const char *a = rig_post(
        r, "/v1/tasks", JSON,
        "{\"model\":\"echo\",\"input\":{\"a\": 1.50, \"b\":[1e3]},\"metadata\":{\"k\":\"v\\n\"},"
        "\"deadline_s\":30}");
    ASSERT_STATUS(a, 202);
    ASSERT_HAS(a, "Location: /v1/tasks/task_");
    ASSERT_HAS(a, "\"status\":\"queued\"");
    ASSERT_HAS(a, "\"version\":\"2\""); /* the highest */
    ASSERT_HAS(a, "\"metadata\":{\"k\":\"v\\n\"}");
    ASSERT_HAS(a, "\"queue\":{\"ahead\":3");
    rig_id(a, "task_", id);
    snprintf(path, sizeof path, "/v1/tasks/%s?include=input", id);
    ASSERT_HAS(rig_get(r, path), "\"input\":{\"a\": 1.50, \"b\":[1e3]}"); /* as it was written */
    uint64_t token = rig_lease(r, id);
    snprintf(path, sizeof path, "/v1/tasks/%s", id);
    ASSERT_HAS(rig_get(r, path), "\"status\":\"running\"");
    rig_succeed(r, id, token, "{\"out\":[1,2]}");
    a = rig_get(r, path);
    ASSERT_HAS(a, "\"status\":\"succeeded\",\"output\":{\"out\":[1,2]}");
    ASSERT_STATUS(rig_call_with(r, "DELETE", path, NULL, NULL, 0), 204);
    a = rig_get(r, path);
    ASSERT_HAS(a, "\"output\":null,\"data_removed\":true");
    snprintf(path, sizeof path, "/v1/tasks/%s/retry", id);
    ASSERT_STATUS(rig_post(r, path, NULL, NULL), 410);
    ASSERT_STATUS(rig_get(r, "/v1/tasks/task_01M81Z4VVQ00000000000MGS97"), 404);
    ASSERT_STATUS(rig_get(r, "/v1/tasks/%zz"), 400);
}

static void line_breaks_never_reach_the_worker(void **state)
{
    Rig *r = *state;
    char id[40], path[100];
    const char *a = rig_post(r, "/v1/tasks", JSON,
                             "{\"model\":\"echo:1\",\n \"input\":{\n\"a\":\r\n \"x y\\n\"}, "
                             "\"metadata\":{\n\"a\":\"b\"\n}}");
    ASSERT_STATUS(a, 202);
    rig_id(a, "task_", id);
    snprintf(path, sizeof path, "/v1/tasks/%s?include=input", id);
    a = rig_get(r, path);
    ASSERT_HAS(a, "\"input\":{\"a\":\"x y\\n\"}");
    ASSERT_HAS(a, "\"metadata\":{\"a\":\"b\"}");
}

static void nothing_leaves_before_it_is_durable(void **state)
{
    Rig *r = *state;
    Buf got = {0};
    char id[40], text[200];
    rig_submit_echo(r, id);
    r->hold = true;
    int fd = rig_connect(r), other = rig_connect(r);
    const char *body = "{\"model\":\"echo\",\"input\":1}";
    snprintf(text, sizeof text,
             "POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\n" JSON "Content-Length: %zu\r\n\r\n%s",
             strlen(body), body);
    rig_say(r, fd, text);
    rig_recv(r, fd, NULL, &got);
    assert_int_equal(got.len, 0);
    assert_false(gateway_idle(r->g));
    /* A read of a durable task is not held up by others' records; the task that is not durable is
     * not shown. */
    snprintf(text, sizeof text, "GET /v1/tasks/%s HTTP/1.1\r\nHost: localhost\r\n\r\n", id);
    rig_say(r, other, text);
    assert_true(rig_recv(r, other, "\r\n\r\n", &got));
    buf_clear(&got);
    rig_say(r, other, "GET /v1/tasks HTTP/1.1\r\nHost: localhost\r\n\r\n");
    rig_recv(r, other, NULL, &got);
    assert_int_equal(got.len, 0);
    rig_sync(r);
    assert_true(rig_recv(r, fd, "\"receipt\"", &got));
    ASSERT_HAS(buf_z(&got), "202 Accepted");
    buf_clear(&got);
    assert_true(rig_recv(r, other, "at_seq", &got));
    close(fd);
    close(other);
    buf_done(&got);
}

/* A 410 of a task whose leaving is not on disk yet: a crash would bring the task back. */
static void nobody_hears_that_a_task_is_gone_before_it_is(void **state)
{
    Rig *r = *state;
    Buf got = {0};
    char id[40], text[200];
    rig_submit_echo(r, id);
    rig_succeed(r, id, rig_lease(r, id), "7");
    r->hold = true;
    RecordData d = {.task = {core_id_no(str_from(id))}};
    record_put(&r->b, REC_EVICT, &d);
    (void)rig_commit(r, (Decision){0});
    int fd = rig_connect(r);
    snprintf(text, sizeof text, "GET /v1/tasks/%s HTTP/1.1\r\nHost: localhost\r\n\r\n", id);
    rig_say(r, fd, text);
    rig_recv(r, fd, NULL, &got);
    assert_int_equal(got.len, 0);
    rig_sync(r);
    assert_true(rig_recv(r, fd, "gone", &got));
    ASSERT_HAS(buf_z(&got), "410 Gone");
    close(fd);
    buf_done(&got);
}

static void idempotency(void **state)
{
    Rig *r = *state;
    char id[40], again[40];
    const char *body = "{\"model\":\"echo\",\"input\":1}",
               *key = JSON "Idempotency-Key: \"k \\\"1\"\r\n";
    const char *a = rig_post(r, "/v1/tasks", key, body);
    ASSERT_STATUS(a, 202);
    assert_null(strstr(a, "Idempotent-Replayed"));
    rig_id(a, "task_", id);
    a = rig_post(r, "/v1/tasks", key, body);
    ASSERT_STATUS(a, 202);
    ASSERT_HAS(a, "Idempotent-Replayed: true");
    rig_id(a, "task_", again);
    assert_string_equal(id, again);
    ASSERT_STATUS(rig_post(r, "/v1/tasks", key, "{\"model\":\"echo\",\"input\":2}"), 422);
    ASSERT_HAS(rig_post(r, "/v1/tasks", JSON "Idempotency-Key: bare\r\n", body),
               "must be a quoted string");
    /* With the wait met, a repeat answers with the ended task at once. */
    rig_succeed(r, id, rig_lease(r, id), "7");
    a = rig_post(r, "/v1/tasks", JSON "Prefer: wait=5\r\nIdempotency-Key: \"k \\\"1\"\r\n", body);
    ASSERT_STATUS(a, 200);
    ASSERT_HAS(a, "\"output\":7");
}

/* A repeat makes no record: where there is no room for a new task it still finds its own. */
static void a_repeat_needs_no_room(void **state)
{
    Rig *r = *state;
    static const Code codes[] = {CODE_DISK_FULL, CODE_LOG_STALLED, CODE_NO_LEADER};
    const char *body = "{\"model\":\"echo\",\"input\":1}", *key = JSON "Idempotency-Key: \"k\"\r\n",
               *retry_key = JSON "Idempotency-Key: \"r\"\r\n",
               *line = "{\"model\":\"echo\",\"input\":2,\"idempotency_key\":\"l\"}\n";
    char id[40], again[40], made[40], in_batch[40], path[100];
    rig_id(rig_post(r, "/v1/tasks", key, body), "task_", id);
    rig_succeed(r, id, rig_lease(r, id), "7");
    snprintf(path, sizeof path, "/v1/tasks/%s/retry", id);
    rig_id(rig_post(r, path, retry_key, ""), "task_", made);
    rig_id(rig_post(r, "/v1/tasks:batch", NDJSON, line), "task_", in_batch);
    uint64_t records = r->at.next_seq;
    for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
        bool leads = codes[i] != CODE_NO_LEADER;
        r->accepting = (Decision){.code = codes[i], .retry_after_ms = 1000, .detail = "no room"};
        const char *a = rig_post(r, "/v1/tasks", key, body);
        ASSERT_STATUS(a, leads ? 202 : 503);
        if (leads) rig_id(a, "task_", again);
        if (leads) assert_string_equal(again, id);
        ASSERT_STATUS(rig_post(r, "/v1/tasks", key, "{\"model\":\"echo\",\"input\":2}"),
                      leads ? 422 : 503);
        ASSERT_STATUS(rig_post(r, "/v1/tasks", JSON "Idempotency-Key: \"new\"\r\n", body), 503);
        ASSERT_STATUS(rig_post(r, "/v1/tasks", JSON, body), 503);
        a = rig_post(r, path, retry_key, "");
        ASSERT_STATUS(a, leads ? 201 : 503);
        if (leads) rig_id(a, "task_", again);
        if (leads) assert_string_equal(again, made);
        ASSERT_STATUS(rig_post(r, path, JSON, ""), 503);
        a = rig_post(r, "/v1/tasks:batch", NDJSON, line);
        ASSERT_HAS(a, leads ? "{\"status\":202,\"replayed\":true" : "{\"status\":503");
        if (leads) rig_id(a, "task_", again);
        if (leads) assert_string_equal(again, in_batch);
        ASSERT_HAS(rig_post(r, "/v1/tasks:batch", NDJSON, body), "{\"status\":503");
    }
    assert_true(r->at.next_seq == records);
}

static void prefer_wait(void **state)
{
    Rig *r = *state;
    Buf got = {0};
    char id[40];
    int fd = rig_connect(r);
    const char *text =
        "POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nPrefer: respond-async, wait=20\r\n" JSON
        "Content-Length: 26\r\n\r\n{\"model\":\"echo\",\"input\":1}";
    rig_say(r, fd, text);
    rig_recv(r, fd, NULL, &got);
    assert_int_equal(got.len, 0);
    TaskIdText tid;
    core_task_id(r->core, core_older(r->core, UINT64_MAX), &tid);
    snprintf(id, sizeof id, "%s", tid.z);
    uint64_t token = rig_lease(r, id);
    rig_recv(r, fd, NULL, &got);
    assert_int_equal(got.len, 0); /* running is no end */
    r->hold = true;
    rig_succeed(r, id, token, "\"done\"");
    rig_recv(r, fd, NULL, &got);
    assert_int_equal(got.len, 0); /* the result is not durable */
    rig_sync(r);
    assert_true(rig_recv(r, fd, "receipt", &got));
    ASSERT_HAS(buf_z(&got), "HTTP/1.1 200 OK");
    ASSERT_HAS(buf_z(&got), "\"output\":\"done\"");
    close(fd);
    buf_done(&got);
    r->hold = false;
    ASSERT_STATUS(
        rig_post(r, "/v1/tasks", JSON "Prefer: wait=x\r\n", "{\"model\":\"echo\",\"input\":1}"),
        400);
    ASSERT_STATUS(rig_post(r, "/v1/tasks", JSON "Prefer: handling=lenient\r\n",
                           "{\"model\":\"echo\",\"input\":1}"),
                  202);
}

static void long_poll(void **state)
{
    Rig *r = *state;
    Buf got = {0};
    char id[40], text[200];
    rig_submit_echo(r, id);
    int fd = rig_connect(r);
    snprintf(text, sizeof text, "GET /v1/tasks/%s?wait=30 HTTP/1.1\r\nHost: localhost\r\n\r\n", id);
    rig_say(r, fd, text);
    rig_recv(r, fd, NULL, &got);
    assert_int_equal(got.len, 0);
    uint64_t token = rig_lease(r, id);
    assert_true(rig_recv(r, fd, "receipt", &got));
    ASSERT_HAS(buf_z(&got), "\"status\":\"running\"");
    buf_clear(&got);
    rig_say(r, fd, text); /* who leaves while it waits is forgotten */
    rig_turn(r);
    close(fd);
    for (int i = 0; i < 10; i++) rig_turn(r);
    assert_true(gateway_idle(r->g));
    rig_succeed(r, id, token, "1");
    snprintf(text, sizeof text, "/v1/tasks/%s?wait=1", id); /* no wait for what has ended */
    ASSERT_HAS(rig_get(r, text), "succeeded");
    char other[40];
    rig_submit_echo(r, other);
    snprintf(text, sizeof text, "GET /v1/tasks/%s?wait=1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
             other);
    fd = rig_connect(r);
    rig_say(r, fd, text);
    for (int i = 0; i < 6 && !got.len; i++) rig_recv(r, fd, "receipt", &got);
    ASSERT_HAS(buf_z(&got), "\"status\":\"queued\"");
    close(fd);
    buf_done(&got);
}

static void events(void **state)
{
    Rig *r = *state;
    Buf got = {0};
    char id[40], text[260], part[60];
    rig_submit_echo(r, id);
    int fd = rig_connect(r);
    snprintf(text, sizeof text, "GET /v1/tasks/%s/events HTTP/1.1\r\nHost: localhost\r\n\r\n", id);
    rig_say(r, fd, text);
    assert_true(rig_recv(r, fd, "\"status\":\"queued\"", &got));
    ASSERT_HAS(buf_z(&got), "Content-Type: text/event-stream");
    uint64_t token = rig_lease(r, id);
    assert_true(rig_recv(r, fd, "\"status\":\"running\"", &got));
    Task *t = rig_task(r, id);
    assert_true(core_progress(r->core, t->no, token, 3, 30));
    gateway_task_progress(r->g, t);
    assert_true(rig_recv(r, fd, "\"step\":3", &got));
    snprintf(part, sizeof part, "id: %llu.1\n", (unsigned long long)token);
    ASSERT_HAS(buf_z(&got), part);
    r->hold = true;
    buf_clear(&got);
    rig_succeed(r, id, token, "9");
    rig_recv(r, fd, NULL, &got);
    assert_int_equal(got.len, 0);
    rig_sync(r);
    assert_true(
        rig_recv(r, fd, "\r\n0\r\n\r\n", &got)); /* the stream ends, the connection does not */
    ASSERT_HAS(buf_z(&got), "\"output\":9");
    r->hold = false;
    buf_clear(&got);
    /* Comes back with the id of the lease: gets the end only. */
    snprintf(text, sizeof text,
             "GET /v1/tasks/%s/events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: %llu.1\r\n\r\n",
             id, (unsigned long long)token);
    rig_say(r, fd, text);
    assert_true(rig_recv(r, fd, "\r\n0\r\n\r\n", &got));
    assert_null(strstr(buf_z(&got), "running"));
    ASSERT_HAS(buf_z(&got), "succeeded");
    buf_clear(&got);
    snprintf(text, sizeof text,
             "GET /v1/tasks/%s/events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: %llu\r\n\r\n",
             id, (unsigned long long)rig_last(r));
    rig_say(r, fd, text);
    assert_true(rig_recv(r, fd, "\r\n\r\n", &got));
    ASSERT_HAS(buf_z(&got), "204 No Content");
    close(fd);
    buf_done(&got);
}

static void cancel_and_retry(void **state)
{
    Rig *r = *state;
    char id[40], again[40], path[100];
    rig_submit_echo(r, id);
    snprintf(path, sizeof path, "/v1/tasks/%s/retry", id);
    ASSERT_STATUS(rig_post(r, path, NULL, NULL), 409);
    snprintf(path, sizeof path, "/v1/tasks/%s/cancel", id);
    ASSERT_HAS(rig_post(r, path, NULL, NULL), "\"status\":\"canceled\"");
    const char *a = rig_post(r, path, NULL, NULL);
    ASSERT_STATUS(a, 409);
    ASSERT_HAS(a, "already_terminal");
    snprintf(path, sizeof path, "/v1/tasks/%s/retry", id);
    a = rig_post(r, path, JSON, "{}");
    ASSERT_STATUS(a, 201);
    ASSERT_HAS(a, "\"retry_of\":\"task_");
    rig_id(a, "task_", again);
    assert_string_not_equal(id, again);
    snprintf(path, sizeof path, "/v1/tasks/%s/logs", id);
    ASSERT_HAS(rig_get(r, path), "printed");
}

static void list(void **state)
{
    Rig *r = *state;
    char ids[5][40], cursor[60], path[200];
    for (int i = 0; i < 5; i++) rig_submit_echo(r, ids[i]);
    rig_succeed(r, ids[2], rig_lease(r, ids[2]), "1");
    const char *a = rig_get(r, "/v1/tasks?limit=2");
    ASSERT_STATUS(a, 200);
    const char *first = strstr(a, ids[4]), *second = strstr(a, ids[3]);
    assert_true(first && second && first < second && !strstr(a, ids[2]));
    const char *next = strstr(a, "\"next\":\"") + 8;
    snprintf(cursor, sizeof cursor, "%.*s", (int)strcspn(next, "\""), next);
    snprintf(path, sizeof path, "/v1/tasks?limit=9&cursor=%s", cursor);
    a = rig_get(r, path);
    assert_true(strstr(a, ids[2]) && strstr(a, ids[0]) && !strstr(a, ids[3]));
    ASSERT_HAS(a, "\"next\":null");
    a = rig_get(r, "/v1/tasks?status=succeeded,failed&model=echo:2&priority=standard");
    assert_true(strstr(a, ids[2]) && !strstr(a, ids[3]));
    ASSERT_HAS(rig_get(r, "/v1/tasks?model=other"), "\"tasks\":[]");
    ASSERT_HAS(rig_get(r, "/v1/tasks?created_after=2090-01-01T00:00:00Z"), "\"tasks\":[]");
    static const char *const bad[] = {"status=done", "limit=0",           "limit=201",
                                      "cursor=x",    "created_after=now", "priority=x",
                                      "limti=3",     "limit=1&limit=2"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        snprintf(path, sizeof path, "/v1/tasks?%s", bad[i]);
        a = rig_get(r, path);
        if (rig_status(a) != 422 && rig_status(a) != 400) fail_msg("%s: %s", bad[i], a);
    }
}

static void refusals(void **state)
{
    Rig *r = *state;
    static const struct {
        const char *body;
        int status;
        const char *part;
    } cases[] = {
        {"", 400, "empty"},
        {"{", 400, "not JSON"},
        {"{\"model\":\"echo\",\"input\":1}x", 400, "not JSON"},
        {"[1]", 422, "a list"},
        {"{\"model\":\"echo\"}", 422, "\"field\":\"input\""},
        {"{\"input\":1}", 422, "\"field\":\"model\""},
        {"{\"model\":\"echo\",\"input\":1,\"input\":2}", 422, "given twice"},
        {"{\"model\":\"echo\",\"input\":1,\"priorty\":\"batch\"}", 422,
         "did you mean \\\"priority\\\""},
        {"{\"model\":\"ecko\",\"input\":1}", 404, "did you mean \\\"echo\\\""},
        {"{\"model\":\"echo:9\",\"input\":1}", 404, "its latest is \\\"2\\\""},
        {"{\"model\":\"echo\",\"input\":1,\"priority\":\"harvest\"}", 422,
         "critical, standard or batch"},
        {"{\"model\":\"echo\",\"input\":1,\"deadline_s\":0}", 422, "deadline_s"},
        {"{\"model\":\"echo\",\"input\":1,\"deadline_s\":-1}", 422, "deadline_s"},
        {"{\"model\":\"echo\",\"input\":1,\"deadline_s\":\"9\"}", 422, "deadline_s"},
        {"{\"model\":\"echo\",\"input\":1,\"delay_s\":5,\"deadline_s\":5}", 422, "less than"},
        {"{\"model\":\"echo\",\"input\":1,\"max_attempts\":21}", 422, "1 to 20"},
        {"{\"model\":\"echo\",\"input\":1,\"max_attempts\":1.5}", 422, "whole number"},
        {"{\"model\":\"echo\",\"input\":1,\"retention_s\":99999999}", 422, "retention_s"},
        {"{\"model\":\"echo\",\"input\":1,\"metadata\":{\"a\":1}}", 422, "metadata"},
        {"{\"model\":\"echo\",\"input\":1,\"webhook\":{\"url\":\"http://x\"}}", 422,
         "does not exist in this version"},
        {"{\"model\":\"echo\",\"input\":{\"$file\":\"file_x\"}}", 422, "does not exist"},
        {"{\"model\":\"echo\",\"input\":{\"\\u0024file\":\"file_x\"}}", 422, "does not exist"},
        {"{\"model\":\"echo\",\"input\":{\"$file\":7}}", 422, "does not exist"},
        {"{\"model\":\"echo\",\"input\":\"\xff\"}", 400, "not JSON"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *a = rig_post(r, "/v1/tasks", JSON, cases[i].body);
        if (rig_status(a) != cases[i].status || !strstr(a, cases[i].part))
            fail_msg("%s: %s", cases[i].body, a);
        ASSERT_HAS(a, "application/problem+json");
    }
    /* Depth: 63 lists in the input make 64 levels. */
    for (int extra = 0; extra < 2; extra++) {
        Buf b = {0};
        buf_puts(&b, "{\"model\":\"echo\",\"input\":");
        for (int i = 0; i < 63 + extra; i++) buf_putc(&b, '[');
        for (int i = 0; i < 63 + extra; i++) buf_putc(&b, ']');
        buf_putc(&b, '}');
        ASSERT_STATUS(rig_post(r, "/v1/tasks", JSON, buf_z(&b)), extra ? 400 : 202);
        buf_done(&b);
    }
    ASSERT_STATUS(rig_post(r, "/v1/tasks", NULL, "{}"), 415);
    r->accepting = (Decision){.code = CODE_LOG_STALLED, .retry_after_ms = 1500, .detail = "slow"};
    const char *a = rig_post(r, "/v1/tasks", JSON, "{\"model\":\"echo\",\"input\":1}");
    ASSERT_STATUS(a, 503);
    ASSERT_HAS(a, "Retry-After: 2");
}

static void batch(void **state)
{
    Rig *r = *state;
    Buf body = {0};
    buf_puts(&body,
             "{\"model\":\"echo\",\"input\":1}\nnot json\n\r\n{\"model\":\"echo\",\"input\":2,"
             "\"idempotency_key\":\"a\"}\n"
             "{\"model\":\"echo\",\"input\":2,\"idempotency_key\":\"a\"}\n{\"model\":\"echo\","
             "\"input\":\"");
    for (int i = 0; i < 100000; i++) buf_putc(&body, 'x');
    buf_puts(&body, "\"}\n{\"model\":\"echo\",\"input\":4}"); /* the last without a line break */
    const char *a = rig_post(r, "/v1/tasks:batch", NDJSON, buf_z(&body));
    ASSERT_STATUS(a, 200);
    static const char *const want[] = {
        "{\"status\":202,\"task\"", "{\"status\":400,\"error\"",
        "{\"status\":202,\"task\"", "{\"status\":202,\"replayed\":true",
        "{\"status\":202,\"task\"", "{\"status\":202,\"task\""};
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        a = strstr(a, want[i]);
        if (!a) fail_msg("line %zu", i);
        a++;
    }
    assert_null(strstr(a, "{\"status\""));
    assert_int_equal(core_count(r->core, TASK_QUEUED), 4);
    /* One line over the limit. */
    buf_clear(&body);
    for (int i = 0; i < 10001; i++) buf_puts(&body, "{\"model\":\"no\",\"input\":1}\n");
    a = rig_post(r, "/v1/tasks:batch", NDJSON, buf_z(&body));
    ASSERT_HAS(a, "at most 10000 lines");
    buf_done(&body);
}

static void drain(void **state)
{
    Rig *r = *state;
    Buf got = {0};
    char id[40], text[200];
    rig_submit_echo(r, id);
    int fd = rig_connect(r), idle = rig_connect(r);
    snprintf(text, sizeof text, "GET /v1/tasks/%s?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n", id);
    rig_say(r, fd, text);
    rig_turn(r);
    gateway_drain(r->g);
    assert_true(rig_recv(r, fd, NULL, &got)); /* answered, then closed */
    ASSERT_HAS(buf_z(&got), "\"status\":\"queued\"");
    ASSERT_HAS(buf_z(&got), "Connection: close");
    assert_true(rig_recv(r, idle, NULL, &got));
    assert_true(gateway_idle(r->g));
    close(fd);
    close(idle);
    buf_done(&got);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(submit_and_read),
        T(line_breaks_never_reach_the_worker),
        T(nothing_leaves_before_it_is_durable),
        T(nobody_hears_that_a_task_is_gone_before_it_is),
        T(idempotency),
        T(a_repeat_needs_no_room),
        T(prefer_wait),
        T(long_poll),
        T(events),
        T(cancel_and_retry),
        T(list),
        T(refusals),
        T(batch),
        T(drain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
