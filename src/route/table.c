// SPDX-License-Identifier: Apache-2.0
#include "table.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- small things ---- */

static const char *full_name(Arena *arena, const char *namespace, const char *name) {
    size_t length = strlen(namespace) + strlen(name) + 2;
    char *full = arena_new(arena, length);
    snprintf(full, length, "%s/%s", namespace, name);
    return full;
}

static const char *dup(Arena *arena, const char *text) {
    return text && *text ? arena_dup(arena, text, strlen(text)) : NULL;
}

/* Iterates over a JSON object that is only read; jansson's macros want it writable. */
#define EACH(object, at)                                                        \
    (void *at = json_object_iter((json_t *)(object)); at;                       \
     at = json_object_iter_next((json_t *)(object), at))

/* ---- pods ---- */

static int pod_order(const void *a, const void *b) {
    return strcmp((*(RoutePod *const *)a)->full, (*(RoutePod *const *)b)->full);
}

static RoutePod *pod_find(const RouteTable *table, const char *full) {
    RoutePod key = {.full = (char *)full}, *want = &key;
    if (!table || !table->pod_count) return NULL;
    RoutePod **at = bsearch(&want, table->pods, table->pod_count, sizeof *table->pods, pod_order);
    return at ? *at : NULL;
}

/* Manifests written by hand have no phase and no conditions: such a pod counts as ready. */
static bool pod_ready(const json_t *object) {
    if (route_at(object, "metadata.deletionTimestamp")) return false;
    if (strcmp(route_text(object, "status.phase", "Running"), "Running") != 0) return false;
    const json_t *conditions = route_at(object, "status.conditions");
    for (size_t i = 0; i < json_array_size(conditions); i++) {
        const json_t *condition = json_array_get(conditions, i);
        if (!strcmp(route_text(condition, "type", ""), "Ready"))
            return !strcmp(route_text(condition, "status", ""), "True");
    }
    return !route_at(object, "status.phase") || !json_array_size(conditions);
}

static int pod_port(const json_t *object, int64_t otherwise) {
    const char *text = json_string_value(
        json_object_get(route_at(object, "metadata.annotations"), ROUTE_PORT_ANNOTATION));
    return text ? (int)strtol(text, NULL, 10) : (int)otherwise;
}

static void add_pods(RouteTable *table, const json_t *pods, const RouteTable *before) {
    table->pods = arena_new(&table->arena, json_object_size(pods) * sizeof *table->pods);
    for EACH (pods, at) {
        const json_t *object = json_object_iter_value(at);
        const char *host = route_text(object, "status.podIP", NULL);
        if (!host) continue;
        const char *full = full_name(&table->arena, route_namespace(object), route_name(object));
        auto_buf Buf identity = {0};
        buf_printf(&identity, "%s %s %d", route_text(object, "metadata.uid", ""), host,
                   pod_port(object, 0));
        RoutePod *pod = pod_find(before, full);
        if (pod && !strcmp(pod->identity, identity.at)) route_pod_ref(pod);
        else pod = route_pod_new(full, host, identity.at);
        pod->ready = pod_ready(object);
        table->pods[table->pod_count++] = pod;
    }
    qsort(table->pods, table->pod_count, sizeof *table->pods, pod_order);
}

/* ---- servers ---- */

typedef struct Groups { /* of one server: a label's value is its place */
    const char **values;
    size_t count, room;
} Groups;

static uint32_t group_of(Groups *groups, const char *value) {
    for (size_t i = 0; i < groups->count; i++)
        if (!strcmp(groups->values[i], value)) return (uint32_t)i;
    mem_reserve(groups->values, groups->room, groups->count + 1);
    groups->values[groups->count] = value;
    return (uint32_t)groups->count++;
}

typedef struct Members { RouteMember *at; size_t count, room; } Members;

