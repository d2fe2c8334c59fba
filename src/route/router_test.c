// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include "router.h"
#include <cmocka.h>

#include "router_test.h"

static void assert_in(const char *text, const char *want) {
    if (!text || !strstr(text, want))
        fail_msg("'%s' is not in:\n%s", want, text ? text : "(nothing)");
}

/* ---- the good case ---- */

static void a_request_is_prefilled_and_then_decoded(void **state) {
    (void)state;
    test_open();
    TestEngine *prefill = engine_open(0, ANSWER_JSON, PREFILL_REPLY);
    TestEngine *decode = engine_open(1, ANSWER_JSON, DECODE_REPLY);
    prefill->stages = "computed=38; cached=16; pulled=0; bytes=0; rail=none";
    decode->stages = STAGES;
    router_start((RouterConf){0}, 1, 2);
    Seen seen;
    HttpHeader headers[] = {{STR("X-Request-Id"), STR("abc-1")},
                            {STR("Accept-Encoding"), STR("gzip")},
                            {STR("Authorization"), STR("Bearer k")},
                            {STR("Baton-Trace"), STR("full")}};
    send_to(&seen, "POST", CHAT "?a=b", ASK ",\"seed\":7}", (HttpHeaders){headers, 4});
    WAIT_FOR(seen.ended);
    assert_int_equal(seen.status, 200);
    assert_string_equal(seen.body.at, DECODE_CLEAN);
    assert_string_equal(
        prefill->body_seen.at,
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"max_tokens\":1,"
        "\"seed\":7,\"kv_transfer_params\":{\"do_remote_decode\":true,\"do_remote_prefill\":false,"
        "\"remote_engine_id\":null,\"remote_block_ids\":null,\"remote_host\":null,"
        "\"remote_port\":null}}");
    assert_string_equal(decode->body_seen.at,
                        ASK ",\"seed\":7,\"kv_transfer_params\":" PARAMS_MADE "}");
    for (int i = 0; i < 2; i++) {
        const char *sent = t.engines[i].headers_seen.at;
        assert_in(sent, "x-request-id: abc-1\n");
        assert_in(sent, "Authorization: Bearer k\n");
        assert_null(strcasestr(sent, "accept-encoding"));
        assert_null(strcasestr(sent, "baton-trace"));
        assert_string_equal(t.engines[i].target_seen.at, CHAT "a=b");
    }
    assert_string_equal(head_of(&seen, "x-request-id"), "abc-1");
    assert_string_equal(head_of(&seen, "baton-stages"), "");
    assert_string_equal(head_of(&seen, "content-type"), "application/json");
    assert_in(head_of(&seen, "baton-trace"), "id=abc-1; prefill=prefill-0/38; decode=decode-0; "
                                             "computed=3; cached=16; pulled=35; bytes=1000; "
                                             "rail=shm; route_us=");
    assert_in(head_of(&seen, "baton-trace"), "; transfer_us=600; first_token_us=");
    seen_free(&seen);
    test_close();
}

