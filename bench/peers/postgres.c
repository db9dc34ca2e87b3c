/* PostgreSQL as a queue: a table, a partial index, SKIP LOCKED. A client inserts; a worker's UPDATE
 * takes the oldest rows under a lease; its next UPDATE, which stores the results, goes with the
 * next take in one transaction, so that both take one sync. The client then selects its results.
 * Nobody polls and nobody notifies: drive says when there is something, which costs PostgreSQL
 * nothing. Statements are prepared; by batches each is one statement for all its tasks. */
#include "drive.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLIENTS_MAX 4096

typedef struct Own {
    PGconn *pg;
    uint32_t n;      /* worker: tasks in hand; client: results that can be read */
    Buf ids;         /* {1,2,…}: of the worker's tasks, or of the client's batch */
    Buf texts;       /* {…}: the tasks' payloads, which are their results */
    uint32_t *owner; /* worker: the client of each task */
    bool reading;    /* client: a SELECT is under way */
    PGresult *rows;  /* arrived; they count when their transaction has committed */
} Own;

static Conn *client_at[CLIENTS_MAX];

#define TAKE                                                                                       \
    "UPDATE tasks SET state = 1, lease_until = now() + interval '60 s' WHERE id IN "               \
    "(SELECT id FROM tasks WHERE state = 0 ORDER BY id LIMIT $1::int FOR UPDATE SKIP LOCKED) "     \
    "RETURNING id, payload"
#define TAKE_ONE                                                                                   \
    "UPDATE tasks SET state = 1, lease_until = now() + interval '60 s' WHERE id = "                \
    "(SELECT id FROM tasks WHERE state = 0 ORDER BY id LIMIT $1::int FOR UPDATE SKIP LOCKED) "     \
    "RETURNING id, payload"

static const char *const statements[][2] = {
    {"put", "INSERT INTO tasks (payload) SELECT unnest($1::text[]) RETURNING id"},
    {"put1", "INSERT INTO tasks (payload) VALUES ($1) RETURNING id"},
    {"take", TAKE},
    {"take1", TAKE_ONE},
    {"end", "UPDATE tasks SET state = 2, result = r.t FROM unnest($1::bigint[], $2::text[]) "
            "AS r (i, t) WHERE id = r.i AND state = 1"},
    {"end1", "UPDATE tasks SET state = 2, result = $2 WHERE id = $1 AND state = 1"},
    {"get", "SELECT result FROM tasks WHERE id = ANY ($1::bigint[]) AND state = 2"},
    {"get1", "SELECT result FROM tasks WHERE id = $1 AND state = 2"},
};

static PGconn *login(void)
{
    char text[128];
    snprintf(text, sizeof text, "host=127.0.0.1 port=%u user=postgres dbname=postgres", drive.port);
    PGconn *pg = PQconnectdb(text);
    if (PQstatus(pg) != CONNECTION_OK) drive_fail("PostgreSQL: %s", PQerrorMessage(pg));
    return pg;
}

static void setup(void)
{
    PGconn *pg = login();
    PGresult *r = PQexec(pg,
                         "SET client_min_messages = warning; DROP TABLE IF EXISTS tasks; "
                         "CREATE TABLE tasks (id bigserial PRIMARY KEY, state int NOT NULL "
                         "DEFAULT 0, lease_until timestamptz, payload text NOT NULL, result text);"
                         "CREATE INDEX ready ON tasks (id) WHERE state = 0");
    if (PQresultStatus(r) != PGRES_COMMAND_OK) drive_fail("PostgreSQL: %s", PQerrorMessage(pg));
    PQclear(r);
    PQfinish(pg);
}

static void open_conn(Conn *c)
{
    Own *o = c->own = calloc(1, sizeof *o);
    CHECK(o && c->index < CLIENTS_MAX);
    if (!c->worker) client_at[c->index] = c;
    o->pg = login();
    o->owner = calloc(BATCH_MAX, sizeof *o->owner);
    CHECK(o->owner);
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        PGresult *r = PQprepare(o->pg, statements[i][0], statements[i][1], 0, NULL);
        if (PQresultStatus(r) != PGRES_COMMAND_OK)
            drive_fail("PostgreSQL: %s", PQerrorMessage(o->pg));
        PQclear(r);
    }
    PQsetnonblocking(o->pg, 1);
    CHECK(PQenterPipelineMode(o->pg));
    c->fd = PQsocket(o->pg);
}

static void send(Own *o, const char *name, const char *a, const char *b)
{
    const char *values[] = {a, b};
    if (!PQsendQueryPrepared(o->pg, name, b ? 2 : 1, values, NULL, NULL, 0))
        drive_fail("PostgreSQL: %s", PQerrorMessage(o->pg));
}

