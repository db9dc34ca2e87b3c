/* tasks.c: what this worker holds: from the lease to the answer to its last report. Main thread. */
#include "wire/json.h"
#include "worker/inside.h"

#include <string.h>

Held *tasks_find(const Worker *w, uint64_t token)
{
    for (TableNode *n = table_first(&w->by_token, hash_u64(token)); n != NULL; n = table_next(n)) {
        Held *h = CONTAINER_OF(n, Held, by_token);
        if (h->token == token) return h;
    }
    return NULL;
}

static Held *find_id(const Worker *w, Str id)
{
    for (TableNode *n = table_first(&w->by_id, hash_bytes(id.p, id.n)); n != NULL;
         n = table_next(n)) {
        Held *h = CONTAINER_OF(n, Held, by_id);
        if (str_eq(h->id, id) && atomic_load(&h->stop) != STOP_DROP) return h;
    }
    return NULL;
}

static void add(Worker *w, Held *h)
{
    table_add(&w->by_token, &h->by_token, hash_u64(h->token));
    table_add(&w->by_id, &h->by_id, hash_bytes(h->id.p, h->id.n));
    list_push_back(&w->all, &h->in_all);
    w->held_len++;
    worker_busy(w);
}

static void gone(Worker *w, Held *h)
{
    table_del(&w->by_token, &h->by_token);
    table_del(&w->by_id, &h->by_id);
    list_del(&h->in_all);
    w->held_len--;
    held_free(h);
}

/* ---- the end: its last report ---- */

static void report(Worker *w, Held *h)
{
    if (atomic_load(&h->stop) == STOP_DROP) {
        gone(w, h);
        return;
    }
    int64_t device_ns = h->task.device_ns;
    if (h->report.line.len == 0) {
        if (h->outcome == OUTCOME_ERROR) {
            line_error(&h->report.line, h->id, h->token, h->error_code,
                       str_from(h->task.error.message), h->task.error.retryable, device_ns,
                       h->run_ns);
        } else {
            CHECK(h->outcome == OUTCOME_RELEASED);
            line_released(&h->report.line, h->id, h->token, device_ns, h->run_ns);
        }
    }
    h->state = HELD_REPORTING;
    h->report.kind = REPORT_LAST;
    h->report.token = h->token;
    outbox_put(&w->outbox, &h->report);
}

static void release(Worker *w, Held *h)
{
    h->outcome = OUTCOME_RELEASED;
    report(w, h);
}

/* ---- jobs on other threads: files ---- */

typedef struct {
    LoopWork work;
    Worker *w;
    Held *h;
    int err;
    EngineError why;
} FileJob;

static void end_failed_job(FileJob *j)
{
    Held *h = j->h;
    bool stopped = atomic_load(&h->stop) != STOP_NO || j->why.code == ENGINE_ERR_CANCELED;
    h->outcome = stopped ? OUTCOME_RELEASED : OUTCOME_ERROR;
    h->task.error = j->why;
    /* That a file could not be moved is nobody's model's fault. */
    h->error_code = j->why.code == ENGINE_ERR_MODEL ? "internal" : engine_error_code(j->why.code);
}

static void start_job(Worker *w, Held *h, void (*work)(LoopWork *), void (*after)(LoopWork *, int))
{
    FileJob *j = mem_new(sizeof *j);
    j->w = w;
    j->h = h;
    w->jobs++;
    loop_work(w->loop, &j->work, work, after);
}

static void store_work(LoopWork *work)
{
    FileJob *j = CONTAINER_OF(work, FileJob, work);
    Held *h = j->h;
    const char *id;
    j->err = worker_file_store(&j->w->files, h, STR("output.json"), STR("application/json"),
                               buf_str(&h->output), &id, &j->why);
    if (j->err != 0) return;
    Buf b = {0};
    buf_printf(&b, "{\"$file\":\"%s\",\"content_type\":\"application/json\",\"size\":%zu}", id,
               h->output.len);
    line_result(&h->report.line, h->id, h->token, buf_str(&b), h->task.device_ns, h->run_ns);
    buf_done(&b);
    buf_done(&h->output);
}

static void store_done(LoopWork *work, int status)
{
    FileJob *j = CONTAINER_OF(work, FileJob, work);
    Worker *w = j->w;
    (void)status; /* jobs are never canceled */
    w->jobs--;
    if (j->err != 0) end_failed_job(j);
    report(w, j->h);
    mem_free(j);
    session_post(w);
    worker_check_end(w);
}

/* What the executor gives back. */
static void ended(Worker *w, Held *h)
{
    bool store = h->outcome == OUTCOME_RESULT && h->report.line.len == 0;
    if (store && atomic_load(&h->stop) == STOP_NO) {
        h->state = HELD_STORING;
        start_job(w, h, store_work, store_done);
        return;
    }
    if (store) h->outcome = OUTCOME_RELEASED;
    report(w, h);
}

