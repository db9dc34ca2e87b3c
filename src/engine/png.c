#include "engine/png.h"

#include <png.h>
#include <setjmp.h>

static void put(png_structp png, png_bytep data, size_t n)
{
    buf_put(png_get_io_ptr(png), data, n);
}

static void flush(png_structp png)
{
    (void)png;
}

static void warned(png_structp png, png_const_charp message)
{
    (void)png, (void)message;
}

int png_put(const uint8_t *rgb, uint32_t width, uint32_t height, Buf *ret)
{
    size_t before = ret->len;
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, warned);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (!info || setjmp(png_jmpbuf(png))) {
        png_destroy_write_struct(&png, &info);
        ret->len = before;
        return ERR_NOMEM;
    }
    png_set_write_fn(png, ret, put, flush);
    png_set_IHDR(png, info, width, height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    for (uint32_t y = 0; y < height; y++) png_write_row(png, rgb + (size_t)y * width * 3);
    png_write_end(png, NULL);
    png_destroy_write_struct(&png, &info);
    return 0;
}
