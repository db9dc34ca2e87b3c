/* read.c: one task, one file, lists.
 *
 * A list without names walks the table from its newest row. One with names, or of unsuccessful
 * tasks only, merges the newest row of every kind that fits: each has its own run in an index, in
 * the order of numbers, so nothing is sorted and nothing else is looked at. */
#include <string.h>

#include "history/inside.h"

#define KINDS_MERGED 4096 /* 320 KiB and some 10 ms; beyond, the table is walked after all */
#define SUCCEEDED    (1u << TASK_SUCCEEDED)
#define LIVE         (1u << TASK_QUEUED | 1u << TASK_RUNNING)

/* ---- rows ---- */

static Str column(sqlite3_stmt *s, int at)
{
    const void *p = sqlite3_column_blob(s, at);
    return (Str){p ? p : "", (size_t)sqlite3_column_bytes(s, at)};
}

int task_of_row(sqlite3_stmt *s, HistoryTask *ret)
{
    int64_t state = sqlite3_column_int64(s, 5), class = sqlite3_column_int64(s, 6);
    if (state < TASK_SUCCEEDED || state >= TASK_STATES || class < 0 || class >= CLASSES)
        return ERR_CORRUPT;
    HistoryTask t = {
        .no = (uint64_t)sqlite3_column_int64(s, 0),
        .finished_seq = (uint64_t)sqlite3_column_int64(s, 1),
        .created_ns = sqlite3_column_int64(s, 2),
        .finished_ns = sqlite3_column_int64(s, 3),
        .expires_ns = sqlite3_column_int64(s, 4),
        .state = (TaskState)state,
        .class = (TaskClass) class,
        .tenant = column(s, 7),
        .model = column(s, 8),
        .version = column(s, 9),
        .body = column(s, 11),
    };
    if (task_check(&t) != sqlite3_column_int64(s, 10)) return ERR_CORRUPT; /* keeps H3 */
    *ret = t;
    return 0;
}

int file_of_row(sqlite3_stmt *s, HistoryFile *ret)
{
    HistoryFile f = {
        .no = (uint64_t)sqlite3_column_int64(s, 0),
        .id = column(s, 1),
        .tenant = column(s, 2),
        .owner_task = (uint64_t)sqlite3_column_int64(s, 3),
        .size = (uint64_t)sqlite3_column_int64(s, 4),
        .body = column(s, 6),
    };
    if (file_check(&f) != sqlite3_column_int64(s, 5)) return ERR_CORRUPT;
    *ret = f;
    return 0;
}

/* Copies strings behind each other into h->row, so that the statement can be reset (H2). */
static void keep(History *h, Str *const *strings, size_t n)
{
    size_t sum = 0;
    buf_clear(&h->row);
    for (size_t i = 0; i < n; i++) sum += strings[i]->n;
    buf_reserve(&h->row, sum + 1); /* nothing moves from here on */
    for (size_t i = 0; i < n; i++) {
        size_t at = h->row.len;
        buf_put_str(&h->row, *strings[i]);
        strings[i]->p = (char *)h->row.data + at;
    }
}

/* *ret_damaged: SQLite has it, but it is not what was put. */
static int get(History *h, uint64_t no, HistoryTask *ret, bool *ret_damaged)
{
    int err = 0;
    HistoryTask t = {0};
    *ret_damaged = false;
    sqlite3_stmt *s = history_stmt(h, STMT_TASK_GET, &err);
    if (!s) return err;
    sqlite3_bind_int64(s, 1, no > INT64_MAX ? 0 : (int64_t)no);
    int rc = sqlite3_step(s);
    err = rc == SQLITE_DONE ? ERR_NOT_FOUND : history_err(h->db, rc);
    if (!err) {
        err = task_of_row(s, &t);
        *ret_damaged = err != 0;
    }
    if (!err) {
        keep(h, (Str *[]){&t.tenant, &t.model, &t.version, &t.body}, 4);
        *ret = t;
    }
    sqlite3_reset(s);
    return err;
}

int history_get(History *h, uint64_t no, HistoryTask *ret)
{
    bool damaged;
    return get(h, no, ret, &damaged);
}

