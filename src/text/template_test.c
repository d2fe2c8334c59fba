// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <pthread.h>
#include <stdlib.h>
#include "text.h"
#include <cmocka.h>

#define NOW 1764037800 /* 2025-11-25 02:30:00 UTC */

static const char chat[] = "{\"messages\":[{\"role\":\"system\",\"content\":\"Be "
                           "brief.\"},{\"role\":\"user\",\"content\":\"Hi \\u65e5\"}],"
                           "\"tools\":[{\"name\":\"f\",\"n\":1.0,\"q\":\"<'\\\"\\n\"}],\"add_"
                           "generation_prompt\":true,\"bos_token\":\"<s>\","
                           "\"x\":5,\"l\":[3,1,2],\"d\":{\"b\":null,\"a\":true}}";

/* Renders into out; the error, if any, into err. */
static bool render(const char *text, const char *vars, Buf *out, Err *err) {
    auto_json json_t *tree = json_parse(str_of(vars), err);
    assert_non_null(tree);
    Template *template = template_parse(str_of(text), err);
    if (!template) return false;
    bool ok = template_render(template, tree, NOW, out, err);
    template_free(template);
    return ok;
}

static void expect(const char *text, const char *want) {
    Err err = {0};
    auto_buf Buf out = {0};
    bool ok = render(text, chat, &out, &err);
    assert_string_equal(err.message, "");
    assert_true(ok);
    assert_string_equal(out.at ? out.at : "", want);
}

static void expect_failure(const char *text, ErrCode code, const char *message) {
    Err err = {0};
    auto_buf Buf out = {0};
    buf_str(&out, "kept");
    assert_false(render(text, chat, &out, &err));
    assert_string_equal(err.message, message);
    assert_int_equal(err.code, code);
    assert_string_equal(out.at, "kept"); /* results are written on success only */
}

/* jinja2 3.1.2 gives these bytes, too; test/jinja/run compares with it at length. */
static void templates_render_as_jinja2_does(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + "
         "'<|im_end|>\n' "
         "}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}\n",
         "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi \u65e5<|im_end|>\n"
         "<|im_start|>assistant\n"},
        {"{%- for m in messages -%}\n  {{ loop.index }}{{ m.role }}\n{%- endfor %}",
         "1system2user"},
        {"  {% if x %}\n  a\n  {% endif %}\nb\n", "  a\nb"},
        {"{{ tools|tojson }}", "[{\"name\": \"f\", \"n\": 1.0, \"q\": \"<'\\\"\\n\"}]"},
        {"{{ tools[0]|tojson(indent=2) }}",
         "{\n  \"name\": \"f\",\n  \"n\": 1.0,\n  \"q\": \"<'\\\"\\n\"\n}"},
        {"{{ l }} {{ d }} {{ none }} {{ 1.0 }} {{ 'a' }} {{ ['it\\'s', \"\\n\"] }}",
         "[3, 1, 2] {'b': None, 'a': True} None 1.0 a [\"it's\", '\\n']"},
        {"{{ missing }}|{{ d.missing }}|{{ missing is defined }}", "||False"},
        {"{% set ns = namespace(n=0) %}{% for i in l %}{% set x = i %}{% set ns.n = ns.n + i %}{% "
         "endfor %}{{ x }} {{ ns.n }}",
         "5 6"},
        {"{% macro f(a, b='!') %}{{ a }}{{ b }}{{ caller() if caller else '' }}{% endmacro %}{{ "
         "f('x') }}{% call f(1, b=2) %}y{% endcall %}",
         "x!12y"},
        {"{{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 1 < 2 < 3 }} {{ 'a' in 'abc' }}",
         "-4 2 3.5 1024 True True"},
        {"{{ 'Stra\u00dfe'|upper }} {{ '\u65e5\u672c\u8a9e'[1:] }} {{ "
         "'x</think>y'.split('</think>')[-1] }}",
         "STRASSE \u672c\u8a9e y"},
        {"{{ messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|join(',') }}",
         "Hi \u65e5"},
        {"{% generation %}said{% endgeneration %}{% for i in l %}{% if i == 1 %}{% continue %}{% "
         "endif "
         "%}{{ i }}{% endfor %}",
         "said32"},
        {"{{ strftime_now('%Y-%m-%d') }}", "2025-11-25"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) expect(cases[i][0], cases[i][1]);
}

