// SPDX-License-Identifier: Apache-2.0
/* --kv-transfer-config: a JSON object, whole or in pieces, and the address that peers are told. */
#include "conf.h"

#include <stdio.h>
#include <stdlib.h>

#define LEASE_S 30 /* as vLLM's kv_lease_duration */
#define PULL_S 5

/* ---- pieces ---- */

static json_t *piece_value(const char *text) {
    Err err = {0};
    double number;
    json_t *value = json_parse(str_of(text), &err);
    if (!value && flag_size(text, &number)) value = json_integer((json_int_t)number);
    return value ? value : json_string(text);
}

/* Sets `value`, which is taken, at "a.b.c". */
static void set_at(json_t *tree, const char *path, json_t *value) {
    Str rest = str_of(path), name;
    while (str_cut(&rest, '.', &name)) {
        auto_free char *key = mem_dup_bytes(name.at, name.length);
        if (!rest.at) {
            json_object_set_new(tree, key, value);
            return;
        }
        json_t *below = json_object_get(tree, key);
        if (!json_is_object(below)) {
            below = json_object();
            json_object_set_new(tree, key, below);
        }
        tree = below;
    }
    json_decref(value);
}

json_t *serve_merge_pieces(const char *flag, const FlagList *pieces, Err *err) {
    json_t *whole = json_object();
    for (size_t i = 0; i < pieces->count; i++) {
        const char *equals = strchr(pieces->at[i], '=');
        auto_free char *path = mem_dup_bytes(pieces->at[i], (size_t)(equals - pieces->at[i]));
        if (*path) {
            set_at(whole, path, piece_value(equals + 1));
            continue;
        }
        auto_json json_t *tree = json_parse(str_of(equals + 1), err);
        if (tree && !json_is_object(tree))
            err_set(err, ERR_INVALID, "expected a JSON object, got %.64s", equals + 1);
        if (!json_is_object(tree)) {
            err_wrap(err, "--%s", flag);
            err_param(err, flag);
            err_hint(err, "Quote the JSON for the shell: --%s '{\"key\": \"value\"}'", flag);
            json_decref(whole);
            return NULL;
        }
        json_object_update_recursive(whole, tree);
    }
    return whole;
}

/* ---- keys ---- */

typedef enum KeyKind { KEY_STRING, KEY_PORT, KEY_OBJECT, KEY_UNUSED } KeyKind;

static const struct Key { const char *name; KeyKind kind;
} keys[] = {
    {"kv_connector", KEY_STRING}, {"kv_role", KEY_STRING}, {"engine_id", KEY_STRING},
    {"kv_port", KEY_PORT}, {"kv_connector_extra_config", KEY_OBJECT},
    {"kv_load_failure_policy", KEY_STRING},
    {"kv_buffer_device", KEY_UNUSED}, {"kv_buffer_size", KEY_UNUSED}, {"kv_rank", KEY_UNUSED},
    {"kv_parallel_size", KEY_UNUSED}, {"kv_ip", KEY_UNUSED},
    {"kv_connector_module_path", KEY_UNUSED}, {"enable_permute_local_kv", KEY_UNUSED},
};

static bool bad_key(const char *name, const json_t *value, const char *expected, Err *err) {
    auto_buf Buf text = {0};
    buf_json_tree(&text, value);
    err_set(err, ERR_INVALID, "--kv-transfer-config: %s cannot be %.64s", name, text.at);
    err_param(err, "kv-transfer-config");
    return err_hint(err, "%s takes %s.", name, expected);
}

static bool unknown_key(const char *name, Err *err) {
    const char *names[COUNT_OF(keys)];
    for (size_t i = 0; i < COUNT_OF(keys); i++) names[i] = keys[i].name;
    const char *nearest = str_nearest(name, names, COUNT_OF(names));
    err_set(err, ERR_INVALID, "--kv-transfer-config: unknown key '%.64s'", name);
    err_param(err, "kv-transfer-config");
    return nearest ? err_hint(err, "Did you mean %s?", nearest)
                   : err_hint(err, "It needs kv_connector and kv_role, and may have engine_id, "
                                   "kv_port and kv_connector_extra_config.");
}

