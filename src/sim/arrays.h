/* arrays.h: what the model and the judge keep things in: rows of plain values, and a map from a
 * number to a row. Nothing leaves them but all at once. */
#ifndef SIM_ARRAYS_H
#define SIM_ARRAYS_H

#include "base/base.h"

typedef struct { /* len and cap count elements; at is owned */
    void *at;
    size_t len, cap;
} Array;

#define ROW(rows, type, i) (&((type *)(rows).at)[i])

void *array_add(Array *r, size_t size); /* one more, zeroed; earlier ones may move */
void array_copy(Array *to, const Array *from, size_t size);
void array_done(Array *r);

typedef struct {
    uint64_t *keys; /* 0: free */
    uint32_t *rows;
    size_t len, cap; /* cap: a power of two */
} Map64;

/* Where the row of that key (never 0) stands: made, with the row 0, when it is new. */
uint32_t *map64_at(Map64 *m, uint64_t key);
uint32_t map64_find(const Map64 *m, uint64_t key); /* 0: it is not in */
void map64_done(Map64 *m);

#endif
