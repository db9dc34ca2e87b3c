/* tcp_net.h: who moves the bytes of tcp.c: libuv (tcp_uv.c), or the simulator's network. */
#ifndef IO_TCP_NET_H
#define IO_TCP_NET_H

#include "io/tcp.h"

struct TcpListener {
    Loop *loop;
    const struct TcpNet *net;
    void *at; /* the network's own */
    bool stopped, closing;
    TcpOps ops;
    List conns, dirty;
    size_t conns_len;
    char address[80];
    bool loopback;
};

typedef struct TcpNet {
    int (*listen)(TcpListener *l, const char *host_port, Buf *why); /* sets at, address, loopback */
    void (*stop)(TcpListener *l);                                   /* no further connections */
    void (*close)(TcpListener *l); /* its own handles; closed says when that is done */
    bool (*closed)(const TcpListener *l);
    void (*free)(TcpListener *l);

    int (*read)(Tcp *c, bool on); /* ≠ 0: broken */
    /* Bytes that were taken, 0: none now; < 0: broken. */
    int (*try_write)(Tcp *c, const char *p, size_t n);
    int (*write)(Tcp *c); /* all of c->flight, then tcp_written; ≠ 0: broken */
    void (*shut)(Tcp *c); /* nothing more will be written */
    void (*shed)(Tcp *c); /* closes; then tcp_gone */
} TcpNet;

extern const TcpNet tcp_net_uv;

/* ---- what the network tells ---- */

/* A connection has come; NULL: it is refused. When its handle stands: tcp_opened. */
Tcp *tcp_fresh(TcpListener *l);
void tcp_opened(Tcp *c);
void tcp_got(Tcp *c, const char *p, size_t n);
void tcp_ended(Tcp *c); /* the peer sends no more */
void tcp_written(Tcp *c, bool fine);
void tcp_gone(Tcp *c);
void tcp_sweep(TcpListener *l); /* every 500 ms */

#endif
