/* exec.c: a model that is any program. One child a loaded model, in its own process group; the two
 * talk in lines of JSON (at most 8 MiB each) over the child's stdin and stdout:
 *
 *   to it      {"id":"task_…","op":"run","attempt":1,"input":{…}}     {"op":"cancel","id":"task_…"}
 *   from it    {"ready":true}, first; with "max_batch":N it takes N tasks at once
 *              {"id":…,"progress":{"step":3,"steps":20}}    {"id":…,"log":"…"}
 *              {"id":…,"output":…}    {"id":…,"error":{"code":"…","message":"…","retryable":false}}
 *
 * What it prints on stderr is its log. In an input, {"$file":"file_…"} gets a "path" beside it.
 *
 *   a call:   WAITING -> SENT -> ended
 *                ^--------'  when the child was killed for another call's sake
 *   a child:  DOWN -> STARTING -> READY -> DOWN
 *
 * I1  A call holds one of the child's slots from SENT until the child answered it or is gone, also
 *     when its task has been released: the program may be still at work on it.
 * I2  Nothing the child does blocks the executor: our pipe ends are non-blocking, its death is seen
 *     within a step, and every wait has an end.
 * I3  The child has no descriptor of ours but 0 to 2, and dies with the thread that started it. */
#include "engine/inside.h"
#include "engine/memory.h"
#include "engine/model_yaml.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <yyjson.h>

#define LINE_MAX_BYTES (8 * MIB) /* a picture in base 64, inline */
/* the longest step: the worker does its other work between */
#define STEP_NS         (50 * NS_PER_MS)
#define CANCEL_GRACE_NS (2 * NS_PER_S) /* for a program to answer a cancel before it is killed */
#define CLOSE_GRACE_NS  (2 * NS_PER_S) /* to end after its stdin was closed */
enum {
    READ_CHUNK = 64 * 1024,
    CHUNKS_MAX = 32,
    DEPTH_MAX = 64, /* of an input's JSON, as the server's own limit */
    LOG_LINE_MAX = 8 * 1024,
    WORDS_MAX = 240, /* of stderr's end, in an error message */
    SHOWN_MAX = 160, /* of a bad line, in an error message */
    SLOTS_MAX = 1024,
};

typedef enum { CALL_WAITING, CALL_SENT } CallState;

typedef struct {
    List node; /* in Exec.calls, in order of admission */
    char *id;
    EngineTask *task; /* NULL: ended or released, the program is still at it (I1) */
    CallState state;
    int64_t heard_ns;  /* SENT: when it was sent or last heard of */
    int64_t cancel_ns; /* SENT: when its grace ends; 0: no cancel was sent */
} Call;

typedef enum { CHILD_DOWN, CHILD_STARTING, CHILD_READY } ChildState;

typedef struct {
    EngineModel *m;
    const ModelYaml *yaml;
    char **env; /* the child's */
    int wake;   /* an eventfd: engine_cancel ends a wait */
    List calls;

    ChildState state;
    pid_t pid;         /* unless DOWN; also its process group */
    int in, out, err;  /* our ends of its stdin, stdout, stderr; -1: DOWN, or closed by it */
    int64_t ready_by;  /* STARTING */
    uint32_t slots;    /* READY: calls it takes at once */
    Buf to_child;      /* not written yet */
    Buf from_child;    /* the part of a line that has come */
    Buf log;           /* the same of stderr */
    Buf words;         /* the end of stderr, for messages */
    EngineError fault; /* why the last start failed */
} Exec;

/* ---- calls ---- */

static void call_free(Call *c)
{
    list_del(&c->node);
    mem_free(c->id);
    mem_free(c);
}

/* The task is over; the call stays while the program is at it (I1). */
static void call_detach(Call *c)
{
    c->task->priv = NULL;
    c->task = NULL;
    if (c->state == CALL_WAITING) call_free(c);
}

static void call_fail(Call *c, const EngineError *why)
{
    if (!c->task) return;
    if (engine_task_cancel_wanted(c->task))
        engine_task_canceled(c->task);
    else
        engine_task_fail_as(c->task, why);
    call_detach(c);
}

static Call *call_find(Exec *x, Str id)
{
    LIST_FOR (c, &x->calls, Call, node)
        if (c->state == CALL_SENT && str_eqz(id, c->id)) return c;
    return NULL;
}

