/* Programs as models: the protocol, and every way for a program to misbehave. */
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#include "unit/engine_support.h"

static TestHost host;
static char *dir;

/* Answers by what the input says. */
static const char model_py[] =
    "import json, os, sys, time, threading\n"
    "lock = threading.Lock()\n"
    "def say(**k):\n"
    "    with lock: print(json.dumps(k))\n"
    "def run(m):\n"
    "    i, x = m['id'], m['input']\n"
    "    do = x.get('do')\n"
    "    if do == 'progress':\n"
    "        for s in range(1, 4): say(id=i, progress={'step': s, 'steps': 4}); time.sleep(.03)\n"
    "        time.sleep(.05)\n"
    "    if do == 'error': return say(id=i, error=x['error'])\n"
    "    if do == 'stderr': print('on stderr', file=sys.stderr); time.sleep(.05)\n"
    "    if do == 'log': say(id=i, log='a log line')\n"
    "    if do == 'rubbish': print('Traceback: rubbish \\xe9')\n"
    "    if do == 'list': print('[1]')\n"
    "    if do == 'noid': print('{\"output\": 1}')\n"
    "    if do == 'nothing': say(id=i)\n"
    "    if do == 'exit': sys.stderr.write('out of luck\\n'); os._exit(3)\n"
    "    if do == 'signal': os.kill(os.getpid(), 11); time.sleep(9)\n"
    "    if do == 'hang': time.sleep(1000)\n"
    "    if do == 'sleep': time.sleep(x['s'])\n"
    "    if do == 'long': print('x' * (9 << 20))\n"
    "    if do == 'big': return say(id=i, output='y' * (4 << 20))\n"
    "    if do == 'file': return say(id=i, output=open(x['f']['path']).read())\n"
    "    if do == 'env': return say(id=i, output={'m': os.environ['HEADRACE_MODEL'],\n"
    "        'v': os.environ['HEADRACE_VERSION'], 'device': os.environ['HEADRACE_DEVICE'],\n"
    "        'key': 'HEADRACE_KEY' in os.environ,\n"
    "        'cwd': os.getcwd(), 'group': os.getpgid(0) == os.getpid(),\n"
    "        'fds': sorted(int(f) for f in os.listdir('/proc/self/fd'))[:-1]})\n"
    "    say(id=i, output={'got': x, 'attempt': m['attempt'], 'pid': os.getpid()})\n"
    "say(ready=True, max_batch=int(sys.argv[1]))\n"
    "for line in sys.stdin:\n"
    "    m = json.loads(line)\n"
    "    if m['op'] == 'cancel': say(id=m['id'], error={'message': 'canceled'})\n"
    "    elif m['input'].get('do') == 'deaf': time.sleep(1000)\n"
    "    else: threading.Thread(target=run, args=(m,), daemon=True).start()\n";

static void put_model(const char *name, const char *yaml, const char *file, const char *text)
{
    char path[100];
    snprintf(path, sizeof path, "%s/1/%s", name, file);
    put_text(dir, path, text);
    snprintf(path, sizeof path, "%s/model.yaml", name);
    put_text(dir, path, yaml);
}

static int set_up(void **state)
{
    (void)state;
    setenv("HEADRACE_KEY", "secret", 1);
    dir = scratch_new();
    put_model("py", "engine: exec\nexec: {command: [/usr/bin/python3, m.py, '1'], timeout_s: 2}\n",
              "m.py", model_py);
    put_model("py4", "engine: exec\nexec: {command: [/usr/bin/python3, m.py, '4']}\n", "m.py",
              model_py);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    scratch_done(dir);
    return 0;
}

typedef struct {
    ModelRepository repo;
    EngineModel *m;
} Opened;

static Opened open_py(const char *name)
{
    Opened o;
    host_init(&host);
    o.repo = repository_of(dir);
    o.m = open_model(&o.repo, name, &host);
    return o;
}

static void close_py(Opened *o)
{
    engine_close(o->m);
    repository_done(&o->repo);
    host_done(&host);
}

static void run(Opened *o, EngineTask *t, const char *input)
{
    run_one(o->m, t, "task_01", input);
}

