/* onnx_runtime.c: see onnx_runtime.h.
 *
 * Telemetry is on by default in the official Linux builds since 1.29: ORT_DISABLE_TELEMETRY is set
 * before the library is opened, always, and its environment is told so again.
 *
 * A session on a CPU uses that provider only; what GetAvailableProviders lists may not load, so for
 * a GPU the append call's status is what counts. Optimised models are kept in the device's
 * cache_dir, by the digest of the file, the library's version and the processor: they hold kernels
 * chosen for it. */
#include "engine/onnx_runtime.h"

#include "engine/inside.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <onnxruntime_c_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Everything used here is older than 1.9, whose version of the interface this is. */
enum { API_NEEDED = 8 };

/* Over this an optimised copy would not fit into one protobuf message (2 GiB). */
#define CACHE_FILE_MAX (GIB + GIB / 2)

static struct {
    pthread_mutex_t lock;
    void *handle;
    OnnxRuntime ort;
    char version[32];
} library = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- finding the library ---- */

static const char *const sonames[] = {"libonnxruntime.so.1", "libonnxruntime.so.1.21",
                                      "libonnxruntime.so"};

static bool try_open(const char *path, Buf *tried)
{
    library.handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library.handle) return true;
    const char *why = dlerror();
    bool there = strchr(path, '/') && access(path, F_OK) == 0; /* then why is worth a line */
    buf_printf(tried, "%s%s%s%s%s", tried->len ? ", " : "", path, there ? " (" : "",
               there && why ? why : "", there ? ")" : "");
    return false;
}

/* A library, or a folder with one. */
static bool try_place(const char *place, Buf *tried)
{
    struct stat st;
    if (stat(place, &st) != 0 || !S_ISDIR(st.st_mode)) return try_open(place, tried);
    for (size_t i = 0; i < ARRAY_LEN(sonames); i++) {
        char path[4200];
        snprintf(path, sizeof path, "%s/%s", place, sonames[i]);
        if (access(path, F_OK) == 0 && try_open(path, tried)) return true;
    }
    buf_printf(tried, "%s%s/", tried->len ? ", " : "", place);
    return false;
}

/* What somebody named must be it; otherwise the places of an installation and of a build. */
static bool find_library(const char *explicit_path, Buf *tried)
{
    static const char *const beside[] = {"../lib/headrace", "../.deps/onnxruntime/lib",
                                         "../../.deps/onnxruntime/lib"};
    const char *env = getenv("HEADRACE_ORT");
    if (explicit_path && *explicit_path) return try_place(explicit_path, tried);
    if (env && *env) return try_place(env, tried);
    char exe[4096];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    char *slash = n > 0 ? memrchr(exe, '/', (size_t)n) : NULL;
    for (size_t i = 0; slash && i < ARRAY_LEN(beside); i++) {
        char place[4200];
        snprintf(place, sizeof place, "%.*s/%s", (int)(slash - exe), exe, beside[i]);
        if (access(place, F_OK) == 0 && try_place(place, tried)) return true;
    }
    for (size_t i = 0; i < ARRAY_LEN(sonames); i++)
        if (try_open(sonames[i], tried)) return true;
    return false;
}

/* Its own words are for whoever looks for them: what fails comes as a status as well. */
static void log_line(void *param, OrtLoggingLevel severity, const char *category, const char *id,
                     const char *where, const char *message)
{
    (void)param, (void)severity, (void)category, (void)id;
    say_debug("onnxruntime: %s (%s)", message, where);
}

