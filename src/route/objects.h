// SPDX-License-Identifier: Apache-2.0
/* objects.h - ModelRoute, ModelServer and Pod as JSON trees: what they must look like, and how
 * their fields are read.
 *
 * A path names a field as people write it, "spec.workloadPort.port"; keys that hold dots themselves
 * (labels, annotations) are read with json_object_get().  Of a Pod only what the router reads is
 * checked.  Strings are borrowed from the tree. */
#ifndef BATON_ROUTE_OBJECTS_H
#define BATON_ROUTE_OBJECTS_H

#include "text/text.h"

#define ROUTE_API "networking.serving.volcano.sh/v1alpha1"
#define ROUTE_PORT_ANNOTATION "baton.dev/port" /* of a Pod: its port, instead of workloadPort */

typedef enum RouteKind {
    KIND_ROUTE,
    KIND_SERVER,
    KIND_POD,
    KIND_OTHER,
    ROUTE_KINDS = KIND_OTHER
} RouteKind;
typedef enum RouteConnector {
    CONNECT_HTTP,     /* prefill fills a cache that decode finds by itself */
    CONNECT_LMCACHE,  /* the same */
    CONNECT_NIXL,     /* prefill's reply says in kv_transfer_params where decode finds the KV */
    CONNECT_MOONCAKE, /* the same */
    ROUTE_CONNECTORS
} RouteConnector;

RouteKind route_object_kind(const json_t *object);
const char *route_kind_name(RouteKind kind);            /* "ModelRoute" */
const char *route_namespace(const json_t *object);      /* "default" if it names none */
const char *route_name(const json_t *object);           /* "" if it has none */
const json_t *route_at(const json_t *object, const char *path); /* NULL: not there, or null */
const char *route_text(const json_t *object, const char *path, const char *fallback);
int64_t route_number(const json_t *object, const char *path, int64_t fallback);

/* Every wanted label is there with that value; false if none is wanted. */
bool route_labels_match(const json_t *object, const json_t *wanted);
bool route_duration(const char *text, int64_t *us); /* as Go writes them: "1h30m", "250ms" */
bool route_connector(const json_t *server, RouteConnector *out, Err *err) MUST_CHECK;

/* What a router cannot use is an error that names the object and the field.  `unknown` is called
 * for each field that no schema knows (may be NULL). */
bool route_object_check(const json_t *object, void (*unknown)(const char *path, void *user),
                        void *user, Err *err) MUST_CHECK;

#endif
