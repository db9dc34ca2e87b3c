/* headrace events: a task's event stream, a line each. */
#include "cli/client.h"
#include "cli/commands.h"

#include <string.h>

static const Option options[] = {
    {"after", 0, "ID", "only events behind this one (its id)", NULL},
};

typedef struct {
    bool json;
    Buf rest, event, data, id; /* rest: an incomplete line */
} Reader;

static void put_progress(Buf *b, yyjson_val *o)
{
    yyjson_val *p = yyjson_obj_get(o, "progress");
    if (!yyjson_is_obj(p)) p = o;
    if (json_int(p, "steps", 0) > 0)
        buf_printf(b, " step %lld/%lld", (long long)json_int(p, "step", 0),
                   (long long)json_int(p, "steps", 0));
}

static void put_event(const Reader *r, yyjson_val *o, Buf *b)
{
    bool coloured = terminal()->out_colour;
    Str status = json_text(o, "status"), name = buf_str(&r->event);
    yyjson_val *error = yyjson_obj_get(yyjson_obj_get(o, "task"), "error");
    Str when = json_text(o, "at"), code = json_text(o, "code");
    buf_puts(b, tone_begin(coloured, TONE_DIM));
    put_clean(b, when, false);
    buf_puts(b, tone_end(coloured, TONE_DIM));
    buf_putc(b, ' ');
    Str what = status.n ? status : name.n ? name : STR("event");
    buf_puts(b, tone_begin(coloured, task_tone(status)));
    put_clean(b, what, false);
    buf_puts(b, tone_end(coloured, task_tone(status)));
    put_progress(b, o);
    if (json_int(o, "attempt", 0) > 0)
        buf_printf(b, " attempt %lld", (long long)json_int(o, "attempt", 0));
    if (yyjson_is_obj(error)) {
        buf_puts(b, ": ");
        put_clean(b, json_text(error, "message"), false);
    }
    if (code.n) {
        buf_puts(b, " (");
        put_clean(b, code, false);
        buf_putc(b, ')');
    }
    buf_putc(b, '\n');
}

static void print_event(Reader *r)
{
    if (r->data.len == 0) return;
    if (r->json) {
        print_json(buf_str(&r->data));
    } else {
        Buf line = {0};
        yyjson_doc *doc = yyjson_read((const char *)r->data.data, r->data.len, ANSWER_FLAGS);
        put_event(r, yyjson_doc_get_root(doc), &line);
        out_buf(&line);
        yyjson_doc_free(doc);
        buf_done(&line);
    }
    fflush(stdout);
    buf_clear(&r->data);
    buf_clear(&r->event);
}

static void take_field(Str line, const char *name, Buf *to)
{
    size_t n = strlen(name);
    if (!str_starts(line, (Str){name, n})) return;
    line = (Str){line.p + n, line.n - n};
    if (line.n && line.p[0] == ' ') line.p++, line.n--;
    buf_clear(to);
    buf_put_str(to, line);
}

static bool on_data(void *ctx, Str piece)
{
    Reader *r = ctx;
    buf_put_str(&r->rest, piece);
    const char *end;
    while (r->rest.len && (end = memchr(r->rest.data, '\n', r->rest.len))) {
        Str line = {(const char *)r->rest.data, (size_t)(end - (const char *)r->rest.data)};
        size_t used = line.n + 1;
        if (line.n && line.p[line.n - 1] == '\r') line.n--;
        if (line.n == 0) print_event(r);
        take_field(line, "event:", &r->event);
        take_field(line, "data:", &r->data);
        take_field(line, "id:", &r->id);
        buf_drop(&r->rest, used);
    }
    return r->rest.len < MIB && !ferror(stdout);
}

static int run(const Args *a)
{
    Client c = {0};
    int status = client_open(a, &c);
    if (status != CLI_OK) return status;
    Reader r = {.json = c.json};
    Buf url = {0}, last = {0};
    HttpReply reply = {0};
    const char *headers[4];
    if (args_has(a, "after")) buf_printf(&last, "Last-Event-ID: %s", args_text(a, "after", ""));
    buf_puts(&url, c.url);
    put_path(&url, "/v1/tasks/", a->words[0], "/events");
    client_headers(&c, last.len ? buf_z(&last) : NULL, headers);
    int err = http_stream(buf_z(&url), headers, on_data, &r, &reply);
    if (err || reply.status / 100 != 2) status = client_explain(&c, err, &reply);
    if (status == CLI_NO_SERVER && r.id.len)
        hint("go on with: headrace events %s --after %s", a->words[0], buf_z(&r.id));
    http_reply_done(&reply);
    buf_done(&r.rest);
    buf_done(&r.event);
    buf_done(&r.data);
    buf_done(&r.id);
    buf_done(&url);
    buf_done(&last);
    client_done(&c);
    return status;
}

const Command command_events = {
    .name = "events",
    .words = "TASK",
    .summary = "Print a task's events as they come, until it has ended",
    .about = "A line for each change of state and for progress. With a finished task: what\n"
             "happened.",
    .options = options,
    .options_len = ARRAY_LEN(options),
    .client = true,
    .words_min = 1,
    .words_max = 1,
    .examples = "  headrace events task_01J…\n"
                "  headrace events task_01J… --json | jq .status",
    .run = run,
};
