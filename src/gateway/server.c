/* Connections: bytes to requests, answers in the order of their requests, time limits; and the
 * gateway's life.
 *
 * Invariants
 *   I1  Answers leave in the order of requests: only the first exchange of a connection may put
 *       bytes into its tcp out.
 *   I2  After an exchange with `close`, no byte of input is parsed; the connection ends once it
 *       has left.
 *   I3  While handlers run (busy), nothing of this connection is freed: `moved` only notes it, and
 *       advance() follows.
 *   I4  Input is bounded: at most PIPELINE_MAX requests are open at once, no more than fill
 *       UNSENT_MAX bytes of answers (and one), and reading stops while bytes wait unparsed. */
#include "gateway/internal.h"

#include <stdio.h>
#include <string.h>

#define PIPELINE_MAX      64         /* open requests of one connection; more wait unparsed */
#define UNSENT_MAX        (1 * MIB)  /* then no further request of this connection is parsed */
#define STREAM_UNSENT_MAX (64 * MIB) /* a reader of a stream that is this far behind is cut off */
#define DISCARD_MAX       (64 * KIB) /* a body of a refused request that is read all the same */
#define SWEEP_MS          500
/* bytes a second a body must make on average, after the first 30 s */
#define BODY_RATE_MIN 1024
/* connections over the cap that still get a 503; beyond, they are dropped */
#define OVER_CAP 64

struct Conn {
    Tcp tcp;
    Gateway *g;
    HttpParser parser;
    Buf in;         /* bytes not parsed yet */
    List exchanges; /* in order of request */
    size_t exchanges_len;
    size_t ahead;        /* bytes of answers that were put in line since there was none */
    Exchange *receiving; /* its head is parsed, its body is not whole */
    AuthCache auth;
    uint64_t head_ms; /* when the current request's first byte came (0: between requests) */
    uint64_t body_ms; /* when its body began */
    bool busy, input_over, ended; /* I3; I2; the peer has sent its end */
};

static Conn *conn_of(const Exchange *x)
{
    return x->conn;
}

/* ---- answers ---- */

static void drop_all(Conn *c)
{
    while (!list_empty(&c->exchanges)) {
        Exchange *x = LIST_FIRST(&c->exchanges, Exchange, link);
        x->moved = NULL;
        exchange_free(x);
    }
    c->exchanges_len = 0;
    c->receiving = NULL;
}

static void close_now(Conn *c)
{
    c->input_over = true;
    tcp_close(&c->tcp);
}

static void advance(Conn *c)
{
    if (c->busy || c->tcp.closing) return;
    while (!list_empty(&c->exchanges)) {
        Exchange *x = LIST_FIRST(&c->exchanges, Exchange, link);
        if (x->held) return;
        if (x->out.len) {
            Buf *out = tcp_out(&c->tcp);
            if (out->len == 0 && x->out.len > 4096) {
                Buf taken = *out;
                *out = x->out;
                x->out = taken;
            } else {
                buf_put(out, x->out.data, x->out.len);
                buf_clear(&x->out);
            }
        }
        if (!x->ended) return;
        bool close = x->close;
        if (c->receiving == x) { /* answered before its body has come */
            if (!close) return;
            c->receiving = NULL;
            c->input_over = true;
        }
        route_count(x);
        x->moved = NULL;
        exchange_free(x);
        c->exchanges_len--;
        if (close) {
            c->input_over = true;
            drop_all(c);
            tcp_finish(&c->tcp);
            return;
        }
    }
    c->ahead = 0;
    if (c->ended) {
        tcp_finish(&c->tcp);
        return;
    }
    if (c->in.len)
        (void)tcp_out(
            &c->tcp); /* the flush at the end of the turn takes up the rest: see on_drained */
    if (c->g->draining && http_between(&c->parser) && !c->in.len) tcp_finish(&c->tcp);
}

static void on_moved(Exchange *x)
{
    Conn *c = conn_of(x);
    if (!c->busy) c->ahead += x->out.len; /* answered later; what is held counts twice: harmless */
    advance(c);
    if (c->in.len) (void)tcp_out(&c->tcp); /* what waited for it goes on: see on_drained */
}

