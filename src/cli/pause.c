/* headrace pause, resume: orders about a model. */
#include "cli/client.h"
#include "cli/commands.h"

static int order(const Args *a, const char *what, const char *done)
{
    Client c = {0};
    int status = client_open(a, &c), worst = status;
    for (size_t i = 0; i < a->words_len && status != CLI_NO_SERVER && worst != CLI_USAGE; i++) {
        Buf path = {0};
        HttpReply r = {0};
        put_path(&path, "/v1/models/", a->words[i], what);
        status = client_call(
            &c,
            &(Call){.method = "POST", .path = buf_z(&path), .tries = 3, .type = "application/json"},
            &r);
        if (status == CLI_OK && c.json)
            print_json(buf_str(&r.body));
        else if (status == CLI_OK)
            printf("%s %s\n", a->words[i], done);
        worst = MAX(worst, status);
        http_reply_done(&r);
        buf_done(&path);
    }
    client_done(&c);
    return worst;
}

static int run_pause(const Args *a)
{
    return order(a, "/pause", "is paused: what runs ends, what waits and comes is kept");
}

static int run_resume(const Args *a)
{
    return order(a, "/resume", "goes on");
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
