/* id.c: task ids, as task.h describes them. */
#include "task/core.h"

#include <string.h>

/* The 24 check bits: SipHash under the shard's secret of everything else in the id, and of the
 * tenant. */
static uint32_t check_bits(const Core *c, uint64_t created_ms, uint64_t no, Str tenant)
{
    uint8_t text[8 + 8 + 4 + 64];
    store_u64(text, created_ms);
    store_u64(text + 8, no);
    store_u32(text + 16, c->shard);
    size_t n = MIN(tenant.n, (size_t)64);
    memcpy(text + 20, tenant.p, n);
    return (uint32_t)siphash(c->id_key, text, 20 + n) & 0xffffff;
}

static void put_be(uint8_t *at, uint64_t v, int bytes)
{
    for (int i = bytes - 1; i >= 0; i--, v >>= 8) at[i] = (uint8_t)v;
}

static uint64_t get_be(const uint8_t *at, int bytes)
{
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++) v = v << 8 | at[i];
    return v;
}

void core_task_id(const Core *c, const Task *t, TaskIdText *ret)
{
    uint8_t raw[16];
    uint64_t ms = (uint64_t)(t->created_ns / NS_PER_MS);
    CHECK(t->no <= TASK_NO_MAX);
    put_be(raw, ms, 6);
    put_be(raw + 6, c->shard, 2);
    put_be(raw + 8, t->no, 5);
    put_be(raw + 13, check_bits(c, ms, t->no, core_sym(c, t->tenant)), 3);
    memcpy(ret->z, "task_", 5);
    base32_put(ret->z + 5, raw);
    ret->z[TASK_ID_LEN] = 0;
}

/* Did this shard give out this id, to this tenant (empty: to any)? */
static bool was_issued(const Core *c, uint64_t ms, uint64_t no, uint32_t check, Str tenant)
{
    if (tenant.n) return check_bits(c, ms, no, tenant) == check;
    for (uint32_t i = 0; i < c->tenants_len; i++)
        if (check_bits(c, ms, no, core_sym(c, c->tenants[i].sym)) == check) return true;
    return false;
}

bool id_fits(Str id)
{
    for (size_t i = 0; i < id.n; i++) {
        char c = id.p[i];
        if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
              c == '_'))
            return false;
    }
    return true;
}

uint64_t core_id_no(Str id)
{
    uint8_t raw[16];
    if (!str_starts(id, STR("task_")) || base32_get((Str){id.p + 5, id.n - 5}, raw)) return 0;
    return get_be(raw + 8, 5);
}

Code core_find(const Core *c, Str id, Str tenant, Task **ret)
{
    uint8_t raw[16];
    if (!str_starts(id, STR("task_")) || base32_get((Str){id.p + 5, id.n - 5}, raw))
        return CODE_NOT_FOUND;
    uint64_t ms = get_be(raw, 6), no = get_be(raw + 8, 5);
    uint32_t check = (uint32_t)get_be(raw + 13, 3);
    if (get_be(raw + 6, 2) != c->shard || no == 0 || no >= c->next_no) return CODE_NOT_FOUND;
    Task *t = core_task(c, no);
    if (!t) return was_issued(c, ms, no, check, tenant) ? CODE_GONE : CODE_NOT_FOUND;
    Str owner = core_sym(c, t->tenant);
    if (tenant.n && !str_eq(tenant, owner)) return CODE_NOT_FOUND;
    if ((uint64_t)(t->created_ns / NS_PER_MS) != ms || check_bits(c, ms, no, owner) != check)
        return CODE_NOT_FOUND;
    *ret = t;
    return CODE_OK;
}

Digest128 idem_key(Str tenant, Str key)
{
    uint8_t text[64 + 1 + 256];
    Sha256 d;
    size_t nt = MIN(tenant.n, (size_t)64), nk = MIN(key.n, (size_t)256);
    memcpy(text, tenant.p, nt);
    text[nt] = 0;
    memcpy(text + nt + 1, key.p, nk);
    sha256(text, nt + 1 + nk, &d);
    return (Digest128){load_u64(d.b), load_u64(d.b + 8)};
}
