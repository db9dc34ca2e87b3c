/* onnx.c: any ONNX model, one call a task. Tasks share a call when the model lets them: the first
 * dimension of every input and output is dynamic, those of the inputs go by one name, and the tasks
 * agree in all other dimensions. Their rows are concatenated, run once, and split again. A model
 * whose rows act on each other must say 'onnx: {batch: false}' in its model.yaml: nothing in its
 * shapes tells.
 *
 * I1  A task never suffers for its companions: when a shared call fails each of its tasks is run
 *     alone, and when its outputs do not have the rows of its inputs the model is never shared
 *     again. */
#include "engine/inside.h"
#include "engine/model_yaml.h"
#include "engine/onnx_runtime.h"

#include <string.h>

enum { ROWS_MAX = 256 }; /* of a shared call: beyond it a CPU's batch gains nothing */

typedef struct {
    OnnxSession session;
    OnnxRun run;
    bool shareable;
    int64_t filler; /* what engine_measure puts for unknown dimensions; 0: not found yet */
} Onnx;

/* ---- sharing ---- */

/* A first dimension by such a name is one long thing, not many: joining two would be wrong without
 * any error. */
static bool names_a_length(const char *symbol)
{
    static const char *const parts[] = {"seq",   "time",  "len",    "frame", "token",
                                        "chunk", "width", "height", "point"};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        if (strcasestr(symbol, parts[i])) return true;
    return false;
}

static bool shapes_shareable(const OnnxSession *s)
{
    if (s->inputs_len == 0 || s->outputs_len == 0) return false;
    const char *name = s->inputs[0].symbols[0] ? s->inputs[0].symbols[0] : "";
    if (names_a_length(name)) return false;
    for (size_t i = 0; i < s->inputs_len; i++) {
        const TensorSpec *in = &s->inputs[i];
        if (in->rank == 0 || in->dims[0] >= 0) return false;
        if (strcmp(in->symbols[0] ? in->symbols[0] : "", name) != 0) return false;
        for (size_t k = 1; k < in->rank; k++) /* the same name again: rows against rows */
            if (*name && in->symbols[k] && strcmp(in->symbols[k], name) == 0) return false;
    }
    for (size_t i = 0; i < s->outputs_len; i++) {
        const TensorSpec *out = &s->outputs[i];
        if (out->rank == 0 || out->dims[0] >= 0) return false;
        for (size_t k = 1; k < out->rank; k++)
            if (*name && out->symbols[k] && strcmp(out->symbols[k], name) == 0) return false;
    }
    return true;
}

/* The rows of a task's inputs, or 0 when they differ. */
static int64_t rows_of(const TensorRequest *r)
{
    for (size_t i = 0; i < r->inputs_len; i++)
        if (r->inputs[i].rank == 0 || r->inputs[i].dims[0] != r->inputs[0].dims[0]) return 0;
    return r->inputs_len ? r->inputs[0].dims[0] : 0;
}

static bool may_share(const TensorRequest *a, const TensorRequest *b)
{
    if (rows_of(a) == 0 || rows_of(b) == 0) return false;
    for (size_t i = 0; i < a->inputs_len; i++)
        for (size_t k = 1; k < a->inputs[i].rank; k++)
            if (a->inputs[i].dims[k] != b->inputs[i].dims[k]) return false;
    return true;
}

/* n elements from the cursor's place on, as they lie. */
static void take_elements(Cursor *c, ElementType type, size_t n, Buf *out)
{
    const uint8_t *from = c->p;
    if (element_size(type)) cursor_bytes(c, n * element_size(type));
    for (size_t i = 0; !element_size(type) && i < n; i++) cursor_bytes(c, cursor_u32(c));
    CHECK(!c->bad);
    buf_put(out, from, (size_t)(c->p - from));
}

/* ---- a call ---- */

typedef struct {
    EngineModel *m;
    EngineTask *t;
} FileCtx;

