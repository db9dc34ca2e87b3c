#include "io/clock.h"

#include <errno.h>
#include <sys/random.h>
#include <time.h>

static int64_t read_clock(clockid_t id)
{
    struct timespec t;
    CHECK(clock_gettime(id, &t) == 0);
    return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

static int64_t wall_ns(Clock *c)
{
    (void)c;
    return read_clock(CLOCK_REALTIME);
}

static int64_t boot_ns(Clock *c)
{
    (void)c;
    return read_clock(CLOCK_BOOTTIME);
}

Clock clock_real = {.wall_ns = wall_ns, .boot_ns = boot_ns};

static Random *simulated;

void random_secret_simulate(Random *r)
{
    simulated = r;
}

void random_secret(void *p, size_t len)
{
    uint8_t *at = p;
    for (size_t i = 0; simulated && i < len; i++) at[i] = (uint8_t)random_u64(simulated);
    if (simulated) return;
    while (len) {
        ssize_t n = getrandom(at, len, 0);
        if (n < 0 && errno == EINTR) continue;
        CHECK(n > 0); /* without chance no id is unique: better to stop */
        at += n;
        len -= (size_t)n;
    }
}
