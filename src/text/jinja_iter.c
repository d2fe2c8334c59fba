// SPDX-License-Identifier: Apache-2.0
#include "jinja_lib.h"

Iter *iter_new(Run *run, bool (*next)(Run *, Iter *, Value *), Value source) {
    Iter *iter = run_new(run, sizeof *iter);
    iter->next = next;
    iter->source = source;
    return iter;
}

bool iter_next(Run *run, Iter *iter, Value *item) {
    return run_step(run, 0) && iter->next(run, iter, item) && run_ok(run);
}

int64_t range_at(const Range *range, int64_t index) { return range->start + index * range->step; }

/* Item `at` of what has numbered items. */
static Value item_at(Run *run, Value v, size_t at) {
    switch (v.kind) {
    case K_RANGE: return v_int(range_at(v.range, (int64_t)at));
    case K_DICT: return v.dict->keys[at];
    case K_VIEW:
        if (v.sub == VIEW_KEYS) return v.dict->keys[at];
        if (v.sub == VIEW_VALUES) return v.dict->values[at];
        return tuple_of2(run, v.dict->keys[at], v.dict->values[at]);
    default: return v.list->items[at];
    }
}

static bool next_item(Run *run, Iter *iter, Value *item) {
    if (iter->at >= iter->end) return false;
    *item = item_at(run, iter->source, iter->at++);
    return true;
}

static bool next_item_from_end(Run *run, Iter *iter, Value *item) {
    if (!iter->end) return false;
    *item = item_at(run, iter->source, --iter->end);
    return true;
}

static Value part_of(Value text, size_t from, size_t to) {
    text.text = (Str){text.text.at + from, to - from};
    text.growable = false;
    return text;
}

static bool next_char(Run *run, Iter *iter, Value *item) {
    (void)run;
    Str text = iter->source.text;
    if (iter->at >= text.length) return false;
    const char *next = text.at + iter->at;
    uint32_t codepoint;
    utf8_next(&next, text.at + text.length, &codepoint);
    size_t to = (size_t)(next - text.at);
    *item = part_of(iter->source, iter->at, to);
    item->markup = false; /* so it is in Python: going through Markup gives plain characters */
    iter->at = to;
    return true;
}

static bool next_char_from_end(Run *run, Iter *iter, Value *item) {
    (void)run;
    Str text = iter->source.text;
    if (!iter->end) return false;
    size_t from = iter->end - 1;
    while (from && (text.at[from] & 0xc0) == 0x80) from--;
    *item = part_of(iter->source, from, iter->end);
    iter->end = from;
    return true;
}

static bool next_none(Run *run, Iter *iter, Value *item) {
    (void)run, (void)iter, (void)item;
    return false;
}

static size_t count_of(Value v) {
    switch (v.kind) {
    case K_RANGE: return (size_t)v.range->count;
    case K_DICT:
    case K_VIEW: return v.dict->count;
    default: return v.list->count;
    }
}

static bool has_numbered_items(Value v) {
    return v.kind == K_LIST || v.kind == K_TUPLE || v.kind == K_DICT || v.kind == K_VIEW ||
           v.kind == K_RANGE;
}

bool is_iterable(Value v) {
    return has_numbered_items(v) || v.kind == K_STR || v.kind == K_ITER || v.kind == K_UNDEFINED;
}

Iter *iter_of(Run *run, Value v) {
    if (v.kind == K_ITER) return v.iter; /* what was taken from it is gone for the next one */
    if (v.kind == K_STR) return iter_new(run, next_char, v);
    if (v.kind == K_UNDEFINED) return iter_new(run, next_none, v);
    if (!has_numbered_items(v)) {
        run_fail(run, ERR_INVALID, "'%s' object is not iterable", kind_name(v));
        return NULL;
    }
    Iter *iter = iter_new(run, next_item, v);
    iter->end = count_of(v);
    return iter;
}

Iter *iter_reversed(Run *run, Value v, bool *possible) {
    *possible = v.kind == K_STR || v.kind == K_UNDEFINED || has_numbered_items(v);
    if (!*possible) return NULL;
    if (v.kind == K_UNDEFINED) return iter_new(run, next_none, v);
    Iter *iter = iter_new(run, v.kind == K_STR ? next_char_from_end : next_item_from_end, v);
    iter->end = v.kind == K_STR ? v.text.length : count_of(v);
    return iter;
}
