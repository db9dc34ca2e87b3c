/* diffusion.c: text to pictures with Stable Diffusion's three graphs, its denoising batched step by
 * step.
 *
 * A task is a drawing: for each of its pictures a latent and the velocity of the step before. Every
 * step gathers the rows of all drawings, each with its own timestep and, when it is guided, once
 * with its prompt and once with the empty one; runs the denoiser over them; and moves each latent.
 * So drawings join and leave at any step. The last one's step decodes its latents into PNG files.
 *
 * I1  A drawing's bits do not depend on its companions: the noise of picture k comes from seed + k
 *     only, and the graphs give a row the same bits in every batch (fp32 on the CPU: seen for 2 to
 *     64 rows). But not in a batch of one, whose matrix products take another kernel: no run of the
 *     denoiser has a single row.
 * I2  {x, previous, step} and the input are the whole state: what engine_checkpoint stores.
 * I3  A step that fails left every drawing as it was; then each is tried alone. */
#include "engine/inside.h"
#include "engine/model_yaml.h"
#include "engine/onnx_runtime.h"
#include "engine/png.h"
#include "engine/sampler.h"
#include "engine/tokenizer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <yyjson.h>

enum {
    ROWS_MIN = 2,      /* keeps I1 */
    ROWS_MAX = 32,     /* of one denoiser run: the gain per row has ended by then */
    DECODE_MAX = 16,   /* of one decoder run: a picture's activations are the larger ones */
    PROMPTS_MAX = 64,  /* embeddings kept: SD 1.5's are 231 KiB each */
    PROMPT_MAX = 4096, /* bytes */
    CHECKPOINT_VERSION = 1,
};
#define CHECKPOINT_MAGIC 0x31465248U /* "HRF1" */
#define SEED_MAX         ((UINT64_C(1) << 63) - 1)

/* A prompt, encoded. In the cache's list, most recently used first, until it is pushed out. */
typedef struct {
    List node;
    uint32_t users; /* drawings, and 1 for the cache */
    int64_t *ids;
    float *data; /* tokens × width */
} Prompt;

typedef struct {
    uint64_t seed;
    uint32_t steps, images;
    float guidance;
    Solver solver;
    Prompt *prompt;
    float *x, *previous; /* images × latent_len */
} Drawing;

/* One line of the denoiser's batch. */
typedef struct {
    uint32_t drawing; /* place among the step's tasks */
    uint32_t image;
    bool empty; /* with the empty prompt */
    float timestep;
} Row;

typedef struct {
    const ModelYaml *yaml;
    Tokenizer tokenizer;
    OnnxSession encoder, denoiser, decoder;
    OnnxRun run;
    size_t sample, timestep, context; /* places among the denoiser's inputs */
    bool scalar_timestep;             /* one for all rows of a run: rows go by equal timestep */
    size_t latent_len, image_len;     /* floats */
    size_t width, context_len;        /* of a token; of a prompt */
    List prompts;
    size_t prompts_len;
    Prompt *empty;
} Diffusion;

/* ---- prompts ---- */

static void prompt_drop(Prompt *p)
{
    if (!p || --p->users) return;
    mem_free(p->ids);
    mem_free(p->data);
    mem_free(p);
}

/* For its caller to drop. NULL with err set. */
static Prompt *prompt_encode(Diffusion *d, EngineTask *t, const int64_t *ids, EngineError *err)
{
    size_t ids_size = d->tokenizer.tokens * sizeof *ids;
    LIST_FOR (p, &d->prompts, Prompt, node) {
        if (memcmp(p->ids, ids, ids_size) != 0) continue;
        list_del(&p->node);
        list_push_front(&d->prompts, &p->node);
        p->users++;
        return p;
    }
    Tensor in = {.type = ELEMENT_INT64}, out = {0};
    CHECK(tensor_shape_set(&in, 2, (int64_t[]){1, (int64_t)d->tokenizer.tokens}) == 0);
    buf_put(&in.data, ids, ids_size);
    int code = onnx_session_run(&d->encoder, &d->run, &t, t ? 1 : 0, &in, &out, err);
    tensor_done(&in);
    if (code) return NULL;
    if (out.type != ELEMENT_FP32 || out.rank != 3 || out.dims[1] != (int64_t)d->tokenizer.tokens ||
        (d->context_len && out.count != d->context_len)) {
        engine_error_set(err, ENGINE_ERR_MODEL, false,
                         "text_encoder.onnx must give FP32[1,%zu,width] for one prompt",
                         d->tokenizer.tokens);
        tensor_done(&out);
        return NULL;
    }
    if (!d->context_len) { /* the first one, at open */
        d->context_len = out.count;
        d->width = (size_t)out.dims[2];
    }
    Prompt *p = mem_new(sizeof *p);
    p->users = 2;
    p->ids = mem_dup(ids, ids_size);
    p->data = mem_dup(out.data.data, out.data.len);
    tensor_done(&out);
    list_push_front(&d->prompts, &p->node);
    if (++d->prompts_len > PROMPTS_MAX) {
        Prompt *last = CONTAINER_OF(d->prompts.prev, Prompt, node);
        list_del(&last->node);
        d->prompts_len--;
        prompt_drop(last);
    }
    return p;
}

