/* hand.c: a worker as far as the protocol shows it, with simulated devices, that may be worse than
 * ours is: it hangs, dies, sleeps past its leases, repeats itself and reports what it should have
 * dropped. It parses and writes with worker/'s own code. */
#include <stdio.h>
#include <string.h>

#include "sim/actors.h"
#include "sim/crew.h"
#include "wire/json.h"
#include "worker/message.h"
#include "worker/outbox.h"

#define DEVICES_MAX 4
#define POST_MAX    64
#define AS_WORKER   "Authorization: Bearer worker-key\r\n"

typedef struct { /* a task that is held */
    List link;   /* in Hand.runs */
    List at;     /* in its device's queue, or nowhere */
    char id[40];
    uint64_t token, of; /* of: what its input is */
    uint32_t attempt, device;
    char model[64], version[32];
    bool canceled, over; /* over: its last line is in the outbox */
    bool dropped;        /* nobody wants to hear of it: no report, unless this hand lies */
} Run;

typedef struct {
    Hand *hand;
    Event done;
    List queue;   /* of Run.at, in order */
    uint32_t len; /* of the first ones in it: they run now */
    bool busy, loading;
    char loaded[64];
    int64_t began_ns;
} Dev;

typedef struct { /* a line that waits for its answer */
    List link;
    uint64_t token;
    char id[40];
    int kind;   /* 0 result, 1 error, 2 released, 3 other */
    bool final; /* an error that no retry mends */
    uint64_t output;
    int64_t device_ns;
    Buf line;
} Line;

struct Hand {
    Crew *crew; /* not NULL: our own worker's logic; then the rest is idle */
    Sim *s;
    World *w;
    Peer peer;
    uint32_t number, life, devices_len;
    char name[24], id[64];
    Event retry, pulse, post_again;
    Call *registering, *stream, *post;
    Dev devices[DEVICES_MAX];
    List runs, lines; /* lines: those not under way */
    List flight;
    uint32_t flight_len;
    uint64_t pong;
    bool pong_due, dead, draining;
    int64_t paused_until_ns, heard_ns, asked_ns;
    uint32_t ping_s;
};

static void begin(Hand *h);
static void post(Hand *h);
static void device_next(Hand *h, Dev *d);

static bool paused(const Hand *h)
{
    return h->paused_until_ns > h->w->now_ns;
}

static bool lies(Hand *h)
{
    return !h->s->healed && world_odds(h->w, h->s->plan.lies);
}

/* ---- what is held ---- */

static void run_free(Run *r)
{
    list_del(&r->link);
    list_del(&r->at);
    mem_free(r);
}

static Run *run_find(Hand *h, uint64_t token)
{
    LIST_FOR (r, &h->runs, Run, link) {
        if (r->token == token) return r;
    }
    return NULL;
}

static void line_free(Line *l)
{
    list_del(&l->link);
    buf_done(&l->line);
    mem_free(l);
}

static Line *line_new(Hand *h, const Run *r, int kind)
{
    Line *l = mem_new(sizeof *l);
    list_push_back(&h->lines, &l->link);
    l->kind = kind;
    if (r) {
        l->token = r->token;
        memcpy(l->id, r->id, sizeof l->id);
    }
    return l;
}

/* ---- the end of a task here ---- */

typedef enum { END_RESULT, END_ERROR, END_CRASH, END_RELEASED } End;

