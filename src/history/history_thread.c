/* history_thread.c: one thread, two queues in, one out.
 *
 * The thread is niced, by Linux's rule that a thread has a nice value of its own: with cores to
 * spare it runs as fast as ever, and with none the loop's thread, which everything waits for, goes
 * first (some 3 : 1). I/O schedulers that know priorities derive theirs from it. */
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include "history/history_thread.h"

#define NICE            5
#define URGENT_IN_A_ROW 16 /* reads of a few ms: a write waits well below a second for them */

struct HistoryThread {
    History *h;
    void (*wake)(void *ctx);
    void *ctx;
    pthread_t thread;
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t cond;
    List urgent, queued, ran; /* of HistoryJob */
    size_t open;              /* jobs added whose done was not called yet */
    bool stop;
};

/* The next job to run; NULL: stop. */
static HistoryJob *take(HistoryThread *t, uint32_t *in_a_row)
{
    pthread_mutex_lock(&t->mutex);
    while (list_empty(&t->urgent) && list_empty(&t->queued) && !t->stop)
        pthread_cond_wait(&t->cond, &t->mutex);
    bool turn = *in_a_row >= URGENT_IN_A_ROW && !list_empty(&t->queued);
    List *from = list_empty(&t->urgent) || turn ? &t->queued : &t->urgent;
    *in_a_row = from == &t->urgent ? *in_a_row + 1 : 0;
    HistoryJob *job = NULL;
    if (!list_empty(from)) {
        job = LIST_FIRST(from, HistoryJob, link);
        list_del(&job->link);
    }
    pthread_mutex_unlock(&t->mutex);
    return job;
}

static void *run(void *arg)
{
    HistoryThread *t = arg;
    (void)pthread_setname_np(pthread_self(), "hr-history");
    uint32_t in_a_row = 0;
    /* Refused only where nice values are; then it runs like the others. */
    (void)!setpriority(PRIO_PROCESS, (id_t)gettid(), NICE);
    for (HistoryJob *job; (job = take(t, &in_a_row));) {
        job->run(job, t->h);
        pthread_mutex_lock(&t->mutex);
        bool told = !list_empty(&t->ran);
        list_push_back(&t->ran, &job->link);
        pthread_mutex_unlock(&t->mutex);
        if (!told) t->wake(t->ctx);
    }
    return NULL;
}

int history_thread_start(History *h, void (*wake)(void *ctx), void *ctx, HistoryThread **ret)
{
    HistoryThread *t = mem_new(sizeof *t);
    t->h = h;
    t->wake = wake;
    t->ctx = ctx;
    list_init(&t->urgent);
    list_init(&t->queued);
    list_init(&t->ran);
    CHECK(pthread_mutex_init(&t->mutex, NULL) == 0);
    CHECK(pthread_cond_init(&t->cond, NULL) == 0);
    if (pthread_create(&t->thread, NULL, run, t) != 0) {
        pthread_cond_destroy(&t->cond);
        pthread_mutex_destroy(&t->mutex);
        mem_free(t);
        return ERR_NOMEM;
    }
    *ret = t;
    return 0;
}

void history_thread_add(HistoryThread *t, HistoryJob *job)
{
    pthread_mutex_lock(&t->mutex);
    list_push_back(job->urgent ? &t->urgent : &t->queued, &job->link);
    t->open++;
    pthread_cond_signal(&t->cond);
    pthread_mutex_unlock(&t->mutex);
}

void history_thread_poll(HistoryThread *t)
{
    List ran;
    list_init(&ran);
    pthread_mutex_lock(&t->mutex);
    while (!list_empty(&t->ran)) {
        List *first = t->ran.next;
        list_del(first);
        list_push_back(&ran, first);
        t->open--;
    }
    pthread_mutex_unlock(&t->mutex);
    while (!list_empty(&ran)) {
        HistoryJob *job = LIST_FIRST(&ran, HistoryJob, link);
        list_del(&job->link);
        job->done(job);
    }
}

size_t history_thread_queued(HistoryThread *t)
{
    pthread_mutex_lock(&t->mutex);
    size_t n = t->open;
    pthread_mutex_unlock(&t->mutex);
    return n;
}

void history_thread_stop(HistoryThread *t)
{
    if (!t) return;
    pthread_mutex_lock(&t->mutex);
    t->stop = true;
    pthread_cond_signal(&t->cond);
    pthread_mutex_unlock(&t->mutex);
    pthread_join(t->thread, NULL);
    /* The thread is gone; what done still adds runs here. */
    history_thread_poll(t);
    while (!list_empty(&t->urgent) || !list_empty(&t->queued)) {
        List *from = list_empty(&t->urgent) ? &t->queued : &t->urgent;
        HistoryJob *job = LIST_FIRST(from, HistoryJob, link);
        list_del(&job->link);
        job->run(job, t->h);
        list_push_back(&t->ran, &job->link);
        history_thread_poll(t);
    }
    pthread_cond_destroy(&t->cond);
    pthread_mutex_destroy(&t->mutex);
    mem_free(t);
}
