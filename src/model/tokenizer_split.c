// SPDX-License-Identifier: Apache-2.0
#include "tokenizer_internal.h"

#include <stdlib.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* Classes for inside [].  The tokenizers were trained with Unicode's letters and numbers of 15.1;
 * PCRE2 10.42 knows 14.0, so what came after that is listed.  Its \s has U+180E, which Unicode no
 * longer counts as a space, so spaces are listed too. */
#define L                                                                                         \
    "\\p{L}\\x{1123f}\\x{11240}\\x{11f02}\\x{11f04}-\\x{11f10}\\x{11f12}-\\x{11f33}\\x{1342f}"     \
    "\\x{13441}-\\x{13446}\\x{1b132}\\x{1b155}\\x{1df25}-\\x{1df2a}\\x{1e030}-\\x{1e06d}"          \
    "\\x{1e4d0}-\\x{1e4eb}\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}"
#define N "\\p{N}\\x{11f50}-\\x{11f59}\\x{1d2c0}-\\x{1d2d3}\\x{1e4f0}-\\x{1e4f9}"
#define M                                                                                         \
    "\\p{M}\\x{cf3}\\x{ece}\\x{10efd}-\\x{10eff}\\x{11241}\\x{11f00}\\x{11f01}\\x{11f03}"          \
    "\\x{11f34}-\\x{11f3a}\\x{11f3e}-\\x{11f42}\\x{13440}\\x{13447}-\\x{13455}\\x{1e08f}"          \
    "\\x{1e4ec}-\\x{1e4ef}"
#define P "\\p{P}\\x{11b00}-\\x{11b09}\\x{11f43}-\\x{11f4f}"
#define SYMBOL                                                                                     \
    "\\p{S}\\x{2ffc}-\\x{2fff}\\x{31ef}\\x{1f6dc}\\x{1f774}-\\x{1f776}\\x{1f77b}-\\x{1f77f}"       \
    "\\x{1f7d9}\\x{1fa75}-\\x{1fa77}\\x{1fa87}\\x{1fa88}\\x{1faad}-\\x{1faaf}\\x{1fabb}-\\x{"      \
    "1fabd}"                                                                                       \
    "\\x{1fabf}\\x{1face}\\x{1facf}\\x{1fada}\\x{1fadb}\\x{1fae8}\\x{1faf7}\\x{1faf8}"
#define S                                                                                         \
    "\\t-\\r \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}"       \
    "\\x{3000}"

/* The ends of most patterns: spaces before a word leave the last one to it. */
#define SPACES "[" S "]+(?![^" S "])|[" S "]+"
/* Tried at the first of the spaces only: at each of them, n spaces and a letter cost n * n steps.
 */
#define SPACES_AT_END "(?<![" S "])[" S "]+$"
#define LINES "[" S "]*[\\r\\n]+|" SPACES

#define DIGIT "[" N "]"
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?[" L "]+| ?[" N "]+| ?[^" S L N "]+|" SPACES
#define CL100K(digits)                                                                            \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n" L N "]?[" L "]+|[" N "]" digits                       \
    "| ?[^" S L N "]+[\\r\\n]*|" LINES
#define LLAMA3 CL100K("{1,3}")
#define QWEN2 CL100K("")

/* Letters that have a case, as the tokenizer of DeepSeek-V2 lists them. */
#define DEEPSEEK_CASED                                                                            \
    "[" S "]?["                                                                                   \
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}"                \
    "\\x{1c4}-\\x{293}\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}"        \
    "\\x{37f}\\x{386}\\x{388}-\\x{38a}\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}"                 \
    "\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}\\x{10a0}-\\x{10c5}"                      \
    "\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}"                \
    "\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}"                \
    "\\x{1f18}-\\x{1f1d}\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}"       \
    "\\x{1f5b}\\x{1f5d}\\x{1f5f}-\\x{1f7d}\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}"        \
    "\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}\\x{1fd6}-\\x{1fdb}"                \
    "\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}"                 \
    "\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}\\x{2124}\\x{2126}\\x{2128}"                  \
    "\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}"       \
    "\\x{214e}\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}\\x{2ceb}-\\x{2cee}"        \
    "\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}"                 \
    "\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}\\x{fb00}-\\x{fb06}"                \
    "\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}"              \
    "\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}"        \
    "\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}"                                                  \
    "]+"
#define DEEPSEEK_PUNCTUATION                                                                      \
    "[" S "]?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}"                  \
    "\\x{3000}-\\x{3002}]+"
#define DEEPSEEK_MAIN                                                                             \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n" L P SYMBOL "]?[" L M "]+"    \
    "| ?[" P SYMBOL "]+[\\r\\n]*|" LINES