/* ---- a task's input ---- */

typedef struct {
    EngineTask *t;
    yyjson_val *o;
    bool bad;
} Fields;

HR_PRINTF(2, 3)
static void refuse(Fields *f, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (!f->bad) engine_task_fail(f->t, ENGINE_ERR_BAD_INPUT, false, "%s", text);
    f->bad = true;
}

static void check_fields(Fields *f)
{
    static const char *const known[] = {"prompt", "steps",  "guidance", "seed",
                                        "images", "solver", NULL};
    size_t i, n;
    yyjson_val *key, *v;
    yyjson_obj_foreach(f->o, i, n, key, v)
    {
        Str k = {yyjson_get_str(key), yyjson_get_len(key)};
        size_t at = 0;
        while (known[at] && !str_eqz(k, known[at])) at++;
        if (known[at]) continue;
        const char *near = nearest_name(k, known);
        refuse(f, "unknown field '%.*s'; %s%s%s", (int)MIN(k.n, 64), k.p,
               near ? "did you mean '"
                    : "the model takes prompt, steps, guidance, seed, images "
                      "and solver",
               near ? near : "", near ? "'?" : "");
    }
}

static uint64_t read_whole(Fields *f, const char *name, uint64_t least, uint64_t most,
                           uint64_t missing)
{
    yyjson_val *v = yyjson_obj_get(f->o, name);
    if (!v) return missing;
    if (!yyjson_is_uint(v) || yyjson_get_uint(v) < least || yyjson_get_uint(v) > most)
        refuse(f, "'%s' must be a whole number from %llu to %llu", name, (unsigned long long)least,
               (unsigned long long)most);
    return yyjson_get_uint(v);
}

static double read_guidance(Fields *f, const ModelYaml *y)
{
    yyjson_val *v = yyjson_obj_get(f->o, "guidance");
    if (!v) return y->diffusion.defaults.guidance;
    double g = yyjson_get_num(v);
    if (!yyjson_is_num(v) || !(g >= 0 && g <= y->diffusion.limits.guidance))
        refuse(f, "'guidance' must be a number from 0 to %g", y->diffusion.limits.guidance);
    return g;
}

static Solver read_solver(Fields *f, const ModelYaml *y)
{
    const char *given = y->diffusion.defaults.solver;
    yyjson_val *v = yyjson_obj_get(f->o, "solver");
    if (v) {
        given = yyjson_get_str(v);
        if (!given) given = "";
    }
    if (!given || strcmp(given, "ab2") == 0) return SOLVER_AB2;
    if (strcmp(given, "euler") != 0) {
        const char *near = nearest_name(str_from(given), solver_names);
        refuse(f, "'solver' must be \"euler\" or \"ab2\"%s%s%s", near ? "; did you mean '" : "",
               near ? near : "", near ? "'?" : "");
    }
    return SOLVER_EULER;
}

