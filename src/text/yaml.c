// SPDX-License-Identifier: Apache-2.0
#include "internal.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <yaml.h>

typedef struct Anchor {
    char *name;
    json_t *value; /* NULL while the node is not complete */
    size_t nodes;
} Anchor;

typedef struct Reader {
    yaml_parser_t parser;
    yaml_event_t event; /* the one at hand */
    Anchor *anchors; /* of the document at hand; a name may be given again, the last one counts */
    size_t anchor_count, anchor_room;
    size_t nodes; /* made so far, aliases with all that they repeat */
    int depth;
    Err *err;
} Reader;

static void *fail(Reader *r, yaml_mark_t mark, const char *message) {
    err_set(r->err, ERR_INVALID, "yaml line %zu, column %zu: %s", mark.line + 1, mark.column + 1,
            message);
    return NULL;
}

static bool next(Reader *r) {
    yaml_event_delete(&r->event);
    if (yaml_parser_parse(&r->parser, &r->event)) return true;
    bool reader = r->parser.error == YAML_READER_ERROR; /* has no line, only a byte offset */
    if (reader) {
        err_set(r->err, ERR_INVALID, "yaml byte %zu: %s", r->parser.problem_offset,
                r->parser.problem);
    } else {
        fail(r, r->parser.problem_mark, r->parser.problem ? r->parser.problem : "cannot be read");
    }
    return false;
}

/* --- plain scalars --- */

static bool one_of(Str text, const char *const *words) {
    for (; *words; words++)
        if (str_eq(text, *words)) return true;
    return false;
}

static size_t digits_of(const char *at, int base) {
    size_t n = 0;
    for (;; n++) {
        char c = at[n];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : 99;
        if (digit >= base) return n;
    }
}

/* [+-] then decimal, 0x, 0o, 0b, or octal after a 0 */
static json_t *integer_of(const char *text) {
    const char *at = text + (*text == '-' || *text == '+');
    int base = 10;
    if (at[0] == '0' && at[1]) {
        char mark = at[1] | 0x20;
        base = mark == 'x' ? 16 : mark == 'b' ? 2 : 8;
        at += mark == 'x' || mark == 'b' || mark == 'o' ? 2 : 1;
    }
    size_t digits = digits_of(at, base);
    if (!digits || at[digits]) return NULL;
    errno = 0;
    unsigned long long value = strtoull(at, NULL, base);
    if (errno) return NULL;
    if (*text == '-')
        return value <= (unsigned long long)INT64_MAX + 1 ? json_integer((json_int_t)(0 - value))
                                                          : NULL;
    return value <= INT64_MAX ? json_integer((json_int_t)value) : json_real((double)value);
}

/* [+-] digits [. digits] [e [+-] digits] with a digit on one side of the point at least */
static json_t *real_of(const char *text) {
    const char *at = text + (*text == '-' || *text == '+');
    size_t whole = digits_of(at, 10), part = 0;
    at += whole;
    if (*at == '.') {
        part = digits_of(at + 1, 10);
        at += part + 1;
    }
    if (!whole && !part) return NULL;
    if (*at == 'e' || *at == 'E') {
        at += 1 + (at[1] == '-' || at[1] == '+');
        size_t exponent = digits_of(at, 10);
        if (!exponent) return NULL;
        at += exponent;
    }
    double value = strtod(text, NULL);
    if (*at || !isfinite(value)) return NULL;
    bool whole_number = value == trunc(value) && fabs(value) < 9223372036854775808.0;
    return whole_number ? json_integer((json_int_t)value) : json_real(value);
}

static json_t *number_of(Str text) {
    auto_buf Buf plain = {0};
    for (size_t i = 0; i < text.length; i++) {
        if (!text.at[i]) return NULL;
        if (text.at[i] != '_' || text.at[0] == '.') buf_char(&plain, text.at[i]);
    }
    json_t *number = text.at[0] == '.' ? NULL : integer_of(plain.at);
    return number ? number : real_of(plain.at);
}

static json_t *plain_of(Reader *r, Str text) {
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
    static const char *const trues[] = {"true", "True", "TRUE", "y",  "Y",  "yes",
                                        "Yes",  "YES",  "on",   "On", "ON", NULL};
    static const char *const falses[] = {"false", "False", "FALSE", "n",   "N",   "no",
                                         "No",    "NO",    "off",   "Off", "OFF", NULL};
    static const char *const refused[] = {".inf",  ".Inf",  ".INF",  "+.inf", "+.Inf",
                                          "+.INF", "-.inf", "-.Inf", "-.INF", ".nan",
                                          ".NaN",  ".NAN",  NULL};
    if (one_of(text, nulls)) return json_null();
    if (one_of(text, trues)) return json_true();
    if (one_of(text, falses)) return json_false();
    if (one_of(text, refused))
        return fail(r, r->event.start_mark, "infinity and not-a-number cannot be in a manifest");
    json_t *number = strchr("+-.0123456789", text.at[0]) ? number_of(text) : NULL;
    return number ? number : json_stringn_nocheck(text.at, text.length);
}

/* --- nodes: each function starts at the node's first event and leaves its last one at hand --- */

static json_t *read_node(Reader *r);

static json_t *read_scalar(Reader *r) {
    const char *at = (const char *)r->event.data.scalar.value;
    Str text = {at, r->event.data.scalar.length};
    if (r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE) return plain_of(r, text);
    return json_stringn_nocheck(text.at, text.length);
}

