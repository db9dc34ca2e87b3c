/* headrace drain, cordon, uncordon: orders to a worker. */
#include "cli/client.h"
#include "cli/commands.h"

static int run_drain(const Args *a)
{
    return client_order(a, &(Order){"POST", "/v1/workers/", "/drain",
                                    " drains: it finishes what it runs, then ends"});
}

static int run_cordon(const Args *a)
{
    return client_order(a, &(Order){"POST", "/v1/workers/", "/cordon", " gets no new tasks"});
}

static int run_uncordon(const Args *a)
{
    return client_order(a, &(Order){"POST", "/v1/workers/", "/uncordon", " gets tasks again"});
}

const Command command_drain = {
    .name = "drain",
    .words = "WORKER...",
    .summary = "Let workers finish what they run, then end",
    .about = "A worker that the server started itself is started again: that is how it takes\n"
             "up changed models. To keep one empty, cordon it. WORKER is an id of `headrace\n"
             "workers`.",
    .client = true,
    .words_min = 1,
    .words_max = ANY_WORDS,
    .examples = "  headrace workers\n"
                "  headrace drain worker_01J…",
    .run = run_drain,
};

const Command command_cordon = {
    .name = "cordon",
    .words = "WORKER...",
    .summary = "Give workers no new tasks",
    .about = "They finish what they run. It holds for a worker's name, over restarts, until\n"
             "`headrace uncordon`. WORKER is an id of `headrace workers`.",
    .client = true,
    .words_min = 1,
    .words_max = ANY_WORDS,
    .examples = "  headrace cordon worker_01J…\n"
                "  headrace uncordon worker_01J…",
    .run = run_cordon,
};

const Command command_uncordon = {
    .name = "uncordon",
    .words = "WORKER...",
    .summary = "Give workers tasks again",
    .client = true,
    .words_min = 1,
    .words_max = ANY_WORDS,
    .examples = "  headrace workers\n"
                "  headrace uncordon worker_01J…",
    .run = run_uncordon,
};
