// SPDX-License-Identifier: Apache-2.0
#include "jinja_ast.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct Lexer {
    Template *template;
    const char *start, *at, *end;
    uint32_t line;
    Token *tokens; /* grows on the heap, moves to the arena at the end */
    size_t count, room;
    char open[LIMIT_TEMPLATE_DEPTH]; /* brackets to be closed, as their closing signs */
    size_t open_count;
    bool line_starting; /* the last token ended with a line's end */
    Err *err;
} Lexer;

bool jinja_error(Err *err, ErrCode code, uint32_t line, const char *format, ...) {
    char text[sizeof err->message / 2];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return err_set(err, code, "chat template line %u: %s", line, text);
}

static void add(Lexer *l, TokenKind kind, Str text) {
    mem_reserve(l->tokens, l->room, l->count + 1);
    l->tokens[l->count++] = (Token){.kind = (uint8_t)kind, .line = l->line, .text = text};
}

/* Moves on and counts the lines on the way. */
static void skip_to(Lexer *l, const char *to) {
    for (const char *c = l->at; c < to; c++) l->line += *c == '\n';
    if (to > l->at) l->line_starting = to[-1] == '\n';
    l->at = to;
}

static const char *behind_spaces(const Lexer *l, const char *at) {
    while (at < l->end) {
        const char *next = at;
        uint32_t c;
        if (!utf8_next(&next, l->end, &c) || !is_space_char(c)) break;
        at = next;
    }
    return at;
}

static bool here(const Lexer *l, const char *at, const char *text) {
    size_t length = strlen(text);
    return (size_t)(l->end - at) >= length && !memcmp(at, text, length);
}

/* The end of a tag whose closing sign starts at `at`, perhaps with - or + before it: NULL if it
 * does not.  What belongs to it is skipped: all white space after -, one line end after a block. */
static const char *tag_end(const Lexer *l, const char *at, const char *close) {
    bool is_print = close[0] == '}';
    char sign = at < l->end && (*at == '-' || (*at == '+' && !is_print)) ? *at : 0;
    if (!here(l, at + (sign != 0), close)) return NULL;
    at += (sign != 0) + 2;
    if (sign == '-') return behind_spaces(l, at);
    return !sign && !is_print && at < l->end && *at == '\n' ? at + 1 : at;
}

/* Text before a tag, cut as the tag's sign and lstrip_blocks say. */
static void add_data(Lexer *l, const char *to, char sign, bool is_print) {
    Str data = {l->at, (size_t)(to - l->at)};
    if (sign == '-') {
        data = str_strip(data, NULL, false, true);
    } else if (sign != '+' && !is_print) {
        const char *nl = data.length ? memrchr(data.at, '\n', data.length) : NULL;
        const char *line = nl ? nl + 1 : data.at;
        if ((nl || l->line_starting) && behind_spaces(l, line) >= to)
            data.length = (size_t)(line - data.at);
    }
    if (data.length) add(l, T_DATA, data);
}

/* `at` is behind {% or {#: its - or +, if any. */
static char sign_at(const Lexer *l, const char *at) {
    return at < l->end && (*at == '-' || *at == '+') ? *at : 0;
}

static bool lex_comment(Lexer *l) {
    const char *at = l->at + 2 + (sign_at(l, l->at + 2) != 0);
    for (; at < l->end; at++) {
        const char *behind = tag_end(l, at, "#}");
        if (!behind) continue;
        skip_to(l, behind);
        return true;
    }
    return jinja_error(l->err, ERR_INVALID, l->line, "the comment has no end");
}

/* Behind a word with white space around it, or NULL. */
static const char *behind_word(const Lexer *l, const char *at, const char *word) {
    at = behind_spaces(l, at);
    return here(l, at, word) ? behind_spaces(l, at + strlen(word)) : NULL;
}

