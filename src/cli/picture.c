/* A PNG in a terminal: two pixels a character cell, the upper one as the colour of "▀", the lower
 * one as its background. */
#include "cli/client.h"

#include <png.h>
#include <stdlib.h>
#include <string.h>

#define PIXELS_MAX       67108864.0
#define UPSCALED_COLUMNS 64 /* small pictures grow to about this width */

typedef struct {
    int width, height;
    uint8_t *rgb; /* owned */
} Pixels;

bool picture_is_png(const char *path)
{
    uint8_t head[8] = {0};
    FILE *f = fopen(path, "rbe");
    bool ok = f && fread(head, 1, 8, f) == 8 && !png_sig_cmp(head, 0, 8);
    if (f) fclose(f);
    return ok;
}

static int load(const char *path, Pixels *ret, Buf *why)
{
    png_image image = {.version = PNG_IMAGE_VERSION};
    png_color white = {255, 255, 255};
    if (!png_image_begin_read_from_file(&image, path)) {
        buf_printf(why, "%s: %s", path, image.message);
        return picture_is_png(path) ? ERR_INVALID : ERR_NOT_FOUND;
    }
    if ((double)image.width * image.height > PIXELS_MAX) {
        buf_printf(why, "%s: %u × %u pixels are too many", path, image.width, image.height);
        png_image_free(&image);
        return ERR_LIMIT;
    }
    image.format = PNG_FORMAT_RGB;
    uint8_t *rgb = mem_new(PNG_IMAGE_SIZE(image));
    if (!png_image_finish_read(&image, &white, rgb, 0, NULL)) {
        buf_printf(why, "%s: %s", path, image.message);
        mem_free(rgb);
        return ERR_INVALID;
    }
    *ret = (Pixels){(int)image.width, (int)image.height, rgb};
    return 0;
}

/* The mean of the source pixels that a target pixel covers: a box filter. */
static void mean_of(const Pixels *p, int x0, int x1, int y0, int y1, uint8_t *ret)
{
    uint64_t sum[3] = {0}, n = 0;
    for (int y = y0; y < MAX(y1, y0 + 1); y++)
        for (int x = x0; x < MAX(x1, x0 + 1); x++, n++)
            for (int c = 0; c < 3; c++)
                sum[c] += p->rgb[((size_t)y * (size_t)p->width + (size_t)x) * 3 + (size_t)c];
    for (int c = 0; c < 3; c++) ret[c] = (uint8_t)(sum[c] / n);
}

static Pixels scaled(const Pixels *p, int width, int height)
{
    Pixels to = {width, height, mem_new((size_t)width * (size_t)height * 3)};
    uint8_t *at = to.rgb;
    for (int64_t y = 0; y < height; y++)
        for (int64_t x = 0; x < width; x++, at += 3)
            mean_of(p, (int)(x * p->width / width), (int)((x + 1) * p->width / width),
                    (int)(y * p->height / height), (int)((y + 1) * p->height / height), at);
    return to;
}

/* The size at which it fits: grown by whole factors when small, shrunk evenly when large. */
static Pixels fitted(const Pixels *p, int columns, int rows)
{
    int room_x = MAX(columns, 8), room_y = MAX(rows, 4) * 2;
    int grow = MIN(MIN(room_x, UPSCALED_COLUMNS) / p->width, room_y / p->height);
    if (grow >= 1) return scaled(p, p->width * grow, p->height * grow);
    if (p->width <= room_x && p->height <= room_y) return scaled(p, p->width, p->height);
    double by = MIN((double)room_x / p->width, (double)room_y / p->height);
    return scaled(p, MAX((int)(p->width * by), 1), MAX((int)(p->height * by), 1));
}

/* xterm's palette: a cube of 6 × 6 × 6 from 16, then 24 greys. */
static int palette_of(const uint8_t *c)
{
    static const int levels[] = {0, 95, 135, 175, 215, 255};
    int at[3], cube = 0, cube_error = 0, grey = (c[0] + c[1] + c[2]) / 3, grey_error = 0;
    for (int i = 0; i < 3; i++) {
        at[i] = 0;
        for (int k = 1; k < 6; k++)
            if (abs(levels[k] - c[i]) < abs(levels[at[i]] - c[i])) at[i] = k;
        cube = cube * 6 + at[i];
        cube_error += (levels[at[i]] - c[i]) * (levels[at[i]] - c[i]);
    }
    int shade = MIN(MAX((grey - 3) / 10, 0), 23);
    for (int i = 0; i < 3; i++) grey_error += (8 + shade * 10 - c[i]) * (8 + shade * 10 - c[i]);
    return grey_error < cube_error ? 232 + shade : 16 + cube;
}

static void put_colour(Buf *b, bool back, const uint8_t *c, PictureColours colours)
{
    if (colours == PICTURE_24BIT)
        buf_printf(b, "\033[%d;2;%d;%d;%dm", back ? 48 : 38, c[0], c[1], c[2]);
    else
        buf_printf(b, "\033[%d;5;%dm", back ? 48 : 38, palette_of(c));
}

static void put_cells(const Pixels *p, PictureColours colours, Buf *b)
{
    static const uint8_t white[3] = {255, 255, 255};
    for (int y = 0; y < p->height; y += 2) {
        const uint8_t *top = p->rgb + (size_t)y * (size_t)p->width * 3, *fore = NULL, *back = NULL;
        for (int x = 0; x < p->width; x++, top += 3) {
            const uint8_t *low = y + 1 < p->height ? top + (size_t)p->width * 3 : white;
            if (!fore || memcmp(fore, top, 3) != 0) put_colour(b, false, top, colours);
            if (!back || memcmp(back, low, 3) != 0) put_colour(b, true, low, colours);
            buf_puts(b, "▀");
            fore = top;
            back = low;
        }
        buf_puts(b, "\033[0m\n");
    }
}

static void put_letters(const Pixels *p, Buf *b)
{
    static const char ramp[] = "@%#*+=-:. "; /* dark to light, on a light page */
    for (int y = 0; y < p->height; y += 2) {
        for (int x = 0; x < p->width; x++) {
            const uint8_t *c = p->rgb + ((size_t)y * (size_t)p->width + (size_t)x) * 3;
            int light = (c[0] * 30 + c[1] * 59 + c[2] * 11) / 100;
            buf_putc(b, ramp[light * ((int)sizeof ramp - 2) / 255]);
        }
        buf_putc(b, '\n');
    }
}

static PictureColours best_colours(void)
{
    const char *deep = getenv("COLORTERM"), *term = getenv("TERM");
    if (!terminal()->out_colour || !terminal()->utf8) return PICTURE_ASCII;
    if (deep && (!strcmp(deep, "truecolor") || !strcmp(deep, "24bit"))) return PICTURE_24BIT;
    if (term && strstr(term, "direct")) return PICTURE_24BIT;
    return PICTURE_256;
}

int picture_put(const char *path, PictureColours colours, int width, int height, Buf *ret, Buf *why)
{
    Pixels whole = {0};
    int err = load(path, &whole, why);
    if (err) return err;
    if (colours == PICTURE_AUTO) colours = best_colours();
    /* Two lines stay free: the prompt, and what is said about the picture. */
    Pixels p = fitted(&whole, width > 0 ? width : 80, height > 0 ? height - 2 : 40);
    if (colours == PICTURE_ASCII)
        put_letters(&p, ret);
    else
        put_cells(&p, colours, ret);
    mem_free(whole.rgb);
    mem_free(p.rgb);
    return 0;
}
