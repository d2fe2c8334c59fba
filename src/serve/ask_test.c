// SPDX-License-Identifier: Apache-2.0
/* Requests as bytes: what is understood, and how the rest is refused. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include "ask.h"
#include <cmocka.h>

#define CHAT "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]"

/* True: read and checked. */
static bool read_ask(AskKind kind, const char *body, Ask *ask, Problem *problem) {
    *problem = (Problem){0};
    return ask_read(ask, kind, str_of(body), problem) && ask_check(ask, problem);
}

static void numbers_are_converted_as_clients_are_used_to(void **state) {
    (void)state;
    Ask ask;
    Problem problem;
    assert_true(read_ask(ASK_CHAT,
                         "{" CHAT ",\"max_tokens\":\"12\",\"top_k\":5.0,\"temperature\":\"0.5\","
                         "\"stream\":\"yes\",\"top_p\":1,\"seed\":null,\"n\":true,\"logprobs\":1,"
                         "\"ignore_eos\":\"0\",\"stream_options\":{\"include_usage\":true}}",
                         &ask, &problem));
    assert_true(ask.max_tokens.given && ask.max_tokens.value == 12);
    assert_true(ask.top_k.value == 5 && ask.temperature.value == 0.5 && ask.top_p.value == 1);
    assert_true(ask.stream.value && ask.chat_logprobs.value && ask.n.value == 1);
    assert_true(ask.ignore_eos.given && !ask.ignore_eos.value && !ask.seed.given);
    assert_true(ask.include_usage.value && !ask.continuous_usage.given);
    ask_done(&ask);
}

static void what_changes_nothing_here_is_accepted(void **state) {
    (void)state;
    static const char *const chats[] = {
        "{" CHAT "}",
        "{" CHAT ",\"user\":\"u\",\"length_penalty\":2,\"include_reasoning\":false}",
        "{" CHAT ",\"use_beam_search\":false,\"bad_words\":[],\"structured_outputs\":null}",
        "{" CHAT ",\"response_format\":{\"type\":\"text\"},\"best_of\":1,\"priority\":0}",
        "{" CHAT ",\"no_such_field\":{\"a\":[1]},\"guided_json\":null,\"vllm_xargs\":{}}",
        "{" CHAT ",\"tool_choice\":\"none\"}",
        "{" CHAT ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],"
        "\"tool_choice\":\"none\"}",
        "{" CHAT ",\"stream\":true,\"stream_options\":{},\"stream_interval\":4}",
        "{" CHAT ",\"stream_options\":{},\"add_generation_prompt\":true}",
        "{" CHAT ",\"cache_salt\":\"abc\",\"kv_transfer_params\":{}}",
        "{\"messages\":[{\"role\":\"assistant\",\"content\":null},{\"role\":\"critic\"},"
        "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},\"b\"]}]}",
        "{\"messages\":[]}", /* refused later, by the template */
    };
    static const char *const completions[] = {
        "{\"prompt\":\"x\"}",          "{\"prompt\":[\"x\",\"y\"]}", "{\"prompt\":[1,2]}",
        "{\"prompt\":[[1],[2,3]]}",    "{\"prompt\":\"x\",\"logprobs\":0,\"echo\":true}",
        "{\"prompt\":\"x\",\"suffix\":null,\"stop\":[\"a\",\"b\"],\"max_tokens\":null}",
    };
    for (size_t i = 0; i < COUNT_OF(chats) + COUNT_OF(completions); i++) {
        bool chat = i < COUNT_OF(chats);
        const char *body = chat ? chats[i] : completions[i - COUNT_OF(chats)];
        Ask ask;
        Problem problem;
        if (!read_ask(chat ? ASK_CHAT : ASK_COMPLETION, body, &ask, &problem))
            fail_msg("%s: %s", body, problem.message.at);
        ask_done(&ask);
        problem_done(&problem);
    }
}

typedef struct Bad { const char *body, *type, *param, *message; } Bad;

