/* Following one task: its event stream for what happens, a look at the task every second while it
 * waits (how many are ahead), and once more when it has ended. A server that goes away is waited
 * for: the task is durable, so it comes back with it. One loop, one thread. */
#include "cli/client.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#define TICK_MS  100
#define LOOK_MS  1000
#define AGAIN_MS 500
#define GONE_NS  (60 * NS_PER_S) /* so long without any answer: give up */

typedef struct {
    const Client *client;
    const Watch *watch;
    uv_loop_t loop;
    uv_timer_t tick;
    uv_signal_t interrupt;
    HttpClient *http;
    HttpRequest *stream, *look;
    Progress progress;
    Buf stream_url, look_url, last_id;
    Buf reason; /* why it cannot start, as said last; empty: it is only not its turn */
    const char *headers[4];
    int64_t started_ns, heard_ns, look_ns, stream_ns; /* boot clock; the latter two: not before */
    bool terminal_seen, lost;
    bool over;
    int status;
    Buf *ret;
} Watcher;

static void finish(Watcher *w, int status)
{
    if (w->over) return;
    w->over = true;
    w->status = status;
    uv_stop(&w->loop);
}

/* ---- what is heard ---- */

/* What waiting alone does not mend is said, once. */
static void take_reason(Watcher *w, Str reason)
{
    if (str_eq(reason, buf_str(&w->reason))) return;
    buf_clear(&w->reason);
    buf_put_str(&w->reason, reason);
    if (!reason.n) return;
    progress_wipe(&w->progress);
    hint("%s cannot start now: %.*s", w->watch->id, STR_ARG(reason));
}

static void take_status(Watcher *w, yyjson_val *o)
{
    int64_t now = boot_now_ns();
    Str status = json_text(o, "status");
    yyjson_val *progress = yyjson_obj_get(o, "progress"), *queue = yyjson_obj_get(o, "queue");
    if (!yyjson_is_obj(progress)) progress = o;
    if (status.n) progress_status(&w->progress, status);
    int64_t steps = json_int(progress, "steps", 0);
    if (steps > 0)
        progress_step(&w->progress, (uint64_t)MAX(json_int(progress, "step", 0), 0),
                      (uint64_t)steps, now);
    if (yyjson_is_obj(queue)) {
        w->progress.ahead = json_int(queue, "ahead", -1);
        take_reason(w, json_text(queue, "reason"));
    }
    if (task_is_terminal(status)) {
        w->terminal_seen = true;
        w->look_ns = 0; /* now */
    }
}

/* The event of the end carries the whole task. */
static void take_end(Watcher *w, yyjson_val *event)
{
    size_t len = 0;
    yyjson_val *task = yyjson_obj_get(event, "task");
    if (!task_is_terminal(json_text(task, "status"))) return;
    char *text = yyjson_val_write(task, 0, &len);
    CHECK(text);
    buf_put(w->ret, text, len);
    free(text);
    finish(w, CLI_OK);
}

static void on_event(Watcher *w, Str data)
{
    yyjson_doc *doc = yyjson_read(data.p, data.n, ANSWER_FLAGS);
    yyjson_val *event = yyjson_doc_get_root(doc);
    if (event) take_status(w, event);
    if (event && !w->over) take_end(w, event);
    yyjson_doc_free(doc);
    if (!w->over) progress_show(&w->progress, boot_now_ns());
}

static void on_line(void *ctx, Str line)
{
    Watcher *w = ctx;
    w->heard_ns = boot_now_ns();
    w->lost = false;
    if (w->over) return;
    if (str_starts(line, STR("data:"))) { /* the server writes an event's data as one line */
        line = (Str){line.p + 5, line.n - 5};
        on_event(w, line);
    } else if (str_starts(line, STR("id:"))) {
        line = (Str){line.p + 3, line.n - 3};
        if (line.n && line.p[0] == ' ') line.p++, line.n--;
        buf_clear(&w->last_id);
        buf_puts(&w->last_id, "Last-Event-ID: ");
        buf_put_str(&w->last_id, line);
    }
}

/* An answer that will not become better by asking again. */
static bool is_final(const HttpReply *r)
{
    return r->status >= 400 && r->status < 500 && r->status != 429 && r->status != 408;
}

static void on_stream_end(void *ctx, int err, HttpReply *reply)
{
    Watcher *w = ctx;
    int64_t now = boot_now_ns();
    w->stream = NULL;
    w->stream_ns = now + AGAIN_MS * NS_PER_MS;
    w->lost = err != 0;
    if (!err) w->heard_ns = now;
    if (!err && is_final(reply)) {
        progress_done(&w->progress);
        finish(w, client_explain(w->client, err, reply));
    }
}

