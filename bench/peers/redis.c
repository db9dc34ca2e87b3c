/* Redis as a queue: a list (variant "list") or a stream with a consumer group ("stream").
 *
 * list:   client RPUSH; worker BLMOVE into a list of its own (the lease), then SET result EX,
 *         PUBLISH to the client, DEL of its list, and the next BLMOVE in the same write. By
 *         batches: one RPUSH of all, and a script that moves as many (LPOP n, RPUSH).
 * stream: client XADD; worker XREADGROUP COUNT n, then SET, PUBLISH, XACK and XDEL.
 * A result is a key with an expiry of its own, and published, so that no client has to ask. The AOF
 * is synced before any reply or message of the same pass of Redis' loop leaves. */
#include "drive.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Own {
    uint32_t skip;  /* replies to come that say nothing */
    bool taking;    /* a reply with tasks is to come */
    uint64_t ended; /* results so far */
} Own;

static bool stream;
static char script_sha[64];

static void put_arg(Buf *b, const char *p, size_t n)
{
    put_fmt(b, "$%zu\r\n", n);
    put_bytes(b, p, n);
    put_bytes(b, "\r\n", 2);
}

static void put_text(Buf *b, const char *s)
{
    put_arg(b, s, strlen(s));
}

/* A command of words without blanks. */
static void put_command(Buf *b, const char *words)
{
    int n = 1;
    for (const char *p = words; *p; p++) n += *p == ' ';
    put_fmt(b, "*%d\r\n", n);
    while (*words) {
        size_t len = strcspn(words, " ");
        put_arg(b, words, len);
        words += len + (words[len] == ' ');
    }
}

/* The end of one value, of an aggregate's head; NULL: not all there. */
static const char *value_end(const char *p, const char *end)
{
    const char *nl = p < end ? memchr(p, '\n', (size_t)(end - p)) : NULL;
    if (!nl) return NULL;
    if (*p == '-') drive_fail("Redis: %.*s", (int)(nl - p), p);
    if (*p == '$' && p[1] != '-') nl += atol(p + 1) + 2;
    return nl < end ? nl + 1 : NULL;
}

/* The end of a reply with all its elements. */
static const char *reply_end(const char *p, const char *end)
{
    long left = 1;
    while (left > 0) {
        const char *next = value_end(p, end);
        if (!next) return NULL;
        left--;
        if (*p == '*' || *p == '>' || *p == '~') left += atol(p + 1) > 0 ? atol(p + 1) : 0;
        if (*p == '%') left += 2 * atol(p + 1);
        p = next;
    }
    return p;
}

static void await_reply(Conn *c, char *ret, size_t cap)
{
    drive_send_all(c);
    const char *end = NULL;
    while (!c->in.len || !(end = reply_end(c->in.data, c->in.data + c->in.len))) drive_read_more(c);
    if (ret) snprintf(ret, cap, "%.*s", (int)(end - c->in.data), c->in.data);
    c->in.len = 0;
}

static void setup(void)
{
    static const char take[] = "local v=redis.call('LPOP',KEYS[1],ARGV[1]) "
                               "if not v then return {} end "
                               "redis.call('RPUSH',KEYS[2],unpack(v)) return v";
    char text[128];
    stream = drive.variant && !strcmp(drive.variant, "stream");
    peer.wakes = !stream && drive.batch > 1;
    Conn c = {.fd = drive_connect(drive.port)};
    put_command(&c.out, "FLUSHALL");
    await_reply(&c, NULL, 0);
    if (stream) {
        put_command(&c.out, "XGROUP CREATE q g $ MKSTREAM");
        await_reply(&c, NULL, 0);
    }
    put_fmt(&c.out, "*3\r\n");
    put_text(&c.out, "SCRIPT");
    put_text(&c.out, "LOAD");
    put_text(&c.out, take);
    await_reply(&c, text, sizeof text);
    CHECK(sscanf(text, "$40 %40s", script_sha) == 1);
}

static void open_conn(Conn *c)
{
    c->fd = drive_connect(drive.port);
    c->own = calloc(1, sizeof(Own));
    CHECK(c->own);
    put_command(&c->out, "HELLO 3"); /* messages and replies over one connection */
    await_reply(c, NULL, 0);
    if (c->worker) return;
    char text[64];
    snprintf(text, sizeof text, "SUBSCRIBE done:%u", c->index);
    put_command(&c->out, text);
    await_reply(c, NULL, 0);
}

static void put(Conn *c)
{
    if (!stream) {
        put_fmt(&c->out, "*%u\r\n$5\r\nRPUSH\r\n$1\r\nq\r\n", drive.batch + 2);
        for (uint32_t i = 0; i < drive.batch; i++) put_arg(&c->out, drive_payload(c, i), PAYLOAD);
        return;
    }
    for (uint32_t i = 0; i < drive.batch; i++) {
        put_fmt(&c->out, "*5\r\n$4\r\nXADD\r\n$1\r\nq\r\n$1\r\n*\r\n$1\r\np\r\n");
        put_arg(&c->out, drive_payload(c, i), PAYLOAD);
    }
}

