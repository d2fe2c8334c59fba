// SPDX-License-Identifier: Apache-2.0
#include "exchange.h"

#include <strings.h>

/* ---- errors ---- */

static const char *type_of(int status) {
    static const struct {
        int status;
        const char *type;
    } types[] = {
        {400, "BadRequestError"},       {401, "AuthenticationError"},
        {404, "NotFoundError"},         {405, "MethodNotAllowedError"},
        {408, "RequestTimeoutError"},   {413, "PayloadTooLargeError"},
        {502, "BadGatewayError"},       {503, "ServiceUnavailableError"},
        {504, "GatewayTimeoutError"},
    };
    for (size_t i = 0; i < COUNT_OF(types); i++)
        if (types[i].status == status) return types[i].type;
    return status < 500 ? "BadRequestError" : "InternalServerError";
}

void route_error_put(Buf *out, int status, const Err *err) {
    auto_buf Buf message = {0};
    buf_printf(&message, "%s%s%s", err->message, *err->hint ? ". " : "", err->hint);
    buf_str(out, "{\"error\":{\"message\":");
    buf_json_str(out, (Str){message.at, message.length});
    buf_printf(out, ",\"type\":\"%s\",\"param\":", type_of(status));
    if (*err->param) buf_json_str(out, str_of(err->param));
    else buf_str(out, "null");
    buf_printf(out, ",\"code\":%d}}", status);
}

/* ---- headers ---- */

#define OWN_HEADERS 4
typedef struct ReplyHeaders {
    HttpHeader at[LIMIT_HTTP_HEADERS + OWN_HEADERS];
    size_t count;
} ReplyHeaders;

static bool same_name(Str name, const char *lower) {
    return name.length == strlen(lower) && !strncasecmp(name.at, lower, name.length);
}

/* The engine's, without what only the router is told, then ours. */
static void headers_make(Exchange *ex, HttpHeaders from, Str trace, ReplyHeaders *to) {
    to->count = 0;
    for (size_t i = 0; i < from.count && i < LIMIT_HTTP_HEADERS; i++) {
        Str name = from.at[i].name;
        if (same_name(name, "baton-stages") || same_name(name, "baton-trace") ||
            same_name(name, "x-request-id"))
            continue;
        if (same_name(name, "baton-degraded") && *ex->record.degraded) continue;
        to->at[to->count++] = from.at[i];
    }
    to->at[to->count++] = (HttpHeader){STR("x-request-id"), str_of(ex->id)};
    to->at[to->count++] = (HttpHeader){STR("baton-trace"), trace};
    if (*ex->record.degraded)
        to->at[to->count++] = (HttpHeader){STR("baton-degraded"), str_of(ex->record.degraded)};
}

/* ---- in one piece ---- */

void deliver_whole(Exchange *ex, int status, HttpHeaders headers, Str body) {
    auto_buf Buf trace = {0};
    ReplyHeaders all;
    route_trace_put(&ex->record, false, &trace);
    headers_make(ex, headers, (Str){trace.at, trace.length}, &all);
    http_reply(ex->request, status, NULL, body, (HttpHeaders){all.at, all.count});
}

/* ---- as a stream ---- */

static void on_drained(HttpRequest *request, void *user) {
    (void)request;
    Exchange *ex = user;
    ex->paused = false;
    if (ex->call) http_call_pause(ex->call, false);
}

static void put_whole_trace(Buf *out, void *user) {
    Exchange *ex = user;
    RouteRecord now = ex->record;
    now.decode_ended_us = clock_mono_us();
    now.usage = ex->pump.usage;
    buf_str(out, ": Baton-Trace: ");
    route_trace_put(&now, true, out);
    buf_str(out, "\n\n");
}

static void begin(Exchange *ex) {
    auto_buf Buf trace = {0};
    ReplyHeaders all;
    route_trace_put(&ex->record, false, &trace);
    headers_make(ex, http_call_headers(ex->call), (Str){trace.at, trace.length}, &all);
    http_begin(ex->request, ex->record.upstream_status, NULL, (HttpHeaders){all.at, all.count});
    http_on_drained(ex->request, on_drained, ex);
    ex->state = EX_STREAMING;
}

void deliver_stream(Exchange *ex) {
    ex->is_stream = true;
    ex->pump.before_done = ex->trace_whole ? put_whole_trace : NULL;
    ex->pump.user = ex;
}

void deliver_flush(Exchange *ex) {
    if (!ex->pump.out.length) return;
    bool ready = http_send(ex->request, (Str){ex->pump.out.at, ex->pump.out.length});
    buf_clear(&ex->pump.out);
    if (ready || ex->paused) return;
    ex->paused = true;
    if (ex->call) http_call_pause(ex->call, true);
}

void deliver_events(Exchange *ex) {
    if (!ex->pump.out.length) return;
    if (ex->state != EX_STREAMING) { /* the first ones leave with the head */
        begin(ex);
        deliver_flush(ex);
        return;
    }
    if (ex->is_unsent) return;
    ex->is_unsent = true;
    ex->next_unsent = ex->router->unsent;
    ex->router->unsent = ex;
    router_soon(ex->router);
}

void deliver_end(Exchange *ex) {
    route_pump_finish(&ex->pump);
    if (ex->state != EX_STREAMING) begin(ex);
    deliver_flush(ex);
    http_end(ex->request);
}

void deliver_break(Exchange *ex, const Err *err, int status) {
    auto_buf Buf text = {0};
    route_error_put(&text, status, err);
    route_pump_fail(&ex->pump, (Str){text.at, text.length});
    deliver_flush(ex);
    http_end(ex->request);
}
