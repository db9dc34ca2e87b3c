/* Any bytes as the checkpoint of a drawing: it is refused, or the drawing goes on from it and gives
 * the same checkpoint. The engine's source is included, for no model is wanted. */
#include <engine/diffusion.c>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 4096) return 0;
    int64_t ids[4] = {1, 2, 3, 0};
    Prompt prompt = {.ids = ids};
    Diffusion d = {.tokenizer.tokens = ARRAY_LEN(ids), .latent_len = 6};
    float x[12] = {0}, previous[12] = {0};
    Drawing w = {.seed = 7,
                 .steps = 20,
                 .images = 1 + (data[0] & 1),
                 .guidance = 3,
                 .solver = data[0] & 2 ? SOLVER_AB2 : SOLVER_EULER,
                 .prompt = &prompt,
                 .x = x,
                 .previous = previous};
    EngineModel m = {.priv = &d};
    EngineTask t = {.steps = 20, .priv = &w};
    Str bytes = {(const char *)data + 1, size - 1};
    Buf again = {0};
    int err = diffusion_resume(&m, &t, bytes);
    CHECK(err == 0 || (err == ERR_INVALID && t.step == 0));
    if (!err) {
        CHECK(t.step < t.steps && diffusion_checkpoint(&m, &t, &again) == 0);
        CHECK(again.len == bytes.n && memcmp(again.data, bytes.p, bytes.n) == 0);
    }
    buf_done(&again);
    return 0;
}
