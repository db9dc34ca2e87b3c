/* A task as people want to see it, and what is done with its output. */
#include "cli/client.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

Tone task_tone(Str status)
{
    if (str_eqz(status, "succeeded")) return TONE_GREEN;
    if (str_eqz(status, "failed")) return TONE_RED;
    if (str_eqz(status, "running")) return TONE_BLUE;
    if (str_eqz(status, "canceled") || str_eqz(status, "expired")) return TONE_YELLOW;
    return TONE_PLAIN;
}

bool task_is_terminal(Str status)
{
    return str_eqz(status, "succeeded") || str_eqz(status, "failed") ||
           str_eqz(status, "canceled") || str_eqz(status, "expired");
}

static int64_t time_of(yyjson_val *task, const char *key)
{
    int64_t ns = 0;
    return parse_time(json_text(task, key), &ns) ? 0 : ns;
}

void put_task_took(Buf *b, yyjson_val *task, int64_t now_ns)
{
    int64_t started = time_of(task, "started_at"), finished = time_of(task, "finished_at");
    if (!started) return;
    bool over = task_is_terminal(json_text(task, "status"));
    if (!over) finished = now_ns;
    if (finished >= started) buf_put_duration(b, finished - started);
}

/* ---- one task, line by line ---- */

static void put_label(Buf *b, const char *label)
{
    bool coloured = terminal()->out_colour;
    buf_printf(b, "%s%-10s%s ", tone_begin(coloured, TONE_DIM), label,
               tone_end(coloured, TONE_DIM));
}

static void put_line(Buf *b, const char *label, Str text)
{
    if (!text.n) return;
    put_label(b, label);
    put_clean(b, text, false);
    buf_putc(b, '\n');
}

static void put_time_line(Buf *b, const char *label, yyjson_val *task, const char *key, int64_t now)
{
    int64_t at = time_of(task, key);
    if (!at) return;
    put_label(b, label);
    put_clean(b, json_text(task, key), false);
    buf_puts(b, at > now ? " (in " : " (");
    put_age(b, at > now ? at - now : now - at);
    buf_puts(b, at > now ? ")\n" : " ago)\n");
}

static void put_status_line(Buf *b, yyjson_val *task)
{
    Str status = json_text(task, "status");
    bool coloured = terminal()->out_colour;
    Tone tone = task_tone(status);
    yyjson_val *progress = yyjson_obj_get(task, "progress"), *queue = yyjson_obj_get(task, "queue");
    int64_t steps = json_int(progress, "steps", 0), ahead = json_int(queue, "ahead", -1);
    put_label(b, "status");
    buf_puts(b, tone_begin(coloured, tone));
    put_clean(b, status, false);
    buf_puts(b, tone_end(coloured, tone));
    if (str_eqz(status, "queued") && ahead >= 0 && !json_text(queue, "reason").n)
        buf_printf(b, ", %lld ahead", (long long)ahead);
    if (str_eqz(status, "running") && steps > 0)
        buf_printf(b, ", step %lld of %lld", (long long)json_int(progress, "step", 0),
                   (long long)steps);
    if (json_int(task, "attempt", 0) > 1)
        buf_printf(b, ", attempt %lld", (long long)json_int(task, "attempt", 0));
    buf_putc(b, '\n');
}

static void put_error_line(Buf *b, yyjson_val *task)
{
    yyjson_val *error = yyjson_obj_get(task, "error");
    if (!yyjson_is_obj(error)) return;
    bool coloured = terminal()->out_colour;
    put_label(b, "error");
    buf_puts(b, tone_begin(coloured, TONE_RED));
    put_clean(b, json_text(error, "message"), false);
    buf_puts(b, tone_end(coloured, TONE_RED));
    buf_puts(b, " (");
    put_clean(b, json_text(error, "code"), false);
    buf_puts(b, ")\n");
}

