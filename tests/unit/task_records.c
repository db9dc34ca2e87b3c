/* Records: every type is written and read the same, described for people, refused when it is cut or
 * newer; and one that does not fit the state changes nothing. */
#include "unit/task_rig.h"

#include "task/core.h"

#define DIGEST                                                                                     \
    {                                                                                              \
        "0123456789abcdef0123456789abcdef", 32                                                     \
    }

static const uint64_t two_files[] = {3, 4};

/* One of each, in the order of their types. */
static const struct {
    RecordType type;
    RecordData d;
    const char *text; /* part of what it is described as */
} all[] = {
    {REC_CLAIM, {.claim = {2, 9, STR("[::1]:7"), STR("0123456789abcdef"), 1}}, "epoch 2 by"},
    {REC_SUBMIT,
     {.submit = {.no = 7,
                 .tenant = STR("t"),
                 .model = STR("m"),
                 .version = STR("3"),
                 .class = CLASS_BATCH,
                 .max_attempts = 2,
                 .has_key = 1,
                 .key = {1, 2},
                 .metadata = STR("{}"),
                 .retry_of = STR("task_1"),
                 .files = {two_files, {0}, 2},
                 .input.bytes = STR("[1]")}},
     "task 7 tenant t model m:3 batch, input 3 bytes, keyed"},
    {REC_SUBMIT,
     {.submit = {.no = 8, .tenant = STR("t"), .model = STR("m"), .version = STR("1"), .class = 77}},
     "m:1 ?, input 0 bytes"},
    {REC_LEASE, {.lease = {7, 5, STR("w"), 1, 4}}, "task 7 to w device 1, batch 5 of 4"},
    {REC_FINISH,
     {.finish = {.no = 7, .token = 5, .ok = 1, .output.bytes = STR("42")}},
     "token 5 succeeded, output 2 bytes"},
    {REC_FINISH,
     {.finish = {.no = 7, .token = 5, .fail = FAIL_TIMEOUT, .message = STR("slow")}},
     "failed timeout"},
    {REC_FINISH, {.finish = {.no = 7, .token = 5, .fail = 99}}, "failed ?"},
    {REC_REQUEUE, {.requeue = {.no = 7, .token = 5, .fail = FAIL_WORKER_LOST}}, "worker_lost"},
    {REC_REQUEUE, {.requeue = {.no = 7, .burn = 1}}, "attempt burned"},
    {REC_CANCEL, {.task = {7}}, "task 7"},
    {REC_EXPIRE, {.task = {7}}, "task 7"},
    {REC_SLOT_FREE, {.slot_free = {7, 5, 1, 2}}, "task 7 token 5"},
    {REC_EVICT, {.task = {7}}, "task 7"},
    {REC_FORGET, {.task = {7}}, "task 7"},
    {REC_FILE_PUT,
     {.file_put = {.no = 3, .id = STR("file_3"), .tenant = STR("t"), .sha256 = DIGEST, .size = 5}},
     "file 3 file_3, 5 bytes"},
    {REC_FILE_DELETE, {.file_delete = {3}}, "file 3"},
    {REC_IDEM_EXPIRE, {.idem_expire = {1795000000 * NS_PER_S}}, "before 2026-11-18T"},
    {REC_MODEL, {.model = {STR("m"), STR("3"), DIGEST, STR("{}")}}, "m:3"},
    {REC_FLAG, {.flag = {STR("model_paused"), STR("m"), 1}}, "model_paused m on"},
    {REC_FLAG, {.flag = {STR("model_paused"), STR("m"), 0}}, "model_paused m off"},
    {REC_CHECKPOINT, {.checkpoint = {7, 5, 12, 3}}, "task 7 token 5 unit 12"},
    {REC_HISTORY, {.history = {99}}, "all that settled up to 99"},
};

/* The record's frame, sealed; *r is its only record, borrowed from bytes. */
static void sealed(RecordType type, const RecordData *d, Buf *bytes, Frame *f, Record *r)
{
    FrameBuilder b = {0};
    LogPoint at = {.next_seq = 1, .epoch = 1};
    RecordData copy = *d;
    size_t len, pos = 0;
    uint32_t index = 0;
    record_put(&b, type, &copy);
    frame_seal(&b, 1, &at, bytes);
    frame_done(&b);
    assert_int_equal(frame_read(buf_str(bytes), f, &len), 0);
    assert_int_equal(frame_next_record(f, &pos, &index, r), 1);
}

