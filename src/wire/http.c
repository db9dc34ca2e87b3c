/* llhttp calls back for spans of the input. Heads are copied (a few hundred bytes) so that a
 * request may arrive in any number of pieces; a body that arrives in one piece is used where it
 * lies.
 *
 * Pauses: after the head, so that the caller can set limits by route, and after the message. */
#include "wire/http.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static int on_begin(llhttp_t *ll);
static int on_url(llhttp_t *ll, const char *at, size_t n);
static int on_name(llhttp_t *ll, const char *at, size_t n);
static int on_name_end(llhttp_t *ll);
static int on_value(llhttp_t *ll, const char *at, size_t n);
static int on_head(llhttp_t *ll);
static int on_body(llhttp_t *ll, const char *at, size_t n);
static int on_extension(llhttp_t *ll, const char *at, size_t n);
static int on_end(llhttp_t *ll);

static const llhttp_settings_t settings = {
    .on_message_begin = on_begin,
    .on_url = on_url,
    .on_header_field = on_name,
    .on_header_field_complete = on_name_end,
    .on_header_value = on_value,
    .on_headers_complete = on_head,
    .on_body = on_body,
    .on_chunk_extension_name = on_extension,
    .on_chunk_extension_value = on_extension,
    .on_message_complete = on_end,
};

static HttpParser *of(llhttp_t *ll)
{
    return CONTAINER_OF(ll, HttpParser, ll);
}

static int refuse(HttpParser *p, int status, const char *fmt, ...) HR_PRINTF(3, 4);
static int refuse(HttpParser *p, int status, const char *fmt, ...)
{
    if (p->status) return HPE_USER;
    p->status = (uint16_t)status;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->why, sizeof p->why, fmt, ap);
    va_end(ap);
    return HPE_USER;
}

void http_init(HttpParser *p)
{
    memset(p, 0, sizeof *p);
    llhttp_init(&p->ll, HTTP_REQUEST, &settings);
}

void http_done(HttpParser *p)
{
    buf_done(&p->head);
    buf_done(&p->body);
}

bool http_between(const HttpParser *p)
{
    return !p->begun;
}

static int on_begin(llhttp_t *ll)
{
    HttpParser *p = of(ll);
    buf_clear(&p->head);
    buf_clear(&p->body);
    if (p->body.cap > 64 * KIB) buf_done(&p->body);
    p->span = (Str){0};
    p->req.fields_len = 0;
    p->req.body = (Str){0};
    p->target_len = 0;
    p->extra = 0;
    p->in_value = false;
    p->body_seen = 0;
    p->body_max = 0;
    p->take = NULL;
    p->begun = true;
    return 0;
}

static int grow_head(HttpParser *p, const char *at, size_t n)
{
    if (p->head.len + n > HTTP_HEAD_MAX)
        return refuse(p, 431,
                      "the request's head is larger than %zu KiB; send fewer or shorter headers",
                      HTTP_HEAD_MAX / KIB);
    buf_put(&p->head, at, n);
    return 0;
}

static int grow_extra(HttpParser *p, size_t n)
{
    p->extra += n;
    if (p->extra > HTTP_HEAD_MAX)
        return refuse(p, 431, "trailers and chunk extensions are larger than %zu KiB",
                      HTTP_HEAD_MAX / KIB);
    return 0;
}

static int on_url(llhttp_t *ll, const char *at, size_t n)
{
    HttpParser *p = of(ll);
    int err = grow_head(p, at, n);
    p->target_len = (uint32_t)p->head.len;
    return err;
}

static int on_name(llhttp_t *ll, const char *at, size_t n)
{
    HttpParser *p = of(ll);
    if (ll->flags & F_TRAILING) return grow_extra(p, n);
    HttpRequest *r = &p->req;
    if (r->fields_len == 0 || p->in_value) {
        if (r->fields_len == HTTP_FIELDS_MAX)
            return refuse(p, 431, "the request has more than %d headers", HTTP_FIELDS_MAX);
        r->fields_len++;
        p->at[r->fields_len - 1].name = (uint32_t)p->head.len;
        p->at[r->fields_len - 1].name_len = 0;
        p->at[r->fields_len - 1].value_len = 0;
        p->in_value = false;
    }
    p->at[r->fields_len - 1].name_len += (uint32_t)n;
    return grow_head(p, at, n);
}

static int on_value(llhttp_t *ll, const char *at, size_t n)
{
    HttpParser *p = of(ll);
    if (ll->flags & F_TRAILING) return grow_extra(p, n);
    p->at[p->req.fields_len - 1].value_len += (uint32_t)n;
    return grow_head(p, at, n);
}