static int library_load(const char *explicit_path, EngineError *err)
{
    Buf tried = {0};
    setenv("ORT_DISABLE_TELEMETRY", "1", 1);
    if (!find_library(explicit_path, &tried)) {
        engine_error_set(err, ENGINE_ERR_MODEL, false,
                         "ONNX Runtime was not found; looked for %s. Install libonnxruntime, or "
                         "set HEADRACE_ORT to the library",
                         buf_z(&tried));
        buf_done(&tried);
        return ERR_NOT_FOUND;
    }
    buf_done(&tried);
    const OrtApiBase *(*get_base)(void);
    void *sym = dlsym(library.handle, "OrtGetApiBase");
    memcpy(&get_base, &sym, sizeof sym);
    const OrtApi *api = sym ? get_base()->GetApi(API_NEEDED) : NULL;
    OrtEnv *env = NULL;
    const char *why = api ? NULL : "it has not the interface of version 1.8 or later";
    OrtStatus *status = NULL;
    if (api) {
        status = api->CreateEnvWithCustomLogger(log_line, NULL, ORT_LOGGING_LEVEL_WARNING,
                                                "headrace", &env);
        if (!status) status = api->DisableTelemetryEvents(env);
        if (status) why = api->GetErrorMessage(status);
    }
    if (why) {
        engine_error_set(err, ENGINE_ERR_MODEL, false, "ONNX Runtime cannot be used: %s", why);
        if (status) api->ReleaseStatus(status);
        if (env) api->ReleaseEnv(env);
        dlclose(library.handle);
        return ERR_NOT_FOUND;
    }
    Dl_info info;
    library.ort.path = dladdr(sym, &info) && info.dli_fname ? info.dli_fname : "?";
    char *real = realpath(library.ort.path, NULL);
    if (real) library.ort.path = real; /* for ever */
    snprintf(library.version, sizeof library.version, "%s", get_base()->GetVersionString());
    library.ort.version = library.version;
    library.ort.env = env;
    library.ort.api = api;
    return 0;
}

int engine_onnx_runtime(const char *explicit_path, const char **ret_path, const char **ret_version,
                        EngineError *err)
{
    pthread_mutex_lock(&library.lock);
    int code = library.ort.api ? 0 : library_load(explicit_path, err);
    pthread_mutex_unlock(&library.lock);
    if (code) return code;
    if (ret_path) *ret_path = library.ort.path;
    if (ret_version) *ret_version = library.ort.version;
    return 0;
}

const OnnxRuntime *onnx_runtime(EngineError *err)
{
    return engine_onnx_runtime(NULL, NULL, NULL, err) ? NULL : &library.ort;
}

static const OrtApi *api(void)
{
    CHECK(library.ort.api); /* a session exists, so it was loaded */
    return library.ort.api;
}

int onnx_status(OrtStatus *status, EngineError *err)
{
    if (!status) return 0;
    const char *message = api()->GetErrorMessage(status);
    bool memory = strcasestr(message, "failed to allocate") ||
                  strcasestr(message, "out of memory") || strcasestr(message, "bad_alloc");
    engine_error_set(err, memory ? ENGINE_ERR_OUT_OF_MEMORY : ENGINE_ERR_MODEL, memory, "%s",
                     message);
    api()->ReleaseStatus(status);
    return memory ? ERR_NOMEM : ERR_INVALID;
}

/* ---- what a model says of itself ---- */

static const struct {
    ONNXTensorElementDataType theirs;
    ElementType ours;
} types[] = {
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, ELEMENT_BOOL},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, ELEMENT_UINT8},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16, ELEMENT_UINT16},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32, ELEMENT_UINT32},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64, ELEMENT_UINT64},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8, ELEMENT_INT8},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16, ELEMENT_INT16},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, ELEMENT_INT32},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, ELEMENT_INT64},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, ELEMENT_FP16},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16, ELEMENT_BF16},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, ELEMENT_FP32},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE, ELEMENT_FP64},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING, ELEMENT_BYTES},
};

static bool type_ours(ONNXTensorElementDataType theirs, ElementType *ret)
{
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        if (types[i].theirs != theirs) continue;
        *ret = types[i].ours;
        return true;
    }
    return false;
}

static ONNXTensorElementDataType type_theirs(ElementType ours)
{
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (types[i].ours == ours) return types[i].theirs;
    return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
}