static void speaks_the_protocol(void **state)
{
    (void)state;
    Opened o = open_py("py");
    EngineTask t;
    assert_int_equal(engine_batch_max(o.m), 1);
    uint64_t memory = engine_memory(o.m); /* of an interpreter */
    assert_true(memory > 2 * MIB && memory < 200 * MIB && !engine_is_inside(o.m));
    run(&o, &t, "{\n  \"a\": \"x\\ny\"\n}");
    assert_non_null(strstr(output_of(&t), "{\"got\":{\"a\":\"x\\ny\"},\"attempt\":1,"));
    assert_true(t.device_ns > 0);
    engine_release(o.m, &t);

    task_init(&t, "task_02", "{\"do\":\"progress\"}");
    engine_admit(o.m, &t);
    EngineTask *one = &t;
    uint32_t seen = 0;
    while (t.state == ENGINE_TASK_ACTIVE) {
        engine_step(o.m, &one, 1);
        if (t.state == ENGINE_TASK_ACTIVE && t.step) seen |= 1U << t.step;
    }
    output_of(&t);
    assert_true(seen & 8); /* step 3 was on show before the end */
    assert_int_equal(t.steps, 4);
    engine_release(o.m, &t);

    /* a number that fits no type comes back as it is */
    run(&o, &t, "{\"n\":123456789012345678901234567890}");
    assert_non_null(strstr(output_of(&t), "{\"n\":123456789012345678901234567890}"));
    engine_release(o.m, &t);
    run(&o, &t, "{\"do\":\"error\",\"error\":{\"code\":\"bad_input\",\"message\":\"no 'x'\"}}");
    assert_failed(&t, ENGINE_ERR_BAD_INPUT, false, "no 'x'");
    engine_release(o.m, &t);
    run(&o, &t, "{\"do\":\"error\",\"error\":{\"code\":\"cuda\",\"retryable\":true}}");
    assert_failed(&t, ENGINE_ERR_MODEL, true, "cuda: the model's program gave no message");
    engine_release(o.m, &t);
    run(&o, &t, "{\"do\":\"error\",\"error\":null}");
    assert_failed(&t, ENGINE_ERR_MODEL, false, "gave no message");
    engine_release(o.m, &t);

    run(&o, &t, "{\"do\":\"stderr\"}");
    assert_non_null(strstr(buf_z(&host.log), "on stderr\n"));
    engine_release(o.m, &t);
    run(&o, &t, "{\"do\":\"log\"}");
    assert_non_null(strstr(buf_z(&host.log), "a log line"));
    engine_release(o.m, &t);
    run(&o, &t, "{\"do\":\"big\"}");
    assert_int_equal(strlen(output_of(&t)), (4 << 20) + 2);
    engine_release(o.m, &t);

    /* A file gets its local path, and a client's own path is not believed. */
    put_text(dir, "file_1", "contents");
    host.files_dir = dir;
    run(&o, &t, "{\"do\":\"file\",\"f\":{\"$file\":\"file_1\",\"path\":\"/etc/passwd\"}}");
    assert_string_equal(output_of(&t), "\"contents\"");
    engine_release(o.m, &t);
    run(&o, &t, "{\"do\":\"file\",\"f\":[{\"$file\":\"file_2\"}]}");
    assert_failed(&t, ENGINE_ERR_BAD_INPUT, false, "no file file_2");
    engine_release(o.m, &t);

    run(&o, &t, "{\"do\":\"env\"}");
    char want[400];
    snprintf(
        want, sizeof want,
        "{\"m\":\"py\",\"v\":\"1\",\"device\":\"0\",\"key\":false,\"cwd\":\"%s/py/1\","
        "\"group\":true,"
        "\"fds\":[0,1,2]}",
        dir);
    assert_string_equal(output_of(&t), want);
    engine_release(o.m, &t);
    close_py(&o);
}

