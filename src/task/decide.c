/* decide.c: requests become records or refusals. Nothing here changes logged state. */
#include "task/core.h"

#include <stdio.h>
#include <string.h>

#define ORPHAN_TTL_NS (24 * 3600 * NS_PER_S) /* a worker's file that no result refers to */

static Decision ok(uint64_t no)
{
    return (Decision){.code = CODE_OK, .task_no = no};
}

HR_PRINTF(3, 4)
static Decision refuse(Code code, const char *field, const char *fmt, ...)
{
    Decision d = {.code = code};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(d.detail, sizeof d.detail, fmt, ap);
    va_end(ap);
    snprintf(d.field, sizeof d.field, "%s", field);
    return d;
}

static uint64_t clamp_ns(int64_t ns)
{
    return ns < 0 ? 0 : (uint64_t)ns;
}

static Usage sane(Usage u)
{
    return (Usage){(int64_t)clamp_ns(u.device_ns), (int64_t)clamp_ns(u.run_ns)};
}

void core_claim(const Core *c, uint64_t epoch, uint64_t holder, Str address,
                const uint8_t id_key[16], FrameBuilder *b)
{
    RecordData d = {
        .claim = {
            .epoch = epoch, .holder = holder, .address = address, .feature_level = RECORD_VERSION}};
    if (c->epoch == 0) d.claim.id_key = (Str){(const char *)id_key, 16};
    record_put(b, REC_CLAIM, &d);
}

/* ---- clients ---- */

static Decision repeat(const Core *c, const IdemEntry *e, Digest128 body)
{
    if (!digest128_eq(e->body, body))
        return refuse(
            CODE_IDEMPOTENCY_MISMATCH, "Idempotency-Key",
            "this Idempotency-Key was used with another body; use a new key for a new request");
    if (!core_task(c, e->no) && !c->limits.history)
        return refuse(CODE_GONE, "Idempotency-Key",
                      "the task of this Idempotency-Key finished and has left memory; it did run");
    Decision d = ok(e->no);
    d.duplicate = true;
    return d;
}

bool core_repeat(const Core *c, Str tenant, Str key, Digest128 body, Decision *ret)
{
    const IdemEntry *e = idem_find(c, idem_key(tenant, key));
    if (e) *ret = repeat(c, e, body);
    return e != NULL;
}

static Decision room_for_one(const Core *c, Str tenant, bool keyed)
{
    Sym sym = core_sym_find(c, tenant);
    const Tenant *t = tenant_find(c, sym);
    uint64_t tenant_max = t && t->queued_max ? t->queued_max : c->limits.tenant_queued_max;
    Decision full;
    if (c->counts[TASK_QUEUED] >= c->limits.queued_max)
        full = refuse(CODE_QUEUE_FULL, "", "the queue is full (%llu tasks); try again later",
                      (unsigned long long)c->limits.queued_max);
    else if (t && t->tasks[TASK_QUEUED] >= tenant_max)
        full = refuse(CODE_QUOTA_EXCEEDED, "",
                      "tenant '%.*s' has %llu tasks queued, its limit; try again later",
                      STR_ARG(tenant), (unsigned long long)tenant_max);
    else if (keyed && t && t->idem_keys >= c->limits.idem_tenant_max)
        full = refuse(CODE_QUOTA_EXCEEDED, "Idempotency-Key",
                      "tenant '%.*s' has %llu idempotency keys in force, its limit",
                      STR_ARG(tenant), (unsigned long long)c->limits.idem_tenant_max);
    else
        return ok(0);
    full.retry_after_ms = 1000;
    return full;
}

