/* A server of our own: this very program with `serve`, on a temporary data directory. It is in a
 * process group of its own, so that a Ctrl-C reaches it through us, and it ends when we do. */
#include "cli/bench.h"

#include "io/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define READY_S   600 /* ten million tasks are replayed */
#define STOP_S    20
#define ARGS_MAX  48
#define LOG_SHOWN 2000

static char *path_in(const OwnServer *s, const char *name)
{
    Buf b = {0};
    buf_printf(&b, "%s/%s", s->folder, name);
    char *ret = mem_dup(b.data, b.len);
    buf_done(&b);
    return ret;
}

static void nap_ms(int64_t ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * NS_PER_MS};
    nanosleep(&t, NULL);
}

int own_server_make(const char *parent, OwnServer *ret)
{
    Buf path = {0};
    buf_printf(&path, "%s/headrace-bench-XXXXXX", parent);
    (void)buf_z(&path);
    if (disk_make_dirs(parent) || !mkdtemp((char *)path.data)) {
        fail(CLI_USAGE, "cannot make a folder in %s: %m", parent);
        hint("name another one with --data DIR; what is measured is the disk it lies on");
        buf_done(&path);
        return CLI_USAGE;
    }
    OwnServer s = {.folder = mem_dup(path.data, path.len)};
    buf_done(&path);
    char *models = path_in(&s, "models");
    mkdir(models, 0700); /* empty: nothing but echo */
    mem_free(models);
    *ret = s;
    return CLI_OK;
}

static _Noreturn void become_server(const char *program, const char *const *argv, const char *log,
                                    pid_t parent)
{
    int to = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int from = open("/dev/null", O_RDONLY | O_CLOEXEC);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent || to < 0 || from < 0) _exit(127);
    dup2(from, STDIN_FILENO);
    dup2(to, STDOUT_FILENO);
    dup2(to, STDERR_FILENO);
    unsetenv("HEADRACE_CONFIG"); /* a fresh server with defaults, whatever is set here */
    signal(SIGINT, SIG_DFL);
    execv(program, (char *const *)argv);
    _exit(127);
}

static void show_log(const OwnServer *s)
{
    char *path = path_in(s, "server.log"), text[LOG_SHOWN + 1];
    Buf clean = {0};
    FILE *f = fopen(path, "re");
    if (f && !fseek(f, 0, SEEK_END)) {
        fseek(f, MAX(ftell(f) - LOG_SHOWN, 0L), SEEK_SET);
        size_t n = fread(text, 1, LOG_SHOWN, f);
        put_clean(&clean, (Str){text, n}, true);
        fwrite(clean.data, 1, clean.len, stderr);
    }
    if (f) fclose(f);
    buf_done(&clean);
    mem_free(path);
}

/* The server writes the file `endpoint` when it is ready. */
static int wait_ready(OwnServer *s, int64_t begin)
{
    char *endpoint = path_in(s, "data/endpoint");
    int status = CLI_OK, ended;
    while (access(endpoint, R_OK) != 0 && status == CLI_OK) {
        if (waitpid(s->pid, &ended, WNOHANG) == s->pid) {
            s->pid = 0;
            status = fail(CLI_FAILED, "the server could not start; it said:");
            show_log(s);
        } else if (bench_interrupted()) {
            status = CLI_INTERRUPTED;
        } else if (bench_now_ns() - begin > READY_S * NS_PER_S) {
            status = fail(CLI_FAILED, "the server was not ready within %d s; it said:", READY_S);
            show_log(s);
        }
        nap_ms(1);
    }
    s->start_ns = bench_now_ns() - begin;
    mem_free(endpoint);
    return status;
}

int own_server_start(OwnServer *s, const char *models, const char *const *sets)
{
    char *data = path_in(s, "data"), *log = path_in(s, "server.log"), *none = path_in(s, "models");
    const char *argv[ARGS_MAX] = {"headrace", "serve",      "--data",
                                  data,       "--models",   models ? models : none,
                                  "--listen", "127.0.0.1:0"};
    size_t n = 8;
    for (; sets && *sets && n + 3 < ARGS_MAX; sets++) {
        argv[n++] = "--set";
        argv[n++] = *sets;
    }
    char program[PATH_MAX] = {0};
    CHECK(readlink("/proc/self/exe", program, sizeof program - 1) > 0);
    int64_t begin = bench_now_ns();
    pid_t parent = getpid();
    fflush(NULL);
    s->pid = fork();
    if (s->pid == 0) become_server(program, argv, log, parent);
    int status = s->pid < 0 ? fail(CLI_FAILED, "cannot start a server: %m") : wait_ready(s, begin);
    s->pid = MAX(s->pid, 0);
    mem_free(data);
    mem_free(log);
    mem_free(none);
    return status;
}

char *own_server_url(const OwnServer *s)
{
    char *path = path_in(s, "data/endpoint"), line[256] = "";
    FILE *f = fopen(path, "re");
    if (f && !fgets(line, sizeof line, f)) line[0] = 0;
    if (f) fclose(f);
    line[strcspn(line, "\r\n")] = 0;
    mem_free(path);
    return mem_dup(line, strlen(line));
}

void own_server_stop(OwnServer *s)
{
    if (s->pid <= 0) return;
    int ended;
    int64_t begin = bench_now_ns();
    kill(s->pid, SIGTERM);
    while (waitpid(s->pid, &ended, WNOHANG) == 0) {
        if (bench_now_ns() - begin > STOP_S * NS_PER_S) kill(s->pid, SIGKILL);
        nap_ms(5);
    }
    s->pid = 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

void own_server_done(OwnServer *s)
{
    own_server_stop(s);
    if (s->folder && nftw(s->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT))
        fail(CLI_FAILED, "cannot remove %s: %m", s->folder);
    mem_free(s->folder);
    *s = (OwnServer){0};
}
