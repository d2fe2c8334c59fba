// SPDX-License-Identifier: Apache-2.0
/* jinja_lib.h - what a template can do with values: print, add, look inside, call. */
#ifndef BATON_TEXT_JINJA_LIB_H
#define BATON_TEXT_JINJA_LIB_H

#include "jinja_value.h"

/* --- jinja_text.c: values as text --- */
void append_str(Run *run, Buf *out, Value value);  /* as str() */
void append_repr(Run *run, Buf *out, Value value); /* as repr() */
Value v_to_str(Run *run, Value value);             /* a string stays what it is, also Markup */
Value v_escape(Run *run, Value value);             /* HTML, as markupsafe */
typedef struct JsonStyle {
    bool ascii, sort_keys;
    const char *indent; /* NULL: one line */
    Str comma, colon;
} JsonStyle;
void append_json(Run *run, Buf *out, Value value, const JsonStyle *style, unsigned level);
Value run_printf(Run *run, Value format, Value args);      /* format % args */
Value run_format(Run *run, Value format, Args args);       /* format.format(...) */

/* --- jinja_ops.c: operators and subscripts --- */
Value v_add(Run *run, Value a, Value b);
Value v_binary(Run *run, int op, Value a, Value b); /* T_ADD ... T_POW */
bool v_compare(Run *run, int op, Value a, Value b); /* T_EQ ... T_NOT_IN */
Value v_negative(Run *run, Value value);
Value v_positive(Run *run, Value value);
Value v_joined(Run *run, Value a, Value b); /* two strings; reuses the room behind the first */
Value v_attr(Run *run, Value object, Str name); /* object.name */
Value v_attr_alone(Run *run, Value object, Str name); /* K_MISSING if it is no attribute */
Value v_item(Run *run, Value object, Value key); /* object[key] */
Value v_slice(Run *run, Value object, Value start, Value stop, Value step);
Value v_path(Run *run, Value object, Value path); /* "a.b.0" as filters take it */

/* --- jinja_str.c, jinja_case.c, jinja_filters.c, ...: what can be called --- */
extern const MethodDef str_methods[];
const MethodDef *method_of(Value object, Str name); /* NULL: it has none of that name */
const FilterDef *filter_named(Str name);
const TestDef *test_named(Str name);
const FunctionDef *global_named(Str name);
bool args_bind(Run *run, const char *what, const char *params, Args args, Value *bound);
Value run_call(Run *run, Value callee, Args args);
Value call_filter(Run *run, const FilterDef *filter, Value operand, Args args);
bool call_test(Run *run, const TestDef *test, Value operand, Args args);
Value call_method(Run *run, const MethodDef *method, Value self, Args args);

typedef enum CaseTo { CASE_UPPER, CASE_LOWER, CASE_TITLE, CASE_CAPITALIZE, CASE_SWAP } CaseTo;
bool str_is_case(Str text, bool upper); /* Python's isupper() and islower() */
Value str_cased(Run *run, Value text, CaseTo to);
bool is_space_char(uint32_t codepoint);
bool is_line_end(uint32_t codepoint);
bool is_letter_char(uint32_t codepoint);
bool is_decimal_char(uint32_t codepoint);
bool is_digit_char(uint32_t codepoint); /* also raised, lowered and circled ones */
bool is_numeric_char(uint32_t codepoint);
bool is_word_char(uint32_t codepoint); /* letter, number or _ */
bool is_upper_char(uint32_t codepoint);
bool is_lower_char(uint32_t codepoint);
bool is_title_char(uint32_t codepoint); /* one of the few that are a capital and a small letter */
bool is_printable_char(uint32_t codepoint);
Str str_strip(Str text, const Str *chars, bool left, bool right); /* chars NULL: white space */
size_t str_count_chars(Str text);
size_t str_offset(Str text, size_t index); /* bytes before the character `index` */
Value str_replaced(Run *run, Str text, Str old, Str with, int64_t count); /* count < 0: all */
Value str_split(Run *run, Value text, Value separator, int64_t most, bool from_right);
Value str_lines(Run *run, Value text, bool keep_ends);
Value str_padded(Run *run, Value text, int64_t width, Str fill, char align); /* < > ^ */

#endif