static int files_read(void *ctx, Str id, Buf *ret, EngineError *err)
{
    FileCtx *f = ctx;
    const EngineHost *host = f->m->host;
    const char *path;
    int code = host->file_path(host->ctx, f->t->task_ctx, id, &path, err);
    if (code) return code;
    code = file_read(path, TENSOR_BYTES_MAX, ret);
    if (code)
        engine_error_set(err, ENGINE_ERR_BAD_INPUT, code == ERR_IO, "file '%.*s' %s", STR_ARG(id),
                         code == ERR_LIMIT ? "is over 1 GiB" : "cannot be read");
    return code;
}

static int files_write(void *ctx, Str name, Str bytes, const char **ret_id, EngineError *err)
{
    FileCtx *f = ctx;
    const EngineHost *host = f->m->host;
    Buf file = {0};
    buf_printf(&file, "%.*s.bin", STR_ARG(name));
    int code = host->put_file(host->ctx, f->t->task_ctx, buf_str(&file),
                              STR("application/octet-stream"), bytes, ret_id, err);
    buf_done(&file);
    return code;
}

static TensorFiles task_files(FileCtx *ctx)
{
    const EngineHost *host = ctx->m->host;
    bool both = host && host->file_path && host->put_file;
    return both ? (TensorFiles){ctx, files_read, files_write} : (TensorFiles){0};
}

static void finish(EngineModel *m, EngineTask *t, const Tensor *outputs)
{
    Onnx *x = m->priv;
    FileCtx ctx = {m, t};
    TensorFiles files = task_files(&ctx);
    EngineError err = {0};
    if (engine_task_cancel_wanted(t))
        engine_task_canceled(t);
    else if (tensor_result_write(t->priv, x->session.outputs, outputs, files.ctx ? &files : NULL,
                                 &t->output, &err))
        engine_task_fail_as(t, &err);
    else
        engine_task_done(t);
}

static void outputs_free(Tensor *outputs, size_t n)
{
    for (size_t i = 0; i < n; i++) tensor_done(&outputs[i]);
    mem_free(outputs);
}

static void run_alone(EngineModel *m, EngineTask *t)
{
    Onnx *x = m->priv;
    TensorRequest *r = t->priv;
    size_t n = x->session.outputs_len;
    Tensor *outputs = mem_new((n + 1) * sizeof *outputs);
    EngineError err = {0};
    int code = onnx_session_run(&x->session, &x->run, &t, 1, r->inputs, outputs, &err);
    if (code == 0)
        finish(m, t, outputs);
    else if (engine_task_cancel_wanted(t))
        engine_task_canceled(t);
    else
        engine_task_fail_as(t, &err);
    outputs_free(outputs, n);
}

