/* supervise.h: `serve`'s own workers: one child process a device, started again when it ends. */
#ifndef NODE_SUPERVISE_H
#define NODE_SUPERVISE_H

#include <uv.h>

#include "node/config.h"

typedef struct Supervisor Supervisor;

typedef struct {
    void *ctx;
    /* A child's process ended. True: it is in a crash loop, start it again slowly. */
    bool (*ended)(void *ctx, const char *name, bool crashed);
    void (*refused)(void *ctx,
                    const char *name); /* it cannot ever work (exit 77): not started again */
} SupervisorEvents;

/* server_url and key_file must outlive it. */
Supervisor *supervisor_start(uv_loop_t *loop, const Config *config, const char *server_url,
                             const char *key_file, const SupervisorEvents *events);
void supervisor_stop(
    Supervisor *s); /* SIGTERM to all; nothing is started again. A second call hurries them */
bool supervisor_stopped(const Supervisor *s);
void supervisor_kill(Supervisor *s, const char *name,
                     int64_t pid); /* SIGKILL, when it is this child */
void supervisor_kill_all(Supervisor *s);
void supervisor_free(Supervisor *s); /* after its handles are closed; accepts NULL */

#endif
