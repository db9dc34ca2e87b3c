/* node.c: the life of a simulated server's process, and its turns: what serve.c does with libuv. */
#include "sim/node.h"

#include <stdio.h>
#include <string.h>

#include "io/tcp_net.h"
#include "log/inside.h"
#include "node/inside.h"

#define HOUSEKEEPING_NS (250 * NS_PER_MS)
#define DRAIN_NS        (5 * NS_PER_S)
#define FOLD_RETRY_NS   (60 * NS_PER_S)
#define STALL_NS        (2 * NS_PER_MS)

static Node *node_of(Host *h)
{
    return CONTAINER_OF(h, Node, host);
}

/* ---- the machine ---- */

static int64_t wall_ns(Clock *c)
{
    const World *w = CONTAINER_OF(c, Node, clock)->w;
    return w->now_ns + w->wall_add_ns;
}

static int64_t boot_ns(Clock *c)
{
    return CONTAINER_OF(c, Node, clock)->w->now_ns;
}

static const char *const op_names[MEM_OPS] = {"open",     "size",  "read",   "write",  "sync",
                                              "allocate", "trunc", "rename", "unlink", "mkdir",
                                              "syncdir",  "list",  "lock"};

/* Takes its time in a fiber; on the loop's thread the world stands still. */
static void take_time(Node *n, MemOp op, size_t bytes)
{
    Fiber *f = fiber_current();
    if (!f) return;
    Event *event = f == n->log.fiber    ? &n->log.event
                   : f == n->fold.fiber ? &n->fold.event
                                        : host_work_event(&n->host);
    const Plan *p = n->plan;
    int64_t us = op == MEM_SYNC || op == MEM_SYNC_DIR ? p->sync_us : p->op_us;
    int64_t ns = world_around(n->w, us * NS_PER_US) + (int64_t)bytes / 2;
    world_in(n->w, event, ns);
    fiber_pause();
}

static int before_op(void *ctx, MemOp op, const char *name, uint64_t at, const void *p, size_t len)
{
    Node *n = ctx;
    World *w = n->w;
    const Plan *plan = n->plan;
    if (!n->up) return 0; /* while it starts: node_start sees to faults */
    take_time(n, op, p ? len : 0);
    if (n->disk->dead) return ERR_IO;
    if (op == MEM_UNLINK && strncmp(name, "files/file_", 11) == 0)
        witness_unlink(n->witness, name + 6);
    uint64_t what[4] = {op, at, len, p ? chain64(at, p, len) : 0};
    w->hash = chain64(w->hash, what, sizeof what);
    if (w->trace)
        world_show(w, "%s: disk %s %s at %llu, %zu bytes %016llx", n->name, op_names[op], name,
                   (unsigned long long)at, len, (unsigned long long)what[3]);
    bool fails = (op == MEM_SYNC && world_odds(w, plan->sync_fails)) ||
                 (op == MEM_WRITE && world_odds(w, plan->write_fails));
    if (fails) world_happens(w, HAP_SYNC_FAILS);
    if (!fails && op == MEM_READ && world_odds(w, plan->read_fails)) {
        fails = true;
        world_happens(w, HAP_READ_FAILS);
    }
    return fails ? ERR_IO : 0;
}

/* ---- effects of the shard ---- */

static void out_changed(void *ctx, Task *t, const TaskEvent *e)
{
    gateway_task_changed(((Node *)ctx)->gateway, t, e);
}

static void out_progress(void *ctx, Task *t)
{
    gateway_task_progress(((Node *)ctx)->gateway, t);
}

static void out_leaving(void *ctx, Task *t)
{
    gateway_task_leaving(((Node *)ctx)->gateway, t);
}

static void out_file_leaving(void *ctx, const File *f)
{
    gateway_file_leaving(((Node *)ctx)->gateway, f);
}

static void out_worker_line(void *ctx, Str worker_id, Str line, uint64_t hold_seq)
{
    gateway_worker_send(((Node *)ctx)->gateway, worker_id, line, hold_seq);
}

