/* base_memory.c: buffers, lists, heaps, tables. Each is driven by chance against a plain model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"

/* ---- buf ---- */

static void buf_holds_what_is_put(void **state)
{
    (void)state;
    Buf b = {0};
    assert_string_equal(buf_z(&b), "");
    buf_puts(&b, "ab");
    buf_putc(&b, 'c');
    buf_put_str(&b, STR("de"));
    buf_put(&b, NULL, 0);
    buf_printf(&b, "%d-%s", 42, "x");
    assert_string_equal(buf_z(&b), "abcde42-x");
    assert_int_equal(b.len, 9); /* the NUL is not counted */
    buf_drop(&b, 3);
    assert_string_equal(buf_z(&b), "de42-x");
    buf_drop(&b, 6);
    assert_int_equal(b.len, 0);
    for (int i = 0; i < 3000; i++) buf_printf(&b, "%04d", i); /* grows in the middle of a printf */
    assert_int_equal(b.len, 12000);
    assert_memory_equal(b.data + 4 * 2999, "2999", 4);
    buf_clear(&b);
    assert_int_equal(b.len, 0);
    buf_done(&b);
    assert_null(b.data);
}

static void integers_are_little_endian(void **state)
{
    (void)state;
    Buf b = {0};
    buf_u8(&b, 1);
    buf_u16(&b, 0x0203);
    buf_u32(&b, 0x04050607);
    buf_u64(&b, UINT64_C(0x08090a0b0c0d0e0f));
    static const uint8_t want[] = {1, 3, 2, 7, 6, 5, 4, 15, 14, 13, 12, 11, 10, 9, 8};
    assert_int_equal(b.len, sizeof want);
    assert_memory_equal(b.data, want, sizeof want);
    assert_int_equal(load_u32(b.data + 3), 0x04050607);
    assert_true(load_u64(b.data + 7) == UINT64_C(0x08090a0b0c0d0e0f));
    Cursor c = cursor_of(b.data, b.len);
    assert_int_equal(cursor_u8(&c), 1);
    assert_int_equal(cursor_u16(&c), 0x0203);
    assert_int_equal(cursor_u32(&c), 0x04050607);
    assert_true(cursor_u64(&c) == UINT64_C(0x08090a0b0c0d0e0f));
    assert_int_equal(cursor_left(&c), 0);
    assert_false(c.bad);

    c = cursor_of(b.data, 5); /* once bad, everything is zero, and nothing is read beyond */
    assert_non_null(cursor_bytes(&c, 4));
    assert_int_equal(cursor_u32(&c), 0);
    assert_true(c.bad);
    assert_int_equal(cursor_u8(&c), 0);
    assert_null(cursor_bytes(&c, 1));
    buf_done(&b);
}

/* ---- list ---- */

typedef struct {
    int v;
    List link;
} Item;

static int sum_of(List *head)
{
    int digits = 0;
    LIST_FOR (it, head, Item, link) digits = digits * 10 + it->v;
    return digits;
}

static void lists_keep_order(void **state)
{
    (void)state;
    List head;
    Item items[5];
    list_init(&head);
    assert_true(list_empty(&head));
    for (int i = 0; i < 5; i++) {
        items[i].v = i + 1;
        list_push_back(&head, &items[i].link);
    }
    assert_int_equal(sum_of(&head), 12345);
    list_del(&items[2].link);
    list_del(&items[2].link); /* harmless */
    assert_int_equal(sum_of(&head), 1245);
    list_push_front(&head, &items[2].link);
    assert_int_equal(sum_of(&head), 31245);
    assert_ptr_equal(LIST_FIRST(&head, Item, link), &items[2]);
    LIST_FOR (it, &head, Item, link)
        if (it->v % 2) list_del(&it->link); /* the current one may go */
    assert_int_equal(sum_of(&head), 24);
}

/* ---- heap ---- */

#define NODES 200

static void a_heap_gives_the_least(void **state)
{
    (void)state;
    Random r;
    random_seed(&r, 1);
    HeapNode nodes[NODES] = {0};
    Heap h = {0};
    assert_null(heap_min(&h));
    for (int step = 0; step < 20000; step++) {
        HeapNode *n = &nodes[random_below(&r, NODES)];
        if (random_below(&r, 3)) {
            heap_set(&h, n, (int64_t)random_below(&r, 50) - 25, random_below(&r, 4));
            assert_true(heap_has(n));
        } else {
            heap_del(&h, n);
            assert_false(heap_has(n));
        }
        const HeapNode *least = NULL;
        uint32_t in = 0;
        for (int i = 0; i < NODES; i++) {
            const HeapNode *m = &nodes[i];
            if (!heap_has(m)) continue;
            in++;
            if (!least || m->key < least->key || (m->key == least->key && m->tie < least->tie))
                least = m;
        }
        assert_int_equal(h.len, in);
        const HeapNode *got = heap_min(&h);
        assert_int_equal(!got, !least);
        if (got) assert_true(got->key == least->key && got->tie == least->tie);
    }
    int64_t last = INT64_MIN;
    while (heap_min(&h)) {
        HeapNode *n = heap_min(&h);
        assert_true(n->key >= last);
        last = n->key;
        heap_del(&h, n);
    }
    heap_done(&h);
}

