/* One measurement: the server it is made on, what the server and the kernel count meanwhile, and
 * whether the disk was itself. */
#include "cli/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* This kind of machine has minutes in which every fdatasync takes 4 ms: nothing that waits for the
 * disk can be compared then. */
#define SLOW_SYNC_NS  (2 * NS_PER_MS)
#define PROBE_PAUSE_S 10
#define TEMP_DEFAULT  "/var/tmp" /* on a disk, where /tmp often is not */

void bench_say(const Bench *b, const char *fmt, ...)
{
    Buf text = {0};
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(&text, fmt, ap);
    va_end(ap);
    if (!b->set.json || terminal()->err_tty) hint("%s", buf_z(&text));
    buf_done(&text);
}

static void nap_s(int64_t s)
{
    for (int64_t i = 0; i < s * 10 && !bench_interrupted(); i++)
        nanosleep(&(struct timespec){0, 100 * NS_PER_MS}, NULL);
}

/* ---- the disk ---- */

int bench_probe(Bench *b, SyncProbe *ret)
{
    const char *dir = b->server.folder ? b->server.folder : b->set.data;
    *ret = (SyncProbe){0};
    return dir ? sync_probe(dir, ret) : CLI_OK;
}

/* Waits for a quick minute, as long as the patience lasts. */
static int await_disk(Bench *b)
{
    SyncProbe p;
    int64_t until = bench_now_ns() + (int64_t)(b->set.patience_s * 1e9);
    for (bool said = false;; said = true) {
        int status = bench_probe(b, &p);
        if (status != CLI_OK || !p.known) return status;
        if (p.in_memory && !said)
            bench_say(b, "the data lies in memory (tmpfs): nothing is durable there");
        if (p.p50_ns <= SLOW_SYNC_NS || bench_interrupted()) return CLI_OK;
        if (bench_now_ns() >= until) {
            bench_say(b, "the disk stays slow: these figures will not be comparable");
            return CLI_OK;
        }
        if (!said)
            bench_say(b, "the disk is slow just now: an fdatasync takes %.1f ms; waiting for it",
                      (double)p.p50_ns / 1e6);
        nap_s(PROBE_PAUSE_S);
    }
}

/* ---- the server ---- */

/* The processes behind a server on this machine: its workers tell theirs, and a worker that the
 * server started has it for a parent. */
static int find_processes(Bench *b)
{
    HttpReply r = {0};
    int status = CLI_OK;
    yyjson_val *w;
    yyjson_arr_iter it;
    b->workers_len = 0;
    b->pid = b->server.pid;
    status = client_call(&b->client, &(Call){.method = "GET", .path = "/v1/workers"}, &r);
    yyjson_doc *doc = status == CLI_OK ? reply_json(&b->client, &r, &status) : NULL;
    yyjson_arr_iter_init(yyjson_obj_get(yyjson_doc_get_root(doc), "workers"), &it);
    while ((w = yyjson_arr_iter_next(&it)) && b->workers_len < WORKERS_MAX) {
        pid_t pid = (pid_t)json_int(w, "pid", 0), parent = process_parent(pid);
        if (!b->target.loopback || !process_same_program(pid, parent))
            continue; /* elsewhere, or started by hand */
        b->workers[b->workers_len++] = pid;
        if (!b->pid) b->pid = parent;
    }
    yyjson_doc_free(doc);
    http_reply_done(&r);
    b->threads_len = process_threads(b->pid, b->threads, THREADS_MAX);
    return status;
}

int bench_connect(Bench *b)
{
    target_done(&b->target);
    if (b->set.own) {
        client_done(&b->client);
        b->client = (Client){.url = own_server_url(&b->server), .given = true};
    }
    int status = target_of(&b->client, &b->target);
    if (status == CLI_OK) status = find_processes(b);
    if (status == CLI_OK) status = bench_count_tasks(b, &b->from); /* the model is there */
    return status;
}

int bench_begin(Bench *b, const char *const *sets)
{
    int status = CLI_OK;
    bench_end(b);
    if (b->set.own) status = own_server_make(b->set.data ? b->set.data : TEMP_DEFAULT, &b->server);
    if (status == CLI_OK) status = await_disk(b);
    if (status == CLI_OK && b->set.own) status = own_server_start(&b->server, b->set.models, sets);
    return status == CLI_OK ? bench_connect(b) : status;
}

int bench_restart(Bench *b, const char *const *sets)
{
    own_server_stop(&b->server);
    int status = own_server_start(&b->server, b->set.models, sets);
    return status == CLI_OK ? bench_connect(b) : status;
}

void bench_end(Bench *b)
{
    own_server_done(&b->server);
}