static int on_name_end(llhttp_t *ll)
{
    HttpParser *p = of(ll);
    if (ll->flags & F_TRAILING) return 0;
    p->in_value = true;
    p->at[p->req.fields_len - 1].value = (uint32_t)p->head.len;
    return 0;
}

static int on_extension(llhttp_t *ll, const char *at, size_t n)
{
    (void)at;
    return grow_extra(of(ll), n);
}

static bool name_is(Str name, const char *known, size_t n)
{
    return name.n == n && strncasecmp(name.p, known, n) == 0;
}

static bool host_valid(Str h)
{
    if (h.n == 0 || h.n > 255) return false;
    for (size_t i = 0; i < h.n; i++) {
        char c = h.p[i];
        bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  strchr(".-_:[]", c);
        if (!ok || !c) return false;
    }
    return true;
}

/* Headers of which two would leave open which one counts. */
static const char *const single[] = {
    "host",   "authorization",   "content-type",  "content-length", "transfer-encoding", "expect",
    "origin", "idempotency-key", "last-event-id", "range",          "traceparent"};
enum { SINGLE_HOST = 0, SINGLE_TE = 4, SINGLE_EXPECT = 5 };

static int check_fields(HttpParser *p)
{
    HttpRequest *r = &p->req;
    uint32_t seen = 0;
    r->host = (Str){0};
    r->expect_continue = false;
    for (size_t i = 0; i < r->fields_len; i++) {
        HttpField *f = &r->fields[i];
        f->name = (Str){(char *)p->head.data + p->at[i].name, p->at[i].name_len};
        f->value = (Str){(char *)p->head.data + p->at[i].value, p->at[i].value_len};
        while (f->value.n &&
               (f->value.p[f->value.n - 1] == ' ' || f->value.p[f->value.n - 1] == '\t'))
            f->value.n--;
        for (size_t k = 0; k < f->value.n; k++) {
            unsigned char c = (unsigned char)f->value.p[k];
            if ((c < 0x20 && c != '\t') || c == 0x7F)
                return refuse(p, 400, "the header %.*s holds a control character",
                              (int)MIN(f->name.n, (size_t)40), f->name.p);
        }
        for (size_t k = 0; k < ARRAY_LEN(single); k++) {
            if (!name_is(f->name, single[k], strlen(single[k]))) continue;
            if (seen >> k & 1)
                return refuse(p, 400, "the header %s is given twice; send it once", single[k]);
            seen |= 1u << k;
            if (k == SINGLE_HOST) r->host = f->value;
            if (k == SINGLE_TE && !name_is(f->value, "chunked", 7))
                return refuse(p, 501, "the transfer coding \"%.*s\" is not supported; chunked is",
                              (int)MIN(f->value.n, (size_t)40), f->value.p);
            if (k == SINGLE_EXPECT) {
                if (!name_is(f->value, "100-continue", 12))
                    return refuse(p, 417, "the expectation \"%.*s\" is not known; 100-continue is",
                                  (int)MIN(f->value.n, (size_t)40), f->value.p);
                r->expect_continue = true;
            }
            break;
        }
    }
    if (!(seen & 1u << SINGLE_HOST)) return refuse(p, 400, "the header Host is missing");
    if (!host_valid(r->host)) return refuse(p, 400, "the header Host is not a host and port");
    return 0;
}

static HttpMethod method_of(uint8_t m)
{
    switch (m) {
    case HTTP_GET:
        return HTTP_M_GET;
    case HTTP_HEAD:
        return HTTP_M_HEAD;
    case HTTP_POST:
        return HTTP_M_POST;
    case HTTP_PUT:
        return HTTP_M_PUT;
    case HTTP_DELETE:
        return HTTP_M_DELETE;
    case HTTP_PATCH:
        return HTTP_M_PATCH;
    case HTTP_OPTIONS:
        return HTTP_M_OPTIONS;
    default:
        return HTTP_M_OTHER;
    }
}