/* symbols may be NULL: then dims are actual ones. */
static int read_shape(const OrtTensorTypeAndShapeInfo *info, const char *name, ElementType *type,
                      size_t *rank, int64_t *dims, char **symbols, EngineError *err)
{
    ONNXTensorElementDataType theirs;
    OrtStatus *status = api()->GetTensorElementType(info, &theirs);
    if (!status) status = api()->GetDimensionsCount(info, rank);
    if (status) return onnx_status(status, err);
    if (!type_ours(theirs, type) || *rank > TENSOR_RANK_MAX) {
        engine_error_set(err, ENGINE_ERR_MODEL, false,
                         "'%s' is of element type %d with %zu dimensions; at most %d dimensions "
                         "and the types of the Open Inference Protocol are supported",
                         name, (int)theirs, *rank, TENSOR_RANK_MAX);
        return ERR_INVALID;
    }
    const char *names[TENSOR_RANK_MAX] = {0};
    status = api()->GetDimensions(info, dims, *rank);
    if (!status && symbols) status = api()->GetSymbolicDimensions(info, names, *rank);
    if (status) return onnx_status(status, err);
    for (size_t i = 0; symbols && i < *rank; i++) {
        if (dims[i] < 0) dims[i] = -1;
        if (dims[i] < 0 && names[i] && *names[i]) symbols[i] = mem_dup(names[i], strlen(names[i]));
    }
    return 0;
}

static int read_spec(OrtSession *session, OrtAllocator *allocator, bool output, size_t at,
                     TensorSpec *ret, EngineError *err)
{
    char *name = NULL;
    OrtTypeInfo *info = NULL;
    const OrtTensorTypeAndShapeInfo *tensor = NULL;
    OrtStatus *status = output ? api()->SessionGetOutputName(session, at, allocator, &name)
                               : api()->SessionGetInputName(session, at, allocator, &name);
    if (status) return onnx_status(status, err);
    ret->name = mem_dup(name, strlen(name));
    onnx_status(api()->AllocatorFree(allocator, name), err);
    status = output ? api()->SessionGetOutputTypeInfo(session, at, &info)
                    : api()->SessionGetInputTypeInfo(session, at, &info);
    if (!status) status = api()->CastTypeInfoToTensorInfo(info, &tensor);
    int code = onnx_status(status, err);
    if (!code && !tensor) {
        engine_error_set(err, ENGINE_ERR_MODEL, false,
                         "%s '%s' is not a tensor (a sequence, a map or an optional); only "
                         "tensors are supported",
                         output ? "output" : "input", ret->name);
        code = ERR_INVALID;
    }
    if (!code)
        code = read_shape(tensor, ret->name, &ret->type, &ret->rank, ret->dims, ret->symbols, err);
    if (info) api()->ReleaseTypeInfo(info);
    return code;
}

static int read_specs(OnnxSession *s, EngineError *err)
{
    OrtAllocator *allocator;
    OrtStatus *status = api()->GetAllocatorWithDefaultOptions(&allocator);
    size_t inputs = 0, outputs = 0;
    if (!status) status = api()->SessionGetInputCount(s->session, &inputs);
    if (!status) status = api()->SessionGetOutputCount(s->session, &outputs);
    if (status) return onnx_status(status, err);
    if (inputs > TENSORS_MAX || outputs > TENSORS_MAX) {
        engine_error_set(err, ENGINE_ERR_MODEL, false, "over %d inputs or outputs", TENSORS_MAX);
        return ERR_INVALID;
    }
    s->inputs = mem_new((inputs + 1) * sizeof *s->inputs);
    s->outputs = mem_new((outputs + 1) * sizeof *s->outputs);
    s->input_names = mem_new((inputs + 1) * sizeof *s->input_names);
    s->output_names = mem_new((outputs + 1) * sizeof *s->output_names);
    s->inputs_len = inputs;
    s->outputs_len = outputs;
    int code = 0;
    for (size_t i = 0; !code && i < inputs; i++)
        code = read_spec(s->session, allocator, false, i, &s->inputs[i], err);
    for (size_t i = 0; !code && i < outputs; i++)
        code = read_spec(s->session, allocator, true, i, &s->outputs[i], err);
    for (size_t i = 0; i < inputs; i++) s->input_names[i] = s->inputs[i].name;
    for (size_t i = 0; i < outputs; i++) s->output_names[i] = s->outputs[i].name;
    return code;
}

/* ---- loading ---- */

/* The name of the processor and what it can do. */
static uint64_t cpu_hash(void)
{
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[8192];
    uint64_t h = 0;
    while (f && fgets(line, sizeof line, f) && line[0] != '\n') /* the first one's lines */
        if (strncmp(line, "model name", 10) == 0 || strncmp(line, "flags", 5) == 0 ||
            strncmp(line, "Features", 8) == 0 || strncmp(line, "CPU part", 8) == 0)
            h = hash_u64(h ^ hash_bytes(line, strlen(line)));
    if (f) fclose(f);
    return h;
}

