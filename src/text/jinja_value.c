// SPDX-License-Identifier: Apache-2.0
#include "jinja_lib.h"

#include <math.h>
#include <stdio.h>

#include "jinja_ast.h"

/* Values inside of values: Python gives up at about a thousand. */
#define NESTED_MAX 200

Value run_fail(Run *run, ErrCode code, const char *format, ...) {
    if (run_ok(run)) {
        char text[sizeof run->err->message / 2];
        va_list args;
        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        jinja_error(run->err, code, run->line, "%s", text);
    }
    return v_undefined();
}

bool run_out_of_steps(Run *run) {
    run_fail(run, ERR_TOO_LARGE, "the template takes more than %d steps", LIMIT_TEMPLATE_STEPS);
    return false;
}

/* Nodes within nodes, over all macros under way.  All together they take under 1 MiB of a thread's
 * stack, under 4 MiB with ASan. */
#define DEEP_MAX 1500

bool run_enter(Run *run) {
    if (run->deep >= DEEP_MAX) {
        run_fail(run, ERR_TOO_LARGE, "macros, blocks and expressions nest too deeply");
        return false;
    }
    run->deep++;
    return true;
}

bool run_room(Run *run, size_t size) {
    if (size <= LIMIT_TEMPLATE_MEMORY && run->arena.used <= LIMIT_TEMPLATE_MEMORY - size)
        return true;
    run_fail(run, ERR_TOO_LARGE, "the template needs more than %zu MiB of memory",
             LIMIT_TEMPLATE_MEMORY / MIB);
    return false;
}

void *run_new(Run *run, size_t size) {
    if (run->arena.used > LIMIT_TEMPLATE_MEMORY) run_room(run, size); /* small pieces add up, too */
    return arena_new(&run->arena, size);
}

Value run_take(Run *run, Buf *buf) {
    Str text = {"", 0};
    if (buf->overflow) run_fail(run, ERR_TOO_LARGE, OUTPUT_TOO_LONG);
    if (buf->length && run_ok(run) && run_room(run, buf->length))
        text = (Str){arena_dup(&run->arena, buf->at, buf->length), buf->length};
    buf_done(buf);
    return v_str(text);
}

Value undefined_hint(const char *message) {
    return (Value){.kind = K_UNDEFINED, .sub = UNDEF_HINT, .text = str_of(message)};
}

Value undefined_of(Run *run, Value object, Value name) {
    Value v = {.kind = K_UNDEFINED, .sub = UNDEF_ATTR, .of = object.kind};
    if (name.kind == K_STR) {
        v.text = name.text;
        return v;
    }
    Buf repr = {.limit = 200};
    append_repr(run, &repr, name);
    repr.overflow = false;
    v.sub = UNDEF_ELEMENT;
    v.text = run_take(run, &repr).text;
    return v;
}

static const char *const kind_names[] = {
    [K_MISSING] = "missing",   [K_UNDEFINED] = "Undefined", [K_NONE] = "NoneType",
    [K_BOOL] = "bool",         [K_INT] = "int",             [K_FLOAT] = "float",
    [K_STR] = "str",           [K_LIST] = "list",           [K_TUPLE] = "tuple",
    [K_DICT] = "dict",         [K_RANGE] = "range",         [K_VIEW] = "dict view",
    [K_ITER] = "generator",    [K_NAMESPACE] = "Namespace", [K_CYCLER] = "Cycler",
    [K_JOINER] = "Joiner",     [K_LOOP] = "LoopContext",    [K_MACRO] = "Macro",
    [K_FUNCTION] = "function", [K_METHOD] = "method",
};

const char *kind_name(Value value) { return kind_names[value.kind]; }

