#include "sim/contents.h"

#include <stdio.h>
#include <string.h>

#include "sim/model.h"
#include "wire/json.h"

uint64_t contents_hash(Str bytes)
{
    return chain64(bytes.n, bytes.p ? bytes.p : "", bytes.n);
}

const Content *contents_stored(Sim *s, Str answer, Str bytes)
{
    Json j = {0};
    JsonFault f = {0};
    Content c = {.size = bytes.n, .hash = contents_hash(bytes), .acked_ns = s->w->now_ns};
    Str id = {"", 0}, hex = {"", 0};
    uint64_t size = 0;
    Sha256 got, want;
    yyjson_val *root = json_read(&j, answer, &f);
    sha256(bytes.p ? bytes.p : "", bytes.n, &want);
    bool fine = root && json_val_str(yyjson_obj_get(root, "id"), &id) && id.n == FILE_ID_LEN &&
                json_val_uint(yyjson_obj_get(root, "size"), &size) && size == bytes.n &&
                json_val_str(yyjson_obj_get(root, "sha256"), &hex) &&
                sha256_from_hex(hex, &got) == 0 && memcmp(&got, &want, sizeof got) == 0;
    if (fine) memcpy(c.id, id.p, FILE_ID_LEN);
    json_done(&j);
    if (!fine) {
        world_broken(s->w, 15, "an upload of %zu bytes was answered with: %.*s", bytes.n,
                     (int)MIN(answer.n, (size_t)300), answer.p);
        return NULL;
    }
    world_say(s->w, "stored %s, %zu bytes", c.id, bytes.n);
    buf_put(&s->contents, &c, sizeof c);
    return contents_at(s, contents_len(s) - 1);
}

size_t contents_len(const Sim *s)
{
    return s->contents.len / sizeof(Content);
}

Content *contents_at(Sim *s, size_t i)
{
    return (Content *)(void *)s->contents.data + i;
}

void contents_read(Sim *s, Content *c, int64_t began_ns, int status, Str bytes)
{
    World *w = s->w;
    if (status == 200) {
        if (bytes.n != c->size || contents_hash(bytes) != c->hash)
            world_broken(w, 15, "%s has other bytes than those that were uploaded (%zu of %llu)",
                         c->id, bytes.n, (unsigned long long)c->size);
        if (c->removed_ns && began_ns > c->removed_ns)
            world_broken(w, 2, "%s is read after its removal was acknowledged", c->id);
        return;
    }
    /* Refused: its record must be over. Records never come back, but for those of an end that was
     * not yet durable, which no answer may have told of. */
    if (model_has_file(witness_model(s->witness), str_from(c->id)))
        world_broken(w, 15, "%s was acknowledged, is on record, and is answered with %d", c->id,
                     status);
}

typedef struct {
    Sim *s;
    MemDisk *d;
    uint64_t found, bytes;
} Look;

static void look(void *ctx, Str id, uint64_t size, const Sha256 *sha256_of)
{
    Look *l = ctx;
    char name[64];
    size_t len = 0;
    Sha256 got;
    snprintf(name, sizeof name, "files/%.*s", STR_ARG(id));
    const uint8_t *p = mem_disk_bytes(l->d, name, &len);
    if (p) sha256(p, len, &got);
    l->found++;
    l->bytes += size;
    if (!p || len != size || memcmp(&got, sha256_of, sizeof got) != 0)
        world_broken(l->s->w, 15, "%s is on record with %llu bytes, on the disk %s (%zu)", name,
                     (unsigned long long)size,
                     !p            ? "nowhere"
                     : len != size ? "cut"
                                   : "damaged",
                     len);
}

static void count(void *ctx, const char *name)
{
    uint64_t *n = ctx;
    *n += strncmp(name, "file_", 5) == 0;
}

void contents_check(Sim *s, MemDisk *d, bool whole)
{
    Look l = {.s = s, .d = d};
    uint64_t there = 0, half = 0;
    model_each_file(witness_model(s->witness), look, &l);
    if (!whole) return;
    mem_disk_each(d, "files", count, &there);
    mem_disk_each(d, "files/tmp", count, &half);
    if (there != l.found || half)
        world_broken(
            s->w, 25, "%llu contents and %llu half ones lie on the disk, of %llu on record",
            (unsigned long long)there, (unsigned long long)half, (unsigned long long)l.found);
}
