/* onnx_runtime.h: ONNX Runtime behind what the engines need of it: load a session, run tensors
 * through it, stop a run from another thread. */
#ifndef ENGINE_ONNX_RUNTIME_H
#define ENGINE_ONNX_RUNTIME_H

#include "engine/engine.h"
#include "engine/tensor.h"

#include <pthread.h>

struct OrtApi;
struct OrtEnv;
struct OrtSession;
struct OrtRunOptions;
struct OrtStatus;

/* The library, loaded once a process and never unloaded (its threads would outlive its code). */
typedef struct {
    const struct OrtApi *api;
    struct OrtEnv *env;
    const char *path, *version;
} OnnxRuntime;

/* NULL with err set when it cannot be had. */
const OnnxRuntime *onnx_runtime(EngineError *err);

/* Frees status; err as it says. NULL: no error, 0. Otherwise ERR_NOMEM or ERR_INVALID. */
int onnx_status(struct OrtStatus *status, EngineError *err);

/* One .onnx file. */
typedef struct {
    struct OrtSession *session;
    TensorSpec *inputs, *outputs;
    const char **input_names, **output_names; /* borrowed from the specs */
    size_t inputs_len, outputs_len;
} OnnxSession;

/* A run that engine_cancel may end. One an engine: runs do not overlap. */
typedef struct {
    pthread_mutex_t lock;
    struct OrtRunOptions *options;
    EngineTask **tasks; /* of the run under way; borrowed */
    size_t tasks_len;
} OnnxRun;

int onnx_session_open(EngineModel *m, const char *file, OnnxSession *ret,
                      EngineError *err) HR_MUST_CHECK;
void onnx_session_close(OnnxSession *s);

int onnx_run_init(OnnxRun *r, EngineError *err) HR_MUST_CHECK;
void onnx_run_done(OnnxRun *r);
/* Stops the run under way when all its tasks are to be canceled. Any thread. */
void onnx_run_cancel(OnnxRun *r);

/* One call: inputs in the session's order; outputs (room for all, zeroed) are the caller's. The
 * tasks are those it is for. On failure no output is left. */
int onnx_session_run(OnnxSession *s, OnnxRun *r, EngineTask **tasks, size_t tasks_len,
                     const Tensor *inputs, Tensor *outputs, EngineError *err) HR_MUST_CHECK;

#endif
