/* snapshot.c: the logged state as a stream of items, and back.
 *
 *     item = u32 len | u8 kind | body           numbers as LEB128, strings as len + bytes
 *     order: HEAD, MODEL*, FLAG*, TENANT*, FILE*, TASK* (by number), SETTLED (their order),
 *            IDEM*, END
 *
 * A stream that breaks its format or tells of a state that no log leads to is refused: its bytes
 * are covered by checksums, so that only a mistake of ours could make one, and nothing may go on
 * from it.
 *
 * Symbols are written as text: their numbers depend on how the state was reached, so they stay out
 * of the stream, and the stream's hash is the state's. One pass over the fields of an item both
 * writes and reads it. */
#include "task/core.h"

#include <stdlib.h>
#include <string.h>

#define SNAPSHOT_VERSION 3
#define ROW_VERSION      1 /* of one task or file in the history view */
#define PIECE_MAX        (64 * KIB)

typedef enum {
    ITEM_HEAD = 1,
    ITEM_MODEL,
    ITEM_FLAG,
    ITEM_TENANT,
    ITEM_FILE,
    ITEM_TASK,
    ITEM_SETTLED,
    ITEM_IDEM,
    ITEM_END
} Item;

/* ---- fields, written or read ---- */

typedef struct {
    Core *c;
    Buf *out;  /* writing, or NULL */
    Cursor in; /* reading */
} Pass;

static void p_u8(Pass *p, uint8_t *v)
{
    if (p->out)
        buf_u8(p->out, *v);
    else
        *v = cursor_u8(&p->in);
}

static void p_bool(Pass *p, bool *v)
{
    uint8_t u = *v;
    p_u8(p, &u);
    *v = u != 0;
}

static void p_u64(Pass *p, uint64_t *v)
{
    if (p->out)
        buf_var(p->out, *v);
    else
        *v = cursor_var(&p->in);
}

static void p_u32(Pass *p, uint32_t *v)
{
    uint64_t u = *v;
    p_u64(p, &u);
    if (u > UINT32_MAX) p->in.bad = true;
    *v = (uint32_t)u;
}

static void p_u16(Pass *p, uint16_t *v)
{
    uint32_t u = *v;
    p_u32(p, &u);
    if (u > UINT16_MAX) p->in.bad = true;
    *v = (uint16_t)u;
}

static void p_i64(Pass *p, int64_t *v)
{
    uint64_t u = (uint64_t)*v;
    p_u64(p, &u);
    *v = (int64_t)u;
}

/* A sequence, or a time, that lies close to another of its task: 0 (none), or 1 + its distance, the
 * sign in the lowest bit. Neither has its top bit set. */
static void p_near(Pass *p, uint64_t *v, uint64_t base)
{
    int64_t far = (int64_t)(*v - base);
    uint64_t code = *v ? 1 + ((uint64_t)far << 1 ^ (uint64_t)(far >> 63)) : 0;
    p_u64(p, &code);
    if (p->out) return;
    uint64_t zigzag = code - 1;
    *v = code ? base + (zigzag >> 1 ^ -(zigzag & 1)) : 0;
    if (*v > INT64_MAX) p->in.bad = true;
}

static void p_near_ns(Pass *p, int64_t *v, int64_t base)
{
    uint64_t u = (uint64_t)*v;
    p_near(p, &u, (uint64_t)base);
    *v = (int64_t)u;
}

static void p_fixed(Pass *p, void *at, size_t n)
{
    if (p->out) {
        buf_put(p->out, at, n);
        return;
    }
    const uint8_t *from = cursor_bytes(&p->in, n);
    if (from) memcpy(at, from, n);
}

static void p_str(Pass *p, Str *s)
{
    uint32_t n = (uint32_t)s->n;
    p_u32(p, &n);
    if (p->out) {
        buf_put_str(p->out, *s);
        return;
    }
    const uint8_t *from = cursor_bytes(&p->in, n);
    *s = (Str){from ? (const char *)from : "", from ? n : 0};
}

