/* run.c: one seed from its beginning to its verdict: a world is drawn, lives through its faults
 * (safety), is healed (liveness: everything must end), and is taken apart (replays must give what
 * lived). */
#include <string.h>

#include "node/inside.h"
#include "sim/actors.h"
#include "sim/bounds.h"
#include "sim/contents.h"
#include "sim/faults.h"
#include "sim/judge.h"
#include "sim/model.h"
#include "sim/node.h"
#include "sim/sim.h"

#define COMPARE_NS NS_PER_S

static void nothing_changed(void *ctx, Task *t, const TaskEvent *e)
{
    (void)ctx;
    (void)t;
    (void)e;
}
static void nothing_task(void *ctx, Task *t)
{
    (void)ctx;
    (void)t;
}
static void nothing_file(void *ctx, const File *f)
{
    (void)ctx;
    (void)f;
}
static void nothing_line(void *ctx, Str id, Str line, uint64_t seq)
{
    (void)ctx;
    (void)id;
    (void)line;
    (void)seq;
}
static void nothing_kick(void *ctx, Str id)
{
    (void)ctx;
    (void)id;
}
static void nothing_kill(void *ctx, Str name, int64_t pid)
{
    (void)ctx;
    (void)name;
    (void)pid;
}

int probe_disk(const Node *n, MemDisk *d, bool fold, Probe *ret, Buf *why)
{
    static const ShardOut out = {.task_changed = nothing_changed,
                                 .task_progress = nothing_task,
                                 .task_leaving = nothing_task,
                                 .file_leaving = nothing_file,
                                 .worker_line = nothing_line,
                                 .worker_kick = nothing_kick,
                                 .worker_kill = nothing_kill};
    ShardOptions o = {.limits = n->plan->limits,
                      .segment_bytes = n->plan->segment_bytes,
                      .seed = 1,
                      .accept_clock = true,
                      .address = "probe"};
    Shard *s;
    int err = shard_open(&d->base, (Clock *)&n->clock, &o, &out, &s, why);
    if (err) return err;
    *ret = (Probe){.hash = core_hash(s->core), .at = s->at, .misfits = core_misfits(s->core)};
    if (fold) err = fold_run(s->log, &d->base, &o.limits, why);
    shard_free(s);
    return err;
}

/* ---- the end ---- */

/* hash(live) = hash(replay) = hash(snapshot and tail). */
static void compare_replays(Sim *s)
{
    World *w = s->w;
    Node *n = s->node;
    Buf why = {0};
    uint64_t live = core_hash(shard_core(n->shard));
    MemDisk *d = mem_disk_clone(n->disk);
    Probe replay, folded;
    int err = probe_disk(n, d, true, &replay, &why);
    if (!err) err = probe_disk(n, d, false, &folded, &why);
    if (err)
        world_broken(w, 11, "a replay of the log at rest fails: %s: %.*s", err_text(err),
                     STR_ARG(buf_str(&why)));
    else if (replay.hash != live)
        world_broken(w, 11, "a replay gives another state than the one that lived");
    else if (folded.hash != live)
        world_broken(w, 11, "a snapshot and its tail give another state than the one that lived");
    else if (replay.misfits || folded.misfits)
        world_broken(w, 11, "a replay met %llu records that do not fit",
                     (unsigned long long)replay.misfits);
    disk_free(&d->base);
    buf_done(&why);
}

/* ---- phases ---- */

/* With everything well, what is due happens by itself, and no lease ends but by a report. */
static void check_calm(Sim *s)
{
    World *w = s->w;
    const Node *n = s->node;
    Buf why = {0};
    if (!s->calm_ns || w->now_ns < s->calm_ns || w->broken || !n->up || n->dying) return;
    int broken = model_late(witness_model(s->witness), shard_now_ns(n->shard), 10 * NS_PER_S, &why);
    if (broken) world_broken(w, broken, "in calm: %.*s", STR_ARG(buf_str(&why)));
    buf_done(&why);
    uint64_t ended = shard_fleet(n->shard)->lease_expirations_total;
    if (s->ended_leases == UINT64_MAX) s->ended_leases = ended;
    if (ended != s->ended_leases)
        world_broken(w, 22, "%llu lease(s) of workers that answer ended by time",
                     (unsigned long long)(ended - s->ended_leases));
}

