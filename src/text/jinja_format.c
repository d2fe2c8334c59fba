// SPDX-License-Identifier: Apache-2.0
/* Two ways in which Python puts values into a text: "%s" % x and "{}".format(x). */
#include "internal.h"
#include "jinja_lib.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>

/* What stands between % or : and the letter that says how to write the value. */
typedef struct Spec {
    char align; /* < > ^ = or 0 */
    Str fill;
    char sign; /* + or blank */
    bool alternative, zero, comma;
    int64_t width, precision; /* -1: none */
    char type;
} Spec;

static void append_padded(Run *run, Buf *out, Str text, const Spec *spec, char align) {
    int64_t length = (int64_t)str_count_chars(text), pad = spec->width - length;
    if (pad < 0) pad = 0;
    if (pad > (int64_t)LIMIT_TEMPLATE_OUTPUT) {
        run_fail(run, ERR_TOO_LARGE, OUTPUT_TOO_LONG);
        return;
    }
    int64_t left = align == '<' ? 0 : align == '^' ? pad / 2 : pad;
    if (align == '=' && text.length && strchr("+- ", text.at[0])) { /* behind the sign */
        buf_char(out, text.at[0]);
        text = (Str){text.at + 1, text.length - 1};
    }
    Str fill = spec->fill.length ? spec->fill : STR(" ");
    for (int64_t i = 0; i < left && run_step(run, 0); i++) buf_append(out, fill.at, fill.length);
    buf_append(out, text.at, text.length);
    for (int64_t i = left; i < pad && run_step(run, 0); i++) buf_append(out, fill.at, fill.length);
}

static void append_commas(Buf *out, const char *digits) {
    size_t start = *digits == '-' || *digits == '+' || *digits == ' ', end = start;
    while (isdigit((unsigned char)digits[end])) end++;
    for (size_t i = 0; digits[i]; i++) {
        if (i > start && i < end && (end - i) % 3 == 0) buf_char(out, ',');
        buf_char(out, digits[i]);
    }
}

/* A number by the rules of C, which are Python's here. */
static void append_number(Run *run, Buf *out, Value v, const Spec *spec) {
    char format[32], plain[512];
    int64_t whole = 0;
    double real = 0;
    bool is_whole = strchr("dxXo", spec->type) != NULL;
    int precision = (int)spec->precision;
    if (is_whole) is_int(v, &whole);
    if (!is_whole) is_number(v, &real);
    if (spec->alternative || spec->precision > 100) {
        run_fail(run, ERR_UNSUPPORTED, "# and a precision over 100 are not supported in a format");
        return;
    }
    const char *type = is_whole ? "ll" : "";
    if (is_whole && spec->type != 'd' && whole < 0) { /* C has no negative hexadecimals */
        snprintf(format, sizeof format, "-%%.*ll%c", spec->type);
        whole = whole == INT64_MIN ? whole : -whole;
    } else if (spec->sign) {
        snprintf(format, sizeof format, "%%%c.*%s%c", spec->sign, type, spec->type);
    } else {
        snprintf(format, sizeof format, "%%.*%s%c", type, spec->type);
    }
    if (is_whole) {
        snprintf(plain, sizeof plain, format, precision, (long long)whole);
    } else {
        snprintf(plain, sizeof plain, format, precision < 0 ? 6 : precision, real);
    }
    auto_buf Buf text = {0};
    if (spec->comma) append_commas(&text, plain);
    if (!spec->comma) buf_str(&text, plain);
    Spec padding = *spec;
    if (spec->zero && !spec->align) padding.fill = STR("0");
    append_padded(run, out, (Str){text.at, text.length}, &padding,
                  spec->align  ? spec->align
                  : spec->zero ? '='
                               : '>');
}

/* --- format % args --- */

typedef struct Printf {
    Run *run;
    Buf *out;
    const char *at, *end;
    Value args; /* a tuple, a dict, or the only one */
    size_t used;
    bool markup;
} Printf;

static Value next_arg(Printf *p) {
    if (p->args.kind == K_TUPLE) {
        if (p->used < p->args.list->count) return p->args.list->items[p->used++];
    } else if (p->used++ == 0) {
        return p->args;
    }
    return run_fail(p->run, ERR_INVALID, "not enough arguments for format string");
}

