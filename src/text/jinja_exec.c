// SPDX-License-Identifier: Apache-2.0
/* Statements: what a template does, and the functions and loops it makes. */
#include "jinja_run.h"

#include <stdio.h>

/* What the caller of the template gave, or a global function; looked up once. */
static Value context_value(Run *run, uint32_t name) {
    Value *known = &run->context[name];
    if (known->kind != K_MISSING || known->sub) return *known;
    Str text = run->template->names[name];
    const json_t *given = json_object_getn(run->vars, text.at, text.length);
    const FunctionDef *function = given ? NULL : global_named(text);
    if (given) {
        *known = value_of_json(run, given);
    } else if (function) {
        *known = (Value){.kind = K_FUNCTION, .function = function};
    } else {
        known->sub = 1; /* known to be missing */
    }
    return *known;
}

static void enter_scope(Run *run, const Scope *scope) {
    Value *slots = run->frame->slots;
    for (size_t i = 0; i < scope->count; i++) {
        const Load *load = &scope->loads[i];
        const Frame *frame = run->frame;
        switch (load->how) {
        case LOAD_CONTEXT: slots[load->slot] = context_value(run, load->name); break;
        case LOAD_NOTHING: slots[load->slot] = (Value){.kind = K_MISSING}; break;
        case LOAD_OUTER:
            for (uint32_t hops = load->outer.hops; hops > 0; hops--) frame = frame->parent;
            slots[load->slot] = frame->slots[load->outer.slot];
            break;
        default: break; /* given */
        }
    }
}

/* A macro that was made in the scope and outlives it finds nothing there any more. */
static void leave_scope(Run *run, const Scope *scope) {
    for (size_t i = 0; i < scope->count; i++)
        run->frame->slots[scope->loads[i].slot] = (Value){.kind = K_MISSING};
}

static Frame *frame_new(Run *run, const Code *code, Frame *parent) {
    Frame *frame = run_new(run, sizeof *frame + (code->slots + 1) * sizeof *frame->slots);
    frame->parent = parent;
    return frame;
}

/* An empty text to print to.  It may grow to what the one around it has left: so all that are
 * under way stay within one limit. */
static Buf inner_text(const Run *run) {
    size_t left = run->out->limit - run->out->length;
    return (Buf){.limit = left ? left : 1};
}

/* What the statements print, as a value; *ok: they came to their end. */
static Value capture(Run *run, const Node *body, bool *ok) {
    Buf text = inner_text(run), *outer = run->out;
    run->out = &text;
    *ok = run_body(run, body);
    run->out = outer;
    return run_take(run, &text);
}

static bool enter_call(Run *run) {
    if (run->calls < LIMIT_TEMPLATE_DEPTH) {
        run->calls++;
        return true;
    }
    run_fail(run, ERR_TOO_LARGE, "macros call each other more than %d deep", LIMIT_TEMPLATE_DEPTH);
    return false;
}

/* --- assignment --- */

static void unpack(Run *run, const Node *target, Value value);

static void assign(Run *run, const Node *target, Value value) {
    if (target->kind == N_TUPLE) {
        unpack(run, target, value);
        return;
    }
    Frame *frame = run->frame;
    for (uint32_t hops = target->ref.hops; hops > 0; hops--) frame = frame->parent;
    Value *slot = &frame->slots[target->ref.slot];
    if (target->kind == N_NAME) {
        *slot = value;
    } else if (slot->kind == K_NAMESPACE) {
        dict_set(run, slot->dict, v_str(target->attr), value);
    } else {
        run_fail(run, ERR_INVALID, "cannot assign attribute on non-namespace object");
    }
}

static void unpack(Run *run, const Node *target, Value value) {
    size_t wanted = 0, got = 0;
    for (const Node *item = target->a; item; item = item->next) wanted++;
    if (value.kind != K_UNDEFINED && !is_iterable(value)) {
        run_fail(run, ERR_INVALID, "cannot unpack non-iterable %s object", kind_name(value));
        return;
    }
    Iter *iter = iter_of(run, value);
    List *items = list_new(run, wanted);
    Value item;
    while (iter && got <= wanted && iter_next(run, iter, &item)) {
        list_add(run, items, item);
        got++;
    }
    if (!run_ok(run)) return;
    if (got > wanted) {
        run_fail(run, ERR_INVALID, "too many values to unpack (expected %zu)", wanted);
    } else if (got < wanted) {
        run_fail(run, ERR_INVALID, "not enough values to unpack (expected %zu, got %zu)", wanted,
                 got);
    } else {
        got = 0;
        for (const Node *part = target->a; part; part = part->next)
            assign(run, part, items->items[got++]);
    }
}

