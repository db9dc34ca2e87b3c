#include "node/inside.h"

#include <stdio.h>

/* A clock that stands before the last record by more is wrong, or the log is another's. */
#define CLOCK_BEHIND_NS (60 * NS_PER_S)

/* ---- replay ---- */

static int replay_snapshot(void *ctx, const LogPoint *covers, Str piece)
{
    return core_restore(((Shard *)ctx)->core, covers, piece);
}

static int replay_frame(void *ctx, const Frame *f, Str bytes)
{
    (void)bytes;
    return core_apply(((Shard *)ctx)->core, f);
}

/* ---- what apply tells ---- */

static void on_changed(void *ctx, Task *t, TaskState before, const TaskEvent *e)
{
    (void)before;
    Shard *s = ctx;
    s->out.task_changed(s->out.ctx, t, e);
}

static void on_ready(void *ctx, Task *t)
{
    sched_task_ready(((Shard *)ctx)->sched, t);
}

static void on_unready(void *ctx, Task *t)
{
    sched_task_unready(((Shard *)ctx)->sched, t);
}

static void on_slot_freed(void *ctx, Task *t, uint64_t token, int64_t device_ns)
{
    fleet_slot_freed(((Shard *)ctx)->fleet, t, token, device_ns);
}

static void on_lease_void(void *ctx, Task *t, uint64_t token)
{
    fleet_lease_void(((Shard *)ctx)->fleet, t, token);
}

static void on_leaving(void *ctx, Task *t)
{
    Shard *s = ctx;
    fleet_task_leaving(s->fleet, t);
    s->out.task_leaving(s->out.ctx, t);
}

static void on_file_leaving(void *ctx, const File *f)
{
    Shard *s = ctx;
    s->out.file_leaving(s->out.ctx, f);
}

/* ---- life ---- */

static uint64_t draw_seed(const ShardOptions *o)
{
    uint64_t seed = o->seed;
    if (!seed) random_secret(&seed, sizeof seed);
    return seed;
}

int shard_open(Disk *disk, Clock *clock, const ShardOptions *o, const ShardOut *out, Shard **ret,
               Buf *why)
{
    Shard *s = mem_new(sizeof *s);
    s->options = *o;
    s->out = *out;
    s->clock = clock;
    s->core = core_new(&o->limits, draw_seed(o));
    s->sched = sched_new();
    s->fleet = fleet_new(s);
    LogOptions options = {.segment_bytes = o->segment_bytes, .clock = clock, .seed = o->seed};
    int err = log_open(disk, &options, &s->log, why); /* takes the lock */
    if (!err) {
        err = core_spill(s->core, disk, "spill");
        if (err) buf_printf(why, "cannot empty the folder spill: %s", err_text(err));
    }
    if (!err) {
        LogReplay replay = {s, replay_snapshot, replay_frame};
        err = log_replay(s->log, &replay, &s->at, why);
    }
    if (err) {
        shard_free(s);
        return err;
    }
    int64_t behind_ns = s->at.time_ns - clock->wall_ns(clock);
    if (behind_ns > CLOCK_BEHIND_NS && !o->accept_clock) {
        buf_puts(why, "the clock is ");
        buf_put_duration(why, behind_ns);
        buf_puts(why, " behind the log's last record; set it right, or start once with "
                      "--accept-clock (time then goes on from that record)");
        shard_free(s);
        return ERR_INVALID;
    }
    for (int st = 0; st < TASK_STATES; st++) s->replayed += core_count(s->core, (TaskState)st);
    /* Shard time: never behind the last record, then driven by the clock that does not step. */
    s->time_base_ns = MAX(s->at.time_ns, clock->wall_ns(clock));
    s->boot_base_ns = clock->boot_ns(clock);
    *ret = s;
    return 0;
}

void shard_free(Shard *s)
{
    if (!s) return;
    fleet_free(s->fleet);
    sched_free(s->sched);
    core_free(s->core);
    log_close(s->log);
    frame_done(&s->builder);
    buf_done(&s->frame);
    mem_free(s);
}

int shard_claim(Shard *s, Buf *why)
{
    uint8_t id_key[16];
    uint64_t holder;
    if (s->options.seed) {
        Random r;
        random_seed(&r, s->options.seed);
        for (size_t i = 0; i < sizeof id_key; i++) id_key[i] = (uint8_t)random_u64(&r);
        holder = random_u64(&r);
    } else {
        random_secret(id_key, sizeof id_key);
        random_secret(&holder, sizeof holder);
    }
    uint64_t epoch = s->at.epoch + 1;
    core_claim(s->core, epoch, holder, str_from(s->options.address), id_key, &s->builder);
    s->at.epoch = epoch;
    s->at.holder = holder;
    s->claimed = true;
    Decision d;
    if (shard_commit(s, true, &d)) return 0;
    buf_printf(why, "cannot claim the log: %s", d.detail);
    return d.code == CODE_DISK_FULL ? ERR_NOSPC : ERR_IO;
}

