/* files.c: blocking transfers with patience: a server that restarts is no reason to fail a task. */
#include "worker/files.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <yyjson.h>

#include "worker/message.h"

enum { TRANSFER_TIMEOUT_MS = 60000, BACKOFF_FIRST_MS = 100, BACKOFF_MAX_MS = 3000 };

typedef struct {
    const Files *files;
    const atomic_int *stop;
    int64_t until_ns;
    int64_t backoff_ms;
} Patience;

static Patience patience_new(const Files *f, const atomic_int *stop)
{
    return (Patience){f, stop, clock_mono() + FILES_PATIENCE_NS, BACKOFF_FIRST_MS};
}

static void real_sleep(const Files *f, int64_t ns)
{
    (void)f;
    nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
}

static int real_call(const Files *f, const char *method, const char *url,
                     const char *const *headers, Str body, int64_t timeout_ms, HttpReply *ret)
{
    (void)f;
    return http_call(method, url, headers, body, timeout_ms, ret);
}

static const FilesWorld real_world = {real_call, real_sleep};

static const FilesWorld *world_of(const Files *f)
{
    return f->world ? f->world : &real_world;
}

/* Whether to try again; sleeps before it says yes. Sets err when not. */
static bool again(Patience *p, int call, HttpReply *r, Str id, EngineError *err)
{
    bool weather = call == ERR_CLOSED || call == ERR_TIMEOUT ||
                   (call == 0 && (r->status >= 500 || r->status == 429));
    if (!weather) return false;
    int64_t wait_ns = MAX(p->backoff_ms, (int64_t)MIN(r->retry_after_s, 5U) * 1000) * NS_PER_MS;
    p->backoff_ms = MIN(p->backoff_ms * 2, (int64_t)BACKOFF_MAX_MS);
    int64_t wake_ns = clock_mono() + wait_ns;
    if (wake_ns > p->until_ns) {
        engine_error_set(err, ENGINE_ERR_MODEL, true, "file %.*s could not be transferred: %s",
                         STR_ARG(id), call == 0 ? "the server is not able to" : r->error);
        return false;
    }
    while (atomic_load(p->stop) == STOP_NO && clock_mono() < wake_ns) {
        world_of(p->files)->sleep(p->files, 20 * NS_PER_MS);
    }
    if (atomic_load(p->stop) != STOP_NO) {
        engine_error_set(err, ENGINE_ERR_CANCELED, false, "stopped");
        return false;
    }
    return true;
}

/* What an answer that is no success means for the task. */
static int refused(const char *what, Str id, HttpReply *r, EngineError *err)
{
    Buf text = {0};
    problem_text(buf_str(&r->body), &text);
    int code = ERR_INVALID;
    if (r->status == 409 || r->status == 403) { /* not our lease (any more) */
        engine_error_set(err, ENGINE_ERR_CANCELED, false, "the lease does not count any more");
        code = ERR_CANCELED;
    } else {
        engine_error_set(err, ENGINE_ERR_BAD_INPUT, false, "%s %.*s: the server says %ld: %.*s",
                         what, STR_ARG(id), r->status, STR_ARG(buf_str(&text)));
    }
    buf_done(&text);
    return code;
}

/* A code for a call that did not end with 2xx; err is set already when it is weather. */
static int failed(const char *what, int call, Str id, HttpReply *r, EngineError *err)
{
    if (call == 0 && r->status < 500 && r->status != 429) return refused(what, id, r, err);
    if (call == ERR_CLOSED || call == ERR_TIMEOUT || call == 0) {
        return err->code == ENGINE_ERR_CANCELED ? ERR_CANCELED : ERR_IO;
    }
    engine_error_set(err, call == ERR_LIMIT ? ENGINE_ERR_BAD_INPUT : ENGINE_ERR_MODEL,
                     call != ERR_LIMIT, "%s %.*s: %s", what, STR_ARG(id), r->error);
    return ERR_IO;
}

static bool is_success(const HttpReply *r)
{
    return r->status >= 200 && r->status < 300;
}

