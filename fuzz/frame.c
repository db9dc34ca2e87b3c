/* A frame from any bytes: it is read or refused; what is read walks, chains and counts without
 * surprise. */
#include "wire/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Frame f;
    size_t len = 0;
    int err = frame_read((Str){(const char *)data, size}, &f, &len);
    if (err) {
        CHECK(err == ERR_INVALID || err == ERR_UNSUPPORTED || err == ERR_LIMIT);
        CHECK(len == 0);
        return 0;
    }
    CHECK(len <= size && len == FRAME_HEAD_LEN + f.meta.n + f.payload.n);
    size_t at = 0;
    uint32_t index = 0;
    Record r;
    int got;
    while ((got = frame_next_record(&f, &at, &index, &r)) == 1) {
        CHECK(r.body.p >= f.meta.p && r.body.p + r.body.n <= f.meta.p + f.meta.n);
        CHECK(index <= f.records && r.seq == f.seq + index - 1);
    }
    CHECK(got == 0 || got == ERR_INVALID);
    CHECK(got != 0 || index == f.records);
    LogPoint here = {.shard = f.shard,
                     .epoch = f.epoch,
                     .holder = f.holder,
                     .next_seq = f.seq,
                     .chain = f.prev,
                     .time_ns = f.time_ns};
    if (frame_counts(&f, false, data, len, &here)) {
        CHECK(here.next_seq == f.seq + f.records && here.next_seq > f.seq);
        CHECK(here.chain == frame_chain(data, len));
        CHECK(!frame_counts(&f, frame_is_claim(&f), data, len, &here)); /* never twice */
    }
    return 0;
}