/* --- loops --- */

bool loop_advance(Run *run, LoopState *loop, Value *item) {
    if (loop->after.kind != K_MISSING) {
        *item = loop->after;
        loop->after.kind = K_MISSING;
    } else if (!iter_next(run, loop->iter, item)) {
        return false;
    }
    loop->index0++;
    loop->before = loop->current;
    loop->current = *item;
    return true;
}

static Value peek(Run *run, LoopState *loop) {
    Value item;
    if (loop->after.kind == K_MISSING && iter_next(run, loop->iter, &item)) loop->after = item;
    return loop->after;
}

static int64_t loop_length(Run *run, LoopState *loop) {
    bool has_one;
    if (loop->length >= 0) return loop->length;
    loop->length = v_length(run, loop->iterable, &has_one);
    if (!has_one) { /* a generator: what it still has is taken out and counted */
        List *rest = list_of(run, v_iter(loop->iter));
        loop->iter = iter_of(run, v_list(rest));
        loop->length = (int64_t)rest->count + loop->index0 + 1 + (loop->after.kind != K_MISSING);
    }
    return loop->length;
}

Value loop_attr(Run *run, LoopState *loop, Str name) {
    if (str_eq(name, "index")) return v_int(loop->index0 + 1);
    if (str_eq(name, "index0")) return v_int(loop->index0);
    if (str_eq(name, "first")) return v_bool(loop->index0 == 0);
    if (str_eq(name, "last")) return v_bool(peek(run, loop).kind == K_MISSING);
    if (str_eq(name, "length")) return v_int(loop_length(run, loop));
    if (str_eq(name, "revindex")) return v_int(loop_length(run, loop) - loop->index0);
    if (str_eq(name, "revindex0")) return v_int(loop_length(run, loop) - loop->index0 - 1);
    if (str_eq(name, "depth")) return v_int(loop->depth0 + 1);
    if (str_eq(name, "depth0")) return v_int(loop->depth0);
    if (str_eq(name, "previtem"))
        return loop->index0 == 0 ? undefined_hint("there is no previous item") : loop->before;
    if (str_eq(name, "nextitem")) {
        Value next = peek(run, loop);
        return next.kind == K_MISSING ? undefined_hint("there is no next item") : next;
    }
    return (Value){.kind = K_MISSING};
}

/* for ... if test: the items that pass.  The test has a frame to run in: somebody else's may be
 * running when the next item is asked for. */
typedef struct Tested {
    const Loop *loop;
    Frame *frame;
} Tested;

static bool next_tested(Run *run, Iter *iter, Value *item) {
    const Tested *tested = iter->state;
    Frame *outer = run->frame;
    bool found = false;
    run->frame = tested->frame;
    while (!found && iter_next(run, iter->inner, item)) {
        assign(run, tested->loop->test_target, *item);
        found = run_ok(run) && v_true(run, eval(run, tested->loop->test));
    }
    run->frame = outer;
    return found && run_ok(run);
}

static Value with_test(Run *run, const Loop *loop, Value iterable) {
    Iter *inner = iter_of(run, iterable);
    if (!inner) return v_undefined();
    enter_scope(run, loop->test_scope);
    Tested *tested = run_new(run, sizeof *tested);
    *tested = (Tested){.loop = loop, .frame = run->frame};
    Iter *iter = iter_new(run, next_tested, iterable);
    iter->inner = inner;
    iter->state = tested;
    return v_iter(iter);
}

static bool run_loop(Run *run, const Loop *loop, Value iterable, LoopState state) {
    bool finished = false; /* an iteration came to its end: as jinja2, `else` asks for just that */
    if (loop->test) iterable = with_test(run, loop, iterable);
    LoopState *kept = run_new(run, sizeof *kept);
    *kept = state;
    kept->iterable = iterable;
    kept->iter = iter_of(run, iterable);
    kept->index0 = kept->length = -1;
    Value item;
    while (kept->iter && loop_advance(run, kept, &item)) {
        assign(run, loop->target, item);
        if (loop->has_loop)
            run->frame->slots[loop->loop_ref.slot] = (Value){.kind = K_LOOP, .loop = kept};
        enter_scope(run, loop->scope);
        bool stop = false;
        if (run_ok(run) && run_body(run, loop->body)) {
            finished = true;
        } else {
            stop = run->breaks || !run_ok(run);
            run->breaks = run->continues = false;
        }
        if (stop) break;
    }
    leave_scope(run, loop->scope);
    if (finished || !loop->otherwise || !run_ok(run)) return run_ok(run);
    enter_scope(run, loop->else_scope);
    bool ok = run_body(run, loop->otherwise);
    leave_scope(run, loop->else_scope);
    return ok;
}

