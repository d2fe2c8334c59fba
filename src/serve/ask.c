// SPDX-License-Identifier: Apache-2.0
/* The table of request parameters, and how JSON becomes an Ask.
 *
 * Values are converted as the clients of this API are used to: "5" and 5.0 are the integer 5, "yes"
 * is true.  All that is wrong is told at once. */
#include "ask.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef enum ParamKind {
    P_BOOL, P_INT, P_NUMBER, P_STR, P_OBJECT, P_OBJECTS, P_INTS, P_STRS, P_STOP, P_PROMPT,
    P_MESSAGES, P_STREAM_OPTIONS, P_SIDE, P_ANY
} ParamKind;

enum { C = ASK_CHAT, T = ASK_COMPLETION, K = ASK_TOKENIZE, D = ASK_DETOKENIZE, CT = C | T };

#define HARMLESS "*" /* any value of its type: it changes nothing that is served here */

typedef struct Param {
    const char *name;
    ParamKind kind;
    int where;           /* AskKinds that have it */
    bool nullable;
    size_t offset;       /* in Ask, where it has an effect */
    const char *neutral; /* NULL: it has; HARMLESS; or the JSON beside null that asks for nothing */
    double least;        /* of an integer that cannot be below; NO_LEAST */
} Param;

#define NO_LEAST (-INFINITY)
#define AT(field) offsetof(Ask, field)
#define KEPT(name, kind, where, nullable, field)                                                   \
    { name, kind, where, nullable, AT(field), NULL, NO_LEAST }
#define ONLY(name, kind, where, nullable, neutral)                                                 \
    { name, kind, where, nullable, 0, neutral, NO_LEAST }

