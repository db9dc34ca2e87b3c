/* buf.h: a growable run of bytes. The owner calls buf_done; a zeroed Buf is empty and valid.
 * data is NOT NUL-terminated unless buf_z was called; pointers into it end with the next growth. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include "base/types.h"

typedef struct {
    uint8_t *data;
    size_t len, cap;
} Buf;

void buf_done(Buf *b);                 /* frees; the Buf is empty again */
void buf_clear(Buf *b);                /* len = 0, memory kept */
uint8_t *buf_extend(Buf *b, size_t n); /* n more bytes, uninitialised; where they begin */
void buf_reserve(Buf *b, size_t n);    /* room for n more bytes */
void buf_drop(Buf *b, size_t n);       /* remove the first n bytes */
void buf_put(Buf *b, const void *p, size_t n);
void buf_puts(Buf *b, const char *z);
void buf_put_str(Buf *b, Str s);
void buf_putc(Buf *b, char c);
void buf_printf(Buf *b, const char *fmt, ...) HR_PRINTF(2, 3);
void buf_vprintf(Buf *b, const char *fmt, va_list ap);
const char *buf_z(Buf *b); /* NUL behind the end (not counted); borrowed */
Str buf_str(const Buf *b); /* borrowed view */

/* Little-endian integers. */
void buf_u8(Buf *b, uint8_t v);
void buf_u16(Buf *b, uint16_t v);
void buf_u32(Buf *b, uint32_t v);
void buf_u64(Buf *b, uint64_t v);

/* A reader over bytes. After a read beyond the end `bad` is set and every further read gives 0:
 * check it once, at the end. */
typedef struct {
    const uint8_t *p, *end;
    bool bad;
} Cursor;

Cursor cursor_of(const void *p, size_t n);
size_t cursor_left(const Cursor *c);
uint8_t cursor_u8(Cursor *c);
uint16_t cursor_u16(Cursor *c);
uint32_t cursor_u32(Cursor *c);
uint64_t cursor_u64(Cursor *c);
const uint8_t *cursor_bytes(Cursor *c, size_t n); /* borrowed; NULL when bad */

/* Little-endian at a place, unaligned. */
uint32_t load_u32(const void *p);
uint64_t load_u64(const void *p);
void store_u32(void *p, uint32_t v);
void store_u64(void *p, uint64_t v);

#endif
