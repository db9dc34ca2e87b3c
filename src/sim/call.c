#include "sim/call.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct {  /* a connection and who uses it */
    List in_pool; /* Peer.idle while nobody does */
    Conn *conn;
    Call *call;
    Host *host;
} Link;

typedef enum { READ_HEAD, READ_LENGTH, READ_CHUNK_HEAD, READ_CHUNK, READ_CHUNK_END, READ_ALL } Part;

struct Call {
    Peer *peer;
    Host *host;
    Link *link;
    CallOptions o;
    Event timeout;
    Reply reply;
    Buf in, line;
    Part part;
    size_t left;
    bool close, telling, canceled;
};

static void call_free(Call *c)
{
    world_not(c->peer->w, &c->timeout);
    buf_done(&c->reply.head);
    buf_done(&c->reply.body);
    buf_done(&c->in);
    buf_done(&c->line);
    mem_free(c);
}

static void link_close(Link *l)
{
    list_del(&l->in_pool);
    if (l->conn) conn_close(l->conn);
    mem_free(l);
}

static void finish(Call *c, int err)
{
    Link *l = c->link;
    if (l) {
        l->call = NULL;
        if (err || c->close || !l->conn || c->o.alone)
            link_close(l);
        else
            list_push_back(&c->peer->idle, &l->in_pool);
    }
    c->link = NULL;
    c->telling = true;
    if (!c->canceled && c->o.on_done) c->o.on_done(c->o.ctx, err, &c->reply);
    call_free(c);
}

static void timeout_fire(Event *e)
{
    finish(CONTAINER_OF(e, Call, timeout), ERR_TIMEOUT);
}

void call_cancel(Call *c)
{
    if (!c || c->canceled) return;
    c->canceled = true;
    if (!c->telling) finish(c, ERR_CANCELED);
}

uint64_t call_durable(const Call *c)
{
    return conn_durable(c->link->conn);
}

Str reply_header(const Reply *r, const char *name)
{
    size_t n = strlen(name);
    const char *p = (const char *)r->head.data, *end = p + r->head.len;
    while (p < end) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        if (!nl) break;
        if ((size_t)(nl - p) > n + 1 && p[n] == ':' && strncasecmp(p, name, n) == 0) {
            Str v = {p + n + 1, (size_t)(nl - p) - n - 1};
            while (v.n && *v.p == ' ') {
                v.p++;
                v.n--;
            }
            if (v.n && v.p[v.n - 1] == '\r') v.n--;
            return v;
        }
        p = nl + 1;
    }
    return (Str){"", 0};
}

static void take_body(Call *c, Str s)
{
    if (!c->o.on_line || c->reply.status / 100 != 2) {
        buf_put_str(&c->reply.body, s);
        return;
    }
    buf_put_str(&c->line, s);
    size_t at = 0;
    while (at < c->line.len && !c->canceled) {
        const uint8_t *nl = memchr(c->line.data + at, '\n', c->line.len - at);
        if (!nl) break;
        size_t n = (size_t)(nl - c->line.data) - at;
        c->o.on_line(c->o.ctx, (Str){(const char *)c->line.data + at, n});
        at += n + 1;
    }
    buf_drop(&c->line, at);
}

