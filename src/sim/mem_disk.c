#include "sim/mem_disk.h"

#include <stdio.h>
#include <string.h>

#define SECTOR_LEN 512

struct MemInode {
    uint8_t *seen, *disk;
    size_t seen_len, disk_len, cap; /* cap: of all three arrays, in bytes of content */
    uint8_t *dirty;                 /* a flag a sector: seen differs from disk, perhaps */
};

typedef struct {
    DiskFile base;
    MemDisk *disk;
    MemInode *inode;
    bool is_lock;
    char name[64]; /* under which it was opened */
} MemFile;

static const DiskOps mem_ops;

static MemDisk *disk_of(Disk *d)
{
    return (MemDisk *)(void *)d;
}

static MemFile *file_of(DiskFile *f)
{
    return (MemFile *)(void *)f;
}

/* Counts an operation. 0, or the error that it meets; *ret_die: it may be half done before. */
static int meet_at(MemDisk *d, MemOp op, const char *name, uint64_t at, const void *p, size_t n)
{
    static const bool can_fill_by[MEM_OPS] = {
        [MEM_WRITE] = true,    [MEM_ALLOCATE] = true, [MEM_TRUNCATE] = true,
        [MEM_MAKE_DIR] = true, [MEM_LOCK] = true,     [MEM_OPEN] = true};
    bool can_fill = can_fill_by[op];
    if (d->dead) return ERR_IO;
    int err = d->before ? d->before(d->before_ctx, op, name, at, p, n) : 0;
    if (d->dead || d->taken) return ERR_IO;
    if (err) return err;
    d->ops++;
    if (d->die_at && d->ops >= d->die_at) {
        d->dead = true;
        return ERR_IO;
    }
    if (d->fail_at && d->ops == d->fail_at)
        return d->fail_err == ERR_NOSPC && !can_fill ? ERR_IO : d->fail_err;
    return 0;
}

static int meet(MemDisk *d, MemOp op, const char *name)
{
    return meet_at(d, op, name, 0, NULL, 0);
}

/* ---- inodes ---- */

static MemInode *inode_new(MemDisk *d)
{
    MemInode *i = mem_new(sizeof *i);
    d->inodes = mem_grow(d->inodes, (d->inodes_len + 1) * sizeof *d->inodes);
    d->inodes[d->inodes_len++] = i;
    return i;
}

static void inode_room(MemInode *i, size_t n)
{
    if (n <= i->cap) return;
    size_t cap = MAX(n, i->cap * 2);
    cap = (cap + SECTOR_LEN - 1) / SECTOR_LEN * SECTOR_LEN;
    i->seen = mem_grow(i->seen, cap);
    i->disk = mem_grow(i->disk, cap);
    i->dirty = mem_grow(i->dirty, cap / SECTOR_LEN);
    memset(i->seen + i->cap, 0, cap - i->cap);
    memset(i->disk + i->cap, 0, cap - i->cap);
    memset(i->dirty + i->cap / SECTOR_LEN, 0, (cap - i->cap) / SECTOR_LEN);
    i->cap = cap;
}

static void inode_write(MemInode *i, uint64_t at, const uint8_t *p, size_t n)
{
    if (n == 0) return;
    inode_room(i, (size_t)at + n);
    if (p)
        memcpy(i->seen + at, p, n);
    else
        memset(i->seen + at, 0, n);
    i->seen_len = MAX(i->seen_len, (size_t)at + n);
    for (size_t s = (size_t)at / SECTOR_LEN; s <= ((size_t)at + n - 1) / SECTOR_LEN; s++)
        i->dirty[s] = 1;
}

static void inode_persist_sector(MemInode *i, size_t s)
{
    memcpy(i->disk + s * SECTOR_LEN, i->seen + s * SECTOR_LEN, SECTOR_LEN);
    i->dirty[s] = 0;
}

static void inode_sync(MemInode *i)
{
    for (size_t s = 0; s < i->cap / SECTOR_LEN; s++)
        if (i->dirty[s]) inode_persist_sector(i, s);
    i->disk_len = i->seen_len;
}

static void inode_crash(MemDisk *d, MemInode *i, MemCrash how)
{
    if (how == CRASH_KILL) return;
    uint64_t odds = 1 + random_below(&d->random, 4); /* some crashes lose much, some little */
    for (size_t s = 0; s < i->cap / SECTOR_LEN; s++)
        if (i->dirty[s] && how == CRASH_TEAR && random_below(&d->random, 5) < odds)
            inode_persist_sector(i, s);
    if (how == CRASH_TEAR && random_below(&d->random, 2)) i->disk_len = i->seen_len;
    i->seen_len = i->disk_len;
    if (i->cap) {
        memset(i->disk + i->disk_len, 0, i->cap - i->disk_len);
        memcpy(i->seen, i->disk, i->cap);
        memset(i->dirty, 0, i->cap / SECTOR_LEN);
    }
}

