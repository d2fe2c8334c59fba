// SPDX-License-Identifier: Apache-2.0
/* The tokenizer against what reference implementations computed, on the vocabulary of SmolLM2: see
 * test/data/README.md for the sources. */
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <jansson.h>
#include "gguf_test.h"
#include "tokenizer.h"
#include <cmocka.h>

static Gguf *model;
static Tokenizer *tokenizer;

static int open_model(void **state) {
    (void)state;
    Err err = {0};
    char path[512];
    model = gguf_open(test_model_path(path), &err);
    tokenizer = model ? tokenizer_new(model, &err) : NULL;
    if (!tokenizer) fprintf(stderr, "%s. %s\n", err.message, TEST_MODEL_HINT);
    return tokenizer ? 0 : -1;
}

static int close_model(void **state) {
    (void)state;
    tokenizer_free(tokenizer);
    gguf_close(model);
    return 0;
}

/* The lines of a file of JSON objects; to be given back with json_decref(). */
static json_t *read_cases(const char *path) {
    Err err = {0};
    size_t length;
    auto_free char *text = file_read(path, 16 * MIB, &length, &err);
    if (!text) fail_msg("%s (tests run in the root of the repository)", err.message);
    json_t *cases = json_array();
    Str rest = {text, length}, line;
    while (str_cut(&rest, '\n', &line))
        if (line.length)
            assert_int_equal(0, json_array_append_new(cases, json_loadb(line.at, line.length,
                                                                        JSON_ALLOW_NUL, NULL)));
    assert_true(json_array_size(cases) > 0);
    return cases;
}

static Buf unhex(const char *hex) {
    Buf bytes = {0};
    buf_str(&bytes, "");
    for (; *hex; hex += 2) {
        char digits[3] = {hex[0], hex[1], 0};
        buf_char(&bytes, (char)strtoul(digits, NULL, 16));
    }
    return bytes;
}

static const char *string_of(json_t *object, const char *key) {
    return json_string_value(json_object_get(object, key));
}

/* Both ways: text to ids, ids to text. */
static void check_case(const Tokenizer *t, json_t *c, const char *text_hex) {
    auto_buf Buf text = unhex(string_of(c, "hex")), want = unhex(text_hex), back = {0};
    buf_str(&back, "");
    json_t *ids = json_object_get(c, "ids");
    Err err = {0};
    auto_tokens Tokens tokens = {0};
    bool special = json_is_true(json_object_get(c, "parse_special"));
    assert_true(tokenizer_encode(t, (Str){text.at, text.length}, special, &tokens, &err));
    bool same = tokens.length == json_array_size(ids);
    for (size_t i = 0; same && i < tokens.length; i++)
        same = tokens.ids[i] == json_integer_value(json_array_get(ids, i));
    if (!same) fail_msg("other ids for the bytes %s", string_of(c, "hex"));
    for (size_t i = 0; i < tokens.length; i++) {
        Str piece = tokenizer_piece(t, tokens.ids[i]);
        buf_append(&back, piece.at, piece.length);
    }
    if (back.length != want.length || memcmp(back.at, want.at, want.length))
        fail_msg("other text comes back for the bytes %s", string_of(c, "hex"));
    const char *pre = string_of(c, "pre");
    if (!pre || strcmp(pre, "qwen2")) /* that one composes characters, which is no loss */
        assert_int_equal(tokens.lost > 0, strcmp(text_hex, string_of(c, "hex")) != 0);
}

static void ids_are_those_of_the_conformance_file(void **state) {
    (void)state;
    json_t *cases = read_cases("test/data/smollm2-tokenizer.jsonl"), *c;
    size_t i;
    json_array_foreach(cases, i, c) {
        bool round_trip = json_is_true(json_object_get(c, "round_trip"));
        check_case(tokenizer, c, string_of(c, round_trip ? "hex" : "detokenized_hex"));
    }
    assert_int_equal(i, 60);
    json_decref(cases);
}

static void ids_are_those_of_llama_cpp(void **state) {
    (void)state;
    json_t *cases = read_cases("test/data/smollm2-tokenizer-more.jsonl"), *c;
    size_t i;
    json_array_foreach(cases, i, c) {
        const char *text = string_of(c, "text_hex");
        check_case(tokenizer, c, text ? text : string_of(c, "hex"));
    }
    json_decref(cases);
}

