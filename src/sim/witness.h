/* witness.h: who watches a seed: the independent model of the log and the judge of what clients
 * saw, behind one face. Every function looks at once whether something is broken, and tells the
 * world. */
#ifndef SIM_WITNESS_H
#define SIM_WITNESS_H

#include "sim/world.h"
#include "task/task.h"
#include "wire/frame.h"

typedef struct Witness Witness;
struct Model;
struct Judge;

Witness *witness_new(World *w, const CoreLimits *limits, int64_t end_ns_max);
void witness_free(Witness *x);
struct Model *witness_model(const Witness *x);
struct Judge *witness_judge(const Witness *x);
void witness_look(Witness *x); /* at the judge */

/* ---- the log ---- */
void witness_frame(Witness *x, Str bytes);
void witness_durable(Witness *x, uint64_t seq);
void witness_restart(Witness *x, const LogPoint *at);
void witness_claimed(Witness *x, uint64_t epoch);
void witness_compare(Witness *x, Core *core);
void witness_renewed(Witness *x, uint64_t token, int64_t now_ns);
/* A worker's process is another now, or none: what it held may be taken from it at once. */
void witness_holder_gone(Witness *x, Str worker);
void witness_unlink(Witness *x, const char *id); /* a content is about to go */
/* An answer with a receipt left while only `durable` was on the disk. */
void witness_receipt(Witness *x, uint64_t seq, uint64_t durable);

/* ---- workers: of worker/, whose names the judge's would clash with ---- */
void witness_lease(Witness *x, uint32_t worker, const char *id, uint64_t token, uint32_t attempt,
                   Str input, uint64_t durable);
uint64_t witness_text(Str json);
void witness_result(Witness *x, uint32_t worker, const char *id, uint64_t token, bool ok,
                    uint64_t output, int64_t device_ns);
void witness_final(Witness *x, const char *id, uint64_t token); /* it was an error without retry */
/* 0 accepted, 1 duplicate, 2 fenced, 3 other */
void witness_answer(Witness *x, uint32_t worker, const char *id, uint64_t token, int answer);

#endif
