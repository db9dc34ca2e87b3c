/* headrace restore: a new data directory from a backup. */
#include "cli/commands.h"

#include "node/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static const Option options[] = {
    {"data", 0, "DIR", "the new data directory; must not exist, or be empty", NULL},
};

#define PIECE         (256 * KIB)
#define SHOW_EVERY_NS (200 * NS_PER_MS)

static int feed_all(Restore *r, int fd, const char *name, Buf *why)
{
    Progress p;
    uint64_t bytes = 0;
    int64_t shown_ns = 0;
    int err = 0;
    uint8_t *piece = mem_grow(NULL, PIECE);
    progress_init(&p, "restore:", terminal()->err_tty, boot_now_ns());
    while (!err) {
        ssize_t n = read(fd, piece, PIECE);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            buf_printf(why, "%s cannot be read: %s", name, strerror(errno));
            err = ERR_IO;
        }
        if (n <= 0) break;
        err = restore_feed(r, (Str){(const char *)piece, (size_t)n}, why);
        bytes += (uint64_t)n;
        if (!p.live || boot_now_ns() - shown_ns < SHOW_EVERY_NS) continue;
        Buf b = {0};
        shown_ns = boot_now_ns();
        buf_put_size(&b, bytes);
        progress_status(&p, buf_str(&b));
        progress_show(&p, shown_ns);
        buf_done(&b);
    }
    progress_done(&p);
    mem_free(piece);
    return err;
}

static void say_report(const RestoreReport *r, const char *dir)
{
    Buf when = {0};
    buf_put_time(&when, r->time_ns);
    printf("restored into %s, as of %s (record %llu):\n", dir, buf_z(&when),
           (unsigned long long)r->last_seq);
    printf("  %llu queued, %llu running, %llu finished tasks in the log\n",
           (unsigned long long)r->queued, (unsigned long long)r->running,
           (unsigned long long)r->finished);
    printf("  %llu finished tasks in the history, %llu files\n", (unsigned long long)r->history,
           (unsigned long long)r->files);
    printf("Go on with: headrace serve --data %s\n", dir);
    puts("The server that was backed up must not run on: both would run the same tasks. Workers "
         "elsewhere\nneed the new server's worker.key.");
    buf_done(&when);
}

static int run(const Args *a)
{
    const char *file = a->words[0], *dir = args_text(a, "data", NULL);
    bool from_stdin = !strcmp(file, "-");
    if (!dir || !*dir) return fail(CLI_USAGE, "restore needs --data DIR, a new directory");
    int fd = from_stdin ? STDIN_FILENO : open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail(CLI_USAGE, "%s: %s", file, strerror(errno));
    Restore *r = NULL;
    RestoreReport report;
    Buf why = {0};
    int err = restore_begin(dir, &r, &why);
    if (!err) err = feed_all(r, fd, from_stdin ? "stdin" : file, &why);
    if (!err) err = restore_finish(r, &report, &why);
    restore_free(r);
    if (!from_stdin) close(fd);
    int status = CLI_OK;
    if (err) {
        status = fail(CLI_FAILED, "%s", why.len ? buf_z(&why) : err_text(err));
        if (r) hint("nothing was restored, and %s is as it was", dir);
    } else {
        say_report(&report, dir);
    }
    buf_done(&why);
    return status;
}

const Command command_restore = {
    .name = "restore",
    .words = "FILE",
    .summary = "Make a data directory from a backup",
    .about = "FILE is what headrace backup wrote; - is stdin. All of it is checked; what is "
             "damaged or not\nwhole is refused, and nothing is left behind.",
    .options = options,
    .options_len = ARRAY_LEN(options),
    .words_min = 1,
    .words_max = 1,
    .examples = "  headrace restore headrace-20261122T191530Z.tar --data /var/lib/headrace-new",
    .run = run,
};
