#include "io/loop.h"
#include "io/tcp_net.h"

static uint64_t now_ms(Loop *l)
{
    return uv_now(l->uv);
}

static void turn(Loop *l)
{
    uv_run(l->uv, UV_RUN_NOWAIT);
}

static void timer_init(LoopTimer *t)
{
    uv_timer_init(t->loop->uv, &t->uv);
}

static void on_timer(uv_timer_t *h)
{
    LoopTimer *t = CONTAINER_OF(h, LoopTimer, uv);
    t->fire(t);
}

static void timer_start(LoopTimer *t, uint64_t ms, uint64_t repeat_ms)
{
    uv_timer_start(&t->uv, on_timer, ms, repeat_ms);
    /* What repeats for ever keeps no loop alive. */
    if (repeat_ms) uv_unref((uv_handle_t *)&t->uv);
}

static void timer_stop(LoopTimer *t)
{
    uv_timer_stop(&t->uv);
}

static void on_closed(uv_handle_t *h)
{
    LoopTimer *t = CONTAINER_OF((uv_timer_t *)h, LoopTimer, uv);
    if (t->closed) t->closed(t);
}

static void timer_close(LoopTimer *t)
{
    uv_close((uv_handle_t *)&t->uv, on_closed);
}

static void on_work(uv_work_t *h)
{
    LoopWork *w = CONTAINER_OF(h, LoopWork, uv);
    w->run(w);
}

static void on_after(uv_work_t *h, int status)
{
    LoopWork *w = CONTAINER_OF(h, LoopWork, uv);
    w->after(w, status);
}

static void work(LoopWork *w)
{
    CHECK(uv_queue_work(w->loop->uv, &w->uv, on_work, on_after) == 0);
}

static const LoopOps uv_ops = {
    .now_ms = now_ms,
    .turn = turn,
    .timer_init = timer_init,
    .timer_start = timer_start,
    .timer_stop = timer_stop,
    .timer_close = timer_close,
    .work = work,
    .net = &tcp_net_uv,
};

void loop_uv_init(Loop *ret, uv_loop_t *uv)
{
    *ret = (Loop){.ops = &uv_ops, .uv = uv};
}
