// SPDX-License-Identifier: Apache-2.0
#include "exchange.h"

#include <stdio.h>
#include <strings.h>

#define PARAMS_US 15000000 /* how long an offer of KV surely stands: half of the usual lease */

static bool hands_over(const Exchange *ex) {
    RouteConnector connector = ex->found.server->connector;
    return connector == CONNECT_NIXL || connector == CONNECT_MOONCAKE;
}

static bool is_prefill(const Exchange *ex) { return ex->state == EX_PREFILL; }

/* ---- calls ---- */

static bool same_name(Str name, const char *lower) {
    return name.length == strlen(lower) && !strncasecmp(name.at, lower, name.length);
}

/* The client's, and our id.  Replies must be readable, so none is asked for in compressed form. */
static size_t request_headers(const Exchange *ex, HttpHeader to[LIMIT_HTTP_HEADERS + 1]) {
    HttpHeaders from = ex->request->headers;
    size_t count = 0;
    for (size_t i = 0; i < from.count && count < LIMIT_HTTP_HEADERS; i++)
        if (!same_name(from.at[i].name, "x-request-id") &&
            !same_name(from.at[i].name, "accept-encoding") &&
            !same_name(from.at[i].name, "baton-trace"))
            to[count++] = from.at[i];
    to[count++] = (HttpHeader){STR("x-request-id"), str_of(ex->id)};
    return count;
}

/* The least of what the flag says and what is left of the attempt's time. */
static uint64_t wait_ms(const Exchange *ex, int64_t flag_ms, int64_t now_us) {
    int64_t timeout_us = ex->found.server->timeout_us;
    if (!timeout_us) return (uint64_t)flag_ms;
    int64_t left_ms = (ex->attempt_began_us + timeout_us - now_us) / 1000;
    if (left_ms < 1) left_ms = 1;
    return (uint64_t)(flag_ms && flag_ms < left_ms ? flag_ms : left_ms);
}

static void call(Exchange *ex, const RouteMember *member, int64_t flag_ms, int64_t now_us,
                 HttpCallConf conf) {
    HttpHeader headers[LIMIT_HTTP_HEADERS + 1];
    auto_buf Buf target = {0};
    buf_append(&target, ex->request->path.at, ex->request->path.length);
    if (ex->request->query.length) {
        buf_char(&target, '?');
        buf_append(&target, ex->request->query.at, ex->request->query.length);
    }
    conf.host = member->pod->host;
    conf.port = member->port;
    conf.method = STR("POST");
    conf.target = (Str){target.at, target.length};
    conf.headers = (HttpHeaders){headers, request_headers(ex, headers)};
    conf.body = ex->parts.at;
    conf.body_parts = ex->parts.count;
    conf.connect_ms = (uint64_t)ex->router->conf.connect_ms;
    conf.first_byte_ms = wait_ms(ex, flag_ms, now_us);
    conf.idle_ms = (uint64_t)ex->router->conf.idle_ms;
    conf.user = ex;
    if (!ex->record.called_us) ex->record.called_us = now_us;
    ex->pod = member->pod;
    route_pod_begin(ex->pod);
    if (is_prefill(ex)) ex->pair.decode->pod->expected++;
    route_metrics_upstream(ex->router->metrics, &ex->record, 1);
    ex->call = http_call(ex->router->client, &conf);
}

static void call_over(Exchange *ex, RoutePodEnd end, const char *why) {
    route_pod_end(ex->pod, end, why, clock_mono_us());
    if (is_prefill(ex)) ex->pair.decode->pod->expected--;
    route_metrics_upstream(ex->router->metrics, &ex->record, -1);
    ex->call = NULL;
    ex->pod = NULL;
}

void exchange_cancel(Exchange *ex) {
    if (!ex->call) return;
    http_call_cancel(ex->call);
    call_over(ex, POD_NO_MATTER, NULL);
}

/* ---- how calls fail ---- */

static const char *stage_name(const Exchange *ex) {
    return is_prefill(ex) ? "prefill" : ex->found.server->apart ? "decode" : "engine";
}
static const RouteMember *member_of(const Exchange *ex) {
    return is_prefill(ex) ? ex->pair.prefill : ex->pair.decode;
}

