/* headrace version. */
#include "cli/commands.h"

static int run(const Args *a)
{
    (void)a;
    puts("headrace " HR_VERSION);
    return CLI_OK;
}

const Command command_version = {
    .name = "version",
    .words = "",
    .summary = "Print the version",
    .run = run,
};
