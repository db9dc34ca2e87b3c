/* The model's life: frames, crashes, names. The rules are in model_rules.c, the comparison with the
 * core in model_compare.c.
 *
 * State `now` is behind every frame. State `base` trails at a durable place; the frames between the
 * two are kept, so that a crash that loses some of them is a copy of base and a second walk. */
#include "sim/model_inside.h"

#include <stdio.h>

#define KEEP_BYTES (16 * MIB) /* of frames; then base moves up without a restart */

const char *invariant_text(int number)
{
    static const char *const texts[] = {
        "",
        "accepted minus terminal is empty after draining",
        "no task nobody submitted, none resurrected",
        "exactly one terminal record a task, immutable, the same to every reader",
        "a result follows a lease with the same task, attempt and epoch",
        "at most one valid lease a task, tokens strictly increase",
        "a stale token never changes anything",
        "same tenant and key: same task; another body: a conflict",
        "retry counts survive, the platform's failures are counted apart",
        "no lease before its time or after a cancel or deadline; a cancel holds",
        "one valid writer a log position, no acknowledged record is void",
        "live state, replay and snapshot with tail are the same",
        "nothing is truncated above the durable snapshot or a live reference",
        "accepted = queued + delayed + running + terminal; counts equal a recount",
        "a task's status never moves backwards for a reader",
        "a payload that is referred to is readable and its digest fits",
        "an operation that timed out applied wholly or not at all",
        "no acknowledgement from a deposed leader",
        "at most one charge a lease",
        "a changed byte is detected, never served",
        "every task that has not ended has exactly one owner or pending wake-up",
        "every task ends within a bound while a capable worker lives",
        "expired leases requeue within their bound, and live ones do not",
        "age per class is bounded",
        "failover completes within its bound",
        "disk and memory are bounded by live and retained state",
    };
    return number > 0 && number < (int)ARRAY_LEN(texts) ? texts[number] : "";
}

int model_bad(const Model *m, Buf *why, int invariant, const char *fmt, ...)
{
    if (m->quiet) return invariant;
    va_list ap;
    va_start(ap, fmt);
    buf_printf(why, "invariant %d (%s): ", invariant, invariant_text(invariant));
    buf_vprintf(why, fmt, ap);
    va_end(ap);
    return invariant;
}

/* ---- names ---- */

typedef struct {
    TableNode by_text;
    Name name;
} NameNode;

Name model_name_find(const Model *m, Str s)
{
    if (!s.n) return 0;
    for (TableNode *n = table_first(&m->name_by_text, hash_bytes(s.p, s.n)); n; n = table_next(n)) {
        Name name = CONTAINER_OF(n, NameNode, by_text)->name;
        if (str_eq(model_name_text(m, name), s)) return name;
    }
    return UINT32_MAX;
}

Name model_name(Model *m, Str s)
{
    Name found = model_name_find(m, s);
    if (found != UINT32_MAX) return found;
    NameAt *at = array_add(&m->names, sizeof *at);
    *at = (NameAt){m->name_text.len, s.n};
    buf_put_str(&m->name_text, s);
    NameNode *n = mem_new(sizeof *n);
    n->name = (Name)m->names.len - 1;
    table_add(&m->name_by_text, &n->by_text, hash_bytes(s.p, s.n));
    return n->name;
}

Str model_name_text(const Model *m, Name n)
{
    if (!n) return (Str){"", 0};
    const NameAt *at = ROW(m->names, NameAt, n);
    return (Str){(const char *)m->name_text.data + at->at, at->len};
}

/* ---- states ---- */

static void state_copy(State *to, const State *from)
{
    State kept = *to;
    *to = *from;
#define COPY(rows, type)                                                                           \
    to->rows = kept.rows;                                                                          \
    array_copy(&to->rows, &from->rows, sizeof(type))
    COPY(tasks, ModelTask);
    COPY(keys, ModelKey);
    COPY(files, ModelFile);
    COPY(versions, ModelVersion);
    COPY(flags, ModelFlag);
    COPY(tenants, ModelTenant);
    COPY(numbers, uint64_t);
    COPY(leased, uint64_t);
#undef COPY
}

