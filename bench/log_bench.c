/* log_bench.c: how fast the embedded log appends and replays, on the disk below DIR.
 *
 *     log_bench DIR [frame bytes] [seconds per row]
 *
 * A row: groups of N frames, each group synced before the next (log_commit, no thread). Before each
 * row a probe says what a bare overwrite + fdatasync of 4 KiB takes here and now: with p50 near 4
 * ms the machine has one of its slow minutes, and the row is worth nothing. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "io/clock.h"
#include "io/disk.h"
#include "log/log.h"

static int64_t now(void)
{
    return clock_real.boot_ns(&clock_real);
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static int64_t median(int64_t *v, size_t n)
{
    qsort(v, n, sizeof *v, by_value);
    return n ? v[n / 2] : 0;
}

static int64_t probe(Disk *d)
{
    static uint8_t page[4096];
    int64_t took[200];
    DiskFile *f;
    CHECK(d->ops->open(d, "probe", DISK_WRITE | DISK_CREATE, &f) == 0);
    CHECK(d->ops->allocate(f, 0, sizeof page * ARRAY_LEN(took)) == 0 && d->ops->sync(f) == 0);
    for (size_t i = 0; i < ARRAY_LEN(took); i++) {
        int64_t begin = now();
        CHECK(d->ops->write(f, i * sizeof page, page, sizeof page) == 0 && d->ops->sync(f) == 0);
        took[i] = now() - begin;
    }
    d->ops->close(f);
    CHECK(d->ops->unlink(d, "probe") == 0);
    return median(took, ARRAY_LEN(took));
}

static uint64_t played;

static int count_frame(void *ctx, const Frame *f, Str bytes)
{
    (void)ctx;
    (void)bytes;
    played += f->records;
    return 0;
}

static Log *open_log(Disk *d, LogPoint *at)
{
    Buf why = {0};
    Log *log;
    int64_t begin = now();
    played = 0;
    int err = log_open(d, NULL, &log, &why);
    if (!err) err = log_replay(log, &(LogReplay){.frame = count_frame}, at, &why);
    if (err) {
        fprintf(stderr, "%s: %s\n", err_text(err), buf_z(&why));
        exit(1);
    }
    printf("opened in %.3f s, %" PRIu64 " frames replayed\n", (double)(now() - begin) / 1e9,
           played);
    return log;
}

static void row(Disk *d, Log *log, LogPoint *at, size_t batch, size_t bytes, double seconds)
{
    enum { COMMITS_MAX = 1 << 20 };
    int64_t *took = mem_new(COMMITS_MAX * sizeof *took), waits = 0;
    FrameBuilder b = {0};
    Buf frame = {0}, payload = {0};
    memset(buf_extend(&payload, bytes), 'x', bytes);
    int64_t before = probe(d), begin = now(), until = begin + (int64_t)(seconds * 1e9);
    uint64_t frames = 0, commits = 0, seq;
    while (now() < until && commits < COMMITS_MAX) {
        for (size_t i = 0; i < batch; i++) {
            frame_reset(&b);
            frame_begin_record(&b, 9, 1);
            buf_put(&b.meta, payload.data, bytes - FRAME_HEAD_LEN - 8);
            frame_end_record(&b);
            buf_clear(&frame);
            frame_seal(&b, at->time_ns + 1, at, &frame);
            int err;
            while ((err = log_append(log, buf_str(&frame), at->next_seq - 1, false)) == ERR_AGAIN) {
                waits++;
                CHECK(log_commit(log, &seq) == 0);
            }
            CHECK(err == 0);
        }
        int64_t start = now();
        CHECK(log_commit(log, &seq) == 0 && seq == at->next_seq - 1);
        took[commits++] = now() - start;
        frames += batch;
    }
    double s = (double)(now() - begin) / 1e9;
    size_t n = commits;
    int64_t p50 = median(took, n);
    printf("batch %4zu: %9.0f records/s, commit p50 %.0f us p99 %.0f us max %.1f ms", batch,
           (double)frames / s, (double)p50 / 1e3, (double)took[n * 99 / 100] / 1e3,
           (double)took[n - 1] / 1e6);
    printf(" (probe p50 %.0f us, waits %d)\n", (double)before / 1e3, (int)waits);
    mem_free(took);
    frame_done(&b);
    buf_done(&frame);
    buf_done(&payload);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: log_bench DIR [frame bytes] [seconds per row]\n");
        return 2;
    }
    size_t bytes = argc > 2 ? (size_t)atoi(argv[2]) : 320;
    double seconds = argc > 3 ? atof(argv[3]) : 3;
    Disk *d;
    CHECK(bytes >= 80 && disk_posix_open(argv[1], &d) == 0);
    LogPoint at;
    Log *log = open_log(d, &at);
    FrameBuilder b = {0};
    Buf frame = {0};
    uint64_t seq;
    at.epoch++;
    at.holder = 1;
    frame_begin_record(&b, FRAME_RECORD_CLAIM, 1);
    frame_end_record(&b);
    frame_seal(&b, at.time_ns + 1, &at, &frame);
    CHECK(log_append(log, buf_str(&frame), at.next_seq - 1, true) == 0 &&
          log_commit(log, &seq) == 0);
    frame_done(&b);
    buf_done(&frame);
    static const size_t batches[] = {1, 16, 256, 1024};
    for (size_t i = 0; i < ARRAY_LEN(batches); i++) row(d, log, &at, batches[i], bytes, seconds);
    log_close(log);
    log = open_log(d, &at);
    log_close(log);
    disk_free(d);
    return 0;
}
