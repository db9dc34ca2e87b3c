#include "base/heap.h"

#define KIDS 4

static bool before(HeapSlot a, HeapSlot b)
{
    return a.key != b.key ? a.key < b.key : a.node->tie < b.node->tie;
}

static void place(Heap *h, uint32_t i, HeapSlot s)
{
    h->slots[i] = s;
    s.node->at = i + 1;
}

static void sift_up(Heap *h, uint32_t i, HeapSlot s)
{
    while (i > 0) {
        uint32_t up = (i - 1) / KIDS;
        if (!before(s, h->slots[up])) break;
        place(h, i, h->slots[up]);
        i = up;
    }
    place(h, i, s);
}

static void sift_down(Heap *h, uint32_t i, HeapSlot s)
{
    for (;;) {
        uint64_t first = KIDS * (uint64_t)i + 1;
        if (first >= h->len) break;
        uint32_t least = (uint32_t)first, end = (uint32_t)MIN(first + KIDS, h->len);
        for (uint32_t kid = least + 1; kid < end; kid++) {
            if (before(h->slots[kid], h->slots[least])) least = kid;
        }
        if (!before(h->slots[least], s)) break;
        place(h, i, h->slots[least]);
        i = least;
    }
    place(h, i, s);
}

static void settle(Heap *h, uint32_t i, HeapSlot s)
{
    if (i > 0 && before(s, h->slots[(i - 1) / KIDS]))
        sift_up(h, i, s);
    else
        sift_down(h, i, s);
}

void heap_done(Heap *h)
{
    mem_free(h->slots);
    *h = (Heap){0};
}

void heap_set(Heap *h, HeapNode *n, int64_t key, uint64_t tie)
{
    HeapSlot s = {key, n};
    n->key = key;
    n->tie = tie;
    if (n->at) {
        CHECK(n->at <= h->len && h->slots[n->at - 1].node == n);
        settle(h, n->at - 1, s);
        return;
    }
    if (h->len == h->cap) {
        CHECK(h->cap < UINT32_MAX / 2);
        h->cap = h->cap ? h->cap * 2 : 16;
        h->slots = mem_grow(h->slots, h->cap * sizeof *h->slots);
    }
    sift_up(h, h->len++, s);
}

void heap_del(Heap *h, HeapNode *n)
{
    if (!n->at) return;
    uint32_t i = n->at - 1;
    CHECK(i < h->len && h->slots[i].node == n);
    n->at = 0;
    HeapSlot last = h->slots[--h->len];
    if (last.node != n) settle(h, i, last);
}

HeapNode *heap_min(const Heap *h)
{
    return h->len ? h->slots[0].node : NULL;
}
