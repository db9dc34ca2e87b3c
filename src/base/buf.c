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

void buf_drop(Buf *b, size_t n)
{
    CHECK(n <= b->len);
    if (n && b->len > n) memmove(b->data, b->data + n, b->len - n);
    b->len -= n;
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
