/* Tensors in JSON: every type there and back, and what a wrong one is told. */
#include "engine/tensor.h"

#include <math.h>
#include <yyjson.h>

#include "unit/engine_support.h"

static TensorSpec spec_of(const char *name, ElementType type, size_t rank, const int64_t *dims,
                          const char *symbol)
{
    TensorSpec s = {.name = mem_dup(name, strlen(name)), .type = type, .rank = rank};
    for (size_t i = 0; i < rank; i++) {
        s.dims[i] = dims[i];
        if (dims[i] < 0 && symbol) s.symbols[i] = mem_dup(symbol, strlen(symbol));
    }
    return s;
}

/* Reads data of one tensor x of this type and shape [n], and writes it again. */
static void round_trip(ElementType type, const char *data, const char *want)
{
    TensorSpec spec = spec_of("x", type, 1, (int64_t[]){-1}, NULL);
    yyjson_doc *doc = yyjson_read(data, strlen(data), 0);
    Buf in = {0}, out = {0}, expected = {0};
    buf_printf(&in,
               "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"%s\",\"shape\":[%zu],\"data\":%s}]}",
               element_name(type), yyjson_arr_size(yyjson_doc_get_root(doc)), data);
    buf_printf(&expected,
               "{\"outputs\":[{\"name\":\"x\",\"datatype\":\"%s\",\"shape\":[%zu],\"data\":%s}]}",
               element_name(type), yyjson_arr_size(yyjson_doc_get_root(doc)), want);
    yyjson_doc_free(doc);
    TensorRequest r;
    EngineError err;
    if (tensor_request_parse(buf_str(&in), &spec, 1, &spec, 1, NULL, &r, &err))
        fail_msg("%s: %s", data, err.message);
    assert_int_equal(tensor_result_write(&r, &spec, r.inputs, NULL, &out, &err), 0);
    assert_string_equal(buf_z(&out), buf_z(&expected));
    tensor_request_done(&r);
    tensor_spec_done(&spec);
    buf_done(&in);
    buf_done(&out);
    buf_done(&expected);
}

static void every_type_there_and_back(void **state)
{
    (void)state;
    round_trip(ELEMENT_BOOL, "[true,false,1,0]", "[true,false,true,false]");
    round_trip(ELEMENT_UINT8, "[0,255]", "[0,255]");
    round_trip(ELEMENT_INT8, "[-128,127]", "[-128,127]");
    round_trip(ELEMENT_UINT16, "[0,65535]", "[0,65535]");
    round_trip(ELEMENT_INT16, "[-32768,32767]", "[-32768,32767]");
    round_trip(ELEMENT_UINT32, "[0,4294967295]", "[0,4294967295]");
    round_trip(ELEMENT_INT32, "[-2147483648,2147483647]", "[-2147483648,2147483647]");
    round_trip(ELEMENT_UINT64, "[0,18446744073709551615]", "[0,18446744073709551615]");
    round_trip(ELEMENT_INT64, "[-9223372036854775808,9223372036854775807]",
               "[-9223372036854775808,9223372036854775807]");
    round_trip(ELEMENT_FP32, "[0.1,-1e-3,3,1e30,\"NaN\",\"Infinity\",\"-Infinity\",0.33333334]",
               "[0.1,-0.001,3,1e+30,\"NaN\",\"Infinity\",\"-Infinity\",0.33333334]");
    round_trip(ELEMENT_FP64, "[0.1,1e300,5e-324,\"NaN\"]",
               "[0.1,1e+300,4.94065645841247e-324,\"NaN\"]");
    round_trip(ELEMENT_FP16, "[1.5,65504,-2,6e-8,\"Infinity\"]",
               "[1.5,65504,-2,5.9604645e-8,\"Infinity\"]");
    /* Rounded once: to nearest, ties to even; the least ones; less than half of the least. */
    round_trip(ELEMENT_FP16,
               "[2049,2051,2049.0001,65519.99,6.103515625e-5,6.097e-5,2.98e-8,2.99e-8]",
               "[2048,2052,2050,65504,0.000061035156,0.00006097555,0,5.9604645e-8]");
    round_trip(ELEMENT_FP16, "[-0.0,-1e-9,\"NaN\",\"-Infinity\"]", "[0,0,\"NaN\",\"-Infinity\"]");
    round_trip(ELEMENT_BF16, "[1.5,-256,3.140625,\"NaN\"]", "[1.5,-256,3.140625,\"NaN\"]");
    round_trip(ELEMENT_BYTES, "[\"\",\"h\\u00e9llo\",\"a\\\"b\\\\\\n\"]",
               "[\"\",\"h\xc3\xa9llo\",\"a\\\"b\\\\\\n\"]");
}

