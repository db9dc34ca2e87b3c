/* ONNX models made on the spot: types, batches, failures, cancels, the cache, and silence on the
 * network. */
#include <dirent.h>
#include <pthread.h>

#include "engine/onnx_runtime.h"
#include "unit/engine_onnx_writer.h"
#include "unit/engine_support.h"

static TestHost host;
static char *dir;
static ModelRepository repo;

/* Takes the model. */
static void put_model(const char *name, Buf model)
{
    char file[100];
    snprintf(file, sizeof file, "%s/1/model.onnx", name);
    put_bytes(dir, file, model.data, model.len);
    buf_done(&model);
}

static const struct {
    const char *name;
    int type;
} all_types[] = {{"BOOL", ONNX_BOOL},     {"UINT8", ONNX_UINT8},   {"UINT16", ONNX_UINT16},
                 {"UINT32", ONNX_UINT32}, {"UINT64", ONNX_UINT64}, {"INT8", ONNX_INT8},
                 {"INT16", ONNX_INT16},   {"INT32", ONNX_INT32},   {"INT64", ONNX_INT64},
                 {"FP16", ONNX_FLOAT16},  {"BF16", ONNX_BFLOAT16}, {"FP32", ONNX_FLOAT},
                 {"FP64", ONNX_DOUBLE},   {"BYTES", ONNX_STRING}};

/* y_T = x_T for every type. */
static Buf identity_model(void)
{
    Buf g = {0};
    for (size_t i = 0; i < ARRAY_LEN(all_types); i++) {
        char x[20], y[20];
        snprintf(x, sizeof x, "x_%s", all_types[i].name);
        snprintf(y, sizeof y, "y_%s", all_types[i].name);
        onnx_node(&g, "Identity", x, y, NULL, 0);
        onnx_value(&g, false, x, all_types[i].type, "batch,n");
        onnx_value(&g, true, y, all_types[i].type, "batch,n");
    }
    return onnx_model(g);
}

/* y[batch,2] = x[batch,n]·W[3,2], with n left open: another n fails inside the model. */
static Buf linear_model(void)
{
    static const float w[] = {1, 10, 2, 20, 3, 30};
    Buf g = {0};
    onnx_constant(&g, "w", ONNX_FLOAT, (int64_t[]){3, 2}, 2, w, sizeof w);
    onnx_node(&g, "MatMul", "x,w", "y", NULL, 0);
    onnx_value(&g, false, "x", ONNX_FLOAT, "batch,n");
    onnx_value(&g, true, "y", ONNX_FLOAT, "batch,2");
    return onnx_model(g);
}

/* y[batch] = table[index[batch]] of four: another index fails, and with it the whole call. */
static Buf lookup_model(void)
{
    static const float table[] = {0.5, 1.5, 2.5, 3.5};
    Buf g = {0};
    onnx_constant(&g, "table", ONNX_FLOAT, (int64_t[]){4}, 1, table, sizeof table);
    onnx_node(&g, "Gather", "table,index", "y", NULL, 0);
    onnx_value(&g, false, "index", ONNX_INT64, "batch");
    onnx_value(&g, true, "y", ONNX_FLOAT, "batch");
    return onnx_model(g);
}

/* y = the positive ones of x: looks as if it could be shared, and cannot. */
static Buf positive_model(void)
{
    static const float zero = 0;
    Buf g = {0};
    onnx_constant(&g, "zero", ONNX_FLOAT, NULL, 0, &zero, sizeof zero);
    onnx_node(&g, "Greater", "x,zero", "keep", NULL, 0);
    onnx_node(&g, "Compress", "x,keep", "y", "axis", 0);
    onnx_value(&g, false, "x", ONNX_FLOAT, "batch");
    onnx_value(&g, true, "y", ONNX_FLOAT, "rows");
    return onnx_model(g);
}

