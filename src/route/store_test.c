// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include "hand.h"
#include "store.h"
#include <cmocka.h>

#include "objects_test.h"

static void durations_are_read_as_go_writes_them(void **state) {
    (void)state;
    const struct { const char *text; bool ok; int64_t us; } cases[] = {
        {"0", true, 0},           {"0s", true, 0},         {"250ms", true, 250000},
        {"1h30m", true, 5400000000}, {"1.5s", true, 1500000}, {"10us", true, 10},
        {"5", false, 0},          {"", false, 0},          {"s", false, 0},
        {"-1s", false, 0},        {"1 s", false, 0},       {"1d", false, 0},
        {"1s5", false, 0},        {".s", false, 0},        {"99999999999h", false, 0},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        int64_t us = -7;
        assert_int_equal(route_duration(cases[i].text, &us), cases[i].ok);
        assert_int_equal(us, cases[i].ok ? cases[i].us : -7);
    }
}

static void texts_match_by_exact_prefix_or_regex(void **state) {
    (void)state;
    const struct { const char *exact, *prefix, *regex, *text; bool want;
    } cases[] = {
        {"a", NULL, NULL, "a", true},
        {"a", NULL, NULL, "ab", false},
        {"", NULL, NULL, "", true},
        {NULL, "/v1", NULL, "/v1/x", true},
        {NULL, "/v1", NULL, "/v", false},
        {NULL, NULL, "b+", "abbc", true},
        {NULL, NULL, "^b", "abb", false},
        {NULL, NULL, "^\\d{2}$", "42", true},
        {NULL, NULL, "(?i)GOLD", "gold", true},
        {NULL, NULL, NULL, "anything", true},
        {"a", "b", NULL, "b", false}, /* exact counts */
        {NULL, NULL, "^(a+)+$", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab",
         false}, /* gives up */
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        Err err = {0};
        RouteMatch match = {cases[i].exact, cases[i].prefix, NULL};
        if (cases[i].regex) match.regex = route_regex_new(cases[i].regex, &err);
        assert_int_equal(route_match(&match, str_of(cases[i].text)), cases[i].want);
        route_regex_free(match.regex);
    }
}

