/* loop.h: an event loop as its users see it: time, timers, work on other threads, connections.
 * libuv's is loop_uv.c; the simulator has one of its own, so that what runs on a loop runs there
 * too. One thread, but for LoopWork.run. */
#ifndef IO_LOOP_H
#define IO_LOOP_H

#include <uv.h>

#include "base/base.h"

typedef struct Loop Loop;
typedef struct LoopTimer LoopTimer;
typedef struct LoopWork LoopWork;
struct TcpNet;

struct LoopTimer { /* embedded in its owner's struct; loop_timer_init first */
    Loop *loop;
    void (*fire)(LoopTimer *t);
    void (*closed)(LoopTimer *t);
    uv_timer_t uv; /* libuv's */
    void *at;      /* the simulator's */
};

struct LoopWork {
    void (*run)(LoopWork *w);               /* may block */
    void (*after)(LoopWork *w, int status); /* on the loop's thread; status ≠ 0: it did not run */
    Loop *loop;
    uv_work_t uv; /* libuv's */
    void *at;     /* the simulator's */
};

typedef struct {
    uint64_t (*now_ms)(Loop *l); /* when this turn began; never steps */
    void (*turn)(Loop *l);       /* what is ready, without waiting */
    void (*timer_init)(LoopTimer *t);
    void (*timer_start)(LoopTimer *t, uint64_t ms, uint64_t repeat_ms);
    void (*timer_stop)(LoopTimer *t);
    void (*timer_close)(LoopTimer *t); /* then t->closed */
    void (*work)(LoopWork *w);
    const struct TcpNet *net; /* io/tcp_net.h */
} LoopOps;

struct Loop {
    const LoopOps *ops;
    uv_loop_t *uv; /* libuv's; NULL: simulated */
};

void loop_uv_init(Loop *ret, uv_loop_t *uv); /* borrows uv */

static inline uint64_t loop_now_ms(Loop *l)
{
    return l->ops->now_ms(l);
}

static inline void loop_timer_init(Loop *l, LoopTimer *t, void (*fire)(LoopTimer *t))
{
    t->loop = l;
    t->fire = fire;
    l->ops->timer_init(t);
}

/* Fires once after ms, then every repeat_ms (0: never again). A started timer starts anew. */
static inline void loop_timer_start(LoopTimer *t, uint64_t ms, uint64_t repeat_ms)
{
    t->loop->ops->timer_start(t, ms, repeat_ms);
}

static inline void loop_timer_stop(LoopTimer *t)
{
    t->loop->ops->timer_stop(t);
}

static inline void loop_timer_close(LoopTimer *t, void (*closed)(LoopTimer *t))
{
    t->closed = closed;
    t->loop->ops->timer_close(t);
}

static inline void loop_work(Loop *l, LoopWork *w, void (*run)(LoopWork *w),
                             void (*after)(LoopWork *w, int status))
{
    w->loop = l;
    w->run = run;
    w->after = after;
    l->ops->work(w);
}

#endif
