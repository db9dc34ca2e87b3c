/* types.h: plain types, the error codes, checks and memory. */
#ifndef BASE_TYPES_H
#define BASE_TYPES_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/param.h> /* MIN, MAX: libuv's header brings these very ones */

#define HR_MUST_CHECK        __attribute__((warn_unused_result))
#define HR_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define HR_COLD              __attribute__((cold))

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* The struct that holds `member` at `ptr`. */
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#define NS_PER_US INT64_C(1000)
#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S  INT64_C(1000000000)

#define KIB ((size_t)1024)
#define MIB (KIB * 1024)
#define GIB (MIB * 1024)

/* Weather: what can go wrong without anybody's mistake. Functions that can fail return 0 or one of
 * these (always negative), and leave their ret_ outputs untouched on failure. */
typedef enum {
    ERR_OK = 0,
    ERR_NOMEM = -1,   /* memory, or a configured bound on it */
    ERR_IO = -2,      /* the device or the kernel failed */
    ERR_NOSPC = -3,   /* the disk is full */
    ERR_CORRUPT = -4, /* data below a proven position does not check */
    ERR_INVALID = -5, /* input that breaks its format */
    ERR_LIMIT = -6,   /* input over a limit */
    ERR_NOT_FOUND = -7,
    ERR_EXISTS = -8,
    ERR_AGAIN = -9,        /* not now: full queue, nothing there yet */
    ERR_UNSUPPORTED = -10, /* a version or a feature that this build does not know */
    ERR_LOCKED = -11,      /* somebody else holds it */
    ERR_READONLY = -12,
    ERR_CLOSED = -13, /* the other end is gone */
    ERR_TIMEOUT = -14,
    ERR_CANCELED = -15,
    ERR_UNKNOWN = -16, /* the outcome is not known: it may or may not have happened */
    ERR_PERMISSION = -17,
} Err;

/* The name of a code ("disk full"), for people. Static storage. */
const char *err_text(int err);

/* A broken invariant is our mistake: say so and stop, in release builds too. */
#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (__builtin_expect(!(cond), 0)) check_failed(#cond, __FILE__, __LINE__);                 \
    } while (0)

_Noreturn HR_COLD void check_failed(const char *cond, const char *file, int line);

/* Memory. Small allocations do not fail: a process that cannot get a few bytes stops (the log makes
 * that safe). What a client's input sizes goes through buf_reserve, whose limit bounds it. */
void *mem_new(size_t size) __attribute__((malloc, returns_nonnull));         /* zeroed */
void *mem_grow(void *old, size_t size) __attribute__((returns_nonnull));     /* realloc */
void *mem_dup(const void *src, size_t len) __attribute__((returns_nonnull)); /* copy, NUL added */
void mem_free(void *p);                                                      /* accepts NULL */
_Noreturn void mem_failed(size_t size); /* says that memory is out, and ends the process */

/* Borrowed bytes, not NUL-terminated. */
typedef struct {
    const char *p;
    size_t n;
} Str;

#define STR(lit)   ((Str){(lit), sizeof(lit) - 1})
#define STR_ARG(s) (int)(s).n, (s).p /* for "%.*s" */

Str str_from(const char *z); /* borrows z; NULL gives the empty string */
bool str_eq(Str a, Str b);
bool str_eqz(Str a, const char *z);
int str_cmp(Str a, Str b); /* bytewise, as memcmp, shorter first */
bool str_starts(Str s, Str prefix);

#endif