static void what_a_router_cannot_use_is_refused_with_its_name(void **state) {
    (void)state;
#define SERVER(spec) SERVER_HEAD("s") spec "}"
#define PORT "workloadPort: {port: 8000}"
#define LABELS "workloadSelector: {matchLabels: {app: a}}"
    const struct { const char *yaml; ErrCode code; const char *message, *hint;
    } cases[] = {
        {"7", ERR_INVALID, "a manifest must be an object with apiVersion and kind", ""},
        {"{apiVersion: v1, kind: Secret, metadata: {name: s}}", ERR_INVALID,
         "kind 'Secret' of 'v1' is none that a router reads", ""},
        {"{apiVersion: v2, kind: ModelServer, metadata: {name: s}}", ERR_INVALID,
         "kind 'ModelServer' of 'v2' is none that a router reads", ""},
        {"{apiVersion: v1, kind: Pod}", ERR_INVALID, "Pod has no metadata.name", ""},
        {"{apiVersion: v1, kind: Pod, metadata: {name: 1}}", ERR_INVALID,
         "Pod has no metadata.name", ""},
        {"{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: no}}", ERR_INVALID,
         "Pod p: metadata.namespace must be a string, is false", "Put the value in quotes."},
        {"{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: ns, labels: {group: 0}}}",
         ERR_INVALID, "Pod ns/p: metadata.labels[group] must be a string, is 0",
         "Put the value in quotes."},
        {"{apiVersion: v1, kind: Pod, metadata: {name: p, annotations: {baton.dev/port: '70000'}}}",
         ERR_INVALID,
         "Pod default/p: metadata.annotations[baton.dev/port] must be a port from 1 to 65535, is "
         "'70000'",
         ""},
        {SERVER("{" PORT ", " LABELS "}"), ERR_INVALID,
         "ModelServer default/s: spec.inferenceEngine is missing", ""},
        {SERVER("{inferenceEngine: TGI, " PORT ", " LABELS "}"), ERR_INVALID,
         "ModelServer default/s: spec.inferenceEngine must be one of vLLM|SGLang, is \"TGI\"", ""},
        {SERVER("{inferenceEngine: vLLM, " LABELS "}"), ERR_INVALID,
         "ModelServer default/s: spec.workloadPort is missing", ""},
        {SERVER("{inferenceEngine: vLLM, workloadPort: {port: 0}, " LABELS "}"), ERR_INVALID,
         "ModelServer default/s: spec.workloadPort.port must be from 1 to 65535, is 0", ""},
        {SERVER("{inferenceEngine: vLLM, workloadPort: {port: '8000'}, " LABELS "}"), ERR_INVALID,
         "ModelServer default/s: spec.workloadPort.port must be a whole number, is \"8000\"", ""},
        {SERVER("{inferenceEngine: vLLM, workloadPort: {port: 1, protocol: https}, " LABELS "}"),
         ERR_UNSUPPORTED,
         "ModelServer default/s: spec.workloadPort.protocol https is not supported yet",
         "Set it to http: engines are reached over the cluster's own network."},
        {SERVER("{inferenceEngine: vLLM, " PORT ", workloadSelector: {matchLabels: {}}}"),
         ERR_INVALID, "ModelServer default/s: spec.workloadSelector.matchLabels is empty", ""},
        {SERVER("{inferenceEngine: vLLM, " PORT
                ", workloadSelector: {matchLabels: {a: b}, pdGroup: "
                "{groupKey: g, prefillLabels: {r: p}}}}"),
         ERR_INVALID,
         "ModelServer default/s: spec.workloadSelector.pdGroup.decodeLabels is missing", ""},
        {SERVER("{inferenceEngine: vLLM, " PORT ", " LABELS ", kvConnector: {type: sglang}}"),
         ERR_UNSUPPORTED, "ModelServer default/s: the kv connector sglang is not supported yet",
         "Set spec.kvConnector.type to nixl, mooncake, lmcache or http."},
        {SERVER("{inferenceEngine: SGLang, " PORT
                ", workloadSelector: {matchLabels: {a: b}, " PD_GROUP "}}"),
         ERR_UNSUPPORTED, "ModelServer default/s: the kv connector sglang is not supported yet",
         "Set spec.kvConnector.type to nixl, mooncake, lmcache or http."},
        {SERVER("{inferenceEngine: vLLM, " PORT ", " LABELS ", kvConnector: {type: ucx}}"),
         ERR_INVALID, "ModelServer default/s: spec.kvConnector.type cannot be 'ucx'",
         "Set spec.kvConnector.type to nixl, mooncake, lmcache or http."},
        {SERVER("{inferenceEngine: vLLM, " PORT ", " LABELS ", trafficPolicy: {timeout: 5}}"),
         ERR_INVALID, "ModelServer default/s: spec.trafficPolicy.timeout must be a string, is 5",
         "Put the value in quotes."},
        {SERVER("{inferenceEngine: vLLM, " PORT ", " LABELS ", trafficPolicy: {timeout: '5'}}"),
         ERR_INVALID,
         "ModelServer default/s: spec.trafficPolicy.timeout cannot be '5': expected a duration "
         "such as 30s or "
         "1m30s",
         ""},
        {ROUTE_HEAD("r") "{modelName: m}}", ERR_INVALID,
         "ModelRoute default/r: spec.rules is missing", ""},
        {ROUTE_HEAD("r") "{rules: []}}", ERR_INVALID,
         "ModelRoute default/r: spec.modelName and spec.loraAdapters are both empty", ""},
        {ROUTE_HEAD("r") "{modelName: m, rules: [{targetModels: []}]}}", ERR_INVALID,
         "ModelRoute default/r: spec.rules[0].targetModels has 0 items, must have from 1 to 16",
         ""},
        {ROUTE_HEAD("r") "{modelName: m, rules: [{targetModels: [{weight: 5}]}]}}", ERR_INVALID,
         "ModelRoute default/r: spec.rules[0].targetModels[0] must name either a modelServerName "
         "or an "
         "externalModelProviderName",
         ""},
        {ROUTE_HEAD(
             "r") "{modelName: m, rules: [{targetModels: [{modelServerName: s, weight: 101}]}]}}",
         ERR_INVALID,
         "ModelRoute default/r: spec.rules[0].targetModels[0].weight must be from 0 to 100, is 101",
         ""},
        {ROUTE_HEAD(
             "r") "{modelName: m, rules: [{targetModels: [{modelServerName: s, weight: 0}]}]}}",
         ERR_INVALID, "ModelRoute default/r: spec.rules[0].targetModels: all weights are 0", ""},
        {ROUTE_HEAD("r") "{modelName: m, rules: [{modelMatch: {uri: {regex: '('}}, targetModels: "
                         "[{modelServerName: s}]}]}}",
         ERR_INVALID,
         "ModelRoute default/r: spec.rules[0].modelMatch.uri.regex: '(' cannot be a regular "
         "expression: "
         "missing closing parenthesis at byte 1",
         ""},
        {ROUTE_HEAD("r") "{modelName: m, rules: [{modelMatch: {headers: {x: z}}, targetModels: "
                         "[{modelServerName: s}]}]}}",
         ERR_INVALID,
         "ModelRoute default/r: spec.rules[0].modelMatch.headers[x] must be an object, is \"z\"",
         ""},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        RouteStore *store = route_store_new();
        json_t *object = object_of(cases[i].yaml);
        Err err = {0};
        assert_false(route_store_apply(store, object, &err));
        assert_string_equal(err.message, cases[i].message);
        assert_string_equal(err.hint, cases[i].hint);
        assert_int_equal(err.code, cases[i].code);
        json_decref(object);
        route_store_free(store);
    }
}

