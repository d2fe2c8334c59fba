// SPDX-License-Identifier: Apache-2.0
/* yaml.h - YAML manifests as JSON trees, by YAML 1.2's core schema as kubectl reads them.
 *
 * One text holds several documents divided by "---"; empty ones are left out.  Anchors and aliases
 * work, with a limit on what they expand to; tags and merge keys are refused with their place. */
#ifndef BATON_TEXT_YAML_H
#define BATON_TEXT_YAML_H

#include "text.h"

json_t *yaml_parse(Str text, Err *err)
    MUST_CHECK; /* an array of documents; ERR_INVALID names line and column */

#endif
