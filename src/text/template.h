// SPDX-License-Identifier: Apache-2.0
/* template.h - chat templates: the Jinja that published model files use, rendered as jinja2 3.1
 * does in Hugging Face's sandbox (trim_blocks and lstrip_blocks on, loop controls, immutable data).
 *
 * Statements: for (else, if filter, recursive), if, set (also blocks and namespace members), macro,
 * call, filter, with, print, raw, break, continue, generation; expressions with tests, filters,
 * slices, calls, `is`, `in`, `~`, inline if; the methods of strings, lists and dicts.  Functions:
 * range, namespace, dict, joiner, cycler, raise_exception, strftime_now.  Unknown names are
 * undefined as in jinja2.
 *
 * What we cannot do is an error with its line, never an empty string: ERR_UNSUPPORTED for blocks,
 * include and import, integers over 64 bits, a few filters and methods that pages in HTML use; and
 * printing a method or a generator, for which Python gives an address, is ERR_INVALID.
 * Limits: LIMIT_TEMPLATE*, each ERR_TOO_LARGE.  A rendering takes up to 1 MiB of stack.
 * Thread: a parsed Template is read-only and may be shared. */
#ifndef BATON_TEXT_TEMPLATE_H
#define BATON_TEXT_TEMPLATE_H

#include "text.h"

typedef struct Template Template;
Template *template_parse(Str text, Err *err) MUST_CHECK; /* "chat template line 3: ..." */
void template_free(Template *template);

/* vars: a JSON object whose members are the template's variables (messages, tools,
 * add_generation_prompt, ...), its text UTF-8. now: Unix seconds for strftime_now, which gives
 * local time.  The text is appended to out, on success only.  raise_exception() in the template:
 * ERR_INVALID with its text alone. */
bool template_render(const Template *template, const json_t *vars, int64_t now, Buf *out,
                     Err *err) MUST_CHECK;

#endif
