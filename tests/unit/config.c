/* The configuration: defaults, every kind of value, errors that name file, line, key, remedy. */
#include "node/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define HASH   "7eb2b723615748d94a5c3ef2f7be3b926ef294de4e95fb864698749ddb2fba72"
#define HASH_2 "0eb2b723615748d94a5c3ef2f7be3b926ef294de4e95fb864698749ddb2fba72"

static int parse(const char *yaml, Config *c, Buf *why)
{
    buf_clear(why);
    return config_parse(str_from(yaml), "h.yaml", "/etc/hr", c, why);
}

/* The text has exactly this problem. */
static void expect_problem(const char *yaml, const char *problem)
{
    Config c;
    Buf why = {0}, want = {0};
    assert_int_equal(parse(yaml, &c, &why), ERR_INVALID);
    buf_printf(&want, "%s\n", problem);
    assert_string_equal(buf_z(&why), buf_z(&want));
    assert_null(c.listen); /* empty on failure */
    buf_done(&why);
    buf_done(&want);
}

static void expect_unfit(const char *yaml, const char *problem)
{
    Config c;
    Buf why = {0};
    assert_int_equal(parse(yaml, &c, &why), 0);
    assert_int_equal(config_check(&c, &why), ERR_INVALID);
    assert_non_null(strstr(buf_z(&why), problem));
    config_done(&c);
    buf_done(&why);
}

static void test_defaults(void **state)
{
    (void)state;
    Config c;
    Buf why = {0};
    config_defaults(&c);
    assert_string_equal(c.listen, "127.0.0.1:8700");
    assert_int_equal(c.limits.body_max, 8 * MIB);
    assert_int_equal(c.limits.file_max, GIB);
    assert_int_equal(c.timeouts.lease_s, 30);
    assert_int_equal(c.timeouts.header_ms, 10000);
    assert_int_equal(c.retention.file_s, 7 * 86400);
    assert_int_equal(c.log.segment_bytes, 64 * MIB);
    assert_int_equal(c.log.level, SAY_INFO);
    assert_int_equal(c.workers.devices, 1);
    assert_int_equal(c.retry.backoff_first_ms, 1000);
    assert_int_equal(c.keys_len, 0);
    assert_int_equal(config_check(&c, &why), 0);
    config_done(&c);
    config_done(&c); /* twice is fine */
    buf_done(&why);
}

static void test_data_dir_by_environment(void **state)
{
    (void)state;
    Config c;
    setenv("XDG_STATE_HOME", "/var/state", 1);
    config_defaults(&c);
    assert_string_equal(c.data_dir, "/var/state/headrace");
    config_done(&c);
    unsetenv("XDG_STATE_HOME");
    setenv("HOME", "/h", 1);
    config_defaults(&c);
    assert_string_equal(c.data_dir, "/h/.local/state/headrace");
    config_done(&c);
    unsetenv("HOME");
    config_defaults(&c);
    assert_string_equal(c.data_dir, "./data");
    config_done(&c);
}

static void test_whole_file(void **state)
{
    (void)state;
    Config c;
    Buf why = {0};
    assert_int_equal(parse("listen: '[::1]:0'\n"
                           "data: state\n"
                           "models: [a, /b]\n"
                           "insecure_http: true\n"
                           "limits: {body_max: 16MiB, submit_rate: 2.5, queue_max: 100}\n"
                           "timeouts:\n  idle: 1.5s\n  lease: 2m\n"
                           "log: {level: warn, format: json, segment_size: 1GiB}\n"
                           "workers:\n  devices: 0\n"
                           "keys:\n"
                           "  - name: ci\n    sha256: " HASH "\n    tenant: team-a\n"
                           "    scopes: [operate, worker]\n    expires: 2027-01-01T00:00:00Z\n"
                           "  - {name: web, sha256: " HASH_2 "}\n"
                           "tenants:\n  - {name: team-a, weight: 4}\n",
                           &c, &why),
                     0);
    assert_string_equal(c.listen, "[::1]:0");
    assert_string_equal(c.data_dir, "/etc/hr/state");
    assert_int_equal(c.models_len, 2);
    assert_string_equal(c.models[0], "/etc/hr/a");
    assert_string_equal(c.models[1], "/b");
    assert_true(c.insecure_http);
    assert_int_equal(c.limits.body_max, 16 * MIB);
    assert_true(c.limits.submit_rate == 2.5);
    assert_int_equal(c.timeouts.idle_ms, 1500);
    assert_int_equal(c.timeouts.lease_s, 120);
    assert_int_equal(c.log.level, SAY_WARN);
    assert_int_equal(c.log.format, SAY_JSON);
    assert_int_equal(c.workers.devices, 0);
    assert_int_equal(c.keys_len, 2);
    assert_string_equal(c.keys[0].tenant, "team-a");
    assert_int_equal(c.keys[0].scopes, SCOPE_OPERATE | SCOPE_WORKER);
    assert_int_equal(c.keys[0].sha256.b[0], 0x7e);
    assert_true(c.keys[0].expires_ns > 0);
    assert_string_equal(c.keys[1].tenant, "default");
    assert_int_equal(c.keys[1].scopes, SCOPE_SUBMIT | SCOPE_READ);
    assert_int_equal(c.tenants[0].weight, 4);
    config_done(&c);
    buf_done(&why);
}

