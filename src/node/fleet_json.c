/* fleet_json.c: what the fleet looks like from outside: workers, models, queues, metrics. */
#include "node/fleet.h"
#include "node/inside.h"

#include "wire/json.h"

static void put_name(Buf *b, const char *key, Str value)
{
    buf_printf(b, "\"%s\":", key);
    json_put_str(b, value);
}

static double seconds(int64_t ns)
{
    return (double)ns / 1e9;
}

/* ---- workers ---- */

const char *worker_standing(const Worker *w)
{
    if (!w->stream) return w->draining ? "drained" : "disconnected";
    if (w->draining) return "draining";
    if (w->cordoned) return "cordoned";
    return w->suspected ? "suspected" : "ready";
}

static void device_json(Fleet *f, const Device *d, Buf *b)
{
    const Core *c = f->shard->core;
    SchedDeviceStats st;
    sched_device_stats(f->shard->sched, d->id, shard_now_ns(f->shard), &st);
    int64_t age = st.busy_ns + st.idle_ns;
    buf_printf(b, "{\"index\":%u,", d->index);
    put_name(b, "kind", str_from(d->kind));
    buf_printf(
        b,
        ",\"memory_bytes\":%llu,\"threads\":%u,\"running\":%u,\"finished\":%llu,\"busy_s\":%.3f,"
        "\"idle_s\":%.3f,\"idle_share\":%.4f,\"loaded\":[",
        (unsigned long long)d->memory_bytes, d->threads, d->running,
        (unsigned long long)d->finished_total, seconds(st.busy_ns), seconds(st.idle_ns),
        age ? (double)st.idle_ns / (double)age : 0.0);
    for (uint32_t i = 0; i < d->residents_len; i++) {
        const Resident *r = &d->residents[i];
        buf_puts(b, i ? ",{" : "{");
        put_name(b, "name", core_sym(c, r->name));
        buf_putc(b, ',');
        put_name(b, "version", core_sym(c, r->version));
        buf_printf(b, ",\"load_ms\":%.1f,\"memory_bytes\":%llu}", (double)r->load_ns / 1e6,
                   (unsigned long long)r->memory_bytes);
    }
    buf_puts(b, "]}");
}

static void worker_json(Fleet *f, const Worker *w, Buf *b)
{
    buf_putc(b, '{');
    put_name(b, "id", str_from(w->id));
    buf_putc(b, ',');
    put_name(b, "name", str_from(w->name));
    buf_putc(b, ',');
    put_name(b, "region", str_from(w->region));
    buf_putc(b, ',');
    put_name(b, "status", str_from(worker_standing(w)));
    buf_putc(b, ',');
    put_name(b, "runtime", str_from(w->runtime));
    buf_printf(b, ",\"pid\":%lld,\"models\":%u,\"running\":%u,\"connected_at\":", (long long)w->pid,
               w->models_len, w->leases_len);
    json_put_time(b, w->since_ns);
    buf_puts(b, ",\"seen_at\":");
    json_put_time(b, w->seen_ns);
    buf_puts(b, ",\"devices\":[");
    for (uint32_t i = 0; i < w->devices_len; i++) {
        if (i) buf_putc(b, ',');
        device_json(f, w->devices[i], b);
    }
    buf_puts(b, "]}");
}

static void trouble_json(const Trouble *t, Buf *b)
{
    buf_puts(b, "{\"id\":null,");
    put_name(b, "name", str_from(t->name));
    buf_printf(b, ",\"status\":\"crash_loop\",\"crashes\":%llu,\"since\":",
               (unsigned long long)t->crashes);
    json_put_time(b, t->since_ns);
    buf_puts(b, ",\"models\":0,\"running\":0,\"devices\":[]}");
}

void fleet_workers_json(Fleet *f, Str only_id, Buf *ret)
{
    if (only_id.n) {
        const Worker *w = fleet_worker_by_id(f, only_id);
        if (w) worker_json(f, w, ret);
        return;
    }
    bool first = true;
    buf_putc(ret, '[');
    LIST_FOR (w, &f->workers, Worker, in_fleet) {
        if (!first) buf_putc(ret, ',');
        first = false;
        worker_json(f, w, ret);
    }
    LIST_FOR (t, &f->troubles, Trouble, in_fleet) {
        if (!trouble_is_loop(t)) continue;
        if (!first) buf_putc(ret, ',');
        first = false;
        trouble_json(t, ret);
    }
    buf_putc(ret, ']');
}

