// SPDX-License-Identifier: Apache-2.0
/* Tokens to text that may leave: stop strings across token borders, characters in several tokens.
 */
#include "serve_test.h"

/* Adds tokens one by one; what left with each is divided by '|'. */
static const Str *run_tokens(const Tokens *tokens, const Stops *stops, size_t min_tokens, Buf *out,
                             size_t *count) {
    ChoiceText text;
    choice_text_init(&text, double_model.tokenizer, true, stops);
    const Str *stop = NULL;
    for (*count = 0; *count < tokens->length && !stop;) {
        stop = choice_text_add(&text, tokens->ids[*count], *count + 1 > min_tokens);
        ++*count;
        if (*count == tokens->length && !stop) choice_text_end(&text);
        Str piece = choice_text_take(&text, stop || *count == tokens->length);
        assert_true(utf8_valid(piece.at, piece.length));
        if (out->length || *count > 1) buf_char(out, '|');
        buf_append(out, piece.at, piece.length);
    }
    choice_text_done(&text);
    return stop;
}

static void encode(const char *text, Tokens *out) {
    Err err = {0};
    assert_true(tokenizer_encode(double_model.tokenizer, str_of(text), true, out, &err));
}

static void stop_strings_are_found_across_tokens(void **state) {
    (void)state;
    static const char text[] = "The capital of France is Paris."; /* a token is a word here */
    static const struct {
        const char *stop[2];
        bool included;
        const char *found;
        size_t tokens;
    } cases[] = {
        {{NULL}, false, NULL, 7},
        {{"none"}, false, NULL, 7},
        {{"capital"}, false, "capital", 2},
        {{"capital"}, true, "capital", 2},
        {{"cap"}, true, "cap", 2},
        {{"l of Fr"}, false, "l of Fr", 4},
        {{"The"}, false, "The", 1},
        {{" is", " France is"}, false, " is", 5},
        {{" France is", " is"}, false, " France is", 5},
        {{"ris.", "Paris"}, false, "Paris", 6},
        {{"."}, false, ".", 7},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        auto_tokens Tokens tokens = {0};
        auto_buf Buf out = {0}, joined = {0};
        Stops stops = {.included = cases[i].included};
        size_t count;
        encode(text, &tokens);
        for (size_t k = 0; k < 2 && cases[i].stop[k]; k++) {
            stops.at[stops.count++] = str_of(cases[i].stop[k]);
            size_t length = strlen(cases[i].stop[k]);
            if (length > stops.longest) stops.longest = length;
        }
        const Str *found = run_tokens(&tokens, &stops, 0, &out, &count);
        assert_int_equal(count, cases[i].tokens);
        assert_int_equal(found != NULL, cases[i].found != NULL);
        if (found) assert_true(str_eq(*found, cases[i].found));
        for (size_t c = 0; c < out.length; c++)
            if (out.at[c] != '|') buf_char(&joined, out.at[c]);
        size_t want = found ? (size_t)(strstr(text, cases[i].found) - text) : strlen(text);
        if (found && cases[i].included) want += found->length;
        assert_int_equal(joined.length, want);
        if (want) assert_memory_equal(joined.at, text, want);
    }
}

static void nothing_of_a_stop_string_has_left_before_it_is_whole(void **state) {
    (void)state;
    auto_tokens Tokens tokens = {0};
    encode("The capital of France is Paris.", &tokens);
    Stops stops = {.at = {STR("of France is")}, .count = 1, .longest = 12};
    auto_buf Buf out = {0};
    size_t count;
    const Str *found = run_tokens(&tokens, &stops, 0, &out, &count);
    assert_true(found && str_eq(*found, "of France is"));
    assert_string_equal(out.at, "||The| capita|l "); /* 11 bytes wait: they may begin it */
}

static void min_tokens_keeps_stop_strings_out(void **state) {
    (void)state;
    auto_tokens Tokens tokens = {0};
    encode("one two one two one", &tokens);
    Stops stops = {.at = {STR("two")}, .count = 1, .longest = 3};
    auto_buf Buf out = {0}, again = {0};
    size_t count;
    assert_non_null(run_tokens(&tokens, &stops, 0, &out, &count));
    assert_int_equal(count, 2);
    assert_non_null(run_tokens(&tokens, &stops, 2, &again, &count));
    assert_int_equal(count, 4);
}

static void characters_are_never_cut(void **state) {
    (void)state;
    static const char *const texts[] = {"a😀b", "你好，世界", "🎉🚀👩‍👩‍👧", "é"};
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        for (size_t longest = 0; longest < 6; longest++) {
            auto_tokens Tokens tokens = {0};
            auto_buf Buf out = {0}, joined = {0};
            Stops stops = {.longest = longest}; /* holds bytes back as a stop string would */
            size_t count;
            encode(texts[i], &tokens);
            assert_null(run_tokens(&tokens, &stops, 0, &out, &count));
            for (size_t c = 0; c < out.length; c++)
                if (out.at[c] != '|') buf_char(&joined, out.at[c]);
            assert_string_equal(joined.at, texts[i]);
        }
}

static void half_a_character_at_the_end_is_a_replacement(void **state) {
    (void)state;
    auto_tokens Tokens tokens = {0};
    encode("😀", &tokens);
    assert_true(tokens.length > 1);
    tokens.length--;
    Stops stops = {0};
    auto_buf Buf out = {0};
    size_t count;
    run_tokens(&tokens, &stops, 0, &out, &count);
    assert_non_null(strstr(out.at, "\xef\xbf\xbd"));
}

static void a_long_stream_keeps_little_in_memory(void **state) {
    (void)state;
    auto_tokens Tokens tokens = {0};
    encode(" word", &tokens);
    Stops stops = {.at = {STR("stop here")}, .count = 1, .longest = 9};
    ChoiceText text;
    size_t left = 0;
    choice_text_init(&text, double_model.tokenizer, true, &stops);
    for (int i = 0; i < 20000; i++) {
        assert_null(choice_text_add(&text, tokens.ids[0], true));
        left += choice_text_take(&text, false).length;
    }
    assert_true(text.text.capacity < 32 * KIB);
    encode(" stop here", &tokens);
    const Str *stop = NULL;
    for (size_t i = 1; i < tokens.length && !stop; i++)
        stop = choice_text_add(&text, tokens.ids[i], true);
    assert_non_null(stop);
    left += choice_text_take(&text, true).length;
    assert_int_equal(left, 20000 * 5 + 1);
    choice_text_done(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stop_strings_are_found_across_tokens),
        cmocka_unit_test(nothing_of_a_stop_string_has_left_before_it_is_whole),
        cmocka_unit_test(min_tokens_keeps_stop_strings_out),
        cmocka_unit_test(characters_are_never_cut),
        cmocka_unit_test(half_a_character_at_the_end_is_a_replacement),
        cmocka_unit_test(a_long_stream_keeps_little_in_memory),
    };
    return cmocka_run_group_tests(tests, double_load, double_unload);
}
