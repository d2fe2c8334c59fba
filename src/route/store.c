// SPDX-License-Identifier: Apache-2.0
#include "store.h"

#include <stdio.h>
#include <stdlib.h>

struct RouteStore {
    json_t *objects[ROUTE_KINDS]; /* "namespace/name": object */
    json_t *named;                /* fields without effect that the log has named */
    uint64_t ignored[ROUTE_IGNORED];
    RouteTable *table;
    bool changed;
};

static const struct {
    const char *name, *why;
} ignored[ROUTE_IGNORED] = {
    [IGNORED_RATE_LIMIT] = {"rateLimit", "this router limits no rates: the field has no effect"},
    [IGNORED_PARENT_REFS] = {"parentRefs",
                             "this router serves no Gateway: the whole ModelRoute has no effect"},
    [IGNORED_PROVIDER] = {"externalModelProviderName",
                          "this router uses no external providers: the target has no effect"},
    [IGNORED_UNKNOWN] = {"unknown", "there is no such field: it has no effect"},
};

const char *route_ignored_name(RouteIgnored field) { return ignored[field].name; }

typedef struct Noting { RouteStore *store; const json_t *object; } Noting;

static void note(const Noting *noting, RouteIgnored field, const char *path) {
    auto_buf Buf text = {0};
    RouteStore *store = noting->store;
    const json_t *object = noting->object;
    buf_printf(&text, "%s %s/%s: %s", route_kind_name(route_object_kind(object)),
               route_namespace(object), route_name(object), path);
    if (json_object_get(store->named, text.at) || json_object_size(store->named) >= LIMIT_OBJECTS)
        return;
    json_object_set_new(store->named, text.at, json_true());
    store->ignored[field]++;
    log_warn("route: %s: %s", text.at, ignored[field].why);
}

static void note_unknown(const char *path, void *user) { note(user, IGNORED_UNKNOWN, path); }

static void note_without_effect(const Noting *noting) {
    if (route_object_kind(noting->object) != KIND_ROUTE) return;
    const json_t *rules = route_at(noting->object, "spec.rules");
    if (route_at(noting->object, "spec.rateLimit"))
        note(noting, IGNORED_RATE_LIMIT, "spec.rateLimit");
    if (json_array_size(route_at(noting->object, "spec.parentRefs")))
        note(noting, IGNORED_PARENT_REFS, "spec.parentRefs");
    for (size_t i = 0; i < json_array_size(rules); i++) {
        const json_t *targets = route_at(json_array_get(rules, i), "targetModels");
        for (size_t k = 0; k < json_array_size(targets); k++) {
            char path[96];
            if (!*route_text(json_array_get(targets, k), "externalModelProviderName", "")) continue;
            snprintf(path, sizeof path,
                     "spec.rules[%zu].targetModels[%zu].externalModelProviderName", i, k);
            note(noting, IGNORED_PROVIDER, path);
        }
    }
}

static void key_of(const char *namespace, const char *name, Buf *key) {
    buf_printf(key, "%s/%s", namespace, name);
}

bool route_store_apply(RouteStore *store, json_t *object, Err *err) {
    Noting noting = {store, object};
    if (!route_object_check(object, note_unknown, &noting, err)) return false;
    RouteKind kind = route_object_kind(object);
    auto_buf Buf key = {0};
    key_of(route_namespace(object), route_name(object), &key);
    note_without_effect(&noting);
    if (json_equal(json_object_get(store->objects[kind], key.at), object)) return true;
    json_object_set(store->objects[kind], key.at, object);
    store->changed = true;
    return true;
}

void route_store_delete(RouteStore *store, RouteKind kind, const char *namespace,
                        const char *name) {
    auto_buf Buf key = {0};
    key_of(namespace, name, &key);
    if (json_object_del(store->objects[kind], key.at) == 0) store->changed = true;
}

void route_store_publish(RouteStore *store) {
    if (!store->changed) return;
    const json_t *const objects[ROUTE_KINDS] = {
        store->objects[KIND_ROUTE], store->objects[KIND_SERVER], store->objects[KIND_POD]};
    RouteTable *table = route_table_new(objects, store->table);
    route_table_unref(store->table);
    store->table = table;
    store->changed = false;
    log_info("route: table of %zu models: %zu ModelRoutes, %zu ModelServers, %zu Pods",
             table->model_count, json_object_size(objects[KIND_ROUTE]),
             json_object_size(objects[KIND_SERVER]), json_object_size(objects[KIND_POD]));
}

RouteTable *route_store_table(const RouteStore *store) { return store->table; }

uint64_t route_store_ignored(const RouteStore *store, RouteIgnored field) {
    return store->ignored[field];
}

RouteStore *route_store_new(void) {
    RouteStore *store = mem_new(sizeof *store);
    for (RouteKind kind = 0; kind < ROUTE_KINDS; kind++) store->objects[kind] = json_object();
    store->named = json_object();
    const json_t *const objects[ROUTE_KINDS] = {
        store->objects[KIND_ROUTE], store->objects[KIND_SERVER], store->objects[KIND_POD]};
    store->table = route_table_new(objects, NULL);
    return store;
}

void route_store_free(RouteStore *store) {
    if (!store) return;
    route_table_unref(store->table);
    for (RouteKind kind = 0; kind < ROUTE_KINDS; kind++) json_decref(store->objects[kind]);
    json_decref(store->named);
    free(store);
}
