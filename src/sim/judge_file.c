#include "sim/judge_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/judge.h"
#include "wire/json.h"

typedef struct {
    JudgeOp op;
    uint32_t line; /* from 1 */
    Str text;
} Operation;

typedef struct {
    Judge *judge;
    Json json; /* the operation's */
    Operation *now;
    Buf *said;
} Reader;

/* ---- members ---- */

static uint64_t number_of(Str s)
{
    uint64_t h = hash_bytes(s.p, s.n);
    return s.n ? (h ? h : 1) : 0;
}

static Str text_of(const Reader *r, const char *name)
{
    const JsonMember *m = json_member(&r->json, name);
    Str s = {"", 0};
    return m && json_val_str(m->val, &s) ? s : (Str){"", 0};
}

/* Python's floats have more decimals than the API takes. */
static int64_t seconds_of(const Reader *r, const char *name)
{
    const JsonMember *m = json_member(&r->json, name);
    return m && yyjson_is_raw(m->val) ? (int64_t)(strtod(yyjson_get_raw(m->val), NULL) * 1e9) : 0;
}

static uint64_t uint_of(const Reader *r, const char *name)
{
    const JsonMember *m = json_member(&r->json, name);
    uint64_t v = 0;
    return m && json_val_uint(m->val, &v) ? v : 0;
}

static int wrong(Reader *r, const char *what)
{
    buf_printf(r->said, "line %u: %s\n", r->now->line, what);
    return ERR_INVALID;
}

static int view_of(Reader *r, yyjson_val *task, JudgeView *ret)
{
    size_t n = 0;
    char *text = yyjson_val_write(task, 0, &n);
    Buf why = {0};
    int err = text ? judge_view_read((Str){text, n}, ret, &why) : ERR_INVALID;
    if (err) err = wrong(r, text ? buf_z(&why) : "a task is no object");
    buf_done(&why);
    free(text); /* yyjson's, by malloc */
    return err;
}

/* ---- operations ---- */

static uint32_t expected(const Reader *r)
{
    const JsonMember *m = json_member(&r->json, "expect");
    uint32_t mask = 0;
    size_t i, n;
    yyjson_val *v;
    yyjson_arr_foreach(m ? m->val : NULL, i, n, v)
    {
        Str name;
        TaskState s;
        if (json_val_str(v, &name) && task_state_from(name, &s) == 0) mask |= 1U << s;
    }
    return mask;
}

static int submit(Reader *r)
{
    const JsonMember *input = json_member(&r->json, "input"), *task = json_member(&r->json, "task");
    JudgeSubmit s = {
        .nonce = judge_nonce(text_of(r, "nonce")),
        .key = number_of(text_of(r, "key")),
        .input = input ? judge_text(input->text) : 0,
        .delay_ns = seconds_of(r, "delay_s"),
        .deadline_ns = seconds_of(r, "deadline_s"),
        .retention_ns = 86400 * NS_PER_S,
        .expect = expected(r),
    };
    s.body = hash_u64(s.input + hash_u64((uint64_t)s.delay_ns + hash_u64((uint64_t)s.deadline_ns)));
    JudgeView v;
    int err = task ? view_of(r, task->val, &v) : 0;
    if (!err && !s.nonce) err = wrong(r, "a submit needs its \"nonce\"");
    if (!err && (r->now->op.out == OUT_OK) != (task != NULL))
        err = wrong(r, "an accepted submit has a task, and no other has");
    if (!err) judge_submit(r->judge, &r->now->op, &s, task ? &v : NULL);
    return err;
}

static int read_task(Reader *r)
{
    const JsonMember *task = json_member(&r->json, "task");
    JudgeView v;
    int err = task ? view_of(r, task->val, &v) : wrong(r, "a read needs its \"task\"");
    if (!err) judge_read(r->judge, &r->now->op, v.id, &v);
    return err;
}

static int by_age(const void *a, const void *b)
{
    const JudgeView *x = a, *y = b;
    if (x->created_ns != y->created_ns) return x->created_ns < y->created_ns ? 1 : -1;
    return strcmp(y->id, x->id);
}

/* Pages are read by offset of a moving list: their order is the client's, not the server's. */
static int list(Reader *r)
{
    const JsonMember *tasks = json_member(&r->json, "tasks");
    size_t i, n = tasks ? yyjson_arr_size(tasks->val) : 0, all = n;
    yyjson_val *v;
    JudgeView *views = mem_new((n + 1) * sizeof *views);
    int err = 0;
    yyjson_arr_foreach(tasks ? tasks->val : NULL, i, n, v) if (!err) err = view_of(r, v, &views[i]);
    qsort(views, all, sizeof *views, by_age);
    if (!err) judge_list(r->judge, &r->now->op, views, all, true);
    mem_free(views);
    return err;
}

