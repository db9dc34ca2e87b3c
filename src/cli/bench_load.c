/* The load generator: many keep-alive connections, one thread, one request under way on each.
 *
 * It shares the machine with what it measures, so it is as light as can be: the bytes of a request
 * are made once, an answer is read in one call and looked at where it lies. Bare epoll instead of
 * libuv because of the clock: an open loop needs to wake within microseconds of a schedule, and
 * libuv's timers count milliseconds; the saved callbacks come on top.
 *
 * Open loop (rate): request i should leave at start + i / rate, whatever the server does, on any
 * connection that is free. Its latency counts from that moment, not from when it could be sent: so
 * a stall of the server is felt by all requests that it delayed (coordinated omission; Tene, "How
 * NOT to Measure Latency", 2013; the method of wrk2). What is unanswered at the end counts with its
 * age so far.
 *
 * L1  A connection is idle or has one request under way, whose answer has not been read whole.
 * L2  sent counts the tasks of all requests that were begun; it never passes tasks_max. */
#include "cli/bench.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define SCRATCH     (256 * KIB) /* one read; an answer to a batch of 100 has about 65 KiB */
#define EVENTS      256
#define ERRORS_MAX  20 /* then it is no measurement */
#define GATE_NS     (20 * NS_PER_MS)
#define TICK_NS     (500 * NS_PER_MS)
#define DRAIN_NS    (10 * NS_PER_S)
#define TASK_ID_MAX 64

typedef struct {
    int fd;
    bool busy, writing, getting, in_body;
    int64_t since_ns; /* when the request left, or should have */
    Str out;          /* what is to be sent of it; borrowed */
    AnswerHead head;
    Dechunk chunks;
    Buf in, body; /* bytes of an answer that is not whole; its body without the chunks */
    Buf get;      /* LOAD_BATCH_GET */
} Conn;

typedef struct {
    const Load *l;
    LoadResult *r;
    int epoll;
    Conn *conns;
    Conn **idle;
    size_t idle_len, busy_len;
    char *scratch;
    Buf request, output; /* output: what an echo's answer must hold */
    int64_t start_ns, from_ns, until_ns, now_ns;
    int64_t gate_ns; /* when to ask allowed again */
    int64_t tick_ns; /* the next tick */
    uint64_t budget; /* requests that it allowed */
    uint64_t sent;   /* tasks */
    uint64_t due;    /* open loop: requests begun */
    double interval_ns;
    bool marked, over;
} Run;

int64_t bench_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

/* ---- connections ---- */

static void conn_watch(Run *r, Conn *c, int how, bool writing)
{
    struct epoll_event e = {.events = EPOLLIN | (writing ? (uint32_t)EPOLLOUT : 0u), .data.ptr = c};
    c->writing = writing;
    CHECK(epoll_ctl(r->epoll, how, c->fd, &e) == 0);
}

static int conn_open(Run *r, Conn *c)
{
    const Target *t = r->l->target;
    int one = 1;
    c->fd = socket(t->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) {
        fail(CLI_FAILED, "cannot open a connection: %m");
        hint("raise the limit of open files (ulimit -n), or use fewer --connections");
        return CLI_FAILED;
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (const struct sockaddr *)&t->address, t->address_len) &&
        errno != EINPROGRESS)
        return fail(CLI_NO_SERVER, "cannot connect to the server: %m");
    conn_watch(r, c, EPOLL_CTL_ADD, true);
    return CLI_OK;
}

static void conn_close(Conn *c)
{
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    buf_clear(&c->in);
    buf_clear(&c->body);
    c->in_body = false;
}

static void stop(Run *r, int status)
{
    if (r->r->status == CLI_OK) r->r->status = status;
    r->over = true;
}

static void to_idle(Run *r, Conn *c)
{
    CHECK(c->busy);
    c->busy = false;
    r->busy_len--;
    r->idle[r->idle_len++] = c;
}

