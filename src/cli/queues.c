/* headrace queues. */
#include "cli/client.h"
#include "cli/commands.h"

static const char *const classes[] = {"critical", "standard", "batch", "harvest"};

static const GridColumn columns[] = {
    {"MODEL", false, true},        {"QUEUED", true, false},  {"CRITICAL", true, false},
    {"STANDARD", true, false},     {"BATCH", true, false},   {"HARVEST", true, false},
    {"DELAYED", true, false},      {"RUNNING", true, false}, {"OLDEST", true, false},
    {"CANNOT START", false, true},
};

static void cell_count(Grid *g, yyjson_val *v)
{
    int64_t n = yyjson_is_int(v) ? yyjson_get_sint(v) : 0;
    grid_cellf(g, n ? TONE_PLAIN : TONE_DIM, "%lld", (long long)n);
}

static void add_row(Grid *g, yyjson_val *q)
{
    Buf age = {0};
    double oldest = yyjson_get_num(yyjson_obj_get(q, "oldest_age_s"));
    yyjson_val *ready = yyjson_obj_get(q, "ready");
    grid_cellf(g, TONE_BOLD, "%.*s:%.*s", STR_ARG(json_text(q, "model")),
               STR_ARG(json_text(q, "version")));
    cell_count(g, yyjson_obj_get(q, "queued"));
    for (size_t i = 0; i < ARRAY_LEN(classes); i++)
        cell_count(g, yyjson_obj_get(ready, classes[i]));
    cell_count(g, yyjson_obj_get(q, "delayed"));
    cell_count(g, yyjson_obj_get(q, "running"));
    if (oldest > 0 && oldest < 1e9) put_age(&age, (int64_t)(oldest * 1e9));
    grid_cell(g, TONE_PLAIN, buf_str(&age));
    grid_cell(g, TONE_RED, json_text(q, "reason"));
    buf_done(&age);
}

static int show(const Client *c, yyjson_val *root)
{
    (void)c;
    Grid g;
    yyjson_val *q;
    yyjson_arr_iter it;
    grid_init(&g, columns, ARRAY_LEN(columns));
    yyjson_arr_iter_init(yyjson_obj_get(root, "queues"), &it);
    while ((q = yyjson_arr_iter_next(&it))) add_row(&g, q);
    if (g.cells_len)
        grid_print(&g);
    else
        puts("nothing is queued or running");
    grid_done(&g);
    return CLI_OK;
}

static int run(const Args *a)
{
    return client_show(a, &(Call){.method = "GET", .path = "/v1/queues"}, show);
}

const Command command_queues = {
    .name = "queues",
    .words = "",
    .summary = "Show what waits: how much, and for how long",
    .about = "A row for each model that has tasks waiting or running; CANNOT START says why\n"
             "none of them can.",
    .client = true,
    .examples = "  headrace queues\n"
                "  headrace queues --json",
    .run = run,
};
