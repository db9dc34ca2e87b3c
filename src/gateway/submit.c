/* POST /v1/tasks: from JSON to a SubmitSpec, from a decision to an answer. batch.c uses the same
 * for its lines. */
#include "gateway/internal.h"

#include <stdio.h>
#include <string.h>

#define SECONDS_MAX         (INT64_C(30) * 86400) /* deadline, delay, retention: 30 days */
#define RETENTION_DEFAULT_S 86400
#define ATTEMPTS_DEFAULT    3
#define KEY_MAX             255

static const char *const fields[] = {
    "model",        "input",       "priority", "deadline_s", "delay_s",
    "max_attempts", "retention_s", "metadata", "webhook",    NULL};
static const char *const line_fields[] = {"model",   "input",           "priority",    "deadline_s",
                                          "delay_s", "max_attempts",    "retention_s", "metadata",
                                          "webhook", "idempotency_key", NULL};

void submit_done(Submit *s)
{
    buf_done(&s->compacted);
}

static bool fault_out(const JsonFault *f, Problem *p)
{
    *p = problem_of_fault(f);
    return false;
}

static bool unknown_model(Gateway *g, Str name, Problem *p)
{
    const ModelEntry *all;
    size_t n = core_models(core_of(g), &all);
    const char *names[65];
    char copies[64][65];
    size_t kept = 0;
    for (size_t i = 0; i < n && kept < 64; i++) {
        Str s = core_sym(core_of(g), all[i].name);
        snprintf(copies[kept], sizeof copies[kept], "%.*s", (int)MIN(s.n, (size_t)64), s.p);
        names[kept] = copies[kept];
        kept++;
    }
    names[kept] = NULL;
    const char *near = nearest_name(name, names);
    int status = code_status(CODE_UNKNOWN_MODEL);
    Str shown = {name.p, MIN(name.n, (size_t)80)};
    if (near)
        *p = problem_of(status, CODE_UNKNOWN_MODEL, "model",
                        "there is no model \"%.*s\"; did you mean \"%s\"?", STR_ARG(shown), near);
    else
        *p = problem_of(status, CODE_UNKNOWN_MODEL, "model",
                        "there is no model \"%.*s\"; GET /v1/models lists what there is%s",
                        STR_ARG(shown), n ? "" : " (none yet: no worker has registered one)");
    return false;
}

static bool read_model(Gateway *g, Str text, Submit *s, Problem *p)
{
    Core *c = core_of(g);
    CHECK(text.p && text.n > 0);
    const char *colon = memrchr(text.p, ':', text.n);
    const ModelEntry *m = NULL;
    if (!colon) {
        m = core_model_latest(c, text);
        if (!m) return unknown_model(g, text, p);
    } else {
        Str name = {text.p, (size_t)(colon - text.p)}, version = {colon + 1, text.n - name.n - 1};
        m = core_model(c, name, version);
        if (!m) {
            const ModelEntry *latest = core_model_latest(c, name);
            if (!latest) return unknown_model(g, name, p);
            Str last = core_sym(c, latest->version);
            *p = problem_of(code_status(CODE_UNKNOWN_MODEL), CODE_UNKNOWN_MODEL, "model",
                            "the model \"%.*s\" has no version \"%.*s\"; its latest is \"%.*s\"",
                            (int)MIN(name.n, (size_t)80), name.p, (int)MIN(version.n, (size_t)40),
                            version.p, (int)MIN(last.n, (size_t)40), last.p);
            return false;
        }
    }
    s->model = core_sym(c, m->name);
    s->version = core_sym(c, m->version);
    return true;
}

static bool read_metadata(const JsonMember *m, Submit *s, JsonFault *f)
{
    if (!m) return true;
    if (!yyjson_is_obj(m->val)) {
        json_fault(f, "metadata",
                   "\"metadata\" must be an object of strings, such as {\"order\": \"17\"}");
        return false;
    }
    if (yyjson_obj_size(m->val) > TASK_METADATA_PAIRS) {
        json_fault(f, "metadata", "\"metadata\" has %zu pairs; at most %d are kept",
                   yyjson_obj_size(m->val), TASK_METADATA_PAIRS);
        return false;
    }
    size_t i, n;
    yyjson_val *key, *val;
    yyjson_obj_foreach(m->val, i, n, key, val)
    {
        size_t len = yyjson_get_len(key);
        if (len < 1 || len > 64 || !yyjson_is_str(val) || yyjson_get_len(val) > 512) {
            json_fault(
                f, "metadata",
                "metadata \"%.*s\": keys are 1 to 64 bytes long, values are strings of at most "
                "512 bytes",
                (int)MIN(len, (size_t)64), yyjson_get_str(key));
            return false;
        }
    }
    s->metadata = m->text;
    return true;
}

