// SPDX-License-Identifier: Apache-2.0
#include "jinja_parser.h"

#include <stdio.h>

Node *parse_fail(Parser *p, ErrCode code, uint32_t line, const char *format, ...) {
    if (!p->failed) {
        char text[256];
        va_list args;
        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        jinja_error(p->err, code, line, "%s", text);
    }
    p->failed = true;
    while (p->at->kind != T_END) p->at++;
    return node_new(p, N_CONST, line);
}

bool parse_enter(Parser *p) {
    if (++p->level <= LIMIT_TEMPLATE_DEPTH) return true;
    parse_fail(p, ERR_TOO_LARGE, p->at->line, "nested more than %d deep", LIMIT_TEMPLATE_DEPTH);
    return false;
}

void parse_leave(Parser *p) { p->level--; }

bool at_name(const Parser *p, const char *name) {
    return p->at->kind == T_NAME && str_eq(p->at->text, name);
}

static Token take(Parser *p) {
    Token token = *p->at;
    if (p->at->kind != T_END) p->at++;
    return token;
}

bool skip_name(Parser *p, const char *name) {
    if (!at_name(p, name)) return false;
    p->at++;
    return true;
}

bool skip_kind(Parser *p, TokenKind kind) {
    if (p->at->kind != kind) return false;
    p->at++;
    return true;
}

static void fail_expected(Parser *p, const char *what) {
    Str found = p->at->kind == T_END ? STR("the template's end") : p->at->text;
    parse_fail(p, ERR_INVALID, p->at->line, "expected %s, got '%.*s'", what,
               (int)(found.length > 60 ? 60 : found.length), found.at);
}

Token expect_kind(Parser *p, TokenKind kind, const char *what) {
    if (p->at->kind == kind) return take(p);
    fail_expected(p, what);
    return (Token){.kind = (uint8_t)kind, .line = p->at->line, .text = STR("?")};
}

void expect_name(Parser *p, const char *name) {
    char quoted[32];
    snprintf(quoted, sizeof quoted, "'%s'", name);
    if (!skip_name(p, name)) fail_expected(p, quoted);
}

Node *node_new(Parser *p, NodeKind kind, uint32_t line) {
    Node *node = arena_new(&p->template->arena, sizeof *node);
    node->kind = (uint8_t)kind;
    node->line = line;
    node->depth = 1;
    return node;
}

static unsigned deepest(const Node *list) {
    unsigned depth = 0;
    for (; list; list = list->next)
        if (list->depth > depth) depth = list->depth;
    return depth;
}

Node *node_done(Parser *p, Node *node) {
    Node *const children[] = {node->a, node->b, node->c, node->d};
    for (size_t i = 0; i < COUNT_OF(children); i++) {
        unsigned depth = 1 + deepest(children[i]);
        if (depth > node->depth) node->depth = (uint16_t)depth;
    }
    if (node->depth > LIMIT_TEMPLATE_DEPTH)
        return parse_fail(p, ERR_TOO_LARGE, node->line, "nested more than %d deep",
                          LIMIT_TEMPLATE_DEPTH);
    return node;
}

Node *node_name(Parser *p, Token token) {
    Node *node = node_new(p, N_NAME, token.line);
    node->text = token.text;
    node->name = jinja_name(p->template, token.text);
    return node;
}

void list_append(NodeList *list, Node *node) {
    if (list->last) {
        list->last->next = node;
    } else {
        list->first = node;
    }
    list->last = node;
}

static Node *parse_list(Parser *p) {
    Node *node = node_new(p, N_LIST, take(p).line);
    NodeList items = {0};
    while (p->at->kind != T_RBRACKET && p->at->kind != T_END) {
        if (items.first) expect_kind(p, T_COMMA, "','");
        if (p->at->kind == T_RBRACKET) break;
        list_append(&items, parse_expression(p));
    }
    expect_kind(p, T_RBRACKET, "']'");
    node->a = items.first;
    return node_done(p, node);
}

