/* The table of keys, and how one value is checked and set by it. */
#include "node/config_table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the keys ---- */

#define AT(member)        offsetof(Config, member)
#define KEY_AT(member)    offsetof(GatewayKey, member)
#define TENANT_AT(member) offsetof(ConfigTenant, member)
#define U32_TOP           4294967295.0
#define DAY_S             86400.0

const Field config_fields[] = {
    {"", "listen", KIND_LISTEN, AT(listen), 0, 0, "127.0.0.1:8700",
     "Where to listen, `HOST:PORT`; an IPv6 address in brackets. Port 0 takes a free one. Any "
     "address but loopback needs `keys`."},
    {"", "data", KIND_PATH, AT(data_dir), 0, 0, NULL,
     "The data directory: log, files, keys of the own workers. Default: "
     "`$XDG_STATE_HOME/headrace`, which is `~/.local/state/headrace` when that is not set."},
    {"", "models", KIND_PATHS, AT(models), 0, 0, NULL,
     "Model repositories: folders of `NAME/VERSION/`. Default: `./models` when it exists, else "
     "the examples that were installed with the program. `[]`: only the model `echo`."},
    {"", "onnxruntime", KIND_PATH, AT(onnxruntime), 0, 0, NULL,
     "The ONNX Runtime library to load. Default: look beside the program, then in the system."},
    {"", "insecure_http", KIND_BOOL, AT(insecure_http), 0, 0, "false",
     "Take keys over plain HTTP on an address that is not loopback. For a network you trust, or "
     "behind a proxy that speaks TLS."},

    {"limits", "body_max", KIND_SIZE, AT(limits.body_max), 64 * 1024, 1073741824, "8MiB",
     "The largest body of a request (files are streamed and have their own limit)."},
    {"limits", "file_max", KIND_SIZE, AT(limits.file_max), 1024, 1099511627776.0, "1GiB",
     "The largest file."},
    {"limits", "connections_max", KIND_U32, AT(limits.connections_max), 8, 1000000, "10000",
     "Connections at a time; more are closed at once."},
    {"limits", "queue_max", KIND_U64, AT(limits.queue_max), 1, 1e9, "10000000",
     "Queued tasks in all; then a submit is answered 429 `queue_full`. A queued task takes about "
     "150 bytes of memory."},
    {"limits", "tenant_queued_max", KIND_U64, AT(limits.tenant_queued_max), 1, 1e9, "10000000",
     "Queued tasks of one tenant; then 429 `quota_exceeded`."},
    {"limits", "submit_rate", KIND_RATE, AT(limits.submit_rate), 0, 1e9, "0",
     "Submits a second of one tenant; then 429 `rate_limited`. 0: no limit."},
    {"limits", "finished_max", KIND_U64, AT(limits.finished_max), 0, 1e9, "1000000",
     "Finished tasks in memory. They wait there for the history view; more refuse submits with 503 "
     "`log_stalled`. Without a history view the oldest leave and answer 410."},
    {"limits", "finished_bytes_max", KIND_SIZE, AT(limits.finished_bytes_max), 0, 1099511627776.0,
     "1GiB", "Bytes of their inputs and outputs; likewise."},
    {"limits", "payload_memory", KIND_SIZE, AT(limits.payload_memory), 0, 17592186044416.0, "16MiB",
     "Inputs and outputs kept in memory; those of a longer backlog lie in files until they are "
     "needed."},
    {"limits", "idempotency_keys_max", KIND_U64, AT(limits.idempotency_keys_max), 0, 1e9, "5000000",
     "Idempotency keys remembered of one tenant."},
    {"limits", "worker_losses_max", KIND_U32, AT(limits.worker_losses_max), 1, 255, "20",
     "How often a task may lose its worker, through no fault of its own, before it fails with "
     "`worker_lost`."},

    {"timeouts", "idle", KIND_MS, AT(timeouts.idle_ms), 100, 3600e3, "60s",
     "A connection that says nothing for so long is closed."},
    {"timeouts", "header", KIND_MS, AT(timeouts.header_ms), 100, 600e3, "10s",
     "The head of a request must be whole by then."},
    {"timeouts", "lease", KIND_S, AT(timeouts.lease_s), 1, 3600, "30s",
     "How long a worker may be silent before its tasks are given to another one."},
    {"timeouts", "ping", KIND_S, AT(timeouts.ping_s), 1, 1800, "5s",
     "How often workers are asked whether they live; at most half of `lease`."},

    {"retention", "file", KIND_S, AT(retention.file_s), 60, 3650 * DAY_S, "7d",
     "How long an uploaded file stays when no task refers to it."},
    {"retention", "idempotency_key", KIND_S, AT(retention.idempotency_key_s), 60, 365 * DAY_S,
     "24h", "How long an Idempotency-Key is remembered; at least until its task is finished."},

    {"history", "enabled", KIND_BOOL, AT(history.enabled), 0, 0, "true",
     "Keep finished tasks in `history.sqlite` instead of memory."},
    {"history", "max_size", KIND_SIZE, AT(history.max_size), 0, 1e18, "16GiB",
     "The size of that file; beyond it the tasks that finished first go. 0: no limit."},
    {"history", "max_tasks", KIND_U64, AT(history.max_tasks), 0, 1e12, "0",
     "Tasks in it; likewise. 0: no limit."},
    {"history", "max_age", KIND_S, AT(history.max_age_s), 0, 3650 * DAY_S, "0",
     "Tasks that finished longer ago go, whatever their own retention. 0: their own decides."},

    {"log", "segment_size", KIND_SIZE, AT(log.segment_bytes), 4096, 17179869184.0, "64MiB",
     "Size of a segment file of the task log."},
    {"log", "level", KIND_LEVEL, AT(log.level), 0, 0, "info",
     "What the server says on stderr: `debug`, `info`, `warn` or `error` and above."},
    {"log", "format", KIND_FORMAT, AT(log.format), 0, 0, "text",
     "How it says it: `text` or `json`, a line each."},

    {"workers", "devices", KIND_U32, AT(workers.devices), 0, 256, "1",
     "Worker processes started here, one a device. 0: only workers that join from elsewhere."},
    {"workers", "threads", KIND_U32, AT(workers.threads), 0, 1024, "0",
     "Threads of each. 0: the machine's cores, shared between them."},
    {"workers", "memory", KIND_SIZE, AT(workers.memory_bytes), 0, 17592186044416.0, "0",
     "Memory of each for loaded models. 0: measured at start."},

    {"retry", "backoff_first", KIND_MS, AT(retry.backoff_first_ms), 0, 3600e3, "1s",
     "Wait before a failed task's second attempt; doubled with every attempt, with jitter."},
    {"retry", "backoff_max", KIND_MS, AT(retry.backoff_max_ms), 0, 86400e3, "60s",
     "The longest wait."},

    {"", "keys", KIND_ITEMS, AT(keys), 0, 0, NULL,
     "API keys. `headrace key new` makes one and prints the lines to put here. Without any, the "
     "server listens on loopback only."},
    {"keys", "name", KIND_NAME, KEY_AT(name), 0, 0, NULL, "What the key is for; unique."},
    {"keys", "sha256", KIND_SHA256, KEY_AT(sha256), 0, 0, NULL,
     "SHA-256 of the key, 64 hexadecimal digits. The key itself is not stored anywhere."},
    {"keys", "tenant", KIND_NAME, KEY_AT(tenant), 0, 0, "default",
     "Whose tasks it makes and sees."},
    {"keys", "scopes", KIND_SCOPES, KEY_AT(scopes), 0, 0, "[submit, read]",
     "What it may: `submit`, `read`, `operate` (drain, pause), `admin`, `worker` (join as one)."},
    {"keys", "expires", KIND_TIME, KEY_AT(expires_ns), 0, 0, "never",
     "When it ends, as 2027-01-31T00:00:00Z."},

    {"", "tenants", KIND_ITEMS, AT(tenants), 0, 0, NULL,
     "What is special about a tenant. Others have weight 1 and the limits above."},
    {"tenants", "name", KIND_NAME, TENANT_AT(name), 0, 0, NULL, "The tenant; unique."},
    {"tenants", "weight", KIND_U32, TENANT_AT(weight), 1, 1000, "1",
     "Its share of device time against other tenants that wait too."},
    {"tenants", "queued_max", KIND_U64, TENANT_AT(queued_max), 0, 1e9, "0",
     "Its queued tasks. 0: `limits.tenant_queued_max`."},
};

