/* Progress of one task on stderr: on a terminal one line that is redrawn, elsewhere a line a
 * change. */
#include "cli/cli.h"

#include <string.h>

#define BAR_MAX 40

void progress_init(Progress *p, const char *label, bool live, int64_t now_ns)
{
    *p = (Progress){.label = label, .live = live, .start_ns = now_ns, .ahead = -1};
    buf_puts(&p->status, "queued");
}

void progress_wipe(Progress *p)
{
    if (p->shown) fputs("\r\033[K", stderr);
    p->shown = false;
}

void progress_done(Progress *p)
{
    progress_wipe(p);
    fflush(stderr);
    buf_done(&p->last);
    buf_done(&p->status);
}

void progress_status(Progress *p, Str status)
{
    buf_clear(&p->status);
    put_clean(&p->status, status, false);
    if (!str_eqz(status, "queued")) p->ahead = -1;
    if (!str_eqz(status, "running")) p->step = p->steps = 0;
}

void progress_step(Progress *p, uint64_t step, uint64_t steps, int64_t now_ns)
{
    if (steps != p->steps || step < p->step) {
        p->step_first = step;
        p->step_start_ns = now_ns;
    }
    p->step = step;
    p->steps = steps;
}

static void put_bar(Buf *b, uint64_t step, uint64_t steps, int cells, bool utf8)
{
    static const char *const parts[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    double share = (double)MIN(step, steps) / (double)steps;
    int eighths = (int)(share * cells * 8);
    int done = 0;
    if (!utf8) buf_putc(b, '[');
    for (; done < eighths / 8; done++) buf_puts(b, utf8 ? "█" : "#");
    if (utf8 && eighths % 8 && done < cells) {
        buf_puts(b, parts[eighths % 8]);
        done++;
    }
    for (; done < cells; done++) buf_puts(b, utf8 ? "·" : ".");
    if (!utf8) buf_putc(b, ']');
}

static void put_left(const Progress *p, int64_t now_ns, Buf *b)
{
    uint64_t done = p->step - p->step_first;
    if (done < 2 || p->step >= p->steps) return;
    int64_t left = (now_ns - p->step_start_ns) / (int64_t)done * (int64_t)(p->steps - p->step);
    buf_puts(b, ", ");
    put_age(b, left + NS_PER_S / 2);
    buf_puts(b, " left");
}

void progress_put(const Progress *p, int64_t now_ns, int width, bool utf8, Buf *b)
{
    static const char *const wheel[] = {"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"};
    bool stepping = p->steps > 1 && !p->note;
    if (p->label) buf_printf(b, "%s ", p->label);
    if (p->live && !stepping)
        buf_printf(b, "%s ",
                   utf8 ? wheel[p->tick % ARRAY_LEN(wheel)]
                        : (const char *[]){"|", "/", "-", "\\"}[p->tick % 4]);
    if (stepping && p->live) {
        int cells = MIN(BAR_MAX, width - 40);
        if (cells >= 5) {
            put_bar(b, p->step, p->steps, cells, utf8);
            buf_putc(b, ' ');
        }
        buf_printf(b, "step %llu/%llu", (unsigned long long)p->step, (unsigned long long)p->steps);
    } else if (p->note) {
        buf_puts(b, p->note);
    } else {
        buf_put_str(b, buf_str(&p->status));
        if (stepping)
            buf_printf(b, ", step %llu/%llu", (unsigned long long)p->step,
                       (unsigned long long)p->steps);
        if (p->ahead > 0) buf_printf(b, ", %lld ahead", (long long)p->ahead);
        if (p->ahead == 0) buf_puts(b, ", next");
    }
    if (!p->live) return;
    buf_puts(b, "  ");
    buf_put_duration(b, now_ns - p->start_ns);
    if (stepping) put_left(p, now_ns, b);
}

/* Elsewhere than on a terminal only every tenth of the steps is news. */
static bool is_news(Progress *p, Buf *line)
{
    Buf now = {0};
    uint64_t tenth = p->steps ? p->step * 10 / p->steps : 0;
    if (p->note)
        buf_puts(&now, p->note);
    else
        buf_printf(&now, "%.*s %lld %llu %llu", STR_ARG(buf_str(&p->status)), (long long)p->ahead,
                   (unsigned long long)tenth, (unsigned long long)p->steps);
    bool news = !str_eq(buf_str(&now), buf_str(&p->last)) && line->len;
    if (news) {
        buf_clear(&p->last);
        buf_put_str(&p->last, buf_str(&now));
    }
    buf_done(&now);
    return news;
}

void progress_show(Progress *p, int64_t now_ns)
{
    Buf line = {0};
    const Terminal *t = terminal();
    progress_put(p, now_ns, t->width, t->utf8, &line);
    if (p->live) {
        progress_wipe(p);
        if (text_width(buf_str(&line)) < (size_t)MAX(t->width, 20)) {
            fprintf(stderr, "%s", buf_z(&line));
            p->shown = true;
        }
        p->tick++;
    } else if (is_news(p, &line)) {
        fprintf(stderr, "%s\n", buf_z(&line));
    }
    fflush(stderr);
    buf_done(&line);
}
