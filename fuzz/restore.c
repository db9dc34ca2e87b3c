/* A snapshot's stream of any bytes: refused, or a state whose figures add up, that is written and
 * read again the same, and that time may pass over. Whatever the pieces. */
#include "core_checks.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run(Core *c, const LogPoint *covers, Str s, size_t piece)
{
    int err = 0;
    for (size_t at = 0; at < s.n && !err; at += piece)
        err = core_restore(c, covers, (Str){s.p + at, MIN(piece, s.n - at)});
    if (!err) err = core_restore(c, covers, (Str){"", 0});
    CHECK(err == 0 || err == ERR_INVALID || err == ERR_UNSUPPORTED);
    return err;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 32 * KIB) return 0;
    Str s = {size ? (const char *)data : "", size};
    CoreLimits limits;
    core_limits_default(&limits);
    LogPoint covers = {.next_seq = 1 << 20};
    if (size >= 21) { /* len, kind, version; shard and epoch as the stream's head has them */
        covers.shard = load_u32(data + 9);
        covers.epoch = load_u64(data + 13);
    }
    covers.holder = 1;
    Core *c = core_new(&limits, 1), *other = core_new(&limits, 1);
    int err = run(c, &covers, s, MAX(size, (size_t)1));
    CHECK(run(other, &covers, s, 7) == err);
    if (!err) {
        check_core(c);
        CHECK(core_hash(c) == core_hash(other));
        check_restores(c);
        int64_t now = 1000 * NS_PER_S;
        covers.time_ns = 0;
        check_observed(c, now);
        check_due(c, &covers, now, 50);
        check_due(c, &covers, now + 86400 * NS_PER_S, 200);
        check_core(c);
    }
    core_free(c);
    core_free(other);
    return 0;
}
