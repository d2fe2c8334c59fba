// SPDX-License-Identifier: Apache-2.0
#include "base.h"

void histogram_init(Histogram *histogram, const double *bounds, size_t count) {
    assert(count <= HISTOGRAM_BOUNDS_MAX);
    *histogram = (Histogram){.bounds = bounds, .bound_count = count};
}

void histogram_observe(Histogram *histogram, double value) {
    size_t i = 0;
    while (i < histogram->bound_count && value > histogram->bounds[i]) i++;
    atomic_fetch_add_explicit(&histogram->counts[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&histogram->sum_micro, (uint64_t)(value * 1e6 + 0.5),
                              memory_order_relaxed);
}