static int64_t read_number(Printf *p, Spec *spec) {
    int64_t number = 0;
    if (p->at < p->end && *p->at == '*') {
        p->at++;
        Value v = next_arg(p);
        if (!is_int(v, &number)) run_fail(p->run, ERR_INVALID, "* wants int");
        if (number < 0) spec->align = '<';
        return number < 0 ? -(number + 1) + 1 : number;
    }
    while (p->at < p->end && isdigit((unsigned char)*p->at) && number < 100000000)
        number = number * 10 + (*p->at++ - '0');
    return number;
}

static Spec read_spec(Printf *p) {
    Spec spec = {.precision = -1};
    for (; p->at < p->end && strchr("-+ #0", *p->at) && *p->at; p->at++) {
        if (*p->at == '-') spec.align = '<';
        if (*p->at == '+' || (*p->at == ' ' && !spec.sign)) spec.sign = *p->at;
        if (*p->at == '#') spec.alternative = true;
        if (*p->at == '0') spec.zero = true;
    }
    spec.width = read_number(p, &spec);
    if (p->at < p->end && *p->at == '.') {
        p->at++;
        spec.precision = read_number(p, &spec);
    }
    while (p->at < p->end && strchr("hlL", *p->at)) p->at++;
    if (p->at < p->end) spec.type = *p->at++;
    return spec;
}

static void printf_text(Printf *p, Value v, const Spec *spec) {
    auto_buf Buf text = {.limit = LIMIT_TEMPLATE_OUTPUT};
    if (spec->type == 's') {
        if (p->markup) v = v_escape(p->run, v);
        append_str(p->run, &text, v);
    } else {
        append_repr(p->run, &text, v);
    }
    Str whole = {text.at ? text.at : "", text.length};
    if (spec->precision >= 0) whole.length = str_offset(whole, (size_t)spec->precision);
    append_padded(p->run, p->out, whole, spec, spec->align == '<' ? '<' : '>');
}

static void printf_char(Printf *p, Value v, const Spec *spec) {
    auto_buf Buf text = {0};
    int64_t code;
    if (is_int(v, &code) && code >= 0 && code <= 0x10ffff && !(code >= 0xd800 && code < 0xe000)) {
        buf_utf8(&text, (uint32_t)code);
    } else if (v.kind == K_STR && str_count_chars(v.text) == 1) {
        buf_append(&text, v.text.at, v.text.length);
    } else {
        run_fail(p->run, ERR_INVALID, "%%c requires int or char");
        return;
    }
    append_padded(p->run, p->out, (Str){text.at, text.length}, spec,
                  spec->align == '<' ? '<' : '>');
}

static void printf_one(Printf *p, Value v, Spec *spec) {
    if (strchr("sra", spec->type)) {
        printf_text(p, v, spec);
        return;
    }
    if (spec->type == 'c') {
        printf_char(p, v, spec);
        return;
    }
    if (strchr("iu", spec->type)) spec->type = 'd';
    double number;
    if (v.kind == K_UNDEFINED) run_fail_undefined(p->run, v);
    if (!is_number(v, &number)) {
        run_fail(p->run, ERR_INVALID, "%%%c format: a number is required, not %s", spec->type,
                 kind_name(v));
        return;
    }
    if (spec->type == 'd' && v.kind == K_FLOAT) {
        if (!(fabs(number) < 9e18))
            run_fail(p->run, ERR_INVALID, "%%d format: not a 64-bit integer");
        else v = v_int((int64_t)number);
    } else if (strchr("xXo", spec->type) && v.kind == K_FLOAT) {
        run_fail(p->run, ERR_INVALID, "%%%c format: an integer is required, not float", spec->type);
    }
    if (run_ok(p->run)) append_number(p->run, p->out, v, spec);
}

/* Behind the %. */
static void printf_next(Printf *p) {
    bool named = p->at < p->end && *p->at == '(';
    Value v = v_none();
    if (named) {
        const char *close = memchr(p->at, ')', (size_t)(p->end - p->at));
        Str name = {p->at + 1, close ? (size_t)(close - p->at) - 1 : 0};
        if (!close || p->args.kind != K_DICT) {
            run_fail(p->run, ERR_INVALID, close ? "format requires a mapping"
                                                : "incomplete format key");
            return;
        }
        p->at = close + 1;
        const Value *found = dict_get(p->run, p->args.dict, v_str(name));
        if (!found) {
            run_fail(p->run, ERR_INVALID, "format key '%.*s' is not there",
                     (int)(name.length > 60 ? 60 : name.length), name.at);
            return;
        }
        v = *found;
    }
    Spec spec = read_spec(p);
    if (spec.type == '%') {
        buf_char(p->out, '%');
    } else if (!spec.type || !strchr("sradiuxXoeEfFgGc", spec.type)) {
        run_fail(p->run, ERR_INVALID, "unsupported format character");
    } else {
        if (!named) v = next_arg(p);
        if (run_ok(p->run)) printf_one(p, v, &spec);
    }
}