/* Some seconds of matrix products; x[1] is what the matrix is filled with. */
static Buf slow_model(void)
{
    static const int64_t shape[] = {640, 640};
    Buf g = {0};
    onnx_constant(&g, "shape", ONNX_INT64, (int64_t[]){2}, 1, shape, sizeof shape);
    onnx_node(&g, "Expand", "x,shape", "a0", NULL, 0);
    char from[20], to[20], inputs[50];
    int n = 3000;
    for (int i = 0; i < n; i++) {
        snprintf(from, sizeof from, "a%d", i);
        snprintf(to, sizeof to, "a%d", i + 1);
        snprintf(inputs, sizeof inputs, "%s,a0", from);
        onnx_node(&g, "MatMul", inputs, to, NULL, 0);
    }
    onnx_node(&g, "ReduceSum", to, "y", "keepdims", 0);
    onnx_value(&g, false, "x", ONNX_FLOAT, "1");
    onnx_value(&g, true, "y", ONNX_FLOAT, "");
    return onnx_model(g);
}

/* y = the running sum of x: rows that act on each other. */
static Buf sequence_model(void)
{
    static const int64_t axis = 0;
    Buf g = {0};
    onnx_constant(&g, "axis", ONNX_INT64, NULL, 0, &axis, sizeof axis);
    onnx_node(&g, "CumSum", "x,axis", "y", NULL, 0);
    onnx_value(&g, false, "x", ONNX_FLOAT, "seq_len");
    onnx_value(&g, true, "y", ONNX_FLOAT, "seq_len");
    return onnx_model(g);
}

static int set_up(void **state)
{
    (void)state;
    host_init(&host);
    dir = scratch_new();
    put_model("identity", identity_model());
    put_model("linear", linear_model());
    put_model("lookup", lookup_model());
    put_model("positive", positive_model());
    put_model("slow", slow_model());
    put_model("sequence", sequence_model());
    put_model("apart", lookup_model());
    put_text(dir, "apart/model.yaml", "onnx: {batch: false}\n");
    repo = repository_of(dir);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    repository_done(&repo);
    host_done(&host);
    scratch_done(dir);
    return 0;
}

static void is_found_and_says_where(void **state)
{
    (void)state;
    const char *path, *version;
    EngineError err;
    if (engine_onnx_runtime(NULL, &path, &version, &err)) fail_msg("%s", err.message);
    print_message("ONNX Runtime %s, %s\n", version, path);
    assert_non_null(strstr(path, "libonnxruntime.so"));
    assert_true(strcmp(version, "1.2") >= 0);
}

static void every_type_through_a_model(void **state)
{
    (void)state;
    static const char *const data[] = {"[true,false]",
                                       "[0,255]",
                                       "[0,65535]",
                                       "[0,4294967295]",
                                       "[0,18446744073709551615]",
                                       "[-128,127]",
                                       "[-32768,32767]",
                                       "[-2147483648,2147483647]",
                                       "[-9223372036854775808,1]",
                                       "[1.5,-2]",
                                       "[1.5,-2]",
                                       "[0.1,\"NaN\"]",
                                       "[0.1,\"-Infinity\"]",
                                       "[\"\",\"h\xc3\xa9\"]"};
    EngineModel *m = open_model(&repo, "identity", &host);
    Buf in = {0}, out = {0};
    buf_puts(&in, "{\"inputs\":[");
    buf_puts(&out, "{\"outputs\":[");
    for (size_t i = 0; i < ARRAY_LEN(all_types); i++) {
        for (int side = 0; side < 2; side++)
            buf_printf(side ? &out : &in,
                       "%s{\"name\":\"%c_%s\",\"datatype\":\"%s\",\"shape\":[1,2],\"data\":%s}",
                       i ? "," : "", side ? 'y' : 'x', all_types[i].name, all_types[i].name,
                       data[i]);
    }
    buf_puts(&in, "]}");
    buf_puts(&out, "]}");
    EngineTask t[2];
    for (int i = 0; i < 2; i++) {
        task_init(&t[i], "task_0", buf_z(&in));
        engine_admit(m, &t[i]);
    }
    EngineTask *both[] = {&t[0], &t[1]};
    engine_step(m, both, 2); /* shared: every type is concatenated and split, too */
    for (int i = 0; i < 2; i++) {
        assert_string_equal(output_of(&t[i]), buf_z(&out));
        engine_release(m, &t[i]);
    }
    Buf text = {0};
    engine_describe(m, &text);
    assert_non_null(strstr(buf_z(&text), "{\"inputs\":[{\"name\":\"x_BOOL\",\"datatype\":\"BOOL\","
                                         "\"shape\":[-1,-1]},"));
    buf_done(&text);
    buf_done(&in);
    buf_done(&out);
    engine_close(m);
}

