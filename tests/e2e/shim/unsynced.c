/* unsynced.c: remembers what a power cut would undo, by LD_PRELOAD, in the server only (after
 * LazyFS, but without a mount). Before a file below $HEADRACE_UNSYNCED_DIR changes, what it held
 * goes to a journal in the folder $HEADRACE_UNSYNCED; a sync that succeeded is noted there too. The
 * journal outlives a SIGKILL as the page cache does; tests/e2e/fault.py then undoes, from the end,
 * what no sync covers.
 *
 *  U1  An entry is in the journal before its change is in the file; a sync's entry comes after the
 *      sync, a creation's after the creation. A kill between the two loses what might be lost.
 *  U2  A sync covers the entries of its inode before the place that the journal had reached when
 *      the sync began.
 *  U3  A name (creation, renaming, removal) is covered by a sync of its folder, by nothing else.
 *  U4  Every inode that is written has a second name, its number, beside the journal: it outlives
 *      its removal. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

typedef enum { WROTE = 1, TRUNCATED, SYNCED, CREATED, RENAMED, UNLINKED, MADE_DIR } What;

/* As fault.py unpacks it; `bytes` bytes follow. */
typedef struct {
    uint64_t what, inode;
    uint64_t at;     /* offset; TRUNCATED: new size; SYNCED: see U2; names: their folder */
    uint64_t len;    /* WROTE: bytes; RENAMED: the inode of the folder that it went to */
    uint64_t before; /* WROTE, TRUNCATED: size before; RENAMED: the inode it replaced */
    uint64_t bytes;  /* old content, from `at` on; or names, each with its NUL */
} Entry;

static char folder[PATH_MAX], place[PATH_MAX];
static size_t folder_len;
static int journal = -1; /* -1: this process is not concerned */
static uint64_t journal_len;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static uint64_t linked[4096]; /* inodes that have their second name, by their last 12 bits */

#define REAL(name)                                                                                 \
    ({                                                                                             \
        static __typeof__(&name) real_;                                                            \
        if (!real_) real_ = (__typeof__(&name))dlsym(RTLD_NEXT, #name);                            \
        real_;                                                                                     \
    })

__attribute__((constructor)) static void begin(int argc, char **argv)
{
    const char *to = getenv("HEADRACE_UNSYNCED"), *dir = getenv("HEADRACE_UNSYNCED_DIR");
    if (!to || !dir || argc < 2 || strcmp(argv[1], "serve") != 0) return;
    if (strlen(dir) >= sizeof folder || strlen(to) >= sizeof place - 32) return;
    strcpy(folder, dir);
    strcpy(place, to);
    folder_len = strlen(dir);
    char path[PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/journal", place);
    journal = REAL(open)(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    struct stat st;
    if (journal < 0 || fstat(journal, &st)) abort();
    journal_len = (uint64_t)st.st_size;
}

/* ---- the journal: with the mutex ---- */

static void put(Entry e, const void *bytes)
{
    struct iovec v[2] = {{&e, sizeof e}, {(void *)(uintptr_t)bytes, e.bytes}};
    ssize_t n = REAL(writev)(journal, v, e.bytes ? 2 : 1);
    if (n != (ssize_t)(sizeof e + e.bytes)) {
        fprintf(stderr, "unsynced.so: cannot write the journal\n");
        abort();
    }
    journal_len += (uint64_t)n;
}

static int is_below(const char *path)
{
    return strncmp(path, folder, folder_len) == 0 && path[folder_len] == '/';
}

static int fd_stat(int fd, mode_t type, struct stat *st)
{
    char link[64], path[PATH_MAX];
    if (journal < 0 || fstat(fd, st) || (st->st_mode & S_IFMT) != type) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    return is_below(path) || (type == S_IFDIR && strcmp(path, folder) == 0);
}

/* U4 */
static void keep(const char *path, uint64_t inode)
{
    char to[PATH_MAX + 32];
    uint64_t *known = &linked[inode % (sizeof linked / sizeof *linked)];
    if (*known == inode) return;
    snprintf(to, sizeof to, "%s/%llu", place, (unsigned long long)inode);
    int was = errno; /* a name that is there already, a file without names: both are well */
    (void)!linkat(AT_FDCWD, path, AT_FDCWD, to, AT_SYMLINK_FOLLOW);
    errno = was;
    *known = inode;
}

static void keep_fd(int fd, uint64_t inode)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    keep(link, inode);
}

void *__libc_malloc(size_t n); /* malloc may be preloaded too */

/* What the file holds from `at` on, n bytes of it. */
static void put_old(int fd, Entry e, uint64_t n)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    char *old = n ? __libc_malloc(n) : NULL;
    int in = n ? REAL(open)(link, O_RDONLY | O_CLOEXEC) : -1;
    for (uint64_t done = 0; done < n;) {
        ssize_t r = in < 0 || !old ? -1
                                   : REAL(pread)(in, old + done, n - done, (off_t)(e.at + done));
        if (r <= 0) {
            fprintf(stderr, "unsynced.so: cannot read what a file holds\n");
            abort();
        }
        done += (uint64_t)r;
    }
    if (in >= 0) close(in);
    e.bytes = n;
    put(e, old);
    free(old);
}

static void will_write(int fd, const struct stat *st, uint64_t at, uint64_t len)
{
    uint64_t size = (uint64_t)st->st_size;
    keep_fd(fd, st->st_ino);
    put_old(fd, (Entry){.what = WROTE, .inode = st->st_ino, .at = at, .len = len, .before = size},
            at >= size        ? 0
            : len < size - at ? len
                              : size - at);
}

static void will_truncate(int fd, const struct stat *st, uint64_t to)
{
    uint64_t size = (uint64_t)st->st_size;
    keep_fd(fd, st->st_ino);
    put_old(fd, (Entry){.what = TRUNCATED, .inode = st->st_ino, .at = to, .before = size},
            to < size ? size - to : 0);
}

/* ---- bytes ---- */

static int64_t place_of(int fd, const struct stat *st)
{
    return fcntl(fd, F_GETFL) & O_APPEND ? (int64_t)st->st_size : (int64_t)lseek(fd, 0, SEEK_CUR);
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
    struct stat st;
    if (!fd_stat(fd, S_IFREG, &st)) return REAL(pwrite)(fd, p, n, at);
    pthread_mutex_lock(&mutex);
    if (fstat(fd, &st) == 0) will_write(fd, &st, (uint64_t)at, n);
    ssize_t done = REAL(pwrite)(fd, p, n, at);
    pthread_mutex_unlock(&mutex);
    return done;
}

ssize_t pwrite64(int fd, const void *p, size_t n, off_t at) __attribute__((alias("pwrite")));

ssize_t write(int fd, const void *p, size_t n)
{
    struct stat st;
    if (!fd_stat(fd, S_IFREG, &st)) return REAL(write)(fd, p, n);
    pthread_mutex_lock(&mutex);
    if (fstat(fd, &st) == 0) will_write(fd, &st, (uint64_t)place_of(fd, &st), n);
    ssize_t done = REAL(write)(fd, p, n);
    pthread_mutex_unlock(&mutex);
    return done;
}

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
    return (int)write(fd, text, (size_t)n);
}

