// SPDX-License-Identifier: Apache-2.0
/* What happens when engines fail, before and after the client's first byte, and when clients leave.
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include "exchange.h"
#include <cmocka.h>

#include "router_test.h"

#define STREAM ASK ",\"stream\":true}"

static void assert_in(const char *text, const char *want) {
    if (!text || !strstr(text, want))
        fail_msg("'%s' is not in:\n%s", want, text ? text : "(nothing)");
}

static int requests_of(size_t from, size_t to) {
    int sum = 0;
    for (size_t i = from; i < to; i++) sum += t.engines[i].requests;
    return sum;
}

/* {port} in the text is the engine's. */
static void assert_message(const char *body, const char *want, int port) {
    auto_buf Buf text = {0};
    const char *at;
    while ((at = strstr(want, "{port}"))) {
        buf_append(&text, want, (size_t)(at - want));
        buf_printf(&text, "%d", port);
        want = at + 6;
    }
    buf_str(&text, want);
    assert_in(body, text.at);
}

/* ---- one pair: nothing else is left to ask ---- */

static void a_failure_names_stage_peer_and_cause(void **state) {
    (void)state;
    const struct {
        Answer prefill, decode;
        int prefill_status, decode_status;
        bool prefill_shut, decode_shut;
        int status, blamed;
        const char *want;
    } cases[] = {
        {ANSWER_JSON, ANSWER_JSON, 200, 200, true, false, 502, 0,
         "prefill on pod prefill-0 (127.0.0.1:{port}) failed: could not connect to "
         "127.0.0.1:{port}: connection "
         "refused. Check that the engine runs: curl http://127.0.0.1:{port}/health."},
        {ANSWER_JSON, ANSWER_JSON, 200, 200, false, true, 502, 1,
         "decode on pod decode-0 (127.0.0.1:{port}) failed: could not connect to 127.0.0.1:{port}: "
         "connection "
         "refused. Check that the engine runs: curl http://127.0.0.1:{port}/health."},
        {ANSWER_CLOSE, ANSWER_JSON, 200, 200, false, false, 502, 0,
         "prefill on pod prefill-0 (127.0.0.1:{port}) failed: 127.0.0.1:{port} closed the "
         "connection before it "
         "replied"},
        {ANSWER_HOLD, ANSWER_JSON, 200, 200, false, false, 504, 0,
         "prefill on pod prefill-0 (127.0.0.1:{port}) failed: no reply from 127.0.0.1:{port} "
         "within 150 ms"},
        {ANSWER_JSON, ANSWER_HOLD, 200, 200, false, false, 504, 1,
         "decode on pod decode-0 (127.0.0.1:{port}) failed: no reply from 127.0.0.1:{port} within "
         "250 ms"},
        {ANSWER_JSON, ANSWER_JSON, 500, 200, false, false, 502, 0,
         "prefill on pod prefill-0 (127.0.0.1:{port}) failed: it answered 500: Internal server "
         "error"},
        {ANSWER_JSON, ANSWER_JSON, 200, 503, false, false, 503, 1,
         "decode on pod decode-0 (127.0.0.1:{port}) failed: it answered 503: Internal server "
         "error"},
        {ANSWER_JSON, ANSWER_JSON, 200, 504, false, false, 504, 1,
         "decode on pod decode-0 (127.0.0.1:{port}) failed: it answered 504: Internal server "
         "error"},
        {ANSWER_JSON, ANSWER_JSON, 302, 200, false, false, 502, 0,
         "prefill on pod prefill-0 (127.0.0.1:{port}) failed: it answered 302"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        static const char words[] =
            "{\"error\":{\"message\":\"Internal server error\",\"code\":500}}";
        test_open();
        TestEngine *prefill = engine_open(0, cases[i].prefill, PREFILL_REPLY);
        TestEngine *decode = engine_open(1, cases[i].decode, DECODE_REPLY);
        prefill->status = cases[i].prefill_status;
        decode->status = cases[i].decode_status;
        if (prefill->status != 200) prefill->body = words;
        if (decode->status != 200) decode->body = words;
        if (cases[i].prefill_shut) engine_shut(prefill);
        if (cases[i].decode_shut) engine_shut(decode);
        router_start((RouterConf){.strict = true, .prefill_ms = 150, .first_byte_ms = 250}, 1, 2);
        Seen seen;
        ask(&seen, ASK "}");
        assert_int_equal(seen.status, cases[i].status);
        assert_message(seen.body.at, cases[i].want, t.engines[cases[i].blamed].port);
        assert_in(head_of(&seen, "baton-trace"),
                  cases[i].blamed ? "decode=decode-0" : "decode=none");
        assert_string_equal(head_of(&seen, "retry-after"), cases[i].status == 503 ? "1" : "");
        assert_int_equal(requests_of(0, 1), !cases[i].prefill_shut);
        seen_free(&seen);
        test_close();
    }
}

static void a_prefill_reply_must_hand_something_over(void **state) {
    (void)state;
    const struct {
        const char *reply;
        bool strict;
        int status;
        const char *want, *degraded, *reason;
    } cases[] = {
        {"{\"usage\":{}}", false, 200, DECODE_CLEAN,
         "prefill pod prefill-0 handed nothing over (a consumer offers nothing): the decode pod "
         "computes the prompt",
         "a consumer offers nothing"},
        {"{\"usage\":{}}", true, 502,
         "degraded, which --strict forbids: prefill pod prefill-0 handed nothing over (no "
         "kv_transfer_params): the "
         "decode pod computes the prompt",
         ""},
        {"{\"usage\":{},\"kv_transfer_params\":null}", false, 200, DECODE_CLEAN,
         "prefill pod prefill-0 handed nothing over (no kv_transfer_params): the decode pod "
         "computes the prompt"},
        {"not json", true, 502,
         "failed: its reply is not JSON: Expecting value: line 1 column 1 (char 0)", ""},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        test_open();
        engine_open(0, ANSWER_JSON, cases[i].reply)->degraded = cases[i].reason;
        engine_open(1, ANSWER_JSON, DECODE_REPLY);
        router_start((RouterConf){.strict = cases[i].strict}, 1, 2);
        Seen seen;
        ask(&seen, ASK "}");
        assert_int_equal(seen.status, cases[i].status);
        assert_in(seen.body.at, cases[i].want);
        assert_string_equal(head_of(&seen, "baton-degraded"), cases[i].degraded);
        assert_false(engine_saw(&t.engines[1], "kv_transfer_params"));
        seen_free(&seen);
        test_close();
    }
}

static void an_engines_own_refusal_is_passed_on(void **state) {
    (void)state;
    static const char words[] =
        "{\"error\":{\"message\":\"max_tokens must be at least 1\",\"code\":400}}";
    for (size_t blamed = 0; blamed < 2; blamed++)
        for (int stream = 0; stream < 2; stream++) {
            test_open();
            for (size_t i = 0; i < 4; i++)
                engine_open(i, ANSWER_JSON, i < 2 ? PREFILL_REPLY : DECODE_REPLY);
            for (size_t i = blamed * 2; i < blamed * 2 + 2; i++) {
                t.engines[i].status = 429;
                t.engines[i].body = words;
                t.engines[i].extra_name = "Retry-After";
                t.engines[i].extra_value = "7";
            }
            router_start((RouterConf){.access_log = ROUTE_LOG_TEXT}, 2, 4);
            Seen seen;
            ask(&seen, stream ? STREAM : ASK "}");
            assert_int_equal(seen.status, 429);
            assert_string_equal(seen.body.at, words);
            assert_string_equal(head_of(&seen, "retry-after"), "7");
            assert_int_equal(requests_of(0, 2), 1);
            assert_int_equal(requests_of(2, 4), blamed);
            auto_free char *log = log_text();
            assert_in(log, " 429 error=proxy:max_tokens must be at least 1 ");
            seen_free(&seen);
            test_close();
        }
}

/* ---- others are left ---- */

static void another_pair_makes_up_for_a_failed_one(void **state) {
    (void)state;
    const struct {
        Answer bad;          /* of the first of each kind */
        int status;
        bool shut, blame_decode;
        int prefills, decodes; /* requests that arrive at all */
    } cases[] = {
        {ANSWER_JSON, 500, false, false, 2, 1},
        {ANSWER_JSON, 500, false, true, 2, 2},
        {ANSWER_CLOSE, 200, false, false, 2, 1},
        {ANSWER_CLOSE, 200, false, true, 2, 2},
        {ANSWER_HOLD, 200, false, false, 2, 1},
        {ANSWER_HOLD, 200, false, true, 2, 2},
        {ANSWER_JSON, 200, true, false, 1, 1},
        {ANSWER_JSON, 200, true, true, 1,
         1}, /* it never got what prefill offers: another takes it */
        {ANSWER_JSON, 503, false, true, 1, 2}, /* nor did one that takes no request in */
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        for (int stream = 0; stream < 2; stream++) {
            size_t blamed = cases[i].blame_decode ? 2 : 0;
            test_open();
            for (size_t k = 0; k < 4; k++)
                engine_open(k, ANSWER_JSON, k < 2 ? PREFILL_REPLY : DECODE_REPLY);
            TestEngine *bad = &t.engines[blamed], *good = &t.engines[blamed + 1];
            bad->answer = cases[i].bad;
            bad->status = cases[i].status;
            if (stream) t.engines[3].answer = ANSWER_STREAM;
            if (cases[i].shut) engine_shut(bad);
            router_start(
                (RouterConf){.prefill_ms = 100, .first_byte_ms = 100, .access_log = ROUTE_LOG_JSON},
                2, 4);
            /* so that the bad one is picked first */
            RoutePod *busy = NULL, *other = NULL;
            for (size_t k = 0; k < 4; k++) {
                RoutePod *pod = route_store_table(t.router->store)->pods[k];
                if (!strcmp(pod->name, blamed ? "decode-1" : "prefill-1")) busy = pod;
                if (!strcmp(pod->name, "decode-0")) other = pod;
            }
            busy->in_flight += 5;
            if (!blamed && stream) other->in_flight += 5; /* the one that streams decodes */
            Seen seen;
            ask(&seen, stream ? STREAM : ASK "}");
            busy->in_flight -= 5;
            if (!blamed && stream) other->in_flight -= 5;
            assert_int_equal(seen.status, 200);
            assert_string_equal(seen.body.at, stream ? EVENT EVENT EVENT DONE_EVENT : DECODE_CLEAN);
            assert_string_equal(head_of(&seen, "baton-degraded"), "");
            assert_int_equal(good->requests, blamed ? 1 : 1);
            assert_int_equal(requests_of(0, 2), cases[i].prefills);
            assert_int_equal(requests_of(2, 4), cases[i].decodes);
            auto_free char *log = log_text();
            assert_in(log, "\"upstream_attempts\":2,");
            for (size_t k = 0; k < 4; k++)
                assert_int_equal(route_pod_load(route_store_table(t.router->store)->pods[k]), 0);
            seen_free(&seen);
            test_close();
        }
}

/* Prefill has failed once and worked since: the last attempt asks it again. */
static void the_last_attempt_prefills_if_prefill_works(void **state) {
    (void)state;
    test_open();
    for (size_t k = 0; k < 4; k++)
        engine_open(k, ANSWER_JSON, k < 2 ? PREFILL_REPLY : DECODE_REPLY);
    t.engines[0].status = t.engines[2].status = 500;
    router_start((RouterConf){.access_log = ROUTE_LOG_JSON}, 2, 4);
    RoutePod **pods =
        route_store_table(t.router->store)->pods; /* decode-0, decode-1, prefill-0 ... */
    assert_string_equal(pods[1]->name, "decode-1");
    assert_string_equal(pods[3]->name, "prefill-1");
    pods[1]->in_flight += 5;
    pods[3]->in_flight += 5;
    Seen seen;
    ask(&seen, ASK "}");
    pods[1]->in_flight -= 5;
    pods[3]->in_flight -= 5;
    assert_int_equal(seen.status, 200);
    assert_string_equal(head_of(&seen, "baton-degraded"), "");
    assert_true(engine_saw(&t.engines[3], "\"kv_transfer_params\":" PARAMS_MADE));
    assert_int_equal(t.engines[0].requests, 1);
    assert_int_equal(t.engines[1].requests, 2);
    auto_free char *log = log_text();
    assert_in(log, "\"upstream_attempts\":3,");
    seen_free(&seen);
    test_close();
}

static void three_attempts_are_the_most(void **state) {
    (void)state;
    test_open();
    for (size_t i = 0; i < 6; i++) {
        engine_open(i, ANSWER_JSON, i < 1 ? PREFILL_REPLY : "{}");
        if (i) t.engines[i].status = 500;
    }
    router_start((RouterConf){.access_log = ROUTE_LOG_JSON}, 1, 6);
    Seen seen;
    ask(&seen, ASK "}");
    assert_int_equal(seen.status, 502);
    assert_in(seen.body.at,
              "\"message\":\"no answer after 3 attempts, the last one: decode on pod decode-");
    assert_in(seen.body.at,
              "failed: it answered 500. Check that the engine runs: curl http://127.0.0.1:");
    assert_int_equal(requests_of(0, 1), 3);
    assert_int_equal(requests_of(1, 6), 3);
    for (size_t i = 1; i < 6; i++) assert_true(t.engines[i].requests <= 1); /* each another one */
    auto_free char *log = log_text();
    assert_in(log, "\"status_code\":502,\"error\":{\"type\":\"proxy\",");
    assert_in(log, "\"upstream_attempts\":3,");
    seen_free(&seen);
    test_close();
}

static void without_prefill_the_decode_pod_computes_and_says_so(void **state) {
    (void)state;
    for (int stream = 0; stream < 2; stream++) {
        test_open();
        engine_shut(engine_open(0, ANSWER_JSON, PREFILL_REPLY));
        engine_open(1, stream ? ANSWER_STREAM : ANSWER_JSON, DECODE_REPLY);
        router_start((RouterConf){0}, 1, 2);
        for (int i = 0; i < 3; i++) { /* it rests, but is asked: there is no other */
            Seen seen, metrics;
            ask(&seen, stream ? STREAM : ASK "}");
            assert_int_equal(seen.status, 200);
            assert_message(
                head_of(&seen, "baton-degraded"),
                "prefill on pod prefill-0 (127.0.0.1:{port}) failed: could not connect to "
                "127.0.0.1:{port}: connection refused: the decode pod computes the prompt",
                t.engines[0].port);
            assert_in(head_of(&seen, "baton-trace"), "prefill=none/0; decode=decode-0; ");
            assert_false(engine_saw(&t.engines[1], "kv_transfer_params"));
            send_to(&metrics, "GET", "/metrics", "", (HttpHeaders){0});
            WAIT_FOR(metrics.ended);
            auto_buf Buf line = {0};
            buf_printf(&line, "baton_router_degraded_total{cause=\"no_prefill\"} %d.0\n", i + 1);
            assert_in(metrics.body.at, line.at);
            assert_in(metrics.body.at, "baton_router_pod_resting{pod=\"default/prefill-0\"} 1.0\n");
            assert_in(metrics.body.at,
                      "baton_router_retries_total{stage=\"prefill\",cause=\"unavailable\"} ");
            seen_free(&seen);
            seen_free(&metrics);
        }
        test_close();
    }
}

/* The manifest says it: nothing has to fail first. */
static void a_group_without_a_ready_prefill_pod_decodes_alone(void **state) {
    (void)state;
    for (int strict = 0; strict < 2; strict++) {
        test_open();
        engine_open(0, ANSWER_JSON, PREFILL_REPLY);
        engine_open(1, ANSWER_JSON, DECODE_REPLY);
        router_start((RouterConf){.strict = strict}, 1, 2);
        route_store_delete(t.router->store, KIND_POD, "default", "prefill-0");
        route_store_publish(t.router->store);
        Seen seen;
        ask(&seen, ASK "}");
        static const char text[] = "no prefill pod is ready: the decode pod computes the prompt";
        assert_int_equal(seen.status, strict ? 503 : 200);
        if (strict) assert_in(seen.body.at, text);
        else assert_string_equal(head_of(&seen, "baton-degraded"), text);
        assert_int_equal(t.engines[0].requests, 0);
        seen_free(&seen);
        test_close();
    }
}

static void several_prompts_cannot_be_handed_over(void **state) {
    (void)state;
    for (int strict = 0; strict < 2; strict++) {
        test_open();
        engine_open(0, ANSWER_JSON, PREFILL_REPLY);
        engine_open(1, ANSWER_JSON, DECODE_REPLY);
        router_start((RouterConf){.strict = strict}, 1, 2);
        Seen seen;
        send_to(&seen, "POST", "/v1/completions", "{\"model\":\"m\",\"prompt\":[\"a\",\"b\"]}",
                (HttpHeaders){0});
        WAIT_FOR(seen.ended);
        assert_int_equal(seen.status, strict ? 400 : 200);
        static const char text[] =
            "several prompts in one request cannot be handed over: the decode pod computes them";
        if (strict) assert_in(seen.body.at, text);
        else assert_string_equal(head_of(&seen, "baton-degraded"), text);
        assert_int_equal(t.engines[0].requests, 0);
        assert_int_equal(t.engines[1].requests, !strict);
        seen_free(&seen);
        test_close();
    }
}

static void what_decode_calls_degraded_is_passed_on_or_refused(void **state) {
    (void)state;
    for (int strict = 0; strict < 2; strict++)
        for (int stream = 0; stream < 2; stream++) {
            test_open();
            engine_open(0, ANSWER_JSON, PREFILL_REPLY);
            engine_open(1, stream ? ANSWER_OPEN : ANSWER_JSON, DECODE_REPLY)->degraded =
                "blocks did not prove";
            router_start((RouterConf){.strict = strict}, 1, 2);
            Seen seen;
            send_to(&seen, "POST", CHAT, stream ? STREAM : ASK "}", (HttpHeaders){0});
            if (strict) WAIT_FOR(seen.ended);
            WAIT_FOR(seen.status != 0);
            assert_int_equal(seen.status, strict ? 502 : 200);
            if (!strict)
                assert_string_equal(head_of(&seen, "baton-degraded"), "blocks did not prove");
            else assert_in(seen.body.at, "degraded, which --strict forbids: blocks did not prove");
            if (strict && stream) WAIT_FOR(t.engines[1].gone == 1); /* it need not go on */
            seen_free(&seen);
            test_close();
        }
}

static void aggregated_engines_are_tried_one_after_the_other(void **state) {
    (void)state;
    const struct { int good; int status; } cases[] = {{1, 200}, {0, 502}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        test_open();
        for (size_t k = 0; k < 3; k++) {
            engine_open(k, ANSWER_JSON, DECODE_REPLY);
            if (k) t.engines[k].status = 500;
        }
        t.engines[0].answer = cases[i].good ? ANSWER_JSON : ANSWER_CLOSE;
        router_start((RouterConf){0}, 0, 3);
        Seen seen;
        ask(&seen, ASK "}");
        assert_int_equal(seen.status, cases[i].status);
        if (!cases[i].good)
            assert_in(seen.body.at,
                      "no answer after 3 attempts, the last one: engine on pod engine-");
        for (size_t k = 0; k < 3; k++) assert_true(t.engines[k].requests <= 1);
        seen_free(&seen);
        test_close();
    }
}

/* ---- after the first byte ---- */

static int count_of(const char *text, const char *word) {
    int count = 0;
    while ((text = strstr(text, word))) count++, text += strlen(word);
    return count;
}

static void a_stream_that_breaks_is_never_answered_twice(void **state) {
    (void)state;
    test_open();
    for (size_t i = 0; i < 4; i++)
        engine_open(i, i < 2 ? ANSWER_JSON : ANSWER_BREAK, PREFILL_REPLY);
    router_start((RouterConf){.access_log = ROUTE_LOG_JSON}, 2, 4);
    Seen seen;
    send_to(&seen, "POST", CHAT, STREAM, (HttpHeaders){0});
    WAIT_FOR(seen.pieces > 0);
    for (size_t i = 2; i < 4; i++) engine_break(&t.engines[i]);
    WAIT_FOR(seen.ended);
    assert_int_equal(seen.status, 200);
    assert_false(seen.failed); /* the stream is whole as HTTP, and says what happened */
    assert_memory_equal(
        seen.body.at, EVENT EVENT EVENT "data: {\"error\":{\"message\":\"decode on pod decode-",
        sizeof(EVENT EVENT EVENT "data: {\"error\":{\"message\":\"decode on pod decode-") - 1);
    assert_in(
        seen.body.at,
        "closed the connection in the middle of the reply. Check that the engine runs: curl ");
    assert_in(seen.body.at,
              "\"type\":\"BadGatewayError\",\"param\":null,\"code\":502}}\n\n" DONE_EVENT);
    assert_int_equal(count_of(seen.body.at, "[DONE]"), 1);
    assert_int_equal(requests_of(2, 4), 1);
    auto_free char *log = log_text();
    assert_in(log, "\"status_code\":200,\"error\":{\"type\":\"proxy\",");
    assert_in(log, "\"failed_stage\":\"decode\"");
    seen_free(&seen);
    test_close();
}

static void a_stream_that_breaks_before_its_first_event_is_begun_again(void **state) {
    (void)state;
    test_open();
    for (size_t i = 0; i < 4; i++) engine_open(i, i < 2 ? ANSWER_JSON : ANSWER_HEAD, PREFILL_REPLY);
    router_start((RouterConf){0}, 2, 4);
    Seen seen;
    send_to(&seen, "POST", CHAT, STREAM, (HttpHeaders){0});
    WAIT_FOR(requests_of(2, 4) == 1);
    loop_run_for(t.loop, 20); /* the head is there, and tells the client nothing yet */
    assert_int_equal(seen.status, 0);
    for (size_t i = 2; i < 4; i++) {
        if (t.engines[i].requests == 0) t.engines[i].answer = ANSWER_STREAM;
        engine_break(&t.engines[i]);
    }
    WAIT_FOR(seen.ended);
    assert_int_equal(seen.status, 200);
    assert_string_equal(seen.body.at, EVENT EVENT EVENT DONE_EVENT);
    seen_free(&seen);
    test_close();
}

static void a_stream_that_falls_silent_ends(void **state) {
    (void)state;
    test_open();
    engine_open(0, ANSWER_OPEN, NULL);
    router_start((RouterConf){.idle_ms = 150}, 0, 1);
    Seen seen;
    ask(&seen, STREAM);
    assert_in(seen.body.at, "sent nothing for 150 ms in the middle of the reply");
    assert_in(seen.body.at, "\"code\":504}}\n\n" DONE_EVENT);
    assert_int_equal(t.engines[0].gone, 1);
    seen_free(&seen);
    test_close();
}

/* After [DONE] there is nothing to miss. */
static void how_a_connection_ends_after_done_does_not_matter(void **state) {
    (void)state;
    test_open();
    TestEngine *engine = engine_open(0, ANSWER_OPEN, NULL);
    router_start((RouterConf){.access_log = ROUTE_LOG_JSON}, 0, 1);
    Seen seen;
    send_to(&seen, "POST", CHAT, STREAM, (HttpHeaders){0});
    WAIT_FOR(seen.pieces > 0);
    http_send(engine->held, STR(DONE_EVENT));
    WAIT_FOR(strstr(seen.body.at, "[DONE]"));
    engine_break(engine);
    WAIT_FOR(seen.ended);
    assert_string_equal(seen.body.at, EVENT EVENT EVENT DONE_EVENT);
    auto_free char *log = log_text();
    assert_null(strstr(log, "error"));
    seen_free(&seen);
    test_close();
}

/* ---- time ---- */

static void policies_of_the_model_server_limit_and_space_attempts(void **state) {
    (void)state;
    const struct {
        const char *policy;
        int requests;
        int64_t least_ms, most_ms;
        int status;
    } cases[] = {
        {"{timeout: 100ms, retry: {attempts: 0}}", 1, 90, 1000, 504},
        {"{timeout: 100ms, retry: {attempts: 1, retryInterval: 200ms}}", 2, 390, 2000, 504},
        {"{timeout: 50ms}", 3, 140, 1500, 504},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        test_open();
        for (size_t k = 0; k < 3; k++) engine_open(k, ANSWER_HOLD, NULL);
        router_start((RouterConf){0}, 0, 3);
        auto_buf Buf server = {0};
        Err err = {0};
        buf_printf(
            &server,
            "{apiVersion: " ROUTE_API
            ", kind: ModelServer, metadata: {name: m}, spec: {inferenceEngine: "
            "vLLM, workloadPort: {port: 1}, trafficPolicy: %s, workloadSelector: {matchLabels: "
            "{baton.dev/model: m}}}}",
            cases[i].policy);
        json_t *documents = yaml_parse((Str){server.at, server.length}, &err);
        assert_true(route_store_apply(t.router->store, json_array_get(documents, 0), &err));
        route_store_publish(t.router->store);
        json_decref(documents);
        Seen seen;
        int64_t began_us = clock_mono_us();
        ask(&seen, ASK "}");
        int64_t ms = (seen.ended_us - began_us) / 1000;
        assert_int_equal(seen.status, cases[i].status);
        assert_int_equal(requests_of(0, 3), cases[i].requests);
        assert_in_range(ms, cases[i].least_ms, cases[i].most_ms);
        WAIT_FOR(t.engines[0].gone + t.engines[1].gone + t.engines[2].gone == cases[i].requests);
        seen_free(&seen);
        test_close();
    }
}

/* ---- the client leaves ---- */

static void a_client_that_leaves_ends_the_engines_work_at_once(void **state) {
    (void)state;
    const struct { Answer prefill, decode; int stage; bool stream; const char *log; } cases[] = {
        {ANSWER_HOLD, ANSWER_HOLD, 0, false, "\"failed_stage\":\"prefill\""},
        {ANSWER_HOLD, ANSWER_HOLD, 0, true, "\"failed_stage\":\"prefill\""},
        {ANSWER_JSON, ANSWER_HOLD, 1, false, "\"failed_stage\":\"decode\""},
        {ANSWER_JSON, ANSWER_HOLD, 1, true, "\"failed_stage\":\"decode\""},
        {ANSWER_JSON, ANSWER_HEAD, 1, true, "\"failed_stage\":\"decode\""},
        {ANSWER_JSON, ANSWER_OPEN, 1, true, "\"failed_stage\":\"streaming\""},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        test_open();
        engine_open(0, cases[i].prefill, PREFILL_REPLY);
        engine_open(1, cases[i].decode, NULL);
        router_start((RouterConf){.access_log = ROUTE_LOG_JSON}, 1, 2);
        TestEngine *engine = &t.engines[cases[i].stage];
        Seen seen;
        send_to(&seen, "POST", CHAT, cases[i].stream ? STREAM : ASK "}", (HttpHeaders){0});
        WAIT_FOR(engine->requests == 1);
        if (cases[i].decode == ANSWER_OPEN) WAIT_FOR(seen.pieces > 0);
        int64_t left_us = clock_mono_us();
        http_call_cancel(seen.call);
        WAIT_FOR(engine->gone == 1);
        assert_true(engine->gone_us - left_us < 10000);
        assert_int_equal(t.router->exchange_count, 0);
        auto_free char *log = log_text();
        assert_in(log, "\"status_code\":499,\"error\":{\"type\":\"client_gone\",");
        assert_in(log, cases[i].log);
        const RouteTable *table = route_store_table(t.router->store);
        for (size_t k = 0; k < table->pod_count; k++) {
            assert_int_equal(route_pod_load(table->pods[k]), 0);
            assert_int_equal(table->pods[k]->failures, 0); /* no pod is to blame */
        }
        seen_free(&seen);
        test_close();
    }
}

static void a_client_may_leave_between_two_attempts(void **state) {
    (void)state;
    test_open();
    for (size_t i = 0; i < 2; i++) engine_open(i, ANSWER_CLOSE, NULL);
    router_start((RouterConf){0}, 0, 2);
    static const char server[] =
        "{apiVersion: " ROUTE_API
        ", kind: ModelServer, metadata: {name: m}, spec: {inferenceEngine: vLLM, "
        "workloadPort: {port: 1}, trafficPolicy: {retry: {attempts: 2, retryInterval: 5s}}, "
        "workloadSelector: "
        "{matchLabels: {baton.dev/model: m}}}}";
    Err err = {0};
    json_t *documents = yaml_parse(str_of(server), &err);
    assert_true(route_store_apply(t.router->store, json_array_get(documents, 0), &err));
    route_store_publish(t.router->store);
    json_decref(documents);
    Seen seen;
    send_to(&seen, "POST", CHAT, ASK "}", (HttpHeaders){0});
    WAIT_FOR(t.router->exchanges && t.router->exchanges->state == EX_WAITING);
    http_call_cancel(seen.call);
    WAIT_FOR(t.router->exchange_count == 0);
    assert_int_equal(requests_of(0, 2), 1);
    seen_free(&seen);
    test_close();
}

static void the_router_may_close_with_requests_at_every_stage(void **state) {
    (void)state;
    const struct { Answer prefill, decode; } cases[] = {
        {ANSWER_HOLD, ANSWER_HOLD}, {ANSWER_JSON, ANSWER_HOLD}, {ANSWER_JSON, ANSWER_OPEN}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        test_open();
        engine_open(0, cases[i].prefill, PREFILL_REPLY);
        engine_open(1, cases[i].decode, NULL);
        router_start((RouterConf){0}, 1, 2);
        Seen seen[4];
        for (int k = 0; k < 4; k++) send_to(&seen[k], "POST", CHAT, STREAM, (HttpHeaders){0});
        WAIT_FOR(requests_of(cases[i].prefill == ANSWER_JSON, 2) == 4);
        router_close(t.router);
        t.router = NULL;
        for (int k = 0; k < 4; k++) {
            WAIT_FOR(seen[k].ended);
            assert_true(seen[k].failed);
            seen_free(&seen[k]);
        }
        test_close();
    }
}

/* ---- all of it at once ---- */

static uint64_t dice_state = 88172645463325252u;
static uint64_t dice(uint64_t sides) {
    dice_state ^= dice_state << 13, dice_state ^= dice_state >> 7, dice_state ^= dice_state << 17;
    return dice_state % sides;
}

static void shuffle_engines(void) {
    static const Answer answers[] = {ANSWER_JSON, ANSWER_STREAM, ANSWER_STREAM, ANSWER_CLOSE,
                                     ANSWER_HEAD, ANSWER_BREAK,  ANSWER_OPEN,   ANSWER_HOLD};
    static const int statuses[] = {200, 200, 200, 400, 500, 503};
    for (size_t i = 0; i < 6; i++) {
        TestEngine *engine = &t.engines[i];
        engine->answer = i < 3 && dice(2) ? ANSWER_JSON : answers[dice(COUNT_OF(answers))];
        engine->status = statuses[dice(COUNT_OF(statuses))];
        engine->body = i < 3 ? PREFILL_REPLY : DECODE_REPLY;
    }
    engine_break(&t.engines[dice(6)]);
}

/* A stream says [DONE] once and nothing behind it; anything else is one JSON object. */
static void assert_one_answer(const Seen *seen) {
    Err err = {0};
    if (seen->failed) return; /* the router may not have been asked at all */
    if (strstr(head_of(seen, "content-type"), "event-stream")) {
        assert_int_equal(count_of(seen->body.at, "[DONE]"), 1);
        assert_string_equal(seen->body.at + seen->body.length - (sizeof DONE_EVENT - 1),
                            DONE_EVENT);
        return;
    }
    auto_json json_t *tree = json_parse((Str){seen->body.at, seen->body.length}, &err);
    assert_non_null(tree);
}

static void whatever_happens_each_client_gets_one_answer_and_all_counts_return(void **state) {
    (void)state;
    enum { CLIENTS = 24, ROUNDS = 25 };
    static Seen seen[CLIENTS];
    auto_buf Buf large = {0};
    buf_str(&large, ASK ",\"stream\":true,\"x\":\"");
    for (size_t i = 0; i < 300000; i++) buf_char(&large, 'x');
    buf_str(&large, "\"}");
    test_open();
    for (size_t i = 0; i < 6; i++) engine_open(i, ANSWER_JSON, PREFILL_REPLY);
    router_start(
        (RouterConf){
            .prefill_ms = 40, .first_byte_ms = 40, .idle_ms = 40, .access_log = ROUTE_LOG_JSON},
        3, 6);
    for (int round = 0; round < ROUNDS; round++) {
        const char *const bodies[] = {STREAM, ASK "}", large.at};
        shuffle_engines();
        for (int i = 0; i < CLIENTS; i++)
            send_to(&seen[i], "POST", CHAT, bodies[dice(3)], (HttpHeaders){0});
        for (int step = 0; step < 6; step++) {
            Seen *leaves = &seen[dice(CLIENTS)];
            loop_run_for(t.loop, dice(5));
            if (leaves->call && dice(2)) {
                http_call_cancel(leaves->call);
                leaves->call = NULL;
                leaves->ended = leaves->failed = true;
            }
            if (dice(4) == 0) shuffle_engines();
        }
        for (int i = 0; i < CLIENTS; i++) {
            WAIT_FOR(seen[i].ended);
            assert_one_answer(&seen[i]);
            seen_free(&seen[i]);
        }
    }
    WAIT_FOR(t.router->exchange_count == 0);
    const RouteTable *table = route_store_table(t.router->store);
    for (size_t k = 0; k < table->pod_count; k++)
        assert_int_equal(route_pod_load(table->pods[k]), 0);
    Seen metrics;
    send_to(&metrics, "GET", "/metrics", "", (HttpHeaders){0});
    WAIT_FOR(metrics.ended);
    assert_in(metrics.body.at, "kthena_router_active_requests 0.0\n");
    assert_in(metrics.body.at, "kthena_router_active_downstream_requests{model=\"m\"} 0.0\n");
    const char *active = strstr(metrics.body.at, "kthena_router_active_upstream_requests{");
    assert_non_null(active);
    assert_memory_equal(strchr(active, '}'), "} 0.0\n", 6);
    seen_free(&metrics);
    test_close();
}

int main(void) {
    log_set_level(LOG_OFF);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failure_names_stage_peer_and_cause),
        cmocka_unit_test(a_prefill_reply_must_hand_something_over),
        cmocka_unit_test(an_engines_own_refusal_is_passed_on),
        cmocka_unit_test(another_pair_makes_up_for_a_failed_one),
        cmocka_unit_test(the_last_attempt_prefills_if_prefill_works),
        cmocka_unit_test(three_attempts_are_the_most),
        cmocka_unit_test(without_prefill_the_decode_pod_computes_and_says_so),
        cmocka_unit_test(a_group_without_a_ready_prefill_pod_decodes_alone),
        cmocka_unit_test(several_prompts_cannot_be_handed_over),
        cmocka_unit_test(what_decode_calls_degraded_is_passed_on_or_refused),
        cmocka_unit_test(aggregated_engines_are_tried_one_after_the_other),
        cmocka_unit_test(a_stream_that_breaks_is_never_answered_twice),
        cmocka_unit_test(a_stream_that_breaks_before_its_first_event_is_begun_again),
        cmocka_unit_test(a_stream_that_falls_silent_ends),
        cmocka_unit_test(how_a_connection_ends_after_done_does_not_matter),
        cmocka_unit_test(policies_of_the_model_server_limit_and_space_attempts),
        cmocka_unit_test(a_client_that_leaves_ends_the_engines_work_at_once),
        cmocka_unit_test(a_client_may_leave_between_two_attempts),
        cmocka_unit_test(the_router_may_close_with_requests_at_every_stage),
        cmocka_unit_test(whatever_happens_each_client_gets_one_answer_and_all_counts_return),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
