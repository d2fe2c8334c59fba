// SPDX-License-Identifier: Apache-2.0
/* jinja_parser.h - a walk over the tokens that makes nodes: what statements and expressions share.
 *
 * As in the rest of the engine errors stick: the first one is kept, the walk stands at T_END from
 * then on, and every loop ends there.  Nodes are never NULL. */
#ifndef BATON_TEXT_JINJA_PARSER_H
#define BATON_TEXT_JINJA_PARSER_H

#include "jinja_ast.h"

typedef struct Parser {
    Template *template;
    Token *at; /* the token at hand; the last one is T_END */
    Err *err;
    unsigned level; /* calls of itself at the moment */
    bool failed;
} Parser;

typedef struct NodeList { Node *first, *last; } NodeList;

Node *parse_fail(Parser *p, ErrCode code, uint32_t line, const char *format, ...) PRINTF(4, 5);
bool parse_enter(Parser *p); /* false: nested too deeply; parse_leave() all the same */
void parse_leave(Parser *p);

bool at_name(const Parser *p, const char *name);
bool skip_name(Parser *p, const char *name);
bool skip_kind(Parser *p, TokenKind kind);
Token expect_kind(Parser *p, TokenKind kind, const char *what); /* the token, which is skipped */
void expect_name(Parser *p, const char *name);

Node *node_new(Parser *p, NodeKind kind, uint32_t line);
Node *node_done(Parser *p, Node *node); /* once its children are in: checks how deep they are */
Node *node_name(Parser *p, Token token);
void list_append(NodeList *list, Node *node);

/* The ways in which Jinja reads an expression: with a "x if y else z", as a tuple without
 * parentheses, as a target of an assignment.  `stop`: a name that ends a tuple, or NULL. */
Node *parse_expression(Parser *p);
Node *parse_tuple(Parser *p, bool with_if_else, const char *stop);
Node *parse_target(Parser *p, const char *stop);
Node *parse_filters(Parser *p, Node *operand, bool name_at_hand); /* | a | b(c) ... */

#endif
