// SPDX-License-Identifier: Apache-2.0
#include "rewrite.h"

#include "prefix.h"

#define ASK_FOR_PARAMS                                                                         \
    "{\"do_remote_decode\":true,\"do_remote_prefill\":false,\"remote_engine_id\":null,"        \
    "\"remote_block_ids\":null,\"remote_host\":null,\"remote_port\":null}"

/* ---- the request ---- */

static bool read_model(RouteRequest *request, Arena *arena, Err *err) {
    Str value;
    if (route_body_get(&request->body, BODY_MODEL, &value) == '"') {
        request->model = (Str){value.at + 1, value.length - 2};
        if (memchr(request->model.at, '\\', request->model.length)) {
            auto_buf Buf plain = {0};
            json_unquote(value, &plain);
            request->model =
                (Str){arena_dup(arena, plain.at ? plain.at : "", plain.length), plain.length};
        }
        if (str_trim(request->model).length) return true;
    }
    err_set(err, ERR_NOT_FOUND, "the request names no model");
    err_param(err, "model");
    return err_hint(err, "Add \"model\": \"NAME\"; GET /v1/models lists the names.");
}

static void read_stream(RouteRequest *request) {
    Str options;
    Body inner;
    request->stream = route_body_is(&request->body, BODY_STREAM, "true");
    request->usage_asked = route_body_get(&request->body, BODY_STREAM_OPTIONS, &options) == '{' &&
                           route_body_look(&inner, options) &&
                           route_body_is(&inner, BODY_INCLUDE_USAGE, "true");
}

/* A list of strings or of lists of tokens, more than one. */
static bool has_several_prompts(const Body *body) {
    Str prompt, item;
    size_t at = 0;
    if (route_body_get(body, BODY_PROMPT, &prompt) != '[') return false;
    if (!route_array_next(prompt, &at, &item) || (*item.at != '"' && *item.at != '[')) return false;
    return route_array_next(prompt, &at, &item);
}

bool route_request_read(RouteRequest *request, Str text, Arena *arena, Err *err) {
    Str value;
    if (!route_body_scan(&request->body, text, err)) {
        err_wrap(err, "the request body is not a JSON object");
        return err_hint(err, "Send one JSON object with model and messages or prompt.");
    }
    if (!read_model(request, arena, err)) return false;
    read_stream(request);
    request->several_prompts = has_several_prompts(&request->body);
    if (route_body_get(&request->body, BODY_PROMPT, &value) ||
        route_body_get(&request->body, BODY_MESSAGES, &value))
        return true;
    err_set(err, ERR_NOT_FOUND, "the request has neither messages nor a prompt");
    err_param(err, "messages");
    return err_hint(err, "Chat completions take messages, completions take a prompt.");
}

/* ---- the prompt's beginning ---- */

static bool full(const Buf *out) { return out->length >= PREFIX_BYTES; }

/* What a JSON string says, as far as there is room.  An escape counts as one byte, so that at least
 * as many come out; those behind PREFIX_BYTES are not looked at. */
static void put_text(Str value, Buf *out) {
    const char *at = value.at + 1, *end = value.at + value.length - 1;
    for (size_t room = full(out) ? 0 : PREFIX_BYTES - out->length; room > 0 && at < end;) {
        size_t most = (size_t)(end - at) < room ? (size_t)(end - at) : room;
        const char *slash = memchr(at, '\\', most);
        room -= slash ? (size_t)(slash - at) + 1 : most;
        if (slash) at = slash + (slash[1] == 'u' ? 6 : 2);
        else at += most;
    }
    json_unquote((Str){value.at, (size_t)(at - value.at) + 1}, out);
}

/* A string, or the texts of a list of blocks with a line end between them. */
static bool put_content(char kind, Str content, Buf *out) {
    if (kind == '"') return put_text(content, out), true;
    if (kind != '[') return false;
    Str item, text;
    size_t at = 0, count = 0;
    Body block;
    while (!full(out) && route_array_next(content, &at, &item)) {
        if (*item.at != '{' || !route_body_look(&block, item)) continue;
        if (block.last[BODY_TYPE] && !route_body_is(&block, BODY_TYPE, "\"text\"")) continue;
        if (route_body_get(&block, BODY_TEXT, &text) != '"') continue;
        if (count++) buf_char(out, '\n');
        put_text(text, out);
    }
    return count > 0;
}

static void put_message(Str message, Buf *out) {
    Body body;
    Str role, content;
    size_t before = out->length;
    if (*message.at != '{' || !route_body_look(&body, message)) return;
    if (route_body_get(&body, BODY_ROLE, &role) != '"') return;
    buf_str(out, "<|im_start|>");
    put_text(role, out);
    buf_char(out, '\n');
    char kind = route_body_get(&body, BODY_CONTENT, &content);
    if (put_content(kind, content, out)) {
        buf_str(out, "<|im_end|>\n");
    } else {
        out->length = before; /* nothing that counts */
        if (out->at) out->at[before] = 0;
    }
}

