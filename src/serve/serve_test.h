// SPDX-License-Identifier: Apache-2.0
/* serve_test.h - a server with a scripted engine, and a client, on one loop and one thread.
 *
 * The engine here is a double: it stands in for src/engine by defining the same functions, computes
 * nothing and says what the test tells it to.  Tokens come from the real tokenizer of the test
 * model, whose weights are never loaded.
 *
 *     double_say("Hello")   the next answers are these tokens, then the end of the turn
 *     double_hold()         requests wait; double_emit() and double_end() do one step by hand */
#ifndef BATON_SERVE_TEST_H
#define BATON_SERVE_TEST_H

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include "io/loop_test.h"
#include "job.h"

struct Model {
    Gguf *gguf;
    Tokenizer *tokenizer;
    ModelShape shape;
};

#define DOUBLE_MAX 64

struct Engine {
    EngineConf conf;
    EngineStats stats;
    KvAgentStats kv;
    Tokens script;
    bool held;                   /* requests wait for double_emit() */
    bool logprobs_infinite;      /* the second choice is impossible */
    int refuse_from;             /* engine_submit() fails from so many requests on; -1: never */
    EngineRequest *requests[DOUBLE_MAX];
    bool aborted[DOUBLE_MAX], over[DOUBLE_MAX];
    size_t count;                /* of requests ever submitted */
    void (*idle)(void *user);
    void *idle_user;
};

static struct Model double_model;
static Engine double_engine;

const char *finish_name(Finish finish) {
    static const char *const names[FINISHES] = {"", "stop", "length", "abort", "error"};
    return names[finish];
}

static inline EngineEvent *double_event(size_t index, int32_t token, Finish finish) {
    EngineRequest *request = double_engine.requests[index];
    EngineEvent *event = mem_new(sizeof *event);
    *event = (EngineEvent){.request = request, .token = token, .stop_token = -1,
                           .last = finish != FINISH_NONE, .finish = finish};
    if (!request->clock.first_token && token >= 0) {
        request->clock = (RequestClock){.submitted = 1000, .admitted = 1010, .first_token = 1110};
        if (request->hand_over == HAND_PULL) {
            request->report = (RequestReport){.pulled = (uint32_t)request->prompt_count,
                                              .peer_cached = 2, .rail = KV_RAIL_SHM, .bytes = 4096,
                                              .transfer_us = 55};
        } else {
            request->report.computed = (uint32_t)request->prompt_count;
        }
    }
    if (token >= 0 && request->sampling.logprobs >= 0) {
        TokenLogprobs *logprobs = &event->logprobs;
        *logprobs = (TokenLogprobs){.token = token, .logprob = -0.5f, .rank = 1,
                                    .top_count = (uint32_t)request->sampling.logprobs};
        for (uint32_t i = 0; i < logprobs->top_count; i++) {
            logprobs->top_tokens[i] = token + (int32_t)i;
            logprobs->top_logprobs[i] = -0.5f - (float)i;
            if (i && double_engine.logprobs_infinite)
                logprobs->top_logprobs[i] = -3.4028235e38f * 10;
        }
    }
    return event;
}

static inline void double_send(size_t index, EngineEvent *event) {
    EngineRequest *request = event->request;
    if (event->last) {
        double_engine.over[index] = true;
        counter_add(&double_engine.stats.finished[event->finish], 1);
        bool good = event->finish == FINISH_LENGTH || event->finish == FINISH_STOP;
        if (request->hand_over == HAND_OFFER && good) {
            request->offer_blocks = mem_new(2 * sizeof *request->offer_blocks);
            request->offer_blocks[0] = 3;
            request->offer_blocks[1] = 4;
            request->offer_block_count = 2;
            request->offer_tokens = request->prompt_count;
            request->offer_cached = 16;
        }
    }
    double_engine.conf.deliver(event, double_engine.conf.user);
}

static inline void double_emit(size_t index, int32_t token) {
    double_send(index, double_event(index, token, FINISH_NONE));
}

static inline void double_end(size_t index, int32_t token, Finish finish) {
    double_send(index, double_event(index, token, finish));
}

