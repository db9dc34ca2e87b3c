/* A snapshot's stream, and rows of the history view: whole ones come back the same, in pieces of
 * any size; one that is cut, out of order or tells of what cannot be is refused. */
#include "unit/task_rig.h"

#include "task/core.h"

/* A state with one of everything; its snapshot. */
static void make(World *w, Buf *ret)
{
    world_init(w);
    lead(w);
    Sha256 digest = {{1}};
    core_put_model(w->core, STR("m"), STR("1"), &digest, STR("{}"), &w->b);
    core_set_flag(w->core, STR("model_paused"), STR("m"), true, &w->b);
    core_set_flag(w->core, STR("worker_cordoned"), STR("w"), true, &w->b);
    core_put_file(w->core, STR("file_1"), STR("default"), 5, &digest, STR("n"), STR("image/png"), 0,
                  w->now, &w->b);
    commit(w);
    uint64_t file = 1;
    uint64_t queued = submit_with(w, (SubmitSpec){.files = &file, .files_len = 1});
    submit_with(w, (SubmitSpec){.metadata = STR("{\"k\":\"v\"}"),
                                .idempotency_key = STR("k"),
                                .retry_of = core_task(w->core, queued)});
    uint64_t running = submit(w), held = submit(w), done = submit(w), failed = submit(w);
    lease(w, running);
    lease(w, held);
    core_cancel(w->core, held, w->now, &w->b);
    commit(w);
    core_succeed(w->core, done, lease(w, done), STR("[42]"), &file, 1, (Usage){1, 2}, &w->b);
    commit(w);
    for (int i = 0; i < 3; i++) { /* more events than lie in the task itself */
        core_fail(w->core, failed, lease(w, failed), FAIL_MODEL_ERROR, true, STR("no"), (Usage){0},
                  w->now, &w->b);
        commit(w);
        pass(w, 5 * SECOND);
    }
    assert_int_equal(core_snapshot(w->core, to_buf, ret), 0);
}

static int restore_bytes(World *w, const uint8_t *p, size_t n, size_t piece, uint64_t *ret_hash)
{
    Core *c = core_new(&w->limits, 1);
    int err = 0;
    for (size_t at = 0; at < n && !err; at += piece)
        err = core_restore(c, &w->at, (Str){(const char *)p + at, MIN(piece, n - at)});
    if (!err) err = core_restore(c, &w->at, STR(""));
    if (!err && ret_hash) *ret_hash = core_hash(c);
    core_free(c);
    return err;
}

static void whole_ones_come_back(void **state)
{
    (void)state;
    World w;
    Buf s = {0};
    make(&w, &s);
    static const size_t pieces[] = {1, 3, 64, 4096, 1 << 20};
    for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
        uint64_t hash = 0;
        assert_int_equal(restore_bytes(&w, s.data, s.len, pieces[i], &hash), 0);
        assert_int_equal(hash, core_hash(w.core));
    }
    Core *c = restore(&w, &s, &w.at); /* what counts its figures anew, not what is written */
    assert_int_equal(core_file(c, 1)->refs, 2);
    assert_true(core_flag(c, STR("model_paused"), STR("m")));
    assert_true(core_model(c, STR("m"), STR("1"))->paused);
    assert_int_equal(core_payload_bytes(c), core_payload_bytes(w.core));
    assert_int_equal(core_payload_memory_bytes(c), core_payload_memory_bytes(w.core));
    CoreObserver o = {&w,       on_changed, on_ready,   on_unready,
                      on_freed, on_void,    on_leaving, on_file_leaving};
    w.ready = 0;
    core_observe(c, &o, w.now);
    assert_int_equal(core_next_due_ns(c) < INT64_MAX, true);
    assert_int_equal(core_ready(c), core_ready(w.core));
    core_free(c);
    buf_done(&s);
    world_done(&w);
}

