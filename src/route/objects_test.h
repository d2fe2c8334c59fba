// SPDX-License-Identifier: Apache-2.0
/* objects_test.h - manifests as the tests write them: short, and filled in here. */
#ifndef BATON_ROUTE_OBJECTS_TEST_H
#define BATON_ROUTE_OBJECTS_TEST_H

#include "store.h"

#define ROUTE_HEAD(name)                                                                           \
    "{apiVersion: " ROUTE_API ", kind: ModelRoute, metadata: {name: " name "}, spec: "
#define SERVER_HEAD(name)                                                                          \
    "{apiVersion: " ROUTE_API ", kind: ModelServer, metadata: {name: " name "}, spec: "
#define SIMPLE_SERVER(name, label)                                                       \
    SERVER_HEAD(name) "{inferenceEngine: vLLM, workloadPort: {port: 8000}, "             \
                      "workloadSelector: {matchLabels: {app: " label "}}}}"
#define PD_GROUP                                                                         \
    "pdGroup: {groupKey: group, prefillLabels: {role: prefill}, decodeLabels: {role: decode}}"
#define PD_SERVER(name, label)                                                           \
    SERVER_HEAD(name) "{inferenceEngine: vLLM, workloadPort: {port: 8000}, "             \
                      "kvConnector: {type: nixl}, workloadSelector: "                    \
                      "{matchLabels: {app: " label "}, " PD_GROUP "}}}"
#define SIMPLE_ROUTE(name, model, server)                                                          \
    ROUTE_HEAD(name)                                                                               \
    "{modelName: " model ", rules: [{targetModels: [{modelServerName: " server "}]}]}}"
#define POD(name, labels, status)                                                                  \
    "{apiVersion: v1, kind: Pod, metadata: {name: " name ", labels: {" labels                      \
    "}}, status: {" status "}}"
#define READY(ip) "podIP: " ip ", phase: Running, conditions: [{type: Ready, status: 'True'}]"

static inline json_t *object_of(const char *yaml) {
    Err err = {0};
    json_t *documents = yaml_parse(str_of(yaml), &err);
    if (!documents) fail_msg("%s\n%s", err.message, yaml);
    json_t *object = json_incref(json_array_get(documents, 0));
    json_decref(documents);
    return object;
}

static inline void apply(RouteStore *store, const char *yaml) {
    Err err = {0};
    json_t *object = object_of(yaml);
    if (!route_store_apply(store, object, &err)) fail_msg("%s\n%s", err.message, yaml);
    json_decref(object);
}

#endif
