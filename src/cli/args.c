/* Options: reading them, and help made from their tables. */
#include "cli/cli.h"

#include "node/config.h"

#include <string.h>

const Option client_options[] = {
    {"server", 's', "URL", "the server; else $HEADRACE_SERVER, else the one on this machine", NULL},
    {"key-file", 0, "FILE", "file with the API key; else $HEADRACE_API_KEY", NULL},
    {"data", 0, "DIR", "find the server by its data directory; else $HEADRACE_DATA", NULL},
    {"json", 'j', NULL, "print what the API answers, for programs", NULL},
};
const size_t client_options_len = ARRAY_LEN(client_options);

static const Option help_option = {"help", 'h', NULL, "this text", NULL};

const Option *command_option(const Command *c, size_t i)
{
    if (i < c->options_len) return &c->options[i];
    i -= c->options_len;
    if (c->client) {
        if (i < client_options_len) return &client_options[i];
        i -= client_options_len;
    }
    return i == 0 ? &help_option : NULL;
}

static const Option *option_find(const Command *c, Str name, char letter)
{
    const Option *o;
    for (size_t i = 0; (o = command_option(c, i)); i++)
        if (letter ? o->letter == letter : str_eqz(name, o->name)) return o;
    return NULL;
}

const Command *command_find(const char *name)
{
    for (size_t i = 0; commands[i]; i++)
        if (!strcmp(commands[i]->name, name)) return commands[i];
    return NULL;
}

static int unknown_option(const Command *c, Str name)
{
    const char *names[64];
    size_t n = 0;
    const Option *o;
    for (size_t i = 0; (o = command_option(c, i)) && n + 1 < ARRAY_LEN(names); i++)
        names[n++] = o->name;
    names[n] = NULL;
    const char *near = nearest_name(name, names);
    Buf clean = {0};
    put_clean(&clean, name, false);
    fail(CLI_USAGE, "%s has no option --%s%s%s%s", c->name, buf_z(&clean),
         near ? "; did you mean --" : "", near ? near : "", near ? "?" : "");
    buf_done(&clean);
    hint("headrace %s --help lists them", c->name);
    return CLI_USAGE;
}

static void add_given(Args *a, const Option *o, const char *value)
{
    a->given = mem_grow(a->given, (a->given_len + 1) * sizeof *a->given);
    a->given[a->given_len++] = (Given){o, value};
}

static void add_word(Args *a, const char *word)
{
    a->words = mem_grow(a->words, (a->words_len + 1) * sizeof *a->words);
    a->words[a->words_len++] = word;
}

/* --name, --name=value, --name value. *i moves behind what was used. */
static int parse_long(const Command *c, int argc, char *const *argv, int *i, Args *a)
{
    const char *arg = argv[*i] + 2, *eq = strchr(arg, '=');
    Str name = {arg, eq ? (size_t)(eq - arg) : strlen(arg)};
    const Option *o = option_find(c, name, 0);
    if (!o) return unknown_option(c, name);
    if (!o->value && eq) return fail(CLI_USAGE, "--%s takes no value", o->name);
    if (o->value && !eq && *i + 1 >= argc)
        return fail(CLI_USAGE, "--%s needs a value: --%s %s", o->name, o->name, o->value);
    add_given(a, o, !o->value ? "" : eq ? eq + 1 : argv[++*i]);
    return CLI_OK;
}

/* -j, -iVALUE, -i VALUE, -jw. */
static int parse_letters(const Command *c, int argc, char *const *argv, int *i, Args *a)
{
    for (const char *p = argv[*i] + 1; *p; p++) {
        const Option *o = option_find(c, (Str){0}, *p);
        if (!o) {
            bool printable = *p > ' ' && *p < 0x7f;
            fail(CLI_USAGE, "%s has no option -%c", c->name, printable ? *p : '?');
            hint("headrace %s --help lists them", c->name);
            return CLI_USAGE;
        }
        if (!o->value) {
            add_given(a, o, "");
            continue;
        }
        if (!p[1] && *i + 1 >= argc)
            return fail(CLI_USAGE, "-%c needs a value: -%c %s", *p, *p, o->value);
        add_given(a, o, p[1] ? p + 1 : argv[++*i]);
        break;
    }
    return CLI_OK;
}

static int check_words(const Command *c, const Args *a)
{
    if (a->words_len < c->words_min) {
        fail(CLI_USAGE, "%s needs %s", c->name, c->words);
        hint("headrace %s --help shows how", c->name);
        return CLI_USAGE;
    }
    if (a->words_len > c->words_max) {
        Buf clean = {0};
        put_clean(&clean, str_from(a->words[c->words_max]), false);
        fail(CLI_USAGE, "%s takes %s%s; '%s' is too much", c->name, c->words_max ? "only " : "no ",
             c->words_max ? c->words : "arguments", buf_z(&clean));
        buf_done(&clean);
        return CLI_USAGE;
    }
    return CLI_OK;
}