static void cut_ones_are_refused(void **state)
{
    (void)state;
    World w;
    Buf s = {0};
    make(&w, &s);
    for (size_t n = 0; n < s.len; n++)
        assert_int_not_equal(restore_bytes(&w, s.data, n, 512, NULL), 0);
    buf_putc(&s, 0); /* more than there may be */
    assert_int_equal(restore_bytes(&w, s.data, s.len, 512, NULL), ERR_INVALID);
    for (int i = 0; i < 4; i++) buf_putc(&s, 0);
    assert_int_equal(restore_bytes(&w, s.data, s.len, 512, NULL), ERR_INVALID); /* length 0 */
    buf_done(&s);
    world_done(&w);
}

/* Any byte may be changed (the log's checksums would have found it): it is refused, or it is
 * another state that can be; never more. Time may pass over it. */
static void changed_ones_do_no_harm(void **state)
{
    (void)state;
    World w;
    Buf s = {0};
    make(&w, &s);
    static const uint8_t bits[] = {0x01, 0x80, 0xff};
    size_t refused = 0;
    for (size_t at = 0; at < s.len; at++) {
        for (size_t k = 0; k < ARRAY_LEN(bits); k++) {
            s.data[at] ^= bits[k];
            Core *c = core_new(&w.limits, 1);
            int err = core_restore(c, &w.at, buf_str(&s));
            if (!err) err = core_restore(c, &w.at, STR(""));
            assert_true(err == 0 || err == ERR_INVALID || err == ERR_UNSUPPORTED);
            refused += err != 0;
            if (!err) {
                World other = {.core = c, .now = w.now + 100 * SECOND, .at = w.at};
                CoreObserver o = {&other,   on_changed, on_ready,   on_unready,
                                  on_freed, on_void,    on_leaving, on_file_leaving};
                core_observe(c, &o, other.now);
                for (int i = 0; i < 50 && core_due(c, other.now, false, &other.b); i++)
                    commit(&other);
                frame_done(&other.b);
                buf_done(&other.log);
            }
            core_free(c);
            s.data[at] ^= bits[k];
        }
    }
    assert_true(refused > s.len / 2);
    buf_done(&s);
    world_done(&w);
}

/* ---- items, one by one ---- */

enum { HEAD = 1, MODEL, FLAG, TENANT, FILES, TASK, SETTLED, IDEM, END };

typedef struct {
    size_t at[64], len[64]; /* with its length */
    uint8_t kind[64];
    size_t n;
} Items;

static Items items_of(const Buf *s)
{
    Items it = {0};
    for (size_t at = 0; at < s->len;) {
        assert_true(it.n < ARRAY_LEN(it.at));
        it.at[it.n] = at;
        it.len[it.n] = load_u32(s->data + at) + 4;
        it.kind[it.n] = s->data[at + 4];
        at += it.len[it.n++];
    }
    return it;
}

static size_t first(const Items *it, uint8_t kind)
{
    for (size_t i = 0; i < it->n; i++)
        if (it->kind[i] == kind) return i;
    fail_msg("no item %d", kind);
    return 0;
}

/* All items but `without`, with `twice` two times (SIZE_MAX: none). */
static int with_items(World *w, const Buf *s, const Items *it, size_t without, size_t twice)
{
    Buf b = {0};
    for (size_t i = 0; i < it->n; i++) {
        if (i == without) continue;
        buf_put(&b, s->data + it->at[i], it->len[i]);
        if (i == twice) buf_put(&b, s->data + it->at[i], it->len[i]);
    }
    int err = restore_bytes(w, b.data, b.len, 1000, NULL);
    buf_done(&b);
    return err;
}

