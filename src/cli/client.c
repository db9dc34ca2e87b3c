/* Finding the server, calling it, and saying what its answers mean. */
#include "cli/client.h"

#include "io/clock.h"
#include "node/config.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DEFAULT_URL      "http://127.0.0.1:8700"
#define CALL_TIMEOUT_MS  30000
#define PROBE_TIMEOUT_MS 1000

/* ---- where ---- */

static char *tidy_url(const char *text)
{
    Buf b = {0};
    if (!strstr(text, "://")) buf_puts(&b, "http://");
    buf_puts(&b, text);
    while (b.len && b.data[b.len - 1] == '/') b.len--;
    char *ret = mem_dup(b.data, b.len);
    buf_done(&b);
    return ret;
}

static bool read_line(const char *path, char *ret, size_t cap)
{
    FILE *f = fopen(path, "re");
    bool ok = f && fgets(ret, (int)cap, f);
    if (ok) ret[strcspn(ret, "\r\n")] = 0;
    if (f) fclose(f);
    return ok && ret[0];
}

static bool answers(const char *url)
{
    Buf live = {0};
    HttpReply r = {0};
    buf_printf(&live, "%s/livez", url);
    bool ok = http_call("GET", buf_z(&live), NULL, (Str){0}, PROBE_TIMEOUT_MS, &r) == 0;
    http_reply_done(&r);
    buf_done(&live);
    return ok;
}

/* The server of a data directory, from its file `endpoint`; NULL when there is none. */
static char *url_of_data_dir(const char *dir)
{
    Buf path = {0};
    char line[512];
    buf_printf(&path, "%s/endpoint", dir);
    char *ret = read_line(buf_z(&path), line, sizeof line) ? tidy_url(line) : NULL;
    buf_done(&path);
    return ret;
}

static char *guess_url(void)
{
    Config defaults;
    config_defaults(&defaults);
    char *url = url_of_data_dir(defaults.data_dir);
    config_done(&defaults);
    if (url && answers(url)) return url;
    mem_free(url);
    return tidy_url(DEFAULT_URL);
}

static int find_server(const Args *a, Client *c)
{
    const char *data = args_text(a, "data", NULL), *url = args_text(a, "server", NULL);
    if (!url && !data) url = getenv("HEADRACE_SERVER");
    if (!data) data = getenv("HEADRACE_DATA");
    c->given = true;
    if (url && *url) {
        c->url = tidy_url(url);
    } else if (data && *data) {
        c->url = url_of_data_dir(data);
        if (!c->url) {
            fail(CLI_NO_SERVER, "no server runs on %s (it has no file 'endpoint')", data);
            hint("start one with: headrace serve --data %s", data);
            return CLI_NO_SERVER;
        }
    } else {
        c->url = guess_url();
        c->given = false;
    }
    return CLI_OK;
}

static int find_key(const Args *a, Client *c)
{
    char line[512];
    const char *file = args_text(a, "key-file", NULL), *key = getenv("HEADRACE_API_KEY");
    if (file) {
        if (!read_line(file, line, sizeof line))
            return fail(CLI_USAGE, "--key-file %s: no key can be read from it", file);
        key = line;
    }
    if (!key || !*key) return CLI_OK;
    for (const char *p = key; *p; p++)
        if (*p <= ' ' || *p > '~')
            return fail(CLI_USAGE, "the API key from %s has a blank or control character in it",
                        file ? file : "$HEADRACE_API_KEY");
    Buf b = {0};
    buf_printf(&b, "Authorization: Bearer %s", key);
    c->authorization = mem_dup(b.data, b.len);
    buf_done(&b);
    return CLI_OK;
}

int client_open(const Args *a, Client *ret)
{
    Client c = {.json = args_has(a, "json")};
    int status = find_server(a, &c);
    if (status == CLI_OK) status = find_key(a, &c);
    if (status != CLI_OK) client_done(&c);
    *ret = c;
    return status;
}

