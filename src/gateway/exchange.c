/* One request and its answer.
 *
 * Invariants
 *   I1  An exchange is in `held` exactly while x->held; the list is ordered by hold_seq, so that
 *       gateway_durable touches only what it releases. An answer that needs less than the last one
 *       in the list waits with that one: one group commit more, never less.
 *   I2  A byte of `out` leaves only when x->held is false; a piece in `later` only when its
 *       sequence is durable.
 *   I3  `moved` is called after every change that may let bytes leave. */
#include "gateway/internal.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define OUT_KEEP (16 * KIB)

Exchange *exchange_new(Gateway *g)
{
    Exchange *x;
    if (g->spare_len) {
        x = g->spare[--g->spare_len];
        Buf out = x->out, headers = x->headers;
        memset(x, 0, sizeof *x);
        x->out = out;
        x->headers = headers;
    } else {
        x = mem_new(sizeof *x);
    }
    x->g = g;
    list_init(&x->link);
    list_init(&x->hold);
    x->began_ns = uv_hrtime();
    g->exchanges++;
    return x;
}

static void later_free(Exchange *x)
{
    if (!x->later) return;
    list_del(&x->later->link);
    buf_done(&x->later->text);
    buf_done(&x->later->pieces);
    mem_free(x->later);
    x->later = NULL;
}

void exchange_free(Exchange *x)
{
    Gateway *g = x->g;
    watch_stop(x);
    if (x->drop) x->drop(x);
    x->drop = NULL;
    mem_free(x->retry_key);
    x->retry_key = NULL;
    mem_free(x->path);
    x->path = NULL;
    submit_forget_request(x);
    if (x->held) g->held_len--;
    list_del(&x->hold);
    list_del(&x->link);
    later_free(x);
    g->exchanges--;
    if (g->spare_len == ARRAY_LEN(g->spare)) {
        buf_done(&x->out);
        buf_done(&x->headers);
        mem_free(x);
        return;
    }
    buf_clear(&x->headers);
    if (x->out.cap > OUT_KEEP) buf_done(&x->out);
    buf_clear(&x->out);
    g->spare[g->spare_len++] = x;
}

void exchange_header(Exchange *x, const char *name, const char *fmt, ...)
{
    Buf *b = &x->headers;
    buf_puts(b, name);
    buf_put(b, ": ", 2);
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(b, fmt, ap);
    va_end(ap);
    buf_put(b, "\r\n", 2);
}

/* What every answer says, made anew each second: it is dated, no cache keeps it, no browser
 * guesses its type. */
static void put_common(Gateway *g, Buf *out)
{
    uint64_t now = loop_now_ms(g->loop);
    if (now >= g->common_until_ms) {
        time_t s = (time_t)(now_of(g) / NS_PER_S);
        struct tm tm;
        char date[64];
        CHECK(gmtime_r(&s, &tm));
        strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
        g->common_len = (size_t)snprintf(
            g->common, sizeof g->common,
            "Date: %s\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n", date);
        g->common_until_ms = now + 1000 - (uint64_t)(now_of(g) % NS_PER_S / NS_PER_MS);
    }
    buf_put(out, g->common, g->common_len);
}

static void put_head(Exchange *x, int status, const char *type, int64_t length)
{
    Gateway *g = x->g;
    Buf *out = &x->out;
    CHECK(!x->answered);
    x->answered = true;
    x->status = (uint16_t)status;
    if (g->draining) x->close = true;
    buf_puts(out, "HTTP/1.1 ");
    json_put_u64(out, (uint64_t)status);
    buf_putc(out, ' ');
    buf_puts(out, http_status_text(status));
    buf_put(out, "\r\n", 2);
    put_common(g, out);
    if (type) {
        buf_puts(out, "Content-Type: ");
        buf_puts(out, type);
        buf_put(out, "\r\n", 2);
    }
    buf_put_str(out, buf_str(&x->headers));
    if (x->close) buf_puts(out, "Connection: close\r\n");
    if (length < 0) {
        buf_puts(out, "Transfer-Encoding: chunked\r\n\r\n");
    } else if (status == 204 || status == 304) {
        buf_put(out, "\r\n", 2);
    } else {
        buf_puts(out, "Content-Length: ");
        json_put_u64(out, (uint64_t)length);
        buf_put(out, "\r\n\r\n", 4);
    }
}

static void ended(Exchange *x)
{
    x->ended = true;
    watch_stop(x);
    if (!x->held && x->moved) x->moved(x); /* keeps I3; x may be gone after this */
}

