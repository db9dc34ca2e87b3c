/* One table, and what its rows mean; or the same as JSON. */
#include "cli/bench.h"

#include "wire/json.h"

#include <stdio.h>
#include <string.h>

static const GridColumn columns[] = {
    {"SCENARIO", false, false}, {"CLIENTS", true, false},  {"TASKS/S", true, false},
    {"P50 MS", true, false},    {"P99", true, false},      {"P99.9", true, false},
    {"MAX", true, false},       {"P99 CORR", true, false}, {"CPU S/1000", true, false},
    {"WORKER", true, false},    {"RSS MIB", true, false},  {"ERRORS", true, false},
};

void put_grouped(Buf *b, uint64_t v)
{
    char digits[32];
    int n = snprintf(digits, sizeof digits, "%llu", (unsigned long long)v);
    for (int i = 0; i < n; i++) {
        if (i && (n - i) % 3 == 0) buf_putc(b, ',');
        buf_putc(b, digits[i]);
    }
}

static void cell_count(Grid *g, double v)
{
    Buf text = {0};
    if (v >= 100)
        put_grouped(&text, (uint64_t)(v + 0.5));
    else if (v > 0)
        buf_printf(&text, "%.1f", v);
    grid_cell(g, TONE_BOLD, buf_str(&text));
    buf_done(&text);
}

static void cell_ms(Grid *g, const Hist *h, double q)
{
    double ms = h ? (double)(q > 1 ? h->max : hist_at(h, q)) / 1e6 : 0;
    if (!h || !h->total)
        grid_cell(g, TONE_PLAIN, STR(""));
    else
        grid_cellf(g, TONE_PLAIN, ms < 10 ? "%.3f" : ms < 1000 ? "%.1f" : "%.0f", ms);
}

static void cell_cpu(Grid *g, double s)
{
    if (s > 0)
        grid_cellf(g, TONE_PLAIN, "%.4f", s);
    else
        grid_cell(g, TONE_PLAIN, STR(""));
}

static void add_row(Grid *g, const Row *r)
{
    grid_cell(g, TONE_PLAIN, str_from(r->name));
    if (r->connections)
        grid_cellf(g, TONE_PLAIN, "%llu", (unsigned long long)r->connections);
    else
        grid_cell(g, TONE_PLAIN, STR(""));
    cell_count(g, r->rate);
    cell_ms(g, r->latency, 0.5);
    cell_ms(g, r->latency, 0.99);
    cell_ms(g, r->latency, 0.999);
    cell_ms(g, r->latency, 2);
    cell_ms(g, r->corrected, 0.99);
    cell_cpu(g, r->server_cpu);
    cell_cpu(g, r->worker_cpu);
    if (r->rss)
        grid_cellf(g, TONE_PLAIN, "%.1f", (double)r->rss / (double)MIB);
    else
        grid_cell(g, TONE_PLAIN, STR(""));
    if (r->errors)
        grid_cellf(g, TONE_RED, "%llu", (unsigned long long)r->errors);
    else
        grid_cell(g, TONE_PLAIN, STR(""));
}

static Str without_end(const Buf *note)
{
    Str s = buf_str(note);
    while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == ';')) s.n--;
    return s;
}

static void put_legend(const Bench *b)
{
    bool closed = false, open = false, slow = false;
    for (size_t i = 0; i < b->rows_len; i++) {
        if (!b->rows[i].whole) continue;
        closed |= b->rows[i].corrected != NULL;
        open |= b->rows[i].open;
        slow |= b->rows[i].slow_disk;
    }
    puts("");
    for (size_t i = 0; i < b->rows_len; i++) {
        const Row *r = &b->rows[i];
        Str note = without_end(&r->note);
        if (r->whole && note.n) printf("%s: %.*s.\n", r->name, STR_ARG(note));
    }
    if (closed)
        puts("Latencies are of a closed loop: each client waits for its answer before it asks "
             "again, so a stall is\nseen once by each. P99 CORR is corrected for that (coordinated "
             "omission); --rate R measures an open loop.");
    if (open)
        puts("Latencies are of an open loop: they count from the moment at which a request was "
             "due, so that every\nrequest that a stall held up is counted with its delay.");
    if (slow)
        puts("NOT COMPARABLE: the disk was slow in a part of it (an fdatasync of 4 KiB took over 2 "
             "ms).");
}

