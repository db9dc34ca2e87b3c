/* model_yaml.h: model.yaml, read by a table of keys: pure, from text to a struct. */
#ifndef ENGINE_MODEL_YAML_H
#define ENGINE_MODEL_YAML_H

#include "base/base.h"

enum { MODEL_YAML_MAX = 64 * 1024 }; /* bytes; a page of text is 3 KiB */

typedef struct {
    char **at; /* at[len] is NULL, as execvp wants it */
    size_t len;
} YamlTexts;

typedef struct {
    int64_t at[4];
    size_t len;
} YamlDims;

typedef struct {
    char *engine; /* NULL when not given */
    char *description;
    uint32_t max_batch; /* 0: not given */
    uint32_t batch_delay_ms;
    uint64_t memory_bytes; /* 0: not given */
    uint32_t min_warm;     /* devices that are to keep it loaded */
    bool require_gpu;
    struct {
        bool given;
        bool batch; /* default true: tasks share a call where the model's shapes allow it */
    } onnx;
    struct {
        bool given;
        YamlTexts command;
        uint32_t start_timeout_s; /* until its ready line */
        uint32_t timeout_s;       /* the longest silence about a running task; 0: no limit */
    } exec;
    struct {
        bool given;
        char *tokenizer;        /* a word-level vocabulary beside the model or one folder up */
        uint32_t tokens;        /* of every prompt, padding included */
        YamlDims latent, image; /* channels, height, width */
        double timestep_scale;  /* what the denoiser gets for t = 1 */
        struct {
            uint32_t steps, images;
            double guidance;
            char *solver; /* NULL: ab2 */
        } defaults;
        struct {
            uint32_t steps, images;
            double guidance;
        } limits;
    } diffusion;
} ModelYaml;

/* path is only for messages. A fault is a line in problems; ERR_INVALID when there was one. */
int model_yaml_parse(const char *path, Str text, ModelYaml *ret, Buf *problems) HR_MUST_CHECK;
void model_yaml_defaults(ModelYaml *y); /* what holds where there is no file */
void model_yaml_done(ModelYaml *y);

extern const char *const model_yaml_engines[]; /* the names of the engines; ends with NULL */

#endif