static void every_type_there_and_back(void **state)
{
    (void)state;
    bool seen[REC_TYPES] = {false};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        Buf bytes = {0}, text = {0};
        Frame f;
        Record r;
        RecordData d;
        sealed(all[i].type, &all[i].d, &bytes, &f, &r);
        assert_int_equal(record_get(&f, &r, &d), 0);
        const char *name = record_describe(&f, &r, &text);
        assert_string_equal(name, record_type_name((uint8_t)all[i].type));
        if (!strstr(buf_z(&text), all[i].text)) fail_msg("%s: %s", name, buf_z(&text));
        seen[all[i].type] = true;
        /* Cut anywhere, or with a byte too much, it is none. */
        Str whole = r.body;
        for (size_t n = 0; n < whole.n; n++) {
            r.body.n = n;
            assert_int_equal(record_get(&f, &r, &d), ERR_INVALID);
            buf_clear(&text);
            record_describe(&f, &r, &text);
            assert_non_null(strstr(buf_z(&text), "type"));
        }
        r.body.n = whole.n + 1; /* the byte of the payload or of the buffer behind it */
        buf_putc(&bytes, 0);
        r.body.p = (char *)bytes.data + FRAME_HEAD_LEN + 8;
        assert_int_equal(record_get(&f, &r, &d), ERR_INVALID);
        buf_done(&bytes);
        buf_done(&text);
    }
    for (int t = 1; t < REC_TYPES; t++) assert_true(seen[t]);
    assert_string_equal(record_type_name(0), "unknown");
    assert_string_equal(record_type_name(REC_TYPES), "unknown");
}

static void newer_ones_are_not_guessed_at(void **state)
{
    (void)state;
    Buf bytes = {0};
    Frame f;
    Record r;
    RecordData d;
    sealed(REC_HISTORY, &(RecordData){.history = {1}}, &bytes, &f, &r);
    r.version = RECORD_VERSION + 1;
    assert_int_equal(record_get(&f, &r, &d), ERR_UNSUPPORTED);
    r.version = RECORD_VERSION;
    r.type = 0;
    assert_int_equal(record_get(&f, &r, &d), ERR_UNSUPPORTED);
    r.type = REC_TYPES;
    assert_int_equal(record_get(&f, &r, &d), ERR_UNSUPPORTED);
    buf_done(&bytes);
}

static void long_strings_and_lists(void **state)
{
    (void)state;
    char text[1000];
    uint64_t files[TASK_FILES_MAX];
    memset(text, 'x', sizeof text);
    for (size_t i = 0; i < ARRAY_LEN(files); i++) files[i] = i * 1000;
    static const size_t lens[] = {254, 255, 256, 1000};
    for (size_t i = 0; i < ARRAY_LEN(lens); i++) {
        Buf bytes = {0};
        Frame f;
        Record r;
        RecordData d = {.finish = {.no = 1,
                                   .token = 1,
                                   .message = {text, lens[i]},
                                   .files = {files, {0}, TASK_FILES_MAX}}};
        sealed(REC_FINISH, &d, &bytes, &f, &r);
        assert_int_equal(record_get(&f, &r, &d), 0);
        assert_int_equal(d.finish.message.n, lens[i]);
        assert_int_equal(d.finish.files.len, TASK_FILES_MAX);
        for (uint32_t k = 0; k < TASK_FILES_MAX; k++)
            assert_int_equal(number_list_at(&d.finish.files, k), files[k]);
        /* More files than a task may have: the list's length lies before it and the payload. */
        uint8_t *body = bytes.data + ((const uint8_t *)r.body.p - bytes.data);
        store_u32(body + r.body.n - 24 - TASK_FILES_MAX * 8 - 4, TASK_FILES_MAX + 1);
        assert_int_equal(record_get(&f, &r, &d), ERR_INVALID);
        buf_done(&bytes);
    }
}

static void payloads_lie_in_their_frame(void **state)
{
    (void)state;
    Buf bytes = {0};
    Frame f;
    Record r;
    RecordData d = {.finish = {.no = 1, .token = 1, .ok = 1, .output.bytes = STR("12345")}};
    sealed(REC_FINISH, &d, &bytes, &f, &r);
    f.flags = FRAME_ERASED;
    assert_int_equal(record_get(&f, &r, &d), 0);
    assert_true(d.finish.output.erased && d.finish.output.len == 5 && d.finish.output.bytes.n == 0);
    f.flags = 0;
    f.payload.n = 4; /* it ends inside */
    assert_int_equal(record_get(&f, &r, &d), ERR_INVALID);
    f.payload.n = 5;
    uint8_t *ref = (uint8_t *)r.body.p + r.body.n - 24;
    store_u32(ref, 6); /* it begins behind the end */
    assert_int_equal(record_get(&f, &r, &d), ERR_INVALID);
    buf_done(&bytes);
}

/* ---- records that do not fit ---- */

