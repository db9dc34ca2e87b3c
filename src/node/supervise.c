#include "node/supervise.h"

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/worker.h"

#define BACKOFF_FIRST_MS 200
#define BACKOFF_MAX_MS   30000

typedef struct {
    Supervisor *owner;
    uint32_t index;
    char name[32];
    uv_process_t process;
    uv_timer_t timer;
    bool running, waiting, given_up;
    uint64_t backoff_ms;
} Child;

struct Supervisor {
    uv_loop_t *loop;
    const Config *config;
    const char *server_url, *key_file;
    SupervisorEvents events;
    Child *children;
    uint32_t len;
    bool stopping;
};

static void start(Child *c);

static void on_timer(uv_timer_t *t)
{
    Child *c = t->data;
    c->waiting = false;
    start(c);
}

static void start_later(Child *c)
{
    if (c->owner->stopping || c->given_up) return;
    c->waiting = true;
    uv_timer_start(&c->timer, on_timer, c->backoff_ms, 0);
    c->backoff_ms = MIN(c->backoff_ms * 2, (uint64_t)BACKOFF_MAX_MS);
}

static void on_process_closed(uv_handle_t *h)
{
    Child *c = CONTAINER_OF(h, Child, process);
    c->running = false;
    start_later(c);
}

static void on_process_exit(uv_process_t *p, int64_t status, int signal)
{
    Child *c = CONTAINER_OF(p, Child, process);
    Supervisor *s = c->owner;
    bool crashed = signal != 0 ||
                   (status != 0 && status != WORKER_EXIT_FAILED && status != WORKER_EXIT_REFUSED);
    bool loop = s->events.ended(s->events.ctx, c->name, crashed);
    if (crashed && !s->stopping) {
        if (signal)
            say_warn("worker %s was ended by signal %d (%s)", c->name, signal, strsignal(signal));
        else
            say_warn("worker %s ended with status %d", c->name, (int)status);
        if (loop)
            say_error("worker %s crashes again and again: the next start in %llu ms; this burns "
                      "no attempts",
                      c->name, (unsigned long long)c->backoff_ms);
    }
    if (!loop) c->backoff_ms = BACKOFF_FIRST_MS;
    if (status == WORKER_EXIT_REFUSED) {
        c->given_up = true;
        s->events.refused(s->events.ctx, c->name);
    }
    uv_close((uv_handle_t *)p, on_process_closed);
}

typedef struct {
    char *argv[128];
    size_t len;
    char numbers[8][24];
    size_t numbers_len;
} Arguments;

static void add(Arguments *a, const char *option, const char *value)
{
    CHECK(a->len + 3 < ARRAY_LEN(a->argv));
    a->argv[a->len++] = (char *)option;
    if (value) a->argv[a->len++] = (char *)value;
    a->argv[a->len] = NULL;
}

static void add_number(Arguments *a, const char *option, uint64_t value)
{
    char *text = a->numbers[a->numbers_len++];
    snprintf(text, sizeof a->numbers[0], "%llu", (unsigned long long)value);
    add(a, option, text);
}

static void start(Child *c)
{
    Supervisor *s = c->owner;
    const Config *config = s->config;
    char program[PATH_MAX] = {0};
    if (s->stopping) return;
    CHECK(readlink("/proc/self/exe", program, sizeof program - 1) > 0);
    uint32_t threads = config->workers.threads;
    if (!threads) threads = (uint32_t)MAX(1, sysconf(_SC_NPROCESSORS_ONLN) / (long)s->len);
    Arguments a = {0};
    add(&a, program, "worker");
    add(&a, "--server", s->server_url);
    add(&a, "--key-file", s->key_file);
    add(&a, "--name", c->name);
    add(&a, "--die-with-parent", NULL);
    add_number(&a, "--device", c->index);
    add_number(&a, "--threads", threads);
    if (config->workers.memory_bytes) add_number(&a, "--memory", config->workers.memory_bytes);
    if (config->onnxruntime) add(&a, "--onnxruntime", config->onnxruntime);
    add(&a, "--data", config->data_dir);
    add(&a, "--log-level",
        config->log.level == SAY_DEBUG  ? "debug"
        : config->log.level == SAY_INFO ? "info"
        : config->log.level == SAY_WARN ? "warn"
                                        : "error");
    add(&a, "--log-format", config->log.format == SAY_JSON ? "json" : "text");
    for (size_t i = 0; i < config->models_len; i++) add(&a, "--models", config->models[i]);
    uv_stdio_container_t stdio[3] = {{.flags = UV_IGNORE},
                                     {.flags = UV_INHERIT_FD, .data.fd = 2},
                                     {.flags = UV_INHERIT_FD, .data.fd = 2}};
    uv_process_options_t o = {.exit_cb = on_process_exit,
                              .file = program,
                              .args = a.argv,
                              .stdio = stdio,
                              .stdio_count = 3};
    c->running = true;
    int err = uv_spawn(s->loop, &c->process, &o);
    if (!err) return;
    say_error("cannot start worker %s: %s", c->name, uv_strerror(err));
    uv_close((uv_handle_t *)&c->process, on_process_closed);
}

Supervisor *supervisor_start(uv_loop_t *loop, const Config *config, const char *server_url,
                             const char *key_file, const SupervisorEvents *events)
{
    Supervisor *s = mem_new(sizeof *s);
    *s = (Supervisor){.loop = loop,
                      .config = config,
                      .server_url = server_url,
                      .key_file = key_file,
                      .events = *events,
                      .len = config->workers.devices};
    /* A child that starts while we die must see it: it compares this with its parent. */
    char pid[24];
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    setenv("HEADRACE_PARENT", pid, 1);
    s->children = mem_new(s->len * sizeof *s->children);
    for (uint32_t i = 0; i < s->len; i++) {
        Child *c = &s->children[i];
        c->owner = s;
        c->index = i;
        c->backoff_ms = BACKOFF_FIRST_MS;
        snprintf(c->name, sizeof c->name, "local-%u", i);
        uv_timer_init(loop, &c->timer);
        c->timer.data = c;
        start(c);
    }
    return s;
}

void supervisor_stop(Supervisor *s)
{
    for (uint32_t i = 0; i < s->len; i++) {
        Child *c = &s->children[i];
        if (c->running && !uv_is_closing((uv_handle_t *)&c->process))
            uv_process_kill(&c->process, SIGTERM);
        if (!s->stopping) uv_close((uv_handle_t *)&c->timer, NULL);
    }
    s->stopping = true;
}

bool supervisor_stopped(const Supervisor *s)
{
    for (uint32_t i = 0; i < s->len; i++)
        if (s->children[i].running) return false;
    return true;
}

static void kill_child(Child *c)
{
    if (c->running && !uv_is_closing((uv_handle_t *)&c->process))
        uv_process_kill(&c->process, SIGKILL);
}

void supervisor_kill(Supervisor *s, const char *name, int64_t pid)
{
    for (uint32_t i = 0; i < s->len; i++)
        if (strcmp(s->children[i].name, name) == 0 && s->children[i].process.pid == pid)
            kill_child(&s->children[i]);
}

void supervisor_kill_all(Supervisor *s)
{
    for (uint32_t i = 0; i < s->len; i++) kill_child(&s->children[i]);
}

void supervisor_free(Supervisor *s)
{
    if (!s) return;
    mem_free(s->children);
    mem_free(s);
}
