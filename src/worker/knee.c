/* knee.c: batching helps some models and hurts others, so it is measured. */
#include "worker/knee.h"

static double rate(const int64_t unit_ns[KNEE_SIZES], size_t i)
{
    return unit_ns[i] > 0 ? (double)(1U << i) / (double)unit_ns[i] : 0;
}

uint32_t knee_choose(const int64_t unit_ns[KNEE_SIZES])
{
    double best = 0;
    for (size_t i = 0; i < KNEE_SIZES; i++) best = MAX(best, rate(unit_ns, i));
    for (size_t i = 0; i < KNEE_SIZES; i++) {
        if (best > 0 && rate(unit_ns, i) >= 0.9 * best) return 1U << i;
    }
    return 1;
}

Knee knee_measure(int (*measure)(void *ctx, uint32_t batch, int64_t *ret_ns), void *ctx,
                  int64_t budget_ns)
{
    Knee k = {0};
    double best = 0;
    int64_t spent = 0;
    for (size_t i = 0; i < KNEE_SIZES; i++) {
        /* The best of up to three: what disturbs a measurement only ever makes it longer. */
        for (int round = 0; round < 3; round++) {
            int64_t ns;
            if (measure(ctx, 1U << i, &ns) != 0) {
                k.max_batch = knee_choose(k.unit_ns);
                return k;
            }
            spent += ns;
            ns = MAX(ns, INT64_C(1));
            if (k.unit_ns[i] == 0 || ns < k.unit_ns[i]) k.unit_ns[i] = ns;
            if (spent > budget_ns / 4) break; /* slow units vary little */
        }
        best = MAX(best, rate(k.unit_ns, i));
        if (rate(k.unit_ns, i) < 0.7 * best) break;
        /* The next size takes at most twice as long. */
        if (spent + 2 * k.unit_ns[i] > budget_ns) break;
    }
    k.max_batch = knee_choose(k.unit_ns);
    return k;
}
