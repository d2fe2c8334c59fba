// SPDX-License-Identifier: Apache-2.0
/* record.h - what is known of one request, and the three places that tell it: the reply's header
 * Baton-Trace, the access log, the metrics.
 *
 * Baton-Trace:
 *     id=<id>; prefill=<pod>/<tokens>; decode=<pod>; computed=<n>; cached=<n>; pulled=<n>;
 *     bytes=<n>; rail=<shm|tcp|none>; route_us=<n>; prefill_us=<n>; transfer_us=<n>;
 *     first_token_us=<n>
 * and at the end of a stream also decode_us=<n>; tokens=<n>.
 *
 *     prefill         the pod that prefilled, "none" if none did, and how many prompt tokens it
 *                     computed: its Baton-Stages, or its usage.prompt_tokens
 *     computed        prompt tokens that the decode pod computed, found in its own cache and took
 *     cached pulled   from the prefill pod; they add up to the prompt.  All 0 if the decode pod
 *                     sends no Baton-Stages, as other engines do
 *     bytes rail transfer_us   of the KV, told by the decode pod; 0 and none otherwise
 *     route_us        from the request's first byte to the first call of an engine
 *     prefill_us      from the call of the prefill pod to its whole reply, the last attempt's
 *     first_token_us  from the request's first byte to the first token: when it came through here,
 *                     or, if the answer comes in one piece, when the decode pod says it had it
 *     decode_us       from the first token to the last byte
 *     tokens          that were generated */
#ifndef BATON_ROUTE_RECORD_H
#define BATON_ROUTE_RECORD_H

#include "rewrite.h"
#include "table.h"

typedef struct RouteStages { /* of a reply's header Baton-Stages */
    bool told;
    uint64_t computed, cached, pulled, bytes;
    int64_t queue_us, prefill_us, transfer_us, first_token_us;
    char rail[8];
} RouteStages;

typedef struct RouteRecord { /* its views outlive the request: it is told when that has ended */
    const char *id;
    Str method, path, model, client;
    const char *route, *server, *upstream_model; /* NULL: none yet */
    const char *prefill, *decode;                /* pods' names; NULL: none */
    int status, upstream_status;
    int attempts;
    const char *error_type; /* of the access log; NULL: none */
    const char *finish;     /* of the metrics: "successful_request" ... */
    const char *stage;      /* "prefill", "decode": where it failed; NULL */
    char error[512], degraded[256];
    bool stream;
    RouteUsage usage;
    uint64_t prefill_tokens;
    RouteStages stages;     /* the decode pod's */
    /* microseconds, monotonic; 0: it did not happen */
    int64_t wall_us;        /* the request's first byte, UTC */
    int64_t began_us, called_us, prefill_began_us, prefill_ended_us, decode_began_us, first_us,
        decode_ended_us, ended_us;
} RouteRecord;

void route_stages_read(Str header, RouteStages *out); /* zeroes, if there is no such header */
int64_t route_first_token_us(const RouteRecord *record);
int64_t route_span_us(int64_t from, int64_t to); /* 0 if one of them did not happen */
void route_trace_put(const RouteRecord *record, bool whole, Buf *out); /* the header's value */

typedef enum RouteLogFormat { ROUTE_LOG_TEXT, ROUTE_LOG_JSON, ROUTE_LOG_OFF } RouteLogFormat;
void route_log_put(const RouteRecord *record, RouteLogFormat format, Buf *out); /* one line */

#endif
