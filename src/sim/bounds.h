/* bounds.h: is the disk's use bounded by live and retained state (invariant 25)? */
#ifndef SIM_BOUNDS_H
#define SIM_BOUNDS_H

#include "sim/node.h"

void bounds_check(Node *n); /* after rest: see bounds.c */

#endif
