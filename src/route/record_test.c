// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include "metrics.h"
#include <cmocka.h>

static void stages_are_read_from_the_engines_header(void **state) {
    (void)state;
    RouteStages stages;
    route_stages_read(
        STR("computed=3; cached=16; pulled=35; bytes=1179648; rail=shm; queue_us=4; prefill_us=5; "
            "transfer_us=600; first_token_us=7000"),
        &stages);
    assert_true(stages.told);
    assert_int_equal(stages.computed, 3);
    assert_int_equal(stages.cached, 16);
    assert_int_equal(stages.pulled, 35);
    assert_int_equal(stages.bytes, 1179648);
    assert_string_equal(stages.rail, "shm");
    assert_int_equal(stages.queue_us, 4);
    assert_int_equal(stages.prefill_us, 5);
    assert_int_equal(stages.transfer_us, 600);
    assert_int_equal(stages.first_token_us, 7000);
    const char *const odd[] = {"", "computed", "rail=\r\nx; bytes=-1",
                               "bytes=99999999999999999999; rail=ucx;;=;"};
    for (size_t i = 0; i < COUNT_OF(odd); i++) {
        route_stages_read(str_of(odd[i]), &stages);
        assert_int_equal(stages.told, *odd[i] != 0);
        assert_int_equal(stages.computed + stages.bytes, 0);
        assert_string_equal(stages.rail, "none");
    }
    route_stages_read((Str){NULL, 0}, &stages);
    assert_false(stages.told);
}

static RouteRecord whole_record(void) {
    return (RouteRecord){.id = "abc-1",
                         .method = STR("POST"),
                         .path = STR("/v1/chat/completions"),
                         .model = STR("smollm2"),
                         .client = STR("127.0.0.1:5000"),
                         .route = "default/r",
                         .server = "default/s",
                         .upstream_model = "org/s",
                         .prefill = "p-0",
                         .decode = "d-0",
                         .status = 200,
                         .upstream_status = 200,
                         .attempts = 1,
                         .finish = "successful_request",
                         .stream = true,
                         .usage = {54, 18},
                         .prefill_tokens = 38,
                         .stages = {.told = true,
                                    .computed = 3,
                                    .cached = 16,
                                    .pulled = 35,
                                    .bytes = 1000,
                                    .rail = "shm",
                                    .transfer_us = 600,
                                    .first_token_us = 7000},
                         .wall_us = 1764036000000000,
                         .began_us = 1000000,
                         .called_us = 1045000,
                         .prefill_began_us = 1045000,
                         .prefill_ended_us = 1500000,
                         .decode_began_us = 1500100,
                         .first_us = 2000000,
                         .decode_ended_us = 3225000,
                         .ended_us = 3230000};
}

