/* NATS JetStream: a work queue on files with one pull consumer, acknowledgements explicit. A client
 * publishes and gets the stream's acknowledgement; a worker acknowledges with +NXT, which asks for
 * the next in the same message. The server does not answer an acknowledgement: a task comes back
 * when it was sent. No results. */
#define _GNU_SOURCE /* memmem */
#include "drive.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Own {
    uint32_t left; /* of the tasks that were asked for */
} Own;

static void publish(Conn *c, const char *subject, const char *reply, const char *text, size_t n)
{
    put_fmt(&c->out, "PUB %s %s %zu\r\n", subject, reply, n);
    put_bytes(&c->out, text, n);
    put_bytes(&c->out, "\r\n", 2);
}

/* A line, for greetings. */
static void await_line(Conn *c, const char *begins, char *ret, size_t cap)
{
    for (;;) {
        const char *p = c->in.data + c->in_used, *nl;
        while (!c->in.len || !(nl = memchr(p, '\n', c->in.len - c->in_used))) {
            drive_read_more(c);
            p = c->in.data + c->in_used;
        }
        c->in_used += (size_t)(nl + 1 - p);
        if (!strncmp(p, "-ERR", 4)) drive_fail("NATS: %.*s", (int)(nl - p), p);
        if (ret) snprintf(ret, cap, "%.*s", (int)(nl - p), p);
        if (!strncmp(p, begins, strlen(begins))) return;
    }
}

static void greet(Conn *c)
{
    c->fd = drive_connect(drive.port);
    await_line(c, "INFO", NULL, 0);
    put_fmt(&c->out, "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,"
                     "\"no_responders\":true}\r\n");
}

static void ask(Conn *c, const char *subject, const char *text)
{
    char line[512];
    publish(c, subject, "setup", text, strlen(text));
    drive_send_all(c);
    await_line(c, "MSG setup", NULL, 0);
    await_line(c, "{", line, sizeof line);
    if (strstr(line, "\"error\"") && !strstr(subject, "DELETE"))
        drive_fail("NATS: %s: %s", subject, line);
}

static void setup(void)
{
    Conn c = {0};
    greet(&c);
    put_fmt(&c.out, "SUB setup 1\r\n");
    ask(&c, "$JS.API.STREAM.DELETE.Q", "");
    ask(&c, "$JS.API.STREAM.CREATE.Q",
        "{\"name\":\"Q\",\"subjects\":[\"q\"],\"retention\":\"workqueue\",\"storage\":\"file\"}");
    ask(&c, "$JS.API.CONSUMER.DURABLE.CREATE.Q.W",
        "{\"stream_name\":\"Q\",\"config\":{\"durable_name\":\"W\",\"ack_policy\":\"explicit\","
        "\"ack_wait\":60000000000,\"max_ack_pending\":100000,\"max_waiting\":10000}}");
}

static void open_conn(Conn *c)
{
    greet(c);
    c->own = calloc(1, sizeof(Own));
    CHECK(c->own);
    put_fmt(&c->out, "SUB %c%u 1\r\nPING\r\n", c->worker ? 'w' : 'c', c->index);
    drive_send_all(c);
    await_line(c, "PONG", NULL, 0);
}

static void put(Conn *c)
{
    char reply[32];
    snprintf(reply, sizeof reply, "c%u", c->index);
    for (uint32_t i = 0; i < drive.batch; i++) publish(c, "q", reply, drive_payload(c, i), PAYLOAD);
}

static void take(Conn *w)
{
    Own *o = w->own;
    char reply[32], text[32];
    snprintf(reply, sizeof reply, "w%u", w->index);
    int n = snprintf(text, sizeof text, "{\"batch\":%u}", drive.batch);
    publish(w, "$JS.API.CONSUMER.MSG.NEXT.Q.W", reply, text, (size_t)n);
    o->left = drive.batch;
    drive_dirty(w);
}

/* A task, or the stream's answer to one. head: MSG subject sid [reply] bytes */
static void message(Conn *c, const char *head, const char *text, size_t n)
{
    Own *o = c->own;
    char reply[256], ack[32];
    if (!c->worker) {
        if (memmem(text, n, "\"error\"", 7)) drive_fail("NATS: %.*s", (int)n, text);
        drive_acked(c, 1);
        return;
    }
    if (n != PAYLOAD || sscanf(head, "MSG %*s %*s %255s", reply) != 1)
        drive_fail("NATS: %.*s", (int)(text - head), head);
    uint32_t client = drive_client_of(text);
    bool last = --o->left == 0;
    int len = last ? snprintf(ack, sizeof ack, "+NXT {\"batch\":%u}", drive.batch)
                   : snprintf(ack, sizeof ack, "+ACK");
    char to[32] = "";
    if (last) snprintf(to, sizeof to, "w%u", c->index);
    publish(c, reply, to, ack, (size_t)len);
    if (last) o->left = drive.batch;
    drive_dirty(c);
    drive_done(client, 1);
}

static void input(Conn *c)
{
    for (;;) {
        const char *p = c->in.data + c->in_used, *end = c->in.data + c->in.len;
        const char *nl = p < end ? memchr(p, '\n', (size_t)(end - p)) : NULL;
        if (!nl) return;
        size_t used = (size_t)(nl + 1 - p);
        if (!strncmp(p, "PING", 4)) {
            put_fmt(&c->out, "PONG\r\n");
            drive_dirty(c);
        } else if (!strncmp(p, "MSG ", 4)) {
            const char *last = nl;
            while (*last != ' ') last--;
            size_t n = (size_t)atol(last + 1);
            if ((size_t)(end - nl - 1) < n + 2) return;
            used += n + 2;
            message(c, p, nl + 1, n);
        } else if (strncmp(p, "+OK", 3) != 0) {
            drive_fail("NATS: %.*s", (int)(nl - p), p);
        }
        c->in_used += used;
    }
}

Peer peer = {.setup = setup, .open = open_conn, .put = put, .take = take, .input = input};
