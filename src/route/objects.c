// SPDX-License-Identifier: Apache-2.0
#include "objects.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "match.h"

/* ---- reading ---- */

static const struct {
    const char *api, *kind;
} kinds[ROUTE_KINDS] = {
    [KIND_ROUTE] = {ROUTE_API, "ModelRoute"},
    [KIND_SERVER] = {ROUTE_API, "ModelServer"},
    [KIND_POD] = {"v1", "Pod"},
};

const json_t *route_at(const json_t *object, const char *path) {
    Str rest = str_of(path), key;
    while (object && str_cut(&rest, '.', &key))
        object = json_object_getn(object, key.at, key.length);
    return json_is_null(object) ? NULL : object;
}

const char *route_text(const json_t *object, const char *path, const char *fallback) {
    const char *text = json_string_value(route_at(object, path));
    return text ? text : fallback;
}

int64_t route_number(const json_t *object, const char *path, int64_t fallback) {
    const json_t *value = route_at(object, path);
    return json_is_integer(value) ? json_integer_value(value) : fallback;
}

RouteKind route_object_kind(const json_t *object) {
    const char *api = route_text(object, "apiVersion", ""), *kind = route_text(object, "kind", "");
    for (RouteKind k = 0; k < ROUTE_KINDS; k++)
        if (!strcmp(api, kinds[k].api) && !strcmp(kind, kinds[k].kind)) return k;
    return KIND_OTHER;
}

const char *route_kind_name(RouteKind kind) { return kinds[kind].kind; }

const char *route_namespace(const json_t *object) {
    const char *name = route_text(object, "metadata.namespace", "");
    return *name ? name : "default";
}

const char *route_name(const json_t *object) { return route_text(object, "metadata.name", ""); }

bool route_labels_match(const json_t *object, const json_t *wanted) {
    const json_t *labels = route_at(object, "metadata.labels");
    if (json_object_size(wanted) == 0) return false;
    for (void *at = json_object_iter((json_t *)wanted); at;
         at = json_object_iter_next((json_t *)wanted, at)) {
        const char *have = json_string_value(json_object_get(labels, json_object_iter_key(at)));
        const char *want = json_string_value(json_object_iter_value(at));
        if (!have || !want || strcmp(have, want) != 0) return false;
    }
    return true;
}

bool route_duration(const char *text, int64_t *us) {
    static const struct {
        const char *name;
        double us;
    } units[] = {{"ns", 1e-3}, {"us", 1},  {"µs", 1},   {"ms", 1e3},
                 {"s", 1e6},   {"m", 6e7}, {"h", 3.6e9}};
    double total = 0;
    if (!strcmp(text, "0")) return *us = 0, true;
    if (!*text) return false;
    while (*text) {
        char *end;
        if (!strchr("0123456789.", *text)) return false;
        double value = strtod(text, &end);
        if (end == text) return false;
        size_t length = strcspn(end, "0123456789."), i = 0;
        while (i < COUNT_OF(units) &&
               (strlen(units[i].name) != length || memcmp(units[i].name, end, length) != 0))
            i++;
        if (i == COUNT_OF(units)) return false;
        total += value * units[i].us;
        text = end + length;
    }
    if (!(total < 1e15)) return false;
    *us = (int64_t)total;
    return true;
}

/* ---- the schema: one row a field ---- */

typedef struct Row {
    const char *path;  /* [] an item of the array before it, {} a value of the map before it */
    char type;         /* s string, i integer, o object, a array, m map, * not looked into */
    bool required;
    int64_t least, most; /* of an integer; of a string's or an array's length; both 0: any */
    const char *values;  /* "a|b": the only ones */
} Row;