static void assert_refused(AskKind kind, const Bad *bad) {
    Ask ask;
    Problem problem;
    if (read_ask(kind, bad->body, &ask, &problem)) fail_msg("%s: accepted", bad->body);
    if (problem.status != 400 || strcmp(problem.type, bad->type) != 0 ||
        strcmp(problem.param, bad->param) != 0 || !strstr(problem.message.at, bad->message))
        fail_msg("%s: %d %s, param %s: %s", bad->body, problem.status, problem.type, problem.param,
                 problem.message.at);
    ask_done(&ask);
    problem_done(&problem);
}

static void wrong_types_are_told_with_their_place(void **state) {
    (void)state;
    static const Bad chats[] = {
        {"", "Bad Request", "body", "'type': 'missing', 'loc': 'body', 'msg': 'Field required'"},
        {"{\"model\": \"x\", ", "Bad Request", "body.15",
         "1 validation error:\n  {'type': 'json_invalid', 'loc': 'body.15', 'msg': 'JSON decode "
         "error', "
         "'input': '<dict of 0 items>', 'ctx': {'error': 'Expecting property name enclosed in "
         "double quotes'}}"},
        {"[]", "Bad Request", "body",
         "'type': 'model_attributes_type', 'loc': 'body', 'msg': 'Input should be a valid "
         "dictionary "
         "or object to extract fields from', 'input': '<list of 0 items>'"},
        {"{}", "Bad Request", "body.messages",
         "'msg': 'Field required', 'input': '<dict of 0 items>'"},
        {"{" CHAT ",\"max_tokens\":\"abc\"}", "Bad Request", "body.max_tokens",
         "1 validation error:\n  {'type': 'int_parsing', 'loc': 'body.max_tokens', 'msg': 'Input "
         "should be "
         "a valid integer, unable to parse string as an integer', 'input': 'abc'}"},
        {"{" CHAT ",\"max_tokens\":1.5}", "Bad Request", "body.max_tokens",
         "'int_from_float', 'loc': 'body.max_tokens', 'msg': 'Input should be a valid integer, got "
         "a "
         "number with a fractional part', 'input': '1.5'"},
        {"{" CHAT ",\"max_tokens\":[1]}", "Bad Request", "body.max_tokens", "'int_type'"},
        {"{" CHAT ",\"min_tokens\":null}", "Bad Request", "body.min_tokens", "'int_type'"},
        {"{" CHAT ",\"temperature\":\"hot\"}", "Bad Request", "body.temperature",
         "'float_parsing'"},
        {"{" CHAT ",\"temperature\":{}}", "Bad Request", "body.temperature", "'float_type'"},
        {"{" CHAT ",\"stream\":\"maybe\"}", "Bad Request", "body.stream", "'bool_parsing'"},
        {"{" CHAT ",\"stream\":[]}", "Bad Request", "body.stream", "'bool_type'"},
        {"{" CHAT ",\"user\":5}", "Bad Request", "body.user", "'string_type'"},
        {"{" CHAT ",\"stop\":5}", "Bad Request", "body.stop",
         "2 validation errors:\n  {'type': 'string_type', 'loc': 'body.stop', 'msg': 'Input should "
         "be a "
         "valid string', 'input': '5'}\n  {'type': 'list_type'"},
        {"{" CHAT ",\"stop\":[\"a\",null]}", "Bad Request", "body.stop.1", "'input': 'None'"},
        {"{" CHAT ",\"kv_transfer_params\":\"x\"}", "Bad Request", "body.kv_transfer_params",
         "'dict_type', 'loc': 'body.kv_transfer_params', 'msg': 'Input should be a valid "
         "dictionary'"},
        {"{" CHAT ",\"stream_options\":[]}", "Bad Request", "body.stream_options", "'dict_type'"},
        {"{" CHAT ",\"truncate_prompt_tokens\":-2}", "Bad Request", "body.truncate_prompt_tokens",
         "'greater_than_equal', 'loc': 'body.truncate_prompt_tokens', 'msg': 'Input should be "
         "greater "
         "than or equal to -1', 'input': '-2', 'ctx': {'ge': -1}"},
        {"{" CHAT ",\"truncation_side\":\"up\"}", "Bad Request", "body.truncation_side",
         "'literal_error'"},
        {"{\"messages\":5}", "Bad Request", "body.messages", "'list_type'"},
        {"{\"messages\":[5]}", "Bad Request", "body.messages.0", "'dict_type'"},
        {"{\"messages\":[{\"content\":\"x\"}]}", "Bad Request", "body.messages.0.role",
         "'missing', 'loc': 'body.messages.0.role', 'msg': 'Field required'"},
        {"{\"messages\":[{\"role\":\"user\"}]}", "Bad Request", "body.messages.0.content",
         "'missing'"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":5}]}", "Bad Request",
         "body.messages.0.content", "'string_type'"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":null}]}", "Bad Request",
         "body.messages.0.content", "'input': 'None'"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"text\":\"x\"}]}]}", "Bad Request",
         "body.messages.0.content.0.type", "'missing'"},
        {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{}]}]}", "Bad Request",
         "body.messages.0.tool_calls.0.function.name", "'missing'"},
    };
    for (size_t i = 0; i < COUNT_OF(chats); i++) assert_refused(ASK_CHAT, &chats[i]);
    static const Bad others[] = {
        {"{\"prompt\":5}", "Bad Request", "body.prompt", "2 validation errors"},
        {"{\"prompt\":[1,\"x\"]}", "Bad Request", "body.prompt.1", "'int_parsing'"},
        {"{\"prompt\":[-1]}", "Bad Request", "body.prompt.0", "greater than or equal to 0"},
        {"{\"prompt\":[[1],5]}", "Bad Request", "body.prompt.1", "'list_type'"},
        {"{\"prompt\":[\"x\",[1]]}", "Bad Request", "body.prompt.1", "'string_type'"},
    };
    for (size_t i = 0; i < COUNT_OF(others); i++) assert_refused(ASK_COMPLETION, &others[i]);
    assert_refused(ASK_TOKENIZE, &(Bad){"{}", "Bad Request", "body.prompt", "'missing'"});
    assert_refused(ASK_TOKENIZE,
                   &(Bad){"{\"prompt\":[1]}", "Bad Request", "body.prompt", "'string_type'"});
    assert_refused(ASK_DETOKENIZE, &(Bad){"{}", "Bad Request", "body.tokens", "'missing'"});
    assert_refused(ASK_DETOKENIZE,
                   &(Bad){"{\"tokens\":[-1]}", "Bad Request", "body.tokens.0", "'ge': 0"});
}

