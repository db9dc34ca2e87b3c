/* backup.c: see backup.h.
 *
 * Why every task that was acknowledged when the backup began is in it exactly once. At the begin,
 * on the loop's thread, the log is held: P is a durable record, and no answer has left that depends
 * on a later one.
 *
 *  B1  The log's part replays to the core as it was at P. Only bytes that were synced are copied.
 *  B2  A task that was acknowledged by then has its SUBMIT at or before P. So the replay has it,
 *      unless it left the core by a HISTORY record h ≤ P (or its retention was over: EVICT).
 *  B3  h was written after the view had the task durably, and the view is copied after P: so the
 *      copy has it, as it was or as it is now (its data was deleted meanwhile), unless the view's
 *      own bounds removed it meanwhile.
 *  B4  A task may be in both: it was put before P and its HISTORY record is later. That is a state
 *      of a running server too (archive.h): memory is asked first, and it is put again.
 *  B5  What the view was given after P is of tasks that the replay still has, as they were at P.
 *      Their rows say a later record (finished_seq > P), and the restore removes those rows
 *      (history_open): once, not twice with two answers.
 *  B6  A file's content is there before its record is written, and is unlinked only after the
 *      record of its end is durable. Nothing is unlinked from before P until the backup has ended:
 *      so of every file that the state at P knows the content is in it. Others may be, too: nothing
 *      names them, and a start removes them when they are old.
 *
 * Threads: everything is the loop's but `run` and what it calls; the two share what the mutex
 * guards. The history's copy is made by its own thread, a little at a time. */
#include "node/backup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "wire/tar.h"

#define PIECE       (256 * KIB) /* read from a file, and given to the loop, at once */
#define READY_MAX   MIB         /* waits for the client; then the thread waits */
#define NICE        10
#define SPACE_SPARE (64 * MIB) /* left on the disk beside the history's copy */
#define PATH_ROOM   4200

typedef struct {
    Backups *owner;
    pthread_t thread;
    LogHold *hold;
    int64_t begun_s;
    void (*more)(void *arg);
    void *arg;
    bool threadless; /* none could be had */
    bool reading;    /* somebody reads it */
    bool copying;    /* the history's thread copies */
    char copy[PATH_ROOM + 32];

    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t cond;
    Buf ready;          /* to be read */
    bool cancel, ended; /* the thread should end; has nothing more */
    bool copied;
    int copy_err;
    int err; /* why it ended early */
    Buf why;

    /* the thread's */
    FILE *manifest;
    uint64_t entries, bytes;
    Buf head;
    uint8_t *piece;
} Backup;

struct Backups {
    BackupsOptions o;
    uv_async_t event;
    Backup *one; /* NULL: none is under way */
};

/* ---- the thread ---- */

static int fail_with(Backup *b, int err, const char *fmt, ...) HR_PRINTF(3, 4);
static int fail_with(Backup *b, int err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(&b->why, fmt, ap);
    va_end(ap);
    return err;
}

/* Waits while the client has enough to read. ERR_CANCELED. */
static int give(Backup *b, const void *p, size_t n)
{
    pthread_mutex_lock(&b->mutex);
    while (!b->cancel && b->ready.len + n > READY_MAX) pthread_cond_wait(&b->cond, &b->mutex);
    bool cancel = b->cancel, tell = b->ready.len == 0;
    if (!cancel) buf_put(&b->ready, p, n);
    pthread_mutex_unlock(&b->mutex);
    if (cancel) return ERR_CANCELED;
    if (tell) uv_async_send(&b->owner->event);
    b->bytes += n;
    return 0;
}

static int give_head(Backup *b, const char *name, uint64_t size, int64_t mtime_s)
{
    TarEntry e = {.size = size, .mtime_s = mtime_s};
    snprintf(e.name, sizeof e.name, "%s", name);
    buf_clear(&b->head);
    tar_put_entry(&b->head, &e);
    return give(b, b->head.data, b->head.len);
}

static int give_padding(Backup *b, uint64_t size)
{
    static const uint8_t zeroes[TAR_BLOCK];
    size_t n = tar_padding(size);
    return n ? give(b, zeroes, n) : 0;
}