static void put_raw_array(GgufWriter *w, const char *key, const GgufArray *array) {
    put_key_array(w, key, array->type, array->count);
    buf_append(&w->keys, array->at, array->size);
}

/* SmolLM2's vocabulary under another pre-tokenizer. */
static Buf with_pre(const char *pre) {
    Err err = {0};
    GgufWriter w = {0};
    GgufArray tokens, types, merges;
    assert_true(gguf_strings(model, "tokenizer.ggml.tokens", &tokens, &err) &&
                gguf_ints(model, "tokenizer.ggml.token_type", &types, &err) &&
                gguf_strings(model, "tokenizer.ggml.merges", &merges, &err));
    put_key_str(&w, "tokenizer.ggml.model", "gpt2");
    put_key_str(&w, "tokenizer.ggml.pre", pre);
    put_key_bool(&w, "tokenizer.ggml.add_bos_token", false);
    put_raw_array(&w, "tokenizer.ggml.tokens", &tokens);
    put_raw_array(&w, "tokenizer.ggml.token_type", &types);
    put_raw_array(&w, "tokenizer.ggml.merges", &merges);
    return put_end(&w);
}

static void every_pre_tokenizer_cuts_like_its_reference(void **state) {
    (void)state;
    static const char *const pres[] = {"gpt-2",        "llama-bpe",   "qwen2",
                                       "deepseek-llm", "deepseek-v3", "default"};
    json_t *cases = read_cases("test/data/smollm2-pretokenizers.jsonl"), *c;
    size_t done = 0, i;
    for (size_t p = 0; p < COUNT_OF(pres); p++) {
        auto_buf Buf file = with_pre(pres[p]);
        Err err = {0};
        Gguf *g = gguf_view((uint8_t *)file.at, file.length, &err);
        Tokenizer *t = tokenizer_new(g, &err);
        assert_non_null(t);
        json_array_foreach(cases, i, c) {
            if (strcmp(string_of(c, "pre"), pres[p])) continue;
            const char *text = string_of(c, "text_hex");
            check_case(t, c, text ? text : string_of(c, "hex"));
            done++;
        }
        tokenizer_free(t);
        gguf_close(g);
    }
    assert_int_equal(done, json_array_size(cases));
    json_decref(cases);
}

/* "CxC C1" for each of 256 code points C from `first` on, as the reference was asked. */
static void append_code_points(Buf *text, uint32_t first) {
    for (uint32_t c = first; c < first + 256; c++) {
        if (c >= 0xd800 && c < 0xe000) continue;
        buf_utf8(text, c);
        buf_char(text, 'x');
        buf_utf8(text, c);
        buf_char(text, ' ');
        buf_utf8(text, c);
        buf_char(text, '1');
    }
}

static void code_points_are_letters_numbers_and_spaces_as_in_llama_cpp(void **state) {
    (void)state;
    static const struct {
        const char *pre;
        size_t tokens;
        uint64_t hash; /* of all ids, each chunk's hash the seed of the next */
    } cases[] = {
        {"smollm", 2885610, 0x7cbcd2b584be0443},
        {"gpt-2", 2885187, 0x9d4e037829eba5d},
        {"llama-bpe", 2885627, 0x46bfff3de7c9966c},
        {"deepseek-v3", 2902282, 0xe70222ac605d0814},
        {"default", 2886014, 0xaba1b259abe4ac93},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        auto_buf Buf file = with_pre(cases[i].pre), text = {0};
        Err err = {0};
        Gguf *g = gguf_view((uint8_t *)file.at, file.length, &err);
        Tokenizer *t = tokenizer_new(g, &err);
        assert_non_null(t);
        size_t count = 0;
        uint64_t hash = 0;
        auto_tokens Tokens tokens = {0};
        for (uint32_t first = 0; first <= 0x10ff00; first += 256) {
            if (first >= 0x34000 && first != 0xe0000 && first != 0xe0100 && first != 0xf0000 &&
                first != 0x10ff00)
                continue; /* nothing but unassigned and private code points */
            buf_clear(&text);
            append_code_points(&text, first);
            if (!text.length) continue;
            tokens.length = 0;
            assert_true(tokenizer_encode(t, (Str){text.at, text.length}, false, &tokens, &err));
            count += tokens.length;
            hash = hash64(tokens.ids, tokens.length * sizeof *tokens.ids, hash);
        }
        assert_int_equal(count, cases[i].tokens);
        assert_true(hash == cases[i].hash);
        tokenizer_free(t);
        gguf_close(g);
    }
}

