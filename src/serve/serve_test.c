// SPDX-License-Identifier: Apache-2.0
/* Generation over HTTP, against a scripted engine: replies, streams, stops, ends, failures. */
#include "serve_test.h"

#include <dirent.h>

#define USER "\"messages\":[{\"role\":\"user\",\"content\":\"What is the capital of France?\"}]"
#define CHAT(more) "{" USER more "}"
#define CHATS "/v1/chat/completions"
#define COMPLETIONS "/v1/completions"

static const char fingerprint[] = ",\"system_fingerprint\":\"baton-" BATON_VERSION "-88888888\"";

/* The fingerprint of the double: 0x01234567 ^ 0x89abcdef. */
static void assert_body(const char *got, const char *want) {
    auto_buf Buf whole = {0};
    for (const char *at = want; *at;) {
        if (*at == '#') buf_str(&whole, fingerprint);
        else buf_char(&whole, *at);
        at++;
    }
    assert_masked(got, whole.at);
}

static void a_chat_is_answered_whole(void **state) {
    (void)state;
    Fixture f;
    fixture_start(&f, NULL);
    double_say("The capital of France is Paris.");
    const Reply *r = post(&f, CHATS, CHAT(",\"temperature\":0,\"max_tokens\":12"));
    assert_int_equal(r->status, 200);
    assert_body(
        r->body,
        "{\"id\":*,\"object\":\"chat.completion\",\"created\":*,\"model\":\"smollm2\",\"choices\":["
        "{"
        "\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"The capital of France is "
        "Paris."
        "\",\"refusal\":null,\"annotations\":null,\"audio\":null,\"function_call\":null,"
        "\"reasoning\":null},\"logprobs\":null,\"finish_reason\":\"stop\",\"stop_reason\":null,"
        "\"token_ids\":null,\"routed_experts\":null}],\"service_tier\":null#,\"usage\":{"
        "\"prompt_tokens\":37,\"total_tokens\":45,\"completion_tokens\":8,"
        "\"prompt_tokens_details\":null,\"completion_tokens_details\":null},"
        "\"prompt_logprobs\":null,\"prompt_token_ids\":null,\"prompt_text\":null,"
        "\"kv_transfer_params\":null,\"ec_transfer_params\":null,\"metrics\":null}");
    assert_contains(r->headers,
                    "baton-stages: computed=37; cached=0; pulled=0; bytes=0; rail=none; "
                    "queue_us=10; prefill_us=100; transfer_us=0; first_token_us=110\n");
    assert_contains(r->headers, "content-type: application/json\n");
    assert_null(strstr(r->headers, "baton-degraded"));
    fixture_stop(&f);
}

static void a_chat_is_streamed_event_by_event(void **state) {
    (void)state;
    Fixture f;
    fixture_start(&f, NULL);
    double_say("The sea");
    const Reply *r = post(&f, CHATS, CHAT(",\"stream\":true"));
    assert_contains(r->headers, "content-type: text/event-stream; charset=utf-8\n");
    assert_contains(r->headers, "baton-stages: computed=37;");
    assert_body(
        r->body,
        "data: "
        "{\"id\":*,\"object\":\"chat.completion.chunk\",\"created\":*,\"model\":\"smollm2\","
        "\"choices\":"
        "[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
        "\"finish_reason\":null}],\"prompt_token_ids\":null,\"prompt_text\":null}\n\n"
        "data: "
        "{\"id\":*,\"object\":\"chat.completion.chunk\",\"created\":*,\"model\":\"smollm2\","
        "\"choices\":"
        "[{\"index\":0,\"delta\":{\"content\":\"The\"},\"logprobs\":null,\"finish_reason\":null,"
        "\"token_ids\":null}]}\n\n"
        "data: "
        "{\"id\":*,\"object\":\"chat.completion.chunk\",\"created\":*,\"model\":\"smollm2\","
        "\"choices\":"
        "[{\"index\":0,\"delta\":{\"content\":\" sea\"},\"logprobs\":null,\"finish_reason\":null,"
        "\"token_ids\":null}]}\n\n"
        "data: "
        "{\"id\":*,\"object\":\"chat.completion.chunk\",\"created\":*,\"model\":\"smollm2\","
        "\"choices\":"
        "[{\"index\":0,\"delta\":{\"content\":\"\"},\"logprobs\":null,\"finish_reason\":\"stop\","
        "\"stop_reason\":null,\"token_ids\":null}]#}\n\n"
        "data: [DONE]\n\n");
    fixture_stop(&f);
}

