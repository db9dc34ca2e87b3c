/* history_crash.c: a writer killed at random moments; disks that are full or fail at any one
 * operation; damaged pages. What was committed is there or is called damaged, never wrong. */
#include "unit/history_rig.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "history/inside.h"

static void nothing_gone(void *ctx, Str id)
{
    (void)ctx;
    (void)id;
    abort();
}

/* ---- kill -9 ---- */

typedef struct {
    uint64_t applied, swept; /* the last task committed; tasks 1 … swept may be gone */
} Word;

static void say_word(int fd, Word w)
{
    if (write(fd, &w, sizeof w) != sizeof w) _exit(3);
}

/* Batches of 1 to 400 tasks from `from` on; says after each what must survive. Now and then sweeps,
 * having said so before. */
static _Noreturn void write_until_killed(const char *path, uint64_t from, uint64_t seed, int fd)
{
    Rig r = {0};
    Random x;
    random_seed(&x, seed);
    snprintf(r.path, sizeof r.path, "%s", path);
    if (rig_open_at(&r, UINT64_MAX)) _exit(2);
    for (Word w = {.applied = from - 1};;) {
        uint64_t last = w.applied + 1 + random_below(&x, 400);
        if (rig_put(&r, w.applied + 1, last)) _exit(4);
        w.applied = last;
        say_word(fd, w);
        if (random_below(&x, 5)) continue;
        uint32_t removed;
        w.swept = w.applied > 3000 ? w.applied - 3000 : 0;
        say_word(fd, w);
        HistoryLimits l = {.max_rows = 3000};
        if (history_sweep(r.h, RIG_DAY, &l, 500, nothing_gone, NULL, &removed)) _exit(5);
    }
}

static void what_was_committed_survives_a_kill(void **state)
{
    (void)state;
    Rig r;
    Random x;
    uint64_t applied = 0, swept = 0;
    rig_start(&r);
    random_seed(&x, 20261122);
    for (int round = 0; round < 25; round++) {
        history_close(r.h);
        int fds[2];
        assert_int_equal(pipe(fds), 0);
        pid_t child = fork();
        if (child == 0) write_until_killed(r.path, applied + 1, random_u64(&x), fds[1]);
        close(fds[1]);
        uint64_t us = 2000 + random_below(&x, 60000);
        usleep((useconds_t)us);
        kill(child, SIGKILL);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        for (Word w; read(fds[0], &w, sizeof w) == sizeof w;) {
            applied = w.applied;
            swept = MAX(swept, w.swept);
        }
        close(fds[0]);
        rig_open(&r);
        uint64_t seq = history_applied_seq(r.h);
        assert_true(!applied || seq >= applied * 3 + 2);
        uint64_t last = seq ? (seq - 2) / 3 : 0; /* committed, and killed before it said so */
        uint64_t there = 0;
        for (uint64_t no = 1; no <= last; no++) {
            int err = rig_check(&r, no);
            assert_true(!err || (err == ERR_NOT_FOUND && no <= swept));
            there += !err;
        }
        assert_int_equal(rig_check(&r, last + 1), ERR_NOT_FOUND);
        assert_true(rig_rows(&r) == there && rig_listed(&r) == there);
        applied = last;
    }
    assert_true(applied > 1000);
    rig_end(&r);
}

/* ---- full ---- */

static void full_then_roomy(Rig *r, uint64_t *last)
{
    uint64_t seq = history_applied_seq(r->h), rows = rig_rows(r);
    assert_int_equal(rig_put(r, *last + 1, *last + 5000), ERR_NOSPC);
    assert_true(history_applied_seq(r->h) == seq && rig_rows(r) == rows);
    assert_true(rig_listed(r) == rows); /* and reading goes on */
    assert_int_equal(rig_put(r, *last + 1, *last + 5000), ERR_NOSPC);
}

static void a_full_disk_is_weather(void **state)
{
    (void)state;
    Rig r;
    uint64_t last = 2000;
    rig_start(&r);
    assert_int_equal(rig_put(&r, 1, last), 0);
    signal(SIGXFSZ, SIG_IGN);
    for (int round = 0; round < 3; round++) {
        struct rlimit was, tight;
        assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
        tight = was;
        tight.rlim_cur = 1500 * KIB;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
        full_then_roomy(&r, &last);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
        assert_int_equal(rig_put(&r, last + 1, last + 5000), 0); /* the same, without a restart */
        last += 5000;

        char sql[64];
        HistoryStats s;
        assert_int_equal(history_stats(r.h, &s), 0);
        snprintf(sql, sizeof sql, "PRAGMA max_page_count = %d", (int)(s.file_bytes / 4096 + 100));
        assert_int_equal(history_pragma(r.h, sql), 0);
        full_then_roomy(&r, &last);
        assert_int_equal(history_pragma(r.h, "PRAGMA max_page_count = 4294967294"), 0);
        assert_int_equal(rig_put(&r, last + 1, last + 5000), 0);
        last += 5000;
    }
    rig_reopen(&r);
    for (uint64_t no = 1; no <= last; no++) assert_int_equal(rig_check(&r, no), 0);
    rig_end(&r);
}

