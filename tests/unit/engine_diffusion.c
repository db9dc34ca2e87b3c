/* The diffusion engine on the small real model: its graphs against the arrays they were exported
 * with, and that a seed is a picture, alone, in a crowd, and after a move. */
#include <png.h>

#include "engine/onnx_runtime.h"
#include "engine/sampler.h"
#include "unit/engine_onnx_writer.h"
#include "unit/engine_support.h"

#define DATA HR_SOURCE_DIR "/tests/data/fashion-diffusion/"

static TestHost host;
static ModelRepository repo;
static EngineModel *model;

static int set_up(void **state)
{
    (void)state;
    host_init(&host);
    Buf problems = {0};
    assert_int_equal(repository_scan(&repo, HR_SOURCE_DIR "/examples/models", &problems), 0);
    buf_done(&problems);
    model = open_model(&repo, "fashion-diffusion", &host);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    engine_close(model);
    repository_done(&repo);
    host_done(&host);
    return 0;
}

/* ---- the graphs ---- */

static Tensor reference(const char *file, ElementType type, size_t rank, const int64_t *dims)
{
    Tensor t = {.type = type};
    char path[300];
    snprintf(path, sizeof path, "%sref_%s.bin", DATA, file);
    assert_int_equal(file_read(path, MIB, &t.data), 0);
    assert_int_equal(tensor_shape_set(&t, rank, dims), 0);
    assert_int_equal(t.data.len, t.count * element_size(type));
    return t;
}

static double run_graph(const char *file, Tensor *in, size_t n, Tensor *want)
{
    OnnxSession s;
    OnnxRun run;
    EngineError err;
    Tensor inputs[3] = {0}, out = {0};
    assert_int_equal(onnx_run_init(&run, &err), 0);
    assert_int_equal(onnx_session_open(model, file, &s, &err), 0);
    assert_int_equal(s.inputs_len, n);
    for (size_t i = 0; i < n; i++) inputs[i] = in[i];
    assert_int_equal(onnx_session_run(&s, &run, NULL, 0, inputs, &out, &err), 0);
    assert_int_equal(out.count, want->count);
    const float *a = (const float *)(const void *)out.data.data;
    const float *b = (const float *)(const void *)want->data.data;
    double worst = 0;
    for (size_t i = 0; i < out.count; i++) {
        double difference = (double)a[i] - (double)b[i];
        worst = MAX(worst, difference < 0 ? -difference : difference);
    }
    print_message("%s differs by at most %.2g\n", file, worst);
    tensor_done(&out);
    onnx_session_close(&s);
    onnx_run_done(&run);
    return worst;
}

static void graphs_agree_with_their_references(void **state)
{
    (void)state;
    Tensor tok = reference("tok", ELEMENT_INT64, 2, (int64_t[]){3, 10});
    Tensor c = reference("c", ELEMENT_FP32, 3, (int64_t[]){3, 10, 128});
    Tensor x = reference("x", ELEMENT_FP32, 4, (int64_t[]){3, 4, 8, 8});
    Tensor t = reference("t", ELEMENT_FP32, 1, (int64_t[]){3});
    Tensor v = reference("v", ELEMENT_FP32, 4, (int64_t[]){3, 4, 8, 8});
    Tensor im = reference("im", ELEMENT_FP32, 4, (int64_t[]){3, 3, 32, 32});
    assert_true(run_graph("text_encoder.onnx", &tok, 1, &c) < 1e-4);
    assert_true(run_graph("unet.onnx", (Tensor[]){x, t, c}, 3, &v) < 1e-4);
    assert_true(run_graph("vae_decoder.onnx", &x, 1, &im) < 1e-4);
    Tensor *all[] = {&tok, &c, &x, &t, &v, &im};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) tensor_done(all[i]);
}

/* ---- drawings ---- */

#define SNEAKER "\"prompt\":\"a red sneaker on white background\""

/* The pixels of put k. */
static void pixels_of(size_t k, uint8_t rgb[32 * 32 * 3])
{
    png_image image = {.version = PNG_IMAGE_VERSION};
    assert_true(png_image_begin_read_from_memory(&image, host.puts[k].data, host.puts[k].len));
    assert_int_equal(image.width, 32);
    assert_int_equal(image.height, 32);
    image.format = PNG_FORMAT_RGB;
    assert_true(png_image_finish_read(&image, NULL, rgb, 0, NULL));
}

