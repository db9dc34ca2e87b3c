#include "task/core.h"

Sym core_sym_find(const Core *c, Str s)
{
    uint64_t hash = hash_bytes(s.p, s.n);
    for (TableNode *n = table_first(&c->symbols_by_text, hash); n; n = table_next(n)) {
        const Symbol *symbol = CONTAINER_OF(n, Symbol, node);
        if (str_eq((Str){symbol->text, symbol->len}, s)) return symbol->sym;
    }
    return 0;
}

Sym sym_intern(Core *c, Str s)
{
    if (s.n == 0) return 0;
    Sym known = core_sym_find(c, s);
    if (known) return known;
    if (c->symbols_len == c->symbols_cap) {
        uint32_t cap = c->symbols_cap ? c->symbols_cap * 2 : 64;
        c->symbols = mem_grow(c->symbols, cap * sizeof *c->symbols);
        c->tenant_of = mem_grow(c->tenant_of, (cap + 1) * sizeof *c->tenant_of);
        for (uint32_t i = c->symbols_cap ? c->symbols_cap + 1 : 0; i <= cap; i++)
            c->tenant_of[i] = 0;
        c->symbols_cap = cap;
    }
    Symbol *symbol = mem_new(sizeof *symbol);
    symbol->text = mem_dup(s.p, s.n);
    symbol->len = (uint32_t)s.n;
    symbol->sym = ++c->symbols_len;
    c->symbols[symbol->sym - 1] = symbol;
    table_add(&c->symbols_by_text, &symbol->node, hash_bytes(s.p, s.n));
    return symbol->sym;
}

Str core_sym(const Core *c, Sym s)
{
    if (s == 0) return STR("");
    CHECK(s <= c->symbols_len);
    return (Str){c->symbols[s - 1]->text, c->symbols[s - 1]->len};
}

const Tenant *tenant_find(const Core *c, Sym s)
{
    if (s == 0 || s > c->symbols_len || !c->tenant_of[s]) return NULL;
    return &c->tenants[c->tenant_of[s] - 1];
}

Tenant *tenant_get(Core *c, Sym s)
{
    CHECK(s > 0 && s <= c->symbols_len);
    if (!c->tenant_of[s]) {
        if (c->tenants_len == c->tenants_cap) {
            c->tenants_cap = c->tenants_cap ? c->tenants_cap * 2 : 16;
            c->tenants = mem_grow(c->tenants, c->tenants_cap * sizeof *c->tenants);
        }
        c->tenants[c->tenants_len++] = (Tenant){.sym = s};
        c->tenant_of[s] = c->tenants_len;
    }
    return &c->tenants[c->tenant_of[s] - 1];
}

size_t core_tenants(const Core *c, const Tenant **ret)
{
    *ret = c->tenants;
    return c->tenants_len;
}

Sym core_tenant_configure(Core *c, Str name, uint64_t queued_max)
{
    Tenant *t = tenant_get(c, sym_intern(c, name));
    t->queued_max = queued_max;
    return t->sym;
}
