#include "base/heap.h"

static bool before(const HeapNode *a, const HeapNode *b)
{
    return a->key != b->key ? a->key < b->key : a->tie < b->tie;
}

static void place(Heap *h, uint32_t i, HeapNode *n)
{
    h->nodes[i] = n;
    n->at = i + 1;
}

static void sift_up(Heap *h, uint32_t i, HeapNode *n)
{
    while (i > 0) {
        uint32_t up = (i - 1) / 2;
        if (!before(n, h->nodes[up])) break;
        place(h, i, h->nodes[up]);
        i = up;
    }
    place(h, i, n);
}

static void sift_down(Heap *h, uint32_t i, HeapNode *n)
{
    for (;;) {
        uint32_t kid = 2 * i + 1;
        if (kid >= h->len) break;
        if (kid + 1 < h->len && before(h->nodes[kid + 1], h->nodes[kid])) kid++;
        if (!before(h->nodes[kid], n)) break;
        place(h, i, h->nodes[kid]);
        i = kid;
    }
    place(h, i, n);
}

static void settle(Heap *h, uint32_t i, HeapNode *n)
{
    if (i > 0 && before(n, h->nodes[(i - 1) / 2]))
        sift_up(h, i, n);
    else
        sift_down(h, i, n);
}

void heap_done(Heap *h)
{
    mem_free(h->nodes);
    *h = (Heap){0};
}

void heap_set(Heap *h, HeapNode *n, int64_t key, uint64_t tie)
{
    n->key = key;
    n->tie = tie;
    if (n->at) {
        CHECK(n->at <= h->len && h->nodes[n->at - 1] == n);
        settle(h, n->at - 1, n);
        return;
    }
    if (h->len == h->cap) {
        CHECK(h->cap < UINT32_MAX / 2);
        h->cap = h->cap ? h->cap * 2 : 16;
        h->nodes = mem_grow(h->nodes, h->cap * sizeof *h->nodes);
    }
    sift_up(h, h->len++, n);
}

void heap_del(Heap *h, HeapNode *n)
{
    if (!n->at) return;
    uint32_t i = n->at - 1;
    CHECK(i < h->len && h->nodes[i] == n);
    n->at = 0;
    HeapNode *last = h->nodes[--h->len];
    if (last != n) settle(h, i, last);
}

HeapNode *heap_min(const Heap *h)
{
    return h->len ? h->nodes[0] : NULL;
}
