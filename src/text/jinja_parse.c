// SPDX-License-Identifier: Apache-2.0
#include "jinja_parser.h"

static Node *parse_body(Parser *p, const char *const *ends);

/* The rest of a tag, then statements up to one of the tags in `ends`, whose name is at hand then.
 */
static Node *parse_block(Parser *p, const char *const *ends) {
    skip_kind(p, T_COLON); /* as Python writes it */
    expect_kind(p, T_BLOCK_END, "'%}'");
    return parse_body(p, ends);
}

static Node *parse_for(Parser *p, uint32_t line) {
    static const char *const ends[] = {"else", "endfor", NULL};
    Node *node = node_new(p, N_FOR, line);
    Loop *loop = node->loop = arena_new(&p->template->arena, sizeof *loop);
    Token *target = p->at;
    loop->target = parse_target(p, "in");
    expect_name(p, "in");
    loop->iter = parse_tuple(p, false, "recursive");
    if (skip_name(p, "if")) {
        loop->test = parse_expression(p);
        Token *after = p->at;
        p->at =
            p->failed ? p->at : target; /* the target again: the test has variables of its own */
        loop->test_target = parse_target(p, "in");
        p->at = after;
    }
    loop->recursive = skip_name(p, "recursive");
    loop->body = parse_block(p, ends);
    if (skip_name(p, "else")) loop->otherwise = parse_block(p, ends + 1);
    expect_name(p, "endfor");
    /* What is inside counts as deeper, as children do. */
    node->a = loop->body;
    node->b = loop->otherwise;
    node->c = loop->iter;
    node->d = loop->test;
    return node_done(p, node);
}

static Node *parse_if(Parser *p, uint32_t line) {
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    Node *node = node_new(p, N_IF, line);
    NodeList branches = {0};
    node->a = parse_tuple(p, false, NULL);
    node->b = parse_block(p, ends);
    while (at_name(p, "elif")) {
        Node *branch = node_new(p, N_IF, p->at->line);
        p->at++;
        branch->a = parse_tuple(p, false, NULL);
        branch->b = parse_block(p, ends);
        list_append(&branches, node_done(p, branch));
    }
    node->c = branches.first;
    if (skip_name(p, "else")) node->d = parse_block(p, ends + 2);
    expect_name(p, "endif");
    return node_done(p, node);
}

static Node *parse_set(Parser *p, uint32_t line) {
    static const char *const ends[] = {"endset", NULL};
    Node *target;
    if (p->at->kind == T_NAME && p->at[1].kind == T_DOT) {
        target = node_name(p, *p->at);
        target->kind = N_NSREF;
        p->at += 2;
        target->attr = expect_kind(p, T_NAME, "a name").text;
    } else {
        target = parse_target(p, NULL);
    }
    if (skip_kind(p, T_ASSIGN)) {
        Node *node = node_new(p, N_SET, line);
        node->a = target;
        node->b = parse_tuple(p, true, NULL);
        return node_done(p, node);
    }
    Node *node = node_new(p, N_SET_BLOCK, line);
    node->a = target;
    node->b = parse_filters(p, NULL, false);
    node->c = parse_block(p, ends);
    expect_name(p, "endset");
    return node_done(p, node);
}

/* ( a, b=default ) */
static void parse_params(Parser *p, Function *function) {
    NodeList params = {0};
    bool has_default = false;
    expect_kind(p, T_LPAREN, "'('");
    while (p->at->kind != T_RPAREN && p->at->kind != T_END) {
        if (params.first) expect_kind(p, T_COMMA, "','");
        Node *param = node_name(p, expect_kind(p, T_NAME, "the name of a parameter"));
        if (skip_kind(p, T_ASSIGN)) {
            param->a = parse_expression(p);
            has_default = true;
        } else if (has_default) {
            parse_fail(p, ERR_INVALID, param->line, "a parameter without default follows one with");
        }
        function->param_count++;
        list_append(&params, node_done(p, param));
    }
    expect_kind(p, T_RPAREN, "')'");
    function->params = params.first;
}

static Node *function_node(Parser *p, NodeKind kind, uint32_t line) {
    Node *node = node_new(p, kind, line);
    node->function = arena_new(&p->template->arena, sizeof *node->function);
    return node;
}

static Node *parse_macro(Parser *p, uint32_t line) {
    static const char *const ends[] = {"endmacro", NULL};
    Node *node = function_node(p, N_MACRO, line);
    node->text = node->function->name = expect_kind(p, T_NAME, "the macro's name").text;
    node->name = jinja_name(p->template, node->text);
    parse_params(p, node->function);
    node->b = node->function->body = parse_block(p, ends);
    expect_name(p, "endmacro");
    return node_done(p, node);
}

static Node *parse_call_block(Parser *p, uint32_t line) {
    static const char *const ends[] = {"endcall", NULL};
    Node *node = function_node(p, N_CALL_BLOCK, line);
    if (p->at->kind == T_LPAREN) parse_params(p, node->function);
    node->a = parse_expression(p);
    if (node->a->kind != N_CALL) parse_fail(p, ERR_INVALID, line, "a call block wants a call");
    node->b = node->function->body = parse_block(p, ends);
    expect_name(p, "endcall");
    return node_done(p, node);
}