static void items_come_in_order_and_once(void **state)
{
    (void)state;
    World w;
    Buf s = {0}, b = {0};
    make(&w, &s);
    Items it = items_of(&s);
    static const uint8_t needed[] = {HEAD, TASK, SETTLED, END};
    static const uint8_t once[] = {HEAD, MODEL, FILES, TASK, SETTLED, END};
    for (size_t i = 0; i < ARRAY_LEN(needed); i++)
        assert_int_equal(with_items(&w, &s, &it, first(&it, needed[i]), SIZE_MAX), ERR_INVALID);
    for (size_t i = 0; i < ARRAY_LEN(once); i++)
        assert_int_equal(with_items(&w, &s, &it, SIZE_MAX, first(&it, once[i])), ERR_INVALID);
    /* A task before a model. */
    size_t task = first(&it, TASK);
    buf_put(&b, s.data, it.len[0]);
    buf_put(&b, s.data + it.at[task], it.len[task]);
    buf_put(&b, s.data + it.at[1], s.len - it.at[1]);
    assert_int_equal(restore_bytes(&w, b.data, b.len, 1000, NULL), ERR_INVALID);
    /* A kind that a newer version has. */
    buf_clear(&b);
    buf_put(&b, s.data, s.len);
    b.data[it.at[task] + 4] = END + 1;
    assert_int_equal(restore_bytes(&w, b.data, b.len, 1000, NULL), ERR_UNSUPPORTED);
    buf_done(&b);
    buf_done(&s);
    world_done(&w);
}

/* Where a field of an item lies, behind those that `before` names: n a number, s a string, b a
 * byte, v 4 bytes, k 16, i 32. */
static size_t field(const Buf *s, size_t item_at, const char *before)
{
    Cursor c = cursor_of(s->data + item_at + 5, s->len - item_at - 5);
    for (; *before; before++) {
        if (*before == 'n') (void)cursor_var(&c);
        if (*before == 's') (void)cursor_bytes(&c, cursor_var(&c));
        if (*before == 'b') (void)cursor_bytes(&c, 1);
        if (*before == 'v') (void)cursor_bytes(&c, 4);
        if (*before == 'k') (void)cursor_bytes(&c, 16);
        if (*before == 'i') (void)cursor_bytes(&c, 32);
    }
    assert_false(c.bad);
    return (size_t)(c.p - s->data);
}

/* The field behind those is made another: a number (n; also a string's length), or a byte. */
static int changed(World *w, const Buf *s, size_t item_at, const char *before, char kind,
                   uint64_t to)
{
    size_t at = field(s, item_at, before), behind = at + 1;
    Buf b = {0};
    buf_put(&b, s->data, at);
    if (kind == 'n') {
        Cursor c = cursor_of(s->data + at, s->len - at);
        (void)cursor_var(&c);
        behind = (size_t)(c.p - s->data);
        buf_var(&b, to);
    } else {
        buf_u8(&b, (uint8_t)to);
    }
    uint32_t len = load_u32(s->data + item_at);
    store_u32(b.data + item_at, (uint32_t)(len + b.len - behind));
    buf_put(&b, s->data + behind, s->len - behind);
    int err = restore_bytes(w, b.data, b.len, 1000, NULL);
    buf_done(&b);
    return err;
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    World w;
    Buf s = {0};
    make(&w, &s);
    Items it = items_of(&s);
    size_t head = it.at[first(&it, HEAD)], model = it.at[first(&it, MODEL)],
           tenant = it.at[first(&it, TENANT)], file = it.at[first(&it, FILES)],
           task = it.at[first(&it, TASK)], settled = it.at[first(&it, SETTLED)],
           idem = it.at[first(&it, IDEM)];
    const uint64_t most = UINT64_MAX;
    const struct {
        size_t item;
        const char *before;
        char kind;
        uint64_t to;
        int want;
    } cases[] = {
        {head, "", 'b', 99, ERR_UNSUPPORTED},    /* the version */
        {head, "v", 'n', 5, ERR_INVALID},        /* another shard */
        {head, "vn", 'n', 7, ERR_INVALID},       /* another epoch */
        {head, "vnnkn", 'n', most, ERR_INVALID}, /* more numbers than records */
        {head, "vnnknn", 'n', most, ERR_INVALID},
        {head, "vnnkn", 'n', 2, ERR_INVALID}, /* fewer numbers than tasks */
        {head, "vnnknn", 'n', 1, ERR_INVALID},
        {model, "", 'n', 0, ERR_INVALID}, /* no name: what follows is no longer whole */
        {tenant, "", 'n', 0, ERR_INVALID},
        {tenant, "sn", 'n', most, ERR_INVALID},             /* device time below 0 */
        {file, "", 'n', 0, ERR_INVALID},                    /* number 0 */
        {file, "n", 'b', 0, ERR_INVALID},                   /* an id of no letters */
        {file, "n", 'b', '"', ERR_INVALID},                 /* one that breaks JSON */
        {file, "nkbbbbbbbbbbbbbbb", 'b', 'x', ERR_INVALID}, /* one without an end */
        {file, "nisni", 'n', most, ERR_INVALID},            /* made before all time */
        {task, "", 'n', 0, ERR_INVALID},
        {task, "", 'n', most, ERR_INVALID},
        {task, "nn", 'n', most, ERR_INVALID}, /* created, not before, deadline */
        {task, "nnn", 'n', most, ERR_INVALID},
        {task, "nnnn", 'n', most, ERR_INVALID},
        {task, "nnnnnsssnn", 'b', TASK_STATES, ERR_INVALID},
        {task, "nnnnnsssnn", 'b', TASK_RUNNING, ERR_INVALID}, /* running without a lease */
        {task, "nnnnnsssnn", 'b', TASK_SUCCEEDED, ERR_INVALID},
        {task, "nnnnnsssnnb", 'b', CLASSES, ERR_INVALID},
        {settled, "", 'n', 0, ERR_INVALID},
        {settled, "", 'n', 1, ERR_INVALID},          /* one that waits */
        {idem, "kknn", 'n', 0, ERR_INVALID},         /* of no tenant */
        {it.at[it.n - 1], "", 'n', 99, ERR_INVALID}, /* the end counts other tasks */
    };
    assert_memory_equal(s.data + field(&s, task, "nnnnn") + 1, "default", 7); /* the fields fit */
    assert_int_equal(s.data[field(&s, task, "nnnnnsssnn")], TASK_QUEUED);
    assert_memory_equal(s.data + field(&s, file, "n"), "file_1", 6);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int err = changed(&w, &s, cases[i].item, cases[i].before, cases[i].kind, cases[i].to);
        if (err != cases[i].want) fail_msg("case %zu: %d", i, err);
    }
    buf_done(&s);
    world_done(&w);
}

