#include "sim/contents.h"
#include "sim/crew.h"
#include "sim/fiber.h"

#include <stdio.h>
#include <string.h>

#include "wire/json.h"
#include "worker/inside.h"

#define DEVICES_MAX 4
#define MODELS_MAX  3
#define SERVER      "http://sim"

typedef struct { /* what the worker takes for an Executor */
    Crew *crew;
    uint32_t index;
    Event done;
    List waiting, running, ended, notes; /* of ExecutorItem.link; of Note.link */
    const ModelSpec *loaded;             /* one fits */
    bool busy, loading;
    int64_t began_ns;
} Exec;

typedef struct { /* what the worker takes for an HttpRequest */
    List link;
    Crew *crew;
    Call *call;
    HttpRequestOptions o;
    bool reports;
    Buf said; /* of Said: a line each */
} Ask;

typedef struct {
    char id[40];
    uint64_t token;
    bool last; /* a result, an error, a release */
} Said;

typedef struct { /* a call that a job waits for, in its fiber */
    Crew *crew;
    Event *go_on;
    bool done;
    int err;
    HttpReply *reply;
} Wait;

struct Crew {
    Sim *s;
    World *w;
    Host host; /* for its loop only */
    Peer peer;
    uint32_t number, devices_len, life;
    char name[24];
    WorkerOptions o;
    ModelSpec models[MODELS_MAX], *model_list[MODELS_MAX];
    Worker *worker; /* NULL: no process */
    Exec execs[DEVICES_MAX];
    Executor *executors[DEVICES_MAX];
    List asks;
    Event wake, start, end;
    bool stopping; /* its process ends: jobs get nowhere */
};

static void exec_next(Exec *e);

static bool paused(const Crew *c)
{
    return c->host.paused_until_ns > c->w->now_ns;
}

/* ---- devices ---- */

static Exec *exec_of(Executor *e)
{
    return (Exec *)(void *)e;
}

static void give(Exec *e, Held *h, HeldOutcome outcome)
{
    h->outcome = outcome;
    list_push_back(&e->ended, &h->item.link);
    world_in(e->crew->w, &e->crew->wake, 0);
}

static void note(Exec *e, NoteKind kind, const ModelSpec *spec)
{
    Note *n = mem_new(sizeof *n);
    n->kind = kind;
    n->spec = spec;
    n->load_ns = 50 * NS_PER_MS;
    n->memory_bytes = kind == NOTE_LOADED ? spec->memory_bytes : 0;
    if (kind == NOTE_LOAD_FAILED) buf_puts(&n->bytes, "it does not load");
    list_push_back(&e->notes, &n->link);
    world_in(e->crew->w, &e->crew->wake, 0);
}

static void end_held(Exec *e, Held *h, int64_t ran_ns, bool crash)
{
    World *w = e->crew->w;
    const Plan *p = &e->crew->s->plan;
    list_del(&h->item.link);
    h->task.device_ns = ran_ns;
    h->run_ns = ran_ns;
    if (atomic_load(&h->stop) != STOP_NO) {
        give(e, h, OUTCOME_RELEASED);
        return;
    }
    if (crash || world_odds(w, p->errors)) {
        bool retry = crash || !world_odds(w, p->final_errors);
        world_happens(w, crash ? HAP_DEVICE_CRASHES : HAP_MODEL_ERRORS);
        engine_error_set(&h->task.error, crash ? ENGINE_ERR_CRASHED : ENGINE_ERR_MODEL, retry,
                         "it went wrong");
        h->error_code = crash ? "model_crashed" : "model_error";
        give(e, h, OUTCOME_ERROR);
        return;
    }
    Buf out = {0};
    buf_printf(&out, "{\"of\":\"%016llx\",\"token\":%llu",
               (unsigned long long)witness_text(h->task.input), (unsigned long long)h->token);
    bool big = world_odds(w, p->big * 4);
    if (big) {
        buf_puts(&out, ",\"pad\":\"");
        for (int64_t i = world_between(w, TASK_INLINE_MAX, 90000); i > 0; i--)
            buf_putc(&out, (char)('a' + i % 26));
        buf_putc(&out, '"');
    }
    buf_putc(&out, '}');
    if (big) { /* the worker stores it as a file */
        h->output = out;
        give(e, h, OUTCOME_RESULT);
        return;
    }
    line_result(&h->report.line, h->id, h->token, buf_str(&out), ran_ns, ran_ns);
    buf_done(&out);
    give(e, h, OUTCOME_RESULT);
}