void report_print(const Bench *b)
{
    Grid g;
    grid_init(&g, columns, ARRAY_LEN(columns));
    for (size_t i = 0; i < b->rows_len; i++)
        if (b->rows[i].whole) add_row(&g, &b->rows[i]);
    if (g.cells_len) {
        grid_print(&g);
        put_legend(b);
    }
    grid_done(&g);
}

/* ---- JSON ---- */

static void put_latency(Buf *b, const char *name, const Hist *h)
{
    static const struct {
        const char *name;
        double q;
    } points[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}, {"p9999", 0.9999}};
    if (!h || !h->total) return;
    buf_printf(b, ",\"%s\":{\"count\":%llu,\"mean\":%.4f", name, (unsigned long long)h->total,
               hist_mean(h) / 1e6);
    for (size_t i = 0; i < ARRAY_LEN(points); i++)
        buf_printf(b, ",\"%s\":%.4f", points[i].name, (double)hist_at(h, points[i].q) / 1e6);
    buf_printf(b, ",\"min\":%.4f,\"max\":%.4f}", (double)h->min / 1e6, (double)h->max / 1e6);
}

static void put_row(Buf *b, const Row *r)
{
    buf_puts(b, "{\"scenario\":");
    json_put_str(b, str_from(r->name));
    if (r->connections) buf_printf(b, ",\"connections\":%llu", (unsigned long long)r->connections);
    if (r->rate > 0) buf_printf(b, ",\"tasks_per_s\":%.2f", r->rate);
    if (r->latency) buf_printf(b, ",\"loop\":\"%s\"", r->open ? "open" : "closed");
    put_latency(b, "latency_ms", r->latency);
    put_latency(b, "corrected_ms", r->corrected);
    if (r->server_cpu > 0) buf_printf(b, ",\"server_cpu_s_per_1000\":%.6f", r->server_cpu);
    if (r->worker_cpu > 0) buf_printf(b, ",\"worker_cpu_s_per_1000\":%.6f", r->worker_cpu);
    if (r->rss) buf_printf(b, ",\"rss_bytes\":%llu", (unsigned long long)r->rss);
    if (r->commit_ms > 0) buf_printf(b, ",\"commit_ms\":%.4f", r->commit_ms);
    if (r->before.known)
        buf_printf(b, ",\"fdatasync_ms\":{\"p50\":%.4f,\"p99\":%.4f}",
                   (double)r->before.p50_ns / 1e6, (double)r->before.p99_ns / 1e6);
    buf_put_str(b, buf_str(&r->json));
    buf_printf(b, ",\"errors\":%llu,\"comparable\":%s,\"note\":", (unsigned long long)r->errors,
               r->slow_disk ? "false" : "true");
    json_put_str(b, without_end(&r->note));
    buf_putc(b, '}');
}

void report_json(const Bench *b)
{
    Buf text = {0};
    buf_puts(&text, "{\"version\":");
    json_put_str(&text, STR(HR_VERSION));
    buf_puts(&text, ",\"at\":");
    json_put_time(&text, wall_now_ns());
    buf_puts(&text, ",\"model\":");
    json_put_str(&text, str_from(b->set.model));
    buf_printf(&text, ",\"payload_bytes\":%zu,\"rows\":[", b->input.len);
    size_t shown = 0;
    for (size_t i = 0; i < b->rows_len; i++) {
        if (!b->rows[i].whole) continue;
        if (shown++) buf_putc(&text, ',');
        put_row(&text, &b->rows[i]);
    }
    buf_puts(&text, "]}");
    print_json(buf_str(&text));
    buf_done(&text);
}
