// SPDX-License-Identifier: Apache-2.0
/* gguf_fuzz.c - whatever the bytes, a file is refused with an error or all that it tells lies
 * inside it; a vocabulary in it is refused or encodes. */
#include <stdlib.h>

#include "model/gguf.h"
#include "model/tokenizer.h"

static uint64_t sum; /* keeps the reads */

static void read_key(const Gguf *gguf, const char *key) {
    Err err = {0};
    uint32_t u32;
    float f32;
    bool flag;
    Str text;
    GgufArray array;
    int fits = gguf_u32(gguf, key, 0, UINT32_MAX, &u32, &err);
    if (!fits && strlen(key) < 256 && !strstr(err.message, key)) abort();
    fits += gguf_f32(gguf, key, &f32, &err) + gguf_bool_or(gguf, key, false, &flag, &err);
    if (gguf_str(gguf, key, &text, &err)) {
        fits++;
        if (!utf8_valid(text.at, text.length)) abort();
    }
    if (fits > 1) abort(); /* a value has one type */
    if (gguf_strings(gguf, key, &array, &err))
        while (gguf_next_str(&array, &text))
            sum += text.length ? (uint8_t)text.at[0] + (uint8_t)text.at[text.length - 1] : 0;
    if (gguf_ints(gguf, key, &array, &err))
        for (size_t i = 0; i < array.count; i++) sum += (uint64_t)gguf_int_at(&array, i);
    if (gguf_floats(gguf, key, &array, &err))
        for (size_t i = 0; i < array.count; i++) sum += gguf_float_at(&array, i) > 0;
}

static void read_tensor(const Gguf *gguf, const GgufTensor *t) {
    const FileMap *file = gguf_file(gguf);
    const WeightInfo *info = weight_info(t->type);
    if (!info || !t->size || t->bytes < file->bytes ||
        t->size > (size_t)(file->bytes + file->size - t->bytes) ||
        t->elements / info->block * info->bytes != t->size)
        abort();
    sum += t->bytes[0] + t->bytes[t->size - 1];
    auto_free char *name = mem_dup_bytes(t->name.at, t->name.length);
    if (gguf_tensor_find(gguf, name) != t) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *copy = malloc(size + 1); /* with nothing behind the last byte that may be read */
    memcpy(copy + 1, data, size);     /* and as unaligned as can be */
    Err err = {0};
    Gguf *gguf = gguf_view(copy + 1, size, &err);
    if (!gguf && (err.code == ERR_NONE || !err.message[0])) abort();
    for (size_t i = 0; gguf && i < gguf_key_count(gguf); i++) {
        auto_free char *key = mem_dup_bytes(gguf_key(gguf, i).at, gguf_key(gguf, i).length);
        read_key(gguf, key);
    }
    for (size_t i = 0; gguf && i < gguf_tensor_count(gguf); i++)
        read_tensor(gguf, gguf_tensor_at(gguf, i));
    if (gguf && gguf_has(gguf, "tokenizer.ggml.tokens")) {
        Tokenizer *tokenizer = tokenizer_new(gguf, &err);
        if (!tokenizer && (err.code == ERR_NONE || !err.message[0])) abort();
        auto_tokens Tokens tokens = {0};
        if (tokenizer &&
            !tokenizer_encode(tokenizer, STR("the <|im_end|>aab 12"), true, &tokens, &err))
            abort();
        for (size_t i = 0; i < tokens.length; i++)
            sum += tokenizer_piece(tokenizer, tokens.ids[i]).length +
                   tokenizer_token_str(tokenizer, tokens.ids[i]).length;
        tokenizer_free(tokenizer);
    }
    gguf_close(gguf);
    free(copy);
    return 0;
}
