/* held.c: the life's end of a held task. */
#include "worker/held.h"

#include <time.h>
#include <unistd.h>

static int64_t (*simulated)(void);

void clock_mono_simulate(int64_t (*now)(void))
{
    simulated = now;
}

int64_t clock_mono(void)
{
    if (simulated) return simulated();
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

static void held_done(Held *h)
{
    while (h->files != NULL) {
        HeldFile *f = h->files;
        h->files = f->next;
        if (f->path != NULL) unlink(f->path);
        mem_free(f->path);
        mem_free(f->id);
        mem_free(f);
    }
    buf_done(&h->fetched);
    buf_done(&h->checkpoint);
    buf_done(&h->output);
    buf_done(&h->report.line);
}

void lease_batch_free(LeaseBatch *b)
{
    if (b == NULL) return;
    for (size_t i = 0; i < b->len; i++) held_done(&b->tasks[i]);
    mem_free(b->text);
    mem_free(b);
}

void held_free(Held *h)
{
    LeaseBatch *b = h->batch;
    held_done(h);
    CHECK(b->left > 0);
    if (--b->left > 0) return;
    mem_free(b->text);
    mem_free(b);
}
