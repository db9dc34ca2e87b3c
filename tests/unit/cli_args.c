/* Reading options: every way to write them, and what is said about mistakes. */
#include "cli/cli.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const Option options[] = {
    {"input", 'i', "JSON", "", NULL},
    {"wait", 'w', NULL, "", NULL},
    {"limit", 'n', "N", "", NULL},
    {"models", 'm', "DIR", "", NULL},
};
static const Command command = {.name = "try",
                                .words = "WORD...",
                                .summary = "",
                                .options = options,
                                .options_len = ARRAY_LEN(options),
                                .client = true,
                                .words_min = 1,
                                .words_max = 2};
const Command *const commands[] = {&command, NULL};

/* What goes to stderr while `run` runs is in said afterwards. */
static char said[4096];

static int parse(Args *a, bool *help, const char *const *argv)
{
    int argc = 0, saved = dup(STDERR_FILENO);
    char *copy[16];
    FILE *to = tmpfile();
    for (; argv[argc]; argc++) copy[argc] = (char *)argv[argc];
    fflush(stderr);
    dup2(fileno(to), STDERR_FILENO);
    int status = args_parse(&command, argc, copy, a, help);
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    rewind(to);
    said[fread(said, 1, sizeof said - 1, to)] = 0;
    fclose(to);
    return status;
}

#define PARSE(a, help, ...) parse(a, help, (const char *const[]){__VA_ARGS__, NULL})

static void test_every_way(void **state)
{
    (void)state;
    Args a;
    bool help;
    assert_int_equal(
        PARSE(&a, &help, "--input=x=y", "-w", "word", "-n5", "--models", "a", "-m", "b"), CLI_OK);
    assert_false(help);
    assert_string_equal(args_text(&a, "input", NULL), "x=y");
    assert_true(args_has(&a, "wait"));
    assert_string_equal(args_text(&a, "limit", NULL), "5");
    assert_string_equal(args_text(&a, "models", NULL), "b"); /* the last one */
    assert_int_equal(a.words_len, 1);
    const char *value = NULL;
    size_t at = args_each(&a, "models", 0, &value);
    assert_string_equal(value, "a");
    at = args_each(&a, "models", at, &value);
    assert_string_equal(value, "b");
    assert_int_equal(args_each(&a, "models", at, &value), 0);
    args_done(&a);

    assert_int_equal(PARSE(&a, &help, "-wj", "--", "-i", "--wait"), CLI_OK);
    assert_true(args_has(&a, "json") && args_has(&a, "wait"));
    assert_int_equal(a.words_len, 2);
    assert_string_equal(a.words[0], "-i");
    args_done(&a);

    assert_int_equal(PARSE(&a, &help, "-i", "-", "-"), CLI_OK); /* a lone dash is a word */
    assert_string_equal(args_text(&a, "input", NULL), "-");
    assert_string_equal(a.words[0], "-");
    args_done(&a);
}

static void test_help_needs_nothing_else(void **state)
{
    (void)state;
    Args a;
    bool help = false;
    assert_int_equal(PARSE(&a, &help, "--help"), CLI_OK);
    assert_true(help);
    args_done(&a);
}

static void expect(const char *what, const char *const *argv)
{
    Args a;
    bool help;
    assert_int_equal(parse(&a, &help, argv), CLI_USAGE);
    if (!strstr(said, what)) fail_msg("'%s' is not in: %s", what, said);
    args_done(&a);
}

#define EXPECT(what, ...) expect(what, (const char *const[]){__VA_ARGS__, NULL})

static void test_mistakes(void **state)
{
    (void)state;
    EXPECT("try has no option --inpt; did you mean --input?", "w", "--inpt", "x");
    EXPECT("try has no option --servr; did you mean --server?", "w", "--servr=x");
    EXPECT("try has no option -x", "w", "-x");
    EXPECT("--input needs a value: --input JSON", "w", "--input");
    EXPECT("-i needs a value: -i JSON", "w", "-i");
    EXPECT("--wait takes no value", "w", "--wait=1");
    EXPECT("try needs WORD...", "--wait");
    EXPECT("'c' is too much", "a", "b", "c");
    EXPECT("has no option --\xef\xbf\xbd[2J", "w", "--\033[2J"); /* made harmless */
}

static void test_numbers_and_times(void **state)
{
    (void)state;
    Args a;
    bool help;
    uint64_t n = 7;
    double s = 0;
    assert_int_equal(PARSE(&a, &help, "w"), CLI_OK);
    assert_int_equal(args_u64(&a, "limit", 1, 10, &n), CLI_OK);
    assert_int_equal(n, 7); /* not given: untouched */
    args_done(&a);
    static const struct {
        const char *text;
        double s;
    } good[] = {{"30", 30}, {"1.5", 1.5}, {"5m", 300}, {"250ms", 0.25}, {"0", 0}};
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        assert_int_equal(PARSE(&a, &help, "w", "-n", good[i].text), CLI_OK);
        assert_int_equal(args_seconds(&a, "limit", &s), CLI_OK);
        assert_true(s == good[i].s);
        args_done(&a);
    }
    assert_int_equal(PARSE(&a, &help, "w", "-n", "soon"), CLI_OK);
    assert_int_equal(args_seconds(&a, "limit", &s), CLI_USAGE);
    assert_int_equal(args_u64(&a, "limit", 1, 10, &n), CLI_USAGE);
    args_done(&a);
    assert_int_equal(PARSE(&a, &help, "w", "-n", "11"), CLI_OK);
    assert_int_equal(args_u64(&a, "limit", 1, 10, &n), CLI_USAGE);
    args_done(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_way),
        cmocka_unit_test(test_help_needs_nothing_else),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_numbers_and_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
