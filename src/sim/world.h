/* world.h: one simulated world: its time, its chance, what will happen in it, and what has.
 *
 * Invariants
 *   W1  All chance comes from `random`, seeded once; nothing depends on an address, on the order in
 *       which arguments are evaluated, or on the machine's clock. So a seed gives one `hash`.
 *   W2  Events of the same time fire in the order in which they were set. */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include "base/base.h"

typedef struct Event Event;
struct Event { /* embedded; zeroed is valid */
    HeapNode node;
    void (*fire)(Event *e);
};

/* What happened, for the report: names in world.c. */
typedef enum {
    HAP_KILLS,        /* the server's process was killed */
    HAP_POWER_CUTS,   /* its machine lost power: unsynced writes are torn, lost, reordered */
    HAP_STOPS,        /* it was shut down in order */
    HAP_SYNC_FAILS,   /* a write or a sync failed: the node stops */
    HAP_READ_FAILS,   /* a read failed */
    HAP_DISK_FULL,    /* the disk was full for a while */
    HAP_FLIPS,        /* a bit in a file, below what is synced */
    HAP_MISDIRECTED,  /* a write that landed elsewhere */
    HAP_DETECTED,     /* damage that a start refused */
    HAP_RESETS,       /* a connection broke */
    HAP_CUTS,         /* a peer's network was cut for a while */
    HAP_LOST_ANSWERS, /* a client never heard the answer */
    HAP_REPEATS,      /* a client sent a request again */
    HAP_CLOCK_STEPS,
    HAP_WORKER_DEATHS,
    HAP_WORKER_PAUSES, /* longer than a lease */
    HAP_WORKER_LIES,   /* a report with a stale token, or twice */
    HAP_DEVICE_HANGS,
    HAP_DEVICE_CRASHES,
    HAP_MODEL_ERRORS,
    HAP_LOAD_FAILS,
    HAP_DRAINS,
    HAP_FOLDS,
    HAP_RESUMES,   /* a task went on from a checkpoint */
    HAP_TAKEN,     /* the disk was taken away from the process that lived on it */
    HAP_TAKEOVERS, /* another process tried to take the log over */
    HAPS
} Hap;
extern const char *const hap_names[HAPS];

typedef struct World {
    uint64_t seed;
    int64_t now_ns;      /* never steps; begins at 1 h */
    uint32_t still;      /* events since time last moved */
    int64_t wall_add_ns; /* the wall clock is now + this */
    Heap events;
    uint64_t ties;
    Random random;
    uint64_t hash, noted;
    uint64_t haps[HAPS];
    bool trace;
    int broken; /* the first invariant that was broken; 0: none */
    Buf why;
} World;

World *world_new(uint64_t seed, bool trace);
void world_free(World *w);

void world_at(World *w, Event *e, int64_t at_ns); /* sets or moves; never before now */
void world_in(World *w, Event *e, int64_t in_ns);
void world_not(World *w, Event *e); /* it will not happen */
bool world_step(World *w);          /* the next event; false: there is none */

/* What is below goes into the hash, and into the trace when that is wanted. */
void world_note(World *w, const char *what, Str bytes);
void world_say(World *w, const char *fmt, ...) HR_PRINTF(2, 3);  /* a line */
void world_show(World *w, const char *fmt, ...) HR_PRINTF(2, 3); /* in the trace only */
void world_happens(World *w, Hap h);

/* An invariant is broken: the first one counts. */
void world_broken(World *w, int invariant, const char *fmt, ...) HR_PRINTF(3, 4);

/* Chance. */
uint64_t world_below(World *w, uint64_t bound);
bool world_odds(World *w, uint32_t in_million);
int64_t world_between(World *w, int64_t least, int64_t most); /* both possible */
/* Around the mean, never 0, mostly less, at times much more. */
int64_t world_around(World *w, int64_t mean);

#endif