static void misbehaviour_has_a_name_and_the_next_task_runs(void **state)
{
    (void)state;
    static const struct {
        const char *input;
        EngineErrCode code;
        bool retryable;
        const char *message;
    } cases[] = {
        {"{\"do\":\"rubbish\"}", ENGINE_ERR_BAD_OUTPUT, false, "\"Traceback: rubbish "},
        {"{\"do\":\"list\"}", ENGINE_ERR_BAD_OUTPUT, false, "no JSON object: \"[1]\""},
        {"{\"do\":\"noid\"}", ENGINE_ERR_BAD_OUTPUT, false, "without an \"id\""},
        {"{\"do\":\"nothing\"}", ENGINE_ERR_BAD_OUTPUT, false, "without output, error"},
        {"{\"do\":\"long\"}", ENGINE_ERR_BAD_OUTPUT, false, "more than 8 MiB"},
        {"{\"do\":\"exit\"}", ENGINE_ERR_CRASHED, true, "status 3; its last words: out of luck"},
        {"{\"do\":\"signal\"}", ENGINE_ERR_CRASHED, true, "by signal 11 (Segmentation fault)"},
        {"{\"do\":\"hang\"}", ENGINE_ERR_TIMEOUT, true, "said nothing about the task for 2 s"},
    };
    Opened o = open_py("py");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        EngineTask t;
        run(&o, &t, cases[i].input);
        assert_failed(&t, cases[i].code, cases[i].retryable, cases[i].message);
        engine_release(o.m, &t);
        run(&o, &t, "{}");
        output_of(&t);
        engine_release(o.m, &t);
    }
    close_py(&o);
}

static void many_at_once_and_a_crash_fails_those_it_had(void **state)
{
    (void)state;
    Opened o = open_py("py4");
    assert_int_equal(engine_batch_max(o.m), 4);
    EngineTask t[6];
    char ids[6][20];
    int64_t began = engine_now_ns();
    for (int i = 0; i < 6; i++) {
        snprintf(ids[i], sizeof ids[i], "task_%d", i);
        task_init(&t[i], ids[i], "{\"do\":\"sleep\",\"s\":0.5}");
        engine_admit(o.m, &t[i]);
    }
    run_all(o.m, t, 6);
    int64_t took = engine_now_ns() - began;
    assert_true(took >= 990 * NS_PER_MS && took < 2900 * NS_PER_MS); /* two rounds, not six */
    for (int i = 0; i < 6; i++) {
        output_of(&t[i]);
        engine_release(o.m, &t[i]);
    }

    task_init(&t[0], ids[0], "{\"do\":\"sleep\",\"s\":5}");
    task_init(&t[1], ids[1], "{\"do\":\"exit\"}");
    for (int i = 0; i < 2; i++) engine_admit(o.m, &t[i]);
    run_all(o.m, t, 2);
    for (int i = 0; i < 2; i++) {
        assert_failed(&t[i], ENGINE_ERR_CRASHED, true, "exit status 3");
        engine_release(o.m, &t[i]);
    }
    close_py(&o);
}

static void *cancel_soon(void *p)
{
    void **arg = p;
    usleep(100000);
    engine_cancel(arg[0], arg[1]);
    return NULL;
}

static void a_cancel_is_asked_then_enforced(void **state)
{
    (void)state;
    /* "sleep" runs beside the reader, which answers the cancel; "deaf" reads nothing any more. */
    static const struct {
        const char *input;
        int64_t least_ms, most_ms;
    } cases[] = {{"{\"do\":\"sleep\",\"s\":20}", 0, 1500}, {"{\"do\":\"deaf\"}", 2000, 4000}};
    Opened o = open_py("py4");
    for (size_t i = 0; i < 2; i++) {
        EngineTask t[2];
        pthread_t thread;
        task_init(&t[0], "task_0", cases[i].input);
        task_init(&t[1], "task_1", "{\"do\":\"sleep\",\"s\":0.2}");
        void *arg[] = {o.m, &t[0]};
        engine_admit(o.m, &t[0]);
        EngineTask *first = &t[0];
        for (int k = 0; k < 3; k++) engine_step(o.m, &first, 1);
        assert_int_equal(pthread_create(&thread, NULL, cancel_soon, arg), 0);
        int64_t began = engine_now_ns() + 100 * NS_PER_MS;
        engine_admit(o.m, &t[1]);
        run_all(o.m, t, 1);
        int64_t ms = (engine_now_ns() - began) / NS_PER_MS;
        print_message("canceled within %lld ms\n", (long long)ms);
        assert_true(ms >= cases[i].least_ms && ms < cases[i].most_ms);
        assert_failed(&t[0], ENGINE_ERR_CANCELED, false, "canceled");
        run_all(o.m, t, 2); /* its companion lives through it, in the next program if need be */
        output_of(&t[1]);
        pthread_join(thread, NULL);
        for (int k = 0; k < 2; k++) engine_release(o.m, &t[k]);
    }

    /* Released while at work: the slot comes back, at the latest with the next program. */
    EngineTask t;
    task_init(&t, "task_2", "{\"do\":\"deaf\"}");
    engine_admit(o.m, &t);
    EngineTask *one = &t;
    for (int k = 0; k < 4; k++) engine_step(o.m, &one, 1);
    engine_release(o.m, &t);
    run(&o, &t, "{\"do\":\"sleep\",\"s\":0}");
    output_of(&t);
    engine_release(o.m, &t);
    close_py(&o);
}

