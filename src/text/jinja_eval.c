// SPDX-License-Identifier: Apache-2.0
/* Expressions: a node becomes a value. */
#include "jinja_run.h"

static Value load(Run *run, const Node *node) {
    const Frame *frame = run->frame;
    for (uint32_t hops = node->ref.hops; hops > 0; hops--) frame = frame->parent;
    Value value = frame->slots[node->ref.slot];
    if (value.kind != K_MISSING) return value;
    return (Value){.kind = K_UNDEFINED, .sub = UNDEF_NAME, .text = node->text};
}

static void add_star(Run *run, List *list, Value from) {
    Iter *iter = iter_of(run, from);
    Value item;
    while (iter && iter_next(run, iter, &item)) list_add(run, list, item);
}

static void add_double_star(Run *run, Dict *named, Value from) {
    if (from.kind == K_UNDEFINED) run_fail_undefined(run, from);
    if (from.kind != K_DICT) {
        run_fail(run, ERR_INVALID, "argument after ** must be a mapping, not %s", kind_name(from));
        return;
    }
    for (size_t i = 0; i < from.dict->count && run_step(run, 0); i++) {
        Value key = from.dict->keys[i];
        if (key.kind != K_STR) run_fail(run, ERR_INVALID, "keywords must be strings");
        if (dict_get(run, named, key))
            run_fail(run, ERR_INVALID, "an argument is given by name and by **");
        dict_set(run, named, key, from.dict->values[i]);
    }
}

static Args eval_args(Run *run, const Node *list) {
    size_t count = 0;
    bool by_name = false;
    for (const Node *arg = list; arg; arg = arg->next) {
        by_name = by_name || arg->text.length || arg->op == T_POW;
        count++;
    }
    if (!count) return (Args){0};
    List *given = list_new(run, count);
    Dict *named = by_name ? dict_new(run) : NULL;
    for (const Node *arg = list; arg && run_ok(run); arg = arg->next) {
        Value value = eval(run, arg->a);
        if (arg->op == T_MUL) {
            add_star(run, given, value);
        } else if (arg->op == T_POW) {
            add_double_star(run, named, value);
        } else if (arg->text.length) {
            dict_set(run, named, v_str(arg->text), value);
        } else {
            list_add(run, given, value);
        }
    }
    return (Args){.given = given->items, .count = given->count, .named = named};
}

Value eval_call(Run *run, const Node *node, const Value *caller) {
    const Node *callee = node->a;
    const MethodDef *method = NULL;
    Value object, function = v_none();
    if (callee->kind == N_ATTR) { /* a method, most of the time: then no object is made of it */
        object = eval(run, callee->a);
        method = object.kind == K_UNDEFINED ? NULL : method_of(object, callee->text);
        if (method && !method->params) method = NULL; /* v_attr() knows why not */
        run->line = callee->line;
        if (!method) function = v_attr(run, object, callee->text);
    } else {
        function = eval(run, callee);
    }
    Args args = eval_args(run, node->b);
    if (caller) {
        if (!args.named) args.named = dict_new(run);
        dict_set(run, args.named, v_str(STR("caller")), *caller);
    }
    run->line = node->line;
    if (!run_ok(run)) return v_undefined();
    return method ? call_method(run, method, object, args) : run_call(run, function, args);
}

static Value fail_no_such(Run *run, const char *what, Str name) {
    return run_fail(run, ERR_INVALID, "there is no %s '%.*s'", what,
                    (int)(name.length > 60 ? 60 : name.length), name.at);
}

/* `block`: the text of the block that the filter stands at, or NULL. */
Value eval_filter(Run *run, const Node *node, const Value *block) {
    Value operand;
    if (!node->a) {
        operand = *block;
    } else {
        operand = block ? eval_filter(run, node->a, block) : eval(run, node->a);
    }
    run->line = node->line;
    if (!node->filter) return fail_no_such(run, "filter", node->text);
    Args args = eval_args(run, node->b);
    run->line = node->line;
    return run_ok(run) ? call_filter(run, node->filter, operand, args) : v_undefined();
}

static Value eval_test(Run *run, const Node *node) {
    Value operand = eval(run, node->a);
    Args args = eval_args(run, node->b);
    run->line = node->line;
    if (!node->test) return fail_no_such(run, "test", node->text);
    return v_bool(run_ok(run) && call_test(run, node->test, operand, args));
}