static void to_executor(Worker *w, List *items, uint32_t device)
{
    Executor *e = worker_executor(w, device);
    CHECK(e != NULL);
    w->world->put(e, items);
}

/* What comes inline was read by the server; a file is whatever somebody has uploaded. */
static bool is_json(Str text)
{
    yyjson_doc *doc = yyjson_read(text.p, text.n, YYJSON_READ_NUMBER_AS_RAW);
    bool is = doc != NULL;
    yyjson_doc_free(doc);
    return is;
}

static void fetch_work(LoopWork *work)
{
    FileJob *j = CONTAINER_OF(work, FileJob, work);
    Held *h = j->h;
    FileOwner owner = file_owner(h);
    Buf id = {0};
    if (input_is_file(h->task.input, &id)) {
        j->err = files_read(&j->w->files, &owner, buf_str(&id), &h->fetched, &j->why);
        h->task.input = buf_str(&h->fetched);
        if (j->err == 0 && !is_json(h->task.input)) {
            engine_error_set(&j->why, ENGINE_ERR_BAD_INPUT, false,
                             "file %.*s is the whole input, but no JSON; refer to other files from "
                             "a member of the input",
                             STR_ARG(buf_str(&id)));
            j->err = ERR_INVALID;
        }
    }
    buf_done(&id);
    if (j->err != 0 || h->resume_file.n == 0) return;
    EngineError why;
    int err = files_read(&j->w->files, &owner, h->resume_file, &h->checkpoint, &why);
    if (err != 0 && err != ERR_CANCELED) {
        say_warn("task %.*s: its checkpoint cannot be read (%s): it starts again", STR_ARG(h->id),
                 why.message);
    }
}

static void fetch_done(LoopWork *work, int status)
{
    FileJob *j = CONTAINER_OF(work, FileJob, work);
    Worker *w = j->w;
    Held *h = j->h;
    (void)status;
    w->jobs--;
    if (j->err == 0 && atomic_load(&h->stop) == STOP_NO) {
        h->state = HELD_WITH_EXECUTOR;
        List one;
        list_init(&one);
        list_push_back(&one, &h->item.link);
        to_executor(w, &one, h->batch->device);
    } else {
        if (j->err != 0)
            end_failed_job(j);
        else
            h->outcome = OUTCOME_RELEASED;
        report(w, h);
        session_post(w);
    }
    mem_free(j);
    worker_check_end(w);
}

/* ---- leases ---- */

static void refuse(Worker *w, Held *h, const char *why)
{
    engine_error_set(&h->task.error, ENGINE_ERR_MODEL, true, "%s", why);
    h->error_code = "internal";
    h->outcome = OUTCOME_ERROR;
    report(w, h);
}

void tasks_lease(Worker *w, LeaseBatch *b)
{
    Executor *e = worker_executor(w, b->device);
    b->spec = repository_find(&w->models, b->model, b->version);
    List items;
    list_init(&items);
    for (size_t i = 0, len = b->len; i < len; i++) { /* the last one may free b */
        Held *h = &b->tasks[i];
        if (tasks_find(w, h->token) != NULL) { /* said twice */
            held_free(h);
            continue;
        }
        Held *old = find_id(w, h->id);
        if (old != NULL && old->token < h->token) tasks_stop(w, old->token, STOP_DROP);
        add(w, h);
        if (w->leaving || w->held_len > HELD_MAX) {
            release(w, h);
        } else if (e == NULL) {
            refuse(w, h, "the worker has no such device");
        } else if (b->spec == NULL) {
            refuse(w, h, "the worker does not have this model");
        } else {
            h->item.kind = ITEM_TASK;
            h->item.spec = b->spec;
            Buf id = {0};
            if (h->resume_file.n > 0 || input_is_file(h->task.input, &id)) {
                h->state = HELD_FETCHING;
                start_job(w, h, fetch_work, fetch_done);
            } else {
                h->state = HELD_WITH_EXECUTOR;
                list_push_back(&items, &h->item.link);
            }
            buf_done(&id);
        }
    }
    if (!list_empty(&items)) to_executor(w, &items, b->device);
    session_post(w);
}

static void stop_held(Worker *w, Held *h, HeldStop how)
{
    if (atomic_load(&h->stop) < (int)how) atomic_store(&h->stop, how);
    switch (h->state) {
    case HELD_WITH_EXECUTOR:
        w->world->cancel(worker_executor(w, h->batch->device), h);
        break;
    case HELD_FETCHING: /* their jobs look at h->stop */
    case HELD_STORING:
        break;
    case HELD_REPORTING: /* its answer says the rest; of a dropped one none may come */
        if (how == STOP_DROP && w->outbox.flight_len == 0) {
            outbox_drop(&w->outbox, &h->report);
            gone(w, h);
        }
        break;
    }
}