static void fields_without_effect_are_counted_once(void **state) {
    (void)state;
    static const char route[] = ROUTE_HEAD(
        "r") "{modelName: m, modleName: x, rateLimit: {unit: second}, rules: [{targetModels: "
             "[{modelServerName: s, wieght: 1}, {externalModelProviderName: p}]}]}}";
    RouteStore *store = route_store_new();
    apply(store, route);
    apply(store, route);
    apply(store, ROUTE_HEAD("g") "{modelName: m, parentRefs: [{name: gw}], rules: []}}");
        assert_int_equal(route_store_ignored(store, IGNORED_RATE_LIMIT), 1);
    assert_int_equal(route_store_ignored(store, IGNORED_UNKNOWN), 2);
    assert_int_equal(route_store_ignored(store, IGNORED_PROVIDER), 1);
    assert_int_equal(route_store_ignored(store, IGNORED_PARENT_REFS), 1);
    route_store_free(store);
}

/* ---- matching ---- */

static RouteStore *store_with(const char *const objects[]) {
    RouteStore *store = route_store_new();
    for (size_t i = 0; objects[i]; i++) apply(store, objects[i]);
    route_store_publish(store);
        return store;
}

static const char *const three_servers[] = {
    SIMPLE_SERVER("base", "a"), SIMPLE_SERVER("gold", "b"), SIMPLE_SERVER("other", "c"),
    SIMPLE_SERVER("empty", "nobody"),
    POD("a-0", "app: a", READY("127.0.0.1")), POD("b-0", "app: b", READY("127.0.0.1")),
    POD("c-0", "app: c", READY("127.0.0.1")),
};

/* What the request meets: the server's name, or the error's message. */
static void assert_found(const RouteStore *store, const char *model, const char *path,
                         HttpHeaders headers, const char *want) {
    RouteFound found = {0};
    Err err = {0};
    bool ok = route_table_find(route_store_table(store), str_of(model), str_of(path), headers, 0,
                               &found, &err);
    assert_string_equal(ok ? found.server->full : err.message, want);
    assert_int_equal(ok, str_starts(str_of(want), "default/"));
}

