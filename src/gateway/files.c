/* File contents: DATA/files/<id>, written under files/tmp and moved there when whole and synced,
 * before the record exists. A content is unlinked only once the record of its end is durable. What
 * blocks runs on the loop's threads; the disk below is the real one, or the simulator's. */
#include "gateway/internal.h"

#include "gateway/multipart.h"
#include "io/clock.h"

#include <stdio.h>
#include <string.h>

#define PIECE (256 * KIB)
/* a content without a record is a crash between the two: younger ones may be under way */
#define ORPHAN_NS   (86400 * NS_PER_S)
#define FILE_ID_LEN 31

struct Gone {
    List link;
    uint64_t seq;
    Gateway *g;
    LoopWork work;
    char id[32];
};

typedef struct { /* a running task that refers to files */
    TableNode node;
    uint64_t task_no;
} Leased;

/* ---- places ---- */

static void tmp_name(const char *id, char ret[64])
{
    snprintf(ret, 64, "tmp/%s", id);
}

void files_new_id(const Gateway *g, char ret[32])
{
    uint8_t b[16];
    uint64_t ms = (uint64_t)(now_of(g) / NS_PER_MS);
    for (int i = 0; i < 6; i++) b[i] = (uint8_t)(ms >> (40 - 8 * i));
    random_secret(b + 6, 10);
    memcpy(ret, "file_", 5);
    base32_put(ret + 5, b);
    ret[FILE_ID_LEN] = 0;
}

int files_publish(const Gateway *g, const char *id, DiskFile *f)
{
    Disk *d = g->files;
    char from[64];
    tmp_name(id, from);
    int err = f->ops->sync(f);
    f->ops->close(f);
    if (!err) err = d->ops->rename(d, from, id);
    if (!err) err = d->ops->sync_dir(d, "");
    if (err) {
        (void)d->ops->unlink(d, from);
        (void)d->ops->unlink(d, id);
    }
    return err;
}

int files_create(const Gateway *g, const char *id, DiskFile **ret)
{
    char name[64];
    tmp_name(id, name);
    return g->files->ops->open(g->files, name, DISK_WRITE | DISK_CREATE | DISK_EXCLUSIVE, ret);
}

void files_discard(const Gateway *g, const char *id, DiskFile *f)
{
    char name[64];
    tmp_name(id, name);
    f->ops->close(f);
    (void)g->files->ops->unlink(g->files, name);
}

void files_unlink(const Gateway *g, const char *id)
{
    (void)g->files->ops->unlink(g->files, id); /* when it fails, a later start finds an orphan */
}

int files_store(const Gateway *g, const char *id, Str bytes)
{
    DiskFile *f;
    int err = files_create(g, id, &f);
    if (err) return err;
    err = f->ops->write(f, 0, bytes.p, bytes.n);
    if (!err) return files_publish(g, id, f);
    files_discard(g, id, f);
    return err;
}

/* ---- start ---- */

static void add_name(void *ctx, const char *name)
{
    if (strncmp(name, "file_", 5) == 0 && strlen(name) == FILE_ID_LEN)
        buf_put(ctx, name, FILE_ID_LEN + 1);
}

static void each_name(Gateway *g, const char *dir, void (*each)(Gateway *g, const char *name))
{
    Buf names = {0}; /* a copy: each of them may change the folder */
    (void)g->files->ops->list(g->files, dir, add_name, &names);
    for (size_t at = 0; at < names.len; at += FILE_ID_LEN + 1)
        each(g, (const char *)names.data + at);
    buf_done(&names);
}

static void remove_tmp(Gateway *g, const char *id)
{
    char name[64];
    tmp_name(id, name);
    (void)g->files->ops->unlink(g->files, name);
}

/* When it was made: an id begins with the time of the shard that gave it. */
static int64_t made_ns(const char *id)
{
    uint8_t b[16];
    int64_t ms = 0;
    if (base32_get(str_from(id + 5), b)) return INT64_MAX; /* none of ours */
    for (int i = 0; i < 6; i++) ms = ms << 8 | b[i];
    return ms * NS_PER_MS;
}

