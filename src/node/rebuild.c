/* rebuild.c: see rebuild.h.
 *
 *  R1  history.sqlite is the old view or the whole new one, at any moment of a crash. While the two
 *      are exchanged the old one is history.sqlite.aside as well, with its -wal: a rebuild reads
 *      both, so that one that was cut off loses nothing.
 *  R2  A task is put as the core had it when its HISTORY record let it leave: that is what the view
 *      was given then. Those that left otherwise (EVICT: their retention was over) are not put.
 *  R3  A payload that was deleted stays deleted: the log, which may have the payload still, does
 *      not bring it back where the old view, or a FORGET record behind the task's end, says so. */
#include "node/rebuild.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "history/history.h"
#include "io/disk.h"
#include "log/log.h"
#include "node/rows.h"
#include "task/record.h"

#define VIEW  "history.sqlite"
#define ASIDE "history.sqlite.aside"
#define FRESH "history.sqlite.new"
#define SPILL "spill-rebuild"

#define TELL_EVERY 4096 /* records */

typedef struct {
    const RebuildOptions *o;
    RebuildReport *report;
    Disk *disk;
    int dir; /* the data directory */
    Log *log;
    Core *core;
    History *into;
    Rows rows;
    bool started;        /* the replay has passed its snapshot */
    uint64_t whole_upto; /* an old view that was wholly read has all up to this record */
    uint64_t records, told;
} Rebuild;

/* ---- files ---- */

static char *path_of(const Rebuild *r, const char *name)
{
    Buf b = {0};
    buf_printf(&b, "%s/%s", r->o->data_dir, name);
    char *path = mem_dup(b.data, b.len);
    buf_done(&b);
    return path;
}

