/* The scenarios that ask how fast: submits, round trips, batches, one client, a busy device. */
#include "cli/bench.h"

#include <string.h>
#include <time.h>

#define BATCH_CONNECTIONS 32
#define SETTLE_S          30

/* A paused model takes no CPU from what is measured. Somebody else's server is left as it is. */
static int quieten(Bench *b)
{
    return b->set.own ? bench_pause(b, true) : CLI_OK;
}

static void note_commits(Row *row)
{
    if (row->commit_ms > 0)
        buf_printf(&row->note, "a commit took %.2f ms in the mean", row->commit_ms);
}

static int scenario_submit(Bench *b)
{
    int status = bench_begin(b, NULL);
    if (status == CLI_OK) status = quieten(b);
    if (status != CLI_OK) return status;
    Load l = bench_load(b, LOAD_SUBMIT);
    Row *row = bench_row(b, "submit");
    buf_printf(&row->note, "a task a request, answered once on disk%s; ",
               b->set.own ? "; the model is paused meanwhile" : "");
    status = bench_run(b, &l, row);
    note_commits(row);
    return status;
}

static int scenario_roundtrip(Bench *b)
{
    int status = bench_begin(b, NULL);
    if (status != CLI_OK) return status;
    Load l = bench_load(b, LOAD_ROUNDTRIP);
    Row *row = bench_row(b, "roundtrip");
    buf_puts(&row->note, "a task a request (Prefer: wait), answered with its result; ");
    status = bench_run(b, &l, row);
    note_commits(row);
    return status;
}

/* ---- batches ---- */

/* Does tasks:batch wait for the results when it is asked to? */
static int ask_for_waiting(Bench *b, bool *ret)
{
    static const char done[] = "{\"status\":200,";
    HttpReply r = {0};
    Buf body = {0};
    buf_printf(&body, "{\"model\":\"%s\",\"input\":", b->set.model);
    buf_put_str(&body, buf_str(&b->input));
    buf_puts(&body, "}\n");
    int status = client_call(&b->client,
                             &(Call){.method = "POST",
                                     .path = "/v1/tasks:batch",
                                     .type = "application/x-ndjson",
                                     .header = "Prefer: wait=20",
                                     .body = buf_str(&body)},
                             &r);
    *ret = status == CLI_OK && str_starts(buf_str(&r.body), STR(done));
    buf_done(&body);
    http_reply_done(&r);
    return status;
}

/* Every task that was accepted since `before` has succeeded, sooner or later. Status, said. */
static int all_succeeded(Bench *b, const Count *before, uint64_t tasks)
{
    Count now;
    int64_t until = bench_now_ns() + SETTLE_S * NS_PER_S;
    for (;;) {
        int status = bench_count(b, &now);
        if (status != CLI_OK) return status;
        if (now.failed > before->failed)
            return fail(CLI_FAILED, "%llu tasks failed",
                        (unsigned long long)(now.failed - before->failed));
        if (now.finished - before->finished >= tasks) return CLI_OK;
        if (bench_now_ns() > until)
            return fail(CLI_FAILED, "%llu tasks were accepted, but only %llu succeeded",
                        (unsigned long long)tasks,
                        (unsigned long long)(now.finished - before->finished));
        nanosleep(&(struct timespec){0, 50 * NS_PER_MS}, NULL);
    }
}

