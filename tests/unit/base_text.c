/* base_text.c: numbers, times, names, digests and chance. Known values come from their standards.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"

/* ---- text ---- */

static void numbers_are_checked(void **state)
{
    (void)state;
    uint64_t u = 7;
    int64_t i = 7;
    assert_int_equal(parse_u64(STR("18446744073709551615"), &u), 0);
    assert_true(u == UINT64_MAX);
    assert_int_equal(parse_u64(STR("18446744073709551616"), &u), ERR_LIMIT);
    assert_true(u == UINT64_MAX); /* untouched on failure */
    assert_int_equal(parse_u64(STR("007"), &u), 0);
    assert_int_equal(u, 7);
    static const char *const bad[] = {"", " 1", "1 ", "+1", "-1", "0x1", "1.0", "1e3"};
    for (size_t k = 0; k < ARRAY_LEN(bad); k++)
        assert_int_equal(parse_u64(str_from(bad[k]), &u), ERR_INVALID);
    assert_int_equal(parse_i64(STR("-9223372036854775807"), &i), 0);
    assert_true(i == -INT64_MAX);
    assert_int_equal(parse_i64(STR("9223372036854775808"), &i), ERR_LIMIT);
    assert_int_equal(parse_i64(STR("-"), &i), ERR_INVALID);
    assert_int_equal(parse_i64(STR("--1"), &i), ERR_INVALID);
}

static void times_go_both_ways(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ns;
    } good[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"2026-11-22T14:47:50.123Z", INT64_C(1795358870123) * NS_PER_MS},
        {"2026-11-22T15:47:50.123+01:00", INT64_C(1795358870123) * NS_PER_MS},
        {"2026-11-22T09:17:50.123-05:30", INT64_C(1795358870123) * NS_PER_MS},
        {"2000-02-29T23:59:59.000000001Z", INT64_C(951868799) * NS_PER_S + 1},
    };
    for (size_t k = 0; k < ARRAY_LEN(good); k++) {
        int64_t ns = -1;
        assert_int_equal(parse_time(str_from(good[k].text), &ns), 0);
        assert_true(ns == good[k].ns);
    }
    static const char *const bad[] = {
        "",
        "2026-11-22",
        "2026-11-22T14:47:50",
        "2026-11-22 14:47:50Z",
        "2026-13-22T14:47:50Z",
        "2026-02-31T14:47:50Z",
        "2025-02-29T14:47:50Z",
        "2026-11-22T24:47:50Z",
        "2026-11-22T14:60:50Z",
        "2026-11-22T14:47:50.Z",
        "2026-11-22T14:47:50.1234567890Z",
        "2026-11-22T14:47:50+0100",
        "2026-11-22T14:47:50Zx",
        "x026-11-22T14:47:50Z",
    };
    int64_t ns = 5;
    for (size_t k = 0; k < ARRAY_LEN(bad); k++)
        if (parse_time(str_from(bad[k]), &ns) != ERR_INVALID) fail_msg("%s was taken", bad[k]);
    assert_true(ns == 5);

    Buf b = {0};
    Random r;
    random_seed(&r, 3);
    for (int k = 0; k < 1000; k++) {
        int64_t ms = (int64_t)random_below(&r, UINT64_C(4000000000000));
        buf_clear(&b);
        buf_put_time(&b, ms * NS_PER_MS + 999);
        assert_int_equal(parse_time(buf_str(&b), &ns), 0);
        assert_true(ns == ms * NS_PER_MS);
    }
    buf_done(&b);
}

static void sizes_and_durations_are_for_people(void **state)
{
    (void)state;
    static const struct {
        int64_t ns;
        const char *text;
    } d[] = {{340 * NS_PER_MS, "340 ms"},       {1200 * NS_PER_MS, "1.2 s"},
             {185 * NS_PER_S, "3 min 5 s"},     {130 * 60 * NS_PER_S, "2 h 10 min"},
             {50 * 3600 * NS_PER_S, "2 d 2 h"}, {-2 * NS_PER_S, "-2.0 s"}};
    static const struct {
        uint64_t n;
        const char *text;
    } s[] = {{0, "0 B"},
             {512, "512 B"},
             {1024, "1.0 KiB"},
             {31 * MIB, "31 MiB"},
             {5 * GIB / 2, "2.5 GiB"}};
    Buf b = {0};
    for (size_t k = 0; k < ARRAY_LEN(d); k++) {
        buf_clear(&b);
        buf_put_duration(&b, d[k].ns);
        assert_string_equal(buf_z(&b), d[k].text);
    }
    for (size_t k = 0; k < ARRAY_LEN(s); k++) {
        buf_clear(&b);
        buf_put_size(&b, s[k].n);
        assert_string_equal(buf_z(&b), s[k].text);
    }
    buf_done(&b);
}

