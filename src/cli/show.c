/* headrace show: a picture in the terminal. */
#include "cli/client.h"
#include "cli/commands.h"

#include <string.h>

static const Option options[] = {
    {"colours", 0, "HOW", "auto (default), 24bit, 256 or ascii", "auto 24bit 256 ascii"},
    {"width", 0, "N", "columns; default: the terminal's", NULL},
};

static int run(const Args *a)
{
    static const char *const names[] = {"auto", "24bit", "256", "ascii"};
    const char *how = args_text(a, "colours", "auto");
    size_t colours = 0;
    uint64_t width = (uint64_t)terminal()->width;
    int worst = args_u64(a, "width", 8, 1000, &width);
    while (colours < ARRAY_LEN(names) && strcmp(how, names[colours]) != 0) colours++;
    if (colours == ARRAY_LEN(names))
        return fail(CLI_USAGE, "--colours '%s' is none of auto, 24bit, 256 or ascii", how);
    for (size_t i = 0; i < a->words_len && worst != CLI_USAGE; i++) {
        Buf drawing = {0}, why = {0};
        int height = args_has(a, "width") ? 1000 : terminal()->height;
        if (picture_put(a->words[i], (PictureColours)colours, (int)width, height, &drawing, &why))
            worst = fail(CLI_FAILED, "%s", buf_z(&why));
        out_buf(&drawing);
        buf_done(&drawing);
        buf_done(&why);
    }
    return worst;
}

const Command command_show = {
    .name = "show",
    .words = "FILE.png...",
    .summary = "Draw a picture in the terminal",
    .options = options,
    .options_len = ARRAY_LEN(options),
    .words_min = 1,
    .words_max = ANY_WORDS,
    .examples = "  headrace show sneaker.png\n"
                "  headrace show sneaker.png --colours ascii --width 60",
    .run = run,
};