static void remove_orphan(Gateway *g, const char *id)
{
    if (core_file_find(core_of(g), str_from(id), (Str){"", 0})) return;
    if (g->p.past_file_is_known && g->p.past_file_is_known(g->p.ctx, str_from(id))) return;
    if (made_ns(id) < now_of(g) - ORPHAN_NS) files_unlink(g, id);
}

static void lease_files(Gateway *g, const Task *t)
{
    if (!task_files_len(t) && !(t->extra && t->extra->checkpoint_file)) return;
    Leased *l = mem_new(sizeof *l);
    l->task_no = t->no;
    table_add(&g->leased, &l->node, hash_u64(t->no));
}

/* The folder's own name, too: without it, what is synced in it goes with a power cut. */
static int sync_above(const char *dir)
{
    Buf up = {0};
    Disk *d;
    buf_printf(&up, "%s/..", dir);
    int err = disk_posix_open(buf_z(&up), &d);
    if (!err) {
        err = d->ops->sync_dir(d, "");
        disk_free(d);
    }
    buf_done(&up);
    return err;
}

int files_open(Gateway *g, Buf *why)
{
    int err = 0;
    g->files = g->o.files;
    if (!g->files) {
        err = disk_posix_open(g->o.files_dir, &g->own_files);
        if (!err) err = sync_above(g->o.files_dir);
        g->files = g->own_files;
    }
    if (!err) err = g->files->ops->make_dir(g->files, "tmp");
    if (err) {
        buf_printf(why, "cannot make the folder %s: %s", g->o.files_dir, err_text(err));
        return err;
    }
    each_name(g, "tmp", remove_tmp);
    Core *c = core_of(g);
    if (!c) return 0;
    each_name(g, "", remove_orphan);
    if (core_count(c, TASK_RUNNING))
        for (Task *t = core_older(c, UINT64_MAX); t; t = core_older(c, t->no))
            if (t->state == TASK_RUNNING) lease_files(g, t);
    return 0;
}

/* ---- which files may a worker read ---- */

void files_task_changed(Gateway *g, const Task *t, const TaskEvent *e)
{
    if (e->kind == EVENT_LEASED) {
        lease_files(g, t);
        return;
    }
    if (!g->leased.len) return;
    for (TableNode *n = table_first(&g->leased, hash_u64(t->no)), *next; n; n = next) {
        Leased *l = CONTAINER_OF(n, Leased, node);
        next = table_next(n);
        if (l->task_no != t->no) continue;
        table_del(&g->leased, n);
        mem_free(l);
    }
}

static bool refers(const Task *t, uint64_t file_no)
{
    for (size_t i = 0; i < task_files_len(t); i++)
        if (t->extra->files[i] == file_no) return true;
    return t->extra && t->extra->checkpoint_file == file_no;
}

bool files_is_leased(Gateway *g, const File *f)
{
    TableIter at = {0};
    TableNode *n;
    while ((n = table_each(&g->leased, &at))) {
        const Task *t = core_task(core_of(g), CONTAINER_OF(n, Leased, node)->task_no);
        if (t && t->state == TASK_RUNNING && (refers(t, f->no) || f->owner_task == t->no))
            return true;
    }
    return false;
}

void files_done_gateway(Gateway *g)
{
    TableIter at = {0};
    TableNode *n;
    disk_free(g->own_files);
    while ((n = table_each(&g->leased, &at))) mem_free(CONTAINER_OF(n, Leased, node));
    table_done(&g->leased);
    if (!g->gone_files.next) return;
    LIST_FOR (gone, &g->gone_files, Gone, link) /* not durable: the next start finds them again */
    {
        list_del(&gone->link);
        mem_free(gone);
    }
}

/* ---- the end of a file ---- */

void gateway_file_leaving(Gateway *g, const File *f)
{
    Gone *gone = mem_new(sizeof *gone);
    gone->seq = g->p.last_seq(g->p.ctx);
    gone->g = g;
    memcpy(gone->id, f->id, sizeof gone->id);
    list_push_back(&g->gone_files, &gone->link);
}

void gateway_file_gone(Gateway *g, Str id)
{
    Gone *gone = mem_new(sizeof *gone);
    gone->g = g;
    gone->seq = g->p.last_seq(g->p.ctx); /* behind those that wait already: the list is in order */
    memcpy(gone->id, id.p, MIN(id.n, (size_t)FILE_ID_LEN));
    list_push_back(&g->gone_files, &gone->link);
    files_durable(g, g->p.durable_seq(g->p.ctx));
}

