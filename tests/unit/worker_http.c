/* worker_http.c: the HTTP client's blocking calls (worker_session.c runs on the other ones). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <sys/stat.h>

#include "io/http_client.h"
#include "worker_fake.h"

static const char *url_of(Fake *f, const char *path)
{
    static char url[512];
    snprintf(url, sizeof url, "%s%s", f->url, path);
    return url;
}

static void test_call(void **state)
{
    (void)state;
    Fake *f = fake_new();
    HttpReply r;
    for (int i = 0; i < 3; i++) { /* one connection serves all */
        assert_int_equal(
            http_call("POST", url_of(f, "/v1/worker/register"), NULL, STR("{}"), 5000, &r), 0);
        assert_int_equal(r.status, 200);
        assert_string_equal(r.content_type, "application/json");
        assert_true(fake_has(&r.body, "worker_fake"));
        http_reply_done(&r);
    }
    assert_int_equal(http_call("GET", url_of(f, "/nothing"), NULL, (Str){0}, 5000, &r), 0);
    assert_int_equal(r.status, 404);
    assert_true(fake_has(&r.body, "what?"));
    http_reply_done(&r);
    fake_stop(f);

    /* Port 1 of this machine: nobody listens there. */
    assert_int_equal(http_call("GET", "http://127.0.0.1:1/", NULL, (Str){0}, 5000, &r), ERR_CLOSED);
    assert_true(r.status == 0 && strlen(r.error) > 0);
    http_reply_done(&r);
    assert_int_equal(http_call("GET", "ftp://127.0.0.1/", NULL, (Str){0}, 5000, &r), ERR_INVALID);
    http_reply_done(&r);
}

static bool until_three(void *ctx, Str piece)
{
    Buf *got = ctx;
    buf_put_str(got, piece);
    return memmem(got->data, got->len, "three\n", 6) == NULL;
}

static void *say_three(void *arg)
{
    fake_sayz(arg, "one");
    fake_sayz(arg, "two");
    fake_sayz(arg, "three");
    return NULL;
}

static void test_stream(void **state)
{
    (void)state;
    Fake *f = fake_new();
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, say_three, f), 0);
    Buf got = {0};
    HttpReply r;
    assert_int_equal(http_stream(url_of(f, "/v1/worker/x/stream"), NULL, until_three, &got, &r),
                     ERR_CANCELED);
    assert_int_equal(r.status, 200);
    assert_string_equal(buf_z(&got), "one\ntwo\nthree\n");
    http_reply_done(&r);
    pthread_join(t, NULL);
    assert_int_equal(http_stream(url_of(f, "/nothing"), NULL, until_three, &got, &r), 0);
    assert_int_equal(r.status, 404); /* an error's body is no stream */
    assert_true(fake_has(&r.body, "what?"));
    http_reply_done(&r);
    buf_done(&got);
    fake_stop(f);
}

static void test_files(void **state)
{
    (void)state;
    Fake *f = fake_new();
    char dir[] = "/tmp/hr-http-XXXXXX";
    assert_non_null(mkdtemp(dir));
    Buf path = {0};
    buf_printf(&path, "%s/file", dir);
    pthread_mutex_lock(&f->lock);
    memset(buf_extend(&f->file, 3 * MIB), 'q', 3 * MIB);
    pthread_mutex_unlock(&f->lock);

    HttpReply r;
    struct stat st;
    assert_int_equal(http_download(url_of(f, "/nothing"), NULL, buf_z(&path), &r), 0);
    assert_int_equal(r.status, 404);
    http_reply_done(&r);
    assert_int_equal(stat(buf_z(&path), &st), -1);
    assert_int_equal(http_download(url_of(f, "/v1/files/file_1/content"), NULL, buf_z(&path), &r),
                     0);
    assert_int_equal(r.status, 200);
    http_reply_done(&r);
    assert_int_equal(stat(buf_z(&path), &st), 0);
    assert_int_equal(st.st_size, 3 * MIB);

    assert_int_equal(
        http_upload_file(url_of(f, "/v1/files?name=x"), NULL, buf_z(&path), "image/png", &r), 0);
    assert_int_equal(r.status, 201);
    http_reply_done(&r);
    assert_true(fake_saw(f, &f->uploads, "/v1/files?name=x 3145728\nqqqq"));
    unlink(buf_z(&path));
    assert_int_equal(http_upload_file(url_of(f, "/v1/files"), NULL, buf_z(&path), NULL, &r),
                     ERR_NOT_FOUND);
    http_reply_done(&r);
    assert_int_equal(http_download(url_of(f, "/v1/files/file_1/content"), NULL, "/nowhere/x", &r),
                     ERR_NOT_FOUND);
    http_reply_done(&r);
    rmdir(dir); /* empty: no part was left */
    assert_int_equal(stat(dir, &st), -1);
    buf_done(&path);
    fake_stop(f);
}

static void test_url_escape(void **state)
{
    (void)state;
    Buf b = {0};
    http_url_escape(&b, STR("a-b_c.~ /?&=\xc3\xa9"));
    assert_string_equal(buf_z(&b), "a-b_c.~%20%2F%3F%26%3D%C3%A9");
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_call),
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_url_escape),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
