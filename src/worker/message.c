/* message.c: parsing with yyjson. Numbers are read raw, so that an input's 0.10000000000000000001
 * goes to the engine as it was written. */
#include "worker/message.h"

#include <stdio.h>
#include <string.h>
#include <yyjson.h>

static Str val_str(yyjson_val *v)
{
    return yyjson_is_str(v) ? (Str){yyjson_get_str(v), yyjson_get_len(v)} : (Str){0};
}

static Str get_str(yyjson_val *obj, const char *key)
{
    return val_str(yyjson_obj_get(obj, key));
}

/* Whole numbers, raw or read. */
static bool val_u64(yyjson_val *v, uint64_t *ret)
{
    if (yyjson_is_raw(v)) {
        return parse_u64((Str){yyjson_get_raw(v), yyjson_get_len(v)}, ret) == 0;
    }
    if (yyjson_is_uint(v)) {
        *ret = yyjson_get_uint(v);
        return true;
    }
    return false;
}

static bool get_u64(yyjson_val *obj, const char *key, uint64_t *ret)
{
    return val_u64(yyjson_obj_get(obj, key), ret);
}

static bool get_u32(yyjson_val *obj, const char *key, uint32_t *ret)
{
    uint64_t v;
    if (!get_u64(obj, key, &v) || v > UINT32_MAX) return false;
    *ret = (uint32_t)v;
    return true;
}

static int invalid(Buf *why, const char *what)
{
    buf_puts(why, what);
    return ERR_INVALID;
}

/* ---- leases ---- */

typedef struct {
    char *p, *end;
} Text; /* where the strings of a batch go: as long as the line, which they all were in */

static Str text_put(Text *t, const char *p, size_t n)
{
    CHECK((size_t)(t->end - t->p) >= n);
    Str s = {t->p, n};
    if (n > 0) memcpy(t->p, p, n);
    t->p += n;
    return s;
}

static int parse_task(yyjson_val *v, int64_t now_ns, Text *text, Held *h, Buf *why)
{
    Str id = get_str(v, "id");
    if (id.n == 0 || id.n > 63) return invalid(why, "a task has no id");
    if (!get_u64(v, "token", &h->token) || h->token == 0)
        return invalid(why, "a task has no token");
    if (!get_u32(v, "attempt", &h->attempt)) h->attempt = 1;
    yyjson_val *input = yyjson_obj_get(v, "input");
    if (input == NULL) return invalid(why, "a task has no input");

    h->id = text_put(text, id.p, id.n);
    Str trace = get_str(v, "traceparent");
    h->traceparent = text_put(text, trace.p, trace.n);
    size_t n;
    char *json = yyjson_val_write(input, 0, &n);
    if (json == NULL) return invalid(why, "an input cannot be written");
    h->task.input = text_put(text, json, n);
    free(json);

    uint64_t in_ms;
    if (get_u64(v, "deadline_in_ms", &in_ms)) {
        h->deadline_ns = now_ns +
                         (int64_t)MIN(in_ms, (uint64_t)INT64_MAX / 4 / NS_PER_MS) * NS_PER_MS;
    }
    yyjson_val *resume = yyjson_obj_get(v, "resume");
    if (yyjson_is_obj(resume)) {
        Str file = get_str(resume, "file");
        if (file.n == 0 || !get_u64(resume, "unit", &h->resume_unit)) {
            return invalid(why, "a task's resume has no file or unit");
        }
        h->resume_file = text_put(text, file.p, file.n);
    }
    return 0;
}

