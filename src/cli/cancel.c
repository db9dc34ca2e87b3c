/* headrace cancel. */
#include "cli/client.h"
#include "cli/commands.h"

static int cancel_one(const Client *c, const char *id)
{
    Buf path = {0};
    HttpReply r = {0};
    put_path(&path, "/v1/tasks/", id, "/cancel");
    int status = client_call(
        c, &(Call){.method = "POST", .path = buf_z(&path), .tries = 3, .type = "application/json"},
        &r);
    if (status == CLI_OK && c->json)
        print_json(buf_str(&r.body));
    else if (status == CLI_OK)
        printf("%s canceled\n", id);
    http_reply_done(&r);
    buf_done(&path);
    return status;
}

static int run(const Args *a)
{
    Client c = {0};
    int status = client_open(a, &c), worst = status;
    for (size_t i = 0; i < a->words_len && status != CLI_NO_SERVER && worst != CLI_USAGE; i++) {
        status = cancel_one(&c, a->words[i]);
        worst = MAX(worst, status);
    }
    client_done(&c);
    return worst;
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
