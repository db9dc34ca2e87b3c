#include "base/text.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

int parse_u64(Str s, uint64_t *ret)
{
    if (s.n == 0) return ERR_INVALID;
    uint64_t v = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9') return ERR_INVALID;
        if (__builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(s.p[i] - '0'), &v))
            return ERR_LIMIT;
    }
    *ret = v;
    return 0;
}

int parse_i64(Str s, int64_t *ret)
{
    bool negative = s.n && s.p[0] == '-';
    uint64_t v;
    int err = parse_u64(negative ? (Str){s.p + 1, s.n - 1} : s, &v);
    if (err) return err;
    if (v > (uint64_t)INT64_MAX) return ERR_LIMIT;
    *ret = negative ? -(int64_t)v : (int64_t)v;
    return 0;
}

void buf_put_time(Buf *b, int64_t unix_ns)
{
    time_t s = (time_t)(unix_ns / NS_PER_S);
    struct tm tm;
    CHECK(gmtime_r(&s, &tm));
    buf_printf(b, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", tm.tm_year + 1900, tm.tm_mon + 1,
               tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (int)(unix_ns % NS_PER_S / NS_PER_MS));
}

static int two_digits(const char *p, int low, int high)
{
    if (p[0] < '0' || p[0] > '9' || p[1] < '0' || p[1] > '9') return -1;
    int v = (p[0] - '0') * 10 + p[1] - '0';
    return v < low || v > high ? -1 : v;
}

int parse_time(Str s, int64_t *ret_unix_ns)
{
    /* YYYY-MM-DDTHH:MM:SS[.fraction](Z|+HH:MM|-HH:MM) */
    char z[40];
    if (s.n < 20 || s.n >= sizeof z) return ERR_INVALID;
    memcpy(z, s.p, s.n);
    z[s.n] = 0;
    int century = two_digits(z, 19, 99), year = two_digits(z + 2, 0, 99),
        month = two_digits(z + 5, 1, 12), day = two_digits(z + 8, 1, 31),
        hour = two_digits(z + 11, 0, 23), minute = two_digits(z + 14, 0, 59),
        second = two_digits(z + 17, 0, 60);
    if (century < 0 || year < 0 || month < 0 || day < 0 || hour < 0 || minute < 0 || second < 0)
        return ERR_INVALID;
    if (z[4] != '-' || z[7] != '-' || (z[10] != 'T' && z[10] != 't') || z[13] != ':' ||
        z[16] != ':')
        return ERR_INVALID;
    const char *p = z + 19;
    int64_t frac = 0, unit = NS_PER_S;
    if (*p == '.') {
        const char *first = ++p;
        for (; *p >= '0' && *p <= '9'; p++) {
            unit /= 10;
            frac += (*p - '0') * unit;
        }
        if (p == first || p - first > 9) return ERR_INVALID;
    }
    int64_t offset = 0;
    if (*p == '+' || *p == '-') {
        if (strlen(p) != 6 || p[3] != ':') return ERR_INVALID;
        int oh = two_digits(p + 1, 0, 23), om = two_digits(p + 4, 0, 59);
        if (oh < 0 || om < 0) return ERR_INVALID;
        offset = (oh * 60 + om) * 60 * (*p == '-' ? -1 : 1);
    } else if ((*p != 'Z' && *p != 'z') || p[1]) {
        return ERR_INVALID;
    }
    struct tm tm = {.tm_year = century * 100 + year - 1900,
                    .tm_mon = month - 1,
                    .tm_mday = day,
                    .tm_hour = hour,
                    .tm_min = minute,
                    .tm_sec = second};
    int mday = tm.tm_mday;
    time_t t = timegm(&tm);
    if (tm.tm_mday != mday && second != 60) return ERR_INVALID; /* the 31st of February */
    int64_t ns;
    if (__builtin_mul_overflow((int64_t)t - offset, NS_PER_S, &ns) ||
        __builtin_add_overflow(ns, frac, &ns))
        return ERR_INVALID; /* 64 bits of nanoseconds go from 1677 to 2262 */
    *ret_unix_ns = ns;
    return 0;
}

void buf_put_duration(Buf *b, int64_t ns)
{
    if (ns < 0) {
        buf_putc(b, '-');
        ns = ns == INT64_MIN ? INT64_MAX : -ns;
    }
    int64_t s = ns / NS_PER_S;
    if (ns < NS_PER_MS)
        buf_printf(b, "%.2f ms", (double)ns / 1e6);
    else if (ns < 10 * NS_PER_MS)
        buf_printf(b, "%.1f ms", (double)ns / 1e6);
    else if (ns < NS_PER_S)
        buf_printf(b, "%d ms", (int)(ns / NS_PER_MS));
    else if (s < 60)
        buf_printf(b, "%.1f s", (double)ns / 1e9);
    else if (s < 3600)
        buf_printf(b, "%d min %d s", (int)(s / 60), (int)(s % 60));
    else if (s < 86400)
        buf_printf(b, "%d h %d min", (int)(s / 3600), (int)(s % 3600 / 60));
    else
        buf_printf(b, "%lld d %d h", (long long)(s / 86400), (int)(s % 86400 / 3600));
}