static void out_worker_kick(void *ctx, Str worker_id)
{
    gateway_worker_kick(((Node *)ctx)->gateway, worker_id);
}

static void out_worker_kill(void *ctx, Str name, int64_t pid)
{
    const Node *n = ctx;
    (void)pid;
    n->kill_worker(n->owner, name);
}

static void out_appended(void *ctx, Str frame)
{
    Node *n = ctx;
    world_note(n->w, "frame", frame);
    witness_frame(n->witness, frame);
}

/* ---- ports with the witness before them ---- */

/* What it does not say that it runs is lost with the process that had it. */
static Decision port_hello(void *ctx, const WorkerHello *h, char id_out[40], Buf *refused,
                           Buf *stale)
{
    Node *n = CONTAINER_OF((PortsContext *)ctx, Node, ports_ctx);
    witness_holder_gone(n->witness, h->name);
    for (size_t i = 0; i < h->running_len; i++)
        witness_renewed(n->witness, h->running[i].token, shard_now_ns(n->shard));
    return n->inner.worker_hello(ctx, h, id_out, refused, stale);
}

static ReportAnswer port_report(void *ctx, Str worker_id, const WorkerReport *r, Buf *detail)
{
    Node *n = CONTAINER_OF((PortsContext *)ctx, Node, ports_ctx);
    int64_t now = shard_now_ns(n->shard);
    if (r->lease.token) witness_renewed(n->witness, r->lease.token, now);
    for (size_t i = 0; i < r->held_len; i++) witness_renewed(n->witness, r->held[i].token, now);
    return n->inner.worker_report(ctx, worker_id, r, detail);
}

/* ---- the log's thread: log_thread.c's loop in a fiber ---- */

static void strand_fire(Event *e)
{
    Strand *s = CONTAINER_OF(e, Strand, event);
    if (!fiber_idle(s->fiber)) fiber_resume(s->fiber);
    if (s->node->up) s->node->host.turn(&s->node->host);
}

static void told_fire(Event *e)
{
    Node *n = CONTAINER_OF(e, Node, told);
    if (!n->up) return;
    shard_durable(n->shard, log_durable_seq(shard_log(n->shard)));
    gateway_durable(n->gateway, shard_durable_seq(n->shard));
    n->host.turn(&n->host);
}

static int commit(Node *n)
{
    Log *log = shard_log(n->shard);
    uint64_t seq;
    bool taken = n->disk->taken;
    int err = log_commit_group(log, &seq);
    if (!err && taken && seq > n->durable)
        world_broken(n->w, 17, "%s calls record %llu durable on a disk that was taken away",
                     n->name, (unsigned long long)seq);
    if (!err) {
        if (log->synced_end > log->group_last) {
            n->proof_segment = log->synced_head.number;
            n->proof_at = log->synced_end - log->group_last;
        }
        if (seq > n->durable) {
            n->durable = seq;
            witness_durable(n->witness, seq);
            world_say(n->w, "%s: durable to %llu", n->name, (unsigned long long)seq);
        }
        world_in(n->w, &n->told, world_between(n->w, 5 * NS_PER_US, 80 * NS_PER_US));
        err = log_make_room(log);
    }
    return err;
}

static void log_run(void *ctx)
{
    Node *n = ctx;
    Log *log = shard_log(n->shard);
    int err = 0;
    bool tried = false;
    while (!err && !n->log_stop && !n->dying) {
        bool idle = false;
        if (!n->log_woken) {
            if (!tried && log_unproven(log)) {
                world_in(n->w, &n->log.event, IDLE_PROOF_NS);
                idle = true;
            }
            n->log_waits = true;
            fiber_pause();
            n->log_waits = false;
        }
        if (n->dying) return;
        if (n->log_woken || n->log_stop) idle = false;
        n->log_woken = false;
        while (!err && log_has_pending(log)) {
            err = commit(n);
            tried = false;
        }
        if (!err && (idle || n->log_stop) && log_unproven(log)) {
            err = commit(n);
            tried = true;
        }
    }
    if (err && !n->dying) {
        world_say(n->w, "%s: the log failed: %s", n->name, err_text(err));
        shard_failed(n->shard, err);
        node_kill(n, false);
    }
}

