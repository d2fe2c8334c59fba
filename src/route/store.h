// SPDX-License-Identifier: Apache-2.0
/* store.h - the objects that routing is made from, and the table made from them.
 *
 *     a folder, flags, later a watch ──apply, delete──▶ store ──publish──▶ table ──▶ requests
 *
 * What is applied was checked, so the table is never made from half an object.  Fields without
 * effect here are named once in the log and counted. */
#ifndef BATON_ROUTE_STORE_H
#define BATON_ROUTE_STORE_H

#include "table.h"

typedef enum RouteIgnored { /* why a field has no effect */
    IGNORED_RATE_LIMIT, IGNORED_PARENT_REFS, IGNORED_PROVIDER, IGNORED_UNKNOWN, ROUTE_IGNORED
} RouteIgnored;
const char *route_ignored_name(RouteIgnored field); /* "rateLimit" */

typedef struct RouteStore RouteStore;
RouteStore *route_store_new(void); /* with an empty table */
void route_store_free(RouteStore *store);
/* Replaces what had that kind, namespace and name; the tree is kept, do not change it any more. */
bool route_store_apply(RouteStore *store, json_t *object, Err *err) MUST_CHECK;
void route_store_delete(RouteStore *store, RouteKind kind, const char *namespace, const char *name);
void route_store_publish(RouteStore *store); /* what was applied and deleted takes effect */
RouteTable *route_store_table(const RouteStore *store); /* borrowed until the next publish */
uint64_t route_store_ignored(const RouteStore *store, RouteIgnored field);

#endif
