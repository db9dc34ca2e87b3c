/* executor.c: the executor's thread.
 *
 * I1  `waiting`, `active` and `loaded` are the thread's own; `inbox`, `ended`, `notes` and every
 *     Held.model are under the lock.
 * I2  Held.model is set after engine_admit and cleared before engine_release, so whoever holds the
 *     lock and sees it may call engine_cancel. Whoever sets it looks at Held.stop afterwards: a
 *     stop that came between is seen by one of the two.
 * I3  All of `active` is of `current`, and no longer than current->max_batch.
 * I4  What is loaded takes no more than o.memory_bytes, as far as is known: room is made before a
 *     load, what it really takes is measured after it and now and then, and what turns out not to
 *     fit is unloaded again. */
#include "worker/executor.h"

#include <stdio.h>
#include <string.h>

#include "engine/memory.h"
#include "worker/outbox.h"

enum {
    ACTIVE_MAX = 1024, /* of one batch: four times the largest that is leased */
    LOG_PENDING_MAX = 256 *
                      1024, /* printed bytes that wait for the main thread; the rest is dropped */
    LOG_PIECE_MAX = 16 * 1024,
    MEASURE_BUDGET_S = 8,
    MEMORY_EVERY_MS = 500,
};
#define MEMORY_SLACK (16 * MIB) /* grown by less is no news */

typedef struct {
    List link;
    const ModelSpec *spec;
    EngineModel *model;
    uint32_t max_batch;
    bool no_checkpoint; /* its engine has none */
    uint64_t memory;    /* what it takes: declared, or measured when that is more */
    int64_t load_ns;
    Knee knee;
} Loaded;

typedef struct { /* a model that takes more than it declares: remembered while it is not loaded */
    const ModelSpec *spec;
    uint64_t memory;
} Measured;

struct Executor {
    ExecutorOptions o;
    EngineHost host;
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    List inbox, ended, notes; /* under the lock */
    size_t log_pending;
    bool stop, hand_back, idle;

    /* The thread's own. */
    List waiting;
    List loaded; /* least recently used first */
    Loaded *current;
    Held *active[ACTIVE_MAX];
    size_t active_len;
    List done; /* ended since the last hand-over */
    Measured *measured;
    size_t measured_len;
    uint64_t own_memory; /* of the process before any model */
    int64_t measured_ns;
};

void note_free(Note *n)
{
    buf_done(&n->bytes);
    mem_free(n);
}

/* ---- handing over ---- */

