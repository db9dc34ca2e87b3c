/* Archives come back as they were put, in pieces of any size; anything else is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "wire/tar.h"

typedef struct {
    TarEntry entries[8];
    Buf bodies[8];
    size_t n, whole;
    int stop; /* the error that the handler gives at the second entry */
} Got;

static int on_entry(void *ctx, const TarEntry *e)
{
    Got *g = ctx;
    assert_true(g->n < 8);
    g->entries[g->n++] = *e;
    return g->n == 2 ? g->stop : 0;
}

static int on_data(void *ctx, Str piece)
{
    Got *g = ctx;
    assert_true(piece.n > 0);
    buf_put_str(&g->bodies[g->n - 1], piece);
    return 0;
}

static int on_whole(void *ctx)
{
    Got *g = ctx;
    assert_int_equal(++g->whole, g->n);
    return 0;
}

static void got_done(Got *g)
{
    for (size_t i = 0; i < 8; i++) buf_done(&g->bodies[i]);
}

static int read_all(Str s, size_t piece, Got *g, bool *ret_ended)
{
    TarReader r = {0};
    TarHandler h = {g, on_entry, on_data, on_whole};
    const char *what = NULL;
    int err = 0;
    while (s.n && !err) {
        size_t n = MIN(piece, s.n);
        err = tar_feed(&r, (Str){s.p, n}, &h, &what);
        s.p += n;
        s.n -= n;
    }
    assert_true(err != ERR_INVALID || what);
    *ret_ended = tar_ended(&r);
    tar_done(&r);
    return err;
}

static void put_file(Buf *b, const char *name, size_t size, int64_t mtime)
{
    TarEntry e = {.size = size, .mtime_s = mtime};
    snprintf(e.name, sizeof e.name, "%s", name);
    tar_put_entry(b, &e);
    memset(buf_extend(b, size), 'a' + (int)(size % 20), size);
    memset(buf_extend(b, tar_padding(size)), 0, tar_padding(size));
}

static const size_t sizes[] = {0, 1, 511, 512, 513, 5000};

static Buf make(void)
{
    Buf b = {0};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        char name[32];
        snprintf(name, sizeof name, "log/%zu", i);
        put_file(&b, name, sizes[i], (int64_t)i * 1000000000);
    }
    tar_put_end(&b);
    return b;
}

static void test_round_trip(void **state)
{
    (void)state;
    Buf b = make();
    for (size_t piece = 1; piece < 3000; piece = piece * 2 + 1) {
        Got g = {0};
        bool ended;
        assert_int_equal(read_all(buf_str(&b), piece, &g, &ended), 0);
        assert_true(ended);
        assert_int_equal(g.whole, ARRAY_LEN(sizes));
        for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
            assert_int_equal(g.entries[i].size, sizes[i]);
            assert_int_equal(g.entries[i].mtime_s, (int64_t)i * 1000000000);
            assert_int_equal(g.bodies[i].len, sizes[i]);
        }
        got_done(&g);
    }
    buf_done(&b);
}

/* Cut off anywhere: no end. */
static void test_cut_off(void **state)
{
    (void)state;
    Buf b = make();
    for (size_t n = 0; n < b.len; n += 37) {
        Got g = {0};
        bool ended;
        assert_int_equal(read_all((Str){(char *)b.data, n}, 1000, &g, &ended), 0);
        assert_false(ended);
        got_done(&g);
    }
    buf_done(&b);
}

/* No bit of a header can change unnoticed, and none beside the entries. */
static void test_flipped(void **state)
{
    (void)state;
    Buf b = {0};
    put_file(&b, "format", 3, 1);
    tar_put_end(&b);
    for (size_t bit = 0; bit < b.len * 8; bit++) {
        Got g = {0};
        bool ended, body = bit / 8 >= 512 && bit / 8 < 515;
        b.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        int err = read_all(buf_str(&b), 4096, &g, &ended);
        b.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        /* The blank behind the sum may be a NUL as well: no more than that. */
        if (err == 0 && !body) assert_true(bit / 8 >= 148 && bit / 8 < 156);
        if (body) assert_int_equal(err, 0);
        got_done(&g);
    }
    buf_done(&b);
}

/* A file of 9 GiB: said in an extended header. */
static void test_large(void **state)
{
    (void)state;
    Buf b = {0};
    TarEntry e = {.name = "history.sqlite", .size = 9 * GIB + 1, .mtime_s = 5};
    tar_put_entry(&b, &e);
    assert_int_equal(b.len, 3 * TAR_BLOCK);
    assert_memory_equal(b.data + TAR_BLOCK, "19 size=9663676417\n", 19);
    Got g = {0};
    bool ended;
    assert_int_equal(read_all(buf_str(&b), 100, &g, &ended), 0);
    assert_int_equal(g.n, 1);
    assert_int_equal(g.entries[0].size, e.size);
    assert_string_equal(g.entries[0].name, e.name);
    b.data[TAR_BLOCK + 3] = 'x'; /* another keyword */
    Got h = {0};
    assert_int_equal(read_all(buf_str(&b), 100, &h, &ended), ERR_INVALID);
    got_done(&g);
    got_done(&h);
    buf_done(&b);
}

static void test_handler_stops(void **state)
{
    (void)state;
    Buf b = make();
    Got g = {.stop = ERR_NOSPC};
    bool ended;
    assert_int_equal(read_all(buf_str(&b), 700, &g, &ended), ERR_NOSPC);
    assert_int_equal(g.n, 2);
    assert_false(ended);
    got_done(&g);
    buf_done(&b);
}

/* Links, folders, devices and what comes behind the end. */
static void test_others(void **state)
{
    (void)state;
    for (const char *type = "1234567gLKS"; *type; type++) {
        Buf b = {0};
        put_file(&b, "x", 0, 0);
        b.data[156] = (uint8_t)*type;
        uint32_t sum = 8 * ' ';
        for (int i = 0; i < 512; i++)
            if (i < 148 || i >= 156) sum += b.data[i];
        snprintf((char *)b.data + 148, 8, "%06o", sum);
        Got g = {0};
        bool ended;
        assert_int_equal(read_all(buf_str(&b), 512, &g, &ended), ERR_INVALID);
        assert_int_equal(g.n, 0);
        buf_done(&b);
    }
    Buf b = make();
    put_file(&b, "after", 0, 0);
    Got g = {0};
    bool ended;
    assert_int_equal(read_all(buf_str(&b), 512, &g, &ended), ERR_INVALID);
    got_done(&g);
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_cut_off),
        cmocka_unit_test(test_flipped),    cmocka_unit_test(test_large),
        cmocka_unit_test(test_others),     cmocka_unit_test(test_handler_stops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
