/* inside.h: what the engines share among themselves. */
#ifndef ENGINE_INSIDE_H
#define ENGINE_INSIDE_H

#include "engine/engine.h"

int64_t engine_now_ns(void); /* monotonic */

/* The ends of a task. fmt as printf; what it inserts may be any bytes. */
HR_PRINTF(4, 5)
void engine_task_fail(EngineTask *t, EngineErrCode code, bool retryable, const char *fmt, ...);
void engine_task_fail_as(EngineTask *t, const EngineError *err);
void engine_task_done(EngineTask *t);
void engine_task_canceled(EngineTask *t);

static inline bool engine_task_cancel_wanted(EngineTask *t)
{
    return atomic_load_explicit(&t->cancel, memory_order_acquire);
}

/* Ends the canceled ones among the n tasks as such; ret_live (room for n) gets the others. */
size_t engine_tasks_live(EngineTask **tasks, size_t n, EngineTask **ret_live);

/* Appends s as a JSON string, quotes and all. Bytes that are not UTF-8 become U+FFFD. */
void json_put_string(Buf *b, Str s);

/* The whole file, at most `limit` bytes. ERR_NOT_FOUND, ERR_LIMIT, ERR_IO. */
int file_read(const char *path, size_t limit, Buf *ret) HR_MUST_CHECK;

#endif
