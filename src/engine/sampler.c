#include "engine/sampler.h"

/* No fused multiply-add: it would round once where other machines round twice. */
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC optimize("fp-contract=off")
#endif

const char *const solver_names[] = {[SOLVER_EULER] = "euler", [SOLVER_AB2] = "ab2", NULL};

/* ---- noise: uniform numbers through the normal distribution's inverse ---- */

/* ln x for a normal x > 0: x = m·2^e with m in [√½, √2), ln m = 2·artanh((m-1)/(m+1)). */
static double ln(double x)
{
    static const double ln2_high = 0x1.62e42fefa38p-1, ln2_low = 0x1.ef35793c7673p-45;
    uint64_t bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    int e = (int)(bits >> 52) - 1023;
    bits = (bits & ((UINT64_C(1) << 52) - 1)) | UINT64_C(1023) << 52;
    double m;
    __builtin_memcpy(&m, &bits, sizeof m);
    if (m > 0x1.6a09e667f3bcdp0) {
        m /= 2;
        e++;
    }
    double s = (m - 1) / (m + 1), square = s * s, sum = 0;
    for (int k = 23; k >= 1; k -= 2) sum = sum * square + 1.0 / k; /* |s| ≤ 0.172 */
    return e * ln2_high + (2 * s * sum + e * ln2_low);
}

static double polynomial(const double *c, int n, double x)
{
    double sum = 0;
    for (int i = n - 1; i >= 0; i--) sum = sum * x + c[i];
    return sum;
}

/* Algorithm AS 241 (PPND16): M. J. Wichura, Applied Statistics 37 (1988), 477-484. */
double normal_quantile(double p)
{
    static const double a[] = {3.3871328727963666080e0,  1.3314166789178437745e+2,
                               1.9715909503065514427e+3, 1.3731693765509461125e+4,
                               4.5921953931549871457e+4, 6.7265770927008700853e+4,
                               3.3430575583588128105e+4, 2.5090809287301226727e+3};
    static const double b[] = {1.0,
                               4.2313330701600911252e+1,
                               6.8718700749205790830e+2,
                               5.3941960214247511077e+3,
                               2.1213794301586595867e+4,
                               3.9307895800092710610e+4,
                               2.8729085735721942674e+4,
                               5.2264952788528545610e+3};
    static const double c[] = {1.42343711074968357734e0,  4.63033784615654529590e0,
                               5.76949722146069140550e0,  3.64784832476320460504e0,
                               1.27045825245236838258e0,  2.41780725177450611770e-1,
                               2.27238449892691845833e-2, 7.74545014278341407640e-4};
    static const double d[] = {1.0,
                               2.05319162663775882187e0,
                               1.67638483018380384940e0,
                               6.89767334985100004550e-1,
                               1.48103976427480074590e-1,
                               1.51986665636164571966e-2,
                               5.47593808499534494600e-4,
                               1.05075007164441684324e-9};
    static const double e[] = {6.65790464350110377720e0,  5.46378491116411436990e0,
                               1.78482653991729133580e0,  2.96560571828504891230e-1,
                               2.65321895265761230930e-2, 1.24266094738807843860e-3,
                               2.71155556874348757815e-5, 2.01033439929228813265e-7};
    static const double f[] = {1.0,
                               5.99832206555887937690e-1,
                               1.36929880922735805310e-1,
                               1.48753612908506148525e-2,
                               7.86869131145613259100e-4,
                               1.84631831751005468180e-5,
                               1.42151175831644588870e-7,
                               2.04426310338993978564e-15};
    double q = p - 0.5, r, z;
    if (q >= -0.425 && q <= 0.425) {
        r = 0.180625 - q * q;
        return q * polynomial(a, 8, r) / polynomial(b, 8, r);
    }
    r = __builtin_sqrt(-ln(q < 0 ? p : 1 - p));
    if (r <= 5)
        z = polynomial(c, 8, r - 1.6) / polynomial(d, 8, r - 1.6);
    else
        z = polynomial(e, 8, r - 5) / polynomial(f, 8, r - 5);
    return q < 0 ? -z : z;
}

void sampler_noise(uint64_t seed, float *ret, size_t n)
{
    Random r;
    random_seed(&r, seed);
    for (size_t i = 0; i < n; i++) /* the middle of one of 2^52 equal parts: never 0 nor 1 */
        ret[i] = (float)normal_quantile(((double)(random_u64(&r) >> 12) + 0.5) * 0x1p-52);
}

/* ---- steps ---- */

double sampler_time(uint32_t step, uint32_t steps)
{
    return 1 - (double)step / steps;
}

void sampler_guide(const float *prompt, const float *empty, float scale, float *v, size_t n)
{
    for (size_t i = 0; i < n; i++) v[i] = empty[i] + scale * (prompt[i] - empty[i]);
}

void sampler_advance(Solver solver, uint32_t step, uint32_t steps, const float *v, float *previous,
                     float *x, size_t n)
{
    float dt = 1 / (float)steps;
    for (size_t i = 0; i < n; i++) {
        float slope = solver == SOLVER_EULER || step == 0 ? v[i] : 1.5F * v[i] - 0.5F * previous[i];
        x[i] = x[i] - dt * slope;
        previous[i] = v[i];
    }
}

uint8_t sampler_pixel(float v)
{
    float scaled = (v + 1) * 127.5F + 0.5F;
    if (!(scaled > 0)) return 0; /* NaN too */
    return scaled >= 255 ? 255 : (uint8_t)scaled;
}