static void p_sym(Pass *p, Sym *sym)
{
    Str s = p->out ? core_sym(p->c, *sym) : STR("");
    p_str(p, &s);
    if (!p->out) *sym = sym_intern(p->c, s);
}

static void p_buf(Pass *p, Buf *b)
{
    Str s = buf_str(b);
    p_str(p, &s);
    if (!p->out) buf_put_str(b, s);
}

static void p_z(Pass *p, char **z) /* an owned string */
{
    Str s = str_from(*z);
    p_str(p, &s);
    if (!p->out) *z = mem_dup(s.p, s.n);
}

static void p_payload(Pass *p, Payload *a)
{
    p_u32(p, &a->len);
    p_bool(p, &a->forgotten);
    if (a->len > TASK_INLINE_MAX) { /* as much is set aside to show it, forgotten or not */
        p->in.bad = true;
        a->len = 0;
        return;
    }
    if (a->len == 0 || a->forgotten) return;
    if (p->out) {
        buf_put_str(p->out, payloads_get(p->c->payloads, a));
        return;
    }
    const uint8_t *from = cursor_bytes(&p->in, a->len);
    size_t n = from ? a->len : 0;
    a->len = 0;
    if (from) payloads_put(p->c->payloads, a, (Str){(const char *)from, n});
}

/* ---- items ---- */

static void head(Pass *p, uint32_t *version)
{
    Core *c = p->c;
    p_fixed(p, version, sizeof *version); /* in all formats */
    p_u32(p, &c->shard);
    p_u64(p, &c->epoch);
    p_fixed(p, c->id_key, sizeof c->id_key);
    p_u32(p, &c->feature_level);
    p_u64(p, &c->next_no);
    p_u64(p, &c->next_file_no);
    p_u64(p, &c->history_seq);
}

static void model(Pass *p, ModelEntry *m)
{
    p_sym(p, &m->name);
    p_sym(p, &m->version);
    p_fixed(p, m->digest.b, sizeof m->digest.b);
    p_z(p, &m->info);
    p_bool(p, &m->paused);
}

static void tenant(Pass *p, Tenant *t)
{
    p_sym(p, &t->sym);
    p_u64(p, &t->submitted_total);
    p_i64(p, &t->device_ns_total);
}

static void file(Pass *p, File *f)
{
    p_u64(p, &f->no);
    p_fixed(p, f->id, sizeof f->id);
    p_sym(p, &f->tenant);
    p_u64(p, &f->size);
    p_fixed(p, f->sha256.b, sizeof f->sha256.b);
    p_i64(p, &f->created_ns);
    p_i64(p, &f->expires_ns);
    p_u64(p, &f->owner_task);
    p_z(p, &f->name);
    p_z(p, &f->content_type);
}

static void extra_files(Pass *p, TaskExtra *x)
{
    p_u16(p, &x->files_len);
    if (!p->out) {
        if (x->files_len > 2 * TASK_FILES_MAX) {
            p->in.bad = true;
            x->files_len = 0;
            return;
        }
        if (x->files_len) x->files = mem_new(x->files_len * sizeof *x->files);
    }
    for (uint16_t i = 0; i < x->files_len; i++) p_u64(p, &x->files[i]);
}

static void extra(Pass *p, Task *t)
{
    bool has = t->extra != NULL;
    p_bool(p, &has);
    if (!has) return;
    TaskExtra *x = task_extra(t);
    p_buf(p, &x->metadata);
    p_buf(p, &x->traceparent);
    p_buf(p, &x->error);
    p_fixed(p, x->retry_of.z, sizeof x->retry_of.z);
    p_u64(p, &x->checkpoint_unit);
    p_u64(p, &x->checkpoint_file);
    p_u64(p, &x->rollout);
    p_u8(p, &x->rollout_arm);
    extra_files(p, x);
}

