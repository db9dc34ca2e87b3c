#include "node/rows.h"

#include <string.h>

void rows_add(Rows *r, const Core *c, const Task *t)
{
    RowTask one = {
        .row = {.no = t->no,
                .finished_seq = t->run->settled_seq,
                .created_ns = t->created_ns,
                .finished_ns = t->run->finished_ns,
                .expires_ns = t->run->finished_ns + (int64_t)t->retention_s * NS_PER_S,
                .state = (TaskState)t->state,
                .class = (TaskClass)t->class,
                .tenant = core_sym(c, t->tenant),
                .model = core_sym(c, t->model),
                .version = core_sym(c, t->version)},
        .last_seq = task_last_seq(t),
        .body_at = r->text.len,
    };
    core_task_encode(c, t, &r->text);
    one.body_len = r->text.len - one.body_at;
    buf_put(&r->tasks, &one, sizeof one);
    r->tasks_len++;
    for (size_t i = 0; i < task_files_len(t); i++) {
        const File *f = core_file(c, t->extra->files[i]);
        if (!f || f->owner_task != t->no) continue; /* a client's, or another task's */
        RowFile file = {.row = {.no = f->no,
                                .tenant = core_sym(c, f->tenant),
                                .owner_task = t->no,
                                .size = f->size},
                        .body_at = r->text.len};
        memcpy(file.id, f->id, sizeof file.id);
        core_file_encode(c, f, &r->text);
        file.body_len = r->text.len - file.body_at;
        buf_put(&r->files, &file, sizeof file);
        r->files_len++;
    }
}

bool rows_full(const Rows *r)
{
    return r->tasks_len >= ROWS_TASKS_MAX || r->text.len >= ROWS_BYTES_MAX;
}

const RowTask *rows_task(const Rows *r, size_t i)
{
    return (const RowTask *)(const void *)r->tasks.data + i;
}

RowFile *rows_files(Rows *r)
{
    return (RowFile *)(void *)r->files.data;
}

int rows_put(Rows *r, History *h)
{
    const char *text = (const char *)r->text.data;
    int err = 0;
    for (size_t i = 0; i < r->tasks_len && !err; i++) {
        const RowTask *t = rows_task(r, i);
        HistoryTask row = t->row;
        row.body = (Str){text + t->body_at, t->body_len};
        err = history_put_task(h, &row);
    }
    RowFile *files = rows_files(r);
    for (size_t i = 0; i < r->files_len && !err; i++) {
        HistoryFile row = files[i].row;
        row.id = str_from(files[i].id);
        row.body = (Str){text + files[i].body_at, files[i].body_len};
        err = history_put_file(h, &row);
    }
    return err;
}

/* The ids of the files that a text refers to, NUL-terminated. */
static void find_files(Str text, Buf *ids)
{
    static const char mark[] = "\"file_";
    enum { ID_LEN = 31 };
    for (const char *p = text.p, *end = text.p + text.n; p < end; p++) {
        p = memmem(p, (size_t)(end - p), mark, sizeof mark - 1);
        if (!p) return;
        if (end - p < ID_LEN + 2 || p[1 + ID_LEN] != '"') continue;
        buf_put(ids, p + 1, ID_LEN);
        buf_u8(ids, 0);
    }
}

int rows_forget(History *h, uint64_t no, Str body, Str output, Buf *gone)
{
    Buf named = {0};
    int err = history_replace_body(h, no, body);
    if (!err) find_files(output, &named);
    for (size_t at = 0; at < named.len && !err;) {
        Str id = str_from((const char *)named.data + at);
        HistoryFile f;
        at += id.n + 1;
        err = history_file(h, id, STR(""), &f);
        if (!err && f.owner_task == no) {
            err = history_remove_file(h, id);
            if (!err && gone) buf_put(gone, id.p, id.n + 1);
        }
        if (err == ERR_NOT_FOUND) err = 0;
    }
    buf_done(&named);
    return err;
}

void rows_clear(Rows *r)
{
    buf_clear(&r->text);
    buf_clear(&r->tasks);
    buf_clear(&r->files);
    r->tasks_len = r->files_len = 0;
}

void rows_done(Rows *r)
{
    buf_done(&r->text);
    buf_done(&r->tasks);
    buf_done(&r->files);
}
