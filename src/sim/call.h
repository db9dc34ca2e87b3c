/* call.h: HTTP calls over the simulated network, as a client makes them. */
#ifndef SIM_CALL_H
#define SIM_CALL_H

#include "sim/net.h"

typedef struct Call Call;

typedef struct {
    int status; /* 0: no answer */
    Buf head, body;
    uint64_t durable; /* what the server had on its disk when the last of it left */
} Reply;

typedef struct {
    const char *method, *target;
    const char *headers; /* whole lines, or "" */
    Str body;            /* copied */
    int64_t timeout_ns;  /* of the whole exchange; 0: none */
    bool alone;          /* on a connection of its own */
    /* Lines of a 2xx answer as they come, without the line end; NULL: they are collected. */
    void (*on_line)(void *ctx, Str line);
    /* Once, at the end, unless canceled: 0, ERR_CLOSED, ERR_TIMEOUT. */
    void (*on_done)(void *ctx, int err, const Reply *r);
    void *ctx;
} CallOptions;

/* Never calls back before it returns; frees itself after on_done or a cancel. */
Call *call_start(Peer *p, Host *h, const CallOptions *o);
void call_cancel(Call *c);                          /* accepts NULL */
Str reply_header(const Reply *r, const char *name); /* "": not there */
uint64_t call_durable(const Call *c);               /* inside on_line */
void calls_drop(Peer *p); /* the peer's process ends: every call ends with ERR_CLOSED */

#endif
