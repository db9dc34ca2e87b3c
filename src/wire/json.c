#include "wire/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const yyjson_read_flag read_flags = YYJSON_READ_NUMBER_AS_RAW;

void json_fault(JsonFault *f, const char *field, const char *fmt, ...)
{
    f->bad = true;
    snprintf(f->field, sizeof f->field, "%s", field ? field : "");
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(f->detail, sizeof f->detail, fmt, ap);
    va_end(ap);
}

static void drop_doc(Json *j)
{
    if (j->doc) yyjson_doc_free(j->doc);
    j->doc = NULL;
    j->members_len = 0;
    if (j->cap > JSON_KEEP_MAX) {
        mem_free(j->mem);
        j->mem = NULL;
        j->cap = 0;
    }
}

void json_done(Json *j)
{
    drop_doc(j);
    mem_free(j->mem);
    *j = (Json){0};
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* The quote that ends the string that begins at p: one with an even number of backslashes before
 * it. */
static const char *string_end(const char *p, const char *end)
{
    for (const char *q = p + 1; q < end; q++) {
        q = memchr(q, '"', (size_t)(end - q));
        if (!q) return end;
        const char *back = q;
        while (back > p + 1 && back[-1] == '\\') back--;
        if ((q - back) % 2 == 0) return q;
    }
    return end;
}

/* One walk over a valid document: how deep it goes, and where the values of the root's members
 * lie. */
static bool scan(Json *j)
{
    const char *p = j->text.p, *end = p + j->text.n, *value = NULL;
    size_t depth = 0, n = 0;
    for (; p < end; p++) {
        switch (*p) {
        case '"':
            p = string_end(p, end);
            break;
        case '{':
        case '[':
            if (++depth > JSON_DEPTH_MAX) return false;
            break;
        case ':':
            if (depth == 1) value = p + 1;
            break;
        case '}':
        case ']':
            depth--;
            if (depth) break;
            __attribute__((fallthrough));
        case ',':
            if (depth > 1 || !value) break;
            if (n < j->members_len) {
                const char *stop = p;
                while (value < stop && is_blank(*value)) value++;
                while (stop > value && is_blank(stop[-1])) stop--;
                j->members[n].text = (Str){value, (size_t)(stop - value)};
            }
            n++;
            value = NULL;
            break;
        default:
            break;
        }
    }
    return true;
}

static void place_of(Str text, size_t at, size_t *line, size_t *column)
{
    *line = *column = 1;
    for (size_t i = 0; i < at && i < text.n; i++) {
        if (text.p[i] == '\n') {
            (*line)++;
            *column = 1;
        } else {
            (*column)++;
        }
    }
}

static yyjson_val *read_doc(Json *j, Str text, JsonFault *fault)
{
    drop_doc(j);
    j->text = text;
    if (text.n == 0) {
        json_fault(fault, NULL, "there is no JSON: the body is empty");
        fault->syntax = true;
        return NULL;
    }
    size_t need = yyjson_read_max_memory_usage(text.n, read_flags);
    if (need > j->cap) {
        size_t cap = MAX(need, 16 * KIB);
        mem_free(j->mem);
        j->mem = NULL;
        j->cap = 0;
        j->mem = malloc(cap); /* sized by a client: may fail */
        if (!j->mem) {
            json_fault(fault, NULL, "the document is too large for the memory there is now");
            fault->too_large = true;
            return NULL;
        }
        j->cap = cap;
    }
    yyjson_alc alc;
    CHECK(yyjson_alc_pool_init(&alc, j->mem, j->cap));
    yyjson_read_err err = {0};
    j->doc = yyjson_read_opts((char *)(uintptr_t)text.p, text.n, read_flags, &alc, &err);
    if (!j->doc) {
        size_t line, column;
        place_of(text, err.pos, &line, &column);
        json_fault(fault, NULL, "this is not JSON: %s at line %zu, column %zu",
                   err.msg ? err.msg : "it is malformed", line, column);
        fault->syntax = true;
        return NULL;
    }
    return yyjson_doc_get_root(j->doc);
}

static bool check_depth(Json *j, JsonFault *fault)
{
    if (scan(j)) return true;
    json_fault(fault, NULL, "the JSON is nested deeper than %d levels; flatten it", JSON_DEPTH_MAX);
    fault->syntax = true;
    return false;
}

yyjson_val *json_read(Json *j, Str text, JsonFault *fault)
{
    yyjson_val *root = read_doc(j, text, fault);
    return root && check_depth(j, fault) ? root : NULL;
}

static void unknown_field(Str name, const char *const *known, JsonFault *fault)
{
    char shown[65];
    snprintf(shown, sizeof shown, "%.*s", (int)MIN(name.n, (size_t)60), name.p);
    const char *near = nearest_name(name, known);
    if (near) {
        json_fault(fault, shown, "unknown field \"%s\"; did you mean \"%s\"?", shown, near);
    } else {
        char list[200] = "";
        size_t n = 0;
        for (size_t i = 0; known[i] && n < sizeof list; i++)
            n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", known[i]);
        json_fault(fault, shown, "unknown field \"%s\"; known are: %s", shown, list);
    }
    fault->unknown = true;
}

static const char *kind_of(yyjson_val *v)
{
    switch (yyjson_get_type(v)) {
    case YYJSON_TYPE_NULL:
        return "null";
    case YYJSON_TYPE_BOOL:
        return "a truth value";
    case YYJSON_TYPE_STR:
        return "a string";
    case YYJSON_TYPE_ARR:
        return "a list";
    case YYJSON_TYPE_OBJ:
        return "an object";
    default:
        return "a number";
    }
}

bool json_read_object(Json *j, Str text, const char *const *known, JsonFault *fault)
{
    yyjson_val *root = read_doc(j, text, fault);
    if (!root) return false;
    if (!yyjson_is_obj(root)) {
        json_fault(fault, NULL, "a JSON object is expected, this is %s", kind_of(root));
        return false;
    }
    size_t at, max;
    yyjson_val *key, *val;
    yyjson_obj_foreach(root, at, max, key, val)
    {
        Str name = {yyjson_get_str(key), yyjson_get_len(key)};
        if (known) {
            size_t i = 0;
            while (known[i] && !str_eqz(name, known[i])) i++;
            if (!known[i]) {
                unknown_field(name, known, fault);
                return false;
            }
        }
        if (j->members_len == JSON_MEMBERS_MAX) {
            json_fault(fault, NULL, "the object has more than %d fields", JSON_MEMBERS_MAX);
            return false;
        }
        for (size_t i = 0; i < j->members_len; i++) {
            if (!str_eq(j->members[i].name, name)) continue;
            char shown[65];
            snprintf(shown, sizeof shown, "%.*s", (int)MIN(name.n, (size_t)60), name.p);
            json_fault(fault, shown, "the field \"%s\" is given twice; give it once", shown);
            return false;
        }
        j->members[j->members_len++] = (JsonMember){.name = name, .val = val};
    }
    return check_depth(j, fault);
}

const JsonMember *json_member(const Json *j, const char *name)
{
    for (size_t i = 0; i < j->members_len; i++)
        if (str_eqz(j->members[i].name, name))
            return yyjson_is_null(j->members[i].val) ? NULL : &j->members[i];
    return NULL;
}

/* ---- typed values ---- */

static void wrong_kind(const JsonMember *m, const char *want, JsonFault *fault)
{
    char name[65];
    snprintf(name, sizeof name, "%.*s", (int)MIN(m->name.n, (size_t)60), m->name.p);
    Str shown = {m->text.p, MIN(m->text.n, (size_t)40)};
    json_fault(fault, name, "\"%s\" must be %s; got %s: %.*s%s", name, want, kind_of(m->val),
               STR_ARG(shown), m->text.n > shown.n ? "…" : "");
}

bool json_val_str(yyjson_val *v, Str *ret)
{
    if (!yyjson_is_str(v)) return false;
    *ret = (Str){yyjson_get_str(v), yyjson_get_len(v)};
    return true;
}

bool json_str(const JsonMember *m, size_t min, size_t max, Str *ret, JsonFault *fault)
{
    if (!m) return true;
    Str s;
    if (!json_val_str(m->val, &s)) {
        wrong_kind(m, "a string", fault);
        return false;
    }
    if (s.n < min || s.n > max) {
        char name[65];
        snprintf(name, sizeof name, "%.*s", (int)MIN(m->name.n, (size_t)60), m->name.p);
        json_fault(fault, name, "\"%s\" must be %zu to %zu bytes long; it is %zu", name, min, max,
                   s.n);
        return false;
    }
    *ret = s;
    return true;
}

bool json_val_uint(yyjson_val *v, uint64_t *ret)
{
    if (!yyjson_is_raw(v)) return false;
    return parse_u64((Str){yyjson_get_raw(v), yyjson_get_len(v)}, ret) == 0;
}

bool json_val_int(yyjson_val *v, int64_t *ret)
{
    if (!yyjson_is_raw(v)) return false;
    return parse_i64((Str){yyjson_get_raw(v), yyjson_get_len(v)}, ret) == 0;
}

bool json_uint(const JsonMember *m, uint64_t min, uint64_t max, uint64_t *ret, JsonFault *fault)
{
    if (!m) return true;
    uint64_t v;
    if (!json_val_uint(m->val, &v) || v < min || v > max) {
        char want[96];
        snprintf(want, sizeof want, "a whole number from %llu to %llu", (unsigned long long)min,
                 (unsigned long long)max);
        wrong_kind(m, want, fault);
        return false;
    }
    *ret = v;
    return true;
}

bool json_bool(const JsonMember *m, bool *ret, JsonFault *fault)
{
    if (!m) return true;
    if (!yyjson_is_bool(m->val)) {
        wrong_kind(m, "true or false", fault);
        return false;
    }
    *ret = yyjson_get_bool(m->val);
    return true;
}

/* Digits, then perhaps a dot and up to 9 more: exact, no floating point. */
static bool parse_seconds(Str s, int64_t *ret_ns)
{
    const char *dot = memchr(s.p, '.', s.n);
    Str whole = {s.p, dot ? (size_t)(dot - s.p) : s.n};
    uint64_t v, frac = 0;
    if (parse_u64(whole, &v) || v > (uint64_t)(INT64_MAX / NS_PER_S - 1)) return false;
    if (dot) {
        Str digits = {dot + 1, s.n - whole.n - 1};
        if (digits.n == 0 || digits.n > 9 || parse_u64(digits, &frac)) return false;
        for (size_t i = digits.n; i < 9; i++) frac *= 10;
    }
    *ret_ns = (int64_t)v * NS_PER_S + (int64_t)frac;
    return true;
}

bool json_seconds(const JsonMember *m, int64_t min_ns, int64_t max_ns, int64_t *ret_ns,
                  JsonFault *fault)
{
    if (!m) return true;
    int64_t ns;
    if (!yyjson_is_raw(m->val) || !parse_seconds(m->text, &ns) || ns < min_ns || ns > max_ns) {
        char want[96];
        snprintf(want, sizeof want, "a number of seconds from %g to %lld", (double)min_ns / 1e9,
                 (long long)(max_ns / NS_PER_S));
        wrong_kind(m, want, fault);
        return false;
    }
    *ret_ns = ns;
    return true;
}

/* ---- text ---- */

bool json_has_newline(Str text)
{
    return memchr(text.p, '\n', text.n) || memchr(text.p, '\r', text.n);
}

void json_compact(Str text, Buf *ret)
{
    buf_reserve(ret, text.n);
    const char *p = text.p, *end = p + text.n;
    while (p < end) {
        if (*p == '"') {
            const char *first = p++;
            while (p < end && *p != '"') p += *p == '\\' ? 2 : 1;
            p = p < end ? p + 1 : end;
            buf_put(ret, first, (size_t)(p - first));
        } else {
            if (*p != ' ' && *p != '\t' && *p != '\r' && *p != '\n') buf_putc(ret, *p);
            p++;
        }
    }
}

/* How many bytes of well-formed UTF-8 start here; 0: none (Unicode 15, table 3-7). */
static size_t utf8_len(const uint8_t *p, size_t n)
{
    if (p[0] < 0x80) return 1;
    if (p[0] < 0xC2 || p[0] > 0xF4) return 0;
    size_t len = p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
    if (n < len) return 0;
    for (size_t i = 1; i < len; i++)
        if ((p[i] & 0xC0) != 0x80) return 0;
    if ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] > 0x9F) ||
        (p[0] == 0xF0 && p[1] < 0x90) || (p[0] == 0xF4 && p[1] > 0x8F))
        return 0;
    return len;
}