/* False after refusing the task. */
static bool read_input(Diffusion *d, EngineTask *t, Drawing *w, int64_t *ids)
{
    const ModelYaml *y = d->yaml;
    yyjson_doc *doc = yyjson_read(t->input.p, t->input.n, 0);
    Fields f = {.t = t, .o = yyjson_doc_get_root(doc)};
    if (!yyjson_is_obj(f.o)) {
        refuse(&f, "the input must be an object such as {\"prompt\":\"…\"}");
        yyjson_doc_free(doc);
        return false;
    }
    check_fields(&f);
    w->steps = (uint32_t)read_whole(&f, "steps", 1, y->diffusion.limits.steps,
                                    y->diffusion.defaults.steps);
    w->images = (uint32_t)read_whole(&f, "images", 1, y->diffusion.limits.images,
                                     y->diffusion.defaults.images);
    /* Without a seed: the task's own, so that a retry draws the same. */
    w->seed = read_whole(&f, "seed", 0, SEED_MAX, hash_bytes(t->id.p, t->id.n) & UINT32_MAX);
    w->guidance = (float)read_guidance(&f, y);
    w->solver = read_solver(&f, y);
    yyjson_val *prompt = yyjson_obj_get(f.o, "prompt");
    EngineError err;
    if (!yyjson_is_str(prompt))
        refuse(&f, "'prompt' must be a text that says what to draw");
    else if (yyjson_get_len(prompt) > PROMPT_MAX)
        refuse(&f, "'prompt' must be at most %d bytes long", PROMPT_MAX);
    else if (!f.bad &&
             tokenizer_encode(&d->tokenizer, (Str){yyjson_get_str(prompt), yyjson_get_len(prompt)},
                              ids, &err))
        refuse(&f, "%s", err.message);
    yyjson_doc_free(doc);
    return !f.bad;
}

/* A guided row has a twin with the empty prompt; at 1 that one does not count, at 0 the other. */
static bool needs_prompt(const Drawing *w)
{
    return w->guidance != 0;
}

static bool needs_empty(const Drawing *w)
{
    return w->guidance != 1;
}

static uint32_t rows_of(const Drawing *w)
{
    return w->images * (uint32_t)(needs_prompt(w) + needs_empty(w));
}

static void drawing_free(Drawing *w)
{
    if (!w) return;
    prompt_drop(w->prompt);
    mem_free(w->x);
    mem_free(w->previous);
    mem_free(w);
}

static void drawing_begin(Diffusion *d, Drawing *w)
{
    size_t floats = w->images * d->latent_len;
    w->x = mem_new(floats * sizeof *w->x);
    w->previous = mem_new(floats * sizeof *w->previous);
    for (uint32_t k = 0; k < w->images; k++)
        sampler_noise(w->seed + k, w->x + k * d->latent_len, d->latent_len);
}

static void diffusion_admit(EngineModel *m, EngineTask *t)
{
    Diffusion *d = m->priv;
    Drawing *w = mem_new(sizeof *w);
    int64_t *ids = mem_new(d->tokenizer.tokens * sizeof *ids);
    EngineError err;
    if (!read_input(d, t, w, ids)) {
        drawing_free(w);
    } else if (!(w->prompt = prompt_encode(d, t, ids, &err))) {
        drawing_free(w);
        if (engine_task_cancel_wanted(t))
            engine_task_canceled(t);
        else
            engine_task_fail_as(t, &err);
    } else {
        drawing_begin(d, w);
        t->steps = w->steps;
        t->weight = rows_of(w);
        t->priv = w;
    }
    mem_free(ids);
}

/* ---- denoising ---- */

/* Takes up to ROWS_MAX of the rows that may run together, in order. Returns how many; `taken` gets
 * their places, and done marks them. */
static size_t pick_rows(const Diffusion *d, const Row *rows, size_t n, bool *done, size_t *taken)
{
    size_t len = 0;
    for (size_t i = 0; i < n && len < ROWS_MAX; i++) {
        if (done[i]) continue;
        if (d->scalar_timestep && len && rows[i].timestep != rows[taken[0]].timestep) continue;
        done[i] = true;
        taken[len++] = i;
    }
    return len;
}

