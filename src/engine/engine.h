/* engine.h: what a model runs in, behind one small interface, and the model repository that says
 * which.
 *
 * A worker opens a model on a device, admits tasks to it, and calls engine_step again and again:
 * each step runs one unit (a denoising step, a whole call) for every active task at once. Tasks
 * join and leave between steps, so continuous batching is the general case and a whole-batch call
 * is a batch whose tasks all end in one step.
 *
 * Threads: one executor thread a device calls everything, except engine_cancel, which any thread
 * may call. That thread must outlive the model: an exec model's program dies with it. */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include <stdatomic.h>

#include "base/base.h"

/* ---- the model repository: DIR/name/version/files, as Triton lays it out, with an optional
 *      DIR/name/model.yaml ---- */

typedef struct ModelSpec {
    char *name;              /* [A-Za-z0-9._-]{1,128} */
    char *version;           /* the folder's name: a whole number ≥ 1 */
    char *engine;            /* "onnx", "diffusion", "exec", "echo" */
    char *description;       /* may be empty */
    char *dir;               /* absolute path of the version's folder; NULL for the built-in echo */
    uint32_t max_batch;      /* 0: see engine_batch_max */
    uint32_t batch_delay_ms; /* how long an idle device waits for companions; 0 … 10,000 */
    uint64_t memory_bytes;   /* what loading takes; from model.yaml, else from the files' sizes */
    uint32_t min_warm;       /* to be kept loaded on so many devices */
    bool continuous;         /* tasks join and leave between steps (diffusion, exec, echo) */
    bool require_gpu;
    Sha256 digest; /* over names and contents of the version's files and model.yaml, sorted by name;
                    * hidden files and __pycache__ left out */
    void *yaml;    /* the parsed model.yaml: private to src/engine */
} ModelSpec;

typedef struct {
    ModelSpec **specs; /* owned; sorted by name, then version as a number */
    size_t len;
} ModelRepository;

/* Reads every model under dir and adds it to repo (init with zeros). A folder that is not a valid
 * model does not spoil the rest: each such fault is appended to `problems` as one line of text
 * ("models/x/model.yaml:3: unknown key 'max_bach'; did you mean 'max_batch'?\n"). Returns
 * ERR_NOT_FOUND when dir cannot be read. The model `echo` version 1 is added by
 * repository_add_echo. A name:version that is in repo already is a problem line, and the first one
 * stays. */
int repository_scan(ModelRepository *repo, const char *dir, Buf *problems) HR_MUST_CHECK;
void repository_add_echo(ModelRepository *repo);
/* NULL when there is none. An empty version stands for the highest. */
const ModelSpec *repository_find(const ModelRepository *repo, Str name, Str version);
void repository_done(ModelRepository *repo);

/* ---- one task in an engine ---- */

typedef enum {
    ENGINE_ERR_BAD_INPUT, /* the input does not fit the model: the message says what it wants */
    ENGINE_ERR_MODEL,     /* the model failed */
    ENGINE_ERR_OUT_OF_MEMORY,
    ENGINE_ERR_BAD_OUTPUT, /* the model answered rubbish */
    ENGINE_ERR_CRASHED,    /* the child process ended */
    ENGINE_ERR_TIMEOUT,
    ENGINE_ERR_CANCELED,
} EngineErrCode;

typedef struct {
    EngineErrCode code;
    bool retryable;
    char message[512]; /* for people: names the field, the value and the remedy; valid UTF-8 */
} EngineError;

HR_PRINTF(4, 5)
void engine_error_set(EngineError *e, EngineErrCode code, bool retryable, const char *fmt, ...);
/* The code's name in the API: "bad_input", "model_error", "out_of_memory", "bad_output",
 * "model_crashed", "timeout", "canceled". */
const char *engine_error_code(EngineErrCode code);

/* How an engine reaches files and its task's listeners; given by the worker. All calls come on the
 * executor thread. Any of the functions may be NULL: then there are no files, nobody listens. */
typedef struct EngineHost {
    void *ctx;
    /* Where the file behind {"$file": id} lies locally (fetched when needed): path valid until the
     * task is released. */
    int (*file_path)(void *ctx, void *task_ctx, Str file_id, const char **ret_path,
                     EngineError *err);
    /* Stores bytes as an output file; ret_id (owned by the host, valid until the task is released)
     * goes into the output as {"$file": id, "content_type": …, "size": …}. */
    int (*put_file)(void *ctx, void *task_ctx, Str name, Str content_type, Str bytes,
                    const char **ret_id, EngineError *err);
    /* What the model printed; task_ctx NULL: not one task's. */
    void (*log)(void *ctx, void *task_ctx, Str text);
} EngineHost;

typedef enum { ENGINE_TASK_ACTIVE, ENGINE_TASK_DONE, ENGINE_TASK_FAILED } EngineTaskState;

typedef struct EngineTask {
    /* Set by the worker before engine_admit; borrowed until engine_release. */
    Str id;             /* "task_…" */
    uint32_t attempt;   /* from 1 */
    Str input;          /* JSON text, at most 64 KiB */
    void *task_ctx;     /* for EngineHost */
    atomic_bool cancel; /* set by engine_cancel */

    /* Set by the engine. */
    EngineTaskState state;
    uint32_t step, steps; /* progress: units done, units in all (1 when unknown) */
    uint32_t weight;      /* its share of a step's device time, against its companions' */
    Buf output;           /* JSON text when DONE; freed by engine_release */
    EngineError error;    /* when FAILED */
    int64_t device_ns;    /* device time charged to it so far: its share of each step it was in */
    void *priv;
} EngineTask;

