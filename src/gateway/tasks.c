/* Reading, listing, canceling, retrying, forgetting tasks. */
#include "gateway/internal.h"

#include <stdio.h>
#include <string.h>

#define LIST_DEFAULT 50
#define LIST_MAX     200
#define LIST_SCAN    20000 /* tasks looked at for one page: then the cursor goes on from there */

/* Answers with the task as it is now; leaves once its last record is durable. */
void tasks_answer(Exchange *x, Task *t, int status, bool with_input)
{
    Gateway *g = x->g;
    watch_stop(x);
    exchange_hold(x, task_last_seq(t));
    buf_clear(&g->body);
    render_task(g, t, with_input, true, &g->body);
    exchange_reply_json(x, status);
}

static void get_past(Exchange *x, Task *t)
{
    tasks_answer(x, t, 200, x->with_input);
}

void tasks_get(Exchange *x)
{
    uint64_t wait_s = 0;
    bool given;
    uint32_t prefer_s;
    Str include;
    if (!query_uint(x, "wait", 60, &wait_s, &given) || !query_prefer_wait(x, &prefer_s)) return;
    if (query_get(x, "include", &include)) {
        if (!str_eqz(include, "input")) {
            problem_say(x, 422, CODE_INVALID_REQUEST, "include", "\"include\" may be \"input\"");
            return;
        }
        x->with_input = true;
    }
    Task *t = query_task(x, get_past);
    if (!t) return;
    bool wait = (wait_s || prefer_s) && !task_state_terminal(t->state) && !x->g->draining &&
                !x->head_only;
    if (!wait)
        tasks_answer(x, t, 200, x->with_input);
    else if (wait_s)
        watch_task(x, t, WATCH_CHANGE, (uint32_t)wait_s * 1000);
    else
        watch_task(x, t, WATCH_FINISH, prefer_s * 1000);
}

static void decided(Exchange *x, Decision d, uint64_t no, int status)
{
    Gateway *g = x->g;
    Task *t = core_task(core_of(g), no);
    if (d.code != CODE_OK) {
        Problem p = problem_of_decision(&d);
        if (t) exchange_hold(x, task_last_seq(t)); /* the refusal tells a state, too */
        problem_reply(x, &p);
    } else if (!t) {
        problem_say(x, 410, CODE_GONE, NULL, "the task has left memory");
    } else {
        tasks_answer(x, t, status, false);
    }
}

static void cancel_past(Exchange *x, Task *t)
{
    problem_say(x, 409, CODE_ALREADY_TERMINAL, NULL, "the task is %s already",
                task_state_name((TaskState)t->state));
}

void tasks_cancel(Exchange *x)
{
    Gateway *g = x->g;
    Task *t = query_task(x, cancel_past);
    if (!t) return;
    uint64_t no = t->no;
    decided(x, g->p.cancel(g->p.ctx, no), no, 200);
}

static void forgotten(Exchange *x, PastQuery *q)
{
    (void)q; /* not found: its retention has just ended, and the payload with it */
    /* The records with which the task left memory and was forgotten may not be durable yet. */
    exchange_hold(x, x->g->p.last_seq(x->g->p.ctx));
    exchange_reply(x, 204, NULL, (Str){"", 0});
}

static void forget_past(Exchange *x, Task *t)
{
    Core *c = core_of(x->g);
    if (t->input.forgotten) {
        exchange_hold(x, x->g->p.last_seq(x->g->p.ctx));
        exchange_reply(x, 204, NULL, (Str){"", 0});
        return;
    }
    /* First the log, then the view: a view that is made again of the log forgets it, too. */
    Decision d = x->g->p.forget(x->g->p.ctx, t->no);
    if (d.code != CODE_OK) {
        decided(x, d, t->no, 204);
        return;
    }
    PastQuery q = {.kind = PAST_FORGET, .no = t->no};
    buf_put_str(&q.output, core_payload(c, &t->run->output));
    core_task_forget(c, t);
    core_task_encode(c, t, &q.body);
    past_ask(x, &q, forgotten);
}

void tasks_forget(Exchange *x)
{
    Gateway *g = x->g;
    Task *t = query_task(x, forget_past);
    if (!t) return;
    uint64_t no = t->no;
    Decision d = g->p.forget(g->p.ctx, no);
    if (d.code != CODE_OK) {
        decided(x, d, no, 204);
        return;
    }
    exchange_hold(x, g->p.last_seq(g->p.ctx));
    exchange_reply(x, 204, NULL, (Str){"", 0});
}