const ItemList config_item_lists[] = {
    {"keys", AT(keys_len), sizeof(GatewayKey), "a key"},
    {"tenants", AT(tenants_len), sizeof(ConfigTenant), "a tenant"},
};
_Static_assert(ARRAY_LEN(config_fields) <= 64, "config_yaml.c: a set of seen keys");

const size_t config_fields_len = ARRAY_LEN(config_fields);
const size_t config_item_lists_len = ARRAY_LEN(config_item_lists);

static const char *const level_names[] = {"debug", "info", "warn", "error", NULL};
static const char *const format_names[] = {"text", "json", NULL};

bool config_is_list_section(const char *section)
{
    for (size_t i = 0; i < config_item_lists_len; i++)
        if (!strcmp(config_item_lists[i].section, section)) return true;
    return false;
}

const Field *config_field(const char *section, Str name)
{
    for (size_t i = 0; i < config_fields_len; i++)
        if (!strcmp(config_fields[i].section, section) && str_eqz(name, config_fields[i].name))
            return &config_fields[i];
    return NULL;
}

/* ---- problems ---- */

static void put_choices(Buf *b, const char *const *names)
{
    for (int i = 0; names[i]; i++)
        buf_printf(b, "%s%s", i == 0 ? "" : names[i + 1] ? ", " : " or ", names[i]);
}