static void a_stream_goes_on_as_it_comes(void **state) {
    (void)state;
    const struct { const char *more, *body; bool full;
    } cases[] = {
        /* the usage chunk is for the router alone, unless the client wants it too */
        {",\"stream\":true}", EVENT EVENT EVENT DONE_EVENT, false},
        {",\"stream\":true,\"stream_options\":{\"include_usage\":true}}",
         EVENT EVENT EVENT USAGE_EVENT DONE_EVENT, false},
        {",\"stream\":true}",
         EVENT EVENT EVENT ": Baton-Trace: id=abc; prefill=prefill-0/54; decode=decode-0; "
                           "computed=3; cached=16; pulled=35; bytes=1000; rail=shm; ",
         true},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        test_open();
        engine_open(0, ANSWER_JSON, PREFILL_REPLY);
        engine_open(1, ANSWER_STREAM, NULL)->stages = STAGES;
        router_start((RouterConf){.access_log = ROUTE_LOG_JSON}, 1, 2);
        auto_buf Buf body = {0};
        Seen seen;
        HttpHeader headers[] = {{STR("x-request-id"), STR("abc")},
                                {STR("baton-trace"), STR("full")}};
        buf_printf(&body, ASK "%s", cases[i].more);
        send_to(&seen, "POST", CHAT, body.at, (HttpHeaders){headers, cases[i].full ? 2 : 1});
        WAIT_FOR(seen.ended);
        assert_int_equal(seen.status, 200);
        assert_false(seen.failed);
        assert_string_equal(head_of(&seen, "content-type"), "text/event-stream; charset=utf-8");
        assert_in(head_of(&seen, "baton-trace"),
                  "prefill=prefill-0/54; decode=decode-0; computed=3; ");
        if (cases[i].full) {
            assert_memory_equal(seen.body.at, cases[i].body, strlen(cases[i].body));
            assert_in(seen.body.at, "; tokens=3\n\n" DONE_EVENT);
        } else {
            assert_string_equal(seen.body.at, cases[i].body);
        }
        assert_true(engine_saw(&t.engines[1], "\"stream_options\":{\"include_usage\":true}"));
        assert_false(engine_saw(&t.engines[0], "stream"));
        auto_free char *log = log_text();
        assert_in(log, "\"input_tokens\":54,\"output_tokens\":3");
        seen_free(&seen);
        test_close();
    }
}

static void engines_that_do_both_are_asked_once(void **state) {
    (void)state;
    test_open();
    engine_open(0, ANSWER_JSON, DECODE_REPLY);
    router_start((RouterConf){0}, 0, 1);
    Seen seen;
    ask(&seen, ASK ",\"kv_transfer_params\":{\"remote_host\":\"elsewhere\"}}");
    assert_int_equal(seen.status, 200);
    assert_string_equal(t.engines[0].body_seen.at, ASK "}");
    assert_in(head_of(&seen, "baton-trace"), "prefill=none/0; decode=engine-0; ");
    assert_int_equal(t.engines[0].requests, 1);
    seen_free(&seen);
    test_close();
}

static void connectors_without_hand_over_prefill_and_decode_plainly(void **state) {
    (void)state;
    static const char *const connectors[] = {"http", "lmcache"};
    for (size_t i = 0; i < COUNT_OF(connectors); i++) {
        test_open();
        engine_open(0, ANSWER_JSON, DECODE_REPLY);
        engine_open(1, ANSWER_JSON, DECODE_REPLY);
        router_start((RouterConf){.hand.connector = connectors[i]}, 1, 2);
        Seen seen;
        ask(&seen, ASK "}");
        assert_int_equal(seen.status, 200);
        assert_false(engine_saw(&t.engines[0], "kv_transfer_params"));
        assert_true(engine_saw(&t.engines[0], "\"max_tokens\":1"));
        assert_string_equal(t.engines[1].body_seen.at, ASK "}");
        assert_string_equal(head_of(&seen, "baton-degraded"), "");
        seen_free(&seen);
        test_close();
    }
}

static void ids_are_taken_over_or_made(void **state) {
    (void)state;
    const struct { const char *given; bool kept;
    } cases[] = {{"req_1.2:3", true},
                 {"", false},
                 {"a b", false},
                 {"a;b=c", false},
                 {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                  "aaaaaaaaaaaaaaaaaaaaaaaa"
                  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                  false}};
    test_open();
    engine_open(0, ANSWER_JSON, DECODE_REPLY);
    router_start((RouterConf){0}, 0, 1);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        Seen seen;
        HttpHeader header = {STR("x-request-id"), str_of(cases[i].given)};
        send_to(&seen, "POST", CHAT, ASK "}", (HttpHeaders){&header, 1});
        WAIT_FOR(seen.ended);
        const char *id = head_of(&seen, "x-request-id");
        if (cases[i].kept) assert_string_equal(id, cases[i].given);
        else
            assert_true(strlen(id) == 36 && id[14] == '4' &&
                        strchr("89ab", id[19])); /* UUID version 4 */
        assert_in(t.engines[0].headers_seen.at, id);
        seen_free(&seen);
    }
    test_close();
}