Decision core_submit(const Core *c, const SubmitSpec *s, int64_t now_ns, FrameBuilder *b)
{
    CHECK(s->tenant.n && s->model.n && s->version.n);
    RecordData d = {.submit = {.no = c->next_no}};
    RecSubmit *r = &d.submit;
    if (s->idempotency_key.n) {
        r->has_key = 1;
        r->key = idem_key(s->tenant, s->idempotency_key);
        r->body = s->body;
        Decision known;
        if (core_repeat(c, s->tenant, s->idempotency_key, s->body, &known)) return known;
    }
    Decision room = room_for_one(c, s->tenant, r->has_key);
    if (room.code) return room;
    if (s->input.n > TASK_INLINE_MAX)
        return refuse(CODE_TOO_LARGE, "input",
                      "input is %zu bytes; at most %zu go inline, put more into a file", s->input.n,
                      (size_t)TASK_INLINE_MAX);
    if (s->files_len > TASK_FILES_MAX)
        return refuse(CODE_TOO_LARGE, "input", "input refers to %zu files; at most %d",
                      s->files_len, TASK_FILES_MAX);
    if (s->deadline_ns && s->delay_ns >= s->deadline_ns) {
        Decision bad = refuse(CODE_INVALID_REQUEST, "delay_s",
                              "delay_s must be less than deadline_s");
        return bad;
    }
    r->tenant = s->tenant;
    r->model = s->model;
    r->version = s->version;
    r->class = (uint8_t)s->class;
    r->max_attempts = (uint8_t)MIN(s->max_attempts, (uint32_t)TASK_ATTEMPTS_MAX);
    r->not_before_ns = s->delay_ns ? now_ns + s->delay_ns : 0;
    r->deadline_ns = s->deadline_ns ? now_ns + s->deadline_ns : 0;
    r->retention_s = s->retention_s;
    r->metadata = s->metadata;
    r->traceparent = s->traceparent;
    TaskIdText retry_of;
    if (s->retry_of) {
        core_task_id(c, s->retry_of, &retry_of);
        r->retry_of = str_from(retry_of.z);
    }
    r->files = (NumberList){.at = s->files, .len = (uint32_t)s->files_len};
    r->input.bytes = s->input;
    record_put(b, REC_SUBMIT, &d);
    return ok(c->next_no);
}

static void put_task(FrameBuilder *b, RecordType type, uint64_t no)
{
    RecordData d = {.task = {no}};
    record_put(b, type, &d);
}

Decision core_cancel(const Core *c, uint64_t no, int64_t now_ns, FrameBuilder *b)
{
    (void)now_ns;
    const Task *t = core_task(c, no);
    if (!t) return refuse(CODE_NOT_FOUND, "", "no such task");
    if (task_state_terminal((TaskState)t->state)) {
        Decision d = refuse(CODE_ALREADY_TERMINAL, "", "the task is %s already",
                            task_state_name((TaskState)t->state));
        d.task_no = no;
        return d;
    }
    put_task(b, REC_CANCEL, no);
    return ok(no);
}

Decision core_forget(const Core *c, uint64_t no, FrameBuilder *b)
{
    const Task *t = core_task(c, no);
    if (!t && c->limits.history && no && no < c->next_no) {
        put_task(b, REC_FORGET, no); /* for who makes the view again of the log */
        return ok(no);
    }
    if (!t) return refuse(CODE_NOT_FOUND, "", "no such task");
    if (!task_state_terminal((TaskState)t->state))
        return refuse(CODE_CONFLICT, "", "the task is %s; cancel it first, then delete it",
                      task_state_name((TaskState)t->state));
    if (!t->input.forgotten) put_task(b, REC_FORGET, no);
    return ok(no);
}

void core_history(const Core *c, uint64_t settled_seq, FrameBuilder *b)
{
    (void)c;
    RecordData d = {.history = {settled_seq}};
    record_put(b, REC_HISTORY, &d);
}

/* ---- the scheduler and the workers ---- */

Decision core_lease(const Core *c, const LeaseSpec *l, int64_t now_ns, FrameBuilder *b)
{
    const Task *t = core_task(c, l->no);
    if (!t || !t->ready) return refuse(CODE_CONFLICT, "", "the task is not ready");
    if (t->deadline_ns && t->deadline_ns <= now_ns)
        return refuse(CODE_CONFLICT, "", "the task's deadline has passed");
    RecordData d = {.lease = {.no = l->no,
                              .batch = l->batch,
                              .worker = l->worker,
                              .device = l->device,
                              .batch_size = l->batch_size}};
    record_put(b, REC_LEASE, &d);
    return ok(l->no);
}

typedef enum {
    LEASE_LIVE,
    LEASE_HELD /* canceled or expired meanwhile */,
    LEASE_ENDED /* on record */,
    LEASE_STALE
} LeaseStanding;

static LeaseStanding standing(const Core *c, uint64_t no, uint64_t token, const Task **ret)
{
    const Task *t = core_task(c, no);
    *ret = t;
    if (!t || token == 0) return LEASE_STALE;
    if (t->run->token == token) return t->state == TASK_RUNNING ? LEASE_LIVE : LEASE_HELD;
    return t->run->ended_token == token ? LEASE_ENDED : LEASE_STALE;
}

static Decision fenced(uint64_t no)
{
    Decision d = refuse(CODE_CONFLICT, "token",
                        "the token is stale: the lease ended, nothing was changed");
    d.task_no = no;
    return d;
}

