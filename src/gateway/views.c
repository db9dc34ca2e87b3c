/* What people see of models, workers, queues and tenants, and what they order. */
#include "gateway/internal.h"

#include <string.h>

#define WARM_MAX 64 /* as node/fleet.h */

/* ---- models ---- */

static void put_version(Gateway *g, const ModelEntry *m, Buf *b)
{
    Core *c = core_of(g);
    char hex[65];
    sha256_hex(&m->digest, hex);
    buf_puts(b, "{\"name\":");
    json_put_str(b, core_sym(c, m->name));
    buf_puts(b, ",\"version\":");
    json_put_str(b, core_sym(c, m->version));
    buf_printf(b, ",\"digest\":\"%s\",\"paused\":%s,\"info\":", hex, m->paused ? "true" : "false");
    buf_puts(b, m->info && m->info[0] ? m->info : "{}");
    g->p.model_json(g->p.ctx, m, b);
    buf_putc(b, '}');
}

/* A model: its name, whether it is paused, and its versions. False: there is none of that name. */
static bool put_model(Gateway *g, Str name, Buf *b)
{
    Core *c = core_of(g);
    const ModelEntry *all, *latest = core_model_latest(c, name);
    if (!latest) return false;
    size_t n = core_models(c, &all);
    buf_puts(b, "{\"name\":");
    json_put_str(b, name);
    buf_puts(b, ",\"latest\":");
    json_put_str(b, core_sym(c, latest->version));
    buf_puts(b, ",\"paused\":");
    buf_puts(b, latest->paused ? "true" : "false");
    buf_puts(b, ",\"versions\":[");
    bool first = true;
    for (size_t i = 0; i < n; i++) {
        if (!str_eq(core_sym(c, all[i].name), name)) continue;
        if (!first) buf_putc(b, ',');
        first = false;
        put_version(g, &all[i], b);
    }
    buf_puts(b, "]}");
    return true;
}

void view_models(Exchange *x)
{
    Gateway *g = x->g;
    Core *c = core_of(g);
    const ModelEntry *all;
    size_t n = core_models(c, &all);
    exchange_hold(x, g->p.last_seq(g->p.ctx));
    buf_clear(&g->body);
    buf_puts(&g->body, "{\"models\":[");
    bool first = true;
    for (size_t i = 0; i < n; i++) {
        bool seen = false;
        for (size_t k = 0; k < i && !seen; k++) seen = all[k].name == all[i].name;
        if (seen) continue;
        if (!first) buf_putc(&g->body, ',');
        first = false;
        (void)put_model(g, core_sym(c, all[i].name), &g->body);
    }
    buf_puts(&g->body, "]}");
    exchange_reply_json(x, 200);
}

static void no_model(Exchange *x)
{
    problem_say(x, 404, CODE_UNKNOWN_MODEL, NULL,
                "there is no such model; GET /v1/models lists what there is");
}

void view_model(Exchange *x)
{
    Gateway *g = x->g;
    buf_clear(&g->body);
    if (!put_model(g, x->params[0], &g->body)) {
        no_model(x);
        return;
    }
    exchange_hold(x, g->p.last_seq(g->p.ctx));
    exchange_reply_json(x, 200);
}

void view_version(Exchange *x)
{
    Gateway *g = x->g;
    const ModelEntry *m = core_model(core_of(g), x->params[0], x->params[1]);
    if (!m) {
        no_model(x);
        return;
    }
    exchange_hold(x, g->p.last_seq(g->p.ctx));
    buf_clear(&g->body);
    put_version(g, m, &g->body);
    exchange_reply_json(x, 200);
}

static void pause_or_resume(Exchange *x, bool paused)
{
    Gateway *g = x->g;
    if (!core_model_latest(core_of(g), x->params[0])) {
        no_model(x);
        return;
    }
    Decision d = g->p.pause_model(g->p.ctx, x->params[0], paused);
    if (d.code != CODE_OK) {
        Problem p = problem_of_decision(&d);
        problem_reply(x, &p);
        return;
    }
    view_model(x);
}

void view_pause(Exchange *x)
{
    pause_or_resume(x, true);
}

void view_resume(Exchange *x)
{
    pause_or_resume(x, false);
}

