// SPDX-License-Identifier: Apache-2.0
/* internal.h - one server: what its parts share.
 *
 *   request --routes.c--> ask.c, messages.c, ask_check.c        what was asked
 *                         chat.c, prompt.c                      its prompts as tokens
 *                         sampling.c, params.c                  how to choose, whose KV to use
 *                         job.c --engine--> job.c               tokens come back, one by one
 *                         choice.c, logprobs.c, write.c         as text, as JSON
 *   reply   <--http-----  job.c
 *
 * Thread: all of it the loop's, but serve_deliver() and what the engine calls. */
#ifndef BATON_SERVE_INTERNAL_H
#define BATON_SERVE_INTERNAL_H

#include "ask.h"
#include "http/http.h"
#include "serve.h"

/* chat.c */
typedef struct Chat {
    Template *template;   /* NULL: the model has none */
    bool parts;           /* it wants content as a list of parts */
    Str tokens[4];        /* bos_token, eos_token, unk_token, pad_token; empty: none */
} Chat;
bool chat_parse(Chat *chat, const ServeConf *conf, const Gguf *gguf, Err *err) MUST_CHECK;
void chat_set_tokens(Chat *chat, const Gguf *gguf, const Tokenizer *tokenizer); /* views */
void chat_done(Chat *chat);
bool chat_loops_over_content(Str template_text);

/* http_stats.c: the numbers of HTTP itself, by endpoint. */
enum { HTTP_ENDPOINTS = 16, HTTP_METHODS = 3, HTTP_CLASSES = 4 };
typedef struct HttpStats {
    Counter requests[HTTP_ENDPOINTS][HTTP_METHODS][HTTP_CLASSES]; /* 2xx to 5xx */
    Counter request_bytes[HTTP_ENDPOINTS], reply_bytes[HTTP_ENDPOINTS];
    Histogram seconds[HTTP_ENDPOINTS][HTTP_METHODS], seconds_fine;
} HttpStats;

typedef enum DegradedHere {
    DEGRADED_NO_CONNECTOR,
    DEGRADED_ROLE,
    DEGRADED_STREAM,
    DEGRADED_HERE
} DegradedHere;

typedef struct ServeStats {
    Counter finished[FINISHES];      /* choices, as the client saw them */
    Counter degraded[DEGRADED_HERE]; /* what could not be honoured before the engine was asked */
    Histogram params_n, params_max_tokens, preemptions;
    HttpStats http;
} ServeStats;

typedef struct Serve {
    const ServeConf *conf;
    Loop *loop;
    HttpServer *http;
    Engine *engine;
    const Tokenizer *tokenizer;
    size_t context, vocab;
    Chat chat;
    char fingerprint[48];
    int64_t started_us;              /* wall clock */
    Mailbox *events;                 /* EngineEvent */
    Mailbox *notes;                  /* Note */
    bool draining;
    void (*drained)(void *user);     /* the engine is idle, and the last reply has left */
    size_t jobs;                     /* not given back yet */
    ServeStats stats;
} Serve;

const char *serve_name(const Serve *serve); /* of the model, as replies tell it */
bool serve_has_name(const Serve *serve, Str model);

/* serve.c */
void serve_open(Serve *serve, const ServeConf *conf, Loop *loop); /* what needs no engine */
void serve_attach(Serve *serve, Engine *engine);
void serve_drain(Serve *serve, void (*drained)(void *user)); /* user: the loop */
void serve_deliver(EngineEvent *event, void *user); /* EngineConf.deliver, on the worker */
void serve_done(Serve *serve);

/* routes.c */
void serve_handle(HttpRequest *request, void *user); /* HttpServerConf.handle */
const char *serve_error_body(int status, const char *message, Buf *body);

typedef struct Note { /* from the engine's worker to the loop */
    HttpRequest *request; /* that asked for the ledger; NULL: the engine is idle */
    char *json;
} Note;
void serve_reply_ledger(Serve *serve, const Note *note);

/* How a reply ended, for log and metrics; `detail` may be "". */
void serve_replied(Serve *serve, const HttpRequest *request, int status, size_t bytes,
                   const char *detail);
void serve_reply(Serve *serve, HttpRequest *request, int status, Str json, HttpHeaders extra,
                 const char *detail);
void serve_reply_problem(Serve *serve, HttpRequest *request, const Problem *problem);

/* prompt.c */
typedef struct Prompt {
    int32_t *ids;
    size_t count;
    Str text; /* as it was sent or rendered; empty for ids */
} Prompt;
typedef struct Prompts {
    Prompt *at;
    size_t count;
    Buf rendered; /* the chat's text */
} Prompts;
bool prompts_read(const Serve *serve, const Ask *ask, Prompts *out, Problem *problem) MUST_CHECK;
void prompts_done(Prompts *prompts);
bool prompt_encode(const Serve *serve, const Ask *ask, Str text, size_t limit, Tokens *out,
                   Problem *problem) MUST_CHECK;
bool prompt_ids(const Serve *serve, const json_t *list, Tokens *out, Problem *problem) MUST_CHECK;
bool chat_render(const Serve *serve, const Ask *ask, Buf *out, Problem *problem) MUST_CHECK;
int64_t ask_int_of(const json_t *value); /* of a list element that was checked */

/* sampling.c */
typedef struct Stops {
    Str at[LIMIT_STOP_STRINGS];
    size_t count, longest;
    bool included;        /* the stop string stays in the text */
} Stops;
typedef struct Choosing { /* how all choices of a request are made */
    Sampling sampling;    /* max_tokens: as asked, not cut to the context yet */
    Stops stops;
    uint32_t n;
    bool prompt_only;     /* echo with max_tokens 0 */
} Choosing;
bool choosing_read(const Serve *serve, const Ask *ask, Arena *arena, Choosing *out,
                   Problem *problem) MUST_CHECK;
uint32_t choosing_fit(const Serve *serve, uint32_t max_tokens, size_t prompt_count);

/* params.c: kv_transfer_params */
typedef struct KvAsk {
    HandOver hand_over;
    const char *peer_engine, *peer_request, *peer_host;
    int peer_port;
    char degraded[256];   /* why what was asked for is not done; "" */
} KvAsk;
bool kv_ask_read(Serve *serve, const Ask *ask, KvAsk *out, Problem *problem) MUST_CHECK;
void kv_offer_write(const Serve *serve, const EngineRequest *request, bool one_token, Buf *out);

/* metrics.c, http_stats.c */
void serve_stats_init(ServeStats *stats);
void serve_metrics(const Serve *serve, Buf *out);
void http_stats_init(HttpStats *stats);
void http_stats_note(HttpStats *stats, size_t endpoint, Str method, int status,
                     size_t request_bytes, size_t reply_bytes, double seconds);
void http_stats_write(const HttpStats *stats, double created, Buf *out);
const char *serve_endpoint_name(size_t endpoint); /* NULL behind the last; "" is not counted */

#endif