static void log_wake(Node *n)
{
    if (n->log_woken) return;
    n->log_woken = true;
    if (!fiber_idle(n->log.fiber) && !n->log_stop && n->log_waits)
        world_in(n->w, &n->log.event, world_between(n->w, 5 * NS_PER_US, 60 * NS_PER_US));
}

/* ---- folds ---- */

static void fold_run_fiber(void *ctx)
{
    Node *n = ctx;
    Buf why = {0};
    n->fold_err = fold_run(shard_log(n->shard), &n->disk->base, core_limits(shard_core(n->shard)),
                           &why);
    world_say(n->w, "%s: fold: %s %.*s", n->name, n->fold_err ? err_text(n->fold_err) : "done",
              STR_ARG(buf_str(&why)));
    if (n->fold_err)
        n->fold_after_ns = n->w->now_ns + FOLD_RETRY_NS;
    else
        world_happens(n->w, HAP_FOLDS);
    buf_done(&why);
}

void node_fold(Node *n)
{
    if (n->up && !n->dying && fiber_idle(n->fold.fiber))
        fiber_start(n->fold.fiber, fold_run_fiber, n);
}

static void housekeeping_fire(Event *e)
{
    Node *n = CONTAINER_OF(e, Node, housekeeping);
    if (!n->up || n->dying) return;
    if (n->draining) {
        bool whole = shard_durable_seq(n->shard) == shard_last_seq(n->shard);
        if ((gateway_idle(n->gateway) && whole) || n->w->now_ns > n->drain_until_ns) {
            world_say(n->w, "%s: stopped", n->name);
            node_kill(n, false);
            return;
        }
        world_in(n->w, &n->housekeeping, HOUSEKEEPING_NS / 10);
        return;
    }
    world_in(n->w, &n->housekeeping, HOUSEKEEPING_NS);
    if (fiber_idle(n->fold.fiber) && n->w->now_ns >= n->fold_after_ns &&
        log_snapshot_due(shard_log(n->shard), n->plan->segment_bytes))
        fiber_start(n->fold.fiber, fold_run_fiber, n);
}

/* ---- one turn ---- */

static void turn(Host *h)
{
    Node *n = node_of(h);
    if (!n->up || n->dying) return;
    if (n->disk->dead) {
        node_kill(n, n->power_cut);
        return;
    }
    bool stalled = gateway_go_on(n->gateway);
    int64_t next = shard_step(n->shard);
    if (shard_take_dirty(n->shard) || log_has_pending(shard_log(n->shard))) log_wake(n);
    if (n->disk->dead) {
        node_kill(n, n->power_cut);
        return;
    }
    tcp_flush(h->listener);
    int64_t now = shard_now_ns(n->shard);
    if (stalled) next = MIN(next, now + STALL_NS);
    int64_t wait_ns = next == INT64_MAX ? NS_PER_S : MIN(MAX(next - now, 0), NS_PER_S);
    wait_ns = (wait_ns + NS_PER_MS - 1) / NS_PER_MS * NS_PER_MS;
    world_in(n->w, &n->wake, wait_ns);
}

static void wake_fire(Event *e)
{
    Node *n = CONTAINER_OF(e, Node, wake);
    if (n->up) turn(&n->host);
}

/* Each send is a place to die at, as each operation of the disk is. */
static bool touch(Host *h)
{
    Node *n = node_of(h);
    MemDisk *d = n->disk;
    if (d->dead || n->dying) return true;
    d->ops++;
    if (d->die_at && d->ops >= d->die_at) d->dead = true;
    if (d->dead) node_kill(n, n->power_cut);
    return d->dead;
}

