#include "engine/tensor.h"

#include "engine/inside.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

static const struct {
    const char *name;
    size_t size;
} elements[] = {
    [ELEMENT_BOOL] = {"BOOL", 1},     [ELEMENT_UINT8] = {"UINT8", 1},
    [ELEMENT_UINT16] = {"UINT16", 2}, [ELEMENT_UINT32] = {"UINT32", 4},
    [ELEMENT_UINT64] = {"UINT64", 8}, [ELEMENT_INT8] = {"INT8", 1},
    [ELEMENT_INT16] = {"INT16", 2},   [ELEMENT_INT32] = {"INT32", 4},
    [ELEMENT_INT64] = {"INT64", 8},   [ELEMENT_FP16] = {"FP16", 2},
    [ELEMENT_BF16] = {"BF16", 2},     [ELEMENT_FP32] = {"FP32", 4},
    [ELEMENT_FP64] = {"FP64", 8},     [ELEMENT_BYTES] = {"BYTES", 0},
};

const char *element_name(ElementType type)
{
    return elements[type].name;
}

size_t element_size(ElementType type)
{
    return elements[type].size;
}

void tensor_done(Tensor *t)
{
    buf_done(&t->data);
    *t = (Tensor){0};
}

void tensor_spec_done(TensorSpec *s)
{
    mem_free(s->name);
    for (size_t i = 0; i < TENSOR_RANK_MAX; i++) mem_free(s->symbols[i]);
    *s = (TensorSpec){0};
}

void tensor_request_done(TensorRequest *r)
{
    for (size_t i = 0; i < r->inputs_len; i++) tensor_done(&r->inputs[i]);
    mem_free(r->inputs);
    mem_free(r->wanted);
    mem_free(r->as_file);
    *r = (TensorRequest){0};
}

int tensor_shape_set(Tensor *t, size_t rank, const int64_t *dims)
{
    CHECK(rank <= TENSOR_RANK_MAX);
    size_t count = 1;
    for (size_t i = 0; i < rank; i++) {
        CHECK(dims[i] >= 0);
        if (__builtin_mul_overflow(count, (size_t)dims[i], &count)) return ERR_LIMIT;
    }
    if (count > TENSOR_BYTES_MAX / MAX(element_size(t->type), 4)) return ERR_LIMIT;
    t->rank = rank;
    for (size_t i = 0; i < rank; i++) t->dims[i] = dims[i];
    t->count = count;
    return 0;
}

/* ---- specs as text ---- */

static void put_dims(Buf *b, size_t rank, const int64_t *dims, char *const *symbols)
{
    buf_putc(b, '[');
    for (size_t i = 0; i < rank; i++) {
        if (i) buf_putc(b, ',');
        if (dims[i] < 0 && symbols && symbols[i])
            buf_puts(b, symbols[i]);
        else
            buf_printf(b, "%lld", (long long)dims[i]);
    }
    buf_putc(b, ']');
}

void tensor_specs_text(const TensorSpec *specs, size_t n, Buf *ret)
{
    for (size_t i = 0; i < n; i++) {
        buf_printf(ret, "%s%s %s", i ? ", " : "", specs[i].name, element_name(specs[i].type));
        put_dims(ret, specs[i].rank, specs[i].dims, specs[i].symbols);
    }
}

void tensor_specs_json(const TensorSpec *specs, size_t n, Buf *ret)
{
    buf_putc(ret, '[');
    for (size_t i = 0; i < n; i++) {
        buf_puts(ret, i ? ",{\"name\":" : "{\"name\":");
        json_put_string(ret, str_from(specs[i].name));
        buf_printf(ret, ",\"datatype\":\"%s\",\"shape\":", element_name(specs[i].type));
        put_dims(ret, specs[i].rank, specs[i].dims, NULL);
        buf_putc(ret, '}');
    }
    buf_putc(ret, ']');
}

/* ---- reading a request ---- */

typedef struct {
    const TensorSpec *inputs, *outputs;
    size_t inputs_len, outputs_len;
    const TensorFiles *files;
    EngineError *err;
} Reader;