static void forget_files(void)
{
    for (size_t i = 0; i < host.len; i++) buf_done(&host.puts[i]);
    host.len = 0;
}

static void draws_a_red_sneaker(void **state)
{
    (void)state;
    EngineTask t;
    forget_files();
    run_one(model, &t, "task_1", "{" SNEAKER ",\"seed\":5,\"images\":2}");
    char want[300];
    snprintf(want, sizeof want,
             "{\"images\":[{\"$file\":\"file_0\",\"content_type\":\"image/png\",\"size\":%zu,"
             "\"width\":32,\"height\":32},{\"$file\":\"file_1\",\"content_type\":\"image/png\","
             "\"size\":%zu,\"width\":32,\"height\":32}],\"seed\":5,\"steps\":20}",
             host.puts[0].len, host.puts[1].len);
    assert_string_equal(output_of(&t), want);
    assert_int_equal(t.step, 20);
    assert_int_equal(t.steps, 20);
    assert_true(t.device_ns > 0);
    engine_release(model, &t);
    for (size_t k = 0; k < 2; k++) {
        uint8_t rgb[32 * 32 * 3];
        pixels_of(k, rgb);
        size_t white = 0, red = 0;
        for (size_t i = 0; i < sizeof rgb; i += 3) {
            white += rgb[i] > 225 && rgb[i + 1] > 225 && rgb[i + 2] > 225;
            red += rgb[i] > 120 && rgb[i + 1] < 90 && rgb[i + 2] < 90;
        }
        print_message("%zu white pixels, %zu red ones\n", white, red);
        assert_true(white > 300 && red > 80); /* of 1,024 */
    }
    /* Picture k of a seed is picture 0 of seed + k. */
    run_one(model, &t, "task_1", "{" SNEAKER ",\"seed\":6}");
    engine_release(model, &t);
    assert_int_equal(host.puts[2].len, host.puts[1].len);
    assert_memory_equal(host.puts[2].data, host.puts[1].data, host.puts[1].len);
    /* Without a seed it is the task's own. */
    run_one(model, &t, "task_7", "{" SNEAKER ",\"steps\":4}");
    engine_release(model, &t);
    t.attempt = 2;
    engine_admit(model, &t);
    run_all(model, &t, 1);
    engine_release(model, &t);
    assert_memory_equal(host.puts[3].data, host.puts[4].data, host.puts[3].len);
    run_one(model, &t, "task_8", "{" SNEAKER ",\"steps\":4}");
    engine_release(model, &t);
    assert_true(host.puts[5].len != host.puts[3].len ||
                memcmp(host.puts[5].data, host.puts[3].data, host.puts[3].len) != 0);
}

/* Latents, not pixels: what a picture hides. The checkpoint before the last step holds them. */
static void state_of(EngineTask *t, Buf *ret)
{
    buf_clear(ret);
    assert_int_equal(engine_checkpoint(model, t, ret), 0);
}

static const char *const crowd[] = {
    "{" SNEAKER ",\"seed\":1,\"steps\":9}",
    "{\"prompt\":\"A blue dress, on gray background.\",\"seed\":2,\"steps\":7,\"images\":3}",
    "{\"prompt\":\"a bag\",\"seed\":3,\"steps\":11,\"guidance\":1}",
    "{\"prompt\":\"\",\"seed\":4,\"steps\":8,\"guidance\":0,\"solver\":\"euler\"}",
    "{\"prompt\":\"a green boot on cream background\",\"seed\":5,\"steps\":10,\"images\":8,"
    "\"guidance\":7.5}",
    "{\"prompt\":\"a teal coat\",\"seed\":6,\"steps\":6,\"images\":8,\"solver\":\"euler\"}",
};

