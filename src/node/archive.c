/* archive.c: see archive.h.
 *
 * A1  At most one job that puts tasks is under way. It holds copies; the core keeps the tasks.
 * A2  A HISTORY record says `upto` only when every task that settled up to it was put as it is now:
 *     one that changed while the job ran (its payload was deleted) ends the prefix, and is put
 *     again.
 * A3  Answers reach the loop in the order in which history's thread gave them: so a page that was
 *     read before a put is merged with the core before the put's tasks leave it. */
#include "node/archive.h"

#include "history/history_thread.h"
#include "node/rows.h"

#include <string.h>

#define PUT_SOON       1000           /* settled tasks that are not waited with … */
#define PUT_SOON_BYTES ROWS_BYTES_MAX /* … or bytes of them */
#define PUT_EVERY_NS   (500 * NS_PER_MS)
#define RETRY_NS       NS_PER_S
#define SAY_EVERY_NS   (60 * NS_PER_S)
#define SWEEP_EVERY_NS NS_PER_S
#define SWEEP_ROWS     2000
#define SCAN_MAX       5000 /* rows looked at for a page */

typedef struct {
    HistoryJob job;
    Archive *a;
    Rows rows;
    int err;
} Put;

typedef struct {
    HistoryJob job;
    Archive *a;
    int64_t now_ns;
    Buf gone; /* ids of files, NUL-terminated */
    uint32_t removed;
    int err;
    HistoryStats stats;
} Sweep;

typedef struct {
    uint64_t no;
    size_t len;
} Kept;

typedef struct {
    HistoryJob job;
    Archive *a;
    PastQuery *q;
    HistoryFilter filter;
    Buf text;                     /* bodies */
    Buf kept;                     /* of Kept: theirs */
    uint64_t damaged, damaged_no; /* rows of a list that are no tasks any more; the first of them */
    Buf gone;                     /* ids of files, NUL-terminated */
} Query;

struct Archive {
    Shard *shard;
    ArchiveOptions o;
    History *history;
    HistoryThread *thread;
    bool putting, sweeping;
    int64_t put_ns, sweep_ns;        /* when the next may begin */
    int64_t said_ns, said_damage_ns; /* when such a thing was said last */
    HistoryStats stats;
    uint64_t puts_total, swept_total, failures_total, damaged_total;
};

/* ---- putting ---- */

static void put_run(HistoryJob *job, History *h)
{
    Put *p = CONTAINER_OF(job, Put, job);
    p->err = history_begin(h);
    if (!p->err) p->err = rows_put(&p->rows, h);
    if (p->err)
        history_rollback(h);
    else
        p->err = history_commit(h, rows_task(&p->rows, p->rows.tasks_len - 1)->row.finished_seq);
}

static void put_free(Put *p)
{
    rows_done(&p->rows);
    mem_free(p);
}

static void say_failure(Archive *a, int err, const char *what)
{
    int64_t now = shard_now_ns(a->shard);
    a->failures_total++;
    if (a->said_ns && now - a->said_ns < SAY_EVERY_NS) return;
    a->said_ns = now;
    say_warn("history: %s: %s; finished tasks stay in memory, it is tried again%s", what,
             err_text(err),
             err == ERR_CORRUPT ? " (stop the server and run: headrace history rebuild)" : "");
}

/* Rows are missing from a page; the others of it are served. */
static void say_damage(Archive *a, uint64_t rows, uint64_t no)
{
    int64_t now = shard_now_ns(a->shard);
    a->damaged_total += rows;
    if (!rows || (a->said_damage_ns && now - a->said_damage_ns < SAY_EVERY_NS)) return;
    a->said_damage_ns = now;
    say_warn("history: the row of task number %llu is damaged (%llu rows so far were left out of "
             "lists for that); stop the server and run: headrace history rebuild --data DIR",
             (unsigned long long)no, (unsigned long long)a->damaged_total);
}

/* Keeps A2: the last sequence up to which all is as it was put. 0: nothing. */
static uint64_t unchanged_upto(const Put *p)
{
    const Core *c = shard_core(p->a->shard);
    uint64_t upto = 0;
    for (size_t i = 0; i < p->rows.tasks_len; i++) {
        const RowTask *put = rows_task(&p->rows, i);
        const Task *t = core_task(c, put->row.no);
        if (t && task_last_seq(t) != put->last_seq) break;
        upto = put->row.finished_seq;
    }
    return upto;
}

