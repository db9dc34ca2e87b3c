/* fleet.c: the workers: who they are, which devices they have, which leases they hold. All of it is
 * volatile; what must last (leases, models, flags) is in the core.
 *
 *  F1  A Lease stands for a live token whose holder is known; leases of workers that have not
 *      come back after a restart have none, and end by time.
 *  F2  Suspicion only stops new dispatch. A lease ends by its holder's word, by its process's end
 *      (when it is ours), by the holder's own hello that no longer names it, or by time: nothing
 *      else.
 *  F3  A device is open to the scheduler exactly while its worker has a stream and is neither
 *      draining, cordoned nor suspected, and it is not held for handing back whatever it gets.
 *  F4  What a worker says of a model's memory counts for its own devices. */
#include "node/inside.h"

#include <stdio.h>
#include <string.h>

#include "wire/json.h"

#define SUSPECT_PINGS 3
#define PANIC_WORKERS 4
#define CALM_NS       (60 * NS_PER_S) /* up that long: not in a crash loop any more */
#define GONE_NS       (60 * NS_PER_S) /* a worker without stream and leases is forgotten after it */
#define DEVICES_MAX   64              /* of one worker */

Fleet *fleet_new(Shard *s)
{
    Fleet *f = mem_new(sizeof *f);
    f->shard = s;
    list_init(&f->workers);
    list_init(&f->orphans);
    list_init(&f->troubles);
    list_init(&f->logs_order);
    return f;
}

static void device_free(Device *d)
{
    if (!d) return;
    for (uint32_t i = 0; i < d->models_len; i++) mem_free(d->models[i].problem);
    mem_free(d->models);
    mem_free(d->residents);
    mem_free(d);
}

static void worker_free(Worker *w)
{
    for (uint32_t i = 0; i < w->devices_len; i++) device_free(w->devices[i]);
    mem_free(w->devices);
    mem_free(w->models);
    mem_free(w->refused);
    mem_free(w);
}

void fleet_free(Fleet *f)
{
    if (!f) return;
    TableNode *n;
    for (TableIter it = {0}; (n = table_each(&f->leases, &it));)
        mem_free(CONTAINER_OF(n, Lease, by_token));
    for (TableIter it = {0}; (n = table_each(&f->models, &it));) {
        ModelState *m = CONTAINER_OF(n, ModelState, by_name);
        mem_free(m->problem);
        mem_free(m);
    }
    for (TableIter it = {0}; (n = table_each(&f->logs, &it));) {
        TaskLog *l = CONTAINER_OF(n, TaskLog, by_task);
        buf_done(&l->text);
        mem_free(l);
    }
    table_done(&f->leases);
    table_done(&f->models);
    table_done(&f->logs);
    LIST_FOR (w, &f->workers, Worker, in_fleet) worker_free(w);
    LIST_FOR (t, &f->troubles, Trouble, in_fleet) mem_free(t);
    LIST_FOR (o, &f->orphans, Orphan, in_fleet) mem_free(o);
    mem_free(f->devices);
    buf_done(&f->line);
    mem_free(f);
}

/* ---- models ---- */

static uint64_t model_hash(Sym name, Sym version)
{
    return hash_u64((uint64_t)name << 32 | version);
}

const ModelState *fleet_model_find(const Fleet *f, Sym name, Sym version)
{
    for (TableNode *n = table_first(&f->models, model_hash(name, version)); n; n = table_next(n)) {
        ModelState *m = CONTAINER_OF(n, ModelState, by_name);
        if (m->name == name && m->version == version) return m;
    }
    return NULL;
}

ModelState *fleet_model_state(Fleet *f, Sym name, Sym version)
{
    const ModelState *known = fleet_model_find(f, name, version);
    if (known) return (ModelState *)known;
    ModelState *m = mem_new(sizeof *m);
    m->name = name;
    m->version = version;
    m->max_batch = 1;
    table_add(&f->models, &m->by_name, model_hash(name, version));
    return m;
}

void fleet_model_announce(Fleet *f, const ModelState *m)
{
    bool ordered;
    SchedModel sm = {.max_batch = MAX(m->max_batch, 1u),
                     .batch_delay_ms = m->batch_delay_ms,
                     .continuous = m->continuous,
                     .load_ns = m->load_ns, /* memory: per device, F4 */
                     .min_warm = fleet_min_warm(f, m, &ordered)};
    sched_model(f->shard->sched, m->name, m->version, &sm);
}