static int parse_lease(yyjson_val *root, Str line, int64_t now_ns, Message *ret, Buf *why)
{
    yyjson_val *tasks = yyjson_obj_get(root, "tasks");
    size_t len = yyjson_arr_size(tasks);
    if (len == 0) return invalid(why, "a lease has no tasks");
    if (len > LEASE_TASKS_MAX) return invalid(why, "a lease has too many tasks");
    Str model = get_str(root, "model"), version = get_str(root, "version");
    if (model.n == 0 || version.n == 0) return invalid(why, "a lease names no model or version");

    LeaseBatch *b = mem_new(sizeof *b + len * sizeof b->tasks[0]);
    b->len = b->left = len;
    b->text = mem_grow(NULL, line.n);
    Text text = {b->text, b->text + line.n};
    b->model = text_put(&text, model.p, model.n);
    b->version = text_put(&text, version.p, version.n);
    int err = get_u32(root, "device", &b->device) ? 0 : invalid(why, "a lease names no device");
    size_t i, max;
    yyjson_val *v;
    yyjson_arr_foreach(tasks, i, max, v)
    {
        if (err != 0) break;
        Held *h = &b->tasks[i];
        h->batch = b;
        list_init(&h->item.link);
        list_init(&h->report.link);
        list_init(&h->in_all);
        err = parse_task(v, now_ns, &text, h, why);
        h->task.id = h->id;
        h->task.attempt = h->attempt;
        h->task.task_ctx = h;
    }
    if (err != 0) {
        lease_batch_free(b);
        return err;
    }
    ret->kind = MESSAGE_LEASE;
    ret->lease = b;
    return 0;
}

/* ---- the other messages ---- */

static void copy_str(char *to, size_t cap, Str s)
{
    snprintf(to, cap, "%.*s", STR_ARG(s));
}

static int parse_root(yyjson_val *root, Str line, int64_t now_ns, Message *ret, Buf *why)
{
    Str t = get_str(root, "t");
    if (t.n == 0) return invalid(why, "no type `t`");
    if (str_eqz(t, "lease")) return parse_lease(root, line, now_ns, ret, why);
    if (str_eqz(t, "cancel")) {
        ret->kind = MESSAGE_CANCEL;
        copy_str(ret->why, sizeof ret->why, get_str(root, "why"));
        return get_u64(root, "token", &ret->token) ? 0 : invalid(why, "a cancel has no token");
    }
    if (str_eqz(t, "load") || str_eqz(t, "unload")) {
        ret->kind = t.p[0] == 'l' ? MESSAGE_LOAD : MESSAGE_UNLOAD;
        copy_str(ret->model, sizeof ret->model, get_str(root, "model"));
        copy_str(ret->version, sizeof ret->version, get_str(root, "version"));
        return get_u32(root, "device", &ret->device) ? 0 : invalid(why, "no device");
    }
    if (str_eqz(t, "drain")) {
        ret->kind = MESSAGE_DRAIN;
        ret->exit = yyjson_is_true(yyjson_obj_get(root, "exit"));
        return 0;
    }
    if (str_eqz(t, "ping")) {
        ret->kind = MESSAGE_PING;
        return get_u64(root, "n", &ret->ping) ? 0 : invalid(why, "a ping has no number");
    }
    ret->kind = MESSAGE_UNKNOWN;
    return 0;
}

int message_parse(Str line, int64_t now_ns, Message *ret, Buf *why)
{
    yyjson_doc *doc = yyjson_read(line.p, line.n, YYJSON_READ_NUMBER_AS_RAW);
    if (doc == NULL) return invalid(why, "not JSON");
    Message m = {0};
    int err = parse_root(yyjson_doc_get_root(doc), line, now_ns, &m, why);
    yyjson_doc_free(doc);
    if (err == 0) *ret = m;
    return err;
}

void message_done(Message *m)
{
    lease_batch_free(m->lease);
    m->lease = NULL;
}

/* ---- answers ---- */