static void unlink_gone(LoopWork *w)
{
    const Gone *gone = CONTAINER_OF(w, Gone, work);
    files_unlink(gone->g, gone->id);
}

static void unlinked(LoopWork *w, int status)
{
    Gone *gone = CONTAINER_OF(w, Gone, work);
    (void)status;
    gone->g->jobs--;
    mem_free(gone);
}

void files_durable(Gateway *g, uint64_t seq)
{
    while (!g->files_held && !list_empty(&g->gone_files)) {
        Gone *gone = LIST_FIRST(&g->gone_files, Gone, link);
        if (gone->seq > seq) return;
        list_del(&gone->link);
        g->jobs++;
        loop_work(g->loop, &gone->work, unlink_gone, unlinked);
    }
}

void gateway_hold_files(Gateway *g, bool held)
{
    g->files_held = held;
    files_durable(g, g->p.durable_seq(g->p.ctx));
}

/* ---- reading ---- */

static void put_file(Exchange *x, const File *f);
static void put_content(Exchange *x, const File *f);

static void no_file(Exchange *x)
{
    problem_say(x, 404, CODE_NOT_FOUND, NULL, "there is no such file%s%.*s",
                x->params[0].n ? ": " : "", (int)MIN(x->params[0].n, (size_t)60), x->params[0].p);
}

static void get_past(Exchange *x, PastQuery *q)
{
    x->params[0] = (Str){"", 0}; /* gone with the request */
    if (q->file)
        put_file(x, q->file);
    else
        no_file(x);
}

static void content_past(Exchange *x, PastQuery *q)
{
    x->params[0] = (Str){"", 0};
    if (q->file)
        put_content(x, q->file);
    else
        no_file(x);
}

/* The file of params[0], if the caller may see it. NULL: answered; or the history view is asked,
 * and `past` goes on. A worker may read what a task it holds refers to. */
static const File *find_file(Exchange *x, void (*past)(Exchange *x, PastQuery *q))
{
    Gateway *g = x->g;
    Core *c = core_of(g);
    const File *f = NULL;
    if (!(x->scopes & ~(uint32_t)SCOPE_WORKER)) {
        Str id, token_text;
        uint64_t token;
        f = core_file_find(c, x->params[0], (Str){"", 0});
        if (f && query_get(x, "task", &id)) {
            const Task *t = core_task(c, query_task_no(g, id));
            if (!t || !query_get(x, "token", &token_text) || parse_u64(token_text, &token) ||
                !g->p.lease_is_live(g->p.ctx, t->no, token) ||
                !(refers(t, f->no) || f->owner_task == t->no))
                f = NULL;
        } else if (f && !files_is_leased(g, f)) {
            f = NULL;
        }
    } else {
        f = core_file_find(c, x->params[0], auth_view(x));
        Sym tenant = core_sym_find(c, auth_view(x));
        if (!f && g->p.past && x->params[0].n == FILE_ID_LEN && (x->any_tenant || tenant)) {
            PastQuery q = {.kind = PAST_FILE, .tenant = tenant};
            memcpy(q.id, x->params[0].p, FILE_ID_LEN);
            past_ask(x, &q, past);
            return NULL;
        }
    }
    if (!f) {
        exchange_hold(x, g->p.last_seq(g->p.ctx));
        no_file(x);
    }
    return f;
}

static void put_file(Exchange *x, const File *f)
{
    exchange_hold(x, x->g->p.last_seq(x->g->p.ctx));
    buf_clear(&x->g->body);
    render_file(x->g, f, &x->g->body);
    exchange_reply_json(x, 200);
}

void files_get(Exchange *x)
{
    const File *f = find_file(x, get_past);
    if (f) put_file(x, f);
}

/* It lives as long as its task, which is in the history: the answer is what it is in memory. */
static void delete_past(Exchange *x, PastQuery *q)
{
    x->params[0] = (Str){"", 0};
    if (q->file)
        problem_say(x, 409, CODE_CONFLICT, NULL,
                    "the task that made this file refers to it; delete that one first");
    else
        no_file(x);
}

