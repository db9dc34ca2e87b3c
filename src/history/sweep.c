/* sweep.c: what is old leaves: expired, then too old, then too many. */
#include <string.h>

#include "history/inside.h"

/* The file gives room back when a quarter of it is free, so that what the next tasks would fill is
 * not given away; 8 MiB a call, some 30 ms. */
#define VACUUM_FREE_MIN   4096 /* pages */
#define VACUUM_PAGES_CALL 2048

int history_collect(History *h, StmtId id, int64_t until, size_t max, uint64_t *numbers,
                    size_t *ret_n)
{
    int err = 0, rc = SQLITE_DONE;
    size_t n = 0;
    sqlite3_stmt *s = history_stmt(h, id, &err);
    if (!s) return err;
    sqlite3_bind_int64(s, 1, (int64_t)max);
    while (n < max && (rc = sqlite3_step(s)) == SQLITE_ROW && sqlite3_column_int64(s, 1) <= until)
        numbers[n++] = (uint64_t)sqlite3_column_int64(s, 0);
    err = history_err(h->db, rc);
    sqlite3_reset(s);
    if (!err) *ret_n = n;
    return err;
}

int history_delete_files_of(History *h, uint64_t no, Buf *gone)
{
    int err = 0, rc;
    sqlite3_stmt *s = history_stmt(h, STMT_FILES_OF_TASK_DELETE, &err);
    if (!s) return err;
    sqlite3_bind_int64(s, 1, (int64_t)no);
    while ((rc = sqlite3_step(s)) == SQLITE_ROW) {
        const char *id = (const char *)sqlite3_column_text(s, 0);
        if (!gone || !id) continue;
        buf_puts(gone, id);
        buf_putc(gone, 0);
    }
    err = history_err(h->db, rc);
    sqlite3_reset(s);
    return err;
}

int history_delete_tasks(History *h, const uint64_t *numbers, size_t n, Buf *gone)
{
    for (size_t i = 0; i < n; i++) {
        int err = history_delete_files_of(h, numbers[i], gone);
        sqlite3_stmt *s = err ? NULL : history_stmt(h, STMT_TASK_DELETE, &err);
        if (!s) return err;
        sqlite3_bind_int64(s, 1, (int64_t)numbers[i]);
        err = history_run(h, s);
        if (err) return err;
        if (!sqlite3_changes(h->db) || !h->rows_now) return ERR_CORRUPT; /* an index had it */
        h->rows_now--;
    }
    return 0;
}

typedef struct {
    History *h;
    uint64_t *numbers; /* room for left at the start */
    size_t left;       /* rows that may still go in this call */
    Buf gone;
} Sweep;

static int remove_up_to(Sweep *w, StmtId id, int64_t until, size_t max, size_t *ret_n)
{
    size_t n = 0;
    int err = history_collect(w->h, id, until, MIN(max, w->left), w->numbers, &n);
    if (!err) err = history_delete_tasks(w->h, w->numbers, n, &w->gone);
    if (err) return err;
    w->left -= n;
    *ret_n = n;
    return 0;
}

/* How many of the oldest are too many. Bytes are guessed from the mean of a row, and looked at
 * again after that many have left. */
static int excess(History *h, const HistoryLimits *limits, size_t *ret)
{
    uint64_t n = 0, pages = 0, free_pages = 0;
    if (limits->max_rows && h->rows_now > limits->max_rows) n = h->rows_now - limits->max_rows;
    int err = limits->max_bytes ? history_number(h, STMT_PAGES, &pages) : 0;
    if (!err && limits->max_bytes) err = history_number(h, STMT_FREE_PAGES, &free_pages);
    if (err) return err;
    uint64_t bytes = (pages - MIN(free_pages, pages)) * PAGE_BYTES;
    if (limits->max_bytes && bytes > limits->max_bytes && h->rows_now) {
        uint64_t mean = MAX(bytes / h->rows_now, 1);
        n = MAX(n, (bytes - limits->max_bytes) / mean + 1);
    }
    *ret = (size_t)MIN(n, h->rows_now);
    return 0;
}

static int remove_all(Sweep *w, int64_t now_ns, const HistoryLimits *limits)
{
    size_t n = 0, many = 0;
    int err = remove_up_to(w, STMT_SWEEP_EXPIRED, now_ns, w->left, &n);
    if (!err && limits->max_age_ns > 0 && limits->max_age_ns < now_ns)
        err = remove_up_to(w, STMT_SWEEP_OLDEST, now_ns - limits->max_age_ns, w->left, &n);
    while (!err && w->left && !(err = excess(w->h, limits, &many)) && many) {
        err = remove_up_to(w, STMT_SWEEP_OLDEST, INT64_MAX, many, &n);
        if (!err && !n) err = ERR_CORRUPT; /* rows are counted that the index has not */
    }
    return err;
}

static int give_room_back(History *h)
{
    uint64_t pages = 0, free_pages = 0;
    int err = history_number(h, STMT_PAGES, &pages);
    if (!err) err = history_number(h, STMT_FREE_PAGES, &free_pages);
    if (err || free_pages < VACUUM_FREE_MIN || free_pages < pages / 4) return err;
    Buf sql = {0};
    buf_printf(&sql, "PRAGMA incremental_vacuum(%d)", VACUUM_PAGES_CALL);
    err = history_begin(h);
    if (!err) err = history_end(h, history_pragma(h, buf_z(&sql)), h->applied_seq);
    buf_done(&sql);
    return err;
}

/* The WAL loses its bytes; with one connection and no statement open it always can. */
static int erase_wal(History *h)
{
    if (!h->erase_due) return 0;
    int rc = sqlite3_wal_checkpoint_v2(h->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    int err = history_err(h->db, rc);
    if (err) return err;
    h->erase_due = false;
    h->wal_pages = 0;
    return 0;
}

int history_sweep(History *h, int64_t now_ns, const HistoryLimits *limits, uint32_t rows_max,
                  void (*gone_file)(void *ctx, Str id), void *ctx, uint32_t *ret_removed)
{
    Sweep w = {.h = h, .left = rows_max};
    w.numbers = mem_new(((size_t)rows_max + 1) * sizeof *w.numbers);
    int err = history_begin(h);
    if (!err) err = remove_all(&w, now_ns, limits);
    if (h->in_transaction) {
        if (w.left == rows_max)
            history_rollback(h); /* nothing to do, or an error: spares a sync */
        else
            err = history_end(h, err, h->applied_seq);
    }
    mem_free(w.numbers);
    if (!err) {
        *ret_removed = rows_max - (uint32_t)w.left;
        for (size_t at = 0; at < w.gone.len;) {
            Str id = str_from((char *)w.gone.data + at);
            gone_file(ctx, id);
            at += id.n + 1;
        }
        err = give_room_back(h);
        if (!err) err = erase_wal(h);
    }
    buf_done(&w.gone);
    return err;
}
