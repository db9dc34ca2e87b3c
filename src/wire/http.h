/* http.h: HTTP/1.1 requests from a stream of bytes (llhttp in strict mode), piece by piece. Pure.
 *
 * No ambiguity is accepted: two lengths, a length with chunked, a transfer coding other than
 * chunked, a bare LF or CR, a folded header, a missing, doubled or malformed Host, a doubled
 * header that must be single, an absolute-form target or a version other than 1.1 is refused, and
 * the connection must end there. */
#ifndef WIRE_HTTP_H
#define WIRE_HTTP_H

#include <llhttp.h>

#include "base/base.h"

#define HTTP_HEAD_MAX                                                                              \
    (16 * KIB) /* request line, header lines, trailers and chunk extensions together */
#define HTTP_FIELDS_MAX 100

typedef enum {
    HTTP_M_GET,
    HTTP_M_HEAD,
    HTTP_M_POST,
    HTTP_M_PUT,
    HTTP_M_DELETE,
    HTTP_M_PATCH,
    HTTP_M_OPTIONS,
    HTTP_M_OTHER
} HttpMethod;
const char *http_method_name(HttpMethod m);
const char *http_status_text(int status); /* "Not Found"; never NULL */

typedef struct {
    Str name, value;
} HttpField;

typedef struct {
    HttpMethod method;
    Str target, path, query; /* query without its '?' */
    Str host;
    HttpField fields[HTTP_FIELDS_MAX];
    size_t fields_len;
    bool keep_alive, chunked, has_length, expect_continue;
    uint64_t length; /* when has_length */
    Str body;        /* after HTTP_DONE, unless a taker got it */
} HttpRequest;

/* By name, whatever its case; the first. Empty with p NULL: not there. */
Str http_field(const HttpRequest *r, const char *name);

typedef enum {
    HTTP_MORE,    /* all input is used: feed the next bytes */
    HTTP_HEAD_OK, /* the head is whole (once a request); body follows, or HTTP_DONE */
    HTTP_DONE,    /* the request is whole */
    HTTP_REFUSED  /* status and why say it; feed no more */
} HttpStep;

typedef struct HttpParser {
    llhttp_t ll;
    HttpRequest req; /* borrowed from head and body; valid until the next request's first byte */
    Buf head;
    struct {
        uint32_t name, name_len, value, value_len;
    } at[HTTP_FIELDS_MAX];
    uint32_t target_len;
    size_t extra; /* bytes of trailers and chunk extensions */
    bool in_value, begun;
    HttpStep event;
    Buf body;
    Str span; /* body so far when it is one piece of the current input */
    uint64_t body_seen, body_max;
    void (*take)(void *ctx, Str piece); /* or NULL: the body is gathered */
    void *ctx;
    uint16_t status; /* when REFUSED */
    char why[200];
} HttpParser;

void http_init(HttpParser *p);
void http_done(HttpParser *p);

/* Takes bytes from the front of *in. After HTTP_HEAD_OK the caller may set p->body_max (the
 * default is 0: no body) and p->take; gathered bodies larger than it are refused with 413.
 * req.body is borrowed from *in or the parser. */
HttpStep http_step(HttpParser *p, Str *in);
bool http_between(const HttpParser *p); /* no byte of a further request has been seen */

/* ---- small parts of the grammar ---- */

/* Percent-decoding of a path segment or query part ('+' is a blank in queries). ERR_INVALID: bad
 * escape, NUL or bytes that are not UTF-8. */
int http_decode(Str s, bool query, Buf *ret) HR_MUST_CHECK;
/* Walks "a=b&c=d": false at the end. Parts are not decoded. */
bool http_next_pair(Str *query, Str *name, Str *value);
/* "Bearer x" → x; empty: another scheme. */
Str http_bearer(Str authorization);
/* The media type before ';', compared without regard to case. */
bool http_media_is(Str content_type, const char *type);
/* A quoted string of RFC 8941: ERR_INVALID when it is not one. Unescaped into ret. */
int http_quoted(Str value, Buf *ret) HR_MUST_CHECK;

#endif
