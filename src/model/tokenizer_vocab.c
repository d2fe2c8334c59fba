// SPDX-License-Identifier: Apache-2.0
#include "tokenizer_internal.h"

#include <stdlib.h>

#define KEY "tokenizer.ggml."
#define WHAT "the tokenizer's vocabulary"

enum { /* elements of tokenizer.ggml.token_type */
    TYPE_NORMAL = 1,
    TYPE_UNKNOWN = 2,
    TYPE_CONTROL = 3,
    TYPE_USER_DEFINED = 4,
    TYPE_UNUSED = 5,
};

/* Texts of tokens that end a generation though the metadata does not say so; the first `turn_ends`
 * of them end a turn of a chat, best first. */
static const char *const end_texts[] = {
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>",
    "<EOT>", "_<EOT>", "[EOT]", "<｜end▁of▁sentence｜>", "<end_of_utterance>",
    "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "</s>", "<|eom_id|>", "[EOS]", "<eos>",
    "<turn|>", "<|tool_response>", "[e~[",
    /* tokens of fill-in-the-middle prompts that a reply cannot contain */
    "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>", "<|repo_name|>",
    "<fim-repo>", "<REPO>", "<reponame>", "<|file_sep|>",
};
enum { turn_ends = 11 };

/* The byte-level alphabet: printable Latin-1 characters stand for their own byte, the 68 others are
 * U+0100 to U+0143 in order.  Fills [code point] = byte, or -1. */
#define ALPHABET 0x144
static void alphabet_init(int16_t bytes[ALPHABET]) {
    for (int i = 0; i < ALPHABET; i++) bytes[i] = -1;
    int next = 0x100;
    for (int b = 0; b < 256; b++) {
        bool printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        bytes[printable ? b : next++] = (int16_t)b;
    }
}

/* The bytes that a text of the alphabet stands for (never more than it has itself), or false. */
static bool alphabet_decode(const int16_t bytes[ALPHABET], Str text, char *out, size_t *length) {
    size_t n = 0;
    for (size_t i = 0; i < text.length; i++) {
        uint32_t c = (uint8_t)text.at[i];
        if (c >= 0xc2 && c <= 0xc5 && i + 1 < text.length && (text.at[i + 1] & 0xc0) == 0x80)
            c = (c & 0x1f) << 6 | (text.at[++i] & 0x3f);
        else if (c >= 0x80)
            return false;
        if (c >= ALPHABET || bytes[c] < 0) return false;
        out[n++] = (char)bytes[c];
    }
    *length = n;
    return true;
}

static size_t table_room(size_t count) {
    size_t room = 16;
    while (room < 2 * count) room *= 2;
    return room;
}

/* Where the token with these bytes is, or the empty slot where it belongs. */
static WordSlot *word_slot(const Tokenizer *t, uint32_t hash, const char *bytes, size_t length) {
    for (size_t i = hash;; i++) {
        WordSlot *slot = &t->words[i & (t->word_room - 1)];
        if (slot->id == TOKEN_NONE) return slot;
        uint32_t begin = t->piece_at[slot->id];
        if (slot->hash == hash && t->piece_at[slot->id + 1] - begin == length &&
            !memcmp(t->pieces + begin, bytes, length))
            return slot;
    }
}

int32_t vocab_find_word(const Tokenizer *t, const char *bytes, size_t length) {
    return word_slot(t, (uint32_t)hash64(bytes, length, 0), bytes, length)->id;
}

static bool add_word(Tokenizer *t, int32_t id, const char *bytes, size_t length, Err *err) {
    uint32_t hash = (uint32_t)hash64(bytes, length, 0);
    WordSlot *slot = word_slot(t, hash, bytes, length);
    if (slot->id != TOKEN_NONE)
        return err_set(err, ERR_DAMAGED,
                       "metadata key '" KEY "tokens' has the same token as %d and %d", slot->id,
                       id);
    *slot = (WordSlot){hash, id};
    if (length == 1) t->byte_ids[(uint8_t)bytes[0]] = id;
    return true;
}

