/* list.h: an intrusive doubly linked ring. The head is a List too; a node is in at most one list.
 * A node outside any list points at itself (after list_init or list_del). */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include "base/types.h"

typedef struct List {
    struct List *prev, *next;
} List;

static inline void list_init(List *l)
{
    l->prev = l->next = l;
}

static inline bool list_empty(const List *head)
{
    return head->next == head;
}

static inline void list_add_before(List *at, List *node)
{
    node->prev = at->prev;
    node->next = at;
    at->prev->next = node;
    at->prev = node;
}

static inline void list_push_back(List *head, List *node)
{
    list_add_before(head, node);
}

static inline void list_push_front(List *head, List *node)
{
    list_add_before(head->next, node);
}

static inline void list_del(List *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}

#define LIST_FIRST(head, type, member) CONTAINER_OF((head)->next, type, member)

/* `it` may be removed inside the loop; its successor may not. */
/* NOLINTBEGIN(bugprone-macro-parentheses): a type and names cannot stand in parentheses */
#define LIST_FOR(it, head, type, member)                                                           \
    for (type *it = CONTAINER_OF((head)->next, type, member),                                      \
              *it##_next = CONTAINER_OF(it->member.next, type, member);                            \
         &it->member != (head);                                                                    \
         it = it##_next, it##_next = CONTAINER_OF(it->member.next, type, member))
/* NOLINTEND(bugprone-macro-parentheses) */

#endif
