/* session.c: the conversation with the server: registration, the stream, reports. Main thread.
 *
 * One POST of reports is under way at a time and takes all there is to say when it starts, so
 * batches grow with the load: while the server commits one, the next gathers. */
#include "wire/json.h"
#include "worker/inside.h"

#include <inttypes.h>
#include <string.h>

enum {
    BACKOFF_FIRST_MS = 100,
    BACKOFF_MAX_MS = 5000,
    REGISTER_TIMEOUT_MS = 15000,
    POST_TIMEOUT_MS = 30000,
    SAID_MAX = POST_LINES_MAX /
               2, /* lines of a POST that may be lost, so that results always get room */
    LOG_BYTES_MAX = 1024 * 1024,
};

static void begin_register(Worker *w);

/* ---- failures ---- */

/* Half of it is chance, so that workers do not come back in step. */
static int64_t backoff_ms(Worker *w, unsigned failures)
{
    int64_t ms = BACKOFF_FIRST_MS << MIN(failures, 6U);
    ms = MIN(ms, (int64_t)BACKOFF_MAX_MS);
    return ms / 2 + (int64_t)random_below(&w->random, (uint64_t)ms / 2 + 1);
}

void session_retry(LoopTimer *t)
{
    begin_register(CONTAINER_OF(t, Worker, retry));
}

/* Says once that there is no server, and once that there is one again. */
static void warn_once(Worker *w, const char *what, const char *why)
{
    if (!w->warned)
        say_warn("%s %s: %s; trying again", what, w->o->server_url, why);
    else
        say_debug("%s %s: %s", what, w->o->server_url, why);
    w->warned = true;
}

static void lost(Worker *w)
{
    w->world->cancel_call(w, w->stream);
    w->world->cancel_call(w, w->post);
    w->world->cancel_call(w, w->registering);
    w->stream = w->post = w->registering = NULL;
    outbox_end(&w->outbox);
    w->session = SESSION_OFF;
    loop_timer_start(&w->retry, (uint64_t)backoff_ms(w, w->failures), 0);
    w->failures++;
}

/* An answer that no retry can change: true, and the worker ends. */
static bool refused(Worker *w, const HttpReply *r)
{
    if (r->status != 401 && r->status != 403) return false;
    Buf text = {0};
    problem_text(buf_str(&r->body), &text);
    say_error(
        "the server at %s refuses %s: %.*s. Workers need a key of the scope `worker`; `headrace "
        "serve` writes one to DATA/worker.key.",
        w->o->server_url, w->o->key != NULL ? "this worker's key" : "a worker without a key",
        STR_ARG(buf_str(&text)));
    buf_done(&text);
    worker_end(w, WORKER_EXIT_REFUSED);
    return true;
}

static const char *const *headers(Worker *w, bool ndjson)
{
    static const char *list[3]; /* copied by http_client_start; one thread */
    size_t n = 0;
    list[n++] = ndjson ? "Content-Type: application/x-ndjson" : "Content-Type: application/json";
    if (w->files.auth[0] != '\0') list[n++] = w->files.auth;
    list[n] = NULL;
    return list;
}

/* ---- the stream ---- */

static const ModelSpec *named_model(Worker *w, const Message *m)
{
    const ModelSpec *spec = repository_find(&w->models, str_from(m->model), str_from(m->version));
    if (spec == NULL)
        say_warn("the server names a model unknown here: %s:%s", m->model, m->version);
    return spec;
}

static void on_message(Worker *w, Message *m)
{
    const ModelSpec *spec;
    Executor *e;
    switch (m->kind) {
    case MESSAGE_LEASE: {
        LeaseBatch *b = m->lease;
        m->lease = NULL;
        tasks_lease(w, b);
        break;
    }
    case MESSAGE_CANCEL:
        tasks_stop(w, m->token, STOP_RELEASE);
        break;
    case MESSAGE_LOAD:
    case MESSAGE_UNLOAD:
        spec = named_model(w, m);
        e = worker_executor(w, m->device);
        if (spec == NULL || e == NULL) break;
        w->world->order(e, m->kind == MESSAGE_LOAD ? ITEM_LOAD : ITEM_UNLOAD, spec);
        break;
    case MESSAGE_DRAIN:
        say_info("the server drains this worker: %zu tasks held%s", w->held_len,
                 m->exit ? ", then it ends" : "");
        if (m->exit)
            worker_leave(w, false);
        else
            tasks_hand_back(w);
        break;
    case MESSAGE_PING:
        w->pong_due = true;
        w->pong_n = m->ping;
        session_post(w);
        break;
    case MESSAGE_UNKNOWN:
        break;
    }
}

