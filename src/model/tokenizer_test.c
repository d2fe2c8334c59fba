// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include "tokenizer.h"
#include "tokenizer_test.h"
#include <cmocka.h>

static Buf tiny_file;
static Gguf *tiny_gguf;
static Tokenizer *tiny;

static int open_tiny(void **state) {
    (void)state;
    Err err = {0};
    GgufWriter w = {0};
    put_tiny_vocab(&w, "gpt-2");
    tiny_file = put_end(&w);
    tiny_gguf = gguf_view((uint8_t *)tiny_file.at, tiny_file.length, &err);
    tiny = tiny_gguf ? tokenizer_new(tiny_gguf, &err) : NULL;
    if (!tiny) fprintf(stderr, "%s\n", err.message);
    return tiny ? 0 : -1;
}

static int close_tiny(void **state) {
    (void)state;
    tokenizer_free(tiny);
    gguf_close(tiny_gguf);
    buf_done(&tiny_file);
    return 0;
}

/* The pieces of the tokens, one after the other. */
static Buf join(const Tokenizer *t, const Tokens *tokens) {
    Buf text = {0};
    for (size_t i = 0; i < tokens->length; i++) {
        Str piece = tokenizer_piece(t, tokens->ids[i]);
        buf_append(&text, piece.at, piece.length);
    }
    return text;
}

static void encodes_to(Str text, bool parse_special, const int32_t *ids, size_t count) {
    Err err = {0};
    auto_tokens Tokens tokens = {0};
    assert_true(tokenizer_encode(tiny, text, parse_special, &tokens, &err));
    assert_int_equal(tokens.length, count);
    for (size_t i = 0; i < count; i++) assert_int_equal(tokens.ids[i], ids[i]);
}
#define ENCODES(text, special, ...)                                                               \
    encodes_to(STR(text), special, (int32_t[]){__VA_ARGS__}, COUNT_OF(((int32_t[]){__VA_ARGS__})))

static void pairs_are_merged_by_rank_and_then_from_the_left(void **state) {
    (void)state;
    ENCODES("the", false, 257);
    ENCODES(" the the", false, TINY_THE, TINY_THE);
    ENCODES("hein", false, 256, 259);
    ENCODES("aaaaa", false, 262, 'a');  /* aa aa a, then aaaa a */
    ENCODES("aaa", false, 261, 'a');
    ENCODES("abc", false, 265, 'c');    /* "a b" stands before "b c" */
    ENCODES("bcab", false, 266, 265);
    ENCODES("the1", false, 257, '1');
    ENCODES("a12", false, 'a', 269);    /* this pre-tokenizer keeps digits together */
    encodes_to(STR(""), true, NULL, 0);
}

static void a_token_whose_merges_give_something_else_is_not_taken_whole(void **state) {
    (void)state;
    /* "ing" merges to itself; "\xc3\xa9" is a letter; asked twice, the second time from memory. */
    for (int twice = 0; twice < 2; twice++) {
        ENCODES("ing", false, 260);
        ENCODES("\xc3\xa9", false, TINY_E_ACUTE);
    }
    GgufWriter w = {0};
    put_key_str(&w, "tokenizer.ggml.model", "gpt2");
    put_key_str(&w, "tokenizer.ggml.pre", "gpt-2");
    put_key_array(&w, "tokenizer.ggml.tokens", GGUF_STRING, 6);
    for (const char *c = "a\0b\0c\0ab\0bc\0abc\0"; *c; c += strlen(c) + 1)
        put_str(&w.keys, str_of(c));
    put_key_array(&w, "tokenizer.ggml.merges", GGUF_STRING, 3);
    put_str(&w.keys, STR("b c"));
    put_str(&w.keys, STR("a b"));
    put_str(&w.keys, STR("ab c")); /* never reached: "b c" comes first */
    auto_buf Buf file = put_end(&w);
    Err err = {0};
    Gguf *g = gguf_view((uint8_t *)file.at, file.length, &err);
    Tokenizer *t = tokenizer_new(g, &err);
    assert_non_null(t);
    for (int twice = 0; twice < 2; twice++) {
        auto_tokens Tokens tokens = {0};
        assert_true(tokenizer_encode(t, STR("abc"), false, &tokens, &err));
        assert_int_equal(tokens.length, 2);
        assert_int_equal(tokens.ids[0], 0);
        assert_int_equal(tokens.ids[1], 4);
    }
    tokenizer_free(t);
    gguf_close(g);
}

