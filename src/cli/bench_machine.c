/* Processes as /proc shows them, and what the disk takes to make 4 KiB durable. */
#include "cli/bench.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#define PROBE_WRITES 300
#define PROBE_BYTES  4096

/* ---- processes ---- */

static bool read_proc(pid_t pid, const char *file, char *ret, size_t cap)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/%s", (long)pid, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, ret, cap - 1);
    if (fd >= 0) close(fd);
    if (n <= 0) return false;
    ret[n] = 0;
    return true;
}

/* proc_pid_stat(5): what follows the name, from field 3 on. NULL: no such process. */
static const char *read_stat(pid_t pid, const char *file, char *text, size_t cap)
{
    const char *end = read_proc(pid, file, text, cap) ? strrchr(text, ')') : NULL;
    return end && end[1] ? end + 2 : NULL;
}

static uint64_t status_kib(const char *status, const char *name)
{
    const char *at = strstr(status, name);
    return at ? strtoull(at + strlen(name), NULL, 10) : 0;
}

pid_t process_parent(pid_t pid)
{
    char text[1024];
    int parent = 0;
    const char *at = pid > 0 ? read_stat(pid, "stat", text, sizeof text) : NULL;
    /* NOLINTNEXTLINE(cert-err34-c): the kernel's text; its numbers fit */
    return at && sscanf(at, "%*c %d", &parent) == 1 ? (pid_t)parent : 0;
}

static double ticks_of(const char *stat)
{
    unsigned long user = 0, system = 0;
    /* fields 14 and 15: utime, stime; exact in sum, as the scheduler's clock counts them */
    /* NOLINTNEXTLINE(cert-err34-c): the kernel's text; its numbers fit */
    return stat && sscanf(stat, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
                          &system) == 2
               ? (double)(user + system) / (double)sysconf(_SC_CLK_TCK)
               : -1;
}

double thread_cpu_s(pid_t pid, pid_t tid)
{
    char file[64], text[1024];
    snprintf(file, sizeof file, "task/%ld/stat", (long)tid);
    return MAX(ticks_of(read_stat(pid, file, text, sizeof text)), 0.0);
}

size_t process_threads(pid_t pid, pid_t *ret, size_t cap)
{
    char path[64];
    size_t n = 0;
    struct dirent *e;
    snprintf(path, sizeof path, "/proc/%ld/task", (long)pid);
    DIR *d = pid > 0 ? opendir(path) : NULL;
    while (d && n < cap && (e = readdir(d)))
        if (e->d_name[0] != '.') ret[n++] = (pid_t)strtol(e->d_name, NULL, 10);
    if (d) closedir(d);
    return n;
}

bool process_use(pid_t pid, ProcessUse *ret)
{
    char text[4096];
    ProcessUse u = {.cpu_s = pid > 0 ? ticks_of(read_stat(pid, "stat", text, sizeof text)) : -1};
    if (u.cpu_s < 0 || !read_proc(pid, "status", text, sizeof text)) return false;
    u.rss = status_kib(text, "VmRSS:") * KIB;
    u.rss_peak = status_kib(text, "VmHWM:") * KIB;
    *ret = u;
    return true;
}

bool process_same_program(pid_t a, pid_t b)
{
    pid_t pids[2] = {a, b};
    char path[64], exe[2][PATH_MAX] = {"", ""};
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "/proc/%ld/exe", (long)pids[i]);
        if (pids[i] <= 1 || readlink(path, exe[i], sizeof exe[i] - 1) <= 0) return false;
    }
    return strcmp(exe[0], exe[1]) == 0;
}

/* ---- the disk ---- */

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* Overwrites, as the log does, whose segments are preallocated: the file's size stays. */
static bool probe_file(int fd, int64_t took[PROBE_WRITES])
{
    static char page[PROBE_BYTES];
    memset(page, 'p', sizeof page);
    for (off_t i = 0; i < PROBE_WRITES; i++)
        if (pwrite(fd, page, sizeof page, i * PROBE_BYTES) != PROBE_BYTES) return false;
    if (fsync(fd)) return false;
    for (off_t i = 0; i < PROBE_WRITES; i++) {
        int64_t begin = bench_now_ns();
        if (pwrite(fd, page, sizeof page, i * PROBE_BYTES) != PROBE_BYTES || fdatasync(fd))
            return false;
        took[i] = bench_now_ns() - begin;
    }
    return true;
}

int sync_probe(const char *dir, SyncProbe *ret)
{
    int64_t took[PROBE_WRITES];
    struct statfs fs;
    Buf path = {0};
    buf_printf(&path, "%s/.headrace-probe-XXXXXX", dir);
    (void)buf_z(&path);
    int fd = mkostemp((char *)path.data, O_CLOEXEC);
    bool ok = fd >= 0 && probe_file(fd, took);
    int err = errno;
    if (fd >= 0) {
        unlink((char *)path.data);
        close(fd);
    }
    buf_done(&path);
    if (!ok) {
        fail(CLI_USAGE, "cannot write in %s: %s", dir, strerror(err));
        hint("name another folder with --data DIR");
        return CLI_USAGE;
    }
    qsort(took, PROBE_WRITES, sizeof *took, by_value);
    *ret = (SyncProbe){.p50_ns = took[PROBE_WRITES / 2],
                       .p99_ns = took[PROBE_WRITES * 99 / 100],
                       .known = true,
                       .in_memory = !statfs(dir, &fs) && fs.f_type == TMPFS_MAGIC};
    return CLI_OK;
}