void client_done(Client *c)
{
    mem_free(c->url);
    mem_free(c->authorization);
    *c = (Client){0};
}

/* ---- calling ---- */

void client_headers(const Client *c, const char *extra, const char *ret[4])
{
    size_t n = 0;
    if (c->authorization) ret[n++] = c->authorization;
    if (extra) ret[n++] = extra;
    ret[n] = NULL;
}

void put_path(Buf *b, const char *prefix, const char *id, const char *suffix)
{
    buf_puts(b, prefix);
    http_url_escape(b, str_from(id));
    buf_puts(b, suffix);
}

static int explain_silence(const Client *c, int err, const HttpReply *r)
{
    if (err == ERR_TIMEOUT) return fail(CLI_NO_SERVER, "%s does not answer in time", c->url);
    if (err == ERR_INVALID) return fail(CLI_USAGE, "'%s' is no address of a server", c->url);
    if (err != ERR_CLOSED) return fail(CLI_FAILED, "%s", r->error[0] ? r->error : err_text(err));
    bool refused = strstr(r->error, "onnect") != NULL; /* what everybody understands without */
    fail(CLI_NO_SERVER, "no server at %s%s%s", c->url, refused ? "" : ": ",
         refused ? "" : r->error);
    if (c->given)
        hint("start one with: headrace serve");
    else
        hint("start one with: headrace serve; or name one with --server URL or $HEADRACE_SERVER");
    return CLI_NO_SERVER;
}

static int explain_problem(const Client *c, const HttpReply *r, yyjson_val *problem)
{
    int status = r->status >= 500 ? CLI_SERVER : CLI_REFUSED;
    Str detail = json_text(problem, "detail"), code = json_text(problem, "code");
    if (!detail.n) detail = json_text(problem, "title");
    if (!detail.n && !code.n) {
        fail(status, "%s answered %ld %s", c->url, r->status, r->content_type);
        hint("is that a Headrace server?");
        return status;
    }
    if (code.n)
        fail(status, "%.*s (%.*s)", STR_ARG(detail), STR_ARG(code));
    else
        fail(status, "%.*s (%ld)", STR_ARG(detail), r->status);
    if (r->status == 401 && !c->authorization)
        hint("give a key with $HEADRACE_API_KEY or --key-file FILE");
    if (str_eqz(code, "unknown_model")) hint("headrace models lists them");
    if (r->retry_after_s) hint("try again in %u s", r->retry_after_s);
    return status;
}

int client_explain(const Client *c, int err, const HttpReply *r)
{
    if (err) return explain_silence(c, err, r);
    yyjson_doc *doc = yyjson_read((const char *)r->body.data, r->body.len, ANSWER_FLAGS);
    int status = explain_problem(c, r, yyjson_doc_get_root(doc));
    yyjson_doc_free(doc);
    return status;
}

static void nap(int64_t ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * NS_PER_MS};
    nanosleep(&t, NULL);
}

int client_call(const Client *c, const Call *call, HttpReply *ret)
{
    Buf url = {0}, type = {0};
    const char *headers[5];
    size_t n = 0;
    buf_printf(&url, "%s%s", c->url, call->path);
    if (call->body.n || call->type)
        buf_printf(&type, "Content-Type: %s", call->type ? call->type : "application/json");
    if (c->authorization) headers[n++] = c->authorization;
    if (call->header) headers[n++] = call->header;
    if (type.len) headers[n++] = buf_z(&type);
    headers[n] = NULL;
    int64_t timeout = call->timeout_ms ? call->timeout_ms : CALL_TIMEOUT_MS, pause_ms = 200;
    int err;
    for (int tries = call->tries;; tries--) {
        err = http_call(call->method, buf_z(&url), headers, call->body, timeout, ret);
        bool again = err == ERR_CLOSED || err == ERR_TIMEOUT || (!err && ret->status == 503);
        if (!again || tries <= 1) break;
        if (!err) pause_ms = MAX(pause_ms, MIN((int64_t)ret->retry_after_s, 5) * 1000);
        http_reply_done(ret);
        nap(pause_ms);
        pause_ms *= 2;
    }
    buf_done(&url);
    buf_done(&type);
    bool good = !err && ret->status >= 200 && ret->status < 300;
    return good ? CLI_OK : client_explain(c, err, ret);
}

