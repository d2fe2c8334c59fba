// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include "prefix.h"
#include "rewrite.h"
#include <cmocka.h>

#define KV_ASK                                                                                   \
    "\"kv_transfer_params\":{\"do_remote_decode\":true,\"do_remote_prefill\":false,"             \
    "\"remote_engine_id\":null,\"remote_block_ids\":null,\"remote_host\":null,"                  \
    "\"remote_port\":null}"
#define PARAMS "{\"remote_block_ids\":[[1, 2]],\"n\":9007199254740993,\"do_remote_prefill\":true}"

static Arena arena;

static RouteRequest *read_request(const char *text) {
    static RouteRequest request;
    Err err = {0};
    request = (RouteRequest){0};
    if (!route_request_read(&request, str_of(text), &arena, &err))
        fail_msg("%s: %s", text, err.message);
    return &request;
}

static void assert_parts(const BodyParts *parts, const char *want) {
    auto_buf Buf text = {0};
    Err err = {0};
    route_parts_join(parts, &text);
    assert_string_equal(text.at, want);
    json_t *tree = json_parse((Str){text.at, text.length}, &err);
    assert_non_null(tree);
    json_decref(tree);
}

static void prefill_gets_one_token_to_make(void **state) {
    (void)state;
    const struct { const char *in, *out; bool hand_over; const char *model;
    } cases[] = {
        {"{\"model\":\"a\",\"prompt\":\"x\",\"max_tokens\":100}",
         "{\"model\":\"a\",\"prompt\":\"x\",\"max_tokens\":1}", false, NULL},
        {"{\"model\":\"a\",\"prompt\":\"x\"}",
         "{\"model\":\"a\",\"prompt\":\"x\",\"max_tokens\":1}", false, NULL},
        {"{\"model\":\"a\",\"prompt\":\"x\",\"max_tokens\":null}",
         "{\"model\":\"a\",\"prompt\":\"x\",\"max_tokens\":1}", false, NULL},
        {"{\"model\":\"a\",\"prompt\":\"x\",\"max_completion_tokens\":50}",
         "{\"model\":\"a\",\"prompt\":\"x\",\"max_completion_tokens\":1,\"max_tokens\":1}", false,
         NULL},
        {"{\"model\":\"a\",\"prompt\":\"x\",\"max_completion_tokens\":null,\"max_tokens\":7}",
         "{\"model\":\"a\",\"prompt\":\"x\",\"max_completion_tokens\":null,\"max_tokens\":1}",
         false, NULL},
        /* a stream has no reply that could hand anything over */
        {"{\"stream\":true,\"model\":\"a\",\"prompt\":\"x\",\"max_tokens\":2,"
         "\"stream_options\":{\"include_usage\":true}}",
         "{\"model\":\"a\",\"prompt\":\"x\",\"max_tokens\":1}", false, NULL},
        {"{ \"stream\" : true , \"stream_options\":{} ,\"model\":\"a\",\"prompt\":\"x\" , "
         "\"max_tokens\": 2 }",
         "{  \"model\":\"a\",\"prompt\":\"x\" , \"max_tokens\": 1}", false, NULL},
        {"{\"stream\":true,\"model\":\"a\",\"prompt\":\"x\",\"max_tokens\":2,\"stream\":false}",
         "{\"model\":\"a\",\"prompt\":\"x\",\"max_tokens\":1}", false, NULL},
        {"{\"\\u0073tream\":true,\"model\":\"a\",\"prompt\":\"x\",\"max_tokens\":2}",
         "{\"model\":\"a\",\"prompt\":\"x\",\"max_tokens\":1}", false, NULL},
        /* more tokens at least, or more answers, make no sense with one token */
        {"{\"model\":\"a\",\"prompt\":\"x\",\"max_tokens\":9,\"min_tokens\":5,\"n\":3,\"best_of\":"
         "4}",
         "{\"model\":\"a\",\"prompt\":\"x\",\"max_tokens\":1,\"n\":1,\"best_of\":1}", false, NULL},
        /* what decides about the first token stays, byte for byte */
        {"{\"model\":\"a\",\"prompt\":\"x\",\"seed\":9007199254740993,\"temperature\":0.70,"
         "\"logprobs\": 5,\"max_tokens\":9,\"x\":{\"stream\":true}}",
         "{\"model\":\"a\",\"prompt\":\"x\",\"seed\":9007199254740993,\"temperature\":0.70,"
         "\"logprobs\": 5,\"max_tokens\":1,\"x\":{\"stream\":true}}",
         false, NULL},
        /* what the engine has to refuse stays as well */
        {"{\"model\":\"a\",\"prompt\":\"x\",\"max_tokens\":\"9\",\"n\":[]}",
         "{\"model\":\"a\",\"prompt\":\"x\",\"max_tokens\":\"9\",\"n\":[]}", false, NULL},
        {"{\"model\":\"a\",\"prompt\":\"x\",\"max_tokens\":9}",
         "{\"model\":\"a\",\"prompt\":\"x\",\"max_tokens\":1," KV_ASK "}", true, NULL},
        {"{\"kv_transfer_params\":{\"do_remote_prefill\":true},\"model\":\"a\",\"prompt\":\"x\","
         "\"max_tokens\":9}",
         "{" KV_ASK ",\"model\":\"a\",\"prompt\":\"x\",\"max_tokens\":1}", true, NULL},
        {"{\"kv_transfer_params\":{\"remote_host\":\"evil\"},\"model\":\"a\",\"prompt\":\"x\","
         "\"max_tokens\":9}",
         "{\"model\":\"a\",\"prompt\":\"x\",\"max_tokens\":1}", false, NULL},
        {"{\"model\":\"a\",\"prompt\":\"x\",\"max_tokens\":9,\"kv_transfer_params\":{}}",
         "{\"model\":\"a\",\"prompt\":\"x\",\"max_tokens\":1}", false, NULL},
        {"{\"prompt\":\"x\",\"model\" : \"a\" ,\"max_tokens\":9}",
         "{\"prompt\":\"x\",\"model\" : \"org/b\" ,\"max_tokens\":1}", false, "\"org/b\""},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        BodyParts parts;
        route_request_prefill(read_request(cases[i].in), str_of(cases[i].model), cases[i].hand_over,
                              &parts);
        assert_parts(&parts, cases[i].out);
    }
}

