/* The pure parts of headrace bench: its histogram against sorting, and its reading of answers
 * whatever the pieces in which they come. */
#include "cli/bench.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

const Command *const commands[] = {NULL};

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static Hist *hist_new(void)
{
    return mem_new(sizeof(Hist));
}

/* What the histogram says is the sorted one's value, at most 0.4 % larger. */
static void test_hist_against_sorting(void **state)
{
    (void)state;
    enum { N = 20000 };
    static const double shares[] = {0, 0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 0.9999, 1};
    uint64_t *v = mem_new(N * sizeof *v);
    Random rng;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        Hist *h = hist_new();
        double sum = 0;
        random_seed(&rng, seed);
        for (size_t i = 0; i < N; i++) {
            v[i] = random_u64(&rng) >> (22 + random_below(&rng, 42)); /* every size below 2^42 */
            hist_add(h, v[i]);
            sum += (double)v[i];
        }
        qsort(v, N, sizeof *v, by_value);
        assert_int_equal(h->total, N);
        assert_int_equal(h->min, v[0]);
        assert_int_equal(h->max, v[N - 1]);
        assert_true(hist_mean(h) > sum / N * 0.999999 && hist_mean(h) < sum / N * 1.000001);
        for (size_t i = 0; i < ARRAY_LEN(shares); i++) {
            double rank = shares[i] * N;
            size_t at = rank <= 1 ? 0 : (size_t)rank - (rank == (double)(size_t)rank);
            uint64_t exact = v[MIN(at, (size_t)N - 1)], got = hist_at(h, shares[i]);
            assert_true(got >= exact);
            assert_true((double)got <= (double)exact * (1 + 1.0 / 256) + 0.5);
        }
        mem_free(h);
    }
    mem_free(v);
}

static void test_hist_edges(void **state)
{
    (void)state;
    Hist *h = hist_new();
    assert_int_equal(hist_at(h, 0.5), 0);
    for (uint64_t i = 0; i < 512; i++) hist_add(h, i); /* exact */
    for (uint64_t i = 0; i < 512; i++) assert_int_equal(hist_at(h, (double)(i + 1) / 512), i);
    hist_add(h, UINT64_MAX); /* beyond the range: in the last bucket, its value as max */
    assert_int_equal(h->total, 513);
    assert_int_equal(h->max, UINT64_MAX);
    assert_int_equal(h->min, 0);
    assert_true(hist_at(h, 1) >= (UINT64_C(1) << HIST_BITS) - 1);
    mem_free(h);
}

/* One client asks every 10; once it is held up for 1000, so 99 requests were never sent. */
static void test_hist_correction(void **state)
{
    (void)state;
    Hist *h = hist_new(), *fixed = hist_new();
    for (size_t i = 0; i < 900; i++) hist_add(h, 10);
    hist_add(h, 1000);
    assert_int_equal(hist_at(h, 0.99), 10);
    hist_correct(h, 10, fixed);
    assert_int_equal(fixed->total, 900 + 100); /* 1000, 990, … 10 */
    assert_int_equal(fixed->max, 1000);
    uint64_t p95 = hist_at(fixed, 0.95); /* half of the stall */
    assert_true(p95 >= 500 && p95 <= 510);
    hist_correct(h, 0, fixed); /* nothing to correct by */
    assert_int_equal(fixed->total, h->total);
    mem_free(h);
    mem_free(fixed);
}

static int head_of(const char *text, AnswerHead *h)
{
    return answer_head(str_from(text), h);
}

static void test_heads(void **state)
{
    (void)state;
    AnswerHead h;
    const char *good = "HTTP/1.1 202 Accepted\r\nDate: x\r\ncontent-LENGTH:  17 \r\n\r\nbody";
    assert_int_equal(head_of(good, &h), 0);
    assert_int_equal(h.status, 202);
    assert_int_equal(h.length, 17);
    assert_false(h.chunked || h.close);
    assert_int_equal(h.head_len, strlen(good) - 4);
    for (size_t n = 0; n < h.head_len; n++)
        assert_int_equal(answer_head((Str){good, n}, &h), ERR_AGAIN);
    assert_int_equal(head_of("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close"
                             "\r\n\r\n",
                             &h),
                     0);
    assert_true(h.chunked && h.close);
    assert_int_equal(head_of("HTTP/1.1 204 No Content\r\n\r\n", &h), 0);
    static const char *const bad[] = {
        "SSH-2.0-OpenSSH_9.2p1\r\n\r\n",
        "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\nContent-Length: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "\r\n\r\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) assert_int_equal(head_of(bad[i], &h), ERR_INVALID);
}

/* Cut in two at every byte, and fed byte by byte. */
static void test_chunks(void **state)
{
    (void)state;
    const char *text =
        "5\r\nhello\r\n1;ext=1\r\n \r\nB\r\nworld, or so\r\n0\r\nTrailer: x\r\n\r\nrest";
    const char *good = "5\r\nhello\r\nA\r\n, or so on\r\n0\r\nTrailer: x\r\n\r\nrest";
    size_t n = strlen(good);
    for (size_t cut = 0; cut <= n; cut++) {
        Dechunk d = {0};
        Buf in = {0}, out = {0};
        for (size_t part = 0; part < 2; part++) {
            buf_put(&in, good + (part ? cut : 0), part ? n - cut : cut);
            Str left = buf_str(&in);
            assert_int_equal(dechunk(&d, &left, &out), 0);
            buf_drop(&in, in.len - left.n);
        }
        assert_int_equal(d.at, CHUNK_OVER);
        assert_true(str_eqz(buf_str(&out), "hello, or so on"));
        assert_true(str_eqz(buf_str(&in), "rest"));
        buf_done(&in);
        buf_done(&out);
    }
    Dechunk d = {0};
    Buf in = {0}, out = {0};
    for (size_t i = 0; i < n && d.at != CHUNK_OVER; i++) {
        buf_putc(&in, good[i]);
        Str left = buf_str(&in);
        assert_int_equal(dechunk(&d, &left, &out), 0);
        buf_drop(&in, in.len - left.n);
    }
    assert_true(str_eqz(buf_str(&out), "hello, or so on"));
    buf_done(&in);
    buf_done(&out);
    static const char *const bad[] = {"x\r\n", "\r\n", "1\r\nab\r\n", "fffffffffffff\r\n"};
    for (size_t i = 0; i < ARRAY_LEN(bad) + 1; i++) {
        Str left = str_from(i < ARRAY_LEN(bad) ? bad[i] : text); /* text: B is 11, there are 12 */
        d = (Dechunk){0};
        assert_int_equal(dechunk(&d, &left, &out), ERR_INVALID);
        buf_done(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hist_against_sorting),
        cmocka_unit_test(test_hist_edges),
        cmocka_unit_test(test_hist_correction),
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_chunks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