/* ---- models: members that the gateway puts behind its own ---- */

/* What it takes where it takes least: one worker's word is not everybody's (F4). */
static uint64_t model_needs(const Fleet *f, const ModelState *m)
{
    uint64_t least = UINT64_MAX;
    for (uint32_t i = 0; i < f->devices_len; i++) {
        const DeviceModel *dm = f->devices[i] ? device_model(f->devices[i], m->name, m->version)
                                              : NULL;
        if (dm) least = MIN(least, dm->needs);
    }
    return least == UINT64_MAX ? m->memory_bytes : least;
}

void fleet_model_json(Fleet *f, const ModelEntry *m, Buf *b)
{
    const ModelState *st = fleet_model_find(f, m->name, m->version);
    uint32_t able = 0;
    bool first = true;
    buf_puts(b, ",\"loaded_on\":[");
    LIST_FOR (w, &f->workers, Worker, in_fleet) {
        bool has = false;
        for (uint32_t i = 0; i < w->models_len; i++)
            has |= w->models[i].name == m->name && w->models[i].version == m->version;
        able += has && w->stream;
        for (uint32_t i = 0; i < w->devices_len; i++)
            for (uint32_t k = 0; k < w->devices[i]->residents_len; k++) {
                const Resident *r = &w->devices[i]->residents[k];
                if (r->name != m->name || r->version != m->version) continue;
                buf_puts(b, first ? "{" : ",{");
                first = false;
                put_name(b, "worker", str_from(w->name));
                buf_printf(b, ",\"device\":%u,\"memory_bytes\":%llu}", w->devices[i]->index,
                           (unsigned long long)r->memory_bytes);
            }
    }
    buf_printf(b, "],\"workers\":%u,\"schedulable\":%s", able,
               sched_model_starts(f->shard->sched, m->name, m->version) ? "true" : "false");
    fleet_reason_json(f, m->name, m->version, b);
    if (!st) return;
    fleet_warm_json(f, st, b);
    buf_printf(b, ",\"max_batch\":%u,\"batch_delay_ms\":%u,\"continuous\":%s,\"memory_bytes\":%llu",
               st->max_batch, st->batch_delay_ms, st->continuous ? "true" : "false",
               (unsigned long long)model_needs(f, st));
    if (st->load_ns) buf_printf(b, ",\"load_ms\":%.1f", (double)st->load_ns / 1e6);
    if (st->run_ns) buf_printf(b, ",\"run_ms\":%.3f", (double)st->run_ns / 1e6);
    buf_puts(b, ",\"unit_ms\":{");
    first = true;
    for (uint32_t i = 0; i < ARRAY_LEN(st->unit_ns); i++) {
        if (!st->unit_ns[i]) continue;
        buf_printf(b, "%s\"%u\":%.3f", first ? "" : ",", 1u << i, (double)st->unit_ns[i] / 1e6);
        first = false;
    }
    buf_printf(b, "},\"succeeded\":%llu,\"failed\":%llu", (unsigned long long)st->succeeded,
               (unsigned long long)st->failed);
    if (st->problem) {
        buf_putc(b, ',');
        put_name(b, "problem", str_from(st->problem));
    }
}

/* ---- queues ---- */

typedef struct {
    Sym model, version;
    uint64_t ready[CLASSES], delayed, running;
    int64_t oldest_ns;
} QueueRow;

#define QUEUE_LOOK_MAX 100000 /* tasks looked at for one answer: a bounded pause */

