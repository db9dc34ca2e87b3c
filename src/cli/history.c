/* headrace history: the view of finished tasks of a server that is stopped. */
#include "cli/commands.h"

#include "history/history.h"
#include "node/config.h"
#include "node/rebuild.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const Option options[] = {
    {"data", 0, "DIR", "the data directory; else $HEADRACE_DATA, else the default one", NULL},
};

static void on_progress(void *ctx, uint64_t records, uint64_t tasks)
{
    Progress *p = ctx;
    Buf b = {0};
    if (records)
        buf_printf(&b, "replaying the log: %llu records, %llu tasks", (unsigned long long)records,
                   (unsigned long long)tasks);
    else
        buf_puts(&b, "reading the old history");
    progress_status(p, buf_str(&b));
    if (p->live) progress_show(p, boot_now_ns());
    buf_done(&b);
}

static void say_loss(const RebuildReport *r)
{
    Buf when = {0};
    if (r->gone_ns) buf_put_time(&when, r->gone_ns);
    fprintf(stderr,
            "The log begins at record %llu. Tasks that had finished up to record %llu (%s) were in "
            "the old history only",
            (unsigned long long)r->from_seq, (unsigned long long)r->gone_seq, buf_z(&when));
    buf_done(&when);
    if (!r->old_there)
        fputs(", which is gone: they are lost.\n", stderr);
    else if (!r->old_readable)
        fprintf(stderr, ", which is damaged: but for the %llu that were read they are lost.\n",
                (unsigned long long)r->salvaged);
    else
        fprintf(stderr, ": of the %llu tasks that it held %llu were read.\n",
                (unsigned long long)r->old_tasks, (unsigned long long)r->salvaged);
    hint("what a backup has of them: headrace restore it elsewhere, and look there");
}

static void say_report(const RebuildReport *r)
{
    printf("new history: %llu tasks, up to record %llu\n", (unsigned long long)r->tasks,
           (unsigned long long)r->applied_seq);
    if (r->old_there)
        printf("  from the old history: %llu\n", (unsigned long long)r->salvaged);
    else
        puts("  from the old history: none, there was no file");
    printf("  from the log, records %llu to %llu: %llu tasks, %llu files\n",
           (unsigned long long)r->from_seq, (unsigned long long)r->last_seq,
           (unsigned long long)r->put, (unsigned long long)r->files);
    if (r->files_missing)
        printf("  files whose bytes are gone: %llu\n", (unsigned long long)r->files_missing);
    if (r->kept[0]) printf("the old one is kept as %s; remove it when you are content\n", r->kept);
    if (r->complete) puts("nothing is lost");
    fflush(stdout);
    if (r->log_notes.len)
        fprintf(stderr, "Passed over in the log: %.*s\n", STR_ARG(buf_str(&r->log_notes)));
    if (!r->complete) say_loss(r);
}

static int rebuild(const char *dir)
{
    Progress progress;
    progress_init(&progress, "rebuilding:", terminal()->err_tty, boot_now_ns());
    RebuildOptions o = {.data_dir = dir, .progress = on_progress, .ctx = &progress};
    RebuildReport report;
    Buf why = {0};
    int err = history_rebuild(&o, &report, &why);
    progress_done(&progress);
    int status = CLI_OK;
    if (err) {
        status = fail(CLI_FAILED, "%s", why.len ? buf_z(&why) : err_text(err));
        if (err == ERR_NOSPC) hint("it needs about as much space as the old history takes");
    } else {
        say_report(&report);
        rebuild_report_done(&report);
    }
    buf_done(&why);
    return status;
}

static int info(const char *dir)
{
    Buf path = {0}, why = {0}, b = {0};
    HistoryStats s;
    bool whole;
    buf_printf(&path, "%s/history.sqlite", dir);
    int status = CLI_OK, err = history_peek(buf_z(&path), &s, &whole, &why);
    if (err == ERR_LOCKED) {
        status = fail(CLI_FAILED, "%s is in use: a server runs on it", buf_z(&path));
        hint("a running server tells these figures at GET /metrics, headrace_history_…");
    } else if (err) {
        status = fail(CLI_FAILED, "%s", buf_z(&why));
        if (err == ERR_CORRUPT) hint("go on with: headrace history rebuild --data %s", dir);
    } else {
        buf_printf(&b, "tasks    %llu\nbytes    ", (unsigned long long)s.rows);
        buf_put_size(&b, s.bytes);
        buf_puts(&b, " in use, ");
        buf_put_size(&b, s.file_bytes);
        buf_puts(&b, " in all\noldest   ");
        if (s.oldest_finished_ns)
            buf_put_time(&b, s.oldest_finished_ns);
        else
            buf_puts(&b, "none");
        buf_printf(&b, "\napplied  up to record %llu\n", (unsigned long long)s.applied_seq);
        out_buf(&b);
        if (!whole) {
            status = fail(CLI_FAILED, "the file is damaged");
            hint("go on with: headrace history rebuild --data %s", dir);
        }
    }
    buf_done(&path);
    buf_done(&why);
    buf_done(&b);
    return status;
}

static int run(const Args *a)
{
    static const char *const verbs[] = {"rebuild", "info", NULL};
    const char *verb = a->words[0], *dir = args_text(a, "data", NULL);
    if (strcmp(verb, verbs[0]) != 0 && strcmp(verb, verbs[1]) != 0) {
        const char *near = nearest_name(str_from(verb), verbs);
        return fail(CLI_USAGE, "history takes rebuild or info, not '%s'%s%s%s", verb,
                    near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    }
    Config defaults;
    config_defaults(&defaults);
    if (!dir) dir = getenv("HEADRACE_DATA");
    if (!dir || !*dir) dir = defaults.data_dir;
    int status = !strcmp(verb, "info") ? info(dir) : rebuild(dir);
    config_done(&defaults);
    return status;
}

const Command command_history = {
    .name = "history",
    .words = "rebuild|info",
    .summary = "Look at the history of finished tasks, or make it anew",
    .about = "The server must be stopped.\n"
             "info     how many tasks the file holds, its size, the oldest, how far it goes\n"
             "rebuild  make a new file of what can be read of the old one and of what the log "
             "retains",
    .options = options,
    .options_len = ARRAY_LEN(options),
    .words_min = 1,
    .words_max = 1,
    .examples = "  headrace history info --data /var/lib/headrace\n"
                "  headrace history rebuild --data /var/lib/headrace",
    .run = run,
};
