// SPDX-License-Identifier: Apache-2.0
/* tokenizer_fuzz.c - any text becomes ids of the vocabulary, and these the text again; a stream of
 * them too, and a limit cuts them without changing them.
 *
 * Byte 0 of an input picks the pre-tokenizer and whether special tokens are parsed. */
#include <stdlib.h>

#include "model/tokenizer.h"
#include "model/tokenizer_test.h"

static const char *const pres[] = {"smollm",       "gpt-2",       "llama-bpe", "qwen2",
                                   "deepseek-llm", "deepseek-v3", "default"};
enum { QWEN2 = 3 }; /* composes characters: another text may come back */

static const Tokenizer *tokenizer_for(size_t pre) {
    static Buf files[COUNT_OF(pres)]; /* all this lives as long as the process */
    static Gguf *ggufs[COUNT_OF(pres)];
    static Tokenizer *tokenizers[COUNT_OF(pres)];
    if (!tokenizers[pre]) {
        Err err = {0};
        GgufWriter w = {0};
        put_tiny_vocab(&w, pres[pre]);
        files[pre] = put_end(&w);
        ggufs[pre] = gguf_view((uint8_t *)files[pre].at, files[pre].length, &err);
        if (!ggufs[pre] || !(tokenizers[pre] = tokenizer_new(ggufs[pre], &err))) abort();
    }
    return tokenizers[pre];
}

static bool is(const Buf *buf, Str text) {
    return buf->length == text.length && (!text.length || !memcmp(buf->at, text.at, text.length));
}

static void check_text(const Tokenizer *t, const Tokens *tokens, Str text, bool composes) {
    auto_buf Buf pieces = {0}, stream = {0};
    Detok detok;
    detok_init(&detok, t, false);
    for (size_t i = 0; i < tokens->length; i++) {
        int32_t id = tokens->ids[i];
        if (id < 0 || (size_t)id >= tokenizer_vocab_size(t)) abort();
        Str piece = tokenizer_piece(t, id);
        if (!piece.length || piece.length > tokenizer_longest_piece(t)) abort();
        buf_append(&pieces, piece.at, piece.length);
        size_t before = stream.length;
        detok_add(&detok, id, &stream);
        if (stream.length > before && !utf8_valid(stream.at + before, stream.length - before))
            abort();
    }
    detok_flush(&detok, &stream);
    if (utf8_valid(text.at, text.length)) {
        if (tokens->lost || (!composes && (!is(&pieces, text) || !is(&stream, text)))) abort();
    } else if (!tokens->lost && !composes && !is(&pieces, text)) { /* surrogates are kept */
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size) return 0;
    size_t pre = data[0] % COUNT_OF(pres);
    bool special = data[0] & 0x80;
    const Tokenizer *t = tokenizer_for(pre);
    Str text = {(const char *)data + 1, size - 1};
    Err err = {0};
    auto_tokens Tokens tokens = {0}, first = {.limit = size / 3 + 1};
    if (!tokenizer_encode(t, text, special, &tokens, &err)) abort();
    check_text(t, &tokens, text, pre == QWEN2);

    bool fits = tokenizer_encode(t, text, special, &first, &err);
    if (fits != (tokens.length <= first.limit)) abort();
    if (first.length != (fits ? tokens.length : first.limit)) abort();
    if (first.length && memcmp(first.ids, tokens.ids, first.length * sizeof *first.ids)) abort();
    return 0;
}