static void put_done(HistoryJob *job)
{
    Put *p = CONTAINER_OF(job, Put, job);
    Archive *a = p->a;
    int64_t now = shard_now_ns(a->shard);
    a->putting = false;
    if (p->err) {
        say_failure(a, p->err, "cannot write");
        a->put_ns = now + RETRY_NS;
    } else {
        uint64_t upto = unchanged_upto(p);
        a->puts_total += p->rows.tasks_len;
        /* A log without room says no; then the same tasks are put again, which changes nothing. */
        if (upto && shard_history(a->shard, upto).code) a->put_ns = now + RETRY_NS;
    }
    put_free(p);
}

static void put_some(Archive *a, int64_t now)
{
    const Core *c = shard_core(a->shard);
    const Task *t = core_settled(c, NULL);
    if (!t) return;
    if (now < a->put_ns) {
        uint64_t settled = 0, soon = MIN(PUT_SOON, core_limits(c)->finished_max / 2);
        for (int s = TASK_SUCCEEDED; s < TASK_STATES; s++) settled += core_count(c, (TaskState)s);
        bool many = settled >= soon ||
                    core_finished_bytes(c) >=
                        MIN(PUT_SOON_BYTES, core_limits(c)->finished_bytes_max / 2);
        if (!many || a->put_ns - now > PUT_EVERY_NS) return;
    }
    uint64_t durable = shard_durable_seq(a->shard);
    Put *p = mem_new(sizeof *p);
    p->a = a;
    p->job.run = put_run;
    p->job.done = put_done;
    for (; t && !rows_full(&p->rows); t = core_settled(c, t)) {
        if (task_last_seq(t) > durable) break; /* no effect before its record is durable */
        rows_add(&p->rows, c, t);
    }
    if (!p->rows.tasks_len) {
        put_free(p);
        return;
    }
    a->putting = true; /* keeps A1 */
    a->put_ns = now + PUT_EVERY_NS;
    history_thread_add(a->thread, &p->job);
}

/* ---- sweeping ---- */

static void note_gone(void *ctx, Str id)
{
    Buf *gone = ctx;
    buf_put_str(gone, id);
    buf_u8(gone, 0);
}

static void tell_gone(Archive *a, const Buf *gone)
{
    for (size_t at = 0; at < gone->len;) {
        Str id = str_from((const char *)gone->data + at);
        at += id.n + 1;
        /* A task in memory may still refer to it. */
        if (!core_file_find(shard_core(a->shard), id, STR(""))) a->o.file_gone(a->o.ctx, id);
    }
}

static void sweep_run(HistoryJob *job, History *h)
{
    Sweep *s = CONTAINER_OF(job, Sweep, job);
    s->err = history_sweep(h, s->now_ns, &s->a->o.limits, SWEEP_ROWS, note_gone, &s->gone,
                           &s->removed);
    int err = history_stats(h, &s->stats);
    if (!s->err) s->err = err;
}

static void sweep_done(HistoryJob *job)
{
    Sweep *s = CONTAINER_OF(job, Sweep, job);
    Archive *a = s->a;
    a->sweeping = false;
    tell_gone(a, &s->gone);
    a->swept_total += s->removed;
    if (s->err)
        say_failure(a, s->err, "cannot remove what is old");
    else
        a->stats = s->stats;
    /* A full share: there is more. */
    a->sweep_ns = shard_now_ns(a->shard) + (s->removed < SWEEP_ROWS ? SWEEP_EVERY_NS : 0);
    buf_done(&s->gone);
    mem_free(s);
}

static void sweep_some(Archive *a, int64_t now)
{
    Sweep *s = mem_new(sizeof *s);
    s->a = a;
    s->now_ns = now;
    s->job.run = sweep_run;
    s->job.done = sweep_done;
    a->sweeping = true;
    history_thread_add(a->thread, &s->job);
}

/* ---- files that two tasks had ---- */

typedef struct {
    HistoryJob job;
    Archive *a;
    char id[32];
    int err;
} Left;

static void left_run(HistoryJob *job, History *h)
{
    Left *l = CONTAINER_OF(job, Left, job);
    l->err = history_file_exists(h, str_from(l->id));
}

static void left_done(HistoryJob *job)
{
    Left *l = CONTAINER_OF(job, Left, job);
    Archive *a = l->a;
    Str id = str_from(l->id);
    if (l->err == ERR_NOT_FOUND && !core_file_find(shard_core(a->shard), id, STR("")))
        a->o.file_gone(a->o.ctx, id);
    mem_free(l);
}

