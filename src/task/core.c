/* core.c: a core's life. */
#include "task/core.h"

void core_limits_default(CoreLimits *l)
{
    *l = (CoreLimits){
        .queued_max = 10000000,
        .tenant_queued_max = 10000000,
        .finished_max = 1000000,
        .finished_bytes_max = GIB,
        .payload_memory_max = 16 * MIB,
        .idem_tenant_max = 5000000,
        .idem_ttl_ns = 24 * 3600 * NS_PER_S,
        .lease_ns = 30 * NS_PER_S,
        .backoff_first_ns = NS_PER_S,
        .backoff_max_ns = 60 * NS_PER_S,
        .platform_losses_max = 20,
        .file_ttl_s = 7 * 24 * 3600,
    };
}

Core *core_new(const CoreLimits *limits, uint64_t random_seed_value)
{
    Core *c = mem_new(sizeof *c);
    c->limits = *limits;
    random_seed(&c->random, random_seed_value);
    c->next_no = c->next_file_no = 1;
    c->payloads = payloads_new();
    pool_init(&c->pool, sizeof(Task));
    pool_init(&c->runs, sizeof(TaskRun));
    list_init(&c->idem_order);
    list_init(&c->idem_linger);
    list_init(&c->settled);
    return c;
}

int core_spill(Core *c, Disk *disk, const char *folder)
{
    return payloads_spill(c->payloads, disk, folder, c->limits.payload_memory_max);
}

void core_free(Core *c)
{
    if (!c) return;
    for (Task *t = directory_newer(&c->tasks, 0), *next; t; t = next) {
        next = directory_newer(&c->tasks, t->no);
        task_free(c, t);
    }
    for (File *f = directory_newer(&c->files, 0), *next; f; f = next) {
        next = directory_newer(&c->files, f->no);
        file_free(f);
    }
    LIST_FOR (e, &c->idem_order, IdemEntry, order) mem_free(e);
    LIST_FOR (e, &c->idem_linger, IdemEntry, order) mem_free(e);
    for (uint32_t i = 0; i < c->symbols_len; i++) {
        mem_free(c->symbols[i]->text);
        mem_free(c->symbols[i]);
    }
    for (uint32_t i = 0; i < c->models_len; i++) mem_free(c->models[i].info);
    for (uint32_t i = 0; i < c->flags_len; i++) {
        mem_free(c->flags[i].kind);
        mem_free(c->flags[i].subject);
    }
    payloads_free(c->payloads);
    pool_done(&c->pool);
    pool_done(&c->runs);
    directory_done(&c->tasks);
    directory_done(&c->files);
    table_done(&c->files_by_id);
    table_done(&c->symbols_by_text);
    table_done(&c->idem);
    heap_done(&c->timers);
    heap_done(&c->file_timers);
    buf_done(&c->restoring);
    mem_free(c->symbols);
    mem_free(c->tenants);
    mem_free(c->tenant_of);
    mem_free(c->models);
    mem_free(c->flags);
    mem_free(c);
}