static void floats_read_back_the_same(void **state)
{
    (void)state;
    Random r;
    Buf b = {0};
    size_t bytes = 0, n = 200000;
    random_seed(&r, 1);
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)random_u64(&r);
        float f, g;
        memcpy(&f, &bits, sizeof f);
        if (i % 2) f = (float)(random_unit(&r) * 2 - 1); /* half of them as networks make them */
        if (isnan(f) || isinf(f) || f == 0) continue;
        buf_clear(&b);
        json_put_float(&b, f);
        yyjson_doc *doc = yyjson_read(buf_z(&b), b.len, 0);
        g = (float)yyjson_get_num(yyjson_doc_get_root(doc));
        if (!doc || f != g) fail_msg("%.9g became %s", (double)f, buf_z(&b));
        yyjson_doc_free(doc);
        bytes += b.len;
    }
    print_message("%.1f bytes a float\n", (double)bytes / (double)n);
    static const struct {
        float v;
        const char *text;
    } cases[] = {{0.1F, "0.1"},
                 {1, "1"},
                 {100, "100"},
                 {16777216, "16777216"},
                 {1e-5F, "0.00001"},
                 {1e-7F, "1e-7"},
                 {-2.5F, "-2.5"},
                 {3.4028235e38F, NULL},
                 {1.4e-45F, NULL},
                 {0.3F, "0.3"},
                 {123456.79F, "123456.79"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        buf_clear(&b);
        json_put_float(&b, cases[i].v);
        if (cases[i].text) assert_string_equal(buf_z(&b), cases[i].text);
        assert_true(strtof(buf_z(&b), NULL) == cases[i].v);
    }
    buf_done(&b);
}

static void nested_and_flat_are_the_same(void **state)
{
    (void)state;
    TensorSpec s[2] = {spec_of("x", ELEMENT_INT32, 2, (int64_t[]){-1, 3}, "batch"),
                       spec_of("k", ELEMENT_INT64, 0, NULL, NULL)};
    static const char *const inputs[] = {
        "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"INT32\",\"shape\":[2,3],"
        "\"data\":[1,2,3,4,5,6]},{\"name\":\"k\",\"datatype\":\"INT64\",\"shape\":[],\"data\":7}]}",
        "{\"id\":\"1\",\"inputs\":[{\"name\":\"k\",\"datatype\":\"INT64\",\"shape\":[],"
        "\"data\":[7]},"
        "{\"name\":\"x\",\"datatype\":\"INT32\",\"shape\":[2,3],\"parameters\":{},"
        "\"data\":[[1,2,3],[4,5,6]]}]}"};
    for (size_t i = 0; i < 2; i++) {
        TensorRequest r;
        EngineError err;
        if (tensor_request_parse(str_from(inputs[i]), s, 2, s, 2, NULL, &r, &err))
            fail_msg("%s", err.message);
        assert_int_equal(r.inputs[0].dims[0], 2);
        assert_memory_equal(r.inputs[0].data.data, ((int32_t[]){1, 2, 3, 4, 5, 6}), 24);
        assert_int_equal(load_u64(r.inputs[1].data.data), 7);
        tensor_request_done(&r);
    }
    for (size_t i = 0; i < 2; i++) tensor_spec_done(&s[i]);
}

/* A request whose one tensor x FP32[batch,3] has these fields, and more of the request after it. */
static void says(const char *fields, const char *rest, const char *part)
{
    TensorSpec s[2] = {spec_of("x", ELEMENT_FP32, 2, (int64_t[]){-1, 3}, "batch"),
                       spec_of("mask", ELEMENT_BOOL, 1, (int64_t[]){-1}, "batch")};
    Buf in = {0};
    buf_printf(&in,
               "{\"inputs\":[{%s},{\"name\":\"mask\",\"datatype\":\"BOOL\",\"shape\":[2],"
               "\"data\":[true,false]}]%s}",
               fields, rest);
    TensorRequest r;
    EngineError err = {0};
    int code = tensor_request_parse(buf_str(&in), s, 2, s, 2, NULL, &r, &err);
    if (code != ERR_INVALID || err.code != ENGINE_ERR_BAD_INPUT || !strstr(err.message, part) ||
        !strstr(err.message, "the model takes x FP32[batch,3], mask BOOL[batch]"))
        fail_msg("%s: %s\nnot: %s", buf_z(&in), err.message, part);
    buf_done(&in);
    for (size_t i = 0; i < 2; i++) tensor_spec_done(&s[i]);
}

#define X    "\"name\":\"x\",\"datatype\":\"FP32\","
#define GOOD X "\"shape\":[2,3],\"data\":[1,2,3,4,5,6]"