static void rows_are_shared_and_given_back(void **state)
{
    (void)state;
    static const struct {
        const char *shape, *data, *out_shape, *out;
    } cases[] = {
        {"[1,3]", "[1,0,0]", "[1,2]", "[1,10]"},
        {"[2,3]", "[[0,1,0],[0,0,1]]", "[2,2]", "[2,20,3,30]"},
        {"[1,3]", "[1,1,1]", "[1,2]", "[6,60]"},
    };
    EngineModel *m = open_model(&repo, "linear", &host);
    assert_int_equal(engine_batch_max(m), 0);
    EngineTask t[4];
    EngineTask *all[4];
    char in[3][200], out[200];
    for (int i = 0; i < 3; i++) {
        snprintf(in[i], sizeof in[i],
                 "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":%s,\"data\":%s}]}",
                 cases[i].shape, cases[i].data);
        task_init(&t[i], "task_0", in[i]);
    }
    /* And one that no batch can take: its n is another, and the model fails on it. */
    task_init(&t[3], "task_0",
              "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1,2],"
              "\"data\":[1,2]}]}");
    for (int i = 0; i < 4; i++) {
        engine_admit(m, &t[i]);
        all[i] = &t[i];
    }
    assert_int_equal(t[1].weight, 2);
    engine_step(m, all, 4);
    for (int i = 0; i < 3; i++) {
        snprintf(out, sizeof out,
                 "{\"outputs\":[{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":%s,\"data\":%s}]}",
                 cases[i].out_shape, cases[i].out);
        assert_string_equal(output_of(&t[i]), out);
    }
    assert_failed(&t[3], ENGINE_ERR_MODEL, false, "MatMul");
    for (int i = 0; i < 4; i++) engine_release(m, &t[i]);

    int64_t ns[2];
    assert_int_equal(engine_measure(m, 1, &ns[0]), ERR_UNSUPPORTED); /* n has to be 3 */
    engine_close(m);
    static const char *const apart[] = {"sequence", "apart"};
    for (int i = 0; i < 2; i++) {
        m = open_model(&repo, apart[i], &host);
        assert_int_equal(engine_batch_max(m), 1);
        assert_int_equal(engine_measure(m, 2, &ns[0]), ERR_UNSUPPORTED);
        engine_close(m);
    }
    m = open_model(&repo, "lookup", &host);
    assert_int_equal(engine_measure(m, 1, &ns[0]), 0);
    assert_int_equal(engine_measure(m, 8, &ns[1]), 0);
    assert_true(ns[0] > 0 && ns[1] > 0);
    engine_close(m);
}

