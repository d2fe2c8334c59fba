// SPDX-License-Identifier: Apache-2.0
/* kv_transfer_params: what a router asks of a prefill engine, what that answers, and what a decode
 * engine is given. */
#include "internal.h"

#include <stdio.h>

typedef struct Key { const char *name; char kind; /* b, s, i, l */
} Key;

static const Key keys[] = {{"do_remote_prefill", 'b'},  {"do_remote_decode", 'b'},
                           {"remote_block_ids", 'l'},   {"remote_engine_id", 's'},
                           {"remote_request_id", 's'},  {"remote_host", 's'},
                           {"remote_port", 'i'}};

static bool has_kind(const json_t *value, char kind) {
    switch (kind) {
    case 'b': return json_is_boolean(value);
    case 's': return json_is_string(value);
    case 'i': return json_is_integer(value);
    default: return json_is_array(value);
    }
}

static bool check_types(const json_t *given, Problem *problem) {
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        const json_t *value = json_object_get(given, keys[i].name);
        if (!value || json_is_null(value) || has_kind(value, keys[i].kind)) continue;
        auto_buf Buf text = {0};
        buf_json_tree(&text, value);
        return problem_set(problem, "kv_transfer_params",
                           "kv_transfer_params.%s must be %s, got %.64s", keys[i].name,
                           keys[i].kind == 'b'   ? "true or false"
                           : keys[i].kind == 's' ? "a string"
                           : keys[i].kind == 'i' ? "an integer"
                                                 : "a list",
                           text.at);
    }
    return true;
}

/* What was asked for is not done, and why: a header of the reply, or with --strict the reply. */
static bool degrade(Serve *serve, KvAsk *out, DegradedHere cause, const char *what, const char *why,
                    const char *instead, Problem *problem) {
    counter_add(&serve->stats.degraded[cause], 1);
    if (serve->conf->strict)
        return problem_set(problem, "kv_transfer_params", "%s is not possible: %s", what, why);
    snprintf(out->degraded, sizeof out->degraded, "%s is not possible: %s; %s", what, why, instead);
    return true;
}

static bool read_offer(Serve *serve, const Ask *ask, KvAsk *out, Problem *problem) {
    static const char *const what = "do_remote_decode", *const instead = "no KV is offered";
    if (!serve->conf->connector)
        return degrade(serve, out, DEGRADED_NO_CONNECTOR, what,
                       "this engine has no --kv-transfer-config", instead, problem);
    if (serve->conf->role == ROLE_CONSUMER)
        return degrade(serve, out, DEGRADED_ROLE, what, "the kv_role of this engine is kv_consumer",
                       instead, problem);
    if (ask_prompt_count(ask) > 1 || ask->n.value > 1)
        return problem_set(
            problem, "kv_transfer_params",
            "do_remote_decode offers the KV of one prompt for one answer, but %zu prompts "
            "and n=%lld were sent: send a single prompt with n=1",
            ask_prompt_count(ask), (long long)(ask->n.given ? ask->n.value : 1));
    if (ask_is(ask->stream, false))
        return degrade(serve, out, DEGRADED_STREAM, what, "a stream carries no kv_transfer_params",
                       instead, problem);
    out->hand_over = HAND_OFFER;
    return true;
}

static bool check_pull(const json_t *given, KvAsk *out, Problem *problem) {
    auto_buf Buf missing = {0};
    for (size_t i = 2; i < COUNT_OF(keys); i++) {
        const json_t *value = json_object_get(given, keys[i].name);
        if (!value || json_is_null(value))
            buf_printf(&missing, "%s%s", missing.length ? ", " : "", keys[i].name);
    }
    if (missing.length)
        return problem_set(problem, "kv_transfer_params",
                           "kv_transfer_params with do_remote_prefill lacks %s: pass on what the "
                           "prefill engine has answered", missing.at);
    json_int_t port = json_integer_value(json_object_get(given, "remote_port"));
    if (port < 1 || port > 65535)
        return problem_set(problem, "kv_transfer_params",
                           "kv_transfer_params.remote_port must be from 1 to 65535, got %lld",
                           (long long)port);
    static const struct { const char *name; size_t room;
    } texts[] = {{"remote_engine_id", sizeof((EngineRequest *)0)->peer_engine},
                 {"remote_request_id", sizeof((EngineRequest *)0)->peer_request},
                 {"remote_host", sizeof((EngineRequest *)0)->peer_host}};
    const char **fields[] = {&out->peer_engine, &out->peer_request, &out->peer_host};
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        const json_t *value = json_object_get(given, texts[i].name);
        size_t length = json_string_length(value);
        *fields[i] = json_string_value(value);
        if (length && length < texts[i].room && strlen(*fields[i]) == length) continue;
        return problem_set(problem, "kv_transfer_params",
                           "kv_transfer_params.%s has %zu bytes, 1 to %zu are possible",
                           texts[i].name, length, texts[i].room - 1);
    }
    out->peer_port = (int)port;
    return true;
}

static bool read_pull(Serve *serve, const Ask *ask, KvAsk *out, Problem *problem) {
    static const char *const what = "do_remote_prefill",
                      *const instead = "the prompt is computed here";
    if (!serve->conf->connector)
        return degrade(serve, out, DEGRADED_NO_CONNECTOR, what,
                       "this engine has no --kv-transfer-config", instead, problem);
    if (serve->conf->role == ROLE_PRODUCER)
        return degrade(serve, out, DEGRADED_ROLE, what, "the kv_role of this engine is kv_producer",
                       instead, problem);
    out->hand_over = HAND_PULL;
    return check_pull(ask->kv_params, out, problem);
}

bool kv_ask_read(Serve *serve, const Ask *ask, KvAsk *out, Problem *problem) {
    *out = (KvAsk){0};
    const json_t *given = ask->kv_params;
    if (!given) return true;
    if (!check_types(given, problem)) return false;
    bool pulls = json_is_true(json_object_get(given, "do_remote_prefill"));
    bool offers = json_is_true(json_object_get(given, "do_remote_decode"));
    if (pulls && offers)
        return problem_set(
            problem, "kv_transfer_params",
            "kv_transfer_params asks for do_remote_prefill and do_remote_decode: one "
            "request does one of them");
    if (offers) return read_offer(serve, ask, out, problem);
    return !pulls || read_pull(serve, ask, out, problem);
}

void kv_offer_write(const Serve *serve, const EngineRequest *request, bool one_token, Buf *out) {
    buf_str(out, "{\"do_remote_prefill\":true,\"do_remote_decode\":false,\"remote_block_ids\":[[");
    for (size_t i = 0; i < request->offer_block_count; i++)
        buf_printf(out, "%s%u", i ? "," : "", request->offer_blocks[i]);
    buf_str(out, "]],\"remote_engine_id\":");
    buf_json_str(out, str_of(engine_id(serve->engine)));
    buf_str(out, ",\"remote_request_id\":");
    buf_json_str(out, str_of(request->id));
    buf_str(out, ",\"remote_host\":");
    buf_json_str(out, str_of(serve->conf->kv_host));
    buf_printf(out, ",\"remote_port\":%d,\"tp_size\":1,\"dcp_size\":1,\"pp_size\":1",
               engine_kv_port(serve->engine));
    buf_printf(out, ",\"remote_num_tokens\":%zu,\"remote_blocks_expiry_time\":null",
               request->offer_tokens);
    buf_str(out, ",\"transfer_mode\":\"pull\"");
    /* Told with the first token alone, as routers know it. */
    if (one_token) buf_printf(out, ",\"remote_prefill_cached_tokens\":%u", request->offer_cached);
    buf_char(out, '}');
}