static void end_run(Hand *h, Run *r, End how, int64_t device_ns)
{
    Sim *s = h->s;
    Str id = str_from(r->id);
    if (r->over) return;
    r->over = true;
    list_del(&r->at);
    if (r->dropped) {
        run_free(r);
        return;
    }
    if (how == END_RESULT && world_odds(h->w, s->plan.errors)) how = END_ERROR;
    if (s->healed && how == END_CRASH) how = END_RESULT;
    Line *l = line_new(h, r, how == END_RESULT ? 0 : how == END_RELEASED ? 2 : 1);
    l->device_ns = device_ns;
    if (how == END_RESULT) {
        Buf out = {0};
        buf_printf(&out, "{\"of\":\"%016llx\",\"token\":%llu}", (unsigned long long)r->of,
                   (unsigned long long)r->token);
        l->output = witness_text(buf_str(&out));
        line_result(&l->line, id, r->token, buf_str(&out), device_ns, device_ns);
        buf_done(&out);
    } else if (how == END_RELEASED) {
        line_released(&l->line, id, r->token, device_ns, device_ns);
    } else {
        bool retry = how == END_CRASH || !world_odds(h->w, s->plan.final_errors);
        world_happens(h->w, how == END_CRASH ? HAP_DEVICE_CRASHES : HAP_MODEL_ERRORS);
        line_error(&l->line, id, r->token, how == END_CRASH ? "model_crashed" : "model_error",
                   STR("it went wrong"), retry, device_ns, device_ns);
        l->final = !retry;
    }
    if (lies(h)) { /* says it twice */
        Line *again = line_new(h, r, l->kind);
        again->device_ns = l->device_ns;
        again->output = l->output;
        again->final = l->final;
        buf_put_str(&again->line, buf_str(&l->line));
        world_happens(h->w, HAP_WORKER_LIES);
    }
}

/* ---- devices ---- */

static void device_finish(Hand *h, Dev *d)
{
    World *w = h->w;
    const Plan *plan = &h->s->plan;
    if (paused(h)) {
        world_at(w, &d->done, h->paused_until_ns);
        return;
    }
    d->busy = false;
    if (d->loading) {
        d->loading = false;
        const Run *r = list_empty(&d->queue) ? NULL : LIST_FIRST(&d->queue, Run, at);
        bool fails = !h->s->healed && world_odds(w, plan->load_fails);
        if (r) {
            Line *l = line_new(h, NULL, 3);
            buf_printf(&l->line,
                       "{\"t\":\"telemetry\",\"device\":%u,\"model\":\"%s\",\"version\":\"%s\","
                       "\"event\":\"%s\"%s}\n",
                       r->device, r->model, r->version, fails ? "load_failed" : "loaded",
                       fails ? ",\"message\":\"it does not load\""
                             : ",\"load_ns\":50000000,\"memory_bytes\":1000000");
            if (fails) {
                world_happens(w, HAP_LOAD_FAILS);
                while (!list_empty(&d->queue))
                    end_run(h, LIST_FIRST(&d->queue, Run, at), END_RELEASED, 0);
            } else {
                snprintf(d->loaded, sizeof d->loaded, "%s", r->model);
            }
        }
    } else {
        int64_t ran = w->now_ns - d->began_ns;
        bool crash = !h->s->healed && world_odds(w, plan->device_crashes);
        uint32_t n = d->len;
        for (uint32_t i = 0; i < n && !list_empty(&d->queue); i++) {
            Run *r = LIST_FIRST(&d->queue, Run, at);
            bool late = lies(h) && r->canceled; /* does not let go: reports a result */
            if (late) world_happens(w, HAP_WORKER_LIES);
            if (r->dropped && lies(h)) { /* reports with a token that is stale */
                r->dropped = false;
                world_happens(w, HAP_WORKER_LIES);
            }
            end_run(h, r,
                    r->canceled && !late ? END_RELEASED
                    : crash              ? END_CRASH
                                         : END_RESULT,
                    ran / (int64_t)n);
        }
    }
    device_next(h, d);
    post(h);
}

static void device_next(Hand *h, Dev *d)
{
    World *w = h->w;
    const Plan *plan = &h->s->plan;
    while (!d->busy && !list_empty(&d->queue)) {
        Run *r = LIST_FIRST(&d->queue, Run, at);
        if (r->canceled || r->dropped) {
            end_run(h, r, END_RELEASED, 0);
            continue;
        }
        d->busy = true;
        d->began_ns = w->now_ns;
        if (strcmp(d->loaded, r->model) != 0) {
            d->loading = true;
            world_in(w, &d->done, world_between(w, 10 * NS_PER_MS, 200 * NS_PER_MS));
            return;
        }
        d->len = 0;
        LIST_FOR (x, &d->queue, Run, at) {
            if (strcmp(x->model, r->model) != 0 || d->len == plan->batch_max) break;
            d->len++;
            Line *l = line_new(h, NULL, 3);
            line_started(&l->line, str_from(x->id), x->token);
        }
        int64_t ns = world_around(w, plan->run_ns);
        if (!h->s->healed && world_odds(w, plan->hangs)) {
            world_happens(w, HAP_DEVICE_HANGS);
            ns += 3 * plan->limits.lease_ns;
        }
        world_in(w, &d->done, ns);
    }
}