static const Param params[] = {
    KEPT("messages", P_MESSAGES, C, false, messages),
    KEPT("model", P_STR, CT | K | D, true, model),
    KEPT("prompt", P_PROMPT, T, true, prompt),
    KEPT("tokens", P_INTS, D, false, tokens),
    KEPT("echo", P_BOOL, CT, true, echo),
    KEPT("frequency_penalty", P_NUMBER, CT, true, frequency_penalty),
    KEPT("logit_bias", P_OBJECT, CT, true, logit_bias),
    KEPT("logprobs", P_BOOL, C, true, chat_logprobs),
    KEPT("logprobs", P_INT, T, true, logprobs),
    KEPT("top_logprobs", P_INT, C, true, top_logprobs),
    KEPT("max_tokens", P_INT, CT, true, max_tokens),
    KEPT("max_completion_tokens", P_INT, C, true, max_completion_tokens),
    KEPT("n", P_INT, CT, true, n),
    KEPT("presence_penalty", P_NUMBER, CT, true, presence_penalty),
    KEPT("response_format", P_OBJECT, CT, true, response_format),
    KEPT("seed", P_INT, CT, true, seed),
    KEPT("stop", P_STOP, CT, true, stop),
    KEPT("stream", P_BOOL, CT, true, stream),
    KEPT("stream_options", P_STREAM_OPTIONS, CT, true, include_usage),
    ONLY("suffix", P_STR, T, true, "null"),
    KEPT("temperature", P_NUMBER, CT, true, temperature),
    KEPT("top_p", P_NUMBER, CT, true, top_p),
    KEPT("tools", P_OBJECTS, C | K, true, tools),
    KEPT("tool_choice", P_ANY, C, true, tool_choice),
    KEPT("reasoning_effort", P_STR, C, true, reasoning_effort),
    ONLY("thinking_token_budget", P_INT, CT, true, "-1"),
    ONLY("include_reasoning", P_BOOL, C, false, HARMLESS),
    ONLY("parallel_tool_calls", P_BOOL, C, true, HARMLESS),
    ONLY("user", P_STR, CT, true, HARMLESS),
    ONLY("use_beam_search", P_BOOL, CT, false, "false"),
    KEPT("top_k", P_INT, CT, true, top_k),
    KEPT("min_p", P_NUMBER, CT, true, min_p),
    KEPT("repetition_penalty", P_NUMBER, CT, true, repetition_penalty),
    ONLY("watermarking", P_BOOL, CT, true, "false"),
    ONLY("length_penalty", P_NUMBER, CT, false, HARMLESS), /* of beam search alone */
    KEPT("stop_token_ids", P_INTS, CT, true, stop_token_ids),
    KEPT("include_stop_str_in_output", P_BOOL, CT, false, include_stop),
    KEPT("ignore_eos", P_BOOL, CT, false, ignore_eos),
    KEPT("min_tokens", P_INT, CT, false, min_tokens),
    KEPT("skip_special_tokens", P_BOOL, CT, false, skip_special),
    ONLY("spaces_between_special_tokens", P_BOOL, CT, false, HARMLESS),
    {"truncate_prompt_tokens", P_INT, CT, true, AT(truncate), NULL, -1},
    KEPT("truncation_side", P_SIDE, CT, true, truncation_side),
    KEPT("prompt_logprobs", P_INT, CT, true, prompt_logprobs),
    ONLY("logprob_token_ids", P_INTS, CT, true, "null"),
    ONLY("allowed_token_ids", P_INTS, CT, true, "null"),
    ONLY("bad_words", P_STRS, CT, true, "[]"),
    ONLY("prompt_embeds", P_ANY, T, true, "[]"),
    KEPT("add_generation_prompt", P_BOOL, C | K, false, add_generation_prompt),
    KEPT("continue_final_message", P_BOOL, C | K, false, continue_final),
    KEPT("add_special_tokens", P_BOOL, CT | K, false, add_special),
    KEPT("documents", P_OBJECTS, C, true, documents),
    KEPT("chat_template", P_STR, C | K, true, chat_template),
    KEPT("chat_template_kwargs", P_OBJECT, C | K, true, template_kwargs),
    ONLY("media_io_kwargs", P_OBJECT, C | K, true, HARMLESS),
    ONLY("mm_processor_kwargs", P_OBJECT, C | K, true, HARMLESS),
    ONLY("structured_outputs", P_ANY, CT, true, "{}"),
    KEPT("priority", P_INT, CT, false, priority),
    KEPT("request_id", P_STR, CT, false, request_id),
    ONLY("session_id", P_STR, CT, true, HARMLESS),
    KEPT("return_tokens_as_token_ids", P_BOOL, CT, true, tokens_as_ids),
    KEPT("return_token_ids", P_BOOL, CT, true, return_token_ids),
    KEPT("return_token_strs", P_BOOL, K, true, return_token_strs),
    {"routed_experts_prompt_start", P_INT, CT, false, 0, HARMLESS, 0},
    ONLY("return_token_offsets", P_BOOL, CT, true, HARMLESS),
    KEPT("return_prompt_text", P_BOOL, C, true, return_prompt_text),
    ONLY("mm_payload", P_STR, CT, false, HARMLESS),
    ONLY("return_mm_kwargs", P_BOOL, CT, true, HARMLESS),
    KEPT("cache_salt", P_STR, CT, true, cache_salt),
    KEPT("kv_transfer_params", P_OBJECT, CT, true, kv_params),
    ONLY("ec_transfer_params", P_OBJECT, CT, true, "{}"),
    ONLY("vllm_xargs", P_OBJECT, CT, true, "{}"),
    ONLY("repetition_detection", P_ANY, CT, true, "null"),
    {"stream_interval", P_INT, CT, true, 0, HARMLESS, 1}, /* a token a chunk is always allowed */
    ONLY("best_of", P_INT, CT, true, "1"),
    ONLY("detokenize", P_BOOL, CT, true, "true"),
    ONLY("guided_json", P_ANY, CT, true, "null"),
    ONLY("guided_regex", P_ANY, CT, true, "null"),
    ONLY("guided_choice", P_ANY, CT, true, "null"),
    ONLY("guided_grammar", P_ANY, CT, true, "null"),
    ONLY("guided_decoding_backend", P_ANY, CT, true, HARMLESS),
    ONLY("guided_whitespace_pattern", P_ANY, CT, true, HARMLESS),
    ONLY("structural_tag", P_ANY, CT, true, "null"),
    ONLY("functions", P_ANY, C, true, "[]"),
    ONLY("function_call", P_ANY, C, true, "\"none\""),
    ONLY("modalities", P_ANY, C, true, "[\"text\"]"),
    ONLY("audio", P_ANY, C, true, "null"),
    ONLY("web_search_options", P_ANY, C, true, "null"),
};