/* What is kept of the request while the history view is asked for the task. */
struct RetryKey {
    Digest128 body;
    size_t len;
    char key[];
};

/* A retry makes a task, as a submit does: with a key it makes one, however often it comes. False:
 * answered. */
static bool read_retry_key(Exchange *x)
{
    Submit s = {0};
    Problem problem;
    if (!submit_identity(x, http_field(x->req, "Idempotency-Key"), x->params[0], &s, &problem)) {
        problem_reply(x, &problem);
        return false;
    }
    if (!s.key.n) return true;
    x->retry_key = mem_new(sizeof *x->retry_key + s.key.n);
    x->retry_key->body = s.body;
    x->retry_key->len = s.key.n;
    memcpy(x->retry_key->key, s.key.p, s.key.n);
    return true;
}

static void retried_past(Exchange *x, Task *t)
{
    TaskIdText id;
    core_task_id(core_of(x->g), t, &id);
    exchange_header(x, "Idempotent-Replayed", "true");
    exchange_header(x, "Location", "/v1/tasks/%s", id.z);
    tasks_answer(x, t, 201, false);
}

static void retried(Exchange *x, Decision d)
{
    Gateway *g = x->g;
    Core *c = core_of(g);
    Task *made = d.code == CODE_OK ? core_task(c, d.task_no) : NULL;
    if (d.code == CODE_OK && d.duplicate) g->replays++;
    if (d.code == CODE_OK && !made && g->p.past) {
        past_task(x, d.task_no, retried_past);
        return;
    }
    if (made) {
        if (d.duplicate) exchange_header(x, "Idempotent-Replayed", "true");
        TaskIdText id;
        core_task_id(c, made, &id);
        exchange_header(x, "Location", "/v1/tasks/%s", id.z);
    }
    decided(x, d, d.task_no, 201);
}

static void retry(Exchange *x, Task *t);

static void retry_with_file(Exchange *x, PastQuery *q)
{
    Task *t = core_task(core_of(x->g), q->no);
    Decision d = past_file_back(x->g, q);
    if (d.code != CODE_OK && d.code != CODE_NOT_FOUND) {
        Problem p = problem_of_decision(&d);
        problem_reply(x, &p);
        return;
    }
    x->missing_for_good = d.code == CODE_NOT_FOUND;
    if (t)
        retry(x, t);
    else
        past_task(x, q->no, retry);
}

static void retry(Exchange *x, Task *t)
{
    Gateway *g = x->g;
    Core *c = core_of(g);
    if (!task_state_terminal(t->state)) {
        exchange_hold(x, task_last_seq(t));
        problem_say(x, 409, CODE_CONFLICT, NULL,
                    "the task is %s; only an ended one can be submitted again",
                    task_state_name((TaskState)t->state));
        return;
    }
    if (!payload_is_there(&t->input)) {
        exchange_hold(x, task_last_seq(t));
        problem_say(x, 410, CODE_GONE, NULL, "the task's input has been deleted; submit it anew");
        return;
    }
    Str tenant = core_sym(c, t->tenant);
    Problem problem;
    Submit s = {0};
    if (x->retry_key) {
        s.key = (Str){x->retry_key->key, x->retry_key->len};
        s.body = x->retry_key->body;
    }
    if (!submit_may(x, tenant, &s, &problem)) {
        problem_reply(x, &problem);
        return;
    }
    if (s.known) {
        retried(x, s.repeat);
        return;
    }
    /* The same version where it still is, else what a submit without one gets today. */
    uint64_t files[TASK_FILES_MAX];
    size_t files_len = 0;
    JsonFault fault = {0};
    yyjson_val *input = json_read(&g->json, core_payload(c, &t->input), &fault);
    if (input && !submit_files(x, input, tenant, "input", files, &files_len, &problem)) {
        PastQuery q;
        if (past_wants_file(x, &q)) {
            q.no = t->no;
            past_ask(x, &q, retry_with_file);
            return;
        }
        problem.status = 410;
        problem.code = CODE_GONE;
        problem_reply(x, &problem);
        return;
    }
    const ModelEntry *m = core_model(c, core_sym(c, t->model), core_sym(c, t->version));
    if (!m) m = core_model_latest(c, core_sym(c, t->model));
    SubmitSpec spec = {
        .tenant = tenant,
        .model = core_sym(c, t->model),
        .version = m ? core_sym(c, m->version) : core_sym(c, t->version),
        .input = core_payload(c, &t->input),
        .metadata = t->extra ? buf_str(&t->extra->metadata) : (Str){"", 0},
        .class = (TaskClass)t->class,
        .deadline_ns = t->deadline_ns ? t->deadline_ns - t->created_ns : 0,
        .max_attempts = t->max_attempts,
        .retention_s = t->retention_s,
        .retry_of = t,
        .files = files,
        .files_len = files_len,
        .idempotency_key = s.key,
        .body = s.body,
    };
    retried(x, g->p.submit(g->p.ctx, &spec));
}

