/* restore.c: see restore.h.
 *
 *  E1  Until all is checked and durable the directory's file "format" says that it is none, so that
 *      no server starts on a part of a backup. The files lie in DIR/restoring meanwhile.
 *  E2  Only names that a backup has are made, each once, each new: nothing is followed or replaced.
 *  E3  The new log begins behind all that was given out before (restore.h). */
#include "node/restore.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "history/history.h"
#include "io/clock.h"
#include "io/disk.h"
#include "log/log.h"
#include "node/backup.h"
#include "task/task.h"
#include "wire/tar.h"

#define INSIDE       "restoring"
#define SPILL        "spill-restore"
#define NOT_YET      "headrace restore is at work, or was cut off: remove this directory\n"
#define SEQ_PER_MS   UINT64_C(1024)
#define SEQ_AT_LEAST (UINT64_C(1) << 32)

static int err_of_errno(void)
{
    return errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? ERR_NOSPC
           : errno == EACCES || errno == EPERM                  ? ERR_PERMISSION
           : errno == EROFS                                     ? ERR_READONLY
           : errno == EEXIST                                    ? ERR_EXISTS
                                                                : ERR_IO;
}

static int because(Buf *why, int err, const char *fmt, ...) HR_PRINTF(3, 4);
static int because(Buf *why, int err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(why, fmt, ap);
    va_end(ap);
    return err;
}

/* ---- the reader ---- */

struct BackupReader {
    int dir;
    TarReader tar;
    Buf lines;    /* what the manifest must say of the entries so far */
    Buf manifest; /* what it says */
    bool in_manifest, have_manifest;
    TarEntry entry;
    Sha256Run *sum;
    int fd; /* of the entry; −1: none */
    uint64_t entries, files, last_seq;
    int err;
    Buf *why; /* during a call */
};

static bool digits(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] < '0' || p[i] > '9') return false;
    return true;
}

/* Keeps E2. */
static bool is_ours(const char *name)
{
    size_t n = strlen(name);
    if (!strcmp(name, "format") || !strcmp(name, "history.sqlite")) return true;
    if (!strncmp(name, "log/", 4))
        return (n == 18 && digits(name + 4, 10) && !strcmp(name + 14, ".seg")) ||
               (n == 29 && digits(name + 4, 20) && !strcmp(name + 24, ".snap"));
    if (strncmp(name, "files/file_", 11) != 0 || n != 37) return false;
    for (const char *p = name + 11; *p; p++)
        if (!((*p >= '0' && *p <= '9') || (*p >= 'A' && *p <= 'Z'))) return false;
    return true;
}

static int on_entry(void *ctx, const TarEntry *e)
{
    BackupReader *r = ctx;
    if (r->have_manifest) return because(r->why, ERR_INVALID, "something follows the manifest");
    r->entry = *e;
    r->in_manifest = !strcmp(e->name, BACKUP_MANIFEST);
    if (r->in_manifest) {
        if (e->size > r->lines.len + 4096)
            return because(r->why, ERR_INVALID, "the manifest is longer than what it is about");
        return 0;
    }
    if (!is_ours(e->name))
        return because(r->why, ERR_INVALID, "\"%s\" is no part of a backup", e->name);
    r->sum = sha256_start();
    if (!strncmp(e->name, "files/", 6)) r->files++;
    if (r->dir < 0) return 0;
    r->fd = openat(r->dir, e->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (r->fd >= 0) return 0;
    if (errno == EEXIST) return because(r->why, ERR_INVALID, "\"%s\" comes twice", e->name);
    return because(r->why, err_of_errno(), "cannot write %s: %s", e->name, strerror(errno));
}

static int on_data(void *ctx, Str piece)
{
    BackupReader *r = ctx;
    if (r->in_manifest) {
        buf_put_str(&r->manifest, piece);
        return 0;
    }
    sha256_add(r->sum, piece.p, piece.n);
    while (r->fd >= 0 && piece.n) {
        ssize_t n = write(r->fd, piece.p, piece.n);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0)
            return because(r->why, err_of_errno(), "cannot write %s: %s", r->entry.name,
                           strerror(errno));
        piece.p += n;
        piece.n -= (size_t)n;
    }
    return 0;
}

/* The next line of *s, without its end. */
static bool next_line(Str *s, Str *ret)
{
    const char *end = s->n ? memchr(s->p, '\n', s->n) : NULL;
    if (!end) return false;
    *ret = (Str){s->p, (size_t)(end - s->p)};
    s->n -= ret->n + 1;
    s->p = end + 1;
    return true;
}