static Held *held_of(List *link)
{
    return CONTAINER_OF(CONTAINER_OF(link, ExecutorItem, link), Held, item);
}

static void exec_done(Event *ev)
{
    Exec *e = CONTAINER_OF(ev, Exec, done);
    Crew *c = e->crew;
    World *w = c->w;
    if (paused(c)) {
        world_at(w, ev, c->host.paused_until_ns);
        return;
    }
    e->busy = false;
    if (e->loading) {
        e->loading = false;
        const ModelSpec *spec = LIST_FIRST(&e->waiting, ExecutorItem, link)->spec;
        if (world_odds(w, c->s->plan.load_fails)) {
            world_happens(w, HAP_LOAD_FAILS);
            note(e, NOTE_LOAD_FAILED, spec);
            LIST_FOR (it, &e->waiting, ExecutorItem, link) {
                if (it->spec != spec) continue;
                list_del(&it->link);
                give(e, CONTAINER_OF(it, Held, item), OUTCOME_RELEASED);
            }
        } else {
            if (e->loaded) note(e, NOTE_UNLOADED, e->loaded);
            e->loaded = spec;
            note(e, NOTE_LOADED, spec);
        }
    } else {
        int64_t n = 0, ran = w->now_ns - e->began_ns;
        bool crash = world_odds(w, c->s->plan.device_crashes);
        LIST_FOR (it, &e->running, ExecutorItem, link) n++;
        while (!list_empty(&e->running)) end_held(e, held_of(e->running.next), ran / n, crash);
    }
    exec_next(e);
}

/* A checkpoint is what it says it is of: so many units of that task. */
static void begin_held(Exec *e, Held *h)
{
    World *w = e->crew->w;
    Sim *s = e->crew->s;
    Buf said = {0};
    char id[40];
    snprintf(id, sizeof id, "%.*s", STR_ARG(h->id));
    if (h->fetched.len)
        witness_lease(s->witness, e->crew->number, id, h->token, h->attempt, h->task.input,
                      UINT64_MAX);
    if (h->checkpoint.len) {
        buf_printf(&said, "%.*s %llu ", STR_ARG(h->id), (unsigned long long)h->resume_unit);
        world_happens(w, HAP_RESUMES);
        if (!str_starts(buf_str(&h->checkpoint), buf_str(&said)))
            world_broken(w, 15, "%.*s is to go on at unit %llu with another checkpoint",
                         STR_ARG(h->id), (unsigned long long)h->resume_unit);
    } else if (h->resume_file.n && s->calm_ns && w->now_ns > s->calm_ns) {
        world_broken(w, 15, "the checkpoint %.*s cannot be read", STR_ARG(h->resume_file));
    }
    buf_done(&said);
    if (!world_odds(w, s->plan.checkpoints)) return;
    Note *n = mem_new(sizeof *n);
    n->kind = NOTE_CHECKPOINT;
    n->token = h->token;
    n->unit = h->resume_unit + 1;
    buf_printf(&n->bytes, "%.*s %llu ", STR_ARG(h->id), (unsigned long long)n->unit);
    for (int64_t i = world_between(w, 0, 3000); i > 0; i--)
        buf_putc(&n->bytes, (char)('a' + i % 26));
    list_push_back(&e->notes, &n->link);
    world_in(w, &e->crew->wake, 0);
}

static void exec_next(Exec *e)
{
    Crew *c = e->crew;
    World *w = c->w;
    const Plan *p = &c->s->plan;
    while (!e->busy && !list_empty(&e->waiting)) {
        ExecutorItem *first = LIST_FIRST(&e->waiting, ExecutorItem, link);
        Held *h = CONTAINER_OF(first, Held, item);
        if (atomic_load(&h->stop) != STOP_NO) {
            list_del(&first->link);
            give(e, h, OUTCOME_RELEASED);
            continue;
        }
        e->busy = true;
        e->began_ns = w->now_ns;
        if (e->loaded != first->spec) {
            e->loading = true;
            world_in(w, &e->done, world_between(w, 10 * NS_PER_MS, 200 * NS_PER_MS));
            return;
        }
        uint32_t n = 0;
        LIST_FOR (it, &e->waiting, ExecutorItem, link) {
            if (it->spec != e->loaded || n == p->batch_max) break;
            list_del(&it->link);
            list_push_back(&e->running, &it->link);
            atomic_store(&CONTAINER_OF(it, Held, item)->begun, true);
            n++;
        }
        int64_t ns = world_around(w, p->run_ns);
        if (world_odds(w, p->hangs)) {
            world_happens(w, HAP_DEVICE_HANGS);
            ns += 3 * p->limits.lease_ns;
        }
        LIST_FOR (it, &e->running, ExecutorItem, link) begin_held(e, CONTAINER_OF(it, Held, item));
        world_in(w, &e->done, ns);
    }
}

