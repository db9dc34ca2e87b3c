#include "node/fold.h"

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>

struct Fold {
    pthread_t thread;
    Log *log;
    Disk *disk;
    CoreLimits limits;
    atomic_bool finished, stop;
    int err;
};

typedef struct {
    Core *core;
    LogSnapshot *snapshot;
    const atomic_bool *stop; /* or NULL */
} Folding;

static bool stopped(const Folding *f)
{
    return f->stop && atomic_load(f->stop);
}

static int on_snapshot(void *ctx, const LogPoint *covers, Str piece)
{
    const Folding *f = ctx;
    return stopped(f) ? ERR_CANCELED : core_restore(f->core, covers, piece);
}

static int on_frame(void *ctx, const Frame *frame, Str bytes)
{
    const Folding *f = ctx;
    (void)bytes;
    return stopped(f) ? ERR_CANCELED : core_apply(f->core, frame);
}

static int put_piece(void *ctx, Str piece)
{
    const Folding *f = ctx;
    return stopped(f) ? ERR_CANCELED : log_snapshot_put(f->snapshot, piece);
}

static int fold(Log *log, Disk *disk, const CoreLimits *limits, const atomic_bool *stop, Buf *why)
{
    Core *core = core_new(limits, 1);
    Folding f = {.core = core, .stop = stop};
    LogReplay replay = {&f, on_snapshot, on_frame};
    LogPoint at;
    int err = core_spill(core, disk, "spill-fold");
    if (!err) err = log_replay_sealed(log, &replay, &at, why);
    if (!err) err = log_snapshot_begin(log, &at, &f.snapshot);
    if (!err) {
        err = core_snapshot(core, put_piece, &f);
        if (!err)
            err = log_snapshot_commit(f.snapshot);
        else
            log_snapshot_abandon(f.snapshot);
    }
    core_free(core);
    return err;
}

int fold_run(Log *log, Disk *disk, const CoreLimits *limits, Buf *why)
{
    return fold(log, disk, limits, NULL, why);
}

static void *run(void *arg)
{
    Fold *f = arg;
    (void)pthread_setname_np(pthread_self(), "hr-fold");
    Buf why = {0};
    f->err = fold(f->log, f->disk, &f->limits, &f->stop, &why);
    malloc_trim(0); /* what a long backlog took goes back to the system */
    if (f->err && f->err != ERR_CANCELED)
        say_warn("no snapshot: %s%s%.*s; the log keeps its segments", err_text(f->err),
                 why.len ? ": " : "", STR_ARG(buf_str(&why)));
    buf_done(&why);
    atomic_store(&f->finished, true);
    return NULL;
}

int fold_start(Log *log, Disk *disk, const CoreLimits *limits, Fold **ret)
{
    Fold *f = mem_new(sizeof *f);
    f->log = log;
    f->disk = disk;
    f->limits = *limits;
    if (pthread_create(&f->thread, NULL, run, f)) {
        mem_free(f);
        return ERR_NOMEM;
    }
    *ret = f;
    return 0;
}

bool fold_finished(const Fold *f)
{
    return atomic_load(&f->finished);
}

void fold_stop(Fold *f)
{
    if (f) atomic_store(&f->stop, true);
}

int fold_end(Fold *f)
{
    if (!f) return 0;
    pthread_join(f->thread, NULL);
    int err = f->err;
    mem_free(f);
    return err;
}