static void an_error_names_the_line_of_the_template(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"a\n\n{{ missing.x }}", "chat template line 3: 'missing' is undefined"},
        {"{{\n d.b.c }}{{ d.q.c }}", "chat template line 2: 'dict object' has no attribute 'q'"},
        {"{{ l[7].x }}", "chat template line 1: list object has no element 7"},
        {"{% if x %}\n{{ 'a' + 1 }}{% endif %}",
         "chat template line 2: can only concatenate str (not \"int\") to str"},
        {"{{ x.upper() }}", "chat template line 1: 'int object' has no attribute 'upper'"},
        {"{{ l.append(1) }}",
         "chat template line 1: access to attribute 'append' of 'list' object is unsafe"},
        {"{{ none|length }}", "chat template line 1: object of type 'NoneType' has no len()"},
        {"{{ l|map('string')|length }}",
         "chat template line 1: object of type 'generator' has no len(): put '| list' before it"},
        {"{{ 1 // 0 }}", "chat template line 1: division by zero"},
        {"{% for a, b in l %}{% endfor %}",
         "chat template line 1: cannot unpack non-iterable int object"},
        {"{% macro f(a) %}{% endmacro %}\n{{ f(b=1) }}",
         "chat template line 2: macro 'f' takes no keyword argument 'b'"},
        {"{{ x|truncate(words=3) }}",
         "chat template line 1: truncate got an unexpected argument 'words'"},
        {"{{ 'a'.replace('b') }}", "chat template line 1: replace is missing its argument 'new'"},
        {"{{ d|dictsort(by='size') }}",
         "chat template line 1: you can only sort by either \"key\" or \"value\""},
        /* found when the template is parsed */
        {"a\n{{ x|nope }}", "chat template line 2: there is no filter 'nope'"},
        {"{{ x is nope }}", "chat template line 1: there is no test 'nope'"},
        {"{% for i in l %}\n{% if i %}\n{% endfor %}",
         "chat template line 3: unknown tag 'endfor'"},
        {"a\n{% for i in l %}\n",
         "chat template line 2: the block that starts here has no 'endfor'"},
        {"{{ x y }}", "chat template line 1: expected '}}', got 'y'"},
        {"{{ x", "chat template line 1: the template ends where '}}' is expected"},
        {"{{ 'abc }}", "chat template line 1: a string has no end"},
        {"{# abc", "chat template line 1: the comment has no end"},
        {"{{ (1] }}", "chat template line 1: unexpected ']', expected ')'"},
        {"{{ x \u20ac }}", "chat template line 1: unexpected character '\u20ac'"},
        {"{% set 5 = x %}", "chat template line 1: only names can be assigned to"},
        {"{% break %}", "chat template line 1: outside of a loop there cannot be a 'break'"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        expect_failure(cases[i][0], ERR_INVALID, cases[i][1]);
}

static void what_the_template_raises_comes_alone(void **state) {
    (void)state;
    expect_failure("a\n{{ raise_exception('Roles must alternate, got ' ~ messages[0].role) }}",
                   ERR_INVALID, "Roles must alternate, got system");
}

/* Where Python would go on, or print an address. */
static void what_is_not_done_here_is_an_error_not_an_empty_string(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
        ErrCode code;
    } cases[] = {
        {"{{ d.items }}", "chat template line 1: a method cannot be printed: call it with '()'",
         ERR_INVALID},
        {"{{ l|map('string') }}",
         "chat template line 1: a generator cannot be printed: put '| list' behind it",
         ERR_INVALID},
        {"{{ 'a'.encode('utf-8') }}",
         "chat template line 1: method 'encode' of 'str' is not supported", ERR_UNSUPPORTED},
        {"{{ 9223372036854775807 + 1 }}", "chat template line 1: an integer has more than 64 bits",
         ERR_UNSUPPORTED},
        {"{{ 2 ** 64 }}", "chat template line 1: an integer has more than 64 bits",
         ERR_UNSUPPORTED},
        {"{{ -9223372036854775807 - 2 }}", "chat template line 1: an integer has more than 64 bits",
         ERR_UNSUPPORTED},
        {"{% include 'x' %}",
         "chat template line 1: tag 'include' is not supported in chat templates", ERR_UNSUPPORTED},
        {"{{ 'a'|urlize }}", "chat template line 1: filter 'urlize' is not supported",
         ERR_UNSUPPORTED},
        {"{{ lipsum() }}", "chat template line 1: lipsum() is not supported", ERR_UNSUPPORTED},
        {"{{ (-8) ** 0.5 }}", "chat template line 1: the power is a complex number",
         ERR_UNSUPPORTED},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        expect_failure(cases[i].text, cases[i].code, cases[i].message);
}

