/* repository.c: folders to ModelSpecs. Reads names, model.yaml and, for the digest and the size,
 * every byte of every version once. */
#include "engine/inside.h"
#include "engine/model_yaml.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    NAME_MAX_LEN = 128,
    DEPTH_MAX = 8,      /* of folders in a version */
    FILES_MAX = 10000,  /* of a version: a virtual environment in there is a mistake */
    MODELS_MAX = 10000, /* of a repository */
};

/* What ONNX Runtime needs beside the weights: itself and its arena. Seen with the small models. */
#define MEMORY_BASE (64 * MIB)

/* ---- names ---- */

typedef struct {
    char **at;
    size_t len, cap;
} Names;

static void names_add(Names *n, const char *name)
{
    if (n->len == n->cap) {
        n->cap = n->cap * 2 + 16;
        n->at = mem_grow(n->at, n->cap * sizeof *n->at);
    }
    n->at[n->len++] = mem_dup(name, strlen(name));
}

static int names_cmp(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void names_sort(Names *n)
{
    if (n->len) qsort(n->at, n->len, sizeof *n->at, names_cmp);
}

static void names_done(Names *n)
{
    for (size_t i = 0; i < n->len; i++) mem_free(n->at[i]);
    mem_free(n->at);
    *n = (Names){0};
}

/* What dir holds, hidden ones left out, sorted. ERR_NOT_FOUND, ERR_LIMIT. */
static int list_dir(const char *dir, Names *ret)
{
    DIR *d = opendir(dir);
    if (!d) return ERR_NOT_FOUND;
    Names names = {0};
    struct dirent *e;
    int err = 0;
    while (!err && (e = readdir(d))) {
        if (e->d_name[0] == '.') continue;
        if (names.len == MODELS_MAX)
            err = ERR_LIMIT;
        else
            names_add(&names, e->d_name);
    }
    closedir(d);
    if (err) {
        names_done(&names);
        return err;
    }
    names_sort(&names);
    *ret = names;
    return 0;
}

static char *join(const char *dir, const char *name)
{
    Buf b = {0};
    buf_printf(&b, "%s/%s", dir, name);
    char *z = mem_dup(b.data, b.len);
    buf_done(&b);
    return z;
}

static bool is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

static bool has_file(const char *dir, const char *name)
{
    char *path = join(dir, name);
    bool has = is_file(path);
    mem_free(path);
    return has;
}

static bool name_ok(Str s)
{
    if (s.n == 0 || s.n > NAME_MAX_LEN) return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '.' || c == '_' || c == '-'))
            return false;
    }
    return true;
}

/* A whole number from 1, written plainly: "01" would be a second name of "1". */
static bool version_ok(Str s, uint64_t *ret)
{
    return s.n > 0 && s.n <= 18 && s.p[0] != '0' && parse_u64(s, ret) == 0;
}

/* ---- digest and size ---- */

static int list_files(const char *dir, const char *prefix, int depth, Names *ret)
{
    if (depth > DEPTH_MAX) return ERR_LIMIT;
    Names names;
    int err = list_dir(dir, &names);
    if (err) return err;
    for (size_t i = 0; !err && i < names.len; i++) {
        const char *name = names.at[i];
        if (strcmp(name, "__pycache__") == 0) continue; /* written when the program runs */
        char *path = join(dir, name);
        char *rel = *prefix ? join(prefix, name) : mem_dup(name, strlen(name));
        if (is_dir(path))
            err = list_files(path, rel, depth + 1, ret);
        else if (ret->len == FILES_MAX)
            err = ERR_LIMIT;
        else if (is_file(path))
            names_add(ret, rel);
        mem_free(path);
        mem_free(rel);
    }
    names_done(&names);
    return err;
}

static int digest_file(Sha256Run *run, const char *path, const char *name, uint64_t *size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        if (fd >= 0) close(fd);
        return ERR_IO;
    }
    uint8_t head[16];
    store_u64(head, strlen(name));
    store_u64(head + 8, (uint64_t)st.st_size);
    sha256_add(run, head, sizeof head);
    sha256_add(run, name, strlen(name));
    char *chunk = mem_new(MIB);
    ssize_t n;
    while ((n = read(fd, chunk, MIB)) > 0) {
        sha256_add(run, chunk, (size_t)n);
        *size += (uint64_t)n;
    }
    mem_free(chunk);
    close(fd);
    return n < 0 ? ERR_IO : 0;
}

