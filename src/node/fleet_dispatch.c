/* fleet_dispatch.c: the scheduler's decisions become leases on record and lines for workers. */
#include "node/inside.h"

#include "wire/json.h"

static void put_task(Fleet *f, const Task *t, int64_t now, Buf *b)
{
    const Core *c = f->shard->core;
    TaskIdText id;
    core_task_id(c, t, &id);
    buf_puts(b, "{\"id\":\"");
    buf_puts(b, id.z);
    buf_puts(b, "\",\"token\":");
    json_put_u64(b, t->run->token);
    buf_puts(b, ",\"attempt\":");
    json_put_u64(b, t->run->attempt);
    if (t->deadline_ns) {
        buf_puts(b, ",\"deadline_in_ms\":");
        json_put_i64(b, MAX(t->deadline_ns - now, 0) / NS_PER_MS);
    }
    if (t->extra && t->extra->traceparent.len) {
        buf_puts(b, ",\"traceparent\":");
        json_put_str(b, buf_str(&t->extra->traceparent));
    }
    if (t->extra && t->extra->checkpoint_unit) {
        const File *file = core_file(c, t->extra->checkpoint_file);
        if (file)
            buf_printf(b, ",\"resume\":{\"unit\":%llu,\"file\":\"%s\"}",
                       (unsigned long long)t->extra->checkpoint_unit, file->id);
    }
    buf_puts(b, ",\"input\":");
    if (payload_is_there(&t->input))
        buf_put_str(b, core_payload(c, &t->input));
    else
        buf_puts(b, "null");
    buf_putc(b, '}');
}

/* The batch could not be leased: its tasks go back to the ready queues (those that still are
 * ready). */
static void put_back(Fleet *f, const SchedDecision *d)
{
    Shard *s = f->shard;
    for (size_t i = 0; i < d->tasks_len; i++) {
        Task *t = d->tasks[i];
        if (t->run->token) continue;
        sched_device_done(s->sched, d->device, t, 0, shard_now_ns(s));
        if (t->ready) sched_task_ready(s->sched, t);
    }
}

/* One frame leases the whole batch: one lease a task, each with its own token. False: not all of
 * it; this turn gives no more leases. */
static bool lease_batch(Fleet *f, const SchedDecision *d, Device *device)
{
    Shard *s = f->shard;
    int64_t now = shard_now_ns(s);
    uint64_t batch = s->at.next_seq;
    uint32_t given = 0;
    for (size_t i = 0; i < d->tasks_len; i++) {
        LeaseSpec l = {.no = d->tasks[i]->no,
                       .worker = str_from(device->worker->name),
                       .device = (uint16_t)device->index,
                       .batch = batch,
                       .batch_size = (uint32_t)d->tasks_len};
        if (core_lease(s->core, &l, now, &s->builder).code == CODE_OK) given++;
    }
    Decision refused;
    if (!shard_commit(s, true, &refused)) {
        put_back(f, d);
        return false;
    }
    bool whole = given == d->tasks_len;
    if (!whole) put_back(f, d); /* those whose deadline has just passed: core_due comes first */
    if (!given) return false;
    Buf *b = &f->line;
    buf_clear(b);
    buf_printf(b, "{\"t\":\"lease\",\"device\":%u,\"model\":", device->index);
    json_put_str(b, core_sym(s->core, d->model));
    buf_puts(b, ",\"version\":");
    json_put_str(b, core_sym(s->core, d->version));
    buf_printf(b, ",\"batch\":%llu,\"tasks\":[", (unsigned long long)batch);
    bool first = true;
    for (size_t i = 0; i < d->tasks_len; i++) {
        const Task *t = d->tasks[i];
        if (!t->run->token) continue;
        fleet_lease_add(f, device->worker, device, t, t->run->token);
        if (!first) buf_putc(b, ',');
        first = false;
        put_task(f, t, now, b);
    }
    buf_puts(b, "]}\n");
    fleet_worker_send(f, device->worker, buf_str(b), shard_last_seq(s));
    f->leases_total += given;
    f->batches_total++;
    return whole;
}

static void send_load(Fleet *f, const SchedDecision *d, Device *device, const char *what)
{
    const Core *c = f->shard->core;
    Buf *b = &f->line;
    buf_clear(b);
    buf_printf(b, "{\"t\":\"%s\",\"device\":%u,\"model\":", what, device->index);
    json_put_str(b, core_sym(c, d->model));
    buf_puts(b, ",\"version\":");
    json_put_str(b, core_sym(c, d->version));
    buf_puts(b, "}\n");
    fleet_worker_send(f, device->worker, buf_str(b), 0);
}

int64_t fleet_dispatch(Fleet *f)
{
    Shard *s = f->shard;
    int64_t wake = INT64_MAX;
    for (;;) {
        SchedDecision *d = &f->decision;
        sched_next(s->sched, shard_now_ns(s), d, &wake);
        if (d->act == SCHED_NONE) return wake;
        CHECK(d->device < f->devices_len && f->devices[d->device]);
        Device *device = f->devices[d->device];
        if (d->act == SCHED_UNLOAD)
            send_load(f, d, device, "unload");
        else if (d->act == SCHED_LOAD)
            send_load(f, d, device, "load");
        else if (!lease_batch(f, d, device))
            return MAX(s->retry_ns, shard_now_ns(s));
    }
}
