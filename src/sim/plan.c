#include "sim/plan.h"

#include <string.h>

static int64_t between(Random *r, int64_t least, int64_t most)
{
    return least + (int64_t)random_below(r, (uint64_t)(most - least) + 1);
}

/* One of a few, which differ by factors. */
static uint64_t one_of(Random *r, const uint64_t *of, size_t n)
{
    return of[random_below(r, n)];
}
#define ONE_OF(r, ...)                                                                             \
    one_of((r), (const uint64_t[]){__VA_ARGS__}, ARRAY_LEN(((const uint64_t[]){__VA_ARGS__})))

/* On in one seed of two; then between rare and frequent. */
static uint32_t odds(Random *r, uint32_t least, uint32_t most)
{
    bool on = random_below(r, 2);
    uint32_t value = (uint32_t)between(r, least, most);
    return on ? value : 0;
}

static int64_t every(Random *r, int64_t least_s, int64_t most_s)
{
    bool on = random_below(r, 2);
    int64_t value = between(r, least_s * NS_PER_S, most_s * NS_PER_S);
    return on ? value : 0;
}

static void draw_limits(Plan *p, Random *r)
{
    CoreLimits *l = &p->limits;
    core_limits_default(l);
    l->queued_max = ONE_OF(r, 8, 30, 100, 100000);
    l->tenant_queued_max = ONE_OF(r, 5, 20, 100000, 100000);
    l->finished_max = ONE_OF(r, 3, 20, 100, 100000);
    l->finished_bytes_max = ONE_OF(r, 2000, 20000, 1000000000);
    l->payload_memory_max = ONE_OF(r, 0, 2000, 20000, 16 * MIB);
    l->idem_tenant_max = ONE_OF(r, 5, 50, 100000);
    l->idem_ttl_ns = (int64_t)ONE_OF(r, 10, 60, 86400) * NS_PER_S;
    l->lease_ns = (int64_t)ONE_OF(r, 6, 10, 30) * NS_PER_S;
    l->backoff_first_ns = (int64_t)ONE_OF(r, 50, 500, 1000) * NS_PER_MS;
    l->backoff_max_ns = (int64_t)ONE_OF(r, 2, 5, 10) * NS_PER_S;
    l->platform_losses_max = (uint32_t)ONE_OF(r, 1, 3, 20);
    l->file_ttl_s = (uint32_t)ONE_OF(r, 20, 604800);
    p->segment_bytes = ONE_OF(r, 4 * KIB, 8 * KIB, 16 * KIB, 64 * KIB);
    p->ping_s = (uint32_t)ONE_OF(r, 1, 2, 5);
    if ((int64_t)p->ping_s * 3 * NS_PER_S > l->lease_ns) p->ping_s = 1;
    p->rate = random_below(r, 6) ? 0 : 5;
}

static void draw_people(Plan *p, Random *r)
{
    p->clients = (uint32_t)between(r, 2, 8);
    p->workers = (uint32_t)between(r, 1, 4);
    p->devices_max = (uint32_t)between(r, 1, 3);
    p->models = (uint32_t)between(r, 1, 3);
    p->think_ns = (int64_t)ONE_OF(r, 100, 400, 2000) * NS_PER_MS;
    p->run_ns = (int64_t)ONE_OF(r, 10, 100, 800, 3000) * NS_PER_MS;
    p->batch_max = (uint32_t)ONE_OF(r, 1, 4, 16);
    p->input_bytes = (uint32_t)ONE_OF(r, 20, 200, 1500);
    p->keyed = (uint32_t)between(r, 0, 1000000);
    p->delayed = odds(r, 50000, 400000);
    p->dated = odds(r, 50000, 400000);
    p->retained = odds(r, 50000, 400000);
    p->sync_us = (uint32_t)ONE_OF(r, 100, 1000, 10000, 60000);
    p->op_us = (uint32_t)ONE_OF(r, 5, 50, 500);
}

