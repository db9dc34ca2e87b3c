/* gateway_auth.c: keys, scopes, expiry, tenants that do not see one another, rates. */
#include "gateway_rig.h"

static GatewayKey keys[6];

static void add_key(size_t i, const char *text, const char *tenant, uint32_t scopes)
{
    memset(&keys[i], 0, sizeof keys[i]);
    sha256(text, strlen(text), &keys[i].sha256);
    snprintf(keys[i].tenant, sizeof keys[i].tenant, "%s", tenant);
    keys[i].scopes = scopes;
}

#define BEARER(k) "Authorization: Bearer " k "\r\n"

static int setup(void **state)
{
    Rig *r = mem_new(sizeof *r);
    rig_options(r);
    add_key(0, "hr_live_a", "a", SCOPE_SUBMIT | SCOPE_READ);
    add_key(1, "hr_live_b", "b", SCOPE_SUBMIT | SCOPE_READ);
    add_key(2, "hr_live_read", "a", SCOPE_READ);
    add_key(3, "hr_live_admin", "ops", SCOPE_ADMIN);
    add_key(4, "hr_live_old", "a", SCOPE_READ);
    add_key(5, "hr_live_operate", "a", SCOPE_OPERATE);
    keys[4].expires_ns = r->now_ns - 1;
    r->o.keys = keys;
    r->o.keys_len = ARRAY_LEN(keys);
    r->o.tenant_rate = 1000;
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

static const char *get_as(Rig *r, const char *key, const char *path)
{
    return rig_call_with(r, "GET", path, key, NULL, 0);
}

static void keys_are_needed(void **state)
{
    Rig *r = *state;
    const char *a = rig_get(r, "/v1/tasks");
    ASSERT_STATUS(a, 401);
    ASSERT_HAS(a, "WWW-Authenticate: Bearer");
    ASSERT_STATUS(get_as(r, BEARER("hr_live_x"), "/v1/tasks"), 401);
    ASSERT_STATUS(get_as(r, "Authorization: Basic aGk6aG8=\r\n", "/v1/tasks"), 401);
    ASSERT_STATUS(get_as(r, "Authorization: Bearer\r\n", "/v1/tasks"), 401);
    a = get_as(r, BEARER("hr_live_old"), "/v1/tasks");
    ASSERT_STATUS(a, 401);
    ASSERT_HAS(a, "expired");
    ASSERT_STATUS(get_as(r, BEARER("hr_live_a"), "/v1/tasks"), 200);
    ASSERT_STATUS(get_as(r, BEARER(WORKER_KEY), "/v1/tasks"), 403);
    /* Open ones. */
    static const char *const open_to_all[] = {"/livez", "/readyz", "/startupz", "/openapi.json",
                                              "/"};
    for (size_t i = 0; i < ARRAY_LEN(open_to_all); i++)
        ASSERT_STATUS(rig_get(r, open_to_all[i]), 200);
    ASSERT_STATUS(rig_get(r, "/metrics"), 401);
}

static void scopes(void **state)
{
    Rig *r = *state;
    const char *body = "{\"model\":\"echo\",\"input\":1}";
    const char *a = rig_post(r, "/v1/tasks", JSON BEARER("hr_live_read"), body);
    ASSERT_STATUS(a, 403);
    ASSERT_HAS(a, "lacks the scope submit");
    ASSERT_STATUS(rig_post(r, "/v1/tasks", JSON BEARER("hr_live_a"), body), 202);
    ASSERT_STATUS(rig_post(r, "/v1/models/echo/pause", BEARER("hr_live_a"), NULL), 403);
    a = rig_post(r, "/v1/models/echo/pause", BEARER("hr_live_operate"), NULL);
    ASSERT_STATUS(a, 200);
    ASSERT_HAS(a, "\"paused\":true");
    ASSERT_STATUS(rig_post(r, "/v1/models/echo/resume", BEARER("hr_live_admin"), NULL), 200);
    ASSERT_STATUS(rig_post(r, "/v1/models/none/resume", BEARER("hr_live_admin"), NULL), 404);
    ASSERT_STATUS(rig_post(r, "/v1/workers/" WORKER "/cordon", BEARER("hr_live_operate"), NULL),
                  200);
    assert_string_equal(r->last_order, "cordon");
    ASSERT_STATUS(rig_post(r, "/v1/workers/none/drain", BEARER("hr_live_operate"), NULL), 404);
    /* Not even an admin is a worker. */
    ASSERT_STATUS(rig_post(r, "/v1/worker/register", JSON BEARER("hr_live_admin"), "{}"), 403);
}

static void tenants_do_not_see_one_another(void **state)
{
    Rig *r = *state;
    char id[40], path[120], file[40], body[200];
    rig_id(rig_post(r, "/v1/tasks", JSON BEARER("hr_live_a"), "{\"model\":\"echo\",\"input\":1}"),
           "task_", id);
    static const char *const tails[] = {"", "/events", "/logs"};
    for (size_t i = 0; i < ARRAY_LEN(tails); i++) {
        snprintf(path, sizeof path, "/v1/tasks/%s%s", id, tails[i]);
        ASSERT_STATUS(get_as(r, BEARER("hr_live_b"), path), 404);
    }
    snprintf(path, sizeof path, "/v1/tasks/%s/cancel", id);
    ASSERT_STATUS(rig_post(r, path, BEARER("hr_live_b"), NULL), 404);
    snprintf(path, sizeof path, "/v1/tasks/%s", id);
    ASSERT_STATUS(get_as(r, BEARER("hr_live_admin"), path), 200);
    ASSERT_STATUS(get_as(r, BEARER("hr_live_a"), path), 200);
    assert_null(strstr(get_as(r, BEARER("hr_live_b"), "/v1/tasks"), id));
    ASSERT_HAS(get_as(r, BEARER("hr_live_a"), "/v1/tasks"), id);
    ASSERT_HAS(get_as(r, BEARER("hr_live_admin"), "/v1/tasks"), id);
    ASSERT_HAS(get_as(r, BEARER("hr_live_admin"), "/v1/tasks?tenant=a"), id);
    ASSERT_STATUS(get_as(r, BEARER("hr_live_b"), "/v1/tasks?tenant=a"), 403);
    assert_null(strstr(get_as(r, BEARER("hr_live_b"), "/v1/tenants"), "\"a\""));
    ASSERT_HAS(get_as(r, BEARER("hr_live_admin"), "/v1/tenants"), "\"name\":\"a\"");
    rig_id(rig_post(r, "/v1/files", BEARER("hr_live_a"), "x"), "file_", file);
    snprintf(path, sizeof path, "/v1/files/%s/content", file);
    ASSERT_STATUS(get_as(r, BEARER("hr_live_b"), path), 404);
    ASSERT_STATUS(get_as(r, BEARER("hr_live_a"), path), 200);
    snprintf(body, sizeof body, "{\"model\":\"echo\",\"input\":{\"$file\":\"%s\"}}", file);
    ASSERT_STATUS(rig_post(r, "/v1/tasks", JSON BEARER("hr_live_b"), body), 422);
    ASSERT_STATUS(rig_post(r, "/v1/tasks", JSON BEARER("hr_live_a"), body), 202);
    /* The same idempotency key of two tenants is two keys. */
    const char *one = "{\"model\":\"echo\",\"input\":1}";
    ASSERT_STATUS(
        rig_post(r, "/v1/tasks", JSON "Idempotency-Key: \"k\"\r\n" BEARER("hr_live_a"), one), 202);
    assert_null(
        strstr(rig_post(r, "/v1/tasks", JSON "Idempotency-Key: \"k\"\r\n" BEARER("hr_live_b"), one),
               "Replayed"));
}

static void rates(void **state)
{
    Rig *r = *state;
    const char *body = "{\"model\":\"echo\",\"input\":1}";
    r->o.tenant_rate = 1000;
    const char *a = rig_post(r, "/v1/tasks", JSON BEARER("hr_live_a"), body);
    ASSERT_HAS(a, "RateLimit-Policy: \"tenant\";q=1000;w=1");
    ASSERT_HAS(a, "RateLimit: \"tenant\";r=999;t=0");
    Buf lines = {0};
    for (int i = 0; i < 1100; i++) buf_printf(&lines, "%s\n", body);
    a = rig_post(r, "/v1/tasks:batch", NDJSON BEARER("hr_live_a"),
                 buf_z(&lines)); /* the clock stands still */
    ASSERT_HAS(a, "rate_limited");
    a = rig_post(r, "/v1/tasks", JSON BEARER("hr_live_a"), body);
    ASSERT_STATUS(a, 429);
    ASSERT_HAS(a, "Retry-After: 1");
    ASSERT_STATUS(rig_post(r, "/v1/tasks", JSON BEARER("hr_live_b"), body), 202);
    r->now_ns += NS_PER_S;
    ASSERT_STATUS(rig_post(r, "/v1/tasks", JSON BEARER("hr_live_a"), body), 202);
    buf_done(&lines);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {T(keys_are_needed), T(scopes),
                                       T(tenants_do_not_see_one_another), T(rates)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