static void a_bad_task_spoils_no_other(void **state)
{
    (void)state;
    static const int indices[] = {0, 9, 3};
    EngineModel *m = open_model(&repo, "lookup", &host);
    EngineTask t[3];
    EngineTask *all[3];
    char in[3][200];
    for (int i = 0; i < 3; i++) {
        snprintf(in[i], sizeof in[i],
                 "{\"inputs\":[{\"name\":\"index\",\"datatype\":\"INT64\",\"shape\":[1],"
                 "\"data\":[%d]}]}",
                 indices[i]);
        task_init(&t[i], "task_0", in[i]);
        engine_admit(m, &t[i]);
        all[i] = &t[i];
    }
    engine_step(m, all, 3);
    assert_non_null(strstr(output_of(&t[0]), "\"data\":[0.5]"));
    assert_failed(&t[1], ENGINE_ERR_MODEL, false, "Gather");
    assert_non_null(strstr(output_of(&t[2]), "\"data\":[3.5]"));
    for (int i = 0; i < 3; i++) engine_release(m, &t[i]);

    run_one(m, &t[0], "task_0", "{\"inputs\":[{\"name\":\"indx\"}]}");
    assert_failed(&t[0], ENGINE_ERR_BAD_INPUT, false,
                  "did you mean 'index'?; the model takes index INT64[batch]");
    engine_release(m, &t[0]);
    engine_close(m);

    /* Outputs without a row for each input's: found out once, and run alone from then on. */
    m = open_model(&repo, "positive", &host);
    assert_int_equal(engine_batch_max(m), 0);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 2; i++) {
            snprintf(in[i], sizeof in[i],
                     "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[2],"
                     "\"data\":[-1,%d]}]}",
                     4 + i);
            task_init(&t[i], "task_0", in[i]);
            engine_admit(m, &t[i]);
        }
        engine_step(m, all, 2);
        assert_non_null(strstr(output_of(&t[0]), "\"shape\":[1],\"data\":[4]"));
        assert_non_null(strstr(output_of(&t[1]), "\"shape\":[1],\"data\":[5]"));
        for (int i = 0; i < 2; i++) engine_release(m, &t[i]);
        assert_int_equal(engine_batch_max(m), 1);
    }
    engine_close(m);
}

static void files_carry_what_is_large(void **state)
{
    (void)state;
    static const float x[] = {1, 2, 3, 4, 5, 6};
    char *files = scratch_new();
    put_bytes(files, "file_9", x, sizeof x);
    host.files_dir = files;
    EngineModel *m = open_model(&repo, "linear", &host);
    EngineTask t;
    run_one(m, &t, "task_0",
            "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[2,3],"
            "\"data\":{\"$file\":\"file_9\"}}],"
            "\"outputs\":[{\"name\":\"y\",\"parameters\":{\"file\":true}}]}");
    assert_string_equal(output_of(&t),
                        "{\"outputs\":[{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[2,2],"
                        "\"data\":{\"$file\":\"file_0\",\"content_type\":"
                        "\"application/octet-stream\",\"size\":16}}]}");
    assert_int_equal(host.puts[0].len, 16);
    assert_memory_equal(host.puts[0].data, ((float[]){14, 140, 32, 320}), 16);
    engine_release(m, &t);
    run_one(m, &t, "task_0",
            "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[3,3],"
            "\"data\":{\"$file\":\"file_9\"}}]}");
    assert_failed(&t, ENGINE_ERR_BAD_INPUT, false, "24 bytes; its shape and datatype make 36");
    engine_release(m, &t);
    run_one(m, &t, "task_0",
            "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[3,3],"
            "\"data\":{\"$file\":\"file_8\"}}]}");
    assert_failed(&t, ENGINE_ERR_BAD_INPUT, false, "no file file_8");
    engine_release(m, &t);
    engine_close(m);
    scratch_done(files);
}

static int64_t cancel_at;
static void *cancel_soon(void *p)
{
    void **arg = p;
    usleep(200000);
    cancel_at = engine_now_ns();
    engine_cancel(arg[0], arg[1]);
    return NULL;
}