static bool sim_idle(Executor *x)
{
    const Exec *e = exec_of(x);
    return !e->busy && list_empty(&e->waiting);
}

static void sim_put(Executor *x, List *items)
{
    Exec *e = exec_of(x);
    LIST_FOR (it, items, ExecutorItem, link) {
        list_del(&it->link);
        list_push_back(&e->waiting, &it->link);
    }
    exec_next(e);
}

static void sim_order(Executor *x, ItemKind kind, const ModelSpec *spec)
{
    Exec *e = exec_of(x);
    if (e->busy) return; /* this device loads what its tasks need */
    if (kind == ITEM_LOAD && e->loaded != spec) {
        if (e->loaded) note(e, NOTE_UNLOADED, e->loaded);
        e->loaded = spec;
        note(e, NOTE_LOADED, spec);
    } else if (kind == ITEM_UNLOAD && e->loaded == spec) {
        e->loaded = NULL;
        note(e, NOTE_UNLOADED, spec);
    }
}

static void sim_cancel(Executor *x, Held *h)
{
    Exec *e = exec_of(x);
    if (!e->busy || e->loading || !atomic_load(&h->begun)) return;
    int64_t soon = e->crew->w->now_ns + 50 * NS_PER_MS;
    if (e->done.node.key > soon) world_at(e->crew->w, &e->done, soon);
}

static void sim_hand_back(Executor *x)
{
    Exec *e = exec_of(x);
    LIST_FOR (it, &e->waiting, ExecutorItem, link) {
        if (e->loading && it == LIST_FIRST(&e->waiting, ExecutorItem, link)) continue;
        list_del(&it->link);
        give(e, CONTAINER_OF(it, Held, item), OUTCOME_RELEASED);
    }
}

static void move_all(List *from, List *to)
{
    while (!list_empty(from)) {
        List *n = from->next;
        list_del(n);
        list_push_back(to, n);
    }
}

static void sim_take(Executor *x, List *ended, List *notes)
{
    move_all(&exec_of(x)->ended, ended);
    move_all(&exec_of(x)->notes, notes);
}

static void wake_fire(Event *ev)
{
    Crew *c = CONTAINER_OF(ev, Crew, wake);
    if (paused(c))
        world_at(c->w, ev, c->host.paused_until_ns);
    else if (c->worker)
        tasks_take(c->worker);
}

/* ---- calls, with the witness beside them ---- */

static void tap_lease(Crew *c, Ask *a, Str line)
{
    Message m;
    Buf why = {0};
    if (message_parse(line, c->w->now_ns, &m, &why)) {
        world_broken(c->w, 4, "a line for a worker makes no sense: %.*s", STR_ARG(line));
    } else {
        for (size_t i = 0; m.kind == MESSAGE_LEASE && i < m.lease->len; i++) {
            const Held *t = &m.lease->tasks[i];
            char id[40];
            snprintf(id, sizeof id, "%.*s", STR_ARG(t->id));
            c->s->leases++;
            if (t->attempt == 1) buf_put(&c->s->leased, id, TASK_ID_LEN + 1);
            witness_lease(c->s->witness, c->number, id, t->token, t->attempt, t->task.input,
                          call_durable(a->call));
        }
        message_done(&m);
    }
    buf_done(&why);
}