/* Weights beside the file ("model.onnx_data") are found by relative names: no copy elsewhere. */
static bool cacheable(const EngineModel *m, const char *path)
{
    static const char *const suffixes[] = {"_data", ".data", "_weights"};
    struct stat st;
    if (!m->device->cache_dir || m->device->gpu) return false;
    if (stat(path, &st) != 0 || (uint64_t)st.st_size > CACHE_FILE_MAX) return false;
    for (size_t i = 0; i < ARRAY_LEN(suffixes); i++) {
        char beside[4200];
        snprintf(beside, sizeof beside, "%s%s", path, suffixes[i]);
        if (access(beside, F_OK) == 0) return false;
    }
    return true;
}

static char *cache_path(const EngineModel *m, const char *file)
{
    char hex[65];
    Buf b = {0};
    sha256_hex(&m->spec->digest, hex);
    buf_printf(&b, "%s/%.24s-%s-%s-%016llx.onnx", m->device->cache_dir, hex, file,
               library.ort.version, (unsigned long long)cpu_hash());
    char *z = mem_dup(buf_z(&b), b.len);
    buf_done(&b);
    return z;
}

/* A GPU's provider, or a warning and none; ERR_INVALID when the model must have it. */
static int append_gpu(EngineModel *m, OrtSessionOptions *options, EngineError *err)
{
    OrtCUDAProviderOptions cuda = {
        .device_id = (int)m->device->index,
        .cudnn_conv_algo_search = OrtCudnnConvAlgoSearchHeuristic,
        .gpu_mem_limit = SIZE_MAX,
        .do_copy_in_default_stream = 1,
    };
    EngineError why;
    if (!onnx_status(api()->SessionOptionsAppendExecutionProvider_CUDA(options, &cuda), &why))
        return 0;
    if (m->spec->require_gpu) {
        engine_error_set(err, ENGINE_ERR_MODEL, false,
                         "model '%s' requires a GPU and ONNX Runtime cannot use it: %s",
                         m->spec->name, why.message);
        return ERR_INVALID;
    }
    say_warn("model %s:%s runs on the CPU: ONNX Runtime cannot use GPU %u: %s", m->spec->name,
             m->spec->version, m->device->index, why.message);
    return 0;
}

/* save: where to put the optimised model; NULL: nowhere. level: what to optimise. */
static int session_create(EngineModel *m, const char *path, GraphOptimizationLevel level,
                          const char *save, OrtSession **ret, EngineError *err)
{
    OrtSessionOptions *options = NULL;
    const OrtApi *a = api();
    OrtStatus *status = a->CreateSessionOptions(&options);
    if (!status) status = a->SetIntraOpNumThreads(options, (int)MAX(m->device->threads, 1));
    if (!status) status = a->SetInterOpNumThreads(options, 1);
    if (!status) status = a->SetSessionExecutionMode(options, ORT_SEQUENTIAL);
    if (!status) status = a->SetSessionGraphOptimizationLevel(options, level);
    if (!status) status = a->EnableCpuMemArena(options);
    /* Spinning threads take the processor from the neighbours: p90 16 ms with, 10 ms without. */
    if (!status) status = a->AddSessionConfigEntry(options, "session.intra_op.allow_spinning", "0");
    if (!status) status = a->AddSessionConfigEntry(options, "session.inter_op.allow_spinning", "0");
    if (!status && save) status = a->SetOptimizedModelFilePath(options, save);
    int code = onnx_status(status, err);
    if (!code && m->device->gpu) code = append_gpu(m, options, err);
    if (!code) code = onnx_status(a->CreateSession(library.ort.env, path, options, ret), err);
    if (options) a->ReleaseSessionOptions(options);
    return code;
}

