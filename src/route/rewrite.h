// SPDX-License-Identifier: Apache-2.0
/* rewrite.h - what a client's request becomes for prefill and for decode, and what of a reply the
 * client does not get.
 *
 *                 prefill                                    decode
 *     model       the ModelServer's, if it names one         the same
 *     stream, stream_options, min_tokens   cut out           as they came; include_usage is put in
 *     max_tokens  1                                          as it came
 *     max_completion_tokens, n, best_of    1 if given        as they came
 *     kv_transfer_params  "do_remote_decode"                 prefill's, byte for byte
 *
 * Everything else (seed, temperature, logprobs ...) stays, so that both sample the same first
 * token. A value of the wrong type stays too: the engine refuses it in its own words.  A client's
 * own kv_transfer_params reach no engine: they would make it connect wherever the client likes. */
#ifndef BATON_ROUTE_REWRITE_H
#define BATON_ROUTE_REWRITE_H

#include "body.h"

typedef struct RouteRequest {
    Body body;
    Str model;
    bool stream, usage_asked; /* "stream": true; include_usage is true in its stream_options */
    bool several_prompts;     /* of which a prefill engine can hand over one only */
} RouteRequest;

/* ERR_INVALID: no JSON object.  ERR_NOT_FOUND: no model, or nothing to answer. */
bool route_request_read(RouteRequest *request, Str text, Arena *arena, Err *err) MUST_CHECK;
void route_request_prompt(const RouteRequest *request,
                          Buf *out); /* its beginning, as prefix.h hashes it */

/* `model`: a JSON string with its quotes, or empty to leave it. */
void route_request_prefill(const RouteRequest *request, Str model, bool hand_over, BodyParts *out);
/* `params` empty: none.  True: the usage chunk was not asked for by the client. */
bool route_request_decode(const RouteRequest *request, Str model, Str params, Arena *arena,
                          BodyParts *out);

typedef struct RouteUsage { int64_t prompt, completion; } RouteUsage; /* -1: not told */
void route_reply_usage(const Body *reply, RouteUsage *usage); /* leaves it, if the reply has none */
/* What engines tell each other becomes null, as it is in the reply of an engine that works alone.
 * False: there is nothing of that kind. */
bool route_reply_clean(const Body *reply, BodyParts *out);

#endif