static void member_add(Members *members, RoutePod *pod, int port, uint32_t group) {
    mem_reserve(members->at, members->room, members->count + 1);
    RouteMember *member = &members->at[members->count++];
    *member = (RouteMember){.pod = pod, .port = port, .group = group};
    snprintf(member->peer, sizeof member->peer, strchr(pod->host, ':') ? "[%s]:%d" : "%s:%d",
             pod->host, port);
}

static int group_order(const void *a, const void *b) {
    const RouteMember *one = a, *other = b;
    return (one->group > other->group) - (one->group < other->group);
}

static void groups_join(Members *decode, Members *prefill) {
    if (prefill->count) qsort(prefill->at, prefill->count, sizeof *prefill->at, group_order);
    for (size_t i = 0; i < decode->count; i++) {
        RouteMember *member = &decode->at[i];
        for (uint32_t k = 0; k < prefill->count; k++) {
            if (prefill->at[k].group != member->group) continue;
            if (!member->prefill_count++) member->prefill_from = k;
        }
    }
}

static const RouteMember *members_keep(Arena *arena, Members *members) {
    RouteMember *kept = NULL;
    if (members->count) {
        kept = arena_new(arena, members->count * sizeof *kept);
        memcpy(kept, members->at, members->count * sizeof *kept);
    }
    free(members->at);
    return kept;
}

/* As prefill or decode, by its labels; decode is looked at first, and no label at all fits none. */
static void place_apart(const json_t *group, const json_t *object, RoutePod *pod, int port,
                        Groups *groups, Members *decode, Members *prefill) {
    const char *key = route_text(group, "groupKey", "");
    const char *value =
        json_string_value(json_object_get(route_at(object, "metadata.labels"), key));
    if (!value || !*value) return;
    if (route_labels_match(object, route_at(group, "decodeLabels")))
        member_add(decode, pod, port, group_of(groups, value));
    else if (route_labels_match(object, route_at(group, "prefillLabels")))
        member_add(prefill, pod, port, group_of(groups, value));
}

static void server_members(RouteTable *table, RouteServer *server, const json_t *object,
                           const json_t *pods) {
    const json_t *labels = route_at(object, "spec.workloadSelector.matchLabels");
    const json_t *group = route_at(object, "spec.workloadSelector.pdGroup");
    Groups groups = {0};
    Members members = {0}, prefill = {0};
    for EACH (pods, at) {
        const json_t *pod_object = json_object_iter_value(at);
        if (strcmp(route_namespace(pod_object), route_namespace(object)) != 0) continue;
        if (!route_labels_match(pod_object, labels)) continue;
        RoutePod *pod = pod_find(
            table, full_name(&table->arena, route_namespace(pod_object), route_name(pod_object)));
        if (!pod || !pod->ready) continue;
        int port = pod_port(pod_object, route_number(object, "spec.workloadPort.port", 0));
        if (group) place_apart(group, pod_object, pod, port, &groups, &members, &prefill);
        else member_add(&members, pod, port, 0);
    }
    groups_join(&members, &prefill);
    server->member_count = members.count;
    server->prefill_count = prefill.count;
    server->members = members_keep(&table->arena, &members);
    server->prefill = members_keep(&table->arena, &prefill);
    free(groups.values);
}

static void server_policy(RouteServer *server, const json_t *object) {
    const char *timeout = route_text(object, "spec.trafficPolicy.timeout", "0");
    const json_t *retry = route_at(object, "spec.trafficPolicy.retry");
    route_duration(timeout, &server->timeout_us);
    server->attempts = ROUTE_ATTEMPTS;
    if (!retry) return;
    int64_t again = route_number(retry, "attempts", ROUTE_ATTEMPTS);
    if (again < ROUTE_ATTEMPTS) server->attempts = (int)again + 1;
    if (server->attempts > ROUTE_ATTEMPTS) server->attempts = ROUTE_ATTEMPTS;
    route_duration(route_text(retry, "retryInterval", "100ms"), &server->retry_us);
}

static int server_order(const void *a, const void *b) {
    return strcmp(((const RouteServer *)a)->full, ((const RouteServer *)b)->full);
}