static int session_load(EngineModel *m, const char *path, const char *file, OrtSession **ret,
                        EngineError *err)
{
    if (!cacheable(m, path)) return session_create(m, path, ORT_ENABLE_ALL, NULL, ret, err);
    char *cached = cache_path(m, file);
    Buf temporary = {0};
    buf_printf(&temporary, "%s.%d", cached, (int)getpid());
    int code = ERR_NOT_FOUND;
    if (access(cached, R_OK) == 0) {
        code = session_create(m, cached, ORT_DISABLE_ALL, NULL, ret, err);
        if (code) {
            say_warn("the optimised model %s cannot be used: %s", cached, err->message);
            unlink(cached);
        }
    }
    if (code) {
        mkdir(m->device->cache_dir, 0700);
        code = session_create(m, path, ORT_ENABLE_ALL, buf_z(&temporary), ret, err);
        if (!code && rename(buf_z(&temporary), cached) != 0)
            say_warn("the optimised model %s cannot be kept: %s", cached, strerror(errno));
    }
    if (code) { /* saving may be what failed: a full disk */
        unlink(buf_z(&temporary));
        code = session_create(m, path, ORT_ENABLE_ALL, NULL, ret, err);
    }
    buf_done(&temporary);
    mem_free(cached);
    return code;
}

int onnx_session_open(EngineModel *m, const char *file, OnnxSession *ret, EngineError *err)
{
    OnnxSession s = {0};
    EngineError why = {0};
    char path[4200];
    if (!onnx_runtime(err)) return ERR_IO;
    snprintf(path, sizeof path, "%s/%s", m->spec->dir, file);
    int code = session_load(m, path, file, &s.session, &why);
    if (!code) code = read_specs(&s, &why);
    if (code) {
        onnx_session_close(&s);
        engine_error_set(err, why.code, why.retryable, "%s: %s", path, why.message);
        return code;
    }
    *ret = s;
    return 0;
}

void onnx_session_close(OnnxSession *s)
{
    for (size_t i = 0; i < s->inputs_len; i++) tensor_spec_done(&s->inputs[i]);
    for (size_t i = 0; i < s->outputs_len; i++) tensor_spec_done(&s->outputs[i]);
    mem_free(s->inputs);
    mem_free(s->outputs);
    mem_free(s->input_names);
    mem_free(s->output_names);
    if (s->session) api()->ReleaseSession(s->session);
    *s = (OnnxSession){0};
}

/* ---- a run that can be stopped ---- */

int onnx_run_init(OnnxRun *r, EngineError *err)
{
    if (!onnx_runtime(err)) return ERR_IO;
    *r = (OnnxRun){0};
    int code = onnx_status(api()->CreateRunOptions(&r->options), err);
    if (!code) pthread_mutex_init(&r->lock, NULL);
    return code;
}

void onnx_run_done(OnnxRun *r)
{
    if (!r->options) return;
    api()->ReleaseRunOptions(r->options);
    pthread_mutex_destroy(&r->lock);
    *r = (OnnxRun){0};
}

/* Under the lock. */
static void run_stop_if_unwanted(OnnxRun *r)
{
    for (size_t i = 0; i < r->tasks_len; i++)
        if (!engine_task_cancel_wanted(r->tasks[i])) return;
    OrtStatus *status = r->tasks_len ? api()->RunOptionsSetTerminate(r->options) : NULL;
    if (status) api()->ReleaseStatus(status); /* it runs to its end then */
}

static void run_begin(OnnxRun *r, EngineTask **tasks, size_t n)
{
    pthread_mutex_lock(&r->lock);
    OrtStatus *status = api()->RunOptionsUnsetTerminate(r->options);
    if (status) api()->ReleaseStatus(status);
    r->tasks = tasks;
    r->tasks_len = n;
    run_stop_if_unwanted(r); /* the cancel came before the run: nobody would say it again */
    pthread_mutex_unlock(&r->lock);
}

static void run_end(OnnxRun *r)
{
    pthread_mutex_lock(&r->lock);
    r->tasks = NULL;
    r->tasks_len = 0;
    pthread_mutex_unlock(&r->lock);
}

void onnx_run_cancel(OnnxRun *r)
{
    pthread_mutex_lock(&r->lock);
    run_stop_if_unwanted(r);
    pthread_mutex_unlock(&r->lock);
}

/* ---- tensors in and out ---- */