/* The patterns are those of the models' own tokenizer.json files. */
static const SplitRow rows[] = {
    {"smollm", {DIGIT, GPT2}},
    {"starcoder", {DIGIT, GPT2}},
    {"refact", {DIGIT, GPT2}},
    {"command-r", {DIGIT, GPT2}},
    {"gpt-2", {GPT2}},
    {"llama-bpe", {LLAMA3}, .whole_words = true, .adds_bos = true},
    {"llama3", {LLAMA3}, .whole_words = true, .adds_bos = true},
    {"llama-v3", {LLAMA3}, .whole_words = true, .adds_bos = true},
    {"qwen2", {QWEN2}, .composes = true},
    {"deepseek-r1-qwen", {QWEN2}, .composes = true},
    {"deepseek-llm",
     {"[\\r\\n]", DEEPSEEK_CASED, DEEPSEEK_PUNCTUATION, SPACES_AT_END,
      "[\\x{800}-\\x{9fa5}\\x{ac00}-\\x{d7ff}]+", DIGIT}},
    {"deepseek-v3", {"[" N "]{1,3}", "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{30ff}]+", DEEPSEEK_MAIN}},
    {"default", {"[" P "$+<=>^~|]+", GPT2, "[" N "]+", "[0-9][0-9][0-9]"}},
};

#define STAGES COUNT_OF(rows[0].patterns)

struct Split {
    const SplitRow *row;
    size_t stages;
    pcre2_code *codes[STAGES];
};

const SplitRow *split_row(const Split *split) { return split->row; }

static const SplitRow *find_row(Str name, Err *err) {
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        if (str_eq(name, rows[i].name)) return &rows[i];
    err_set(err, ERR_UNSUPPORTED,
            "metadata key 'tokenizer.ggml.pre' is '" STR_FMT "', a pre-tokenizer that is not known",
            STR_ARG(name));
    Buf known = {.limit = sizeof err->hint - 32};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        if (i) buf_str(&known, ", ");
        buf_str(&known, rows[i].name);
    }
    err_hint(err, "The known ones are: %s.", known.at);
    buf_done(&known);
    return NULL;
}

Split *split_new(Str name, Err *err) {
    const SplitRow *row = find_row(name, err);
    if (!row) return NULL;
    Split *split = mem_new(sizeof *split);
    split->row = row;
    for (; split->stages < STAGES && row->patterns[split->stages]; split->stages++) {
        int code;
        size_t at;
        const char *pattern = row->patterns[split->stages];
        pcre2_code **out = &split->codes[split->stages];
        *out = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                             PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY, &code, &at, NULL);
        if (!*out) {
            err_set(err, ERR_INTERNAL,
                    "PCRE2 cannot compile pattern %zu of '%s': error %d at byte %zu",
                    split->stages + 1, row->name, code, at);
            split_free(split);
            return NULL;
        }
        pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE); /* where that is forbidden it runs slower */
    }
    return split;
}

void split_free(Split *split) {
    if (!split) return;
    for (size_t i = 0; i < STAGES; i++) pcre2_code_free(split->codes[i]);
    free(split);
}

typedef struct Run {
    const Split *split;
    pcre2_match_data *found[STAGES];
    SplitWord word;
    void *user;
    Err *err;
} Run;

static int find_match(const Run *run, size_t stage, Str text, size_t from) {
    const pcre2_code *code = run->split->codes[stage];
    uint32_t options = PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY;
    int found = pcre2_match(code, (PCRE2_SPTR)text.at, text.length, from, options,
                            run->found[stage], NULL);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter takes its stack from the heap */
        found = pcre2_match(code, (PCRE2_SPTR)text.at, text.length, from,
                            options | PCRE2_NO_JIT, run->found[stage], NULL);
    return found;
}

/* Cuts `text` with the pattern of this stage and hands the pieces to the next; the text is complete
 * for a pattern: it sees nothing before or behind it. */
static bool split_stage(const Run *run, size_t stage, Str text) {
    if (stage == run->split->stages) return run->word(run->user, text.at, text.length, run->err);
    const size_t *match = pcre2_get_ovector_pointer(run->found[stage]);
    size_t done = 0;
    while (done < text.length) {
        int found = find_match(run, stage, text, done);
        if (found == PCRE2_ERROR_NOMATCH) break;
        if (found < 0)
            return err_set(run->err, ERR_INTERNAL, "PCRE2 failed on pattern %zu of '%s': error %d",
                           stage + 1, run->split->row->name, found);
        size_t begin = match[0], end = match[1];
        if (begin > done && !split_stage(run, stage + 1, (Str){text.at + done, begin - done}))
            return false;
        if (!split_stage(run, stage + 1, (Str){text.at + begin, end - begin})) return false;
        done = end;
    }
    return done == text.length ||
           split_stage(run, stage + 1, (Str){text.at + done, text.length - done});
}

bool split_text(const Split *split, Str text, SplitWord word, void *user, Err *err) {
    Run run = {.split = split, .word = word, .user = user, .err = err};
    bool ok = true;
    for (size_t i = 0; i < split->stages; i++) {
        run.found[i] = pcre2_match_data_create(1, NULL);
        if (!run.found[i]) ok = err_set(err, ERR_EXHAUSTED, "could not get memory for PCRE2");
    }
    ok = ok && split_stage(&run, 0, text);
    for (size_t i = 0; i < split->stages; i++) pcre2_match_data_free(run.found[i]);
    return ok;
}