size_t server_unsent(const Exchange *x)
{
    const Conn *c = x->conn;
    return c ? tcp_unsent(&c->tcp) + x->out.len : 0;
}

/* ---- requests ---- */

static bool blocked(const Conn *c)
{
    if (c->input_over || c->tcp.closing || c->tcp.finishing) return true;
    if (c->receiving) return c->receiving->paused_in;
    if (c->exchanges_len >= PIPELINE_MAX || tcp_unsent(&c->tcp) > UNSENT_MAX) return true;
    if (list_empty(&c->exchanges)) return false;
    if (c->ahead > UNSENT_MAX) return true; /* keeps I4: answers that wait in line count, too */
    const Exchange *last = CONTAINER_OF(c->exchanges.prev, Exchange, link);
    return last->exclusive || last->asked;
}

static void take_body(void *ctx, Str piece)
{
    Conn *c = ctx;
    Exchange *x = c->receiving;
    if (x && x->take && !x->ended) x->take(x, piece);
}

static Exchange *new_exchange(Conn *c)
{
    Exchange *x = exchange_new(c->g);
    x->conn = c;
    x->moved = on_moved;
    x->auth = &c->auth;
    list_push_back(&c->exchanges, &x->link);
    c->exchanges_len++;
    return x;
}

/* A body that nobody wants: a small one is read and dropped, so that the connection lives on; of a
 * large one (it may be 10 GB) nothing is read, and the connection ends. */
static bool is_small(const HttpRequest *r)
{
    return (r->has_length && r->length <= DISCARD_MAX && !r->expect_continue) ||
           (!r->chunked && !r->length);
}

static void head_done(Conn *c)
{
    HttpRequest *r = &c->parser.req;
    Exchange *x = new_exchange(c);
    x->req = r;
    x->head_only = r->method == HTTP_M_HEAD;
    x->close = !r->keep_alive || !is_small(r); /* for a refusal; taken back below */
    c->receiving = x;
    c->head_ms = 0;
    c->body_ms = loop_now_ms(c->g->loop);
    uint64_t body_max = 0;
    bool fine = route_head(x, &body_max);
    if (fine && r->length > body_max) {
        if (body_max > 2)
            problem_say(x, 413, CODE_TOO_LARGE, NULL,
                        "the body of %llu bytes is over the limit of %llu bytes",
                        (unsigned long long)r->length, (unsigned long long)body_max);
        else
            problem_say(x, 400, CODE_INVALID_REQUEST, NULL, "this call takes no body; send none");
        fine = false;
    }
    if (fine && x->route->flags & ROUTE_STREAM_IN) {
        c->parser.take = take_body;
        c->parser.ctx = c;
        route_body(x);
        fine = !x->ended;
    }
    if (!fine) {
        c->parser.take = NULL;
        c->parser.body_max = r->length;
        if (is_small(r)) return;
        c->input_over = true;
        c->receiving = NULL;
        return;
    }
    if (!x->answered) x->close = !r->keep_alive;
    c->parser.body_max = body_max;
    bool body_follows = r->chunked || r->length > 0;
    if (r->expect_continue && body_follows && c->exchanges_len == 1)
        buf_puts(tcp_out(&c->tcp), "HTTP/1.1 100 Continue\r\n\r\n");
}

static void request_done(Conn *c)
{
    Exchange *x = c->receiving;
    c->receiving = NULL;
    if (!x) return;
    const HttpRequest *r = x->req;
    x->body_whole = true;
    if (!x->ended && !(x->route->flags & ROUTE_STREAM_IN))
        route_body(x);
    else if (!x->ended && x->take)
        x->take(x, (Str){"", 0});
    if (!x->answered) x->path = mem_dup(r->path.p, MIN(r->path.n, (size_t)INSTANCE_MAX));
    x->req = NULL; /* the parser goes on to the next one */
    c->ahead += x->out.len;
}

