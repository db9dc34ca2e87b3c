/* log_segment.c: what a log keeps, what it finds, and what it says when it refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "log/segment.h"
#include "log_model.h"

#define SEGMENT (4 * KIB)

typedef struct {
    Clock base;
    int64_t now_ns;
} FakeClock;

static int64_t fake_now(Clock *c)
{
    return ((FakeClock *)(void *)c)->now_ns;
}

static FakeClock fake_clock(void)
{
    return (FakeClock){.base = {.wall_ns = fake_now, .boot_ns = fake_now},
                       .now_ns = NS_PER_S * 100};
}

static int append_through(Model *m, Log *log, size_t bytes)
{
    int err = model_append(m, log, bytes, false);
    if (err != ERR_AGAIN) return err;
    MUST(log_has_pending(log));
    MUST(model_commit(m, log) == 0);
    return model_append(m, log, bytes, false);
}

/* A log of a few segments, with snapshots when `snapshots`, whose tail is proven when `proven`. */
static MemDisk *make_log(Model *m, int frames, int snapshots, bool proven)
{
    MemDisk *d = mem_disk_new(7);
    Log *log;
    assert_int_equal(model_open(m, &d->base, &log, NULL), 0);
    assert_int_equal(model_claim(m, log), 0);
    for (int i = 0; i < frames; i++) {
        assert_int_equal(append_through(m, log, (size_t)random_below(&m->random, 600)), 0);
        if (i % 3 == 2) assert_int_equal(model_commit(m, log), 0);
        if (snapshots && i % (frames / snapshots) == frames / snapshots - 1)
            assert_int_equal(model_snapshot(m, log, 200), 0);
    }
    assert_int_equal(model_commit(m, log), 0);
    if (proven) assert_int_equal(model_commit(m, log), 0);
    log_close(log);
    return d;
}

static void keeps_what_was_committed(void **state)
{
    (void)state;
    Model m;
    model_init(&m, 1, SEGMENT);
    MemDisk *d = make_log(&m, 200, 0, false);
    uint64_t written = m.at.next_seq;
    Log *log;
    for (int i = 0; i < 20; i++) { /* every start seals a segment and begins one */
        assert_int_equal(model_open(&m, &d->base, &log, NULL), 0);
        assert_int_equal(m.at.next_seq, written);
        assert_int_equal(m.frames, 201);
        log_close(log);
    }
    assert_int_equal(model_open(&m, &d->base, &log, NULL), 0);
    LogStats stats;
    log_stats(log, &stats);
    assert_true(stats.segments > 10 && stats.bytes >= 60000);
    /* One frame larger than a segment, and one as large as any. */
    assert_int_equal(append_through(&m, log, 10 * SEGMENT), 0);
    assert_int_equal(model_commit(&m, log), 0);
    assert_int_equal(append_through(&m, log, FRAME_LEN_MAX / 2 - 100), 0);
    assert_int_equal(model_commit(&m, log), 0);
    assert_int_equal(append_through(&m, log, 100), 0);
    assert_int_equal(model_commit(&m, log), 0);
    log_close(log);
    assert_int_equal(model_open(&m, &d->base, &log, NULL), 0);
    assert_int_equal(m.frames, 204);
    log_close(log);
    assert_int_equal(log_scan(&d->base, &(LogScan){0}), 0);
    disk_free(&d->base);
    model_done(&m);
}

static void a_proof_is_written_once(void **state)
{
    (void)state;
    Model m;
    model_init(&m, 2, SEGMENT);
    MemDisk *d = mem_disk_new(1);
    Log *log;
    assert_int_equal(model_open(&m, &d->base, &log, NULL), 0);
    uint64_t writes = d->writes;
    for (int i = 0; i < 5; i++) assert_int_equal(model_commit(&m, log), 0);
    assert_int_equal(d->writes, writes);
    assert_int_equal(model_claim(&m, log), 0);
    assert_true(log_has_pending(log));
    assert_int_equal(model_commit(&m, log), 0);
    assert_false(log_has_pending(log));
    writes = d->writes;
    for (int i = 0; i < 5; i++) assert_int_equal(model_commit(&m, log), 0);
    assert_int_equal(d->writes, writes + 1);
    LogStats stats;
    log_stats(log, &stats);
    assert_int_equal(stats.commits, 2);
    assert_int_equal(stats.committed_frames, 1);
    log_close(log);
    disk_free(&d->base);
    model_done(&m);
}