static void put_metrics_line(Buf *b, yyjson_val *task)
{
    static const struct {
        const char *key, *text;
    } spans[] = {{"queue_ms", "queued"}, {"run_ms", "run"}, {"device_ms", "device"}};
    yyjson_val *m = yyjson_obj_get(task, "metrics");
    bool any = false;
    if (!yyjson_is_obj(m)) return;
    for (size_t i = 0; i < ARRAY_LEN(spans); i++) {
        yyjson_val *v = yyjson_obj_get(m, spans[i].key);
        if (!yyjson_is_num(v)) continue;
        if (!any) put_label(b, "times");
        buf_printf(b, "%s%s ", any ? ", " : "", spans[i].text);
        if (yyjson_get_num(v) > 0)
            buf_put_duration(b, (int64_t)(yyjson_get_num(v) * 1e6));
        else
            buf_puts(b, "0 ms");
        any = true;
    }
    if (any && json_int(m, "batch_size", 0) > 1)
        buf_printf(b, ", in a batch of %lld", (long long)json_int(m, "batch_size", 0));
    if (any) buf_putc(b, '\n');
}

static void put_json_lines(Buf *b, const char *label, yyjson_val *v)
{
    size_t len = 0;
    if (!v || yyjson_is_null(v)) return;
    if ((yyjson_is_obj(v) || yyjson_is_arr(v)) && yyjson_get_len(v) == 0) return;
    char *text = yyjson_val_write(v, 0, &len);
    if (text && len > 60) {
        free(text);
        text = yyjson_val_write(v, YYJSON_WRITE_PRETTY_TWO_SPACES, &len);
        put_label(b, label);
        buf_putc(b, '\n');
    } else {
        put_label(b, label);
    }
    CHECK(text);
    put_clean(b, (Str){text, len}, true);
    buf_putc(b, '\n');
    free(text);
}

void task_print(yyjson_val *task)
{
    Buf b = {0};
    int64_t now = wall_now_ns();
    Str version = json_text(task, "version");
    Buf model = {0};
    buf_put_str(&model, json_text(task, "model"));
    if (version.n) buf_printf(&model, ":%.*s", STR_ARG(version));
    put_line(&b, "task", json_text(task, "id"));
    put_line(&b, "model", buf_str(&model));
    put_status_line(&b, task);
    put_line(&b, "waits", json_text(yyjson_obj_get(task, "queue"), "reason"));
    put_error_line(&b, task);
    put_line(&b, "priority", json_text(task, "priority"));
    put_line(&b, "tenant", json_text(task, "tenant"));
    put_time_line(&b, "created", task, "created_at", now);
    put_time_line(&b, "started", task, "started_at", now);
    put_time_line(&b, "finished", task, "finished_at", now);
    put_time_line(&b, "deadline", task, "deadline_at", now);
    put_metrics_line(&b, task);
    put_line(&b, "retry of", json_text(task, "retry_of"));
    put_json_lines(&b, "metadata", yyjson_obj_get(task, "metadata"));
    put_json_lines(&b, "input", yyjson_obj_get(task, "input"));
    put_json_lines(&b, "output", yyjson_obj_get(task, "output"));
    if (yyjson_is_true(yyjson_obj_get(task, "data_removed")))
        put_line(&b, "output", STR("deleted, as the input"));
    out_buf(&b);
    buf_done(&b);
    buf_done(&model);
}

/* ---- the output ---- */

typedef struct {
    Str ids[256];
    size_t len;
} FileIds;

/* {"$file": id} anywhere in the output, in order. Depth is bounded by the parser of the server. */
static void find_files(yyjson_val *v, FileIds *f)
{
    yyjson_val *child, *key;
    yyjson_obj_iter oi;
    yyjson_arr_iter ai;
    Str id = json_text(v, "$file");
    if (id.n && f->len < ARRAY_LEN(f->ids)) f->ids[f->len++] = id;
    if (yyjson_obj_iter_init(v, &oi))
        while ((key = yyjson_obj_iter_next(&oi))) find_files(yyjson_obj_iter_get_val(key), f);
    if (yyjson_arr_iter_init(v, &ai))
        while ((child = yyjson_arr_iter_next(&ai))) find_files(child, f);
}