static void test_nothing_in_it(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "# nothing\n", "---\n", "{}\n", "\n\n"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        Config c;
        Buf why = {0};
        assert_int_equal(parse(texts[i], &c, &why), 0);
        config_done(&c);
        buf_done(&why);
    }
}

static void test_problems_name_line_key_remedy(void **state)
{
    (void)state;
    expect_problem("# a\n\nlimits:\n  body_maxx: 3MiB\n",
                   "h.yaml:4: unknown key 'body_maxx' in limits; did you mean 'body_max'?");
    expect_problem("lisen: x\n", "h.yaml:1: unknown key 'lisen'; did you mean 'listen'?");
    expect_problem("\ndevices: 2\n", "h.yaml:2: unknown key 'devices'; it belongs under workers");
    expect_problem("limits: {body_max: 8 apples}\n",
                   "h.yaml:1: limits.body_max: '8 apples' is no size: write 64MiB, 1GiB or a "
                   "number of bytes");
    expect_problem("limits:\n  body_max: 3\n",
                   "h.yaml:2: limits.body_max: '3' is out of range: 64 KiB to 1.0 GiB");
    expect_problem("timeouts:\n  lease: 10\n",
                   "h.yaml:2: timeouts.lease: '10' is no duration: write a number and a unit: "
                   "500ms, 30s, 5m, 24h, 7d");
    expect_problem("timeouts: {lease: 1.5s}\n",
                   "h.yaml:1: timeouts.lease: '1.5s' is not a whole number of seconds");
    expect_problem("listen: 0.0.0.0\n",
                   "h.yaml:1: listen: '0.0.0.0' is no HOST:PORT (the port is missing): write "
                   "127.0.0.1:8700 or [::1]:8700");
    expect_problem("log: {level: loud}\n",
                   "h.yaml:1: log.level: 'loud' is none of debug, info, warn or error");
    expect_problem("insecure_http: yes\n",
                   "h.yaml:1: insecure_http: 'yes' is neither true nor false");
    expect_problem("listen:\n", "h.yaml:1: listen: has no value: write one, or remove the line; "
                                "the default is 127.0.0.1:8700");
    expect_problem("listen: 127.0.0.1:1\nlisten: 127.0.0.1:2\n",
                   "h.yaml:2: 'listen' is there already, on line 1: remove one");
    expect_problem("listen: [a]\n", "h.yaml:1: listen: is a list, but should be a single value");
    expect_problem("limits: 3\n", "h.yaml:1: limits: should have its keys below it, indented");
    expect_problem("a: [1\nb: 2\n", "h.yaml:2: no valid YAML: did not find expected ',' or ']' "
                                    "while parsing a flow sequence");
    expect_problem("listen: 127.0.0.1:1\n---\nlisten: 127.0.0.1:2\n",
                   "h.yaml:3: a second document ('---'): only one is read; join them");
    expect_problem("- listen\n", "h.yaml:1: should be keys and values ('listen: 127.0.0.1:8700'), "
                                 "not a list");
}

static void test_problems_of_keys(void **state)
{
    (void)state;
    expect_problem("keys:\n  - name: a\n    sha256: 12\n",
                   "h.yaml:3: keys.sha256: '12' is not 64 hexadecimal digits: headrace key new "
                   "prints them");
    expect_problem("keys:\n  - name: a\n    sha256: " HASH "\n    scopes: [reed]\n",
                   "h.yaml:4: keys.scopes: 'reed' is no scope; did you mean 'read'?");
    expect_problem("keys:\n  - name: a\n    sha256: " HASH "\n    scopes: []\n",
                   "h.yaml:4: keys.scopes: is empty: such a key could do nothing");
    expect_problem("keys:\n  - name: a\n    sha256: " HASH "\n  - name: a\n    sha256: " HASH_2
                   "\n",
                   "h.yaml:4: keys: the name 'a' is taken by an item above");
    expect_problem("keys:\n  - sha256: " HASH "\n",
                   "h.yaml:2: keys: 'name' is missing: What the key is for; unique.");
    expect_problem("keys: {name: a}\n",
                   "h.yaml:1: keys: a mapping, but should be a list: each item "
                   "begins with '- name: …'");
}

