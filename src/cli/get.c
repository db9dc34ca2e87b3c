/* headrace get. */
#include "cli/client.h"
#include "cli/commands.h"

static const Option options[] = {
    {"output", 'o', "FILE", "write the output to FILE: its files, else its JSON", NULL},
    {"input", 0, NULL, "show the input too", NULL},
    {"logs", 0, NULL, "show what the model printed instead", NULL},
};

static int print_logs(const Client *c, const char *id)
{
    Buf path = {0}, clean = {0};
    HttpReply r = {0};
    put_path(&path, "/v1/tasks/", id, "/logs");
    int status = client_call(c, &(Call){.method = "GET", .path = buf_z(&path)}, &r);
    if (status == CLI_OK && terminal()->out_tty)
        put_clean(&clean, buf_str(&r.body), true);
    else if (status == CLI_OK)
        buf_put_str(&clean, buf_str(&r.body));
    if (clean.len && clean.data[clean.len - 1] != '\n') buf_putc(&clean, '\n');
    out_buf(&clean);
    http_reply_done(&r);
    buf_done(&path);
    buf_done(&clean);
    return status;
}

static int print_task(const Args *a, const Client *c)
{
    Buf path = {0};
    HttpReply r = {0};
    const char *file = args_text(a, "output", NULL);
    yyjson_doc *doc = NULL;
    put_path(&path, "/v1/tasks/", a->words[0], args_has(a, "input") ? "?include=input" : "");
    int status = client_call(c, &(Call){.method = "GET", .path = buf_z(&path)}, &r);
    if (status == CLI_OK && c->json && !file) {
        print_json(buf_str(&r.body));
    } else if (status == CLI_OK && (doc = reply_json(c, &r, &status))) {
        if (file)
            status = task_deliver(c, yyjson_doc_get_root(doc), file);
        else
            task_print(yyjson_doc_get_root(doc));
    }
    yyjson_doc_free(doc);
    http_reply_done(&r);
    buf_done(&path);
    return status;
}

static int run(const Args *a)
{
    Client c = {0};
    int status = client_open(a, &c);
    if (status != CLI_OK) return status;
    status = args_has(a, "logs") ? print_logs(&c, a->words[0]) : print_task(a, &c);
    client_done(&c);
    return status;
}

const Command command_get = {
    .name = "get",
    .words = "TASK",
    .summary = "Show a task: its state, times, output or error",
    .options = options,
    .options_len = ARRAY_LEN(options),
    .client = true,
    .words_min = 1,
    .words_max = 1,
    .examples = "  headrace get task_01J…\n"
                "  headrace get task_01J… -o picture.png",
    .run = run,
};
