// SPDX-License-Identifier: Apache-2.0
/* engine.h - turns requests into tokens: continuous batching, chunked prefill, roles prefill,
 * decode, both.
 *
 *     submit ─▶ WAITING ─▶ RUNNING (prompt in chunks, then a token a step) ─▶ finished
 *                 │  ▲        │
 *                 │  └────────┘ preempted: its blocks are needed, it computes again later
 *                 └─▶ LOADING (its KV comes from a prefill engine) ─▶ RUNNING
 *
 * One worker thread owns model, KV pool and requests.  Each step it takes the messages that came,
 * plans (running requests first, then waiting ones, within max_batched_tokens), runs one forward
 * pass and delivers an event for every token.  Events arrive on the worker's thread: `deliver`
 * sends them on to the loop that serves the client.
 *
 * An EngineRequest is built by the caller, belongs to the engine from engine_submit() until the
 * event with last == true is delivered, and then belongs to the caller again.  Events carry copies:
 * nothing else is shared. Whatever ends a request, its blocks are back in the ledger before its
 * last event is delivered. */
#ifndef BATON_ENGINE_H
#define BATON_ENGINE_H

#include "io/io.h"
#include "kv/kv.h"
#include "model/model.h"

typedef struct LogitBias { int32_t token; float bias; } LogitBias;

typedef struct Sampling {      /* checked by the caller; the comments give the neutral values */
    float temperature;         /* 0: greedy */
    float top_p, min_p;        /* 1, 0 */
    int32_t top_k;             /* 0: all */
    float presence_penalty, frequency_penalty, repetition_penalty; /* 0, 0, 1 */
    bool seeded;               /* the same seed gives the same tokens */
    uint64_t seed;
    uint32_t max_tokens, min_tokens;
    bool ignore_eos;
    int32_t logprobs; /* of each token: how many of the most likely beside it; -1: none at all */
    int32_t prompt_logprobs;   /* the same for each prompt token */
    const int32_t *stop_tokens;
    size_t stop_token_count;
    const LogitBias *bias;
    size_t bias_count;
} Sampling;

typedef struct TokenLogprobs { /* of one place */
    int32_t token;
    float logprob;
    uint32_t rank;             /* 1: the most likely */
    uint32_t top_count;
    int32_t top_tokens[LIMIT_LOGPROBS];
    float top_logprobs[LIMIT_LOGPROBS];
} TokenLogprobs;

typedef enum Finish {
    FINISH_NONE,
    FINISH_STOP,
    FINISH_LENGTH,
    FINISH_ABORT,
    FINISH_ERROR,
    FINISHES
} Finish;
const char *finish_name(Finish finish); /* "stop", "length", "abort", "error" */

typedef enum HandOver {
    HAND_NONE,
    HAND_OFFER,
    HAND_PULL
} HandOver; /* do_remote_decode, do_remote_prefill */

typedef struct RequestClock {  /* monotonic microseconds; 0: it did not happen */
    int64_t submitted, admitted, pull_began, pull_ended, first_token, last_token;
} RequestClock;

typedef struct RequestReport { /* how the prompt's KV came about; whole from the first token on */
    uint32_t computed, cached, pulled; /* prompt tokens by source: they add up to the prompt */
    uint32_t peer_cached;      /* of the pulled ones, how many the prefill engine had cached */
    bool first_token_pulled;   /* the first token came with the KV */
    KvRail rail;
    uint64_t bytes;
    int64_t transfer_us;
    char rail_reason[160];     /* why not a better rail, "" if it was the best */
    char degraded[256]; /* why the prompt was computed here although a prefill engine had it; "" if
                           not */
    uint32_t preemptions;
} RequestReport;

