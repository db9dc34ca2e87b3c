/* frame.c: frames as bytes, the chain, and which frames count. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "wire/frame.h"

#define CLAIM FRAME_RECORD_CLAIM

static LogPoint claimed(void)
{
    return (LogPoint){
        .shard = 3, .epoch = 2, .holder = 99, .next_seq = 10, .chain = 7, .time_ns = 1000};
}

static bool same(const LogPoint *a, const LogPoint *b)
{
    return a->shard == b->shard && a->epoch == b->epoch && a->holder == b->holder &&
           a->next_seq == b->next_seq && a->chain == b->chain && a->time_ns == b->time_ns;
}

static void make(FrameBuilder *b, LogPoint *at, Buf *out)
{
    frame_reset(b);
    frame_begin_record(b, 5, 1);
    buf_puts(&b->meta, "first");
    frame_end_record(b);
    frame_begin_record(b, 6, 2);
    frame_end_record(b);
    buf_puts(&b->payload, "input bytes");
    frame_seal(b, at->time_ns + 5, at, out);
}

static int read_back(const Buf *bytes, Frame *f)
{
    size_t len;
    int err = frame_read(buf_str(bytes), f, &len);
    if (!err) assert_true(len <= bytes->len);
    return err;
}

static void reads_what_was_written(void **state)
{
    (void)state;
    FrameBuilder b = {0};
    Buf out = {0};
    buf_puts(&out, "before"); /* frames are appended */
    LogPoint at = claimed(), behind = at;
    make(&b, &behind, &out);
    buf_drop(&out, 6);
    assert_int_equal(behind.next_seq, 12);
    assert_int_equal(behind.time_ns, 1005);

    Frame f;
    size_t len;
    buf_puts(&out, "what follows");
    assert_int_equal(frame_read(buf_str(&out), &f, &len), 0);
    assert_int_equal(len, out.len - 12);
    assert_int_equal(f.version, FRAME_VERSION);
    assert_int_equal(f.records, 2);
    assert_int_equal(f.shard, 3);
    assert_int_equal(f.epoch, 2);
    assert_int_equal(f.holder, 99);
    assert_int_equal(f.seq, 10);
    assert_int_equal(f.prev, 7);
    assert_int_equal(f.time_ns, 1005);
    assert_true(str_eqz(f.payload, "input bytes"));
    assert_false(frame_is_claim(&f));

    size_t place = 0;
    uint32_t index = 0;
    Record r;
    assert_int_equal(frame_next_record(&f, &place, &index, &r), 1);
    assert_int_equal(r.type, 5);
    assert_int_equal(r.seq, 10);
    assert_true(str_eqz(r.body, "first"));
    assert_int_equal(frame_next_record(&f, &place, &index, &r), 1);
    assert_int_equal(r.type, 6);
    assert_int_equal(r.version, 2);
    assert_int_equal(r.seq, 11);
    assert_int_equal(r.body.n, 0);
    assert_int_equal(frame_next_record(&f, &place, &index, &r), 0);

    LogPoint walk = at;
    assert_true(frame_counts(&f, false, out.data, len, &walk));
    assert_true(same(&walk, &behind));
    assert_false(frame_counts(&f, false, out.data, len, &walk)); /* once */
    buf_done(&out);
    frame_done(&b);
}

static void every_short_or_odd_frame_is_refused(void **state)
{
    (void)state;
    FrameBuilder b = {0};
    Buf out = {0};
    LogPoint at = claimed();
    make(&b, &at, &out);
    Frame f;
    size_t len;
    for (size_t n = 0; n < out.len; n++)
        assert_int_equal(frame_read((Str){(const char *)out.data, n}, &f, &len), ERR_INVALID);
    const struct {
        size_t at;
        uint8_t value;
        int err;
    } odd[] = {
        {0, 0, ERR_INVALID},   {0, 2, ERR_UNSUPPORTED}, {1, 1, ERR_UNSUPPORTED},
        {2, 2, ERR_INVALID},   {4, 0, ERR_INVALID},     {5, 1, ERR_INVALID},
        {11, 1, ERR_LIMIT},    {15, 255, ERR_LIMIT},    {20, 1, ERR_INVALID},
        {8, 255, ERR_INVALID},
    };
    for (size_t i = 0; i < ARRAY_LEN(odd); i++) {
        uint8_t was = out.data[odd[i].at];
        out.data[odd[i].at] = odd[i].value;
        assert_int_equal(read_back(&out, &f), odd[i].err);
        out.data[odd[i].at] = was;
    }
    /* Records that do not fill the meta exactly. */
    for (int change = -5; change <= 5; change++) {
        if (change == 0) continue;
        store_u32(out.data + FRAME_HEAD_LEN + 4, (uint32_t)(5 + change));
        assert_int_equal(read_back(&out, &f), 0);
        size_t place = 0;
        uint32_t index = 0;
        Record r;
        int got;
        while ((got = frame_next_record(&f, &place, &index, &r)) == 1) {
        }
        assert_int_equal(got, ERR_INVALID);
    }
    buf_done(&out);
    frame_done(&b);
}

