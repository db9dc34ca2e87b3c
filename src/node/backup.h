/* backup.h: a backup of a live server as a tar, made by a thread of its own and read piece by piece
 * on the loop's. At most one at a time.
 *
 *     format
 *     log/…            the newest snapshot and the segments behind it, up to a durable record P
 *     history.sqlite   the view of finished tasks, copied after P
 *     files/…
 *     manifest         last: text; a line "SHA-256 SIZE NAME" of every entry before it, in order
 *
 * Not in it: lock, endpoint, worker.key, what is spilled, caches of workers. */
#ifndef NODE_BACKUP_H
#define NODE_BACKUP_H

#include <uv.h>

#include "node/archive.h"
#include "node/shard.h"

#define BACKUP_MANIFEST "manifest"
#define BACKUP_VERSION  1
#define BACKUP_DIR      "backup" /* in the data directory: what is made for one */

typedef struct Backups Backups;

typedef struct {
    uv_loop_t *loop;
    const char *data_dir; /* borrowed, as is all else */
    Shard *shard;
    Archive *archive;                         /* NULL: there is no history view */
    void (*hold_files)(void *ctx, bool held); /* no content of files/ is removed meanwhile */
    void *ctx;
} BackupsOptions;

Backups *backups_new(const BackupsOptions *o); /* removes what a killed one left */
/* Ends one that is under way, and waits for its thread. Before the archive is closed. */
void backups_stop(Backups *b);
/* After the archive was closed; the loop must run once more. */
void backups_close(Backups *b);
void backups_free(Backups *b); /* after the gateway, which may still let go of one; accepts NULL */

/* GatewayPorts.backup_… */
Decision backup_begin(Backups *b, void (*more)(void *arg), void *arg);
int backup_read(Backups *b, Buf *ret, Buf *why);
void backup_want(Backups *b);
void backup_end(Backups *b);

#endif