static OrtStatus *strings_in(const Tensor *t, OrtValue *value)
{
    OrtStatus *status = NULL;
    Buf z = {0};
    Cursor c = cursor_of(t->data.data, t->data.len);
    for (size_t i = 0; !status && i < t->count; i++) {
        uint32_t n = cursor_u32(&c);
        const uint8_t *p = cursor_bytes(&c, n);
        CHECK(!c.bad);
        buf_clear(&z);
        buf_put(&z, p, n);
        status = api()->FillStringTensorElement(value, buf_z(&z), i);
    }
    buf_done(&z);
    return status;
}

/* The value borrows t's data. */
static OrtStatus *tensor_in(const OrtMemoryInfo *memory, const Tensor *t, OrtValue **ret)
{
    static uint8_t nothing[8];
    if (t->type != ELEMENT_BYTES)
        return api()->CreateTensorWithDataAsOrtValue(memory, t->data.len ? t->data.data : nothing,
                                                     t->data.len, t->dims, t->rank,
                                                     type_theirs(t->type), ret);
    OrtAllocator *allocator;
    OrtStatus *status = api()->GetAllocatorWithDefaultOptions(&allocator);
    if (!status)
        status = api()->CreateTensorAsOrtValue(allocator, t->dims, t->rank,
                                               ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING, ret);
    return status ? status : strings_in(t, *ret);
}

static OrtStatus *strings_out(const OrtValue *value, Tensor *t)
{
    OrtStatus *status = NULL;
    for (size_t i = 0; !status && i < t->count; i++) {
        size_t n;
        status = api()->GetStringTensorElementLength(value, i, &n);
        if (status) break;
        buf_u32(&t->data, (uint32_t)n);
        status = api()->GetStringTensorElement(value, n, i, buf_extend(&t->data, n));
    }
    return status;
}

static int tensor_out(OrtValue *value, const char *name, Tensor *ret, EngineError *err)
{
    OrtTensorTypeAndShapeInfo *info = NULL;
    size_t rank = 0;
    int64_t dims[TENSOR_RANK_MAX];
    int code = onnx_status(api()->GetTensorTypeAndShape(value, &info), err);
    if (code) return code;
    code = read_shape(info, name, &ret->type, &rank, dims, NULL, err);
    api()->ReleaseTensorTypeAndShapeInfo(info);
    if (code) return code;
    if (tensor_shape_set(ret, rank, dims)) {
        engine_error_set(err, ENGINE_ERR_BAD_OUTPUT, false, "output '%s' is over 1 GiB", name);
        return ERR_LIMIT;
    }
    if (ret->type == ELEMENT_BYTES) return onnx_status(strings_out(value, ret), err);
    void *data;
    code = onnx_status(api()->GetTensorMutableData(value, &data), err);
    if (!code) buf_put(&ret->data, data, ret->count * element_size(ret->type));
    return code;
}

int onnx_session_run(OnnxSession *s, OnnxRun *r, EngineTask **tasks, size_t tasks_len,
                     const Tensor *inputs, Tensor *outputs, EngineError *err)
{
    OrtValue *in[TENSORS_MAX] = {0}, *out[TENSORS_MAX] = {0};
    OrtMemoryInfo *memory = NULL;
    OrtStatus *status = api()->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory);
    for (size_t i = 0; !status && i < s->inputs_len; i++)
        status = tensor_in(memory, &inputs[i], &in[i]);
    if (!status) {
        run_begin(r, tasks, tasks_len);
        status = api()->Run(s->session, r->options, s->input_names, (const OrtValue *const *)in,
                            s->inputs_len, s->output_names, s->outputs_len, out);
        run_end(r);
    }
    int code = onnx_status(status, err);
    for (size_t i = 0; !code && i < s->outputs_len; i++) {
        if (out[i]) {
            code = tensor_out(out[i], s->outputs[i].name, &outputs[i], err);
        } else {
            engine_error_set(err, ENGINE_ERR_BAD_OUTPUT, false, "the model gave no output '%s'",
                             s->outputs[i].name);
            code = ERR_INVALID;
        }
    }
    for (size_t i = 0; i < s->inputs_len; i++)
        if (in[i]) api()->ReleaseValue(in[i]);
    for (size_t i = 0; i < s->outputs_len; i++) {
        if (out[i]) api()->ReleaseValue(out[i]);
        if (code) tensor_done(&outputs[i]);
    }
    if (memory) api()->ReleaseMemoryInfo(memory);
    return code;
}
