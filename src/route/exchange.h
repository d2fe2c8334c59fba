// SPDX-License-Identifier: Apache-2.0
/* exchange.h - one request on its way through the router.
 *
 *              +------------- another pair, at most ROUTE_ATTEMPTS in all ---+
 *              v                                                             |
 *     begin ─▶ PREFILL ──params──▶ DECODE ──first event──▶ STREAMING ──▶ end |
 *              | |                 | | |                    |                |
 *              | +── failed ───────|─+─|────────────────────|────────────────+
 *              |     (no 4xx)      |   |                    +─ failed ─▶ error event, [DONE], end
 *              +── 4xx ─▶ passed on, end                    |
 *                                  +── whole reply ─▶ end   |
 *     the client leaves, in any state: the call is cancelled at once, end
 *
 *     state      call          request     pair                      pump
 *     PREFILL    prefill's     unanswered  prefill, decode           -
 *     DECODE     decode's      unanswered  decode; prefill or NULL   what came, not sent
 *     WAITING    none          unanswered  the last attempt's        -
 *     STREAMING  decode's      begun       as in DECODE              events
 *
 * A pod's in-flight count goes up and down with the call; while prefill computes, the decode pod
 * expects the request, so that the next one sees it coming.  Nothing is sent twice: what fails
 * before the client has got a byte may be tried again, later it ends the stream with an error.
 * Decode may take KV that a failed decode did not ask for, as long as prefill surely still offers
 * it; otherwise prefill is asked again, and its old offer expires by itself.
 *
 * The request's memory goes with the last byte of its reply; the record holds copies.
 *
 * Files: exchange.c begins and ends, upstream.c calls engines, deliver.c answers the client. */
#ifndef BATON_ROUTE_EXCHANGE_H
#define BATON_ROUTE_EXCHANGE_H

#include "pump.h"
#include "router.h"

typedef enum ExchangeState { EX_PREFILL, EX_DECODE, EX_WAITING, EX_STREAMING } ExchangeState;

struct Exchange {
    Exchange *next, *prev;
    Exchange *next_unsent;
    bool is_unsent;
    Router *router;
    HttpRequest *request;
    ExchangeState state;
    Arena arena;
    RouteRequest asked;
    RoutePrompt prompt;
    RouteTable *table;
    RouteFound found; /* server NULL: none yet */
    RouteRecord record;
    char id[LIMIT_REQUEST_ID + 1];
    const char *model; /* the record's, as a string */
    bool known_model, trace_whole;

    int64_t attempt_began_us;
    RoutePair pair;
    RouteTried tried;
    HttpCall *call;
    RoutePod *pod;        /* that the call goes to */
    BodyParts parts;      /* its body */
    Buf params;           /* what prefill handed over; empty: nothing */
    int64_t params_until_us;
    char prefill_failure[200]; /* the last one; "": none, or made up for */
    bool from_params;     /* another decode pod is to take them */
    Timer *wait;          /* between attempts */
    Err failure;          /* of the last attempt */
    int failure_status;

    bool is_stream;       /* the reply is a stream of events */
    bool paused;
    RoutePump pump;
    Buf body;             /* of a reply that is none, though one was asked for */
};

/* exchange.c */
void exchange_begin(Router *router, HttpRequest *request);
void exchange_refuse(Exchange *ex, const Err *err, int status, const char *error_type,
                     const char *finish); /* replies and ends */
void exchange_end(Exchange *ex, int status, const char *finish);
void exchange_error(Exchange *ex, const char *type, const char *message); /* for the access log */
void exchange_drop_all(Router *router);

/* upstream.c */
void exchange_attempt(Exchange *ex);
void exchange_cancel(Exchange *ex); /* the call, if there is one: the pod is not to blame */

/* deliver.c: those that write the last byte are followed by exchange_end() */
void deliver_whole(Exchange *ex, int status, HttpHeaders headers, Str body); /* the last byte */
void deliver_stream(Exchange *ex);  /* the reply is a stream of events */
void deliver_events(Exchange *ex);  /* what the pump has goes out soon */
void deliver_flush(Exchange *ex);   /* now */
void deliver_end(Exchange *ex);     /* the stream is whole: the last byte */
void deliver_break(Exchange *ex, const Err *err,
                   int status); /* it is not: says so, the last byte */

/* An error as OpenAI's clients know it: {"error":{"message","type","param","code"}}. */
void route_error_put(Buf *out, int status, const Err *err);

#endif
