/* batch.c: a client that submits in batches: a line a task, answered line by line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/actors.h"
#include "sim/judge.h"
#include "wire/json.h"

#define LINES_MAX 12
#define TENANT    1

struct Batcher {
    Sim *s;
    World *w;
    Peer peer;
    char name[24];
    uint32_t number;
    Event next;
    Call *call;
    int64_t began_ns;
    JudgeSubmit lines[LINES_MAX];
    uint32_t len, answered, tries;
    Buf body;
    bool again;
};

static void judge_line(Batcher *b, JudgeOut out, Code code, const JudgeView *v)
{
    JudgeOp op = {
        .client = b->number, .start = b->began_ns, .end = b->w->now_ns, .out = out, .code = code};
    judge_submit(witness_judge(b->s->witness), &op, &b->lines[b->answered++], v);
}

static void on_line(void *ctx, Str line)
{
    Batcher *b = ctx;
    Json j = {0};
    JsonFault f = {0};
    Buf why = {0};
    JudgeView v;
    size_t len;
    if (b->answered >= b->len || !line.n) return;
    yyjson_val *root = json_read(&j, line, &f);
    yyjson_val *task = yyjson_obj_get(root, "task");
    JudgeSubmit *s = &b->lines[b->answered];
    s->replayed = yyjson_is_true(yyjson_obj_get(root, "replayed"));
    if (task) {
        char *text = yyjson_val_write(task, 0, &len);
        if (judge_view_read((Str){text, len}, &v, &why)) {
            world_broken(b->w, 3, "%s cannot read a line: %.*s", b->name, STR_ARG(line));
        } else {
            witness_receipt(b->s->witness, v.seq, call_durable(b->call));
            judge_line(b, OUT_OK, CODE_OK, &v);
            sim_recent(b->s, v.id);
            b->s->tasks++;
            world_say(b->w, "%s: accepted %s", b->name, v.id);
        }
        free(text);
    } else {
        Code code = reply_code(line);
        judge_line(b, code == CODE_INTERNAL ? OUT_UNKNOWN : OUT_REFUSED, code, NULL);
    }
    json_done(&j);
    buf_done(&why);
}

static void on_done(void *ctx, int err, const Reply *r)
{
    Batcher *b = ctx;
    b->call = NULL;
    bool whole = !err && b->answered == b->len;
    Code code = err || r->status == 200 ? CODE_INTERNAL : reply_code(buf_str(&r->body));
    while (b->answered < b->len)
        judge_line(b, code == CODE_INTERNAL ? OUT_UNKNOWN : OUT_REFUSED, code, NULL);
    b->again = !whole && code == CODE_INTERNAL && b->lines[0].key && b->tries < 10;
    witness_look(b->s->witness);
    world_in(b->w, &b->next, world_around(b->w, b->again ? NS_PER_S : 4 * NS_PER_S));
}

static void draw(Batcher *b)
{
    World *w = b->w;
    bool keyed = world_odds(w, b->s->plan.keyed);
    b->len = 1 + (uint32_t)world_below(w, LINES_MAX);
    b->tries = 0;
    buf_clear(&b->body);
    for (uint32_t i = 0; i < b->len; i++) {
        JudgeSubmit *s = &b->lines[i];
        uint64_t nonce = ++b->s->nonces;
        char input[60];
        int n = snprintf(input, sizeof input, "{\"n\":%llu}", (unsigned long long)nonce);
        size_t at = b->body.len;
        *s = (JudgeSubmit){.nonce = nonce,
                           .tenant = TENANT,
                           .max_attempts = 3,
                           .retention_ns = 86400 * NS_PER_S,
                           .input = judge_text((Str){input, (size_t)n})};
        buf_printf(&b->body, "{\"model\":\"m0\",\"input\":%s,\"metadata\":{\"nonce\":\"%llu\"}",
                   input, (unsigned long long)nonce);
        if (keyed) {
            s->key = ++b->s->keys;
            buf_printf(&b->body, ",\"idempotency_key\":\"k%llu\"", (unsigned long long)s->key);
        }
        buf_puts(&b->body, "}\n");
        s->body = chain64(3, b->body.data + at, b->body.len - at);
    }
}

static void next_fire(Event *e)
{
    Batcher *b = CONTAINER_OF(e, Batcher, next);
    if (b->s->quiet && !b->again) return;
    if (!b->again) draw(b);
    b->tries++;
    b->answered = 0;
    b->began_ns = b->w->now_ns;
    b->s->submits += b->len;
    if (b->tries > 1) world_happens(b->w, HAP_REPEATS);
    b->call = call_start(&b->peer, b->s->host,
                         &(CallOptions){.method = "POST",
                                        .target = "/v1/tasks:batch",
                                        .headers = "Authorization: Bearer key-1\r\n"
                                                   "Content-Type: application/x-ndjson\r\n",
                                        .body = buf_str(&b->body),
                                        .timeout_ns = 20 * NS_PER_S,
                                        .on_line = on_line,
                                        .on_done = on_done,
                                        .ctx = b});
}

Batcher *batcher_new(Sim *s, uint32_t number)
{
    Batcher *b = mem_new(sizeof *b);
    b->s = s;
    b->w = s->w;
    b->number = number;
    snprintf(b->name, sizeof b->name, "batcher");
    peer_init(&b->peer, s->w, b->name);
    b->next.fire = next_fire;
    world_in(s->w, &b->next, NS_PER_S);
    return b;
}

bool batcher_idle(const Batcher *b)
{
    return !b->call && !b->again;
}

void batcher_free(Batcher *b)
{
    if (!b) return;
    call_cancel(b->call);
    calls_drop(&b->peer);
    world_not(b->w, &b->next);
    buf_done(&b->body);
    mem_free(b);
}