/* ---- what the server says ---- */

static void on_lease(Hand *h, LeaseBatch *b)
{
    Dev *d = &h->devices[MIN(b->device, h->devices_len - 1)];
    uint64_t durable = call_durable(h->stream);
    for (size_t i = 0; i < b->len; i++) {
        const Held *t = &b->tasks[i];
        Run *r = mem_new(sizeof *r);
        snprintf(r->id, sizeof r->id, "%.*s", STR_ARG(t->id));
        snprintf(r->model, sizeof r->model, "%.*s", STR_ARG(b->model));
        snprintf(r->version, sizeof r->version, "%.*s", STR_ARG(b->version));
        r->token = t->token;
        r->attempt = t->attempt;
        r->device = b->device;
        r->of = witness_text(t->task.input);
        h->s->leases++;
        if (r->attempt == 1) buf_put(&h->s->leased, r->id, TASK_ID_LEN + 1);
        witness_lease(h->s->witness, h->number, r->id, r->token, r->attempt, t->task.input,
                      durable);
        LIST_FOR (old, &h->runs, Run, link) { /* leased anew: drop the old one */
            if (strcmp(old->id, r->id) == 0 && !lies(h)) old->dropped = true;
        }
        list_push_back(&h->runs, &r->link);
        list_push_back(&d->queue, &r->at);
    }
    lease_batch_free(b);
    device_next(h, d);
}

static void on_line(void *ctx, Str line)
{
    Hand *h = ctx;
    Message m;
    Buf why = {0};
    h->heard_ns = h->w->now_ns;
    if (message_parse(line, h->w->now_ns, &m, &why)) {
        world_broken(h->w, 4, "a line for a worker makes no sense: %.*s", STR_ARG(line));
        buf_done(&why);
        return;
    }
    Run *r;
    switch (m.kind) {
    case MESSAGE_LEASE:
        on_lease(h, m.lease);
        m.lease = NULL;
        break;
    case MESSAGE_CANCEL:
        r = run_find(h, m.token);
        if (r && !r->over) {
            r->canceled = true;
            Dev *d = &h->devices[MIN(r->device, h->devices_len - 1)];
            if (d->busy && !d->loading && !lies(h)) /* it stops soon */
                world_at(h->w, &d->done, MIN(d->done.node.key, h->w->now_ns + 100 * NS_PER_MS));
        }
        break;
    case MESSAGE_PING:
        h->pong_due = true;
        h->pong = m.ping;
        break;
    case MESSAGE_DRAIN:
        h->draining = m.exit;
        LIST_FOR (x, &h->runs, Run, link) {
            const Dev *d = &h->devices[MIN(x->device, h->devices_len - 1)];
            bool begun = d->busy && !d->loading && LIST_FIRST(&d->queue, Run, at) == x;
            if (!x->over && !begun) x->canceled = true;
        }
        for (uint32_t i = 0; i < h->devices_len; i++) device_next(h, &h->devices[i]);
        break;
    default:
        break;
    }
    message_done(&m);
    buf_done(&why);
    post(h);
}

/* ---- reports ---- */

static void back_to_lines(Hand *h)
{
    while (!list_empty(&h->flight)) {
        Line *l = CONTAINER_OF(h->flight.prev, Line, link);
        list_del(&l->link);
        if (l->kind >= 3) {
            list_push_front(&h->lines, &l->link);
            line_free(l); /* what may be lost */
        } else {
            list_push_front(&h->lines, &l->link);
        }
    }
}