static int on_head(llhttp_t *ll)
{
    HttpParser *p = of(ll);
    HttpRequest *r = &p->req;
    if (ll->http_major != 1 || ll->http_minor != 1)
        return refuse(p, 505, "HTTP/%d.%d is not spoken here; HTTP/1.1 is", ll->http_major,
                      ll->http_minor);
    r->method = method_of(ll->method);
    r->target = (Str){(char *)p->head.data, p->target_len};
    if (r->target.n == 0 ||
        (r->target.p[0] != '/' && !(str_eqz(r->target, "*") && r->method == HTTP_M_OPTIONS)))
        return refuse(p, 400, "the request target must be a path that begins with '/'");
    if (memchr(r->target.p, '#', r->target.n))
        return refuse(p, 400, "the request target holds a fragment ('#'); leave it out");
    const char *q = memchr(r->target.p, '?', r->target.n);
    r->path = (Str){r->target.p, q ? (size_t)(q - r->target.p) : r->target.n};
    r->query = q ? (Str){q + 1, r->target.n - r->path.n - 1} : (Str){"", 0};
    int err = check_fields(p);
    if (err) return err;
    r->keep_alive = llhttp_should_keep_alive(ll) != 0;
    r->chunked = (ll->flags & F_CHUNKED) != 0;
    r->has_length = (ll->flags & F_CONTENT_LENGTH) != 0;
    r->length = r->has_length ? ll->content_length : 0;
    if (r->chunked && r->has_length)
        return refuse(p, 400,
                      "Content-Length and Transfer-Encoding together leave the length open");
    ll->upgrade = 0; /* an offer to switch protocols is declined by answering in this one */
    p->event = HTTP_HEAD_OK;
    return HPE_PAUSED;
}

static int on_body(llhttp_t *ll, const char *at, size_t n)
{
    HttpParser *p = of(ll);
    p->body_seen += n;
    if (p->body_seen > p->body_max)
        return refuse(p, 413, "the body is larger than the limit of %llu bytes",
                      (unsigned long long)p->body_max);
    if (p->take) {
        p->take(p->ctx, (Str){at, n});
        return 0;
    }
    if (p->body.len == 0 && p->span.n == 0) {
        p->span = (Str){at, n};
        return 0;
    }
    if (p->span.n) {
        if (!p->req.chunked) buf_reserve(&p->body, (size_t)p->req.length);
        buf_put_str(&p->body, p->span);
        p->span = (Str){0};
    }
    buf_put(&p->body, at, n);
    return 0;
}

static int on_end(llhttp_t *ll)
{
    HttpParser *p = of(ll);
    p->req.body = p->span.n ? p->span : buf_str(&p->body);
    p->event = HTTP_DONE;
    p->begun = false;
    return HPE_PAUSED;
}

static const char *reason_of(llhttp_t *ll)
{
    switch (llhttp_get_errno(ll)) {
    case HPE_CR_EXPECTED:
    case HPE_LF_EXPECTED:
        return "a line must end with CR LF";
    case HPE_UNEXPECTED_CONTENT_LENGTH:
        return "Content-Length is given twice or beside Transfer-Encoding";
    case HPE_INVALID_CONTENT_LENGTH:
        return "Content-Length is not a whole number";
    case HPE_INVALID_TRANSFER_ENCODING:
        return "Transfer-Encoding must be \"chunked\" and stand alone";
    case HPE_INVALID_HEADER_TOKEN:
        return "a header holds a character that is not allowed, or is folded";
    case HPE_INVALID_METHOD:
        return "the method is not known";
    case HPE_INVALID_URL:
        return "the request target holds a character that is not allowed";
    case HPE_INVALID_CHUNK_SIZE:
        return "a chunk's size is not a hexadecimal number";
    case HPE_CLOSED_CONNECTION:
        return "bytes follow a request that said Connection: close";
    default:
        return "it is malformed";
    }
}

HttpStep http_step(HttpParser *p, Str *in)
{
    if (p->status) return HTTP_REFUSED;
    p->event = HTTP_MORE;
    llhttp_errno_t err = llhttp_execute(&p->ll, in->p, in->n);
    if (err == HPE_OK) {
        in->p += in->n;
        in->n = 0;
        if (p->span.n) { /* it lies in input that goes away */
            if (!p->req.chunked) buf_reserve(&p->body, (size_t)MIN(p->req.length, 8 * MIB));
            buf_put_str(&p->body, p->span);
            p->span = (Str){0};
        }
        return HTTP_MORE;
    }
    if (err == HPE_PAUSED && p->event != HTTP_MORE) {
        const char *at = llhttp_get_error_pos(&p->ll);
        CHECK(at >= in->p && at <= in->p + in->n);
        in->n -= (size_t)(at - in->p);
        in->p = at;
        llhttp_resume(&p->ll);
        return p->event;
    }
    refuse(p, 400, "this is not a valid HTTP/1.1 request: %s", reason_of(&p->ll));
    return HTTP_REFUSED;
}

