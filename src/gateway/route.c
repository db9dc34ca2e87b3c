/* The table of routes, and what every request must pass before its handler sees it: host, origin,
 * key, form. */
#include "gateway/internal.h"

#include <string.h>
#include <strings.h>

/* What one request's decoded parts can need at most, so that none of them moves when another is
 * added: path and query once, an idempotency key, each within the head's 16 KiB. */
#define TEXT_ROOM (4 * HTTP_HEAD_MAX)

#define GET  HTTP_M_GET
#define POST HTTP_M_POST
#define DEL  HTTP_M_DELETE

/* The first two are the busiest: the walk finds them first. */
const Route routes[] = {
    {POST, "/v1/tasks", submit_post, SCOPE_SUBMIT, ROUTE_JSON, "Submit a task", "", "TaskRequest",
     202, "Task"},
    {GET, "/v1/tasks/{id}", tasks_get, SCOPE_READ | SCOPE_SUBMIT, 0,
     "Read a task, or wait for its next change", "wait include", NULL, 200, "Task"},
    {POST, "/v1/worker/{id}/reports", worker_reports, SCOPE_WORKER, ROUTE_WORKER | ROUTE_NDJSON,
     "A worker's reports, one a line", "", "WorkerReport", 200, "WorkerAnswer"},
    {GET, "/v1/tasks/{id}/events", events_get, SCOPE_READ | SCOPE_SUBMIT, 0,
     "The task's events as server-sent events; Last-Event-ID resumes", "last_event_id", NULL, 200,
     NULL},
    {POST, "/v1/tasks:batch", batch_post, SCOPE_SUBMIT, ROUTE_STREAM_IN | ROUTE_NDJSON,
     "Submit many tasks: one request a line, one answer a line, in order", "", "TaskRequest", 200,
     "BatchAnswer"},
    {GET, "/v1/tasks", tasks_list, SCOPE_READ, 0, "Search tasks, newest first",
     "status model tenant priority created_after cursor limit", NULL, 200, "TaskList"},
    {POST, "/v1/tasks/{id}/cancel", tasks_cancel, SCOPE_SUBMIT, ROUTE_BODY_EMPTY, "Cancel a task",
     "", NULL, 200, "Task"},
    {POST, "/v1/tasks/{id}/retry", tasks_retry, SCOPE_SUBMIT, ROUTE_BODY_EMPTY,
     "Submit an ended task's input again, as a new task", "", NULL, 201, "Task"},
    {GET, "/v1/tasks/{id}/logs", tasks_log, SCOPE_READ | SCOPE_SUBMIT, 0, "What the model printed",
     "", NULL, 200, NULL},
    {DEL, "/v1/tasks/{id}", tasks_forget, SCOPE_SUBMIT, ROUTE_BODY_EMPTY,
     "Forget input and output of an ended task", "", NULL, 204, NULL},

    {POST, "/v1/files", files_post, SCOPE_SUBMIT | SCOPE_WORKER, ROUTE_STREAM_IN,
     "Upload a file, raw or as multipart/form-data", "name sha256 task token", "File-content", 201,
     "File"},
    {GET, "/v1/files/{id}", files_get, SCOPE_READ | SCOPE_SUBMIT | SCOPE_WORKER, 0,
     "What is known of a file", "task token", NULL, 200, "File"},
    {GET, "/v1/files/{id}/content", files_content, SCOPE_READ | SCOPE_SUBMIT | SCOPE_WORKER, 0,
     "A file's bytes", "task token", NULL, 200, NULL},
    {DEL, "/v1/files/{id}", files_delete, SCOPE_SUBMIT, ROUTE_BODY_EMPTY,
     "Delete a file that no live task refers to", "", NULL, 204, NULL},

    {GET, "/v1/models", view_models, SCOPE_READ | SCOPE_SUBMIT, 0, "The models that can run", "",
     NULL, 200, "ModelList"},
    {GET, "/v1/models/{name}", view_model, SCOPE_READ | SCOPE_SUBMIT, 0,
     "One model and its versions", "", NULL, 200, "Model"},
    {GET, "/v1/models/{name}/versions/{version}", view_version, SCOPE_READ | SCOPE_SUBMIT, 0,
     "One version of a model", "", NULL, 200, "ModelVersion"},
    {POST, "/v1/models/{name}/pause", view_pause, SCOPE_OPERATE, ROUTE_BODY_EMPTY,
     "Start no more tasks of a model", "", NULL, 200, "Model"},
    {POST, "/v1/models/{name}/resume", view_resume, SCOPE_OPERATE, ROUTE_BODY_EMPTY,
     "Start tasks of a model again", "", NULL, 200, "Model"},
    {POST, "/v1/models/{name}/warm", view_warm, SCOPE_OPERATE, ROUTE_JSON,
     "Keep a model loaded on some devices, ahead of demand", "", "Warm", 200, "Model"},
    {GET, "/v1/workers", view_workers, SCOPE_READ | SCOPE_OPERATE, 0,
     "The workers, what they hold and run", "", NULL, 200, "WorkerList"},
    {GET, "/v1/workers/{id}", view_worker, SCOPE_READ | SCOPE_OPERATE, 0, "One worker", "", NULL,
     200, "Worker"},
    {POST, "/v1/workers/{id}/drain", view_drain, SCOPE_OPERATE, ROUTE_BODY_EMPTY,
     "Let a worker finish and take no more", "", NULL, 200, "Worker"},
    {POST, "/v1/workers/{id}/cordon", view_cordon, SCOPE_OPERATE, ROUTE_BODY_EMPTY,
     "Give a worker no new tasks", "", NULL, 200, "Worker"},
    {POST, "/v1/workers/{id}/uncordon", view_uncordon, SCOPE_OPERATE, ROUTE_BODY_EMPTY,
     "Give a worker tasks again", "", NULL, 200, "Worker"},
    {GET, "/v1/queues", view_queues, SCOPE_READ, 0, "The queues: depth and age of the oldest", "",
     NULL, 200, "QueueList"},
    {GET, "/v1/tenants", view_tenants, SCOPE_READ, 0, "The tenants and their tasks", "", NULL, 200,
     "TenantList"},

    {POST, "/v1/worker/register", worker_register, SCOPE_WORKER, ROUTE_WORKER | ROUTE_JSON,
     "A worker makes itself known", "", "WorkerHello", 200, "WorkerWelcome"},
    {GET, "/v1/worker/{id}/stream", worker_stream, SCOPE_WORKER, ROUTE_WORKER,
     "Orders to a worker, one a line", "", NULL, 200, NULL},

    {GET, "/v1/backup", backup_get, SCOPE_ADMIN, 0,
     "A backup of the server as it is now, as a tar; headrace restore takes it", "", NULL, 200,
     NULL},

    {GET, "/livez", ops_livez, 0, ROUTE_OPEN, "The process is alive", "", NULL, 200, NULL},
    {GET, "/readyz", ops_readyz, 0, ROUTE_OPEN, "It can take work", "verbose", NULL, 200, NULL},
    {GET, "/startupz", ops_startupz, 0, ROUTE_OPEN, "It has started", "", NULL, 200, NULL},
    {GET, "/metrics", ops_metrics, SCOPE_READ | SCOPE_OPERATE, 0, "Figures for Prometheus", "",
     NULL, 200, NULL},
    {GET, "/openapi.json", openapi_get, 0, ROUTE_OPEN, "This description", "", NULL, 200, NULL},
    {GET, "/", ops_home, 0, ROUTE_OPEN, "A page that says what this is", "", NULL, 200, NULL},
};
const size_t routes_len = ARRAY_LEN(routes);