void exchange_reply(Exchange *x, int status, const char *type, Str body)
{
    put_head(x, status, type, (int64_t)body.n);
    if (!x->head_only && status != 204 && status != 304) buf_put_str(&x->out, body);
    ended(x);
}

void exchange_reply_json(Exchange *x, int status)
{
    exchange_reply(x, status, "application/json", buf_str(&x->g->body));
}

void exchange_begin(Exchange *x, int status, const char *type, int64_t length)
{
    put_head(x, status, type, length);
    x->chunked = length < 0;
    x->exclusive = true;
    if (x->head_only) {
        ended(x);
        return;
    }
    if (!x->held && x->moved) x->moved(x);
}

static void put_chunk(Exchange *x, Str piece)
{
    if (x->head_only || !piece.n) return;
    if (x->chunked) {
        char size[24];
        int n = snprintf(size, sizeof size, "%zx\r\n", piece.n);
        buf_put(&x->out, size, (size_t)n);
    }
    buf_put_str(&x->out, piece);
    if (x->chunked) buf_put(&x->out, "\r\n", 2);
}

size_t exchange_waiting(const Exchange *x)
{
    return x->later ? x->later->text.len : 0;
}

void exchange_put(Exchange *x, Str piece, uint64_t seq)
{
    Gateway *g = x->g;
    if (x->ended || !piece.n) return;
    bool waiting = x->later && !list_empty(&x->later->link);
    if (!waiting && seq <= g->p.durable_seq(g->p.ctx)) {
        put_chunk(x, piece);
        if (!x->held && x->moved) x->moved(x);
        return;
    }
    if (!x->later) {
        x->later = mem_new(sizeof *x->later);
        x->later->x = x;
        list_init(&x->later->link);
    }
    HeldPiece p = {seq, piece.n};
    buf_put(&x->later->pieces, &p, sizeof p);
    buf_put_str(&x->later->text, piece);
    if (!waiting) list_push_back(&g->held_texts, &x->later->link);
}

void exchange_end(Exchange *x)
{
    if (x->ended) return;
    if (x->later && !list_empty(&x->later->link)) {
        x->later->ends = true; /* when the last piece has left */
        watch_stop(x);
        return;
    }
    if (x->chunked && !x->head_only) buf_puts(&x->out, "0\r\n\r\n");
    ended(x);
}

/* Moves the pieces that are durable to out. */
static void release_text(Exchange *x, uint64_t seq)
{
    HeldText *h = x->later;
    const HeldPiece *p = (const HeldPiece *)(void *)h->pieces.data;
    size_t n = h->pieces.len / sizeof *p, bytes = 0, i = h->first;
    for (; i < n && p[i].seq <= seq; i++) bytes += p[i].len;
    if (i == h->first) return;
    put_chunk(x, (Str){(char *)h->text.data, bytes});
    buf_drop(&h->text, bytes);
    h->first = i;
    if (i < n) {
        if (h->first > 4096) {
            buf_drop(&h->pieces, h->first * sizeof *p);
            h->first = 0;
        }
    } else {
        h->first = 0;
        buf_clear(&h->pieces);
        list_del(&h->link);
        if (h->ends) {
            exchange_end(x);
            return;
        }
    }
    if (!x->held && x->moved) x->moved(x);
}

void exchange_hold(Exchange *x, uint64_t seq)
{
    Gateway *g = x->g;
    CHECK(!x->held);
    if (seq <= g->p.durable_seq(g->p.ctx)) return;
    if (!list_empty(&g->held)) {
        uint64_t last = CONTAINER_OF(g->held.prev, Exchange, hold)->hold_seq;
        if (last > seq) seq = last; /* keeps I1 */
    }
    x->held = true;
    x->hold_seq = seq;
    list_push_back(&g->held, &x->hold);
    g->held_len++;
}

void exchange_start_gateway(Gateway *g)
{
    list_init(&g->held);
    list_init(&g->held_texts);
    list_init(&g->batches);
}

bool exchange_nothing_held(const Gateway *g)
{
    return g->held_len == 0 && g->held_texts.next == &g->held_texts;
}

void gateway_durable(Gateway *g, uint64_t seq)
{
    while (!list_empty(&g->held)) {
        Exchange *x = LIST_FIRST(&g->held, Exchange, hold);
        if (x->hold_seq > seq) break;
        list_del(&x->hold);
        x->held = false;
        g->held_len--;
        if (x->moved) x->moved(x);
    }
    LIST_FOR (h, &g->held_texts, HeldText, link) {
        release_text(h->x, seq);
    }
    files_durable(g, seq);
}
