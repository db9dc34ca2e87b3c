/* directory.h: things by dense number (1, 2, 3 …), in chunks: O(1) look-up and walking in order,
 * and memory only for the chunks that hold something. */
#ifndef TASK_DIRECTORY_H
#define TASK_DIRECTORY_H

#include "base/base.h"

#define DIRECTORY_CHUNK 1024

typedef struct {
    void *at[DIRECTORY_CHUNK];
    uint32_t used;
} DirectoryChunk;

typedef struct {
    DirectoryChunk **chunks; /* of numbers base * CHUNK + 1 …; NULL where nothing is left */
    size_t len, cap;
    uint64_t base; /* chunks before it are gone */
    uint64_t count;
} Directory;

void directory_done(Directory *d);
void directory_set(Directory *d, uint64_t no, void *p); /* p = NULL removes */
void *directory_get(const Directory *d, uint64_t no);   /* NULL: not there */
void *directory_older(const Directory *d,
                      uint64_t before); /* the greatest number < before, or NULL */
void *directory_newer(const Directory *d,
                      uint64_t after); /* the smallest number > after, or NULL */

#endif