static void events(Pass *p, const Task *t, TaskRun *r)
{
    p_u16(p, &r->events_len);
    if (!p->out) {
        if (r->events_len > TASK_EVENTS_MAX) {
            p->in.bad = true;
            r->events_len = 0;
            return;
        }
        uint16_t len = r->events_len;
        r->events_len = 0;
        task_room_for_events(r, len);
        r->events_len = len;
    }
    for (uint16_t i = 0; i < r->events_len; i++) {
        TaskEvent *e = &r->events[i];
        p_near(p, &e->seq, t->created_seq);
        p_near_ns(p, &e->time_ns, t->created_ns);
        p_u8(p, &e->kind);
        p_u8(p, &e->state);
        p_u8(p, &e->attempt);
        p_u8(p, &e->fail);
    }
}

static void run(Pass *p, Task *t)
{
    bool has = t->run->last_seq != 0; /* any record since its submit */
    p_bool(p, &has);
    if (!has) return;
    TaskRun *r = task_run(p->c, t);
    p_near(p, &r->last_seq, t->created_seq);
    p_near(p, &r->settled_seq, t->created_seq);
    p_near_ns(p, &r->started_ns, t->created_ns);
    p_near_ns(p, &r->first_started_ns, t->created_ns);
    p_near_ns(p, &r->finished_ns, t->created_ns);
    p_near(p, &r->token, t->created_seq);
    p_near(p, &r->ended_token, t->created_seq);
    p_u64(p, &r->batch);
    p_i64(p, &r->device_ns);
    p_i64(p, &r->run_ns);
    p_u32(p, &r->batch_size);
    p_sym(p, &r->worker);
    p_u16(p, &r->device);
    p_u16(p, &r->platform_losses);
    p_u8(p, &r->attempt);
    p_u8(p, &r->burned);
    p_u8(p, &r->fail);
    p_bool(p, &r->fail_retryable);
    p_payload(p, &r->output);
    events(p, t, r);
}

static void task(Pass *p, Task *t)
{
    p_u64(p, &t->no);
    p_u64(p, &t->created_seq);
    p_i64(p, &t->created_ns);
    p_near_ns(p, &t->not_before_ns, t->created_ns);
    p_near_ns(p, &t->deadline_ns, t->created_ns);
    p_sym(p, &t->tenant);
    p_sym(p, &t->model);
    p_sym(p, &t->version);
    p_u32(p, &t->retention_s);
    p_u32(p, &t->created_epoch);
    p_u8(p, &t->state);
    p_u8(p, &t->class);
    p_u8(p, &t->max_attempts);
    bool solo = t->solo;
    p_bool(p, &solo);
    t->solo = solo;
    p_payload(p, &t->input);
    extra(p, t);
    run(p, t);
}

static void idem(Pass *p, IdemEntry *e)
{
    p_fixed(p, &e->key, sizeof e->key);
    p_fixed(p, &e->body, sizeof e->body);
    p_u64(p, &e->no);
    p_i64(p, &e->accepted_ns);
    p_sym(p, &e->tenant);
    p_bool(p, &e->lingers);
}

/* ---- writing ---- */

typedef struct {
    Pass pass;
    Buf stream;
    int (*put)(void *ctx, Str piece);
    void *ctx;
    int err;
} Writer;

static Pass *item_begin(Writer *w, Item kind, size_t *start)
{
    *start = w->stream.len;
    buf_u32(&w->stream, 0);
    buf_u8(&w->stream, (uint8_t)kind);
    return &w->pass;
}

static void item_end(Writer *w, size_t start)
{
    store_u32(w->stream.data + start, (uint32_t)(w->stream.len - start - 4));
    while (w->stream.len >= PIECE_MAX && !w->err) {
        w->err = w->put(w->ctx, (Str){(const char *)w->stream.data, PIECE_MAX});
        buf_drop(&w->stream, PIECE_MAX);
    }
}

