/* device.c: the devices: what they can run, hold and do, and the ledger of their time.
 *
 * D1  A fit is able when the device can run the model and has memory for it with nothing else
 *     resident; model.able counts those.
 * D2  While its device is open and the fit is able: a fit is in its model's idle heap if the device
 *     is idle, in its joinable heap if the device runs just this model, continuously, with room in
 *     the batch and no solo task. Otherwise it is in neither.
 * D3  Idle residents may be evicted, and only they: eviction happens on an idle device alone.
 * D4  A device is claimed for at most one group, and a model has at most one claim: d.claim = g
 *     exactly if g.model.claim is their fit. bound = CLASSES while there is no claim. In the heaps,
 *     a fit whose device is claimed for another model comes behind all with a higher bound, so if
 *     the first is not open to a class, none is.
 * D5  busy_ns + idle_ns = booked_ns − the time it was added; idle_with_work_ns ≤ idle_ns.
 * D6  A fit is warm while it is resident, able, and its device open; model.warm counts those.
 * D7  A warm fit is kept while its model has no more of them than its min_warm. What is not kept is
 *     evicted before any that is. */
#include "sched/inner.h"

/* Order: joinable ones by what runs there already; idle ones: resident, then those that must load,
 * first where there is room, then where what is kept may stay, then where little is held. */
#define FREE_CLAIMED (INT64_C(1) << 48)
#define FREE_SWAP    (INT64_C(1) << 40)
#define FREE_KEPT    (INT64_C(1) << 36)
#define FREE_EVICT   (INT64_C(1) << 32)

#define LOAD_GUESS_NS NS_PER_S

Device *device_of(const Sched *s, SchedDeviceId d)
{
    return d < s->devices_len ? s->devices[d] : NULL;
}

Fit *fit_of(Device *d, Model *m)
{
    LIST_FOR (f, &d->fits, Fit, in_device) {
        if (f->model == m) return f;
    }
    Fit *f = mem_new(sizeof *f);
    f->model = m;
    f->device = d;
    list_push_back(&d->fits, &f->in_device);
    list_push_back(&m->fits, &f->in_model);
    return f;
}

uint64_t fit_needs(const Fit *f)
{
    return f->needs ? f->needs : f->model->is.memory_bytes;
}

void fit_refresh(Sched *s, Fit *f)
{
    uint64_t have = f->device->memory_bytes;
    bool able = f->can && (!have || fit_needs(f) <= have);
    if (able == f->able) return;
    f->able = able; /* keeps D1 */
    f->model->able += able ? 1 : (size_t)-1;
    model_serve(s, f->model);
}

static bool model_kept(const Model *m)
{
    return m->is.min_warm && m->warm <= m->is.min_warm;
}

bool fit_kept(const Fit *f)
{
    return f->warm && model_kept(f->model);
}

uint64_t device_room(const Device *d, bool all_gone_but_kept)
{
    if (!d->memory_bytes) return UINT64_MAX;
    uint64_t used = 0;
    LIST_FOR (f, &d->fits, Fit, in_device) {
        if (f->resident && (!all_gone_but_kept || fit_kept(f))) used += fit_needs(f);
    }
    return d->memory_bytes - MIN(used, d->memory_bytes);
}

static void fit_place(Fit *f, Heap *where, int64_t cost)
{
    if (f->where && f->where != where) heap_del(f->where, &f->free);
    f->where = where;
    if (where) heap_set(where, &f->free, cost, f->device->id);
}

/* Counts f among its model's warm ones, or not; true: others of the model are kept now that were
 * not, or the reverse. */
static bool fit_count(Fit *f)
{
    Model *m = f->model;
    bool warm = f->resident && f->able && f->device->open, kept = model_kept(m);
    if (warm == f->warm) return false;
    f->warm = warm; /* keeps D6 */
    m->warm += warm ? 1 : (size_t)-1;
    return model_kept(m) != kept;
}