static void log_text(Exec *x, Call *c, Str text)
{
    const EngineHost *host = x->m->host;
    void *task_ctx = c && c->task ? c->task->task_ctx : NULL;
    if (host && host->log && text.n) host->log(host->ctx, task_ctx, text);
}

/* Whose stderr it is when only one call runs. */
static Call *only_sent(Exec *x)
{
    Call *only = NULL;
    LIST_FOR (c, &x->calls, Call, node) {
        if (c->state != CALL_SENT) continue;
        if (only) return NULL;
        only = c;
    }
    return only;
}

/* ---- the child ---- */

extern char **environ;

/* Ours, without HEADRACE_*: keys and paths of the worker are none of the program's business. */
static char **make_env(const ModelSpec *spec, uint32_t device)
{
    size_t n = 0, len = 0;
    while (environ[n]) n++;
    char **env = mem_new((n + 5) * sizeof *env);
    bool unbuffered = false;
    for (size_t i = 0; i < n; i++) {
        if (strncmp(environ[i], "HEADRACE_", 9) == 0) continue;
        unbuffered = unbuffered || strncmp(environ[i], "PYTHONUNBUFFERED=", 17) == 0;
        env[len++] = mem_dup(environ[i], strlen(environ[i]));
    }
    Buf b = {0};
    buf_printf(&b, "HEADRACE_MODEL=%s", spec->name);
    env[len++] = mem_dup(b.data, b.len);
    buf_clear(&b);
    buf_printf(&b, "HEADRACE_VERSION=%s", spec->version);
    env[len++] = mem_dup(b.data, b.len);
    buf_clear(&b);
    buf_printf(&b, "HEADRACE_DEVICE=%u", device);
    env[len++] = mem_dup(b.data, b.len);
    buf_done(&b);
    /* Python keeps what it prints into a pipe until 8 KiB are full: no ready line would come. */
    if (!unbuffered) env[len++] = mem_dup("PYTHONUNBUFFERED=1", 18);
    return env;
}

/* In the child after fork: async-signal-safe calls only. */
_Noreturn static void child_main(const Exec *x, int in, int out, int err, int report, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127); /* it died before the line above */
    setpgid(0, 0);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    /* Out of the way of 0 to 3 first, as any of them may be one of these. */
    in = fcntl(in, F_DUPFD, 10);
    out = fcntl(out, F_DUPFD, 10);
    err = fcntl(err, F_DUPFD, 10);
    report = fcntl(report, F_DUPFD, 10);
    if (in >= 0 && out >= 0 && err >= 0 && report >= 0 && dup2(in, 0) == 0 && dup2(out, 1) == 1 &&
        dup2(err, 2) == 2 && dup2(report, 3) == 3 && fcntl(3, F_SETFD, FD_CLOEXEC) == 0 &&
        close_range(4, ~0U, 0) == 0 && (!x->m->spec->dir || chdir(x->m->spec->dir) == 0))
        execvpe(x->yaml->exec.command.at[0], x->yaml->exec.command.at, x->env);
    int why = errno;
    ssize_t ignored = write(3, &why, sizeof why);
    (void)ignored;
    _exit(127);
}

static void close_fd(int *fd)
{
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

/* False with x->fault set when it could not be started. */
static bool child_start(Exec *x)
{
    CHECK(x->state == CHILD_DOWN);
    int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1}, report[2] = {-1, -1}, why = 0;
    if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC) ||
        pipe2(report, O_CLOEXEC))
        why = errno;
    pid_t parent = getpid(), pid = -1;
    if (!why && (pid = fork()) < 0) why = errno;
    if (pid == 0) child_main(x, in[0], out[1], err[1], report[1], parent);
    close_fd(&in[0]);
    close_fd(&out[1]);
    close_fd(&err[1]);
    close_fd(&report[1]);
    if (pid > 0) {
        setpgid(pid, pid); /* both do it: whoever is first */
        ssize_t n;
        do n = read(report[0], &why, sizeof why); /* ends with the exec */
        while (n < 0 && errno == EINTR);
        if (n > 0)
            waitpid(pid, NULL, 0);
        else
            why = 0;
    }
    close_fd(&report[0]);
    if (why) {
        close_fd(&in[1]);
        close_fd(&out[0]);
        close_fd(&err[0]);
        engine_error_set(&x->fault, ENGINE_ERR_CRASHED, true,
                         "cannot run '%s' in %s: %s; see exec.command in its model.yaml",
                         x->yaml->exec.command.at[0], x->m->spec->dir, strerror(why));
        return false;
    }
    x->pid = pid;
    x->in = in[1];
    x->out = out[0];
    x->err = err[0];
    fcntl(x->in, F_SETFL, O_NONBLOCK);
    fcntl(x->out, F_SETFL, O_NONBLOCK);
    fcntl(x->err, F_SETFL, O_NONBLOCK);
    buf_clear(&x->words);
    x->state = CHILD_STARTING;
    x->ready_by = engine_now_ns() + (int64_t)x->yaml->exec.start_timeout_s * NS_PER_S;
    return true;
}

