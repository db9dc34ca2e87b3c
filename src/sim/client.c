/* client.c: a client of the API: it submits, reads, waits, cancels, retries, deletes and lists, one
 * call at a time, and tells the judge what it saw. An answer that it never hears is of unknown
 * outcome: with an idempotency key it asks again until it knows. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/actors.h"
#include "sim/judge.h"
#include "wire/json.h"

#define KNOWN_MAX  64
#define TIMEOUT_NS (8 * NS_PER_S)
#define TENANTS    3

typedef enum { DO_SUBMIT, DO_READ, DO_LIST, DO_CANCEL, DO_RETRY, DO_DELETE, DO_READ_ALL } Doing;

struct Client {
    Sim *s;
    World *w;
    Peer peer;
    uint32_t number, tenant;
    char name[24];
    Event next;
    Call *call;
    Doing doing;
    int64_t began_ns;
    char known[KNOWN_MAX][TASK_ID_LEN + 1]; /* ids of tasks of this tenant; a ring */
    uint32_t known_len, known_at;
    char id[TASK_ID_LEN + 1]; /* what this call is about */

    /* a submit or a retry, kept while its outcome is unknown */
    JudgeSubmit submit;
    Buf body;
    char headers[300], target[200], retry_of[TASK_ID_LEN + 1];
    uint32_t tries;
    bool again;

    /* a list */
    JudgeView *views;
    size_t views_len, views_cap;
    char cursor[40];

    bool all; /* reads all that was accepted */
    size_t all_at, all_leased;
};

static void next(Client *c);
static void act(Client *c);

static Str tenant_key(const Client *c)
{
    static const char *const keys[TENANTS] = {"Authorization: Bearer key-0\r\n",
                                              "Authorization: Bearer key-1\r\n",
                                              "Authorization: Bearer key-2\r\n"};
    return str_from(keys[c->tenant]);
}

void sim_recent(Sim *s, const char *id)
{
    memcpy(s->recent[s->recent_n++ % RECENT_MAX], id, TASK_ID_LEN + 1);
}

static void know(Client *c, const char *id)
{
    for (uint32_t i = 0; i < c->known_len; i++)
        if (strcmp(c->known[i], id) == 0) return;
    memcpy(c->known[c->known_at], id, sizeof c->known[0]);
    c->known_at = (c->known_at + 1) % KNOWN_MAX;
    c->known_len = MIN(c->known_len + 1, KNOWN_MAX);
}

static JudgeOp op_of(const Client *c, JudgeOut out, Code code)
{
    return (JudgeOp){
        .client = c->number, .start = c->began_ns, .end = c->w->now_ns, .out = out, .code = code};
}

Code reply_code(Str body)
{
    const char *p = body.n ? memmem(body.p, body.n, "\"code\":\"", 8) : NULL;
    if (!p) return CODE_INTERNAL;
    p += 8;
    size_t n = 0;
    while (p + n < body.p + body.n && p[n] != '"') n++;
    for (int c = 0; c < CODES; c++)
        if (str_eqz((Str){p, n}, code_name((Code)c))) return (Code)c;
    return CODE_INTERNAL;
}

static bool read_view(Client *c, Str json, JudgeView *v, uint64_t durable)
{
    Buf why = {0};
    bool fine = judge_view_read(json, v, &why) == 0;
    if (!fine)
        world_broken(c->w, 3, "%s cannot read a task: %.*s: %.*s", c->name, STR_ARG(buf_str(&why)),
                     (int)MIN(json.n, (size_t)300), json.p);
    else if (v->seq)
        witness_receipt(c->s->witness, v->seq, durable);
    buf_done(&why);
    return fine;
}

/* ---- submits ---- */

