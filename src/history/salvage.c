/* salvage.c: what can still be read of a damaged file.
 *
 * Rows are read in the order of their numbers. Where that fails, the next number from which reading
 * goes on is looked for: first by steps that double, then by halving the last of them, so that a
 * bad leaf costs its rows, and a bad page above leaves what lies below it. */
#include "history/inside.h"

#define NUMBER_MAX (INT64_C(1) << 40) /* task numbers have 40 bits */
#define BATCH_ROWS 1000

typedef struct {
    sqlite3 *old;
    History *into;
    sqlite3_stmt *rows; /* from ?1 on */
    int (*copy)(History *into, sqlite3_stmt *s, uint64_t *rows);
    uint64_t copied; /* tasks, committed */
    uint64_t pending;
} Salvage;

/* Whatever is wrong with a row of the old file, it is passed over; errors are those of into. */
static int copy_task(History *into, sqlite3_stmt *s, uint64_t *rows)
{
    HistoryTask t;
    bool added = false;
    if (task_of_row(s, &t) || t.no - 1 >= NUMBER_MAX || t.finished_seq > INT64_MAX) return 0;
    int err = history_add_task(into, &t, &added);
    *rows += added;
    return err;
}

static int copy_file(History *into, sqlite3_stmt *s, uint64_t *rows)
{
    HistoryFile f;
    (void)rows;
    if (file_of_row(s, &f) || f.no - 1 >= INT64_MAX || f.owner_task > INT64_MAX ||
        f.size > INT64_MAX)
        return 0;
    return history_add_file(into, &f);
}

/* The first row from `from` on; its number, NUMBER_MAX behind the last; −1: it can't be read. The
 * statement stands on it. */
static int64_t seek(Salvage *v, int64_t from)
{
    sqlite3_reset(v->rows);
    sqlite3_bind_int64(v->rows, 1, from);
    int rc = sqlite3_step(v->rows);
    if (rc == SQLITE_DONE) return NUMBER_MAX;
    if (rc != SQLITE_ROW) return -1;
    int64_t no = sqlite3_column_int64(v->rows, 0);
    return no >= from ? no : -1;
}

/* The least number above bad from which reading works (about: between two bad pages there may be a
 * good one that a step goes over). */
static int64_t next_readable(Salvage *v, int64_t bad)
{
    int64_t good = NUMBER_MAX;
    for (int64_t step = 1; bad < NUMBER_MAX - step; step *= 2) {
        if (seek(v, bad + step) >= 0) {
            good = bad + step;
            break;
        }
        bad += step;
    }
    while (good - bad > 1) {
        int64_t middle = bad + (good - bad) / 2;
        if (seek(v, middle) >= 0)
            good = middle;
        else
            bad = middle;
    }
    return good;
}

static int commit(Salvage *v)
{
    int err = history_commit(v->into, history_applied_seq(v->into));
    if (!err) v->copied += v->pending;
    v->pending = 0;
    return err;
}

static int copy_rows(Salvage *v)
{
    int err = history_begin(v->into);
    if (err) return err;
    uint32_t in_batch = 0;
    for (int64_t from = 1; !err && from < NUMBER_MAX;) {
        int64_t no = seek(v, from);
        for (int rc = SQLITE_ROW; !err && no >= from && no < NUMBER_MAX;) {
            err = v->copy(v->into, v->rows, &v->pending);
            from = no + 1;
            if (!err && ++in_batch >= BATCH_ROWS) {
                err = commit(v);
                if (!err) err = history_begin(v->into);
                in_batch = 0;
            }
            if (err) break;
            rc = sqlite3_step(v->rows);
            no = rc == SQLITE_ROW ? sqlite3_column_int64(v->rows, 0)
                                  : (rc == SQLITE_DONE ? NUMBER_MAX : -1);
        }
        if (no >= NUMBER_MAX) break;
        if (!err) from = next_readable(v, from - 1);
    }
    sqlite3_reset(v->rows);
    if (err) {
        history_rollback(v->into);
        return err;
    }
    return commit(v);
}

