/* tokenizer.h: prompts to token ids by a list of words: pure but for reading the list. */
#ifndef ENGINE_TOKENIZER_H
#define ENGINE_TOKENIZER_H

#include "engine/engine.h"

/* A token's id is its line, from 0. <pad>, <bos> and <eos> must be among them; tokens in angle
 * brackets cannot be written in a prompt. */
typedef struct {
    char *text;         /* the file; its lines end with NUL */
    const char **words; /* by id; ends with NULL */
    size_t len;
    uint32_t *sorted; /* ids by word */
    int64_t pad, bos, eos;
    size_t tokens; /* of every prompt, padding included */
} Tokenizer;

int tokenizer_open(const char *path, size_t tokens, Tokenizer *ret, EngineError *err) HR_MUST_CHECK;
void tokenizer_done(Tokenizer *t);

/* "<bos> words <eos>", padded: ret_ids has room for t->tokens. Words are taken in lower case,
 * without punctuation at their end. ERR_INVALID with err as bad_input that names the word. */
int tokenizer_encode(const Tokenizer *t, Str prompt, int64_t *ret_ids,
                     EngineError *err) HR_MUST_CHECK;

#endif
