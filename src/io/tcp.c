/* Invariants
 *   I1  A connection is in `dirty` when its out has grown, or it is to finish, since the last
 *       flush.
 *   I2  At most one write per connection is under way; flight holds its bytes until it ends.
 *   I3  read, ended and drained are never called after tcp_close or tcp_finish; gone is called
 *       once, last. */
#include "io/tcp.h"

#include "io/tcp_net.h"

#define LINGER_MS  2000
#define LINGER_MAX (32 * MIB) /* what a fast network holds until the peer has read a refusal */
#define OUT_KEEP   (64 * KIB) /* memory an idle connection may keep */

/* ---- connections ---- */

void tcp_gone(Tcp *c)
{
    TcpListener *l = c->listener;
    list_del(&c->link);
    l->conns_len--;
    buf_done(&c->out);
    buf_done(&c->flight);
    l->ops.gone(c);
}

void tcp_close(Tcp *c)
{
    if (c->closing) return;
    c->closing = true;
    list_del(&c->dirty); /* keeps I1 */
    c->listener->net->shed(c);
}

void tcp_ended(Tcp *c)
{
    if (c->closing) return;
    if (c->finishing) {
        tcp_close(c);
        return;
    }
    (void)c->listener->net->read(c, false);
    c->reading = false;
    c->listener->ops.ended(c);
}

void tcp_got(Tcp *c, const char *p, size_t n)
{
    if (c->closing || n == 0) return;
    if (c->finishing) { /* discarded */
        c->discarded += n;
        if (c->discarded > LINGER_MAX) tcp_close(c);
        return;
    }
    c->moved_ms = loop_now_ms(c->listener->loop);
    c->listener->ops.read(c, p, n);
}

void tcp_read(Tcp *c, bool on)
{
    if (c->closing || c->finishing || c->reading == on) return;
    c->reading = on;
    if (c->listener->net->read(c, on)) tcp_close(c);
}

static void half_close(Tcp *c)
{
    if (c->shut || c->closing) return;
    c->shut = true;
    c->listener->net->shut(c);
    if (!c->reading) {
        c->reading = true;
        if (c->listener->net->read(c, true)) tcp_close(c);
    }
}

static void settle(Tcp *c)
{
    if (c->out.len == 0 && !c->writing && c->finishing) half_close(c);
}

static void flush(Tcp *c);

void tcp_written(Tcp *c, bool fine)
{
    c->writing = false;
    if (c->closing) return;
    if (!fine) {
        tcp_close(c);
        return;
    }
    c->moved_ms = loop_now_ms(c->listener->loop);
    buf_clear(&c->flight);
    if (c->flight.cap > OUT_KEEP) buf_done(&c->flight);
    if (c->out.len) {
        list_del(&c->dirty);
        flush(c);
    }
    if (!c->writing && !c->closing && !c->finishing) c->listener->ops.drained(c);
    settle(c);
}

/* Takes what is in out; c is not in dirty any more. */
static void flush(Tcp *c)
{
#if defined(__GNUC__) && !defined(__clang__)
    /* gcc 12's analyzer takes what lies around a list's link for uninitialised (tcp_flush); a Tcp
     * was zeroed by its owner. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wanalyzer-use-of-uninitialized-value"
#endif
    if (c->writing || c->closing || c->out.len == 0) return;
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
    const TcpNet *net = c->listener->net;
    int n = net->try_write(c, (const char *)c->out.data, c->out.len);
    if (n < 0) {
        tcp_close(c);
        return;
    }
    if (n > 0) c->moved_ms = loop_now_ms(c->listener->loop);
    if (n == (int)c->out.len) {
        buf_clear(&c->out);
        if (c->out.cap > OUT_KEEP) buf_done(&c->out);
        return;
    }
    if (n > 0) buf_drop(&c->out, (size_t)n);
    Buf empty = c->flight;
    c->flight = c->out;
    c->out = empty;
    c->writing = true;
    if (net->write(c)) {
        c->writing = false;
        tcp_close(c);
    }
}

void tcp_flush(TcpListener *l)
{
    while (!list_empty(&l->dirty)) {
        Tcp *c = LIST_FIRST(&l->dirty, Tcp, dirty);
        list_del(&c->dirty);
        bool could = !c->writing;
        flush(c);
        if (could && !c->writing && !c->closing && !c->finishing) l->ops.drained(c);
        settle(c);
    }
}

Buf *tcp_out(Tcp *c)
{
    if (!c->closing && c->dirty.next == &c->dirty) list_push_back(&c->listener->dirty, &c->dirty);
    return &c->out;
}

size_t tcp_unsent(const Tcp *c)
{
    return c->out.len + (c->writing ? c->flight.len : 0);
}

void tcp_finish(Tcp *c)
{
    if (c->closing || c->finishing) return;
    c->finishing = true;
    c->linger_until_ms = loop_now_ms(c->listener->loop) + LINGER_MS;
    if (list_empty(&c->dirty))
        list_push_back(&c->listener->dirty, &c->dirty); /* settled at the end of the turn */
}

Tcp *tcp_fresh(TcpListener *l)
{
    Tcp *c = l->ops.fresh(l->ops.ctx);
    if (!c) return NULL;
    c->listener = l;
    list_init(&c->dirty);
    list_push_back(&l->conns, &c->link);
    l->conns_len++;
    return c;
}

void tcp_opened(Tcp *c)
{
    c->moved_ms = loop_now_ms(c->listener->loop);
    c->listener->ops.opened(c);
    tcp_read(c, true);
}

void tcp_sweep(TcpListener *l)
{
    uint64_t now = loop_now_ms(l->loop);
    LIST_FOR (c, &l->conns, Tcp, link) {
        if (c->finishing && c->shut && now >= c->linger_until_ms) tcp_close(c);
    }
}

/* ---- the listener ---- */

int tcp_listen(Loop *loop, const char *host_port, const TcpOps *ops, TcpListener **ret, Buf *why)
{
    TcpListener *l = mem_new(sizeof *l);
    l->loop = loop;
    l->net = loop->ops->net;
    l->ops = *ops;
    list_init(&l->conns);
    list_init(&l->dirty);
    int err = l->net->listen(l, host_port, why);
    if (err) {
        mem_free(l);
        return err;
    }
    *ret = l;
    return 0;
}

const char *tcp_address(const TcpListener *l)
{
    return l->address;
}

bool tcp_is_loopback(const TcpListener *l)
{
    return l->loopback;
}

size_t tcp_connections(const TcpListener *l)
{
    return l->conns_len;
}

List *tcp_list(TcpListener *l)
{
    return &l->conns;
}

void tcp_stop(TcpListener *l)
{
    if (l->stopped) return;
    l->stopped = true;
    l->net->stop(l);
}

void tcp_close_all(TcpListener *l)
{
    if (l->closing) return;
    l->closing = true;
    tcp_stop(l);
    l->net->close(l);
    LIST_FOR (c, &l->conns, Tcp, link) {
        tcp_close(c);
    }
}

bool tcp_closed(const TcpListener *l)
{
    return l->net->closed(l) && l->conns_len == 0;
}

void tcp_free(TcpListener *l)
{
    if (!l) return;
    CHECK(tcp_closed(l));
    l->net->free(l);
    mem_free(l);
}
