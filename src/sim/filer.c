/* filer.c: a client with files: it uploads them, reads contents (those of workers, too), removes
 * them, and submits tasks that refer to them. */
#include <stdio.h>
#include <string.h>

#include "sim/contents.h"
#include "sim/judge.h"

#define TENANT     0 /* sees all */
#define AS         "Authorization: Bearer key-0\r\n"
#define TIMEOUT_NS (20 * NS_PER_S)

typedef enum { DO_UPLOAD, DO_READ, DO_REMOVE, DO_SUBMIT, DO_READ_ALL } Doing;

struct Filer {
    Sim *s;
    World *w;
    Peer peer;
    char name[24];
    uint32_t number;
    Event next;
    Call *call;
    Doing doing;
    int64_t began_ns;
    size_t at; /* which content the call is about */
    Buf body;
    JudgeSubmit submit;
    bool all;
    size_t all_at;
    uint32_t all_tries;
};

static void next(Filer *f)
{
    int64_t think = f->all ? 0 : world_around(f->w, f->s->plan.file_ns);
    world_in(f->w, &f->next, think);
}

/* ---- answers ---- */

static void read_done(Filer *f, int err, const Reply *r)
{
    Sim *s = f->s;
    bool gone = !err && (r->status == 404 || r->status == 410);
    bool said = gone || (!err && r->status == 200);
    Content *c = contents_at(s, f->at);
    s->reads++;
    if (said) contents_read(s, c, f->began_ns, r->status, buf_str(&r->body));
    world_say(s->w, "%s: content of %s: %d", f->name, c->id, err ? err : r->status);
    if (f->doing != DO_READ_ALL) return;
    if (said || f->all_tries++ > 3) {
        if (!said)
            world_broken(s->w, 15, "the content of %s cannot be read: %s %d", c->id, err_text(err),
                         r->status);
        f->all_at++;
        f->all_tries = 0;
    }
}

static void remove_done(Filer *f, int err, const Reply *r)
{
    Content *c = contents_at(f->s, f->at);
    if (!err && r->status == 204 && !c->removed_ns) c->removed_ns = f->w->now_ns;
    if (!err && r->status == 404) contents_read(f->s, c, f->began_ns, 404, (Str){"", 0});
    world_say(f->w, "%s: remove %s: %d", f->name, c->id, err ? err : r->status);
}

static void submit_done(Filer *f, int err, const Reply *r)
{
    Judge *j = witness_judge(f->s->witness);
    JudgeView v;
    Buf why = {0};
    bool ok = !err && (r->status == 200 || r->status == 202);
    Code code = err ? CODE_INTERNAL : ok ? CODE_OK : reply_code(buf_str(&r->body));
    JudgeOp op = {.client = f->number,
                  .start = f->began_ns,
                  .end = f->w->now_ns,
                  .out = ok                      ? OUT_OK
                         : code == CODE_INTERNAL ? OUT_UNKNOWN
                                                 : OUT_REFUSED,
                  .code = code};
    if (ok && judge_view_read(buf_str(&r->body), &v, &why)) {
        world_broken(f->w, 3, "%s cannot read a task: %.*s", f->name, STR_ARG(buf_str(&why)));
    } else {
        judge_submit(j, &op, &f->submit, ok ? &v : NULL);
        if (ok) {
            sim_recent(f->s, v.id);
            f->s->tasks++;
        }
    }
    buf_done(&why);
}

static void on_done(void *ctx, int err, const Reply *r)
{
    Filer *f = ctx;
    f->call = NULL;
    switch (f->doing) {
    case DO_UPLOAD:
        if (!err && r->status == 201)
            (void)contents_stored(f->s, buf_str(&r->body), buf_str(&f->body));
        break;
    case DO_READ:
    case DO_READ_ALL:
        read_done(f, err, r);
        break;
    case DO_REMOVE:
        remove_done(f, err, r);
        break;
    case DO_SUBMIT:
        submit_done(f, err, r);
        break;
    }
    witness_look(f->s->witness);
    next(f);
}

/* ---- what it does ---- */

static void start(Filer *f, Doing doing, const char *method, const char *target, Str body)
{
    f->doing = doing;
    f->began_ns = f->w->now_ns;
    f->call = call_start(
        &f->peer, f->s->host,
        &(CallOptions){.method = method,
                       .target = target,
                       .headers = doing == DO_SUBMIT ? AS "Content-Type: application/json\r\n" : AS,
                       .body = body,
                       .timeout_ns = TIMEOUT_NS,
                       .on_done = on_done,
                       .ctx = f});
}

