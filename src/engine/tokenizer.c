#include "engine/tokenizer.h"

#include "engine/inside.h"

#include <stdlib.h>
#include <string.h>

enum { FILE_MAX = 4 * 1024 * 1024, WORDS_MAX = 200000, WORD_MAX = 64, SHOWN_MAX = 40 };

static int cmp_ids(const void *a, const void *b, void *words)
{
    const char **w = words;
    return strcmp(w[*(const uint32_t *)a], w[*(const uint32_t *)b]);
}

/* The id of a word, or -1. */
static int64_t find(const Tokenizer *t, const char *word)
{
    size_t low = 0, high = t->len;
    while (low < high) {
        size_t mid = (low + high) / 2;
        int c = strcmp(word, t->words[t->sorted[mid]]);
        if (c == 0) return t->sorted[mid];
        if (c < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return -1;
}

int tokenizer_open(const char *path, size_t tokens, Tokenizer *ret, EngineError *err)
{
    Buf file = {0};
    int code = file_read(path, FILE_MAX, &file);
    if (code) {
        engine_error_set(err, ENGINE_ERR_MODEL, false,
                         "%s: %s; see diffusion.tokenizer in model.yaml", path,
                         code == ERR_LIMIT ? "is over 4 MiB" : "cannot be read");
        return ERR_INVALID;
    }
    Tokenizer t = {.tokens = tokens};
    if (file.len && file.data[file.len - 1] != '\n') buf_putc(&file, '\n');
    for (size_t i = 0; i < file.len; i++) t.len += file.data[i] == '\n';
    if (t.len > WORDS_MAX) t.len = WORDS_MAX;
    t.text = mem_dup(file.data ? (const char *)file.data : "", file.len);
    t.words = mem_new((t.len + 1) * sizeof *t.words);
    t.sorted = mem_new((t.len + 1) * sizeof *t.sorted);
    buf_done(&file);
    char *at = t.text;
    for (size_t i = 0; i < t.len; i++) {
        char *nl = strchr(at, '\n');
        if (!nl) { /* a NUL among the bytes */
            t.len = i;
            break;
        }
        *nl = 0;
        if (nl > at && nl[-1] == '\r') nl[-1] = 0;
        t.words[i] = at;
        t.sorted[i] = (uint32_t)i;
        at = nl + 1;
    }
    qsort_r(t.sorted, t.len, sizeof *t.sorted, cmp_ids, t.words);
    t.pad = find(&t, "<pad>");
    t.bos = find(&t, "<bos>");
    t.eos = find(&t, "<eos>");
    if (t.pad < 0 || t.bos < 0 || t.eos < 0) {
        engine_error_set(err, ENGINE_ERR_MODEL, false,
                         "%s: must have a line each for <pad>, <bos> and <eos>", path);
        tokenizer_done(&t);
        return ERR_INVALID;
    }
    *ret = t;
    return 0;
}

void tokenizer_done(Tokenizer *t)
{
    mem_free(t->text);
    mem_free(t->words);
    mem_free(t->sorted);
    *t = (Tokenizer){0};
}

static int unknown_word(const Tokenizer *t, const char *word, EngineError *err)
{
    const char **plain = mem_new((t->len + 1) * sizeof *plain);
    size_t n = 0;
    Buf known = {0};
    for (size_t i = 0; i < t->len; i++) {
        if (t->words[i][0] == '<' || !t->words[i][0]) continue;
        if (n < SHOWN_MAX) buf_printf(&known, "%s%s", n ? ", " : "", t->words[i]);
        if (n == SHOWN_MAX) buf_puts(&known, ", …");
        plain[n++] = t->words[i];
    }
    const char *near = nearest_name(str_from(word), plain);
    engine_error_set(
        err, ENGINE_ERR_BAD_INPUT, false, "'prompt': unknown word '%s'%s%s%s; the model knows: %s",
        word, near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "", buf_z(&known));
    buf_done(&known);
    mem_free(plain);
    return ERR_INVALID;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

int tokenizer_encode(const Tokenizer *t, Str prompt, int64_t *ret_ids, EngineError *err)
{
    size_t n = 0, words = 0;
    ret_ids[n++] = t->bos;
    for (size_t i = 0; i < prompt.n;) {
        while (i < prompt.n && is_space(prompt.p[i])) i++;
        size_t from = i;
        while (i < prompt.n && !is_space(prompt.p[i])) i++;
        size_t len = i - from;
        while (len && strchr(",.;:!?", prompt.p[from + len - 1])) len--;
        if (len == 0) continue;
        char word[WORD_MAX + 1] = {0};
        for (size_t k = 0; k < len && k < WORD_MAX; k++) {
            char c = prompt.p[from + k];
            word[k] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
        }
        int64_t id = len <= WORD_MAX && word[0] != '<' ? find(t, word) : -1;
        if (id < 0) return unknown_word(t, word, err);
        if (++words + 2 <= t->tokens) ret_ids[n++] = id;
    }
    if (words + 2 > t->tokens) {
        engine_error_set(err, ENGINE_ERR_BAD_INPUT, false,
                         "'prompt' has %zu words; the model takes at most %zu", words,
                         t->tokens - 2);
        return ERR_INVALID;
    }
    ret_ids[n++] = t->eos;
    while (n < t->tokens) ret_ids[n++] = t->pad;
    return 0;
}