/* Ids come from inputs, which are a stranger's: only what an id can hold gets into a URL or a
 * path. */
static bool is_file_id(Str id)
{
    if (!str_starts(id, STR("file_")) || id.n > 64) return false;
    for (size_t i = 0; i < id.n; i++) {
        if (!isalnum((unsigned char)id.p[i]) && id.p[i] != '_') return false;
    }
    return true;
}

static int bad_id(Str id, EngineError *err)
{
    engine_error_set(err, ENGINE_ERR_BAD_INPUT, false,
                     "'%.*s' is not the id of a file: upload it with POST /v1/files first",
                     (int)MIN(id.n, (size_t)80), id.p);
    return ERR_INVALID;
}

FileOwner file_owner(const Held *h)
{
    return (FileOwner){h->id, h->token, &h->stop};
}

static void content_url(const Files *f, const FileOwner *owner, Str id, Buf *ret)
{
    buf_printf(ret, "%s/v1/files/%.*s/content?task=%.*s&token=%llu", f->server_url, STR_ARG(id),
               STR_ARG(owner->task_id), (unsigned long long)owner->token);
}

/* The entity tag is the content's SHA-256 in hex, where the server gives one. */
static bool digest_fits(const HttpReply *r, const Sha256 *got)
{
    Sha256 want;
    if (sha256_from_hex(str_from(r->etag), &want) != 0) return true;
    return memcmp(&want, got, sizeof want) == 0;
}

static int damaged(Str id, EngineError *err)
{
    engine_error_set(err, ENGINE_ERR_MODEL, true, "file %.*s arrived damaged: its digest differs",
                     STR_ARG(id));
    return ERR_IO;
}

int files_read(const Files *f, const FileOwner *owner, Str id, Buf *ret, EngineError *err)
{
    if (!is_file_id(id)) return bad_id(id, err);
    Buf url = {0};
    content_url(f, owner, id, &url);
    const char *headers[] = {f->auth, NULL};
    Patience patience = patience_new(f, owner->stop);
    int code;
    for (;;) {
        HttpReply r;
        int call = world_of(f)->call(f, "GET", buf_z(&url), headers, (Str){0}, TRANSFER_TIMEOUT_MS,
                                     &r);
        if (call == 0 && is_success(&r)) {
            Sha256 got;
            sha256(r.body.data, r.body.len, &got);
            if (r.body.len > FILE_INPUT_MAX) {
                engine_error_set(err, ENGINE_ERR_BAD_INPUT, false,
                                 "file %.*s is over %zu MiB, which is the limit of an input",
                                 STR_ARG(id), FILE_INPUT_MAX / MIB);
                code = ERR_LIMIT;
            } else if (!digest_fits(&r, &got)) {
                code = damaged(id, err);
            } else {
                buf_put(ret, r.body.data, r.body.len);
                code = 0;
            }
            http_reply_done(&r);
            break;
        }
        bool more = again(&patience, call, &r, id, err);
        if (!more) code = failed("file", call, id, &r, err);
        http_reply_done(&r);
        if (!more) break;
    }
    buf_done(&url);
    return code;
}

static int digest_of_file(const char *path, Sha256 *ret)
{
    FILE *in = fopen(path, "rbe");
    if (in == NULL) return ERR_IO;
    Sha256Run *run = sha256_start();
    static const size_t piece = 64 * KIB;
    uint8_t *p = mem_new(piece);
    size_t n;
    while ((n = fread(p, 1, piece, in)) > 0) sha256_add(run, p, n);
    int err = ferror(in) ? ERR_IO : 0;
    sha256_end(run, ret);
    mem_free(p);
    fclose(in);
    return err;
}

static HeldFile *add_file(Held *h, Str id, char *path)
{
    HeldFile *file = mem_new(sizeof *file);
    file->id = mem_dup(id.p, id.n);
    file->path = path;
    file->next = h->files;
    h->files = file;
    return file;
}

