/* Numbers, times, sizes, ids and names of any bytes: what is read is written and read again the
 * same. */
#include "base/text.h"

#include <string.h>

#include "log/inside.h"
#include "node/config.h"
#include "task/task.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void numbers(Str s)
{
    uint64_t u;
    int64_t i;
    char z[32];
    if (parse_u64(s, &u) == 0) {
        uint64_t v = 0;
        for (size_t k = 0; k < s.n; k++) v = v * 10 + (uint64_t)(s.p[k] - '0');
        CHECK(s.n && v == u);
    }
    if (parse_i64(s, &i) == 0) {
        snprintf(z, sizeof z, "%lld", (long long)i);
        int64_t again;
        CHECK(parse_i64(str_from(z), &again) == 0 && again == i);
    }
}

static void times(Str s)
{
    int64_t ns, again, ms;
    uint64_t bytes;
    Buf b = {0};
    if (parse_time(s, &ns) == 0) {
        buf_put_time(&b, ns);
        CHECK(parse_time(buf_str(&b), &again) == 0);
        CHECK(again <= ns && ns - again < NS_PER_MS); /* it is written in whole milliseconds */
        buf_clear(&b);
        buf_put_duration(&b, ns);
        CHECK(b.len);
    }
    if (config_parse_duration(s, &ms) == 0) CHECK(ms >= 0);
    if (config_parse_size(s, &bytes) == 0) buf_put_size(&b, bytes);
    buf_done(&b);
}

static void names(Str s)
{
    static const char *const some[] = {"model", "input", "priority", "metadata", NULL};
    const char *near = nearest_name(s, some);
    for (size_t i = 0; some[i]; i++)
        if (str_eqz(s, some[i])) CHECK(near == some[i]);
    uint8_t raw[16];
    char text[26];
    if (base32_get(s, raw) == 0) {
        base32_put(text, raw);
        uint8_t again[16];
        CHECK(s.n == 26 && base32_get((Str){text, 26}, again) == 0);
        CHECK(memcmp(raw, again, sizeof raw) == 0);
    }
    TaskState state;
    TaskClass class;
    FailCode fail;
    if (task_state_from(s, &state) == 0) CHECK(str_eqz(s, task_state_name(state)));
    if (task_class_from(s, &class) == 0) CHECK(str_eqz(s, task_class_name(class)));
    if (fail_from(s, &fail) == 0) CHECK(str_eqz(s, fail_name(fail)));
    if (core_id_no(s)) CHECK(s.n == TASK_ID_LEN);
}

static void log_names_of(Str s)
{
    char z[64], name[LOG_NAME_LEN];
    uint64_t n;
    if (s.n >= sizeof z || memchr(s.p, 0, s.n)) return;
    memcpy(z, s.p, s.n);
    z[s.n] = 0;
    if (segment_number(z, &n)) {
        segment_name(name, n);
        uint64_t again;
        CHECK(segment_number(name + 4, &again) && again == n);
    }
    if (snapshot_number(z, &n)) {
        snapshot_name(name, n);
        CHECK(strcmp(name + 4, z) == 0);
    }
}

static void others(Str s)
{
    Str host;
    uint16_t port;
    uint32_t scopes;
    Sha256 digest;
    char hex[65];
    if (config_split_listen(s, &host, &port) == 0) CHECK(host.n && host.n < s.n);
    if (config_parse_scopes(s, &scopes) == 0) CHECK(scopes && scopes < 32);
    if (sha256_from_hex(s, &digest) == 0) {
        sha256_hex(&digest, hex);
        CHECK(s.n == 64);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 4096) return 0;
    Str s = {size ? (const char *)data : "", size};
    numbers(s);
    times(s);
    names(s);
    log_names_of(s);
    others(s);
    return 0;
}
