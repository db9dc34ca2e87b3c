/* headrace wait: follows tasks until they have ended. */
#include "cli/client.h"
#include "cli/commands.h"

static const Option options[] = {
    {"timeout", 't', "TIME", "wait at most so long, as 30s; default: for ever", NULL},
    {"output", 'o', "FILE", "write the output to FILE (one task only)", NULL},
};

static int wait_one(const Client *c, const char *id, const char *label, int64_t timeout_ms,
                    const char *file)
{
    Buf json = {0};
    Watch w = {.id = id, .label = label, .timeout_ms = timeout_ms};
    int status = task_follow(c, &w, &json);
    if (status == CLI_OK) {
        yyjson_doc *doc = yyjson_read((const char *)json.data, json.len, ANSWER_FLAGS);
        status = task_deliver(c, yyjson_doc_get_root(doc), file);
        yyjson_doc_free(doc);
    }
    buf_done(&json);
    return status;
}

static int run(const Args *a)
{
    Client c = {0};
    double timeout = 0;
    int worst = CLI_OK;
    const char *file = args_text(a, "output", NULL);
    if (file && a->words_len > 1) return fail(CLI_USAGE, "--output takes one task only");
    int status = args_seconds(a, "timeout", &timeout);
    if (status == CLI_OK) status = client_open(a, &c);
    if (status != CLI_OK) return status;
    int64_t end_ns = boot_now_ns() + (int64_t)(timeout * 1e9);
    for (size_t i = 0; i < a->words_len; i++) {
        char label[64] = "";
        if (a->words_len > 1) snprintf(label, sizeof label, "[%zu/%zu]", i + 1, a->words_len);
        int64_t left_ms = timeout > 0 ? MAX((end_ns - boot_now_ns()) / NS_PER_MS, 1) : 0;
        status = wait_one(&c, a->words[i], label[0] ? label : NULL, left_ms, file);
        worst = MAX(worst, status);
        if (status == CLI_INTERRUPTED || status == CLI_NO_SERVER) break;
    }
    client_done(&c);
    return worst;
}

const Command command_wait = {
    .name = "wait",
    .words = "TASK...",
    .summary = "Follow tasks until they have ended, and print their outputs",
    .about = "Outputs go to stdout in the order of the tasks, a JSON text each. Ctrl-C stops the\n"
             "waiting, not the task. With several tasks the exit status is the highest one.",
    .options = options,
    .options_len = ARRAY_LEN(options),
    .client = true,
    .words_min = 1,
    .words_max = ANY_WORDS,
    .examples = "  headrace wait task_01J… --timeout 5m\n"
                "  headrace wait $(headrace tasks --status running --quiet)",
    .run = run,
};
