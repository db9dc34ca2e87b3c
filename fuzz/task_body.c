/* A row of the history view, of any bytes, as a task and as a file: refused, or rendered as JSON
 * and written again the same. */
#include "no_sockets.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void is_json(Buf *b)
{
    yyjson_doc *doc = yyjson_read((const char *)b->data, b->len, YYJSON_READ_NUMBER_AS_RAW);
    CHECK(doc);
    yyjson_doc_free(doc);
    buf_clear(b);
}

/* A payload is JSON text when it is accepted; what is not can only come of damage, which the view's
 * checksum finds: so it is left out of what is rendered. */
static bool payload_is_json(const Payload *p)
{
    Str s = core_payload(bare.core, p);
    if (!payload_is_there(p)) return true;
    yyjson_doc *doc = yyjson_read(s.p, s.n, YYJSON_READ_NUMBER_AS_RAW);
    yyjson_doc_free(doc);
    return doc != NULL;
}

static bool text_is_json(const Buf *b)
{
    yyjson_doc *doc = yyjson_read(b->data ? (const char *)b->data : "", b->len, 0);
    yyjson_doc_free(doc);
    return !b->len || doc;
}

static void as_task(Str bytes)
{
    Buf json = {0}, once = {0}, twice = {0};
    Task *t = core_task_decode(bare.core, bytes);
    if (!t) return;
    if (payload_is_json(&t->input) && payload_is_json(&t->run->output) &&
        (!t->extra || text_is_json(&t->extra->metadata))) {
        render_task(&bare.g, t, true, false, &json);
        is_json(&json);
        render_task_minimal(&bare.g, t, &json);
        is_json(&json);
        for (uint16_t i = 0; i < t->run->events_len; i++) {
            render_event(&bare.g, t, &t->run->events[i], &json);
            is_json(&json);
        }
    }
    core_task_encode(bare.core, t, &once);
    Task *again = core_task_decode(bare.core, buf_str(&once));
    CHECK(again);
    core_task_encode(bare.core, again, &twice);
    CHECK(once.len == twice.len && memcmp(once.data, twice.data, once.len) == 0);
    core_task_forget(bare.core, again);
    render_task(&bare.g, again, true, false, &json);
    core_task_discard(bare.core, again);
    core_task_discard(bare.core, t);
    buf_done(&json);
    buf_done(&once);
    buf_done(&twice);
}

static void as_file(Str bytes)
{
    Buf json = {0}, once = {0}, twice = {0};
    File *f = core_file_decode(bare.core, bytes);
    if (!f) return;
    render_file(&bare.g, f, &json);
    is_json(&json);
    core_file_encode(bare.core, f, &once);
    core_file_discard(f);
    CHECK((f = core_file_decode(bare.core, buf_str(&once))));
    core_file_encode(bare.core, f, &twice);
    CHECK(once.len == twice.len && memcmp(once.data, twice.data, once.len) == 0);
    core_file_discard(f);
    buf_done(&twice);
    buf_done(&json);
    buf_done(&once);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 64 * KIB) return 0;
    Str bytes = {size ? (const char *)data : "", size};
    bare_begin();
    as_task(bytes);
    as_file(bytes);
    return 0;
}