static List *eval_list(Run *run, const Node *list) {
    size_t count = 0;
    for (const Node *item = list; item; item = item->next) count++;
    List *items = list_new(run, count);
    for (const Node *item = list; item && run_ok(run); item = item->next)
        list_add(run, items, eval(run, item));
    return items;
}

static Value eval_dict(Run *run, const Node *node) {
    Dict *dict = dict_new(run);
    for (const Node *key = node->a; key && run_ok(run); key = key->next->next) {
        Value name = eval(run, key), value = eval(run, key->next);
        dict_set(run, dict, name, value);
    }
    return v_dict(dict);
}

static Value eval_chain(Run *run, const Node *node) {
    Value value = eval(run, node->a);
    for (const Node *next = node->a->next; next && run_ok(run); next = next->next) {
        Value operand = eval(run, next);
        run->line = next->line;
        if (run_ok(run)) value = v_binary(run, next->before, value, operand);
    }
    return value;
}

static Value plain_text(Run *run, Value value) {
    value = v_to_str(run, value);
    value.markup = false;
    return value;
}

static Value eval_concat(Run *run, const Node *node) {
    Value text = plain_text(run, eval(run, node->a));
    for (const Node *next = node->a->next; next && run_ok(run); next = next->next)
        text = v_joined(run, text, plain_text(run, eval(run, next)));
    return text;
}

static Value eval_compare(Run *run, const Node *node) {
    Value left = eval(run, node->a);
    for (const Node *next = node->a->next; next; next = next->next) {
        Value right = eval(run, next);
        run->line = next->line;
        if (!run_ok(run) || !v_compare(run, next->before, left, right)) return v_bool(false);
        left = right;
    }
    return v_bool(true);
}

/* The first operand that decides, or the last one. */
static Value eval_until(Run *run, const Node *node, bool decides) {
    Value value = eval(run, node->a);
    for (const Node *next = node->a->next; next && v_true(run, value) != decides && run_ok(run);
         next = next->next)
        value = eval(run, next);
    return value;
}

static Value eval_if_else(Run *run, const Node *node) {
    if (v_true(run, eval(run, node->a))) return eval(run, node->b);
    if (node->c) return eval(run, node->c);
    return undefined_hint("the inline if-expression evaluated to false and no else section was "
                          "defined.");
}

static Value eval_slice(Run *run, const Node *node) {
    Value object = eval(run, node->a), parts[3];
    const Node *part = node->b->a;
    for (size_t i = 0; i < COUNT_OF(parts); i++, part = part->next) parts[i] = eval(run, part);
    run->line = node->line;
    return run_ok(run) ? v_slice(run, object, parts[0], parts[1], parts[2]) : v_undefined();
}

static Value eval_item(Run *run, const Node *node) {
    Value object = eval(run, node->a), key = eval(run, node->b);
    run->line = node->line;
    return run_ok(run) ? v_item(run, object, key) : v_undefined();
}

static Value eval_attr(Run *run, const Node *node) {
    Value object = eval(run, node->a);
    run->line = node->line;
    return run_ok(run) ? v_attr(run, object, node->text) : v_undefined();
}

static Value eval_node(Run *run, const Node *node) {
    switch (node->kind) {
    case N_CONST: return node->value;
    case N_NAME: return load(run, node);
    case N_ATTR: return eval_attr(run, node);
    case N_ITEM: return eval_item(run, node);
    case N_SLICE: return eval_slice(run, node);
    case N_CALL: return eval_call(run, node, NULL);
    case N_FILTER: return eval_filter(run, node, NULL);
    case N_TEST: return eval_test(run, node);
    case N_CHAIN: return eval_chain(run, node);
    case N_CONCAT: return eval_concat(run, node);
    case N_COMPARE: return eval_compare(run, node);
    case N_AND: return eval_until(run, node, false);
    case N_OR: return eval_until(run, node, true);
    case N_NOT: return v_bool(!v_true(run, eval(run, node->a)));
    case N_NEG: return v_negative(run, eval(run, node->a));
    case N_POS: return v_positive(run, eval(run, node->a));
    case N_IF_ELSE: return eval_if_else(run, node);
    case N_TUPLE: return v_tuple(eval_list(run, node->a));
    case N_LIST: return v_list(eval_list(run, node->a));
    case N_DICT: return eval_dict(run, node);
    default: return v_undefined(); /* statements are run_body()'s */
    }
}

Value eval(Run *run, const Node *node) {
    if (!run_step(run, 0)) return v_undefined();
    run->line = node->line;
    if (!run_enter(run)) return v_undefined();
    Value value = eval_node(run, node);
    run->deep--;
    return value;
}
