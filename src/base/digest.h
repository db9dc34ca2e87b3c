/* digest.h: SHA-256 (identity of bodies and files; OpenSSL's), and a fast 128-bit digest for
 * payloads and the log's hash chain (XXH3: finds damage and mix-ups, is no defence against a
 * forger). */
#ifndef BASE_DIGEST_H
#define BASE_DIGEST_H

#include "base/types.h"

typedef struct {
    uint8_t b[32];
} Sha256;

typedef struct {
    uint64_t lo, hi;
} Digest128;

typedef struct Sha256Run Sha256Run; /* an incremental computation */

void sha256(const void *p, size_t n, Sha256 *ret);
Sha256Run *sha256_start(void);
void sha256_add(Sha256Run *run, const void *p, size_t n);
void sha256_end(Sha256Run *run, Sha256 *ret); /* frees run; ret may be NULL: just drop it */
void sha256_hex(const Sha256 *d, char ret[65]);
int sha256_from_hex(Str hex, Sha256 *ret) HR_MUST_CHECK; /* ERR_INVALID */
bool bytes_eq_const_time(const void *a, const void *b, size_t n);

Digest128 digest128(const void *p, size_t n);
uint64_t chain64(uint64_t prev, const void *p, size_t n); /* next value of the hash chain */
/* SipHash-2-4 (Aumasson and Bernstein, 2012): a keyed check that cannot be guessed without the key.
 */
uint64_t siphash(const uint8_t key[16], const void *p, size_t n);
static inline bool digest128_eq(Digest128 a, Digest128 b)
{
    return a.lo == b.lo && a.hi == b.hi;
}

#endif
