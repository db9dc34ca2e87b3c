/* text.h: numbers, times and names as text, checked. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include "base/buf.h"
#include "base/types.h"

/* Whole decimal numbers: digits only (and one leading '-' for i64), no blanks. ERR_INVALID,
 * ERR_LIMIT on overflow. */
int parse_u64(Str s, uint64_t *ret) HR_MUST_CHECK;
int parse_i64(Str s, int64_t *ret) HR_MUST_CHECK;

/* RFC 3339 in UTC with milliseconds: "2026-11-22T14:47:50.123Z". */
void buf_put_time(Buf *b, int64_t unix_ns);
int parse_time(Str s, int64_t *ret_unix_ns)
    HR_MUST_CHECK; /* also offsets and 0 to 9 decimals; ERR_INVALID */

/* A duration for people: "340 ms", "1.2 s", "3 min 5 s", "2 h 10 min". */
void buf_put_duration(Buf *b, int64_t ns);
/* Bytes for people: "512 B", "31.4 MiB". */
void buf_put_size(Buf *b, uint64_t bytes);

/* Crockford's base 32 of 16 bytes: 26 characters, as a ULID is written. Reading accepts lower case.
 */
void base32_put(char ret[26], const uint8_t bytes[16]);
int base32_get(Str s, uint8_t ret_bytes[16]) HR_MUST_CHECK; /* ERR_INVALID */

/* The known name that is nearest to `got` by edit distance (at most a third of its length away), or
 * NULL: for "unknown field 'modle'; did you mean 'model'?". names ends with NULL. */
const char *nearest_name(Str got, const char *const *names);

bool utf8_valid(const void *p, size_t n);

#endif
