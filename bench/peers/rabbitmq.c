/* RabbitMQ: a durable queue, classic or quorum by --variant; persistent messages, publisher
 * confirms; consumers with a prefetch of one batch. librabbitmq greets and declares; the load
 * itself is written and read as frames of AMQP 0-9-1, since the library blocks. The server does not
 * answer an acknowledgement: a task comes back when it was sent. By batches a worker acknowledges
 * with one frame what came with one read. No results. */
#include "drive.h"

#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUEUE         "q"
#define FRAME_END     0xce
#define FRAME_METHOD  1
#define FRAME_HEADER  2
#define FRAME_BODY    3
#define BASIC_PUBLISH 0x003c0028
#define BASIC_DELIVER 0x003c003c
#define BASIC_ACK     0x003c0050

typedef struct Own {
    amqp_connection_state_t amqp;
    uint64_t tag;    /* worker: of the delivery that is read; client: before the batch on its way */
    bool *confirmed; /* client: which of the batch */
    Buf come;        /* worker: clients of the deliveries since the last acknowledgement */
} Own;

static void must(amqp_rpc_reply_t r, const char *what)
{
    if (r.reply_type != AMQP_RESPONSE_NORMAL) drive_fail("RabbitMQ: %s failed", what);
}

static amqp_connection_state_t login(void)
{
    amqp_connection_state_t s = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(s);
    CHECK(socket);
    if (amqp_socket_open(socket, "127.0.0.1", drive.port)) drive_fail("RabbitMQ: cannot connect");
    must(amqp_login(s, "/", 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, "guest", "guest"), "login");
    amqp_channel_open(s, 1);
    must(amqp_get_rpc_reply(s), "channel.open");
    return s;
}

static void setup(void)
{
    amqp_connection_state_t s = login();
    amqp_table_entry_t entry = {
        .key = amqp_cstring_bytes("x-queue-type"),
        .value = {.kind = AMQP_FIELD_KIND_UTF8,
                  .value.bytes = amqp_cstring_bytes(drive.variant ? drive.variant : "classic")}};
    amqp_table_t table = {.num_entries = 1, .entries = &entry};
    amqp_queue_delete(s, 1, amqp_cstring_bytes(QUEUE), 0, 0);
    must(amqp_get_rpc_reply(s), "queue.delete");
    amqp_queue_declare(s, 1, amqp_cstring_bytes(QUEUE), 0, 1, 0, 0, table);
    must(amqp_get_rpc_reply(s), "queue.declare");
    amqp_connection_close(s, AMQP_REPLY_SUCCESS);
    amqp_destroy_connection(s);
}

static void open_conn(Conn *c)
{
    Own *o = c->own = calloc(1, sizeof *o);
    CHECK(o);
    o->amqp = login();
    o->confirmed = calloc(BATCH_MAX, sizeof *o->confirmed);
    CHECK(o->confirmed);
    if (c->worker) {
        amqp_basic_qos(o->amqp, 1, 0, (uint16_t)drive.batch, 0);
        must(amqp_get_rpc_reply(o->amqp), "basic.qos");
    } else {
        amqp_confirm_select(o->amqp, 1);
        must(amqp_get_rpc_reply(o->amqp), "confirm.select");
    }
    c->fd = amqp_get_sockfd(o->amqp);
}

/* ---- frames ---- */

static void put_u(Buf *b, uint64_t v, int bytes)
{
    for (int i = bytes - 1; i >= 0; i--) {
        char byte = (char)(v >> (8 * i));
        put_bytes(b, &byte, 1);
    }
}

static uint64_t get_u(const char *p, int bytes)
{
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++) v = v << 8 | (uint8_t)p[i];
    return v;
}

static void put_frame(Buf *b, int type, size_t size)
{
    put_u(b, (uint64_t)type, 1);
    put_u(b, 1, 2);
    put_u(b, size, 4);
}

