/* history.c: opening and closing the file; errors, statements, figures. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "history/inside.h"

/* ---- errors ---- */

static int err_of_errno(int e)
{
    switch (e) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return ERR_NOSPC;
    case EROFS:
        return ERR_READONLY;
    case EACCES:
    case EPERM:
        return ERR_PERMISSION;
    case ENOENT:
    case ENOTDIR:
        return ERR_NOT_FOUND;
    default:
        return ERR_IO;
    }
}

static bool out_of_room(sqlite3_file *f)
{
    int e = 0;
    if (f && f->pMethods) (void)f->pMethods->xFileControl(f, SQLITE_FCNTL_LAST_ERRNO, &e);
    return e && err_of_errno(e) == ERR_NOSPC;
}

/* SQLite calls ENOSPC full; a quota that is used up is an I/O error to it, of a file that
 * remembers its last errno. A commit writes the WAL, a checkpoint the file itself. */
static int err_of_write(sqlite3 *db)
{
    sqlite3_file *file = NULL, *wal = NULL;
    (void)sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, (void *)&file);
    (void)sqlite3_file_control(db, "main", SQLITE_FCNTL_JOURNAL_POINTER, (void *)&wal);
    return out_of_room(file) || out_of_room(wal) ? ERR_NOSPC : ERR_IO;
}

int history_err(sqlite3 *db, int rc)
{
    CHECK((rc & 0xff) != SQLITE_MISUSE);
    switch (rc & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
        return 0;
    case SQLITE_NOMEM:
        return ERR_NOMEM;
    case SQLITE_FULL:
        return ERR_NOSPC;
    case SQLITE_READONLY:
        return ERR_READONLY;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return ERR_LOCKED;
    case SQLITE_TOOBIG:
        return ERR_LIMIT;
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return ERR_PERMISSION;
    case SQLITE_CANTOPEN:
        return err_of_errno(sqlite3_system_errno(db));
    case SQLITE_IOERR:
        switch (rc) {
        case SQLITE_IOERR_NOMEM:
            return ERR_NOMEM;
        case SQLITE_IOERR_CORRUPTFS:
        case SQLITE_IOERR_SHORT_READ:
            return ERR_CORRUPT;
        case SQLITE_IOERR_WRITE:
        case SQLITE_IOERR_FSYNC:
        case SQLITE_IOERR_TRUNCATE:
            return err_of_write(db);
        default:
            return ERR_IO;
        }
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_ERROR:      /* our statements are right: the schema is not what it was */
    case SQLITE_CONSTRAINT: /* what we put breaks none: an index does not fit its table */
    case SQLITE_MISMATCH:
        return ERR_CORRUPT;
    default:
        return ERR_IO;
    }
}

/* ---- statements ---- */

sqlite3_stmt *history_stmt(History *h, StmtId id, int *ret_err)
{
    sqlite3_stmt **s = &h->stmts[id];
    if (*s) {
        CHECK(!sqlite3_stmt_busy(*s)); /* keeps H2 */
        return *s;
    }
    int rc = sqlite3_prepare_v3(h->db, history_sql[id], -1, SQLITE_PREPARE_PERSISTENT, s, NULL);
    if (rc == SQLITE_OK) return *s;
    *ret_err = history_err(h->db, rc);
    return NULL;
}

int history_run(History *h, sqlite3_stmt *s)
{
    int rc = sqlite3_step(s);
    int err = history_err(h->db, rc); /* before the reset, which may change the system's errno */
    sqlite3_reset(s);
    return err;
}

int history_pragma(History *h, const char *sql)
{
    return history_err(h->db, sqlite3_exec(h->db, sql, NULL, NULL, NULL));
}

int history_number(History *h, StmtId id, uint64_t *ret)
{
    int err = 0;
    sqlite3_stmt *s = history_stmt(h, id, &err);
    if (!s) return err;
    int rc = sqlite3_step(s);
    err = history_err(h->db, rc);
    if (rc == SQLITE_ROW) *ret = (uint64_t)sqlite3_column_int64(s, 0);
    sqlite3_reset(s);
    return err || rc == SQLITE_ROW ? err : ERR_CORRUPT;
}

/* ---- opening ---- */

/* As a URI, so that no character of a path means anything to SQLite. */
static void put_uri(Buf *b, const char *path, const char *parameters)
{
    buf_puts(b, "file:");
    for (const unsigned char *p = (const unsigned char *)path; *p; p++) {
        bool plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                     (*p >= '0' && *p <= '9') || strchr("/._-", *p);
        if (plain)
            buf_putc(b, (char)*p);
        else
            buf_printf(b, "%%%02X", *p);
    }
    buf_putc(b, '?');
    buf_puts(b, parameters);
}

/* Before the first connection of the process: SQLite need not count its memory, which takes a lock
 * at every allocation. */
static void configure_once(void)
{
    (void)!sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
}