static void submitted(Client *c, int err, const Reply *r)
{
    Judge *j = witness_judge(c->s->witness);
    JudgeView v;
    c->submit.replayed = str_eqz(reply_header(r, "Idempotent-Replayed"), "true");
    bool ok = !err && (r->status == 200 || r->status == 201 || r->status == 202);
    if (ok) {
        if (!read_view(c, buf_str(&r->body), &v, r->durable)) return;
        JudgeOp op = op_of(c, OUT_OK, CODE_OK);
        judge_submit(j, &op, &c->submit, &v);
        know(c, v.id);
        sim_recent(c->s, v.id);
        c->s->tasks++;
        c->again = false;
        world_say(c->w, "%s: accepted %s %s", c->name, v.id, task_state_name(v.status));
        return;
    }
    Code code = err ? CODE_INTERNAL : reply_code(buf_str(&r->body));
    bool unknown = err || code == CODE_INTERNAL;
    JudgeOp op = op_of(c, unknown ? OUT_UNKNOWN : OUT_REFUSED, code);
    judge_submit(j, &op, &c->submit, NULL);
    world_say(c->w, "%s: submit %s (%s)", c->name, unknown ? "unknown" : "refused",
              err ? err_text(err) : code_name(code));
    if (unknown) world_happens(c->w, HAP_LOST_ANSWERS);
    bool later = code == CODE_NO_LEADER || code == CODE_LOG_STALLED || code == CODE_DISK_FULL;
    c->again = c->submit.key && (unknown || later) && c->tries < 20;
}

static void draw_submit(Client *c)
{
    World *w = c->w;
    const Plan *p = &c->s->plan;
    Buf *b = &c->body;
    uint64_t nonce = ++c->s->nonces;
    JudgeSubmit *s = &c->submit;
    *s = (JudgeSubmit){.nonce = nonce, .tenant = c->tenant, .max_attempts = 3};
    buf_clear(b);
    buf_printf(b, "{\"model\":\"m%llu\",\"input\":", (unsigned long long)world_below(w, p->models));
    size_t at = b->len;
    buf_printf(b, "{\"n\":%llu,\"pad\":\"", (unsigned long long)nonce);
    size_t pad = (size_t)world_around(w, p->input_bytes);
    pad = MIN(pad, (size_t)20000);
    if (world_odds(w, p->big)) pad = (size_t)world_between(w, TASK_INLINE_MAX, 100000);
    for (size_t i = 0; i < pad; i++) buf_putc(b, (char)('a' + i % 26));
    buf_puts(b, "\"}");
    s->input = judge_text((Str){(char *)b->data + at, b->len - at});
    buf_printf(b, ",\"metadata\":{\"nonce\":\"%llu\"}", (unsigned long long)nonce);
    static const char *const classes[] = {"critical", "standard", "batch"};
    buf_printf(b, ",\"priority\":\"%s\"", classes[world_below(w, 3)]);
    if (world_odds(w, 300000)) {
        s->max_attempts = 1 + (uint32_t)world_below(w, 4);
        buf_printf(b, ",\"max_attempts\":%u", s->max_attempts);
    }
    uint64_t delay_ms = world_odds(w, p->delayed) ? 1 + world_below(w, 20000) : 0;
    uint64_t left_ms = world_odds(w, p->dated) ? delay_ms + 100 + world_below(w, 30000) : 0;
    if (delay_ms)
        buf_printf(b, ",\"delay_s\":%llu.%03llu", (unsigned long long)delay_ms / 1000,
                   (unsigned long long)delay_ms % 1000);
    if (left_ms)
        buf_printf(b, ",\"deadline_s\":%llu.%03llu", (unsigned long long)left_ms / 1000,
                   (unsigned long long)left_ms % 1000);
    uint64_t keep_s = world_odds(w, p->retained) ? 1 + world_below(w, 30) : 86400;
    if (keep_s != 86400) buf_printf(b, ",\"retention_s\":%llu", (unsigned long long)keep_s);
    buf_putc(b, '}');
    s->delay_ns = (int64_t)delay_ms * NS_PER_MS;
    s->deadline_ns = (int64_t)left_ms * NS_PER_MS;
    s->retention_ns = (int64_t)keep_s * NS_PER_S;
    int n = snprintf(c->headers, sizeof c->headers, "%.*sContent-Type: application/json\r\n",
                     STR_ARG(tenant_key(c)));
    if (world_odds(w, p->keyed)) {
        s->key = ++c->s->keys;
        n += snprintf(c->headers + n, sizeof c->headers - (size_t)n,
                      "Idempotency-Key: \"k%llu\"\r\n", (unsigned long long)s->key);
    }
    if (world_odds(w, 200000))
        snprintf(c->headers + n, sizeof c->headers - (size_t)n, "Prefer: wait=%llu\r\n",
                 (unsigned long long)(1 + world_below(w, 5)));
    snprintf(c->target, sizeof c->target, "/v1/tasks");
    s->body = chain64(1, b->data, b->len);
    c->tries = 0;
}