static void base32_goes_both_ways(void **state)
{
    (void)state;
    uint8_t bytes[16], back[16];
    char text[27] = {0};
    memset(bytes, 0xff, sizeof bytes);
    base32_put(text, bytes);
    assert_string_equal(text, "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"); /* the ULID's largest */
    Random r;
    random_seed(&r, 4);
    for (int k = 0; k < 1000; k++) {
        for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)random_u64(&r);
        base32_put(text, bytes);
        assert_int_equal(base32_get((Str){text, 26}, back), 0);
        assert_memory_equal(bytes, back, sizeof bytes);
        for (int i = 0; i < 26; i++)
            if (text[i] >= 'A') text[i] = (char)(text[i] + 32);
        assert_int_equal(base32_get((Str){text, 26}, back), 0); /* lower case */
        assert_memory_equal(bytes, back, sizeof bytes);
    }
    assert_int_equal(base32_get(STR("8ZZZZZZZZZZZZZZZZZZZZZZZZZ"), back), ERR_INVALID);
    assert_int_equal(base32_get(STR("7ZZZZZZZZZZZZUZZZZZZZZZZZZ"), back), ERR_INVALID); /* no U */
    assert_int_equal(base32_get(STR("7ZZZ"), back), ERR_INVALID);
    assert_int_equal(base32_get((Str){"7ZZZZZZZZ\0ZZZZZZZZZZZZZZZZ", 26}, back), ERR_INVALID);
}

static void near_names_are_found(void **state)
{
    (void)state;
    static const char *const names[] = {"model", "input", "priority", "deadline", NULL};
    assert_string_equal(nearest_name(STR("modl"), names), "model");
    assert_string_equal(nearest_name(STR("priorty"), names), "priority");
    assert_string_equal(nearest_name(STR("dead_line"), names), "deadline");
    assert_null(nearest_name(STR("zzzzzz"), names));
    assert_null(nearest_name(STR(""), names));
    char longest[200];
    memset(longest, 'a', sizeof longest);
    assert_null(nearest_name((Str){longest, sizeof longest}, names));
}

static void utf8_is_checked(void **state)
{
    (void)state;
    static const struct {
        const char *p;
        bool valid;
    } cases[] = {
        {"", true},
        {"plain", true},
        {"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", true},
        {"\xc0\x80", false}, /* overlong */
        {"\xe0\x9f\xbf", false},
        {"\xf0\x8f\xbf\xbf", false},
        {"\xed\xa0\x80", false},     /* a surrogate */
        {"\xf4\x90\x80\x80", false}, /* above U+10FFFF */
        {"\xf4\x8f\xbf\xbf", true},
        {"\x80", false},
        {"\xe2\x82", false}, /* cut off */
        {"\xff", false},
        {"a\xc3(", false},
    };
    for (size_t k = 0; k < ARRAY_LEN(cases); k++)
        assert_int_equal(utf8_valid(cases[k].p, strlen(cases[k].p)), cases[k].valid);
    assert_true(utf8_valid("a\0b", 3));
}

static void strings_compare(void **state)
{
    (void)state;
    assert_true(str_eq(STR("ab"), STR("ab")));
    assert_false(str_eq(STR("ab"), STR("abc")));
    assert_true(str_eqz(STR(""), ""));
    assert_true(str_eq(str_from(NULL), STR("")));
    assert_true(str_cmp(STR("a"), STR("ab")) < 0);
    assert_true(str_cmp(STR("b"), STR("ab")) > 0);
    assert_int_equal(str_cmp(STR(""), STR("")), 0);
    assert_true(str_starts(STR("abc"), STR("ab")));
    assert_false(str_starts(STR("a"), STR("ab")));
    for (int err = 0; err >= ERR_PERMISSION; err--)
        assert_string_not_equal(err_text(err), "unknown error");
    assert_string_equal(err_text(-99), "unknown error");
}

/* ---- digests ---- */

