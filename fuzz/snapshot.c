/* A snapshot file of any bytes: it is read whole or refused. The first byte says whether checksums
 * are made to fit. */
#include <string.h>

#include "log/inside.h"

#include "sim/mem_disk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct {
    uint64_t bytes;
    bool ended;
} Got;

static int take(void *ctx, const LogPoint *covers, Str piece)
{
    Got *g = ctx;
    CHECK(!g->ended && covers->next_seq > 0 && piece.n <= 64 * KIB);
    g->bytes += piece.n;
    g->ended = piece.n == 0;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 512 * KIB) return 0;
    uint8_t *bytes = mem_dup(data + 1, size - 1);
    if (data[0] & 1 && size > 128) store_u32(bytes + 124, crc32c(0, bytes, 124)); /* the head's */
    MemDisk *d = mem_disk_new(1);
    mem_disk_put(d, "log/x", bytes, size - 1);
    mem_free(bytes);
    Got got = {0};
    LogPoint covers;
    uint64_t len, bad_at = UINT64_MAX;
    const char *what = NULL;
    int err = snapshot_read(&d->base, "log/x", &(LogReplay){.ctx = &got, .snapshot = take}, &covers,
                            &len, &bad_at, &what);
    CHECK(err == 0 || err == ERR_CORRUPT || err == ERR_UNSUPPORTED);
    if (err == 0) CHECK(got.ended && len == size - 1 && got.bytes < len);
    if (err == ERR_CORRUPT) CHECK(what && bad_at < size && !got.ended);
    disk_free(&d->base);
    return 0;
}
