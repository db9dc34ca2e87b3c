/* log_faults.c: a disk that fails at the n-th call, for every n, and bytes that are wrong although
 * every checksum fits: nothing crashes, everything is told, and what a start refuses for damage
 * `headrace log verify` finds. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "log/inside.h"
#include "log_model.h"

#define SEGMENT (4 * KIB)

static const LogOptions options = {.shard = 5, .segment_bytes = SEGMENT, .seed = 3};

/* A log of several segments with two snapshots and a tail behind them. */
static MemDisk *make_log(Model *m, int snapshots)
{
    MemDisk *d = mem_disk_new(7);
    Log *log;
    model_init(m, 21, SEGMENT);
    MUST(model_open(m, &d->base, &log, NULL) == 0 && model_claim(m, log) == 0);
    for (int i = 0; i < 60; i++) {
        int err = model_append(m, log, 300, false);
        if (err == ERR_AGAIN) {
            MUST(model_commit(m, log) == 0);
            err = model_append(m, log, 300, false);
        }
        MUST(err == 0);
        if (i % 3 == 2) MUST(model_commit(m, log) == 0);
        if (snapshots && (i == 25 || (i == 45 && snapshots > 1)))
            MUST(model_snapshot(m, log, 70000) == 0);
    }
    MUST(model_commit(m, log) == 0 && model_commit(m, log) == 0);
    log_close(log);
    return d;
}

/* ---- every way to read a log ---- */

typedef struct {
    int items, frames, faults, acknowledged;
} Told;

static void on_item(void *ctx, const char *file, uint64_t offset, const char *what,
                    const Frame *frame)
{
    Told *t = ctx;
    (void)offset;
    MUST(file[0] && what[0]);
    t->items++;
    t->frames += frame != NULL;
}

static void on_fault(void *ctx, const char *file, uint64_t offset, bool acknowledged,
                     const char *what)
{
    Told *t = ctx;
    (void)offset;
    MUST(file[0] && what[0]);
    t->faults++;
    t->acknowledged += acknowledged;
}

static int take_frame(void *ctx, const Frame *f, Str bytes)
{
    (void)bytes;
    *(uint64_t *)ctx += f->records;
    return 0;
}

static int take_snapshot(void *ctx, const LogPoint *covers, Str piece)
{
    (void)ctx;
    (void)piece;
    MUST(covers->next_seq > 0);
    return 0;
}

static int scan(MemDisk *d, Told *ret)
{
    *ret = (Told){0};
    int err = log_scan(&d->base, &(LogScan){ret, on_item, on_fault});
    MUST((err == ERR_CORRUPT) == (ret->acknowledged > 0) || err == ERR_IO);
    return err;
}

static int open_and_replay(MemDisk *d, Buf *why)
{
    Log *log;
    LogPoint at;
    uint64_t records = 0;
    size_t before = why->len;
    int err = log_open(&d->base, &options, &log, why);
    if (!err) {
        err = log_replay(log, &(LogReplay){&records, take_snapshot, take_frame}, &at, why);
        log_close(log);
    }
    MUST((err != 0) == (why->len > before));
    return err;
}

static int replay_retained(MemDisk *d, Buf *why)
{
    Log *log;
    LogPoint from, at;
    uint64_t records = 0;
    int err = log_open(&d->base, &options, &log, why);
    if (err) return err;
    err = log_replay_retained(log, &(LogReplay){&records, take_snapshot, take_frame}, &from, &at,
                              why);
    MUST(!err || why->len > 0);
    if (!err) MUST(from.next_seq + records == at.next_seq);
    log_close(log);
    return err;
}

/* ---- the n-th call fails ---- */

/* Calls run(d) with the n-th operation failing, for every n until none is left to fail. */
static void with_every_fault(MemDisk *whole, int fail_err, int (*run)(MemDisk *d, Buf *why))
{
    int failed = 0;
    for (uint64_t n = 1;; n++) {
        MemDisk *d = mem_disk_clone(whole);
        Buf why = {0};
        d->fail_at = d->ops + n;
        d->fail_err = fail_err;
        snprintf(model_context, sizeof model_context, "%s at call %d", err_text(fail_err), (int)n);
        int err = run(d, &why);
        bool met = d->ops >= d->fail_at;
        failed += err != 0;
        d->fail_at = 0;
        MUST(met || err == 0);
        /* What failed did no harm: the disk is well again, and so is the log. */
        buf_clear(&why);
        MUST(open_and_replay(d, &why) == 0);
        buf_done(&why);
        disk_free(&d->base);
        if (!met) break;
    }
    assert_true(failed > 3);
}