static int event(Reader *r, const char *id)
{
    TaskState s;
    if (task_state_from(text_of(r, "status"), &s)) return wrong(r, "an event needs its \"status\"");
    judge_event(r->judge, number_of(text_of(r, "stream")), r->now->op.end, id, 0, uint_of(r, "seq"),
                s, (uint32_t)uint_of(r, "attempt"));
    return 0;
}

static int operate(Reader *r)
{
    char id[TASK_ID_LEN + 1];
    Str name = text_of(r, "op");
    snprintf(id, sizeof id, "%.*s", STR_ARG(text_of(r, "id")));
    if (str_eqz(name, "submit")) return submit(r);
    if (str_eqz(name, "read")) return read_task(r);
    if (str_eqz(name, "list")) return list(r);
    if (str_eqz(name, "event")) return event(r, id);
    if (str_eqz(name, "cancel")) judge_cancel(r->judge, &r->now->op, id, NULL);
    if (str_eqz(name, "drained")) judge_drained(r->judge, r->now->op.start);
    return 0; /* files are no business of this judge; faults are for the reader */
}

/* ---- the file ---- */

static int parse(Reader *r)
{
    JsonFault f = {0};
    if (json_read_object(&r->json, r->now->text, NULL, &f)) return 0;
    return wrong(r, f.detail);
}

static int head(Reader *r)
{
    int err = parse(r);
    if (err) return err;
    Str out = text_of(r, "outcome");
    r->now->op = (JudgeOp){
        .client = (uint32_t)number_of(text_of(r, "client")),
        .start = seconds_of(r, "start"),
        .end = seconds_of(r, "end"),
        .out = str_eqz(out, "refused")   ? OUT_REFUSED
               : str_eqz(out, "unknown") ? OUT_UNKNOWN
                                         : OUT_OK,
        .code = CODE_INVALID_REQUEST,
    };
    return 0;
}

static int by_end(const void *a, const void *b)
{
    const Operation *x = a, *y = b;
    if (x->op.end != y->op.end) return x->op.end < y->op.end ? -1 : 1;
    return x->line < y->line ? -1 : 1;
}

static int judge_text_lines(Reader *r, Str text)
{
    Buf all = {0};
    int err = 0;
    uint32_t line = 0;
    for (const char *p = text.p, *end = p + text.n, *next; p < end && !err; p = next) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        next = stop ? stop + 1 : end;
        Operation o = {.line = ++line, .text = {p, (size_t)((stop ? stop : end) - p)}};
        r->now = &o;
        if (o.text.n) err = head(r);
        if (o.text.n) buf_put(&all, &o, sizeof o);
    }
    Operation *ops = (Operation *)(void *)all.data;
    size_t n = all.len / sizeof *ops;
    if (n) qsort(ops, n, sizeof *ops, by_end);
    for (size_t i = 0; i < n && !err; i++) {
        r->now = &ops[i];
        err = parse(r);
        if (!err) err = operate(r);
    }
    buf_done(&all);
    return err;
}

static int read_whole(const char *path, Buf *ret)
{
    FILE *f = fopen(path, "r");
    if (!f) return ERR_NOT_FOUND;
    for (size_t n = 1; n;) {
        n = fread(buf_extend(ret, 1 * MIB), 1, 1 * MIB, f);
        ret->len -= 1 * MIB - n;
    }
    int err = ferror(f) ? ERR_IO : 0;
    fclose(f);
    return err;
}

int judge_file(const char *path, int *ret_broken, Buf *said)
{
    Buf text = {0};
    JudgeBounds bounds = {.key_ttl_ns = 86400 * NS_PER_S, .slack_ns = 5 * NS_PER_MS};
    Reader r = {.judge = judge_new(&bounds), .said = said};
    int err = read_whole(path, &text);
    if (!err) err = judge_text_lines(&r, buf_str(&text));
    if (!err) {
        judge_finish(r.judge);
        *ret_broken = judge_broken(r.judge);
        if (*ret_broken)
            buf_put_str(said, judge_why(r.judge));
        else
            judge_summary(r.judge, said);
    }
    judge_free(r.judge);
    json_done(&r.json);
    buf_done(&text);
    return err;
}
