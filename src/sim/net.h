/* net.h: a simulated network: streams of bytes between peers (clients, workers) and servers, with
 * delay, pieces of any length, cuts and resets. The server's end is io/tcp.c's, so its own code
 * runs above; the other end is in http.c.
 *
 * Invariants
 *   N1  Bytes arrive in order, or the stream breaks: what TCP promises.
 *   N2  A cut loses nothing: what is under way arrives when it is over, unless somebody gives
 *       up. */
#ifndef SIM_NET_H
#define SIM_NET_H

#include "io/tcp_net.h"
#include "sim/world.h"

typedef struct Conn Conn;
typedef struct Host Host;

typedef struct { /* a machine that makes connections */
    World *w;
    char name[24];
    int64_t delay_least_ns, delay_most_ns;
    int64_t cut_until_ns; /* nothing arrives, nothing leaves before */
    uint32_t reset_odds;  /* that a piece breaks its stream, in a million */
    uint32_t piece_odds;  /* that a piece is cut into smaller ones */
    List conns;           /* of Conn.in_peer */
    List idle;            /* http.c's: connections kept alive */
} Peer;

struct Host { /* a server's end of all its connections */
    World *w;
    Loop loop; /* of its gateway */
    TcpListener *listener;
    bool up;
    int64_t paused_until_ns; /* its process does not run before; 0: it does */
    /* Of Conn.in_host: those not yet accepted; the others; those whose end is closed, not yet
     * gone. */
    List coming, conns, shed;
    Event shed_event, sweep;
    /* The server's turn, after each event that it met. */
    void (*turn)(Host *h);
    /* It touches the network: true when it dies of that. */
    bool (*touch)(Host *h);
    uint64_t (*durable)(const Host *h); /* what is on its disk, for conn_durable */
    List works;                         /* of SimWork under way: in a fiber each */
    List fibers;                        /* of those that wait for work */
};

void peer_init(Peer *p, World *w, const char *name);
void peer_drop(Peer *p); /* its process ends: every connection breaks */

typedef struct {
    void *ctx;
    void (*got)(void *ctx, const char *p, size_t n);
    void (*over)(void *ctx, bool broken); /* no more comes; the connection is gone afterwards */
} ConnOps;

/* Never calls back before it returns. NULL: nobody listens there (after a delay in real life). */
Conn *conn_open(Peer *p, Host *h, const ConnOps *ops);
void conn_send(Conn *c, Str bytes);
void conn_close(Conn *c); /* no callback follows */
/* What the server had on its disk when it sent the piece that is being told. */
uint64_t conn_durable(const Conn *c);

void host_init(Host *h, World *w); /* before its gateway opens */
/* The process is gone: pending ends, work and sends with it. silent: no peer hears of it. */
void host_die(Host *h, bool silent);
void host_done(Host *h); /* the world ends */
/* Of the work whose fiber this is: when it goes on. */
Event *host_work_event(Host *h);
void host_settle(Host *h); /* what closed is told gone, and work is canceled, now */

#endif
