/* judge_stub.c: stands in for what judge.c does not have yet (weak symbols). */
#include "sim/judge.h"
#include "wire/json.h"

#include <stdio.h>

#define WEAK __attribute__((weak))

WEAK Judge *judge_new(const JudgeBounds *b)
{
    (void)b;
    return mem_new(8);
}
WEAK void judge_free(Judge *j)
{
    mem_free(j);
}
WEAK int judge_broken(const Judge *j)
{
    (void)j;
    return 0;
}
WEAK Str judge_why(const Judge *j)
{
    (void)j;
    return (Str){"", 0};
}
WEAK int judge_view_read(Str json, JudgeView *ret, Buf *why)
{
    Json j = {0};
    JsonFault f = {0};
    Str id = {"", 0}, state = {"", 0};
    uint64_t seq = 0, attempt = 0;
    yyjson_val *root = json_read(&j, json, &f);
    int err = ERR_INVALID;
    *ret = (JudgeView){0};
    if (root && json_val_str(yyjson_obj_get(root, "id"), &id) &&
        json_val_str(yyjson_obj_get(root, "status"), &state) &&
        task_state_from(state, &ret->status) == 0) {
        err = 0;
        snprintf(ret->id, sizeof ret->id, "%.*s", STR_ARG(id));
        (void)json_val_uint(yyjson_obj_get(yyjson_obj_get(root, "receipt"), "seq"), &seq);
        (void)json_val_uint(yyjson_obj_get(root, "attempt"), &attempt);
        ret->seq = seq;
        ret->attempt = (uint32_t)attempt;
    } else {
        buf_puts(why, "no task");
    }
    json_done(&j);
    return err;
}
WEAK uint64_t judge_text(Str json)
{
    return chain64(1, json.p, json.n) | 1;
}
WEAK void judge_submit(Judge *j, const JudgeOp *op, const JudgeSubmit *s, const JudgeView *view)
{
    (void)j, (void)op, (void)s, (void)view;
}
WEAK void judge_read(Judge *j, const JudgeOp *op, const char *id, const JudgeView *view)
{
    (void)j, (void)op, (void)id, (void)view;
}
WEAK void judge_list(Judge *j, const JudgeOp *op, const JudgeView *views, size_t len, bool complete)
{
    (void)j, (void)op, (void)views, (void)len, (void)complete;
}
WEAK void judge_event(Judge *j, uint64_t stream, int64_t now, const char *id, uint64_t after,
                      uint64_t seq, TaskState status, uint32_t attempt)
{
    (void)j, (void)stream, (void)now, (void)id, (void)after, (void)seq, (void)status, (void)attempt;
}
WEAK void judge_cancel(Judge *j, const JudgeOp *op, const char *id, const JudgeView *view)
{
    (void)j, (void)op, (void)id, (void)view;
}
WEAK void judge_delete(Judge *j, const JudgeOp *op, const char *id)
{
    (void)j, (void)op, (void)id;
}
WEAK void judge_claimed(Judge *j, uint64_t epoch, int64_t now)
{
    (void)j, (void)epoch, (void)now;
}
WEAK void judge_lease_given(Judge *j, int64_t now, uint32_t worker, const char *id, uint64_t token,
                            uint32_t attempt, uint64_t input)
{
    (void)j, (void)now, (void)worker, (void)id, (void)token, (void)attempt, (void)input;
}
WEAK void judge_result_sent(Judge *j, int64_t now, uint32_t worker, const char *id, uint64_t token,
                            bool ok, uint64_t output, int64_t device_ns)
{
    (void)j, (void)now, (void)worker, (void)id, (void)token, (void)ok, (void)output,
        (void)device_ns;
}
WEAK void judge_result_answered(Judge *j, int64_t now, uint32_t worker, const char *id,
                                uint64_t token, JudgeAnswer answer)
{
    (void)j, (void)now, (void)worker, (void)id, (void)token, (void)answer;
}
WEAK void judge_calm(Judge *j, int64_t now)
{
    (void)j, (void)now;
}
WEAK void judge_drained(Judge *j, int64_t now)
{
    (void)j, (void)now;
}
WEAK void judge_finish(Judge *j)
{
    (void)j;
}
WEAK const char *judge_accepted(const Judge *j, size_t index)
{
    (void)j, (void)index;
    return NULL;
}