/* W3C trace context, version 00: 00-<32 hex>-<16 hex>-<2 hex>, ids not all zero. Anything else is
 * as if it were not sent. */
static Str valid_traceparent(Str t)
{
    static const Str none = {"", 0};
    if (t.n != 55 || memcmp(t.p, "00-", 3) != 0 || t.p[35] != '-' || t.p[52] != '-') return none;
    bool trace = false, span = false;
    for (size_t i = 3; i < 55; i++) {
        if (i == 35 || i == 52) continue;
        char c = t.p[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return none;
        if (c != '0' && i < 35) trace = true;
        if (c != '0' && i > 35 && i < 52) span = true;
    }
    return trace && span ? t : none;
}

/* Walks a value for {"$file": "file_…"}: an object of that one member, or with it as the first.
 * Depth is bounded by the reader. */
typedef struct {
    Exchange *x;
    Str tenant;
    const char *field;
    uint64_t *files;
    size_t len;
    Problem *problem;
} FileWalk;

static bool walk_files(FileWalk *w, yyjson_val *v)
{
    size_t i, n;
    yyjson_val *key, *val;
    if (yyjson_is_arr(v)) {
        yyjson_arr_foreach(v, i, n, val) if (!walk_files(w, val)) return false;
        return true;
    }
    if (!yyjson_is_obj(v)) return true;
    yyjson_obj_foreach(v, i, n, key, val)
    {
        if (i > 0 || !yyjson_equals_str(key, "$file")) {
            if (!walk_files(w, val)) return false;
            continue;
        }
        Str id = {yyjson_get_str(val), yyjson_get_len(val)};
        const File *f = yyjson_is_str(val) ? core_file_find(core_of(w->x->g), id, w->tenant) : NULL;
        if (!f) {
            Exchange *x = w->x;
            x->missing_tenant = core_sym_find(core_of(x->g), w->tenant);
            if (id.n == sizeof x->missing_file - 1) memcpy(x->missing_file, id.p, id.n);
            *w->problem = problem_of(
                422, CODE_INVALID_REQUEST, w->field,
                "\"%s\" refers to the file \"%.*s\", which does not exist; upload it with POST "
                "/v1/files",
                w->field, yyjson_is_str(val) ? (int)MIN(id.n, (size_t)40) : 1,
                yyjson_is_str(val) ? id.p : "?");
            return false;
        }
        size_t k = 0;
        while (k < w->len && w->files[k] != f->no) k++;
        if (k < w->len) continue;
        if (w->len == TASK_FILES_MAX) {
            *w->problem = problem_of(422, CODE_INVALID_REQUEST, w->field,
                                     "\"%s\" refers to more than %d files", w->field,
                                     TASK_FILES_MAX);
            return false;
        }
        w->files[w->len++] = f->no;
    }
    return true;
}

bool submit_files(Exchange *x, yyjson_val *v, Str tenant, const char *field,
                  uint64_t files[TASK_FILES_MAX], size_t *ret_len, Problem *problem)
{
    FileWalk w = {x, tenant, field, files, 0, problem};
    memset(x->missing_file, 0, sizeof x->missing_file);
    if (!walk_files(&w, v)) return false;
    *ret_len = w.len;
    return true;
}

bool submit_read(Exchange *x, Str body, bool line, Submit *s, Problem *problem)
{
    Gateway *g = x->g;
    Json *j = &g->json;
    JsonFault f = {0};
    if (!json_read_object(j, body, line ? line_fields : fields, &f)) return fault_out(&f, problem);
    if (json_member(j, "webhook")) {
        *problem = problem_of(
            422, CODE_INVALID_REQUEST, "webhook",
            "webhook delivery does not exist in this version; leave \"webhook\" out and poll the "
            "task, wait for "
            "it or read its events");
        return false;
    }
    const JsonMember *input = NULL;
    for (size_t i = 0; i < j->members_len; i++)
        if (str_eqz(j->members[i].name, "input")) input = &j->members[i]; /* null is an input too */
    Str model = {NULL, 0}, priority = {NULL, 0};
    uint64_t attempts = ATTEMPTS_DEFAULT, retention = RETENTION_DEFAULT_S;
    if (!json_str(json_member(j, "model"), 1, 256, &model, &f) ||
        !json_str(json_member(j, "priority"), 1, 32, &priority, &f) ||
        !json_seconds(json_member(j, "deadline_s"), NS_PER_MS, SECONDS_MAX * NS_PER_S,
                      &s->deadline_ns, &f) ||
        !json_seconds(json_member(j, "delay_s"), 0, SECONDS_MAX * NS_PER_S, &s->delay_ns, &f) ||
        !json_uint(json_member(j, "max_attempts"), 1, TASK_ATTEMPTS_MAX, &attempts, &f) ||
        !json_uint(json_member(j, "retention_s"), 0, SECONDS_MAX, &retention, &f) ||
        !read_metadata(json_member(j, "metadata"), s, &f) ||
        (line && !json_str(json_member(j, "idempotency_key"), 1, KEY_MAX, &s->key, &f)))
        return fault_out(&f, problem);
    if (!model.p)
        json_fault(&f, "model", "\"model\" is missing; name one, such as \"echo\" or \"sdxl:3\"");
    else if (!input)
        json_fault(&f, "input",
                   "\"input\" is missing; it is what the model takes, such as {\"prompt\": \"…\"}");
    else if (s->deadline_ns && s->delay_ns >= s->deadline_ns)
        json_fault(
            &f, "delay_s",
            "\"delay_s\" must be less than \"deadline_s\": the task would expire before it starts");
    if (f.bad) return fault_out(&f, problem);
    s->class = CLASS_STANDARD;
    if (priority.p && (task_class_from(priority, &s->class) || s->class == CLASS_HARVEST)) {
        *problem = problem_of(422, CODE_INVALID_REQUEST, "priority",
                              "\"priority\" must be critical, standard or batch; it is \"%.*s\"",
                              STR_ARG(priority));
        return false;
    }
    CHECK(input); /* or it was said above */
    s->max_attempts = (uint32_t)attempts;
    s->retention_s = (uint32_t)retention;
    if (!read_model(g, model, s, problem)) return false;
    /* A reference is written with '$', or an escape that hides it. */
    if ((memchr(input->text.p, '$', input->text.n) || memchr(input->text.p, '\\', input->text.n)) &&
        !submit_files(x, input->val, x->tenant, "input", s->files, &s->files_len, problem))
        return false;
    s->input = input->text;
    bool meta_lines = s->metadata.n && json_has_newline(s->metadata);
    if (json_has_newline(s->input) || meta_lines) { /* it will be part of a line for a worker */
        size_t n = s->input.n;
        json_compact(s->input, &s->compacted);
        size_t at = s->compacted.len;
        if (meta_lines) json_compact(s->metadata, &s->compacted);
        s->input = (Str){(char *)s->compacted.data, at};
        if (meta_lines) s->metadata = (Str){(char *)s->compacted.data + at, s->compacted.len - at};
        CHECK(s->input.n <= n);
    }
    if (!line) s->traceparent = valid_traceparent(http_field(x->req, "traceparent"));
    return true;
}

bool submit_identity(Exchange *x, Str key_header, Str body, Submit *s, Problem *problem)
{
    if (key_header.p) {
        Buf *text = &x->g->text;
        size_t at = text->len;
        CHECK(text->cap - text->len >= key_header.n);
        if (http_quoted(key_header, text) || text->len == at || text->len - at > KEY_MAX) {
            *problem = problem_of(
                400, CODE_INVALID_REQUEST, "Idempotency-Key",
                "Idempotency-Key must be a quoted string of 1 to %d printable ASCII characters, "
                "such as "
                "Idempotency-Key: \"order-17\"; it is: %.*s",
                KEY_MAX, (int)MIN(key_header.n, (size_t)40), key_header.p);
            return false;
        }
        s->key = (Str){(char *)text->data + at, text->len - at};
    }
    if (!s->key.n) return true;
    Sha256 d;
    Sha256Run *run = sha256_start();
    sha256_add(run, x->route->pattern, strlen(x->route->pattern));
    sha256_add(run, "\n", 1);
    sha256_add(run, body.p, body.n);
    sha256_end(run, &d);
    memcpy(&s->body, &d, sizeof s->body);
    return true;
}

bool submit_known(Exchange *x, Str tenant, Submit *s)
{
    s->known = s->key.n && core_repeat(core_of(x->g), tenant, s->key, s->body, &s->repeat);
    return s->known;
}

bool submit_may(Exchange *x, Str tenant, Submit *s, Problem *problem)
{
    Gateway *g = x->g;
    Decision d = g->p.accepting(g->p.ctx);
    if (d.code != CODE_OK) {
        if (d.code != CODE_NO_LEADER && submit_known(x, tenant, s)) return true;
        *problem = problem_of_decision(&d);
        return false;
    }
    uint32_t retry_ms = 0;
    if (x->rated || auth_rate(x, tenant, true, &retry_ms)) {
        x->rated = true;
        return true;
    }
    *problem = problem_of(429, CODE_RATE_LIMITED, NULL,
                          "the tenant \"%.*s\" may submit %g tasks a second", STR_ARG(tenant),
                          g->o.tenant_rate);
    problem->retry_after_ms = retry_ms;
    return false;
}

bool submit_line_known(Exchange *x, Str line, Submit *s)
{
    Json *j = &x->g->json;
    JsonFault f = {0};
    Problem problem;
    return json_read_object(j, line, line_fields, &f) &&
           json_str(json_member(j, "idempotency_key"), 1, KEY_MAX, &s->key, &f) &&
           submit_identity(x, (Str){NULL, 0}, line, s, &problem) && submit_known(x, x->tenant, s);
}

bool submit_decide(Exchange *x, Submit *s, Task **ret_task, uint64_t *ret_no, bool *ret_repeat,
                   Problem *problem)
{
    Gateway *g = x->g;
    SubmitSpec spec = {
        .tenant = x->tenant,
        .model = s->model,
        .version = s->version,
        .input = s->input,
        .metadata = s->metadata,
        .traceparent = s->traceparent,
        .idempotency_key = s->key,
        .body = s->body,
        .class = s->class,
        .deadline_ns = s->deadline_ns,
        .delay_ns = s->delay_ns,
        .max_attempts = s->max_attempts,
        .retention_s = s->retention_s,
        .files = s->files,
        .files_len = s->files_len,
    };
    Decision d = s->known ? s->repeat : g->p.submit(g->p.ctx, &spec);
    if (d.code != CODE_OK) {
        *problem = problem_of_decision(&d);
        return false;
    }
    *ret_repeat = d.duplicate;
    if (d.duplicate) g->replays++;
    *ret_task = core_task(core_of(g), d.task_no);
    *ret_no = d.task_no;
    return true;
}

/* ---- large inputs ---- */

static void big_work(LoopWork *w)
{
    BigInput *b = CONTAINER_OF(w, BigInput, work);
    sha256(b->s.input.p, b->s.input.n, &b->sha256);
    b->err = files_store(b->g, b->file_id, b->s.input);
}

static void big_after(LoopWork *w, int status)
{
    BigInput *b = CONTAINER_OF(w, BigInput, work);
    b->g->jobs--;
    if (status || b->g->closing) b->err = ERR_CANCELED;
    if (b->x) /* who has it until done is called, also on a connection that is closing */
        b->done(b);
    else
        submit_big_free(b);
}

static Str moved_into(Str s, Buf *copy)
{
    size_t at = copy->len;
    buf_put_str(copy, s); /* room was reserved: nothing moves */
    return (Str){(char *)copy->data + at, s.n};
}

void submit_store_big(Exchange *x, Submit *s, BigInput *b)
{
    b->x = x;
    b->g = x->g;
    b->s = *s;
    b->s.compacted = (Buf){0};
    b->size = s->input.n;
    buf_reserve(&b->copy, s->input.n + s->metadata.n + s->traceparent.n + s->key.n + s->model.n +
                              s->version.n);
    b->s.input = moved_into(s->input, &b->copy);
    b->s.metadata = moved_into(s->metadata, &b->copy);
    b->s.traceparent = moved_into(s->traceparent, &b->copy);
    b->s.key = moved_into(s->key, &b->copy);
    b->s.model = moved_into(s->model, &b->copy);
    b->s.version = moved_into(s->version, &b->copy);
    files_new_id(x->g, b->file_id);
    x->g->jobs++;
    loop_work(x->g->loop, &b->work, big_work, big_after);
}

bool submit_big_decide(BigInput *b, Task **ret_task, uint64_t *ret_no, bool *ret_repeat,
                       Problem *problem)
{
    Gateway *g = b->g;
    if (b->err) {
        bool full = b->err == ERR_NOSPC;
        *problem = problem_of(full ? code_status(CODE_DISK_FULL) : 500,
                              full ? CODE_DISK_FULL : CODE_INTERNAL, "input",
                              "the input could not be stored: %s", err_text(b->err));
        return false;
    }
    Decision d = g->p.put_file(g->p.ctx, str_from(b->file_id), b->x->tenant, b->size, &b->sha256,
                               STR("input.json"), STR("application/json"), 0);
    if (d.code != CODE_OK) {
        *problem = problem_of_decision(&d);
        return false;
    }
    const File *f = core_file_find(core_of(g), str_from(b->file_id), b->x->tenant);
    CHECK(f);
    char reference[64];
    int n = snprintf(reference, sizeof reference, "{\"$file\":\"%s\"}", b->file_id);
    b->s.input = (Str){reference, (size_t)n};
    uint64_t no = f->no;
    if (b->s.files_len == TASK_FILES_MAX) {
        *problem = problem_of(422, CODE_INVALID_REQUEST, "input",
                              "a large input may refer to %d files", TASK_FILES_MAX - 1);
        (void)g->p.delete_file(g->p.ctx, no);
        return false;
    }
    b->s.files[b->s.files_len++] = no;
    bool fine = submit_decide(b->x, &b->s, ret_task, ret_no, ret_repeat, problem);
    if (!fine || *ret_repeat) (void)g->p.delete_file(g->p.ctx, no); /* nobody refers to it */
    return fine;
}

void submit_big_free(BigInput *b)
{
    buf_done(&b->copy);
    mem_free(b);
}

/* ---- the route ---- */

/* A repeat of a request whose task has left memory. */
static void answer_past(Exchange *x, Task *t)
{
    TaskIdText id;
    core_task_id(core_of(x->g), t, &id);
    exchange_header(x, "Idempotent-Replayed", "true");
    exchange_header(x, "Location", "/v1/tasks/%s", id.z);
    tasks_answer(x, t, x->wanted_wait ? 200 : 202, false);
}

static void answer(Exchange *x, Task *t, uint64_t no, bool repeat, uint32_t wait_s)
{
    Gateway *g = x->g;
    if (!t && g->p.past) {
        x->wanted_wait = wait_s != 0;
        buf_clear(&x->headers);
        past_task(x, no, answer_past);
        return;
    }
    if (repeat) exchange_header(x, "Idempotent-Replayed", "true");
    if (!t) {
        exchange_hold(x, g->p.last_seq(g->p.ctx));
        problem_say(x, 410, CODE_GONE, NULL,
                    "this request was accepted before; its task has ended and left memory");
        return;
    }
    TaskIdText id;
    core_task_id(core_of(g), t, &id);
    bool over = task_state_terminal(t->state);
    if (wait_s && !over && !g->draining) {
        buf_clear(&x->headers); /* made anew when the wait is over */
        watch_task(x, t, WATCH_SUBMIT, wait_s * 1000);
        return;
    }
    exchange_header(x, "Location", "/v1/tasks/%s", id.z);
    tasks_answer(x, t, wait_s && over ? 200 : 202, false);
}

typedef struct {
    BigInput big;
    uint32_t wait_s;
} BigPost;

static void big_drop(Exchange *x)
{
    ((BigPost *)x->state)->big.x = NULL; /* big_after frees it */
}

static void big_stored(BigInput *b)
{
    Exchange *x = b->x;
    uint32_t wait_s = CONTAINER_OF(b, BigPost, big)->wait_s;
    Task *t = NULL;
    bool repeat = false;
    Problem problem;
    uint64_t no = 0;
    bool fine = submit_big_decide(b, &t, &no, &repeat, &problem);
    x->drop = NULL;
    x->state = NULL;
    submit_big_free(b);
    if (fine)
        answer(x, t, no, repeat, wait_s);
    else
        problem_reply(x, &problem);
}

/* Without room for a new task the key is looked at first: a repeat makes none. */
static bool may_post(Exchange *x, Submit *s, Problem *problem)
{
    Gateway *g = x->g;
    if (g->p.accepting(g->p.ctx).code != CODE_OK &&
        !submit_identity(x, http_field(x->req, "Idempotency-Key"), x->req->body, s, problem))
        return false;
    return submit_may(x, x->tenant, s, problem);
}

/* ---- a request that refers to a file of a task in the history view ---- */

struct SavedRequest {
    HttpRequest req; /* what is read of it again points into text */
    Buf text;
};

void submit_forget_request(Exchange *x)
{
    if (!x->saved) return;
    buf_done(&x->saved->text);
    mem_free(x->saved);
    x->saved = NULL;
}

static void save_request(Exchange *x)
{
    const HttpRequest *r = x->req;
    struct SavedRequest *s = mem_new(sizeof *s);
    size_t n = r->path.n + r->body.n;
    for (size_t i = 0; i < r->fields_len; i++) n += r->fields[i].name.n + r->fields[i].value.n;
    buf_reserve(&s->text, n + 1);
    s->req = (HttpRequest){.method = r->method, .fields_len = r->fields_len};
    s->req.path = moved_into(r->path, &s->text);
    s->req.body = moved_into(r->body, &s->text);
    for (size_t i = 0; i < r->fields_len; i++)
        s->req.fields[i] = (HttpField){moved_into(r->fields[i].name, &s->text),
                                       moved_into(r->fields[i].value, &s->text)};
    x->saved = s;
}

static void file_answered(Exchange *x, PastQuery *q)
{
    Decision d = past_file_back(x->g, q);
    if (d.code != CODE_OK && d.code != CODE_NOT_FOUND) {
        Problem p = problem_of_decision(&d);
        problem_reply(x, &p);
        return;
    }
    x->missing_for_good = d.code == CODE_NOT_FOUND;
    memset(x->missing_file, 0, sizeof x->missing_file);
    x->req = &x->saved->req;
    buf_clear(&x->g->text);
    submit_post(x);
    x->req = NULL;
}

void submit_post(Exchange *x)
{
    PastQuery q;
    Submit s = {0};
    Problem problem;
    uint32_t wait_s;
    Task *t = NULL;
    bool repeat = false;
    if (!query_prefer_wait(x, &wait_s)) return;
    if (!may_post(x, &s, &problem) ||
        (!s.known && (!submit_read(x, x->req->body, false, &s, &problem) ||
                      !submit_identity(x, http_field(x->req, "Idempotency-Key"), x->req->body, &s,
                                       &problem)))) {
        submit_done(&s);
        if (past_wants_file(x, &q)) {
            if (!x->saved) save_request(x);
            past_ask(x, &q, file_answered);
        } else {
            problem_reply(x, &problem);
        }
        return;
    }
    if (s.input.n > TASK_INLINE_MAX && !submit_known(x, x->tenant, &s)) {
        BigPost *b = mem_new(sizeof *b);
        b->wait_s = wait_s;
        b->big.done = big_stored;
        x->state = b;
        x->drop = big_drop;
        x->exclusive = true;
        buf_clear(&x->headers);
        submit_store_big(x, &s, &b->big);
        submit_done(&s);
        return;
    }
    uint64_t no = 0;
    bool fine = submit_decide(x, &s, &t, &no, &repeat, &problem);
    submit_done(&s);
    if (fine)
        answer(x, t, no, repeat, wait_s);
    else
        problem_reply(x, &problem);
}
