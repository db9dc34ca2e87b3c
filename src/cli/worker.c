/* headrace worker: runs models here for a server anywhere. */
#include "cli/commands.h"

#include "node/config.h"
#include "io/disk.h"
#include "worker/worker.h"

#include <stdlib.h>
#include <string.h>
#include <errno.h>

static const Option options[] = {
    {"server", 's', "URL", "the server; else $HEADRACE_SERVER", NULL},
    {"key-file", 0, "FILE", "file with the worker key; else $HEADRACE_WORKER_KEY", NULL},
    {"models", 'm', "DIR", "model repository, may be repeated", NULL},
    {"devices", 0, "N", "executors in this process, default 1", NULL},
    {"device", 0, "I", "be the only device, with this number", NULL},
    {"threads", 0, "N", "of each device; default: the cores, shared", NULL},
    {"memory", 0, "SIZE", "for loaded models, as 8GiB; default: what is free", NULL},
    {"name", 0, "NAME", "default: the host's name", NULL},
    {"region", 0, "REGION", "where it stands", NULL},
    {"data", 'd', "DIR", "scratch files and optimised models; default below /tmp", NULL},
    {"onnxruntime", 0, "FILE", "the ONNX Runtime library; default: look for it", NULL},
    {"die-with-parent", 0, NULL, "end when the starting process ends", NULL},
    {"log-level", 0, "LEVEL", "debug, info (default), warn or error", "debug info warn error"},
    {"log-format", 0, "FORMAT", "text (default) or json", "text json"},
};

/* One line, without its end. NULL: none. Owned. */
static char *read_key(const char *file)
{
    char line[512];
    FILE *f = fopen(file, "re");
    char *got = f ? fgets(line, sizeof line, f) : NULL;
    if (f) fclose(f);
    if (!got) return NULL;
    size_t n = strcspn(line, " \r\n");
    return n ? mem_dup(line, n) : NULL;
}

static int read_numbers(const Args *a, WorkerOptions *o)
{
    uint64_t devices = 0, device = UINT64_MAX, threads = 0;
    int status = args_u64(a, "devices", 1, 256, &devices);
    if (status == CLI_OK) status = args_u64(a, "device", 0, 255, &device);
    if (status == CLI_OK) status = args_u64(a, "threads", 0, 1024, &threads);
    const char *memory = args_text(a, "memory", NULL);
    if (status == CLI_OK && memory && config_parse_size(str_from(memory), &o->memory_bytes))
        status = fail(CLI_USAGE, "--memory '%s' is no size: write 8GiB", memory);
    o->devices = (uint32_t)devices;
    o->device_index = device == UINT64_MAX ? -1 : (int)device;
    o->threads = (uint32_t)threads;
    return status;
}

static int setup_log(const Args *a)
{
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    const char *level = args_text(a, "log-level", "info"),
               *format = args_text(a, "log-format", "text");
    size_t i = 0;
    while (i < ARRAY_LEN(levels) && strcmp(level, levels[i]) != 0) i++;
    if (i == ARRAY_LEN(levels))
        return fail(CLI_USAGE, "--log-level '%s' is none of debug, info, warn or error", level);
    bool json = !strcmp(format, "json");
    if (!json && strcmp(format, "text") != 0)
        return fail(CLI_USAGE, "--log-format '%s' is neither text nor json", format);
    say_setup((SayLevel)i, json ? SAY_JSON : SAY_TEXT, "worker");
    return CLI_OK;
}

static int run(const Args *a)
{
    WorkerOptions o = {
        .server_url = args_text(a, "server", getenv("HEADRACE_SERVER")),
        .name = args_text(a, "name", NULL),
        .region = args_text(a, "region", NULL),
        .ort_path = args_text(a, "onnxruntime", NULL),
        .die_with_parent = args_has(a, "die-with-parent"),
    };
    const char *file = args_text(a, "key-file", NULL), *model_dir = NULL;
    char *key = NULL;
    if (!o.server_url || !*o.server_url)
        return fail(CLI_USAGE, "worker needs --server URL, as http://gpu-server:8700");
    int status = read_numbers(a, &o);
    if (status == CLI_OK) status = setup_log(a);
    if (status != CLI_OK) return status;
    if (file && !(key = read_key(file)))
        return fail(CLI_USAGE, "--key-file %s: no key can be read from it", file);
    o.key = key ? key : getenv("HEADRACE_WORKER_KEY");
    Buf work = {0}, cache = {0};
    const char *data = args_text(a, "data", NULL);
    if (data) {
        buf_printf(&work, "%s/work-%d", data, MAX(o.device_index, 0));
        buf_printf(&cache, "%s/cache", data);
        if (disk_make_dirs(buf_z(&cache)))
            return fail(CLI_USAGE, "--data %s: cannot make the folder: %s", data, strerror(errno));
        o.work_dir = buf_z(&work);
        o.cache_dir = buf_z(&cache);
    }
    const char **dirs = NULL;
    for (size_t at = 0; (at = args_each(a, "models", at, &model_dir));) {
        dirs = mem_grow(dirs, (o.model_dirs_len + 1) * sizeof *dirs);
        dirs[o.model_dirs_len++] = model_dir;
    }
    o.model_dirs = dirs;
    status = worker_run(&o);
    mem_free(dirs);
    buf_done(&work);
    buf_done(&cache);
    mem_free(key);
    return status;
}

const Command command_worker = {
    .name = "worker",
    .words = "",
    .summary = "Run models on this machine for a server anywhere",
    .about =
        "The server must know the key, with the scope worker: headrace key new --scopes worker.\n"
        "SIGTERM or Ctrl-C finishes what runs and ends.",
    .options = options,
    .options_len = ARRAY_LEN(options),
    .examples =
        "  headrace worker --server http://10.0.0.5:8700 --key-file worker.key --models models\n"
        "  headrace worker --server http://10.0.0.5:8700 --devices 2 --threads 8 -m models",
    .run = run,
};
