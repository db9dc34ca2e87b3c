/* message.h: what the server says on the stream, and how it answers. Pure: bytes -> structs. */
#ifndef WORKER_MESSAGE_H
#define WORKER_MESSAGE_H

#include "worker/held.h"

typedef enum {
    MESSAGE_LEASE,
    MESSAGE_CANCEL,
    MESSAGE_LOAD,
    MESSAGE_UNLOAD,
    MESSAGE_DRAIN,
    MESSAGE_PING,
    MESSAGE_UNKNOWN, /* of a newer server: to be ignored */
} MessageKind;

typedef struct {
    MessageKind kind;
    LeaseBatch *lease;            /* LEASE: owned by whoever takes it; message_done frees it */
    uint64_t token;               /* CANCEL */
    uint64_t ping;                /* PING */
    uint32_t device;              /* LOAD, UNLOAD */
    char why[32];                 /* CANCEL */
    char model[129], version[32]; /* LOAD, UNLOAD */
    bool exit;                    /* DRAIN */
} Message;

#define LEASE_TASKS_MAX                                                                            \
    4096 /* in one line: the largest batch is 256, so a line over it is a fault */

/* One line. now_ns: what deadlines count from. ERR_INVALID: `why` gets the reason. Inputs keep the
 * exact text of their numbers. */
int message_parse(Str line, int64_t now_ns, Message *ret, Buf *why) HR_MUST_CHECK;
void message_done(Message *m);

typedef struct {
    char worker[64];
    uint32_t lease_s, ping_s;
    uint64_t *stale; /* owned */
    size_t stale_len;
    Buf refused; /* lines for people; owned */
} Welcome;

int welcome_parse(Str body, Welcome *ret, Buf *why) HR_MUST_CHECK; /* ERR_INVALID */
void welcome_done(Welcome *w);

typedef enum { ANSWER_ACCEPTED, ANSWER_DUPLICATE, ANSWER_FENCED, ANSWER_INVALID } Answer;

/* One line of the answer to a report. detail (of ANSWER_INVALID) is appended to ret_detail. */
int answer_parse(Str line, Answer *ret, Buf *ret_detail) HR_MUST_CHECK; /* ERR_INVALID */

/* The `detail` (or `title`) of a problem document, or the beginning of what it is: for people. */
void problem_text(Str body, Buf *ret);

/* The file that {"$file": "file_…"} as a whole stands for: appended to ret_id. false: it is
 * something else. */
bool input_is_file(Str json, Buf *ret_id);

#endif
