/* sampler.h: the numbers of rectified-flow sampling: pure, and the same bits on every machine.
 *
 * x(1) is unit Gaussian noise, dx/dt = v(x, t), and t goes from 1 to 0 in equal steps. Every value
 * is made by additions, multiplications, divisions and square roots alone, which IEEE 754 rounds in
 * one way only; no libm, no fused operations. */
#ifndef ENGINE_SAMPLER_H
#define ENGINE_SAMPLER_H

#include "base/base.h"

typedef enum {
    SOLVER_EULER,
    SOLVER_AB2, /* Adams-Bashforth, second order; its first step is Euler's */
} Solver;

extern const char *const solver_names[]; /* by Solver; ends with NULL */

/* n values of a unit normal; the same for a seed, whatever n. */
void sampler_noise(uint64_t seed, float *ret, size_t n);

/* t before step `step` of `steps`: 1 - step / steps. */
double sampler_time(uint32_t step, uint32_t steps);

/* Classifier-free guidance: v = empty + scale · (prompt - empty). v may be either of them. */
void sampler_guide(const float *prompt, const float *empty, float scale, float *v, size_t n);

/* Step `step` of `steps`, from 0: moves x along v; previous is v of the step before (ignored at
 * step 0) and becomes this one. */
void sampler_advance(Solver solver, uint32_t step, uint32_t steps, const float *v, float *previous,
                     float *x, size_t n);

/* -1 … 1 to 0 … 255, nearest. */
uint8_t sampler_pixel(float v);

/* The value below which a unit normal falls with probability p, 0 < p < 1: to 1e-15. */
double normal_quantile(double p);

#endif