static void a_seed_is_a_picture_alone_and_in_a_crowd(void **state)
{
    (void)state;
    enum { N = ARRAY_LEN(crowd) };
    Buf alone[N] = {0}, pictures[N] = {0}, now = {0};
    EngineTask t[N];
    for (size_t i = 0; i < N; i++) { /* alone, until one step is left */
        forget_files();
        task_init(&t[i], "task_1", crowd[i]);
        engine_admit(model, &t[i]);
        EngineTask *one = &t[i];
        while (t[i].step + 1 < t[i].steps) engine_step(model, &one, 1);
        state_of(&t[i], &alone[i]);
        engine_step(model, &one, 1);
        output_of(&t[i]);
        engine_release(model, &t[i]);
        for (size_t k = 0; k < host.len; k++) buf_put_str(&pictures[i], buf_str(&host.puts[k]));
    }
    /* Together, each joining a step after the one before; 38 rows at most: two runs a step. */
    EngineTask *active[N];
    size_t joined = 0, left = N, checked = 0;
    while (left) {
        if (joined < N) {
            task_init(&t[joined], "task_1", crowd[joined]);
            engine_admit(model, &t[joined++]);
        }
        size_t n = 0;
        for (size_t i = 0; i < joined; i++)
            if (t[i].state == ENGINE_TASK_ACTIVE) active[n++] = &t[i];
        for (size_t i = 0; i < n; i++) { /* one that ends in this step writes its files alone */
            size_t who = (size_t)(active[i] - t);
            if (active[i]->step + 1 < active[i]->steps) continue;
            state_of(active[i], &now);
            assert_int_equal(now.len, alone[who].len);
            assert_memory_equal(now.data, alone[who].data, now.len);
            checked++;
        }
        forget_files();
        engine_step(model, active, n);
        size_t file = 0;
        for (size_t i = 0; i < n; i++) {
            if (active[i]->state == ENGINE_TASK_ACTIVE) continue;
            output_of(active[i]);
            size_t who = (size_t)(active[i] - t), at = 0;
            for (; at < pictures[who].len; file++) {
                assert_memory_equal(host.puts[file].data, pictures[who].data + at,
                                    host.puts[file].len);
                at += host.puts[file].len;
            }
            left--;
        }
    }
    assert_int_equal(checked, N);
    for (size_t i = 0; i < N; i++) {
        engine_release(model, &t[i]);
        buf_done(&alone[i]);
        buf_done(&pictures[i]);
    }
    buf_done(&now);
}

static void a_checkpoint_goes_on_elsewhere_bit_by_bit(void **state)
{
    (void)state;
    TestHost other_host;
    host_init(&other_host);
    EngineModel *other = open_model(&repo, "fashion-diffusion", &other_host);
    for (size_t i = 0; i < ARRAY_LEN(crowd); i++) {
        EngineTask a, b;
        EngineTask *one = &a;
        Buf checkpoint = {0}, none = {0};
        forget_files();
        task_init(&a, "task_1", crowd[i]);
        engine_admit(model, &a);
        assert_int_equal(engine_checkpoint(model, &a, &none), ERR_AGAIN);
        for (int s = 0; s < 3; s++) engine_step(model, &one, 1);
        assert_int_equal(engine_checkpoint(model, &a, &checkpoint), 0);
        run_all(model, &a, 1);
        output_of(&a);

        task_init(&b, "task_1", crowd[i]);
        engine_admit(other, &b);
        assert_int_equal(engine_resume(other, &b, (Str){(char *)checkpoint.data, 60}), ERR_INVALID);
        assert_int_equal(b.step, 0);
        assert_int_equal(engine_resume(other, &b, buf_str(&checkpoint)), 0);
        assert_int_equal(b.step, 3);
        run_all(other, &b, 1);
        assert_string_equal(output_of(&a), output_of(&b));
        for (size_t k = 0; k < host.len; k++)
            assert_memory_equal(host.puts[k].data, other_host.puts[k].data, host.puts[k].len);
        engine_release(model, &a);
        engine_release(other, &b);

        /* Another task's is refused. */
        task_init(&b, "task_1", crowd[(i + 1) % ARRAY_LEN(crowd)]);
        engine_admit(other, &b);
        assert_int_equal(engine_resume(other, &b, buf_str(&checkpoint)), ERR_INVALID);
        engine_release(other, &b);
        if (i == 0) print_message("a checkpoint has %zu bytes\n", checkpoint.len);
        buf_done(&checkpoint);
        host_done(&other_host);
        host_init(&other_host);
    }
    engine_close(other);
    host_done(&other_host);
}