/* What all reports that end a lease share: true when *ret is the answer already. */
static bool answered(const Core *c, uint64_t no, uint64_t token, Usage u, FrameBuilder *b,
                     const Task **task, Decision *ret)
{
    switch (standing(c, no, token, task)) {
    case LEASE_LIVE:
        return false;
    case LEASE_ENDED:
        *ret = ok(no);
        ret->duplicate = true;
        return true;
    case LEASE_HELD: {
        RecordData d = {.slot_free = {no, token, u.device_ns, u.run_ns}};
        record_put(b, REC_SLOT_FREE, &d);
        *ret = fenced(no);
        return true;
    }
    case LEASE_STALE:
        *ret = fenced(no);
        return true;
    }
    CHECK(!"a standing");
    return true;
}

Decision core_succeed(const Core *c, uint64_t no, uint64_t token, Str output, const uint64_t *files,
                      size_t files_len, Usage usage, FrameBuilder *b)
{
    const Task *t;
    Decision answer;
    Usage u = sane(usage);
    if (answered(c, no, token, u, b, &t, &answer)) return answer;
    if (output.n > TASK_INLINE_MAX)
        return refuse(CODE_TOO_LARGE, "output",
                      "output is %zu bytes; at most %zu go inline, upload a file", output.n,
                      (size_t)TASK_INLINE_MAX);
    if (files_len > TASK_FILES_MAX)
        return refuse(CODE_TOO_LARGE, "output", "output refers to %zu files; at most %d", files_len,
                      TASK_FILES_MAX);
    RecordData d = {.finish = {.no = no,
                               .token = token,
                               .ok = 1,
                               .device_ns = u.device_ns,
                               .run_ns = u.run_ns,
                               .files = {.at = files, .len = (uint32_t)files_len},
                               .output.bytes = output}};
    record_put(b, REC_FINISH, &d);
    return ok(no);
}

static Str clip(Str s)
{
    return (Str){s.p, MIN(s.n, (size_t)TASK_MESSAGE_MAX)};
}

static void put_failure(uint64_t no, uint64_t token, FailCode fail, bool retryable, bool burn,
                        Str message, Usage u, FrameBuilder *b)
{
    RecordData d = {.finish = {.no = no,
                               .token = token,
                               .fail = (uint8_t)fail,
                               .retryable = retryable,
                               .burn = burn,
                               .message = clip(message),
                               .device_ns = u.device_ns,
                               .run_ns = u.run_ns}};
    record_put(b, REC_FINISH, &d);
}

/* Doubled at every attempt, the upper half drawn (AWS architecture blog, "Exponential backoff and
 * jitter", 2015: equal jitter). */
static int64_t backoff(Core *c, uint32_t failures)
{
    int64_t ns = c->limits.backoff_first_ns;
    for (uint32_t i = 1; i < failures && ns < c->limits.backoff_max_ns; i++) ns *= 2;
    ns = MIN(ns, c->limits.backoff_max_ns);
    return ns / 2 + (int64_t)random_below(&c->random, (uint64_t)(ns / 2) + 1);
}

Decision core_fail(Core *c, uint64_t no, uint64_t token, FailCode fail, bool retryable, Str message,
                   Usage usage, int64_t now_ns, FrameBuilder *b)
{
    const Task *t;
    Decision answer;
    Usage u = sane(usage);
    if (answered(c, no, token, u, b, &t, &answer)) return answer;
    if (!retryable || t->run->burned + 1 >= t->max_attempts) {
        put_failure(no, token, fail, retryable, true, message, u, b);
        return ok(no);
    }
    RecordData d = {.requeue = {.no = no,
                                .token = token,
                                .fail = (uint8_t)fail,
                                .burn = 1,
                                .message = clip(message),
                                .not_before_ns = now_ns + backoff(c, t->run->burned + 1u),
                                .device_ns = u.device_ns,
                                .run_ns = u.run_ns}};
    record_put(b, REC_REQUEUE, &d);
    return ok(no);
}