static int scan_told(MemDisk *d, Buf *why)
{
    Told t;
    (void)why;
    int err = scan(d, &t);
    /* A part that cannot be read is a fault, as damage is. */
    MUST(err == 0 || err == ERR_CORRUPT || t.faults == 0);
    return err;
}

static void reading_from_a_failing_disk(void **state)
{
    (void)state;
    Model m;
    MemDisk *d = make_log(&m, 2);
    static const int errs[] = {ERR_IO, ERR_READONLY, ERR_PERMISSION};
    for (size_t i = 0; i < ARRAY_LEN(errs); i++) {
        with_every_fault(d, errs[i], open_and_replay);
        with_every_fault(d, errs[i], replay_retained);
        with_every_fault(d, errs[i], scan_told);
    }
    disk_free(&d->base);
    model_done(&m);
}

static void the_remedy_fits_the_fault(void **state)
{
    (void)state;
    static const struct {
        int err;
        const char *text;
    } cases[] = {{ERR_READONLY, "writable"}, {ERR_PERMISSION, "belong"}, {ERR_NOSPC, "Free some"}};
    Model m;
    MemDisk *d = make_log(&m, 1);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        bool said = false;
        for (uint64_t n = 1; n < 200 && !said; n++) {
            MemDisk *c = mem_disk_clone(d);
            Buf why = {0};
            c->fail_at = c->ops + n;
            c->fail_err = cases[i].err;
            (void)!open_and_replay(c, &why);
            said = strstr(buf_z(&why), cases[i].text) != NULL;
            buf_done(&why);
            disk_free(&c->base);
        }
        if (!said) fail_msg("%s is never said", cases[i].text);
    }
    /* The lock's holder cannot always be named. */
    Log *log, *second;
    Buf why = {0};
    assert_int_equal(log_open(&d->base, &options, &log, &why), 0);
    mem_disk_put(d, "lock", "", 0);
    assert_int_equal(log_open(&d->base, &options, &second, &why), ERR_LOCKED);
    assert_non_null(strstr(buf_z(&why), "number unknown"));
    mem_disk_put(d, "lock", "12\n\n", 4);
    assert_int_equal(log_open(&d->base, &options, &second, &why), ERR_LOCKED);
    assert_non_null(strstr(buf_z(&why), "process 12)"));
    log_close(log);
    buf_done(&why);
    disk_free(&d->base);
    model_done(&m);
}

/* A snapshot that cannot be written is given up; the log goes on, unless its folder cannot be
 * synced: that is fatal. */
static void snapshots_on_a_failing_disk(void **state)
{
    (void)state;
    Model m;
    MemDisk *whole = make_log(&m, 1);
    int failed = 0;
    for (uint64_t n = 1;; n++) {
        MemDisk *d = mem_disk_clone(whole);
        Log *log;
        LogPoint at;
        Buf why = {0};
        uint64_t records = 0;
        snprintf(model_context, sizeof model_context, "snapshot, call %d", (int)n);
        MUST(log_open(&d->base, &options, &log, &why) == 0);
        MUST(log_replay(log, &(LogReplay){0}, &at, &why) == 0);
        d->fail_at = d->ops + n;
        d->fail_err = ERR_IO;
        LogReplay r = {&records, take_snapshot, take_frame};
        LogSnapshot *s = NULL;
        int err = log_replay_sealed(log, &r, &at, &why);
        MUST(!err || why.len > 0);
        if (!err) err = log_snapshot_begin(log, &at, &s);
        if (!err) {
            for (int i = 0; i < 40; i++) {
                char piece[50000] = {(char)i};
                int put = log_snapshot_put(s, (Str){piece, sizeof piece});
                MUST(!err || put == err); /* an error stays */
                err = put;
            }
            int end = log_snapshot_commit(s);
            MUST(!err || end == err);
            err = end;
        }
        bool met = d->ops >= d->fail_at;
        failed += err != 0;
        d->fail_at = 0;
        log_close(log);
        buf_clear(&why);
        MUST(open_and_replay(d, &why) == 0);
        buf_done(&why);
        disk_free(&d->base);
        if (!met) break;
    }
    assert_true(failed > 10);
    log_snapshot_abandon(NULL);
    disk_free(&whole->base);
    model_done(&m);
}

