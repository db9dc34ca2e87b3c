/* actors.h: those who live in a simulated world besides its servers. Free of the gateway's and the
 * workers' headers, whose names clash. */
#ifndef SIM_ACTORS_H
#define SIM_ACTORS_H

#include "task/task.h"

#include "sim/call.h"
#include "sim/plan.h"
#include "sim/witness.h"

typedef struct Sim Sim;
typedef struct Client Client;
typedef struct Hand Hand; /* a worker */
typedef struct Follower Follower;
typedef struct Batcher Batcher;
typedef struct Filer Filer;
struct Node;

#define RECENT_MAX 32

struct Sim {
    World *w;
    Plan plan;
    Witness *witness;
    struct Node *node;
    Host *host; /* the server that clients and workers call */
    struct Faults *faults;
    Client **clients;
    Hand **hands;
    Follower *followers[2];
    Batcher *batcher;
    Filer *filers[2];
    Buf contents;                             /* of contents.h */
    char recent[RECENT_MAX][TASK_ID_LEN + 1]; /* accepted last; a ring */
    uint64_t recent_n;
    uint64_t nonces, keys, streams;
    int64_t calm_ns;       /* from then on nothing is left of the faults; 0: not yet */
    uint64_t ended_leases; /* by time, when it became calm */
    bool healed;           /* no faults any more */
    bool quiet;            /* clients submit nothing new */
    Buf leased; /* ids that a lease named for the first time, each TASK_ID_LEN + 1 bytes */
    uint64_t submits, reads, tasks, leases;
};

/* ---- client.c ---- */
Client *client_new(Sim *s, uint32_t number);
void client_free(Client *c);
bool client_idle(const Client *c);
/* Reads every accepted task once more; true when that is done. */
void client_read_all(Client *c);
bool client_has_read_all(const Client *c);

void sim_recent(Sim *s, const char *id); /* it was accepted */
/* The code of a refusal's problem; CODE_INTERNAL: its outcome is not known. */
Code reply_code(Str body);

/* ---- follow.c: who reads event streams ---- */
Follower *follower_new(Sim *s, uint32_t number);
void follower_free(Follower *f);

/* ---- batch.c: who submits in batches ---- */
Batcher *batcher_new(Sim *s, uint32_t number);
void batcher_free(Batcher *b);
bool batcher_idle(const Batcher *b);

/* ---- filer.c: who has files ---- */
Filer *filer_new(Sim *s, uint32_t number);
void filer_free(Filer *f);
bool filer_idle(const Filer *f);
void filer_read_all(Filer *f); /* each content once more */
bool filer_has_read_all(const Filer *f);

/* ---- hand.c ---- */
Hand *hand_new(Sim *s, uint32_t number);
void hand_free(Hand *h);
void hand_die(Hand *h, int64_t back_in_ns);
void hand_pause(Hand *h, int64_t for_ns);
Peer *hand_peer(Hand *h);
Peer *client_peer(Client *c);
const char *hand_name(const Hand *h);
const char *hand_id(const Hand *h); /* given by the server; "" */

#endif
