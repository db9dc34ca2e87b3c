#include "node/ports.h"

#include "node/fleet.h"

static Shard *shard(void *ctx)
{
    return ((PortsContext *)ctx)->shard;
}

static Fleet *fleet(void *ctx)
{
    return shard_fleet(shard(ctx));
}

static Core *p_core(void *ctx)
{
    return shard_core(shard(ctx));
}

static int64_t p_now_ns(void *ctx)
{
    return shard_now_ns(shard(ctx));
}

static Decision p_accepting(void *ctx)
{
    return shard_accepting(shard(ctx));
}

static uint64_t p_last_seq(void *ctx)
{
    return shard_last_seq(shard(ctx));
}

static uint64_t p_durable_seq(void *ctx)
{
    return shard_durable_seq(shard(ctx));
}

static Decision p_submit(void *ctx, const SubmitSpec *s)
{
    return shard_submit(shard(ctx), s);
}

static Decision p_cancel(void *ctx, uint64_t no)
{
    return shard_cancel(shard(ctx), no);
}

static Decision p_forget(void *ctx, uint64_t no)
{
    return shard_forget(shard(ctx), no);
}

static Decision p_put_file(void *ctx, Str id, Str tenant, uint64_t size, const Sha256 *digest,
                           Str name, Str type, uint64_t owner_task)
{
    return shard_put_file(shard(ctx), id, tenant, size, digest, name, type, owner_task);
}

static Decision p_delete_file(void *ctx, uint64_t file_no)
{
    return shard_delete_file(shard(ctx), file_no);
}

static Decision p_pause_model(void *ctx, Str name, bool paused)
{
    return shard_pause_model(shard(ctx), name, paused);
}

static Decision p_worker_order(void *ctx, Str worker_id, Str order)
{
    return fleet_order(fleet(ctx), worker_id, order);
}

static Decision p_worker_hello(void *ctx, const WorkerHello *h, char id_out[40], Buf *refused,
                               Buf *stale)
{
    return fleet_hello(fleet(ctx), h, id_out, refused, stale);
}

static bool p_worker_known(void *ctx, Str worker_id)
{
    return fleet_known(fleet(ctx), worker_id);
}

static void p_worker_stream(void *ctx, Str worker_id, bool open)
{
    fleet_stream(fleet(ctx), worker_id, open);
}

static ReportAnswer p_worker_report(void *ctx, Str worker_id, const WorkerReport *r, Buf *detail)
{
    return fleet_report(fleet(ctx), worker_id, r, detail);
}

static bool p_worker_holds(void *ctx, Str worker_id, uint64_t task_no)
{
    return fleet_holds(fleet(ctx), worker_id, task_no);
}

static bool p_lease_is_live(void *ctx, uint64_t task_no, uint64_t token)
{
    return fleet_lease_is_live(fleet(ctx), task_no, token);
}

static Decision p_warm_model(void *ctx, Str name, int replicas)
{
    return fleet_warm(fleet(ctx), name, replicas);
}

static void p_queue_reason(void *ctx, const Task *t, Buf *ret)
{
    fleet_reason_json(fleet(ctx), t->model, t->version, ret);
}

static QueueEstimate p_estimate(void *ctx, const Task *t)
{
    return fleet_estimate(fleet(ctx), t);
}

static void p_workers_json(void *ctx, Str only_id, Buf *ret)
{
    fleet_workers_json(fleet(ctx), only_id, ret);
}

static void p_model_json(void *ctx, const ModelEntry *m, Buf *ret)
{
    fleet_model_json(fleet(ctx), m, ret);
}

static void p_queues_json(void *ctx, Buf *ret)
{
    fleet_queues_json(fleet(ctx), ret);
}

static void p_task_log(void *ctx, uint64_t task_no, Buf *ret)
{
    fleet_task_log(fleet(ctx), task_no, ret);
}

static void p_metrics(void *ctx, Buf *ret)
{
    const Archive *a = ((PortsContext *)ctx)->archive;
    fleet_metrics(fleet(ctx), ret);
    if (a) archive_metrics(a, ret);
}

static void p_past(void *ctx, PastQuery *q)
{
    archive_query(((PortsContext *)ctx)->archive, q);
}

static bool p_past_file_is_known(void *ctx, Str id)
{
    Archive *a = ((PortsContext *)ctx)->archive;
    return !a || archive_file_is_known(a, id);
}

static Decision p_backup_begin(void *ctx, void (*more)(void *arg), void *arg)
{
    return backup_begin(((PortsContext *)ctx)->backups, more, arg);
}

static int p_backup_read(void *ctx, Buf *ret, Buf *why)
{
    return backup_read(((PortsContext *)ctx)->backups, ret, why);
}

static void p_backup_want(void *ctx)
{
    backup_want(((PortsContext *)ctx)->backups);
}

static void p_backup_end(void *ctx)
{
    backup_end(((PortsContext *)ctx)->backups);
}

static bool p_ready(void *ctx, Buf *why_not)
{
    PortsContext *p = ctx;
    return p->ready(p->ready_ctx, why_not);
}

void ports_fill(GatewayPorts *ret, PortsContext *ctx)
{
    *ret = (GatewayPorts){
        .ctx = ctx,
        .core = p_core,
        .now_ns = p_now_ns,
        .accepting = p_accepting,
        .last_seq = p_last_seq,
        .durable_seq = p_durable_seq,
        .submit = p_submit,
        .cancel = p_cancel,
        .forget = p_forget,
        .put_file = p_put_file,
        .delete_file = p_delete_file,
        .pause_model = p_pause_model,
        .worker_order = p_worker_order,
        .worker_hello = p_worker_hello,
        .worker_known = p_worker_known,
        .worker_stream = p_worker_stream,
        .worker_report = p_worker_report,
        .worker_holds = p_worker_holds,
        .lease_is_live = p_lease_is_live,
        .estimate = p_estimate,
        .warm_model = p_warm_model,
        .queue_reason = p_queue_reason,
        .workers_json = p_workers_json,
        .model_json = p_model_json,
        .queues_json = p_queues_json,
        .task_log = p_task_log,
        .metrics = p_metrics,
        .ready = p_ready,
        .past = ctx->archive ? p_past : NULL,
        .backup_begin = p_backup_begin,
        .backup_read = p_backup_read,
        .backup_want = p_backup_want,
        .backup_end = p_backup_end,
        .past_file_is_known = ctx->archive || ctx->view_apart ? p_past_file_is_known : NULL,
    };
}
