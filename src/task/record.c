#include "task/record.h"

#include <string.h>

/* ---- one pass over a record's fields, writing or reading ---- */

typedef struct {
    FrameBuilder *out; /* writing, or NULL */
    Cursor in;
    const Frame *frame; /* reading */
} Codec;

static void c_u8(Codec *c, uint8_t *v)
{
    if (c->out)
        buf_u8(&c->out->meta, *v);
    else
        *v = cursor_u8(&c->in);
}

static void c_u32(Codec *c, uint32_t *v)
{
    if (c->out)
        buf_u32(&c->out->meta, *v);
    else
        *v = cursor_u32(&c->in);
}

static void c_u64(Codec *c, uint64_t *v)
{
    if (c->out)
        buf_u64(&c->out->meta, *v);
    else
        *v = cursor_u64(&c->in);
}

static void c_i64(Codec *c, int64_t *v)
{
    uint64_t u = (uint64_t)*v;
    c_u64(c, &u);
    *v = (int64_t)u;
}

/* Short strings take one byte of length, long ones five. */
static void c_str(Codec *c, Str *s)
{
    if (c->out) {
        CHECK(s->n <= UINT32_MAX);
        if (s->n < 255) {
            buf_u8(&c->out->meta, (uint8_t)s->n);
        } else {
            buf_u8(&c->out->meta, 255);
            buf_u32(&c->out->meta, (uint32_t)s->n);
        }
        buf_put_str(&c->out->meta, *s);
        return;
    }
    size_t n = cursor_u8(&c->in);
    if (n == 255) n = cursor_u32(&c->in);
    const uint8_t *p = cursor_bytes(&c->in, n);
    *s = (Str){p ? (const char *)p : "", p ? n : 0};
}

static void c_digest(Codec *c, Digest128 *d)
{
    c_u64(c, &d->lo);
    c_u64(c, &d->hi);
}

static void c_numbers(Codec *c, NumberList *l)
{
    c_u32(c, &l->len);
    if (c->out) {
        for (uint32_t i = 0; i < l->len; i++) buf_u64(&c->out->meta, l->at[i]);
        return;
    }
    if (l->len > TASK_FILES_MAX) c->in.bad = true;
    const uint8_t *p = c->in.bad ? NULL : cursor_bytes(&c->in, (size_t)l->len * 8);
    if (!p) l->len = 0;
    l->raw = (Str){(const char *)p, (size_t)l->len * 8};
}

static void c_payload(Codec *c, PayloadRef *p)
{
    uint32_t at = 0;
    if (c->out) {
        CHECK(p->bytes.n <= UINT32_MAX && c->out->payload.len + p->bytes.n <= UINT32_MAX);
        at = (uint32_t)c->out->payload.len;
        p->len = (uint32_t)p->bytes.n;
        p->digest = digest128(p->bytes.p, p->bytes.n);
        buf_put_str(&c->out->payload, p->bytes);
    }
    c_u32(c, &at);
    c_u32(c, &p->len);
    c_digest(c, &p->digest);
    if (c->out) return;
    p->erased = c->frame->flags & FRAME_ERASED;
    if (at > c->frame->payload.n || p->len > c->frame->payload.n - at) {
        c->in.bad = true;
        return;
    }
    p->bytes = p->erased ? (Str){"", 0} : (Str){c->frame->payload.p + at, p->len};
}

/* ---- the records ---- */

static void claim(Codec *c, RecClaim *r)
{
    c_u64(c, &r->epoch);
    c_u64(c, &r->holder);
    c_str(c, &r->address);
    c_str(c, &r->id_key);
    c_u32(c, &r->feature_level);
}

static void submit(Codec *c, RecSubmit *r)
{
    c_u64(c, &r->no);
    c_str(c, &r->tenant);
    c_str(c, &r->model);
    c_str(c, &r->version);
    c_u8(c, &r->class);
    c_u8(c, &r->max_attempts);
    c_i64(c, &r->not_before_ns);
    c_i64(c, &r->deadline_ns);
    c_u32(c, &r->retention_s);
    c_str(c, &r->metadata);
    c_str(c, &r->traceparent);
    c_str(c, &r->retry_of);
    c_u64(c, &r->rollout);
    c_u8(c, &r->rollout_arm);
    c_str(c, &r->webhook);
    c_u8(c, &r->has_key);
    if (r->has_key) {
        c_digest(c, &r->key);
        c_digest(c, &r->body);
    }
    c_numbers(c, &r->files);
    c_payload(c, &r->input);
}

static void lease(Codec *c, RecLease *r)
{
    c_u64(c, &r->no);
    c_u64(c, &r->batch);
    c_str(c, &r->worker);
    c_u32(c, &r->device);
    c_u32(c, &r->batch_size);
}

