// SPDX-License-Identifier: Apache-2.0
/* schedule.h - which pods a request goes to: the decode pod first, then a prefill pod of its group.
 *
 * Not asked are pods that this request has tried, and, unless nothing else is left, pods that rest.
 * Of the others the highest score wins, a draw by lot:
 *     score = 100 * (most - in flight) / most        most: of the candidates; 100 if that is 0
 *           + 100 * matched blocks / blocks          of the prompt's beginning; see prefix.h */
#ifndef BATON_ROUTE_SCHEDULE_H
#define BATON_ROUTE_SCHEDULE_H

#include "table.h"

typedef struct RoutePrompt { uint64_t hashes[PREFIX_BLOCKS]; size_t count; } RoutePrompt;
typedef struct RouteTried { const RoutePod *at[2 * ROUTE_ATTEMPTS]; size_t count; } RouteTried;
typedef struct RouteRandom { uint64_t state; } RouteRandom; /* seeded with anything but 0 */
typedef struct RoutePair { const RouteMember *prefill, *decode; } RoutePair;

uint64_t route_random(RouteRandom *random);
void route_tried_add(RouteTried *tried, const RoutePod *pod);
unsigned route_score_load(uint32_t load, uint32_t most);
unsigned route_score_prefix(size_t matched, size_t total);
double route_prompt_ratio(const RouteServer *server,
                          const RoutePrompt *prompt); /* the best pod's */

/* A server of aggregated pods: prefill is NULL.  One that is apart: both, or, where no prefill pod
 * is left, decode alone.  False: no pod is left at all. */
bool route_pick(const RouteServer *server, const RoutePrompt *prompt, const RouteTried *tried,
                int64_t now_us, RouteRandom *random, RoutePair *pair);
/* Another decode pod for KV that a prefill pod has ready; NULL: none is left. */
const RouteMember *route_pick_decode(const RouteServer *server, uint32_t group,
                                     const RoutePrompt *prompt, const RouteTried *tried,
                                     int64_t now_us, RouteRandom *random);

#endif