void fleet_queues_json(Fleet *f, Buf *ret)
{
    const Core *c = f->shard->core;
    QueueRow *rows = NULL;
    size_t len = 0, looked = 0;
    int64_t now = shard_now_ns(f->shard);
    uint64_t live = core_count(c, TASK_QUEUED) + core_count(c, TASK_RUNNING);
    for (Task *t = core_older(c, UINT64_MAX); t && live && looked < QUEUE_LOOK_MAX;
         t = core_older(c, t->no), looked++) {
        if (task_state_terminal((TaskState)t->state)) continue;
        live--;
        size_t i = 0;
        while (i < len && (rows[i].model != t->model || rows[i].version != t->version)) i++;
        if (i == len) {
            rows = mem_grow(rows, (len + 1) * sizeof *rows);
            rows[len++] = (QueueRow){.model = t->model, .version = t->version};
        }
        if (t->state == TASK_RUNNING)
            rows[i].running++;
        else if (!t->ready)
            rows[i].delayed++;
        else {
            rows[i].ready[t->class]++;
            rows[i].oldest_ns = rows[i].oldest_ns ? MIN(rows[i].oldest_ns, t->created_ns)
                                                  : t->created_ns;
        }
    }
    buf_putc(ret, '[');
    for (size_t i = 0; i < len; i++) {
        buf_puts(ret, i ? ",{" : "{");
        put_name(ret, "model", core_sym(c, rows[i].model));
        buf_putc(ret, ',');
        put_name(ret, "version", core_sym(c, rows[i].version));
        uint64_t queued = 0;
        buf_puts(ret, ",\"ready\":{");
        for (int k = 0; k < CLASSES; k++) {
            queued += rows[i].ready[k];
            buf_printf(ret, "%s\"%s\":%llu", k ? "," : "", task_class_name((TaskClass)k),
                       (unsigned long long)rows[i].ready[k]);
        }
        buf_printf(ret, "},\"queued\":%llu,\"delayed\":%llu,\"running\":%llu,\"oldest_age_s\":%.3f",
                   (unsigned long long)queued, (unsigned long long)rows[i].delayed,
                   (unsigned long long)rows[i].running,
                   rows[i].oldest_ns ? seconds(now - rows[i].oldest_ns) : 0.0);
        if (queued) fleet_reason_json(f, rows[i].model, rows[i].version, ret);
        buf_putc(ret, '}');
    }
    buf_putc(ret, ']');
    mem_free(rows);
}

/* ---- estimates ---- */

QueueEstimate fleet_estimate(const Fleet *f, const Task *t)
{
    QueueEstimate e = {.ahead = SIZE_MAX};
    if (!t->ready) return e;
    e.ahead = sched_ahead(f->shard->sched, t);
    const ModelState *m = fleet_model_find(f, t->model, t->version);
    size_t devices = 0;
    LIST_FOR (w, &f->workers, Worker, in_fleet)
        if (w->stream) devices += w->devices_len;
    if (m && m->run_ns && devices && sched_model_starts(f->shard->sched, t->model, t->version))
        e.estimated_start_ns = shard_now_ns(f->shard) +
                               (int64_t)MIN((double)e.ahead * (double)m->run_ns /
                                                (double)(devices * m->max_batch),
                                            1e18);
    return e;
}

/* ---- metrics ---- */

static void metric(Buf *b, const char *name, const char *type, const char *help)
{
    buf_printf(b, "# HELP headrace_%s %s\n# TYPE headrace_%s %s\n", name, help, name, type);
}

static void counter(Buf *b, const char *name, const char *help, uint64_t v)
{
    metric(b, name, "counter", help);
    buf_printf(b, "headrace_%s %llu\n", name, (unsigned long long)v);
}

static void gauge(Buf *b, const char *name, const char *help, double v)
{
    metric(b, name, "gauge", help);
    buf_printf(b, "headrace_%s %.9g\n", name, v);
}

static void put_blocked(Fleet *f, Buf *b)
{
    const Core *c = f->shard->core;
    TableNode *n;
    metric(b, "queue_blocked", "gauge", "Tasks that cannot start now, by model and reason.");
    for (TableIter it = {0}; (n = table_each(&f->models, &it));) {
        const ModelState *m = CONTAINER_OF(n, ModelState, by_name);
        SchedStanding st;
        sched_model_standing(f->shard->sched, m->name, m->version, &st);
        if (!st.ready || st.starts) continue;
        WaitReason why = fleet_why_waits(f, m->name, m->version, NULL);
        buf_puts(b, "headrace_queue_blocked{model=");
        json_put_str(b, core_sym(c, m->name));
        buf_puts(b, ",version=");
        json_put_str(b, core_sym(c, m->version));
        buf_printf(b, ",reason=\"%s\"} %zu\n", wait_reason_name(why), st.ready);
    }
}

static void put_device_label(const Device *d, const char *name, Buf *b)
{
    buf_printf(b, "headrace_%s{worker=", name);
    json_put_str(b, str_from(d->worker->name));
    buf_printf(b, ",device=\"%u\"", d->index);
}

