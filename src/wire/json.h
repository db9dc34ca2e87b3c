/* json.h: strict JSON (RFC 8259) of strangers: a reader with limits that reuses its memory,
 * getters that say which field is wrong and how to mend it, and writers that escape. Over yyjson.
 * Pure.
 *
 * Numbers are kept as text ("raw"), so that what a client wrote is what a model gets; the getters
 * below turn them into integers. */
#ifndef WIRE_JSON_H
#define WIRE_JSON_H

#include <yyjson.h>

#include "base/base.h"

#define JSON_DEPTH_MAX                                                                             \
    64 /* what recursive parsers behind us (Python's, models') take without trouble */
#define JSON_MEMBERS_MAX 32        /* of a root object whose members are found by place */
#define JSON_KEEP_MAX    (1 * MIB) /* memory kept from one document to the next */

/* What is wrong with a document or a field. A zeroed one means: nothing. */
typedef struct {
    bool bad;
    bool syntax;  /* no JSON at all, or over a limit of the format */
    bool unknown; /* a field that is not known */
    bool too_large;
    char field[64];   /* "" when it is about the whole */
    char detail[320]; /* for people: the field, the value, the remedy */
} JsonFault;
void json_fault(JsonFault *f, const char *field, const char *fmt, ...) HR_PRINTF(3, 4);

typedef struct {
    Str name; /* decoded: borrowed from the document */
    yyjson_val *val;
    Str text; /* its value as written, without blanks around: borrowed from the text */
} JsonMember;

/* A document and its memory, for one use after another. Zeroed is valid. */
typedef struct {
    void *mem;
    size_t cap;
    yyjson_doc *doc;
    Str text;
    JsonMember members[JSON_MEMBERS_MAX];
    size_t members_len;
} Json;
void json_done(Json *j);

/* Reads one document; the result is borrowed until the next json_read. text must stay as long.
 * NULL: *fault says why. */
yyjson_val *json_read(Json *j, Str text, JsonFault *fault) HR_MUST_CHECK;
/* The same for a document that must be an object: fills members, in order; refuses a name given
 * twice, and one that is not among `known` (ends with NULL; NULL: any), naming the nearest. */
bool json_read_object(Json *j, Str text, const char *const *known, JsonFault *fault) HR_MUST_CHECK;
const JsonMember *json_member(const Json *j, const char *name); /* NULL: not there, or null */

/* Typed values. False: *fault says what is wrong, *ret is untouched. A NULL member is fine and
 * leaves *ret alone. */
bool json_str(const JsonMember *m, size_t min, size_t max, Str *ret, JsonFault *fault);
bool json_uint(const JsonMember *m, uint64_t min, uint64_t max, uint64_t *ret, JsonFault *fault);
bool json_bool(const JsonMember *m, bool *ret, JsonFault *fault);
/* Seconds with up to 9 decimals, as nanoseconds. */
bool json_seconds(const JsonMember *m, int64_t min_ns, int64_t max_ns, int64_t *ret_ns,
                  JsonFault *fault);

/* The same of a value inside (for lists): false when it is of another kind or out of range. */
bool json_val_str(yyjson_val *v, Str *ret);
bool json_val_uint(yyjson_val *v, uint64_t *ret);
bool json_val_int(yyjson_val *v, int64_t *ret);

/* `text` without blanks outside strings, so that it is one line. Valid JSON only. */
void json_compact(Str text, Buf *ret);
bool json_has_newline(Str text);

/* ---- writing ---- */
void json_put_str(Buf *b, Str s);  /* quoted and escaped; bytes that are not UTF-8 become U+FFFD */
void json_put_text(Buf *b, Str s); /* the same without the quotes */
void json_put_u64(Buf *b, uint64_t v);
void json_put_i64(Buf *b, int64_t v);
void json_put_time(Buf *b, int64_t unix_ns); /* quoted RFC 3339, or null for 0 */

#endif