static void note_unused(ServeConf *conf, const char *prefix, const char *name) {
    FlagList *list = &conf->kv_no_effect;
    if (list->count == COUNT_OF(list->at)) return;
    auto_buf Buf text = {0};
    buf_printf(&text, "%s%s", prefix, name);
    list->at[list->count++] = arena_dup(&conf->arena, text.at, text.length);
}

static bool check_keys(ServeConf *conf, const json_t *tree, Err *err) {
    const char *name;
    const json_t *value;
    json_object_foreach((json_t *)tree, name, value) {
        size_t i = 0;
        while (i < COUNT_OF(keys) && strcmp(keys[i].name, name) != 0) i++;
        if (i == COUNT_OF(keys)) return unknown_key(name, err);
        if (keys[i].kind == KEY_UNUSED) note_unused(conf, "", name);
        if (json_is_null(value)) continue;
        if (keys[i].kind == KEY_STRING && !json_is_string(value))
            return bad_key(name, value, "a string", err);
        if (keys[i].kind == KEY_OBJECT && !json_is_object(value))
            return bad_key(name, value, "a JSON object", err);
    }
    return true;
}

/* ---- what the keys say ---- */

static const char *string_of(const json_t *tree, const char *name) {
    return json_string_value(json_object_get(tree, name));
}

static bool read_connector(ServeConf *conf, const json_t *tree, Err *err) {
    static const char *const known[] = {"NixlConnector", "NixlPullConnector", "MooncakeConnector",
                                        "MooncakeConnectorV1"};
    static const struct { const char *name; EngineRole role;
    } roles[] = {{"kv_producer", ROLE_PRODUCER}, {"kv_consumer", ROLE_CONSUMER},
                 {"kv_both", ROLE_BOTH}};
    const char *connector = string_of(tree, "kv_connector"), *role = string_of(tree, "kv_role");
    for (size_t i = 0; connector && i < COUNT_OF(known); i++)
        if (!strcmp(connector, known[i])) conf->connector = known[i];
    if (!conf->connector) {
        if (connector) bad_key("kv_connector", json_object_get(tree, "kv_connector"), "", err);
        else err_set(err, ERR_INVALID, "--kv-transfer-config: kv_connector is missing");
        return err_hint(err, "Use NixlConnector, MooncakeConnector or MooncakeConnectorV1.");
    }
    for (size_t i = 0; role && i < COUNT_OF(roles); i++)
        if (!strcmp(role, roles[i].name)) conf->role = roles[i].role;
    if (conf->role != ROLE_NONE) return true;
    if (role) bad_key("kv_role", json_object_get(tree, "kv_role"), "", err);
    else err_set(err, ERR_INVALID, "--kv-transfer-config: kv_role is missing");
    return err_hint(err, "Use kv_producer for prefill, kv_consumer for decode, or kv_both.");
}

static bool read_seconds(const json_t *extra, const char *name, double fallback, int64_t *out_us,
                         Err *err) {
    const json_t *value = json_object_get(extra, name);
    double seconds = json_is_number(value) ? json_number_value(value) : fallback;
    if ((value && !json_is_number(value)) || !(seconds >= 0.001 && seconds <= 86400))
        return bad_key(name, value, "seconds, from 0.001 to 86400", err);
    *out_us = (int64_t)(seconds * 1e6);
    return true;
}

static bool read_extra(ServeConf *conf, const json_t *tree, Err *err) {
    const json_t *extra = json_object_get(tree, "kv_connector_extra_config"), *value;
    const char *name;
    json_object_foreach((json_t *)extra, name, value)
        if (strcmp(name, "kv_lease_duration") != 0 && strcmp(name, "pull_timeout_s") != 0)
            note_unused(conf, "kv_connector_extra_config.", name);
    return read_seconds(extra, "kv_lease_duration", LEASE_S, &conf->lease_us, err) &&
           read_seconds(extra, "pull_timeout_s", PULL_S, &conf->pull_us, err);
}