/* ---- damage ---- */

static Model copy_of(const Model *m)
{
    Model c;
    model_init(&c, 99, m->options.segment_bytes);
    c.at = m->at;
    c.acked = m->acked;
    mem_free(c.fold);
    c.fold = mem_dup(m->fold, m->fold_cap * sizeof *m->fold);
    c.fold_cap = m->fold_cap;
    return c;
}

typedef struct {
    char names[64][LOG_NAME_LEN];
    size_t ends[64]; /* the log's part of each */
    size_t len;
} Files;

static void add_file(void *ctx, const char *name)
{
    Files *f = ctx;
    MUST(f->len < ARRAY_LEN(f->names));
    if (strstr(name, ".free")) return;
    snprintf(f->names[f->len++], LOG_NAME_LEN, "log/%.20s%s", name,
             strlen(name) > 20 ? ".snap" : "");
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* Where each segment's groups end: read from the last, whose file the reader must find the end of.
 */
static void find_files(MemDisk *d, Files *f)
{
    *f = (Files){0};
    MUST(d->base.ops->list(&d->base, "log", add_file, f) == 0);
    qsort(f->names, f->len, LOG_NAME_LEN, by_name);
    uint64_t end = 0;
    for (size_t i = f->len; i-- > 0;) {
        (void)mem_disk_bytes(d, f->names[i], &f->ends[i]);
        if (!strstr(f->names[i], ".seg")) continue;
        SegmentReader r;
        SegmentItem item;
        MUST(segment_reader_open(&r, &d->base, f->names[i], end) == 0);
        while (segment_reader_next(&r, &item) == 1) {
        }
        f->ends[i] = (size_t)r.at;
        end = r.head.prev_end;
        segment_reader_done(&r);
    }
}

static void count_fault(void *ctx, const char *file, uint64_t offset, bool acknowledged,
                        const char *what)
{
    (void)file;
    (void)offset;
    (void)what;
    ++((int *)ctx)[acknowledged];
}

/* Flips bits of one byte on a copy; what do the scan and the start say? */
static void flip(const MemDisk *d, const Model *m, const char *name, size_t at, uint8_t bits,
                 int *ret_scan, int *ret_open, bool *ret_names_it, uint64_t *ret_next_seq)
{
    MemDisk *c = mem_disk_clone(d);
    Model cm = copy_of(m);
    size_t len;
    uint8_t *bytes = mem_disk_bytes(c, name, &len);
    MUST(bytes && at < len);
    bytes[at] ^= bits;
    int faults[2] = {0};
    *ret_scan = log_scan(&c->base, &(LogScan){.ctx = faults, .fault = count_fault});
    MUST((*ret_scan == ERR_CORRUPT) == (faults[1] > 0));
    Buf why = {0};
    Log *log;
    *ret_open = model_open(&cm, &c->base, &log, &why);
    *ret_names_it = strstr(buf_z(&why), name) != NULL;
    *ret_next_seq = cm.at.next_seq;
    log_close(log);
    buf_done(&why);
    model_done(&cm);
    disk_free(&c->base);
}

static void finds_every_flipped_bit(void **state)
{
    (void)state;
    Model m;
    model_init(&m, 3, SEGMENT);
    MemDisk *d = make_log(&m, 26, 0, true);
    Files f;
    find_files(d, &f);
    assert_true(f.len >= 3);
    size_t flips = 0;
    for (size_t i = 0; i < f.len; i++) {
        for (size_t at = 0; at < f.ends[i]; at++) {
            bool proof = i + 1 == f.len &&
                         at >= f.ends[i] - SECTOR; /* the empty group proves all but itself */
            for (int bit = at % 8; bit < 8; bit += at % 13 ? 8 : 1) {
                int scan, open;
                bool names_it;
                uint64_t next;
                snprintf(model_context, sizeof model_context, "%s byte %zu bit %d", f.names[i], at,
                         bit);
                flip(d, &m, f.names[i], at, (uint8_t)(1 << bit), &scan, &open, &names_it, &next);
                flips++;
                if (proof) {
                    MUST(scan == 0 && open == 0 && next == m.at.next_seq);
                } else {
                    MUST(scan == ERR_CORRUPT);
                    MUST(open == ERR_CORRUPT && names_it);
                }
            }
        }
        /* Behind the log's end nothing matters. */
        size_t len;
        (void)mem_disk_bytes(d, f.names[i], &len);
        for (size_t at = f.ends[i]; at < len; at += 37) {
            int scan, open;
            bool names_it;
            uint64_t next;
            flip(d, &m, f.names[i], at, 0xff, &scan, &open, &names_it, &next);
            MUST(scan == 0 && open == 0 && next == m.at.next_seq);
        }
    }
    assert_true(flips > 6000);
    disk_free(&d->base);
    model_done(&m);
}

static void finds_flips_in_snapshots(void **state)
{
    (void)state;
    Model m;
    model_init(&m, 4, SEGMENT);
    MemDisk *d = make_log(&m, 48, 3, true);
    Files f;
    find_files(d, &f);
    size_t newest = SIZE_MAX, older = SIZE_MAX;
    for (size_t i = 0; i < f.len; i++) {
        if (!strstr(f.names[i], ".snap")) continue;
        older = newest;
        newest = i;
    }
    assert_true(older != SIZE_MAX);
    for (size_t i = 0; i < f.len; i++) {
        bool last = i + 1 == f.len || strstr(f.names[i + 1], ".snap");
        for (size_t at = 0; at < f.ends[i]; at++) {
            int scan, open;
            bool names_it;
            uint64_t next;
            snprintf(model_context, sizeof model_context, "%s byte %zu", f.names[i], at);
            flip(d, &m, f.names[i], at, (uint8_t)(1 << at % 8), &scan, &open, &names_it, &next);
            bool proof = strstr(f.names[i], ".seg") && last && at >= f.ends[i] - SECTOR;
            MUST(scan == (proof ? 0 : ERR_CORRUPT));
            /* A damaged snapshot is replaced by the older one and the segments behind it; what a
             * snapshot covers is not read; anything else refuses. In no case is anything lost:
             * model_open has checked. */
            MUST(open == 0 || (open == ERR_CORRUPT && names_it && strstr(f.names[i], ".seg")));
            MUST(open != 0 || next == m.at.next_seq);
        }
    }
    /* Both damaged, and the first segments gone: it says so. */
    size_t len;
    mem_disk_bytes(d, f.names[newest], &len)[150] ^= 1;
    mem_disk_bytes(d, f.names[older], &len)[150] ^= 1;
    Buf why = {0};
    Log *log;
    assert_int_equal(model_open(&m, &d->base, &log, &why), ERR_CORRUPT);
    assert_non_null(strstr(buf_z(&why), f.names[newest]));
    assert_non_null(strstr(buf_z(&why), "backup"));
    buf_done(&why);
    disk_free(&d->base);
    model_done(&m);
}

static void cuts_an_unproven_tail(void **state)
{
    (void)state;
    Model m;
    model_init(&m, 5, 64 * KIB);
    MemDisk *d = make_log(&m, 30, 0, false);
    Files f;
    find_files(d, &f);
    assert_int_equal(f.len, 1);
    /* Where does the last group begin? */
    SegmentReader r;
    SegmentItem item;
    assert_int_equal(segment_reader_open(&r, &d->base, f.names[0], 0), 0);
    while (segment_reader_next(&r, &item) == 1) {
    }
    size_t last = (size_t)r.last_group_at;
    segment_reader_done(&r);
    int torn = 0;
    for (size_t at = last; at < f.ends[0]; at++) {
        snprintf(model_context, sizeof model_context, "byte %zu", at);
        MemDisk *c = mem_disk_clone(d);
        Model cm = copy_of(&m);
        cm.acked -=
            12; /* the disk lost what it had promised: that cannot be told from a torn write */
        size_t len;
        mem_disk_bytes(c, f.names[0], &len)[at] ^= 0x10;
        int faults[2] = {0};
        assert_int_equal(log_scan(&c->base, &(LogScan){.ctx = faults, .fault = count_fault}), 0);
        assert_int_equal(faults[1], 0);
        Log *log;
        assert_int_equal(model_open(&cm, &c->base, &log, NULL), 0);
        torn += cm.torn_bytes > 0;
        assert_true(cm.torn_bytes == 0 || faults[0] == 1);
        assert_int_equal(model_claim(&cm, log), 0);
        for (int i = 0; i < 10; i++) assert_int_equal(append_through(&cm, log, 300), 0);
        assert_int_equal(model_commit(&cm, log), 0);
        log_close(log);
        assert_int_equal(model_open(&cm, &c->base, &log, NULL), 0);
        log_close(log);
        assert_int_equal(log_scan(&c->base, &(LogScan){0}), 0);
        model_done(&cm);
        disk_free(&c->base);
    }
    assert_true(torn > (int)(f.ends[0] - last) * 9 / 10);
    disk_free(&d->base);
    model_done(&m);
}

/* ---- refusals ---- */

static void expect_refusal(MemDisk *d, const Model *m, int want, const char *text)
{
    Model c = copy_of(m);
    Log *log;
    Buf why = {0};
    snprintf(model_context, sizeof model_context, "refusal: %s", text);
    int err = model_open(&c, &d->base, &log, &why);
    if (err != want || !strstr(buf_z(&why), text)) fprintf(stderr, "%d: %s\n", err, buf_z(&why));
    MUST(err == want && strstr(buf_z(&why), text));
    buf_done(&why);
    model_done(&c);
    disk_free(&d->base);
}

static void says_why_it_refuses(void **state)
{
    (void)state;
    Model m;
    model_init(&m, 6, SEGMENT);
    MemDisk *d = make_log(&m, 60, 0, true);

    MemDisk *c = mem_disk_clone(d);
    mem_disk_put(c, "format", "headrace-data 2\n", 16);
    expect_refusal(c, &m, ERR_UNSUPPORTED, "format 2");
    c = mem_disk_clone(d);
    mem_disk_put(c, "format", "headrace-data x\n", 16);
    expect_refusal(c, &m, ERR_CORRUPT, "does not say");
    c = mem_disk_clone(d);
    mem_disk_put(c, "format", "", 0);
    expect_refusal(c, &m, ERR_CORRUPT, "does not say");
    c = mem_disk_clone(d);
    mem_disk_remove(c, "format");
    expect_refusal(c, &m, ERR_CORRUPT, "missing");
    c = mem_disk_clone(d);
    mem_disk_remove(c, "log/0000000001.seg");
    expect_refusal(c, &m, ERR_CORRUPT, "first segments are missing");
    c = mem_disk_clone(d);
    mem_disk_remove(c, "log/0000000003.seg");
    expect_refusal(c, &m, ERR_CORRUPT, "0000000004.seg, byte 0: the segment before it is missing");

    size_t len, other_len;
    c = mem_disk_clone(d); /* renamed by hand */
    uint8_t *bytes = mem_disk_bytes(c, "log/0000000002.seg", &len);
    mem_disk_put(c, "log/0000000003.seg", bytes, len);
    expect_refusal(c, &m, ERR_CORRUPT, "0000000003.seg, byte 0: the segment's head does not check");
    c = mem_disk_clone(d); /* cut off */
    bytes = mem_disk_bytes(c, "log/0000000002.seg", &len);
    mem_disk_put(c, "log/0000000002.seg", bytes, 1500);
    expect_refusal(c, &m, ERR_CORRUPT, "0000000002.seg");
    c = mem_disk_clone(d); /* of another log */
    Model other;
    model_init(&other, 1234, SEGMENT);
    MemDisk *od = make_log(&other, 60, 0, true);
    bytes = mem_disk_bytes(od, "log/0000000003.seg", &other_len);
    mem_disk_put(c, "log/0000000003.seg", bytes, other_len);
    expect_refusal(c, &m, ERR_CORRUPT, "0000000003.seg, byte 0: the segment does not belong");
    model_done(&other);
    disk_free(&od->base);

    Log *log;
    Buf why = {0};
    Model same = copy_of(&m);
    assert_int_equal(model_open(&same, &d->base, &log, NULL), 0);
    mem_disk_put(d, "lock", "4711\n", 5);
    Log *second;
    assert_int_equal(log_open(&d->base, &m.options, &second, &why), ERR_LOCKED);
    assert_non_null(strstr(buf_z(&why), "process 4711"));
    log_close(log);
    LogOptions wrong = m.options;
    wrong.shard = 6;
    buf_clear(&why);
    assert_int_equal(log_open(&d->base, &wrong, &second, &why), ERR_INVALID);
    assert_non_null(strstr(buf_z(&why), "shard 5, not 6"));
    buf_done(&why);
    model_done(&same);
    disk_free(&d->base);
    model_done(&m);
}

/* ---- frames that do not count ---- */

static void append_refuses_what_would_be_void(void **state)
{
    (void)state;
    Model m;
    model_init(&m, 8, SEGMENT);
    MemDisk *d = mem_disk_new(1);
    Log *log;
    assert_int_equal(model_open(&m, &d->base, &log, NULL), 0);
    assert_int_equal(model_append(&m, log, 10, false), ERR_INVALID); /* no claim yet */
    assert_int_equal(model_claim(&m, log), 0);
    assert_int_equal(log_append(log, buf_str(&m.frame), m.at.next_seq - 1, false),
                     ERR_INVALID); /* again */
    m.at.holder ^= 1;
    assert_int_equal(model_append(&m, log, 10, false), ERR_INVALID);
    m.at.holder ^= 1;
    m.at.chain ^= 1;
    m.fold[m.at.next_seq] ^= 0;
    assert_int_equal(model_append(&m, log, 10, false), ERR_INVALID);
    m.at.chain ^= 1;
    assert_int_equal(log_append(log, STR("too short"), 9, false), ERR_INVALID);
    assert_int_equal(model_append(&m, log, 10, false), 0);
    assert_int_equal(model_commit(&m, log), 0);
    log_close(log);
    disk_free(&d->base);
    model_done(&m);
}

/* Writes one group with this frame behind the last one, as a writer that was deposed would. */
static void write_behind(MemDisk *d, const char *name, const Buf *frame)
{
    SegmentReader r;
    SegmentItem item;
    MUST(segment_reader_open(&r, &d->base, name, 0) == 0);
    while (segment_reader_next(&r, &item) == 1) {
    }
    size_t body = ENTRY_HEAD_LEN + frame->len, len;
    GroupHead h = {.frames = 1,
                   .body_len = (uint32_t)body,
                   .generation = r.head.generation,
                   .position = r.at,
                   .synced_generation = r.head.generation,
                   .synced_position = r.at};
    uint8_t *bytes = mem_disk_bytes(d, name, &len);
    MUST(r.at + group_len(body) <= len);
    uint8_t *group = bytes + r.at;
    memset(group, 0, (size_t)group_len(body));
    group_head_put(group, &h);
    store_u32(group + GROUP_HEAD_LEN, (uint32_t)frame->len);
    store_u32(group + GROUP_HEAD_LEN + 4, entry_crc(h.generation, h.position + GROUP_HEAD_LEN,
                                                    frame->data, (uint32_t)frame->len));
    memcpy(group + GROUP_HEAD_LEN + ENTRY_HEAD_LEN, frame->data, frame->len);
    segment_reader_done(&r);
}

static void replay_leaves_out_what_does_not_count(void **state)
{
    (void)state;
    Model m;
    model_init(&m, 9, 64 * KIB);
    MemDisk *d = make_log(&m, 10, 0, true);
    FrameBuilder b = {0};
    Buf frame = {0};
    LogPoint zombie = m.at;
    zombie.epoch--;
    frame_begin_record(&b, 9, 1);
    buf_puts(&b.meta, "from a leader that was deposed");
    frame_end_record(&b);
    frame_seal(&b, m.at.time_ns, &zombie, &frame);
    write_behind(d, "log/0000000001.seg", &frame);
    Log *log;
    assert_int_equal(model_open(&m, &d->base, &log, NULL),
                     0); /* checks the fold: it is not in it */
    assert_int_equal(model_append(&m, log, 100, false), 0);
    assert_int_equal(model_commit(&m, log), 0);
    log_close(log);
    assert_int_equal(model_open(&m, &d->base, &log, NULL), 0);
    log_close(log);

    /* A frame of a version to come stops the reader, with a word about it. */
    buf_clear(&frame);
    LogPoint at = m.at;
    frame_seal(&b, m.at.time_ns, &at, &frame);
    frame.data[0] = FRAME_VERSION + 1;
    Files f;
    find_files(d, &f);
    write_behind(d, f.names[f.len - 1], &frame);
    Buf why = {0};
    assert_int_equal(model_open(&m, &d->base, &log, &why), ERR_UNSUPPORTED);
    assert_non_null(strstr(buf_z(&why), "version 2"));
    buf_done(&why);
    buf_done(&frame);
    frame_done(&b);
    disk_free(&d->base);
    model_done(&m);
}

/* ---- stale bytes ---- */

static int count_items(MemDisk *d, const char *name, int *ret_groups)
{
    SegmentReader r;
    SegmentItem item;
    int frames = 0, got;
    *ret_groups = 0;
    MUST(segment_reader_open(&r, &d->base, name, 0) == 0);
    while ((got = segment_reader_next(&r, &item)) == 1) {
        frames += !item.is_group;
        *ret_groups += item.is_group;
    }
    MUST(got == 0);
    segment_reader_done(&r);
    return frames;
}

/* What an earlier use of a file left there, byte for byte where the new use would have it, is
 * nothing. */
static void stale_bytes_never_check(void **state)
{
    (void)state;
    Model m;
    model_init(&m, 12, 64 * KIB);
    MemDisk *d = make_log(&m, 20, 0, true);
    const char *name = "log/0000000001.seg";
    int groups;
    assert_int_equal(count_items(d, name, &groups), 21);
    size_t len;
    uint8_t *bytes = mem_disk_bytes(d, name, &len);
    SegmentHead h;
    assert_int_equal(segment_head_get(bytes, &h), 0);
    h.generation += UINT64_C(1) << 32;
    segment_head_put(bytes, &h);
    assert_int_equal(count_items(d, name, &groups), 0);
    assert_int_equal(groups, 0);
    /* The new use's first group head arrived, its entries did not. */
    GroupHead g;
    assert_true(group_head_get(bytes + SEGMENT_HEAD_LEN, &g));
    g.generation = g.synced_generation = h.generation;
    group_head_put(bytes + SEGMENT_HEAD_LEN, &g);
    assert_int_equal(count_items(d, name, &groups), 0);
    assert_int_equal(groups, 1);
    /* A group of this use at another place than its own. */
    h.generation -= UINT64_C(1) << 32;
    segment_head_put(bytes, &h);
    memmove(bytes + SEGMENT_HEAD_LEN, bytes + SEGMENT_HEAD_LEN + SECTOR,
            len - SEGMENT_HEAD_LEN - SECTOR);
    assert_int_equal(count_items(d, name, &groups), 0);
    disk_free(&d->base);
    model_done(&m);
}

static void generations_grow(void **state)
{
    (void)state;
    Model m;
    model_init(&m, 13, SEGMENT);
    MemDisk *d = mem_disk_new(5);
    uint64_t last = 0;
    for (int life = 0; life < 12; life++) {
        Log *log;
        m.options.seed = (uint64_t)life * 7 + 1;
        assert_int_equal(model_open(&m, &d->base, &log, NULL), 0);
        if (life % 3) { /* else the next life replaces the empty segment */
            assert_int_equal(model_claim(&m, log), 0);
            assert_int_equal(model_commit(&m, log), 0);
        }
        log_close(log);
        Files f;
        find_files(d, &f);
        SegmentHead h;
        assert_int_equal(segment_head_load(&d->base, f.names[f.len - 1], &h, NULL), 0);
        assert_true(h.generation >> 32 > last);
        last = h.generation >> 32;
        assert_true(f.len <= (size_t)life + 1);
    }
    disk_free(&d->base);
    model_done(&m);
}

/* ---- a full disk ---- */

static void a_full_disk_refuses_and_recovers(void **state)
{
    (void)state;
    FakeClock clock = fake_clock();
    Model m;
    model_init(&m, 10, 64 * KIB);
    m.options.clock = &clock.base;
    m.options.reserve_bytes = 32 * KIB;
    MemDisk *d = mem_disk_new(3);
    Log *log;
    assert_int_equal(model_open(&m, &d->base, &log, NULL), 0);
    assert_int_equal(model_claim(&m, log), 0);
    d->capacity = 600 * KIB;
    int err, again = 0, frames = 0;
    for (;;) {
        err = model_append(&m, log, 400, false);
        if (err == ERR_NOSPC) break;
        assert_true(err == 0 || err == ERR_AGAIN);
        again = err ? again + 1 : 0;
        assert_true(again < 2); /* a commit settles it, one way or the other */
        frames += !err;
        if (err || frames % 4 == 0) assert_int_equal(model_commit(&m, log), 0);
    }
    assert_true(frames > 500);
    assert_int_equal(model_append(&m, log, 400, false), ERR_NOSPC);
    /* Results, cancels and releases still go, for the reserve's worth. */
    uint64_t reserved = 0;
    while ((err = model_append(&m, log, 400, true)) == 0) {
        reserved += m.frame.len;
        if (reserved / 400 % 4 == 0) assert_int_equal(model_commit(&m, log), 0);
    }
    assert_int_equal(err, ERR_NOSPC);
    assert_true(reserved > 20 * KIB);
    assert_int_equal(model_commit(&m, log), 0);

    /* After a second it is asked for again; still full. */
    clock.now_ns += NS_PER_S;
    assert_int_equal(model_append(&m, log, 400, false), ERR_AGAIN);
    assert_int_equal(model_commit(&m, log), 0);
    assert_int_equal(model_append(&m, log, 400, false), ERR_NOSPC);

    /* A restart on the full disk works too, with its claim, whatever room was left. */
    log_close(log);
    assert_int_equal(model_open(&m, &d->base, &log, NULL), 0);
    assert_int_equal(model_claim(&m, log), 0);
    assert_int_equal(model_commit(&m, log), 0);
    log_close(log);

    /* Others took the last byte: no start, and the message says what helps. */
    Buf why = {0};
    d->capacity = 1;
    err = model_open(&m, &d->base, &log, &why);
    if (err == 0)
        log_close(log); /* there was a spare */
    else
        assert_non_null(strstr(buf_z(&why), "Free some space"));
    buf_done(&why);

    d->capacity = 2 * MIB;
    assert_int_equal(model_open(&m, &d->base, &log, NULL), 0);
    clock.now_ns += NS_PER_S;
    err = model_append(&m, log, 400, false);
    if (err == ERR_AGAIN) {
        assert_int_equal(model_commit(&m, log), 0);
        err = model_append(&m, log, 400, false);
    }
    assert_int_equal(err, 0);
    assert_int_equal(model_commit(&m, log), 0);
    log_close(log);
    assert_int_equal(model_open(&m, &d->base, &log, NULL), 0);
    log_close(log);
    disk_free(&d->base);
    model_done(&m);
}

static void snapshots_bound_the_disk(void **state)
{
    (void)state;
    Model m;
    model_init(&m, 11, 16 * KIB);
    MemDisk *d = mem_disk_new(3);
    Log *log;
    assert_int_equal(model_open(&m, &d->base, &log, NULL), 0);
    assert_int_equal(model_claim(&m, log), 0);
    LogStats stats;
    uint64_t most = 0;
    for (int i = 0; i < 5000; i++) {
        assert_int_equal(append_through(&m, log, 300), 0);
        if (i % 5 == 0) assert_int_equal(model_commit(&m, log), 0);
        if (log_snapshot_due(log, 64 * KIB)) assert_int_equal(model_snapshot(&m, log, 70000), 0);
        log_stats(log, &stats);
        most = MAX(most, stats.bytes);
    }
    assert_true(stats.snapshot_seq > 0);
    assert_true(stats.committed_bytes > 1500 * KIB);
    assert_true(most < 500 * KIB);
    assert_true(mem_disk_used(d) < 500 * KIB);
    assert_int_equal(model_commit(&m, log), 0);
    log_close(log);
    assert_int_equal(model_open(&m, &d->base, &log, NULL), 0);
    assert_true(m.frames < 1000); /* most of it came from the snapshot */
    log_close(log);
    assert_int_equal(log_scan(&d->base, &(LogScan){0}), 0);
    disk_free(&d->base);
    model_done(&m);
}

int main(void)
{
    say_setup(SAY_ERROR, SAY_TEXT, "test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_what_was_committed),
        cmocka_unit_test(a_proof_is_written_once),
        cmocka_unit_test(finds_every_flipped_bit),
        cmocka_unit_test(finds_flips_in_snapshots),
        cmocka_unit_test(cuts_an_unproven_tail),
        cmocka_unit_test(says_why_it_refuses),
        cmocka_unit_test(append_refuses_what_would_be_void),
        cmocka_unit_test(replay_leaves_out_what_does_not_count),
        cmocka_unit_test(stale_bytes_never_check),
        cmocka_unit_test(generations_grow),
        cmocka_unit_test(a_full_disk_refuses_and_recovers),
        cmocka_unit_test(snapshots_bound_the_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