static bool there(const Rebuild *r, const char *name)
{
    struct stat st;
    return fstatat(r->dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static void name_with(char ret[96], const char *name, const char *suffix)
{
    snprintf(ret, 96, "%.64s%s", name, suffix);
}

/* A database with what SQLite keeps beside it. */
static void remove_view(const Rebuild *r, const char *name)
{
    static const char *const suffixes[] = {"-wal", "-shm", "-journal", ""};
    for (size_t i = 0; i < ARRAY_LEN(suffixes); i++) {
        char one[96];
        name_with(one, name, suffixes[i]);
        (void)!unlinkat(r->dir, one, 0);
    }
}

static int failed(Buf *why, const char *what, const char *name)
{
    int err = errno == ENOSPC || errno == EDQUOT  ? ERR_NOSPC
              : errno == EROFS                    ? ERR_READONLY
              : errno == EACCES || errno == EPERM ? ERR_PERMISSION
                                                  : ERR_IO;
    buf_printf(why, "cannot %s %s: %s", what, name, strerror(errno));
    return err;
}

static int sync_one(const Rebuild *r, const char *name, Buf *why)
{
    int fd = openat(r->dir, name, O_RDONLY | O_CLOEXEC);
    int err = fd < 0 || fsync(fd) ? failed(why, "sync", name) : 0;
    if (fd >= 0) close(fd);
    return err;
}

static bool same_file(const Rebuild *r, const char *a, const char *b)
{
    struct stat x, y;
    return fstatat(r->dir, a, &x, AT_SYMLINK_NOFOLLOW) == 0 &&
           fstatat(r->dir, b, &y, AT_SYMLINK_NOFOLLOW) == 0 && x.st_dev == y.st_dev &&
           x.st_ino == y.st_ino;
}

static int copy_bytes(int from, int to)
{
    static uint8_t piece[64 * 1024];
    for (ssize_t n; (n = read(from, piece, sizeof piece)) != 0;) {
        if (n < 0 || write(to, piece, (size_t)n) != n) return -1;
    }
    return fsync(to);
}

static int copy_one(const Rebuild *r, const char *from, const char *to, Buf *why)
{
    (void)!unlinkat(r->dir, to, 0);
    if (!there(r, from)) return 0;
    int in = openat(r->dir, from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    int out = in < 0 ? -1 : openat(r->dir, to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int err = out < 0 || copy_bytes(in, out) ? failed(why, "copy", from) : 0;
    if (in >= 0) close(in);
    if (out >= 0) close(out);
    return err;
}

/* A second name for the file; where the filesystem has no such thing, a new one instead: R1 still
 * holds, for a server that finds no view but a log that knows of one does not start. */
static int link_one(const Rebuild *r, const char *from, const char *to, Buf *why)
{
    (void)!unlinkat(r->dir, to, 0);
    if (!there(r, from) || linkat(r->dir, from, r->dir, to, 0) == 0 ||
        renameat(r->dir, from, r->dir, to) == 0)
        return 0;
    return failed(why, "rename", from);
}

static int rename_one(const Rebuild *r, const char *from, const char *to, Buf *why)
{
    if (!there(r, from)) return 0;
    return renameat(r->dir, from, r->dir, to) ? failed(why, "rename", from) : 0;
}

/* history.sqlite.old-N, the first that is free. */
static void free_name(const Rebuild *r, char ret[64])
{
    for (unsigned n = 1;; n++) {
        snprintf(ret, 64, "%s.old-%u", VIEW, n);
        if (!there(r, ret)) return;
    }
}

static int keep_aside(Rebuild *r, Buf *why)
{
    char name[64], wal[96];
    free_name(r, name);
    name_with(wal, name, "-wal");
    int err = rename_one(r, ASIDE "-wal", wal, why);
    if (!err) err = rename_one(r, ASIDE, name, why);
    (void)!unlinkat(r->dir, ASIDE "-shm", 0);
    if (!err) memcpy(r->report->kept, name, sizeof name);
    return err;
}

/* Keeps R1. */
static int exchange(Rebuild *r, Buf *why)
{
    int err = sync_one(r, FRESH, why);
    /* Of a rebuild that was cut off behind its exchange. */
    if (!err && there(r, ASIDE) && there(r, VIEW) && !same_file(r, VIEW, ASIDE))
        err = keep_aside(r, why);
    if (!err && !there(r, ASIDE)) {
        err = copy_one(r, VIEW "-wal", ASIDE "-wal", why);
        if (!err) err = link_one(r, VIEW, ASIDE, why);
        if (!err) err = sync_one(r, ".", why);
    }
    if (err) return err;
    /* A WAL of the old one beside the new one would be taken for its own. */
    (void)!unlinkat(r->dir, VIEW "-wal", 0);
    (void)!unlinkat(r->dir, VIEW "-shm", 0);
    err = sync_one(r, ".", why);
    if (!err) err = rename_one(r, FRESH, VIEW, why);
    if (!err) err = sync_one(r, ".", why);
    if (!err && r->report->old_whole)
        remove_view(r, ASIDE);
    else if (!err && there(r, ASIDE))
        err = keep_aside(r, why);
    return err ? err : sync_one(r, ".", why);
}

/* ---- the old view ---- */

static int salvage(Rebuild *r, const char *name, bool first, Buf *why)
{
    RebuildReport *report = r->report;
    char *path = path_of(r, name);
    HistoryStats stats;
    Buf said = {0};
    uint64_t rows = 0;
    bool whole = false;
    int err = history_peek(path, &stats, &whole, &said);
    bool readable = err == 0;
    if (err != ERR_LOCKED) err = history_salvage(path, r->into, &rows, &said);
    if (err == ERR_LOCKED) {
        buf_printf(why, "%s is in use: stop the server first", path);
    } else if (err == ERR_CORRUPT || err == ERR_NOT_FOUND || err == ERR_PERMISSION ||
               err == ERR_INVALID) {
        err = 0; /* nothing can be read of it */
        whole = false;
    } else if (err) {
        buf_put_str(why, buf_str(&said));
    }
    report->old_there = true;
    report->salvaged += rows;
    bool all = readable && whole && rows == stats.rows;
    if (all) r->whole_upto = MAX(r->whole_upto, stats.applied_seq);
    if (first) {
        report->old_readable = readable;
        report->old_tasks = readable ? stats.rows : 0;
        report->old_whole = all;
    }
    buf_done(&said);
    mem_free(path);
    return err;
}

/* ---- the log ---- */

static int on_snapshot(void *ctx, const LogPoint *covers, Str piece)
{
    return core_restore(((Rebuild *)ctx)->core, covers, piece);
}

/* Files whose bytes are gone get no row. */
static void drop_missing(Rebuild *r)
{
    RowFile *files = rows_files(&r->rows);
    size_t kept = 0;
    for (size_t i = 0; i < r->rows.files_len; i++) {
        char name[96];
        name_with(name, "files/", files[i].id);
        if (there(r, name))
            files[kept++] = files[i];
        else
            r->report->files_missing++;
    }
    r->rows.files_len = kept;
}

static int put_rows(Rebuild *r)
{
    if (!r->rows.tasks_len) return 0;
    drop_missing(r);
    int err = history_begin(r->into);
    if (!err) err = rows_put(&r->rows, r->into);
    if (err)
        history_rollback(r->into);
    else
        err = history_commit(r->into, 0);
    r->report->put += r->rows.tasks_len;
    r->report->files += r->rows.files_len;
    rows_clear(&r->rows);
    return err;
}

/* Keeps R3. */
static int is_forgotten(Rebuild *r, uint64_t no, bool *ret)
{
    HistoryTask row;
    *ret = false;
    if (!r->report->salvaged) return 0;
    int err = history_get(r->into, no, &row);
    if (err) return err == ERR_NOT_FOUND ? 0 : err;
    Task *t = core_task_decode(r->core, row.body);
    if (!t) return 0;
    *ret = t->input.forgotten;
    core_task_discard(r->core, t);
    return 0;
}

/* Keeps R2. */
static int put_settled(Rebuild *r, uint64_t upto)
{
    int err = 0;
    for (Task *t = core_settled(r->core, NULL); t && !err; t = core_settled(r->core, t)) {
        bool forgotten;
        if (t->run->settled_seq > upto) break;
        r->report->replayed++;
        err = is_forgotten(r, t->no, &forgotten);
        if (err || forgotten) continue;
        rows_add(&r->rows, r->core, t);
        if (rows_full(&r->rows)) err = put_rows(r);
    }
    return err ? err : put_rows(r);
}

/* Keeps R3, for a task that has left the core, or had before the log begins. */
static int forget_row(Rebuild *r, uint64_t no)
{
    HistoryTask row;
    Buf body = {0}, output = {0};
    int err = core_task(r->core, no) ? ERR_NOT_FOUND : history_get(r->into, no, &row);
    if (err) return err == ERR_NOT_FOUND ? 0 : err;
    Task *t = core_task_decode(r->core, row.body);
    if (t && !t->input.forgotten) {
        buf_put_str(&output, core_payload(r->core, &t->run->output));
        core_task_forget(r->core, t);
        core_task_encode(r->core, t, &body);
        err = history_begin(r->into);
        if (!err) err = rows_forget(r->into, no, buf_str(&body), buf_str(&output), NULL);
        if (err)
            history_rollback(r->into);
        else
            err = history_commit(r->into, 0);
        buf_done(&body);
        buf_done(&output);
    }
    core_task_discard(r->core, t);
    return err;
}

static int before_frame(Rebuild *r, const Frame *f)
{
    size_t at = 0;
    uint32_t index = 0;
    Record record;
    while (frame_next_record(f, &at, &index, &record) == 1) {
        RecordData d;
        if (record.type != REC_HISTORY && record.type != REC_FORGET) continue;
        int err = record_get(f, &record, &d);
        if (!err && record.type == REC_FORGET) {
            err = forget_row(r, d.task.no);
            if (!err) continue;
        }
        if (err) return err;
        /* It is alone in its frame (shard_history): nothing else of the frame matters to it. */
        if (f->records != 1) return ERR_UNSUPPORTED;
        return put_settled(r, d.history.settled_seq);
    }
    return 0;
}

/* What is gone from the log and left the core before: only the old view had it. */
static void note_start(Rebuild *r)
{
    if (r->started) return;
    r->started = true;
    r->report->gone_seq = core_history_seq(r->core);
}

static int on_frame(void *ctx, const Frame *f, Str bytes)
{
    Rebuild *r = ctx;
    (void)bytes;
    note_start(r);
    int err = before_frame(r, f);
    if (!err) err = core_apply(r->core, f);
    r->records += f->records;
    if (r->o->progress && r->records - r->told >= TELL_EVERY) {
        r->told = r->records;
        r->o->progress(r->o->ctx, r->records, r->report->put);
    }
    return err;
}

static int replay(Rebuild *r, Buf *why)
{
    CoreLimits limits;
    core_limits_default(&limits);
    r->core = core_new(&limits, 1);
    int err = core_spill(r->core, r->disk, SPILL);
    if (err) {
        buf_printf(why, "cannot use the folder " SPILL ": %s", err_text(err));
        return err;
    }
    LogReplay play = {r, on_snapshot, on_frame};
    LogPoint from = {0}, at;
    Buf notes = {0};
    err = log_replay_retained(r->log, &play, &from, &at, &notes);
    if (err) {
        buf_put_str(why, buf_str(&notes));
        buf_done(&notes);
        return err;
    }
    note_start(r);
    r->report->log_notes = notes;
    r->report->from_seq = from.next_seq;
    r->report->last_seq = at.next_seq - 1;
    r->report->gone_ns = r->report->gone_seq ? from.time_ns : 0;
    return 0;
}

/* ---- all of it ---- */

/* The log's lock is the data directory's: no server runs on it while it is held. */
static int open_all(Rebuild *r, Buf *why)
{
    struct stat st;
    const char *dir = r->o->data_dir;
    r->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r->dir < 0) return failed(why, "open", dir);
    if (fstatat(r->dir, "log", &st, 0) || !S_ISDIR(st.st_mode)) {
        buf_printf(why, "%s is no data directory: it has no folder 'log'", dir);
        return ERR_NOT_FOUND;
    }
    int err = disk_posix_open(dir, &r->disk);
    if (err) {
        buf_printf(why, "%s: %s", dir, err_text(err));
        return err;
    }
    return log_open(r->disk, NULL, &r->log, why);
}

static int make(Rebuild *r, Buf *why)
{
    RebuildReport *report = r->report;
    char *path = path_of(r, FRESH);
    remove_view(r, FRESH);
    int err = history_open(path, 0, UINT64_MAX, &r->into, why);
    mem_free(path);
    if (err) return err;
    if (r->o->progress) r->o->progress(r->o->ctx, 0, 0);
    /* The newer one first: of a task that both have, its row stays. */
    bool aside = there(r, ASIDE), same = same_file(r, VIEW, ASIDE);
    if (!aside) remove_view(r, ASIDE); /* a -wal without its file */
    if (there(r, VIEW) && !same) err = salvage(r, VIEW, true, why);
    if (!err && aside) err = salvage(r, ASIDE, !report->old_there, why);
    if (!err) err = replay(r, why);
    if (err) return err;
    err = history_begin(r->into);
    if (!err) err = history_commit(r->into, core_history_seq(r->core));
    HistoryStats stats;
    if (!err) err = history_stats(r->into, &stats);
    if (err) {
        buf_printf(why, "%s/%s: %s", r->o->data_dir, FRESH, err_text(err));
        return err;
    }
    report->tasks = stats.rows;
    report->applied_seq = stats.applied_seq;
    report->complete = r->whole_upto >= report->gone_seq;
    return 0;
}

int history_rebuild(const RebuildOptions *o, RebuildReport *ret, Buf *why)
{
    RebuildReport report = {0};
    Rebuild r = {.o = o, .report = &report, .dir = -1};
    int err = open_all(&r, why);
    if (!err) err = make(&r, why);
    history_close(r.into); /* empties its WAL into it */
    if (!err) err = exchange(&r, why);
    core_free(r.core);
    rows_done(&r.rows);
    if (r.dir >= 0 && r.log) {
        if (err) remove_view(&r, FRESH);
        (void)!unlinkat(r.dir, SPILL, AT_REMOVEDIR);
    }
    log_close(r.log);
    if (r.disk) disk_free(r.disk);
    if (r.dir >= 0) close(r.dir);
    if (err) {
        rebuild_report_done(&report);
        return err;
    }
    *ret = report;
    return 0;
}

void rebuild_report_done(RebuildReport *r)
{
    buf_done(&r->log_notes);
}
