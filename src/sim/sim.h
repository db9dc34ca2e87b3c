/* sim.h: the simulator: the server's own code in one process and one thread, under a simulated
 * clock, disk, network and devices, with faults; and whether what it did can be true. */
#ifndef SIM_SIM_H
#define SIM_SIM_H

#include "sim/world.h"

typedef struct {
    const char *profile; /* "swarm", "calm" */
    bool trace;          /* the seed's trace, on stdout */
} SimOptions;

typedef struct {
    uint64_t seed, hash;
    int invariant; /* 0: nothing is broken */
    int64_t at_ns; /* the world's time when it was found, from its beginning */
    Buf why;
    int64_t simulated_ns;
    uint64_t haps[HAPS];
    uint64_t submits, tasks, leases, reads, restarts, records;
} SimResult;

void sim_run(uint64_t seed, const SimOptions *o, SimResult *ret); /* ret: zeroed */
void sim_result_done(SimResult *r);

#endif