/* Fields that belong to one connection end here; those that come twice stay two. */
static void headers_of_a_reply_are_kept_as_they_are(void **state) {
    (void)state;
    test_open();
    TestEngine *engine = engine_open(0, ANSWER_JSON, DECODE_REPLY);
    engine->extra_name = "Set-Cookie";
    engine->extra_value = "a=1";
    engine->extra_twice = true;
    router_start((RouterConf){0}, 0, 1);
    Seen seen;
    HttpHeader headers[] = {{STR("Connection"), STR("keep-alive, X-Hop")}, {STR("X-Hop"), STR("1")},
                            {STR("X-End"), STR("2")}, {STR("Proxy-Authorization"), STR("secret")}};
    send_to(&seen, "POST", CHAT, ASK "}", (HttpHeaders){headers, 4});
    WAIT_FOR(seen.ended);
    assert_in(seen.head.at, "set-cookie: a=1\nset-cookie: a=1\n");
    assert_null(strcasestr(t.engines[0].headers_seen.at, "x-hop"));
    assert_null(strcasestr(t.engines[0].headers_seen.at, "secret"));
    assert_in(t.engines[0].headers_seen.at, "X-End: 2\n");
    seen_free(&seen);
    test_close();
}

/* Its memory goes with the reply, and what is told of it afterwards must not look there. */
static void a_large_request_is_answered_and_logged(void **state) {
    (void)state;
    for (int stream = 0; stream < 2; stream++) {
        test_open();
        engine_open(0, ANSWER_JSON, PREFILL_REPLY);
        engine_open(1, stream ? ANSWER_STREAM : ANSWER_JSON, DECODE_REPLY);
        router_start((RouterConf){.access_log = ROUTE_LOG_JSON}, 1, 2);
        auto_buf Buf body = {0}, want = {0};
        buf_str(&body, "{\"prompt\":\"");
        for (size_t i = 0; i < 2 * MIB; i++) buf_char(&body, 'x');
        buf_printf(&body, "\",\"model\":\"m\",\"max_tokens\":8%s}",
                   stream ? ",\"stream\":true" : "");
        Seen seen;
        ask(&seen, body.at);
        assert_int_equal(seen.status, 200);
        assert_string_equal(seen.body.at, stream ? EVENT EVENT EVENT DONE_EVENT : DECODE_CLEAN);
        assert_in_range(t.engines[0].body_seen.length, body.length + 100, body.length + 300);
        buf_printf(&want, "\"path\":\"" CHAT
                          "\",\"protocol\":\"HTTP/1.1\",\"status_code\":200,\"model_name\":\"m\",");
        auto_free char *log = log_text();
        assert_in(log, want.at);
        assert_in(log, "\"client\":\"127.0.0.1:");
        seen_free(&seen);
        test_close();
    }
}

