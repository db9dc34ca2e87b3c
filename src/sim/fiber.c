#include "sim/fiber.h"

#include <sys/mman.h>
#include <ucontext.h>

#if defined(__SANITIZE_ADDRESS__)
#define FIBER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FIBER_ASAN 1
#endif
#endif
#ifdef FIBER_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

#define STACK_BYTES (1 * MIB)

struct Fiber {
    ucontext_t here, back;
    void *stack;
    void (*run)(void *ctx);
    void *ctx;
    bool busy;
    const void *back_stack; /* for AddressSanitizer */
    size_t back_bytes;
};

static Fiber *current;

/* Before leaving a stack, and after arriving on one. */
static void leaving(void **fake, const void *to, size_t bytes)
{
#ifdef FIBER_ASAN
    __sanitizer_start_switch_fiber(fake, to, bytes);
#else
    (void)fake;
    (void)to;
    (void)bytes;
#endif
}

static void arrived(void *fake, const void **from, size_t *bytes)
{
#ifdef FIBER_ASAN
    __sanitizer_finish_switch_fiber(fake, from, bytes);
#else
    (void)fake;
    (void)from;
    (void)bytes;
#endif
}

static void body(void)
{
    Fiber *f = current;
    arrived(NULL, &f->back_stack, &f->back_bytes);
    for (;;) {
        f->run(f->ctx);
        f->busy = false;
        fiber_pause();
    }
}

Fiber *fiber_new(void)
{
    Fiber *f = mem_new(sizeof *f);
    f->stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(f->stack != MAP_FAILED);
    CHECK(getcontext(&f->here) == 0);
    f->here.uc_stack.ss_sp = f->stack;
    f->here.uc_stack.ss_size = STACK_BYTES;
    makecontext(&f->here, body, 0);
    return f;
}

void fiber_free(Fiber *f)
{
    if (!f) return;
    CHECK(!f->busy);
    munmap(f->stack, STACK_BYTES);
    mem_free(f);
}

void fiber_resume(Fiber *f)
{
    CHECK(!current && f->busy);
    void *fake = NULL;
    current = f;
    leaving(&fake, f->stack, STACK_BYTES);
    CHECK(swapcontext(&f->back, &f->here) == 0);
    arrived(fake, NULL, NULL);
}

void fiber_start(Fiber *f, void (*run)(void *ctx), void *ctx)
{
    CHECK(!f->busy);
    f->run = run;
    f->ctx = ctx;
    f->busy = true;
    fiber_resume(f);
}

bool fiber_idle(const Fiber *f)
{
    return !f->busy;
}

Fiber *fiber_current(void)
{
    return current;
}

void fiber_pause(void)
{
    Fiber *f = current;
    void *fake = NULL;
    CHECK(f);
    current = NULL;
    leaving(&fake, f->back_stack, f->back_bytes);
    CHECK(swapcontext(&f->here, &f->back) == 0);
    arrived(fake, &f->back_stack, &f->back_bytes);
}
