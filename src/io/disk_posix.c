/* disk_posix.c: the real disk: files below one directory, all names taken relative to its
 * descriptor, so that renaming or mounting over the path while we run changes nothing. */
#include "io/disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
    Disk base;
    int dir;
} PosixDisk;

typedef struct {
    DiskFile base;
    int fd;
} PosixFile;

static const DiskOps posix_ops;

static int err_of(int error)
{
    switch (error) {
    case ENOENT:
        return ERR_NOT_FOUND;
    case EEXIST:
        return ERR_EXISTS;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return ERR_NOSPC;
    case EROFS:
        return ERR_READONLY;
    case EACCES:
    case EPERM:
        return ERR_PERMISSION;
    case ENOMEM:
        return ERR_NOMEM;
    default:
        return ERR_IO;
    }
}

static int dir_of(Disk *d)
{
    return ((PosixDisk *)(void *)d)->dir;
}

static int fd_of(DiskFile *f)
{
    return ((PosixFile *)(void *)f)->fd;
}

/* "a" or "a/b", nothing that climbs: names come from our own code, so anything else is our mistake.
 */
static void check_name(const char *name)
{
    const char *slash = strchr(name, '/');
    CHECK(name[0] && name[0] != '/' && !strstr(name, ".."));
    CHECK(!slash || (slash[1] && !strchr(slash + 1, '/')));
}

static DiskFile *file_new(int fd)
{
    PosixFile *f = mem_new(sizeof *f);
    f->base.ops = &posix_ops;
    f->fd = fd;
    return &f->base;
}

static int posix_open(Disk *d, const char *name, int flags, DiskFile **ret)
{
    check_name(name);
    int how = O_CLOEXEC | O_NOFOLLOW | (flags & DISK_WRITE ? O_RDWR : O_RDONLY);
    if (flags & DISK_CREATE) how |= O_CREAT;
    if (flags & DISK_EXCLUSIVE) how |= O_EXCL;
    int fd = openat(dir_of(d), name, how, 0600);
    if (fd < 0) return err_of(errno);
    *ret = file_new(fd);
    return 0;
}

static void posix_close(DiskFile *f)
{
    if (!f) return;
    close(fd_of(f));
    mem_free(f);
}

static int posix_size(DiskFile *f, uint64_t *ret)
{
    struct stat st;
    if (fstat(fd_of(f), &st) != 0) return err_of(errno);
    *ret = (uint64_t)st.st_size;
    return 0;
}

static int posix_read(DiskFile *f, uint64_t at, void *p, size_t n, size_t *ret_n)
{
    size_t got = 0;
    while (got < n) {
        ssize_t r = pread(fd_of(f), (char *)p + got, n - got, (off_t)(at + got));
        if (r < 0 && errno == EINTR) continue;
        if (r < 0) return err_of(errno);
        if (r == 0) break;
        got += (size_t)r;
    }
    *ret_n = got;
    return 0;
}

static int posix_write(DiskFile *f, uint64_t at, const void *p, size_t n)
{
    size_t done = 0;
    while (done < n) {
        ssize_t w = pwrite(fd_of(f), (const char *)p + done, n - done, (off_t)(at + done));
        if (w < 0 && errno == EINTR) continue;
        if (w < 0) return err_of(errno);
        if (w == 0) return ERR_IO;
        done += (size_t)w;
    }
    return 0;
}

static int posix_sync(DiskFile *f)
{
    return fdatasync(fd_of(f)) == 0
               ? 0
               : ERR_IO; /* whatever the reason: what was written is in doubt */
}

static int posix_allocate(DiskFile *f, uint64_t at, uint64_t n)
{
    static const uint8_t zeroes[256 * 1024];
    uint64_t before;
    int err = posix_size(f, &before);
    if (err) return err;
    /* The blocks first, all or nothing; then zeroes, so that later writes change no metadata. */
    if (fallocate(fd_of(f), 0, (off_t)at, (off_t)n) != 0 && errno != EOPNOTSUPP &&
        errno != ENOSYS && errno != EINTR)
        err = err_of(errno);
    for (uint64_t done = 0; !err && done < n;) {
        size_t step = (size_t)MIN(n - done, sizeof zeroes);
        err = posix_write(f, at + done, zeroes, step);
        done += step;
    }
    if (err == ERR_NOSPC && before <= at) {
        /* What little was left goes back to others. */
        int ignored = ftruncate(fd_of(f), (off_t)before);
        (void)ignored;
    }
    return err;
}

