/* commands.h: the subcommands, each in the file of its name. */
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

#include "cli/cli.h"

extern const Command command_serve, command_worker, command_submit, command_get, command_wait,
    command_events, command_cancel, command_retry, command_delete, command_tasks, command_models,
    command_pause, command_resume, command_warm, command_workers, command_drain, command_cordon,
    command_uncordon, command_queues, command_files, command_show, command_log, command_history,
    command_backup, command_restore, command_bench, command_sim, command_key, command_completion,
    command_version, command_help;

#define ANY_WORDS 100000

#endif
