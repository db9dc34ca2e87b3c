/* headrace workers. */
#include "cli/client.h"
#include "cli/commands.h"

static const GridColumn columns[] = {
    {"WORKER", false, false}, {"NAME", false, true},    {"REGION", false, true},
    {"STATE", false, false},  {"DEVICES", false, true}, {"RUNNING", true, false},
    {"BUSY", true, false},    {"LOADED", false, true},
};

static Tone state_tone(Str state)
{
    if (str_eqz(state, "ready") || str_eqz(state, "online") || str_eqz(state, "live"))
        return TONE_GREEN;
    return str_eqz(state, "lost") || str_eqz(state, "dead") ? TONE_RED : TONE_YELLOW;
}

static void put_loaded(Buf *b, yyjson_val *list)
{
    yyjson_val *m;
    yyjson_arr_iter it;
    yyjson_arr_iter_init(list, &it);
    while ((m = yyjson_arr_iter_next(&it))) {
        Str name = yyjson_is_str(m) ? (Str){yyjson_get_str(m), yyjson_get_len(m)}
                                    : json_text(m, "name");
        if (!name.n) name = json_text(m, "model");
        buf_printf(b, "%s%.*s", b->len ? ", " : "", STR_ARG(name));
    }
}

static void add_row(Grid *g, yyjson_val *w)
{
    yyjson_val *devices = yyjson_obj_get(w, "devices"), *d;
    yyjson_arr_iter it;
    Buf kinds = {0}, loaded = {0};
    int64_t running = 0;
    double idle = 0;
    bool idle_known = false;
    yyjson_arr_iter_init(devices, &it);
    while ((d = yyjson_arr_iter_next(&it))) {
        int64_t memory = json_int(d, "memory_bytes", 0);
        yyjson_val *share = yyjson_obj_get(d, "idle_share"), *runs = yyjson_obj_get(d, "running");
        buf_printf(&kinds, "%s%.*s", kinds.len ? ", " : "", STR_ARG(json_text(d, "kind")));
        if (memory > 0) {
            buf_putc(&kinds, ' ');
            buf_put_size(&kinds, (uint64_t)memory);
        }
        running += yyjson_is_int(runs) ? yyjson_get_sint(runs) : (int64_t)yyjson_get_len(runs);
        if (yyjson_is_num(share)) {
            idle += yyjson_get_num(share);
            idle_known = true;
        }
        put_loaded(&loaded, yyjson_obj_get(d, "loaded"));
    }
    Str state = json_text(w, "state");
    if (!state.n) state = json_text(w, "status");
    grid_cell(g, TONE_PLAIN, json_text(w, "id"));
    grid_cell(g, TONE_PLAIN, json_text(w, "name"));
    grid_cell(g, TONE_PLAIN, json_text(w, "region"));
    grid_cell(g, state_tone(state), state);
    grid_cell(g, TONE_PLAIN, buf_str(&kinds));
    grid_cellf(g, TONE_PLAIN, "%lld", (long long)running);
    size_t n = yyjson_get_len(devices);
    if (idle_known && n)
        grid_cellf(g, TONE_PLAIN, "%.0f %%", 100 - 100 * idle / (double)n);
    else
        grid_cell(g, TONE_PLAIN, STR(""));
    grid_cell(g, TONE_DIM, buf_str(&loaded));
    buf_done(&kinds);
    buf_done(&loaded);
}

static int show(const Client *c, yyjson_val *root)
{
    (void)c;
    Grid g;
    yyjson_val *w;
    yyjson_arr_iter it;
    grid_init(&g, columns, ARRAY_LEN(columns));
    yyjson_arr_iter_init(yyjson_obj_get(root, "workers"), &it);
    while ((w = yyjson_arr_iter_next(&it))) add_row(&g, w);
    if (g.cells_len)
        grid_print(&g);
    else
        puts("no workers: tasks wait until one joins (headrace worker --help)");
    grid_done(&g);
    return CLI_OK;
}

static int run(const Args *a)
{
    return client_show(a, &(Call){.method = "GET", .path = "/v1/workers"}, show);
}

const Command command_workers = {
    .name = "workers",
    .words = "",
    .summary = "List the workers: their devices, what they hold and run",
    .client = true,
    .examples = "  headrace workers\n"
                "  headrace workers --json | jq '.workers[].name'",
    .run = run,
};
