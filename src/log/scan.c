/* scan.c: reads a log and tells everything about it; changes nothing, takes no lock, needs no open
 * log. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "log/inside.h"

typedef struct {
    Disk *disk;
    const LogScan *scan;
    LogNames names;
    uint64_t covered; /* the newest good snapshot's next_seq */
    bool damaged;     /* acknowledged data */
    LogPoint at;      /* behind what was read; valid when at_known */
    bool at_known;
    SegmentHead before; /* the last head that was good; generation 0 = none */
} Scan;

HR_PRINTF(5, 6)
static void tell(Scan *s, const char *file, uint64_t offset, const Frame *frame, const char *fmt,
                 ...)
{
    if (!s->scan->item) return;
    char text[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    s->scan->item(s->scan->ctx, file, offset, text, frame);
}

static void fault(Scan *s, const char *file, uint64_t offset, bool acknowledged, const char *what)
{
    s->damaged |= acknowledged;
    if (s->scan->fault) s->scan->fault(s->scan->ctx, file, offset, acknowledged, what);
}

static int scan_snapshots(Scan *s)
{
    for (size_t i = 0; i < s->names.snapshots_len; i++) {
        char name[LOG_NAME_LEN];
        LogPoint covers;
        uint64_t bytes, bad_at = 0;
        const char *what = "it cannot be read";
        snapshot_name(name, s->names.snapshots[i]);
        int err = snapshot_read(s->disk, name, NULL, &covers, &bytes, &bad_at, &what);
        if (err == ERR_UNSUPPORTED) what = "a newer format";
        if (err) {
            fault(s, name, bad_at, true, what);
        } else if (covers.next_seq != s->names.snapshots[i]) {
            fault(s, name, 0, true, "the name is not the one it was written under");
        } else {
            s->covered = MAX(s->covered, covers.next_seq);
            tell(s, name, 0, NULL,
                 "snapshot of all below record %" PRIu64 ", %" PRIu64 " bytes, epoch %" PRIu64
                 ", chain %016" PRIx64,
                 covers.next_seq, bytes, covers.epoch, covers.chain);
        }
    }
    return 0;
}

static void scan_frame(Scan *s, const char *name, const SegmentItem *item)
{
    Frame f;
    size_t len;
    int err = frame_read(item->frame, &f, &len);
    if (err == ERR_UNSUPPORTED) {
        fault(s, name, item->offset, true, "a frame of a version that this build does not know");
        s->at_known = false;
        return;
    }
    if (err || len != item->frame.n) {
        fault(s, name, item->offset, true, "the frame breaks its format");
        s->at_known = false;
        return;
    }
    bool counts = frame_counts(&f, frame_is_claim(&f), (const uint8_t *)item->frame.p, len, &s->at);
    tell(s, name, item->offset, &f, "frame: records %" PRIu64 " to %" PRIu64 ", %zu bytes%s", f.seq,
         f.seq + f.records - 1, len, counts ? "" : "; it does not count");
    size_t at = 0;
    uint32_t index = 0;
    Record record;
    int got;
    while ((got = frame_next_record(&f, &at, &index, &record)) > 0) {
    }
    if (got < 0) fault(s, name, item->offset, true, "the frame's records break their format");
}

/* How this segment goes with the one before it. */
static void scan_link(Scan *s, const char *name, const SegmentHead *h)
{
    const SegmentHead *b = &s->before;
    bool needed = h->start.next_seq >
                  s->covered; /* else a snapshot holds all that lies before it */
    const char *what = NULL;
    if (b->generation == 0) {
        if (h->prev_generation != 0) what = "the segments before it are missing";
    } else if (h->number != b->number + 1) {
        what = "the segment before it is missing";
    } else if (h->prev_generation != b->generation) {
        what = "the segment does not belong to the one before it";
        needed = true;
    } else if (s->at_known &&
               (s->at.next_seq != h->start.next_seq || s->at.chain != h->start.chain ||
                s->at.epoch != h->start.epoch || s->at.holder != h->start.holder ||
                s->at.time_ns != h->start.time_ns || s->at.shard != h->start.shard)) {
        what = "the segment does not begin where the one before it ends";
        needed = true;
    }
    if (what && needed)
        fault(s, name, 0, true, what);
    else if (what)
        tell(s, name, 0, NULL, "begins the log: a snapshot covers what was before");
}

static void scan_segment(Scan *s, uint64_t number, uint64_t end)
{
    char name[LOG_NAME_LEN];
    segment_name(name, number);
    SegmentReader r;
    int err = segment_reader_open(&r, s->disk, name, end);
    if (!err && r.head.number != number) {
        segment_reader_done(&r);
        err = ERR_CORRUPT;
    }
    if (err) {
        fault(s, name, 0, true,
              err == ERR_CORRUPT ? "the segment's head does not check" : err_text(err));
        s->at_known = false;
        s->before = (SegmentHead){.generation = UINT64_MAX, .number = number};
        return;
    }
    tell(s, name, 0, NULL,
         "segment: generation %" PRIu64 ".%08" PRIx64 ", from record %" PRIu64 ", epoch %" PRIu64
         "%s",
         r.head.generation >> 32, r.head.generation & UINT32_MAX, r.head.start.next_seq,
         r.head.start.epoch, end ? "" : ", the last");
    if (s->before.generation != UINT64_MAX) scan_link(s, name, &r.head);
    s->before = r.head;
    s->at = r.head.start;
    s->at_known = true;
    for (;;) {
        SegmentItem item;
        int got = segment_reader_next(&r, &item);
        if (got == 0) break;
        if (got < 0) {
            if (got == ERR_CORRUPT)
                fault(s, name, r.bad_at, true, r.bad_what);
            else
                fault(s, name, r.at, true, err_text(got));
            s->at_known = false;
            break;
        }
        if (item.is_group)
            tell(s, name, item.offset, NULL, "group: %u frames, %u bytes; synced up to here",
                 item.group.frames, item.group.body_len);
        else
            scan_frame(s, name, &item);
    }
    if (r.torn_bytes) fault(s, name, r.at, false, "a torn tail: written, but never acknowledged");
    segment_reader_done(&r);
}

int log_scan(Disk *disk, const LogScan *scan)
{
    Scan s = {.disk = disk, .scan = scan};
    int err = log_names(disk, &s.names);
    if (err) return err;
    Buf why = {0};
    err = log_format_check(disk, false, s.names.segments_len || s.names.snapshots_len, &why);
    if (err) fault(&s, "format", 0, true, why.len ? buf_z(&why) : err_text(err));
    buf_done(&why);
    err = scan_snapshots(&s);
    for (size_t i = 0; i < s.names.segments_len && !err; i++) {
        uint64_t number = s.names.segments[i], end = 0;
        SegmentHead next;
        if (i + 1 < s.names.segments_len && s.names.segments[i + 1] == number + 1) {
            char name[LOG_NAME_LEN];
            segment_name(name, number + 1);
            if (segment_head_load(disk, name, &next, NULL) == 0) end = next.prev_end;
        }
        scan_segment(&s, number, end);
    }
    if (!err && s.names.snapshots_len && !s.names.segments_len)
        fault(&s, "log", 0, true, "there are snapshots, but no segment");
    else if (!err && s.names.segments_len && s.at_known && s.at.next_seq < s.covered)
        fault(&s, "log", 0, true, "the log ends below its snapshot");
    log_names_done(&s.names);
    return err ? err : s.damaged ? ERR_CORRUPT : 0;
}
