/* POST /v1/files: a body of any length to a file, with at most a few MiB of it in memory. Pieces
 * gather on the loop's thread while the ones before are written and hashed on another; when too
 * many gather, reading stops.
 *
 *     take ──► pending ──(a job at a time)──► chunk ──► file, SHA-256
 *     the last job ──► sync, move ──► record ──► 201 */
#include "gateway/internal.h"

#include "gateway/multipart.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define JOB_MIN     (256 * KIB) /* a job for less is made only at the end */
#define PENDING_MAX (2 * MIB)

typedef struct {
    Exchange *x; /* NULL: it is gone */
    Gateway *g;
    char id[32], tenant[64], name[256], type[128];
    uint64_t owner_task, token;
    Multipart form;
    bool multipart;
    Buf pending, chunk;
    bool whole, busy, finishing, published;
    bool undo; /* of the job under way: it removes what was written. Set before it starts */
    DiskFile *file;
    int err;
    uint64_t size, written;
    Sha256Run *run;
    bool want_given;
    Sha256 want, got;
    LoopWork work;
} Upload;

static void pump(Upload *u);

/* ---- jobs ---- */

static void write_work(LoopWork *w)
{
    Upload *u = CONTAINER_OF(w, Upload, work);
    if (u->undo) {
        files_discard(u->g, u->id, u->file);
        u->file = NULL;
        return;
    }
    if (!u->file) u->err = files_create(u->g, u->id, &u->file);
    if (u->err) return;
    sha256_add(u->run, u->chunk.data, u->chunk.len);
    u->err = u->file->ops->write(u->file, u->written, u->chunk.data, u->chunk.len);
    u->written += u->chunk.len;
    if (u->err) return;
    if (!u->finishing) return;
    sha256_end(u->run, &u->got);
    u->run = NULL;
    if (u->want_given && !bytes_eq_const_time(&u->want, &u->got, sizeof u->got)) {
        u->err = ERR_INVALID;
        return;
    }
    DiskFile *f = u->file;
    u->file = NULL;
    u->err = files_publish(u->g, u->id, f);
    u->published = u->err == 0;
}

static void upload_free(Upload *u)
{
    if (u->run) sha256_end(u->run, NULL);
    u->g->transfers--;
    multipart_done(&u->form);
    buf_done(&u->pending);
    buf_done(&u->chunk);
    mem_free(u);
}

static void write_after(LoopWork *w, int status);

static void start_job(Upload *u)
{
    u->busy = true;
    u->undo = !u->x;
    u->g->jobs++;
    loop_work(u->g->loop, &u->work, write_work, write_after);
}

/* The exchange has gone or was refused: nothing of the upload stays. */
static void give_up(Upload *u)
{
    u->x = NULL;
    if (u->busy) return; /* write_after comes back here */
    if (u->published) files_unlink(u->g, u->id);
    if (u->file && !u->g->closing) {
        start_job(u);
        return;
    }
    if (u->file) files_discard(u->g, u->id, u->file);
    upload_free(u);
}

static void drop(Exchange *x)
{
    give_up(x->state);
}

static void refuse(Upload *u, const Problem *p)
{
    Exchange *x = u->x;
    x->drop = NULL;
    x->state = NULL;
    x->take = NULL;
    x->paused_in = false;
    if (!x->body_whole) x->close = true;
    give_up(u);
    problem_reply(x, p);
}

static void finish(Upload *u)
{
    Gateway *g = u->g;
    Exchange *x = u->x;
    Problem p;
    if (u->owner_task && !g->p.lease_is_live(g->p.ctx, u->owner_task, u->token)) {
        p = problem_of(409, CODE_CONFLICT, "token",
                       "the lease ended while the file was sent; drop the task");
        refuse(u, &p);
        return;
    }
    Decision d = g->p.put_file(g->p.ctx, str_from(u->id), str_from(u->tenant), u->size, &u->got,
                               str_from(u->name), str_from(u->type), u->owner_task);
    const File *f = d.code == CODE_OK ? core_file_find(core_of(g), str_from(u->id), (Str){"", 0})
                                      : NULL;
    if (!f) {
        p = problem_of_decision(&d);
        refuse(u, &p);
        return;
    }
    x->drop = NULL;
    x->state = NULL;
    x->take = NULL;
    exchange_header(x, "Location", "/v1/files/%s", f->id);
    exchange_hold(x, g->p.last_seq(g->p.ctx));
    buf_clear(&g->body);
    render_file(g, f, &g->body);
    upload_free(u);
    exchange_reply_json(x, 201);
}

