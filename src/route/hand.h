// SPDX-License-Identifier: Apache-2.0
/* hand.h - feeds the store from flags: one model, and the addresses of its engines.
 *
 *     --model smollm2 --prefill http://127.0.0.1:8101 --decode http://127.0.0.1:8102
 *
 * makes the objects that a manifest would hold: a ModelRoute and a ModelServer named after the
 * model, and the Pods prefill-0, decode-0, ... (or engine-0 for --engine) in one group. */
#ifndef BATON_ROUTE_HAND_H
#define BATON_ROUTE_HAND_H

#include "store.h"

typedef struct RouteHand {
    const char *model, *connector;
    FlagList prefill, decode, engine; /* addresses */
} RouteHand;

bool route_hand_given(const RouteHand *hand);
bool route_hand_feed(RouteStore *store, const RouteHand *hand, Err *err) MUST_CHECK;

#endif
