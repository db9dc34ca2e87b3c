/* node.h: joins the stages into a server: one shard, its log, its gateway, its local workers. */
#ifndef NODE_NODE_H
#define NODE_NODE_H

#include "node/config.h"

/* Runs a server until SIGTERM has drained it. config is borrowed. Returns the exit status:
 * 0 after an orderly end, 1 when it could not start or had to stop (said on stderr). */
int node_serve(const Config *config);

#endif
