/* history.c: what is put is there; lists against a naive model; sweeps; what is refused. */
#include "unit/history_rig.h"

#include "history/inside.h"

static const HistoryLimits no_limits = {0};

static void nothing_gone(void *ctx, Str id)
{
    (void)ctx;
    (void)id;
    fail();
}

/* ---- put and get ---- */

static void what_is_put_is_there(void **state)
{
    (void)state;
    Rig r;
    rig_start(&r);
    assert_true(history_applied_seq(r.h) == 0);
    assert_int_equal(rig_put(&r, 1, 500), 0);
    for (int round = 0; round < 2; round++) {
        for (uint64_t no = 1; no <= 500; no++) assert_int_equal(rig_check(&r, no), 0);
        HistoryTask t;
        assert_int_equal(history_get(r.h, 501, &t), ERR_NOT_FOUND);
        assert_int_equal(history_get(r.h, 0, &t), ERR_NOT_FOUND);
        assert_int_equal(history_get(r.h, UINT64_MAX, &t), ERR_NOT_FOUND);
        assert_true(history_applied_seq(r.h) == 1502);
        HistoryStats s;
        assert_int_equal(history_stats(r.h, &s), 0);
        assert_true(s.rows == 500 && s.applied_seq == 1502);
        assert_true(s.bytes > 100000 && s.bytes <= s.file_bytes && s.file_bytes < 2000000);
        assert_true(s.oldest_finished_ns == RIG_DAY + 10 * NS_PER_MS + NS_PER_S);
        rig_reopen(&r);
    }
    struct stat st;
    assert_int_equal(stat(r.path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    rig_end(&r);
}

static void putting_again_replaces(void **state)
{
    (void)state;
    Rig r;
    Buf body = {0};
    rig_start(&r);
    assert_int_equal(rig_put(&r, 1, 50), 0);
    assert_int_equal(rig_put(&r, 40, 60), 0);
    assert_true(rig_rows(&r) == 60 && rig_listed(&r) == 60);
    HistoryTask t = rig_task(7, &body), got;
    t.state = TASK_EXPIRED;
    t.model = STR("another");
    t.body = STR("");
    assert_int_equal(history_begin(r.h), 0);
    assert_int_equal(history_put_task(r.h, &t), 0);
    assert_int_equal(history_commit(r.h, 10), 0);
    assert_true(history_applied_seq(r.h) == 182); /* never falls */
    assert_int_equal(history_get(r.h, 7, &got), 0);
    assert_true(rig_same(&got, &t));
    uint64_t n = 0, next;
    HistoryFilter f = {.model = STR("another"), .limit = 10, .scan_max = 10};
    assert_int_equal(history_list(r.h, &f, rig_count, &n, &next), 0);
    assert_int_equal(n, 1);
    assert_true(rig_rows(&r) == 60 && rig_listed(&r) == 60);
    buf_done(&body);
    rig_end(&r);
}

static void a_rollback_leaves_nothing(void **state)
{
    (void)state;
    Rig r;
    Buf body = {0};
    rig_start(&r);
    history_rollback(r.h);
    for (int round = 0; round < 3; round++) {
        HistoryTask t = rig_task(1, &body);
        t.tenant = STR("who was never seen"); /* the kind must go, and come back */
        assert_int_equal(history_begin(r.h), 0);
        assert_int_equal(history_put_task(r.h, &t), 0);
        history_rollback(r.h);
        assert_true(rig_rows(&r) == 0 && rig_listed(&r) == 0);
        assert_true(history_applied_seq(r.h) == 0);
    }
    assert_int_equal(rig_put(&r, 1, 3), 0);
    HistoryTask t = rig_task(9, &body), got;
    t.tenant = STR("who was never seen");
    assert_int_equal(history_begin(r.h), 0);
    assert_int_equal(history_put_task(r.h, &t), 0);
    assert_int_equal(history_commit(r.h, 11), 0);
    assert_int_equal(history_get(r.h, 9, &got), 0);
    assert_true(rig_same(&got, &t));
    buf_done(&body);
    rig_end(&r);
}

static void a_body_over_the_limit_is_refused(void **state)
{
    (void)state;
    Rig r;
    Buf body = {0};
    rig_start(&r);
    HistoryTask t = rig_task(1, &body);
    buf_clear(&body);
    memset(buf_extend(&body, ROW_BYTES_MAX + 1), 'x', ROW_BYTES_MAX + 1);
    t.body = buf_str(&body);
    assert_int_equal(history_begin(r.h), 0);
    assert_int_equal(history_put_task(r.h, &t), ERR_LIMIT);
    t.body.n = 10;
    assert_int_equal(history_put_task(r.h, &t), ERR_LIMIT); /* an error stays */
    assert_int_equal(history_commit(r.h, 5), ERR_LIMIT);
    assert_true(rig_rows(&r) == 0 && history_applied_seq(r.h) == 0);
    assert_int_equal(rig_put(&r, 1, 10), 0);
    buf_done(&body);
    rig_end(&r);
}

/* ---- lists ---- */

#define MODEL_TASKS 4000

typedef struct {
    uint64_t numbers[MODEL_TASKS];
    size_t n;
    uint64_t stop_at; /* the row behind which to stop; 0: none */
    Buf body;
} Listed;

static bool take(void *ctx, const HistoryTask *t)
{
    Listed *l = ctx;
    HistoryTask want = rig_task(t->no, &l->body);
    assert_true(rig_same(t, &want));
    assert_true(l->n < MODEL_TASKS);
    l->numbers[l->n++] = t->no;
    return t->no != l->stop_at;
}

static bool fits(const HistoryTask *t, const HistoryFilter *f)
{
    return (!f->states || f->states >> t->state & 1) &&
           (!f->classes || f->classes >> t->class & 1) &&
           (!f->tenant.n || str_eq(f->tenant, t->tenant)) &&
           (!f->model.n || str_eq(f->model, t->model)) &&
           (!f->version.n || str_eq(f->version, t->version)) &&
           (!f->created_after_ns || t->created_ns / NS_PER_MS > f->created_after_ns / NS_PER_MS);
}

static Str one_of(Random *x, const char *const *names, size_t n)
{
    uint64_t i = random_below(x, n * 2 + 1);
    if (i < n) return str_from(names[i]);
    return i == n ? STR("nobody") : (Str){"", 0};
}

static void lists_are_what_a_naive_search_finds(void **state)
{
    (void)state;
    Rig r;
    Random x;
    Buf body = {0};
    Listed *l = mem_new(sizeof *l);
    bool *there = mem_new(MODEL_TASKS + 1);
    rig_start(&r);
    random_seed(&x, 11);
    for (int i = 0; i < 30; i++) { /* out of order, some twice, some never */
        uint64_t first = 1 + random_below(&x, MODEL_TASKS - 200), last = first + 199;
        assert_int_equal(rig_put(&r, first, last), 0);
        memset(there + first, 1, 200);
    }
    for (int i = 0; i < 300; i++) {
        HistoryFilter f = {
            .states = random_below(&x, 2) ? (uint32_t)random_below(&x, 1u << TASK_STATES) : 0,
            .classes = random_below(&x, 3) ? 0 : (uint32_t)random_below(&x, 1u << CLASSES),
            .tenant = one_of(&x, rig_tenants, ARRAY_LEN(rig_tenants)),
            .model = one_of(&x, rig_models, ARRAY_LEN(rig_models)),
            .version = one_of(&x, rig_versions, ARRAY_LEN(rig_versions)),
            .created_after_ns = random_below(&x, 4)
                                    ? 0
                                    : RIG_DAY + (int64_t)random_below(&x, (uint64_t)MODEL_TASKS *
                                                                              10 * NS_PER_MS),
            .limit = 1 + (uint32_t)random_below(&x, 300),
        };
        f.scan_max = f.limit + (uint32_t)random_below(&x, random_below(&x, 2) ? 50 : 5000);
        uint64_t top = random_below(&x, 3) ? 0 : 1 + random_below(&x, MODEL_TASKS + 10);
        f.before = top;
        l->n = 0;
        l->stop_at = random_below(&x, MODEL_TASKS * 2);
        uint64_t next = 0;
        do {
            size_t was = l->n;
            assert_int_equal(history_list(r.h, &f, take, l, &next), 0);
            assert_true(l->n - was <= f.limit);
            assert_true(!next || !f.before || next < f.before); /* it moves on */
            if (l->n > was && l->numbers[l->n - 1] == l->stop_at) assert_true(next == l->stop_at);
            f.before = next;
        } while (next);
        size_t at = 0;
        for (uint64_t no = top ? MIN(top - 1, MODEL_TASKS) : MODEL_TASKS; no > 0; no--) {
            HistoryTask t = rig_task(no, &body);
            if (!there[no] || !fits(&t, &f)) continue;
            assert_true(at < l->n);
            assert_true(l->numbers[at++] == no);
        }
        assert_int_equal(at, l->n);
    }
    rig_end(&r);
    buf_done(&l->body);
    buf_done(&body);
    mem_free(there);
    mem_free(l);
}

/* More kinds than are merged: then the table is walked, and gives the same. */
static void lists_over_very_many_kinds(void **state)
{
    (void)state;
    Rig r;
    Buf body = {0};
    rig_start(&r);
    assert_int_equal(history_begin(r.h), 0);
    char name[32];
    for (uint64_t no = 1; no <= 5000; no++) {
        HistoryTask t = rig_task(no, &body);
        snprintf(name, sizeof name, "tenant-%d", (int)no);
        t.tenant = str_from(name);
        t.model = no % 2 ? STR("odd") : STR("even");
        t.version = no % 10 ? STR("1") : STR("10");
        t.state = no % 100 ? TASK_SUCCEEDED : TASK_FAILED;
        assert_int_equal(history_put_task(r.h, &t), 0);
    }
    assert_int_equal(history_commit(r.h, 20000), 0);
    static const struct {
        HistoryFilter f;
        uint64_t want;
    } cases[] = {
        {{.version = {"1", 1}}, 4500},
        {{.version = {"10", 2}}, 500},
        {{.states = 1u << TASK_FAILED}, 50},
        {{.model = {"odd", 3}}, 2500},
        {{.model = {"odd", 3}, .states = 1u << TASK_FAILED}, 0},
        {{.tenant = {"tenant-77", 9}}, 1},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        HistoryFilter f = cases[i].f;
        f.limit = 100;
        f.scan_max = 1000;
        uint64_t n = 0, next = 0;
        do {
            assert_int_equal(history_list(r.h, &f, rig_count, &n, &next), 0);
            f.before = next;
        } while (next);
        assert_true(n == cases[i].want);
    }
    buf_done(&body);
    rig_end(&r);
}

/* ---- files, deletion ---- */

static HistoryFile file_of(uint64_t no, uint64_t owner, char id[32])
{
    snprintf(id, 32, "file_%026d", (int)no);
    return (HistoryFile){
        .no = no,
        .id = str_from(id),
        .tenant = str_from(rig_tenants[no % 4]),
        .owner_task = owner,
        .size = no * 1000,
        .body = STR("as src/task encodes it"),
    };
}

static void files_are_found_by_id_and_tenant(void **state)
{
    (void)state;
    Rig r;
    char id[32];
    rig_start(&r);
    assert_int_equal(history_begin(r.h), 0);
    for (uint64_t no = 1; no <= 20; no++) {
        HistoryFile f = file_of(no, no / 2, id);
        assert_int_equal(history_put_file(r.h, &f), 0);
        assert_int_equal(history_put_file(r.h, &f), 0);
    }
    assert_int_equal(history_commit(r.h, 5), 0);
    rig_reopen(&r);
    HistoryFile want = file_of(9, 4, id), got;
    assert_int_equal(history_file(r.h, want.id, STR(""), &got), 0);
    assert_true(got.no == 9 && got.owner_task == 4 && got.size == 9000);
    assert_true(str_eq(got.id, want.id) && str_eq(got.tenant, want.tenant));
    assert_true(str_eq(got.body, want.body));
    assert_int_equal(history_file(r.h, want.id, STR("bolt"), &got), 0);
    assert_int_equal(history_file(r.h, want.id, STR("acme"), &got), ERR_NOT_FOUND);
    assert_int_equal(history_file_exists(r.h, want.id), 0);
    assert_int_equal(history_file_exists(r.h, STR("file_")), ERR_NOT_FOUND);
    assert_int_equal(history_remove_file(r.h, want.id), 0);
    assert_int_equal(history_remove_file(r.h, want.id), ERR_NOT_FOUND);
    assert_int_equal(history_file_exists(r.h, want.id), ERR_NOT_FOUND);
    assert_true(history_applied_seq(r.h) == 5);
    rig_end(&r);
}

/* A task that was put, then lost its payload and its files, and is put as it is now. */
static void putting_again_drops_its_files(void **state)
{
    (void)state;
    Rig r;
    char id[32], other_id[32];
    Buf body = {0};
    rig_start(&r);
    HistoryTask t = rig_task(7, &body);
    HistoryFile f = file_of(3, 7, id), other = file_of(4, 8, other_id);
    for (int again = 0; again < 2; again++) {
        assert_int_equal(history_begin(r.h), 0);
        assert_int_equal(history_put_task(r.h, &t), 0);
        assert_int_equal(history_put_file(r.h, &f), 0);
        assert_int_equal(history_put_file(r.h, &other), 0);
        assert_int_equal(history_commit(r.h, 10), 0);
        assert_int_equal(history_file_exists(r.h, f.id), 0);
    }
    assert_int_equal(history_begin(r.h), 0);
    assert_int_equal(history_put_task(r.h, &t), 0);
    assert_int_equal(history_commit(r.h, 10), 0);
    assert_int_equal(history_file_exists(r.h, f.id), ERR_NOT_FOUND);
    assert_int_equal(history_file_exists(r.h, other.id), 0);
    buf_done(&body);
    rig_end(&r);
}

static bool contains(const char *path, Str what)
{
    int fd = open(path, O_RDONLY);
    if (fd < 0) return false;
    Buf b = {0};
    ssize_t n;
    do {
        buf_reserve(&b, 65536);
        n = read(fd, b.data + b.len, 65536);
        assert_true(n >= 0);
        b.len += (size_t)n;
    } while (n);
    close(fd);
    bool found = b.len && memmem(b.data, b.len, what.p, what.n);
    buf_done(&b);
    return found;
}

/* The body of a deleted payload is in neither file afterwards, be it small or of many pages. */
static void a_deleted_payload_is_overwritten(void **state)
{
    (void)state;
    Rig r;
    char wal[128], small[] = "small secret of task 40", large[] = "large secret of task 41";
    Buf body = {0}, long_body = {0};
    uint32_t removed;
    rig_start(&r);
    snprintf(wal, sizeof wal, "%s-wal", r.path);
    assert_int_equal(rig_put(&r, 1, 60), 0);
    for (int i = 0; i < 4000; i++) buf_puts(&long_body, large);
    HistoryTask t = rig_task(40, &body), u = rig_task(41, &body), got;
    t.body = str_from(small);
    u.body = buf_str(&long_body);
    assert_int_equal(history_begin(r.h), 0);
    assert_int_equal(history_put_task(r.h, &t), 0);
    assert_int_equal(history_put_task(r.h, &u), 0);
    assert_int_equal(history_commit(r.h, 200), 0);
    assert_int_equal(history_sweep(r.h, RIG_DAY, &no_limits, 100, nothing_gone, NULL, &removed), 0);
    assert_true(contains(r.path, str_from(small)) && contains(r.path, str_from(large)));

    assert_int_equal(history_replace_body(r.h, 40, STR("forgotten")), 0);
    assert_int_equal(history_begin(r.h), 0);
    assert_int_equal(history_replace_body(r.h, 41, STR("forgotten too")), 0);
    assert_int_equal(history_replace_body(r.h, 99, STR("")), ERR_NOT_FOUND); /* harms nothing */
    assert_int_equal(history_commit(r.h, 210), 0);
    assert_int_equal(history_replace_body(r.h, 99, STR("")), ERR_NOT_FOUND);
    assert_int_equal(history_sweep(r.h, RIG_DAY, &no_limits, 100, nothing_gone, NULL, &removed), 0);
    assert_false(contains(r.path, str_from(small)) || contains(wal, str_from(small)));
    assert_false(contains(r.path, str_from(large)) || contains(wal, str_from(large)));
    assert_int_equal(history_get(r.h, 40, &got), 0);
    assert_true(str_eqz(got.body, "forgotten") && str_eq(got.tenant, t.tenant));
    assert_int_equal(history_get(r.h, 41, &got), 0);
    assert_true(str_eqz(got.body, "forgotten too"));
    assert_true(history_applied_seq(r.h) == 210 && rig_rows(&r) == 60);
    buf_done(&body);
    buf_done(&long_body);
    rig_end(&r);
}

/* ---- sweep ---- */

static void note_gone(void *ctx, Str id)
{
    Buf *b = ctx;
    buf_put_str(b, id);
    buf_putc(b, ' ');
}

static void expired_ones_leave_first_and_files_with_them(void **state)
{
    (void)state;
    Rig r;
    Buf body = {0}, gone = {0};
    char id[32];
    uint32_t removed = 0;
    uint64_t expiring = 0;
    rig_start(&r);
    assert_int_equal(rig_put(&r, 1, 1000), 0);
    assert_int_equal(history_begin(r.h), 0);
    for (uint64_t no = 1; no <= 1000; no++) {
        if (!rig_task(no, &body).expires_ns) continue;
        expiring++;
        if (expiring > 2) continue;
        for (uint64_t i = 0; i < 2; i++) {
            HistoryFile f = file_of(no * 10 + i, no, id);
            assert_int_equal(history_put_file(r.h, &f), 0);
        }
    }
    HistoryFile other = file_of(99999, 0, id);
    assert_int_equal(history_put_file(r.h, &other), 0);
    assert_int_equal(history_commit(r.h, 4000), 0);

    int64_t now = RIG_DAY + 100 * NS_PER_S;
    assert_int_equal(history_sweep(r.h, now, &no_limits, 10, nothing_gone, NULL, &removed), 0);
    assert_int_equal(removed, 0);
    now = RIG_DAY + 1000 * NS_PER_S;
    assert_int_equal(history_sweep(r.h, now, &no_limits, 1, note_gone, &gone, &removed), 0);
    assert_int_equal(removed, 1);
    assert_int_equal(gone.len, 64); /* two names of 31 */
    assert_int_equal(history_file_exists(r.h, (Str){(char *)gone.data, 31}), ERR_NOT_FOUND);
    uint64_t sum = 1;
    do {
        assert_int_equal(history_sweep(r.h, now, &no_limits, 50, note_gone, &gone, &removed), 0);
        assert_true(removed <= 50);
        sum += removed;
    } while (removed == 50);
    assert_true(sum == expiring && rig_rows(&r) == 1000 - sum && rig_listed(&r) == 1000 - sum);
    assert_int_equal(gone.len, 128);
    assert_int_equal(history_file_exists(r.h, other.id), 0);
    for (uint64_t no = 1; no <= 1000; no++)
        assert_int_equal(rig_check(&r, no), rig_task(no, &body).expires_ns ? ERR_NOT_FOUND : 0);
    assert_true(history_applied_seq(r.h) == 4000);
    buf_done(&body);
    buf_done(&gone);
    rig_end(&r);
}

static void old_ones_leave_and_too_many_and_too_large(void **state)
{
    (void)state;
    Rig r;
    uint32_t removed = 0;
    HistoryStats s;
    rig_start(&r);
    assert_int_equal(rig_put(&r, 1, 6000), 0);
    int64_t now = RIG_DAY + 60 * NS_PER_S; /* task n finished at RIG_DAY + 1 s + n × 10 ms */
    HistoryLimits l = {.max_age_ns = 58 * NS_PER_S};
    assert_int_equal(history_sweep(r.h, now, &l, 1000, nothing_gone, NULL, &removed), 0);
    assert_int_equal(removed, 100);
    assert_int_equal(rig_check(&r, 100), ERR_NOT_FOUND);
    assert_int_equal(rig_check(&r, 101), 0);

    l = (HistoryLimits){.max_rows = 5000};
    assert_int_equal(history_sweep(r.h, now, &l, 300, nothing_gone, NULL, &removed), 0);
    assert_int_equal(removed, 300); /* bounded; more is due */
    assert_int_equal(history_sweep(r.h, now, &l, 1000, nothing_gone, NULL, &removed), 0);
    assert_int_equal(removed, 600);
    assert_int_equal(rig_check(&r, 1000), ERR_NOT_FOUND);
    assert_int_equal(rig_check(&r, 1001), 0);
    assert_true(rig_rows(&r) == 5000 && rig_listed(&r) == 5000);

    assert_int_equal(history_stats(r.h, &s), 0);
    l = (HistoryLimits){.max_bytes = s.bytes / 2};
    assert_int_equal(history_sweep(r.h, now, &l, 5000, nothing_gone, NULL, &removed), 0);
    assert_in_range(removed, 2000, 3000);
    uint64_t before = s.bytes;
    assert_int_equal(history_stats(r.h, &s), 0);
    assert_true(s.bytes <= l.max_bytes && s.bytes > before / 3);
    assert_int_equal(history_sweep(r.h, now, &l, 5000, nothing_gone, NULL, &removed), 0);
    assert_int_equal(removed, 0);

    l = (HistoryLimits){.max_rows = 1};
    while (rig_rows(&r) > 1)
        assert_int_equal(history_sweep(r.h, now, &l, 5000, nothing_gone, NULL, &removed), 0);
    assert_int_equal(rig_check(&r, 6000), 0);
    l = (HistoryLimits){.max_bytes = 1}; /* less than an empty file: ends all the same */
    assert_int_equal(history_sweep(r.h, now, &l, 5000, nothing_gone, NULL, &removed), 0);
    assert_int_equal(removed, 1);
    assert_int_equal(history_sweep(r.h, now, &l, 5000, nothing_gone, NULL, &removed), 0);
    assert_int_equal(removed, 0);
    rig_end(&r);
}

/* In and out at the same rate: the file keeps its size. When most has left, it gives room back. */
static void the_file_does_not_grow_for_ever(void **state)
{
    (void)state;
    Rig r;
    uint32_t removed;
    HistoryStats s;
    HistoryLimits l = {.max_rows = 40000};
    rig_start(&r);
    uint64_t peak = 0, no = 1;
    for (; no < 120000; no += 2000) {
        assert_int_equal(rig_put(&r, no, no + 1999), 0);
        do assert_int_equal(history_sweep(r.h, RIG_DAY, &l, 1500, nothing_gone, NULL, &removed), 0);
        while (removed == 1500);
        assert_int_equal(history_stats(r.h, &s), 0);
        if (no == 60001) peak = s.file_bytes;
        assert_true(s.wal_bytes <= 16 * MIB);
    }
    assert_true(s.rows == 40000 && s.file_bytes < peak + peak / 20);
    l.max_rows = 1000;
    for (int i = 0; i < 60; i++)
        assert_int_equal(history_sweep(r.h, RIG_DAY, &l, 1500, nothing_gone, NULL, &removed), 0);
    rig_reopen(&r); /* the WAL is copied into the file */
    struct stat st;
    assert_int_equal(stat(r.path, &st), 0);
    assert_true((uint64_t)st.st_size < peak - 16 * MIB / 4 || peak < 20 * MIB);
    assert_true(st.st_size < (off_t)(18 * MIB)); /* 16 MiB free pages are kept, and 1,000 rows */
    for (no = 119001; no <= 120000; no++) assert_int_equal(rig_check(&r, no), 0);
    rig_end(&r);
}

/* ---- opening ---- */

static void one_at_a_time(void **state)
{
    (void)state;
    Rig r;
    rig_start(&r);
    History *other = NULL;
    Buf why = {0};
    assert_int_equal(history_open(r.path, RIG_SHARD, UINT64_MAX, &other, &why), ERR_LOCKED);
    assert_non_null(strstr(buf_z(&why), "Another process has it open"));
    assert_null(other);
    assert_int_equal(rig_put(&r, 1, 5), 0);
    buf_done(&why);
    rig_end(&r);
}

static void with_sqlite(const char *path, const char *sql)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    char *message = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &message)) fail_msg("%s", message);
    sqlite3_close(db);
}

