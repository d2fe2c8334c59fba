// SPDX-License-Identifier: Apache-2.0
/* internal.h - what the files of text/ share with each other alone. */
#ifndef BATON_TEXT_INTERNAL_H
#define BATON_TEXT_INTERNAL_H

#include "text.h"

/* Decimals as Python writes them: the shortest that read back as the same double, 1.0 not 1, an
 * exponent below 1e-4 and from 1e16 on; nan, inf.  Both return the length and add a 0. */
size_t double_repr(double value, char out[32]);
size_t int_repr(int64_t value, char out[24]);

/* Checks that `text` is one JSON value of any kind that json_parse() can hold: RFC 8259, UTF-8,
 * depth, and numbers that fit.  The one judge of validity, for trees and for scans. */
bool json_check(Str text, Err *err) MUST_CHECK;

/* The first byte at or behind `at` that is a quote, a backslash, a control character or not ASCII;
 * `end` if there is none. */
const char *json_plain_end(const char *at, const char *end);

/* Behind the closing quote of the string that opens there, in text that was checked. */
const char *json_string_end(const char *open, const char *end);

/* `value` starts with a quote and was checked: the text between the quotes, escapes undone, is
 * appended; a surrogate without its partner becomes U+FFFD. */
void json_unescape(Str value, Buf *out);

#endif
