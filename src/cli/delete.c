/* headrace delete. */
#include "cli/client.h"
#include "cli/commands.h"

static int delete_one(const Client *c, const char *id)
{
    Buf path = {0};
    HttpReply r = {0};
    put_path(&path, "/v1/tasks/", id, "");
    int status = client_call(c, &(Call){.method = "DELETE", .path = buf_z(&path), .tries = 3}, &r);
    if (status == CLI_OK && c->json && r.body.len)
        print_json(buf_str(&r.body));
    else if (status == CLI_OK && !c->json)
        printf("%s: input and output deleted\n", id);
    http_reply_done(&r);
    buf_done(&path);
    return status;
}

static int run(const Args *a)
{
    Client c = {0};
    int status = client_open(a, &c), worst = status;
    for (size_t i = 0; i < a->words_len && status != CLI_NO_SERVER && worst != CLI_USAGE; i++) {
        status = delete_one(&c, a->words[i]);
        worst = MAX(worst, status);
    }
    client_done(&c);
    return worst;
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
