// SPDX-License-Identifier: Apache-2.0
/* text.h - the formats we read and write: JSON, YAML, SSE, Prometheus text, chat templates.
 *
 * JSON trees are jansson's json_t.  Thread: any, objects are not shared. */
#ifndef BATON_TEXT_H
#define BATON_TEXT_H

#include <jansson.h>

#include "base/base.h"

#include "json.h"
#include "prometheus.h"
#include "sse.h"
#include "template.h"
#include "yaml.h"

#endif
