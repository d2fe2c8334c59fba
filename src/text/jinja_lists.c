// SPDX-License-Identifier: Apache-2.0
/* The filters that look at many values: lists, dicts, whatever can be iterated. */
#include "jinja_lib.h"

static bool given(Value v) { return v.kind != K_MISSING && v.kind != K_NONE; }

/* What a filter compares by: the item, or what `attribute` finds in it; without upper case unless
 * told otherwise. */
typedef struct Key {
    Value path; /* None: the item itself */
    bool case_sensitive;
    Value otherwise; /* for what is undefined, or K_MISSING */
} Key;

static Value key_of(Run *run, Value item, Key key) {
    if (key.path.kind != K_NONE && key.path.kind != K_MISSING) item = v_path(run, item, key.path);
    if (item.kind == K_UNDEFINED && given(key.otherwise)) item = key.otherwise;
    if (item.kind == K_STR && !key.case_sensitive) item = str_cased(run, item, CASE_LOWER);
    return item;
}

/* --- order --- */

typedef struct Sorted { Value key, item; } Sorted;

/* How to sort: `in_lists` as if each key stood in a list, as jinja2's sort has it: then equal keys
 * need no order, so that several None or undefined values can be sorted. */
typedef struct Order { bool reverse, in_lists; } Order;

/* Merges two runs; of equal items the one that stood first stays first, also when reversed. */
static void merge(Run *run, const Sorted *from, Sorted *to, size_t left, size_t middle,
                  size_t right, Order order) {
    for (size_t i = left, j = middle, at = left; at < right; at++) {
        bool take_right = i >= middle;
        if (!take_right && j < right && run_step(run, 0)) {
            Value a = order.reverse ? from[i].key : from[j].key;
            Value b = order.reverse ? from[j].key : from[i].key;
            bool equal = order.in_lists && v_equal(run, a, b);
            take_right = !equal && v_order(run, a, b, "<") == -1;
        }
        to[at] = take_right ? from[j++] : from[i++];
    }
}

static List *sorted(Run *run, const List *list, Value *keys, Order order) {
    size_t count = list->count;
    List *result = list_new(run, count);
    if (!run_room(run, 2 * count * sizeof(Sorted))) return result;
    Sorted *a = run_new(run, count * sizeof *a), *b = run_new(run, count * sizeof *b);
    for (size_t i = 0; i < count; i++) a[i] = (Sorted){keys[i], list->items[i]};
    for (size_t width = 1; width < count && run_ok(run); width *= 2) {
        for (size_t left = 0; left < count; left += 2 * width) {
            size_t middle = left + width < count ? left + width : count;
            size_t right = left + 2 * width < count ? left + 2 * width : count;
            merge(run, a, b, left, middle, right, order);
        }
        Sorted *swap = a;
        a = b;
        b = swap;
    }
    for (size_t i = 0; i < count; i++) list_add(run, result, a[i].item);
    return result;
}

static Value *keys_of(Run *run, const List *list, Key key) {
    if (!run_room(run, list->count * sizeof(Value))) return NULL;
    Value *keys = run_new(run, list->count * sizeof *keys);
    for (size_t i = 0; i < list->count && run_step(run, 0); i++)
        keys[i] = key_of(run, list->items[i], key);
    return keys;
}

/* "a,b" as attribute: by a, then by b */
static Value several_keys(Run *run, Value item, Key key) {
    List *keys = list_new(run, 0);
    Str rest = key.path.text, part;
    while (run_ok(run) && str_cut(&rest, ',', &part)) {
        key.path = v_str(part);
        list_add(run, keys, key_of(run, item, key));
    }
    return v_list(keys);
}

