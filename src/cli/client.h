/* client.h: talking to a server: where it is, with which key, and what its answers mean. */
#ifndef CLI_CLIENT_H
#define CLI_CLIENT_H

#include <yyjson.h>

#include "cli/cli.h"
#include "io/http_client.h"

typedef struct {
    char *url;           /* "http://127.0.0.1:8700", no slash at the end */
    bool given;          /* by option or environment: not guessed */
    char *authorization; /* "Authorization: Bearer …", or NULL */
    bool json;           /* --json */
} Client;

int client_open(const Args *a, Client *ret); /* status, said */
void client_done(Client *c);

typedef struct {
    const char *method, *path; /* path: "/v1/tasks" */
    const char *type;          /* of the body; NULL: application/json when there is one */
    const char *header;        /* one more, or NULL */
    Str body;
    int64_t timeout_ms; /* 0: 30 s */
    int tries;          /* 0: once. More: again when nothing answers or with 503 */
} Call;

/* Calls; an answer 2xx is CLI_OK and lies in *ret. Else it is said on stderr and returned. ret is
 * to be freed with http_reply_done in any case. */
int client_call(const Client *c, const Call *call, HttpReply *ret);
/* What a failed exchange means: says it and returns the status. err: of http_*. */
int client_explain(const Client *c, int err, const HttpReply *r);
/* NULL-ended list of headers with the key; extra may be NULL. Room for 3. */
void client_headers(const Client *c, const char *extra, const char *ret[4]);
/* "/v1/tasks/" + id, escaped. The id is checked for nothing else. */
void put_path(Buf *b, const char *prefix, const char *id, const char *suffix);

/* ---- answers ---- */

/* An output may hold numbers that fit no C type, such as 1e999: they stay text. */
#define ANSWER_FLAGS YYJSON_READ_BIGNUM_AS_RAW

/* Parses; NULL: said, and *ret_status is CLI_SERVER. Free with yyjson_doc_free. */
yyjson_doc *reply_json(const Client *c, const HttpReply *r, int *ret_status);
Str json_text(yyjson_val *object, const char *key); /* "" when it is no text */
int64_t json_int(yyjson_val *object, const char *key, int64_t otherwise);
/* --json: the answer as it is; indented and cleaned on a terminal. */
void print_json(Str json);
void print_value(yyjson_val *v); /* the same, of a part */
/* A call whose answer is printed as it is with --json. Otherwise show(root) prints it. */
int client_show(const Args *a, const Call *call, int (*show)(const Client *c, yyjson_val *root));

/* A command that does one thing to each thing that its words name: method prefix WORD suffix.
 * Without --json what was done is printed behind the word. It goes on behind one that is refused,
 * not without a server. Returns the worst status. */
typedef struct {
    const char *method, *prefix, *suffix, *done;
} Order;
int client_order(const Args *a, const Order *o);

/* ---- tasks (task_view.c) ---- */

void task_print(yyjson_val *task); /* everything, for people */
Tone task_tone(Str status);
bool task_is_terminal(Str status);
/* "4.2 s", from the metrics or the times; nothing when it has not begun. */
void put_task_took(Buf *b, yyjson_val *task, int64_t now_ns);
/* What is left to do when a task that was waited for has ended: error text, output to stdout or to
 * file (NULL: stdout). Returns the status by the task's. */
int task_deliver(const Client *c, yyjson_val *task, const char *file);

/* POST /v1/files of a local file; ret_json: the answer. Status, said. In files.c. */
int upload_file(const Client *c, const char *path, Buf *ret_json);

/* ---- waiting (watch.c) ---- */

typedef struct {
    const char *id;
    const char *label;  /* before the progress, or NULL */
    int64_t timeout_ms; /* 0: for ever */
} Watch;
/* Follows a task until it has ended; ret: its JSON. Status, said. */
int task_follow(const Client *c, const Watch *w, Buf *ret);

/* ---- pictures (picture.c) ---- */

typedef enum { PICTURE_AUTO, PICTURE_24BIT, PICTURE_256, PICTURE_ASCII } PictureColours;
/* Draws a PNG file for a terminal of this size. ERR_NOT_FOUND, ERR_INVALID (no PNG), ERR_LIMIT
 * (over 64 megapixels), with why. */
int picture_put(const char *path, PictureColours colours, int width, int height, Buf *ret,
                Buf *why) HR_MUST_CHECK;
bool picture_is_png(const char *path);

#endif
