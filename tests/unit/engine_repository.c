/* The model repository and model.yaml: what a wrong one is told. */
#include "engine/model_yaml.h"
#include "unit/engine_support.h"

static void scan_gives(const char *dir, size_t models, const char *const *lines)
{
    ModelRepository repo = {0};
    Buf problems = {0};
    assert_int_equal(repository_scan(&repo, dir, &problems), 0);
    const char *text = buf_z(&problems);
    size_t n = 0, want = 0;
    for (const char *p = text; (p = strchr(p, '\n')); p++) n++;
    for (; lines[want]; want++)
        if (!strstr(text, lines[want])) fail_msg("'%s' is not in:\n%s", lines[want], text);
    if (n != want || repo.len != models)
        fail_msg("%zu problems, %zu models:\n%s", n, repo.len, text);
    buf_done(&problems);
    repository_done(&repo);
}

static void reads_a_repository(void **state)
{
    (void)state;
    char *dir = scratch_new();
    put_text(dir, "plain/1/model.onnx", "x");
    put_text(dir, "plain/2/model.onnx", "xy");
    put_text(dir, "plain/10/model.onnx", "x");
    put_text(dir, "plain/10/weights/part.bin", "123");
    put_text(dir, "prog/model.yaml",
             "engine: exec\ndescription: \"a program\"\nmax_batch: 4\n"
             "batch_delay_ms: 20\nmin_warm: 2\n"
             "memory: 2 GiB\nexec:\n  command: [python3, model.py]\n  timeout_s: 9\n");
    put_text(dir, "prog/3/model.py", "");
    put_text(dir, "prog/3/__pycache__/x.pyc", "");
    put_text(dir, ".git/1/model.onnx", "");
    put_text(dir, "README.md", "no folder");

    ModelRepository repo = repository_of(dir), again = repository_of(dir);
    assert_int_equal(repo.len, 4);
    assert_string_equal(repo.specs[0]->version, "1");
    assert_string_equal(repo.specs[1]->version, "2");
    assert_string_equal(repo.specs[2]->version, "10"); /* as a number */
    assert_string_equal(repo.specs[0]->engine, "onnx");
    assert_false(repo.specs[0]->continuous);
    assert_true(repo.specs[0]->memory_bytes > 0);
    assert_int_equal(repo.specs[0]->dir[0], '/');
    const ModelSpec *prog = repository_find(&repo, STR("prog"), STR("3"));
    assert_ptr_equal(prog, repo.specs[3]);
    assert_string_equal(prog->description, "a program");
    assert_int_equal(prog->max_batch, 4);
    assert_int_equal(prog->batch_delay_ms, 20);
    assert_int_equal(prog->min_warm, 2);
    assert_int_equal(prog->memory_bytes, 2 * GIB);
    assert_true(prog->continuous);
    const ModelYaml *y = prog->yaml;
    assert_int_equal(y->exec.command.len, 2);
    assert_string_equal(y->exec.command.at[1], "model.py");
    assert_null(y->exec.command.at[2]);
    assert_int_equal(y->exec.timeout_s, 9);
    assert_int_equal(y->exec.start_timeout_s, 60);
    assert_string_equal(repository_find(&repo, STR("plain"), (Str){0})->version, "10");
    assert_null(repository_find(&repo, STR("plain"), STR("3")));
    assert_null(repository_find(&repo, STR("plai"), STR("1")));

    /* The digest tells contents, names and the yaml apart, and nothing else. */
    for (size_t i = 0; i < 4; i++)
        assert_memory_equal(&repo.specs[i]->digest, &again.specs[i]->digest, sizeof(Sha256));
    repository_done(&again);
    put_text(dir, "prog/3/__pycache__/y.pyc", "");
    put_text(dir, "plain/10/weights/part.bin", "124");
    again = repository_of(dir);
    assert_memory_equal(&repo.specs[3]->digest, &again.specs[3]->digest, sizeof(Sha256));
    assert_memory_not_equal(&repo.specs[2]->digest, &again.specs[2]->digest, sizeof(Sha256));
    repository_done(&again);
    put_text(dir, "prog/model.yaml", "engine: exec\nexec: {command: [a]}\n");
    again = repository_of(dir);
    assert_memory_not_equal(&repo.specs[3]->digest, &again.specs[3]->digest, sizeof(Sha256));
    repository_done(&again);

    /* The built-in echo, and one scanned twice: the first stays. */
    repository_add_echo(&repo);
    repository_add_echo(&repo);
    assert_int_equal(repo.len, 5);
    assert_null(repository_find(&repo, STR("echo"), STR("1"))->dir);
    Buf problems = {0};
    assert_int_equal(repository_scan(&repo, dir, &problems), 0);
    assert_int_equal(repo.len, 5);
    assert_non_null(strstr(buf_z(&problems), "model plain:2 is there already"));
    buf_done(&problems);
    repository_done(&repo);
    scratch_done(dir);
}