/* One run over the rows at `taken`; their velocities go to the same places of v. */
static int run_rows(Diffusion *d, EngineTask **tasks, size_t tasks_len, const Row *rows,
                    const size_t *taken, size_t n, float *v, EngineError *err)
{
    const YamlDims *latent = &d->yaml->diffusion.latent;
    size_t run_len = MAX(n, ROWS_MIN); /* the last row fills up */
    int64_t count = (int64_t)run_len;
    Tensor in[3] = {0}, out = {0};
    Tensor *sample = &in[d->sample], *timestep = &in[d->timestep], *context = &in[d->context];
    sample->type = timestep->type = context->type = ELEMENT_FP32;
    int code = tensor_shape_set(sample, 4,
                                (int64_t[]){count, latent->at[0], latent->at[1], latent->at[2]});
    if (!code) code = tensor_shape_set(timestep, d->scalar_timestep ? 0 : 1, &count);
    if (!code)
        code = tensor_shape_set(
            context, 3, (int64_t[]){count, (int64_t)d->tokenizer.tokens, (int64_t)d->width});
    if (code) {
        engine_error_set(err, ENGINE_ERR_OUT_OF_MEMORY, false, "a batch is over 1 GiB");
        return code;
    }
    for (size_t i = 0; i < run_len; i++) {
        const Row *r = &rows[taken[MIN(i, n - 1)]];
        const Drawing *w = tasks[r->drawing]->priv;
        const Prompt *p = r->empty ? d->empty : w->prompt;
        buf_put(&sample->data, w->x + r->image * d->latent_len, d->latent_len * sizeof(float));
        buf_put(&context->data, p->data, d->context_len * sizeof(float));
        if (i == 0 || !d->scalar_timestep)
            buf_put(&timestep->data, &r->timestep, sizeof r->timestep);
    }
    code = onnx_session_run(&d->denoiser, &d->run, tasks, tasks_len, in, &out, err);
    for (size_t i = 0; i < 3; i++) tensor_done(&in[i]);
    if (!code && (out.type != ELEMENT_FP32 || out.count != run_len * d->latent_len)) {
        engine_error_set(err, ENGINE_ERR_BAD_OUTPUT, false,
                         "unet.onnx must give one latent for each of its samples");
        code = ERR_INVALID;
    }
    for (size_t i = 0; i < n && !code; i++)
        memcpy(v + taken[i] * d->latent_len,
               (const float *)(const void *)out.data.data + i * d->latent_len,
               d->latent_len * sizeof(float));
    tensor_done(&out);
    return code;
}

/* Moves every drawing by one step, or none. */
static int denoise(Diffusion *d, EngineTask **tasks, size_t n, EngineError *err)
{
    size_t rows_len = 0;
    for (size_t i = 0; i < n; i++) rows_len += rows_of(tasks[i]->priv);
    Row *rows = mem_new(rows_len * sizeof *rows);
    bool *done = mem_new(rows_len);
    float *v = mem_new(rows_len * d->latent_len * sizeof *v);
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        const Drawing *w = tasks[i]->priv;
        float timestep = (float)(d->yaml->diffusion.timestep_scale *
                                 sampler_time(tasks[i]->step, w->steps));
        for (uint32_t k = 0; k < w->images; k++) {
            if (needs_prompt(w)) rows[at++] = (Row){(uint32_t)i, k, false, timestep};
            if (needs_empty(w)) rows[at++] = (Row){(uint32_t)i, k, true, timestep};
        }
    }
    int code = 0;
    size_t taken[ROWS_MAX], len;
    while (!code && (len = pick_rows(d, rows, rows_len, done, taken)))
        code = run_rows(d, tasks, n, rows, taken, len, v, err);
    at = 0;
    for (size_t i = 0; i < n && !code; i++) {
        Drawing *w = tasks[i]->priv;
        for (uint32_t k = 0; k < w->images; k++) {
            float *mine = v + at * d->latent_len;
            at += (size_t)needs_prompt(w) + needs_empty(w);
            if (needs_prompt(w) && needs_empty(w))
                sampler_guide(mine, mine + d->latent_len, w->guidance, mine, d->latent_len);
            sampler_advance(w->solver, tasks[i]->step, w->steps, mine,
                            w->previous + k * d->latent_len, w->x + k * d->latent_len,
                            d->latent_len);
        }
        tasks[i]->step++;
    }
    mem_free(v);
    mem_free(done);
    mem_free(rows);
    return code;
}

/* ---- decoding ---- */

/* The pictures of n latents, DECODE_MAX at most. */
static int decode(Diffusion *d, EngineTask **tasks, size_t tasks_len, const float *const *latents,
                  size_t n, Tensor *ret, EngineError *err)
{
    const YamlDims *latent = &d->yaml->diffusion.latent;
    Tensor in = {.type = ELEMENT_FP32}, out = {0};
    CHECK(tensor_shape_set(
              &in, 4, (int64_t[]){(int64_t)n, latent->at[0], latent->at[1], latent->at[2]}) == 0);
    for (size_t i = 0; i < n; i++) buf_put(&in.data, latents[i], d->latent_len * sizeof(float));
    int code = onnx_session_run(&d->decoder, &d->run, tasks, tasks_len, &in, &out, err);
    tensor_done(&in);
    if (!code && (out.type != ELEMENT_FP32 || out.count != n * d->image_len)) {
        engine_error_set(err, ENGINE_ERR_BAD_OUTPUT, false,
                         "vae_decoder.onnx must give pictures as diffusion.image in model.yaml");
        code = ERR_INVALID;
    }
    if (code)
        tensor_done(&out);
    else
        *ret = out;
    return code;
}