int bench_pause(Bench *b, bool pause)
{
    Buf path = {0};
    HttpReply r = {0};
    put_path(&path, "/v1/models/", b->set.model, pause ? "/pause" : "/resume");
    int status = client_call(
        &b->client, &(Call){.method = "POST", .path = buf_z(&path), .type = "application/json"},
        &r);
    http_reply_done(&r);
    buf_done(&path);
    return status;
}

/* ---- counting ---- */

/* The sum of all samples whose line begins with `name` and holds `label`. */
static double metric(Str text, const char *name, const char *label)
{
    double sum = 0;
    while (text.n) {
        const char *end = memchr(text.p, '\n', text.n);
        Str line = {text.p, end ? (size_t)(end - text.p) : text.n};
        const char *value = memrchr(line.p, ' ', line.n);
        if (value && str_starts(line, str_from(name)) &&
            memmem(line.p, line.n, label, strlen(label)))
            sum += strtod(value, NULL);
        text.p += line.n + (end != NULL);
        text.n -= line.n + (end != NULL);
    }
    return sum;
}

static int count_metrics(Bench *b, Count *c)
{
    HttpReply r = {0};
    int status = client_call(&b->client, &(Call){.method = "GET", .path = "/metrics"}, &r);
    if (status == CLI_OK) {
        buf_putc(&r.body, 0);
        Str text = {(char *)r.body.data, r.body.len - 1};
        c->commits = metric(text, "headrace_log_commits_total", "");
        c->commit_s = metric(text, "headrace_log_commit_seconds_total", "");
        c->frames = metric(text, "headrace_log_frames_total", "");
        c->busy_s = metric(text, "headrace_device_seconds_total", "state=\"busy\"");
        c->idle_s = metric(text, "headrace_device_seconds_total", "state=\"idle\"");
    }
    http_reply_done(&r);
    return status;
}

int bench_count_tasks(Bench *b, Count *c)
{
    HttpReply r = {0};
    Buf path = {0};
    yyjson_val *v;
    yyjson_arr_iter it;
    put_path(&path, "/v1/models/", b->set.model, "");
    int status = client_call(&b->client, &(Call){.method = "GET", .path = buf_z(&path)}, &r);
    yyjson_doc *doc = status == CLI_OK ? reply_json(&b->client, &r, &status) : NULL;
    c->finished = c->failed = 0;
    yyjson_arr_iter_init(yyjson_obj_get(yyjson_doc_get_root(doc), "versions"), &it);
    while ((v = yyjson_arr_iter_next(&it))) {
        c->finished += (uint64_t)json_int(v, "succeeded", 0);
        c->failed += (uint64_t)json_int(v, "failed", 0);
    }
    yyjson_doc_free(doc);
    http_reply_done(&r);
    buf_done(&path);
    return status;
}

static void count_cpu(Bench *b, Count *c)
{
    ProcessUse use;
    c->at_ns = bench_now_ns();
    c->client_cpu_s = process_use(getpid(), &use) ? use.cpu_s : 0;
    c->server_cpu_s = process_use(b->pid, &use) ? use.cpu_s : 0;
    c->worker_cpu_s = c->lasting_cpu_s = 0;
    for (size_t i = 0; i < b->threads_len; i++)
        c->lasting_cpu_s += thread_cpu_s(b->pid, b->threads[i]);
    for (size_t i = 0; i < b->workers_len; i++)
        if (process_use(b->workers[i], &use)) c->worker_cpu_s += use.cpu_s;
}

int bench_count(Bench *b, Count *ret)
{
    int status = bench_count_tasks(b, ret);
    if (status == CLI_OK) status = count_metrics(b, ret);
    count_cpu(b, ret);
    return status;
}

/* The CPU is read nearest to the measured time, within which our own questions do not fall. */
static void on_mark(void *ctx, bool begins)
{
    Bench *b = ctx;
    Count *c = begins ? &b->from : &b->to;
    if (!begins) count_cpu(b, c);
    int status = bench_count_tasks(b, c);
    if (status == CLI_OK) status = count_metrics(b, c);
    if (begins) count_cpu(b, c);
    if (begins) b->ticked = *c;
    if (b->status == CLI_OK) b->status = status;
}

/* Was the disk slow in this half second? A mean over all would not tell: in the slow part there are
 * fewer commits. */
static void on_tick(void *ctx)
{
    Bench *b = ctx;
    Count now = {0}, *last = &b->ticked;
    if (count_metrics(b, &now) != CLI_OK) return;
    double commits = now.commits - last->commits, s = now.commit_s - last->commit_s;
    b->ticks++;
    if (commits > 0 && s / commits > (double)SLOW_SYNC_NS / 1e9) b->slow_ticks++;
    *last = now;
}

