/* What is printed: harmless text, tables, progress. */
#include "cli/cli.h"

#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

const Command *const commands[] = {NULL};

static void expect_clean(const char *in, const char *out, bool lines)
{
    Buf b = {0};
    put_clean(&b, str_from(in), lines);
    assert_string_equal(buf_z(&b), out);
    buf_done(&b);
}

#define BAD "\xef\xbf\xbd"

static void test_text_is_harmless(void **state)
{
    (void)state;
    expect_clean("plain “text” ✓", "plain “text” ✓", false);
    expect_clean("a\033[31mb\007", "a" BAD "[31mb" BAD, false);
    expect_clean("a\nb\tc\r", "a b c" BAD, false);
    expect_clean("a\nb\tc", "a\nb\tc", true);
    expect_clean("\xc2\x9b"
                 "2J",
                 BAD "2J", true); /* CSI as one C1 character */
    expect_clean("a\xe2\x80\xae"
                 "b",
                 "a" BAD "b", true); /* right-to-left override */
    expect_clean("a\xff"
                 "b\xc3",
                 "a" BAD "b" BAD, true);             /* not UTF-8 */
    expect_clean("\xed\xa0\x80", BAD BAD BAD, true); /* a surrogate */
}

static const GridColumn columns[] = {
    {"NAME", false, true}, {"N", true, false}, {"TEXT", false, true}};

static void expect_grid(int width, const char *out)
{
    Grid g;
    Buf b = {0};
    grid_init(&g, columns, ARRAY_LEN(columns));
    grid_cell(&g, TONE_RED, STR("a"));
    grid_cellf(&g, TONE_PLAIN, "%d", 7);
    grid_cell(&g, TONE_PLAIN, STR("größer"));
    grid_cell(&g, TONE_PLAIN, STR("bcd"));
    grid_cellf(&g, TONE_PLAIN, "%d", 1234);
    grid_cell(&g, TONE_PLAIN, STR("a long text of 28 characters"));
    grid_put(&g, width, false, &b);
    assert_string_equal(buf_z(&b), out);
    buf_done(&b);
    grid_done(&g);
}

static void test_table(void **state)
{
    (void)state;
    expect_grid(0, "NAME     N  TEXT\n"
                   "a        7  größer\n"
                   "bcd   1234  a long text of 28 characters\n");
    expect_grid(30, "NAME     N  TEXT\n"
                    "a        7  größer\n"
                    "bcd   1234  a long text of 28…\n");
    expect_grid(3, "NAME     N  TEXT\n" /* no narrower than this */
                   "a        7  größer\n"
                   "bcd   1234  a long …\n");
}

static void test_empty_columns_are_left_out(void **state)
{
    (void)state;
    Grid g;
    Buf b = {0};
    grid_init(&g, columns, ARRAY_LEN(columns));
    grid_put(&g, 0, false, &b);
    assert_string_equal(buf_z(&b), "NAME  N  TEXT\n");
    buf_clear(&b);
    for (int i = 0; i < 2; i++) {
        grid_cell(&g, TONE_PLAIN, STR("a"));
        grid_cell(&g, TONE_PLAIN, STR(""));
        grid_cell(&g, TONE_PLAIN, i ? STR("b") : STR(""));
    }
    grid_put(&g, 0, false, &b);
    assert_string_equal(buf_z(&b), "NAME  TEXT\na\na     b\n");
    buf_done(&b);
    grid_done(&g);
}

static void test_table_colours_and_width(void **state)
{
    (void)state;
    Grid g;
    Buf b = {0};
    grid_init(&g, columns, 2);
    grid_cell(&g, TONE_GREEN, STR("日本"));
    grid_cell(&g, TONE_PLAIN, STR("1"));
    grid_put(&g, 0, true, &b);
    assert_string_equal(buf_z(&b), "\033[2mNAME\033[0m  \033[2mN\033[0m\n\033[32m日本\033[0m  1\n");
    buf_done(&b);
    grid_done(&g);
    assert_int_equal(text_width(STR("日本")), 4);
    assert_int_equal(text_width(STR("größer")), 6);
}

static void expect_progress(const Progress *p, int64_t now, int width, bool utf8, const char *out)
{
    Buf b = {0};
    progress_put(p, now, width, utf8, &b);
    assert_string_equal(buf_z(&b), out);
    buf_done(&b);
}

static void test_progress(void **state)
{
    (void)state;
    Progress p;
    int64_t s = NS_PER_S;
    progress_init(&p, NULL, true, 0);
    p.ahead = 3;
    expect_progress(&p, 2 * s, 80, true, "⠋ queued, 3 ahead  2.0 s");
    expect_progress(&p, 2 * s, 80, false, "| queued, 3 ahead  2.0 s");
    progress_status(&p, STR("running"));
    progress_step(&p, 0, 10, 2 * s);
    progress_step(&p, 5, 10, 4 * s);
    expect_progress(&p, 4 * s, 50, true, "█████····· step 5/10  4.0 s, 2 s left");
    expect_progress(&p, 4 * s, 50, false, "[#####.....] step 5/10  4.0 s, 2 s left");
    expect_progress(&p, 4 * s, 20, true, "step 5/10  4.0 s, 2 s left"); /* no room for a bar */
    p.live = false;
    expect_progress(&p, 4 * s, 0, true, "running, step 5/10");
    progress_status(&p, STR("queued")); /* again: another attempt */
    expect_progress(&p, 4 * s, 0, true, "queued");
    buf_done(&p.status);
}

static void test_ages(void **state)
{
    (void)state;
    static const struct {
        int64_t s;
        const char *text;
    } ages[] = {{0, "0 s"},      {59, "59 s"},       {60, "1 min"}, {7199, "1 h"},
                {86400, "24 h"}, {3 * 86400, "3 d"}, {-5, "0 s"}};
    for (size_t i = 0; i < ARRAY_LEN(ages); i++) {
        Buf b = {0};
        put_age(&b, ages[i].s * NS_PER_S);
        assert_string_equal(buf_z(&b), ages[i].text);
        buf_done(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_is_harmless),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_empty_columns_are_left_out),
        cmocka_unit_test(test_table_colours_and_width),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_ages),
    };
    setlocale(LC_CTYPE, "C.UTF-8");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
