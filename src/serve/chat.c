// SPDX-License-Identifier: Apache-2.0
/* From a chat to the text that the model reads. */
#include "internal.h"

#include <ctype.h>

static const char *const token_names[] = {"bos_token", "eos_token", "unk_token", "pad_token"};

/* Templates for parts loop over the content of a message: "for x in message['content']". */
bool chat_loops_over_content(Str text) {
    static const char *const forms[] = {"['content']", "[\"content\"]", ".content"};
    for (size_t i = 0; i + 4 < text.length; i++) {
        if (memcmp(text.at + i, " in ", 4) != 0) continue;
        size_t at = i + 4;
        while (at < text.length && (isalnum((unsigned char)text.at[at]) || text.at[at] == '_'))
            at++;
        for (size_t f = 0; f < COUNT_OF(forms); f++) {
            size_t length = strlen(forms[f]), end = at + length;
            if (at > i + 4 && end <= text.length && !memcmp(text.at + at, forms[f], length) &&
                (end == text.length ||
                 !(isalnum((unsigned char)text.at[end]) || text.at[end] == '_')))
                return true;
        }
    }
    return false;
}

static Str piece_of_key(const Gguf *gguf, const Tokenizer *tokenizer, const char *key) {
    Err err = {0};
    uint32_t id;
    if (!gguf_has(gguf, key) || !gguf_u32(gguf, key, 0, INT32_MAX, &id, &err)) return (Str){"", 0};
    return tokenizer_piece(tokenizer, (int32_t)id);
}

bool chat_parse(Chat *chat, const ServeConf *conf, const Gguf *gguf, Err *err) {
    Str text = conf->template_text;
    bool own = !text.length;
    if (own && !gguf_str_or(gguf, "tokenizer.chat_template", "", &text, err)) return false;
    *chat = (Chat){0};
    if (!text.length) return true;
    const char *format = conf->content_format;
    chat->parts = !strcmp(format, "openai") ||
                  (strcmp(format, "string") != 0 && chat_loops_over_content(text));
    chat->template = template_parse(text, err);
    if (chat->template) return true;
    err_wrap(err, own ? "the model's chat template" : "--chat-template");
    return err_hint(err, own ? "Give one that works: --chat-template FILE"
                             : "Correct the template, or leave --chat-template out.");
}

void chat_set_tokens(Chat *chat, const Gguf *gguf, const Tokenizer *tokenizer) {
    int32_t bos = tokenizer_bos(tokenizer), eos = tokenizer_eos(tokenizer);
    if (bos != TOKEN_NONE) chat->tokens[0] = tokenizer_piece(tokenizer, bos);
    if (eos != TOKEN_NONE) chat->tokens[1] = tokenizer_piece(tokenizer, eos);
    chat->tokens[2] = piece_of_key(gguf, tokenizer, "tokenizer.ggml.unknown_token_id");
    chat->tokens[3] = piece_of_key(gguf, tokenizer, "tokenizer.ggml.padding_token_id");
}

void chat_done(Chat *chat) {
    template_free(chat->template);
    chat->template = NULL;
}

/* ---- one chat ---- */

static void set_or_null(json_t *vars, const char *name, const json_t *value) {
    if (value) json_object_set(vars, name, (json_t *)value);
    else json_object_set_new(vars, name, json_null());
}

static json_t *variables(const Serve *serve, const Ask *ask, json_t *messages) {
    json_t *vars = json_object();
    json_object_set_new(vars, "messages", messages);
    set_or_null(vars, "tools", ask->tools);
    set_or_null(vars, "documents", ask->documents);
    bool continues = ask_is(ask->continue_final, false);
    bool generation = !continues && ask_is(ask->add_generation_prompt, true);
    json_object_set_new(vars, "add_generation_prompt", json_boolean(generation));
    for (size_t i = 0; i < COUNT_OF(token_names); i++) {
        Str token = serve->chat.tokens[i];
        if (token.length)
            json_object_set_new(vars, token_names[i], json_stringn(token.at, token.length));
    }
    if (ask->reasoning_effort.at)
        json_object_set_new(vars, "reasoning_effort",
                            json_stringn(ask->reasoning_effort.at, ask->reasoning_effort.length));
    if (serve->conf->template_kwargs) json_object_update(vars, serve->conf->template_kwargs);
    if (ask->template_kwargs) json_object_update(vars, (json_t *)ask->template_kwargs);
    return vars;
}

/* The text ends where the last message's own text ends: the model goes on with it. */
static bool cut_behind_last(const json_t *messages, Buf *out, Problem *problem) {
    const json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    const json_t *content = json_object_get(last, "content");
    if (json_is_array(content))
        content = json_object_get(json_array_get(content, json_array_size(content) - 1), "text");
    Str whole = {json_string_value(content), json_string_length(content)}, text = whole;
    if (text.at) text = str_trim(whole);
    if (text.length)
        for (size_t at = out->length; at >= text.length; at--) {
            const char *found = out->at + at - text.length;
            if (memcmp(found, text.at, text.length) != 0) continue;
            size_t tail = (size_t)(whole.at + whole.length - (text.at + text.length));
            bool kept = at + tail <= out->length &&
                        !memcmp(out->at + at, text.at + text.length, tail);
            out->length = kept ? at + tail : at;
            return true;
        }
    return problem_set(problem, "continue_final_message",
                       "continue_final_message is set but the final message does not appear in the "
                       "chat after applying the chat template.");
}

static Template *template_of(const Serve *serve, const Ask *ask, Problem *problem) {
    if (!ask->chat_template.at) {
        if (serve->chat.template) return serve->chat.template;
        problem_set(problem, NULL,
                    "this model has no chat template: start the server with --chat-template, or "
                    "use /v1/completions");
        return NULL;
    }
    if (!serve->conf->trust_templates) {
        problem_set(problem, "chat_template",
                    "Chat template is passed with request, but --trust-request-chat-template is "
                    "not set. Refused request with untrusted chat template.");
        return NULL;
    }
    Err err = {0};
    Template *own = template_parse(ask->chat_template, &err);
    if (own) return own;
    err_param(&err, "chat_template");
    problem_from_err(problem, &err);
    return NULL;
}

bool chat_render(const Serve *serve, const Ask *ask, Buf *out, Problem *problem) {
    if (!json_array_size(ask->messages))
        return problem_set(problem, NULL, "Cannot apply chat template to an empty conversation. "
                                          "Provide at least one message.");
    json_t *messages =
        messages_for_template(ask->messages, serve->chat.parts, serve_name(serve), problem);
    if (!messages) return false;
    auto_json json_t *vars = variables(serve, ask, messages);
    Template *template = template_of(serve, ask, problem);
    if (!template) return false;
    Err err = {0};
    bool ok = template_render(template, vars, clock_wall_us() / 1000000, out, &err);
    if (template != serve->chat.template) template_free(template);
    if (!ok) return problem_from_err(problem, &err);
    return !ask_is(ask->continue_final, false) ||
           cut_behind_last(json_object_get(vars, "messages"), out, problem);
}
