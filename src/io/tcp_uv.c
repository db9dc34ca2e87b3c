/* tcp_uv.c: the bytes of tcp.c over libuv. */
#include <arpa/inet.h>
#include <netdb.h>
#include <string.h>

#include "io/tcp_net.h"

#define READ_CHUNK (64 * KIB)
#define BACKLOG    1024

typedef struct {
    TcpListener *l;
    uv_tcp_t handle;
    uv_prepare_t prepare;
    uv_check_t check;
    uv_timer_t sweep;
    int handles; /* open ones of these four */
    char chunk[READ_CHUNK];
} Uv;

static Uv *uv_of(const TcpListener *l)
{
    return l->at;
}

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
    strcpy(port, colon + 1);
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
    CHECK(uv_tcp_getsockname(&uv_of(l)->handle, (struct sockaddr *)&a, &len) == 0);
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
    tcp_gone(CONTAINER_OF((uv_tcp_t *)h, Tcp, handle));
}

static void conn_shed(Tcp *c)
{
    uv_close((uv_handle_t *)&c->handle, conn_closed);
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *ret)
{
    (void)suggested;
    Uv *u = uv_of(CONTAINER_OF((uv_tcp_t *)h, Tcp, handle)->listener);
    *ret = uv_buf_init(u->chunk, sizeof u->chunk);
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
    Tcp *c = CONTAINER_OF((uv_tcp_t *)s, Tcp, handle);
    if (n > 0)
        tcp_got(c, buf->base, (size_t)n);
    else if (n == UV_EOF)
        tcp_ended(c);
    else if (n < 0)
        tcp_close(c);
}

static int conn_read(Tcp *c, bool on)
{
    if (on) return uv_read_start((uv_stream_t *)&c->handle, on_alloc, on_read);
    uv_read_stop((uv_stream_t *)&c->handle);
    return 0;
}

static int conn_try_write(Tcp *c, const char *p, size_t n)
{
    uv_buf_t b = uv_buf_init((char *)p, (unsigned)n);
    int took = uv_try_write((uv_stream_t *)&c->handle, &b, 1);
    return took == UV_EAGAIN ? 0 : took;
}

static void on_written(uv_write_t *w, int status)
{
    tcp_written(CONTAINER_OF(w, Tcp, write), status >= 0);
}

static int conn_write(Tcp *c)
{
    uv_buf_t b = uv_buf_init((char *)c->flight.data, (unsigned)c->flight.len);
    return uv_write(&c->write, (uv_stream_t *)&c->handle, &b, 1, on_written);
}

static void conn_shut(Tcp *c)
{
    uv_os_fd_t fd;
    if (uv_fileno((uv_handle_t *)&c->handle, &fd) == 0) shutdown(fd, SHUT_WR);
}

static void on_connection(uv_stream_t *s, int status)
{
    TcpListener *l = CONTAINER_OF((uv_tcp_t *)s, Uv, handle)->l;
    if (status < 0)
        return; /* too many open files, an aborted handshake: the next one may do better */
    Tcp *c = tcp_fresh(l);
    if (!c) { /* accept and drop, or the loop would be woken for it for ever */
        c = mem_new(sizeof *c);
        uv_tcp_init(s->loop, &c->handle);
        (void)!uv_accept(s, (uv_stream_t *)&c->handle);
        uv_close((uv_handle_t *)&c->handle, (uv_close_cb)mem_free);
        return;
    }
    uv_tcp_init(s->loop, &c->handle);
    if (uv_accept(s, (uv_stream_t *)&c->handle)) {
        tcp_close(c);
        return;
    }
    uv_tcp_nodelay(&c->handle, 1);
    tcp_opened(c);
}

/* ---- the listener ---- */

static void on_prepare(uv_prepare_t *h)
{
    tcp_flush(CONTAINER_OF(h, Uv, prepare)->l);
}

static void on_check(uv_check_t *h)
{
    tcp_flush(CONTAINER_OF(h, Uv, check)->l);
}

static void on_sweep(uv_timer_t *h)
{
    tcp_sweep(CONTAINER_OF(h, Uv, sweep)->l);
}

static void on_handle_closed(uv_handle_t *h)
{
    ((Uv *)h->data)->handles--;
}

static void uv_stop_listening(TcpListener *l)
{
    uv_close((uv_handle_t *)&uv_of(l)->handle, on_handle_closed);
}

static void uv_close_listener(TcpListener *l)
{
    Uv *u = uv_of(l);
    uv_close((uv_handle_t *)&u->prepare, on_handle_closed);
    uv_close((uv_handle_t *)&u->check, on_handle_closed);
    uv_close((uv_handle_t *)&u->sweep, on_handle_closed);
}

static bool uv_closed(const TcpListener *l)
{
    return uv_of(l)->handles == 0;
}

static void uv_free(TcpListener *l)
{
    mem_free(l->at);
}

static int uv_start(TcpListener *l, const char *host_port, Buf *why)
{
    uv_loop_t *loop = l->loop->uv;
    char host[64], port[16];
    int err = split(host_port, host, port, why);
    if (err) return err;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV},
                    *found = NULL;
    /* The name that means this machine needs no resolver. */
    const char *name = strcmp(host, "localhost") == 0 ? "127.0.0.1"
                       : host[0] && strcmp(host, "*") ? host
                                                      : NULL;
    int gai = getaddrinfo(name, port, &hints, &found);
    if (gai || !found) {
        buf_printf(why, "cannot find the address of \"%s\": %s", host, gai_strerror(gai));
        return ERR_INVALID;
    }
    Uv *u = mem_new(sizeof *u);
    u->l = l;
    l->at = u;
    uv_tcp_init(loop, &u->handle);
    uv_prepare_init(loop, &u->prepare);
    uv_check_init(loop, &u->check);
    uv_timer_init(loop, &u->sweep);
    u->handle.data = u->prepare.data = u->check.data = u->sweep.data = u;
    u->handles = 4;
    int uv = uv_tcp_bind(&u->handle, found->ai_addr, 0);
    freeaddrinfo(found);
    if (!uv) uv = uv_listen((uv_stream_t *)&u->handle, BACKLOG, on_connection);
    if (uv) {
        buf_printf(why, "cannot listen on %s: %s", host_port, uv_strerror(uv));
        if (uv == UV_EADDRINUSE)
            buf_puts(why,
                     "; another program uses this port: stop it, or choose another one (0 takes a "
                     "free one)");
        uv_stop_listening(l);
        uv_close_listener(l);
        while (u->handles) uv_run(loop, UV_RUN_NOWAIT);
        mem_free(u);
        return uv == UV_EADDRINUSE ? ERR_EXISTS : uv == UV_EACCES ? ERR_PERMISSION : ERR_IO;
    }
    describe(l);
    uv_prepare_start(&u->prepare, on_prepare);
    uv_check_start(&u->check, on_check);
    uv_timer_start(&u->sweep, on_sweep, 500, 500);
    uv_unref((uv_handle_t *)&u->prepare);
    uv_unref((uv_handle_t *)&u->check);
    uv_unref((uv_handle_t *)&u->sweep);
    return 0;
}

const TcpNet tcp_net_uv = {
    .listen = uv_start,
    .stop = uv_stop_listening,
    .close = uv_close_listener,
    .closed = uv_closed,
    .free = uv_free,
    .read = conn_read,
    .try_write = conn_try_write,
    .write = conn_write,
    .shut = conn_shut,
    .shed = conn_shed,
};
