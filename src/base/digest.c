#include "base/digest.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

struct Sha256Run {
    EVP_MD_CTX *ctx;
};

void sha256(const void *p, size_t n, Sha256 *ret)
{
    unsigned len = 0;
    CHECK(EVP_Digest(p, n, ret->b, &len, EVP_sha256(), NULL) == 1 && len == sizeof ret->b);
}

Sha256Run *sha256_start(void)
{
    Sha256Run *run = mem_new(sizeof *run);
    run->ctx = EVP_MD_CTX_new();
    CHECK(run->ctx && EVP_DigestInit_ex(run->ctx, EVP_sha256(), NULL) == 1);
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
