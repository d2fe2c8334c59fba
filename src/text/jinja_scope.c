// SPDX-License-Identifier: Apache-2.0
/* Which variable each name means.  jinja2 decides this when it compiles, scope by scope, and chat
 * templates depend on the outcome: `set` in a loop makes a variable of the loop that starts as a
 * copy of the outer one; in one branch of an `if` it makes one that starts with what the caller of
 * the template gave; a macro sees the variables around it as they are when it is called.  So the
 * same is done here: first all statements of one scope are looked through (analyse), then its names
 * get their slots and the scopes within are done (resolve). */
#include "jinja_ast.h"

#include <stdio.h>
#include <stdlib.h>

#define NAMES_MAX 4096

typedef struct Symbol {
    uint32_t name, slot;
    bool known;  /* it has a slot and a load; else only `stored` counts */
    bool stored;
    uint8_t how;
    Ref outer;
} Symbol;

/* The names of one scope, or of one branch within: then `base` is what was known before it. */
typedef struct Symbols {
    struct Symbols *base, *parent;
    Code *code;
    Symbol *list; /* on the heap: most scopes are small and short-lived */
    size_t count, room;
} Symbols;

typedef struct Resolver {
    Template *template;
    Err *err;
    bool failed;
    unsigned loops; /* of this function, around the statement: where break may stand */
    unsigned fors;  /* around the statement in any function */
} Resolver;

uint32_t jinja_name(Template *template, Str text) {
    size_t i = 0;
    while (i < template->name_count && !str_same(template->names[i], text)) i++;
    if (i == template->name_count) {
        mem_reserve(template->names, template->name_room, i + 1);
        template->names[template->name_count++] = text;
    }
    return (uint32_t)i;
}

static void fail(Resolver *r, uint32_t line, const char *what, Str name) {
    if (!r->failed)
        jinja_error(r->err, ERR_INVALID, line, "%s '%.*s'", what,
                    (int)(name.length > 60 ? 60 : name.length), name.at);
    r->failed = true;
}

static Symbol *symbol_here(Symbols *s, uint32_t name) {
    for (size_t i = 0; i < s->count; i++)
        if (s->list[i].name == name) return &s->list[i];
    return NULL;
}

static Symbol *symbol_add(Symbols *s, uint32_t name) {
    Symbol *symbol = symbol_here(s, name);
    if (symbol) return symbol;
    mem_reserve(s->list, s->room, s->count + 1);
    s->list[s->count] = (Symbol){.name = name};
    return &s->list[s->count++];
}

/* In this scope, with what its branches were built on. */
static const Symbol *symbol_known(Symbols *s, uint32_t name) {
    for (; s; s = s->base) {
        const Symbol *symbol = symbol_here(s, name);
        if (symbol && symbol->known) return symbol;
    }
    return NULL;
}

static bool is_stored(Symbols *s, uint32_t name) {
    for (; s; s = s->base) {
        const Symbol *symbol = symbol_here(s, name);
        if (symbol && symbol->stored) return true;
    }
    return false;
}

/* In this scope or further out; hops count the functions between. */
static bool find_ref(Symbols *s, uint32_t name, Ref *ref) {
    *ref = (Ref){0};
    while (s) {
        const Symbol *symbol = symbol_known(s, name);
        if (symbol) {
            ref->slot = symbol->slot;
            return true;
        }
        Symbols *out = s->parent;
        if (out && out->code != s->code) ref->hops++;
        s = out;
    }
    return false;
}

/* A name has one slot in a scope, also where two branches make it known apart from each other. */
static uint32_t slot_of(Symbols *s, uint32_t name) {
    while (s->base) s = s->base;
    Symbol *symbol = symbol_add(s, name);
    if (!symbol->slot) symbol->slot = ++s->code->slots;
    return symbol->slot;
}

static void define(Symbols *s, uint32_t name, LoadHow how, Ref outer) {
    uint32_t slot = slot_of(s, name);
    Symbol *symbol = symbol_add(s, name);
    symbol->slot = slot;
    symbol->known = true;
    symbol->how = (uint8_t)how;
    symbol->outer = outer;
}

