#include "sim/arrays.h"

void *array_add(Array *r, size_t size)
{
    if (r->len == r->cap) {
        r->cap = r->cap ? 2 * r->cap : 64;
        r->at = mem_grow(r->at, r->cap * size);
    }
    return memset((char *)r->at + size * r->len++, 0, size);
}

void array_copy(Array *to, const Array *from, size_t size)
{
    if (to->cap < from->len) {
        to->cap = from->len;
        to->at = mem_grow(to->at, to->cap * size);
    }
    to->len = from->len;
    if (from->len) memcpy(to->at, from->at, from->len * size);
}

void array_done(Array *r)
{
    mem_free(r->at);
    *r = (Array){0};
}

static size_t place(const Map64 *m, uint64_t key)
{
    size_t i = (size_t)hash_u64(key) & (m->cap - 1);
    while (m->keys[i] && m->keys[i] != key) i = (i + 1) & (m->cap - 1);
    return i;
}

static void map64_grow(Map64 *m)
{
    Map64 old = *m;
    m->cap = old.cap ? 2 * old.cap : 256;
    m->keys = mem_new(m->cap * sizeof *m->keys);
    m->rows = mem_new(m->cap * sizeof *m->rows);
    for (size_t i = 0; i < old.cap; i++) {
        if (!old.keys[i]) continue;
        size_t at = place(m, old.keys[i]);
        m->keys[at] = old.keys[i];
        m->rows[at] = old.rows[i];
    }
    mem_free(old.keys);
    mem_free(old.rows);
}

uint32_t *map64_at(Map64 *m, uint64_t key)
{
    CHECK(key);
    if (2 * m->len >= m->cap) map64_grow(m);
    size_t i = place(m, key);
    if (!m->keys[i]) {
        m->keys[i] = key;
        m->rows[i] = 0;
        m->len++;
    }
    return &m->rows[i];
}

uint32_t map64_find(const Map64 *m, uint64_t key)
{
    if (!m->len || !key) return 0;
    size_t i = place(m, key);
    return m->keys[i] ? m->rows[i] : 0;
}

void map64_done(Map64 *m)
{
    mem_free(m->keys);
    mem_free(m->rows);
    *m = (Map64){0};
}
