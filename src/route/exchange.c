// SPDX-License-Identifier: Apache-2.0
#include "exchange.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- its name ---- */

/* Ours goes into headers and lines of the log: what could break those is no id. */
static bool id_fits(Str id) {
    if (id.length == 0 || id.length > LIMIT_REQUEST_ID) return false;
    for (size_t i = 0; i < id.length; i++) {
        unsigned char c = (unsigned char)id.at[i];
        bool letter = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
        if (!letter && !strchr("-_.:/+=@~", c)) return false;
    }
    return true;
}

static void id_make(Exchange *ex) {
    Str given = http_header(ex->request->headers, "x-request-id");
    if (id_fits(given)) {
        memcpy(ex->id, given.at, given.length);
        return;
    }
    uint64_t high = route_random(&ex->router->random), low = route_random(&ex->router->random);
    snprintf(ex->id, sizeof ex->id, "%08llx-%04llx-4%03llx-%04llx-%012llx", /* UUID version 4 */
             (unsigned long long)(high >> 32), (unsigned long long)(high >> 16 & 0xffff),
             (unsigned long long)(high & 0xfff), (unsigned long long)(low >> 48 & 0x3fff) | 0x8000,
             (unsigned long long)(low & 0xffffffffffff));
}

/* ---- its end ---- */

static void leave_lists(Exchange *ex) {
    Router *router = ex->router;
    if (ex->next) ex->next->prev = ex->prev;
    if (ex->prev) ex->prev->next = ex->next;
    else router->exchanges = ex->next;
    router->exchange_count--;
    if (!ex->is_unsent) return;
    Exchange **at = &router->unsent;
    while (*at != ex) at = &(*at)->next_unsent;
    *at = ex->next_unsent;
}

static void exchange_free(Exchange *ex) {
    leave_lists(ex);
    timer_close(ex->wait);
    route_pump_done(&ex->pump);
    buf_done(&ex->body);
    buf_done(&ex->params);
    route_table_unref(ex->table);
    arena_done(&ex->arena);
    free(ex);
}

void exchange_end(Exchange *ex, int status, const char *finish) {
    Router *router = ex->router;
    RouteRecord *record = &ex->record;
    record->status = status;
    record->finish = finish;
    record->ended_us = clock_mono_us();
    if (ex->model)
        route_metrics_downstream(router->metrics, ex->known_model ? ex->model : "unknown", -1);
    route_metrics_end(router->metrics, record, ex->known_model);
    route_log_put(record, router->conf.access_log, &router->log);
    exchange_free(ex);
    router_soon(router);
}

void exchange_error(Exchange *ex, const char *type, const char *message) {
    ex->record.error_type = type;
    snprintf(ex->record.error, sizeof ex->record.error, "%s", message);
}

void exchange_refuse(Exchange *ex, const Err *err, int status, const char *error_type,
                     const char *finish) {
    auto_buf Buf body = {0};
    static const HttpHeader headers[] = {{STR("content-type"), STR("application/json")},
                                         {STR("retry-after"), STR("1")}};
    exchange_error(ex, error_type, err->message);
    route_error_put(&body, status, err);
    deliver_whole(ex, status, (HttpHeaders){headers, status == 503 ? 2 : 1},
                  (Str){body.at, body.length});
    exchange_end(ex, status, finish);
}

/* The client has left: so do we, at once. */
static void on_gone(HttpRequest *request, void *user) {
    (void)request;
    Exchange *ex = user;
    static const char *const stages[] = {
        [EX_PREFILL] = "prefill", [EX_DECODE] = "decode", [EX_WAITING] = "waiting",
        [EX_STREAMING] = "streaming"};
    exchange_cancel(ex);
    route_metrics_gone(ex->router->metrics, stages[ex->state]);
    ex->record.stage = stages[ex->state];
    exchange_error(ex, "client_gone", "the client closed the connection");
    exchange_end(ex, 499, "client_gone");
}

void exchange_drop_all(Router *router) {
    while (router->exchanges) {
        exchange_cancel(router->exchanges);
        exchange_free(router->exchanges);
    }
}

/* ---- its beginning ---- */

static Str keep(Exchange *ex, Str text) {
    return (Str){arena_dup(&ex->arena, text.at, text.length), text.length};
}

static Exchange *exchange_new(Router *router, HttpRequest *request) {
    Exchange *ex = mem_new(sizeof *ex);
    ex->router = router;
    ex->request = request;
    ex->next = router->exchanges;
    if (ex->next) ex->next->prev = ex;
    router->exchanges = ex;
    router->exchange_count++;
    ex->table = route_table_ref(route_store_table(router->store));
    id_make(ex);
    ex->record = (RouteRecord){ /* copies: the request ends with its reply, before the record */
        .id = ex->id,
        .method = keep(ex, request->method),
        .path = keep(ex, request->path),
        .model = STR(""),
        .client = keep(ex, str_of(request->peer)),
        .usage = {-1, -1},
        .began_us = request->began_us,
        .wall_us = clock_wall_us() - (clock_mono_us() - request->began_us),
    };
    ex->trace_whole = str_eq(str_trim(http_header(request->headers, "baton-trace")), "full");
    http_on_gone(request, on_gone, ex);
    return ex;
}

/* Which pods have probably seen the prompt's beginning. */
static void hash_prompt(Exchange *ex) {
    auto_buf Buf text = {0};
    route_request_prompt(&ex->asked, &text);
    Str prompt = {text.at, text.length};
    ex->prompt.count = route_prefix_chain(ex->asked.model, prompt, PREFIX_BLOCK, PREFIX_BLOCKS,
                                          ex->prompt.hashes);
    if (ex->prompt.count)
        route_metrics_prefix(ex->router->metrics, ex->model,
                             route_prompt_ratio(ex->found.server, &ex->prompt));
}

static void take_found(Exchange *ex) {
    const RouteServer *server = ex->found.server;
    ex->record.route = ex->found.route->full;
    ex->record.server = server->full;
    bool renamed = server->model && !ex->found.adapter;
    ex->record.upstream_model = renamed ? server->model : ex->model;
}

void exchange_begin(Router *router, HttpRequest *request) {
    Exchange *ex = exchange_new(router, request);
    Err err = {0};
    route_metrics_begin(router->metrics);
    if (router->draining) {
        err_set(&err, ERR_UNAVAILABLE, "this router is shutting down");
        err_hint(&err, "Send the request again, to another one.");
        exchange_refuse(ex, &err, 503, "scheduling", "scheduling");
        return;
    }
    if (!route_request_read(&ex->asked, request->body, &ex->arena, &err)) {
        exchange_refuse(ex, &err, err_http_status(err.code), "request_parsing", "request_failed");
        return;
    }
    ex->record.model = keep(ex, ex->asked.model);
    ex->record.stream = ex->asked.stream;
    ex->model = ex->record.model.at;
    ex->known_model = route_table_knows(ex->table, ex->asked.model);
    route_metrics_downstream(router->metrics, ex->known_model ? ex->model : "unknown", 1);
    if (!route_table_find(ex->table, ex->asked.model, request->path, request->headers,
                          route_random(&router->random), &ex->found, &err)) {
        bool missing = err.code == ERR_NOT_FOUND;
        exchange_refuse(ex, &err, err_http_status(err.code),
                        missing ? "model_route_matching" : "pod_discovery",
                        missing ? "route_not_found" : "pod_discovery");
        return;
    }
    take_found(ex);
    hash_prompt(ex);
    exchange_attempt(ex);
}
