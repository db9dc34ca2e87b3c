/* nth_call.c: the n-th call of a kind fails, by LD_PRELOAD, in the server only. Which kind, which n
 * and how is in the file named by $HEADRACE_NTH, that a test writes (tests/e2e/fault.py); the calls
 * that were met are counted there, over restarts too. To be loaded before weather.so and
 * unsynced.so: what fails never reaches them.
 *
 * Kinds are what the caller means: a read of a file is READ, of a socket RECV. Descriptors of other
 * things (event descriptors, terminals, pipes, what is said on stderr) are left alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* As fault.py names them, in this order. */
typedef enum {
    CALL_OPEN,
    CALL_READ,
    CALL_WRITE,
    CALL_SYNC,
    CALL_ALLOCATE,
    CALL_TRUNCATE,
    CALL_RENAME,
    CALL_UNLINK,
    CALL_MKDIR,
    CALL_RECV,
    CALL_SEND,
    CALL_ACCEPT,
    CALL_MEMORY,
    CALL_MMAP,
    CALL_THREAD,
    CALL_DISK, /* counted beside the others: whatever changes a file */
    CALLS
} Call;

#define SHORT 0    /* half of it is done */
#define KILL  (-1) /* the process ends there, as by SIGKILL */

/* As fault.py packs it. */
typedef struct {
    int64_t call, nth, count; /* calls nth … nth + count - 1 of this kind fail; nth 0: none */
    int64_t how;              /* an errno, SHORT or KILL */
    int64_t failed;           /* counted here: those that did */
    int64_t seen[CALLS];      /* …and all */
} Nth;

static Nth *nth; /* NULL: this process is not concerned */

