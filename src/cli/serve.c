/* headrace serve: options over the configuration, then the server. */
#include "cli/commands.h"

#include "node/config.h"
#include "node/node.h"

#include <stdlib.h>
#include <string.h>

static const Option options[] = {
    {"config", 'c', "FILE", "YAML file; else $HEADRACE_CONFIG, else none", NULL},
    {"data", 'd', "DIR", "log and files; default $XDG_STATE_HOME/headrace", NULL},
    {"models", 'm', "DIR", "model repository, may be repeated; default ./models", NULL},
    {"listen", 'l', "HOST:PORT", "default 127.0.0.1:8700; port 0 takes a free one", NULL},
    {"devices", 0, "N", "worker processes here, default 1; 0: none", NULL},
    {"log-level", 0, "LEVEL", "debug, info (default), warn or error", "debug info warn error"},
    {"set", 0, "KEY=VALUE", "any key of the configuration, as limits.body_max=16MiB", NULL},
    {"accept-clock", 0, NULL, "start although the clock is far behind the log", NULL},
    {"check-config", 0, NULL, "check the configuration and stop", NULL},
    {"print-config-reference", 0, NULL, "print every key and its default as Markdown", NULL},
};

/* Options that are keys of the configuration. */
static const struct {
    const char *option, *key;
} as_keys[] = {
    {"data", "data"},           {"models", "models"},
    {"listen", "listen"},       {"devices", "workers.devices"},
    {"log-level", "log.level"},
};

static int set_pair(Config *c, const char *pair, Buf *why)
{
    const char *eq = strchr(pair, '=');
    if (!eq) {
        buf_printf(why, "--set: '%s' should be KEY=VALUE\n", pair);
        return ERR_INVALID;
    }
    char *key = mem_dup(pair, (size_t)(eq - pair));
    int err = config_set(c, key, str_from(eq + 1), true, "--set", why);
    mem_free(key);
    return err;
}

static int apply_options(const Args *a, Config *c, Buf *why)
{
    int err = 0;
    bool first_models = true;
    for (size_t i = 0; i < a->given_len; i++) {
        const Given *g = &a->given[i];
        if (!strcmp(g->option->name, "set") && set_pair(c, g->value, why)) err = ERR_INVALID;
        for (size_t k = 0; k < ARRAY_LEN(as_keys); k++) {
            if (strcmp(g->option->name, as_keys[k].option) != 0) continue;
            Buf whence = {0};
            buf_printf(&whence, "--%s", g->option->name);
            bool fresh = !strcmp(g->option->name, "models") && first_models;
            if (fresh) first_models = false;
            if (config_set(c, as_keys[k].key, str_from(g->value), fresh, buf_z(&whence), why))
                err = ERR_INVALID;
            buf_done(&whence);
        }
    }
    return err;
}

static int bad_config(Buf *why)
{
    fail(CLI_USAGE, "the configuration has problems");
    fputs(buf_z(why), stderr);
    return CLI_USAGE;
}

static int run(const Args *a)
{
    Config c = {0};
    Buf text = {0};
    int status = CLI_OK;
    if (args_has(a, "print-config-reference")) {
        config_reference(&text);
        out_buf(&text);
        buf_done(&text);
        return CLI_OK;
    }
    const char *file = args_text(a, "config", getenv("HEADRACE_CONFIG"));
    int err = config_read(file && *file ? file : NULL, &c, &text);
    if (!err) err = apply_options(a, &c, &text);
    if (!err) err = config_check(&c, &text);
    c.accept_clock = args_has(a, "accept-clock");
    if (err)
        status = bad_config(&text);
    else if (args_has(a, "check-config"))
        puts("the configuration is good");
    else
        status = node_serve(&c);
    config_done(&c);
    buf_done(&text);
    return status;
}

const Command command_serve = {
    .name = "serve",
    .words = "",
    .summary = "Run a server, and its workers, on this machine",
    .about = "Needs no configuration: it listens on loopback, keeps its data in\n"
             "$XDG_STATE_HOME/headrace and takes models from ./models. SIGTERM or Ctrl-C lets\n"
             "running tasks finish; a second one hurries.",
    .options = options,
    .options_len = ARRAY_LEN(options),
    .examples = "  headrace serve --models examples/models\n"
                "  headrace serve --config /etc/headrace.yaml --check-config",
    .run = run,
};
