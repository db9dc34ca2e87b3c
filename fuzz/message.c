/* What a server says to a worker, of any bytes: an order, a welcome, an answer to a report, a
 * problem. What is taken is whole; what is refused says why. */
#include "worker/message.h"

#include <string.h>
#include <yyjson.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_lease(const LeaseBatch *b)
{
    CHECK(b->len && b->len <= LEASE_TASKS_MAX && b->left == b->len);
    CHECK(b->model.n && b->version.n);
    for (size_t i = 0; i < b->len; i++) {
        const Held *h = &b->tasks[i];
        CHECK(h->batch == b && h->token && h->id.n && h->id.n < 64);
        CHECK(!memchr(h->task.input.p, '\n', h->task.input.n));
        yyjson_doc *doc = yyjson_read(h->task.input.p, h->task.input.n, YYJSON_READ_NUMBER_AS_RAW);
        CHECK(doc);
        yyjson_doc_free(doc);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 256 * KIB) return 0;
    Str line = {size ? (const char *)data : "", size};
    Message m;
    Welcome w;
    Answer a;
    Buf why = {0}, text = {0};
    int err = message_parse(line, NS_PER_S, &m, &why);
    CHECK((err != 0) == (why.len != 0));
    if (!err) {
        CHECK((m.kind == MESSAGE_LEASE) == (m.lease != NULL));
        if (m.lease) check_lease(m.lease);
        message_done(&m);
    }
    buf_clear(&why);
    err = welcome_parse(line, &w, &why);
    CHECK((err != 0) == (why.len != 0));
    if (!err) {
        CHECK(w.worker[0] && w.lease_s && w.ping_s);
        welcome_done(&w);
    }
    if (answer_parse(line, &a, &text) == 0) CHECK(a <= ANSWER_INVALID);
    buf_clear(&text);
    problem_text(line, &text);
    CHECK(text.len <= size);
    buf_clear(&text);
    CHECK(input_is_file(line, &text) == (text.len != 0));
    buf_done(&why);
    buf_done(&text);
    return 0;
}