static void tap_report(Crew *c, Ask *a, Str line)
{
    Json j = {0};
    JsonFault f = {0};
    Said s = {.token = 0};
    Str t = {"", 0}, id = {"", 0};
    uint64_t device_ns = 0;
    yyjson_val *root = json_read_object(&j, line, NULL, &f) ? yyjson_doc_get_root(j.doc) : NULL;
    (void)json_val_str(yyjson_obj_get(root, "t"), &t);
    (void)json_val_str(yyjson_obj_get(root, "id"), &id);
    (void)json_val_uint(yyjson_obj_get(root, "token"), &s.token);
    (void)json_val_uint(yyjson_obj_get(root, "device_ns"), &device_ns);
    snprintf(s.id, sizeof s.id, "%.*s", STR_ARG(id));
    bool ok = str_eqz(t, "result"), error = str_eqz(t, "error");
    s.last = ok || error || str_eqz(t, "released");
    if (s.last) {
        const JsonMember *out = json_member(&j, "output");
        witness_result(c->s->witness, c->number, s.id, s.token, ok,
                       ok && out ? witness_text(out->text) : 0, (int64_t)device_ns);
        if (error && yyjson_is_false(yyjson_obj_get(root, "retryable")))
            witness_final(c->s->witness, s.id, s.token);
    }
    buf_put(&a->said, &s, sizeof s);
    json_done(&j);
}

static bool next_line(Str *rest, Str *line)
{
    if (!rest->n) return false;
    const char *end = memchr(rest->p, '\n', rest->n);
    *line = (Str){rest->p, end ? (size_t)(end - rest->p) : rest->n};
    size_t used = line->n + (end != NULL);
    rest->p += used;
    rest->n -= used;
    return true;
}

static void tap_answers(Crew *c, const Ask *a, Str body)
{
    Str line;
    const Said *s = (const Said *)(const void *)a->said.data;
    for (size_t i = 0; i < a->said.len / sizeof *s && next_line(&body, &line); i++) {
        Answer answer;
        Buf detail = {0};
        bool fine = answer_parse(line, &answer, &detail) == 0;
        buf_done(&detail);
        if (!s[i].last || !fine) continue;
        witness_answer(c->s->witness, c->number, s[i].id, s[i].token,
                       answer == ANSWER_ACCEPTED    ? 0
                       : answer == ANSWER_DUPLICATE ? 1
                       : answer == ANSWER_FENCED    ? 2
                                                    : 3);
    }
}

static void ask_free(Ask *a)
{
    list_del(&a->link);
    buf_done(&a->said);
    mem_free(a);
}

static void ask_line(void *ctx, Str line)
{
    Ask *a = ctx;
    if (!line.n) return;
    tap_lease(a->crew, a, line);
    a->o.on_line(a->o.ctx, line);
}

static void ask_done(void *ctx, int err, const Reply *r)
{
    Ask *a = ctx;
    HttpReply reply = {.status = err ? 0 : r->status};
    uint64_t retry_s;
    if (err) snprintf(reply.error, sizeof reply.error, "%s", err_text(err));
    if (parse_u64(reply_header(r, "Retry-After"), &retry_s) == 0)
        reply.retry_after_s = (uint32_t)retry_s;
    buf_put_str(&reply.body, buf_str(&r->body));
    if (a->reports && reply.status == 200) tap_answers(a->crew, a, buf_str(&r->body));
    void (*on_done)(void *, int, HttpReply *) = a->o.on_done;
    void *to = a->o.ctx;
    ask_free(a);
    on_done(to, err, &reply);
    http_reply_done(&reply);
}

static World *current;
static int64_t ahead_ns; /* the clock of a process that ends */

/* ---- transfers of files: jobs of the worker's loop, each in a fiber ---- */

static void wait_done(void *ctx, int err, const Reply *r)
{
    Wait *a = ctx;
    Str tag = reply_header(r, "ETag");
    a->done = true;
    a->err = err;
    a->reply->status = err ? 0 : r->status;
    if (err) snprintf(a->reply->error, sizeof a->reply->error, "%s", err_text(err));
    if (tag.n > 2)
        snprintf(a->reply->etag, sizeof a->reply->etag, "%.*s", (int)tag.n - 2, tag.p + 1);
    buf_put_str(&a->reply->body, buf_str(&r->body));
    world_in(a->crew->w, a->go_on, 0);
}