Value run_fail_undefined(Run *run, Value v) {
    int length = (int)(v.text.length > 200 ? 200 : v.text.length);
    const char *text = v.text.at, *of = kind_names[v.of];
    switch (v.sub) {
    case UNDEF_NAME: return run_fail(run, ERR_INVALID, "'%.*s' is undefined", length, text);
    case UNDEF_HINT: return run_fail(run, ERR_INVALID, "%.*s", length, text);
    case UNDEF_UNSAFE:
        return run_fail(run, ERR_INVALID, "access to attribute '%.*s' of '%s' object is unsafe",
                        length, text, of);
    case UNDEF_ELEMENT:
        if (v.of == K_NONE)
            return run_fail(run, ERR_INVALID, "None has no element %.*s", length, text);
        return run_fail(run, ERR_INVALID, "%s object has no element %.*s", of, length, text);
    default:
        if (v.of == K_NONE)
            return run_fail(run, ERR_INVALID, "'None' has no attribute '%.*s'", length, text);
        return run_fail(run, ERR_INVALID, "'%s object' has no attribute '%.*s'", of, length, text);
    }
}

bool is_str(Value value, const char *text) {
    return value.kind == K_STR && str_eq(value.text, text);
}

bool is_int(Value value, int64_t *number) {
    if (value.kind != K_INT && value.kind != K_BOOL) return false;
    *number = value.kind == K_BOOL ? value.yes : value.number;
    return true;
}

bool is_number(Value value, double *number) {
    int64_t whole;
    if (value.kind == K_FLOAT) {
        *number = value.real;
        return true;
    }
    if (!is_int(value, &whole)) return false;
    *number = (double)whole;
    return true;
}

/* --- lists and dicts --- */

/* A new array of `room` items that starts with the old ones. */
static Value *grown(Run *run, const Value *old, size_t count, size_t room) {
    if (!run_room(run, room * sizeof *old)) return NULL;
    Value *items = run_new(run, room * sizeof *items);
    if (count) memcpy(items, old, count * sizeof *items);
    return items;
}

List *list_new(Run *run, size_t room) {
    List *list = run_new(run, sizeof *list);
    if (room && (list->items = grown(run, NULL, 0, room))) list->room = room;
    return list;
}

void list_add(Run *run, List *list, Value item) {
    if (list->count == list->room) {
        size_t room = list->room ? list->room * 2 : 8;
        Value *items = grown(run, list->items, list->count, room);
        if (!items) return;
        list->items = items;
        list->room = room;
    }
    list->items[list->count++] = item;
}

List *list_of(Run *run, Value iterable) {
    List *list = list_new(run, 0);
    Iter *iter = iter_of(run, iterable);
    Value item;
    while (iter && iter_next(run, iter, &item)) list_add(run, list, item);
    return list;
}

Value tuple_of2(Run *run, Value a, Value b) {
    List *list = list_new(run, 2);
    list_add(run, list, a);
    list_add(run, list, b);
    return v_tuple(list);
}

/* Equal values have equal hashes: 1, 1.0 and True, and a string and the same as Markup. */
static bool hash_of(Run *run, Value v, uint64_t *hash) {
    double number;
    if (v.kind == K_STR) {
        *hash = hash64(v.text.at, v.text.length, 0);
        return true;
    }
    if (is_number(v, &number)) {
        number += 0.0; /* -0.0 becomes 0.0 */
        *hash = hash64(&number, sizeof number, 1);
        return true;
    }
    if (v.kind == K_TUPLE) {
        *hash = v.list->count;
        for (size_t i = 0; i < v.list->count; i++) {
            uint64_t item;
            if (run->nested >= NESTED_MAX) {
                run_fail(run, ERR_TOO_LARGE, "values nest too deeply");
                return false;
            }
            run->nested++;
            bool ok = hash_of(run, v.list->items[i], &item);
            run->nested--;
            if (!ok) return false;
            *hash = hash64(&item, sizeof item, *hash);
        }
        return true;
    }
    if (v.kind == K_LIST || v.kind == K_DICT || v.kind == K_VIEW) {
        run_fail(run, ERR_INVALID, "unhashable type: '%s'", kind_name(v));
        return false;
    }
    *hash = v.kind; /* None, undefined; the others are rarely keys */
    return true;
}