static void finish(Codec *c, RecFinish *r)
{
    c_u64(c, &r->no);
    c_u64(c, &r->token);
    c_u8(c, &r->ok);
    c_u8(c, &r->fail);
    c_u8(c, &r->retryable);
    c_u8(c, &r->burn);
    c_str(c, &r->message);
    c_i64(c, &r->device_ns);
    c_i64(c, &r->run_ns);
    c_numbers(c, &r->files);
    c_payload(c, &r->output);
}

static void requeue(Codec *c, RecRequeue *r)
{
    c_u64(c, &r->no);
    c_u64(c, &r->token);
    c_u8(c, &r->fail);
    c_u8(c, &r->burn);
    c_u8(c, &r->loss);
    c_str(c, &r->message);
    c_i64(c, &r->not_before_ns);
    c_i64(c, &r->device_ns);
    c_i64(c, &r->run_ns);
}

static void slot_free(Codec *c, RecSlotFree *r)
{
    c_u64(c, &r->no);
    c_u64(c, &r->token);
    c_i64(c, &r->device_ns);
    c_i64(c, &r->run_ns);
}

static void file_put(Codec *c, RecFilePut *r)
{
    c_u64(c, &r->no);
    c_str(c, &r->id);
    c_str(c, &r->tenant);
    c_str(c, &r->name);
    c_str(c, &r->content_type);
    c_str(c, &r->sha256);
    c_u64(c, &r->size);
    c_u64(c, &r->owner_task);
    c_i64(c, &r->expires_ns);
}

static void model(Codec *c, RecModel *r)
{
    c_str(c, &r->name);
    c_str(c, &r->version);
    c_str(c, &r->digest);
    c_str(c, &r->info);
}

static void flag(Codec *c, RecFlag *r)
{
    c_str(c, &r->kind);
    c_str(c, &r->subject);
    c_u8(c, &r->on);
}

static void checkpoint(Codec *c, RecCheckpoint *r)
{
    c_u64(c, &r->no);
    c_u64(c, &r->token);
    c_u64(c, &r->unit);
    c_u64(c, &r->file);
}

static void any(Codec *c, RecordType type, RecordData *d)
{
    switch (type) {
    case REC_CLAIM:
        claim(c, &d->claim);
        break;
    case REC_SUBMIT:
        submit(c, &d->submit);
        break;
    case REC_LEASE:
        lease(c, &d->lease);
        break;
    case REC_FINISH:
        finish(c, &d->finish);
        break;
    case REC_REQUEUE:
        requeue(c, &d->requeue);
        break;
    case REC_CANCEL:
    case REC_EXPIRE:
    case REC_EVICT:
    case REC_FORGET:
        c_u64(c, &d->task.no);
        break;
    case REC_SLOT_FREE:
        slot_free(c, &d->slot_free);
        break;
    case REC_FILE_PUT:
        file_put(c, &d->file_put);
        break;
    case REC_FILE_DELETE:
        c_u64(c, &d->file_delete.no);
        break;
    case REC_IDEM_EXPIRE:
        c_i64(c, &d->idem_expire.before_ns);
        break;
    case REC_MODEL:
        model(c, &d->model);
        break;
    case REC_FLAG:
        flag(c, &d->flag);
        break;
    case REC_CHECKPOINT:
        checkpoint(c, &d->checkpoint);
        break;
    case REC_HISTORY:
        c_u64(c, &d->history.settled_seq);
        break;
    case REC_TYPES:
        CHECK(!"a record type");
    }
}

void record_put(FrameBuilder *b, RecordType type, RecordData *data)
{
    Codec c = {.out = b};
    frame_begin_record(b, (uint8_t)type, RECORD_VERSION);
    any(&c, type, data);
    frame_end_record(b);
}

int record_get(const Frame *f, const Record *r, RecordData *ret)
{
    if (r->type == 0 || r->type >= REC_TYPES || r->version != RECORD_VERSION)
        return ERR_UNSUPPORTED;
    RecordData data = {0};
    Codec c = {.in = cursor_of(r->body.p, r->body.n), .frame = f};
    any(&c, (RecordType)r->type, &data);
    if (c.in.bad || c.in.p != c.in.end) return ERR_INVALID;
    *ret = data;
    return 0;
}

uint64_t number_list_at(const NumberList *l, uint32_t i)
{
    CHECK(i < l->len);
    return l->at ? l->at[i] : load_u64(l->raw.p + (size_t)i * 8);
}

/* ---- for people ---- */

