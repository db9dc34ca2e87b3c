/* engine.c: finds the class of a model and holds every engine to the same rules: tasks start from a
 * clean state, a step's time is charged to those who were in it, nothing is left behind. */
#include "engine/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const EngineClass *const classes[] = {&engine_onnx, &engine_diffusion, &engine_exec,
                                             &engine_echo};

int64_t engine_now_ns(void)
{
    struct timespec ts;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &ts) == 0);
    return (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

/* ---- errors ---- */

/* Whatever came in, a message stays UTF-8: a cut last character goes, others become '?'. */
static void message_clean(char *z)
{
    size_t n = strlen(z);
    for (size_t cut = 0; cut < 4 && cut < n; cut++) {
        if (!utf8_valid(z, n - cut)) continue;
        z[n - cut] = 0;
        n -= cut;
        break;
    }
    bool valid = utf8_valid(z, n);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)z[i];
        if (c < 0x20 || c == 0x7f)
            z[i] = ' ';
        else if (!valid && c >= 0x80)
            z[i] = '?';
    }
}

static void error_vset(EngineError *e, EngineErrCode code, bool retryable, const char *fmt,
                       va_list ap)
{
    char message[sizeof e->message]; /* e's own message may be among the arguments */
    vsnprintf(message, sizeof message, fmt, ap);
    message_clean(message);
    e->code = code;
    e->retryable = retryable;
    memcpy(e->message, message, sizeof message);
}

void engine_error_set(EngineError *e, EngineErrCode code, bool retryable, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    error_vset(e, code, retryable, fmt, ap);
    va_end(ap);
}

const char *engine_error_code(EngineErrCode code)
{
    switch (code) {
    case ENGINE_ERR_BAD_INPUT:
        return "bad_input";
    case ENGINE_ERR_MODEL:
        return "model_error";
    case ENGINE_ERR_OUT_OF_MEMORY:
        return "out_of_memory";
    case ENGINE_ERR_BAD_OUTPUT:
        return "bad_output";
    case ENGINE_ERR_CRASHED:
        return "model_crashed";
    case ENGINE_ERR_TIMEOUT:
        return "timeout";
    case ENGINE_ERR_CANCELED:
        return "canceled";
    }
    return "model_error";
}

void engine_task_fail(EngineTask *t, EngineErrCode code, bool retryable, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    error_vset(&t->error, code, retryable, fmt, ap);
    va_end(ap);
    t->state = ENGINE_TASK_FAILED;
}

void engine_task_fail_as(EngineTask *t, const EngineError *err)
{
    t->error = *err;
    t->state = ENGINE_TASK_FAILED;
}

void engine_task_canceled(EngineTask *t)
{
    engine_task_fail(t, ENGINE_ERR_CANCELED, false, "canceled");
}

void engine_task_done(EngineTask *t)
{
    t->state = ENGINE_TASK_DONE;
    t->step = t->steps;
}

size_t engine_tasks_live(EngineTask **tasks, size_t n, EngineTask **ret_live)
{
    size_t live = 0;
    for (size_t i = 0; i < n; i++) {
        if (engine_task_cancel_wanted(tasks[i]))
            engine_task_canceled(tasks[i]);
        else
            ret_live[live++] = tasks[i];
    }
    return live;
}

/* ---- small things for all ---- */

void json_put_string(Buf *b, Str s)
{
    static const char hex[] = "0123456789abcdef";
    bool valid = utf8_valid(s.p, s.n);
    buf_reserve(b, s.n + 2);
    buf_putc(b, '"');
    size_t plain = 0; /* where the bytes that need no escape began */
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c >= 0x20 && c != '"' && c != '\\' && (c < 0x80 || valid)) continue;
        buf_put(b, s.p + plain, i - plain);
        plain = i + 1;
        if (c == '"' || c == '\\')
            buf_put(b, (char[]){'\\', (char)c}, 2);
        else if (c == '\n')
            buf_puts(b, "\\n");
        else if (c >= 0x80)
            buf_puts(b, "\xef\xbf\xbd");
        else
            buf_put(b, (char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
    }
    buf_put(b, s.p + plain, s.n - plain);
    buf_putc(b, '"');
}

