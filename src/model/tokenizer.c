// SPDX-License-Identifier: Apache-2.0
#include "tokenizer.h"

#include "tokenizer_internal.h"

#include <stdlib.h>
#include <utf8proc.h>

#define NO_SYMBOL UINT32_MAX

typedef struct Symbol { /* a piece of the word that is being merged, at the place of its first byte
                         */
    int32_t id;         /* TOKEN_NONE for a byte without a token: it never merges */
    uint32_t before, behind;
    uint32_t rank; /* of the merge with the symbol behind; RANK_NONE when there is none */
} Symbol;

/* One call of tokenizer_encode(). */
typedef struct Encoder {
    const Tokenizer *t;
    Tokens *out;
    const char *subject; /* what is cut into words, and ... */
    const char *text;    /* ... what they are made of: as long, other bytes only for surrogates */
    Symbol *symbols;
    size_t symbol_room;
    uint64_t *heap; /* rank << 32 | place of the left symbol: least rank first, then leftmost */
    size_t heap_length, heap_room;
    bool full; /* out->limit is reached and there was more */
} Encoder;

void tokens_add(Tokens *tokens, int32_t id) {
    mem_reserve(tokens->ids, tokens->capacity, tokens->length + 1);
    tokens->ids[tokens->length++] = id;
}

void tokens_done(Tokens *tokens) {
    free(tokens->ids);
    *tokens = (Tokens){.limit = tokens->limit};
}

static void emit(Encoder *e, int32_t id) {
    if (id == TOKEN_NONE)
        e->out->lost++;
    else if (e->out->limit && e->out->length >= e->out->limit)
        e->full = true;
    else
        tokens_add(e->out, id);
}

static void heap_push(Encoder *e, uint64_t key) {
    mem_reserve(e->heap, e->heap_room, e->heap_length + 1);
    size_t at = e->heap_length++;
    for (; at && e->heap[(at - 1) / 2] > key; at = (at - 1) / 2)
        e->heap[at] = e->heap[(at - 1) / 2];
    e->heap[at] = key;
}

static uint64_t heap_pop(Encoder *e) {
    uint64_t least = e->heap[0], moved = e->heap[--e->heap_length];
    size_t at = 0, child;
    while ((child = 2 * at + 1) < e->heap_length) {
        if (child + 1 < e->heap_length && e->heap[child + 1] < e->heap[child]) child++;
        if (e->heap[child] >= moved) break;
        e->heap[at] = e->heap[child];
        at = child;
    }
    e->heap[at] = moved;
    return least;
}

/* Looks up the merge of the symbol at `place` with the one behind it. */
static void offer_merge(Encoder *e, uint32_t place) {
    Symbol *s = &e->symbols[place];
    s->rank = RANK_NONE;
    if (s->behind == NO_SYMBOL) return;
    s->rank = vocab_merge(e->t, s->id, e->symbols[s->behind].id)->rank;
    if (s->rank != RANK_NONE) heap_push(e, (uint64_t)s->rank << 32 | place);
}

/* Joins the symbol at `place` with the one behind it. */
static void merge_at(Encoder *e, uint32_t place) {
    Symbol *left = &e->symbols[place], *right = &e->symbols[left->behind];
    left->id = vocab_merge(e->t, left->id, right->id)->id;
    left->behind = right->behind;
    right->rank = RANK_NONE; /* what the heap still holds of it is stale */
    if (left->behind != NO_SYMBOL) e->symbols[left->behind].before = place;
    if (left->before != NO_SYMBOL) offer_merge(e, left->before);
    offer_merge(e, place);
}

/* Byte-pair encoding: the pair of the least rank is merged first, of several the leftmost. */
static void encode_merging(Encoder *e, const char *word, size_t length) {
    mem_reserve(e->symbols, e->symbol_room, length);
    e->heap_length = 0;
    for (size_t i = 0; i < length; i++)
        e->symbols[i] = (Symbol){.id = e->t->byte_ids[(uint8_t)word[i]],
                                 .before = i ? (uint32_t)i - 1 : NO_SYMBOL,
                                 .behind = i + 1 < length ? (uint32_t)i + 1 : NO_SYMBOL};
    for (size_t i = 0; i < length; i++) offer_merge(e, (uint32_t)i);
    while (e->heap_length) {
        uint64_t key = heap_pop(e);
        uint32_t place = (uint32_t)key;
        if (e->symbols[place].rank == key >> 32) merge_at(e, place); /* else it is stale */
    }
    for (uint32_t i = 0; i != NO_SYMBOL; i = e->symbols[i].behind) emit(e, e->symbols[i].id);
}

