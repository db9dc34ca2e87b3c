/* disk.h: files below one directory, behind an interface: the real one here, a simulated one in
 * sim/. Names are relative
 * ("log/0000000001.seg"), at most one folder deep. Every call may block; none retries a failed
 * sync. */
#ifndef IO_DISK_H
#define IO_DISK_H

#include "base/base.h"

typedef struct Disk Disk;
typedef struct DiskFile DiskFile;

enum { DISK_READ = 0, DISK_WRITE = 1, DISK_CREATE = 2, DISK_EXCLUSIVE = 4 };

typedef struct {
    int (*open)(Disk *d, const char *name, int flags,
                DiskFile **ret); /* ERR_NOT_FOUND, ERR_EXISTS, ERR_IO, … */
    void (*close)(DiskFile *f);  /* accepts NULL */
    int (*size)(DiskFile *f, uint64_t *ret);
    int (*read)(DiskFile *f, uint64_t at, void *p, size_t n,
                size_t *ret_n); /* short only at the end of the file */
    int (*write)(DiskFile *f, uint64_t at, const void *p,
                 size_t n);   /* all of it, or ERR_NOSPC / ERR_IO */
    int (*sync)(DiskFile *f); /* fdatasync */
    int (*allocate)(DiskFile *f, uint64_t at,
                    uint64_t n); /* zeroes written, size grown; ERR_NOSPC */
    int (*truncate)(DiskFile *f, uint64_t size);
    int (*rename)(Disk *d, const char *from, const char *to); /* replaces */
    int (*unlink)(Disk *d, const char *name);
    int (*make_dir)(Disk *d, const char *name); /* 0 when it is there already */
    int (*sync_dir)(Disk *d, const char *name); /* "" = the root */
    int (*list)(Disk *d, const char *dir, void (*each)(void *ctx, const char *name), void *ctx);
    int (*lock)(Disk *d, const char *name, DiskFile **ret); /* held until closed; ERR_LOCKED */
    void (*free)(Disk *d);
} DiskOps;

struct Disk {
    const DiskOps *ops;
};
struct DiskFile {
    const DiskOps *ops;
};

/* The real disk below `dir`, which is made when it is not there (0700). ERR_READONLY,
 * ERR_PERMISSION, ERR_IO. */
int disk_posix_open(const char *dir, Disk **ret) HR_MUST_CHECK;
void disk_free(Disk *d);
/* Makes the directory and those above it (0700) where they are missing. */
int disk_make_dirs(const char *dir) HR_MUST_CHECK;

#endif
