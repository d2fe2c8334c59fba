// SPDX-License-Identifier: Apache-2.0
/* What can be called: arguments, global functions, the methods of everything but strings. */
#include "jinja_run.h"

#include <stdio.h>
#include <time.h>

#define MAX_RANGE 100000 /* as jinja2's sandbox */

/* The next name of "a b|c d"; `optional` once the | is passed. */
static bool next_param(const char **params, Str *name, bool *optional) {
    for (; **params == ' ' || **params == '|'; ++*params) *optional = *optional || **params == '|';
    *name = (Str){*params, strcspn(*params, " |")};
    *params += name->length;
    return name->length != 0;
}

static bool has_param(const char *params, Str wanted) {
    Str name;
    bool optional = false;
    while (next_param(&params, &name, &optional))
        if (str_same(name, wanted)) return true;
    return false;
}

bool args_bind(Run *run, const char *what, const char *params, Args args, Value *bound) {
    if (*params == '*') return true;
    const char *rest = params;
    size_t count = 0;
    bool optional = false;
    Str name;
    for (; next_param(&rest, &name, &optional); count++) {
        assert(count < PARAMS_MAX);
        const Value *by_name = args.named ? dict_get(run, args.named, v_str(name)) : NULL;
        bound[count] = (Value){.kind = K_MISSING};
        if (count < args.count) {
            bound[count] = args.given[count];
            if (by_name)
                run_fail(run, ERR_INVALID, "%s got several values for argument '%.*s'", what,
                         (int)name.length, name.at);
        } else if (by_name) {
            bound[count] = *by_name;
        } else if (!optional) {
            run_fail(run, ERR_INVALID, "%s is missing its argument '%.*s'", what, (int)name.length,
                     name.at);
        }
    }
    if (args.count > count)
        run_fail(run, ERR_INVALID, "%s takes at most %zu arguments, %zu were given", what, count,
                 args.count);
    for (size_t i = 0; args.named && i < args.named->count; i++) {
        Str key = args.named->keys[i].text;
        if (!has_param(params, key))
            run_fail(run, ERR_INVALID, "%s got an unexpected argument '%.*s'", what,
                     (int)(key.length > 60 ? 60 : key.length), key.at);
    }
    return run_ok(run);
}

Value call_method(Run *run, const MethodDef *method, Value self, Args args) {
    Call call = {.run = run, .self = self, .all = args};
    if (!method->call)
        return run_fail(run, ERR_UNSUPPORTED, "method '%s' of '%s' is not supported", method->name,
                        kind_name(self));
    if (!args_bind(run, method->name, method->params, args, call.args)) return v_undefined();
    return method->call(&call);
}

/* --- dicts, lists, cyclers, loops --- */

static Value m_get(Call *c) {
    const Value *found = dict_get(c->run, c->self.dict, c->args[0]);
    return found ? *found : c->args[1].kind == K_MISSING ? v_none() : c->args[1];
}

static Value view_of(Value self, ViewOf of) {
    return (Value){.kind = K_VIEW, .sub = (uint8_t)of, .dict = self.dict};
}

static Value m_items(Call *c) { return view_of(c->self, VIEW_ITEMS); }

static Value m_keys(Call *c) { return view_of(c->self, VIEW_KEYS); }

static Value m_values(Call *c) { return view_of(c->self, VIEW_VALUES); }

static Value m_copy(Call *c) {
    return c->self; /* nobody can change either */
}

static Value m_list_count(Call *c) {
    int64_t count = 0;
    for (size_t i = 0; i < c->self.list->count && run_step(c->run, 0); i++)
        count += v_equal(c->run, c->self.list->items[i], c->args[0]);
    return v_int(count);
}

static Value m_list_index(Call *c) {
    for (size_t i = 0; i < c->self.list->count && run_step(c->run, 0); i++)
        if (v_equal(c->run, c->self.list->items[i], c->args[0])) return v_int((int64_t)i);
    return run_fail(c->run, ERR_INVALID, "the value is not in the %s", kind_name(c->self));
}

