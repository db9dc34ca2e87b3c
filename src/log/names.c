/* names.c: which files lie in "log/", and the format of the directory around it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log/inside.h"

#define DATA_FORMAT 1

static void add_number(uint64_t **list, size_t *len, uint64_t v)
{
    *list = mem_grow(*list, (*len + 1) * sizeof **list);
    (*list)[(*len)++] = v;
}

static void add_name(char (**list)[LOG_NAME_LEN], size_t *len, const char *name)
{
    *list = mem_grow(*list, (*len + 1) * sizeof **list);
    snprintf((*list)[(*len)++], LOG_NAME_LEN, "log/%.27s", name);
}

static bool ends_in(const char *name, const char *end)
{
    size_t n = strlen(name), e = strlen(end);
    return n > e && n + sizeof "log/" <= LOG_NAME_LEN && strcmp(name + n - e, end) == 0;
}

static void sort_in(void *ctx, const char *name)
{
    LogNames *n = ctx;
    uint64_t number;
    if (segment_number(name, &number))
        add_number(&n->segments, &n->segments_len, number);
    else if (snapshot_number(name, &number))
        add_number(&n->snapshots, &n->snapshots_len, number);
    else if (ends_in(name, ".free"))
        add_name(&n->spares, &n->spares_len, name);
    else if (ends_in(name, ".tmp"))
        add_name(&n->leftovers, &n->leftovers_len, name);
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void sort(void *list, size_t len, size_t size, int (*by)(const void *, const void *))
{
    if (len) qsort(list, len, size, by);
}

int log_names(Disk *d, LogNames *ret)
{
    LogNames n = {0};
    int err = d->ops->list(d, "log", sort_in, &n);
    if (err) {
        log_names_done(&n);
        return err;
    }
    sort(n.segments, n.segments_len, sizeof *n.segments, by_number);
    sort(n.snapshots, n.snapshots_len, sizeof *n.snapshots, by_number);
    sort(n.spares, n.spares_len, sizeof *n.spares, by_name);
    sort(n.leftovers, n.leftovers_len, sizeof *n.leftovers, by_name);
    *ret = n;
    return 0;
}

void log_names_done(LogNames *n)
{
    mem_free(n->segments);
    mem_free(n->snapshots);
    mem_free(n->spares);
    mem_free(n->leftovers);
    *n = (LogNames){0};
}

static int format_make(Disk *d)
{
    char text[32];
    int n = snprintf(text, sizeof text, "headrace-data %d\n", DATA_FORMAT);
    DiskFile *f;
    int err = d->ops->open(d, "format.tmp", DISK_WRITE | DISK_CREATE, &f);
    if (err) return err;
    err = d->ops->truncate(f, 0);
    if (!err) err = d->ops->write(f, 0, text, (size_t)n);
    if (!err) err = d->ops->sync(f);
    d->ops->close(f);
    if (!err) err = d->ops->rename(d, "format.tmp", "format");
    if (!err) err = d->ops->sync_dir(d, "");
    return err;
}

int log_format_check(Disk *d, bool make, bool has_data, Buf *why)
{
    DiskFile *f;
    int err = d->ops->open(d, "format", DISK_READ, &f);
    if (err == ERR_NOT_FOUND && !has_data) return make ? format_make(d) : 0;
    if (err == ERR_NOT_FOUND) {
        buf_puts(why,
                 "format: this file is missing, but there is a log. Is this a whole copy of a data "
                 "directory? Copy the file from the original, or write \"headrace-data 1\" into it "
                 "when you know that the log is of this version.");
        return ERR_CORRUPT;
    }
    if (err) return err;
    char text[33] = {0};
    size_t n;
    err = d->ops->read(f, 0, text, sizeof text - 1, &n);
    d->ops->close(f);
    if (err) return err;
    static const char head[] = "headrace-data ";
    uint64_t format = 0;
    Str s = {text, n};
    if (s.n && s.p[s.n - 1] == '\n') s.n--;
    if (str_starts(s, STR("headrace-data ")) &&
        parse_u64((Str){s.p + sizeof head - 1, s.n - (sizeof head - 1)}, &format) != 0)
        format = 0;
    if (format == DATA_FORMAT) return 0;
    if (format > DATA_FORMAT) {
        buf_printf(why,
                   "format: the data directory has format %" PRIu64
                   "; this version of headrace knows up to %d. "
                   "Run the version that wrote it, or a newer one.",
                   format, DATA_FORMAT);
        return ERR_UNSUPPORTED;
    }
    buf_puts(
        why,
        "format: this file does not say \"headrace-data 1\". Is this a data directory of headrace? "
        "If it is, the file is damaged: restore it from a backup.");
    return ERR_CORRUPT;
}