static int read_manifest_head(BackupReader *r, Str *s)
{
    Str line, magic = STR("headrace-backup "), seq = STR("last_seq ");
    uint64_t version;
    if (!next_line(s, &line) || !str_starts(line, magic) ||
        parse_u64((Str){line.p + magic.n, line.n - magic.n}, &version))
        return because(r->why, ERR_INVALID, "the manifest is none");
    if (version > BACKUP_VERSION)
        return because(r->why, ERR_UNSUPPORTED,
                       "the backup was made by a newer Headrace; use that one, or a newer one");
    bool found = false;
    while (next_line(s, &line) && line.n)
        if (str_starts(line, seq))
            found = !parse_u64((Str){line.p + seq.n, line.n - seq.n}, &r->last_seq);
    return found ? 0 : because(r->why, ERR_INVALID, "the manifest does not say last_seq");
}

/* The rest must be what was computed, line by line. */
static int check_manifest(BackupReader *r)
{
    Str said = buf_str(&r->manifest), mine, a, b;
    int err = read_manifest_head(r, &said);
    if (err) return err;
    buf_printf(&r->lines, "end %llu\n", (unsigned long long)r->entries);
    mine = buf_str(&r->lines);
    while (next_line(&mine, &b)) {
        if (!next_line(&said, &a))
            return because(r->why, ERR_INVALID, "the manifest ends too early");
        if (str_eq(a, b)) continue;
        const char *blank = memrchr(b.p, ' ', b.n);
        return because(r->why, ERR_INVALID, "%.*s is not what the manifest says: it is damaged",
                       blank && !str_starts(b, STR("end ")) ? (int)(b.p + b.n - blank - 1) : 9,
                       blank && !str_starts(b, STR("end ")) ? blank + 1 : "the count");
    }
    if (said.n) return because(r->why, ERR_INVALID, "the manifest says more than there is");
    return 0;
}

static int on_whole(void *ctx)
{
    BackupReader *r = ctx;
    if (r->in_manifest) {
        r->have_manifest = true;
        return check_manifest(r);
    }
    Sha256 digest;
    char hex[65];
    sha256_end(r->sum, &digest);
    r->sum = NULL;
    sha256_hex(&digest, hex);
    buf_printf(&r->lines, "%s %llu %s\n", hex, (unsigned long long)r->entry.size, r->entry.name);
    r->entries++;
    if (r->fd < 0) return 0;
    /* As old as it was: a start removes old contents that nothing names, not young ones. */
    struct timespec times[2] = {{.tv_sec = r->entry.mtime_s}, {.tv_sec = r->entry.mtime_s}};
    (void)futimens(r->fd, times);
    int err = close(r->fd) ? err_of_errno() : 0;
    r->fd = -1;
    return err ? because(r->why, err, "cannot write %s: %s", r->entry.name, err_text(err)) : 0;
}

BackupReader *backup_reader_new(int dir)
{
    BackupReader *r = mem_new(sizeof *r);
    r->dir = dir;
    r->fd = -1;
    return r;
}

int backup_reader_feed(BackupReader *r, Str bytes, Buf *why)
{
    TarHandler h = {r, on_entry, on_data, on_whole};
    const char *what = NULL;
    if (r->err) return r->err;
    r->why = why;
    r->err = tar_feed(&r->tar, bytes, &h, &what);
    if (what) buf_printf(why, "this is no backup of Headrace, or it is damaged: %s", what);
    return r->err;
}

int backup_reader_end(BackupReader *r, Buf *why)
{
    if (r->err) return r->err;
    if (r->have_manifest && tar_ended(&r->tar)) return 0;
    buf_puts(why, r->entries ? "the backup is not whole: its end is missing"
                             : "this is no backup of Headrace: it is empty");
    return ERR_INVALID;
}

uint64_t backup_reader_files(const BackupReader *r)
{
    return r->files;
}

void backup_reader_free(BackupReader *r)
{
    if (!r) return;
    if (r->sum) sha256_end(r->sum, NULL);
    if (r->fd >= 0) close(r->fd);
    tar_done(&r->tar);
    buf_done(&r->lines);
    buf_done(&r->manifest);
    mem_free(r);
}

/* ---- the directory ---- */

struct Restore {
    char *path;   /* owned */
    char *inside; /* owned: path/restoring */
    bool made;    /* the directory is ours */
    bool begun;   /* what is in it is, too */
    bool finished;
    int dir, inside_dir; /* −1: not open */
    Disk *outer;
    DiskFile *lock;
    BackupReader *reader;
    /* of restore_finish */
    Disk *disk;
    Log *log;
    Core *core;
};

static int check_empty(const char *path, Buf *why)
{
    DIR *d = opendir(path);
    struct dirent *e;
    bool empty = true;
    if (!d) return because(why, err_of_errno(), "cannot read %s: %s", path, strerror(errno));
    while ((e = readdir(d)))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) empty = false;
    closedir(d);
    return empty ? 0
                 : because(why, ERR_EXISTS,
                           "%s is not empty; a backup is restored into a new directory", path);
}