static void test_all_problems_are_listed(void **state)
{
    (void)state;
    Config c;
    Buf yaml = {0}, why = {0};
    for (int i = 0; i < 30; i++) buf_printf(&yaml, "what_%d: 1\n", i);
    assert_int_equal(config_parse(buf_str(&yaml), "f", NULL, &c, &why), ERR_INVALID);
    size_t lines = 0;
    for (size_t i = 0; i < why.len; i++) lines += why.data[i] == '\n';
    assert_int_equal(lines, CONFIG_PROBLEMS_MAX + 1);
    assert_non_null(strstr(buf_z(&why), "f:20: "));
    assert_non_null(strstr(buf_z(&why), "… and 10 more"));
    buf_done(&yaml);
    buf_done(&why);
}

static void test_values_are_harmless_in_messages(void **state)
{
    (void)state;
    expect_problem("listen: \"\\e[2Jx\"\n",
                   "h.yaml:1: listen: '?[2Jx' is no HOST:PORT (the port is "
                   "missing): write 127.0.0.1:8700 or [::1]:8700");
}

static void test_what_holds_between_keys(void **state)
{
    (void)state;
    expect_unfit("data: /tmp\nlisten: 0.0.0.0:8700\n",
                 "h.yaml:2: listen: 0.0.0.0:8700 needs at least one key under keys:");
    expect_unfit("listen: 10.0.0.1:8700\nkeys: [{name: a, sha256: " HASH "}]\n",
                 "h.yaml:1: listen: 10.0.0.1:8700 would take keys in clear text");
    expect_unfit("listen: 127.evil.example:1\n", "needs at least one key");
    expect_unfit("timeouts: {lease: 6s, ping: 4s}\n",
                 "h.yaml:1: timeouts.ping: 4 s is more than half of timeouts.lease (6 s)");
    expect_unfit("timeouts: {lease: 6s}\n", "timeouts.ping: 5 s is more than half");
    expect_unfit("retry: {backoff_first: 2m}\n", "retry.backoff_first: 120000 ms is longer");
    expect_unfit("models: /nowhere\n", "h.yaml:1: models: '/nowhere' is no folder");
    expect_unfit("keys: [{name: a, sha256: " HASH "}, {name: b, sha256: " HASH "}]\n",
                 "'a' and 'b' have the same sha256");
    Config c;
    Buf why = {0};
    assert_int_equal(parse("listen: 0.0.0.0:8700\ninsecure_http: true\n"
                           "keys: [{name: a, sha256: " HASH "}]\nmodels: []\n",
                           &c, &why),
                     0);
    assert_int_equal(config_check(&c, &why), 0);
    assert_int_equal(c.models_len, 0);
    config_done(&c);
    buf_done(&why);
}

static void test_options_go_over(void **state)
{
    (void)state;
    Config c;
    Buf why = {0};
    assert_int_equal(parse("listen: 0.0.0.0:8700\nmodels: [/x]\n", &c, &why), 0);
    assert_int_equal(config_set(&c, "listen", STR("[::1]:0"), true, "--listen", &why), 0);
    assert_int_equal(config_set(&c, "models", STR("/tmp"), true, "--models", &why), 0);
    assert_int_equal(config_set(&c, "models", STR("/"), false, "--models", &why), 0);
    assert_int_equal(config_set(&c, "models", STR("[]"), true, "--set", &why), 0);
    assert_int_equal(c.models_len, 0);
    assert_int_equal(config_set(&c, "models", STR("/tmp"), true, "--models", &why), 0);
    assert_int_equal(config_set(&c, "models", STR("/"), false, "--models", &why), 0);
    assert_int_equal(config_set(&c, "limits.body_max", STR("1MiB"), true, "--set", &why), 0);
    assert_int_equal(config_check(&c, &why), 0);
    assert_string_equal(c.listen, "[::1]:0");
    assert_int_equal(c.models_len, 2);
    assert_string_equal(c.models[0], "/tmp");
    assert_int_equal(c.limits.body_max, MIB);
    assert_int_equal(config_set(&c, "limits.body", STR("1"), true, "--set", &why), ERR_INVALID);
    assert_string_equal(buf_z(&why),
                        "--set: unknown key 'body' in limits; known are body_max, file_max, "
                        "connections_max, queue_max, tenant_queued_max, submit_rate, finished_max, "
                        "finished_bytes_max, payload_memory, idempotency_keys_max or "
                        "worker_losses_max\n");
    buf_clear(&why);
    assert_int_equal(config_set(&c, "keys", STR("1"), true, "--set", &why), ERR_INVALID);
    assert_string_equal(buf_z(&why), "--set: keys can be set in a file only\n");
    buf_clear(&why);
    assert_int_equal(config_set(&c, "listen", STR("1.2.3.4:5"), true, "--listen", &why), 0);
    assert_int_equal(config_check(&c, &why), ERR_INVALID);
    assert_int_equal(strncmp(buf_z(&why), "listen: 1.2.3.4:5 needs", 23),
                     0); /* no line of the file */
    config_done(&c);
    buf_done(&why);
}

