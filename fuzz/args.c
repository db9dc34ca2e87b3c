/* Any words as a command line: the first byte chooses the command, NUL parts the words. */
#include "cli/commands.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

const Command *const commands[] = {&command_submit, &command_tasks, &command_serve,
                                   &command_worker, &command_get,   &command_bench,
                                   &command_key,    &command_log,   NULL};
enum { COMMANDS = sizeof commands / sizeof commands[0] - 1, WORDS_MAX = 32 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static FILE *nowhere;
    if (size < 1 || size > 4096) return 0;
    if (!nowhere) nowhere = fopen("/dev/null", "we");
    FILE *was = stderr;
    CHECK(nowhere);
    stderr = nowhere; /* what it says about each of a million lines */
    const Command *c = commands[data[0] % COMMANDS];
    char *text = mem_dup(data + 1, size - 1), *words[WORDS_MAX];
    int n = 0;
    for (char *p = text; p < text + size - 1 && n < WORDS_MAX; p += strlen(p) + 1) words[n++] = p;
    Args a = {0};
    bool help = false;
    int status = args_parse(c, n, words, &a, &help);
    CHECK(status == CLI_OK || status == CLI_USAGE);
    CHECK(a.words_len + a.given_len <= (size_t)size);
    if (status == CLI_OK && !help) {
        CHECK(a.words_len >= c->words_min && a.words_len <= c->words_max);
        for (size_t i = 0; i < a.given_len; i++) {
            const Given *g = &a.given[i];
            uint64_t u = 5;
            double s = 1;
            CHECK(args_has(&a, g->option->name) && args_text(&a, g->option->name, NULL));
            if (args_u64(&a, g->option->name, 1, 1000, &u) == CLI_OK) CHECK(u >= 1 && u <= 1000);
            if (args_seconds(&a, g->option->name, &s) == CLI_OK) CHECK(s >= 0);
        }
    }
    args_done(&a);
    mem_free(text);
    stderr = was;
    return 0;
}
