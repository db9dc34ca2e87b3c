/* A worker's reports, many lines in one body: each is answered by one line, whatever it holds. */
#include "no_sockets.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 1 * MIB) return 0;
    bare_call("/v1/worker/{id}/reports", data, size);
    bare_call("/v1/worker/register", data, 0);
    return 0;
}
