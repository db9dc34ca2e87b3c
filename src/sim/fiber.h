/* fiber.h: a second line of execution on the one thread: the log's commits and the folds of a
 * simulated server run in one each, and take simulated time wherever they touch the disk. */
#ifndef SIM_FIBER_H
#define SIM_FIBER_H

#include "base/base.h"

typedef struct Fiber Fiber;

Fiber *fiber_new(void);
void fiber_free(Fiber *f); /* it is idle; accepts NULL */

void fiber_start(Fiber *f, void (*run)(void *ctx), void *ctx); /* it is idle; runs at once */
void fiber_resume(Fiber *f);                                   /* it has paused */
bool fiber_idle(const Fiber *f);                               /* nothing is under way */

Fiber *fiber_current(void); /* NULL: the main line */
void fiber_pause(void);     /* back to who started or resumed it */

#endif
