// SPDX-License-Identifier: Apache-2.0
/* json.h - JSON: trees for what is understood, a scanner for what only passes through.
 *
 * The scanner finds the members of one object without a tree or a copy: a router reads `model` and
 * `stream` and cuts a member out or puts one in, and leaves the other bytes as the client sent
 * them. Source: RFC 8259.  Duplicate keys: the last one counts, in trees and in scans. */
#ifndef BATON_TEXT_JSON_H
#define BATON_TEXT_JSON_H

#include "text.h"

/* ERR_INVALID with line, column and what was expected there; depth at most LIMIT_JSON_DEPTH. */
json_t *json_parse(Str text, Err *err) MUST_CHECK;
void json_decref_at(json_t **tree);
#define auto_json __attribute__((cleanup(json_decref_at)))

/* Writing, in the order the caller says.  Bytes that are not UTF-8 become U+FFFD. */
void buf_json_str(Buf *buf, Str text);        /* with the quotes */
void buf_json_double(Buf *buf,
                     double value); /* the shortest decimals that read back the same; 1.0 not 1 */
void buf_json_tree(Buf *buf, const json_t *tree); /* compact, members in order */

typedef struct JsonMember {
    Str key;   /* between the quotes, escapes not undone */
    Str value; /* from its first to its last byte */
    Str whole; /* key, colon and value: from the opening quote to the last byte of the value */
    char kind; /* of the value: { [ " 0 (a number) t f n */
} JsonMember;
typedef struct JsonScan { Str object; size_t at; size_t count; } JsonScan;

bool json_scan(Str text, JsonScan *scan,
               Err *err); /* checks the whole text; it must be one object */
bool json_scan_next(JsonScan *scan, JsonMember *member);        /* the members in order */
bool json_scan_find(const JsonScan *scan, const char *key,
                    JsonMember *member); /* the last of that key */
bool json_unquote(Str value,
                  Buf *out); /* a scanned "string": undoes escapes; false if it is none */

#endif