static void state_done(State *s)
{
    mem_free(s->tasks.at);
    mem_free(s->keys.at);
    mem_free(s->files.at);
    mem_free(s->versions.at);
    mem_free(s->flags.at);
    mem_free(s->tenants.at);
    mem_free(s->numbers.at);
    mem_free(s->leased.at);
}

Model *model_new(const CoreLimits *limits)
{
    Model *m = mem_new(sizeof *m);
    m->limits = *limits;
    m->now.at.next_seq = m->base.at.next_seq = 1;
    m->now.low = m->base.low = 1;
    array_add(&m->names, sizeof(NameAt)); /* 0: the empty text */
    return m;
}

void model_free(Model *m)
{
    if (!m) return;
    state_done(&m->now);
    state_done(&m->base);
    mem_free(m->kept.at);
    buf_done(&m->bytes);
    TableIter it = {0};
    for (TableNode *n; (n = table_each(&m->name_by_text, &it));)
        mem_free(CONTAINER_OF(n, NameNode, by_text));
    table_done(&m->name_by_text);
    mem_free(m->names.at);
    buf_done(&m->name_text);
    mem_free(m);
}

void model_limits(Model *m, const CoreLimits *limits)
{
    m->limits = *limits;
}

/* ---- frames ---- */

static int frame_is_next(const Model *m, const Frame *f, bool claim, Buf *why)
{
    const LogPoint *at = &m->now.at;
    if (f->seq != at->next_seq)
        return model_bad(m, why, 10, "a frame has the sequence %llu, the next is %llu",
                         (unsigned long long)f->seq, (unsigned long long)at->next_seq);
    if (f->prev != at->chain)
        return model_bad(m, why, 10, "the frame at sequence %llu breaks the hash chain",
                         (unsigned long long)f->seq);
    if (f->time_ns < at->time_ns)
        return model_bad(m, why, 10, "shard time steps back by %lld ns at sequence %llu",
                         (long long)(at->time_ns - f->time_ns), (unsigned long long)f->seq);
    if (claim ? f->epoch <= at->epoch : f->epoch != at->epoch || f->holder != at->holder)
        return model_bad(
            m, why, claim ? 10 : 17,
            "the frame at sequence %llu is of epoch %llu, holder %llx; the claim is of "
            "epoch %llu, holder %llx",
            (unsigned long long)f->seq, (unsigned long long)f->epoch, (unsigned long long)f->holder,
            (unsigned long long)at->epoch, (unsigned long long)at->holder);
    return 0;
}

/* Judges and applies. */
static int take_frame(Model *m, Str bytes, Buf *why)
{
    Frame f;
    size_t len;
    if (frame_read(bytes, &f, &len) || len != bytes.n)
        return model_bad(m, why, 19, "what was appended is no frame");
    int broken = frame_is_next(m, &f, frame_is_claim(&f), why);
    size_t at = 0;
    uint32_t index = 0;
    Record r;
    int got = 0;
    while (!broken && (got = frame_next_record(&f, &at, &index, &r)) == 1)
        broken = model_rule(m, &f, &r, why);
    if (!broken && (got || index != f.records))
        broken = model_bad(m, why, 19, "the records of the frame at %llu break their format",
                           (unsigned long long)f.seq);
    m->now.at.next_seq = f.seq + f.records;
    m->now.at.chain = frame_chain((const uint8_t *)bytes.p, bytes.n);
    m->now.at.time_ns = f.time_ns;
    m->now.at.epoch = f.epoch;
    m->now.at.holder = f.holder;
    m->now.at.shard = f.shard;
    return broken;
}

static void walk_kept(Model *m, uint64_t through)
{
    m->quiet = true;
    Buf none = {0};
    for (size_t i = 0; i < m->kept.len && ROW(m->kept, KeptFrame, i)->last_seq <= through; i++) {
        const KeptFrame *k = ROW(m->kept, KeptFrame, i);
        (void)take_frame(m, (Str){(char *)m->bytes.data + k->begin, k->len}, &none);
    }
    buf_done(&none);
    m->quiet = false;
}