static int copy_table(Salvage *v, StmtId id, int (*copy)(History *, sqlite3_stmt *, uint64_t *))
{
    v->copy = copy;
    v->rows = NULL;
    int rc = sqlite3_prepare_v2(v->old, history_sql[id], -1, &v->rows, NULL);
    int err = rc == SQLITE_OK ? copy_rows(v) : ERR_CORRUPT;
    sqlite3_finalize(v->rows);
    return err;
}

/* The schema must be readable. Files that a crash left are read with their WAL, for which SQLite
 * needs to write beside them; else without. */
static int open_old(const char *path, sqlite3 **ret)
{
    static const char *const ways[] = {"mode=ro", "mode=ro&immutable=1"};
    int err = ERR_CORRUPT;
    for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
        sqlite3 *db = NULL;
        sqlite3_stmt *s = NULL;
        err = history_connect(path, ways[i], SQLITE_OPEN_READONLY, &db);
        if (!err)
            err = history_err(
                db, sqlite3_prepare_v2(db, history_sql[STMT_SALVAGE_TASKS], -1, &s, NULL));
        sqlite3_finalize(s);
        if (!err) {
            *ret = db;
            return 0;
        }
        sqlite3_close(db);
        if (err == ERR_NOT_FOUND || err == ERR_PERMISSION || err == ERR_LOCKED) return err;
    }
    return err;
}

/* Does SQLite find nothing wrong? Its quick check leaves out whether indexes fit their tables: a
 * rebuild makes them anew anyway. */
static int looks_whole(sqlite3 *db, bool *ret)
{
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(db, "PRAGMA quick_check(1)", -1, &s, NULL);
    if (rc == SQLITE_OK) rc = sqlite3_step(s);
    int err = history_err(db, rc);
    const char *said = rc == SQLITE_ROW ? (const char *)sqlite3_column_text(s, 0) : NULL;
    *ret = said && str_eqz(STR("ok"), said);
    sqlite3_finalize(s);
    return err == ERR_CORRUPT ? 0 : err;
}

int history_peek(const char *path, HistoryStats *ret, bool *ret_whole, Buf *why)
{
    sqlite3 *db = NULL;
    int64_t rows = 0, applied = 0, pages = 0, spare = 0, oldest = 0;
    bool whole = false;
    int err = open_old(path, &db);
    if (!err) err = history_ask(db, "SELECT task_rows FROM meta WHERE one = 1", &rows);
    if (!err) err = history_ask(db, "SELECT applied_seq FROM meta WHERE one = 1", &applied);
    if (!err) err = history_ask(db, "PRAGMA page_count", &pages);
    if (!err) err = history_ask(db, "PRAGMA freelist_count", &spare);
    if (!err)
        err = history_ask(db,
                          "SELECT coalesce((SELECT finished_ns FROM tasks INDEXED BY "
                          "tasks_by_finish ORDER BY finished_seq LIMIT 1), 0)",
                          &oldest);
    if (!err && ret_whole) err = looks_whole(db, &whole);
    if (!err && (rows < 0 || applied < 0 || pages < spare)) err = ERR_CORRUPT;
    sqlite3_close(db);
    if (err) {
        buf_printf(why, "%s: %s", path, err_text(err));
        return err;
    }
    *ret = (HistoryStats){.rows = (uint64_t)rows,
                          .bytes = (uint64_t)(pages - spare) * PAGE_BYTES,
                          .file_bytes = (uint64_t)pages * PAGE_BYTES,
                          .applied_seq = (uint64_t)applied,
                          .oldest_finished_ns = oldest};
    if (ret_whole) *ret_whole = whole;
    return 0;
}

int history_salvage(const char *old_path, History *into, uint64_t *ret_rows, Buf *why)
{
    Salvage v = {.into = into};
    *ret_rows = 0;
    int err = open_old(old_path, &v.old);
    if (err) {
        buf_printf(why, "%s: %s: nothing can be read of it", old_path, err_text(err));
        return err;
    }
    err = copy_table(&v, STMT_SALVAGE_TASKS, copy_task);
    if (!err) {
        err = copy_table(&v, STMT_SALVAGE_FILES, copy_file);
        if (err == ERR_CORRUPT) err = 0; /* no table of files: then without */
    }
    sqlite3_close(v.old);
    if (err) buf_printf(why, "the new history: %s", err_text(err));
    *ret_rows = v.copied;
    return err;
}