static Node *parse_dict(Parser *p) {
    Node *node = node_new(p, N_DICT, take(p).line);
    NodeList items = {0};
    while (p->at->kind != T_RBRACE && p->at->kind != T_END) {
        if (items.first) expect_kind(p, T_COMMA, "','");
        if (p->at->kind == T_RBRACE) break;
        list_append(&items, parse_expression(p));
        expect_kind(p, T_COLON, "':'");
        list_append(&items, parse_expression(p));
    }
    expect_kind(p, T_RBRACE, "'}'");
    node->a = items.first;
    return node_done(p, node);
}

static Node *const_of(Parser *p, uint32_t line, Value value) {
    Node *node = node_new(p, N_CONST, line);
    node->value = value;
    return node;
}

/* Strings side by side are one. */
static Node *parse_literal(Parser *p) {
    Token first = take(p);
    if (first.value.kind != K_STR || p->at->kind != T_CONST || p->at->value.kind != K_STR)
        return const_of(p, first.line, first.value);
    auto_buf Buf all = {0};
    buf_append(&all, first.value.text.at, first.value.text.length);
    while (p->at->kind == T_CONST && p->at->value.kind == K_STR) {
        Str more = take(p).value.text;
        buf_append(&all, more.at, more.length);
    }
    Str text = {arena_dup(&p->template->arena, all.at, all.length), all.length};
    return const_of(p, first.line, v_str(text));
}

static bool one_of(Str text, const char *a, const char *b) {
    return str_eq(text, a) || str_eq(text, b);
}

static Node *parse_primary(Parser *p) {
    Token token = *p->at;
    switch (token.kind) {
    case T_CONST: return parse_literal(p);
    case T_LBRACKET: return parse_list(p);
    case T_LBRACE: return parse_dict(p);
    case T_LPAREN: {
        p->at++;
        Node *inside = p->at->kind == T_RPAREN ? node_new(p, N_TUPLE, token.line)
                                               : parse_tuple(p, true, NULL);
        expect_kind(p, T_RPAREN, "')'");
        return inside;
    }
    case T_NAME:
        p->at++;
        if (one_of(token.text, "true", "True")) return const_of(p, token.line, v_bool(true));
        if (one_of(token.text, "false", "False")) return const_of(p, token.line, v_bool(false));
        if (one_of(token.text, "none", "None")) return const_of(p, token.line, v_none());
        return node_name(p, token);
    default: {
        Token wrong = expect_kind(p, T_CONST, "an expression");
        return const_of(p, wrong.line, v_undefined());
    }
    }
}

/* start:stop:step, each of which may be left out, or an index */
static Node *parse_index(Parser *p, Node *object) {
    NodeList parts = {0};
    uint32_t line = p->at->line;
    for (int i = 0; i < 3; i++) {
        TokenKind kind = p->at->kind;
        bool left_out = kind == T_COLON || kind == T_RBRACKET || kind == T_COMMA;
        if (i == 0 && left_out && kind != T_COLON) left_out = false; /* x[] is an error */
        list_append(&parts, left_out ? const_of(p, line, (Value){.kind = K_MISSING})
                                     : parse_expression(p));
        if (i == 2) break;
        if (skip_kind(p, T_COLON)) continue;
        if (i == 0) return parts.first; /* no slice at all */
        list_append(&parts, const_of(p, line, (Value){.kind = K_MISSING}));
        break;
    }
    Node *slice = node_new(p, N_SLICE, line);
    slice->a = object;
    slice->b = node_new(p, N_TUPLE, line);
    slice->b->a = parts.first;
    node_done(p, slice->b);
    return node_done(p, slice);
}