/* The scope that `s` or its base stands in, seen from the function of `s`. */
static bool find_outer(Symbols *s, uint32_t name, Ref *outer) {
    if (!s->parent || !find_ref(s->parent, name, outer)) return false;
    if (s->parent->code != s->code) outer->hops++;
    return true;
}

static void note_load(Symbols *s, uint32_t name) {
    Ref ref;
    if (!find_ref(s, name, &ref)) define(s, name, LOAD_CONTEXT, ref);
}

static void note_store(Symbols *s, uint32_t name) {
    symbol_add(s, name)->stored = true;
    if (symbol_known(s, name)) return;
    Ref outer = {0};
    bool has_outer = find_outer(s, name, &outer);
    define(s, name, has_outer ? LOAD_OUTER : LOAD_NOTHING, outer);
}

static Ref note_param(Symbols *s, uint32_t name) {
    define(s, name, LOAD_GIVEN, (Ref){0});
    symbol_add(s, name)->stored = true;
    return (Ref){.slot = slot_of(s, name)};
}

static void note_target(Symbols *s, const Node *target, bool as_param) {
    if (target->kind == N_TUPLE) {
        for (const Node *item = target->a; item; item = item->next) note_target(s, item, as_param);
    } else if (target->kind == N_NSREF) {
        note_load(s, target->name);
    } else if (as_param) {
        note_param(s, target->name);
    } else {
        note_store(s, target->name);
    }
}

/* --- analysis: what one scope's own statements read and set, from top to bottom --- */

static void analyse(Symbols *s, const Node *list);

static void analyse_if(Symbols *s, const Node *node) {
    analyse(s, node->a);
    const Node *bodies[] = {node->b, node->c, node->d};
    Symbols branches[COUNT_OF(bodies)];
    for (size_t i = 0; i < COUNT_OF(bodies); i++) {
        branches[i] = (Symbols){.base = s, .parent = s->parent, .code = s->code};
        analyse(&branches[i], bodies[i]);
    }
    /* A name that not every branch sets starts with the outer variable, or what was given. */
    for (size_t i = 0; i < COUNT_OF(bodies); i++) {
        for (size_t k = 0; k < branches[i].count; k++) {
            const Symbol *found = &branches[i].list[k];
            if (!found->stored || is_stored(s, found->name)) continue;
            size_t setting = 0;
            for (size_t other = 0; other < COUNT_OF(bodies); other++) {
                const Symbol *there = symbol_here(&branches[other], found->name);
                setting += there && there->stored;
            }
            if (setting == COUNT_OF(bodies)) continue;
            Ref outer = {0};
            bool has_outer = find_outer(s, found->name, &outer);
            for (size_t other = 0; other < COUNT_OF(bodies); other++) {
                Symbol *there = symbol_here(&branches[other], found->name);
                if (!there) continue;
                there->known = true;
                there->slot = slot_of(s, found->name);
                there->how = has_outer ? LOAD_OUTER : LOAD_CONTEXT;
                there->outer = outer;
            }
        }
    }
    for (size_t i = 0; i < COUNT_OF(bodies); i++) {
        for (size_t k = 0; k < branches[i].count; k++) {
            const Symbol *from = &branches[i].list[k];
            Symbol *to = symbol_add(s, from->name);
            bool stored = to->stored || from->stored;
            if (from->known) *to = *from;
            to->stored = stored;
        }
        free(branches[i].list);
    }
}

static void analyse(Symbols *s, const Node *list) {
    for (const Node *node = list; node; node = node->next) {
        switch (node->kind) {
        case N_NAME: note_load(s, node->name); break;
        case N_IF: analyse_if(s, node); break;
        case N_SET:
            analyse(s, node->b);
            note_target(s, node->a, false);
            break;
        case N_SET_BLOCK: note_target(s, node->a, false); break;
        case N_MACRO: note_store(s, node->name); break;
        case N_FOR: analyse(s, node->loop->iter); break;
        case N_CALL_BLOCK:
        case N_FILTER_BLOCK: analyse(s, node->a); break;
        case N_WITH: analyse(s, node->b); break;
        case N_GENERATION: break;
        default:
            analyse(s, node->a);
            analyse(s, node->b);
            analyse(s, node->c);
            break;
        }
    }
}

/* --- resolution --- */

static void resolve(Resolver *r, Symbols *s, Node *list, bool soft);

