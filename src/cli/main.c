/* headrace: one table of subcommands. Everything a person can do with a server, and the server
 * itself, begins here. */
#include "cli/commands.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <string.h>

/* In the order of help. */
const Command *const commands[] = {
    &command_serve,
    &command_worker,
    &command_submit,
    &command_get,
    &command_wait,
    &command_events,
    &command_cancel,
    &command_retry,
    &command_delete,
    &command_tasks,
    &command_models,
    &command_pause,
    &command_resume,
    &command_warm,
    &command_workers,
    &command_drain,
    &command_cordon,
    &command_uncordon,
    &command_queues,
    &command_files,
    &command_show,
    &command_log,
    &command_history,
    &command_backup,
    &command_restore,
    &command_bench,
    &command_key,
    &command_help,
    &command_version,
    &command_completion,
    NULL,
};

static int unknown_command(const char *name)
{
    const char *names[ARRAY_LEN(commands)];
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        names[i] = commands[i] ? commands[i]->name : NULL;
    const char *near = nearest_name(str_from(name), names);
    fail(CLI_USAGE, "there is no command '%s'%s%s%s", name, near ? "; did you mean '" : "",
         near ? near : "", near ? "'?" : "");
    hint("headrace help lists them");
    return CLI_USAGE;
}

static int run_command(const Command *c, int argc, char **argv)
{
    Args a = {0};
    bool help = false;
    int status = args_parse(c, argc, argv, &a, &help);
    if (help) {
        command_print_help(c, stdout);
        status = CLI_OK;
    } else if (status == CLI_OK) {
        status = c->run(&a);
    }
    args_done(&a);
    return status;
}

/* By default free gives the top of the heap back to the kernel at every 128 KiB, and the next
 * answers fault it in again: 4 % of a busy server's time. */
static void keep_some_memory(void)
{
    (void)mallopt(M_TRIM_THRESHOLD, 8 * (int)MIB);
    (void)mallopt(M_TOP_PAD, (int)MIB);
    (void)mallopt(M_MMAP_THRESHOLD, 4 * (int)MIB);
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "help";
    keep_some_memory();
    signal(SIGPIPE, SIG_IGN); /* a reader that goes away is an error of write, not our end */
    terminal_setup();
    if (!strcmp(name, "--help") || !strcmp(name, "-h")) name = "help";
    if (!strcmp(name, "--version") || !strcmp(name, "-V")) name = "version";
    const Command *c = command_find(name);
    int status = c ? run_command(c, MAX(argc - 2, 0), argv + MIN(argc, 2)) : unknown_command(name);
    if (fflush(stdout) != 0 && errno != EPIPE && status == CLI_OK)
        status = fail(CLI_FAILED, "the output cannot be written: %m");
    return status;
}
