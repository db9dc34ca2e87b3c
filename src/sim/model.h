/* model.h: an independent model of one shard's task machine: what the log may say. It reads the
 * frames of the log in order, judges every record by the state that the ones before it made, and
 * compares itself with the core. Written from the design's documents and from task.h and record.h,
 * not from the core's code, so that it does not share its mistakes. Plain arrays, nothing clever.
 *
 * What is broken is told as the number of an invariant (1 to 25 of the design, invariant_text) and
 * a sentence in `why`. 0: nothing is. A model that told of one is of no further use.
 *
 *     Model *m = model_new(&limits);
 *     shard appends a frame            broken = model_frame(m, bytes, &why)
 *     a commit is done                 model_durable(m, seq)
 *     the process died, a new one has
 *     replayed and stands at `at`      broken = model_restart(m, &at, &why)
 *     now and then                     broken = model_compare(m, core, &why)
 *     faults have stopped for long     broken = model_late(m, now_ns, slack_ns, &why)
 *
 * All times are shard time, as in frames. */
#ifndef SIM_MODEL_H
#define SIM_MODEL_H

#include "base/base.h"
#include "task/task.h"
#include "wire/frame.h"

typedef struct Model Model;

/* limits: those of the core (copied). They may change at a restart: model_limits. */
Model *model_new(const CoreLimits *limits);
void model_free(Model *m); /* accepts NULL */
void model_limits(Model *m, const CoreLimits *limits);

/* One sealed frame, head included, in the order of the log, as it is handed to log_append (when
 * that took it). Copies what it keeps. Judges that it counts, and each of its records. */
int model_frame(Model *m, Str bytes, Buf *why);

/* Everything up to seq was told durable: an effect of it may have left. */
void model_durable(Model *m, uint64_t seq);

/* After a crash: the log, replayed, stands at `at`. Invariants 1 and 10: what was durable is there,
 * and what is there is what was appended. The model goes back to that place. */
int model_restart(Model *m, const LogPoint *at, Buf *why);

/* Every field that both have. Writes nothing to core. When the core is in the middle of a decision
 * whose frame the model has not been given, that is a difference: call it between frames. Some 1 us
 * a task in memory. */
int model_compare(const Model *m, Core *core, Buf *why);

/* What is volatile in the core, told so that lease ends can be judged. A live lease's end moves to
 * now + limits.lease_ns whenever the server hears of it from its holder (report, pong);
 * model_frame does so itself at the LEASE record and, for all, at a CLAIM. A holder that is gone
 * (its process ended, as the supervisor tells the fleet) may lose its leases at once: by the name
 * that LEASE records give it, or without the number that tells it from another of its name. Without
 * these calls ends of leases are not judged (limits.lease_ns 0 does the same). */
void model_renewed(Model *m, uint64_t token, int64_t now_ns);
void model_holder_gone(Model *m, Str worker);
void model_judge_lease_ends(Model *m, bool on); /* default off */

/* Is it a live lease that is on record, of that task, and durable? For every lease line that leaves
 * (invariants 4, 5, and no effect before its record is durable: 10), and for every report that is
 * answered "accepted". */
int model_lease_left(const Model *m, uint64_t task_no, uint64_t token, Buf *why);

/* Liveness (20 to 22, 25), for the phase without faults, in which workers live: what should have
 * happened by itself `slack_ns` ago and has not: a deadline, a lease's end, retention, expiry of
 * keys and files. Also, when drained: a task that is not terminal, or a lease that is not over. */
int model_late(const Model *m, int64_t now_ns, int64_t slack_ns, Buf *why);
int model_drained(const Model *m, Buf *why);

/* ---- reading, for the simulator's own oracles and its report ---- */
uint64_t model_last_seq(const Model *m);
uint64_t model_durable_seq(const Model *m);
uint64_t model_hash(const Model *m);                  /* of the state, for debugging and traces */
uint64_t model_tasks(const Model *m);                 /* ever accepted: numbers 1 … n */
uint64_t model_count(const Model *m, TaskState s);    /* in memory */
uint64_t model_records(const Model *m, uint8_t type); /* judged so far, those rolled back too */
/* The live lease of a task: its token, 0 when it has none. */
uint64_t model_token(const Model *m, uint64_t task_no);
bool model_terminal(const Model *m, uint64_t task_no);
int64_t model_device_ns(const Model *m, Str tenant); /* charged so far */

const char *invariant_text(int number); /* "a status never moves backwards for a reader" */

#endif