static void put_memory(Fleet *f, Buf *b)
{
    metric(b, "device_memory_bytes", "gauge", "Memory for models on a device: all, and taken.");
    for (uint32_t i = 0; i < f->devices_len; i++) {
        const Device *d = f->devices[i];
        if (!d) continue;
        uint64_t taken = 0;
        for (uint32_t k = 0; k < d->residents_len; k++) taken += d->residents[k].memory_bytes;
        put_device_label(d, "device_memory_bytes", b);
        buf_printf(b, ",kind=\"all\"} %llu\n", (unsigned long long)d->memory_bytes);
        put_device_label(d, "device_memory_bytes", b);
        buf_printf(b, ",kind=\"taken\"} %llu\n", (unsigned long long)taken);
    }
}

void fleet_metrics(Fleet *f, Buf *b)
{
    Shard *s = f->shard;
    const Core *c = s->core;
    const Tenant *tenants;
    size_t n = core_tenants(c, &tenants);
    uint64_t submitted = 0;
    for (size_t i = 0; i < n; i++) submitted += tenants[i].submitted_total;
    counter(b, "tasks_submitted_total", "Tasks accepted, since the log began.", submitted);
    metric(b, "tasks", "gauge", "Tasks in memory by state.");
    for (int i = 0; i < TASK_STATES; i++)
        buf_printf(b, "headrace_tasks{state=\"%s\"} %llu\n", task_state_name((TaskState)i),
                   (unsigned long long)core_count(c, (TaskState)i));
    gauge(b, "queue_ready", "Tasks that could start now.", (double)core_ready(c));
    gauge(b, "queue_delayed", "Queued tasks whose time has not come.", (double)core_delayed(c));
    counter(b, "leases_total", "Leases given.", f->leases_total);
    counter(b, "batches_total", "Batches dispatched.", f->batches_total);
    counter(b, "reports_fenced_total", "Reports with a stale token.", f->fenced_total);
    gauge(b, "leases_held", "Leases held by workers.", (double)f->leases.len);
    gauge(b, "workers", "Workers with an open stream.", (double)fleet_streams(f));
    metric(b, "device_seconds_total", "counter", "Device time by state.");
    for (uint32_t i = 0; i < f->devices_len; i++) {
        if (!f->devices[i]) continue;
        SchedDeviceStats st;
        sched_device_stats(s->sched, f->devices[i]->id, shard_now_ns(s), &st);
        const char *name = f->devices[i]->worker->name;
        buf_puts(b, "headrace_device_seconds_total{worker=");
        json_put_str(b, str_from(name));
        buf_printf(b, ",device=\"%u\",state=\"busy\"} %.3f\n", f->devices[i]->index,
                   seconds(st.busy_ns));
        buf_puts(b, "headrace_device_seconds_total{worker=");
        json_put_str(b, str_from(name));
        buf_printf(b, ",device=\"%u\",state=\"idle\"} %.3f\n", f->devices[i]->index,
                   seconds(st.idle_ns));
    }
    put_memory(f, b);
    put_blocked(f, b);
    LogStats log;
    log_stats(s->log, &log);
    counter(b, "log_commits_total", "Group commits.", log.commits);
    counter(b, "log_frames_total", "Frames committed.", log.committed_frames);
    counter(b, "log_bytes_total", "Bytes committed.", log.committed_bytes);
    metric(b, "log_commit_seconds_total", "counter", "Time spent in commits.");
    buf_printf(b, "headrace_log_commit_seconds_total %.6f\n", seconds(log.commit_ns_sum));
    gauge(b, "log_disk_bytes", "Bytes of log and snapshots on disk.", (double)log.bytes);
    gauge(b, "log_epoch", "The current claim.", (double)core_epoch(c));
    gauge(b, "payload_bytes", "Inputs and outputs of tasks in the core, in memory or spilled.",
          (double)core_payload_bytes(c));
    counter(b, "log_misfits_total", "Records that were no-ops.", core_misfits(c));
    gauge(b, "leader", "1 while this server may commit.", s->failed ? 0 : 1);
    metric(b, "build_info", "gauge", "The program's version.");
    buf_printf(b, "headrace_build_info{version=\"%s\"} 1\n", HR_VERSION);
}