static void splice(List *from, List *to)
{
    if (list_empty(from)) return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

static Note *note_new(NoteKind kind, const ModelSpec *spec)
{
    Note *n = mem_new(sizeof *n);
    list_init(&n->link);
    n->kind = kind;
    n->spec = spec;
    return n;
}

static void note_send(Executor *e, Note *n)
{
    pthread_mutex_lock(&e->lock);
    list_push_back(&e->notes, &n->link);
    pthread_mutex_unlock(&e->lock);
    e->o.wake(e->o.wake_ctx);
}

static void hand_over(Executor *e)
{
    if (list_empty(&e->done)) return;
    pthread_mutex_lock(&e->lock);
    splice(&e->done, &e->ended);
    pthread_mutex_unlock(&e->lock);
    e->o.wake(e->o.wake_ctx);
}

/* The last word about a task. A task that was stopped is released whatever else became of it,
 * unless it has its result: then that is the truth, and the server decides what it counts. */
static void end_task(Executor *e, Held *h, HeldOutcome outcome, const char *error_code)
{
    if (outcome == OUTCOME_ERROR && atomic_load(&h->stop) != STOP_NO) outcome = OUTCOME_RELEASED;
    h->outcome = outcome;
    h->error_code = error_code;
    list_push_back(&e->done, &h->item.link);
}

static void fail_task(Executor *e, Held *h, const EngineError *err)
{
    h->task.error = *err;
    bool canceled = err->code == ENGINE_ERR_CANCELED;
    end_task(e, h, canceled ? OUTCOME_RELEASED : OUTCOME_ERROR, engine_error_code(err->code));
}

/* ---- the host of the engines ---- */

static int host_file_path(void *ctx, void *task_ctx, Str file_id, const char **ret_path,
                          EngineError *err)
{
    Executor *e = ctx;
    return worker_file_path(e->o.files, task_ctx, file_id, ret_path, err);
}

static int host_put_file(void *ctx, void *task_ctx, Str name, Str content_type, Str bytes,
                         const char **ret_id, EngineError *err)
{
    Executor *e = ctx;
    return worker_file_store(e->o.files, task_ctx, name, content_type, bytes, ret_id, err);
}

static void host_log(void *ctx, void *task_ctx, Str text)
{
    Executor *e = ctx;
    const Held *h = task_ctx;
    if (h == NULL) {
        say_info("model: %.*s", STR_ARG(text));
        return;
    }
    text.n = MIN(text.n, (size_t)LOG_PIECE_MAX);
    Note *n = note_new(NOTE_LOG, NULL);
    n->token = h->token;
    buf_put_str(&n->bytes, text);
    pthread_mutex_lock(&e->lock);
    bool room = e->log_pending + text.n <= LOG_PENDING_MAX;
    if (room) {
        e->log_pending += text.n;
        list_push_back(&e->notes, &n->link);
    }
    pthread_mutex_unlock(&e->lock);
    if (room)
        e->o.wake(e->o.wake_ctx);
    else
        note_free(n);
}

/* ---- models ---- */

static Loaded *find_loaded(Executor *e, const ModelSpec *spec)
{
    LIST_FOR (l, &e->loaded, Loaded, link) {
        if (l->spec == spec) return l;
    }
    return NULL;
}

static void unload(Executor *e, Loaded *l)
{
    CHECK(e->active_len == 0 || e->current != l);
    if (e->current == l) e->current = NULL;
    list_del(&l->link);
    engine_close(l->model);
    memory_trim();
    say_info("device %u: unloaded %s:%s", e->o.device.index, l->spec->name, l->spec->version);
    note_send(e, note_new(NOTE_UNLOADED, l->spec));
    mem_free(l);
}

/* What it is going to take. */
static uint64_t needs(const Executor *e, const ModelSpec *spec)
{
    for (size_t i = 0; i < e->measured_len; i++)
        if (e->measured[i].spec == spec) return MAX(e->measured[i].memory, spec->memory_bytes);
    return spec->memory_bytes;
}

static void remember(Executor *e, const ModelSpec *spec, uint64_t memory)
{
    size_t i = 0;
    while (i < e->measured_len && e->measured[i].spec != spec) i++;
    if (i == e->measured_len)
        e->measured = mem_grow(e->measured, ++e->measured_len * sizeof *e->measured);
    e->measured[i] = (Measured){spec, memory};
}

static uint64_t used(const Executor *e)
{
    uint64_t sum = 0;
    LIST_FOR (l, &e->loaded, Loaded, link) sum += l->memory;
    return sum;
}

static void make_room(Executor *e, const ModelSpec *spec)
{
    while (!list_empty(&e->loaded) && used(e) + needs(e, spec) > e->o.memory_bytes)
        unload(e, LIST_FIRST(&e->loaded, Loaded, link));
}

/* Looks at what l takes; true: noticeably more than was known. Of a model in this process, the
 * process's growth is what is not the other models'. */
static bool measure_memory(Executor *e, Loaded *l)
{
    uint64_t seen = engine_memory(l->model);
    if (!seen && engine_is_inside(l->model) && e->o.alone) {
        uint64_t known = e->own_memory, all = memory_of_self();
        LIST_FOR (other, &e->loaded, Loaded, link) {
            if (other != l && engine_is_inside(other->model)) known += other->memory;
        }
        seen = all > known ? all - known : 0;
    }
    if (seen <= l->memory + MAX(MEMORY_SLACK, l->memory / 8)) return false;
    l->memory = (seen + MIB - 1) / MIB * MIB;
    remember(e, l->spec, l->memory);
    return true;
}

static void say_loaded(const Executor *e, const Note *n);

static void note_loaded(Executor *e, const Loaded *l, bool say)
{
    Note *n = note_new(NOTE_LOADED, l->spec);
    n->load_ns = l->load_ns;
    n->knee = l->knee;
    n->memory_bytes = l->memory;
    if (say) say_loaded(e, n);
    note_send(e, n);
}

/* What runs may grow: the server is told, and what lies idle makes room. */
static void watch_memory(Executor *e)
{
    int64_t now = clock_mono();
    Loaded *l = e->current;
    if (now - e->measured_ns < MEMORY_EVERY_MS * NS_PER_MS) return;
    e->measured_ns = now;
    if (!measure_memory(e, l)) return;
    /* The process's growth is no exact measure: it may not keep the model from ever running. */
    if (engine_is_inside(l->model)) {
        l->memory = MIN(l->memory, e->o.memory_bytes);
        remember(e, l->spec, l->memory);
    }
    Buf size = {0};
    buf_put_size(&size, l->memory);
    say_info("device %u: %s:%s takes %s", e->o.device.index, l->spec->name, l->spec->version,
             buf_z(&size));
    buf_done(&size);
    note_loaded(e, l, false);
    LIST_FOR (other, &e->loaded, Loaded, link) { /* keeps I4 */
        if (used(e) <= e->o.memory_bytes) break;
        if (other != l) unload(e, other);
    }
}

static int measure_one(void *ctx, uint32_t batch, int64_t *ret_ns)
{
    return engine_measure(ctx, batch, ret_ns);
}

static void say_loaded(const Executor *e, const Note *n)
{
    Buf b = {0};
    buf_printf(&b, "device %u: loaded %s:%s in ", e->o.device.index, n->spec->name,
               n->spec->version);
    buf_put_duration(&b, n->load_ns);
    buf_printf(&b, ", batches of %u", n->knee.max_batch);
    for (size_t i = 0; i < KNEE_SIZES; i++) {
        if (n->knee.unit_ns[i] == 0) continue;
        buf_printf(&b, "%s%u in ", i == 0 ? " (" : ", ", 1U << i);
        buf_put_duration(&b, n->knee.unit_ns[i]);
    }
    say_info("%s%s", buf_z(&b), n->knee.unit_ns[0] > 0 ? ")" : "");
    buf_done(&b);
}

/* NULL: err says why, and the server is told. memory: so much was wanting; 0: that was not why. */
static void load_failed(Executor *e, const ModelSpec *spec, uint64_t memory, EngineError *err)
{
    Note *n = note_new(NOTE_LOAD_FAILED, spec);
    buf_puts(&n->bytes, err->message);
    n->memory_bytes = memory;
    say_warn("device %u: cannot load %s:%s: %s", e->o.device.index, spec->name, spec->version,
             buf_z(&n->bytes));
    EngineError whole = {0};
    engine_error_set(&whole, memory ? ENGINE_ERR_OUT_OF_MEMORY : ENGINE_ERR_MODEL, true,
                     "the model %s:%s cannot be loaded: %s", spec->name, spec->version,
                     buf_z(&n->bytes));
    *err = whole;
    note_send(e, n);
}

static void too_large(const Executor *e, uint64_t takes, const char *how, EngineError *err)
{
    Buf want = {0}, have = {0};
    buf_put_size(&want, takes);
    buf_put_size(&have, e->o.memory_bytes);
    engine_error_set(err, ENGINE_ERR_OUT_OF_MEMORY, true,
                     "it %s %s of memory, and device %u has %s for models", how, buf_z(&want),
                     e->o.device.index, buf_z(&have));
    buf_done(&want);
    buf_done(&have);
}

static int open_model(Executor *e, const ModelSpec *spec, EngineModel **ret, EngineError *err)
{
    *err = (EngineError){.code = ENGINE_ERR_MODEL};
    int code = engine_open(spec, &e->o.device, &e->host, ret, err);
    if (code && !err->message[0])
        engine_error_set(err, ENGINE_ERR_MODEL, true, "%s", err_text(code));
    return code;
}

/* Loaded, and now it shows what it really takes. Does it fit? In this process that is no exact
 * measure. */
static bool really_fits(Executor *e, Loaded *l)
{
    (void)measure_memory(e, l);
    uint64_t have = e->o.memory_bytes;
    if (!engine_is_inside(l->model)) return l->memory <= have;
    if (l->memory > have + have / 4) return false;
    if (l->memory > have) remember(e, l->spec, l->memory = have);
    return true;
}

/* NULL: err says why, and the server was told. */
static Loaded *load(Executor *e, const ModelSpec *spec, EngineError *err)
{
    if (needs(e, spec) > e->o.memory_bytes) {
        too_large(e, needs(e, spec), "needs", err);
        load_failed(e, spec, needs(e, spec), err);
        return NULL;
    }
    make_room(e, spec);
    int64_t begun = clock_mono();
    EngineModel *m;
    int code = open_model(e, spec, &m, err);
    if (code == ERR_NOMEM && !list_empty(&e->loaded)) { /* the others take more than is known */
        LIST_FOR (l, &e->loaded, Loaded, link) unload(e, l);
        code = open_model(e, spec, &m, err);
    }
    if (code != 0) {
        load_failed(e, spec, code == ERR_NOMEM ? MAX(needs(e, spec), (uint64_t)1) : 0, err);
        return NULL;
    }
    Loaded *l = mem_new(sizeof *l);
    l->spec = spec;
    l->model = m;
    l->memory = needs(e, spec);
    list_push_back(&e->loaded, &l->link);
    l->load_ns = clock_mono() - begun;
    if (spec->max_batch > 0)
        l->knee.max_batch = spec->max_batch;
    else
        l->knee = knee_measure(measure_one, m, MEASURE_BUDGET_S * NS_PER_S);
    l->max_batch = MIN(l->knee.max_batch, (uint32_t)ACTIVE_MAX);
    e->measured_ns = clock_mono();
    if (!really_fits(e, l)) {
        uint64_t takes = l->memory;
        too_large(e, takes, "takes", err);
        unload(e, l);
        load_failed(e, spec, takes, err);
        return NULL;
    }
    note_loaded(e, l, true);
    return l;
}

/* ---- tasks ---- */

/* The engine lets go of it; then it has ended. */
static void retire(Executor *e, Held *h)
{
    EngineTask *t = &h->task;
    EngineModel *m = e->current->model;
    h->run_ns = clock_mono() - h->begun_ns;
    atomic_store_explicit(&h->step, t->step, memory_order_relaxed);
    if (t->state == ENGINE_TASK_DONE) {
        h->output = t->output; /* moved, not copied */
        t->output = (Buf){0};
        engine_release(m, t);
        if (h->output.len <= 64 * KIB) {
            line_result(&h->report.line, h->id, h->token, buf_str(&h->output), t->device_ns,
                        h->run_ns);
            buf_done(&h->output);
        }
        end_task(e, h, OUTCOME_RESULT, NULL);
        return;
    }
    EngineError err = t->error;
    engine_release(m, t);
    fail_task(e, h, &err);
}

static void admit(Executor *e, Held *h)
{
    EngineModel *m = e->current->model;
    h->begun_ns = h->checkpoint_ns = clock_mono();
    atomic_store_explicit(&h->begun, true, memory_order_relaxed);
    engine_admit(m, &h->task);
    if (h->checkpoint.len > 0 && h->task.state == ENGINE_TASK_ACTIVE) {
        int err = engine_resume(m, &h->task, buf_str(&h->checkpoint));
        if (err != 0) {
            say_warn("task %.*s: its checkpoint does not fit (%s): it starts again", STR_ARG(h->id),
                     err_text(err));
            engine_release(m, &h->task);
            engine_admit(m, &h->task);
        }
        buf_done(&h->checkpoint);
    }
    atomic_store_explicit(&h->steps, h->task.steps, memory_order_relaxed);
    if (h->task.state != ENGINE_TASK_ACTIVE) {
        retire(e, h);
        return;
    }
    e->active[e->active_len++] = h;
}

/* Lets cancels reach those that were just admitted (I2). */
static void open_to_cancel(Executor *e, size_t from)
{
    if (from == e->active_len) return;
    pthread_mutex_lock(&e->lock);
    for (size_t i = from; i < e->active_len; i++) {
        Held *h = e->active[i];
        h->model = e->current->model;
        if (atomic_load(&h->stop) != STOP_NO) engine_cancel(h->model, &h->task);
    }
    pthread_mutex_unlock(&e->lock);
}

/* Every waiting task of this model fails the same way: the load is not tried for each of them. That
 * there is no memory for the model is not the task's fault: it may start elsewhere, or later. */
static void fail_all_of(Executor *e, const ModelSpec *spec, const EngineError *err)
{
    LIST_FOR (it, &e->waiting, ExecutorItem, link) {
        if (it->kind != ITEM_TASK || it->spec != spec) continue;
        list_del(&it->link);
        Held *h = CONTAINER_OF(it, Held, item);
        if (err->code == ENGINE_ERR_OUT_OF_MEMORY)
            end_task(e, h, OUTCOME_RELEASED, NULL);
        else
            fail_task(e, h, err);
    }
}

static void carry_out(Executor *e, ExecutorItem *order)
{
    Loaded *l = find_loaded(e, order->spec);
    EngineError err;
    if (order->kind == ITEM_UNLOAD && l != NULL) unload(e, l);
    if (order->kind == ITEM_LOAD && l == NULL) (void)load(e, order->spec, &err);
    mem_free(order);
}

/* Up to the last mark of a hand-back, which goes too; all: whatever waits. */
static void release_waiting(Executor *e, bool all)
{
    size_t marks = 0;
    LIST_FOR (it, &e->waiting, ExecutorItem, link) marks += it->kind == ITEM_HAND_BACK;
    LIST_FOR (it, &e->waiting, ExecutorItem, link) {
        if (marks == 0 && !all) break;
        if (it->kind == ITEM_TASK) {
            list_del(&it->link);
            end_task(e, CONTAINER_OF(it, Held, item), OUTCOME_RELEASED, NULL);
        } else if (it->kind == ITEM_HAND_BACK) {
            marks--;
            list_del(&it->link);
            mem_free(it);
        }
    }
}

/* Takes from the head of the queue what may run now. */
static void fill(Executor *e)
{
    bool fresh = e->active_len == 0;
    size_t from = e->active_len;
    while (!list_empty(&e->waiting)) {
        ExecutorItem *it = LIST_FIRST(&e->waiting, ExecutorItem, link);
        if (it->kind != ITEM_TASK) {
            if (e->active_len > 0) break;
            list_del(&it->link);
            carry_out(e, it);
            continue;
        }
        Held *h = CONTAINER_OF(it, Held, item);
        if (atomic_load(&h->stop) != STOP_NO) {
            list_del(&it->link);
            end_task(e, h, OUTCOME_RELEASED, NULL);
            continue;
        }
        if (e->active_len > 0) {
            if (it->spec != e->current->spec) break;
            if (!fresh && !e->current->spec->continuous) break;
            if (e->active_len >= e->current->max_batch) break;
        } else if (e->current == NULL || e->current->spec != it->spec) {
            EngineError err;
            Loaded *l = find_loaded(e, it->spec);
            if (l == NULL) l = load(e, it->spec, &err);
            if (l == NULL) {
                fail_all_of(e, it->spec, &err);
                continue;
            }
            e->current = l;
            list_del(&l->link); /* most recently used: last */
            list_push_back(&e->loaded, &l->link);
        }
        list_del(&it->link);
        admit(e, h);
    }
    open_to_cancel(e, from);
}

static void take_checkpoint(Executor *e, Held *h)
{
    int64_t now = clock_mono();
    if (e->o.checkpoint_every_ns == 0 || e->current->no_checkpoint) return;
    if (now - h->checkpoint_ns < e->o.checkpoint_every_ns) return;
    h->checkpoint_ns = now;
    Buf b = {0};
    int err = engine_checkpoint(e->current->model, &h->task, &b);
    if (err != 0) {
        if (err == ERR_UNSUPPORTED) e->current->no_checkpoint = true;
        buf_done(&b);
        return;
    }
    Note *n = note_new(NOTE_CHECKPOINT, NULL);
    n->token = h->token;
    n->unit = h->task.step;
    n->bytes = b;
    note_send(e, n);
}

/* One unit of everything that is active; what has ended leaves. */
static void step(Executor *e)
{
    EngineTask *tasks[ACTIVE_MAX];
    for (size_t i = 0; i < e->active_len; i++) tasks[i] = &e->active[i]->task;
    engine_step(e->current->model, tasks, e->active_len);

    size_t ended = 0;
    for (size_t i = 0; i < e->active_len; i++) {
        Held *h = e->active[i];
        if (h->task.state != ENGINE_TASK_ACTIVE) {
            ended++;
            continue;
        }
        atomic_store_explicit(&h->step, h->task.step, memory_order_relaxed);
        atomic_store_explicit(&h->steps, h->task.steps, memory_order_relaxed);
        take_checkpoint(e, h);
    }
    watch_memory(e);
    if (ended == 0) return;
    pthread_mutex_lock(&e->lock);
    for (size_t i = 0; i < e->active_len; i++) {
        if (e->active[i]->task.state != ENGINE_TASK_ACTIVE) e->active[i]->model = NULL;
    }
    pthread_mutex_unlock(&e->lock);
    size_t left = 0, len = e->active_len;
    for (size_t i = 0; i < len; i++) {
        Held *h = e->active[i];
        if (h->task.state == ENGINE_TASK_ACTIVE)
            e->active[left++] = h;
        else
            retire(e, h);
    }
    e->active_len = left;
}

static void *run(void *arg)
{
    Executor *e = arg;
    e->own_memory = memory_of_self();
    for (;;) {
        pthread_mutex_lock(&e->lock);
        while (list_empty(&e->inbox) && list_empty(&e->waiting) && e->active_len == 0 && !e->stop) {
            e->idle = true;
            pthread_cond_wait(&e->changed, &e->lock);
        }
        e->idle = false;
        splice(&e->inbox, &e->waiting);
        bool stop = e->stop, hand_back = e->hand_back;
        e->hand_back = false;
        pthread_mutex_unlock(&e->lock);

        if (stop || hand_back) release_waiting(e, stop);
        if (stop) {
            for (size_t i = 0; i < e->active_len; i++) {
                engine_cancel(e->current->model, &e->active[i]->task);
            }
            if (e->active_len == 0) break;
        }
        fill(e);
        if (e->active_len > 0) step(e);
        hand_over(e);
    }
    hand_over(e);
    LIST_FOR (l, &e->loaded, Loaded, link) unload(e, l);
    LIST_FOR (it, &e->waiting, ExecutorItem, link) mem_free(it); /* orders only */
    list_init(&e->waiting);
    pthread_mutex_lock(&e->lock);
    e->idle = true;
    pthread_mutex_unlock(&e->lock);
    return NULL;
}

/* ---- the face ---- */

static void free_executor(Executor *e)
{
    pthread_mutex_destroy(&e->lock);
    pthread_cond_destroy(&e->changed);
    mem_free(e->measured);
    mem_free(e);
}

Executor *executor_start(const ExecutorOptions *o)
{
    Executor *e = mem_new(sizeof *e);
    e->o = *o;
    e->host = (EngineHost){e, host_file_path, host_put_file, host_log};
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->changed, NULL);
    list_init(&e->inbox);
    list_init(&e->ended);
    list_init(&e->notes);
    list_init(&e->waiting);
    list_init(&e->loaded);
    list_init(&e->done);
    int err = pthread_create(&e->thread, NULL, run, e);
    if (err == 0) return e;
    say_error("cannot start the thread of device %u: %s; is a limit on threads or memory too low "
              "(ulimit -u, ulimit -v, the container's pids limit)?",
              o->device.index, strerror(err));
    free_executor(e);
    return NULL;
}