int route_index(const Route *r)
{
    return r ? (int)(r - routes) : (int)routes_len;
}

/* Does the path fit the pattern? Parameters are single non-empty segments, not yet decoded. */
static bool fits(const char *pattern, Str path, Str params[2])
{
    const char *p = path.p, *end = path.p + path.n;
    size_t n = 0;
    while (*pattern) {
        if (*pattern == '{') {
            const char *first = p;
            while (p < end && *p != '/') p++;
            if (p == first || n == 2) return false;
            params[n++] = (Str){first, (size_t)(p - first)};
            pattern = strchr(pattern, '}') + 1;
        } else if (p < end && *p == *pattern) {
            p++;
            pattern++;
        } else {
            return false;
        }
    }
    return p == end;
}

static bool decode_params(Exchange *x)
{
    bool plain = true;
    for (size_t i = 0; i < 2; i++)
        if (x->params[i].n && memchr(x->params[i].p, '%', x->params[i].n)) plain = false;
    if (plain) return true;
    Buf *text = &x->g->text;
    size_t ends[3] = {0};
    buf_reserve(text, x->params[0].n + x->params[1].n);
    for (size_t i = 0; i < 2; i++) {
        if (x->params[i].n && http_decode(x->params[i], false, text)) return false;
        ends[i + 1] = text->len;
    }
    for (size_t i = 0; i < 2; i++)
        x->params[i] = (Str){(char *)text->data + ends[i], ends[i + 1] - ends[i]};
    return true;
}

static bool find_route(Exchange *x)
{
    Str path = x->req->path;
    HttpMethod want = x->req->method == HTTP_M_HEAD ? HTTP_M_GET : x->req->method;
    uint32_t allowed = 0;
    for (size_t i = 0; i < routes_len; i++) {
        if (!fits(routes[i].pattern, path, x->params)) continue;
        if (routes[i].method == want) {
            x->route = &routes[i];
            return true;
        }
        allowed |= 1u << routes[i].method;
    }
    x->params[0] = x->params[1] = (Str){0};
    if (!allowed) {
        problem_say(x, 404, CODE_NOT_FOUND, NULL,
                    "there is nothing at this path; GET /openapi.json lists what there is");
        return false;
    }
    Buf allow = {0};
    for (uint32_t m = 0; m < HTTP_M_OTHER; m++) {
        if (!(allowed >> m & 1)) continue;
        buf_printf(&allow, "%s%s%s", allow.len ? ", " : "", http_method_name(m),
                   m == HTTP_M_GET ? ", HEAD" : "");
    }
    exchange_header(x, "Allow", "%s", buf_z(&allow));
    problem_say(x, 405, CODE_METHOD_NOT_ALLOWED, NULL, "this path takes %s", buf_z(&allow));
    buf_done(&allow);
    return false;
}

