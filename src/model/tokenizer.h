// SPDX-License-Identifier: Apache-2.0
/* tokenizer.h - text to token ids and back: byte-level BPE, as the model's GGUF file describes it.
 *
 *     text --> special tokens cut out --> words (regexes of the row `tokenizer.ggml.pre`)
 *          --> bytes --> pairs merged, lowest rank first --> ids
 *
 * Ids are exactly those of llama.cpp and of the Hugging Face tokenizer of the same model (letters
 * and numbers as of Unicode 15.1). Invariants
 *   1. every id that tokenizer_encode() gives is below tokenizer_vocab_size()
 *   2. the pieces of the ids, one after the other, are the text again, unless Tokens.lost > 0 (for
 *      models whose tokenizer composes characters: the text in Unicode's form NFC)
 *   3. encoding n bytes takes O(n log n) time, whatever the bytes
 * Owner: the Tokenizer keeps views into the Gguf, which must outlive it.
 * Thread: nothing visible changes after tokenizer_new(): any number of threads may encode and
 * decode at once.  A Detok belongs to one stream. */
#ifndef BATON_MODEL_TOKENIZER_H
#define BATON_MODEL_TOKENIZER_H

#include "gguf.h"

typedef struct Tokenizer Tokenizer;
#define TOKEN_NONE (-1)

typedef struct Tokens { /* {.limit = n} is an empty one */
    int32_t *ids;
    size_t length, capacity;
    size_t limit; /* tokens; 0 = none */
    size_t lost;  /* bytes of the text that its tokens do not carry: not UTF-8 (U+FFFD stands there
                     instead), or without a token in this vocabulary (left out) */
} Tokens;

void tokens_add(Tokens *tokens, int32_t id);
void tokens_done(Tokens *tokens);
#define auto_tokens __attribute__((cleanup(tokens_done)))

Tokenizer *tokenizer_new(const Gguf *gguf, Err *err) MUST_CHECK;
void tokenizer_free(Tokenizer *tokenizer);

/* Appends the tokens of `text`, without a begin-of-sequence token.  parse_special: "<|im_end|>" in
 * the text becomes that token; otherwise it is text like any other.  Fails with ERR_TOO_LARGE when
 * out->limit is passed; out then holds the first `limit` tokens, or nothing more than before where
 * the text's length alone tells. */
bool tokenizer_encode(const Tokenizer *tokenizer, Str text, bool parse_special, Tokens *out,
                      Err *err) MUST_CHECK;

size_t tokenizer_vocab_size(const Tokenizer *tokenizer);
size_t tokenizer_longest_piece(const Tokenizer *tokenizer); /* bytes: n bytes of text are at least
                                                               n / this tokens */

/* Both are views; empty for an id outside the vocabulary. */
Str tokenizer_piece(const Tokenizer *tokenizer, int32_t id); /* raw bytes, maybe a part of a
                                                 character; a special token gives its text */
Str tokenizer_token_str(const Tokenizer *tokenizer, int32_t id); /* as in the file: "Ġthe" */

bool tokenizer_is_special(const Tokenizer *tokenizer, int32_t id); /* control or unknown */
bool tokenizer_is_end_of_generation(const Tokenizer *tokenizer,
                                    int32_t id); /* by metadata, and by well-known texts */
int32_t tokenizer_bos(const Tokenizer *tokenizer); /* these three: TOKEN_NONE if there is none */
int32_t tokenizer_eos(const Tokenizer *tokenizer);
int32_t tokenizer_eot(const Tokenizer *tokenizer); /* end of a turn of a chat */
bool tokenizer_add_bos(const Tokenizer *tokenizer); /* a prompt begins with bos */

/* Detok - the text of ids that come one at a time, in whole characters only: the bytes of an
 * unfinished one are held back, those of a broken one become U+FFFD (one for each maximal part of a
 * character, as everywhere else). */
typedef struct Detok {
    const Tokenizer *tokenizer;
    bool skip_special;
    uint8_t held_count; /* 0 to 3 bytes of a character that is not whole yet */
    char held[4];
} Detok;

void detok_init(Detok *detok, const Tokenizer *tokenizer, bool skip_special);
void detok_add(Detok *detok, int32_t id, Buf *out);
void detok_flush(Detok *detok, Buf *out); /* the end of the stream: nothing is held any more */

#endif
