// SPDX-License-Identifier: Apache-2.0
/* The filters that look at one value: a text, a number, or anything.  jinja_lists.c has those that
 * look at many. */
#include "internal.h"
#include "jinja_lib.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static int64_t int_or(Run *run, Value v, int64_t otherwise) {
    int64_t number = otherwise;
    if (v.kind == K_MISSING || v.kind == K_NONE || is_int(v, &number)) return number;
    if (v.kind == K_UNDEFINED) run_fail_undefined(run, v);
    run_fail(run, ERR_INVALID, "an integer is wanted, not %s", kind_name(v));
    return otherwise;
}

static Str str_or(Run *run, Value v, Str otherwise) {
    if (v.kind == K_MISSING) return otherwise;
    if (v.kind == K_UNDEFINED) run_fail_undefined(run, v);
    if (v.kind != K_STR) run_fail(run, ERR_INVALID, "a string is wanted, not %s", kind_name(v));
    return v.kind == K_STR ? v.text : otherwise;
}

/* --- texts --- */

static Value f_upper(Call *c) { return str_cased(c->run, v_to_str(c->run, c->self), CASE_UPPER); }

static Value f_lower(Call *c) { return str_cased(c->run, v_to_str(c->run, c->self), CASE_LOWER); }

static Value f_capitalize(Call *c) {
    return str_cased(c->run, v_to_str(c->run, c->self), CASE_CAPITALIZE);
}

/* What the title filter takes to stand between words: less than the method does. */
static bool is_between_words(const char **at, const char *end) {
    uint32_t c;
    utf8_next(at, end, &c);
    return is_space_char(c) || (c && c < 0x80 && strchr("-({[<", (int)c));
}

static Value f_title(Call *c) {
    Value text = v_to_str(c->run, c->self), whole = v_str(STR(""));
    const char *from = text.text.at, *end = from + text.text.length;
    while (from < end && run_step(c->run, 0)) {
        const char *to = from, *next = from;
        bool between = is_between_words(&next, end);
        while (to < end) {
            next = to;
            if (is_between_words(&next, end) != between) break;
            to = next;
        }
        size_t length = (size_t)(to - from), first = str_offset((Str){from, length}, 1);
        Value head = v_str((Str){from, first}), tail = v_str((Str){from + first, length - first});
        whole = v_joined(c->run, whole, str_cased(c->run, head, CASE_UPPER));
        whole = v_joined(c->run, whole, str_cased(c->run, tail, CASE_LOWER));
        from = to;
    }
    return whole;
}

static Value f_trim(Call *c) {
    Value text = v_to_str(c->run, c->self);
    Str chars = c->args[0].kind == K_NONE ? STR("") : str_or(c->run, c->args[0], STR(""));
    bool any = c->args[0].kind == K_STR;
    text.growable = false;
    text.text = str_strip(text.text, any ? &chars : NULL, true, true);
    return text;
}

static Value f_replace(Call *c) {
    Value text = v_to_str(c->run, c->self), old = v_to_str(c->run, c->args[0]),
          with = v_to_str(c->run, c->args[1]);
    return str_replaced(c->run, text.text, old.text, with.text, int_or(c->run, c->args[2], -1));
}

static Value f_string(Call *c) { return v_to_str(c->run, c->self); }

static Value f_safe(Call *c) {
    Value text = v_to_str(c->run, c->self);
    text.markup = true;
    return text;
}

static Value f_escape(Call *c) { return v_escape(c->run, c->self); }

static Value f_forceescape(Call *c) {
    Value text = v_to_str(c->run, c->self);
    text.markup = false;
    return v_escape(c->run, text);
}

static Value f_center(Call *c) {
    return str_padded(c->run, v_to_str(c->run, c->self), int_or(c->run, c->args[0], 80), STR(" "),
                      '^');
}

