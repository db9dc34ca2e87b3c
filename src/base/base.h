/* base.h: the face of src/base: what every other folder may use. Pure: nothing here touches the
 * kernel (but for memory, and base/log_line.h, which writes to stderr). */
#ifndef BASE_BASE_H
#define BASE_BASE_H

#include "base/types.h"

#include "base/buf.h"
#include "base/crc32c.h"
#include "base/digest.h"
#include "base/heap.h"
#include "base/list.h"
#include "base/pool.h"
#include "base/log_line.h"
#include "base/random.h"
#include "base/table.h"
#include "base/text.h"

#endif