#define SMALL_DICT 8

static size_t dict_position(Run *run, const Dict *dict, Value key, uint64_t hash) {
    if (!dict->index) {
        for (size_t i = 0; i < dict->count; i++)
            if (v_equal(run, dict->keys[i], key)) return i + 1;
        return 0;
    }
    for (size_t at = hash % dict->index_size;; at = (at + 1) % dict->index_size) {
        uint32_t position = dict->index[at];
        if (!position || v_equal(run, dict->keys[position - 1], key)) return position;
        if (!run_step(run, 0)) return 0;
    }
}

static void index_add(Dict *dict, uint64_t hash, size_t position) {
    size_t at = hash % dict->index_size;
    while (dict->index[at]) at = (at + 1) % dict->index_size;
    dict->index[at] = (uint32_t)position;
}

/* Room for one more, with an index at most half full. */
static bool dict_grow(Run *run, Dict *dict) {
    if (dict->count < dict->room) return true;
    size_t room = dict->room ? dict->room * 2 : SMALL_DICT;
    if (!run_room(run, room * (2 * sizeof(Value) + 2 * sizeof(uint32_t)))) return false;
    Value *keys = grown(run, dict->keys, dict->count, room);
    Value *values = grown(run, dict->values, dict->count, room);
    if (!keys || !values) return false;
    dict->keys = keys;
    dict->values = values;
    dict->room = room;
    if (room <= SMALL_DICT) return true;
    dict->index_size = room * 2;
    dict->index = run_new(run, dict->index_size * sizeof *dict->index);
    for (size_t i = 0; i < dict->count; i++) {
        uint64_t hash = 0;
        hash_of(run, keys[i], &hash);
        index_add(dict, hash, i + 1);
    }
    return true;
}

Dict *dict_new(Run *run) { return run_new(run, sizeof(Dict)); }

static void dict_append(Run *run, Dict *dict, Value key, Value value, uint64_t hash) {
    if (!dict_grow(run, dict)) return;
    dict->keys[dict->count] = key;
    dict->values[dict->count++] = value;
    if (dict->index) index_add(dict, hash, dict->count);
}

bool dict_set(Run *run, Dict *dict, Value key, Value value) {
    uint64_t hash;
    if (!hash_of(run, key, &hash)) return false;
    size_t position = dict_position(run, dict, key, hash);
    if (position) {
        dict->values[position - 1] = value;
    } else {
        dict_append(run, dict, key, value, hash);
    }
    return run_ok(run);
}

Value *dict_get(Run *run, const Dict *dict, Value key) {
    uint64_t hash;
    if (!hash_of(run, key, &hash)) return NULL;
    size_t position = dict_position(run, dict, key, hash);
    return position ? &dict->values[position - 1] : NULL;
}

Value *dict_find(Run *run, const Dict *dict, const char *key) {
    return dict_get(run, dict, v_str(str_of(key)));
}

static Value dict_of_json(Run *run, const json_t *tree) {
    json_t *object = (json_t *)(uintptr_t)tree; /* jansson's iterators do not know const */
    Dict *dict = dict_new(run);
    for (void *at = json_object_iter(object); at; at = json_object_iter_next(object, at)) {
        Value key = v_str((Str){json_object_iter_key(at), json_object_iter_key_len(at)});
        uint64_t hash = dict->room > SMALL_DICT || dict->count == SMALL_DICT
                            ? hash64(key.text.at, key.text.length, 0)
                            : 0; /* not looked at in a small dict */
        dict_append(run, dict, key, value_of_json(run, json_object_iter_value(at)), hash);
    }
    return v_dict(dict);
}