static void fields_that_do_not_go_together_are_refused(void **state) {
    (void)state;
    static const Bad chats[] = {
        {"{" CHAT ",\"stream_options\":{\"include_usage\":true}}", "BadRequestError",
         "stream_options",
         "Stream options can only be defined when `stream=True`. (parameter=stream_options)"},
        {"{" CHAT ",\"top_logprobs\":2}", "BadRequestError", "top_logprobs",
         "when using `top_logprobs`, `logprobs` must be set to true. (parameter=top_logprobs)"},
        {"{" CHAT ",\"top_logprobs\":-2}", "BadRequestError", "top_logprobs",
         "`top_logprobs` must be a positive value or -1. (parameter=top_logprobs, value=-2)"},
        {"{" CHAT ",\"prompt_logprobs\":1,\"stream\":true}", "BadRequestError", "prompt_logprobs",
         "`prompt_logprobs` are not available when `stream=True`."},
        {"{" CHAT ",\"tool_choice\":\"auto\"}", "BadRequestError", "tool_choice",
         "When using `tool_choice`, `tools` must be set. (parameter=tool_choice)"},
        {"{" CHAT ",\"tools\":[]}", "BadRequestError", "tools",
         "`tools` must not be an empty array."},
        {"{" CHAT ",\"tools\":[{\"function\":{\"name\":\"f\"}}]}", "BadRequestError", "",
         "\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be "
         "set"},
        {"{" CHAT ",\"tools\":[{\"function\":{\"name\":\"f\"}}],\"tool_choice\":\"required\"}",
         "BadRequestError", "tool_choice", "other than \"none\" is not supported here yet"},
        {"{" CHAT ",\"tools\":[{\"function\":{\"name\":\"f\"}}],\"tool_choice\":\"some\"}",
         "BadRequestError", "tool_choice", "Invalid value for `tool_choice`: some!"},
        {"{" CHAT ",\"tools\":[{\"function\":{}}],\"tool_choice\":\"none\"}", "BadRequestError",
         "tools", "`tools[0]` must have a `function` with a `name`."},
        {"{" CHAT ",\"continue_final_message\":true,\"add_generation_prompt\":true}",
         "BadRequestError", "", "Cannot set both `continue_final_message` and"},
        {"{" CHAT ",\"response_format\":{\"type\":\"json_schema\"}}", "BadRequestError",
         "response_format", "the 'json_schema' field must be provided."},
        {"{" CHAT ",\"response_format\":{\"type\":\"json_object\"}}", "BadRequestError",
         "response_format", "`response_format` of type 'json_object' is not supported here yet"},
        {"{" CHAT ",\"priority\":1}", "BadRequestError", "priority",
         "Got priority 1 but Priority scheduling is not enabled. (parameter=priority, value=1)"},
        {"{" CHAT ",\"cache_salt\":\"\"}", "BadRequestError", "cache_salt", "non-empty string"},
        {"{" CHAT ",\"cache_salt\":\"a/b\"}", "BadRequestError", "cache_salt", "'/'"},
        {"{" CHAT ",\"use_beam_search\":true}", "BadRequestError", "use_beam_search",
         "`use_beam_search` is not supported here yet: leave it out, or set it to false"},
        {"{" CHAT ",\"guided_regex\":\"a+\"}", "BadRequestError", "guided_regex",
         "`guided_regex` is not supported here yet: leave it out"},
        {"{" CHAT ",\"structured_outputs\":{\"json\":{}}}", "BadRequestError", "structured_outputs",
         "not supported here yet"},
        {"{" CHAT ",\"logprob_token_ids\":[1]}", "BadRequestError", "logprob_token_ids",
         "not supported"},
        {"{" CHAT ",\"bad_words\":[\"x\"]}", "BadRequestError", "bad_words", "set it to []"},
        {"{" CHAT ",\"best_of\":2}", "BadRequestError", "best_of", "set it to 1"},
    };
    for (size_t i = 0; i < COUNT_OF(chats); i++) assert_refused(ASK_CHAT, &chats[i]);
    static const Bad completions[] = {
        {"{}", "BadRequestError", "prompt",
         "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)"},
        {"{\"prompt\":\"\"}", "BadRequestError", "prompt", "must be provided and non-empty"},
        {"{\"prompt\":[]}", "BadRequestError", "prompt", "must be provided and non-empty"},
        {"{\"prompt\":\"x\",\"suffix\":\"y\"}", "BadRequestError", "suffix",
         "suffix is only supported for models with FIM completion rendering"},
        {"{\"prompt\":\"x\",\"logprobs\":-3}", "BadRequestError", "logprobs",
         "`logprobs` must be a positive value or -1."},
    };
    for (size_t i = 0; i < COUNT_OF(completions); i++)
        assert_refused(ASK_COMPLETION, &completions[i]);
    auto_buf Buf many = {0};
    buf_str(&many, "{\"prompt\":[\"x\"");
    for (int i = 0; i < LIMIT_PROMPTS; i++) buf_str(&many, ",\"x\"");
    buf_str(&many, "]}");
    assert_refused(ASK_COMPLETION,
                   &(Bad){many.at, "BadRequestError", "prompt",
                          "prompt list length 1025 exceeds the maximum allowed count of "
                          "1024."});
}

