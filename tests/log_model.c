#include "log_model.h"

#include <string.h>

char model_context[128] = "log";

typedef struct {
    uint64_t next_seq, hash, frames;
    Buf snapshot;
    bool snapshot_began, snapshot_ended;
} Fold;

static void fold_set(Model *m, uint64_t next_seq, uint64_t hash)
{
    if (next_seq >= m->fold_cap) {
        size_t cap = MAX((size_t)next_seq + 1, m->fold_cap * 2);
        m->fold = mem_grow(m->fold, cap * sizeof *m->fold);
        memset(m->fold + m->fold_cap, 0, (cap - m->fold_cap) * sizeof *m->fold);
        m->fold_cap = cap;
    }
    m->fold[next_seq] = hash;
}

void model_init(Model *m, uint64_t seed, uint64_t segment_bytes)
{
    *m = (Model){.at = {.shard = 5, .next_seq = 1}};
    random_seed(&m->random, seed);
    m->options = (LogOptions){.shard = 5, .segment_bytes = segment_bytes, .seed = seed + 1};
    fold_set(m, 1, 0);
}

void model_done(Model *m)
{
    mem_free(m->fold);
    frame_done(&m->b);
    buf_done(&m->frame);
}

/* ---- replay ---- */

static uint8_t filler_byte(size_t i, uint64_t hash)
{
    return (uint8_t)(i * 7 + hash);
}

static int take_piece(void *ctx, const LogPoint *covers, Str piece)
{
    Fold *f = ctx;
    MUST(!f->snapshot_ended && f->frames == 0);
    f->snapshot_began = true;
    buf_put_str(&f->snapshot, piece);
    if (piece.n) return 0;
    f->snapshot_ended = true;
    MUST(f->snapshot.len >= 16);
    f->next_seq = load_u64(f->snapshot.data);
    f->hash = load_u64(f->snapshot.data + 8);
    MUST(f->next_seq == covers->next_seq);
    for (size_t i = 16; i < f->snapshot.len; i++)
        MUST(f->snapshot.data[i] == filler_byte(i, f->hash));
    return 0;
}

static int take_frame(void *ctx, const Frame *frame, Str bytes)
{
    Fold *f = ctx;
    MUST(f->snapshot_began == f->snapshot_ended);
    MUST(frame->seq == f->next_seq);
    f->next_seq += frame->records;
    f->hash = chain64(f->hash, bytes.p, bytes.n);
    f->frames++;
    return 0;
}

static LogReplay replay_into(Fold *f)
{
    return (LogReplay){.ctx = f, .snapshot = take_piece, .frame = take_frame};
}

int model_open(Model *m, Disk *d, Log **ret, Buf *why)
{
    Fold f = {.next_seq = 1};
    Log *log = NULL;
    LogPoint at;
    Buf text = {0};
    *ret = NULL;
    int err = log_open(d, &m->options, &log, &text);
    LogReplay r = replay_into(&f);
    if (!err) err = log_replay(log, &r, &at, &text);
    if (why) buf_put_str(why, buf_str(&text));
    MUST(!err || text.len > 0); /* every refusal says why */
    buf_done(&text);
    buf_done(&f.snapshot);
    if (err) {
        log_close(log);
        return err;
    }
    MUST(at.next_seq == f.next_seq);
    MUST(at.next_seq - 1 >= m->acked);    /* nothing acknowledged is lost */
    MUST(at.next_seq <= m->at.next_seq);  /* nothing is invented */
    MUST(f.hash == m->fold[at.next_seq]); /* and it is what was written */
    MUST(log_durable_seq(log) == at.next_seq - 1 && log_appended_seq(log) == at.next_seq - 1);
    m->at = at;
    m->acked = at.next_seq - 1; /* who replayed it may act on it */
    m->frames = f.frames;
    m->torn_bytes = log_torn_bytes(log);
    *ret = log;
    return 0;
}

/* ---- append ---- */

static void add_record(Model *m, uint8_t type, size_t bytes)
{
    frame_begin_record(&m->b, type, 1);
    for (size_t i = 0; i < bytes; i++) buf_u8(&m->b.meta, (uint8_t)(random_u64(&m->random) % 3));
    frame_end_record(&m->b);
}

static int append(Model *m, Log *log, LogPoint at, bool reserved)
{
    buf_clear(&m->frame);
    frame_seal(&m->b, m->at.time_ns + 1 + (int64_t)random_below(&m->random, 1000), &at, &m->frame);
    int err = log_append(log, buf_str(&m->frame), at.next_seq - 1, reserved);
    if (err) return err;
    uint64_t hash = chain64(m->fold[m->at.next_seq], m->frame.data, m->frame.len);
    m->at = at;
    fold_set(m, at.next_seq, hash);
    MUST(log_appended_seq(log) == at.next_seq - 1);
    return 0;
}

int model_append(Model *m, Log *log, size_t bytes, bool reserved)
{
    uint64_t records = 1 + random_below(&m->random, 3);
    frame_reset(&m->b);
    for (uint64_t i = 0; i < records; i++) add_record(m, 7, bytes / records / 2);
    for (size_t i = 0; i < bytes / 2; i++) buf_u8(&m->b.payload, (uint8_t)random_u64(&m->random));
    return append(m, log, m->at, reserved);
}

int model_claim(Model *m, Log *log)
{
    LogPoint at = m->at;
    at.epoch++;
    at.holder = random_u64(&m->random);
    frame_reset(&m->b);
    add_record(m, FRAME_RECORD_CLAIM, 10);
    return append(m, log, at, true);
}

int model_commit(Model *m, Log *log)
{
    uint64_t seq = 0;
    int err = log_commit(log, &seq);
    if (err) return err;
    MUST(seq == m->at.next_seq - 1 && seq == log_durable_seq(log));
    m->acked = seq;
    return 0;
}

int model_snapshot(Model *m, Log *log, size_t filler)
{
    Fold f = {.next_seq = 1};
    LogPoint at;
    Buf why = {0};
    LogReplay r = replay_into(&f);
    int err = log_replay_sealed(log, &r, &at, &why);
    MUST(!err || why.len > 0);
    buf_done(&why);
    buf_done(&f.snapshot);
    if (err) return err;
    MUST(at.next_seq == f.next_seq && f.hash == m->fold[at.next_seq]);
    MUST(at.next_seq <= log_durable_seq(log) + 1);

    LogSnapshot *s;
    err = log_snapshot_begin(log, &at, &s);
    if (err) return err;
    Buf content = {0};
    buf_u64(&content, f.next_seq);
    buf_u64(&content, f.hash);
    for (size_t i = 16; i < 16 + filler; i++) buf_u8(&content, filler_byte(i, f.hash));
    for (size_t i = 0; i < content.len && !err;) { /* in pieces that do not fit the chunks */
        size_t n = 1 + (size_t)random_below(&m->random, 50000);
        n = MIN(n, content.len - i);
        err = log_snapshot_put(s, (Str){(const char *)content.data + i, n});
        i += n;
    }
    buf_done(&content);
    if (err) {
        log_snapshot_abandon(s);
        return err;
    }
    return log_snapshot_commit(s);
}