static void upload(Filer *f)
{
    World *w = f->w;
    static const int64_t mosts[] = {0, 600, 5000, 70000, 400000};
    int64_t most = mosts[world_below(w, ARRAY_LEN(mosts))];
    uint64_t n = (uint64_t)world_between(w, 0, most), seed = random_u64(&w->random);
    buf_clear(&f->body);
    for (uint64_t i = 0; i < n; i++)
        buf_putc(&f->body, (char)(hash_u64(seed + i / 8) >> i % 8 * 8));
    start(f, DO_UPLOAD, "POST", "/v1/files?name=a.bin", buf_str(&f->body));
}

static void submit(Filer *f, const char *id)
{
    uint64_t nonce = ++f->s->nonces;
    char input[120];
    int n = snprintf(input, sizeof input, "{\"n\":%llu,\"a\":[{\"$file\":\"%s\"}]}",
                     (unsigned long long)nonce, id);
    buf_clear(&f->body);
    buf_printf(&f->body,
               "{\"model\":\"m0\",\"input\":%s,\"metadata\":{\"nonce\":\"%llu\"},"
               "\"retention_s\":%u}",
               input, (unsigned long long)nonce, world_below(f->w, 2) ? 5U : 86400U);
    f->submit = (JudgeSubmit){.nonce = nonce,
                              .tenant = TENANT,
                              .max_attempts = 3,
                              .retention_ns = 5 * NS_PER_S,
                              .input = judge_text((Str){input, (size_t)n}),
                              .body = chain64(4, f->body.data, f->body.len)};
    f->s->submits++;
    start(f, DO_SUBMIT, "POST", "/v1/tasks", buf_str(&f->body));
}

static void act(Filer *f)
{
    Sim *s = f->s;
    World *w = f->w;
    char target[120];
    size_t len = contents_len(s);
    uint64_t n = world_below(w, 100);
    if (f->all) {
        if (f->all_at == len) return;
        f->at = f->all_at;
        snprintf(target, sizeof target, "/v1/files/%s/content", contents_at(s, f->at)->id);
        start(f, DO_READ_ALL, "GET", target, (Str){"", 0});
        return;
    }
    if (!len || (n < 35 && !s->quiet)) {
        if (!s->quiet) upload(f);
        return;
    }
    f->at = len - 1 - (size_t)world_below(w, MIN(len, (size_t)20)); /* one of the last */
    Content *c = contents_at(s, f->at);
    if (n < 75 || s->quiet) {
        snprintf(target, sizeof target, "/v1/files/%s/content", c->id);
        start(f, DO_READ, "GET", target, (Str){"", 0});
    } else if (n < 85) {
        snprintf(target, sizeof target, "/v1/files/%s", c->id);
        start(f, DO_REMOVE, "DELETE", target, (Str){"", 0});
    } else {
        submit(f, c->id);
    }
}

static void next_fire(Event *e)
{
    Filer *f = CONTAINER_OF(e, Filer, next);
    if (!f->call) act(f);
    if (!f->call && !f->all && !f->s->quiet) next(f);
}

/* ---- life ---- */

Filer *filer_new(Sim *s, uint32_t number)
{
    Filer *f = mem_new(sizeof *f);
    f->s = s;
    f->w = s->w;
    f->number = number;
    snprintf(f->name, sizeof f->name, "filer-%u", number);
    peer_init(&f->peer, s->w, f->name);
    f->next.fire = next_fire;
    if (s->plan.file_ns) world_in(s->w, &f->next, NS_PER_S);
    return f;
}

void filer_free(Filer *f)
{
    if (!f) return;
    call_cancel(f->call);
    calls_drop(&f->peer);
    world_not(f->w, &f->next);
    buf_done(&f->body);
    mem_free(f);
}

bool filer_idle(const Filer *f)
{
    return !f->call || f->doing == DO_READ;
}

void filer_read_all(Filer *f)
{
    f->all = true;
    if (!f->call) world_in(f->w, &f->next, 0);
}

bool filer_has_read_all(const Filer *f)
{
    return !f->call && f->all_at == contents_len(f->s);
}