/* A connection broke. The request under way on it counts as an error. */
static void lost(Run *r, Conn *c, const char *why)
{
    bool busy = c->busy;
    conn_close(c);
    if (busy) {
        r->r->errors++;
        if (!r->over && r->r->errors >= ERRORS_MAX) {
            stop(r, fail(CLI_NO_SERVER, "%llu requests got no answer; the last one: %s",
                         (unsigned long long)r->r->errors, why));
            hint("is it the right server, and does it take so many connections?");
        }
        to_idle(r, c);
    }
    if (r->over) return;
    int status = conn_open(r, c);
    if (status != CLI_OK) stop(r, status);
}

static void send_out(Run *r, Conn *c)
{
    ssize_t n = send(c->fd, c->out.p, c->out.n, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        lost(r, c, strerror(errno));
        return;
    }
    if (n > 0) {
        c->out.p += n;
        c->out.n -= (size_t)n;
    }
    if (c->writing != (c->out.n > 0)) conn_watch(r, c, EPOLL_CTL_MOD, c->out.n > 0);
}

/* Takes an idle connection and sends the next request on it. */
static void begin(Run *r, int64_t since_ns)
{
    Conn *c = r->idle[--r->idle_len];
    c->busy = true;
    r->busy_len++;
    r->sent += r->l->lines;
    r->budget--;
    c->since_ns = since_ns;
    c->getting = false;
    c->out = buf_str(&r->request);
    send_out(r, c);
}

static bool may_begin(const Run *r)
{
    return !r->over && r->idle_len && r->budget && (!r->l->tasks_max || r->sent < r->l->tasks_max);
}

static int64_t due_ns(const Run *r)
{
    return r->start_ns + (int64_t)((double)r->due * r->interval_ns);
}

/* Sends what should be under way now. */
static void dispatch(Run *r)
{
    const Load *l = r->l;
    if (r->interval_ns > 0) {
        for (; may_begin(r) && due_ns(r) <= r->now_ns; r->due++) begin(r, due_ns(r));
        return;
    }
    if (l->allowed && r->now_ns >= r->gate_ns) {
        r->budget = l->allowed(l->allowed_ctx);
        r->now_ns = bench_now_ns();
        r->gate_ns = r->now_ns + GATE_NS;
    }
    while (may_begin(r)) begin(r, r->now_ns);
}

/* ---- answers ---- */

/* An answer that says no, or the wrong thing. The first one is shown. */
static void refused(Run *r, const char *what, Str text)
{
    LoadResult *res = r->r;
    if (res->errors++ == 0) {
        Buf said = {0};
        load_put_reason(text, &said);
        fail(CLI_REFUSED, "%s%s%s", what, said.len ? ": " : "", buf_z(&said));
        buf_done(&said);
    }
    if (res->errors >= ERRORS_MAX && !r->over)
        stop(r, fail(CLI_REFUSED, "%llu requests failed: this is no measurement",
                     (unsigned long long)res->errors));
}

/* LOAD_BATCH_GET: waits for the last task of the batch on the same connection. */
static bool ask_for_last(Run *r, Conn *c, Str line)
{
    static const char before[] = "\"task\":{\"id\":\"";
    const char *at = memmem(line.p, line.n, before, sizeof before - 1);
    const char *id = at ? at + sizeof before - 1 : NULL;
    const char *end = id ? memchr(id, '"', (size_t)(line.p + line.n - id)) : NULL;
    if (!end || end - id > TASK_ID_MAX) {
        refused(r, "a line of a batch has no task", line);
        return false;
    }
    buf_clear(&c->get);
    buf_printf(&c->get, "GET /v1/tasks/%.*s HTTP/1.1\r\nPrefer: wait=%d\r\n", (int)(end - id), id,
               LOAD_WAIT_S);
    buf_put_str(&c->get, buf_str(&r->l->target->fields));
    buf_puts(&c->get, "\r\n");
    c->getting = true;
    c->out = buf_str(&c->get);
    send_out(r, c);
    return true;
}

/* The request has ended well. */
static void succeeded(Run *r, Conn *c, Str body)
{
    LoadResult *res = r->r;
    res->tasks_all += r->l->lines;
    if (r->now_ns < r->from_ns || (r->until_ns && r->now_ns >= r->until_ns)) return;
    res->tasks += r->l->lines;
    res->requests++;
    if (r->l->kind == LOAD_ROUNDTRIP && !r->l->echo) res->device_ms += load_device_ms(body);
    if (!(r->interval_ns > 0) || c->since_ns >= r->from_ns)
        hist_add(&res->latency, (uint64_t)MAX(r->now_ns - c->since_ns, 0));
}

