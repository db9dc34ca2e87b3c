#include "wire/tar.h"

#include <stdio.h>
#include <string.h>

/* Places in a header block. */
enum {
    AT_MODE = 100,
    AT_UID = 108,
    AT_GID = 116,
    AT_SIZE = 124,
    AT_MTIME = 136,
    AT_SUM = 148,
    AT_TYPE = 156,
    AT_LINK = 157,
    AT_MAGIC = 257,
    AT_PREFIX = 345,
};

#define OCTAL_MAX UINT64_C(077777777777) /* 11 digits */
#define PAX_MAX   1024

/* The sum of all bytes, those of the sum itself taken as blanks. */
static uint32_t sum_of(const uint8_t block[TAR_BLOCK])
{
    uint32_t sum = 8 * ' ';
    for (int i = 0; i < TAR_BLOCK; i++)
        if (i < AT_SUM || i >= AT_SUM + 8) sum += block[i];
    return sum;
}

static void put_octal(uint8_t *at, int width, uint64_t v)
{
    at[width - 1] = 0;
    for (int i = width - 2; i >= 0; i--, v >>= 3) at[i] = (uint8_t)('0' + (v & 7));
}

static void put_head(Buf *b, const char *name, char type, uint64_t size, int64_t mtime_s)
{
    uint8_t *block = buf_extend(b, TAR_BLOCK);
    memset(block, 0, TAR_BLOCK);
    size_t n = strlen(name);
    CHECK(n <= TAR_NAME_MAX);
    /* NOLINTNEXTLINE(bugprone-not-null-terminated-result): the block is zeros behind it */
    memcpy(block, name, n);
    put_octal(block + AT_MODE, 8, 0600);
    put_octal(block + AT_UID, 8, 0);
    put_octal(block + AT_GID, 8, 0);
    put_octal(block + AT_SIZE, 12, MIN(size, OCTAL_MAX));
    put_octal(block + AT_MTIME, 12, MIN((uint64_t)MAX(mtime_s, 0), OCTAL_MAX));
    block[AT_TYPE] = (uint8_t)type;
    /* NOLINTNEXTLINE(bugprone-not-null-terminated-result): eight bytes, no string */
    memcpy(block + AT_MAGIC,
           "ustar\0"
           "00",
           8);
    put_octal(block + AT_SUM, 7, sum_of(block));
    block[AT_SUM + 7] = ' ';
}

size_t tar_padding(uint64_t size)
{
    return (size_t)(-size & (TAR_BLOCK - 1));
}

static void put_zeroes(Buf *b, size_t n)
{
    memset(buf_extend(b, n), 0, n);
}

void tar_put_entry(Buf *b, const TarEntry *e)
{
    if (e->size > OCTAL_MAX) {
        /* "LEN size=N\n", where LEN counts itself. */
        char text[64];
        int n = snprintf(text, sizeof text, " size=%llu\n", (unsigned long long)e->size);
        int len = n + 2;
        Buf line = {0};
        buf_printf(&line, "%d%s", len, text);
        CHECK(line.len == (size_t)len);
        put_head(b, "pax", 'x', line.len, e->mtime_s);
        buf_put(b, line.data, line.len);
        put_zeroes(b, tar_padding(line.len));
        buf_done(&line);
    }
    put_head(b, e->name, '0', e->size, e->mtime_s);
}

void tar_put_end(Buf *b)
{
    put_zeroes(b, (size_t)2 * TAR_BLOCK);
}

/* ---- reading ---- */

static bool get_octal(const uint8_t *at, int width, uint64_t *ret)
{
    uint64_t v = 0;
    int i = 0;
    for (; i < width && at[i] >= '0' && at[i] <= '7'; i++) v = v << 3 | (uint64_t)(at[i] - '0');
    if (i == 0 || i > 12) return false;
    for (int k = i; k < width; k++)
        if (at[k] && at[k] != ' ') return false;
    *ret = v;
    return true;
}

static bool is_zero(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i]) return false;
    return true;
}

