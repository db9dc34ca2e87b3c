/* fleet.h: what operators ask of the fleet and order it, beside what shard.h offers the gateway's
 * ports. */
#ifndef NODE_FLEET_H
#define NODE_FLEET_H

#include "node/shard.h"

/* Why tasks of a model cannot start now, however long they wait their turn. The same words in JSON,
 * metrics and here. */
typedef enum {
    WAIT_TURN,        /* they can: it is only a matter of their turn */
    WAIT_PAUSED,      /* "paused" */
    WAIT_NO_WORKER,   /* "no_worker": nobody who is connected has it */
    WAIT_NO_DEVICE,   /* "no_device": who has it has no device of the kind that it wants */
    WAIT_NO_MEMORY,   /* "no_memory": it fits on no device */
    WAIT_LOAD_FAILED, /* "load_failed": loading it failed, and is tried again later */
    WAIT_UNAVAILABLE, /* "unavailable": those who have it are cordoned, drained, silent … */
} WaitReason;
const char *wait_reason_name(WaitReason r); /* WAIT_TURN: "" */

/* ret (may be NULL) gets a sentence for people, without a full stop. */
WaitReason fleet_why_waits(const Fleet *f, Sym name, Sym version, Buf *ret);
/* The same as members of a JSON object, ,"reason":"…","reason_code":"…", or nothing. */
void fleet_reason_json(const Fleet *f, Sym name, Sym version, Buf *ret);

#define WARM_MAX 64 /* devices that one order may keep warm */
/* Keep the model's latest version loaded on so many devices; 0: on none; −1: as its model.yaml
 * says. On record. CODE_UNKNOWN_MODEL. */
Decision fleet_warm(Fleet *f, Str name, int replicas);

#endif
