/* headrace pause, resume: orders about a model. */
#include "cli/client.h"
#include "cli/commands.h"

static int run_pause(const Args *a)
{
    return client_order(a, &(Order){"POST", "/v1/models/", "/pause",
                                    " is paused: what runs ends, what waits and comes is kept"});
}

static int run_resume(const Args *a)
{
    return client_order(a, &(Order){"POST", "/v1/models/", "/resume", " goes on"});
}

const Command command_pause = {
    .name = "pause",
    .words = "MODEL...",
    .summary = "Start no more tasks of models",
    .about = "Tasks are still accepted and wait. A pause outlives a restart of the server.",
    .client = true,
    .words_min = 1,
    .words_max = ANY_WORDS,
    .examples = "  headrace pause fashion-diffusion\n"
                "  headrace resume fashion-diffusion",
    .run = run_pause,
};

const Command command_resume = {
    .name = "resume",
    .words = "MODEL...",
    .summary = "Start tasks of models again",
    .client = true,
    .words_min = 1,
    .words_max = ANY_WORDS,
    .examples = "  headrace models\n"
                "  headrace resume fashion-diffusion",
    .run = run_resume,
};
