// SPDX-License-Identifier: Apache-2.0
#include "internal.h"

#include <math.h>
#include <stdlib.h>

/* A walk over text that json_check() accepted: nothing here can be malformed. */
typedef struct Reader {
    const char *at, *end;
    Buf text; /* of the string at hand, escapes undone */
} Reader;

static void skip_spaces(Reader *r) {
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\r' || *r->at == '\t'))
        r->at++;
}

/* Borrowed: valid until the next string is read. */
static Str read_string(Reader *r) {
    const char *open = r->at;
    r->at = json_string_end(open, r->end);
    Str between = {open + 1, (size_t)(r->at - open) - 2};
    if (!memchr(between.at, '\\', between.length)) return between;
    buf_clear(&r->text);
    json_unescape((Str){open, (size_t)(r->at - open)}, &r->text);
    return (Str){r->text.at, r->text.length};
}

static json_t *read_number(Reader *r) {
    const char *start = r->at;
    bool negative = *start == '-';
    uint64_t value = 0;
    for (r->at += negative; r->at < r->end && *r->at >= '0' && *r->at <= '9'; r->at++)
        value = value * 10 + (uint64_t)(*r->at - '0');
    if (r->at == r->end || !*r->at || !strchr(".eE", *r->at))
        return json_integer((json_int_t)(negative ? 0 - value : value));
    while (r->at < r->end && *r->at && strchr("+-.eE0123456789", *r->at)) r->at++;
    buf_clear(&r->text);
    buf_append(&r->text, start, (size_t)(r->at - start)); /* strtod() wants its 0 */
    return json_real(strtod(r->text.at, NULL));
}

static json_t *read_value(Reader *r);

static json_t *read_object(Reader *r) {
    json_t *object = json_object();
    for (r->at++, skip_spaces(r); *r->at != '}'; skip_spaces(r)) {
        if (*r->at == ',') r->at++;
        skip_spaces(r);
        Str borrowed = read_string(r);
        auto_free char *key = mem_dup_bytes(borrowed.at, borrowed.length);
        skip_spaces(r);
        r->at++; /* the colon */
        skip_spaces(r);
        json_object_setn_new_nocheck(object, key, borrowed.length, read_value(r));
    }
    r->at++;
    return object;
}

static json_t *read_array(Reader *r) {
    json_t *array = json_array();
    for (r->at++, skip_spaces(r); *r->at != ']'; skip_spaces(r)) {
        if (*r->at == ',') r->at++;
        skip_spaces(r);
        json_array_append_new(array, read_value(r));
    }
    r->at++;
    return array;
}

static json_t *read_value(Reader *r) {
    switch (*r->at) {
    case '{': return read_object(r);
    case '[': return read_array(r);
    case '"': {
        Str text = read_string(r);
        return json_stringn_nocheck(text.at, text.length);
    }
    case 't': r->at += 4; return json_true();
    case 'f': r->at += 5; return json_false();
    case 'n': r->at += 4; return json_null();
    default: return read_number(r);
    }
}

json_t *json_parse(Str text, Err *err) {
    if (!json_check(text, err)) return NULL;
    Reader r = {.at = text.at, .end = text.at + text.length};
    skip_spaces(&r);
    json_t *tree = read_value(&r);
    buf_done(&r.text);
    return tree;
}

void json_decref_at(json_t **tree) { json_decref(*tree); }

static void append_escaped(Buf *buf, unsigned char c) {
    static const char names[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    const char *name = c ? strchr(names, c) : NULL;
    if (name) {
        buf_append(buf, (char[]){'\\', letters[name - names]}, 2);
    } else {
        buf_printf(buf, "\\u%04x", c);
    }
}

void buf_json_str(Buf *buf, Str text) {
    const char *at = text.at, *end = text.at + text.length;
    buf_char(buf, '"');
    while (at < end) {
        const char *stop = json_plain_end(at, end);
        while (stop < end && (unsigned char)*stop >= 0x80) { /* a run of other scripts, whole */
            const char *next = stop;
            uint32_t codepoint;
            if (!utf8_next(&next, end, &codepoint)) break;
            stop = json_plain_end(next, end);
        }
        buf_append(buf, at, (size_t)(stop - at));
        at = stop;
        if (at >= end) break;
        if ((unsigned char)*at >= 0x80) {
            buf_utf8(buf, 0xfffd);
        } else {
            append_escaped(buf, (unsigned char)*at);
        }
        at++;
    }
    buf_char(buf, '"');
}

void buf_json_double(Buf *buf, double value) {
    char text[32];
    if (isfinite(value)) {
        buf_append(buf, text, double_repr(value, text));
    } else {
        buf_str(buf, "null"); /* JSON has no other word for it */
    }
}

void buf_json_int(Buf *buf, int64_t value) {
    char text[24];
    buf_append(buf, text, int_repr(value, text));
}

static void append_object(Buf *buf, const json_t *object) {
    json_t *tree = (json_t *)(uintptr_t)object; /* jansson's iterators do not know const */
    bool first = true;
    buf_char(buf, '{');
    for (void *at = json_object_iter(tree); at; at = json_object_iter_next(tree, at)) {
        if (!first) buf_char(buf, ',');
        first = false;
        buf_json_str(buf, (Str){json_object_iter_key(at), json_object_iter_key_len(at)});
        buf_char(buf, ':');
        buf_json_tree(buf, json_object_iter_value(at));
    }
    buf_char(buf, '}');
}

static void append_array(Buf *buf, const json_t *array) {
    buf_char(buf, '[');
    for (size_t i = 0; i < json_array_size(array); i++) {
        if (i) buf_char(buf, ',');
        buf_json_tree(buf, json_array_get(array, i));
    }
    buf_char(buf, ']');
}

void buf_json_tree(Buf *buf, const json_t *tree) {
    switch (json_typeof(tree)) {
    case JSON_OBJECT: append_object(buf, tree); break;
    case JSON_ARRAY: append_array(buf, tree); break;
    case JSON_STRING:
        buf_json_str(buf, (Str){json_string_value(tree), json_string_length(tree)});
        break;
    case JSON_INTEGER: buf_json_int(buf, json_integer_value(tree)); break;
    case JSON_REAL: buf_json_double(buf, json_real_value(tree)); break;
    case JSON_TRUE: buf_str(buf, "true"); break;
    case JSON_FALSE: buf_str(buf, "false"); break;
    case JSON_NULL: buf_str(buf, "null"); break;
    }
}
