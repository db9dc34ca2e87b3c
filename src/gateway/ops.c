/* What operators and their machines ask: is it alive, ready, how is it doing; and the page at "/".
 * */
#include "gateway/internal.h"

#include <string.h>

#define TEXT "text/plain; charset=utf-8"

void ops_livez(Exchange *x)
{
    exchange_reply(x, 200, TEXT, STR("ok\n"));
}

void ops_startupz(Exchange *x)
{
    exchange_reply(x, 200, TEXT, STR("ok\n")); /* the listener opens after the replay */
}

void ops_readyz(Exchange *x)
{
    Gateway *g = x->g;
    Str s;
    bool verbose = query_get(x, "verbose", &s);
    Buf *b = &g->lines;
    buf_clear(b);
    bool shard = g->p.ready(g->p.ctx, b), ready = shard && !g->draining;
    if (!ready && !b->len) buf_puts(b, g->draining ? "the server is draining" : "not ready");
    buf_clear(&g->body);
    if (ready && !verbose) buf_puts(&g->body, "ok\n");
    if (verbose) {
        buf_printf(&g->body, "gateway %s\nshard %s\n", g->draining ? "draining" : "ok",
                   shard ? "ok" : "not ready");
        buf_printf(&g->body, "connections %zu\n", tcp_connections(g->listener));
    }
    if (!ready) {
        buf_put_str(&g->body, buf_str(b));
        buf_putc(&g->body, '\n');
        exchange_header(x, "Retry-After", "1");
    }
    exchange_reply(x, ready ? 200 : 503, TEXT, buf_str(&g->body));
}

/* ---- metrics ---- */

static const char *const bounds[DURATION_BUCKETS] = {
    "0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01",
    "0.025",  "0.1",     "0.25",   "1",     "5",      "60",    "+Inf"};

static void put_route(Buf *b, size_t i)
{
    if (i < routes_len)
        buf_printf(b, "method=\"%s\",route=\"%s\"", http_method_name(routes[i].method),
                   routes[i].pattern);
    else
        buf_puts(b, "method=\"\",route=\"none\"");
}

static void put_requests(Gateway *g, Buf *b)
{
    buf_puts(b, "# HELP headrace_http_requests_total Answered requests.\n# TYPE "
                "headrace_http_requests_total counter\n");
    for (size_t i = 0; i <= routes_len; i++) {
        for (size_t k = 1; k < 6; k++) {
            if (!g->counts[i].by_class[k]) continue;
            buf_puts(b, "headrace_http_requests_total{");
            put_route(b, i);
            buf_printf(b, ",status=\"%zuxx\"} %llu\n", k,
                       (unsigned long long)g->counts[i].by_class[k]);
        }
    }
    buf_puts(
        b, "# HELP headrace_http_request_duration_seconds From the head's arrival to the answer's "
           "leaving.\n"
           "# TYPE headrace_http_request_duration_seconds histogram\n");
    for (size_t i = 0; i <= routes_len; i++) {
        const RouteCount *c = &g->counts[i];
        uint64_t sum = 0;
        if (!c->count) continue;
        for (size_t k = 0; k < DURATION_BUCKETS; k++) {
            sum += c->duration[k];
            buf_puts(b, "headrace_http_request_duration_seconds_bucket{");
            put_route(b, i);
            buf_printf(b, ",le=\"%s\"} %llu\n", bounds[k], (unsigned long long)sum);
        }
        buf_puts(b, "headrace_http_request_duration_seconds_sum{");
        put_route(b, i);
        buf_printf(b, "} %.6f\nheadrace_http_request_duration_seconds_count{",
                   (double)c->duration_sum_ns / 1e9);
        put_route(b, i);
        buf_printf(b, "} %llu\n", (unsigned long long)c->count);
    }
}

static void put_gauge(Buf *b, const char *name, const char *help, const char *type, uint64_t v)
{
    buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n%s %llu\n", name, help, name, type, name,
               (unsigned long long)v);
}

void ops_metrics(Exchange *x)
{
    Gateway *g = x->g;
    Buf *b = &g->body;
    buf_clear(b);
    put_requests(g, b);
    put_gauge(b, "headrace_http_connections", "Open connections.", "gauge",
              tcp_connections(g->listener));
    put_gauge(b, "headrace_http_refused_connections_total", "Connections over the cap.", "counter",
              g->refused_connections);
    put_gauge(b, "headrace_http_held_answers", "Answers that wait for the log.", "gauge",
              g->held_len);
    put_gauge(b, "headrace_http_waiting", "Long polls, waits and event streams.", "gauge",
              g->watching);
    put_gauge(b, "headrace_http_replays_total", "Submits answered by their idempotency key.",
              "counter", g->replays);
    put_gauge(b, "headrace_worker_streams", "Open worker streams.", "gauge", g->streams.len);
    g->p.metrics(g->p.ctx, b);
    exchange_reply(x, 200, "text/plain; version=0.0.4; charset=utf-8", buf_str(b));
}

/* ---- the page at "/" ---- */

static const char home[] =
    "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">"
    "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>Headrace</title>"
    "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:3rem auto;padding:0 "
    "1rem;color:#1b1f24;"
    "background:#fff}code,pre{font:14px/1.5 ui-monospace,"
    "monospace;background:#f3f4f6;border-radius:4px}code{padding:.1em .3em}"
    "pre{padding:1rem;overflow:auto}a{color:#0b57d0}@media(prefers-color-scheme:dark){body{backgr"
    "ound:#14171a;color:#e6e8ea}"
    "code,pre{background:#22262b}a{color:#8ab4f8}}</style>"
    "<main><h1>Headrace</h1><p>This is a Headrace server: it takes tasks for machine-learning "
    "models over HTTP, keeps them in a "
    "durable log, runs them on its workers, and hands out the results.</p>"
    "<p>A first task:</p><pre>curl -s localhost:PORT/v1/tasks -H 'Content-Type: "
    "application/json' \\\n"
    "  -H 'Prefer: wait=10' -d '{\"model\": \"echo\", \"input\": {\"hello\": \"world\"}}'</pre>"
    "<ul><li><a href=\"/v1/tasks\">Tasks</a>, <a href=\"/v1/models\">models</a>, <a "
    "href=\"/v1/workers\">workers</a>, "
    "<a href=\"/v1/queues\">queues</a> (JSON)</li><li><a href=\"/openapi.json\">The API's "
    "description</a> (OpenAPI 3.1)</li>"
    "<li><a href=\"/readyz?verbose\">Health</a>, <a href=\"/metrics\">metrics</a> "
    "(Prometheus)</li></ul></main></html>\n";

void ops_home(Exchange *x)
{
    Gateway *g = x->g;
    const char *port = strrchr(g->address, ':') + 1, *at = strstr(home, "PORT");
    exchange_header(x, "Content-Security-Policy",
                    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; "
                    "base-uri 'none'; form-action 'none'");
    exchange_header(x, "Referrer-Policy", "no-referrer");
    buf_clear(&g->body);
    buf_put(&g->body, home, (size_t)(at - home));
    buf_puts(&g->body, port);
    buf_puts(&g->body, at + 4);
    exchange_reply(x, 200, "text/html; charset=utf-8", buf_str(&g->body));
}