static void refused(Conn *c)
{
    Exchange *x = c->receiving;
    c->receiving = NULL;
    c->input_over = true;
    if (x && x->answered) {
        x->close = true;
        if (!x->ended) close_now(c); /* a stream out whose body in went wrong */
        return;
    }
    if (!x) x = new_exchange(c);
    watch_stop(x);
    x->close = true;
    Code code = c->parser.status == 413 ? CODE_TOO_LARGE : CODE_INVALID_REQUEST;
    if (!x->route) x->req = NULL;
    problem_say(x, c->parser.status, code, NULL, "%s", c->parser.why);
}

static void parse(Conn *c, Str *in)
{
    c->busy = true;
    HttpStep step = HTTP_DONE;
    while (!blocked(c) && step != HTTP_MORE) {
        if (http_between(&c->parser) && in->n == 0) break;
        step = http_step(&c->parser, in);
        switch (step) {
        case HTTP_HEAD_OK:
            head_done(c);
            break;
        case HTTP_DONE:
            request_done(c);
            break;
        case HTTP_REFUSED:
            refused(c);
            break;
        case HTTP_MORE:
            if (!c->receiving && !http_between(&c->parser) && !c->head_ms)
                c->head_ms = loop_now_ms(c->g->loop);
            break;
        }
    }
    c->busy = false;
}

static void read_or_not(Conn *c)
{
    if (c->ended || c->tcp.finishing) return;
    tcp_read(&c->tcp, !(c->input_over || (blocked(c) && c->in.len >= 64 * KIB) ||
                        (c->receiving && c->receiving->paused_in)));
}

/* Goes on with bytes that had to wait. */
static void resume(Conn *c)
{
    if (c->busy || !c->in.len || blocked(c)) {
        read_or_not(c);
        return;
    }
    Buf now = c->in;
    c->in = (Buf){0};
    Str in = buf_str(&now);
    parse(c, &in);
    if (in.n && !c->input_over) buf_put_str(&c->in, in);
    buf_done(&now);
    advance(c);
    read_or_not(c);
}

void server_resume_body(Exchange *x)
{
    Conn *c = x->conn;
    if (c) resume(c);
}

/* ---- what the transport tells ---- */

static Tcp *on_fresh(void *ctx)
{
    Gateway *g = ctx;
    if (g->draining || tcp_connections(g->listener) >= g->o.connections_max + OVER_CAP) {
        g->refused_connections++;
        return NULL;
    }
    Conn *c = mem_new(sizeof *c);
    c->g = g;
    list_init(&c->exchanges);
    http_init(&c->parser);
    return &c->tcp;
}

static void on_opened(Tcp *t)
{
    Conn *c = CONTAINER_OF(t, Conn, tcp);
    Gateway *g = c->g;
    if (tcp_connections(g->listener) <= g->o.connections_max) return;
    g->refused_connections++;
    c->input_over = true;
    c->busy = true;
    Exchange *x = new_exchange(c);
    x->close = true;
    problem_say(x, 503, CODE_RATE_LIMITED, NULL,
                "the server has its %u connections; try again soon", g->o.connections_max);
    c->busy = false;
    advance(c);
}

static void on_bytes(Tcp *t, const char *p, size_t n)
{
    Conn *c = CONTAINER_OF(t, Conn, tcp);
    if (c->input_over) return;
    if (c->in.len || blocked(c)) {
        buf_put(&c->in, p, n);
        if (!blocked(c))
            resume(c);
        else
            read_or_not(c);
        return;
    }
    Str in = {p, n};
    parse(c, &in);
    if (in.n && !c->input_over) buf_put_str(&c->in, in);
    advance(c);
    if (c->in.len || (c->receiving && c->receiving->paused_in)) read_or_not(c);
}

static void on_ended(Tcp *t)
{
    Conn *c = CONTAINER_OF(t, Conn, tcp);
    c->ended = true;
    /* Who sends its end while it waits for a stream or a poll has left; an answer that is only
     * held still goes out. */
    LIST_FOR (x, &c->exchanges, Exchange, link) {
        if (x->watching != WATCH_NONE || (x->exclusive && !x->ended) || c->receiving == x) {
            close_now(c);
            return;
        }
    }
    if (list_empty(&c->exchanges) && !c->in.len) tcp_finish(t);
}

