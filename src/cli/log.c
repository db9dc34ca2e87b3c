/* headrace log: what is in a data directory's log. Reads only, so a live server's will do, and so
 * will a copy. */
#include "cli/commands.h"

#include "log/log.h"
#include "task/record.h"

#include <string.h>
#include <sys/stat.h>

static const Option options[] = {
    {"limit", 'n', "N", "dump: stop printing after N frames", NULL},
};

typedef enum { MODE_INSPECT, MODE_VERIFY, MODE_DUMP } Mode;

typedef struct {
    Mode mode;
    uint64_t limit, frames, records, faults, torn;
    uint64_t by_type[256];
    int64_t first_ns, last_ns;
    uint64_t last_seq, epoch;
} Scan;

static void print_line(const char *file, uint64_t offset, Str what)
{
    Buf b = {0};
    bool coloured = terminal()->out_colour;
    buf_printf(&b, "%s%s:%llu%s ", tone_begin(coloured, TONE_DIM), file, (unsigned long long)offset,
               tone_end(coloured, TONE_DIM));
    put_clean(&b, what, false);
    buf_putc(&b, '\n');
    out_buf(&b);
    buf_done(&b);
}

static void print_record(const Frame *f, const Record *r)
{
    Buf text = {0}, clean = {0};
    const char *name = record_describe(f, r, &text);
    put_clean(&clean, buf_str(&text), false);
    printf("    %-10llu %-12s %s\n", (unsigned long long)r->seq, name, buf_z(&clean));
    buf_done(&text);
    buf_done(&clean);
}

static void walk_records(Scan *s, const Frame *f, bool print)
{
    size_t at = 0;
    uint32_t index = 0;
    Record r;
    while (frame_next_record(f, &at, &index, &r) == 1) {
        s->records++;
        s->by_type[r.type]++;
        s->last_seq = r.seq;
        if (print) print_record(f, &r);
    }
}

static void on_item(void *ctx, const char *file, uint64_t offset, const char *what,
                    const Frame *frame)
{
    Scan *s = ctx;
    bool print = s->mode == MODE_DUMP && s->frames < s->limit;
    if (!frame) {
        bool group = !strncmp(what, "group", 5);
        if (print || (s->mode == MODE_INSPECT && !group)) print_line(file, offset, str_from(what));
        return;
    }
    if (print) print_line(file, offset, str_from(what));
    s->frames++;
    if (!s->first_ns) s->first_ns = frame->time_ns;
    s->last_ns = frame->time_ns;
    s->epoch = frame->epoch;
    walk_records(s, frame, print);
}

static void on_fault(void *ctx, const char *file, uint64_t offset, bool acknowledged,
                     const char *what)
{
    Scan *s = ctx;
    bool coloured = terminal()->out_colour;
    Tone tone = acknowledged ? TONE_RED : TONE_YELLOW;
    Buf clean = {0};
    if (acknowledged)
        s->faults++;
    else
        s->torn++;
    put_clean(&clean, str_from(what), false);
    printf("%s%s%s %s:%llu %s\n", tone_begin(coloured, tone), acknowledged ? "DAMAGE" : "torn tail",
           tone_end(coloured, tone), file, (unsigned long long)offset, buf_z(&clean));
    buf_done(&clean);
}

static void print_summary(const Scan *s)
{
    Buf b = {0};
    buf_printf(&b, "%llu frames, %llu records", (unsigned long long)s->frames,
               (unsigned long long)s->records);
    if (s->frames) {
        buf_printf(&b, ", up to sequence %llu, epoch %llu\n", (unsigned long long)s->last_seq,
                   (unsigned long long)s->epoch);
        buf_puts(&b, "from ");
        buf_put_time(&b, s->first_ns);
        buf_puts(&b, " to ");
        buf_put_time(&b, s->last_ns);
    }
    buf_putc(&b, '\n');
    for (int i = 0; i < 256; i++)
        if (s->by_type[i])
            buf_printf(&b, "  %-12s %llu\n", record_type_name((uint8_t)i),
                       (unsigned long long)s->by_type[i]);
    out_buf(&b);
    buf_done(&b);
}

/* The data directory: DIR, or above it when DIR is its log folder. NULL: said. Owned. */
static char *find_data_dir(const char *dir)
{
    struct stat st;
    Buf path = {0};
    buf_printf(&path, "%s/log", dir);
    bool whole = stat(buf_z(&path), &st) == 0 && S_ISDIR(st.st_mode);
    if (!whole) {
        size_t n = strlen(dir);
        while (n > 1 && dir[n - 1] == '/') n--;
        bool inside = n >= 3 && !strncmp(dir + n - 3, "log", 3) && stat(dir, &st) == 0;
        buf_clear(&path);
        if (inside) buf_printf(&path, "%s/..", dir);
        whole = inside;
    } else {
        buf_clear(&path);
        buf_puts(&path, dir);
    }
    char *ret = whole ? mem_dup(path.data, path.len) : NULL;
    if (!ret) fail(CLI_USAGE, "%s is no data directory: it has no folder 'log'", dir);
    buf_done(&path);
    return ret;
}

static int scan_log(Scan *s, const char *dir)
{
    Disk *disk = NULL;
    int err = disk_posix_open(dir, &disk);
    if (err) return fail(CLI_FAILED, "%s: %s", dir, err_text(err));
    LogScan scan = {.ctx = s, .item = on_item, .fault = on_fault};
    err = log_scan(disk, &scan);
    disk_free(disk);
    if (s->mode != MODE_DUMP) print_summary(s);
    if (s->faults || err == ERR_CORRUPT)
        return fail(CLI_FAILED, "acknowledged data is damaged, in %llu places",
                    (unsigned long long)s->faults);
    if (err) return fail(CLI_FAILED, "%s: %s", dir, err_text(err));
    if (s->mode == MODE_VERIFY)
        puts(s->torn
                 ? "good: nothing below a synced position is damaged; the torn tail above it was "
                   "never acknowledged"
                 : "good: nothing is damaged");
    return CLI_OK;
}

static int run(const Args *a)
{
    static const char *const verbs[] = {"inspect", "verify", "dump", NULL};
    Scan s = {.limit = UINT64_MAX};
    int which = 0;
    while (verbs[which] && strcmp(a->words[0], verbs[which]) != 0) which++;
    if (!verbs[which]) {
        const char *near = nearest_name(str_from(a->words[0]), verbs);
        return fail(CLI_USAGE, "log takes inspect, verify or dump, not '%s'%s%s%s", a->words[0],
                    near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    }
    s.mode = (Mode)which;
    int status = args_u64(a, "limit", 1, UINT64_MAX, &s.limit);
    char *dir = status == CLI_OK ? find_data_dir(a->words[1]) : NULL;
    if (dir)
        status = scan_log(&s, dir);
    else if (status == CLI_OK)
        status = CLI_USAGE;
    mem_free(dir);
    return status;
}

const Command command_log = {
    .name = "log",
    .words = "inspect|verify|dump DIR",
    .summary = "Look into the log of a data directory",
    .about = "inspect  what it holds: segments, snapshots, records by kind\n"
             "verify   look for damage; exit status 1 when acknowledged data is damaged\n"
             "dump     every frame and record in words",
    .options = options,
    .options_len = ARRAY_LEN(options),
    .words_min = 2,
    .words_max = 2,
    .examples = "  headrace log verify ~/.local/state/headrace\n"
                "  headrace log dump /var/lib/headrace | grep task_01J",
    .run = run,
};