void fleet_lead(Fleet *f)
{
    const ModelEntry *models;
    size_t n = core_models(f->shard->core, &models);
    for (size_t i = 0; i < n; i++) {
        fleet_model_announce(f, fleet_model_state(f, models[i].name, models[i].version));
        if (core_flag(f->shard->core, STR("model_paused"),
                      core_sym(f->shard->core, models[i].name)))
            sched_model_pause(f->shard->sched, models[i].name, true);
    }
    uint64_t running = core_count(f->shard->core, TASK_RUNNING);
    for (Task *t = core_older(f->shard->core, UINT64_MAX); t && running;
         t = core_older(f->shard->core, t->no)) {
        running -= t->state == TASK_RUNNING;
        if (!t->run->token) continue;
        Orphan *o = mem_new(sizeof *o);
        *o = (Orphan){.no = t->no, .token = t->run->token, .worker = t->run->worker};
        list_push_back(&f->orphans, &o->in_fleet);
    }
}

/* ---- leases ---- */

Lease *fleet_lease(const Fleet *f, uint64_t token)
{
    for (TableNode *n = table_first(&f->leases, hash_u64(token)); n; n = table_next(n)) {
        Lease *l = CONTAINER_OF(n, Lease, by_token);
        if (l->token == token) return l;
    }
    return NULL;
}

Lease *fleet_lease_add(Fleet *f, Worker *w, Device *d, const Task *t, uint64_t token)
{
    Lease *l = mem_new(sizeof *l);
    *l = (Lease){.no = t->no, .token = token, .worker = w, .device = d};
    table_add(&f->leases, &l->by_token, hash_u64(token));
    list_push_back(&w->leases, &l->in_worker);
    w->leases_len++;
    d->running++;
    return l;
}

void fleet_slot_freed(Fleet *f, Task *t, uint64_t token, int64_t device_ns)
{
    Lease *l = fleet_lease(f, token);
    if (!l) return; /* F1: of a worker that has not come back */
    Device *d = l->device;
    sched_device_done(f->shard->sched, d->id, t, device_ns, shard_now_ns(f->shard));
    table_del(&f->leases, &l->by_token);
    list_del(&l->in_worker);
    l->worker->leases_len--;
    d->running--;
    d->finished_total++;
    mem_free(l);
}

void fleet_release(Fleet *f, uint64_t no, uint64_t token, FailCode cause, bool burn)
{
    Shard *s = f->shard;
    (void)core_release(s->core, no, token, cause, burn, (Usage){0}, shard_now_ns(s), &s->builder);
    Decision d;
    /* Where the log refuses, the lease ends by time. */
    if (!shard_commit(s, true, &d))
        say_warn("a lease could not be ended now (%s); it ends by itself", d.detail);
}

static void send_cancel(Fleet *f, Worker *w, const Task *t, uint64_t token, const char *why,
                        uint64_t hold_seq)
{
    TaskIdText id;
    core_task_id(f->shard->core, t, &id);
    buf_clear(&f->line);
    buf_printf(&f->line, "{\"t\":\"cancel\",\"id\":\"%s\",\"token\":%llu,\"why\":\"%s\"}\n", id.z,
               (unsigned long long)token, why);
    fleet_worker_send(f, w, buf_str(&f->line), hold_seq);
}

void fleet_lease_void(Fleet *f, Task *t, uint64_t token)
{
    Lease *l = fleet_lease(f, token);
    if (!l) return;
    l->void_since_ns = shard_now_ns(f->shard);
    f->next_look_ns = MIN(f->next_look_ns, l->void_since_ns + VOID_GRACE_NS);
    send_cancel(f, l->worker, t, token, task_state_name((TaskState)t->state), task_last_seq(t));
}

void fleet_log_free(Fleet *f, TaskLog *l)
{
    table_del(&f->logs, &l->by_task);
    list_del(&l->in_fleet);
    f->logs_bytes -= l->text.len;
    buf_done(&l->text);
    mem_free(l);
}