int history_file(History *h, Str id, Str tenant, HistoryFile *ret)
{
    int err = 0;
    HistoryFile f = {0};
    sqlite3_stmt *s = history_stmt(h, STMT_FILE_GET, &err);
    if (!s) return err;
    bind_str(s, 1, id);
    int rc = sqlite3_step(s);
    err = rc == SQLITE_DONE ? ERR_NOT_FOUND : history_err(h->db, rc);
    if (!err) err = file_of_row(s, &f);
    if (!err && tenant.n && !str_eq(tenant, f.tenant)) err = ERR_NOT_FOUND;
    if (!err) {
        keep(h, (Str *[]){&f.id, &f.tenant, &f.body}, 3);
        *ret = f;
    }
    sqlite3_reset(s);
    return err;
}

int history_file_exists(History *h, Str id)
{
    HistoryFile f = {0};
    return history_file(h, id, (Str){"", 0}, &f);
}

/* ---- lists ---- */

/* What a list looks at of a row before it reads all of it. */
typedef struct {
    uint64_t no;
    int64_t created_ns;
    uint32_t state, class; /* as bits */
} Head;

typedef struct {
    History *h;
    const HistoryFilter *f;
    bool (*row)(void *ctx, const HistoryTask *t);
    void *ctx;
    bool by_name; /* names are compared here: no index did it */
    uint32_t found, looked;
    uint64_t last; /* number of the row looked at last */
    uint64_t next;
} Listing;

static Head head_of_row(sqlite3_stmt *s)
{
    /* A damaged state or class is no bit: the row is passed over unless any will do. */
    int64_t state = sqlite3_column_int64(s, 1), class = sqlite3_column_int64(s, 2);
    return (Head){
        .no = (uint64_t)sqlite3_column_int64(s, 0),
        .created_ns = sqlite3_column_int64(s, 3),
        .state = state >= 0 && state < TASK_STATES ? 1u << state : 0,
        .class = class >= 0 && class < CLASSES ? 1u << class : 0,
    };
}

static bool name_fits(Str wanted, Str name)
{
    return !wanted.n || str_eq(wanted, name);
}

/* One more row, newest first. *ret_more: go on. */
static int look(Listing *l, const Head *head, bool *ret_more)
{
    const HistoryFilter *f = l->f;
    *ret_more = false;
    if (l->last && head->no >= l->last) return ERR_CORRUPT; /* it might not end */
    HistoryTask t = {0};
    bool damaged = false;
    if (f->created_after_ns && head->created_ns / NS_PER_MS <= f->created_after_ns / NS_PER_MS) {
        int err = get(l->h, head->no, &t, &damaged);
        if (!damaged) return err; /* numbers rise with time, and its time is right */
    }
    if (l->found >= f->limit || l->looked >= f->scan_max) {
        l->next = l->last;
        return 0;
    }
    l->looked++;
    l->last = head->no;
    *ret_more = true;
    if ((f->states && !(f->states & head->state)) || (f->classes && !(f->classes & head->class)))
        return 0;
    int err = damaged ? 0 : get(l->h, head->no, &t, &damaged);
    if (damaged) { /* what is read elsewhere is right */
        if (!l->h->damaged++) l->h->damaged_no = head->no;
        return 0;
    }
    if (err) return err == ERR_NOT_FOUND ? ERR_CORRUPT : err; /* the index had it */
    if (l->by_name && !(name_fits(f->tenant, t.tenant) && name_fits(f->model, t.model) &&
                        name_fits(f->version, t.version)))
        return 0;
    l->found++;
    if (!l->row(l->ctx, &t)) {
        l->next = l->last;
        *ret_more = false;
    }
    return 0;
}

static int list_all(Listing *l, int64_t before)
{
    int err = 0, rc = SQLITE_DONE;
    sqlite3_stmt *s = history_stmt(l->h, STMT_LIST_ALL, &err);
    if (!s) return err;
    sqlite3_bind_int64(s, 1, before);
    for (bool more = true; !err && more && (rc = sqlite3_step(s)) == SQLITE_ROW;) {
        Head head = head_of_row(s);
        err = look(l, &head, &more);
    }
    if (!err) err = history_err(l->h->db, rc);
    sqlite3_reset(s);
    return err;
}