/* ---- the other calls ---- */

static void one_more(Client *c)
{
    if (judge_accepted(witness_judge(c->s->witness), c->all_at))
        c->all_at++;
    else
        c->all_leased++;
}

static void read_done(Client *c, int err, const Reply *r)
{
    Judge *j = witness_judge(c->s->witness);
    JudgeView v;
    c->s->reads++;
    if (!err && r->status == 200) {
        if (!read_view(c, buf_str(&r->body), &v, r->durable)) return;
        JudgeOp op = op_of(c, OUT_OK, CODE_OK);
        judge_read(j, &op, c->id, &v);
        world_say(c->w, "%s: read %s %s attempt %u", c->name, v.id, task_state_name(v.status),
                  v.attempt);
        if (c->all) one_more(c);
    } else if (!err && (r->status == 404 || r->status == 410)) {
        JudgeOp op = op_of(c, OUT_REFUSED, reply_code(buf_str(&r->body)));
        judge_read(j, &op, c->id, NULL);
        world_say(c->w, "%s: read %s: %d", c->name, c->id, r->status);
        if (c->all) one_more(c);
    }
}

static void cancel_done(Client *c, int err, const Reply *r)
{
    Judge *j = witness_judge(c->s->witness);
    JudgeView v;
    if (!err && r->status == 200) {
        if (!read_view(c, buf_str(&r->body), &v, r->durable)) return;
        JudgeOp op = op_of(c, OUT_OK, CODE_OK);
        judge_cancel(j, &op, c->id, &v);
        world_say(c->w, "%s: canceled %s", c->name, c->id);
        return;
    }
    Code code = err ? CODE_INTERNAL : reply_code(buf_str(&r->body));
    JudgeOp op = op_of(c, code == CODE_INTERNAL ? OUT_UNKNOWN : OUT_REFUSED, code);
    judge_cancel(j, &op, c->id, NULL);
}

static void delete_done(Client *c, int err, const Reply *r)
{
    Code code = err ? CODE_INTERNAL : r->status == 204 ? CODE_OK : reply_code(buf_str(&r->body));
    JudgeOp op = op_of(c,
                       code == CODE_OK         ? OUT_OK
                       : code == CODE_INTERNAL ? OUT_UNKNOWN
                                               : OUT_REFUSED,
                       code);
    judge_delete(witness_judge(c->s->witness), &op, c->id);
    world_say(c->w, "%s: delete %s: %s", c->name, c->id, code_name(code));
}

/* True: there is another page to come. */
static bool list_done(Client *c, int err, const Reply *r)
{
    Json j = {0};
    JsonFault f = {0};
    bool more = false;
    yyjson_val *root = err || r->status != 200 ? NULL : json_read(&j, buf_str(&r->body), &f);
    yyjson_val *v, *tasks = yyjson_obj_get(root, "tasks");
    size_t i, n;
    yyjson_arr_foreach(tasks, i, n, v)
    {
        size_t len;
        char *text = yyjson_val_write(v, 0, &len);
        if (c->views_len == c->views_cap) {
            c->views_cap = c->views_cap * 2 + 16;
            c->views = mem_grow(c->views, c->views_cap * sizeof *c->views);
        }
        bool fine = read_view(c, (Str){text, len}, &c->views[c->views_len], r->durable);
        free(text);
        if (!fine) break;
        know(c, c->views[c->views_len].id);
        c->views_len++;
    }
    if (root) {
        Str cursor;
        more = json_val_str(yyjson_obj_get(root, "next"), &cursor);
        if (more) snprintf(c->cursor, sizeof c->cursor, "%.*s", STR_ARG(cursor));
        if (!more) {
            JudgeOp op = op_of(c, OUT_OK, CODE_OK);
            judge_list(witness_judge(c->s->witness), &op, c->views, c->views_len, c->tenant == 0);
        }
    }
    json_done(&j);
    return more;
}