/* Most words of a text are one token.  Whether merging would give just that token is found out once
 * for each, so that nearly all words cost one look into a table. */
static bool encode_word(void *user, const char *at, size_t length, Err *err) {
    Encoder *e = user;
    const Tokenizer *t = e->t;
    const char *word = e->text + (at - e->subject);
    int32_t id = vocab_find_word(t, word, length);
    uint8_t whole = WHOLE_NO;
    if (id != TOKEN_NONE) {
        whole = atomic_load_explicit(&t->whole[id], memory_order_relaxed);
        if (split_row(t->split)->whole_words && !(t->kinds[id] & (KIND_SPECIAL | KIND_USER)))
            whole = WHOLE_YES;
    }
    if (whole == WHOLE_YES) {
        emit(e, id);
    } else {
        encode_merging(e, word, length);
        if (whole == WHOLE_UNKNOWN)
            atomic_store_explicit(&t->whole[id], e->symbols[0].id == id ? WHOLE_YES : WHOLE_NO,
                                  memory_order_relaxed);
    }
    if (e->full)
        return err_set(err, ERR_TOO_LARGE, "text has more than %zu tokens", e->out->limit);
    return true;
}

/* What a decoder without knowledge of overlong forms and surrogates reads: models were made with
 * such a one.  Any byte that it cannot read is U+FFFD. */
static uint32_t next_lenient(const char **at, const char *end, bool *bad) {
    const uint8_t *s = (const uint8_t *)*at;
    size_t n = s[0] < 0x80 ? 1 : s[0] < 0xc0 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    uint32_t c = n == 1 ? s[0] : s[0] & (0xffu >> (n + 1));
    bool ok = n && s[0] < 0xf8 && n <= (size_t)(end - *at);
    for (size_t i = 1; ok && i < n; i++) {
        ok = (s[i] & 0xc0) == 0x80;
        c = c << 6 | (s[i] & 0x3f);
    }
    *bad = !ok || c > 0x10ffff;
    *at += *bad ? 1 : n;
    return *bad ? 0xfffd : c;
}

/* Makes `text` UTF-8, and `subject` the same with U+FFFD (as long) in the place of surrogates,
 * which PCRE2 refuses.  Gives the number of bytes that are not carried over. */
static size_t repair(Str broken, Buf *text, Buf *subject) {
    size_t lost = 0;
    bool bad;
    for (const char *at = broken.at, *end = at + broken.length; at < end;) {
        const char *begin = at;
        size_t before = text->length;
        uint32_t c = next_lenient(&at, end, &bad);
        buf_utf8(text, c);
        buf_utf8(subject, c >= 0xd800 && c < 0xe000 ? 0xe000 : c);
        if (bad || text->length - before != (size_t)(at - begin)) lost += (size_t)(at - begin);
    }
    return lost;
}

/* Everything below U+0300 is in form NFC already; from there on a character's first byte is 0xcc or
 * more, and no other byte is. */
static bool has_composable(Str text) {
    for (size_t i = 0; i < text.length; i++)
        if ((uint8_t)text.at[i] >= 0xcc) return true;
    return false;
}

/* Text without special tokens. */
static bool encode_plain(Encoder *e, Str text, Err *err) {
    if (!text.length) return true;
    auto_buf Buf repaired = {0}, subject = {0};
    if (!utf8_valid(text.at, text.length)) {
        e->out->lost += repair(text, &repaired, &subject);
        text = (Str){repaired.at, repaired.length};
    }
    auto_free utf8proc_uint8_t *composed = NULL;
    if (split_row(e->t->split)->composes && has_composable(text)) {
        utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)text.at,
                                          (utf8proc_ssize_t)text.length, &composed,
                                          UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        if (n > 0) { /* surrogates have no such form: then it is not composed */
            text = (Str){(const char *)composed, (size_t)n};
            buf_clear(&subject);
        }
    }
    e->text = text.at;
    e->subject = subject.length ? subject.at : text.at;
    return split_text(e->t->split, (Str){e->subject, text.length}, encode_word, e, err);
}

/* Of specials[first..end), whose texts are longer than `depth` and the same before it: the first
 * with a byte of at least `least` there. */
