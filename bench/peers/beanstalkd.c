/* beanstalkd: put, reserve (the lease is its time to run), delete. It keeps no results: a task
 * comes back when its delete was answered. Its protocol knows no batches; puts are written
 * together. */
#include "drive.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void setup(void) {}

static void open_conn(Conn *c)
{
    c->fd = drive_connect(drive.port);
    put_fmt(&c->out, c->worker ? "watch q%u-%u\r\nignore default\r\n" : "use q%u-%u\r\n",
            drive.clients, drive.batch);
    drive_send_all(c);
    for (int lines = c->worker ? 2 : 1; lines > 0;) {
        const char *nl = memchr(c->in.data + c->in_used, '\n', c->in.len - c->in_used);
        if (!c->in.len || !nl) {
            drive_read_more(c);
            continue;
        }
        c->in_used = (size_t)(nl + 1 - c->in.data);
        lines--;
    }
}

static void put(Conn *c)
{
    for (uint32_t i = 0; i < drive.batch; i++) {
        put_fmt(&c->out, "put 1024 0 60 %d\r\n", PAYLOAD);
        put_bytes(&c->out, drive_payload(c, i), PAYLOAD);
        put_bytes(&c->out, "\r\n", 2);
    }
}

static void take(Conn *w)
{
    put_bytes(&w->out, "reserve\r\n", 9);
    drive_dirty(w);
}

/* One answer; its client is remembered from reserve to delete. false: not all there */
static bool answer(Conn *c)
{
    const char *p = c->in.data + c->in_used, *end = c->in.data + c->in.len;
    const char *nl = p < end ? memchr(p, '\n', (size_t)(end - p)) : NULL;
    unsigned long long id;
    size_t len;
    if (!nl) return false;
    size_t used = (size_t)(nl + 1 - p);
    if (!strncmp(p, "INSERTED ", 9)) {
        c->in_used += used;
        drive_acked(c, 1);
    } else if (sscanf(p, "RESERVED %llu %zu", &id, &len) == 2) {
        CHECK(len == PAYLOAD);
        if ((size_t)(end - p) < used + len + 2) return false;
        c->own = (void *)(uintptr_t)drive_client_of(nl + 1);
        c->in_used += used + len + 2;
        put_fmt(&c->out, "delete %llu\r\n", id);
        take(c);
    } else if (!strncmp(p, "DELETED", 7)) {
        c->in_used += used;
        drive_done((uint32_t)(uintptr_t)c->own, 1);
    } else {
        drive_fail("beanstalkd: %.*s", (int)(nl - p), p);
    }
    return true;
}

static void input(Conn *c)
{
    while (answer(c)) continue;
}

Peer peer = {.setup = setup, .open = open_conn, .put = put, .take = take, .input = input};
