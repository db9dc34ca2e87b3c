/* model.yaml from any bytes: it is read or refused with lines of text, and nothing leaks. */
#include "engine/model_yaml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ModelYaml y;
    Buf problems = {0};
    Str text = {size ? (const char *)data : "", size};
    int err = model_yaml_parse("m/model.yaml", text, &y, &problems);
    CHECK((err != 0) == (problems.len > 0));
    CHECK(problems.len == 0 || problems.data[problems.len - 1] == '\n');
    if (!err) model_yaml_done(&y);
    buf_done(&problems);
    return 0;
}