/* Values may come from anywhere and go to a terminal. */
static void put_quoted(Buf *b, Str s)
{
    buf_putc(b, '\'');
    for (size_t i = 0; i < MIN(s.n, 60); i++)
        buf_putc(b, (unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f ? '?' : s.p[i]);
    if (s.n > 60) buf_puts(b, "…");
    buf_putc(b, '\'');
}

/* Begins a problem; false: enough are listed. line 0: none. */
static bool problem_begin(Checker *k, unsigned line, const Field *f)
{
    if (++k->problems > CONFIG_PROBLEMS_MAX) return false;
    if (k->file && line)
        buf_printf(k->why, "%s:%u: ", k->file, line);
    else if (k->file)
        buf_printf(k->why, "%s: ", k->file);
    if (f) buf_printf(k->why, "%s%s%s: ", f->section, *f->section ? "." : "", f->name);
    return true;
}

void config_problem(Checker *k, unsigned line, const Field *f, const char *fmt, ...)
{
    if (!problem_begin(k, line, f)) return;
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(k->why, fmt, ap);
    va_end(ap);
    buf_putc(k->why, '\n');
}

void config_problem_value(Checker *k, unsigned line, const Field *f, Str value, const char *fmt,
                          ...)
{
    if (!problem_begin(k, line, f)) return;
    put_quoted(k->why, value);
    buf_putc(k->why, ' ');
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(k->why, fmt, ap);
    va_end(ap);
    buf_putc(k->why, '\n');
}

int config_problems_end(Checker *k)
{
    if (k->problems > CONFIG_PROBLEMS_MAX)
        buf_printf(k->why, "… and %d more\n", k->problems - CONFIG_PROBLEMS_MAX);
    return k->problems ? ERR_INVALID : 0;
}

/* The sections, then the top's keys: what may stand at the top. */
static size_t names_in(const char *section, const char *names[], size_t cap)
{
    size_t n = 0;
    for (size_t i = 0; i < config_fields_len && n + 1 < cap; i++) {
        const char *name = NULL;
        if (!strcmp(config_fields[i].section, section))
            name = config_fields[i].name;
        else if (!*section && !config_is_list_section(config_fields[i].section))
            name = config_fields[i].section;
        bool seen = false;
        for (size_t k = 0; name && k < n; k++) seen = seen || !strcmp(names[k], name);
        if (name && !seen) names[n++] = name;
    }
    names[n] = NULL;
    return n;
}

void config_problem_unknown(Checker *k, unsigned line, const char *section, Str name)
{
    const char *names[ARRAY_LEN(config_fields) + 1];
    names_in(section, names, ARRAY_LEN(names));
    if (!problem_begin(k, line, NULL)) return;
    buf_puts(k->why, "unknown key ");
    put_quoted(k->why, name);
    if (*section) buf_printf(k->why, " in %s", section);
    const char *near = nearest_name(name, names);
    if (near) {
        buf_printf(k->why, "; did you mean '%s'?\n", near);
        return;
    }
    for (size_t i = 0; i < config_fields_len; i++) { /* right name, wrong place? */
        const Field *f = &config_fields[i];
        if (!str_eqz(name, f->name) || !strcmp(f->section, section)) continue;
        buf_printf(k->why, "; it belongs %s%s\n", *f->section ? "under " : "at the top",
                   *f->section ? f->section : "");
        return;
    }
    buf_puts(k->why, "; known are ");
    put_choices(k->why, names);
    buf_putc(k->why, '\n');
}

/* ---- one value ---- */

void config_put_amount(Buf *b, Kind kind, double v)
{
    if (kind == KIND_SIZE)
        buf_put_size(b, (uint64_t)v);
    else if (kind == KIND_MS && v < 1000)
        buf_printf(b, "%g ms", v);
    else if (kind == KIND_MS && v >= 3600e3)
        buf_printf(b, "%g h", v / 3600e3);
    else if (kind == KIND_MS)
        buf_printf(b, "%g s", v / 1000);
    else if (kind == KIND_S && v >= 3600 && v < DAY_S)
        buf_printf(b, "%g h", v / 3600);
    else if (kind == KIND_S && v >= DAY_S)
        buf_printf(b, "%g days", v / DAY_S);
    else if (kind == KIND_S)
        buf_printf(b, "%g s", v);
    else
        buf_printf(b, "%.0f", v);
}

static bool in_range(Checker *k, unsigned line, const Field *f, Str value, double v)
{
    if (v >= f->min && v <= f->max) return true;
    Buf low = {0}, high = {0};
    config_put_amount(&low, f->kind, f->min);
    config_put_amount(&high, f->kind, f->max);
    config_problem_value(k, line, f, value, "is out of range: %s to %s", buf_z(&low), buf_z(&high));
    buf_done(&low);
    buf_done(&high);
    return false;
}

static char *resolve_path(const Checker *k, Str value)
{
    Buf path = {0};
    const char *home = getenv("HOME");
    if (home && str_starts(value, STR("~/"))) {
        buf_puts(&path, home);
        value.p++;
        value.n--;
    } else if (value.p[0] != '/' && k->dir && *k->dir) {
        buf_printf(&path, "%s/", k->dir);
    }
    buf_put_str(&path, value);
    char *ret = mem_dup(path.data, path.len);
    buf_done(&path);
    return ret;
}

static void replace_text(char **at, char *text /* takes */)
{
    mem_free(*at);
    *at = text;
}

/* A name that may stand in metrics, paths and headers as it is. */
static bool is_plain_name(Str s)
{
    if (s.n == 0 || s.n > 63) return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
              (c && strchr("._-", c))))
            return false;
    }
    return true;
}

