/* headrace tasks: the list, newest first, page by page. */
#include "cli/client.h"
#include "cli/commands.h"

#include <string.h>

#define PAGE 100

static const Option options[] = {
    {"status", 0, "STATUS", "queued, running, succeeded, failed, canceled or expired",
     "queued running succeeded failed canceled expired"},
    {"model", 'm', "MODEL", "of this model", NULL},
    {"priority", 'p', "PRIORITY", "critical, standard or batch", "critical standard batch"},
    {"tenant", 0, "TENANT", "of this tenant (with a key that may)", NULL},
    {"created-after", 0, "TIME", "as 2026-11-22T14:00:00Z", NULL},
    {"limit", 'n', "N", "at most so many, default 20", NULL},
    {"quiet", 'q', NULL, "ids only", NULL},
};
static const char *const filters[] = {"status", "model", "priority", "tenant", "created-after"};

static const GridColumn columns[] = {
    {"TASK", false, false},    {"MODEL", false, true}, {"STATUS", false, false},
    {"PRIORITY", false, true}, {"AGE", true, false},   {"TOOK", true, false},
    {"DETAIL", false, true},
};

static void put_detail(Buf *b, yyjson_val *task)
{
    yyjson_val *progress = yyjson_obj_get(task, "progress"), *error = yyjson_obj_get(task, "error");
    Str status = json_text(task, "status");
    int64_t ahead = json_int(yyjson_obj_get(task, "queue"), "ahead", -1);
    if (str_eqz(status, "running") && json_int(progress, "steps", 0) > 1)
        buf_printf(b, "step %lld/%lld", (long long)json_int(progress, "step", 0),
                   (long long)json_int(progress, "steps", 0));
    else if (str_eqz(status, "queued") && ahead >= 0)
        buf_printf(b, "%lld ahead", (long long)ahead);
    else if (yyjson_is_obj(error))
        buf_put_str(b, json_text(error, "message"));
}

static void add_row(Grid *g, yyjson_val *task, int64_t now)
{
    Str status = json_text(task, "status"), version = json_text(task, "version");
    int64_t created = 0;
    Buf b = {0};
    grid_cell(g, TONE_PLAIN, json_text(task, "id"));
    buf_put_str(&b, json_text(task, "model"));
    if (version.n) buf_printf(&b, ":%.*s", STR_ARG(version));
    grid_cell(g, TONE_PLAIN, buf_str(&b));
    grid_cell(g, task_tone(status), status);
    grid_cell(g, TONE_PLAIN, json_text(task, "priority"));
    buf_clear(&b);
    if (parse_time(json_text(task, "created_at"), &created) == 0) put_age(&b, now - created);
    grid_cell(g, TONE_PLAIN, buf_str(&b));
    buf_clear(&b);
    put_task_took(&b, task, now);
    grid_cell(g, TONE_PLAIN, buf_str(&b));
    buf_clear(&b);
    put_detail(&b, task);
    grid_cell(g, str_eqz(status, "failed") ? TONE_RED : TONE_DIM, buf_str(&b));
    buf_done(&b);
}

static void put_query(const Args *a, Buf *path)
{
    for (size_t i = 0; i < ARRAY_LEN(filters); i++) {
        const char *value = args_text(a, filters[i], NULL);
        if (!value) continue;
        buf_printf(path,
                   "&%s=", strcmp(filters[i], "created-after") ? filters[i] : "created_after");
        http_url_escape(path, str_from(value));
    }
}

typedef struct {
    const Args *args;
    Grid grid;
    uint64_t left;
    bool quiet, more;
    Buf cursor; /* empty: the first page */
} Listing;

static int take_page(Listing *l, const Client *c, const HttpReply *r)
{
    int status = CLI_OK;
    int64_t now = wall_now_ns();
    yyjson_doc *doc = reply_json(c, r, &status);
    yyjson_val *root = yyjson_doc_get_root(doc), *task;
    yyjson_arr_iter it;
    yyjson_arr_iter_init(yyjson_obj_get(root, "tasks"), &it);
    while (l->left && (task = yyjson_arr_iter_next(&it))) {
        Str id = json_text(task, "id");
        if (l->quiet) {
            Buf line = {0};
            put_clean(&line, id, false);
            buf_putc(&line, '\n');
            out_buf(&line);
            buf_done(&line);
        } else {
            add_row(&l->grid, task, now);
        }
        l->left--;
    }
    buf_clear(&l->cursor);
    buf_put_str(&l->cursor, json_text(root, "next"));
    l->more = l->cursor.len != 0;
    yyjson_doc_free(doc);
    return status;
}

static int read_page(Listing *l, const Client *c)
{
    Buf path = {0};
    HttpReply r = {0};
    buf_printf(&path, "/v1/tasks?limit=%llu", (unsigned long long)MIN(l->left, PAGE));
    put_query(l->args, &path);
    if (l->cursor.len) {
        buf_puts(&path, "&cursor=");
        http_url_escape(&path, buf_str(&l->cursor));
    }
    int status = client_call(c, &(Call){.method = "GET", .path = buf_z(&path)}, &r);
    if (status == CLI_OK && c->json) print_json(buf_str(&r.body));
    if (status == CLI_OK) status = take_page(l, c, &r);
    http_reply_done(&r);
    buf_done(&path);
    return status;
}

static int run(const Args *a)
{
    Client c = {0};
    Listing l = {.args = a, .left = 20, .quiet = args_has(a, "quiet"), .more = true};
    int status = args_u64(a, "limit", 1, 1000000, &l.left);
    if (status == CLI_OK) status = client_open(a, &c);
    if (status != CLI_OK) return status;
    if (l.quiet && !args_has(a, "limit")) l.left = 1000000;
    grid_init(&l.grid, columns, ARRAY_LEN(columns));
    while (status == CLI_OK && l.more && l.left) status = read_page(&l, &c);
    if (status == CLI_OK && !c.json && !l.quiet) {
        if (l.grid.cells_len)
            grid_print(&l.grid);
        else
            puts("no tasks");
        if (l.more) hint("there are more: --limit N shows N");
    }
    grid_done(&l.grid);
    buf_done(&l.cursor);
    client_done(&c);
    return status;
}

const Command command_tasks = {
    .name = "tasks",
    .words = "",
    .summary = "List tasks, the newest first",
    .about = "Live and finished ones, as far back as they are kept (retention,\n"
             "history.max_size).",
    .options = options,
    .options_len = ARRAY_LEN(options),
    .client = true,
    .examples = "  headrace tasks --status failed --limit 50\n"
                "  headrace tasks --model sdxl --json | jq '.tasks[].id'",
    .run = run,
};
