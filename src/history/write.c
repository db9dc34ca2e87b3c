/* write.c: transactions, and what is put in them. */
#include <string.h>

#include "history/inside.h"

/* ---- bytes ---- */

void bind_str(sqlite3_stmt *s, int at, Str v)
{
    sqlite3_bind_text64(s, at, v.n ? v.p : "", v.n, SQLITE_STATIC, SQLITE_UTF8);
}

void bind_blob(sqlite3_stmt *s, int at, Str v)
{
    sqlite3_bind_blob64(s, at, v.n ? v.p : "", v.n, SQLITE_STATIC);
}

/* XXH3, seeded with what came before (chain64). */
static uint64_t check_str(uint64_t check, Str v)
{
    uint8_t len[8];
    store_u64(len, v.n);
    return chain64(chain64(check, len, sizeof len), v.p, v.n);
}

uint32_t task_check(const HistoryTask *t)
{
    uint8_t head[42];
    store_u64(head, t->no);
    store_u64(head + 8, t->finished_seq);
    store_u64(head + 16, (uint64_t)t->created_ns);
    store_u64(head + 24, (uint64_t)t->finished_ns);
    store_u64(head + 32, (uint64_t)t->expires_ns);
    head[40] = (uint8_t)t->state;
    head[41] = (uint8_t)t->class;
    uint64_t check = chain64(0, head, sizeof head);
    check = check_str(check_str(check_str(check, t->tenant), t->model), t->version);
    return (uint32_t)check_str(check, t->body);
}

uint32_t file_check(const HistoryFile *f)
{
    uint8_t head[24];
    store_u64(head, f->no);
    store_u64(head + 8, f->owner_task);
    store_u64(head + 16, f->size);
    uint64_t check = chain64(0, head, sizeof head);
    return (uint32_t)check_str(check_str(check_str(check, f->id), f->tenant), f->body);
}

/* ---- transactions ---- */

/* Copies the WAL into the file once it is long enough. A failure is no failure of the commit before
 * it; it is met again, and told, when the WAL has become too long. */
static void checkpoint(History *h, int pages_max)
{
    if (h->wal_pages < pages_max) return;
    int left = 0, done = 0;
    int rc = sqlite3_wal_checkpoint_v2(h->db, NULL, SQLITE_CHECKPOINT_PASSIVE, &left, &done);
    h->checkpoint_err = history_err(h->db, rc);
    if (!h->checkpoint_err && done == left) h->wal_pages = 0;
}

int history_begin(History *h)
{
    CHECK(!h->in_transaction);
    checkpoint(h, WAL_PAGES_MAX);
    if (h->wal_pages >= WAL_PAGES_MAX) return h->checkpoint_err ? h->checkpoint_err : ERR_IO;
    int err = 0;
    sqlite3_stmt *s = history_stmt(h, STMT_BEGIN, &err);
    if (s) err = history_run(h, s);
    if (err) return err;
    h->in_transaction = true;
    h->put_err = 0;
    h->kinds_added = false;
    h->rows_now = h->rows;
    return 0;
}

void history_rollback(History *h)
{
    if (!h->in_transaction) return;
    h->in_transaction = false;
    h->rows_now = h->rows;
    if (h->kinds_added) kinds_forget(h);
    if (sqlite3_get_autocommit(h->db)) return; /* SQLite did it already, for some errors */
    int err = 0;
    sqlite3_stmt *s = history_stmt(h, STMT_ROLLBACK, &err);
    if (s) err = history_run(h, s);
    /* Whatever it says: it leaves no transaction behind. */
    CHECK(sqlite3_get_autocommit(h->db));
}

int history_end(History *h, int err, uint64_t applied_seq)
{
    CHECK(h->in_transaction && applied_seq <= INT64_MAX);
    if (!err) err = h->put_err;
    sqlite3_stmt *s = err ? NULL : history_stmt(h, STMT_META_PUT, &err);
    if (s) {
        sqlite3_bind_int64(s, 1, (int64_t)applied_seq);
        sqlite3_bind_int64(s, 2, (int64_t)h->rows_now);
        err = history_run(h, s);
    }
    s = err ? NULL : history_stmt(h, STMT_COMMIT, &err);
    if (s) err = history_run(h, s);
    if (err) {
        history_rollback(h);
        return err;
    }
    h->in_transaction = false;
    h->applied_seq = applied_seq;
    h->rows = h->rows_now;
    checkpoint(h, CHECKPOINT_PAGES);
    return 0;
}