static void many_issues_are_counted_and_ten_are_shown(void **state) {
    (void)state;
    auto_buf Buf body = {0};
    buf_str(&body, "{\"messages\":[");
    for (int i = 0; i < 13; i++) buf_printf(&body, "%s{\"content\":\"x\"}", i ? "," : "");
    buf_str(&body, "]}");
    assert_refused(ASK_CHAT,
                   &(Bad){body.at, "Bad Request", "body.messages.0.role", "13 validation errors:"});
    assert_refused(ASK_CHAT,
                   &(Bad){body.at, "Bad Request", "body.messages.0.role",
                          "'loc': 'body.messages.9.role', 'msg': 'Field required', 'input': "
                          "'<dict of 1 items>'}\n  ...and 3 more errors"});
}

static void texts_are_quoted_as_python_does(void **state) {
    (void)state;
    static const struct { const char *text, *quoted;
    } cases[] = {{"abc", "'abc'"},   {"it's", "\"it's\""}, {"a\"b'c", "'a\"b\\'c'"},
                 {"a\nb", "'a\\nb'"}, {"a\\b", "'a\\\\b'"}, {"\x01", "'\\x01'"}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        auto_buf Buf out = {0};
        python_repr(&out, str_of(cases[i].text));
        assert_string_equal(out.at, cases[i].quoted);
    }
}