void executor_stop(Executor *e)
{
    pthread_mutex_lock(&e->lock);
    e->stop = true;
    pthread_cond_signal(&e->changed);
    pthread_mutex_unlock(&e->lock);
}

void executor_join(Executor *e)
{
    pthread_join(e->thread, NULL);
    LIST_FOR (n, &e->notes, Note, link) note_free(n);
    LIST_FOR (it, &e->inbox, ExecutorItem, link) {
        if (it->kind != ITEM_TASK) mem_free(it);
    }
    free_executor(e);
}

bool executor_idle(Executor *e)
{
    pthread_mutex_lock(&e->lock);
    bool idle = e->idle && list_empty(&e->inbox);
    pthread_mutex_unlock(&e->lock);
    return idle;
}

void executor_put(Executor *e, List *items)
{
    pthread_mutex_lock(&e->lock);
    splice(items, &e->inbox);
    pthread_cond_signal(&e->changed);
    pthread_mutex_unlock(&e->lock);
}

void executor_order(Executor *e, ItemKind kind, const ModelSpec *spec)
{
    ExecutorItem *it = mem_new(sizeof *it);
    it->kind = kind;
    it->spec = spec;
    List one;
    list_init(&one);
    list_push_back(&one, &it->link);
    executor_put(e, &one);
}

void executor_cancel(Executor *e, Held *h)
{
    pthread_mutex_lock(&e->lock);
    if (h->model != NULL) engine_cancel(h->model, &h->task);
    pthread_mutex_unlock(&e->lock);
}

void executor_hand_back(Executor *e)
{
    ExecutorItem *mark = mem_new(sizeof *mark);
    mark->kind = ITEM_HAND_BACK;
    pthread_mutex_lock(&e->lock);
    list_push_back(&e->inbox, &mark->link);
    e->hand_back = true;
    pthread_cond_signal(&e->changed);
    pthread_mutex_unlock(&e->lock);
}

void executor_take(Executor *e, List *ended, List *notes)
{
    pthread_mutex_lock(&e->lock);
    splice(&e->ended, ended);
    splice(&e->notes, notes);
    e->log_pending = 0;
    pthread_mutex_unlock(&e->lock);
}
