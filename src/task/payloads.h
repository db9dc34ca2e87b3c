/* payloads.h: where inputs and outputs lie while their task is in the core: in memory up to a
 * bound, beyond it in spill files. A spill file is memory that the kernel may write out, nothing
 * more: the log has every payload durably, and a start throws spill files away.
 *
 * One file a size class, slots of equal size, the lowest free slot first: so a file shrinks when a
 * backlog has drained, and one old task pins nothing but its slot. Before each payload stands its
 * XXH3, seeded with its place: what the disk has changed or put elsewhere is never given out. One
 * thread. */
#ifndef TASK_PAYLOADS_H
#define TASK_PAYLOADS_H

#include "base/base.h"
#include "io/disk.h"

typedef struct {
    union {
        uint8_t *bytes; /* owned; NULL: none */
        uint64_t slot;  /* when spilled */
    };
    uint32_t len;
    bool spilled;
    bool forgotten; /* deleted by a client or by retention; len still says how long it was */
} Payload;

static inline bool payload_is_there(const Payload *p)
{
    return p->len && !p->forgotten;
}

typedef struct Payloads Payloads;

/* Everything in memory, until payloads_spill. */
Payloads *payloads_new(void);
/* Payloads beyond memory_max bytes go to files in `folder` of disk (borrowed), which is emptied
 * now. Errors of the disk while emptying. */
int payloads_spill(Payloads *s, Disk *disk, const char *folder, uint64_t memory_max) HR_MUST_CHECK;
/* Without dropping what is in memory: that is its tasks' (payloads_drop). Accepts NULL. */
void payloads_free(Payloads *s);

/* Copies bytes (0 … 4 GiB) into a zeroed payload. A disk that takes no more makes it stay in
 * memory. */
void payloads_put(Payloads *s, Payload *p, Str bytes);
/* Its bytes ("" when it is not there), borrowed until it is dropped or another is asked for. A
 * spill file that cannot be read back as it was written ends the process: the next start has them
 * from the log. */
Str payloads_get(Payloads *s, const Payload *p);
void payloads_drop(Payloads *s, Payload *p); /* len stays; no-op when it is not there */

uint64_t payloads_bytes(const Payloads *s);        /* of all */
uint64_t payloads_memory_bytes(const Payloads *s); /* of those in memory */

#endif