/* size bytes from the file's start; sum may be NULL. */
static int give_bytes(Backup *b, int fd, uint64_t size, Sha256Run *sum)
{
    for (uint64_t at = 0; at < size;) {
        size_t want = (size_t)MIN(size - at, (uint64_t)PIECE);
        ssize_t n = pread(fd, b->piece, want, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n ? ERR_IO : ERR_CORRUPT; /* shorter than it was */
        if (sum) sha256_add(sum, b->piece, (size_t)n);
        int err = give(b, b->piece, (size_t)n);
        if (err) return err;
        at += (uint64_t)n;
    }
    return give_padding(b, size);
}

/* One entry with its line in the manifest. size UINT64_MAX: all of the file. ERR_NOT_FOUND. */
static int give_file(Backup *b, const char *path, const char *name, uint64_t size)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT) return ERR_NOT_FOUND;
    if (fd < 0 || fstat(fd, &st)) {
        int err = fail_with(b, ERR_IO, "%s: %s", name, strerror(errno));
        if (fd >= 0) close(fd);
        return err;
    }
    if (size == UINT64_MAX) size = (uint64_t)st.st_size;
    char hex[65];
    Sha256 digest;
    Sha256Run *sum = sha256_start();
    int err = give_head(b, name, size, st.st_mtime);
    if (!err) err = give_bytes(b, fd, size, sum);
    sha256_end(sum, &digest);
    close(fd);
    sha256_hex(&digest, hex);
    if (!err && fprintf(b->manifest, "%s %llu %s\n", hex, (unsigned long long)size, name) < 0)
        err = fail_with(b, ERR_NOSPC, "cannot write the manifest: %s", strerror(errno));
    else if (err && err != ERR_CANCELED)
        fail_with(b, err, "%s: %s", name, err == ERR_CORRUPT ? "it became shorter" : err_text(err));
    b->entries++;
    return err;
}

static int give_log(Backup *b)
{
    char path[PATH_ROOM];
    const char *dir = b->owner->o.data_dir;
    snprintf(path, sizeof path, "%s/format", dir);
    int err = give_file(b, path, "format", UINT64_MAX);
    for (size_t i = 0; i < b->hold->parts_len && !err; i++) {
        const LogPart *p = &b->hold->parts[i];
        snprintf(path, sizeof path, "%s/%s", dir, p->name);
        err = give_file(b, path, p->name, p->bytes);
    }
    return err == ERR_NOT_FOUND ? fail_with(b, ERR_IO, "a file of the log is gone") : err;
}

static int give_files(Backup *b)
{
    char path[PATH_ROOM], name[64];
    const char *dir = b->owner->o.data_dir;
    snprintf(path, sizeof path, "%s/files", dir);
    DIR *d = opendir(path);
    struct dirent *e;
    int err = 0;
    if (!d) return errno == ENOENT ? 0 : fail_with(b, ERR_IO, "%s: %s", path, strerror(errno));
    while (!err && (e = readdir(d))) {
        if (strncmp(e->d_name, "file_", 5) != 0 || strlen(e->d_name) != 31) continue;
        snprintf(path, sizeof path, "%s/files/%s", dir, e->d_name);
        snprintf(name, sizeof name, "files/%.31s", e->d_name);
        err = give_file(b, path, name, UINT64_MAX);
        if (err == ERR_NOT_FOUND) err = 0; /* B6: nothing of the state at P */
    }
    closedir(d);
    return err;
}

/* The copy was asked for at the begin; meanwhile the log was checked. */
static int wait_for_copy(Backup *b)
{
    pthread_mutex_lock(&b->mutex);
    while (!b->copied && !b->cancel) pthread_cond_wait(&b->cond, &b->mutex);
    int err = b->cancel ? ERR_CANCELED : b->copy_err;
    pthread_mutex_unlock(&b->mutex);
    if (err && err != ERR_CANCELED)
        fail_with(b, err, "cannot copy the history of finished tasks: %s%s", err_text(err),
                  err == ERR_NOSPC     ? ": the disk of the data directory needs room for it"
                  : err == ERR_CORRUPT ? " (stop the server and run: headrace history rebuild)"
                                       : "");
    return err;
}

/* A view that the configuration turns off, and nobody has open: the thread copies it itself. */
static int copy_idle_view(Backup *b)
{
    char path[PATH_ROOM];
    History *h;
    HistoryCopy *copy = NULL;
    bool done = false;
    snprintf(path, sizeof path, "%s/history.sqlite", b->owner->o.data_dir);
    if (access(path, F_OK)) return 0;
    int err = history_open(path, 0, UINT64_MAX, &h, &b->why);
    if (err) return err;
    err = history_copy_begin(h, b->copy, &copy);
    while (!err && !done) {
        err = history_copy_step(copy, 4096, &done);
        pthread_mutex_lock(&b->mutex);
        if (!err && b->cancel) err = ERR_CANCELED;
        pthread_mutex_unlock(&b->mutex);
    }
    history_copy_end(copy);
    history_close(h);
    return err && err != ERR_CANCELED ? fail_with(b, err, "%s: %s", path, err_text(err)) : err;
}