/* Planes of -1 … 1 to a PNG file, and its entry in the output. */
static int put_image(EngineModel *m, EngineTask *t, uint32_t k, const float *planes,
                     EngineError *err)
{
    Diffusion *d = m->priv;
    const YamlDims *image = &d->yaml->diffusion.image;
    uint32_t height = (uint32_t)image->at[1], width = (uint32_t)image->at[2];
    size_t pixels = (size_t)width * height;
    uint8_t *rgb = mem_new(pixels * 3);
    for (size_t i = 0; i < pixels; i++)
        for (size_t c = 0; c < 3; c++) rgb[i * 3 + c] = sampler_pixel(planes[c * pixels + i]);
    Buf png = {0}, name = {0};
    buf_printf(&name, "image-%u.png", k);
    const char *id = NULL;
    int code = png_put(rgb, width, height, &png);
    if (code)
        engine_error_set(err, ENGINE_ERR_OUT_OF_MEMORY, true, "no memory to write a picture");
    else
        code = m->host->put_file(m->host->ctx, t->task_ctx, buf_str(&name), STR("image/png"),
                                 buf_str(&png), &id, err);
    if (!code) {
        buf_puts(&t->output, k ? ",{\"$file\":" : "{\"$file\":");
        json_put_string(&t->output, str_from(id));
        buf_printf(&t->output,
                   ",\"content_type\":\"image/png\",\"size\":%zu,\"width\":%u,\"height\":%u}",
                   png.len, width, height);
    }
    buf_done(&png);
    buf_done(&name);
    mem_free(rgb);
    return code;
}

/* The pictures of one drawing that is done. */
static void finish(EngineModel *m, EngineTask *t)
{
    Diffusion *d = m->priv;
    Drawing *w = t->priv;
    EngineError err = {0};
    int code = 0;
    buf_puts(&t->output, "{\"images\":[");
    for (uint32_t from = 0; from < w->images && !code; from += DECODE_MAX) {
        const float *latents[DECODE_MAX];
        uint32_t n = MIN(w->images - from, DECODE_MAX);
        Tensor pictures = {0};
        for (uint32_t k = 0; k < n; k++) latents[k] = w->x + (from + k) * d->latent_len;
        code = decode(d, &t, 1, latents, n, &pictures, &err);
        const float *planes = (const float *)(const void *)pictures.data.data;
        for (uint32_t k = 0; k < n && !code; k++)
            code = put_image(m, t, from + k, planes + k * d->image_len, &err);
        tensor_done(&pictures);
    }
    buf_printf(&t->output, "],\"seed\":%llu,\"steps\":%u}", (unsigned long long)w->seed, w->steps);
    if (engine_task_cancel_wanted(t))
        engine_task_canceled(t);
    else if (code)
        engine_task_fail_as(t, &err);
    else
        engine_task_done(t);
}

static void diffusion_step(EngineModel *m, EngineTask **tasks, size_t n)
{
    Diffusion *d = m->priv;
    EngineTask **live = mem_new(n * sizeof *live);
    size_t len = engine_tasks_live(tasks, n, live);
    EngineError err;
    if (len && denoise(d, live, len, &err)) { /* keeps I3 */
        for (size_t i = 0; i < len; i++) {
            if (engine_task_cancel_wanted(live[i]))
                engine_task_canceled(live[i]);
            else if (len == 1 || denoise(d, &live[i], 1, &err))
                engine_task_fail_as(live[i], &err);
        }
    }
    for (size_t i = 0; i < len; i++) {
        EngineTask *t = live[i];
        if (t->state != ENGINE_TASK_ACTIVE) continue;
        if (engine_task_cancel_wanted(t))
            engine_task_canceled(t);
        else if (t->step == t->steps)
            finish(m, t);
    }
    mem_free(live);
}

