/* restore.h: reads a backup (node/backup.h), checks it, and makes a data directory of it.
 *
 * A restored server goes another way than the one that was backed up went on: it gives out again
 * the numbers that the lost time gave out. So that nothing of the lost time is taken for something
 * of the new one, the log does not go on at record P + 1. It begins anew, with one snapshot, at
 *
 *     record  = max(P + 2^32, milliseconds of Unix time now * 2^10)
 *     epoch   = max(its epoch + 1, seconds of Unix time now)
 *
 * No log writes 2^10 records a millisecond for long, so these lie above whatever was given out
 * before, by the lost time or by an earlier restore of the same backup (and below 2^53, what JSON
 * can say, until 2248). A lease's token is its record's sequence: a worker that still holds a task
 * of the lost time has a token that no lease of the new time has, and is told to drop it; one that
 * holds a lease from before P goes on. An event stream that is resumed behind an event of the lost
 * time gets all that is new. A receipt of the lost time names an epoch that is over. Numbers of
 * tasks come again, but not their ids, which hold the time. */
#ifndef NODE_RESTORE_H
#define NODE_RESTORE_H

#include "base/base.h"

/* ---- reading: the archive against its manifest ---- */

typedef struct BackupReader BackupReader;
/* dir: an open empty folder that the files go to; −1: it is only checked. */
BackupReader *backup_reader_new(int dir);
/* ERR_INVALID (not a backup, or not a whole and unchanged one), ERR_UNSUPPORTED (a newer one),
 * ERR_NOSPC, ERR_IO, with why. An error stays. */
int backup_reader_feed(BackupReader *r, Str bytes, Buf *why) HR_MUST_CHECK;
int backup_reader_end(BackupReader *r, Buf *why) HR_MUST_CHECK; /* 0: it was whole */
uint64_t backup_reader_files(const BackupReader *r);            /* so far, of files/ */
void backup_reader_free(BackupReader *r);

/* ---- making a data directory ---- */

typedef struct Restore Restore;
typedef struct {
    uint64_t queued, running, finished; /* tasks in the log */
    uint64_t history, files;            /* tasks in the history view; contents */
    uint64_t last_seq;                  /* P */
    int64_t time_ns;                    /* of the last record */
} RestoreReport;

/* Makes dir, which must not exist or be empty; takes its lock. ERR_EXISTS (not empty), ERR_LOCKED.
 */
int restore_begin(const char *dir, Restore **ret, Buf *why) HR_MUST_CHECK;
int restore_feed(Restore *r, Str bytes, Buf *why) HR_MUST_CHECK; /* as backup_reader_feed */
/* Checks everything as a start would, and makes it a data directory, durably. Also ERR_CORRUPT. */
int restore_finish(Restore *r, RestoreReport *ret, Buf *why) HR_MUST_CHECK;
void restore_free(Restore *r); /* what was not finished is removed; accepts NULL */

#endif