/* ---- a disk on which one operation fails ---- */

static struct {
    sqlite3_vfs *real;
    int ops, fail_at, fail_count; /* operations fail_at … fail_at + fail_count − 1 fail */
    int rc;                       /* with this */
    bool main_fails;              /* every write to the file itself, not to the WAL */
} disk;

typedef struct {
    sqlite3_file base;
    sqlite3_file *real; /* behind this struct */
    bool main;
} ShimFile;

static bool fails(void)
{
    int n = ++disk.ops;
    return disk.fail_at && n >= disk.fail_at && n < disk.fail_at + disk.fail_count;
}

static sqlite3_file *real_of(sqlite3_file *f)
{
    return ((ShimFile *)f)->real;
}

static int shim_close(sqlite3_file *f)
{
    sqlite3_file *real = real_of(f);
    return real->pMethods ? real->pMethods->xClose(real) : SQLITE_OK;
}

static int shim_read(sqlite3_file *f, void *p, int n, sqlite3_int64 at)
{
    if (fails()) return disk.rc == SQLITE_FULL ? SQLITE_IOERR_READ : disk.rc;
    return real_of(f)->pMethods->xRead(real_of(f), p, n, at);
}

static int shim_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 at)
{
    if (disk.main_fails && ((ShimFile *)f)->main) return SQLITE_IOERR_WRITE;
    if (fails()) { /* half of it arrives */
        (void)real_of(f)->pMethods->xWrite(real_of(f), p, n / 2, at);
        return disk.rc;
    }
    return real_of(f)->pMethods->xWrite(real_of(f), p, n, at);
}

static int shim_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    if (fails()) return SQLITE_IOERR_TRUNCATE;
    return real_of(f)->pMethods->xTruncate(real_of(f), size);
}

static int shim_sync(sqlite3_file *f, int flags)
{
    (void)flags;
    (void)f; /* processes are killed here, not machines: spares the time */
    return fails() ? SQLITE_IOERR_FSYNC : SQLITE_OK;
}

static int shim_size(sqlite3_file *f, sqlite3_int64 *ret)
{
    if (fails()) return SQLITE_IOERR_FSTAT;
    return real_of(f)->pMethods->xFileSize(real_of(f), ret);
}

static int shim_lock(sqlite3_file *f, int how)
{
    return real_of(f)->pMethods->xLock(real_of(f), how);
}

static int shim_unlock(sqlite3_file *f, int how)
{
    return real_of(f)->pMethods->xUnlock(real_of(f), how);
}

static int shim_reserved(sqlite3_file *f, int *ret)
{
    return real_of(f)->pMethods->xCheckReservedLock(real_of(f), ret);
}

static int shim_control(sqlite3_file *f, int op, void *arg)
{
    return real_of(f)->pMethods->xFileControl(real_of(f), op, arg);
}

static int shim_sector(sqlite3_file *f)
{
    return real_of(f)->pMethods->xSectorSize(real_of(f));
}

static int shim_traits(sqlite3_file *f)
{
    return real_of(f)->pMethods->xDeviceCharacteristics(real_of(f));
}

/* Version 1: no shared memory, as a history needs none. */
static const sqlite3_io_methods shim_methods = {
    .iVersion = 1,
    .xClose = shim_close,
    .xRead = shim_read,
    .xWrite = shim_write,
    .xTruncate = shim_truncate,
    .xSync = shim_sync,
    .xFileSize = shim_size,
    .xLock = shim_lock,
    .xUnlock = shim_unlock,
    .xCheckReservedLock = shim_reserved,
    .xFileControl = shim_control,
    .xSectorSize = shim_sector,
    .xDeviceCharacteristics = shim_traits,
};