static void usage_comes_at_the_end_or_with_every_event(void **state) {
    (void)state;
    Fixture f;
    fixture_start(&f, NULL);
    double_say("The");
    const Reply *r =
        post(&f, CHATS, CHAT(",\"stream\":true,\"stream_options\":{\"include_usage\":true}"));
    auto_free char *plain = masked(r->body);
    assert_contains(plain, "\"choices\":[],\"usage\":{\"prompt_tokens\":37,\"total_tokens\":39,"
                           "\"completion_tokens\":2},\"system_fingerprint\":");
    assert_contains(plain,
                    "\"stop_reason\":null,\"token_ids\":null}]}\n\n"); /* no fingerprint there */
    r = post(&f, CHATS, CHAT(",\"stream\":true,\"stream_options\":{\"include_usage\":true,"
                             "\"continuous_usage_stats\":true}"));
    assert_contains(r->body,
                    "\"finish_reason\":null}],\"usage\":{\"prompt_tokens\":37,\"total_tokens\":37,"
                    "\"completion_tokens\":0,\"completion_tokens_details\":null},"
                    "\"prompt_token_ids\":null");
    assert_contains(r->body,
                    "\"token_ids\":null}],\"usage\":{\"prompt_tokens\":37,\"total_tokens\":38,"
                    "\"completion_tokens\":1,\"completion_tokens_details\":null}}\n\n");
    r = post(&f, COMPLETIONS,
             "{\"prompt\":\"One\",\"stream\":true,\"stream_options\":{\"include_usage\":"
             "true,\"continuous_usage_stats\":true}}");
    assert_contains(r->body,
                    "\"token_ids\":null}],\"usage\":{\"prompt_tokens\":1,\"total_tokens\":2,"
                    "\"completion_tokens\":1}}\n\n");
    fixture_stop(&f);
    fixture_start(&f, (const char *[]){"--enable-force-include-usage",
                                       "--enable-prompt-tokens-details", NULL});
    double_say("The");
    r = post(&f, CHATS, CHAT(",\"stream\":true"));
    assert_contains(r->body,
                    "\"completion_tokens\":2,\"prompt_tokens_details\":{\"cached_tokens\":0}},"
                    "\"system_fingerprint\"");
    r = post(&f, CHATS, CHAT(""));
    assert_contains(r->body, "\"prompt_tokens_details\":{\"cached_tokens\":0},");
    fixture_stop(&f);
}

static void several_prompts_are_several_choices(void **state) {
    (void)state;
    Fixture f;
    fixture_start(&f, NULL);
    double_say("-to-one and more");
    const Reply *r = post(&f, COMPLETIONS, "{\"prompt\":[\"One\",\"Two three\"],\"max_tokens\":4}");
    assert_body(
        r->body,
        "{\"id\":*,\"object\":\"text_completion\",\"created\":*,\"model\":\"smollm2\",\"choices\":["
        "{"
        "\"index\":0,\"text\":\"-to-one\",\"logprobs\":null,\"finish_reason\":\"length\","
        "\"stop_reason\":null,\"token_ids\":null,\"prompt_logprobs\":null,"
        "\"prompt_token_ids\":null,\"routed_experts\":null},{\"index\":1,\"text\":\"-to-one\","
        "\"logprobs\":null,\"finish_reason\":\"length\",\"stop_reason\":null,\"token_ids\":null,"
        "\"prompt_logprobs\":null,\"prompt_token_ids\":null,\"routed_experts\":null}],"
        "\"service_tier\":null#,\"usage\":{\"prompt_tokens\":3,\"total_tokens\":11,"
        "\"completion_tokens\":8,\"prompt_tokens_details\":null,"
        "\"completion_tokens_details\":null},\"kv_transfer_params\":null,"
        "\"ec_transfer_params\":null,\"metrics\":null}");
    assert_contains(r->headers, "baton-stages: computed=3;");
    fixture_stop(&f);
}

static void several_answers_to_one_prompt_share_it(void **state) {
    (void)state;
    Fixture f;
    fixture_start(&f, NULL);
    double_engine.held = true;
    send_call(&f, "POST", CHATS, "X-Request-Id: abc",
              str_of(CHAT(",\"n\":3,\"seed\":7,\"stream\":true,\"temperature\":0.5")));
    LOOP_WAIT_FOR(f.loop, double_engine.count == 3);
    EngineRequest **r = double_engine.requests;
    assert_null(r[0]->after);
    assert_ptr_equal(r[1]->after, r[0]);
    assert_ptr_equal(r[2]->after, r[0]);
    assert_true(r[0]->sampling.seed == 7 && r[1]->sampling.seed == 8 && r[2]->sampling.seed == 9);
    assert_ptr_equal(r[0]->prompt, r[1]->prompt);
    assert_true(str_starts(str_of(r[0]->id), "chatcmpl-abc-0-") && strlen(r[0]->id) == 23);
    assert_true(str_starts(str_of(r[2]->id), "chatcmpl-abc-2-"));
    assert_int_equal(r[0]->sampling.max_tokens, 256 - 37);
    double_emit(1, 504); /* "The" */
    double_end(1, 30, FINISH_LENGTH);
    double_end(0, 504, FINISH_STOP);
    double_end(2, 504, FINISH_LENGTH);
    const Reply *reply = wait_reply(&f);
    assert_contains(reply->body, "{\"id\":\"chatcmpl-abc\"");
    const char *roles = "\"index\":2,\"delta\":{\"role\":\"assistant\"",
               *at = strstr(reply->body, roles);
    assert_non_null(at); /* all roles come before the first word */
    assert_true(strstr(reply->body, "\"content\":\"The\"") > at);
    assert_contains(reply->body, "\"index\":1,\"delta\":{\"content\":\".\"},\"logprobs\":null,"
                                 "\"finish_reason\":\"length\"");
    fixture_stop(&f);
}

