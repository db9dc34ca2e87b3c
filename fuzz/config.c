/* Any bytes as a configuration: no crash, and a failure always says why. */
#include "node/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Config c;
    Buf why = {0};
    int err = config_parse((Str){(const char *)data, size}, "fuzz", "/nowhere", &c, &why);
    CHECK((err != 0) == (why.len != 0));
    if (err == 0) err = config_check(&c, &why);
    CHECK((err != 0) == (why.len != 0));
    config_done(&c);
    buf_done(&why);
    return 0;
}