typedef struct EngineRequest {
    char id[160];              /* "chatcmpl-..." : ledger, log, and the offer's name */
    int32_t *prompt;           /* at least 1 token, all below vocab */
    size_t prompt_count;
    Sampling sampling;
    char cache_salt[129];      /* "": none; requests share cached KV with the same salt only */
    HandOver hand_over;
    char peer_engine[128], peer_host[256], peer_request[160]; /* HAND_PULL */
    int peer_port;
    struct EngineRequest
        *after; /* NULL, or a sibling: wait until its prompt is in the cache (n > 1) */
    bool strict;               /* degraded is an error */
    void *user;
    /* written by the worker, read by the caller after an event of this request */
    RequestClock clock;
    RequestReport report;
    TokenLogprobs *prompt_logprobs; /* [prompt_count], [0] is empty; allocated when asked for; whole
                                       with the first token */
    KvBlock *offer_blocks;     /* HAND_OFFER, with the last event: what was leased; else NULL */
    size_t offer_block_count, offer_tokens;
    uint32_t offer_cached;
    struct EngineTask *task_;  /* the worker's own */
} EngineRequest;

typedef struct EngineEvent {   /* free() it */
    EngineRequest *request;
    int32_t token;             /* -1: none (the request ended without one more) */
    TokenLogprobs logprobs;    /* when asked for */
    bool last;
    Finish finish;
    int32_t stop_token;        /* the stop_tokens entry that ended it, else -1 */
    Err err;                   /* FINISH_ERROR */
} EngineEvent;

typedef enum EngineRole {
    ROLE_NONE,
    ROLE_PRODUCER,
    ROLE_CONSUMER,
    ROLE_BOTH
} EngineRole; /* kv_role */

typedef struct EngineConf {
    ModelConf model;
    const char *name;          /* first served name: metrics */
    size_t
        pool_bytes; /* 0: four sequences of the full context, but at most 40 % of the free memory */
    size_t max_sequences, max_batched_tokens, max_queued;
    size_t block_tokens; /* prefix hits are whole multiples of it: a multiple of KV_BLOCK_TOKENS */
    bool prefix_caching, strict;
    uint64_t seed;
    EngineRole role;
    const char *engine_id;     /* NULL: random */
    const char *kv_host;       /* advertised and bound */
    int kv_port;               /* 0: any */
    KvRail rail;
    int64_t lease_us, pull_us; /* how long an offer stands; how long a pull may take */
    void (*deliver)(EngineEvent *event, void *user); /* on the worker's thread */
    void *user;
} EngineConf;

typedef struct EngineStats {
    Gauge running, waiting, loading, blocks_total, blocks_free, blocks_cached, blocks_held,
        blocks_leased, leases;
    Counter prompt_tokens, generation_tokens, computed_tokens, cached_tokens, pulled_tokens,
        preemptions, steps;
    Counter prefix_queries, prefix_hits, external_queries, external_hits, finished[FINISHES],
        rejected, degraded;
    Counter degraded_by[ERR_CODES]; /* the cause's code */
    Histogram first_token, inter_token, end_to_end, queue, prefill, decode, inference,
        per_output_token;
    Histogram step_tokens, request_prompt, request_generation, request_max_tokens, request_computed;
} EngineStats;

typedef struct Engine Engine;
Engine *engine_open(const EngineConf *conf,
                    Err *err) MUST_CHECK; /* loads the model; seconds for large ones */
bool engine_submit(Engine *engine, EngineRequest *request,
                   Err *err) MUST_CHECK; /* false: still yours */
void engine_abort(
    Engine *engine,
    EngineRequest *request); /* the last event still comes; harmless when it is on its way */
void engine_ledger(Engine *engine, void (*answer)(char *json, void *user),
                   void *user); /* on the worker; json is yours */
void engine_drain(Engine *engine, void (*idle)(void *user),
                  void *user);     /* idle, on the worker: no request, no lease is left */
void engine_close(Engine *engine); /* ends what still runs: FINISH_ABORT */
const EngineStats *engine_stats(const Engine *engine);
const KvAgentStats *engine_kv_stats(const Engine *engine); /* NULL without a role */
const Model *engine_model(const Engine *engine);
const char *engine_id(const Engine *engine);
int engine_kv_port(const Engine *engine);
uint64_t engine_epoch(const Engine *engine);
const EngineConf *engine_conf(const Engine *engine); /* as it is in effect */

#endif