void fleet_task_leaving(Fleet *f, const Task *t)
{
    if (core_limits(f->shard->core)->history) return; /* it can still be read */
    for (TableNode *n = table_first(&f->logs, hash_u64(t->no)); n; n = table_next(n)) {
        TaskLog *l = CONTAINER_OF(n, TaskLog, by_task);
        if (l->no != t->no) continue;
        fleet_log_free(f, l);
        return;
    }
}

/* ---- workers ---- */

Worker *fleet_worker_by_id(const Fleet *f, Str id)
{
    LIST_FOR (w, &f->workers, Worker, in_fleet)
        if (str_eqz(id, w->id)) return w;
    return NULL;
}

Worker *fleet_worker_named(const Fleet *f, Str name)
{
    LIST_FOR (w, &f->workers, Worker, in_fleet)
        if (str_eqz(name, w->name)) return w;
    return NULL;
}

bool fleet_known(const Fleet *f, Str worker_id)
{
    return fleet_worker_by_id(f, worker_id) != NULL;
}

void fleet_worker_send(Fleet *f, Worker *w, Str line, uint64_t hold_seq)
{
    if (w->stream) f->shard->out.worker_line(f->shard->out.ctx, str_from(w->id), line, hold_seq);
}

bool worker_keeps_away(const Worker *w)
{
    return !w->stream || w->draining || w->cordoned || w->suspected;
}

void fleet_open_devices(Fleet *f, Worker *w)
{
    bool open = !worker_keeps_away(w);
    for (uint32_t i = 0; i < w->devices_len; i++) {
        const Device *d = w->devices[i];
        sched_device_open(f->shard->sched, d->id, open && !d->held_until_ns); /* F3 */
    }
}

DeviceModel *device_model(const Device *d, Sym name, Sym version)
{
    for (uint32_t i = 0; i < d->models_len; i++)
        if (d->models[i].name == name && d->models[i].version == version) return &d->models[i];
    return NULL;
}

static void detach_devices(Fleet *f, Worker *w)
{
    for (uint32_t i = 0; i < w->devices_len; i++) {
        Device *d = w->devices[i];
        CHECK(d->running == 0);
        sched_device_remove(f->shard->sched, d->id);
        f->devices[d->id] = NULL;
        device_free(d);
    }
    w->devices_len = 0;
}

/* Its leases end now, then it is gone. */
void fleet_worker_remove(Fleet *f, Worker *w, FailCode cause, bool burn)
{
    w->stream = false;
    fleet_open_devices(f, w);
    LIST_FOR (l, &w->leases, Lease, in_worker) fleet_release(f, l->no, l->token, cause, burn);
    if (w->leases_len) return; /* the log refused: by time, then fleet_look removes it */
    detach_devices(f, w);
    list_del(&w->in_fleet);
    f->workers_len--;
    worker_free(w);
}

static Device *device_add(Fleet *f, Worker *w, const WorkerDevice *from)
{
    uint32_t id = 0;
    while (id < f->devices_len && f->devices[id]) id++;
    if (id == f->devices_len) {
        f->devices = mem_grow(f->devices, (f->devices_len + 1) * sizeof *f->devices);
        f->devices[f->devices_len++] = NULL;
    }
    Device *d = mem_new(sizeof *d);
    d->worker = w;
    d->id = id;
    d->index = from->index;
    d->memory_bytes = from->memory_bytes;
    d->threads = from->threads;
    snprintf(d->kind, sizeof d->kind, "%.*s", STR_ARG(from->kind));
    f->devices[id] = d;
    SchedDevice sd = {.memory_bytes = d->memory_bytes, .kind = d->kind};
    sched_device_add(f->shard->sched, id, &sd, shard_now_ns(f->shard));
    return d;
}

/* ---- hello ---- */

static void model_info(const WorkerModel *m, Buf *ret)
{
    buf_puts(ret, "{\"engine\":");
    json_put_str(ret, m->engine);
    buf_puts(ret, ",\"description\":");
    json_put_str(ret, m->description);
    buf_puts(ret, "}");
}

static bool held_by_another(const Fleet *f, const Worker *but, Sym name, Sym version)
{
    LIST_FOR (w, &f->workers, Worker, in_fleet) {
        if (w == but || !w->stream) continue;
        for (uint32_t i = 0; i < w->models_len; i++)
            if (w->models[i].name == name && w->models[i].version == version) return true;
    }
    return false;
}

