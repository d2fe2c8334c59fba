// SPDX-License-Identifier: Apache-2.0
/* What operators and subscripts do, as Python defines it. */
#include "jinja_run.h"

#include <math.h>

static Value bad_operands(Run *run, const char *sign, Value a, Value b) {
    if (a.kind == K_UNDEFINED || b.kind == K_UNDEFINED)
        return run_fail_undefined(run, a.kind == K_UNDEFINED ? a : b);
    if (a.kind == K_STR && *sign == '+')
        return run_fail(run, ERR_INVALID, "can only concatenate str (not \"%s\") to str",
                        kind_name(b));
    return run_fail(run, ERR_INVALID, "unsupported operand type(s) for %s: '%s' and '%s'", sign,
                    kind_name(a), kind_name(b));
}

static Value too_big(Run *run) {
    return run_fail(run, ERR_UNSUPPORTED, "an integer has more than 64 bits");
}

/* Strings that come from joining lie behind this, with room for more: so adding to the end of what
 * a loop collects does not copy it all again. */
typedef struct StrHead {
    size_t used, room;
} StrHead;

Value v_joined(Run *run, Value a, Value b) {
    size_t length = a.text.length + b.text.length;
    if (!b.text.length) return a;
    StrHead *head = (StrHead *)(uintptr_t)a.text.at - 1;
    if (!a.growable || head->used != a.text.length || head->room < length) {
        size_t room = a.growable ? length * 2 : length + 64;
        run_step(run, length);
        if (!run_room(run, sizeof *head + room)) return a;
        head = run_new(run, sizeof *head + room);
        head->room = room;
        if (a.text.length) memcpy(head + 1, a.text.at, a.text.length);
    }
    char *bytes = (char *)(head + 1);
    memcpy(bytes + a.text.length, b.text.at, b.text.length);
    head->used = length;
    return (Value){
        .kind = K_STR, .markup = a.markup, .growable = true, .text = {bytes, length}};
}

static Value add_strings(Run *run, Value a, Value b) {
    if (a.markup != b.markup) {
        a = v_escape(run, a);
        b = v_escape(run, b);
    }
    return v_joined(run, a, b);
}

static Value add_lists(Run *run, Value a, Value b) {
    List *list = list_new(run, a.list->count + b.list->count);
    for (size_t i = 0; i < a.list->count && run_step(run, 0); i++)
        list_add(run, list, a.list->items[i]);
    for (size_t i = 0; i < b.list->count && run_step(run, 0); i++)
        list_add(run, list, b.list->items[i]);
    return (Value){.kind = a.kind, .list = list};
}

Value v_add(Run *run, Value a, Value b) {
    int64_t i, j, sum;
    double x, y;
    if (a.kind == K_STR && b.kind == K_STR) return add_strings(run, a, b);
    if (is_int(a, &i) && is_int(b, &j))
        return __builtin_add_overflow(i, j, &sum) ? too_big(run) : v_int(sum);
    if (is_number(a, &x) && is_number(b, &y)) return v_real(x + y);
    if (a.kind == b.kind && (a.kind == K_LIST || a.kind == K_TUPLE)) return add_lists(run, a, b);
    return bad_operands(run, "+", a, b);
}

static Value repeated(Run *run, Value v, int64_t times) {
    size_t bytes, count = times > 0 ? (size_t)times : 0;
    if (v.kind == K_STR) {
        if (__builtin_mul_overflow(v.text.length, count, &bytes)) bytes = SIZE_MAX / 2;
        if (!bytes || !run_room(run, bytes))
            return (Value){.kind = K_STR, .markup = v.markup, .text = {"", 0}};
        char *to = run_new(run, bytes);
        for (size_t i = 0; i < count && run_step(run, v.text.length); i++)
            memcpy(to + i * v.text.length, v.text.at, v.text.length);
        return (Value){.kind = K_STR, .markup = v.markup, .text = {to, bytes}};
    }
    List *list = list_new(run, 0);
    for (size_t i = 0; i < count && v.list->count && run_ok(run); i++)
        for (size_t k = 0; k < v.list->count && run_step(run, 0); k++)
            list_add(run, list, v.list->items[k]);
    return (Value){.kind = v.kind, .list = list};
}

static bool can_repeat(Value v) { return v.kind == K_STR || v.kind == K_LIST || v.kind == K_TUPLE; }

static Value multiply(Run *run, Value a, Value b) {
    int64_t i, j, product;
    double x, y;
    if (is_int(a, &i) && is_int(b, &j))
        return __builtin_mul_overflow(i, j, &product) ? too_big(run) : v_int(product);
    if (is_number(a, &x) && is_number(b, &y)) return v_real(x * y);
    if (can_repeat(a) && is_int(b, &j)) return repeated(run, a, j);
    if (is_int(a, &i) && can_repeat(b)) return repeated(run, b, i);
    return bad_operands(run, "*", a, b);
}

