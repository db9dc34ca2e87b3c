/* What the load generator and the peers' protocols share. One thread, one epoll, a connection a
 * client and a connection a worker; each peer is one file, linked with drive.c to one program.
 *
 * A round: a client puts a batch of tasks (of one, unbatched) and hears that they are durable;
 * workers take them under a lease, and acknowledge them with a result equal to the payload, as
 * Headrace's echo does; the client reads the results. It puts again when its whole batch came back.
 * A peer without results comes back when its worker has acknowledged: that is told within this
 * process, and costs the peer nothing. So is the wake-up of idle workers, for peers whose takes
 * don't wait. */
#ifndef PEERS_DRIVE_H
#define PEERS_DRIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAYLOAD   256
#define BATCH_MAX 1000
#define CHECK(x)  ((x) ? (void)0 : drive_fail("%s:%d: %s", __FILE__, __LINE__, #x))

typedef struct Buf {
    char *data;
    size_t len, cap;
} Buf;

typedef struct Conn {
    int fd;
    uint32_t index; /* of the client, or of the worker */
    bool worker;
    bool idle;    /* worker: waits for drive's wake-up */
    bool writing; /* EPOLLOUT is asked for */
    bool dirty;   /* in the list of those with something to send */
    Buf out;
    Buf in;
    size_t in_used; /* of in, by the peer */
    /* client */
    uint32_t acked, done; /* of the batch on its way */
    uint64_t batches;     /* put so far */
    int64_t put_ns;
    /* the peer's own */
    void *own;
} Conn;

typedef struct Drive {
    uint16_t port;
    uint32_t clients, workers, batch;
    const char *variant; /* of the peer: list or stream, classic or quorum */
    bool fill;           /* tasks are put, and never taken */
} Drive;

typedef struct Peer {
    void (*setup)(void);       /* once, before the connections: queues, tables; may block */
    void (*open)(Conn *c);     /* connects and greets, may block; sets fd */
    void (*put)(Conn *client); /* a batch: payloads by drive_payload(client, 0 … batch - 1) */
    void (*take)(Conn *worker);
    void (*input)(Conn *c); /* from in, or what else has come */
    bool own_io;            /* input() reads and flush() writes by themselves */
    bool (*flush)(Conn *c); /* with own_io; true: there is more to send */
    bool wakes;             /* takes don't wait: drive calls take() when there are tasks */
} Peer;

extern Peer peer; /* setup() may still change it */
extern Drive drive;

_Noreturn void drive_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* A blocking connection to 127.0.0.1:port, without Nagle's delay. */
int drive_connect(uint16_t port);
/* For greetings: reads more into c->in, blocking. */
void drive_read_more(Conn *c);
/* For greetings: sends what lies in c->out, blocking. */
void drive_send_all(Conn *c);

void put_bytes(Buf *b, const void *p, size_t n);
void put_fmt(Buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Task i of the batch that is put now: 256 printable bytes; valid until the next call. */
const char *drive_payload(const Conn *client, uint32_t i);
/* Whose task this is. */
uint32_t drive_client_of(const char *payload);

/* n tasks of this client are durable. */
void drive_acked(Conn *client, uint32_t n);
/* With peer.wakes: a worker asks for tasks; it got n. Counts only, so that no more are woken than
 * there are tasks nobody has asked for. */
void drive_asked(void);
void drive_taken(uint32_t n);
/* A worker found nothing; drive wakes it. With peer.wakes. */
void drive_idle(Conn *worker);
/* n tasks of this client came back. */
void drive_done(uint32_t client, uint32_t n);
/* A connection has something in out, or for flush(). */
void drive_dirty(Conn *c);

#endif