static Node *parse_subscript(Parser *p, Node *object) {
    Token open = take(p);
    if (open.kind == T_DOT) {
        if (p->at->kind == T_CONST && p->at->value.kind == K_INT) {
            Node *item = node_new(p, N_ITEM, open.line);
            item->a = object;
            item->b = parse_literal(p);
            return node_done(p, item);
        }
        Node *attr = node_new(p, N_ATTR, open.line);
        attr->a = object;
        attr->text = expect_kind(p, T_NAME, "a name or number").text;
        return node_done(p, attr);
    }
    NodeList parts = {0};
    do {
        if (p->at->kind == T_RBRACKET && parts.first) break;
        list_append(&parts, parse_index(p, object));
    } while (skip_kind(p, T_COMMA));
    expect_kind(p, T_RBRACKET, "']'");
    bool several = parts.first != parts.last;
    for (Node *part = parts.first; part; part = part->next) {
        bool is_slice = part->kind == N_SLICE && part->a == object; /* else one within the index */
        if (is_slice && several)
            return parse_fail(p, ERR_UNSUPPORTED, open.line, "a slice among several indices");
        if (is_slice) return part;
    }
    Node *item = node_new(p, N_ITEM, open.line);
    item->a = object;
    item->b = parts.first;
    if (several) {
        item->b = node_new(p, N_TUPLE, open.line);
        item->b->a = parts.first;
        node_done(p, item->b);
    }
    return node_done(p, item);
}

static bool repeats_keyword(const Node *args, const Node *last) {
    for (; args && args != last; args = args->next)
        if (args->text.length && str_same(args->text, last->text)) return true;
    return false;
}

/* ( a, b=c, *d, **e ) as a list of N_ARG */
static Node *parse_args(Parser *p) {
    NodeList args = {0};
    uint32_t line = expect_kind(p, T_LPAREN, "'('").line;
    bool keyword = false, star = false, double_star = false;
    while (p->at->kind != T_RPAREN && p->at->kind != T_END) {
        if (args.first) expect_kind(p, T_COMMA, "','");
        if (p->at->kind == T_RPAREN) break;
        Node *arg = node_new(p, N_ARG, p->at->line);
        bool ok = !double_star;
        if (skip_kind(p, T_MUL)) {
            ok = ok && !star;
            star = true;
            arg->op = T_MUL;
        } else if (skip_kind(p, T_POW)) {
            double_star = true;
            arg->op = T_POW;
        } else if (p->at->kind == T_NAME && p->at[1].kind == T_ASSIGN) {
            arg->text = p->at->text;
            p->at += 2;
            keyword = true;
        } else {
            ok = ok && !keyword && !star;
        }
        if (!ok)
            return parse_fail(p, ERR_INVALID, line, "invalid order of the arguments of a call");
        arg->a = parse_expression(p);
        list_append(&args, node_done(p, arg));
        if (arg->text.length && repeats_keyword(args.first, arg))
            return parse_fail(p, ERR_INVALID, line, "argument '%.*s' is given twice",
                              (int)arg->text.length, arg->text.at);
    }
    expect_kind(p, T_RPAREN, "')'");
    return args.first;
}

static Node *parse_call(Parser *p, Node *callee) {
    Node *call = node_new(p, N_CALL, p->at->line);
    call->a = callee;
    call->b = parse_args(p);
    return node_done(p, call);
}

static Node *parse_postfix(Parser *p, Node *node) {
    for (;;) {
        TokenKind kind = p->at->kind;
        if (kind == T_DOT || kind == T_LBRACKET) {
            node = parse_subscript(p, node);
        } else if (kind == T_LPAREN) {
            node = parse_call(p, node);
        } else {
            return node;
        }
    }
}

/* a name with dots in it, as extensions of Jinja use them */
static Str parse_dotted(Parser *p) {
    Str name = expect_kind(p, T_NAME, "a name").text;
    while (skip_kind(p, T_DOT)) {
        Str more = expect_kind(p, T_NAME, "a name").text;
        name.length = (size_t)(more.at + more.length - name.at);
    }
    return name;
}