static void requests_that_fit_nothing_are_told_why(void **state) {
    (void)state;
    const struct { const char *method, *target, *body; int status; const char *want;
    } cases[] = {
        {"POST", CHAT, "{\"model\":", 400,
         "{\"error\":{\"message\":\"the request body is not a JSON object: Expecting value: line 1 "
         "column 10 (char "
         "9). Send one JSON object with model and messages or "
         "prompt.\",\"type\":\"BadRequestError\",\"param\":\"9\","
         "\"code\":400}}"},
        {"POST", CHAT, "{\"messages\":[]}", 404,
         "{\"error\":{\"message\":\"the request names no model. Add \\\"model\\\": \\\"NAME\\\"; "
         "GET /v1/models lists "
         "the names.\",\"type\":\"NotFoundError\",\"param\":\"model\",\"code\":404}}"},
        {"POST", CHAT, "{\"model\":\"n\",\"prompt\":\"\"}", 404,
         "{\"error\":{\"message\":\"the model 'n' is not served here; served: m. GET /v1/models "
         "lists all names; a "
         "ModelRoute adds one.\",\"type\":\"NotFoundError\",\"param\":\"model\",\"code\":404}}"},
        {"GET", CHAT, "", 405,
         "{\"error\":{\"message\":\"/v1/chat/completions takes POST, not "
         "GET\",\"type\":\"MethodNotAllowedError\","
         "\"param\":null,\"code\":405}}"},
        {"POST", "/v1/embeddings", "{}", 404,
         "{\"error\":{\"message\":\"there is no '/v1/embeddings' here. Served are "
         "/v1/chat/completions, "
         "/v1/completions, /v1/models, /healthz, /readyz and "
         "/metrics.\",\"type\":\"NotFoundError\",\"param\":null,"
         "\"code\":404}}"},
        {"GET", "/healthz", "", 200, "{\"message\":\"ok\"}"},
        {"GET", "/readyz", "", 200, "{\"message\":\"router is ready\"}"},
        {"GET", "/v1/models", "", 200,
         "{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"object\":\"model\",\"created\":0,\"owned_"
         "by\":\"baton\"}]}"},
        {"GET", "/v1/models/%6d", "", 200,
         "{\"id\":\"m\",\"object\":\"model\",\"created\":0,\"owned_by\":\"baton\"}"},
        {"GET", "/v1/models/org/m", "", 404,
         "{\"error\":{\"message\":\"the model 'org/m' is not served here. GET /v1/models lists the "
         "names.\","
         "\"type\":\"NotFoundError\",\"param\":\"model\",\"code\":404}}"},
    };
    test_open();
    engine_open(0, ANSWER_JSON, DECODE_REPLY);
    router_start((RouterConf){0}, 0, 1);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        Seen seen;
        send_to(&seen, cases[i].method, cases[i].target, cases[i].body, (HttpHeaders){0});
        WAIT_FOR(seen.ended);
        assert_string_equal(seen.body.at, cases[i].want);
        assert_int_equal(seen.status, cases[i].status);
        seen_free(&seen);
    }
    assert_int_equal(t.engines[0].requests, 0);
    test_close();
}

static void metrics_count_what_happened(void **state) {
    (void)state;
    test_open();
    engine_open(0, ANSWER_JSON, DECODE_REPLY);
    router_start((RouterConf){0}, 0, 1);
    Seen seen, metrics;
    ask(&seen, ASK "}");
    send_to(&metrics, "GET", "/metrics", "", (HttpHeaders){0});
    WAIT_FOR(metrics.ended);
    assert_string_equal(head_of(&metrics, "content-type"),
                        "text/plain; version=0.0.4; charset=utf-8");
    assert_in(metrics.body.at,
              "kthena_router_requests_total{model=\"m\",path=\"/v1/chat/completions\","
              "status_code=\"200\",error_type=\"successful_request\"");
    assert_in(metrics.body.at, "kthena_router_active_requests 0.0\n");
    assert_in(metrics.body.at, "baton_router_pod_answers_total{pod=\"default/engine-0\"} 1.0\n");
    assert_in(metrics.body.at, "baton_router_pod_in_flight{pod=\"default/engine-0\"} 0.0\n");
    seen_free(&seen);
    seen_free(&metrics);
    test_close();
}

/* ---- many, slow, and at the end ---- */

static void sixteen_streams_run_side_by_side(void **state) {
    (void)state;
    enum { CLIENTS = 16 };
    test_open();
    for (size_t i = 0; i < 4; i++)
        engine_open(i, i < 2 ? ANSWER_JSON : ANSWER_STREAM, PREFILL_REPLY)->events = 200;
    router_start((RouterConf){0}, 2, 4);
    static Seen seen[CLIENTS];
    auto_buf Buf want = {0};
    for (int i = 0; i < 200; i++) buf_str(&want, EVENT);
    buf_str(&want, DONE_EVENT);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < CLIENTS; i++)
            send_to(&seen[i], "POST", CHAT, ASK ",\"stream\":true}", (HttpHeaders){0});
        for (int i = 0; i < CLIENTS; i++) {
            WAIT_FOR(seen[i].ended);
            assert_int_equal(seen[i].status, 200);
            assert_string_equal(seen[i].body.at, want.at);
            seen_free(&seen[i]);
        }
    }
    int requests[4];
    for (int i = 0; i < 4; i++) requests[i] = t.engines[i].requests;
    assert_int_equal(requests[0] + requests[1], 3 * CLIENTS);
    assert_int_equal(requests[2] + requests[3], 3 * CLIENTS);
    for (int i = 0; i < 4; i++) /* shared out, though decode is asked only when prefill is done */
        assert_in_range(requests[i], CLIENTS + 4, 2 * CLIENTS - 4);
    assert_int_equal(t.router->exchange_count, 0);
    test_close();
}

