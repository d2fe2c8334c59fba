// SPDX-License-Identifier: Apache-2.0
/* metrics.h - the router's time series: kthena_router_* as dashboards know them, baton_router_* for
 * what those do not tell: stages, retries, degradations, pods.
 *
 * Labels hold only names from manifests and fixed words, never what a client wrote: an unknown
 * model is "unknown", and the paths are those that are served. */
#ifndef BATON_ROUTE_METRICS_H
#define BATON_ROUTE_METRICS_H

#include "record.h"
#include "store.h"

typedef struct RouteMetrics RouteMetrics;
RouteMetrics *route_metrics_new(void);
void route_metrics_free(RouteMetrics *metrics);

void route_metrics_begin(RouteMetrics *metrics);                        /* a request came */
void route_metrics_end(RouteMetrics *metrics, const RouteRecord *record, bool known_model);
void route_metrics_downstream(RouteMetrics *metrics, const char *model, int change);
void route_metrics_upstream(RouteMetrics *metrics, const RouteRecord *record, int change);
void route_metrics_call(RouteMetrics *metrics, const RouteRecord *record, bool prefill, int status,
                        int64_t us); /* one call of an engine has ended */
void route_metrics_retry(RouteMetrics *metrics, const char *stage, const char *cause);
void route_metrics_degraded(RouteMetrics *metrics, const char *cause);
void route_metrics_gone(RouteMetrics *metrics, const char *stage); /* the client left */
void route_metrics_prefix(RouteMetrics *metrics, const char *model, double ratio);
void route_metrics_write(RouteMetrics *metrics, const RouteStore *store, uint64_t file_failures,
                         Buf *out);

#endif
