// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdlib.h>
#include "text.h"
#include <cmocka.h>

static void expect(const char *yaml, const char *json) {
    Err err = {0};
    auto_json json_t *tree = yaml_parse(str_of(yaml), &err);
    assert_string_equal(err.message, "");
    auto_buf Buf out = {0};
    buf_json_tree(&out, tree);
    assert_string_equal(out.at, json);
}

static void expect_refused(const char *yaml, const char *message) {
    Err err = {0};
    assert_null(yaml_parse(str_of(yaml), &err));
    assert_string_equal(err.message, message);
    assert_int_equal(err.code, ERR_INVALID);
}

/* The answers are those of kubectl 1.32: kubectl label --local -f FILE a=b -o json */
static void scalars_have_the_types_that_kubectl_gives_them(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"", "null"},
        {"~", "null"},
        {"Null", "null"},
        {"true", "true"},
        {"yes", "true"},
        {"y", "true"},
        {"on", "true"},
        {"False", "false"},
        {"n", "false"},
        {"OFF", "false"},
        {"oFF", "\"oFF\""},
        {"\"yes\"", "\"yes\""},
        {"'1'", "\"1\""},
        {"0", "0"},
        {"-0", "0"},
        {"+5", "5"},
        {"0644", "420"},
        {"0_7", "7"},
        {"08", "8"},
        {"-08", "-8"},
        {"0o17", "15"},
        {"0o8", "\"0o8\""},
        {"0x1F", "31"},
        {"-0x1f", "-31"},
        {"0b101", "5"},
        {"0b12", "\"0b12\""},
        {"1_000", "1000"},
        {"1.0", "1"},
        {"5.", "5"},
        {".5", "0.5"},
        {"1e3", "1000"},
        {"1.5e-3", "0.0015"},
        {"-0.0", "0"},
        {"1e15", "1000000000000000"},
        {"9223372036854775807", "9223372036854775807"},
        {"-9223372036854775808", "-9223372036854775808"},
        {"18446744073709551615", "1.8446744073709552e+19"},
        {"99999999999999999999999", "1e+23"},
        {"1e400", "\"1e400\""},
        {"1:30", "\"1:30\""},
        {"2001-01-01", "\"2001-01-01\""},
        {"1.2.3", "\"1.2.3\""},
        {"-", "[null]"},
        {"0x", "\"0x\""},
        {"1e", "\"1e\""},
        {".", "\".\""},
        {"-x", "\"-x\""},
        {"8Gi", "\"8Gi\""},
        {"\"a\\0b\"", "\"a\\u0000b\""},
        {"|\n  two\n  lines\n", "\"two\\nlines\\n\""},
        {">-\n  folded\n  line\n", "\"folded line\""},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        auto_buf Buf yaml = {0}, json = {0};
        buf_printf(&yaml, "k:%s%s\n", cases[i][0][0] == '-' && !cases[i][0][1] ? "\n" : " ",
                   cases[i][0]);
        buf_printf(&json, "[{\"k\":%s}]", cases[i][1]);
        expect(yaml.at, json.at);
    }
}

static void documents_collections_and_keys_are_read(void **state) {
    (void)state;
    expect("", "[]");
    expect("# nothing\n---\n---\n", "[]");
    expect("a: 1\n---\nb: [x, {c: d}]\n...\n---\n# empty\n---\n- 1\n- \n",
           "[{\"a\":1},{\"b\":[\"x\",{\"c\":\"d\"}]},[1,null]]");
    expect("1: a\n1.5: b\nyes: c\n0x10: d\n\"2\": e\n",
           "[{\"1\":\"a\",\"1.5\":\"b\",\"true\":\"c\",\"16\":\"d\",\"2\":\"e\"}]");
    expect("args: [\"--a={\\\"b\\\": 1}\", '--c']\n",
           "[{\"args\":[\"--a={\\\"b\\\": 1}\",\"--c\"]}]");
    expect("'<<': 1\n", "[{\"<<\":1}]");
}

