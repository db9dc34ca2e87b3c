/* log_thread.c: the commit thread. Group commit needs no timer: while one group is being synced the
 * next one fills, and is taken the moment the disk is free again. */
#include <errno.h>
#include <time.h>

#include "log/inside.h"

struct LogThread {
    Log *log;
    void (*on_durable)(void *ctx, uint64_t seq);
    void (*on_failed)(void *ctx, int err);
    void *ctx;
    pthread_t thread;
    _Atomic bool woken; /* set: the thread will look once more */
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    bool stop;
};

static struct timespec in_ns(int64_t ns)
{
    struct timespec t;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &t) == 0);
    int64_t sum = t.tv_nsec + ns;
    t.tv_sec += (time_t)(sum / NS_PER_S);
    t.tv_nsec = (long)(sum % NS_PER_S);
    return t;
}

typedef enum { WOKEN, IDLE, STOP } Reason;

/* Until something may be there to do; with prove, for 50 ms at most (IDLE). */
static Reason wait_for_work(LogThread *t, bool prove)
{
    struct timespec until = in_ns(IDLE_PROOF_NS);
    Reason reason = WOKEN;
    pthread_mutex_lock(&t->mutex);
    while (!atomic_load(&t->woken) && !t->stop && reason == WOKEN) {
        if (!prove)
            pthread_cond_wait(&t->cond, &t->mutex);
        else if (pthread_cond_timedwait(&t->cond, &t->mutex, &until) == ETIMEDOUT)
            reason = IDLE;
    }
    if (atomic_exchange(&t->woken, false)) reason = WOKEN;
    if (t->stop) reason = STOP;
    pthread_mutex_unlock(&t->mutex);
    return reason;
}

static int commit(LogThread *t)
{
    uint64_t seq;
    int err = log_commit_group(t->log, &seq);
    if (!err) t->on_durable(t->ctx, seq); /* first tell, then allocate: an answer waits for this */
    if (!err) err = log_make_room(t->log);
    return err;
}

static void *run(void *arg)
{
    LogThread *t = arg;
    (void)pthread_setname_np(pthread_self(), "hr-log");
    int err = 0;
    bool tried = false; /* one proof an idle time: on a full disk there may be no room for it */
    for (Reason reason = WOKEN; !err && reason != STOP;) {
        reason = wait_for_work(t, !tried && log_unproven(t->log));
        while (!err && log_has_pending(t->log)) {
            err = commit(t);
            tried = false;
        }
        if (!err && reason != WOKEN && log_unproven(t->log)) {
            err = commit(t);
            tried = true;
        }
    }
    if (err) t->on_failed(t->ctx, err);
    return NULL;
}

int log_thread_start(Log *log, void (*on_durable)(void *ctx, uint64_t seq),
                     void (*on_failed)(void *ctx, int err), void *ctx, LogThread **ret)
{
    LogThread *t = mem_new(sizeof *t);
    t->log = log;
    t->on_durable = on_durable;
    t->on_failed = on_failed;
    t->ctx = ctx;
    pthread_condattr_t monotonic;
    CHECK(pthread_mutex_init(&t->mutex, NULL) == 0);
    CHECK(pthread_condattr_init(&monotonic) == 0);
    CHECK(pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) == 0);
    CHECK(pthread_cond_init(&t->cond, &monotonic) == 0);
    pthread_condattr_destroy(&monotonic);
    if (pthread_create(&t->thread, NULL, run, t) != 0) {
        pthread_cond_destroy(&t->cond);
        pthread_mutex_destroy(&t->mutex);
        mem_free(t);
        return ERR_NOMEM;
    }
    pthread_mutex_lock(&log->mutex);
    log->thread = t;
    pthread_mutex_unlock(&log->mutex);
    *ret = t;
    return 0;
}

void log_thread_wake(LogThread *t)
{
    if (atomic_exchange(&t->woken, true)) return; /* told already, and not yet looking */
    pthread_mutex_lock(&t->mutex);
    pthread_cond_signal(&t->cond);
    pthread_mutex_unlock(&t->mutex);
}

void log_thread_stop(LogThread *t)
{
    if (!t) return;
    pthread_mutex_lock(&t->log->mutex);
    t->log->thread = NULL;
    pthread_mutex_unlock(&t->log->mutex);
    pthread_mutex_lock(&t->mutex);
    t->stop = true;
    pthread_cond_signal(&t->cond);
    pthread_mutex_unlock(&t->mutex);
    pthread_join(t->thread, NULL);
    pthread_cond_destroy(&t->cond);
    pthread_mutex_destroy(&t->mutex);
    mem_free(t);
}