static const Row route_rows[] = {
    {"spec", 'o', true},
    {"spec.modelName", 's'},
    {"spec.loraAdapters", 'a', false, 0, 10},
    {"spec.loraAdapters[]", 's', false, 1, 256},
    {"spec.parentRefs", '*'},
    {"spec.rateLimit", '*'},
    {"spec.rules", 'a', true, 0, 16},
    {"spec.rules[]", 'o'},
    {"spec.rules[].name", 's'},
    {"spec.rules[].modelMatch", 'o'},
    {"spec.rules[].modelMatch.headers", 'm'},
    {"spec.rules[].modelMatch.headers{}", 'o'},
    {"spec.rules[].modelMatch.headers{}.exact", 's'},
    {"spec.rules[].modelMatch.headers{}.prefix", 's'},
    {"spec.rules[].modelMatch.headers{}.regex", 's'},
    {"spec.rules[].modelMatch.uri", 'o'},
    {"spec.rules[].modelMatch.uri.exact", 's'},
    {"spec.rules[].modelMatch.uri.prefix", 's'},
    {"spec.rules[].modelMatch.uri.regex", 's'},
    {"spec.rules[].modelMatch.body", 'o'},
    {"spec.rules[].modelMatch.body.model", 's'},
    {"spec.rules[].targetModels", 'a', true, 1, 16},
    {"spec.rules[].targetModels[]", 'o'},
    {"spec.rules[].targetModels[].modelServerName", 's'},
    {"spec.rules[].targetModels[].externalModelProviderName", 's'},
    {"spec.rules[].targetModels[].weight", 'i', false, 0, 100},
};

static const Row server_rows[] = {
    {"spec", 'o', true},
    {"spec.model", 's', false, 0, 256},
    {"spec.inferenceEngine", 's', true, 0, 0, "vLLM|SGLang"},
    {"spec.workloadSelector", 'o', true},
    {"spec.workloadSelector.matchLabels", 'm', true},
    {"spec.workloadSelector.matchLabels{}", 's'},
    {"spec.workloadSelector.pdGroup", 'o'},
    {"spec.workloadSelector.pdGroup.groupKey", 's', true, 1, 317},
    {"spec.workloadSelector.pdGroup.prefillLabels", 'm', true},
    {"spec.workloadSelector.pdGroup.prefillLabels{}", 's'},
    {"spec.workloadSelector.pdGroup.decodeLabels", 'm', true},
    {"spec.workloadSelector.pdGroup.decodeLabels{}", 's'},
    {"spec.workloadPort", 'o', true},
    {"spec.workloadPort.port", 'i', true, 1, 65535},
    {"spec.workloadPort.protocol", 's', false, 0, 0, "http|https"},
    {"spec.trafficPolicy", 'o'},
    {"spec.trafficPolicy.timeout", 's'},
    {"spec.trafficPolicy.retry", 'o'},
    {"spec.trafficPolicy.retry.attempts", 'i', false, 0, 1000},
    {"spec.trafficPolicy.retry.retryInterval", 's'},
    {"spec.kvConnector", 'o'},
    {"spec.kvConnector.type", 's'},
};

static const Row pod_rows[] = {
    {"metadata.labels", 'm'},
    {"metadata.labels{}", 's'},
    {"metadata.annotations", 'm'},
    {"metadata.annotations{}", 's'},
    {"status", 'o'},
    {"status.podIP", 's', false, 1, 255},
    {"status.phase", 's'},
    {"status.conditions", 'a'},
};

static const struct {
    const Row *rows;
    size_t count;
    const char *root; /* below it every field must be known */
} schemas[ROUTE_KINDS] = {
    [KIND_ROUTE] = {route_rows, COUNT_OF(route_rows), "spec"},
    [KIND_SERVER] = {server_rows, COUNT_OF(server_rows), "spec"},
    [KIND_POD] = {pod_rows, COUNT_OF(pod_rows), NULL},
};

typedef struct Check {
    RouteKind kind;
    void (*unknown)(const char *path, void *user);
    void *user;
    Err *err;
    char shown[256]; /* the field at hand, with its real keys and positions */
    char path[256];  /* the same as the schema writes it */
} Check;

static bool wrong(const Check *c, const char *what, const json_t *value) {
    auto_buf Buf is = {.limit = 64};
    buf_json_tree(&is, value);
    err_set(c->err, ERR_INVALID, "%s must be %s, is %s", c->shown, what, is.at ? is.at : "");
    return err_param(c->err, c->shown);
}

