/* echo.c: the built-in model: its output is its input. Fields of an input that is an object make it
 * slow or faulty, for tests and benchmarks:
 *
 *   sleep_ms       holds the device that long; companions in a batch sleep at the same time
 *   units          splits the sleep into so many units (progress, checkpoints); default 1
 *   fail           "retryable" or "final": fails so; "crash": kills the worker; "hang": never ends
 *   fail_attempts  [1, 2]: only on these attempts; default all
 *   fail_unit      as this unit ends; default the last
 *
 * A hang honours a cancel only: what else ends it is the lease's expiry. */
#include "engine/inside.h"

#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <yyjson.h>

enum { SLEEP_MAX_MS = 86400000, UNITS_MAX = 100000, ATTEMPTS_MAX = 16 };
#define SLICE_NS (4 * NS_PER_MS) /* how often a sleeper looks at the cancel flags */

typedef enum { FAIL_NONE, FAIL_RETRYABLE, FAIL_FINAL, FAIL_CRASH, FAIL_HANG } Fail;
static const char *const fail_names[] = {"", "retryable", "final", "crash", "hang", NULL};

/* Only tasks that ask for something have one; a plain task's priv is NULL. */
typedef struct {
    int64_t unit_ns;
    Fail fail;          /* on this attempt */
    uint32_t fail_unit; /* from 1 */
} EchoTask;

static int echo_open(EngineModel *m, EngineError *err)
{
    (void)m, (void)err;
    return 0;
}

static void echo_close(EngineModel *m)
{
    (void)m;
}

static void echo_describe(EngineModel *m, Buf *ret)
{
    (void)m;
    buf_puts(ret, "{\"fields\":["
                  "{\"name\":\"sleep_ms\",\"type\":\"integer\",\"minimum\":0},"
                  "{\"name\":\"units\",\"type\":\"integer\",\"minimum\":1,\"default\":1},"
                  "{\"name\":\"fail\",\"type\":\"string\","
                  "\"enum\":[\"retryable\",\"final\",\"crash\",\"hang\"]},"
                  "{\"name\":\"fail_attempts\",\"type\":\"array\"},"
                  "{\"name\":\"fail_unit\",\"type\":\"integer\",\"minimum\":1}"
                  "],\"output\":\"the input\"}");
}

/* False after refusing the task. */
static bool read_number(EngineTask *t, yyjson_val *o, const char *name, uint64_t least,
                        uint64_t most, uint64_t *out)
{
    yyjson_val *v = yyjson_obj_get(o, name);
    if (!v) return true;
    if (!yyjson_is_uint(v) || yyjson_get_uint(v) < least || yyjson_get_uint(v) > most) {
        engine_task_fail(t, ENGINE_ERR_BAD_INPUT, false,
                         "'%s' must be a whole number from %llu to %llu", name,
                         (unsigned long long)least, (unsigned long long)most);
        return false;
    }
    *out = yyjson_get_uint(v);
    return true;
}

static bool read_fail(EngineTask *t, yyjson_val *o, Fail *out)
{
    yyjson_val *v = yyjson_obj_get(o, "fail"), *attempts = yyjson_obj_get(o, "fail_attempts");
    if (!v) return true;
    const char *name = yyjson_get_str(v);
    size_t i = 1;
    while (name && fail_names[i] && strcmp(name, fail_names[i]) != 0) i++;
    if (!name || !fail_names[i]) {
        engine_task_fail(t, ENGINE_ERR_BAD_INPUT, false,
                         "'fail' must be \"retryable\", \"final\", \"crash\" or \"hang\"");
        return false;
    }
    *out = (Fail)i;
    if (!attempts) return true;
    if (!yyjson_is_arr(attempts) || yyjson_arr_size(attempts) > ATTEMPTS_MAX) {
        engine_task_fail(t, ENGINE_ERR_BAD_INPUT, false,
                         "'fail_attempts' must be a list of at most %d numbers, such as [1]",
                         ATTEMPTS_MAX);
        return false;
    }
    bool listed = false;
    size_t at, n;
    yyjson_val *item;
    yyjson_arr_foreach(attempts, at, n, item)
        listed = listed || (yyjson_is_uint(item) && yyjson_get_uint(item) == t->attempt);
    if (!listed) *out = FAIL_NONE;
    return true;
}

