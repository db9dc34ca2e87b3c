/* log_thread.c: the commit thread beside an appending and a folding thread, on the real disk. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "log_model.h"

typedef struct {
    _Atomic uint64_t durable;
    _Atomic int err, calls;
} Heard;

static void on_durable(void *ctx, uint64_t seq)
{
    Heard *h = ctx;
    MUST(seq >= atomic_load(&h->durable));
    atomic_store(&h->durable, seq);
    atomic_fetch_add(&h->calls, 1);
}

static void on_failed(void *ctx, int err)
{
    atomic_store(&((Heard *)ctx)->err, err);
}

static void sleep_ms(int ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
}

static void append_soon(Model *m, Log *log, LogThread *t, size_t bytes)
{
    int err;
    while ((err = model_append(m, log, bytes, false)) == ERR_AGAIN) sleep_ms(1);
    MUST(err == 0);
    log_thread_wake(t);
}

typedef struct {
    Model
        *m; /* its fold is only read; appended to by the main thread, so all room is made before */
    Log *log;
    _Atomic bool stop;
    int made;
} Folder;

typedef struct {
    Buf bytes;
    uint64_t hash, next_seq;
} State;

static int fold_piece(void *ctx, const LogPoint *covers, Str piece)
{
    State *s = ctx;
    (void)covers;
    buf_put_str(&s->bytes, piece);
    if (piece.n == 0) {
        s->next_seq = load_u64(s->bytes.data);
        s->hash = load_u64(s->bytes.data + 8);
    }
    return 0;
}

static int fold_frame(void *ctx, const Frame *f, Str bytes)
{
    State *s = ctx;
    MUST(f->seq == s->next_seq);
    s->next_seq += f->records;
    s->hash = chain64(s->hash, bytes.p, bytes.n);
    return 0;
}

static void *fold_all_the_time(void *arg)
{
    Folder *f = arg;
    while (!atomic_load(&f->stop)) {
        sleep_ms(1);
        if (!log_snapshot_due(f->log, 64 * KIB)) continue;
        State s = {.next_seq = 1};
        Buf why = {0};
        LogPoint at;
        LogReplay r = {.ctx = &s, .snapshot = fold_piece, .frame = fold_frame};
        MUST(log_replay_sealed(f->log, &r, &at, &why) == 0);
        MUST(at.next_seq == s.next_seq);
        LogSnapshot *snapshot;
        MUST(log_snapshot_begin(f->log, &at, &snapshot) == 0);
        uint8_t state[16];
        store_u64(state, s.next_seq);
        store_u64(state + 8, s.hash);
        MUST(log_snapshot_put(snapshot, (Str){(const char *)state, sizeof state}) == 0);
        MUST(log_snapshot_commit(snapshot) == 0);
        f->made++;
        buf_done(&s.bytes);
        buf_done(&why);
    }
    return NULL;
}

static void commits_and_folds_beside_appends(void **state)
{
    (void)state;
    char dir[] = "/tmp/headrace-log-XXXXXX";
    assert_non_null(mkdtemp(dir));
    Disk *d;
    assert_int_equal(disk_posix_open(dir, &d), 0);
    Model m;
    model_init(&m, 1, 32 * KIB);
    Log *log;
    assert_int_equal(model_open(&m, d, &log, NULL), 0);
    Heard heard = {0};
    LogThread *t;
    assert_int_equal(log_thread_start(log, on_durable, on_failed, &heard, &t), 0);
    Folder folder = {.m = &m, .log = log};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, fold_all_the_time, &folder), 0);
    assert_int_equal(model_claim(&m, log), 0);
    for (int i = 0; i < 6000; i++) append_soon(&m, log, t, 200);
    for (int i = 0; i < 5000 && atomic_load(&heard.durable) != m.at.next_seq - 1; i++) sleep_ms(1);
    assert_int_equal(atomic_load(&heard.durable), m.at.next_seq - 1);
    atomic_store(&folder.stop, true);
    pthread_join(thread, NULL);
    assert_true(folder.made > 2);
    LogStats stats;
    log_stats(log, &stats);
    assert_true(stats.commits > 10 && stats.commits < 6100); /* groups */

    /* Idle: one proof, and then silence. */
    sleep_ms(200);
    log_stats(log, &stats);
    uint64_t commits = stats.commits;
    sleep_ms(200);
    log_stats(log, &stats);
    assert_int_equal(stats.commits, commits);

    append_soon(&m, log, t, 200);
    log_thread_stop(t); /* commits what is pending, and proves it */
    assert_int_equal(log_durable_seq(log), m.at.next_seq - 1);
    log_stats(log, &stats);
    assert_int_equal(stats.commits, commits + 2);
    m.acked = m.at.next_seq - 1;
    log_close(log);
    assert_int_equal(model_open(&m, d, &log, NULL), 0);
    assert_int_equal(m.torn_bytes, 0);
    log_close(log);
    assert_int_equal(log_scan(d, &(LogScan){0}), 0);
    disk_free(d);
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
    model_done(&m);
}

static void says_once_that_it_failed(void **state)
{
    (void)state;
    Model m;
    model_init(&m, 2, 32 * KIB);
    MemDisk *d = mem_disk_new(4);
    Log *log;
    assert_int_equal(model_open(&m, &d->base, &log, NULL), 0);
    Heard heard = {0};
    LogThread *t;
    assert_int_equal(log_thread_start(log, on_durable, on_failed, &heard, &t), 0);
    d->fail_err = ERR_IO;
    d->fail_at = d->ops + 2; /* the sync of the next commit */
    assert_int_equal(model_claim(&m, log), 0);
    log_thread_wake(t);
    for (int i = 0; i < 2000 && !atomic_load(&heard.err); i++) sleep_ms(1);
    assert_int_equal(atomic_load(&heard.err), ERR_IO);
    assert_int_equal(atomic_load(&heard.calls), 0);
    assert_int_equal(model_append(&m, log, 10, true), ERR_CLOSED);
    log_thread_wake(t);
    log_thread_stop(t);
    log_thread_stop(NULL);
    log_close(log);
    log_close(NULL);
    disk_free(&d->base);
    model_done(&m);
}

int main(void)
{
    say_setup(SAY_ERROR, SAY_TEXT, "test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commits_and_folds_beside_appends),
        cmocka_unit_test(says_once_that_it_failed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
