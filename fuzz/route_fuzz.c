// SPDX-License-Identifier: Apache-2.0
/* route_fuzz.c - request bodies as a router edits them: whatever is let in stays JSON and says what
 * engines must be told; streams of events give the same bytes wherever they are cut. */
#include <stdlib.h>

#include "route/pump.h"

static void must(bool ok) {
    if (!ok) abort();
}

static json_t *tree_of(const BodyParts *parts) {
    auto_buf Buf text = {0};
    Err err;
    route_parts_join(parts, &text);
    json_t *tree = json_parse((Str){text.at, text.length}, &err);
    must(json_is_object(tree));
    return tree;
}

static bool is_text(const json_t *tree, const char *key, const char *want) {
    const char *text = json_string_value(json_object_get(tree, key));
    return text && !strcmp(text, want);
}

static void edit(Str text) {
    Arena arena = {0};
    Err err;
    RouteRequest *request = mem_new(sizeof *request);
    if (route_request_read(request, text, &arena, &err)) {
        BodyParts parts;
        auto_buf Buf prompt = {0};
        route_request_prompt(request, &prompt);
        route_request_prefill(request, STR("\"other\""), true, &parts);
        auto_json json_t *prefill = tree_of(&parts);
        must(is_text(prefill, "model", "other"));
        must(!json_object_get(prefill, "stream") && !json_object_get(prefill, "stream_options"));
        must(json_object_get(prefill, "max_tokens") != NULL);
        must(json_is_true(
            json_object_get(json_object_get(prefill, "kv_transfer_params"), "do_remote_decode")));
        bool hidden =
            route_request_decode(request, STR("\"other\""), STR("{\"x\":1}"), &arena, &parts);
        auto_json json_t *decode = tree_of(&parts);
        must(is_text(decode, "model", "other"));
        must(json_integer_value(
                 json_object_get(json_object_get(decode, "kv_transfer_params"), "x")) == 1);
        must(!hidden || json_is_true(json_object_get(json_object_get(decode, "stream_options"),
                                                     "include_usage")));
    }
    free(request);
    arena_done(&arena);
}

static void pass_on(Str bytes, size_t cut, Buf *out) {
    RoutePump pump = {0};
    route_pump_init(&pump, true);
    must(route_pump_feed(&pump, (Str){bytes.at, cut}));
    must(route_pump_feed(&pump, (Str){bytes.at + cut, bytes.length - cut}));
    route_pump_finish(&pump);
    buf_append(out, pump.out.at, pump.out.length);
    route_pump_done(&pump);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Str text = {(const char *)data, size};
    if (!size || size > 65536) return 0;
    edit(text);
    auto_buf Buf whole = {0}, cut = {0};
    pass_on(text, size, &whole);
    pass_on(text, data[0] % size, &cut);
    must(whole.length == cut.length && (!whole.length || !memcmp(whole.at, cut.at, cut.length)));
    return 0;
}
