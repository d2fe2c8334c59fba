// SPDX-License-Identifier: Apache-2.0
/* The endpoints around generation, the hand-over of KV between engines, metrics, and the end. */
#include "serve_test.h"

#include <ctype.h>

#define CHAT(more) "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]" more "}"
#define CHATS "/v1/chat/completions"
#define COMPLETIONS "/v1/completions"
#define NIXL(role)                                                                                 \
    "--kv-transfer-config", "{\"kv_connector\":\"NixlConnector\",\"kv_role\":\"" role "\"}"
#define PULL                                                                                       \
    "\"kv_transfer_params\":{\"do_remote_prefill\":true,\"do_remote_decode\":false,"               \
    "\"remote_block_ids\":[[1]],\"remote_engine_id\":\"e\",\"remote_request_id\":\"cmpl-x-0-1\","  \
    "\"remote_host\":\"10.0.0.1\",\"remote_port\":5600,\"tp_size\":1}"
#define OFFER "\"kv_transfer_params\":{\"do_remote_decode\":true,\"do_remote_prefill\":false}"

/* ---- what surrounds generation ---- */

static void small_endpoints_answer_as_clients_know_them(void **state) {
    (void)state;
    Fixture f;
    fixture_start(&f, (const char *[]){"--served-model-name", "a", "b", NULL});
    const Reply *r = get(&f, "/v1/models");
    assert_body_starts(
        r->body, "{\"object\":\"list\",\"data\":[{\"id\":*,\"object\":\"model\",\"created\":*,"
                 "\"owned_by\":\"vllm\",\"root\":");
    assert_contains(r->body,
                    "\"parent\":null,\"max_model_len\":256,\"permission\":[{\"id\":\"modelperm-");
    assert_contains(r->body, "},{\"id\":\"b\",");
    static const struct { const char *path, *body;
    } exact[] = {{"/version", "{\"version\":\"" BATON_VERSION "\"}"},
                 {"/load", "{\"server_load\":0}"},
                 {"/health", ""},
                 {"/ping", ""},
                 {"/ledger", "{\"balanced\":true}"}};
    for (size_t i = 0; i < COUNT_OF(exact); i++) {
        r = get(&f, exact[i].path);
        assert_int_equal(r->status, 200);
        assert_string_equal(r->body, exact[i].body);
        if (!*exact[i].body) assert_null(strstr(r->headers, "content-type"));
    }
    assert_int_equal(ask_with(&f, "POST", "/ping", NULL, "")->status, 200);
    r = get(&f, "/v1/models/nope");
    assert_int_equal(r->status, 404);
    assert_string_equal(r->body, "{\"detail\":\"Not Found\"}");
    r = get(&f, CHATS);
    assert_int_equal(r->status, 405);
    assert_string_equal(r->body, "{\"detail\":\"Method Not Allowed\"}");
    assert_contains(r->headers, "allow: POST\n");
    r = post(&f, CHATS, "{\"model\":\"c\",\"messages\":[]}");
    assert_int_equal(r->status, 404);
    assert_string_equal(
        r->body, "{\"error\":{\"message\":\"The model `c` does not exist. Valid aliases: a, b."
                 "\",\"type\":\"NotFoundError\",\"param\":\"model\",\"code\":404}}");
    double_say("x");
    r = post(&f, COMPLETIONS, "{\"model\":\"b\",\"prompt\":\"x\"}");
    assert_contains(r->body, "\"model\":\"a\"");
    r = ask_with(&f, "POST", CHATS, "Content-Type: text/plain", CHAT(""));
    assert_int_equal(r->status, 400);
    assert_contains(r->body, "Unsupported Media Type: Only 'application/json' is allowed");
    r = ask_with(&f, "POST", COMPLETIONS, "Content-Type: Application/JSON; charset=utf-8",
                 "{\"prompt\":\"x\"}");
    assert_int_equal(r->status, 200);
    fixture_stop(&f);
}