static int sim_files_call(const Files *f, const char *method, const char *url,
                          const char *const *headers, Str body, int64_t timeout_ms, HttpReply *ret)
{
    Crew *c = CONTAINER_OF(CONTAINER_OF(f, Worker, files)->loop, Crew, host.loop);
    Wait a = {.crew = c, .go_on = host_work_event(&c->host), .reply = ret};
    Buf lines = {0};
    *ret = (HttpReply){0};
    if (c->stopping) return ERR_CANCELED;
    for (size_t i = 0; headers[i]; i++)
        if (headers[i][0]) buf_printf(&lines, "%s\r\n", headers[i]);
    Call *call = call_start(&c->peer, c->s->host,
                            &(CallOptions){.method = method,
                                           .target = url + strlen(SERVER),
                                           .headers = buf_z(&lines),
                                           .body = body,
                                           .timeout_ns = timeout_ms * NS_PER_MS,
                                           .on_done = wait_done,
                                           .ctx = &a});
    buf_done(&lines);
    while (!a.done && !c->stopping) fiber_pause();
    if (!a.done) call_cancel(call);
    if (c->stopping) return ERR_CANCELED;
    if (strcmp(method, "POST") == 0 && ret->status == 201)
        (void)contents_stored(c->s, buf_str(&ret->body), body);
    return a.err;
}

static void sim_files_sleep(const Files *f, int64_t ns)
{
    Crew *c = CONTAINER_OF(CONTAINER_OF(f, Worker, files)->loop, Crew, host.loop);
    if (c->stopping) {
        ahead_ns += ns; /* it sleeps to its end */
        return;
    }
    world_in(c->w, host_work_event(&c->host), ns);
    fiber_pause();
}

static const FilesWorld sim_files = {sim_files_call, sim_files_sleep};

static HttpRequest *sim_call(Worker *w, const HttpRequestOptions *o)
{
    Crew *c = CONTAINER_OF(w->loop, Crew, host.loop);
    Ask *a = mem_new(sizeof *a);
    Buf headers = {0};
    Str line, body = o->body;
    a->crew = c;
    a->o = *o;
    a->o.url = NULL;
    list_push_back(&c->asks, &a->link);
    for (size_t i = 0; o->headers && o->headers[i]; i++)
        buf_printf(&headers, "%s\r\n", o->headers[i]);
    const char *target = o->url + strlen(SERVER);
    a->reports = strstr(target, "/reports") != NULL;
    if (c->stopping) return (HttpRequest *)(void *)a;
    if (a->reports)
        while (next_line(&body, &line)) tap_report(c, a, line);
    a->call = call_start(&c->peer, c->s->host,
                         &(CallOptions){.method = o->method,
                                        .target = target,
                                        .headers = buf_z(&headers),
                                        .body = o->body,
                                        .timeout_ns = o->timeout_ms * NS_PER_MS,
                                        .alone = o->on_line != NULL,
                                        .on_line = o->on_line ? ask_line : NULL,
                                        .on_done = ask_done,
                                        .ctx = a});
    buf_done(&headers);
    return (HttpRequest *)(void *)a;
}

static void sim_cancel_call(Worker *w, HttpRequest *r)
{
    Ask *a = (Ask *)(void *)r;
    (void)w;
    if (!a) return;
    call_cancel(a->call);
    ask_free(a);
}

/* ---- the process ---- */

static void sim_end(Worker *w)
{
    Crew *c = CONTAINER_OF(w->loop, Crew, host.loop);
    world_in(c->w, &c->end, 0);
}

static const WorkerWorld sim_world = {
    .call = sim_call,
    .cancel_call = sim_cancel_call,
    .idle = sim_idle,
    .put = sim_put,
    .order = sim_order,
    .cancel = sim_cancel,
    .hand_back = sim_hand_back,
    .take = sim_take,
    .end = sim_end,
};

static void begin(Crew *c)
{
    Worker *w = c->worker = worker_new(&c->o);
    w->world = &sim_world;
    w->files.world = &sim_files;
    w->loop = &c->host.loop;
    w->pid = 100000 + (long)c->number * 1000 + (long)++c->life;
    w->device_memory = 8000000;
    w->threads = 1;
    w->models = (ModelRepository){.specs = c->model_list, .len = c->s->plan.models};
    w->executors_len = c->devices_len;
    w->executors = mem_dup(c->executors, sizeof c->executors);
    loop_timer_init(w->loop, &w->tick, worker_tick);
    loop_timer_init(w->loop, &w->retry, session_retry);
    w->tick_ms = TICK_IDLE_MS;
    loop_timer_start(&w->tick, TICK_IDLE_MS, TICK_IDLE_MS);
    session_start(w);
}