/* Moves base up to what is durable and lets go of those frames. m->now ends there too. */
static void base_to_durable(Model *m)
{
    state_copy(&m->now, &m->base);
    walk_kept(m, m->durable_seq);
    state_copy(&m->base, &m->now);
    size_t gone = 0, bytes = 0;
    while (gone < m->kept.len && ROW(m->kept, KeptFrame, gone)->last_seq <= m->durable_seq)
        bytes += ROW(m->kept, KeptFrame, gone++)->len;
    buf_drop(&m->bytes, bytes);
    m->kept.len -= gone;
    if (m->kept.len)
        memmove(m->kept.at, ROW(m->kept, KeptFrame, gone), m->kept.len * sizeof(KeptFrame));
    for (size_t i = 0; i < m->kept.len; i++) ROW(m->kept, KeptFrame, i)->begin -= bytes;
}

int model_frame(Model *m, Str bytes, Buf *why)
{
    KeptFrame *k = array_add(&m->kept, sizeof *k);
    *k = (KeptFrame){.begin = m->bytes.len, .len = bytes.n};
    buf_put_str(&m->bytes, bytes);
    int broken = take_frame(m, bytes, why);
    ROW(m->kept, KeptFrame, m->kept.len - 1)->last_seq = m->now.at.next_seq - 1;
    if (!broken && m->bytes.len > KEEP_BYTES &&
        ROW(m->kept, KeptFrame, 0)->last_seq <= m->durable_seq) {
        State live = {0};
        state_copy(&live, &m->now);
        base_to_durable(m);
        state_done(&m->now);
        m->now = live;
    }
    return broken;
}

void model_durable(Model *m, uint64_t seq)
{
    m->durable_seq = MAX(m->durable_seq, seq);
}

int model_restart(Model *m, const LogPoint *at, Buf *why)
{
    uint64_t last = at->next_seq - 1;
    if (last < m->durable_seq)
        return model_bad(m, why, 1,
                         "the log was replayed up to %llu, but everything up to %llu had been told "
                         "durable",
                         (unsigned long long)last, (unsigned long long)m->durable_seq);
    if (at->next_seq > m->now.at.next_seq)
        return model_bad(m, why, 10,
                         "the log was replayed up to %llu, but nothing beyond %llu was appended",
                         (unsigned long long)last, (unsigned long long)m->now.at.next_seq - 1);
    base_to_durable(m);
    walk_kept(m, last);
    const LogPoint *here = &m->now.at;
    if (here->next_seq != at->next_seq || here->chain != at->chain || here->epoch != at->epoch ||
        here->holder != at->holder || here->time_ns != at->time_ns)
        return model_bad(m, why, 10,
                         "the log was replayed up to %llu (epoch %llu, chain %llx); what was "
                         "appended was there %llu (epoch %llu, chain %llx)",
                         (unsigned long long)last, (unsigned long long)at->epoch,
                         (unsigned long long)at->chain, (unsigned long long)here->next_seq - 1,
                         (unsigned long long)here->epoch, (unsigned long long)here->chain);
    while (m->kept.len && ROW(m->kept, KeptFrame, m->kept.len - 1)->last_seq > last)
        m->bytes.len -= ROW(m->kept, KeptFrame, --m->kept.len)->len;
    return 0;
}

/* ---- volatile ---- */

void model_renewed(Model *m, uint64_t token, int64_t now_ns)
{
    for (size_t i = 0; i < m->now.leased.len; i++) {
        ModelTask *t = model_task(&m->now, *ROW(m->now.leased, uint64_t, i));
        if (t->token != token) continue;
        t->lease_until_ns = MAX(t->lease_until_ns, now_ns + m->limits.lease_ns);
        t->holder_gone = false;
        return;
    }
}