static void a_long_request_id_is_cut(void **state) {
    (void)state;
    Fixture f;
    fixture_start(&f, NULL);
    double_engine.held = true;
    auto_buf Buf header = {0}, id = {0};
    buf_str(&header, "X-Request-Id:");
    buf_str(&id, "chatcmpl-");
    for (int i = 0; i < 200; i++) buf_char(&header, 'r');
    for (int i = 0; i < LIMIT_REQUEST_ID; i++) buf_char(&id, 'r');
    send_call(&f, "POST", CHATS, header.at, STR(CHAT(",\"n\":2")));
    LOOP_WAIT_FOR(f.loop, double_engine.count == 2);
    const char *name = double_engine.requests[1]->id;
    assert_memory_equal(name, id.at, id.length);
    assert_int_equal(strlen(name), id.length + strlen("-1-89abcdef"));
    double_end(0, 504, FINISH_LENGTH);
    double_end(1, 504, FINISH_LENGTH);
    buf_char(&id, '"');
    assert_contains(wait_reply(&f)->body, id.at);
    fixture_stop(&f);
}

static void a_stop_string_ends_the_answer_and_the_request(void **state) {
    (void)state;
    Fixture f;
    fixture_start(&f, NULL);
    double_engine.held = true;
    send_call(&f, "POST", CHATS, NULL,
              STR(CHAT(",\"stop\":\"capital\",\"include_stop_str_in_output\":true")));
    LOOP_WAIT_FOR(f.loop, double_engine.count == 1);
    double_emit(0, 504);
    double_emit(0, 3575); /* " capital" */
    const Reply *r = wait_reply(&f);
    assert_true(double_engine.aborted[0]);
    assert_contains(r->body, "\"content\":\"The capital\"");
    assert_contains(r->body, "\"finish_reason\":\"stop\",\"stop_reason\":\"capital\"");
    assert_contains(r->body, "\"completion_tokens\":2");
    LOOP_WAIT_FOR(f.loop, f.serve.jobs == 0);
    assert_int_equal(counter_get(&f.serve.stats.finished[FINISH_STOP]), 1);
    assert_int_equal(counter_get(&f.serve.stats.finished[FINISH_ABORT]), 0);

    send_call(&f, "POST", CHATS, NULL, STR(CHAT(",\"stop\":[\"x\",\"capital\"],\"stream\":true")));
    LOOP_WAIT_FOR(f.loop, double_engine.count == 2);
    double_emit(1, 504);
    double_emit(1, 3575);
    double_emit(1, 282); /* comes too late, and is dropped */
    r = wait_reply(&f);
    assert_contains(r->body,
                    "\"delta\":{\"content\":\"The \"},\"logprobs\":null,\"finish_reason\":\"stop\","
                    "\"stop_reason\":\"capital\"");
    assert_null(strstr(r->body, " of"));
    fixture_stop(&f);
}

static void a_stop_token_is_told_and_left_out(void **state) {
    (void)state;
    Fixture f;
    fixture_start(&f, NULL);
    double_say("The capital of");
    const Reply *r = post(&f, CHATS, CHAT(",\"stop_token_ids\":[3575],\"return_token_ids\":true"));
    assert_contains(r->body, "\"content\":\"The\"");
    assert_contains(r->body,
                    "\"finish_reason\":\"stop\",\"stop_reason\":3575,\"token_ids\":[504,3575]");
    assert_contains(r->body, "\"prompt_token_ids\":[1,9690,198,2683,");
    r = post(&f, CHATS, CHAT(",\"stop_token_ids\":[3575],\"include_stop_str_in_output\":true"));
    assert_contains(r->body, "\"content\":\"The capital\"");
    r = post(&f, CHATS,
             CHAT(",\"stop_token_ids\":[3575],\"return_token_ids\":true,\"stream\":true"));
    assert_contains(r->body, "\"prompt_token_ids\":[1,9690,");
    assert_contains(r->body, "\"finish_reason\":null,\"token_ids\":[504]}");
    assert_contains(r->body, "\"stop_reason\":3575,\"token_ids\":[3575]}");
    fixture_stop(&f);
}

