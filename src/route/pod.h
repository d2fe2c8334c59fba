// SPDX-License-Identifier: Apache-2.0
/* pod.h - what the router knows about one pod while it works with it: load, health, prompts.
 *
 *     well --failure--> resting --time is up--> one request may try --success--> well
 *                          ^                          |
 *                          +-------- failure ---------+   rests twice as long, 30 s at most
 *
 * A failure is a pod that could not be reached, gave no whole reply, or answered 502, 503 or 504.
 * Resting is a preference: when nothing else is left, a resting pod is asked all the same.
 *
 * Shared: every routing table that lists the pod holds a reference, so it outlives its manifest as
 * long as requests run on it.  A pod that comes back under another address is a new one. */
#ifndef BATON_ROUTE_POD_H
#define BATON_ROUTE_POD_H

#include "prefix.h"

#define POD_REST_US 1000000
#define POD_REST_MOST_US 30000000

typedef struct RoutePod {
    unsigned refs;
    char *full;       /* "default/decode-0" */
    const char *name; /* "decode-0" */
    char *host;
    char *identity;   /* uid and address: another one is another pod */
    bool ready;
    uint32_t in_flight;    /* calls of it */
    uint32_t expected;     /* requests that it will decode: their prompts are computed elsewhere */
    uint32_t failures;     /* in a row */
    int64_t rests_until_us;
    bool trying;           /* the one request after a rest is on its way */
    uint64_t failed, answered;
    RoutePrefixes prefixes;
} RoutePod;

typedef enum RoutePodEnd { POD_ANSWERED, POD_FAILED, POD_NO_MATTER } RoutePodEnd;

RoutePod *route_pod_new(const char *full, const char *host, const char *identity);
RoutePod *route_pod_ref(RoutePod *pod);
void route_pod_unref(RoutePod *pod);
static inline uint32_t route_pod_load(const RoutePod *pod) {
    return pod->in_flight + pod->expected;
}
bool route_pod_rests(const RoutePod *pod, int64_t now_us);
void route_pod_begin(RoutePod *pod); /* a call to it; ends with exactly one route_pod_end() */
void route_pod_end(RoutePod *pod, RoutePodEnd end, const char *why, int64_t now_us);

#endif
