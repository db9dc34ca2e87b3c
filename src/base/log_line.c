#include "base/log_line.h"

#include "base/buf.h"
#include "base/text.h"

#include <time.h>
#include <unistd.h>

static struct {
    SayLevel least;
    SayFormat format;
    const char *component;
} setup = {SAY_INFO, SAY_TEXT, "headrace"};

void say_setup(SayLevel least, SayFormat format, const char *component)
{
    setup.least = least;
    setup.format = format;
    setup.component = component;
}

static void put_json_text(Buf *b, Str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '"' || c == '\\')
            buf_printf(b, "\\%c", c);
        else if (c < 0x20)
            buf_printf(b, "\\u%04x", c);
        else
            buf_putc(b, (char)c);
    }
}

void say(SayLevel level, const char *fmt, ...)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    if (level < setup.least) return;
    Buf text = {0}, line = {0};
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(&text, fmt, ap);
    va_end(ap);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t ns = (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
    if (setup.format == SAY_JSON) {
        buf_puts(&line, "{\"time\":\"");
        buf_put_time(&line, ns);
        buf_printf(&line, "\",\"level\":\"%s\",\"component\":\"%s\",\"message\":\"", names[level],
                   setup.component);
        put_json_text(&line, buf_str(&text));
        buf_puts(&line, "\"}\n");
    } else {
        buf_put_time(&line, ns);
        buf_printf(&line, " %-5s %s: ", names[level], setup.component);
        for (size_t i = 0; i < text.len; i++) /* a model's words may hold anything */
            if ((text.data[i] < 0x20 && text.data[i] != '\n') || text.data[i] == 0x7f)
                text.data[i] = '?';
        buf_put_str(&line, buf_str(&text));
        buf_putc(&line, '\n');
    }
    /* One write a line: lines of several processes do not mix. Nothing can be done when stderr is
     * gone. */
    ssize_t ignored = write(STDERR_FILENO, line.data, line.len);
    (void)ignored;
    buf_done(&line);
    buf_done(&text);
}