static Value f_sort(Call *c) {
    Key key = {.path = c->args[2], .case_sensitive = v_true(c->run, c->args[1])};
    List *list = list_of(c->run, c->self);
    Value *keys = NULL;
    bool several = key.path.kind == K_STR && memchr(key.path.text.at, ',', key.path.text.length);
    if (several && run_room(c->run, list->count * sizeof *keys)) {
        keys = run_new(c->run, list->count * sizeof *keys);
        for (size_t i = 0; i < list->count && run_step(c->run, 0); i++)
            keys[i] = several_keys(c->run, list->items[i], key);
    } else if (!several) {
        keys = keys_of(c->run, list, key);
    }
    Order order = {.reverse = v_true(c->run, c->args[0]), .in_lists = true};
    return keys && run_ok(c->run) ? v_list(sorted(c->run, list, keys, order)) : v_undefined();
}

static Value f_dictsort(Call *c) {
    if (c->self.kind == K_UNDEFINED) return run_fail_undefined(c->run, c->self);
    if (c->self.kind != K_DICT)
        return run_fail(c->run, ERR_INVALID, "dictsort wants a dict, not %s", kind_name(c->self));
    bool by_value = is_str(c->args[1], "value");
    if (given(c->args[1]) && !by_value && !is_str(c->args[1], "key"))
        return run_fail(c->run, ERR_INVALID, "you can only sort by either \"key\" or \"value\"");
    Value view = {.kind = K_VIEW, .sub = VIEW_ITEMS, .dict = c->self.dict};
    List *items = list_of(c->run, view);
    Key key = {.path = v_int(by_value), .case_sensitive = v_true(c->run, c->args[0])};
    Value *keys = keys_of(c->run, items, key);
    Order order = {.reverse = v_true(c->run, c->args[2])};
    return keys && run_ok(c->run) ? v_list(sorted(c->run, items, keys, order)) : v_undefined();
}

static Value f_groupby(Call *c) {
    Key key = {
        .path = c->args[0], .case_sensitive = v_true(c->run, c->args[2]), .otherwise = c->args[1]};
    List *list = list_of(c->run, c->self), *groups = list_new(c->run, 0);
    Value *keys = keys_of(c->run, list, key), last = {0};
    if (!keys || !run_ok(c->run)) return v_undefined();
    list = sorted(c->run, list, keys, (Order){0});
    key.case_sensitive = true; /* the name of a group is that of its first item */
    Key compare = key;
    compare.case_sensitive = v_true(c->run, c->args[2]);
    for (size_t i = 0; i < list->count && run_step(c->run, 0); i++) {
        Value own = key_of(c->run, list->items[i], compare);
        if (!i || !v_equal(c->run, own, last)) {
            Value group = tuple_of2(c->run, key_of(c->run, list->items[i], key),
                                    v_list(list_new(c->run, 0)));
            group.group = true;
            list_add(c->run, groups, group);
        }
        last = own;
        if (!groups->count) break;
        Value *group = &groups->items[groups->count - 1];
        list_add(c->run, group->list->items[1].list, list->items[i]);
    }
    return v_list(groups);
}

static Value extreme(Run *run, Value self, const Value *args, int wanted) {
    Key key = {.path = args[1], .case_sensitive = v_true(run, args[0])};
    Iter *iter = iter_of(run, self);
    Value best, item, best_key = {0};
    if (!iter || !iter_next(run, iter, &best))
        return undefined_hint("No aggregated item, sequence was empty.");
    best_key = key_of(run, best, key);
    while (iter_next(run, iter, &item)) {
        Value item_key = key_of(run, item, key);
        if (v_order(run, item_key, best_key, wanted < 0 ? "<" : ">") != wanted) continue;
        best = item;
        best_key = item_key;
    }
    return best;
}

static Value f_min(Call *c) { return extreme(c->run, c->self, c->args, -1); }

static Value f_max(Call *c) { return extreme(c->run, c->self, c->args, 1); }

/* --- one of many, or all as one --- */