static void lost(Hand *h)
{
    call_cancel(h->stream);
    call_cancel(h->post);
    call_cancel(h->registering);
    h->stream = h->post = h->registering = NULL;
    back_to_lines(h);
    if (!h->dead) world_in(h->w, &h->retry, world_between(h->w, 50 * NS_PER_MS, 2 * NS_PER_S));
}

static void answered(Hand *h, Line *l, Str answer)
{
    Answer a;
    Buf detail = {0};
    int err = answer_parse(answer, &a, &detail);
    int word = err                     ? 3
               : a == ANSWER_ACCEPTED  ? 0
               : a == ANSWER_DUPLICATE ? 1
               : a == ANSWER_FENCED    ? 2
                                       : 3;
    buf_done(&detail);
    if (l->kind < 3) {
        if (err) { /* "retry" */
            list_del(&l->link);
            list_push_back(&h->lines, &l->link);
            return;
        }
        witness_answer(h->s->witness, h->number, l->id, l->token, word);
        Run *r = run_find(h, l->token);
        if (r && r->over) run_free(r);
    }
    line_free(l);
}

static void on_posted(void *ctx, int err, const Reply *r)
{
    Hand *h = ctx;
    h->post = NULL;
    if (err || r->status != 200) {
        back_to_lines(h);
        if (r->status == 404)
            lost(h);
        else
            world_in(h->w, &h->post_again, world_between(h->w, NS_PER_MS, 500 * NS_PER_MS));
        return;
    }
    Str left = buf_str(&r->body);
    while (!list_empty(&h->flight) && left.n) {
        const char *nl = memchr(left.p, '\n', left.n);
        if (!nl) break;
        Str line = {left.p, (size_t)(nl - left.p)};
        left.p += line.n + 1;
        left.n -= line.n + 1;
        Line *l = LIST_FIRST(&h->flight, Line, link);
        if (l->kind == 4) { /* the pong */
            line_free(l);
            continue;
        }
        answered(h, l, line);
    }
    back_to_lines(h);
    if (!list_empty(&h->lines) || h->pong_due)
        world_in(h->w, &h->post_again, world_between(h->w, 0, 5 * NS_PER_MS));
}

static void post(Hand *h)
{
    if (h->post || !h->stream || h->dead || paused(h)) return;
    if (list_empty(&h->lines) && !h->pong_due) return;
    Buf body = {0};
    if (h->pong_due) {
        h->pong_due = false;
        Line *l = line_new(h, NULL, 4);
        list_del(&l->link);
        list_push_back(&h->flight, &l->link);
        line_pong(&body, h->pong);
        LIST_FOR (r, &h->runs, Run, link) {
            if (!r->dropped) line_pong_held(&body, r->token);
        }
        line_pong_end(&body);
    }
    for (int n = 0; n < POST_MAX && !list_empty(&h->lines); n++) {
        Line *l = LIST_FIRST(&h->lines, Line, link);
        list_del(&l->link);
        list_push_back(&h->flight, &l->link);
        buf_put_str(&body, buf_str(&l->line));
        if (l->kind < 3)
            witness_result(h->s->witness, h->number, l->id, l->token, l->kind == 0, l->output,
                           l->device_ns);
        if (l->final) witness_final(h->s->witness, l->id, l->token);
    }
    char target[120];
    snprintf(target, sizeof target, "/v1/worker/%s/reports", h->id);
    h->post = call_start(
        &h->peer, h->s->host,
        &(CallOptions){.method = "POST",
                       .target = target,
                       .headers = AS_WORKER "Content-Type: application/x-ndjson\r\n",
                       .body = buf_str(&body),
                       .timeout_ns = 10 * NS_PER_S,
                       .on_done = on_posted,
                       .ctx = h});
    buf_done(&body);
}

static void post_again_fire(Event *e)
{
    Hand *h = CONTAINER_OF(e, Hand, post_again);
    if (paused(h))
        world_at(h->w, e, h->paused_until_ns);
    else
        post(h);
}

/* ---- the session ---- */

