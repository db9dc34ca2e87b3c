/* clock.h: time, injected. */
#ifndef IO_CLOCK_H
#define IO_CLOCK_H

#include "base/random.h"
#include "base/types.h"

typedef struct Clock {
    int64_t (*wall_ns)(struct Clock *c); /* Unix time; may step */
    int64_t (*boot_ns)(struct Clock *c); /* since boot, never steps, counts sleep */
} Clock;

extern Clock clock_real;

/* len bytes from the kernel's generator (getrandom): keys, holders, ids. */
void random_secret(void *p, size_t len);
/* For a simulation: from now on random_secret takes them from r (borrowed); NULL: the kernel's. */
void random_secret_simulate(Random *r);

#endif
