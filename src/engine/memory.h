/* memory.h: how much memory processes take, from /proc: what a model declares is a guess. */
#ifndef ENGINE_MEMORY_H
#define ENGINE_MEMORY_H

#include <sys/types.h>

#include "base/base.h"

/* This process's resident memory; 0: not known, or not telling (under a sanitizer). */
uint64_t memory_of_self(void);
/* A process and those below it: what each holds alone and its part of what they share. 0: not
 * known. */
uint64_t memory_of_tree(pid_t pid);
/* Gives back to the system what was freed. */
void memory_trim(void);

#endif