/* A second worker of a name gets a number behind it: "w", "w-2". */
static bool of_that_name(Str full, Str name)
{
    if (!str_starts(full, name)) return false;
    if (full.n == name.n) return true;
    for (size_t i = name.n + 1; i < full.n; i++)
        if (full.p[i] < '0' || full.p[i] > '9') return false;
    return full.p[name.n] == '-';
}

void model_holder_gone(Model *m, Str worker)
{
    for (size_t i = 0; i < m->now.leased.len; i++) {
        ModelTask *t = model_task(&m->now, *ROW(m->now.leased, uint64_t, i));
        if (of_that_name(model_name_text(m, t->worker), worker)) t->holder_gone = true;
    }
}

void model_judge_lease_ends(Model *m, bool on)
{
    m->judge_lease_ends = on;
}

int model_lease_left(const Model *m, uint64_t task_no, uint64_t token, Buf *why)
{
    const ModelTask *t = model_task(&m->now, task_no);
    if (!t || (t->token != token && t->ended_token != token))
        return model_bad(m, why, 4, "task %llu has no lease %llu on record",
                         (unsigned long long)task_no, (unsigned long long)token);
    if (token > m->durable_seq)
        return model_bad(m, why, 10, "lease %llu of task %llu left, but only %llu is durable",
                         (unsigned long long)token, (unsigned long long)task_no,
                         (unsigned long long)m->durable_seq);
    return 0;
}

/* ---- reading ---- */

uint64_t model_last_seq(const Model *m)
{
    return m->now.at.next_seq - 1;
}

uint64_t model_durable_seq(const Model *m)
{
    return m->durable_seq;
}

uint64_t model_hash(const Model *m)
{
    const State *s = &m->now;
    uint64_t h = s->at.chain;
    for (size_t i = 0; i < s->tasks.len; i++) {
        const ModelTask *t = ROW(s->tasks, ModelTask, i);
        uint64_t v[] = {h,         t->last_seq, t->state, t->token,    (uint64_t)t->device_ns,
                        t->burned, t->losses,   t->here,  t->forgotten};
        h = hash_bytes(v, sizeof v);
    }
    uint64_t v[] = {h, s->keys.len, s->files.len, s->history_seq};
    return hash_bytes(v, sizeof v);
}

uint64_t model_tasks(const Model *m)
{
    return m->now.tasks.len;
}

uint64_t model_count(const Model *m, TaskState s)
{
    return m->now.counts[s];
}

uint64_t model_records(const Model *m, uint8_t type)
{
    return type < REC_TYPES ? m->records[type] : 0;
}

uint64_t model_token(const Model *m, uint64_t task_no)
{
    const ModelTask *t = model_task(&m->now, task_no);
    return t ? t->token : 0;
}

bool model_terminal(const Model *m, uint64_t task_no)
{
    const ModelTask *t = model_task(&m->now, task_no);
    return t && task_state_terminal((TaskState)t->state);
}

int64_t model_device_ns(const Model *m, Str tenant)
{
    Name name = model_name_find(m, tenant);
    for (size_t i = 0; i < m->now.tenants.len; i++)
        if (ROW(m->now.tenants, ModelTenant, i)->name == name)
            return ROW(m->now.tenants, ModelTenant, i)->device_ns;
    return 0;
}

static const ModelFile *find_file(const Model *m, Str id)
{
    Name name = model_name_find(m, id);
    for (uint64_t no = m->now.files.len; no; no--)
        if (model_file(&m->now, no)->id == name) return model_file(&m->now, no);
    return NULL;
}

bool model_has_file(const Model *m, Str id)
{
    const ModelFile *f = find_file(m, id);
    return f && f->here;
}

bool model_needs_file(const Model *m, Str id)
{
    const ModelFile *f = find_file(m, id);
    return f && (f->here || f->over_seq > m->durable_seq);
}

void model_each_file(Model *m, void (*each)(void *ctx, Str id, uint64_t size, const Sha256 *sha256),
                     void *ctx)
{
    for (uint64_t no = 1; no <= m->now.files.len; no++) {
        const ModelFile *f = model_file(&m->now, no);
        if (f->here) each(ctx, model_name_text(m, f->id), f->size, &f->sha256);
    }
}