static void an_error_has_its_hint_behind_it(void **state) {
    (void)state;
    Err err = {0};
    Problem problem = {0};
    auto_buf Buf out = {0};
    err_set(&err, ERR_EXHAUSTED, "the queue is full: 4 requests wait");
    err_hint(&err, "Try again later.");
    problem_from_err(&problem, &err);
    problem_body(&problem, &out);
    assert_string_equal(out.at,
                        "{\"error\":{\"message\":\"the queue is full: 4 requests wait. Try again "
                        "later.\",\"type\":\"Service Unavailable\",\"param\":null,\"code\":503}}");
    problem_done(&problem);
}

static json_t *template_messages(const char *text, bool parts, Problem *problem) {
    Err err = {0};
    auto_json json_t *messages = json_parse(str_of(text), &err);
    return messages_for_template(messages, parts, "m", problem);
}

static void messages_reach_the_template_as_it_wants_them(void **state) {
    (void)state;
    static const struct { const char *in; bool parts; const char *out;
    } cases[] = {
        {"[{\"role\":\"user\",\"content\":\"a\",\"extra\":1}]", false,
         "[{\"role\":\"user\",\"content\":\"a\"}]"},
        {"[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},\"b\"]}]", false,
         "[{\"role\":\"user\",\"content\":\"a\\nb\"}]"},
        {"[{\"role\":\"user\",\"content\":\"a\"}]", true,
         "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}]}]"},
        {"[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"1\",\"function\":"
         "{\"name\":\"f\",\"arguments\":\"{\\\"x\\\":1}\"}}]}]", false,
         "[{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"1\",\"function\":"
         "{\"name\":\"f\",\"arguments\":{\"x\":1}}}]}]"},
        {"[{\"role\":\"tool\",\"content\":\"r\",\"tool_call_id\":\"1\"}]", false,
         "[{\"role\":\"tool\",\"content\":\"r\",\"tool_call_id\":\"1\"}]"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        Problem problem = {0};
        auto_buf Buf out = {0};
        auto_json json_t *got = template_messages(cases[i].in, cases[i].parts, &problem);
        assert_non_null(got);
        buf_json_tree(&out, got);
        assert_string_equal(out.at, cases[i].out);
    }
    static const struct { const char *in, *message;
    } bad[] = {
        {"[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{}}]}]",
         "m is not a multimodal model"},
        {"[{\"role\":\"user\",\"content\":[{\"type\":\"song\"}]}]", "Unknown part type: song"},
        {"[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]",
         "a content part of type 'text' has no text"},
        {"[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":\"{"
         "\"}}]}]",
         "the arguments of tool call 0 are not JSON"},
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        Problem problem = {0};
        assert_null(template_messages(bad[i].in, false, &problem));
        assert_non_null(strstr(problem.message.at, bad[i].message));
        problem_done(&problem);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_converted_as_clients_are_used_to),
        cmocka_unit_test(what_changes_nothing_here_is_accepted),
        cmocka_unit_test(wrong_types_are_told_with_their_place),
        cmocka_unit_test(fields_that_do_not_go_together_are_refused),
        cmocka_unit_test(many_issues_are_counted_and_ten_are_shown),
        cmocka_unit_test(texts_are_quoted_as_python_does),
        cmocka_unit_test(an_error_has_its_hint_behind_it),
        cmocka_unit_test(messages_reach_the_template_as_it_wants_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