/* A recursive loop is a function of what it loops over. */
static Value loop_render(Run *run, const Loop *loop, Frame *around, Value iterable,
                         int64_t depth0) {
    if (!enter_call(run)) return v_undefined();
    Frame *outer_frame = run->frame;
    Buf text = inner_text(run), *outer = run->out;
    run->frame = frame_new(run, loop->code, around);
    run->out = &text;
    run_loop(run, loop, iterable,
             (LoopState){.recursive = loop, .frame = around, .depth0 = depth0});
    run->out = outer;
    run->frame = outer_frame;
    run->calls--;
    return run_take(run, &text);
}

Value loop_again(Run *run, LoopState *loop, Value iterable) {
    if (!loop->recursive)
        return run_fail(run, ERR_INVALID,
                        "The loop must have the 'recursive' marker to be called recursively.");
    return loop_render(run, loop->recursive, loop->frame, iterable, loop->depth0 + 1);
}

static bool exec_for(Run *run, const Loop *loop) {
    Value iterable = eval(run, loop->iter);
    if (!run_ok(run)) return false;
    if (!loop->recursive) return run_loop(run, loop, iterable, (LoopState){0});
    append_str(run, run->out, loop_render(run, loop, run->frame, iterable, 0));
    return run_ok(run);
}

/* --- macros --- */

static Value not_provided(Run *run, Str name) {
    Buf text = {0};
    buf_printf(&text, "parameter '%.*s' was not provided", (int)name.length, name.at);
    Value hint = run_take(run, &text);
    return (Value){.kind = K_UNDEFINED, .sub = UNDEF_HINT, .text = hint.text};
}

/* Is the argument of that name one for a parameter, or the caller? */
static bool is_taken(const Function *f, size_t given, Str name) {
    size_t at = 0;
    for (const Node *param = f->params; param; param = param->next)
        if (at++ >= given && str_same(param->text, name)) return true;
    return f->takes_caller && str_eq(name, "caller");
}

/* The arguments that no parameter takes. */
static void store_rest(Run *run, const Function *f, Args args, Frame *frame) {
    Dict *kwargs = f->takes_kwargs ? dict_new(run) : NULL;
    Str name = f->name.length ? f->name : STR("caller");
    for (size_t i = 0; args.named && i < args.named->count && run_ok(run); i++) {
        Value key = args.named->keys[i];
        if (is_taken(f, args.count, key.text)) continue;
        if (kwargs) {
            dict_set(run, kwargs, key, args.named->values[i]);
        } else {
            run_fail(run, ERR_INVALID, "macro '%.*s' takes no keyword argument '%.*s'",
                     (int)name.length, name.at, (int)key.text.length, key.text.at);
        }
    }
    if (kwargs) frame->slots[f->kwargs.slot] = v_dict(kwargs);
    if (f->takes_varargs) {
        List *varargs = list_new(run, 0);
        for (size_t i = f->param_count; i < args.count; i++) list_add(run, varargs, args.given[i]);
        frame->slots[f->varargs.slot] = v_tuple(varargs);
    } else if (args.count > f->param_count) {
        run_fail(run, ERR_INVALID, "macro '%.*s' takes not more than %zu argument(s)",
                 (int)name.length, name.at, f->param_count);
    }
}

static void store_args(Run *run, const Function *f, Args args, Frame *frame) {
    size_t at = 0;
    for (const Node *param = f->params; param; param = param->next, at++) {
        const Value *named = NULL;
        if (at >= args.count && args.named) named = dict_get(run, args.named, v_str(param->text));
        if (at < args.count) frame->slots[param->ref.slot] = args.given[at];
        if (named) frame->slots[param->ref.slot] = *named;
    }
    if (f->takes_caller) {
        const Value *caller = args.named ? dict_find(run, args.named, "caller") : NULL;
        frame->slots[f->caller.slot] =
            caller && caller->kind != K_NONE ? *caller : undefined_hint("No caller defined");
    }
    store_rest(run, f, args, frame);
}