static void log_flush(Exec *x)
{
    log_text(x, only_sent(x), buf_str(&x->log));
    buf_clear(&x->log);
}

/* The child is gone, with everything it started in its group. Returns its wait status. */
static int child_reap(Exec *x)
{
    int status = 0;
    kill(-x->pid, SIGKILL); /* before the wait: until then the number cannot be anyone else's */
    while (waitpid(x->pid, &status, 0) < 0 && errno == EINTR) {
    }
    log_flush(x);
    close_fd(&x->in);
    close_fd(&x->out);
    close_fd(&x->err);
    buf_done(&x->to_child);
    buf_done(&x->from_child);
    x->pid = 0;
    x->state = CHILD_DOWN;
    return status;
}

/* Kills it for one call's sake; the other calls wait for its successor. */
static void child_restart(Exec *x)
{
    if (x->state == CHILD_DOWN) return;
    child_reap(x);
    LIST_FOR (c, &x->calls, Call, node) {
        c->state = CALL_WAITING;
        c->cancel_ns = 0;
        if (!c->task) call_free(c);
    }
}

/* Calls that the child had fail with `why`; when it was starting, those that waited for it too. */
static void calls_fail(Exec *x, bool starting, const EngineError *why)
{
    x->fault = *why;
    LIST_FOR (c, &x->calls, Call, node) {
        if (c->state == CALL_WAITING && !starting) continue;
        c->state = CALL_WAITING; /* no program is at it any more */
        if (c->task)
            call_fail(c, why);
        else
            call_free(c);
    }
}

/* It did wrong as a whole. */
static void child_lost(Exec *x, const EngineError *why)
{
    bool starting = x->state == CHILD_STARTING;
    child_reap(x);
    calls_fail(x, starting, why);
}

/* By somebody else, as it still might be by child_reap? Its descriptors close a moment before it
 * is a zombie. */
static bool was_killed(pid_t pid)
{
    siginfo_t info = {0};
    for (int i = 0; i < 20; i++) {
        if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0) return false;
        if (info.si_pid == pid) break;
        poll(NULL, 0, 1);
    }
    return info.si_pid == pid && info.si_code == CLD_KILLED && info.si_status == SIGKILL;
}

/* Did it end because there was no memory for it? The kernel kills without a word; programs say it
 * in these. */
static bool lacked_memory(const Exec *x, bool killed)
{
    static const char *const words[] = {"MemoryError", "bad_alloc", "ut of memory",
                                        "annot allocate memory"};
    if (killed) return true;
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (x->words.len && memmem(x->words.data, x->words.len, words[i], strlen(words[i])))
            return true;
    return false;
}

/* It ended by itself. */
static void child_ended(Exec *x)
{
    bool starting = x->state == CHILD_STARTING, killed = starting && was_killed(x->pid);
    int status = child_reap(x);
    char how[80];
    int sig = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    if (sig)
        snprintf(how, sizeof how, "by signal %d (%s)", sig, sigdescr_np(sig));
    else
        snprintf(how, sizeof how, "with exit status %d", WEXITSTATUS(status));
    EngineError why;
    bool memory = starting && lacked_memory(x, killed);
    engine_error_set(&why, memory ? ENGINE_ERR_OUT_OF_MEMORY : ENGINE_ERR_CRASHED, true,
                     "%sthe model's program ended %s%s%s%.*s",
                     memory ? "probably out of memory: " : "", how,
                     starting ? " before its ready line" : "",
                     x->words.len ? "; its last words: " : "", STR_ARG(buf_str(&x->words)));
    calls_fail(x, starting, &why);
}

