// SPDX-License-Identifier: Apache-2.0
/* The endpoints: which there are, who may use them, what the small ones answer. */
#include "job.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct Endpoint {
    const char *path;
    const char *method, *method_too; /* method_too: NULL, or a second one */
    void (*handle)(Serve *serve, HttpRequest *request);
    bool counted;                    /* in the metrics of HTTP */
} Endpoint;

/* ---- replies ---- */

static Str request_id(const HttpRequest *request, char hex[17]) {
    Str given = http_header(request->headers, "X-Request-Id");
    uint64_t random;
    if (given.length) return given;
    random_bytes(&random, sizeof random);
    snprintf(hex, 17, "%016llx", (unsigned long long)random);
    return str_of(hex);
}

static void reply_as(Serve *serve, HttpRequest *request, int status, const char *type, Str body,
                     HttpHeaders extra, const char *detail) {
    HttpHeader all[8];
    char hex[17];
    size_t count = 0;
    for (; count < extra.count && count < COUNT_OF(all) - 1; count++) all[count] = extra.at[count];
    if (serve->conf->request_id_headers)
        all[count++] = (HttpHeader){STR("X-Request-Id"), request_id(request, hex)};
    serve_replied(serve, request, status, body.length, detail);
    http_reply(request, status, type, body, (HttpHeaders){all, count});
}

void serve_reply(Serve *serve, HttpRequest *request, int status, Str json, HttpHeaders extra,
                 const char *detail) {
    reply_as(serve, request, status, "application/json", json, extra, detail);
}

void serve_reply_problem(Serve *serve, HttpRequest *request, const Problem *problem) {
    static const HttpHeader retry[] = {{{"Retry-After", 11}, {"1", 1}}};
    auto_buf Buf body = {0}, detail = {.limit = 200};
    problem_body(problem, &body);
    buf_append(&detail, problem->message.at,
               problem->message.length < 200 ? problem->message.length : 200);
    HttpHeaders extra = {retry, problem->status == 503};
    serve_reply(serve, request, problem->status, (Str){body.at, body.length}, extra, detail.at);
}

static void reply_json(Serve *serve, HttpRequest *request, const Buf *body) {
    serve_reply(serve, request, 200, (Str){body->at, body->length}, (HttpHeaders){0}, "");
}

static void reply_empty(Serve *serve, HttpRequest *request, int status) {
    reply_as(serve, request, status, NULL, (Str){"", 0}, (HttpHeaders){0}, "");
}

static void reply_detail(Serve *serve, HttpRequest *request, int status, HttpHeaders extra) {
    Str body = status == 404 ? STR("{\"detail\":\"Not Found\"}")
                             : STR("{\"detail\":\"Method Not Allowed\"}");
    serve_reply(serve, request, status, body, extra, "");
}

/* What cannot even be read as HTTP. */
const char *serve_error_body(int status, const char *message, Buf *body) {
    Problem problem = {.status = status, .type = http_status_text(status)};
    buf_str(&problem.message, message);
    problem_body(&problem, body);
    problem_done(&problem);
    return "application/json";
}

/* ---- models ---- */

const char *serve_name(const Serve *serve) { return serve->conf->served_names.at[0]; }

bool serve_has_name(const Serve *serve, Str model) {
    if (!model.length || serve->conf->any_model_name) return true;
    const FlagList *names = &serve->conf->served_names;
    for (size_t i = 0; i < names->count; i++)
        if (str_eq(model, names->at[i])) return true;
    return false;
}

static bool check_model(const Serve *serve, Str model, Problem *problem) {
    if (serve_has_name(serve, model)) return true;
    problem_set(problem, "model", "The model `%.*s` does not exist.",
                (int)(model.length < 128 ? model.length : 128), model.at);
    problem->status = 404;
    problem->type = "NotFoundError";
    buf_str(&problem->message, " Valid aliases: ");
    const FlagList *names = &serve->conf->served_names;
    for (size_t i = 0; i < names->count; i++)
        buf_printf(&problem->message, "%s%s", i ? ", " : "", names->at[i]);
    buf_char(&problem->message, '.');
    return false;
}