#define REAL(name)                                                                                 \
    ({                                                                                             \
        static __typeof__(&name) real_;                                                            \
        if (!real_) real_ = (__typeof__(&name))dlsym(RTLD_NEXT, #name);                            \
        real_;                                                                                     \
    })

__attribute__((constructor)) static void begin(int argc, char **argv)
{
    const char *file = getenv("HEADRACE_NTH");
    if (!file || argc < 2 || strcmp(argv[1], "serve") != 0) return;
    int fd = REAL(open)(file, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *p = REAL(mmap)(NULL, sizeof *nth, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (p != MAP_FAILED) nth = p;
}

/* ---- does it fail? ---- */

static int is_hit(Call call)
{
    int64_t n = __atomic_add_fetch(&nth->seen[call], 1, __ATOMIC_RELAXED);
    if (nth->call != (int64_t)call || !nth->nth || n < nth->nth || n >= nth->nth + nth->count)
        return 0;
    __atomic_add_fetch(&nth->failed, 1, __ATOMIC_RELAXED);
    if (nth->how == KILL) raise(SIGKILL);
    return 1;
}

/* -1: it fails, errno is set. 1: half of it is to be done. 0: nothing is in its way. */
static int meet(Call call)
{
    if (!nth) return 0;
    int hit = is_hit(call);
    if (call >= CALL_WRITE && call <= CALL_MKDIR) hit |= is_hit(CALL_DISK);
    if (!hit) return 0;
    if (nth->how == SHORT) return 1;
    errno = (int)nth->how;
    return -1;
}

typedef enum { OTHER, REGULAR, SOCKET } Kind;

static Kind kind_of(int fd)
{
    struct stat st;
    if (!nth || fd <= 2 || fstat(fd, &st)) return OTHER;
    return S_ISREG(st.st_mode) ? REGULAR : S_ISSOCK(st.st_mode) ? SOCKET : OTHER;
}

static size_t half(int met, size_t n)
{
    return met > 0 && n > 1 ? n / 2 : n;
}

static int meet_read(int fd)
{
    Kind k = kind_of(fd);
    return k == OTHER ? 0 : meet(k == SOCKET ? CALL_RECV : CALL_READ);
}

static int meet_write(int fd)
{
    Kind k = kind_of(fd);
    return k == OTHER ? 0 : meet(k == SOCKET ? CALL_SEND : CALL_WRITE);
}

/* ---- names ---- */

static mode_t mode_of(int how, va_list args)
{
    return how & (O_CREAT | O_TMPFILE) ? (mode_t)va_arg(args, int) : 0;
}

int open(const char *path, int how, ...)
{
    va_list args;
    va_start(args, how);
    mode_t mode = mode_of(how, args);
    va_end(args);
    return meet(CALL_OPEN) < 0 ? -1 : REAL(open)(path, how, mode);
}

int open64(const char *path, int how, ...) __attribute__((alias("open")));

int openat(int dir, const char *path, int how, ...)
{
    va_list args;
    va_start(args, how);
    mode_t mode = mode_of(how, args);
    va_end(args);
    return meet(CALL_OPEN) < 0 ? -1 : REAL(openat)(dir, path, how, mode);
}

/* What the compiler calls for an open without a mode. */
int __open64_2(const char *path, int how);
int __open64_2(const char *path, int how)
{
    return open(path, how);
}

FILE *fopen(const char *path, const char *how)
{
    return meet(CALL_OPEN) < 0 ? NULL : REAL(fopen)(path, how);
}

int rename(const char *from, const char *to)
{
    return meet(CALL_RENAME) < 0 ? -1 : REAL(rename)(from, to);
}

int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    return meet(CALL_RENAME) < 0 ? -1 : REAL(renameat)(from_dir, from, to_dir, to);
}

int unlink(const char *path)
{
    return meet(CALL_UNLINK) < 0 ? -1 : REAL(unlink)(path);
}

int unlinkat(int dir, const char *path, int how)
{
    return meet(CALL_UNLINK) < 0 ? -1 : REAL(unlinkat)(dir, path, how);
}

int mkdir(const char *path, mode_t mode)
{
    return meet(CALL_MKDIR) < 0 ? -1 : REAL(mkdir)(path, mode);
}

int mkdirat(int dir, const char *path, mode_t mode)
{
    return meet(CALL_MKDIR) < 0 ? -1 : REAL(mkdirat)(dir, path, mode);
}

/* ---- bytes ---- */

ssize_t read(int fd, void *p, size_t n)
{
    int met = meet_read(fd);
    return met < 0 ? -1 : REAL(read)(fd, p, half(met, n));
}

ssize_t pread(int fd, void *p, size_t n, off_t at)
{
    int met = meet_read(fd);
    return met < 0 ? -1 : REAL(pread)(fd, p, half(met, n), at);
}

ssize_t pread64(int fd, void *p, size_t n, off_t at) __attribute__((alias("pread")));

ssize_t write(int fd, const void *p, size_t n)
{
    int met = meet_write(fd);
    return met < 0 ? -1 : REAL(write)(fd, p, half(met, n));
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
    int met = meet_write(fd);
    return met < 0 ? -1 : REAL(pwrite)(fd, p, half(met, n), at);
}

ssize_t pwrite64(int fd, const void *p, size_t n, off_t at) __attribute__((alias("pwrite")));

ssize_t writev(int fd, const struct iovec *v, int n)
{
    int met = meet_write(fd);
    if (met > 0 && n > 0) return REAL(write)(fd, v[0].iov_base, half(met, v[0].iov_len));
    return met < 0 ? -1 : REAL(writev)(fd, v, n);
}

/* The one way by which worker.key is written. */
int __dprintf_chk(int fd, int flag, const char *format, ...);
int __dprintf_chk(int fd, int flag, const char *format, ...)
{
    char text[512];
    va_list args;
    (void)flag;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof text) abort();
    for (int done = 0; done < n;) { /* as the real one does */
        ssize_t w = write(fd, text + done, (size_t)(n - done));
        if (w < 0 && errno == EINTR) continue;
        if (w < 0) return -1;
        done += (int)w;
    }
    return n;
}

int fsync(int fd)
{
    return meet(CALL_SYNC) < 0 ? -1 : REAL(fsync)(fd);
}

int fdatasync(int fd)
{
    return meet(CALL_SYNC) < 0 ? -1 : REAL(fdatasync)(fd);
}

int fallocate(int fd, int mode, off_t at, off_t n)
{
    return meet(CALL_ALLOCATE) < 0 ? -1 : REAL(fallocate)(fd, mode, at, n);
}

int ftruncate(int fd, off_t size)
{
    return meet(CALL_TRUNCATE) < 0 ? -1 : REAL(ftruncate)(fd, size);
}

int ftruncate64(int fd, off_t size) __attribute__((alias("ftruncate")));

/* ---- sockets ---- */

ssize_t recv(int fd, void *p, size_t n, int flags)
{
    int met = meet(CALL_RECV);
    return met < 0 ? -1 : REAL(recv)(fd, p, half(met, n), flags);
}

ssize_t send(int fd, const void *p, size_t n, int flags)
{
    int met = meet(CALL_SEND);
    return met < 0 ? -1 : REAL(send)(fd, p, half(met, n), flags);
}

ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
    return meet(CALL_SEND) < 0 ? -1 : REAL(sendmsg)(fd, m, flags);
}

int accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
    return meet(CALL_ACCEPT) < 0 ? -1 : REAL(accept4)(fd, addr, len, flags);
}

/* ---- memory and threads ---- */

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);

void *malloc(size_t n)
{
    return meet(CALL_MEMORY) < 0 ? NULL : __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    return meet(CALL_MEMORY) < 0 ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    return meet(CALL_MEMORY) < 0 ? NULL : __libc_realloc(p, n);
}

void *mmap(void *at, size_t n, int prot, int flags, int fd, off_t from)
{
    return meet(CALL_MMAP) < 0 ? MAP_FAILED : REAL(mmap)(at, n, prot, flags, fd, from);
}

void *mmap64(void *at, size_t n, int prot, int flags, int fd, off_t from)
    __attribute__((alias("mmap")));

int pthread_create(pthread_t *ret, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
    if (meet(CALL_THREAD) < 0) return errno;
    return REAL(pthread_create)(ret, attr, run, arg);
}
