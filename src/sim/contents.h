/* contents.h: what files hold, as those who uploaded them know it, and whether what is read of them
 * can be true (invariant 15). */
#ifndef SIM_CONTENTS_H
#define SIM_CONTENTS_H

#include "sim/actors.h"
#include "sim/mem_disk.h"

#define FILE_ID_LEN 31

typedef struct {
    char id[FILE_ID_LEN + 1];
    uint64_t size, hash; /* contents_hash */
    int64_t acked_ns;    /* when the uploader heard of it */
    int64_t removed_ns;  /* an acknowledged removal; 0: none */
} Content;

uint64_t contents_hash(Str bytes);
/* An upload was acknowledged with that answer. NULL: it makes no sense, which is told. */
const Content *contents_stored(Sim *s, Str answer, Str bytes);
size_t contents_len(const Sim *s);
Content *contents_at(Sim *s, size_t i); /* valid until the next contents_stored */
/* Its content was read, begun then: 200 with bytes, or refused with 404 or 410. */
void contents_read(Sim *s, Content *c, int64_t began_ns, int status, Str bytes);
/* Are all contents that records speak of on the disk, and fit? Whole: nothing else is. */
void contents_check(Sim *s, MemDisk *d, bool whole);

#endif
