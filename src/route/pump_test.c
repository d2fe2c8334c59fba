// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include "pump.h"
#include <cmocka.h>

#define TEXT(text) "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"" text "\"}}]}\n\n"
#define USAGE "\"usage\":{\"prompt_tokens\":10,\"total_tokens\":12,\"completion_tokens\":2}"
#define DONE "data: [DONE]\n\n"

static void put_trace(Buf *out, void *user) { buf_str(out, user); }

typedef struct Case {
    const char *in, *out;
    bool hide;
    int64_t completion; /* -1: no usage was told */
    bool ended, failed;
    const char *trace;
} Case;

static const Case cases[] = {
    {TEXT("a") TEXT("b") DONE, TEXT("a") TEXT("b") DONE, true, -1, true, false, NULL},
    /* the usage chunk that only the router asked for */
    {TEXT("a") "data: {\"choices\":[]," USAGE "}\n\n" DONE, TEXT("a") DONE, true, 2, true, false,
     NULL},
    {TEXT("a") "data: {" USAGE "}\n\n" DONE, TEXT("a") DONE, true, 2, true, false, NULL},
    {"data: {\"choices\":[]," USAGE "}\n\n" DONE, "data: {\"choices\":[]," USAGE "}\n\n" DONE,
     false, 2, true, false, NULL},
    /* usage that comes with text goes on, whoever asked */
    {"data: {\"choices\":[{\"finish_reason\":\"stop\"}]," USAGE "}\n\n",
     "data: {\"choices\":[{\"finish_reason\":\"stop\"}]," USAGE "}\n\n", true, 2, false, false,
     NULL},
    {"data: {\"choices\":[{}],\"usage\":null}\n\n", "data: {\"choices\":[{}],\"usage\":null}\n\n",
     true, -1, false, false, NULL},
    /* usage in every chunk is a running total: the last one counts */
    {"data: {\"choices\":[{}],\"usage\":{\"completion_tokens\":1}}\n\n"
     "data: {\"choices\":[{}],\"usage\":{\"completion_tokens\":2}}\n\n",
     "data: {\"choices\":[{}],\"usage\":{\"completion_tokens\":1}}\n\n"
     "data: {\"choices\":[{}],\"usage\":{\"completion_tokens\":2}}\n\n",
     true, 2, false, false, NULL},
    /* what engines tell each other */
    {"data: {\"id\":1,\"kv_transfer_params\":{\"x\":1},\"choices\":[]}\n\n" DONE,
     "data: {\"id\":1,\"kv_transfer_params\":null,\"choices\":[]}\n\n" DONE, false, -1, true, false,
     NULL},
    {TEXT("kv_transfer_params\\\" \\\"usage\\\""), TEXT("kv_transfer_params\\\" \\\"usage\\\""),
     true, -1, false, false, NULL},
    {"data: {\"error\":{\"message\":\"no\"}}\n\n" DONE,
     "data: {\"error\":{\"message\":\"no\"}}\n\n" DONE, true, -1, true, true, NULL},
    {"data: {\"choices\":[{}],\"error\":null}\n\n", "data: {\"choices\":[{}],\"error\":null}\n\n",
     true, -1, false, false, NULL},
    /* other ways to write events */
    {"data: x\r\n\r\ndata:[DONE]\r\n\r\n", "data: x\r\n\r\ndata:[DONE]\r\n\r\n", true, -1, true,
     false, NULL},
    {"event: x\ndata: {" USAGE "}\n\n", "", true, 2, false, false, NULL},
    {": ping\n\n\n\nid: 7\ndata: a\ndata: b\n\n", ": ping\n\n\n\nid: 7\ndata: a\ndata: b\n\n", true,
     -1, false, false, NULL},
    {"data: {\"usage\": broken\n\n", "data: {\"usage\": broken\n\n", true, -1, false, false, NULL},
    /* the end without its blank line */
    {TEXT("a") "data: cut", TEXT("a") "data: cut", true, -1, false, false, NULL},
    /* the trace comes right before the end, once */
    {TEXT("a") DONE DONE, TEXT("a") ": trace\n\n" DONE DONE, true, -1, true, false, ": trace\n\n"},
};