Node *parse_filters(Parser *p, Node *operand, bool name_at_hand) {
    while (name_at_hand || skip_kind(p, T_PIPE)) {
        name_at_hand = false;
        Node *filter = node_new(p, N_FILTER, p->at->line);
        filter->a = operand;
        filter->text = parse_dotted(p);
        filter->filter = filter_named(filter->text);
        if (p->at->kind == T_LPAREN) filter->b = parse_args(p);
        operand = node_done(p, filter);
    }
    return operand;
}

/* behind `is`: [not] name, name(args) or name arg */
static Node *parse_test(Parser *p, Node *operand) {
    Node *test = node_new(p, N_TEST, take(p).line);
    bool negated = skip_name(p, "not");
    test->a = operand;
    test->text = parse_dotted(p);
    test->test = test_named(test->text);
    TokenKind kind = p->at->kind;
    bool starts_value = kind == T_NAME || kind == T_CONST || kind == T_LBRACKET || kind == T_LBRACE;
    if (kind == T_LPAREN) {
        test->b = parse_args(p);
    } else if (at_name(p, "is")) {
        parse_fail(p, ERR_INVALID, test->line, "'is' cannot follow 'is'");
    } else if (starts_value && !at_name(p, "else") && !at_name(p, "or") && !at_name(p, "and")) {
        Node *arg = node_new(p, N_ARG, p->at->line);
        arg->a = parse_postfix(p, parse_primary(p));
        test->b = node_done(p, arg);
    }
    node_done(p, test);
    if (!negated) return test;
    Node *not = node_new(p, N_NOT, test->line);
    not->a = test;
    return node_done(p, not);
}

static Node *parse_unary(Parser *p, bool with_filters) {
    Token token = *p->at;
    Node *node;
    bool fits = parse_enter(p);
    if (fits && (token.kind == T_SUB || token.kind == T_ADD)) {
        p->at++;
        node = node_new(p, token.kind == T_SUB ? N_NEG : N_POS, token.line);
        node->a = parse_unary(p, false);
        node_done(p, node);
    } else {
        node = parse_primary(p);
    }
    node = parse_postfix(p, node);
    while (with_filters) {
        if (p->at->kind == T_PIPE) {
            node = parse_filters(p, node, false);
        } else if (at_name(p, "is")) {
            node = parse_test(p, node);
        } else if (p->at->kind == T_LPAREN) {
            node = parse_call(p, node);
        } else {
            break;
        }
    }
    parse_leave(p);
    return node;
}

static Node *parse_operand(Parser *p) { return parse_unary(p, true); }

/* Operands of one rank from left to right: a chain, so that a long one is not deep. */
static Node *parse_chain(Parser *p, Node *(*operand)(Parser *), NodeKind kind, TokenKind from,
                         TokenKind to) {
    uint32_t line = p->at->line;
    NodeList operands = {0};
    list_append(&operands, operand(p));
    while (p->at->kind >= from && p->at->kind <= to) {
        TokenKind before = take(p).kind;
        Node *next = operand(p);
        next->before = (uint8_t)before;
        list_append(&operands, next);
    }
    if (operands.first == operands.last) return operands.first;
    Node *chain = node_new(p, kind, line);
    chain->a = operands.first;
    return node_done(p, chain);
}

static Node *parse_pow(Parser *p) { return parse_chain(p, parse_operand, N_CHAIN, T_POW, T_POW); }
static Node *parse_product(Parser *p) { return parse_chain(p, parse_pow, N_CHAIN, T_MUL, T_MOD); }
static Node *parse_concat(Parser *p) {
    return parse_chain(p, parse_product, N_CONCAT, T_TILDE, T_TILDE);
}
static Node *parse_sum(Parser *p) { return parse_chain(p, parse_concat, N_CHAIN, T_ADD, T_SUB); }