#define WRITE_ITEM(w, kind, fields)                                                                \
    do {                                                                                           \
        size_t start_;                                                                             \
        Pass *p = item_begin(w, kind, &start_);                                                    \
        fields;                                                                                    \
        item_end(w, start_);                                                                       \
    } while (0)

static int by_name(const void *a, const void *b, void *core)
{
    return str_cmp(core_sym(core, ((const Tenant *)a)->sym),
                   core_sym(core, ((const Tenant *)b)->sym));
}

/* By name, and without those that only the configuration names: neither may show in the hash. */
static void write_tenants(Writer *w)
{
    Core *c = w->pass.c;
    Tenant *sorted = mem_dup(c->tenants, c->tenants_len * sizeof *sorted);
    qsort_r(sorted, c->tenants_len, sizeof *sorted, by_name, c);
    for (uint32_t i = 0; i < c->tenants_len; i++)
        if (sorted[i].submitted_total) WRITE_ITEM(w, ITEM_TENANT, tenant(p, &sorted[i]));
    mem_free(sorted);
}

int core_snapshot(const Core *core, int (*put)(void *ctx, Str piece), void *ctx)
{
    Core *c = (Core *)core; /* the passes read when they write: nothing changes */
    Writer writer = {.put = put, .ctx = ctx}, *w = &writer;
    w->pass = (Pass){.c = c, .out = &w->stream};
    uint32_t version = SNAPSHOT_VERSION;
    WRITE_ITEM(w, ITEM_HEAD, head(p, &version));
    for (uint32_t i = 0; i < c->models_len; i++) WRITE_ITEM(w, ITEM_MODEL, model(p, &c->models[i]));
    for (uint32_t i = 0; i < c->flags_len; i++) {
        Str kind = str_from(c->flags[i].kind), subject = str_from(c->flags[i].subject);
        WRITE_ITEM(w, ITEM_FLAG, (p_str(p, &kind), p_str(p, &subject)));
    }
    write_tenants(w);
    for (File *f = directory_newer(&c->files, 0); f && !w->err;
         f = directory_newer(&c->files, f->no))
        WRITE_ITEM(w, ITEM_FILE, file(p, f));
    for (Task *t = directory_newer(&c->tasks, 0); t && !w->err;
         t = directory_newer(&c->tasks, t->no))
        WRITE_ITEM(w, ITEM_TASK, task(p, t));
    LIST_FOR (r, &c->settled, TaskRun, settled) WRITE_ITEM(w, ITEM_SETTLED, p_u64(p, &r->task->no));
    LIST_FOR (e, &c->idem_order, IdemEntry, order) WRITE_ITEM(w, ITEM_IDEM, idem(p, e));
    LIST_FOR (e, &c->idem_linger, IdemEntry, order) WRITE_ITEM(w, ITEM_IDEM, idem(p, e));
    uint64_t count = c->tasks.count;
    WRITE_ITEM(w, ITEM_END, p_u64(p, &count));
    if (!w->err && w->stream.len) w->err = put(ctx, buf_str(&w->stream));
    buf_done(&w->stream);
    return w->err;
}

static int hash_piece(void *ctx, Str piece)
{
    uint64_t *hash = ctx;
    *hash = chain64(*hash, piece.p, piece.n);
    return 0;
}

uint64_t core_hash(const Core *c)
{
    uint64_t hash = 0;
    int err = core_snapshot(c, hash_piece, &hash);
    CHECK(err == 0);
    return hash;
}

/* ---- reading ---- */

static int restore_head(Pass *p, const LogPoint *covers)
{
    uint32_t version = 0;
    head(p, &version);
    if (version != SNAPSHOT_VERSION) return ERR_UNSUPPORTED;
    /* Each number was given out by a record of its own. */
    if (p->c->next_no > covers->next_seq || p->c->next_file_no > covers->next_seq)
        return ERR_INVALID;
    return p->c->shard != covers->shard || p->c->epoch != covers->epoch ? ERR_INVALID : 0;
}