static void on_stream_done(void *ctx, int err, const Reply *r)
{
    Hand *h = ctx;
    (void)err;
    (void)r;
    h->stream = NULL;
    lost(h);
}

static void on_registered(void *ctx, int err, const Reply *r)
{
    Hand *h = ctx;
    Welcome a;
    Buf why = {0};
    h->registering = NULL;
    if (err || r->status != 200 || welcome_parse(buf_str(&r->body), &a, &why)) {
        buf_done(&why);
        lost(h);
        return;
    }
    buf_done(&why);
    memcpy(h->id, a.worker, sizeof h->id);
    h->ping_s = a.ping_s;
    for (size_t i = 0; i < a.stale_len; i++) {
        Run *x = run_find(h, a.stale[i]);
        if (!x) continue;
        if (lies(h)) {
            world_happens(h->w, HAP_WORKER_LIES);
            continue;
        }
        x->dropped = true;
        LIST_FOR (l, &h->lines, Line, link) {
            if (l->token == x->token && l->kind < 3) line_free(l);
        }
        if (x->over) run_free(x);
    }
    welcome_done(&a);
    char target[120];
    snprintf(target, sizeof target, "/v1/worker/%s/stream", h->id);
    h->heard_ns = h->w->now_ns;
    h->stream = call_start(&h->peer, h->s->host,
                           &(CallOptions){.method = "GET",
                                          .target = target,
                                          .headers = AS_WORKER,
                                          .alone = true,
                                          .on_line = on_line,
                                          .on_done = on_stream_done,
                                          .ctx = h});
    post(h);
}

static void begin(Hand *h)
{
    Buf b = {0};
    if (h->dead || h->registering || h->stream) return;
    buf_printf(&b, "{\"protocol\":[1],\"name\":\"%s\",\"region\":\"\",\"pid\":%u,", h->name,
               1000 + h->number * 1000 + h->life);
    if (h->id[0]) buf_printf(&b, "\"worker\":\"%s\",", h->id);
    buf_puts(&b, "\"devices\":[");
    for (uint32_t i = 0; i < h->devices_len; i++)
        buf_printf(&b, "%s{\"index\":%u,\"kind\":\"cpu\",\"memory_bytes\":8000000,\"threads\":1}",
                   i ? "," : "", i);
    buf_puts(&b, "],\"models\":[");
    for (uint32_t i = 0; i < h->s->plan.models; i++)
        buf_printf(&b,
                   "%s{\"name\":\"m%u\",\"version\":\"1\",\"engine\":\"echo\",\"description\":\"\","
                   "\"digest\":\"%064u\",\"max_batch\":%u,\"batch_delay_ms\":%u,"
                   "\"continuous\":false,\"memory_bytes\":1000000,\"min_warm\":0}",
                   i ? "," : "", i, i + 1, h->s->plan.batch_max, i % 2 ? 20U : 0U);
    buf_puts(&b, "],\"running\":[");
    bool first = true;
    LIST_FOR (r, &h->runs, Run, link) {
        if (r->dropped) continue;
        buf_printf(&b, "%s{\"id\":\"%s\",\"token\":%llu}", first ? "" : ",", r->id,
                   (unsigned long long)r->token);
        first = false;
    }
    buf_puts(&b, "],\"runtime\":\"\"}");
    h->asked_ns = h->w->now_ns;
    h->registering = call_start(
        &h->peer, h->s->host,
        &(CallOptions){.method = "POST",
                       .target = "/v1/worker/register",
                       .headers = AS_WORKER "Content-Type: application/json\r\n",
                       .body = buf_str(&b),
                       .timeout_ns = 15 * NS_PER_S,
                       .on_done = on_registered,
                       .ctx = h});
    buf_done(&b);
}

static void retry_fire(Event *e)
{
    Hand *h = CONTAINER_OF(e, Hand, retry);
    if (paused(h))
        world_at(h->w, e, h->paused_until_ns);
    else
        begin(h);
}

