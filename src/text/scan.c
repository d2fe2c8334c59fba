// SPDX-License-Identifier: Apache-2.0
#include "internal.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* A walk over the text.  The first thing that is wrong is kept in `what` and `where`; the words are
 * those of Python's json module, which clients of these APIs know. */
typedef struct Check {
    const char *start, *at, *end;
    int depth;
    size_t members; /* of the outermost object */
    const char *what, *where;
} Check;

static bool wrong(Check *c, const char *what, const char *where) {
    c->what = what;
    c->where = where;
    return false;
}

static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static void skip_spaces(Check *c) {
    while (c->at < c->end && is_space(*c->at)) c->at++;
}

#define ONES 0x0101010101010101u
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the lowest set bit is the first byte");

/* Eight bytes at a time: a byte of `x - ONES & ~x` has its top bit set if it was 0, and the lowest
 * such bit is never a false one (borrows only go upwards). */
const char *json_plain_end(const char *at, const char *end) {
    for (; end - at >= 8; at += 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        uint64_t quote = word ^ ONES * '"', slash = word ^ ONES * '\\';
        uint64_t stop = ((quote - ONES) & ~quote) | ((slash - ONES) & ~slash) |
                        ((word - ONES * 0x20) & ~word) | word;
        stop &= ONES * 0x80;
        if (stop) return at + (__builtin_ctzll(stop) >> 3);
    }
    for (; at < end; at++) {
        unsigned char b = (unsigned char)*at;
        if (b == '"' || b == '\\' || b < 0x20 || b >= 0x80) break;
    }
    return at;
}

/* The bytes of the whole character at s, which is not ASCII; 0 if it is not valid UTF-8. */
static size_t character_size(const char *at, const char *end) {
    const unsigned char *s = (const unsigned char *)at;
    size_t left = (size_t)(end - at);
    if (s[0] >= 0xe1 && s[0] <= 0xec && left >= 3) /* most of the world's scripts */
        return (s[1] & 0xc0) == 0x80 && (s[2] & 0xc0) == 0x80 ? 3 : 0;
    if (s[0] >= 0xc2 && s[0] < 0xe0 && left >= 2) return (s[1] & 0xc0) == 0x80 ? 2 : 0;
    const char *next = at;
    uint32_t codepoint;
    return utf8_next(&next, end, &codepoint) ? (size_t)(next - at) : 0;
}

/* Behind the run of characters that are not ASCII, or at the first byte that is not valid. */
static const char *foreign_end(const char *at, const char *end) {
    while (at < end && (unsigned char)*at >= 0x80) {
        size_t size = character_size(at, end);
        if (!size) break;
        at += size;
    }
    return at;
}

