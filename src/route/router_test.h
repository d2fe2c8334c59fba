// SPDX-License-Identifier: Apache-2.0
/* router_test.h - a router between scripted engines and clients, all on one loop with real sockets.
 *
 *     Seen (a client's call) ─▶ router ─▶ TestEngine ... (what it answers is the test's choice)
 *
 * Each engine keeps what it was sent and counts whom it lost. */
#ifndef BATON_ROUTE_ROUTER_TEST_H
#define BATON_ROUTE_ROUTER_TEST_H

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "exchange.h"
#include "io/loop_test.h"

#define ENGINES 6
#define CHAT "/v1/chat/completions"
#define ASK                                                                                        \
    "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"max_tokens\":8"
#define PARAMS_MADE                                                                                \
    "{\"do_remote_prefill\":true,\"remote_block_ids\":[[1, 2]],\"big\":9007199254740993}"
#define PREFILL_REPLY                                                                              \
    "{\"choices\":[{\"index\":0,\"message\":{\"content\":\"A\"}}],"                                \
    "\"usage\":{\"prompt_tokens\":54,\"completion_tokens\":1},\"kv_transfer_params\":" PARAMS_MADE \
    "}"
#define DECODE_WITH(params)                                                                       \
    "{\"choices\":[{\"index\":0,\"message\":{\"content\":\"A B\"}}],"                            \
    "\"usage\":{\"prompt_tokens\":54,\"completion_tokens\":18},\"kv_transfer_params\":" params "}"
#define DECODE_REPLY DECODE_WITH("{\"remote_host\":\"10.0.0.1\"}")
#define DECODE_CLEAN DECODE_WITH("null")
#define EVENT "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n"
#define USAGE_EVENT                                                                                \
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":54,\"completion_tokens\":3}}\n\n"
#define DONE_EVENT "data: [DONE]\n\n"
#define STAGES                                                                          \
    "computed=3; cached=16; pulled=35; bytes=1000; rail=shm; queue_us=1; prefill_us=2; " \
    "transfer_us=600; first_token_us=700"

typedef enum Answer {
    ANSWER_JSON,   /* status and body */
    ANSWER_STREAM, /* head, `events` events, usage if asked for, [DONE] */
    ANSWER_HOLD,   /* nothing, until the test says so */
    ANSWER_CLOSE,  /* the connection ends without a reply */
    ANSWER_HEAD,   /* the head of a stream, then the connection ends */
    ANSWER_BREAK,  /* as a stream, but the connection ends after `events` events */
    ANSWER_OPEN,   /* as a stream, but it goes on for ever in silence */
    ANSWER_FLOOD,  /* events until the reader is slow, and again when it has caught up */
} Answer;

typedef struct TestEngine {
    HttpServer *server;
    int port;
    Answer answer;
    int status, events;
    const char *body, *degraded, *stages, *extra_name, *extra_value;
    bool extra_twice;
    int requests, gone;
    int64_t gone_us;
    Buf body_seen, headers_seen, target_seen; /* of the last request */
    HttpRequest *held;
    size_t sent;       /* bytes of events */
    size_t flood;      /* how many to send in all */
} TestEngine;

typedef struct Seen { /* a client's call */
    HttpCall *call;
    bool ended, failed;
    int status;
    Buf head, body; /* "name: value\n" each; names in lower case */
    int64_t ended_us;
    size_t pieces;
} Seen;

typedef struct Test {
    Loop *loop;
    Router *router;
    HttpClient *client;
    TestEngine engines[ENGINES];
    int log;
    bool drained;
} Test;

static Test t;

/* ---- the loop ---- */

#define WAIT_FOR(condition) LOOP_WAIT_FOR(t.loop, condition)

/* ---- engines ---- */

static void engine_gone(HttpRequest *request, void *user) {
    TestEngine *engine = user;
    (void)request;
    engine->gone++;
    engine->gone_us = clock_mono_us();
    engine->held = NULL;
}