static int shim_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *out)
{
    (void)vfs;
    ShimFile *s = (ShimFile *)f;
    s->real = (sqlite3_file *)(s + 1);
    s->base.pMethods = NULL;
    s->main = flags & SQLITE_OPEN_MAIN_DB;
    if (fails()) return SQLITE_CANTOPEN;
    int rc = disk.real->xOpen(disk.real, name, s->real, flags, out);
    if (rc == SQLITE_OK) s->base.pMethods = &shim_methods;
    return rc;
}

static sqlite3_vfs shim;

static void shim_install(void)
{
    disk.real = sqlite3_vfs_find(NULL);
    shim = *disk.real;
    shim.zName = "failing";
    shim.szOsFile = (int)sizeof(ShimFile) + disk.real->szOsFile;
    shim.xOpen = shim_open;
    shim.pNext = NULL;
    assert_int_equal(sqlite3_vfs_register(&shim, 1), SQLITE_OK);
}

static bool weather(int err)
{
    if (err == ERR_CORRUPT || err == ERR_PERMISSION || err == ERR_READONLY || err == ERR_LOCKED)
        fprintf(stderr, "operation %d, code %d: %s\n", disk.fail_at, disk.rc, err_text(err));
    return err == ERR_IO || err == ERR_NOSPC || err == ERR_NOMEM || err == ERR_NOT_FOUND;
}

/* A life of puts, a deleted payload, reads, a sweep. Each call either works, or says that it did
 * not and works when tried again. Gives the last task committed. */
static void live(Rig *r, int *met)
{
    Buf body = {0};
    uint64_t last = 0;
    int err;
    for (int tries = 0; (err = rig_open_at(r, UINT64_MAX)); tries++) {
        assert_true(weather(err) && tries < 4);
        ++*met;
    }
    for (int batch = 0; batch < 12; batch++) {
        for (int tries = 0; (err = rig_put(r, last + 1, last + 300)); tries++) {
            assert_true(weather(err) && tries < 4);
            ++*met;
            assert_true(history_applied_seq(r->h) == (last ? last * 3 + 2 : 0));
        }
        last += 300;
        assert_true(history_applied_seq(r->h) == last * 3 + 2);
        for (int tries = 0; (err = rig_check(r, last - 299)); tries++) {
            assert_true(weather(err) && err != ERR_NOT_FOUND && tries < 4);
            ++*met;
        }
    }
    for (int tries = 0; (err = history_replace_body(r->h, 2000, STR("none"))); tries++) {
        assert_true(weather(err) && tries < 4);
        ++*met;
    }
    HistoryLimits l = {.max_rows = 3000};
    uint32_t removed;
    for (int tries = 0; rig_rows(r) > 3000 || tries == 0; tries++) {
        err = history_sweep(r->h, RIG_DAY, &l, 400, nothing_gone, NULL, &removed);
        assert_true((!err || weather(err)) && tries < 8);
        *met += err != 0;
    }
    history_close(r->h);
    r->h = NULL;
    buf_done(&body);
}

static void any_operation_may_fail(void **state)
{
    (void)state;
    static const int codes[] = {SQLITE_IOERR_WRITE, SQLITE_FULL, SQLITE_IOERR_NOMEM};
    shim_install();
    int met = 0, quiet = 0;
    for (int at = 0, step = 1;; at += step) {
        Rig r = {0};
        snprintf(r.dir, sizeof r.dir, "/tmp/headrace-history-XXXXXX");
        assert_non_null(mkdtemp(r.dir));
        snprintf(r.path, sizeof r.path, "%s/history.db", r.dir);
        disk.ops = 0;
        disk.fail_at = at;
        disk.fail_count = 1 + at % 2; /* two in a row: also what cleans up after the first */
        disk.rc = codes[at % 3];
        int was = met;
        live(&r, &met);
        int ops = disk.ops;
        quiet += at && met == was; /* failed where nobody had to be told: a checkpoint */
        disk.fail_at = 0;
        rig_open(&r);
        assert_true(rig_rows(&r) == 3000 && rig_listed(&r) == 3000);
        assert_true(history_applied_seq(r.h) == 3600 * 3 + 2);
        for (uint64_t no = 601; no <= 3600; no++)
            assert_int_equal(rig_check(&r, no), no == 2000 ? ERR_INVALID : 0);
        sqlite3_stmt *s;
        assert_int_equal(sqlite3_prepare_v2(r.h->db, "PRAGMA integrity_check", -1, &s, NULL), 0);
        assert_int_equal(sqlite3_step(s), SQLITE_ROW);
        assert_string_equal((const char *)sqlite3_column_text(s, 0), "ok");
        sqlite3_finalize(s);
        rig_end(&r);
        if (at > ops) break;
        step = at < 100 ? 1 : 31; /* every one of the start, then a sample */
    }
    sqlite3_vfs_unregister(&shim);
    assert_true(met > 50);
    printf("errors told %d times; met silently %d times\n", met, quiet);
}

