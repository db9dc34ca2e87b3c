/* config.h: what `headrace serve` runs with: defaults, a YAML file over them, options over that.
 *
 * One table in config.c names every key: it drives parsing, errors, defaults and the generated
 * reference, so they cannot disagree. The whole file is checked before anything starts; every
 * problem is listed (up to CONFIG_PROBLEMS_MAX) with file, line, key, value and remedy. */
#ifndef NODE_CONFIG_H
#define NODE_CONFIG_H

#include "base/base.h"
#include "gateway/gateway.h"

#define CONFIG_PROBLEMS_MAX 20
#define CONFIG_FILE_MAX     (1 * MIB)

typedef struct {
    char name[64];
    uint32_t weight;     /* share of device time against other tenants; default 1 */
    uint64_t queued_max; /* 0: limits.tenant_queued_max */
} ConfigTenant;

typedef struct Config {
    char *file;      /* the file it was read from; NULL: none */
    uint32_t *lines; /* of the file, by key: inside config*.c */
    char *listen;    /* "HOST:PORT", checked; port 0 takes a free one */
    char *data_dir;  /* need not exist yet */
    char **models;   /* model repositories, in order; may be empty: then there is only `echo` */
    size_t models_len;
    char *onnxruntime; /* path of libonnxruntime.so; NULL: look in the usual places */
    bool insecure_http;
    bool accept_clock; /* an option only: go on although the clock is far behind the log */

    GatewayKey *keys;
    size_t keys_len;
    ConfigTenant *tenants;
    size_t tenants_len;

    struct {
        uint64_t body_max; /* bytes of a request's body */
        uint64_t file_max; /* bytes of one file */
        uint32_t connections_max;
        uint64_t queue_max;            /* queued tasks in all: then queue_full */
        uint64_t tenant_queued_max;    /* queued tasks of one tenant */
        uint64_t finished_max;         /* finished tasks kept in memory */
        uint64_t finished_bytes_max;   /* … and bytes of their inputs and outputs */
        uint64_t payload_memory;       /* bytes; beyond it they are spilled */
        uint64_t idempotency_keys_max; /* of one tenant */
        double submit_rate;            /* submits a second of one tenant; 0: no limit */
        uint32_t worker_losses_max;    /* leases lost without the task's fault before it fails */
    } limits;
    struct {
        uint32_t idle_ms, header_ms; /* connections */
        uint32_t lease_s, ping_s;    /* workers */
    } timeouts;
    struct {
        uint32_t file_s;            /* a client's file that no task refers to */
        uint32_t idempotency_key_s; /* from the accept, and at least until the task is terminal */
    } retention;
    struct {
        bool enabled;
        uint64_t max_size, max_tasks; /* 0: no limit */
        uint32_t max_age_s;
    } history;
    struct {
        uint64_t segment_bytes;
        SayLevel level;
        SayFormat format;
    } log;
    struct {
        uint32_t devices;      /* local worker processes, one a device; 0: remote workers only */
        uint32_t threads;      /* of each; 0: the machine's cores shared between them */
        uint64_t memory_bytes; /* of each, for models; 0: measured */
    } workers;
    struct {
        uint32_t backoff_first_ms, backoff_max_ms;
    } retry;
} Config;

/* Every key at its default. Defaults that depend on the place: data_dir is
 * $XDG_STATE_HOME/headrace, else ~/.local/state/headrace, else ./data; models is ./models when
 * that exists, else the ones installed beside the program, else none. */
void config_defaults(Config *ret);
void config_done(Config *c); /* accepts a zeroed one */

/* Defaults, then the file's keys (path NULL: defaults alone), without the checks across keys.
 * Relative paths in the file are taken from the file's folder. ERR_NOT_FOUND, ERR_IO (cannot be
 * read), ERR_LIMIT (too large), ERR_INVALID. On failure *ret is empty and why has one problem a
 * line: "headrace.yaml:12: limits.body_max: '8 apples' …". */
int config_read(const char *path, Config *ret, Buf *why) HR_MUST_CHECK;
/* The same from bytes; file names them in problems, dir (NULL: none) resolves relative paths. */
int config_parse(Str yaml, const char *file, const char *dir, Config *ret, Buf *why) HR_MUST_CHECK;
/* One key from text, over what is there: config_set(c, "listen", STR("[::1]:0"), "--listen", why).
 * A list takes one value more: models; the first call with fresh = true empties it. */
int config_set(Config *c, const char *key, Str value, bool fresh, const char *whence,
               Buf *why) HR_MUST_CHECK;
/* What must hold between keys: no open address without keys, ping < lease, … ERR_INVALID. */
int config_check(const Config *c, Buf *why) HR_MUST_CHECK;
/* config_read and config_check. */
int config_load(const char *path, Config *ret, Buf *why) HR_MUST_CHECK;

/* The reference of all keys as Markdown, from the table. */
void config_reference(Buf *ret);

/* "HOST:PORT" or "[V6]:PORT" in parts. ERR_INVALID. */
int config_split_listen(Str listen, Str *ret_host, uint16_t *ret_port) HR_MUST_CHECK;
bool config_is_loopback(Str host);

/* Text of people: "64MiB", "1.5GiB", "4096" (bytes); "500ms", "30s", "24h" (0 needs no unit). */
int config_parse_size(Str s, uint64_t *ret) HR_MUST_CHECK;
int config_parse_duration(Str s, int64_t *ret_ms) HR_MUST_CHECK;
/* "submit,read" or one of them; ERR_INVALID. */
int config_parse_scopes(Str s, uint32_t *ret) HR_MUST_CHECK;
extern const char *const config_scope_names[]; /* NULL-ended; bit i is 1 << i */

#endif