static void handle_models(Serve *serve, HttpRequest *request) {
    auto_buf Buf out = {0};
    long long created = (long long)(clock_wall_us() / 1000000);
    buf_str(&out, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < serve->conf->served_names.count; i++) {
        uint64_t random;
        random_bytes(&random, sizeof random);
        buf_printf(&out, "%s{\"id\":", i ? "," : "");
        buf_json_str(&out, str_of(serve->conf->served_names.at[i]));
        buf_printf(&out, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"vllm\",\"root\":",
                   created);
        buf_json_str(&out, str_of(serve->conf->model_path));
        buf_printf(
            &out,
            ",\"parent\":null,\"max_model_len\":%zu,\"permission\":[{\"id\":\"modelperm-%016llx\"",
            serve->context, (unsigned long long)random);
        buf_printf(
            &out, ",\"object\":\"model_permission\",\"created\":%lld,\"allow_create_engine\":false",
            created);
        buf_str(&out,
                ",\"allow_sampling\":true,\"allow_logprobs\":true,\"allow_search_indices\":false"
                ",\"allow_view\":true,\"allow_fine_tuning\":false,\"organization\":\"*\""
                ",\"group\":null,\"is_blocking\":false}]}");
    }
    buf_str(&out, "]}");
    reply_json(serve, request, &out);
}

/* ---- generation ---- */

static void generate(Serve *serve, HttpRequest *request, AskKind kind) {
    Ask ask;
    Prompts prompts = {0};
    Choosing choosing;
    KvAsk kv = {0};
    Arena arena = {0};
    Problem problem = {0};
    bool ok = ask_read(&ask, kind, request->body, &problem) && ask_check(&ask, &problem) &&
              check_model(serve, ask.model, &problem) && kv_ask_read(serve, &ask, &kv, &problem) &&
              prompts_read(serve, &ask, &prompts, &problem) &&
              choosing_read(serve, &ask, &arena, &choosing, &problem);
    if (ok && prompts.count * choosing.n > (size_t)serve->conf->max_queued)
        ok = problem_set(&problem, "n",
                         "%zu prompts with n=%u ask for more than the %lld answers that "
                         "may wait: send fewer, or raise --max-num-queued-reqs",
                         prompts.count, choosing.n, (long long)serve->conf->max_queued);
    if (ok) {
        job_start(serve, request, &ask, &prompts, &choosing, &kv, &arena);
    } else {
        if (kv.hand_over == HAND_PULL) job_release_offer(serve, &kv);
        serve_reply_problem(serve, request, &problem);
        prompts_done(&prompts);
        arena_done(&arena);
        ask_done(&ask);
    }
    problem_done(&problem);
}

static void handle_chat(Serve *serve, HttpRequest *request) { generate(serve, request, ASK_CHAT); }

static void handle_completion(Serve *serve, HttpRequest *request) {
    generate(serve, request, ASK_COMPLETION);
}

/* ---- tokens ---- */

static void put_tokens(const Serve *serve, const Tokens *tokens, bool strings, Buf *out) {
    buf_printf(out, "{\"count\":%zu,\"max_model_len\":%zu,\"tokens\":[", tokens->length,
               serve->context);
    for (size_t i = 0; i < tokens->length; i++) {
        if (i) buf_char(out, ',');
        buf_json_int(out, tokens->ids[i]);
    }
    buf_str(out, "],\"token_strs\":");
    buf_str(out, strings ? "[" : "null");
    for (size_t i = 0; strings && i < tokens->length; i++) {
        if (i) buf_char(out, ',');
        buf_json_str(out, tokenizer_token_str(serve->tokenizer, tokens->ids[i]));
    }
    buf_str(out, strings ? "]}" : "}");
}

static bool tokenize(const Serve *serve, const Ask *ask, Tokens *tokens, Problem *problem) {
    auto_buf Buf rendered = {.limit = LIMIT_TEMPLATE_OUTPUT};
    Str text = {json_string_value(ask->prompt), json_string_length(ask->prompt)};
    if (ask->messages) {
        if (!chat_render(serve, ask, &rendered, problem)) return false;
        text = (Str){rendered.at ? rendered.at : "", rendered.length};
    }
    if (text.length > LIMIT_TOKENIZE)
        return problem_set(problem, "prompt", "the text has %zu bytes, %zu at most", text.length,
                           LIMIT_TOKENIZE);
    return prompt_encode(serve, ask, text, 0, tokens, problem);
}

static void handle_tokenize(Serve *serve, HttpRequest *request) {
    Ask ask;
    Problem problem = {0};
    auto_tokens Tokens tokens = {0};
    auto_buf Buf out = {0};
    bool ok = ask_read(&ask, ASK_TOKENIZE, request->body, &problem) &&
              check_model(serve, ask.model, &problem) && tokenize(serve, &ask, &tokens, &problem);
    if (ok) {
        put_tokens(serve, &tokens, ask_is(ask.return_token_strs, false), &out);
        reply_json(serve, request, &out);
    } else {
        serve_reply_problem(serve, request, &problem);
    }
    ask_done(&ask);
    problem_done(&problem);
}