/* ---- table ---- */

#define KEYS 3000

typedef struct {
    TableNode node;
    bool in;
    int seen;
} Entry;

static uint64_t hash_of(size_t i)
{
    return hash_u64(i / 3); /* three entries share a hash */
}

static bool table_holds(const Table *t, const Entry *all, size_t i)
{
    for (TableNode *n = table_first(t, hash_of(i)); n; n = table_next(n)) {
        assert_true(n->hash == hash_of(i));
        if (n == &all[i].node) return true;
    }
    return false;
}

static void check_walk(const Table *t, Entry *all)
{
    size_t seen = 0;
    TableIter it = {0};
    for (size_t i = 0; i < KEYS; i++) all[i].seen = 0;
    for (TableNode *n; (n = table_each(t, &it));) {
        CONTAINER_OF(n, Entry, node)->seen++;
        seen++;
    }
    assert_int_equal(seen, t->len);
    for (size_t i = 0; i < KEYS; i++) assert_int_equal(all[i].seen, all[i].in);
}

static void a_table_finds_what_is_in(void **state)
{
    (void)state;
    Random r;
    random_seed(&r, 2);
    Entry *all = mem_new(KEYS * sizeof *all);
    Table t = {0};
    assert_null(table_first(&t, 1));
    size_t len = 0;
    for (int step = 0; step < 60000; step++) {
        size_t i = (size_t)random_below(&r, KEYS);
        assert_int_equal(table_holds(&t, all, i), all[i].in);
        bool fill = step < 20000 || step % 3;
        if (!all[i].in && fill) {
            table_add(&t, &all[i].node, hash_of(i));
            all[i].in = true;
            len++;
        } else if (all[i].in) {
            table_del(&t, &all[i].node);
            all[i].in = false;
            len--;
        }
        assert_int_equal(t.len, len);
        if (step % 997 == 0) check_walk(&t, all); /* also while it grows */
    }
    /* A walk may remove what it is given. */
    TableIter it = {0};
    for (TableNode *n; (n = table_each(&t, &it));) {
        table_del(&t, n);
        memset(n, 0xa5, sizeof *n);
    }
    assert_int_equal(t.len, 0);
    table_done(&t);
    mem_free(all);
}

static void a_walk_while_growing_sees_all(void **state)
{
    (void)state;
    Entry *all = mem_new(KEYS * sizeof *all);
    Table t = {0};
    for (size_t i = 0; i < KEYS; i++) {
        table_add(&t, &all[i].node, hash_of(i));
        all[i].in = true;
        if (t.old || i % 100 == 0) check_walk(&t, all);
    }
    for (size_t i = 0; i < KEYS; i++) assert_true(table_holds(&t, all, i));
    table_done(&t);
    mem_free(all);
}

/* ---- pool ---- */

static void a_pool_gives_what_is_free(void **state)
{
    (void)state;
    enum { OBJECTS = 5000, SIZE = 128 };
    static uint8_t *all[OBJECTS];
    Random r;
    random_seed(&r, 3);
    Pool p;
    pool_init(&p, SIZE);
    for (int step = 0; step < 100000; step++) {
        size_t i = (size_t)random_below(&r, step < 50000 ? OBJECTS : 300);
        if (all[i]) {
            for (size_t k = 0; k < SIZE; k++) assert_int_equal(all[i][k], (uint8_t)(i + k));
            pool_give(&p, all[i]);
            all[i] = NULL;
        } else {
            all[i] = pool_take(&p);
            for (size_t k = 0; k < SIZE; k++) {
                assert_int_equal(all[i][k], 0);
                all[i][k] = (uint8_t)(i + k);
            }
        }
    }
    for (size_t i = 0; i < OBJECTS; i++)
        if (all[i]) pool_give(&p, all[i]);
    pool_done(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buf_holds_what_is_put),
        cmocka_unit_test(integers_are_little_endian),
        cmocka_unit_test(lists_keep_order),
        cmocka_unit_test(a_heap_gives_the_least),
        cmocka_unit_test(a_table_finds_what_is_in),
        cmocka_unit_test(a_walk_while_growing_sees_all),
        cmocka_unit_test(a_pool_gives_what_is_free),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
