/* Defaults, options, what must hold between keys, and the generated reference. */
#include "node/config_table.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- defaults ---- */

static bool is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static char *default_data_dir(void)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    Buf path = {0};
    if (state && state[0] == '/')
        buf_printf(&path, "%s/headrace", state);
    else if (home && home[0] == '/')
        buf_printf(&path, "%s/.local/state/headrace", home);
    else
        buf_puts(&path, "./data");
    char *ret = mem_dup(path.data, path.len);
    buf_done(&path);
    return ret;
}

/* PREFIX/share/headrace/models, when the program is PREFIX/bin/headrace; "" when it is not there.
 */
static void put_installed_models(Buf *ret)
{
    char exe[4096];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n <= 0) return;
    exe[n] = 0;
    char *slash = strrchr(exe, '/');
    if (!slash) return;
    *slash = 0;
    buf_printf(ret, "%s/../share/headrace/models", exe);
    char real[4096];
    const char *path = realpath(buf_z(ret), real);
    buf_clear(ret);
    if (path && is_dir(path)) buf_puts(ret, path);
}

void config_defaults(Config *ret)
{
    *ret = (Config){0};
    config_set_defaults(NULL, ret);
    ret->data_dir = default_data_dir();
    Buf models = {0}, why = {0};
    if (is_dir("models"))
        buf_puts(&models, "models");
    else
        put_installed_models(&models);
    if (models.len) CHECK(config_set(ret, "models", buf_str(&models), true, NULL, &why) == 0);
    buf_done(&models);
    buf_done(&why);
}

void config_done(Config *c)
{
    config_clear_models(c);
    mem_free(c->file);
    mem_free(c->lines);
    mem_free(c->listen);
    mem_free(c->data_dir);
    mem_free(c->onnxruntime);
    mem_free(c->keys);
    mem_free(c->tenants);
    *c = (Config){0};
}

/* ---- files and options ---- */

static int read_whole(const char *path, Buf *ret, Buf *why)
{
    FILE *f = fopen(path, "rbe");
    if (!f) {
        buf_printf(why, "%s: cannot be read: %s\n", path, strerror(errno));
        return errno == ENOENT ? ERR_NOT_FOUND : ERR_IO;
    }
    size_t n = 0;
    do {
        buf_reserve(ret, 64 * KIB);
        n = fread(ret->data + ret->len, 1, 64 * KIB, f);
        ret->len += n;
    } while (n && ret->len <= CONFIG_FILE_MAX);
    int err = ferror(f) ? ERR_IO : ret->len > CONFIG_FILE_MAX ? ERR_LIMIT : 0;
    if (err == ERR_IO) buf_printf(why, "%s: cannot be read: %s\n", path, strerror(errno));
    if (err == ERR_LIMIT)
        buf_printf(why, "%s: is larger than 1 MiB: is it a configuration?\n", path);
    fclose(f);
    return err;
}

int config_read(const char *path, Config *ret, Buf *why)
{
    if (!path) {
        config_defaults(ret);
        return 0;
    }
    *ret = (Config){0};
    Buf bytes = {0}, dir = {0};
    int err = read_whole(path, &bytes, why);
    const char *slash = strrchr(path, '/');
    if (slash) buf_put(&dir, path, MAX((size_t)(slash - path), 1));
    if (!err) err = config_parse(buf_str(&bytes), path, buf_z(&dir), ret, why);
    buf_done(&bytes);
    buf_done(&dir);
    return err;
}

int config_set(Config *c, const char *key, Str value, bool fresh, const char *whence, Buf *why)
{
    char section[32] = "";
    const char *dot = strchr(key, '.');
    if (dot && (size_t)(dot - key) < sizeof section) {
        memcpy(section, key, (size_t)(dot - key));
        section[dot - key] = 0;
    }
    Str name = str_from(dot ? dot + 1 : key);
    const Field *f = config_is_list_section(section) ? NULL : config_field(section, name);
    Checker k = {.file = whence, .why = why};
    if (!f || f->kind == KIND_ITEMS) {
        if (f || config_is_list_section(section))
            config_problem(&k, 0, NULL, "%s can be set in a file only", key);
        else
            config_problem_unknown(&k, 0, section, name);
        return config_problems_end(&k);
    }
    bool none = f->kind == KIND_PATHS && str_eqz(value, "[]"); /* a list as a file writes it */
    if ((fresh || none) && f->kind == KIND_PATHS) config_clear_models(c);
    if (!none) config_set_value(&k, 0, f, c, value);
    if (c->lines) c->lines[f - config_fields] = 0; /* the file no longer has the word */
    return config_problems_end(&k);
}

/* A problem of a key's value, with its line when the value came from the file. */
HR_PRINTF(5, 6)
static void unfit(Checker *k, const Config *c, const char *section, const char *name,
                  const char *fmt, ...)
{
    const Field *f = config_field(section, str_from(name));
    unsigned line = c->lines ? c->lines[f - config_fields] : 0;
    Buf text = {0};
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(&text, fmt, ap);
    va_end(ap);
    k->file = line ? c->file : NULL;
    config_problem(k, line, f, "%s", buf_z(&text));
    buf_done(&text);
}