void archive_file_left(Archive *a, Str id)
{
    Left *l = mem_new(sizeof *l);
    l->a = a;
    memcpy(l->id, id.p, MIN(id.n, sizeof l->id - 1));
    l->job.run = left_run;
    l->job.done = left_done;
    history_thread_add(a->thread, &l->job);
}

void archive_step(Archive *a)
{
    history_thread_poll(a->thread);
    int64_t now = shard_now_ns(a->shard);
    if (!a->putting) put_some(a, now);
    if (!a->sweeping && now >= a->sweep_ns) sweep_some(a, now);
}

/* ---- questions ---- */

static void keep_body(Query *j, uint64_t no, Str body)
{
    Kept k = {no, body.n};
    buf_put(&j->kept, &k, sizeof k);
    buf_put_str(&j->text, body);
}

static bool keep_row(void *ctx, const HistoryTask *t)
{
    Query *j = ctx;
    keep_body(j, t->no, t->body);
    return true;
}

static int forget(Query *j, History *h)
{
    PastQuery *q = j->q;
    int err = history_begin(h);
    if (!err) err = rows_forget(h, q->no, buf_str(&q->body), buf_str(&q->output), &j->gone);
    if (err) {
        history_rollback(h);
        return err;
    }
    return history_commit(h, history_applied_seq(h));
}

static void query_run(HistoryJob *job, History *h)
{
    Query *j = CONTAINER_OF(job, Query, job);
    PastQuery *q = j->q;
    HistoryTask t;
    HistoryFile f;
    switch (q->kind) {
    case PAST_TASK:
        q->err = history_get(h, q->no, &t);
        if (!q->err) keep_body(j, t.no, t.body);
        break;
    case PAST_LIST:
        q->err = history_list(h, &j->filter, keep_row, j, &q->next);
        j->damaged = history_damaged(h, &j->damaged_no);
        break;
    case PAST_FORGET:
        q->err = forget(j, h);
        break;
    case PAST_FILE:
        q->err = history_file(h, str_from(q->id), j->filter.tenant, &f);
        if (!q->err) keep_body(j, f.no, f.body);
        break;
    }
}

static void query_done(HistoryJob *job)
{
    Query *j = CONTAINER_OF(job, Query, job);
    PastQuery *q = j->q;
    Archive *a = j->a;
    Core *c = shard_core(a->shard);
    size_t n = j->kept.len / sizeof(Kept), at = 0;
    int64_t now = shard_now_ns(a->shard);
    if (q->err && q->err != ERR_NOT_FOUND) say_failure(a, q->err, "cannot read");
    if (!q->err && q->kind == PAST_FORGET) tell_gone(a, &j->gone);
    if (n && q->kind != PAST_FILE) q->tasks = mem_new(n * sizeof *q->tasks);
    for (size_t i = 0; i < n && !q->err; i++) {
        Kept k;
        memcpy(&k, j->kept.data + i * sizeof k, sizeof k);
        Str body = {(const char *)j->text.data + at, k.len};
        at += k.len;
        if (q->kind == PAST_FILE) {
            q->file = core_file_decode(c, body);
            if (!q->file) q->err = ERR_CORRUPT;
            continue;
        }
        Task *t = core_task_decode(c, body);
        if (!t && q->kind == PAST_LIST) {
            if (!j->damaged++) j->damaged_no = k.no;
        } else if (!t) {
            q->err = ERR_CORRUPT;
        } else if (t->run->finished_ns + (int64_t)t->retention_s * NS_PER_S <= now) {
            core_task_discard(c, t); /* the sweep has not come by yet */
        } else {
            q->tasks[q->tasks_len++] = t;
        }
    }
    say_damage(a, j->damaged, j->damaged_no);
    if (q->kind == PAST_TASK && !q->err && !q->tasks_len) q->err = ERR_NOT_FOUND;
    Task **tasks = q->tasks;
    size_t tasks_len = q->tasks_len;
    File *file = q->file;
    q->done(q); /* q may be gone from here on */
    for (size_t i = 0; i < tasks_len; i++) core_task_discard(c, tasks[i]);
    mem_free(tasks);
    core_file_discard(file);
    buf_done(&j->text);
    buf_done(&j->kept);
    buf_done(&j->gone);
    mem_free(j);
}

