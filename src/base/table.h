/* table.h: an intrusive hash table with chaining. Growth is incremental (a few buckets an insert),
 * so that no single operation pays for all. Duplicate hashes are fine: the caller compares keys
 * while it walks. */
#ifndef BASE_TABLE_H
#define BASE_TABLE_H

#include "base/types.h"

typedef struct TableNode {
    struct TableNode *next;
    uint64_t hash;
} TableNode;

typedef struct {
    TableNode **buckets, **old; /* old: the smaller array still being emptied, or NULL */
    size_t mask, old_mask, moved, len;
} Table;

void table_done(Table *t); /* frees the arrays, not the nodes */
void table_add(Table *t, TableNode *n, uint64_t hash);
void table_del(Table *t, TableNode *n); /* must be in */

/* Walk the nodes of one hash: n = table_first(t, h), then n = table_next(n) until NULL. */
TableNode *table_first(const Table *t, uint64_t hash);
TableNode *table_next(const TableNode *n);

/* Walk all: *at starts at 0; NULL at the end. The table must not change meanwhile, but the node
 * returned may be removed and freed. Order is that of the buckets. */
typedef struct {
    size_t bucket;
    TableNode *next;
    bool in_old;
} TableIter;
TableNode *table_each(const Table *t, TableIter *it);

uint64_t hash_u64(uint64_t v);                /* mixes; bijective */
uint64_t hash_bytes(const void *p, size_t n); /* XXH3-64; not keyed */

#endif
