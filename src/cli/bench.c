/* headrace bench: options, and one scenario after the other. */
#include "cli/bench.h"
#include "cli/commands.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

static const Option options[] = {
    {"scenario", 'S', "NAMES", "a list of those above, or all", NULL},
    {"server", 's', "URL", "measure this server; else one is started for each scenario", NULL},
    {"start", 0, NULL, "start one in any case: the default without --server", NULL},
    {"data", 0, "DIR", "where its temporary data directory goes, or the server's own; /var/tmp",
     NULL},
    {"models", 'm', "DIR", "model repository of a server that is started", NULL},
    {"key-file", 0, "FILE", "file with the API key; else $HEADRACE_API_KEY", NULL},
    {"connections", 'c', "N", "clients at a time; default 64, of batches 32", NULL},
    {"duration", 'd', "TIME", "measured time of each, default 10s", NULL},
    {"warmup", 0, "TIME", "before it, default 2s", NULL},
    {"rate", 'r', "R", "open loop: R tasks a second; else as fast as it is answered", NULL},
    {"payload", 0, "BYTES", "size of a task's input, default 256", NULL},
    {"input", 'i', "JSON", "a task's input instead", NULL},
    {"batch", 0, "N", "tasks of a batch, default 100", NULL},
    {"tasks", 'n', "N", "to queue, for memory (1000000) and backlog (10000000)", NULL},
    {"model", 0, "NAME", "default echo", NULL},
    {"patience", 0, "TIME", "wait so long for a slow disk, default 2m", NULL},
    {"json", 'j', NULL, "print JSON, for programs", NULL},
};

/* ---- Ctrl-C ---- */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

bool bench_interrupted(void)
{
    return interrupted;
}

/* ---- settings ---- */

static int read_numbers(const Args *a, Settings *s)
{
    uint64_t rate = 0;
    int status = args_u64(a, "connections", 1, 100000, &s->connections);
    if (status == CLI_OK) status = args_u64(a, "payload", 2, 60000, &s->payload);
    if (status == CLI_OK) status = args_u64(a, "batch", 1, 10000, &s->lines);
    if (status == CLI_OK) status = args_u64(a, "tasks", 1, 1000000000, &s->tasks);
    if (status == CLI_OK) status = args_u64(a, "rate", 1, 100000000, &rate);
    if (status == CLI_OK) status = args_seconds(a, "duration", &s->duration_s);
    if (status == CLI_OK) status = args_seconds(a, "warmup", &s->warmup_s);
    if (status == CLI_OK) status = args_seconds(a, "patience", &s->patience_s);
    if (status == CLI_OK && s->duration_s < 0.1)
        status = fail(CLI_USAGE, "--duration should be 0.1s at least");
    s->rate = (double)rate;
    return status;
}

static int read_settings(const Args *a, Settings *ret)
{
    Settings s = {.own = args_has(a, "start") || !args_has(a, "server"),
                  .data = args_text(a, "data", NULL),
                  .models = args_text(a, "models", NULL),
                  .model = args_text(a, "model", "echo"),
                  .input = args_text(a, "input", NULL),
                  .payload = 256,
                  .lines = 100,
                  .duration_s = 10,
                  .warmup_s = 2,
                  .patience_s = 120,
                  .json = args_has(a, "json")};
    if (args_has(a, "start") && args_has(a, "server"))
        return fail(CLI_USAGE, "--start and --server exclude each other");
    if (args_has(a, "models") && !s.own)
        return fail(CLI_USAGE, "--models is for a server that bench starts; leave --server out");
    for (const char *p = s.model; *p; p++)
        if (*p <= ' ' || *p > '~' || *p == '"' || *p == '\\')
            return fail(CLI_USAGE, "--model '%s' is no name of a model", s.model);
    int status = read_numbers(a, &s);
    if (status == CLI_OK) *ret = s;
    return status;
}

/* A string of so many bytes as JSON, or what was given, on one line. */
static int make_input(const Settings *s, Buf *ret)
{
    if (!s->input) {
        buf_putc(ret, '"');
        while (ret->len + 1 < s->payload) buf_putc(ret, 'x');
        buf_putc(ret, '"');
        return CLI_OK;
    }
    yyjson_read_err e = {0};
    yyjson_doc *doc = yyjson_read_opts((char *)s->input, strlen(s->input),
                                       YYJSON_READ_NUMBER_AS_RAW, NULL, &e);
    if (!doc) return fail(CLI_USAGE, "--input is no valid JSON: %s", e.msg);
    size_t len = 0;
    char *text = yyjson_write(doc, 0, &len);
    CHECK(text);
    buf_put(ret, text, len);
    free(text);
    yyjson_doc_free(doc);
    return CLI_OK;
}

