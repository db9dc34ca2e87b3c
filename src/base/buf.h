/* buf.h: a growable run of bytes. The owner calls buf_done; a zeroed Buf is empty and valid.
 * data is NOT NUL-terminated unless buf_z was called; pointers into it end with the next growth. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include "base/types.h"

#include <string.h>

typedef struct {
    uint8_t *data;
    size_t len, cap;
} Buf;

void buf_done(Buf *b);              /* frees; the Buf is empty again */
void buf_clear(Buf *b);             /* len = 0, memory kept */
void buf_reserve(Buf *b, size_t n); /* room for n more bytes */
void buf_drop(Buf *b, size_t n);    /* remove the first n bytes */
void buf_printf(Buf *b, const char *fmt, ...) HR_PRINTF(2, 3);
void buf_vprintf(Buf *b, const char *fmt, va_list ap);
const char *buf_z(Buf *b); /* NUL behind the end (not counted); borrowed */
Str buf_str(const Buf *b); /* borrowed view */

/* What is called for every field of every record is here, to be inlined. */

/* n more bytes, uninitialised; where they begin */
static inline uint8_t *buf_extend(Buf *b, size_t n)
{
    if (n > b->cap - b->len) buf_reserve(b, n);
    uint8_t *at = b->data + b->len;
    b->len += n;
    return at;
}

static inline void buf_put(Buf *b, const void *p, size_t n)
{
    if (n) memcpy(buf_extend(b, n), p, n);
}

static inline void buf_puts(Buf *b, const char *z)
{
    buf_put(b, z, strlen(z));
}

static inline void buf_put_str(Buf *b, Str s)
{
    buf_put(b, s.p, s.n);
}

static inline void buf_putc(Buf *b, char c)
{
    *buf_extend(b, 1) = (uint8_t)c;
}

/* Little-endian integers. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the disk format is little-endian");

static inline void buf_u8(Buf *b, uint8_t v)
{
    *buf_extend(b, 1) = v;
}

static inline void buf_u16(Buf *b, uint16_t v)
{
    memcpy(buf_extend(b, sizeof v), &v, sizeof v);
}

static inline void buf_u32(Buf *b, uint32_t v)
{
    memcpy(buf_extend(b, sizeof v), &v, sizeof v);
}

static inline void buf_u64(Buf *b, uint64_t v)
{
    memcpy(buf_extend(b, sizeof v), &v, sizeof v);
}

/* LEB128: seven bits a byte, the lowest first; the top bit says that more follow. */
static inline void buf_var(Buf *b, uint64_t v)
{
    uint8_t text[10];
    size_t n = 0;
    for (; v >= 0x80; v >>= 7) text[n++] = (uint8_t)(v | 0x80);
    text[n++] = (uint8_t)v;
    buf_put(b, text, n);
}

/* A reader over bytes. After a read beyond the end `bad` is set and every further read gives 0:
 * check it once, at the end. */
typedef struct {
    const uint8_t *p, *end;
    bool bad;
} Cursor;

static inline Cursor cursor_of(const void *p, size_t n)
{
    return (Cursor){(const uint8_t *)p, (const uint8_t *)p + n, false};
}

static inline size_t cursor_left(const Cursor *c)
{
    return c->bad ? 0 : (size_t)(c->end - c->p);
}

/* Borrowed; NULL when bad. */
static inline const uint8_t *cursor_bytes(Cursor *c, size_t n)
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
    static inline type name(Cursor *c)                                                             \
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
#undef CURSOR_READ

/* What buf_var wrote; bad when it does not fit into 64 bits. */
static inline uint64_t cursor_var(Cursor *c)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t byte = cursor_u8(c);
        if (shift == 63 && byte > 1) break;
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) return v;
    }
    c->bad = true;
    return 0;
}

/* Little-endian at a place, unaligned. */
static inline uint32_t load_u32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint64_t load_u64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void store_u32(void *p, uint32_t v)
{
    memcpy(p, &v, sizeof v);
}

static inline void store_u64(void *p, uint64_t v)
{
    memcpy(p, &v, sizeof v);
}

#endif