static int write_small(int dir, const char *name, const char *text)
{
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return err_of_errno();
    size_t n = strlen(text);
    int err = write(fd, text, n) == (ssize_t)n && fsync(fd) == 0 ? 0 : err_of_errno();
    close(fd);
    return err;
}

static char *join(const char *dir, const char *name)
{
    Buf b = {0};
    buf_printf(&b, "%s/%s", dir, name);
    char *path = mem_dup(b.data, b.len);
    buf_done(&b);
    return path;
}

static int set_up(Restore *r, Buf *why)
{
    struct stat st;
    r->made = stat(r->path, &st) != 0;
    int err = r->made ? 0 : check_empty(r->path, why);
    if (err) return err;
    err = disk_posix_open(r->path, &r->outer);
    if (!err) err = r->outer->ops->lock(r->outer, "lock", &r->lock);
    if (err) return because(why, err, "cannot use %s: %s", r->path, err_text(err));
    r->begun = true;
    r->dir = open(r->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool good = r->dir >= 0 && write_small(r->dir, "format", NOT_YET) == 0 && /* keeps E1 */
                mkdirat(r->dir, INSIDE, 0700) == 0;
    if (good) r->inside_dir = openat(r->dir, INSIDE, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    good = good && r->inside_dir >= 0 && mkdirat(r->inside_dir, "log", 0700) == 0 &&
           mkdirat(r->inside_dir, "files", 0700) == 0;
    if (!good)
        return because(why, err_of_errno(), "cannot write to %s: %s", r->path, strerror(errno));
    r->reader = backup_reader_new(r->inside_dir);
    return 0;
}

int restore_begin(const char *dir, Restore **ret, Buf *why)
{
    Restore *r = mem_new(sizeof *r);
    r->dir = r->inside_dir = -1;
    r->path = mem_dup(dir, strlen(dir));
    r->inside = join(dir, INSIDE);
    int err = set_up(r, why);
    if (err) {
        restore_free(r);
        return err;
    }
    *ret = r;
    return 0;
}

int restore_feed(Restore *r, Str bytes, Buf *why)
{
    return backup_reader_feed(r->reader, bytes, why);
}

/* ---- checking ---- */

static void on_fault(void *ctx, const char *file, uint64_t offset, bool acknowledged,
                     const char *what)
{
    Buf *why = ctx;
    (void)acknowledged; /* in a backup everything is */
    if (why->len < 1000)
        buf_printf(why, "%s%s, byte %llu: %s", why->len ? "; " : "the log in the backup: ", file,
                   (unsigned long long)offset, what);
}

static int on_snapshot(void *ctx, const LogPoint *covers, Str piece)
{
    return core_restore(ctx, covers, piece);
}

static int on_frame(void *ctx, const Frame *f, Str bytes)
{
    (void)bytes;
    return core_apply(ctx, f);
}

static int read_log(Restore *r, LogPoint *at, Buf *why)
{
    CoreLimits limits;
    core_limits_default(&limits);
    int err = disk_posix_open(r->inside, &r->disk);
    if (err) return because(why, err, "%s: %s", r->inside, err_text(err));
    err = log_scan(r->disk, &(LogScan){.ctx = why, .fault = on_fault});
    if (why->len) return ERR_CORRUPT;
    if (err) return because(why, err, "the log in the backup: %s", err_text(err));
    err = log_open(r->disk, NULL, &r->log, why);
    if (err) return err;
    r->core = core_new(&limits, 1);
    err = core_spill(r->core, r->disk, SPILL);
    if (err) return because(why, err, "cannot use the folder " SPILL ": %s", err_text(err));
    LogReplay replay = {r->core, on_snapshot, on_frame};
    LogPoint from;
    err = log_replay_retained(r->log, &replay, &from, at, why);
    if (err) return err;
    if (at->next_seq - 1 != r->reader->last_seq)
        return because(
            why, ERR_CORRUPT, "the log in the backup ends at record %llu, the manifest says %llu",
            (unsigned long long)at->next_seq - 1, (unsigned long long)r->reader->last_seq);
    return 0;
}

/* Rows of what finished after P go: it is queued or running again (backup.c, B5). */
static int read_history(Restore *r, uint64_t last_seq, RestoreReport *report, Buf *why)
{
    uint64_t left = core_history_seq(r->core);
    char *path = join(r->inside, "history.sqlite");
    History *h = NULL;
    HistoryStats stats = {0};
    int err = 0;
    if (access(path, F_OK) == 0) {
        err = history_open(path, 0, last_seq, &h, why);
        if (!err && (err = history_stats(h, &stats)))
            buf_printf(why, "%s: %s", path, err_text(err));
        history_close(h);
    }
    mem_free(path);
    report->history = stats.rows;
    if (!err && stats.applied_seq < left)
        err = because(why, ERR_CORRUPT,
                      "the history in the backup does not reach as far as its log");
    return err;
}

/* ---- a new time ---- */

static int put_piece(void *ctx, Str piece)
{
    return log_snapshot_put(ctx, piece);
}

static int fill(void *ctx, LogSnapshot *s)
{
    return core_snapshot(ctx, put_piece, s);
}

/* Keeps E3. The core learns its epoch as ever, by a claim; its snapshot is the new log. */
static int begin_anew(Restore *r, LogPoint at, Buf *why)
{
    uint64_t now_ms = (uint64_t)MAX(clock_real.wall_ns(&clock_real) / NS_PER_MS, 0);
    uint8_t id_key[16];
    FrameBuilder builder = {0};
    Buf bytes = {0};
    Frame f;
    size_t len;
    random_secret(id_key, sizeof id_key);
    at.epoch = MAX(at.epoch + 1, now_ms / 1000);
    random_secret(&at.holder, sizeof at.holder);
    core_claim(r->core, at.epoch, at.holder, STR("headrace restore"), id_key, &builder);
    frame_seal(&builder, at.time_ns, &at, &bytes);
    CHECK(frame_read(buf_str(&bytes), &f, &len) == 0 && core_apply(r->core, &f) == 0);
    frame_done(&builder);
    buf_done(&bytes);
    at.next_seq = MAX(at.next_seq + SEQ_AT_LEAST, now_ms * SEQ_PER_MS);
    return log_begin_at(r->log, &at, fill, r->core, why);
}

static int publish(Restore *r, Buf *why)
{
    static const char *const names[] = {"log", "files", "history.sqlite", "format"};
    (void)!unlinkat(r->inside_dir, "lock", 0);
    (void)!unlinkat(r->inside_dir, SPILL, AT_REMOVEDIR);
    int err = syncfs(r->inside_dir) ? err_of_errno() : 0;
    for (size_t i = 0; i < ARRAY_LEN(names) && !err; i++) {
        if (i + 1 == ARRAY_LEN(names) && fsync(r->dir)) err = err_of_errno(); /* keeps E1 */
        if (!err && renameat(r->inside_dir, names[i], r->dir, names[i]) && errno != ENOENT)
            err = err_of_errno();
    }
    if (!err && (unlinkat(r->dir, INSIDE, AT_REMOVEDIR) || fsync(r->dir))) err = err_of_errno();
    return err ? because(why, err, "cannot write to %s: %s", r->path, err_text(err)) : 0;
}

int restore_finish(Restore *r, RestoreReport *ret, Buf *why)
{
    RestoreReport report = {0};
    LogPoint at = {0};
    int err = backup_reader_end(r->reader, why);
    if (!err) err = read_log(r, &at, why);
    if (!err) err = read_history(r, at.next_seq - 1, &report, why);
    if (err) return err;
    report.files = backup_reader_files(r->reader);
    report.last_seq = at.next_seq - 1;
    report.time_ns = at.time_ns;
    for (int s = 0; s < TASK_STATES; s++) {
        uint64_t n = core_count(r->core, (TaskState)s);
        if (s == TASK_QUEUED)
            report.queued = n;
        else if (s == TASK_RUNNING)
            report.running = n;
        else
            report.finished += n;
    }
    err = begin_anew(r, at, why);
    core_free(r->core);
    r->core = NULL;
    log_close(r->log);
    r->log = NULL;
    if (!err) err = publish(r, why);
    if (err) return err;
    r->finished = true;
    *ret = report;
    return 0;
}

/* Everything below, two folders deep at most. */
static void remove_below(int dir, int depth)
{
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;
    if (!d) {
        if (fd >= 0) close(fd);
        return;
    }
    while ((e = readdir(d))) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        if (unlinkat(dir, e->d_name, 0) == 0 || depth == 0) continue;
        int sub = openat(dir, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (sub < 0) continue;
        remove_below(sub, depth - 1);
        close(sub);
        (void)!unlinkat(dir, e->d_name, AT_REMOVEDIR);
    }
    closedir(d);
}

void restore_free(Restore *r)
{
    if (!r) return;
    backup_reader_free(r->reader);
    core_free(r->core);
    log_close(r->log);
    disk_free(r->disk);
    if (r->inside_dir >= 0) close(r->inside_dir);
    if (r->begun && !r->finished && r->dir >= 0) {
        remove_below(r->dir, 2);
        if (r->made) (void)!rmdir(r->path);
    }
    if (r->dir >= 0) close(r->dir);
    if (r->lock) r->lock->ops->close(r->lock);
    disk_free(r->outer);
    mem_free(r->path);
    mem_free(r->inside);
    mem_free(r);
}