static void special_tokens_are_found_only_when_asked_for(void **state) {
    (void)state;
    ENCODES("<|im_end|>", true, TINY_IM_END);
    ENCODES("<|im_end|>a<|im_start|>", true, TINY_IM_END, 'a', TINY_IM_START);
    ENCODES("<|im_en", true, TINY_IM, '_', 'e', 'n'); /* a shorter one that fits */
    ENCODES("<|i", true, '<', '|', 'i');
    ENCODES("<|<|im_end|>", true, '<', '|', TINY_IM_END);
    ENCODES("<|im", false, '<', '|', 'i', 'm');
    ENCODES("<unk>", true, TINY_UNK);
    ENCODES("<unk>", false, '<', 'u', 'n', 'k', '>');
    ENCODES("[PAD]", true, '[', 'P', 'A', 'D', ']');
    ENCODES("a<tool>b", false, 'a', TINY_TOOL, 'b'); /* a user-defined one always is */
    ENCODES(" <tool> the", false, ' ', TINY_TOOL, TINY_THE);
}

static void a_text_over_the_limit_is_refused_with_the_first_tokens(void **state) {
    (void)state;
    Err err = {0};
    auto_tokens Tokens tokens = {.limit = 3};
    assert_true(tokenizer_encode(tiny, STR("1 1"), false, &tokens, &err));
    tokens.length = 0;
    assert_false(tokenizer_encode(tiny, STR("1 1 1 1"), false, &tokens, &err));
    assert_int_equal(err.code, ERR_TOO_LARGE);
    assert_string_equal(err.message, "text has more than 3 tokens");
    assert_int_equal(tokens.length, 3);
    tokens.length = 0;
    assert_false(tokenizer_encode(tiny, STR("<|im<|im<|im<|im"), true, &tokens, &err));
    assert_int_equal(tokens.length, 3);
    tokens.length = 0;
    char text[48];
    memset(text, 'a', sizeof text);
    assert_false(tokenizer_encode(tiny, (Str){text, 48}, true, &tokens, &err));
    assert_string_equal(err.message, "text has 48 bytes, over what 3 tokens can hold");
    auto_free char *long_text = mem_new(LIMIT_TEXT + 1);
    tokens.limit = 0;
    assert_false(tokenizer_encode(tiny, (Str){long_text, LIMIT_TEXT + 1}, true, &tokens, &err));
    assert_int_equal(err.code, ERR_TOO_LARGE);
    assert_string_equal(err.message, "text has 33554433 bytes, the limit is 33554432");
}

