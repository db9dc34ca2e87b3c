/* history_rig.h: a history in a folder of its own, and tasks whose content follows from their
 * number: for the tests of src/history. */
#ifndef TESTS_UNIT_HISTORY_RIG_H
#define TESTS_UNIT_HISTORY_RIG_H

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "history/history.h"

#define RIG_SHARD 7
#define RIG_DAY   INT64_C(1790000000000000000) /* ns */

typedef struct {
    char dir[64], path[96];
    History *h;
} Rig;

static inline int rig_open_at(Rig *r, uint64_t log_seq)
{
    Buf why = {0};
    r->h = NULL;
    int err = history_open(r->path, RIG_SHARD, log_seq, &r->h, &why);
    assert_true(!err == !why.len && !err == !!r->h);
    buf_done(&why);
    return err;
}

static void rig_open(Rig *r)
{
    Buf why = {0};
    int err = history_open(r->path, RIG_SHARD, UINT64_MAX, &r->h, &why);
    if (err) fail_msg("%s", buf_z(&why));
    buf_done(&why);
}

static void rig_start(Rig *r)
{
    *r = (Rig){0};
    snprintf(r->dir, sizeof r->dir, "/tmp/headrace-history-XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    snprintf(r->path, sizeof r->path, "%s/history.db", r->dir);
    rig_open(r);
}

static inline void rig_reopen(Rig *r)
{
    history_close(r->h);
    rig_open(r);
}

static void rig_end(Rig *r)
{
    static const char *const tails[] = {"", "-wal", "-shm", "-journal", ".new", ".new-wal"};
    char path[128];
    history_close(r->h);
    for (size_t i = 0; i < ARRAY_LEN(tails); i++) {
        snprintf(path, sizeof path, "%s%s", r->path, tails[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(r->dir), 0); /* nothing else was left */
}

/* ---- tasks ---- */

static const char *const rig_tenants[] = {"acme", "bolt", "crane", "dot"};
static const char *const rig_models[] = {"echo", "sdxl", "whisper"};
static const char *const rig_versions[] = {"1", "2"};

/* The same for the same number; strings are static or lie in *body. */
static inline HistoryTask rig_task(uint64_t no, Buf *body)
{
    uint64_t x = hash_u64(no * 77 + 5);
    buf_clear(body);
    size_t len = x % 50 == 0 ? 9000 : x % 600;
    buf_printf(body, "task %llu:", (unsigned long long)no);
    while (body->len < len) buf_u64(body, x = hash_u64(x));
    x = hash_u64(no * 77 + 6);
    return (HistoryTask){
        .no = no,
        .finished_seq = no * 3 + 2,
        .created_ns = RIG_DAY + (int64_t)no * NS_PER_MS * 10,
        .finished_ns = RIG_DAY + (int64_t)no * NS_PER_MS * 10 + NS_PER_S,
        .expires_ns = x % 3 ? 0 : RIG_DAY + (int64_t)no * NS_PER_MS * 10 + 100 * NS_PER_S,
        .state = x / 3 % 10 < 7 ? TASK_SUCCEEDED : TASK_FAILED + (x / 3 % 10 - 7),
        .class = (TaskClass)(x / 30 % CLASSES),
        .tenant = str_from(rig_tenants[x / 300 % ARRAY_LEN(rig_tenants)]),
        .model = str_from(rig_models[x / 3000 % ARRAY_LEN(rig_models)]),
        .version = str_from(rig_versions[x / 30000 % ARRAY_LEN(rig_versions)]),
        .body = buf_str(body),
    };
}

static inline bool rig_same(const HistoryTask *a, const HistoryTask *b)
{
    return a->no == b->no && a->finished_seq == b->finished_seq && a->created_ns == b->created_ns &&
           a->finished_ns == b->finished_ns && a->expires_ns == b->expires_ns &&
           a->state == b->state && a->class == b->class && str_eq(a->tenant, b->tenant) &&
           str_eq(a->model, b->model) && str_eq(a->version, b->version) && str_eq(a->body, b->body);
}

/* Puts tasks first … last in one transaction; the last one's sequence is applied. */
static inline int rig_put(Rig *r, uint64_t first, uint64_t last)
{
    Buf body = {0};
    int err = history_begin(r->h);
    for (uint64_t no = first; no <= last && !err; no++) {
        HistoryTask t = rig_task(no, &body);
        err = history_put_task(r->h, &t);
    }
    buf_done(&body);
    if (err) {
        history_rollback(r->h);
        return err;
    }
    return history_commit(r->h, last * 3 + 2);
}

/* It is there and right: 0; or the error, or ERR_INVALID when it is another. */
static inline int rig_check(Rig *r, uint64_t no)
{
    Buf body = {0};
    HistoryTask want = rig_task(no, &body), got;
    int err = history_get(r->h, no, &got);
    if (!err && !rig_same(&got, &want)) err = ERR_INVALID;
    buf_done(&body);
    return err;
}

static inline uint64_t rig_rows(Rig *r)
{
    HistoryStats s;
    assert_int_equal(history_stats(r->h, &s), 0);
    return s.rows;
}

/* Counts rows by a full list: what is stored, not what is counted. */
static inline bool rig_count(void *ctx, const HistoryTask *t)
{
    (void)t;
    ++*(uint64_t *)ctx;
    return true;
}

static inline uint64_t rig_listed(Rig *r)
{
    uint64_t n = 0, next = 0;
    HistoryFilter f = {.limit = UINT32_MAX, .scan_max = UINT32_MAX};
    assert_int_equal(history_list(r->h, &f, rig_count, &n, &next), 0);
    assert_true(next == 0);
    return n;
}

/* Overwrites n bytes of the file at `at`. */
static inline void rig_damage(const char *path, off_t at, const void *p, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, p, n, at), n);
    close(fd);
}

#endif