static void a_trace_says_where_tokens_were_computed_and_when(void **state) {
    (void)state;
    RouteRecord whole = whole_record(), bare = {.id = "x", .usage = {-1, -1}},
                piece = whole_record();
    piece.stream = false; /* the decode pod knows better when its first token was there */
    const struct { const RouteRecord *record; bool whole; const char *want;
    } cases[] = {
        {&whole, false,
         "id=abc-1; prefill=p-0/38; decode=d-0; computed=3; cached=16; pulled=35; bytes=1000; "
         "rail=shm; "
         "route_us=45000; prefill_us=455000; transfer_us=600; first_token_us=1000000"},
        {&whole, true,
         "id=abc-1; prefill=p-0/38; decode=d-0; computed=3; cached=16; pulled=35; bytes=1000; "
         "rail=shm; "
         "route_us=45000; prefill_us=455000; transfer_us=600; first_token_us=1000000; "
         "decode_us=1225000; tokens=18"},
        {&piece, false,
         "id=abc-1; prefill=p-0/38; decode=d-0; computed=3; cached=16; pulled=35; bytes=1000; "
         "rail=shm; "
         "route_us=45000; prefill_us=455000; transfer_us=600; first_token_us=507100"},
        {&bare, true,
         "id=x; prefill=none/0; decode=none; computed=0; cached=0; pulled=0; bytes=0; rail=none; "
         "route_us=0; "
         "prefill_us=0; transfer_us=0; first_token_us=0; decode_us=0; tokens=0"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        auto_buf Buf out = {0};
        route_trace_put(cases[i].record, cases[i].whole, &out);
        assert_string_equal(out.at, cases[i].want);
    }
}

static void the_access_log_has_known_keys_in_order(void **state) {
    (void)state;
    RouteRecord whole = whole_record();
    RouteRecord bad = {.id = "x",
                       .method = STR("POST"),
                       .path = STR("/v1/completions"),
                       .model = STR(""),
                       .client = STR("[::1]:9"),
                       .status = 502,
                       .attempts = 2,
                       .usage = {-1, -1},
                       .error_type = "proxy",
                       .error = "decode on \"d\" failed",
                       .stage = "decode",
                       .wall_us = 1764036000000000,
                       .began_us = 5000,
                       .ended_us = 8000};
    const struct { const RouteRecord *record; RouteLogFormat format; const char *want;
    } cases[] = {
        {&whole, ROUTE_LOG_JSON,
         "{\"timestamp\":\"2025-11-25T02:00:00.000000Z\",\"method\":\"POST\",\"path\":\"/v1/chat/"
         "completions\","
         "\"protocol\":\"HTTP/"
         "1.1\",\"status_code\":200,\"model_name\":\"smollm2\",\"model_route\":\"default/r\","
         "\"model_server\":\"default/s\",\"selected_pod\":\"d-0\",\"request_id\":\"abc-1\","
         "\"backend_type\":\"model_server\",\"backend_name\":\"default/"
         "s\",\"upstream_model\":\"org/s\","
         "\"upstream_status_code\":200,\"upstream_attempts\":1,\"input_tokens\":54,\"output_"
         "tokens\":18,"
         "\"duration_total\":2230,\"duration_request_processing\":45,\"duration_upstream_"
         "processing\":2180,"
         "\"duration_response_processing\":5,\"client\":\"127.0.0.1:5000\",\"prefill_pod\":\"p-0\","
         "\"prefill_tokens\":38,\"decode_pod\":\"d-0\",\"computed_tokens\":3,\"cached_tokens\":16,"
         "\"pulled_tokens\":35,\"transfer_bytes\":1000,\"rail\":\"shm\",\"route_us\":45000,"
         "\"prefill_us\":455000,"
         "\"transfer_us\":600,\"first_token_us\":1000000,\"decode_us\":1225000}\n"},
        {&whole, ROUTE_LOG_TEXT,
         "[2025-11-25T02:00:00.000000Z] \"POST /v1/chat/completions HTTP/1.1\" 200 "
         "model_name=smollm2 "
         "model_route=default/r model_server=default/s selected_pod=d-0 request_id=abc-1 "
         "backend_type=model_server "
         "backend_name=default/s upstream_model=org/s upstream_status_code=200 upstream_attempts=1 "
         "tokens=54/18 "
         "timings=2230ms(45+2180+5) client=127.0.0.1:5000 prefill_pod=p-0 prefill_tokens=38 "
         "decode_pod=d-0 "
         "computed_tokens=3 cached_tokens=16 pulled_tokens=35 transfer_bytes=1000 rail=shm "
         "route_us=45000 "
         "prefill_us=455000 transfer_us=600 first_token_us=1000000 decode_us=1225000\n"},
        {&bad, ROUTE_LOG_JSON,
         "{\"timestamp\":\"2025-11-25T02:00:00.000000Z\",\"method\":\"POST\",\"path\":\"/v1/"
         "completions\","
         "\"protocol\":\"HTTP/"
         "1.1\",\"status_code\":502,\"error\":{\"type\":\"proxy\",\"message\":\"decode on "
         "\\\"d\\\" "
         "failed\"},\"model_name\":\"\",\"request_id\":\"x\",\"upstream_attempts\":2,\"duration_"
         "total\":3,"
         "\"duration_request_processing\":3,\"duration_upstream_processing\":0,\"duration_response_"
         "processing\":0,"
         "\"client\":\"[::1]:9\",\"failed_stage\":\"decode\"}\n"},
        {&bad, ROUTE_LOG_TEXT,
         "[2025-11-25T02:00:00.000000Z] \"POST /v1/completions HTTP/1.1\" 502 error=proxy:decode "
         "on \"d\" failed "
         "request_id=x upstream_attempts=2 timings=3ms(3+0+0) client=[::1]:9 "
         "failed_stage=decode\n"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        auto_buf Buf out = {0};
        route_log_put(cases[i].record, cases[i].format, &out);
        assert_string_equal(out.at, cases[i].want);
        if (cases[i].format != ROUTE_LOG_JSON) continue;
        Err err = {0};
        json_t *tree = json_parse((Str){out.at, out.length}, &err);
        assert_non_null(tree);
        json_decref(tree);
    }
    auto_buf Buf out = {0};
    route_log_put(&whole, ROUTE_LOG_OFF, &out);
    assert_int_equal(out.length, 0);
}

/* A model's name is the client's: it must not look like a line or a field of ours. */
static void a_line_of_the_log_cannot_be_forged(void **state) {
    (void)state;
    RouteRecord record = whole_record();
    record.model = STR("x\n[now] \"POST /\" 200 model_name=y");
    auto_buf Buf out = {0};
    route_log_put(&record, ROUTE_LOG_TEXT, &out);
    assert_non_null(strstr(out.at, " model_name=x_[now]_\"POST_/\"_200_model_name=y model_route="));
    assert_ptr_equal(strchr(out.at, '\n'), out.at + out.length - 1);
}

static void assert_line(const char *text, const char *line) {
    auto_buf Buf whole = {0};
    buf_printf(&whole, "\n%s\n", line);
    if (!strstr(text, whole.at)) fail_msg("no line '%s' in\n%s", line, text);
}

static void metrics_have_the_names_that_dashboards_know(void **state) {
    (void)state;
    RouteMetrics *metrics = route_metrics_new();
    RouteStore *store = route_store_new();
    RouteRecord record = whole_record(), stranger = whole_record();
    stranger.model = STR("never-heard-of");
    stranger.route = stranger.server = stranger.upstream_model = NULL;
    stranger.status = 404;
    stranger.finish = "route_not_found";
    stranger.usage = (RouteUsage){-1, -1};
    for (int i = 0; i < 2; i++) {
        route_metrics_begin(metrics);
        route_metrics_upstream(metrics, &record, 1);
        route_metrics_call(metrics, &record, true, 200, 20000);
        route_metrics_end(metrics, &record, true);
    }
    route_metrics_begin(metrics);
    route_metrics_begin(metrics);
    route_metrics_end(metrics, &stranger, false);
    route_metrics_upstream(metrics, &record, -1);
    route_metrics_downstream(metrics, "smollm2", 1);
    route_metrics_retry(metrics, "decode", "unavailable");
    route_metrics_degraded(metrics, "no_prefill");
    route_metrics_gone(metrics, "streaming");
    route_metrics_prefix(metrics, "smollm2", 0);
    auto_buf Buf out = {0};
    route_metrics_write(metrics, store, 3, &out);
    const char *const lines[] = {
        "# TYPE kthena_router_requests_total counter",
        "kthena_router_requests_total{model=\"smollm2\",path=\"/v1/chat/"
        "completions\",status_code=\"200\","
        "error_type=\"successful_request\",model_route=\"default/r\",backend_type=\"model_server\","
        "backend_name=\"default/s\",upstream_model=\"org/s\"} 2.0",
        "kthena_router_requests_total{model=\"unknown\",path=\"/v1/chat/"
        "completions\",status_code=\"404\","
        "error_type=\"route_not_found\",model_route=\"none\",backend_type=\"unresolved\",backend_"
        "name=\"none\","
        "upstream_model=\"none\"} 1.0",
        "kthena_router_request_prefill_duration_seconds_bucket{model=\"smollm2\",path=\"/v1/chat/"
        "completions\","
        "status_code=\"200\",le=\"0.025\"} 2.0",
        "kthena_router_tokens_total{model=\"smollm2\",path=\"/v1/chat/"
        "completions\",token_type=\"output\","
        "model_route=\"default/r\",backend_type=\"model_server\",backend_name=\"default/"
        "s\",upstream_model=\"org/s\"} "
        "36.0",
        "kthena_router_active_requests 1.0",
        "kthena_router_active_downstream_requests{model=\"smollm2\"} 1.0",
        "kthena_router_active_upstream_requests{model_server=\"default/s\",model_route=\"default/"
        "r\","
        "backend_type=\"model_server\",backend_name=\"default/s\",upstream_model=\"org/s\"} 1.0",
        "kthena_router_prefix_cache_match_ratio_bucket{model=\"smollm2\",le=\"0.0\"} 1.0",
        "baton_router_stage_seconds_count{model=\"smollm2\",stage=\"prefill\"} 2.0",
        "baton_router_transfer_bytes_total{model=\"smollm2\",rail=\"shm\"} 2000.0",
        "baton_router_retries_total{stage=\"decode\",cause=\"unavailable\"} 1.0",
        "baton_router_degraded_total{cause=\"no_prefill\"} 1.0",
        "baton_router_client_gone_total{stage=\"streaming\"} 1.0",
        "baton_router_object_failures_total 3.0",
        "baton_router_ignored_fields_total{field=\"rateLimit\"} 0.0",
    };
    for (size_t i = 0; i < COUNT_OF(lines); i++) assert_line(out.at, lines[i]);
    assert_null(strstr(out.at, "never-heard-of"));
    route_metrics_free(metrics);
    route_store_free(store);
}

int main(void) {
    log_set_level(LOG_OFF);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stages_are_read_from_the_engines_header),
        cmocka_unit_test(a_trace_says_where_tokens_were_computed_and_when),
        cmocka_unit_test(the_access_log_has_known_keys_in_order),
        cmocka_unit_test(a_line_of_the_log_cannot_be_forged),
        cmocka_unit_test(metrics_have_the_names_that_dashboards_know),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
