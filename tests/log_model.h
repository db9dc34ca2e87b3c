/* log_model.h: what a log must hold, kept beside it: for the tests of src/log.
 *
 * The model remembers the fold of every frame appended. Whatever happens to the disk, what a replay
 * gives must be the fold at some point between what was acknowledged and what was appended. */
#ifndef TESTS_LOG_MODEL_H
#define TESTS_LOG_MODEL_H

#include <stdio.h>
#include <stdlib.h>

#include "log/log.h"
#include "sim/mem_disk.h"

extern char model_context[128]; /* "seed 3, crash at 17": said when something fails */

#define MUST(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s: not so: %s (%s:%d)\n", model_context, #cond, __FILE__, __LINE__); \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

typedef struct {
    LogPoint at;    /* behind the last frame appended */
    uint64_t *fold; /* fold[next_seq] = hash over all frames below */
    size_t fold_cap;
    uint64_t acked;  /* highest sequence that was said to be durable */
    uint64_t frames; /* delivered by the last replay */
    uint64_t torn_bytes;
    Random random;
    FrameBuilder b;
    Buf frame; /* the last frame made */
    LogOptions options;
} Model;

void model_init(Model *m, uint64_t seed, uint64_t segment_bytes);
void model_done(Model *m);

/* Opens and replays, and checks what came. An error is handed on with the text in why (may be
 * NULL); then *ret is NULL. */
int model_open(Model *m, Disk *d, Log **ret, Buf *why) HR_MUST_CHECK;

/* Makes the next frame (1 to 3 records, `bytes` in all of payload) and appends it. */
int model_append(Model *m, Log *log, size_t bytes, bool reserved) HR_MUST_CHECK;
int model_claim(Model *m, Log *log) HR_MUST_CHECK; /* a CLAIM of the next epoch */
int model_commit(Model *m, Log *log) HR_MUST_CHECK;

/* Folds the sealed segments and writes a snapshot with `filler` bytes more. */
int model_snapshot(Model *m, Log *log, size_t filler) HR_MUST_CHECK;

#endif