static const char *read_head(TarReader *r)
{
    const uint8_t *b = r->block;
    uint64_t sum, size, mtime;
    if (memcmp(b + AT_MAGIC,
               "ustar\0"
               "00",
               8) != 0)
        return "a header is not one of ustar";
    if (!get_octal(b + AT_SUM, 8, &sum) || sum != sum_of(b)) return "a header's sum does not fit";
    if (!get_octal(b + AT_SIZE, 12, &size) || !get_octal(b + AT_MTIME, 12, &mtime))
        return "a header's numbers are none";
    if (!memchr(b, 0, TAR_NAME_MAX + 1) || !b[0]) return "a name is too long, or empty";
    if (b[AT_LINK] || b[AT_PREFIX]) return "a header has what a plain file has not";
    r->in_pax = b[AT_TYPE] == 'x';
    if (b[AT_TYPE] != '0' && !r->in_pax) return "an entry is not a plain file";
    if (r->in_pax && (r->pax_size || size > PAX_MAX)) return "an extended header is out of place";
    r->entry = (TarEntry){.size = size, .mtime_s = (int64_t)mtime};
    memcpy(r->entry.name, b, strlen((const char *)b));
    if (!r->in_pax && r->pax_size) {
        if (size != OCTAL_MAX) return "two sizes of an entry do not fit";
        r->entry.size = r->pax_size;
        r->pax_size = 0;
    }
    r->left = r->entry.size;
    r->padding = tar_padding(r->entry.size);
    return NULL;
}

/* One line: "LEN size=N\n". */
static const char *read_pax(TarReader *r)
{
    Str s = buf_str(&r->pax);
    const char *blank = memchr(s.p, ' ', s.n);
    uint64_t len, size;
    if (!blank || parse_u64((Str){s.p, (size_t)(blank - s.p)}, &len) || len != s.n)
        return "an extended header breaks its format";
    Str rest = {blank + 1, s.n - (size_t)(blank + 1 - s.p)};
    if (!str_starts(rest, STR("size=")) || rest.n < 7 || rest.p[rest.n - 1] != '\n' ||
        parse_u64((Str){rest.p + 5, rest.n - 6}, &size) || size <= OCTAL_MAX || size > INT64_MAX)
        return "an extended header says something else than a size";
    r->pax_size = size;
    buf_clear(&r->pax);
    return NULL;
}

static int refuse(TarReader *r, const char *what, const char **ret_what)
{
    *ret_what = what;
    r->err = ERR_INVALID;
    return r->err;
}

static int whole(TarReader *r, const TarHandler *h, const char **ret_what)
{
    const char *what = r->in_pax ? read_pax(r) : NULL;
    if (what) return refuse(r, what, ret_what);
    return r->in_pax ? 0 : (r->err = h->whole(h->ctx));
}

static int take_block(TarReader *r, const TarHandler *h, const char **ret_what)
{
    if (is_zero(r->block, TAR_BLOCK)) {
        r->zeroes++;
        return 0;
    }
    if (r->zeroes) return refuse(r, "something follows the end", ret_what);
    const char *what = read_head(r);
    if (what) return refuse(r, what, ret_what);
    if (!r->in_pax) r->err = h->entry(h->ctx, &r->entry);
    if (!r->err && !r->left) return whole(r, h, ret_what);
    return r->err;
}

int tar_feed(TarReader *r, Str s, const TarHandler *h, const char **ret_what)
{
    while (s.n && !r->err) {
        size_t n;
        if (r->left) {
            n = (size_t)MIN(r->left, (uint64_t)s.n);
            if (r->in_pax)
                buf_put(&r->pax, s.p, n);
            else
                r->err = h->data(h->ctx, (Str){s.p, n});
            r->left -= n;
            if (!r->left && !r->err) r->err = whole(r, h, ret_what);
        } else if (r->padding) {
            n = (size_t)MIN(r->padding, (uint64_t)s.n);
            if (!is_zero((const uint8_t *)s.p, n))
                return refuse(r, "there is something between two entries", ret_what);
            r->padding -= n;
        } else {
            n = MIN(TAR_BLOCK - r->block_len, s.n);
            memcpy(r->block + r->block_len, s.p, n);
            r->block_len += n;
            if (r->block_len == TAR_BLOCK) {
                r->block_len = 0;
                r->err = take_block(r, h, ret_what);
            }
        }
        s.p += n;
        s.n -= n;
    }
    return r->err;
}

bool tar_ended(const TarReader *r)
{
    return r->zeroes >= 2 && !r->block_len && !r->err;
}

void tar_done(TarReader *r)
{
    buf_done(&r->pax);
    *r = (TarReader){0};
}