static int digest_version(const char *dir, const char *yaml_path, Sha256 *ret, uint64_t *ret_size)
{
    Names files = {0};
    int err = list_files(dir, "", 0, &files);
    if (err) {
        names_done(&files);
        return err;
    }
    names_sort(&files);
    Sha256Run *run = sha256_start();
    uint64_t size = 0, yaml_size = 0;
    if (yaml_path) err = digest_file(run, yaml_path, "../model.yaml", &yaml_size);
    for (size_t i = 0; !err && i < files.len; i++) {
        char *path = join(dir, files.at[i]);
        err = digest_file(run, path, files.at[i], &size);
        mem_free(path);
    }
    Sha256 d;
    sha256_end(run, &d);
    names_done(&files);
    if (err) return err;
    *ret = d;
    *ret_size = size;
    return 0;
}

/* ---- specs ---- */

static void spec_free(ModelSpec *s)
{
    if (!s) return;
    mem_free(s->name);
    mem_free(s->version);
    mem_free(s->engine);
    mem_free(s->description);
    mem_free(s->dir);
    if (s->yaml) model_yaml_done(s->yaml);
    mem_free(s->yaml);
    mem_free(s);
}

static int spec_cmp(const void *a, const void *b)
{
    const ModelSpec *x = *(ModelSpec *const *)a, *y = *(ModelSpec *const *)b;
    int c = strcmp(x->name, y->name);
    if (c) return c;
    size_t nx = strlen(x->version), ny = strlen(y->version);
    if (nx != ny) return nx < ny ? -1 : 1; /* no leading zeros: the longer number is the larger */
    return strcmp(x->version, y->version);
}

static void add_spec(ModelRepository *repo, ModelSpec *s)
{
    repo->specs = mem_grow(repo->specs, (repo->len + 1) * sizeof(ModelSpec *));
    repo->specs[repo->len++] = s;
    qsort(repo->specs, repo->len, sizeof(ModelSpec *), spec_cmp);
}

const ModelSpec *repository_find(const ModelRepository *repo, Str name, Str version)
{
    const ModelSpec *found = NULL;
    for (size_t i = 0; i < repo->len; i++) {
        const ModelSpec *s = repo->specs[i];
        if (!str_eqz(name, s->name)) continue;
        if (version.n == 0)
            found = s; /* sorted: the last one is the highest */
        else if (str_eqz(version, s->version))
            return s;
    }
    return found;
}

void repository_done(ModelRepository *repo)
{
    for (size_t i = 0; i < repo->len; i++) spec_free(repo->specs[i]);
    mem_free(repo->specs);
    *repo = (ModelRepository){0};
}

void repository_add_echo(ModelRepository *repo)
{
    if (repository_find(repo, STR("echo"), STR("1"))) return;
    ModelSpec *s = mem_new(sizeof *s);
    s->name = mem_dup("echo", 4);
    s->version = mem_dup("1", 1);
    s->engine = mem_dup("echo", 4);
    const char *text = "Built in: answers with its input. Fields sleep_ms, units and fail make it "
                       "slow or faulty, for tests and benchmarks.";
    s->description = mem_dup(text, strlen(text));
    s->max_batch = 256;
    s->continuous = true;
    s->memory_bytes = MIB;
    ModelYaml *y = s->yaml = mem_new(sizeof *y);
    model_yaml_defaults(y);
    sha256("echo 1", 6, &s->digest);
    add_spec(repo, s);
}

/* ---- the scan ---- */

typedef struct {
    ModelRepository *repo;
    Buf *problems;
    const char *name;
    const char *dir;       /* the model's */
    const char *yaml_path; /* NULL: there is none */
    Str yaml_text;
    bool yaml_bad; /* its problems are told once, not once a version */
} Scan;

/* The file that the engine cannot do without and the folder does not have, or NULL. */
static const char *missing_file(const char *engine, const char *dir)
{
    static const char *const diffusion[] = {"text_encoder.onnx", "unet.onnx", "vae_decoder.onnx"};
    if (strcmp(engine, "onnx") == 0 && !has_file(dir, "model.onnx")) return "model.onnx";
    if (strcmp(engine, "diffusion") == 0)
        for (size_t i = 0; i < ARRAY_LEN(diffusion); i++)
            if (!has_file(dir, diffusion[i])) return diffusion[i];
    return NULL;
}

