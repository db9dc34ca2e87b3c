/* worker_session.c: the whole worker process against a server that says what a test wants. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "worker_fake.h"

static const WorkerOptions options = {.key = "hr_live_test",
                                      .name = "w",
                                      .device_index = -1,
                                      .devices = 1,
                                      .threads = 1,
                                      .memory_bytes = GIB,
                                      .die_with_parent = true};

/* A lease of tasks T<token>…, each with this input; %d in it becomes the token. */
static void lease(Fake *f, const char *model, int token, int n, const char *input)
{
    Buf b = {0};
    buf_printf(
        &b,
        "{\"t\":\"lease\",\"device\":0,\"model\":\"%s\",\"version\":\"1\",\"batch\":1,\"tasks\":[",
        model);
    for (int i = 0; i < n; i++) {
        buf_printf(&b, "%s{\"id\":\"task_T%d\",\"token\":%d,\"attempt\":1,\"input\":%s}",
                   i > 0 ? "," : "", token + i, token + i, input);
    }
    buf_puts(&b, "]}");
    fake_say(f, buf_str(&b));
    buf_done(&b);
}

/* The server has drained it: exit 0. */
static void drain(Fake *f)
{
    fake_sayz(f, "{\"t\":\"drain\",\"exit\":true}");
    assert_int_equal(fake_join_worker(f), WORKER_EXIT_OK);
}

static void test_results(void **state)
{
    (void)state;
    Fake *f = fake_start();
    lease(f, "echo", 1, 3, "{\"n\": 0.10000000000000000001, \"s\": \"x\"}");
    fake_expect(f,
                "\"token\":1,\"output\":{\"n\":0.10000000000000000001,\"s\":\"x\"},\"device_ns\":");
    fake_expect(f, "{\"t\":\"result\",\"id\":\"task_T3\"");
    fake_expect(f, "\"event\":\"loaded\",\"load_ns\":");
    assert_true(fake_saw(f, &f->hello, "\"protocol\":[1]"));
    assert_true(fake_saw(f, &f->hello, "\"name\":\"echo\",\"version\":\"1\",\"engine\":\"echo\""));
    assert_true(fake_saw(f, &f->hello,
                         "\"devices\":[{\"index\":0,\"kind\":\"cpu\",\"memory_bytes\":1073741824,"
                         "\"threads\":1}]"));
    lease(f, "echo", 7, 1, "{\"sleep_ms\":\"no number\"}");
    fake_expect(f, "{\"t\":\"error\",\"id\":\"task_T7\",\"token\":7,\"code\":\"bad_input\"");
    lease(f, "nothing", 8, 1, "{}");
    fake_expect(
        f, "\"token\":8,\"code\":\"internal\",\"message\":\"the worker does not have this model\","
           "\"retryable\":true");
    drain(f);
    fake_stop(f);
}

static void test_pong_and_progress(void **state)
{
    (void)state;
    Fake *f = fake_start();
    fake_sayz(f, "{\"t\":\"ping\",\"n\":1}");
    fake_expect(f, "{\"t\":\"pong\",\"n\":1,\"held\":[]}");
    lease(f, "echo", 5, 1, "{\"sleep_ms\":1000,\"units\":10}");
    fake_expect(f, "{\"t\":\"started\",\"id\":\"task_T5\",\"token\":5}");
    fake_sayz(f, "{\"t\":\"ping\",\"n\":2}");
    fake_expect(f, "{\"t\":\"pong\",\"n\":2,\"held\":[5]}");
    fake_expect(f, "{\"t\":\"progress\",\"id\":\"task_T5\",\"token\":5,\"step\":");
    fake_expect(f, ",\"steps\":10}");
    fake_expect(f, "{\"t\":\"result\",\"id\":\"task_T5\"");
    drain(f);
    fake_stop(f);
}

static void test_kept_until_answered(void **state)
{
    (void)state;
    Fake *f = fake_start();
    FAKE_WAIT_FOR(f, f->stream >= 0);
    FAKE_SET(f, fail_status, 503);
    FAKE_SET(f, fail_posts, 3);
    lease(f, "echo", 1, 100, "{}");
    FAKE_WAIT_FOR(f, f->results == 100); /* each once, although three POSTs failed */
    FAKE_SET(f, fail_status, 0);         /* now the connection breaks under them */
    FAKE_SET(f, fail_posts, 2);
    lease(f, "echo", 1000, 100, "{}");
    FAKE_WAIT_FOR(f, f->results == 200);
    FAKE_SET(f, fail_status,
             400); /* and now a request is refused whole: the lines are tried alone */
    FAKE_SET(f, fail_posts, 2);
    lease(f, "echo", 2000, 10, "{}");
    fake_expect(f, "\"code\":\"bad_output\"");
    FAKE_WAIT_FOR(f, f->results == 209);
    drain(f);
    fake_stop(f);
}

