/* tensor.h: tensors in host memory, and the Open Inference form of them in JSON: pure.
 *
 *   {"inputs":[{"name":"x","datatype":"FP32","shape":[2,3],"data":[1,2,3,4,5,6]}],
 *    "outputs":[{"name":"y"}]}                                outputs may be left out: then all
 *   {"outputs":[{"name":"y","datatype":"FP32","shape":[2],"data":[0.5,"NaN"]}]}
 *
 * data is flat in row-major order, or nested as the shape says. {"$file": id} in its place is the
 * file's bytes: little-endian elements; for BYTES each string behind its length as 4 bytes. An
 * output asked for with "parameters":{"file":true} comes as such a file. What JSON's numbers lack
 * is the strings "NaN", "Infinity" and "-Infinity", both ways. */
#ifndef ENGINE_TENSOR_H
#define ENGINE_TENSOR_H

#include "engine/engine.h"

enum { TENSOR_RANK_MAX = 8, TENSORS_MAX = 256 };
#define TENSOR_BYTES_MAX GIB
#define TENSOR_JSON_MAX  (8 * MIB) /* of a result; what is larger wants to be a file */

typedef enum {
    ELEMENT_BOOL,
    ELEMENT_UINT8,
    ELEMENT_UINT16,
    ELEMENT_UINT32,
    ELEMENT_UINT64,
    ELEMENT_INT8,
    ELEMENT_INT16,
    ELEMENT_INT32,
    ELEMENT_INT64,
    ELEMENT_FP16,
    ELEMENT_BF16,
    ELEMENT_FP32,
    ELEMENT_FP64,
    ELEMENT_BYTES,
} ElementType;

const char *element_name(ElementType type); /* "FP32" */
size_t element_size(ElementType type);      /* BYTES: 0, they differ */

/* What a model says of one input or output. */
typedef struct {
    char *name; /* owned */
    ElementType type;
    size_t rank;
    int64_t dims[TENSOR_RANK_MAX];  /* -1: any */
    char *symbols[TENSOR_RANK_MAX]; /* the name of an "any", equal wherever it stands; or NULL */
} TensorSpec;

typedef struct {
    ElementType type;
    size_t rank;
    int64_t dims[TENSOR_RANK_MAX];
    size_t count; /* of elements: the product of dims */
    Buf data;     /* count elements; BYTES: each its length (u32) and its bytes */
} Tensor;

/* A task's input. */
typedef struct {
    Tensor *inputs; /* one for each of the model's, in its order */
    size_t inputs_len;
    bool *wanted, *as_file; /* of the model's outputs */
    size_t outputs_len;
} TensorRequest;

/* Where {"$file"} comes from and output files go to; NULL: there are none. */
typedef struct {
    void *ctx;
    int (*read)(void *ctx, Str id, Buf *ret, EngineError *err);
    int (*write)(void *ctx, Str name, Str bytes, const char **ret_id, EngineError *err);
} TensorFiles;

void tensor_done(Tensor *t);
void tensor_spec_done(TensorSpec *s);
void tensor_request_done(TensorRequest *r);

/* Sets rank, dims and count. ERR_LIMIT over TENSOR_BYTES_MAX. */
int tensor_shape_set(Tensor *t, size_t rank, const int64_t *dims) HR_MUST_CHECK;

/* "x FP32[batch,3], sr INT64[]": what a message says. */
void tensor_specs_text(const TensorSpec *specs, size_t n, Buf *ret);
/* The same as JSON: [{"name","datatype","shape"}]; names stand for unknown dimensions as -1. */
void tensor_specs_json(const TensorSpec *specs, size_t n, Buf *ret);

/* ERR_INVALID with err as bad_input. */
int tensor_request_parse(Str json, const TensorSpec *inputs, size_t inputs_len,
                         const TensorSpec *outputs, size_t outputs_len, const TensorFiles *files,
                         TensorRequest *ret, EngineError *err) HR_MUST_CHECK;

/* The wanted ones of `outputs` as the result's JSON. ERR_LIMIT with err as bad_output, or what
 * writing a file failed with. */
int tensor_result_write(const TensorRequest *r, const TensorSpec *specs, const Tensor *outputs,
                        const TensorFiles *files, Buf *ret, EngineError *err) HR_MUST_CHECK;

/* The shortest decimal that reads back (as a double, rounded to a float) the same. */
void json_put_float(Buf *b, float v);
void json_put_double(Buf *b, double v);

#endif
