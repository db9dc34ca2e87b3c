/* follow.c: a reader of event streams, which comes back with Last-Event-ID when one breaks. */
#include <stdio.h>
#include <string.h>

#include "sim/actors.h"
#include "sim/judge.h"
#include "wire/json.h"

#define AS_ADMIN "Authorization: Bearer key-0\r\n"
#define TRIES    4

struct Follower {
    Sim *s;
    World *w;
    Peer peer;
    char name[24];
    Event next;
    Call *call;
    char id[TASK_ID_LEN + 1];
    uint64_t stream, after, last;
    uint32_t tries;
    bool over; /* the terminal event has come */
    char event[16];
};

static void on_status(Follower *f, Str data)
{
    Json j = {0};
    JsonFault fault = {0};
    Str state = {"", 0}, id = {"", 0};
    uint64_t seq = 0, attempt = 0;
    TaskState st;
    yyjson_val *root = json_read(&j, data, &fault);
    bool fine = root && json_val_str(yyjson_obj_get(root, "status"), &state) &&
                json_val_str(yyjson_obj_get(root, "id"), &id) && str_eqz(id, f->id) &&
                json_val_uint(yyjson_obj_get(root, "seq"), &seq) &&
                json_val_uint(yyjson_obj_get(root, "attempt"), &attempt) &&
                task_state_from(state, &st) == 0;
    if (!fine) {
        world_broken(f->w, 14, "%s: an event makes no sense: %.*s", f->name, STR_ARG(data));
    } else {
        world_say(f->w, "%s: %s %s at %llu", f->name, f->id, task_state_name(st),
                  (unsigned long long)seq);
        judge_event(witness_judge(f->s->witness), f->stream, f->w->now_ns, f->id, f->after, seq, st,
                    (uint32_t)attempt);
        witness_receipt(f->s->witness, seq, call_durable(f->call));
        f->last = seq;
        f->over = task_state_terminal(st);
    }
    json_done(&j);
}

static void on_line(void *ctx, Str line)
{
    Follower *f = ctx;
    if (line.n > 7 && memcmp(line.p, "event: ", 7) == 0)
        snprintf(f->event, sizeof f->event, "%.*s", (int)(line.n - 7), line.p + 7);
    if (line.n > 6 && memcmp(line.p, "data: ", 6) == 0 && strcmp(f->event, "status") == 0)
        on_status(f, (Str){line.p + 6, line.n - 6});
    if (!line.n) f->event[0] = 0;
}

static void on_done(void *ctx, int err, const Reply *r)
{
    Follower *f = ctx;
    f->call = NULL;
    if (!err && (r->status == 404 || r->status == 410 || r->status == 204)) f->tries = TRIES;
    witness_look(f->s->witness);
    world_in(f->w, &f->next, world_around(f->w, 300 * NS_PER_MS));
}

static void next_fire(Event *e)
{
    Follower *f = CONTAINER_OF(e, Follower, next);
    Sim *s = f->s;
    if (f->over || f->tries >= TRIES || !f->id[0]) {
        uint64_t n = MIN(s->recent_n, (uint64_t)RECENT_MAX);
        f->over = false;
        f->last = f->tries = 0;
        if (n) memcpy(f->id, s->recent[world_below(f->w, n)], sizeof f->id);
    }
    if (!f->id[0]) {
        world_in(f->w, e, NS_PER_S);
        return;
    }
    f->tries++;
    f->stream = ++s->streams;
    f->after = f->last;
    char target[120], headers[120];
    snprintf(target, sizeof target, "/v1/tasks/%s/events", f->id);
    int n = snprintf(headers, sizeof headers, AS_ADMIN);
    if (f->after)
        snprintf(headers + n, sizeof headers - (size_t)n, "Last-Event-ID: %llu\r\n",
                 (unsigned long long)f->after);
    f->event[0] = 0;
    f->call = call_start(&f->peer, s->host,
                         &(CallOptions){.method = "GET",
                                        .target = target,
                                        .headers = headers,
                                        .alone = true,
                                        .timeout_ns = 40 * NS_PER_S,
                                        .on_line = on_line,
                                        .on_done = on_done,
                                        .ctx = f});
}

Follower *follower_new(Sim *s, uint32_t number)
{
    Follower *f = mem_new(sizeof *f);
    f->s = s;
    f->w = s->w;
    snprintf(f->name, sizeof f->name, "follower-%u", number);
    peer_init(&f->peer, s->w, f->name);
    f->next.fire = next_fire;
    world_in(s->w, &f->next, NS_PER_S);
    return f;
}

void follower_free(Follower *f)
{
    if (!f) return;
    call_cancel(f->call);
    calls_drop(&f->peer);
    world_not(f->w, &f->next);
    mem_free(f);
}