static void place(Sched *s, Device *d)
{
    uint64_t room = device_room(d, false), room_but_kept = device_room(d, true);
    int64_t residents = 0;
    LIST_FOR (f, &d->fits, Fit, in_device) residents += f->resident;
    LIST_FOR (f, &d->fits, Fit, in_device) {
        const SchedModel *m = &f->model->is;
        s->steps++;
        bool joins = d->runs == f->model && m->continuous && d->running < m->max_batch && !d->solo;
        int64_t cost = (int64_t)d->running;
        if (!f->resident && !d->running) {
            cost = FREE_SWAP + residents;
            if (fit_needs(f) > room) cost += FREE_EVICT;
            if (fit_needs(f) > room_but_kept) cost += FREE_KEPT;
        }
        if (d->claim && d->claim->model != f->model) cost += (CLASSES - d->bound) * FREE_CLAIMED;
        Heap *where = !d->running ? &f->model->idle : joins ? &f->model->joinable : NULL;
        fit_place(f, d->open && f->able ? where : NULL, cost); /* keeps D2 */
    }
}

static void model_replace(Sched *s, Model *m)
{
    LIST_FOR (f, &m->fits, Fit, in_model) {
        s->steps++;
        if (f->resident) place(s, f->device);
    }
}

void device_place(Sched *s, Device *d)
{
    LIST_FOR (f, &d->fits, Fit, in_device) {
        if (fit_count(f)) model_replace(s, f->model);
    }
    place(s, d);
}

void device_book(Device *d, int64_t now_ns)
{
    int64_t spent = now_ns - d->booked_ns;
    if (spent <= 0) return; /* time never steps back; keeps D5 all the same */
    d->booked_ns = now_ns;
    if (d->running) {
        d->busy_ns += spent;
    } else {
        d->idle_ns += spent;
        if (device_held(d)) d->idle_with_work_ns += spent;
    }
}

/* ---- residency: GreedyDual with frequency and size (Young, SODA'91; Cherkasova, HPL-98-69) ----
 * */

static void fit_value(Fit *f)
{
    const SchedModel *m = &f->model->is;
    double load = (double)(m->load_ns > 0 ? m->load_ns : LOAD_GUESS_NS);
    double size = (double)MAX(fit_needs(f), MIB);
    f->value = f->device->floor + f->uses * load / size;
}

static void fit_reside(Fit *f, bool resident)
{
    if (f->resident == resident) return;
    f->resident = resident;
    f->uses = resident ? 1 : 0;
    fit_value(f);
}

void fit_evict(Sched *s, Fit *f)
{
    f->device->floor = f->value;
    fit_reside(f, false);
    device_place(s, f->device);
}

void fit_load(Sched *s, Fit *f)
{
    fit_reside(f, true);
    device_place(s, f->device);
}

void fit_run(Fit *f, size_t tasks, bool solo, int64_t now_ns)
{
    Device *d = f->device;
    device_book(d, now_ns);
    list_del(&d->held);
    if (f->resident) {
        f->uses++;
        fit_value(f);
    }
    fit_reside(f, true);
    d->runs = d->running && d->runs != f->model ? NULL : f->model;
    d->running += tasks;
    d->solo |= solo;
}

Fit *device_victim(const Fit *need)
{
    const Device *d = need->device;
    if (fit_needs(need) <= device_room(d, false)) return NULL;
    CHECK(d->running == 0); /* D3 */
    Fit *least = NULL;
    LIST_FOR (f, &d->fits, Fit, in_device) {
        if (!f->resident) continue;
        bool kept = fit_kept(f), least_kept = least && fit_kept(least); /* keeps D7 */
        if (!least || (least_kept && !kept) || (kept == least_kept && f->value < least->value))
            least = f;
    }
    CHECK(least); /* by D1 an empty device has room */
    return least;
}

void device_claim(Sched *s, Fit *f, Group *g, int bound)
{
    Device *d = f->device;
    if (f->model->claim && f->model->claim != f) device_unclaim(s, f->model->claim->device);
    if (d->claim)
        d->claim->model->claim = NULL;
    else
        list_push_back(&s->claimed, &d->claimed);
    d->claim = g; /* keeps D4 */
    d->bound = bound;
    f->model->claim = f;
    device_place(s, d);
}