static void wrong_inputs_are_told_what_is_right(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"[]", "must be an object such as {\"prompt\""},
        {"{}", "'prompt' must be a text"},
        {"{\"prompt\":3}", "'prompt' must be a text"},
        {"{\"promt\":\"a bag\"}", "unknown field 'promt'; did you mean 'prompt'?"},
        {"{\"prompt\":\"a bag\",\"negative\":1}", "the model takes prompt, steps, guidance"},
        {"{\"prompt\":\"a rad bag\"}", "unknown word 'rad'; did you mean 'red'?; the model knows: "
                                       "a, on, background, red, orange"},
        {"{\"prompt\":\"a spaceship\"}", "unknown word 'spaceship'"},
        {"{\"prompt\":\"<pad>\"}", "unknown word '<pad>'"},
        {"{\"prompt\":\"a a a a a a a a a\"}", "has 9 words; the model takes at most 8"},
        {"{\"prompt\":\"a\",\"steps\":0}", "'steps' must be a whole number from 1 to 100"},
        {"{\"prompt\":\"a\",\"steps\":101}", "'steps' must be a whole number from 1 to 100"},
        {"{\"prompt\":\"a\",\"steps\":2.5}", "'steps' must be"},
        {"{\"prompt\":\"a\",\"images\":9}", "'images' must be a whole number from 1 to 8"},
        {"{\"prompt\":\"a\",\"guidance\":-1}", "'guidance' must be a number from 0 to 20"},
        {"{\"prompt\":\"a\",\"guidance\":\"3\"}", "'guidance' must be"},
        {"{\"prompt\":\"a\",\"seed\":-1}", "'seed' must be a whole number from 0 to 9223372036854"},
        {"{\"prompt\":\"a\",\"solver\":\"ab3\"}", "\"euler\" or \"ab2\"; did you mean 'ab2'?"},
        {"{\"prompt\":\"a\",\"solver\":7}", "'solver' must be"},
        {"{\"prompt\":", "must be an object"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        EngineTask t;
        run_one(model, &t, "task_1", cases[i][0]);
        assert_failed(&t, ENGINE_ERR_BAD_INPUT, false, cases[i][1]);
        engine_release(model, &t);
    }
}

static void a_cancel_leaves_the_others(void **state)
{
    (void)state;
    EngineTask t[2];
    EngineTask *both[] = {&t[0], &t[1]};
    for (int i = 0; i < 2; i++) {
        task_init(&t[i], "task_1", crowd[0]);
        engine_admit(model, &t[i]);
    }
    engine_step(model, both, 2);
    engine_cancel(model, &t[0]);
    engine_step(model, both, 2);
    assert_failed(&t[0], ENGINE_ERR_CANCELED, false, "canceled");
    assert_int_equal(t[1].step, 2);
    forget_files();
    run_all(model, &t[1], 1);
    output_of(&t[1]);
    for (int i = 0; i < 2; i++) engine_release(model, &t[i]);
}

/* Loaded from the cache of optimised models, and on one thread instead of two. */
static void an_optimised_copy_draws_the_same(void **state)
{
    (void)state;
    char *dir = scratch_new();
    EngineDevice device = {.threads = 2, .cache_dir = dir};
    forget_files();
    EngineTask t;
    run_one(model, &t, "task_1", crowd[0]);
    engine_release(model, &t);
    for (int round = 0; round < 3; round++) { /* made, used, used */
        EngineModel *m;
        EngineError err;
        device.threads = round == 2 ? 1 : 2;
        int64_t began = engine_now_ns();
        if (engine_open(model->spec, &device, &host.host, &m, &err)) fail_msg("%s", err.message);
        print_message("loaded in %.0f ms\n", (double)(engine_now_ns() - began) / 1e6);
        run_one(m, &t, "task_1", crowd[0]);
        engine_release(m, &t);
        engine_close(m);
        assert_int_equal(host.len, round + 2);
        assert_int_equal(host.puts[0].len, host.puts[round + 1].len);
        assert_memory_equal(host.puts[0].data, host.puts[round + 1].data, host.puts[0].len);
    }
    scratch_done(dir);
}

/* More prompts than the cache keeps, with drawings that still use the oldest. */
static void prompts_are_cached_and_pushed_out(void **state)
{
    (void)state;
    static const char *const items[] = {"t-shirt", "trousers", "pullover", "dress", "coat",
                                        "sandal",  "shirt",    "sneaker",  "bag",   "boot"};
    static const char *const colours[] = {"red",  "orange", "yellow", "green", "teal",
                                          "blue", "purple", "pink",   "brown"};
    EngineTask first, t;
    forget_files();
    task_init(&first, "task_1", crowd[0]);
    engine_admit(model, &first);
    for (size_t i = 0; i < 90; i++) {
        char input[100];
        snprintf(input, sizeof input, "{\"prompt\":\"a %s %s\"}", colours[i / 10], items[i % 10]);
        task_init(&t, "task_2", input);
        engine_admit(model, &t);
        assert_int_equal(t.state, ENGINE_TASK_ACTIVE);
        engine_release(model, &t);
    }
    run_all(model, &first, 1);
    output_of(&first);
    engine_release(model, &first);
    run_one(model, &t, "task_1", crowd[0]);
    engine_release(model, &t);
    assert_memory_equal(host.puts[0].data, host.puts[1].data, host.puts[0].len);
}