static void checks_of_a_hold_on_a_failing_disk(void **state)
{
    (void)state;
    Model m;
    MemDisk *d = make_log(&m, 2);
    Log *log;
    LogHold *h;
    Buf why = {0};
    assert_int_equal(model_open(&m, &d->base, &log, NULL), 0);
    assert_int_equal(log_hold(log, &h, &why), 0);
    int failed = 0;
    for (uint64_t n = 1;; n++) {
        uint64_t at = d->fail_at = d->ops + n;
        d->fail_err = ERR_IO;
        buf_clear(&why);
        int err = log_hold_check(h, &why);
        bool met = d->ops >= at;
        assert_true((err != 0) == (why.len > 0));
        failed += err != 0;
        if (!met) break;
    }
    assert_true(failed > 3);
    d->fail_at = 0;
    log_release(h);
    log_release(NULL);
    log_close(log);
    buf_done(&why);
    disk_free(&d->base);
    model_done(&m);
}

/* The segment's name is all that is known of it: no backup can be made of such a log. */
static void no_hold_of_what_cannot_be_read(void **state)
{
    (void)state;
    Model m;
    MemDisk *d = make_log(&m, 2);
    Log *log;
    LogPoint at;
    LogHold *h;
    Buf why = {0};
    assert_int_equal(log_open(&d->base, &options, &log, &why), 0);
    assert_int_equal(log_replay(log, &(LogReplay){0}, &at, &why), 0);
    for (size_t i = 0; i < log->sealed_len; i++) log->sealed[i].head_err = ERR_CORRUPT;
    assert_int_equal(log_hold(log, &h, &why), ERR_CORRUPT);
    assert_non_null(strstr(buf_z(&why), "headrace log verify"));
    log_close(log);
    buf_done(&why);
    disk_free(&d->base);
    model_done(&m);
}

static int fill_one(void *ctx, LogSnapshot *s)
{
    (void)ctx;
    return log_snapshot_put(s, STR("the state"));
}

static int fill_none(void *ctx, LogSnapshot *s)
{
    (void)ctx;
    (void)s;
    return ERR_NOMEM;
}

static void beginning_anew_on_a_failing_disk(void **state)
{
    (void)state;
    Model m;
    MemDisk *whole = make_log(&m, 2);
    int failed = 0;
    for (uint64_t n = 0;; n++) { /* 0: what fills the snapshot fails */
        MemDisk *d = mem_disk_clone(whole);
        Log *log;
        LogPoint from, at;
        Buf why = {0};
        MUST(log_open(&d->base, &options, &log, &why) == 0);
        MUST(log_replay_retained(log, &(LogReplay){0}, &from, &at, &why) == 0);
        at.next_seq += 1000;
        if (n) d->fail_at = d->ops + n;
        d->fail_err = ERR_IO;
        int err = log_begin_at(log, &at, n ? fill_one : fill_none, NULL, &why);
        bool met = !n || d->ops >= d->fail_at;
        MUST((err != 0) == (why.len > 0) && (n || err == ERR_NOMEM));
        failed += err != 0;
        log_close(log);
        buf_done(&why);
        disk_free(&d->base);
        if (!met) break;
    }
    assert_true(failed > 10);
    disk_free(&whole->base);
    model_done(&m);
}

/* ---- wrong bytes whose checksums fit ---- */

/* Reads it by every way; says whether a start refuses it. */
static bool refused(MemDisk *d, int want)
{
    Buf why = {0};
    Told t;
    MemDisk *c = mem_disk_clone(d);
    int scanned = scan(d, &t), retained = replay_retained(d, &why);
    buf_clear(&why);
    int err = open_and_replay(c, &why);
    disk_free(&c->base);
    MUST(err == 0 || err == ERR_CORRUPT || err == ERR_UNSUPPORTED || err == ERR_INVALID);
    if (err == ERR_CORRUPT || err == ERR_UNSUPPORTED) MUST(scanned == ERR_CORRUPT);
    MUST(err || !retained || scanned); /* what starts can be gone back to, or verify says why not */
    if (want) MUST(err == want);
    buf_done(&why);
    return err != 0;
}

