/* A log whose last segment holds any bytes: it is opened or refused with a reason; what is opened
 * goes on, and is the same when opened again. The first byte says which checksums are made to fit,
 * so that the bytes behind them are read. */
#include "log/segment.h"

#include <string.h>

#include "sim/mem_disk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FIX_HEAD = 1, FIX_GROUPS = 2, FIX_ENTRIES = 4 };

#define GENERATION (UINT64_C(5) << 32)

static uint64_t fix_entries(uint8_t *p, uint64_t at, uint64_t end)
{
    while (end - at > ENTRY_HEAD_LEN) {
        uint32_t room = (uint32_t)(end - at - ENTRY_HEAD_LEN), len = load_u32(p + at);
        if (len > room) len %= room + 1;
        store_u32(p + at, len);
        store_u32(p + at + 4, entry_crc(GENERATION, at, p + at + ENTRY_HEAD_LEN, len));
        at += ENTRY_HEAD_LEN + len;
    }
    return at;
}

static void fix(uint8_t *p, size_t size, unsigned what)
{
    if (what & FIX_HEAD && size >= SEGMENT_HEAD_LEN)
        segment_head_put(
            p, &(SegmentHead){.number = 1, .generation = GENERATION, .start = {.next_seq = 1}});
    for (uint64_t at = SEGMENT_HEAD_LEN; what & FIX_GROUPS && at + SECTOR <= size;) {
        GroupHead h = {.generation = GENERATION,
                       .position = at,
                       .synced_generation = GENERATION,
                       .synced_position = at,
                       .frames = load_u32(p + at + 4) % 8,
                       .body_len = load_u32(p + at + 40) % 1500};
        uint64_t end = at + GROUP_HEAD_LEN + h.body_len;
        if (end > size || h.frames * ENTRY_HEAD_LEN > h.body_len) return;
        group_head_put(p + at, &h);
        if (what & FIX_ENTRIES) (void)fix_entries(p, at + GROUP_HEAD_LEN, end);
        at += group_len(h.body_len);
    }
}

static int open_and_replay(Disk *d, Log **ret, LogPoint *at)
{
    static const LogOptions options = {.segment_bytes = 4 * KIB, .seed = 1};
    Buf why = {0};
    Log *log = NULL;
    int err = log_open(d, &options, &log, &why);
    if (!err) err = log_replay(log, &(LogReplay){0}, at, &why);
    CHECK(!err || why.len > 0);
    buf_done(&why);
    if (err)
        log_close(log);
    else
        *ret = log;
    return err;
}

static void claim(Log *log, LogPoint *at)
{
    FrameBuilder b = {0};
    Buf frame = {0};
    uint64_t seq;
    if (at->epoch < UINT64_MAX && at->next_seq < UINT64_MAX / 2 && at->time_ns < INT64_MAX) {
        at->epoch++;
        frame_begin_record(&b, FRAME_RECORD_CLAIM, 1);
        frame_end_record(&b);
        frame_seal(&b, at->time_ns, at, &frame);
        CHECK(log_append(log, buf_str(&frame), at->next_seq - 1, true) == 0);
        CHECK(log_commit(log, &seq) == 0 && seq == at->next_seq - 1);
    }
    frame_done(&b);
    buf_done(&frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 64 * KIB) return 0;
    say_setup(SAY_ERROR, SAY_TEXT, "fuzz");
    MemDisk *d = mem_disk_new(1);
    uint8_t *bytes = mem_dup(data + 1, size - 1);
    fix(bytes, size - 1, data[0]);
    mem_disk_put(d, "format", "headrace-data 1\n", 16);
    mem_disk_put(d, "log/0000000001.seg", bytes, size - 1);
    mem_free(bytes);

    Log *log;
    LogPoint at, again;
    int scan = log_scan(&d->base, &(LogScan){0});
    CHECK(scan == 0 || scan == ERR_CORRUPT);
    int err = open_and_replay(&d->base, &log, &at);
    CHECK(err == 0 || err == ERR_CORRUPT || err == ERR_UNSUPPORTED || err == ERR_INVALID);
    if (err == 0) {
        claim(log, &at);
        log_close(log);
        CHECK(open_and_replay(&d->base, &log, &again) == 0);
        CHECK(again.next_seq == at.next_seq && again.chain == at.chain && again.epoch == at.epoch);
        log_close(log);
    }
    disk_free(&d->base);
    return 0;
}