static void test_cancel(void **state)
{
    (void)state;
    Fake *f = fake_start();
    lease(f, "echo", 1, 1, "{\"sleep_ms\":60000}");
    lease(f, "echo", 2, 1, "{\"fail\":\"hang\"}");
    fake_expect(f, "{\"t\":\"started\",\"id\":\"task_T1\"");
    fake_sayz(f, "{\"t\":\"cancel\",\"id\":\"task_T2\",\"token\":2,\"why\":\"canceled\"}");
    fake_sayz(f, "{\"t\":\"cancel\",\"id\":\"task_T1\",\"token\":1,\"why\":\"canceled\"}");
    fake_expect(f, "{\"t\":\"released\",\"id\":\"task_T1\",\"token\":1,\"device_ns\":");
    fake_expect(f, "{\"t\":\"released\",\"id\":\"task_T2\",\"token\":2");
    /* A deadline does the same. */
    fake_sayz(f, "{\"t\":\"lease\",\"device\":0,\"model\":\"echo\",\"version\":\"1\",\"batch\":1,"
                 "\"tasks\":[{\"id\":"
                 "\"task_D\",\"token\":9,\"attempt\":1,\"input\":{\"sleep_ms\":60000},"
                 "\"deadline_in_ms\":200}]}");
    fake_expect(f, "{\"t\":\"released\",\"id\":\"task_D\"");
    /* And a token that does not count any more. */
    lease(f, "echo", 11, 1, "{\"sleep_ms\":60000}");
    FAKE_SET(f, answer, "fenced");
    fake_expect(f, "{\"t\":\"released\",\"id\":\"task_T11\"");
    drain(f);
    fake_stop(f);
}

static void test_leased_again(void **state)
{
    (void)state;
    Fake *f = fake_start();
    lease(f, "echo", 1, 1, "{\"sleep_ms\":60000}");
    fake_expect(f, "{\"t\":\"started\",\"id\":\"task_T1\"");
    lease(f, "echo", 1, 1, "{\"sleep_ms\":60000}"); /* said twice: nothing */
    fake_sayz(f, "{\"t\":\"lease\",\"device\":0,\"model\":\"echo\",\"version\":\"1\",\"batch\":2,"
                 "\"tasks\":[{\"id\":"
                 "\"task_T1\",\"token\":40,\"attempt\":2,\"input\":{\"again\":true}}]}");
    fake_expect(f, "{\"t\":\"result\",\"id\":\"task_T1\",\"token\":40,");
    drain(f);
    assert_false(fake_saw(f, &f->reports, "\"released\""));
    fake_stop(f);
}

static void test_stream_lost(void **state)
{
    (void)state;
    Fake *f = fake_start();
    lease(f, "echo", 1, 2, "{\"sleep_ms\":700}");
    fake_expect(f, "{\"t\":\"started\",\"id\":\"task_T2\"");
    FAKE_SET(f, stale, "2"); /* the server gave up on one of them meanwhile */
    pthread_mutex_lock(&f->lock);
    shutdown(f->stream, SHUT_RDWR);
    pthread_mutex_unlock(&f->lock);
    FAKE_WAIT_FOR(f, f->registers == 2 && f->streams == 2);
    assert_true(fake_saw(f, &f->hello, "\"worker\":\"worker_fake\""));
    assert_true(fake_saw(
        f, &f->hello,
        "\"running\":[{\"id\":\"task_T1\",\"token\":1},{\"id\":\"task_T2\",\"token\":2}]"));
    fake_expect(f, "{\"t\":\"result\",\"id\":\"task_T1\"");
    fake_expect(f, "\"event\":\"loaded\"");
    FAKE_SET(f, stale, NULL);
    FAKE_SET(f, fail_status, 404); /* it forgot us */
    FAKE_SET(f, fail_posts, 1);
    lease(f, "echo", 3, 1, "{}");
    fake_expect(f, "{\"t\":\"result\",\"id\":\"task_T3\"");
    FAKE_WAIT_FOR(f, f->registers == 3);
    /* Silence is loss too (3 pings, at least 10 s): too long for a test of every day. */
    drain(f);
    assert_false(fake_saw(f, &f->reports,
                          "\"token\":2"
                          ",\"output\""));
    fake_stop(f);
}

static void test_files(void **state)
{
    (void)state;
    Fake *f = fake_start();
    pthread_mutex_lock(&f->lock);
    buf_puts(&f->file, "{\"text\":\"");
    memset(buf_extend(&f->file, 100000), 'y', 100000);
    buf_puts(&f->file, "\"}");
    pthread_mutex_unlock(&f->lock);
    lease(f, "echo", 1, 1, "{\"$file\":\"file_IN\"}");
    fake_expect(
        f, "{\"t\":\"result\",\"id\":\"task_T1\",\"token\":1,\"output\":{\"$file\":\"file_OUT\","
           "\"content_type\":\"application/json\",\"size\":100011},\"device_ns\"");
    assert_true(fake_saw(f, &f->uploads,
                         "/v1/files?task=task_T1&token=1&name=output.json 100011\n"
                         "{\"text\":\"yyy"));
    lease(f, "echo", 2, 1, "{\"$file\":\"file_../../etc\"}");
    fake_expect(f, "\"token\":2,\"code\":\"bad_input\","
                   "\"message\":\"'file_../../etc' is not the id of a file");
    drain(f);
    fake_stop(f);
}