static void the_model_tells_its_special_tokens(void **state) {
    (void)state;
    assert_int_equal(tokenizer_vocab_size(tokenizer), 49152);
    assert_int_equal(tokenizer_bos(tokenizer), 1);
    assert_int_equal(tokenizer_eos(tokenizer), 2);
    assert_int_equal(tokenizer_eot(tokenizer), 2);
    assert_false(tokenizer_add_bos(tokenizer));
    for (int32_t id = 0; id < 49152; id++) {
        assert_int_equal(tokenizer_is_special(tokenizer, id), id < 17);
        /* <|endoftext|>, <|im_end|>, <reponame> */
        assert_int_equal(tokenizer_is_end_of_generation(tokenizer, id),
                         id == 0 || id == 2 || id == 4);
    }
    assert_true(str_eq(tokenizer_token_str(tokenizer, 260), "\xc4\xa0the"));
    assert_true(str_eq(tokenizer_piece(tokenizer, 260), " the"));
}

static void a_long_text_of_one_letter_takes_no_longer_than_another(void **state) {
    (void)state;
    static const char letters[] = {'a', ' ', '\n', '=', '0'};
    auto_free char *text = mem_new(MIB);
    for (size_t i = 0; i < COUNT_OF(letters); i++) {
        memset(text, letters[i], MIB);
        Err err = {0};
        auto_tokens Tokens tokens = {0};
        int64_t before = clock_cpu_us();
        assert_true(tokenizer_encode(tokenizer, (Str){text, MIB}, true, &tokens, &err));
        assert_true(clock_cpu_us() - before < 20000000); /* 0.1 to 0.3 s without sanitizers */
        size_t bytes = 0;
        for (size_t k = 0; k < tokens.length; k++)
            bytes += tokenizer_piece(tokenizer, tokens.ids[k]).length;
        assert_int_equal(bytes, MIB);
    }
}

static void *encode_all(void *hash) {
    json_t *cases = read_cases("test/data/smollm2-tokenizer-more.jsonl"), *c;
    size_t i;
    Err err = {0};
    json_array_foreach(cases, i, c) {
        auto_buf Buf text = unhex(string_of(c, "hex"));
        auto_tokens Tokens tokens = {0};
        if (tokenizer_encode(tokenizer, (Str){text.at, text.length}, true, &tokens, &err))
            *(uint64_t *)hash = hash64(tokens.ids, tokens.length * 4, *(uint64_t *)hash);
    }
    json_decref(cases);
    return NULL;
}

static void threads_share_one_tokenizer(void **state) {
    (void)state;
    pthread_t threads[3];
    uint64_t hashes[3] = {0};
    Tokenizer *used = tokenizer;
    Err err = {0};
    tokenizer = tokenizer_new(model, &err); /* one that remembers nothing yet */
    assert_non_null(tokenizer);
    for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, encode_all, &hashes[i]);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    assert_true(hashes[0] && hashes[0] == hashes[1] && hashes[1] == hashes[2]);
    tokenizer_free(tokenizer);
    tokenizer = used;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_those_of_the_conformance_file),
        cmocka_unit_test(ids_are_those_of_llama_cpp),
        cmocka_unit_test(every_pre_tokenizer_cuts_like_its_reference),
        cmocka_unit_test(code_points_are_letters_numbers_and_spaces_as_in_llama_cpp),
        cmocka_unit_test(the_model_tells_its_special_tokens),
        cmocka_unit_test(a_long_text_of_one_letter_takes_no_longer_than_another),
        cmocka_unit_test(threads_share_one_tokenizer),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