Value run_printf(Run *run, Value format, Value args) {
    Buf out = {.limit = LIMIT_TEMPLATE_OUTPUT};
    Printf p = {.run = run,
                .out = &out,
                .at = format.text.at,
                .end = format.text.at + format.text.length,
                .args = args,
                .markup = format.markup};
    while (p.at < p.end && run_step(run, 0)) {
        const char *percent = memchr(p.at, '%', (size_t)(p.end - p.at));
        buf_append(&out, p.at, (size_t)((percent ? percent : p.end) - p.at));
        p.at = percent ? percent + 1 : p.end;
        if (percent) printf_next(&p);
    }
    bool may_be_unused = args.kind == K_DICT || args.kind == K_LIST || args.kind == K_RANGE ||
                         args.kind == K_UNDEFINED; /* whatever Python can subscript */
    bool all_used = args.kind == K_TUPLE ? p.used == args.list->count : p.used || may_be_unused;
    if (!all_used)
        run_fail(run, ERR_INVALID, "not all arguments converted during string formatting");
    Value made = run_take(run, &out);
    made.markup = format.markup;
    return made;
}

/* --- format.format(args) --- */

/* [[fill]align][sign][#][0][width][,][.precision][type] */
static bool parse_spec(Str text, Spec *spec) {
    *spec = (Spec){.precision = -1};
    const char *at = text.at, *end = text.at + text.length;
    size_t first = str_offset(text, 1);
    if (text.length > first && strchr("<>^=", at[first])) {
        spec->fill = (Str){at, first};
        spec->align = at[first];
        at += first + 1;
    } else if (at < end && strchr("<>^=", *at)) {
        spec->align = *at++;
    }
    if (at < end && strchr("+- ", *at)) spec->sign = *at == '-' ? 0 : *at, at++;
    if (at < end && *at == '#') spec->alternative = true, at++;
    if (at < end && *at == '0') spec->zero = true, at++;
    for (; at < end && isdigit((unsigned char)*at) && spec->width < 100000000; at++)
        spec->width = spec->width * 10 + (*at - '0');
    if (at < end && *at == ',') spec->comma = true, at++;
    if (at < end && *at == '.') {
        spec->precision = 0;
        for (at++; at < end && isdigit((unsigned char)*at) && spec->precision < 1000000; at++)
            spec->precision = spec->precision * 10 + (*at - '0');
    }
    if (at < end) spec->type = *at++;
    return at == end;
}

static void format_value(Run *run, Buf *out, Value v, Str text) {
    Spec spec;
    double number;
    bool is_num = is_number(v, &number) && v.kind != K_BOOL;
    if (!text.length) {
        append_str(run, out, v);
        return;
    }
    bool ok = parse_spec(text, &spec) && (v.kind == K_STR || is_num || v.kind == K_BOOL);
    if (ok && v.kind == K_STR && (!spec.type || spec.type == 's') && spec.align != '=') {
        Str whole = v.text;
        if (spec.precision >= 0) whole.length = str_offset(whole, (size_t)spec.precision);
        if (spec.zero) spec.fill = STR("0");
        append_padded(run, out, whole, &spec, spec.align ? spec.align : '<');
        return;
    }
    if (ok && v.kind != K_STR && spec.type == '%' && is_num) {
        Spec percent = spec;
        percent.type = 'f';
        percent.width = 0;
        auto_buf Buf digits = {0};
        append_number(run, &digits, v_real(number * 100), &percent);
        buf_char(&digits, '%');
        if (spec.zero && !spec.align) spec.fill = STR("0");
        append_padded(run, out, (Str){digits.at, digits.length}, &spec,
                      spec.align ? spec.align : spec.zero ? '=' : '>');
        return;
    }
    if (ok && v.kind == K_FLOAT && !spec.type && spec.precision < 0 && !spec.sign && !spec.comma) {
        char digits[32];
        append_padded(run, out, (Str){digits, double_repr(v.real, digits)}, &spec,
                      spec.align ? spec.align : '>');
        return;
    }
    if (!spec.type && v.kind != K_FLOAT) spec.type = 'd';
    if (spec.type == 'n') ok = false;
    bool fits =
        v.kind != K_STR && spec.type &&
        (v.kind == K_FLOAT ? strchr("eEfFgG", spec.type) : strchr("dxXoeEfFgG", spec.type)) &&
        !(spec.precision >= 0 && strchr("dxXo", spec.type));
    if (ok && fits) {
        append_number(run, out, v, &spec);
        return;
    }
    run_fail(run, ERR_UNSUPPORTED, "format '%.*s' is not supported for a %s",
             (int)(text.length > 40 ? 40 : text.length), text.at, kind_name(v));
}

