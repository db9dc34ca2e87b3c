#include "sim/faults.h"

#include <stdio.h>
#include <string.h>

typedef enum {
    FAULT_CRASH,
    FAULT_STOP,
    FAULT_CUT,
    FAULT_STEP,
    FAULT_FULL,
    FAULT_ROOM, /* the full disk has room again */
    FAULT_PAUSE,
    FAULT_DEATH,
    FAULT_RESTART,
    FAULTS
} FaultKind;

typedef struct {
    Event event;
    Sim *s;
    FaultKind kind;
    int64_t every_ns;
} Fault;

struct Faults {
    Fault all[FAULTS];
};

static void restart(Sim *s);

static Hand *any_hand(Sim *s)
{
    return s->hands[world_below(s->w, s->plan.workers)];
}

static Peer *any_peer(Sim *s)
{
    uint64_t i = world_below(s->w, s->plan.workers + s->plan.clients);
    if (i < s->plan.workers) return hand_peer(s->hands[i]);
    return client_peer(s->clients[i - s->plan.workers]);
}

static void kill_hand(Sim *s, Hand *h)
{
    World *w = s->w;
    Node *n = s->node;
    world_happens(w, HAP_WORKER_DEATHS);
    bool told = world_below(w, 2);
    bool crashed = world_below(w, 2);
    hand_die(h, world_between(w, 50 * NS_PER_MS, 3 * NS_PER_S));
    /* `serve` sees the end of its own workers' processes at once. */
    if (told && n->up && !n->dying) {
        (void)fleet_process_ended(shard_fleet(n->shard), str_from(hand_name(h)), crashed);
        n->host.turn(&n->host);
    }
}

static void happen(Sim *s, FaultKind kind)
{
    World *w = s->w;
    Node *n = s->node;
    MemDisk *d = n->disk;
    const Plan *p = &s->plan;
    Peer *peer;
    int64_t for_ns;
    switch (kind) {
    case FAULT_CRASH:
        if (!n->up || d->die_at) break;
        d->die_at = d->ops + 1 + world_below(w, p->crash_ops);
        n->power_cut = world_odds(w, p->power);
        world_happens(w, n->power_cut ? HAP_POWER_CUTS : HAP_KILLS);
        break;
    case FAULT_STOP:
        node_stop(n);
        break;
    case FAULT_CUT:
        peer = any_peer(s);
        for_ns = world_around(w, 3 * NS_PER_S);
        world_happens(w, HAP_CUTS);
        world_say(w, "%s: cut for %lld ms", peer->name, (long long)(for_ns / NS_PER_MS));
        peer->cut_until_ns = MAX(peer->cut_until_ns, w->now_ns + for_ns);
        break;
    case FAULT_STEP:
        world_happens(w, HAP_CLOCK_STEPS);
        w->wall_add_ns += world_between(w, -5 * 3600, 5 * 3600) * NS_PER_S;
        break;
    case FAULT_FULL:
        world_happens(w, HAP_DISK_FULL);
        d->capacity = mem_disk_used(d) + world_below(w, 3 * p->segment_bytes);
        break;
    case FAULT_PAUSE:
        world_happens(w, HAP_WORKER_PAUSES);
        hand_pause(any_hand(s), world_around(w, p->limits.lease_ns));
        break;
    case FAULT_DEATH:
        kill_hand(s, any_hand(s));
        break;
    default:
        break;
    }
}

static void fault_fire(Event *e)
{
    Fault *f = CONTAINER_OF(e, Fault, event);
    Sim *s = f->s;
    World *w = s->w;
    if (f->kind == FAULT_RESTART) {
        restart(s);
        return;
    }
    if (f->kind == FAULT_ROOM) {
        s->node->disk->capacity = 0;
        return;
    }
    if (s->healed) return;
    happen(s, f->kind);
    if (f->kind == FAULT_FULL)
        world_in(w, &s->faults->all[FAULT_ROOM].event, world_around(w, 4 * NS_PER_S));
    world_in(w, &f->event, world_around(w, f->every_ns));
}