static Value m_range_count(Call *c) {
    return v_int(v_contains(c->run, c->self, c->args[0]));
}

static Value m_range_index(Call *c) {
    double number;
    if (!v_contains(c->run, c->self, c->args[0]) || !is_number(c->args[0], &number))
        return run_fail(c->run, ERR_INVALID, "the value is not in the range");
    return v_int(((int64_t)number - c->self.range->start) / c->self.range->step);
}

static Value m_next(Call *c) {
    Cycler *cycler = c->self.cycler;
    Value item = cycler->items.items[cycler->at];
    cycler->at = (cycler->at + 1) % cycler->items.count;
    return item;
}

static Value m_reset(Call *c) {
    c->self.cycler->at = 0;
    return v_none();
}

static Value m_cycle(Call *c) {
    if (!c->all.count) return run_fail(c->run, ERR_INVALID, "no items for cycling given");
    return c->all.given[(size_t)c->self.loop->index0 % c->all.count];
}

static Value m_changed(Call *c) {
    List *now = list_new(c->run, c->all.count);
    for (size_t i = 0; i < c->all.count; i++) list_add(c->run, now, c->all.given[i]);
    Value last = c->self.loop->changed;
    c->self.loop->changed = v_tuple(now);
    return v_bool(last.kind == K_MISSING || !v_equal(c->run, last, v_tuple(now)));
}

/* Without params: it would change the object, which the sandbox does not allow. */
static const MethodDef dict_methods[] = {
    {"get", "key|default", m_get}, {"items", "", m_items},   {"keys", "", m_keys},
    {"values", "", m_values},      {"copy", "", m_copy},     {"fromkeys", "*", NULL},
    {"clear", NULL, NULL},         {"pop", NULL, NULL},      {"popitem", NULL, NULL},
    {"setdefault", NULL, NULL},    {"update", NULL, NULL},   {0},
};
static const MethodDef list_methods[] = {
    {"index", "value", m_list_index}, {"count", "value", m_list_count}, {"copy", "", m_copy},
    {"append", NULL, NULL},           {"clear", NULL, NULL},            {"extend", NULL, NULL},
    {"insert", NULL, NULL},           {"pop", NULL, NULL},              {"remove", NULL, NULL},
    {"reverse", NULL, NULL},          {"sort", NULL, NULL},             {0},
};
static const MethodDef tuple_methods[] = {
    {"index", "value", m_list_index}, {"count", "value", m_list_count}, {0}};
static const MethodDef range_methods[] = {
    {"count", "value", m_range_count}, {"index", "value", m_range_index}, {0}};
static const MethodDef cycler_methods[] = {{"next", "", m_next}, {"reset", "", m_reset}, {0}};
static const MethodDef loop_methods[] = {{"cycle", "*", m_cycle}, {"changed", "*", m_changed}, {0}};
/* In Python every number has these; no template was seen that uses them. */
static const MethodDef number_methods[] = {
    {"real", "*", NULL},       {"imag", "*", NULL},       {"numerator", "*", NULL},
    {"denominator", "*", NULL}, {"bit_length", "*", NULL}, {"bit_count", "*", NULL},
    {"conjugate", "*", NULL},  {"is_integer", "*", NULL}, {"as_integer_ratio", "*", NULL},
    {"hex", "*", NULL},        {"to_bytes", "*", NULL},   {0},
};

const MethodDef *method_of(Value object, Str name) {
    static const MethodDef *const methods[] = {
        [K_STR] = str_methods,     [K_LIST] = list_methods,     [K_TUPLE] = tuple_methods,
        [K_DICT] = dict_methods,   [K_CYCLER] = cycler_methods, [K_LOOP] = loop_methods,
        [K_INT] = number_methods,  [K_FLOAT] = number_methods,  [K_BOOL] = number_methods,
        [K_RANGE] = range_methods, [K_METHOD] = NULL,
    };
    for (const MethodDef *m = methods[object.kind]; m && m->name; m++)
        if (str_eq(name, m->name)) return m;
    return NULL;
}

