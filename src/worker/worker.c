/* worker.c: the worker process's life: start, signals, drain, end. */
#include "worker/inside.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/clock.h"

/* ---- the end ---- */

void worker_end(Worker *w, int exit_code)
{
    w->exit_code = exit_code;
    w->world->end(w);
}

void worker_check_end(Worker *w)
{
    if (w->leaving && w->held_len == 0) worker_end(w, WORKER_EXIT_OK);
}

void worker_leave(Worker *w, bool deaf)
{
    w->leaving = true;
    if (deaf) session_deafen(w);
    tasks_hand_back(w);
    worker_check_end(w);
}

static void on_signal(uv_signal_t *s, int number)
{
    Worker *w = s->data;
    const char *name = number == SIGINT ? "SIGINT" : "SIGTERM";
    if (w->hurry_until_ns != 0) {
        worker_end(w, WORKER_EXIT_FAILED);
    } else if (w->leaving) {
        say_info("%s again: handing back %zu tasks at once", name, w->held_len);
        w->hurry_until_ns = clock_mono() + HURRY_MS * NS_PER_MS;
        tasks_stop_all(w);
    } else {
        say_info("%s: finishing what runs (%zu tasks held); once more hands it back at once", name,
                 w->held_len);
        /* No stream, no leases: the server is not asked to stop, it cannot go on. */
        worker_leave(w, true);
    }
}

/* ---- time ---- */

void worker_tick(LoopTimer *t)
{
    Worker *w = CONTAINER_OF(t, Worker, tick);
    bool busy = w->held_len > 0 || w->leaving || w->post_after_ns != 0;
    uint64_t every = busy ? TICK_BUSY_MS : TICK_IDLE_MS;
    if (w->tick_ms != every) loop_timer_start(t, every, every);
    w->tick_ms = every;
    tasks_tick(w);
    session_tick(w);
    int64_t now = clock_mono();
    if (w->hurry_until_ns != 0 && now > w->hurry_until_ns) {
        say_warn("%zu tasks could not be handed back: their leases will end by themselves",
                 w->held_len);
        worker_end(w, WORKER_EXIT_FAILED);
    }
    /* Nothing runs any more, and nobody hears of it: not for ever. */
    if (w->leaving && w->held_len > 0 && w->jobs == 0 &&
        now - w->answered_ns > (int64_t)w->lease_s * NS_PER_S) {
        bool idle = true;
        for (size_t i = 0; i < w->executors_len; i++)
            idle = idle && w->world->idle(w->executors[i]);
        if (idle) {
            say_warn("no server took the last %zu reports", w->held_len);
            worker_end(w, WORKER_EXIT_FAILED);
        }
    }
    worker_check_end(w);
}

static void on_wake(uv_async_t *a)
{
    Worker *w = a->data;
    tasks_take(w);
}

void worker_busy(Worker *w)
{
    if (w->tick_ms == TICK_BUSY_MS) return;
    w->tick_ms = TICK_BUSY_MS;
    loop_timer_start(&w->tick, TICK_BUSY_MS, TICK_BUSY_MS);
}

static void wake(void *ctx)
{
    Worker *w = ctx;
    uv_async_send(w->wake);
}

Executor *worker_executor(Worker *w, uint32_t device)
{
    if (device < w->first_device || device - w->first_device >= w->executors_len) return NULL;
    return w->executors[device - w->first_device];
}

/* ---- the start ---- */

static uint64_t read_number(const char *path)
{
    FILE *f = fopen(path, "re");
    char line[64] = "";
    if (f == NULL) return 0;
    uint64_t v = fgets(line, sizeof line, f) != NULL ? strtoull(line, NULL, 10) : 0; /* "max": 0 */
    fclose(f);
    return v;
}

/* What is free on the machine, or in the container; three quarters of it, as the rest of the
 * program and of the machine live there too. */
static uint64_t free_memory(void)
{
    uint64_t kib = 0;
    char line[128];
    FILE *f = fopen("/proc/meminfo", "re");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, "MemAvailable:", 13) == 0) kib = strtoull(line + 13, NULL, 10);
    }
    if (f != NULL) fclose(f);
    uint64_t bytes = kib * 1024;
    uint64_t limit = read_number("/sys/fs/cgroup/memory.max");
    uint64_t used = read_number("/sys/fs/cgroup/memory.current");
    if (limit > 0) bytes = MIN(bytes, limit > used ? limit - used : 0);
    if (bytes == 0) bytes = 1 * GIB;
    return bytes / 4 * 3;
}

/* The parent may have ended before the kernel was asked to watch it. HEADRACE_PARENT, when set,
 * says which process it was. */
static bool watch_parent(void)
{
    pid_t before = getppid();
    const char *told = getenv("HEADRACE_PARENT");
    uint64_t pid = 0;
    if (told != NULL && parse_u64(str_from(told), &pid) == 0) before = (pid_t)pid;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) return false;
    return getppid() == before;
}