static void a_start_that_fails_says_why(void **state)
{
    (void)state;
    static const struct {
        const char *yaml, *script, *message;
    } cases[] = {
        {"exec: {command: [./nothing]}", "", "cannot run './nothing'"},
        {"exec: {command: [sh, s.sh]}", "echo no weights >&2; exit 7",
         "exit status 7 before its ready line; its last words: no weights"},
        {"exec: {command: [sh, s.sh]}", "echo loading...; sleep 9", "\"loading...\""},
        {"exec: {command: [sh, s.sh]}", "echo '{\"ok\":1}'; sleep 9",
         "another first line than {\"ready\":true}"},
        {"exec: {command: [sh, s.sh], start_timeout_s: 1}", "echo slow >&2; sleep 30",
         "no {\"ready\":true} within 1 s (exec.start_timeout_s in its model.yaml); its last words: "
         "slow"},
        {"exec: {command: [sh, s.sh], start_timeout_s: 1}", "exec >&-; sleep 30",
         "the model's program ended"},
        {"exec: {command: [sh, s.sh]}", "kill -9 $$", "probably out of memory"},
        {"exec: {command: [sh, s.sh]}", "echo 'MemoryError: 5 GiB' >&2; exit 1",
         "MemoryError: 5 GiB"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *d = scratch_new(), yaml[200];
        snprintf(yaml, sizeof yaml, "engine: exec\n%s\n", cases[i].yaml);
        put_text(d, "bad/model.yaml", yaml);
        put_text(d, "bad/1/s.sh", cases[i].script);
        host_init(&host);
        ModelRepository repo = repository_of(d);
        EngineModel *m;
        EngineError err;
        assert_int_equal(engine_open(repo.specs[0], &test_cpu, &host.host, &m, &err),
                         strstr(cases[i].message, "emory") ? ERR_NOMEM : ERR_INVALID);
        if (!strstr(err.message, cases[i].message))
            fail_msg("'%s' is not in: %s", cases[i].message, err.message);
        repository_done(&repo);
        host_done(&host);
        scratch_done(d);
    }
}

static void a_program_that_reads_nothing_blocks_nobody(void **state)
{
    (void)state;
    char *d = scratch_new();
    put_text(d, "mute/model.yaml",
             "engine: exec\nexec: {command: [sh, s.sh], timeout_s: 1}\nmax_batch: 8\n");
    put_text(d, "mute/1/s.sh", "echo '{\"ready\":true}'; exec sleep 60");
    host_init(&host);
    ModelRepository repo = repository_of(d);
    EngineModel *m = open_model(&repo, "mute", &host);
    Buf input = {0};
    buf_putc(&input, '"');
    while (input.len < 60000) buf_putc(&input, 'x');
    buf_putc(&input, '"');
    EngineTask t[8];
    char ids[8][20];
    EngineTask *all[8];
    for (int i = 0; i < 8; i++) { /* 480 KiB through a pipe of 64 */
        snprintf(ids[i], sizeof ids[i], "task_%d", i);
        task_init(&t[i], ids[i], buf_z(&input));
        engine_admit(m, &t[i]);
        all[i] = &t[i];
    }
    int64_t began = engine_now_ns();
    engine_step(m, all, 8);
    assert_true(engine_now_ns() - began < NS_PER_S);
    run_all(m, t, 8);
    for (int i = 0; i < 8; i++) {
        assert_failed(&t[i], ENGINE_ERR_TIMEOUT, true, "said nothing");
        engine_release(m, &t[i]);
    }
    engine_close(m);
    repository_done(&repo);
    host_done(&host);
    buf_done(&input);
    scratch_done(d);
}

static void a_flood_is_survived(void **state)
{
    (void)state;
    char *d = scratch_new();
    put_text(d, "flood/model.yaml", "engine: exec\nexec: {command: [sh, s.sh], timeout_s: 1}\n");
    put_text(d, "flood/1/s.sh",
             "echo '{\"ready\":true}'; read x; (yes 'noise on stderr' >&2) &\n"
             "exec yes '{\"id\":\"other\",\"log\":\"noise\"}'");
    host_init(&host);
    ModelRepository repo = repository_of(d);
    EngineModel *m = open_model(&repo, "flood", &host);
    EngineTask t;
    run_one(m, &t, "task_0", "{}");
    assert_failed(&t, ENGINE_ERR_TIMEOUT, true, "said nothing");
    assert_true(host.log.len > 0);
    engine_release(m, &t);
    engine_close(m);
    repository_done(&repo);
    host_done(&host);
    scratch_done(d);
}

/* Children of this process, zombies too. */
static int children(void)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
    FILE *f = fopen(path, "r");
    int n = 0, pid;
    assert_non_null(f);
    while (fscanf(f, "%d", &pid) == 1) n++;
    fclose(f);
    return n;
}