static RouteServer *add_servers(RouteTable *table, const json_t *servers, const json_t *pods) {
    RouteServer *all = arena_new(&table->arena, json_object_size(servers) * sizeof *all + 1);
    size_t count = 0;
    for EACH (servers, at) {
        const json_t *object = json_object_iter_value(at);
        RouteServer *server = &all[count++];
        Err unused;
        server->full = full_name(&table->arena, route_namespace(object), route_name(object));
        server->model = dup(&table->arena, route_text(object, "spec.model", NULL));
        if (server->model) {
            auto_buf Buf quoted = {0};
            buf_json_str(&quoted, str_of(server->model));
            server->model_json = (Str){dup(&table->arena, quoted.at), quoted.length};
        }
        server->apart = route_at(object, "spec.workloadSelector.pdGroup") != NULL;
        if (!route_connector(object, &server->connector, &unused)) assert(!"was checked");
        server_policy(server, object);
        server_members(table, server, object, pods);
    }
    qsort(all, count, sizeof *all, server_order);
    return all;
}

/* ---- routes ---- */

static RouteMatch match_of(RouteTable *table, const json_t *object) {
    const char *regex = route_text(object, "regex", NULL);
    RouteMatch match = {0};
    const char *exact = route_text(object, "exact", NULL),
               *prefix = route_text(object, "prefix", NULL);
    if (exact) match.exact = arena_dup(&table->arena, exact, strlen(exact));
    if (prefix) match.prefix = arena_dup(&table->arena, prefix, strlen(prefix));
    if (!regex || exact || prefix) return match;
    Err unused;
    match.regex = route_regex_new(regex, &unused);
    mem_reserve(table->regexes, table->regex_room, table->regex_count + 1);
    table->regexes[table->regex_count++] = match.regex;
    return match;
}

static void rule_conditions(RouteTable *table, RouteRule *rule, const json_t *match) {
    const json_t *uri = route_at(match, "uri"), *headers = route_at(match, "headers");
    rule->model = dup(&table->arena, route_text(match, "body.model", NULL));
    if (uri) {
        RouteMatch *path = arena_new(&table->arena, sizeof *path);
        *path = match_of(table, uri);
        rule->path = path;
    }
    RouteHeaderMatch *at_header =
        arena_new(&table->arena, json_object_size(headers) * sizeof *at_header + 1);
    rule->headers = at_header;
    for EACH (headers, at) {
        at_header->name = dup(&table->arena, json_object_iter_key(at));
        at_header->match = match_of(table, json_object_iter_value(at));
        if (at_header->name) rule->header_count++, at_header++;
    }
}

static void rule_targets(RouteTable *table, RouteRule *rule, const json_t *targets,
                         const char *namespace, const RouteServer *servers, size_t server_count) {
    rule->target_count = json_array_size(targets);
    rule->targets = arena_new(&table->arena, rule->target_count * sizeof *rule->targets + 1);
    for (size_t i = 0; i < rule->target_count; i++) {
        const json_t *object = json_array_get(targets, i);
        RouteTarget *target = &rule->targets[i];
        const char *name = route_text(object, "modelServerName", "");
        target->external = !*name;
        if (target->external) name = route_text(object, "externalModelProviderName", "");
        target->name = full_name(&table->arena, namespace, name);
        target->weight = (uint32_t)route_number(object, "weight", 100);
        RouteServer key = {.full = target->name};
        if (!target->external)
            target->server = bsearch(&key, servers, server_count, sizeof key, server_order);
    }
}

static ModelRoute *route_new(RouteTable *table, const json_t *object, const RouteServer *servers,
                             size_t server_count) {
    ModelRoute *route = arena_new(&table->arena, sizeof *route);
    route->full = full_name(&table->arena, route_namespace(object), route_name(object));
    /* One that was never in a cluster is newer than all that were. */
    route->created = dup(&table->arena, route_text(object, "metadata.creationTimestamp", "~"));
    const json_t *rules = route_at(object, "spec.rules");
    RouteRule *all = arena_new(&table->arena, json_array_size(rules) * sizeof *all + 1);
    route->rules = all;
    route->rule_count = json_array_size(rules);
    for (size_t i = 0; i < route->rule_count; i++) {
        const json_t *rule = json_array_get(rules, i);
        rule_conditions(table, &all[i], route_at(rule, "modelMatch"));
        rule_targets(table, &all[i], route_at(rule, "targetModels"), route_namespace(object),
                     servers, server_count);
    }
    return route;
}

