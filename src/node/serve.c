/* serve.c: `headrace serve`: the loop around one shard.
 *
 * Threads: the loop's (the shard's state and every socket), the log's (write and sync), now and
 * then the fold's. Order in one turn of the loop: sockets, durable sequences, then shard_step
 * (leases for what was just submitted), then one wake of the log's thread: so that a submit and its
 * lease share a group commit. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include "node/fold.h"
#include "node/node.h"
#include "node/ports.h"
#include "node/shard.h"
#include "node/supervise.h"

#define HOUSEKEEPING_MS  1000
#define STALL_NS         (2 * NS_PER_MS)
#define HURRY_MS         3000 /* after a second signal */
#define GATEWAY_DRAIN_MS 5000
#define READY_WAIT_MS    30000 /* then serve without the local workers */
#define SEGMENT_DEFAULT  (64 * MIB)
#define FOLD_RETRY_MS    60000 /* a fold that failed is not tried again at once: it reads all */

typedef enum { SERVING, FINISHING_TASKS, FINISHING_ANSWERS, ENDING } Phase;

typedef struct {
    const Config *config;
    uv_loop_t loop;
    Loop io; /* the same, as the gateway sees it */
    uv_check_t check;
    uv_timer_t wake, housekeeping, deadline;
    uv_async_t log_event;
    uv_work_t threads;
    uv_signal_t sigterm, sigint;
    Disk *disk;
    Shard *shard;
    LogThread *log_thread;
    Gateway *gateway;
    Supervisor *supervisor;
    Fold *fold;
    Archive *archive;
    bool view_apart; /* there is a history view, but the configuration turns it off */
    Backups *backups;
    uv_async_t history_event;
    GatewayPorts ports;
    PortsContext ports_ctx;
    char key_file[4096];
    char *endpoint; /* path of DATA/endpoint */
    Phase phase;
    int log_err; /* written by the log's thread before log_event */
    int signals;
    bool ready, durable_wanted;
    bool told, tried_to_tell; /* the endpoint is written; it was tried */
    uint64_t started_ms, fold_after_ms;
    int status;
} Server;

/* ---- effects of the shard ---- */

static void out_changed(void *ctx, Task *t, const TaskEvent *e)
{
    gateway_task_changed(((Server *)ctx)->gateway, t, e);
}

static void out_progress(void *ctx, Task *t)
{
    gateway_task_progress(((Server *)ctx)->gateway, t);
}

static void out_leaving(void *ctx, Task *t)
{
    gateway_task_leaving(((Server *)ctx)->gateway, t);
}

static void out_file_leaving(void *ctx, const File *f)
{
    Server *s = ctx;
    bool left = f->owner_task && !core_task(shard_core(s->shard), f->owner_task);
    if (s->archive && left)
        archive_file_left(s->archive, str_from(f->id));
    else if (!left || !s->view_apart)
        gateway_file_leaving(s->gateway, f);
}

static void out_worker_line(void *ctx, Str worker_id, Str line, uint64_t hold_seq)
{
    gateway_worker_send(((Server *)ctx)->gateway, worker_id, line, hold_seq);
}

static void out_worker_kick(void *ctx, Str worker_id)
{
    gateway_worker_kick(((Server *)ctx)->gateway, worker_id);
}

static void out_worker_kill(void *ctx, Str name, int64_t pid)
{
    Server *s = ctx;
    char z[64];
    snprintf(z, sizeof z, "%.*s", STR_ARG(name));
    if (s->supervisor) supervisor_kill(s->supervisor, z, pid);
}

/* ---- the log's thread ---- */

static void on_durable(void *ctx, uint64_t seq)
{
    (void)seq;
    uv_async_send(&((Server *)ctx)->log_event);
}

static void on_failed(void *ctx, int err)
{
    Server *s = ctx;
    __atomic_store_n(&s->log_err, err, __ATOMIC_RELEASE);
    uv_async_send(&s->log_event);
}