/* --- global functions --- */

static Value g_range(Run *run, Args args) {
    int64_t numbers[3] = {0, 0, 1};
    if (args.count < 1 || args.count > 3 || args.named)
        return run_fail(run, ERR_INVALID, "range expects 1 to 3 arguments");
    for (size_t i = 0; i < args.count; i++) {
        Value v = args.given[i];
        if (v.kind == K_UNDEFINED) return run_fail_undefined(run, v);
        if (!is_int(v, &numbers[args.count == 1 ? 1 : i]))
            return run_fail(run, ERR_INVALID, "'%s' object cannot be interpreted as an integer",
                            kind_name(v));
    }
    int64_t start = numbers[0], stop = numbers[1], step = numbers[2];
    if (!step) return run_fail(run, ERR_INVALID, "range() arg 3 must not be zero");
    uint64_t span = step > 0 ? (uint64_t)stop - (uint64_t)start : (uint64_t)start - (uint64_t)stop;
    uint64_t stride = step > 0 ? (uint64_t)step : 0 - (uint64_t)step;
    uint64_t count = (step > 0 ? start < stop : start > stop) ? (span - 1) / stride + 1 : 0;
    if (count > MAX_RANGE)
        return run_fail(run, ERR_TOO_LARGE,
                        "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).",
                        MAX_RANGE);
    Range *range = run_new(run, sizeof *range);
    *range = (Range){.start = start, .stop = stop, .step = step, .count = (int64_t)count};
    return (Value){.kind = K_RANGE, .range = range};
}

static void add_pair(Run *run, Dict *dict, Value pair) {
    Iter *iter = iter_of(run, pair);
    Value both[3];
    size_t count = 0;
    while (iter && count < 3 && iter_next(run, iter, &both[count])) count++;
    if (count == 2) {
        dict_set(run, dict, both[0], both[1]);
    } else if (run_ok(run)) {
        run_fail(run, ERR_INVALID, "a dict is made of pairs");
    }
}

/* dict(), dict(other), dict(pairs), each with names */
static Dict *dict_of_args(Run *run, const char *what, Args args) {
    Dict *dict = dict_new(run);
    if (args.count > 1)
        run_fail(run, ERR_INVALID, "%s expected at most 1 argument, got %zu", what, args.count);
    if (args.count == 1 && args.given[0].kind == K_DICT) {
        const Dict *from = args.given[0].dict;
        for (size_t i = 0; i < from->count && run_step(run, 0); i++)
            dict_set(run, dict, from->keys[i], from->values[i]);
    } else if (args.count == 1) {
        Iter *iter = iter_of(run, args.given[0]);
        Value pair;
        while (iter && iter_next(run, iter, &pair)) add_pair(run, dict, pair);
    }
    for (size_t i = 0; args.named && i < args.named->count && run_ok(run); i++)
        dict_set(run, dict, args.named->keys[i], args.named->values[i]);
    return dict;
}

static Value g_dict(Run *run, Args args) { return v_dict(dict_of_args(run, "dict", args)); }

static Value g_namespace(Run *run, Args args) {
    return (Value){.kind = K_NAMESPACE, .dict = dict_of_args(run, "namespace", args)};
}

static Value g_cycler(Run *run, Args args) {
    if (!args.count || args.named)
        return run_fail(run, ERR_INVALID, "at least one item has to be provided");
    Cycler *cycler = run_new(run, sizeof *cycler);
    List *items = list_new(run, args.count);
    for (size_t i = 0; i < args.count; i++) list_add(run, items, args.given[i]);
    cycler->items = *items;
    return (Value){.kind = K_CYCLER, .cycler = cycler};
}

