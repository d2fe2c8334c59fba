// SPDX-License-Identifier: Apache-2.0
/* tokenizer_test.h - a small vocabulary for tests and fuzzers: every byte, some merges, some
 * specials.
 *
 *     id 0 to 255    the byte of that value
 *     256 ...        what the merges below give, in order
 *     then           the specials below */
#ifndef BATON_MODEL_TOKENIZER_TEST_H
#define BATON_MODEL_TOKENIZER_TEST_H

#include "gguf_test.h"
#include "tokenizer.h"

/* In the byte-level alphabet: \xc4\xa0 is the blank, \xc3\x83 and \xc2\xa9 the two bytes of an e
 * with acute. */
static const char *const tiny_merges[] = {
    "h e", "t he", "\xc4\xa0 the", "i n", "in g", "a a", "aa aa", "\xc4\xa0 \xc4\xa0",
    "\xc4\xa0\xc4\xa0 \xc4\xa0\xc4\xa0", "a b", "b c", "\xc3\x83 \xc2\xa9", "\xc4\xa0 a", "1 2",
};
enum { tiny_merge_count = sizeof tiny_merges / sizeof *tiny_merges };
enum { TINY_THE = 258, TINY_E_ACUTE = 267 };

static const struct {
    const char *text;
    int32_t type;
} tiny_specials[] = {
    {"<|im_end|>", 3}, {"<|im_start|>", 3}, {"<|im", 3}, {"<tool>", 4}, {"<unk>", 2}, {"[PAD]", 5},
};
enum {
    TINY_IM_END = 256 + tiny_merge_count,
    TINY_IM_START,
    TINY_IM,
    TINY_TOOL,
    TINY_UNK,
    TINY_UNUSED,
    TINY_SIZE
};

static inline void put_byte_token(Buf *to, int byte) {
    int next = 0x100; /* of the code points that stand for bytes without a printable character */
    for (int b = 0; b < byte; b++) next += b <= 0x20 || (b >= 0x7f && b <= 0xa0) || b == 0xad;
    bool printable = !(byte <= 0x20 || (byte >= 0x7f && byte <= 0xa0) || byte == 0xad);
    Buf text = {0};
    buf_utf8(&text, (uint32_t)(printable ? byte : next));
    put_str(to, (Str){text.at, text.length});
    buf_done(&text);
}

static inline void put_tiny_tokens(GgufWriter *w) {
    put_key_array(w, "tokenizer.ggml.tokens", GGUF_STRING, TINY_SIZE);
    for (int b = 0; b < 256; b++) put_byte_token(&w->keys, b);
    for (int i = 0; i < tiny_merge_count; i++) {
        Buf text = {0};
        for (const char *c = tiny_merges[i]; *c; c++)
            if (*c != ' ') buf_char(&text, *c);
        put_str(&w->keys, (Str){text.at, text.length});
        buf_done(&text);
    }
    for (int i = 0; i < TINY_SIZE - TINY_IM_END; i++)
        put_str(&w->keys, str_of(tiny_specials[i].text));
    put_key_array(w, "tokenizer.ggml.token_type", GGUF_I32, TINY_SIZE);
    for (int i = 0; i < TINY_SIZE; i++)
        put_u32(&w->keys, i < TINY_IM_END ? 1 : (uint32_t)tiny_specials[i - TINY_IM_END].type);
}

static inline void put_tiny_merges(GgufWriter *w) {
    put_key_array(w, "tokenizer.ggml.merges", GGUF_STRING, tiny_merge_count);
    for (int i = 0; i < tiny_merge_count; i++) put_str(&w->keys, str_of(tiny_merges[i]));
}

static inline void put_tiny_vocab(GgufWriter *w, const char *pre) {
    put_key_str(w, "tokenizer.ggml.model", "gpt2");
    put_key_str(w, "tokenizer.ggml.pre", pre);
    put_key_u32(w, "tokenizer.ggml.bos_token_id", TINY_IM_START);
    put_key_u32(w, "tokenizer.ggml.eos_token_id", TINY_IM);
    put_tiny_tokens(w);
    put_tiny_merges(w);
}

#endif