/* What an engine says for itself: {"error":{"message":"..."}} */
static void own_words(Str body, Buf *out) {
    Err unused;
    auto_json json_t *tree = body.length < 65536 ? json_parse(body, &unused) : NULL;
    const char *text =
        json_string_value(json_object_get(json_object_get(tree, "error"), "message"));
    if (text) buf_printf(out, ": %.200s", text);
}

static void fail_of_status(int status, Str body, Err *err) {
    auto_buf Buf words = {0};
    own_words(body, &words);
    ErrCode code = status == 503 ? ERR_EXHAUSTED : status == 504 ? ERR_DEADLINE : ERR_UNAVAILABLE;
    err_set(err, code, "it answered %d%s", status, words.at ? words.at : "");
}

static RoutePodEnd end_of(int status, const Err *failure) {
    if (failure) return failure->code == ERR_TOO_LARGE ? POD_NO_MATTER : POD_FAILED;
    return status == 502 || status == 503 || status == 504 ? POD_FAILED : POD_ANSWERED;
}

/* 503 asks to come again, 504 is about time, 502 is everything else. */
static int status_of(const Err *why) {
    return why->code == ERR_EXHAUSTED ? 503 : why->code == ERR_DEADLINE ? 504 : 502;
}

/* The failure as the client will read it, unless another attempt makes up for it. */
static void note_failure(Exchange *ex, const Err *why) {
    const RouteMember *member = member_of(ex);
    ex->failure_status = status_of(why);
    err_set(&ex->failure, why->code, "%s on pod %s (%s) failed: %s", stage_name(ex),
            member->pod->name, member->peer, why->message);
    err_hint(&ex->failure, "Check that the engine runs: curl http://%s/health.", member->peer);
    ex->record.stage = stage_name(ex);
    log_warn("route: %s: %s (attempt %d of %d)", ex->id, ex->failure.message, ex->record.attempts,
             ex->found.server->attempts);
}

static void give_up(Exchange *ex) {
    Err err = ex->failure;
    assert(err.code); /* the first attempt always finds a pod */
    if (ex->record.attempts > 1)
        err_wrap(&err, "no answer after %d attempts, the last one", ex->record.attempts);
    exchange_refuse(ex, &err, ex->failure_status, "proxy", "proxy");
}

static void on_waited(void *user) {
    Exchange *ex = user;
    exchange_attempt(ex);
}

static void try_again(Exchange *ex) {
    int64_t us = ex->found.server->retry_us;
    ex->state = EX_WAITING;
    if (!us) {
        exchange_attempt(ex);
        return;
    }
    if (!ex->wait) ex->wait = timer_start(ex->router->loop, TIMER_NEVER, 0, on_waited, ex);
    timer_again(ex->wait, (uint64_t)(us + 999) / 1000);
}

/* Whether a failed decode surely left the offered KV alone.  `failure` says "could not connect" if
 * nothing was sent; an engine that answers 503 takes no request in. */
static bool left_alone(int status, const Err *failure) {
    return failure ? str_starts(str_of(failure->message), "could not connect") : status == 503;
}

/* Before the first byte for the client. */
static void attempt_failed(Exchange *ex, const Err *why, bool params_left) {
    note_failure(ex, why);
    route_tried_add(&ex->tried, member_of(ex)->pod);
    if (is_prefill(ex))
        snprintf(ex->prefill_failure, sizeof ex->prefill_failure, "%.199s", ex->failure.message);
    ex->from_params = !is_prefill(ex) && params_left && ex->params.length &&
                      clock_mono_us() < ex->params_until_us;
    buf_clear(&ex->body);
    if (ex->record.attempts >= ex->found.server->attempts) {
        give_up(ex);
        return;
    }
    route_metrics_retry(ex->router->metrics, stage_name(ex), err_name(why->code));
    try_again(ex);
}

static void note_degraded(Exchange *ex, const char *cause, const char *text) {
    snprintf(ex->record.degraded, sizeof ex->record.degraded, "%s", text);
    route_metrics_degraded(ex->router->metrics, cause);
    log_warn("route: %s: degraded: %s", ex->id, text);
}