static int index_of(Str s, const char *const *names)
{
    for (int i = 0; names[i]; i++)
        if (str_eqz(s, names[i])) return i;
    return -1;
}

/* Which one of these; -1 and a problem when none. */
static int choose(Checker *k, unsigned line, const Field *f, Str value, const char *const *names)
{
    int i = index_of(value, names);
    if (i >= 0) return i;
    Buf choices = {0};
    put_choices(&choices, names);
    config_problem_value(k, line, f, value, "is none of %s", buf_z(&choices));
    buf_done(&choices);
    return -1;
}

static const char *amount_hint(Kind kind)
{
    switch (kind) {
    case KIND_SIZE:
        return "is no size: write 64MiB, 1GiB or a number of bytes";
    case KIND_MS:
    case KIND_S:
        return "is no duration: write a number and a unit: 500ms, 30s, 5m, 24h, 7d";
    case KIND_RATE:
        return "is no rate: write a number a second, such as 50 or 0.5";
    default:
        return "is no whole number";
    }
}

static bool read_amount(Kind kind, Str value, double *ret)
{
    uint64_t n = 0;
    int64_t ms = 0;
    switch (kind) {
    case KIND_SIZE:
        if (config_parse_size(value, &n)) return false;
        *ret = (double)n;
        return true;
    case KIND_MS:
    case KIND_S:
        if (config_parse_duration(value, &ms)) return false;
        *ret = kind == KIND_S ? (double)ms / 1000 : (double)ms;
        return true;
    case KIND_RATE: {
        char z[32], *end;
        if (value.n == 0 || value.n >= sizeof z || value.p[0] < '0' || value.p[0] > '9')
            return false;
        memcpy(z, value.p, value.n);
        z[value.n] = 0;
        *ret = strtod(z, &end);
        return *end == 0 && isfinite(*ret);
    }
    default:
        if (parse_u64(value, &n)) return false;
        *ret = (double)n;
        return true;
    }
}

