/* A task object of the API as a JudgeView. */
#include "sim/judge_inside.h"

#include <stdio.h>

#include "wire/json.h"

uint64_t judge_text(Str json)
{
    Buf b = {0};
    json_compact(json, &b);
    uint64_t h = hash_bytes(b.data, b.len);
    buf_done(&b);
    return h ? h : 1;
}

uint64_t judge_nonce(Str text)
{
    uint64_t n = 0;
    return parse_u64(text, &n) ? hash_bytes(text.p, text.n) | 1 : n;
}

static int wrong(Buf *why, const char *name)
{
    buf_printf(why, "\"%s\" is missing or wrong", name);
    return ERR_INVALID;
}

static Str text_of(const Json *j, const char *name)
{
    const JsonMember *m = json_member(j, name);
    Str s = {"", 0};
    return m && json_val_str(m->val, &s) ? s : (Str){"", 0};
}

static int time_of(const Json *j, const char *name, int64_t *ret, Buf *why)
{
    Str s = text_of(j, name);
    *ret = 0;
    return s.n && parse_time(s, ret) ? wrong(why, name) : 0;
}

static bool number(yyjson_val *object, const char *name, uint64_t *ret)
{
    return json_val_uint(yyjson_obj_get(object, name), ret);
}

static void put_id(char to[TASK_ID_LEN + 1], Str s)
{
    snprintf(to, TASK_ID_LEN + 1, "%.*s", (int)MIN(s.n, (size_t)TASK_ID_LEN), s.p);
}

static int read_whole(const Json *j, JudgeView *v, Buf *why)
{
    static const char *const fixed[] = {"model",    "version",    "priority",
                                        "tenant",   "created_at", "deadline_at",
                                        "metadata", "receipt",    "max_attempts"};
    const JsonMember *m;
    uint64_t n;
    if (!json_val_uint((m = json_member(j, "attempt")) ? m->val : NULL, &n))
        return wrong(why, "attempt");
    v->attempt = (uint32_t)n;
    if (!json_val_uint((m = json_member(j, "max_attempts")) ? m->val : NULL, &n))
        return wrong(why, "max_attempts");
    v->max_attempts = (uint32_t)n;
    if ((m = json_member(j, "output"))) v->output = judge_text(m->text);
    if ((m = json_member(j, "error"))) {
        Str code;
        v->error = judge_text(m->text);
        if (!json_val_str(yyjson_obj_get(m->val, "code"), &code) || fail_from(code, &v->fail))
            return wrong(why, "error");
    }
    if (time_of(j, "created_at", &v->created_ns, why) ||
        time_of(j, "started_at", &v->started_ns, why) ||
        time_of(j, "finished_at", &v->finished_ns, why) ||
        time_of(j, "deadline_at", &v->deadline_ns, why))
        return ERR_INVALID;
    if (!(m = json_member(j, "metrics")) || !number(m->val, "device_ms", &n))
        return wrong(why, "metrics");
    v->device_ms = (int64_t)n;
    if (!(m = json_member(j, "receipt")) || !number(m->val, "shard", &n) ||
        !number(m->val, "epoch", &v->epoch) || !number(m->val, "seq", &v->seq))
        return wrong(why, "receipt");
    v->shard = (uint32_t)n;
    if (!(m = json_member(j, "metadata"))) return wrong(why, "metadata");
    Str nonce;
    if (json_val_str(yyjson_obj_get(m->val, "nonce"), &nonce)) v->nonce = judge_nonce(nonce);
    v->data_removed = json_member(j, "data_removed") != NULL;
    put_id(v->retry_of, text_of(j, "retry_of"));
    for (size_t i = 0; i < ARRAY_LEN(fixed); i++)
        v->fixed = hash_u64(v->fixed + ((m = json_member(j, fixed[i])) ? judge_text(m->text) : i));
    return 0;
}

int judge_view_read(Str json, JudgeView *ret, Buf *why)
{
    Json j = {0};
    JsonFault fault = {0};
    JudgeView v = {0};
    int err = 0;
    if (!json_read_object(&j, json, NULL, &fault)) {
        buf_printf(why, "%s %s", fault.field, fault.detail);
        err = ERR_INVALID;
    } else {
        put_id(v.id, text_of(&j, "id"));
        if (strlen(v.id) != TASK_ID_LEN) err = wrong(why, "id");
        if (!err && task_state_from(text_of(&j, "status"), &v.status)) err = wrong(why, "status");
        v.brief = !json_member(&j, "created_at");
        if (!err && !v.brief) err = read_whole(&j, &v, why);
    }
    json_done(&j);
    if (!err) *ret = v;
    return err;
}
