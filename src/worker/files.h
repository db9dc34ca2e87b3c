/* files.h: input files come in, output files go out, by blocking calls that are tried again until
 * the server answers or the task is stopped. Any thread but the main one. */
#ifndef WORKER_FILES_H
#define WORKER_FILES_H

#include "io/http_client.h"
#include "worker/held.h"

typedef struct Files Files;

typedef struct { /* where transfers of bytes in memory meet the world: as http_call, nanosleep */
    int (*call)(const Files *f, const char *method, const char *url, const char *const *headers,
                Str body, int64_t timeout_ms, HttpReply *ret);
    void (*sleep)(const Files *f, int64_t ns);
} FilesWorld;

struct Files {
    char *server_url; /* without a slash at the end */
    char *auth;       /* "Authorization: Bearer …"; "" without a key */
    char *work_dir;
    const FilesWorld *world; /* NULL: the real one */
};

#define FILE_INPUT_MAX (8 * MIB) /* of an input that is one file: what a request's body may be */

/* Each gives up when *stop is no longer STOP_NO (ENGINE_ERR_CANCELED), or after FILES_PATIENCE.
 * err is filled on failure, which is ERR_INVALID (the server refuses), ERR_CANCELED (stopped, or
 * the lease does not count any more) or ERR_IO. */
#define FILES_PATIENCE_NS (120 * NS_PER_S)

/* The task on whose lease a transfer stands. */
typedef struct {
    Str task_id;
    uint64_t token;
    const atomic_int *stop;
} FileOwner;
FileOwner file_owner(const Held *h);

/* The content, appended to ret (at most FILE_INPUT_MAX). */
int files_read(const Files *f, const FileOwner *owner, Str id, Buf *ret,
               EngineError *err) HR_MUST_CHECK;
/* The content as a local file, once a task: the path is valid until held_free. */
int worker_file_path(const Files *f, Held *h, Str id, const char **ret_path,
                     EngineError *err) HR_MUST_CHECK;
/* Stores bytes as a file of the task. */
int files_put(const Files *f, const FileOwner *owner, Str name, Str content_type, Str bytes,
              char ret_id[65], EngineError *err) HR_MUST_CHECK;
/* The same for h, by the thread that owns it; ret_id lives as long as h. */
int worker_file_store(const Files *f, Held *h, Str name, Str content_type, Str bytes,
                      const char **ret_id, EngineError *err) HR_MUST_CHECK;

#endif