static void on_log_event(uv_async_t *a)
{
    Server *s = a->data;
    int err = __atomic_load_n(&s->log_err, __ATOMIC_ACQUIRE);
    if (err) {
        /* What was under way is of unknown outcome, and memory may be ahead of the disk: stop at
         * once. The next start replays what is there. */
        shard_failed(s->shard, err);
        fflush(NULL);
        _exit(1);
    }
    shard_durable(s->shard, log_durable_seq(shard_log(s->shard)));
    gateway_durable(s->gateway, shard_durable_seq(s->shard));
}

/* ---- one turn ---- */

static void write_endpoint(Server *s)
{
    char tmp[4160];
    snprintf(tmp, sizeof tmp, "%s.tmp", s->endpoint);
    FILE *f = fopen(tmp, "w");
    bool ok = f && fprintf(f, "%s\n", gateway_address(s->gateway)) > 0;
    if (f && fclose(f)) ok = false;
    s->told = ok && rename(tmp, s->endpoint) == 0;
    if (!s->told && !s->tried_to_tell)
        say_warn("cannot write %s: %s; tried again until it works", s->endpoint, strerror(errno));
    s->tried_to_tell = true;
}

static void look_if_ready(Server *s)
{
    if (s->ready || s->phase != SERVING) return;
    bool workers = fleet_streams(shard_fleet(s->shard)) >= s->config->workers.devices;
    bool late = uv_now(&s->loop) - s->started_ms > READY_WAIT_MS;
    if (!workers && !late) return;
    if (!workers) say_warn("the local workers are not there yet; serving without them");
    s->ready = true;
    write_endpoint(s);
    say_info("ready at %s", gateway_address(s->gateway));
}

static void on_wake(uv_timer_t *t)
{
    (void)t; /* the turn itself follows in on_check */
}

static void turn(Server *s)
{
    bool stalled = gateway_go_on(s->gateway);
    int64_t next = shard_step(s->shard);
    if (s->archive) archive_step(s->archive);
    if (shard_take_dirty(s->shard)) log_thread_wake(s->log_thread);
    look_if_ready(s);
    int64_t now = shard_now_ns(s->shard);
    if (stalled) next = MIN(next, now + STALL_NS);
    if (next == INT64_MAX) {
        uv_timer_stop(&s->wake);
        return;
    }
    int64_t wait_ns = MAX(next - now, 0);
    uint64_t wait_ms = (uint64_t)MIN((wait_ns + NS_PER_MS - 1) / NS_PER_MS, HOUSEKEEPING_MS);
    uv_timer_start(&s->wake, on_wake, wait_ms, 0);
}

static void on_check(uv_check_t *c)
{
    turn(c->data);
}

/* ---- the end ---- */

static void close_all(Server *s)
{
    s->phase = ENDING;
    gateway_close(s->gateway);
    uv_close((uv_handle_t *)&s->check, NULL);
    uv_close((uv_handle_t *)&s->wake, NULL);
    uv_close((uv_handle_t *)&s->housekeeping, NULL);
    uv_close((uv_handle_t *)&s->deadline, NULL);
    uv_close((uv_handle_t *)&s->sigterm, NULL);
    uv_close((uv_handle_t *)&s->sigint, NULL);
    if (s->supervisor) supervisor_kill_all(s->supervisor);
}

static void on_deadline(uv_timer_t *t)
{
    close_all(t->data);
}

static void look_if_ended(Server *s)
{
    if (s->phase == FINISHING_TASKS && supervisor_stopped(s->supervisor)) {
        s->phase = FINISHING_ANSWERS;
        gateway_drain(s->gateway);
        uv_timer_start(&s->deadline, on_deadline, GATEWAY_DRAIN_MS, 0);
    }
    if (s->phase == FINISHING_ANSWERS && gateway_idle(s->gateway) &&
        shard_durable_seq(s->shard) == shard_last_seq(s->shard))
        close_all(s);
}

