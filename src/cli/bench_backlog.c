/* The scenarios that ask how much: memory of queued tasks, a restart with them, and whether a long
 * queue makes each task dearer.
 *
 * backlog: the queue is kept at N tasks of one model and one class: as many are submitted, by
 * tasks:batch, as the worker has taken out at the other end. So every task that counts has gone
 * into a queue of N and come out of it; a short and a long queue see the same traffic. (A paused
 * model's backlog beside the traffic would only lie there; a backlog of a lower class would run, or
 * not, as time allows, and change what is measured; single submits would not keep up with the
 * worker, and the queue would not keep its length.)
 *
 * Threads that live throughout, the loop's and the log's, are told from those that come and go: a
 * snapshot's. A snapshot of a long queue is large but rare, so that whether one falls into the
 * measured time says little; the ratio is given with and without. */
#include "cli/bench.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define MEMORY_TASKS  1000000
#define BACKLOG_SHORT 10000
#define BACKLOG_LONG  10000000
#define FILL_LINES    1000
#define FILL_CONNS    4
#define QUIET_SHARE   0.03 /* of a core: the server does nothing any more */
#define QUIET_MAX_S   120

/* Options of a server with room for so many; they lie in text. */
static void room_for(uint64_t tasks, char text[2][64], const char *sets[3])
{
    uint64_t room = tasks * 2 + 1000000;
    snprintf(text[0], 64, "limits.queue_max=%llu", (unsigned long long)room);
    snprintf(text[1], 64, "limits.tenant_queued_max=%llu", (unsigned long long)room);
    sets[0] = text[0];
    sets[1] = text[1];
    sets[2] = NULL;
}

/* Queues so many tasks by tasks:batch. */
static int fill(Bench *b, uint64_t tasks, LoadResult *res)
{
    Load l = bench_load(b, LOAD_ENQUEUE);
    l.connections = FILL_CONNS;
    l.lines = (uint32_t)MIN((uint64_t)FILL_LINES, tasks);
    l.warmup_ns = l.duration_ns = 0;
    l.tasks_max = tasks;
    l.rate = 0;
    bench_say(b, "queueing %llu tasks …", (unsigned long long)tasks);
    int status = load_run(&l, res);
    if (status == CLI_OK && res->errors) status = CLI_REFUSED;
    return status;
}

/* Until the server rests: what it does behind (snapshots) belongs to the filling. */
static void await_quiet(Bench *b)
{
    ProcessUse before, after;
    for (int s = 0; s < QUIET_MAX_S && !bench_interrupted(); s++) {
        if (!process_use(b->pid, &before)) return;
        nanosleep(&(struct timespec){1, 0}, NULL);
        if (!process_use(b->pid, &after) || after.cpu_s - before.cpu_s < QUIET_SHARE) return;
    }
}

static double mib(uint64_t bytes)
{
    return (double)bytes / (double)MIB;
}

/* ---- memory ---- */

static int measure_memory(Bench *b, uint64_t tasks)
{
    ProcessUse before = {0}, after = {0};
    bool known = process_use(b->pid, &before);
    int status = fill(b, tasks, b->result);
    if (status != CLI_OK) return status;
    await_quiet(b);
    Row *row = bench_row(b, "memory");
    row->whole = true;
    tasks = b->result->tasks_all;
    row->rate = (double)tasks / ((double)b->result->elapsed_ns / 1e9);
    row->connections = FILL_CONNS;
    row_member(row, "tasks", "%llu", (unsigned long long)tasks);
    row_member(row, "payload_bytes", "%zu", b->input.len);
    put_grouped(&row->note, tasks);
    buf_printf(&row->note, " queued tasks of %zu bytes", b->input.len);
    if (!known || !process_use(b->pid, &after)) {
        buf_puts(&row->note, "; the server is not on this machine: its memory is not known");
        return CLI_OK;
    }
    row->rss = after.rss;
    double each = ((double)after.rss - (double)before.rss) / (double)tasks;
    buf_printf(&row->note, ": from %.0f to %.0f MiB, %.0f bytes a task; peak %.0f MiB",
               mib(before.rss), mib(after.rss), each, mib(after.rss_peak));
    row_member(row, "rss_before_bytes", "%llu", (unsigned long long)before.rss);
    row_member(row, "rss_peak_bytes", "%llu", (unsigned long long)after.rss_peak);
    row_member(row, "bytes_per_task", "%.1f", each);
    return CLI_OK;
}

static int measure_restart(Bench *b, uint64_t tasks, const char *const *sets)
{
    ProcessUse use;
    bench_say(b, "starting again with them …");
    int status = bench_restart(b, sets);
    if (status != CLI_OK) return status;
    Row *row = bench_row(b, "restart");
    row->whole = true;
    double s = (double)b->server.start_ns / 1e9;
    if (process_use(b->pid, &use)) row->rss = use.rss;
    buf_printf(&row->note, "%.2f s from the start of the process until it was ready, with ", s);
    put_grouped(&row->note, tasks);
    buf_puts(&row->note, " queued tasks");
    row_member(row, "tasks", "%llu", (unsigned long long)tasks);
    row_member(row, "ready_s", "%.4f", s);
    if (row->rss) row_member(row, "rss_peak_bytes", "%llu", (unsigned long long)use.rss_peak);
    return CLI_OK;
}

