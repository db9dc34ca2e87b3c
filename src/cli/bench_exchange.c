/* What a load sends, and what it demands of the answers: the right status, every line of a batch, a
 * task that has succeeded, an echo's very input. As cheap as such a look can be: nothing is parsed
 * but refusals. */
#include "cli/bench.h"

#include <string.h>

static bool is_batch(const Load *l)
{
    return l->kind == LOAD_BATCH || l->kind == LOAD_BATCH_GET || l->kind == LOAD_ENQUEUE;
}

static void put_task(const Load *l, Buf *b)
{
    buf_printf(b, "{\"model\":\"%s\",", l->model);
    buf_puts(b, "\"input\":");
    buf_put_str(b, l->input);
    buf_putc(b, '}');
}

void load_put_request(const Load *l, Buf *ret)
{
    Buf body = {0};
    for (uint32_t i = 0; i < l->lines; i++) {
        put_task(l, &body);
        if (is_batch(l)) buf_putc(&body, '\n');
    }
    buf_printf(ret, "POST /v1/tasks%s HTTP/1.1\r\n", is_batch(l) ? ":batch" : "");
    buf_put_str(ret, buf_str(&l->target->fields));
    if (l->kind == LOAD_ROUNDTRIP || l->kind == LOAD_BATCH)
        buf_printf(ret, "Prefer: wait=%d\r\n", LOAD_WAIT_S);
    buf_printf(ret, "Content-Type: application/%s\r\nContent-Length: %zu\r\n\r\n",
               is_batch(l) ? "x-ndjson" : "json", body.len);
    buf_put_str(ret, buf_str(&body));
    buf_done(&body);
}

void load_put_output(const Load *l, Buf *ret)
{
    buf_puts(ret, "\"output\":");
    buf_put_str(ret, l->input);
}

static bool has(Str text, Str part)
{
    return memmem(text.p, text.n, part.p, part.n) != NULL;
}

static bool is_success(Str task, Str output)
{
    return has(task, STR("\"status\":\"succeeded\"")) && (!output.n || has(task, output));
}

static const char *check_lines(const Load *l, Str body, Str output, Str *ret_part)
{
    static const char accepted[] = "{\"status\":202,", done[] = "{\"status\":200,";
    const char *begin = l->kind == LOAD_BATCH ? done : accepted;
    uint32_t lines = 0;
    while (body.n) {
        const char *end = memchr(body.p, '\n', body.n);
        Str line = {body.p, end ? (size_t)(end - body.p) : body.n};
        *ret_part = line;
        if (!str_starts(line, (Str){begin, sizeof done - 1}))
            return "a line of a batch was refused";
        if (l->kind == LOAD_BATCH && !is_success(line, output)) return "a task did not succeed";
        lines++;
        body.p += line.n + (end != NULL);
        body.n -= line.n + (end != NULL);
    }
    return lines == l->lines ? NULL : "a batch was answered with the wrong number of lines";
}

const char *load_check(const Load *l, bool getting, int status, Str body, Str output, Str *ret_part)
{
    *ret_part = body;
    if (status != 200 && status != 202) return "the server refused";
    if (l->kind == LOAD_SUBMIT)
        return status == 202 ? NULL : "a submit was answered as if it were a repetition";
    if (l->kind == LOAD_ROUNDTRIP || getting) {
        if (status == 202) return "a task was not finished in time";
        return is_success(body, output) ? NULL : "a task did not succeed";
    }
    return check_lines(l, body, output, ret_part);
}

/* A problem document, a line of a batch, a task that failed; or as it is. */
void load_put_reason(Str text, Buf *ret)
{
    yyjson_doc *doc = yyjson_read(text.p, text.n, ANSWER_FLAGS);
    yyjson_val *root = yyjson_doc_get_root(doc), *error = yyjson_obj_get(root, "error");
    if (yyjson_obj_get(root, "task")) error = yyjson_obj_get(yyjson_obj_get(root, "task"), "error");
    Str detail = json_text(yyjson_is_obj(error) ? error : root, "detail");
    if (!detail.n) detail = json_text(error, "message");
    if (!detail.n) detail = (Str){text.p, MIN(text.n, (size_t)200)};
    put_clean(ret, detail, false);
    yyjson_doc_free(doc);
}

double load_device_ms(Str task)
{
    static const char name[] = "\"device_ms\":";
    const char *at = memmem(task.p, task.n, name, sizeof name - 1);
    double ms = 0;
    if (!at) return 0;
    at += sizeof name - 1;
    for (const char *end = task.p + task.n; at < end && *at >= '0' && *at <= '9'; at++)
        ms = ms * 10 + (*at - '0');
    return ms;
}