/* ---- what it says ---- */

static void line_wrong(Exec *x, const char *what, Str line)
{
    EngineError why;
    engine_error_set(&why, ENGINE_ERR_BAD_OUTPUT, false,
                     "the model's program printed %s: \"%.*s%s\"; stdout is for lines of the "
                     "protocol, everything else belongs on stderr",
                     what, (int)MIN(line.n, SHOWN_MAX), line.p, line.n > SHOWN_MAX ? "…" : "");
    child_lost(x, &why);
}

static void line_ready(Exec *x, yyjson_val *o, Str line)
{
    if (!yyjson_is_true(yyjson_obj_get(o, "ready"))) {
        line_wrong(x, "another first line than {\"ready\":true}", line);
        return;
    }
    yyjson_val *max = yyjson_obj_get(o, "max_batch");
    uint64_t declared = yyjson_is_uint(max) ? yyjson_get_uint(max) : 0;
    uint64_t wanted = x->m->spec->max_batch;
    uint64_t slots = declared && wanted ? MIN(declared, wanted) : MAX(MAX(declared, wanted), 1);
    x->slots = (uint32_t)MIN(slots, SLOTS_MAX);
    x->state = CHILD_READY;
}

static void line_error(EngineTask *t, yyjson_val *error)
{
    static const EngineErrCode codes[] = {ENGINE_ERR_BAD_INPUT, ENGINE_ERR_MODEL,
                                          ENGINE_ERR_OUT_OF_MEMORY, ENGINE_ERR_BAD_OUTPUT,
                                          ENGINE_ERR_TIMEOUT};
    const char *code = yyjson_get_str(yyjson_obj_get(error, "code"));
    const char *message = yyjson_get_str(yyjson_obj_get(error, "message"));
    EngineErrCode known = ENGINE_ERR_MODEL;
    bool found = !code;
    for (size_t i = 0; code && i < ARRAY_LEN(codes); i++) {
        if (strcmp(code, engine_error_code(codes[i])) != 0) continue;
        known = codes[i];
        found = true;
    }
    engine_task_fail(t, known, yyjson_is_true(yyjson_obj_get(error, "retryable")), "%.64s%s%s",
                     found ? "" : code, found ? "" : ": ",
                     message ? message : "the model's program gave no message");
}

/* The last word on a call. */
static void line_end(Call *c, yyjson_val *output, yyjson_val *error)
{
    EngineTask *t = c->task;
    c->state = CALL_WAITING; /* its slot is free */
    if (!t) {
        call_free(c);
        return;
    }
    if (engine_task_cancel_wanted(t)) {
        engine_task_canceled(t);
    } else if (error) {
        line_error(t, error);
    } else {
        size_t n;
        char *text = yyjson_val_write(output, 0, &n);
        CHECK(text); /* it was parsed from valid text */
        buf_put(&t->output, text, n);
        free(text);
        engine_task_done(t);
    }
    call_detach(c);
}

static void line_progress(EngineTask *t, yyjson_val *progress)
{
    yyjson_val *step = yyjson_obj_get(progress, "step"), *steps = yyjson_obj_get(progress, "steps");
    if (yyjson_is_uint(steps) && yyjson_get_uint(steps) >= 1)
        t->steps = (uint32_t)MIN(yyjson_get_uint(steps), UINT32_MAX);
    if (yyjson_is_uint(step)) t->step = (uint32_t)MIN(yyjson_get_uint(step), t->steps);
}