static void on_done(void *ctx, int err, const Reply *r)
{
    Client *c = ctx;
    c->call = NULL;
    switch (c->doing) {
    case DO_SUBMIT:
    case DO_RETRY:
        submitted(c, err, r);
        break;
    case DO_READ:
    case DO_READ_ALL:
        read_done(c, err, r);
        break;
    case DO_CANCEL:
        cancel_done(c, err, r);
        break;
    case DO_DELETE:
        delete_done(c, err, r);
        break;
    case DO_LIST:
        if (list_done(c, err, r)) {
            char target[100];
            snprintf(target, sizeof target, "/v1/tasks?limit=20&cursor=%s", c->cursor);
            c->call = call_start(&c->peer, c->s->host,
                                 &(CallOptions){.method = "GET",
                                                .target = target,
                                                .headers = tenant_key(c).p,
                                                .timeout_ns = TIMEOUT_NS,
                                                .on_done = on_done,
                                                .ctx = c});
            return;
        }
        break;
    }
    witness_look(c->s->witness);
    next(c);
}

/* ---- what it does ---- */

static void start(Client *c, const char *method, const char *target, const char *headers, Str body)
{
    c->call = call_start(&c->peer, c->s->host,
                         &(CallOptions){.method = method,
                                        .target = target,
                                        .headers = headers,
                                        .body = body,
                                        .timeout_ns = TIMEOUT_NS,
                                        .on_done = on_done,
                                        .ctx = c});
}

static void send_submit(Client *c)
{
    c->began_ns = c->w->now_ns;
    c->tries++;
    if (c->tries > 1) world_happens(c->w, HAP_REPEATS);
    c->s->submits++;
    world_say(c->w, "%s: submit %llu%s", c->name, (unsigned long long)c->submit.nonce,
              c->tries > 1 ? " again" : "");
    start(c, "POST", c->target, c->headers, buf_str(&c->body));
}

static Doing draw_doing(Client *c)
{
    uint64_t n = world_below(c->w, 100);
    if (c->s->quiet && n < 50) n = 60;
    if (n < 50 || !c->known_len) return DO_SUBMIT;
    if (n < 75) return DO_READ;
    if (n < 85) return DO_CANCEL;
    if (n < 90) return c->s->quiet ? DO_READ : DO_RETRY;
    if (n < 95) return DO_DELETE;
    return DO_LIST;
}

/* All that was accepted, then all that was leased: the answer to its submit may have been lost. */
static const char *next_of_all(const Client *c)
{
    const char *id = judge_accepted(witness_judge(c->s->witness), c->all_at);
    if (id) return id;
    size_t at = c->all_leased * (TASK_ID_LEN + 1);
    return at < c->s->leased.len ? (const char *)c->s->leased.data + at : NULL;
}

static void read_all(Client *c)
{
    const char *id = next_of_all(c);
    if (!id) return;
    char target[120];
    c->doing = DO_READ_ALL;
    c->began_ns = c->w->now_ns;
    snprintf(c->id, sizeof c->id, "%s", id);
    snprintf(target, sizeof target, "/v1/tasks/%s", c->id);
    start(c, "GET", target, tenant_key(c).p, (Str){"", 0});
}

