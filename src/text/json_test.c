// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <math.h>
#include <stdlib.h>
#include "text.h"
#include <cmocka.h>

static void a_tree_reads_and_writes_back_the_same(void **state) {
    (void)state;
    static const char *const same[] = {
        "null", "true", "false", "0", "-7", "9223372036854775807", "-9223372036854775808", "1.0",
        "-11.59630298614502", "1e-05", "1e+16", "\"\"", "\"\\\"\\\\\\b\\f\\n\\r\\t\\u0001\"",
        "\"h\u00e9llo \u65e5\u672c \U0001f600\"", "[]", "{}", "[1,[2,[3]],{}]",
        "{\"b\":1,\"a\":{\"c\":[true,null]},\"\":2}",
    };
    for (size_t i = 0; i < COUNT_OF(same); i++) {
        Err err = {0};
        auto_json json_t *tree = json_parse(str_of(same[i]), &err);
        assert_string_equal(err.message, "");
        auto_buf Buf out = {0};
        buf_json_tree(&out, tree);
        assert_string_equal(out.at, same[i]);
    }
}

static void what_is_written_differs_where_json_has_several_ways(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {" [ 1 , 2 ] ", "[1,2]"},
        {"\"\\u0041\\/\\u00e9\"", "\"A/\u00e9\""},
        {"\"\\ud83d\\ude00\"", "\"\U0001f600\""},
        {"\"a\\ud83db\"", "\"a\ufffdb\""},    /* half of a pair */
        {"\"\\ude00\\ud83d\"", "\"\ufffd\ufffd\""},
        {"\"a\\u0000b\"", "\"a\\u0000b\""},
        {"{\"a\":1,\"b\":2,\"a\":3}", "{\"a\":3,\"b\":2}"}, /* the last one counts */
        {"1E2", "100.0"},
        {"-0", "0"},
        {"-0.0", "-0.0"},
        {"0.1e-6", "1e-07"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        Err err = {0};
        auto_json json_t *tree = json_parse(str_of(cases[i][0]), &err);
        assert_string_equal(err.message, "");
        auto_buf Buf out = {0};
        buf_json_tree(&out, tree);
        assert_string_equal(out.at, cases[i][1]);
    }
}

