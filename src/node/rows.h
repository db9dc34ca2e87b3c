/* rows.h: settled tasks as rows of the history view: copies, so that they outlive the core's.
 * Pure but for rows_put. */
#ifndef NODE_ROWS_H
#define NODE_ROWS_H

#include "history/history.h"
#include "task/task.h"

#define ROWS_TASKS_MAX 2000 /* a pause of some ms when they leave the core */
#define ROWS_BYTES_MAX (8 * MIB)

typedef struct {
    HistoryTask row;   /* names are the core's, which never change */
    uint64_t last_seq; /* of the task when it was copied */
    size_t body_at, body_len;
} RowTask;

typedef struct {
    HistoryFile row;
    char id[32];
    size_t body_at, body_len;
} RowFile;

typedef struct {
    Buf text;         /* bodies */
    Buf tasks, files; /* of RowTask, RowFile */
    size_t tasks_len, files_len;
} Rows; /* all zeros: empty */

/* A settled task and the files that its workers wrote; its names are borrowed from c. */
void rows_add(Rows *r, const Core *c, const Task *t);
bool rows_full(const Rows *r); /* enough for one transaction */
const RowTask *rows_task(const Rows *r, size_t i);
RowFile *rows_files(Rows *r); /* files_len of them */
/* In h's open transaction. Errors as the puts. */
int rows_put(Rows *r, History *h) HR_MUST_CHECK;
/* In h's open transaction: a task's payload is deleted. body: the task from now on, encoded;
 * output: what it was. Of the files that it names those that its worker wrote go, and gone (or
 * NULL) gets their ids, NUL-terminated. ERR_NOT_FOUND: h has no such task. */
int rows_forget(History *h, uint64_t no, Str body, Str output, Buf *gone) HR_MUST_CHECK;
void rows_clear(Rows *r);
void rows_done(Rows *r);

#endif