static void take(Conn *w)
{
    Own *o = w->own;
    char text[128];
    if (stream)
        snprintf(text, sizeof text, "XREADGROUP GROUP g w%u COUNT %u BLOCK 0 STREAMS q >", w->index,
                 drive.batch);
    else if (drive.batch > 1)
        snprintf(text, sizeof text, "EVALSHA %s 2 q lease:%u %u", script_sha, w->index,
                 drive.batch);
    else
        snprintf(text, sizeof text, "BLMOVE q lease:%u LEFT RIGHT 0", w->index);
    put_command(&w->out, text);
    o->taking = true;
    drive_asked();
    drive_dirty(w);
}

/* Results of tasks that lie one behind the other are told in one message a client. */
static void publish(Conn *w, const char *const *payloads, uint32_t n)
{
    Own *o = w->own;
    for (uint32_t i = 0, next; i < n; i = next) {
        uint32_t client = drive_client_of(payloads[i]);
        for (next = i + 1; next < n && drive_client_of(payloads[next]) == client;) next++;
        char channel[32];
        snprintf(channel, sizeof channel, "done:%u", client);
        put_fmt(&w->out, "*3\r\n$7\r\nPUBLISH\r\n");
        put_text(&w->out, channel);
        put_fmt(&w->out, "$%u\r\n", (next - i) * PAYLOAD);
        for (uint32_t k = i; k < next; k++) put_bytes(&w->out, payloads[k], PAYLOAD);
        put_bytes(&w->out, "\r\n", 2);
        o->skip++;
    }
}

/* ids: of the stream's entries */
static void finish(Conn *w, const char *const *payloads, const char (*ids)[32], uint32_t n)
{
    Own *o = w->own;
    for (uint32_t i = 0; i < n; i++) {
        char key[64];
        snprintf(key, sizeof key, "result:%.28s", payloads[i]); /* the task's name */
        put_fmt(&w->out, "*5\r\n$3\r\nSET\r\n");
        put_text(&w->out, key);
        put_arg(&w->out, payloads[i], PAYLOAD);
        put_fmt(&w->out, "$2\r\nEX\r\n$4\r\n3600\r\n");
        o->skip++;
    }
    publish(w, payloads, n);
    if (stream) {
        put_fmt(&w->out, "*%u\r\n$4\r\nXACK\r\n$1\r\nq\r\n$1\r\ng\r\n", n + 3);
        for (uint32_t i = 0; i < n; i++) put_text(&w->out, ids[i]);
        put_fmt(&w->out, "*%u\r\n$4\r\nXDEL\r\n$1\r\nq\r\n", n + 2);
        for (uint32_t i = 0; i < n; i++) put_text(&w->out, ids[i]);
        o->skip += 2;
    } else {
        char text[64];
        snprintf(text, sizeof text, "DEL lease:%u", w->index);
        put_command(&w->out, text);
        o->skip++;
    }
}

/* All strings of 256 bytes in a reply are payloads, those before them in a stream's their ids:
 * {q: [[id, [p, payload]], …]}, [payload, …] or payload. */
static void taken(Conn *w, const char *p, const char *end)
{
    static const char *payloads[BATCH_MAX];
    static char ids[BATCH_MAX][32];
    uint32_t n = 0;
    while (p < end) {
        const char *next = value_end(p, end), *text = memchr(p, '\n', (size_t)(end - p)) + 1;
        long len = *p == '$' ? atol(p + 1) : -1;
        CHECK(next && n < BATCH_MAX);
        if (len == PAYLOAD)
            payloads[n++] = text;
        else if (len > 2 && len < 32)
            snprintf(ids[n], sizeof ids[n], "%.*s", (int)len, text);
        p = next;
    }
    drive_taken(n);
    if (n) {
        finish(w, payloads, ids, n);
        take(w);
    } else {
        drive_idle(w);
    }
}

static void input(Conn *c)
{
    Own *o = c->own;
    for (;;) {
        const char *p = c->in.data + c->in_used, *end = c->in.data + c->in.len;
        const char *next = reply_end(p, end);
        if (!next) return;
        c->in_used += (size_t)(next - p);
        if (*p == '>') { /* message, channel, text: its length is what tells how many results */
            const char *last = p;
            for (const char *q = p; q < next; q = value_end(q, next)) last = q;
            drive_done(c->index, (uint32_t)(atol(last + 1) / PAYLOAD));
        } else if (!c->worker) {
            drive_acked(c, stream ? 1 : drive.batch);
        } else if (o->skip) {
            o->skip--;
        } else if (o->taking) {
            o->taking = false;
            taken(c, p, next);
        }
    }
}

Peer peer = {.setup = setup, .open = open_conn, .put = put, .take = take, .input = input};
