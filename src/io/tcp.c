/* Invariants
 *   I1  A connection is in `dirty` when its out has grown, or it is to finish, since the last
 *       flush.
 *   I2  At most one uv_write per connection is under way; flight holds its bytes until it ends.
 *   I3  read, ended and drained are never called after tcp_close or tcp_finish; gone is called
 *       once, last. */
#include "io/tcp.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <string.h>

#define READ_CHUNK (64 * KIB)
#define BACKLOG    1024
#define LINGER_MS  2000
#define LINGER_MAX (32 * MIB) /* what a fast network holds until the peer has read a refusal */
#define OUT_KEEP   (64 * KIB) /* memory an idle connection may keep */

struct TcpListener {
    uv_loop_t *loop;
    uv_tcp_t handle;
    uv_prepare_t prepare;
    uv_check_t check;
    uv_timer_t sweep;
    int handles; /* open ones of these four */
    bool stopped, closing;
    TcpOps ops;
    List conns, dirty;
    size_t conns_len;
    char address[80];
    bool loopback;
    char chunk[READ_CHUNK];
};

static int split(const char *host_port, char host[64], char port[16], Buf *why)
{
    const char *colon = strrchr(host_port, ':');
    const char *first = host_port, *last = colon;
    if (colon && first[0] == '[' && colon > first && colon[-1] == ']') {
        first++;
        last--;
    }
    if (!colon || last < first || (size_t)(last - first) >= 64 || strlen(colon + 1) == 0 ||
        strlen(colon + 1) >= 16) {
        buf_printf(why, "\"%s\" is not HOST:PORT; an example is 127.0.0.1:8700", host_port);
        return ERR_INVALID;
    }
    memcpy(host, first, (size_t)(last - first));
    host[last - first] = 0;
    memcpy(port, colon + 1, strlen(colon + 1) + 1);
    uint64_t number;
    if (parse_u64(str_from(port), &number) || number > 65535) {
        buf_printf(why, "the port \"%s\" is not a number from 0 to 65535", port);
        return ERR_INVALID;
    }
    return 0;
}

static void describe(TcpListener *l)
{
    struct sockaddr_storage a;
    int len = sizeof a;
    CHECK(uv_tcp_getsockname(&l->handle, (struct sockaddr *)&a, &len) == 0);
    char host[64] = "";
    if (a.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&a;
        uv_ip6_name(in6, host, sizeof host);
        snprintf(l->address, sizeof l->address, "[%s]:%u", host, ntohs(in6->sin6_port));
        l->loopback = IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
    } else {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&a;
        uv_ip4_name(in, host, sizeof host);
        snprintf(l->address, sizeof l->address, "%s:%u", host, ntohs(in->sin_port));
        l->loopback = (ntohl(in->sin_addr.s_addr) >> 24) == 127;
    }
}

/* ---- connections ---- */

static void conn_closed(uv_handle_t *h)
{
    Tcp *c = CONTAINER_OF(h, Tcp, handle);
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
    uv_close((uv_handle_t *)&c->handle, conn_closed);
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *ret)
{
    (void)suggested;
    TcpListener *l = CONTAINER_OF(h, Tcp, handle)->listener;
    *ret = uv_buf_init(l->chunk, sizeof l->chunk);
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
    Tcp *c = CONTAINER_OF(s, Tcp, handle);
    if (c->closing || n == 0) return;
    if (n < 0) {
        if (n != UV_EOF || c->finishing) {
            tcp_close(c);
            return;
        }
        uv_read_stop(s);
        c->reading = false;
        c->listener->ops.ended(c);
        return;
    }
    if (c->finishing) { /* discarded */
        c->discarded += (size_t)n;
        if (c->discarded > LINGER_MAX) tcp_close(c);
        return;
    }
    c->moved_ms = uv_now(s->loop);
    c->listener->ops.read(c, buf->base, (size_t)n);
}

void tcp_read(Tcp *c, bool on)
{
    if (c->closing || c->finishing || c->reading == on) return;
    c->reading = on;
    if (!on) {
        uv_read_stop((uv_stream_t *)&c->handle);
        return;
    }
    if (uv_read_start((uv_stream_t *)&c->handle, on_alloc, on_read)) tcp_close(c);
}

static void half_close(Tcp *c)
{
    if (c->shut || c->closing) return;
    c->shut = true;
    uv_os_fd_t fd;
    if (uv_fileno((uv_handle_t *)&c->handle, &fd) == 0) shutdown(fd, SHUT_WR);
    if (!c->reading) {
        c->reading = true;
        if (uv_read_start((uv_stream_t *)&c->handle, on_alloc, on_read)) tcp_close(c);
    }
}

static void settle(Tcp *c)
{
    if (c->out.len == 0 && !c->writing && c->finishing) half_close(c);
}

static void flush(Tcp *c);

