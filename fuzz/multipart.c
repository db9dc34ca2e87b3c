/* A form of any bytes: line 1 is the header Content-Type, the rest the body. In pieces of any
 * size it gives the same file, or is refused alike. */
#include "gateway/multipart.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put(void *ctx, Str piece)
{
    CHECK(piece.n);
    buf_put_str(ctx, piece);
}

typedef struct {
    Buf content;
    int err;
    bool whole;
    char name[256], type[128];
} Seen;

static void run(Str type, Str body, size_t piece, Seen *s)
{
    Multipart m;
    *s = (Seen){0};
    s->err = multipart_init(&m, type);
    m.data = put;
    m.ctx = &s->content;
    for (size_t at = 0; at < body.n && !s->err; at += piece)
        s->err = multipart_feed(&m, (Str){body.p + at, MIN(piece, body.n - at)});
    CHECK(!s->err || (s->err == ERR_INVALID && m.why[0]));
    CHECK(m.hold.len <= MULTIPART_HEAD_MAX + piece + sizeof m.delimiter);
    s->whole = !s->err && multipart_whole(&m);
    memcpy(s->name, m.name, sizeof s->name);
    memcpy(s->type, m.type, sizeof s->type);
    if (s->whole) CHECK(m.has_file && m.type[0]);
    multipart_done(&m);
}

static void clean(Str s)
{
    char name[256], type[128], again[256];
    file_name_clean(s, name);
    CHECK(utf8_valid(name, strlen(name)) && !strchr(name, '/') && strcmp(name, "..") != 0);
    for (const char *p = name; *p; p++) CHECK((unsigned char)*p >= 0x20 && *p != 0x7F);
    file_name_clean(str_from(name), again);
    CHECK(strcmp(name, again) == 0);
    if (media_type_clean(s, type)) {
        CHECK(type[0] && strchr(type, '/'));
        for (const char *p = type; *p; p++) CHECK(*p >= 0x20 && *p < 0x7F);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 64 * KIB) return 0;
    const uint8_t *nl = size ? memchr(data, '\n', size) : NULL;
    Str type = {size ? (const char *)data : "", nl ? (size_t)(nl - data) : size}, body = {"", 0};
    if (nl) body = (Str){(const char *)nl + 1, size - type.n - 1};
    clean(type);
    Seen whole, cut;
    run(type, body, MAX(body.n, (size_t)1), &whole);
    for (size_t piece = 1; piece <= 64; piece = piece * 3 + 1) {
        run(type, body, piece, &cut);
        CHECK(cut.err == whole.err && cut.whole == whole.whole);
        if (whole.whole)
            CHECK(cut.content.len == whole.content.len && strcmp(cut.name, whole.name) == 0 &&
                  strcmp(cut.type, whole.type) == 0 &&
                  (!cut.content.len ||
                   memcmp(cut.content.data, whole.content.data, cut.content.len) == 0));
        buf_done(&cut.content);
    }
    buf_done(&whole.content);
    return 0;
}