static Node *parse_generation(Parser *p, uint32_t line) {
    static const char *const ends[] = {"endgeneration", NULL};
    Node *node = function_node(p, N_GENERATION, line);
    node->b = node->function->body = parse_block(p, ends);
    expect_name(p, "endgeneration");
    return node_done(p, node);
}

static Node *parse_filter_block(Parser *p, uint32_t line) {
    static const char *const ends[] = {"endfilter", NULL};
    Node *node = node_new(p, N_FILTER_BLOCK, line);
    node->a = parse_filters(p, NULL, true);
    node->b = parse_block(p, ends);
    expect_name(p, "endfilter");
    return node_done(p, node);
}

static Node *parse_with(Parser *p, uint32_t line) {
    static const char *const ends[] = {"endwith", NULL};
    Node *node = node_new(p, N_WITH, line);
    NodeList targets = {0}, values = {0};
    while (p->at->kind != T_BLOCK_END && p->at->kind != T_END) {
        if (targets.first) expect_kind(p, T_COMMA, "','");
        list_append(&targets, node_name(p, expect_kind(p, T_NAME, "a name")));
        expect_kind(p, T_ASSIGN, "'='");
        list_append(&values, parse_expression(p));
    }
    node->a = targets.first;
    node->b = values.first;
    node->c = parse_block(p, ends);
    expect_name(p, "endwith");
    return node_done(p, node);
}

static Node *print_of(Parser *p, Node *value) {
    Node *print = node_new(p, N_PRINT, value->line);
    print->a = value;
    return node_done(p, print);
}

/* {% print a, b %}: the first, with the others behind it */
static Node *parse_print(Parser *p, uint32_t line) {
    NodeList values = {0};
    while (p->at->kind != T_BLOCK_END && p->at->kind != T_END) {
        if (values.first) expect_kind(p, T_COMMA, "','");
        list_append(&values, print_of(p, parse_expression(p)));
    }
    return values.first ? values.first : node_new(p, N_DATA, line);
}

static Node *parse_break(Parser *p, uint32_t line) { return node_new(p, N_BREAK, line); }
static Node *parse_continue(Parser *p, uint32_t line) { return node_new(p, N_CONTINUE, line); }

/* What needs other templates, or a page in HTML. */
static Node *parse_unsupported(Parser *p, uint32_t line) {
    Str name = p->at[-1].text;
    return parse_fail(p, ERR_UNSUPPORTED, line, "tag '%.*s' is not supported in chat templates",
                      (int)name.length, name.at);
}

static Node *parse_statement(Parser *p) {
    static const struct {
        const char *name;
        Node *(*parse)(Parser *, uint32_t line);
    } statements[] = {
        {"for", parse_for},           {"if", parse_if},
        {"set", parse_set},           {"macro", parse_macro},
        {"call", parse_call_block},   {"generation", parse_generation},
        {"filter", parse_filter_block}, {"with", parse_with},
        {"print", parse_print},       {"break", parse_break},
        {"continue", parse_continue}, {"block", parse_unsupported},
        {"extends", parse_unsupported}, {"include", parse_unsupported},
        {"import", parse_unsupported}, {"from", parse_unsupported},
        {"autoescape", parse_unsupported},
    };
    Token tag = expect_kind(p, T_NAME, "the name of a tag");
    for (size_t i = 0; i < COUNT_OF(statements); i++)
        if (str_eq(tag.text, statements[i].name)) return statements[i].parse(p, tag.line);
    return parse_fail(p, ERR_INVALID, tag.line, "unknown tag '%.*s'",
                      (int)(tag.text.length > 60 ? 60 : tag.text.length), tag.text.at);
}

static bool at_one_of(const Parser *p, const char *const *ends) {
    for (; *ends; ends++)
        if (at_name(p, *ends)) return true;
    return false;
}

static void append_statement(NodeList *body, Node *statement) {
    list_append(body, statement);
    while (body->last->next) body->last = body->last->next; /* print makes several */
}

static Node *parse_body(Parser *p, const char *const *ends) {
    NodeList body = {0};
    uint32_t line = p->at->line;
    if (!parse_enter(p)) {
        parse_leave(p);
        return NULL;
    }
    while (p->at->kind != T_END) {
        Token token = *p->at++;
        if (token.kind == T_DATA) {
            Node *data = node_new(p, N_DATA, token.line);
            data->text = token.text;
            append_statement(&body, data);
        } else if (token.kind == T_PRINT_BEGIN) {
            append_statement(&body, print_of(p, parse_tuple(p, true, NULL)));
            expect_kind(p, T_PRINT_END, "'}}'");
        } else if (ends && at_one_of(p, ends)) {
            parse_leave(p);
            return body.first;
        } else {
            append_statement(&body, parse_statement(p));
            expect_kind(p, T_BLOCK_END, "'%}'");
        }
    }
    while (ends && ends[1]) ends++;
    if (ends) parse_fail(p, ERR_INVALID, line, "the block that starts here has no '%s'", *ends);
    parse_leave(p);
    return body.first;
}

bool jinja_parse(Template *template, Token *tokens, Err *err) {
    Parser p = {.template = template, .at = tokens, .err = err};
    template->body = parse_body(&p, NULL);
    return !p.failed;
}
