// SPDX-License-Identifier: Apache-2.0
/* yaml.h - YAML manifests as JSON trees, by YAML 1.2's core schema as kubectl reads them.
 *
 * "As kubectl" was tried with kubectl 1.32 and means, beyond the core schema: y, yes, on, n, no and
 * off (in lower case, Capitals and UPPER CASE) are booleans, also as keys; 0644 is octal, 0x, 0o
 * and 0b work, 1_000 is 1000; a real number without a fraction is an integer (1.0 is 1); integers
 * over 64 bits become real numbers; dates stay strings; keys that are numbers or booleans become
 * their text. Quoted scalars are always strings.
 *
 * Stricter than kubectl: a key that stands twice, tags, merge keys, infinity and not-a-number are
 * refused with their place.  One text holds several documents divided by "---"; empty ones are left
 * out. Anchors and aliases work; LIMIT_YAML_NODES bounds what they expand to. */
#ifndef BATON_TEXT_YAML_H
#define BATON_TEXT_YAML_H

#include "text.h"

json_t *yaml_parse(Str text, Err *err)
    MUST_CHECK; /* an array of documents; ERR_INVALID names line and column */

#endif
