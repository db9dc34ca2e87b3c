/* What a server answers to a client, of any bytes: a task that is shown, an event stream that is
 * followed. It may be a hostile server: nothing that is printed moves a terminal. The source of
 * `headrace events` is included, for its reader is private. */
#include <cli/events.c>

const Command *const commands[] = {NULL};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static FILE *printed;
static char *text;
static size_t text_len;

static void check_printed(void)
{
    fflush(printed);
    CHECK(utf8_valid(text, text_len));
    for (size_t i = 0; i < text_len; i++)
        CHECK((unsigned char)text[i] >= 0x20 || text[i] == '\n' || text[i] == '\t');
}

static void show_task(Str json)
{
    yyjson_doc *doc = yyjson_read(json.p, json.n, ANSWER_FLAGS);
    yyjson_val *root = yyjson_doc_get_root(doc);
    Buf b = {0};
    if (yyjson_is_obj(root)) {
        task_print(root);
        put_task_took(&b, root, wall_now_ns());
        CHECK(utf8_valid(b.data, b.len));
    }
    buf_done(&b);
    yyjson_doc_free(doc);
}

static void follow(Str stream, size_t piece)
{
    Reader r = {0};
    bool more = true;
    for (size_t at = 0; at < stream.n && more; at += piece)
        more = on_data(&r, (Str){stream.p + at, MIN(piece, stream.n - at)});
    buf_done(&r.rest);
    buf_done(&r.event);
    buf_done(&r.data);
    buf_done(&r.id);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 64 * KIB) return 0;
    Str s = {size ? (const char *)data : "", size};
    FILE *was = stdout;
    printed = open_memstream(&text, &text_len);
    CHECK(printed);
    stdout = printed;
    show_task(s);
    follow(s, 5);
    check_printed();
    stdout = was;
    fclose(printed);
    free(text);
    return 0;
}
