#include "wire/frame.h"

#include <string.h>

#define RECORD_HEAD_LEN 8
#define FLAGS_KNOWN     FRAME_ERASED

int frame_read(Str bytes, Frame *ret, size_t *ret_len)
{
    if (bytes.n < FRAME_HEAD_LEN) return ERR_INVALID;
    Cursor c = cursor_of(bytes.p, FRAME_HEAD_LEN);
    Frame f = {0};
    f.version = cursor_u16(&c);
    f.flags = cursor_u16(&c);
    f.records = cursor_u32(&c);
    uint32_t meta_len = cursor_u32(&c), payload_len = cursor_u32(&c);
    f.shard = cursor_u32(&c);
    uint32_t zero = cursor_u32(&c);
    f.epoch = cursor_u64(&c);
    f.holder = cursor_u64(&c);
    f.seq = cursor_u64(&c);
    f.prev = cursor_u64(&c);
    f.time_ns = (int64_t)cursor_u64(&c);

    if (f.version == 0) return ERR_INVALID;
    if (f.version > FRAME_VERSION) return ERR_UNSUPPORTED;
    uint64_t len = FRAME_HEAD_LEN + (uint64_t)meta_len + payload_len;
    if (len > FRAME_LEN_MAX) return ERR_LIMIT;
    if ((f.flags & ~FLAGS_KNOWN) || zero || f.records == 0) return ERR_INVALID;
    if ((uint64_t)f.records * RECORD_HEAD_LEN > meta_len || len > bytes.n) return ERR_INVALID;
    f.meta = (Str){bytes.p + FRAME_HEAD_LEN, meta_len};
    f.payload = (Str){f.meta.p + meta_len, payload_len};
    *ret = f;
    *ret_len = (size_t)len;
    return 0;
}

uint64_t frame_chain(const uint8_t *frame, size_t len)
{
    CHECK(len >= FRAME_HEAD_LEN);
    uint8_t head[FRAME_HEAD_LEN];
    memcpy(head, frame, sizeof head);
    head[2] = head[3] = 0; /* erasing a payload later must not change the chain */
    uint32_t meta_len = load_u32(frame + 8);
    CHECK(meta_len <= len - FRAME_HEAD_LEN);
    uint64_t chain = chain64(load_u64(frame + 48), head, sizeof head);
    return chain64(chain, frame + FRAME_HEAD_LEN, meta_len);
}

bool frame_is_claim(const Frame *f)
{
    return f->meta.n >= RECORD_HEAD_LEN && (uint8_t)f->meta.p[0] == FRAME_RECORD_CLAIM;
}

bool frame_counts(const Frame *f, bool is_claim, const uint8_t *bytes, size_t len, LogPoint *at)
{
    if (f->shard != at->shard || f->seq != at->next_seq || f->prev != at->chain) return false;
    if (f->time_ns < at->time_ns) return false;
    uint64_t next_seq;
    if (__builtin_add_overflow(f->seq, f->records, &next_seq)) return false;
    if (is_claim) {
        if (f->epoch <= at->epoch) return false;
    } else if (at->epoch == 0 || f->epoch != at->epoch || f->holder != at->holder) {
        return false;
    }
    at->epoch = f->epoch;
    at->holder = f->holder;
    at->next_seq = next_seq;
    at->chain = frame_chain(bytes, len);
    at->time_ns = f->time_ns;
    return true;
}

void frame_reset(FrameBuilder *b)
{
    buf_clear(&b->meta);
    buf_clear(&b->payload);
    b->records = 0;
    b->open = false;
}

void frame_done(FrameBuilder *b)
{
    buf_done(&b->meta);
    buf_done(&b->payload);
    *b = (FrameBuilder){0};
}

void frame_begin_record(FrameBuilder *b, uint8_t type, uint8_t version)
{
    CHECK(!b->open);
    b->open = true;
    b->begun = b->meta.len;
    b->records++;
    buf_u8(&b->meta, type);
    buf_u8(&b->meta, version);
    buf_u16(&b->meta, 0);
    buf_u32(&b->meta, 0); /* the length: frame_end_record fills it in */
}

void frame_end_record(FrameBuilder *b)
{
    CHECK(b->open);
    size_t len = b->meta.len - b->begun - RECORD_HEAD_LEN;
    CHECK(len <= FRAME_LEN_MAX);
    store_u32(b->meta.data + b->begun + 4, (uint32_t)len);
    b->open = false;
}

void frame_seal(const FrameBuilder *b, int64_t time_ns, LogPoint *at, Buf *out)
{
    CHECK(!b->open && b->records > 0);
    CHECK(time_ns >= at->time_ns);
    CHECK(FRAME_HEAD_LEN + b->meta.len + b->payload.len <= FRAME_LEN_MAX);
    size_t begin = out->len;
    buf_reserve(out, FRAME_HEAD_LEN + b->meta.len + b->payload.len);
    buf_u16(out, FRAME_VERSION);
    buf_u16(out, 0);
    buf_u32(out, b->records);
    buf_u32(out, (uint32_t)b->meta.len);
    buf_u32(out, (uint32_t)b->payload.len);
    buf_u32(out, at->shard);
    buf_u32(out, 0);
    buf_u64(out, at->epoch);
    buf_u64(out, at->holder);
    buf_u64(out, at->next_seq);
    buf_u64(out, at->chain);
    buf_u64(out, (uint64_t)time_ns);
    buf_put(out, b->meta.data, b->meta.len);
    buf_put(out, b->payload.data, b->payload.len);
    at->chain = frame_chain(out->data + begin, out->len - begin);
    at->next_seq += b->records;
    at->time_ns = time_ns;
}

int frame_next_record(const Frame *f, size_t *at, uint32_t *index, Record *ret)
{
    if (*at == f->meta.n) return *index == f->records ? 0 : ERR_INVALID;
    if (*index >= f->records || *at > f->meta.n || f->meta.n - *at < RECORD_HEAD_LEN)
        return ERR_INVALID;
    const char *p = f->meta.p + *at;
    uint32_t len = load_u32(p + 4);
    if (p[2] || p[3] || len > f->meta.n - *at - RECORD_HEAD_LEN) return ERR_INVALID;
    *ret = (Record){.type = (uint8_t)p[0],
                    .version = (uint8_t)p[1],
                    .seq = f->seq + *index,
                    .body = {p + RECORD_HEAD_LEN, len}};
    *at += RECORD_HEAD_LEN + len;
    ++*index;
    return 1;
}