/* Replaces what can be said about the prompt by an error.  True: --strict wants it so. */
static bool refuse_degraded(Exchange *ex, const char *cause, const char *text, int status) {
    if (!ex->router->conf.strict) return false;
    Err err = {0};
    route_metrics_degraded(ex->router->metrics, cause);
    err_set(&err, status == 400 ? ERR_INVALID : ERR_UNAVAILABLE,
            "degraded, which --strict forbids: %s", text);
    exchange_refuse(ex, &err, status, "scheduling", "scheduling");
    return true;
}

/* ---- decode ---- */

static bool is_events(HttpHeaders headers) {
    Str type = http_header(headers, "content-type");
    return type.length >= 17 && !strncasecmp(type.at, "text/event-stream", 17);
}

static bool is_success(int status) { return status >= 200 && status < 300; }

/* False: --strict refused it, and the exchange has ended. */
static bool take_head(Exchange *ex, int status, HttpHeaders headers) {
    char text[sizeof ex->record.degraded];
    Str degraded = http_header(headers, "baton-degraded");
    ex->record.upstream_status = status;
    if (!is_success(status)) return true;
    route_stages_read(http_header(headers, "baton-stages"), &ex->record.stages);
    snprintf(text, sizeof text, STR_FMT, STR_ARG(degraded));
    if (*text && ex->router->conf.strict) {
        exchange_cancel(ex);
        refuse_degraded(ex, "decode", text, 502);
        return false;
    }
    if (*text) note_degraded(ex, "decode", text);
    route_prefix_add(&ex->pod->prefixes, ex->prompt.hashes, ex->prompt.count);
    if (ex->asked.stream && is_events(headers)) deliver_stream(ex);
    return true;
}

static void on_decode_head(HttpCall *http, int status, HttpHeaders headers, void *user) {
    (void)http;
    take_head(user, status, headers);
}

static void decode_broke(Exchange *ex, const Err *why, bool params_left) {
    if (ex->state != EX_STREAMING) {
        attempt_failed(ex, why, params_left);
        return;
    }
    note_failure(ex, why);
    exchange_error(ex, "proxy", ex->failure.message);
    deliver_break(ex, &ex->failure, status_of(why));
    exchange_end(ex, ex->record.upstream_status, "upstream_transport");
}

static bool take_bytes(Exchange *ex, Str bytes) {
    if (ex->is_stream) return route_pump_feed(&ex->pump, bytes);
    buf_append(&ex->body, bytes.at, bytes.length);
    return !ex->body.overflow;
}

static void on_decode_data(HttpCall *http, Str bytes, void *user) {
    (void)http;
    Exchange *ex = user;
    if (!ex->record.first_us) ex->record.first_us = clock_mono_us();
    if (take_bytes(ex, bytes)) {
        deliver_events(ex);
        return;
    }
    Err err = {0};
    err_set(&err, ERR_TOO_LARGE, "%s is larger than %zu bytes",
            ex->is_stream ? "one event" : "its reply",
            ex->is_stream ? ex->pump.held.limit : ex->body.limit);
    exchange_cancel(ex);
    decode_broke(ex, &err, false);
}

static void stream_is_whole(Exchange *ex) {
    ex->record.usage = ex->pump.usage;
    deliver_end(ex);
    if (ex->pump.failed) exchange_error(ex, "proxy", "the engine ended the stream with an error");
    exchange_end(ex, ex->record.upstream_status, ex->pump.failed ? "upstream_response"
                                                                 : "successful_request");
}

/* A reply in one piece, without what only engines should hear. */
static void reply_is_whole(Exchange *ex, int status, HttpHeaders headers, Str body) {
    Body reply;
    BodyParts parts;
    Err unused;
    auto_buf Buf clean = {0};
    if (!ex->record.first_us) ex->record.first_us = clock_mono_us();
    if (route_body_scan(&reply, body, &unused)) {
        route_reply_usage(&reply, &ex->record.usage);
        if (route_reply_clean(&reply, &parts)) {
            route_parts_join(&parts, &clean);
            body = (Str){clean.at, clean.length};
        }
    }
    deliver_whole(ex, status, headers, body);
    exchange_end(ex, status, "successful_request");
}