static void heads_that_tell_of_another_log(void **state)
{
    (void)state;
    Model m;
    MemDisk *whole = make_log(&m, 0);
    int count = 0;
    for (unsigned number = 1; number <= 3; number++) {
        char name[LOG_NAME_LEN];
        segment_name(name, number);
        for (int field = 0; field < 10; field++) {
            MemDisk *d = mem_disk_clone(whole);
            size_t len;
            uint8_t *bytes = mem_disk_bytes(d, name, &len);
            SegmentHead h;
            MUST(segment_head_get(bytes, &h) == 0);
            snprintf(model_context, sizeof model_context, "%s, field %d", name, field);
            uint64_t *const fields[] = {&h.number,         &h.generation,  &h.prev_generation,
                                        &h.prev_end,       &h.start.epoch, &h.start.holder,
                                        &h.start.next_seq, &h.start.chain};
            if (field < 8)
                *fields[field] += 1;
            else if (field == 8)
                h.start.time_ns++;
            else
                h.start.shard++;
            segment_head_put(bytes, &h);
            count += refused(d, 0);
            disk_free(&d->base);
        }
    }
    assert_true(count > 20);
    /* Fields that must not be 0, and a version to come. */
    MemDisk *d = mem_disk_clone(whole);
    size_t len;
    uint8_t *bytes = mem_disk_bytes(d, "log/0000000002.seg", &len);
    SegmentHead h, was;
    MUST(segment_head_get(bytes, &was) == 0);
    h = was;
    h.generation = 0;
    segment_head_put(bytes, &h);
    assert_int_equal(segment_head_get(bytes, &h), ERR_CORRUPT);
    assert_true(refused(d, ERR_CORRUPT));
    h = was;
    h.start.next_seq = 0;
    segment_head_put(bytes, &h);
    assert_int_equal(segment_head_get(bytes, &h), ERR_CORRUPT);
    disk_free(&d->base);
    disk_free(&whole->base);
    model_done(&m);
}

/* Every group of the second segment in turn, each of its fields in turn. */
static void groups_that_say_odd_things(void **state)
{
    (void)state;
    Model m;
    MemDisk *whole = make_log(&m, 0);
    const char *name = "log/0000000002.seg";
    SegmentReader r;
    SegmentItem item;
    int count = 0;
    MUST(segment_reader_open(&r, &whole->base, name, 0) == 0);
    while (segment_reader_next(&r, &item) == 1) {
        for (int change = 0; change < 8 && item.is_group; change++) {
            MemDisk *d = mem_disk_clone(whole);
            size_t len;
            uint8_t *at = mem_disk_bytes(d, name, &len) + item.offset;
            GroupHead h = item.group;
            snprintf(model_context, sizeof model_context, "group at %d, change %d",
                     (int)item.offset, change);
            if (change == 0) h.frames++;
            if (change == 1) h.body_len += SECTOR;
            if (change == 2) h.body_len = GROUP_BODY_MAX + 1;
            if (change == 3) h.synced_generation++;
            if (change == 4) h.synced_position = h.position + SECTOR;
            if (change == 5) h.position += SECTOR;
            if (change == 6) h.generation++;
            if (change == 7) h.body_len = UINT32_MAX;
            group_head_put(at, &h);
            count += refused(d, 0);
            disk_free(&d->base);
        }
    }
    segment_reader_done(&r);
    assert_true(count > 10);
    disk_free(&whole->base);
    model_done(&m);
}

/* Each byte of a frame's head is changed, its checksum made to fit. */
static void frames_that_break_their_format(void **state)
{
    (void)state;
    Model m;
    MemDisk *whole = make_log(&m, 0);
    const char *name = "log/0000000002.seg";
    SegmentReader r;
    SegmentItem item;
    int count = 0;
    MUST(segment_reader_open(&r, &whole->base, name, 0) == 0);
    while (segment_reader_next(&r, &item) == 1 && item.is_group) {
    }
    for (size_t at = 0; at < FRAME_HEAD_LEN + 8; at++) {
        MemDisk *d = mem_disk_clone(whole);
        size_t len;
        uint8_t *entry = mem_disk_bytes(d, name, &len) + item.offset;
        uint32_t n = load_u32(entry);
        entry[ENTRY_HEAD_LEN + at] ^= 1;
        store_u32(entry + 4, entry_crc(r.head.generation, item.offset, entry + ENTRY_HEAD_LEN, n));
        snprintf(model_context, sizeof model_context, "frame, byte %d", (int)at);
        count += refused(d, 0);
        disk_free(&d->base);
    }
    segment_reader_done(&r);
    assert_true(count > 40);
    disk_free(&whole->base);
    model_done(&m);
}

/* Every byte of the head of the newest snapshot, its checksum made to fit; the older one, or the
 * log's first segments, may stand in for it. */