/* {"replicas": N}, or null for what its model.yaml says. */
void view_warm(Exchange *x)
{
    Gateway *g = x->g;
    static const char *const names[] = {"replicas", NULL};
    JsonFault f = {0};
    uint64_t n = 0;
    if (!core_model_latest(core_of(g), x->params[0])) {
        no_model(x);
        return;
    }
    if (json_read_object(&g->json, x->req->body, names, &f)) {
        const JsonMember *m = NULL; /* json_member takes null for nothing */
        for (size_t i = 0; i < g->json.members_len; i++) m = &g->json.members[i];
        if (!m)
            json_fault(&f, "replicas",
                       "\"replicas\" is missing: a whole number from 0 to %d, or "
                       "null for what the model's own min_warm says",
                       WARM_MAX);
        else if (yyjson_is_null(m->val))
            n = UINT64_MAX;
        else
            (void)json_uint(m, 0, WARM_MAX, &n, &f);
    }
    if (f.bad) {
        Problem p = problem_of_fault(&f);
        problem_reply(x, &p);
        return;
    }
    Decision d = g->p.warm_model(g->p.ctx, x->params[0], n == UINT64_MAX ? -1 : (int)n);
    if (d.code != CODE_OK) {
        Problem p = problem_of_decision(&d);
        problem_reply(x, &p);
        return;
    }
    view_model(x);
}

/* ---- workers ---- */

void view_workers(Exchange *x)
{
    Gateway *g = x->g;
    buf_clear(&g->body);
    buf_puts(&g->body, "{\"workers\":");
    g->p.workers_json(g->p.ctx, (Str){"", 0}, &g->body);
    buf_putc(&g->body, '}');
    exchange_reply_json(x, 200);
}

void view_worker(Exchange *x)
{
    Gateway *g = x->g;
    buf_clear(&g->body);
    g->p.workers_json(g->p.ctx, x->params[0], &g->body);
    if (!g->body.len) {
        problem_say(x, 404, CODE_NOT_FOUND, NULL,
                    "there is no such worker; GET /v1/workers lists those there are");
        return;
    }
    exchange_hold(x, g->p.last_seq(g->p.ctx));
    exchange_reply_json(x, 200);
}

static void order(Exchange *x, Str what)
{
    Gateway *g = x->g;
    Decision d = g->p.worker_order(g->p.ctx, x->params[0], what);
    if (d.code != CODE_OK) {
        Problem p = problem_of_decision(&d);
        problem_reply(x, &p);
        return;
    }
    view_worker(x);
}

void view_drain(Exchange *x)
{
    order(x, STR("drain"));
}

void view_cordon(Exchange *x)
{
    order(x, STR("cordon"));
}

void view_uncordon(Exchange *x)
{
    order(x, STR("uncordon"));
}

/* ---- queues and tenants ---- */

void view_queues(Exchange *x)
{
    Gateway *g = x->g;
    buf_clear(&g->body);
    buf_puts(&g->body, "{\"queues\":");
    g->p.queues_json(g->p.ctx, &g->body);
    buf_putc(&g->body, '}');
    exchange_reply_json(x, 200);
}

void view_tenants(Exchange *x)
{
    Gateway *g = x->g;
    Core *c = core_of(g);
    const Tenant *all;
    size_t n = core_tenants(c, &all);
    Buf *b = &g->body;
    exchange_hold(x, g->p.last_seq(g->p.ctx));
    buf_clear(b);
    buf_puts(b, "{\"tenants\":[");
    bool first = true;
    for (size_t i = 0; i < n; i++) {
        const Tenant *t = &all[i];
        Str name = core_sym(c, t->sym);
        if (!x->any_tenant && !str_eq(name, x->tenant)) continue;
        if (!first) buf_putc(b, ',');
        first = false;
        buf_puts(b, "{\"name\":");
        json_put_str(b, name);
        for (TaskState s = TASK_QUEUED; s < TASK_STATES; s++)
            buf_printf(b, ",\"%s\":%llu", task_state_name(s), (unsigned long long)t->tasks[s]);
        buf_printf(b,
                   ",\"submitted_total\":%llu,\"idempotency_keys\":%llu,\"device_ms_total\":%llu}",
                   (unsigned long long)t->submitted_total, (unsigned long long)t->idem_keys,
                   (unsigned long long)(t->device_ns_total / NS_PER_MS));
    }
    buf_puts(b, "]}");
    exchange_reply_json(x, 200);
}
