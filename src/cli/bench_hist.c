/* A log-linear histogram of latencies. */
#include "cli/bench.h"

#include <math.h>

/* Octave 0 holds the values below 2 HIST_STEPS as they are, in two runs of HIST_STEPS; each further
 * octave has one run. */
static size_t bucket_of(uint64_t v)
{
    if (v >> HIST_BITS) v = (UINT64_C(1) << HIST_BITS) - 1;
    if (v < HIST_STEPS) return (size_t)v;
    unsigned octave = 63 - (unsigned)__builtin_clzll(v) - HIST_STEP_BITS;
    return ((size_t)octave << HIST_STEP_BITS) + (size_t)(v >> octave);
}

/* The largest value of a bucket. */
static uint64_t bucket_top(size_t i)
{
    if (i < 2 * HIST_STEPS) return i;
    unsigned octave = (unsigned)(i >> HIST_STEP_BITS) - 1;
    uint64_t step = (i & (HIST_STEPS - 1)) + HIST_STEPS;
    return ((step + 1) << octave) - 1;
}

static void add_many(Hist *h, uint64_t v, uint64_t n)
{
    h->counts[bucket_of(v)] += n;
    h->min = h->total ? MIN(h->min, v) : v;
    h->max = h->total ? MAX(h->max, v) : v;
    h->total += n;
    h->sum += (double)v * (double)n;
}

void hist_add(Hist *h, uint64_t v)
{
    add_many(h, v, 1);
}

uint64_t hist_at(const Hist *h, double q)
{
    uint64_t rank = (uint64_t)MAX(ceil(q * (double)h->total), 1.0), seen = 0;
    if (!h->total) return 0;
    rank = MIN(rank, h->total);
    for (size_t i = 0; i < HIST_LEN; i++) {
        seen += h->counts[i];
        if (seen >= rank) return MAX(MIN(bucket_top(i), h->max), h->min);
    }
    return h->max;
}

double hist_mean(const Hist *h)
{
    return h->total ? h->sum / (double)h->total : 0;
}

void hist_correct(const Hist *h, uint64_t interval, Hist *ret)
{
    *ret = *h;
    if (!interval) return;
    for (size_t i = 0; i < HIST_LEN; i++) {
        uint64_t v = MIN(bucket_top(i), h->max);
        if (!h->counts[i]) continue;
        for (; v >= 2 * interval; v -= interval) add_many(ret, v - interval, h->counts[i]);
    }
}