/* A digest counts for the whole cell: another one is taken only when nobody else holds the old one.
 * False: the log did not take it, for the reason *d. */
static bool take_model(Fleet *f, Worker *w, const WorkerModel *m, Buf *refused, Decision *d)
{
    Shard *s = f->shard;
    const ModelEntry *known = core_model(s->core, m->name, m->version);
    bool differs = known && memcmp(known->digest.b, m->digest.b, sizeof m->digest.b) != 0;
    if (differs && held_by_another(f, w, known->name, known->version)) {
        if (refused->len) buf_putc(refused, ',');
        buf_puts(refused, "{\"name\":");
        json_put_str(refused, m->name);
        buf_puts(refused, ",\"version\":");
        json_put_str(refused, m->version);
        buf_puts(refused, ",\"why\":\"other workers have it with another digest; "
                          "give it a new version\"}");
        w->refused = mem_grow(w->refused, (w->refused_len + 1) * sizeof *w->refused);
        w->refused[w->refused_len++] = (WorkerModelState){known->name, known->version, 0};
        return true;
    }
    if (differs)
        say_warn("model %.*s:%.*s has changed on disk; better give changed models a new version",
                 STR_ARG(m->name), STR_ARG(m->version));
    Buf info = {0};
    model_info(m, &info);
    (void)core_put_model(s->core, m->name, m->version, &m->digest, buf_str(&info), &s->builder);
    buf_done(&info);
    if (!shard_commit(s, true, d)) return false;
    Sym name = core_sym_find(s->core, m->name), version = core_sym_find(s->core, m->version);
    ModelState *state = fleet_model_state(f, name, version);
    if (m->max_batch) state->max_batch = MIN(m->max_batch, (uint32_t)SCHED_BATCH_MAX);
    state->continuous = m->continuous;
    state->batch_delay_ms = m->batch_delay_ms;
    state->memory_bytes = m->memory_bytes;
    state->min_warm = m->min_warm;
    snprintf(state->device_kind, sizeof state->device_kind, "%.*s", STR_ARG(m->device_kind));
    if (known)
        fleet_model_announce(f, state);
    else
        fleet_announce_all(f, name); /* a new version may be the latest now */
    w->models = mem_grow(w->models, (w->models_len + 1) * sizeof *w->models);
    w->models[w->models_len++] = (WorkerModelState){name, version, m->max_batch};
    for (uint32_t i = 0; i < w->devices_len; i++) {
        Device *dev = w->devices[i];
        dev->models = mem_grow(dev->models, (dev->models_len + 1) * sizeof *dev->models);
        bool unfit = m->device_kind.n && !str_eqz(m->device_kind, dev->kind);
        dev->models[dev->models_len++] = (DeviceModel){
            .name = name, .version = version, .needs = m->memory_bytes, .unfit = unfit};
        sched_device_needs(s->sched, dev->id, name, version, m->memory_bytes); /* F4 */
        sched_device_can_run(s->sched, dev->id, name, version, !unfit);
    }
    return true;
}

static void stale(Buf *b, uint64_t token)
{
    buf_printf(b, b->len ? ",%llu" : "%llu", (unsigned long long)token);
}

/* What a worker says it still runs: its live leases go on, under its new devices. */
static void take_running(Fleet *f, Worker *w, const WorkerHello *h, Buf *stale_json)
{
    Shard *s = f->shard;
    int64_t now = shard_now_ns(s);
    for (size_t i = 0; i < h->running_len; i++) {
        const WorkerHeld *r = &h->running[i];
        Task *t = r->task_no ? core_task(s->core, r->task_no) : NULL;
        Device *d = NULL;
        for (uint32_t k = 0; k < w->devices_len; k++)
            if (t && w->devices[k]->index == t->run->device) d = w->devices[k];
        if (!t || t->run->token != r->token || !d || t->state != TASK_RUNNING ||
            fleet_lease(f, r->token)) {
            stale(stale_json, r->token);
            if (t && t->run->token == r->token && t->state != TASK_RUNNING)
                fleet_release(f, t->no, t->run->token, FAIL_NONE,
                              false); /* canceled meanwhile: its slot is free */
            continue;
        }
        fleet_lease_add(f, w, d, t, t->run->token);
        sched_device_adopt(s->sched, d->id, t, now);
        core_renew(s->core, t->no, t->run->token, now);
    }
}

