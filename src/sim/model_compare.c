/* The model beside the core, field by field, through the core's public face; and what should have
 * happened by itself by now. */
#include "sim/model_inside.h"

#define ULL(v) ((unsigned long long)(v))

typedef struct {
    const Model *m;
    const State *s;
    Core *core;
    Buf *why;
    unsigned long long no;
    uint32_t *refs; /* by file number */
} Compare;

static int differs(const Compare *c, int invariant, const char *what, uint64_t model, uint64_t core)
{
    return model_bad(c->m, c->why, invariant, "task %llu: %s is %llu in the core, %llu by the log",
                     c->no, what, ULL(core), ULL(model));
}

static int name_differs(const Compare *c, const char *what, Name model, Str core)
{
    Str want = model_name_text(c->m, model);
    if (str_eq(want, core)) return 0;
    return model_bad(c->m, c->why, 11, "task %llu: %s is '%.*s' in the core, '%.*s' by the log",
                     c->no, what, STR_ARG(core), STR_ARG(want));
}

static int digest_differs(const Compare *c, int invariant, const char *what, Digest128 want,
                          Str core)
{
    Digest128 got = core.n ? digest128(core.p, core.n) : (Digest128){0};
    if (digest128_eq(want, got)) return 0;
    return model_bad(c->m, c->why, invariant, "task %llu: its %s is not what the log says: '%.*s'",
                     c->no, what, (int)MIN(core.n, (size_t)80), core.p);
}