void buf_put_size(Buf *b, uint64_t bytes)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    if (bytes < 1024) {
        buf_printf(b, "%u B", (unsigned)bytes);
        return;
    }
    double v = (double)bytes / 1024;
    size_t u = 0;
    while (v >= 1024 && u + 1 < ARRAY_LEN(units)) {
        v /= 1024;
        u++;
    }
    buf_printf(b, v < 10 ? "%.1f %s" : "%.0f %s", v, units[u]);
}

static const char crockford[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/* 128 bits in 26 characters of 5: the first holds only the top 3. */
void base32_put(char ret[26], const uint8_t bytes[16])
{
    unsigned __int128 v = 0;
    for (int i = 0; i < 16; i++) v = v << 8 | bytes[i];
    for (int i = 25; i >= 0; i--, v >>= 5) ret[i] = crockford[v & 31];
}

static const char crockford_values[256] = {
    ['0'] = 1,  ['1'] = 2,  ['2'] = 3,  ['3'] = 4,  ['4'] = 5,  ['5'] = 6,  ['6'] = 7,  ['7'] = 8,
    ['8'] = 9,  ['9'] = 10, ['A'] = 11, ['B'] = 12, ['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16,
    ['G'] = 17, ['H'] = 18, ['J'] = 19, ['K'] = 20, ['M'] = 21, ['N'] = 22, ['P'] = 23, ['Q'] = 24,
    ['R'] = 25, ['S'] = 26, ['T'] = 27, ['V'] = 28, ['W'] = 29, ['X'] = 30, ['Y'] = 31, ['Z'] = 32,
    ['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16, ['g'] = 17, ['h'] = 18,
    ['j'] = 19, ['k'] = 20, ['m'] = 21, ['n'] = 22, ['p'] = 23, ['q'] = 24, ['r'] = 25, ['s'] = 26,
    ['t'] = 27, ['v'] = 28, ['w'] = 29, ['x'] = 30, ['y'] = 31, ['z'] = 32,
}; /* and 1; 0: none of them */

int base32_get(Str s, uint8_t ret_bytes[16])
{
    unsigned __int128 v = 0;
    if (s.n != 26) return ERR_INVALID;
    for (int i = 0; i < 26; i++) {
        int one = crockford_values[(uint8_t)s.p[i]];
        if (!one || (i == 0 && one > 8)) return ERR_INVALID;
        v = v << 5 | (unsigned)(one - 1);
    }
    for (int i = 15; i >= 0; i--, v >>= 8) ret_bytes[i] = (uint8_t)v;
    return 0;
}

/* Insertions, deletions, changes and swaps of neighbours (optimal string alignment). */
static size_t edit_distance(Str a, const char *b)
{
    size_t rows[3][65], n = strlen(b);
    if (a.n > 64 || n > 64) return SIZE_MAX;
    for (size_t j = 0; j <= n; j++) rows[0][j] = j;
    for (size_t i = 1; i <= a.n; i++) {
        size_t *row = rows[i % 3], *last = rows[(i - 1) % 3], *before = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t best = MIN(last[j], row[j - 1]) + 1;
            best = MIN(best, last[j - 1] + (a.p[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a.p[i - 1] == b[j - 2] && a.p[i - 2] == b[j - 1])
                best = MIN(best, before[j - 2] + 1);
            row[j] = best;
        }
    }
    return rows[a.n % 3][n];
}

const char *nearest_name(Str got, const char *const *names)
{
    const char *best = NULL;
    size_t best_distance = MAX(got.n / 3, 1) + 1;
    for (; *names; names++) {
        size_t d = edit_distance(got, *names);
        if (d < best_distance) {
            best_distance = d;
            best = *names;
        }
    }
    return best;
}

bool utf8_valid(const void *data, size_t n)
{
    if (n == 0) return true; /* data may be NULL */
    const uint8_t *p = data, *end = p + n;
    while (p < end) {
        if (*p < 0x80) {
            p++;
            continue;
        }
        size_t more = *p >= 0xf0 ? 3 : *p >= 0xe0 ? 2 : 1;
        if (*p < 0xc2 || *p > 0xf4 || (size_t)(end - p) <= more) return false;
        uint8_t low = 0x80,
                high = 0xbf; /* of the second byte: no overlong forms, no surrogates, ≤ U+10FFFF */
        if (*p == 0xe0) low = 0xa0;
        if (*p == 0xed) high = 0x9f;
        if (*p == 0xf0) low = 0x90;
        if (*p == 0xf4) high = 0x8f;
        if (p[1] < low || p[1] > high) return false;
        for (size_t k = 2; k <= more; k++)
            if ((p[k] & 0xc0) != 0x80) return false;
        p += more + 1;
    }
    return true;
}