Value value_of_json(Run *run, const json_t *tree) {
    if (run->nested >= NESTED_MAX) return run_fail(run, ERR_TOO_LARGE, "values nest too deeply");
    run->nested++;
    Value value = v_none();
    switch (json_typeof(tree)) {
    case JSON_OBJECT: value = dict_of_json(run, tree); break;
    case JSON_ARRAY: {
        List *list = list_new(run, json_array_size(tree));
        for (size_t i = 0; i < json_array_size(tree) && run_ok(run); i++)
            list_add(run, list, value_of_json(run, json_array_get(tree, i)));
        value = v_list(list);
        break;
    }
    case JSON_STRING:
        value = v_str((Str){json_string_value(tree), json_string_length(tree)});
        break;
    case JSON_INTEGER: value = v_int(json_integer_value(tree)); break;
    case JSON_REAL: value = v_real(json_real_value(tree)); break;
    case JSON_TRUE:
    case JSON_FALSE: value = v_bool(json_is_true(tree)); break;
    case JSON_NULL: break;
    }
    run->nested--;
    return value;
}

/* --- truth, equality, order --- */

int64_t v_length(Run *run, Value v, bool *has_one) {
    *has_one = true;
    switch (v.kind) {
    case K_UNDEFINED: return 0;
    case K_STR: run_step(run, v.text.length); return (int64_t)str_count_chars(v.text);
    case K_LIST:
    case K_TUPLE: return (int64_t)v.list->count;
    case K_DICT:
    case K_VIEW: return (int64_t)v.dict->count;
    case K_RANGE: return v.range->count;
    default: *has_one = false; return 0;
    }
}

bool v_true(Run *run, Value v) {
    switch (v.kind) {
    case K_MISSING:
    case K_UNDEFINED:
    case K_NONE: return false;
    case K_BOOL: return v.yes;
    case K_INT: return v.number != 0;
    case K_FLOAT: return v.real != 0;
    case K_STR: return v.text.length != 0;
    case K_LOOP: return v_true(run, v_attr(run, v, STR("length")));
    default: {
        bool has_length;
        int64_t length = v_length(run, v, &has_length);
        return !has_length || length != 0;
    }
    }
}

bool v_same(Value a, Value b) {
    if (a.kind != b.kind) return false;
    switch (a.kind) {
    case K_NONE:
    case K_MISSING: return true;
    case K_BOOL: return a.yes == b.yes;
    case K_INT: return a.number == b.number;
    case K_FLOAT: return a.real == b.real;
    case K_UNDEFINED:
    case K_STR: return a.text.at == b.text.at && a.text.length == b.text.length;
    default: return a.list == b.list; /* any of the pointers */
    }
}

static bool lists_equal(Run *run, const List *a, const List *b) {
    if (a->count != b->count) return false;
    for (size_t i = 0; i < a->count; i++)
        if (!run_step(run, 0) || !v_equal(run, a->items[i], b->items[i])) return false;
    return true;
}

static bool dicts_equal(Run *run, const Dict *a, const Dict *b) {
    if (a->count != b->count) return false;
    for (size_t i = 0; i < a->count; i++) {
        const Value *other = dict_get(run, b, a->keys[i]);
        if (!run_step(run, 0) || !other || !v_equal(run, a->values[i], *other)) return false;
    }
    return true;
}

static bool ranges_equal(const Range *a, const Range *b) {
    return a->count == b->count && (!a->count || a->start == b->start) &&
           (a->count < 2 || a->step == b->step);
}

/* long double holds every int64_t and every double */
static int compare_numbers(Value a, Value b) {
    int64_t i = 0, j = 0;
    long double x = is_int(a, &i) ? (long double)i : (long double)a.real;
    long double y = is_int(b, &j) ? (long double)j : (long double)b.real;
    return x < y ? -1 : x > y ? 1 : x == y ? 0 : UNORDERED;
}

