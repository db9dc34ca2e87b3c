/* A submit's body: no input may do more than be refused, and what is accepted is one line of valid
 * JSON. */
#include "no_sockets.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > TASK_INLINE_MAX) return 0; /* larger inputs go to the disk */
    bare_call("/v1/tasks", data, size);
    const Task *t = core_older(bare.core, UINT64_MAX);
    if (t->no == bare.task_no || !payload_is_there(&t->input)) return 0;
    Str input = {(const char *)t->input.bytes, t->input.len};
    CHECK(!json_has_newline(input));
    yyjson_doc *doc = yyjson_read(input.p, input.n, YYJSON_READ_NUMBER_AS_RAW);
    CHECK(doc);
    yyjson_doc_free(doc);
    return 0;
}
