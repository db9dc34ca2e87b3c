/* gateway_files.c: uploads and downloads, forms, digests, large inputs; and what workers may do
 * with files. */
#include "gateway_rig.h"

static int setup(void **state)
{
    Rig *r = mem_new(sizeof *r);
    rig_options(r);
    r->o.file_max = 2 * MIB;
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

static size_t contents(const Rig *r)
{
    char cmd[200];
    snprintf(cmd, sizeof cmd, "ls %s %s/tmp | grep -c '^file_'", r->dir, r->dir);
    FILE *p = popen(cmd, "r");
    unsigned n = 0;
    assert_int_equal(fscanf(p, "%u", &n), 1);
    pclose(p);
    return n;
}

/* Files are removed in the background, after the answer. */
static size_t contents_settle(Rig *r, size_t wanted)
{
    for (int i = 0; i < 1000 && contents(r) != wanted; i++) {
        usleep(1000);
        rig_turn(r);
    }
    return contents(r);
}

static void round_trip(void **state)
{
    Rig *r = *state;
    Buf data = {0};
    Random random;
    char hex[65], path[200], id[40];
    Sha256 d;
    random_seed(&random, 5);
    for (int i = 0; i < 120000; i++) buf_u64(&data, random_u64(&random));
    sha256(data.data, data.len, &d);
    sha256_hex(&d, hex);
    snprintf(path, sizeof path, "/v1/files?name=..%%2Fa%%20b.bin&sha256=%s", hex);
    const char *a = rig_call_with(r, "POST", path, "Content-Type: image/x-test\r\n",
                                  (char *)data.data, data.len);
    ASSERT_STATUS(a, 201);
    ASSERT_HAS(a, "\"name\":\"a b.bin\",\"content_type\":\"image/x-test\",\"size\":960000");
    ASSERT_HAS(a, hex);
    ASSERT_HAS(a, "Location: /v1/files/file_");
    rig_id(a, "file_", id);
    snprintf(path, sizeof path, "/v1/files/%s", id);
    ASSERT_HAS(rig_get(r, path), hex);
    snprintf(path, sizeof path, "/v1/files/%s/content", id);
    a = rig_get(r, path);
    ASSERT_STATUS(a, 200);
    ASSERT_HAS(a, "Content-Type: image/x-test");
    ASSERT_HAS(a, "attachment; filename=\"a b.bin\"");
    ASSERT_HAS(a, "nosniff");
    assert_memory_equal(rig_body(a), data.data, data.len);
    static const struct {
        const char *range;
        int status;
        size_t from, n;
    } ranges[] = {{"bytes=0-0", 206, 0, 1},
                  {"bytes=100-199", 206, 100, 100},
                  {"bytes=959990-", 206, 959990, 10},
                  {"bytes=-5", 206, 959995, 5},
                  {"bytes=0-99999999", 206, 0, 960000},
                  {"bytes=960000-", 416, 0, 0},
                  {"bytes=1-2,5-6", 200, 0, 960000},
                  {"lines=1-2", 200, 0, 960000}};
    for (size_t i = 0; i < ARRAY_LEN(ranges); i++) {
        char header[80];
        snprintf(header, sizeof header, "Range: %s\r\n", ranges[i].range);
        a = rig_call_with(r, "GET", path, header, NULL, 0);
        ASSERT_STATUS(a, ranges[i].status);
        if (ranges[i].status != 416)
            assert_memory_equal(rig_body(a), data.data + ranges[i].from, ranges[i].n);
    }
    char match[100];
    snprintf(match, sizeof match, "If-None-Match: \"%s\"\r\n", hex);
    ASSERT_STATUS(rig_call_with(r, "GET", path, match, NULL, 0), 304);
    a = rig_call_with(r, "HEAD", path, NULL, NULL, 0);
    ASSERT_HAS(a, "Content-Length: 960000");
    assert_string_equal(rig_body(a), "");
    snprintf(path, sizeof path, "/v1/files/%s", id);
    ASSERT_STATUS(rig_call_with(r, "DELETE", path, NULL, NULL, 0), 204);
    ASSERT_STATUS(rig_get(r, path), 404);
    assert_int_equal(contents_settle(r, 0), 0);
    buf_done(&data);
}

static void digests(void **state)
{
    Rig *r = *state;
    /* "hello": SHA-256 in base 64. */
    ASSERT_STATUS(
        rig_post(r, "/v1/files",
                 "Content-Digest: sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:\r\n",
                 "hello"),
        201);
    ASSERT_STATUS(rig_post(r, "/v1/files",
                           "Digest: SHA-256=LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=\r\n",
                           "hello"),
                  201);
    const char *a = rig_post(
        r, "/v1/files",
        "Content-Digest: sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:\r\n", "hellO");
    ASSERT_STATUS(a, 422);
    ASSERT_HAS(a, "not the one that was announced");
    ASSERT_HAS(a, "\"instance\":\"/v1/files\""); /* told when the request has long gone */
    ASSERT_STATUS(rig_post(r, "/v1/files", "Content-Digest: md5=:AAAA:\r\n", "hello"), 422);
    ASSERT_STATUS(rig_post(r, "/v1/files?sha256=zz", NULL, "hello"), 422);
    assert_int_equal(contents_settle(r, 2), 2);
    ASSERT_STATUS(rig_post(r, "/v1/files", NULL, NULL), 201); /* an empty one is one */
}

static void forms(void **state)
{
    Rig *r = *state;
#define FORM "Content-Type: multipart/form-data; boundary=\"b-1\"\r\n"
    const char *a = rig_post(
        r, "/v1/files", FORM,
        "--b-1\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\\\"y.png\"\r\n"
        "Content-Type: image/png\r\n\r\nab\r\n--b-\r\ncd\r\n--b-1--\r\n");
    ASSERT_STATUS(a, 201);
    ASSERT_HAS(a, "\"name\":\"x\\\"y.png\",\"content_type\":\"image/png\",\"size\":12");
    static const struct {
        const char *body;
        int status;
    } bad[] = {
        {"--b-2\r\n\r\n", 422},
        {"--b-1\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nx\r\n--b-1--\r\n", 422},
        {"--b-1\r\n\r\n\r\nx\r\n--b-1--", 422},
        {"--b-1\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nx", 400},
        {"--b-1--\r\n", 400},
        {"", 400},
        {"--b-1\r\nContent-Disposition: form-data; "
         "name=\"file\"\r\n\r\nx\r\n--b-1\r\nContent-Disposition: form-data; "
         "name=\"file\"\r\n\r\ny\r\n--b-1--\r\n",
         422},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        a = rig_post(r, "/v1/files", FORM, bad[i].body);
        if (rig_status(a) != bad[i].status) fail_msg("%zu: %s", i, a);
    }
    ASSERT_STATUS(rig_post(r, "/v1/files", "Content-Type: multipart/form-data\r\n", "x"), 400);
    assert_int_equal(contents_settle(r, 1), 1);
}

static void limits_and_broken_uploads(void **state)
{
    Rig *r = *state;
    Buf big = {0};
    memset(buf_extend(&big, 3 * MIB), 'x', 3 * MIB);
    ASSERT_STATUS(rig_call_with(r, "POST", "/v1/files", NULL, (char *)big.data, big.len), 413);
    /* Chunked, so that its length shows only as it comes. */
    int fd = rig_connect(r);
    Buf got = {0};
    rig_say(r, fd,
            "POST /v1/files HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
            "\r\n300000\r\n");
    (void)rig_send(r, fd, big.data, big.len);
    rig_recv(r, fd, NULL, &got);
    ASSERT_STATUS(buf_z(&got), 413);
    close(fd);
    /* The client leaves in the middle. */
    fd = rig_connect(r);
    rig_say(r, fd, "POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n\r\n");
    assert_true(rig_send(r, fd, big.data, 1000000));
    close(fd);
    for (int i = 0; i < 100; i++) {
        usleep(1000);
        rig_turn(r);
    }
    assert_int_equal(contents_settle(r, 0), 0);
    assert_true(gateway_idle(r->g));
    buf_done(&big);
    buf_done(&got);
}

static void large_inputs_become_files(void **state)
{
    Rig *r = *state;
    Buf body = {0};
    char id[40], path[100];
    buf_puts(&body, "{\"model\":\"echo\",\"input\":{\"a\":\"");
    memset(buf_extend(&body, 100000), 'x', 100000);
    buf_puts(&body, "\"}}");
    const char *key = JSON "Idempotency-Key: \"big\"\r\n";
    const char *a = rig_post(r, "/v1/tasks", key, buf_z(&body));
    ASSERT_STATUS(a, 202);
    rig_id(a, "task_", id);
    snprintf(path, sizeof path, "/v1/tasks/%s?include=input", id);
    ASSERT_HAS(rig_get(r, path), "\"input\":{\"$file\":\"file_");
    a = rig_post(r, "/v1/tasks", key, buf_z(&body));
    ASSERT_HAS(a, "Idempotent-Replayed: true");
    for (int i = 0; i < 50; i++) {
        usleep(1000);
        rig_turn(r);
    }
    assert_int_equal(contents_settle(r, 1), 1); /* the repeat's copy is gone */
    buf_done(&body);
}

static void workers_and_files(void **state)
{
    Rig *r = *state;
    char file[40], task[40], path[200], body[200];
    rig_id(rig_post(r, "/v1/files", NULL, "picture"), "file_", file);
    snprintf(path, sizeof path, "/v1/files/%s/content", file);
    ASSERT_STATUS(rig_call_with(r, "GET", path, AS_WORKER, NULL, 0),
                  404); /* no task of a worker refers to it */
    snprintf(body, sizeof body, "{\"model\":\"echo\",\"input\":[{\"$file\":\"%s\"}]}", file);
    rig_id(rig_post(r, "/v1/tasks", JSON, body), "task_", task);
    ASSERT_STATUS(rig_call_with(r, "GET", path, AS_WORKER, NULL, 0), 404);
    uint64_t token = rig_lease(r, task);
    const char *a = rig_call_with(r, "GET", path, AS_WORKER, NULL, 0);
    ASSERT_STATUS(a, 200);
    assert_string_equal(rig_body(a), "picture");
    snprintf(path, sizeof path, "/v1/files/%s/content?task=%s&token=%llu", file, task,
             (unsigned long long)token + 1);
    ASSERT_STATUS(rig_call_with(r, "GET", path, AS_WORKER, NULL, 0), 404);
    snprintf(path, sizeof path, "/v1/files/%s", file);
    ASSERT_STATUS(rig_call_with(r, "DELETE", path, NULL, NULL, 0),
                  409); /* a live task refers to it */
    /* A result's file. */
    snprintf(path, sizeof path, "/v1/files?task=%s&token=%llu&name=o.png", task,
             (unsigned long long)token);
    a = rig_post(r, path, AS_WORKER "Content-Type: image/png\r\n", "png");
    ASSERT_STATUS(a, 201);
    rig_id(a, "file_", file);
    assert_true(core_file_find(r->core, str_from(file), STR("default"))->owner_task != 0);
    ASSERT_STATUS(rig_post(r, "/v1/files", AS_WORKER, "x"), 422);
    snprintf(path, sizeof path, "/v1/files?task=%s&token=%llu", task,
             (unsigned long long)token + 1);
    ASSERT_STATUS(rig_post(r, path, AS_WORKER, "x"), 409);
    ASSERT_STATUS(rig_post(r, path, NULL, "x"), 403);
    rig_succeed(r, task, token, "1");
    snprintf(path, sizeof path, "/v1/files/%s/content", file);
    ASSERT_STATUS(rig_call_with(r, "GET", path, AS_WORKER, NULL, 0), 404); /* not any more */
}

static bool there(Rig *r, const char *name, bool make)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", r->dir, name);
    FILE *f = fopen(path, make ? "w" : "r");
    if (f) fclose(f);
    return f != NULL;
}

/* A start takes away what a crash left: what was not whole, and contents without a record, but for
 * those of the last day. */
static void a_start_sweeps(void **state)
{
    Rig *r = *state;
    char known[40], young[40],
        *names[] = {"file_00000000000000000000000000", young, "file_of_somebody_else", known,
                    "tmp/file_00000000000000000000000000"};
    rig_id(rig_post(r, "/v1/files", NULL, "hello"), "file_", known);
    memcpy(young, known, sizeof young);
    young[30] = young[30] == '0' ? '1' : '0';
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (names[i] != known) assert_true(there(r, names[i], true));
    Buf why = {0};
    Gateway *g;
    GatewayOptions o = r->o;
    o.listen = "nowhere"; /* it ends there, its sweep done */
    assert_true(gateway_open(&r->io, &o, &r->ports, &g, &why) < 0);
    buf_done(&why);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        assert_int_equal(there(r, names[i], false), i >= 1 && i <= 3);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(round_trip),
        T(digests),
        T(forms),
        T(limits_and_broken_uploads),
        T(large_inputs_become_files),
        T(workers_and_files),
        T(a_start_sweeps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