static void refused(Rig *r, int want, const char *words)
{
    Buf why = {0};
    History *h = NULL;
    int err = history_open(r->path, RIG_SHARD, UINT64_MAX, &h, &why);
    assert_int_equal(err, want);
    assert_null(h);
    assert_non_null(strstr(buf_z(&why), r->path));
    if (!strstr(buf_z(&why), words)) fail_msg("\"%s\" does not say \"%s\"", buf_z(&why), words);
    buf_done(&why);
}

static void what_is_no_history_is_refused(void **state)
{
    (void)state;
    Rig r;
    rig_start(&r);
    assert_int_equal(rig_put(&r, 1, 5), 0);
    history_close(r.h);
    r.h = NULL;
    with_sqlite(r.path, "PRAGMA user_version = 2");
    refused(&r, ERR_UNSUPPORTED, "newer Headrace");
    with_sqlite(r.path, "PRAGMA user_version = 1; UPDATE meta SET shard = 8");
    refused(&r, ERR_INVALID, "shard 8");
    with_sqlite(r.path, "UPDATE meta SET shard = 7; DROP INDEX tasks_by_finish");
    refused(&r, ERR_CORRUPT, "headrace history rebuild --data DIR");
    unlink(r.path);
    with_sqlite(r.path, "CREATE TABLE cats (name); INSERT INTO cats VALUES ('Tom')");
    refused(&r, ERR_CORRUPT, "not a history of Headrace");
    with_sqlite(r.path, "INSERT INTO cats VALUES ('Tim')"); /* left as it was */
    unlink(r.path);
    static const char *const garbage[] = {"x", "garbage of some length\n"};
    for (size_t i = 0; i < ARRAY_LEN(garbage); i++) {
        for (int k = 0; k < 1000; k++)
            rig_damage(r.path, k * (off_t)strlen(garbage[i]), garbage[i], strlen(garbage[i]));
        refused(&r, ERR_CORRUPT, "headrace history rebuild --data DIR");
    }
    assert_int_equal(truncate(r.path, 5), 0);
    refused(&r, ERR_CORRUPT, "headrace history rebuild --data DIR");
    assert_int_equal(truncate(r.path, 0), 0); /* a crash in the first moment leaves this */
    rig_open(&r);
    assert_int_equal(rig_put(&r, 1, 5), 0);
    rig_end(&r);

    Buf why = {0};
    History *h = NULL;
    assert_int_equal(history_open("/no/such/folder/h.db", 1, 0, &h, &why), ERR_NOT_FOUND);
    assert_true(history_open("/proc/version", 1, 0, &h, &why) != 0);
    buf_done(&why);
}