HR_PRINTF(2, 3)
static int refuse(Reader *r, const char *fmt, ...)
{
    Buf b = {0};
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(&b, fmt, ap);
    va_end(ap);
    buf_puts(&b, "; the model takes ");
    tensor_specs_text(r->inputs, r->inputs_len, &b);
    buf_puts(&b, " and gives ");
    tensor_specs_text(r->outputs, r->outputs_len, &b);
    engine_error_set(r->err, ENGINE_ERR_BAD_INPUT, false, "%s", buf_z(&b));
    buf_done(&b);
    return ERR_INVALID;
}

/* Every key of o is one of names. where: "input 'x'". */
static int check_keys(Reader *r, yyjson_val *o, const char *where, const char *const *names)
{
    size_t i, n;
    yyjson_val *key, *v;
    yyjson_obj_foreach(o, i, n, key, v)
    {
        Str k = {yyjson_get_str(key), yyjson_get_len(key)};
        size_t at = 0;
        while (names[at] && !str_eqz(k, names[at])) at++;
        if (names[at]) continue;
        const char *near = nearest_name(k, names);
        return refuse(r, "%s: unknown field '%.*s'%s%s%s", where, (int)MIN(k.n, 64), k.p,
                      near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    }
    return 0;
}

static uint16_t float_to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    if (isnan(f)) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16); /* nearest, ties to even */
}

