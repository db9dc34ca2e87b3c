/* headrace key new: a key, once, and the lines of configuration that let it in. Asks no server. */
#include "cli/commands.h"

#include "io/clock.h"
#include "node/config.h"

#include <string.h>

static const Option options[] = {
    {"name", 0, "NAME", "what it is for; default: key", NULL},
    {"tenant", 0, "TENANT", "whose tasks it makes and sees; default: default", NULL},
    {"scopes", 0, "LIST", "of submit, read, operate, admin, worker; default submit,read", NULL},
    {"expires", 0, "TIME", "as 2027-01-31T00:00:00Z; default: never", NULL},
};

/* 128 bits of chance. */
static void put_new_key(Buf *b)
{
    uint8_t chance[16];
    char text[26];
    random_secret(chance, sizeof chance);
    base32_put(text, chance);
    for (size_t i = 0; i < sizeof text; i++)
        if (text[i] >= 'A' && text[i] <= 'Z') text[i] = (char)(text[i] - 'A' + 'a');
    buf_puts(b, "hr_live_");
    buf_put(b, text, sizeof text);
}

static void put_snippet(const Args *a, const char *hash, uint32_t scopes, Buf *b)
{
    buf_printf(b, "keys:\n  - name: %s\n    sha256: %s\n    tenant: %s\n    scopes: [",
               args_text(a, "name", "key"), hash, args_text(a, "tenant", "default"));
    bool first = true;
    for (uint32_t i = 0; config_scope_names[i]; i++) {
        if (!(scopes >> i & 1)) continue;
        buf_printf(b, "%s%s", first ? "" : ", ", config_scope_names[i]);
        first = false;
    }
    buf_puts(b, "]\n");
    if (args_has(a, "expires")) buf_printf(b, "    expires: %s\n", args_text(a, "expires", ""));
}

static int run(const Args *a)
{
    Buf key = {0}, snippet = {0}, why = {0};
    Sha256 hash;
    char hex[65];
    uint32_t scopes = 0;
    Config checked = {0};
    if (strcmp(a->words[0], "new") != 0)
        return fail(CLI_USAGE, "key takes 'new', not '%s'", a->words[0]);
    const char *list = args_text(a, "scopes", "submit,read");
    if (config_parse_scopes(str_from(list), &scopes))
        return fail(CLI_USAGE, "--scopes '%s' should be some of submit,read,operate,admin,worker",
                    list);
    put_new_key(&key);
    sha256(key.data, key.len, &hash);
    sha256_hex(&hash, hex);
    put_snippet(a, hex, scopes, &snippet);
    int status = CLI_OK;
    if (config_parse(buf_str(&snippet), "the key", NULL, &checked, &why)) {
        fail(CLI_USAGE, "such a key would not be accepted");
        fputs(buf_z(&why), stderr);
        status = CLI_USAGE;
    } else {
        printf("%s\n", buf_z(&key));
        fflush(stdout);
        hint("the key is shown this once; in the server's configuration:");
        fputs(buf_z(&snippet), stderr);
    }
    config_done(&checked);
    buf_done(&key);
    buf_done(&snippet);
    buf_done(&why);
    return status;
}

const Command command_key = {
    .name = "key",
    .words = "new",
    .summary = "Make an API key, and the configuration that lets it in",
    .about = "The key goes to stdout, the lines for the configuration file to stderr. The\n"
             "server keeps only the hash, and knows the key from its next start on. Scopes:\n"
             "submit (and read single tasks), read (and search), operate (pause, warm, drain,\n"
             "cordon), admin (all, for every tenant), worker (join as one, nothing else).",
    .options = options,
    .options_len = ARRAY_LEN(options),
    .words_min = 1,
    .words_max = 1,
    .examples = "  headrace key new --name ci --tenant team-a\n"
                "  headrace key new --name gpu-17 --scopes worker >worker.key",
    .run = run,
};