static void check(const Case *c, size_t cut, size_t step) {
    RoutePump pump = {0};
    auto_buf Buf out = {0};
    size_t length = strlen(c->in);
    route_pump_init(&pump, c->hide);
    pump.before_done = c->trace ? put_trace : NULL;
    pump.user = (void *)c->trace;
    for (size_t at = 0, n = cut; at < length; at += n, n = step) {
        if (n > length - at || n == 0) n = length - at;
        assert_true(route_pump_feed(&pump, (Str){c->in + at, n}));
        buf_append(&out, pump.out.at, pump.out.length);
        buf_clear(&pump.out);
    }
    route_pump_finish(&pump);
    buf_append(&out, pump.out.at, pump.out.length);
    assert_string_equal(out.at, c->out);
    assert_int_equal(pump.usage.completion, c->completion);
    assert_int_equal(pump.ended, c->ended);
    assert_int_equal(pump.failed, c->failed);
    route_pump_done(&pump);
}

static void events_go_on_as_they_came_wherever_they_are_cut(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        check(&cases[i], 0, 0);
        check(&cases[i], 1, 1);
        check(&cases[i], 1, 3);
        for (size_t cut = 1; cut < strlen(cases[i].in); cut++) check(&cases[i], cut, 0);
    }
}

static void a_stream_that_breaks_ends_with_an_error_and_done(void **state) {
    (void)state;
    RoutePump pump = {0};
    route_pump_init(&pump, true);
    assert_true(route_pump_feed(&pump, STR(TEXT("a") "data: {\"half\":")));
    route_pump_fail(&pump, STR("{\"error\":{}}"));
    assert_string_equal(pump.out.at, TEXT("a") "data: {\"error\":{}}\n\n" DONE);
    assert_true(pump.failed);
    route_pump_done(&pump);
}

static void an_event_over_the_limit_is_refused(void **state) {
    (void)state;
    RoutePump pump = {0};
    auto_buf Buf bytes = {0};
    route_pump_init(&pump, true);
    for (size_t i = 0; i < 100000; i++) buf_char(&bytes, 'x');
    bool ok = true;
    size_t fed = 0;
    while (ok && fed < 2 * LIMIT_ROUTE_EVENT) {
        ok = route_pump_feed(&pump, (Str){bytes.at, bytes.length});
        fed += bytes.length;
    }
    assert_false(ok);
    assert_in_range(fed, LIMIT_ROUTE_EVENT, LIMIT_ROUTE_EVENT + 2 * bytes.length);
    route_pump_done(&pump);
}

/* What a real engine sent for eight tokens, with and without the usage chunk. */
static void a_recorded_stream_loses_its_usage_chunk_and_nothing_else(void **state) {
    (void)state;
    size_t length;
    Err err = {0};
    auto_free char *text = file_read("test/data/route/vllm-pair.json", MIB, &length, &err);
    assert_non_null(text);
    auto_json json_t *pair = json_parse((Str){text, length}, &err);
    assert_non_null(pair);
    Str reply =
        str_of(json_string_value(json_object_get(json_object_get(pair, "stream"), "reply")));
    for (int hide = 0; hide < 2; hide++) {
        RoutePump pump = {0};
        route_pump_init(&pump, hide);
        assert_true(route_pump_feed(&pump, reply));
        const char *usage =
            strstr(reply.at, "data: {\"id\":\"chatcmpl-961701e49dd34f5a\",\"object\":"
                             "\"chat.completion.chunk\",\"created\":1795479832,\"model\":"
                             "\"smollm2\",\"choices\":[],");
        assert_non_null(usage);
        size_t dropped = hide ? (size_t)(strstr(usage, "\n\n") + 2 - usage) : 0;
        assert_int_equal(pump.out.length, reply.length - dropped);
        assert_memory_equal(pump.out.at, reply.at, (size_t)(usage - reply.at));
        assert_string_equal(pump.out.at + (usage - reply.at), usage + dropped);
        assert_int_equal(pump.usage.prompt, 54);
        assert_int_equal(pump.usage.completion, 8);
        assert_true(pump.ended);
        route_pump_done(&pump);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_go_on_as_they_came_wherever_they_are_cut),
        cmocka_unit_test(a_stream_that_breaks_ends_with_an_error_and_done),
        cmocka_unit_test(an_event_over_the_limit_is_refused),
        cmocka_unit_test(a_recorded_stream_loses_its_usage_chunk_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