const char *record_type_name(uint8_t type)
{
    static const char *const names[REC_TYPES] = {
        [REC_CLAIM] = "claim",
        [REC_SUBMIT] = "submit",
        [REC_LEASE] = "lease",
        [REC_FINISH] = "finish",
        [REC_REQUEUE] = "requeue",
        [REC_CANCEL] = "cancel",
        [REC_EXPIRE] = "expire",
        [REC_SLOT_FREE] = "slot_free",
        [REC_EVICT] = "evict",
        [REC_FORGET] = "forget",
        [REC_FILE_PUT] = "file_put",
        [REC_FILE_DELETE] = "file_delete",
        [REC_IDEM_EXPIRE] = "idem_expire",
        [REC_MODEL] = "model",
        [REC_FLAG] = "flag",
        [REC_CHECKPOINT] = "checkpoint",
        [REC_HISTORY] = "history",
    };
    return type > 0 && type < REC_TYPES ? names[type] : "unknown";
}

static const char *fail_text(uint8_t fail)
{
    return fail < FAILS ? fail_name((FailCode)fail) : "?";
}

const char *record_describe(const Frame *f, const Record *r, Buf *b)
{
    const char *name = record_type_name(r->type);
    RecordData d;
    int err = record_get(f, r, &d);
    if (err) {
        buf_printf(b, "(%s: type %u, version %u)", err_text(err), r->type, r->version);
        return name;
    }
    switch ((RecordType)r->type) {
    case REC_CLAIM:
        buf_printf(b, "epoch %llu by %016llx at %.*s", (unsigned long long)d.claim.epoch,
                   (unsigned long long)d.claim.holder, STR_ARG(d.claim.address));
        break;
    case REC_SUBMIT:
        buf_printf(b, "task %llu tenant %.*s model %.*s:%.*s %s, input %u bytes%s",
                   (unsigned long long)d.submit.no, STR_ARG(d.submit.tenant),
                   STR_ARG(d.submit.model), STR_ARG(d.submit.version),
                   d.submit.class < CLASSES ? task_class_name((TaskClass)d.submit.class) : "?",
                   d.submit.input.len, d.submit.has_key ? ", keyed" : "");
        break;
    case REC_LEASE:
        buf_printf(b, "task %llu to %.*s device %u, batch %llu of %u",
                   (unsigned long long)d.lease.no, STR_ARG(d.lease.worker), d.lease.device,
                   (unsigned long long)d.lease.batch, d.lease.batch_size);
        break;
    case REC_FINISH:
        buf_printf(b, "task %llu token %llu %s", (unsigned long long)d.finish.no,
                   (unsigned long long)d.finish.token, d.finish.ok ? "succeeded" : "failed");
        if (d.finish.ok)
            buf_printf(b, ", output %u bytes", d.finish.output.len);
        else
            buf_printf(b, " %s", fail_text(d.finish.fail));
        break;
    case REC_REQUEUE:
        buf_printf(b, "task %llu token %llu %s%s", (unsigned long long)d.requeue.no,
                   (unsigned long long)d.requeue.token, fail_text(d.requeue.fail),
                   d.requeue.burn ? ", attempt burned" : "");
        break;
    case REC_CANCEL:
    case REC_EXPIRE:
    case REC_EVICT:
    case REC_FORGET:
        buf_printf(b, "task %llu", (unsigned long long)d.task.no);
        break;
    case REC_SLOT_FREE:
        buf_printf(b, "task %llu token %llu", (unsigned long long)d.slot_free.no,
                   (unsigned long long)d.slot_free.token);
        break;
    case REC_FILE_PUT:
        buf_printf(b, "file %llu %.*s, %llu bytes", (unsigned long long)d.file_put.no,
                   STR_ARG(d.file_put.id), (unsigned long long)d.file_put.size);
        break;
    case REC_FILE_DELETE:
        buf_printf(b, "file %llu", (unsigned long long)d.file_delete.no);
        break;
    case REC_IDEM_EXPIRE:
        buf_puts(b, "before ");
        buf_put_time(b, d.idem_expire.before_ns);
        break;
    case REC_MODEL:
        buf_printf(b, "%.*s:%.*s", STR_ARG(d.model.name), STR_ARG(d.model.version));
        break;
    case REC_FLAG:
        buf_printf(b, "%.*s %.*s %s", STR_ARG(d.flag.kind), STR_ARG(d.flag.subject),
                   d.flag.on ? "on" : "off");
        break;
    case REC_CHECKPOINT:
        buf_printf(b, "task %llu token %llu unit %llu", (unsigned long long)d.checkpoint.no,
                   (unsigned long long)d.checkpoint.token, (unsigned long long)d.checkpoint.unit);
        break;
    case REC_HISTORY:
        buf_printf(b, "all that settled up to %llu", (unsigned long long)d.history.settled_seq);
        break;
    case REC_TYPES:
        break;
    }
    return name;
}