/* ---- one value ---- */

static bool word_among(const char *text, const char *const *words, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (!strcasecmp(text, words[i])) return true;
    return false;
}

static void read_bool(const json_t *value, const char *place, AskInt *out, Issues *issues) {
    static const char *const yes[] = {"true", "1", "yes", "on", "t", "y"};
    static const char *const no[] = {"false", "0", "no", "off", "f", "n"};
    double number = json_number_value(value);
    const char *text = json_string_value(value);
    out->given = true;
    if (json_is_boolean(value)) out->value = json_is_true(value);
    else if (json_is_number(value) && (number == 0 || number == 1)) out->value = (int64_t)number;
    else if (text && word_among(text, yes, COUNT_OF(yes))) out->value = 1;
    else if (text && word_among(text, no, COUNT_OF(no))) out->value = 0;
    else if (text || json_is_number(value))
        issue_add(issues, "bool_parsing", place,
                  "Input should be a valid boolean, unable to interpret input", value, NULL);
    else
        issue_add(issues, "bool_type", place, "Input should be a valid boolean", value, NULL);
}

static bool int_of_text(const json_t *value, int64_t *out) {
    char *end;
    const char *text = json_string_value(value);
    errno = 0;
    long long number = strtoll(text, &end, 10);
    *out = number;
    return end != text && !*end && !errno && strlen(text) == json_string_length(value);
}

static void read_int(const json_t *value, const char *place, double least, AskInt *out,
                     Issues *issues) {
    double real = json_real_value(value);
    out->given = true;
    if (json_is_integer(value)) {
        out->value = json_integer_value(value);
    } else if (json_is_boolean(value)) {
        out->value = json_is_true(value);
    } else if (json_is_real(value) && real == floor(real) && fabs(real) < 0x1p63) {
        out->value = (int64_t)real;
    } else if (json_is_real(value)) {
        issue_add(issues, "int_from_float", place,
                  "Input should be a valid integer, got a number with a fractional part", value,
                  NULL);
        return;
    } else if (!json_is_string(value)) {
        issue_add(issues, "int_type", place, "Input should be a valid integer", value, NULL);
        return;
    } else if (!int_of_text(value, &out->value)) {
        issue_add(issues, "int_parsing", place,
                  "Input should be a valid integer, unable to parse string as an integer", value,
                  NULL);
        return;
    }
    if ((double)out->value >= least) return;
    char text[96], context[32];
    snprintf(text, sizeof text, "Input should be greater than or equal to %.0f", least);
    snprintf(context, sizeof context, "'ge': %.0f", least);
    issue_add(issues, "greater_than_equal", place, text, value, context);
}

static void read_number(const json_t *value, const char *place, AskNumber *out, Issues *issues) {
    char *end = NULL;
    const char *text = json_string_value(value);
    out->given = true;
    if (json_is_number(value)) out->value = json_number_value(value);
    else if (json_is_boolean(value)) out->value = json_is_true(value);
    else if (!text)
        issue_add(issues, "float_type", place, "Input should be a valid number", value, NULL);
    else if ((out->value = strtod(text, &end), end == text || *end || !isfinite(out->value)))
        issue_add(issues, "float_parsing", place,
                  "Input should be a valid number, unable to parse string as a number", value,
                  NULL);
}

static void check_object(const json_t *value, const char *place, Issues *issues) {
    if (!json_is_object(value))
        issue_add(issues, "dict_type", place, "Input should be a valid dictionary", value, NULL);
}

static void check_str(const json_t *value, const char *place, Issues *issues) {
    if (!json_is_string(value))
        issue_add(issues, "string_type", place, "Input should be a valid string", value, NULL);
}

static void check_int(const json_t *value, const char *place, Issues *issues) {
    AskInt ignored;
    read_int(value, place, NO_LEAST, &ignored, issues);
}

static void check_token(const json_t *value, const char *place, Issues *issues) {
    AskInt ignored;
    read_int(value, place, 0, &ignored, issues);
}