static void a_damaged_row_hides_no_other(void **state)
{
    (void)state;
    static const HistoryFilter filters[] = {
        {.limit = 100, .scan_max = 100},
        {.limit = 100, .scan_max = 100, .created_after_ns = RIG_DAY},
        {.limit = 100, .scan_max = 100, .tenant = {"acme", 4}},
        {.limit = 100, .scan_max = 100, .tenant = {"bolt", 4}},
        {.limit = 100, .scan_max = 100, .tenant = {"crane", 5}},
        {.limit = 100, .scan_max = 100, .tenant = {"dot", 3}},
    };
    uint64_t found[ARRAY_LEN(filters)] = {0}, next, no, by_tenant = 0, passed_over = 0;
    Rig r;
    rig_start(&r);
    assert_int_equal(rig_put(&r, 1, 50), 0);
    for (size_t i = 0; i < ARRAY_LEN(filters); i++) {
        assert_int_equal(history_list(r.h, &filters[i], rig_count, &found[i], &next), 0);
        assert_int_equal(history_damaged(r.h, &no), 0);
    }
    history_close(r.h);
    with_sqlite(r.path, "UPDATE tasks SET body = x'00' WHERE no = 7;"
                        "UPDATE tasks SET created_ns = 1 WHERE no = 9;"
                        "UPDATE tasks SET state = 77 WHERE no = 11;");
    rig_open(&r);
    for (size_t i = 0; i < ARRAY_LEN(filters); i++) {
        uint64_t n = 0;
        assert_int_equal(history_list(r.h, &filters[i], rig_count, &n, &next), 0);
        assert_true(next == 0);
        uint64_t damaged = history_damaged(r.h, &no);
        assert_int_equal(n + damaged, found[i]);
        assert_true(!damaged || no == 7 || no == 9 || no == 11);
        if (i < 2) assert_true(damaged == 3 && no == 11); /* the first that is met */
        if (i >= 2) by_tenant += n, passed_over += damaged;
    }
    assert_true(by_tenant == 47 && passed_over == 3);
    assert_int_equal(rig_check(&r, 7), ERR_CORRUPT);
    assert_int_equal(rig_check(&r, 8), 0);
    rig_end(&r);
}

