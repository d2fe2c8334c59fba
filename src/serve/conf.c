// SPDX-License-Identifier: Apache-2.0
#include "conf.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CONFIG_ARGS 512

/* ---- --config FILE: flags that stand in front of those of the command line ---- */

static char *scalar_text(Arena *arena, const json_t *value) {
    if (json_is_string(value))
        return arena_dup(arena, json_string_value(value), json_string_length(value));
    auto_buf Buf text = {0};
    buf_json_tree(&text, value);
    return arena_dup(arena, text.at, text.length);
}

static void add_config_flag(ServeConf *conf, const char *key, const json_t *value, char **argv,
                            int *argc) {
    auto_buf Buf name = {0};
    buf_printf(&name, "--%s%s", json_is_false(value) ? "no-" : "", key);
    argv[(*argc)++] = arena_dup(&conf->arena, name.at, name.length);
    if (json_is_boolean(value)) return;
    size_t i;
    const json_t *one;
    if (!json_is_array(value)) argv[(*argc)++] = scalar_text(&conf->arena, value);
    else json_array_foreach(value, i, one)
        if (*argc < CONFIG_ARGS) argv[(*argc)++] = scalar_text(&conf->arena, one);
}

static bool read_config(ServeConf *conf, const char *path, char **argv, int *argc, Err *err) {
    size_t length;
    auto_free char *text = file_read(path, LIMIT_YAML, &length, err);
    if (!text) return err_hint(err, "--config takes a YAML file of flags: port: 8000");
    auto_json json_t *documents = yaml_parse((Str){text, length}, err);
    if (!documents) return err_wrap(err, "--config %s", path);
    const json_t *flags = json_array_get(documents, 0), *value;
    if (flags && !json_is_object(flags))
        return err_set(err, ERR_INVALID, "--config %s: it holds no mapping of flags", path);
    const char *key;
    json_object_foreach((json_t *)flags, key, value) {
        if (*argc + 2 >= CONFIG_ARGS)
            return err_set(err, ERR_TOO_LARGE, "--config %s: over %d arguments", path, CONFIG_ARGS);
        if (strcmp(key, "model") != 0 || !conf->flags.positional.count)
            add_config_flag(conf, key, value, argv, argc);
    }
    return true;
}

static bool parse_with_config(ServeConf *conf, int argc, char *const *argv, Err *err) {
    char **all = arena_new(&conf->arena, (CONFIG_ARGS + (size_t)argc) * sizeof *all);
    int count = 0;
    if (!read_config(conf, conf->config, all, &count, err)) return false;
    for (int i = 0; i < argc; i++) all[count++] = argv[i];
    *conf = (ServeConf){.arena = conf->arena};
    return serve_flags_parse(conf, count, all, err);
}

/* ---- checks ---- */

static bool check_model(ServeConf *conf, Err *err) {
    const FlagList *given = &conf->flags.positional;
    if (given->count > 1) {
        err_set(err, ERR_INVALID, "unexpected argument '%s' after the model '%s'", given->at[1],
                given->at[0]);
        return err_hint(err, "A flag may be missing in front of it; --help lists all flags.");
    }
    if (given->count) conf->model = given->at[0];
    if (conf->model && *conf->model) return true;
    err_set(err, ERR_INVALID, "no model was given");
    return err_hint(err, "Type: baton engine serve smollm2, or the path of a .gguf file.");
}

static bool check_length(ServeConf *conf, Err *err) {
    const char *text = conf->max_model_len;
    double tokens;
    if (!strcmp(text, "auto") || !strcmp(text, "-1")) return true;
    if (!flag_size(text, &tokens) || tokens < 2 || tokens > 0x1p31) {
        err_set(err, ERR_INVALID,
                "--max-model-len cannot be '%s': expected a whole number from 2, or auto", text);
        err_param(err, "max-model-len");
        return err_hint(err, "--max-model-len takes tokens: 8192, 8k or 8K.");
    }
    conf->context = (size_t)tokens;
    return true;
}

