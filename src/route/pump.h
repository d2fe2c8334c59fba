// SPDX-License-Identifier: Apache-2.0
/* pump.h - passes a stream of events on, whole events as they came, and sees what they tell.
 *
 *     engine ─▶ feed: held │ whole events ─▶ out ─▶ client
 *
 * Kept back is the usage chunk, if only the router asked for it (a chunk with usage and no
 * choices; one that carries text goes on).  What engines tell each other in a chunk becomes null.
 * An event that has not come whole waits, so that nothing is ever said after half an event. */
#ifndef BATON_ROUTE_PUMP_H
#define BATON_ROUTE_PUMP_H

#include "rewrite.h"

typedef struct RoutePump {
    Buf held;            /* the beginning of an event */
    Buf out;             /* for the client; the owner sends and clears it */
    bool hide_usage;
    void (*before_done)(Buf *out, void *user); /* may be NULL: what comes right before [DONE] */
    void *user;
    RouteUsage usage;    /* the last one that came */
    bool ended;          /* [DONE] came */
    bool failed;         /* an error event came */
} RoutePump;

void route_pump_init(RoutePump *pump, bool hide_usage); /* keeps the memory it had; {0} is fine */
bool route_pump_feed(RoutePump *pump, Str bytes); /* false: an event is over its limit */
void route_pump_finish(RoutePump *pump);          /* the stream is over: the rest as it is */
void route_pump_fail(RoutePump *pump, Str error); /* an error event and [DONE]; JSON, one line */
void route_pump_done(RoutePump *pump);

#endif
