/* Tables for people: aligned by what a terminal shows, cut to its width. */
#include "cli/cli.h"

#include <string.h>
#include <wchar.h>

typedef struct GridCell {
    char *text; /* owned, clean */
    size_t width;
    Tone tone;
} GridCell;

#define GAP      2
#define FLEX_MIN 8 /* a column that is cut keeps so much */

/* Bytes of the clean UTF-8 character at p, and its columns. */
static size_t glyph(const char *p, size_t n, size_t *ret_width)
{
    unsigned char first = (unsigned char)*p;
    size_t len = first < 0x80 ? 1 : first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    wchar_t c = 0;
    len = MIN(len, n);
    mbstate_t state = {0};
    size_t got = mbrtowc(&c, p, len, &state);
    int width = got == len ? wcwidth(c) : 1;
    *ret_width = width < 0 ? 1 : (size_t)width;
    return len;
}

size_t text_width(Str s)
{
    size_t sum = 0, width = 0;
    for (size_t i = 0; i < s.n; sum += width) i += glyph(s.p + i, s.n - i, &width);
    return sum;
}

void grid_init(Grid *g, const GridColumn *columns, size_t columns_len)
{
    CHECK(columns_len > 0 && columns_len <= GRID_COLUMNS_MAX);
    *g = (Grid){.columns = columns, .columns_len = columns_len};
}

void grid_done(Grid *g)
{
    for (size_t i = 0; i < g->cells_len; i++) mem_free(g->cells[i].text);
    mem_free(g->cells);
    *g = (Grid){0};
}

void grid_cell(Grid *g, Tone tone, Str text)
{
    if (g->cells_len == g->cells_cap) {
        g->cells_cap = g->cells_cap * 2 + 64;
        g->cells = mem_grow(g->cells, g->cells_cap * sizeof *g->cells);
    }
    Buf clean = {0};
    put_clean(&clean, text, false);
    g->cells[g->cells_len++] = (GridCell){mem_dup(buf_z(&clean), clean.len),
                                          text_width(buf_str(&clean)), tone};
    buf_done(&clean);
}

void grid_cellf(Grid *g, Tone tone, const char *fmt, ...)
{
    Buf text = {0};
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(&text, fmt, ap);
    va_end(ap);
    grid_cell(g, tone, buf_str(&text));
    buf_done(&text);
}

/* A column without anything in it is left out, unless there are no rows at all. */
static bool is_hidden(const Grid *g, size_t column)
{
    for (size_t i = column; i < g->cells_len; i += g->columns_len)
        if (g->cells[i].width) return false;
    return g->cells_len > 0;
}

static void measure(const Grid *g, int width, size_t ret[GRID_COLUMNS_MAX])
{
    size_t sum = 0;
    for (size_t c = 0; c < g->columns_len; c++) {
        ret[c] = 0;
        if (is_hidden(g, c)) continue;
        ret[c] = strlen(g->columns[c].title);
        for (size_t i = c; i < g->cells_len; i += g->columns_len)
            ret[c] = MAX(ret[c], g->cells[i].width);
        sum += ret[c] + (c ? GAP : 0);
    }
    while (width > 0 && sum > (size_t)width) { /* cut the widest of the flexible ones */
        size_t widest = SIZE_MAX;
        for (size_t c = 0; c < g->columns_len; c++)
            if (g->columns[c].flex && ret[c] > FLEX_MIN &&
                (widest == SIZE_MAX || ret[c] > ret[widest]))
                widest = c;
        if (widest == SIZE_MAX) break;
        ret[widest]--;
        sum--;
    }
}

static void put_spaces(Buf *b, size_t n)
{
    while (n-- > 0) buf_putc(b, ' ');
}

/* Cut to `room` columns, the last of them being "…". */
static size_t put_cut(Buf *b, const char *text, size_t room)
{
    size_t n = strlen(text), used = 0, width = 0;
    for (size_t i = 0; i < n;) {
        size_t len = glyph(text + i, n - i, &width);
        if (used + width > room - 1) break;
        buf_put(b, text + i, len);
        used += width;
        i += len;
    }
    buf_puts(b, "…");
    return used + 1;
}

static void put_text(Buf *b, const char *text, size_t width, size_t room, bool right, bool last,
                     bool coloured, Tone tone)
{
    if (right && width < room) put_spaces(b, room - width);
    buf_puts(b, tone_begin(coloured, tone));
    if (width <= room)
        buf_puts(b, text);
    else
        width = put_cut(b, text, room);
    buf_puts(b, tone_end(coloured, tone));
    if (!right && !last && width < room) put_spaces(b, room - width);
}

void grid_put(const Grid *g, int width, bool coloured, Buf *ret)
{
    size_t room[GRID_COLUMNS_MAX];
    CHECK(g->columns_len > 0);
    measure(g, width, room);
    for (size_t c = 0; c < g->columns_len; c++) {
        const GridColumn *col = &g->columns[c];
        if (!room[c]) continue;
        if (c) put_spaces(ret, GAP);
        put_text(ret, col->title, strlen(col->title), room[c], col->right, c + 1 == g->columns_len,
                 coloured, TONE_DIM);
    }
    buf_putc(ret, '\n');
    for (size_t i = 0; i < g->cells_len; i++) {
        size_t c = i % g->columns_len;
        const GridCell *cell = &g->cells[i];
        if (room[c] && c) put_spaces(ret, GAP);
        if (room[c])
            put_text(ret, cell->text, cell->width, room[c], g->columns[c].right,
                     c + 1 == g->columns_len, coloured, cell->tone);
        if (c + 1 == g->columns_len) {
            while (ret->len && ret->data[ret->len - 1] == ' ') ret->len--;
            buf_putc(ret, '\n');
        }
    }
}

void grid_print(const Grid *g)
{
    Buf b = {0};
    const Terminal *t = terminal();
    grid_put(g, t->out_tty ? t->width : 0, t->out_colour, &b);
    out_buf(&b);
    buf_done(&b);
}