static bool check_batch(ServeConf *conf, Err *err) {
    if (conf->block_tokens % KV_BLOCK_TOKENS) {
        err_set(err, ERR_INVALID, "--block-size cannot be %lld: it is no multiple of %d",
                (long long)conf->block_tokens, KV_BLOCK_TOKENS);
        return err_hint(err, "Use 16, 32, 48 ... 256.");
    }
    if (!conf->max_batched_tokens)
        conf->max_batched_tokens = conf->max_sequences > 512 ? conf->max_sequences : 512;
    if (conf->max_batched_tokens >= conf->max_sequences) return true;
    err_set(err, ERR_INVALID,
            "max_num_batched_tokens (%lld) must be greater than or equal to max_num_seqs (%lld)",
            (long long)conf->max_batched_tokens, (long long)conf->max_sequences);
    return err_hint(err, "Raise --max-num-batched-tokens or lower --max-num-seqs.");
}

static bool check_words(ServeConf *conf, Err *err) {
    if (!conf->log_level) conf->log_level = getenv("VLLM_LOGGING_LEVEL");
    conf->level = LOG_INFO;
    if (conf->log_level && !log_level_from(conf->log_level, &conf->level)) {
        err_set(err, ERR_INVALID, "'%s' is no log level", conf->log_level);
        return err_hint(err, "Use debug, info, warning, error or critical.");
    }
    if (!kv_rail_from(conf->rail_name, &conf->rail)) {
        err_set(err, ERR_INVALID, "--kv-rail cannot be '%s'", conf->rail_name);
        return err_hint(err, "Use auto, shm or tcp.");
    }
    const char *format = conf->content_format;
    if (!strcmp(format, "auto") || !strcmp(format, "string") || !strcmp(format, "openai"))
        return true;
    err_set(err, ERR_INVALID, "--chat-template-content-format cannot be '%s'", format);
    return err_hint(err, "Use auto, string or openai.");
}

/* A path, or the template itself: then it has braces. */
static bool read_template(ServeConf *conf, Err *err) {
    const char *given = conf->chat_template;
    if (!given) return true;
    if (access(given, F_OK) != 0 && strpbrk(given, "{}\n")) {
        conf->template_text = str_of(given);
        return true;
    }
    size_t length;
    auto_free char *text = file_read(given, LIMIT_TEMPLATE, &length, err);
    if (!text) {
        err_wrap(err, "--chat-template");
        return err_hint(err, "--chat-template takes a file, or a template in one line.");
    }
    conf->template_text = (Str){arena_dup(&conf->arena, text, length), length};
    return true;
}

static bool read_pieces(ServeConf *conf, Err *err) {
    if (conf->template_kwargs_pieces.count)
        conf->template_kwargs = serve_merge_pieces("default-chat-template-kwargs",
                                                   &conf->template_kwargs_pieces, err);
    return !conf->template_kwargs_pieces.count || conf->template_kwargs;
}

static uint64_t number_of_env(const char *name) {
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : 0;
}

static void read_environment(ServeConf *conf) {
    const char *key = getenv("VLLM_API_KEY"), *pod = getenv("BATON_POD_IP");
    if (key && *key && conf->api_keys.count < COUNT_OF(conf->api_keys.at))
        conf->api_keys.at[conf->api_keys.count++] = key;
    /* Of several pods in one network namespace each has an address of its own. */
    if (pod && *pod && serve_wildcard(conf->host)) conf->host = pod;
    conf->any_model_name = number_of_env("VLLM_SKIP_MODEL_NAME_VALIDATION") == 1;
    conf->idle_ms = number_of_env("VLLM_HTTP_TIMEOUT_KEEP_ALIVE") * 1000;
    conf->max_body = number_of_env("VLLM_HTTP_MAX_REQUEST_BODY_SIZE");
}

bool serve_conf_read(ServeConf *conf, int argc, char *const *argv, Err *err) {
    *conf = (ServeConf){0};
    if (!serve_flags_parse(conf, argc, argv, err)) return false;
    if (conf->flags.help) return true;
    if (conf->config && !parse_with_config(conf, argc, argv, err)) return false;
    if (!check_model(conf, err) || !serve_flags_refuse(conf, err)) return false;
    if (!conf->served_names.count)
        conf->served_names = (FlagList){.at = {conf->model}, .count = 1};
    if (!conf->threads) conf->threads = serve_cpus();
    read_environment(conf);
    return check_length(conf, err) && check_batch(conf, err) && check_words(conf, err) &&
           read_template(conf, err) && read_pieces(conf, err) && serve_conf_kv(conf, err);
}

void serve_conf_done(ServeConf *conf) {
    json_decref(conf->template_kwargs);
    arena_done(&conf->arena);
}
