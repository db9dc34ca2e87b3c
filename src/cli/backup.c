/* headrace backup: a live server's data as a tar file, checked while it comes. */
#include "cli/client.h"
#include "cli/commands.h"

#include "node/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const Option options[] = {
    {"output", 'o', "FILE", "write to this file; - is stdout", NULL},
    {"to", 0, "DIR", "write DIR/headrace-DATE.tar", NULL},
};

#define SHOW_EVERY_NS (200 * NS_PER_MS)

typedef struct {
    int fd;
    uint64_t bytes;
    BackupReader *reader;
    Buf why; /* it does not check, or cannot be written */
    int err;
    Progress progress;
    int64_t shown_ns;
} Taking;

static void show(Taking *t)
{
    int64_t now = boot_now_ns();
    if (!t->progress.live || now - t->shown_ns < SHOW_EVERY_NS) return;
    Buf b = {0};
    t->shown_ns = now;
    buf_put_size(&b, t->bytes);
    progress_status(&t->progress, buf_str(&b));
    progress_show(&t->progress, now);
    buf_done(&b);
}

static bool on_data(void *ctx, Str piece)
{
    Taking *t = ctx;
    t->err = backup_reader_feed(t->reader, piece, &t->why);
    while (!t->err && piece.n) {
        ssize_t n = write(t->fd, piece.p, piece.n);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            buf_printf(&t->why, "the backup cannot be written: %s", strerror(errno));
            t->err = ERR_IO;
            break;
        }
        t->bytes += (uint64_t)n;
        piece.p += n;
        piece.n -= (size_t)n;
    }
    show(t);
    return !t->err;
}

/* What the file is called; empty: stdout. */
static int find_name(const Args *a, Buf *path)
{
    const char *file = args_text(a, "output", NULL), *dir = args_text(a, "to", NULL);
    if (file && dir) return fail(CLI_USAGE, "give --output or --to, not both");
    if (file && !strcmp(file, "-")) {
        if (terminal()->out_tty)
            return fail(CLI_USAGE, "a backup is no text for a terminal: pipe it, or use -o FILE");
        return CLI_OK;
    }
    if (file) {
        buf_puts(path, file);
        return CLI_OK;
    }
    time_t s = (time_t)(wall_now_ns() / NS_PER_S);
    struct tm tm;
    char name[48];
    if (!gmtime_r(&s, &tm)) return fail(CLI_FAILED, "the clock tells no date");
    strftime(name, sizeof name, "headrace-%Y%m%dT%H%M%SZ.tar", &tm);
    if (dir) buf_printf(path, "%s/", dir);
    buf_puts(path, name);
    return CLI_OK;
}

static int take(const Client *c, Taking *t)
{
    Buf url = {0};
    HttpReply r = {0};
    const char *headers[4];
    client_headers(c, NULL, headers);
    buf_printf(&url, "%s/v1/backup", c->url);
    int err = http_stream(buf_z(&url), headers, on_data, t, &r), status = CLI_OK;
    progress_wipe(&t->progress);
    if (t->err)
        status = fail(CLI_FAILED, "%s", buf_z(&t->why));
    else if (err == ERR_CLOSED && t->bytes)
        status = fail(CLI_SERVER, "the connection broke: the backup is not whole");
    else if (err || r.status / 100 != 2)
        status = client_explain(c, err, &r);
    else if (backup_reader_end(t->reader, &t->why))
        status = fail(CLI_SERVER, "%s", buf_z(&t->why));
    http_reply_done(&r);
    buf_done(&url);
    return status;
}

/* Whole and synced before it has its name. */
static int keep(int fd, const char *part, const char *path)
{
    bool good = fsync(fd) == 0;
    good = close(fd) == 0 && good;
    if (good && rename(part, path) == 0) return CLI_OK;
    return fail(CLI_FAILED, "%s cannot be written: %s", path, strerror(errno));
}

static int run(const Args *a)
{
    Client c = {0};
    Buf path = {0}, part = {0}, size = {0};
    Taking t = {.fd = STDOUT_FILENO};
    int status = find_name(a, &path);
    if (status == CLI_OK) status = client_open(a, &c);
    if (status == CLI_OK && path.len) {
        buf_printf(&part, "%s.part", buf_z(&path));
        t.fd = open(buf_z(&part), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (t.fd < 0) status = fail(CLI_FAILED, "%s: %s", buf_z(&part), strerror(errno));
    }
    if (status == CLI_OK) {
        t.reader = backup_reader_new(-1);
        progress_init(&t.progress, "backup:", terminal()->err_tty, boot_now_ns());
        status = take(&c, &t);
        progress_done(&t.progress);
        backup_reader_free(t.reader);
    }
    if (path.len && t.fd >= 0 && t.fd != STDOUT_FILENO) {
        if (status == CLI_OK)
            status = keep(t.fd, buf_z(&part), buf_z(&path));
        else
            close(t.fd);
        if (status != CLI_OK) unlink(buf_z(&part));
    }
    if (status == CLI_OK && path.len) {
        buf_put_size(&size, t.bytes);
        fprintf(stderr, "wrote %s (%s), whole and checked\n", buf_z(&path), buf_z(&size));
    }
    buf_done(&t.why);
    buf_done(&path);
    buf_done(&part);
    buf_done(&size);
    client_done(&c);
    return status;
}

const Command command_backup = {
    .name = "backup",
    .words = "",
    .summary = "Back up a running server into a tar file",
    .about = "All that was acknowledged when it begins is in it: tasks, their history, files. Not "
             "in it\nare the configuration, API keys and models. It needs a key with the scope "
             "admin, and room\nfor a copy of the history on the server's disk meanwhile.",
    .options = options,
    .options_len = ARRAY_LEN(options),
    .client = true,
    .examples = "  headrace backup --to /mnt/backups\n"
                "  headrace backup -o - | ssh elsewhere 'cat > headrace.tar'",
    .run = run,
};
