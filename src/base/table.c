#include "base/table.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

/* Buckets moved for every insert while growing: two are enough to finish before the next growth. */
#define MOVE_STEP 4

uint64_t hash_u64(uint64_t v)
{
    v ^= v >> 33; /* MurmurHash3's finaliser */
    v *= UINT64_C(0xff51afd7ed558ccd);
    v ^= v >> 33;
    v *= UINT64_C(0xc4ceb9fe1a85ec53);
    v ^= v >> 33;
    return v;
}

uint64_t hash_bytes(const void *p, size_t n)
{
    return XXH3_64bits(p, n);
}

void table_done(Table *t)
{
    mem_free(t->buckets);
    mem_free(t->old);
    *t = (Table){0};
}

static void push(TableNode **bucket, TableNode *n)
{
    n->next = *bucket;
    *bucket = n;
}

static void move_some(Table *t, size_t n)
{
    while (t->old && n--) {
        TableNode *node = t->old[t->moved];
        while (node) {
            TableNode *next = node->next;
            push(&t->buckets[node->hash & t->mask], node);
            node = next;
        }
        t->old[t->moved] = NULL;
        if (t->moved++ == t->old_mask) {
            mem_free(t->old);
            t->old = NULL;
        }
    }
}

void table_add(Table *t, TableNode *n, uint64_t hash)
{
    if (!t->buckets) {
        t->mask = 15;
        t->buckets = mem_new((t->mask + 1) * sizeof *t->buckets);
    }
    move_some(t, MOVE_STEP);
    if (!t->old && t->len > t->mask) {
        t->old = t->buckets;
        t->old_mask = t->mask;
        t->moved = 0;
        t->mask = t->mask * 2 + 1;
        t->buckets = mem_new((t->mask + 1) * sizeof *t->buckets);
    }
    n->hash = hash;
    push(&t->buckets[hash & t->mask], n);
    t->len++;
}

static bool unlink_from(TableNode **at, TableNode *n)
{
    for (; *at; at = &(*at)->next) {
        if (*at == n) {
            *at = n->next;
            n->next = NULL;
            return true;
        }
    }
    return false;
}

/* A hash's bucket in the old array is unmoved exactly when its number is at or above `moved`. */
static bool still_old(const Table *t, uint64_t hash)
{
    return t->old && (hash & t->old_mask) >= t->moved;
}

void table_del(Table *t, TableNode *n)
{
    CHECK(t->buckets);
    bool found = unlink_from(&t->buckets[n->hash & t->mask], n);
    if (!found && t->old) found = unlink_from(&t->old[n->hash & t->old_mask], n);
    CHECK(found);
    t->len--;
}

static TableNode *skip_to(TableNode *n, uint64_t hash)
{
    while (n && n->hash != hash) n = n->next;
    return n;
}

/* New nodes go to the new array at once, so that one hash can have nodes in both arrays: a walk
 * that starts while growing first sends the hash's old bucket over. The table is logically
 * unchanged by that. */
TableNode *table_first(const Table *t, uint64_t hash)
{
    if (!t->buckets) return NULL;
    if (still_old(t, hash)) {
        TableNode **from = &t->old[hash & t->old_mask];
        while (*from) {
            TableNode *n = *from;
            *from = n->next;
            push(&t->buckets[n->hash & t->mask], n);
        }
    }
    return skip_to(t->buckets[hash & t->mask], hash);
}

TableNode *table_next(const TableNode *n)
{
    return skip_to(n->next, n->hash);
}

TableNode *table_each(const Table *t, TableIter *it)
{
    for (;;) {
        if (it->next) {
            TableNode *n = it->next;
            it->next = n->next;
            return n;
        }
        TableNode **array = it->in_old ? t->old : t->buckets;
        size_t mask = it->in_old ? t->old_mask : t->mask;
        if (!array || it->bucket > mask) {
            if (it->in_old || !t->old) return NULL;
            *it = (TableIter){.in_old = true};
            continue;
        }
        it->next = array[it->bucket++];
    }
}