static void on_written(uv_write_t *w, int status)
{
    Tcp *c = CONTAINER_OF(w, Tcp, write);
    c->writing = false;
    if (c->closing) return;
    if (status < 0) {
        tcp_close(c);
        return;
    }
    c->moved_ms = uv_now(c->listener->loop);
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
    uv_buf_t b = uv_buf_init((char *)c->out.data, (unsigned)c->out.len);
    int n = uv_try_write((uv_stream_t *)&c->handle, &b, 1);
    if (n < 0 && n != UV_EAGAIN) {
        tcp_close(c);
        return;
    }
    if (n > 0) c->moved_ms = uv_now(c->listener->loop);
    if (n == (int)c->out.len) {
        buf_clear(&c->out);
        if (c->out.cap > OUT_KEEP) buf_done(&c->out);
        return;
    }
    if (n > 0) buf_drop(&c->out, (size_t)n);
    Buf empty = c->flight;
    c->flight = c->out;
    c->out = empty;
    b = uv_buf_init((char *)c->flight.data, (unsigned)c->flight.len);
    c->writing = true;
    if (uv_write(&c->write, (uv_stream_t *)&c->handle, &b, 1, on_written)) {
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
    c->linger_until_ms = uv_now(c->listener->loop) + LINGER_MS;
    if (list_empty(&c->dirty))
        list_push_back(&c->listener->dirty, &c->dirty); /* settled at the end of the turn */
}

static void on_connection(uv_stream_t *s, int status)
{
    TcpListener *l = CONTAINER_OF(s, TcpListener, handle);
    if (status < 0)
        return; /* too many open files, an aborted handshake: the next one may do better */
    Tcp *c = l->ops.fresh(l->ops.ctx);
    if (!c) { /* accept and drop, or the loop would be woken for it for ever */
        c = mem_new(sizeof *c);
        uv_tcp_init(l->loop, &c->handle);
        (void)!uv_accept(s, (uv_stream_t *)&c->handle);
        uv_close((uv_handle_t *)&c->handle, (uv_close_cb)mem_free);
        return;
    }
    c->listener = l;
    list_init(&c->dirty);
    list_push_back(&l->conns, &c->link);
    l->conns_len++;
    uv_tcp_init(l->loop, &c->handle);
    if (uv_accept(s, (uv_stream_t *)&c->handle)) {
        tcp_close(c);
        return;
    }
    uv_tcp_nodelay(&c->handle, 1);
    c->moved_ms = uv_now(l->loop);
    l->ops.opened(c);
    tcp_read(c, true);
}

/* ---- the listener ---- */

static void on_prepare(uv_prepare_t *h)
{
    tcp_flush(CONTAINER_OF(h, TcpListener, prepare));
}

static void on_check(uv_check_t *h)
{
    tcp_flush(CONTAINER_OF(h, TcpListener, check));
}

static void on_sweep(uv_timer_t *h)
{
    TcpListener *l = CONTAINER_OF(h, TcpListener, sweep);
    uint64_t now = uv_now(l->loop);
    LIST_FOR (c, &l->conns, Tcp, link) {
        if (c->finishing && c->shut && now >= c->linger_until_ms) tcp_close(c);
    }
}

static void on_handle_closed(uv_handle_t *h)
{
    ((TcpListener *)h->data)->handles--;
}

int tcp_listen(uv_loop_t *loop, const char *host_port, const TcpOps *ops, TcpListener **ret,
               Buf *why)
{
    char host[64], port[16];
    int err = split(host_port, host, port, why);
    if (err) return err;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV},
                    *found = NULL;
    /* The name that means this machine needs no resolver. */
    const char *name = strcmp(host, "localhost") == 0      ? "127.0.0.1"
                       : host[0] && strcmp(host, "*") != 0 ? host
                                                           : NULL;
    int gai = getaddrinfo(name, port, &hints, &found);
    if (gai || !found) {
        buf_printf(why, "cannot find the address of \"%s\": %s", host, gai_strerror(gai));
        return ERR_INVALID;
    }
    TcpListener *l = mem_new(sizeof *l);
    l->loop = loop;
    l->ops = *ops;
    list_init(&l->conns);
    list_init(&l->dirty);
    uv_tcp_init(loop, &l->handle);
    uv_prepare_init(loop, &l->prepare);
    uv_check_init(loop, &l->check);
    uv_timer_init(loop, &l->sweep);
    l->handle.data = l->prepare.data = l->check.data = l->sweep.data = l;
    l->handles = 4;
    int uv = uv_tcp_bind(&l->handle, found->ai_addr, 0);
    freeaddrinfo(found);
    if (!uv) uv = uv_listen((uv_stream_t *)&l->handle, BACKLOG, on_connection);
    if (uv) {
        buf_printf(why, "cannot listen on %s: %s", host_port, uv_strerror(uv));
        if (uv == UV_EADDRINUSE)
            buf_puts(why,
                     "; another program uses this port: stop it, or choose another one (0 takes a "
                     "free one)");
        tcp_close_all(l);
        while (!tcp_closed(l)) uv_run(loop, UV_RUN_NOWAIT);
        tcp_free(l);
        return uv == UV_EADDRINUSE ? ERR_EXISTS : uv == UV_EACCES ? ERR_PERMISSION : ERR_IO;
    }
    describe(l);
    uv_prepare_start(&l->prepare, on_prepare);
    uv_check_start(&l->check, on_check);
    uv_timer_start(&l->sweep, on_sweep, 500, 500);
    uv_unref((uv_handle_t *)&l->prepare);
    uv_unref((uv_handle_t *)&l->check);
    uv_unref((uv_handle_t *)&l->sweep);
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
    uv_close((uv_handle_t *)&l->handle, on_handle_closed);
}

void tcp_close_all(TcpListener *l)
{
    if (l->closing) return;
    l->closing = true;
    tcp_stop(l);
    uv_close((uv_handle_t *)&l->prepare, on_handle_closed);
    uv_close((uv_handle_t *)&l->check, on_handle_closed);
    uv_close((uv_handle_t *)&l->sweep, on_handle_closed);
    LIST_FOR (c, &l->conns, Tcp, link) {
        tcp_close(c);
    }
}

bool tcp_closed(const TcpListener *l)
{
    return l->handles == 0 && l->conns_len == 0;
}

void tcp_free(TcpListener *l)
{
    if (!l) return;
    CHECK(tcp_closed(l));
    mem_free(l);
}
