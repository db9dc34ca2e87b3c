/* history.h: the face of src/history: the finished tasks of one shard, in one SQLite file, so that
 * memory need not hold them. It is a view: the log stays the truth, and what is missing here is
 * put again (putting twice changes nothing).
 *
 * One connection, which keeps others out of the file while it is open. A History may move from
 * thread to thread but is used by one at a time: history_thread.h gives it a thread.
 *
 * Times are nanoseconds of shard time; 0 means none. Strings that a History hands out are borrowed
 * until its next call.
 *
 * Errors, unless a function says more: ERR_NOSPC (disk full, also by quota), ERR_IO, ERR_READONLY,
 * ERR_NOMEM, ERR_LOCKED: nothing was changed; the same call works again when the cause is gone.
 * ERR_CORRUPT: the file is damaged where it was read; what is read elsewhere is still right, for
 * every row carries a checksum. `headrace history rebuild` is the way on. */
#ifndef HISTORY_HISTORY_H
#define HISTORY_HISTORY_H

#include "base/base.h"
#include "task/task.h"

typedef struct History History;

typedef struct {
    uint64_t no;           /* the task's number; 1 … 2^40 − 1 */
    uint64_t finished_seq; /* sequence of its terminal record: rises with finished_ns */
    int64_t created_ns, finished_ns;
    int64_t expires_ns; /* when retention removes it; 0: never */
    TaskState state;    /* terminal */
    TaskClass class;
    Str tenant, model, version;
    Str body; /* opaque here: the task as src/task encodes it */
} HistoryTask;

typedef struct {
    uint64_t no; /* the file's number in the core */
    Str id;      /* "file_…" */
    Str tenant;
    uint64_t owner_task; /* it leaves with this task; 0: with none */
    uint64_t size;       /* bytes of the file itself */
    Str body;            /* opaque here */
} HistoryFile;

/* ---- life ---- */

/* Opens the file, makes it when there is none. log_seq: the last sequence in the log; rows beyond
 * it (a view that was restored beside an older log) are deleted. why gets text for people on
 * failure. Also ERR_UNSUPPORTED (a newer format), ERR_CORRUPT (damaged, or not a history; left as
 * it is), ERR_INVALID (another shard's), ERR_LOCKED (open elsewhere). */
int history_open(const char *path, uint32_t shard, uint64_t log_seq, History **ret,
                 Buf *why) HR_MUST_CHECK;
void history_close(History *h); /* rolls back what is open; accepts NULL */

/* ---- writing: begin, put …, commit ---- */

/* 1,000 to 5,000 rows a transaction, 8 MiB of bodies at most: fewer cost more a row, and while more
 * are written a read waits (1,000 rows of 400 bytes: 5 ms; 5,000: 20 ms). Tasks in the order in
 * which they finished are cheapest.
 *
 * An error of a put stays: later puts and the commit return it again and nothing of the
 * transaction remains. */
int history_begin(History *h) HR_MUST_CHECK;
int history_put_task(History *h,
                     const HistoryTask *t) HR_MUST_CHECK; /* replaces one that is there; the
                                                             entries of its files leave */
int history_put_file(History *h, const HistoryFile *f) HR_MUST_CHECK; /* likewise */
/* 0: all of it survives a power loss, with applied_seq (it never falls). Otherwise rolled back. */
int history_commit(History *h, uint64_t applied_seq) HR_MUST_CHECK;
void history_rollback(History *h); /* no-op when no transaction is open */

/* Of the last commit: everything finished up to it is here, or was and has left. 0: nothing yet. */
uint64_t history_applied_seq(const History *h);

/* A new body for a task (its payload was deleted). The old bytes are overwritten where they stand,
 * and in SQLite's write-ahead log by the next history_sweep. Not overwritten is what SQLite left
 * behind of small bodies when it split a page (seen for 1 row in 100 to 1,000): copying all into a
 * new file, as history_salvage does, is the way to be sure. Inside a transaction it is part of
 * that; otherwise durable at return. ERR_NOT_FOUND, which spoils no transaction. */
int history_replace_body(History *h, uint64_t no, Str body) HR_MUST_CHECK;
/* Removes the entry of one file; its bytes are the caller's. As above. ERR_NOT_FOUND. */
int history_remove_file(History *h, Str id) HR_MUST_CHECK;

/* ---- reading ---- */

int history_get(History *h, uint64_t no, HistoryTask *ret) HR_MUST_CHECK; /* ERR_NOT_FOUND */