static bool still_held(const WorkerHello *h, uint64_t token)
{
    for (size_t i = 0; i < h->running_len; i++)
        if (h->running[i].token == token) return true;
    return false;
}

/* A worker of this name is here again: those of its former leases that it does not name ended with
 * its former process. */
static void end_orphans(Fleet *f, const Worker *w, const WorkerHello *h)
{
    Core *c = f->shard->core;
    Sym name = core_sym_find(c, str_from(w->name));
    LIST_FOR (o, &f->orphans, Orphan, in_fleet) {
        if (o->worker != name) continue;
        const Task *t = core_task(c, o->no);
        if (t && t->run->token == o->token && !still_held(h, o->token))
            fleet_release(f, o->no, o->token, FAIL_WORKER_LOST, false);
        list_del(&o->in_fleet);
        mem_free(o);
    }
}

/* The same process comes back: what it no longer names it never got or has dropped; the rest is
 * taken up again. */
static void forget_former(Fleet *f, Worker *w, const WorkerHello *h)
{
    Shard *s = f->shard;
    LIST_FOR (l, &w->leases, Lease, in_worker) {
        if (!still_held(h, l->token)) {
            fleet_release(f, l->no, l->token, FAIL_WORKER_LOST, false);
            continue;
        }
        Task *t = core_task(s->core,
                            l->no); /* the token lives on: only its volatile side is made anew */
        sched_device_done(s->sched, l->device->id, t, 0, shard_now_ns(s));
        l->device->running--;
        table_del(&f->leases, &l->by_token);
        list_del(&l->in_worker);
        w->leases_len--;
        mem_free(l);
    }
}

static void new_id(char out[40])
{
    uint8_t raw[16];
    char text[27] = {0};
    random_secret(raw, sizeof raw);
    base32_put(text, raw);
    snprintf(out, 40, "worker_%s", text);
}

/* Names tell workers apart in records and tables: unique among those connected. */
static void name_worker(const Fleet *f, Worker *w, Str wanted)
{
    snprintf(w->name, sizeof w->name, "%.*s", STR_ARG(wanted));
    for (int n = 2; fleet_worker_named(f, str_from(w->name)); n++)
        snprintf(w->name, sizeof w->name, "%.*s-%d", (int)MIN(wanted.n, (size_t)50), wanted.p, n);
}

static Worker *worker_for(Fleet *f, const WorkerHello *h)
{
    Worker *w = h->former_id.n ? fleet_worker_by_id(f, h->former_id) : NULL;
    if (w) {
        forget_former(f, w, h);
        if (w->leases_len) return NULL; /* the log refuses now */
        /* Its stream is of a former registration. When this one came late, behind the one that the
         * worker goes by, nobody would open another: closed, it makes the worker begin anew. */
        if (w->stream) f->shard->out.worker_kick(f->shard->out.ctx, str_from(w->id));
        w->stream = false;
        detach_devices(f, w);
        w->models_len = w->refused_len = 0;
        return w;
    }
    Worker *namesake = fleet_worker_named(f, h->name);
    /* A restarted process under its old name: the old one is gone (F2: its own hello says so). */
    if (namesake && !namesake->stream) fleet_worker_remove(f, namesake, FAIL_WORKER_LOST, false);
    w = mem_new(sizeof *w);
    list_init(&w->leases);
    name_worker(f, w, h->name);
    new_id(w->id);
    /* The id survives a restart of the server: the worker knows it, and its leases are found by
     * number. */
    if (h->former_id.n && h->former_id.n < sizeof w->id)
        snprintf(w->id, sizeof w->id, "%.*s", STR_ARG(h->former_id));
    list_push_back(&f->workers, &w->in_fleet);
    f->workers_len++;
    w->since_ns = shard_now_ns(f->shard);
    return w;
}

/* Those that `serve` gives: when their process ends, so do the leases under that name. */
static bool is_own_name(Str name)
{
    return str_starts(name, STR("local-"));
}