static Value f_length(Call *c) {
    if (c->self.kind == K_LOOP) return v_attr(c->run, c->self, STR("length"));
    bool has_one;
    int64_t length = v_length(c->run, c->self, &has_one);
    if (has_one) return v_int(length);
    return run_fail(c->run, ERR_INVALID, "object of type '%s' has no len()%s", kind_name(c->self),
                    c->self.kind == K_ITER ? ": put '| list' before it" : "");
}

static Value f_first(Call *c) {
    Iter *iter = iter_of(c->run, c->self);
    Value item;
    return iter && iter_next(c->run, iter, &item)
               ? item
               : undefined_hint("No first item, sequence was empty.");
}

static Value f_last(Call *c) {
    bool possible;
    Iter *iter = iter_reversed(c->run, c->self, &possible);
    Value item;
    if (!possible)
        return run_fail(c->run, ERR_INVALID, "'%s' object is not reversible%s", kind_name(c->self),
                        c->self.kind == K_ITER ? ": put '| list' before it" : "");
    return iter_next(c->run, iter, &item) ? item
                                       : undefined_hint("No last item, sequence was empty.");
}

static Value f_list(Call *c) { return v_list(list_of(c->run, c->self)); }

static Value f_reverse(Call *c) {
    bool possible;
    if (c->self.kind == K_STR)
        return v_slice(c->run, c->self, v_none(), v_none(), v_int(-1));
    Iter *iter = iter_reversed(c->run, c->self, &possible);
    if (possible) return v_iter(iter);
    List *list = list_of(c->run, c->self);
    return v_slice(c->run, v_list(list), v_none(), v_none(), v_int(-1));
}

static Value f_join(Call *c) {
    Buf out = {.limit = LIMIT_TEMPLATE_OUTPUT};
    Value between = c->args[0].kind == K_MISSING ? v_str(STR("")) : v_to_str(c->run, c->args[0]);
    Iter *iter = iter_of(c->run, c->self);
    Value item;
    for (bool first = true; iter && iter_next(c->run, iter, &item); first = false) {
        if (!first) buf_append(&out, between.text.at, between.text.length);
        append_str(c->run, &out, given(c->args[1]) ? v_path(c->run, item, c->args[1]) : item);
    }
    return run_take(c->run, &out);
}

static Value f_sum(Call *c) {
    Value total = c->args[1].kind == K_MISSING ? v_int(0) : c->args[1], item;
    if (total.kind == K_STR)
        return run_fail(c->run, ERR_INVALID, "sum() can't sum strings: use '| join'");
    Iter *iter = iter_of(c->run, c->self);
    while (iter && iter_next(c->run, iter, &item))
        total = v_add(c->run, total, given(c->args[0]) ? v_path(c->run, item, c->args[0]) : item);
    return total;
}

/* --- in portions --- */

static int64_t portion(Run *run, Value v) {
    int64_t count = 0;
    if (v.kind == K_UNDEFINED) run_fail_undefined(run, v);
    if (!is_int(v, &count) || count < 1)
        run_fail(run, ERR_INVALID, "a positive number of portions is wanted");
    return count;
}

static Value f_batch(Call *c) {
    int64_t size = portion(c->run, c->args[0]);
    List *portions = list_new(c->run, 0), *last = NULL;
    Iter *iter = iter_of(c->run, c->self);
    Value item;
    while (iter && iter_next(c->run, iter, &item)) {
        if (!last || (int64_t)last->count == size) {
            last = list_new(c->run, 0);
            list_add(c->run, portions, v_list(last));
        }
        list_add(c->run, last, item);
    }
    while (last && given(c->args[1]) && (int64_t)last->count < size && run_step(c->run, 0))
        list_add(c->run, last, c->args[1]);
    return v_iter(iter_of(c->run, v_list(portions)));
}