static void draw_faults(Plan *p, Random *r)
{
    p->crash_ns = every(r, 3, 30);
    p->crash_ops = (uint32_t)ONE_OF(r, 1, 10, 200);
    p->power = (uint32_t)between(r, 0, 1000000);
    p->stop_ns = every(r, 10, 60);
    p->cut_ns = every(r, 2, 20);
    p->step_ns = every(r, 5, 40);
    p->full_ns = every(r, 10, 40);
    p->pause_ns = every(r, 5, 30);
    p->death_ns = every(r, 4, 30);
    p->drain_ns = every(r, 5, 30);
    p->sync_fails = odds(r, 100, 3000);
    p->write_fails = odds(r, 100, 2000);
    p->read_fails = odds(r, 100, 20000);
    p->resets = odds(r, 100, 20000);
    p->pieces = odds(r, 1000, 300000);
    p->hangs = odds(r, 1000, 30000);
    p->device_crashes = odds(r, 1000, 60000);
    p->errors = odds(r, 1000, 200000);
    p->final_errors = (uint32_t)between(r, 0, 1000000);
    p->load_fails = odds(r, 1000, 200000);
    p->lies = odds(r, 1000, 200000);
    p->slow_net = odds(r, 1, 200);
    p->damage = odds(r, 100000, 1000000);
    p->big = odds(r, 2000, 60000);
    p->checkpoints = odds(r, 10000, 300000);
    p->file_ns = every(r, 0, 3);
    p->take_ns = every(r, 10, 60);
    /* The wall clock's steps are hours: shard time takes them over at a restart, and keys age. */
    if (p->step_ns) p->limits.idem_ttl_ns = 10 * 86400 * NS_PER_S;
}

void plan_draw(Plan *p, Random *r, const char *profile)
{
    *p = (Plan){0};
    draw_limits(p, r);
    draw_people(p, r);
    draw_faults(p, r);
    p->faulty_ns = between(r, 40, 150) * NS_PER_S;
    p->healed_ns = 600 * NS_PER_S;
    if (strcmp(profile, "calm") == 0) {
        Plan calm = {.limits = p->limits,
                     .segment_bytes = p->segment_bytes,
                     .ping_s = p->ping_s,
                     .clients = p->clients,
                     .workers = p->workers,
                     .devices_max = p->devices_max,
                     .models = p->models,
                     .think_ns = p->think_ns,
                     .run_ns = p->run_ns,
                     .batch_max = p->batch_max,
                     .input_bytes = p->input_bytes,
                     .big = p->big,
                     .checkpoints = p->checkpoints,
                     .file_ns = p->file_ns,
                     .keyed = p->keyed,
                     .sync_us = p->sync_us,
                     .op_us = p->op_us,
                     .faulty_ns = p->faulty_ns,
                     .healed_ns = p->healed_ns};
        *p = calm;
    }
}

void plan_print(const Plan *p, Buf *ret)
{
    const CoreLimits *l = &p->limits;
    buf_printf(ret,
               "queue %llu/%llu finished %llu payload memory %llu keys %llu for %llds lease %llds "
               "losses %u segment %llu ping %us\n",
               (unsigned long long)l->queued_max, (unsigned long long)l->tenant_queued_max,
               (unsigned long long)l->finished_max, (unsigned long long)l->payload_memory_max,
               (unsigned long long)l->idem_tenant_max, (long long)(l->idem_ttl_ns / NS_PER_S),
               (long long)(l->lease_ns / NS_PER_S), l->platform_losses_max,
               (unsigned long long)p->segment_bytes, p->ping_s);
    buf_printf(ret, "%u clients, %u workers of up to %u devices, %u models, batches of %u; ",
               p->clients, p->workers, p->devices_max, p->models, p->batch_max);
    buf_printf(ret, "think %lldms run %lldms sync %uus\n", (long long)(p->think_ns / NS_PER_MS),
               (long long)(p->run_ns / NS_PER_MS), p->sync_us);
}