static void diffusion_cancel(EngineModel *m, EngineTask *t)
{
    (void)t;
    Diffusion *d = m->priv;
    onnx_run_cancel(&d->run);
}

/* ---- checkpoints ---- */

static int diffusion_checkpoint(EngineModel *m, const EngineTask *t, Buf *ret)
{
    Diffusion *d = m->priv;
    const Drawing *w = t->priv;
    size_t size = w->images * d->latent_len * sizeof(float);
    buf_u32(ret, CHECKPOINT_MAGIC);
    buf_u32(ret, CHECKPOINT_VERSION);
    buf_u32(ret, t->step);
    buf_u32(ret, w->steps);
    buf_u32(ret, w->images);
    buf_u32(ret, w->solver);
    buf_u64(ret, w->seed);
    buf_u64(ret, hash_bytes(w->prompt->ids, d->tokenizer.tokens * sizeof(int64_t)));
    buf_put(ret, &w->guidance, sizeof w->guidance);
    buf_put(ret, w->x, size);
    if (w->solver == SOLVER_AB2) buf_put(ret, w->previous, size);
    return 0;
}

static int diffusion_resume(EngineModel *m, EngineTask *t, Str checkpoint)
{
    Diffusion *d = m->priv;
    Drawing *w = t->priv;
    Cursor c = cursor_of(checkpoint.p, checkpoint.n);
    bool same = cursor_u32(&c) == CHECKPOINT_MAGIC && cursor_u32(&c) == CHECKPOINT_VERSION;
    uint32_t step = cursor_u32(&c);
    same = same && cursor_u32(&c) == w->steps && cursor_u32(&c) == w->images &&
           cursor_u32(&c) == w->solver && cursor_u64(&c) == w->seed &&
           cursor_u64(&c) == hash_bytes(w->prompt->ids, d->tokenizer.tokens * sizeof(int64_t));
    const uint8_t *guidance = cursor_bytes(&c, sizeof w->guidance);
    size_t size = w->images * d->latent_len * sizeof(float);
    const uint8_t *x = cursor_bytes(&c, size);
    const uint8_t *previous = w->solver == SOLVER_AB2 ? cursor_bytes(&c, size) : x;
    if (!same || c.bad || cursor_left(&c) || step >= w->steps ||
        /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison,cert-*): the very same bits */
        memcmp(guidance, &w->guidance, sizeof w->guidance) != 0)
        return ERR_INVALID;
    memcpy(w->x, x, size);
    memcpy(w->previous, previous, size); /* Euler does not read it */
    t->step = step;
    return 0;
}

static void diffusion_release(EngineModel *m, EngineTask *t)
{
    (void)m;
    drawing_free(t->priv);
}

/* ---- measuring and describing ---- */

/* One step of `batch` guided drawings of one picture: the median of three after a first one. */
static int diffusion_measure(EngineModel *m, uint32_t batch, int64_t *ret_ns)
{
    Diffusion *d = m->priv;
    if (batch > 1024) return ERR_UNSUPPORTED;
    EngineTask *tasks = mem_new(batch * sizeof *tasks);
    EngineTask **all = mem_new(batch * sizeof *all);
    int64_t ns[3];
    int code = 0;
    for (uint32_t i = 0; i < batch; i++) {
        Drawing *w = tasks[i].priv = mem_new(sizeof *w);
        *w = (Drawing){.seed = i, .steps = 8, .images = 1, .guidance = 3, .prompt = d->empty};
        d->empty->users++;
        drawing_begin(d, w);
        all[i] = &tasks[i];
    }
    EngineError err;
    for (size_t i = 0; i < 4 && !code; i++) {
        int64_t began = engine_now_ns();
        code = denoise(d, all, batch, &err);
        ns[i % 3] = engine_now_ns() - began;
    }
    for (uint32_t i = 0; i < batch; i++) drawing_free(tasks[i].priv);
    mem_free(tasks);
    mem_free(all);
    if (code) return ERR_UNSUPPORTED;
    *ret_ns = MAX(MIN(ns[0], ns[1]), MIN(MAX(ns[0], ns[1]), ns[2]));
    return 0;
}

