// SPDX-License-Identifier: Apache-2.0
/* The messages of a chat: what the API allows, and what a chat template gets to see of it. */
#include "ask.h"

#include <stdio.h>

/* ---- types ---- */

static void check_content(const char *role, const json_t *message, const char *place,
                          Issues *issues) {
    static const char *const must_have[] = {"user", "system", "developer", "tool", "function"};
    const json_t *content = json_object_get(message, "content");
    bool required = false, assistant = role && !strcmp(role, "assistant");
    for (size_t i = 0; role && i < COUNT_OF(must_have); i++)
        required = required || !strcmp(role, must_have[i]);
    if (!content && !required) return;
    if (!content) {
        issue_add(issues, "missing", place, "Field required", message, NULL);
        return;
    }
    if (json_is_string(content) || (json_is_null(content) && assistant)) return;
    if (!json_is_array(content)) {
        issue_add(issues, "string_type", place, "Input should be a valid string", content, NULL);
        issue_add(issues, "iterable_type", place, "Input should be iterable", content, NULL);
        return;
    }
    size_t i;
    const json_t *part;
    char below[128];
    json_array_foreach(content, i, part) {
        if (json_is_string(part) || json_is_string(json_object_get(part, "type"))) continue;
        snprintf(below, sizeof below, "%.80s.%zu%s", place, i, json_is_object(part) ? ".type" : "");
        issue_add(issues, json_is_object(part) ? "missing" : "dict_type", below,
                  json_is_object(part) ? "Field required" : "Input should be a valid dictionary",
                  part, NULL);
    }
}

static void check_calls(const json_t *message, size_t index, Issues *issues) {
    const json_t *calls = json_object_get(message, "tool_calls"), *call;
    char place[96];
    size_t i;
    snprintf(place, sizeof place, "body.messages.%zu.tool_calls", index);
    if (calls && !json_is_null(calls) && !json_is_array(calls))
        issue_add(issues, "iterable_type", place, "Input should be iterable", calls, NULL);
    json_array_foreach(calls, i, call) {
        const json_t *function = json_object_get(call, "function");
        if (json_is_string(json_object_get(function, "name"))) continue;
        snprintf(place, sizeof place, "body.messages.%zu.tool_calls.%zu.function.name", index, i);
        issue_add(issues, "missing", place, "Field required", call, NULL);
    }
}

void messages_check(const json_t *messages, Issues *issues) {
    if (!json_is_array(messages)) {
        issue_add(issues, "list_type", "body.messages", "Input should be a valid list", messages,
                  NULL);
        return;
    }
    size_t i;
    const json_t *message;
    char place[96];
    json_array_foreach(messages, i, message) {
        const json_t *role = json_object_get(message, "role");
        snprintf(place, sizeof place, "body.messages.%zu%s", i,
                 json_is_object(message) ? ".role" : "");
        if (!json_is_object(message)) {
            issue_add(issues, "dict_type", place, "Input should be a valid dictionary", message,
                      NULL);
            continue;
        }
        if (!role) issue_add(issues, "missing", place, "Field required", message, NULL);
        else if (!json_is_string(role))
            issue_add(issues, "string_type", place, "Input should be a valid string", role, NULL);
        snprintf(place, sizeof place, "body.messages.%zu.content", i);
        check_content(json_string_value(role), message, place, issues);
        check_calls(message, i, issues);
    }
}

/* ---- for the template ---- */