static void set_amount(Checker *k, unsigned line, const Field *f, void *at, Str value)
{
    double v = 0;
    if (!read_amount(f->kind, value, &v)) {
        config_problem_value(k, line, f, value, "%s", amount_hint(f->kind));
        return;
    }
    if (!in_range(k, line, f, value, v)) return;
    if (f->kind == KIND_S && v != floor(v)) {
        config_problem_value(k, line, f, value, "is not a whole number of seconds");
        return;
    }
    if (f->kind == KIND_RATE)
        *(double *)at = v;
    else if (f->kind == KIND_SIZE || f->kind == KIND_U64)
        *(uint64_t *)at = (uint64_t)v;
    else
        *(uint32_t *)at = (uint32_t)v;
}

static void set_listen(Checker *k, unsigned line, const Field *f, char **at, Str value)
{
    Str host;
    uint16_t port;
    if (config_split_listen(value, &host, &port)) {
        bool no_port = !memchr(value.p, ':', value.n);
        config_problem_value(k, line, f, value,
                             "is no HOST:PORT%s: write 127.0.0.1:8700 or [::1]:8700",
                             no_port ? " (the port is missing)" : "");
        return;
    }
    replace_text(at, mem_dup(value.p, value.n));
}

static void set_name(Checker *k, unsigned line, const Field *f, char at[64], Str value)
{
    if (!is_plain_name(value)) {
        config_problem_value(k, line, f, value,
                             "is no name: 1 to 63 letters, digits, '.', '_' or '-'");
        return;
    }
    memcpy(at, value.p, value.n);
    at[value.n] = 0;
}

static void set_scope(Checker *k, unsigned line, const Field *f, uint32_t *at, Str value)
{
    uint32_t scopes = 0;
    if (config_parse_scopes(value, &scopes) == 0) {
        *at |= scopes;
        return;
    }
    const char *near = nearest_name(value, config_scope_names);
    Buf choices = {0};
    put_choices(&choices, config_scope_names);
    if (near)
        config_problem_value(k, line, f, value, "is no scope; did you mean '%s'?", near);
    else
        config_problem_value(k, line, f, value, "is no scope: %s", buf_z(&choices));
    buf_done(&choices);
}