static Value f_slice(Call *c) {
    int64_t slices = portion(c->run, c->args[0]);
    List *list = list_of(c->run, c->self), *portions = list_new(c->run, 0);
    if (!run_ok(c->run)) return v_undefined();
    size_t each = list->count / (size_t)slices, longer = list->count % (size_t)slices, at = 0;
    for (size_t i = 0; i < (size_t)slices && run_step(c->run, 0); i++) {
        List *part = list_new(c->run, 0);
        for (size_t k = 0; k < each + (i < longer) && run_step(c->run, 0); k++)
            list_add(c->run, part, list->items[at++]);
        if (given(c->args[1]) && i >= longer) list_add(c->run, part, c->args[1]);
        list_add(c->run, portions, v_list(part));
    }
    return v_iter(iter_of(c->run, v_list(portions)));
}

/* --- generators: nothing is done before somebody asks for an item --- */

typedef struct Each {
    const FilterDef *filter; /* of map */
    const TestDef *test;     /* of select and reject; NULL: is the value true? */
    bool ready, rejects;
    const char *wrong; /* what is wrong with the arguments, if anything */
    Key key; /* path: an attribute to look at */
    Args args;
    Value name;
    Dict *seen; /* of unique */
} Each;

static Value each_of(Run *run, Value source, bool (*next)(Run *, Iter *, Value *), Each **state) {
    *state = run_new(run, sizeof **state);
    Iter *iter = iter_new(run, next, source);
    iter->state = *state;
    return v_iter(iter);
}

/* At the first item: an empty or undefined source needs no filter or test of that name. */
static bool each_start(Run *run, Iter *iter) {
    const Each *each = iter->state;
    if (!iter->inner && v_true(run, iter->source)) iter->inner = iter_of(run, iter->source);
    if (iter->inner && each->wrong) run_fail(run, ERR_INVALID, "%s", each->wrong);
    return iter->inner != NULL && run_ok(run);
}

/* The arguments are looked at later, so they must not lie on somebody's stack. */
static Args keep_args(Run *run, Args args, size_t skip) {
    List *copy = list_new(run, args.count);
    for (size_t i = skip; i < args.count; i++) list_add(run, copy, args.given[i]);
    return (Args){.given = copy->items, .count = copy->count, .named = args.named};
}

static void fail_no_such(Run *run, const char *what, Value name) {
    Value text = v_to_str(run, name);
    run_fail(run, ERR_INVALID, "there is no %s '%.*s'", what,
             (int)(text.text.length > 60 ? 60 : text.text.length), text.text.at);
}

static bool next_mapped(Run *run, Iter *iter, Value *item) {
    Each *each = iter->state;
    if (!each_start(run, iter)) return false;
    if (!each->ready && each->name.kind != K_MISSING) {
        each->filter = each->name.kind == K_STR ? filter_named(each->name.text) : NULL;
        if (!each->filter) fail_no_such(run, "filter", each->name);
    }
    each->ready = true;
    if (!run_ok(run) || !iter_next(run, iter->inner, item)) return false;
    *item = each->filter ? call_filter(run, each->filter, *item, each->args)
                         : key_of(run, *item, each->key);
    return true;
}

static Value f_map(Call *c) {
    Each *each;
    Value made = each_of(c->run, c->self, next_mapped, &each);
    bool by_name = c->all.named && !c->all.count;
    const Value *attribute = by_name ? dict_find(c->run, c->all.named, "attribute") : NULL;
    if (attribute) {
        const Value *otherwise = dict_find(c->run, c->all.named, "default");
        each->key = (Key){.path = *attribute, .case_sensitive = true};
        if (otherwise) each->key.otherwise = *otherwise;
        if (c->all.named->count > 1u + (otherwise != NULL))
            each->wrong = "map got an unexpected argument";
    } else if (c->all.count) {
        each->name = c->all.given[0];
        each->args = keep_args(c->run, c->all, 1);
    } else {
        each->wrong = "map requires a filter argument";
    }
    return made;
}