/* ---- scenarios ---- */

static bool chosen(const char *list, const Scenario *s)
{
    if (!list) return s->usual;
    if (!strcmp(list, "all")) return true;
    for (size_t n = strlen(s->name); *list; list += *list == ',') {
        size_t len = strcspn(list, ",");
        if (len == n && !strncmp(list, s->name, n)) return true;
        list += len;
    }
    return false;
}

static int check_list(const char *list)
{
    if (!list || !strcmp(list, "all")) return CLI_OK;
    while (*list) {
        const char *names[16];
        size_t len = strcspn(list, ","), n = 0;
        bool known = false;
        for (; scenarios[n].name; n++) {
            names[n] = scenarios[n].name;
            known |= strlen(names[n]) == len && !strncmp(list, names[n], len);
        }
        names[n] = NULL;
        if (!known) {
            const char *near = nearest_name((Str){list, len}, names);
            fail(CLI_USAGE, "there is no scenario '%.*s'%s%s%s", (int)MIN(len, (size_t)60), list,
                 near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
            hint("headrace bench --help lists them");
            return CLI_USAGE;
        }
        list += len;
        list += *list == ',';
    }
    return CLI_OK;
}

static int run_all(Bench *b, const char *list)
{
    int status = CLI_OK;
    for (const Scenario *s = scenarios; s->name && !interrupted; s++) {
        if (!chosen(list, s)) continue;
        bench_say(b, "%s …", s->name);
        int one = s->run(b);
        bench_end(b);
        if (status == CLI_OK) status = one;
        if (one != CLI_OK) break;
    }
    if (status == CLI_OK) status = b->status;
    return interrupted ? CLI_INTERRUPTED : status;
}

static void rows_done(Bench *b)
{
    for (size_t i = 0; i < b->rows_len; i++) {
        Row *r = &b->rows[i];
        mem_free(r->latency);
        mem_free(r->corrected);
        buf_done(&r->note);
        buf_done(&r->json);
    }
    mem_free(b->rows);
}

static int run(const Args *a)
{
    Bench b = {0};
    const char *list = args_text(a, "scenario", NULL);
    int status = read_settings(a, &b.set);
    if (status == CLI_OK) status = check_list(list);
    if (status == CLI_OK) status = make_input(&b.set, &b.input);
    if (status == CLI_OK && !b.set.own) status = client_open(a, &b.client);
    if (status == CLI_OK) {
        struct sigaction act = {.sa_handler = on_interrupt};
        sigaction(SIGINT, &act, NULL);
        sigaction(SIGTERM, &act, NULL);
        b.result = mem_new(sizeof *b.result);
        status = run_all(&b, list);
        if (b.set.json)
            report_json(&b);
        else
            report_print(&b);
    }
    bench_end(&b);
    rows_done(&b);
    mem_free(b.result);
    buf_done(&b.input);
    target_done(&b.target);
    client_done(&b.client);
    return status;
}

const Command command_bench = {
    .name = "bench",
    .words = "",
    .summary = "Measure a server under load: rates, latencies, CPU, memory",
    .about =
        "Scenarios:\n"
        "  submit     durable submits, a task a request\n"
        "  roundtrip  a task a request, answered with its result\n"
        "  batch      the same by tasks:batch\n"
        "  latency    one client alone, beside what an fdatasync takes on the same disk\n"
        "  busy       how busy the devices are while work waits\n"
        "  memory     queues a million tasks: the server's memory, and a restart with them\n"
        "  backlog    CPU a task with ten million queued and with ten thousand (takes 3 GiB of\n"
        "             memory, 8 GiB of disk)\n"
        "Without names: the first four. Without --server each one has a fresh server of its own\n"
        "in a temporary directory. CPU S/1000 is what the server's process takes for 1,000 tasks,\n"
        "WORKER what its workers do. The generator needs a core: on a busy machine figures fall.",
    .options = options,
    .options_len = ARRAY_LEN(options),
    .examples = "  headrace bench\n"
                "  headrace bench -S roundtrip --rate 5000 --duration 30s --data /srv/headrace\n"
                "  headrace bench -S busy --models examples/models --model fashion-diffusion \\\n"
                "      -i '{\"prompt\": \"a sneaker\"}'",
    .run = run,
};