static json_t *read_alias(Reader *r) {
    const char *name = (const char *)r->event.data.alias.anchor;
    const Anchor *anchor = NULL;
    for (size_t i = r->anchor_count; i > 0 && !anchor; i--)
        if (!strcmp(r->anchors[i - 1].name, name)) anchor = &r->anchors[i - 1];
    char message[128];
    snprintf(message, sizeof message,
             anchor ? "alias '*%.60s' stands inside of what it repeats"
                    : "alias '*%.60s' has no anchor before it",
             name);
    if (!anchor || !anchor->value) return fail(r, r->event.start_mark, message);
    r->nodes += anchor->nodes;
    if (r->nodes > LIMIT_YAML_NODES)
        return fail(r, r->event.start_mark, "aliases repeat too much: write the values out");
    return json_deep_copy(anchor->value); /* what one user of it changes, the others do not see */
}

static json_t *read_sequence(Reader *r) {
    auto_json json_t *array = json_array();
    for (;;) {
        if (!next(r)) return NULL;
        if (r->event.type == YAML_SEQUENCE_END_EVENT) return json_incref(array);
        json_t *item = read_node(r);
        if (!item) return NULL;
        json_array_append_new(array, item);
    }
}

/* The key at hand as text, appended to `key`. */
static bool read_key(Reader *r, Buf *key) {
    yaml_mark_t mark = r->event.start_mark;
    if (r->event.type == YAML_SCALAR_EVENT &&
        r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
        !strcmp((const char *)r->event.data.scalar.value, "<<"))
        return fail(r, mark, "merge keys are not supported: write the members out");
    auto_json json_t *value = read_node(r);
    if (!value) return false;
    if (json_is_string(value)) {
        buf_append(key, json_string_value(value), json_string_length(value));
        if (memchr(key->at, 0, key->length)) return fail(r, mark, "a key cannot hold \\0");
    } else if (json_is_number(value) || json_is_boolean(value)) {
        buf_json_tree(key, value);
    } else {
        return fail(r, mark, "a key is a string, a number or a boolean");
    }
    return true;
}

static json_t *read_mapping(Reader *r) {
    auto_json json_t *object = json_object();
    for (;;) {
        if (!next(r)) return NULL;
        if (r->event.type == YAML_MAPPING_END_EVENT) return json_incref(object);
        yaml_mark_t mark = r->event.start_mark;
        auto_buf Buf key = {0};
        if (!read_key(r, &key)) return NULL;
        if (json_object_get(object, key.at)) {
            char message[128];
            snprintf(message, sizeof message, "key '%.80s' stands twice in one mapping", key.at);
            return fail(r, mark, message);
        }
        if (!next(r)) return NULL;
        json_t *value = read_node(r);
        if (!value) return NULL;
        json_object_set_new_nocheck(object, key.at, value);
    }
}

static json_t *read_node(Reader *r) {
    const yaml_event_t *e = &r->event;
    yaml_mark_t mark = e->start_mark;
    bool is_scalar = e->type == YAML_SCALAR_EVENT, is_list = e->type == YAML_SEQUENCE_START_EVENT;
    if (e->type == YAML_ALIAS_EVENT) return read_alias(r);
    const yaml_char_t *tag = is_scalar ? e->data.scalar.tag
                             : is_list ? e->data.sequence_start.tag
                                       : e->data.mapping_start.tag;
    const yaml_char_t *name = is_scalar ? e->data.scalar.anchor
                              : is_list ? e->data.sequence_start.anchor
                                        : e->data.mapping_start.anchor;
    if (tag) return fail(r, mark, "tags are not supported: quotes make a string of any value");
    if (++r->nodes > LIMIT_YAML_NODES) return fail(r, mark, "too many values");
    if (!is_scalar && ++r->depth > LIMIT_JSON_DEPTH) return fail(r, mark, "nested too deeply");
    size_t anchor = r->anchor_count, before = r->nodes - 1;
    if (name) {
        mem_reserve(r->anchors, r->anchor_room, r->anchor_count + 1);
        r->anchors[r->anchor_count++] = (Anchor){.name = mem_dup_str((const char *)name)};
    }
    json_t *value = is_scalar ? read_scalar(r) : is_list ? read_sequence(r) : read_mapping(r);
    if (!is_scalar) r->depth--;
    if (name && value) {
        r->anchors[anchor].value = json_incref(value);
        r->anchors[anchor].nodes = r->nodes - before;
    }
    return value;
}

static void forget_anchors(Reader *r) {
    while (r->anchor_count) {
        Anchor *last = &r->anchors[--r->anchor_count];
        free(last->name);
        json_decref(last->value);
    }
}

/* from the start of the stream to its end */
static bool read_documents(Reader *r, json_t *documents) {
    while (next(r)) {
        if (r->event.type == YAML_STREAM_END_EVENT) return true;
        if (r->event.type != YAML_DOCUMENT_START_EVENT) continue;
        if (!next(r)) return false;
        forget_anchors(r);
        json_t *document = read_node(r);
        if (!document) return false;
        if (!json_is_null(document)) json_array_append(documents, document);
        json_decref(document);
    }
    return false;
}

json_t *yaml_parse(Str text, Err *err) {
    if (text.length > LIMIT_YAML) {
        err_set(err, ERR_TOO_LARGE, "yaml text has %zu bytes, %zu at most", text.length,
                LIMIT_YAML);
        return NULL;
    }
    Reader r = {.err = err};
    if (!yaml_parser_initialize(&r.parser)) {
        err_set(err, ERR_EXHAUSTED, "could not get memory for a yaml parser");
        return NULL;
    }
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text.at, text.length);
    auto_json json_t *documents = json_array();
    bool ok = read_documents(&r, documents);
    forget_anchors(&r);
    free(r.anchors);
    yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
    return ok ? json_incref(documents) : NULL;
}