static int entry_order(const void *a, const void *b) {
    const RouteEntry *one = a, *other = b;
    int order = strcmp(one->model, other->model);
    if (!order) order = one->adapter - other->adapter;
    if (!order) order = strcmp(one->route->created, other->route->created);
    return order ? order : strcmp(one->route->full, other->route->full);
}

static void add_routes(RouteTable *table, const json_t *routes, const RouteServer *servers,
                       size_t server_count) {
    RouteEntry *entries = NULL;
    size_t count = 0, room = 0;
    for EACH (routes, at) {
        const json_t *object = json_object_iter_value(at);
        if (json_array_size(route_at(object, "spec.parentRefs"))) continue; /* for a Gateway */
        const ModelRoute *route = route_new(table, object, servers, server_count);
        const json_t *adapters = route_at(object, "spec.loraAdapters");
        const char *model = dup(&table->arena, route_text(object, "spec.modelName", NULL));
        mem_reserve(entries, room, count + 1 + json_array_size(adapters));
        if (model) entries[count++] = (RouteEntry){model, false, route};
        for (size_t i = 0; i < json_array_size(adapters); i++) {
            const char *name = dup(&table->arena, json_string_value(json_array_get(adapters, i)));
            if (name) entries[count++] = (RouteEntry){name, true, route};
        }
    }
    if (count) qsort(entries, count, sizeof *entries, entry_order);
    RouteEntry *kept = arena_new(&table->arena, count * sizeof *kept + 1);
    const char **models = arena_new(&table->arena, count * sizeof *models + 1);
    if (count) memcpy(kept, entries, count * sizeof *kept);
    free(entries);
    for (size_t i = 0; i < count; i++)
        if (i == 0 || strcmp(kept[i].model, kept[i - 1].model) != 0)
            models[table->model_count++] = kept[i].model;
    table->entries = kept;
    table->entry_count = count;
    table->models = models;
}

/* ---- table.h ---- */

RouteTable *route_table_new(const json_t *const objects[ROUTE_KINDS], const RouteTable *before) {
    RouteTable *table = mem_new(sizeof *table);
    table->refs = 1;
    add_pods(table, objects[KIND_POD], before);
    RouteServer *servers = add_servers(table, objects[KIND_SERVER], objects[KIND_POD]);
    add_routes(table, objects[KIND_ROUTE], servers, json_object_size(objects[KIND_SERVER]));
    return table;
}

RouteTable *route_table_ref(RouteTable *table) {
    table->refs++;
    return table;
}

void route_table_unref(RouteTable *table) {
    if (!table || --table->refs > 0) return;
    for (size_t i = 0; i < table->pod_count; i++) route_pod_unref(table->pods[i]);
    for (size_t i = 0; i < table->regex_count; i++) route_regex_free(table->regexes[i]);
    free(table->regexes);
    arena_done(&table->arena);
    free(table);
}

/* The first entry of the model; entry_count if there is none. */
static size_t first_entry(const RouteTable *table, Str model) {
    size_t low = 0, high = table->entry_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const char *name = table->entries[middle].model;
        size_t length = strlen(name), common = length < model.length ? length : model.length;
        int order = memcmp(name, model.at, common);
        if (order < 0 || (order == 0 && length < model.length)) low = middle + 1;
        else high = middle;
    }
    return low < table->entry_count && str_eq(model, table->entries[low].model)
               ? low
               : table->entry_count;
}

bool route_table_knows(const RouteTable *table, Str model) {
    return first_entry(table, model) < table->entry_count;
}