/* ---- parts ---- */

Str http_field(const HttpRequest *r, const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < r->fields_len; i++)
        if (name_is(r->fields[i].name, name, n)) return r->fields[i].value;
    return (Str){NULL, 0};
}

static int hex_of(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

int http_decode(Str s, bool query, Buf *ret)
{
    size_t start = ret->len;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (c == '+' && query) c = ' ';
        if (c == '%') {
            int hi = i + 2 < s.n ? hex_of(s.p[i + 1]) : -1,
                lo = i + 2 < s.n ? hex_of(s.p[i + 2]) : -1;
            if (hi < 0 || lo < 0) goto bad;
            c = (char)(hi * 16 + lo);
            i += 2;
        }
        if (c == 0) goto bad;
        buf_putc(ret, c);
    }
    if (ret->len == start || utf8_valid(ret->data + start, ret->len - start)) return 0;
bad:
    ret->len = start;
    return ERR_INVALID;
}

bool http_next_pair(Str *query, Str *name, Str *value)
{
    while (query->n && query->p[0] == '&') {
        query->p++;
        query->n--;
    }
    if (!query->n) return false;
    const char *amp = memchr(query->p, '&', query->n);
    Str part = {query->p, amp ? (size_t)(amp - query->p) : query->n};
    query->p += part.n;
    query->n -= part.n;
    const char *eq = memchr(part.p, '=', part.n);
    *name = (Str){part.p, eq ? (size_t)(eq - part.p) : part.n};
    *value = eq ? (Str){eq + 1, part.n - name->n - 1} : (Str){"", 0};
    return true;
}

Str http_bearer(Str a)
{
    if (a.n < 8 || strncasecmp(a.p, "Bearer ", 7) != 0) return (Str){NULL, 0};
    Str key = {a.p + 7, a.n - 7};
    while (key.n && key.p[0] == ' ') {
        key.p++;
        key.n--;
    }
    return key;
}

bool http_media_is(Str t, const char *type)
{
    const char *semi = t.n ? memchr(t.p, ';', t.n) : NULL;
    if (semi) t.n = (size_t)(semi - t.p);
    while (t.n && (t.p[t.n - 1] == ' ' || t.p[t.n - 1] == '\t')) t.n--;
    return name_is(t, type, strlen(type));
}

int http_quoted(Str v, Buf *ret)
{
    size_t start = ret->len;
    if (v.n < 2 || v.p[0] != '"' || v.p[v.n - 1] != '"') return ERR_INVALID;
    for (size_t i = 1; i + 1 < v.n; i++) {
        char c = v.p[i];
        if (c == '\\') {
            c = v.p[++i];
            if (i + 1 >= v.n || (c != '"' && c != '\\')) goto bad;
        } else if (c == '"' || c < 0x20 || c > 0x7E) {
            goto bad;
        }
        buf_putc(ret, c);
    }
    return 0;
bad:
    ret->len = start;
    return ERR_INVALID;
}

const char *http_method_name(HttpMethod m)
{
    static const char *const names[] = {"GET",    "HEAD",  "POST",    "PUT",
                                        "DELETE", "PATCH", "OPTIONS", "OTHER"};
    return names[m];
}

const char *http_status_text(int status)
{
    switch (status) {
    case 100:
        return "Continue";
    case 200:
        return "OK";
    case 201:
        return "Created";
    case 202:
        return "Accepted";
    case 204:
        return "No Content";
    case 206:
        return "Partial Content";
    case 304:
        return "Not Modified";
    case 400:
        return "Bad Request";
    case 401:
        return "Unauthorized";
    case 403:
        return "Forbidden";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 408:
        return "Request Timeout";
    case 409:
        return "Conflict";
    case 410:
        return "Gone";
    case 411:
        return "Length Required";
    case 413:
        return "Content Too Large";
    case 415:
        return "Unsupported Media Type";
    case 416:
        return "Range Not Satisfiable";
    case 417:
        return "Expectation Failed";
    case 421:
        return "Misdirected Request";
    case 422:
        return "Unprocessable Content";
    case 429:
        return "Too Many Requests";
    case 431:
        return "Request Header Fields Too Large";
    case 500:
        return "Internal Server Error";
    case 501:
        return "Not Implemented";
    case 503:
        return "Service Unavailable";
    case 505:
        return "HTTP Version Not Supported";
    case 507:
        return "Insufficient Storage";
    default:
        return status < 400 ? "OK" : "Error";
    }
}
