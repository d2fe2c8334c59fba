// SPDX-License-Identifier: Apache-2.0
/* render.c - renders templates for ./run: one JSON object a line in, {"template", "vars", "now"};
 * one a line out, {"ok": text} or {"error": message, "line": whether it names one}. */
#include <stdio.h>
#include <stdlib.h>

#include "text/text.h"

static bool render(Str line, Buf *out, Err *err) {
    auto_json json_t *job = json_parse(line, err);
    if (!job) return false;
    const json_t *text = json_object_get(job, "template");
    Template *template =
        template_parse((Str){json_string_value(text), json_string_length(text)}, err);
    if (!template) return false;
    bool ok = template_render(template, json_object_get(job, "vars"),
                              json_integer_value(json_object_get(job, "now")), out, err);
    template_free(template);
    return ok;
}

int main(void) {
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    while ((length = getline(&line, &room, stdin)) > 0) {
        Err err = {0};
        auto_buf Buf out = {0}, reply = {0};
        bool ok = render((Str){line, (size_t)length}, &out, &err);
        buf_str(&reply, ok ? "{\"ok\":" : "{\"error\":");
        buf_json_str(&reply, ok ? (Str){out.at ? out.at : "", out.length} : str_of(err.message));
        buf_char(&reply, '}');
        puts(reply.at);
        fflush(stdout);
    }
    free(line);
    return 0;
}