static Value f_indent(Call *c) {
    if (c->self.kind == K_UNDEFINED) return run_fail_undefined(c->run, c->self);
    if (c->self.kind != K_STR)
        return run_fail(c->run, ERR_INVALID, "indent wants a string, not %s", kind_name(c->self));
    Value width =
        c->args[0].kind == K_STR
            ? c->args[0]
            : str_padded(c->run, v_str(STR("")), int_or(c->run, c->args[0], 4), STR(" "), '<');
    bool first = v_true(c->run, c->args[1]), blank = v_true(c->run, c->args[2]);
    Value lines = str_lines(c->run, v_joined(c->run, c->self, v_str(STR("\n"))), false);
    Buf out = {.limit = LIMIT_TEMPLATE_OUTPUT};
    for (size_t i = 0; i < lines.list->count && run_step(c->run, 0); i++) {
        Str line = lines.list->items[i].text;
        if (i) buf_char(&out, '\n');
        if (i ? blank || line.length : first) buf_append(&out, width.text.at, width.text.length);
        buf_append(&out, line.at, line.length);
    }
    Value made = run_take(c->run, &out);
    made.markup = c->self.markup;
    return made;
}

static Value f_truncate(Call *c) {
    int64_t length = int_or(c->run, c->args[0], 255), leeway = int_or(c->run, c->args[3], 5);
    Str end = str_or(c->run, c->args[2], STR("..."));
    int64_t end_length = (int64_t)str_count_chars(end);
    if (length < end_length || leeway < 0)
        return run_fail(c->run, ERR_INVALID, "truncate: expected length >= %lld, got %lld",
                        (long long)end_length, (long long)length);
    bool has_length;
    int64_t own = v_length(c->run, c->self, &has_length);
    if (has_length && own - leeway <= length) return c->self; /* whatever it is */
    if (c->self.kind != K_STR)
        return run_fail(c->run, ERR_INVALID, "truncate wants a string, not %s", kind_name(c->self));
    Str kept = {c->self.text.at, str_offset(c->self.text, (size_t)(length - end_length))};
    if (!v_true(c->run, c->args[1])) {
        const char *space = kept.length ? memrchr(kept.at, ' ', kept.length) : NULL;
        if (space) kept.length = (size_t)(space - kept.at);
    }
    return v_add(c->run, (Value){.kind = K_STR, .markup = c->self.markup, .text = kept},
                 v_str(end));
}

static Value f_wordcount(Call *c) {
    Str text = v_to_str(c->run, c->self).text;
    int64_t words = 0;
    bool inside = false;
    for (const char *at = text.at, *end = at + text.length; at < end;) {
        uint32_t each;
        utf8_next(&at, end, &each);
        words += is_word_char(each) && !inside;
        inside = is_word_char(each);
    }
    return v_int(words);
}

static void append_url(Run *run, Buf *out, Value v, bool for_query) {
    Str text = v_to_str(run, v).text;
    for (size_t i = 0; i < text.length; i++) {
        unsigned char c = (unsigned char)text.at[i];
        bool plain =
            c < 0x80 && (isalnum(c) || (c && strchr("_.-~", c)) || (c == '/' && !for_query));
        if (plain || (c == ' ' && for_query)) {
            buf_char(out, plain ? (char)c : '+');
        } else {
            buf_printf(out, "%%%02X", c);
        }
    }
}

static Value f_urlencode(Call *c) {
    Buf out = {.limit = LIMIT_TEMPLATE_OUTPUT};
    if (c->self.kind == K_STR || !is_iterable(c->self)) {
        append_url(c->run, &out, c->self, false);
        return run_take(c->run, &out);
    }
    Value pair;
    if (c->self.kind == K_DICT)
        c->self = (Value){.kind = K_VIEW, .sub = VIEW_ITEMS, .dict = c->self.dict};
    Iter *iter = iter_of(c->run, c->self);
    while (iter && iter_next(c->run, iter, &pair)) {
        List *both = list_of(c->run, pair);
        if (both->count != 2) run_fail(c->run, ERR_INVALID, "urlencode wants pairs");
        if (!run_ok(c->run)) break;
        if (out.length) buf_char(&out, '&');
        append_url(c->run, &out, both->items[0], true);
        buf_char(&out, '=');
        append_url(c->run, &out, both->items[1], true);
    }
    return run_take(c->run, &out);
}