/* The child may be gone afterwards. */
static void line_take(Exec *x, Str line)
{
    /* numbers that fit no C type stay text, and so what they are */
    yyjson_doc *doc = yyjson_read(line.p, line.n, YYJSON_READ_BIGNUM_AS_RAW);
    yyjson_val *o = yyjson_doc_get_root(doc), *id = yyjson_obj_get(o, "id");
    if (!yyjson_is_obj(o)) {
        line_wrong(x, "a line that is no JSON object", line);
    } else if (x->state == CHILD_STARTING) {
        line_ready(x, o, line);
    } else if (!yyjson_is_str(id)) {
        line_wrong(x, "a line without an \"id\"", line);
    } else {
        Call *c = call_find(x, (Str){yyjson_get_str(id), yyjson_get_len(id)});
        yyjson_val *output = yyjson_obj_get(o, "output"), *error = yyjson_obj_get(o, "error");
        yyjson_val *progress = yyjson_obj_get(o, "progress"), *text = yyjson_obj_get(o, "log");
        if (c) c->heard_ns = engine_now_ns();
        if (yyjson_is_str(text)) log_text(x, c, (Str){yyjson_get_str(text), yyjson_get_len(text)});
        if (progress && c && c->task) line_progress(c->task, progress);
        if ((output || error) && c)
            line_end(c, output, error);
        else if (!output && !error && !progress && !text)
            line_wrong(x, "a line without output, error, progress or log", line);
        /* A call that is over may be spoken of still: its cancel and its answer crossed. */
    }
    yyjson_doc_free(doc);
}

/* Takes the whole lines that have come. */
static void lines_take(Exec *x, size_t from)
{
    size_t begin = 0;
    while (x->state != CHILD_DOWN) {
        char *base = (char *)x->from_child.data;
        size_t left = x->from_child.len - from;
        char *nl = left ? memchr(base + from, '\n', left) : NULL;
        if (!nl) break;
        Str line = {base + begin, (size_t)(nl - base) - begin};
        begin = from = (size_t)(nl - base) + 1;
        if (line.n && line.p[line.n - 1] == '\r') line.n--;
        if (line.n) line_take(x, line);
    }
    if (x->state == CHILD_DOWN) return; /* and its buffers are gone */
    buf_drop(&x->from_child, begin);
    if (x->from_child.len > LINE_MAX_BYTES)
        line_wrong(x, "a line of more than 8 MiB", buf_str(&x->from_child));
}

/* ---- bytes ---- */

/* What read said: bytes, nothing yet, or the end. */
typedef enum { GOT_SOME, GOT_NONE, GOT_END } Got;

static Got read_more(int fd, Buf *into)
{
    buf_reserve(into, READ_CHUNK);
    ssize_t n = read(fd, into->data + into->len, READ_CHUNK);
    if (n > 0) into->len += (size_t)n;
    if (n > 0) return GOT_SOME;
    return n < 0 && (errno == EAGAIN || errno == EINTR) ? GOT_NONE : GOT_END;
}

/* At most one chunk a time: a program that floods its log is held back by its own full pipe. */
static void log_read(Exec *x)
{
    if (x->err < 0) return;
    size_t from = x->log.len;
    Got got = read_more(x->err, &x->log);
    Str news = {(const char *)x->log.data + from, x->log.len - from};
    if (news.n > WORDS_MAX) {
        news.p += news.n - WORDS_MAX;
        news.n = WORDS_MAX;
    }
    buf_put_str(&x->words, news);
    if (x->words.len > WORDS_MAX) buf_drop(&x->words, x->words.len - WORDS_MAX);
    if (got == GOT_END) close_fd(&x->err);
    /* Whole lines go on; a part of one waits for its rest. */
    char *nl = x->log.len ? memrchr(x->log.data, '\n', x->log.len) : NULL;
    size_t whole = nl ? (size_t)(nl - (char *)x->log.data) + 1 : 0;
    if (got == GOT_END || x->log.len - whole > LOG_LINE_MAX) whole = x->log.len;
    log_text(x, only_sent(x), (Str){(const char *)x->log.data, whole});
    buf_drop(&x->log, whole);
}

/* At most CHUNKS_MAX a time: a program that floods its stdout gets no more of us (I2). */
static void child_read(Exec *x)
{
    for (int i = 0; i < CHUNKS_MAX && x->state != CHILD_DOWN; i++) {
        size_t from = x->from_child.len;
        Got got = read_more(x->out, &x->from_child);
        if (got == GOT_NONE) return;
        if (got == GOT_SOME) {
            lines_take(x, from);
            continue;
        }
        log_read(x); /* its last words */
        child_ended(x);
    }
}

/* A grandchild may hold the pipe of a dead child open. */
static void child_watch(Exec *x)
{
    siginfo_t info = {0};
    if (x->state == CHILD_DOWN) return;
    if (waitid(P_PID, (id_t)x->pid, &info, WEXITED | WNOHANG | WNOWAIT) || info.si_pid == 0) return;
    child_read(x); /* what it said before */
    if (x->state == CHILD_DOWN) return;
    log_read(x);
    child_ended(x);
}