static int restore_model(Pass *p)
{
    ModelEntry m = {0};
    model(p, &m);
    ModelEntry *to = p->in.bad || !m.name ? NULL : model_entry(p->c, m.name, m.version);
    if (!to || to->info) { /* broken, or there twice */
        mem_free(m.info);
        return ERR_INVALID;
    }
    *to = m;
    return 0;
}

/* NULL: it breaks its format. */
static File *read_file(Pass *p)
{
    File *f = mem_new(sizeof *f);
    file(p, f);
    if (!p->in.bad && f->no && f->tenant && f->id[0] && !f->id[sizeof f->id - 1] &&
        id_fits(str_from(f->id)) && time_fits(f->created_ns) && time_fits(f->expires_ns))
        return f;
    file_free(f);
    return NULL;
}

static int restore_file(Pass *p)
{
    File *f = read_file(p);
    if (!f) return ERR_INVALID;
    if (core_file(p->c, f->no) || f->no >= p->c->next_file_no) {
        file_free(f);
        return ERR_INVALID;
    }
    file_link(p->c, f);
    return 0;
}

static bool retry_of_fits(const TaskExtra *x)
{
    return !x->retry_of.z[TASK_ID_LEN] && id_fits(str_from(x->retry_of.z));
}

static bool run_fits(const Task *t)
{
    const TaskRun *r = t->run;
    if (r == &task_no_run) return t->state == TASK_QUEUED;
    if (!r->last_seq || r->fail >= FAILS || !time_fits(r->started_ns) ||
        !time_fits(r->first_started_ns) || !time_fits(r->finished_ns) || !time_fits(r->device_ns) ||
        !time_fits(r->run_ns))
        return false;
    if (t->state == TASK_RUNNING ? !r->token : t->state == TASK_QUEUED && r->token) return false;
    for (uint16_t i = 0; i < r->events_len; i++) {
        const TaskEvent *e = &r->events[i];
        if (e->kind > EVENT_FORGOTTEN || e->state >= TASK_STATES || e->fail >= FAILS ||
            !time_fits(e->time_ns))
            return false;
    }
    return true;
}

/* NULL: it breaks its format. In no list. */
static Task *read_task(Pass *p)
{
    Task *t = task_new(p->c);
    task(p, t);
    if (!p->in.bad && t->no && t->no <= TASK_NO_MAX && t->tenant && t->state < TASK_STATES &&
        t->class < CLASSES && time_fits(t->created_ns) && time_fits(t->not_before_ns) &&
        time_fits(t->deadline_ns) && (!t->extra || retry_of_fits(t->extra)) && run_fits(t))
        return t;
    task_free(p->c, t);
    return NULL;
}

static int restore_task(Pass *p)
{
    Task *t = read_task(p);
    if (!t) return ERR_INVALID;
    const Task *last = directory_older(&p->c->tasks, UINT64_MAX);
    if (t->no >= p->c->next_no || (last && last->no >= t->no)) {
        task_free(p->c, t);
        return ERR_INVALID;
    }
    task_link(p->c, t);
    if (task_state_terminal((TaskState)t->state) && !t->run->token) p->c->unsettled++;
    return 0;
}

static int restore_settled(Pass *p)
{
    uint64_t no = 0;
    p_u64(p, &no);
    Task *t = core_task(p->c, no);
    if (p->in.bad || !t || !task_state_terminal((TaskState)t->state) || t->run == &task_no_run ||
        t->run->token || !list_empty(&t->run->settled))
        return ERR_INVALID;
    settled_link(p->c, t);
    p->c->unsettled--;
    return 0;
}

static int restore_idem(Pass *p)
{
    IdemEntry *e = mem_new(sizeof *e);
    idem(p, e);
    if (p->in.bad || !e->tenant) {
        mem_free(e);
        return ERR_INVALID;
    }
    idem_link(p->c, e);
    return 0;
}