void tasks_stop(Worker *w, uint64_t token, HeldStop how)
{
    Held *h = tasks_find(w, token);
    if (h != NULL) stop_held(w, h, how);
}

void tasks_stop_all(Worker *w)
{
    LIST_FOR (h, &w->all, Held, in_all) stop_held(w, h, STOP_RELEASE);
}

void tasks_hand_back(Worker *w)
{
    LIST_FOR (h, &w->all, Held, in_all) {
        if (h->state == HELD_FETCHING) stop_held(w, h, STOP_RELEASE);
    }
    for (size_t i = 0; i < w->executors_len; i++) w->world->hand_back(w->executors[i]);
}

/* ---- what executors tell ---- */

static void put_name(Buf *b, const char *event, uint32_t device, const ModelSpec *spec)
{
    buf_printf(
        b,
        "{\"t\":\"telemetry\",\"device\":%u,\"model\":\"%s\",\"version\":\"%s\",\"event\":\"%s\"",
        device, spec->name, spec->version, event);
}

static void telemetry(Worker *w, Buf *line)
{
    outbox_put(&w->outbox, report_new(REPORT_TELEMETRY, 0, line));
}

static Resident *find_resident(Worker *w, uint32_t device, const ModelSpec *spec)
{
    for (size_t i = 0; i < w->residents_len; i++) {
        if (w->residents[i].device == device && w->residents[i].spec == spec)
            return &w->residents[i];
    }
    return NULL;
}

static void loaded(Worker *w, uint32_t device, const Note *n)
{
    Buf b = {0};
    put_name(&b, "loaded", device, n->spec);
    buf_printf(&b, ",\"load_ns\":%lld,\"memory_bytes\":%llu,\"max_batch\":%u",
               (long long)n->load_ns, (unsigned long long)n->memory_bytes, n->knee.max_batch);
    const char *before = ",\"unit_ns\":{";
    for (size_t i = 0; i < KNEE_SIZES; i++) {
        if (n->knee.unit_ns[i] == 0) continue;
        buf_printf(&b, "%s\"%u\":%lld", before, 1U << i, (long long)n->knee.unit_ns[i]);
        before = ",";
    }
    buf_puts(&b, before[1] == '\0' ? "}}\n" : "}\n");

    Resident *r = find_resident(w, device, n->spec);
    if (r == NULL) {
        if (w->residents_len == w->residents_cap) {
            w->residents_cap = MAX(2 * w->residents_cap, (size_t)8);
            w->residents = mem_grow(w->residents, w->residents_cap * sizeof *w->residents);
        }
        r = &w->residents[w->residents_len++];
        *r = (Resident){.device = device, .spec = n->spec};
    }
    buf_clear(&r->line);
    buf_put(&r->line, b.data, b.len);
    telemetry(w, &b);
}

static void unloaded(Worker *w, uint32_t device, const Note *n)
{
    Resident *r = find_resident(w, device, n->spec);
    if (r != NULL) {
        buf_done(&r->line);
        *r = w->residents[--w->residents_len];
    }
    Buf b = {0};
    put_name(&b, "unloaded", device, n->spec);
    buf_puts(&b, "}\n");
    telemetry(w, &b);
}

static void load_failed(Worker *w, uint32_t device, const Note *n)
{
    Buf b = {0};
    put_name(&b, "load_failed", device, n->spec);
    buf_puts(&b, ",\"message\":");
    json_put_str(&b, buf_str(&n->bytes));
    if (n->memory_bytes)
        buf_printf(&b, ",\"memory_bytes\":%llu", (unsigned long long)n->memory_bytes);
    buf_puts(&b, "}\n");
    telemetry(w, &b);
}

/* A checkpoint goes out as a file, then its report. */
typedef struct {
    LoopWork work;
    Worker *w;
    char task_id[64];
    uint64_t token, unit;
    Buf bytes;
    atomic_int stop; /* never raised: it is short */
    char file[65];
    int err;
} CheckpointJob;

static void checkpoint_work(LoopWork *work)
{
    CheckpointJob *j = CONTAINER_OF(work, CheckpointJob, work);
    FileOwner owner = {str_from(j->task_id), j->token, &j->stop};
    EngineError why;
    j->err = files_put(&j->w->files, &owner, STR("checkpoint"), STR("application/octet-stream"),
                       buf_str(&j->bytes), j->file, &why);
}

