/* headrace delete. */
#include "cli/client.h"
#include "cli/commands.h"

static int run(const Args *a)
{
    return client_order(a, &(Order){"DELETE", "/v1/tasks/", "", ": input and output deleted"});
}

const Command command_delete = {
    .name = "delete",
    .words = "TASK...",
    .summary = "Forget the input and output of finished tasks",
    .about = "What is left says that the task was, and how it ended. Cancel one that has not\n"
             "ended. A retry needs the input: it is refused afterwards.",
    .client = true,
    .words_min = 1,
    .words_max = ANY_WORDS,
    .examples = "  headrace delete task_01J…\n"
                "  headrace delete $(headrace tasks --status failed --quiet)",
    .run = run,
};
