// SPDX-License-Identifier: Apache-2.0
/* The prompts of a request as tokens, each within the context. */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>

int64_t ask_int_of(const json_t *value) {
    if (json_is_integer(value)) return json_integer_value(value);
    if (json_is_string(value)) return strtoll(json_string_value(value), NULL, 10);
    return json_is_true(value) ? 1 : (int64_t)json_real_value(value);
}

static bool too_long(const Serve *serve, size_t tokens, bool at_least, Problem *problem) {
    char value[24];
    snprintf(value, sizeof value, "%zu", tokens);
    if (tokens == serve->context)
        return problem_value(
            problem, "input_tokens", value,
            "This model's maximum context length is %zu tokens. However, your "
            "prompt contains %zu input tokens, which leaves no room for any output "
            "token. Please reduce the length of the input prompt.",
            serve->context, tokens);
    return problem_value(problem, "input_tokens", value,
                         "This model's maximum context length is %zu tokens. However, your prompt "
                         "contains %s%zu input tokens, which exceeds this limit even without any "
                         "output tokens. Please reduce the length of the input prompt.",
                         serve->context, at_least ? "at least " : "", tokens);
}

bool prompt_encode(const Serve *serve, const Ask *ask, Str text, size_t limit, Tokens *out,
                   Problem *problem) {
    Err err = {0};
    bool chat = ask->messages, special = ask_is(ask->add_special, !chat);
    out->limit = limit;
    if (special && tokenizer_add_bos(serve->tokenizer))
        tokens_add(out, tokenizer_bos(serve->tokenizer));
    if (tokenizer_encode(serve->tokenizer, text, true, out, &err)) return true;
    return err.code == ERR_TOO_LARGE ? too_long(serve, limit + 1, true, problem)
                                     : problem_from_err(problem, &err);
}

bool prompt_ids(const Serve *serve, const json_t *list, Tokens *out, Problem *problem) {
    size_t i;
    const json_t *one;
    json_array_foreach(list, i, one) {
        int64_t id = ask_int_of(one);
        if (id < 0 || (size_t)id >= serve->vocab)
            return problem_set(problem, NULL, "Token id %lld is out of vocabulary", (long long)id);
        tokens_add(out, (int32_t)id);
    }
    return true;
}

static bool truncate_to(const Serve *serve, const Ask *ask, size_t *out, Problem *problem) {
    char value[24];
    int64_t asked = ask->truncate.value, answer = ask->max_tokens.value;
    if (ask->max_completion_tokens.given) answer = ask->max_completion_tokens.value;
    if (answer < 1 || (size_t)answer >= serve->context) answer = 1;
    *out = asked < 0 ? serve->context - (size_t)answer : (size_t)asked;
    if (*out <= serve->context) return true;
    snprintf(value, sizeof value, "%lld", (long long)asked);
    return problem_value(problem, "truncate_prompt_tokens", value,
                         "truncate_prompt_tokens value (%lld) is greater than max_model_len (%zu). "
                         "Please request a smaller truncation size.",
                         (long long)asked, serve->context);
}

static bool fit(const Serve *serve, const Ask *ask, Tokens *tokens, Problem *problem) {
    size_t most;
    if (ask->truncate.given) {
        if (!truncate_to(serve, ask, &most, problem)) return false;
        bool keep_front = ask->truncation_side.at && str_eq(ask->truncation_side, "right");
        size_t cut = tokens->length > most ? tokens->length - most : 0;
        if (cut && !keep_front)
            memmove(tokens->ids, tokens->ids + cut, most * sizeof *tokens->ids);
        tokens->length -= cut;
    }
    if (!tokens->length)
        return problem_set(problem, "prompt", "The decoder prompt cannot be empty");
    return tokens->length < serve->context || too_long(serve, tokens->length, false, problem);
}

static bool add_prompt(const Serve *serve, const Ask *ask, const json_t *ids, Str text,
                       Prompts *out, Problem *problem) {
    Tokens tokens = {0};
    size_t limit = serve->context * (ask->truncate.given ? LIMIT_TRUNCATED : 1);
    bool ok = (ids ? prompt_ids(serve, ids, &tokens, problem)
                   : prompt_encode(serve, ask, text, limit, &tokens, problem)) &&
              fit(serve, ask, &tokens, problem);
    if (!ok) {
        tokens_done(&tokens);
        return false;
    }
    out->at[out->count++] = (Prompt){tokens.ids, tokens.length, ids ? (Str){"", 0} : text};
    return true;
}

static Str text_of(const json_t *value) {
    return (Str){json_string_value(value), json_string_length(value)};
}

bool prompts_read(const Serve *serve, const Ask *ask, Prompts *out, Problem *problem) {
    *out = (Prompts){0};
    const json_t *prompt = ask->prompt, *one;
    out->at = mem_new(ask_prompt_count(ask) * sizeof *out->at);
    if (ask->kind == ASK_CHAT) {
        out->rendered.limit = LIMIT_TEMPLATE_OUTPUT;
        if (!chat_render(serve, ask, &out->rendered, problem)) return false;
        Str text = {out->rendered.at ? out->rendered.at : "", out->rendered.length};
        return add_prompt(serve, ask, NULL, text, out, problem);
    }
    if (!ask_is_list(ask))
        return add_prompt(serve, ask, json_is_array(prompt) ? prompt : NULL,
                          json_is_string(prompt) ? text_of(prompt) : (Str){"", 0}, out, problem);
    size_t i;
    json_array_foreach(prompt, i, one) {
        bool ids = json_is_array(one);
        if (!add_prompt(serve, ask, ids ? one : NULL, ids ? (Str){"", 0} : text_of(one), out,
                        problem))
            return false;
    }
    return true;
}

void prompts_done(Prompts *prompts) {
    for (size_t i = 0; i < prompts->count; i++) free(prompts->at[i].ids);
    free(prompts->at);
    buf_done(&prompts->rendered);
    *prompts = (Prompts){0};
}