static void configure(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    CHECK(pthread_once(&once, configure_once) == 0);
}

int history_connect(const char *path, const char *parameters, int flags, sqlite3 **ret)
{
    Buf uri = {0};
    put_uri(&uri, path, parameters);
    configure();
    int rc = sqlite3_open_v2(buf_z(&uri), ret,
                             flags | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
                             NULL);
    buf_done(&uri);
    sqlite3 *db = *ret;
    if (!db) return ERR_NOMEM;
    if (rc != SQLITE_OK) return history_err(db, rc);
    sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, NULL);
    sqlite3_db_config(db, SQLITE_DBCONFIG_DQS_DML, 0, NULL);
    sqlite3_db_config(db, SQLITE_DBCONFIG_DQS_DDL, 0, NULL);
    sqlite3_limit(db, SQLITE_LIMIT_LENGTH, (int)ROW_BYTES_MAX);
    sqlite3_limit(db, SQLITE_LIMIT_ATTACHED, 0);
    return history_err(db, sqlite3_exec(db,
                                        "PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0;"
                                        "PRAGMA temp_store = MEMORY;",
                                        NULL, NULL, NULL));
}

int history_ask(sqlite3 *db, const char *sql, int64_t *ret)
{
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &s, NULL);
    if (rc == SQLITE_OK) rc = sqlite3_step(s);
    int err = history_err(db, rc);
    if (rc == SQLITE_ROW) *ret = sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    return err || rc == SQLITE_ROW ? err : ERR_CORRUPT;
}

/* Whose file it is, before anything is written to it. *ret_new: nothing is in it yet. */
static int check_format(sqlite3 *db, bool *ret_new, Buf *why)
{
    int64_t id = 0, format = 0, tables = 0;
    int err = history_ask(db, "PRAGMA application_id", &id);
    if (!err) err = history_ask(db, "PRAGMA user_version", &format);
    if (!err) err = history_ask(db, "SELECT count(*) FROM sqlite_schema", &tables);
    if (err) return err;
    *ret_new = !id && !format && !tables;
    if (*ret_new) return 0;
    if (id != HISTORY_APPLICATION_ID) {
        buf_puts(why, "it is an SQLite database, but not a history of Headrace");
        return ERR_CORRUPT;
    }
    if (format > HISTORY_FORMAT) {
        buf_printf(why, "it was written by a newer Headrace (format %lld, this one knows %d)",
                   (long long)format, HISTORY_FORMAT);
        return ERR_UNSUPPORTED;
    }
    return format == HISTORY_FORMAT ? 0 : ERR_CORRUPT;
}

/* One transaction: a crash leaves an empty file or a whole history. */
static int make_schema(History *h, uint32_t shard)
{
    Buf sql = {0};
    buf_printf(&sql,
               "BEGIN IMMEDIATE; %s INSERT INTO meta VALUES (1, %u, 0, 0);"
               "PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT;",
               history_schema, shard, HISTORY_APPLICATION_ID, HISTORY_FORMAT);
    int err = history_pragma(h, buf_z(&sql));
    buf_done(&sql);
    return err;
}

static int read_meta(History *h, uint32_t shard, Buf *why)
{
    int64_t found = 0, applied = 0, rows = 0;
    int err = history_ask(h->db, "SELECT shard FROM meta WHERE one = 1", &found);
    if (!err) err = history_ask(h->db, "SELECT applied_seq FROM meta WHERE one = 1", &applied);
    if (!err) err = history_ask(h->db, "SELECT task_rows FROM meta WHERE one = 1", &rows);
    if (err) return err;
    if (applied < 0 || rows < 0) return ERR_CORRUPT;
    if (found != (int64_t)shard) {
        buf_printf(why, "it belongs to shard %lld, not to shard %u", (long long)found, shard);
        return ERR_INVALID;
    }
    h->applied_seq = (uint64_t)applied;
    h->rows = h->rows_now = (uint64_t)rows;
    return 0;
}

#define BEYOND_BATCH 10000

/* Rows of a log that has no such records (H1: the applied sequence falls with them). Bytes of their
 * files are left to who looks for bytes that nothing names. */
static int drop_beyond(History *h, uint64_t log_seq)
{
    if (log_seq >= INT64_MAX) return 0;
    uint64_t *numbers = mem_new(BEYOND_BATCH * sizeof *numbers);
    size_t n = 0;
    int err;
    do {
        err = history_collect(h, STMT_SWEEP_NEWEST, -(int64_t)log_seq - 1, BEYOND_BATCH, numbers,
                              &n);
        if (err || (!n && h->applied_seq <= log_seq)) break;
        err = history_begin(h);
        if (err) break;
        err = history_delete_tasks(h, numbers, n, NULL);
        err = history_end(h, err, MIN(h->applied_seq, log_seq));
    } while (!err && n == BEYOND_BATCH);
    mem_free(numbers);
    return err;
}

