/* rebuild.h: `headrace history rebuild`: a new history view from what can be read of the old one
 * and from what the log retains. The server must be stopped: the data directory's lock is taken. */
#ifndef NODE_REBUILD_H
#define NODE_REBUILD_H

#include "base/base.h"

typedef struct {
    const char *data_dir;
    /* Now and then; records 0: the old view is being read. */
    void (*progress)(void *ctx, uint64_t records, uint64_t tasks);
    void *ctx;
} RebuildOptions;

typedef struct {
    /* the old view */
    bool old_there, old_readable; /* readable: it says how many tasks it holds */
    bool old_whole;               /* every one of them was read, and SQLite finds no damage */
    uint64_t old_tasks, salvaged; /* tasks it says it holds; tasks that were read */
    char kept[64];                /* what it is called now; "": removed, for all of it was read */
    /* the log */
    uint64_t from_seq, last_seq;   /* the records that it retains */
    uint64_t gone_seq;             /* tasks settled up to it had left the core before from_seq */
    int64_t gone_ns;               /* about the time of that; 0: none */
    uint64_t replayed, put, files; /* tasks that left by the log; those put; their files */
    uint64_t files_missing;        /* files whose bytes are gone: no rows */
    /* the new one */
    uint64_t tasks, applied_seq;
    bool complete; /* nothing is known to be lost */
    Buf log_notes; /* what of the log had to be passed over; owned */
} RebuildReport;

/* On failure nothing has changed but for leftovers, which the next one removes; why is for people.
 * Errors as log_open's and history_open's; also ERR_NOSPC. */
int history_rebuild(const RebuildOptions *o, RebuildReport *ret, Buf *why) HR_MUST_CHECK;
void rebuild_report_done(RebuildReport *r);

#endif
