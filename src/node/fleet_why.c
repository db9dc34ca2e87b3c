/* fleet_why.c: why the tasks of a model do not start. A queued task never waits without a reason
 * that its owner can read: it is its turn that has not come, or what is said here. */
#include "node/fleet.h"
#include "node/inside.h"

#include "wire/json.h"

#define SAY_AFTER_NS (2 * NS_PER_S) /* shorter waits, as at a start, are not worth a line */

const char *wait_reason_name(WaitReason r)
{
    static const char *const names[] = {
        [WAIT_TURN] = "",
        [WAIT_PAUSED] = "paused",
        [WAIT_NO_WORKER] = "no_worker",
        [WAIT_NO_DEVICE] = "no_device",
        [WAIT_NO_MEMORY] = "no_memory",
        [WAIT_LOAD_FAILED] = "load_failed",
        [WAIT_UNAVAILABLE] = "unavailable",
    };
    return names[r];
}

static bool worker_has(const Worker *w, Sym name, Sym version)
{
    for (uint32_t i = 0; i < w->models_len; i++)
        if (w->models[i].name == name && w->models[i].version == version) return true;
    return false;
}

static bool worker_is_refused(const Worker *w, Sym name, Sym version)
{
    for (uint32_t i = 0; i < w->refused_len; i++)
        if (w->refused[i].name == name && w->refused[i].version == version) return true;
    return false;
}

static void put_clause(Buf *b, const char *fmt, ...) HR_PRINTF(2, 3);
static void put_clause(Buf *b, const char *fmt, ...)
{
    if (b->len) buf_puts(b, "; ");
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(b, fmt, ap);
    va_end(ap);
}

/* Nobody has it: who is there instead? */
static void put_nobody(const Fleet *f, Sym name, Sym version, Buf *b)
{
    const Core *c = f->shard->core;
    size_t connected = 0;
    const Worker *refused = NULL;
    LIST_FOR (w, &f->workers, Worker, in_fleet) {
        connected += w->stream;
        if (w->stream && worker_is_refused(w, name, version)) refused = w;
    }
    Str n = core_sym(c, name), v = core_sym(c, version);
    if (!connected)
        put_clause(b, "no worker is connected");
    else if (refused)
        put_clause(b, "worker %s has %.*s:%.*s with another digest; give it a new version",
                   refused->name, STR_ARG(n), STR_ARG(v));
    else
        put_clause(b, "%s %.*s:%.*s",
                   connected == 1 ? "the only worker connected has other models: it lacks"
                                  : "none of the workers connected has",
                   STR_ARG(n), STR_ARG(v));
}

/* What keeps the devices that could hold it. */
typedef struct {
    const Device *largest; /* too small; NULL: none is */
    uint64_t needs;        /* there */
    bool measured;
    const DeviceModel *failed; /* the one that is tried again first */
    const Device *failed_on;
    const Worker *away; /* cordoned, silent …; the first */
    size_t away_len;
    const Device *handed_back; /* it gives back whatever it gets */
    bool unfit;                /* of another kind than it wants */
} Obstacles;

static bool fits(const Device *d, const DeviceModel *m)
{
    return !d->memory_bytes || m->needs <= d->memory_bytes;
}

static void look_at_device(const Device *d, const DeviceModel *m, Obstacles *o)
{
    if (m->unfit) {
        o->unfit |= d->worker->stream;
    } else if (!fits(d, m)) {
        if (o->largest && o->largest->memory_bytes >= d->memory_bytes) return;
        o->largest = d;
        o->needs = m->needs;
        o->measured = m->measured;
    } else if (worker_keeps_away(d->worker)) {
        if (!o->away) o->away = d->worker;
        o->away_len++;
    } else if (m->retry_ns) {
        if (o->failed && o->failed->retry_ns <= m->retry_ns) return;
        o->failed = m;
        o->failed_on = d;
    } else if (d->held_until_ns) {
        o->handed_back = d;
    }
}

static void put_too_small(const Obstacles *o, Buf *b)
{
    Buf needs = {0}, has = {0};
    buf_put_size(&needs, o->needs);
    buf_put_size(&has, o->largest->memory_bytes);
    if (str_eq(buf_str(&needs), buf_str(&has))) { /* rounding would hide what it is about */
        buf_clear(&needs);
        buf_clear(&has);
        buf_printf(&needs, "%llu bytes", (unsigned long long)o->needs);
        buf_printf(&has, "%llu", (unsigned long long)o->largest->memory_bytes);
    }
    put_clause(b, "needs %s%s; the largest device%s has %s (worker %s)", buf_z(&needs),
               o->measured ? ", as measured" : "", o->away || o->failed ? " but those" : "",
               buf_z(&has), o->largest->worker->name);
    buf_done(&needs);
    buf_done(&has);
}