/* The engine's own answer to what the client sent. */
static void pass_on(Exchange *ex, int status, HttpHeaders headers, Str body) {
    auto_buf Buf words = {0};
    own_words(body, &words);
    ex->record.upstream_status = status;
    ex->record.stage = stage_name(ex);
    exchange_error(ex, "proxy", words.at ? words.at + 2 : "the engine refused the request");
    deliver_whole(ex, status, headers, body);
    exchange_end(ex, status, "upstream_response");
}

static void on_decode_done(HttpCall *http, int status, Str body, const Err *failure, void *user) {
    Exchange *ex = user;
    HttpHeaders headers = http_call_headers(http);
    RouteRecord *record = &ex->record;
    Err err = {0};
    record->decode_ended_us = clock_mono_us();
    if (ex->asked.stream) body = (Str){ex->body.at, ex->body.length};
    else if (!failure && !take_head(ex, status, headers)) return;
    route_metrics_call(ex->router->metrics, record, false, failure ? 502 : status,
                       record->decode_ended_us - record->decode_began_us);
    if (failure && ex->state == EX_STREAMING && ex->pump.ended)
        failure = NULL; /* [DONE] was there: how the connection ends does not matter */
    if (failure) err = *failure;
    else if (!is_success(status) && (status < 400 || status >= 500))
        fail_of_status(status, body, &err);
    call_over(ex, end_of(status, failure), err.message);
    if (err.code) decode_broke(ex, &err, left_alone(status, failure));
    else if (!is_success(status)) pass_on(ex, status, headers, body);
    else if (ex->is_stream) stream_is_whole(ex);
    else reply_is_whole(ex, status, headers, body);
}

static void call_decode(Exchange *ex) {
    const RouteServer *server = ex->found.server;
    int64_t now_us = clock_mono_us();
    ex->state = EX_DECODE;
    ex->record.decode = ex->pair.decode->pod->name;
    ex->record.decode_began_us = now_us;
    ex->record.first_us = ex->record.decode_ended_us = 0;
    ex->record.upstream_status = 0;
    route_stages_read((Str){NULL, 0}, &ex->record.stages);
    ex->is_stream = false;
    Str params = {ex->params.at, ex->params.length},
        model = ex->found.adapter ? (Str){0} : server->model_json;
    bool hide = route_request_decode(&ex->asked, model, params, &ex->arena, &ex->parts);
    route_pump_init(&ex->pump, hide);
    ex->body.limit = LIMIT_HTTP_REPLY;
    HttpCallConf conf = {.done = on_decode_done};
    if (ex->asked.stream) {
        conf.head = on_decode_head;
        conf.data = on_decode_data;
    }
    call(ex, ex->pair.decode, ex->router->conf.first_byte_ms, now_us, conf);
}

/* ---- prefill ---- */

/* What prefill says goes to decode as it is, byte for byte.  False: --strict refused it. */
static bool take_params(Exchange *ex, HttpHeaders headers, const Body *reply) {
    Str params, why = http_header(headers, "baton-degraded");
    buf_clear(&ex->params);
    if (!hands_over(ex)) return true;
    if (route_body_get(reply, BODY_KV_PARAMS, &params) == '{') {
        buf_append(&ex->params, params.at, params.length);
        ex->params_until_us = clock_mono_us() + PARAMS_US;
        return true;
    }
    char text[sizeof ex->record.degraded];
    if (!why.length) why = STR("no kv_transfer_params");
    snprintf(text, sizeof text,
             "prefill pod %s handed nothing over (%.*s): the decode pod computes "
             "the prompt",
             ex->pair.prefill->pod->name, (int)(why.length < 120 ? why.length : 120), why.at);
    if (refuse_degraded(ex, "no_params", text, 502)) return false;
    note_degraded(ex, "no_params", text);
    return true;
}

static void prefill_is_whole(Exchange *ex, HttpHeaders headers, Str body) {
    Body reply;
    Err err = {0};
    RouteStages stages;
    RouteUsage usage = {-1, -1};
    if (!route_body_scan(&reply, body, &err)) {
        err_wrap(&err, "its reply is not JSON");
        err.code = ERR_DAMAGED;
        attempt_failed(ex, &err, false);
        return;
    }
    route_reply_usage(&reply, &usage);
    route_stages_read(http_header(headers, "baton-stages"), &stages);
    ex->record.prefill_tokens = stages.told        ? stages.computed
                                : usage.prompt > 0 ? (uint64_t)usage.prompt
                                                   : 0;
    ex->prefill_failure[0] = 0; /* it was made up for */
    route_prefix_add(&ex->pair.prefill->pod->prefixes, ex->prompt.hashes, ex->prompt.count);
    if (take_params(ex, headers, &reply)) call_decode(ex);
}