static int restore_item(Pass *p, Item kind, const LogPoint *covers)
{
    /* In their order; the first and the last one once. */
    uint8_t before = p->c->restored;
    if (before == 0 ? kind != ITEM_HEAD : kind < before || kind == ITEM_HEAD || before == ITEM_END)
        return kind > ITEM_END ? ERR_UNSUPPORTED : ERR_INVALID;
    p->c->restored = (uint8_t)kind;
    switch (kind) {
    case ITEM_HEAD:
        return restore_head(p, covers);
    case ITEM_MODEL:
        return restore_model(p);
    case ITEM_FLAG: {
        Str k = {0}, subject = {0};
        p_str(p, &k);
        p_str(p, &subject);
        if (p->in.bad || !flag_fits(k) || !flag_fits(subject)) return ERR_INVALID;
        flag_set(p->c, k, subject, true);
        return 0;
    }
    case ITEM_TENANT: {
        Tenant t = {0};
        tenant(p, &t);
        if (p->in.bad || !t.sym || !time_fits(t.device_ns_total)) return ERR_INVALID;
        Tenant *to = tenant_get(p->c, t.sym);
        to->submitted_total = t.submitted_total;
        to->device_ns_total = t.device_ns_total;
        return 0;
    }
    case ITEM_FILE:
        return restore_file(p);
    case ITEM_TASK:
        return restore_task(p);
    case ITEM_SETTLED:
        return restore_settled(p);
    case ITEM_IDEM:
        return restore_idem(p);
    case ITEM_END: {
        uint64_t count = 0;
        p_u64(p, &count);
        return count == p->c->tasks.count && !p->c->unsettled ? 0 : ERR_INVALID; /* keeps I4 */
    }
    }
    return ERR_UNSUPPORTED;
}

int core_restore(Core *c, const LogPoint *covers, Str piece)
{
    Buf *stream = &c->restoring;
    buf_put_str(stream, piece);
    if (piece.n == 0)
        return stream->len == 0 && c->restored == ITEM_END ? 0 : ERR_INVALID; /* cut short */
    size_t used = 0;
    int err = 0;
    while (!err && stream->len - used >= 5) {
        uint32_t len = load_u32(stream->data + used);
        if (len == 0) return ERR_INVALID;
        if (stream->len - used - 4 < len) break;
        Pass p = {.c = c, .in = cursor_of(stream->data + used + 5, len - 1)};
        err = restore_item(&p, (Item)stream->data[used + 4], covers);
        if (!err && (p.in.bad || p.in.p != p.in.end)) err = ERR_INVALID;
        used += 4 + (size_t)len;
    }
    buf_drop(stream, used);
    return err;
}

/* ---- one task or file, for the history view: u8 version | fields ---- */

void core_task_encode(const Core *c, const Task *t, Buf *ret)
{
    Pass p = {.c = (Core *)c, .out = ret}; /* reads when it writes: nothing changes */
    buf_u8(ret, ROW_VERSION);
    task(&p, (Task *)t);
}

Task *core_task_decode(Core *c, Str bytes)
{
    Pass p = {.c = c, .in = cursor_of(bytes.p, bytes.n)};
    if (cursor_u8(&p.in) != ROW_VERSION) return NULL;
    Task *t = read_task(&p);
    if (!t || p.in.p == p.in.end) return t;
    task_free(c, t);
    return NULL;
}

void core_task_discard(Core *c, Task *decoded)
{
    task_free(c, decoded);
}

void core_file_encode(const Core *c, const File *f, Buf *ret)
{
    Pass p = {.c = (Core *)c, .out = ret};
    buf_u8(ret, ROW_VERSION);
    file(&p, (File *)f);
}

File *core_file_decode(Core *c, Str bytes)
{
    Pass p = {.c = c, .in = cursor_of(bytes.p, bytes.n)};
    if (cursor_u8(&p.in) != ROW_VERSION) return NULL;
    File *f = read_file(&p);
    if (!f || p.in.p == p.in.end) return f;
    file_free(f);
    return NULL;
}

void core_file_discard(File *decoded)
{
    file_free(decoded);
}
