/* headrace retry: a new task of the same input. */
#include "cli/client.h"
#include "cli/commands.h"

static const Option options[] = {
    {"wait", 'w', NULL, "follow the new task until it has ended", NULL},
    {"output", 'o', "FILE", "with --wait: write its output to FILE", NULL},
};

static int follow(const Args *a, const Client *c, const char *id)
{
    Buf json = {0};
    int status = task_follow(c, &(Watch){.id = id}, &json);
    if (status == CLI_OK) {
        yyjson_doc *doc = yyjson_read((const char *)json.data, json.len, ANSWER_FLAGS);
        status = task_deliver(c, yyjson_doc_get_root(doc), args_text(a, "output", NULL));
        yyjson_doc_free(doc);
    }
    buf_done(&json);
    return status;
}

static int run(const Args *a)
{
    Client c = {0};
    Buf path = {0};
    HttpReply r = {0};
    yyjson_doc *doc = NULL;
    int status = client_open(a, &c);
    if (status != CLI_OK) return status;
    put_path(&path, "/v1/tasks/", a->words[0], "/retry");
    /* Once: a retry has no key that would keep a second try from making a second task. */
    status = client_call(
        &c, &(Call){.method = "POST", .path = buf_z(&path), .type = "application/json"}, &r);
    if (status == CLI_OK) doc = reply_json(&c, &r, &status);
    if (doc) {
        Buf id = {0};
        put_clean(&id, json_text(yyjson_doc_get_root(doc), "id"), false);
        const char *id_z = buf_z(&id);
        if (args_has(a, "wait"))
            status = follow(a, &c, id_z);
        else if (c.json)
            print_json(buf_str(&r.body));
        else
            printf("%s\n", id_z);
        buf_done(&id);
    }
    yyjson_doc_free(doc);
    http_reply_done(&r);
    buf_done(&path);
    client_done(&c);
    return status;
}

const Command command_retry = {
    .name = "retry",
    .words = "TASK",
    .summary = "Submit a finished task's input again, as a new task",
    .about = "The new task has the same input, options and metadata, and an id of its own,\n"
             "which is printed. The old one never changes.",
    .options = options,
    .options_len = ARRAY_LEN(options),
    .client = true,
    .words_min = 1,
    .words_max = 1,
    .examples = "  headrace retry task_01J…\n"
                "  headrace retry task_01J… --wait",
    .run = run,
};