static void on_prefill_done(HttpCall *http, int status, Str body, const Err *failure, void *user) {
    Exchange *ex = user;
    HttpHeaders headers = http_call_headers(http);
    ex->record.prefill_ended_us = clock_mono_us();
    ex->record.upstream_status = status;
    route_metrics_call(ex->router->metrics, &ex->record, true, failure ? 502 : status,
                       ex->record.prefill_ended_us - ex->record.prefill_began_us);
    Err err = {0};
    if (!failure && !is_success(status)) fail_of_status(status, body, &err);
    call_over(ex, end_of(status, failure), failure ? failure->message : err.message);
    if (failure) attempt_failed(ex, failure, false);
    else if (is_success(status)) prefill_is_whole(ex, headers, body);
    else if (status >= 400 && status < 500) pass_on(ex, status, headers, body);
    else attempt_failed(ex, &err, false);
}

static void call_prefill(Exchange *ex) {
    const RouteServer *server = ex->found.server;
    int64_t now_us = clock_mono_us();
    ex->state = EX_PREFILL;
    ex->record.prefill = ex->pair.prefill->pod->name;
    ex->record.prefill_began_us = now_us;
    ex->record.prefill_ended_us = 0;
    ex->record.decode = NULL;
    ex->record.prefill_tokens = 0;
    buf_clear(&ex->params);
    Str model = ex->found.adapter ? (Str){0} : server->model_json;
    route_request_prefill(&ex->asked, model, hands_over(ex), &ex->parts);
    call(ex, ex->pair.prefill, ex->router->conf.prefill_ms, now_us,
         (HttpCallConf){.done = on_prefill_done});
}

/* ---- attempts ---- */

/* The decode pod computes the prompt itself. */
static void decode_alone(Exchange *ex, const char *cause, const char *text, int status) {
    if (ex->router->conf.strict && ex->failure.code) {
        give_up(ex); /* that says more */
        return;
    }
    if (refuse_degraded(ex, cause, text, status)) return;
    note_degraded(ex, cause, text);
    ex->record.prefill = NULL;
    ex->record.prefill_tokens = 0;
    ex->record.prefill_began_us = ex->record.prefill_ended_us = 0;
    buf_clear(&ex->params);
    call_decode(ex);
}

static void without_prefill(Exchange *ex) {
    char text[sizeof ex->record.degraded];
    const char *why = *ex->prefill_failure ? ex->prefill_failure : "no prefill pod is ready";
    snprintf(text, sizeof text, "%s: the decode pod computes the prompt", why);
    decode_alone(ex, "no_prefill", text, 503);
}

static bool pick_for_params(Exchange *ex) {
    if (!ex->from_params) return false;
    ex->from_params = false;
    const RouteMember *decode =
        route_pick_decode(ex->found.server, ex->pair.prefill->group, &ex->prompt, &ex->tried,
                          ex->attempt_began_us, &ex->router->random);
    if (decode) ex->pair.decode = decode;
    return decode != NULL;
}

void exchange_attempt(Exchange *ex) {
    const RouteServer *server = ex->found.server;
    ex->attempt_began_us = clock_mono_us();
    ex->record.degraded[0] = 0;
    bool again = pick_for_params(ex);
    if (!again && !route_pick(server, &ex->prompt, &ex->tried, ex->attempt_began_us,
                              &ex->router->random, &ex->pair)) {
        give_up(ex);
        return;
    }
    ex->record.attempts++;
    bool last = ex->record.attempts == server->attempts;
    if (again || !server->apart) {
        call_decode(ex);
    } else if (hands_over(ex) && ex->asked.several_prompts) {
        decode_alone(
            ex, "several_prompts",
            "several prompts in one request cannot be handed over: the decode pod computes them",
            400);
    } else if (!ex->pair.prefill || (last && *ex->prefill_failure)) {
        without_prefill(ex);
    } else {
        call_prefill(ex);
    }
}