static void rows_beyond_the_log_are_dropped(void **state)
{
    (void)state;
    Rig r;
    char id[32];
    rig_start(&r);
    assert_int_equal(rig_put(&r, 1, 25000), 0);
    assert_int_equal(history_begin(r.h), 0);
    HistoryFile kept = file_of(1, 1000, id);
    assert_int_equal(history_put_file(r.h, &kept), 0);
    char lost_id[32];
    HistoryFile lost = file_of(2, 1001, lost_id);
    assert_int_equal(history_put_file(r.h, &lost), 0);
    assert_int_equal(history_commit(r.h, 80000), 0);
    history_close(r.h);
    assert_int_equal(rig_open_at(&r, 3002), 0); /* of task 1000 */
    for (int i = 0; i < 2; i++) {
        assert_true(rig_rows(&r) == 1000 && rig_listed(&r) == 1000);
        assert_true(history_applied_seq(r.h) == 3002);
        assert_int_equal(history_file_exists(r.h, kept.id), 0);
        assert_int_equal(history_file_exists(r.h, lost.id), ERR_NOT_FOUND);
        rig_reopen(&r);
    }
    assert_int_equal(rig_put(&r, 1001, 1100), 0);
    history_close(r.h);
    assert_int_equal(rig_open_at(&r, 3302), 0); /* exactly there: nothing goes */
    assert_true(rig_rows(&r) == 1100);
    rig_end(&r);
}