static void on_drained(Tcp *t)
{
    Conn *c = CONTAINER_OF(t, Conn, tcp);
    if (!list_empty(&c->exchanges)) {
        Exchange *x = LIST_FIRST(&c->exchanges, Exchange, link);
        if (x->drained && x->answered && !x->ended && !x->held) x->drained(x);
    }
    resume(c);
}

static void on_gone(Tcp *t)
{
    Conn *c = CONTAINER_OF(t, Conn, tcp);
    drop_all(c);
    http_done(&c->parser);
    buf_done(&c->in);
    mem_free(c);
}

/* ---- time ---- */

static void time_out(Conn *c, const char *why)
{
    c->input_over = true;
    if (c->receiving && c->receiving->answered) {
        close_now(c);
        return;
    }
    c->busy = true;
    Exchange *x = c->receiving ? c->receiving : new_exchange(c);
    c->receiving = NULL;
    x->close = true;
    if (!x->route) x->req = NULL;
    problem_say(x, 408, CODE_INVALID_REQUEST, NULL, "%s", why);
    c->busy = false;
    advance(c);
}

static void sweep_conn(Conn *c, uint64_t now)
{
    Gateway *g = c->g;
    uint64_t still_ms = now - MIN(now, c->tcp.moved_ms);
    if (c->tcp.closing) return;
    if (tcp_unsent(&c->tcp) > STREAM_UNSENT_MAX ||
        (tcp_unsent(&c->tcp) &&
         still_ms > g->o.idle_timeout_ms)) { /* it does not read what it asked for */
        close_now(c);
        return;
    }
    if (c->tcp.finishing || c->input_over) return;
    if (c->receiving) {
        uint64_t ms = now - MIN(now, c->body_ms);
        if (c->receiving->paused_in)
            c->body_ms = now;
        else if (still_ms > g->o.idle_timeout_ms ||
                 (ms > 30000 && c->parser.body_seen < (ms - 30000) / 1000 * BODY_RATE_MIN))
            time_out(c, "the body came too slowly");
    } else if (c->head_ms && list_empty(&c->exchanges)) {
        if (now - MIN(now, c->head_ms) > g->o.header_timeout_ms)
            time_out(c, "the request's head did not arrive in time");
    } else if (list_empty(&c->exchanges) && !c->in.len) {
        if (still_ms > g->o.idle_timeout_ms || g->draining) tcp_finish(&c->tcp);
    }
}

static void on_timer(LoopTimer *t)
{
    watch_due(CONTAINER_OF(t, Gateway, timer));
}

static void on_sweep(LoopTimer *t)
{
    Gateway *g = CONTAINER_OF(t, Gateway, sweep);
    uint64_t now = loop_now_ms(g->loop), before = g->swept_ms;
    g->swept_ms = now;
    /* We were held up (or asleep): what came meanwhile is not read yet, and nobody's silence. */
    if (now - MIN(now, before) > 3 * SWEEP_MS) return;
    LIST_FOR (c, tcp_list(g->listener), Tcp, link) {
        sweep_conn(CONTAINER_OF(c, Conn, tcp), now);
    }
}

/* ---- life ---- */

void gateway_options_default(GatewayOptions *o)
{
    *o = (GatewayOptions){
        .listen = "127.0.0.1:8700",
        .files_dir = "files",
        .body_max = 8 * MIB,
        .file_max = 1 * GIB,
        .connections_max = 10000,
        .transfers_max = 10000,
        .ping_s = 5,
        .idle_timeout_ms = 60000,
        .header_timeout_ms = 10000,
    };
}

static void timer_closed(LoopTimer *t)
{
    CONTAINER_OF(t, Gateway, timer)->handles--;
}

static void sweep_closed(LoopTimer *t)
{
    CONTAINER_OF(t, Gateway, sweep)->handles--;
}