/* "x.png", 2 → "x-2.png". */
static void put_numbered(Buf *b, const char *file, size_t number)
{
    const char *slash = strrchr(file, '/'), *dot = strrchr(file, '.');
    if (!dot || (slash && dot < slash) || dot == (slash ? slash + 1 : file))
        dot = file + strlen(file);
    buf_put(b, file, (size_t)(dot - file));
    buf_printf(b, "-%zu%s", number, dot);
}

static void show_if_picture(const char *path)
{
    const Terminal *t = terminal();
    Buf drawing = {0}, why = {0};
    if (t->out_tty && t->out_colour && picture_is_png(path) &&
        picture_put(path, PICTURE_AUTO, t->width, t->height, &drawing, &why) == 0)
        out_buf(&drawing);
    buf_done(&drawing);
    buf_done(&why);
}

static int download(const Client *c, Str id, const char *path)
{
    Buf url = {0};
    HttpReply r = {0};
    const char *headers[4];
    char *id_z = mem_dup(id.p, id.n);
    buf_puts(&url, c->url);
    put_path(&url, "/v1/files/", id_z, "/content");
    client_headers(c, NULL, headers);
    int err = http_download(buf_z(&url), headers, path, &r), status = CLI_OK;
    if (err == ERR_IO || err == ERR_NOSPC || err == ERR_PERMISSION)
        status = fail(CLI_FAILED, "%s", r.error[0] ? r.error : err_text(err));
    else if (err || r.status / 100 != 2)
        status = client_explain(c, err, &r);
    if (status == CLI_OK) {
        mode_t mask = umask(0);
        umask(mask);
        chmod(path, 0666 & ~mask); /* as if we had made it: downloads are born 0600 */
        show_if_picture(path);
        fprintf(stderr, "wrote %s\n", path);
    }
    http_reply_done(&r);
    buf_done(&url);
    mem_free(id_z);
    return status;
}

static int write_output(yyjson_val *output, const char *path)
{
    size_t len = 0;
    char *text = yyjson_val_write(output, YYJSON_WRITE_PRETTY_TWO_SPACES, &len);
    CHECK(text);
    FILE *f = fopen(path, "we");
    bool ok = f && fwrite(text, 1, len, f) == len && fputc('\n', f) == '\n';
    if (f && fclose(f) != 0) ok = false;
    free(text);
    if (!ok) return fail(CLI_FAILED, "%s cannot be written: %m", path);
    fprintf(stderr, "wrote %s\n", path);
    return CLI_OK;
}

static int save_output(const Client *c, yyjson_val *output, const char *file)
{
    FileIds files = {.len = 0};
    int status = CLI_OK;
    find_files(output, &files);
    if (files.len == 0) return write_output(output, file);
    for (size_t i = 0; i < files.len && status == CLI_OK; i++) {
        Buf path = {0};
        if (files.len == 1)
            buf_puts(&path, file);
        else
            put_numbered(&path, file, i + 1);
        status = download(c, files.ids[i], buf_z(&path));
        buf_done(&path);
    }
    return status;
}

static int explain_end(yyjson_val *task, Str status)
{
    yyjson_val *error = yyjson_obj_get(task, "error");
    Str message = json_text(error, "message"), code = json_text(error, "code");
    if (message.n)
        return fail(CLI_FAILED, "the task %.*s: %.*s (%.*s)", STR_ARG(status), STR_ARG(message),
                    STR_ARG(code));
    const char *was = str_eqz(status, "failed") ? "" : str_eqz(status, "expired") ? "has " : "was ";
    return fail(CLI_FAILED, "the task %s%.*s", was, STR_ARG(status));
}

int task_deliver(const Client *c, yyjson_val *task, const char *file)
{
    Str status = json_text(task, "status");
    yyjson_val *output = yyjson_obj_get(task, "output");
    if (c->json) print_value(task);
    if (!task_is_terminal(status)) return fail(CLI_TIMEOUT, "the task is %.*s", STR_ARG(status));
    if (!str_eqz(status, "succeeded")) return explain_end(task, status);
    if (file) return save_output(c, output, file);
    if (!c->json && output) print_value(output);
    return CLI_OK;
}