static void keep_request(TestEngine *engine, HttpRequest *request) {
    engine->requests++;
    buf_clear(&engine->body_seen);
    buf_clear(&engine->headers_seen);
    buf_clear(&engine->target_seen);
    buf_append(&engine->body_seen, request->body.at, request->body.length);
    buf_append(&engine->target_seen, request->path.at, request->path.length);
    buf_append(&engine->target_seen, request->query.at, request->query.length);
    for (size_t i = 0; i < request->headers.count; i++)
        buf_printf(&engine->headers_seen, STR_FMT ": " STR_FMT "\n",
                   STR_ARG(request->headers.at[i].name), STR_ARG(request->headers.at[i].value));
}

static size_t engine_headers(const TestEngine *engine, HttpHeader to[4]) {
    size_t count = 0;
    if (engine->stages) to[count++] = (HttpHeader){STR("Baton-Stages"), str_of(engine->stages)};
    if (engine->degraded)
        to[count++] = (HttpHeader){STR("Baton-Degraded"), str_of(engine->degraded)};
    for (int i = 0; engine->extra_name && i <= engine->extra_twice; i++)
        to[count++] = (HttpHeader){str_of(engine->extra_name), str_of(engine->extra_value)};
    return count;
}

static void engine_flood(HttpRequest *request, void *user) {
    TestEngine *engine = user;
    static const char event[] = EVENT;
    while (engine->sent < engine->flood) {
        engine->sent += sizeof event - 1;
        if (!http_send(request, STR(EVENT))) return;
    }
    engine->held = NULL;
    http_send(request, STR(DONE_EVENT));
    http_end(request);
}

static void engine_stream(TestEngine *engine, HttpRequest *request, HttpHeaders headers) {
    Answer answer = engine->answer;
    http_begin(request, 200, "text/event-stream; charset=utf-8", headers);
    http_on_gone(request, engine_gone, engine);
    engine->held = request;
    if (answer == ANSWER_FLOOD) {
        http_on_drained(request, engine_flood, engine);
        engine_flood(request, engine);
        return;
    }
    if (answer != ANSWER_HEAD)
        for (int i = 0; i < engine->events; i++) http_send(request, STR(EVENT));
    if (answer == ANSWER_STREAM) {
        if (strstr(engine->body_seen.at, "\"include_usage\":true"))
            http_send(request, STR(USAGE_EVENT));
        http_send(request, STR(DONE_EVENT));
        http_end(request);
        engine->held = NULL;
    }
}

/* What breaks off does so a moment later, when its bytes are on their way. */
static inline void engine_break(TestEngine *engine) {
    if (!engine->held) return;
    http_abort(engine->held);
    engine->held = NULL;
}

static void engine_handle(HttpRequest *request, void *user) {
    TestEngine *engine = user;
    HttpHeader headers[4];
    HttpHeaders all = {headers, engine_headers(engine, headers)};
    keep_request(engine, request);
    if (engine->answer == ANSWER_JSON) {
        http_reply(request, engine->status, "application/json", str_of(engine->body), all);
    } else if (engine->answer == ANSWER_CLOSE) {
        http_abort(request);
    } else if (engine->answer == ANSWER_HOLD) {
        http_on_gone(request, engine_gone, engine);
        engine->held = request;
    } else {
        engine_stream(engine, request, all);
    }
}

static TestEngine *engine_open(size_t i, Answer answer, const char *body) {
    TestEngine *engine = &t.engines[i];
    Err err = {0};
    HttpServerConf conf = {.host = "127.0.0.1", .handle = engine_handle, .user = engine};
    *engine = (TestEngine){.answer = answer, .body = body, .status = 200, .events = 3};
    engine->server = http_server_open(t.loop, &conf, &err);
    assert_non_null(engine->server);
    engine->port = http_server_port(engine->server);
    http_server_listen(engine->server);
    return engine;
}

/* Its port stays known, and nobody listens there any more. */
static inline void engine_shut(TestEngine *engine) {
    http_server_close(engine->server);
    engine->server = NULL;
    engine->held = NULL;
}

static inline bool engine_saw(const TestEngine *engine, const char *text) {
    return engine->body_seen.at && strstr(engine->body_seen.at, text);
}

/* ---- the router ---- */

static void test_open(void) {
    t = (Test){.loop = loop_new(), .log = memfd_create("log", MFD_CLOEXEC)};
    t.client = http_client_new(t.loop);
}