int ftruncate(int fd, off_t size)
{
    struct stat st;
    if (!fd_stat(fd, S_IFREG, &st)) return REAL(ftruncate)(fd, size);
    pthread_mutex_lock(&mutex);
    if (fstat(fd, &st) == 0) will_truncate(fd, &st, (uint64_t)size);
    int err = REAL(ftruncate)(fd, size);
    pthread_mutex_unlock(&mutex);
    return err;
}

int ftruncate64(int fd, off_t size) __attribute__((alias("ftruncate")));

/* What it adds is zeroes behind the end. */
int fallocate(int fd, int mode, off_t at, off_t n)
{
    struct stat st;
    if (mode || !fd_stat(fd, S_IFREG, &st)) return REAL(fallocate)(fd, mode, at, n);
    pthread_mutex_lock(&mutex);
    if (fstat(fd, &st) == 0 && at + n > st.st_size)
        will_write(fd, &st, (uint64_t)st.st_size, (uint64_t)(at + n - st.st_size));
    int err = REAL(fallocate)(fd, mode, at, n);
    pthread_mutex_unlock(&mutex);
    return err;
}

static int sync_with(int (*real)(int), int fd)
{
    struct stat st;
    if (!fd_stat(fd, S_IFREG, &st) && !fd_stat(fd, S_IFDIR, &st)) return real(fd);
    pthread_mutex_lock(&mutex);
    uint64_t reached = journal_len;
    pthread_mutex_unlock(&mutex);
    int err = real(fd);
    if (err) return err;
    pthread_mutex_lock(&mutex);
    put((Entry){.what = SYNCED, .inode = st.st_ino, .at = reached}, NULL);
    pthread_mutex_unlock(&mutex);
    return 0;
}

int fsync(int fd)
{
    return sync_with(REAL(fsync), fd);
}

int fdatasync(int fd)
{
    return sync_with(REAL(fdatasync), fd);
}

/* ---- names ---- */