bool v_equal(Run *run, Value a, Value b) {
    double ignored;
    if (a.kind == K_STR && b.kind == K_STR) return str_same(a.text, b.text);
    if (is_number(a, &ignored) && is_number(b, &ignored)) return compare_numbers(a, b) == 0;
    if (a.kind != b.kind) return false;
    if (a.kind == K_NONE || a.kind == K_UNDEFINED) return true;
    if (a.kind == K_RANGE) return ranges_equal(a.range, b.range);
    bool has_items = a.kind == K_LIST || a.kind == K_TUPLE || a.kind == K_DICT;
    if (!has_items) return v_same(a, b);
    if (run->nested >= NESTED_MAX) {
        run_fail(run, ERR_TOO_LARGE, "values nest too deeply");
        return false;
    }
    run->nested++;
    bool equal = a.kind == K_DICT ? dicts_equal(run, a.dict, b.dict)
                                  : lists_equal(run, a.list, b.list);
    run->nested--;
    return equal;
}

static int compare_strings(Str a, Str b) { /* UTF-8 orders as its code points do */
    size_t shorter = a.length < b.length ? a.length : b.length;
    int order = shorter ? memcmp(a.at, b.at, shorter) : 0;
    if (order) return order < 0 ? -1 : 1;
    return a.length < b.length ? -1 : a.length > b.length;
}

static int compare_lists(Run *run, const List *a, const List *b, const char *sign) {
    size_t i = 0;
    while (i < a->count && i < b->count && run_step(run, 0) &&
           v_equal(run, a->items[i], b->items[i]))
        i++;
    if (!run_ok(run)) return UNORDERED;
    if (i == a->count || i == b->count)
        return a->count < b->count ? -1 : a->count > b->count;
    return v_order(run, a->items[i], b->items[i], sign);
}

int v_order(Run *run, Value a, Value b, const char *sign) {
    double ignored;
    if (a.kind == K_STR && b.kind == K_STR) {
        run_step(run, a.text.length);
        return compare_strings(a.text, b.text);
    }
    if (is_number(a, &ignored) && is_number(b, &ignored)) return compare_numbers(a, b);
    if (a.kind == K_UNDEFINED || b.kind == K_UNDEFINED) {
        run_fail_undefined(run, a.kind == K_UNDEFINED ? a : b);
    } else if (a.kind != b.kind || (a.kind != K_LIST && a.kind != K_TUPLE)) {
        run_fail(run, ERR_INVALID, "'%s' not supported between instances of '%s' and '%s'", sign,
                 kind_name(a), kind_name(b));
    } else if (run->nested >= NESTED_MAX) {
        run_fail(run, ERR_TOO_LARGE, "values nest too deeply");
    } else {
        run->nested++;
        int order = compare_lists(run, a.list, b.list, sign);
        run->nested--;
        return order;
    }
    return UNORDERED;
}

static bool range_contains(const Range *range, Value item) {
    double real;
    int64_t number;
    if (!is_int(item, &number)) {
        if (!is_number(item, &real) || real != trunc(real) || fabs(real) > 1e18) return false;
        number = (int64_t)real;
    }
    int64_t away = number - range->start;
    return range->count && away % range->step == 0 && away / range->step >= 0 &&
           away / range->step < range->count;
}

bool v_contains(Run *run, Value container, Value item) {
    switch (container.kind) {
    case K_STR:
        if (item.kind != K_STR) {
            run_fail(run, ERR_INVALID, "'in <string>' requires string as left operand, not %s",
                     kind_name(item));
            return false;
        }
        run_step(run, container.text.length);
        return !item.text.length || (container.text.length &&
                                     memmem(container.text.at, container.text.length, item.text.at,
                                            item.text.length));
    case K_DICT: return dict_get(run, container.dict, item) != NULL;
    case K_VIEW:
        if (container.sub == VIEW_KEYS) return dict_get(run, container.dict, item) != NULL;
        break;
    case K_RANGE: return range_contains(container.range, item);
    default: break;
    }
    if (!is_iterable(container)) {
        run_fail(run, ERR_INVALID, "argument of type '%s' is not iterable", kind_name(container));
        return false;
    }
    Iter *iter = iter_of(run, container);
    Value each;
    while (iter && iter_next(run, iter, &each))
        if (v_equal(run, each, item)) return true;
    return false;
}