static void on_signal(uv_signal_t *sig, int number)
{
    Server *s = sig->data;
    (void)number;
    if (s->phase == ENDING) return;
    if (s->signals++ == 0) {
        say_info("shutting down: of %zu running task(s) those of local workers may finish, "
                 "workers elsewhere keep theirs; a second signal hurries",
                 fleet_running(shard_fleet(s->shard)));
        unlink(s->endpoint);
        shard_drain(s->shard);
        fleet_drain_all(shard_fleet(s->shard));
        s->phase = FINISHING_TASKS;
        supervisor_stop(s->supervisor);
    } else {
        say_info("hurrying: running tasks go back to the queue");
        supervisor_stop(s->supervisor);
        uv_timer_start(&s->deadline, on_deadline, HURRY_MS, 0);
    }
    look_if_ended(s);
}

static bool on_child_ended(void *ctx, const char *name, bool crashed)
{
    Server *s = ctx;
    if (s->phase == ENDING) return false;
    return fleet_process_ended(shard_fleet(s->shard), str_from(name), crashed);
}

static void on_child_refused(void *ctx, const char *name)
{
    (void)ctx;
    say_error("worker %s cannot work with this server; see its message above", name);
}

/* ---- housekeeping ---- */

static void on_housekeeping(uv_timer_t *t)
{
    Server *s = t->data;
    look_if_ended(s);
    if (s->phase != SERVING) return;
    if (s->ready && !s->told) write_endpoint(s);
    if (s->fold && fold_finished(s->fold)) {
        if (fold_end(s->fold)) s->fold_after_ms = uv_now(&s->loop) + FOLD_RETRY_MS;
        s->fold = NULL;
    }
    uint64_t segment = s->config->log.segment_bytes ? s->config->log.segment_bytes
                                                    : SEGMENT_DEFAULT;
    if (!s->fold && uv_now(&s->loop) >= s->fold_after_ms &&
        log_snapshot_due(shard_log(s->shard), segment)) {
        if (fold_start(shard_log(s->shard), s->disk, core_limits(shard_core(s->shard)), &s->fold))
            say_warn("cannot start the snapshot thread");
    }
}

/* ---- the start ---- */

static bool ready(void *ctx, Buf *why_not)
{
    Server *s = ctx;
    Decision d = shard_accepting(s->shard);
    if (d.code)
        buf_puts(why_not, d.detail);
    else if (!s->ready)
        buf_puts(why_not, "the local workers have not registered yet");
    return why_not->len == 0;
}

static char *path_in(const char *dir, const char *name)
{
    Buf b = {0};
    buf_printf(&b, "%s/%s", dir, name);
    char *path = mem_dup(b.data, b.len);
    buf_done(&b);
    return path;
}

#define KEY_PREFIX "hr_worker_"

/* The key of our own workers: kept over restarts, so that remote ones given the same file stay
 * welcome. */