static void the_first_rule_that_fits_decides(void **state) {
    (void)state;
#define TARGET(name) "targetModels: [{modelServerName: " name "}]"
    const struct {
        const char *rules;
        HttpHeader header;
        const char *path, *want;
    } cases[] = {
        {"[{" TARGET("base") "}]", {{0}}, "/v1/completions", "default/base"},
        {"[{modelMatch: {headers: {Tier: {exact: gold}}}, " TARGET("gold") "}, {" TARGET(
             "base") "}]",
         {STR("tier"), STR("gold")},
         "/v1/completions",
         "default/gold"},
        {"[{modelMatch: {headers: {Tier: {exact: gold}}}, " TARGET("gold") "}, {" TARGET(
             "base") "}]",
         {STR("tier"), STR("Gold")},
         "/v1/completions",
         "default/base"},
        {"[{modelMatch: {headers: {Tier: {exact: gold}}}, " TARGET("gold") "}, {" TARGET(
             "base") "}]",
         {{0}},
         "/v1/completions",
         "default/base"},
        {"[{modelMatch: {headers: {tier: {exact: ''}}}, " TARGET(
             "gold") "}]", /* missing is empty */
         {{0}},
         "/v1/completions",
         "default/gold"},
        {"[{modelMatch: {uri: {prefix: /v1/chat}}, " TARGET("gold") "}, {" TARGET("base") "}]",
         {{0}},
         "/v1/chat/completions",
         "default/gold"},
        {"[{modelMatch: {uri: {exact: /v1/chat}}, " TARGET("gold") "}, {" TARGET("base") "}]",
         {{0}},
         "/v1/chat/completions",
         "default/base"},
        {"[{modelMatch: {uri: {regex: chat.+s$}}, " TARGET("gold") "}]",
         {{0}},
         "/v1/chat/completions",
         "default/gold"},
        {"[{modelMatch: {body: {model: m}}, " TARGET("gold") "}]", {{0}}, "/x", "default/gold"},
        {"[{modelMatch: {body: {model: q}}, " TARGET("gold") "}]",
         {{0}},
         "/x",
         "no rule of ModelRoute default/r for the model 'm' fits this request"},
        {"[{modelMatch: {uri: {prefix: /v1}, headers: {tier: {exact: gold}}}, " TARGET("gold") "}]",
         {{0}},
         "/v1/x",
         "no rule of ModelRoute default/r for the model 'm' fits this request"},
        {"[]", {{0}}, "/x", "no rule of ModelRoute default/r for the model 'm' fits this request"},
        {"[{" TARGET("nosuch") "}]",
         {{0}},
         "/x",
         "there is no ModelServer default/nosuch, which ModelRoute default/r leads to"},
        {"[{" TARGET("empty") "}]", {{0}}, "/x", "no pod of ModelServer default/empty is ready"},
        /* targets that cannot serve are left out of the draw */
        {"[{targetModels: [{modelServerName: nosuch}, {modelServerName: empty}, {modelServerName: "
         "base, "
         "weight: 1}]}]",
         {{0}},
         "/x",
         "default/base"},
        {"[{targetModels: [{modelServerName: nosuch}, {modelServerName: empty}]}]",
         {{0}},
         "/x",
         "no pod of ModelServer default/empty is ready"},
        {"[{targetModels: [{externalModelProviderName: cloud}]}]",
         {{0}},
         "/x",
         "ModelRoute default/r leads to the external provider default/cloud, which this router "
         "cannot use yet"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        auto_buf Buf route = {0};
        buf_printf(&route, ROUTE_HEAD("r") "{modelName: m, rules: %s}}", cases[i].rules);
        const char *objects[COUNT_OF(three_servers) + 2] = {route.at};
        memcpy(objects + 1, three_servers, sizeof three_servers);
        RouteStore *store = store_with(objects);
        assert_found(store, "m", cases[i].path,
                     (HttpHeaders){&cases[i].header, cases[i].header.name.at != NULL},
                     cases[i].want);
        route_store_free(store);
    }
}

static void weights_share_the_requests(void **state) {
    (void)state;
    const struct {
        const char *targets;
        int want[3];
    } cases[] = {
        /* base, gold, other of 300 draws */
        {"[{modelServerName: base, weight: 20}, {modelServerName: gold, weight: 80}]",
         {60, 240, 0}},
        {"[{modelServerName: base}, {modelServerName: gold}, {modelServerName: other}]",
         {100, 100, 100}},
        {"[{modelServerName: base, weight: 0}, {modelServerName: gold, weight: 1}]", {0, 300, 0}},
        {"[{modelServerName: base, weight: 50}, {modelServerName: gold}]",
         {100, 200, 0}}, /* none is 100 */
    };
    static const char *const names[] = {"default/base", "default/gold", "default/other"};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        auto_buf Buf route = {0};
        buf_printf(&route, ROUTE_HEAD("r") "{modelName: m, rules: [{targetModels: %s}]}}",
                   cases[i].targets);
        const char *objects[COUNT_OF(three_servers) + 2] = {route.at};
        memcpy(objects + 1, three_servers, sizeof three_servers);
        RouteStore *store = store_with(objects);
        int got[3] = {0};
        for (uint64_t draw = 0; draw < 300; draw++) {
            RouteFound found = {0};
            Err err = {0};
            assert_true(route_table_find(route_store_table(store), STR("m"), STR("/"),
                                         (HttpHeaders){0}, draw, &found, &err));
            for (int k = 0; k < 3; k++) got[k] += !strcmp(found.server->full, names[k]);
        }
        for (int k = 0; k < 3; k++) assert_int_equal(got[k], cases[i].want[k]);
        route_store_free(store);
    }
}

