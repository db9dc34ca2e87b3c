/* headrace submit: the body from options, an Idempotency-Key of its own so that a repeated attempt
 * never doubles the task, and on demand the wait for its end. */
#include "cli/client.h"
#include "cli/commands.h"

#include "io/clock.h"

#include <stdlib.h>
#include <string.h>

#define INPUT_MAX (64 * MIB)
#define TRIES     4

static const Option options[] = {
    {"input", 'i', "JSON|@FILE|-", "the model's input: JSON, a file of it, or stdin", NULL},
    {"set", 'S', "KEY=VALUE", "one member of the input; VALUE is JSON, else text", NULL},
    {"file", 'F', "KEY=FILE", "upload FILE; the input's member refers to it", NULL},
    {"wait", 'w', NULL, "follow the task until it has ended, print its output", NULL},
    {"output", 'o', "FILE", "wait, and write the output to FILE", NULL},
    {"timeout", 't', "TIME", "wait at most so long", NULL},
    {"priority", 'p', "PRIORITY", "critical, standard (default) or batch",
     "critical standard batch"},
    {"deadline", 0, "TIME", "not finished by then: expired; as 30s", NULL},
    {"delay", 0, "TIME", "do not start before, as 10m", NULL},
    {"max-attempts", 0, "N", "default 3", NULL},
    {"retention", 0, "TIME", "keep the finished task so long, as 24h", NULL},
    {"metadata", 0, "KEY=VALUE", "a note on the task, may be repeated", NULL},
    {"idempotency-key", 0, "KEY", "the same key never makes a second task", NULL},
};

typedef struct {
    yyjson_mut_doc *doc;
    yyjson_mut_val *root, *input;
} Body;

/* ---- the input ---- */

static int read_stream(FILE *f, const char *name, Buf *ret)
{
    size_t n;
    do {
        buf_reserve(ret, 64 * KIB);
        n = fread(ret->data + ret->len, 1, 64 * KIB, f);
        ret->len += n;
    } while (n && ret->len <= INPUT_MAX);
    if (ferror(f)) return fail(CLI_USAGE, "%s cannot be read: %m", name);
    if (ret->len > INPUT_MAX) return fail(CLI_USAGE, "%s is larger than 64 MiB", name);
    return CLI_OK;
}

static int read_source(const char *source, Buf *ret)
{
    if (!strcmp(source, "-") || !strcmp(source, "@-")) return read_stream(stdin, "stdin", ret);
    if (source[0] != '@') {
        buf_puts(ret, source);
        return CLI_OK;
    }
    FILE *f = fopen(source + 1, "rbe");
    if (!f) return fail(CLI_USAGE, "%s cannot be read: %m", source + 1);
    int status = read_stream(f, source + 1, ret);
    fclose(f);
    return status;
}

static int bad_json(const char *source, const Buf *text, const yyjson_read_err *e)
{
    size_t line = 1, column = 1;
    for (size_t i = 0; i < e->pos && i < text->len; i++) {
        column = text->data[i] == '\n' ? 1 : column + 1;
        line += text->data[i] == '\n';
    }
    const char *name = source[0] == '@' ? source + 1 : "--input";
    fail(CLI_USAGE, "%s is no valid JSON: %s, line %zu, column %zu", name, e->msg, line, column);
    if (source[0] != '@') hint("a file is given as -i @FILE, one member as --set KEY=VALUE");
    return CLI_USAGE;
}

static int read_input(const char *source, Body *b)
{
    Buf text = {0};
    int status = read_source(source, &text);
    if (status == CLI_OK) {
        yyjson_read_err e = {0};
        yyjson_doc *doc = yyjson_read_opts((char *)text.data, text.len, YYJSON_READ_NUMBER_AS_RAW,
                                           NULL, &e);
        if (doc)
            b->input = yyjson_val_mut_copy(b->doc, yyjson_doc_get_root(doc));
        else
            status = bad_json(source, &text, &e);
        yyjson_doc_free(doc);
    }
    buf_done(&text);
    return status;
}

/* "KEY=VALUE" in two; NULL: said. key is owned by the document. */
static const char *split_pair(Body *b, const char *option, const char *pair, const char **ret_key)
{
    const char *eq = strchr(pair, '=');
    if (!eq || eq == pair) {
        fail(CLI_USAGE, "--%s '%s' should be KEY=VALUE", option, pair);
        return NULL;
    }
    *ret_key = yyjson_mut_get_str(yyjson_mut_strncpy(b->doc, pair, (size_t)(eq - pair)));
    return eq + 1;
}

