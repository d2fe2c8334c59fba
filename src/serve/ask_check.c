// SPDX-License-Identifier: Apache-2.0
/* What no single field of a request tells: fields that do not go together. */
#include "ask.h"

#include <stdio.h>
#include <stdlib.h>

static const char *number_text(char out[24], int64_t value) {
    snprintf(out, 24, "%lld", (long long)value);
    return out;
}

static bool at_least_0(const char *name, AskInt field, Problem *problem) {
    char value[24];
    if (!field.given || field.value >= -1) return true;
    return problem_value(problem, name, number_text(value, field.value),
                         "`%s` must be a positive value or -1.", name);
}

static bool check_logprobs(const Ask *ask, Problem *problem) {
    int64_t prompt = ask->prompt_logprobs.value, top = ask->top_logprobs.value;
    if (ask_is(ask->stream, false) && (prompt > 0 || prompt == -1))
        return problem_value(problem, "prompt_logprobs", NULL,
                             "`prompt_logprobs` are not available when `stream=True`.");
    if (!at_least_0("prompt_logprobs", ask->prompt_logprobs, problem) ||
        !at_least_0("logprobs", ask->logprobs, problem) ||
        !at_least_0("top_logprobs", ask->top_logprobs, problem))
        return false;
    if ((top > 0 || top == -1) && !ask_is(ask->chat_logprobs, false))
        return problem_value(problem, "top_logprobs", NULL,
                             "when using `top_logprobs`, `logprobs` must be set to true.");
    return true;
}

static bool names_function(const json_t *tool) {
    const json_t *function = json_object_get(tool, "function");
    return json_is_string(json_object_get(function, "name"));
}

static bool check_tools(const Ask *ask, Problem *problem) {
    const char *choice = json_string_value(ask->tool_choice);
    size_t i;
    const json_t *tool;
    if (ask->tools && !json_array_size(ask->tools))
        return problem_value(problem, "tools", NULL,
                             "`tools` must not be an empty array. Either provide at least one tool "
                             "or omit the field entirely.");
    json_array_foreach(ask->tools, i, tool)
        if (!names_function(tool))
            return problem_value(problem, "tools", NULL,
                                 "`tools[%zu]` must have a `function` with a `name`.", i);
    if (choice && !strcmp(choice, "none")) return true;
    if (ask->tool_choice && !ask->tools)
        return problem_value(problem, "tool_choice", NULL,
                             "When using `tool_choice`, `tools` must be set.");
    if (!ask->tools) return true;
    if (!ask->tool_choice || (choice && !strcmp(choice, "auto")))
        return problem_set(problem, NULL,
                           "\"auto\" tool choice requires --enable-auto-tool-choice and "
                           "--tool-call-parser to be set");
    if (json_is_object(ask->tool_choice) || (choice && !strcmp(choice, "required")))
        return problem_set(problem, "tool_choice",
                           "`tool_choice` other than \"none\" is not supported here yet: with "
                           "\"none\" the tools reach the chat template.");
    return problem_value(problem, "tool_choice", NULL,
                         "Invalid value for `tool_choice`: %.64s! Only named tools, \"none\", "
                         "\"auto\" or \"required\" are supported.",
                         choice ? choice : "?");
}

static bool check_format(const Ask *ask, Problem *problem) {
    const char *type = json_string_value(json_object_get(ask->response_format, "type"));
    if (!ask->response_format || (type && !strcmp(type, "text"))) return true;
    if (type && !strcmp(type, "json_schema") &&
        !json_is_object(json_object_get(ask->response_format, "json_schema")))
        return problem_value(problem, "response_format", NULL,
                             "When response_format type is 'json_schema', the 'json_schema' field "
                             "must be provided.");
    return problem_set(problem, "response_format",
                       "`response_format` of type '%.64s' is not supported here yet: answers are "
                       "plain text.", type ? type : "?");
}

bool ask_is_list(const Ask *ask) {
    const json_t *first = json_array_get(ask->prompt, 0);
    return json_is_string(first) || json_is_array(first);
}

size_t ask_prompt_count(const Ask *ask) {
    return ask_is_list(ask) ? json_array_size(ask->prompt) : 1;
}

static bool check_prompt(const Ask *ask, Problem *problem) {
    if (ask->kind != ASK_COMPLETION) return true;
    bool empty = !ask->prompt ||
                 (json_is_string(ask->prompt) && !json_string_length(ask->prompt)) ||
                 (json_is_array(ask->prompt) && !json_array_size(ask->prompt));
    if (empty)
        return problem_value(problem, "prompt", NULL,
                             "Either prompt or prompt_embeds must be provided and non-empty.");
    size_t count = ask_prompt_count(ask);
    if (count <= LIMIT_PROMPTS) return true;
    return problem_value(problem, "prompt", NULL,
                         "prompt list length %zu exceeds the maximum allowed count of %d.", count,
                         LIMIT_PROMPTS);
}

static bool check_salt(const Ask *ask, Problem *problem) {
    Str salt = ask->cache_salt;
    if (!salt.at) return true;
    if (salt.length && salt.length <= 128 && !memchr(salt.at, '@', salt.length) &&
        !memchr(salt.at, '/', salt.length) && !memchr(salt.at, '\\', salt.length) &&
        !memchr(salt.at, 0, salt.length))
        return true;
    return problem_value(problem, "cache_salt", NULL,
                         "Parameter 'cache_salt' must be a non-empty string of at most 128 bytes, "
                         "without '@', '/', '\\' and NUL.");
}

bool ask_check(const Ask *ask, Problem *problem) {
    char value[24];
    if (ask->include_usage.given && !ask_is(ask->stream, false))
        return problem_value(problem, "stream_options", NULL,
                             "Stream options can only be defined when `stream=True`.");
    if (ask_is(ask->continue_final, false) && ask->add_generation_prompt.given &&
        ask_is(ask->add_generation_prompt, true))
        return problem_set(problem, NULL, "Cannot set both `continue_final_message` and "
                                          "`add_generation_prompt` to True.");
    if (ask->priority.value)
        return problem_value(problem, "priority", number_text(value, ask->priority.value),
                             "Got priority %lld but Priority scheduling is not enabled.",
                             (long long)ask->priority.value);
    return check_prompt(ask, problem) && check_logprobs(ask, problem) &&
           check_tools(ask, problem) && check_format(ask, problem) && check_salt(ask, problem);
}