static void put(Conn *c)
{
    Own *o = c->own;
    Buf *b = &c->out;
    memset(o->confirmed, 0, drive.batch);
    for (uint32_t i = 0; i < drive.batch; i++) {
        put_frame(b, FRAME_METHOD, 4 + 2 + 1 + 1 + sizeof QUEUE - 1 + 1);
        put_u(b, BASIC_PUBLISH, 4);
        put_u(b, 0, 2); /* reserved */
        put_u(b, 0, 1); /* the default exchange */
        put_u(b, sizeof QUEUE - 1, 1);
        put_bytes(b, QUEUE, sizeof QUEUE - 1);
        put_u(b, 0, 1); /* not mandatory, not immediate */
        put_u(b, FRAME_END, 1);
        put_frame(b, FRAME_HEADER, 2 + 2 + 8 + 2 + 1);
        put_u(b, 60, 2);
        put_u(b, 0, 2);
        put_u(b, PAYLOAD, 8);
        put_u(b, 1 << 12, 2); /* a delivery mode follows */
        put_u(b, 2, 1);       /* persistent */
        put_u(b, FRAME_END, 1);
        put_frame(b, FRAME_BODY, PAYLOAD);
        put_bytes(b, drive_payload(c, i), PAYLOAD);
        put_u(b, FRAME_END, 1);
    }
}

/* Once: the server pushes. */
static void take(Conn *w)
{
    static const char tag[] = "w";
    Buf *b = &w->out;
    put_frame(b, FRAME_METHOD, 4 + 2 + 1 + sizeof QUEUE - 1 + 1 + sizeof tag - 1 + 1 + 4);
    put_u(b, 0x003c0014, 4); /* basic.consume */
    put_u(b, 0, 2);
    put_u(b, sizeof QUEUE - 1, 1);
    put_bytes(b, QUEUE, sizeof QUEUE - 1);
    put_u(b, sizeof tag - 1, 1);
    put_bytes(b, tag, sizeof tag - 1);
    put_u(b, 8, 1); /* nowait */
    put_u(b, 0, 4); /* no arguments */
    put_u(b, FRAME_END, 1);
}

static void confirm(Conn *c, uint64_t tag, bool multiple)
{
    Own *o = c->own;
    uint32_t n = 0;
    CHECK(tag > o->tag && tag <= o->tag + drive.batch);
    uint64_t last = tag - o->tag; /* from 1 on */
    for (uint64_t i = multiple ? 1 : last; i <= last; i++) {
        n += !o->confirmed[i - 1];
        o->confirmed[i - 1] = true;
    }
    if (c->acked + n == drive.batch) o->tag += drive.batch;
    if (n) drive_acked(c, n);
}

/* What came with one read, up to the last delivery. */
static void acknowledge(Conn *w)
{
    Own *o = w->own;
    size_t n = o->come.len / sizeof(uint32_t);
    if (!n) return;
    put_frame(&w->out, FRAME_METHOD, 4 + 8 + 1);
    put_u(&w->out, BASIC_ACK, 4);
    put_u(&w->out, o->tag, 8);
    put_u(&w->out, n > 1, 1); /* multiple */
    put_u(&w->out, FRAME_END, 1);
    drive_dirty(w);
    for (size_t i = 0; i < n; i++) {
        uint32_t client;
        memcpy(&client, o->come.data + i * sizeof client, sizeof client);
        drive_done(client, 1);
    }
    o->come.len = 0;
}

static void method(Conn *c, const char *p)
{
    Own *o = c->own;
    uint32_t id = (uint32_t)get_u(p, 4);
    if (id == BASIC_ACK)
        confirm(c, get_u(p + 4, 8), p[12] & 1);
    else if (id == BASIC_DELIVER)
        o->tag = get_u(p + 5 + (uint8_t)p[4], 8);
    else
        drive_fail("RabbitMQ: method %08x", id);
}

static void input(Conn *c)
{
    Own *o = c->own;
    for (;;) {
        const char *p = c->in.data + c->in_used;
        size_t there = c->in.len - c->in_used, size = there >= 7 ? get_u(p + 3, 4) : 0;
        if (there < 7 || there < 7 + size + 1) break;
        CHECK((uint8_t)p[7 + size] == FRAME_END);
        if (*p == FRAME_METHOD) {
            method(c, p + 7);
        } else if (*p == FRAME_BODY) {
            CHECK(size == PAYLOAD);
            uint32_t client = drive_client_of(p + 7);
            put_bytes(&o->come, &client, sizeof client);
            if (drive.batch == 1) acknowledge(c);
        }
        c->in_used += 7 + size + 1;
    }
    acknowledge(c);
}

Peer peer = {.setup = setup, .open = open_conn, .put = put, .take = take, .input = input};