static inline void double_fail(size_t index, ErrCode code, const char *message) {
    EngineEvent *event = double_event(index, -1, FINISH_ERROR);
    err_set(&event->err, code, "%s", message);
    double_send(index, event);
}

static inline void double_prompt_logprobs(EngineRequest *request) {
    if (request->sampling.prompt_logprobs < 0) return;
    request->prompt_logprobs = mem_new(request->prompt_count * sizeof *request->prompt_logprobs);
    for (size_t i = 1; i < request->prompt_count; i++)
        request->prompt_logprobs[i] = (TokenLogprobs){
            .token = request->prompt[i], .logprob = -2, .rank = 7,
            .top_count = request->sampling.prompt_logprobs > 0 ? 1 : 0,
            .top_tokens = {request->prompt[i] + 1}, .top_logprobs = {-1}};
}

/* The whole script at once: the events wait in the mailbox. */
static inline void double_answer(size_t index) {
    const Tokens *script = &double_engine.script;
    EngineRequest *request = double_engine.requests[index];
    double_prompt_logprobs(request);
    for (size_t i = 0; i < script->length; i++) {
        if (i + 1 >= request->sampling.max_tokens) {
            double_end(index, script->ids[i], FINISH_LENGTH);
            return;
        }
        for (size_t s = 0; s < request->sampling.stop_token_count; s++)
            if (request->sampling.stop_tokens[s] == script->ids[i]) {
                EngineEvent *event = double_event(index, script->ids[i], FINISH_STOP);
                event->stop_token = script->ids[i];
                double_send(index, event);
                return;
            }
        double_emit(index, script->ids[i]);
    }
    double_end(index, tokenizer_eos(double_model.tokenizer), FINISH_STOP);
}

/* ---- engine.h ---- */

Engine *engine_open(const EngineConf *conf, Err *err) {
    (void)conf;
    err_set(err, ERR_UNSUPPORTED, "a double is not opened");
    return NULL;
}

bool engine_submit(Engine *engine, EngineRequest *request, Err *err) {
    if (engine->refuse_from >= 0 && engine->count >= (size_t)engine->refuse_from) {
        err_set(err, ERR_EXHAUSTED, "the queue is full: 4 requests wait");
        return err_hint(err, "Try again later.");
    }
    assert_true(engine->count < DOUBLE_MAX && request->prompt_count > 0);
    size_t index = engine->count++;
    engine->requests[index] = request;
    if (!engine->held) double_answer(index);
    return true;
}

void engine_abort(Engine *engine, EngineRequest *request) {
    for (size_t i = 0; i < engine->count; i++) {
        if (engine->requests[i] != request || engine->over[i]) continue;
        engine->aborted[i] = true;
        double_end(i, -1, FINISH_ABORT);
    }
}

void engine_ledger(Engine *engine, void (*answer)(char *json, void *user), void *user) {
    (void)engine;
    answer(mem_dup_str("{\"balanced\":true}"), user);
}

static inline void double_tell_if_idle(void) {
    for (size_t i = 0; i < double_engine.count; i++)
        if (!double_engine.over[i]) return;
    if (double_engine.idle) double_engine.idle(double_engine.idle_user);
    double_engine.idle = NULL;
}

void engine_drain(Engine *engine, void (*idle)(void *user), void *user) {
    engine->idle = idle;
    engine->idle_user = user;
    double_tell_if_idle();
}

void engine_close(Engine *engine) { (void)engine; }
const EngineStats *engine_stats(const Engine *engine) { return &engine->stats; }
const KvAgentStats *engine_kv_stats(const Engine *engine) {
    return engine->conf.role == ROLE_NONE ? NULL : &engine->kv;
}
const Model *engine_model(const Engine *engine) { (void)engine; return &double_model; }
const char *engine_id(const Engine *engine) { (void)engine; return "engine-1"; }
int engine_kv_port(const Engine *engine) { (void)engine; return 4711; }
uint64_t engine_epoch(const Engine *engine) { (void)engine; return 1; }
const EngineConf *engine_conf(const Engine *engine) { return &engine->conf; }

/* ---- model.h ---- */