static int scenario_batch(Bench *b)
{
    bool waits = false;
    Count before;
    int status = bench_begin(b, NULL);
    if (status == CLI_OK) status = ask_for_waiting(b, &waits);
    if (status != CLI_OK) return status;
    Load l = bench_load(b, waits ? LOAD_BATCH : LOAD_BATCH_GET);
    l.lines = (uint32_t)b->set.lines;
    if (!b->set.connections) l.connections = BATCH_CONNECTIONS;
    Row *row = bench_row(b, "batch");
    buf_printf(&row->note, "%u tasks a request; ", l.lines);
    row_member(row, "batch", "%u", l.lines);
    row_member(row, "waits", waits ? "true" : "false");
    nanosleep(&(struct timespec){0, 200 * NS_PER_MS}, NULL); /* what was asked with has ended */
    status = bench_count(b, &before);
    if (status == CLI_OK) status = bench_run(b, &l, row);
    if (status == CLI_OK) status = all_succeeded(b, &before, b->result->tasks_all);
    buf_puts(&row->note, waits ? "each line is answered with its result; "
                               : "done when a GET saw the last one succeed, and the server's "
                                 "counters all of them; ");
    note_commits(row);
    return status;
}

/* ---- one client alone ---- */

static int one_client(Bench *b, const char *name, LoadKind kind, int syncs)
{
    Load l = bench_load(b, kind);
    l.connections = 1;
    l.rate = 0;
    Row *row = bench_row(b, name);
    int status = bench_run(b, &l, row);
    if (status != CLI_OK) return status;
    buf_puts(&row->note, kind == LOAD_SUBMIT ? "one client, answered once on disk; "
                                             : "one client, answered with the result; ");
    if (!row->before.known) {
        buf_puts(&row->note, "name the server's --data folder for the disk's share");
        return CLI_OK;
    }
    /* The disk's pace around it: the mean of the medians before and after. */
    double sync_ms = (double)(row->before.p50_ns + row->after.p50_ns) / 2e6,
           p50_ms = (double)hist_at(row->latency, 0.5) / 1e6;
    buf_printf(&row->note, "p50 is %s of %.3f ms and %.3f ms",
               syncs == 1 ? "an fdatasync" : "two fdatasyncs", sync_ms, p50_ms - syncs * sync_ms);
    row_member(row, "fdatasync_p50_ms", "%.4f", sync_ms);
    row_member(row, "beyond_fdatasync_ms", "%.4f", p50_ms - syncs * sync_ms);
    return CLI_OK;
}

static int scenario_latency(Bench *b)
{
    int status = bench_begin(b, NULL);
    if (status == CLI_OK) status = quieten(b);
    if (status == CLI_OK) status = one_client(b, "latency submit", LOAD_SUBMIT, 1);
    if (b->set.own && status == CLI_OK) status = bench_begin(b, NULL); /* nothing is queued */
    if (status == CLI_OK) status = one_client(b, "latency result", LOAD_ROUNDTRIP, 2);
    return status;
}

/* ---- a busy device ---- */

static int scenario_busy(Bench *b)
{
    int status = bench_begin(b, NULL);
    if (status != CLI_OK) return status;
    Load l = bench_load(b, LOAD_ROUNDTRIP);
    l.rate = 0;
    Row *row = bench_row(b, "busy");
    status = bench_run(b, &l, row);
    double busy = b->to.busy_s - b->from.busy_s, idle = b->to.idle_s - b->from.idle_s;
    if (status != CLI_OK) return status;
    double share = busy + idle > 0 ? busy / (busy + idle) : 0;
    buf_printf(&row->note, "%u tasks wait or run at any time; the devices were busy %.2f %% of it",
               l.connections, 100 * share);
    row_member(row, "busy_share", "%.5f", share);
    /* The server's ledger says when a device had tasks; the tasks say when its engine worked. */
    if (b->result->device_ms > 0) {
        double engine = b->result->device_ms / 1000 / (busy + idle);
        buf_printf(&row->note, ", their engines %.1f %%", 100 * engine);
        row_member(row, "engine_share", "%.5f", engine);
    }
    return CLI_OK;
}

const Scenario scenarios[] = {
    {"submit", scenario_submit, true},    {"roundtrip", scenario_roundtrip, true},
    {"batch", scenario_batch, true},      {"latency", scenario_latency, true},
    {"busy", scenario_busy, false},       {"memory", scenario_memory, false},
    {"backlog", scenario_backlog, false}, {NULL, NULL, false},
};