static void log_probabilities_have_the_shape_of_each_api(void **state) {
    (void)state;
    Fixture f;
    fixture_start(&f, NULL);
    double_say("The");
    const Reply *r =
        post(&f, CHATS, CHAT(",\"logprobs\":true,\"top_logprobs\":2,\"max_tokens\":1"));
    assert_contains(
        r->body,
        "\"logprobs\":{\"content\":[{\"token\":\"The\",\"logprob\":-0.5,\"bytes\":[84,104,101],"
        "\"top_logprobs\":[{\"token\":\"The\",\"logprob\":-0.5,\"bytes\":[84,104,101]},{"
        "\"token\":");
    r = post(&f, CHATS, CHAT(",\"logprobs\":true,\"max_tokens\":1,\"stream\":true"));
    assert_contains(r->body,
                    "\"bytes\":[84,104,101],\"top_logprobs\":[]}]},\"finish_reason\":\"length\"");
    r = post(&f, COMPLETIONS,
             "{\"prompt\":\"The sea\",\"echo\":true,\"logprobs\":1,\"max_tokens\":1}");
    assert_contains(r->body,
                    "\"text\":\"The seaThe\",\"logprobs\":{\"text_offset\":[0,3,7],"
                    "\"token_logprobs\":[null,-2.0,-0.5],\"tokens\":[\"The\",\" sea\",\"The\"],"
                    "\"top_logprobs\":[null,{\" sea\":-2.0,");
    assert_contains(r->body, "\"prompt_logprobs\":[null,{\"3426\":{\"logprob\":-2.0,\"rank\":7,"
                             "\"decoded_token\":\" sea\"},\"3427\":{\"logprob\":-1.0,\"rank\":1,"
                             "\"decoded_token\":");
    r = post(&f, COMPLETIONS,
             "{\"prompt\":\"The sea\",\"echo\":true,\"logprobs\":0,\"max_tokens\":0}");
    assert_contains(r->body, "\"text\":\"The sea\",\"logprobs\":{\"text_offset\":[0,3],"
                             "\"token_logprobs\":[null,-2.0],\"tokens\":[\"The\",\" sea\"],"
                             "\"top_logprobs\":[null,{\" sea\":-2.0}]}");
    assert_contains(r->body, "\"completion_tokens\":0");
    double_engine.logprobs_infinite = true;
    r = post(&f, COMPLETIONS, "{\"prompt\":\"x\",\"logprobs\":1,\"max_tokens\":1,"
                              "\"return_tokens_as_token_ids\":true}");
    assert_contains(r->body,
                    "\"tokens\":[\"token_id:504\"],\"top_logprobs\":[{\"token_id:504\":-0.5}]");
    r = post(&f, CHATS, CHAT(",\"logprobs\":true,\"top_logprobs\":2,\"max_tokens\":1"));
    assert_contains(r->body, "\"logprob\":-9999.0");
    fixture_stop(&f);
}

static void a_token_that_is_half_a_character_tells_its_bytes(void **state) {
    (void)state;
    Fixture f;
    fixture_start(&f, NULL);
    double_say("😀");
    const Reply *r = post(&f, CHATS, CHAT(",\"logprobs\":true"));
    assert_contains(r->body, "\"content\":\"😀\"");
    assert_contains(r->body,
                    "\"logprobs\":{\"content\":[{\"token\":\"\xef\xbf\xbd\",\"logprob\":-0.5,"
                    "\"bytes\":[240,159");
    r = post(&f, CHATS, CHAT(",\"stream\":true"));
    assert_contains(r->body,
                    "\"delta\":{\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null");
    assert_contains(r->body, "\"delta\":{\"content\":\"😀\"}");
    assert_null(strstr(r->body, "\xef\xbf\xbd"));
    fixture_stop(&f);
}

