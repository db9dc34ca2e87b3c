/* bounds.c: invariant 25: what lies on the disk is bounded by what is live or retained.
 *
 * Checked after rest: the node was started, some days later each time, and has folded after each
 * start. So both snapshots are of the state as it is now, and by S2 and S3 of log/snapshot.c only
 * these lie in log/:
 *
 *     snapshots  at most 2, of at most  TEXT × (tasks + keys + files + names) + payloads
 *     segments   those of the last two starts and the live one, of what a start and idle workers
 *                write (IDLE bytes)
 *     spares     what a start keeps (log_wants_spare), and room ahead (next_step in log.c)
 *     spill/     slots of the next size class, of payloads in memory's stead: 2 × payloads
 *
 * A segment's file has at most segment_bytes, or the largest group and the head. */
#include <stdio.h>
#include <string.h>

#include "log/inside.h"
#include "node/inside.h"
#include "sim/bounds.h"
#include "task/core.h"

#define TEXT  1024
#define IDLE  (16 * KIB)
#define GROUP (256 * KIB) /* of tiny limits: a handful of inputs of 64 KiB */

typedef struct {
    MemDisk *d;
    const char *dir;
    uint64_t snapshots, segments, spares, others, bytes, snapshot_bytes, largest;
} Found;

static bool ends(const char *name, const char *with)
{
    size_t n = strlen(name), k = strlen(with);
    return n >= k && strcmp(name + n - k, with) == 0;
}

static void found(void *ctx, const char *name)
{
    Found *f = ctx;
    char path[64];
    size_t n = 0;
    snprintf(path, sizeof path, "%s/%.48s", f->dir, name);
    (void)mem_disk_bytes(f->d, path, &n);
    f->bytes += n;
    if (ends(name, ".snap")) {
        f->snapshots++;
        f->snapshot_bytes = MAX(f->snapshot_bytes, n);
        return;
    }
    f->largest = MAX(f->largest, n);
    if (ends(name, ".seg"))
        f->segments++;
    else if (ends(name, ".free"))
        f->spares++;
    else if (!ends(name, "lock"))
        f->others++;
}

void bounds_check(Node *n)
{
    World *w = n->w;
    const Core *c = shard_core(n->shard);
    const Log *l = shard_log(n->shard);
    Found log = {.d = n->disk, .dir = "log"}, spill = {.d = n->disk, .dir = "spill"};
    mem_disk_each(n->disk, "log", found, &log);
    mem_disk_each(n->disk, "spill", found, &spill);
    uint64_t payloads = core_payload_bytes(c), rows = 0;
    for (int s = 0; s < TASK_STATES; s++) rows += core_count(c, (TaskState)s);
    rows += c->idem.len + c->files_by_id.len + c->symbols_len + 64;
    uint64_t segment = l->options.segment_bytes, reserve = l->options.reserve_bytes;
    uint64_t ahead = MAX(reserve, RESTART_ROOM) + 2 * l->step + 2 * l->group_last;
    uint64_t spares = SPARES_MAX + reserve / segment + ahead / segment + 1;
    world_say(w,
              "rest: %llu snapshots of %llu bytes, %llu segments, %llu spares, %llu others, "
              "%llu bytes, largest %llu; %llu rows, %llu bytes of payloads, %llu spilled",
              (unsigned long long)log.snapshots, (unsigned long long)log.snapshot_bytes,
              (unsigned long long)log.segments, (unsigned long long)log.spares,
              (unsigned long long)log.others, (unsigned long long)log.bytes,
              (unsigned long long)log.largest, (unsigned long long)rows,
              (unsigned long long)payloads, (unsigned long long)spill.bytes);
    if (log.snapshots > 2 || log.segments > 3 + IDLE / segment || log.spares > spares ||
        log.others || log.largest > MAX(n->plan->segment_bytes, GROUP))
        world_broken(w, 25,
                     "after rest the log has %llu snapshots, %llu segments, %llu spares "
                     "(of %llu), %llu other files, the largest of %llu bytes",
                     (unsigned long long)log.snapshots, (unsigned long long)log.segments,
                     (unsigned long long)log.spares, (unsigned long long)spares,
                     (unsigned long long)log.others, (unsigned long long)log.largest);
    if (log.snapshot_bytes > TEXT * rows + payloads)
        world_broken(w, 25, "a snapshot of %llu rows and %llu bytes of payloads has %llu bytes",
                     (unsigned long long)rows, (unsigned long long)payloads,
                     (unsigned long long)log.snapshot_bytes);
    if (spill.bytes > 2 * payloads + 64 * KIB)
        world_broken(w, 25, "%llu bytes are spilled of %llu bytes of payloads",
                     (unsigned long long)spill.bytes, (unsigned long long)payloads);
}
