/* tcp.h: a listener and its connections, with backpressure. One thread: the loop's.
 *
 * What is put into a connection's `out` leaves at the end of the loop's turn in one write,
 * whatever the number of answers. What the kernel does not take at once is kept, and `drained`
 * says when it has gone: who produces much waits for that. */
#ifndef IO_TCP_H
#define IO_TCP_H

#include "base/base.h"
#include "io/loop.h"

typedef struct TcpListener TcpListener;

/* One connection; embedded in its owner's struct, zeroed by the owner. */
typedef struct Tcp {
    uv_tcp_t handle; /* libuv's */
    uv_write_t write;
    void *at; /* the simulator's */
    TcpListener *listener;
    List link;         /* among the listener's connections */
    List dirty;        /* among those with something in out */
    Buf out, flight;   /* to leave at the end of this turn; handed to the kernel, not yet taken */
    uint64_t moved_ms; /* when bytes last moved in either direction (loop time) */
    uint64_t linger_until_ms; /* finishing: when to give up waiting for the peer's end */
    size_t discarded;         /* finishing: what it sent still */
    bool reading, writing, finishing, closing, shut;
} Tcp;

typedef struct {
    void *ctx;
    Tcp *(*fresh)(void *ctx); /* memory for a new connection; NULL: refuse it */
    void (*opened)(Tcp *c);
    void (*read)(Tcp *c, const char *p, size_t n); /* p is borrowed for the call */
    void (*ended)(Tcp *c);                         /* the peer sends no more; it may still listen */
    void (*drained)(Tcp *c);                       /* all that was put out has left */
    void (*gone)(Tcp *c);                          /* closed: free its memory */
} TcpOps;

/* host_port: "127.0.0.1:8700", "[::1]:0", "localhost:0", ":8700" (every address). ERR_INVALID,
 * ERR_IO, ERR_EXISTS (in use), with the reason and the remedy in why. */
int tcp_listen(Loop *loop, const char *host_port, const TcpOps *ops, TcpListener **ret,
               Buf *why) HR_MUST_CHECK;
const char *tcp_address(const TcpListener *l); /* "127.0.0.1:8700", the bound one */
bool tcp_is_loopback(const TcpListener *l);
size_t tcp_connections(const TcpListener *l);
List *tcp_list(TcpListener *l); /* of Tcp.link */

void tcp_stop(TcpListener *l);         /* no new connections */
void tcp_close_all(TcpListener *l);    /* the connections too */
bool tcp_closed(const TcpListener *l); /* every handle is: tcp_free may follow */
void tcp_free(TcpListener *l);

Buf *tcp_out(Tcp *c); /* append to it; sent at the end of the turn, and then drained, also when it
                       * was nothing */
void tcp_flush(TcpListener *l); /* now; called by itself before and after polling */
size_t tcp_unsent(const Tcp *c);
void tcp_read(Tcp *c, bool on);
/* Closes once everything has left and the peer has read it: half-closes, then discards what still
 * comes, for 2 s and 32 MiB at most. So a refusal reaches a client that is in the middle of
 * sending. */
void tcp_finish(Tcp *c);
void tcp_close(Tcp *c); /* at once */

#endif