/* A path is a path, whatever characters are in it. */
static void odd_paths(void **state)
{
    (void)state;
    Rig r = {0};
    snprintf(r.dir, sizeof r.dir, "/tmp/headrace-history-XXXXXX");
    assert_non_null(mkdtemp(r.dir));
    snprintf(r.path, sizeof r.path, "%s/a?mode=ro&b#%%41 ü.db", r.dir);
    rig_open(&r);
    assert_int_equal(rig_put(&r, 1, 5), 0);
    rig_reopen(&r);
    assert_true(rig_rows(&r) == 5);
    struct stat st;
    assert_int_equal(stat(r.path, &st), 0);
    rig_end(&r);
}

/* ---- the statements ---- */

/* Every one goes by an index or by the row's number, and sorts nothing. */
static void no_statement_walks_or_sorts(void **state)
{
    (void)state;
    Rig r;
    rig_start(&r);
    assert_int_equal(rig_put(&r, 1, 3000), 0);
    for (int id = 0; id < STMTS; id++) {
        Buf sql = {0};
        sqlite3_stmt *s = NULL;
        buf_printf(&sql, "EXPLAIN QUERY PLAN %s", history_sql[id]);
        assert_int_equal(sqlite3_prepare_v2(r.h->db, buf_z(&sql), -1, &s, NULL), SQLITE_OK);
        while (sqlite3_step(s) == SQLITE_ROW) {
            const char *plan = (const char *)sqlite3_column_text(s, 3);
            bool walk = strstr(plan, "SCAN") && !strstr(plan, "SCAN kinds") &&
                        !(id == STMT_SWEEP_EXPIRED && strstr(plan, "tasks_by_expiry")) &&
                        !strstr(plan, "USING INDEX tasks_by_finish") &&
                        !strstr(plan, "USING COVERING INDEX tasks_by_finish");
            if (walk || strstr(plan, "TEMP B-TREE") || strstr(plan, "AUTOMATIC"))
                fail_msg("%s\n%s", history_sql[id], plan);
        }
        sqlite3_finalize(s);
        buf_done(&sql);
    }
    rig_end(&r);
}

