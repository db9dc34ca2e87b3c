/* headrace files: payloads. */
#include "cli/client.h"
#include "cli/commands.h"

#include <string.h>

static const Option options[] = {
    {"output", 'o', "FILE", "get: write to FILE; default: the file's own name", NULL},
};

static const char *type_of(const char *path)
{
    static const char *const types[][2] = {
        {".png", "image/png"},   {".jpg", "image/jpeg"},        {".jpeg", "image/jpeg"},
        {".wav", "audio/wav"},   {".json", "application/json"}, {".txt", "text/plain"},
        {".webp", "image/webp"},
    };
    const char *dot = strrchr(path, '.');
    for (size_t i = 0; dot && i < ARRAY_LEN(types); i++)
        if (!strcmp(dot, types[i][0])) return types[i][1];
    return "application/octet-stream";
}

int upload_file(const Client *c, const char *path, Buf *ret_json)
{
    Buf url = {0};
    HttpReply r = {0};
    const char *headers[4], *slash = strrchr(path, '/');
    client_headers(c, NULL, headers);
    buf_printf(&url, "%s/v1/files?name=", c->url);
    http_url_escape(&url, str_from(slash ? slash + 1 : path));
    int status = CLI_OK, err = http_upload_file(buf_z(&url), headers, path, type_of(path), &r);
    if (err == ERR_IO || err == ERR_NOT_FOUND || err == ERR_PERMISSION)
        status = fail(CLI_USAGE, "%s", r.error[0] ? r.error : err_text(err));
    else if (err || r.status / 100 != 2)
        status = client_explain(c, err, &r);
    if (status == CLI_OK) buf_put_str(ret_json, buf_str(&r.body));
    http_reply_done(&r);
    buf_done(&url);
    return status;
}

static int put_files(const Args *a, const Client *c)
{
    int status = CLI_OK;
    for (size_t i = 1; i < a->words_len && status == CLI_OK; i++) {
        Buf json = {0};
        status = upload_file(c, a->words[i], &json);
        yyjson_doc *doc = yyjson_read((const char *)json.data, json.len, ANSWER_FLAGS);
        if (status == CLI_OK && c->json) {
            print_json(buf_str(&json));
        } else if (status == CLI_OK) {
            Buf id = {0};
            put_clean(&id, json_text(yyjson_doc_get_root(doc), "id"), false);
            printf("%s\n", buf_z(&id));
            buf_done(&id);
        }
        yyjson_doc_free(doc);
        buf_done(&json);
    }
    return status;
}

/* The name it was uploaded with, without any folder; the id when it has none. */
static void put_local_name(Buf *b, const char *id, yyjson_val *file)
{
    Str name = json_text(file, "name");
    for (size_t i = name.n; i > 0; i--)
        if (name.p[i - 1] == '/') {
            name = (Str){name.p + i, name.n - i};
            break;
        }
    bool usable = name.n && name.n < 200 && name.p[0] != '.' && !memchr(name.p, 0, name.n);
    if (usable)
        put_clean(b, name, false);
    else
        buf_puts(b, id);
}

static int get_file(const Args *a, const Client *c)
{
    const char *id = a->words[1], *given = args_text(a, "output", NULL), *headers[4];
    Buf path = {0}, url = {0}, to = {0};
    HttpReply r = {0};
    yyjson_doc *doc = NULL;
    put_path(&path, "/v1/files/", id, "");
    int status = client_call(c, &(Call){.method = "GET", .path = buf_z(&path)}, &r);
    if (status == CLI_OK && c->json)
        print_json(buf_str(&r.body));
    else if (status == CLI_OK && (doc = reply_json(c, &r, &status))) {
        if (given)
            buf_puts(&to, given);
        else
            put_local_name(&to, id, yyjson_doc_get_root(doc));
        http_reply_done(&r);
        buf_printf(&url, "%s%s/content", c->url, buf_z(&path));
        client_headers(c, NULL, headers);
        int err = http_download(buf_z(&url), headers, buf_z(&to), &r);
        if (err == ERR_IO || err == ERR_NOSPC || err == ERR_PERMISSION)
            status = fail(CLI_FAILED, "%s", r.error[0] ? r.error : err_text(err));
        else if (err || r.status / 100 != 2)
            status = client_explain(c, err, &r);
        if (status == CLI_OK) fprintf(stderr, "wrote %s\n", buf_z(&to));
    }
    yyjson_doc_free(doc);
    http_reply_done(&r);
    buf_done(&path);
    buf_done(&url);
    buf_done(&to);
    return status;
}

static int remove_files(const Args *a, const Client *c)
{
    int worst = CLI_OK;
    for (size_t i = 1; i < a->words_len && worst != CLI_NO_SERVER; i++) {
        Buf path = {0};
        HttpReply r = {0};
        put_path(&path, "/v1/files/", a->words[i], "");
        int status = client_call(c, &(Call){.method = "DELETE", .path = buf_z(&path)}, &r);
        if (status == CLI_OK) printf("%s deleted\n", a->words[i]);
        worst = MAX(worst, status);
        http_reply_done(&r);
        buf_done(&path);
    }
    return worst;
}

static int run(const Args *a)
{
    static const char *const verbs[] = {"put", "get", "rm", NULL};
    Client c = {0};
    const char *verb = a->words[0];
    int which = 0;
    while (verbs[which] && strcmp(verb, verbs[which]) != 0) which++;
    if (!verbs[which]) return fail(CLI_USAGE, "files takes put, get or rm, not '%s'", verb);
    if (which == 1 && a->words_len > 2) return fail(CLI_USAGE, "files get takes one file");
    int status = client_open(a, &c);
    if (status == CLI_OK)
        status = which == 0 ? put_files(a, &c) : which == 1 ? get_file(a, &c) : remove_files(a, &c);
    client_done(&c);
    return status;
}

const Command command_files = {
    .name = "files",
    .words = "put|get|rm FILE...",
    .summary = "Upload a file (prints its id), download or delete one",
    .about = "An input refers to a file as {\"$file\": \"file_…\"}; `headrace submit --file` does\n"
             "both at once. A file that no task refers to goes after retention.file (7 days).",
    .options = options,
    .options_len = ARRAY_LEN(options),
    .client = true,
    .words_min = 2,
    .words_max = ANY_WORDS,
    .examples = "  headrace files put photo.png\n"
                "  headrace files get file_01J… -o picture.png\n"
                "  headrace files rm file_01J…",
    .run = run,
};
