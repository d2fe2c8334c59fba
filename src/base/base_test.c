// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include "base.h"
#include <cmocka.h>

static void an_error_is_wrapped_with_its_context(void **state) {
    (void)state;
    Err err = {0};
    assert_false(err_set(&err, ERR_NOT_FOUND, "could not open '%s'", "x.gguf"));
    err_hint(&err, "Check --model.");
    err_wrap(&err, "model %s", "x");
    assert_string_equal(err.message, "model x: could not open 'x.gguf'");
    assert_string_equal(err.hint, "Check --model.");
    assert_int_equal(err_http_status(err.code), 404);
    assert_string_equal(err_kube_reason(err.code), "NotFound");
}

static void a_buffer_refuses_what_is_over_its_limit(void **state) {
    (void)state;
    Buf buf = {.limit = 5};
    buf_str(&buf, "abc");
    assert_false(buf.overflow);
    buf_str(&buf, "def");
    assert_true(buf.overflow);
    buf_str(&buf, "d");
    assert_string_equal(buf.at, "abc");
    buf_done(&buf);
}

static void utf8_is_never_cut_inside_a_character(void **state) {
    (void)state;
    const char *text = "a\xf0\x9f\x98\x80"; /* a, U+1F600 */
    assert_int_equal(utf8_whole(text, 5), 5);
    for (size_t n = 1; n < 5; n++) assert_int_equal(utf8_whole(text, n), 1);
    assert_int_equal(utf8_whole("\xff\xff", 2), 2); /* never valid: not held back for ever */
    assert_true(utf8_valid(text, 5));
    assert_false(utf8_valid("\xed\xa0\x80", 3)); /* a surrogate */
    assert_false(utf8_valid("\xc0\x80", 2));     /* an overlong 0 */
}

static void the_nearest_word_is_a_typing_error_away(void **state) {
    (void)state;
    static const char *const words[] = {"--port", "--host", "--max-model-len"};
    assert_string_equal(str_nearest("--prot", words, 3), "--port");
    assert_string_equal(str_nearest("--max-model-length", words, 3), "--max-model-len");
    assert_null(str_nearest("--quantum-flux", words, 3));
}

static void a_fault_hits_the_nth_pass_only(void **state) {
    (void)state;
    fault_arm("test.here", 2, false);
    assert_false(fault_hit("test.here"));
    assert_false(fault_hit("test.there"));
    assert_true(fault_hit("test.here"));
    assert_false(fault_hit("test.here"));
    fault_disarm_all();
}

static void memory_that_is_not_there_is_an_error_with_sizes(void **state) {
    (void)state;
    Err err = {0};
    assert_null(mem_try((size_t)1 << 60, 64, "the KV cache", &err));
    assert_int_equal(err.code, ERR_EXHAUSTED);
    assert_non_null(strstr(err.message, "the KV cache"));
    fault_arm("mem.try", 1, false);
    assert_null(mem_try(1, 1, "x", &err));
    fault_disarm_all();
    char *p = mem_try(3, 1 << 20, "x", &err);
    assert_non_null(p);
    p[(3 << 20) - 1] = 1;
    mem_give(p, 3, 1 << 20);
}

static void an_arena_keeps_small_and_large_pieces(void **state) {
    (void)state;
    Arena arena = {0};
    char *small = arena_dup(&arena, "small", 5), *large = arena_new(&arena, 100000);
    large[99999] = 1;
    for (int i = 0; i < 1000; i++) arena_dup(&arena, "again", 5);
    assert_string_equal(small, "small");
    arena_done(&arena);
    assert_int_equal(arena.used, 0);
}

static void text_is_cut_at_a_byte(void **state) {
    (void)state;
    Str rest = STR("a=1&&b"), head;
    const char *want[] = {"a=1", "", "b"};
    for (int i = 0; i < 3; i++) {
        assert_true(str_cut(&rest, '&', &head));
        assert_true(str_eq(head, want[i]));
    }
    assert_false(str_cut(&rest, '&', &head));
    assert_true(str_eq(str_trim(STR(" \r\n x ")), "x"));
}

static void a_histogram_counts_in_the_first_bucket_that_holds_the_value(void **state) {
    (void)state;
    static const double bounds[] = {0.1, 1};
    Histogram h;
    histogram_init(&h, bounds, 2);
    histogram_observe(&h, 0.1);
    histogram_observe(&h, 0.5);
    histogram_observe(&h, 7);
    assert_int_equal(h.counts[0], 1);
    assert_int_equal(h.counts[1], 1);
    assert_int_equal(h.counts[2], 1);
    assert_int_equal(h.sum_micro, 7600000);
}

typedef struct TestConf {
    const char *host;
    int64_t port, size;
    double share;
    bool caching, quiet;
    FlagList names, config;
} TestConf;

