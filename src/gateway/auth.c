/* Keys, scopes, tenants, rates. A key is compared by its SHA-256 with every known one in constant
 * time. */
#include "gateway/internal.h"

#include <string.h>

#define DEFAULT_TENANT STR("default")

static const GatewayKey *find_key(Gateway *g, Str text)
{
    Sha256 d;
    sha256(text.p, text.n, &d);
    const GatewayKey *found = NULL;
    for (size_t i = 0; i < g->keys_len; i++) {
        static const Sha256 none;
        if (bytes_eq_const_time(&g->keys[i].sha256, &none, sizeof none))
            continue; /* no worker key set */
        if (bytes_eq_const_time(&g->keys[i].sha256, &d, sizeof d) && !found) found = &g->keys[i];
    }
    return found;
}

static const GatewayKey *known_key(Exchange *x, Str text)
{
    AuthCache *c = x->auth;
    /* The cache holds only what this very peer has sent: comparing with it tells nobody anything.
     * */
    if (c && c->key && c->len == text.n && memcmp(c->text, text.p, text.n) == 0) return c->key;
    const GatewayKey *k = find_key(x->g, text);
    if (c && k && text.n <= sizeof c->text) {
        memcpy(c->text, text.p, text.n);
        c->len = text.n;
        c->key = k;
    }
    return k;
}

static const char *scope_names(uint32_t scope)
{
    if (scope & SCOPE_SUBMIT && scope & SCOPE_READ) return "read or submit";
    if (scope & SCOPE_SUBMIT) return "submit";
    if (scope & SCOPE_READ) return "read";
    if (scope & SCOPE_OPERATE) return "operate";
    if (scope & SCOPE_WORKER) return "worker";
    return "admin";
}

bool auth_check(Exchange *x)
{
    Gateway *g = x->g;
    const Route *r = x->route;
    x->tenant = DEFAULT_TENANT;
    if (r->flags & ROUTE_OPEN) return true;
    Str header = http_field(x->req, "Authorization");
    if (!header.p) {
        if (g->keyless && !(r->flags & ROUTE_WORKER)) {
            x->any_tenant = true;
            x->scopes = SCOPE_SUBMIT | SCOPE_READ | SCOPE_OPERATE | SCOPE_ADMIN;
            return true;
        }
        problem_say(
            x, 401, CODE_UNAUTHORIZED, NULL, "send a key: Authorization: Bearer %s",
            r->flags & ROUTE_WORKER
                ? "KEY, where KEY is the worker key (serve writes its own to DATA/worker.key)"
                : "hr_live_…");
        return false;
    }
    Str text = http_bearer(header);
    if (!text.n) {
        problem_say(x, 401, CODE_UNAUTHORIZED, NULL,
                    "the header Authorization must be: Bearer KEY");
        return false;
    }
    const GatewayKey *k = known_key(x, text);
    if (!k) {
        problem_say(x, 401, CODE_UNAUTHORIZED, NULL, "the key is not known%s",
                    g->keyless ? "; this server has no API keys: leave the header Authorization out"
                               : "");
        return false;
    }
    if (k->expires_ns && now_of(g) >= k->expires_ns) {
        problem_say(x, 401, CODE_UNAUTHORIZED, NULL, "the key has expired; ask for a new one");
        return false;
    }
    x->scopes = k->scopes;
    x->any_tenant = (k->scopes & SCOPE_ADMIN) != 0;
    x->foreign_worker = k != &g->keys[g->keys_len - 1]; /* the last one: server.c */
    if (k->tenant[0]) x->tenant = str_from(k->tenant);
    if (auth_scope(x, r->scope)) return true;
    problem_say(x, 403, CODE_FORBIDDEN, NULL, "the key lacks the scope %s", scope_names(r->scope));
    return false;
}

bool auth_scope(Exchange *x, uint32_t scope)
{
    if (x->scopes & SCOPE_ADMIN && scope != SCOPE_WORKER) return true;
    return (x->scopes & scope) != 0;
}

/* ---- rates ---- */

typedef struct {
    TableNode node;
    char tenant[64];
    double tokens;
    int64_t at_ns;
} Bucket;

static Bucket *bucket_of(Gateway *g, Str tenant)
{
    uint64_t h = hash_bytes(tenant.p, tenant.n);
    for (TableNode *n = table_first(&g->buckets, h); n; n = table_next(n)) {
        Bucket *b = CONTAINER_OF(n, Bucket, node);
        if (str_eqz(tenant, b->tenant)) return b;
    }
    Bucket *b = mem_new(
        sizeof *b); /* tenants come from keys: there are as many as somebody configured */
    memcpy(b->tenant, tenant.p, MIN(tenant.n, sizeof b->tenant - 1));
    b->tokens = MAX(g->o.tenant_rate, 1.0);
    b->at_ns = now_of(g);
    table_add(&g->buckets, &b->node, h);
    return b;
}

bool auth_rate(Exchange *x, Str tenant, bool headers, uint32_t *ret_retry_ms)
{
    Gateway *g = x->g;
    double rate = g->o.tenant_rate;
    if (rate <= 0) return true;
    Bucket *b = bucket_of(g, tenant);
    int64_t now = now_of(g);
    double most = MAX(rate, 1.0);
    b->tokens = MIN(most, b->tokens + (double)(now - b->at_ns) / 1e9 * rate);
    b->at_ns = now;
    bool fine = b->tokens >= 1;
    if (fine) b->tokens -= 1;
    double wait_s = fine ? 0 : (1 - b->tokens) / rate;
    if (headers) {
        exchange_header(x, "RateLimit-Policy", "\"tenant\";q=%.0f;w=%d", most,
                        rate >= 1 ? 1 : (int)(1 / rate + 0.999));
        exchange_header(x, "RateLimit", "\"tenant\";r=%d;t=%d", (int)b->tokens,
                        (int)(wait_s + 0.999));
    }
    *ret_retry_ms = (uint32_t)(wait_s * 1000) + 1;
    return fine;
}

void auth_done_gateway(Gateway *g)
{
    TableIter at = {0};
    TableNode *n;
    while ((n = table_each(&g->buckets, &at))) mem_free(CONTAINER_OF(n, Bucket, node));
    table_done(&g->buckets);
}