static void stop(Crew *c)
{
    Worker *w = c->worker;
    if (!w) return;
    c->stopping = true;
    host_die(&c->host, true);
    session_done(w);
    loop_timer_close(&w->tick, NULL);
    loop_timer_close(&w->retry, NULL);
    while (!list_empty(&c->asks))
        sim_cancel_call(w, (HttpRequest *)(void *)LIST_FIRST(&c->asks, Ask, link));
    calls_drop(&c->peer);
    for (uint32_t i = 0; i < c->devices_len; i++) {
        Exec *e = &c->execs[i];
        LIST_FOR (n, &e->notes, Note, link) {
            list_del(&n->link);
            note_free(n);
        }
        world_not(c->w, &e->done);
        list_init(&e->waiting); /* its items go with their tasks */
        list_init(&e->running);
        list_init(&e->ended);
        e->busy = e->loading = false;
        e->loaded = NULL;
    }
    w->models = (ModelRepository){0};
    worker_free(w);
    c->worker = NULL;
    c->stopping = false;
    ahead_ns = 0;
    world_not(c->w, &c->wake);
    world_not(c->w, &c->end);
}

static void start_fire(Event *ev)
{
    Crew *c = CONTAINER_OF(ev, Crew, start);
    if (!c->worker) begin(c);
}

static void end_fire(Event *ev)
{
    Crew *c = CONTAINER_OF(ev, Crew, end);
    world_say(c->w, "%s: its process ends by itself", c->name);
    stop(c);
    world_in(c->w, &c->start, world_between(c->w, 100 * NS_PER_MS, NS_PER_S));
}

static int64_t now_ns(void)
{
    return current->now_ns + ahead_ns;
}

static void no_turn(Host *h)
{
    (void)h;
}

Crew *crew_new(Sim *s, uint32_t number, const char *name, uint32_t devices)
{
    static const char *const names[MODELS_MAX] = {"m0", "m1", "m2"};
    Crew *c = mem_new(sizeof *c);
    CHECK(s->plan.models <= MODELS_MAX && devices <= DEVICES_MAX);
    current = s->w;
    clock_mono_simulate(now_ns);
    c->s = s;
    c->w = s->w;
    c->number = number;
    c->devices_len = devices;
    snprintf(c->name, sizeof c->name, "%s", name);
    peer_init(&c->peer, s->w, name);
    host_init(&c->host, s->w);
    c->host.turn = no_turn;
    list_init(&c->asks);
    c->wake.fire = wake_fire;
    c->start.fire = start_fire;
    c->end.fire = end_fire;
    c->o = (WorkerOptions){
        .server_url = SERVER, .key = "worker-key", .name = c->name, .region = ""};
    for (uint32_t i = 0; i < s->plan.models; i++) {
        ModelSpec *m = &c->models[i];
        char digits[65];
        snprintf(digits, sizeof digits, "%064u", i + 1);
        *m = (ModelSpec){.name = (char *)(uintptr_t)names[i],
                         .version = (char *)(uintptr_t) "1",
                         .engine = (char *)(uintptr_t) "echo",
                         .description = (char *)(uintptr_t) "",
                         .max_batch = s->plan.batch_max,
                         .batch_delay_ms = i % 2 ? 20 : 0,
                         .memory_bytes = 1000000};
        CHECK(sha256_from_hex(str_from(digits), &m->digest) == 0);
        c->model_list[i] = m;
    }
    for (uint32_t i = 0; i < devices; i++) {
        Exec *e = &c->execs[i];
        e->crew = c;
        e->index = i;
        e->done.fire = exec_done;
        list_init(&e->waiting);
        list_init(&e->running);
        list_init(&e->ended);
        list_init(&e->notes);
        c->executors[i] = (Executor *)(void *)e;
    }
    world_in(s->w, &c->start, world_between(s->w, 0, 100 * NS_PER_MS));
    return c;
}

void crew_free(Crew *c)
{
    if (!c) return;
    stop(c);
    calls_drop(&c->peer);
    world_not(c->w, &c->start);
    host_done(&c->host);
    mem_free(c);
    clock_mono_simulate(NULL);
}

void crew_die(Crew *c, int64_t back_in_ns)
{
    world_say(c->w, "%s: dies", c->name);
    stop(c);
    world_in(c->w, &c->start, back_in_ns);
}

void crew_pause(Crew *c, int64_t until_ns)
{
    c->host.paused_until_ns = until_ns;
}

Peer *crew_peer(Crew *c)
{
    return &c->peer;
}

const char *crew_id(const Crew *c)
{
    return c->worker ? c->worker->id : "";
}