static bool next_selected(Run *run, Iter *iter, Value *item) {
    Each *each = iter->state;
    if (!each_start(run, iter)) return false;
    if (!each->ready && each->name.kind != K_MISSING) {
        each->test = each->name.kind == K_STR ? test_named(each->name.text) : NULL;
        if (!each->test) fail_no_such(run, "test", each->name);
    }
    each->ready = true;
    while (run_ok(run) && iter_next(run, iter->inner, item)) {
        Value looked_at = key_of(run, *item, each->key);
        bool yes = each->test ? call_test(run, each->test, looked_at, each->args)
                              : v_true(run, looked_at);
        if (yes != each->rejects) return true;
    }
    return false;
}

static Value selected(Run *run, Value self, Args all, bool by_attribute, bool rejects) {
    Each *each;
    Value made = each_of(run, self, next_selected, &each);
    size_t at = by_attribute;
    each->rejects = rejects;
    each->key = (Key){.case_sensitive = true};
    if (by_attribute && all.count) each->key.path = all.given[0];
    if (by_attribute && !all.count) each->wrong = "missing parameter for attribute name";
    if (all.count > at) {
        each->name = all.given[at];
        each->args = keep_args(run, all, at + 1);
    }
    return made;
}

static Value f_select(Call *c) { return selected(c->run, c->self, c->all, false, false); }

static Value f_reject(Call *c) { return selected(c->run, c->self, c->all, false, true); }

static Value f_selectattr(Call *c) { return selected(c->run, c->self, c->all, true, false); }

static Value f_rejectattr(Call *c) { return selected(c->run, c->self, c->all, true, true); }

static bool next_unique(Run *run, Iter *iter, Value *item) {
    Each *each = iter->state;
    if (!iter->inner) iter->inner = iter_of(run, iter->source);
    while (iter->inner && iter_next(run, iter->inner, item)) {
        Value key = key_of(run, *item, each->key);
        if (dict_get(run, each->seen, key)) continue;
        return dict_set(run, each->seen, key, v_none());
    }
    return false;
}

static Value f_unique(Call *c) {
    Each *each;
    Value made = each_of(c->run, c->self, next_unique, &each);
    each->seen = dict_new(c->run);
    each->key = (Key){.path = c->args[1], .case_sensitive = v_true(c->run, c->args[0])};
    return made;
}

static bool next_pair(Run *run, Iter *iter, Value *item) {
    Value source = iter->source;
    if (source.kind == K_DICT)
        source = (Value){.kind = K_VIEW, .sub = VIEW_ITEMS, .dict = source.dict};
    else if (source.kind != K_UNDEFINED)
        run_fail(run, ERR_INVALID, "Can only get item pairs from a mapping.");
    if (!iter->inner && run_ok(run)) iter->inner = iter_of(run, source);
    return iter->inner && iter_next(run, iter->inner, item);
}

static Value f_items(Call *c) {
    Each *each;
    return each_of(c->run, c->self, next_pair, &each);
}

extern const FilterDef list_filters[];
const FilterDef list_filters[] = {
    {"batch", "linecount|fill_with", f_batch},
    {"count", "", f_length},
    {"dictsort", "|case_sensitive by reverse", f_dictsort},
    {"first", "", f_first},
    {"groupby", "attribute|default case_sensitive", f_groupby},
    {"items", "", f_items},
    {"join", "|d attribute", f_join},
    {"last", "", f_last},
    {"length", "", f_length},
    {"list", "", f_list},
    {"map", "*", f_map},
    {"max", "|case_sensitive attribute", f_max},
    {"min", "|case_sensitive attribute", f_min},
    {"reject", "*", f_reject},
    {"rejectattr", "*", f_rejectattr},
    {"reverse", "", f_reverse},
    {"select", "*", f_select},
    {"selectattr", "*", f_selectattr},
    {"slice", "slices|fill_with", f_slice},
    {"sort", "|reverse case_sensitive attribute", f_sort},
    {"sum", "|attribute start", f_sum},
    {"unique", "|case_sensitive attribute", f_unique},
    {0},
};