/* The first `prefill` engines prefill, the rest of `count` decode; prefill 0: they do both. */
static void router_start(RouterConf conf, size_t prefill, size_t count) {
    static char urls[ENGINES][64];
    Err err = {0};
    conf.host = "127.0.0.1";
    conf.log_fd = t.log;
    conf.hand.model = "m";
    if (!conf.hand.connector) conf.hand.connector = "nixl";
    for (size_t i = 0; i < count; i++) {
        FlagList *list = !prefill      ? &conf.hand.engine
                         : i < prefill ? &conf.hand.prefill
                                       : &conf.hand.decode;
        snprintf(urls[i], sizeof urls[i], "http://127.0.0.1:%d", t.engines[i].port);
        list->at[list->count++] = urls[i];
    }
    t.router = router_open(t.loop, &conf, &err);
    if (!t.router) fail_msg("%s", err.message);
}

static void test_close(void) {
    router_close(t.router);
    http_client_free(t.client);
    for (size_t i = 0; i < ENGINES; i++) {
        http_server_close(t.engines[i].server);
        buf_done(&t.engines[i].body_seen);
        buf_done(&t.engines[i].headers_seen);
        buf_done(&t.engines[i].target_seen);
    }
    loop_free(t.loop);
    close(t.log);
}

static inline char *log_text(void) { /* free() it */
    loop_run_for(t.loop, 1);
    off_t length = lseek(t.log, 0, SEEK_END);
    char *text = mem_new((size_t)length + 1);
    assert_int_equal(pread(t.log, text, (size_t)length, 0), length);
    return text;
}

/* ---- clients ---- */

static void seen_head(HttpCall *call, int status, HttpHeaders headers, void *user) {
    Seen *seen = user;
    (void)call;
    seen->status = status;
    for (size_t i = 0; i < headers.count; i++) {
        for (size_t k = 0; k < headers.at[i].name.length; k++) {
            char c = headers.at[i].name.at[k];
            buf_char(&seen->head, c >= 'A' && c <= 'Z' ? (char)(c | 32) : c);
        }
        buf_printf(&seen->head, ": " STR_FMT "\n", STR_ARG(headers.at[i].value));
    }
}

static void seen_data(HttpCall *call, Str bytes, void *user) {
    Seen *seen = user;
    (void)call;
    seen->pieces++;
    buf_append(&seen->body, bytes.at, bytes.length);
}

static void seen_done(HttpCall *call, int status, Str body, const Err *failure, void *user) {
    Seen *seen = user;
    (void)call, (void)status, (void)body;
    seen->ended = true;
    seen->failed = failure != NULL;
    seen->ended_us = clock_mono_us();
    seen->call = NULL;
    buf_str(&seen->body, "");
}

static void send_to(Seen *seen, const char *method, const char *target, const char *body,
                    HttpHeaders headers) {
    static Str parts[64];
    static size_t used;
    Str *part = &parts[used++ % 64];
    *part = str_of(body);
    *seen = (Seen){0};
    HttpCallConf conf = {.host = "127.0.0.1",
                         .port = router_port(t.router),
                         .method = str_of(method),
                         .target = str_of(target),
                         .headers = headers,
                         .body = part,
                         .body_parts = 1,
                         .head = seen_head,
                         .data = seen_data,
                         .done = seen_done,
                         .user = seen};
    seen->call = http_call(t.client, &conf);
}

static inline void seen_free(Seen *seen) {
    buf_done(&seen->head);
    buf_done(&seen->body);
}

static inline void ask(Seen *seen, const char *body) {
    send_to(seen, "POST", CHAT, body, (HttpHeaders){0});
    WAIT_FOR(seen->ended);
}

/* The value of a reply's header, "" if it has none; valid until the next call. */
static inline const char *head_of(const Seen *seen, const char *name) {
    static char value[1024];
    auto_buf Buf key = {0};
    buf_printf(&key, "\n%s: ", name);
    auto_buf Buf all = {0};
    buf_printf(&all, "\n%s", seen->head.at ? seen->head.at : "");
    const char *at = strstr(all.at, key.at);
    if (!at) return "";
    at += key.length;
    snprintf(value, sizeof value, "%.*s", (int)strcspn(at, "\n"), at);
    return value;
}

#endif