static void decode_gets_what_prefill_handed_over(void **state) {
    (void)state;
    const struct { const char *in, *out, *params; bool hidden; const char *model;
    } cases[] = {
        {"{\"model\":\"a\",\"prompt\":\"x\",\"max_tokens\":100}",
         "{\"model\":\"a\",\"prompt\":\"x\",\"max_tokens\":100}", NULL, false, NULL},
        {"{\"model\":\"a\",\"prompt\":\"x\",\"max_tokens\":100}",
         "{\"model\":\"a\",\"prompt\":\"x\",\"max_tokens\":100,\"kv_transfer_params\":" PARAMS "}",
         PARAMS, false, NULL},
        {"{\"model\":\"a\",\"kv_transfer_params\":{\"remote_host\":\"evil\"},\"prompt\":\"x\"}",
         "{\"model\":\"a\",\"kv_transfer_params\":" PARAMS ",\"prompt\":\"x\"}", PARAMS, false,
         NULL},
        {"{\"model\":\"a\",\"kv_transfer_params\":{\"remote_host\":\"evil\"},\"prompt\":\"x\"}",
         "{\"model\":\"a\",\"prompt\":\"x\"}", NULL, false, NULL},
        {"{\"model\":\"a\",\"prompt\":\"x\"}", "{\"model\":\"b\\\"c\",\"prompt\":\"x\"}", NULL,
         false, "\"b\\\"c\""},
        /* the usage chunk is asked for, and hidden from a client that did not ask */
        {"{\"model\":\"a\",\"prompt\":\"x\",\"stream\":true}",
         "{\"model\":\"a\",\"prompt\":\"x\",\"stream\":true,\"stream_options\":{\"include_usage\":"
         "true}}",
         NULL, true, NULL},
        {"{\"model\":\"a\",\"prompt\":\"x\",\"stream\":true,\"stream_options\":{\"include_usage\":"
         "true}}",
         "{\"model\":\"a\",\"prompt\":\"x\",\"stream\":true,\"stream_options\":{\"include_usage\":"
         "true}}",
         NULL, false, NULL},
        {"{\"model\":\"a\",\"prompt\":\"x\",\"stream\":true,\"stream_options\":null}",
         "{\"model\":\"a\",\"prompt\":\"x\",\"stream\":true,\"stream_options\":{\"include_usage\":"
         "true}}",
         NULL, true, NULL},
        {"{\"model\":\"a\",\"prompt\":\"x\",\"stream\":true,\"stream_options\":{\"vendor\":[1]}}",
         "{\"model\":\"a\",\"prompt\":\"x\",\"stream\":true,"
         "\"stream_options\":{\"vendor\":[1],\"include_usage\":true}}",
         NULL, true, NULL},
        {"{\"model\":\"a\",\"prompt\":\"x\",\"stream\":true,"
         "\"stream_options\":{\"include_usage\":false,\"continuous_usage_stats\":true}}",
         "{\"model\":\"a\",\"prompt\":\"x\",\"stream\":true,\"stream_options\":{\"include_usage\":"
         "true}}",
         NULL, true, NULL},
        {"{\"model\":\"a\",\"prompt\":\"x\",\"stream\":true,\"stream_options\":{\"include_usage\":"
         "\"yes\"}}",
         "{\"model\":\"a\",\"prompt\":\"x\",\"stream\":true,\"stream_options\":{\"include_usage\":"
         "\"yes\"}}",
         NULL, false, NULL},
        {"{\"model\":\"a\",\"prompt\":\"x\",\"stream\":true,\"stream_options\":7}",
         "{\"model\":\"a\",\"prompt\":\"x\",\"stream\":true,\"stream_options\":7}", NULL, false,
         NULL},
        {"{\"model\":\"a\",\"prompt\":\"x\",\"stream\":\"true\"}",
         "{\"model\":\"a\",\"prompt\":\"x\",\"stream\":\"true\"}", NULL, false, NULL},
        {"{\"model\":\"a\",\"prompt\":\"x\",\"stream\":null}",
         "{\"model\":\"a\",\"prompt\":\"x\",\"stream\":null}", NULL, false, NULL},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        BodyParts parts;
        bool hidden = route_request_decode(read_request(cases[i].in), str_of(cases[i].model),
                                           str_of(cases[i].params), &arena, &parts);
        assert_parts(&parts, cases[i].out);
        assert_int_equal(hidden, cases[i].hidden);
    }
}