static void bytes_that_are_not_utf8_are_replaced_and_counted(void **state) {
    (void)state;
    static const struct {
        const char *text, *comes_back;
        size_t lost;
    } cases[] = {
        {"a\xff" "b", "a\xef\xbf\xbd" "b", 1},
        {"\xe2\x82", "\xef\xbf\xbd\xef\xbf\xbd", 2},
        {"\xf8\x88\x80\x80\x80",
         "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", 5},
        {"\xc1\xa1", "a", 2},                    /* overlong */
        {"\xe0\x81\xa1", "a", 3},
        {"\xed\xa0\x80", "\xed\xa0\x80", 0},     /* a surrogate stays as it is */
        {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", 4},
        {"\xf7\xbf\xbf\xbf", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", 4},
        {"caf\xc3\xa9", "caf\xc3\xa9", 0},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        Err err = {0};
        auto_tokens Tokens tokens = {0};
        assert_true(tokenizer_encode(tiny, str_of(cases[i].text), false, &tokens, &err));
        auto_buf Buf text = join(tiny, &tokens);
        assert_string_equal(text.at, cases[i].comes_back);
        assert_int_equal(tokens.lost, cases[i].lost);
    }
}

static void every_code_point_comes_back(void **state) {
    (void)state;
    auto_buf Buf text = {0};
    for (uint32_t c = 0; c < 0x110000; c += c < 0x3000 ? 1 : 7) buf_utf8(&text, c);
    Err err = {0};
    auto_tokens Tokens tokens = {0};
    assert_true(tokenizer_encode(tiny, (Str){text.at, text.length}, true, &tokens, &err));
    assert_int_equal(tokens.lost, 0);
    auto_buf Buf back = join(tiny, &tokens);
    assert_int_equal(back.length, text.length);
    assert_memory_equal(back.at, text.at, text.length);
}

static void pieces_and_kinds_are_told(void **state) {
    (void)state;
    assert_int_equal(tokenizer_vocab_size(tiny), TINY_SIZE);
    assert_int_equal(tokenizer_longest_piece(tiny), 12);
    assert_true(str_eq(tokenizer_piece(tiny, TINY_THE), " the"));
    assert_true(str_eq(tokenizer_token_str(tiny, TINY_THE), "\xc4\xa0the"));
    assert_true(str_same(tokenizer_piece(tiny, 0), (Str){"", 1}));
    assert_true(str_eq(tokenizer_piece(tiny, 0xff), "\xff"));
    assert_true(str_eq(tokenizer_token_str(tiny, 0xff), "\xc3\xbf"));
    assert_true(str_eq(tokenizer_piece(tiny, TINY_IM_END), "<|im_end|>"));
    assert_true(str_eq(tokenizer_token_str(tiny, TINY_IM_END), "<|im_end|>"));
    assert_true(str_eq(tokenizer_piece(tiny, TINY_UNUSED), ""));
    assert_true(str_eq(tokenizer_token_str(tiny, TINY_UNUSED), "[PAD]"));
    for (int32_t id = -2; id < TINY_SIZE + 2; id++) {
        assert_int_equal(tokenizer_is_special(tiny, id),
                         (id >= TINY_IM_END && id <= TINY_IM) || id == TINY_UNK);
        assert_int_equal(tokenizer_is_end_of_generation(tiny, id),
                         id == TINY_IM_END || id == TINY_IM);
        if (id < 0 || id >= TINY_SIZE) {
            assert_int_equal(tokenizer_piece(tiny, id).length, 0);
            assert_int_equal(tokenizer_token_str(tiny, id).length, 0);
        }
    }
    assert_int_equal(tokenizer_bos(tiny), TINY_IM_START);
    assert_int_equal(tokenizer_eos(tiny), TINY_IM);
    assert_int_equal(tokenizer_eot(tiny), TINY_IM_END);
    assert_false(tokenizer_add_bos(tiny));
}

static void an_end_counts_only_for_a_token_that_is_no_text(void **state) {
    (void)state;
    static const struct {
        const char *tokens[4];
        int32_t types[4];
        int ends; /* bit i: token i ends a generation */
        int32_t eot;
    } cases[] = {
        {{"a", "</s>", "<|eot_id|>", "b"}, {1, 1, 3, 1}, 1 << 2, 2},
        {{"a", "</s>", "<|endoftext|>", "<|im_end|>"}, {1, 3, 3, 3}, 1 << 1 | 1 << 2 | 1 << 3, 3},
        {{"a", "<|end|>", "<|call|>", "<|return|>"}, {1, 3, 3, 3}, 1 << 2 | 1 << 3, 1},
        {{"a", "<|end|>", "<|call|>", "b"}, {1, 3, 3, 1}, 1 << 1 | 1 << 2, 1},
        {{"a", "b", "c", "d"}, {1, 1, 1, 1}, 0, TOKEN_NONE},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        GgufWriter w = {0};
        put_key_str(&w, "tokenizer.ggml.model", "gpt2");
        put_key_str(&w, "tokenizer.ggml.pre", "gpt-2");
        put_key_array(&w, "tokenizer.ggml.tokens", GGUF_STRING, 4);
        for (int k = 0; k < 4; k++) put_str(&w.keys, str_of(cases[i].tokens[k]));
        put_key_array(&w, "tokenizer.ggml.token_type", GGUF_I32, 4);
        for (int k = 0; k < 4; k++) put_u32(&w.keys, (uint32_t)cases[i].types[k]);
        put_key_array(&w, "tokenizer.ggml.merges", GGUF_STRING, 0);
        auto_buf Buf file = put_end(&w);
        Err err = {0};
        Gguf *g = gguf_view((uint8_t *)file.at, file.length, &err);
        Tokenizer *t = tokenizer_new(g, &err);
        assert_non_null(t);
        for (int k = 0; k < 4; k++)
            assert_int_equal(tokenizer_is_end_of_generation(t, k), cases[i].ends >> k & 1);
        assert_int_equal(tokenizer_eot(t), cases[i].eot);
        assert_int_equal(tokenizer_eos(t), TOKEN_NONE);
        /* bytes that this vocabulary does not have are left out, and counted */
        auto_tokens Tokens tokens = {0};
        assert_true(tokenizer_encode(t, STR("zaz"), false, &tokens, &err));
        assert_int_equal(tokens.length, 1);
        assert_int_equal(tokens.lost, 2);
        tokenizer_free(t);
        gguf_close(g);
    }
}

/* Writers of one wrong vocabulary each. */
static void no_model(GgufWriter *w) { put_key_str(w, "tokenizer.ggml.pre", "gpt-2"); }
static void other_model(GgufWriter *w) { put_key_str(w, "tokenizer.ggml.model", "llama"); }
static void no_pre(GgufWriter *w) { put_key_str(w, "tokenizer.ggml.model", "gpt2"); }
static void other_pre(GgufWriter *w) { put_tiny_vocab(w, "gpt-5"); }
static void begin(GgufWriter *w) {
    put_key_str(w, "tokenizer.ggml.model", "gpt2");
    put_key_str(w, "tokenizer.ggml.pre", "llama-bpe");
}
static void no_tokens(GgufWriter *w) {
    begin(w);
    put_tiny_merges(w);
}
static void empty_tokens(GgufWriter *w) {
    begin(w);
    put_key_array(w, "tokenizer.ggml.tokens", GGUF_STRING, 0);
}
static void number_tokens(GgufWriter *w) {
    begin(w);
    put_key_array(w, "tokenizer.ggml.tokens", GGUF_U8, 0);
}
static void same_tokens(GgufWriter *w) {
    begin(w);
    put_key_array(w, "tokenizer.ggml.tokens", GGUF_STRING, 2);
    put_str(&w->keys, STR("a"));
    put_str(&w->keys, STR("a"));
}
static void blank_tokens(GgufWriter *w) {
    begin(w);
    put_key_array(w, "tokenizer.ggml.tokens", GGUF_STRING, 1);
    put_str(&w->keys, STR(""));
}
static void few_types(GgufWriter *w) {
    begin(w);
    put_key_array(w, "tokenizer.ggml.tokens", GGUF_STRING, 1);
    put_str(&w->keys, STR("a"));
    put_key_array(w, "tokenizer.ggml.token_type", GGUF_I32, 0);
}
static void no_merges(GgufWriter *w) {
    begin(w);
    put_tiny_tokens(w);
}
static void merges(GgufWriter *w, const char *merge) {
    begin(w);
    put_tiny_tokens(w);
    put_key_array(w, "tokenizer.ggml.merges", GGUF_STRING, 2);
    put_str(&w->keys, STR("h e"));
    put_str(&w->keys, str_of(merge));
}
static void merge_of_one(GgufWriter *w) { merges(w, "he"); }
static void merge_of_none(GgufWriter *w) { merges(w, ""); }
static void merge_of_a_stranger(GgufWriter *w) { merges(w, "h xyz"); }
static void merge_to_a_stranger(GgufWriter *w) { merges(w, "h h"); }
static void merge_too_long(GgufWriter *w) {
    merges(
        w,
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
}
static void no_bos(GgufWriter *w) {
    begin(w);
    put_tiny_tokens(w);
    put_tiny_merges(w);
}
static void bos_outside(GgufWriter *w) {
    no_bos(w);
    put_key_u32(w, "tokenizer.ggml.bos_token_id", TINY_SIZE);
}

static void a_wrong_vocabulary_is_an_error_that_names_the_key(void **state) {
    (void)state;
    static const struct {
        void (*write)(GgufWriter *w);
        ErrCode code;
        const char *message;
    } cases[] = {
        {no_model, ERR_NOT_FOUND, "metadata key 'tokenizer.ggml.model' is missing"},
        {other_model, ERR_UNSUPPORTED,
         "metadata key 'tokenizer.ggml.model' is 'llama', supported is 'gpt2' (byte-level BPE)"},
        {no_pre, ERR_NOT_FOUND, "metadata key 'tokenizer.ggml.pre' is missing"},
        {other_pre, ERR_UNSUPPORTED,
         "metadata key 'tokenizer.ggml.pre' is 'gpt-5', a pre-tokenizer that is not known"},
        {no_tokens, ERR_NOT_FOUND, "metadata key 'tokenizer.ggml.tokens' is missing"},
        {empty_tokens, ERR_TOO_LARGE,
         "metadata key 'tokenizer.ggml.tokens' has 0 tokens in 0 bytes, expected 1 to 4194304 in "
         "less "
         "than 4 GiB"},
        {number_tokens, ERR_INVALID,
         "metadata key 'tokenizer.ggml.tokens' is an array whose elements are each an 8-bit "
         "unsigned "
         "integer, expected an array of strings"},
        {same_tokens, ERR_DAMAGED,
         "metadata key 'tokenizer.ggml.tokens' has the same token as 0 and 1"},
        {blank_tokens, ERR_DAMAGED,
         "metadata key 'tokenizer.ggml.tokens' has no token with a text"},
        {few_types, ERR_DAMAGED,
         "metadata key 'tokenizer.ggml.token_type' has 0 elements for 1 tokens"},
        {no_merges, ERR_NOT_FOUND, "metadata key 'tokenizer.ggml.merges' is missing"},
        {merge_of_one, ERR_DAMAGED,
         "metadata key 'tokenizer.ggml.merges': merge 1 is not two tokens that make a third"},
        {merge_of_none, ERR_DAMAGED,
         "metadata key 'tokenizer.ggml.merges': merge 1 is not two tokens that make a third"},
        {merge_of_a_stranger, ERR_DAMAGED,
         "metadata key 'tokenizer.ggml.merges': merge 1 is not two tokens that make a third"},
        {merge_to_a_stranger, ERR_DAMAGED,
         "metadata key 'tokenizer.ggml.merges': merge 1 is not two tokens that make a third"},
        {merge_too_long, ERR_DAMAGED,
         "metadata key 'tokenizer.ggml.merges': merge 1 is not two tokens that make a third"},
        {no_bos, ERR_NOT_FOUND,
         "metadata key 'tokenizer.ggml.bos_token_id' is missing, and prompts begin with it"},
        {bos_outside, ERR_INVALID,
         "metadata key 'tokenizer.ggml.bos_token_id' is 276, expected 0 to 275"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        GgufWriter w = {0};
        cases[i].write(&w);
        auto_buf Buf file = put_end(&w);
        Err err = {0};
        Gguf *g = gguf_view((uint8_t *)file.at, file.length, &err);
        assert_non_null(g);
        assert_null(tokenizer_new(g, &err));
        assert_string_equal(err.message, cases[i].message);
        assert_int_equal(err.code, cases[i].code);
        if (cases[i].write == other_pre)
            assert_string_equal(
                err.hint, "The known ones are: smollm, starcoder, refact, command-r, gpt-2, "
                          "llama-bpe, llama3, llama-v3, qwen2, deepseek-r1-qwen, deepseek-llm, "
                          "deepseek-v3, default.");
        gguf_close(g);
    }
}

static void a_vocabulary_for_which_there_is_no_memory_is_an_error(void **state) {
    (void)state;
    for (unsigned nth = 1; nth <= 7; nth++) {
        Err err = {0};
        fault_arm("mem.try", nth, false);
        assert_null(tokenizer_new(tiny_gguf, &err));
        fault_disarm_all();
        assert_int_equal(err.code, ERR_EXHAUSTED);
        assert_non_null(strstr(err.message, "for the tokenizer's vocabulary"));
    }
}

static void a_composing_tokenizer_puts_marks_onto_letters(void **state) {
    (void)state;
    GgufWriter w = {0};
    put_tiny_vocab(&w, "qwen2");
    auto_buf Buf file = put_end(&w);
    Err err = {0};
    Gguf *g = gguf_view((uint8_t *)file.at, file.length, &err);
    Tokenizer *t = tokenizer_new(g, &err);
    assert_non_null(t);
    static const char *const texts[][2] = {
        {"e\xcc\x81", "\xc3\xa9"},                             /* e and U+0301 */
        {"\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab", "\xed\x95\x9c"}, /* jamo */
        {"caf\xc3\xa9 the", "caf\xc3\xa9 the"},
        {"e\xcc\x81\xed\xa0\x80", "e\xcc\x81\xed\xa0\x80"},       /* a surrogate: left alone */
    };
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        auto_tokens Tokens tokens = {0};
        assert_true(tokenizer_encode(t, str_of(texts[i][0]), false, &tokens, &err));
        auto_buf Buf text = join(t, &tokens);
        assert_string_equal(text.at, texts[i][1]);
    }
    tokenizer_free(t);
    gguf_close(g);
}

static void no_text_takes_more_than_n_log_n_time(void **state) {
    (void)state;
    enum { LENGTH = 200000 }; /* n * n steps would be minutes */
    static const char *const pres[] = {"smollm",       "gpt-2",       "llama-bpe", "qwen2",
                                       "deepseek-llm", "deepseek-v3", "default"};
    static const char *const units[] = {"a", " ", "\n", "1", "<", "\xe3\x80\x82", " a", "'", "\1"};
    auto_free char *text = mem_new(LENGTH + 8);
    for (size_t p = 0; p < COUNT_OF(pres); p++) {
        GgufWriter w = {0};
        put_tiny_vocab(&w, pres[p]);
        auto_buf Buf file = put_end(&w);
        Err err = {0};
        Gguf *g = gguf_view((uint8_t *)file.at, file.length, &err);
        Tokenizer *t = tokenizer_new(g, &err);
        assert_non_null(t);
        for (size_t u = 0; u < COUNT_OF(units); u++) {
            size_t length = 0;
            for (; length < LENGTH; length += strlen(units[u]))
                memcpy(text + length, units[u], strlen(units[u]));
            text[length++] = 'x'; /* behind spaces it makes them cut elsewhere */
            int64_t before = clock_cpu_us();
            auto_tokens Tokens tokens = {0};
            assert_true(tokenizer_encode(t, (Str){text, length}, true, &tokens, &err));
            auto_buf Buf back = join(t, &tokens);
            assert_int_equal(back.length, length);
            assert_memory_equal(back.at, text, length);
            assert_true(clock_cpu_us() - before < 10000000);
        }
        tokenizer_free(t);
        gguf_close(g);
    }
}

static void a_stream_gives_whole_characters_only(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        const char *after[5]; /* what has come after each byte; the last again after the end */
    } cases[] = {
        {"ab", {"a", "ab", "ab"}},
        {"\xc3\xa9", {"", "\xc3\xa9", "\xc3\xa9"}},
        {"\xf0\x9f\x98\x80", {"", "", "", "\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"}},
        {"\xe2\x82", {"", "", "\xef\xbf\xbd"}},                    /* cut at the end */
        {"\xe2\x82" "a", {"", "", "\xef\xbf\xbd" "a", "\xef\xbf\xbd" "a"}},
        {"\x80", {"\xef\xbf\xbd", "\xef\xbf\xbd"}},                /* begins no character */
        {"\xc0\x80", {"\xef\xbf\xbd", "\xef\xbf\xbd\xef\xbf\xbd", "\xef\xbf\xbd\xef\xbf\xbd"}},
        {"\xed\xa0", {"", "\xef\xbf\xbd\xef\xbf\xbd", "\xef\xbf\xbd\xef\xbf\xbd"}}, /* surrogate */
        {"\xf4\x90", {"", "\xef\xbf\xbd\xef\xbf\xbd", "\xef\xbf\xbd\xef\xbf\xbd"}}, /* too high */
        {"\xe0\x80", {"", "\xef\xbf\xbd\xef\xbf\xbd", "\xef\xbf\xbd\xef\xbf\xbd"}}, /* overlong */
        {"\xf0\x9f\xc3\xa9", {"", "", "\xef\xbf\xbd", "\xef\xbf\xbd\xc3\xa9",
                              "\xef\xbf\xbd\xc3\xa9"}},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        auto_buf Buf out = {0};
        buf_str(&out, "");
        Detok detok;
        detok_init(&detok, tiny, false);
        size_t n = strlen(cases[i].bytes);
        for (size_t k = 0; k < n; k++) {
            detok_add(&detok, (uint8_t)cases[i].bytes[k], &out);
            assert_string_equal(out.at, cases[i].after[k]);
        }
        detok_flush(&detok, &out);
        assert_string_equal(out.at, cases[i].after[n]);
    }
}

static void a_stream_skips_special_tokens_if_it_shall(void **state) {
    (void)state;
    static const int32_t ids[] = {TINY_IM_START, 'a',         0xc3,     TINY_IM_END, 0xa9,
                                  TINY_TOOL,     TINY_UNUSED, TINY_UNK, -1,          TINY_SIZE};
    static const char *const want[2] = {
        "<|im_start|>a\xef\xbf\xbd<|im_end|>\xef\xbf\xbd<tool><unk>", "a\xc3\xa9<tool>"};
    for (int skip = 0; skip < 2; skip++) {
        auto_buf Buf out = {0};
        Detok detok;
        detok_init(&detok, tiny, skip);
        for (size_t i = 0; i < COUNT_OF(ids); i++) detok_add(&detok, ids[i], &out);
        detok_flush(&detok, &out);
        assert_string_equal(out.at, want[skip]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pairs_are_merged_by_rank_and_then_from_the_left),
        cmocka_unit_test(a_token_whose_merges_give_something_else_is_not_taken_whole),
        cmocka_unit_test(special_tokens_are_found_only_when_asked_for),
        cmocka_unit_test(a_text_over_the_limit_is_refused_with_the_first_tokens),
        cmocka_unit_test(bytes_that_are_not_utf8_are_replaced_and_counted),
        cmocka_unit_test(every_code_point_comes_back),
        cmocka_unit_test(pieces_and_kinds_are_told),
        cmocka_unit_test(an_end_counts_only_for_a_token_that_is_no_text),
        cmocka_unit_test(a_wrong_vocabulary_is_an_error_that_names_the_key),
        cmocka_unit_test(a_vocabulary_for_which_there_is_no_memory_is_an_error),
        cmocka_unit_test(a_composing_tokenizer_puts_marks_onto_letters),
        cmocka_unit_test(no_text_takes_more_than_n_log_n_time),
        cmocka_unit_test(a_stream_gives_whole_characters_only),
        cmocka_unit_test(a_stream_skips_special_tokens_if_it_shall),
    };
    return cmocka_run_group_tests(tests, open_tiny, close_tiny);
}