static int begin_manifest(Backup *b)
{
    char path[PATH_ROOM];
    Buf when = {0};
    snprintf(path, sizeof path, "%s/" BACKUP_DIR "/" BACKUP_MANIFEST, b->owner->o.data_dir);
    b->manifest = fopen(path, "w+e");
    if (!b->manifest) return fail_with(b, ERR_IO, "%s: %s", path, strerror(errno));
    buf_put_time(&when, b->begun_s * NS_PER_S);
    fprintf(b->manifest, "headrace-backup %d\nheadrace %s\ntaken %s\nlast_seq %llu\n\n",
            BACKUP_VERSION, HR_VERSION, buf_z(&when), (unsigned long long)b->hold->last_seq);
    buf_done(&when);
    return 0;
}

static int give_manifest(Backup *b)
{
    struct stat st;
    fprintf(b->manifest, "end %llu\n", (unsigned long long)b->entries);
    if (fflush(b->manifest) || fstat(fileno(b->manifest), &st))
        return fail_with(b, ERR_NOSPC, "cannot write the manifest: %s", strerror(errno));
    int err = give_head(b, BACKUP_MANIFEST, (uint64_t)st.st_size, b->begun_s);
    if (!err) err = give_bytes(b, fileno(b->manifest), (uint64_t)st.st_size, NULL);
    buf_clear(&b->head);
    tar_put_end(&b->head);
    return err ? err : give(b, b->head.data, b->head.len);
}

/* What can fail for a reason that the client should read does so before the first byte. */
static int give_all(Backup *b)
{
    int err = begin_manifest(b);
    if (!err) {
        err = log_hold_check(b->hold, &b->why);
        if (err && !b->why.len) fail_with(b, err, "the log: %s", err_text(err));
    }
    if (!err) err = b->owner->o.archive ? wait_for_copy(b) : copy_idle_view(b);
    if (!err) err = give_log(b);
    if (!err) err = give_file(b, b->copy, "history.sqlite", UINT64_MAX);
    if (err == ERR_NOT_FOUND) err = 0; /* there is no view, and never was */
    if (!err) err = give_files(b);
    return err ? err : give_manifest(b);
}

static void *run(void *arg)
{
    Backup *b = arg;
    (void)pthread_setname_np(pthread_self(), "hr-backup");
    (void)!setpriority(PRIO_PROCESS, (id_t)gettid(), NICE);
    b->piece = mem_grow(NULL, PIECE);
    int err = give_all(b);
    mem_free(b->piece);
    if (b->manifest) fclose(b->manifest);
    buf_done(&b->head);
    pthread_mutex_lock(&b->mutex);
    b->err = err;
    b->ended = true;
    pthread_mutex_unlock(&b->mutex);
    uv_async_send(&b->owner->event);
    return NULL;
}

/* ---- the loop's side ---- */

static void remove_leftovers(const BackupsOptions *o)
{
    static const char *const names[] = {"history.sqlite",     "history.sqlite-journal",
                                        "history.sqlite-wal", "history.sqlite-shm",
                                        BACKUP_MANIFEST,      ""}; /* "": the folder itself */
    char path[PATH_ROOM];
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        snprintf(path, sizeof path, "%s/" BACKUP_DIR "/%s", o->data_dir, names[i]);
        (void)!remove(path);
    }
}

static void cancel(Backup *b)
{
    pthread_mutex_lock(&b->mutex);
    b->cancel = true;
    pthread_cond_signal(&b->cond);
    pthread_mutex_unlock(&b->mutex);
}

static bool has_ended(Backup *b)
{
    pthread_mutex_lock(&b->mutex);
    bool ended = b->ended;
    pthread_mutex_unlock(&b->mutex);
    return ended;
}

static void let_go(Backups *bs)
{
    Backup *b = bs->one;
    if (b->reading || b->copying || !has_ended(b)) return;
    bs->one = NULL;
    if (!b->threadless) pthread_join(b->thread, NULL);
    log_release(b->hold);
    bs->o.hold_files(bs->o.ctx, false);
    remove_leftovers(&bs->o);
    pthread_mutex_destroy(&b->mutex);
    pthread_cond_destroy(&b->cond);
    buf_done(&b->ready);
    buf_done(&b->why);
    mem_free(b);
}

static void on_event(uv_async_t *a)
{
    Backups *bs = a->data;
    if (bs->one && bs->one->reading) bs->one->more(bs->one->arg);
    if (bs->one) let_go(bs);
}

static bool copy_goes_on(void *ctx)
{
    return ((Backup *)ctx)->reading;
}

static void on_copied(void *ctx, int err)
{
    Backup *b = ctx;
    Backups *bs = b->owner;
    b->copying = false;
    pthread_mutex_lock(&b->mutex);
    b->copied = true;
    b->copy_err = err;
    pthread_cond_signal(&b->cond);
    pthread_mutex_unlock(&b->mutex);
    let_go(bs);
}