static void describes_and_measures(void **state)
{
    (void)state;
    Buf text = {0};
    engine_describe(model, &text);
    assert_non_null(strstr(buf_z(&text), "\"name\":\"steps\",\"type\":\"integer\",\"minimum\":1,"
                                         "\"maximum\":100,\"default\":20"));
    buf_done(&text);
    for (uint32_t batch = 1; batch <= 16; batch *= 2) {
        int64_t ns;
        assert_int_equal(engine_measure(model, batch, &ns), 0);
        print_message("batch %2u: %.1f ms a step, %.1f images/s of 20 steps\n", batch,
                      (double)ns / 1e6, batch * 1e9 / (20.0 * (double)ns));
    }
}

static void a_model_that_does_not_fit_says_so(void **state)
{
    (void)state;
    static const struct {
        const char *yaml, *message;
    } cases[] = {
        {"tokens: 12, latent: [4, 8, 8]", "text_encoder.onnx takes input_ids INT64["},
        {"tokens: 10, latent: [4, 8, 16]", "unet.onnx takes sample FP32["},
        {"tokens: 10, latent: [4, 8, 8], tokenizer: words.txt", "words.txt: cannot be read"},
        {"tokens: 10, latent: [4, 8, 8], tokenizer: none.txt", "a line each for <pad>"},
    };
    const char *files[] = {"text_encoder.onnx", "unet.onnx", "vae_decoder.onnx", "vocab.txt"};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *d = scratch_new(), yaml[300];
        snprintf(yaml, sizeof yaml, "engine: diffusion\ndiffusion: {image: [3, 32, 32], %s}\n",
                 cases[i].yaml);
        put_text(d, "m/model.yaml", yaml);
        put_text(d, "m/1/none.txt", "a\nb");
        for (size_t k = 0; k < ARRAY_LEN(files); k++) {
            char from[300], to[300];
            snprintf(from, sizeof from, "%s/examples/models/fashion-diffusion/1/%s", HR_SOURCE_DIR,
                     files[k]);
            snprintf(to, sizeof to, "%s/m/1/%s", d, files[k]);
            assert_int_equal(symlink(from, to), 0);
        }
        ModelRepository r = repository_of(d);
        EngineModel *m;
        EngineError err;
        assert_int_equal(engine_open(r.specs[0], &test_cpu, &host.host, &m, &err), ERR_INVALID);
        if (!strstr(err.message, cases[i].message)) fail_msg("%s", err.message);
        repository_done(&r);
        scratch_done(d);
    }
}

/* ---- a denoiser with one timestep for all its rows, as diffusers exports them ---- */

static void put_graph(const char *dir, const char *name, Buf graph)
{
    char file[100];
    Buf model_bytes = onnx_model(graph);
    snprintf(file, sizeof file, "scalar/1/%s", name);
    put_bytes(dir, file, model_bytes.data, model_bytes.len);
    buf_done(&model_bytes);
}

