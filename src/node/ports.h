/* ports.h: the gateway's ports, answered by a shard. */
#ifndef NODE_PORTS_H
#define NODE_PORTS_H

#include "node/archive.h"
#include "node/backup.h"
#include "node/shard.h"

/* ready(ctx_ready, why_not): is the server ready? (/readyz) */
typedef struct {
    Shard *shard;
    Archive *archive; /* NULL: no history view … */
    bool view_apart;  /* … but one that the configuration turns off: its files stay */
    Backups *backups;
    bool (*ready)(void *ctx, Buf *why_not);
    void *ready_ctx;
} PortsContext;

/* ctx is borrowed as long as the ports are used. */
void ports_fill(GatewayPorts *ret, PortsContext *ctx); /* shard and archive are set */

#endif
