/* The built-in echo: its delays, faults and checkpoints, and that it is quick. */
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#include "unit/engine_support.h"

static TestHost host;
static ModelRepository repo;
static EngineModel *echo;

static int set_up(void **state)
{
    (void)state;
    host_init(&host);
    repository_add_echo(&repo);
    echo = open_model(&repo, "echo", &host);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    engine_close(echo);
    repository_done(&repo);
    host_done(&host);
    return 0;
}

static void answers_with_its_input(void **state)
{
    (void)state;
    static const char *const inputs[] = {"{\"a\":[1,2,{\"b\":null}]}", "3", "\"sleep_ms\"",
                                         "[{\"fail\":\"crash\"}]", " { } "};
    for (size_t i = 0; i < ARRAY_LEN(inputs); i++) {
        EngineTask t;
        run_one(echo, &t, "task_1", inputs[i]);
        assert_string_equal(output_of(&t), inputs[i]);
        assert_int_equal(t.step, 1);
        assert_int_equal(t.steps, 1);
        engine_release(echo, &t);
    }
    assert_int_equal(engine_batch_max(echo), 256);
    int64_t ns;
    assert_int_equal(engine_measure(echo, 1, &ns), ERR_UNSUPPORTED);
    Buf b = {0};
    engine_describe(echo, &b);
    assert_true(b.len > 2);
    buf_done(&b);
}

static void sleeps_in_units_and_together(void **state)
{
    (void)state;
    EngineTask t[3];
    task_init(&t[0], "task_0", "{\"sleep_ms\":60,\"units\":3}");
    task_init(&t[1], "task_1", "{\"sleep_ms\":30}");
    task_init(&t[2], "task_2", "{}");
    EngineTask *all[] = {&t[0], &t[1], &t[2]};
    for (int i = 0; i < 3; i++) engine_admit(echo, &t[i]);
    int64_t began = engine_now_ns();
    engine_step(echo, all, 3);
    int64_t took = engine_now_ns() - began;
    assert_true(took >= 30 * NS_PER_MS); /* the longest unit */
    assert_int_equal(t[0].state, ENGINE_TASK_ACTIVE);
    assert_int_equal(t[0].step, 1);
    assert_int_equal(t[0].steps, 3);
    assert_int_equal(t[1].state, ENGINE_TASK_DONE);
    assert_true(t[1].device_ns >= 9 * NS_PER_MS && t[1].device_ns <= took / 3);

    /* Checkpointed after one unit, resumed elsewhere: two are left. */
    Buf checkpoint = {0};
    assert_int_equal(engine_checkpoint(echo, &t[0], &checkpoint), 0);
    EngineTask again;
    task_init(&again, "task_0", "{\"sleep_ms\":60,\"units\":3}");
    engine_admit(echo, &again);
    Buf none = {0};
    assert_int_equal(engine_checkpoint(echo, &again, &none), ERR_AGAIN);
    assert_int_equal(engine_resume(echo, &again, STR("rubbish")), ERR_INVALID);
    assert_int_equal(engine_resume(echo, &again, buf_str(&checkpoint)), 0);
    began = engine_now_ns();
    run_all(echo, &again, 1);
    took = engine_now_ns() - began;
    assert_true(took >= 40 * NS_PER_MS);
    assert_int_equal(again.state, ENGINE_TASK_DONE);
    engine_release(echo, &again);
    for (int i = 0; i < 3; i++) engine_release(echo, &t[i]);
    buf_done(&checkpoint);
}

static void fails_on_demand(void **state)
{
    (void)state;
    EngineTask t;
    run_one(echo, &t, "task_1", "{\"fail\":\"retryable\"}");
    assert_failed(&t, ENGINE_ERR_MODEL, true, "on attempt 1");
    engine_release(echo, &t);
    run_one(echo, &t, "task_1", "{\"fail\":\"final\",\"fail_attempts\":[1,3]}");
    assert_failed(&t, ENGINE_ERR_MODEL, false, "fail");
    engine_release(echo, &t);
    task_init(&t, "task_1", "{\"fail\":\"final\",\"fail_attempts\":[1,3]}");
    t.attempt = 2;
    engine_admit(echo, &t);
    run_all(echo, &t, 1);
    output_of(&t);
    engine_release(echo, &t);
    run_one(echo, &t, "task_1", "{\"fail\":\"retryable\",\"units\":5,\"fail_unit\":2}");
    assert_int_equal(t.step, 2);
    engine_release(echo, &t);

    static const char *const wrong[][2] = {
        {"{\"sleep_ms\":-1}", "'sleep_ms' must be a whole number"},
        {"{\"sleep_ms\":\"1\"}", "'sleep_ms' must be"},
        {"{\"units\":0}", "'units' must be a whole number from 1 to"},
        {"{\"fail\":\"maybe\"}", "'fail' must be"},
        {"{\"fail\":\"final\",\"fail_attempts\":1}", "'fail_attempts' must be a list"},
        {"{\"fail\":\"final\",\"fail_unit\":2}", "'fail_unit' must be a whole number from 1 to 1"},
        {"{\"sleep_ms\":", "not JSON"},
    };
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        run_one(echo, &t, "task_1", wrong[i][0]);
        assert_failed(&t, ENGINE_ERR_BAD_INPUT, false, wrong[i][1]);
        engine_release(echo, &t);
    }
}

static void a_crash_is_real(void **state)
{
    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        EngineTask t;
        run_one(echo, &t, "task_1", "{\"fail\":\"crash\"}");
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void *cancel_soon(void *p)
{
    usleep(30000);
    engine_cancel(echo, p);
    return NULL;
}

static void a_cancel_ends_a_sleep_and_a_hang(void **state)
{
    (void)state;
    static const char *const inputs[] = {"{\"sleep_ms\":20000}", "{\"fail\":\"hang\"}"};
    for (int i = 0; i < 2; i++) {
        EngineTask t;
        pthread_t thread;
        task_init(&t, "task_1", inputs[i]);
        engine_admit(echo, &t);
        int64_t began = engine_now_ns();
        assert_int_equal(pthread_create(&thread, NULL, cancel_soon, &t), 0);
        run_all(echo, &t, 1);
        int64_t took = engine_now_ns() - began - 30 * NS_PER_MS;
        print_message("canceled within %lld ms\n", (long long)(took / NS_PER_MS));
        assert_true(took < NS_PER_S); /* 4 ms, on an idle machine */
        assert_failed(&t, ENGINE_ERR_CANCELED, false, "canceled");
        pthread_join(thread, NULL);
        engine_release(echo, &t);
    }
}

static void is_quick(void **state)
{
    (void)state;
    static EngineTask tasks[256];
    EngineTask *all[256];
    int64_t began = engine_now_ns();
    for (int round = 0; round < 400; round++) {
        for (size_t i = 0; i < 256; i++) {
            task_init(&tasks[i], "task_1", "{\"prompt\":\"a red sneaker\",\"n\":1}");
            engine_admit(echo, &tasks[i]);
            all[i] = &tasks[i];
        }
        engine_step(echo, all, 256);
        for (size_t i = 0; i < 256; i++) engine_release(echo, &tasks[i]);
    }
    double seconds = (double)(engine_now_ns() - began) / 1e9;
    print_message("%.0f echo tasks/s\n", 400 * 256 / seconds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_with_its_input),
        cmocka_unit_test(sleeps_in_units_and_together),
        cmocka_unit_test(fails_on_demand),
        cmocka_unit_test(a_crash_is_real),
        cmocka_unit_test(a_cancel_ends_a_sleep_and_a_hang),
        cmocka_unit_test(is_quick),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
