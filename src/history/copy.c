/* copy.c: a copy of an open history, for a backup: SQLite's own online backup, whose source is our
 * one connection, so that it carries changes over instead of beginning again. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "history/inside.h"

struct HistoryCopy {
    sqlite3 *to;
    sqlite3_backup *backup;
};

int history_copy_begin(History *h, const char *path, HistoryCopy **ret)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return errno == EEXIST ? ERR_EXISTS : errno == ENOSPC ? ERR_NOSPC : ERR_IO;
    close(fd);
    HistoryCopy *c = mem_new(sizeof *c);
    int err = history_connect(path, "mode=rw", SQLITE_OPEN_READWRITE, &c->to);
    /* If it is cut off it is thrown away: neither a journal nor a sync. */
    if (!err)
        err = history_err(c->to,
                          sqlite3_exec(c->to, "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF",
                                       NULL, NULL, NULL));
    if (!err) {
        c->backup = sqlite3_backup_init(c->to, "main", h->db, "main");
        if (!c->backup) err = history_err(c->to, sqlite3_errcode(c->to));
    }
    if (err) {
        history_copy_end(c);
        return err;
    }
    *ret = c;
    return 0;
}

int history_copy_step(HistoryCopy *c, uint32_t pages, bool *ret_done)
{
    int rc = sqlite3_backup_step(c->backup, (int)pages);
    *ret_done = rc == SQLITE_DONE;
    return history_err(c->to, rc);
}

void history_copy_end(HistoryCopy *c)
{
    if (!c) return;
    if (c->backup) sqlite3_backup_finish(c->backup);
    sqlite3_close(c->to);
    mem_free(c);
}
