#include "node/fold.h"

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>

struct Fold {
    pthread_t thread;
    Log *log;
    Disk *disk;
    CoreLimits limits;
    atomic_bool finished;
    int err;
};

static int on_snapshot(void *ctx, const LogPoint *covers, Str piece)
{
    return core_restore(ctx, covers, piece);
}

static int on_frame(void *ctx, const Frame *f, Str bytes)
{
    (void)bytes;
    return core_apply(ctx, f);
}

static int put_piece(void *ctx, Str piece)
{
    return log_snapshot_put(ctx, piece);
}

int fold_run(Log *log, Disk *disk, const CoreLimits *limits, Buf *why)
{
    Core *core = core_new(limits, 1);
    LogReplay replay = {core, on_snapshot, on_frame};
    LogSnapshot *snapshot = NULL;
    LogPoint at;
    int err = core_spill(core, disk, "spill-fold");
    if (!err) err = log_replay_sealed(log, &replay, &at, why);
    if (!err) err = log_snapshot_begin(log, &at, &snapshot);
    if (!err) {
        err = core_snapshot(core, put_piece, snapshot);
        if (!err)
            err = log_snapshot_commit(snapshot);
        else
            log_snapshot_abandon(snapshot);
    }
    core_free(core);
    malloc_trim(0); /* what a long backlog took goes back to the system */
    return err;
}

static void *run(void *arg)
{
    Fold *f = arg;
    (void)pthread_setname_np(pthread_self(), "hr-fold");
    Buf why = {0};
    f->err = fold_run(f->log, f->disk, &f->limits, &why);
    if (f->err)
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

int fold_end(Fold *f)
{
    if (!f) return 0;
    pthread_join(f->thread, NULL);
    int err = f->err;
    mem_free(f);
    return err;
}
