// SPDX-License-Identifier: Apache-2.0
#include "body.h"

#include <stdlib.h>

typedef struct Name { Str key, insert; } Name;
#define NAME(key) {STR(key), STR("\"" key "\":")}
static const Name names[BODY_FIELDS] = {
    [BODY_MODEL] = NAME("model"),
    [BODY_STREAM] = NAME("stream"),
    [BODY_STREAM_OPTIONS] = NAME("stream_options"),
    [BODY_MAX_TOKENS] = NAME("max_tokens"),
    [BODY_MAX_COMPLETION_TOKENS] = NAME("max_completion_tokens"),
    [BODY_MIN_TOKENS] = NAME("min_tokens"),
    [BODY_MIN_COMPLETION_TOKENS] = NAME("min_completion_tokens"),
    [BODY_N] = NAME("n"),
    [BODY_BEST_OF] = NAME("best_of"),
    [BODY_PROMPT] = NAME("prompt"),
    [BODY_MESSAGES] = NAME("messages"),
    [BODY_KV_PARAMS] = NAME("kv_transfer_params"),
    [BODY_EC_PARAMS] = NAME("ec_transfer_params"),
    [BODY_USAGE] = NAME("usage"),
    [BODY_CHOICES] = NAME("choices"),
    [BODY_ERROR] = NAME("error"),
    [BODY_INCLUDE_USAGE] = NAME("include_usage"),
    [BODY_CONTINUOUS_USAGE] = NAME("continuous_usage_stats"),
    [BODY_PROMPT_TOKENS] = NAME("prompt_tokens"),
    [BODY_COMPLETION_TOKENS] = NAME("completion_tokens"),
    [BODY_ROLE] = NAME("role"),
    [BODY_CONTENT] = NAME("content"),
    [BODY_TYPE] = NAME("type"),
    [BODY_TEXT] = NAME("text"),
    [BODY_CODE] = NAME("code"),
};

/* ---- reading ---- */

static BodyField field_of(Str key) {
    auto_buf Buf plain = {0};
    if (memchr(key.at, '\\', key.length)) { /* "\u006dodel" is model */
        json_unquote((Str){key.at - 1, key.length + 2}, &plain);
        key = (Str){plain.at, plain.length};
    }
    for (BodyField field = 0; field < BODY_FIELDS; field++)
        if (str_same(key, names[field].key)) return field;
    return BODY_FIELDS;
}

bool route_body_look(Body *body, Str object) {
    JsonScan scan = {.object = object};
    JsonMember member;
    body->object = object;
    body->count = 0;
    memset(body->last, 0, sizeof body->last);
    while (json_scan_next(&scan, &member)) {
        BodyField field = field_of(member.key);
        if (field == BODY_FIELDS) continue;
        if (body->count == BODY_FOUND) return false;
        body->found[body->count++] = (BodyMember){field, member};
        body->last[field] = (uint8_t)body->count;
    }
    return true;
}

bool route_body_scan(Body *body, Str text, Err *err) {
    JsonScan scan;
    if (!json_scan(text, &scan, err)) return false;
    return route_body_look(body, scan.object) ||
           err_set(err, ERR_INVALID, "the same members are repeated too often: %d are looked at",
                   BODY_FOUND);
}

char route_body_get(const Body *body, BodyField field, Str *value) {
    if (!body->last[field]) return 0;
    const JsonMember *member = &body->found[body->last[field] - 1].at;
    *value = member->value;
    return member->kind;
}

bool route_body_is(const Body *body, BodyField field, const char *word) {
    Str value;
    return route_body_get(body, field, &value) && str_eq(value, word);
}

int64_t route_body_int(const Body *body, BodyField field, int64_t fallback) {
    Str value;
    char digits[24];
    if (route_body_get(body, field, &value) != '0' || value.length >= sizeof digits)
        return fallback;
    memcpy(digits, value.at, value.length);
    digits[value.length] = 0;
    char *end;
    long long number = strtoll(digits, &end, 10);
    return *end ? fallback : number;
}

/* ---- changing ---- */

static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

static void put(BodyParts *out, Str part) {
    if (!part.length) return;
    assert(out->count < BODY_PARTS);
    out->at[out->count++] = part;
}

static void put_range(BodyParts *out, const char *from, const char *to) {
    put(out, (Str){from, (size_t)(to - from)});
}

/* Behind the member, and behind the comma that parts it from the next one. */
static const char *skip_member(const JsonMember *member, const char *end) {
    const char *at = member->whole.at + member->whole.length;
    while (at < end && is_space(*at)) at++;
    return at < end && *at == ',' ? at + 1 : at;
}

/* A comma may be left at the end, of members that followed it. */
static void trim_tail(BodyParts *out) {
    while (out->count) {
        Str *last = &out->at[out->count - 1];
        while (last->length &&
               (is_space(last->at[last->length - 1]) || last->at[last->length - 1] == ','))
            last->length--;
        if (last->length) return;
        out->count--;
    }
}

void route_body_edit(const Body *body, const BodyEdit edits[BODY_FIELDS], BodyParts *out) {
    const char *at = body->object.at, *end = at + body->object.length - 1; /* the last brace */
    out->count = 0;
    for (size_t i = 0; i < body->count; i++) {
        const BodyEdit *edit = &edits[body->found[i].field];
        const JsonMember *member = &body->found[i].at;
        if (edit->action == EDIT_KEEP) continue;
        bool drop = edit->action == EDIT_DROP;
        put_range(out, at, drop ? member->whole.at : member->value.at);
        if (!drop) put(out, edit->value);
        at = drop ? skip_member(member, end) : member->value.at + member->value.length;
    }
    put_range(out, at, end);
    trim_tail(out);
    const Str *last = &out->at[out->count - 1]; /* the first brace at least */
    bool empty = out->count == 1 && last->length == 1;
    for (BodyField field = 0; field < BODY_FIELDS; field++) {
        if (edits[field].action != EDIT_SET || body->last[field]) continue;
        if (!empty) put(out, STR(","));
        put(out, names[field].insert);
        put(out, edits[field].value);
        empty = false;
    }
    put(out, STR("}"));
}

void route_parts_join(const BodyParts *parts, Buf *out) {
    for (size_t i = 0; i < parts->count; i++) buf_append(out, parts->at[i].at, parts->at[i].length);
}

/* ---- arrays ---- */

static const char *string_end(const char *open, const char *end) {
    for (const char *at = open + 1; at < end; at++) {
        at = memchr(at, '"', (size_t)(end - at));
        if (!at) break;
        size_t slashes = 0;
        while (at[-1 - (ptrdiff_t)slashes] == '\\') slashes++;
        if (slashes % 2 == 0) return at + 1;
    }
    return end;
}

bool route_array_next(Str array, size_t *at, Str *item) {
    const char *p = array.at + *at, *end = array.at + array.length - 1; /* the last bracket */
    while (p < end && (is_space(*p) || *p == ',' || (*at == 0 && p == array.at))) p++;
    if (p >= end) return false;
    const char *begin = p;
    for (size_t depth = 0; p < end;) {
        if (*p == '"') {
            p = string_end(p, end);
        } else if (depth == 0 && (*p == ',' || is_space(*p))) {
            break;
        } else {
            depth += (*p == '{' || *p == '[');
            depth -= (*p == '}' || *p == ']');
            p++;
        }
    }
    *item = (Str){begin, (size_t)(p - begin)};
    *at = (size_t)(p - array.at);
    return true;
}