static Value f_format(Call *c) {
    if (c->all.count && c->all.named)
        return run_fail(c->run, ERR_INVALID,
                        "format takes arguments by position or by name, not both");
    List *list = list_new(c->run, c->all.count);
    for (size_t i = 0; i < c->all.count; i++) list_add(c->run, list, c->all.given[i]);
    return run_printf(c->run, v_to_str(c->run, c->self),
                      c->all.named ? v_dict(c->all.named) : v_tuple(list));
}

static Value f_tojson(Call *c) {
    char indent[65] = "";
    JsonStyle style = {.comma = STR(", "), .colon = STR(": ")};
    style.ascii = v_true(c->run, c->args[0]);
    style.sort_keys = v_true(c->run, c->args[3]);
    if (c->args[1].kind == K_STR && c->args[1].text.length < sizeof indent) {
        snprintf(indent, sizeof indent, "%.*s", (int)c->args[1].text.length, c->args[1].text.at);
        style.indent = indent;
    } else if (c->args[1].kind != K_MISSING && c->args[1].kind != K_NONE) {
        int64_t width = int_or(c->run, c->args[1], 0);
        if (width >= (int64_t)sizeof indent)
            return run_fail(c->run, ERR_UNSUPPORTED, "tojson indents by at most 64 blanks");
        if (width > 0) memset(indent, ' ', (size_t)width);
        style.indent = indent;
    }
    if (style.indent) style.comma = STR(",");
    if (c->args[2].kind == K_LIST || c->args[2].kind == K_TUPLE) {
        if (c->args[2].list->count != 2)
            return run_fail(c->run, ERR_INVALID, "separators are a pair");
        style.comma = str_or(c->run, c->args[2].list->items[0], style.comma);
        style.colon = str_or(c->run, c->args[2].list->items[1], style.colon);
    } else if (c->args[2].kind != K_MISSING && c->args[2].kind != K_NONE) {
        return run_fail(c->run, ERR_INVALID, "separators are a pair");
    }
    Buf out = {.limit = LIMIT_TEMPLATE_OUTPUT};
    append_json(c->run, &out, c->self, &style, 0);
    return run_take(c->run, &out);
}

/* --- numbers --- */

static Value f_abs(Call *c) {
    int64_t number;
    if (c->self.kind == K_FLOAT) return v_real(fabs(c->self.real));
    if (c->self.kind == K_UNDEFINED) return run_fail_undefined(c->run, c->self);
    if (!is_int(c->self, &number))
        return run_fail(c->run, ERR_INVALID, "bad operand type for abs(): '%s'",
                        kind_name(c->self));
    return number < 0 ? v_negative(c->run, v_int(number)) : v_int(number);
}

/* The digits of a number in a text, without the _ that Python allows between two of them. */
static bool clean_digits(Str text, Buf *out) {
    text = str_strip(text, NULL, true, true);
    for (size_t i = 0; i < text.length; i++) {
        char c = text.at[i];
        bool between = i && i + 1 < text.length && isalnum((unsigned char)text.at[i - 1]) &&
                       isalnum((unsigned char)text.at[i + 1]);
        if (c == '_' && !between) return false;
        if (c <= ' ' || c > '~') return false;
        if (c != '_') buf_char(out, c);
    }
    return out->length != 0;
}

typedef enum Parsed { PARSED, NOT_A_NUMBER, TOO_BIG } Parsed;