static bool no_string(const Check *c, const json_t *value) {
    wrong(c, "a string", value);
    return err_hint(c->err, "Put the value in quotes.");
}

static bool in_values(const char *values, const char *text) {
    Str rest = str_of(values), one;
    while (str_cut(&rest, '|', &one))
        if (str_eq(one, text)) return true;
    return false;
}

static bool check_scalar(const Check *c, const Row *row, const json_t *value) {
    char what[128];
    bool bounded = row->least || row->most;
    if (row->type == 'i') {
        int64_t number = json_integer_value(value);
        if (!json_is_integer(value)) return wrong(c, "a whole number", value);
        if (!bounded || (number >= row->least && number <= row->most)) return true;
        snprintf(what, sizeof what, "from %lld to %lld", (long long)row->least,
                 (long long)row->most);
        return wrong(c, what, value);
    }
    if (!json_is_string(value)) return no_string(c, value);
    if (row->values && !in_values(row->values, json_string_value(value))) {
        snprintf(what, sizeof what, "one of %s", row->values);
        return wrong(c, what, value);
    }
    size_t length = json_string_length(value);
    if (!bounded || (length >= (size_t)row->least && length <= (size_t)row->most)) return true;
    snprintf(what, sizeof what, "%lld to %lld bytes long", (long long)row->least,
             (long long)row->most);
    return wrong(c, what, value);
}

static const Row *row_find(const Check *c) {
    for (size_t i = 0; i < schemas[c->kind].count; i++)
        if (!strcmp(schemas[c->kind].rows[i].path, c->path)) return &schemas[c->kind].rows[i];
    return NULL;
}

static bool check_value(Check *c, const Row *row, const json_t *value);

/* One level down: `shown` and `path` grow by what is given, and shrink again. */
static bool check_below(Check *c, const char *shown, const char *path, const json_t *value) {
    size_t shown_length = strlen(c->shown), path_length = strlen(c->path);
    snprintf(c->shown + shown_length, sizeof c->shown - shown_length, "%s", shown);
    snprintf(c->path + path_length, sizeof c->path - path_length, "%s", path);
    const Row *row = row_find(c);
    bool ok = true;
    if (row) ok = json_is_null(value) || check_value(c, row, value);
    else if (c->unknown && schemas[c->kind].root) c->unknown(c->shown, c->user);
    if (!ok) return false;
    c->shown[shown_length] = c->path[path_length] = 0;
    return true;
}

static bool check_required(const Check *c, const json_t *value) {
    size_t length = strlen(c->path);
    for (size_t i = 0; i < schemas[c->kind].count; i++) {
        const Row *row = &schemas[c->kind].rows[i];
        bool below = !strncmp(row->path, c->path, length) && row->path[length] == '.';
        const char *key = below ? row->path + length + 1 : NULL;
        if (!below || !row->required || strpbrk(key, ".[{") || route_at(value, key)) continue;
        err_set(c->err, ERR_INVALID, "%s.%s is missing", c->shown, key);
        return err_param(c->err, key);
    }
    return true;
}

static bool check_members(Check *c, const json_t *value, bool is_map) {
    if (!json_is_object(value)) return wrong(c, "an object", value);
    if (!is_map && !check_required(c, value)) return false;
    for (void *at = json_object_iter((json_t *)value); at;
         at = json_object_iter_next((json_t *)value, at)) {
        char shown[192];
        snprintf(shown, sizeof shown, is_map ? "[%s]" : ".%s", json_object_iter_key(at));
        if (!check_below(c, shown, is_map ? "{}" : shown, json_object_iter_value(at))) return false;
    }
    return true;
}