void json_put_text(Buf *b, Str s)
{
    const uint8_t *p = (const uint8_t *)s.p, *end = p + s.n;
    buf_reserve(b, s.n);
    while (p < end) {
        const uint8_t *plain = p;
        while (p < end && *p >= 0x20 && *p < 0x7F && *p != '"' && *p != '\\') p++;
        buf_put(b, plain, (size_t)(p - plain));
        if (p == end) break;
        switch (*p) {
        case '"':
            buf_put(b, "\\\"", 2);
            break;
        case '\\':
            buf_put(b, "\\\\", 2);
            break;
        case '\n':
            buf_put(b, "\\n", 2);
            break;
        case '\r':
            buf_put(b, "\\r", 2);
            break;
        case '\t':
            buf_put(b, "\\t", 2);
            break;
        default:
            if (*p < 0x20 || *p == 0x7F) {
                buf_printf(b, "\\u%04x", *p);
                break;
            }
            size_t n = utf8_len(p, (size_t)(end - p));
            if (n)
                buf_put(b, p, n);
            else
                buf_put(b, "\xEF\xBF\xBD", 3);
            p += n ? n : 1;
            continue;
        }
        p++;
    }
}

void json_put_str(Buf *b, Str s)
{
    buf_putc(b, '"');
    json_put_text(b, s);
    buf_putc(b, '"');
}