static Parsed parse_int(Str text, int64_t base, int64_t *number) {
    auto_buf Buf digits = {0};
    if (!clean_digits(text, &digits)) return NOT_A_NUMBER;
    const char *at = digits.at;
    bool negative = *at == '-';
    if (*at == '-' || *at == '+') at++;
    char mark = at[0] == '0' && at[1] ? at[1] | 0x20 : 0;
    int marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    if (marked && (base == marked || base == 0)) {
        at += 2;
        base = marked;
    } else if (base == 0) {
        if (*at == '0' && at[strspn(at, "0")]) return NOT_A_NUMBER; /* 010 could be octal */
        base = 10;
    }
    char *end;
    errno = 0;
    if (!isalnum((unsigned char)*at)) return NOT_A_NUMBER;
    if (base == 16 && at[0] == '0' && (at[1] | 0x20) == 'x') return NOT_A_NUMBER; /* 0x0x1 */
    unsigned long long value = strtoull(at, &end, (int)base);
    if (*end || end == at) return NOT_A_NUMBER;
    if (errno || value > (unsigned long long)INT64_MAX) return TOO_BIG;
    *number = negative ? -(int64_t)value : (int64_t)value;
    return PARSED;
}

static bool parse_real(Str text, double *number) {
    auto_buf Buf digits = {0};
    if (!clean_digits(text, &digits)) return false;
    const char *word = digits.at + (*digits.at == '-' || *digits.at == '+');
    bool is_word = !strcasecmp(word, "inf") || !strcasecmp(word, "infinity") ||
                   !strcasecmp(word, "nan");
    if (!is_word && strspn(word, "0123456789.eE+-") != strlen(word)) return false; /* C has more */
    char *end;
    *number = strtod(digits.at, &end);
    return !*end && end != digits.at;
}

static Value real_to_int(Run *run, double real) {
    if (isinf(real)) return run_fail(run, ERR_INVALID, "cannot convert float infinity to integer");
    if (fabs(real) >= 9223372036854775808.0)
        return run_fail(run, ERR_UNSUPPORTED, "an integer has more than 64 bits");
    return v_int((int64_t)real);
}

static Value f_int(Call *c) {
    int64_t number = 0, base = int_or(c->run, c->args[1], 10);
    double real;
    Value otherwise = c->args[0].kind == K_MISSING ? v_int(0) : c->args[0];
    if (c->self.kind == K_UNDEFINED) return run_fail_undefined(c->run, c->self);
    if (base != 0 && (base < 2 || base > 36)) return otherwise;
    if (is_int(c->self, &number)) return v_int(number);
    if (c->self.kind == K_FLOAT)
        return isnan(c->self.real) ? otherwise : real_to_int(c->run, c->self.real);
    if (c->self.kind != K_STR) return otherwise;
    switch (parse_int(c->self.text, base, &number)) {
    case PARSED: return v_int(number);
    case TOO_BIG: return run_fail(c->run, ERR_UNSUPPORTED, "an integer has more than 64 bits");
    case NOT_A_NUMBER: break;
    }
    if (!parse_real(c->self.text, &real) || isnan(real)) return otherwise; /* "42.23" is 42 */
    return real_to_int(c->run, real);
}

static Value f_float(Call *c) {
    double real;
    if (c->self.kind == K_UNDEFINED) return run_fail_undefined(c->run, c->self);
    if (is_number(c->self, &real)) return v_real(real);
    if (c->self.kind == K_STR && parse_real(c->self.text, &real)) return v_real(real);
    return c->args[0].kind == K_MISSING ? v_real(0) : c->args[0];
}

