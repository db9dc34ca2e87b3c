/* tar.h: tar archives, written and strictly read. Pure. POSIX.1-2001 (pax): ustar headers, and one
 * extended header with the size before a file that is larger than ustar can say (8 GiB).
 *
 * The reader takes plain files only, as this writer writes them: no links, no folders, no devices,
 * no other extended headers. What a name may be is for its user to say. */
#ifndef WIRE_TAR_H
#define WIRE_TAR_H

#include "base/base.h"

#define TAR_BLOCK    512
#define TAR_NAME_MAX 99

typedef struct {
    char name[TAR_NAME_MAX + 1];
    uint64_t size;
    int64_t mtime_s;
} TarEntry;

/* The header; the bytes of the file follow, then tar_padding of zeroes. */
void tar_put_entry(Buf *b, const TarEntry *e);
size_t tar_padding(uint64_t size);
void tar_put_end(Buf *b);

/* What a TarReader finds. An error ends the reading with it. */
typedef struct {
    void *ctx;
    int (*entry)(void *ctx, const TarEntry *e);
    int (*data)(void *ctx, Str piece); /* of the entry; never empty */
    int (*whole)(void *ctx);           /* the entry's last byte was given */
} TarHandler;

typedef struct {
    uint8_t block[TAR_BLOCK];
    size_t block_len;
    TarEntry entry;
    uint64_t left, padding; /* of the entry */
    uint64_t pax_size;      /* said for the next entry; 0: nothing */
    bool in_pax;            /* the entry is an extended header */
    Buf pax;
    unsigned zeroes; /* blocks of the end that were seen */
    int err;
} TarReader; /* all zeros: before the first byte */

/* Any number of bytes. ERR_INVALID with *ret_what: not such an archive. Errors stay. */
int tar_feed(TarReader *r, Str bytes, const TarHandler *h, const char **ret_what) HR_MUST_CHECK;
bool tar_ended(const TarReader *r); /* the end was seen: the archive is whole */
void tar_done(TarReader *r);

#endif
