/* One record of any type and bytes: read or refused; what is read is described, and written
 * again it reads the same. Byte 0 is its type, byte 1 bit 0 wipes the payload section, byte 2 is
 * that section's length. */
#include "task/record.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Writing needs the lists where they lie, not as they were read. */
static void for_writing(RecordType type, RecordData *d, uint64_t numbers[TASK_FILES_MAX])
{
    NumberList *l = type == REC_SUBMIT   ? &d->submit.files
                    : type == REC_FINISH ? &d->finish.files
                                         : NULL;
    if (!l) return;
    CHECK(l->len <= TASK_FILES_MAX);
    for (uint32_t i = 0; i < l->len; i++) numbers[i] = number_list_at(l, i);
    l->at = numbers;
}

static void written(uint8_t type, RecordData *d, Buf *ret)
{
    uint64_t numbers[TASK_FILES_MAX];
    FrameBuilder b = {0};
    LogPoint at = {.next_seq = 1, .epoch = 1};
    for_writing((RecordType)type, d, numbers);
    record_put(&b, (RecordType)type, d);
    frame_seal(&b, 1, &at, ret);
    frame_done(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3 || size > 64 * KIB) return 0;
    uint8_t type = data[0];
    size_t payload = MIN((size_t)data[2], size - 3);
    Frame f = {.version = FRAME_VERSION,
               .flags = data[1] & FRAME_ERASED,
               .records = 1,
               .payload = {(const char *)data + 3, payload}};
    Record r = {type, RECORD_VERSION, 1, {(const char *)data + 3 + payload, size - 3 - payload}};
    RecordData d;
    Buf text = {0}, once = {0}, twice = {0};
    CHECK(record_describe(&f, &r, &text));
    CHECK(text.len && !memchr(text.data, 0, 1));
    int err = record_get(&f, &r, &d);
    CHECK(err == 0 || err == (type == 0 || type >= REC_TYPES ? ERR_UNSUPPORTED : ERR_INVALID));
    if (!err && !f.flags) {
        Frame again;
        Record second;
        size_t len, at = 0;
        uint32_t index = 0;
        written(type, &d, &once);
        CHECK(frame_read(buf_str(&once), &again, &len) == 0 && len == once.len);
        CHECK(frame_next_record(&again, &at, &index, &second) == 1 && second.type == type);
        CHECK(record_get(&again, &second, &d) == 0);
        written(type, &d, &twice);
        CHECK(once.len == twice.len && memcmp(once.data, twice.data, once.len) == 0);
    }
    buf_done(&text);
    buf_done(&once);
    buf_done(&twice);
    return 0;
}
