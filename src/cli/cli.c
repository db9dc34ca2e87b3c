/* The terminal, messages, and making text from elsewhere harmless. */
#include "cli/cli.h"

#include "io/clock.h"

#include <langinfo.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static Terminal the_terminal;

static bool colours_wanted(void)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return !(no && *no) && term && *term && strcmp(term, "dumb") != 0;
}

static int number_of(const char *text)
{
    uint64_t v = 0;
    return text && parse_u64(str_from(text), &v) == 0 && v < 10000 ? (int)v : 0;
}

void terminal_setup(void)
{
    Terminal *t = &the_terminal;
    struct winsize size = {0};
    setlocale(LC_CTYPE, "");
    t->utf8 = !strcmp(nl_langinfo(CODESET), "UTF-8");
    if (!t->utf8) setlocale(LC_CTYPE, "C.UTF-8"); /* for wcwidth */
    t->out_tty = isatty(STDOUT_FILENO);
    t->err_tty = isatty(STDERR_FILENO);
    t->out_colour = t->out_tty && colours_wanted();
    t->err_colour = t->err_tty && colours_wanted();
    if ((t->out_tty && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0) ||
        (t->err_tty && ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0)) {
        t->width = size.ws_col;
        t->height = size.ws_row;
    }
    bool any = t->out_tty || t->err_tty;
    if (any && t->width == 0) t->width = number_of(getenv("COLUMNS"));
    if (any && t->height == 0) t->height = number_of(getenv("LINES"));
    if (any && t->width == 0) t->width = 80;
    if (any && t->height == 0) t->height = 24;
}

const Terminal *terminal(void)
{
    return &the_terminal;
}

const char *tone_begin(bool coloured, Tone t)
{
    static const char *const codes[] = {"",         "\033[1m",  "\033[2m", "\033[31m",
                                        "\033[32m", "\033[33m", "\033[34m"};
    return coloured ? codes[t] : "";
}

const char *tone_end(bool coloured, Tone t)
{
    return coloured && t != TONE_PLAIN ? "\033[0m" : "";
}

int fail(int status, const char *fmt, ...)
{
    bool coloured = terminal()->err_colour;
    Buf text = {0}, clean = {0};
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(&text, fmt, ap);
    va_end(ap);
    put_clean(&clean, buf_str(&text), false);
    fprintf(stderr, "%serror:%s %s\n", tone_begin(coloured, TONE_RED), tone_end(coloured, TONE_RED),
            buf_z(&clean));
    buf_done(&text);
    buf_done(&clean);
    return status;
}

void hint(const char *fmt, ...)
{
    bool coloured = terminal()->err_colour;
    Buf text = {0}, clean = {0};
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(&text, fmt, ap);
    va_end(ap);
    put_clean(&clean, buf_str(&text), false);
    fprintf(stderr, "%s%s%s\n", tone_begin(coloured, TONE_DIM), buf_z(&clean),
            tone_end(coloured, TONE_DIM));
    buf_done(&text);
    buf_done(&clean);
}

/* One character of valid UTF-8 at p; its length, or 0 when it is invalid. */
static size_t utf8_at(const uint8_t *p, size_t n, uint32_t *ret)
{
    size_t len = p[0] < 0x80 ? 1 : p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (len > n || !utf8_valid(p, len)) return 0;
    uint32_t c = len == 1 ? p[0] : p[0] & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) c = c << 6 | (p[i] & 0x3fu);
    *ret = c;
    return len;
}

static bool is_harmful(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) ||                          /* C0, DEL, C1 */
           (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || /* direction */
           c == 0x2028 || c == 0x2029 || c == 0xfeff;
}

void put_clean(Buf *b, Str s, bool lines)
{
    const uint8_t *p = (const uint8_t *)s.p;
    size_t n = s.n;
    while (n > 0) {
        uint32_t c = 0;
        size_t len = utf8_at(p, n, &c);
        if (len && lines && (c == '\n' || c == '\t'))
            buf_putc(b, (char)c);
        else if (len && !lines && (c == '\n' || c == '\t'))
            buf_putc(b, ' ');
        else if (!len || is_harmful(c))
            buf_puts(b, "\xef\xbf\xbd"); /* U+FFFD */
        else
            buf_put(b, p, len);
        p += MAX(len, 1);
        n -= MAX(len, 1);
    }
}

void put_age(Buf *b, int64_t ns)
{
    int64_t s = MAX(ns, 0) / NS_PER_S;
    if (s < 60)
        buf_printf(b, "%lld s", (long long)s);
    else if (s < 3600)
        buf_printf(b, "%lld min", (long long)(s / 60));
    else if (s < 86400 * 2)
        buf_printf(b, "%lld h", (long long)(s / 3600));
    else
        buf_printf(b, "%lld d", (long long)(s / 86400));
}

int64_t wall_now_ns(void)
{
    return clock_real.wall_ns(&clock_real);
}

int64_t boot_now_ns(void)
{
    return clock_real.boot_ns(&clock_real);
}

void out_buf(const Buf *b)
{
    if (b->len) fwrite(b->data, 1, b->len, stdout);
}