static void sync_up(Conn *c)
{
    Own *o = c->own;
    CHECK(PQpipelineSync(o->pg));
    drive_dirty(c);
}

/* Adds to an array's text, or makes it the value itself when tasks go one by one. */
static void add(Buf *b, const char *text, size_t n)
{
    if (drive.batch > 1) put_bytes(b, b->len ? "," : "{", 1);
    put_bytes(b, text, n);
}

static const char *whole(Buf *b)
{
    put_bytes(b, "}", drive.batch > 1);
    put_bytes(b, "", 1);
    b->len = 0;
    return b->data;
}

static void put(Conn *c)
{
    Own *o = c->own;
    for (uint32_t i = 0; i < drive.batch; i++) add(&o->texts, drive_payload(c, i), PAYLOAD);
    send(o, drive.batch > 1 ? "put" : "put1", whole(&o->texts), NULL);
    sync_up(c);
}

static void take(Conn *w)
{
    Own *o = w->own;
    char n[16];
    snprintf(n, sizeof n, "%u", drive.batch);
    send(o, drive.batch > 1 ? "take" : "take1", n, NULL);
    sync_up(w);
    drive_asked();
}

/* A client's batch is done by several workers; it reads when the last has committed. */
static void read_when_whole(Conn *c)
{
    Own *o = c->own;
    if (c->acked < drive.batch || o->n < drive.batch) return;
    o->n = 0;
    o->reading = true;
    send(o, drive.batch > 1 ? "get" : "get1", o->ids.data, NULL);
    sync_up(c);
}

static void inserted(Conn *c, PGresult *r)
{
    Own *o = c->own;
    int n = PQntuples(r);
    for (int i = 0; i < n; i++) add(&o->ids, PQgetvalue(r, i, 0), (size_t)PQgetlength(r, i, 0));
    (void)whole(&o->ids);
    drive_acked(c, (uint32_t)n);
    if (!drive.fill) read_when_whole(c);
}

static void ended(Own *worker)
{
    for (uint32_t i = 0; i < worker->n; i++) {
        Conn *c = client_at[worker->owner[i]];
        ((Own *)c->own)->n++;
        read_when_whole(c);
    }
    worker->n = 0;
}

static void taken(Conn *w, PGresult *r)
{
    Own *o = w->own;
    int n = PQntuples(r);
    drive_taken((uint32_t)n);
    if (!n) {
        drive_idle(w);
        return;
    }
    for (int i = 0; i < n; i++) {
        const char *payload = PQgetvalue(r, i, 1);
        o->owner[o->n++] = drive_client_of(payload);
        add(&o->ids, PQgetvalue(r, i, 0), (size_t)PQgetlength(r, i, 0));
        add(&o->texts, payload, PAYLOAD);
    }
    const char *ids = whole(&o->ids), *texts = whole(&o->texts);
    send(o, drive.batch > 1 ? "end" : "end1", ids, texts);
    take(w);
}

/* What a transaction returned, and that it is durable. */
static void committed(Conn *c)
{
    Own *o = c->own;
    PGresult *r = o->rows;
    o->rows = NULL;
    CHECK(r);
    if (c->worker) {
        ended(o);
        taken(c, r);
    } else if (o->reading) {
        o->reading = false;
        CHECK(PQntuples(r) == (int)drive.batch);
        drive_done(c->index, drive.batch);
    } else {
        inserted(c, r);
    }
    PQclear(r);
}

static void input(Conn *c)
{
    Own *o = c->own;
    if (!PQconsumeInput(o->pg)) drive_fail("PostgreSQL: %s", PQerrorMessage(o->pg));
    for (int nulls = 0;
         nulls < 2 && !PQisBusy(o->pg);) { /* one ends a statement, two the pipeline */
        PGresult *r = PQgetResult(o->pg);
        nulls = r ? 0 : nulls + 1;
        ExecStatusType status = r ? PQresultStatus(r) : PGRES_COMMAND_OK;
        if (status == PGRES_TUPLES_OK) {
            CHECK(!o->rows);
            o->rows = r;
            continue;
        }
        if (status == PGRES_PIPELINE_SYNC)
            committed(c);
        else if (status != PGRES_COMMAND_OK)
            drive_fail("PostgreSQL: %s", PQresultErrorMessage(r));
        PQclear(r);
    }
    drive_dirty(c);
}

static bool flush(Conn *c)
{
    int more = PQflush(((Own *)c->own)->pg);
    if (more < 0) drive_fail("PostgreSQL: %s", PQerrorMessage(((Own *)c->own)->pg));
    return more > 0;
}

Peer peer = {.setup = setup,
             .open = open_conn,
             .put = put,
             .take = take,
             .input = input,
             .own_io = true,
             .flush = flush,
             .wakes = true};