/* The text of a part, NULL with a problem if it is none. */
static const json_t *part_text(const json_t *part, const char *model, Problem *problem) {
    static const char *const text[] = {"text", "input_text", "output_text", "refusal", "thinking"};
    static const char *const media[] = {"image", "audio", "video"};
    if (json_is_string(part)) return part;
    const char *type = json_string_value(json_object_get(part, "type"));
    for (size_t i = 0; i < COUNT_OF(text); i++) {
        const json_t *found = json_object_get(part, i < 3 ? "text" : text[i]);
        if (strcmp(type, text[i]) != 0) continue;
        if (json_is_string(found)) return found;
        problem_set(problem, "messages", "a content part of type '%s' has no text", type);
        return NULL;
    }
    for (size_t i = 0; i < COUNT_OF(media); i++)
        if (strstr(type, media[i])) {
            problem_set(problem, NULL, "%s is not a multimodal model", model);
            return NULL;
        }
    problem_set(problem, "messages", "Unknown part type: %.64s", type);
    return NULL;
}

static json_t *text_part(const json_t *text) {
    json_t *part = json_object();
    json_object_set_new(part, "type", json_string("text"));
    json_object_set(part, "text", (json_t *)text);
    return part;
}

static json_t *content_of(const json_t *content, bool parts, const char *model, Problem *problem) {
    if (!content || json_is_null(content)) return parts ? json_array() : json_string("");
    json_t *list = json_array();
    auto_buf Buf joined = {0};
    size_t i;
    const json_t *part;
    if (json_is_string(content)) {
        if (parts) json_array_append_new(list, text_part(content));
        else {
            json_decref(list);
            return json_incref((json_t *)content);
        }
    } else json_array_foreach(content, i, part) {
        const json_t *text = part_text(part, model, problem);
        if (!text) {
            json_decref(list);
            return NULL;
        }
        if (parts) json_array_append_new(list, text_part(text));
        if (i) buf_char(&joined, '\n');
        buf_append(&joined, json_string_value(text), json_string_length(text));
    }
    if (parts) return list;
    json_decref(list);
    return json_stringn(joined.at ? joined.at : "", joined.length);
}

/* Templates print arguments as JSON themselves, so they get them as trees. */
static json_t *calls_of(const json_t *calls, Problem *problem) {
    json_t *out = json_deep_copy(calls), *call;
    size_t i;
    json_array_foreach(out, i, call) {
        json_t *function = json_object_get(call, "function");
        const json_t *arguments = json_object_get(function, "arguments");
        if (arguments && !json_is_string(arguments) && !json_is_null(arguments)) continue;
        Str text = {json_string_value(arguments), json_string_length(arguments)};
        Err err = {0};
        json_t *tree = text.length ? json_parse(text, &err) : json_object();
        if (!tree) {
            problem_set(problem, "messages", "the arguments of tool call %zu are not JSON: %s", i,
                        err.message);
            json_decref(out);
            return NULL;
        }
        json_object_set_new(function, "arguments", tree);
    }
    return out;
}

static json_t *message_for_template(const json_t *message, bool parts, const char *model,
                                    Problem *problem) {
    static const char *const copied[] = {"name", "tool_call_id", "reasoning", "reasoning_content"};
    json_t *content = content_of(json_object_get(message, "content"), parts, model, problem);
    if (!content) return NULL;
    json_t *out = json_object();
    json_object_set(out, "role", json_object_get(message, "role"));
    json_object_set_new(out, "content", content);
    for (size_t i = 0; i < COUNT_OF(copied); i++) {
        json_t *value = json_object_get(message, copied[i]);
        if (value && !json_is_null(value)) json_object_set(out, copied[i], value);
    }
    const json_t *calls = json_object_get(message, "tool_calls");
    if (!json_array_size(calls)) return out;
    json_t *trees = calls_of(calls, problem);
    if (trees) {
        json_object_set_new(out, "tool_calls", trees);
        return out;
    }
    json_decref(out);
    return NULL;
}

json_t *messages_for_template(const json_t *messages, bool parts, const char *model,
                              Problem *problem) {
    json_t *out = json_array();
    size_t i;
    const json_t *message;
    json_array_foreach(messages, i, message) {
        json_t *one = message_for_template(message, parts, model, problem);
        if (!one) {
            json_decref(out);
            return NULL;
        }
        json_array_append_new(out, one);
    }
    return out;
}