/* ---- writing ---- */

static int failing_put(void *ctx, Str piece)
{
    int *left = ctx;
    (void)piece;
    return (*left)-- > 0 ? 0 : ERR_NOSPC;
}

static void a_full_disk_ends_the_writing(void **state)
{
    (void)state;
    World w;
    world_init(&w);
    lead(&w);
    char *large = mem_new(TASK_INLINE_MAX);
    memset(large, '1', TASK_INLINE_MAX);
    Sha256 digest = {{1}};
    for (int i = 0; i < 5; i++) {
        submit_with(&w, (SubmitSpec){.input = {large, TASK_INLINE_MAX}});
        core_put_file(w.core, i ? STR("file_a") : STR("file_b"), STR("default"), 1, &digest,
                      (Str){large, 40000}, STR(""), 0, w.now, &w.b);
        commit(&w);
    }
    int pieces = 0;
    for (;; pieces++) {
        int left = pieces;
        int err = core_snapshot(w.core, failing_put, &left);
        if (err == 0) break;
        assert_int_equal(err, ERR_NOSPC);
        assert_int_equal(left, -1); /* it was not called again */
    }
    assert_true(pieces >= 8);
    mem_free(large);
    world_done(&w);
}

/* ---- one task, one file ---- */

static void rows_come_back_or_are_refused(void **state)
{
    (void)state;
    World w;
    Buf s = {0};
    make(&w, &s);
    for (Task *t = core_older(w.core, UINT64_MAX); t; t = core_older(w.core, t->no)) {
        Buf row = {0}, again = {0};
        core_task_encode(w.core, t, &row);
        Task *read = core_task_decode(w.core, buf_str(&row));
        assert_non_null(read);
        core_task_encode(w.core, read, &again);
        assert_int_equal(row.len, again.len);
        assert_memory_equal(row.data, again.data, row.len);
        core_task_forget(w.core, read);
        assert_true(read->input.forgotten && read->run->output.forgotten);
        core_task_discard(w.core, read);
        for (size_t n = 0; n < row.len; n++)
            assert_null(core_task_decode(w.core, (Str){(char *)row.data, n}));
        buf_putc(&row, 0);
        assert_null(core_task_decode(w.core, buf_str(&row)));
        row.data[0]++; /* another version */
        assert_null(core_task_decode(w.core, buf_str(&row)));
        buf_done(&row);
        buf_done(&again);
    }
    Buf row = {0};
    core_file_encode(w.core, core_file(w.core, 1), &row);
    File *f = core_file_decode(w.core, buf_str(&row));
    assert_non_null(f);
    assert_string_equal(f->content_type, "image/png");
    core_file_discard(f);
    for (size_t n = 0; n < row.len; n++)
        assert_null(core_file_decode(w.core, (Str){(char *)row.data, n}));
    buf_putc(&row, 0);
    assert_null(core_file_decode(w.core, buf_str(&row)));
    row.data[0]++;
    assert_null(core_file_decode(w.core, buf_str(&row)));
    buf_done(&row);
    buf_done(&s);
    world_done(&w);
}

