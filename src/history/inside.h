/* inside.h: private to src/history: what an open history is made of, and its statements.
 *
 * H1  A transaction holds rows, the applied sequence and the count of rows together.
 * H2  No statement is left stepping at the end of a call: nothing keeps the WAL from being reset.
 * H3  What a caller gets was checked against its checksum; a row that fails is ERR_CORRUPT, and in
 *     a list passed over and counted: one row's damage hides no other row. */
#ifndef HISTORY_INSIDE_H
#define HISTORY_INSIDE_H

#include <sqlite3.h>

#include "history/history.h"

#define HISTORY_APPLICATION_ID 0x48525648 /* "HRVH" */
#define HISTORY_FORMAT         1

#define PAGE_BYTES       4096 /* measured: 8,192 inserts 15 % slower, for it writes more */
#define CACHE_KIB        8192 /* all the memory it takes, about. 4 MiB: slower; 16, 32: no faster */
#define CHECKPOINT_PAGES 2048 /* 8 MiB: small syncs, so that the log's do not queue behind large */
#define WAL_PAGES_MAX    16384 /* 64 MiB not yet copied into the file: then no begin */
#define ROW_BYTES_MAX    (16 * MIB)
#define KINDS_CACHED     16384 /* of some 100 bytes; then the cache starts anew */

/* Every statement, prepared at the open (which so checks the schema), kept until the end. Their
 * text is in statements.c. */
typedef enum {
    STMT_BEGIN,
    STMT_COMMIT,
    STMT_ROLLBACK,
    STMT_META_PUT,
    STMT_KIND_FIND,
    STMT_KIND_ADD,
    STMT_TASK_ADD,
    STMT_TASK_REPLACE,
    STMT_TASK_BODY,
    STMT_TASK_DELETE,
    STMT_FILE_PUT,
    STMT_FILE_ADD,
    STMT_FILE_DELETE,
    STMT_FILES_OF_TASK_DELETE,
    STMT_TASK_GET,
    STMT_FILE_GET,
    STMT_LIST_ALL,
    STMT_LIST_KINDS,
    STMT_LIST_KIND,
    STMT_LIST_KIND_UNSUCCESSFUL,
    STMT_SWEEP_EXPIRED,
    STMT_SWEEP_OLDEST,
    STMT_SWEEP_NEWEST,
    STMT_PAGES,
    STMT_FREE_PAGES,
    STMT_SALVAGE_TASKS,
    STMT_SALVAGE_FILES,
    STMTS
} StmtId;

extern const char *const history_schema;
extern const char *const history_sql[STMTS];

/* tenant, model, version as one number: rows and indexes stay small. */
typedef struct {
    TableNode by_key;
    int64_t id;
    uint32_t len;
    uint8_t key[]; /* the three, each behind its length */
} Kind;

struct History {
    sqlite3 *db;
    sqlite3_stmt *stmts[STMTS];
    bool in_transaction;
    bool kinds_added; /* by the open transaction */
    int put_err;      /* the first error of the open transaction */

    uint64_t applied_seq, rows; /* committed */
    uint64_t rows_now;          /* with the open transaction */
    int wal_pages;              /* in the WAL and not yet copied into the file */
    int checkpoint_err;         /* of the last attempt to copy them */
    bool erase_due;             /* the WAL may hold a body that was deleted */
    uint64_t damaged;           /* rows that the last list passed over */
    uint64_t damaged_no;        /* the first of them */

    Table kinds;  /* of Kind: a cache of those in the file and in the open transaction */
    Buf key, row; /* scratch; what the last call handed out lies in row */
};

/* ---- history.c ---- */
int history_err(sqlite3 *db, int rc); /* 0 for SQLITE_OK, _ROW, _DONE; else one of base's codes */
/* The statement, reset; bind all of it. NULL: *ret_err says why. */
sqlite3_stmt *history_stmt(History *h, StmtId id, int *ret_err);
/* Steps a statement that gives no rows, and resets it. */
int history_run(History *h, sqlite3_stmt *s) HR_MUST_CHECK;
int history_pragma(History *h, const char *sql) HR_MUST_CHECK;
/* One number by a statement that is used once. */
int history_ask(sqlite3 *db, const char *sql, int64_t *ret) HR_MUST_CHECK;
int history_number(History *h, StmtId id, uint64_t *ret) HR_MUST_CHECK; /* of one row and column */
/* Opens without creating; parameters as in SQLite's URIs ("mode=ro"). Sets what makes a hostile or
 * damaged file harmless. *ret is set even on failure, for messages; close it. */
int history_connect(const char *path, const char *parameters, int flags,
                    sqlite3 **ret) HR_MUST_CHECK;

/* ---- write.c ---- */
void bind_str(sqlite3_stmt *s, int at, Str v);
void bind_blob(sqlite3_stmt *s, int at, Str v);
uint32_t task_check(const HistoryTask *t); /* the checksum over all of it */
uint32_t file_check(const HistoryFile *f);
/* As the puts, but leave a row that is there. */
int history_add_task(History *h, const HistoryTask *t, bool *ret_added) HR_MUST_CHECK;
int history_add_file(History *h, const HistoryFile *f) HR_MUST_CHECK;
/* Commits the open transaction when err is 0; else, or when that fails, rolls it back. */
int history_end(History *h, int err, uint64_t applied_seq) HR_MUST_CHECK;
void kinds_forget(History *h);

/* ---- sweep.c ---- */
/* The numbers of up to max tasks in the order of id (STMT_SWEEP_…), as long as the key it gives is
 * at most until. */
int history_collect(History *h, StmtId id, int64_t until, size_t max, uint64_t *numbers,
                    size_t *ret_n) HR_MUST_CHECK;
/* In the open transaction; what their files are called goes behind gone (NULL: nowhere), each ended
 * by a NUL. ERR_CORRUPT: one is not there. */
int history_delete_tasks(History *h, const uint64_t *numbers, size_t n, Buf *gone) HR_MUST_CHECK;

/* Likewise the entries of one task's files. */
int history_delete_files_of(History *h, uint64_t no, Buf *gone) HR_MUST_CHECK;

/* ---- read.c ---- */
/* The row of STMT_TASK_GET or STMT_SALVAGE_TASKS that s stands on, borrowed from s. ERR_CORRUPT. */
int task_of_row(sqlite3_stmt *s, HistoryTask *ret) HR_MUST_CHECK;
int file_of_row(sqlite3_stmt *s, HistoryFile *ret) HR_MUST_CHECK;

#endif
