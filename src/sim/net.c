#include "sim/net.h"

#include <stdio.h>
#include <string.h>

#include "sim/fiber.h"

#define WINDOW (256 * KIB) /* bytes under way to a peer; more waits in the server's tcp */

typedef struct {
    List link;
    int64_t due_ns;
    uint64_t durable;
    size_t at, n;
    bool end, broken;
    char bytes[];
} Piece;

typedef struct {
    List pieces;
    Event event;
    int64_t last_ns;
    size_t bytes;
    bool ended;
} Pipe;

struct Conn {
    List in_peer, in_host;
    World *w;
    Peer *peer; /* NULL: its end is closed */
    Host *host;
    Tcp *tcp; /* the server's end; NULL: not yet, or gone */
    ConnOps ops;
    Pipe up, down; /* to the server, to the peer */
    uint64_t durable;
    bool opened, reads, waits; /* reads: the server does; waits: its flight, for room */
    bool telling;              /* inside a callback: not to be freed */
};

static void pipe_done(World *w, Pipe *p)
{
    while (!list_empty(&p->pieces)) {
        Piece *x = LIST_FIRST(&p->pieces, Piece, link);
        list_del(&x->link);
        mem_free(x);
    }
    world_not(w, &p->event);
}

static void free_if_gone(Conn *c)
{
    if (c->peer || c->tcp || c->telling) return;
    if (!c->opened && !list_empty(&c->up.pieces)) return; /* what was sent still arrives */
    pipe_done(c->w, &c->up);
    pipe_done(c->w, &c->down);
    list_del(&c->in_peer);
    list_del(&c->in_host);
    mem_free(c);
}

/* ---- pipes ---- */

static void arm(Conn *c, Pipe *p)
{
    if (list_empty(&p->pieces))
        world_not(c->w, &p->event);
    else
        world_at(c->w, &p->event, LIST_FIRST(&p->pieces, Piece, link)->due_ns);
}

static int64_t due(Conn *c, Pipe *p)
{
    const Peer *peer = c->peer;
    int64_t at = c->w->now_ns + world_between(c->w, peer->delay_least_ns, peer->delay_most_ns);
    at = MAX(at, peer->cut_until_ns);
    p->last_ns = MAX(at, p->last_ns);
    return p->last_ns;
}

static void put(Conn *c, Pipe *p, Str bytes, bool end, bool broken)
{
    if (p->ended || !c->peer) return;
    Piece *x = mem_new(sizeof *x + bytes.n);
    x->n = bytes.n;
    x->end = end;
    x->broken = broken;
    x->durable = c->host->up && c->host->durable ? c->host->durable(c->host) : 0;
    if (bytes.n) memcpy(x->bytes, bytes.p, bytes.n);
    x->due_ns = due(c, p);
    p->bytes += bytes.n;
    p->ended = end;
    list_push_back(&p->pieces, &x->link);
    if (p->pieces.next == &x->link) arm(c, p);
}

static void pour(Conn *c, Pipe *p, Str bytes)
{
    Peer *peer = c->peer;
    if (!peer) return;
    if (world_odds(c->w, peer->reset_odds)) {
        world_happens(c->w, HAP_RESETS);
        put(c, &c->up, (Str){"", 0}, true, true);
        put(c, &c->down, (Str){"", 0}, true, true);
        return;
    }
    while (bytes.n > 1 && world_odds(c->w, peer->piece_odds)) {
        size_t n = 1 + (size_t)world_below(c->w, bytes.n - 1);
        put(c, p, (Str){bytes.p, n}, false, false);
        bytes.p += n;
        bytes.n -= n;
    }
    put(c, p, bytes, false, false);
}

/* ---- to the peer ---- */

static void down_fire(Event *e)
{
    Conn *c = CONTAINER_OF(e, Conn, down.event);
    Piece *x = LIST_FIRST(&c->down.pieces, Piece, link);
    if (c->peer && c->peer->cut_until_ns > c->w->now_ns) { /* cut since it was sent */
        x->due_ns = c->peer->cut_until_ns;
        arm(c, &c->down);
        return;
    }
    list_del(&x->link);
    arm(c, &c->down);
    c->down.bytes -= x->n;
    c->telling = true;
    c->durable = x->durable;
    if (x->n && c->peer) {
        world_note(c->w, c->peer->name, (Str){x->bytes, x->n});
        c->ops.got(c->ops.ctx, x->bytes, x->n);
    }
    if (x->end && c->peer) {
        void *ctx = c->ops.ctx;
        world_say(c->w, "%s: connection %s", c->peer->name, x->broken ? "broke" : "ended");
        bool broken = x->broken;
        if (!c->up.ended) put(c, &c->up, (Str){"", 0}, true, broken);
        c->peer = NULL;
        list_del(&c->in_peer);
        c->ops.over(ctx, broken);
    }
    mem_free(x);
    Tcp *t = c->tcp;
    if (t && c->waits && c->down.bytes < WINDOW && !t->closing) {
        c->waits = false;
        pour(c, &c->down, buf_str(&t->flight));
        tcp_written(t, true);
        if (c->host->up) c->host->turn(c->host);
    }
    c->telling = false;
    free_if_gone(c);
}