static void child_write(Exec *x)
{
    while (x->state != CHILD_DOWN && x->to_child.len) {
        ssize_t n = write(x->in, x->to_child.data, x->to_child.len);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return; /* full; or closed, and then its end is seen by its stdout */
        buf_drop(&x->to_child, (size_t)n);
    }
}

/* Waits for the child at most wait_ns, and takes what it says. */
static void child_pump(Exec *x, int64_t wait_ns)
{
    child_write(x);
    struct pollfd p[4] = {{.fd = x->wake, .events = POLLIN},
                          {.fd = x->out, .events = POLLIN},
                          {.fd = x->err, .events = POLLIN},
                          {.fd = x->to_child.len ? x->in : -1, .events = POLLOUT}};
    int64_t ms = (MAX(wait_ns, 0) + NS_PER_MS - 1) / NS_PER_MS;
    if (poll(p, 4, (int)MIN(ms, 1000)) < 0) return; /* interrupted: the caller comes again */
    if (p[0].revents) {
        uint64_t ignored;
        ssize_t n = read(x->wake, &ignored, sizeof ignored);
        (void)n;
    }
    if (p[2].revents) log_read(x); /* first: it tells whose lines these are */
    if (p[1].revents) child_read(x);
    child_watch(x);
    child_write(x);
}

/* ---- a step ---- */

/* {"$file": id} -> {"$file": id, "path": "…"}: false with err set when a file cannot be had. */
static bool add_paths(Exec *x, EngineTask *t, yyjson_mut_doc *doc, yyjson_mut_val *v, int depth,
                      EngineError *err)
{
    size_t i, n;
    yyjson_mut_val *key, *item;
    if (depth > DEPTH_MAX) {
        engine_error_set(err, ENGINE_ERR_BAD_INPUT, false,
                         "the input is nested over %d levels deep", DEPTH_MAX);
        return false;
    }
    if (yyjson_mut_is_arr(v)) {
        yyjson_mut_arr_foreach(v, i, n,
                               item) if (!add_paths(x, t, doc, item, depth + 1, err)) return false;
        return true;
    }
    if (!yyjson_mut_is_obj(v)) return true;
    yyjson_mut_val *file = yyjson_mut_obj_get(v, "$file");
    if (yyjson_mut_is_str(file)) {
        const EngineHost *host = x->m->host;
        Str id = {yyjson_mut_get_str(file), yyjson_mut_get_len(file)};
        const char *path = NULL;
        if (!host || !host->file_path) {
            engine_error_set(err, ENGINE_ERR_BAD_INPUT, false, "this worker has no files");
            return false;
        }
        if (host->file_path(host->ctx, t->task_ctx, id, &path, err)) return false;
        yyjson_mut_obj_remove_key(v, "path"); /* never the client's own */
        yyjson_mut_obj_add_strcpy(doc, v, "path", path);
        return true;
    }
    yyjson_mut_obj_foreach(v, i, n, key,
                           item) if (!add_paths(x, t, doc, item, depth + 1, err)) return false;
    return true;
}

/* Appends the input as one line. */
static bool put_input(Exec *x, EngineTask *t, Buf *line, EngineError *err)
{
    if (!memmem(t->input.p, t->input.n, "$file", 5)) {
        size_t from = line->len;
        buf_put_str(line, t->input);
        for (size_t i = from; i < line->len; i++) /* only between tokens can there be one */
            if (line->data[i] == '\n' || line->data[i] == '\r') line->data[i] = ' ';
        return true;
    }
    yyjson_doc *doc = yyjson_read(t->input.p, t->input.n, YYJSON_READ_BIGNUM_AS_RAW);
    yyjson_mut_doc *out = doc ? yyjson_doc_mut_copy(doc, NULL) : NULL;
    bool ok = false;
    if (!out) {
        engine_error_set(err, ENGINE_ERR_BAD_INPUT, false, "the input is not JSON");
    } else if (add_paths(x, t, out, yyjson_mut_doc_get_root(out), 0, err)) {
        size_t n;
        char *text = yyjson_mut_write(out, 0, &n);
        CHECK(text);
        buf_put(line, text, n);
        free(text);
        ok = true;
    }
    yyjson_mut_doc_free(out);
    yyjson_doc_free(doc);
    return ok;
}

