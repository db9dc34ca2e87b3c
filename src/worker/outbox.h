/* outbox.h: what the worker has to say, in order, and kept until the server has answered it.
 *
 * I1  A report stays until its line was answered, and goes out in the order in which it was put.
 * I2  One POST is under way at a time: `flight` holds its reports, in the order of its lines. When
 *     it fails they go back to the front and are sent again.
 * I3  What may be lost (pong, started, progress, log) is written into a POST when it is built and
 *     is never kept: there is one such line a task at most, the latest.
 * It is bounded by the leases that the worker holds: each has at most one last report and one
 * checkpoint here. */
#ifndef WORKER_OUTBOX_H
#define WORKER_OUTBOX_H

#include "worker/held.h"

/* The protocol's limits for one POST. */
#define POST_LINES_MAX  4096
#define POST_BYTES_MAX  (8 * MIB)
#define PONG_TOKENS_MAX 4096 /* in one pong, and in the `running` of a registration */

typedef enum {
    REPORT_NONE,
    REPORT_LAST,       /* result, error or released: inside its Held */
    REPORT_CHECKPOINT, /* on its own; freed by report_free */
    REPORT_TELEMETRY,
} WorkerReportKind;

Report *report_new(WorkerReportKind kind, uint64_t token, Buf *line); /* takes the line */
void report_free(Report *r); /* not REPORT_LAST, which goes with its Held */

typedef struct {
    List pending, flight;
    size_t pending_len, flight_len;
} Outbox;

void outbox_init(Outbox *o);
void outbox_put(Outbox *o, Report *r);
/* Takes a waiting report out; no flight may be under way. */
void outbox_drop(Outbox *o, Report *r);
static inline bool outbox_empty(const Outbox *o)
{
    return o->pending_len == 0 && o->flight_len == 0;
}

/* Appends lines to body, up to lines_max and POST_BYTES_MAX in all; at least one when there is
 * one. No flight may be under way. Returns how many. */
size_t outbox_begin(Outbox *o, Buf *body, size_t lines_max);
/* The next line of the flight was answered: takes its report out. NULL: all were. */
Report *outbox_answered(Outbox *o);
/* What was not answered goes back to the front. */
void outbox_end(Outbox *o);

/* ---- lines ---- */

void line_started(Buf *b, Str id, uint64_t token);
void line_progress(Buf *b, Str id, uint64_t token, uint32_t step, uint32_t steps);
void line_checkpoint(Buf *b, Str id, uint64_t token, uint64_t unit, Str file);
void line_log(Buf *b, Str id, uint64_t token, Str text);
void line_result(Buf *b, Str id, uint64_t token, Str output, int64_t device_ns, int64_t run_ns);
void line_error(Buf *b, Str id, uint64_t token, const char *code, Str message, bool retryable,
                int64_t device_ns, int64_t run_ns);
void line_released(Buf *b, Str id, uint64_t token, int64_t device_ns, int64_t run_ns);
void line_pong(Buf *b, uint64_t n); /* open: then numbers by line_pong_held, then line_pong_end */
void line_pong_held(Buf *b, uint64_t token);
void line_pong_end(Buf *b);

#endif
