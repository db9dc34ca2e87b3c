#include "sim/sub_disk.h"

#include <stdio.h>

enum { NAME_LEN = 64 };

static Disk *place(Disk *d, const char *name, char ret[NAME_LEN])
{
    const SubDisk *s = CONTAINER_OF(d, SubDisk, base);
    snprintf(ret, NAME_LEN, "%s%s%s", s->folder, name[0] ? "/" : "", name);
    return s->in;
}

static int sub_open(Disk *d, const char *name, int flags, DiskFile **ret)
{
    char path[NAME_LEN];
    Disk *in = place(d, name, path);
    return in->ops->open(in, path, flags, ret);
}

static int sub_rename(Disk *d, const char *from, const char *to)
{
    char old[NAME_LEN], new[NAME_LEN];
    Disk *in = place(d, from, old);
    place(d, to, new);
    return in->ops->rename(in, old, new);
}

static int sub_unlink(Disk *d, const char *name)
{
    char path[NAME_LEN];
    Disk *in = place(d, name, path);
    return in->ops->unlink(in, path);
}

static int sub_make_dir(Disk *d, const char *name)
{
    char path[NAME_LEN];
    Disk *in = place(d, name, path);
    return in->ops->make_dir(in, path);
}

static int sub_sync_dir(Disk *d, const char *name)
{
    char path[NAME_LEN];
    Disk *in = place(d, name, path);
    return in->ops->sync_dir(in, path);
}

static int sub_list(Disk *d, const char *dir, void (*each)(void *ctx, const char *name), void *ctx)
{
    char path[NAME_LEN];
    Disk *in = place(d, dir, path);
    return in->ops->list(in, path, each, ctx);
}

/* What is done with a file goes to the disk itself. */
static const DiskOps sub_ops = {
    .open = sub_open,
    .rename = sub_rename,
    .unlink = sub_unlink,
    .make_dir = sub_make_dir,
    .sync_dir = sub_sync_dir,
    .list = sub_list,
};

void sub_disk_init(SubDisk *s, Disk *in, const char *folder)
{
    *s = (SubDisk){{&sub_ops}, in, folder};
}
