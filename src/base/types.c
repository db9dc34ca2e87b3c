#include "base/types.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *err_text(int err)
{
    switch ((Err)err) {
    case ERR_OK:
        return "ok";
    case ERR_NOMEM:
        return "out of memory";
    case ERR_IO:
        return "input/output error";
    case ERR_NOSPC:
        return "disk full";
    case ERR_CORRUPT:
        return "corrupt data";
    case ERR_INVALID:
        return "invalid";
    case ERR_LIMIT:
        return "over a limit";
    case ERR_NOT_FOUND:
        return "not found";
    case ERR_EXISTS:
        return "exists already";
    case ERR_AGAIN:
        return "not now";
    case ERR_UNSUPPORTED:
        return "not supported by this version";
    case ERR_LOCKED:
        return "locked by another process";
    case ERR_READONLY:
        return "read-only";
    case ERR_CLOSED:
        return "closed";
    case ERR_TIMEOUT:
        return "timed out";
    case ERR_CANCELED:
        return "canceled";
    case ERR_UNKNOWN:
        return "outcome unknown";
    case ERR_PERMISSION:
        return "permission denied";
    }
    return "unknown error";
}

void check_failed(const char *cond, const char *file, int line)
{
    fprintf(stderr, "headrace: broken invariant: %s (%s:%d)\n", cond, file, line);
    fflush(stderr);
    abort();
}

void mem_failed(size_t size)
{
    fprintf(stderr, "headrace: out of memory (%zu bytes); stopping, nothing acknowledged is lost\n",
            size);
    fflush(stderr);
    abort();
}

void *mem_new(size_t size)
{
    void *p = calloc(1, size ? size : 1);
    if (!p) mem_failed(size);
    return p;
}

void *mem_grow(void *old, size_t size)
{
    void *p = realloc(old, size ? size : 1);
    if (!p) mem_failed(size);
    return p;
}

void *mem_dup(const void *src, size_t len)
{
    char *p = malloc(len + 1);
    if (!p) mem_failed(len);
    if (len) memcpy(p, src, len);
    p[len] = 0;
    return p;
}

void mem_free(void *p)
{
    free(p);
}

Str str_from(const char *z)
{
    return (Str){z ? z : "", z ? strlen(z) : 0};
}

bool str_eq(Str a, Str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool str_eqz(Str a, const char *z)
{
    return str_eq(a, str_from(z));
}

int str_cmp(Str a, Str b)
{
    size_t n = MIN(a.n, b.n);
    int d = n ? memcmp(a.p, b.p, n) : 0;
    if (d) return d;
    return a.n < b.n ? -1 : a.n > b.n;
}

bool str_starts(Str s, Str prefix)
{
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}