static void answered(Run *r, Conn *c, Str body)
{
    Str part = {"", 0};
    r->now_ns = bench_now_ns();
    const char *wrong = load_check(r->l, c->getting, c->head.status, body, buf_str(&r->output),
                                   &part);
    if (wrong)
        refused(r, wrong, part);
    else if (r->l->kind == LOAD_BATCH_GET && !c->getting && ask_for_last(r, c, part))
        return;
    else if (r->l->kind != LOAD_BATCH_GET || c->getting)
        succeeded(r, c, body);
    if (!c->busy) return; /* lost meanwhile */
    to_idle(r, c);
    if (c->head.close) {
        conn_close(c);
        int err = conn_open(r, c);
        if (err != CLI_OK) stop(r, err);
    } else if (!(r->interval_ns > 0) && may_begin(r)) {
        begin(r, r->now_ns);
    }
}

/* Reads an answer from *in as far as it is there. ERR_INVALID. */
static int take(Run *r, Conn *c, Str *in)
{
    if (!c->in_body) {
        int err = answer_head(*in, &c->head);
        if (err) return err == ERR_AGAIN ? 0 : err;
        in->p += c->head.head_len;
        in->n -= c->head.head_len;
        c->in_body = true;
        c->chunks = (Dechunk){0};
        buf_clear(&c->body);
    }
    Str body;
    if (c->head.chunked) {
        int err = dechunk(&c->chunks, in, &c->body);
        if (err || c->chunks.at != CHUNK_OVER) return err;
        body = buf_str(&c->body);
    } else {
        if (in->n < c->head.length) return 0;
        body = (Str){in->p, (size_t)c->head.length};
        in->p += body.n;
        in->n -= body.n;
    }
    c->in_body = false;
    if (in->n || !c->busy) return ERR_INVALID; /* more than was asked for */
    if (c->out.n) c->head.close = true;        /* refused before the request was whole */
    answered(r, c, body);
    return 0;
}

static void on_readable(Run *r, Conn *c)
{
    ssize_t n = recv(c->fd, r->scratch, SCRATCH, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
        lost(r, c, n ? strerror(errno) : "the server closed the connection");
        return;
    }
    Str in = {r->scratch, (size_t)n};
    bool kept = c->in.len > 0;
    if (kept) {
        buf_put_str(&c->in, in);
        in = buf_str(&c->in);
    }
    size_t before = in.n;
    if (take(r, c, &in)) {
        lost(r, c, "the answer is no HTTP/1.1");
    } else if (kept && c->in.len) {
        buf_drop(&c->in, before - in.n);
    } else if (in.n) {
        buf_put_str(&c->in, in);
    }
}

/* ---- the loop ---- */

static struct timespec time_left(const Run *r)
{
    int64_t next = r->now_ns + 100 * NS_PER_MS; /* an interrupt is seen then at the latest */
    if (!r->marked)
        next = MIN(next, r->from_ns);
    else if (r->until_ns)
        next = MIN(next, r->until_ns);
    if (r->interval_ns > 0 && r->idle_len && !r->over) next = MIN(next, due_ns(r));
    if (r->l->allowed && r->idle_len && !r->over) next = MIN(next, r->gate_ns);
    int64_t left = MAX(next - r->now_ns, 0);
    return (struct timespec){left / NS_PER_S, left % NS_PER_S};
}

static void mark(Run *r, bool begins)
{
    if (!begins) r->r->elapsed_ns = r->now_ns - r->from_ns;
    if (r->l->mark) r->l->mark(r->l->mark_ctx, begins);
    if (!begins) return;
    r->marked = true;
    r->from_ns = r->now_ns = bench_now_ns();
    if (r->until_ns) r->until_ns = r->now_ns + r->l->duration_ns;
    r->tick_ns = r->now_ns + TICK_NS;
}

static void tick(Run *r)
{
    if (!r->l->tick || !r->marked || r->now_ns < r->tick_ns) return;
    r->l->tick(r->l->mark_ctx);
    r->tick_ns += TICK_NS;
}

