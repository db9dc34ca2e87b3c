/* judge_file.h: a history of real clients, as tests/e2e/checker.py describes it, before the
 * judge. */
#ifndef SIM_JUDGE_FILE_H
#define SIM_JUDGE_FILE_H

#include "base/base.h"

/* 0: *ret_broken is the first invariant that is broken, 0 for none; said has the violations, a line
 * each, or else what was judged. ERR_NOT_FOUND, ERR_IO; ERR_INVALID: not such a history; said says
 * why, with the line. */
int judge_file(const char *path, int *ret_broken, Buf *said) HR_MUST_CHECK;

#endif