static Value g_joiner(Run *run, Args args) {
    Value bound[PARAMS_MAX];
    if (!args_bind(run, "joiner", "|sep", args, bound)) return v_undefined();
    Joiner *joiner = run_new(run, sizeof *joiner);
    joiner->separator = bound[0].kind == K_MISSING ? v_str(STR(", ")) : bound[0];
    return (Value){.kind = K_JOINER, .joiner = joiner};
}

static Value g_raise_exception(Run *run, Args args) {
    Value bound[PARAMS_MAX];
    if (!args_bind(run, "raise_exception", "message", args, bound)) return v_undefined();
    Value text = v_to_str(run, bound[0]);
    int length = (int)(text.text.length > 500 ? utf8_whole(text.text.at, 500) : text.text.length);
    if (run_ok(run)) err_set(run->err, ERR_INVALID, "%.*s", length, text.text.at);
    return v_undefined();
}

/* As Python's strftime() of a time without a zone: %f is the microseconds, %z and %Z are empty. */
static Value g_strftime_now(Run *run, Args args) {
    Value bound[PARAMS_MAX];
    if (!args_bind(run, "strftime_now", "format", args, bound)) return v_undefined();
    if (bound[0].kind != K_STR)
        return run_fail(run, ERR_INVALID, "strftime_now wants a string, not %s",
                        kind_name(bound[0]));
    auto_buf Buf format = {0};
    for (size_t i = 0; i < bound[0].text.length; i++) {
        char c = bound[0].text.at[i],
             next = i + 1 < bound[0].text.length ? bound[0].text.at[i + 1] : 0;
        if (!c) return run_fail(run, ERR_INVALID, "strftime_now: embedded null character");
        if (c == '%' && next == 'f') buf_str(&format, "000000");
        bool skip = c == '%' && (next == 'f' || next == 'z' || next == 'Z');
        if (!skip) buf_char(&format, c);
        if (!skip && c == '%' && next) buf_char(&format, next);
        i += skip || (c == '%' && next);
    }
    buf_char(&format, '.'); /* so that an empty text and one that does not fit can be told apart */
    time_t now = (time_t)run->now;
    struct tm parts;
    char text[1024];
    size_t length = localtime_r(&now, &parts) ? strftime(text, sizeof text, format.at, &parts) : 0;
    if (!length) return run_fail(run, ERR_INVALID, "strftime_now: the text is too long");
    return v_str((Str){arena_dup(&run->arena, text, length - 1), length - 1});
}

static Value g_lipsum(Run *run, Args args) {
    (void)args;
    return run_fail(run, ERR_UNSUPPORTED, "lipsum() is not supported");
}

const FunctionDef *global_named(Str name) {
    static const FunctionDef functions[] = {
        {"range", g_range},   {"dict", g_dict},     {"namespace", g_namespace},
        {"cycler", g_cycler}, {"joiner", g_joiner}, {"raise_exception", g_raise_exception},
        {"lipsum", g_lipsum}, {"strftime_now", g_strftime_now},
    };
    for (size_t i = 0; i < COUNT_OF(functions); i++)
        if (str_eq(name, functions[i].name)) return &functions[i];
    return NULL;
}

static Value call_joiner(Joiner *joiner) {
    bool used = joiner->used;
    joiner->used = true;
    return used ? joiner->separator : v_str(STR(""));
}

Value run_call(Run *run, Value callee, Args args) {
    if (!run_step(run, 0)) return v_undefined();
    switch (callee.kind) {
    case K_FUNCTION: return callee.function->call(run, args);
    case K_METHOD: return call_method(run, callee.method->def, callee.method->self, args);
    case K_MACRO: return macro_call(run, callee.macro, args);
    case K_JOINER: return call_joiner(callee.joiner);
    case K_UNDEFINED: return run_fail_undefined(run, callee);
    case K_LOOP:
        if (args.count == 1 && !args.named) return loop_again(run, callee.loop, args.given[0]);
        return run_fail(run, ERR_INVALID, "loop() takes one argument");
    default: return run_fail(run, ERR_INVALID, "'%s' object is not callable", kind_name(callee));
    }
}
