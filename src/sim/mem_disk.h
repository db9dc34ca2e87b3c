/* mem_disk.h: a disk in memory that behaves as badly as real ones may.
 *
 * Every file has two contents: what readers see (the page cache), and what a crash leaves (the
 * disk). Writes reach the first at once, the second sector by sector: at a sync all, at a crash any
 * subset. Names are alike: creations, renames and removals are durable at a sync of the folder; a
 * crash keeps any prefix of them. */
#ifndef SIM_MEM_DISK_H
#define SIM_MEM_DISK_H

#include "base/base.h"
#include "io/disk.h"

typedef struct MemInode MemInode;

typedef struct {
    char name[64];
    MemInode *inode;
} MemName;

typedef struct {
    char from[64], to[64]; /* from empty: creation; to empty: removal */
    MemInode *inode;
} MemChange;

typedef enum {
    MEM_OPEN,
    MEM_SIZE,
    MEM_READ,
    MEM_WRITE,
    MEM_SYNC,
    MEM_ALLOCATE,
    MEM_TRUNCATE,
    MEM_RENAME,
    MEM_UNLINK,
    MEM_MAKE_DIR,
    MEM_SYNC_DIR,
    MEM_LIST,
    MEM_LOCK,
    MEM_OPS
} MemOp;

typedef struct MemDisk {
    Disk base;
    Random random;
    MemName *names, *durable; /* what is seen; what a crash leaves */
    size_t names_len, durable_len;
    MemChange *changes; /* from durable to names */
    size_t changes_len;
    MemInode **inodes; /* all there ever were */
    size_t inodes_len;
    bool locked;

    uint64_t ops;     /* operations that touch the disk, so far */
    uint64_t fail_at; /* the operation with this number fails with fail_err; 0 = none */
    int fail_err;
    uint64_t die_at; /* from this operation on everything fails: the machine is gone; 0 = never */
    bool dead;
    bool taken; /* the disk is another machine's now: everything fails, the process lives on */
    uint64_t capacity; /* bytes that all files may take; 0 = no limit */
    uint64_t syncs, writes;
    /* Before each operation, or NULL: may take its time, and says which error is met. name: of the
     * file or folder as it was opened; at, n: of reads, writes, room; p: what is written. */
    int (*before)(void *ctx, MemOp op, const char *name, uint64_t at, const void *p, size_t n);
    void *before_ctx;
    /* Files whose names begin so can be read whatever happens, or NULL: of a process that stops at
     * once when it cannot read them. */
    const char *spared;
} MemDisk;

typedef enum {
    CRASH_KILL /* the process only: all that was written is seen */,
    CRASH_DROP /* nothing unsynced */,
    CRASH_TEAR /* any of it */,
    CRASHES
} MemCrash;

MemDisk *mem_disk_new(uint64_t seed);
MemDisk *mem_disk_clone(const MemDisk *d); /* no locks, no faults set */
void mem_disk_crash(MemDisk *d,
                    MemCrash how); /* handles that are open stay closable; the lock is released */
uint64_t mem_disk_used(const MemDisk *d);

/* For damage: the bytes as they are seen, borrowed; NULL when there is no such file. */
uint8_t *mem_disk_bytes(MemDisk *d, const char *name, size_t *ret_len);
void mem_disk_put(MemDisk *d, const char *name, const void *p,
                  size_t n); /* makes or replaces a file */
void mem_disk_remove(MemDisk *d, const char *name);
void mem_disk_each(MemDisk *d, const char *dir, void (*each)(void *ctx, const char *name),
                   void *ctx); /* as list, past all faults */

#endif