static void pulse_fire(Event *e)
{
    Hand *h = CONTAINER_OF(e, Hand, pulse);
    int64_t silent = (int64_t)(3 * MAX(h->ping_s, 1U)) * NS_PER_S;
    world_in(h->w, e, NS_PER_S);
    if (paused(h) || h->dead) return;
    if (h->draining && list_empty(&h->runs) && list_empty(&h->lines) && !h->post) {
        hand_die(h, world_between(h->w, 100 * NS_PER_MS, NS_PER_S));
        return;
    }
    if (h->stream && h->w->now_ns - h->heard_ns > silent) {
        world_say(h->w, "%s: the stream is silent", h->name);
        lost(h);
    }
    post(h);
}

/* ---- life ---- */

static void device_fire(Event *e)
{
    Dev *d = CONTAINER_OF(e, Dev, done);
    device_finish(d->hand, d);
}

static void forget_all(Hand *h)
{
    while (!list_empty(&h->runs)) run_free(LIST_FIRST(&h->runs, Run, link));
    back_to_lines(h);
    while (!list_empty(&h->lines)) line_free(LIST_FIRST(&h->lines, Line, link));
    for (uint32_t i = 0; i < h->devices_len; i++) {
        world_not(h->w, &h->devices[i].done);
        h->devices[i].busy = h->devices[i].loading = false;
        h->devices[i].loaded[0] = 0;
    }
}

Hand *hand_new(Sim *s, uint32_t number)
{
    Hand *h = mem_new(sizeof *h);
    h->s = s;
    h->w = s->w;
    h->number = number;
    snprintf(h->name, sizeof h->name, "worker-%u", number);
    peer_init(&h->peer, s->w, h->name);
    list_init(&h->runs);
    list_init(&h->lines);
    list_init(&h->flight);
    h->devices_len = 1 + (uint32_t)world_below(s->w, MIN(s->plan.devices_max, DEVICES_MAX));
    for (uint32_t i = 0; i < h->devices_len; i++) {
        h->devices[i].done.fire = device_fire;
        h->devices[i].hand = h;
        list_init(&h->devices[i].queue);
    }
    if (world_below(s->w, 2)) {
        h->crew = crew_new(s, number, h->name, h->devices_len);
        return h;
    }
    h->retry.fire = retry_fire;
    h->pulse.fire = pulse_fire;
    h->post_again.fire = post_again_fire;
    world_in(s->w, &h->retry, world_between(s->w, 0, 100 * NS_PER_MS));
    world_in(s->w, &h->pulse, NS_PER_S);
    return h;
}

void hand_free(Hand *h)
{
    if (!h) return;
    crew_free(h->crew);
    h->dead = true;
    lost(h);
    calls_drop(&h->peer);
    forget_all(h);
    world_not(h->w, &h->retry);
    world_not(h->w, &h->pulse);
    world_not(h->w, &h->post_again);
    mem_free(h);
}

void hand_die(Hand *h, int64_t back_in_ns)
{
    if (h->crew) {
        crew_die(h->crew, back_in_ns);
        return;
    }
    world_say(h->w, "%s: dies", h->name);
    h->dead = true;
    lost(h);
    calls_drop(&h->peer);
    forget_all(h);
    h->dead = h->draining = false;
    h->pong_due = false;
    h->id[0] = 0;
    h->life++;
    world_in(h->w, &h->retry, back_in_ns);
}

void hand_pause(Hand *h, int64_t for_ns)
{
    h->paused_until_ns = h->w->now_ns + for_ns;
    Peer *peer = hand_peer(h);
    peer->cut_until_ns = MAX(peer->cut_until_ns, h->paused_until_ns);
    if (h->crew) crew_pause(h->crew, h->paused_until_ns);
    world_say(h->w, "%s: sleeps for %lld ms", h->name, (long long)(for_ns / NS_PER_MS));
}

Peer *hand_peer(Hand *h)
{
    return h->crew ? crew_peer(h->crew) : &h->peer;
}

const char *hand_name(const Hand *h)
{
    return h->name;
}

const char *hand_id(const Hand *h)
{
    return h->crew ? crew_id(h->crew) : h->id;
}