static void check(Sim *s)
{
    check_calm(s);
    if (s->node->up && !s->node->dying && s->node->shard)
        witness_compare(s->witness, shard_core(s->node->shard));
    witness_look(s->witness);
}

/* Lives until then, or until something is broken. */
static void live(Sim *s, int64_t until_ns)
{
    World *w = s->w;
    int64_t compare_ns = w->now_ns + COMPARE_NS;
    while (!w->broken) {
        HeapNode *n = heap_min(&w->events);
        if (!n || n->key > until_ns) break;
        world_step(w);
        if (w->now_ns >= compare_ns) {
            check(s);
            compare_ns = w->now_ns + COMPARE_NS;
        }
    }
    if (!w->broken) w->now_ns = MAX(w->now_ns, until_ns);
}

static bool drained(Sim *s)
{
    Node *n = s->node;
    if (!n->up || n->dying) return false;
    for (uint32_t i = 0; i < s->plan.clients; i++)
        if (!client_idle(s->clients[i])) return false;
    if (!batcher_idle(s->batcher)) return false;
    for (uint32_t i = 0; i < ARRAY_LEN(s->filers); i++)
        if (!filer_idle(s->filers[i])) return false;
    const Core *c = shard_core(n->shard);
    if (core_count(c, TASK_QUEUED) + core_count(c, TASK_RUNNING) ||
        fleet_running(shard_fleet(n->shard)) ||
        shard_durable_seq(n->shard) != shard_last_seq(n->shard))
        return false;
    Buf why = {0}; /* a lease that nobody holds may outlive its task */
    bool over = model_drained(witness_model(s->witness), &why) == 0;
    buf_done(&why);
    return over;
}

static bool has_read_all(const Sim *s)
{
    return client_has_read_all(s->clients[0]) && filer_has_read_all(s->filers[0]);
}

static void liveness(Sim *s)
{
    World *w = s->w;
    Judge *j = witness_judge(s->witness);
    s->healed = s->quiet = true;
    faults_heal(s);
    judge_calm(j, w->now_ns);
    s->ended_leases = UINT64_MAX;
    s->calm_ns = w->now_ns + 3 * s->plan.limits.lease_ns + 30 * NS_PER_S;
    world_say(w, "---- healed");
    live(s, w->now_ns + 10 * NS_PER_S);
    uint64_t left = 0;
    if (s->node->up) {
        const Core *c = shard_core(s->node->shard);
        left = core_count(c, TASK_QUEUED) + core_count(c, TASK_RUNNING);
    }
    int64_t bound = w->now_ns + s->plan.healed_ns +
                    (int64_t)left * (10 * s->plan.run_ns + 2 * NS_PER_S);
    while (!w->broken && w->now_ns < bound && !drained(s)) live(s, w->now_ns + NS_PER_S);
    if (w->broken) return;
    if (!drained(s)) {
        const Core *c = s->node->up ? shard_core(s->node->shard) : NULL;
        world_broken(w, 21, "not drained: %llu queued, %llu running%s",
                     (unsigned long long)(c ? core_count(c, TASK_QUEUED) : 0),
                     (unsigned long long)(c ? core_count(c, TASK_RUNNING) : 0),
                     c ? "" : ", and the server is down");
        return;
    }
    judge_drained(j, w->now_ns);
    world_say(w, "---- drained");
    client_read_all(s->clients[0]);
    filer_read_all(s->filers[0]);
    bound = w->now_ns + 600 * NS_PER_S;
    while (!w->broken && w->now_ns < bound && !has_read_all(s)) {
        live(s, w->now_ns + NS_PER_S);
        /* Of unknown outcome, and there only now: it is read, too. */
        Client *c = s->clients[0];
        if (client_idle(c) && !client_has_read_all(c)) client_read_all(c);
        if (!filer_has_read_all(s->filers[0])) filer_read_all(s->filers[0]);
    }
    if (!w->broken && !has_read_all(s))
        world_broken(w, 21, "the accepted tasks or the stored contents cannot be read");
    judge_finish(j);
    check(s);
}

static void at_rest(Sim *s)
{
    World *w = s->w;
    int64_t bound = w->now_ns + 60 * NS_PER_S;
    Node *n = s->node;
    while (!w->broken && w->now_ns < bound &&
           (!n->up || shard_durable_seq(n->shard) != shard_last_seq(n->shard)))
        live(s, w->now_ns + 10 * NS_PER_MS);
    if (!w->broken && n->up && !n->dying) compare_replays(s);
    if (!w->broken) contents_check(s, n->disk, false);
}