static void act(Client *c)
{
    World *w = c->w;
    char target[160];
    if (c->all) {
        read_all(c);
        return;
    }
    if (c->again) {
        c->doing = c->submit.retry_of ? DO_RETRY : DO_SUBMIT;
        send_submit(c);
        return;
    }
    Doing doing = draw_doing(c);
    if (doing == DO_SUBMIT && c->s->quiet) return;
    c->doing = doing;
    c->began_ns = w->now_ns;
    if (c->known_len) memcpy(c->id, c->known[world_below(w, c->known_len)], sizeof c->id);
    switch (doing) {
    case DO_SUBMIT:
        draw_submit(c);
        send_submit(c);
        break;
    case DO_RETRY: {
        JudgeSubmit *s = &c->submit;
        memcpy(c->retry_of, c->id, sizeof c->retry_of);
        *s = (JudgeSubmit){.nonce = ++c->s->nonces,
                           .tenant = c->tenant,
                           .retry_of = c->retry_of,
                           .retention_ns = 0};
        int n = snprintf(c->headers, sizeof c->headers, "%.*s", STR_ARG(tenant_key(c)));
        if (world_odds(w, c->s->plan.keyed)) {
            s->key = ++c->s->keys;
            snprintf(c->headers + n, sizeof c->headers - (size_t)n,
                     "Idempotency-Key: \"k%llu\"\r\n", (unsigned long long)s->key);
        }
        snprintf(c->target, sizeof c->target, "/v1/tasks/%s/retry", c->id);
        buf_clear(&c->body);
        s->body = chain64(2, c->id, strlen(c->id));
        c->tries = 0;
        send_submit(c);
        break;
    }
    case DO_READ:
        if (world_odds(w, 300000))
            snprintf(target, sizeof target, "/v1/tasks/%s?wait=%llu", c->id,
                     (unsigned long long)(1 + world_below(w, 5)));
        else
            snprintf(target, sizeof target, "/v1/tasks/%s", c->id);
        start(c, "GET", target, tenant_key(c).p, (Str){"", 0});
        break;
    case DO_CANCEL:
        snprintf(target, sizeof target, "/v1/tasks/%s/cancel", c->id);
        start(c, "POST", target, tenant_key(c).p, (Str){"", 0});
        break;
    case DO_DELETE:
        snprintf(target, sizeof target, "/v1/tasks/%s", c->id);
        start(c, "DELETE", target, tenant_key(c).p, (Str){"", 0});
        break;
    case DO_LIST:
        c->views_len = 0;
        start(c, "GET", "/v1/tasks?limit=20", tenant_key(c).p, (Str){"", 0});
        break;
    case DO_READ_ALL:
        break;
    }
}

static void next_fire(Event *e)
{
    Client *c = CONTAINER_OF(e, Client, next);
    if (!c->call) act(c);
}

static void next(Client *c)
{
    int64_t think = c->all ? 0 : world_around(c->w, c->s->plan.think_ns);
    if (c->again) think = world_between(c->w, 10 * NS_PER_MS, 2 * NS_PER_S);
    world_in(c->w, &c->next, think);
}

/* ---- life ---- */

Client *client_new(Sim *s, uint32_t number)
{
    Client *c = mem_new(sizeof *c);
    c->s = s;
    c->w = s->w;
    c->number = number;
    c->tenant = number % TENANTS;
    snprintf(c->name, sizeof c->name, "client-%u", number);
    peer_init(&c->peer, s->w, c->name);
    c->next.fire = next_fire;
    world_in(s->w, &c->next, world_between(s->w, 200 * NS_PER_MS, NS_PER_S));
    return c;
}

void client_free(Client *c)
{
    if (!c) return;
    call_cancel(c->call);
    calls_drop(&c->peer);
    world_not(c->w, &c->next);
    buf_done(&c->body);
    mem_free(c->views);
    mem_free(c);
}

bool client_idle(const Client *c)
{
    return !c->call && !c->again;
}

void client_read_all(Client *c)
{
    c->tenant = 0; /* it sees all */
    c->all = true;
    world_in(c->w, &c->next, 0);
}

bool client_has_read_all(const Client *c)
{
    return !c->call && !next_of_all(c);
}

Peer *client_peer(Client *c)
{
    return &c->peer;
}
