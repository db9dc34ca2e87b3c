#include "base/digest.h"

#include <pthread.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

struct Sha256Run {
    EVP_MD_CTX *ctx;
};

/* Found once: EVP_sha256() would be looked up at every use. Nothing fails here but for memory. */
static const EVP_MD *method;

static void find_method(void)
{
    method = EVP_MD_fetch(NULL, "SHA256", NULL);
    if (!method) mem_failed(0);
}

static const EVP_MD *sha256_method(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    CHECK(pthread_once(&once, find_method) == 0);
    return method;
}

void sha256(const void *p, size_t n, Sha256 *ret)
{
    unsigned len = 0;
    if (EVP_Digest(p, n, ret->b, &len, sha256_method(), NULL) != 1) mem_failed(n);
    CHECK(len == sizeof ret->b);
}

Sha256Run *sha256_start(void)
{
    Sha256Run *run = mem_new(sizeof *run);
    run->ctx = EVP_MD_CTX_new();
    if (!run->ctx || EVP_DigestInit_ex(run->ctx, sha256_method(), NULL) != 1) mem_failed(0);
    return run;
}

void sha256_add(Sha256Run *run, const void *p, size_t n)
{
    CHECK(EVP_DigestUpdate(run->ctx, p, n) == 1);
}

void sha256_end(Sha256Run *run, Sha256 *ret)
{
    if (!run) return;
    unsigned len = 0;
    if (ret) CHECK(EVP_DigestFinal_ex(run->ctx, ret->b, &len) == 1 && len == sizeof ret->b);
    EVP_MD_CTX_free(run->ctx);
    mem_free(run);
}

void sha256_hex(const Sha256 *d, char ret[65])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < sizeof d->b; i++) {
        ret[2 * i] = digits[d->b[i] >> 4];
        ret[2 * i + 1] = digits[d->b[i] & 15];
    }
    ret[64] = 0;
}

static int nibble(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

int sha256_from_hex(Str hex, Sha256 *ret)
{
    Sha256 d;
    if (hex.n != 64) return ERR_INVALID;
    for (size_t i = 0; i < sizeof d.b; i++) {
        int hi = nibble(hex.p[2 * i]), lo = nibble(hex.p[2 * i + 1]);
        if (hi < 0 || lo < 0) return ERR_INVALID;
        d.b[i] = (uint8_t)(hi << 4 | lo);
    }
    *ret = d;
    return 0;
}

bool bytes_eq_const_time(const void *a, const void *b, size_t n)
{
    return CRYPTO_memcmp(a, b, n) == 0;
}

Digest128 digest128(const void *p, size_t n)
{
    XXH128_hash_t h = XXH3_128bits(p, n);
    return (Digest128){h.low64, h.high64};
}

uint64_t chain64(uint64_t prev, const void *p, size_t n)
{
    return XXH3_64bits_withSeed(p, n, prev);
}

static uint64_t rotate(uint64_t v, int k)
{
    return v << k | v >> (64 - k);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1], v[2] += v[3];
    v[1] = rotate(v[1], 13) ^ v[0], v[3] = rotate(v[3], 16) ^ v[2];
    v[0] = rotate(v[0], 32);
    v[2] += v[1], v[0] += v[3];
    v[1] = rotate(v[1], 17) ^ v[2], v[3] = rotate(v[3], 21) ^ v[0];
    v[2] = rotate(v[2], 32);
}

static void sip_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    sip_round(v);
    sip_round(v);
    v[0] ^= word;
}

uint64_t siphash(const uint8_t key[16], const void *p, size_t n)
{
    uint64_t k0, k1, word, last = (uint64_t)n << 56;
    memcpy(&k0, key, 8);
    memcpy(&k1, key + 8, 8);
    uint64_t v[4] = {k0 ^ UINT64_C(0x736f6d6570736575), k1 ^ UINT64_C(0x646f72616e646f6d),
                     k0 ^ UINT64_C(0x6c7967656e657261), k1 ^ UINT64_C(0x7465646279746573)};
    const uint8_t *b = p;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        memcpy(&word, b + i, 8);
        sip_word(v, word);
    }
    for (size_t k = 0; i + k < n; k++) last |= (uint64_t)b[i + k] << (8 * k);
    sip_word(v, last);
    v[2] ^= 0xff;
    for (int k = 0; k < 4; k++) sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}