static const Flag test_flags[] = {
    {"host", FLAG_STR, offsetof(TestConf, host), NULL, "HOST", "an address", 0, 0, NULL},
    {"port", FLAG_INT, offsetof(TestConf, port), "8000", "PORT", "a TCP port", 0, 65535, NULL},
    {"max-model-len", FLAG_SIZE, offsetof(TestConf, size), "4K", "N", "tokens", 1, 1e9, NULL},
    {"share", FLAG_NUMBER, offsetof(TestConf, share), "0.5", "X", "a share", 0, 1, NULL},
    {"enable-caching", FLAG_BOOL, offsetof(TestConf, caching), "true", NULL, "cache", 0, 0, NULL},
    {"quiet", FLAG_BOOL, offsetof(TestConf, quiet), NULL, NULL, "say less", 0, 0, "q"},
    {"name", FLAG_LIST, offsetof(TestConf, names), NULL, "NAME", "names", 0, 0, NULL},
    {"kv-config", FLAG_PIECES, offsetof(TestConf, config), NULL, "JSON", "an object", 0, 0, NULL},
    {"dtype", FLAG_NO_EFFECT, 0, NULL, NULL, NULL, 0, 0, NULL},
    {"optimization-level", FLAG_NO_EFFECT, 0, NULL, NULL, NULL, 0, 0, "O"},
};

static bool parse(TestConf *conf, FlagsResult *result, Arena *arena, Err *err, const char *line) {
    static char copy[256];
    char *argv[32];
    int argc = 0;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *at = copy; *at;) {
        argv[argc++] = at;
        at += strcspn(at, " ");
        if (*at) *at++ = 0;
    }
    *conf = (TestConf){0};
    *err = (Err){0};
    return flags_parse(test_flags, COUNT_OF(test_flags), conf, argc, argv, result, arena, err);
}

static void flags_are_read_in_every_spelling(void **state) {
    (void)state;
    TestConf c;
    FlagsResult r;
    Arena arena = {0};
    Err err;
    assert_true(parse(&c, &r, &arena, &err, "model.gguf"));
    assert_true(!c.host && c.port == 8000 && c.size == 4096 && c.share == 0.5 && c.caching &&
                !c.quiet);
    assert_string_equal(r.positional.at[0], "model.gguf");
    assert_true(parse(&c, &r, &arena, &err,
                      "--port=1 --max_model_len 25.6k --no-enable-caching -q --name a b --name c "
                      "--share 1 --dtype f16 x"));
    assert_true(c.port == 1 && c.size == 25600 && !c.caching && c.quiet && c.names.count == 3 &&
                c.share == 1);
    assert_true(r.positional.count == 1 && r.no_effect.count == 1);
    assert_true(parse(&c, &r, &arena, &err, "--disable-caching --kv-config {} --kv-config.a.b 1"));
    assert_true(!c.caching && c.config.count == 2);
    assert_string_equal(c.config.at[0], "={}");
    assert_string_equal(c.config.at[1], "a.b=1");
    assert_true(parse(&c, &r, &arena, &err, "-O3 x"));
    assert_true(r.positional.count == 1 && r.no_effect.count == 1);
    assert_true(parse(&c, &r, &arena, &err, "--help=all --no-such-flag") && r.help);
    arena_done(&arena);
}

static void wrong_flags_say_what_and_what_to_type(void **state) {
    (void)state;
    static const struct { const char *line, *message, *hint;
    } cases[] = {
        {"--prot 1", "unknown flag --prot", "Did you mean --port?"},
        {"--port x", "--port cannot be 'x': expected a whole number from 0 to 65535",
         "--port takes a TCP port"},
        {"--port 65536", "--port cannot be '65536'", "a TCP port"},
        {"--port 1.5", "--port cannot be '1.5'", "a TCP port"},
        {"--max-model-len 1x", "--max-model-len cannot be '1x'", "tokens"},
        {"--port", "--port needs a value", "a TCP port"},
        {"--host --port 1", "--host needs a value", "an address"},
        {"--quiet=maybe", "--quiet cannot be 'maybe': expected true or false", "say less"},
        {"--port.x 1", "unknown flag --port", "--help"},
        {"-q3", "unknown flag --q3", "--help"},
        {"-no-quiet", "unknown flag --no-quiet", "--help"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        TestConf c;
        FlagsResult r;
        Arena arena = {0};
        Err err;
        assert_false(parse(&c, &r, &arena, &err, cases[i].line));
        if (!strstr(err.message, cases[i].message) || !strstr(err.hint, cases[i].hint))
            fail_msg("%s: %s / %s", cases[i].line, err.message, err.hint);
        arena_done(&arena);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_error_is_wrapped_with_its_context),
        cmocka_unit_test(a_buffer_refuses_what_is_over_its_limit),
        cmocka_unit_test(utf8_is_never_cut_inside_a_character),
        cmocka_unit_test(the_nearest_word_is_a_typing_error_away),
        cmocka_unit_test(a_fault_hits_the_nth_pass_only),
        cmocka_unit_test(memory_that_is_not_there_is_an_error_with_sizes),
        cmocka_unit_test(an_arena_keeps_small_and_large_pieces),
        cmocka_unit_test(text_is_cut_at_a_byte),
        cmocka_unit_test(flags_are_read_in_every_spelling),
        cmocka_unit_test(wrong_flags_say_what_and_what_to_type),
        cmocka_unit_test(a_histogram_counts_in_the_first_bucket_that_holds_the_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
