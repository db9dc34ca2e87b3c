/* Any bytes as a picture that a model has made, drawn for a terminal. */
#include "cli/client.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* main.c's, which a test does not have. */
const Command *const commands[] = {NULL};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    char path[64];
    /* Large ones take seconds, and no other way. */
    if (size > 64 * KIB || (size > 24 && (data[16] | data[17] | data[20] | data[21]))) return 0;
    if (size > 24 && (data[18] << 8 | data[19]) * (size_t)(data[22] << 8 | data[23]) > 1 << 18)
        return 0;
    if (fd < 0) fd = memfd_create("picture", MFD_CLOEXEC);
    CHECK(fd >= 0 && ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    for (int colours = PICTURE_24BIT; colours <= PICTURE_ASCII; colours++) {
        Buf out = {0}, why = {0};
        int err = picture_put(path, (PictureColours)colours, 40, 20, &out, &why);
        CHECK((err != 0) == (why.len != 0) && (err != 0) == (out.len == 0));
        if (!err) CHECK(utf8_valid(out.data, out.len) && picture_is_png(path));
        buf_done(&out);
        buf_done(&why);
    }
    return 0;
}