typedef struct {
    uint64_t before;            /* only numbers below it; 0: from the newest */
    uint32_t states, classes;   /* bit masks of 1 << TaskState, 1 << TaskClass; 0: any */
    Str tenant, model, version; /* empty: any */
    int64_t created_after_ns;   /* compared in whole milliseconds, as the API shows them; 0: any */
    uint32_t limit;             /* rows given at most; ≥ 1 */
    /* Rows looked at, at most; ≥ limit. From memory one costs 0.3 µs, with names or unsuccessful
     * states 1 to 5 µs; otherwise a disk read. */
    uint32_t scan_max;
} HistoryFilter;
/* Newest first. Names and unsuccessful states go by an index, so that only rows that fit them are
 * looked at (while at most 4,096 combinations of tenant, model and version fit; one row of each is
 * looked at besides). row returns false to stop behind that row. *ret_next: 0 at the end, else
 * there may be more: go on with before = *ret_next (a page may be empty because of scan_max and not
 * be the last). A row that fails its checksum is passed over and counted. On ERR_CORRUPT (the
 * damage is in what holds rows together), rows given before are good. */
int history_list(History *h, const HistoryFilter *f, bool (*row)(void *ctx, const HistoryTask *t),
                 void *ctx, uint64_t *ret_next) HR_MUST_CHECK;
/* How many rows the last history_list passed over; *ret_no: the task of the first. */
uint64_t history_damaged(const History *h, uint64_t *ret_no);

/* tenant empty: of any. ERR_NOT_FOUND. */
int history_file(History *h, Str id, Str tenant, HistoryFile *ret) HR_MUST_CHECK;
int history_file_exists(History *h, Str id) HR_MUST_CHECK; /* 0, ERR_NOT_FOUND, or an error */

/* ---- keeping it small ---- */

typedef struct {
    int64_t max_age_ns;           /* since finished_ns */
    uint64_t max_bytes, max_rows; /* of the file's pages in use; of tasks */
} HistoryLimits;                  /* 0: no limit */

/* Removes up to rows_max tasks, durably: expired ones and those beyond max_age_ns, then the ones
 * that finished first while there is more than the limits allow. Their files leave with them; each
 * is named to gone_file once that is durable (a crash in between leaves bytes that
 * history_file_exists denies). Gives room back to the filesystem, a bounded part a call.
 * *ret_removed == rows_max: call again soon. */
int history_sweep(History *h, int64_t now_ns, const HistoryLimits *limits, uint32_t rows_max,
                  void (*gone_file)(void *ctx, Str id), void *ctx,
                  uint32_t *ret_removed) HR_MUST_CHECK;

typedef struct {
    uint64_t rows;       /* tasks */
    uint64_t bytes;      /* of pages in use: what max_bytes is held against */
    uint64_t file_bytes; /* with free pages */
    uint64_t wal_bytes;  /* of the write-ahead log's part in use; bounded */
    uint64_t applied_seq;
    int64_t oldest_finished_ns; /* 0: no task */
} HistoryStats;
int history_stats(History *h, HistoryStats *ret) HR_MUST_CHECK;

/* Figures of a file that nobody has open, which is not changed (but SQLite may leave a -shm beside
 * it). *ret_whole: SQLite finds nothing wrong with it (all of it is read). wal_bytes is 0. Errors
 * as history_salvage; why says so. */
int history_peek(const char *path, HistoryStats *ret, bool *ret_whole /* or NULL */,
                 Buf *why) HR_MUST_CHECK;

/* ---- a copy, for a backup ---- */

typedef struct HistoryCopy HistoryCopy;
/* Copies h into a new file at path, some pages a call; between the calls h is used as ever, and
 * what changes meanwhile is changed in the copy too: it is h as of the call that said *ret_done.
 * The copy is not synced. An error says nothing about h. Also ERR_EXISTS. */
int history_copy_begin(History *h, const char *path, HistoryCopy **ret) HR_MUST_CHECK;
int history_copy_step(HistoryCopy *c, uint32_t pages, bool *ret_done) HR_MUST_CHECK;
void history_copy_end(HistoryCopy *c); /* before h is closed; accepts NULL; leaves the file */

/* ---- `headrace history rebuild` ---- */

/* Copies what can be read and checks out of an old file into `into`, in transactions of its own.
 * The old file may be damaged (a bad page costs its own rows) and is not written (but SQLite may
 * leave a -shm beside it). Rows that `into` has already stay as they are, and so does its
 * applied_seq. *ret_rows: tasks copied, also on failure. ERR_CORRUPT: not even the schema could be
 * read; ERR_LOCKED: it is in use; why says so. Other errors are those of `into`. */
int history_salvage(const char *old_path, History *into, uint64_t *ret_rows,
                    Buf *why) HR_MUST_CHECK;

#endif