static int descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

static void nothing_is_left_behind(void **state)
{
    (void)state;
    int before = descriptors();
    assert_int_equal(children(), 0);
    Opened o = open_py("py");
    assert_int_equal(children(), 1);
    EngineTask t;
    run(&o, &t, "{\"do\":\"exit\"}");
    engine_release(o.m, &t);
    assert_int_equal(children(), 0);
    run(&o, &t, "{}");
    engine_release(o.m, &t);
    close_py(&o);
    assert_int_equal(children(), 0);
    assert_int_equal(descriptors(), before);
}

/* A worker that is killed takes its program along. */
static void the_program_dies_with_the_worker(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t worker = fork();
    if (worker == 0) {
        Opened o = open_py("py");
        EngineTask t;
        run(&o, &t, "{}");
        const char *at = strstr(output_of(&t), "\"pid\":");
        int program = at ? atoi(at + 6) : 0;
        if (write(ends[1], &program, sizeof program) < 0) _exit(1);
        for (;;) pause();
    }
    int program = 0;
    assert_int_equal(read(ends[0], &program, sizeof program), sizeof program);
    assert_true(program > 0);
    assert_int_equal(kill(program, 0), 0);
    kill(worker, SIGKILL);
    assert_int_equal(waitpid(worker, NULL, 0), worker);
    char path[64], line[200] = "Z";
    snprintf(path, sizeof path, "/proc/%d/stat", program);
    for (int i = 0; i < 500; i++, usleep(10000)) { /* gone, or a zombie that init has to reap */
        FILE *f = fopen(path, "r");
        if (!f) break;
        if (!fgets(line, sizeof line, f)) line[0] = 0;
        fclose(f);
        if (strstr(line, ") Z")) break;
    }
    assert_true(access(path, F_OK) != 0 || strstr(line, ") Z"));
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(speaks_the_protocol),
        cmocka_unit_test(misbehaviour_has_a_name_and_the_next_task_runs),
        cmocka_unit_test(many_at_once_and_a_crash_fails_those_it_had),
        cmocka_unit_test(a_cancel_is_asked_then_enforced),
        cmocka_unit_test(a_start_that_fails_says_why),
        cmocka_unit_test(a_program_that_reads_nothing_blocks_nobody),
        cmocka_unit_test(a_flood_is_survived),
        cmocka_unit_test(nothing_is_left_behind),
        cmocka_unit_test(the_program_dies_with_the_worker),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
