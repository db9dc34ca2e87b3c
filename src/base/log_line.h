/* log_line.h: what the program says to its operator, a line each on stderr. Not the task log
 * (src/log). */
#ifndef BASE_LOG_LINE_H
#define BASE_LOG_LINE_H

#include "base/types.h"

typedef enum { SAY_DEBUG, SAY_INFO, SAY_WARN, SAY_ERROR } SayLevel;
typedef enum { SAY_TEXT, SAY_JSON } SayFormat;

/* Once at the start, before threads. component: "serve", "worker"; borrowed for ever. */
void say_setup(SayLevel least, SayFormat format, const char *component);
void say(SayLevel level, const char *fmt, ...) HR_PRINTF(2, 3);

#define say_debug(...) say(SAY_DEBUG, __VA_ARGS__)
#define say_info(...)  say(SAY_INFO, __VA_ARGS__)
#define say_warn(...)  say(SAY_WARN, __VA_ARGS__)
#define say_error(...) say(SAY_ERROR, __VA_ARGS__)

#endif
