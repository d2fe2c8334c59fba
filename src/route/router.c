// SPDX-License-Identifier: Apache-2.0
#include "router.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "exchange.h"

#define JSON_TYPE "application/json"

/* ---- what the router answers itself ---- */

static void reply_json(HttpRequest *request, int status, const char *text) {
    http_reply(request, status, JSON_TYPE, str_of(text), (HttpHeaders){0});
}

static void reply_error(HttpRequest *request, int status, const Err *err) {
    auto_buf Buf body = {0};
    route_error_put(&body, status, err);
    http_reply(request, status, JSON_TYPE, (Str){body.at, body.length}, (HttpHeaders){0});
}

static void on_health(Router *router, HttpRequest *request) {
    (void)router;
    reply_json(request, 200, "{\"message\":\"ok\"}");
}

static void on_ready(Router *router, HttpRequest *request) {
    if (router->draining) reply_json(request, 503, "{\"message\":\"router is not ready\"}");
    else reply_json(request, 200, "{\"message\":\"router is ready\"}");
}

static void on_metrics(Router *router, HttpRequest *request) {
    auto_buf Buf text = {0};
    route_metrics_write(router->metrics, router->store, route_folder_failures(router->folder),
                        &text);
    http_reply(request, 200, PROM_CONTENT_TYPE, (Str){text.at, text.length}, (HttpHeaders){0});
}

static void put_model(Buf *out, const char *model) {
    buf_str(out, "{\"id\":");
    buf_json_str(out, str_of(model));
    buf_str(out, ",\"object\":\"model\",\"created\":0,\"owned_by\":\"baton\"}");
}

static void on_models(Router *router, HttpRequest *request) {
    const RouteTable *table = route_store_table(router->store);
    auto_buf Buf text = {0};
    buf_str(&text, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < table->model_count; i++) {
        if (i) buf_char(&text, ',');
        put_model(&text, table->models[i]);
    }
    buf_str(&text, "]}");
    http_reply(request, 200, JSON_TYPE, (Str){text.at, text.length}, (HttpHeaders){0});
}

/* "%2F" is how a client may write the slash of a name. */
static Str unescape(Str path, Arena *arena) {
    char *out = arena_dup(arena, path.at, path.length);
    size_t length = 0;
    for (size_t i = 0; i < path.length; i++) {
        char hex[3] = {0}, *end = hex;
        if (path.at[i] == '%' && path.length - i > 2) {
            memcpy(hex, path.at + i + 1, 2);
            long value = strtol(hex, &end, 16);
            if (end == hex + 2) out[length++] = (char)value, i += 2;
        }
        if (end != hex + 2) out[length++] = path.at[i];
    }
    return (Str){out, length};
}

#define MODEL_PATH "/v1/models/"

static void on_model(Router *router, HttpRequest *request) {
    const RouteTable *table = route_store_table(router->store);
    Arena arena = {0};
    size_t prefix = sizeof MODEL_PATH - 1;
    Str id = unescape((Str){request->path.at + prefix, request->path.length - prefix}, &arena);
    auto_buf Buf text = {0};
    Err err = {0};
    for (size_t i = 0; i < table->model_count; i++)
        if (str_eq(id, table->models[i])) put_model(&text, table->models[i]);
    if (text.length) {
        http_reply(request, 200, JSON_TYPE, (Str){text.at, text.length}, (HttpHeaders){0});
    } else {
        err_set(&err, ERR_NOT_FOUND, "the model '%.*s' is not served here",
                (int)(id.length < 200 ? id.length : 200), id.at);
        err_param(&err, "model");
        err_hint(&err, "GET /v1/models lists the names.");
        reply_error(request, 404, &err);
    }
    arena_done(&arena);
}

static const struct Endpoint {
    const char *path;
    bool below; /* and everything that begins so */
    const char *method;
    void (*answer)(Router *router, HttpRequest *request);
} endpoints[] = {
    {"/v1/chat/completions", false, "POST", exchange_begin},
    {"/v1/completions", false, "POST", exchange_begin},
    {"/v1/models", false, "GET", on_models},
    {MODEL_PATH, true, "GET", on_model},
    {"/healthz", false, "GET", on_health},
    {"/readyz", false, "GET", on_ready},
    {"/metrics", false, "GET", on_metrics},
};

static void no_such_path(HttpRequest *request) {
    Err err = {0};
    err_set(&err, ERR_NOT_FOUND, "there is no '%.*s' here",
            (int)(request->path.length < 200 ? request->path.length : 200), request->path.at);
    err_hint(&err,
             "Served are /v1/chat/completions, /v1/completions, /v1/models, /healthz, /readyz "
             "and /metrics.");
    reply_error(request, 404, &err);
}