static void tokens_and_texts_are_turned_into_each_other(void **state) {
    (void)state;
    Fixture f;
    fixture_start(&f, NULL);
    static const struct { const char *path, *body, *want;
    } cases[] = {
        {"/tokenize", "{\"prompt\":\"Hello 😀 world\"}",
         "{\"count\":4,\"max_model_len\":256,\"tokens\":[19556,40303,218,905],\"token_strs\":"
         "null}"},
        {"/tokenize", "{\"prompt\":\"\"}",
         "{\"count\":0,\"max_model_len\":256,\"tokens\":[],\"token_strs\":null}"},
        {"/tokenize", "{\"prompt\":\"The sea\",\"return_token_strs\":true}",
         "{\"count\":2,\"max_model_len\":256,\"tokens\":[504,3426],\"token_strs\":[\"The\","
         "\"Ġsea\"]}"},
        {"/detokenize", "{\"tokens\":[19556,905]}", "{\"prompt\":\"Hello world\"}"},
        {"/detokenize", "{\"tokens\":[1,2]}", "{\"prompt\":\"<|im_start|><|im_end|>\"}"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        assert_string_equal(post(&f, cases[i].path, cases[i].body)->body, cases[i].want);
    const Reply *r = post(&f, "/tokenize", CHAT(",\"add_generation_prompt\":false"));
    assert_contains(r->body, "\"tokens\":[1,9690,198,2683,");
    r = post(&f, "/detokenize", "{\"tokens\":[49152]}");
    assert_contains(r->body, "Token id 49152 is out of vocabulary");
    fixture_stop(&f);
}

static void a_key_guards_the_api_alone(void **state) {
    (void)state;
    Fixture f;
    fixture_start(
        &f, (const char *[]){"--api-key", "secret", "other", "--enable-request-id-headers", NULL});
    const Reply *r = get(&f, "/v1/models");
    assert_int_equal(r->status, 401);
    assert_string_equal(r->body, "{\"error\":\"Unauthorized\"}");
    static const struct { const char *header; int status;
    } cases[] = {{"Authorization: Bearer secret", 200}, {"Authorization: bearer other", 200},
                 {"Authorization: Bearer secre", 401},  {"Authorization: Basic secret", 401},
                 {"Authorization: Bearer", 401},        {"Authorization: Bearer secret2", 401}};
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        assert_int_equal(ask_with(&f, "GET", "/v1/models", cases[i].header, "")->status,
                         cases[i].status);
    assert_int_equal(get(&f, "/health")->status, 200);
    r = ask_with(&f, "GET", "/health", "X-Request-Id: abc-1", "");
    assert_contains(r->headers, "x-request-id: abc-1\n");
    fixture_stop(&f);
}

static void a_proxys_prefix_is_left_out(void **state) {
    (void)state;
    Fixture f;
    fixture_start(&f, (const char *[]){"--root-path", "/team/", NULL});
    assert_int_equal(get(&f, "/team/health")->status, 200);
    assert_int_equal(get(&f, "/health")->status, 200);
    assert_int_equal(get(&f, "/teams/health")->status, 404);
    fixture_stop(&f);
}

/* ---- templates ---- */

static void the_template_gets_what_the_request_says(void **state) {
    (void)state;
    Fixture f;
    fixture_start(&f, (const char *[]){
        "--chat-template",
        "{{bos_token}}|{{messages[0].content}}|{{tools is none}}|{{documents}}|"
        "{{add_generation_prompt}}|{{colour}}|{{shape}}|{{reasoning_effort}}",
        "--default-chat-template-kwargs", "{\"colour\":\"red\",\"shape\":\"round\"}",
        "--response-role", "oracle", NULL});
    double_say("x");
    const Reply *r =
        post(&f, CHATS,
             CHAT(",\"return_prompt_text\":true,\"chat_template_kwargs\":{\"shape\":\"flat\"},"
                  "\"reasoning_effort\":\"low\""));
    assert_contains(r->body, "\"prompt_text\":\"<|im_start|>|Hi|True|None|True|red|flat|low\"");
    assert_contains(r->body, "\"role\":\"oracle\"");
    r = post(&f, CHATS, CHAT(",\"chat_template\":\"x\""));
    assert_contains(r->body, "--trust-request-chat-template is not set");
    fixture_stop(&f);
    fixture_start(&f, (const char *[]){"--chat-template", "{{ raise_exception('no way') }}",
                                       "--trust-request-chat-template", NULL});
    double_say("x");
    r = post(&f, CHATS, CHAT(""));
    assert_int_equal(r->status, 400);
    assert_contains(r->body, "{\"error\":{\"message\":\"no way\",\"type\":\"BadRequestError\"");
    r = post(&f, CHATS,
             CHAT(",\"chat_template\":\"own {{messages[0].role}}\",\"return_prompt_text\":true"));
    assert_contains(r->body, "\"prompt_text\":\"own user\"");
    r = post(&f, CHATS, CHAT(",\"chat_template\":\"{% if %}\""));
    assert_int_equal(r->status, 400);
    assert_contains(r->body, "\"param\":\"chat_template\"");
    fixture_stop(&f);
}

static void templates_for_parts_are_recognised(void **state) {
    (void)state;
    static const struct { const char *text; bool parts;
    } cases[] = {
        {"{% for m in messages %}{{ m['content'] }}{% endfor %}", false},
        {"{% for m in messages %}{% for c in m['content'] %}{{ c.text }}{% endfor %}{% endfor %}",
         true},
        {"{% for part in message.content %}{% endfor %}", true},
        {"{% if 'x' in message.content_type %}", false},
        {"{% for c in message[\"content\"] %}", true},
        {"", false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        assert_int_equal(chat_loops_over_content(str_of(cases[i].text)), cases[i].parts);
}

static void a_template_that_cannot_be_read_is_told_at_the_start(void **state) {
    (void)state;
    Err err = {0};
    Chat chat;
    ServeConf conf = {.template_text = STR("line one\n{% if %}"), .content_format = "auto"};
    assert_false(chat_parse(&chat, &conf, double_model.gguf, &err));
    assert_contains(err.message, "--chat-template: ");
    assert_contains(err.message, "line 2");
    assert_contains(err.hint, "leave --chat-template out");
}

/* ---- between engines ---- */

static void a_prefill_engine_offers_what_it_has_computed(void **state) {
    (void)state;
    Fixture f;
    fixture_start(&f, (const char *[]){NIXL("kv_producer"), NULL});
    double_say("The sea");
    const Reply *r = ask_with(&f, "POST", CHATS, "X-Request-Id: pd-1",
                              CHAT(",\"max_tokens\":1," OFFER));
    assert_contains(
        r->body,
        "\"kv_transfer_params\":{\"do_remote_prefill\":true,\"do_remote_decode\":false,"
        "\"remote_block_ids\":[[3,4]],\"remote_engine_id\":\"engine-1\",\"remote_request_id\":"
        "\"chatcmpl-pd-1-");
    assert_contains(
        r->body, "\"remote_host\":\"127.0.0.1\",\"remote_port\":4711,\"tp_size\":1,\"dcp_size\":1,"
                 "\"pp_size\":1,\"remote_num_tokens\":");
    assert_contains(r->body, ",\"remote_blocks_expiry_time\":null,\"transfer_mode\":\"pull\","
                             "\"remote_prefill_cached_tokens\":16},\"ec_transfer_params\":null");
    r = post(&f, COMPLETIONS, "{\"prompt\":\"x\",\"max_tokens\":2," OFFER "}");
    assert_contains(r->body, "\"transfer_mode\":\"pull\"},\"ec_transfer_params\"");
    assert_contains(r->body, "\"remote_request_id\":\"cmpl-");
    r = post(&f, CHATS, CHAT(",\"n\":2," OFFER));
    assert_int_equal(r->status, 400);
    assert_contains(
        r->body,
        "do_remote_decode offers the KV of one prompt for one answer, but 1 prompts and n=2");
    r = post(&f, CHATS, CHAT(",\"stream\":true,\"max_tokens\":1," OFFER));
    assert_contains(r->headers,
                    "baton-degraded: do_remote_decode is not possible: a stream carries no "
                    "kv_transfer_params; no KV is offered\n");
    r = post(&f, COMPLETIONS, "{\"prompt\":\"x\"," PULL "}");
    assert_contains(r->headers,
                    "baton-degraded: do_remote_prefill is not possible: the kv_role of this "
                    "engine is kv_producer; the prompt is computed here\n");
    assert_int_equal(counter_get(&f.serve.stats.degraded[DEGRADED_STREAM]), 1);
    assert_int_equal(counter_get(&f.serve.stats.degraded[DEGRADED_ROLE]), 1);
    fixture_stop(&f);
}

static void a_decode_engine_pulls_what_was_offered(void **state) {
    (void)state;
    Fixture f;
    fixture_start(&f,
                  (const char *[]){NIXL("kv_consumer"), "--enable-prompt-tokens-details", NULL});
    double_engine.held = true;
    send_call(&f, "POST", CHATS, NULL, STR(CHAT(",\"n\":2," PULL)));
    LOOP_WAIT_FOR(f.loop, double_engine.count == 2);
    const EngineRequest *r = double_engine.requests[0];
    assert_int_equal(r->hand_over, HAND_PULL);
    assert_string_equal(r->peer_engine, "e");
    assert_string_equal(r->peer_host, "10.0.0.1");
    assert_string_equal(r->peer_request, "cmpl-x-0-1");
    assert_int_equal(r->peer_port, 5600);
    assert_int_equal(double_engine.requests[1]->hand_over, HAND_NONE);
    assert_ptr_equal(double_engine.requests[1]->after, r);
    double_end(0, 504, FINISH_LENGTH);
    double_end(1, 504, FINISH_LENGTH);
    const Reply *reply = wait_reply(&f);
    assert_contains(reply->headers,
                    "bytes=4096; rail=shm; queue_us=10; prefill_us=100; transfer_us=55;");
    assert_contains(reply->body, "\"prompt_tokens_details\":{\"cached_tokens\":2}");
    LOOP_WAIT_FOR(f.loop, f.serve.jobs == 0);
    double_engine.held = false;
    double_say("x");
    static const struct { const char *params, *message;
    } bad[] = {
        {"{\"do_remote_prefill\":true}", "lacks remote_block_ids, remote_engine_id, "
                                         "remote_request_id, remote_host, remote_port: pass on "
                                         "what the prefill engine has answered"},
        {"{\"do_remote_prefill\":\"yes\"}",
         "kv_transfer_params.do_remote_prefill must be true or false, got \\\"yes\\\""},
        {"{\"do_remote_prefill\":true,\"remote_port\":\"5600\"}",
         "kv_transfer_params.remote_port must be an integer, got \\\"5600\\\""},
        {"{\"do_remote_prefill\":true,\"do_remote_decode\":true}", "one request does one of them"},
        {"{\"do_remote_prefill\":true,\"remote_block_ids\":[],\"remote_engine_id\":\"e\","
         "\"remote_request_id\":\"r\",\"remote_host\":\"h\",\"remote_port\":0}",
         "kv_transfer_params.remote_port must be from 1 to 65535, got 0"},
        {"{\"do_remote_prefill\":true,\"remote_block_ids\":[],\"remote_engine_id\":\"\","
         "\"remote_request_id\":\"r\",\"remote_host\":\"h\",\"remote_port\":1}",
         "kv_transfer_params.remote_engine_id has 0 bytes, 1 to 127 are possible"},
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        auto_buf Buf body = {0};
        buf_printf(&body, "{\"prompt\":\"x\",\"kv_transfer_params\":%s}", bad[i].params);
        reply = post(&f, COMPLETIONS, body.at);
        assert_int_equal(reply->status, 400);
        assert_contains(reply->body, bad[i].message);
        assert_contains(reply->body, "\"param\":\"kv_transfer_params\"");
    }
    assert_int_equal(post(&f, COMPLETIONS, "{\"prompt\":\"x\",\"kv_transfer_params\":{}}")->status,
                     200);
    fixture_stop(&f);
}

static void a_refused_request_lets_the_offer_go(void **state) {
    (void)state;
    Fixture f;
    fixture_start(&f, (const char *[]){NIXL("kv_consumer"), NULL});
    double_engine.held = true;
    const Reply *r = post(&f, COMPLETIONS, "{\"prompt\":\"x\",\"temperature\":9," PULL "}");
    assert_int_equal(r->status, 400);
    assert_int_equal(double_engine.count, 1);
    assert_true(double_engine.aborted[0]);
    fixture_stop(&f);
}

static void without_a_connector_it_is_said_or_refused(void **state) {
    (void)state;
    Fixture f;
    fixture_start(&f, NULL);
    double_say("x");
    const Reply *r = post(&f, CHATS, CHAT("," OFFER));
    assert_contains(r->body, "\"kv_transfer_params\":null");
    assert_contains(r->headers,
                    "baton-degraded: do_remote_decode is not possible: this engine has no "
                    "--kv-transfer-config; no KV is offered\n");
    r = post(&f, COMPLETIONS, "{\"prompt\":\"x\"," PULL "}");
    assert_contains(r->headers, "baton-degraded: do_remote_prefill is not possible: ");
    fixture_stop(&f);
    fixture_start(&f, (const char *[]){"--strict", NULL});
    r = post(&f, CHATS, CHAT("," OFFER));
    assert_int_equal(r->status, 400);
    assert_contains(r->body,
                    "do_remote_decode is not possible: this engine has no --kv-transfer-config");
    fixture_stop(&f);
}

/* ---- metrics: a strict reading of Prometheus' text format ---- */

static const char *skip_name(const char *at, bool label) {
    const char *begin = at;
    while (isalnum((unsigned char)*at) || *at == '_' || (!label && *at == ':')) at++;
    assert_true(at > begin && !isdigit((unsigned char)*begin));
    return at;
}

static const char *skip_labels(const char *at) {
    if (*at != '{') return at;
    for (at++; *at != '}';) {
        at = skip_name(at, true);
        assert_true(at[0] == '=' && at[1] == '"');
        for (at += 2; *at != '"'; at++) {
            assert_true(*at && *at != '\n');
            if (*at == '\\') at++;
        }
        if (*++at == ',') at++;
        else assert_true(*at == '}');
    }
    return at + 1;
}

/* Every sample belongs to the family above it; families stand once; numbers are numbers. */
static void check_prometheus(const char *text) {
    static const char *const suffixes[] = {"", "_bucket", "_count", "_sum"};
    char family[128] = "", type[32] = "";
    auto_buf Buf seen = {0};
    Str rest = str_of(text), line;
    size_t samples = 0;
    assert_int_equal(text[strlen(text) - 1], '\n');
    while (str_cut(&rest, '\n', &line)) {
        auto_free char *copy = mem_dup_bytes(line.at, line.length);
        if (!*copy) continue;
        if (!strncmp(copy, "# HELP ", 7)) continue;
        if (!strncmp(copy, "# TYPE ", 7)) {
            assert_int_equal(sscanf(copy + 7, "%127s %31s", family, type), 2);
            auto_buf Buf mark = {0};
            buf_printf(&mark, "\n%s\n", family);
            if (seen.at && strstr(seen.at, mark.at)) fail_msg("family %s twice", family);
            buf_str(&seen, mark.at);
            continue;
        }
        const char *end = skip_name(copy, false);
        bool fits = false;
        for (size_t i = 0; i < COUNT_OF(suffixes); i++) {
            size_t length = strlen(family);
            fits = fits || ((size_t)(end - copy) == length + strlen(suffixes[i]) &&
                            !strncmp(copy, family, length) &&
                            !strncmp(copy + length, suffixes[i], strlen(suffixes[i])));
        }
        if (!fits) fail_msg("%s is no sample of %s", copy, family);
        end = skip_labels(end);
        assert_int_equal(*end, ' ');
        char *after;
        strtod(end + 1, &after);
        if (after == end + 1 || *after) fail_msg("no number: %s", copy);
        samples++;
    }
    assert_true(samples > 300);
}

static void metrics_have_the_names_and_shape_that_readers_expect(void **state) {
    (void)state;
    Fixture f;
    fixture_start(&f,
                  (const char *[]){NIXL("kv_consumer"), "--served-model-name", "a\"b\\c", NULL});
    double_say("The sea");
    post(&f, CHATS, CHAT(",\"max_tokens\":2"));
    post(&f, CHATS, CHAT(""));
    post(&f, CHATS, "[]");
    counter_add(&double_engine.stats.cached_tokens, 32);
    counter_add(&double_engine.stats.degraded_by[ERR_DEADLINE], 3);
    histogram_observe(&double_engine.stats.first_token, 0.5);
    const Reply *r = get(&f, "/metrics");
    assert_contains(r->headers, "content-type: text/plain; version=0.0.4; charset=utf-8\n");
    check_prometheus(r->body);
#define MODEL "{engine=\"0\",model_name=\"a\\\"b\\\\c\""
    static const char *const lines[] = {
        "\nvllm:num_requests_running" MODEL "} 0.0\n",
        "\nvllm:kv_cache_usage_perc" MODEL "} 0.25\n",
        "\nvllm:request_success_total" MODEL ",finished_reason=\"length\"} 1.0\n",
        "\nvllm:request_success_total" MODEL ",finished_reason=\"stop\"} 1.0\n",
        "\nvllm:prompt_tokens_by_source_total" MODEL ",source=\"local_cache_hit\"} 32.0\n",
        "\nvllm:time_to_first_token_seconds_count" MODEL "} 1.0\n",
        "\nvllm:time_to_first_token_seconds_bucket" MODEL ",le=\"+Inf\"} 1.0\n",
        "\nvllm:request_params_max_tokens_sum" MODEL "} 2.0\n",
        "\nvllm:request_params_max_tokens_bucket" MODEL ",le=\"200.0\"} 1.0\n",
        "\nvllm:num_requests_kv_fetch_by_stage" MODEL ",stage=\"in_progress\"} 0.0\n",
        "\nvllm:nixl_num_kv_expired_reqs_total" MODEL "} 0.0\n",
        "\nvllm:cache_config_info{block_size=\"16\",",
        ",num_gpu_blocks=\"40\",",
        "\nvllm:admission_rejections_total{model_name=\"a\\\"b\\\\c\",reason=\"max_num_queued_"
        "reqs\"} 0.0\n",
        "\nbaton:degraded_by_cause_total" MODEL ",cause=\"deadline\"} 3.0\n",
        "\nbaton:degraded_total" MODEL "} 3.0\n",
        "\nbaton:kv_blocks" MODEL ",state=\"held\"} 10.0\n",
        "\nhttp_requests_total{handler=\"/v1/chat/completions\",method=\"POST\",status=\"2xx\"} "
        "2.0\n",
        "\nhttp_requests_total{handler=\"/v1/chat/completions\",method=\"POST\",status=\"4xx\"} "
        "1.0\n",
        "\nhttp_request_duration_seconds_count{handler=\"/v1/chat/completions\",method=\"POST\"} "
        "3.0\n",
        "\nprocess_open_fds ",
    };
    for (size_t i = 0; i < COUNT_OF(lines); i++) assert_contains(r->body, lines[i]);
    assert_null(
        strstr(r->body, "le=\"500.0\"} 0.0\nvllm:request_params_max_tokens")); /* context: 256 */
    assert_null(strstr(r->body, "handler=\"/metrics\""));
    fixture_stop(&f);
}

/* ---- the end ---- */

static int drained_count;

static void on_drained(void *user) {
    drained_count++;
    loop_stop(user);
}

static void draining_finishes_what_runs_and_takes_nothing_new(void **state) {
    (void)state;
    Fixture f;
    fixture_start(&f, NULL);
    double_engine.held = true;
    drained_count = 0;
    HttpClient *second = http_client_new(f.loop), *first = f.client;
    send_call(&f, "POST", COMPLETIONS, NULL, STR("{\"prompt\":\"x\"}"));
    LOOP_WAIT_FOR(f.loop, double_engine.count == 1);
    serve_drain(&f.serve, on_drained);
    f.client = second;
    bool running_done = f.done;
    assert_false(running_done);
    assert_int_equal(get(&f, "/health")->status, 503);
    const Reply *r = post(&f, COMPLETIONS, "{\"prompt\":\"x\"}");
    assert_int_equal(r->status, 503);
    assert_contains(r->body, "the engine is shutting down. Send the request to another engine.");
    assert_contains(r->headers, "retry-after: 1\n");
    assert_int_equal(drained_count, 0);
    f.done = false;
    double_end(0, 504, FINISH_LENGTH);
    double_tell_if_idle();
    r = wait_reply(&f);
    assert_int_equal(r->status, 200);
    LOOP_WAIT_FOR(f.loop, drained_count > 0);
    assert_int_equal(drained_count, 1);
    f.client = first;
    http_client_free(second);
    fixture_stop(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_endpoints_answer_as_clients_know_them),
        cmocka_unit_test(tokens_and_texts_are_turned_into_each_other),
        cmocka_unit_test(a_key_guards_the_api_alone),
        cmocka_unit_test(a_proxys_prefix_is_left_out),
        cmocka_unit_test(the_template_gets_what_the_request_says),
        cmocka_unit_test(templates_for_parts_are_recognised),
        cmocka_unit_test(a_template_that_cannot_be_read_is_told_at_the_start),
        cmocka_unit_test(a_prefill_engine_offers_what_it_has_computed),
        cmocka_unit_test(a_decode_engine_pulls_what_was_offered),
        cmocka_unit_test(a_refused_request_lets_the_offer_go),
        cmocka_unit_test(without_a_connector_it_is_said_or_refused),
        cmocka_unit_test(metrics_have_the_names_and_shape_that_readers_expect),
        cmocka_unit_test(draining_finishes_what_runs_and_takes_nothing_new),
    };
    return cmocka_run_group_tests(tests, double_load, double_unload);
}