static uint64_t host_durable(const Host *h)
{
    return ((const Node *)(const void *)h)->durable;
}

/* ---- life ---- */

static void burial_fire(Event *e)
{
    node_bury(CONTAINER_OF(e, Node, burial));
}

Node *node_new(World *w, const Plan *plan, Witness *witness, const char *name)
{
    Node *n = mem_new(sizeof *n);
    n->w = w;
    n->plan = plan;
    n->witness = witness;
    snprintf(n->name, sizeof n->name, "%s", name);
    n->clock = (Clock){wall_ns, boot_ns};
    n->disk = mem_disk_new(random_u64(&w->random));
    n->disk->before = before_op;
    n->disk->before_ctx = n;
    n->disk->spared = "spill";
    sub_disk_init(&n->files, &n->disk->base, "files");
    n->log.fiber = fiber_new();
    n->fold.fiber = fiber_new();
    n->log.node = n->fold.node = n;
    n->log.event.fire = n->fold.event.fire = strand_fire;
    n->told.fire = told_fire;
    n->wake.fire = wake_fire;
    n->housekeeping.fire = housekeeping_fire;
    n->burial.fire = burial_fire;
    n->host.turn = turn;
    n->host.touch = touch;
    n->host.durable = host_durable;
    return n;
}

void node_free(Node *n)
{
    if (!n) return;
    n->died = NULL;
    if (n->up) node_bury(n);
    world_not(n->w, &n->burial);
    host_done(&n->host);
    fiber_free(n->log.fiber);
    fiber_free(n->fold.fiber);
    disk_free(&n->disk->base);
    mem_free(n);
}

static bool ready(void *ctx, Buf *why)
{
    (void)ctx;
    (void)why;
    return true;
}

static int open_shard(Node *n, Buf *why)
{
    ShardOut out = {.ctx = n,
                    .task_changed = out_changed,
                    .task_progress = out_progress,
                    .task_leaving = out_leaving,
                    .file_leaving = out_file_leaving,
                    .worker_line = out_worker_line,
                    .worker_kick = out_worker_kick,
                    .worker_kill = out_worker_kill,
                    .appended = out_appended};
    ShardOptions o = {.limits = n->plan->limits,
                      .segment_bytes = n->plan->segment_bytes,
                      .ping_s = n->plan->ping_s,
                      .accept_clock = true,
                      .address = n->name};
    o.seed = random_u64(&n->w->random) | 1;
    int err = shard_open(&n->disk->base, &n->clock, &o, &out, &n->shard, why);
    if (err) {
        n->shard = NULL;
        return err;
    }
    witness_restart(n->witness, &n->shard->at);
    err = shard_claim(n->shard, why);
    uint64_t seq = 0;
    if (!err) err = log_commit(shard_log(n->shard), &seq);
    if (err) {
        shard_free(n->shard);
        n->shard = NULL;
        return err;
    }
    n->durable = seq;
    witness_durable(n->witness, seq);
    witness_claimed(n->witness, n->shard->at.epoch);
    shard_durable(n->shard, seq);
    return 0;
}

const char *const tenant_keys[TENANTS] = {"Authorization: Bearer key-0\r\n",
                                          "Authorization: Bearer key-1\r\n",
                                          "Authorization: Bearer key-2\r\n"};

static void key_of(const char *header, GatewayKey *k)
{
    const char *text = strrchr(header, ' ') + 1;
    sha256(text, strcspn(text, "\r"), &k->sha256);
}

static void gateway_options(Node *n, GatewayOptions *o, GatewayKey keys[TENANTS])
{
    gateway_options_default(o);
    o->listen = "127.0.0.1:8700";
    o->insecure_http = true;
    o->files = &n->files.base;
    o->ping_s = n->plan->ping_s;
    o->tenant_rate = n->plan->rate;
    for (int i = 0; i < TENANTS; i++) {
        keys[i] = (GatewayKey){.scopes = SCOPE_SUBMIT | SCOPE_READ | (i == 0 ? SCOPE_ADMIN : 0)};
        snprintf(keys[i].name, sizeof keys[i].name, "key-%d", i);
        snprintf(keys[i].tenant, sizeof keys[i].tenant, "tenant-%d", i);
        key_of(tenant_keys[i], &keys[i]);
    }
    o->keys = keys;
    o->keys_len = TENANTS;
    o->worker_key = (GatewayKey){.scopes = SCOPE_WORKER};
    key_of(WORKER_KEY, &o->worker_key);
}