/* ---- to the server ---- */

static void up_fire(Event *e)
{
    Conn *c = CONTAINER_OF(e, Conn, up.event);
    Host *h = c->host;
    if (c->peer && c->peer->cut_until_ns > c->w->now_ns) {
        LIST_FIRST(&c->up.pieces, Piece, link)->due_ns = c->peer->cut_until_ns;
        arm(c, &c->up);
        return;
    }
    c->telling = true;
    if (!c->opened) {
        c->opened = true;
        list_del(&c->in_host);
        Tcp *t = h->up && h->listener && !h->listener->stopped ? tcp_fresh(h->listener) : NULL;
        if (!t) {
            pipe_done(c->w, &c->up);
            c->up.ended = true;
            put(c, &c->down, (Str){"", 0}, true, true);
            c->telling = false;
            free_if_gone(c);
            return;
        }
        c->tcp = t;
        t->at = c;
        list_push_back(&h->conns, &c->in_host);
        tcp_opened(t);
    }
    while (!list_empty(&c->up.pieces) && c->tcp && !c->tcp->closing && c->reads && h->up) {
        Piece *x = LIST_FIRST(&c->up.pieces, Piece, link);
        if (x->due_ns > c->w->now_ns) break;
        list_del(&x->link);
        c->up.bytes -= x->n;
        if (x->n) {
            world_note(c->w, "server", (Str){x->bytes, x->n});
            tcp_got(c->tcp, x->bytes, x->n);
        }
        if (x->end) {
            if (x->broken)
                tcp_close(c->tcp);
            else
                tcp_ended(c->tcp);
        }
        mem_free(x);
    }
    if (c->tcp && c->reads) arm(c, &c->up);
    c->telling = false;
    if (h->up) h->turn(h);
    free_if_gone(c);
}

/* ---- the peer's end ---- */

void peer_init(Peer *p, World *w, const char *name)
{
    *p = (Peer){.w = w, .delay_least_ns = NS_PER_MS / 10, .delay_most_ns = NS_PER_MS};
    snprintf(p->name, sizeof p->name, "%s", name);
    list_init(&p->conns);
    list_init(&p->idle);
}

Conn *conn_open(Peer *p, Host *h, const ConnOps *ops)
{
    Conn *c = mem_new(sizeof *c);
    c->w = p->w;
    c->peer = p;
    c->host = h;
    c->ops = *ops;
    list_push_back(&h->coming, &c->in_host);
    list_init(&c->up.pieces);
    list_init(&c->down.pieces);
    c->up.event.fire = up_fire;
    c->down.event.fire = down_fire;
    c->reads = true;
    list_push_back(&p->conns, &c->in_peer);
    put(c, &c->up, (Str){"", 0}, false, false);
    return c;
}

void conn_send(Conn *c, Str bytes)
{
    pour(c, &c->up, bytes);
}

void conn_close(Conn *c)
{
    if (!c->peer) return;
    put(c, &c->up, (Str){"", 0}, true, false);
    pipe_done(c->w, &c->down);
    c->down.ended = true;
    c->peer = NULL;
    list_del(&c->in_peer);
    free_if_gone(c);
}

void peer_drop(Peer *p)
{
    while (!list_empty(&p->conns)) {
        Conn *c = LIST_FIRST(&p->conns, Conn, in_peer);
        void *ctx = c->ops.ctx;
        void (*over)(void *, bool) = c->ops.over;
        conn_close(c);
        over(ctx, true);
    }
}

uint64_t conn_durable(const Conn *c)
{
    return c->durable;
}

/* ---- the server's end: io/tcp.c's network ---- */

static Host *host_of(TcpListener *l)
{
    return CONTAINER_OF(l->loop, Host, loop);
}