static void admit_options(EngineTask *t, yyjson_val *o)
{
    uint64_t sleep_ms = 0, units = 1, fail_unit = 0;
    Fail fail = FAIL_NONE;
    if (!read_number(t, o, "sleep_ms", 0, SLEEP_MAX_MS, &sleep_ms) ||
        !read_number(t, o, "units", 1, UNITS_MAX, &units) ||
        !read_number(t, o, "fail_unit", 1, units, &fail_unit) || !read_fail(t, o, &fail))
        return;
    EchoTask *e = mem_new(sizeof *e);
    e->unit_ns = (int64_t)(sleep_ms * (uint64_t)NS_PER_MS / units);
    e->fail = fail;
    e->fail_unit = (uint32_t)(fail_unit ? fail_unit : units);
    t->steps = (uint32_t)units;
    t->priv = e;
}

static bool mentions(Str s, const char *word)
{
    return memmem(s.p, s.n, word, strlen(word)) != NULL;
}

static void echo_admit(EngineModel *m, EngineTask *t)
{
    (void)m;
    /* The quick way: nothing asked for. */
    if (t->input.n && t->input.p[0] == '"') return;
    if (!mentions(t->input, "sleep_ms") && !mentions(t->input, "units") &&
        !mentions(t->input, "fail"))
        return;
    yyjson_doc *doc = yyjson_read(t->input.p, t->input.n, YYJSON_READ_BIGNUM_AS_RAW);
    yyjson_val *root = yyjson_doc_get_root(doc);
    if (!doc)
        engine_task_fail(t, ENGINE_ERR_BAD_INPUT, false, "the input is not JSON");
    else if (yyjson_is_obj(root))
        admit_options(t, root);
    yyjson_doc_free(doc);
}

/* Until the longest unit among the tasks that are still wanted is over. */
static void sleep_for(EngineTask **tasks, size_t n)
{
    int64_t began = engine_now_ns();
    for (;;) {
        int64_t longest = 0;
        for (size_t i = 0; i < n; i++) {
            EchoTask *e = tasks[i]->priv;
            if (!e || engine_task_cancel_wanted(tasks[i])) continue;
            bool hangs = e->fail == FAIL_HANG && tasks[i]->step + 1 == e->fail_unit;
            longest = MAX(longest, hangs ? INT64_MAX / 2 : e->unit_ns);
        }
        if (longest == 0) return;
        int64_t left = began + longest - engine_now_ns();
        if (left <= 0) return;
        struct timespec ts = {.tv_nsec = (long)MIN(left, SLICE_NS)};
        nanosleep(&ts, NULL);
    }
}

static void echo_step(EngineModel *m, EngineTask **tasks, size_t n)
{
    (void)m;
    sleep_for(tasks, n);
    for (size_t i = 0; i < n; i++) {
        EngineTask *t = tasks[i];
        EchoTask *e = t->priv;
        if (engine_task_cancel_wanted(t)) {
            engine_task_canceled(t);
            continue;
        }
        t->step++;
        if (e && e->fail && t->step == e->fail_unit) {
            if (e->fail == FAIL_CRASH) kill(getpid(), SIGKILL);
            engine_task_fail(t, ENGINE_ERR_MODEL, e->fail == FAIL_RETRYABLE,
                             "failed as the input's 'fail' asked, on attempt %u", t->attempt);
        } else if (t->step == t->steps) {
            buf_put_str(&t->output, t->input);
            engine_task_done(t);
        }
    }
}

static int echo_checkpoint(EngineModel *m, const EngineTask *t, Buf *ret)
{
    (void)m;
    buf_u32(ret, t->step);
    buf_u32(ret, t->steps);
    return 0;
}

static int echo_resume(EngineModel *m, EngineTask *t, Str checkpoint)
{
    (void)m;
    Cursor c = cursor_of(checkpoint.p, checkpoint.n);
    uint32_t step = cursor_u32(&c), steps = cursor_u32(&c);
    if (c.bad || cursor_left(&c) || steps != t->steps || step >= steps) return ERR_INVALID;
    t->step = step;
    return 0;
}

static void echo_release(EngineModel *m, EngineTask *t)
{
    (void)m;
    mem_free(t->priv);
}

const EngineClass engine_echo = {
    .name = "echo",
    .continuous = true,
    .open = echo_open,
    .close = echo_close,
    .describe = echo_describe,
    .admit = echo_admit,
    .step = echo_step,
    .checkpoint = echo_checkpoint,
    .resume = echo_resume,
    .release = echo_release,
};