static bool check_items(Check *c, const Row *row, const json_t *value) {
    if (!json_is_array(value)) return wrong(c, "a list", value);
    size_t count = json_array_size(value);
    if (row->most && (count < (size_t)row->least || count > (size_t)row->most)) {
        err_set(c->err, ERR_INVALID, "%s has %zu items, must have from %lld to %lld", c->shown,
                count, (long long)row->least, (long long)row->most);
        return err_param(c->err, c->shown);
    }
    for (size_t i = 0; i < count; i++) {
        char shown[24];
        snprintf(shown, sizeof shown, "[%zu]", i);
        if (!check_below(c, shown, "[]", json_array_get(value, i))) return false;
    }
    return true;
}

static bool check_value(Check *c, const Row *row, const json_t *value) {
    switch (row->type) {
    case 'o': return check_members(c, value, false);
    case 'm': return check_members(c, value, true);
    case 'a': return check_items(c, row, value);
    case '*': return true;
    default: return check_scalar(c, row, value);
    }
}

static bool check_schema(RouteKind kind, const json_t *object,
                         void (*unknown)(const char *, void *), void *user, Err *err) {
    Check c = {.kind = kind, .unknown = unknown, .user = user, .err = err};
    for (size_t i = 0; i < schemas[kind].count; i++) {
        const Row *row = &schemas[kind].rows[i];
        if (strpbrk(row->path, "[{")) continue;
        bool is_root = schemas[kind].root && !strcmp(row->path, schemas[kind].root);
        if (schemas[kind].root && !is_root) continue; /* reached from there */
        const json_t *value = route_at(object, row->path);
        snprintf(c.shown, sizeof c.shown, "%s", row->path);
        snprintf(c.path, sizeof c.path, "%s", row->path);
        if (!value && row->required) {
            err_set(err, ERR_INVALID, "%s is missing", row->path);
            return err_param(err, row->path);
        }
        if (value && !check_value(&c, row, value)) return false;
    }
    return true;
}

/* ---- what a schema cannot say ---- */

static bool check_pattern(const json_t *match, const char *where, Err *err) {
    const char *regex = route_text(match, "regex", NULL);
    if (!regex) return true;
    RouteRegex *compiled = route_regex_new(regex, err);
    route_regex_free(compiled);
    return compiled || err_wrap(err, "%s.regex", where);
}

static bool check_rule(const json_t *rule, size_t number, Err *err) {
    char where[256];
    const json_t *headers = route_at(rule, "modelMatch.headers"),
                 *uri = route_at(rule, "modelMatch.uri");
    for (void *at = json_object_iter((json_t *)headers); at;
         at = json_object_iter_next((json_t *)headers, at)) {
        snprintf(where, sizeof where, "spec.rules[%zu].modelMatch.headers[%s]", number,
                 json_object_iter_key(at));
        if (!check_pattern(json_object_iter_value(at), where, err)) return false;
    }
    snprintf(where, sizeof where, "spec.rules[%zu].modelMatch.uri", number);
    if (!check_pattern(uri, where, err)) return false;
    const json_t *targets = route_at(rule, "targetModels");
    int64_t total = 0;
    for (size_t i = 0; i < json_array_size(targets); i++) {
        const json_t *target = json_array_get(targets, i);
        bool server = *route_text(target, "modelServerName", "") != 0;
        if (server == (*route_text(target, "externalModelProviderName", "") != 0))
            return err_set(
                err, ERR_INVALID,
                "spec.rules[%zu].targetModels[%zu] must name either a modelServerName or "
                "an externalModelProviderName",
                number, i);
        total += route_number(target, "weight", 100);
    }
    return total > 0 ||
           err_set(err, ERR_INVALID, "spec.rules[%zu].targetModels: all weights are 0", number);
}

static bool check_route(const json_t *object, Err *err) {
    const json_t *rules = route_at(object, "spec.rules");
    if (!*route_text(object, "spec.modelName", "") &&
        json_array_size(route_at(object, "spec.loraAdapters")) == 0)
        return err_set(err, ERR_INVALID, "spec.modelName and spec.loraAdapters are both empty");
    for (size_t i = 0; i < json_array_size(rules); i++)
        if (!check_rule(json_array_get(rules, i), i, err)) return false;
    return true;
}

