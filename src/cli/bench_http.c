/* Answers of HTTP/1.1, read no further than a load generator must: status, length, body. */
#include "cli/bench.h"

#include <string.h>
#include <strings.h>

#define HEAD_MAX (64 * KIB)

static bool name_is(Str line, const char *name)
{
    size_t n = strlen(name);
    return line.n > n && line.p[n] == ':' && strncasecmp(line.p, name, n) == 0;
}

static Str value_of(Str line)
{
    const char *p = (const char *)memchr(line.p, ':', line.n) + 1, *end = line.p + line.n;
    while (p < end && *p == ' ') p++;
    while (end > p && end[-1] == ' ') end--;
    return (Str){p, (size_t)(end - p)};
}

static bool value_is(Str line, const char *value)
{
    Str v = value_of(line);
    return v.n == strlen(value) && strncasecmp(v.p, value, v.n) == 0;
}

static bool digits3(const char *p, int *ret)
{
    int v = 0;
    for (size_t i = 0; i < 3; i++) {
        if (p[i] < '0' || p[i] > '9') return false;
        v = v * 10 + (p[i] - '0');
    }
    *ret = v;
    return true;
}

int answer_head(Str in, AnswerHead *ret)
{
    static const char begin[] = "HTTP/1.1 ";
    AnswerHead h = {0};
    bool sized = false;
    const char *end = memmem(in.p, in.n, "\r\n\r\n", 4);
    if (!end) return in.n > HEAD_MAX ? ERR_INVALID : ERR_AGAIN;
    h.head_len = (size_t)(end - in.p) + 4;
    if (memcmp(in.p, begin, MIN(in.n, sizeof begin - 1)) != 0 || h.head_len < 16 ||
        !digits3(in.p + sizeof begin - 1, &h.status))
        return ERR_INVALID;
    const char *p = (const char *)memchr(in.p, '\n', h.head_len) + 1;
    while (p < end) {
        const char *stop = memchr(p, '\r', (size_t)(end + 1 - p));
        Str line = {p, (size_t)(stop - p)};
        if (name_is(line, "content-length")) {
            if (parse_u64(value_of(line), &h.length)) return ERR_INVALID;
            sized = true;
        } else if (name_is(line, "transfer-encoding")) {
            if (!value_is(line, "chunked")) return ERR_INVALID;
            h.chunked = true;
        } else if (name_is(line, "connection")) {
            h.close = value_is(line, "close");
        }
        p = stop + 2;
    }
    if (h.status == 204 || h.status == 304) sized = true;
    if (sized == h.chunked) return ERR_INVALID; /* neither, or both */
    *ret = h;
    return 0;
}

/* One line from the front of *in without its end; false: not whole yet. */
static bool take_line(Str *in, Str *ret)
{
    const char *end = memmem(in->p, in->n, "\r\n", 2);
    if (!end) return false;
    *ret = (Str){in->p, (size_t)(end - in->p)};
    in->n -= ret->n + 2;
    in->p = end + 2;
    return true;
}

static int read_size(Str line, uint64_t *ret)
{
    uint64_t v = 0;
    size_t i = 0;
    for (; i < line.n && i < 12; i++) {
        char c = line.p[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) break;
        v = v << 4 | (uint64_t)digit;
    }
    if (i == 0 || (i < line.n && line.p[i] != ';')) return ERR_INVALID;
    *ret = v;
    return 0;
}

int dechunk(Dechunk *d, Str *in, Buf *ret)
{
    Str line;
    for (;;) {
        switch (d->at) {
        case CHUNK_SIZE:
            if (!take_line(in, &line)) return in->n > HEAD_MAX ? ERR_INVALID : 0;
            if (read_size(line, &d->left)) return ERR_INVALID;
            d->at = d->left ? CHUNK_DATA : CHUNK_LAST;
            break;
        case CHUNK_DATA: {
            size_t n = (size_t)MIN(d->left, (uint64_t)in->n);
            buf_put(ret, in->p, n);
            in->p += n;
            in->n -= n;
            d->left -= n;
            if (d->left) return 0;
            d->at = CHUNK_DATA_END;
            break;
        }
        case CHUNK_DATA_END:
            if (!take_line(in, &line)) return in->n > 1 ? ERR_INVALID : 0;
            if (line.n) return ERR_INVALID;
            d->at = CHUNK_SIZE;
            break;
        case CHUNK_LAST: /* trailers, up to an empty line */
            if (!take_line(in, &line)) return in->n > HEAD_MAX ? ERR_INVALID : 0;
            if (!line.n) d->at = CHUNK_OVER;
            break;
        case CHUNK_OVER:
            return 0;
        }
    }
}