const ModelShape *model_shape(const Model *model) { return &model->shape; }
const Gguf *model_gguf(const Model *model) { return model->gguf; }
const Tokenizer *model_tokenizer(const Model *model) { return model->tokenizer; }
uint64_t model_fingerprint(const Model *model) { (void)model; return 0x123456789abcdef; }
static size_t double_context = 256;
size_t model_context(const Model *model) { (void)model; return double_context; }
size_t model_weight_bytes(const Model *model) { (void)model; return 0; }
unsigned model_threads(const Model *model) { (void)model; return 1; }

static inline const char *test_model_path(void) {
    static char path[4096];
    const char *given = getenv("BATON_TEST_MODEL");
    if (given) return given;
    serve_model_path(serve_model("smollm2"), path);
    return path;
}

static inline int double_load(void **state) {
    (void)state;
    Err err = {0};
    double_model.gguf = gguf_open(test_model_path(), &err);
    if (double_model.gguf) double_model.tokenizer = tokenizer_new(double_model.gguf, &err);
    if (!double_model.tokenizer || !shape_read(double_model.gguf, &double_model.shape, &err))
        fail_msg("%s (%s)", err.message, err.hint);
    log_set_level(LOG_OFF);
    return 0;
}

static inline int double_unload(void **state) {
    (void)state;
    tokenizer_free(double_model.tokenizer);
    gguf_close(double_model.gguf);
    return 0;
}

static inline void double_say(const char *text) {
    Err err = {0};
    tokens_done(&double_engine.script);
    double_engine.script = (Tokens){0};
    assert_true(tokenizer_encode(double_model.tokenizer, str_of(text), true, &double_engine.script,
                                 &err));
}

/* Answers token by token, also where a character takes several. */
static inline void double_say_tokens(const int32_t *ids, size_t count) {
    tokens_done(&double_engine.script);
    double_engine.script = (Tokens){0};
    for (size_t i = 0; i < count; i++) tokens_add(&double_engine.script, ids[i]);
}

/* ---- a server and its client ---- */

typedef struct Reply {
    int status;
    char *body, *headers; /* headers: "name: value\n" in lower case */
} Reply;

typedef struct Fixture {
    Loop *loop;
    ServeConf conf;
    Serve serve;
    HttpClient *client;
    Reply reply;
    bool done;
} Fixture;

static inline void fixture_start(Fixture *f, const char *const *flags) {
    const char *argv[32] = {"smollm2", "--host", "127.0.0.1", "--port", "0"};
    int argc = 5;
    Err err = {0};
    for (; flags && *flags; flags++) argv[argc++] = *flags;
    *f = (Fixture){.loop = loop_new()};
    double_engine = (Engine){.refuse_from = -1};
    if (!serve_conf_read(&f->conf, argc, (char *const *)argv, &err)) fail_msg("%s", err.message);
    serve_open(&f->serve, &f->conf, f->loop);
    double_engine.conf = (EngineConf){.role = f->conf.role,
                                      .block_tokens = 16,
                                      .pool_bytes = 1 << 20,
                                      .prefix_caching = true,
                                      .deliver = serve_deliver,
                                      .user = &f->serve};
    gauge_set(&double_engine.stats.blocks_total, 40);
    gauge_set(&double_engine.stats.blocks_held, 10);
    Histogram *all[] = {&double_engine.stats.first_token, &double_engine.stats.step_tokens};
    static const double bounds[] = {1, 8, 1000};
    for (size_t i = 0; i < COUNT_OF(all); i++) histogram_init(all[i], bounds, COUNT_OF(bounds));
    if (!chat_parse(&f->serve.chat, &f->conf, double_model.gguf, &err)) fail_msg("%s", err.message);
    serve_attach(&f->serve, &double_engine);
    HttpServerConf http = {.host = "127.0.0.1", .name = "baton", .handle = serve_handle,
                           .error_body = serve_error_body, .user = &f->serve};
    f->serve.http = http_server_open(f->loop, &http, &err);
    assert_non_null(f->serve.http);
    http_server_listen(f->serve.http);
    f->client = http_client_new(f->loop);
}

static inline void reply_free(Reply *reply) {
    free(reply->body);
    free(reply->headers);
    *reply = (Reply){0};
}