static void snapshots_of_another_log(void **state)
{
    (void)state;
    Model m;
    for (int snapshots = 1; snapshots <= 2; snapshots++) {
        MemDisk *whole = make_log(&m, snapshots);
        LogNames names;
        char name[LOG_NAME_LEN], other[LOG_NAME_LEN];
        MUST(log_names(&whole->base, &names) == 0);
        snapshot_name(name, names.snapshots[names.snapshots_len - 1]);
        int count = 0;
        for (size_t at = 0; at < 124; at++) {
            MemDisk *d = mem_disk_clone(whole);
            size_t len;
            uint8_t *bytes = mem_disk_bytes(d, name, &len);
            bytes[at] ^= 1;
            store_u32(bytes + 124, crc32c(0, bytes, 124));
            snprintf(model_context, sizeof model_context, "snapshot, byte %d", (int)at);
            count += refused(d, 0);
            disk_free(&d->base);
        }
        assert_true(count > 0);
        /* Renamed by hand. */
        MemDisk *d = mem_disk_clone(whole);
        size_t len;
        uint8_t *bytes = mem_disk_bytes(d, name, &len);
        snapshot_name(other, names.snapshots[names.snapshots_len - 1] + 1);
        mem_disk_put(d, other, bytes, len);
        Told t;
        assert_int_equal(scan(d, &t), ERR_CORRUPT);
        refused(d, 0);
        disk_free(&d->base);
        /* Cut off at its end, segment by segment: whole ones that go are not missed until the log
         * ends below its snapshot. */
        d = mem_disk_clone(whole);
        bool missed = false;
        for (size_t i = names.segments_len; i-- > 0;) {
            segment_name(other, names.segments[i]);
            mem_disk_remove(d, other);
            snprintf(model_context, sizeof model_context, "without %s", other);
            bool now = refused(d, 0);
            MUST(now || !missed);
            missed = now;
        }
        assert_true(missed);
        assert_int_equal(scan(d, &t), ERR_CORRUPT); /* snapshots, but no segment */
        disk_free(&d->base);
        log_names_done(&names);
        disk_free(&whole->base);
        model_done(&m);
    }
}

/* What the folder holds besides: names of ours and of others. */
static void names_of_all_kinds(void **state)
{
    (void)state;
    Model m;
    MemDisk *d = make_log(&m, 1);
    static const char *const others[] = {"log/0000000000.seg",
                                         "log/000000000x.seg",
                                         "log/.seg",
                                         "log/1.seg",
                                         "log/0000000000000000000x.snap",
                                         "log/notes.txt",
                                         "log/half.tmp",
                                         "log/9999999999999999999999.seg"};
    for (size_t i = 0; i < ARRAY_LEN(others); i++) mem_disk_put(d, others[i], "x", 1);
    Buf why = {0};
    assert_int_equal(open_and_replay(d, &why), 0);
    Told t;
    assert_int_equal(scan(d, &t), 0);
    assert_true(t.frames >= 40 && t.faults == 0);
    buf_done(&why);
    disk_free(&d->base);
    model_done(&m);
    /* Nothing at all is a log, too, to who only looks. */
    d = mem_disk_new(1);
    int err = log_scan(&d->base, &(LogScan){0});
    assert_true(err == 0 || err == ERR_NOT_FOUND);
    disk_free(&d->base);
}

static int refuse_frame(void *ctx, const Frame *f, Str bytes)
{
    (void)ctx;
    (void)f;
    (void)bytes;
    return ERR_UNSUPPORTED;
}

static void a_record_that_is_refused_stops_the_replay(void **state)
{
    (void)state;
    Model m;
    MemDisk *d = make_log(&m, 0);
    Log *log;
    LogPoint at;
    Buf why = {0};
    assert_int_equal(log_open(&d->base, &options, &log, &why), 0);
    assert_int_equal(log_replay(log, &(LogReplay){NULL, NULL, refuse_frame}, &at, &why),
                     ERR_UNSUPPORTED);
    assert_non_null(strstr(buf_z(&why), "a record"));
    assert_non_null(strstr(buf_z(&why), "newer version"));
    log_close(log);
    buf_done(&why);
    disk_free(&d->base);
    model_done(&m);
}

int main(void)
{
    say_setup(SAY_ERROR, SAY_TEXT, "test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reading_from_a_failing_disk),
        cmocka_unit_test(the_remedy_fits_the_fault),
        cmocka_unit_test(snapshots_on_a_failing_disk),
        cmocka_unit_test(checks_of_a_hold_on_a_failing_disk),
        cmocka_unit_test(no_hold_of_what_cannot_be_read),
        cmocka_unit_test(beginning_anew_on_a_failing_disk),
        cmocka_unit_test(heads_that_tell_of_another_log),
        cmocka_unit_test(groups_that_say_odd_things),
        cmocka_unit_test(frames_that_break_their_format),
        cmocka_unit_test(snapshots_of_another_log),
        cmocka_unit_test(names_of_all_kinds),
        cmocka_unit_test(a_record_that_is_refused_stops_the_replay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
