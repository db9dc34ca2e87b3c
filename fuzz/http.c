/* Requests from any bytes: cut into pieces of any size they give the same requests, or are refused
 * alike (of two faults in one line it depends on the pieces which one is named). */
#include <string.h>

#include "wire/http.h"

typedef struct {
    uint64_t hash;
    int requests, status;
} Seen;

static void mix(Seen *s, Str part)
{
    s->hash = (s->hash ^ hash_bytes(part.p, part.n)) * UINT64_C(0x9E3779B97F4A7C15) + part.n;
}

static Seen run(const uint8_t *data, size_t size, size_t piece)
{
    HttpParser p;
    Seen seen = {0};
    http_init(&p);
    for (size_t at = 0; at < size && !seen.status; at += piece) {
        Str in = {(const char *)data + at, MIN(piece, size - at)};
        for (;;) {
            HttpStep step = http_step(&p, &in);
            if (step == HTTP_HEAD_OK) {
                CHECK(p.req.host.n && p.req.fields_len <= HTTP_FIELDS_MAX &&
                      p.head.len <= HTTP_HEAD_MAX);
                CHECK(!(p.req.chunked && p.req.has_length));
                p.body_max = 1000;
                mix(&seen, p.req.target);
                for (size_t i = 0; i < p.req.fields_len; i++) {
                    mix(&seen, p.req.fields[i].name);
                    mix(&seen, p.req.fields[i].value);
                }
            }
            if (step == HTTP_DONE) {
                CHECK(p.req.body.n <= 1000 && (!p.req.has_length || p.req.body.n == p.req.length));
                mix(&seen, p.req.body);
                seen.requests++;
            }
            if (step == HTTP_REFUSED) seen.status = p.status;
            if (step == HTTP_MORE || step == HTTP_REFUSED) break;
        }
    }
    http_done(&p);
    return seen;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 64 * KIB) return 0;
    Seen whole = run(data, size, size ? size : 1);
    for (size_t piece = 1; piece <= 7; piece += 3) {
        Seen cut = run(data, size, piece);
        CHECK(cut.requests == whole.requests && !cut.status == !whole.status &&
              (cut.status || cut.hash == whole.hash));
    }
    /* The small parts, on the same bytes. */
    Buf b = {0};
    Str s = {(const char *)data, size}, name, value;
    (void)!http_decode(s, true, &b);
    (void)!http_quoted(s, &b);
    while (http_next_pair(&s, &name, &value)) CHECK(name.n + value.n <= size);
    buf_done(&b);
    return 0;
}