int gateway_open(Loop *loop, const GatewayOptions *o, const GatewayPorts *ports, Gateway **ret,
                 Buf *why)
{
    CHECK(routes_len <= ROUTES_MAX);
    Gateway *g = mem_new(sizeof *g);
    g->loop = loop;
    g->o = *o;
    g->p = *ports;
    g->keys_len = o->keys_len + 1;
    g->keys = mem_new(g->keys_len * sizeof *g->keys);
    if (o->keys_len) memcpy(g->keys, o->keys, o->keys_len * sizeof *g->keys);
    g->keys[o->keys_len] = o->worker_key;
    g->keys[o->keys_len].scopes = SCOPE_WORKER;
    g->keyless = o->keys_len == 0;
    exchange_start_gateway(g);
    list_init(&g->gone_files);
    TcpOps ops = {.ctx = g,
                  .fresh = on_fresh,
                  .opened = on_opened,
                  .read = on_bytes,
                  .ended = on_ended,
                  .drained = on_drained,
                  .gone = on_gone};
    int err = files_open(g, why);
    if (!err) err = tcp_listen(loop, o->listen, &ops, &g->listener, why);
    if (!err && !tcp_is_loopback(g->listener) && (g->keyless || !o->insecure_http)) {
        err = ERR_PERMISSION;
        if (g->keyless)
            buf_printf(
                why,
                "%s is not a loopback address, and no API key is configured: configure a key, or "
                "listen on "
                "127.0.0.1",
                o->listen);
        else
            buf_printf(
                why,
                "%s is not a loopback address, and keys would travel over plain HTTP: put a TLS "
                "proxy in front "
                "and listen on 127.0.0.1, or set insecure_http",
                o->listen);
    }
    if (err) {
        g->closing = true;
        if (g->listener) {
            tcp_close_all(g->listener);
            while (!tcp_closed(g->listener)) loop->ops->turn(loop);
        }
        gateway_free(g);
        return err;
    }
    snprintf(g->address, sizeof g->address, "http://%s", tcp_address(g->listener));
    loop_timer_init(loop, &g->timer, on_timer);
    loop_timer_init(loop, &g->sweep, on_sweep);
    g->handles = 2;
    loop_timer_start(&g->sweep, SWEEP_MS, SWEEP_MS);
    *ret = g;
    return 0;
}

const char *gateway_address(const Gateway *g)
{
    return g->address;
}

void gateway_drain(Gateway *g)
{
    if (g->draining) return;
    g->draining = true;
    tcp_stop(g->listener);
    watch_answer_all(g);
    LIST_FOR (t, tcp_list(g->listener), Tcp, link) {
        Conn *c = CONTAINER_OF(t, Conn, tcp);
        if (list_empty(&c->exchanges) && http_between(&c->parser) && !c->in.len) tcp_finish(t);
    }
}

bool gateway_idle(const Gateway *g)
{
    if (!exchange_nothing_held(g) || g->jobs || !list_empty(&g->gone_files) ||
        !list_empty(&g->batches))
        return false;
    LIST_FOR (t, tcp_list(g->listener), Tcp, link) {
        const Conn *c = CONTAINER_OF(t, Conn, tcp);
        if (tcp_unsent(t)) return false;
        LIST_FOR (x, &c->exchanges, Exchange, link) {
            /* Streams to workers may stay to the last. */
            if (!x->exclusive || x->asked) return false;
        }
    }
    return true;
}

void gateway_close(Gateway *g)
{
    if (g->closing) return;
    g->closing = true;
    g->draining = true;
    tcp_close_all(g->listener);
    loop_timer_close(&g->timer, timer_closed);
    loop_timer_close(&g->sweep, sweep_closed);
}

void gateway_free(Gateway *g)
{
    if (!g) return;
    CHECK(g->handles == 0 && g->jobs == 0);
    if (g->listener) tcp_free(g->listener);
    while (g->spare_len) {
        Exchange *x = g->spare[--g->spare_len];
        buf_done(&x->out);
        buf_done(&x->headers);
        mem_free(x);
    }
    watch_done_gateway(g);
    worker_done_gateway(g);
    auth_done_gateway(g);
    files_done_gateway(g);
    json_done(&g->json);
    buf_done(&g->body);
    buf_done(&g->text);
    buf_done(&g->lines);
    buf_done(&g->openapi);
    mem_free(g->keys);
    mem_free(g);
}