static bool is_hex(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* at the backslash; `open` is the string's quote */
static bool check_escape(Check *c, const char *open, bool is_key) {
    const char *slash = c->at;
    if (c->end - slash < 2) return wrong(c, "Unterminated string starting at", open);
    if (!strchr("\"\\/bfnrtu", slash[1]) || !slash[1]) return wrong(c, "Invalid \\escape", slash);
    c->at += 2;
    if (slash[1] != 'u') return true;
    if (c->end - c->at < 5) return wrong(c, "Invalid \\uXXXX escape", slash + 1);
    bool zero = true;
    for (int i = 0; i < 4; i++, c->at++) {
        if (!is_hex(*c->at)) return wrong(c, "Invalid \\uXXXX escape", slash + 1);
        zero = zero && *c->at == '0';
    }
    /* jansson, like most readers of trees, holds names as 0-terminated text. */
    if (zero && is_key) return wrong(c, "\\u0000 is not supported in a property name", slash);
    return true;
}

static bool check_string(Check *c, bool is_key) {
    const char *open = c->at++;
    for (;;) {
        c->at = json_plain_end(c->at, c->end);
        if (c->at >= c->end) return wrong(c, "Unterminated string starting at", open);
        unsigned char b = (unsigned char)*c->at;
        if (b == '"') {
            c->at++;
            return true;
        }
        if (b >= 0x80) {
            c->at = foreign_end(c->at, c->end);
            if (c->at < c->end && (unsigned char)*c->at >= 0x80)
                return wrong(c, "Invalid UTF-8 at", c->at);
        } else if (b < 0x20) {
            return wrong(c, "Invalid control character at", c->at);
        } else if (!check_escape(c, open, is_key)) {
            return false;
        }
    }
}

/* Integers have 64 bits and a sign; a real number is not infinite. */
static bool number_fits(Str text, bool is_real) {
    char digits[32];
    if (!is_real) {
        if (text.length < 19) return true;
        if (text.length >= sizeof digits) return false;
        memcpy(digits, text.at, text.length);
        digits[text.length] = 0;
        errno = 0;
        strtoll(digits, NULL, 10);
        return errno == 0;
    }
    auto_free char *copy = mem_dup_bytes(text.at, text.length);
    return isfinite(strtod(copy, NULL));
}

static bool check_number(Check *c) {
    const char *start = c->at, *at = start, *end = c->end;
    bool is_real = false, has_exponent = false;
    if (*at == '-') at++;
    if (at >= end || !is_digit(*at)) return wrong(c, "Expecting value", start);
    if (*at++ != '0')
        while (at < end && is_digit(*at)) at++;
    if (end - at >= 2 && at[0] == '.' && is_digit(at[1])) {
        is_real = true;
        for (at++; at < end && is_digit(*at);) at++;
    }
    if (at < end && (*at == 'e' || *at == 'E')) {
        const char *digit = at + 1;
        if (digit < end && (*digit == '+' || *digit == '-')) digit++;
        if (digit < end && is_digit(*digit)) {
            is_real = has_exponent = true;
            for (at = digit; at < end && is_digit(*at);) at++;
        }
    }
    c->at = at;
    size_t length = (size_t)(at - start);
    if (is_real && !has_exponent && length < 300) return true;
    if (number_fits((Str){start, length}, is_real)) return true;
    return wrong(c, is_real ? "Number out of range" : "Integer out of 64 bits", start);
}

static bool check_value(Check *c);

static bool check_word(Check *c, const char *word) {
    size_t length = strlen(word);
    if ((size_t)(c->end - c->at) < length || memcmp(c->at, word, length))
        return wrong(c, "Expecting value", c->at);
    c->at += length;
    return true;
}

/* name : value */
static bool check_member(Check *c) {
    if (c->depth == 1) c->members++;
    if (c->at >= c->end || *c->at != '"')
        return wrong(c, "Expecting property name enclosed in double quotes", c->at);
    if (!check_string(c, true)) return false;
    skip_spaces(c);
    if (c->at >= c->end || *c->at != ':') return wrong(c, "Expecting ':' delimiter", c->at);
    c->at++;
    skip_spaces(c);
    return check_value(c);
}

static bool check_items(Check *c, char close, bool (*check_item)(Check *)) {
    if (++c->depth > LIMIT_JSON_DEPTH) return wrong(c, "Nested too deeply", c->at);
    c->at++;
    skip_spaces(c);
    for (bool first = true; c->at >= c->end || *c->at != close; first = false) {
        if (!first) {
            if (c->at >= c->end || *c->at != ',') return wrong(c, "Expecting ',' delimiter", c->at);
            c->at++;
            skip_spaces(c);
        }
        if (!check_item(c)) return false;
        skip_spaces(c);
    }
    c->at++;
    c->depth--;
    return true;
}

static bool check_value(Check *c) {
    if (c->at >= c->end) return wrong(c, "Expecting value", c->at);
    switch (*c->at) {
    case '"': return check_string(c, false);
    case '{': return check_items(c, '}', check_member);
    case '[': return check_items(c, ']', check_value);
    case 't': return check_word(c, "true");
    case 'f': return check_word(c, "false");
    case 'n': return check_word(c, "null");
    default: return check_number(c);
    }
}

/* "Expecting value: line 1 column 2 (char 1)"; lines, columns and chars count characters. */
static bool report(const Check *c, Err *err) {
    size_t line = 1, column = 1, offset = 0;
    uint32_t codepoint;
    for (const char *at = c->start; at < c->where; offset++) {
        bool line_end = *at == '\n';
        utf8_next(&at, c->end, &codepoint);
        column = line_end ? 1 : column + 1;
        line += line_end;
    }
    char param[24];
    snprintf(param, sizeof param, "%zu", offset);
    err_set(err, ERR_INVALID, "%s: line %zu column %zu (char %s)", c->what, line, column, param);
    return err_param(err, param);
}

static bool check_text(Check *c) {
    skip_spaces(c);
    if (!check_value(c)) return false;
    skip_spaces(c);
    return c->at == c->end || wrong(c, "Extra data", c->at);
}

bool json_check(Str text, Err *err) {
    Check c = {.start = text.at, .at = text.at, .end = text.at + text.length};
    return check_text(&c) || report(&c, err);
}

/* --- behind here the text was checked, and nothing looks twice --- */

const char *json_string_end(const char *open, const char *end) {
    for (const char *at = open + 1; at < end; at++) {
        at = memchr(at, '"', (size_t)(end - at));
        if (!at) break;
        size_t slashes = 0;
        while (at[-1 - (ptrdiff_t)slashes] == '\\') slashes++; /* ends at the opening quote */
        if (slashes % 2 == 0) return at + 1;
    }
    return end;
}

static const char *value_end(const char *at, const char *end) {
    size_t depth = 0;
    if (*at != '{' && *at != '[') {
        if (*at == '"') return json_string_end(at, end);
        while (at < end && *at != ',' && *at != '}' && *at != ']' && !is_space(*at)) at++;
        return at;
    }
    while (at < end) {
        char c = *at;
        if (c == '"') {
            at = json_string_end(at, end);
            continue;
        }
        at++;
        if (c == '{' || c == '[') depth++;
        if ((c == '}' || c == ']') && --depth == 0) break;
    }
    return at;
}

bool json_scan(Str text, JsonScan *scan, Err *err) {
    Check c = {.start = text.at, .at = text.at, .end = text.at + text.length};
    if (!check_text(&c)) return report(&c, err);
    Str object = str_trim(text);
    if (object.at[0] != '{') {
        wrong(&c, "Expecting an object", object.at);
        return report(&c, err);
    }
    *scan = (JsonScan){.object = object, .count = c.members};
    return true;
}

bool json_scan_next(JsonScan *scan, JsonMember *member) {
    const char *at = scan->object.at + scan->at, *end = scan->object.at + scan->object.length;
    while (at < end && (is_space(*at) || *at == ',' || (scan->at == 0 && *at == '{'))) at++;
    if (at >= end || *at != '"') return false;
    const char *open = at;
    at = json_string_end(at, end);
    member->key = (Str){open + 1, (size_t)(at - open) - 2};
    while (at < end && (is_space(*at) || *at == ':')) at++;
    const char *value = at;
    at = value_end(at, end);
    member->value = (Str){value, (size_t)(at - value)};
    member->whole = (Str){open, (size_t)(at - open)};
    member->kind = *value == '-' || is_digit(*value) ? '0' : *value;
    scan->at = (size_t)(at - scan->object.at);
    return true;
}

/* The key as the client meant it: "\u006dodel" is model. */
static bool key_is(Str key, const char *want) {
    if (str_eq(key, want)) return true;
    if (!memchr(key.at, '\\', key.length)) return false;
    auto_buf Buf plain = {0};
    json_unescape((Str){key.at - 1, key.length + 2}, &plain);
    return str_eq((Str){plain.at, plain.length}, want);
}

bool json_scan_find(const JsonScan *scan, const char *key, JsonMember *member) {
    JsonScan all = {.object = scan->object};
    JsonMember each;
    bool found = false;
    while (json_scan_next(&all, &each)) {
        if (!key_is(each.key, key)) continue;
        *member = each;
        found = true;
    }
    return found;
}

static uint32_t hex4(const char *at) {
    uint32_t value = 0;
    for (int i = 0; i < 4; i++) {
        char c = at[i];
        value = value << 4 | (uint32_t)(is_digit(c) ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    return value;
}

/* at the u of \uXXXX; returns what is behind the character */
static const char *unescape_unicode(const char *at, const char *end, Buf *out) {
    uint32_t unit = hex4(at + 1);
    at += 5;
    bool high = unit >= 0xd800 && unit < 0xdc00;
    if (high && end - at >= 6 && at[0] == '\\' && at[1] == 'u') {
        uint32_t low = hex4(at + 2);
        if (low >= 0xdc00 && low < 0xe000) {
            buf_utf8(out, 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00));
            return at + 6;
        }
    }
    buf_utf8(out, unit >= 0xd800 && unit < 0xe000 ? 0xfffd : unit);
    return at;
}

void json_unescape(Str value, Buf *out) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *at = value.at + 1, *end = value.at + value.length - 1;
    while (at < end) {
        const char *slash = memchr(at, '\\', (size_t)(end - at));
        buf_append(out, at, (size_t)((slash ? slash : end) - at));
        if (!slash) return;
        at = slash + 1;
        if (*at == 'u') {
            at = unescape_unicode(at, end, out);
        } else {
            buf_char(out, to[strchr(from, *at) - from]);
            at++;
        }
    }
}

bool json_unquote(Str value, Buf *out) {
    if (value.length < 2 || value.at[0] != '"') return false;
    json_unescape(value, out);
    return true;
}