static void on_stream_line(void *ctx, Str line)
{
    Worker *w = ctx;
    w->heard_ns = clock_mono();
    w->failures = 0;
    Message m;
    Buf why = {0};
    if (message_parse(line, w->heard_ns, &m, &why) == 0) {
        on_message(w, &m);
        message_done(&m);
    } else {
        say_warn("the server sent a line that makes no sense (%.*s): %.*s", STR_ARG(buf_str(&why)),
                 (int)MIN(line.n, (size_t)200), line.p);
    }
    buf_done(&why);
}

static void on_stream_done(void *ctx, int err, HttpReply *r)
{
    Worker *w = ctx;
    w->stream = NULL;
    if (refused(w, r)) return;
    char why[96];
    snprintf(why, sizeof why, "status %ld", r->status);
    warn_once(w, "the stream ended from",
              err != 0           ? r->error
              : r->status == 200 ? "the server closed it"
                                 : why);
    lost(w);
}

static void open_stream(Worker *w)
{
    if (w->deaf) return;
    Buf url = {0};
    buf_printf(&url, "%s/v1/worker/%s/stream", w->files.server_url, w->id);
    w->heard_ns = clock_mono();
    w->stream = w->world->call(w, &(HttpRequestOptions){
                                      .method = "GET",
                                      .url = buf_z(&url),
                                      .headers = headers(w, true),
                                      .on_line = on_stream_line,
                                      .on_done = on_stream_done,
                                      .ctx = w,
                                  });
    buf_done(&url);
}

void session_deafen(Worker *w)
{
    w->deaf = true;
    w->world->cancel_call(w, w->stream);
    w->stream = NULL;
}

/* ---- registration ---- */

static void put_member(Buf *b, const char *key, const char *z)
{
    buf_printf(b, "\"%s\":", key);
    json_put_str(b, str_from(z));
}

static void put_model(Buf *b, const ModelSpec *m)
{
    char hex[65];
    sha256_hex(&m->digest, hex);
    buf_putc(b, '{');
    put_member(b, "name", m->name);
    buf_putc(b, ',');
    put_member(b, "version", m->version);
    buf_putc(b, ',');
    put_member(b, "engine", m->engine);
    buf_putc(b, ',');
    put_member(b, "description", m->description);
    buf_printf(b,
               ",\"digest\":\"%s\",\"max_batch\":%u,\"batch_delay_ms\":%u,\"continuous\":%s,"
               "\"memory_bytes\":%" PRIu64 ",\"min_warm\":%u%s}",
               hex, m->max_batch, m->batch_delay_ms, m->continuous ? "true" : "false",
               m->memory_bytes, m->min_warm, m->require_gpu ? ",\"device_kind\":\"cuda\"" : "");
}

static void put_hello(Worker *w, Buf *b)
{
    buf_puts(b, "{\"protocol\":[1],");
    put_member(b, "name", w->name);
    buf_putc(b, ',');
    put_member(b, "region", w->o->region);
    buf_printf(b, ",\"pid\":%ld", w->pid);
    if (w->id[0] != '\0') {
        buf_putc(b, ',');
        put_member(b, "worker", w->id);
    }
    buf_puts(b, ",\"devices\":[");
    for (size_t i = 0; i < w->executors_len; i++) {
        buf_printf(b,
                   "%s{\"index\":%u,\"kind\":\"cpu\",\"memory_bytes\":%" PRIu64 ",\"threads\":%u}",
                   i > 0 ? "," : "", w->first_device + (uint32_t)i, w->device_memory, w->threads);
    }
    buf_puts(b, "],\"models\":[");
    for (size_t i = 0; i < w->models.len; i++) {
        if (i > 0) buf_putc(b, ',');
        put_model(b, w->models.specs[i]);
    }
    buf_puts(b, "],\"running\":[");
    size_t n = 0; /* over the limit the next pong renews the rest */
    LIST_FOR (h, &w->all, Held, in_all) {
        if (atomic_load(&h->stop) == STOP_DROP) continue;
        if (n == PONG_TOKENS_MAX) break;
        buf_printf(b, "%s{\"id\":\"%.*s\",\"token\":%" PRIu64 "}", n > 0 ? "," : "", STR_ARG(h->id),
                   h->token);
        n++;
    }
    buf_puts(b, "],");
    put_member(b, "runtime", w->runtime.len > 0 ? buf_z(&w->runtime) : "");
    buf_putc(b, '}');
}

