/* A request in Open Inference form from any bytes, for a model with an input of every type: what is
 * read is written and, where all numbers are finite, read again the same. */
#include "engine/tensor.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TYPES = ELEMENT_BYTES + 1 };

/* The result's "outputs" is a request's "inputs". */
static void read_again(const Buf *result, const TensorSpec *spec, const Tensor *was)
{
    Buf json = {0};
    TensorRequest r;
    EngineError err;
    size_t at = strlen("{\"outputs\"");
    CHECK(result->len > at);
    buf_puts(&json, "{\"inputs\"");
    buf_put(&json, result->data + at, result->len - at);
    CHECK(tensor_request_parse(buf_str(&json), spec, 1, spec, 1, NULL, &r, &err) == 0);
    CHECK(r.inputs[0].count == was->count && r.inputs[0].data.len == was->data.len);
    /* -0 becomes 0, a NaN loses its payload: floats are held to it by the unit tests. */
    bool floating = spec->type >= ELEMENT_FP16 && spec->type <= ELEMENT_FP64;
    if (!floating && was->data.len)
        CHECK(memcmp(r.inputs[0].data.data, was->data.data, was->data.len) == 0);
    tensor_request_done(&r);
    buf_done(&json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Str json = {size ? (const char *)data : "", size};
    for (int type = 0; type < TYPES; type++) {
        char name[] = "x", symbol[] = "n";
        TensorSpec spec = {.name = name,
                           .type = (ElementType)type,
                           .rank = 2,
                           .dims = {-1, -1},
                           .symbols = {symbol, NULL}};
        TensorRequest r;
        EngineError err = {0};
        if (tensor_request_parse(json, &spec, 1, &spec, 1, NULL, &r, &err)) {
            CHECK(err.code == ENGINE_ERR_BAD_INPUT && err.message[0]);
            CHECK(utf8_valid(err.message, strlen(err.message)));
            continue;
        }
        Buf out = {0};
        CHECK(r.inputs[0].data.len < size * 64 + 64);
        if (!r.as_file[0] && tensor_result_write(&r, &spec, r.inputs, NULL, &out, &err) == 0)
            read_again(&out, &spec, &r.inputs[0]);
        buf_done(&out);
        tensor_request_done(&r);
    }
    return 0;
}