/* name, number or nothing, then .attr and [key] */
static Value format_field(Run *run, Args args, Str field, size_t *counter) {
    size_t length = 0;
    while (length < field.length && field.at[length] != '.' && field.at[length] != '[') length++;
    Str name = {field.at, length};
    size_t index = 0;
    bool numbered = true;
    for (size_t i = 0; i < length && numbered && index < 1000000; i++) {
        numbered = isdigit((unsigned char)name.at[i]);
        index = index * 10 + (size_t)(name.at[i] - '0');
    }
    if (!length) index = (*counter)++;
    const Value *found = NULL;
    if (numbered && index < args.count) found = &args.given[index];
    if (!numbered && args.named) found = dict_get(run, args.named, v_str(name));
    if (!found)
        return run_fail(run, ERR_INVALID, "format has no argument for '{%.*s}'",
                        (int)(field.length > 60 ? 60 : field.length), field.at);
    Value v = *found;
    Str rest = {field.at + length, field.length - length};
    while (rest.length && run_ok(run)) {
        bool is_item = rest.at[0] == '[';
        size_t end = 1;
        while (end < rest.length && (is_item ? rest.at[end] != ']'
                                             : rest.at[end] != '.' && rest.at[end] != '['))
            end++;
        Str key = {rest.at + 1, end - 1};
        v = is_item ? v_path(run, v, v_str(key)) : v_attr(run, v, key);
        if (is_item && end < rest.length) end++;
        rest = (Str){rest.at + end, rest.length - end};
    }
    return v;
}

static void format_one(Run *run, Buf *out, Value format, Args args, Str inside, size_t *counter) {
    Str field = inside, spec = {"", 0};
    const char *colon = inside.length ? memchr(inside.at, ':', inside.length) : NULL;
    if (colon) {
        field.length = (size_t)(colon - inside.at);
        spec = (Str){colon + 1, inside.length - field.length - 1};
    }
    char conversion = 0;
    if (field.length >= 2 && field.at[field.length - 2] == '!') {
        conversion = field.at[field.length - 1];
        field.length -= 2;
    }
    Value v = format_field(run, args, field, counter);
    if (conversion == 's') {
        v = v_to_str(run, v);
    } else if (conversion == 'r') {
        Buf repr = {.limit = LIMIT_TEMPLATE_OUTPUT};
        append_repr(run, &repr, v);
        v = run_take(run, &repr);
    } else if (conversion) {
        run_fail(run, ERR_UNSUPPORTED, "conversion '!%c' is not supported", conversion);
    }
    if (format.markup && !spec.length) v = v_escape(run, v);
    if (run_ok(run)) format_value(run, out, v, spec);
}

Value run_format(Run *run, Value format, Args args) {
    Buf out = {.limit = LIMIT_TEMPLATE_OUTPUT};
    const char *at = format.text.at, *end = at + format.text.length;
    size_t counter = 0;
    while (at < end && run_step(run, 0)) {
        if (*at != '{' && *at != '}') {
            buf_char(&out, *at++);
        } else if (end - at >= 2 && at[1] == at[0]) {
            buf_char(&out, *at);
            at += 2;
        } else {
            const char *close = *at == '{' ? memchr(at, '}', (size_t)(end - at)) : NULL;
            const char *open = close ? memchr(at + 1, '{', (size_t)(close - at)) : NULL;
            if (!close || (open && open < close)) {
                run_fail(run, open ? ERR_UNSUPPORTED : ERR_INVALID, "%s",
                         open ? "a format inside of a format is not supported"
                              : "single '{' or '}' in a format");
                break;
            }
            format_one(run, &out, format, args, (Str){at + 1, (size_t)(close - at) - 1}, &counter);
            at = close + 1;
        }
    }
    Value made = run_take(run, &out);
    made.markup = format.markup;
    return made;
}