static void write_after(LoopWork *w, int status)
{
    Upload *u = CONTAINER_OF(w, Upload, work);
    u->busy = false;
    u->g->jobs--;
    buf_clear(&u->chunk);
    if (!u->x || status || u->g->closing) {
        if (u->x) {
            u->x->drop = NULL;
            u->x->state = NULL;
        }
        give_up(u);
        return;
    }
    if (u->err) {
        Problem p;
        if (u->err == ERR_INVALID) {
            char hex[65];
            sha256_hex(&u->got, hex);
            p = problem_of(422, CODE_INVALID_REQUEST, "sha256",
                           "the bytes that came have the SHA-256 %s, not the one that was "
                           "announced; send them again",
                           hex);
        } else if (u->err == ERR_NOSPC) {
            p = problem_of(code_status(CODE_DISK_FULL), CODE_DISK_FULL, NULL,
                           "the disk is full; nothing was stored");
        } else {
            p = problem_of(500, CODE_INTERNAL, NULL, "the file could not be written: %s",
                           err_text(u->err));
        }
        refuse(u, &p);
        return;
    }
    if (u->finishing)
        finish(u);
    else
        pump(u);
}

/* ---- bytes ---- */

static void pump(Upload *u)
{
    Exchange *x = u->x;
    if (!u->busy && (u->whole || u->pending.len >= JOB_MIN)) {
        Buf empty = u->chunk;
        u->chunk = u->pending;
        u->pending = empty;
        u->finishing = u->whole;
        start_job(u);
    }
    bool paused = x->paused_in;
    x->paused_in = u->pending.len > PENDING_MAX;
    if (paused && !x->paused_in) server_resume_body(x); /* u may be gone after this */
}

static void put(void *ctx, Str piece)
{
    Upload *u = ctx;
    u->size += piece.n;
    if (u->size <= u->g->o.file_max) buf_put_str(&u->pending, piece);
}

static void take(Exchange *x, Str piece)
{
    Upload *u = x->state;
    Problem p;
    if (piece.n) {
        if (!u->multipart) {
            put(u, piece);
        } else if (multipart_feed(&u->form, piece)) {
            p = problem_of(422, CODE_INVALID_REQUEST, NULL, "%s", u->form.why);
            refuse(u, &p);
            return;
        }
    }
    if (u->size > u->g->o.file_max) {
        p = problem_of(413, CODE_TOO_LARGE, NULL, "the file is larger than %llu bytes",
                       (unsigned long long)u->g->o.file_max);
        refuse(u, &p);
        return;
    }
    u->whole = x->body_whole;
    if (u->whole && u->multipart) {
        if (!multipart_whole(&u->form)) {
            p = problem_of(400, CODE_INVALID_REQUEST, NULL,
                           "the form ends without its closing boundary, or holds no file");
            refuse(u, &p);
            return;
        }
        memcpy(u->type, u->form.type, sizeof u->type);
        if (!u->name[0]) memcpy(u->name, u->form.name, sizeof u->name);
    }
    pump(u);
}

/* ---- the head ---- */