/* Every request must have come back; those that the double holds the test has ended. */
static inline void fixture_stop(Fixture *f) {
    LOOP_WAIT_FOR(f->loop, f->serve.jobs == 0);
    loop_run_for(f->loop, 1);
    reply_free(&f->reply);
    http_client_free(f->client);
    http_server_close(f->serve.http);
    serve_done(&f->serve);
    loop_free(f->loop);
    serve_conf_done(&f->conf);
    tokens_done(&double_engine.script);
}

static inline void on_reply(HttpCall *call, int status, Str body, const Err *failure, void *user) {
    Fixture *f = user;
    auto_buf Buf headers = {0};
    HttpHeaders all = http_call_headers(call);
    for (size_t i = 0; i < all.count; i++) {
        for (size_t c = 0; c < all.at[i].name.length; c++) {
            char letter = all.at[i].name.at[c];
            buf_char(&headers, letter >= 'A' && letter <= 'Z' ? (char)(letter + 32) : letter);
        }
        buf_printf(&headers, ": %.*s\n", STR_ARG(all.at[i].value));
    }
    reply_free(&f->reply);
    f->reply = (Reply){failure ? -1 : status, mem_dup_bytes(body.at ? body.at : "", body.length),
                       headers.at ? buf_take(&headers) : mem_dup_str("")};
    f->done = true;
    loop_stop(f->loop);
}

static inline HttpCall *send_call(Fixture *f, const char *method, const char *path,
                                  const char *header, Str body) {
    HttpHeader headers[3] = {{STR("Content-Type"), STR("application/json")}};
    size_t count = 1;
    if (header) {
        const char *colon = strchr(header, ':');
        HttpHeader own = {{header, (size_t)(colon - header)}, str_of(colon + 1)};
        if (str_starts(own.name, "Content-Type")) headers[0] = own;
        else headers[count++] = own;
    }
    static Str sent; /* one call at a time: it must live until done */
    sent = body;
    f->done = false;
    HttpCallConf conf = {.host = "127.0.0.1", .port = http_server_port(f->serve.http),
                         .method = str_of(method), .target = str_of(path),
                         .headers = {headers, count}, .body = &sent, .body_parts = 1,
                         .max_body = 8 * MIB, .done = on_reply, .user = f};
    return http_call(f->client, &conf);
}

static inline const Reply *wait_reply(Fixture *f) {
    LOOP_WAIT_FOR(f->loop, f->done);
    return &f->reply;
}

static inline const Reply *ask_with(Fixture *f, const char *method, const char *path,
                                    const char *header, const char *body) {
    send_call(f, method, path, header, str_of(body));
    return wait_reply(f);
}

static inline const Reply *post(Fixture *f, const char *path, const char *body) {
    return ask_with(f, "POST", path, NULL, body);
}

static inline const Reply *get(Fixture *f, const char *path) {
    return ask_with(f, "GET", path, NULL, "");
}

static inline void assert_contains(const char *text, const char *part) {
    if (!strstr(text, part)) fail_msg("no '%s' in: %s", part, text);
}

/* `text` without what differs each time: "id":"...", "created":N become "id":*, "created":*. */
static inline char *masked(const char *text) {
    static const char *const keys[] = {"\"id\":\"", "\"created\":", "\"remote_request_id\":\""};
    Buf out = {0};
    while (*text) {
        size_t k = 0;
        while (k < COUNT_OF(keys) && strncmp(text, keys[k], strlen(keys[k])) != 0) k++;
        if (k == COUNT_OF(keys)) {
            buf_char(&out, *text++);
            continue;
        }
        bool quoted = keys[k][strlen(keys[k]) - 1] == '"';
        buf_append(&out, keys[k], strlen(keys[k]) - quoted);
        buf_char(&out, '*');
        text += strlen(keys[k]);
        text += strcspn(text, quoted ? "\"" : ",}");
        if (quoted) text++;
    }
    return buf_take(&out);
}

static inline void assert_masked(const char *got, const char *want) {
    auto_free char *text = masked(got);
    assert_string_equal(text, want);
}

static inline void assert_body_starts(const char *got, const char *want) {
    auto_free char *text = masked(got);
    if (strncmp(text, want, strlen(want)) != 0) fail_msg("no '%s' before: %s", want, text);
}

#endif
