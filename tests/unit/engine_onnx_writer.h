/* engine_onnx_writer.h: makes small ONNX models in memory, for the tests. Protobuf by hand: a
 * message is a Buf; what goes into another is put with pb_message. Field numbers: onnx.proto3. */
#ifndef TESTS_UNIT_ENGINE_ONNX_WRITER_H
#define TESTS_UNIT_ENGINE_ONNX_WRITER_H

#include <string.h>

#include "base/base.h"

enum {
    ONNX_FLOAT = 1,
    ONNX_UINT8,
    ONNX_INT8,
    ONNX_UINT16,
    ONNX_INT16,
    ONNX_INT32,
    ONNX_INT64,
    ONNX_STRING,
    ONNX_BOOL,
    ONNX_FLOAT16,
    ONNX_DOUBLE,
    ONNX_UINT32,
    ONNX_UINT64,
    ONNX_BFLOAT16 = 16,
};

static inline void pb_varint(Buf *b, uint64_t v)
{
    for (; v >= 0x80; v >>= 7) buf_u8(b, (uint8_t)(v | 0x80));
    buf_u8(b, (uint8_t)v);
}

static inline void pb_int(Buf *b, uint32_t field, uint64_t v)
{
    pb_varint(b, field << 3);
    pb_varint(b, v);
}

static inline void pb_bytes(Buf *b, uint32_t field, const void *p, size_t n)
{
    pb_varint(b, field << 3 | 2);
    pb_varint(b, n);
    buf_put(b, p, n);
}

static inline void pb_text(Buf *b, uint32_t field, const char *z)
{
    pb_bytes(b, field, z, strlen(z));
}

/* Takes m. */
static inline void pb_message(Buf *b, uint32_t field, Buf m)
{
    pb_bytes(b, field, m.data, m.len);
    buf_done(&m);
}

/* dims: "batch,3,2"; a name stands for any; "" is a scalar. */
static inline void onnx_value(Buf *graph, bool output, const char *name, int type, const char *dims)
{
    Buf shape = {0}, tensor = {0}, type_proto = {0}, info = {0};
    for (const char *p = dims; *p;) {
        size_t n = strcspn(p, ",");
        Str s = {p, n};
        uint64_t v;
        Buf dim = {0};
        if (parse_u64(s, &v) == 0)
            pb_int(&dim, 1, v);
        else if (!str_eqz(s, "?"))
            pb_bytes(&dim, 2, p, n);
        pb_message(&shape, 1, dim);
        p += n + (p[n] == ',');
    }
    pb_int(&tensor, 1, (uint64_t)type);
    pb_message(&tensor, 2, shape);
    pb_message(&type_proto, 1, tensor);
    pb_text(&info, 1, name);
    pb_message(&info, 2, type_proto);
    pb_message(graph, output ? 12 : 11, info);
}

/* inputs: names by commas. attribute (an integer) may be NULL. */
static inline void onnx_node(Buf *graph, const char *op, const char *inputs, const char *output,
                             const char *attribute, int64_t value)
{
    Buf node = {0};
    for (const char *p = inputs; *p;) {
        size_t n = strcspn(p, ",");
        pb_bytes(&node, 1, p, n);
        p += n + (p[n] == ',');
    }
    pb_text(&node, 2, output);
    pb_text(&node, 4, op);
    if (attribute) {
        Buf a = {0};
        pb_text(&a, 1, attribute);
        pb_int(&a, 3, (uint64_t)value);
        pb_int(&a, 20, 2);
        pb_message(&node, 5, a);
    }
    pb_message(graph, 1, node);
}

static inline void onnx_constant(Buf *graph, const char *name, int type, const int64_t *dims,
                                 size_t rank, const void *data, size_t n)
{
    Buf t = {0};
    for (size_t i = 0; i < rank; i++) pb_int(&t, 1, (uint64_t)dims[i]);
    pb_int(&t, 2, (uint64_t)type);
    pb_text(&t, 8, name);
    pb_bytes(&t, 9, data, n);
    pb_message(graph, 5, t);
}

/* Takes the graph. */
static inline Buf onnx_model(Buf graph)
{
    Buf model = {0}, opset = {0};
    pb_text(&graph, 2, "test");
    pb_int(&opset, 2, 17);
    pb_int(&model, 1, 8);
    pb_message(&model, 8, opset);
    pb_message(&model, 7, graph);
    return model;
}

#endif