static void check_listen(Checker *k, const Config *c)
{
    Str host;
    uint16_t port;
    if (config_split_listen(str_from(c->listen), &host, &port) || config_is_loopback(host)) return;
    if (c->keys_len == 0)
        unfit(k, c, "", "listen",
              "%s needs at least one key under keys: (headrace key new makes one), or listen on "
              "127.0.0.1",
              c->listen);
    else if (!c->insecure_http)
        unfit(k, c, "", "listen",
              "%s would take keys in clear text: listen on 127.0.0.1 behind a proxy that speaks "
              "TLS, or set insecure_http: true on a network you trust",
              c->listen);
}

static void check_paths(Checker *k, const Config *c)
{
    struct stat st;
    for (size_t i = 0; i < c->models_len; i++)
        if (!is_dir(c->models[i])) unfit(k, c, "", "models", "'%s' is no folder", c->models[i]);
    if (c->onnxruntime && stat(c->onnxruntime, &st) != 0)
        unfit(k, c, "", "onnxruntime", "'%s': %s", c->onnxruntime, strerror(errno));
    if (stat(c->data_dir, &st) == 0 && !S_ISDIR(st.st_mode))
        unfit(k, c, "", "data", "'%s' is a file, not a folder", c->data_dir);
}

int config_check(const Config *c, Buf *why)
{
    Checker k = {.why = why};
    check_listen(&k, c);
    check_paths(&k, c);
    if (c->timeouts.ping_s * 2 > c->timeouts.lease_s)
        unfit(&k, c, "timeouts", "ping",
              "%u s is more than half of timeouts.lease (%u s): a slow answer would lose the lease",
              c->timeouts.ping_s, c->timeouts.lease_s);
    if (c->retry.backoff_first_ms > c->retry.backoff_max_ms)
        unfit(&k, c, "retry", "backoff_first", "%u ms is longer than retry.backoff_max (%u ms)",
              c->retry.backoff_first_ms, c->retry.backoff_max_ms);
    for (size_t i = 0; i < c->keys_len; i++)
        for (size_t o = 0; o < i; o++)
            if (!memcmp(&c->keys[i].sha256, &c->keys[o].sha256, sizeof(Sha256)))
                unfit(&k, c, "", "keys", "'%s' and '%s' have the same sha256: they are one key",
                      c->keys[o].name, c->keys[i].name);
    return config_problems_end(&k);
}

int config_load(const char *path, Config *ret, Buf *why)
{
    int err = config_read(path, ret, why);
    if (err) return err;
    err = config_check(ret, why);
    if (err) config_done(ret);
    return err;
}

/* ---- the reference ---- */

static const char *kind_text(Kind kind)
{
    switch (kind) {
    case KIND_LISTEN:
        return "`HOST:PORT`";
    case KIND_PATH:
        return "path";
    case KIND_PATHS:
        return "list of paths";
    case KIND_BOOL:
        return "`true` or `false`";
    case KIND_U32:
    case KIND_U64:
        return "whole number";
    case KIND_RATE:
        return "number";
    case KIND_SIZE:
        return "size";
    case KIND_MS:
    case KIND_S:
        return "duration";
    case KIND_LEVEL:
    case KIND_FORMAT:
        return "word";
    case KIND_NAME:
        return "name";
    case KIND_SHA256:
        return "hexadecimal";
    case KIND_SCOPES:
        return "list of words";
    case KIND_TIME:
        return "time";
    case KIND_ITEMS:
        return "list";
    }
    return "";
}

static void put_reference_row(Buf *ret, const Field *f)
{
    bool has_range = f->max > 0;
    buf_printf(ret, "| `%s` | %s", f->name, kind_text(f->kind));
    if (has_range) {
        buf_puts(ret, ", ");
        config_put_amount(ret, f->kind, f->min);
        buf_puts(ret, " to ");
        config_put_amount(ret, f->kind, f->max);
    }
    if (f->def)
        buf_printf(ret, " | `%s` | %s |\n", f->def, f->help);
    else
        buf_printf(ret, " | %s | %s |\n", config_is_list_section(f->section) ? "required" : "",
                   f->help);
}

void config_reference(Buf *ret)
{
    buf_puts(ret, "# Configuration\n\n"
                  "`headrace serve` needs no configuration. A YAML file (`--config FILE`) sets "
                  "what follows; options\nof the command line go over it. The whole file is "
                  "checked before anything starts: `headrace serve\n--check-config --config "
                  "FILE` does only that. This page is written by `headrace serve\n"
                  "--print-config-reference`.\n\n"
                  "Sizes are written `64MiB`, `1.5GiB`, `500kB` or as bytes; durations `500ms`, "
                  "`30s`, `5m`, `24h`,\n`7d`; relative paths are taken from the file's folder.\n");
    const char *section = NULL;
    for (size_t i = 0; i < config_fields_len; i++) {
        const Field *f = &config_fields[i];
        if (f->kind == KIND_ITEMS) { /* its section follows */
            buf_printf(ret, "\n## %s\n\n%s\n", f->name, f->help);
            section = NULL;
            continue;
        }
        if (!section || strcmp(section, f->section) != 0) {
            if (!config_is_list_section(f->section))
                buf_printf(ret, "\n## %s\n", *f->section ? f->section : "At the top");
            buf_puts(ret, "\n| key | value | default | |\n| --- | --- | --- | --- |\n");
            section = f->section;
        }
        put_reference_row(ret, f);
    }
}
