/* weather.c: bad weather for a real server, by LD_PRELOAD. What the clock and the disk say is
 * changed as the file named by $HEADRACE_WEATHER says: a test writes it (tests/e2e/weather.py), and
 * every call looks at it anew. Applies to files below $HEADRACE_WEATHER_DIR only.
 *
 * It stands for what cannot be had without a machine of one's own: a wall clock that steps, a log
 * device that takes a second a sync, or fails one, or becomes read-only under the server. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* As weather.py packs it. */
typedef struct {
    int64_t clock_ns;  /* added to the wall clock */
    int64_t sync_ns;   /* what a sync takes longer */
    int64_t sync_fail; /* so many syncs fail with EIO */
    int64_t write_err; /* writes fail with this errno; 0: they do not */
    int64_t room;      /* bytes by which files may still grow; -1: no limit */
    int64_t syncs;     /* counted here: syncs that were asked for */
    int64_t failures;  /* …and that failed */
} Weather;

static Weather calm = {.room = -1};
static Weather *weather = &calm;
static char folder[PATH_MAX];
static size_t folder_len;

__attribute__((constructor)) static void begin(void)
{
    const char *file = getenv("HEADRACE_WEATHER"), *dir = getenv("HEADRACE_WEATHER_DIR");
    if (!file || !dir || strlen(dir) >= sizeof folder) return;
    strcpy(folder, dir);
    folder_len = strlen(dir);
    int fd = open(file, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *p = mmap(NULL, sizeof *weather, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (p != MAP_FAILED) weather = p;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int64_t look(int64_t *field)
{
    return __atomic_load_n(field, __ATOMIC_RELAXED);
}

/* ---- the clock ---- */

static void shift(struct timespec *t)
{
    int64_t by = look(&weather->clock_ns), ns = t->tv_nsec + by % 1000000000;
    t->tv_sec += (time_t)(by / 1000000000);
    if (ns < 0 || ns >= 1000000000) {
        int64_t carry = ns < 0 ? -1 : 1;
        t->tv_sec += (time_t)carry;
        ns -= carry * 1000000000;
    }
    t->tv_nsec = (long)ns;
}

int clock_gettime(clockid_t id, struct timespec *t)
{
    static __typeof__(&clock_gettime) real;
    if (!real) real = REAL(clock_gettime);
    int err = real(id, t);
    if (!err && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) shift(t);
    return err;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone)
{
    struct timespec ts;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &ts)) return -1;
    *t = (struct timeval){ts.tv_sec, ts.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *ret)
{
    struct timespec ts;
    if (clock_gettime(CLOCK_REALTIME, &ts)) return (time_t)-1;
    if (ret) *ret = ts.tv_sec;
    return ts.tv_sec;
}

/* ---- the disk ---- */

static int is_ours(int fd)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    return n > 0 && (size_t)n > folder_len && folder_len &&
           strncmp(path, folder, folder_len) == 0 && path[folder_len] == '/';
}

static int sync_weather(int fd)
{
    int64_t takes = look(&weather->sync_ns);
    if (weather == &calm || !is_ours(fd)) return 0;
    __atomic_add_fetch(&weather->syncs, 1, __ATOMIC_RELAXED);
    if (takes > 0) {
        struct timespec t = {takes / 1000000000, (long)(takes % 1000000000)};
        nanosleep(&t, NULL);
    }
    if (look(&weather->sync_fail) <= 0) return 0;
    __atomic_sub_fetch(&weather->sync_fail, 1, __ATOMIC_RELAXED);
    __atomic_add_fetch(&weather->failures, 1, __ATOMIC_RELAXED);
    errno = EIO;
    return -1;
}

int fsync(int fd)
{
    return sync_weather(fd) ? -1 : REAL(fsync)(fd);
}

int fdatasync(int fd)
{
    return sync_weather(fd) ? -1 : REAL(fdatasync)(fd);
}

/* May the file be written up to `end`? Takes from the room what it grows by. */
static int write_weather(int fd, int64_t end)
{
    struct stat st;
    int64_t err = look(&weather->write_err), room = look(&weather->room);
    if ((!err && room < 0) || !is_ours(fd) || fstat(fd, &st) || !S_ISREG(st.st_mode)) return 0;
    if (err) {
        errno = (int)err;
        return -1;
    }
    int64_t more = end - st.st_size;
    if (more <= 0) return 0;
    if (more > room) {
        errno = ENOSPC;
        return -1;
    }
    __atomic_sub_fetch(&weather->room, more, __ATOMIC_RELAXED);
    return 0;
}

ssize_t write(int fd, const void *p, size_t n)
{
    off_t at = weather == &calm ? -1 : lseek(fd, 0, SEEK_CUR);
    if (at >= 0 && write_weather(fd, at + (int64_t)n)) return -1;
    return REAL(write)(fd, p, n);
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
    return write_weather(fd, at + (int64_t)n) ? -1 : REAL(pwrite)(fd, p, n, at);
}

int fallocate(int fd, int mode, off_t at, off_t n)
{
    return write_weather(fd, at + n) ? -1 : REAL(fallocate)(fd, mode, at, n);
}

/* What is cut off is room again. */
int ftruncate(int fd, off_t size)
{
    struct stat st;
    int counts = look(&weather->room) >= 0 && is_ours(fd) && fstat(fd, &st) == 0;
    int err = REAL(ftruncate)(fd, size);
    if (!err && counts && st.st_size > size)
        __atomic_add_fetch(&weather->room, st.st_size - size, __ATOMIC_RELAXED);
    return err;
}
