/* plan.h: what a seed draws before its world begins: how large everything is, which faults are on
 * and how hard (swarm testing: Groce and others, 2012). */
#ifndef SIM_PLAN_H
#define SIM_PLAN_H

#include "sim/world.h"
#include "task/task.h"

typedef struct {
    /* the server */
    CoreLimits limits;
    uint64_t segment_bytes;
    uint32_t ping_s;
    uint64_t disk_bytes; /* 0: no bound */
    double rate;         /* submits a second a tenant; 0: any */

    /* who there is */
    uint32_t clients, workers, devices_max, models;
    int64_t think_ns;             /* between the operations of a client, mean */
    int64_t run_ns;               /* of a task on a device, mean */
    uint32_t batch_max;           /* of models */
    int64_t faulty_ns, healed_ns; /* the two phases */
    uint32_t input_bytes;         /* mean */
    uint32_t big;                 /* inputs and outputs too large for the log, in a million */
    uint32_t checkpoints;         /* tasks that make one, in a million */
    int64_t file_ns;              /* between the operations of who has files, mean; 0: nobody has */
    uint32_t keyed, delayed, dated, retained; /* submits with those, in a million */
    uint32_t sync_us, op_us;                  /* the disk's */

    /* faults: mean times between them (0: never), or odds in a million */
    int64_t crash_ns, cut_ns, step_ns, full_ns, pause_ns, death_ns, drain_ns, stop_ns, take_ns;
    uint32_t crash_ops; /* a crash is at one of that many operations that follow */
    uint32_t power;     /* of crashes: the machine's */
    uint32_t sync_fails, read_fails, write_fails, resets, pieces, hangs, device_crashes, errors,
        final_errors, load_fails, lies, no_answers, slow_net, damage;
} Plan;

void plan_draw(Plan *p, Random *r, const char *profile);
void plan_print(const Plan *p, Buf *ret);

#endif