static void a_completion_is_streamed_with_its_prompt(void **state) {
    (void)state;
    Fixture f;
    fixture_start(&f, NULL);
    double_say(" = 1");
    const Reply *r = post(&f, COMPLETIONS, "{\"prompt\":\"x y\",\"echo\":true,\"stream\":true,"
                                           "\"max_tokens\":2}");
    assert_body(
        r->body,
        "data: "
        "{\"id\":*,\"object\":\"text_completion\",\"created\":*,\"model\":\"smollm2\",\"choices\":"
        "[{\"index\":0,\"text\":\"x y =\",\"logprobs\":null,\"finish_reason\":null,"
        "\"stop_reason\":null,\"prompt_token_ids\":[104,329],\"token_ids\":null}]}\n\n"
        "data: "
        "{\"id\":*,\"object\":\"text_completion\",\"created\":*,\"model\":\"smollm2\",\"choices\":"
        "[{\"index\":0,\"text\":\" \",\"logprobs\":null,\"finish_reason\":\"length\","
        "\"stop_reason\":null,\"prompt_token_ids\":null,\"token_ids\":null}]#}\n\n"
        "data: [DONE]\n\n");
    r = post(&f, COMPLETIONS, "{\"prompt\":[104,329],\"echo\":true,\"max_tokens\":1}");
    assert_contains(r->body, "\"text\":\"x y =\"");
    r = post(&f, CHATS,
             "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\","
             "\"content\":\"begin\"}],\"add_generation_prompt\":false,\"echo\":true,"
             "\"continue_final_message\":true,\"max_tokens\":1,\"return_prompt_text\":true}");
    assert_contains(r->body, "\"content\":\"begin =\"");
    assert_contains(r->body, "<|im_start|>assistant\\nbegin\",\"kv_transfer_params\"");
    fixture_stop(&f);
}

static void a_failure_before_the_first_byte_has_a_status(void **state) {
    (void)state;
    static const struct { ErrCode code; int status; const char *type;
    } cases[] = {{ERR_DEADLINE, 504, "Gateway Timeout"},
                 {ERR_UNAVAILABLE, 503, "Service Unavailable"},
                 {ERR_DAMAGED, 500, "InternalServerError"},
                 {ERR_INTERNAL, 500, "InternalServerError"}};
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        for (int stream = 0; stream < 2; stream++) {
            Fixture f;
            fixture_start(&f, NULL);
            double_engine.held = true;
            send_call(&f, "POST", CHATS, NULL,
                      stream ? STR(CHAT(",\"stream\":true")) : STR(CHAT("")));
            LOOP_WAIT_FOR(f.loop, double_engine.count == 1);
            double_fail(0, cases[i].code, "the pull from 10.0.0.1:7 has failed");
            const Reply *r = wait_reply(&f);
            assert_int_equal(r->status, cases[i].status);
            auto_buf Buf want = {0};
            buf_printf(&want,
                       "{\"error\":{\"message\":\"the pull from 10.0.0.1:7 has failed\",\"type\":"
                       "\"%s\",\"param\":null,\"code\":%d}}",
                       cases[i].type, cases[i].status);
            assert_string_equal(r->body, want.at);
            assert_int_equal(counter_get(&f.serve.stats.finished[FINISH_ERROR]), 1);
            fixture_stop(&f);
        }
}

static void a_failure_in_a_stream_is_its_last_event(void **state) {
    (void)state;
    Fixture f;
    fixture_start(&f, NULL);
    double_engine.held = true;
    send_call(&f, "POST", CHATS, NULL, STR(CHAT(",\"stream\":true,\"n\":2")));
    LOOP_WAIT_FOR(f.loop, double_engine.count == 2);
    double_emit(0, 504);
    double_fail(0, ERR_INTERNAL, "no luck");
    const Reply *r = wait_reply(&f);
    assert_int_equal(r->status, 200);
    assert_contains(r->body,
                    "data: {\"error\":{\"message\":\"no luck\",\"type\":\"InternalServerError\","
                    "\"param\":null,\"code\":500}}\n\ndata: [DONE]\n\n");
    assert_true(double_engine.aborted[1]); /* nobody waits for the other answer */
    fixture_stop(&f);
}

static void a_full_queue_is_503_and_nothing_is_left_behind(void **state) {
    (void)state;
    Fixture f;
    fixture_start(&f, NULL);
    double_engine.refuse_from = 0;
    const Reply *r = post(&f, CHATS, CHAT(""));
    assert_int_equal(r->status, 503);
    assert_contains(r->headers, "retry-after: 1\n");
    assert_contains(r->body,
                    "\"message\":\"the queue is full: 4 requests wait. Try again later.\",\"type\":"
                    "\"Service Unavailable\"");
    double_engine.held = true;
    double_engine.refuse_from = 2; /* the third of three */
    r = post(&f, CHATS, CHAT(",\"n\":3"));
    assert_int_equal(r->status, 503);
    assert_true(double_engine.aborted[0] && double_engine.aborted[1]);
    LOOP_WAIT_FOR(f.loop, f.serve.jobs == 0);
    r = post(&f, COMPLETIONS, "{\"prompt\":[[1],[2],[3],[4],[5],[6],[7],[8],[9]],\"n\":128}");
    assert_int_equal(r->status, 400);
    assert_contains(r->body,
                    "9 prompts with n=128 ask for more than the 1024 answers that may wait");
    fixture_stop(&f);
}