static uint8_t kind_of(int64_t type) {
    return type == TYPE_CONTROL || type == TYPE_UNKNOWN ? KIND_SPECIAL
           : type == TYPE_USER_DEFINED                  ? KIND_USER
           : type == TYPE_UNUSED                        ? KIND_UNUSED
                                                        : 0;
}

/* Sets kind, text and piece of the token `id`. */
static bool add_token(Tokenizer *t, int32_t id, Str text, uint8_t kind,
                      const int16_t alphabet[ALPHABET], Err *err) {
    uint32_t begin = t->piece_at[id];
    char *piece = t->pieces + begin;
    size_t length = text.length;
    bool plain = alphabet_decode(alphabet, text, piece, &length);
    /* A special token's text, and one that is not of the alphabet, is no code for bytes. */
    bool verbatim = !plain || (kind & (KIND_SPECIAL | KIND_USER));
    bool same = length == text.length && !memcmp(piece, text.at, length);
    if (verbatim) {
        length = text.length;
        if (length) memcpy(piece, text.at, length);
    }
    if (kind & KIND_UNUSED) length = 0;
    t->kinds[id] = kind;
    t->piece_at[id + 1] = begin + (uint32_t)length;
    if (length > t->longest) t->longest = length;
    if (kind & (KIND_SPECIAL | KIND_USER)) t->special_count += length > 0;
    return !length || !plain || (verbatim && !same) || add_word(t, id, piece, length, err);
}

static bool allocate(Tokenizer *t, size_t count, size_t text_bytes, Err *err) {
    t->piece_room = text_bytes;
    t->word_room = table_room(count);
    if (!(t->text_at = mem_try(count, sizeof *t->text_at, WHAT, err)) ||
        !(t->piece_at = mem_try(count + 1, sizeof *t->piece_at, WHAT, err)) ||
        !(t->pieces = mem_try(t->piece_room, 1, WHAT, err)) ||
        !(t->kinds = mem_try(count, sizeof *t->kinds, WHAT, err)) ||
        !(t->whole = mem_try(count, sizeof *t->whole, WHAT, err)) ||
        !(t->words = mem_try(t->word_room, sizeof *t->words, WHAT, err)))
        return false;
    memset(t->words, 0xff, t->word_room * sizeof *t->words);     /* TOKEN_NONE */
    memset(t->byte_ids, 0xff, sizeof t->byte_ids);
    return true;
}

static bool load_tokens(Tokenizer *t, const Gguf *gguf, const int16_t alphabet[ALPHABET],
                        Err *err) {
    GgufArray texts, types = {0};
    bool typed = gguf_has(gguf, KEY "token_type");
    if (!gguf_strings(gguf, KEY "tokens", &texts, err) ||
        (typed && !gguf_ints(gguf, KEY "token_type", &types, err)))
        return false;
    if (!texts.count || texts.count > LIMIT_VOCAB || texts.size > UINT32_MAX)
        return err_set(err, ERR_TOO_LARGE,
                       "metadata key '" KEY
                       "tokens' has %zu tokens in %zu bytes, expected 1 to %zu "
                       "in less than 4 GiB",
                       texts.count, texts.size, LIMIT_VOCAB);
    if (typed && types.count != texts.count)
        return err_set(err, ERR_DAMAGED,
                       "metadata key '" KEY "token_type' has %zu elements for %zu tokens",
                       types.count, texts.count);
    t->texts = texts.at;
    t->count = texts.count;
    if (!allocate(t, texts.count, texts.size, err)) return false;
    Str text;
    for (size_t i = 0; i < t->count; i++) {
        t->text_at[i] = (uint32_t)(texts.at - t->texts);
        gguf_next_str(&texts, &text);
        uint8_t kind = typed ? kind_of(gguf_int_at(&types, i)) : 0;
        if (!add_token(t, (int32_t)i, text, kind, alphabet, err)) return false;
    }
    if (!t->longest)
        return err_set(err, ERR_DAMAGED, "metadata key '" KEY "tokens' has no token with a text");
    return true;
}