void device_unclaim(Sched *s, Device *d)
{
    if (!d->claim) return;
    d->claim->model->claim = NULL;
    d->claim = NULL;
    d->bound = CLASSES;
    list_del(&d->claimed);
    device_place(s, d);
}

void device_slot_free(Sched *s, Device *d, int64_t now_ns)
{
    CHECK(d->running > 0);
    device_book(d, now_ns);
    if (--d->running == 0) {
        d->runs = NULL;
        d->solo = false;
        d->freed_ns = now_ns;
    }
    device_place(s, d);
}

void device_free(Sched *s, Device *d)
{
    device_unclaim(s, d);
    LIST_FOR (f, &d->fits, Fit, in_device) {
        Model *m = f->model;
        f->can = f->resident = false;
        fit_place(f, NULL, 0);
        fit_refresh(s, f);
        bool others = fit_count(f);
        list_del(&f->in_model);
        list_del(&f->in_device);
        mem_free(f);
        if (others) model_replace(s, m);
    }
    list_del(&d->held);
    s->devices[d->id] = NULL;
    mem_free(d);
}

/* ---- what the caller tells ---- */

void sched_device_add(Sched *s, SchedDeviceId id, const SchedDevice *info, int64_t now_ns)
{
    CHECK(!device_of(s, id) && id < UINT32_MAX);
    if (id >= s->devices_len) {
        size_t len = MAX((size_t)id + 1, s->devices_len * 2);
        s->devices = mem_grow(s->devices, len * sizeof(Device *));
        for (size_t i = s->devices_len; i < len; i++) s->devices[i] = NULL;
        s->devices_len = len;
    }
    Device *d = mem_new(sizeof *d);
    d->id = id;
    d->serial = ++s->serial;
    d->memory_bytes = info->memory_bytes;
    d->booked_ns = d->freed_ns = now_ns;
    list_init(&d->fits);
    list_init(&d->held);
    list_init(&d->claimed);
    d->bound = CLASSES;
    s->devices[id] = d;
}

void sched_device_remove(Sched *s, SchedDeviceId id)
{
    Device *d = device_of(s, id);
    if (d) device_free(s, d);
}

void sched_device_open(Sched *s, SchedDeviceId id, bool open)
{
    Device *d = device_of(s, id);
    CHECK(d);
    if (d->open == open) return;
    d->open = open;
    device_place(s, d);
}

void sched_device_can_run(Sched *s, SchedDeviceId id, Sym name, Sym version, bool can)
{
    Device *d = device_of(s, id);
    CHECK(d);
    Fit *f = fit_of(d, model_of(s, name, version));
    if (f->can == can) return;
    f->can = can;
    fit_refresh(s, f);
    device_place(s, d);
}

void sched_device_resident(Sched *s, SchedDeviceId id, Sym name, Sym version, bool resident)
{
    Device *d = device_of(s, id);
    CHECK(d);
    Fit *f = fit_of(d, model_of(s, name, version));
    if (f->resident == resident) return;
    fit_reside(f, resident);
    device_place(s, d);
}

void sched_device_needs(Sched *s, SchedDeviceId id, Sym name, Sym version, uint64_t memory_bytes)
{
    Device *d = device_of(s, id);
    CHECK(d);
    Fit *f = fit_of(d, model_of(s, name, version));
    if (f->needs == memory_bytes) return;
    f->needs = memory_bytes;
    fit_refresh(s, f);
    device_place(s, d);
}

void sched_device_stats(Sched *s, SchedDeviceId id, int64_t now_ns, SchedDeviceStats *ret)
{
    Device *d = device_of(s, id);
    *ret = (SchedDeviceStats){0};
    if (!d) return;
    device_book(d, now_ns);
    ret->busy_ns = d->busy_ns;
    ret->idle_ns = d->idle_ns;
    ret->idle_with_work_ns = d->idle_with_work_ns;
    ret->running = d->running;
}