int worker_file_path(const Files *f, Held *h, Str id, const char **ret_path, EngineError *err)
{
    if (!is_file_id(id)) return bad_id(id, err);
    for (HeldFile *at = h->files; at != NULL; at = at->next) {
        if (at->path != NULL && str_eqz(id, at->id)) {
            *ret_path = at->path;
            return 0;
        }
    }
    Buf url = {0}, path = {0};
    FileOwner owner = file_owner(h);
    content_url(f, &owner, id, &url);
    buf_printf(&path, "%s/%llu-%.*s", f->work_dir, (unsigned long long)h->token, STR_ARG(id));
    const char *headers[] = {f->auth, NULL};
    Patience patience = patience_new(f, &h->stop);
    int code;
    for (;;) {
        HttpReply r;
        int call = http_download(buf_z(&url), headers, buf_z(&path), &r);
        if (call == 0 && is_success(&r)) {
            Sha256 got;
            code = digest_of_file(buf_z(&path), &got);
            if (code != 0 || !digest_fits(&r, &got)) code = damaged(id, err);
            /* In the list also when it is damaged: it has to be removed. */
            *ret_path =
                add_file(h, code == 0 ? id : STR("damaged"), mem_dup(path.data, path.len))->path;
            http_reply_done(&r);
            break;
        }
        bool more = again(&patience, call, &r, id, err);
        if (!more) code = failed("file", call, id, &r, err);
        http_reply_done(&r);
        if (!more) break;
    }
    buf_done(&url);
    buf_done(&path);
    return code;
}

static bool stored_id(Str body, char ret[65])
{
    yyjson_doc *doc = yyjson_read(body.p, body.n, 0);
    yyjson_val *v = yyjson_obj_get(yyjson_doc_get_root(doc), "id");
    Str id = {yyjson_get_str(v), yyjson_get_len(v)};
    bool good = id.p != NULL && is_file_id(id);
    if (good) snprintf(ret, 65, "%.*s", STR_ARG(id));
    yyjson_doc_free(doc);
    return good;
}

int files_put(const Files *f, const FileOwner *owner, Str name, Str content_type, Str bytes,
              char ret_id[65], EngineError *err)
{
    Buf url = {0}, type = {0};
    buf_printf(&url, "%s/v1/files?task=%.*s&token=%llu&name=", f->server_url,
               STR_ARG(owner->task_id), (unsigned long long)owner->token);
    http_url_escape(&url, name);
    buf_printf(&type, "Content-Type: %.*s", STR_ARG(content_type));
    const char *headers[] = {buf_z(&type), f->auth, NULL};
    Patience patience = patience_new(f, owner->stop);
    int code;
    for (;;) {
        HttpReply r;
        int call = world_of(f)->call(f, "POST", buf_z(&url), headers, bytes, TRANSFER_TIMEOUT_MS,
                                     &r);
        if (call == 0 && is_success(&r)) {
            if (stored_id(buf_str(&r.body), ret_id)) {
                code = 0;
            } else {
                engine_error_set(err, ENGINE_ERR_MODEL, true, "the server gave no id for %.*s",
                                 STR_ARG(name));
                code = ERR_IO;
            }
            http_reply_done(&r);
            break;
        }
        bool more = again(&patience, call, &r, name, err);
        if (!more) {
            code = failed("output file", call, name, &r, err);
            if (code == ERR_INVALID) err->code = ENGINE_ERR_BAD_OUTPUT;
            if (call == 0 && r.status == 404) { /* the task is not known any more */
                err->code = ENGINE_ERR_CANCELED;
                code = ERR_CANCELED;
            }
        }
        http_reply_done(&r);
        if (!more) break;
    }
    buf_done(&url);
    buf_done(&type);
    return code;
}

int worker_file_store(const Files *f, Held *h, Str name, Str content_type, Str bytes,
                      const char **ret_id, EngineError *err)
{
    FileOwner owner = file_owner(h);
    char id[65];
    int code = files_put(f, &owner, name, content_type, bytes, id, err);
    if (code == 0) *ret_id = add_file(h, str_from(id), NULL)->id;
    return code;
}
