// SPDX-License-Identifier: Apache-2.0
/* Values as text: str(), repr(), JSON, and HTML escapes. */
#include "jinja_run.h"

#include <math.h>
#include <stdio.h>

#define NESTED_MAX 200

static bool enter(Run *run) {
    if (run->nested < NESTED_MAX && run_ok(run)) {
        run->nested++;
        return true;
    }
    run_fail(run, ERR_TOO_LARGE, "values nest too deeply");
    return false;
}

/* As Python quotes: ' unless the text has one and no ". */
static void append_quoted(Buf *out, Str text) {
    bool single = text.length && memchr(text.at, '\'', text.length);
    bool both = single && memchr(text.at, '"', text.length);
    char quote = single && !both ? '"' : '\'';
    const char *at = text.at, *end = text.at + text.length;
    buf_char(out, quote);
    while (at < end) {
        const char *start = at;
        uint32_t c;
        utf8_next(&at, end, &c);
        if (c == '\\' || c == (unsigned char)quote) {
            buf_append(out, (char[]){'\\', (char)c}, 2);
        } else if (c == '\n' || c == '\r' || c == '\t') {
            buf_append(out, (char[]){'\\', c == '\n' ? 'n' : c == '\r' ? 'r' : 't'}, 2);
        } else if (is_printable_char(c)) {
            buf_append(out, start, (size_t)(at - start));
        } else {
            buf_printf(out, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
        }
    }
    buf_char(out, quote);
}

static void append_items(Run *run, Buf *out, const List *list) {
    for (size_t i = 0; i < list->count && run_step(run, 0); i++) {
        if (i) buf_str(out, ", ");
        append_repr(run, out, list->items[i]);
    }
}

static void append_dict(Run *run, Buf *out, const Dict *dict) {
    buf_char(out, '{');
    for (size_t i = 0; i < dict->count && run_step(run, 0); i++) {
        if (i) buf_str(out, ", ");
        append_repr(run, out, dict->keys[i]);
        buf_str(out, ": ");
        append_repr(run, out, dict->values[i]);
    }
    buf_char(out, '}');
}

static void append_view(Run *run, Buf *out, Value view) {
    static const char *const names[] = {"dict_keys([", "dict_values([", "dict_items(["};
    buf_str(out, names[view.sub]);
    append_items(run, out, list_of(run, view));
    buf_str(out, "])");
}

static void append_range(Buf *out, const Range *range) {
    buf_printf(out, "range(%lld, %lld", (long long)range->start, (long long)range->stop);
    if (range->step != 1) buf_printf(out, ", %lld", (long long)range->step);
    buf_char(out, ')');
}

static void append_nested(Run *run, Buf *out, Value v) {
    switch (v.kind) {
    case K_LIST:
        buf_char(out, '[');
        append_items(run, out, v.list);
        buf_char(out, ']');
        break;
    case K_TUPLE:
        buf_char(out, '(');
        append_items(run, out, v.list);
        buf_str(out, v.list->count == 1 ? ",)" : ")");
        break;
    case K_DICT: append_dict(run, out, v.dict); break;
    case K_VIEW: append_view(run, out, v); break;
    default:
        buf_str(out, "<Namespace ");
        append_dict(run, out, v.dict);
        buf_char(out, '>');
        break;
    }
}

void append_repr(Run *run, Buf *out, Value v) {
    char text[32];
    switch (v.kind) {
    case K_NONE: buf_str(out, "None"); break;
    case K_BOOL: buf_str(out, v.yes ? "True" : "False"); break;
    case K_INT: buf_append(out, text, int_repr(v.number, text)); break;
    case K_FLOAT: buf_append(out, text, double_repr(v.real, text)); break;
    case K_UNDEFINED: buf_str(out, "Undefined"); break;
    case K_STR:
        if (v.markup) buf_str(out, "Markup(");
        append_quoted(out, v.text);
        if (v.markup) buf_char(out, ')');
        break;
    case K_RANGE: append_range(out, v.range); break;
    case K_MACRO: {
        Str name = v.macro->function->name;
        buf_str(out, "<Macro ");
        if (name.length) append_quoted(out, name);
        buf_str(out, name.length ? ">" : "anonymous>");
        break;
    }
    case K_LOOP: {
        Value index = v_attr(run, v, STR("index")), length = v_attr(run, v, STR("length"));
        buf_printf(out, "<LoopContext %lld/%lld>", (long long)index.number,
                   (long long)length.number);
        break;
    }
    case K_LIST:
    case K_TUPLE:
    case K_DICT:
    case K_VIEW:
    case K_NAMESPACE:
        if (!enter(run)) break;
        append_nested(run, out, v);
        run->nested--;
        break;
    default: /* Python prints an address: never what a template wants */
        run_fail(run, ERR_INVALID, "a %s cannot be printed%s", kind_name(v),
                 v.kind == K_ITER ? ": put '| list' behind it"
                 : v.kind == K_METHOD || v.kind == K_FUNCTION ? ": call it with '()'" : "");
        break;
    }
    if (out->overflow) run_fail(run, ERR_TOO_LARGE, OUTPUT_TOO_LONG);
}

void append_str(Run *run, Buf *out, Value v) {
    if (v.kind == K_STR) {
        buf_append(out, v.text.at, v.text.length);
        if (out->overflow) run_fail(run, ERR_TOO_LARGE, OUTPUT_TOO_LONG);
    } else if (v.kind != K_UNDEFINED) {
        append_repr(run, out, v);
    }
}

Value v_to_str(Run *run, Value v) {
    if (v.kind == K_STR) return v;
    if (v.kind == K_UNDEFINED) return v_str(STR(""));
    Buf out = {.limit = LIMIT_TEMPLATE_OUTPUT};
    append_repr(run, &out, v);
    return run_take(run, &out);
}

Value v_escape(Run *run, Value v) {
    v = v_to_str(run, v);
    if (!v.markup) {
        Buf out = {.limit = LIMIT_TEMPLATE_OUTPUT};
        for (size_t i = 0; i < v.text.length; i++) {
            char c = v.text.at[i];
            const char *escape = c == '&'    ? "&amp;"
                                 : c == '<'  ? "&lt;"
                                 : c == '>'  ? "&gt;"
                                 : c == '"'  ? "&#34;"
                                 : c == '\'' ? "&#39;"
                                             : NULL;
            if (escape) buf_str(&out, escape);
            if (!escape) buf_char(&out, c);
        }
        v = run_take(run, &out);
        v.markup = true;
    }
    return v;
}

/* --- JSON as Python's json.dumps() writes it --- */

static void append_json_str(Buf *out, Str text, bool ascii) {
    if (!ascii) {
        buf_json_str(out, text);
        return;
    }
    auto_buf Buf plain = {0};
    buf_json_str(&plain, text);
    for (const char *at = plain.at, *end = plain.at + plain.length; at < end;) {
        uint32_t c;
        utf8_next(&at, end, &c);
        if (c < 0x80) {
            buf_char(out, (char)c);
        } else if (c < 0x10000) {
            buf_printf(out, "\\u%04x", c);
        } else {
            buf_printf(out, "\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10),
                       0xdc00 + ((c - 0x10000) & 0x3ff));
        }
    }
}

static void append_line(Buf *out, const JsonStyle *style, unsigned level) {
    if (!style->indent) return;
    buf_char(out, '\n');
    for (unsigned i = 0; i < level; i++) buf_str(out, style->indent);
}

static void append_json_number(Buf *out, Value v) {
    char text[32];
    if (v.kind == K_INT) {
        buf_append(out, text, int_repr(v.number, text));
    } else if (isfinite(v.real)) {
        buf_append(out, text, double_repr(v.real, text));
    } else {
        buf_str(out, isnan(v.real) ? "NaN" : v.real < 0 ? "-Infinity" : "Infinity");
    }
}

static void append_json_key(Run *run, Buf *out, Value key, const JsonStyle *style) {
    auto_buf Buf text = {0};
    switch (key.kind) {
    case K_STR: append_json_str(out, key.text, style->ascii); return;
    case K_NONE: buf_str(&text, "null"); break;
    case K_BOOL: buf_str(&text, key.yes ? "true" : "false"); break;
    case K_INT:
    case K_FLOAT: append_json_number(&text, key); break;
    default:
        run_fail(run, ERR_INVALID, "keys must be str, int, float, bool or None, not %s",
                 kind_name(key));
        return;
    }
    append_json_str(out, (Str){text.at, text.length}, style->ascii);
}

/* The positions of the keys in their order. */
static void sort_keys(Run *run, const Dict *dict, size_t *order) {
    for (size_t i = 0; i < dict->count; i++) {
        size_t at = i;
        for (; at > 0 && run_step(run, 0); at--) {
            if (v_order(run, dict->keys[i], dict->keys[order[at - 1]], "<") != -1) break;
            order[at] = order[at - 1];
        }
        order[at] = i;
    }
}

static void append_json_items(Run *run, Buf *out, Value v, const JsonStyle *style, unsigned level) {
    bool is_dict = v.kind == K_DICT;
    size_t count = is_dict ? v.dict->count : v.list->count;
    size_t *order = NULL;
    if (is_dict && style->sort_keys && run_room(run, count * sizeof *order)) {
        order = run_new(run, count * sizeof *order);
        sort_keys(run, v.dict, order);
    }
    buf_char(out, is_dict ? '{' : '[');
    for (size_t i = 0; i < count && run_step(run, 0); i++) {
        size_t at = order ? order[i] : i;
        if (i) buf_append(out, style->comma.at, style->comma.length);
        append_line(out, style, level + 1);
        if (is_dict) {
            append_json_key(run, out, v.dict->keys[at], style);
            buf_append(out, style->colon.at, style->colon.length);
        }
        append_json(run, out, is_dict ? v.dict->values[at] : v.list->items[at], style, level + 1);
    }
    if (count) append_line(out, style, level);
    buf_char(out, is_dict ? '}' : ']');
}

void append_json(Run *run, Buf *out, Value v, const JsonStyle *style, unsigned level) {
    switch (v.kind) {
    case K_NONE: buf_str(out, "null"); break;
    case K_BOOL: buf_str(out, v.yes ? "true" : "false"); break;
    case K_INT:
    case K_FLOAT: append_json_number(out, v); break;
    case K_STR: append_json_str(out, v.text, style->ascii); break;
    case K_LIST:
    case K_TUPLE:
    case K_DICT:
        if (!enter(run)) break;
        append_json_items(run, out, v, style, level);
        run->nested--;
        break;
    default:
        if (v.kind == K_UNDEFINED) run_fail_undefined(run, v);
        run_fail(run, ERR_INVALID, "Object of type %s is not JSON serializable", kind_name(v));
        break;
    }
    if (out->overflow) run_fail(run, ERR_TOO_LARGE, OUTPUT_TOO_LONG);
}
