/* pool.h: many objects of one size, packed in slabs: no head a piece as malloc's, and a slab whose
 * objects are all gone goes back to the system. One thread. */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include "base/list.h"
#include "base/types.h"

typedef struct {
    size_t size;  /* of an object, a multiple of 8; at most 8 KiB */
    List partial; /* slabs with a free place */
    size_t spare; /* empty slabs in it: one is kept */
} Pool;

void pool_init(Pool *p, size_t size);
void *pool_take(Pool *p); /* zeroed */
void pool_give(Pool *p, void *object);
void pool_done(Pool *p); /* every object was given back */

#endif
