// SPDX-License-Identifier: Apache-2.0
/* jinja_fuzz.c - any text is a template or an error that names a line; any template renders any
 * variables or says why not.  An input that starts with { and has a zero byte is variables (JSON)
 * and, behind the zero, the template; any other is a template for fixed variables. */
#include <stdlib.h>

#include "text/text.h"

static const char fixed[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\"S \u65e5\"},{\"role\":\"user\",\"content\":"
    "\"Hi\\n\\u00df\"},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":"
    "\"abcdefgh1\","
    "\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":{\"a\":[1,2.5,true]}}}]},"
    "{\"role\":\"tool\",\"content\":\"{}\"}],\"tools\":[{\"type\":\"function\",\"function\":{"
    "\"name\":"
    "\"f\",\"description\":\"d\",\"parameters\":{\"type\":\"object\",\"properties\":{\"a\":{"
    "\"type\":"
    "\"array\"}},\"required\":[\"a\"]}}}],\"add_generation_prompt\":true,\"bos_token\":\"<s>\","
    "\"x\":5,\"y\":-3,\"f\":0.5,\"s\":\"hello World\",\"l\":[3,1,2],\"d\":{\"a\":1,\"b\":[]}}";

static void render(Str text, const json_t *vars) {
    Err err = {0};
    Template *template = template_parse(text, &err);
    if (!template) {
        if (err.code == ERR_NONE || strncmp(err.message, "chat template ", 14)) abort();
        return;
    }
    auto_buf Buf out = {0}, again = {0};
    buf_str(&out, "kept");
    bool ok = template_render(template, vars, 0, &out, &err);
    if (ok != (err.code == ERR_NONE) || out.length < 4 || memcmp(out.at, "kept", 4)) abort();
    if (!ok && out.length != 4) abort();
    /* A template is read-only: the same a second time. */
    Err second = {0};
    buf_str(&again, "kept");
    if (template_render(template, vars, 0, &again, &second) != ok) abort();
    if (again.length != out.length || memcmp(again.at, out.at, out.length)) abort();
    if (strcmp(err.message, second.message)) abort();
    if (ok && !utf8_valid(out.at, out.length)) abort();
    template_free(template);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Err err = {0};
    Str text = {(const char *)data, size}, given = STR(fixed);
    const uint8_t *zero = size && data[0] == '{' ? memchr(data, 0, size) : NULL;
    if (zero) {
        given.at = text.at;
        given.length = (size_t)(zero - data);
        text = (Str){text.at + given.length + 1, size - given.length - 1};
    }
    auto_json json_t *vars = json_parse(given, &err);
    if (json_is_object(vars)) render(text, vars);
    return 0;
}