/* ---- rows ---- */

Row *bench_row(Bench *b, const char *name)
{
    b->rows = mem_grow(b->rows, (b->rows_len + 1) * sizeof *b->rows);
    Row *r = &b->rows[b->rows_len++];
    *r = (Row){.name = name};
    return r;
}

void row_member(Row *r, const char *name, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    buf_printf(&r->json, ",\"%s\":", name);
    buf_vprintf(&r->json, fmt, ap);
    va_end(ap);
}

Load bench_load(Bench *b, LoadKind kind)
{
    const Settings *s = &b->set;
    return (Load){.target = &b->target,
                  .kind = kind,
                  .model = s->model,
                  .input = buf_str(&b->input),
                  .echo = !strcmp(s->model, "echo"),
                  .connections = (uint32_t)(s->connections ? s->connections : 64),
                  .lines = 1,
                  .warmup_ns = (int64_t)(s->warmup_s * 1e9),
                  .duration_ns = (int64_t)(s->duration_s * 1e9),
                  .rate = s->rate};
}

static void fill_row(Bench *b, const Load *l, Row *row)
{
    const LoadResult *res = b->result;
    const Count *from = &b->from, *to = &b->to;
    ProcessUse use;
    double s = (double)res->elapsed_ns / 1e9, thousands = (double)res->tasks / 1000;
    row->whole = true;
    row->connections = l->connections;
    row->open = l->rate > 0;
    row->rate = s > 0 ? (double)res->tasks / s : 0;
    row->errors = res->errors;
    row->latency = mem_dup(&res->latency, sizeof res->latency);
    if (!row->open) {
        row->corrected = mem_new(sizeof *row->corrected);
        hist_correct(&res->latency, hist_at(&res->latency, 0.5), row->corrected);
    }
    if (thousands > 0 && from->server_cpu_s > 0)
        row->server_cpu = (to->server_cpu_s - from->server_cpu_s) / thousands;
    if (thousands > 0 && from->worker_cpu_s > 0)
        row->worker_cpu = (to->worker_cpu_s - from->worker_cpu_s) / thousands;
    if (process_use(b->pid, &use)) row->rss = use.rss;
    if (to->commits > from->commits) {
        double commits = to->commits - from->commits;
        row->commit_ms = 1000 * (to->commit_s - from->commit_s) / commits;
        row_member(row, "frames_per_commit", "%.1f", (to->frames - from->frames) / commits);
    }
    row_member(row, "measured", "%llu", (unsigned long long)res->tasks);
    row_member(row, "elapsed_s", "%.3f", s);
    if (thousands > 0)
        row_member(row, "client_cpu_s_per_1000", "%.6f",
                   (to->client_cpu_s - from->client_cpu_s) / thousands);
    if (row->open) {
        row_member(row, "rate_asked", "%.1f", l->rate);
        row_member(row, "unanswered_at_end", "%llu", (unsigned long long)res->late);
        if (row->rate < 0.98 * l->rate)
            buf_printf(&row->note,
                       "%.0f tasks/s are more than it takes: at the end %llu requests were not "
                       "answered yet; ",
                       l->rate, (unsigned long long)res->late);
    }
}

static int run_once(Bench *b, const Load *l, Row *row)
{
    Load load = *l;
    load.mark = on_mark;
    load.tick = on_tick;
    load.mark_ctx = b;
    b->ticks = b->slow_ticks = 0;
    int status = bench_probe(b, &row->before);
    if (status == CLI_OK) status = load_run(&load, b->result);
    if (status == CLI_OK) status = bench_probe(b, &row->after);
    if (status != CLI_OK) return status;
    row->slow_disk = row->before.p50_ns > SLOW_SYNC_NS || row->after.p50_ns > SLOW_SYNC_NS ||
                     (l->lines == 1 && b->slow_ticks * 10 > b->ticks);
    return b->result->errors ? CLI_FAILED : CLI_OK;
}

int bench_run(Bench *b, const Load *l, Row *row)
{
    int64_t until = bench_now_ns() + (int64_t)(b->set.patience_s * 1e9);
    int status;
    for (;;) {
        status = run_once(b, l, row);
        /* A load with a gate goes on from where it is: it cannot be repeated. */
        if (status != CLI_OK || !row->slow_disk || l->allowed || bench_now_ns() >= until) break;
        bench_say(b, "the disk was slow meanwhile: again …");
        if ((status = await_disk(b)) != CLI_OK) break;
    }
    if (b->result->elapsed_ns && b->result->status == CLI_OK) fill_row(b, l, row);
    return status;
}
