/* Any bytes as an archive: read or refused, with the same outcome in pieces of any size, and never
 * more data than an entry says. */
#include "wire/tar.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct {
    uint64_t left, entries, bytes;
    bool open;
} Seen;

static int on_entry(void *ctx, const TarEntry *e)
{
    Seen *s = ctx;
    CHECK(!s->open && e->name[0] && strlen(e->name) <= TAR_NAME_MAX);
    s->open = true;
    s->left = e->size;
    s->entries++;
    return 0;
}

static int on_data(void *ctx, Str piece)
{
    Seen *s = ctx;
    CHECK(s->open && piece.n && piece.n <= s->left);
    s->left -= piece.n;
    s->bytes += piece.n;
    return 0;
}

static int on_whole(void *ctx)
{
    Seen *s = ctx;
    CHECK(s->open && !s->left);
    s->open = false;
    return 0;
}

static int run(const uint8_t *data, size_t size, size_t piece, Seen *s, bool *ret_ended)
{
    TarReader r = {0};
    TarHandler h = {s, on_entry, on_data, on_whole};
    const char *what = NULL;
    int err = 0;
    for (size_t at = 0; at < size && !err; at += piece)
        err = tar_feed(&r, (Str){(const char *)data + at, MIN(piece, size - at)}, &h, &what);
    CHECK(err == 0 || (err == ERR_INVALID && what));
    *ret_ended = tar_ended(&r);
    CHECK(!*ret_ended || !s->open);
    tar_done(&r);
    return err;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Seen a = {0}, b = {0};
    bool a_ended, b_ended;
    int err = run(data, size, size ? size : 1, &a, &a_ended);
    CHECK(run(data, size, 131, &b, &b_ended) == err);
    CHECK(a_ended == b_ended && a.entries == b.entries);
    CHECK(err || a.bytes == b.bytes);
    return 0;
}