/* The whole path of a name, and the inode of its folder. 0: not one of ours. */
static uint64_t whole_path(int dir, const char *name, char ret[PATH_MAX])
{
    struct stat st;
    if (journal < 0) return 0;
    if (name[0] == '/') {
        if (strlen(name) >= PATH_MAX) return 0;
        strcpy(ret, name);
    } else {
        char link[64];
        snprintf(link, sizeof link, dir == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", dir);
        ssize_t n = readlink(link, ret, PATH_MAX - 1);
        if (n <= 0 || (size_t)n + strlen(name) + 2 > PATH_MAX) return 0;
        ret[n] = '/';
        strcpy(ret + n + 1, name);
    }
    if (!is_below(ret)) return 0;
    char *slash = strrchr(ret, '/');
    *slash = 0;
    int there = stat(ret, &st) == 0;
    *slash = '/';
    return there ? (uint64_t)st.st_ino : 0;
}

static void put_names(Entry e, const char *one, const char *two)
{
    char names[2 * PATH_MAX];
    size_t n = strlen(one) + 1, m = two ? strlen(two) + 1 : 0;
    memcpy(names, one, n);
    if (m) memcpy(names + n, two, m);
    e.bytes = n + m;
    put(e, names);
}

static int open_with(int dir, const char *name, int how, mode_t mode)
{
    char path[PATH_MAX];
    struct stat st;
    uint64_t up = how & (O_CREAT | O_TRUNC) ? whole_path(dir, name, path) : 0;
    if (!up) return REAL(openat)(dir, name, how, mode);
    pthread_mutex_lock(&mutex);
    int was_there = stat(path, &st) == 0;
    if (was_there && how & O_TRUNC && !(how & O_EXCL) && st.st_size) {
        int fd = REAL(open)(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0) will_truncate(fd, &st, 0);
        if (fd >= 0) close(fd);
    }
    int fd = REAL(openat)(dir, name, how, mode);
    int err = errno;
    if (fd >= 0 && !was_there && fstat(fd, &st) == 0) {
        keep_fd(fd, st.st_ino);
        put_names((Entry){.what = CREATED, .inode = st.st_ino, .at = up}, path, NULL);
    }
    pthread_mutex_unlock(&mutex);
    errno = err;
    return fd;
}

int open(const char *path, int how, ...)
{
    va_list args;
    va_start(args, how);
    mode_t mode = how & (O_CREAT | O_TMPFILE) ? (mode_t)va_arg(args, int) : 0;
    va_end(args);
    return open_with(AT_FDCWD, path, how, mode);
}

int open64(const char *path, int how, ...) __attribute__((alias("open")));

int openat(int dir, const char *path, int how, ...)
{
    va_list args;
    va_start(args, how);
    mode_t mode = how & (O_CREAT | O_TMPFILE) ? (mode_t)va_arg(args, int) : 0;
    va_end(args);
    return open_with(dir, path, how, mode);
}

int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    char one[PATH_MAX], two[PATH_MAX];
    struct stat st, old;
    uint64_t up = whole_path(from_dir, from, one), down = whole_path(to_dir, to, two);
    if (!up || !down || lstat(one, &st)) return REAL(renameat)(from_dir, from, to_dir, to);
    pthread_mutex_lock(&mutex);
    int replaces = lstat(two, &old) == 0;
    if (S_ISREG(st.st_mode)) keep(one, st.st_ino);
    if (replaces) keep(two, old.st_ino);
    put_names((Entry){.what = RENAMED,
                      .inode = st.st_ino,
                      .at = up,
                      .len = down,
                      .before = replaces ? old.st_ino : 0},
              one, two);
    int err = REAL(renameat)(from_dir, from, to_dir, to);
    pthread_mutex_unlock(&mutex);
    return err;
}

int rename(const char *from, const char *to)
{
    return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

int unlinkat(int dir, const char *name, int how)
{
    char path[PATH_MAX];
    struct stat st;
    uint64_t up = whole_path(dir, name, path);
    if (how || !up || lstat(path, &st) || !S_ISREG(st.st_mode))
        return REAL(unlinkat)(dir, name, how);
    pthread_mutex_lock(&mutex);
    keep(path, st.st_ino);
    put_names((Entry){.what = UNLINKED, .inode = st.st_ino, .at = up}, path, NULL);
    int err = REAL(unlinkat)(dir, name, how);
    pthread_mutex_unlock(&mutex);
    return err;
}

int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}

int mkdirat(int dir, const char *name, mode_t mode)
{
    char path[PATH_MAX];
    struct stat st;
    uint64_t up = whole_path(dir, name, path);
    if (!up) return REAL(mkdirat)(dir, name, mode);
    pthread_mutex_lock(&mutex);
    int err = REAL(mkdirat)(dir, name, mode);
    int why = errno;
    if (!err && stat(path, &st) == 0)
        put_names((Entry){.what = MADE_DIR, .inode = st.st_ino, .at = up}, path, NULL);
    pthread_mutex_unlock(&mutex);
    errno = why;
    return err;
}

int mkdir(const char *path, mode_t mode)
{
    return mkdirat(AT_FDCWD, path, mode);
}