static void a_cancel_stops_a_run(void **state)
{
    (void)state;
    EngineModel *m = open_model(&repo, "slow", &host);
    assert_int_equal(engine_batch_max(m), 1);
    const char *input =
        "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1],\"data\":[0.001]}]}";
    EngineTask t;
    EngineTask *one = &t;
    task_init(&t, "task_0", input);
    engine_admit(m, &t);
    pthread_t thread;
    void *arg[] = {m, &t};
    assert_int_equal(pthread_create(&thread, NULL, cancel_soon, arg), 0);
    engine_step(m, &one, 1);
    int64_t took = engine_now_ns() - cancel_at;
    pthread_join(thread, NULL);
    assert_failed(&t, ENGINE_ERR_CANCELED, false, "canceled");
    print_message("canceled within %.1f ms\n", (double)took / 1e6);
    assert_true(took < 500 * NS_PER_MS); /* 50 on an idle machine; the run takes seconds */
    engine_release(m, &t);

    /* Before the run: it does not begin. */
    task_init(&t, "task_0", input);
    engine_admit(m, &t);
    engine_cancel(m, &t);
    int64_t began = engine_now_ns();
    engine_step(m, &one, 1);
    assert_true(engine_now_ns() - began < 500 * NS_PER_MS);
    assert_failed(&t, ENGINE_ERR_CANCELED, false, "canceled");
    engine_release(m, &t);
    engine_close(m);
}

static void *cancel_all(void *p)
{
    void **arg = p;
    for (int i = 0; i < 2000; i++) engine_cancel(arg[0], arg[1]);
    return NULL;
}

/* A cancel that comes as a run ends must not stop the next one. */
static void a_cancel_hits_no_other_run(void **state)
{
    (void)state;
    EngineModel *m = open_model(&repo, "lookup", &host);
    const char *input =
        "{\"inputs\":[{\"name\":\"index\",\"datatype\":\"INT64\",\"shape\":[1],\"data\":[1]}]}";
    for (int round = 0; round < 50; round++) {
        EngineTask victim, t;
        pthread_t thread;
        task_init(&victim, "task_v", input);
        engine_admit(m, &victim);
        void *arg[] = {m, &victim};
        assert_int_equal(pthread_create(&thread, NULL, cancel_all, arg), 0);
        run_all(m, &victim, 1); /* either way */
        for (int i = 0; i < 20; i++) {
            run_one(m, &t, "task_0", input);
            output_of(&t);
            engine_release(m, &t);
        }
        pthread_join(thread, NULL);
        engine_release(m, &victim);
    }
    engine_close(m);
}

static void optimised_models_are_kept(void **state)
{
    (void)state;
    char cache[200], *scratch = scratch_new();
    snprintf(cache, sizeof cache, "%s/cache", scratch); /* not there yet */
    EngineDevice device = {.threads = 1, .cache_dir = cache};
    const ModelSpec *spec = repository_find(&repo, STR("linear"), STR("1"));
    for (int round = 0; round < 3; round++) { /* made, used, and damaged */
        EngineModel *m;
        EngineError err;
        if (engine_open(spec, &device, &host.host, &m, &err)) fail_msg("%s", err.message);
        EngineTask t;
        run_one(m, &t, "task_0",
                "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1,3],"
                "\"data\":[0.5,0.25,2]}]}");
        assert_non_null(strstr(output_of(&t), "\"data\":[7,70]"));
        engine_release(m, &t);
        engine_close(m);
        struct dirent **names;
        int n = scandir(cache, &names, NULL, alphasort);
        assert_int_equal(n, 3); /* with . and .. */
        assert_non_null(strstr(names[2]->d_name, "-model.onnx-"));
        if (round == 1) put_text(cache, names[2]->d_name, "rubbish");
        for (int i = 0; i < n; i++) free(names[i]);
        free(names);
    }
    scratch_done(scratch);
}