static void handle_detokenize(Serve *serve, HttpRequest *request) {
    Ask ask;
    Problem problem = {0};
    auto_tokens Tokens tokens = {0};
    auto_buf Buf out = {0}, text = {0};
    bool ok = ask_read(&ask, ASK_DETOKENIZE, request->body, &problem) &&
              check_model(serve, ask.model, &problem) &&
              prompt_ids(serve, ask.tokens, &tokens, &problem);
    if (ok) {
        Detok detok;
        detok_init(&detok, serve->tokenizer, false);
        for (size_t i = 0; i < tokens.length; i++) detok_add(&detok, tokens.ids[i], &text);
        detok_flush(&detok, &text);
        buf_str(&out, "{\"prompt\":");
        buf_json_str(&out, (Str){text.at ? text.at : "", text.length});
        buf_char(&out, '}');
        reply_json(serve, request, &out);
    } else {
        serve_reply_problem(serve, request, &problem);
    }
    ask_done(&ask);
    problem_done(&problem);
}

/* ---- about the server ---- */

static void handle_health(Serve *serve, HttpRequest *request) {
    reply_empty(serve, request, serve->draining ? 503 : 200);
}

static void handle_version(Serve *serve, HttpRequest *request) {
    serve_reply(serve, request, 200, STR("{\"version\":\"" BATON_VERSION "\"}"), (HttpHeaders){0},
                "");
}

static void handle_load(Serve *serve, HttpRequest *request) {
    auto_buf Buf out = {0};
    buf_printf(&out, "{\"server_load\":%zu}", serve->jobs);
    reply_json(serve, request, &out);
}

static void handle_metrics(Serve *serve, HttpRequest *request) {
    auto_buf Buf out = {0};
    serve_metrics(serve, &out);
    reply_as(serve, request, 200, PROM_CONTENT_TYPE, (Str){out.at, out.length}, (HttpHeaders){0},
             "");
}

typedef struct LedgerAsk { Serve *serve; HttpRequest *request; } LedgerAsk;

static void on_ledger(char *json, void *user) { /* on the worker */
    LedgerAsk *ask = user;
    Note *note = mem_new(sizeof *note);
    *note = (Note){.request = ask->request, .json = json};
    mailbox_send(ask->serve->notes, note);
    free(ask);
}

static void handle_ledger(Serve *serve, HttpRequest *request) {
    LedgerAsk *ask = mem_new(sizeof *ask);
    *ask = (LedgerAsk){serve, request};
    engine_ledger(serve->engine, on_ledger, ask);
}

void serve_reply_ledger(Serve *serve, const Note *note) {
    serve_reply(serve, note->request, 200, str_of(note->json), (HttpHeaders){0}, "");
}

/* ---- the table ---- */

static const Endpoint endpoints[] = {
    {"/v1/chat/completions", "POST", NULL, handle_chat, true},
    {"/v1/completions", "POST", NULL, handle_completion, true},
    {"/v1/models", "GET", NULL, handle_models, true},
    {"/tokenize", "POST", NULL, handle_tokenize, true},
    {"/detokenize", "POST", NULL, handle_detokenize, true},
    {"/ledger", "GET", NULL, handle_ledger, true},
    {"/health", "GET", NULL, handle_health, false},
    {"/ping", "GET", "POST", handle_health, false},
    {"/version", "GET", NULL, handle_version, false},
    {"/metrics", "GET", NULL, handle_metrics, false},
    {"/load", "GET", NULL, handle_load, false},
};
static_assert(COUNT_OF(endpoints) < HTTP_ENDPOINTS, "one more counts all other paths");

const char *serve_endpoint_name(size_t endpoint) {
    if (endpoint < COUNT_OF(endpoints))
        return endpoints[endpoint].counted ? endpoints[endpoint].path : "";
    return endpoint == COUNT_OF(endpoints) ? "none" : NULL;
}

/* Without what a proxy put in front. */
static Str path_of(const Serve *serve, const HttpRequest *request) {
    Str path = request->path;
    const char *root = serve->conf->root_path;
    size_t length = root ? strlen(root) : 0;
    while (length && root[length - 1] == '/') length--;
    if (length && path.length > length && !memcmp(path.at, root, length) && path.at[length] == '/')
        path = (Str){path.at + length, path.length - length};
    return path;
}