static void the_file_is_made_as_meant(void **state)
{
    (void)state;
    Rig r;
    rig_start(&r);
    static const struct {
        const char *pragma, *want;
    } cases[] = {
        {"page_size", "4096"},         {"auto_vacuum", "2"},
        {"journal_mode", "wal"},       {"synchronous", "2"},
        {"cache_size", "-8192"},       {"mmap_size", "0"},
        {"locking_mode", "exclusive"}, {"trusted_schema", "0"},
        {"secure_delete", "2"},        {"journal_size_limit", "16777216"},
        {"user_version", "1"},         {"integrity_check", "ok"},
    };
    assert_int_equal(rig_put(&r, 1, 3000), 0);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char sql[64];
        sqlite3_stmt *s = NULL;
        snprintf(sql, sizeof sql, "PRAGMA %s", cases[i].pragma);
        assert_int_equal(sqlite3_prepare_v2(r.h->db, sql, -1, &s, NULL), SQLITE_OK);
        assert_int_equal(sqlite3_step(s), SQLITE_ROW);
        const char *got = (const char *)sqlite3_column_text(s, 0);
        if (strcmp(got, cases[i].want)) fail_msg("%s is %s", cases[i].pragma, got);
        sqlite3_finalize(s);
    }
    rig_end(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_put_is_there),
        cmocka_unit_test(putting_again_replaces),
        cmocka_unit_test(a_rollback_leaves_nothing),
        cmocka_unit_test(a_body_over_the_limit_is_refused),
        cmocka_unit_test(lists_are_what_a_naive_search_finds),
        cmocka_unit_test(lists_over_very_many_kinds),
        cmocka_unit_test(files_are_found_by_id_and_tenant),
        cmocka_unit_test(putting_again_drops_its_files),
        cmocka_unit_test(a_deleted_payload_is_overwritten),
        cmocka_unit_test(expired_ones_leave_first_and_files_with_them),
        cmocka_unit_test(old_ones_leave_and_too_many_and_too_large),
        cmocka_unit_test(the_file_does_not_grow_for_ever),
        cmocka_unit_test(one_at_a_time),
        cmocka_unit_test(what_is_no_history_is_refused),
        cmocka_unit_test(a_damaged_row_hides_no_other),
        cmocka_unit_test(rows_beyond_the_log_are_dropped),
        cmocka_unit_test(odd_paths),
        cmocka_unit_test(no_statement_walks_or_sorts),
        cmocka_unit_test(the_file_is_made_as_meant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