static Value f_round(Call *c) {
    int64_t digits = int_or(c->run, c->args[0], 0), whole;
    double real;
    Str method = str_or(c->run, c->args[1], STR("common"));
    if (c->self.kind == K_UNDEFINED) return run_fail_undefined(c->run, c->self);
    if (!is_number(c->self, &real))
        return run_fail(c->run, ERR_INVALID, "round wants a number, not %s", kind_name(c->self));
    if (!str_eq(method, "common")) {
        bool up = str_eq(method, "ceil");
        if (!up && !str_eq(method, "floor"))
            return run_fail(c->run, ERR_INVALID, "method must be common, ceil or floor");
        double scale = pow(10, (double)digits), scaled = real * scale;
        if (!isfinite(scaled))
            return run_fail(c->run, ERR_INVALID, "cannot convert float to integer");
        return v_real(((up ? ceil(scaled) : floor(scaled)) + 0.0) / scale); /* never -0.0 */
    }
    if (digits < 0)
        return run_fail(c->run, ERR_UNSUPPORTED, "round to tens is not supported");
    if (is_int(c->self, &whole)) return v_int(whole);
    if (digits > 300 || !isfinite(real)) return v_real(real);
    char text[700];
    snprintf(text, sizeof text, "%.*f", (int)digits, real); /* exact, halves to even */
    return v_real(strtod(text, NULL));
}

/* --- anything --- */

static Value f_default(Call *c) {
    bool missing =
        c->self.kind == K_UNDEFINED || (v_true(c->run, c->args[1]) && !v_true(c->run, c->self));
    if (!missing) return c->self;
    return c->args[0].kind == K_MISSING ? v_str(STR("")) : c->args[0];
}

static Value f_attr(Call *c) {
    if (c->self.kind == K_UNDEFINED) return run_fail_undefined(c->run, c->self);
    Value found = v_attr_alone(c->run, c->self, str_or(c->run, c->args[0], STR("")));
    return found.kind == K_MISSING ? undefined_of(c->run, c->self, c->args[0]) : found;
}

extern const FilterDef list_filters[];

static const FilterDef filters[] = {
    {"abs", "", f_abs},
    {"attr", "name", f_attr},
    {"capitalize", "", f_capitalize},
    {"center", "|width", f_center},
    {"d", "|default_value boolean", f_default},
    {"default", "|default_value boolean", f_default},
    {"e", "", f_escape},
    {"escape", "", f_escape},
    {"float", "|default", f_float},
    {"forceescape", "", f_forceescape},
    {"format", "*", f_format},
    {"indent", "|width first blank", f_indent},
    {"int", "|default base", f_int},
    {"lower", "", f_lower},
    {"replace", "old new|count", f_replace},
    {"round", "|precision method", f_round},
    {"safe", "", f_safe},
    {"string", "", f_string},
    {"title", "", f_title},
    {"tojson", "|ensure_ascii indent separators sort_keys", f_tojson},
    {"trim", "|chars", f_trim},
    {"truncate", "|length killwords end leeway", f_truncate},
    {"upper", "", f_upper},
    {"urlencode", "", f_urlencode},
    {"wordcount", "", f_wordcount},
    /* there in jinja2, for pages in HTML, but not here: an error where they are used */
    {"filesizeformat", "*", NULL},
    {"pprint", "*", NULL},
    {"random", "*", NULL},
    {"striptags", "*", NULL},
    {"urlize", "*", NULL},
    {"wordwrap", "*", NULL},
    {"xmlattr", "*", NULL},
    {0},
};

const FilterDef *filter_named(Str name) {
    const FilterDef *const tables[] = {filters, list_filters};
    for (size_t i = 0; i < COUNT_OF(tables); i++)
        for (const FilterDef *f = tables[i]; f->name; f++)
            if (str_eq(name, f->name)) return f;
    return NULL;
}

Value call_filter(Run *run, const FilterDef *filter, Value operand, Args args) {
    Call call = {.run = run, .self = operand, .all = args};
    if (!filter->call)
        return run_fail(run, ERR_UNSUPPORTED, "filter '%s' is not supported", filter->name);
    if (!run_step(run, 0) || !args_bind(run, filter->name, filter->params, args, call.args))
        return v_undefined();
    return filter->call(&call);
}