void shard_lead(Shard *s)
{
    CoreObserver o = {s,          on_changed,     on_ready,
                      on_unready, on_slot_freed,  on_lease_void,
                      on_leaving, on_file_leaving};
    fleet_lead(s->fleet);
    core_observe(s->core, &o, shard_now_ns(s));
    s->leading = true;
}

Core *shard_core(Shard *s)
{
    return s->core;
}

Log *shard_log(Shard *s)
{
    return s->log;
}

Sched *shard_sched(Shard *s)
{
    return s->sched;
}

Fleet *shard_fleet(Shard *s)
{
    return s->fleet;
}

int64_t shard_now_ns(const Shard *s)
{
    return s->time_base_ns + (s->clock->boot_ns(s->clock) - s->boot_base_ns);
}

uint64_t shard_last_seq(const Shard *s)
{
    return s->at.next_seq - 1;
}

uint64_t shard_durable_seq(const Shard *s)
{
    return s->durable_seq;
}

uint64_t shard_replayed_tasks(const Shard *s)
{
    return s->replayed;
}

void shard_durable(Shard *s, uint64_t seq)
{
    s->durable_seq = MAX(s->durable_seq, seq);
    /* What is unsynced now came after the commit that has just ended was taken: after the one
     * before had been told of, at the earliest. */
    s->unsynced_since_ns = s->durable_seq < shard_last_seq(s) ? s->open_since_ns : 0;
    s->open_since_ns = 0;
}

void shard_failed(Shard *s, int err)
{
    if (!s->failed) say_error("the log failed (%s): no longer the leader", err_text(err));
    s->failed = true;
}

void shard_drain(Shard *s)
{
    s->draining = true;
}

bool shard_take_dirty(Shard *s)
{
    bool was = s->dirty;
    s->dirty = false;
    return was;
}

/* ---- committing ---- */

static bool stalled(const Shard *s)
{
    return s->unsynced_since_ns && shard_now_ns(s) - s->unsynced_since_ns > LOG_STALL_NS;
}

static void refusal(Decision *d, Code code, uint32_t retry_after_ms, const char *detail)
{
    *d = (Decision){.code = code, .retry_after_ms = retry_after_ms};
    snprintf(d->detail, sizeof d->detail, "%s", detail);
}

/* Settled tasks wait in memory for the history view: not without a bound. */
static bool history_is_behind(const Shard *s)
{
    const CoreLimits *l = core_limits(s->core);
    if (!l->history) return false;
    uint64_t n = 0;
    for (int st = TASK_SUCCEEDED; st < TASK_STATES; st++) n += core_count(s->core, (TaskState)st);
    return n > l->finished_max || core_finished_bytes(s->core) > l->finished_bytes_max;
}

Decision shard_accepting(const Shard *s)
{
    Decision d = {.code = CODE_OK};
    if (s->failed || !s->leading)
        refusal(&d, CODE_NO_LEADER, 1000, "no leader can commit now; try again");
    else if (s->draining)
        refusal(&d, CODE_NO_LEADER, 5000, "the server is shutting down; try again");
    else if (stalled(s))
        refusal(&d, CODE_LOG_STALLED, 1000, "the log is slow: its oldest record is not synced yet");
    else if (history_is_behind(s))
        refusal(
            &d, CODE_LOG_STALLED, 1000,
            "the history view is too far behind; tasks are accepted again when it has caught up");
    else if (s->full_until_ns && s->full_until_ns > shard_now_ns(s))
        refusal(&d, CODE_DISK_FULL, 2000,
                "the disk is full; tasks are accepted again when there is space");
    return d;
}

