// SPDX-License-Identifier: Apache-2.0
/* Why a request cannot be answered, in the words of the API that we serve. */
#include "ask.h"

#include <stdio.h>

#define ISSUES_SHOWN 10
#define INPUT_BYTES 200

static const char *type_of(int status) {
    static const struct { int status; const char *type;
    } types[] = {{400, "BadRequestError"},     {401, "AuthenticationError"},
                 {404, "NotFoundError"},       {409, "ConflictError"},
                 {413, "Content Too Large"},   {500, "InternalServerError"},
                 {501, "NotImplementedError"}, {503, "Service Unavailable"},
                 {504, "Gateway Timeout"}};
    for (size_t i = 0; i < COUNT_OF(types); i++)
        if (types[i].status == status) return types[i].type;
    return status < 500 ? "BadRequestError" : "InternalServerError";
}

static void set(Problem *problem, int status, const char *param, const char *format, va_list args) {
    char text[1024];
    vsnprintf(text, sizeof text, format, args);
    buf_clear(&problem->message);
    buf_append(&problem->message, text, utf8_whole(text, strlen(text)));
    problem->status = status;
    problem->type = type_of(status);
    snprintf(problem->param, sizeof problem->param, "%s", param ? param : "");
}

bool problem_set(Problem *problem, const char *param, const char *format, ...) {
    va_list args;
    va_start(args, format);
    set(problem, 400, param, format, args);
    va_end(args);
    return false;
}

bool problem_value(Problem *problem, const char *param, const char *value, const char *format,
                   ...) {
    va_list args;
    va_start(args, format);
    set(problem, 400, param, format, args);
    va_end(args);
    buf_printf(&problem->message, " (parameter=%s", param);
    if (value) buf_printf(&problem->message, ", value=%s", value);
    buf_char(&problem->message, ')');
    return false;
}

bool problem_from_err(Problem *problem, const Err *err) {
    buf_clear(&problem->message);
    buf_str(&problem->message, err->message);
    if (err->hint[0]) {
        bool stops =
            problem->message.length && strchr(".!?", err->message[strlen(err->message) - 1]);
        buf_printf(&problem->message, "%s %s", stops ? "" : ".", err->hint);
    }
    problem->status = err_http_status(err->code);
    problem->type = type_of(problem->status);
    snprintf(problem->param, sizeof problem->param, "%s", err->param);
    return false;
}

void problem_body(const Problem *problem, Buf *out) {
    buf_str(out, "{\"error\":{\"message\":");
    buf_json_str(out, (Str){problem->message.at, problem->message.length});
    buf_str(out, ",\"type\":");
    buf_json_str(out, str_of(problem->type));
    buf_str(out, ",\"param\":");
    if (problem->param[0]) buf_json_str(out, str_of(problem->param));
    else buf_str(out, "null");
    buf_printf(out, ",\"code\":%d}}", problem->status);
}

void problem_done(Problem *problem) { buf_done(&problem->message); }

/* ---- issues ---- */

void python_repr(Buf *out, Str text) {
    bool single = memchr(text.at, '\'', text.length), twice = memchr(text.at, '"', text.length);
    char quote = single && !twice ? '"' : '\'';
    buf_char(out, quote);
    for (size_t i = 0; i < text.length; i++) {
        unsigned char c = (unsigned char)text.at[i];
        if (c == '\n') buf_str(out, "\\n");
        else if (c == '\t') buf_str(out, "\\t");
        else if (c == '\r') buf_str(out, "\\r");
        else if (c < ' ' || c == 127) buf_printf(out, "\\x%02x", c);
        else {
            if (c == '\\' || c == (unsigned char)quote) buf_char(out, '\\');
            buf_char(out, (char)c);
        }
    }
    buf_char(out, quote);
}

static void describe_input(Buf *out, const json_t *input) {
    auto_buf Buf text = {0};
    if (!input || json_is_null(input)) buf_str(&text, "None");
    else if (json_is_object(input))
        buf_printf(&text, "<dict of %zu items>", json_object_size(input));
    else if (json_is_array(input)) buf_printf(&text, "<list of %zu items>", json_array_size(input));
    else if (json_is_boolean(input)) buf_str(&text, json_is_true(input) ? "True" : "False");
    else if (json_is_string(input))
        buf_append(&text, json_string_value(input), json_string_length(input));
    else buf_json_tree(&text, input);
    Str shown = {text.at ? text.at : "", text.length};
    if (shown.length > INPUT_BYTES) shown.length = utf8_whole(shown.at, INPUT_BYTES);
    python_repr(out, shown);
}

void issue_add(Issues *issues, const char *type, const char *place, const char *text,
               const json_t *input, const char *context) {
    if (!issues->count++) snprintf(issues->first, sizeof issues->first, "%s", place);
    if (issues->count > ISSUES_SHOWN) return;
    Buf *out = &issues->lines;
    buf_printf(out, "\n  {'type': '%s', 'loc': ", type);
    python_repr(out, str_of(place));
    buf_str(out, ", 'msg': ");
    python_repr(out, str_of(text));
    buf_str(out, ", 'input': ");
    describe_input(out, input);
    if (context) buf_printf(out, ", 'ctx': {%s}", context);
    buf_char(out, '}');
}

bool issues_to_problem(Issues *issues, Problem *problem) {
    if (!issues->count) return true;
    Buf *out = &problem->message;
    buf_clear(out);
    buf_printf(out, "%zu validation error%s:", issues->count, issues->count > 1 ? "s" : "");
    buf_append(out, issues->lines.at, issues->lines.length);
    if (issues->count > ISSUES_SHOWN)
        buf_printf(out, "\n  ...and %zu more errors", issues->count - ISSUES_SHOWN);
    buf_done(&issues->lines);
    problem->status = 400;
    problem->type = "Bad Request";
    snprintf(problem->param, sizeof problem->param, "%s", issues->first);
    return false;
}