static void welcome(Worker *w, Welcome *a)
{
    bool again = w->id[0] != '\0';
    memcpy(w->id, a->worker, sizeof w->id);
    w->lease_s = a->lease_s;
    w->ping_s = a->ping_s;
    if (w->warned || !again) say_info("registered at %s as %s", w->o->server_url, w->id);
    w->warned = false;
    Str lines = buf_str(&a->refused);
    while (lines.n > 0) {
        const char *end = memchr(lines.p, '\n', lines.n);
        say_warn("the server refuses the model %.*s", (int)(end - lines.p), lines.p);
        lines.n -= (size_t)(end + 1 - lines.p);
        lines.p = end + 1;
    }
    for (size_t i = 0; i < a->stale_len; i++) tasks_stop(w, a->stale[i], STOP_DROP);

    /* It may be another server, or one that forgot: say again what is loaded. */
    if (again) {
        for (size_t i = 0; i < w->residents_len; i++) {
            Buf line = {0};
            buf_put(&line, w->residents[i].line.data, w->residents[i].line.len);
            outbox_put(&w->outbox, report_new(REPORT_TELEMETRY, 0, &line));
        }
    }
    w->session = SESSION_ON;
    w->post_after_ns = 0;
    w->post_failures = 0;
    open_stream(w);
    session_post(w);
    worker_check_end(w);
}

static void on_registered(void *ctx, int err, HttpReply *r)
{
    Worker *w = ctx;
    w->registering = NULL;
    buf_done(&w->hello);
    if (err != 0) {
        warn_once(w, "no server at", r->error);
        lost(w);
        return;
    }
    if (refused(w, r)) return;
    Buf why = {0};
    if (r->status == 200 || r->status == 201) {
        Welcome a;
        if (welcome_parse(buf_str(&r->body), &a, &why) == 0) {
            w->answered_ns = clock_mono();
            welcome(w, &a);
            welcome_done(&a);
        } else {
            warn_once(w, "the answer to a registration makes no sense, from", buf_z(&why));
            lost(w);
        }
        buf_done(&why);
        return;
    }
    problem_text(buf_str(&r->body), &why);
    bool final = r->status >= 400 && r->status < 500 && r->status != 408 && r->status != 429;
    if (final && w->id[0] == '\0') {
        say_error("the server at %s refuses this worker (status %ld): %s", w->o->server_url,
                  r->status, buf_z(&why));
        worker_end(w, WORKER_EXIT_REFUSED);
    } else {
        warn_once(w, "cannot register at", buf_z(&why));
        w->failures = MAX(w->failures, r->retry_after_s > 0 ? 4U : 0U);
        lost(w);
    }
    buf_done(&why);
}

static void begin_register(Worker *w)
{
    CHECK(w->session == SESSION_OFF && w->registering == NULL);
    w->session = SESSION_REGISTERING;
    buf_clear(&w->hello);
    put_hello(w, &w->hello);
    Buf url = {0};
    buf_printf(&url, "%s/v1/worker/register", w->files.server_url);
    w->registering = w->world->call(w, &(HttpRequestOptions){
                                           .method = "POST",
                                           .url = buf_z(&url),
                                           .headers = headers(w, false),
                                           .body = buf_str(&w->hello),
                                           .timeout_ms = REGISTER_TIMEOUT_MS,
                                           .on_done = on_registered,
                                           .ctx = w,
                                       });
    buf_done(&url);
}