static void a_client_that_leaves_ends_its_requests(void **state) {
    (void)state;
    for (int stream = 0; stream < 2; stream++) {
        Fixture f;
        fixture_start(&f, NULL);
        double_engine.held = true;
        HttpCall *call =
            send_call(&f, "POST", CHATS, NULL,
                      stream ? STR(CHAT(",\"n\":2,\"stream\":true")) : STR(CHAT(",\"n\":2")));
        LOOP_WAIT_FOR(f.loop, double_engine.count == 2);
        double_emit(0, 504);
        loop_run_for(f.loop, 10); /* of a stream the head may have left, or not */
        http_call_cancel(call);
        LOOP_WAIT_FOR(f.loop, double_engine.aborted[0] && double_engine.aborted[1]);
        LOOP_WAIT_FOR(f.loop, f.serve.jobs == 0);
        assert_int_equal(counter_get(&f.serve.stats.finished[FINISH_ABORT]), 2);
        fixture_stop(&f);
    }
}

static void a_prompt_must_fit_and_an_answer_is_cut_to_what_is_left(void **state) {
    (void)state;
    Fixture f;
    fixture_start(&f, NULL); /* a context of 256 */
    auto_buf Buf body = {0}, ids = {0};
    for (int i = 0; i < 300; i++) buf_printf(&ids, "%s5", i ? "," : "");
    buf_printf(&body, "{\"prompt\":[%s]}", ids.at);
    const Reply *r = post(&f, COMPLETIONS, body.at);
    assert_int_equal(r->status, 400);
    assert_string_equal(
        r->body,
        "{\"error\":{\"message\":\"This model's maximum context length is 256 tokens. However, "
        "your "
        "prompt contains 300 input tokens, which exceeds this limit even without any output "
        "tokens. Please reduce the length of the input prompt. (parameter=input_tokens, "
        "value=300)\",\"type\":\"BadRequestError\",\"param\":\"input_tokens\",\"code\":400}}");
    buf_clear(&body);
    buf_str(&body, "{\"prompt\":\"");
    for (int i = 0; i < 300; i++) buf_str(&body, "word ");
    buf_str(&body, "\"}");
    r = post(&f, COMPLETIONS, body.at);
    assert_contains(r->body, "your prompt contains at least 257 input tokens, which exceeds");
    buf_clear(&body);
    buf_printf(&body, "{\"prompt\":[%.*s]}", 256 * 2 - 1, ids.at);
    r = post(&f, COMPLETIONS, body.at);
    assert_contains(r->body,
                    "your prompt contains 256 input tokens, which leaves no room for any output");
    double_engine.held = true;
    static const struct { const char *more; size_t prompt; uint32_t max_tokens;
    } cases[] = {
        {"\"max_tokens\":200", 100, 156}, {"\"max_tokens\":10", 100, 10}, {"\"n\":1", 100, 16},
        {"\"max_tokens\":256,\"truncate_prompt_tokens\":-1", 300, 1},
        {"\"max_tokens\":56,\"truncate_prompt_tokens\":-1", 300, 56},
        {"\"truncate_prompt_tokens\":10", 300, 16},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        buf_clear(&body);
        buf_printf(&body, "{\"prompt\":[%.*s],%s}", (int)cases[i].prompt * 2 - 1, ids.at,
                   cases[i].more);
        size_t index = double_engine.count;
        HttpCall *call = send_call(&f, "POST", COMPLETIONS, NULL, (Str){body.at, body.length});
        LOOP_WAIT_FOR(f.loop, double_engine.count == index + 1);
        assert_int_equal(double_engine.requests[index]->sampling.max_tokens, cases[i].max_tokens);
        http_call_cancel(call);
        LOOP_WAIT_FOR(f.loop, f.serve.jobs == 0);
    }
    fixture_stop(&f);
}