/* Counts the WAL's pages for checkpoint(), which SQLite would otherwise do itself and say nothing
 * when it fails. */
static int on_wal(void *ctx, sqlite3 *db, const char *name, int pages)
{
    (void)db;
    (void)name;
    ((History *)ctx)->wal_pages = pages;
    return SQLITE_OK;
}

static int set_up(History *h, uint32_t shard, Buf *why)
{
    bool fresh = false;
    /* No shared memory, and no reader who could keep the WAL from being emptied. */
    int err = history_pragma(h, "PRAGMA locking_mode = EXCLUSIVE");
    if (!err) err = check_format(h->db, &fresh, why);
    Buf sql = {0};
    if (!err && fresh)
        buf_printf(&sql, "PRAGMA page_size = %d; PRAGMA auto_vacuum = INCREMENTAL;", PAGE_BYTES);
    buf_printf(&sql,
               "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -%d;"
               "PRAGMA journal_size_limit = %d; PRAGMA secure_delete = FAST;",
               CACHE_KIB, 2 * CHECKPOINT_PAGES * PAGE_BYTES);
    if (!err) err = history_pragma(h, buf_z(&sql));
    buf_done(&sql);
    if (err) return err;
    sqlite3_wal_hook(h->db, on_wal, h);
    if (fresh) err = make_schema(h, shard);
    if (!err) err = read_meta(h, shard, why);
    for (int id = 0; id < STMTS && !err; id++) (void)history_stmt(h, (StmtId)id, &err);
    return err;
}

static void explain(const char *path, int err, Buf *why)
{
    Buf said = *why;
    *why = (Buf){0};
    buf_printf(why, "%s: %s", path, err_text(err));
    if (said.len) buf_printf(why, ": %.*s", STR_ARG(buf_str(&said)));
    if (err == ERR_CORRUPT)
        buf_puts(why, ". The log has what counts; `headrace history rebuild --data DIR` makes a "
                      "new history of what the log retains and what can be read of this one");
    else if (err == ERR_LOCKED)
        buf_puts(why, ". Another process has it open");
    buf_done(&said);
}

int history_open(const char *path, uint32_t shard, uint64_t log_seq, History **ret, Buf *why)
{
    /* SQLite would make it readable to all. Only a new file is opened here: closing one that this
     * process holds open elsewhere would drop its locks. */
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0)
        close(fd);
    else if (errno != EEXIST) {
        int err = err_of_errno(errno);
        explain(path, err, why);
        return err;
    }
    History *h = mem_new(sizeof *h);
    h->erase_due = true; /* for all we know: the process before may have been killed */
    Buf said = {0};
    int err = history_connect(path, "mode=rw", SQLITE_OPEN_READWRITE, &h->db);
    if (!err && sqlite3_db_readonly(h->db, "main") == 1) err = ERR_READONLY;
    if (!err) err = set_up(h, shard, &said);
    if (!err) err = drop_beyond(h, log_seq);
    if (!err) {
        buf_done(&said);
        *ret = h;
        return 0;
    }
    explain(path, err, &said);
    buf_put_str(why, buf_str(&said));
    buf_done(&said);
    history_close(h);
    return err;
}

void history_close(History *h)
{
    if (!h) return;
    history_rollback(h);
    for (int i = 0; i < STMTS; i++) sqlite3_finalize(h->stmts[i]);
    CHECK(sqlite3_close(h->db) == SQLITE_OK); /* empties the WAL and removes it, when it can */
    kinds_forget(h);
    table_done(&h->kinds);
    buf_done(&h->key);
    buf_done(&h->row);
    mem_free(h);
}

/* ---- figures ---- */

uint64_t history_applied_seq(const History *h)
{
    return h->applied_seq;
}

int history_stats(History *h, HistoryStats *ret)
{
    uint64_t pages = 0, free_pages = 0;
    int err = history_number(h, STMT_PAGES, &pages);
    if (!err) err = history_number(h, STMT_FREE_PAGES, &free_pages);
    sqlite3_stmt *s = err ? NULL : history_stmt(h, STMT_SWEEP_OLDEST, &err);
    if (!s) return err;
    sqlite3_bind_int64(s, 1, 1);
    int rc = sqlite3_step(s);
    err = history_err(h->db, rc);
    int64_t oldest = rc == SQLITE_ROW ? sqlite3_column_int64(s, 1) : 0;
    sqlite3_reset(s);
    if (err) return err;
    *ret = (HistoryStats){
        .rows = h->rows,
        .bytes = (pages - MIN(free_pages, pages)) * PAGE_BYTES,
        .file_bytes = pages * PAGE_BYTES,
        .wal_bytes = (uint64_t)h->wal_pages * PAGE_BYTES,
        .applied_seq = h->applied_seq,
        .oldest_finished_ns = oldest,
    };
    return 0;
}