/* floor(a / b) and the remainder that has the sign of b */
static void divide_reals(double a, double b, double *quotient, double *rest) {
    double mod = fmod(a, b), div = (a - mod) / b;
    if (mod != 0 && (b < 0) != (mod < 0)) {
        mod += b;
        div -= 1;
    } else if (mod == 0) {
        mod = copysign(0, b);
    }
    double floor_div = floor(div);
    if (div - floor_div > 0.5) floor_div += 1;
    *quotient = div != 0 ? floor_div : copysign(0, a / b);
    *rest = mod;
}

static Value divide(Run *run, int op, Value a, Value b) {
    static const char *const signs[] = {[T_DIV] = "/", [T_FLOORDIV] = "//", [T_MOD] = "%"};
    int64_t i, j;
    double x, y, quotient, rest;
    if (!is_number(a, &x) || !is_number(b, &y)) return bad_operands(run, signs[op], a, b);
    if (y == 0) return run_fail(run, ERR_INVALID, "division by zero");
    if (op == T_DIV) return v_real(x / y);
    if (is_int(a, &i) && is_int(b, &j)) {
        if (i == INT64_MIN && j == -1) return op == T_MOD ? v_int(0) : too_big(run);
        int64_t mod = i % j, wrong_side = mod != 0 && (mod < 0) != (j < 0);
        return v_int(op == T_MOD ? mod + (wrong_side ? j : 0) : i / j - wrong_side);
    }
    divide_reals(x, y, &quotient, &rest);
    return v_real(op == T_MOD ? rest : quotient);
}

static Value power(Run *run, Value a, Value b) {
    int64_t base, exponent, result = 1;
    double x, y;
    if (!is_number(a, &x) || !is_number(b, &y)) return bad_operands(run, "**", a, b);
    if (x == 0 && y < 0)
        return run_fail(run, ERR_INVALID, "0.0 cannot be raised to a negative power");
    if (!is_int(a, &base) || !is_int(b, &exponent) || exponent < 0) {
        if (x < 0 && y != trunc(y))
            return run_fail(run, ERR_UNSUPPORTED, "the power is a complex number");
        double real = pow(x, y);
        if (isinf(real) && !isinf(x) && !isinf(y))
            return run_fail(run, ERR_INVALID, "the power is out of range");
        return v_real(real);
    }
    if (base == 0 || base == 1) return v_int(exponent ? base : 1);
    if (base == -1) return v_int(exponent % 2 ? -1 : 1);
    for (; exponent > 0; exponent--)
        if (__builtin_mul_overflow(result, base, &result)) return too_big(run);
    return v_int(result);
}

Value v_binary(Run *run, int op, Value a, Value b) {
    int64_t i, j, difference;
    double x, y;
    switch (op) {
    case T_ADD: return v_add(run, a, b);
    case T_SUB:
        if (is_int(a, &i) && is_int(b, &j))
            return __builtin_sub_overflow(i, j, &difference) ? too_big(run) : v_int(difference);
        if (is_number(a, &x) && is_number(b, &y)) return v_real(x - y);
        return bad_operands(run, "-", a, b);
    case T_MUL: return multiply(run, a, b);
    case T_MOD:
        if (a.kind == K_STR) return run_printf(run, a, b);
        return divide(run, op, a, b);
    case T_POW: return power(run, a, b);
    default: return divide(run, op, a, b);
    }
}

Value v_negative(Run *run, Value v) {
    int64_t number;
    if (v.kind == K_FLOAT) return v_real(-v.real);
    if (v.kind == K_UNDEFINED) return run_fail_undefined(run, v);
    if (!is_int(v, &number))
        return run_fail(run, ERR_INVALID, "bad operand type for unary -: '%s'", kind_name(v));
    return number == INT64_MIN ? too_big(run) : v_int(-number);
}

Value v_positive(Run *run, Value v) {
    int64_t number;
    if (v.kind == K_FLOAT) return v;
    if (v.kind == K_UNDEFINED) return run_fail_undefined(run, v);
    if (!is_int(v, &number))
        return run_fail(run, ERR_INVALID, "bad operand type for unary +: '%s'", kind_name(v));
    return v_int(number);
}

bool v_compare(Run *run, int op, Value a, Value b) {
    int order;
    switch (op) {
    case T_EQ: return v_equal(run, a, b);
    case T_NE: return !v_equal(run, a, b);
    case T_LT: return v_order(run, a, b, "<") == -1;
    case T_LE: order = v_order(run, a, b, "<="); return order == -1 || order == 0;
    case T_GT: return v_order(run, a, b, ">") == 1;
    case T_GE: order = v_order(run, a, b, ">="); return order == 1 || order == 0;
    case T_IN: return v_contains(run, b, a);
    default: return !v_contains(run, b, a);
    }
}

