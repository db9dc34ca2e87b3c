/* knee.h: which batch size a model should run at. Pure: measuring is a callback. */
#ifndef WORKER_KNEE_H
#define WORKER_KNEE_H

#include "base/base.h"

#define KNEE_SIZES 5 /* batches of 1, 2, 4, 8, 16 */

typedef struct {
    uint32_t max_batch;          /* ≥ 1 */
    int64_t unit_ns[KNEE_SIZES]; /* of batch 1 << i; 0: not measured */
} Knee;

/* The smallest batch whose throughput (batch / time) is at least 90 % of the best. 1 when nothing
 * was measured. */
uint32_t knee_choose(const int64_t unit_ns[KNEE_SIZES]);

/* Measures upwards until the sizes, or budget_ns of measuring time, run out, or throughput has
 * clearly fallen. A batch that fails (memory) ends it. measure: 0 and the time of one step of so
 * many. */
Knee knee_measure(int (*measure)(void *ctx, uint32_t batch, int64_t *ret_ns), void *ctx,
                  int64_t budget_ns);

#endif