static void scan_version(Scan *scan, const char *version)
{
    char *dir = join(scan->dir, version), *real = NULL;
    ModelYaml yaml;
    model_yaml_defaults(&yaml);
    if (scan->yaml_path &&
        model_yaml_parse(scan->yaml_path, scan->yaml_text, &yaml, scan->problems)) {
        scan->yaml_bad = true;
        goto out;
    }
    const char *engine = yaml.engine ? yaml.engine : "onnx";
    const char *missing = missing_file(engine, dir);
    if (missing && !scan->yaml_path) {
        buf_printf(scan->problems,
                   "%s: has no model.onnx; for another engine write %s/model.yaml with 'engine: "
                   "exec' (or diffusion, echo)\n",
                   dir, scan->dir);
        goto out;
    }
    if (missing) {
        buf_printf(scan->problems, "%s: has no %s, which engine '%s' needs\n", dir, missing,
                   engine);
        goto out;
    }
    if (repository_find(scan->repo, str_from(scan->name), str_from(version))) {
        buf_printf(scan->problems, "%s: model %s:%s is there already; the first one stays\n", dir,
                   scan->name, version);
        goto out;
    }
    real = realpath(dir, NULL);
    Sha256 digest;
    uint64_t size;
    int err = real ? digest_version(dir, scan->yaml_path, &digest, &size) : ERR_IO;
    if (err) {
        if (err == ERR_LIMIT)
            buf_printf(scan->problems, "%s: holds more than %d files or %d levels of folders\n",
                       dir, FILES_MAX, DEPTH_MAX);
        else
            buf_printf(scan->problems, "%s: cannot be read: %s\n", dir, strerror(errno));
        goto out;
    }

    ModelSpec *s = mem_new(sizeof *s);
    s->name = mem_dup(scan->name, strlen(scan->name));
    s->version = mem_dup(version, strlen(version));
    s->engine = mem_dup(engine, strlen(engine));
    s->description = yaml.description ? mem_dup(yaml.description, strlen(yaml.description))
                                      : mem_dup("", 0);
    s->dir = mem_dup(real, strlen(real));
    s->max_batch = yaml.max_batch;
    s->batch_delay_ms = yaml.batch_delay_ms;
    s->memory_bytes = yaml.memory_bytes ? yaml.memory_bytes : size + size / 2 + MEMORY_BASE;
    s->min_warm = yaml.min_warm;
    s->continuous = strcmp(engine, "onnx") != 0;
    s->require_gpu = yaml.require_gpu;
    s->digest = digest;
    s->yaml = mem_dup(&yaml, sizeof yaml); /* moved */
    yaml = (ModelYaml){0};
    if (strcmp(engine, "echo") == 0 && s->max_batch == 0) s->max_batch = 256;
    add_spec(scan->repo, s);
out:
    model_yaml_done(&yaml);
    free(real);
    mem_free(dir);
}

static int version_cmp(const void *a, const void *b)
{
    const char *x = *(char *const *)a, *y = *(char *const *)b;
    size_t nx = strlen(x), ny = strlen(y);
    return nx != ny ? (nx < ny ? -1 : 1) : strcmp(x, y);
}

static void scan_model(ModelRepository *repo, const char *root, const char *name, Buf *problems)
{
    char *dir = join(root, name), *yaml_path = join(dir, "model.yaml");
    Names entries = {0};
    Buf text = {0};
    Scan scan = {.repo = repo, .problems = problems, .name = name, .dir = dir};
    if (!name_ok(str_from(name))) {
        buf_printf(problems, "%s: a model's name is 1 to %d of A-Z a-z 0-9 . _ -\n", dir,
                   NAME_MAX_LEN);
        goto out;
    }
    int err = file_read(yaml_path, MODEL_YAML_MAX, &text);
    if (err == 0) {
        scan.yaml_path = yaml_path;
        scan.yaml_text = buf_str(&text);
    } else if (err == ERR_LIMIT) {
        buf_printf(problems, "%s: is longer than %d KiB\n", yaml_path, MODEL_YAML_MAX / 1024);
        goto out;
    } else if (err != ERR_NOT_FOUND) {
        buf_printf(problems, "%s: cannot be read\n", yaml_path);
        goto out;
    } else if (has_file(dir, "model.yml")) {
        buf_printf(problems, "%s/model.yml: must be called model.yaml\n", dir);
        goto out;
    }
    if (list_dir(dir, &entries)) {
        buf_printf(problems, "%s: cannot be read: %s\n", dir, strerror(errno));
        goto out;
    }
    if (entries.len) qsort(entries.at, entries.len, sizeof *entries.at, version_cmp);
    bool any = false;
    for (size_t i = 0; i < entries.len && !scan.yaml_bad; i++) {
        uint64_t number;
        char *path = join(dir, entries.at[i]);
        if (is_dir(path) && version_ok(str_from(entries.at[i]), &number)) {
            any = true;
            scan_version(&scan, entries.at[i]);
        }
        mem_free(path);
    }
    if (!any)
        buf_printf(problems, "%s: has no version folder (a whole number, such as %s/1/)\n", dir,
                   dir);
out:
    names_done(&entries);
    buf_done(&text);
    mem_free(yaml_path);
    mem_free(dir);
}

int repository_scan(ModelRepository *repo, const char *dir, Buf *problems)
{
    Names names;
    int err = list_dir(dir, &names);
    if (err) return err;
    for (size_t i = 0; i < names.len; i++) {
        char *path = join(dir, names.at[i]);
        if (is_dir(path)) scan_model(repo, dir, names.at[i], problems);
        mem_free(path);
    }
    names_done(&names);
    return 0;
}