static void checkpoint_done(LoopWork *work, int status)
{
    CheckpointJob *j = CONTAINER_OF(work, CheckpointJob, work);
    Worker *w = j->w;
    (void)status;
    w->jobs--;
    Held *h = tasks_find(w, j->token);
    if (h != NULL) {
        h->storing_checkpoint = false;
        if (j->err == 0 && h->state == HELD_WITH_EXECUTOR) {
            Buf line = {0};
            line_checkpoint(&line, h->id, h->token, j->unit, str_from(j->file));
            outbox_put(&w->outbox, report_new(REPORT_CHECKPOINT, h->token, &line));
            session_post(w);
        }
    }
    buf_done(&j->bytes);
    mem_free(j);
    worker_check_end(w);
}

static void checkpoint(Worker *w, Note *n)
{
    Held *h = tasks_find(w, n->token);
    if (h == NULL || h->storing_checkpoint || w->session != SESSION_ON) return;
    h->storing_checkpoint = true;
    CheckpointJob *j = mem_new(sizeof *j);
    j->w = w;
    memcpy(j->task_id, h->id.p, h->id.n);
    j->token = h->token;
    j->unit = n->unit;
    j->bytes = n->bytes;
    n->bytes = (Buf){0};
    w->jobs++;
    loop_work(w->loop, &j->work, checkpoint_work, checkpoint_done);
}

void tasks_take(Worker *w)
{
    for (size_t i = 0; i < w->executors_len; i++) {
        uint32_t device = w->first_device + (uint32_t)i;
        List items, notes;
        list_init(&items);
        list_init(&notes);
        w->world->take(w->executors[i], &items, &notes);
        LIST_FOR (n, &notes, Note, link) {
            list_del(&n->link);
            if (n->kind == NOTE_LOG) {
                list_push_back(&w->logs, &n->link);
                continue;
            }
            if (n->kind == NOTE_LOADED) loaded(w, device, n);
            if (n->kind == NOTE_UNLOADED) unloaded(w, device, n);
            if (n->kind == NOTE_LOAD_FAILED) load_failed(w, device, n);
            if (n->kind == NOTE_CHECKPOINT) checkpoint(w, n);
            note_free(n);
        }
        LIST_FOR (it, &items, ExecutorItem, link) {
            list_del(&it->link);
            ended(w, CONTAINER_OF(it, Held, item));
        }
    }
    session_post(w);
    worker_check_end(w);
}

/* ---- answers ---- */

void tasks_answered(Worker *w, Report *r, Answer a, Str detail)
{
    if (r->kind != REPORT_LAST) {
        if (a == ANSWER_FENCED && r->token != 0) tasks_stop(w, r->token, STOP_RELEASE);
        if (a == ANSWER_INVALID) {
            say_warn("the server refuses a report: %.*s: %.*s", STR_ARG(detail), (int)r->line.len,
                     (const char *)r->line.data);
        }
        report_free(r);
        return;
    }
    Held *h = CONTAINER_OF(r, Held, report);
    if (a != ANSWER_INVALID || h->outcome == OUTCOME_RELEASED) {
        gone(w, h);
        return;
    }
    /* The task has to end somehow: a result that the server cannot read becomes an error, and an
     * error that it cannot read a release. */
    say_warn("task %.*s: the server refuses its %s: %.*s", STR_ARG(h->id),
             h->outcome == OUTCOME_RESULT ? "result" : "error", STR_ARG(detail));
    if (h->outcome == OUTCOME_RESULT) {
        engine_error_set(&h->task.error, ENGINE_ERR_BAD_OUTPUT, false,
                         "the server refuses the model's output: %.*s", STR_ARG(detail));
        h->error_code = "bad_output";
        h->outcome = OUTCOME_ERROR;
    } else {
        h->outcome = OUTCOME_RELEASED;
    }
    buf_clear(&h->report.line);
    report(w, h);
}

/* ---- time ---- */

void tasks_tick(Worker *w)
{
    int64_t now = clock_mono();
    LIST_FOR (h, &w->all, Held, in_all) {
        if (h->deadline_ns != 0 && now >= h->deadline_ns && atomic_load(&h->stop) == STOP_NO) {
            stop_held(w, h, STOP_RELEASE);
        }
    }
}

void tasks_init(Worker *w)
{
    list_init(&w->all);
    list_init(&w->logs);
    outbox_init(&w->outbox);
}

void tasks_done(Worker *w)
{
    LIST_FOR (r, &w->outbox.pending, Report, link) {
        list_del(&r->link);
        if (r->kind != REPORT_LAST) report_free(r);
    }
    LIST_FOR (n, &w->logs, Note, link) note_free(n);
    LIST_FOR (h, &w->all, Held, in_all) gone(w, h);
    for (size_t i = 0; i < w->residents_len; i++) buf_done(&w->residents[i].line);
    mem_free(w->residents);
    table_done(&w->by_token);
    table_done(&w->by_id);
}