int node_start(Node *n, Buf *why)
{
    World *w = n->w;
    world_say(w, "%s: starts", n->name);
    n->dying = n->draining = n->log_stop = n->log_woken = n->log_waits = false;
    n->power_cut = false;
    n->fold_after_ns = 0;
    n->proof_segment = n->proof_at = 0;
    n->incarnation++;
    host_init(&n->host, w);
    n->host.up = false;
    int err = open_shard(n, why);
    if (err) {
        world_say(w, "%s: did not start: %s: %.*s", n->name, err_text(err), STR_ARG(buf_str(why)));
        return err;
    }
    n->ports_ctx = (PortsContext){.shard = n->shard, .ready = ready};
    ports_fill(&n->inner, &n->ports_ctx);
    n->ports = n->inner;
    n->ports.worker_report = port_report;
    n->ports.worker_hello = port_hello;
    GatewayOptions o;
    GatewayKey keys[TENANTS];
    gateway_options(n, &o, keys);
    n->host.up = true;
    err = gateway_open(&n->host.loop, &o, &n->ports, &n->gateway, why);
    if (err) { /* it died over the contents */
        CHECK(n->disk->dead);
        n->host.up = false;
        shard_free(n->shard);
        n->shard = NULL;
        return err;
    }
    n->up = true;
    shard_lead(n->shard);
    world_in(w, &n->wake, 0);
    world_in(w, &n->housekeeping, HOUSEKEEPING_NS);
    fiber_start(n->log.fiber, log_run, n);
    return 0;
}

void node_kill(Node *n, bool power_cut)
{
    if (!n->up || n->dying) return;
    n->dying = true;
    n->power_cut = power_cut;
    n->disk->dead = true;
    world_say(n->w, "%s: dies%s", n->name, power_cut ? " with its machine" : "");
    world_in(n->w, &n->burial, 0);
}

void node_stop(Node *n)
{
    if (!n->up || n->dying || n->draining) return;
    world_happens(n->w, HAP_STOPS);
    n->draining = true;
    n->drain_until_ns = n->w->now_ns + DRAIN_NS;
    shard_drain(n->shard);
    fleet_drain_all(shard_fleet(n->shard));
    gateway_drain(n->gateway);
    world_in(n->w, &n->housekeeping, HOUSEKEEPING_NS);
    turn(&n->host);
}

void node_bury(Node *n)
{
    if (!n->up) return;
    CHECK(!fiber_current());
    n->dying = true;
    n->disk->dead = true;
    n->up = false;
    while (!fiber_idle(n->log.fiber)) fiber_resume(n->log.fiber);
    while (!fiber_idle(n->fold.fiber)) fiber_resume(n->fold.fiber);
    world_not(n->w, &n->log.event);
    world_not(n->w, &n->fold.event);
    world_not(n->w, &n->told);
    world_not(n->w, &n->wake);
    world_not(n->w, &n->housekeeping);
    world_not(n->w, &n->burial);
    host_die(&n->host, n->power_cut);
    gateway_close(n->gateway);
    host_settle(&n->host);
    gateway_free(n->gateway);
    shard_free(n->shard);
    n->gateway = NULL;
    n->shard = NULL;
    MemCrash how = CRASH_KILL;
    if (n->power_cut || n->disk->taken) how = world_below(n->w, 3) ? CRASH_TEAR : CRASH_DROP;
    mem_disk_crash(n->disk, how);
    if (n->died) n->died(n->owner, n);
}