/* False when they have to be run one by one. */
static bool run_shared(EngineModel *m, EngineTask **tasks, size_t n)
{
    Onnx *x = m->priv;
    size_t ins = x->session.inputs_len, outs = x->session.outputs_len;
    Tensor *inputs = mem_new((ins + 1) * sizeof *inputs);
    Tensor *outputs = mem_new((outs + 1) * sizeof *outputs);
    int64_t rows = 0;
    for (size_t k = 0; k < n; k++) rows += rows_of(tasks[k]->priv);
    bool ok = true;
    for (size_t i = 0; i < ins && ok; i++) {
        const TensorRequest *first = tasks[0]->priv;
        int64_t dims[TENSOR_RANK_MAX];
        memcpy(dims, first->inputs[i].dims, sizeof dims);
        dims[0] = rows;
        inputs[i].type = first->inputs[i].type;
        ok = tensor_shape_set(&inputs[i], first->inputs[i].rank, dims) == 0;
        for (size_t k = 0; k < n && ok; k++) {
            const TensorRequest *r = tasks[k]->priv;
            buf_put_str(&inputs[i].data, buf_str(&r->inputs[i].data));
        }
    }
    EngineError err;
    ok = ok && onnx_session_run(&x->session, &x->run, tasks, n, inputs, outputs, &err) == 0;
    for (size_t i = 0; i < outs && ok; i++) {
        if (outputs[i].rank > 0 && outputs[i].dims[0] == rows) continue;
        say_warn("model %s:%s: output '%s' does not have a row for each of its inputs'; its tasks "
                 "are not batched any more",
                 m->spec->name, m->spec->version, x->session.outputs[i].name);
        x->shareable = ok = false;
    }
    Cursor *at = mem_new((outs + 1) * sizeof *at);
    for (size_t i = 0; i < outs && ok; i++)
        at[i] = cursor_of(outputs[i].data.data, outputs[i].data.len);
    for (size_t k = 0; k < n && ok; k++) {
        Tensor *part = mem_new((outs + 1) * sizeof *part);
        int64_t mine = rows_of(tasks[k]->priv);
        for (size_t i = 0; i < outs; i++) {
            int64_t dims[TENSOR_RANK_MAX];
            memcpy(dims, outputs[i].dims, sizeof dims);
            dims[0] = mine;
            part[i].type = outputs[i].type;
            CHECK(tensor_shape_set(&part[i], outputs[i].rank, dims) == 0);
            take_elements(&at[i], part[i].type, part[i].count, &part[i].data);
        }
        finish(m, tasks[k], part);
        outputs_free(part, outs);
    }
    mem_free(at);
    outputs_free(inputs, ins);
    outputs_free(outputs, outs);
    return ok;
}

static void onnx_step(EngineModel *m, EngineTask **tasks, size_t n)
{
    Onnx *x = m->priv;
    EngineTask **left = mem_new(n * sizeof *left), **group = mem_new(n * sizeof *group);
    size_t lefts = engine_tasks_live(tasks, n, left);
    while (lefts) {
        size_t taken = 0, kept = 0;
        int64_t rows = 0;
        for (size_t i = 0; i < lefts; i++) {
            const TensorRequest *r = left[i]->priv;
            bool joins = taken == 0 || (x->shareable && may_share(group[0]->priv, r) &&
                                        rows + rows_of(r) <= ROWS_MAX);
            if (joins) {
                group[taken++] = left[i];
                rows += rows_of(r);
            } else {
                left[kept++] = left[i];
            }
        }
        lefts = kept;
        if (taken > 1 && run_shared(m, group, taken)) continue;
        for (size_t i = 0; i < taken; i++) { /* keeps I1 */
            if (engine_task_cancel_wanted(group[i]))
                engine_task_canceled(group[i]);
            else
                run_alone(m, group[i]);
        }
    }
    mem_free(left);
    mem_free(group);
}

/* ---- the class ---- */

static void onnx_admit(EngineModel *m, EngineTask *t)
{
    Onnx *x = m->priv;
    FileCtx ctx = {m, t};
    TensorFiles files = task_files(&ctx);
    TensorRequest r;
    EngineError err;
    if (tensor_request_parse(t->input, x->session.inputs, x->session.inputs_len, x->session.outputs,
                             x->session.outputs_len, files.ctx ? &files : NULL, &r, &err)) {
        engine_task_fail_as(t, &err);
        return;
    }
    int64_t rows = rows_of(&r);
    t->weight = rows > 0 ? (uint32_t)MIN(rows, UINT32_MAX) : 1;
    t->priv = mem_dup(&r, sizeof r); /* moved */
}

static void onnx_release(EngineModel *m, EngineTask *t)
{
    (void)m;
    if (t->priv) tensor_request_done(t->priv);
    mem_free(t->priv);
}

static void onnx_cancel(EngineModel *m, EngineTask *t)
{
    (void)t;
    Onnx *x = m->priv;
    onnx_run_cancel(&x->run);
}

