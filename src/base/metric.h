// SPDX-License-Identifier: Apache-2.0
/* metric.h - numbers that one thread counts and another reads: counters, gauges, histograms.
 *
 * They live inside the struct of whoever counts; text/ writes them in Prometheus' format. */
#ifndef BATON_BASE_METRIC_H
#define BATON_BASE_METRIC_H

typedef struct Counter { _Atomic uint64_t value; } Counter; /* only grows */
typedef struct Gauge { _Atomic int64_t value; } Gauge;      /* goes up and down */

#define HISTOGRAM_BOUNDS_MAX 24
typedef struct Histogram {
    const double *bounds; /* ascending; the +Inf bucket is implied */
    size_t bound_count;
    _Atomic uint64_t counts[HISTOGRAM_BOUNDS_MAX + 1]; /* per bucket, not cumulative */
    _Atomic uint64_t sum_micro; /* of the observed values, in millionths */
} Histogram;

static inline void counter_add(Counter *counter, uint64_t n) {
    atomic_fetch_add_explicit(&counter->value, n, memory_order_relaxed);
}
static inline uint64_t counter_get(const Counter *counter) {
    return atomic_load_explicit(&counter->value, memory_order_relaxed);
}
static inline void gauge_set(Gauge *gauge, int64_t value) {
    atomic_store_explicit(&gauge->value, value, memory_order_relaxed);
}
static inline void gauge_add(Gauge *gauge, int64_t n) {
    atomic_fetch_add_explicit(&gauge->value, n, memory_order_relaxed);
}
static inline int64_t gauge_get(const Gauge *gauge) {
    return atomic_load_explicit(&gauge->value, memory_order_relaxed);
}

void histogram_init(Histogram *histogram, const double *bounds, size_t count);
void histogram_observe(Histogram *histogram, double value); /* value >= 0 */

#endif