static bool fits(World *w, RecordType type, RecordData d)
{
    uint64_t misfits = core_misfits(w->core), hash = core_hash(w->core);
    size_t start = w->log.len, len;
    Frame f;
    record_put(&w->b, type, &d);
    frame_seal(&w->b, w->now, &w->at, &w->log);
    frame_reset(&w->b);
    assert_int_equal(frame_read((Str){(char *)w->log.data + start, w->log.len - start}, &f, &len),
                     0);
    assert_int_equal(core_apply(w->core, &f), 0);
    if (core_misfits(w->core) == misfits) return true;
    assert_int_equal(core_misfits(w->core), misfits + 1);
    assert_int_equal(core_hash(w->core), hash);
    return false;
}

#define SUBMIT(...)   fits(&w, REC_SUBMIT, (RecordData){.submit = {__VA_ARGS__}})
#define FINISH(...)   fits(&w, REC_FINISH, (RecordData){.finish = {__VA_ARGS__}})
#define REQUEUE(...)  fits(&w, REC_REQUEUE, (RecordData){.requeue = {__VA_ARGS__}})
#define FILE_PUT(...) fits(&w, REC_FILE_PUT, (RecordData){.file_put = {__VA_ARGS__}})
#define TASK(type, n) fits(&w, type, (RecordData){.task = {n}})

static void what_does_not_fit_changes_nothing(void **state)
{
    (void)state;
    World w;
    world_init(&w);
    lead(&w);
    uint64_t queued = submit(&w), running = submit(&w), held = submit(&w), done = submit(&w);
    uint64_t token = lease(&w, running), held_token = lease(&w, held), none = 99;
    core_cancel(w.core, held, w.now, &w.b);
    commit(&w);
    core_succeed(w.core, done, lease(&w, done), STR("1"), NULL, 0, (Usage){1, 1}, &w.b);
    commit(&w);
    uint64_t next = done + 1;
    Str t = STR("t"), m = STR("m"), v = STR("1");

    assert_false(SUBMIT(.no = next + 1, .tenant = t, .model = m, .version = v));
    assert_false(SUBMIT(.no = done, .tenant = t, .model = m, .version = v));
    assert_false(SUBMIT(.no = next, .model = m, .version = v));
    assert_false(SUBMIT(.no = next, .tenant = t, .model = m, .version = v, .class = CLASSES));
    assert_false(SUBMIT(.no = next, .tenant = t, .model = m, .version = v, .deadline_ns = -1));
    assert_false(
        SUBMIT(.no = next, .tenant = t, .model = m, .version = v, .not_before_ns = TIME_MAX + 1));
    assert_false(
        SUBMIT(.no = next, .tenant = t, .model = m, .version = v, .retry_of = STR("task\"")));

    RecLease l = {.no = none, .worker = STR("w")};
    assert_false(fits(&w, REC_LEASE, (RecordData){.lease = l}));
    l.no = running;
    assert_false(fits(&w, REC_LEASE, (RecordData){.lease = l}));

    assert_false(FINISH(.no = none, .token = token, .ok = 1));
    assert_false(FINISH(.no = queued, .token = 0, .ok = 1));
    assert_false(FINISH(.no = running, .token = token + 1, .ok = 1));
    assert_false(FINISH(.no = held, .token = held_token, .ok = 1));
    assert_false(FINISH(.no = running, .token = token, .fail = FAILS));
    assert_false(FINISH(.no = running, .token = token, .ok = 1, .device_ns = -1));
    assert_false(FINISH(.no = running, .token = token, .ok = 1, .run_ns = -1));
    assert_false(REQUEUE(.no = none, .token = token));
    assert_false(REQUEUE(.no = held, .token = held_token));
    assert_false(REQUEUE(.no = running, .token = token, .fail = FAILS));
    assert_false(REQUEUE(.no = running, .token = token, .not_before_ns = -1));
    assert_false(REQUEUE(.no = running, .token = token, .device_ns = INT64_MAX));
    assert_false(REQUEUE(.no = running, .token = token, .run_ns = -5));

    assert_false(TASK(REC_CANCEL, none));
    assert_false(TASK(REC_CANCEL, done));
    assert_false(TASK(REC_EXPIRE, held));
    assert_false(TASK(REC_EVICT, none));
    assert_false(TASK(REC_EVICT, queued));
    assert_false(TASK(REC_EVICT, held)); /* its slot is not free */
    assert_false(TASK(REC_FORGET, none));
    assert_false(TASK(REC_FORGET, running));
    assert_true(TASK(REC_FORGET, done));
    assert_false(TASK(REC_FORGET, done));
    assert_true(TASK(REC_FORGET, held)); /* its lease stays */
    assert_int_equal(core_task(w.core, held)->run->token, held_token);

    RecSlotFree s = {.no = none, .token = held_token};
    assert_false(fits(&w, REC_SLOT_FREE, (RecordData){.slot_free = s}));
    s = (RecSlotFree){.no = running, .token = token};
    assert_false(fits(&w, REC_SLOT_FREE, (RecordData){.slot_free = s}));
    s = (RecSlotFree){.no = held, .token = held_token, .device_ns = -1};
    assert_false(fits(&w, REC_SLOT_FREE, (RecordData){.slot_free = s}));
    s = (RecSlotFree){.no = held, .token = held_token, .run_ns = -1};
    assert_false(fits(&w, REC_SLOT_FREE, (RecordData){.slot_free = s}));

    Str digest = DIGEST, id = STR("file_1");
    assert_false(FILE_PUT(.no = 2, .id = id, .tenant = t, .sha256 = digest));
    assert_false(FILE_PUT(.no = 1, .tenant = t, .sha256 = digest));
    assert_false(FILE_PUT(.no = 1, .id = digest, .tenant = t, .sha256 = digest)); /* 32: too long */
    assert_false(FILE_PUT(.no = 1, .id = STR("file 1"), .tenant = t, .sha256 = digest));
    assert_false(FILE_PUT(.no = 1, .id = id, .sha256 = digest));
    assert_false(FILE_PUT(.no = 1, .id = id, .tenant = t, .sha256 = id));
    assert_false(FILE_PUT(.no = 1, .id = id, .tenant = t, .sha256 = digest, .expires_ns = -1));
    assert_false(fits(&w, REC_FILE_DELETE, (RecordData){.file_delete = {1}}));

    assert_false(fits(&w, REC_MODEL, (RecordData){.model = {m, v, id, STR("{}")}}));
    assert_false(fits(&w, REC_MODEL, (RecordData){.model = {STR(""), v, digest, STR("{}")}}));
    RecFlag flag = {STR("model_paused"), STR(""), 1};
    assert_false(fits(&w, REC_FLAG, (RecordData){.flag = flag}));
    flag = (RecFlag){STR("model\0paused"), STR("m"), 1};
    assert_false(fits(&w, REC_FLAG, (RecordData){.flag = flag}));
    static char large[TASK_INLINE_MAX + 1];
    assert_false(SUBMIT(.no = next, .tenant = t, .model = m, .version = v,
                        .input.bytes = {large, sizeof large}));
    assert_false(
        FINISH(.no = running, .token = token, .ok = 1, .output.bytes = {large, sizeof large}));
    RecCheckpoint c = {.no = none, .token = token};
    assert_false(fits(&w, REC_CHECKPOINT, (RecordData){.checkpoint = c}));
    c = (RecCheckpoint){.no = held, .token = held_token};
    assert_false(fits(&w, REC_CHECKPOINT, (RecordData){.checkpoint = c}));
    world_done(&w);
}