static size_t special_bound(const Tokenizer *t, size_t first, size_t end, size_t depth,
                            unsigned least) {
    while (first < end) {
        size_t middle = first + (end - first) / 2;
        if ((uint8_t)t->specials[middle].text.at[depth] < least)
            first = middle + 1;
        else
            end = middle;
    }
    return first;
}

/* The longest special token that the text begins with, or NULL. */
static const Special *special_at(const Tokenizer *t, Str text, bool parse_special) {
    const Special *found = NULL;
    size_t first = 0, end = t->special_count;
    for (size_t depth = 0; first < end; depth++) {
        /* The texts that end here stand first among those that begin like this. */
        for (; first < end && t->specials[first].text.length == depth; first++)
            if (parse_special || (t->kinds[t->specials[first].id] & KIND_USER))
                found = &t->specials[first];
        if (depth == text.length) break;
        uint8_t c = (uint8_t)text.at[depth];
        first = special_bound(t, first, end, depth, c);
        end = special_bound(t, first, end, depth, c + 1u);
    }
    return found;
}

bool tokenizer_encode(const Tokenizer *t, Str text, bool parse_special, Tokens *out, Err *err) {
    if (text.length > LIMIT_TEXT)
        return err_set(err, ERR_TOO_LARGE, "text has %zu bytes, the limit is %zu", text.length,
                       LIMIT_TEXT);
    if (out->limit && text.length / t->longest > out->limit) /* no need to count them */
        return err_set(err, ERR_TOO_LARGE, "text has %zu bytes, over what %zu tokens can hold",
                       text.length, out->limit);
    Encoder e = {.t = t, .out = out};
    bool ok = true;
    size_t done = 0, at = 0;
    while (ok && at < text.length) {
        const Special *special = t->special_first[(uint8_t)text.at[at]]
                                     ? special_at(t, (Str){text.at + at, text.length - at},
                                                  parse_special)
                                     : NULL;
        if (!special) {
            at++;
            continue;
        }
        ok = encode_plain(&e, (Str){text.at + done, at - done}, err);
        if (ok) emit(&e, special->id);
        at += special->text.length;
        done = at;
    }
    ok = ok && encode_plain(&e, (Str){text.at + done, text.length - done}, err);
    if (ok && e.full)
        ok = err_set(err, ERR_TOO_LARGE, "text has more than %zu tokens", out->limit);
    free(e.symbols);
    free(e.heap);
    return ok;
}

Tokenizer *tokenizer_new(const Gguf *gguf, Err *err) {
    Tokenizer *t = mem_new(sizeof *t);
    if (vocab_load(t, gguf, err)) return t;
    tokenizer_free(t);
    return NULL;
}

void tokenizer_free(Tokenizer *t) {
    if (!t) return;
    vocab_done(t);
    free(t);
}

static bool in_vocab(const Tokenizer *t, int32_t id) { return id >= 0 && (size_t)id < t->count; }

size_t tokenizer_vocab_size(const Tokenizer *t) { return t->count; }
size_t tokenizer_longest_piece(const Tokenizer *t) { return t->longest; }
int32_t tokenizer_bos(const Tokenizer *t) { return t->bos; }
int32_t tokenizer_eos(const Tokenizer *t) { return t->eos; }
int32_t tokenizer_eot(const Tokenizer *t) { return t->eot; }
bool tokenizer_add_bos(const Tokenizer *t) { return t->add_bos; }

Str tokenizer_piece(const Tokenizer *t, int32_t id) {
    if (!in_vocab(t, id)) return (Str){"", 0};
    uint32_t begin = t->piece_at[id];
    return (Str){t->pieces + begin, t->piece_at[id + 1] - begin};
}

Str tokenizer_token_str(const Tokenizer *t, int32_t id) {
    if (!in_vocab(t, id)) return (Str){"", 0};
    GgufArray one = {GGUF_STRING, 1, t->texts + t->text_at[id], 0};
    Str text = {"", 0};
    gguf_next_str(&one, &text);
    return text;
}

bool tokenizer_is_special(const Tokenizer *t, int32_t id) {
    return in_vocab(t, id) && (t->kinds[id] & KIND_SPECIAL);
}

bool tokenizer_is_end_of_generation(const Tokenizer *t, int32_t id) {
    return in_vocab(t, id) && (t->kinds[id] & KIND_END);
}
