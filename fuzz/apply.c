/* A log of any records: whatever they say, and in whatever order, a core applies them or counts
 * them as misfits; its own figures add up, and its snapshot gives the same state. The bytes are
 * read as fields of records, so that numbers of tasks and tokens often fit. */
#include "core_checks.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct {
    Cursor in;
    Core *c;
    LogPoint at;
    uint64_t files[8];
} Feed;

static uint64_t number(Feed *f)
{
    uint8_t b = cursor_u8(&f->in);
    return b < 250 ? b : cursor_u64(&f->in);
}

static Str text(Feed *f, Str often)
{
    uint8_t n = cursor_u8(&f->in);
    if (n == 0) return often;
    if (n > 40) return (Str){"", 0};
    const uint8_t *p = cursor_bytes(&f->in, n);
    return p ? (Str){(const char *)p, n} : (Str){"", 0};
}

/* A task's number, and its lease's token when `number` says so. */
static uint64_t task_no(Feed *f)
{
    uint64_t no = number(f);
    return no < 100 && f->c->next_no > 1 ? 1 + no % (f->c->next_no - 1) : no;
}

static uint64_t token_of(Feed *f, uint64_t no)
{
    uint64_t token = number(f);
    const Task *t = core_task(f->c, no);
    return t && token < 200 ? t->run->token : token;
}

static NumberList files(Feed *f)
{
    NumberList l = {.at = f->files, .len = cursor_u8(&f->in) % 4};
    for (uint32_t i = 0; i < l.len; i++) f->files[i] = number(f);
    return l;
}

static void submit(Feed *f, RecSubmit *r)
{
    uint64_t no = number(f);
    r->no = no ? no : f->c->next_no;
    r->tenant = text(f, STR("t"));
    r->model = text(f, STR("m"));
    r->version = text(f, STR("1"));
    r->class = cursor_u8(&f->in) % 5;
    r->max_attempts = cursor_u8(&f->in);
    r->not_before_ns = (int64_t)number(f);
    r->deadline_ns = (int64_t)number(f);
    r->retention_s = (uint32_t)number(f);
    r->metadata = text(f, STR(""));
    r->retry_of = text(f, STR(""));
    r->has_key = cursor_u8(&f->in) & 1;
    r->key.lo = number(f);
    r->files = files(f);
    r->input.bytes = text(f, STR("{}"));
}

static void finish(Feed *f, RecFinish *r)
{
    r->no = task_no(f);
    r->token = token_of(f, r->no);
    uint8_t flags = cursor_u8(&f->in);
    r->ok = flags & 1;
    r->retryable = flags >> 1 & 1;
    r->burn = flags >> 2 & 1;
    r->fail = (flags >> 3) % (FAILS + 1);
    r->message = text(f, STR(""));
    r->device_ns = (int64_t)(number(f) >> 8);
    r->run_ns = (int64_t)(number(f) >> 8);
    r->files = files(f);
    r->output.bytes = text(f, STR("1"));
}

static void requeue(Feed *f, RecRequeue *r)
{
    r->no = task_no(f);
    r->token = token_of(f, r->no);
    uint8_t flags = cursor_u8(&f->in);
    r->burn = flags & 1;
    r->loss = flags >> 1 & 1;
    r->fail = (flags >> 2) % (FAILS + 1);
    r->message = text(f, STR(""));
    r->not_before_ns = (int64_t)number(f);
    r->device_ns = (int64_t)(number(f) >> 8);
}

static void file_put(Feed *f, RecFilePut *r)
{
    static char id[] = "file_00000000000000000000000000";
    uint64_t no = number(f);
    r->no = no ? no : f->c->next_file_no;
    id[30] = (char)('A' + f->c->next_file_no % 26);
    r->id = text(f, STR(id));
    r->tenant = text(f, STR("t"));
    r->name = text(f, STR("n"));
    r->sha256 = (Str){"0123456789abcdef0123456789abcdef", 32};
    r->owner_task = task_no(f);
    r->expires_ns = (int64_t)number(f);
}

