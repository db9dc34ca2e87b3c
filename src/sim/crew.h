/* crew.h: a worker whose logic is our own: session.c, tasks.c, outbox.c and worker.c's ticks over
 * simulated calls, timers and devices. Used by hand.c, whose other workers are worse. */
#ifndef SIM_CREW_H
#define SIM_CREW_H

#include "sim/actors.h"

typedef struct Crew Crew;

Crew *crew_new(Sim *s, uint32_t number, const char *name, uint32_t devices);
void crew_free(Crew *c); /* accepts NULL */
void crew_die(Crew *c, int64_t back_in_ns);
void crew_pause(Crew *c, int64_t until_ns);
Peer *crew_peer(Crew *c);
const char *crew_id(const Crew *c);

#endif