/* Messages and places as Python 3.11's json.loads() gives them. */
static void a_wrong_text_is_refused_with_its_place(void **state) {
    (void)state;
    static const char *const cases[][3] = {
        {"{\"model\": \"x\", ", "15",
         "Expecting property name enclosed in double quotes: line 1 column 16 (char 15)"},
        {"", "0", "Expecting value: line 1 column 1 (char 0)"},
        {"[1,]", "3", "Expecting value: line 1 column 4 (char 3)"},
        {"tru", "0", "Expecting value: line 1 column 1 (char 0)"},
        {"-", "0", "Expecting value: line 1 column 1 (char 0)"},
        {"{\"a\" 1}", "5", "Expecting ':' delimiter: line 1 column 6 (char 5)"},
        {"{\"a\":1 \"b\"}", "7", "Expecting ',' delimiter: line 1 column 8 (char 7)"},
        {"[1 2]", "3", "Expecting ',' delimiter: line 1 column 4 (char 3)"},
        {"01", "1", "Extra data: line 1 column 2 (char 1)"},
        {"{\n \"a\": 1.\n}", "9", "Expecting ',' delimiter: line 2 column 8 (char 9)"},
        {"{\"\u65e5\u672c\":\n\"x", "7",
         "Unterminated string starting at: line 2 column 1 (char 7)"},
        {"\"a\nb\"", "2", "Invalid control character at: line 1 column 3 (char 2)"},
        {"\"\\x\"", "1", "Invalid \\escape: line 1 column 2 (char 1)"},
        {"\"\\u12\"", "2", "Invalid \\uXXXX escape: line 1 column 3 (char 2)"},
        /* and what Python would take */
        {"NaN", "0", "Expecting value: line 1 column 1 (char 0)"},
        {"[9223372036854775808]", "1", "Integer out of 64 bits: line 1 column 2 (char 1)"},
        {"1e999", "0", "Number out of range: line 1 column 1 (char 0)"},
        {"\"\xff\"", "1", "Invalid UTF-8 at: line 1 column 2 (char 1)"},
        {"\"\xed\xa0\x80\"", "1", "Invalid UTF-8 at: line 1 column 2 (char 1)"},
        {"{\"a\\u0000\":1}", "3",
         "\\u0000 is not supported in a property name: line 1 column 4 (char 3)"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        Err err = {0};
        JsonScan scan;
        assert_null(json_parse(str_of(cases[i][0]), &err));
        assert_string_equal(err.message, cases[i][2]);
        assert_string_equal(err.param, cases[i][1]);
        assert_int_equal(err.code, ERR_INVALID);
        err = (Err){0};
        assert_false(json_scan(str_of(cases[i][0]), &scan, &err));
        assert_string_equal(err.message, cases[i][2]);
    }
}

static void nesting_ends_at_the_limit(void **state) {
    (void)state;
    char text[2 * LIMIT_JSON_DEPTH + 3] = {0};
    for (size_t depth = LIMIT_JSON_DEPTH; depth <= LIMIT_JSON_DEPTH + 1; depth++) {
        Err err = {0};
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        auto_json json_t *tree = json_parse((Str){text, 2 * depth}, &err);
        if (depth == LIMIT_JSON_DEPTH) assert_non_null(tree);
        if (depth > LIMIT_JSON_DEPTH)
            assert_string_equal(err.message, "Nested too deeply: line 1 column 65 (char 64)");
    }
}

static void doubles_have_the_fewest_digits_that_read_back(void **state) {
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = {
        {0, "0.0"},
        {-0.0, "-0.0"},
        {1, "1.0"},
        {0.1, "0.1"},
        {100, "100.0"},
        {1e15, "1000000000000000.0"},
        {1e16, "1e+16"},
        {123456789012345680.0, "1.2345678901234568e+17"},
        {1e-4, "0.0001"},
        {1e-5, "1e-05"},
        {-2.5e-7, "-2.5e-07"},
        {1.0 / 3, "0.3333333333333333"},
        {0.1 + 0.2, "0.30000000000000004"},
        {-11.59630298614502, "-11.59630298614502"},
        {5e-324, "5e-324"},
        {2.2250738585072014e-308, "2.2250738585072014e-308"},
        {7.120236347223045e-307, "7.120236347223045e-307"}, /* a power of two: not the nearest */
        {1.7976931348623157e308, "1.7976931348623157e+308"},
        {NAN, "null"},
        {-INFINITY, "null"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        auto_buf Buf out = {0};
        buf_json_double(&out, cases[i].value);
        assert_string_equal(out.at, cases[i].text);
    }
}

static void bytes_that_are_not_utf8_are_written_as_replacement_characters(void **state) {
    (void)state;
    auto_buf Buf out = {0};
    buf_json_str(&out, STR("a\xff\xe6\x97\xa5\xe6\x97\"\0z"));
    assert_string_equal(out.at, "\"a\ufffd\u65e5\ufffd\ufffd\\\"\\u0000z\"");
}

static void a_scan_gives_the_members_as_the_client_wrote_them(void **state) {
    (void)state;
    static const char body[] =
        " {\"model\" : \"a\\\"b\", \"n\":-1.5e3 ,\"o\":{\"x\":[\"}\",\"\\\\\"]},\n"
        "\"t\":true,\"z\":null, \"f\": false,\"l\":[ ] } ";
    static const char *const members[][4] = {
        {"model", "\"a\\\"b\"", "\"model\" : \"a\\\"b\"", "\""},
        {"n", "-1.5e3", "\"n\":-1.5e3", "0"},
        {"o", "{\"x\":[\"}\",\"\\\\\"]}", "\"o\":{\"x\":[\"}\",\"\\\\\"]}", "{"},
        {"t", "true", "\"t\":true", "t"},
        {"z", "null", "\"z\":null", "n"},
        {"f", "false", "\"f\": false", "f"},
        {"l", "[ ]", "\"l\":[ ]", "["},
    };
    Err err = {0};
    JsonScan scan;
    JsonMember member;
    assert_true(json_scan(STR(body), &scan, &err));
    assert_int_equal(scan.count, COUNT_OF(members));
    for (size_t i = 0; i < COUNT_OF(members); i++) {
        assert_true(json_scan_next(&scan, &member));
        assert_true(str_eq(member.key, members[i][0]));
        assert_true(str_eq(member.value, members[i][1]));
        assert_true(str_eq(member.whole, members[i][2]));
        assert_int_equal(member.kind, members[i][3][0]);
    }
    assert_false(json_scan_next(&scan, &member));
    assert_true(json_scan(STR(" {} "), &scan, &err));
    assert_int_equal(scan.count, 0);
    assert_false(json_scan_next(&scan, &member));
}

static void a_scan_finds_the_last_member_of_a_key_however_it_is_escaped(void **state) {
    (void)state;
    Err err = {0};
    JsonScan scan;
    JsonMember member;
    assert_true(json_scan(STR("{\"model\":1,\"x\":{\"model\":9},\"mode\\u006c\":2,\"models\":3}"),
                          &scan, &err));
    assert_true(json_scan_find(&scan, "model", &member));
    assert_true(str_eq(member.value, "2"));
    assert_false(json_scan_find(&scan, "mode", &member));
}

static void only_an_object_can_be_scanned(void **state) {
    (void)state;
    Err err = {0};
    JsonScan scan;
    assert_false(json_scan(STR(" [1]"), &scan, &err));
    assert_string_equal(err.message, "Expecting an object: line 1 column 2 (char 1)");
}

static void a_scanned_string_is_unquoted(void **state) {
    (void)state;
    auto_buf Buf out = {0};
    assert_true(json_unquote(STR("\"a\\n\\ud83d\\ude00\\u00e9\\\\\""), &out));
    assert_string_equal(out.at, "a\n\U0001f600\u00e9\\");
    assert_false(json_unquote(STR("12"), &out));
    assert_false(json_unquote(STR("null"), &out));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tree_reads_and_writes_back_the_same),
        cmocka_unit_test(what_is_written_differs_where_json_has_several_ways),
        cmocka_unit_test(a_wrong_text_is_refused_with_its_place),
        cmocka_unit_test(nesting_ends_at_the_limit),
        cmocka_unit_test(doubles_have_the_fewest_digits_that_read_back),
        cmocka_unit_test(bytes_that_are_not_utf8_are_written_as_replacement_characters),
        cmocka_unit_test(a_scan_gives_the_members_as_the_client_wrote_them),
        cmocka_unit_test(a_scan_finds_the_last_member_of_a_key_however_it_is_escaped),
        cmocka_unit_test(only_an_object_can_be_scanned),
        cmocka_unit_test(a_scanned_string_is_unquoted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
