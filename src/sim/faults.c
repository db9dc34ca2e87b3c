#include "sim/contents.h"
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
    FAULT_DRAIN,
    FAULT_RIVAL,
    FAULT_TAKE, /* the disk goes to another machine: this one lives on without it */
    FAULT_MOVE, /* … and the other one starts */
    FAULT_UNCORDON,
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
    Peer operator;
    int tries;
    char cordoned[40], paused[16]; /* whom and what is to be let go again; "" */
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
    int64_t back_ns = world_between(w, 50 * NS_PER_MS, 3 * NS_PER_S);
    /* Now and then nobody starts it again for long: only time ends its leases. The first worker is
     * never gone for long, so that there is one. */
    bool long_gone = world_below(w, 3) == 0;
    if (long_gone && !s->healed && h != s->hands[0]) {
        back_ns = 10000 * NS_PER_S;
        told = false;
    }
    hand_die(h, back_ns);
    /* `serve` sees the end of its own workers' processes at once. */
    if (told && n->up && !n->dying) {
        witness_holder_gone(s->witness, str_from(hand_name(h)));
        (void)fleet_process_ended(shard_fleet(n->shard), str_from(hand_name(h)), crashed);
        n->host.turn(&n->host);
    }
}

/* ---- an operator ---- */

static void operate(Sim *s, const char *kind, const char *whom, const char *verb)
{
    char target[120];
    snprintf(target, sizeof target, "/v1/%s/%s/%s", kind, whom, verb);
    world_say(s->w, "operator: %s", target);
    (void)call_start(&s->faults->operator, s->host,
                     &(CallOptions){.method = "POST",
                                    .target = target,
                                    .headers = tenant_keys[0],
                                    .timeout_ns = 5 * NS_PER_S});
}

static void let_go(Sim *s)
{
    struct Faults *f = s->faults;
    if (s->healed) { /* whoever it was: names outlive ids */
        for (uint32_t i = 0; i < s->plan.workers; i++)
            if (hand_id(s->hands[i])[0]) operate(s, "workers", hand_id(s->hands[i]), "uncordon");
        char model[16];
        for (uint32_t i = 0; i < s->plan.models; i++) {
            snprintf(model, sizeof model, "m%u", i);
            operate(s, "models", model, "resume");
        }
        return;
    }
    if (f->cordoned[0]) operate(s, "workers", f->cordoned, "uncordon");
    if (f->paused[0]) operate(s, "models", f->paused, "resume");
    f->cordoned[0] = f->paused[0] = 0;
}

/* Drains or cordons a worker, or pauses a model; some time later all is let go. */
static void order(Sim *s)
{
    World *w = s->w;
    struct Faults *f = s->faults;
    if (f->cordoned[0] || f->paused[0]) return;
    world_happens(w, HAP_DRAINS);
    uint64_t what = world_below(w, 3);
    const Hand *h = any_hand(s);
    if (what == 2) {
        snprintf(f->paused, sizeof f->paused, "m%llu",
                 (unsigned long long)world_below(w, s->plan.models));
        operate(s, "models", f->paused, "pause");
    } else if (hand_id(h)[0]) {
        snprintf(f->cordoned, sizeof f->cordoned, "%s", hand_id(h));
        operate(s, "workers", f->cordoned, what ? "drain" : "cordon");
    }
    world_in(w, &f->all[FAULT_UNCORDON].event, world_around(w, 5 * NS_PER_S));
}

/* A second process starts over the same disk while the first one lives. */
static void rival(Sim *s)
{
    World *w = s->w;
    Node *n = s->node;
    Probe p;
    Buf why = {0};
    if (!n->up || n->dying || n->disk->dead || n->disk->die_at) return;
    world_happens(w, HAP_TAKEOVERS);
    int err = probe_disk(n, n->disk, false, &p, &why);
    if (err == 0) world_broken(w, 10, "a second process opened the log of a living one");
    buf_done(&why);
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
        for_ns = world_around(w, p->limits.lease_ns);
        hand_pause(any_hand(s), for_ns);
        break;
    case FAULT_DEATH:
        kill_hand(s, any_hand(s));
        break;
    case FAULT_DRAIN:
        order(s);
        break;
    case FAULT_RIVAL:
        rival(s);
        break;
    case FAULT_TAKE:
        if (!n->up || n->dying || d->die_at || d->taken) break;
        world_happens(w, HAP_TAKEN);
        d->taken = true;
        world_in(w, &s->faults->all[FAULT_MOVE].event, world_around(w, 2 * NS_PER_S));
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
    if (f->kind == FAULT_UNCORDON) {
        let_go(s);
        if (s->healed && s->plan.drain_ns && s->faults->tries++ < 60)
            world_in(w, &f->event, 5 * NS_PER_S);
        return;
    }
    if (f->kind == FAULT_MOVE) { /* what was not on the disk then is nowhere */
        if (s->node->disk->taken) node_kill(s->node, true);
        return;
    }
    if (s->healed) return;
    happen(s, f->kind);
    if (f->kind == FAULT_FULL)
        world_in(w, &s->faults->all[FAULT_ROOM].event, world_around(w, 4 * NS_PER_S));
    world_in(w, &f->event, world_around(w, f->every_ns));
}