static void diffusion_describe(EngineModel *m, Buf *ret)
{
    const ModelYaml *y = m->spec->yaml;
    buf_printf(ret,
               "{\"fields\":["
               "{\"name\":\"prompt\",\"type\":\"string\",\"required\":true},"
               "{\"name\":\"steps\",\"type\":\"integer\",\"minimum\":1,\"maximum\":%u,"
               "\"default\":%u},"
               "{\"name\":\"guidance\",\"type\":\"number\",\"minimum\":0,\"maximum\":",
               y->diffusion.limits.steps, y->diffusion.defaults.steps);
    json_put_double(ret, y->diffusion.limits.guidance);
    buf_puts(ret, ",\"default\":");
    json_put_double(ret, y->diffusion.defaults.guidance);
    buf_printf(ret,
               "},{\"name\":\"seed\",\"type\":\"integer\",\"minimum\":0},"
               "{\"name\":\"images\",\"type\":\"integer\",\"minimum\":1,\"maximum\":%u,"
               "\"default\":%u},"
               "{\"name\":\"solver\",\"type\":\"string\",\"enum\":[\"euler\",\"ab2\"],"
               "\"default\":\"%s\"}],"
               "\"output\":{\"images\":[{\"content_type\":\"image/png\",\"width\":%lld,"
               "\"height\":%lld}]}}",
               y->diffusion.limits.images, y->diffusion.defaults.images,
               y->diffusion.defaults.solver ? y->diffusion.defaults.solver : "ab2",
               (long long)y->diffusion.image.at[2], (long long)y->diffusion.image.at[1]);
}

/* ---- loading ---- */

static void diffusion_close(EngineModel *m)
{
    Diffusion *d = m->priv;
    LIST_FOR (p, &d->prompts, Prompt, node) {
        list_del(&p->node);
        prompt_drop(p);
    }
    prompt_drop(d->empty);
    tokenizer_done(&d->tokenizer);
    onnx_session_close(&d->encoder);
    onnx_session_close(&d->denoiser);
    onnx_session_close(&d->decoder);
    onnx_run_done(&d->run);
    mem_free(d);
}

/* The graph has exactly these inputs; ret_at gets their places. */
static int find_inputs(const OnnxSession *s, const char *file, const char *const *names, size_t n,
                       size_t *ret_at, EngineError *err)
{
    Buf has = {0};
    tensor_specs_text(s->inputs, s->inputs_len, &has);
    bool ok = s->inputs_len == n && s->outputs_len == 1;
    for (size_t i = 0; i < n && ok; i++) {
        size_t at = 0;
        while (at < n && strcmp(s->inputs[at].name, names[i]) != 0) at++;
        ok = at < n;
        ret_at[i] = at;
    }
    if (!ok) {
        Buf wants = {0};
        for (size_t i = 0; i < n; i++) buf_printf(&wants, "%s%s", i ? ", " : "", names[i]);
        engine_error_set(err, ENGINE_ERR_MODEL, false,
                         "%s must have the inputs %s and one output; it has the inputs %s and %zu "
                         "outputs",
                         file, buf_z(&wants), buf_z(&has), s->outputs_len);
        buf_done(&wants);
    }
    buf_done(&has);
    return ok ? 0 : ERR_INVALID;
}

/* Type and shape of an input fit; -1 in dims: any. */
static int check_input(const TensorSpec *s, const char *file, ElementType type, size_t rank,
                       const int64_t *dims, EngineError *err)
{
    bool ok = s->type == type && s->rank == rank;
    for (size_t i = 0; i < rank && ok; i++)
        ok = s->dims[i] < 0 || dims[i] < 0 || s->dims[i] == dims[i];
    if (ok) return 0;
    TensorSpec want = {.name = s->name, .type = type, .rank = rank};
    for (size_t i = 0; i < rank; i++) want.dims[i] = dims[i];
    Buf wanted = {0}, has = {0};
    tensor_specs_text(&want, 1, &wanted);
    tensor_specs_text(s, 1, &has);
    engine_error_set(err, ENGINE_ERR_MODEL, false,
                     "%s takes %s where model.yaml and this engine make it %s", file, buf_z(&has),
                     buf_z(&wanted));
    buf_done(&wanted);
    buf_done(&has);
    return ERR_INVALID;
}

