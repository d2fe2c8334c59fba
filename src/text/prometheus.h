// SPDX-License-Identifier: Apache-2.0
/* prometheus.h - metrics in Prometheus' text format 0.0.4, written.
 *
 * Labels are written as given: `name="value",...` made by prom_labels(), "" for none.  Numbers look
 * as Python's client writes them: 3.0, 0.001, 1.234567e+06, +Inf. */
#ifndef BATON_TEXT_PROMETHEUS_H
#define BATON_TEXT_PROMETHEUS_H

#include "text.h"

#define PROM_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

void prom_family(Buf *out, const char *name, const char *type,
                 const char *help); /* # HELP and # TYPE */
void prom_labels(Buf *out, const char *const *names_and_values,
                 size_t pairs); /* escapes the values */
void prom_value(Buf *out, const char *name, const char *labels, double value);
void prom_histogram(Buf *out, const char *name, const char *labels,
                    const Histogram *histogram); /* _bucket with le last, _count, _sum */

#endif
