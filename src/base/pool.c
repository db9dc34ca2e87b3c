/* pool.c: slabs of 256 KiB, aligned to their size, so that an object's address names its slab. They
 * are mapped each for itself: what was never used of one takes no memory.
 *
 * P1  A slab is in `partial` exactly while it has a free place. */
#include "base/pool.h"

#include <string.h>
#include <sys/mman.h>

#define SLAB_BYTES ((size_t)256 * KIB)

/* The sanitizer must see each object's life. */
#if defined(__SANITIZE_ADDRESS__)
#define PLAIN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PLAIN 1
#endif
#endif
#ifndef PLAIN
#define PLAIN 0
#endif

typedef struct {
    List link; /* in Pool.partial */
    void *free;
    uint32_t used, cut; /* objects alive; places ever given out */
} Slab;

static size_t slab_holds(const Pool *p)
{
    return (SLAB_BYTES - sizeof(Slab)) / p->size;
}

void pool_init(Pool *p, size_t size)
{
    CHECK(size >= sizeof(void *) && size % 8 == 0 && size <= 8 * KIB);
    *p = (Pool){.size = size};
    list_init(&p->partial);
}

static Slab *slab_new(Pool *p)
{
    /* Twice as much, and what lies outside the alignment goes back. */
    uint8_t *at = mmap(NULL, 2 * SLAB_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                       -1, 0);
    if (at == MAP_FAILED) mem_failed(2 * SLAB_BYTES);
    size_t before = (size_t)(-(uintptr_t)at & (SLAB_BYTES - 1));
    if (before) munmap(at, before);
    munmap(at + before + SLAB_BYTES, SLAB_BYTES - before);
    Slab *s = (Slab *)(void *)(at + before);
    list_init(&s->link);
    list_push_front(&p->partial, &s->link);
    return s;
}

void *pool_take(Pool *p)
{
    if (PLAIN) return mem_new(p->size);
    Slab *s;
    if (list_empty(&p->partial)) {
        s = slab_new(p);
    } else {
        s = LIST_FIRST(&p->partial, Slab, link);
        p->spare -= s->used == 0;
    }
    void *object = s->free;
    if (object)
        memcpy(&s->free, object, sizeof s->free);
    else
        object = (uint8_t *)(s + 1) + s->cut++ * p->size;
    s->used++;
    if (!s->free && s->cut == slab_holds(p)) list_del(&s->link); /* keeps P1 */
    memset(object, 0, p->size);
    return object;
}

void pool_give(Pool *p, void *object)
{
    if (PLAIN) {
        mem_free(object);
        return;
    }
    Slab *s = (Slab *)(void *)((uintptr_t)object & ~(SLAB_BYTES - 1));
    bool was_full = !s->free && s->cut == slab_holds(p);
    CHECK(s->used > 0);
    memcpy(object, &s->free, sizeof s->free);
    s->free = object;
    s->used--;
    /* The fullest are to fill up first: an emptying one waits at the end. */
    if (was_full) list_push_front(&p->partial, &s->link);
    if (s->used) return;
    list_del(&s->link);
    if (p->spare) {
        munmap(s, SLAB_BYTES);
        return;
    }
    p->spare++;
    list_push_back(&p->partial, &s->link);
}

void pool_done(Pool *p)
{
    while (!list_empty(&p->partial)) {
        Slab *s = LIST_FIRST(&p->partial, Slab, link);
        CHECK(s->used == 0);
        list_del(&s->link);
        munmap(s, SLAB_BYTES);
    }
}