int file_read(const char *path, size_t limit, Buf *ret)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return errno == ENOENT || errno == ENOTDIR ? ERR_NOT_FOUND : ERR_IO;
    struct stat st;
    int err = 0;
    Buf b = {0};
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        err = ERR_IO;
    else if ((uint64_t)st.st_size > limit)
        err = ERR_LIMIT;
    while (!err) {
        buf_reserve(&b, (size_t)st.st_size + 1 - MIN(b.len, (size_t)st.st_size));
        ssize_t n = read(fd, b.data + b.len, b.cap - b.len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) err = ERR_IO;
        if (n <= 0) break;
        b.len += (size_t)n;
        if (b.len > limit) err = ERR_LIMIT; /* it grows while we read */
    }
    close(fd);
    if (err) {
        buf_done(&b);
        return err;
    }
    *ret = b;
    return 0;
}

/* ---- the interface ---- */

int engine_open(const ModelSpec *spec, const EngineDevice *device, const EngineHost *host,
                EngineModel **ret, EngineError *err)
{
    const EngineClass *class = NULL;
    for (size_t i = 0; i < ARRAY_LEN(classes); i++)
        if (strcmp(classes[i]->name, spec->engine) == 0) class = classes[i];
    if (!class) {
        engine_error_set(err, ENGINE_ERR_MODEL, false, "this build has no engine '%s'",
                         spec->engine);
        return ERR_INVALID;
    }
    if (spec->require_gpu && !device->gpu) {
        engine_error_set(err, ENGINE_ERR_MODEL, false,
                         "model '%s' requires a GPU (require_gpu in its model.yaml) and device %u "
                         "is none",
                         spec->name, device->index);
        return ERR_INVALID;
    }
    EngineModel *m = mem_new(sizeof *m);
    *m = (EngineModel){.class = class, .spec = spec, .device = device, .host = host};
    int code = class->open(m, err);
    if (code) {
        mem_free(m);
        return code;
    }
    *ret = m;
    return 0;
}

void engine_close(EngineModel *m)
{
    if (!m) return;
    m->class->close(m);
    mem_free(m);
}

uint32_t engine_batch_max(EngineModel *m)
{
    if (m->spec->max_batch) return m->spec->max_batch;
    return m->class->batch_max ? m->class->batch_max(m) : 0;
}

void engine_describe(EngineModel *m, Buf *ret)
{
    m->class->describe(m, ret);
}

uint64_t engine_memory(EngineModel *m)
{
    return m->class->memory ? m->class->memory(m) : 0;
}

bool engine_is_inside(const EngineModel *m)
{
    return m->class->inside;
}

int engine_measure(EngineModel *m, uint32_t batch, int64_t *ret_ns)
{
    if (!m->class->measure || batch == 0) return ERR_UNSUPPORTED;
    return m->class->measure(m, batch, ret_ns);
}

void engine_admit(EngineModel *m, EngineTask *t)
{
    t->state = ENGINE_TASK_ACTIVE;
    t->step = 0;
    t->steps = 1;
    t->weight = 1;
    t->output = (Buf){0};
    t->error = (EngineError){0};
    t->device_ns = 0;
    t->priv = NULL;
    m->class->admit(m, t);
}

void engine_step(EngineModel *m, EngineTask **tasks, size_t n)
{
    CHECK(n >= 1);
    uint64_t weights = 0;
    for (size_t i = 0; i < n; i++) {
        CHECK(tasks[i]->state == ENGINE_TASK_ACTIVE);
        weights += tasks[i]->weight;
    }
    int64_t began = engine_now_ns();
    m->class->step(m, tasks, n);
    int64_t took = engine_now_ns() - began;
    for (size_t i = 0; i < n; i++)
        tasks[i]->device_ns += (int64_t)((double)took * tasks[i]->weight / (double)weights);
}

void engine_cancel(EngineModel *m, EngineTask *t)
{
    atomic_store_explicit(&t->cancel, true, memory_order_release);
    if (m->class->cancel) m->class->cancel(m, t);
}

int engine_checkpoint(EngineModel *m, const EngineTask *t, Buf *ret)
{
    if (!m->class->checkpoint) return ERR_UNSUPPORTED;
    if (t->state != ENGINE_TASK_ACTIVE || t->step == 0) return ERR_AGAIN;
    return m->class->checkpoint(m, t, ret);
}

int engine_resume(EngineModel *m, EngineTask *t, Str checkpoint)
{
    if (!m->class->resume) return ERR_UNSUPPORTED;
    if (t->state != ENGINE_TASK_ACTIVE || t->step != 0) return ERR_INVALID;
    return m->class->resume(m, t, checkpoint);
}

void engine_release(EngineModel *m, EngineTask *t)
{
    m->class->release(m, t);
    t->priv = NULL;
    buf_done(&t->output);
}
