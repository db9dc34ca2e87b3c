/* The sampler's numbers: noise that is normal and the same everywhere, solvers of their order. */
#include "engine/sampler.h"

#include <math.h>

#include "unit/engine_support.h"

static void quantiles_are_right(void **state)
{
    (void)state;
    /* R's qnorm. */
    static const double cases[][2] = {
        {0.5, 0},
        {0.975, 1.959963984540054},
        {0.841344746068543, 1},
        {0.1, -1.2815515655446004},
        {0.01, -2.3263478740408408},
        {1e-6, -4.753424308822899},
        {1e-10, -6.361340902404056},
        {1e-16, -8.222082216130435},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_true(fabs(normal_quantile(cases[i][0]) - cases[i][1]) < 2e-14 * 8);
    /* Against the distribution itself. */
    for (double p = 0.0005; p < 1; p += 0.001) {
        double back = 0.5 * erfc(-normal_quantile(p) / sqrt(2));
        assert_true(fabs(back - p) < 1e-14);
    }
}

static void noise_is_normal_and_its_seed_s(void **state)
{
    (void)state;
    enum { N = 100000 };
    float *x = mem_new(N * sizeof *x), *y = mem_new(N * sizeof *y);
    sampler_noise(7, x, N);
    sampler_noise(7, y, 100);
    assert_memory_equal(x, y, 100 * sizeof *x); /* whatever the length */
    sampler_noise(8, y, N);
    double sum = 0, squares = 0, fourth = 0, cross = 0;
    for (int i = 0; i < N; i++) {
        double v = (double)x[i];
        sum += v;
        squares += v * v;
        fourth += v * v * v * v;
        cross += v * (double)y[i];
    }
    assert_true(fabs(sum / N) < 0.02);
    assert_true(fabs(squares / N - 1) < 0.02);
    assert_true(fabs(fourth / N - 3) < 0.15);
    assert_true(fabs(cross / N) < 0.02);
    mem_free(x);
    mem_free(y);

    /* The same bits on every machine, for ever: pictures are known by their seeds. */
    float z[4096];
    char hex[65];
    Sha256 digest;
    sampler_noise(42, z, 4096);
    sha256(z, sizeof z, &digest);
    sha256_hex(&digest, hex);
    assert_string_equal(hex, "50284c596274e8909dd9a9172e759879279a12c9213215d89429108dfdcd1938");
}

/* dx/dt = -x from t = 1 to 0 grows x by e. */
static double error_of(Solver solver, uint32_t steps)
{
    float x = 1, v, previous = NAN; /* not read before it is set */
    for (uint32_t s = 0; s < steps; s++) {
        v = -x;
        sampler_advance(solver, s, steps, &v, &previous, &x, 1);
    }
    return fabs((double)x - exp(1));
}

static void solvers_have_their_order(void **state)
{
    (void)state;
    double euler = error_of(SOLVER_EULER, 20) / error_of(SOLVER_EULER, 40);
    double ab2 = error_of(SOLVER_AB2, 20) / error_of(SOLVER_AB2, 40);
    assert_true(euler > 1.8 && euler < 2.2);
    assert_true(ab2 > 3.5 && ab2 < 4.5);
    assert_true(sampler_time(0, 8) == 1 && sampler_time(6, 8) == 0.25);

    float prompt[] = {1, 2}, empty[] = {0.5, 3}, v[2];
    sampler_guide(prompt, empty, 3, v, 2);
    assert_true(v[0] == 2 && v[1] == 0);
    sampler_guide(prompt, empty, 3, prompt, 2); /* in place */
    assert_memory_equal(v, prompt, sizeof v);

    assert_int_equal(sampler_pixel(-1), 0);
    assert_int_equal(sampler_pixel(1), 255);
    assert_int_equal(sampler_pixel(0), 128);
    assert_int_equal(sampler_pixel(-7), 0);
    assert_int_equal(sampler_pixel(7), 255);
    assert_int_equal(sampler_pixel(NAN), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantiles_are_right),
        cmocka_unit_test(noise_is_normal_and_its_seed_s),
        cmocka_unit_test(solvers_have_their_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