void tasks_retry(Exchange *x)
{
    if (!read_retry_key(x)) return;
    Task *t = query_task(x, retry);
    if (t) retry(x, t);
}

static void put_log(Exchange *x, Task *t)
{
    Gateway *g = x->g;
    exchange_hold(x, task_last_seq(t));
    buf_clear(&g->body);
    g->p.task_log(g->p.ctx, t->no, &g->body);
    exchange_reply(x, 200, "text/plain; charset=utf-8", buf_str(&g->body));
}

void tasks_log(Exchange *x)
{
    Task *t = query_task(x, put_log);
    if (t) put_log(x, t);
}

/* ---- list ---- */

typedef struct {
    uint32_t states, classes;
    Sym model, version, tenant;
    bool none; /* a filter names what does not exist */
    int64_t created_after_ns;
    uint64_t limit, before;
} Filter;

static bool next_item(Str *list, Str *ret)
{
    if (!list->n) return false;
    const char *comma = memchr(list->p, ',', list->n);
    *ret = (Str){list->p, comma ? (size_t)(comma - list->p) : list->n};
    size_t used = ret->n + (comma != NULL);
    list->p += used;
    list->n -= used;
    return true;
}

static bool read_states(Exchange *x, Filter *f)
{
    Str list, one;
    if (!query_get(x, "status", &list)) return true;
    while (next_item(&list, &one)) {
        TaskState s;
        if (task_state_from(one, &s)) {
            problem_say(
                x, 422, CODE_INVALID_REQUEST, "status",
                "\"status\" is a list of queued, running, succeeded, failed, canceled, expired; "
                "\"%.*s\" is none of them",
                (int)MIN(one.n, (size_t)40), one.p);
            return false;
        }
        f->states |= 1u << s;
    }
    return true;
}

static bool read_classes(Exchange *x, Filter *f)
{
    Str list, one;
    if (!query_get(x, "priority", &list)) return true;
    while (next_item(&list, &one)) {
        TaskClass c;
        if (task_class_from(one, &c)) {
            problem_say(
                x, 422, CODE_INVALID_REQUEST, "priority",
                "\"priority\" is a list of critical, standard, batch; \"%.*s\" is none of them",
                (int)MIN(one.n, (size_t)40), one.p);
            return false;
        }
        f->classes |= 1u << c;
    }
    return true;
}

static bool read_names(Exchange *x, Filter *f)
{
    Core *c = core_of(x->g);
    Str s;
    if (query_get(x, "model", &s)) {
        const char *colon = memrchr(s.p, ':', s.n);
        Str name = {s.p, colon ? (size_t)(colon - s.p) : s.n};
        f->model = core_sym_find(c, name);
        if (colon) f->version = core_sym_find(c, (Str){colon + 1, s.n - name.n - 1});
        if (!f->model || (colon && !f->version)) f->none = true;
    }
    bool named = query_get(x, "tenant", &s);
    if (named && !x->any_tenant && !str_eq(s, x->tenant)) {
        problem_say(x, 403, CODE_FORBIDDEN, "tenant", "your key sees the tenant \"%.*s\" only",
                    STR_ARG(x->tenant));
        return false;
    }
    if (!named && !x->any_tenant) {
        s = x->tenant;
        named = true;
    }
    if (named) {
        f->tenant = core_sym_find(c, s);
        if (!f->tenant) f->none = true;
    }
    return true;
}

static bool matches(const Task *t, const Filter *f)
{
    return (!f->states || f->states >> t->state & 1) &&
           (!f->classes || f->classes >> t->class & 1) && (!f->model || t->model == f->model) &&
           (!f->version || t->version == f->version) && (!f->tenant || t->tenant == f->tenant);
}

