#include "task/directory.h"

#include <string.h>

void directory_done(Directory *d)
{
    for (size_t i = 0; i < d->len; i++) mem_free(d->chunks[i]);
    mem_free(d->chunks);
    *d = (Directory){0};
}

/* The chunk's place, or SIZE_MAX when it lies outside. */
static size_t chunk_of(const Directory *d, uint64_t no)
{
    uint64_t chunk = (no - 1) / DIRECTORY_CHUNK;
    if (no == 0 || chunk < d->base || chunk - d->base >= d->len) return SIZE_MAX;
    return (size_t)(chunk - d->base);
}

void *directory_get(const Directory *d, uint64_t no)
{
    size_t i = chunk_of(d, no);
    if (i == SIZE_MAX || !d->chunks[i]) return NULL;
    return d->chunks[i]->at[(no - 1) % DIRECTORY_CHUNK];
}

/* Empty chunks at the front go away for good. */
static void drop_front(Directory *d)
{
    size_t n = 0;
    while (n < d->len && !d->chunks[n]) n++;
    /* Moving costs the rest: wait until it pays. */
    if (n == 0 || (n < d->len && n < d->len / 2)) return;
    memmove(d->chunks, d->chunks + n, (d->len - n) * sizeof *d->chunks);
    d->len -= n;
    d->base += n;
}

static void grow_to(Directory *d, uint64_t chunk)
{
    /* The last chunk stayed for its numbers: now they are all given out. */
    if (d->len && d->chunks[d->len - 1] && d->chunks[d->len - 1]->used == 0) {
        mem_free(d->chunks[d->len - 1]);
        d->chunks[d->len - 1] = NULL;
        drop_front(d);
    }
    if (d->len == 0) d->base = chunk;
    CHECK(chunk >= d->base); /* numbers only grow; a removed chunk never comes back */
    size_t need = (size_t)(chunk - d->base) + 1;
    if (need > d->cap) {
        d->cap = MAX(need, d->cap * 2);
        d->chunks = mem_grow(d->chunks, d->cap * sizeof *d->chunks);
    }
    while (d->len < need) d->chunks[d->len++] = NULL;
}

void directory_set(Directory *d, uint64_t no, void *p)
{
    CHECK(no > 0);
    size_t i = chunk_of(d, no);
    if (i == SIZE_MAX) {
        CHECK(p);
        grow_to(d, (no - 1) / DIRECTORY_CHUNK);
        i = chunk_of(d, no);
    }
    DirectoryChunk *chunk = d->chunks[i];
    if (!chunk) {
        CHECK(p);
        chunk = d->chunks[i] = mem_new(sizeof *chunk);
    }
    void **at = &chunk->at[(no - 1) % DIRECTORY_CHUNK];
    if (!*at && p) chunk->used++, d->count++;
    if (*at && !p) chunk->used--, d->count--;
    *at = p;
    /* The newest chunk stays: its numbers are still being given out. */
    if (chunk->used == 0 && i + 1 < d->len) {
        mem_free(chunk);
        d->chunks[i] = NULL;
        drop_front(d);
    }
}

void *directory_older(const Directory *d, uint64_t before)
{
    uint64_t last = (d->base + d->len) * DIRECTORY_CHUNK; /* the greatest number there could be */
    if (before == 0 || d->len == 0) return NULL;
    uint64_t no = MIN(before - 1, last);
    while (no > d->base * DIRECTORY_CHUNK) {
        const DirectoryChunk *chunk = d->chunks[(no - 1) / DIRECTORY_CHUNK - d->base];
        uint64_t first = (no - 1) / DIRECTORY_CHUNK * DIRECTORY_CHUNK + 1;
        for (; chunk && no >= first; no--)
            if (chunk->at[no - first]) return chunk->at[no - first];
        no = first - 1;
    }
    return NULL;
}

void *directory_newer(const Directory *d, uint64_t after)
{
    uint64_t end = (d->base + d->len) * DIRECTORY_CHUNK;
    uint64_t no = MAX(after, d->base * DIRECTORY_CHUNK) + 1;
    while (no <= end) {
        const DirectoryChunk *chunk = d->chunks[(no - 1) / DIRECTORY_CHUNK - d->base];
        uint64_t first = (no - 1) / DIRECTORY_CHUNK * DIRECTORY_CHUNK + 1;
        for (; chunk && no < first + DIRECTORY_CHUNK; no++)
            if (chunk->at[no - first]) return chunk->at[no - first];
        no = first + DIRECTORY_CHUNK;
    }
    return NULL;
}
