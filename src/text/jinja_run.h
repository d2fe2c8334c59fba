// SPDX-License-Identifier: Apache-2.0
/* jinja_run.h - what a rendering holds while it runs: variables, macros, loops. */
#ifndef BATON_TEXT_JINJA_RUN_H
#define BATON_TEXT_JINJA_RUN_H

#include "jinja_ast.h"

/* The variables of one call of a function, in the arena: a macro made in it keeps them alive. */
typedef struct Frame {
    struct Frame *parent; /* of the function around it in the template */
    Value slots[];        /* by Ref.slot */
} Frame;

typedef struct Macro {
    const Function *function;
    Frame *frame; /* where it was made */
} Macro;

typedef struct LoopState { /* the variable `loop` */
    const Loop *recursive; /* NULL: the loop is not */
    Frame *frame;          /* around a recursive loop */
    Value iterable;
    Iter *iter;
    int64_t index0; /* of the item at hand, -1 before the first */
    int64_t length; /* -1: nobody asked yet */
    int64_t depth0;
    Value before, current, after; /* K_MISSING: none; after: the item that was looked at early */
    Value changed;                /* arguments of the last loop.changed() */
} LoopState;

bool loop_advance(Run *run, LoopState *loop, Value *item); /* to the next item */
Value loop_attr(Run *run, LoopState *loop, Str name);      /* K_MISSING: it has none of that name */
Value loop_again(Run *run, LoopState *loop, Value iterable); /* renders the body, one level down */

Value eval(Run *run, const Node *node);
Value eval_call(Run *run, const Node *node, const Value *caller); /* caller: of a call block */
Value eval_filter(Run *run, const Node *node, const Value *block); /* block: the text it filters */
Value macro_call(Run *run, const Macro *macro, Args args);
bool run_template(Run *run);
bool run_body(Run *run, const Node *body); /* false: failed, or a break or continue is under way */

#endif