/* A page of the live tasks and, where there is a history view, of what it gave: q->tasks, which are
 * matching ones below f->before, all of them down to q->next. A task that is in both is taken from
 * memory. */
static void list_answer(Exchange *x, const Filter *f, const PastQuery *q)
{
    Gateway *g = x->g;
    const Core *c = core_of(g);
    uint64_t seq = g->p.last_seq(g->p.ctx), found = 0, next = 0, before = f->before;
    size_t scanned = 0, at = 0, past_len = q ? q->tasks_len : 0;
    exchange_hold(x, seq);
    buf_clear(&g->body);
    buf_puts(&g->body, "{\"tasks\":[");
    while (!f->none) {
        const Task *t = core_older(c, before);
        /* Numbers rise with time. */
        if (t && f->created_after_ns &&
            t->created_ns / NS_PER_MS <= f->created_after_ns / NS_PER_MS)
            t = NULL;
        const Task *past = q && at < past_len ? q->tasks[at] : NULL;
        CHECK(past || at == past_len);
        if (past && (!t || past->no > t->no)) {
            t = past;
        } else if (q && !past && q->next && (!t || t->no < q->next)) {
            next = q->next; /* below it the view has not been read */
            break;
        }
        if (!t) break;
        if (found == f->limit || (t != past && scanned++ == LIST_SCAN)) {
            next = before;
            break;
        }
        before = t->no;
        while (at < past_len && q->tasks[at]->no >= before) at++;
        if (t != past && !matches(t, f)) continue;
        if (found++) buf_putc(&g->body, ',');
        render_task(g, t, false, false, &g->body);
    }
    buf_puts(&g->body, "],\"next\":");
    if (next)
        buf_printf(&g->body, "\"c%llu\"", (unsigned long long)next);
    else
        buf_puts(&g->body, "null");
    buf_puts(&g->body, ",\"at_seq\":");
    json_put_u64(&g->body, seq);
    buf_putc(&g->body, '}');
    exchange_reply_json(x, 200);
}

static void list_past(Exchange *x, PastQuery *q)
{
    Filter f = {.states = q->list.states,
                .classes = q->list.classes,
                .model = q->list.model,
                .version = q->list.version,
                .tenant = q->tenant,
                .created_after_ns = q->list.created_after_ns,
                .limit = q->list.limit,
                .before = q->list.before};
    list_answer(x, &f, q);
}

void tasks_list(Exchange *x)
{
    Gateway *g = x->g;
    Filter f = {.limit = LIST_DEFAULT, .before = UINT64_MAX};
    bool given;
    Str s;
    if (!read_states(x, &f) || !read_classes(x, &f) || !read_names(x, &f) ||
        !query_uint(x, "limit", LIST_MAX, &f.limit, &given))
        return;
    if (given && !f.limit) {
        problem_say(x, 422, CODE_INVALID_REQUEST, "limit", "\"limit\" must be from 1 to %d",
                    LIST_MAX);
        return;
    }
    if (query_get(x, "created_after", &s) && parse_time(s, &f.created_after_ns)) {
        problem_say(
            x, 422, CODE_INVALID_REQUEST, "created_after",
            "\"created_after\" must be a time such as 2026-11-22T14:47:50Z; in a URL, write '+' "
            "as %%2B");
        return;
    }
    /* A cursor is "c" and the task number to go on below. */
    if (query_get(x, "cursor", &s)) {
        if (s.n < 2 || s.p[0] != 'c' || parse_u64((Str){s.p + 1, s.n - 1}, &f.before) ||
            !f.before) {
            problem_say(x, 422, CODE_INVALID_REQUEST, "cursor",
                        "\"cursor\" must be what \"next\" of the page before said");
            return;
        }
    }
    if (!g->p.past || f.none) {
        list_answer(x, &f, NULL);
        return;
    }
    PastQuery q = {.kind = PAST_LIST, .tenant = f.tenant};
    q.list.before = f.before;
    q.list.states = f.states;
    q.list.classes = f.classes;
    q.list.model = f.model;
    q.list.version = f.version;
    q.list.created_after_ns = f.created_after_ns;
    q.list.limit = (uint32_t)f.limit;
    past_ask(x, &q, list_past);
}
