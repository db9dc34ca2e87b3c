/* png.h: pictures as PNG files. */
#ifndef ENGINE_PNG_H
#define ENGINE_PNG_H

#include "base/base.h"

/* Appends a picture of width × height pixels, 8-bit red, green, blue each, row by row. The same
 * pixels give the same bytes. ERR_NOMEM. */
int png_put(const uint8_t *rgb, uint32_t width, uint32_t height, Buf *ret) HR_MUST_CHECK;

#endif