static void a_template_cannot_take_more_than_its_limits(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
         "chat template line 1: macros call each other more than 100 deep"},
        {"{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
         "chat template line 1: the template takes more than 20000000 steps"},
        {"{% for a in range(100000) %}{{ 'x' * 1000 }}{% endfor %}",
         "chat template line 1: a text is over 16 MiB"},
        {"{% set ns = namespace(s='x') %}{% for a in range(50) %}{% set ns.s = ns.s + ns.s %}{% "
         "endfor %}",
         "chat template line 1: the template needs more than 256 MiB of memory"},
        {"{{ 'abc' * 1000000000000 }}",
         "chat template line 1: the template needs more than 256 MiB of memory"},
        {"{{ (['a' * 100000] * 200)|join|length }}", "chat template line 1: a text is over 16 MiB"},
        {"{{ range(100001) }}", "chat template line 1: Range too big. The sandbox blocks ranges "
                                "larger than MAX_RANGE (100000)."},
        {"{% set ns = namespace(l=[]) %}{% for a in range(1000) %}{% set ns.l = [ns.l] %}{% endfor "
         "%}{{ ns.l }}",
         "chat template line 1: values nest too deeply"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        expect_failure(cases[i][0], ERR_TOO_LARGE, cases[i][1]);
    for (int i = 0; i < 3; i++) { /* brackets, operators, blocks */
        static const char *const parts[][3] = {
            {"{{ ", "(", "1"}, {"{{ ", "not ", "1 }}"}, {"", "{% if x %}", ""}};
        auto_buf Buf text = {0};
        buf_str(&text, parts[i][0]);
        for (int k = 0; k < 101; k++) buf_str(&text, parts[i][1]);
        buf_str(&text, parts[i][2]);
        expect_failure(text.at, ERR_TOO_LARGE, "chat template line 1: nested more than 100 deep");
    }
    auto_free char *large = mem_new(LIMIT_TEMPLATE + 2);
    memset(large, 'x', LIMIT_TEMPLATE + 1);
    expect_failure(large, ERR_TOO_LARGE, "chat template has 262145 bytes, 262144 at most");
}

/* A sum of a thousand terms is one chain: long, but not deep. */
static void long_expressions_are_not_deep_ones(void **state) {
    (void)state;
    auto_buf Buf text = {0};
    buf_str(&text, "{{ 0");
    for (int i = 0; i < 1000; i++) buf_str(&text, " + 1");
    for (int i = 0; i < 1000; i++) buf_str(&text, " and 7");
    buf_str(&text, " }}");
    expect(text.at, "7");
}

static void the_callers_limit_counts_too(void **state) {
    (void)state;
    Err err = {0};
    auto_buf Buf out = {.limit = 3};
    assert_false(render("abcd", chat, &out, &err));
    assert_string_equal(err.message, "the rendered prompt has 4 bytes, 3 at most");
}

static void *render_often(void *user) {
    Err err = {0};
    auto_json json_t *tree = json_parse(STR(chat), &err);
    bool *ok = mem_new(sizeof *ok);
    *ok = true;
    for (int i = 0; i < 200; i++) {
        auto_buf Buf out = {0};
        *ok = *ok && template_render(user, tree, NOW, &out, &err) &&
              str_eq((Str){out.at, out.length}, "<Hi \u65e5>");
    }
    return ok;
}

static void a_parsed_template_is_shared_by_threads(void **state) {
    (void)state;
    Err err = {0};
    Template *template = template_parse(
        STR("{% macro f(m) %}<{{ m.content }}>{% endmacro %}{{ f(messages[-1]) }}"), &err);
    pthread_t threads[4];
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, render_often, template), 0);
    for (size_t i = 0; i < COUNT_OF(threads); i++) {
        void *ok;
        pthread_join(threads[i], &ok);
        assert_true(*(bool *)ok);
        free(ok);
    }
    template_free(template);
}

int main(void) {
    setenv("TZ", "UTC", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(templates_render_as_jinja2_does),
        cmocka_unit_test(an_error_names_the_line_of_the_template),
        cmocka_unit_test(what_the_template_raises_comes_alone),
        cmocka_unit_test(what_is_not_done_here_is_an_error_not_an_empty_string),
        cmocka_unit_test(a_template_cannot_take_more_than_its_limits),
        cmocka_unit_test(long_expressions_are_not_deep_ones),
        cmocka_unit_test(the_callers_limit_counts_too),
        cmocka_unit_test(a_parsed_template_is_shared_by_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
