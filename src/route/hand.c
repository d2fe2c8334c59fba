// SPDX-License-Identifier: Apache-2.0
#include "hand.h"

#include <stdio.h>
#include <stdlib.h>

#define LABEL_MODEL "baton.dev/model"
#define LABEL_ROLE "baton.dev/role"
#define LABEL_GROUP "baton.dev/group"

bool route_hand_given(const RouteHand *hand) {
    return hand->model || hand->prefill.count || hand->decode.count || hand->engine.count;
}

static bool wrong(Err *err, const char *flag, const char *url, const char *why) {
    err_set(err, ERR_INVALID, "--%s cannot be '%s': %s", flag, url, why);
    err_param(err, flag);
    return err_hint(err, "Write it as http://127.0.0.1:8101.");
}

/* http://host:port, host:port, http://[::1]:port */
static bool address_read(const char *flag, const char *url, char host[256], int *port, Err *err) {
    const char *at = url;
    if (!strncmp(at, "https://", 8))
        return wrong(err, flag, url, "https to engines is not supported yet");
    if (!strncmp(at, "http://", 7)) at += 7;
    size_t length = strcspn(at, "/");
    if (at[length] == '/' && at[length + 1]) return wrong(err, flag, url, "an address has no path");
    const char *colon = memrchr(at, ':', length), *end = colon;
    if (!colon || (at[0] == '[' && colon[-1] != ']'))
        return wrong(err, flag, url, "the port is missing");
    if (at[0] == '[') at++, end--;
    char *stop;
    long number = strtol(colon + 1, &stop, 10);
    if (end <= at || end - at > 255) return wrong(err, flag, url, "the host is missing");
    if (stop == colon + 1 || (*stop && *stop != '/') || number < 1 || number > 65535)
        return wrong(err, flag, url, "the port must be from 1 to 65535");
    memcpy(host, at, (size_t)(end - at));
    host[end - at] = 0;
    *port = (int)number;
    return true;
}

static bool put(RouteStore *store, json_t *object, Err *err) {
    bool ok = route_store_apply(store, object, err);
    json_decref(object);
    return ok;
}

static bool put_pods(RouteStore *store, const RouteHand *hand, const char *role,
                     const FlagList *urls, Err *err) {
    for (size_t i = 0; i < urls->count; i++) {
        char host[256], name[64], port_text[8];
        int port = 0;
        if (!address_read(role, urls->at[i], host, &port, err)) return false;
        snprintf(name, sizeof name, "%s-%zu", role, i);
        snprintf(port_text, sizeof port_text, "%d", port);
        json_t *pod =
            json_pack("{s:s, s:s, s:{s:s, s:{s:s, s:s, s:s}, s:{s:s}}, s:{s:s}}", "apiVersion",
                      "v1", "kind", "Pod", "metadata", "name", name, "labels", LABEL_MODEL,
                      hand->model, LABEL_ROLE, role, LABEL_GROUP, "0", "annotations",
                      ROUTE_PORT_ANNOTATION, port_text, "status", "podIP", host);
        if (!put(store, pod, err)) return false;
    }
    return true;
}

static bool put_server(RouteStore *store, const RouteHand *hand, Err *err) {
    json_t *server = json_pack("{s:s, s:s, s:{s:s}, s:{s:s, s:{s:{s:s}}, s:{s:i}}}", "apiVersion",
                               ROUTE_API, "kind", "ModelServer", "metadata", "name", hand->model,
                               "spec", "inferenceEngine", "vLLM", "workloadSelector", "matchLabels",
                               LABEL_MODEL, hand->model, "workloadPort", "port", 8000);
    json_t *spec = json_object_get(server, "spec");
    if (!hand->engine.count) {
        json_object_set_new(spec, "kvConnector", json_pack("{s:s}", "type", hand->connector));
        json_object_set_new(json_object_get(spec, "workloadSelector"), "pdGroup",
                            json_pack("{s:s, s:{s:s}, s:{s:s}}", "groupKey", LABEL_GROUP,
                                      "prefillLabels", LABEL_ROLE, "prefill", "decodeLabels",
                                      LABEL_ROLE, "decode"));
    }
    return put(store, server, err);
}

static bool put_route(RouteStore *store, const RouteHand *hand, Err *err) {
    json_t *route =
        json_pack("{s:s, s:s, s:{s:s}, s:{s:s, s:[{s:[{s:s}]}]}}", "apiVersion", ROUTE_API, "kind",
                  "ModelRoute", "metadata", "name", hand->model, "spec", "modelName", hand->model,
                  "rules", "targetModels", "modelServerName", hand->model);
    return put(store, route, err);
}

bool route_hand_feed(RouteStore *store, const RouteHand *hand, Err *err) {
    if (!hand->model) {
        err_set(err, ERR_INVALID, "--model is missing");
        return err_hint(err, "Name the model that the given engines serve: --model smollm2.");
    }
    if (hand->engine.count && (hand->prefill.count || hand->decode.count)) {
        err_set(err, ERR_INVALID, "--engine cannot stand beside --prefill and --decode");
        return err_hint(err, "Give --engine for engines that do both, or --prefill and --decode.");
    }
    if (!hand->engine.count && (!hand->prefill.count || !hand->decode.count)) {
        err_set(err, ERR_INVALID, "--model %s has no %s", hand->model,
                hand->decode.count ? "--prefill" : hand->prefill.count ? "--decode" : "engine");
        return err_hint(err, "Give --prefill URL and --decode URL, or --engine URL.");
    }
    bool ok = put_pods(store, hand, "prefill", &hand->prefill, err) &&
              put_pods(store, hand, "decode", &hand->decode, err) &&
              put_pods(store, hand, "engine", &hand->engine, err) && put_server(store, hand, err) &&
              put_route(store, hand, err);
    if (ok) route_store_publish(store);
    return ok;
}