static void counts_only_at_its_place(void **state)
{
    (void)state;
    FrameBuilder b = {0};
    Buf out = {0};
    LogPoint at = claimed(), behind = at;
    make(&b, &behind, &out);
    Frame f;
    assert_int_equal(read_back(&out, &f), 0);
    LogPoint wrong[8];
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) wrong[i] = at;
    wrong[0].shard++;
    wrong[1].epoch++;
    wrong[2].epoch--;
    wrong[3].holder++;
    wrong[4].next_seq++;
    wrong[5].next_seq--;
    wrong[6].chain++;
    wrong[7].time_ns = 2000;
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        LogPoint before = wrong[i];
        assert_false(frame_counts(&f, false, out.data, out.len, &wrong[i]));
        assert_true(same(&before, &wrong[i])); /* untouched */
    }
    buf_done(&out);
    frame_done(&b);
}

static void a_claim_needs_a_higher_epoch(void **state)
{
    (void)state;
    FrameBuilder b = {0};
    Buf out = {0};
    Frame f;
    LogPoint fresh = {.shard = 3, .next_seq = 1};

    /* Nothing counts before the first claim. */
    LogPoint at = fresh;
    make(&b, &at, &out);
    assert_int_equal(read_back(&out, &f), 0);
    at = fresh;
    assert_false(frame_counts(&f, false, out.data, out.len, &at));

    static const struct {
        uint64_t epoch;
        bool counts;
    } cases[] = {{1, false}, {2, false}, {3, true}, {900, true}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        LogPoint place = claimed();
        place.epoch = cases[i].epoch;
        place.holder = 1234;
        frame_reset(&b);
        frame_begin_record(&b, CLAIM, 1);
        buf_puts(&b.meta, "127.0.0.1:8080");
        frame_end_record(&b);
        buf_clear(&out);
        frame_seal(&b, 1000, &place, &out);
        assert_int_equal(read_back(&out, &f), 0);
        assert_true(frame_is_claim(&f));
        at = claimed();
        assert_int_equal(frame_counts(&f, true, out.data, out.len, &at), cases[i].counts);
        assert_int_equal(at.holder, cases[i].counts ? 1234 : 99);
        if (cases[i].counts) assert_true(same(&at, &place));
    }
    buf_done(&out);
    frame_done(&b);
}

static void the_chain_covers_all_but_the_payload(void **state)
{
    (void)state;
    FrameBuilder b = {0};
    Buf out = {0};
    LogPoint at = claimed();
    make(&b, &at, &out);
    uint64_t chain = frame_chain(out.data, out.len);
    assert_true(chain == at.chain);
    for (size_t i = 0; i < out.len - strlen("input bytes"); i++) {
        if (i >= 8 && i < 12) continue; /* the length itself */
        out.data[i] ^= 0x40;
        if (i == 2 || i == 3)
            assert_true(frame_chain(out.data, out.len) == chain); /* flags */
        else
            assert_true(frame_chain(out.data, out.len) != chain);
        out.data[i] ^= 0x40;
    }
    /* Erasing a payload changes neither the chain nor whether the frame counts. */
    memset(out.data + out.len - 11, 0, 11);
    out.data[2] = FRAME_ERASED;
    Frame f;
    LogPoint walk = claimed();
    assert_int_equal(read_back(&out, &f), 0);
    assert_true(frame_counts(&f, false, out.data, out.len, &walk));
    assert_true(walk.chain == chain);
    buf_done(&out);
    frame_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_was_written),
        cmocka_unit_test(every_short_or_odd_frame_is_refused),
        cmocka_unit_test(counts_only_at_its_place),
        cmocka_unit_test(a_claim_needs_a_higher_epoch),
        cmocka_unit_test(the_chain_covers_all_but_the_payload),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