static void wrong_method(HttpRequest *request, const struct Endpoint *endpoint) {
    Err err = {0};
    auto_buf Buf body = {0};
    const HttpHeader allow = {STR("allow"), str_of(endpoint->method)};
    err_set(&err, ERR_INVALID, "%s takes %s, not " STR_FMT, endpoint->path, endpoint->method,
            STR_ARG(request->method));
    route_error_put(&body, 405, &err);
    http_reply(request, 405, JSON_TYPE, (Str){body.at, body.length}, (HttpHeaders){&allow, 1});
}

static void on_request(HttpRequest *request, void *user) {
    Router *router = user;
    for (size_t i = 0; i < COUNT_OF(endpoints); i++) {
        const struct Endpoint *endpoint = &endpoints[i];
        bool here = endpoint->below ? str_starts(request->path, endpoint->path)
                                    : str_eq(request->path, endpoint->path);
        if (!here) continue;
        bool head = str_eq(request->method, "HEAD") && !strcmp(endpoint->method, "GET");
        if (head || str_eq(request->method, endpoint->method)) endpoint->answer(router, request);
        else wrong_method(request, endpoint);
        return;
    }
    no_such_path(request);
}

static const char *on_bad_request(int status, const char *message, Buf *body) {
    Err err = {0};
    err_set(&err, ERR_INVALID, "%s", message);
    route_error_put(body, status, &err);
    return JSON_TYPE;
}

/* ---- what leaves in the loop's next round ---- */

static void write_log(Router *router) {
    const char *at = router->log.at, *end = at + router->log.length;
    while (at < end) {
        ssize_t written = write(router->conf.log_fd, at, (size_t)(end - at));
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) break; /* nobody reads it any more */
        at += written;
    }
    buf_clear(&router->log);
}

static void on_server_idle(void *user) {
    Router *router = user;
    router->drained(router->user);
}

/* The listener stays open until the last request has ended, so that /readyz can say so. */
static void drain_if_done(Router *router) {
    if (!router->draining || router->exchange_count > 0 || router->drained_told) return;
    router->drained_told = true;
    http_server_drain(router->server, on_server_idle, router);
}

static void on_soon(void *user) {
    Router *router = user;
    while (router->unsent) {
        Exchange *ex = router->unsent;
        router->unsent = ex->next_unsent;
        ex->is_unsent = false;
        deliver_flush(ex);
    }
    if (router->log.length) write_log(router);
    drain_if_done(router);
}

void router_soon(Router *router) { timer_again(router->soon, 0); }

/* ---- router.h ---- */

static bool feed(Router *router, Err *err) {
    const RouterConf *conf = &router->conf;
    if (route_hand_given(&conf->hand) && !route_hand_feed(router->store, &conf->hand, err))
        return false;
    if (!conf->objects) return true;
    router->folder = route_folder_open(router->loop, conf->objects, router->store, err);
    return router->folder != NULL;
}

Router *router_open(Loop *loop, const RouterConf *conf, Err *err) {
    Router *router = mem_new(sizeof *router);
    router->conf = *conf;
    router->loop = loop;
    router->store = route_store_new();
    router->metrics = route_metrics_new();
    router->client = http_client_new(loop);
    router->soon = timer_start(loop, TIMER_NEVER, 0, on_soon, router);
    random_bytes(&router->random.state, sizeof router->random.state);
    router->random.state |= 1;
    HttpServerConf server = {.host = conf->host,
                             .port = (int)conf->port,
                             .name = "baton-router/" BATON_VERSION,
                             .handle = on_request,
                             .error_body = on_bad_request,
                             .user = router};
    if (!feed(router, err) || !(router->server = http_server_open(loop, &server, err))) {
        router_close(router);
        return NULL;
    }
    http_server_listen(router->server);
    return router;
}

int router_port(const Router *router) { return http_server_port(router->server); }

void router_drain(Router *router, void (*drained)(void *user), void *user) {
    router->draining = true;
    router->drained = drained;
    router->user = user;
    router_soon(router);
}

void router_close(Router *router) {
    if (!router) return;
    exchange_drop_all(router);
    http_server_close(router->server);
    http_client_free(router->client);
    if (router->log.length) write_log(router);
    buf_done(&router->log);
    timer_close(router->soon);
    route_folder_close(router->folder);
    route_metrics_free(router->metrics);
    route_store_free(router->store);
    free(router);
}