bool route_connector(const json_t *server, RouteConnector *out, Err *err) {
    static const char *const names[ROUTE_CONNECTORS] = {"http", "lmcache", "nixl", "mooncake"};
    bool sglang = !strcmp(route_text(server, "spec.inferenceEngine", ""), "SGLang");
    const char *type = route_text(server, "spec.kvConnector.type", "");
    if (!*type)
        type = sglang && route_at(server, "spec.workloadSelector.pdGroup") ? "sglang" : "http";
    for (RouteConnector c = 0; c < ROUTE_CONNECTORS; c++)
        if (!strcmp(type, names[c])) return *out = c, true;
    if (!strcmp(type, "sglang"))
        err_set(err, ERR_UNSUPPORTED, "the kv connector sglang is not supported yet");
    else err_set(err, ERR_INVALID, "spec.kvConnector.type cannot be '%s'", type);
    return err_hint(err, "Set spec.kvConnector.type to nixl, mooncake, lmcache or http.");
}

static bool check_duration(const json_t *object, const char *path, Err *err) {
    const char *text = route_text(object, path, NULL);
    int64_t us;
    if (!text || route_duration(text, &us)) return true;
    err_set(err, ERR_INVALID, "%s cannot be '%s': expected a duration such as 30s or 1m30s", path,
            text);
    return err_param(err, path);
}

static bool check_server(const json_t *object, Err *err) {
    RouteConnector connector;
    if (!strcmp(route_text(object, "spec.workloadPort.protocol", "http"), "https")) {
        err_set(err, ERR_UNSUPPORTED, "spec.workloadPort.protocol https is not supported yet");
        return err_hint(err, "Set it to http: engines are reached over the cluster's own network.");
    }
    if (json_object_size(route_at(object, "spec.workloadSelector.matchLabels")) == 0)
        return err_set(err, ERR_INVALID, "spec.workloadSelector.matchLabels is empty");
    return check_duration(object, "spec.trafficPolicy.timeout", err) &&
           check_duration(object, "spec.trafficPolicy.retry.retryInterval", err) &&
           route_connector(object, &connector, err);
}

static bool check_pod(const json_t *object, Err *err) {
    const char *text = json_string_value(
        json_object_get(route_at(object, "metadata.annotations"), ROUTE_PORT_ANNOTATION));
    if (!text) return true;
    char *end;
    errno = 0;
    long port = strtol(text, &end, 10);
    if (end != text && !*end && errno == 0 && port >= 1 && port <= 65535) return true;
    return err_set(err, ERR_INVALID,
                   "metadata.annotations[" ROUTE_PORT_ANNOTATION
                   "] must be a port from 1 to 65535, is '%s'",
                   text);
}

bool route_object_check(const json_t *object, void (*unknown)(const char *path, void *user),
                        void *user, Err *err) {
    static bool (*const checks[ROUTE_KINDS])(const json_t *, Err *) = {
        [KIND_ROUTE] = check_route, [KIND_SERVER] = check_server, [KIND_POD] = check_pod};
    RouteKind kind = route_object_kind(object);
    if (!json_is_object(object))
        return err_set(err, ERR_INVALID, "a manifest must be an object with apiVersion and kind");
    if (kind == KIND_OTHER)
        return err_set(err, ERR_INVALID, "kind '%s' of '%s' is none that a router reads",
                       route_text(object, "kind", ""), route_text(object, "apiVersion", ""));
    if (!*route_name(object))
        return err_set(err, ERR_INVALID, "%s has no metadata.name", route_kind_name(kind));
    const json_t *namespace = route_at(object, "metadata.namespace");
    if (namespace && !json_is_string(namespace)) {
        Check c = {.err = err, .shown = "metadata.namespace"};
        return no_string(&c, namespace) ||
               err_wrap(err, "%s %s", route_kind_name(kind), route_name(object));
    }
    return (check_schema(kind, object, unknown, user, err) && checks[kind](object, err)) ||
           err_wrap(err, "%s %s/%s", route_kind_name(kind), route_namespace(object),
                    route_name(object));
}