/* The WAL takes commits while the file cannot be written, but not for ever. */
static void the_wal_is_bounded(void **state)
{
    (void)state;
    Rig r;
    HistoryStats s;
    uint64_t last = 0;
    shim_install();
    rig_start(&r);
    disk.main_fails = true;
    int err;
    while (!(err = rig_put(&r, last + 1, last + 5000))) {
        last += 5000;
        assert_true(last < 300000);
    }
    assert_int_equal(err, ERR_IO);
    assert_int_equal(history_stats(r.h, &s), 0);
    assert_in_range(s.wal_bytes, WAL_PAGES_MAX * PAGE_BYTES, WAL_PAGES_MAX * PAGE_BYTES + 8 * MIB);
    for (uint64_t no = 1; no <= last; no += 100) assert_int_equal(rig_check(&r, no), 0);
    assert_int_equal(rig_put(&r, last + 1, last + 10), ERR_IO);
    disk.main_fails = false;
    assert_int_equal(rig_put(&r, last + 1, last + 10), 0);
    assert_int_equal(history_stats(r.h, &s), 0);
    assert_true(s.wal_bytes < MIB && s.rows == last + 10);
    rig_reopen(&r);
    for (uint64_t no = 1; no <= last + 10; no += 100) assert_int_equal(rig_check(&r, no), 0);
    rig_end(&r);
    sqlite3_vfs_unregister(&shim);
}

/* ---- damage ---- */

#define DAMAGED_TASKS 1000

static void copy_file(const char *from, const char *to)
{
    Buf b = {0};
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(in >= 0 && out >= 0);
    struct stat st;
    assert_int_equal(fstat(in, &st), 0);
    uint8_t *p = buf_extend(&b, (size_t)st.st_size);
    assert_int_equal(read(in, p, b.len), b.len);
    assert_int_equal(write(out, p, b.len), b.len);
    close(in);
    close(out);
    buf_done(&b);
}

static bool right(void *ctx, const HistoryTask *t)
{
    Buf body = {0};
    HistoryTask want = rig_task(t->no, &body);
    assert_true(rig_same(t, &want));
    buf_done(&body);
    ++*(uint64_t *)ctx;
    return true;
}

/* Uses all of a damaged file. Nothing wrong is ever given. */
static void use_damaged(Rig *r)
{
    if (rig_open_at(r, 2702)) return; /* sequence of task 900: some are to be dropped */
    for (uint64_t no = 1; no <= DAMAGED_TASKS; no += 3) {
        int err = rig_check(r, no);
        assert_true(!err || err == ERR_CORRUPT || err == ERR_NOT_FOUND);
    }
    static const HistoryFilter filters[] = {
        {.limit = 10000, .scan_max = 10000},
        {.limit = 10000, .scan_max = 10000, .tenant = {"acme", 4}},
        {.limit = 10000, .scan_max = 10000, .states = 1u << TASK_FAILED},
    };
    for (size_t i = 0; i < ARRAY_LEN(filters); i++) {
        uint64_t n = 0, next;
        int err = history_list(r->h, &filters[i], right, &n, &next);
        assert_true(!err || err == ERR_CORRUPT);
    }
    HistoryStats s;
    int err = history_stats(r->h, &s);
    assert_true(!err || err == ERR_CORRUPT);
    err = rig_put(r, DAMAGED_TASKS - 100, DAMAGED_TASKS + 100);
    assert_true(!err || err == ERR_CORRUPT);
    err = history_replace_body(r->h, 17, STR("less"));
    assert_true(!err || err == ERR_CORRUPT || err == ERR_NOT_FOUND);
    HistoryLimits l = {.max_rows = 500, .max_bytes = 100000};
    for (int i = 0; i < 3; i++) {
        uint32_t removed;
        err = history_sweep(r->h, RIG_DAY, &l, 900, nothing_gone, NULL, &removed);
        assert_true(!err || err == ERR_CORRUPT);
    }
    history_close(r->h);
    r->h = NULL;
}

