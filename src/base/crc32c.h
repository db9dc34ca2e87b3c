/* crc32c.h: CRC-32C (Castagnoli, RFC 3720), with the processor's instruction where there is one. */
#ifndef BASE_CRC32C_H
#define BASE_CRC32C_H

#include "base/types.h"

/* crc of data appended to what `crc` covers; start with 0. */
uint32_t crc32c(uint32_t crc, const void *data, size_t len);

#endif