int history_commit(History *h, uint64_t applied_seq)
{
    return history_end(h, 0, MAX(applied_seq, h->applied_seq));
}

/* ---- kinds ---- */

void kinds_forget(History *h)
{
    TableIter at = {0};
    for (TableNode *n; (n = table_each(&h->kinds, &at));) {
        table_del(&h->kinds, n);
        mem_free(CONTAINER_OF(n, Kind, by_key));
    }
}

static void put_key(Buf *key, Str v)
{
    buf_u64(key, v.n);
    buf_put_str(key, v);
}

static int kind_of_file(History *h, const HistoryTask *t, int64_t *ret)
{
    int err = 0;
    sqlite3_stmt *s = history_stmt(h, STMT_KIND_FIND, &err);
    if (!s) return err;
    bind_str(s, 1, t->tenant);
    bind_str(s, 2, t->model);
    bind_str(s, 3, t->version);
    int rc = sqlite3_step(s);
    err = history_err(h->db, rc);
    int64_t id = rc == SQLITE_ROW ? sqlite3_column_int64(s, 0) : 0;
    sqlite3_reset(s);
    if (err) return err;
    if (rc == SQLITE_DONE) {
        s = history_stmt(h, STMT_KIND_ADD, &err);
        if (!s) return err;
        bind_str(s, 1, t->tenant);
        bind_str(s, 2, t->model);
        bind_str(s, 3, t->version);
        err = history_run(h, s);
        if (err) return err;
        id = sqlite3_last_insert_rowid(h->db);
        h->kinds_added = true;
    }
    *ret = id;
    return 0;
}

/* The number of a task's (tenant, model, version), new when there is none. */
static int kind_of(History *h, const HistoryTask *t, int64_t *ret)
{
    buf_clear(&h->key);
    put_key(&h->key, t->tenant);
    put_key(&h->key, t->model);
    put_key(&h->key, t->version);
    uint64_t hash = hash_bytes(h->key.data, h->key.len);
    for (TableNode *n = table_first(&h->kinds, hash); n; n = table_next(n)) {
        Kind *k = CONTAINER_OF(n, Kind, by_key);
        if (k->len == h->key.len && memcmp(k->key, h->key.data, k->len) == 0) {
            *ret = k->id;
            return 0;
        }
    }
    int64_t id = 0;
    int err = kind_of_file(h, t, &id);
    if (err) return err;
    if (h->kinds.len >= KINDS_CACHED) kinds_forget(h);
    Kind *k = mem_new(sizeof *k + h->key.len);
    k->id = id;
    k->len = (uint32_t)h->key.len;
    memcpy(k->key, h->key.data, k->len);
    table_add(&h->kinds, &k->by_key, hash);
    *ret = id;
    return 0;
}

/* ---- puts ---- */

/* What SQLite would refuse when it is bound: the columns beside these are below 1 KiB. */
static int check_size(size_t strings, Str body)
{
    return body.n < ROW_BYTES_MAX && strings + body.n <= ROW_BYTES_MAX - KIB ? 0 : ERR_LIMIT;
}

static void bind_task(sqlite3_stmt *s, const HistoryTask *t, int64_t kind)
{
    sqlite3_bind_int64(s, 1, (int64_t)t->no);
    sqlite3_bind_int64(s, 2, kind);
    sqlite3_bind_int(s, 3, (int)t->state);
    sqlite3_bind_int(s, 4, (int)t->class);
    sqlite3_bind_int64(s, 5, (int64_t)t->finished_seq);
    sqlite3_bind_int64(s, 6, t->created_ns);
    sqlite3_bind_int64(s, 7, t->finished_ns);
    sqlite3_bind_int64(s, 8, t->expires_ns);
    sqlite3_bind_int64(s, 9, task_check(t));
    bind_blob(s, 10, t->body);
}

/* What was put before may since have been deleted by a client, in the core: its bytes go as in
 * replace_body, and so do the entries of its files. Those it still has are put behind it. */
static int replace_task(History *h, const HistoryTask *t, int64_t kind)
{
    int err = history_delete_files_of(h, t->no, NULL);
    if (!err) err = history_pragma(h, "PRAGMA secure_delete = ON");
    sqlite3_stmt *s = err ? NULL : history_stmt(h, STMT_TASK_REPLACE, &err);
    if (!s) return err;
    bind_task(s, t, kind);
    err = history_run(h, s);
    h->erase_due = true;
    int fast = history_pragma(h, "PRAGMA secure_delete = FAST");
    return err ? err : fast;
}