static Node *parse_compare(Parser *p) {
    uint32_t line = p->at->line;
    NodeList operands = {0};
    list_append(&operands, parse_sum(p));
    for (;;) {
        TokenKind sign = p->at->kind;
        if (sign >= T_EQ && sign <= T_GE) {
            p->at++;
        } else if (skip_name(p, "in")) {
            sign = T_IN;
        } else if (at_name(p, "not") && p->at[1].kind == T_NAME && str_eq(p->at[1].text, "in")) {
            p->at += 2;
            sign = T_NOT_IN;
        } else {
            break;
        }
        Node *operand = parse_sum(p);
        operand->before = (uint8_t)sign;
        list_append(&operands, operand);
    }
    if (operands.first == operands.last) return operands.first;
    Node *compare = node_new(p, N_COMPARE, line);
    compare->a = operands.first;
    return node_done(p, compare);
}

static Node *parse_not(Parser *p) {
    if (!at_name(p, "not")) return parse_compare(p);
    Node *not = node_new(p, N_NOT, take(p).line);
    not->a = parse_enter(p) ? parse_not(p) : node_new(p, N_CONST, not->line);
    parse_leave(p);
    return node_done(p, not);
}

static Node *parse_words(Parser *p, Node *(*operand)(Parser *), NodeKind kind, const char *word) {
    uint32_t line = p->at->line;
    NodeList operands = {0};
    do list_append(&operands, operand(p));
    while (skip_name(p, word));
    if (operands.first == operands.last) return operands.first;
    Node *node = node_new(p, kind, line);
    node->a = operands.first;
    return node_done(p, node);
}

static Node *parse_and(Parser *p) { return parse_words(p, parse_not, N_AND, "and"); }
static Node *parse_or(Parser *p) { return parse_words(p, parse_and, N_OR, "or"); }

Node *parse_expression(Parser *p) {
    if (!parse_enter(p)) {
        parse_leave(p);
        return node_new(p, N_CONST, p->at->line);
    }
    uint32_t line = p->at->line;
    Node *node = parse_or(p);
    while (skip_name(p, "if")) {
        Node *if_else = node_new(p, N_IF_ELSE, line);
        if_else->b = node;
        if_else->a = parse_or(p);
        if (skip_name(p, "else")) if_else->c = parse_expression(p);
        node = node_done(p, if_else);
        line = p->at->line;
    }
    parse_leave(p);
    return node;
}

static bool ends_tuple(const Parser *p, const char *stop) {
    TokenKind kind = p->at->kind;
    return kind == T_PRINT_END || kind == T_BLOCK_END || kind == T_RPAREN || kind == T_END ||
           (stop && at_name(p, stop));
}

static Node *tuple_of(Parser *p, Node *(*item)(Parser *), const char *stop) {
    uint32_t line = p->at->line;
    NodeList items = {0};
    bool is_tuple = false;
    do {
        if (ends_tuple(p, stop)) break;
        list_append(&items, item(p));
        if (p->at->kind == T_COMMA) is_tuple = true;
    } while (skip_kind(p, T_COMMA));
    if (!is_tuple && items.first) return items.first;
    if (!items.first) expect_kind(p, T_CONST, "an expression");
    Node *tuple = node_new(p, N_TUPLE, line);
    tuple->a = items.first;
    return node_done(p, tuple);
}

Node *parse_tuple(Parser *p, bool with_if_else, const char *stop) {
    return tuple_of(p, with_if_else ? parse_expression : parse_or, stop);
}

static void check_target(Parser *p, const Node *target) {
    if (target->kind == N_TUPLE) {
        for (const Node *item = target->a; item; item = item->next) check_target(p, item);
    } else if (target->kind != N_NAME && !p->failed) {
        parse_fail(p, ERR_INVALID, target->line, "only names can be assigned to");
    }
}

Node *parse_target(Parser *p, const char *stop) {
    Node *target = tuple_of(p, parse_primary, stop);
    check_target(p, target);
    return target;
}