/* ---- the server's life ---- */

static void restart(Sim *s)
{
    World *w = s->w;
    Node *n = s->node;
    Buf why = {0};
    if (n->up) return;
    /* It may die while it starts. */
    if (!s->healed && s->plan.crash_ns && !world_below(w, 4)) {
        n->disk->die_at = n->disk->ops + 1 + world_below(w, 60);
        n->power_cut = world_odds(w, s->plan.power);
    }
    bool power = n->power_cut;
    int err = node_start(n, &why);
    if (err) {
        bool died = n->disk->dead;
        bool full = n->disk->capacity != 0;
        if (died) {
            world_happens(w, power ? HAP_POWER_CUTS : HAP_KILLS);
            mem_disk_crash(n->disk, power ? CRASH_TEAR : CRASH_KILL);
        } else if (!full || err != ERR_NOSPC) {
            world_broken(w, 1, "the server does not start: %s: %.*s", err_text(err),
                         STR_ARG(buf_str(&why)));
        }
        world_in(w, &s->faults->all[FAULT_RESTART].event, world_around(w, 500 * NS_PER_MS));
    }
    buf_done(&why);
}

static void on_died(void *owner, Node *n)
{
    Sim *s = owner;
    (void)n;
    world_in(s->w, &s->faults->all[FAULT_RESTART].event,
             world_between(s->w, 10 * NS_PER_MS, 4 * NS_PER_S));
}

static void on_kill_worker(void *owner, Str name)
{
    Sim *s = owner;
    for (uint32_t i = 0; i < s->plan.workers; i++)
        if (str_eqz(name, hand_name(s->hands[i]))) kill_hand(s, s->hands[i]);
}

void faults_begin(Sim *s)
{
    const Plan *p = &s->plan;
    const int64_t every[FAULTS] = {
        [FAULT_CRASH] = p->crash_ns, [FAULT_STOP] = p->stop_ns, [FAULT_CUT] = p->cut_ns,
        [FAULT_STEP] = p->step_ns,   [FAULT_FULL] = p->full_ns, [FAULT_PAUSE] = p->pause_ns,
        [FAULT_DEATH] = p->death_ns,
    };
    s->faults = mem_new(sizeof *s->faults);
    s->node->owner = s;
    s->node->died = on_died;
    s->node->kill_worker = on_kill_worker;
    for (int i = 0; i < FAULTS; i++) {
        Fault *f = &s->faults->all[i];
        *f = (Fault){.event.fire = fault_fire, .s = s, .kind = (FaultKind)i, .every_ns = every[i]};
        if (every[i]) world_in(s->w, &f->event, world_around(s->w, every[i]));
    }
    restart(s);
}

void faults_heal(Sim *s)
{
    World *w = s->w;
    Plan *p = &s->plan;
    MemDisk *d = s->node->disk;
    p->sync_fails = p->write_fails = p->read_fails = p->resets = p->damage = 0;
    p->errors = p->hangs = p->device_crashes = p->load_fails = p->lies = 0;
    d->capacity = 0;
    d->die_at = 0;
    for (uint32_t i = 0; i < s->plan.clients; i++) {
        Peer *peer = client_peer(s->clients[i]);
        peer->cut_until_ns = MIN(peer->cut_until_ns, w->now_ns);
        peer->reset_odds = 0;
    }
    for (uint32_t i = 0; i < s->plan.workers; i++) {
        Peer *peer = hand_peer(s->hands[i]);
        peer->cut_until_ns = MIN(peer->cut_until_ns, w->now_ns);
        peer->reset_odds = 0;
        hand_pause(s->hands[i], 0);
    }
}

void faults_end(Sim *s)
{
    for (int i = 0; i < FAULTS; i++) world_not(s->w, &s->faults->all[i].event);
    mem_free(s->faults);
}