static void any(Feed *f, RecordType type, RecordData *d)
{
    switch (type) {
    case REC_CLAIM:
        d->claim.epoch = f->c->epoch;
        d->claim.address = text(f, STR("a"));
        break;
    case REC_SUBMIT:
        submit(f, &d->submit);
        break;
    case REC_LEASE:
        d->lease = (RecLease){.no = task_no(f), .batch = number(f), .worker = text(f, STR("w"))};
        break;
    case REC_FINISH:
        finish(f, &d->finish);
        break;
    case REC_REQUEUE:
        requeue(f, &d->requeue);
        break;
    case REC_CANCEL:
    case REC_EXPIRE:
    case REC_EVICT:
    case REC_FORGET:
        d->task.no = task_no(f);
        break;
    case REC_SLOT_FREE:
        d->slot_free.no = task_no(f);
        d->slot_free.token = token_of(f, d->slot_free.no);
        d->slot_free.device_ns = (int64_t)(number(f) >> 8);
        break;
    case REC_FILE_PUT:
        file_put(f, &d->file_put);
        break;
    case REC_FILE_DELETE:
        d->file_delete.no = number(f);
        break;
    case REC_IDEM_EXPIRE:
        d->idem_expire.before_ns = (int64_t)number(f);
        break;
    case REC_MODEL:
        d->model = (RecModel){text(f, STR("m")),
                              text(f, STR("1")),
                              {"0123456789abcdef0123456789abcdef", 32},
                              text(f, STR("{}"))};
        break;
    case REC_FLAG:
        d->flag = (RecFlag){text(f, STR("model_paused")), text(f, STR("m")), number(f) & 1};
        break;
    case REC_CHECKPOINT:
        d->checkpoint = (RecCheckpoint){task_no(f), 0, number(f), number(f)};
        d->checkpoint.token = token_of(f, d->checkpoint.no);
        break;
    case REC_HISTORY:
        d->history.settled_seq = number(f);
        break;
    case REC_TYPES:
        break;
    }
}

static void one_frame(Feed *f, FrameBuilder *b, Buf *bytes)
{
    Frame frame;
    size_t len;
    buf_clear(bytes);
    frame_seal(b, f->at.time_ns + (int64_t)(number(f) % (100 * NS_PER_S)), &f->at, bytes);
    frame_reset(b);
    CHECK(frame_read(buf_str(bytes), &frame, &len) == 0 && core_apply(f->c, &frame) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 8 * KIB) return 0;
    CoreLimits limits;
    core_limits_default(&limits);
    limits.finished_max = 10;
    Feed f = {.in = cursor_of(data, size), .at = {.next_seq = 1, .epoch = 1, .holder = 1}};
    f.c = core_new(&limits, 1);
    FrameBuilder b = {0};
    Buf bytes = {0};
    const uint8_t key[16] = {1};
    core_claim(f.c, 1, 1, STR("fuzz"), key, &b);
    one_frame(&f, &b, &bytes);
    bool observed = false;
    while (cursor_left(&f.in)) {
        uint8_t op = cursor_u8(&f.in);
        RecordType type = (RecordType)(1 + op % (REC_TYPES - 1));
        if (op >= 250) {
            int64_t now = f.at.time_ns + (int64_t)(number(&f) % 100) * NS_PER_S;
            if (!observed) check_observed(f.c, now);
            observed = true;
            check_due(f.c, &f.at, now, 20);
            continue;
        }
        RecordData d = {0};
        any(&f, type, &d);
        record_put(&b, type, &d);
        if (op & 1) continue; /* another one into the same frame */
        one_frame(&f, &b, &bytes);
    }
    if (b.records) one_frame(&f, &b, &bytes);
    check_core(f.c);
    check_restores(f.c);
    if (!observed) check_observed(f.c, f.at.time_ns);
    check_due(f.c, &f.at, f.at.time_ns + 3600 * NS_PER_S, 200);
    check_core(f.c);
    core_free(f.c);
    frame_done(&b);
    buf_done(&bytes);
    return 0;
}
