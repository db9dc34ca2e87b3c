/* node.h: a simulated server: the shard, the log, the gateway and the folds of `headrace serve`,
 * in the loop of serve.c, over a simulated disk, clock and network. What serve.c does on threads
 * runs in fibers here, which take simulated time wherever they touch the disk. */
#ifndef SIM_NODE_H
#define SIM_NODE_H

#include "node/fold.h"
#include "node/ports.h"
#include "node/shard.h"
#include "sim/fiber.h"
#include "sim/mem_disk.h"
#include "sim/net.h"
#include "sim/plan.h"
#include "sim/sub_disk.h"
#include "sim/witness.h"

typedef struct Node Node;

typedef struct { /* a line of execution that touches the disk, and when it goes on */
    Event event;
    Fiber *fiber;
    Node *node;
} Strand;

struct Node {
    Host host;
    World *w;
    const Plan *plan;
    Witness *witness;
    char name[16];
    MemDisk *disk; /* the machine's: stays when the process goes */
    SubDisk files; /* where contents lie on it */
    Clock clock;
    bool up, dying; /* dying: buried at the end of the turn */
    bool power_cut; /* … its machine too */
    bool draining;
    /* whoever runs it */
    void *owner;
    void (*died)(void *owner, Node *n); /* it is buried */
    void (*kill_worker)(void *owner, Str name);

    /* the process */
    Shard *shard;
    Gateway *gateway;
    GatewayPorts ports, inner; /* ports: with the witness before inner */
    PortsContext ports_ctx;
    Strand log, fold;
    bool log_woken, log_waits, log_stop;
    int64_t drain_until_ns;
    Event log_idle, told, wake, housekeeping, burial;
    uint64_t durable; /* what the log says is on the disk */
    uint64_t incarnation;
    int fold_err;
    int64_t fold_after_ns;
    /* The last group that is proven to be on the disk begins there: what lies before it is proven
     * by it, so that damage there must be found. */
    uint64_t proof_segment, proof_at;
};

Node *node_new(World *w, const Plan *plan, Witness *witness, const char *name);
void node_free(Node *n);
/* The keys of the tenants and of workers, as lines of a request. */
#define TENANTS    3
#define WORKER_KEY "Authorization: Bearer worker-key\r\n"
extern const char *const tenant_keys[TENANTS];

/* Starts the process. 0, or why it did not come up (said in *why). */
int node_start(Node *n, Buf *why);
/* Ends it at once: at the end of this event, its disk as a crash leaves it. */
void node_kill(Node *n, bool power_cut);
void node_stop(Node *n); /* SIGTERM: drains; it is down when all is answered */
void node_fold(Node *n); /* a snapshot, due or not */
void node_bury(Node *n); /* now; outside of its own calls */

#endif