static bool read_policy(ServeConf *conf, const json_t *tree, Err *err) {
    const json_t *value = json_object_get(tree, "kv_load_failure_policy");
    const char *policy = json_string_value(value);
    if (!policy || !strcmp(policy, "recompute")) return true;
    if (strcmp(policy, "fail") != 0)
        return bad_key("kv_load_failure_policy", value, "recompute or fail", err);
    return conf->strict = true;
}

static bool port_of(const json_t *value, int64_t *out) {
    int64_t port = json_is_integer(value) ? json_integer_value(value) : -1;
    if (json_is_string(value)) {
        char *end;
        const char *text = json_string_value(value);
        port = strtoll(text, &end, 10);
        if (end == text || *end) port = -1;
    }
    *out = port;
    return port >= 0 && port <= 65535;
}

static bool read_port(ServeConf *conf, const json_t *tree, Err *err) {
    const json_t *value = json_object_get(tree, "kv_port");
    const char *environment = getenv("VLLM_NIXL_SIDE_CHANNEL_PORT");
    int64_t port = 0;
    if (value && !json_is_null(value) && !port_of(value, &port))
        return bad_key("kv_port", value, "a port from 0 to 65535", err);
    if (environment) {
        auto_json json_t *text = json_string(environment);
        if (!port_of(text, &port)) {
            err_set(err, ERR_INVALID, "VLLM_NIXL_SIDE_CHANNEL_PORT cannot be '%s'", environment);
            return err_hint(err, "It takes a port from 0 to 65535.");
        }
    }
    if (conf->kv_port < 0) conf->kv_port = port;
    return true;
}

/* Manifests give the same engine_id to all replicas, so ours gets a part of its own. */
static void read_engine_id(ServeConf *conf, const json_t *tree) {
    const char *given = string_of(tree, "engine_id");
    if (!given || !*given) return;
    uint32_t random;
    random_bytes(&random, sizeof random);
    snprintf(conf->engine_id, sizeof conf->engine_id, "%.80s-%08x", given, random);
}

/* A peer is told an address that it can reach: never 0.0.0.0. */
static void read_host(ServeConf *conf) {
    const char *const given[] = {getenv("VLLM_NIXL_SIDE_CHANNEL_HOST"), getenv("VLLM_HOST_IP"),
                                 conf->host};
    char own[64];
    for (size_t i = 0; i < COUNT_OF(given); i++)
        if (!serve_wildcard(given[i])) {
            bool local = !strcmp(given[i], "localhost");
            snprintf(conf->kv_host, sizeof conf->kv_host, "%s", local ? "127.0.0.1" : given[i]);
            return;
        }
    bool found = serve_own_address(own);
    snprintf(conf->kv_host, sizeof conf->kv_host, "%s", found ? own : "127.0.0.1");
    if (given[0] && *given[0])
        snprintf(
            conf->kv_note, sizeof conf->kv_note,
            "VLLM_NIXL_SIDE_CHANNEL_HOST=%.64s is no address that a peer can reach: it is told "
            "%.64s",
            given[0], conf->kv_host);
    else if (!found)
        snprintf(conf->kv_note, sizeof conf->kv_note,
                 "this machine has no address but 127.0.0.1: only its own engines reach the KV");
}

bool serve_conf_kv(ServeConf *conf, Err *err) {
    conf->lease_us = LEASE_S * 1000000;
    conf->pull_us = PULL_S * 1000000;
    if (!conf->kv_pieces.count) {
        if (conf->kv_port < 0) conf->kv_port = 0;
        return true;
    }
    auto_json json_t *tree = serve_merge_pieces("kv-transfer-config", &conf->kv_pieces, err);
    if (!tree || !check_keys(conf, tree, err) || !read_connector(conf, tree, err) ||
        !read_extra(conf, tree, err) || !read_policy(conf, tree, err) ||
        !read_port(conf, tree, err))
        return false;
    read_engine_id(conf, tree);
    read_host(conf);
    return true;
}
