#include "gateway/multipart.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static int fail(Multipart *m, const char *why)
{
    snprintf(m->why, sizeof m->why, "%s", why);
    return ERR_INVALID;
}

/* The value of a parameter: `; name=token` or `; name="text"`. False: it is not there, or
 * malformed. */
static bool parameter(Str header, const char *name, char *ret, size_t room)
{
    const char *p = header.p, *end = p + header.n;
    size_t want = strlen(name);
    while (p < end && *p != ';') p++;
    while (p < end) {
        p++; /* the ';' */
        while (p < end && (*p == ' ' || *p == '\t')) p++;
        const char *key = p;
        while (p < end && *p != '=' && *p != ';') p++;
        if (p == end || *p == ';') continue;
        bool found = (size_t)(p - key) == want && strncasecmp(key, name, want) == 0;
        size_t n = 0;
        p++;
        if (p < end && *p == '"') {
            for (p++; p < end && *p != '"'; p++) {
                /* Browsers send a Windows path's backslashes as they are: only \" and \\ are
                 * escapes. */
                if (*p == '\\' && p + 1 < end && (p[1] == '"' || p[1] == '\\')) p++;
                if (found && n + 1 < room) ret[n++] = *p;
            }
            if (p == end) return false;
            p++;
        } else {
            for (; p < end && *p != ';' && *p != ' '; p++)
                if (found && n + 1 < room) ret[n++] = *p;
        }
        if (found) {
            ret[n] = 0;
            return true;
        }
        while (p < end && *p != ';') p++;
    }
    return false;
}

int multipart_init(Multipart *m, Str content_type)
{
    char boundary[72];
    memset(m, 0, sizeof *m);
    if (!parameter(content_type, "boundary", boundary, sizeof boundary) || !boundary[0] ||
        strlen(boundary) > 70)
        return fail(m,
                    "the Content-Type multipart/form-data needs a boundary of 1 to 70 characters");
    for (const char *p = boundary; *p; p++)
        if (*p < 0x20 || *p > 0x7E)
            return fail(m, "the multipart boundary holds a character that is not allowed");
    m->delimiter_len = (size_t)snprintf(m->delimiter, sizeof m->delimiter, "\r\n--%s", boundary);
    buf_puts(&m->hold, "\r\n"); /* so that the first delimiter looks like all others */
    return 0;
}

void multipart_done(Multipart *m)
{
    buf_done(&m->hold);
}

void file_name_clean(Str s, char ret[256])
{
    ret[0] = 0;
    for (size_t i = s.n; i > 0; i--) {
        if (s.p[i - 1] != '/' && s.p[i - 1] != '\\') continue;
        s.p += i;
        s.n -= i;
        break;
    }
    if (s.n > 255 || !utf8_valid(s.p, s.n) || str_eqz(s, ".") || str_eqz(s, "..")) return;
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7F) return;
    memcpy(ret, s.p, s.n);
    ret[s.n] = 0;
}

bool media_type_clean(Str s, char ret[128])
{
    if (!s.n) s = STR("application/octet-stream");
    if (s.n > 127 || !memchr(s.p, '/', s.n)) return false;
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < 0x20 || s.p[i] > 0x7E) return false;
    memcpy(ret, s.p, s.n);
    ret[s.n] = 0;
    return true;
}

static int part_head(Multipart *m, Str head)
{
    char name[64] = "", file[512] = "";
    Str type = {"", 0};
    bool form = false, named_file = false;
    while (head.n) {
        const char *end = memmem(head.p, head.n, "\r\n", 2);
        Str line = {head.p, end ? (size_t)(end - head.p) : head.n};
        size_t used = line.n + (end ? 2 : 0);
        head.p += used;
        head.n -= used;
        if (line.n > 20 && strncasecmp(line.p, "Content-Disposition:", 20) == 0) {
            Str value = {line.p + 20, line.n - 20};
            while (value.n && *value.p == ' ') {
                value.p++;
                value.n--;
            }
            form = value.n >= 9 && strncasecmp(value.p, "form-data", 9) == 0;
            (void)parameter(value, "name", name, sizeof name);
            named_file = parameter(value, "filename", file, sizeof file);
        } else if (line.n > 13 && strncasecmp(line.p, "Content-Type:", 13) == 0) {
            type = (Str){line.p + 13, line.n - 13};
            while (type.n && (*type.p == ' ' || *type.p == '\t')) {
                type.p++;
                type.n--;
            }
        }
    }
    if (!form) return fail(m, "a part of the form has no Content-Disposition: form-data");
    if (!named_file && strcmp(name, "file") != 0) {
        snprintf(m->why, sizeof m->why,
                 "unknown form field \"%.40s\"; send one part with a filename", name);
        return ERR_INVALID;
    }
    if (m->has_file)
        return fail(m, "the form holds more than one file; upload each with its own request");
    m->has_file = true;
    file_name_clean(str_from(file), m->name);
    if (!media_type_clean(type, m->type))
        return fail(m, "the file's Content-Type is not a media type");
    m->state = MULTIPART_BODY;
    return 0;
}

/* One move forward; false: more bytes are needed. */
static bool step(Multipart *m, int *err)
{
    Buf *h = &m->hold;
    const char *p = (char *)h->data;
    const char *found;
    size_t n;
    switch (m->state) {
    case MULTIPART_FIRST:
        if (h->len < m->delimiter_len) return false;
        if (memcmp(p, m->delimiter, m->delimiter_len) != 0) {
            *err = fail(m, "the multipart body does not begin with its boundary");
            return false;
        }
        buf_drop(h, m->delimiter_len);
        m->state = MULTIPART_AFTER;
        return true;
    case MULTIPART_AFTER:
        if (h->len < 2) return false;
        if (memcmp(p, "--", 2) == 0)
            m->state = MULTIPART_END;
        else if (memcmp(p, "\r\n", 2) == 0)
            m->state = MULTIPART_HEAD;
        else
            *err = fail(m, "a multipart boundary is followed by something else than a line break");
        buf_drop(h, 2);
        return *err == 0;
    case MULTIPART_HEAD:
        found = memmem(p, h->len, "\r\n\r\n", 4);
        n = found ? (size_t)(found - p) : h->len;
        if (n > MULTIPART_HEAD_MAX) *err = fail(m, "the head of a part is larger than 8 KiB");
        if (!found || *err) return false;
        *err = part_head(m, (Str){p, n});
        buf_drop(h, n + 4);
        return *err == 0;
    case MULTIPART_BODY:
        found = memmem(p, h->len, m->delimiter, m->delimiter_len);
        n = found                        ? (size_t)(found - p)
            : h->len >= m->delimiter_len ? h->len - (m->delimiter_len - 1)
                                         : 0;
        if (n) m->data(m->ctx, (Str){p, n});
        buf_drop(h, n + (found ? m->delimiter_len : 0));
        if (found) m->state = MULTIPART_AFTER;
        return found != NULL;
    case MULTIPART_END:
        buf_clear(h); /* an epilogue means nothing */
        return false;
    }
    return false;
}

int multipart_feed(Multipart *m, Str piece)
{
    int err = 0;
    buf_put_str(&m->hold, piece);
    while (step(m, &err)) {
    }
    return err;
}

bool multipart_whole(const Multipart *m)
{
    return m->state == MULTIPART_END && m->has_file;
}
