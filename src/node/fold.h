/* fold.h: the background thread that folds the previous snapshot and the sealed segments into a new
 * snapshot. The live core is neither paused nor touched: the thread has a core of its own. */
#ifndef NODE_FOLD_H
#define NODE_FOLD_H

#include "log/log.h"
#include "task/task.h"

typedef struct Fold Fold;

/* Starts a fold. log and its disk, on which spilled payloads go, must stay open until fold_end. */
int fold_start(Log *log, Disk *disk, const CoreLimits *limits, Fold **ret) HR_MUST_CHECK;
bool fold_finished(const Fold *f); /* any thread */
void fold_stop(Fold *f); /* it is wanted no more: fold_end will not wait long. Accepts NULL */
/* Waits for the thread. 0, or why no snapshot came of it (said already); frees f. */
int fold_end(Fold *f);

/* The fold itself, on the calling thread. */
int fold_run(Log *log, Disk *disk, const CoreLimits *limits, Buf *why) HR_MUST_CHECK;

#endif
