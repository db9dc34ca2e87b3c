/* headrace models. */
#include "cli/client.h"
#include "cli/commands.h"

static const GridColumn columns[] = {
    {"MODEL", false, true},       {"ENGINE", false, false}, {"BATCH", true, false},
    {"STEP", true, false},        {"RUN", true, false},     {"LOAD", true, false},
    {"MEMORY", true, false},      {"WORKERS", true, false}, {"LOADED", true, false},
    {"DESCRIPTION", false, true},
};

/* On how many devices it is loaded, of those that are to be kept warm. */
static void cell_loaded(Grid *g, yyjson_val *m)
{
    size_t on = yyjson_get_len(yyjson_obj_get(m, "loaded_on"));
    yyjson_val *warm = yyjson_obj_get(m, "warm");
    int64_t want = json_int(warm, "replicas", 0);
    if (want <= 0) {
        grid_cellf(g, on ? TONE_GREEN : TONE_DIM, "%zu", on);
        return;
    }
    bool enough = json_int(warm, "loaded", 0) >= want;
    grid_cellf(g, enough ? TONE_GREEN : TONE_YELLOW, "%zu of %lld", on, (long long)want);
}

/* What people should know of it first. */
static void cell_news(Grid *g, yyjson_val *m)
{
    Str reason = json_text(m, "reason"), problem = json_text(m, "problem");
    bool paused = yyjson_is_true(yyjson_obj_get(m, "paused"));
    if (reason.n && !paused)
        grid_cell(g, TONE_RED, reason);
    else if (problem.n)
        grid_cell(g, TONE_RED, problem);
    else
        grid_cell(g, TONE_DIM, json_text(yyjson_obj_get(m, "info"), "description"));
}

static void cell_ms(Grid *g, yyjson_val *ms)
{
    Buf b = {0};
    if (yyjson_is_num(ms) && yyjson_get_num(ms) > 0)
        buf_put_duration(&b, (int64_t)(yyjson_get_num(ms) * 1e6));
    grid_cell(g, TONE_PLAIN, buf_str(&b));
    buf_done(&b);
}

/* One version of a model. */
static void add_row(Grid *g, yyjson_val *m)
{
    Buf b = {0};
    yyjson_val *info = yyjson_obj_get(m, "info");
    int64_t memory = json_int(m, "memory_bytes", 0), batch = json_int(m, "max_batch", 0);
    int64_t workers = json_int(m, "workers", 0);
    buf_printf(&b, "%.*s:%.*s", STR_ARG(json_text(m, "name")), STR_ARG(json_text(m, "version")));
    if (yyjson_is_true(yyjson_obj_get(m, "paused"))) buf_puts(&b, " (paused)");
    grid_cell(g, TONE_BOLD, buf_str(&b));
    grid_cell(g, TONE_PLAIN, json_text(info, "engine"));
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
    grid_cellf(g, workers ? TONE_PLAIN : TONE_RED, "%lld", (long long)workers);
    cell_loaded(g, m);
    cell_news(g, m);
    buf_done(&b);
}

static void add_versions(Grid *g, yyjson_val *model)
{
    yyjson_val *v;
    yyjson_arr_iter it;
    yyjson_arr_iter_init(yyjson_obj_get(model, "versions"), &it);
    while ((v = yyjson_arr_iter_next(&it))) add_row(g, v);
}

static int show(const Client *c, yyjson_val *root)
{
    (void)c;
    Grid g;
    yyjson_val *m;
    yyjson_arr_iter it;
    grid_init(&g, columns, ARRAY_LEN(columns));
    yyjson_arr_iter_init(yyjson_obj_get(root, "models"), &it);
    while ((m = yyjson_arr_iter_next(&it))) add_versions(&g, m);
    if (g.cells_len)
        grid_print(&g);
    else
        puts("no models: no worker that has any has joined yet");
    grid_done(&g);
    return CLI_OK;
}

/* ---- one model, line by line ---- */

static void put_pair(Buf *b, const char *label, Str text)
{
    bool coloured = terminal()->out_colour;
    if (!text.n) return;
    buf_printf(b, "%s%-13s%s ", tone_begin(coloured, TONE_DIM), label,
               tone_end(coloured, TONE_DIM));
    put_clean(b, text, false);
    buf_putc(b, '\n');
}

static void put_ms(Buf *b, const char *label, yyjson_val *ms)
{
    Buf text = {0};
    if (yyjson_is_num(ms)) buf_put_duration(&text, (int64_t)(yyjson_get_num(ms) * 1e6));
    put_pair(b, label, buf_str(&text));
    buf_done(&text);
}