Decision fleet_hello(Fleet *f, const WorkerHello *h, char id_out[40], Buf *refused_json,
                     Buf *stale_json)
{
    Shard *s = f->shard;
    Decision d = {.code = CODE_OK};
    if (s->failed || !s->leading) return shard_accepting(s);
    if (h->foreign && is_own_name(h->name)) {
        d = (Decision){.code = CODE_INVALID_REQUEST};
        snprintf(
            d.detail, sizeof d.detail,
            "\"%.*s\": names like local-0 are those of the server's own workers; give this one "
            "another --name",
            STR_ARG(h->name));
        return d;
    }
    if (h->devices_len == 0 || h->devices_len > DEVICES_MAX) {
        d = (Decision){.code = CODE_INVALID_REQUEST};
        snprintf(d.detail, sizeof d.detail, "devices: %zu given; a worker has 1 to %d",
                 h->devices_len, DEVICES_MAX);
        return d;
    }
    Worker *w = worker_for(f, h);
    if (!w) {
        d = (Decision){.code = CODE_LOG_STALLED, .retry_after_ms = 1000};
        snprintf(d.detail, sizeof d.detail, "the log takes nothing now; register again");
        return d;
    }
    snprintf(w->region, sizeof w->region, "%.*s", STR_ARG(h->region));
    snprintf(w->runtime, sizeof w->runtime, "%.*s", STR_ARG(h->runtime));
    w->pid = h->pid;
    w->draining = false;
    w->suspected = false;
    w->cordoned = core_flag(s->core, STR("worker_cordoned"), str_from(w->name));
    w->seen_ns = shard_now_ns(s);
    w->devices = mem_grow(w->devices, h->devices_len * sizeof *w->devices);
    for (size_t i = 0; i < h->devices_len; i++)
        w->devices[w->devices_len++] = device_add(f, w, &h->devices[i]);
    /* All or nothing: a model left out would leave its tasks waiting for as long as w lives. It
     * registers again, which begins anew. */
    for (size_t i = 0; i < h->models_len; i++)
        if (!take_model(f, w, &h->models[i], refused_json, &d)) return d;
    take_running(f, w, h, stale_json);
    end_orphans(f, w, h);
    snprintf(id_out, 40, "%s", w->id);
    say_info("worker %s (%s): %u device(s), %u model(s), %u task(s) running", w->name, w->id,
             w->devices_len, w->models_len, w->leases_len);
    return d;
}

void fleet_stream(Fleet *f, Str worker_id, bool open)
{
    Worker *w = fleet_worker_by_id(f, worker_id);
    if (!w) return;
    w->stream = open;
    w->seen_ns = shard_now_ns(f->shard);
    if (open) w->suspected = false;
    fleet_open_devices(f, w);
    f->next_look_ns = 0;
}

bool fleet_holds(const Fleet *f, Str worker_id, uint64_t task_no)
{
    const Worker *w = fleet_worker_by_id(f, worker_id);
    const Task *t = core_task(f->shard->core, task_no);
    const Lease *l = t && t->run->token ? fleet_lease(f, t->run->token) : NULL;
    return w && l && l->worker == w;
}

bool fleet_lease_is_live(const Fleet *f, uint64_t task_no, uint64_t token)
{
    const Task *t = core_task(f->shard->core, task_no);
    return t && token && t->run->token == token && t->state == TASK_RUNNING;
}

Decision fleet_order(Fleet *f, Str worker_id, Str order)
{
    Shard *s = f->shard;
    Decision d = {.code = CODE_OK};
    Worker *w = fleet_worker_by_id(f, worker_id);
    if (!w) w = fleet_worker_named(f, worker_id);
    if (!w) {
        d.code = CODE_NOT_FOUND;
        snprintf(d.detail, sizeof d.detail, "no worker '%.*s'; GET /v1/workers lists them",
                 STR_ARG(worker_id));
        return d;
    }
    if (str_eqz(order, "drain")) {
        w->draining = true;
        fleet_worker_send(f, w, STR("{\"t\":\"drain\",\"exit\":true}\n"), 0);
    } else {
        bool on = str_eqz(order, "cordon");
        (void)core_set_flag(s->core, STR("worker_cordoned"), str_from(w->name), on, &s->builder);
        if (!shard_commit(s, true, &d)) return d;
        w->cordoned = on;
    }
    fleet_open_devices(f, w);
    return d;
}

void fleet_drain_all(Fleet *f)
{
    LIST_FOR (w, &f->workers, Worker, in_fleet) {
        w->draining = true;
        fleet_open_devices(f, w);
    }
}

size_t fleet_running(const Fleet *f)
{
    return f->leases.len;
}