/* ---- a loaded model ---- */

typedef struct EngineModel EngineModel;

typedef struct {
    uint32_t index; /* device number of this worker; the CUDA ordinal of a GPU */
    bool gpu;
    uint32_t threads;      /* for a lone request; 0 counts as 1 */
    const char *cache_dir; /* for optimised models; may be NULL */
} EngineDevice;

/* Loads. On failure err says why; the code is ERR_INVALID (bad model), ERR_NOMEM or ERR_IO. spec,
 * device and host are borrowed until engine_close. */
int engine_open(const ModelSpec *spec, const EngineDevice *device, const EngineHost *host,
                EngineModel **ret, EngineError *err) HR_MUST_CHECK;
void engine_close(EngineModel *m); /* no task may be admitted any more; accepts NULL */

/* The most tasks a step takes: model.yaml's max_batch, else what the loaded model declares (an exec
 * program's ready line; 1 for a model that cannot be batched), else 0: find the knee with
 * engine_measure. */
uint32_t engine_batch_max(EngineModel *m);

/* What the model takes and gives, as a JSON object: {"inputs":[{name, datatype, shape}],
 * "outputs":[…]} in Open Inference form, or a description of its fields for diffusion. Appends to
 * ret. */
void engine_describe(EngineModel *m, Buf *ret);

/* The memory that the model's own processes take now, in bytes; 0: it has none, or it is not known.
 * Reads /proc: not for every step. */
uint64_t engine_memory(EngineModel *m);
/* Its weights lie in this process: how it grows is what the model takes. */
bool engine_is_inside(const EngineModel *m);

/* Measures one step at this batch size with made-up input; ret_ns is its time. ERR_UNSUPPORTED
 * where the engine has no use for it (echo, exec) or the model cannot run at this size (take 1). */
int engine_measure(EngineModel *m, uint32_t batch, int64_t *ret_ns) HR_MUST_CHECK;

/* Takes the task in: parses and checks its input. A refusal sets state FAILED and error. */
void engine_admit(EngineModel *m, EngineTask *t);

/* Runs one unit for the n active tasks (all admitted to m, all ACTIVE; n ≥ 1, at most the batch
 * limit). Afterwards each is ACTIVE with step advanced, DONE, or FAILED. A task whose cancel flag
 * is up ends FAILED with ENGINE_ERR_CANCELED. An exec model's step lasts at most some 50 ms and may
 * leave all as they were. */
void engine_step(EngineModel *m, EngineTask **tasks, size_t n);

/* Asks a task to end soon; within 50 ms for a whole-call ONNX run when it is alone in its batch.
 * Any thread, while t is admitted (before its engine_release begins). */
void engine_cancel(EngineModel *m, EngineTask *t);

/* A checkpoint of an active task between steps, so that engine_admit + engine_resume on another
 * device goes on where it was. ERR_UNSUPPORTED where the engine has no units, ERR_AGAIN before the
 * first unit. */
int engine_checkpoint(EngineModel *m, const EngineTask *t, Buf *ret) HR_MUST_CHECK;
/* Right after engine_admit. ERR_INVALID: not a checkpoint of this task; it starts from the
 * beginning then. */
int engine_resume(EngineModel *m, EngineTask *t, Str checkpoint) HR_MUST_CHECK;

/* Ends the engine's part in the task, which may still be ACTIVE; frees output and priv. */
void engine_release(EngineModel *m, EngineTask *t);

/* ---- inside src/engine: what an engine provides ---- */

typedef struct EngineClass {
    const char *name;
    bool continuous;
    bool inside;                        /* its weights lie in this process */
    uint64_t (*memory)(EngineModel *m); /* of its own processes; NULL: it has none */
    int (*open)(EngineModel *m, EngineError *err);
    void (*close)(EngineModel *m);
    uint32_t (*batch_max)(EngineModel *m); /* NULL: not known */
    void (*describe)(EngineModel *m, Buf *ret);
    int (*measure)(EngineModel *m, uint32_t batch, int64_t *ret_ns); /* NULL: unsupported */
    void (*admit)(EngineModel *m, EngineTask *t);
    void (*step)(EngineModel *m, EngineTask **tasks, size_t n);
    void (*cancel)(EngineModel *m, EngineTask *t); /* the flag is up; NULL: that will do */
    int (*checkpoint)(EngineModel *m, const EngineTask *t, Buf *ret); /* NULL: unsupported */
    int (*resume)(EngineModel *m, EngineTask *t, Str checkpoint);     /* NULL: unsupported */
    void (*release)(EngineModel *m, EngineTask *t);                   /* frees priv */
} EngineClass;

struct EngineModel {
    const EngineClass *class;
    const ModelSpec *spec;
    const EngineDevice *device;
    const EngineHost *host;
    void *priv;
};

extern const EngineClass engine_onnx, engine_diffusion, engine_exec, engine_echo;

/* Where ONNX Runtime was found and which version: for the start-up line and /v1/workers. Loads it
 * on first use; ERR_NOT_FOUND with the places looked at in err->message. explicit_path: a library
 * or its folder, from the configuration, or NULL; only the first successful call's counts. */
int engine_onnx_runtime(const char *explicit_path, const char **ret_path, const char **ret_version,
                        EngineError *err);

#endif
