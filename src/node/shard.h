/* shard.h: one cell: its task core, its log, its scheduler and its fleet of workers, joined. It
 * decides, applies and appends; what must reach the outside goes through ShardOut, with the
 * sequence that must be durable first. It never touches the kernel itself: disk and clock are
 * injected, so that the simulator runs this very code.
 *
 * One thread. A caller's loop is: requests (shard_… and fleet_… calls), then shard_step, then wake
 * the committing thread when shard_take_dirty says so, and shard_durable when a commit is done. */
#ifndef NODE_SHARD_H
#define NODE_SHARD_H

#include "base/base.h"
#include "gateway/gateway.h"
#include "io/clock.h"
#include "io/disk.h"
#include "log/log.h"
#include "sched/sched.h"
#include "task/task.h"

typedef struct Shard Shard;
typedef struct Fleet Fleet;

/* Effects. Those with hold_seq must wait until that sequence is durable. */
typedef struct {
    void *ctx;
    void (*task_changed)(void *ctx, Task *t, const TaskEvent *e); /* hold: e->seq */
    void (*task_progress)(void *ctx, Task *t);
    void (*task_leaving)(void *ctx, Task *t);
    void (*file_leaving)(void *ctx, const File *f); /* hold: the last sequence */
    void (*worker_line)(void *ctx, Str worker_id, Str line, uint64_t hold_seq);
    void (*worker_kick)(void *ctx, Str worker_id); /* close its stream */
    void (*worker_kill)(
        void *ctx, Str worker_name,
        int64_t pid); /* it does not let go of a task: end its process if it is ours */
    /* For a witness (the simulator): the log took this frame, which is applied next. NULL: none. */
    void (*appended)(void *ctx, Str frame);
} ShardOut;

typedef struct {
    CoreLimits limits;
    uint64_t segment_bytes; /* 0: the log's default */
    uint32_t ping_s;        /* default 5 */
    uint64_t seed;          /* chance; 0: the kernel's */
    bool accept_clock;      /* go on although the clock is far behind the last record */
    const char *address;    /* said in the claim */
} ShardOptions;

/* Opens and replays the log. why: for people. Errors as log_open. */
int shard_open(Disk *disk, Clock *clock, const ShardOptions *o, const ShardOut *out, Shard **ret,
               Buf *why) HR_MUST_CHECK;
void shard_free(Shard *s);
/* Claims the shard: appends the claim; the caller commits it before anything else. Then shard_lead.
 */
int shard_claim(Shard *s, Buf *why) HR_MUST_CHECK;
void shard_lead(Shard *s);

Core *shard_core(Shard *s);
Log *shard_log(Shard *s);
Sched *shard_sched(Shard *s);
Fleet *shard_fleet(Shard *s);
int64_t shard_now_ns(const Shard *s); /* shard time: never steps */
uint64_t shard_last_seq(const Shard *s);
uint64_t shard_durable_seq(const Shard *s);
uint64_t shard_replayed_tasks(const Shard *s);

void shard_durable(Shard *s, uint64_t seq); /* a commit is done */
void shard_failed(Shard *s, int err);       /* the log failed: nothing is taken any more */
void shard_drain(Shard *s);                 /* refuses new tasks; gives no new leases */
bool shard_take_dirty(Shard *s);            /* was anything appended since the last call? */

/* What time and the scheduler want: expiries, leases, pings. Returns when to call again at the
 * latest (shard time). */
int64_t shard_step(Shard *s);

/* CODE_OK, or why no new work is taken now. */
Decision shard_accepting(const Shard *s);

/* Decide, append, apply. The answer must wait until shard_last_seq() is durable. */
Decision shard_submit(Shard *s, const SubmitSpec *spec);
Decision shard_cancel(Shard *s, uint64_t no);
Decision shard_forget(Shard *s, uint64_t no);
Decision shard_put_file(Shard *s, Str id, Str tenant, uint64_t size, const Sha256 *sha256, Str name,
                        Str type, uint64_t owner_task);
Decision shard_delete_file(Shard *s, uint64_t file_no);
Decision shard_history(Shard *s, uint64_t settled_seq); /* core_history */
Decision shard_pause_model(Shard *s, Str name, bool paused);

/* ---- the fleet ---- */

Decision fleet_hello(Fleet *f, const WorkerHello *h, char id_out[40], Buf *refused_json,
                     Buf *stale_json);
bool fleet_known(const Fleet *f, Str worker_id);
void fleet_stream(Fleet *f, Str worker_id, bool open);
ReportAnswer fleet_report(Fleet *f, Str worker_id, const WorkerReport *r, Buf *detail);
bool fleet_holds(const Fleet *f, Str worker_id, uint64_t task_no);
bool fleet_lease_is_live(const Fleet *f, uint64_t task_no, uint64_t token);
Decision fleet_order(Fleet *f, Str worker_id, Str order);
/* A supervised worker's process ended: its leases end at once. True: it is in a crash loop, start
 * it again slowly. */
bool fleet_process_ended(Fleet *f, Str worker_name, bool crashed);
/* Ask all workers to finish or hand back; exit: local ones then end. */
void fleet_drain_all(Fleet *f);
size_t fleet_running(const Fleet *f); /* leases held by workers */
size_t fleet_streams(const Fleet *f); /* workers with an open stream */
QueueEstimate fleet_estimate(const Fleet *f, const Task *t);
void fleet_workers_json(Fleet *f, Str only_id, Buf *ret);
void fleet_model_json(Fleet *f, const ModelEntry *m, Buf *ret);
void fleet_queues_json(Fleet *f, Buf *ret);
void fleet_task_log(const Fleet *f, uint64_t task_no, Buf *ret);
void fleet_metrics(Fleet *f, Buf *ret);

#endif
