/* headrace help [COMMAND]. */
#include "cli/commands.h"

#include <string.h>

static int run(const Args *a)
{
    if (a->words_len == 0) return help_print();
    const char *name = a->words[0];
    if (!strcmp(name, "exit-codes")) return help_exit_codes();
    const Command *c = command_find(name);
    if (!c) {
        fail(CLI_USAGE, "there is no command '%s'", name);
        hint("headrace help lists them");
        return CLI_USAGE;
    }
    command_print_help(c, stdout);
    return CLI_OK;
}

const Command command_help = {
    .name = "help",
    .words = "[COMMAND | exit-codes]",
    .summary = "Tell more about a command, or about exit statuses",
    .words_max = 1,
    .run = run,
};