static void damage_is_an_error_not_a_crash(void **state)
{
    (void)state;
    Rig r, n = {0};
    Random x;
    char good[128];
    rig_start(&r);
    assert_int_equal(rig_put(&r, 1, DAMAGED_TASKS), 0);
    history_close(r.h);
    r.h = NULL;
    snprintf(good, sizeof good, "%s.new", r.path); /* rig_end removes it */
    copy_file(r.path, good);
    snprintf(n.path, sizeof n.path, "%s/salvaged", r.dir);
    struct stat st;
    assert_int_equal(stat(good, &st), 0);
    int pages = (int)(st.st_size / PAGE_BYTES), lost_pages = 0, lost_total = 0, refused = 0;
    random_seed(&x, 3);
    for (int page = 0; page < pages; page++) {
        uint8_t bytes[PAGE_BYTES];
        int how = (int)random_below(&x, 4);
        for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = how ? (uint8_t)random_u64(&x) : 0;
        size_t len = how == 3 ? 1 + random_below(&x, 8) : sizeof bytes;
        off_t at = (off_t)page * PAGE_BYTES;
        at += how == 3 ? (off_t)random_below(&x, PAGE_BYTES - len) : 0;
        copy_file(good, r.path);
        rig_damage(r.path, at, bytes, len);

        Buf why = {0};
        uint64_t copied = 0, seen = 0, next = 0;
        rig_open(&n);
        int err = history_salvage(r.path, n.h, &copied, &why);
        assert_true(!err || (err == ERR_CORRUPT && copied == 0 && why.len));
        if (err) refused++;
        HistoryFilter f = {.limit = UINT32_MAX, .scan_max = UINT32_MAX};
        assert_int_equal(history_list(n.h, &f, right, &seen, &next), 0);
        assert_true(seen == copied && rig_rows(&n) == copied);
        assert_true(history_applied_seq(n.h) == 0);
        if (!err && copied < DAMAGED_TASKS) lost_pages++;
        if (!err) lost_total += DAMAGED_TASKS - (int)copied;
        history_close(n.h);
        unlink(n.path);
        buf_done(&why);
        use_damaged(&r);
    }
    printf("%d pages: %d cost rows, %d rows in all; %d made it unreadable\n", pages, lost_pages,
           lost_total, refused);
    assert_true(refused <= 4); /* the head and the schema */
    assert_true(lost_total < DAMAGED_TASKS * 3 && lost_pages > pages / 3);
    rig_end(&r);
}

/* What a crash left: the rows in the WAL are salvaged with the others. Twice changes nothing. */
static void salvage_reads_the_wal(void **state)
{
    (void)state;
    Rig r, n = {0};
    char saved[128], wal[160], saved_wal[160];
    rig_start(&r);
    snprintf(saved, sizeof saved, "%s.new", r.path);
    snprintf(saved_wal, sizeof saved_wal, "%s.new-wal", r.path);
    snprintf(wal, sizeof wal, "%s-wal", r.path);
    snprintf(n.path, sizeof n.path, "%s/salvaged", r.dir);
    assert_int_equal(rig_put(&r, 1, 100), 0);
    assert_int_equal(history_begin(r.h), 0);
    HistoryFile f = {.no = 5, .id = STR("file_5"), .tenant = STR("acme"), .owner_task = 9};
    assert_int_equal(history_put_file(r.h, &f), 0);
    assert_int_equal(history_commit(r.h, 400), 0);
    copy_file(r.path, saved);
    copy_file(wal, saved_wal);
    rig_open(&n);
    assert_int_equal(rig_put(&n, 90, 95), 0);
    Buf why = {0};
    for (int i = 0; i < 2; i++) {
        uint64_t copied = 0;
        assert_int_equal(history_salvage(saved, n.h, &copied, &why), 0);
        assert_true(copied == (i ? 0 : 94)); /* what is there stays */
        assert_true(rig_rows(&n) == 100 && rig_listed(&n) == 100);
        assert_int_equal(history_file_exists(n.h, f.id), 0);
    }
    uint64_t copied;
    assert_int_equal(history_salvage(r.path, n.h, &copied, &why), ERR_LOCKED); /* in use */
    assert_int_equal(history_salvage("/no/such", n.h, &copied, &why), ERR_NOT_FOUND);
    history_close(n.h);
    unlink(n.path);
    snprintf(wal, sizeof wal, "%s-shm", saved);
    unlink(wal);
    buf_done(&why);
    rig_end(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_committed_survives_a_kill),
        cmocka_unit_test(a_full_disk_is_weather),
        cmocka_unit_test(any_operation_may_fail),
        cmocka_unit_test(the_wal_is_bounded),
        cmocka_unit_test(damage_is_an_error_not_a_crash),
        cmocka_unit_test(salvage_reads_the_wal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