/* ---- names ---- */

static MemName *find(MemName *names, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(names[i].name, name) == 0) return &names[i];
    return NULL;
}

static void set_name(MemName **names, size_t *n, const char *name, MemInode *inode)
{
    MemName *at = find(*names, *n, name);
    if (inode && !at) {
        *names = mem_grow(*names, (*n + 1) * sizeof **names);
        at = &(*names)[(*n)++];
        snprintf(at->name, sizeof at->name, "%s", name);
    }
    if (inode)
        at->inode = inode;
    else if (at)
        *at = (*names)[--*n];
}

static void apply(MemName **names, size_t *n, const MemChange *c)
{
    if (c->to[0]) set_name(names, n, c->to, c->inode);
    if (c->from[0]) set_name(names, n, c->from, NULL);
}

static void change(MemDisk *d, const char *from, const char *to, MemInode *inode)
{
    MemChange c = {.inode = inode};
    snprintf(c.from, sizeof c.from, "%s", from);
    snprintf(c.to, sizeof c.to, "%s", to);
    d->changes = mem_grow(d->changes, (d->changes_len + 1) * sizeof c);
    d->changes[d->changes_len++] = c;
    apply(&d->names, &d->names_len, &c);
}

static bool is_in(const char *name, const char *dir)
{
    const char *slash = strrchr(name, '/');
    size_t n = strlen(dir);
    return n == 0 ? !slash : slash && (size_t)(slash - name) == n && strncmp(name, dir, n) == 0;
}

/* ---- the operations ---- */

static DiskFile *handle(MemDisk *d, MemInode *inode, bool is_lock, const char *name)
{
    MemFile *f = mem_new(sizeof *f);
    *f = (MemFile){.base.ops = &mem_ops, .disk = d, .inode = inode, .is_lock = is_lock};
    snprintf(f->name, sizeof f->name, "%s", name);
    return &f->base;
}

static int mem_open(Disk *base, const char *name, int flags, DiskFile **ret)
{
    MemDisk *d = disk_of(base);
    int err = meet(d, MEM_OPEN, name);
    if (err) return err;
    MemName *n = find(d->names, d->names_len, name);
    if (n && (flags & DISK_EXCLUSIVE)) return ERR_EXISTS;
    if (!n && !(flags & DISK_CREATE)) return ERR_NOT_FOUND;
    MemInode *inode = n ? n->inode : inode_new(d);
    if (!n) change(d, "", name, inode);
    *ret = handle(d, inode, false, name);
    return 0;
}

static void mem_close(DiskFile *base)
{
    if (!base) return;
    MemFile *f = file_of(base);
    if (f->is_lock) f->disk->locked = false;
    mem_free(f);
}

static int mem_size(DiskFile *f, uint64_t *ret)
{
    int err = meet(file_of(f)->disk, MEM_SIZE, file_of(f)->name);
    if (!err) *ret = file_of(f)->inode->seen_len;
    return err;
}

static int mem_read(DiskFile *f, uint64_t at, void *p, size_t n, size_t *ret_n)
{
    const MemInode *i = file_of(f)->inode;
    const char *spared = file_of(f)->disk->spared;
    bool fine = spared && strncmp(file_of(f)->name, spared, strlen(spared)) == 0;
    int err = fine ? 0 : meet_at(file_of(f)->disk, MEM_READ, file_of(f)->name, at, NULL, n);
    if (err) return err;
    *ret_n = at >= i->seen_len ? 0 : MIN(n, i->seen_len - (size_t)at);
    if (*ret_n) memcpy(p, i->seen + at, *ret_n);
    return 0;
}

static int fill(MemFile *f, uint64_t at, const void *p, size_t n)
{
    MemDisk *d = f->disk;
    MemInode *i = f->inode;
    if (d->dead) return ERR_IO;
    int err = meet_at(d, p ? MEM_WRITE : MEM_ALLOCATE, f->name, at, p, n);
    d->writes++;
    uint64_t more = at + n > i->seen_len ? at + n - i->seen_len : 0;
    if (!err && d->capacity && mem_disk_used(d) + more > d->capacity) err = ERR_NOSPC;
    if (err == ERR_NOSPC) return err;
    if (err && (d->taken || (d->dead && d->ops != d->die_at))) return err; /* it was gone before */
    inode_write(i, at, p,
                err ? (size_t)random_below(&d->random, n + 1) : n); /* a failed write did a part */
    return err;
}