static size_t find_endpoint(Str path) {
    size_t i = 0;
    while (i < COUNT_OF(endpoints) && !str_eq(path, endpoints[i].path)) i++;
    return i;
}

static bool is_silent(const Serve *serve, Str path) {
    Str rest = str_of(serve->conf->silent_paths), one;
    while (rest.length && str_cut(&rest, ',', &one))
        if (str_same(str_trim(one), path)) return true;
    return serve->conf->no_access_log;
}

void serve_replied(Serve *serve, const HttpRequest *request, int status, size_t bytes,
                   const char *detail) {
    Str path = path_of(serve, request);
    double seconds = (double)(clock_mono_us() - request->began_us) / 1e6;
    http_stats_note(&serve->stats.http, find_endpoint(path), request->method, status,
                    request->body.length, bytes, seconds);
    if (is_silent(serve, path)) return;
    log_info("serve: %s \"%.*s %.*s\" %d in %.1f ms%s%s", request->peer, STR_ARG(request->method),
             (int)(path.length < 256 ? path.length : 256), path.at, status, seconds * 1e3,
             *detail ? ": " : "", detail);
}

/* ---- who may come in ---- */

static bool same_secret(Str a, Str b) { /* in a time that does not tell where they differ */
    if (a.length != b.length) return false;
    unsigned char differs = 0;
    for (size_t i = 0; i < a.length; i++)
        differs |= (unsigned char)a.at[i] ^ (unsigned char)b.at[i];
    return !differs;
}

static bool may_pass(const Serve *serve, const HttpRequest *request, Str path) {
    static const char *const guarded[] = {"/v1", "/v2", "/inference", "/cohere"};
    const FlagList *keys = &serve->conf->api_keys;
    bool free_path = true;
    for (size_t i = 0; i < COUNT_OF(guarded); i++)
        if (str_starts(path, guarded[i])) free_path = false;
    if (!keys->count || free_path || str_eq(request->method, "OPTIONS")) return true;
    Str value = http_header(request->headers, "Authorization"), scheme;
    if (!str_cut(&value, ' ', &scheme) || scheme.length != 6 ||
        strncasecmp(scheme.at, "bearer", 6) != 0 || !value.at)
        return false;
    bool known = false;
    for (size_t i = 0; i < keys->count; i++)
        known |= same_secret(str_trim(value), str_of(keys->at[i]));
    return known;
}

static bool is_json(const HttpRequest *request) {
    Str type = http_header(request->headers, "Content-Type"), media = {0};
    str_cut(&type, ';', &media);
    media = str_trim(media);
    return media.length == 16 && !strncasecmp(media.at, "application/json", 16);
}

static bool check_admission(Serve *serve, const HttpRequest *request, Problem *problem) {
    if (!str_eq(request->method, "POST") || str_eq(path_of(serve, request), "/ping")) return true;
    if (serve->draining) {
        Err err = {0};
        err_set(&err, ERR_UNAVAILABLE, "the engine is shutting down");
        err_hint(&err, "Send the request to another engine.");
        return problem_from_err(problem, &err);
    }
    if (is_json(request)) return true;
    problem_set(problem, NULL, "1 validation error:\n  Unsupported Media Type: Only "
                               "'application/json' is allowed");
    problem->type = "Bad Request";
    return false;
}

void serve_handle(HttpRequest *request, void *user) {
    Serve *serve = user;
    Str path = path_of(serve, request);
    const Endpoint *endpoint = &endpoints[find_endpoint(path)];
    Problem problem = {0};
    if (!may_pass(serve, request, path)) {
        serve_reply(serve, request, 401, STR("{\"error\":\"Unauthorized\"}"), (HttpHeaders){0}, "");
    } else if (endpoint == endpoints + COUNT_OF(endpoints)) {
        reply_detail(serve, request, 404, (HttpHeaders){0});
    } else if (!str_eq(request->method, endpoint->method) &&
               !(endpoint->method_too && str_eq(request->method, endpoint->method_too))) {
        HttpHeader allow = {STR("Allow"), str_of(endpoint->method)};
        reply_detail(serve, request, 405, (HttpHeaders){&allow, 1});
    } else if (!check_admission(serve, request, &problem)) {
        serve_reply_problem(serve, request, &problem);
    } else {
        endpoint->handle(serve, request);
    }
    problem_done(&problem);
}