static bool unknown_model(const RouteTable *table, Str model, Err *err) {
    auto_buf Buf known = {.limit = 300};
    size_t shown = 0;
    for (; shown < table->model_count && known.length < 200; shown++)
        buf_printf(&known, "%s%.100s", shown ? ", " : "", table->models[shown]);
    if (shown < table->model_count) buf_printf(&known, " and %zu more", table->model_count - shown);
    if (!table->model_count) buf_str(&known, "none yet");
    err_set(err, ERR_NOT_FOUND, "the model '%.*s' is not served here; served: %s",
            (int)(model.length < 100 ? model.length : 100), model.at, known.at);
    err_param(err, "model");
    return err_hint(err, "GET /v1/models lists all names; a ModelRoute adds one.");
}

static bool target_lives(const RouteTarget *target) {
    return target->server && target->server->member_count > 0;
}

/* Among those that can serve, by weight. */
static const RouteTarget *draw_target(const RouteRule *rule, uint64_t draw) {
    uint64_t total = 0;
    for (size_t i = 0; i < rule->target_count; i++)
        if (target_lives(&rule->targets[i])) total += rule->targets[i].weight;
    if (!total) return NULL;
    uint64_t left = draw % total;
    for (size_t i = 0;; i++) {
        if (!target_lives(&rule->targets[i])) continue;
        if (left < rule->targets[i].weight) return &rule->targets[i];
        left -= rule->targets[i].weight;
    }
}

static int target_rank(const RouteTarget *target) { return target->server ? 2 : !target->external; }

/* Speaks of the target that is nearest to serving. */
static bool no_target(const ModelRoute *route, const RouteRule *rule, Err *err) {
    const RouteTarget *target = rule->targets;
    for (size_t i = 1; i < rule->target_count; i++)
        if (target_rank(&rule->targets[i]) > target_rank(target)) target = &rule->targets[i];
    if (target->external) {
        err_set(err, ERR_UNAVAILABLE,
                "ModelRoute %s leads to the external provider %s, which this router cannot use yet",
                route->full, target->name);
        return err_hint(err, "Give the rule a target with a modelServerName.");
    }
    if (!target->server) {
        err_set(err, ERR_NOT_FOUND, "there is no ModelServer %s, which ModelRoute %s leads to",
                target->name, route->full);
        return err_hint(err, "Apply it, or correct modelServerName in the ModelRoute.");
    }
    err_set(err, ERR_UNAVAILABLE, "no pod of ModelServer %s is ready%s", target->name,
            target->server->apart ? " to decode" : "");
    return err_hint(err, "Its workloadSelector selects pods by label in its own namespace; they "
                         "must be Running and Ready.");
}

bool route_table_find(const RouteTable *table, Str model, Str path, HttpHeaders headers,
                      uint64_t draw, RouteFound *found, Err *err) {
    size_t first = first_entry(table, model);
    if (first == table->entry_count) return unknown_model(table, model, err);
    bool adapter = table->entries[first].adapter, failed = false;
    for (size_t i = first; i < table->entry_count && str_eq(model, table->entries[i].model); i++) {
        const ModelRoute *route = table->entries[i].route;
        if (table->entries[i].adapter != adapter) break; /* the model itself comes first */
        const RouteRule *rule = route->rules, *end = rule + route->rule_count;
        while (rule < end && !route_rule_matches(rule, model, path, headers)) rule++;
        if (rule == end) continue;
        const RouteTarget *target = draw_target(rule, draw);
        if (target) {
            *found = (RouteFound){route, target->server, adapter};
            return true;
        }
        if (!failed) no_target(route, rule, err);
        failed = true;
    }
    if (failed) return false;
    err_set(err, ERR_NOT_FOUND,
            "no rule of ModelRoute %s for the model '" STR_FMT "' fits this request",
            table->entries[first].route->full, STR_ARG(model));
    return err_hint(err,
                    "Its rules ask for headers, a path or a model name; one without modelMatch "
                    "fits all.");
}