static int mem_write(DiskFile *f, uint64_t at, const void *p, size_t n)
{
    return fill(file_of(f), at, p, n);
}

static int mem_allocate(DiskFile *f, uint64_t at, uint64_t n)
{
    return fill(file_of(f), at, NULL, (size_t)n);
}

static int mem_sync(DiskFile *f)
{
    MemInode *i = file_of(f)->inode;
    MemDisk *d = file_of(f)->disk;
    if (d->dead) return ERR_IO;
    int err = meet(d, MEM_SYNC, file_of(f)->name);
    d->syncs++;
    if (!err) {
        inode_sync(i);
    } else if (!d->dead && !d->taken) {
        /* As Linux does: what could not be written is called clean, so the next sync says all is
         * well. */
        for (size_t s = 0; s < i->cap / SECTOR_LEN; s++) {
            if (i->dirty[s] && random_below(&d->random, 2)) inode_persist_sector(i, s);
            i->dirty[s] = 0;
        }
    }
    return err;
}

static int mem_truncate(DiskFile *f, uint64_t size)
{
    MemInode *i = file_of(f)->inode;
    int err = meet_at(file_of(f)->disk, MEM_TRUNCATE, file_of(f)->name, size, NULL, 0);
    if (err) return err;
    inode_room(i, (size_t)size);
    if (size < i->seen_len) {
        memset(i->seen + size, 0, i->seen_len - (size_t)size);
        for (size_t s = (size_t)size / SECTOR_LEN; s < i->cap / SECTOR_LEN; s++) i->dirty[s] = 1;
    }
    i->seen_len = (size_t)size;
    return 0;
}

static int mem_rename(Disk *base, const char *from, const char *to)
{
    MemDisk *d = disk_of(base);
    int err = meet(d, MEM_RENAME, to);
    if (err) return err;
    MemName *n = find(d->names, d->names_len, from);
    if (!n) return ERR_NOT_FOUND;
    change(d, from, to, n->inode);
    return 0;
}

static int mem_unlink(Disk *base, const char *name)
{
    MemDisk *d = disk_of(base);
    int err = meet(d, MEM_UNLINK, name);
    if (err) return err;
    if (!find(d->names, d->names_len, name)) return ERR_NOT_FOUND;
    change(d, name, "", NULL);
    return 0;
}

static int mem_make_dir(Disk *base, const char *name)
{
    /* folders are there when a file is in them */
    return meet(disk_of(base), MEM_MAKE_DIR, name);
}

static int mem_sync_dir(Disk *base, const char *name)
{
    MemDisk *d = disk_of(base);
    int err = meet(d, MEM_SYNC_DIR, name);
    if (err) return err;
    size_t left = 0;
    for (size_t i = 0; i < d->changes_len; i++) {
        const MemChange *c = &d->changes[i];
        if (is_in(c->to[0] ? c->to : c->from, name))
            apply(&d->durable, &d->durable_len, c);
        else
            d->changes[left++] = *c;
    }
    d->changes_len = left;
    return 0;
}

static int mem_list(Disk *base, const char *dir, void (*each)(void *ctx, const char *name),
                    void *ctx)
{
    MemDisk *d = disk_of(base);
    int err = meet(d, MEM_LIST, dir);
    if (!err) mem_disk_each(d, dir, each, ctx);
    return err;
}

static int mem_lock(Disk *base, const char *name, DiskFile **ret)
{
    MemDisk *d = disk_of(base);
    int err = meet(d, MEM_LOCK, name);
    if (err) return err;
    if (d->locked) return ERR_LOCKED;
    MemName *n = find(d->names, d->names_len, name);
    MemInode *inode = n ? n->inode : inode_new(d);
    if (!n) change(d, "", name, inode);
    d->locked = true;
    *ret = handle(d, inode, true, name);
    return 0;
}

static void mem_disk_free(Disk *base)
{
    MemDisk *d = disk_of(base);
    for (size_t i = 0; i < d->inodes_len; i++) {
        mem_free(d->inodes[i]->seen);
        mem_free(d->inodes[i]->disk);
        mem_free(d->inodes[i]->dirty);
        mem_free(d->inodes[i]);
    }
    mem_free(d->inodes);
    mem_free(d->names);
    mem_free(d->durable);
    mem_free(d->changes);
    mem_free(d);
}