/* Most tasks are new: that costs one statement, and tells whether there is one more row. */
static int put_task(History *h, const HistoryTask *t, bool replace, bool *ret_added)
{
    CHECK(h->in_transaction && t->no - 1 < INT64_MAX && t->finished_seq <= INT64_MAX &&
          task_state_terminal(t->state));
    if (h->put_err) return h->put_err;
    int64_t kind = 0;
    int err = check_size(t->tenant.n + t->model.n + t->version.n, t->body);
    if (!err) err = kind_of(h, t, &kind);
    sqlite3_stmt *s = err ? NULL : history_stmt(h, STMT_TASK_ADD, &err);
    bool added = false;
    if (s) {
        bind_task(s, t, kind);
        err = history_run(h, s);
        added = !err && sqlite3_changes(h->db) == 1;
    }
    if (!err && !added && replace) err = replace_task(h, t, kind);
    if (added) h->rows_now++;
    *ret_added = added;
    return h->put_err = err;
}

int history_put_task(History *h, const HistoryTask *t)
{
    bool added;
    return put_task(h, t, true, &added);
}

int history_add_task(History *h, const HistoryTask *t, bool *ret_added)
{
    return put_task(h, t, false, ret_added);
}

static int put_file(History *h, const HistoryFile *f, StmtId how)
{
    CHECK(h->in_transaction && f->no - 1 < INT64_MAX && f->owner_task <= INT64_MAX &&
          f->size <= INT64_MAX);
    if (h->put_err) return h->put_err;
    int err = check_size(f->id.n + f->tenant.n, f->body);
    sqlite3_stmt *s = err ? NULL : history_stmt(h, how, &err);
    if (s) {
        sqlite3_bind_int64(s, 1, (int64_t)f->no);
        bind_str(s, 2, f->id);
        bind_str(s, 3, f->tenant);
        sqlite3_bind_int64(s, 4, (int64_t)f->owner_task);
        sqlite3_bind_int64(s, 5, (int64_t)f->size);
        sqlite3_bind_int64(s, 6, file_check(f));
        bind_blob(s, 7, f->body);
        err = history_run(h, s);
    }
    return h->put_err = err;
}

int history_put_file(History *h, const HistoryFile *f)
{
    return put_file(h, f, STMT_FILE_PUT);
}

int history_add_file(History *h, const HistoryFile *f)
{
    return put_file(h, f, STMT_FILE_ADD);
}

/* ---- what clients delete ---- */

static int replace_body(History *h, uint64_t no, Str body)
{
    HistoryTask t = {0};
    int err = check_size(0, body);
    if (!err) err = history_get(h, no, &t);
    sqlite3_stmt *s = err ? NULL : history_stmt(h, STMT_TASK_BODY, &err);
    if (!s) return err;
    t.body = body;
    /* Zeroes over the old one, also on pages that become free. */
    err = history_pragma(h, "PRAGMA secure_delete = ON");
    if (err) return err;
    sqlite3_bind_int64(s, 1, (int64_t)no);
    sqlite3_bind_int64(s, 2, task_check(&t));
    bind_blob(s, 3, body);
    err = history_run(h, s);
    int fast = history_pragma(h, "PRAGMA secure_delete = FAST");
    return err ? err : fast;
}

static int remove_file(History *h, Str id)
{
    int err = 0;
    sqlite3_stmt *s = history_stmt(h, STMT_FILE_DELETE, &err);
    if (!s) return err;
    bind_str(s, 1, id);
    err = history_run(h, s);
    return err || sqlite3_changes(h->db) ? err : ERR_NOT_FOUND;
}

int history_replace_body(History *h, uint64_t no, Str body)
{
    bool own = !h->in_transaction;
    if (!own && h->put_err) return h->put_err;
    int err = own ? history_begin(h) : 0;
    if (err) return err;
    err = replace_body(h, no, body);
    if (!err) h->erase_due = true;
    if (own) return history_end(h, err, h->applied_seq);
    if (err != ERR_NOT_FOUND) h->put_err = err; /* which changed nothing */
    return err;
}

int history_remove_file(History *h, Str id)
{
    bool own = !h->in_transaction;
    if (!own && h->put_err) return h->put_err;
    int err = own ? history_begin(h) : 0;
    if (err) return err;
    err = remove_file(h, id);
    if (own) return history_end(h, err, h->applied_seq);
    if (err != ERR_NOT_FOUND) h->put_err = err;
    return err;
}