/* Input files that a killed worker left: "<token>-file_…". */
static void clear_work_dir(const char *path)
{
    DIR *d = opendir(path);
    if (d == NULL) return;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        const char *dash = strchr(e->d_name, '-');
        if (dash == NULL || strncmp(dash, "-file_", 6) != 0) continue;
        if (strspn(e->d_name, "0123456789") != (size_t)(dash - e->d_name)) continue;
        (void)unlinkat(dirfd(d), e->d_name, 0);
    }
    closedir(d);
}

static int make_work_dir(Worker *w)
{
    Buf b = {0};
    if (w->o->work_dir != NULL)
        buf_puts(&b, w->o->work_dir);
    else
        buf_printf(&b, "/tmp/headrace-worker-%ld-%ld", (long)getuid(), (long)getpid());
    w->files.work_dir = mem_dup(b.data, b.len);
    buf_done(&b);
    if (mkdir(w->files.work_dir, 0700) != 0 && errno != EEXIST) {
        say_error("cannot make the folder for input files %s: %s", w->files.work_dir,
                  strerror(errno));
        return ERR_IO;
    }
    clear_work_dir(w->files.work_dir);
    return 0;
}

static int read_models(Worker *w)
{
    Buf problems = {0};
    for (size_t i = 0; i < w->o->model_dirs_len; i++) {
        const char *dir = w->o->model_dirs[i];
        if (repository_scan(&w->models, dir, &problems) != 0) {
            say_error("cannot read the models in %s: %s", dir, strerror(errno));
            buf_done(&problems);
            return ERR_NOT_FOUND;
        }
    }
    repository_add_echo(&w->models);
    for (char *line = (char *)(uintptr_t)buf_z(&problems), *end; *line != '\0'; line = end) {
        end = line + strcspn(line, "\n");
        say_warn("%.*s", (int)(end - line), line);
        if (*end == '\n') end++;
    }
    buf_done(&problems);
    return 0;
}

static void find_runtime(Worker *w)
{
    const char *path, *version;
    EngineError err = {0};
    if (engine_onnx_runtime(w->o->ort_path, &path, &version, &err) == 0) {
        say_info("ONNX Runtime %s at %s", version, path);
        buf_printf(&w->runtime, "ONNX Runtime %s", version);
        return;
    }
    bool needed = false;
    for (size_t i = 0; i < w->models.len; i++) {
        const char *engine = w->models.specs[i]->engine;
        needed = needed || strcmp(engine, "onnx") == 0 || strcmp(engine, "diffusion") == 0;
    }
    if (needed)
        say_warn("no ONNX Runtime, so its models cannot run: %s", err.message);
    else
        say_info("no ONNX Runtime found, and no model needs it");
}

static void say_hello(const Worker *w)
{
    Buf b = {0};
    for (size_t i = 0; i < w->models.len; i++) {
        const ModelSpec *m = w->models.specs[i];
        buf_printf(&b, "%s%s:%s (%s)", i > 0 ? ", " : "", m->name, m->version, m->engine);
    }
    Buf size = {0};
    buf_put_size(&size, w->device_memory);
    say_info("worker %s for %s: %zu CPU device%s of %u thread%s and %s for models", w->name,
             w->o->server_url, w->executors_len, w->executors_len == 1 ? "" : "s", w->threads,
             w->threads == 1 ? "" : "s", buf_z(&size));
    say_info("models: %s", buf_z(&b));
    buf_done(&size);
    buf_done(&b);
}

static bool start_executors(Worker *w)
{
    uint32_t devices = MAX(w->o->devices, 1U);
    uint32_t processors = MAX(uv_available_parallelism(), 1U);
    uint64_t memory = w->o->memory_bytes > 0 ? w->o->memory_bytes : free_memory();
    w->device_memory = memory / devices;
    w->threads = w->o->threads > 0 ? w->o->threads : MAX(processors / devices, 1U);
    w->first_device = w->o->device_index >= 0 ? (uint32_t)w->o->device_index : 0;
    size_t n = w->o->device_index >= 0 ? 1 : devices;
    w->executors = mem_new(n * sizeof(Executor *));
    for (size_t i = 0; i < n; i++) {
        w->executors[i] = executor_start(&(ExecutorOptions){
            .device = {.index = w->first_device + (uint32_t)i,
                       .threads = w->threads,
                       .cache_dir = w->o->cache_dir},
            .memory_bytes = w->device_memory,
            .alone = n == 1,
            .files = &w->files,
            .checkpoint_every_ns = CHECKPOINT_EVERY_S * NS_PER_S,
            .wake = wake,
            .wake_ctx = w,
        });
        if (w->executors[i] == NULL) return false;
        w->executors_len++;
    }
    return true;
}

/* Handles live on the heap: libuv lets go of them one turn after their close. */
static void free_handle(uv_handle_t *h)
{
    mem_free(h);
}

static HttpRequest *real_call(Worker *w, const HttpRequestOptions *o)
{
    return http_client_start(w->http, o);
}

static void real_cancel_call(Worker *w, HttpRequest *r)
{
    (void)w;
    http_request_cancel(r);
}

