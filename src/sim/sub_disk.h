/* sub_disk.h: a folder of a disk as a disk of its own. */
#ifndef SIM_SUB_DISK_H
#define SIM_SUB_DISK_H

#include "io/disk.h"

typedef struct {
    Disk base;
    Disk *in; /* borrowed */
    const char *folder;
} SubDisk;

void sub_disk_init(SubDisk *s, Disk *in, const char *folder);

#endif