static void test_drain_hands_back(void **state)
{
    (void)state;
    Fake *f = fake_start();
    lease(f, "echo", 1, 1, "{\"sleep_ms\":800}");
    fake_expect(f, "{\"t\":\"started\",\"id\":\"task_T1\"");
    lease(f, "echo", 2, 2, "{\"sleep_ms\":800}"); /* waits: a step is under way */
    fake_sayz(f, "{\"t\":\"ping\",\"n\":2}");
    fake_expect(f, "\"n\":2,\"held\":[1,2,3]");
    kill(f->worker, SIGTERM);
    FAKE_WAIT_FOR(f, f->stream < 0); /* so that no more leases come */
    assert_int_equal(fake_join_worker(f), WORKER_EXIT_OK);
    assert_true(fake_saw(f, &f->reports, "{\"t\":\"result\",\"id\":\"task_T1\""));
    assert_true(fake_saw(f, &f->reports, "{\"t\":\"released\",\"id\":\"task_T2\""));
    assert_true(fake_saw(f, &f->reports, "{\"t\":\"released\",\"id\":\"task_T3\""));
    fake_stop(f);
}

static void test_second_signal(void **state)
{
    (void)state;
    Fake *f = fake_start();
    lease(f, "echo", 1, 1, "{\"sleep_ms\":60000}");
    fake_expect(f, "{\"t\":\"started\",\"id\":\"task_T1\"");
    kill(f->worker, SIGTERM);
    FAKE_WAIT_FOR(f, f->stream < 0);
    fake_forget(f);
    fake_expect(f, "\"held\":[1]"); /* nobody pings, and still its lease is kept */
    kill(f->worker, SIGTERM);
    assert_int_equal(fake_join_worker(f), WORKER_EXIT_OK);
    assert_true(fake_saw(f, &f->reports, "{\"t\":\"released\",\"id\":\"task_T1\""));
    fake_stop(f);
}

static void test_refused(void **state)
{
    (void)state;
    Fake *f = fake_start();
    FAKE_SET(f, register_status, 401);
    /* It may have registered before this was set: then its stream's end makes it register again. */
    pthread_mutex_lock(&f->lock);
    if (f->stream >= 0) shutdown(f->stream, SHUT_RDWR);
    pthread_mutex_unlock(&f->lock);
    assert_int_equal(fake_join_worker(f), WORKER_EXIT_REFUSED);
    fake_stop(f);
}

static void test_invalid_result(void **state)
{
    (void)state;
    Fake *f = fake_start();
    FAKE_SET(f, answer, "invalid");
    lease(f, "echo", 1, 1, "{}");
    fake_expect(f, "\"token\":1,\"code\":\"bad_output\","
                   "\"message\":\"the server refuses the model's output: as the test");
    fake_expect(f, "{\"t\":\"released\",\"id\":\"task_T1\""); /* the error was refused too */
    FAKE_SET(f, answer, NULL);
    drain(f);
    fake_stop(f);
}

static void test_load_and_unload(void **state)
{
    (void)state;
    Fake *f = fake_start();
    fake_sayz(f, "{\"t\":\"load\",\"device\":0,\"model\":\"echo\",\"version\":\"1\"}");
    fake_expect(f, "{\"t\":\"telemetry\",\"device\":0,\"model\":\"echo\",\"version\":\"1\","
                   "\"event\":\"loaded\"");
    fake_sayz(f, "{\"t\":\"unload\",\"device\":0,\"model\":\"echo\",\"version\":\"1\"}");
    fake_expect(f, "\"event\":\"unloaded\"");
    fake_sayz(f, "{\"t\":\"load\",\"device\":9,\"model\":\"echo\",\"version\":\"1\"}");
    fake_sayz(f, "{\"t\":\"load\",\"device\":0,\"model\":\"echo\",\"version\":\"99\"}");
    fake_sayz(f, "no message at all");
    lease(f, "echo", 1, 1, "{}");
    fake_expect(f, "{\"t\":\"result\",\"id\":\"task_T1\"");
    fake_sayz(f, "{\"t\":\"drain\"}"); /* without exit: it stays, and takes more when more comes */
    lease(f, "echo", 2, 1, "{}");
    fake_expect(f, "{\"t\":\"result\",\"id\":\"task_T2\"");
    drain(f);
    fake_stop(f);
}

int main(void)
{
    say_setup(SAY_WARN, SAY_TEXT, "worker");
    int exit_code;
    if (fake_be_worker(&options, &exit_code)) return exit_code;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_results),
        cmocka_unit_test(test_pong_and_progress),
        cmocka_unit_test(test_kept_until_answered),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_leased_again),
        cmocka_unit_test(test_stream_lost),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_drain_hands_back),
        cmocka_unit_test(test_second_signal),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_invalid_result),
        cmocka_unit_test(test_load_and_unload),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