static void a_slow_client_slows_the_engine_down(void **state) {
    (void)state;
    const size_t flood = 64 * MIB;
    test_open();
    engine_open(0, ANSWER_FLOOD, NULL)->flood = flood;
    router_start((RouterConf){0}, 0, 1);
    Seen seen;
    send_to(&seen, "POST", CHAT, ASK ",\"stream\":true}", (HttpHeaders){0});
    WAIT_FOR(seen.pieces > 0);
    http_call_pause(seen.call, true);
    size_t before = 0;
    do {
        before = t.engines[0].sent;
        loop_run_for(t.loop, 100);
    } while (t.engines[0].sent != before);
    assert_true(before < flood / 2); /* it waits, and so little lies about in the router */
    http_call_pause(seen.call, false);
    WAIT_FOR(seen.ended);
    assert_false(seen.failed);
    size_t events = (flood + sizeof EVENT - 2) / (sizeof EVENT - 1);
    assert_int_equal(seen.body.length, events * (sizeof EVENT - 1) + sizeof DONE_EVENT - 1);
    seen_free(&seen);
    test_close();
}

static void on_drained_test(void *user) { *(bool *)user = true; }

static void draining_lets_streams_end(void **state) {
    (void)state;
    test_open();
    TestEngine *engine = engine_open(0, ANSWER_OPEN, NULL);
    router_start((RouterConf){0}, 0, 1);
    Seen stream, late, ready;
    bool drained = false;
    send_to(&stream, "POST", CHAT, ASK ",\"stream\":true}", (HttpHeaders){0});
    WAIT_FOR(stream.pieces > 0);
    router_drain(t.router, on_drained_test, &drained);
    send_to(&ready, "GET", "/readyz", "", (HttpHeaders){0});
    ask(&late, ASK "}");
    WAIT_FOR(ready.ended);
    assert_int_equal(ready.status, 503);
    assert_string_equal(ready.body.at, "{\"message\":\"router is not ready\"}");
    assert_int_equal(late.status, 503);
    assert_string_equal(head_of(&late, "retry-after"), "1");
    assert_in(late.body.at,
              "this router is shutting down. Send the request again, to another one.");
    loop_run_for(t.loop, 20);
    assert_false(drained);
    http_send(engine->held, STR(DONE_EVENT));
    http_end(engine->held);
    WAIT_FOR(drained);
    WAIT_FOR(stream.ended);
    assert_false(stream.failed);
    assert_in(stream.body.at, DONE_EVENT);
    seen_free(&stream);
    seen_free(&late);
    seen_free(&ready);
    test_close();
}

int main(void) {
    log_set_level(LOG_OFF);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_is_prefilled_and_then_decoded),
        cmocka_unit_test(a_stream_goes_on_as_it_comes),
        cmocka_unit_test(engines_that_do_both_are_asked_once),
        cmocka_unit_test(connectors_without_hand_over_prefill_and_decode_plainly),
        cmocka_unit_test(ids_are_taken_over_or_made),
        cmocka_unit_test(headers_of_a_reply_are_kept_as_they_are),
        cmocka_unit_test(a_large_request_is_answered_and_logged),
        cmocka_unit_test(requests_that_fit_nothing_are_told_why),
        cmocka_unit_test(metrics_count_what_happened),
        cmocka_unit_test(sixteen_streams_run_side_by_side),
        cmocka_unit_test(a_slow_client_slows_the_engine_down),
        cmocka_unit_test(draining_lets_streams_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
