/* headrace warm: an order about a model. */
#include "cli/client.h"
#include "cli/commands.h"

#include <string.h>

static int run(const Args *a)
{
    Client c = {0};
    Buf path = {0}, body = {0};
    HttpReply r = {0};
    uint64_t n = 0;
    bool by_model = !strcmp(a->words[1], "default");
    if (!by_model && (parse_u64(str_from(a->words[1]), &n) != 0 || n > 64))
        return fail(CLI_USAGE, "the number of devices is 0 to 64, or default; not '%s'",
                    a->words[1]);
    int status = client_open(a, &c);
    if (status != CLI_OK) return status;
    put_path(&path, "/v1/models/", a->words[0], "/warm");
    buf_printf(&body, by_model ? "{\"replicas\":null}" : "{\"replicas\":%llu}",
               (unsigned long long)n);
    status = client_call(&c,
                         &(Call){.method = "POST",
                                 .path = buf_z(&path),
                                 .body = buf_str(&body),
                                 .tries = 3,
                                 .type = "application/json"},
                         &r);
    if (status == CLI_OK && c.json)
        print_json(buf_str(&r.body));
    else if (status == CLI_OK && by_model)
        printf("%s is kept loaded as its model.yaml says\n", a->words[0]);
    else if (status == CLI_OK)
        printf("%s is kept loaded on %llu device%s, as far as memory allows\n", a->words[0],
               (unsigned long long)n, n == 1 ? "" : "s");
    http_reply_done(&r);
    buf_done(&path);
    buf_done(&body);
    client_done(&c);
    return status;
}

const Command command_warm = {
    .name = "warm",
    .words = "MODEL DEVICES",
    .summary = "Keep a model loaded on so many devices, ahead of demand",
    .about = "DEVICES is 0 to 64, or `default`: what min_warm in its model.yaml says. The order\n"
             "outlives a restart of the server. `headrace models MODEL` says what became of it.",
    .client = true,
    .words_min = 2,
    .words_max = 2,
    .examples = "  headrace warm fashion-diffusion 1\n"
                "  headrace warm fashion-diffusion default",
    .run = run,
};