static int worker_key(Server *s, GatewayKey *ret)
{
    char key[sizeof KEY_PREFIX + 26] = {0};
    snprintf(s->key_file, sizeof s->key_file, "%s/worker.key", s->config->data_dir);
    FILE *f = fopen(s->key_file, "r");
    bool have = f && fgets(key, sizeof key, f) && strlen(key) == sizeof key - 1 &&
                strncmp(key, KEY_PREFIX, sizeof KEY_PREFIX - 1) == 0;
    if (f) fclose(f);
    if (!have) {
        uint8_t secret[16];
        random_secret(secret, sizeof secret);
        memcpy(key, KEY_PREFIX, sizeof KEY_PREFIX - 1);
        base32_put(key + sizeof KEY_PREFIX - 1, secret);
        unlink(s->key_file);
        int fd = open(s->key_file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        bool ok = fd >= 0 && dprintf(fd, "%s\n", key) > 0 && fsync(fd) == 0;
        if (fd >= 0) close(fd);
        if (!ok) {
            say_error("cannot write %s: %s", s->key_file, strerror(errno));
            return ERR_IO;
        }
    }
    *ret = (GatewayKey){.name = "workers of this server", .scopes = SCOPE_WORKER};
    sha256(key, strlen(key), &ret->sha256);
    return 0;
}

static void core_limits_of(const Config *c, CoreLimits *l)
{
    core_limits_default(l);
    l->queued_max = c->limits.queue_max;
    l->tenant_queued_max = c->limits.tenant_queued_max;
    l->history = c->history.enabled;
    l->finished_max = c->limits.finished_max;
    l->finished_bytes_max = c->limits.finished_bytes_max;
    l->payload_memory_max = c->limits.payload_memory;
    l->idem_tenant_max = c->limits.idempotency_keys_max;
    l->platform_losses_max = c->limits.worker_losses_max;
    l->idem_ttl_ns = (int64_t)c->retention.idempotency_key_s * NS_PER_S;
    l->file_ttl_s = c->retention.file_s;
    l->lease_ns = (int64_t)c->timeouts.lease_s * NS_PER_S;
    l->backoff_first_ns = (int64_t)c->retry.backoff_first_ms * NS_PER_MS;
    l->backoff_max_ns = (int64_t)c->retry.backoff_max_ms * NS_PER_MS;
}

static int open_shard(Server *s, Buf *why)
{
    const Config *c = s->config;
    int err = disk_posix_open(c->data_dir, &s->disk);
    if (err) {
        buf_printf(why, "cannot use the data directory %s: %s; name another with --data",
                   c->data_dir, err_text(err));
        return err;
    }
    ShardOptions o = {.segment_bytes = c->log.segment_bytes,
                      .ping_s = c->timeouts.ping_s,
                      .accept_clock = c->accept_clock,
                      .address = c->listen};
    core_limits_of(c, &o.limits);
    ShardOut out = {s,
                    out_changed,
                    out_progress,
                    out_leaving,
                    out_file_leaving,
                    out_worker_line,
                    out_worker_kick,
                    out_worker_kill,
                    NULL};
    int64_t start = clock_real.boot_ns(&clock_real);
    err = shard_open(s->disk, &clock_real, &o, &out, &s->shard, why);
    if (!err) err = shard_claim(s->shard, why);
    uint64_t seq;
    if (!err && (err = log_commit(shard_log(s->shard), &seq)))
        buf_printf(why, "cannot write the log: %s", err_text(err));
    if (err) return err;
    shard_durable(s->shard, seq);
    Buf took = {0};
    buf_put_duration(&took, clock_real.boot_ns(&clock_real) - start);
    Core *core = shard_core(s->shard);
    say_info("data in %s: %llu task(s) (%llu queued, %llu running), epoch %llu, replayed in %.*s",
             c->data_dir, (unsigned long long)shard_replayed_tasks(s->shard),
             (unsigned long long)core_count(core, TASK_QUEUED),
             (unsigned long long)core_count(core, TASK_RUNNING),
             (unsigned long long)core_epoch(core), STR_ARG(buf_str(&took)));
    buf_done(&took);
    if (log_torn_bytes(shard_log(s->shard)))
        say_info("the log's unfinished end was cut off (%llu bytes, never acknowledged)",
                 (unsigned long long)log_torn_bytes(shard_log(s->shard)));
    return 0;
}

/* Descriptors: one a connection, one a file that is sent or received, and ours. The log must never
 * want for one: that would be the end of the process. */
#define DESCRIPTORS_OURS 192 /* log, folds, loop, workers' pipes, connections over the cap */
#define TRANSFERS_MIN    64

static void share_descriptors(const Config *c, GatewayOptions *o)
{
    uint64_t wanted = c->limits.connections_max;
    struct rlimit l;
    CHECK(getrlimit(RLIMIT_NOFILE, &l) == 0);
    /* No further than of use: some programs that workers start walk through all there may be. */
    uint64_t use = 2 * wanted + DESCRIPTORS_OURS;
    if (l.rlim_cur < MIN((rlim_t)use, l.rlim_max)) {
        l.rlim_cur = MIN((rlim_t)use, l.rlim_max);
        if (setrlimit(RLIMIT_NOFILE, &l)) CHECK(getrlimit(RLIMIT_NOFILE, &l) == 0);
    }
    uint64_t have = MIN((uint64_t)l.rlim_cur, use);
    uint64_t least = DESCRIPTORS_OURS + TRANSFERS_MIN;
    uint64_t most = MIN(wanted, have > least + 8 ? have - least : 8);
    if (most < wanted)
        say_warn("%llu connections at a time instead of %llu (limits.connections_max): this "
                 "process may open %llu files only; raise that with `ulimit -n %llu` or "
                 "LimitNOFILE=%llu",
                 (unsigned long long)most, (unsigned long long)wanted, (unsigned long long)have,
                 (unsigned long long)use, (unsigned long long)use);
    o->connections_max = (uint32_t)most;
    o->transfers_max = (uint32_t)(have > most + least ? have - most - DESCRIPTORS_OURS
                                                      : TRANSFERS_MIN);
}

/* ---- the history view ---- */

static void wake_history(void *ctx)
{
    uv_async_send(&((Server *)ctx)->history_event);
}

static void on_history_event(uv_async_t *a)
{
    (void)a; /* the turn itself follows in on_check */
}

static void on_history_file_gone(void *ctx, Str id)
{
    gateway_file_gone(((Server *)ctx)->gateway, id);
}

static int open_history(Server *s, Buf *why)
{
    const Config *c = s->config;
    char *path = path_in(c->data_dir, "history.sqlite");
    if (!c->history.enabled) {
        s->view_apart = access(path, F_OK) == 0;
        mem_free(path);
        return 0;
    }
    ArchiveOptions o = {.path = path,
                        .limits = {.max_age_ns = (int64_t)c->history.max_age_s * NS_PER_S,
                                   .max_bytes = c->history.max_size,
                                   .max_rows = c->history.max_tasks},
                        .wake = wake_history,
                        .file_gone = on_history_file_gone,
                        .ctx = s};
    int err = archive_open(s->shard, &o, &s->archive, why);
    mem_free(path);
    return err;
}

static void on_hold_files(void *ctx, bool held)
{
    gateway_hold_files(((Server *)ctx)->gateway, held);
}

static int open_gateway(Server *s, Buf *why)
{
    const Config *c = s->config;
    GatewayOptions o;
    gateway_options_default(&o);
    o.listen = c->listen;
    char *files = path_in(c->data_dir, "files");
    o.files_dir = files;
    o.keys = c->keys;
    o.keys_len = c->keys_len;
    o.insecure_http = c->insecure_http;
    o.body_max = c->limits.body_max;
    o.file_max = c->limits.file_max;
    share_descriptors(c, &o);
    o.idle_timeout_ms = c->timeouts.idle_ms;
    o.header_timeout_ms = c->timeouts.header_ms;
    o.tenant_rate = c->limits.submit_rate;
    o.ping_s = c->timeouts.ping_s;
    s->backups = backups_new(&(BackupsOptions){.loop = &s->loop,
                                               .data_dir = c->data_dir,
                                               .shard = s->shard,
                                               .archive = s->archive,
                                               .hold_files = on_hold_files,
                                               .ctx = s});
    s->ports_ctx = (PortsContext){.shard = s->shard,
                                  .archive = s->archive,
                                  .view_apart = s->view_apart,
                                  .backups = s->backups,
                                  .ready = ready,
                                  .ready_ctx = s};
    ports_fill(&s->ports, &s->ports_ctx);
    int err = worker_key(s, &o.worker_key);
    if (!err) err = gateway_open(&s->io, &o, &s->ports, &s->gateway, why);
    mem_free(files);
    return err;
}

static void start_handles(Server *s)
{
    uv_check_init(&s->loop, &s->check);
    uv_timer_init(&s->loop, &s->wake);
    uv_timer_init(&s->loop, &s->housekeeping);
    uv_timer_init(&s->loop, &s->deadline);
    uv_signal_init(&s->loop, &s->sigterm);
    uv_signal_init(&s->loop, &s->sigint);
    s->check.data = s->housekeeping.data = s->deadline.data = s->sigterm.data = s->sigint.data = s;
    uv_check_start(&s->check, on_check);
    uv_timer_start(&s->wake, on_wake, 0, 0);
    uv_timer_start(&s->housekeeping, on_housekeeping, 100, 250);
    uv_signal_start(&s->sigterm, on_signal, SIGTERM);
    uv_signal_start(&s->sigint, on_signal, SIGINT);
}

static void set_tenants(Server *s)
{
    for (size_t i = 0; i < s->config->tenants_len; i++) {
        const ConfigTenant *t = &s->config->tenants[i];
        Sym sym = core_tenant_configure(shard_core(s->shard), str_from(t->name), t->queued_max);
        sched_tenant_weight(shard_sched(s->shard), sym, t->weight);
    }
}

/* libuv ends the process without a word when the system has no thread, lock or event for it. */
static void on_abort(int number)
{
    static const char text[] = "headrace: stopping at once (abort): out of memory, threads or "
                               "descriptors, unless said otherwise; nothing acknowledged is lost\n";
    ssize_t ignored = write(STDERR_FILENO, text, sizeof text - 1);
    (void)ignored;
    (void)number; /* abort() itself does the rest */
}

static void nothing(uv_work_t *w)
{
    (void)w;
}

int node_serve(const Config *config)
{
    Server *s = mem_new(sizeof *s);
    Buf why = {0};
    s->config = config;
    say_setup(config->log.level, config->log.format, "serve");
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a limit on file sizes is a full disk */
    signal(SIGABRT, on_abort);
    int uv = uv_loop_init(&s->loop);
    if (!uv) uv = uv_async_init(&s->loop, &s->log_event, on_log_event);
    if (!uv) uv = uv_async_init(&s->loop, &s->history_event, on_history_event);
    /* libuv's threads now: with too few to be had, the first upload would be the end. */
    if (!uv) uv = uv_queue_work(&s->loop, &s->threads, nothing, NULL);
    if (uv) {
        say_error("cannot start: no event loop: %s", uv_strerror(uv));
        return 1;
    }
    loop_uv_init(&s->io, &s->loop);
    s->log_event.data = s;
    s->endpoint = path_in(config->data_dir, "endpoint");
    int err = open_shard(s, &why);
    if (err && why.len && !memmem(why.data, why.len, config->data_dir, strlen(config->data_dir)))
        buf_printf(&why, " (data directory: %s)", config->data_dir);
    if (!err) {
        unlink(s->endpoint); /* of a former run that was killed */
        err = open_history(s, &why);
        if (!err) err = open_gateway(s, &why);
        if (!err && s->archive) err = archive_start(s->archive);
    }
    if (!err) err = log_thread_start(shard_log(s->shard), on_durable, on_failed, s, &s->log_thread);
    if (err) {
        say_error("cannot start: %s", why.len ? buf_z(&why) : err_text(err));
        buf_done(&why);
        /* The process ends: the kernel takes the rest. A leak checker sees that it is held. */
        static Server *unfinished __attribute__((used));
        unfinished = s;
        return 1;
    }
    set_tenants(s);
    shard_lead(s->shard);
    start_handles(s);
    s->started_ms = uv_now(&s->loop);
    printf("headrace %s listening on %s\n", HR_VERSION, gateway_address(s->gateway));
    fflush(stdout);
    SupervisorEvents events = {s, on_child_ended, on_child_refused};
    s->supervisor = supervisor_start(&s->loop, config, gateway_address(s->gateway), s->key_file,
                                     &events);
    while (s->phase != ENDING) uv_run(&s->loop, UV_RUN_ONCE);
    fold_stop(s->fold);
    log_thread_stop(s->log_thread);
    fold_end(s->fold);
    backups_stop(s->backups);
    archive_close(s->archive);
    backups_close(s->backups);
    uv_close((uv_handle_t *)&s->log_event, NULL);
    uv_close((uv_handle_t *)&s->history_event, NULL);
    uv_run(&s->loop, UV_RUN_DEFAULT);
    gateway_free(s->gateway);
    backups_free(s->backups);
    supervisor_free(s->supervisor);
    shard_free(s->shard);
    disk_free(s->disk);
    mem_free(s->endpoint);
    buf_done(&why);
    int status = s->status;
    if (uv_loop_close(&s->loop)) say_warn("handles were left open at the end");
    mem_free(s);
    say_info("stopped");
    return status;
}
