/* disk.c: the real disk, in a folder of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/clock.h"
#include "io/disk.h"

typedef struct {
    char dir[64];
    Disk *d;
} Rig;

static int set_up(void **state)
{
    Rig *r = mem_new(sizeof *r);
    char base[] = "/tmp/headrace-disk-XXXXXX";
    assert_non_null(mkdtemp(base));
    snprintf(r->dir, sizeof r->dir, "%s", base);
    char deep[96];
    snprintf(deep, sizeof deep, "%s/a/b//c", base); /* made, with what is above it */
    assert_int_equal(disk_posix_open(deep, &r->d), 0);
    struct stat st;
    assert_int_equal(stat(deep, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    Rig *r = *state;
    char command[96];
    disk_free(r->d);
    disk_free(NULL);
    snprintf(command, sizeof command, "rm -r %s", r->dir);
    int failed = system(command);
    mem_free(r);
    return failed;
}

static void files_keep_bytes(void **state)
{
    Disk *d = ((Rig *)*state)->d;
    const DiskOps *ops = d->ops;
    DiskFile *f, *g;
    assert_int_equal(ops->open(d, "x", DISK_READ, &f), ERR_NOT_FOUND);
    assert_int_equal(ops->open(d, "x", DISK_WRITE | DISK_CREATE | DISK_EXCLUSIVE, &f), 0);
    assert_int_equal(ops->open(d, "x", DISK_WRITE | DISK_CREATE | DISK_EXCLUSIVE, &g), ERR_EXISTS);
    assert_int_equal(ops->write(f, 5, "hello", 5), 0);
    uint64_t size;
    assert_int_equal(ops->size(f, &size), 0);
    assert_int_equal(size, 10);
    char bytes[32];
    size_t n;
    assert_int_equal(ops->read(f, 0, bytes, sizeof bytes, &n), 0);
    assert_int_equal(n, 10);
    assert_memory_equal(bytes, "\0\0\0\0\0hello", 10);
    assert_int_equal(ops->read(f, 10, bytes, sizeof bytes, &n), 0);
    assert_int_equal(n, 0);

    assert_int_equal(ops->allocate(f, 7, MIB), 0); /* zeroes, whatever was there */
    assert_int_equal(ops->size(f, &size), 0);
    assert_int_equal(size, 7 + MIB);
    assert_int_equal(ops->read(f, 5, bytes, 5, &n), 0);
    assert_memory_equal(bytes, "he\0\0\0", 5);
    assert_int_equal(ops->sync(f), 0);
    assert_int_equal(ops->truncate(f, 6), 0);
    assert_int_equal(ops->size(f, &size), 0);
    assert_int_equal(size, 6);
    ops->close(f);
    assert_int_equal(ops->open(d, "x", DISK_READ, &f), 0);
    assert_int_equal(ops->write(f, 0, "y", 1), ERR_IO); /* open for reading */
    ops->close(f);
    ops->close(NULL);
}

static void note(void *ctx, const char *name)
{
    Buf *b = ctx;
    buf_puts(b, name);
    buf_putc(b, ' ');
}

static void names_change(void **state)
{
    Disk *d = ((Rig *)*state)->d;
    const DiskOps *ops = d->ops;
    DiskFile *f;
    Buf names = {0};
    assert_int_equal(ops->list(d, "log", note, &names), ERR_NOT_FOUND);
    assert_int_equal(ops->make_dir(d, "log"), 0);
    assert_int_equal(ops->make_dir(d, "log"), 0);
    assert_int_equal(ops->sync_dir(d, ""), 0);
    assert_int_equal(ops->open(d, "log/a", DISK_WRITE | DISK_CREATE, &f), 0);
    ops->close(f);
    assert_int_equal(ops->rename(d, "log/a", "log/b"), 0);
    assert_int_equal(ops->rename(d, "log/a", "log/b"), ERR_NOT_FOUND);
    assert_int_equal(ops->sync_dir(d, "log"), 0);
    assert_int_equal(ops->list(d, "log", note, &names), 0);
    assert_string_equal(buf_z(&names), "b ");
    buf_clear(&names);
    assert_int_equal(ops->list(d, "", note, &names), 0);
    assert_string_equal(buf_z(&names), "log ");
    assert_int_equal(ops->unlink(d, "log/b"), 0);
    assert_int_equal(ops->unlink(d, "log/b"), ERR_NOT_FOUND);
    assert_int_equal(ops->sync_dir(d, "nowhere"), ERR_NOT_FOUND);
    buf_done(&names);
}

static void a_lock_is_held_once(void **state)
{
    Disk *d = ((Rig *)*state)->d;
    DiskFile *f, *g;
    assert_int_equal(d->ops->lock(d, "lock", &f), 0);
    assert_int_equal(d->ops->lock(d, "lock", &g), ERR_LOCKED); /* also in one process */
    char text[32] = {0}, want[32];
    size_t n;
    assert_int_equal(d->ops->open(d, "lock", DISK_READ, &g), 0);
    assert_int_equal(d->ops->read(g, 0, text, sizeof text - 1, &n), 0);
    d->ops->close(g); /* closing another descriptor of the file does not let the lock go */
    snprintf(want, sizeof want, "%ld\n", (long)getpid());
    assert_string_equal(text, want);
    assert_int_equal(d->ops->lock(d, "lock", &g), ERR_LOCKED);
    d->ops->close(f);
    assert_int_equal(d->ops->lock(d, "lock", &f), 0);
    d->ops->close(f);
}

static void a_full_disk_says_so(void **state)
{
    (void)state;
    Disk *d;
    DiskFile *f;
    assert_int_equal(disk_posix_open("/dev", &d), 0);
    if (d->ops->open(d, "full", DISK_WRITE, &f) == 0) {
        assert_int_equal(d->ops->write(f, 0, "x", 1), ERR_NOSPC);
        d->ops->close(f);
    }
    disk_free(d);
    assert_int_not_equal(disk_posix_open("/dev/null", &d), 0);
    assert_int_not_equal(disk_posix_open("/dev/null/below", &d), 0);
    assert_int_not_equal(disk_posix_open("", &d), 0);
}

static void the_clock_goes(void **state)
{
    (void)state;
    int64_t boot = clock_real.boot_ns(&clock_real), wall = clock_real.wall_ns(&clock_real);
    assert_true(wall > INT64_C(1577836800) * NS_PER_S); /* after 2020 */
    for (int i = 0; i < 1000; i++) {
        int64_t now = clock_real.boot_ns(&clock_real);
        assert_true(now >= boot);
        boot = now;
    }
    uint8_t a[32] = {0}, b[32] = {0};
    random_secret(a, sizeof a);
    random_secret(b, sizeof b);
    assert_memory_not_equal(a, b, sizeof a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(files_keep_bytes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(names_change, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_lock_is_held_once, set_up, tear_down),
        cmocka_unit_test(a_full_disk_says_so),
        cmocka_unit_test(the_clock_goes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
