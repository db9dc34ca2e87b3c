#include "base/buf.h"

#include <stdio.h>
#include <string.h>

void buf_done(Buf *b)
{
    mem_free(b->data);
    *b = (Buf){0};
}

void buf_clear(Buf *b)
{
    b->len = 0;
}

void buf_reserve(Buf *b, size_t n)
{
    CHECK(n < SIZE_MAX / 4 - b->len);
    if (b->len + n <= b->cap) return;
    size_t cap = b->cap ? b->cap : 64;
    while (cap < b->len + n) cap += cap / 2 + 64;
    b->data = mem_grow(b->data, cap);
    b->cap = cap;
}

uint8_t *buf_extend(Buf *b, size_t n)
{
    buf_reserve(b, n);
    uint8_t *at = b->data + b->len;
    b->len += n;
    return at;
}

void buf_drop(Buf *b, size_t n)
{
    CHECK(n <= b->len);
    if (n && b->len > n) memmove(b->data, b->data + n, b->len - n);
    b->len -= n;
}

void buf_put(Buf *b, const void *p, size_t n)
{
    if (n) memcpy(buf_extend(b, n), p, n);
}

void buf_puts(Buf *b, const char *z)
{
    buf_put(b, z, strlen(z));
}

void buf_put_str(Buf *b, Str s)
{
    buf_put(b, s.p, s.n);
}

void buf_putc(Buf *b, char c)
{
    *buf_extend(b, 1) = (uint8_t)c;
}

void buf_vprintf(Buf *b, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    buf_reserve(b, 64);
    int n = vsnprintf((char *)b->data + b->len, b->cap - b->len, fmt, ap);
    CHECK(n >= 0);
    if ((size_t)n >= b->cap - b->len) {
        buf_reserve(b, (size_t)n + 1);
        n = vsnprintf((char *)b->data + b->len, b->cap - b->len, fmt, again);
    }
    va_end(again);
    b->len += (size_t)n;
}

void buf_printf(Buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(b, fmt, ap);
    va_end(ap);
}

const char *buf_z(Buf *b)
{
    buf_reserve(b, 1);
    b->data[b->len] = 0;
    return (const char *)b->data;
}

Str buf_str(const Buf *b)
{
    return (Str){b->data ? (const char *)b->data : "", b->len};
}

uint32_t load_u32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

uint64_t load_u64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

void store_u32(void *p, uint32_t v)
{
    memcpy(p, &v, sizeof v);
}

void store_u64(void *p, uint64_t v)
{
    memcpy(p, &v, sizeof v);
}

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the disk format is little-endian");

void buf_u8(Buf *b, uint8_t v)
{
    buf_put(b, &v, sizeof v);
}

void buf_u16(Buf *b, uint16_t v)
{
    buf_put(b, &v, sizeof v);
}

void buf_u32(Buf *b, uint32_t v)
{
    buf_put(b, &v, sizeof v);
}

void buf_u64(Buf *b, uint64_t v)
{
    buf_put(b, &v, sizeof v);
}

Cursor cursor_of(const void *p, size_t n)
{
    return (Cursor){p, (const uint8_t *)p + n, false};
}

size_t cursor_left(const Cursor *c)
{
    return c->bad ? 0 : (size_t)(c->end - c->p);
}

const uint8_t *cursor_bytes(Cursor *c, size_t n)
{
    if (c->bad || n > (size_t)(c->end - c->p)) {
        c->bad = true;
        return NULL;
    }
    const uint8_t *at = c->p;
    c->p += n;
    return at;
}

#define CURSOR_READ(name, type)                                                                    \
    type name(Cursor *c)                                                                           \
    {                                                                                              \
        type v = 0;                                                                                \
        const uint8_t *at = cursor_bytes(c, sizeof v);                                             \
        if (at) memcpy(&v, at, sizeof v);                                                          \
        return v;                                                                                  \
    }

CURSOR_READ(cursor_u8, uint8_t)
CURSOR_READ(cursor_u16, uint16_t)
CURSOR_READ(cursor_u32, uint32_t)
CURSOR_READ(cursor_u64, uint64_t)