/* One merge, "Ġ t": two tokens that become the token of both. */
static bool add_merge(Tokenizer *t, uint32_t rank, Str text, const int16_t alphabet[ALPHABET],
                      char *scratch) {
    size_t left_length, right_length;
    const char *blank = text.length > 1 ? memchr(text.at + 1, ' ', text.length - 1) : NULL;
    if (!blank || text.length > 2 * t->longest + 1) return false;
    Str left = {text.at, (size_t)(blank - text.at)},
        right = {blank + 1, text.length - left.length - 1};
    if (!alphabet_decode(alphabet, left, scratch, &left_length) ||
        !alphabet_decode(alphabet, right, scratch + left_length, &right_length))
        return false;
    Merge merge = {.left = vocab_find_word(t, scratch, left_length),
                   .right = vocab_find_word(t, scratch + left_length, right_length),
                   .rank = rank,
                   .id = vocab_find_word(t, scratch, left_length + right_length)};
    if (merge.left == TOKEN_NONE || merge.right == TOKEN_NONE || merge.id == TOKEN_NONE)
        return false;
    size_t slot = (size_t)(vocab_merge(t, merge.left, merge.right) - t->merges);
    if (t->merges[slot].rank == RANK_NONE) t->merges[slot] = merge; /* a second one never applies */
    return true;
}

static bool load_merges(Tokenizer *t, const Gguf *gguf, const int16_t alphabet[ALPHABET],
                        Err *err) {
    GgufArray merges;
    if (!gguf_strings(gguf, KEY "merges", &merges, err)) return false;
    if (merges.count > LIMIT_VOCAB)
        return err_set(err, ERR_TOO_LARGE,
                       "metadata key '" KEY "merges' has %zu merges, the limit is %zu",
                       merges.count, LIMIT_VOCAB);
    t->merge_room = table_room(merges.count);
    if (!(t->merges = mem_try(t->merge_room, sizeof *t->merges, WHAT, err))) return false;
    memset(t->merges, 0xff, t->merge_room * sizeof *t->merges);      /* RANK_NONE */
    auto_free char *scratch = mem_new(2 * t->longest + 1);
    Str text;
    for (uint32_t rank = 0; gguf_next_str(&merges, &text); rank++)
        if (!add_merge(t, rank, text, alphabet, scratch))
            return err_set(
                err, ERR_DAMAGED,
                "metadata key '" KEY "merges': merge %u is not two tokens that make a third", rank);
    return true;
}

static int by_text(const void *a, const void *b) {
    const Special *x = a, *y = b;
    size_t shorter = x->text.length < y->text.length ? x->text.length : y->text.length;
    int order = memcmp(x->text.at, y->text.at, shorter);
    return order                                ? order
           : x->text.length != y->text.length ? (x->text.length < y->text.length ? -1 : 1)
                                                : 0;
}

static void list_specials(Tokenizer *t) {
    t->specials = mem_new(t->special_count * sizeof *t->specials);
    size_t n = 0;
    for (size_t i = 0; i < t->count; i++) {
        Str text = tokenizer_piece(t, (int32_t)i);
        if (!(t->kinds[i] & (KIND_SPECIAL | KIND_USER)) || !text.length) continue;
        t->specials[n++] = (Special){text, (int32_t)i};
        t->special_first[(uint8_t)text.at[0]] = true;
    }
    qsort(t->specials, n, sizeof *t->specials, by_text);
}

static int32_t find_special(const Tokenizer *t, const char *text) {
    Special key = {.text = str_of(text)};
    const Special *found =
        bsearch(&key, t->specials, t->special_count, sizeof *t->specials, by_text);
    return found ? found->id : TOKEN_NONE;
}

static bool id_of(const Tokenizer *t, const Gguf *gguf, const char *key, int32_t *out, Err *err) {
    uint32_t id = 0;
    bool there = gguf_has(gguf, key);
    if (there && !gguf_u32(gguf, key, 0, (uint32_t)t->count - 1, &id, err)) return false;
    *out = there ? (int32_t)id : TOKEN_NONE;
    return true;
}