static int posix_truncate(DiskFile *f, uint64_t size)
{
    return ftruncate(fd_of(f), (off_t)size) == 0 ? 0 : err_of(errno);
}

static int posix_rename(Disk *d, const char *from, const char *to)
{
    check_name(from);
    check_name(to);
    return renameat(dir_of(d), from, dir_of(d), to) == 0 ? 0 : err_of(errno);
}

static int posix_unlink(Disk *d, const char *name)
{
    check_name(name);
    return unlinkat(dir_of(d), name, 0) == 0 ? 0 : err_of(errno);
}

static int posix_make_dir(Disk *d, const char *name)
{
    check_name(name);
    return mkdirat(dir_of(d), name, 0700) == 0 || errno == EEXIST ? 0 : err_of(errno);
}

static int open_dir(Disk *d, const char *name, int *ret)
{
    if (name[0]) check_name(name);
    int fd = openat(dir_of(d), name[0] ? name : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return err_of(errno);
    *ret = fd;
    return 0;
}

static int posix_sync_dir(Disk *d, const char *name)
{
    int fd, err = open_dir(d, name, &fd);
    if (err) return err;
    err = fsync(fd) == 0 ? 0 : ERR_IO;
    close(fd);
    return err;
}

static int posix_list(Disk *d, const char *dir, void (*each)(void *ctx, const char *name),
                      void *ctx)
{
    int fd, err = open_dir(d, dir, &fd);
    if (err) return err;
    DIR *entries = fdopendir(fd);
    if (!entries) {
        err = err_of(errno);
        close(fd);
        return err;
    }
    for (;;) {
        errno = 0;
        struct dirent *e = readdir(entries);
        if (!e) {
            if (errno) err = err_of(errno);
            break;
        }
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) each(ctx, e->d_name);
    }
    closedir(entries);
    return err;
}

/* An open-file-description lock: it goes with the descriptor, so a crash or kill releases it, and
 * another part of this process cannot take it too. The file holds our process id, for the refused
 * one's message. */
static int posix_lock(Disk *d, const char *name, DiskFile **ret)
{
    check_name(name);
    int fd = openat(dir_of(d), name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return err_of(errno);
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_SETLK, &whole) != 0) {
        int err = errno == EAGAIN || errno == EACCES ? ERR_LOCKED : err_of(errno);
        close(fd);
        return err;
    }
    char pid[32];
    int n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, pid, (size_t)n, 0) != n) {
        /* On a full disk: the lock holds all the same, only the message will lack the number. */
    }
    *ret = file_new(fd);
    return 0;
}

static void posix_free(Disk *d)
{
    close(dir_of(d));
    mem_free(d);
}

static const DiskOps posix_ops = {
    .open = posix_open,
    .close = posix_close,
    .size = posix_size,
    .read = posix_read,
    .write = posix_write,
    .sync = posix_sync,
    .allocate = posix_allocate,
    .truncate = posix_truncate,
    .rename = posix_rename,
    .unlink = posix_unlink,
    .make_dir = posix_make_dir,
    .sync_dir = posix_sync_dir,
    .list = posix_list,
    .lock = posix_lock,
    .free = posix_free,
};

/* Makes the folder and those above it, and makes each new name durable. */
int disk_make_dirs(const char *dir)
{
    char path[PATH_MAX];
    size_t n = strlen(dir);
    if (n == 0 || n >= sizeof path) return ERR_INVALID;
    memcpy(path, dir, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != 0) continue;
        char was = path[i];
        path[i] = 0;
        if (mkdir(path, 0700) == 0) {
            path[i] = was;
            size_t up = i;
            while (up > 0 && path[up - 1] == '/') up--;
            while (up > 0 && path[up - 1] != '/') up--;
            char parent[PATH_MAX];
            memcpy(parent, path, up);
            parent[up] = 0;
            int fd = open(up ? parent : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            int err = fd < 0 ? err_of(errno) : fsync(fd) == 0 ? 0 : ERR_IO;
            if (fd >= 0) close(fd);
            if (err) return err;
        } else if (errno != EEXIST) {
            return err_of(errno);
        }
        path[i] = was;
    }
    return 0;
}

int disk_posix_open(const char *dir, Disk **ret)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        int err = disk_make_dirs(dir);
        if (err) return err;
        fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    if (fd < 0) return err_of(errno);
    PosixDisk *d = mem_new(sizeof *d);
    d->base.ops = &posix_ops;
    d->dir = fd;
    *ret = &d->base;
    return 0;
}

void disk_free(Disk *d)
{
    if (d) d->ops->free(d);
}