static void sampling_is_checked_in_the_words_of_the_api(void **state) {
    (void)state;
    Fixture f;
    fixture_start(&f, NULL);
    static const struct { const char *more, *param, *message;
    } cases[] = {
        {"\"max_tokens\":0", "\"max_tokens\"",
         "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)"},
        {"\"max_tokens\":300", "\"max_tokens\"",
         "max_tokens=300 cannot be greater than max_model_len=256."},
        {"\"temperature\":-1", "\"temperature\"", "temperature must be non-negative, got -1.0."},
        {"\"temperature\":3", "\"temperature\"",
         "temperature must be in [0, 2], got 3.0. (parameter=temperature, value=3.0)"},
        {"\"top_p\":0", "\"top_p\"",
         "top_p must be in (0, 1], got 0.0. (parameter=top_p, value=0.0)"},
        {"\"top_k\":-5", "null", "top_k must be 0 (disable), or at least 1, got -5."},
        {"\"min_p\":2", "null", "min_p must be in [0, 1], got 2.0."},
        {"\"presence_penalty\":5", "null", "presence_penalty must be in [-2, 2], got 5.0."},
        {"\"frequency_penalty\":-3", "null", "frequency_penalty must be in [-2, 2], got -3.0."},
        {"\"repetition_penalty\":0", "null",
         "repetition_penalty must be greater than zero, got 0.0."},
        {"\"n\":0", "null", "n must be at least 1, got 0."},
        {"\"n\":2,\"temperature\":0", "null", "n must be 1 when using greedy sampling, got 2."},
        {"\"n\":1000", "null", "n must be at most 128, got 1000."},
        {"\"min_tokens\":9,\"max_tokens\":4", "null",
         "min_tokens must be less than or equal to max_tokens=4, got 9."},
        {"\"stop\":[\"\"]", "null", "stop cannot contain an empty string."},
        {"\"stop\":[\"a\",\"b\",\"c\",\"d\",\"e\"]", "\"stop\"", "stop has more than 4 strings."},
        {"\"logprobs\":100", "\"logprobs\"",
         "Requested sample logprobs of 100, which is greater than max allowed: 20 "
         "(parameter=logprobs, value=100)"},
        {"\"logprobs\":-1", "\"logprobs\"",
         "Requested sample logprobs of 49152, which is greater than max allowed: 20"},
        {"\"prompt_logprobs\":21", "\"prompt_logprobs\"", "Requested prompt logprobs of 21"},
        {"\"logit_bias\":{\"999999\":1,\"-1\":1}", "\"logit_bias\"",
         "token_id(s) [999999, -1] in logit_bias contain out-of-vocab token ids. Vocabulary size: "
         "49152 (parameter=logit_bias, value=[999999, -1])"},
        {"\"logit_bias\":{\"x\":1}", "\"logit_bias\"",
         "Found token_id `x` in logit_bias but token_id must be an integer"},
        {"\"stop_token_ids\":[49152]", "\"stop_token_ids\"",
         "token_id(s) [49152] in stop_token_ids contain out-of-vocab token ids."},
        {"\"truncate_prompt_tokens\":999", "\"truncate_prompt_tokens\"",
         "truncate_prompt_tokens value (999) is greater than max_model_len (256)."},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        auto_buf Buf body = {0}, param = {0};
        buf_printf(&body, "{\"prompt\":\"x\",%s}", cases[i].more);
        buf_printf(&param, ",\"type\":\"BadRequestError\",\"param\":%s,\"code\":400}}",
                   cases[i].param);
        const Reply *r = post(&f, COMPLETIONS, body.at);
        assert_int_equal(r->status, 400);
        assert_contains(r->body, cases[i].message);
        assert_contains(r->body, param.at);
    }
    assert_int_equal(double_engine.count, 0);
    fixture_stop(&f);
}

static void parameters_reach_the_engine(void **state) {
    (void)state;
    Fixture f;
    fixture_start(&f, NULL);
    double_engine.held = true;
    HttpCall *call = send_call(&f, "POST", COMPLETIONS, NULL,
                               STR("{\"prompt\":\"x\",\"temperature\":0.001,\"top_p\":0.9,\"top_"
                                   "k\":-1,\"min_p\":0.1,\"seed\":-1,"
                                   "\"presence_penalty\":1,\"frequency_penalty\":-1,\"repetition_"
                                   "penalty\":1.5,\"min_tokens\":2,"
                                   "\"ignore_eos\":true,\"logit_bias\":{\"5\":500,\"6\":-1},\"stop_"
                                   "token_ids\":[1,2],\"logprobs\":3,"
                                   "\"cache_salt\":\"salt\"}"));
    LOOP_WAIT_FOR(f.loop, double_engine.count == 1);
    const EngineRequest *r = double_engine.requests[0];
    const Sampling *s = &r->sampling;
    assert_true(s->temperature == 0.01f && s->top_p == 0.9f && s->top_k == 0 && s->min_p == 0.1f);
    assert_true(!s->seeded && s->presence_penalty == 1 && s->frequency_penalty == -1);
    assert_true(s->repetition_penalty == 1.5f && s->min_tokens == 2 && s->ignore_eos);
    assert_true(s->bias_count == 2 && s->bias[0].token == 5 && s->bias[0].bias == 100);
    assert_true(s->stop_token_count == 2 && s->stop_tokens[1] == 2 && s->logprobs == 3);
    assert_true(s->prompt_logprobs == -1 && s->max_tokens == 16);
    assert_string_equal(r->cache_salt, "salt");
    http_call_cancel(call);
    LOOP_WAIT_FOR(f.loop, f.serve.jobs == 0);
    fixture_stop(&f);
}

