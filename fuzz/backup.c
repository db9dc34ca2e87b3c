/* Any bytes as a backup that is only checked: whole or refused with a reason, alike in pieces of
 * any size. */
#include "node/restore.h"

#include <string.h>

#include "node/backup.h"
#include "wire/tar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run(Str s, size_t piece, uint64_t *files)
{
    Buf why = {0};
    BackupReader *r = backup_reader_new(-1);
    int err = 0;
    for (size_t at = 0; at < s.n && !err; at += piece)
        err = backup_reader_feed(r, (Str){s.p + at, MIN(piece, s.n - at)}, &why);
    if (!err) err = backup_reader_end(r, &why);
    CHECK((err != 0) == (why.len != 0));
    CHECK(err == 0 || err == ERR_INVALID || err == ERR_UNSUPPORTED);
    *files = backup_reader_files(r);
    backup_reader_free(r);
    buf_done(&why);
    return err;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 256 * KIB) return 0;
    Str s = {(const char *)data, size};
    uint64_t files, again;
    int err = run(s, size, &files);
    CHECK(run(s, 300, &again) == err && (err || again == files));
    return 0;
}