bool shard_commit(Shard *s, bool reserved, Decision *d)
{
    if (s->builder.records == 0) return true;
    LogPoint at = s->at;
    int64_t now = MAX(shard_now_ns(s), at.time_ns);
    int err = s->failed || !s->claimed ? ERR_CLOSED : 0;
    buf_clear(&s->frame);
    if (!err) {
        frame_seal(&s->builder, now, &at, &s->frame);
        err = log_append(s->log, buf_str(&s->frame), at.next_seq - 1, reserved);
    }
    frame_reset(&s->builder);
    if (err) {
        bool full = err == ERR_NOSPC;
        /* A refused submit says nothing about the reserved room: what is accepted goes on. */
        if (reserved) s->retry_ns = now + (full ? NS_PER_S : 5 * NS_PER_MS);
        if (full) s->full_until_ns = now + NS_PER_S;
        if (full)
            refusal(d, CODE_DISK_FULL, 2000, "the disk is full");
        else if (err == ERR_AGAIN)
            refusal(d, CODE_LOG_STALLED, 200, "the log's open group is full");
        else
            refusal(d, CODE_NO_LEADER, 1000, "no leader can commit now; try again");
        return false;
    }
    s->at = at;
    s->dirty = true;
    if (!s->unsynced_since_ns) s->unsynced_since_ns = now;
    if (!s->open_since_ns) s->open_since_ns = now;
    if (s->out.appended) s->out.appended(s->out.ctx, buf_str(&s->frame));
    Frame f;
    size_t len;
    uint64_t misfits = core_misfits(s->core);
    CHECK(frame_read(buf_str(&s->frame), &f, &len) == 0);
    CHECK(core_apply(s->core, &f) == 0);
    CHECK(core_misfits(s->core) == misfits); /* what was just decided fits */
    return true;
}

/* A decision with its records: append and apply, or turn into the log's refusal. */
static Decision finish(Shard *s, Decision d, bool reserved)
{
    Decision refused;
    if (!shard_commit(s, reserved, &refused)) return refused;
    return d;
}

Decision shard_submit(Shard *s, const SubmitSpec *spec)
{
    return finish(s, core_submit(s->core, spec, shard_now_ns(s), &s->builder), false);
}

Decision shard_cancel(Shard *s, uint64_t no)
{
    return finish(s, core_cancel(s->core, no, shard_now_ns(s), &s->builder), true);
}

Decision shard_forget(Shard *s, uint64_t no)
{
    return finish(s, core_forget(s->core, no, &s->builder), true);
}

Decision shard_put_file(Shard *s, Str id, Str tenant, uint64_t size, const Sha256 *digest, Str name,
                        Str type, uint64_t owner_task)
{
    Decision d = core_put_file(s->core, id, tenant, size, digest, name, type, owner_task,
                               shard_now_ns(s), &s->builder);
    return finish(s, d, owner_task != 0);
}

Decision shard_delete_file(Shard *s, uint64_t file_no)
{
    return finish(s, core_delete_file(s->core, file_no, &s->builder), true);
}

Decision shard_history(Shard *s, uint64_t settled_seq)
{
    core_history(s->core, settled_seq, &s->builder);
    return finish(s, (Decision){.code = CODE_OK}, true);
}

Decision shard_pause_model(Shard *s, Str name, bool paused)
{
    Decision d = finish(s, core_set_flag(s->core, STR("model_paused"), name, paused, &s->builder),
                        true);
    if (!d.code) sched_model_pause(s->sched, core_sym_find(s->core, name), paused);
    return d;
}

/* ---- time ---- */

#define PAUSE_NS (5 * NS_PER_S) /* the loop turns at least once a second */

/* A bounded share of what is due: the loop must see its sockets in between. */
#define DUE_MAX 2000

int64_t shard_step(Shard *s)
{
    if (!s->leading || s->failed) return INT64_MAX;
    int64_t now = shard_now_ns(s);
    /* First, and whatever the log says: a worker that is asked keeps its leases, and none of them
     * must end only because there was no room for a while. */
    int64_t next = fleet_look(s->fleet, now);
    if (now < s->retry_ns) return MIN(next, s->retry_ns); /* the log has no room: give it time */
    /* We slept (a suspend, a stopped process): the workers had nobody to answer to meanwhile. */
    if (s->stepped_ns && now - s->stepped_ns > PAUSE_NS)
        s->freeze_until_ns = now + core_limits(s->core)->lease_ns;
    s->stepped_ns = now;
    bool freeze = stalled(s) || now < s->freeze_until_ns || fleet_freezes_leases(s->fleet, now);
    for (int n = 0; core_due(s->core, now, freeze, &s->builder); n++) {
        Decision d;
        if (!shard_commit(s, true, &d)) return MIN(next, s->retry_ns);
        if (n == DUE_MAX) return now;
    }
    if (!s->draining) next = MIN(next, fleet_dispatch(s->fleet));
    return MIN(next, core_next_due_ns(s->core));
}