static void crc32c_is_castagnolis(void **state)
{
    (void)state;
    uint8_t bytes[4096];
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283); /* RFC 3720 and its appendix B.4 */
    memset(bytes, 0, 32);
    assert_int_equal(crc32c(0, bytes, 32), 0x8a9136aa);
    memset(bytes, 0xff, 32);
    assert_int_equal(crc32c(0, bytes, 32), 0x62a8ab43);
    for (size_t i = 0; i < 32; i++) bytes[i] = (uint8_t)i;
    assert_int_equal(crc32c(0, bytes, 32), 0x46dd794e);
    assert_int_equal(crc32c(0, NULL, 0), 0);

    Random r;
    random_seed(&r, 5);
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)random_u64(&r);
    for (int k = 0; k < 500; k++) {
        size_t from = (size_t)random_below(&r, 64), n = (size_t)random_below(&r, sizeof bytes - 64);
        uint32_t slow = ~UINT32_C(0); /* bit by bit, from the definition */
        for (size_t i = from; i < from + n; i++) {
            slow ^= bytes[i];
            for (int bit = 0; bit < 8; bit++)
                slow = slow & 1 ? slow >> 1 ^ UINT32_C(0x82f63b78) : slow >> 1;
        }
        assert_int_equal(crc32c(0, bytes + from, n), ~slow);
        size_t cut = (size_t)random_below(&r, n + 1); /* in two parts */
        assert_int_equal(crc32c(crc32c(0, bytes + from, cut), bytes + from + cut, n - cut), ~slow);
    }
}

static void sha256_is_the_standards(void **state)
{
    (void)state;
    Sha256 d, e;
    char hex[65];
    sha256("abc", 3, &d); /* FIPS 180-4's example */
    sha256_hex(&d, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_int_equal(sha256_from_hex(str_from(hex), &e), 0);
    assert_true(bytes_eq_const_time(&d, &e, sizeof d));
    e.b[31] ^= 1;
    assert_false(bytes_eq_const_time(&d, &e, sizeof d));
    hex[5] = 'g';
    assert_int_equal(sha256_from_hex(str_from(hex), &e), ERR_INVALID);
    assert_int_equal(sha256_from_hex(STR("ba78"), &e), ERR_INVALID);
    Sha256Run *run = sha256_start();
    sha256_add(run, "a", 1);
    sha256_add(run, "bc", 2);
    sha256_end(run, &e);
    assert_memory_equal(&d, &e, sizeof d);
    sha256_end(sha256_start(), NULL);
}

static void digests_tell_bytes_apart(void **state)
{
    (void)state;
    uint8_t bytes[300] = {0};
    Digest128 before = digest128(bytes, sizeof bytes);
    uint64_t chain = chain64(1, bytes, sizeof bytes);
    assert_true(digest128_eq(before, digest128(bytes, sizeof bytes)));
    assert_true(chain != chain64(2, bytes, sizeof bytes));
    assert_true(chain != chain64(1, bytes, sizeof bytes - 1));
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = 1;
        assert_false(digest128_eq(before, digest128(bytes, sizeof bytes)));
        assert_true(chain != chain64(1, bytes, sizeof bytes));
        bytes[i] = 0;
    }
    assert_true(hash_bytes("a", 1) != hash_bytes("b", 1));
    assert_true(hash_u64(1) != hash_u64(2));
}

/* ---- chance ---- */

static void chance_is_repeatable_and_even(void **state)
{
    (void)state;
    Random a, b;
    random_seed(&a, 42);
    random_seed(&b, 42);
    for (int k = 0; k < 1000; k++) assert_true(random_u64(&a) == random_u64(&b));
    random_seed(&b, 43);
    assert_true(random_u64(&a) != random_u64(&b));
    int counts[10] = {0};
    double sum = 0;
    for (int k = 0; k < 100000; k++) {
        counts[random_below(&a, 10)]++;
        double u = random_unit(&a);
        assert_true(u >= 0 && u < 1);
        sum += u;
    }
    for (int k = 0; k < 10; k++) assert_in_range(counts[k], 9500, 10500);
    assert_true(sum > 49500 && sum < 50500);
    assert_int_equal(random_below(&a, 1), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_checked),
        cmocka_unit_test(times_go_both_ways),
        cmocka_unit_test(sizes_and_durations_are_for_people),
        cmocka_unit_test(base32_goes_both_ways),
        cmocka_unit_test(near_names_are_found),
        cmocka_unit_test(utf8_is_checked),
        cmocka_unit_test(strings_compare),
        cmocka_unit_test(crc32c_is_castagnolis),
        cmocka_unit_test(sha256_is_the_standards),
        cmocka_unit_test(digests_tell_bytes_apart),
        cmocka_unit_test(chance_is_repeatable_and_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