static void sweep_fire(Event *e)
{
    Host *h = CONTAINER_OF(e, Host, sweep);
    if (!h->listener || h->listener->closing) return;
    tcp_sweep(h->listener);
    world_in(h->w, &h->sweep, 500 * NS_PER_MS);
}

static int sim_listen(TcpListener *l, const char *host_port, Buf *why)
{
    (void)why;
    Host *h = host_of(l);
    h->listener = l;
    l->loopback = true;
    snprintf(l->address, sizeof l->address, "%s", host_port);
    world_in(h->w, &h->sweep, 500 * NS_PER_MS);
    return 0;
}

static void sim_stop(TcpListener *l)
{
    (void)l; /* conn_open's first piece looks at l->stopped */
}

static void sim_close(TcpListener *l)
{
    world_not(host_of(l)->w, &host_of(l)->sweep);
}

static bool sim_closed(const TcpListener *l)
{
    (void)l;
    return true;
}

static void sim_free(TcpListener *l)
{
    host_of(l)->listener = NULL;
}

static int sim_read(Tcp *t, bool on)
{
    Conn *c = t->at;
    c->reads = on;
    if (on && !c->telling && !list_empty(&c->up.pieces)) arm(c, &c->up);
    if (!on) world_not(c->w, &c->up.event);
    return 0;
}

static int sim_try_write(Tcp *t, const char *p, size_t n)
{
    Conn *c = t->at;
    Host *h = c->host;
    if (!h->up || (h->touch && h->touch(h))) return -1;
    if (!c->peer) return -1;
    if (c->down.bytes >= WINDOW) return 0;
    n = MIN(n, WINDOW - c->down.bytes);
    pour(c, &c->down, (Str){p, n});
    return (int)n;
}

static int sim_write(Tcp *t)
{
    Conn *c = t->at;
    if (!c->peer) return -1;
    c->waits = true; /* there is more than a window of it under way */
    return 0;
}

static void sim_shut(Tcp *t)
{
    Conn *c = t->at;
    if (c->host->up) put(c, &c->down, (Str){"", 0}, true, false);
}

static void shed_fire(Event *e)
{
    host_settle(CONTAINER_OF(e, Host, shed_event));
}

static void sim_shed(Tcp *t)
{
    Conn *c = t->at;
    Host *h = c->host;
    if (h->up) put(c, &c->down, (Str){"", 0}, true, false);
    list_del(&c->in_host);
    list_push_back(&h->shed, &c->in_host);
    world_in(h->w, &h->shed_event, 0);
}

static const TcpNet sim_net = {
    .listen = sim_listen,
    .stop = sim_stop,
    .close = sim_close,
    .closed = sim_closed,
    .free = sim_free,
    .read = sim_read,
    .try_write = sim_try_write,
    .write = sim_write,
    .shut = sim_shut,
    .shed = sim_shed,
};

/* ---- the server's loop ---- */

typedef struct {
    Event event;
    LoopTimer *timer;
    Host *host;
    uint64_t repeat_ms;
} SimTimer;

typedef struct { /* stays when its work is done: for the next */
    Event event;
    List link;
    LoopWork *work;
    Host *host;
    Fiber *fiber;
} SimWork;

static Host *host_at(Loop *l)
{
    return CONTAINER_OF(l, Host, loop);
}

static uint64_t sim_now_ms(Loop *l)
{
    return (uint64_t)(host_at(l)->w->now_ns / NS_PER_MS);
}

static void sim_turn(Loop *l)
{
    host_settle(host_at(l));
}

static void timer_fire(Event *e)
{
    SimTimer *s = CONTAINER_OF(e, SimTimer, event);
    Host *h = s->host;
    if (h->paused_until_ns > h->w->now_ns) {
        world_at(h->w, e, h->paused_until_ns);
        return;
    }
    if (s->repeat_ms) world_in(h->w, &s->event, (int64_t)s->repeat_ms * NS_PER_MS);
    s->timer->fire(s->timer);
    if (h->up) h->turn(h);
}

static void sim_timer_init(LoopTimer *t)
{
    SimTimer *s = mem_new(sizeof *s);
    s->event.fire = timer_fire;
    s->timer = t;
    s->host = host_at(t->loop);
    t->at = s;
}

static void sim_timer_start(LoopTimer *t, uint64_t ms, uint64_t repeat_ms)
{
    SimTimer *s = t->at;
    /* Rounded up to the loop's time, which is whole ms. */
    int64_t due_ns = ((int64_t)sim_now_ms(t->loop) + (int64_t)ms) * NS_PER_MS;
    s->repeat_ms = repeat_ms;
    world_at(s->host->w, &s->event, due_ns);
}