static void a_broken_record_is_a_misfit(void **state)
{
    (void)state;
    World w;
    world_init(&w);
    lead(&w);
    Buf bytes = {0};
    Frame f;
    size_t len;
    frame_begin_record(&w.b, REC_CANCEL, RECORD_VERSION);
    buf_u32(&w.b.meta, 7); /* half a number */
    frame_end_record(&w.b);
    frame_seal(&w.b, w.now, &w.at, &bytes);
    assert_int_equal(frame_read(buf_str(&bytes), &f, &len), 0);
    assert_int_equal(core_apply(w.core, &f), 0);
    assert_int_equal(core_misfits(w.core), 1);
    buf_done(&bytes);
    world_done(&w);
}

static void device_time_stops_at_its_maximum(void **state)
{
    (void)state;
    World w;
    world_init(&w);
    lead(&w);
    for (int i = 0; i < 3; i++) {
        uint64_t no = submit(&w);
        Usage u = {TIME_MAX, TIME_MAX};
        core_succeed(w.core, no, lease(&w, no), STR("1"), NULL, 0, u, &w.b);
        commit(&w);
    }
    const Tenant *tenants;
    assert_int_equal(core_tenants(w.core, &tenants), 1);
    assert_int_equal(tenants[0].device_ns_total, TIME_MAX);
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_there_and_back),
        cmocka_unit_test(newer_ones_are_not_guessed_at),
        cmocka_unit_test(long_strings_and_lists),
        cmocka_unit_test(payloads_lie_in_their_frame),
        cmocka_unit_test(what_does_not_fit_changes_nothing),
        cmocka_unit_test(a_broken_record_is_a_misfit),
        cmocka_unit_test(device_time_stops_at_its_maximum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