size_t fleet_streams(const Fleet *f)
{
    size_t n = 0;
    LIST_FOR (w, &f->workers, Worker, in_fleet) n += w->stream;
    return n;
}

/* ---- time ---- */

/* A worker that does not let go of a task that ended under it holds a device for nothing. */
static void look_at_void_leases(Fleet *f, Worker *w, int64_t now)
{
    LIST_FOR (l, &w->leases, Lease, in_worker) {
        if (!l->void_since_ns) continue;
        if (now - l->void_since_ns < VOID_GRACE_NS) {
            f->next_look_ns = MIN(f->next_look_ns, l->void_since_ns + VOID_GRACE_NS);
            continue;
        }
        l->void_since_ns = now; /* once a grace */
        say_warn("worker %s does not let go of a canceled task", w->name);
        f->shard->out.worker_kill(f->shard->out.ctx, str_from(w->name), w->pid);
        return;
    }
}

/* When more than half of at least four workers look dead at once, the fault is probably ours:
 * leases do not end by time for a while. */
static void look_for_panic(Fleet *f, int64_t now)
{
    uint32_t known = 0, dead = 0;
    LIST_FOR (w, &f->workers, Worker, in_fleet) {
        if (!w->stream && w->leases_len == 0) continue;
        known++;
        dead += !w->stream || w->suspected;
    }
    bool panic = known >= PANIC_WORKERS && dead * 2 > known;
    if (!panic)
        f->panic_since_ns = 0;
    else if (!f->panic_since_ns) {
        f->panic_since_ns = now;
        say_warn("%u of %u workers look dead at once: their leases are frozen for a while", dead,
                 known);
    }
}

bool fleet_freezes_leases(const Fleet *f, int64_t now)
{
    return f->panic_since_ns && now - f->panic_since_ns < 2 * core_limits(f->shard->core)->lease_ns;
}

/* What was closed for a while after a failure is tried again. */
static void look_at_closed(Fleet *f, Worker *w, int64_t now)
{
    Sched *s = f->shard->sched;
    for (uint32_t i = 0; i < w->devices_len; i++) {
        Device *d = w->devices[i];
        for (uint32_t k = 0; k < d->models_len; k++) {
            DeviceModel *m = &d->models[k];
            if (!m->retry_ns) continue;
            if (now < m->retry_ns) {
                f->next_look_ns = MIN(f->next_look_ns, m->retry_ns);
                continue;
            }
            m->retry_ns = 0;
            sched_device_can_run(s, d->id, m->name, m->version, !m->unfit);
        }
        if (!d->held_until_ns) continue;
        if (now < d->held_until_ns) {
            f->next_look_ns = MIN(f->next_look_ns, d->held_until_ns);
            continue;
        }
        d->held_until_ns = 0;
        fleet_open_devices(f, w);
    }
}

int64_t fleet_look(Fleet *f, int64_t now)
{
    int64_t ping_ns = (int64_t)f->shard->options.ping_s * NS_PER_S;
    if (now < f->next_look_ns) return f->next_look_ns;
    f->next_look_ns = now + ping_ns;
    look_for_panic(f, now);
    LIST_FOR (w, &f->workers, Worker, in_fleet) {
        if (!w->stream) {
            if (w->leases_len == 0 && now - w->seen_ns > GONE_NS)
                fleet_worker_remove(f, w, FAIL_NONE, false);
            continue;
        }
        look_at_closed(f, w, now);
        bool suspected = now - w->seen_ns > SUSPECT_PINGS * ping_ns;
        if (suspected != w->suspected) {
            w->suspected = suspected;
            if (suspected)
                say_warn("worker %s has not answered for a while: no new work for it", w->name);
            fleet_open_devices(f, w);
        }
        look_at_void_leases(f, w, now);
        if (now - w->since_ns > CALM_NS) fleet_calm(f, w);
        if (now - w->pinged_ns >= ping_ns) {
            w->pinged_ns = now;
            buf_clear(&f->line);
            buf_printf(&f->line, "{\"t\":\"ping\",\"n\":%llu}\n", (unsigned long long)++w->ping_n);
            fleet_worker_send(f, w, buf_str(&f->line), 0);
        }
    }
    fleet_say_waits(f, now);
    return f->next_look_ns;
}