/* A retry makes its bodies anew from the same request. */
static void a_request_can_be_rewritten_again_and_again(void **state) {
    (void)state;
    RouteRequest *request =
        read_request("{\"model\":\"a\",\"prompt\":\"x\",\"stream\":true,\"n\":2}");
    for (int i = 0; i < 3; i++) {
        BodyParts parts;
        route_request_prefill(request, STR("\"b\""), true, &parts);
        assert_parts(&parts,
                     "{\"model\":\"b\",\"prompt\":\"x\",\"n\":1,\"max_tokens\":1," KV_ASK "}");
        route_request_decode(request, STR("\"b\""), STR(PARAMS), &arena, &parts);
        assert_parts(&parts,
                     "{\"model\":\"b\",\"prompt\":\"x\",\"stream\":true,\"n\":2,"
                     "\"stream_options\":{\"include_usage\":true},\"kv_transfer_params\":" PARAMS
                     "}");
    }
}

static void what_cannot_be_routed_is_refused(void **state) {
    (void)state;
    const struct { const char *in; ErrCode code; const char *message, *param;
    } cases[] = {
        {"{\"model\":", ERR_INVALID,
         "the request body is not a JSON object: Expecting value: line 1 column 10 (char 9)", "9"},
        {"", ERR_INVALID,
         "the request body is not a JSON object: Expecting value: line 1 column 1 (char 0)", "0"},
        {"{\"model\":\"a\"}{}", ERR_INVALID,
         "the request body is not a JSON object: Extra data: line 1 column 14 (char 13)", "13"},
        {"[]", ERR_INVALID,
         "the request body is not a JSON object: Expecting an object: line 1 column 1 (char 0)",
         "0"},
        {"{\"prompt\":\"x\"}", ERR_NOT_FOUND, "the request names no model", "model"},
        {"{\"model\":7,\"prompt\":\"x\"}", ERR_NOT_FOUND, "the request names no model", "model"},
        {"{\"model\":\"\",\"prompt\":\"x\"}", ERR_NOT_FOUND, "the request names no model", "model"},
        {"{\"model\":\" \\t \",\"prompt\":\"x\"}", ERR_NOT_FOUND, "the request names no model",
         "model"},
        {"{\"model\":\"a\"}", ERR_NOT_FOUND, "the request has neither messages nor a prompt",
         "messages"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        RouteRequest request = {0};
        Err err = {0};
        assert_false(route_request_read(&request, str_of(cases[i].in), &arena, &err));
        assert_int_equal(err.code, cases[i].code);
        assert_string_equal(err.message, cases[i].message);
        assert_string_equal(err.param, cases[i].param);
        assert_true(*err.hint);
    }
}

static void too_many_repeated_members_are_refused(void **state) {
    (void)state;
    auto_buf Buf text = {0};
    Err err = {0};
    RouteRequest request = {0};
    buf_str(&text, "{\"model\":\"a\",\"prompt\":\"x\"");
    for (int i = 0; i < BODY_FOUND; i++) buf_str(&text, ",\"n\":1");
    buf_str(&text, "}");
    assert_false(route_request_read(&request, (Str){text.at, text.length}, &arena, &err));
    assert_non_null(strstr(err.message, "repeated too often: 32"));
}

static void the_model_may_be_escaped(void **state) {
    (void)state;
    assert_true(
        str_eq(read_request("{\"model\":\"a\\/\\u00e9\",\"prompt\":\"\"}")->model, "a/\u00e9"));
    assert_true(str_eq(read_request("{\"\\u006dodel\":\"a\",\"prompt\":\"\"}")->model, "a"));
    assert_true(
        str_eq(read_request("{\"model\":\"a\",\"model\":\"b\",\"prompt\":\"\"}")->model, "b"));
}

static void several_prompts_are_noticed(void **state) {
    (void)state;
    const struct { const char *prompt; bool several;
    } cases[] = {
        {"\"x\"", false},   {"[\"x\"]", false},     {"[\"x\",\"y\"]", true},
        {"[1,2,3]", false}, {"[[1,2],[3]]", true},  {"[[1,2]]", false},
        {"[]", false},      {"[ \"a,b\" ]", false}, {"[\"a\\\"]\",\"\"]", true},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        auto_buf Buf text = {0};
        buf_printf(&text, "{\"model\":\"a\",\"prompt\":%s}", cases[i].prompt);
        assert_int_equal(read_request(text.at)->several_prompts, cases[i].several);
    }
}

static void a_prompt_is_hashed_as_the_text_it_says(void **state) {
    (void)state;
#define USER(text) "<|im_start|>user\n" text "<|im_end|>\n"
    const struct { const char *in, *want;
    } cases[] = {
        {"\"prompt\":\"hello\"", "hello"},
        {"\"prompt\":\"a\\n\\u00e9\\ud83d\\ude00\"", "a\n\u00e9\U0001F600"},
        {"\"prompt\":[\"first\",\"second\"]", "first"},
        {"\"prompt\":[1, 2]", "[1, 2]"},
        {"\"prompt\":[[1,2],[3]]", "[1,2]"},
        {"\"prompt\":\"p\",\"messages\":[{\"role\":\"user\",\"content\":\"m\"}]", "p"},
        {"\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"content\":\"hello\",\"role\":"
         "\"assistant\"}]",
         USER("hi") "<|im_start|>assistant\nhello<|im_end|>\n"},
        {"\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"hello\"},"
         "{\"type\":\"text\",\"text\":\"world\"}]}]",
         USER("hello\nworld")},
        {"\"messages\":[{\"role\":\"user\",\"content\":[{\"text\":\"see\"},"
         "{\"type\":\"image_url\",\"image_url\":{\"url\":\"x\"}}]}]",
         USER("see")},
        {"\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]", ""},
        {"\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[]},{\"role\":\"user\",\"content\":"
         "\"x\"}]",
         USER("x")},
        {"\"messages\":[7,{\"content\":\"no role\"},{\"role\":\"user\",\"content\":null}]", ""},
        {"\"messages\":[]", ""},
        {"\"messages\":\"text\"", ""},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        auto_buf Buf text = {0}, out = {0};
        buf_printf(&text, "{\"model\":\"a\",%s}", cases[i].in);
        route_request_prompt(read_request(text.at), &out);
        assert_string_equal(out.at ? out.at : "", cases[i].want);
    }
}

/* However long it is, and however it is escaped, as much is taken as is hashed, and little more. */
static void only_the_beginning_of_a_long_prompt_is_taken(void **state) {
    (void)state;
    static const struct { const char *piece, *says; } cases[] = {
        {"abcdefg ", "abcdefg "}, {"\\u00e9", "\u00e9"}, {"a\\\"\\\\", "a\"\\"},
        {"\\ud83d\\ude00", "\U0001F600"}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        auto_buf Buf text = {0}, want = {0}, out = {0};
        buf_str(&text, "{\"model\":\"a\",\"prompt\":\"");
        for (size_t k = 0; k < 20000; k++) {
            buf_str(&text, cases[i].piece);
            buf_str(&want, cases[i].says);
        }
        buf_str(&text, "\"}");
        route_request_prompt(read_request(text.at), &out);
        assert_in_range(out.length, PREFIX_BYTES, 4 * PREFIX_BYTES);
        assert_memory_equal(out.at, want.at, PREFIX_BYTES);
    }
}

static void a_reply_is_cleaned_of_what_engines_tell_each_other(void **state) {
    (void)state;
    const struct { const char *in, *out;
    } cases[] = {
        {"{\"id\":\"x\",\"kv_transfer_params\":{\"a\":[1]},\"ec_transfer_params\":null,\"metrics\":"
         "1}",
         "{\"id\":\"x\",\"kv_transfer_params\":null,\"ec_transfer_params\":null,\"metrics\":1}"},
        {"{\"ec_transfer_params\" : {}, \"kv_transfer_params\":7}",
         "{\"ec_transfer_params\" : null, \"kv_transfer_params\":null}"},
        {"{\"id\":\"x\",\"kv_transfer_params\":null,\"ec_transfer_params\":null}", NULL},
        {"{\"id\":\"kv_transfer_params\"}", NULL},
        {"{\"choices\":[{\"kv_transfer_params\":1}]}", NULL},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        Body body;
        BodyParts parts;
        Err err = {0};
        assert_true(route_body_scan(&body, str_of(cases[i].in), &err));
        assert_int_equal(route_reply_clean(&body, &parts), cases[i].out != NULL);
        if (cases[i].out) assert_parts(&parts, cases[i].out);
    }
}

static void usage_is_read_where_it_is_told(void **state) {
    (void)state;
    const struct { const char *in; int64_t prompt, completion; } cases[] = {
        {"{\"usage\":{\"prompt_tokens\":54,\"total_tokens\":72,\"completion_tokens\":18,"
         "\"prompt_tokens_details\":{\"prompt_tokens\":1}}}", 54, 18},
        {"{\"usage\":null}", -1, -1},
        {"{\"usage\":{\"prompt_tokens\":\"54\",\"completion_tokens\":1.5}}", -1, -1},
        {"{}", -1, -1},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        Body body;
        Err err = {0};
        RouteUsage usage = {-1, -1};
        assert_true(route_body_scan(&body, str_of(cases[i].in), &err));
        route_reply_usage(&body, &usage);
        assert_int_equal(usage.prompt, cases[i].prompt);
        assert_int_equal(usage.completion, cases[i].completion);
    }
}

static json_t *recorded(void) {
    size_t length;
    Err err = {0};
    auto_free char *text = file_read("test/data/route/vllm-pair.json", MIB, &length, &err);
    json_t *tree = text ? json_parse((Str){text, length}, &err) : NULL;
    if (!tree) fail_msg("%s", err.message);
    return tree;
}

static void assert_same_tree(const BodyParts *parts, const json_t *want) {
    auto_buf Buf text = {0};
    Err err = {0};
    route_parts_join(parts, &text);
    auto_json json_t *tree = json_parse((Str){text.at, text.length}, &err);
    assert_non_null(tree);
    if (!json_equal(tree, want)) fail_msg("differs: %s", text.at);
}

/* A client's request becomes what two vLLM engines were really sent, and understood. */
static void bodies_are_those_that_vllm_understood(void **state) {
    (void)state;
    static const char *const kinds[] = {"decode", "stream"};
    auto_json json_t *pair = recorded();
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        json_t *decode = json_object_get(json_object_get(pair, kinds[i]), "request");
        json_t *prefill = json_object_get(json_object_get(pair, "prefill"), "request");
        auto_json json_t *client = json_copy(decode);
        auto_buf Buf text = {0}, params = {0};
        BodyParts parts;
        json_object_del(client, "kv_transfer_params");
        buf_json_tree(&text, client);
        RouteRequest *request = read_request(text.at);
        json_object_del(prefill, "stream"); /* false there; left out means the same */
        route_request_prefill(request, STR(""), true, &parts);
        assert_same_tree(&parts, prefill);
        buf_json_tree(&params, json_object_get(decode, "kv_transfer_params"));
        assert_false(route_request_decode(request, STR(""), (Str){params.at, params.length}, &arena,
                                          &parts));
        assert_same_tree(&parts, decode);
    }
}