static void test_sizes_and_durations(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes;
    } sizes[] = {{"0", 0},
                 {"4096", 4096},
                 {"64KiB", 65536},
                 {"1.5 MiB", 1572864},
                 {"1GB", 1000000000},
                 {"2G", 2147483648u},
                 {"12B", 12}};
    static const char *const bad_sizes[] = {"",      "-1",     "1e3",         "MiB",
                                            "1.MiB", "1 MiBs", "99999999TiB", "0x10"};
    static const struct {
        const char *text;
        int64_t ms;
    } times[] = {{"0", 0},       {"500ms", 500},    {"1.5s", 1500},
                 {"5m", 300000}, {"24h", 86400000}, {"7d", 604800000}};
    static const char *const bad_times[] = {"", "5", "s", "-1s", "1 month", "1s2"};
    uint64_t bytes = 0;
    int64_t ms = 0;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        assert_int_equal(config_parse_size(str_from(sizes[i].text), &bytes), 0);
        assert_int_equal(bytes, sizes[i].bytes);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad_sizes); i++)
        assert_true(config_parse_size(str_from(bad_sizes[i]), &bytes) < 0);
    for (size_t i = 0; i < ARRAY_LEN(times); i++) {
        assert_int_equal(config_parse_duration(str_from(times[i].text), &ms), 0);
        assert_int_equal(ms, times[i].ms);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad_times); i++)
        assert_true(config_parse_duration(str_from(bad_times[i]), &ms) < 0);
}

static void test_addresses(void **state)
{
    (void)state;
    static const char *const bad[] = {"",     ":1",       "a",     "a:",   "a:65536",
                                      "a:-1", "::1:8700", "a b:1", "[]:1", "[::1]"};
    Str host;
    uint16_t port = 0;
    assert_int_equal(config_split_listen(STR("[::1]:8700"), &host, &port), 0);
    assert_true(str_eqz(host, "::1") && port == 8700);
    assert_int_equal(config_split_listen(STR("gpu-1.example:0"), &host, &port), 0);
    assert_true(str_eqz(host, "gpu-1.example") && port == 0);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(config_split_listen(str_from(bad[i]), &host, &port), ERR_INVALID);
    assert_true(config_is_loopback(STR("127.0.0.2")) && config_is_loopback(STR("localhost")));
    assert_false(config_is_loopback(STR("0.0.0.0")) || config_is_loopback(STR("::")));
}

static void test_file_that_is_not_there(void **state)
{
    (void)state;
    Config c;
    Buf why = {0};
    assert_int_equal(config_load("/nowhere/h.yaml", &c, &why), ERR_NOT_FOUND);
    assert_string_equal(buf_z(&why),
                        "/nowhere/h.yaml: cannot be read: No such file or directory\n");
    buf_clear(&why);
    assert_int_equal(config_load("/", &c, &why), ERR_IO);
    buf_clear(&why);
    assert_int_equal(config_load("/dev/zero", &c, &why), ERR_LIMIT);
    buf_done(&why);
}

/* Every key of the table is in the reference, and docs/configuration.md is that reference. */
static void test_reference(void **state)
{
    (void)state;
    Buf ref = {0}, file = {0};
    config_reference(&ref);
    assert_non_null(strstr(buf_z(&ref), "| `body_max` | size, 64 KiB to 1.0 GiB | `8MiB` |"));
    assert_non_null(strstr(buf_z(&ref), "## tenants"));
    FILE *f = fopen(HR_SOURCE_DIR "/docs/configuration.md", "r");
    if (f) {
        uint8_t *at = buf_extend(&file, ref.len + 1);
        file.len = fread(at, 1, ref.len + 1, f);
        fclose(f);
        /* make it again: headrace serve --print-config-reference >docs/configuration.md */
        assert_string_equal(buf_z(&file), buf_z(&ref));
    }
    buf_done(&ref);
    buf_done(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_whole_file),
        cmocka_unit_test(test_nothing_in_it),
        cmocka_unit_test(test_problems_name_line_key_remedy),
        cmocka_unit_test(test_problems_of_keys),
        cmocka_unit_test(test_all_problems_are_listed),
        cmocka_unit_test(test_values_are_harmless_in_messages),
        cmocka_unit_test(test_what_holds_between_keys),
        cmocka_unit_test(test_options_go_over),
        cmocka_unit_test(test_sizes_and_durations),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_file_that_is_not_there),
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_data_dir_by_environment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