/* One call with zeros, `batch` rows, and `filler` for every other unknown dimension. */
static int call_made_up(Onnx *x, uint32_t batch, int64_t filler, int64_t *ret_ns)
{
    size_t ins = x->session.inputs_len, outs = x->session.outputs_len;
    Tensor *inputs = mem_new((ins + 1) * sizeof *inputs);
    Tensor *outputs = mem_new((outs + 1) * sizeof *outputs);
    int code = 0;
    for (size_t i = 0; i < ins && !code; i++) {
        const TensorSpec *spec = &x->session.inputs[i];
        int64_t dims[TENSOR_RANK_MAX];
        for (size_t k = 0; k < spec->rank; k++)
            dims[k] = spec->dims[k] >= 0 ? spec->dims[k] : x->shareable && k == 0 ? batch : filler;
        inputs[i].type = spec->type;
        code = tensor_shape_set(&inputs[i], spec->rank, dims);
        if (code) break;
        size_t size = element_size(spec->type) ? element_size(spec->type) : 4; /* empty strings */
        memset(buf_extend(&inputs[i].data, inputs[i].count * size), 0, inputs[i].count * size);
    }
    EngineError err;
    int64_t began = engine_now_ns();
    if (!code) code = onnx_session_run(&x->session, &x->run, NULL, 0, inputs, outputs, &err);
    *ret_ns = engine_now_ns() - began;
    outputs_free(inputs, ins);
    outputs_free(outputs, outs);
    return code;
}

/* The median of three after a first one, which allocates. */
static int onnx_measure(EngineModel *m, uint32_t batch, int64_t *ret_ns)
{
    /* Zeros of one column suit most models; convolutions want a picture, audio a frame. */
    static const int64_t fillers[] = {1, 16, 64, 320, 512};
    Onnx *x = m->priv;
    int64_t ns[3];
    if (batch > 1 && !x->shareable) return ERR_UNSUPPORTED;
    for (size_t i = 0; i < ARRAY_LEN(fillers) && !x->filler; i++)
        if (call_made_up(x, batch, fillers[i], &ns[0]) == 0) x->filler = fillers[i];
    if (!x->filler) return ERR_UNSUPPORTED;
    for (size_t i = 0; i < 4; i++)
        if (call_made_up(x, batch, x->filler, &ns[i % 3])) return ERR_UNSUPPORTED;
    *ret_ns = MAX(MIN(ns[0], ns[1]), MIN(MAX(ns[0], ns[1]), ns[2]));
    return 0;
}

static uint32_t onnx_batch_max(EngineModel *m)
{
    Onnx *x = m->priv;
    return x->shareable ? 0 : 1;
}

static void onnx_describe(EngineModel *m, Buf *ret)
{
    Onnx *x = m->priv;
    buf_puts(ret, "{\"inputs\":");
    tensor_specs_json(x->session.inputs, x->session.inputs_len, ret);
    buf_puts(ret, ",\"outputs\":");
    tensor_specs_json(x->session.outputs, x->session.outputs_len, ret);
    buf_putc(ret, '}');
}

static void onnx_close(EngineModel *m)
{
    Onnx *x = m->priv;
    onnx_session_close(&x->session);
    onnx_run_done(&x->run);
    mem_free(x);
}

static int onnx_open(EngineModel *m, EngineError *err)
{
    Onnx *x = m->priv = mem_new(sizeof *x);
    const ModelYaml *yaml = m->spec->yaml;
    int code = onnx_session_open(m, "model.onnx", &x->session, err);
    if (!code) code = onnx_run_init(&x->run, err);
    if (code) {
        onnx_close(m);
        return code;
    }
    x->shareable = yaml->onnx.batch && shapes_shareable(&x->session);
    return 0;
}

const EngineClass engine_onnx = {
    .name = "onnx",
    .inside = true,
    .open = onnx_open,
    .close = onnx_close,
    .batch_max = onnx_batch_max,
    .describe = onnx_describe,
    .measure = onnx_measure,
    .admit = onnx_admit,
    .step = onnx_step,
    .cancel = onnx_cancel,
    .release = onnx_release,
};