static void a_fault_is_told_and_spoils_no_other(void **state)
{
    (void)state;
    char *dir = scratch_new();
    put_text(dir, "good/1/model.onnx", "x");
    put_text(dir, "a b/1/model.onnx", "x");
    put_text(dir, "empty/readme", "");
    put_text(dir, "zero/01/model.onnx", "");
    put_text(dir, "bare/1/weights", "");
    put_text(dir, "short/1/unet.onnx", "");
    put_text(dir, "short/model.yaml",
             "engine: diffusion\ndiffusion: {tokens: 10, "
             "latent: [4, 8, 8], image: [3, 32, 32]}\n");
    put_text(dir, "typo/1/model.onnx", "");
    put_text(dir, "typo/2/model.onnx", "");
    put_text(dir, "typo/model.yaml", "engine: onnx\ndescription: x\nmax_bach: 3\n");
    put_text(dir, "yml/1/model.onnx", "");
    put_text(dir, "yml/model.yml", "engine: onnx\n");
    const char *const lines[] = {
        "a b: a model's name is",
        "empty: has no version folder",
        "zero: has no version folder",
        "bare/1: has no model.onnx; for another engine write",
        "short/1: has no text_encoder.onnx, which engine 'diffusion' needs",
        "typo/model.yaml:3: unknown key 'max_bach'; did you mean 'max_batch'?",
        "yml/model.yml: must be called model.yaml",
        NULL,
    };
    scan_gives(dir, 1, lines);
    ModelRepository repo = {0};
    Buf problems = {0};
    assert_int_equal(repository_scan(&repo, "/nowhere/at/all", &problems), ERR_NOT_FOUND);
    scratch_done(dir);
}

static void says(const char *yaml, const char *part)
{
    ModelYaml y;
    Buf problems = {0};
    int err = model_yaml_parse("m/model.yaml", str_from(yaml), &y, &problems);
    if (err != ERR_INVALID || !strstr(buf_z(&problems), part))
        fail_msg("%s\ngave %d:\n%s\nnot '%s'", yaml, err, buf_z(&problems), part);
    buf_done(&problems);
}

static void accepts(const char *yaml)
{
    ModelYaml y;
    Buf problems = {0};
    if (model_yaml_parse("m/model.yaml", str_from(yaml), &y, &problems))
        fail_msg("%s\nrefused:\n%s", yaml, buf_z(&problems));
    model_yaml_done(&y);
    buf_done(&problems);
}

static void yaml_errors_name_line_key_and_remedy(void **state)
{
    (void)state;
    accepts("");
    accepts("# nothing\n");
    accepts("engine: echo\n");
    accepts("memory: 1073741824\nrequire_gpu: true\nonnx: {batch: false}\n");
    says("engine: onx\n", "unknown engine 'onx'; did you mean 'onnx'?");
    says("engine: tensorrt\n", "it is onnx, diffusion, exec or echo");
    says("a: [1\nb: 2\n", "m/model.yaml:2:");
    says("\tx: 1\n", "m/model.yaml:1:");
    says("- 1\n", "m/model.yaml:1: must hold keys with values");
    says("[1]: 2\n", "a key must be a word");
    says("max_batch: 0\n", ":1: 'max_batch' must be a whole number from 1 to 1024, not '0'");
    says("\n\nmax_batch: many\n", ":3: 'max_batch' must be a whole number");
    says("max_batch: [1]\n", "'max_batch' must be a single value");
    says("max_batch: 1\nmax_batch: 2\n", ":2: key 'max_batch' is given twice");
    says("memory: 3 GB\n", "'memory' must be a size such as 512MiB");
    says("memory: 99999999999999 TiB\n", "'memory' must be a size");
    says("require_gpu: yes\n", "'require_gpu' must be true or false, not 'yes'");
    says("colour: red\n", "unknown key 'colour'; known here: engine, description");
    says("engine: exec\n", "needs its program");
    says("engine: exec\nexec:\n  comand: [x]\n", ":3: unknown key 'comand'; did you mean 'com");
    says("engine: exec\nexec: 3\n", ":2: 'exec' must hold keys with values");
    says("engine: exec\nexec: {command: []}\n", "a list of 1 to 256 texts");
    says("engine: exec\nexec: {command: [[x]]}\n", "item 1 of 'command' must be a text");
    says("engine: exec\nexec: {command: [x]}\ndiffusion: {tokens: 5}\n",
         "section 'diffusion' is for models of 'engine: diffusion'; this one is of 'exec'");
    says("engine: diffusion\n", "needs diffusion.tokens");
    says("engine: diffusion\ndiffusion: {latent: [4, 8]}\n", "must be [channels, height, width]");
    says("engine: diffusion\ndiffusion: {timestep_scale: nan}\n", "a number from 1e-06 to 1e+06");
    says("engine: diffusion\ndiffusion: {tokens: 9, latent: [4, 8, 8], image: [1, 8, 8]}\n",
         "must have 3 channels");
    says("engine: diffusion\ndiffusion: {tokens: 9, latent: [4, 8, 8], image: [3, 8, 8],\n"
         "  defaults: {solver: eular}}\n",
         "'eular'; euler");
    says("engine: diffusion\ndiffusion: {tokens: 9, latent: [4, 8, 8], image: [3, 8, 8],\n"
         "  defaults: {steps: 50}, limits: {steps: 40}}\n",
         "over its own in diffusion.limits");
    /* Two faults, two lines; a ring of aliases ends. */
    says("max_bach: 1\nengin: onnx\n", ":2: unknown key 'engin'; did you mean 'engine'");
    says("&a onnx: &b {batch: *b}\n*a : 1\n", "'batch' must be a single value");
    says("onnx: &a\n  onnx: *a\n", "unknown key 'onnx'");

    Buf big = {0};
    while (big.len <= MODEL_YAML_MAX) buf_puts(&big, "# long\n");
    says(buf_z(&big), "is longer than 64 KiB");
    buf_done(&big);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_repository),
        cmocka_unit_test(a_fault_is_told_and_spoils_no_other),
        cmocka_unit_test(yaml_errors_name_line_key_and_remedy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