static void resolve_target(Resolver *r, Symbols *s, Node *target) {
    if (target->kind == N_TUPLE) {
        for (Node *item = target->a; item; item = item->next) resolve_target(r, s, item);
        return;
    }
    if (r->fors && target->kind == N_NAME && str_eq(target->text, "loop"))
        fail(r, target->line, "cannot assign to the special variable", target->text);
    find_ref(s, target->name, &target->ref);
}

static Symbols inner(Symbols *s) { return (Symbols){.parent = s, .code = s->code}; }

/* The loads of a scope that is through, in the arena.  The Symbols are given back. */
static Scope *scope_of(Resolver *r, Symbols *s) {
    Scope *scope = arena_new(&r->template->arena, sizeof *scope);
    scope->loads = arena_new(&r->template->arena, s->count * sizeof *scope->loads);
    for (size_t i = 0; i < s->count; i++) {
        const Symbol *symbol = &s->list[i];
        if (!symbol->known) continue;
        scope->loads[scope->count++] = (Load){.how = symbol->how,
                                              .slot = symbol->slot,
                                              .outer = symbol->outer,
                                              .name = symbol->name};
    }
    free(s->list);
    return scope;
}

/* Is the name read anywhere in there, also deep inside? */
static bool reads(const Node *list, const char *name) {
    for (const Node *node = list; node; node = node->next) {
        if (node->kind == N_NAME && str_eq(node->text, name)) return true;
        const Node *parts[] = {node->a, node->b, node->c, node->d};
        bool sets = node->kind == N_SET || node->kind == N_SET_BLOCK || node->kind == N_WITH;
        for (size_t i = sets; i < COUNT_OF(parts); i++)
            if (reads(parts[i], name)) return true;
        if ((node->kind == N_MACRO || node->kind == N_CALL_BLOCK) &&
            reads(node->function->params, name))
            return true;
    }
    return false;
}

static Code *code_new(Resolver *r, Code *parent) {
    Code *code = arena_new(&r->template->arena, sizeof *code);
    code->parent = parent;
    return code;
}

static void resolve_for(Resolver *r, Symbols *s, Loop *loop, bool soft) {
    unsigned loops = r->loops;
    Symbols body = inner(s), otherwise = inner(s), test = inner(s);
    if (loop->recursive) body.code = otherwise.code = test.code = loop->code = code_new(r, s->code);
    loop->has_loop = loop->recursive || reads(loop->body, "loop");
    if (loop->has_loop)
        loop->loop_ref = note_param(&body, jinja_name(r->template, STR("loop")));
    resolve(r, s, loop->iter, soft);
    note_target(&body, loop->target, true);
    analyse(&body, loop->body);
    analyse(&otherwise, loop->otherwise);
    r->fors++;
    resolve_target(r, &body, loop->target);
    if (loop->test) {
        note_target(&test, loop->test_target, true);
        analyse(&test, loop->test);
        resolve_target(r, &test, loop->test_target);
        resolve(r, &test, loop->test, false);
    }
    r->loops = loop->recursive ? 1 : loops + 1;
    resolve(r, &body, loop->body, false);
    r->loops = loop->recursive ? 0 : loops;
    resolve(r, &otherwise, loop->otherwise, false);
    r->loops = loops;
    r->fors--;
    loop->scope = scope_of(r, &body);
    loop->test_scope = scope_of(r, &test);
    loop->else_scope = scope_of(r, &otherwise);
}

static void resolve_function(Resolver *r, Symbols *s, Function *f) {
    Template *t = r->template;
    unsigned loops = r->loops;
    f->code = code_new(r, s->code);
    Symbols body = inner(s);
    body.code = f->code;
    for (Node *param = f->params; param; param = param->next) {
        param->ref = note_param(&body, param->name);
        f->has_caller_param = f->has_caller_param || str_eq(param->text, "caller");
        if (str_eq(param->text, "caller") && !param->a && reads(f->body, "caller"))
            fail(r, param->line, "without a default there cannot be a parameter", param->text);
    }
    f->takes_caller = !f->has_caller_param && reads(f->body, "caller");
    f->takes_kwargs = reads(f->body, "kwargs");
    f->takes_varargs = reads(f->body, "varargs");
    for (const Node *param = f->params; param; param = param->next) {
        if (str_eq(param->text, "kwargs")) f->takes_kwargs = false;
        if (str_eq(param->text, "varargs")) f->takes_varargs = false;
    }
    if (f->takes_caller) f->caller = note_param(&body, jinja_name(t, STR("caller")));
    if (f->takes_kwargs) f->kwargs = note_param(&body, jinja_name(t, STR("kwargs")));
    if (f->takes_varargs) f->varargs = note_param(&body, jinja_name(t, STR("varargs")));
    for (const Node *param = f->params; param; param = param->next) analyse(&body, param->a);
    analyse(&body, f->body);
    r->loops = 0;
    for (Node *param = f->params; param; param = param->next) resolve(r, &body, param->a, false);
    resolve(r, &body, f->body, false);
    r->loops = loops;
    f->scope = scope_of(r, &body);
}