/* --- subscripts --- */

static Value method_value(Run *run, const MethodDef *def, Value self) {
    Method *method = run_new(run, sizeof *method);
    *method = (Method){def, self};
    return (Value){.kind = K_METHOD, .method = method};
}

static Value unsafe(Value object, Str name) {
    return (Value){.kind = K_UNDEFINED, .sub = UNDEF_UNSAFE, .of = object.kind, .text = name};
}

static Value group_attr(Value tuple, Str name) {
    if (str_eq(name, "grouper")) return tuple.list->items[0];
    if (str_eq(name, "list")) return tuple.list->items[1];
    return (Value){.kind = K_MISSING};
}

Value v_attr_alone(Run *run, Value object, Str name) {
    if (name.length >= 2 && name.at[0] == '_' && name.at[1] == '_') return unsafe(object, name);
    switch (object.kind) {
    case K_NAMESPACE: {
        const Value *value = dict_get(run, object.dict, v_str(name));
        if (!value) return (Value){.kind = K_MISSING};
        return name.length && name.at[0] == '_' ? unsafe(object, name) : *value;
    }
    case K_LOOP: {
        Value value = loop_attr(run, object.loop, name);
        if (value.kind != K_MISSING) return value;
        break;
    }
    case K_RANGE:
        if (str_eq(name, "start")) return v_int(object.range->start);
        if (str_eq(name, "stop")) return v_int(object.range->stop);
        if (str_eq(name, "step")) return v_int(object.range->step);
        break;
    case K_CYCLER:
        if (str_eq(name, "current")) return object.cycler->items.items[object.cycler->at];
        break;
    case K_MACRO:
        if (str_eq(name, "name")) return v_str(object.macro->function->name);
        break;
    case K_TUPLE:
        if (object.group) {
            Value value = group_attr(object, name);
            if (value.kind != K_MISSING) return value;
        }
        break;
    default: break;
    }
    const MethodDef *method = method_of(object, name);
    if (!method) return (Value){.kind = K_MISSING};
    /* What would change a list or dict is there, but not for a template. */
    return method->params ? method_value(run, method, object) : unsafe(object, name);
}

Value v_attr(Run *run, Value object, Str name) {
    if (object.kind == K_UNDEFINED) return run_fail_undefined(run, object);
    Value value = v_attr_alone(run, object, name);
    bool may_be_item = value.kind == K_MISSING || str_starts(name, "__");
    if (object.kind == K_DICT && may_be_item) {
        const Value *item = dict_get(run, object.dict, v_str(name));
        if (item) return *item;
    }
    if (value.kind != K_MISSING) return value;
    return undefined_of(run, object, v_str(name));
}

/* 0 <= at < count; counted from the end if negative */
static bool index_within(int64_t *at, int64_t count) {
    if (*at < 0) *at += count;
    return *at >= 0 && *at < count;
}

static Value char_at(Run *run, Value text, int64_t at) {
    run_step(run, text.text.length);
    if (!index_within(&at, (int64_t)str_count_chars(text.text)))
        return (Value){.kind = K_MISSING};
    size_t from = str_offset(text.text, (size_t)at);
    Str rest = {text.text.at + from, text.text.length - from};
    return (Value){
        .kind = K_STR, .markup = text.markup, .text = {rest.at, str_offset(rest, 1)}};
}

static Value item_or_missing(Run *run, Value object, Value key) {
    int64_t at;
    const Value missing = {.kind = K_MISSING};
    if (object.kind == K_DICT) {
        if (key.kind == K_LIST || key.kind == K_DICT) return missing; /* cannot be a key */
        const Value *item = dict_get(run, object.dict, key);
        return item ? *item : missing;
    }
    if (!is_int(key, &at)) return missing;
    switch (object.kind) {
    case K_STR: return char_at(run, object, at);
    case K_LIST:
    case K_TUPLE:
        return index_within(&at, (int64_t)object.list->count) ? object.list->items[at] : missing;
    case K_RANGE:
        return index_within(&at, object.range->count) ? v_int(range_at(object.range, at)) : missing;
    default: return missing;
    }
}

Value v_item(Run *run, Value object, Value key) {
    if (object.kind == K_UNDEFINED) return run_fail_undefined(run, object);
    Value value = item_or_missing(run, object, key);
    if (value.kind == K_MISSING && key.kind == K_STR)
        value = v_attr_alone(run, object, key.text);
    return value.kind == K_MISSING ? undefined_of(run, object, key) : value;
}