/* What a row says of events and of the task it repeats goes out as JSON: it must be something. */
static void odd_rows_are_refused(void **state)
{
    (void)state;
    World w;
    Buf s = {0};
    make(&w, &s);
    Task *t = core_task(w.core, 6); /* has failed three times */
    const struct {
        uint8_t *at;
        uint8_t to;
    } events[] = {{&t->run->events[1].kind, EVENT_FORGOTTEN + 1},
                  {&t->run->events[1].state, TASK_STATES},
                  {&t->run->events[2].fail, FAILS},
                  {&t->run->fail, FAILS}};
    for (size_t i = 0; i < ARRAY_LEN(events); i++) {
        Buf row = {0};
        uint8_t was = *events[i].at;
        *events[i].at = events[i].to;
        core_task_encode(w.core, t, &row);
        *events[i].at = was;
        assert_null(core_task_decode(w.core, buf_str(&row)));
        buf_done(&row);
    }
    int64_t *const times[] = {&t->run->events[0].time_ns, &t->run->started_ns,
                              &t->run->first_started_ns,  &t->run->finished_ns,
                              &t->run->device_ns,         &t->run->run_ns};
    for (size_t i = 0; i < ARRAY_LEN(times); i++) {
        Buf row = {0};
        int64_t was = *times[i];
        *times[i] = -1;
        core_task_encode(w.core, t, &row);
        *times[i] = was;
        assert_null(core_task_decode(w.core, buf_str(&row)));
        buf_done(&row);
    }
    t = core_task(w.core, 2);
    assert_int_equal(t->extra->retry_of.z[0], 't');
    for (size_t i = 4; i < sizeof t->extra->retry_of.z; i += 27) { /* inside, and the end */
        Buf row = {0};
        char was = t->extra->retry_of.z[i];
        t->extra->retry_of.z[i] = '"';
        core_task_encode(w.core, t, &row);
        t->extra->retry_of.z[i] = was;
        assert_null(core_task_decode(w.core, buf_str(&row)));
        buf_done(&row);
    }
    uint16_t files = t->extra->files_len;
    Buf row = {0};
    t->extra->files = mem_new(1000 * sizeof *t->extra->files);
    t->extra->files_len = 1000;
    core_task_encode(w.core, t, &row);
    t->extra->files_len = files;
    assert_null(core_task_decode(w.core, buf_str(&row)));
    buf_done(&row);
    buf_done(&s);
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_ones_come_back),
        cmocka_unit_test(cut_ones_are_refused),
        cmocka_unit_test(changed_ones_do_no_harm),
        cmocka_unit_test(items_come_in_order_and_once),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(a_full_disk_ends_the_writing),
        cmocka_unit_test(rows_come_back_or_are_refused),
        cmocka_unit_test(odd_rows_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
