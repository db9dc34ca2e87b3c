/* http_client.h: HTTP calls to a server: blocking ones, and ones that run on a libuv loop
 * (libcurl's multi interface). Connections are kept alive: blocking calls keep one per thread, an
 * HttpClient its own pool.
 *
 * An answer of any status is success (0) and lies in HttpReply; a negative code means that there
 * is no whole answer: ERR_CLOSED (cannot connect, or the connection broke), ERR_TIMEOUT,
 * ERR_CANCELED (a callback ended it), ERR_INVALID (bad URL), ERR_LIMIT (body over HTTP_BODY_MAX),
 * ERR_IO (a local file). reply.error then says why, for people.
 *
 * Redirects are not followed. Only http:// and https:// are spoken. */
#ifndef IO_HTTP_CLIENT_H
#define IO_HTTP_CLIENT_H

#include "base/base.h"

#define HTTP_BODY_MAX                                                                              \
    (64 * MIB) /* of an answer held in memory: the largest batch answer, with room */

typedef struct {
    long status;           /* 0: no answer */
    Buf body;              /* empty where the body went to a callback or a file */
    char content_type[96]; /* as sent, cut to fit; "" when missing */
    char location[256];
    char etag[96];          /* without the quotes */
    uint32_t retry_after_s; /* 0: none given */
    char error[256];        /* why there is no answer: "cannot connect to 127.0.0.1:8080: …" */
} HttpReply;

void http_reply_done(HttpReply *r); /* frees the body; the reply is zeroed; accepts NULL */

/* ---- blocking: any thread ----
 *
 * Each zeroes *ret first (so it must hold nothing: init with {0}, http_reply_done after each
 * call). headers: NULL-ended list of "Name: value", or NULL. */

/* The whole exchange within timeout_ms (0: no limit). */
int http_call(const char *method, const char *url, const char *const *headers, Str body,
              int64_t timeout_ms, HttpReply *ret) HR_MUST_CHECK;

/* GET whose body is handed on as it comes (event streams, NDJSON); on_data false ends it, and the
 * call answers ERR_CANCELED. The body of an answer that is not 2xx goes to ret->body instead. No
 * time limit but for connecting. */
int http_stream(const char *url, const char *const *headers, bool (*on_data)(void *ctx, Str piece),
                void *ctx, HttpReply *ret) HR_MUST_CHECK;

/* GET into the file at path (0600), written beside it and renamed when it is whole; left alone
 * unless the answer is 2xx (whose body is then in ret->body). */
int http_download(const char *url, const char *const *headers, const char *path,
                  HttpReply *ret) HR_MUST_CHECK;

/* POST of the file at path, streamed. */
int http_upload_file(const char *url, const char *const *headers, const char *path,
                     const char *content_type, HttpReply *ret) HR_MUST_CHECK;

/* `text` as one part of a URL (percent-encoded), appended to ret. */
void http_url_escape(Buf *ret, Str text);

/* ---- on a libuv loop: everything on the loop's thread, callbacks too ---- */

typedef struct uv_loop_s uv_loop_t;
typedef struct HttpClient HttpClient;
typedef struct HttpRequest HttpRequest; /* one exchange under way */

typedef struct {
    const char *method; /* "GET", "POST" */
    const char *url;
    const char *const *headers; /* NULL-ended, or NULL; copied */
    Str body;                   /* borrowed until on_done */
    int64_t timeout_ms;         /* of the whole exchange; 0: none */
    /* Lines of a 2xx answer as they come, without the line end; borrowed until return. NULL: the
     * body is collected in reply.body. http_request_cancel may be called inside. */
    void (*on_line)(void *ctx, Str line);
    /* Once, at the end, unless canceled. err as above. The reply is freed after return; its body
     * may be taken (zero it). */
    void (*on_done)(void *ctx, int err, HttpReply *reply);
    void *ctx;
} HttpRequestOptions;

HttpClient *http_client_new(uv_loop_t *loop);
/* Cancels what is under way. The loop must run once more before it can be closed. Accepts NULL. */
void http_client_free(HttpClient *c);

/* Never calls back before it returns. The request frees itself after on_done or a cancel. */
HttpRequest *http_client_start(HttpClient *c, const HttpRequestOptions *o);
void http_request_cancel(HttpRequest *r); /* on_done will not be called; accepts NULL */

#endif
