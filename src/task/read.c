/* read.c: what others may ask the core. */
#include "task/core.h"

Task *core_task(const Core *c, uint64_t no)
{
    return directory_get(&c->tasks, no);
}

Task *core_settled(const Core *c, const Task *after)
{
    List *next = after ? after->run->settled.next : c->settled.next;
    return next == &c->settled ? NULL : CONTAINER_OF(next, TaskRun, settled)->task;
}

uint64_t core_history_seq(const Core *c)
{
    return c->history_seq;
}

Task *core_older(const Core *c, uint64_t before)
{
    return directory_older(&c->tasks, before);
}

File *core_file(const Core *c, uint64_t no)
{
    return directory_get(&c->files, no);
}

File *core_file_find(const Core *c, Str id, Str tenant)
{
    for (TableNode *n = table_first(&c->files_by_id, hash_bytes(id.p, id.n)); n;
         n = table_next(n)) {
        File *f = CONTAINER_OF(n, File, by_id);
        if (!str_eqz(id, f->id)) continue;
        return tenant.n == 0 || str_eq(tenant, core_sym(c, f->tenant)) ? f : NULL;
    }
    return NULL;
}

bool core_flag(const Core *c, Str kind, Str subject)
{
    for (uint32_t i = 0; i < c->flags_len; i++)
        if (str_eqz(kind, c->flags[i].kind) && str_eqz(subject, c->flags[i].subject)) return true;
    return false;
}

size_t core_models(const Core *c, const ModelEntry **ret)
{
    *ret = c->models;
    return c->models_len;
}

const ModelEntry *core_model(const Core *c, Str name, Str version)
{
    Sym n = core_sym_find(c, name), v = core_sym_find(c, version);
    for (uint32_t i = 0; n && v && i < c->models_len; i++)
        if (c->models[i].name == n && c->models[i].version == v) return &c->models[i];
    return NULL;
}

/* Versions are whole numbers; anything else counts as 0. */
static uint64_t version_number(const Core *c, Sym version)
{
    uint64_t v = 0;
    return parse_u64(core_sym(c, version), &v) ? 0 : v;
}

const ModelEntry *core_model_latest(const Core *c, Str name)
{
    const ModelEntry *best = NULL;
    Sym n = core_sym_find(c, name);
    for (uint32_t i = 0; n && i < c->models_len; i++) {
        const ModelEntry *m = &c->models[i];
        if (m->name == n &&
            (!best || version_number(c, m->version) > version_number(c, best->version)))
            best = m;
    }
    return best;
}

uint64_t core_count(const Core *c, TaskState s)
{
    return c->counts[s];
}

uint64_t core_finished_bytes(const Core *c)
{
    return c->finished_bytes;
}

uint64_t core_delayed(const Core *c)
{
    return c->counts[TASK_QUEUED] - c->ready;
}

uint64_t core_ready(const Core *c)
{
    return c->ready;
}

uint64_t core_misfits(const Core *c)
{
    return c->misfits;
}

uint64_t core_epoch(const Core *c)
{
    return c->epoch;
}

uint64_t core_payload_bytes(const Core *c)
{
    return payloads_bytes(c->payloads);
}

uint64_t core_payload_memory_bytes(const Core *c)
{
    return payloads_memory_bytes(c->payloads);
}

Str core_payload(const Core *c, const Payload *p)
{
    return payloads_get(c->payloads, p);
}

const CoreLimits *core_limits(const Core *c)
{
    return &c->limits;
}