static Str without_port(Str host)
{
    const char *close = memchr(host.p, ']', host.n);
    const char *colon = close ? close + 1 : memchr(host.p, ':', host.n);
    if (!colon || colon >= host.p + host.n) return host;
    return (Str){host.p, (size_t)(colon - host.p)};
}

static bool same_text(Str a, const char *z)
{
    return a.n == strlen(z) && strncasecmp(a.p, z, a.n) == 0;
}

/* Without keys anybody who reaches the port may do anything: so it listens on loopback only, and a
 * web page that makes a browser call it (by a name that resolves here, or across origins) must get
 * nowhere. */
static bool check_caller(Exchange *x)
{
    if (x->g->keyless) {
        Str host = without_port(x->req->host);
        if (!same_text(host, "localhost") && !same_text(host, "127.0.0.1") &&
            !same_text(host, "[::1]")) {
            problem_say(
                x, 403, CODE_FORBIDDEN, NULL,
                "without API keys the host must be localhost, 127.0.0.1 or [::1]; it is \"%.*s\"",
                (int)MIN(host.n, (size_t)80), host.p);
            return false;
        }
    }
    Str origin = http_field(x->req, "Origin");
    if (!origin.p) return true;
    size_t scheme = str_starts(origin, STR("http://"))    ? 7
                    : str_starts(origin, STR("https://")) ? 8
                                                          : 0;
    Str authority = {origin.p + scheme, origin.n - scheme};
    if (scheme && authority.n == x->req->host.n &&
        strncasecmp(authority.p, x->req->host.p, authority.n) == 0)
        return true;
    problem_say(x, 403, CODE_FORBIDDEN, NULL,
                "requests of pages from elsewhere (Origin: %.*s) are refused",
                (int)MIN(origin.n, (size_t)80), origin.p);
    return false;
}

static bool check_form(Exchange *x)
{
    uint32_t flags = x->route->flags;
    Str type = http_field(x->req, "Content-Type");
    if (flags & ROUTE_JSON && !http_media_is(type, "application/json")) {
        problem_say(x, 415, CODE_INVALID_REQUEST, "Content-Type",
                    "send JSON, with the header Content-Type: application/json");
        return false;
    }
    if (flags & ROUTE_NDJSON && !http_media_is(type, "application/x-ndjson") &&
        !http_media_is(type, "application/jsonl")) {
        problem_say(
            x, 415, CODE_INVALID_REQUEST, "Content-Type",
            "send one JSON object a line, with the header Content-Type: application/x-ndjson");
        return false;
    }
    return true;
}

bool route_head(Exchange *x, uint64_t *ret_body_max)
{
    buf_clear(&x->g->text);
    buf_reserve(&x->g->text, TEXT_ROOM);
    if (!check_caller(x) || !find_route(x) || !auth_check(x) || !check_form(x) || !query_check(x))
        return false;
    uint32_t flags = x->route->flags;
    if (!decode_params(x)) {
        problem_say(x, 400, CODE_INVALID_REQUEST, NULL,
                    "the path holds a malformed percent escape");
        return false;
    }
    *ret_body_max = 0;
    if (flags & (ROUTE_JSON | ROUTE_NDJSON)) *ret_body_max = x->g->o.body_max;
    if (flags & ROUTE_STREAM_IN)
        *ret_body_max = flags & ROUTE_NDJSON ? 64 * MIB : x->g->o.file_max + 64 * KIB;
    if (flags & ROUTE_BODY_EMPTY)
        *ret_body_max = 2; /* "{}" is what some clients send for nothing */
    return true;
}

void route_body(Exchange *x)
{
    if (x->route->flags & ROUTE_BODY_EMPTY && x->req->body.n && !str_eqz(x->req->body, "{}")) {
        problem_say(x, 400, CODE_INVALID_REQUEST, NULL, "this call takes no body; send none");
        return;
    }
    x->route->handle(x);
}

void route_count(Exchange *x)
{
    static const int64_t bounds_us[DURATION_BUCKETS - 1] = {
        100, 250, 500, 1000, 2500, 5000, 10000, 25000, 100000, 250000, 1000000, 5000000, 60000000};
    if (x->counted) return;
    x->counted = true;
    RouteCount *c = &x->g->counts[route_index(x->route)];
    int64_t us = (int64_t)(uv_hrtime() - x->began_ns) / NS_PER_US;
    size_t i = 0;
    while (i < ARRAY_LEN(bounds_us) && us > bounds_us[i]) i++;
    c->by_class[MIN(x->status / 100u, 5u)]++;
    c->duration[i]++;
    c->duration_sum_ns += (uint64_t)us * 1000;
    c->count++;
}
