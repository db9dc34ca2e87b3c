/* headrace completion: shell completion, written from the tables of commands and options. */
#include "cli/commands.h"

#include <string.h>

/* The words a command's first argument may be: "put|get|rm FILE..." → "put get rm". */
static void put_verbs(Buf *b, const Command *c)
{
    if (!strcmp(c->name, "completion")) buf_puts(b, "bash zsh fish");
    if (!strcmp(c->name, "key")) buf_puts(b, "new");
    const char *bar = strchr(c->words, '|');
    if (!bar || c->words[0] == '[' || !strcmp(c->name, "completion")) return;
    for (const char *p = c->words; *p && *p != ' '; p++) buf_putc(b, *p == '|' ? ' ' : *p);
}

static void put_command_names(Buf *b)
{
    for (size_t i = 0; commands[i]; i++) buf_printf(b, "%s%s", i ? " " : "", commands[i]->name);
}

static void put_bash(Buf *b)
{
    buf_puts(b, "# headrace completion bash >/etc/bash_completion.d/headrace\n"
                "_headrace()\n{\n"
                "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n"
                "    local cmd=${COMP_WORDS[1]} words=\n"
                "    if [ \"$COMP_CWORD\" = 1 ]; then\n        words='");
    put_command_names(b);
    buf_puts(b, "'\n        COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n        return\n"
                "    fi\n    case $cmd:$prev in\n");
    const Option *o;
    for (size_t i = 0; commands[i]; i++)
        for (size_t k = 0; (o = command_option(commands[i], k)); k++)
            if (o->words)
                buf_printf(b,
                           "    %s:--%s) COMPREPLY=($(compgen -W '%s' -- \"$cur\")); return ;;\n",
                           commands[i]->name, o->name, o->words);
    buf_puts(b, "    help:help) COMPREPLY=($(compgen -W 'exit-codes ");
    put_command_names(b);
    buf_puts(b, "' -- \"$cur\")); return ;;\n    esac\n    case $cmd in\n");
    for (size_t i = 0; commands[i]; i++) {
        buf_printf(b, "    %s) words='", commands[i]->name);
        put_verbs(b, commands[i]);
        for (size_t k = 0; (o = command_option(commands[i], k)); k++)
            buf_printf(b, " --%s", o->name);
        buf_puts(b, "' ;;\n");
    }
    buf_puts(b, "    esac\n"
                "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
                "    [ ${#COMPREPLY[@]} -gt 0 ] || COMPREPLY=($(compgen -f -- \"$cur\"))\n"
                "}\ncomplete -o filenames -F _headrace headrace\n");
}

/* Within '…' of a shell, and without what zsh and fish take for marks. */
static void put_plain(Buf *b, const char *text)
{
    for (; *text; text++)
        if (!strchr("'[]:$`\\", *text)) buf_putc(b, *text);
}

static void put_zsh(Buf *b)
{
    buf_puts(b, "#compdef headrace\n# headrace completion zsh >\"${fpath[1]}/_headrace\"\n"
                "_headrace()\n{\n    local -a commands\n    commands=(\n");
    for (size_t i = 0; commands[i]; i++) {
        buf_printf(b, "        '%s:", commands[i]->name);
        put_plain(b, commands[i]->summary);
        buf_puts(b, "'\n");
    }
    buf_puts(b, "    )\n    if (( CURRENT == 2 )); then\n        _describe command commands\n"
                "        return\n    fi\n    case ${words[2]} in\n");
    const Option *o;
    for (size_t i = 0; commands[i]; i++) {
        Buf verbs = {0};
        put_verbs(&verbs, commands[i]);
        buf_printf(b, "    %s) shift words; (( CURRENT-- )); _arguments", commands[i]->name);
        for (size_t k = 0; (o = command_option(commands[i], k)); k++) {
            buf_printf(b, " \\\n        '--%s[", o->name);
            put_plain(b, o->help);
            buf_puts(b, "]");
            if (o->words)
                buf_printf(b, ":%s:(%s)", o->name, o->words);
            else if (o->value)
                buf_printf(b, ":%s:_files", o->name);
            buf_puts(b, "'");
        }
        if (verbs.len)
            buf_printf(b, " \\\n        '1:what:(%s)' '*:file:_files' ;;\n", buf_z(&verbs));
        else
            buf_puts(b, " \\\n        '*:file:_files' ;;\n");
        buf_done(&verbs);
    }
    buf_puts(b, "    esac\n}\n_headrace \"$@\"\n");
}

static void put_fish(Buf *b)
{
    buf_puts(b, "# headrace completion fish >~/.config/fish/completions/headrace.fish\n"
                "complete -c headrace -n __fish_use_subcommand -f\n");
    const Option *o;
    for (size_t i = 0; commands[i]; i++) {
        const Command *c = commands[i];
        Buf verbs = {0};
        buf_printf(b, "complete -c headrace -n __fish_use_subcommand -a %s -d '", c->name);
        put_plain(b, c->summary);
        buf_puts(b, "'\n");
        put_verbs(&verbs, c);
        if (verbs.len)
            buf_printf(b, "complete -c headrace -n '__fish_seen_subcommand_from %s' -a '%s'\n",
                       c->name, buf_z(&verbs));
        for (size_t k = 0; (o = command_option(c, k)); k++) {
            buf_printf(b, "complete -c headrace -n '__fish_seen_subcommand_from %s' -l %s", c->name,
                       o->name);
            if (o->letter) buf_printf(b, " -s %c", o->letter);
            if (o->words)
                buf_printf(b, " -x -a '%s'", o->words);
            else if (o->value)
                buf_puts(b, " -r");
            buf_puts(b, " -d '");
            put_plain(b, o->help);
            buf_puts(b, "'\n");
        }
        buf_done(&verbs);
    }
}

static int run(const Args *a)
{
    const char *shell = a->words[0];
    Buf b = {0};
    if (!strcmp(shell, "bash"))
        put_bash(&b);
    else if (!strcmp(shell, "zsh"))
        put_zsh(&b);
    else if (!strcmp(shell, "fish"))
        put_fish(&b);
    else
        return fail(CLI_USAGE, "completion knows bash, zsh and fish, not '%s'", shell);
    out_buf(&b);
    buf_done(&b);
    return CLI_OK;
}

const Command command_completion = {
    .name = "completion",
    .words = "bash|zsh|fish",
    .summary = "Print the completion for a shell",
    .words_min = 1,
    .words_max = 1,
    .examples = "  . <(headrace completion bash)\n"
                "  headrace completion fish >~/.config/fish/completions/headrace.fish",
    .run = run,
};