void session_start(Worker *w)
{
    begin_register(w);
}

/* ---- reports ---- */

static void said(Worker *w, uint64_t token)
{
    if (w->said_len == w->said_cap) {
        w->said_cap = MAX(2 * w->said_cap, (size_t)64);
        w->said = mem_grow(w->said, w->said_cap * sizeof *w->said);
    }
    w->said[w->said_len++] = token;
}

static void put_pong(Worker *w)
{
    size_t n = 0;
    line_pong(&w->body, w->pong_n);
    LIST_FOR (h, &w->all, Held, in_all) {
        if (atomic_load(&h->stop) == STOP_DROP) continue;
        if (n == PONG_TOKENS_MAX) { /* one more pong for the rest */
            line_pong_end(&w->body);
            said(w, 0);
            line_pong(&w->body, w->pong_n);
            n = 0;
        }
        line_pong_held(&w->body, h->token);
        n++;
    }
    line_pong_end(&w->body);
    said(w, 0);
    w->pong_due = false;
    w->pong_ns = clock_mono();
}

static void put_logs(Worker *w)
{
    size_t limit = w->body.len + LOG_BYTES_MAX;
    LIST_FOR (n, &w->logs, Note, link) {
        if (w->said_len >= SAID_MAX || w->body.len >= limit) break;
        list_del(&n->link);
        const Held *h = tasks_find(w, n->token);
        if (h != NULL) {
            line_log(&w->body, h->id, h->token, buf_str(&n->bytes));
            said(w, h->token);
        }
        note_free(n);
    }
}

/* The latest progress of each task, at most every 100 ms; that it started only when it is under
 * way for a while, because a result says so too. */
static void put_progress(Worker *w)
{
    int64_t now = clock_mono();
    if (now - w->looked_ns < TICK_BUSY_MS * NS_PER_MS) return;
    w->looked_ns = now;
    LIST_FOR (h, &w->all, Held, in_all) {
        if (w->said_len >= SAID_MAX) break;
        if (h->state != HELD_WITH_EXECUTOR ||
            !atomic_load_explicit(&h->begun, memory_order_relaxed)) {
            continue;
        }
        if (!h->seen_begun) {
            h->seen_begun = true;
            continue;
        }
        if (!h->said_started) {
            line_started(&w->body, h->id, h->token);
            said(w, h->token);
            h->said_started = true;
        }
        uint32_t step = atomic_load_explicit(&h->step, memory_order_relaxed);
        if (step == h->said_step || now - h->said_ns < PROGRESS_EVERY_MS * NS_PER_MS) continue;
        h->said_step = step;
        h->said_ns = now;
        line_progress(&w->body, h->id, h->token, step,
                      atomic_load_explicit(&h->steps, memory_order_relaxed));
        said(w, h->token);
    }
}

/* One line of the answer, for the next line of the POST that has none yet. */
static bool take_answer(Worker *w, Str line)
{
    Answer a;
    Buf detail = {0};
    bool good = answer_parse(line, &a, &detail) == 0;
    if (good && w->said_answered < w->said_len) {
        uint64_t token = w->said[w->said_answered++];
        if (a == ANSWER_FENCED && token != 0) tasks_stop(w, token, STOP_RELEASE);
        if (a == ANSWER_INVALID) {
            say_warn("the server refuses a report: %.*s", STR_ARG(buf_str(&detail)));
        }
    } else if (good) {
        Report *r = outbox_answered(&w->outbox);
        good = r != NULL;
        if (good) {
            w->post_progressed = true;
            tasks_answered(w, r, a, buf_str(&detail));
        }
    }
    buf_done(&detail);
    return good;
}

static void post_again_after(Worker *w, int64_t ms)
{
    w->post_failures++;
    w->post_after_ns = clock_mono() + ms * NS_PER_MS;
    w->tick_ms = TICK_BUSY_MS;
    loop_timer_start(&w->tick, MIN((uint64_t)ms, (uint64_t)TICK_BUSY_MS), TICK_BUSY_MS);
}