/* {% raw %} at l->at, if it is one: everything up to {% endraw %} is data. */
static bool lex_raw(Lexer *l, bool *is_raw) {
    const char *at = l->at + 2 + (sign_at(l, l->at + 2) != 0);
    at = behind_word(l, at, "raw");
    *is_raw = at && (here(l, at, "-%}") || here(l, at, "%}"));
    if (!*is_raw) return true;
    uint32_t line = l->line;
    skip_to(l, *at == '-' ? behind_spaces(l, at + 3) : at + 2); /* no trim_blocks here */
    for (const char *c = l->at; c < l->end; c++) {
        if (!here(l, c, "{%")) continue;
        char sign = sign_at(l, c + 2);
        const char *word = behind_word(l, c + 2 + (sign != 0), "endraw");
        const char *behind = word ? tag_end(l, word, "%}") : NULL;
        if (!behind) continue;
        add_data(l, c, sign, false);
        skip_to(l, behind);
        return true;
    }
    return jinja_error(l->err, ERR_INVALID, line, "raw has no endraw");
}

static bool is_digit(char c, int base) {
    int digit = c >= '0' && c <= '9' ? c - '0' : (c | 0x20) >= 'a' && (c | 0x20) <= 'f'
                                                     ? (c | 0x20) - 'a' + 10
                                                     : 99;
    return digit < base;
}

/* Digits, each of which may have one _ before it, also the first if `leading`. */
static const char *behind_digits(const Lexer *l, const char *at, int base, bool leading) {
    bool any = leading;
    for (;;) {
        const char *digit = at + (any && at < l->end && *at == '_');
        if (digit >= l->end || !is_digit(*digit, base)) return at;
        at = digit + 1;
        any = true;
    }
}

static const char *behind_float(const Lexer *l, const char *at) {
    if (at > l->start && at[-1] == '.') return NULL; /* x.1.5 has two subscripts */
    const char *whole = behind_digits(l, at, 10, false), *result = NULL;
    if (whole == at) return NULL;
    at = whole;
    if (at + 1 < l->end && *at == '.' && is_digit(at[1], 10))
        result = at = behind_digits(l, at + 1, 10, false);
    if (at < l->end && (*at | 0x20) == 'e') {
        at += 1 + (at + 1 < l->end && (at[1] == '+' || at[1] == '-'));
        const char *exponent = behind_digits(l, at, 10, false);
        if (exponent > at) result = exponent;
    }
    return result;
}

static const char *behind_integer(const Lexer *l, const char *at, int *base) {
    *base = 10;
    if (*at != '0') return behind_digits(l, at, 10, false);
    char mark = at + 1 < l->end ? at[1] | 0x20 : 0;
    int wanted = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    const char *behind = wanted ? behind_digits(l, at + 2, wanted, true) : at;
    if (wanted && behind > at + 2) {
        *base = wanted;
        return behind;
    }
    for (behind = at + 1; behind < l->end; behind++) { /* 0, 00, 0_0 */
        const char *digit = behind + (*behind == '_');
        if (digit >= l->end || *digit != '0') break;
        behind = digit;
    }
    return behind;
}

static bool lex_number(Lexer *l) {
    int base = 10;
    const char *behind = behind_float(l, l->at), *at = l->at;
    bool is_real = behind != NULL;
    if (!is_real) behind = behind_integer(l, l->at, &base);
    auto_buf Buf digits = {0};
    for (const char *c = base == 10 ? at : at + 2; c < behind; c++)
        if (*c != '_') buf_char(&digits, *c);
    errno = 0;
    Value value = is_real ? v_real(strtod(digits.at, NULL)) : v_int(strtoll(digits.at, NULL, base));
    if (errno == ERANGE && !is_real)
        return jinja_error(l->err, ERR_UNSUPPORTED, l->line, "the integer %.40s has over 64 bits",
                           digits.at);
    add(l, T_CONST, (Str){at, (size_t)(behind - at)});
    l->tokens[l->count - 1].value = value;
    skip_to(l, behind);
    return true;
}

static bool append_codepoint(Lexer *l, Buf *out, const char **at, const char *end, int digits) {
    uint32_t code = 0;
    for (int i = 0; i < digits; i++, ++*at) {
        if (*at >= end || !is_digit(**at, 16))
            return jinja_error(l->err, ERR_INVALID, l->line, "a string has an escape cut short");
        code = code << 4 | (uint32_t)strtoul((char[]){**at, 0}, NULL, 16);
    }
    if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
        return jinja_error(l->err, ERR_INVALID, l->line, "\\%c%0*x is no character",
                           digits == 2 ? 'x' : digits == 4 ? 'u' : 'U', digits, code);
    buf_utf8(out, code);
    return true;
}

