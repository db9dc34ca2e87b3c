/* GET /v1/backup: passes on what the server makes of it, no faster than the client reads. The head
 * of the answer leaves with the first bytes: what goes wrong before is a problem as any other; what
 * goes wrong later breaks the connection, and the archive lacks its end. */
#include "gateway/internal.h"

#include <time.h>

static void let_go(Exchange *x)
{
    x->state = NULL;
    x->drop = NULL;
    x->drained = NULL;
    x->g->p.backup_end(x->g->p.ctx);
}

/* One piece a turn of the loop, so that others have theirs. */
static void more(void *arg)
{
    Exchange *x = arg;
    Gateway *g = x->g;
    Buf piece = {0}, why = {0};
    if (server_unsent(x)) return; /* on_drained comes */
    int got = g->p.backup_read(g->p.ctx, &piece, &why);
    if (got > 0) {
        if (!x->answered) exchange_begin(x, 200, "application/x-tar", -1);
        exchange_put(x, buf_str(&piece), 0);
    } else if (got == ERR_CLOSED) {
        let_go(x);
        exchange_end(x);
    } else if (got < 0) {
        let_go(x);
        if (why.len) say_error("the backup failed: %.*s", STR_ARG(buf_str(&why)));
        if (!x->answered) {
            bool full = got == ERR_NOSPC;
            problem_say(x, full ? 503 : 500, full ? CODE_DISK_FULL : CODE_INTERNAL, NULL,
                        "the backup failed: %.*s", STR_ARG(buf_str(&why)));
        } else { /* without the last chunk nobody takes it for whole */
            x->chunked = false;
            x->close = true;
            exchange_end(x);
        }
    }
    buf_done(&piece);
    buf_done(&why);
}

static void on_drained(Exchange *x)
{
    if (x->state) x->g->p.backup_want(x->g->p.ctx);
}

void backup_get(Exchange *x)
{
    Gateway *g = x->g;
    if (x->head_only) {
        exchange_reply(x, 200, "application/x-tar", (Str){"", 0});
        return;
    }
    Decision d = g->p.backup_begin(g->p.ctx, more, x);
    if (d.code) {
        Problem p = problem_of_decision(&d);
        problem_reply(x, &p);
        return;
    }
    time_t s = (time_t)(now_of(g) / NS_PER_S);
    struct tm tm;
    char name[32];
    CHECK(gmtime_r(&s, &tm));
    strftime(name, sizeof name, "%Y%m%dT%H%M%SZ", &tm);
    exchange_header(x, "Content-Disposition", "attachment; filename=\"headrace-%s.tar\"", name);
    x->state = x;
    x->drop = let_go;
    x->drained = on_drained;
    x->exclusive = true;
}