void archive_query(Archive *a, PastQuery *q)
{
    const Core *c = shard_core(a->shard);
    Query *j = mem_new(sizeof *j);
    j->a = a;
    j->q = q;
    j->job.run = query_run;
    j->job.done = query_done;
    j->job.urgent = true;
    q->err = 0;
    q->tasks = NULL;
    q->tasks_len = 0;
    q->next = 0;
    q->file = NULL;
    j->filter = (HistoryFilter){.before = q->list.before == UINT64_MAX ? 0 : q->list.before,
                                .states = q->list.states,
                                .classes = q->list.classes,
                                .tenant = core_sym(c, q->tenant),
                                .model = core_sym(c, q->list.model),
                                .version = core_sym(c, q->list.version),
                                .created_after_ns = q->list.created_after_ns,
                                .limit = q->list.limit,
                                .scan_max = SCAN_MAX};
    history_thread_add(a->thread, &j->job);
}

/* ---- copying ---- */

#define COPY_PAGES 256 /* 1 MiB: a read waits 1 ms for it, 10 on a slow disk */

typedef struct {
    HistoryJob job;
    Archive *a;
    ArchiveCopy o;
    HistoryCopy *copy;
    bool done, stop;
    int err;
} Copy;

static void copy_run(HistoryJob *job, History *h)
{
    Copy *c = CONTAINER_OF(job, Copy, job);
    if (c->stop) c->err = ERR_CANCELED;
    if (!c->err && !c->copy) c->err = history_copy_begin(h, c->o.path, &c->copy);
    if (!c->err) c->err = history_copy_step(c->copy, COPY_PAGES, &c->done);
    if (!c->err && !c->done) return;
    history_copy_end(c->copy);
    c->copy = NULL;
}

static void copy_done(HistoryJob *job)
{
    Copy *c = CONTAINER_OF(job, Copy, job);
    if (!c->done && !c->err) {
        c->stop = !c->o.go_on(c->o.ctx);
        history_thread_add(c->a->thread, &c->job); /* behind what waits */
        return;
    }
    c->o.done(c->o.ctx, c->err);
    mem_free(c);
}

void archive_copy(Archive *a, const ArchiveCopy *copy)
{
    Copy *c = mem_new(sizeof *c);
    c->a = a;
    c->o = *copy;
    c->job.run = copy_run;
    c->job.done = copy_done;
    history_thread_add(a->thread, &c->job);
}

/* ---- life ---- */

int archive_open(Shard *shard, const ArchiveOptions *o, Archive **ret, Buf *why)
{
    Archive *a = mem_new(sizeof *a);
    a->shard = shard;
    a->o = *o;
    /* What was put and has not left for it is in the core, and is put again; or it was evicted, or
     * its payload deleted, while the server ran without the view. */
    uint64_t left = core_history_seq(shard_core(shard));
    int err = history_open(o->path, 0, left, &a->history, why);
    if (!err) err = history_stats(a->history, &a->stats);
    if (!err && history_applied_seq(a->history) < left) {
        err = ERR_CORRUPT;
        buf_printf(why,
                   "%s ends at record %llu, but tasks that ended up to record %llu have left the "
                   "core for it: it is missing, older than the log, or damaged; go on with: "
                   "headrace history rebuild --data DIR",
                   o->path, (unsigned long long)history_applied_seq(a->history),
                   (unsigned long long)left);
    }
    if (err) {
        history_close(a->history);
        mem_free(a);
        return err;
    }
    *ret = a;
    return 0;
}

int archive_start(Archive *a)
{
    return history_thread_start(a->history, a->o.wake, a->o.ctx, &a->thread);
}

void archive_close(Archive *a)
{
    if (!a) return;
    history_thread_stop(a->thread);
    history_close(a->history);
    mem_free(a);
}

bool archive_file_is_known(Archive *a, Str id)
{
    CHECK(!a->thread);
    return history_file_exists(a->history, id) != ERR_NOT_FOUND; /* in doubt it stays */
}

static void line(Buf *b, const char *name, const char *type, const char *help, uint64_t v)
{
    buf_printf(b, "# HELP headrace_%s %s\n# TYPE headrace_%s %s\nheadrace_%s %llu\n", name, help,
               name, type, name, (unsigned long long)v);
}

void archive_metrics(const Archive *a, Buf *ret)
{
    line(ret, "history_tasks", "gauge", "Finished tasks in the history view.", a->stats.rows);
    line(ret, "history_bytes", "gauge", "Bytes of the history view's pages in use.",
         a->stats.bytes);
    line(ret, "history_put_total", "counter", "Tasks written to the history view.", a->puts_total);
    line(ret, "history_removed_total", "counter", "Tasks whose retention in it ended.",
         a->swept_total);
    line(ret, "history_failures_total", "counter", "Writes and reads of it that failed.",
         a->failures_total);
    line(ret, "history_damaged_total", "counter",
         "Rows of it that lists left out because they are damaged.", a->damaged_total);
}