void route_request_prompt(const RouteRequest *request, Buf *out) {
    Str value, item;
    size_t at = 0;
    char kind = route_body_get(&request->body, BODY_PROMPT, &value);
    if (kind == '[' && route_array_next(value, &at, &item) &&
        (*item.at == '"' || *item.at == '[')) {
        kind = *item.at; /* the first of several prompts */
        value = item;
    }
    if (kind == '"') put_text(value, out);
    else if (kind)
        buf_append(out, value.at, value.length < PREFIX_BYTES ? value.length : PREFIX_BYTES);
    if (kind || route_body_get(&request->body, BODY_MESSAGES, &value) != '[') return;
    while (!full(out) && route_array_next(value, &at, &item)) put_message(item, out);
}

/* ---- what engines get ---- */

static void edit_model(BodyEdit *edits, Str model) {
    if (model.length) edits[BODY_MODEL] = (BodyEdit){EDIT_SET, model};
}

/* To 1: a number becomes it, null and nothing as `absent` says. */
static void edit_one(const Body *body, BodyEdit *edits, BodyField field, BodyAction absent) {
    Str value;
    char kind = route_body_get(body, field, &value);
    BodyAction action = kind == '0' ? EDIT_REPLACE : kind == 'n' || !kind ? absent : EDIT_KEEP;
    edits[field] = (BodyEdit){action, STR("1")};
}

void route_request_prefill(const RouteRequest *request, Str model, bool hand_over, BodyParts *out) {
    BodyEdit edits[BODY_FIELDS] = {
        [BODY_STREAM] = {EDIT_DROP},
        [BODY_STREAM_OPTIONS] = {EDIT_DROP},
        [BODY_MIN_TOKENS] = {EDIT_DROP},
        [BODY_MIN_COMPLETION_TOKENS] = {EDIT_DROP},
        [BODY_KV_PARAMS] = {EDIT_DROP},
    };
    edit_model(edits, model);
    edit_one(&request->body, edits, BODY_MAX_TOKENS, EDIT_SET);
    edit_one(&request->body, edits, BODY_MAX_COMPLETION_TOKENS, EDIT_KEEP);
    edit_one(&request->body, edits, BODY_N, EDIT_KEEP);
    edit_one(&request->body, edits, BODY_BEST_OF, EDIT_KEEP);
    if (hand_over) edits[BODY_KV_PARAMS] = (BodyEdit){EDIT_SET, STR(ASK_FOR_PARAMS)};
    route_body_edit(&request->body, edits, out);
}

/* Asks for the usage chunk and keeps the other options.  Usage in every chunk was not asked for
 * either, but would begin with it. */
static BodyEdit ask_for_usage(const Body *body, Arena *arena) {
    Str options, value;
    Body inner;
    char kind = route_body_get(body, BODY_STREAM_OPTIONS, &options);
    if (!kind || kind == 'n') return (BodyEdit){EDIT_SET, STR("{\"include_usage\":true}")};
    if (kind != '{' || !route_body_look(&inner, options)) return (BodyEdit){EDIT_KEEP};
    kind = route_body_get(&inner, BODY_INCLUDE_USAGE, &value);
    if (kind && !strchr("ftn", kind)) return (BodyEdit){EDIT_KEEP};
    BodyEdit edits[BODY_FIELDS] = {
        [BODY_INCLUDE_USAGE] = {EDIT_SET, STR("true")},
        [BODY_CONTINUOUS_USAGE] = {EDIT_DROP},
    };
    BodyParts parts;
    auto_buf Buf text = {0};
    route_body_edit(&inner, edits, &parts);
    route_parts_join(&parts, &text);
    return (BodyEdit){EDIT_SET, {arena_dup(arena, text.at, text.length), text.length}};
}

bool route_request_decode(const RouteRequest *request, Str model, Str params, Arena *arena,
                          BodyParts *out) {
    BodyEdit edits[BODY_FIELDS] = {[BODY_KV_PARAMS] = {EDIT_DROP}};
    edit_model(edits, model);
    if (params.length) edits[BODY_KV_PARAMS] = (BodyEdit){EDIT_SET, params};
    if (request->stream && !request->usage_asked)
        edits[BODY_STREAM_OPTIONS] = ask_for_usage(&request->body, arena);
    route_body_edit(&request->body, edits, out);
    return edits[BODY_STREAM_OPTIONS].action != EDIT_KEEP;
}

/* ---- what engines say ---- */

void route_reply_usage(const Body *reply, RouteUsage *usage) {
    Str value;
    Body inner;
    if (route_body_get(reply, BODY_USAGE, &value) != '{' || !route_body_look(&inner, value)) return;
    usage->prompt = route_body_int(&inner, BODY_PROMPT_TOKENS, usage->prompt);
    usage->completion = route_body_int(&inner, BODY_COMPLETION_TOKENS, usage->completion);
}

bool route_reply_clean(const Body *reply, BodyParts *out) {
    static const BodyField fields[] = {BODY_KV_PARAMS, BODY_EC_PARAMS};
    BodyEdit edits[BODY_FIELDS] = {{EDIT_KEEP}};
    bool any = false;
    for (size_t i = 0; i < COUNT_OF(fields); i++) {
        Str value;
        char kind = route_body_get(reply, fields[i], &value);
        if (!kind || kind == 'n') continue;
        edits[fields[i]] = (BodyEdit){EDIT_REPLACE, STR("null")};
        any = true;
    }
    if (any) route_body_edit(reply, edits, out);
    return any;
}