static void a_broken_model_says_so(void **state)
{
    (void)state;
    char *d = scratch_new();
    put_text(d, "broken/1/model.onnx", "this is no protobuf");
    ModelRepository r = repository_of(d);
    EngineModel *m;
    EngineError err;
    assert_int_equal(engine_open(r.specs[0], &test_cpu, &host.host, &m, &err), ERR_INVALID);
    assert_non_null(strstr(err.message, "broken/1/model.onnx: "));
    repository_done(&r);

    /* A GPU that is none: a warning, or a refusal. */
    repository_done(&repo);
    put_text(dir, "lookup/model.yaml", "require_gpu: true\n");
    repo = repository_of(dir);
    EngineDevice gpu = {.threads = 1, .gpu = true};
    const ModelSpec *must = repository_find(&repo, STR("lookup"), STR("1"));
    assert_int_equal(engine_open(must, &test_cpu, &host.host, &m, &err), ERR_INVALID);
    assert_non_null(strstr(err.message, "requires a GPU"));
    say_setup(SAY_ERROR, SAY_TEXT, "test");
    if (engine_open(must, &gpu, &host.host, &m, &err) == 0)
        engine_close(m); /* there is one */
    else
        assert_non_null(strstr(err.message, "requires a GPU and ONNX Runtime cannot use it"));
    const ModelSpec *may = repository_find(&repo, STR("linear"), STR("1"));
    assert_int_equal(engine_open(may, &gpu, &host.host, &m, &err), 0);
    engine_close(m);
    scratch_done(d);
}

/* The descriptors of this process that are sockets. */
static int sockets(void)
{
    DIR *d = opendir("/proc/self/fd");
    struct dirent *e;
    int n = 0;
    while ((e = readdir(d))) {
        char path[300], target[100];
        snprintf(path, sizeof path, "/proc/self/fd/%s", e->d_name);
        ssize_t len = readlink(path, target, sizeof target - 1);
        n += len > 7 && memcmp(target, "socket:", 7) == 0;
    }
    closedir(d);
    return n;
}

static int files_below(const char *path)
{
    char cmd[300];
    snprintf(cmd, sizeof cmd, "find '%s' -mindepth 1 | wc -l", path);
    FILE *f = popen(cmd, "r");
    int n = -1;
    assert_int_equal(fscanf(f, "%d", &n), 1);
    pclose(f);
    return n;
}

/* Runs first: from the library's very opening on. */
static void nothing_is_reported_to_anybody(void **state)
{
    (void)state;
    char *home = scratch_new();
    int before = sockets();
    setenv("HOME", home, 1);
    setenv("XDG_CACHE_HOME", home, 1);
    setenv("XDG_DATA_HOME", home, 1);
    setenv("TMPDIR", home, 1);
    setenv("ORT_DISABLE_TELEMETRY", "0", 1); /* whatever the operator's environment says */
    EngineModel *m = open_model(&repo, "lookup", &host);
    assert_string_equal(getenv("ORT_DISABLE_TELEMETRY"), "1");
    for (int i = 0; i < 50; i++) {
        EngineTask t;
        run_one(m, &t, "task_0",
                "{\"inputs\":[{\"name\":\"index\",\"datatype\":\"INT64\",\"shape\":[1],"
                "\"data\":[1]}]}");
        output_of(&t);
        engine_release(m, &t);
        if (i % 10 == 0) usleep(50000);
        assert_int_equal(sockets(), before);
    }
    engine_close(m);
    assert_int_equal(sockets(), before);
    assert_int_equal(files_below(home), 0);
    scratch_done(home);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_reported_to_anybody),
        cmocka_unit_test(is_found_and_says_where),
        cmocka_unit_test(every_type_through_a_model),
        cmocka_unit_test(rows_are_shared_and_given_back),
        cmocka_unit_test(a_bad_task_spoils_no_other),
        cmocka_unit_test(files_carry_what_is_large),
        cmocka_unit_test(a_cancel_stops_a_run),
        cmocka_unit_test(a_cancel_hits_no_other_run),
        cmocka_unit_test(optimised_models_are_kept),
        cmocka_unit_test(a_broken_model_says_so),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