static void real_end(Worker *w)
{
    uv_stop(&w->uv);
}

static const WorkerWorld real_world = {
    .call = real_call,
    .cancel_call = real_cancel_call,
    .idle = executor_idle,
    .put = executor_put,
    .order = executor_order,
    .cancel = executor_cancel,
    .hand_back = executor_hand_back,
    .take = executor_take,
    .end = real_end,
};

static void start_loop(Worker *w)
{
    CHECK(uv_loop_init(&w->uv) == 0);
    loop_uv_init(&w->real, &w->uv);
    w->loop = &w->real;
    w->world = &real_world;
    w->wake = mem_new(sizeof *w->wake);
    w->term = mem_new(sizeof *w->term);
    w->intr = mem_new(sizeof *w->intr);
    CHECK(uv_async_init(&w->uv, w->wake, on_wake) == 0);
    loop_timer_init(w->loop, &w->tick, worker_tick);
    loop_timer_init(w->loop, &w->retry, session_retry);
    CHECK(uv_signal_init(&w->uv, w->term) == 0);
    CHECK(uv_signal_init(&w->uv, w->intr) == 0);
    w->wake->data = w->term->data = w->intr->data = w;
    w->tick_ms = TICK_IDLE_MS;
    loop_timer_start(&w->tick, TICK_IDLE_MS, TICK_IDLE_MS);
    CHECK(uv_signal_start(w->term, on_signal, SIGTERM) == 0);
    CHECK(uv_signal_start(w->intr, on_signal, SIGINT) == 0);
    w->http = http_client_new(&w->uv);
}

/* False: a model or a transfer is under way and cannot be waited for. */
static bool stop_all(Worker *w)
{
    bool idle = w->jobs == 0;
    for (size_t i = 0; i < w->executors_len; i++) idle = executor_idle(w->executors[i]) && idle;
    if (!idle) return false;
    for (size_t i = 0; i < w->executors_len; i++) executor_stop(w->executors[i]);
    for (size_t i = 0; i < w->executors_len; i++) executor_join(w->executors[i]);
    session_done(w);
    http_client_free(w->http);
    uv_close((uv_handle_t *)w->wake, free_handle);
    loop_timer_close(&w->tick, NULL);
    loop_timer_close(&w->retry, NULL);
    uv_close((uv_handle_t *)w->term, free_handle);
    uv_close((uv_handle_t *)w->intr, free_handle);
    uv_run(&w->uv, UV_RUN_DEFAULT);
    CHECK(uv_loop_close(&w->uv) == 0);
    return true;
}

void worker_free(Worker *w)
{
    tasks_done(w);
    if (w->o->work_dir == NULL && w->files.work_dir != NULL) rmdir(w->files.work_dir);
    repository_done(&w->models);
    buf_done(&w->runtime);
    mem_free(w->executors);
    mem_free(w->files.server_url);
    mem_free(w->files.auth);
    mem_free(w->files.work_dir);
    mem_free(w);
}

Worker *worker_new(const WorkerOptions *o)
{
    Worker *w = mem_new(sizeof *w);
    w->o = o;
    w->lease_s = 30;
    w->ping_s = 5;
    w->pid = (long)getpid();
    w->lines_max = POST_LINES_MAX;
    w->answered_ns = clock_mono();
    tasks_init(w);
    uint64_t seed;
    random_secret(&seed, sizeof seed);
    random_seed(&w->random, seed);
    if (o->name != NULL)
        snprintf(w->name, sizeof w->name, "%s", o->name);
    else
        (void)gethostname(w->name, 63); /* as long as a worker's name may be */
    if (w->name[0] == '\0') strcpy(w->name, "worker");
    size_t n = strlen(o->server_url);
    while (n > 0 && o->server_url[n - 1] == '/') n--;
    w->files.server_url = mem_dup(o->server_url, n);
    Buf b = {0};
    if (o->key != NULL) buf_printf(&b, "Authorization: Bearer %s", o->key);
    w->files.auth = mem_dup(b.len > 0 ? (const void *)b.data : "", b.len);
    buf_done(&b);
    return w;
}

int worker_run(const WorkerOptions *o)
{
    if (o->die_with_parent && !watch_parent()) return WORKER_EXIT_FAILED;
    signal(SIGPIPE, SIG_IGN);
    Worker *w = worker_new(o);
    if (make_work_dir(w) != 0 || read_models(w) != 0) {
        worker_free(w);
        return WORKER_EXIT_FAILED;
    }
    find_runtime(w);
    start_loop(w);
    if (start_executors(w)) {
        say_hello(w);
        session_start(w);
        uv_run(&w->uv, UV_RUN_DEFAULT);
    } else {
        w->exit_code = WORKER_EXIT_FAILED;
    }

    int code = w->exit_code;
    say_info(code == WORKER_EXIT_OK ? "drained: the end" : "the end");
    if (!stop_all(w)) {
        fflush(NULL);
        _exit(code); /* no destructor may run beside a model that does */
    }
    worker_free(w);
    return code;
}