Decision core_release(Core *c, uint64_t no, uint64_t token, FailCode cause, bool burn, Usage usage,
                      int64_t now_ns, FrameBuilder *b)
{
    static const char lost[] = "its worker was lost while it ran";
    static const char crashed[] = "the model's process ended while it ran";
    const Task *t;
    Decision answer;
    Usage u = sane(usage);
    if (answered(c, no, token, u, b, &t, &answer)) return answer;
    Str message = cause == FAIL_MODEL_CRASHED ? STR(crashed)
                  : cause == FAIL_NONE        ? STR("")
                                              : STR(lost);
    bool loss = cause != FAIL_NONE && !burn;
    bool out_of_attempts = burn && t->run->burned + 1 >= t->max_attempts;
    bool out_of_losses = loss && t->run->platform_losses + 1u >= c->limits.platform_losses_max;
    if (out_of_attempts || out_of_losses) {
        put_failure(no, token, cause, true, burn, message, u, b);
        return ok(no);
    }
    int64_t wait = burn   ? backoff(c, t->run->burned + 1u)
                   : loss ? backoff(c, t->run->platform_losses + 1u)
                          : 0;
    RecordData d = {.requeue = {.no = no,
                                .token = token,
                                .fail = (uint8_t)cause,
                                .burn = burn,
                                .loss = loss,
                                .message = message,
                                .not_before_ns = wait ? now_ns + wait : 0,
                                .device_ns = u.device_ns,
                                .run_ns = u.run_ns}};
    record_put(b, REC_REQUEUE, &d);
    return ok(no);
}

Decision core_checkpoint(const Core *c, uint64_t no, uint64_t token, uint64_t unit, uint64_t file,
                         FrameBuilder *b)
{
    const Task *t;
    if (standing(c, no, token, &t) != LEASE_LIVE) return fenced(no);
    if (!core_file(c, file)) return refuse(CODE_NOT_FOUND, "file", "no such file");
    RecordData d = {.checkpoint = {no, token, unit, file}};
    record_put(b, REC_CHECKPOINT, &d);
    return ok(no);
}

bool core_renew(Core *c, uint64_t no, uint64_t token, int64_t now_ns)
{
    Task *t = core_task(c, no);
    if (!t || token == 0 || t->run->token != token) return false;
    t->run->lease_until_ns = now_ns + c->limits.lease_ns;
    task_retime(c, t);
    return true;
}

bool core_progress(Core *c, uint64_t no, uint64_t token, uint32_t step, uint32_t steps)
{
    Task *t = core_task(c, no);
    if (!t || token == 0 || t->run->token != token || t->state != TASK_RUNNING) return false;
    t->run->step = step;
    t->run->steps = steps;
    t->run->progress_n++;
    return true;
}

/* ---- files, models, flags ---- */

Decision core_put_file(const Core *c, Str id, Str tenant, uint64_t size, const Sha256 *digest,
                       Str name, Str content_type, uint64_t owner_task, int64_t now_ns,
                       FrameBuilder *b)
{
    int64_t ttl = owner_task ? ORPHAN_TTL_NS : (int64_t)c->limits.file_ttl_s * NS_PER_S;
    RecordData d = {.file_put = {.no = c->next_file_no,
                                 .id = id,
                                 .tenant = tenant,
                                 .name = name,
                                 .content_type = content_type,
                                 .sha256 = {(const char *)digest->b, sizeof digest->b},
                                 .size = size,
                                 .owner_task = owner_task,
                                 .expires_ns = now_ns + ttl}};
    record_put(b, REC_FILE_PUT, &d);
    return ok(owner_task);
}

Decision core_delete_file(const Core *c, uint64_t file_no, FrameBuilder *b)
{
    const File *f = core_file(c, file_no);
    if (!f) return refuse(CODE_NOT_FOUND, "", "no such file");
    if (f->refs)
        return refuse(CODE_CONFLICT, "", "%u task(s) refer to this file; delete them first",
                      f->refs);
    const Task *owner = core_task(c, f->owner_task);
    if (owner && !task_state_terminal((TaskState)owner->state))
        return refuse(CODE_CONFLICT, "", "the task that makes this file has not ended");
    RecordData d = {.file_delete = {file_no}};
    record_put(b, REC_FILE_DELETE, &d);
    return ok(0);
}

Decision core_put_model(const Core *c, Str name, Str version, const Sha256 *digest, Str info,
                        FrameBuilder *b)
{
    const ModelEntry *m = core_model(c, name, version);
    if (m && memcmp(m->digest.b, digest->b, sizeof digest->b) == 0 && m->info &&
        str_eqz(info, m->info))
        return ok(0);
    RecordData d = {.model = {name, version, {(const char *)digest->b, sizeof digest->b}, info}};
    record_put(b, REC_MODEL, &d);
    return ok(0);
}

Decision core_set_flag(const Core *c, Str kind, Str subject, bool on, FrameBuilder *b)
{
    if (core_flag(c, kind, subject) == on) return ok(0);
    RecordData d = {.flag = {kind, subject, on}};
    record_put(b, REC_FLAG, &d);
    return ok(0);
}
