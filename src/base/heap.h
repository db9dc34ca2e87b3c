/* heap.h: a min-heap of intrusive nodes, ordered by (key, tie). A node knows its place, so that it
 * can be moved or removed in O(log n). */
#ifndef BASE_HEAP_H
#define BASE_HEAP_H

#include "base/types.h"

typedef struct {
    int64_t key;
    uint64_t tie;
    uint32_t at; /* 1 + place in the heap's array; 0 = in no heap */
} HeapNode;

/* Four children each, and the keys stand in the array: with millions of nodes, every look at one is
 * a cache miss, and so only equal keys need it. */
typedef struct {
    int64_t key;
    HeapNode *node;
} HeapSlot;

typedef struct {
    HeapSlot *slots; /* owns the array, not the nodes */
    uint32_t len, cap;
} Heap;

void heap_done(Heap *h);
void heap_set(Heap *h, HeapNode *n, int64_t key, uint64_t tie); /* insert, or move when it is in */
void heap_del(Heap *h, HeapNode *n);                            /* no-op when it is not in */
HeapNode *heap_min(const Heap *h);                              /* NULL when empty */
static inline bool heap_has(const HeapNode *n)
{
    return n->at != 0;
}

#endif