static void on_posted(void *ctx, int err, HttpReply *r)
{
    Worker *w = ctx;
    w->post = NULL;
    w->post_progressed = false;
    w->lines_max = POST_LINES_MAX;
    if (err == 0 && refused(w, r)) return;
    if (err == 0 && r->status == 404) { /* it forgot us: register again, with what we hold */
        say_info("the server does not know this worker any more: registering again");
        w->failures = 0;
        lost(w);
        return;
    }
    bool whole = err == 0 && r->status == 200;
    if (whole) {
        w->answered_ns = clock_mono();
        Str rest = buf_str(&r->body);
        while (rest.n > 0) {
            const char *end = memchr(rest.p, '\n', rest.n);
            size_t n = end != NULL ? (size_t)(end - rest.p) : rest.n;
            if (n > 0 && !take_answer(w, (Str){rest.p, n})) break;
            if (end == NULL) break;
            rest.p += n + 1;
            rest.n -= n + 1;
        }
        whole = w->outbox.flight_len == 0;
    } else if (err == 0 && r->status < 500 && r->status != 429 && r->status != 408) {
        /* Not one line of it was read. Alone, each shows whether it is the one. */
        Buf text = {0};
        problem_text(buf_str(&r->body), &text);
        say_warn("the server refuses reports (status %ld): %.*s", r->status,
                 STR_ARG(buf_str(&text)));
        if (w->outbox.flight_len == 1) {
            tasks_answered(w, outbox_answered(&w->outbox), ANSWER_INVALID, buf_str(&text));
            w->post_progressed = true;
        }
        w->lines_max = 1;
        buf_done(&text);
    }
    outbox_end(&w->outbox);
    if (whole || w->post_progressed) {
        w->post_failures = 0;
        w->warned = w->warned && w->session != SESSION_ON;
    } else {
        if (err != 0) warn_once(w, "cannot report to", r->error);
        int64_t ms = backoff_ms(w, w->post_failures);
        post_again_after(w, MAX(ms, (int64_t)MIN(r->retry_after_s, 5U) * 1000));
    }
    session_post(w);
    worker_check_end(w);
}

void session_post(Worker *w)
{
    if (w->session != SESSION_ON || w->post != NULL) return;
    if (w->post_after_ns != 0 && clock_mono() < w->post_after_ns) return;
    w->post_after_ns = 0;
    buf_clear(&w->body);
    w->said_len = w->said_answered = 0;
    if (w->pong_due) put_pong(w);
    if (w->lines_max > 1) {
        put_logs(w);
        put_progress(w);
    }
    size_t lines_max = w->lines_max > 1 ? w->lines_max - w->said_len : 1;
    (void)outbox_begin(&w->outbox, &w->body, lines_max);
    if (w->body.len == 0) return;
    Buf url = {0};
    buf_printf(&url, "%s/v1/worker/%s/reports", w->files.server_url, w->id);
    w->post = w->world->call(w, &(HttpRequestOptions){
                                    .method = "POST",
                                    .url = buf_z(&url),
                                    .headers = headers(w, true),
                                    .body = buf_str(&w->body),
                                    .timeout_ms = POST_TIMEOUT_MS,
                                    .on_done = on_posted,
                                    .ctx = w,
                                });
    buf_done(&url);
}

void session_tick(Worker *w)
{
    if (w->session != SESSION_ON) return;
    int64_t now = clock_mono();
    int64_t silent_max = MAX(3 * (int64_t)w->ping_s, INT64_C(10)) * NS_PER_S;
    if (w->stream != NULL && now - w->heard_ns > silent_max) {
        warn_once(w, "the stream is silent, from", "no ping came");
        lost(w);
        return;
    }
    /* Without a stream nobody pings: keep the leases on our own account. */
    if (w->deaf && w->held_len > 0 && now - w->pong_ns > (int64_t)w->ping_s * NS_PER_S) {
        w->pong_due = true;
    }
    session_post(w);
}

void session_done(Worker *w)
{
    w->world->cancel_call(w, w->stream);
    w->world->cancel_call(w, w->post);
    w->world->cancel_call(w, w->registering);
    w->stream = w->post = w->registering = NULL;
    outbox_end(&w->outbox);
    buf_done(&w->body);
    buf_done(&w->hello);
    mem_free(w->said);
}
