#include "task/task.h"

static const char *const state_names[TASK_STATES] = {
    [TASK_QUEUED] = "queued", [TASK_RUNNING] = "running",   [TASK_SUCCEEDED] = "succeeded",
    [TASK_FAILED] = "failed", [TASK_CANCELED] = "canceled", [TASK_EXPIRED] = "expired",
};
static const char *const class_names[CLASSES] = {"critical", "standard", "batch", "harvest"};
static const char *const fail_names[FAILS] = {
    [FAIL_NONE] = "",
    [FAIL_MODEL_ERROR] = "model_error",
    [FAIL_MODEL_CRASHED] = "model_crashed",
    [FAIL_OUT_OF_MEMORY] = "out_of_memory",
    [FAIL_WORKER_LOST] = "worker_lost",
    [FAIL_BAD_INPUT] = "bad_input",
    [FAIL_BAD_OUTPUT] = "bad_output",
    [FAIL_TIMEOUT] = "timeout",
    [FAIL_EXPIRED] = "expired",
    [FAIL_INTERNAL] = "internal",
};
static const struct {
    const char *name;
    int status;
} codes[CODES] = {
    [CODE_OK] = {"ok", 200},
    [CODE_INVALID_REQUEST] = {"invalid_request", 400},
    [CODE_UNKNOWN_FIELD] = {"unknown_field", 400},
    [CODE_UNKNOWN_MODEL] = {"unknown_model", 404},
    [CODE_NOT_FOUND] = {"not_found", 404},
    [CODE_GONE] = {"gone", 410},
    [CODE_METHOD_NOT_ALLOWED] = {"method_not_allowed", 405},
    [CODE_UNAUTHORIZED] = {"unauthorized", 401},
    [CODE_FORBIDDEN] = {"forbidden", 403},
    [CODE_IDEMPOTENCY_MISMATCH] = {"idempotency_mismatch", 422},
    [CODE_ALREADY_TERMINAL] = {"already_terminal", 409},
    [CODE_CONFLICT] = {"conflict", 409},
    [CODE_TOO_LARGE] = {"too_large", 413},
    [CODE_RATE_LIMITED] = {"rate_limited", 429},
    [CODE_QUOTA_EXCEEDED] = {"quota_exceeded", 429},
    [CODE_QUEUE_FULL] = {"queue_full", 429},
    [CODE_DEADLINE_UNREACHABLE] = {"deadline_unreachable", 429},
    [CODE_NO_LEADER] = {"no_leader", 503},
    [CODE_LOG_STALLED] = {"log_stalled", 503},
    [CODE_DISK_FULL] = {"disk_full", 503},
    [CODE_INTERNAL] = {"internal", 500},
};

const char *task_state_name(TaskState s)
{
    CHECK(s < TASK_STATES);
    return state_names[s];
}

const char *task_class_name(TaskClass c)
{
    CHECK(c < CLASSES);
    return class_names[c];
}

const char *fail_name(FailCode f)
{
    CHECK(f < FAILS);
    return fail_names[f];
}

const char *code_name(Code c)
{
    CHECK(c < CODES);
    return codes[c].name;
}

int code_status(Code c)
{
    CHECK(c < CODES);
    return codes[c].status;
}

int task_state_from(Str s, TaskState *ret)
{
    for (unsigned i = 0; i < TASK_STATES; i++)
        if (str_eqz(s, state_names[i])) return *ret = (TaskState)i, 0;
    return ERR_NOT_FOUND;
}

int task_class_from(Str s, TaskClass *ret)
{
    for (unsigned i = 0; i < CLASSES; i++)
        if (str_eqz(s, class_names[i])) return *ret = (TaskClass)i, 0;
    return ERR_NOT_FOUND;
}

int fail_from(Str s, FailCode *ret)
{
    for (unsigned i = FAIL_NONE + 1; i < FAILS; i++)
        if (str_eqz(s, fail_names[i])) return *ret = (FailCode)i, 0;
    return ERR_NOT_FOUND;
}