/* ---- answers ---- */

yyjson_doc *reply_json(const Client *c, const HttpReply *r, int *ret_status)
{
    yyjson_doc *doc = yyjson_read((const char *)r->body.data, r->body.len, ANSWER_FLAGS);
    if (!doc) {
        *ret_status = fail(CLI_SERVER, "%s answered with something that is not JSON", c->url);
        hint("is that a Headrace server?");
    }
    return doc;
}

Str json_text(yyjson_val *object, const char *key)
{
    yyjson_val *v = yyjson_obj_get(object, key);
    return yyjson_is_str(v) ? (Str){yyjson_get_str(v), yyjson_get_len(v)} : (Str){"", 0};
}

int64_t json_int(yyjson_val *object, const char *key, int64_t otherwise)
{
    yyjson_val *v = yyjson_obj_get(object, key);
    if (yyjson_is_int(v)) return yyjson_get_sint(v);
    return yyjson_is_real(v) ? (int64_t)yyjson_get_real(v) : otherwise;
}

void print_value(yyjson_val *v)
{
    bool tty = terminal()->out_tty;
    size_t len = 0;
    char *text = yyjson_val_write(v, tty ? YYJSON_WRITE_PRETTY_TWO_SPACES : 0, &len);
    CHECK(text);
    Buf clean = {0};
    if (tty)
        put_clean(&clean, (Str){text, len}, true);
    else
        buf_put(&clean, text, len);
    buf_putc(&clean, '\n');
    out_buf(&clean);
    buf_done(&clean);
    free(text);
}

void print_json(Str json)
{
    yyjson_doc *doc = terminal()->out_tty ? yyjson_read(json.p, json.n, ANSWER_FLAGS) : NULL;
    if (doc) {
        print_value(yyjson_doc_get_root(doc));
        yyjson_doc_free(doc);
        return;
    }
    fwrite(json.p, 1, json.n, stdout);
    if (json.n && json.p[json.n - 1] != '\n') putchar('\n');
}

int client_show(const Args *a, const Call *call, int (*show)(const Client *c, yyjson_val *root))
{
    Client c = {0};
    HttpReply r = {0};
    yyjson_doc *doc = NULL;
    int status = client_open(a, &c);
    if (status == CLI_OK) status = client_call(&c, call, &r);
    if (status == CLI_OK && (c.json || !show)) {
        print_json(buf_str(&r.body));
    } else if (status == CLI_OK && (doc = reply_json(&c, &r, &status))) {
        status = show(&c, yyjson_doc_get_root(doc));
        yyjson_doc_free(doc);
    }
    http_reply_done(&r);
    client_done(&c);
    return status;
}

static int order_one(const Client *c, const Order *o, const char *word)
{
    Buf path = {0};
    HttpReply r = {0};
    put_path(&path, o->prefix, word, o->suffix);
    Call call = {.method = o->method, .path = buf_z(&path), .tries = 3};
    if (strcmp(o->method, "POST") == 0) call.type = "application/json";
    int status = client_call(c, &call, &r);
    if (status == CLI_OK && !c->json)
        printf("%s%s\n", word, o->done);
    else if (status == CLI_OK && r.body.len)
        print_json(buf_str(&r.body));
    http_reply_done(&r);
    buf_done(&path);
    return status;
}

int client_order(const Args *a, const Order *o)
{
    Client c = {0};
    int status = client_open(a, &c), worst = status;
    for (size_t i = 0; i < a->words_len && status != CLI_NO_SERVER && worst != CLI_USAGE; i++) {
        status = order_one(&c, o, a->words[i]);
        worst = MAX(worst, status);
    }
    client_done(&c);
    return worst;
}