/* Which tokens end a generation: by metadata, and by their texts.  A text counts only for a token
 * that the file marks as more than text, since "</s>" is also a plain token of some vocabularies.
 */
static bool load_ends(Tokenizer *t, const Gguf *gguf, Err *err) {
    static const char *const keys[] = {KEY "eot_token_id",     KEY "eos_token_id",
                                       KEY "eom_token_id",     KEY "fim_pad_token_id",
                                       KEY "fim_rep_token_id", KEY "fim_sep_token_id"};
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        int32_t id;
        if (!id_of(t, gguf, keys[i], &id, err)) return false;
        if (id != TOKEN_NONE) t->kinds[id] |= KIND_END;
        if (i == 0) t->eot = id;
        if (i == 1) t->eos = id;
    }
    for (size_t i = 0; i < COUNT_OF(end_texts); i++) {
        int32_t id = find_special(t, end_texts[i]);
        if (id == TOKEN_NONE) continue;
        t->kinds[id] |= KIND_END;
        if (t->eot == TOKEN_NONE && i < turn_ends) t->eot = id;
    }
    /* Where a reply has its own ends, <|end|> only closes one of its messages. */
    int32_t end = find_special(t, "<|end|>");
    bool call = find_special(t, "<|call|>") != TOKEN_NONE,
         calls = find_special(t, "<|calls|>") != TOKEN_NONE;
    if (end != TOKEN_NONE && ((call && find_special(t, "<|return|>") != TOKEN_NONE) ||
                              ((call || calls) && find_special(t, "<|flush|>") != TOKEN_NONE)))
        t->kinds[end] &= (uint8_t)~KIND_END;
    return true;
}

static bool check_model(const Gguf *gguf, Err *err) {
    Str model;
    if (!gguf_str(gguf, KEY "model", &model, err)) return false;
    if (str_eq(model, "gpt2")) return true;
    err_set(err, ERR_UNSUPPORTED,
            "metadata key '" KEY "model' is '" STR_FMT "', supported is 'gpt2' (byte-level BPE)",
            STR_ARG(model));
    return err_hint(err, "Take a model with such a tokenizer: SmolLM2, Qwen, Llama 3, DeepSeek.");
}

bool vocab_load(Tokenizer *t, const Gguf *gguf, Err *err) {
    int16_t alphabet[ALPHABET];
    Str pre;
    alphabet_init(alphabet);
    if (!check_model(gguf, err)) return false;
    if (!gguf_str(gguf, KEY "pre", &pre, err))
        return err_hint(err, "Without it text is not cut as the model was trained. Convert the "
                             "model again with a current converter.");
    if (!(t->split = split_new(pre, err)) || !load_tokens(t, gguf, alphabet, err) ||
        !load_merges(t, gguf, alphabet, err))
        return false;
    list_specials(t);
    if (!load_ends(t, gguf, err) || !id_of(t, gguf, KEY "bos_token_id", &t->bos, err) ||
        !gguf_bool_or(gguf, KEY "add_bos_token", split_row(t->split)->adds_bos, &t->add_bos, err))
        return false;
    if (t->add_bos && t->bos == TOKEN_NONE)
        return err_set(err, ERR_NOT_FOUND,
                       "metadata key '" KEY "bos_token_id' is missing, and prompts begin with it");
    return true;
}

void vocab_done(Tokenizer *t) {
    mem_give(t->text_at, t->count, sizeof *t->text_at);
    mem_give(t->piece_at, t->count + 1, sizeof *t->piece_at);
    mem_give(t->pieces, t->piece_room, 1);
    mem_give(t->kinds, t->count, sizeof *t->kinds);
    mem_give((void *)t->whole, t->count, sizeof *t->whole);
    mem_give(t->words, t->word_room, sizeof *t->words);
    mem_give(t->merges, t->merge_room, sizeof *t->merges);
    free(t->specials);
    split_free(t->split);
}