/* `at` is behind the backslash. */
static bool lex_escape(Lexer *l, Buf *out, const char **at, const char *end) {
    static const char from[] = "abfnrtv\\'\"", to[] = "\a\b\f\n\r\t\v\\'\"";
    char c = *(*at)++;
    const char *known = c ? strchr(from, c) : NULL;
    if (known) {
        buf_char(out, to[known - from]);
    } else if (c == 'x' || c == 'u' || c == 'U') {
        return append_codepoint(l, out, at, end, c == 'x' ? 2 : c == 'u' ? 4 : 8);
    } else if (is_digit(c, 8)) {
        uint32_t code = (uint32_t)(c - '0');
        for (int i = 0; i < 2 && *at < end && is_digit(**at, 8); i++)
            code = code * 8 + (uint32_t)(*(*at)++ - '0');
        buf_utf8(out, code);
    } else if (c == 'N') {
        return jinja_error(l->err, ERR_UNSUPPORTED, l->line, "\\N{...} is not supported: use \\u");
    } else if ((unsigned char)c >= 0x80) { /* Python escapes the character, then eats our \ */
        uint32_t code;
        --*at;
        utf8_next(at, end, &code);
        buf_printf(out, code < 0x100 ? "\\x%02x" : code < 0x10000 ? "\\u%04x" : "\\U%08x", code);
    } else if (c != '\n') {
        buf_append(out, (char[]){'\\', c}, 2);
    }
    return true;
}

static bool lex_string(Lexer *l) {
    char quote = *l->at;
    const char *from = l->at + 1, *to = from;
    while (to < l->end && *to != quote) to += *to == '\\' ? 2 : 1;
    if (to >= l->end) return jinja_error(l->err, ERR_INVALID, l->line, "a string has no end");
    Str text = {from, (size_t)(to - from)};
    auto_buf Buf plain = {0};
    if (memchr(from, '\\', text.length)) {
        for (const char *c = from; c < to;) {
            if (*c != '\\') {
                buf_char(&plain, *c++);
                continue;
            }
            c++;
            if (!lex_escape(l, &plain, &c, to)) return false;
        }
        text = (Str){arena_dup(&l->template->arena, plain.at, plain.length), plain.length};
    }
    add(l, T_CONST, text);
    l->tokens[l->count - 1].value = v_str(text);
    skip_to(l, to + 1);
    return true;
}

static bool starts_name(uint32_t c) {
    return is_word_char(c) && !(c >= '0' && c <= '9');
}

static bool lex_name(Lexer *l) {
    const char *at = l->at;
    while (at < l->end) {
        const char *next = at;
        uint32_t c;
        utf8_next(&next, l->end, &c);
        if (!is_word_char(c)) break;
        at = next;
    }
    add(l, T_NAME, (Str){l->at, (size_t)(at - l->at)});
    l->at = at;
    l->line_starting = false;
    return true;
}