/* The copy takes room on the disk that the log writes to: it must not fill it. */
static bool has_room(const BackupsOptions *o, Decision *d)
{
    char path[PATH_ROOM];
    struct stat st;
    struct statvfs fs;
    uint64_t need = SPACE_SPARE;
    snprintf(path, sizeof path, "%s/history.sqlite", o->data_dir);
    if (stat(path, &st)) return true;
    need += (uint64_t)st.st_size;
    if (statvfs(o->data_dir, &fs)) return true;
    uint64_t have = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (have >= need) return true;
    Buf text = {0};
    buf_puts(&text, "a backup needs ");
    buf_put_size(&text, need);
    buf_puts(&text, " on the disk of the data directory, for a copy of the history meanwhile; ");
    buf_put_size(&text, have);
    buf_puts(&text, " are free");
    *d = (Decision){.code = CODE_DISK_FULL, .retry_after_ms = 60000};
    snprintf(d->detail, sizeof d->detail, "%.*s", STR_ARG(buf_str(&text)));
    buf_done(&text);
    return false;
}

static Decision refusal(Code code, const char *text)
{
    Decision d = {.code = code, .retry_after_ms = 5000};
    snprintf(d.detail, sizeof d.detail, "%.250s", text);
    return d;
}

Decision backup_begin(Backups *bs, void (*more)(void *arg), void *arg)
{
    Decision d = {.code = CODE_OK};
    char path[PATH_ROOM];
    if (bs->one)
        return refusal(CODE_CONFLICT, "a backup is under way; begin another when it has ended");
    if (!has_room(&bs->o, &d)) return d;
    remove_leftovers(&bs->o);
    snprintf(path, sizeof path, "%s/" BACKUP_DIR, bs->o.data_dir);
    if (mkdir(path, 0700)) {
        d = refusal(errno == ENOSPC ? CODE_DISK_FULL : CODE_INTERNAL, "");
        snprintf(d.detail, sizeof d.detail, "cannot make a folder in the data directory: %s",
                 strerror(errno));
        return d;
    }
    Backup *b = mem_new(sizeof *b);
    Buf why = {0};
    if (log_hold(shard_log(bs->o.shard), &b->hold, &why)) {
        d = refusal(CODE_INTERNAL, buf_z(&why));
        buf_done(&why);
        mem_free(b);
        return d;
    }
    bs->o.hold_files(bs->o.ctx, true);
    bs->one = b;
    b->owner = bs;
    b->begun_s = time(NULL);
    snprintf(b->copy, sizeof b->copy, "%s/history.sqlite", path);
    b->more = more;
    b->arg = arg;
    b->reading = true;
    CHECK(pthread_mutex_init(&b->mutex, NULL) == 0);
    CHECK(pthread_cond_init(&b->cond, NULL) == 0);
    if (pthread_create(&b->thread, NULL, run, b)) {
        b->reading = false;
        b->ended = true;
        b->threadless = true;
        let_go(bs);
        return refusal(CODE_INTERNAL, "no thread can be had for a backup");
    }
    if (bs->o.archive) {
        b->copying = true;
        archive_copy(bs->o.archive, &(ArchiveCopy){b->copy, copy_goes_on, on_copied, b});
    }
    return d;
}

int backup_read(Backups *bs, Buf *ret, Buf *why)
{
    Backup *b = bs->one;
    pthread_mutex_lock(&b->mutex);
    size_t n = MIN(b->ready.len, PIECE);
    buf_put(ret, b->ready.data, n);
    buf_drop(&b->ready, n);
    bool ended = b->ended && !n;
    int err = b->err;
    if (n) pthread_cond_signal(&b->cond);
    pthread_mutex_unlock(&b->mutex);
    if (ended && err) buf_put_str(why, buf_str(&b->why));
    return n ? 1 : !ended ? 0 : err ? err : ERR_CLOSED;
}

void backup_want(Backups *bs)
{
    uv_async_send(&bs->event);
}

void backup_end(Backups *bs)
{
    Backup *b = bs->one;
    if (!b || !b->reading) return; /* the server stops */
    b->reading = false;
    cancel(b);
    uv_async_send(&bs->event); /* not now: the caller may be in `more` */
}

/* ---- life ---- */

Backups *backups_new(const BackupsOptions *o)
{
    Backups *bs = mem_new(sizeof *bs);
    bs->o = *o;
    CHECK(uv_async_init(o->loop, &bs->event, on_event) == 0);
    bs->event.data = bs;
    remove_leftovers(o);
    return bs;
}

void backups_stop(Backups *bs)
{
    if (!bs || !bs->one) return;
    bs->one->reading = false;
    cancel(bs->one);
    while (!has_ended(bs->one)) usleep(1000);
    let_go(bs); /* unless it is being copied: then on_copied does */
}

void backups_close(Backups *bs)
{
    CHECK(!bs->one);
    uv_close((uv_handle_t *)&bs->event, NULL);
}

void backups_free(Backups *bs)
{
    mem_free(bs);
}