static yyjson_mut_val *json_or_text(Body *b, const char *value)
{
    yyjson_doc *doc = yyjson_read(value, strlen(value), YYJSON_READ_NUMBER_AS_RAW);
    yyjson_mut_val *v = doc ? yyjson_val_mut_copy(b->doc, yyjson_doc_get_root(doc))
                            : yyjson_mut_strcpy(b->doc, value);
    yyjson_doc_free(doc);
    return v;
}

static int add_file(const Client *c, Body *b, const char *pair)
{
    const char *key = NULL, *path = split_pair(b, "file", pair, &key);
    Buf json = {0};
    if (!path) return CLI_USAGE;
    int status = upload_file(c, path, &json);
    if (status == CLI_OK) {
        yyjson_doc *doc = yyjson_read((const char *)json.data, json.len, ANSWER_FLAGS);
        Str id = json_text(yyjson_doc_get_root(doc), "id");
        yyjson_mut_val *file = yyjson_mut_obj(b->doc);
        yyjson_mut_obj_add_strncpy(b->doc, file, "$file", id.p, id.n);
        yyjson_mut_obj_put(b->input, yyjson_mut_strcpy(b->doc, key), file);
        yyjson_doc_free(doc);
    }
    buf_done(&json);
    return status;
}

static int put_members(const Args *a, const Client *c, Body *b)
{
    for (size_t i = 0; i < a->given_len; i++) {
        const Given *g = &a->given[i];
        bool set = !strcmp(g->option->name, "set"), file = !strcmp(g->option->name, "file");
        if (!set && !file) continue;
        if (!yyjson_mut_is_obj(b->input))
            return fail(CLI_USAGE, "--%s needs an input that is a JSON object", g->option->name);
        if (file) {
            int status = add_file(c, b, g->value);
            if (status != CLI_OK) return status;
            continue;
        }
        const char *key = NULL, *value = split_pair(b, "set", g->value, &key);
        if (!value) return CLI_USAGE;
        yyjson_mut_obj_put(b->input, yyjson_mut_strcpy(b->doc, key), json_or_text(b, value));
    }
    return CLI_OK;
}

/* ---- the body ---- */

static int put_times(const Args *a, Body *b)
{
    static const char *const names[][2] = {
        {"deadline", "deadline_s"}, {"delay", "delay_s"}, {"retention", "retention_s"}};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        double s = 0;
        if (!args_has(a, names[i][0])) continue;
        int status = args_seconds(a, names[i][0], &s);
        if (status != CLI_OK) return status;
        if (s == (double)(int64_t)s)
            yyjson_mut_obj_add_int(b->doc, b->root, names[i][1], (int64_t)s);
        else
            yyjson_mut_obj_add_real(b->doc, b->root, names[i][1], s);
    }
    return CLI_OK;
}

static int put_metadata(const Args *a, Body *b)
{
    const char *pair = NULL, *key = NULL;
    yyjson_mut_val *metadata = NULL;
    for (size_t at = 0; (at = args_each(a, "metadata", at, &pair));) {
        const char *value = split_pair(b, "metadata", pair, &key);
        if (!value) return CLI_USAGE;
        if (!metadata) metadata = yyjson_mut_obj_add_obj(b->doc, b->root, "metadata");
        yyjson_mut_obj_put(metadata, yyjson_mut_strcpy(b->doc, key),
                           yyjson_mut_strcpy(b->doc, value));
    }
    return CLI_OK;
}

static int make_body(const Args *a, const Client *c, Body *b)
{
    uint64_t attempts = 0;
    const char *source = args_text(a, "input", NULL), *priority = args_text(a, "priority", NULL);
    b->doc = yyjson_mut_doc_new(NULL);
    b->root = yyjson_mut_obj(b->doc);
    b->input = yyjson_mut_obj(b->doc);
    yyjson_mut_doc_set_root(b->doc, b->root);
    if (!source && !args_has(a, "set") && !args_has(a, "file")) {
        fail(CLI_USAGE, "submit needs the model's input: -i JSON, or --set KEY=VALUE");
        hint("what a model takes: headrace models %s", a->words[0]);
        return CLI_USAGE;
    }
    int status = source ? read_input(source, b) : CLI_OK;
    if (status == CLI_OK) status = put_members(a, c, b);
    if (status == CLI_OK) status = args_u64(a, "max-attempts", 1, 1000, &attempts);
    if (status != CLI_OK) return status;
    yyjson_mut_obj_add_str(b->doc, b->root, "model", a->words[0]);
    yyjson_mut_obj_add_val(b->doc, b->root, "input", b->input);
    if (priority) yyjson_mut_obj_add_str(b->doc, b->root, "priority", priority);
    if (attempts) yyjson_mut_obj_add_uint(b->doc, b->root, "max_attempts", attempts);
    status = put_times(a, b);
    return status == CLI_OK ? put_metadata(a, b) : status;
}