static void sim_timer_stop(LoopTimer *t)
{
    SimTimer *s = t->at;
    world_not(s->host->w, &s->event);
}

static void sim_timer_close(LoopTimer *t)
{
    SimTimer *s = t->at;
    world_not(s->host->w, &s->event);
    mem_free(s);
    t->at = NULL;
    if (t->closed) t->closed(t);
}

static void work_run(void *ctx)
{
    LoopWork *w = ((SimWork *)ctx)->work;
    w->run(w);
}

/* Goes on with it; when it is done its loop is told. */
static void work_go_on(SimWork *s, int status)
{
    LoopWork *w = s->work;
    if (fiber_idle(s->fiber))
        fiber_start(s->fiber, work_run, s);
    else
        fiber_resume(s->fiber);
    if (!fiber_idle(s->fiber)) return;
    list_del(&s->link);
    list_push_back(&s->host->fibers, &s->link);
    w->after(w, status);
}

static void work_fire(Event *e)
{
    SimWork *s = CONTAINER_OF(e, SimWork, event);
    Host *h = s->host;
    if (h->paused_until_ns > h->w->now_ns) {
        world_at(h->w, e, h->paused_until_ns);
        return;
    }
    work_go_on(s, 0);
    if (h->up) h->turn(h);
}

Event *host_work_event(Host *h)
{
    LIST_FOR (s, &h->works, SimWork, link) {
        if (s->fiber == fiber_current()) return &s->event;
    }
    CHECK(!"a fiber of nobody");
    return NULL;
}

static void sim_work(LoopWork *w)
{
    Host *h = host_at(w->loop);
    SimWork *s = list_empty(&h->fibers) ? NULL : LIST_FIRST(&h->fibers, SimWork, link);
    if (s) {
        list_del(&s->link);
    } else {
        s = mem_new(sizeof *s);
        s->event.fire = work_fire;
        s->host = h;
        s->fiber = fiber_new();
    }
    s->work = w;
    w->at = s;
    list_push_back(&h->works, &s->link);
    world_in(h->w, &s->event, world_between(h->w, NS_PER_MS / 10, 3 * NS_PER_MS));
}

static const LoopOps sim_loop = {
    .now_ms = sim_now_ms,
    .turn = sim_turn,
    .timer_init = sim_timer_init,
    .timer_start = sim_timer_start,
    .timer_stop = sim_timer_stop,
    .timer_close = sim_timer_close,
    .work = sim_work,
    .net = &sim_net,
};

void host_init(Host *h, World *w)
{
    h->w = w;
    h->loop = (Loop){.ops = &sim_loop};
    h->listener = NULL;
    h->up = true;
    h->shed_event.fire = shed_fire;
    h->sweep.fire = sweep_fire;
    if (!h->coming.next) list_init(&h->coming); /* they outlive a process */
    list_init(&h->conns);
    list_init(&h->shed);
    list_init(&h->works);
    if (!h->fibers.next) list_init(&h->fibers);
}

void host_settle(Host *h)
{
    while (!list_empty(&h->shed)) {
        Conn *c = LIST_FIRST(&h->shed, Conn, in_host);
        Tcp *t = c->tcp;
        list_del(&c->in_host);
        c->tcp = NULL;
        tcp_gone(t);
        free_if_gone(c);
    }
    world_not(h->w, &h->shed_event);
}

void host_die(Host *h, bool silent)
{
    LIST_FOR (c, &h->conns, Conn, in_host) {
        if (!silent) put(c, &c->down, (Str){"", 0}, true, true);
    }
    h->up = false;
    while (!list_empty(&h->works)) {
        SimWork *s = LIST_FIRST(&h->works, SimWork, link);
        world_not(h->w, &s->event);
        work_go_on(s, ERR_CANCELED); /* whatever it touches fails */
    }
}

void host_done(Host *h)
{
    while (h->coming.next && !list_empty(&h->coming)) {
        Conn *c = LIST_FIRST(&h->coming, Conn, in_host);
        c->opened = true;
        c->peer = NULL;
        list_del(&c->in_peer);
        free_if_gone(c);
    }
    while (h->fibers.next && !list_empty(&h->fibers)) {
        SimWork *s = LIST_FIRST(&h->fibers, SimWork, link);
        list_del(&s->link);
        fiber_free(s->fiber);
        mem_free(s);
    }
}
