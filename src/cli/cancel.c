/* headrace cancel. */
#include "cli/client.h"
#include "cli/commands.h"

static int run(const Args *a)
{
    return client_order(a, &(Order){"POST", "/v1/tasks/", "/cancel", " canceled"});
}

const Command command_cancel = {
    .name = "cancel",
    .words = "TASK...",
    .summary = "Cancel tasks, queued or running",
    .about = "A queued one is canceled at once; of a running one the worker is told, and its\n"
             "result no longer counts. A task that has ended stays as it is: exit status 4.",
    .client = true,
    .words_min = 1,
    .words_max = ANY_WORDS,
    .examples = "  headrace cancel task_01J…\n"
                "  headrace cancel $(headrace tasks --status queued --model sdxl --quiet)",
    .run = run,
};