static void on_look_end(void *ctx, int err, HttpReply *reply)
{
    Watcher *w = ctx;
    int64_t now = boot_now_ns();
    w->look = NULL;
    w->look_ns = now + LOOK_MS * NS_PER_MS;
    if (err || w->over) return;
    w->heard_ns = now;
    w->lost = false;
    if (is_final(reply)) {
        progress_done(&w->progress);
        finish(w, client_explain(w->client, err, reply));
        return;
    }
    if (reply->status != 200) return;
    yyjson_doc *doc = yyjson_read((const char *)reply->body.data, reply->body.len, ANSWER_FLAGS);
    yyjson_val *task = yyjson_doc_get_root(doc);
    if (task) take_status(w, task);
    if (task_is_terminal(json_text(task, "status"))) {
        buf_put_str(w->ret, buf_str(&reply->body));
        finish(w, CLI_OK);
    }
    yyjson_doc_free(doc);
}

/* ---- asking ---- */

static void start_stream(Watcher *w)
{
    client_headers(w->client, w->last_id.len ? buf_z(&w->last_id) : NULL, w->headers);
    HttpRequestOptions o = {.method = "GET",
                            .url = buf_z(&w->stream_url),
                            .headers = w->headers,
                            .on_line = on_line,
                            .on_done = on_stream_end,
                            .ctx = w};
    w->stream = http_client_start(w->http, &o);
}

static void start_look(Watcher *w)
{
    client_headers(w->client, NULL, w->headers);
    HttpRequestOptions o = {.method = "GET",
                            .url = buf_z(&w->look_url),
                            .headers = w->headers,
                            .timeout_ms = 10000,
                            .on_done = on_look_end,
                            .ctx = w};
    w->look = http_client_start(w->http, &o);
}

static void on_tick(uv_timer_t *timer)
{
    Watcher *w = timer->data;
    int64_t now = boot_now_ns();
    bool waiting = str_eqz(buf_str(&w->progress.status), "queued");
    if (w->over) return;
    if (w->watch->timeout_ms && now - w->started_ns > w->watch->timeout_ms * NS_PER_MS) {
        finish(w, CLI_TIMEOUT);
        return;
    }
    if (now - w->heard_ns > GONE_NS && w->lost) {
        finish(w, CLI_NO_SERVER);
        return;
    }
    if (!w->stream && !w->terminal_seen && now >= w->stream_ns) start_stream(w);
    if (!w->look && now >= w->look_ns && (waiting || w->terminal_seen || !w->stream)) start_look(w);
    bool away = w->lost && now - w->heard_ns > NS_PER_S;
    w->progress.note = away ? "the server is away, waiting for it" : NULL;
    progress_show(&w->progress, now);
}

static void on_interrupt(uv_signal_t *s, int number)
{
    (void)number;
    finish(s->data, CLI_INTERRUPTED);
}

static void say_end(const Watcher *w)
{
    if (w->status == CLI_TIMEOUT)
        fail(w->status, "the task is not finished (%.*s)", STR_ARG(buf_str(&w->progress.status)));
    if (w->status == CLI_NO_SERVER)
        fail(w->status, "no answer from %s for a minute", w->client->url);
    if (w->status == CLI_INTERRUPTED) fputs("the task goes on\n", stderr);
    if (w->status == CLI_TIMEOUT || w->status == CLI_INTERRUPTED || w->status == CLI_NO_SERVER)
        hint("follow it with: headrace wait %s", w->watch->id);
}

int task_follow(const Client *c, const Watch *watch, Buf *ret)
{
    Watcher w = {.client = c, .watch = watch, .ret = ret};
    w.started_ns = w.heard_ns = boot_now_ns();
    put_path(&w.look_url, "/v1/tasks/", watch->id, "");
    buf_printf(&w.stream_url, "%s%s/events", c->url, buf_z(&w.look_url));
    Buf path = w.look_url;
    w.look_url = (Buf){0};
    buf_printf(&w.look_url, "%s%s", c->url, buf_z(&path));
    buf_done(&path);
    progress_init(&w.progress, watch->label, terminal()->err_tty, w.started_ns);

    CHECK(uv_loop_init(&w.loop) == 0);
    w.http = http_client_new(&w.loop);
    w.tick.data = w.interrupt.data = &w;
    uv_timer_init(&w.loop, &w.tick);
    uv_timer_start(&w.tick, on_tick, 0, TICK_MS);
    uv_signal_init(&w.loop, &w.interrupt);
    uv_signal_start(&w.interrupt, on_interrupt, SIGINT);
    uv_run(&w.loop, UV_RUN_DEFAULT);

    http_request_cancel(w.stream);
    http_request_cancel(w.look);
    http_client_free(w.http);
    uv_close((uv_handle_t *)&w.tick, NULL);
    uv_close((uv_handle_t *)&w.interrupt, NULL);
    uv_run(&w.loop, UV_RUN_DEFAULT);
    CHECK(uv_loop_close(&w.loop) == 0);
    if (w.status == CLI_TIMEOUT || w.status == CLI_INTERRUPTED || w.status == CLI_NO_SERVER) {
        Buf status = {0};
        buf_put_str(&status, buf_str(&w.progress.status));
        progress_done(&w.progress);
        w.progress.status = status;
        say_end(&w);
    }
    progress_done(&w.progress);
    buf_done(&w.stream_url);
    buf_done(&w.look_url);
    buf_done(&w.last_id);
    buf_done(&w.reason);
    return w.status;
}
