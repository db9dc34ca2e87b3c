#include "sim/world.h"

#include <stdio.h>

#define BEGIN_NS (3600 * NS_PER_S)
#define WALL_NS  (INT64_C(1795000000) * NS_PER_S)

const char *const hap_names[HAPS] = {
    "kills",         "power cuts",   "stops",        "failed syncs",   "failed reads",
    "full disks",    "flipped bits", "misdirected",  "detected",       "resets",
    "cuts",          "lost answers", "repeats",      "clock steps",    "worker deaths",
    "worker pauses", "worker lies",  "device hangs", "device crashes", "model errors",
    "failed loads",  "drains",       "folds",        "resumes",        "taken disks",
    "rivals"};

#define STILL_MAX 200000 /* events: nobody does so much at once */

World *world_new(uint64_t seed, bool trace)
{
    World *w = mem_new(sizeof *w);
    w->seed = seed;
    w->now_ns = BEGIN_NS;
    w->wall_add_ns = WALL_NS;
    w->trace = trace;
    w->hash = seed;
    random_seed(&w->random, seed);
    return w;
}

void world_free(World *w)
{
    heap_done(&w->events);
    buf_done(&w->why);
    mem_free(w);
}

void world_at(World *w, Event *e, int64_t at_ns)
{
    heap_set(&w->events, &e->node, MAX(at_ns, w->now_ns), w->ties++);
}

void world_in(World *w, Event *e, int64_t in_ns)
{
    world_at(w, e, w->now_ns + in_ns);
}

void world_not(World *w, Event *e)
{
    heap_del(&w->events, &e->node);
}

bool world_step(World *w)
{
    HeapNode *n = heap_min(&w->events);
    if (!n) return false;
    Event *e = CONTAINER_OF(n, Event, node);
    w->still = n->key == w->now_ns ? w->still + 1 : 0;
    w->now_ns = n->key;
    heap_del(&w->events, n);
    e->fire(e);
    if (w->still > STILL_MAX && !w->broken)
        world_broken(w, 21, "time stands still: %u events in one instant", STILL_MAX);
    return true;
}

static void stamp(const World *w)
{
    int64_t us = (w->now_ns - BEGIN_NS) / NS_PER_US;
    printf("%5lld.%06lld ", (long long)(us / 1000000), (long long)(us % 1000000));
}

void world_note(World *w, const char *what, Str bytes)
{
    w->hash = chain64(w->hash, &w->now_ns, sizeof w->now_ns);
    w->hash = chain64(w->hash, what, strlen(what));
    w->hash = chain64(w->hash, bytes.p ? bytes.p : "", bytes.n);
    w->noted++;
    if (!w->trace) return;
    stamp(w);
    printf("%-8s %4zu %016llx\n", what, bytes.n, (unsigned long long)w->hash);
}

void world_say(World *w, const char *fmt, ...)
{
    char line[700];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    size_t len = MIN((size_t)MAX(n, 0), sizeof line - 1);
    w->hash = chain64(w->hash, &w->now_ns, sizeof w->now_ns);
    w->hash = chain64(w->hash, line, len);
    w->noted++;
    if (!w->trace) return;
    stamp(w);
    printf("%s\n", line);
}

void world_show(World *w, const char *fmt, ...)
{
    va_list ap;
    if (!w->trace) return;
    stamp(w);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
}

void world_happens(World *w, Hap h)
{
    w->haps[h]++;
    world_say(w, "** %s", hap_names[h]);
}

void world_broken(World *w, int invariant, const char *fmt, ...)
{
    if (w->broken) return;
    w->broken = invariant;
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(&w->why, fmt, ap);
    va_end(ap);
    world_say(w, "BROKEN %d: %.*s", invariant, STR_ARG(buf_str(&w->why)));
}

uint64_t world_below(World *w, uint64_t bound)
{
    return random_below(&w->random, bound);
}

bool world_odds(World *w, uint32_t in_million)
{
    return in_million && random_below(&w->random, 1000000) < in_million;
}

int64_t world_between(World *w, int64_t least, int64_t most)
{
    return least + (int64_t)random_below(&w->random, (uint64_t)(most - least) + 1);
}

int64_t world_around(World *w, int64_t mean)
{
    uint64_t at = 1 + world_below(w, 100);
    if (mean <= 0) return 1;
    if (at <= 70) return 1 + (int64_t)world_below(w, (uint64_t)mean);
    if (at <= 97) return mean + (int64_t)world_below(w, (uint64_t)mean);
    return mean * (int64_t)(2 + world_below(w, 8));
}