static void check_list(const json_t *value, const char *place,
                       void (*check)(const json_t *, const char *, Issues *), Issues *issues) {
    if (!json_is_array(value)) {
        issue_add(issues, "list_type", place, "Input should be a valid list", value, NULL);
        return;
    }
    char below[160];
    size_t i;
    const json_t *one;
    json_array_foreach(value, i, one) {
        if (json_is_integer(one) && json_integer_value(one) >= 0 && check == check_token) continue;
        snprintf(below, sizeof below, "%.120s.%zu", place, i);
        check(one, below, issues);
    }
}

static void check_stop(const json_t *value, const char *place, Issues *issues) {
    if (json_is_string(value)) return;
    if (!json_is_array(value)) check_str(value, place, issues);
    check_list(value, place, check_str, issues);
}

static void check_tokens(const json_t *value, const char *place, Issues *issues) {
    check_list(value, place, check_token, issues);
}

/* A text, texts, tokens, or lists of tokens: the first element says which. */
static void check_prompt(const json_t *value, const char *place, Issues *issues) {
    if (json_is_string(value)) return;
    const json_t *first = json_array_get(value, 0);
    if (!json_is_array(value)) {
        check_str(value, place, issues);
        check_list(value, place, check_str, issues);
    } else if (json_is_string(first)) {
        check_list(value, place, check_str, issues);
    } else if (json_is_array(first)) {
        check_list(value, place, check_tokens, issues);
    } else {
        check_list(value, place, check_token, issues);
    }
}

static void read_side(const json_t *value, const char *place, Str *out, Issues *issues) {
    *out = (Str){json_string_value(value), json_string_length(value)};
    if (out->at && (str_eq(*out, "left") || str_eq(*out, "right"))) return;
    issue_add(issues, "literal_error", place, "Input should be 'left' or 'right'", value,
              "'expected': \"'left' or 'right'\"");
}

static void read_stream_options(const json_t *value, const char *place, Ask *ask, Issues *issues) {
    check_object(value, place, issues);
    const json_t *usage = json_object_get(value, "include_usage");
    const json_t *continuous = json_object_get(value, "continuous_usage_stats");
    ask->include_usage = (AskInt){.given = json_object_size(value) > 0};
    if (usage && !json_is_null(usage))
        read_bool(usage, "body.stream_options.include_usage", &ask->include_usage, issues);
    if (continuous && !json_is_null(continuous))
        read_bool(continuous, "body.stream_options.continuous_usage_stats", &ask->continuous_usage,
                  issues);
}

static void read_param(const Param *param, const json_t *value, Ask *ask, Issues *issues) {
    char place[96];
    snprintf(place, sizeof place, "body.%s", param->name);
    AskInt unkept_int;
    AskNumber unkept_number;
    void *field = param->neutral ? NULL : (char *)ask + param->offset;
    const json_t **tree = field;
    switch (param->kind) {
    case P_BOOL: read_bool(value, place, field ? field : &unkept_int, issues); return;
    case P_INT: read_int(value, place, param->least, field ? field : &unkept_int, issues); return;
    case P_NUMBER: read_number(value, place, field ? field : &unkept_number, issues); return;
    case P_STR:
        check_str(value, place, issues);
        if (field) *(Str *)field = (Str){json_string_value(value), json_string_length(value)};
        return;
    case P_SIDE: read_side(value, place, &ask->truncation_side, issues); return;
    case P_STREAM_OPTIONS: read_stream_options(value, place, ask, issues); return;
    case P_OBJECT: check_object(value, place, issues); break;
    case P_OBJECTS: check_list(value, place, check_object, issues); break;
    case P_INTS:
        check_list(value, place, param->where & D ? check_token : check_int, issues);
        break;
    case P_STRS: check_list(value, place, check_str, issues); break;
    case P_STOP: check_stop(value, place, issues); break;
    case P_PROMPT: check_prompt(value, place, issues); break;
    case P_MESSAGES: messages_check(value, issues); break;
    case P_ANY: break;
    }
    if (field) *tree = value;
}

/* ---- the whole request ---- */

