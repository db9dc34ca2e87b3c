/* headrace models. */
#include "cli/client.h"
#include "cli/commands.h"

static const GridColumn columns[] = {
    {"MODEL", false, true},  {"ENGINE", false, false}, {"BATCH", true, false},
    {"STEP", true, false},   {"RUN", true, false},     {"LOAD", true, false},
    {"MEMORY", true, false}, {"LOADED", true, false},  {"DESCRIPTION", false, true},
};

static void cell_ms(Grid *g, yyjson_val *ms)
{
    Buf b = {0};
    if (yyjson_is_num(ms) && yyjson_get_num(ms) > 0)
        buf_put_duration(&b, (int64_t)(yyjson_get_num(ms) * 1e6));
    grid_cell(g, TONE_PLAIN, buf_str(&b));
    buf_done(&b);
}

static void add_row(Grid *g, yyjson_val *m)
{
    Buf b = {0};
    Str name = json_text(m, "name"), version = json_text(m, "version");
    int64_t memory = json_int(m, "memory_bytes", 0), batch = json_int(m, "max_batch", 0);
    yyjson_val *on = yyjson_obj_get(m, "loaded_on");
    buf_put_str(&b, name);
    if (version.n) buf_printf(&b, ":%.*s", STR_ARG(version));
    if (yyjson_is_true(yyjson_obj_get(m, "paused"))) buf_puts(&b, " (paused)");
    grid_cell(g, TONE_BOLD, buf_str(&b));
    grid_cell(g, TONE_PLAIN, json_text(m, "engine"));
    if (batch)
        grid_cellf(g, TONE_PLAIN, "%lld", (long long)batch);
    else
        grid_cell(g, TONE_PLAIN, STR(""));
    cell_ms(g, yyjson_obj_get(yyjson_obj_get(m, "unit_ms"), "1"));
    cell_ms(g, yyjson_obj_get(m, "run_ms"));
    cell_ms(g, yyjson_obj_get(m, "load_ms"));
    buf_clear(&b);
    if (memory > 0) buf_put_size(&b, (uint64_t)memory);
    grid_cell(g, TONE_PLAIN, buf_str(&b));
    grid_cellf(g, yyjson_get_len(on) ? TONE_GREEN : TONE_DIM, "%zu", yyjson_get_len(on));
    grid_cell(g, TONE_DIM, json_text(m, "description"));
    buf_done(&b);
}

static int show_all(const Client *c, yyjson_val *root)
{
    (void)c;
    Grid g;
    yyjson_val *m;
    yyjson_arr_iter it;
    grid_init(&g, columns, ARRAY_LEN(columns));
    yyjson_arr_iter_init(yyjson_obj_get(root, "models"), &it);
    while ((m = yyjson_arr_iter_next(&it))) add_row(&g, m);
    if (g.cells_len)
        grid_print(&g);
    else
        puts("no models: no worker that has any has joined yet");
    grid_done(&g);
    return CLI_OK;
}

static int show_one(const Client *c, yyjson_val *root)
{
    (void)c;
    print_value(root);
    return CLI_OK;
}

static int run(const Args *a)
{
    Buf path = {0};
    if (a->words_len)
        put_path(&path, "/v1/models/", a->words[0], "");
    else
        buf_puts(&path, "/v1/models");
    Call call = {.method = "GET", .path = buf_z(&path)};
    int status = client_show(a, &call, a->words_len ? show_one : show_all);
    buf_done(&path);
    return status;
}

const Command command_models = {
    .name = "models",
    .words = "[MODEL]",
    .summary = "List the models that can run, or tell all about one",
    .client = true,
    .words_max = 1,
    .examples = "  headrace models\n"
                "  headrace models fashion-diffusion",
    .run = run,
};