int scenario_memory(Bench *b)
{
    char text[2][64];
    const char *sets[3];
    uint64_t tasks = b->set.tasks ? b->set.tasks : MEMORY_TASKS;
    room_for(tasks, text, sets);
    int status = bench_begin(b, sets);
    if (status == CLI_OK) status = bench_pause(b, true);
    if (status == CLI_OK) status = measure_memory(b, tasks);
    if (status == CLI_OK && b->set.own) status = measure_restart(b, b->result->tasks_all, sets);
    if (!b->set.own && b->client.url) {
        int resumed = bench_pause(b, false);
        if (status == CLI_OK) status = resumed;
    }
    return status;
}

/* ---- backlog ---- */

typedef struct {
    Bench *b;
    uint64_t want;   /* tasks that should be queued */
    uint64_t queued; /* before the load began */
    uint64_t before; /* finished then */
    uint64_t there;  /* queued when it was last asked */
    int status;
} Level;

/* As many as have left the queue. */
static uint64_t level_allowed(void *ctx)
{
    Level *v = ctx;
    Count now;
    if (v->status == CLI_OK) v->status = bench_count_tasks(v->b, &now);
    if (v->status != CLI_OK) return 0;
    uint64_t in = v->queued + v->b->result->tasks_all, out = now.finished - v->before;
    v->there = in > out ? in - out : 0;
    return v->want > v->there ? (v->want - v->there) / v->b->set.lines : 0;
}

typedef struct {
    double all, lasting; /* server CPU seconds for 1,000 tasks */
} Cost;

/* What counts is what came out at the other end. */
static int cost_of(Bench *b, uint64_t tasks, const Level *level, Row *row, Cost *ret)
{
    double finished = (double)(b->to.finished - b->from.finished),
           s = (double)(b->to.at_ns - b->from.at_ns) / 1e9;
    if (finished <= 0) return fail(CLI_FAILED, "no task was finished: does a worker run?");
    ret->all = (b->to.server_cpu_s - b->from.server_cpu_s) / finished * 1000;
    ret->lasting = (b->to.lasting_cpu_s - b->from.lasting_cpu_s) / finished * 1000;
    mem_free(row->latency);
    mem_free(row->corrected);
    row->latency = row->corrected = NULL; /* of the batches: of no interest here */
    row->rate = finished / s;
    row->server_cpu = ret->all;
    row->worker_cpu = (b->to.worker_cpu_s - b->from.worker_cpu_s) / finished * 1000;
    put_grouped(&row->note, tasks);
    buf_puts(&row->note, " queued throughout");
    row_member(row, "queued", "%llu", (unsigned long long)tasks);
    row_member(row, "queued_at_end", "%llu", (unsigned long long)level->there);
    row_member(row, "lasting_cpu_s_per_1000", "%.6f", ret->lasting);
    if (level->there * 2 < tasks || level->there > tasks * 2) {
        buf_puts(&row->note, "; but at the end there were ");
        put_grouped(&row->note, level->there);
    }
    return CLI_OK;
}

static int measure_backlog(Bench *b, const char *name, uint64_t tasks, Cost *ret)
{
    Count start;
    LoadResult *filled = mem_new(sizeof *filled);
    Level level = {.b = b, .want = tasks};
    int status = bench_count(b, &start);
    if (status == CLI_OK) status = bench_pause(b, true);
    if (status == CLI_OK) status = fill(b, tasks, filled);
    level.before = start.finished;
    level.queued = filled->tasks_all;
    mem_free(filled);
    if (status == CLI_OK) await_quiet(b);
    if (status == CLI_OK) status = bench_pause(b, false);
    if (status != CLI_OK) return status;
    Load l = bench_load(b, LOAD_ENQUEUE);
    l.connections = FILL_CONNS;
    l.lines = (uint32_t)b->set.lines;
    l.rate = 0;
    l.allowed = level_allowed;
    l.allowed_ctx = &level;
    Row *row = bench_row(b, name);
    bench_say(b, "measuring with them queued …");
    status = bench_run(b, &l, row);
    if (status == CLI_OK) status = level.status;
    if (status != CLI_OK) row->whole = false;
    return status == CLI_OK ? cost_of(b, tasks, &level, row, ret) : status;
}

int scenario_backlog(Bench *b)
{
    char text[2][64];
    const char *sets[3];
    uint64_t tasks = b->set.tasks ? b->set.tasks : BACKLOG_LONG;
    Cost few = {0}, many = {0};
    room_for(tasks, text, sets);
    if (!b->set.own) {
        fail(CLI_USAGE, "backlog fills a server's queue: only with a server of its own");
        hint("leave --server out: then bench starts one");
        return CLI_USAGE;
    }
    int status = bench_begin(b, sets);
    if (status == CLI_OK) status = measure_backlog(b, "backlog short", BACKLOG_SHORT, &few);
    if (status == CLI_OK) status = bench_begin(b, sets);
    if (status == CLI_OK) status = measure_backlog(b, "backlog long", tasks, &many);
    if (status != CLI_OK || few.lasting <= 0) return status;
    Row *row = &b->rows[b->rows_len - 1];
    buf_printf(&row->note,
               "; %.2f times the server CPU of the short one, %.2f times without "
               "snapshots",
               many.all / few.all, many.lasting / few.lasting);
    row_member(row, "cost_ratio", "%.4f", many.all / few.all);
    row_member(row, "cost_ratio_lasting", "%.4f", many.lasting / few.lasting);
    return CLI_OK;
}