/* As a quoted string of RFC 8941. */
static int make_key_header(const Args *a, Buf *ret)
{
    const char *key = args_text(a, "idempotency-key", NULL);
    buf_puts(ret, "Idempotency-Key: \"");
    if (key) {
        for (const char *p = key; *p; p++) {
            if (*p < ' ' || *p > '~')
                return fail(CLI_USAGE, "--idempotency-key takes plain ASCII characters only");
            if (*p == '"' || *p == '\\') buf_putc(ret, '\\');
            buf_putc(ret, *p);
        }
    } else {
        uint8_t chance[16];
        char text[26];
        random_secret(chance, sizeof chance);
        base32_put(text, chance);
        buf_puts(ret, "cli-");
        buf_put(ret, text, sizeof text);
    }
    buf_putc(ret, '"');
    return CLI_OK;
}

/* ---- afterwards ---- */

static int follow(const Args *a, const Client *c, const char *id)
{
    Buf json = {0};
    double timeout = 0;
    int status = args_seconds(a, "timeout", &timeout);
    Watch w = {.id = id, .timeout_ms = (int64_t)(timeout * 1000)};
    if (status == CLI_OK) status = task_follow(c, &w, &json);
    if (status == CLI_OK) {
        yyjson_doc *doc = yyjson_read((const char *)json.data, json.len, ANSWER_FLAGS);
        yyjson_val *task = yyjson_doc_get_root(doc);
        Buf took = {0};
        put_task_took(&took, task, 0);
        if (terminal()->err_tty && took.len && str_eqz(json_text(task, "status"), "succeeded"))
            hint("%s in %s", id, buf_z(&took));
        status = task_deliver(c, task, args_text(a, "output", NULL));
        buf_done(&took);
        yyjson_doc_free(doc);
    }
    buf_done(&json);
    return status;
}

static int take_answer(const Args *a, const Client *c, const HttpReply *r)
{
    int status = CLI_OK;
    yyjson_doc *doc = reply_json(c, r, &status);
    if (!doc) return status;
    yyjson_val *task = yyjson_doc_get_root(doc);
    Buf id = {0};
    put_clean(&id, json_text(task, "id"), false);
    if (args_has(a, "wait") || args_has(a, "output")) {
        status = follow(a, c, buf_z(&id));
    } else if (c->json) {
        print_json(buf_str(&r->body));
    } else {
        printf("%s\n", buf_z(&id));
        if (terminal()->out_tty) hint("follow it with: headrace wait %s", buf_z(&id));
    }
    buf_done(&id);
    yyjson_doc_free(doc);
    return status;
}

static int run(const Args *a)
{
    Client c = {0};
    Body b = {0};
    Buf key = {0};
    HttpReply r = {0};
    size_t len = 0;
    char *text = NULL;
    double timeout = 0;
    int status = args_seconds(a, "timeout", &timeout); /* before anything is done */
    if (status == CLI_OK) status = client_open(a, &c);
    if (status == CLI_OK) status = make_body(a, &c, &b);
    if (status == CLI_OK) status = make_key_header(a, &key);
    if (status == CLI_OK) {
        text = yyjson_mut_write(b.doc, 0, &len);
        CHECK(text);
        status = client_call(&c,
                             &(Call){.method = "POST",
                                     .path = "/v1/tasks",
                                     .tries = TRIES,
                                     .header = buf_z(&key),
                                     .body = {text, len}},
                             &r);
    }
    if (status == CLI_OK) status = take_answer(a, &c, &r);
    free(text);
    http_reply_done(&r);
    buf_done(&key);
    yyjson_mut_doc_free(b.doc);
    client_done(&c);
    return status;
}

const Command command_submit = {
    .name = "submit",
    .words = "MODEL[:VERSION]",
    .summary = "Submit a task; with --wait, follow it and print its output",
    .about = "Prints the task's id. The task is on disk before the server answers. A failed\n"
             "connection is tried again under the same Idempotency-Key, so the task is never\n"
             "doubled. With -o, files in the output are downloaded: one to FILE, several to\n"
             "FILE-1, FILE-2, …; an output without files is written as JSON.",
    .options = options,
    .options_len = ARRAY_LEN(options),
    .client = true,
    .words_min = 1,
    .words_max = 1,
    .examples = "  headrace submit echo -i '{\"hello\": \"world\"}' --wait\n"
                "  headrace submit fashion-diffusion --set prompt=\"a red sneaker\" -o sneaker.png",
    .run = run,
};