/* ---- the server's life ---- */

/* ---- damage ---- */

/* May this byte be damaged without that a start could take it for a torn, unacknowledged end? */
static bool is_proven(const Node *n, const char *name, uint64_t at)
{
    unsigned long long number;
    size_t len = strlen(name);
    if (sscanf(name, "log/%llu.seg", &number) == 1 && len > 4 &&
        strcmp(name + len - 4, ".seg") == 0)
        return number < n->proof_segment || (number == n->proof_segment && at < n->proof_at);
    return strncmp(name, "log/", 4) == 0 && !strstr(name, ".free");
}

/* Hurts a copy of the disk, and holds a start from it against one from the disk as it is: it must
 * refuse, or come to the same state, if what was hurt does not matter. */
static void try_damage(Sim *s, const Probe *whole)
{
    World *w = s->w;
    Node *n = s->node;
    MemDisk *d = mem_disk_clone(n->disk);
    Probe hurt;
    Buf why = {0};
    char name[64]; /* a copy: the start that follows changes the names */
    memcpy(name, d->names[world_below(w, d->names_len)].name, sizeof name);
    size_t len;
    uint8_t *bytes = mem_disk_bytes(d, name, &len);
    uint64_t at = len ? world_below(w, len) : 0;
    bool misdirected = world_below(w, 3) == 0;
    if (!len || !is_proven(n, name, at)) goto out;
    if (misdirected) { /* sectors of another place in the file land here */
        size_t from = (size_t)world_below(w, len) / 512 * 512, to = (size_t)at / 512 * 512;
        size_t some = (size_t)512 << world_below(w, 4);
        some = MIN(some, len - MAX(from, to));
        if (!is_proven(n, name, to + some)) goto out;
        if (memcmp(bytes + to, bytes + from, some) == 0) goto out;
        memmove(bytes + to, bytes + from, some);
        world_happens(w, HAP_MISDIRECTED);
    } else {
        bytes[at] ^= (uint8_t)(1U << world_below(w, 8));
        world_happens(w, HAP_FLIPS);
    }
    world_say(w, "damage: %s at %llu", name, (unsigned long long)at);
    int err = probe_disk(n, d, false, &hurt, &why);
    if (err == ERR_CORRUPT && strstr(name, ".snap")) /* the other one, or the log, has it all */
        world_broken(w, 12, "one damaged snapshot, %s at %llu, keeps it from starting: %.*s", name,
                     (unsigned long long)at, STR_ARG(buf_str(&why)));
    else if (err == ERR_CORRUPT || err == ERR_UNSUPPORTED)
        world_happens(w, HAP_DETECTED);
    else if (err)
        world_broken(w, 19, "damage in %s at %llu is told as: %s: %.*s", name,
                     (unsigned long long)at, err_text(err), STR_ARG(buf_str(&why)));
    else if (hurt.hash != whole->hash || hurt.at.next_seq != whole->at.next_seq)
        world_broken(w, 19, "damage in %s at %llu was not detected, and changed what is served",
                     name, (unsigned long long)at);
out:
    disk_free(&d->base);
    buf_done(&why);
}

static void damage(Sim *s)
{
    Node *n = s->node;
    Probe whole;
    Buf why = {0};
    if (s->healed || !n->proof_segment || !world_odds(s->w, s->plan.damage)) return;
    MemDisk *d = mem_disk_clone(n->disk);
    int err = probe_disk(n, d, false, &whole, &why);
    disk_free(&d->base);
    for (int i = 0; !err && i < 4; i++) try_damage(s, &whole);
    buf_done(&why);
}

static void restart(Sim *s)
{
    World *w = s->w;
    Node *n = s->node;
    Buf why = {0};
    if (n->up) return;
    damage(s);
    /* It may die while it starts. */
    if (!s->healed && s->plan.crash_ns && !world_below(w, 4)) {
        n->disk->die_at = n->disk->ops + 1 + world_below(w, 60);
        n->power_cut = world_odds(w, s->plan.power);
    }
    bool power = n->power_cut;
    int err = node_start(n, &why);
    if (!err) contents_check(s, n->disk, false);
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
        [FAULT_CRASH] = p->crash_ns, [FAULT_STOP] = p->stop_ns,   [FAULT_CUT] = p->cut_ns,
        [FAULT_STEP] = p->step_ns,   [FAULT_FULL] = p->full_ns,   [FAULT_PAUSE] = p->pause_ns,
        [FAULT_DEATH] = p->death_ns, [FAULT_DRAIN] = p->drain_ns, [FAULT_RIVAL] = 40 * NS_PER_S,
        [FAULT_TAKE] = p->take_ns,
    };
    s->faults = mem_new(sizeof *s->faults);
    peer_init(&s->faults->operator, s->w, "operator");
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
    world_in(w, &s->faults->all[FAULT_UNCORDON].event, NS_PER_S);
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
    calls_drop(&s->faults->operator);
    mem_free(s->faults);
}