static float bf16_to_float(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* By hand: clang before 15 knows no _Float16 on x86-64. Once rounded, to nearest, ties to even. */
static uint16_t double_to_fp16(double d)
{
    uint64_t u;
    memcpy(&u, &d, sizeof u);
    uint16_t sign = (uint16_t)(u >> 48 & 0x8000);
    int e = (int)(u >> 52 & 0x7FF) - 1023;
    uint64_t m = u & ((UINT64_C(1) << 52) - 1);
    if (e == 1024) return (uint16_t)(sign | 0x7C00 | (m ? 0x200 : 0) | m >> 42);
    if (e > 15) return sign | 0x7C00;
    if (e < -25) return sign; /* less than half of the least one */
    unsigned shift = 42;
    uint64_t h = 0;
    if (e >= -14) {
        h = (uint64_t)(e + 15) << 10;
    } else {
        m |= UINT64_C(1) << 52;
        shift += (unsigned)(-14 - e);
    }
    uint64_t rest = m & ((UINT64_C(1) << shift) - 1), half = UINT64_C(1) << (shift - 1);
    h += m >> shift;
    if (rest > half || (rest == half && h & 1)) h++; /* carries into the exponent, up to infinity */
    return (uint16_t)(sign | h);
}

static float fp16_to_float(uint16_t h)
{
    int e = h >> 10 & 0x1F, m = h & 0x3FF;
    float f = e == 0x1F ? (m ? NAN : INFINITY)
              : e       ? ldexpf((float)(m | 0x400), e - 25)
                        : ldexpf((float)m, -24);
    return h & 0x8000 ? -f : f;
}

static bool read_real(yyjson_val *v, double *ret)
{
    if (yyjson_is_num(v)) {
        *ret = yyjson_get_num(v);
        return true;
    }
    if (yyjson_equals_str(v, "NaN"))
        *ret = NAN;
    else if (yyjson_equals_str(v, "Infinity"))
        *ret = INFINITY;
    else if (yyjson_equals_str(v, "-Infinity"))
        *ret = -INFINITY;
    else
        return false;
    return true;
}

/* Appends one element. NULL, or what it should have been. */
static const char *put_element(ElementType type, yyjson_val *v, Buf *out)
{
    static const struct {
        int64_t least;
        uint64_t most;
        const char *wants;
    } whole[] = {
        [ELEMENT_UINT8] = {0, UINT8_MAX, "a whole number from 0 to 255"},
        [ELEMENT_UINT16] = {0, UINT16_MAX, "a whole number from 0 to 65535"},
        [ELEMENT_UINT32] = {0, UINT32_MAX, "a whole number from 0 to 2^32-1"},
        [ELEMENT_UINT64] = {0, UINT64_MAX, "a whole number from 0 to 2^64-1"},
        [ELEMENT_INT8] = {INT8_MIN, INT8_MAX, "a whole number from -128 to 127"},
        [ELEMENT_INT16] = {INT16_MIN, INT16_MAX, "a whole number from -32768 to 32767"},
        [ELEMENT_INT32] = {INT32_MIN, INT32_MAX, "a whole number from -2^31 to 2^31-1"},
        [ELEMENT_INT64] = {INT64_MIN, INT64_MAX, "a whole number from -2^63 to 2^63-1"},
    };
    double d;
    switch (type) {
    case ELEMENT_BOOL: {
        if (!yyjson_is_bool(v) && !(yyjson_is_uint(v) && yyjson_get_uint(v) <= 1))
            return "true or false";
        buf_u8(out, yyjson_is_true(v) || yyjson_get_uint(v) == 1);
        return NULL;
    }
    case ELEMENT_FP16:
    case ELEMENT_BF16:
    case ELEMENT_FP32:
    case ELEMENT_FP64: {
        if (!read_real(v, &d)) return "a number, \"NaN\", \"Infinity\" or \"-Infinity\"";
        if (type == ELEMENT_FP64) {
            buf_put(out, &d, sizeof d);
            return NULL;
        }
        float f = (float)d;
        if (isinf(f) && !isinf(d)) return "a number that fits its type";
        if (type == ELEMENT_FP32) {
            buf_put(out, &f, sizeof f);
            return NULL;
        }
        uint16_t bits;
        if (type == ELEMENT_BF16) {
            bits = float_to_bf16(f);
            if (isinf(bf16_to_float(bits)) && !isinf(d)) return "a number that fits its type";
        } else {
            bits = double_to_fp16(d);
            if (isinf(fp16_to_float(bits)) && !isinf(d)) return "a number that fits its type";
        }
        buf_u16(out, bits);
        return NULL;
    }
    case ELEMENT_BYTES: {
        if (!yyjson_is_str(v)) return "a string";
        const char *s = yyjson_get_str(v);
        size_t n = yyjson_get_len(v);
        if (memchr(s, 0, n)) return "a string without a NUL in it";
        buf_u32(out, (uint32_t)n);
        buf_put(out, s, n);
        return NULL;
    }
    default: {
        uint64_t u = yyjson_get_uint(v); /* of a negative one: its two's complement */
        if (!yyjson_is_int(v) ||
            (yyjson_is_sint(v) ? yyjson_get_sint(v) < whole[type].least : u > whole[type].most))
            return whole[type].wants;
        if (yyjson_is_sint(v)) u = (uint64_t)yyjson_get_sint(v);
        buf_put(out, &u, element_size(type)); /* little-endian: its low bytes */
        return NULL;
    }
    }
}

static int put_elements(Reader *r, const char *name, Tensor *t, yyjson_val *v, size_t depth,
                        bool nested)
{
    size_t i, n, want = nested ? (size_t)t->dims[depth] : t->count;
    yyjson_val *item;
    if (!yyjson_is_arr(v))
        return refuse(r, "input '%s': data must be a list, flat or nested as its shape", name);
    if (yyjson_arr_size(v) != want && nested)
        return refuse(r, "input '%s': a list at depth %zu of data has %zu items; shape[%zu] is %zu",
                      name, depth, yyjson_arr_size(v), depth, want);
    if (yyjson_arr_size(v) != want)
        return refuse(r, "input '%s': data has %zu elements where its shape makes %zu", name,
                      yyjson_arr_size(v), want);
    bool leaf = !nested || depth + 1 == t->rank;
    yyjson_arr_foreach(v, i, n, item)
    {
        if (!leaf) {
            int err = put_elements(r, name, t, item, depth + 1, true);
            if (err) return err;
            continue;
        }
        const char *wants = put_element(t->type, item, &t->data);
        if (wants) {
            return refuse(r, "input '%s': element %zu of data must be %s (%s)", name, i, wants,
                          element_name(t->type));
        }
        if (t->data.len > TENSOR_BYTES_MAX)
            return refuse(r, "input '%s': data is over 1 GiB", name);
    }
    return 0;
}

/* The strings of a BYTES file fill it exactly. */
static bool bytes_ok(const Buf *data, size_t count)
{
    Cursor c = cursor_of(data->data, data->len);
    for (size_t i = 0; i < count && !c.bad; i++) {
        uint32_t n = cursor_u32(&c);
        const uint8_t *p = cursor_bytes(&c, n);
        if (p && memchr(p, 0, n)) return false;
    }
    return !c.bad && cursor_left(&c) == 0;
}

static int read_file(Reader *r, const char *name, Tensor *t, yyjson_val *id)
{
    if (!yyjson_is_str(id) || !r->files)
        return refuse(r, "input '%s': data's \"$file\" must be the id of an uploaded file", name);
    Str id_str = {yyjson_get_str(id), yyjson_get_len(id)};
    if (r->files->read(r->files->ctx, id_str, &t->data, r->err)) return ERR_INVALID;
    size_t size = element_size(t->type);
    if (size == 0 && !bytes_ok(&t->data, t->count))
        return refuse(r,
                      "input '%s': its file must hold %zu strings, each behind its length as 4 "
                      "little-endian bytes, without NULs",
                      name, t->count);
    if (size && t->data.len != t->count * size)
        return refuse(r, "input '%s': its file has %zu bytes; its shape and datatype make %zu",
                      name, t->data.len, t->count * size);
    for (size_t i = 0; t->type == ELEMENT_BOOL && i < t->data.len; i++)
        t->data.data[i] = t->data.data[i] != 0;
    return 0;
}

static int read_shape(Reader *r, const TensorSpec *spec, yyjson_val *v, Tensor *t)
{
    int64_t dims[TENSOR_RANK_MAX];
    size_t i, n;
    yyjson_val *item;
    if (!yyjson_is_arr(v))
        return refuse(r, "input '%s' needs a \"shape\", such as [1,3]", spec->name);
    if (yyjson_arr_size(v) != spec->rank)
        return refuse(r, "input '%s': shape has %zu dimensions, not %zu", spec->name,
                      yyjson_arr_size(v), spec->rank);
    yyjson_arr_foreach(v, i, n, item)
    {
        if (!yyjson_is_uint(item) || yyjson_get_uint(item) > INT32_MAX ||
            (yyjson_get_uint(item) == 0 && spec->dims[i] != 0))
            return refuse(r, "input '%s': shape[%zu] must be a whole number from 1", spec->name, i);
        dims[i] = (int64_t)yyjson_get_uint(item);
        if (spec->dims[i] >= 0 && spec->dims[i] != dims[i])
            return refuse(r, "input '%s': shape[%zu] is %lld, not %lld", spec->name, i,
                          (long long)dims[i], (long long)spec->dims[i]);
    }
    if (tensor_shape_set(t, spec->rank, dims))
        return refuse(r, "input '%s': its shape makes over 1 GiB", spec->name);
    return 0;
}

static int read_tensor(Reader *r, const TensorSpec *spec, yyjson_val *o, Tensor *t)
{
    static const char *const keys[] = {"name", "shape", "datatype", "data", "parameters", NULL};
    char where[100];
    snprintf(where, sizeof where, "input '%.80s'", spec->name);
    int err = check_keys(r, o, where, keys);
    if (err) return err;
    yyjson_val *type = yyjson_obj_get(o, "datatype"), *data = yyjson_obj_get(o, "data");
    if (!yyjson_is_str(type))
        return refuse(r, "%s needs a \"datatype\": %s", where, element_name(spec->type));
    if (!yyjson_equals_str(type, element_name(spec->type)))
        return refuse(r, "%s: datatype is %.32s, not %s", where, yyjson_get_str(type),
                      element_name(spec->type));
    t->type = spec->type;
    if ((err = read_shape(r, spec, yyjson_obj_get(o, "shape"), t))) return err;
    if (!data) return refuse(r, "%s has no \"data\"", where);
    if (yyjson_is_obj(data)) {
        static const char *const file_keys[] = {"$file", "content_type", "size", NULL};
        if ((err = check_keys(r, data, where, file_keys))) return err;
        return read_file(r, spec->name, t, yyjson_obj_get(data, "$file"));
    }
    if (t->rank == 0 && !yyjson_is_arr(data)) { /* a scalar may come bare */
        const char *wants = put_element(t->type, data, &t->data);
        return wants ? refuse(r, "%s: data must be %s", where, wants) : 0;
    }
    bool nested = t->rank > 1 && yyjson_is_arr(yyjson_arr_get_first(data));
    return put_elements(r, spec->name, t, data, 0, nested);
}

static size_t spec_find(const TensorSpec *specs, size_t n, yyjson_val *name)
{
    size_t i = 0;
    while (i < n && !yyjson_equals_str(name, specs[i].name)) i++;
    return i;
}

static int unknown_tensor(Reader *r, const char *what, const TensorSpec *specs, size_t n,
                          yyjson_val *name)
{
    const char *names[TENSORS_MAX + 1] = {0};
    for (size_t i = 0; i < n; i++) names[i] = specs[i].name;
    Str got = {yyjson_get_str(name), yyjson_get_len(name)};
    const char *near = nearest_name(got, names);
    return refuse(r, "the model has no %s '%.*s'%s%s%s", what, (int)MIN(got.n, 64), got.p,
                  near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static int read_inputs(Reader *r, yyjson_val *list, TensorRequest *out)
{
    bool given[TENSORS_MAX] = {0};
    size_t i, n;
    yyjson_val *o;
    if (!yyjson_is_arr(list))
        return refuse(r, "the input must be {\"inputs\":[{\"name\",\"datatype\",\"shape\","
                         "\"data\"}]}");
    yyjson_arr_foreach(list, i, n, o)
    {
        yyjson_val *name = yyjson_obj_get(o, "name");
        if (!yyjson_is_str(name)) return refuse(r, "inputs[%zu] needs a \"name\"", i);
        size_t at = spec_find(r->inputs, r->inputs_len, name);
        if (at == r->inputs_len) return unknown_tensor(r, "input", r->inputs, r->inputs_len, name);
        if (given[at]) return refuse(r, "input '%s' is given twice", r->inputs[at].name);
        given[at] = true;
        int err = read_tensor(r, &r->inputs[at], o, &out->inputs[at]);
        if (err) return err;
    }
    for (i = 0; i < r->inputs_len; i++)
        if (!given[i]) return refuse(r, "input '%s' is missing", r->inputs[i].name);
    return 0;
}

/* Dimensions of one name agree wherever they stand. */
static int check_symbols(Reader *r, const TensorRequest *out)
{
    for (size_t a = 0; a < r->inputs_len; a++)
        for (size_t i = 0; i < r->inputs[a].rank; i++)
            for (size_t b = 0; b < a && r->inputs[a].symbols[i]; b++)
                for (size_t k = 0; k < r->inputs[b].rank; k++) {
                    const char *name = r->inputs[a].symbols[i], *other = r->inputs[b].symbols[k];
                    int64_t x = out->inputs[a].dims[i], y = out->inputs[b].dims[k];
                    if (!other || strcmp(name, other) != 0 || x == y) continue;
                    return refuse(r, "'%s' is %lld in input '%s' and %lld in input '%s'", name,
                                  (long long)y, r->inputs[b].name, (long long)x, r->inputs[a].name);
                }
    return 0;
}

static int read_outputs(Reader *r, yyjson_val *list, TensorRequest *out)
{
    static const char *const keys[] = {"name", "parameters", NULL};
    static const char *const parameter_keys[] = {"file", NULL};
    size_t i, n;
    yyjson_val *o;
    if (!list || yyjson_is_null(list)) {
        for (i = 0; i < r->outputs_len; i++) out->wanted[i] = true;
        return 0;
    }
    if (!yyjson_is_arr(list) || yyjson_arr_size(list) == 0)
        return refuse(r, "\"outputs\" must be a list such as [{\"name\":\"%s\"}], or be left out",
                      r->outputs_len ? r->outputs[0].name : "");
    yyjson_arr_foreach(list, i, n, o)
    {
        yyjson_val *name = yyjson_obj_get(o, "name"), *parameters = yyjson_obj_get(o, "parameters");
        if (!yyjson_is_str(name)) return refuse(r, "outputs[%zu] needs a \"name\"", i);
        size_t at = spec_find(r->outputs, r->outputs_len, name);
        if (at == r->outputs_len)
            return unknown_tensor(r, "output", r->outputs, r->outputs_len, name);
        int err = check_keys(r, o, "outputs", keys);
        if (!err && parameters) err = check_keys(r, parameters, "outputs", parameter_keys);
        if (err) return err;
        out->wanted[at] = true;
        out->as_file[at] = yyjson_is_true(yyjson_obj_get(parameters, "file"));
    }
    return 0;
}

int tensor_request_parse(Str json, const TensorSpec *inputs, size_t inputs_len,
                         const TensorSpec *outputs, size_t outputs_len, const TensorFiles *files,
                         TensorRequest *ret, EngineError *err)
{
    static const char *const keys[] = {"inputs", "outputs", "id", "parameters", NULL};
    CHECK(inputs_len <= TENSORS_MAX && outputs_len <= TENSORS_MAX);
    Reader r = {inputs, outputs, inputs_len, outputs_len, files, err};
    TensorRequest out = {
        .inputs = mem_new(MAX(inputs_len, 1) * sizeof(Tensor)),
        .inputs_len = inputs_len,
        .wanted = mem_new(MAX(outputs_len, 1)),
        .as_file = mem_new(MAX(outputs_len, 1)),
        .outputs_len = outputs_len,
    };
    yyjson_doc *doc = yyjson_read(json.p, json.n, 0);
    yyjson_val *root = yyjson_doc_get_root(doc);
    int code;
    if (!doc)
        code = refuse(&r, "the input is not JSON");
    else if (!yyjson_is_obj(root))
        code = read_inputs(&r, NULL, &out);
    else {
        code = check_keys(&r, root, "the input", keys);
        if (!code) code = read_inputs(&r, yyjson_obj_get(root, "inputs"), &out);
        if (!code) code = check_symbols(&r, &out);
        if (!code) code = read_outputs(&r, yyjson_obj_get(root, "outputs"), &out);
    }
    yyjson_doc_free(doc);
    if (code) {
        tensor_request_done(&out);
        return code;
    }
    *ret = out;
    return 0;
}

/* ---- writing a result ---- */

/* digits × 10^exponent. */
static void put_decimal(Buf *b, uint64_t digits, int exponent)
{
    char z[24];
    int n = 0;
    while (digits % 10 == 0) {
        digits /= 10;
        exponent++;
    }
    for (; digits; digits /= 10) z[n++] = (char)('0' + digits % 10);
    int point = n + exponent; /* of the n digits stand before the point */
    if (point > 16 || point < -5) {
        buf_putc(b, z[n - 1]);
        if (n > 1) buf_putc(b, '.');
        for (int i = n - 2; i >= 0; i--) buf_putc(b, z[i]);
        buf_printf(b, "e%d", point - 1);
        return;
    }
    if (point <= 0) buf_puts(b, "0.");
    for (int i = point; i < 0; i++) buf_putc(b, '0');
    for (int i = 0; i < n; i++) {
        if (i == point && i > 0) buf_putc(b, '.');
        buf_putc(b, z[n - 1 - i]);
    }
    for (int i = n; i < point; i++) buf_putc(b, '0');
}

static bool put_special(Buf *b, double v)
{
    if (isnan(v))
        buf_puts(b, "\"NaN\"");
    else if (isinf(v))
        buf_puts(b, v < 0 ? "\"-Infinity\"" : "\"Infinity\"");
    else if (v == 0)
        buf_putc(b, '0');
    else
        return false;
    return true;
}

void json_put_float(Buf *b, float v)
{
    static const double ten[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                 1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    if (put_special(b, (double)v)) return;
    double x = fabs((double)v);
    if (v < 0) buf_putc(b, '-');
    /* Both the digits and the power of ten are exact doubles, so m / 10^k is what a reader gets. */
    int magnitude = (int)floor(log10(x));
    for (int digits = 7; digits <= 9; digits++) {
        int k = digits - 1 - magnitude;
        if (k > 22 || k < -22) break;
        double m = nearbyint(k >= 0 ? x * ten[k] : x / ten[-k]);
        double back = k >= 0 ? m / ten[k] : m * ten[-k];
        if ((float)back != (float)x) continue;
        put_decimal(b, (uint64_t)m, -k);
        return;
    }
    char z[32];
    for (int digits = 7; digits <= 9; digits++) {
        snprintf(z, sizeof z, "%.*g", digits, x);
        if ((float)strtod(z, NULL) == (float)x) break;
    }
    buf_puts(b, z);
}

void json_put_double(Buf *b, double v)
{
    if (put_special(b, v)) return;
    char z[32];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(z, sizeof z, "%.*g", digits, v);
        if (strtod(z, NULL) == v) break;
    }
    buf_puts(b, z);
}

static void put_u64(Buf *b, uint64_t v)
{
    char z[20];
    size_t n = sizeof z;
    do z[--n] = (char)('0' + v % 10);
    while (v /= 10);
    buf_put(b, z + n, sizeof z - n);
}

static void put_i64(Buf *b, int64_t v)
{
    if (v < 0) buf_putc(b, '-');
    put_u64(b, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

static void put_one(Buf *b, ElementType type, const uint8_t *p)
{
    uint64_t u = 0;
    memcpy(&u, p, element_size(type)); /* little-endian */
    float f;
    double d;
    switch (type) {
    case ELEMENT_BOOL:
        buf_puts(b, u ? "true" : "false");
        return;
    case ELEMENT_INT8:
        put_i64(b, (int8_t)u);
        return;
    case ELEMENT_INT16:
        put_i64(b, (int16_t)u);
        return;
    case ELEMENT_INT32:
        put_i64(b, (int32_t)u);
        return;
    case ELEMENT_INT64:
        put_i64(b, (int64_t)u);
        return;
    case ELEMENT_BF16:
        json_put_float(b, bf16_to_float((uint16_t)u));
        return;
    case ELEMENT_FP16:
        json_put_float(b, fp16_to_float((uint16_t)u));
        return;
    case ELEMENT_FP32:
        memcpy(&f, p, sizeof f);
        json_put_float(b, f);
        return;
    case ELEMENT_FP64:
        memcpy(&d, p, sizeof d);
        json_put_double(b, d);
        return;
    default:
        put_u64(b, u);
        return;
    }
}

static int put_data(const char *name, const Tensor *t, Buf *ret, EngineError *err)
{
    size_t size = element_size(t->type);
    Cursor c = cursor_of(t->data.data, t->data.len);
    buf_putc(ret, '[');
    for (size_t i = 0; i < t->count; i++) {
        if (i) buf_putc(ret, ',');
        if (size) {
            put_one(ret, t->type, t->data.data + i * size);
        } else {
            uint32_t n = cursor_u32(&c);
            const uint8_t *p = cursor_bytes(&c, n);
            CHECK(p || n == 0);
            json_put_string(ret, (Str){(const char *)p, n});
        }
        if (ret->len > TENSOR_JSON_MAX) {
            engine_error_set(err, ENGINE_ERR_BAD_OUTPUT, false,
                             "the result is over 8 MiB of JSON at output '%s'; ask for it as a "
                             "file: \"outputs\":[{\"name\":\"%s\",\"parameters\":{\"file\":true}}]",
                             name, name);
            return ERR_LIMIT;
        }
    }
    buf_putc(ret, ']');
    return 0;
}

int tensor_result_write(const TensorRequest *r, const TensorSpec *specs, const Tensor *outputs,
                        const TensorFiles *files, Buf *ret, EngineError *err)
{
    bool first = true;
    buf_puts(ret, "{\"outputs\":[");
    for (size_t i = 0; i < r->outputs_len; i++) {
        const Tensor *t = &outputs[i];
        if (!r->wanted[i]) continue;
        buf_puts(ret, first ? "{\"name\":" : ",{\"name\":");
        first = false;
        json_put_string(ret, str_from(specs[i].name));
        buf_printf(ret, ",\"datatype\":\"%s\",\"shape\":", element_name(t->type));
        put_dims(ret, t->rank, t->dims, NULL);
        buf_puts(ret, ",\"data\":");
        int code;
        if (r->as_file[i]) {
            const char *id;
            if (!files) {
                engine_error_set(err, ENGINE_ERR_BAD_INPUT, false, "this worker has no files");
                return ERR_UNSUPPORTED;
            }
            code = files->write(files->ctx, str_from(specs[i].name), buf_str(&t->data), &id, err);
            if (code) return code;
            buf_puts(ret, "{\"$file\":");
            json_put_string(ret, str_from(id));
            buf_printf(ret, ",\"content_type\":\"application/octet-stream\",\"size\":%zu}",
                       t->data.len);
        } else if ((code = put_data(specs[i].name, t, ret, err))) {
            return code;
        }
        buf_putc(ret, '}');
    }
    buf_puts(ret, "]}");
    return 0;
}
