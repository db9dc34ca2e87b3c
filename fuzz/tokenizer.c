/* A model's list of words and a prompt, of any bytes: up to the first NUL the list, then the
 * prompt. A prompt becomes as many ids as the model wants, all of the list, or a reason. */
#include "engine/tokenizer.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TOKENS = 8 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    char path[64];
    if (size > 16 * KIB) return 0;
    if (fd < 0) fd = memfd_create("vocab", MFD_CLOEXEC);
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t n = nul ? (size_t)(nul - data) : size;
    CHECK(fd >= 0 && ftruncate(fd, 0) == 0 && pwrite(fd, data, n, 0) == (ssize_t)n);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    Tokenizer t;
    EngineError err = {0};
    if (tokenizer_open(path, TOKENS, &t, &err)) {
        CHECK(err.code == ENGINE_ERR_MODEL && err.message[0]);
        return 0;
    }
    int64_t ids[TOKENS];
    Str prompt = {nul ? (const char *)nul + 1 : "", nul ? size - n - 1 : 0};
    if (tokenizer_encode(&t, prompt, ids, &err) == 0) {
        CHECK(ids[0] == t.bos);
        for (size_t i = 0; i < TOKENS; i++) CHECK(ids[i] >= 0 && (size_t)ids[i] < t.len);
    } else {
        CHECK(err.code == ENGINE_ERR_BAD_INPUT && utf8_valid(err.message, strlen(err.message)));
    }
    tokenizer_done(&t);
    return 0;
}
