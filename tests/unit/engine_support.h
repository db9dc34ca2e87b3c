/* engine_support.h: what the engine tests share: a scratch folder, a host that keeps everything in
 * memory, and a task that runs to its end. */
#ifndef TESTS_UNIT_ENGINE_SUPPORT_H
#define TESTS_UNIT_ENGINE_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/inside.h"

#define UNUSED __attribute__((unused))

/* ---- a scratch folder ---- */

UNUSED static char *scratch_new(void)
{
    char *dir = strdup("/tmp/headrace-engine-XXXXXX");
    assert_non_null(mkdtemp(dir));
    return dir;
}

UNUSED static void scratch_done(char *dir)
{
    char cmd[300];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    assert_int_equal(system(cmd), 0);
    free(dir);
}

/* Writes dir/name; makes the folders on the way. */
UNUSED static void put_bytes(const char *dir, const char *name, const void *p, size_t n)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    for (char *at = path + strlen(dir) + 1; (at = strchr(at, '/')); at++) {
        *at = 0;
        mkdir(path, 0700);
        *at = '/';
    }
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    fclose(f);
}

UNUSED static void put_text(const char *dir, const char *name, const char *text)
{
    put_bytes(dir, name, text, strlen(text));
}

/* ---- a host ---- */

typedef struct {
    EngineHost host;
    const char *files_dir; /* file_path gives files_dir/id */
    Buf log;
    char names[64][40]; /* of what was put, with their bytes; ids are "file_0" … */
    Buf puts[64];
    size_t len;
    char path[600];
} TestHost;

UNUSED static int host_file_path(void *ctx, void *task_ctx, Str id, const char **ret_path,
                                 EngineError *err)
{
    TestHost *h = ctx;
    (void)task_ctx;
    snprintf(h->path, sizeof h->path, "%s/%.*s", h->files_dir ? h->files_dir : "/nowhere",
             STR_ARG(id));
    if (access(h->path, R_OK) != 0) {
        engine_error_set(err, ENGINE_ERR_BAD_INPUT, false, "no file %.*s", STR_ARG(id));
        return ERR_NOT_FOUND;
    }
    *ret_path = h->path;
    return 0;
}

UNUSED static int host_put_file(void *ctx, void *task_ctx, Str name, Str content_type, Str bytes,
                                const char **ret_id, EngineError *err)
{
    TestHost *h = ctx;
    (void)task_ctx, (void)name, (void)content_type, (void)err;
    assert_true(h->len < 64);
    buf_put_str(&h->puts[h->len], bytes);
    snprintf(h->names[h->len], sizeof h->names[0], "file_%zu", h->len);
    *ret_id = h->names[h->len++];
    return 0;
}

UNUSED static void host_log(void *ctx, void *task_ctx, Str text)
{
    TestHost *h = ctx;
    (void)task_ctx;
    buf_put_str(&h->log, text);
}

UNUSED static void host_init(TestHost *h)
{
    memset(h, 0, sizeof *h);
    h->host = (EngineHost){h, host_file_path, host_put_file, host_log};
}

UNUSED static void host_done(TestHost *h)
{
    for (size_t i = 0; i < h->len; i++) buf_done(&h->puts[i]);
    buf_done(&h->log);
}

/* ---- models and tasks ---- */

static const EngineDevice test_cpu UNUSED = {.threads = 2};

/* The repository of one folder without any problem. */
UNUSED static ModelRepository repository_of(const char *dir)
{
    ModelRepository repo = {0};
    Buf problems = {0};
    assert_int_equal(repository_scan(&repo, dir, &problems), 0);
    if (problems.len) fail_msg("%s", buf_z(&problems));
    buf_done(&problems);
    return repo;
}

UNUSED static EngineModel *open_model(const ModelRepository *repo, const char *name, TestHost *host)
{
    const ModelSpec *spec = repository_find(repo, str_from(name), (Str){0});
    assert_non_null(spec);
    EngineModel *m = NULL;
    EngineError err;
    if (engine_open(spec, &test_cpu, &host->host, &m, &err)) fail_msg("%s", err.message);
    return m;
}

UNUSED static void task_init(EngineTask *t, const char *id, const char *input)
{
    memset(t, 0, sizeof *t);
    t->id = str_from(id);
    t->attempt = 1;
    t->input = str_from(input);
    atomic_init(&t->cancel, false);
}

/* Steps the n tasks until none is active; gives up after 30 s. */
UNUSED static void run_all(EngineModel *m, EngineTask *tasks, size_t n)
{
    int64_t until = engine_now_ns() + 30 * NS_PER_S;
    EngineTask *active[300];
    for (;;) {
        size_t live = 0;
        for (size_t i = 0; i < n; i++)
            if (tasks[i].state == ENGINE_TASK_ACTIVE) active[live++] = &tasks[i];
        if (live == 0) return;
        assert_true(engine_now_ns() < until);
        engine_step(m, active, live);
    }
}

/* Admits and runs one; release it. */
UNUSED static void run_one(EngineModel *m, EngineTask *t, const char *id, const char *input)
{
    task_init(t, id, input);
    engine_admit(m, t);
    run_all(m, t, 1);
}

UNUSED static const char *output_of(EngineTask *t)
{
    if (t->state == ENGINE_TASK_FAILED) fail_msg("%s", t->error.message);
    assert_int_equal(t->state, ENGINE_TASK_DONE);
    return buf_z(&t->output);
}

/* The task failed so, and its message has this part. */
UNUSED static void assert_failed(const EngineTask *t, EngineErrCode code, bool retryable,
                                 const char *part)
{
    assert_int_equal(t->state, ENGINE_TASK_FAILED);
    if (t->error.code != code || t->error.retryable != retryable || !strstr(t->error.message, part))
        fail_msg("%s%s: %s (wanted %s: %s)", engine_error_code(t->error.code),
                 t->error.retryable ? ", retryable" : "", t->error.message, engine_error_code(code),
                 part);
}

#endif
