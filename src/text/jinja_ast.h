// SPDX-License-Identifier: Apache-2.0
/* jinja_ast.h - a chat template between its text and its rendering.
 *
 *     text --jinja_lex()--> tokens --jinja_parse()--> nodes --jinja_resolve()--> nodes with slots
 *
 * Everything lives in the Template's arena and is read-only once template_parse() is through. */
#ifndef BATON_TEXT_JINJA_AST_H
#define BATON_TEXT_JINJA_AST_H

#include "internal.h"
#include "jinja_lib.h"

typedef enum TokenKind {
    T_END, T_DATA, T_PRINT_BEGIN, T_PRINT_END, T_BLOCK_BEGIN, T_BLOCK_END, T_NAME, T_CONST,
    T_ADD, T_SUB, T_MUL, T_DIV, T_FLOORDIV, T_MOD, T_POW, T_TILDE,
    T_EQ, T_NE, T_LT, T_LE, T_GT, T_GE, T_IN, T_NOT_IN, /* the last two are made by the parser */
    T_LPAREN, T_RPAREN, T_LBRACKET, T_RBRACKET, T_LBRACE, T_RBRACE,
    T_DOT, T_COMMA, T_COLON, T_SEMICOLON, T_PIPE, T_ASSIGN,
} TokenKind;

typedef struct Token {
    uint8_t kind;
    uint32_t line;
    Str text;    /* as written; T_DATA: what is to be printed */
    Value value; /* T_CONST */
} Token;

/* A variable of a function body: `hops` frames out from the one that runs, then `slot`. */
typedef struct Ref { uint32_t hops, slot; } Ref; /* slots count from 1 */

/* What a variable holds when its scope is entered. */
typedef enum LoadHow {
    LOAD_NOTHING, /* set in the scope before it is read */
    LOAD_GIVEN,   /* a parameter or loop variable: whoever enters the scope stores it */
    LOAD_CONTEXT, /* the render variable or global function of that name */
    LOAD_OUTER,   /* a copy of the variable of the same name further out */
} LoadHow;

typedef struct Load {
    uint8_t how;
    uint32_t slot, name;
    Ref outer;
} Load;

typedef struct Scope { Load *loads; size_t count; } Scope;

/* The variables of all scopes that run in one frame: of the template, a macro, a call block's body
 * or a recursive loop. */
typedef struct Code { struct Code *parent; uint32_t slots; } Code;

typedef enum NodeKind {
    /* expressions: which fields count */
    N_CONST,   /* value */
    N_NAME,    /* text, name, ref */
    N_NSREF,   /* text, name, ref: a namespace; attr: target of set alone */
    N_TUPLE, N_LIST, N_DICT,       /* a: items; of a dict key, value, key, value */
    N_NEG, N_POS, N_NOT,           /* a */
    N_CHAIN,   /* a: operands from left to right, each with the operator before it */
    N_CONCAT,  /* a: operands */
    N_COMPARE, /* a: operands, as in a chain */
    N_AND, N_OR,                   /* a: operands */
    N_IF_ELSE, /* a: test, b: then, c: else or NULL */
    N_ATTR,    /* a: object, text */
    N_ITEM,    /* a: object, b: index */
    N_SLICE,   /* a: object, b: N_TUPLE of start, stop, step (N_CONST missing where left out) */
    N_CALL,    /* a: callee, b: arguments */
    N_ARG,     /* a: value; text: its keyword; op: T_MUL for *a, T_POW for **a */
    N_FILTER,  /* a: operand or NULL in a filter block, b: arguments, text, filter */
    N_TEST,    /* a: operand, b: arguments, text, test */
    /* statements */
    N_DATA,    /* text */
    N_PRINT,   /* a */
    N_FOR,     /* loop */
    N_IF,      /* a: test, b: body, c: N_IF of each elif, d: else body */
    N_SET,     /* a: target, b: value */
    N_SET_BLOCK, /* a: target, b: N_FILTER or NULL, c: body, scope */
    N_MACRO,   /* name, ref, function */
    N_CALL_BLOCK, /* a: N_CALL, function */
    N_GENERATION, /* function */
    N_FILTER_BLOCK, /* a: N_FILTER, b: body, scope */
    N_WITH,    /* a: targets, b: values, c: body, scope */
    N_BREAK, N_CONTINUE,
} NodeKind;

typedef struct Node Node;
struct Node {
    uint8_t kind, op;
    uint8_t before; /* TokenKind of the operator before it in its parent's chain */
    uint16_t depth; /* 1 + that of the deepest node below */
    uint32_t line;
    uint32_t name; /* of a variable: index into Template.names */
    Ref ref;
    Node *next; /* in a list */
    Node *a, *b, *c, *d;
    Str text;
    union {
        Value value;
        Str attr;
        const FilterDef *filter; /* NULL: unknown, an error where it is used */
        const TestDef *test;
        struct Loop *loop;
        struct Function *function;
        Scope *scope;
    };
};

typedef struct Loop {
    Node *target, *iter, *test, *test_target, *body, *otherwise;
    bool recursive;
    bool has_loop; /* the body reads `loop` */
    Ref loop_ref;
    Scope *scope, *test_scope, *else_scope;
    Code *code; /* of a recursive loop, else NULL */
} Loop;

typedef struct Function { /* a macro, or the body of a call block */
    Str name;             /* empty: a call block */
    Node *params;         /* N_NAME, with a: its default or NULL */
    size_t param_count;
    Node *body;
    Code *code;
    Scope *scope;
    bool has_caller_param;                              /* among params */
    bool takes_caller, takes_kwargs, takes_varargs;     /* the body reads these names */
    Ref caller, kwargs, varargs;
} Function;

struct Template {
    Arena arena;
    Str source; /* with \n as the only line end, as jinja2 reads it */
    Node *body;
    Scope *scope;
    Code code;
    Str *names; /* of all variables, each once */
    size_t name_count, name_room;
};

Token *jinja_lex(Template *template, Err *err) MUST_CHECK; /* ends with T_END */
bool jinja_parse(Template *template, Token *tokens, Err *err) MUST_CHECK;
bool jinja_resolve(Template *template, Err *err) MUST_CHECK;
uint32_t jinja_name(Template *template, Str text);
bool jinja_error(Err *err, ErrCode code, uint32_t line, const char *format, ...) PRINTF(4, 5);

#endif
