/* core.h: the inside of the task machine; for src/task only.
 *
 * Invariants
 *  I1  Only apply.c changes logged state, and a task's state only in task_move.
 *  I2  token ≠ 0 exactly while RUNNING, or terminal with its slot still held.
 *  I3  `ready` implies QUEUED, not_before passed, and the scheduler knows it.
 *  I4  A task is in `settled` exactly while it is terminal and holds no slot.
 *  I5  counts[s] = number of tasks in memory in state s; tenants' counts add up to them.
 *  I6  Before core_observe nothing volatile is kept: no timers, no ready flags. */
#ifndef TASK_CORE_H
#define TASK_CORE_H

#include <string.h>

#include "task/directory.h"
#include "task/record.h"
#include "task/task.h"

typedef struct {
    TableNode node;
    char *text; /* owned */
    uint32_t len;
    Sym sym;
} Symbol;

typedef struct {
    TableNode node;
    List order; /* in idem_order by age, or in idem_linger: too old, but its task is not terminal
                   yet */
    Digest128 key, body;
    uint64_t no;
    int64_t accepted_ns;
    Sym tenant;
    bool lingers;
} IdemEntry;

typedef struct {
    char *kind, *subject; /* owned */
} Flag;

struct Core {
    /* logged */
    uint32_t shard;
    uint64_t epoch;
    uint8_t id_key[16];
    uint32_t feature_level;
    uint64_t next_no, next_file_no;
    Directory tasks, files;
    Table files_by_id;
    Table symbols_by_text;
    Symbol **symbols; /* symbols[sym - 1] */
    uint32_t symbols_len, symbols_cap;
    Tenant *tenants;
    uint32_t tenants_len, tenants_cap;
    uint32_t *tenant_of; /* by sym: 1 + place in tenants, or 0 */
    ModelEntry *models;
    uint32_t models_len;
    Flag *flags; /* those that are on */
    uint32_t flags_len;
    Table idem;
    List idem_order, idem_linger;
    List settled; /* oldest first */
    uint64_t counts[TASK_STATES];
    uint64_t finished_bytes;
    uint64_t history_seq; /* what settled up to it has left for the history view */
    Payloads *payloads;
    Pool pool, runs; /* of Task; of TaskRun */

    /* volatile */
    CoreLimits limits;
    Random random;
    CoreObserver observer;
    bool observed;
    Heap timers, file_timers;
    int64_t idem_check_ns; /* not before: the next look at old keys */
    uint64_t ready;
    uint64_t misfits;
    /* While a snapshot is read: what is no item yet; the kind of the last item; terminal tasks
     * without a lease that no item has settled yet. */
    Buf restoring;
    uint8_t restored;
    uint64_t unsettled;
};

#define TASK_NO_MAX ((UINT64_C(1) << 40) - 1) /* what an id has room for */

/* What a record or a snapshot may say of a time or a span: to 2116; so that a sum of two fits, and
 * one with a retention of 2^32 seconds. */
#define TIME_MAX ((INT64_C(1) << 62) - 1)
static inline bool time_fits(int64_t ns)
{
    return ns >= 0 && ns <= TIME_MAX;
}
static inline int64_t time_sum(int64_t a, int64_t b)
{
    return MIN(a + b, TIME_MAX);
}
/* Is it what a flag may be about? It is kept as a C string. */
static inline bool flag_fits(Str s)
{
    return s.n > 0 && !memchr(s.p, 0, s.n);
}
/* Is it what an id of a task or file may be: letters, digits, '_'? It goes into JSON as it is. */
bool id_fits(Str id);

/* symbols.c */
Sym sym_intern(Core *c, Str s);
Tenant *tenant_get(Core *c, Sym s);              /* made when it is new */
const Tenant *tenant_find(const Core *c, Sym s); /* NULL: never seen */

/* apply.c */
TaskExtra *task_extra(Task *t);
Task *task_new(Core *c);                             /* waiting, all zeros */
void task_room_for_events(TaskRun *r, uint32_t cap); /* at least */
TaskRun *task_run(Core *c, Task *t);                 /* its own, made when it has none */
void task_free(Core *c, Task *t);
void task_link(Core *c, Task *t); /* counts, lists and file references of a restored task */
void settled_link(Core *c, Task *t);
IdemEntry *idem_find(const Core *c, Digest128 key);
void idem_link(Core *c, IdemEntry *e);
void file_link(Core *c, File *f);
void file_free(File *f);
ModelEntry *model_entry(Core *c, Sym name, Sym version); /* made when it is new */
void flag_set(Core *c, Str kind, Str subject, bool on);

/* due.c */
void task_retime(Core *c, Task *t); /* after any change; no-op before core_observe */
void file_retime(Core *c, File *f);
void task_make_ready(Core *c, Task *t); /* keeps I3 */
void task_make_unready(Core *c, Task *t);

/* id.c */
Digest128 idem_key(Str tenant, Str key);

#endif
