/* The load generator for the peers: a closed loop of clients and workers, and what it measures.
 *   drive --port N [--variant V] [--clients N] [--batch N] [--seconds S] [--warmup S] [--fill N]
 * Says "begin" and "end" around the measured time, so that who started it can read the server's
 * CPU, then one line of JSON. With --fill: puts so many tasks, in thousands, says "filled", and
 * waits for its stdin's end. */
#include "drive.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define READ_STEP   65536
#define STALL_S     20
#define EVENTS_MAX  256
#define SAMPLES_MAX (8u << 20)

Drive drive = {.clients = 64, .batch = 1};

static int epoll_fd;
static Conn *conns; /* clients, then workers */
static uint32_t conns_len;
static Conn **dirty;
static uint32_t dirty_len;
static Conn **idle;
static uint32_t idle_len;
static int64_t queued; /* durable and not taken yet, as far as heard */
static int64_t asked;  /* workers that were not answered yet */

static uint32_t *samples_us; /* of every batch that came back in the measured time */
static uint32_t samples_len;
static uint64_t tasks;     /* came back in the measured time */
static uint64_t fill_left; /* to put */
static uint64_t fill_wait; /* on their way */
static bool measuring;

void drive_fail(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("drive: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* ---- buffers ---- */

static void room(Buf *b, size_t n)
{
    if (b->cap - b->len >= n) return;
    b->cap = (b->len + n) * 2;
    b->data = realloc(b->data, b->cap);
    CHECK(b->data);
}

void put_bytes(Buf *b, const void *p, size_t n)
{
    room(b, n);
    memcpy(b->data + b->len, p, n);
    b->len += n;
}

void put_fmt(Buf *b, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    CHECK(n >= 0 && (size_t)n < sizeof text);
    put_bytes(b, text, (size_t)n);
}

/* ---- connections ---- */

int drive_connect(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(port),
                             .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to))
        drive_fail("cannot connect to 127.0.0.1:%u: %s", port, strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

/* false: nothing there */
static bool read_some(Conn *c)
{
    if (c->in_used) {
        memmove(c->in.data, c->in.data + c->in_used, c->in.len - c->in_used);
        c->in.len -= c->in_used;
        c->in_used = 0;
    }
    room(&c->in, READ_STEP);
    ssize_t n = read(c->fd, c->in.data + c->in.len, c->in.cap - c->in.len);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    if (n <= 0) drive_fail("the server closed a connection: %s", n ? strerror(errno) : "end");
    c->in.len += (size_t)n;
    return true;
}

void drive_read_more(Conn *c)
{
    while (!read_some(c)) continue;
}

/* true: there is more to send */
static bool send_some(Conn *c)
{
    size_t sent = 0;
    while (sent < c->out.len) {
        ssize_t n = write(c->fd, c->out.data + sent, c->out.len - sent);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) break;
        if (n < 0) drive_fail("cannot send: %s", strerror(errno));
        sent += (size_t)n;
    }
    memmove(c->out.data, c->out.data + sent, c->out.len - sent);
    c->out.len -= sent;
    return c->out.len > 0;
}

void drive_send_all(Conn *c)
{
    while (c->out.len && send_some(c)) continue;
}

void drive_dirty(Conn *c)
{
    if (c->dirty) return;
    c->dirty = true;
    dirty[dirty_len++] = c;
}

static void flush_all(void)
{
    while (dirty_len) {
        Conn *c = dirty[--dirty_len];
        c->dirty = false;
        bool more = peer.own_io ? peer.flush(c) : c->out.len && send_some(c);
        if (more == c->writing) continue;
        c->writing = more;
        struct epoll_event e = {.events = EPOLLIN | (more ? EPOLLOUT : 0u), .data.ptr = c};
        epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
    }
}

static void open_one(Conn *c)
{
    peer.open(c);
    fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) | O_NONBLOCK);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    CHECK(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &e) == 0);
}

/* ---- the closed loop ---- */

const char *drive_payload(const Conn *client, uint32_t i)
{
    static char text[PAYLOAD + 1];
    int n = snprintf(text, sizeof text, "%08u-%012llu-%06u-", client->index,
                     (unsigned long long)client->batches, i);
    memset(text + n, 'x', PAYLOAD - (size_t)n);
    return text;
}

uint32_t drive_client_of(const char *payload)
{
    uint32_t v = 0;
    for (int i = 0; i < 8; i++) v = v * 10 + (uint32_t)(payload[i] - '0');
    CHECK(v < drive.clients);
    return v;
}

static void put_batch(Conn *c)
{
    if (drive.fill) {
        if (!fill_left) return;
        fill_left -= drive.batch;
        fill_wait += drive.batch;
    }
    c->acked = c->done = 0;
    c->batches++;
    c->put_ns = now_ns();
    peer.put(c);
    drive_dirty(c);
}

static void come_back(Conn *c)
{
    CHECK(c->acked <= drive.batch && c->done <= drive.batch);
    if (c->acked < drive.batch || (c->done < drive.batch && !drive.fill)) return;
    if (measuring && samples_len < SAMPLES_MAX)
        samples_us[samples_len++] = (uint32_t)((now_ns() - c->put_ns) / 1000);
    put_batch(c);
}

static void wake(void)
{
    int64_t n = (queued + drive.batch - 1) / drive.batch - asked;
    for (; n > 0 && idle_len; n--) {
        Conn *w = idle[--idle_len];
        w->idle = false;
        peer.take(w);
        drive_dirty(w);
    }
}

void drive_acked(Conn *c, uint32_t n)
{
    c->acked += n;
    queued += n;
    if (drive.fill) fill_wait -= n;
    if (peer.wakes && !drive.fill) wake();
    come_back(c);
}