int welcome_parse(Str body, Welcome *ret, Buf *why)
{
    yyjson_doc *doc = yyjson_read(body.p, body.n, 0);
    if (doc == NULL) return invalid(why, "not JSON");
    yyjson_val *root = yyjson_doc_get_root(doc);
    Welcome w = {.lease_s = 30, .ping_s = 5};
    Str worker = get_str(root, "worker");
    if (worker.n == 0 || worker.n >= sizeof w.worker) {
        yyjson_doc_free(doc);
        return invalid(why, "it names no worker");
    }
    copy_str(w.worker, sizeof w.worker, worker);
    (void)get_u32(root, "lease_s", &w.lease_s);
    (void)get_u32(root, "ping_s", &w.ping_s);
    w.lease_s = MIN(MAX(w.lease_s, 1U), 86400U);
    w.ping_s = MIN(MAX(w.ping_s, 1U), 86400U);

    yyjson_val *stale = yyjson_obj_get(root, "stale");
    size_t i, max;
    yyjson_val *v;
    if (yyjson_arr_size(stale) > 0) w.stale = mem_new(yyjson_arr_size(stale) * sizeof *w.stale);
    yyjson_arr_foreach(stale, i, max, v)
    {
        if (val_u64(v, &w.stale[w.stale_len])) w.stale_len++;
    }
    yyjson_arr_foreach(yyjson_obj_get(root, "refused"), i, max, v)
    {
        Str name = get_str(v, "name"), version = get_str(v, "version"), text = get_str(v, "why");
        buf_printf(&w.refused, "%.*s:%.*s: %.*s\n", STR_ARG(name), STR_ARG(version), STR_ARG(text));
    }
    yyjson_doc_free(doc);
    *ret = w;
    return 0;
}

void welcome_done(Welcome *w)
{
    mem_free(w->stale);
    buf_done(&w->refused);
    memset(w, 0, sizeof *w);
}

int answer_parse(Str line, Answer *ret, Buf *ret_detail)
{
    /* Nearly all of them, without a parser. */
    if (str_eqz(line, "{\"status\":\"accepted\"}") || str_eqz(line, "{\"status\": \"accepted\"}")) {
        *ret = ANSWER_ACCEPTED;
        return 0;
    }
    yyjson_doc *doc = yyjson_read(line.p, line.n, 0);
    if (doc == NULL) return ERR_INVALID;
    yyjson_val *root = yyjson_doc_get_root(doc);
    Str status = get_str(root, "status");
    int err = 0;
    if (str_eqz(status, "accepted"))
        *ret = ANSWER_ACCEPTED;
    else if (str_eqz(status, "duplicate"))
        *ret = ANSWER_DUPLICATE;
    else if (str_eqz(status, "fenced"))
        *ret = ANSWER_FENCED;
    else if (str_eqz(status, "invalid"))
        *ret = ANSWER_INVALID;
    else
        err = ERR_INVALID;
    if (err == 0 && *ret == ANSWER_INVALID) buf_put_str(ret_detail, get_str(root, "detail"));
    yyjson_doc_free(doc);
    return err;
}

void problem_text(Str body, Buf *ret)
{
    yyjson_doc *doc = yyjson_read(body.p, body.n, 0);
    yyjson_val *root = yyjson_doc_get_root(doc);
    Str detail = get_str(root, "detail");
    if (detail.n == 0) detail = get_str(root, "title");
    if (detail.n == 0) detail = (Str){body.p, MIN(body.n, (size_t)200)};
    buf_put_str(ret, detail);
    yyjson_doc_free(doc);
}

bool input_is_file(Str json, Buf *ret_id)
{
    /* The cheap test first: nearly every input is something else. */
    if (json.n > 256 || json.n < 10 || memmem(json.p, json.n, "\"$file\"", 7) == NULL) return false;
    yyjson_doc *doc = yyjson_read(json.p, json.n, YYJSON_READ_NUMBER_AS_RAW);
    yyjson_val *root = yyjson_doc_get_root(doc);
    Str id = get_str(root, "$file");
    bool is = yyjson_obj_size(root) == 1 && id.n > 0;
    if (is) buf_put_str(ret_id, id);
    yyjson_doc_free(doc);
    return is;
}
