/* fleet_warm.c: how many devices keep a model loaded: its model.yaml's min_warm, or an operator's
 * order, which goes over it and is on record. The scheduler does the rest.
 *
 *  W1  An order is the flags (model_warm, NAME) and (model_warm_N, NAME), at most one N.
 *  W2  Only the latest version of a model is kept warm: it is what tasks get that name none. */
#include "node/fleet.h"
#include "node/inside.h"

#include <stdio.h>

#include "wire/json.h"

static Str number_flag(int n, char text[24])
{
    snprintf(text, 24, "model_warm_%d", n);
    return str_from(text);
}

/* −1: there is none. */
static int warm_order(const Core *c, Str name)
{
    char text[24];
    if (!core_flag(c, STR("model_warm"), name)) return -1;
    for (int n = 0; n <= WARM_MAX; n++)
        if (core_flag(c, number_flag(n, text), name)) return n;
    return -1;
}

uint32_t fleet_min_warm(const Fleet *f, const ModelState *m, bool *ret_ordered)
{
    const Core *c = f->shard->core;
    Str name = core_sym(c, m->name);
    const ModelEntry *latest = core_model_latest(c, name);
    *ret_ordered = false;
    if (!latest || latest->version != m->version) return 0; /* keeps W2 */
    int order = warm_order(c, name);
    *ret_ordered = order >= 0;
    return order >= 0 ? (uint32_t)order : m->min_warm;
}

void fleet_announce_all(Fleet *f, Sym name)
{
    const ModelEntry *models;
    size_t n = core_models(f->shard->core, &models);
    for (size_t i = 0; i < n; i++)
        if (models[i].name == name)
            fleet_model_announce(f, fleet_model_state(f, name, models[i].version));
}

Decision fleet_warm(Fleet *f, Str name, int replicas)
{
    Shard *s = f->shard;
    Core *c = s->core;
    Decision d = {.code = CODE_OK};
    const ModelEntry *latest = core_model_latest(c, name);
    char text[24];
    if (!latest) {
        d.code = CODE_UNKNOWN_MODEL;
        snprintf(d.detail, sizeof d.detail, "there is no such model; GET /v1/models lists them");
        return d;
    }
    CHECK(replicas >= -1 && replicas <= WARM_MAX);
    int before = warm_order(c, name);
    if (before == replicas) return d;
    (void)core_set_flag(c, STR("model_warm"), name, replicas >= 0, &s->builder);
    if (before >= 0) (void)core_set_flag(c, number_flag(before, text), name, false, &s->builder);
    if (replicas >= 0) (void)core_set_flag(c, number_flag(replicas, text), name, true, &s->builder);
    if (!shard_commit(s, true, &d)) return d;
    fleet_announce_all(f, latest->name); /* latest may have moved: only its name is used */
    return d;
}

/* Why it is not warm on as many devices as it is to be; nothing when it is. */
static void put_why_not(const Fleet *f, const ModelState *m, uint32_t want, const SchedStanding *st,
                        Buf *b)
{
    if (st->warm >= want) return;
    if (!st->starts)
        (void)fleet_why_waits(f, m->name, m->version, b);
    else if (st->open < want)
        buf_printf(b, "only %zu device(s) are able to run it now", st->open);
    else
        buf_puts(b,
                 "the others are busy, or their memory is taken by models that are kept warm, too");
}

void fleet_warm_json(const Fleet *f, const ModelState *m, Buf *b)
{
    bool ordered;
    uint32_t want = fleet_min_warm(f, m, &ordered);
    if (!want && !ordered) return;
    SchedStanding st;
    Buf why = {0};
    sched_model_standing(f->shard->sched, m->name, m->version, &st);
    put_why_not(f, m, want, &st, &why);
    buf_printf(b, ",\"warm\":{\"replicas\":%u,\"loaded\":%zu,\"ordered\":%s", want, st.warm,
               ordered ? "true" : "false");
    if (why.len) {
        buf_puts(b, ",\"reason\":");
        json_put_str(b, buf_str(&why));
    }
    buf_putc(b, '}');
    buf_done(&why);
}