void drive_asked(void)
{
    asked++;
}

void drive_taken(uint32_t n)
{
    asked--;
    queued -= n;
}

void drive_idle(Conn *w)
{
    CHECK(!w->idle);
    w->idle = true;
    idle[idle_len++] = w;
    wake();
}

void drive_done(uint32_t client, uint32_t n)
{
    conns[client].done += n;
    if (measuring) tasks += n;
    come_back(&conns[client]);
}

/* ---- the run ---- */

/* Until then, or until all that is to be filled is. */
static void run_until(int64_t until)
{
    static int64_t stalled_since;
    struct epoll_event events[EVENTS_MAX];
    flush_all();
    while (now_ns() < until && !(drive.fill && !fill_left && !fill_wait)) {
        int n = epoll_wait(epoll_fd, events, EVENTS_MAX, 100);
        if (n > 0)
            stalled_since = 0;
        else if (!stalled_since)
            stalled_since = now_ns();
        else if (now_ns() - stalled_since > STALL_S * 1000000000LL)
            drive_fail("nothing came for %d s", STALL_S);
        for (int i = 0; i < n; i++) {
            Conn *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) drive_dirty(c);
            if (!(events[i].events & ~(uint32_t)EPOLLOUT)) continue;
            if (peer.own_io || read_some(c)) peer.input(c);
        }
        flush_all();
    }
}

static double cpu_s(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static double at_ms(double q)
{
    return samples_len ? samples_us[(uint32_t)((double)(samples_len - 1) * q)] / 1000.0 : 0;
}

static void say(const char *word)
{
    puts(word);
    fflush(stdout);
}

static void measure(double warmup_s, double seconds)
{
    samples_us = malloc(SAMPLES_MAX * sizeof *samples_us);
    CHECK(samples_us);
    for (uint32_t i = drive.clients; i < conns_len; i++) {
        if (peer.wakes)
            drive_idle(&conns[i]);
        else
            peer.take(&conns[i]);
        drive_dirty(&conns[i]);
    }
    for (uint32_t i = 0; i < drive.clients; i++) put_batch(&conns[i]);
    run_until(now_ns() + (int64_t)(warmup_s * 1e9));
    say("begin");
    double cpu = cpu_s();
    int64_t begin = now_ns();
    measuring = true;
    run_until(begin + (int64_t)(seconds * 1e9));
    measuring = false;
    double elapsed = (double)(now_ns() - begin) / 1e9;
    cpu = cpu_s() - cpu;
    say("end");
    qsort(samples_us, samples_len, sizeof *samples_us, by_value);
    printf("{\"tasks\":%llu,\"elapsed_s\":%.4f,\"tasks_per_s\":%.2f,\"p50_ms\":%.3f,"
           "\"p99_ms\":%.3f,\"client_cpu_s\":%.3f}\n",
           (unsigned long long)tasks, elapsed, (double)tasks / elapsed, at_ms(0.5), at_ms(0.99),
           cpu);
    if (!tasks) drive_fail("no task came back");
}

static void fill(uint64_t n)
{
    fill_left = n = (n + BATCH_MAX - 1) / BATCH_MAX * BATCH_MAX;
    int64_t begin = now_ns();
    for (uint32_t i = 0; i < drive.clients; i++) put_batch(&conns[i]);
    run_until(INT64_MAX);
    printf("filled\n{\"tasks\":%llu,\"elapsed_s\":%.3f}\n", (unsigned long long)n,
           (double)(now_ns() - begin) / 1e9);
    fflush(stdout);
    while (getchar() != EOF) continue;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"port", 1, 0, 'p'},  {"variant", 1, 0, 'v'}, {"clients", 1, 0, 'c'},
        {"batch", 1, 0, 'b'}, {"seconds", 1, 0, 's'}, {"warmup", 1, 0, 'w'},
        {"fill", 1, 0, 'f'},  {0, 0, 0, 0},
    };
    double seconds = 3, warmup_s = 1;
    uint64_t fill_tasks = 0;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGPIPE, SIG_IGN);
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) >= 0;) {
        if (o == 'p') drive.port = (uint16_t)atoi(optarg);
        if (o == 'v') drive.variant = optarg;
        if (o == 'c') drive.clients = (uint32_t)atoi(optarg);
        if (o == 'b') drive.batch = (uint32_t)atoi(optarg);
        if (o == 's') seconds = atof(optarg);
        if (o == 'w') warmup_s = atof(optarg);
        if (o == 'f') fill_tasks = strtoull(optarg, NULL, 10);
        if (o == '?') return 2;
    }
    if (!drive.port || !drive.clients || !drive.batch || drive.batch > BATCH_MAX)
        drive_fail("--port is needed, clients and batch from 1 on, batch to %d", BATCH_MAX);
    drive.fill = fill_tasks > 0;
    if (drive.fill) drive.batch = BATCH_MAX;
    drive.workers = drive.fill ? 0 : drive.clients; /* a worker a client */
    conns_len = drive.clients + drive.workers;
    conns = calloc(conns_len, sizeof *conns);
    dirty = calloc(conns_len, sizeof(Conn *));
    idle = calloc(conns_len, sizeof(Conn *));
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    CHECK(conns && dirty && idle && epoll_fd >= 0);
    peer.setup();
    for (uint32_t i = 0; i < conns_len; i++) {
        conns[i].worker = i >= drive.clients;
        conns[i].index = conns[i].worker ? i - drive.clients : i;
        open_one(&conns[i]);
    }
    if (drive.fill)
        fill(fill_tasks);
    else
        measure(warmup_s, seconds);
    return 0;
}
