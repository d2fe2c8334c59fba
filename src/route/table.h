// SPDX-License-Identifier: Apache-2.0
/* table.h - who serves which model: read-only, made whole from the objects, swapped when they
 * change.
 *
 *     model name ─▶ entries, oldest first ─▶ the first rule that fits ─▶ one target, by weight
 *                                                 │
 *         server: aggregated ─▶ members           ▼
 *                 apart ─▶ members (decode) and prefill, in groups of one number each
 *
 * Only pods that are ready are members.  A request keeps the table it began with. */
#ifndef BATON_ROUTE_TABLE_H
#define BATON_ROUTE_TABLE_H

#include "match.h"
#include "objects.h"
#include "pod.h"

#define ROUTE_ATTEMPTS 3 /* of one request, at most */

typedef struct RouteMember {
    RoutePod *pod;
    int port;
    uint32_t group; /* prefill and decode of one number belong together */
    uint32_t prefill_from,
        prefill_count; /* of a decode pod: its group's in the server's `prefill` */
    char peer[80];  /* "127.0.0.1:8001", for messages */
} RouteMember;

typedef struct RouteServer {
    const char *full;   /* "default/smollm2" */
    const char *model;  /* what its engines call the model; NULL: as the client does */
    Str model_json;     /* the same with quotes; empty if NULL */
    RouteConnector connector;
    bool apart;         /* prefill and decode in pods of their own */
    const RouteMember *members, *prefill;
    size_t member_count, prefill_count;
    int attempts;       /* 1 to ROUTE_ATTEMPTS */
    int64_t retry_us;   /* between two of them */
    int64_t timeout_us; /* from the beginning of an attempt to its first byte; 0: none */
} RouteServer;

typedef struct RouteTarget {
    const char *name;          /* "default/smollm2" */
    const RouteServer *server; /* NULL: there is none of that name */
    bool external;             /* a provider elsewhere, which this router cannot use */
    uint32_t weight;
} RouteTarget;

typedef struct ModelRoute {
    const char *full, *created;
    const RouteRule *rules;
    size_t rule_count;
} ModelRoute;

typedef struct RouteEntry {
    const char *model;
    bool adapter; /* a LoRA adapter's name: it goes to the engine as it is */
    const ModelRoute *route;
} RouteEntry;

typedef struct RouteTable {
    unsigned refs;
    Arena arena;
    const RouteEntry *entries; /* by model, adapters last, oldest first */
    size_t entry_count;
    const char *const *models; /* each once, in order */
    size_t model_count;
    RoutePod **pods;           /* by name, ready or not */
    size_t pod_count;
    RouteRegex **regexes;
    size_t regex_count, regex_room;
} RouteTable;

typedef struct RouteFound {
    const ModelRoute *route;
    const RouteServer *server;
    bool adapter;
} RouteFound;

/* `before` lends what it knows about pods that stay; NULL at first.  Objects were checked. */
RouteTable *route_table_new(const json_t *const objects[ROUTE_KINDS], const RouteTable *before);
RouteTable *route_table_ref(RouteTable *table);
void route_table_unref(RouteTable *table);

/* ERR_NOT_FOUND: no such model, rule or server.  ERR_UNAVAILABLE: no pod is ready.  `draw` is
 * random. */
bool route_table_find(const RouteTable *table, Str model, Str path, HttpHeaders headers,
                      uint64_t draw, RouteFound *found, Err *err) MUST_CHECK;
bool route_table_knows(const RouteTable *table, Str model);

#endif