static void call_send(Exec *x, Call *c)
{
    EngineError err;
    Buf line = {0};
    buf_puts(&line, "{\"id\":");
    json_put_string(&line, str_from(c->id));
    buf_printf(&line, ",\"op\":\"run\",\"attempt\":%u,\"input\":", c->task->attempt);
    if (put_input(x, c->task, &line, &err)) {
        buf_puts(&line, "}\n");
        buf_put_str(&x->to_child, buf_str(&line));
        c->state = CALL_SENT;
        c->heard_ns = engine_now_ns();
        c->cancel_ns = 0;
    } else {
        call_fail(c, &err);
    }
    buf_done(&line);
}

static void call_send_cancel(Exec *x, Call *c, int64_t now)
{
    buf_puts(&x->to_child, "{\"op\":\"cancel\",\"id\":");
    json_put_string(&x->to_child, str_from(c->id));
    buf_puts(&x->to_child, "}\n");
    c->cancel_ns = now + CANCEL_GRACE_NS;
}

/* Ends or kills what is due. Returns when to look again, at most `until`. */
static int64_t calls_check(Exec *x, int64_t now, int64_t until)
{
    int64_t silence = (int64_t)x->yaml->exec.timeout_s * NS_PER_S;
    bool restart = false;
    LIST_FOR (c, &x->calls, Call, node) {
        bool unwanted = !c->task || engine_task_cancel_wanted(c->task);
        if (c->state == CALL_WAITING) {
            if (unwanted) call_fail(c, &x->fault);
            continue;
        }
        if (unwanted && !c->cancel_ns) call_send_cancel(x, c, now);
        if (unwanted && now >= c->cancel_ns) {
            restart = true;
            if (c->task) call_fail(c, &x->fault); /* as canceled */
        } else if (!unwanted && silence && now - c->heard_ns >= silence) {
            engine_task_fail(c->task, ENGINE_ERR_TIMEOUT, true,
                             "the model's program said nothing about the task for %u s "
                             "(exec.timeout_s in its model.yaml)",
                             x->yaml->exec.timeout_s);
            call_detach(c);
            restart = true;
        } else if (unwanted) {
            until = MIN(until, c->cancel_ns);
        } else if (silence) {
            until = MIN(until, c->heard_ns + silence);
        }
    }
    if (restart) child_restart(x);
    return until;
}

static void calls_send(Exec *x)
{
    uint32_t sent = 0;
    if (x->state != CHILD_READY) return;
    LIST_FOR (c, &x->calls, Call, node)
        if (c->state == CALL_SENT) sent++;
    LIST_FOR (c, &x->calls, Call, node) {
        if (sent >= x->slots) return;
        if (c->state != CALL_WAITING) continue;
        call_send(x, c);
        sent++;
    }
}

static void child_check_start(Exec *x, int64_t now)
{
    EngineError why;
    if (x->state == CHILD_DOWN && !child_start(x)) {
        why = x->fault;
        calls_fail(x, true, &why);
    } else if (x->state == CHILD_STARTING && now >= x->ready_by) {
        log_read(x);
        engine_error_set(&why, ENGINE_ERR_TIMEOUT, true,
                         "the model's program printed no {\"ready\":true} within %u s "
                         "(exec.start_timeout_s in its model.yaml)%s%.*s",
                         x->yaml->exec.start_timeout_s, x->words.len ? "; its last words: " : "",
                         STR_ARG(buf_str(&x->words)));
        child_lost(x, &why);
    }
}

static void exec_step(EngineModel *m, EngineTask **tasks, size_t n)
{
    Exec *x = m->priv;
    int64_t now = engine_now_ns(), end = now + STEP_NS;
    for (;;) {
        int64_t until = calls_check(x, now, end);
        for (size_t i = 0; i < n; i++)
            if (tasks[i]->state != ENGINE_TASK_ACTIVE) return;
        child_check_start(x, now);
        calls_send(x);
        child_pump(x, until - now);
        now = engine_now_ns();
        if (now < end) continue;
        calls_check(x, now, end);
        return;
    }
}