#define SAME(invariant, model, there)                                                              \
    do {                                                                                           \
        if ((uint64_t)(model) != (uint64_t)(there))                                                \
            return differs(c, (invariant), #there, (uint64_t)(model), (uint64_t)(there));          \
    } while (0)

static int compare_files(const Compare *c, const ModelTask *t, const Task *k)
{
    size_t len = task_files_len(k), want = 0;
    const uint64_t *input = t->in_len ? ROW(c->s->numbers, uint64_t, t->in_at) : NULL;
    const uint64_t *output = t->out_len ? ROW(c->s->numbers, uint64_t, t->out_at) : NULL;
    for (uint32_t i = 0; i < t->in_len + t->out_len; i++) {
        uint64_t no = i < t->in_len ? input[i] : output[i - t->in_len];
        bool before = false, there = false;
        for (uint32_t j = 0; j < i && !before; j++)
            before = (j < t->in_len ? input[j] : output[j - t->in_len]) == no;
        if (before) continue;
        want++;
        for (size_t j = 0; j < len && !there; j++) there = k->extra->files[j] == no;
        if (!there) return differs(c, 15, "a file that it refers to", no, 0);
        c->refs[no]++;
    }
    SAME(15, want, len);
    return 0;
}

static int compare_payload(const Compare *c, const char *what, Digest128 want, uint32_t len,
                           bool forgotten, const Payload *p)
{
    if (p->len != len) return differs(c, 15, what, len, p->len);
    if (len && p->forgotten != forgotten)
        return differs(c, 15, "forgotten", forgotten, p->forgotten);
    if (!len || forgotten) return 0;
    return digest_differs(c, 15, what, want, core_payload(c->core, p));
}

static int compare_extra(const Compare *c, const ModelTask *t, const Task *k)
{
    static const TaskExtra none;
    const TaskExtra *e = k->extra ? k->extra : &none;
    int bad;
    if ((bad = digest_differs(c, 11, "metadata", t->metadata, buf_str(&e->metadata))) ||
        (bad = digest_differs(c, 11, "traceparent", t->traceparent, buf_str(&e->traceparent))) ||
        (bad = digest_differs(c, 11, "retry_of", t->retry_of, str_from(e->retry_of.z))))
        return bad;
    if (t->state == TASK_FAILED &&
        (bad = digest_differs(c, 3, "error", t->message, buf_str(&e->error))))
        return bad;
    SAME(11, t->unit, e->checkpoint_unit);
    SAME(11, t->unit_file, e->checkpoint_file);
    return 0;
}

static int compare_run(const Compare *c, const ModelTask *t, const Task *k)
{
    const TaskRun *run = k->run;
    SAME(5, t->token, run->token);
    SAME(5, t->ended_token, run->ended_token);
    SAME(8, t->attempt, run->attempt);
    SAME(8, t->burned, run->burned);
    SAME(8, t->losses, run->platform_losses);
    SAME(18, t->device_ns, run->device_ns);
    SAME(18, t->run_ns, run->run_ns);
    SAME(11, t->started_ns, run->started_ns);
    SAME(11, t->first_started_ns, run->first_started_ns);
    SAME(3, t->finished_ns, run->finished_ns);
    SAME(11, t->settled_seq, run->settled_seq);
    SAME(11, t->batch, run->batch);
    SAME(11, t->batch_size, run->batch_size);
    SAME(11, t->device, run->device);
    SAME(14, t->last_seq, task_last_seq(k));
    if (t->state >= TASK_SUCCEEDED) SAME(3, t->fail, run->fail);
    if (t->state == TASK_FAILED) SAME(3, t->retryable, run->fail_retryable);
    if (t->token && !t->lease_until_ns) return differs(c, 22, "lease end", 1, 0);
    if (t->events && t->events <= TASK_EVENTS_MAX) SAME(14, t->events, run->events_len);
    if (t->events) {
        if (!run->events_len) return differs(c, 14, "its number of events", t->events, 0);
        const TaskEvent *e = &run->events[run->events_len - 1];
        SAME(14, t->event_kind, e->kind);
        SAME(14, t->state, e->state);
        if (t->event_kind == EVENT_REQUEUED || t->event_kind == EVENT_FINISHED)
            SAME(14, t->event_fail, e->fail);
    }
    return t->leases ? name_differs(c, "worker", t->worker, core_sym(c->core, run->worker)) : 0;
}

static int compare_task(const Compare *c, const ModelTask *t, const Task *k)
{
    if (t->state != k->state)
        return model_bad(c->m, c->why, task_state_terminal((TaskState)t->state) ? 3 : 11,
                         "task %llu is %s in the core, %s by the log", c->no,
                         task_state_name((TaskState)k->state),
                         task_state_name((TaskState)t->state));
    int bad;
    SAME(11, t->created_seq, k->created_seq);
    SAME(11, t->created_epoch, k->created_epoch);
    SAME(11, t->created_ns, k->created_ns);
    SAME(9, t->not_before_ns, k->not_before_ns);
    SAME(9, t->deadline_ns, k->deadline_ns);
    SAME(11, t->retention_s, k->retention_s);
    SAME(11, t->class, k->class);
    SAME(8, t->max_attempts, k->max_attempts);
    SAME(8, t->solo, k->solo);
    if (k->ready && (t->state != TASK_QUEUED)) return differs(c, 5, "ready", 0, 1);
    if ((bad = name_differs(c, "tenant", t->tenant, core_sym(c->core, k->tenant))) ||
        (bad = name_differs(c, "model", t->model, core_sym(c->core, k->model))) ||
        (bad = name_differs(c, "version", t->version, core_sym(c->core, k->version))) ||
        (bad = compare_run(c, t, k)) || (bad = compare_extra(c, t, k)) ||
        (bad = compare_payload(c, "input", t->input, t->input_len, t->forgotten, &k->input)) ||
        (bad = compare_payload(c, "output", t->output, t->output_len, t->forgotten,
                               &k->run->output)))
        return bad;
    return compare_files(c, t, k);
}

static int compare_tasks(Compare *c)
{
    uint64_t here = 0, there = 0;
    for (uint64_t no = c->s->low; no <= c->s->tasks.len; no++) {
        const ModelTask *t = model_task(c->s, no);
        const Task *k = core_task(c->core, no);
        c->no = no;
        if (t->here && !k)
            return model_bad(c->m, c->why, 1, "task %llu (%s) is not in the core", c->no,
                             task_state_name((TaskState)t->state));
        if (!t->here && k)
            return model_bad(c->m, c->why, 2, "task %llu has left memory, but is in the core",
                             c->no);
        if (!t->here) continue;
        here++;
        int bad = compare_task(c, t, k);
        if (bad) return bad;
    }
    for (const Task *k = core_older(c->core, UINT64_MAX); k; k = core_older(c->core, k->no))
        there++;
    if (here == there) return 0;
    return model_bad(c->m, c->why, 2, "the core has %llu tasks, the log %llu", ULL(there),
                     ULL(here));
}

/* ---- the rest ---- */

static int compare_counts(const Compare *c)
{
    for (int s = 0; s < TASK_STATES; s++)
        if (core_count(c->core, (TaskState)s) != c->s->counts[s])
            return model_bad(c->m, c->why, 13,
                             "the core counts %llu %s tasks, by the log there are %llu",
                             ULL(core_count(c->core, (TaskState)s)), task_state_name((TaskState)s),
                             ULL(c->s->counts[s]));
    const Tenant *tenants;
    size_t len = core_tenants(c->core, &tenants);
    for (size_t i = 0; i < c->s->tenants.len; i++) {
        const ModelTenant *n = ROW(c->s->tenants, ModelTenant, i);
        Str name = model_name_text(c->m, n->name);
        const Tenant *k = NULL;
        for (size_t j = 0; j < len && !k; j++)
            if (str_eq(core_sym(c->core, tenants[j].sym), name)) k = &tenants[j];
        if (!k) return model_bad(c->m, c->why, 13, "the core has no tenant '%.*s'", STR_ARG(name));
        for (int s = 0; s < TASK_STATES; s++)
            if (k->tasks[s] != n->states[s])
                return model_bad(c->m, c->why, 13,
                                 "tenant '%.*s' has %llu %s tasks in the core, %llu by "
                                 "the log",
                                 STR_ARG(name), ULL(k->tasks[s]), task_state_name((TaskState)s),
                                 ULL(n->states[s]));
        if (k->submitted_total != n->submitted)
            return model_bad(c->m, c->why, 13,
                             "tenant '%.*s' submitted %llu in the core, %llu by the log",
                             STR_ARG(name), ULL(k->submitted_total), ULL(n->submitted));
        if (k->idem_keys != n->keys)
            return model_bad(c->m, c->why, 7,
                             "tenant '%.*s' has %llu keys in the core, %llu by the log",
                             STR_ARG(name), ULL(k->idem_keys), ULL(n->keys));
        if (k->device_ns_total != n->device_ns)
            return model_bad(c->m, c->why, 18,
                             "tenant '%.*s' is charged %lld ns in the core, %lld by the "
                             "log",
                             STR_ARG(name), (long long)k->device_ns_total, (long long)n->device_ns);
    }
    return 0;
}

static int compare_file(const Compare *c, uint64_t no, const ModelFile *f, const File *k)
{
    if (!f->here && !k) return 0;
    if (!f->here || !k)
        return model_bad(c->m, c->why, 15, "file %llu is %s the core, %s by the log", ULL(no),
                         k ? "in" : "not in", f->here ? "there" : "gone");
    if (!str_eqz(model_name_text(c->m, f->id), k->id) || f->size != k->size ||
        f->created_ns != k->created_ns || f->expires_ns != k->expires_ns ||
        f->owner_task != k->owner_task || memcmp(&f->sha256, &k->sha256, 32) != 0 ||
        !str_eqz(model_name_text(c->m, f->name), k->name) ||
        !str_eqz(model_name_text(c->m, f->content_type), k->content_type) ||
        !str_eq(model_name_text(c->m, f->tenant), core_sym(c->core, k->tenant)))
        return model_bad(c->m, c->why, 15, "file %llu (%s) is not in the core as in the log",
                         ULL(no), k->id);
    if (k->refs != c->refs[no])
        return model_bad(c->m, c->why, 13, "file %llu has %u references in the core, %u by the log",
                         ULL(no), k->refs, c->refs[no]);
    return 0;
}

static int compare_files_all(const Compare *c)
{
    for (uint64_t no = 1; no <= c->s->files.len; no++) {
        int bad = compare_file(c, no, model_file(c->s, no), core_file(c->core, no));
        if (bad) return bad;
    }
    return 0;
}

static int compare_models(const Compare *c)
{
    const ModelEntry *models;
    size_t len = core_models(c->core, &models);
    if (len != c->s->versions.len)
        return model_bad(c->m, c->why, 11, "the core knows %zu models, the log %zu", len,
                         c->s->versions.len);
    for (size_t i = 0; i < c->s->versions.len; i++) {
        const ModelVersion *v = ROW(c->s->versions, ModelVersion, i);
        Str name = model_name_text(c->m, v->name);
        const ModelEntry *k = core_model(c->core, name, model_name_text(c->m, v->version));
        if (!k || memcmp(&k->digest, &v->digest, 32) != 0 ||
            !str_eqz(model_name_text(c->m, v->info), k->info ? k->info : ""))
            return model_bad(c->m, c->why, 11, "model '%.*s' is not in the core as in the log",
                             STR_ARG(name));
    }
    for (size_t i = 0; i < c->s->flags.len; i++) {
        const ModelFlag *f = ROW(c->s->flags, ModelFlag, i);
        Str kind = model_name_text(c->m, f->kind), subject = model_name_text(c->m, f->subject);
        if (core_flag(c->core, kind, subject) != f->on)
            return model_bad(c->m, c->why, 11, "%.*s of '%.*s' is %s by the log only",
                             STR_ARG(kind), STR_ARG(subject), f->on ? "on" : "off");
        if (!str_eqz(kind, "model_paused")) continue;
        for (size_t j = 0; j < len; j++)
            if (str_eq(core_sym(c->core, models[j].name), subject) && models[j].paused != f->on)
                return model_bad(c->m, c->why, 11, "model '%.*s' is %spaused in the core",
                                 STR_ARG(subject), models[j].paused ? "" : "not ");
    }
    return 0;
}

int model_compare(const Model *m, Core *core, Buf *why)
{
    Compare c = {.m = m, .s = &m->now, .core = core, .why = why};
    if (core_misfits(core))
        return model_bad(m, why, 6, "%llu records were no-ops in the core",
                         ULL(core_misfits(core)));
    if (core_epoch(core) != m->now.at.epoch)
        return model_bad(m, why, 10, "the core is in epoch %llu, the log in %llu",
                         ULL(core_epoch(core)), ULL(m->now.at.epoch));
    if (m->limits.history && core_history_seq(core) != m->now.history_seq)
        return model_bad(m, why, 12, "history is at %llu in the core, at %llu by the log",
                         ULL(core_history_seq(core)), ULL(m->now.history_seq));
    c.refs = mem_new((m->now.files.len + 1) * sizeof *c.refs);
    int bad = compare_tasks(&c);
    if (!bad) bad = compare_counts(&c);
    if (!bad) bad = compare_files_all(&c);
    if (!bad) bad = compare_models(&c);
    mem_free(c.refs);
    return bad;
}

/* ---- liveness ---- */

static int late_task(const Model *m, uint64_t no, const ModelTask *t, int64_t before, Buf *why)
{
    const char *state = task_state_name((TaskState)t->state);
    if (t->deadline_ns && t->deadline_ns < before && !task_state_terminal((TaskState)t->state))
        return model_bad(m, why, 21, "task %llu is %s %lld ms after its deadline", ULL(no), state,
                         (long long)((before - t->deadline_ns) / NS_PER_MS));
    if (m->judge_lease_ends && m->limits.lease_ns && t->token && t->lease_until_ns < before)
        return model_bad(m, why, 22, "lease %llu of task %llu should have ended %lld ms ago",
                         ULL(t->token), ULL(no),
                         (long long)((before - t->lease_until_ns) / NS_PER_MS));
    if (t->settled_seq &&
        (m->limits.history ? t->finished_ns : t->finished_ns + (int64_t)t->retention_s * NS_PER_S) <
            before)
        return model_bad(m, why, 25, "task %llu, %s, is still in memory", ULL(no), state);
    return 0;
}

#define KEYS_LATE_NS (60 * NS_PER_S) /* the core looks for old keys once a minute */

int model_late(const Model *m, int64_t now_ns, int64_t slack_ns, Buf *why)
{
    const State *s = &m->now;
    int64_t before = now_ns - slack_ns;
    for (uint64_t no = s->low; no <= s->tasks.len; no++) {
        const ModelTask *t = model_task(s, no);
        int bad = t->here ? late_task(m, no, t, before, why) : 0;
        if (bad) return bad;
    }
    for (size_t i = 0; i < s->keys.len; i++) {
        const ModelKey *k = ROW(s->keys, ModelKey, i);
        const ModelTask *t = model_task(s, k->no);
        if (k->live && task_state_terminal((TaskState)t->state) &&
            MAX(k->created_ns + m->limits.idem_ttl_ns, t->finished_ns) + KEYS_LATE_NS < before)
            return model_bad(m, why, 25, "the key of task %llu is still kept", ULL(k->no));
    }
    for (uint64_t no = 1; no <= s->files.len; no++) {
        const ModelFile *f = model_file(s, no);
        if (f->here && f->expires_ns && f->expires_ns < before && !model_file_refs(s, no, false))
            return model_bad(m, why, 25, "file %llu is still there", ULL(no));
    }
    return 0;
}

int model_drained(const Model *m, Buf *why)
{
    for (uint64_t no = m->now.low; no <= m->now.tasks.len; no++) {
        const ModelTask *t = model_task(&m->now, no);
        if (!t->here || (task_state_terminal((TaskState)t->state) && !t->token)) continue;
        return model_bad(
            m, why, t->token && t->state != TASK_RUNNING ? 22 : 1,
            "task %llu is %s after everything should have ended (token %llu, attempt %u, "
            "%u losses)",
            ULL(no), task_state_name((TaskState)t->state), ULL(t->token), t->attempt, t->losses);
    }
    return 0;
}