static const DiskOps mem_ops = {
    .open = mem_open,
    .close = mem_close,
    .size = mem_size,
    .read = mem_read,
    .write = mem_write,
    .sync = mem_sync,
    .allocate = mem_allocate,
    .truncate = mem_truncate,
    .rename = mem_rename,
    .unlink = mem_unlink,
    .make_dir = mem_make_dir,
    .sync_dir = mem_sync_dir,
    .list = mem_list,
    .lock = mem_lock,
    .free = mem_disk_free,
};

/* ---- the other side ---- */

MemDisk *mem_disk_new(uint64_t seed)
{
    MemDisk *d = mem_new(sizeof *d);
    d->base.ops = &mem_ops;
    random_seed(&d->random, seed);
    return d;
}

uint64_t mem_disk_used(const MemDisk *d)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < d->names_len; i++) sum += d->names[i].inode->seen_len;
    return sum;
}

MemDisk *mem_disk_clone(const MemDisk *d)
{
    MemDisk *c = mem_disk_new(0);
    c->random = d->random;
    for (size_t i = 0; i < d->names_len; i++) {
        const MemInode *inode = d->names[i].inode;
        mem_disk_put(c, d->names[i].name, inode->seen, inode->seen_len);
    }
    return c;
}

/* Is it about a file, or a name, that c is about, too? */
static bool touches(const MemChange *a, const MemChange *c)
{
    return a->inode == c->inode || (a->from[0] && !strcmp(a->from, c->from)) ||
           (a->from[0] && !strcmp(a->from, c->to)) || (a->to[0] && !strcmp(a->to, c->from)) ||
           (a->to[0] && !strcmp(a->to, c->to));
}

/* Which changes of names a torn crash keeps. Half of the time those up to one of them; else any,
 * as POSIX promises no order among different names: only what follows one that is lost, of the
 * same file or name, is lost, too. */
static void keep_changes(MemDisk *d)
{
    size_t n = d->changes_len, lost_len = 0;
    size_t *lost = mem_new((n + 1) * sizeof *lost);
    bool in_order = random_below(&d->random, 2);
    size_t keep = in_order ? (size_t)random_below(&d->random, n + 1) : n;
    for (size_t i = 0; i < keep; i++) {
        const MemChange *c = &d->changes[i];
        bool stays = in_order || random_below(&d->random, 2);
        for (size_t k = 0; k < lost_len && stays; k++) stays = !touches(&d->changes[lost[k]], c);
        if (stays)
            apply(&d->durable, &d->durable_len, c);
        else
            lost[lost_len++] = i;
    }
    mem_free(lost);
}

void mem_disk_crash(MemDisk *d, MemCrash how)
{
    for (size_t i = 0; i < d->inodes_len; i++) inode_crash(d, d->inodes[i], how);
    if (how != CRASH_KILL) {
        if (how == CRASH_TEAR) keep_changes(d);
        d->names = mem_grow(d->names, (d->durable_len + 1) * sizeof *d->names);
        if (d->durable_len) memcpy(d->names, d->durable, d->durable_len * sizeof *d->names);
        d->names_len = d->durable_len;
        d->changes_len = 0;
    }
    d->dead = d->taken = d->locked = false;
    d->die_at = d->fail_at = 0;
}

uint8_t *mem_disk_bytes(MemDisk *d, const char *name, size_t *ret_len)
{
    MemName *n = find(d->names, d->names_len, name);
    if (!n) return NULL;
    static uint8_t nothing[1]; /* of an empty file */
    *ret_len = n->inode->seen_len;
    return n->inode->seen ? n->inode->seen : nothing;
}

void mem_disk_put(MemDisk *d, const char *name, const void *p, size_t n)
{
    MemInode *i = inode_new(d);
    inode_write(i, 0, p, n);
    inode_sync(i);
    set_name(&d->names, &d->names_len, name, i);
    set_name(&d->durable, &d->durable_len, name, i);
}

void mem_disk_each(MemDisk *d, const char *dir, void (*each)(void *ctx, const char *name),
                   void *ctx)
{
    for (size_t i = 0; i < d->names_len; i++)
        if (is_in(d->names[i].name, dir))
            each(ctx, d->names[i].name + (dir[0] ? strlen(dir) + 1 : 0));
}

void mem_disk_remove(MemDisk *d, const char *name)
{
    set_name(&d->names, &d->names_len, name, NULL);
    set_name(&d->durable, &d->durable_len, name, NULL);
}
