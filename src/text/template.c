// SPDX-License-Identifier: Apache-2.0
#include "jinja_run.h"

#include <stdlib.h>

/* \r\n and \r are line ends like \n, and one at the very end is not part of the template. */
static Str one_kind_of_line_end(Arena *arena, Str text) {
    char *copy = arena_new(arena, text.length + 1);
    size_t length = 0;
    for (size_t i = 0; i < text.length; i++) {
        bool cr = text.at[i] == '\r';
        if (cr && i + 1 < text.length && text.at[i + 1] == '\n') i++;
        copy[length++] = cr ? '\n' : text.at[i];
    }
    if (length && copy[length - 1] == '\n') length--;
    return (Str){copy, length};
}

Template *template_parse(Str text, Err *err) {
    if (text.length > LIMIT_TEMPLATE) {
        err_set(err, ERR_TOO_LARGE, "chat template has %zu bytes, %zu at most", text.length,
                LIMIT_TEMPLATE);
        return NULL;
    }
    if (!utf8_valid(text.at, text.length)) {
        err_set(err, ERR_INVALID, "chat template is not UTF-8 text");
        return NULL;
    }
    Template *t = mem_new(sizeof *t);
    t->source = one_kind_of_line_end(&t->arena, text);
    Token *tokens = jinja_lex(t, err);
    if (!tokens || !jinja_parse(t, tokens, err) || !jinja_resolve(t, err)) {
        template_free(t);
        return NULL;
    }
    return t;
}

void template_free(Template *template) {
    if (!template) return;
    arena_done(&template->arena);
    free(template->names);
    free(template);
}

bool template_render(const Template *template, const json_t *vars, int64_t now, Buf *out,
                     Err *err) {
    Err failed = {0};
    auto_buf Buf text = {.limit = LIMIT_TEMPLATE_OUTPUT};
    Run run = {.template = template, .vars = vars, .now = now, .err = &failed, .out = &text};
    run.context = run_new(&run, template->name_count * sizeof *run.context);
    bool ok = run_template(&run);
    arena_done(&run.arena);
    if (ok) buf_append(out, text.at ? text.at : "", text.length);
    if (ok && out->overflow)
        ok = err_set(&failed, ERR_TOO_LARGE, "the rendered prompt has %zu bytes, %zu at most",
                     text.length, out->limit);
    if (!ok) *err = failed;
    return ok;
}