static int base64_digit(char c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static bool read_base64(const char *p, size_t n, Sha256 *ret)
{
    if (n < 44 || p[43] != '=') return false;
    uint32_t bits = 0;
    size_t have = 0, out = 0;
    for (size_t i = 0; i < 43; i++) {
        int v = base64_digit(p[i]);
        if (v < 0) return false;
        bits = bits << 6 | (uint32_t)v;
        have += 6;
        if (have >= 8 && out < sizeof ret->b) {
            have -= 8;
            ret->b[out++] = (uint8_t)(bits >> have);
        }
    }
    return out == sizeof ret->b;
}

/* ?sha256=HEX, Content-Digest: sha-256=:BASE64: (RFC 9530), Digest: sha-256=BASE64 (RFC 3230). */
static bool read_digest(Exchange *x, Upload *u, Problem *p)
{
    Str s;
    if (query_get(x, "sha256", &s)) {
        if (sha256_from_hex(s, &u->want)) {
            *p = problem_of(422, CODE_INVALID_REQUEST, "sha256",
                            "\"sha256\" must be 64 hexadecimal digits");
            return false;
        }
        u->want_given = true;
        return true;
    }
    static const char *const names[] = {"Content-Digest", "Repr-Digest", "Digest"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        s = http_field(x->req, names[i]);
        if (!s.p) continue;
        const char *at = NULL;
        for (size_t k = 0; k + 8 <= s.n && !at; k++)
            if (strncasecmp(s.p + k, "sha-256=", 8) == 0) at = s.p + k + 8;
        if (at && i < 2 && at < s.p + s.n && *at == ':') at++;
        if (u->multipart || !at || !read_base64(at, (size_t)(s.p + s.n - at), &u->want)) {
            *p = problem_of(
                422, CODE_INVALID_REQUEST, names[i],
                "%s must hold sha-256=:BASE64: of a raw body; for a form use ?sha256=HEX of the "
                "file",
                names[i]);
            return false;
        }
        u->want_given = true;
        return true;
    }
    return true;
}

static bool read_owner(Exchange *x, Upload *u, Problem *p)
{
    Gateway *g = x->g;
    Str task, token;
    bool worker_only = !(x->scopes & ~(uint32_t)SCOPE_WORKER),
         has_task = query_get(x, "task", &task);
    snprintf(u->tenant, sizeof u->tenant, "%.*s", STR_ARG(x->tenant));
    if (!worker_only && !has_task) return true;
    if (!worker_only && !(x->scopes & SCOPE_WORKER)) {
        *p = problem_of(403, CODE_FORBIDDEN, "task",
                        "only a worker uploads for a task; leave \"task\" and \"token\" out");
        return false;
    }
    if (!has_task || !query_get(x, "token", &token) || parse_u64(token, &u->token)) {
        *p = problem_of(422, CODE_INVALID_REQUEST, "task",
                        "a worker's upload needs ?task=task_…&token=N of a lease it holds");
        return false;
    }
    u->owner_task = query_task_no(g, task);
    const Task *t = core_task(core_of(g), u->owner_task);
    if (!t || !g->p.lease_is_live(g->p.ctx, u->owner_task, u->token)) {
        *p = problem_of(409, CODE_CONFLICT, "token", "the lease is not live; drop the task");
        return false;
    }
    snprintf(u->tenant, sizeof u->tenant, "%.*s", STR_ARG(core_sym(core_of(g), t->tenant)));
    return true;
}

void files_post(Exchange *x)
{
    Gateway *g = x->g;
    Upload *u = mem_new(sizeof *u);
    Problem p = {0};
    Str type = http_field(x->req, "Content-Type"), name;
    u->g = g;
    u->x = x;
    u->multipart = http_media_is(type, "multipart/form-data");
    if (g->transfers++ >= g->o.transfers_max) {
        p = files_busy(g);
    } else if (query_get(x, "name", &name)) {
        file_name_clean(name, u->name);
        if (!u->name[0])
            p = problem_of(422, CODE_INVALID_REQUEST, "name",
                           "\"name\" must be a file name of at most 255 bytes");
    }
    if (!p.status && u->multipart) {
        if (multipart_init(&u->form, type))
            p = problem_of(400, CODE_INVALID_REQUEST, "Content-Type", "%s", u->form.why);
        u->form.data = put;
        u->form.ctx = u;
    } else if (!p.status && !media_type_clean(type, u->type)) {
        p = problem_of(422, CODE_INVALID_REQUEST, "Content-Type",
                       "the Content-Type is not a media type of at most 127 characters");
    }
    if (!p.status && !(x->scopes & SCOPE_WORKER)) {
        Decision d = g->p.accepting(g->p.ctx);
        if (d.code != CODE_OK) p = problem_of_decision(&d);
    }
    if (!p.status && read_digest(x, u, &p) && read_owner(x, u, &p)) {
        files_new_id(g, u->id);
        u->run = sha256_start();
        x->state = u;
        x->drop = drop;
        x->take = take;
        x->exclusive = true;
        return;
    }
    upload_free(u);
    problem_reply(x, &p);
}