static void add_path(const Checker *k, char ***at, size_t *len, Str value)
{
    *at = mem_grow(*at, (*len + 1) * sizeof **at);
    (*at)[(*len)++] = resolve_path(k, value);
}

/* Sets one key from a scalar. c: the Config, or the list's item. */
void config_set_value(Checker *k, unsigned line, const Field *f, void *c, Str value)
{
    void *at = (char *)c + f->at;
    int i;
    bool optional = f->kind == KIND_TIME || f->kind == KIND_BOOL;
    if (value.n == 0 || (!optional && (str_eqz(value, "~") || str_eqz(value, "null")))) {
        config_problem(k, line, f, "has no value: write one, or remove the line%s%s",
                       f->def ? "; the default is " : "", f->def ? f->def : "");
        return;
    }
    if (memchr(value.p, 0, value.n)) {
        config_problem(k, line, f, "a zero byte in the value");
        return;
    }
    switch (f->kind) {
    case KIND_LISTEN:
        set_listen(k, line, f, at, value);
        break;
    case KIND_PATH:
        replace_text(at, resolve_path(k, value));
        break;
    case KIND_PATHS:
        add_path(k, at, (size_t *)(void *)((char *)c + AT(models_len)), value);
        break;
    case KIND_BOOL:
        if (str_eqz(value, "true") || str_eqz(value, "false"))
            *(bool *)at = value.p[0] == 't';
        else
            config_problem_value(k, line, f, value, "is neither true nor false");
        break;
    case KIND_U32:
    case KIND_U64:
    case KIND_RATE:
    case KIND_SIZE:
    case KIND_MS:
    case KIND_S:
        set_amount(k, line, f, at, value);
        break;
    case KIND_LEVEL:
        if ((i = choose(k, line, f, value, level_names)) >= 0) *(SayLevel *)at = (SayLevel)i;
        break;
    case KIND_FORMAT:
        if ((i = choose(k, line, f, value, format_names)) >= 0) *(SayFormat *)at = (SayFormat)i;
        break;
    case KIND_NAME:
        set_name(k, line, f, at, value);
        break;
    case KIND_SHA256:
        if (sha256_from_hex(value, at))
            config_problem_value(k, line, f, value,
                                 "is not 64 hexadecimal digits: headrace key new prints them");
        break;
    case KIND_SCOPES:
        set_scope(k, line, f, at, value);
        break;
    case KIND_TIME:
        if (str_eqz(value, "never"))
            *(int64_t *)at = 0;
        else if (parse_time(value, at))
            config_problem_value(k, line, f, value,
                                 "is no time: write 2027-01-31T00:00:00Z or never");
        break;
    case KIND_ITEMS:
        config_problem(k, line, f, "is a list of mappings");
        break;
    }
}

void config_clear_models(Config *c)
{
    for (size_t i = 0; i < c->models_len; i++) mem_free(c->models[i]);
    mem_free(c->models);
    c->models = NULL;
    c->models_len = 0;
}

void config_set_defaults(const char *list_section, void *base)
{
    Buf why = {0};
    Checker k = {.why = &why};
    for (size_t i = 0; i < config_fields_len; i++) {
        const Field *f = &config_fields[i];
        bool wanted = list_section ? !strcmp(f->section, list_section)
                                   : !config_is_list_section(f->section);
        if (!wanted || !f->def) continue;
        Str def = str_from(f->def);
        if (def.p[0] == '[') def = (Str){def.p + 1, def.n - 2};
        config_set_value(&k, 0, f, base, def);
    }
    CHECK(k.problems == 0); /* the table's own defaults are valid */
    buf_done(&why);
}