/* Open loop: what the server still owes at the end counts with its age so far. */
static void count_late(Run *r)
{
    for (size_t i = 0; i < r->l->connections; i++) {
        const Conn *c = &r->conns[i];
        if (!c->busy || c->since_ns < r->from_ns) continue;
        hist_add(&r->r->latency, (uint64_t)MAX(r->now_ns - c->since_ns, 0));
        r->r->late++;
    }
    for (; due_ns(r) < r->now_ns; r->due++) {
        if (due_ns(r) < r->from_ns) continue;
        hist_add(&r->r->latency, (uint64_t)(r->now_ns - due_ns(r)));
        r->r->late++;
    }
}

static void turn(Run *r)
{
    struct epoll_event events[EVENTS];
    struct timespec left = time_left(r);
    int n = epoll_pwait2(r->epoll, events, EVENTS, &left, NULL);
    r->now_ns = bench_now_ns();
    for (int i = 0; i < n; i++) {
        Conn *c = events[i].data.ptr;
        if (c->fd < 0) continue;
        if (events[i].events & EPOLLOUT) {
            if (c->out.n)
                send_out(r, c);
            else
                conn_watch(r, c, EPOLL_CTL_MOD, false); /* connected, and nothing to say yet */
        }
        if (c->fd >= 0 && events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP)) on_readable(r, c);
    }
}

static bool is_done(const Run *r)
{
    const Load *l = r->l;
    if (r->over) return true;
    if (r->until_ns) return r->now_ns >= r->until_ns;
    return r->sent >= l->tasks_max && !r->busy_len;
}

static void loop(Run *r)
{
    if (r->from_ns <= r->now_ns) mark(r, true);
    do {
        dispatch(r);
        turn(r);
        if (bench_interrupted()) stop(r, CLI_INTERRUPTED);
        if (!r->marked && r->now_ns >= r->from_ns) mark(r, true);
        tick(r);
    } while (!is_done(r));
    mark(r, false);
    if (r->interval_ns > 0 && !r->over) count_late(r);
    r->over = true;
    int64_t give_up = r->now_ns + DRAIN_NS;
    while (r->busy_len && r->r->status == CLI_OK && r->now_ns < give_up && !bench_interrupted())
        turn(r);
}

int load_run(const Load *l, LoadResult *ret)
{
    Run r = {.l = l, .r = ret, .scratch = mem_new(SCRATCH), .epoll = epoll_create1(EPOLL_CLOEXEC)};
    CHECK(r.epoll >= 0 && l->lines > 0 && l->connections > 0);
    CHECK(l->duration_ns || l->tasks_max);
    *ret = (LoadResult){0};
    prctl(PR_SET_TIMERSLACK, 1UL); /* ns; the default of 50 us would blur the schedule */
    load_put_request(l, &r.request);
    if (l->echo) load_put_output(l, &r.output);
    r.conns = mem_new(l->connections * sizeof *r.conns);
    r.idle = mem_new(l->connections * sizeof *r.idle);
    for (size_t i = 0; i < l->connections; i++) r.conns[i].fd = -1;
    for (size_t i = 0; i < l->connections && ret->status == CLI_OK; i++) {
        ret->status = conn_open(&r, &r.conns[i]);
        r.idle[r.idle_len++] = &r.conns[i];
    }
    r.budget = l->allowed ? 0 : UINT64_MAX;
    r.start_ns = r.now_ns = bench_now_ns();
    r.from_ns = r.start_ns + l->warmup_ns;
    r.until_ns = l->duration_ns ? r.from_ns + l->duration_ns : 0;
    if (l->rate > 0) r.interval_ns = 1e9 * l->lines / l->rate;
    if (ret->status == CLI_OK) loop(&r);
    for (size_t i = 0; i < l->connections; i++) {
        Conn *c = &r.conns[i];
        conn_close(c);
        buf_done(&c->in);
        buf_done(&c->body);
        buf_done(&c->get);
    }
    close(r.epoll);
    mem_free(r.conns);
    mem_free(r.idle);
    mem_free(r.scratch);
    buf_done(&r.request);
    buf_done(&r.output);
    return ret->status;
}