static void params_are_taken_from_vllms_reply_as_they_are(void **state) {
    (void)state;
    auto_json json_t *pair = recorded();
    const char *reply =
        json_string_value(json_object_get(json_object_get(pair, "prefill"), "reply"));
    Body body;
    Err err = {0};
    Str params;
    RouteUsage usage = {-1, -1};
    BodyParts parts;
    assert_true(route_body_scan(&body, str_of(reply), &err));
    assert_int_equal(route_body_get(&body, BODY_KV_PARAMS, &params), '{');
    assert_true(str_starts(
        params,
        "{\"do_remote_prefill\":true,\"do_remote_decode\":false,\"remote_block_ids\":[[1]],"));
    static const char end[] = ",\"remote_prefill_cached_tokens\":0}";
    assert_memory_equal(params.at + params.length - (sizeof end - 1), end, sizeof end - 1);
    route_reply_usage(&body, &usage);
    assert_int_equal(usage.prompt, 54);
    assert_true(route_reply_clean(&body, &parts));
    auto_buf Buf clean = {0};
    route_parts_join(&parts, &clean);
    assert_null(strstr(clean.at, "remote"));
    assert_non_null(strstr(clean.at, "\"prompt_text\":null,\"kv_transfer_params\":null,"
                                     "\"ec_transfer_params\":null,\"metrics\":null}"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prefill_gets_one_token_to_make),
        cmocka_unit_test(decode_gets_what_prefill_handed_over),
        cmocka_unit_test(a_request_can_be_rewritten_again_and_again),
        cmocka_unit_test(what_cannot_be_routed_is_refused),
        cmocka_unit_test(too_many_repeated_members_are_refused),
        cmocka_unit_test(the_model_may_be_escaped),
        cmocka_unit_test(several_prompts_are_noticed),
        cmocka_unit_test(a_prompt_is_hashed_as_the_text_it_says),
        cmocka_unit_test(only_the_beginning_of_a_long_prompt_is_taken),
        cmocka_unit_test(a_reply_is_cleaned_of_what_engines_tell_each_other),
        cmocka_unit_test(usage_is_read_where_it_is_told),
        cmocka_unit_test(bodies_are_those_that_vllm_understood),
        cmocka_unit_test(params_are_taken_from_vllms_reply_as_they_are),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    arena_done(&arena);
    return failed;
}