void files_delete(Exchange *x)
{
    Gateway *g = x->g;
    const File *f = find_file(x, delete_past);
    if (!f) return;
    Decision d = g->p.delete_file(g->p.ctx, f->no);
    exchange_hold(x, g->p.last_seq(g->p.ctx));
    if (d.code != CODE_OK) {
        Problem p = problem_of_decision(&d);
        problem_reply(x, &p);
        return;
    }
    exchange_reply(x, 204, NULL, (Str){"", 0});
}

/* ---- content ---- */

typedef struct {
    Exchange *x; /* NULL: it is gone */
    Gateway *g;
    char id[32];
    DiskFile *file;
    int err;
    uint64_t at, left;
    Buf piece;
    bool busy;
    LoopWork work;
    int status;
    int64_t length;
    char type[128];
} Download;

static void download_free(Download *d)
{
    if (d->file) d->file->ops->close(d->file);
    d->g->transfers--;
    buf_done(&d->piece);
    mem_free(d);
}

static void read_work(LoopWork *w)
{
    Download *d = CONTAINER_OF(w, Download, work);
    Disk *disk = d->g->files;
    size_t want = (size_t)MIN(d->left, (uint64_t)PIECE), got = 0;
    if (!d->file) d->err = disk->ops->open(disk, d->id, DISK_READ, &d->file);
    if (d->err) return;
    buf_clear(&d->piece);
    d->err = d->file->ops->read(d->file, d->at, buf_extend(&d->piece, want), want, &got);
    if (!d->err && got < want) d->err = ERR_IO; /* shorter than its record says */
}

static void read_after(LoopWork *w, int status);

static void read_more(Download *d)
{
    d->busy = true;
    d->g->jobs++;
    loop_work(d->g->loop, &d->work, read_work, read_after);
}

static void on_drained(Exchange *x)
{
    Download *d = x->state;
    if (d && !d->busy) read_more(d);
}

static void drop(Exchange *x)
{
    Download *d = x->state;
    d->x = NULL;
    if (!d->busy) download_free(d);
}

static void read_after(LoopWork *w, int status)
{
    Download *d = CONTAINER_OF(w, Download, work);
    Exchange *x = d->x;
    d->busy = false;
    d->g->jobs--;
    if (!x || status) {
        if (x) {
            x->drop = NULL;
            x->state = NULL;
        }
        download_free(d);
        return;
    }
    if (d->err && !x->answered) {
        x->drop = NULL;
        say_error("the content of %s cannot be read", d->id);
        problem_say(x, 500, CODE_INTERNAL, NULL, "the file's content cannot be read");
        download_free(d);
        return;
    }
    if (d->err) { /* the length was promised: only a broken connection tells the truth now */
        x->close = true;
        say_error("the content of %s ends early", d->id);
        exchange_end(x);
        return;
    }
    d->at += d->piece.len;
    d->left -= d->piece.len;
    if (!x->answered) exchange_begin(x, d->status, d->type, d->length);
    exchange_put(x, buf_str(&d->piece), 0);
    if (!d->left) exchange_end(x);
}

/* "bytes=0-99", "bytes=100-", "bytes=-100". False: not one range that this server serves (then the
 * whole is sent). */
static bool read_range(Str s, uint64_t size, uint64_t *from, uint64_t *to, bool *outside)
{
    if (!str_starts(s, STR("bytes=")) || memchr(s.p, ',', s.n)) return false;
    s.p += 6;
    s.n -= 6;
    const char *dash = memchr(s.p, '-', s.n);
    if (!dash) return false;
    Str a = {s.p, (size_t)(dash - s.p)}, b = {dash + 1, s.n - a.n - 1};
    uint64_t first, last = UINT64_MAX;
    if (!a.n) {
        if (parse_u64(b, &last)) return false;
        *outside = last == 0 || size == 0;
        *from = last < size ? size - last : 0;
        *to = size - 1;
        return true;
    }
    if (parse_u64(a, &first) || (b.n && parse_u64(b, &last)) || last < first) return false;
    *outside = first >= size;
    *from = first;
    *to = MIN(last, size - 1);
    return true;
}

