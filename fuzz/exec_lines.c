/* What a model's program prints to its stdout, of any bytes, in pieces: two tasks end well, end
 * with a reason, or go on; a program that breaks the protocol is ended. The engine's source is
 * included, for its parser is private and no process is wanted. The first byte: has it said that
 * it is ready? */
#include <engine/exec.c>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void on_log(void *ctx, void *task_ctx, Str text)
{
    (void)ctx;
    (void)task_ctx;
    CHECK(utf8_valid(text.p, text.n));
}

static void check_task(const EngineTask *t)
{
    if (t->state == ENGINE_TASK_DONE) {
        yyjson_doc *doc = yyjson_read((const char *)t->output.data, t->output.len,
                                      YYJSON_READ_BIGNUM_AS_RAW);
        CHECK(doc && !memchr(t->output.data, '\n', t->output.len));
        yyjson_doc_free(doc);
    }
    if (t->state == ENGINE_TASK_FAILED)
        CHECK(t->error.message[0] && utf8_valid(t->error.message, strlen(t->error.message)));
    CHECK(t->steps == 0 || t->step <= t->steps);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 64 * KIB) return 0;
    EngineHost host = {.log = on_log};
    ModelSpec spec = {.max_batch = 2};
    EngineModel m = {.spec = &spec, .host = &host};
    EngineTask tasks[2] = {{.id = STR("a"), .steps = 1}, {.id = STR("b"), .steps = 1}};
    Exec x = {.m = &m, .in = -1, .out = -1, .err = -1};
    list_init(&x.calls);
    x.state = data[0] & 1 ? CHILD_READY : CHILD_STARTING;
    /* A process that is no more, and was ours: it may be ended without harm. */
    x.pid = INT32_MAX;
    for (size_t i = 0; i < 2; i++) {
        Call *c = mem_new(sizeof *c);
        *c = (Call){.id = mem_dup(tasks[i].id.p, 1), .task = &tasks[i], .state = CALL_SENT};
        tasks[i].priv = c;
        list_push_back(&x.calls, &c->node);
    }
    if (data[0] & 2) atomic_store(&tasks[1].cancel, true);
    size_t piece = 1 + data[0] / 4u;
    for (size_t at = 1; at < size && x.state != CHILD_DOWN; at += piece) {
        size_t from = x.from_child.len;
        buf_put(&x.from_child, data + at, MIN(piece, size - at));
        lines_take(&x, from);
    }
    if (x.state == CHILD_DOWN) {
        CHECK(x.fault.message[0] && utf8_valid(x.fault.message, strlen(x.fault.message)));
    } else {
        for (size_t i = 0; i < 2; i++) check_task(&tasks[i]);
    }
    LIST_FOR (c, &x.calls, Call, node) call_free(c);
    for (size_t i = 0; i < 2; i++) buf_done(&tasks[i].output);
    buf_done(&x.from_child);
    buf_done(&x.to_child);
    buf_done(&x.log);
    buf_done(&x.words);
    return 0;
}
