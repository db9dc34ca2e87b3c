/* Values as people write them: sizes, durations, addresses, scopes. Pure. */
#include "node/config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* "12", "1.5": at most 15 digits before the point and 9 behind it. *ret_rest: what follows. */
static int parse_number(Str s, double *ret, Str *ret_rest)
{
    double v = 0, unit = 1;
    size_t i = 0, digits = 0;
    for (; i < s.n && s.p[i] >= '0' && s.p[i] <= '9'; i++, digits++) v = v * 10 + (s.p[i] - '0');
    if (digits == 0 || digits > 15) return ERR_INVALID;
    if (i < s.n && s.p[i] == '.') {
        size_t first = ++i;
        for (; i < s.n && s.p[i] >= '0' && s.p[i] <= '9'; i++) {
            unit /= 10;
            v += (s.p[i] - '0') * unit;
        }
        if (i == first || i - first > 9) return ERR_INVALID;
    }
    while (i < s.n && s.p[i] == ' ') i++;
    *ret = v;
    *ret_rest = (Str){s.p + i, s.n - i};
    return 0;
}

typedef struct {
    const char *name;
    double factor;
} Unit;

static int parse_with_unit(Str s, const Unit *units, size_t units_len, double *ret)
{
    double v = 0;
    Str rest;
    int err = parse_number(s, &v, &rest);
    if (err) return err;
    for (size_t i = 0; i < units_len; i++) {
        if (!str_eqz(rest, units[i].name)) continue;
        v *= units[i].factor;
        if (v > 9e18) return ERR_LIMIT;
        *ret = v;
        return 0;
    }
    return ERR_INVALID;
}

int config_parse_size(Str s, uint64_t *ret)
{
    static const Unit units[] = {
        {"B", 1},
        {"KiB", 1024},
        {"MiB", 1048576},
        {"GiB", 1073741824},
        {"TiB", 1099511627776.0},
        {"kB", 1e3},
        {"MB", 1e6},
        {"GB", 1e9},
        {"TB", 1e12},
        {"K", 1024},
        {"k", 1024},
        {"M", 1048576},
        {"G", 1073741824},
        {"T", 1099511627776.0},
    };
    double v = 0;
    if (parse_u64(s, ret) == 0) return 0; /* bytes, exactly */
    int err = parse_with_unit(s, units, ARRAY_LEN(units), &v);
    if (err) return err;
    *ret = (uint64_t)llround(v);
    return 0;
}

int config_parse_duration(Str s, int64_t *ret_ms)
{
    static const Unit units[] = {
        {"ms", 1},     {"s", 1e3},     {"m", 60e3},       {"min", 60e3},
        {"h", 3600e3}, {"d", 86400e3}, {"days", 86400e3},
    };
    double v = 0;
    if (str_eqz(s, "0")) {
        *ret_ms = 0;
        return 0;
    }
    int err = parse_with_unit(s, units, ARRAY_LEN(units), &v);
    if (err) return err;
    *ret_ms = (int64_t)llround(v);
    return 0;
}

int config_split_listen(Str listen, Str *ret_host, uint16_t *ret_port)
{
    Str host, port;
    size_t colon = listen.n;
    while (colon > 0 && listen.p[colon - 1] != ':') colon--;
    if (colon == 0) return ERR_INVALID;
    port = (Str){listen.p + colon, listen.n - colon};
    host = (Str){listen.p, colon - 1};
    if (host.n >= 2 && host.p[0] == '[' && host.p[host.n - 1] == ']')
        host = (Str){host.p + 1, host.n - 2};
    else if (host.n && memchr(host.p, ':', host.n))
        return ERR_INVALID; /* a bare IPv6 address: where does the port begin? */
    if (host.n == 0 || host.n > 255) return ERR_INVALID;
    for (size_t i = 0; i < host.n; i++) {
        char c = host.p[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
              (c && strchr(".:-_%", c))))
            return ERR_INVALID;
    }
    uint64_t n = 0;
    if (parse_u64(port, &n) || n > 65535) return ERR_INVALID;
    *ret_host = host;
    *ret_port = (uint16_t)n;
    return 0;
}

bool config_is_loopback(Str host)
{
    if (str_eqz(host, "localhost") || str_eqz(host, "::1")) return true;
    if (!str_starts(host, STR("127."))) return false;
    for (size_t i = 0; i < host.n; i++) /* "127.evil.example" is a name, not an address */
        if (host.p[i] != '.' && (host.p[i] < '0' || host.p[i] > '9')) return false;
    return true;
}

const char *const config_scope_names[] = {"submit", "read", "operate", "admin", "worker", NULL};

int config_parse_scopes(Str s, uint32_t *ret)
{
    uint32_t scopes = 0;
    const char *p = s.p, *end = s.p + s.n;
    while (p <= end) {
        const char *comma = p < end ? memchr(p, ',', (size_t)(end - p)) : NULL;
        Str one = {p, (size_t)((comma ? comma : end) - p)};
        while (one.n && one.p[0] == ' ') one.p++, one.n--;
        while (one.n && one.p[one.n - 1] == ' ') one.n--;
        uint32_t i = 0;
        while (config_scope_names[i] && !str_eqz(one, config_scope_names[i])) i++;
        if (!config_scope_names[i]) return ERR_INVALID;
        scopes |= 1u << i;
        if (!comma) break;
        p = comma + 1;
    }
    *ret = scopes;
    return 0;
}