static bool asks_for_nothing(const char *neutral, const json_t *value) {
    if (!strcmp(neutral, HARMLESS)) return true;
    Err err = {0};
    auto_json json_t *nothing = json_parse(str_of(neutral), &err);
    return json_equal(nothing, value);
}

static bool not_there_yet(const Param *param, Problem *problem) {
    if (!strcmp(param->name, "suffix"))
        return problem_set(problem, "suffix",
                           "suffix is only supported for models with FIM completion rendering");
    bool null = !strcmp(param->neutral, "null");
    return problem_set(problem, param->name, "`%s` is not supported here yet: leave it out%s%s",
                       param->name, null ? "" : ", or set it to ", null ? "" : param->neutral);
}

static void name_unknown(const Ask *ask) {
    if (!log_enabled(LOG_DEBUG)) return;
    const char *key;
    const json_t *value;
    json_object_foreach(ask->body, key, value) {
        size_t i = 0;
        while (i < COUNT_OF(params) &&
               (strcmp(params[i].name, key) != 0 || !(params[i].where & (int)ask->kind)))
            i++;
        if (i == COUNT_OF(params)) log_debug("serve: request field '%.64s' is unknown", key);
    }
}

/* /tokenize takes a prompt, or the messages of a chat. */
static void read_tokenize_text(Ask *ask, Issues *issues) {
    const json_t *messages = json_object_get(ask->body, "messages");
    const json_t *prompt = json_object_get(ask->body, "prompt");
    if (messages && !prompt) {
        ask->messages = messages;
        messages_check(messages, issues);
    } else if (!prompt) {
        issue_add(issues, "missing", "body.prompt", "Field required", ask->body, NULL);
    } else {
        ask->prompt = prompt;
        check_str(prompt, "body.prompt", issues);
    }
}

static void bad_json(const Err *err, Str body, Problem *problem) {
    Issues issues = {0};
    char place[96];
    auto_buf Buf context = {0};
    if (!body.length) {
        issue_add(&issues, "missing", "body", "Field required", NULL, NULL);
    } else {
        const char *tail = strstr(err->message, ": line ");
        size_t length = tail ? (size_t)(tail - err->message) : strlen(err->message);
        buf_str(&context, "'error': ");
        python_repr(&context, (Str){err->message, length});
        snprintf(place, sizeof place, "body.%s", err->param);
        auto_json json_t *nothing = json_object();
        issue_add(&issues, "json_invalid", place, "JSON decode error", nothing, context.at);
    }
    issues_to_problem(&issues, problem);
}

bool ask_read(Ask *ask, AskKind kind, Str body, Problem *problem) {
    *ask = (Ask){.kind = kind};
    Err err = {0};
    ask->body = json_parse(body, &err);
    if (!ask->body) {
        bad_json(&err, body, problem);
        return false;
    }
    Issues issues = {0};
    if (!json_is_object(ask->body)) {
        issue_add(&issues, "model_attributes_type", "body",
                  "Input should be a valid dictionary or object to extract fields from", ask->body,
                  NULL);
        return issues_to_problem(&issues, problem);
    }
    const Param *refused = NULL;
    for (size_t i = 0; i < COUNT_OF(params); i++) {
        const Param *param = &params[i];
        if (!(param->where & (int)kind)) continue;
        const json_t *value = json_object_get(ask->body, param->name);
        bool required = !strcmp(param->name, kind == ASK_CHAT ? "messages" : "tokens");
        char place[96];
        snprintf(place, sizeof place, "body.%s", param->name);
        if (!value && required)
            issue_add(&issues, "missing", place, "Field required", ask->body, NULL);
        if (!value || (json_is_null(value) && param->nullable)) continue;
        read_param(param, value, ask, &issues);
        if (param->neutral && !refused && !asks_for_nothing(param->neutral, value)) refused = param;
    }
    if (kind == ASK_TOKENIZE) read_tokenize_text(ask, &issues);
    name_unknown(ask);
    if (!issues_to_problem(&issues, problem)) return false;
    return !refused || not_there_yet(refused, problem);
}

void ask_done(Ask *ask) {
    json_decref(ask->body);
    ask->body = NULL;
}