static int check_graphs(Diffusion *d, EngineError *err)
{
    static const char *const encoder[] = {"input_ids"}, *const decoder[] = {"latent_sample"};
    static const char *const denoiser[] = {"sample", "timestep", "encoder_hidden_states"};
    const int64_t *latent = d->yaml->diffusion.latent.at, tokens = (int64_t)d->tokenizer.tokens;
    const int64_t ids_dims[] = {-1, tokens}, sample_dims[] = {-1, latent[0], latent[1], latent[2]};
    const int64_t context_dims[] = {-1, tokens, -1}, any[] = {-1};
    size_t at[3];
    int code = find_inputs(&d->encoder, "text_encoder.onnx", encoder, 1, at, err);
    if (!code) code = find_inputs(&d->decoder, "vae_decoder.onnx", decoder, 1, at, err);
    if (!code) code = find_inputs(&d->denoiser, "unet.onnx", denoiser, 3, at, err);
    if (code) return code;
    d->sample = at[0];
    d->timestep = at[1];
    d->context = at[2];
    const TensorSpec *in = d->denoiser.inputs;
    d->scalar_timestep = in[d->timestep].rank == 0;
    code = check_input(&d->encoder.inputs[0], "text_encoder.onnx", ELEMENT_INT64, 2, ids_dims, err);
    if (!code) code = check_input(&in[d->sample], "unet.onnx", ELEMENT_FP32, 4, sample_dims, err);
    if (!code)
        code = check_input(&in[d->timestep], "unet.onnx", ELEMENT_FP32, !d->scalar_timestep, any,
                           err);
    if (!code) code = check_input(&in[d->context], "unet.onnx", ELEMENT_FP32, 3, context_dims, err);
    if (!code)
        code = check_input(&d->decoder.inputs[0], "vae_decoder.onnx", ELEMENT_FP32, 4, sample_dims,
                           err);
    return code;
}

/* The empty prompt, whose width says what the denoiser has to take. */
static int encode_empty(Diffusion *d, EngineError *err)
{
    int64_t *ids = mem_new(d->tokenizer.tokens * sizeof *ids);
    int code = tokenizer_encode(&d->tokenizer, STR(""), ids, err);
    if (!code && !(d->empty = prompt_encode(d, NULL, ids, err))) code = ERR_INVALID;
    mem_free(ids);
    if (code) return code;
    const int64_t dims[] = {-1, (int64_t)d->tokenizer.tokens, (int64_t)d->width};
    return check_input(&d->denoiser.inputs[d->context], "unet.onnx", ELEMENT_FP32, 3, dims, err);
}

static size_t product(const YamlDims *dims)
{
    return (size_t)(dims->at[0] * dims->at[1] * dims->at[2]);
}

static int diffusion_open(EngineModel *m, EngineError *err)
{
    if (!m->host || !m->host->put_file) {
        engine_error_set(err, ENGINE_ERR_MODEL, false,
                         "model '%s' makes pictures and there is nowhere to put files",
                         m->spec->name);
        return ERR_INVALID;
    }
    Diffusion *d = m->priv = mem_new(sizeof *d);
    d->yaml = m->spec->yaml;
    d->latent_len = product(&d->yaml->diffusion.latent);
    d->image_len = product(&d->yaml->diffusion.image);
    list_init(&d->prompts);
    Buf vocab = {0};
    const char *file = d->yaml->diffusion.tokenizer;
    buf_printf(&vocab, "%s/%s", m->spec->dir, file ? file : "vocab.txt");
    int code = tokenizer_open(buf_z(&vocab), d->yaml->diffusion.tokens, &d->tokenizer, err);
    buf_done(&vocab);
    if (!code) code = onnx_run_init(&d->run, err);
    if (!code) code = onnx_session_open(m, "text_encoder.onnx", &d->encoder, err);
    if (!code) code = onnx_session_open(m, "unet.onnx", &d->denoiser, err);
    if (!code) code = onnx_session_open(m, "vae_decoder.onnx", &d->decoder, err);
    if (!code) code = check_graphs(d, err);
    if (!code) code = encode_empty(d, err);
    if (code) diffusion_close(m);
    return code;
}

const EngineClass engine_diffusion = {
    .name = "diffusion",
    .continuous = true,
    .inside = true,
    .open = diffusion_open,
    .close = diffusion_close,
    .describe = diffusion_describe,
    .measure = diffusion_measure,
    .admit = diffusion_admit,
    .step = diffusion_step,
    .cancel = diffusion_cancel,
    .checkpoint = diffusion_checkpoint,
    .resume = diffusion_resume,
    .release = diffusion_release,
};