/* A day or more later, over a restart: retention is over, orphans are old, and two snapshots are of
 * what is left. */
static void rest(Sim *s)
{
    World *w = s->w;
    Node *n = s->node;
    for (int i = 0; i < 4 && !w->broken; i++) { /* a fold is of what was before its start */
        node_kill(n, false);
        w->wall_add_ns += 30 * 3600 * NS_PER_S;
        s->ended_leases = UINT64_MAX;
        s->calm_ns = w->now_ns + 60 * NS_PER_S;
        live(s, w->now_ns + 20 * NS_PER_S);
        node_fold(n);
        live(s, w->now_ns + 20 * NS_PER_S);
    }
    if (w->broken) return;
    if (!n->up || n->fold_err) {
        world_broken(w, 25, "at rest there is no %s", n->up ? "snapshot" : "server");
        return;
    }
    contents_check(s, n->disk, true);
    bounds_check(n);
}

void sim_run(uint64_t seed, const SimOptions *o, SimResult *ret)
{
    Sim *s = mem_new(sizeof *s);
    Random plan_random, secrets;
    s->w = world_new(seed, o->trace);
    random_seed(&plan_random, seed ^ 0x5eed);
    random_seed(&secrets, seed ^ 0x5ec2e7);
    random_secret_simulate(&secrets);
    plan_draw(&s->plan, &plan_random, o->profile);
    Buf text = {0};
    plan_print(&s->plan, &text);
    world_say(s->w, "%.*s", STR_ARG(buf_str(&text)));
    buf_done(&text);
    int64_t began = s->w->now_ns;
    s->witness = witness_new(s->w, &s->plan.limits, 0);
    s->node = node_new(s->w, &s->plan, s->witness, "node-0");
    s->host = &s->node->host;
    faults_begin(s);
    s->clients = mem_new(s->plan.clients * sizeof(Client *));
    for (uint32_t i = 0; i < s->plan.clients; i++) s->clients[i] = client_new(s, i);
    s->hands = mem_new(s->plan.workers * sizeof(Hand *));
    for (uint32_t i = 0; i < s->plan.workers; i++) s->hands[i] = hand_new(s, i);

    for (uint32_t i = 0; i < ARRAY_LEN(s->followers); i++) s->followers[i] = follower_new(s, i);
    s->batcher = batcher_new(s, 900);
    for (uint32_t i = 0; i < ARRAY_LEN(s->filers); i++) s->filers[i] = filer_new(s, 910 + i);

    live(s, began + s->plan.faulty_ns);
    if (!s->w->broken) liveness(s);
    if (!s->w->broken) at_rest(s);
    if (!s->w->broken) rest(s);

    World *w = s->w;
    ret->seed = seed;
    ret->hash = w->hash;
    ret->invariant = w->broken;
    ret->at_ns = w->now_ns - began;
    ret->simulated_ns = w->now_ns - began;
    ret->why = w->why;
    w->why = (Buf){0};
    memcpy(ret->haps, w->haps, sizeof ret->haps);
    ret->submits = s->submits;
    ret->tasks = s->tasks;
    ret->reads = s->reads;
    ret->leases = s->leases;
    ret->restarts = s->node->incarnation - 1;
    ret->records = model_last_seq(witness_model(s->witness));
    faults_end(s);
    for (uint32_t i = 0; i < s->plan.clients; i++) client_free(s->clients[i]);
    for (uint32_t i = 0; i < s->plan.workers; i++) hand_free(s->hands[i]);
    for (uint32_t i = 0; i < ARRAY_LEN(s->followers); i++) follower_free(s->followers[i]);
    batcher_free(s->batcher);
    for (uint32_t i = 0; i < ARRAY_LEN(s->filers); i++) filer_free(s->filers[i]);
    buf_done(&s->contents);
    mem_free(s->clients);
    mem_free(s->hands);
    buf_done(&s->leased);
    node_free(s->node);
    witness_free(s->witness);
    world_free(w);
    mem_free(s);
    random_secret_simulate(NULL);
}

void sim_result_done(SimResult *r)
{
    buf_done(&r->why);
}
