// SPDX-License-Identifier: Apache-2.0
#include "family.h"

#include <stdio.h>

#include "tensor/tensor.h"

static const Family families[] = {
    {.name = "llama", .rotary_pairs = true}, /* Llama 1 to 3, Mistral, SmolLM2, TinyLlama, ... */
};

const Family *family_find(Str architecture) {
    for (size_t i = 0; i < COUNT_OF(families); i++)
        if (str_eq(architecture, families[i].name)) return &families[i];
    return NULL;
}

static bool find_family(const Gguf *gguf, ModelShape *shape, Err *err) {
    Str name;
    if (!gguf_str(gguf, "general.architecture", &name, err)) return false;
    shape->family = family_find(name);
    if (shape->family) return true;
    auto_buf Buf known = {0};
    for (size_t i = 0; i < COUNT_OF(families); i++)
        buf_printf(&known, "%s%s", i ? ", " : "", families[i].name);
    err_set(err, ERR_UNSUPPORTED, "model family '" STR_FMT "' is not supported", STR_ARG(name));
    return err_hint(err, "Use a GGUF file of one of these families: %s.", known.at);
}

typedef struct Key { char text[96]; } Key;

static Key key_of(const ModelShape *shape, const char *name) {
    Key key;
    snprintf(key.text, sizeof key.text, "%s.%s", shape->family->name, name);
    return key;
}

static bool read_number(const Gguf *gguf, const ModelShape *shape, const char *name, uint32_t most,
                        uint32_t *out, Err *err) {
    return gguf_u32(gguf, key_of(shape, name).text, 1, most, out, err);
}

/* What would change the result and is not done here must be refused, not left out. */
static bool refuse_unknown(const Gguf *gguf, const ModelShape *shape, Err *err) {
    static const char *const plain[] = {"none", ""};
    Str scaling;
    Key key = key_of(shape, "rope.scaling.type");
    if (!gguf_str_or(gguf, key.text, "none", &scaling, err)) return false;
    if (!str_eq(scaling, plain[0]) && !str_eq(scaling, plain[1]))
        return err_set(err, ERR_UNSUPPORTED,
                       "metadata key '%s' is '" STR_FMT "': scaled positions are not supported",
                       key.text, STR_ARG(scaling));
    static const char *const others[] = {"expert_count", "attention.sliding_window",
                                         "attention.clamp_kqv", "attention.max_alibi_bias",
                                         "logit_scale"};
    for (size_t i = 0; i < COUNT_OF(others); i++) {
        key = key_of(shape, others[i]);
        uint32_t value = 0;
        if (!gguf_has(gguf, key.text)) continue;
        if (!gguf_u32(gguf, key.text, 0, UINT32_MAX, &value, err) || value)
            return err_set(err, ERR_UNSUPPORTED, "metadata key '%s' asks for what is not supported",
                           key.text);
    }
    return true;
}

static bool check_sizes(const ModelShape *s, Err *err) {
    if (s->heads % s->kv_heads)
        return err_set(err, ERR_DAMAGED, "%u heads cannot share %u KV heads evenly", s->heads,
                       s->kv_heads);
    if (s->head_dim % 32 || s->head_dim > ATTEND_DIM_MAX)
        return err_set(err, ERR_UNSUPPORTED,
                       "heads of %u are not supported: multiples of 32 up to %d are", s->head_dim,
                       ATTEND_DIM_MAX);
    if (s->width % 32 || s->feed_forward % 32)
        return err_set(err, ERR_UNSUPPORTED,
                       "width %u and feed-forward width %u must be multiples of 32", s->width,
                       s->feed_forward);
    return true;
}

bool shape_read(const Gguf *gguf, ModelShape *out, Err *err) {
    ModelShape s = {0};
    if (!find_family(gguf, &s, err)) return false;
    uint32_t rotated;
    if (!read_number(gguf, &s, "block_count", 4096, &s.layers, err) ||
        !read_number(gguf, &s, "embedding_length", 1 << 20, &s.width, err) ||
        !read_number(gguf, &s, "feed_forward_length", 1 << 20, &s.feed_forward, err) ||
        !read_number(gguf, &s, "attention.head_count", 4096, &s.heads, err) ||
        !read_number(gguf, &s, "context_length", 1 << 24, &s.context, err) ||
        !gguf_u32_or(gguf, key_of(&s, "attention.head_count_kv").text, s.heads, 1, s.heads,
                     &s.kv_heads, err) ||
        !gguf_u32_or(gguf, key_of(&s, "attention.key_length").text, s.width / s.heads, 1, 4096,
                     &s.head_dim, err) ||
        !gguf_u32_or(gguf, key_of(&s, "rope.dimension_count").text, s.head_dim, s.head_dim,
                     s.head_dim, &rotated, err) ||
        !gguf_u32_or(gguf, key_of(&s, "attention.value_length").text, s.head_dim, s.head_dim,
                     s.head_dim, &rotated, err) ||
        !gguf_f32_or(gguf, key_of(&s, "rope.freq_base").text, 10000, &s.rotary_base, err) ||
        !gguf_f32(gguf, key_of(&s, "attention.layer_norm_rms_epsilon").text, &s.norm_epsilon,
                  err) ||
        !refuse_unknown(gguf, &s, err) || !check_sizes(&s, err))
        return false;
    if (!(s.rotary_base >= 1))
        return err_set(err, ERR_DAMAGED, "metadata key '%s' is %g, expected at least 1",
                       key_of(&s, "rope.freq_base").text, s.rotary_base);
    GgufArray tokens;
    if (!gguf_strings(gguf, "tokenizer.ggml.tokens", &tokens, err)) return false;
    s.vocab = (uint32_t)tokens.count;
    *out = s;
    return true;
}