static void an_alias_repeats_its_anchor(void **state) {
    (void)state;
    expect("a: &x {p: [1]}\nb: *x\n&k c: *k\n",
           "[{\"a\":{\"p\":[1]},\"b\":{\"p\":[1]},\"c\":\"c\"}]");
    expect("a: &x 1\nb: &x 2\nc: *x\n", "[{\"a\":1,\"b\":2,\"c\":2}]");
    Err err = {0};
    auto_json json_t *tree = yaml_parse(STR("a: &x {p: 1}\nb: *x\n"), &err);
    json_t *document = json_array_get(tree, 0), *a = json_object_get(document, "a");
    json_object_set_new(a, "p", json_integer(2)); /* the copies are apart */
    assert_int_equal(json_integer_value(json_object_get(json_object_get(document, "b"), "p")), 1);
}

static void what_is_wrong_is_named_with_its_place(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"a: 1\nb: 2\na: 3\n", "yaml line 3, column 1: key 'a' stands twice in one mapping"},
        {"yes: 1\ntrue: 2\n", "yaml line 2, column 1: key 'true' stands twice in one mapping"},
        {"a: !!str 5\n",
         "yaml line 1, column 4: tags are not supported: quotes make a string of any value"},
        {"a: &x {b: 1}\nc:\n  <<: *x\n",
         "yaml line 3, column 3: merge keys are not supported: write the members out"},
        {"a: *b\n", "yaml line 1, column 4: alias '*b' has no anchor before it"},
        {"a: &b [*b]\n", "yaml line 1, column 8: alias '*b' stands inside of what it repeats"},
        {"a: &x 1\n---\nb: *x\n", "yaml line 3, column 4: alias '*x' has no anchor before it"},
        {"a: .inf\n", "yaml line 1, column 4: infinity and not-a-number cannot be in a manifest"},
        {"~: 1\n", "yaml line 1, column 1: a key is a string, a number or a boolean"},
        {"[1]: 1\n", "yaml line 1, column 1: a key is a string, a number or a boolean"},
        {"\"a\\0\": 1\n", "yaml line 1, column 1: a key cannot hold \\0"},
        {"a: [1, 2\nb: 3\n", "yaml line 2, column 2: did not find expected ',' or ']'"},
        {"a:\n\t- b\n", "yaml line 2, column 1: found character that cannot start any token"},
        {"a: \xff\n", "yaml byte 3: invalid leading UTF-8 octet"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) expect_refused(cases[i][0], cases[i][1]);
}

static void aliases_cannot_grow_a_small_text_without_bound(void **state) {
    (void)state;
    auto_buf Buf text = {0};
    buf_str(&text, "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for (int i = 1; i < 12; i++) {
        buf_printf(&text, "a%d: &a%d [", i, i);
        for (int k = 0; k < 10; k++) buf_printf(&text, "%s*a%d", k ? "," : "", i - 1);
        buf_str(&text, "]\n");
    }
    Err err = {0};
    assert_null(yaml_parse((Str){text.at, text.length}, &err));
    assert_string_equal(err.message,
                        "yaml line 6, column 10: aliases repeat too much: write the values out");
}

static void size_and_nesting_have_limits(void **state) {
    (void)state;
    Err err = {0};
    auto_free char *large = mem_new(LIMIT_YAML + 1);
    memset(large, ' ', LIMIT_YAML + 1);
    assert_null(yaml_parse((Str){large, LIMIT_YAML + 1}, &err));
    assert_string_equal(err.message, "yaml text has 1048577 bytes, 1048576 at most");
    assert_int_equal(err.code, ERR_TOO_LARGE);
    memset(large, '[', LIMIT_JSON_DEPTH + 1);
    assert_null(yaml_parse((Str){large, LIMIT_JSON_DEPTH + 1}, &err));
    assert_string_equal(err.message, "yaml line 1, column 65: nested too deeply");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalars_have_the_types_that_kubectl_gives_them),
        cmocka_unit_test(documents_collections_and_keys_are_read),
        cmocka_unit_test(an_alias_repeats_its_anchor),
        cmocka_unit_test(what_is_wrong_is_named_with_its_place),
        cmocka_unit_test(aliases_cannot_grow_a_small_text_without_bound),
        cmocka_unit_test(size_and_nesting_have_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
