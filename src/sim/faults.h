/* faults.h: what goes wrong in a world besides what its disk, network and devices do by
 * themselves. */
#ifndef SIM_FAULTS_H
#define SIM_FAULTS_H

#include "sim/actors.h"
#include "sim/mem_disk.h"
#include "sim/node.h"

void faults_begin(Sim *s); /* starts the server, too */
void faults_heal(Sim *s);  /* no more of them; what was broken is mended */
void faults_end(Sim *s);

typedef struct {
    uint64_t hash, misfits;
    LogPoint at;
} Probe;
/* Opens what is on d as a server would, and lets go of it again. fold: makes a snapshot. */
int probe_disk(const Node *n, MemDisk *d, bool fold, Probe *ret, Buf *why);

#endif
