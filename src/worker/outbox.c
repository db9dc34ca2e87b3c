/* outbox.c: the queue of reports, and how each line is written. */
#include "worker/outbox.h"

#include "wire/json.h"

#include <string.h>

Report *report_new(WorkerReportKind kind, uint64_t token, Buf *line)
{
    Report *r = mem_new(sizeof *r);
    list_init(&r->link);
    r->kind = (uint8_t)kind;
    r->token = token;
    r->line = *line;
    *line = (Buf){0};
    return r;
}

void report_free(Report *r)
{
    CHECK(r->kind != REPORT_LAST);
    buf_done(&r->line);
    mem_free(r);
}

void outbox_init(Outbox *o)
{
    list_init(&o->pending);
    list_init(&o->flight);
    o->pending_len = o->flight_len = 0;
}

void outbox_put(Outbox *o, Report *r)
{
    CHECK(r->link.next == &r->link && r->line.len > 0);
    list_push_back(&o->pending, &r->link);
    o->pending_len++;
}

void outbox_drop(Outbox *o, Report *r)
{
    CHECK(o->flight_len == 0 && o->pending_len > 0);
    list_del(&r->link);
    o->pending_len--;
}

size_t outbox_begin(Outbox *o, Buf *body, size_t lines_max)
{
    CHECK(o->flight_len == 0);
    LIST_FOR (r, &o->pending, Report, link) {
        if (o->flight_len >= lines_max) break;
        if (o->flight_len > 0 && body->len + r->line.len > POST_BYTES_MAX) break;
        buf_put(body, r->line.data, r->line.len);
        list_del(&r->link);
        list_push_back(&o->flight, &r->link);
        o->pending_len--;
        o->flight_len++;
    }
    return o->flight_len;
}

Report *outbox_answered(Outbox *o)
{
    if (o->flight_len == 0) return NULL;
    Report *r = LIST_FIRST(&o->flight, Report, link);
    list_del(&r->link);
    o->flight_len--;
    return r;
}

void outbox_end(Outbox *o)
{
    while (o->flight_len > 0) { /* the last one first: keeps the order (I1) */
        List *last = o->flight.prev;
        list_del(last);
        list_push_front(&o->pending, last);
        o->flight_len--;
        o->pending_len++;
    }
}

/* ---- lines ---- */

static void put_u64(Buf *b, uint64_t v)
{
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    buf_put(b, digits + at, sizeof digits - at);
}

static void put_ns(Buf *b, int64_t ns)
{
    put_u64(b, ns > 0 ? (uint64_t)ns : 0);
}

#define PUT_LIT(b, lit) buf_put((b), (lit), sizeof(lit) - 1)

static void put_head(Buf *b, const char *type, Str id, uint64_t token)
{
    PUT_LIT(b, "{\"t\":\"");
    buf_puts(b, type);
    PUT_LIT(b, "\",\"id\":\"");
    buf_put_str(b, id);
    PUT_LIT(b, "\",\"token\":");
    put_u64(b, token);
}

static void put_usage(Buf *b, int64_t device_ns, int64_t run_ns)
{
    PUT_LIT(b, ",\"device_ns\":");
    put_ns(b, device_ns);
    PUT_LIT(b, ",\"run_ns\":");
    put_ns(b, run_ns);
    PUT_LIT(b, "}\n");
}

void line_started(Buf *b, Str id, uint64_t token)
{
    put_head(b, "started", id, token);
    PUT_LIT(b, "}\n");
}

void line_progress(Buf *b, Str id, uint64_t token, uint32_t step, uint32_t steps)
{
    put_head(b, "progress", id, token);
    PUT_LIT(b, ",\"step\":");
    put_u64(b, step);
    PUT_LIT(b, ",\"steps\":");
    put_u64(b, steps);
    PUT_LIT(b, "}\n");
}

void line_checkpoint(Buf *b, Str id, uint64_t token, uint64_t unit, Str file)
{
    put_head(b, "checkpoint", id, token);
    PUT_LIT(b, ",\"unit\":");
    put_u64(b, unit);
    PUT_LIT(b, ",\"file\":");
    json_put_str(b, file);
    PUT_LIT(b, "}\n");
}

void line_log(Buf *b, Str id, uint64_t token, Str text)
{
    put_head(b, "log", id, token);
    PUT_LIT(b, ",\"text\":");
    json_put_str(b, text);
    PUT_LIT(b, "}\n");
}

void line_result(Buf *b, Str id, uint64_t token, Str output, int64_t device_ns, int64_t run_ns)
{
    buf_reserve(b, output.n + id.n + 160);
    put_head(b, "result", id, token);
    PUT_LIT(b, ",\"output\":");
    size_t at = b->len;
    buf_put_str(b, output);
    /* A line end in JSON text is blank space between tokens; here it would end the line. */
    for (char *p = (char *)b->data + at, *end = p + output.n; p < end; p++) {
        p = memchr(p, '\n', (size_t)(end - p));
        if (p == NULL) break;
        *p = ' ';
    }
    put_usage(b, device_ns, run_ns);
}

void line_error(Buf *b, Str id, uint64_t token, const char *code, Str message, bool retryable,
                int64_t device_ns, int64_t run_ns)
{
    put_head(b, "error", id, token);
    buf_printf(b, ",\"code\":\"%s\",\"message\":", code);
    json_put_str(b, message);
    buf_puts(b, retryable ? ",\"retryable\":true" : ",\"retryable\":false");
    put_usage(b, device_ns, run_ns);
}

void line_released(Buf *b, Str id, uint64_t token, int64_t device_ns, int64_t run_ns)
{
    put_head(b, "released", id, token);
    put_usage(b, device_ns, run_ns);
}

void line_pong(Buf *b, uint64_t n)
{
    PUT_LIT(b, "{\"t\":\"pong\",\"n\":");
    put_u64(b, n);
    PUT_LIT(b, ",\"held\":[");
}

void line_pong_held(Buf *b, uint64_t token)
{
    if (b->data[b->len - 1] != '[') buf_putc(b, ',');
    put_u64(b, token);
}

void line_pong_end(Buf *b)
{
    PUT_LIT(b, "]}\n");
}