static void resolve_set_block(Resolver *r, Symbols *s, Node *node) {
    Symbols body = inner(s);
    analyse(&body, node->c);
    if (node->b) analyse(&body, node->b);
    resolve(r, &body, node->c, false);
    if (node->b) resolve(r, &body, node->b, false);
    resolve_target(r, s, node->a);
    node->scope = scope_of(r, &body);
}

static void resolve_with(Resolver *r, Symbols *s, Node *node, bool soft) {
    Symbols body = inner(s);
    resolve(r, s, node->b, soft);
    for (Node *target = node->a; target; target = target->next)
        target->ref = note_param(&body, target->name);
    analyse(&body, node->c);
    resolve(r, &body, node->c, false);
    node->scope = scope_of(r, &body);
}

static void resolve_filter_block(Resolver *r, Symbols *s, Node *node) {
    Symbols body = inner(s);
    analyse(&body, node->b);
    analyse(&body, node->a);
    resolve(r, &body, node->b, false);
    resolve(r, &body, node->a, false);
    node->scope = scope_of(r, &body);
}

/* `soft`: in a branch of an if, where a filter that is not there fails only when it is used. */
static void resolve_one(Resolver *r, Symbols *s, Node *node, bool soft) {
    switch (node->kind) {
    case N_NAME: find_ref(s, node->name, &node->ref); return;
    case N_FOR: resolve_for(r, s, node->loop, soft); return;
    case N_SET:
        resolve(r, s, node->b, soft);
        resolve_target(r, s, node->a);
        return;
    case N_SET_BLOCK: resolve_set_block(r, s, node); return;
    case N_CALL_BLOCK: resolve(r, s, node->a, soft); break;
    case N_WITH: resolve_with(r, s, node, soft); return;
    case N_FILTER_BLOCK: resolve_filter_block(r, s, node); return;
    case N_IF:
    case N_IF_ELSE: soft = true; break;
    case N_MACRO: find_ref(s, node->name, &node->ref); break;
    case N_BREAK:
    case N_CONTINUE:
        if (!r->loops)
            fail(r, node->line, "outside of a loop there cannot be a",
                 node->kind == N_BREAK ? STR("break") : STR("continue"));
        return;
    case N_FILTER:
        if (!node->filter && !soft) fail(r, node->line, "there is no filter", node->text);
        break;
    case N_TEST:
        if (!node->test && !soft) fail(r, node->line, "there is no test", node->text);
        break;
    default: break;
    }
    if (node->kind == N_MACRO || node->kind == N_CALL_BLOCK || node->kind == N_GENERATION) {
        resolve_function(r, s, node->function);
        return;
    }
    resolve(r, s, node->a, soft);
    resolve(r, s, node->b, soft);
    resolve(r, s, node->c, soft);
    resolve(r, s, node->d, soft);
}

static void resolve(Resolver *r, Symbols *s, Node *list, bool soft) {
    for (Node *node = list; node && !r->failed; node = node->next) resolve_one(r, s, node, soft);
}

bool jinja_resolve(Template *template, Err *err) {
    Resolver r = {.template = template, .err = err};
    if (template->name_count > NAMES_MAX)
        return jinja_error(err, ERR_TOO_LARGE, 1, "more than %d names of variables", NAMES_MAX);
    Symbols root = {.code = &template->code};
    analyse(&root, template->body);
    resolve(&r, &root, template->body, false);
    template->scope = scope_of(&r, &root);
    return !r.failed;
}
