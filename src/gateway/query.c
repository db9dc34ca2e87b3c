/* What requests say beside their body: query parameters, preferences, ids in paths. */
#include "gateway/internal.h"

#include <string.h>
#include <strings.h>

#define WAIT_MAX_S 60

static bool listed(const char *names, Str name)
{
    while (*names) {
        size_t n = strcspn(names, " ");
        if (n == name.n && memcmp(names, name.p, n) == 0) return true;
        names += n;
        while (*names == ' ') names++;
    }
    return false;
}

static const char *nearest(const char *names, Str name)
{
    static char copy[160];
    const char *list[16];
    size_t n = 0;
    CHECK(strlen(names) < sizeof copy);
    memcpy(copy, names, strlen(names) + 1);
    for (char *p = copy; *p && n + 1 < ARRAY_LEN(list);) {
        list[n++] = p;
        p += strcspn(p, " ");
        if (*p) *p++ = 0;
    }
    list[n] = NULL;
    return nearest_name(name, list);
}

bool query_check(Exchange *x)
{
    Str left = x->req->query, name, value;
    uint32_t n = 0;
    while (http_next_pair(&left, &name, &value)) {
        Str shown = {name.p, MIN(name.n, (size_t)60)};
        if (++n > 32) {
            problem_say(x, 400, CODE_INVALID_REQUEST, NULL,
                        "there are more than 32 query parameters");
            return false;
        }
        if (!listed(x->route->query, name)) {
            const char *near = x->route->query[0] ? nearest(x->route->query, name) : NULL;
            if (near)
                problem_say(x, 422, CODE_UNKNOWN_FIELD, near,
                            "unknown query parameter \"%.*s\"; did you mean \"%s\"?",
                            STR_ARG(shown), near);
            else
                problem_say(x, 422, CODE_UNKNOWN_FIELD, NULL,
                            "unknown query parameter \"%.*s\"; %s%s", STR_ARG(shown),
                            x->route->query[0] ? "known are: " : "this call takes none",
                            x->route->query);
            return false;
        }
        Str other, rest = left;
        while (http_next_pair(&rest, &other, &value)) {
            if (!str_eq(name, other)) continue;
            problem_say(x, 400, CODE_INVALID_REQUEST, NULL,
                        "the query parameter \"%.*s\" is given twice", STR_ARG(shown));
            return false;
        }
    }
    return true;
}

bool query_get(Exchange *x, const char *name, Str *ret)
{
    Str left = x->req->query, key, value;
    while (http_next_pair(&left, &key, &value)) {
        if (!str_eqz(key, name)) continue;
        if (!memchr(value.p, '%', value.n) && !memchr(value.p, '+', value.n)) {
            *ret = value;
            return true;
        }
        Buf *text = &x->g->text;
        size_t at = text->len;
        CHECK(text->cap - text->len >=
              value.n); /* or what was decoded before would move: see route_head */
        if (http_decode(value, true, text))
            *ret = (Str){"\xFF", 1}; /* no value that anything takes */
        else
            *ret = (Str){(char *)text->data + at, text->len - at};
        return true;
    }
    return false;
}

bool query_uint(Exchange *x, const char *name, uint64_t max, uint64_t *ret, bool *ret_given)
{
    Str s;
    *ret_given = query_get(x, name, &s);
    if (!*ret_given) return true;
    if (parse_u64(s, ret) == 0 && *ret <= max) return true;
    problem_say(x, 422, CODE_INVALID_REQUEST, name, "\"%s\" must be a whole number from 0 to %llu",
                name, (unsigned long long)max);
    return false;
}

static Str trim(Str s)
{
    while (s.n && (s.p[0] == ' ' || s.p[0] == '\t')) {
        s.p++;
        s.n--;
    }
    while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t')) s.n--;
    return s;
}

bool query_prefer_wait(Exchange *x, uint32_t *ret_s)
{
    *ret_s = 0;
    for (size_t i = 0; i < x->req->fields_len; i++) {
        const HttpField *f = &x->req->fields[i];
        if (f->name.n != 6 || strncasecmp(f->name.p, "Prefer", 6) != 0) continue;
        Str left = f->value;
        while (left.n) {
            const char *comma = memchr(left.p, ',', left.n);
            Str one = trim((Str){left.p, comma ? (size_t)(comma - left.p) : left.n});
            left = comma ? (Str){comma + 1, left.n - (size_t)(comma + 1 - left.p)}
                         : (Str){left.p, 0};
            if (one.n < 4 || strncasecmp(one.p, "wait", 4) != 0)
                continue; /* RFC 7240: unknown preferences are passed over */
            if (one.n == 4) {
                *ret_s = WAIT_MAX_S;
                continue;
            }
            Str number = trim((Str){one.p + 4, one.n - 4});
            uint64_t v;
            if (number.n < 2 || number.p[0] != '=' ||
                parse_u64(trim((Str){number.p + 1, number.n - 1}), &v) || v < 1) {
                problem_say(x, 400, CODE_INVALID_REQUEST, "Prefer",
                            "Prefer: wait=N takes whole seconds from 1 to %d; it says \"%.*s\"",
                            WAIT_MAX_S, (int)MIN(one.n, (size_t)40), one.p);
                return false;
            }
            *ret_s = (uint32_t)MIN(v, (uint64_t)WAIT_MAX_S);
        }
    }
    return true;
}

bool query_prefer_minimal(const Exchange *x)
{
    for (size_t i = 0; i < x->req->fields_len; i++) {
        const HttpField *f = &x->req->fields[i];
        static const char want[] = "return=minimal";
        if (f->name.n == 6 && strncasecmp(f->name.p, "Prefer", 6) == 0 &&
            memmem(f->value.p, f->value.n, want, sizeof want - 1))
            return true;
    }
    return false;
}

Task *query_task(Exchange *x, TaskHandler past)
{
    Task *t = NULL;
    Code code = core_find(core_of(x->g), x->params[0], auth_view(x), &t);
    if (code == CODE_OK && t) return t;
    if (code == CODE_GONE && x->g->p.past)
        past_task_by_id(x, x->params[0], past);
    else if (code == CODE_GONE)
        problem_say(
            x, 410, CODE_GONE, NULL,
            "this task ended and has left memory: its retention is over, or newer ones needed "
            "the room");
    else
        problem_say(x, 404, CODE_NOT_FOUND, NULL, "there is no task \"%.*s\"",
                    (int)MIN(x->params[0].n, (size_t)60), x->params[0].p);
    return NULL;
}

uint64_t query_task_no(Gateway *g, Str id)
{
    Task *t = NULL;
    return core_find(core_of(g), id, (Str){"", 0}, &t) == CODE_OK && t ? t->no : 0;
}