/* A name for Content-Disposition: quoted ASCII, and RFC 8187 beside it when there is more. */
static void name_header(Exchange *x, const char *name)
{
    Buf plain = {0}, coded = {0};
    bool ascii = true;
    for (const unsigned char *p = (const unsigned char *)name; *p; p++) {
        ascii &= *p < 0x80;
        buf_putc(&plain, *p >= 0x80 || *p == '"' || *p == '\\' ? '_' : (char)*p);
        if ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ||
            strchr("-._~", *p))
            buf_putc(&coded, (char)*p);
        else
            buf_printf(&coded, "%%%02X", *p);
    }
    if (!plain.len)
        exchange_header(x, "Content-Disposition", "attachment");
    else if (ascii)
        exchange_header(x, "Content-Disposition", "attachment; filename=\"%s\"", buf_z(&plain));
    else
        exchange_header(x, "Content-Disposition",
                        "attachment; filename=\"%s\"; filename*=UTF-8''%s", buf_z(&plain),
                        buf_z(&coded));
    buf_done(&plain);
    buf_done(&coded);
}

Problem files_busy(const Gateway *g)
{
    return problem_of(503, CODE_RATE_LIMITED, NULL,
                      "the server sends and receives %u files at a time; try again soon",
                      g->o.transfers_max);
}

static void put_content(Exchange *x, const File *f)
{
    if (x->g->transfers >= x->g->o.transfers_max) {
        Problem p = files_busy(x->g);
        problem_reply(x, &p);
        return;
    }
    char hex[65], type[128];
    sha256_hex(&f->sha256, hex);
    uint64_t from = 0, to = f->size ? f->size - 1 : 0;
    bool outside = false;
    Str range = str_from(x->want_range), match = str_from(x->want_match);
    exchange_header(x, "ETag", "\"%s\"", hex);
    exchange_header(x, "Accept-Ranges", "bytes");
    if (match.n && memmem(match.p, match.n, hex, 64)) {
        exchange_reply(x, 304, NULL, (Str){"", 0});
        return;
    }
    bool part = range.n && read_range(range, f->size, &from, &to, &outside);
    if (part && outside) {
        exchange_header(x, "Content-Range", "bytes */%llu", (unsigned long long)f->size);
        problem_say(x, 416, CODE_INVALID_REQUEST, "Range", "the file has %llu bytes",
                    (unsigned long long)f->size);
        return;
    }
    if (part)
        exchange_header(x, "Content-Range", "bytes %llu-%llu/%llu", (unsigned long long)from,
                        (unsigned long long)to, (unsigned long long)f->size);
    /* Whatever a stranger uploaded: it is shown by no browser as a page of ours. */
    exchange_header(x, "Content-Security-Policy", "default-src 'none'; sandbox");
    name_header(x, f->name ? f->name : "");
    if (!media_type_clean(str_from(f->content_type), type))
        strcpy(type, "application/octet-stream");
    uint64_t length = f->size ? to - from + 1 : 0;
    if (x->head_only || !length) {
        exchange_begin(x, part ? 206 : 200, type, (int64_t)length);
        if (!x->ended) exchange_end(x);
        return;
    }
    Download *d = mem_new(sizeof *d);
    x->g->transfers++;
    *d = (Download){.x = x,
                    .g = x->g,
                    .at = from,
                    .left = length,
                    .length = (int64_t)length,
                    .status = part ? 206 : 200};
    memcpy(d->id, f->id, sizeof d->id);
    memcpy(d->type, type, sizeof type);
    x->state = d;
    x->drop = drop;
    x->drained = on_drained;
    x->exclusive = true;
    read_more(d);
}

static void keep(Str value, char *to, size_t size)
{
    if (value.p && value.n < size) memcpy(to, value.p, value.n);
}

void files_content(Exchange *x)
{
    if (!http_field(x->req, "If-Range").p)
        keep(http_field(x->req, "Range"), x->want_range, sizeof x->want_range);
    keep(http_field(x->req, "If-None-Match"), x->want_match, sizeof x->want_match);
    const File *f = find_file(x, content_past);
    if (!f) return;
    exchange_hold(x, x->g->p.last_seq(x->g->p.ctx));
    put_content(x, f);
}