static void a_wrong_request_is_told_what_the_model_takes(void **state)
{
    (void)state;
    says("\"name\":\"masks\"", "", "no input 'masks'; did you mean 'mask'?");
    says("\"nam\":\"x\"", "", "inputs[0] needs a \"name\"");
    says("\"name\":\"mask\"", "", "needs a \"datatype\": BOOL");
    says(GOOD, ",\"output\":[]", "unknown field 'output'; did you mean 'outputs'?");
    says(GOOD ",\"dtype\":1", "", "unknown field 'dtype'");
    says("\"name\":\"x\",\"datatype\":\"INT64\"", "", "datatype is INT64, not FP32");
    says(X "\"data\":[1]", "", "needs a \"shape\"");
    says(X "\"shape\":[2],\"data\":[1]", "", "shape has 1 dimensions, not 2");
    says(X "\"shape\":[2,4],\"data\":[1]", "", "shape[1] is 4, not 3");
    says(X "\"shape\":[0,3],\"data\":[]", "", "shape[0] must be a whole number from 1");
    says(X "\"shape\":[-1,3],\"data\":[]", "", "shape[0] must be a whole number from 1");
    says(X "\"shape\":[2000000000,3],\"data\":[]", "", "over 1 GiB");
    says(X "\"shape\":[2,3]", "", "has no \"data\"");
    says(X "\"shape\":[2,3],\"data\":[1,2]", "", "data has 2 elements where its shape makes 6");
    says(X "\"shape\":[2,3],\"data\":[[1,2],[3,4],[5,6]]", "", "a list at depth 0 of data has 3");
    says(X "\"shape\":[2,3],\"data\":[[1,2,3],4]", "", "data must be a list");
    says(X "\"shape\":[2,3],\"data\":\"AAAA\"", "", "data must be a list");
    says(X "\"shape\":[1,3],\"data\":[1,\"2\",3]", "", "element 1 of data must be a number");
    says(X "\"shape\":[1,3],\"data\":[1,1e39,3]", "", "element 1 of data must be a number that");
    says(X "\"shape\":[2,3],\"data\":{\"$file\":\"file_1\"}", "", "id of an uploaded file");
    says(X "\"shape\":[1,3],\"data\":[1,2,3]", "", "'batch' is 1 in input 'x' and 2 in input 'm");
    says(GOOD "},{" GOOD, "", "input 'x' is given twice");
    says(GOOD, ",\"outputs\":[{\"name\":\"y\"}]", "no output 'y'");
    says(GOOD, ",\"outputs\":[]", "\"outputs\" must be a list such as");
    says(GOOD, ",\"outputs\":[{\"name\":\"x\",\"parameters\":{\"files\":1}}]", "mean 'file'");
    says(GOOD, ",", "is not JSON");

    TensorSpec s = spec_of("x", ELEMENT_UINT8, 1, (int64_t[]){1}, NULL);
    static const struct {
        ElementType type;
        const char *value, *part;
    } cases[] = {{ELEMENT_UINT8, "256", "0 to 255"},
                 {ELEMENT_UINT8, "-1", "0 to 255"},
                 {ELEMENT_UINT8, "1.0", "whole"},
                 {ELEMENT_INT8, "128", "-128 to 127"},
                 {ELEMENT_UINT64, "-1", "2^64-1"},
                 {ELEMENT_INT64, "9223372036854775808", "2^"},
                 {ELEMENT_BOOL, "2", "true or false"},
                 {ELEMENT_BYTES, "1", "a string"},
                 {ELEMENT_FP16, "65520", "fits"},
                 {ELEMENT_BF16, "3.4e38", "fits"},
                 {ELEMENT_BYTES, "\"a\\u0000b\"", "without a NUL"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        Buf in = {0};
        TensorRequest r;
        EngineError err;
        s.type = cases[i].type;
        buf_printf(&in,
                   "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"%s\",\"shape\":[1],"
                   "\"data\":[%s]}]}",
                   element_name(s.type), cases[i].value);
        assert_int_equal(tensor_request_parse(buf_str(&in), &s, 1, &s, 1, NULL, &r, &err),
                         ERR_INVALID);
        if (!strstr(err.message, cases[i].part)) fail_msg("%s: %s", buf_z(&in), err.message);
        buf_done(&in);
    }
    static const char *const whole[] = {
        "{}", "[]", "3", "{\"inputs\":{}}", "{\"inputs\":[]}", "{\"inputs\":[1]}"};
    for (size_t i = 0; i < ARRAY_LEN(whole); i++) {
        TensorRequest r;
        EngineError err;
        assert_int_equal(tensor_request_parse(str_from(whole[i]), &s, 1, &s, 1, NULL, &r, &err),
                         ERR_INVALID);
        assert_non_null(strstr(err.message, "the model takes x"));
    }
    tensor_spec_done(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_there_and_back),
        cmocka_unit_test(floats_read_back_the_same),
        cmocka_unit_test(nested_and_flat_are_the_same),
        cmocka_unit_test(a_wrong_request_is_told_what_the_model_takes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