static bool lex_operator(Lexer *l) {
    static const struct {
        char text[3];
        uint8_t kind;
    } operators[] = {
        {"//", T_FLOORDIV}, {"**", T_POW}, {"==", T_EQ}, {"!=", T_NE}, {">=", T_GE}, {"<=", T_LE},
        {"+", T_ADD}, {"-", T_SUB}, {"*", T_MUL}, {"/", T_DIV}, {"%", T_MOD}, {"~", T_TILDE},
        {"[", T_LBRACKET}, {"]", T_RBRACKET}, {"(", T_LPAREN}, {")", T_RPAREN}, {"{", T_LBRACE},
        {"}", T_RBRACE}, {">", T_GT}, {"<", T_LT}, {"=", T_ASSIGN}, {".", T_DOT}, {",", T_COMMA},
        {":", T_COLON}, {"|", T_PIPE}, {";", T_SEMICOLON},
    };
    size_t i = 0;
    while (i < COUNT_OF(operators) && !here(l, l->at, operators[i].text)) i++;
    if (i == COUNT_OF(operators)) {
        const char *next = l->at;
        uint32_t c;
        utf8_next(&next, l->end, &c);
        return jinja_error(l->err, ERR_INVALID, l->line, "unexpected character '%.*s'",
                           (int)(next - l->at), l->at);
    }
    TokenKind kind = operators[i].kind;
    if (kind == T_LPAREN || kind == T_LBRACKET || kind == T_LBRACE) {
        if (l->open_count == sizeof l->open)
            return jinja_error(l->err, ERR_TOO_LARGE, l->line, "nested more than %d deep",
                               LIMIT_TEMPLATE_DEPTH);
        l->open[l->open_count++] = kind == T_LPAREN ? ')' : kind == T_LBRACKET ? ']' : '}';
    } else if (kind == T_RPAREN || kind == T_RBRACKET || kind == T_RBRACE) {
        if (!l->open_count)
            return jinja_error(l->err, ERR_INVALID, l->line, "unexpected '%c'", *l->at);
        if (l->open[--l->open_count] != *l->at)
            return jinja_error(l->err, ERR_INVALID, l->line, "unexpected '%c', expected '%c'",
                               *l->at, l->open[l->open_count]);
    }
    add(l, kind, (Str){l->at, strlen(operators[i].text)});
    skip_to(l, l->at + strlen(operators[i].text));
    return true;
}

/* Between {{ and }} or {% and %}. */
static bool lex_code(Lexer *l, const char *close) {
    for (;;) {
        skip_to(l, behind_spaces(l, l->at));
        if (l->at >= l->end)
            return jinja_error(l->err, ERR_INVALID, l->line,
                               "the template ends where '%s' is expected", close);
        /* Inside of brackets }} closes two dicts. */
        const char *behind = l->open_count ? NULL : tag_end(l, l->at, close);
        if (behind) {
            add(l, close[0] == '}' ? T_PRINT_END : T_BLOCK_END, (Str){l->at, 2});
            skip_to(l, behind);
            return true;
        }
        const char *next = l->at;
        uint32_t c;
        utf8_next(&next, l->end, &c);
        bool ok = is_digit(*l->at, 10)                 ? lex_number(l)
                  : *l->at == '"' || *l->at == '\''    ? lex_string(l)
                  : starts_name(c)                     ? lex_name(l)
                                                       : lex_operator(l);
        if (!ok) return false;
    }
}

static const char *next_tag(const Lexer *l) {
    for (const char *at = l->at; at < l->end; at++) {
        at = memchr(at, '{', (size_t)(l->end - at));
        if (!at) break;
        if (at + 1 < l->end && (at[1] == '%' || at[1] == '{' || at[1] == '#')) return at;
    }
    return l->end;
}

static bool lex_all(Lexer *l) {
    while (l->at < l->end) {
        const char *tag = next_tag(l);
        if (tag == l->end) {
            add(l, T_DATA, (Str){l->at, (size_t)(l->end - l->at)});
            return true;
        }
        bool is_print = tag[1] == '{', is_raw = false;
        char sign = sign_at(l, tag + 2);
        add_data(l, tag, sign, is_print);
        skip_to(l, tag);
        if (tag[1] == '#') {
            if (!lex_comment(l)) return false;
            continue;
        }
        if (!is_print && !lex_raw(l, &is_raw)) return false;
        if (is_raw) continue;
        add(l, is_print ? T_PRINT_BEGIN : T_BLOCK_BEGIN, (Str){tag, 2});
        skip_to(l, tag + 2 + (sign != 0));
        if (!lex_code(l, is_print ? "}}" : "%}")) return false;
    }
    return true;
}

Token *jinja_lex(Template *template, Err *err) {
    Str source = template->source;
    Lexer l = {.template = template,
               .start = source.at,
               .at = source.at,
               .end = source.at + source.length,
               .line = 1,
               .line_starting = true,
               .err = err};
    bool ok = lex_all(&l);
    add(&l, T_END, (Str){l.end, 0});
    Token *tokens = NULL;
    if (ok) {
        tokens = arena_new(&template->arena, l.count * sizeof *tokens);
        memcpy(tokens, l.tokens, l.count * sizeof *tokens);
    }
    free(l.tokens);
    return tokens;
}