typedef struct {
    HeapNode by_no; /* newest first */
    int64_t kind;
    Head head; /* its newest row that is not listed yet */
} Run;

/* Moves a run to its newest row below `before`; at its end it leaves the heap. */
static int run_move(History *h, StmtId id, Heap *heap, Run *r, int64_t before)
{
    int err = 0;
    sqlite3_stmt *s = history_stmt(h, id, &err);
    if (!s) return err;
    sqlite3_bind_int64(s, 1, r->kind);
    sqlite3_bind_int64(s, 2, before);
    int rc = sqlite3_step(s);
    err = history_err(h->db, rc);
    if (rc == SQLITE_ROW) {
        r->head = head_of_row(s);
        heap_set(heap, &r->by_no, -(int64_t)r->head.no, 0);
    } else {
        heap_del(heap, &r->by_no);
    }
    sqlite3_reset(s);
    return err;
}

static int list_runs(Listing *l, StmtId id, Run *runs, size_t n, int64_t before)
{
    Heap heap = {0};
    int err = 0;
    for (size_t i = 0; i < n && !err; i++) err = run_move(l->h, id, &heap, &runs[i], before);
    for (bool more = true; !err && more;) {
        HeapNode *first = heap_min(&heap);
        if (!first) break;
        Run *r = CONTAINER_OF(first, Run, by_no);
        err = look(l, &r->head, &more);
        if (!err && more) err = run_move(l->h, id, &heap, r, (int64_t)r->head.no);
    }
    heap_done(&heap);
    return err;
}

/* The kinds that fit; *ret_n is KINDS_MERGED + 1 when they are too many. */
static int runs_of(History *h, const HistoryFilter *f, Run *runs, size_t *ret_n)
{
    int err = 0, rc = SQLITE_DONE;
    const Str *names[] = {&f->tenant, &f->model, &f->version};
    sqlite3_stmt *s = history_stmt(h, STMT_LIST_KINDS, &err);
    if (!s) return err;
    for (int i = 0; i < 3; i++) {
        if (names[i]->n)
            bind_str(s, i + 1, *names[i]);
        else
            sqlite3_bind_null(s, i + 1);
    }
    sqlite3_bind_int(s, 4, KINDS_MERGED + 1);
    size_t n = 0;
    while ((rc = sqlite3_step(s)) == SQLITE_ROW) runs[n++].kind = sqlite3_column_int64(s, 0);
    err = history_err(h->db, rc);
    sqlite3_reset(s);
    *ret_n = n;
    return err;
}

int history_list(History *h, const HistoryFilter *f, bool (*row)(void *ctx, const HistoryTask *t),
                 void *ctx, uint64_t *ret_next)
{
    CHECK(f->limit && f->scan_max >= f->limit);
    h->damaged = h->damaged_no = 0;
    Listing l = {.h = h, .f = f, .row = row, .ctx = ctx};
    int64_t before = f->before && f->before < INT64_MAX ? (int64_t)f->before : INT64_MAX;
    bool named = f->tenant.n || f->model.n || f->version.n;
    bool unsuccessful = f->states && !(f->states & SUCCEEDED);
    if (f->states && !(f->states & ~LIVE)) {
        *ret_next = 0; /* none is here */
        return 0;
    }
    int err = 0;
    size_t n = KINDS_MERGED + 1;
    Run *runs = NULL;
    if (named || unsuccessful) {
        runs = mem_new((KINDS_MERGED + 1) * sizeof *runs);
        err = runs_of(h, f, runs, &n);
    }
    if (!err && n <= KINDS_MERGED) {
        StmtId id = unsuccessful ? STMT_LIST_KIND_UNSUCCESSFUL : STMT_LIST_KIND;
        err = list_runs(&l, id, runs, n, before);
    } else if (!err) {
        l.by_name = named;
        err = list_all(&l, before);
    }
    mem_free(runs);
    if (!err) *ret_next = l.next;
    return err;
}

uint64_t history_damaged(const History *h, uint64_t *ret_no)
{
    *ret_no = h->damaged_no;
    return h->damaged;
}