/* ---- the class ---- */

static void exec_admit(EngineModel *m, EngineTask *t)
{
    Exec *x = m->priv;
    Call *c = mem_new(sizeof *c);
    c->id = mem_dup(t->id.p, t->id.n);
    c->task = t;
    list_push_back(&x->calls, &c->node);
    t->priv = c;
}

static void exec_release(EngineModel *m, EngineTask *t)
{
    Exec *x = m->priv;
    Call *c = t->priv;
    if (!c) return;
    bool sent = c->state == CALL_SENT;
    call_detach(c);
    if (!sent) return;
    if (!c->cancel_ns) call_send_cancel(x, c, engine_now_ns());
    child_write(x);
}

static void exec_cancel(EngineModel *m, EngineTask *t)
{
    (void)t;
    Exec *x = m->priv;
    uint64_t one = 1;
    ssize_t n = write(x->wake, &one, sizeof one); /* full: it is awake anyway */
    (void)n;
}

static void exec_close(EngineModel *m)
{
    Exec *x = m->priv;
    if (x->state != CHILD_DOWN) {
        close_fd(&x->in); /* the polite way to say it */
        int64_t until = engine_now_ns() + CLOSE_GRACE_NS;
        siginfo_t info = {0};
        while (engine_now_ns() < until) {
            log_read(x);
            if (waitid(P_PID, (id_t)x->pid, &info, WEXITED | WNOHANG | WNOWAIT)) break;
            if (info.si_pid) break;
            nanosleep(&(struct timespec){.tv_nsec = 5 * NS_PER_MS}, NULL);
        }
        child_reap(x);
    }
    LIST_FOR (c, &x->calls, Call, node) {
        CHECK(!c->task); /* all are released */
        call_free(c);
    }
    close_fd(&x->wake);
    for (size_t i = 0; x->env[i]; i++) mem_free(x->env[i]);
    mem_free(x->env);
    buf_done(&x->to_child);
    buf_done(&x->log);
    buf_done(&x->words);
    mem_free(x);
}

static int exec_open(EngineModel *m, EngineError *err)
{
    /* A write to a program that just ended must be an error code, not our end. */
    struct sigaction pipe_action;
    if (sigaction(SIGPIPE, NULL, &pipe_action) == 0 && pipe_action.sa_handler == SIG_DFL)
        signal(SIGPIPE, SIG_IGN);

    Exec *x = mem_new(sizeof *x);
    *x = (Exec){.m = m, .yaml = m->spec->yaml, .in = -1, .out = -1, .err = -1};
    list_init(&x->calls);
    x->env = make_env(m->spec, m->device->index);
    x->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    m->priv = x;
    if (x->wake < 0) {
        engine_error_set(err, ENGINE_ERR_MODEL, true, "eventfd: %s", strerror(errno));
        exec_close(m);
        return ERR_IO;
    }
    /* Until its ready line, so that a wrong command shows now and not with the first task. */
    child_check_start(x, engine_now_ns());
    while (x->state == CHILD_STARTING) {
        child_pump(x, STEP_NS);
        if (x->state == CHILD_STARTING) child_check_start(x, engine_now_ns());
    }
    if (x->state == CHILD_READY) return 0;
    *err = x->fault;
    exec_close(m);
    return err->code == ENGINE_ERR_OUT_OF_MEMORY ? ERR_NOMEM : ERR_INVALID;
}

static uint64_t exec_memory(EngineModel *m)
{
    const Exec *x = m->priv;
    return x->state == CHILD_DOWN ? 0 : memory_of_tree(x->pid);
}

static uint32_t exec_batch_max(EngineModel *m)
{
    Exec *x = m->priv;
    return MAX(x->slots, 1);
}

static void exec_describe(EngineModel *m, Buf *ret)
{
    buf_puts(ret, "{\"description\":");
    json_put_string(ret, str_from(m->spec->description));
    buf_putc(ret, '}');
}

const EngineClass engine_exec = {
    .name = "exec",
    .continuous = true,
    .memory = exec_memory,
    .open = exec_open,
    .close = exec_close,
    .batch_max = exec_batch_max,
    .describe = exec_describe,
    .admit = exec_admit,
    .step = exec_step,
    .cancel = exec_cancel,
    .release = exec_release,
};