/* Takes what it can of c->in. 1: the answer is whole; 0: more is needed; −1: it makes no sense. */
static int advance(Call *c)
{
    Buf *in = &c->in;
    for (;;) {
        const char *p = (const char *)in->data, *end;
        size_t n;
        if (c->canceled) return 1;
        switch (c->part) {
        case READ_HEAD:
            end = in->len ? memmem(p, in->len, "\r\n\r\n", 4) : NULL;
            if (!end) return 0;
            n = (size_t)(end - p) + 4;
            buf_clear(&c->reply.head);
            buf_put(&c->reply.head, p, n);
            buf_drop(in, n);
            if (c->reply.head.len < 12) return -1;
            c->reply.status = atoi((const char *)c->reply.head.data + 9);
            if (c->reply.status == 100) continue;
            if (c->reply.status < 200) return -1;
            c->close = str_eqz(reply_header(&c->reply, "Connection"), "close");
            if (c->reply.status == 204 || c->reply.status == 304) return 1;
            if (str_eqz(reply_header(&c->reply, "Transfer-Encoding"), "chunked")) {
                c->part = READ_CHUNK_HEAD;
            } else {
                uint64_t length;
                if (parse_u64(reply_header(&c->reply, "Content-Length"), &length)) return -1;
                c->left = (size_t)length;
                c->part = READ_LENGTH;
            }
            break;
        case READ_LENGTH:
        case READ_CHUNK:
            n = MIN(c->left, in->len);
            if (n) take_body(c, (Str){(const char *)in->data, n});
            if (c->canceled) return 1;
            buf_drop(in, n);
            c->left -= n;
            if (c->left) return 0;
            if (c->part == READ_LENGTH) return 1;
            c->part = READ_CHUNK_END;
            break;
        case READ_CHUNK_END:
            if (in->len < 2) return 0;
            buf_drop(in, 2);
            c->part = READ_CHUNK_HEAD;
            break;
        case READ_CHUNK_HEAD:
            end = in->len ? memmem(p, in->len, "\r\n", 2) : NULL;
            if (!end) return 0;
            c->left = strtoul(p, NULL, 16);
            if (!c->left) {
                if (in->len < (size_t)(end - p) + 4) return 0;
                buf_drop(in, (size_t)(end - p) + 4);
                return 1;
            }
            buf_drop(in, (size_t)(end - p) + 2);
            c->part = READ_CHUNK;
            break;
        case READ_ALL:
            return 0;
        }
    }
}

static void on_got(void *ctx, const char *p, size_t n)
{
    Link *l = ctx;
    Call *c = l->call;
    if (!c) return; /* a time limit's refusal on an idle connection */
    buf_put(&c->in, p, n);
    c->telling = true;
    c->reply.durable = conn_durable(l->conn);
    int done = advance(c);
    c->telling = false;
    if (c->canceled)
        finish(c, ERR_CANCELED);
    else if (done)
        finish(c, done < 0 ? ERR_INVALID : 0);
}

static void on_over(void *ctx, bool broken)
{
    Link *l = ctx;
    Call *c = l->call;
    (void)broken;
    l->conn = NULL;
    if (c)
        finish(c, ERR_CLOSED);
    else
        link_close(l);
}

static Link *link_get(Peer *p, Host *h, bool alone)
{
    if (!alone)
        LIST_FOR (l, &p->idle, Link, in_pool) {
            if (l->host != h || !l->conn) continue;
            list_del(&l->in_pool);
            return l;
        }
    Link *l = mem_new(sizeof *l);
    list_init(&l->in_pool);
    l->host = h;
    l->conn = conn_open(p, h, &(ConnOps){l, on_got, on_over});
    return l;
}

Call *call_start(Peer *p, Host *h, const CallOptions *o)
{
    Call *c = mem_new(sizeof *c);
    c->peer = p;
    c->host = h;
    c->o = *o;
    c->timeout.fire = timeout_fire;
    c->link = link_get(p, h, o->alone);
    c->link->call = c;
    if (o->timeout_ns) world_in(p->w, &c->timeout, o->timeout_ns);
    Buf b = {0};
    buf_printf(&b, "%s %s HTTP/1.1\r\nHost: localhost\r\n%s", o->method, o->target,
               o->headers ? o->headers : "");
    if (o->body.n || strcmp(o->method, "POST") == 0)
        buf_printf(&b, "Content-Length: %zu\r\n", o->body.n);
    buf_puts(&b, "\r\n");
    buf_put_str(&b, o->body);
    conn_send(c->link->conn, buf_str(&b));
    buf_done(&b);
    return c;
}

void calls_drop(Peer *p)
{
    peer_drop(p); /* on_over ends the calls */
}