Value macro_call(Run *run, const Macro *macro, Args args) {
    const Function *f = macro->function;
    bool ok;
    if (!enter_call(run)) return v_undefined();
    Frame *frame = frame_new(run, f->code, macro->frame), *outer = run->frame;
    store_args(run, f, args, frame);
    run->frame = frame;
    enter_scope(run, f->scope);
    for (const Node *param = f->params; param && run_ok(run); param = param->next) {
        Value *slot = &frame->slots[param->ref.slot];
        if (slot->kind == K_MISSING)
            *slot = param->a ? eval(run, param->a) : not_provided(run, param->text);
    }
    Value text = run_ok(run) ? capture(run, f->body, &ok) : v_undefined();
    run->frame = outer;
    run->calls--;
    return text;
}

static Value macro_new(Run *run, const Function *function) {
    Macro *macro = run_new(run, sizeof *macro);
    *macro = (Macro){.function = function, .frame = run->frame};
    return (Value){.kind = K_MACRO, .macro = macro};
}

/* --- the other statements; each returns false if what follows is not to be run --- */

static bool print(Run *run, Value value) {
    if (run_ok(run)) append_str(run, run->out, value);
    return run_ok(run);
}

static bool exec_if(Run *run, const Node *node) {
    if (v_true(run, eval(run, node->a))) return run_body(run, node->b);
    for (const Node *branch = node->c; branch && run_ok(run); branch = branch->next)
        if (v_true(run, eval(run, branch->a))) return run_body(run, branch->b);
    return run_ok(run) && run_body(run, node->d);
}

static bool exec_set(Run *run, const Node *node) {
    Value value = eval(run, node->b);
    if (run_ok(run)) assign(run, node->a, value);
    return run_ok(run);
}

static bool exec_set_block(Run *run, const Node *node) {
    bool ok;
    enter_scope(run, node->scope);
    Value text = capture(run, node->c, &ok);
    if (ok && node->b) text = eval_filter(run, node->b, &text);
    leave_scope(run, node->scope);
    if (ok && run_ok(run)) assign(run, node->a, text);
    return ok && run_ok(run);
}

static bool exec_filter_block(Run *run, const Node *node) {
    bool ok;
    enter_scope(run, node->scope);
    Value text = capture(run, node->b, &ok);
    ok = ok && print(run, eval_filter(run, node->a, &text));
    leave_scope(run, node->scope);
    return ok;
}

static bool exec_with(Run *run, const Node *node) {
    enter_scope(run, node->scope);
    const Node *value = node->b;
    for (const Node *target = node->a; target && run_ok(run); target = target->next) {
        run->frame->slots[target->ref.slot] = eval(run, value);
        value = value->next;
    }
    bool ok = run_ok(run) && run_body(run, node->c);
    leave_scope(run, node->scope);
    return ok;
}

static bool exec_node(Run *run, const Node *node) {
    switch (node->kind) {
    case N_DATA:
        buf_append(run->out, node->text.at, node->text.length);
        if (run->out->overflow) run_fail(run, ERR_TOO_LARGE, OUTPUT_TOO_LONG);
        return run_ok(run);
    case N_PRINT: return print(run, eval(run, node->a));
    case N_IF: return exec_if(run, node);
    case N_FOR: return exec_for(run, node->loop);
    case N_SET: return exec_set(run, node);
    case N_SET_BLOCK: return exec_set_block(run, node);
    case N_MACRO:
        run->frame->slots[node->ref.slot] = macro_new(run, node->function);
        return true;
    case N_CALL_BLOCK: {
        Value caller = macro_new(run, node->function);
        return print(run, eval_call(run, node->a, &caller));
    }
    case N_GENERATION:
        return print(run, macro_call(run, macro_new(run, node->function).macro, (Args){0}));
    case N_FILTER_BLOCK: return exec_filter_block(run, node);
    case N_WITH: return exec_with(run, node);
    case N_BREAK: run->breaks = true; return false;
    case N_CONTINUE: run->continues = true; return false;
    default: return run_ok(run); /* expressions are eval()'s */
    }
}

bool run_body(Run *run, const Node *body) {
    for (const Node *node = body; node; node = node->next) {
        if (!run_step(run, 0)) return false;
        run->line = node->line;
        if (!run_enter(run)) return false;
        bool goes_on = exec_node(run, node);
        run->deep--;
        if (!goes_on) return false;
    }
    return true;
}

bool run_template(Run *run) {
    run->frame = frame_new(run, &run->template->code, NULL);
    enter_scope(run, run->template->scope);
    return run_body(run, run->template->body);
}
