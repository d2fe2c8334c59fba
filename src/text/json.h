// SPDX-License-Identifier: Apache-2.0
/* json.h - JSON: trees for what is understood, a scanner for what only passes through.
 *
 * The scanner finds the members of one object without a tree or a copy: a router reads `model` and
 * `stream` and cuts a member out or puts one in, and leaves the other bytes as the client sent
 * them. Source: RFC 8259.  Duplicate keys: the last one counts, in trees and in scans.
 *
 * Errors speak the words of Python's json module, "Expecting value: line 1 column 2 (char 1)", and
 * err.param is the number behind "char": clients of the APIs that we serve know both.  Both also
 * refuse what neither tree nor scan can carry faithfully: integers outside of 64 bits and a sign,
 * numbers that would be infinite, \u0000 in a property name, nesting over LIMIT_JSON_DEPTH.  In a
 * string \u0000 is allowed, and half of a surrogate pair reads as U+FFFD. */
#ifndef BATON_TEXT_JSON_H
#define BATON_TEXT_JSON_H

#include "text.h"

json_t *json_parse(Str text, Err *err) MUST_CHECK; /* any value; ERR_INVALID as above */
void json_decref_at(json_t **tree);
#define auto_json __attribute__((cleanup(json_decref_at)))

/* Writing, in the order the caller says.  Bytes that are not UTF-8 become U+FFFD. */
void buf_json_str(Buf *buf, Str text);            /* with the quotes */
void buf_json_int(Buf *buf, int64_t value);
void buf_json_double(Buf *buf, double value);     /* the fewest digits that read back the same; 1.0
                                                     not 1; null for infinity and not-a-number */
void buf_json_tree(Buf *buf, const json_t *tree); /* compact, members in order */

typedef struct JsonMember {
    Str key;   /* between the quotes, escapes not undone */
    Str value; /* from its first to its last byte */
    Str whole; /* key, colon and value: from the opening quote to the last byte of the value */
    char kind; /* of the value: { [ " 0 (a number) t f n */
} JsonMember;
typedef struct JsonScan {
    Str object;   /* from { to } */
    size_t at;    /* where json_scan_next() goes on, from object.at */
    size_t count; /* members, duplicates included */
} JsonScan;

bool json_scan(Str text, JsonScan *scan, Err *err)
    MUST_CHECK; /* checks the whole text; it must be one object */
bool json_scan_next(JsonScan *scan, JsonMember *member); /* the members in order */
bool json_scan_find(const JsonScan *scan, const char *key,
                    JsonMember *member);  /* the last of that key, however it is escaped */
bool json_unquote(Str value, Buf *out);   /* a scanned "string": appends it without quotes and
                                             escapes; false if it is none */

#endif
