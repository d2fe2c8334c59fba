// SPDX-License-Identifier: Apache-2.0
/* tokenizer_internal.h - what the parts of the tokenizer know of each other.
 *
 *     tokenizer_vocab.c   reads the vocabulary and the merges out of the GGUF file
 *     tokenizer_split.c   cuts text into words: the table of pre-tokenizers
 *     tokenizer.c         joins both: text -> words -> merged pairs -> ids
 *     tokenizer_detok.c   ids -> text */
#ifndef BATON_MODEL_TOKENIZER_INTERNAL_H
#define BATON_MODEL_TOKENIZER_INTERNAL_H

#include "tokenizer.h"

/* tokenizer_split.c */

typedef struct Split Split; /* one compiled pre-tokenizer; any number of threads may use it */
typedef struct SplitRow {
    const char *name;        /* as in `tokenizer.ggml.pre` */
    const char *patterns[6]; /* each cuts what the ones before it left in pieces, as matches and the
                                text between them */
    bool whole_words;        /* a word that is a token is that token, whatever the merges give */
    bool composes;           /* text is put into Unicode's form NFC first */
    bool adds_bos;           /* unless the file says otherwise */
} SplitRow;

Split *split_new(Str name, Err *err) MUST_CHECK;
void split_free(Split *split);
const SplitRow *split_row(const Split *split);

/* Calls word() for each word in order, until it returns false or the text (UTF-8, no surrogates)
 * ends. */
typedef bool (*SplitWord)(void *user, const char *at, size_t length, Err *err);
bool split_text(const Split *split, Str text, SplitWord word, void *user, Err *err);

/* tokenizer_vocab.c */

enum { /* Tokenizer.kinds */
    KIND_SPECIAL = 1, /* control or unknown: parsed when asked for */
    KIND_USER = 2,    /* user-defined: always parsed */
    KIND_UNUSED = 4,  /* has no text */
    KIND_END = 8,     /* ends the generation */
};

enum { WHOLE_UNKNOWN, WHOLE_YES, WHOLE_NO }; /* Tokenizer.whole */

typedef struct WordSlot { /* of a table with open addressing, keyed by a token's raw bytes */
    uint32_t hash;
    int32_t id; /* TOKEN_NONE: empty */
} WordSlot;

#define RANK_NONE UINT32_MAX
typedef struct Merge { /* of a table with open addressing, keyed by the pair */
    int32_t left, right;
    uint32_t rank; /* RANK_NONE: empty */
    int32_t id;    /* of the two together */
} Merge;

typedef struct Special { /* a token that is looked for in texts as it stands */
    Str text;
    int32_t id;
} Special;

struct Tokenizer {
    size_t count;          /* tokens */
    const uint8_t *texts;  /* the array in the file */
    uint32_t *text_at;     /* [count] where each text's length stands */
    char *pieces;          /* [piece_room] raw bytes of all tokens */
    uint32_t *piece_at;    /* [count + 1] */
    uint8_t *kinds;        /* [count] */
    _Atomic uint8_t *whole; /* [count] does merging the token's own bytes give the token?  Found out
                               when first asked for; a race writes the same answer twice */
    WordSlot *words;       /* [word_room] */
    Merge *merges;         /* [merge_room] */
    size_t piece_room, word_room, merge_room, longest;
    int32_t byte_ids[256]; /* TOKEN_NONE: this vocabulary cannot say that byte */
    Special *specials;     /* [special_count] sorted by text */
    size_t special_count;
    bool special_first[256]; /* bytes that such a text begins with */
    int32_t bos, eos, eot;
    bool add_bos;
    Split *split;
};

bool vocab_load(Tokenizer *t, const Gguf *gguf, Err *err);
void vocab_done(Tokenizer *t);
int32_t vocab_find_word(const Tokenizer *t, const char *bytes, size_t length); /* or TOKEN_NONE */

static inline size_t merge_hash(int32_t left, int32_t right) {
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    return (size_t)(pair * 0x9e3779b97f4a7c15u >> 24);
}

/* The merge of a pair of tokens, or an empty slot. */
static inline const Merge *vocab_merge(const Tokenizer *t, int32_t left, int32_t right) {
    for (size_t i = merge_hash(left, right);; i++) {
        const Merge *merge = &t->merges[i & (t->merge_room - 1)];
        if (merge->rank == RANK_NONE || (merge->left == left && merge->right == right))
            return merge;
    }
}

#endif