void json_put_u64(Buf *b, uint64_t v)
{
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    buf_put(b, digits + at, sizeof digits - at);
}

void json_put_i64(Buf *b, int64_t v)
{
    if (v < 0) buf_putc(b, '-');
    json_put_u64(b, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

static void two(char *p, unsigned v)
{
    p[0] = (char)('0' + v / 10 % 10);
    p[1] = (char)('0' + v % 10);
}

void json_put_time(Buf *b, int64_t unix_ns)
{
    if (unix_ns <= 0) {
        buf_put(b, "null", 4);
        return;
    }
    /* Days to a date: Hinnant, "chrono-compatible low-level date algorithms", civil_from_days. */
    uint64_t s = (uint64_t)unix_ns / (uint64_t)NS_PER_S;
    unsigned ms = (unsigned)((uint64_t)unix_ns % (uint64_t)NS_PER_S / (uint64_t)NS_PER_MS);
    unsigned of_day = (unsigned)(s % 86400);
    uint64_t z = s / 86400 + 719468, era = z / 146097, doe = z - era * 146097;
    uint64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365,
             doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    unsigned mp = (unsigned)((5 * doy + 2) / 153), day = (unsigned)(doy - (153 * mp + 2) / 5 + 1);
    unsigned month = mp < 10 ? mp + 3 : mp - 9, year = (unsigned)(yoe + era * 400) + (month <= 2);
    char t[26] = "\"0000-00-00T00:00:00.000Z\"";
    two(t + 1, year / 100);
    two(t + 3, year % 100);
    two(t + 6, month);
    two(t + 9, day);
    two(t + 12, of_day / 3600);
    two(t + 15, of_day / 60 % 60);
    two(t + 18, of_day % 60);
    t[21] = (char)('0' + ms / 100);
    two(t + 22, ms % 100);
    buf_put(b, t, sizeof t);
}
