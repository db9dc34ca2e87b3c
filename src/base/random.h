/* random.h: chance, injected. xoshiro256** (Blackman and Vigna, 2018), seeded by splitmix64: for
 * jitter, sampling and simulation, never for secrets (those come from io's random_secret). */
#ifndef BASE_RANDOM_H
#define BASE_RANDOM_H

#include "base/types.h"

typedef struct {
    uint64_t s[4];
} Random;

void random_seed(Random *r, uint64_t seed);
uint64_t random_u64(Random *r);
uint64_t random_below(Random *r, uint64_t bound); /* 0 … bound − 1, unbiased; bound > 0 */
double random_unit(Random *r);                    /* [0, 1) */

#endif