/* start, stop and step as Python's slice.indices() makes them; how many items it has */
static int64_t slice_count(int64_t length, int64_t *start, int64_t *stop, int64_t step,
                           bool has_start, bool has_stop) {
    int64_t low = step < 0 ? -1 : 0, high = step < 0 ? length - 1 : length;
    int64_t *const ends[] = {start, stop};
    const bool has[] = {has_start, has_stop};
    for (int i = 0; i < 2; i++) {
        bool from_low = (i == 0) == (step > 0);
        if (!has[i]) {
            *ends[i] = from_low ? low : high;
            continue;
        }
        if (*ends[i] < 0) *ends[i] = *ends[i] < -length ? low : *ends[i] + length;
        if (*ends[i] < low) *ends[i] = low;
        if (*ends[i] > high) *ends[i] = high;
    }
    if (step > 0) return *stop > *start ? (*stop - *start - 1) / step + 1 : 0;
    return *start > *stop ? (*start - *stop - 1) / -step + 1 : 0;
}

static Value slice_str(Run *run, Value v, int64_t start, int64_t step, int64_t count) {
    Str text = v.text;
    v.growable = false;
    if (step == 1) {
        size_t from = str_offset(text, (size_t)start);
        Str rest = {text.at + from, text.length - from};
        v.text = (Str){rest.at, str_offset(rest, (size_t)count)};
        return v;
    }
    Buf out = {.limit = LIMIT_TEMPLATE_OUTPUT};
    const char *at = text.at + str_offset(text, (size_t)(count ? start : 0));
    for (int64_t i = 0; i < count && run_step(run, 0); i++) {
        size_t size = str_offset((Str){at, (size_t)(text.at + text.length - at)}, 1);
        buf_append(&out, at, size);
        for (int64_t k = 0; i + 1 < count && k < (step < 0 ? -step : step); k++) {
            at += step < 0 ? -1 : 1;
            while ((*at & 0xc0) == 0x80) at += step < 0 ? -1 : 1;
        }
    }
    bool markup = v.markup;
    v = run_take(run, &out);
    v.markup = markup;
    return v;
}

static bool slice_number(Run *run, Value v, int64_t *number, bool *has) {
    *has = v.kind != K_MISSING && v.kind != K_NONE;
    if (!*has || is_int(v, number)) return true;
    run_fail(run, ERR_INVALID, "slice indices must be integers or None");
    return false;
}

Value v_slice(Run *run, Value v, Value start, Value stop, Value step) {
    int64_t from = 0, to = 0, by = 1;
    bool has_from, has_to, has_by, has_length;
    if (v.kind == K_UNDEFINED) return run_fail_undefined(run, v);
    if (v.kind != K_STR && v.kind != K_LIST && v.kind != K_TUPLE && v.kind != K_RANGE)
        return run_fail(run, ERR_INVALID, "a %s cannot be sliced", kind_name(v));
    if (!slice_number(run, start, &from, &has_from) || !slice_number(run, stop, &to, &has_to) ||
        !slice_number(run, step, &by, &has_by))
        return v_undefined();
    if (!by) return run_fail(run, ERR_INVALID, "slice step cannot be zero");
    if (by < -INT64_MAX) by = -INT64_MAX;
    int64_t length = v_length(run, v, &has_length);
    int64_t count = slice_count(length, &from, &to, by, has_from, has_to);
    if (v.kind == K_STR) return slice_str(run, v, from, by, count);
    if (v.kind == K_RANGE) {
        Range *range = run_new(run, sizeof *range);
        *range = (Range){.start = count ? range_at(v.range, from) : 0,
                         .step = count > 1 ? by * v.range->step : 1,
                         .count = count};
        if (__builtin_mul_overflow(range->step, count, &range->stop) ||
            __builtin_add_overflow(range->start, range->stop, &range->stop))
            range->stop = range->step < 0 ? INT64_MIN : INT64_MAX;
        return (Value){.kind = K_RANGE, .range = range};
    }
    List *list = list_new(run, (size_t)count);
    for (int64_t i = 0; i < count && run_step(run, 0); i++)
        list_add(run, list, v.list->items[from + i * by]);
    return (Value){.kind = v.kind, .list = list};
}

Value v_path(Run *run, Value object, Value path) {
    if (path.kind != K_STR) return path.kind == K_NONE ? object : v_item(run, object, path);
    Str rest = path.text, part;
    while (run_ok(run) && str_cut(&rest, '.', &part)) {
        bool digits = part.length && part.length < 18;
        int64_t number = 0;
        for (size_t i = 0; digits && i < part.length; i++) {
            digits = part.at[i] >= '0' && part.at[i] <= '9';
            number = number * 10 + (part.at[i] - '0');
        }
        object = v_item(run, object, digits ? v_int(number) : v_str(part));
    }
    return object;
}