static const char *route_made(const char *name, const char *created, const char *server, Buf *out) {
    buf_clear(out);
    buf_printf(out,
               "{apiVersion: " ROUTE_API
               ", kind: ModelRoute, metadata: {name: %s, %s%s}, spec: {modelName: m, "
               "rules: [{targetModels: [{modelServerName: %s}]}]}}",
               name, *created ? "creationTimestamp: " : "", created, server);
    return out->at;
}

static void the_oldest_route_of_a_name_wins(void **state) {
    (void)state;
    const struct { const char *times[2], *want; } cases[] = {
        {{"2025-01-02T00:00:00Z", "2025-01-01T00:00:00Z"}, "default/gold"},
        {{"2025-01-01T00:00:00Z", "2025-01-02T00:00:00Z"}, "default/base"},
        {{"2025-01-01T00:00:00Z", "2025-01-01T00:00:00Z"}, "default/base"}, /* then by name */
        {{"", ""}, "default/base"},
        {{"", "2025-01-01T00:00:00Z"}, "default/gold"}, /* never in a cluster: newer */
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        for (int swap = 0; swap < 2; swap++) {
            auto_buf Buf one = {0}, other = {0};
            route_made("a", cases[i].times[0], "base", &one);
            route_made("b", cases[i].times[1], "gold", &other);
            const char *objects[COUNT_OF(three_servers) + 3] = {swap ? other.at : one.at,
                                                                swap ? one.at : other.at};
            memcpy(objects + 2, three_servers, sizeof three_servers);
            RouteStore *store = store_with(objects);
            assert_found(store, "m", "/", (HttpHeaders){0}, cases[i].want);
            bool gold = strstr(cases[i].want, "gold") != NULL;
            route_store_delete(store, KIND_ROUTE, "default", gold ? "b" : "a");
            route_store_publish(store);
            assert_found(store, "m", "/", (HttpHeaders){0}, gold ? "default/base" : "default/gold");
            route_store_free(store);
        }
}

static void a_route_without_a_fitting_rule_leaves_it_to_the_next(void **state) {
    (void)state;
    const char *objects[COUNT_OF(three_servers) + 3] = {
        ROUTE_HEAD("a") "{modelName: m, rules: [{modelMatch: {uri: {prefix: /nowhere}}, " TARGET(
            "gold") "}, {" TARGET("empty") "}]}}",
        SIMPLE_ROUTE("b", "m", "base")};
    memcpy(objects + 2, three_servers, sizeof three_servers);
    RouteStore *store = store_with(objects);
    assert_found(store, "m", "/v1", (HttpHeaders){0}, "default/base");
    route_store_free(store);
}

static void adapters_are_found_behind_models(void **state) {
    (void)state;
    const char *objects[COUNT_OF(three_servers) + 3] = {
        ROUTE_HEAD("a") "{modelName: m, loraAdapters: [sql, base-b], rules: [{" TARGET(
            "gold") "}]}}",
        SIMPLE_ROUTE("b", "base-b", "base")};
    memcpy(objects + 2, three_servers, sizeof three_servers);
    RouteStore *store = store_with(objects);
    const RouteTable *table = route_store_table(store);
    const struct { const char *model, *server; bool adapter;
    } cases[] = {{"m", "default/gold", false},
                 {"sql", "default/gold", true},
                 {"base-b", "default/base", false}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        RouteFound found = {0};
        Err err = {0};
        assert_true(route_table_find(table, str_of(cases[i].model), STR("/"), (HttpHeaders){0}, 0,
                                     &found, &err));
        assert_string_equal(found.server->full, cases[i].server);
        assert_int_equal(found.adapter, cases[i].adapter);
    }
    assert_int_equal(table->model_count, 3);
    assert_string_equal(table->models[0], "base-b");
    assert_string_equal(table->models[2], "sql");
    route_store_free(store);
}

static void an_unknown_model_is_told_the_known_ones(void **state) {
    (void)state;
    const char *objects[] = {SIMPLE_ROUTE("a", "smollm2", "s"), SIMPLE_ROUTE("b", "qwen3", "s"),
                             NULL};
    RouteStore *store = store_with(objects);
    assert_found(store, "smol", "/", (HttpHeaders){0},
                 "the model 'smol' is not served here; served: qwen3, smollm2");
    assert_found(store, "smollm22", "/", (HttpHeaders){0},
                 "the model 'smollm22' is not served here; served: qwen3, smollm2");
    route_store_free(store);
    store = route_store_new();
    assert_found(store, "x", "/", (HttpHeaders){0},
                 "the model 'x' is not served here; served: none yet");
    route_store_free(store);
}

/* ---- pods ---- */

static void pods_count_when_they_are_ready(void **state) {
    (void)state;
    const struct { const char *pod; bool want; int port; const char *host;
    } cases[] = {
        {POD("p", "app: a", READY("10.0.0.1")), true, 8000, "10.0.0.1"},
        {POD("p", "app: a", "podIP: localhost"), true, 8000, "localhost"}, /* by hand */
        {POD("p", "app: a", ""), false, 0, NULL},
        {POD("p", "app: b", READY("10.0.0.1")), false, 0, NULL},
        {POD("p", "app: a", "podIP: 10.0.0.1, phase: Pending"), false, 0, NULL},
        {POD("p", "app: a",
             "podIP: 10.0.0.1, phase: Running, conditions: [{type: Ready, status: 'False'}]"),
         false, 0, NULL},
        {POD("p", "app: a",
             "podIP: 10.0.0.1, phase: Running, conditions: [{type: Initialized, status: 'True'}]"),
         false, 0, NULL},
        {"{apiVersion: v1, kind: Pod, metadata: {name: p, labels: {app: a}, deletionTimestamp: x}, "
         "status: {" READY("10.0.0.1") "}}",
         false, 0, NULL},
        {"{apiVersion: v1, kind: Pod, metadata: {name: p, labels: {app: a}, annotations: "
         "{baton.dev/port: "
         "'8123'}}, status: {" READY("10.0.0.1") "}}",
         true, 8123, "10.0.0.1"},
        {"{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: elsewhere, labels: {app: a}}, "
         "status: {" READY("10.0.0.1") "}}",
         false, 0, NULL},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const char *objects[] = {SIMPLE_ROUTE("r", "m", "s"), SIMPLE_SERVER("s", "a"), cases[i].pod,
                                 NULL};
        RouteStore *store = store_with(objects);
        RouteFound found = {0};
        Err err = {0};
        bool ok = route_table_find(route_store_table(store), STR("m"), STR("/"), (HttpHeaders){0},
                                   0, &found, &err);
        assert_int_equal(ok, cases[i].want);
        if (ok) {
            assert_int_equal(found.server->member_count, 1);
            assert_int_equal(found.server->members[0].port, cases[i].port);
            assert_string_equal(found.server->members[0].pod->host, cases[i].host);
        }
        route_store_free(store);
    }
}

static const RouteServer *server_of(const RouteStore *store) {
    static RouteFound found;
    Err err = {0};
    if (!route_table_find(route_store_table(store), STR("m"), STR("/"), (HttpHeaders){0}, 0, &found,
                          &err))
        fail_msg("%s", err.message);
    return found.server;
}

static void pods_are_prefill_or_decode_of_a_group_by_their_labels(void **state) {
    (void)state;
    const char *objects[] = {
        SIMPLE_ROUTE("r", "m", "s"), PD_SERVER("s", "a"),
        POD("d0", "app: a, group: '0', role: decode", READY("10.0.0.1")),
        POD("d1", "app: a, group: '1', role: decode", READY("10.0.0.2")),
        POD("p1a", "app: a, group: '1', role: prefill", READY("10.0.0.3")),
        POD("p0", "app: a, group: '0', role: prefill", READY("10.0.0.4")),
        POD("p1b", "app: a, group: '1', role: prefill", READY("10.0.0.5")),
        POD("none", "app: a, role: decode", READY("10.0.0.6")),          /* no group */
        POD("router", "app: a, group: '0', role: x", READY("10.0.0.7")), /* no role */
        POD("stranger", "app: b, group: '0', role: decode", READY("10.0.0.8")), NULL};
    RouteStore *store = store_with(objects);
    const RouteServer *server = server_of(store);
    assert_true(server->apart);
    assert_int_equal(server->member_count, 2);
    assert_int_equal(server->prefill_count, 3);
    for (size_t i = 0; i < server->member_count; i++) {
        const RouteMember *decode = &server->members[i];
        assert_int_equal(decode->prefill_count, strcmp(decode->pod->name, "d0") ? 2 : 1);
        for (uint32_t k = 0; k < decode->prefill_count; k++)
            assert_int_equal(server->prefill[decode->prefill_from + k].pod->name[1],
                             decode->pod->name[1]);
    }
    /* a changed selector makes the groups anew */
    apply(store,
          SERVER_HEAD(
              "s") "{inferenceEngine: vLLM, workloadPort: {port: 8000}, workloadSelector: "
                   "{matchLabels: {app: a}, pdGroup: {groupKey: group, prefillLabels: {role: x}, "
                   "decodeLabels: {role: prefill}}}}}");
    route_store_publish(store);
    server = server_of(store);
    assert_int_equal(server->member_count, 3);
    assert_int_equal(server->prefill_count, 1);
    apply(store, POD("router", "app: c", READY("10.0.0.7"))); /* and so does a changed label */
    route_store_publish(store);
    assert_int_equal(server_of(store)->prefill_count, 0);
    route_store_free(store);
}

static void a_pod_keeps_what_is_known_of_it_while_it_stays(void **state) {
    (void)state;
    const char *objects[] = {SIMPLE_ROUTE("r", "m", "s"), SIMPLE_SERVER("s", "a"),
                             POD("p", "app: a", READY("10.0.0.1")), NULL};
    RouteStore *store = store_with(objects);
    RouteTable *before = route_table_ref(route_store_table(store));
    RoutePod *pod = server_of(store)->members[0].pod;
    const uint64_t hash = 7;
    route_prefix_add(&pod->prefixes, &hash, 1);
    route_pod_begin(pod);
    /* another label, and a moment without readiness */
    apply(store, POD("p", "app: a, x: z",
                     "podIP: 10.0.0.1, phase: Running, conditions: [{type: Ready, status: "
                     "'False'}]"));
    route_store_publish(store);
    assert_false(pod->ready);
    apply(store, POD("p", "app: a, x: z", READY("10.0.0.1")));
    route_store_publish(store);
    assert_ptr_equal(server_of(store)->members[0].pod, pod);
    assert_int_equal(pod->in_flight, 1);
    assert_int_equal(route_prefix_match(&pod->prefixes, &hash, 1), 1);
    /* another address is another pod; the request's own table still has the old one */
    apply(store, POD("p", "app: a", READY("10.0.0.2")));
    route_store_publish(store);
    assert_ptr_not_equal(server_of(store)->members[0].pod, pod);
    assert_int_equal(server_of(store)->members[0].pod->in_flight, 0);
    route_pod_end(pod, POD_ANSWERED, NULL, 0);
    route_table_unref(before);
    route_store_free(store);
}

static void a_policy_of_the_server_is_read(void **state) {
    (void)state;
    const struct { const char *policy; int attempts; int64_t retry_us, timeout_us; } cases[] = {
        {"{}", 3, 0, 0},
        {"{timeout: 30s}", 3, 0, 30000000},
        {"{retry: {attempts: 5, retryInterval: 0s}}", 3, 0, 0},
        {"{retry: {attempts: 2}}", 3, 100000, 0},
        {"{retry: {attempts: 1, retryInterval: 250ms}}", 2, 250000, 0},
        {"{retry: {attempts: 0}}", 1, 100000, 0},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        auto_buf Buf server = {0};
        buf_printf(
            &server,
            SERVER_HEAD(
                "s") "{inferenceEngine: vLLM, workloadPort: {port: 8000}, trafficPolicy: %s, "
                     "workloadSelector: {matchLabels: {app: a}}}}",
            cases[i].policy);
        const char *objects[] = {SIMPLE_ROUTE("r", "m", "s"), server.at,
                                 POD("p", "app: a", READY("10.0.0.1")), NULL};
        RouteStore *store = store_with(objects);
        assert_int_equal(server_of(store)->attempts, cases[i].attempts);
        assert_int_equal(server_of(store)->retry_us, cases[i].retry_us);
        assert_int_equal(server_of(store)->timeout_us, cases[i].timeout_us);
        route_store_free(store);
    }
}

/* ---- by hand ---- */

static void flags_make_the_same_objects_as_manifests(void **state) {
    (void)state;
    RouteHand hand = {.model = "org/m", .connector = "mooncake",
                      .prefill = {{"http://127.0.0.1:8101", "[::1]:8103/"}, 2},
                      .decode = {{"localhost:8102"}, 1}};
    RouteStore *store = route_store_new();
    Err err = {0};
    assert_true(route_hand_feed(store, &hand, &err));
    RouteFound found = {0};
    assert_true(route_table_find(route_store_table(store), STR("org/m"), STR("/"), (HttpHeaders){0},
                                 0, &found, &err));
    assert_true(found.server->apart);
    assert_int_equal(found.server->connector, CONNECT_MOONCAKE);
    assert_string_equal(found.server->members[0].peer, "localhost:8102");
    assert_int_equal(found.server->members[0].prefill_count, 2);
    assert_string_equal(found.server->prefill[0].peer, "127.0.0.1:8101");
    assert_string_equal(found.server->prefill[1].peer, "[::1]:8103");
    assert_string_equal(found.server->prefill[1].pod->name, "prefill-1");
    assert_null(found.server->model);
    route_store_free(store);
}

static void flags_that_do_not_fit_are_refused(void **state) {
    (void)state;
    const struct { RouteHand hand; const char *message, *hint;
    } cases[] = {
        {{.decode = {{"a:1"}, 1}},
         "--model is missing",
         "Name the model that the given engines serve: --model smollm2."},
        {{.model = "m"},
         "--model m has no engine",
         "Give --prefill URL and --decode URL, or --engine URL."},
        {{.model = "m", .decode = {{"a:1"}, 1}},
         "--model m has no --prefill",
         "Give --prefill URL and --decode URL, or --engine URL."},
        {{.model = "m", .prefill = {{"a:1"}, 1}},
         "--model m has no --decode",
         "Give --prefill URL and --decode URL, or --engine URL."},
        {{.model = "m", .engine = {{"a:1"}, 1}, .decode = {{"a:1"}, 1}},
         "--engine cannot stand beside --prefill and --decode",
         "Give --engine for engines that do both, or --prefill and --decode."},
        {{.model = "m", .engine = {{"http://a"}, 1}},
         "--engine cannot be 'http://a': the port is missing",
         "Write it as http://127.0.0.1:8101."},
        {{.model = "m", .engine = {{"http://:80"}, 1}},
         "--engine cannot be 'http://:80': the host is missing",
         "Write it as http://127.0.0.1:8101."},
        {{.model = "m", .engine = {{"a:99999"}, 1}},
         "--engine cannot be 'a:99999': the port must be from 1 to 65535",
         "Write it as http://127.0.0.1:8101."},
        {{.model = "m", .engine = {{"https://a:1"}, 1}},
         "--engine cannot be 'https://a:1': https to engines is not supported yet",
         "Write it as http://127.0.0.1:8101."},
        {{.model = "m", .engine = {{"http://a:1/v1"}, 1}},
         "--engine cannot be 'http://a:1/v1': an address has no path",
         "Write it as http://127.0.0.1:8101."},
        {{.model = "m", .connector = "sglang", .prefill = {{"a:1"}, 1}, .decode = {{"a:1"}, 1}},
         "ModelServer default/m: the kv connector sglang is not supported yet",
         "Set spec.kvConnector.type to nixl, mooncake, lmcache or http."},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        RouteStore *store = route_store_new();
        Err err = {0};
        assert_false(route_hand_feed(store, &cases[i].hand, &err));
        assert_string_equal(err.message, cases[i].message);
        assert_string_equal(err.hint, cases[i].hint);
        route_store_free(store);
    }
}

int main(void) {
    log_set_level(LOG_OFF);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durations_are_read_as_go_writes_them),
        cmocka_unit_test(texts_match_by_exact_prefix_or_regex),
        cmocka_unit_test(what_a_router_cannot_use_is_refused_with_its_name),
        cmocka_unit_test(fields_without_effect_are_counted_once),
        cmocka_unit_test(the_first_rule_that_fits_decides),
        cmocka_unit_test(weights_share_the_requests),
        cmocka_unit_test(the_oldest_route_of_a_name_wins),
        cmocka_unit_test(a_route_without_a_fitting_rule_leaves_it_to_the_next),
        cmocka_unit_test(adapters_are_found_behind_models),
        cmocka_unit_test(an_unknown_model_is_told_the_known_ones),
        cmocka_unit_test(pods_count_when_they_are_ready),
        cmocka_unit_test(pods_are_prefill_or_decode_of_a_group_by_their_labels),
        cmocka_unit_test(a_pod_keeps_what_is_known_of_it_while_it_stays),
        cmocka_unit_test(a_policy_of_the_server_is_read),
        cmocka_unit_test(flags_make_the_same_objects_as_manifests),
        cmocka_unit_test(flags_that_do_not_fit_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
