/* multipart.h: one file out of a multipart/form-data body (RFC 7578), piece by piece. Pure. */
#ifndef GATEWAY_MULTIPART_H
#define GATEWAY_MULTIPART_H

#include "base/base.h"

#define MULTIPART_HEAD_MAX (8 * KIB)

typedef struct {
    char delimiter[80]; /* CR LF "--" boundary */
    size_t delimiter_len;
    enum { MULTIPART_FIRST, MULTIPART_AFTER, MULTIPART_HEAD, MULTIPART_BODY, MULTIPART_END } state;
    Buf hold; /* bytes not yet understood: at most a part's head, or a piece and a delimiter */
    bool has_file;
    char name[256], type[128]; /* of the file, once has_file */
    void (*data)(void *ctx, Str piece);
    void *ctx;
    char why[200];
} Multipart;

/* content_type: the header's value. ERR_INVALID: no boundary (why says so). */
int multipart_init(Multipart *m, Str content_type) HR_MUST_CHECK;
void multipart_done(Multipart *m);
int multipart_feed(Multipart *m, Str piece) HR_MUST_CHECK; /* ERR_INVALID: why */
bool multipart_whole(const Multipart *m); /* the closing delimiter has come, and there was a file */

/* A file name without folders and control characters, valid UTF-8, at most 255 bytes; else "". */
void file_name_clean(Str s, char ret[256]);
/* A media type that is safe to say again in a header: false when it is not one. Empty:
 * application/octet-stream. */
bool media_type_clean(Str s, char ret[128]);

#endif