static void put_failed(const Obstacles *o, Buf *b)
{
    const DeviceModel *m = o->failed;
    put_clause(b, "worker %s could not load it: %s; tried again at ", o->failed_on->worker->name,
               m->problem ? m->problem : "it did not say why");
    buf_put_time(b, m->retry_ns);
}

WaitReason fleet_why_waits(const Fleet *f, Sym name, Sym version, Buf *ret)
{
    const Core *c = f->shard->core;
    Buf none = {0}, *b = ret ? ret : &none;
    WaitReason why = WAIT_TURN;
    if (sched_model_starts(f->shard->sched, name, version)) return why;
    Str n = core_sym(c, name);
    if (core_flag(c, STR("model_paused"), n)) {
        put_clause(b, "the model is paused; `headrace resume %.*s` lets its tasks start",
                   STR_ARG(n));
        buf_done(&none);
        return WAIT_PAUSED;
    }
    Obstacles o = {0};
    LIST_FOR (w, &f->workers, Worker, in_fleet) {
        if (!worker_has(w, name, version)) continue;
        for (uint32_t i = 0; i < w->devices_len; i++) {
            const DeviceModel *m = device_model(w->devices[i], name, version);
            if (m) look_at_device(w->devices[i], m, &o);
        }
    }
    if (o.failed) put_failed(&o, b);
    if (o.away) {
        put_clause(b, "worker %s is %s", o.away->name, worker_standing(o.away));
        if (o.away_len > 1)
            buf_printf(b, ", and %zu more devices are not to be had", o.away_len - 1);
    }
    if (o.handed_back)
        put_clause(b, "worker %s hands its tasks back at once", o.handed_back->worker->name);
    if (o.largest) put_too_small(&o, b);
    why = o.failed                  ? WAIT_LOAD_FAILED
          : o.away || o.handed_back ? WAIT_UNAVAILABLE
          : o.largest               ? WAIT_NO_MEMORY
          : o.unfit                 ? WAIT_NO_DEVICE
                                    : WAIT_NO_WORKER;
    if (why == WAIT_NO_DEVICE)
        put_clause(b, "no device of kind %s is connected",
                   fleet_model_find(f, name, version)->device_kind);
    if (why == WAIT_NO_WORKER) put_nobody(f, name, version, b);
    buf_done(&none);
    return why;
}

void fleet_reason_json(const Fleet *f, Sym name, Sym version, Buf *ret)
{
    Buf text = {0};
    WaitReason why = fleet_why_waits(f, name, version, &text);
    if (why != WAIT_TURN) {
        buf_puts(ret, ",\"reason\":");
        json_put_str(ret, buf_str(&text));
        buf_printf(ret, ",\"reason_code\":\"%s\"", wait_reason_name(why));
    }
    buf_done(&text);
}

/* Once when tasks begin to wait for another reason than their turn, once when that is over. */
void fleet_say_waits(Fleet *f, int64_t now)
{
    const Core *c = f->shard->core;
    TableNode *n;
    for (TableIter it = {0}; (n = table_each(&f->models, &it));) {
        ModelState *m = CONTAINER_OF(n, ModelState, by_name);
        SchedStanding st;
        sched_model_standing(f->shard->sched, m->name, m->version, &st);
        if (!st.ready || st.starts) {
            if (m->said && st.ready)
                say_info("tasks of %.*s:%.*s can start again", STR_ARG(core_sym(c, m->name)),
                         STR_ARG(core_sym(c, m->version)));
            m->stuck_since_ns = 0;
            m->said = WAIT_TURN;
            continue;
        }
        if (!m->stuck_since_ns) m->stuck_since_ns = now;
        if (now - m->stuck_since_ns < SAY_AFTER_NS) {
            f->next_look_ns = MIN(f->next_look_ns, m->stuck_since_ns + SAY_AFTER_NS);
            continue;
        }
        Buf text = {0};
        WaitReason why = fleet_why_waits(f, m->name, m->version, &text);
        if ((int)why != m->said && why != WAIT_TURN)
            say_warn("%zu task(s) of %.*s:%.*s cannot start: %s", st.ready,
                     STR_ARG(core_sym(c, m->name)), STR_ARG(core_sym(c, m->version)), buf_z(&text));
        m->said = (int)why;
        buf_done(&text);
    }
}