static void put_steps(Buf *b, yyjson_val *unit_ms)
{
    Buf text = {0};
    yyjson_val *key;
    yyjson_obj_iter it;
    yyjson_obj_iter_init(unit_ms, &it);
    while ((key = yyjson_obj_iter_next(&it))) {
        double ms = yyjson_get_num(yyjson_obj_iter_get_val(key));
        buf_printf(&text, "%s%s: ", text.len ? ", " : "", yyjson_get_str(key));
        buf_put_duration(&text, (int64_t)(ms * 1e6));
    }
    put_pair(b, "step by batch", buf_str(&text));
    buf_done(&text);
}

static void put_places(Buf *b, yyjson_val *on)
{
    Buf text = {0};
    yyjson_val *p;
    yyjson_arr_iter it;
    yyjson_arr_iter_init(on, &it);
    while ((p = yyjson_arr_iter_next(&it)))
        buf_printf(&text, "%s%.*s device %lld", text.len ? ", " : "",
                   STR_ARG(json_text(p, "worker")), (long long)json_int(p, "device", 0));
    if (!text.len) buf_puts(&text, "nowhere: it is when the first task comes");
    put_pair(b, "loaded on", buf_str(&text));
    buf_done(&text);
}

static void put_warm(Buf *b, yyjson_val *warm)
{
    Buf text = {0};
    Str why = json_text(warm, "reason");
    if (!yyjson_is_obj(warm)) return;
    buf_printf(&text, "%lld of %lld devices%s", (long long)json_int(warm, "loaded", 0),
               (long long)json_int(warm, "replicas", 0),
               yyjson_is_true(yyjson_obj_get(warm, "ordered")) ? ", as ordered" : "");
    if (why.n) buf_printf(&text, ": %.*s", STR_ARG(why));
    put_pair(b, "kept warm", buf_str(&text));
    buf_done(&text);
}

static void put_version(Buf *b, yyjson_val *m)
{
    Buf text = {0};
    yyjson_val *info = yyjson_obj_get(m, "info");
    buf_printf(&text, "%.*s:%.*s", STR_ARG(json_text(m, "name")), STR_ARG(json_text(m, "version")));
    if (yyjson_is_true(yyjson_obj_get(m, "paused"))) buf_puts(&text, " (paused)");
    put_pair(b, "model", buf_str(&text));
    put_pair(b, "description", json_text(info, "description"));
    put_pair(b, "engine", json_text(info, "engine"));
    put_pair(b, "cannot start", json_text(m, "reason"));
    put_pair(b, "problem", json_text(m, "problem"));
    put_pair(b, "digest", json_text(m, "digest"));
    put_places(b, yyjson_obj_get(m, "loaded_on"));
    put_warm(b, yyjson_obj_get(m, "warm"));
    buf_clear(&text);
    buf_printf(&text, "%lld", (long long)json_int(m, "workers", 0));
    put_pair(b, "workers", buf_str(&text));
    buf_clear(&text);
    buf_put_size(&text, (uint64_t)MAX(json_int(m, "memory_bytes", 0), 0));
    put_pair(b, "memory", buf_str(&text));
    buf_clear(&text);
    bool alone = json_int(m, "max_batch", 0) <= 1;
    if (alone)
        buf_puts(&text, "one task at a time");
    else
        buf_printf(&text, "at most %lld", (long long)json_int(m, "max_batch", 0));
    if (!alone && yyjson_is_true(yyjson_obj_get(m, "continuous")))
        buf_puts(&text, ", joining at any step");
    if (json_int(m, "batch_delay_ms", 0) > 0)
        buf_printf(&text, ", waits up to %lld ms for companions",
                   (long long)json_int(m, "batch_delay_ms", 0));
    put_pair(b, "batch", buf_str(&text));
    put_steps(b, yyjson_obj_get(m, "unit_ms"));
    put_ms(b, "run", yyjson_obj_get(m, "run_ms"));
    put_ms(b, "load", yyjson_obj_get(m, "load_ms"));
    buf_clear(&text);
    buf_printf(&text, "%lld succeeded, %lld failed", (long long)json_int(m, "succeeded", 0),
               (long long)json_int(m, "failed", 0));
    put_pair(b, "tasks", buf_str(&text));
    buf_done(&text);
}

static int show_one(const Client *c, yyjson_val *root)
{
    (void)c;
    Buf b = {0};
    yyjson_val *v;
    yyjson_arr_iter it;
    yyjson_arr_iter_init(yyjson_obj_get(root, "versions"), &it);
    while ((v = yyjson_arr_iter_next(&it))) {
        if (b.len) buf_putc(&b, '\n');
        put_version(&b, v);
    }
    out_buf(&b);
    buf_done(&b);
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
    int status = client_show(a, &call, a->words_len ? show_one : show);
    buf_done(&path);
    return status;
}

const Command command_models = {
    .name = "models",
    .words = "[MODEL]",
    .summary = "List the models that can run, or tell all about one",
    .about = "With MODEL: its versions, where they are loaded, what was measured, and why its\n"
             "tasks wait when they cannot start.",
    .client = true,
    .words_max = 1,
    .examples = "  headrace models\n"
                "  headrace models fashion-diffusion",
    .run = run,
};
