/* history_thread.h: a thread that owns a History, and the jobs that other code gives it. The disk
 * may be slow; the loop never waits for it. */
#ifndef HISTORY_HISTORY_THREAD_H
#define HISTORY_HISTORY_THREAD_H

#include "history/history.h"

typedef struct HistoryThread HistoryThread;

/* Part of the caller's own struct; the caller owns it, and leaves it alone from history_thread_add
 * until its done is called (which may free it). */
typedef struct HistoryJob {
    List link;                                       /* the thread's; need not be set */
    void (*run)(struct HistoryJob *job, History *h); /* on history's thread */
    void (*done)(struct HistoryJob *job);            /* on the loop's thread */
    bool urgent; /* somebody waits for it (a read): before what is queued and not urgent */
} HistoryJob;

/* From here to history_thread_stop h belongs to the thread. wake(ctx) is called on history's thread
 * when there is something to poll: it only wakes the loop. ERR_NOMEM. */
int history_thread_start(History *h, void (*wake)(void *ctx), void *ctx,
                         HistoryThread **ret) HR_MUST_CHECK;

/* What follows is called on the loop's thread. Jobs run one at a time: the urgent ones in the order
 * in which they were added, and so the others; after 16 urgent ones in a row one other has its
 * turn, so that a flood of reads cannot stop the writes. */
void history_thread_add(HistoryThread *t, HistoryJob *job);
/* Calls done of every job that has run, in the order in which they ran. done may add jobs. */
void history_thread_poll(HistoryThread *t);
size_t history_thread_queued(HistoryThread *t); /* jobs added whose done was not called yet */
/* Runs what is queued, polls until nothing is left (also what done adds), ends the thread. h is the
 * caller's again. Accepts NULL. */
void history_thread_stop(HistoryThread *t);

#endif