int args_parse(const Command *c, int argc, char *const *argv, Args *ret, bool *ret_help)
{
    Args a = {.command = c};
    int status = CLI_OK;
    bool only_words = false;
    for (int i = 0; i < argc && status == CLI_OK; i++) {
        const char *arg = argv[i];
        if (only_words || arg[0] != '-' || !arg[1])
            add_word(&a, arg);
        else if (!strcmp(arg, "--"))
            only_words = true;
        else if (arg[1] == '-')
            status = parse_long(c, argc, argv, &i, &a);
        else
            status = parse_letters(c, argc, argv, &i, &a);
    }
    *ret_help = args_has(&a, "help");
    if (status == CLI_OK && !*ret_help) status = check_words(c, &a);
    *ret = a;
    return status;
}

void args_done(Args *a)
{
    mem_free(a->words);
    mem_free(a->given);
    *a = (Args){0};
}

bool args_has(const Args *a, const char *name)
{
    return args_text(a, name, NULL) != NULL;
}

const char *args_text(const Args *a, const char *name, const char *otherwise)
{
    for (size_t i = a->given_len; i > 0; i--)
        if (!strcmp(a->given[i - 1].option->name, name)) return a->given[i - 1].value;
    return otherwise;
}

size_t args_each(const Args *a, const char *name, size_t from, const char **ret_value)
{
    for (size_t i = from; i < a->given_len; i++) {
        if (strcmp(a->given[i].option->name, name) != 0) continue;
        *ret_value = a->given[i].value;
        return i + 1;
    }
    return 0;
}

int args_u64(const Args *a, const char *name, uint64_t min, uint64_t max, uint64_t *ret)
{
    const char *text = args_text(a, name, NULL);
    uint64_t v = 0;
    if (!text) return CLI_OK;
    if (parse_u64(str_from(text), &v) || v < min || v > max)
        return fail(CLI_USAGE, "--%s '%s' should be a whole number from %llu to %llu", name, text,
                    (unsigned long long)min, (unsigned long long)max);
    *ret = v;
    return CLI_OK;
}

int args_seconds(const Args *a, const char *name, double *ret)
{
    const char *text = args_text(a, name, NULL);
    int64_t ms = 0;
    if (!text) return CLI_OK;
    Buf b = {0};
    buf_puts(&b, text);
    int err = config_parse_duration(buf_str(&b), &ms);
    if (err) { /* plain seconds */
        buf_putc(&b, 's');
        err = config_parse_duration(buf_str(&b), &ms);
    }
    buf_done(&b);
    if (err)
        return fail(CLI_USAGE, "--%s '%s' is no duration: write 30s, 5m, 24h or seconds", name,
                    text);
    *ret = (double)ms / 1000;
    return CLI_OK;
}

/* ---- help ---- */

static void put_option(FILE *to, const Option *o)
{
    char left[64];
    if (o->letter)
        snprintf(left, sizeof left, "-%c, --%s%s%s", o->letter, o->name, o->value ? " " : "",
                 o->value ? o->value : "");
    else
        snprintf(left, sizeof left, "    --%s%s%s", o->name, o->value ? " " : "",
                 o->value ? o->value : "");
    fprintf(to, "  %-26s %s\n", left, o->help);
}

void command_print_help(const Command *c, FILE *to)
{
    bool coloured = to == stdout ? terminal()->out_colour : terminal()->err_colour;
    const char *bold = tone_begin(coloured, TONE_BOLD), *plain = tone_end(coloured, TONE_BOLD);
    fprintf(to, "%sheadrace %s%s%s [options]%s%s\n\n%s.\n", bold, c->name, plain, "",
            *c->words ? " " : "", c->words, c->summary);
    if (c->about) fprintf(to, "\n%s\n", c->about);
    fprintf(to, "\n%sOptions%s\n", bold, plain);
    const Option *o;
    for (size_t i = 0; (o = command_option(c, i)); i++) put_option(to, o);
    if (c->examples) fprintf(to, "\n%sExamples%s\n%s\n", bold, plain, c->examples);
    fprintf(to, "\nExit status: headrace help exit-codes\n");
}

int help_print(void)
{
    bool coloured = terminal()->out_colour;
    const char *bold = tone_begin(coloured, TONE_BOLD), *plain = tone_end(coloured, TONE_BOLD);
    printf("%sheadrace%s: a durable queue and scheduler before your models\n\n"
           "  headrace COMMAND [options] …\n\n",
           bold, plain);
    for (size_t i = 0; commands[i]; i++)
        printf("  %-12s %s\n", commands[i]->name, commands[i]->summary);
    printf("\n%sFirst steps%s\n"
           "  headrace serve --models examples/models &\n"
           "  headrace submit echo -i '{\"hello\": \"world\"}' --wait\n\n"
           "headrace help COMMAND tells more; headrace help exit-codes the exit statuses.\n",
           bold, plain);
    return CLI_OK;
}

int help_exit_codes(void)
{
    puts("Exit statuses, the same for every command:\n\n"
         "    0  done; with a task: it succeeded\n"
         "    1  the task failed, was canceled or has expired; the log is damaged\n"
         "    2  the command line or the configuration is wrong\n"
         "    3  no server answers\n"
         "    4  the server refused (an answer 4xx: unknown task, bad input, no permission, …)\n"
         "    5  the server failed (an answer 5xx)\n"
         "    6  the time to wait is over and the task is not finished\n"
         "  130  interrupted with Ctrl-C; a task that was waited for goes on");
    return CLI_OK;
}