/* Velocity = sample · t, and the pictures show the latents. */
static void put_scalar_model(const char *dir)
{
    static const int64_t axis[] = {2}, channels[] = {0, 1, 0};
    Buf encoder = {0}, denoiser = {0}, decoder = {0};
    onnx_constant(&encoder, "axis", ONNX_INT64, (int64_t[]){1}, 1, axis, sizeof axis);
    onnx_node(&encoder, "Cast", "input_ids", "floats", "to", ONNX_FLOAT);
    onnx_node(&encoder, "Unsqueeze", "floats,axis", "last_hidden_state", NULL, 0);
    onnx_value(&encoder, false, "input_ids", ONNX_INT64, "batch,5");
    onnx_value(&encoder, true, "last_hidden_state", ONNX_FLOAT, "batch,5,1");
    put_graph(dir, "text_encoder.onnx", encoder);
    onnx_node(&denoiser, "Mul", "sample,timestep", "out_sample", NULL, 0);
    onnx_value(&denoiser, false, "encoder_hidden_states", ONNX_FLOAT, "batch,5,1");
    onnx_value(&denoiser, false, "timestep", ONNX_FLOAT, "");
    onnx_value(&denoiser, false, "sample", ONNX_FLOAT, "batch,2,2,2");
    onnx_value(&denoiser, true, "out_sample", ONNX_FLOAT, "batch,2,2,2");
    put_graph(dir, "unet.onnx", denoiser);
    onnx_constant(&decoder, "channels", ONNX_INT64, (int64_t[]){3}, 1, channels, sizeof channels);
    onnx_node(&decoder, "Gather", "latent_sample,channels", "sample", "axis", 1);
    onnx_value(&decoder, false, "latent_sample", ONNX_FLOAT, "batch,2,2,2");
    onnx_value(&decoder, true, "sample", ONNX_FLOAT, "batch,3,2,2");
    put_graph(dir, "vae_decoder.onnx", decoder);
    put_text(dir, "scalar/1/vocab.txt", "<pad>\r\n<bos>\r\n<eos>\r\nred");
    put_text(dir, "scalar/model.yaml",
             "engine: diffusion\ndiffusion: {tokens: 5, latent: [2, 2, 2], image: [3, 2, 2], "
             "timestep_scale: 1}\n");
}

/* The latent after `steps` steps of Euler, as the model's graphs make it. */
static void expected_latent(uint64_t seed, uint32_t step, uint32_t steps, float x[8])
{
    sampler_noise(seed, x, 8);
    for (uint32_t s = 0; s < step; s++)
        for (int i = 0; i < 8; i++)
            x[i] = x[i] - 1 / (float)steps * (x[i] * (float)sampler_time(s, steps));
}

static void a_scalar_timestep_goes_by_groups(void **state)
{
    (void)state;
    static const char *const inputs[] = {
        "{\"prompt\":\"red\",\"seed\":1,\"steps\":4,\"solver\":\"euler\",\"guidance\":1}",
        "{\"prompt\":\"red\",\"seed\":2,\"steps\":8,\"solver\":\"euler\",\"guidance\":1}",
        "{\"prompt\":\"Red!\",\"seed\":3,\"steps\":4,\"solver\":\"euler\",\"guidance\":1}"};
    static const uint32_t steps[] = {4, 8, 4};
    char *dir = scratch_new();
    put_scalar_model(dir);
    ModelRepository r = repository_of(dir);
    EngineModel *m = open_model(&r, "scalar", &host);
    EngineTask t[3];
    EngineTask *all[3];
    for (int i = 0; i < 3; i++) {
        task_init(&t[i], "task_1", inputs[i]);
        engine_admit(m, &t[i]);
        all[i] = &t[i];
    }
    for (int s = 0; s < 3; s++) engine_step(m, all, 3);
    for (int i = 0; i < 3; i++) {
        float x[8];
        Buf checkpoint = {0};
        assert_int_equal(engine_checkpoint(m, &t[i], &checkpoint), 0);
        expected_latent((uint64_t)i + 1, 3, steps[i], x);
        assert_memory_equal(checkpoint.data + checkpoint.len - sizeof x, x, sizeof x);
        buf_done(&checkpoint);
    }
    forget_files();
    run_all(m, t, 3);
    assert_int_equal(host.len, 3);
    for (int i = 0; i < 3; i++) {
        output_of(&t[i]);
        engine_release(m, &t[i]);
    }
    engine_close(m);
    repository_done(&r);
    scratch_done(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(graphs_agree_with_their_references),
        cmocka_unit_test(draws_a_red_sneaker),
        cmocka_unit_test(a_seed_is_a_picture_alone_and_in_a_crowd),
        cmocka_unit_test(a_checkpoint_goes_on_elsewhere_bit_by_bit),
        cmocka_unit_test(wrong_inputs_are_told_what_is_right),
        cmocka_unit_test(a_cancel_leaves_the_others),
        cmocka_unit_test(prompts_are_cached_and_pushed_out),
        cmocka_unit_test(describes_and_measures),
        cmocka_unit_test(a_model_that_does_not_fit_says_so),
        cmocka_unit_test(a_scalar_timestep_goes_by_groups),
        cmocka_unit_test(an_optimised_copy_draws_the_same),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