/* ---- the recorded errors of the API that we serve ---- */

static const char *without_branch(const char *param, char out[128]) { /* of a union of types */
    size_t length = 0;
    for (const char *at = param; at && *at && length < 127;) {
        const char *end = at + 1 + strcspn(at + 1, ".");
        bool branch = at[0] == '.' && at[1] >= 'A' && at[1] <= 'Z';
        for (; at < end; at++)
            if (!branch) out[length++] = *at;
    }
    out[length] = 0;
    return out;
}

static void compare_recorded(Fixture *f, const json_t *exchange, const char *name) {
    const json_t *request = json_object_get(exchange, "request");
    const json_t *body = json_object_get(request, "body");
    const char *type = json_string_value(
        json_object_get(json_object_get(request, "headers"), "Content-Type"));
    auto_buf Buf text = {0}, header = {0};
    if (json_is_string(body)) buf_str(&text, json_string_value(body));
    else if (!json_is_null(body)) buf_json_tree(&text, body);
    buf_printf(&header, "Content-Type:%s", type ? type : "application/json");
    const Reply *r = ask_with(f, json_string_value(json_object_get(request, "method")),
                              json_string_value(json_object_get(request, "path")), header.at,
                              text.at ? text.at : "");
    if (r->status != json_integer_value(json_object_get(exchange, "status")))
        fail_msg("%s: %d: %s", name, r->status, r->body);
    Err err = {0};
    const char *recorded = json_string_value(json_object_get(exchange, "body"));
    auto_json json_t *want = json_parse(str_of(recorded), &err);
    auto_json json_t *got = json_parse(str_of(r->body), &err);
    const json_t *a = json_object_get(want, "error"), *b = json_object_get(got, "error");
    if (!a) return;
    const char *want_type = json_string_value(json_object_get(a, "type"));
    assert_string_equal(json_string_value(json_object_get(b, "type")), want_type);
    char place[128];
    const char *param = json_string_value(json_object_get(a, "param"));
    if (!param) assert_true(json_is_null(json_object_get(b, "param")));
    else assert_string_equal(json_string_value(json_object_get(b, "param")),
                             without_branch(param, place));
    if (!strcmp(want_type, "BadRequestError"))
        assert_contains(json_string_value(json_object_get(b, "message")),
                        json_string_value(json_object_get(a, "message")));
}

static void recorded_errors_are_told_the_same_way(void **state) {
    (void)state;
    static const char folder[] = "test/data/vllm/errors";
    Fixture f;
    double_context = 4096;
    fixture_start(&f, NULL);
    double_say("The");
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    size_t count = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (!strstr(entry->d_name, ".json")) continue;
        char path[512];
        Err err = {0};
        size_t length;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        auto_free char *text = file_read(path, MIB, &length, &err);
        assert_non_null(text);
        auto_json json_t *exchange = json_parse((Str){text, length}, &err);
        compare_recorded(&f, exchange, entry->d_name);
        count++;
    }
    closedir(dir);
    assert_int_equal(count, 30);
    double_context = 256;
    fixture_stop(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chat_is_answered_whole),
        cmocka_unit_test(a_chat_is_streamed_event_by_event),
        cmocka_unit_test(usage_comes_at_the_end_or_with_every_event),
        cmocka_unit_test(several_prompts_are_several_choices),
        cmocka_unit_test(several_answers_to_one_prompt_share_it),
        cmocka_unit_test(a_long_request_id_is_cut),
        cmocka_unit_test(a_stop_string_ends_the_answer_and_the_request),
        cmocka_unit_test(a_stop_token_is_told_and_left_out),
        cmocka_unit_test(log_probabilities_have_the_shape_of_each_api),
        cmocka_unit_test(a_token_that_is_half_a_character_tells_its_bytes),
        cmocka_unit_test(a_completion_is_streamed_with_its_prompt),
        cmocka_unit_test(a_failure_before_the_first_byte_has_a_status),
        cmocka_unit_test(a_failure_in_a_stream_is_its_last_event),
        cmocka_unit_test(a_full_queue_is_503_and_nothing_is_left_behind),
        cmocka_unit_test(a_client_that_leaves_ends_its_requests),
        cmocka_unit_test(a_prompt_must_fit_and_an_answer_is_cut_to_what_is_left),
        cmocka_unit_test(sampling_is_checked_in_the_words_of_the_api),
        cmocka_unit_test(parameters_reach_the_engine),
        cmocka_unit_test(recorded_errors_are_told_the_same_way),
    };
    return cmocka_run_group_tests(tests, double_load, double_unload);
}
