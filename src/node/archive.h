/* archive.h: settled tasks leave the core for the history view (src/history), and questions about
 * them are answered from there. Lives on the loop's thread; SQLite runs on its own.
 *
 * A task is in the core, or in the view, or for a moment in both; never in neither: the HISTORY
 * record that lets it leave the core is written only after the view has it durably. */
#ifndef NODE_ARCHIVE_H
#define NODE_ARCHIVE_H

#include "gateway/gateway.h"
#include "history/history.h"
#include "node/shard.h"

typedef struct Archive Archive;

typedef struct {
    const char *path; /* of the SQLite file */
    HistoryLimits limits;
    void (*wake)(void *ctx);              /* any thread: archive_step is wanted */
    void (*file_gone)(void *ctx, Str id); /* its bytes may go */
    void *ctx;
} ArchiveOptions;

/* Opens the view beside a shard that has replayed its log. Errors as history_open. */
int archive_open(Shard *shard, const ArchiveOptions *o, Archive **ret, Buf *why) HR_MUST_CHECK;
/* From here on SQLite runs on a thread of its own. */
int archive_start(Archive *a) HR_MUST_CHECK;
/* Runs what is queued, then ends; the shard must still be there. Accepts NULL. */
void archive_close(Archive *a);

/* Hands tasks over, takes answers in. Cheap when there is nothing to do; wanted every 250 ms. */
void archive_step(Archive *a);

void archive_query(Archive *a, PastQuery *q); /* GatewayPorts.past */
/* Copies the view into a new file, a little at a time between other work; done is called once, on
 * the loop's thread. go_on is asked between: false ends it with ERR_CANCELED. One at a time. The
 * copy has everything that the view had when archive_copy was called. */
typedef struct {
    const char *path;         /* borrowed until done */
    bool (*go_on)(void *ctx); /* on the loop's thread */
    void (*done)(void *ctx, int err);
    void *ctx;
} ArchiveCopy;
void archive_copy(Archive *a, const ArchiveCopy *copy);
/* The last task in memory that refers to it has left, and so has the one that made it: its bytes go
 * (file_gone) unless the view has it. */
void archive_file_left(Archive *a, Str id);
bool archive_file_is_known(Archive *a, Str id); /* blocks; before archive_start */
void archive_metrics(const Archive *a, Buf *ret);

#endif
