// SPDX-License-Identifier: Apache-2.0
/* The numbers of HTTP, under the names that dashboards for this API know. */
#include "internal.h"

#include <math.h>
#include <stdio.h>

static const double coarse_bounds[] = {.1, .5, 1};
static const double fine_bounds[] = {.01, .025, .05, .075, .1,  .25, .5, .75, 1,  1.5, 2,
                                     2.5, 3,    3.5, 4,    4.5, 5,   7.5, 10, 30,  60};
static const char *const methods[HTTP_METHODS] = {"GET", "POST", "other"};
static const char *const classes[HTTP_CLASSES] = {"2xx", "3xx", "4xx", "5xx"};

void http_stats_init(HttpStats *stats) {
    histogram_init(&stats->seconds_fine, fine_bounds, COUNT_OF(fine_bounds));
    for (size_t e = 0; e < HTTP_ENDPOINTS; e++)
        for (size_t m = 0; m < HTTP_METHODS; m++)
            histogram_init(&stats->seconds[e][m], coarse_bounds, COUNT_OF(coarse_bounds));
}

void http_stats_note(HttpStats *stats, size_t endpoint, Str method, int status,
                     size_t request_bytes, size_t reply_bytes, double seconds) {
    const char *name = serve_endpoint_name(endpoint);
    if (!name || !*name) return;
    size_t m = 0;
    while (m < HTTP_METHODS - 1 && !str_eq(method, methods[m])) m++;
    int class = status / 100 - 2;
    counter_add(&stats->requests[endpoint][m][class < 0               ? 0
                                              : class >= HTTP_CLASSES ? 3
                                                                      : class],
                1);
    counter_add(&stats->request_bytes[endpoint], request_bytes);
    counter_add(&stats->reply_bytes[endpoint], reply_bytes);
    histogram_observe(&stats->seconds[endpoint][m], seconds);
    histogram_observe(&stats->seconds_fine, seconds);
}

static uint64_t count_of(const HttpStats *stats, size_t endpoint, size_t method) {
    uint64_t sum = 0;
    for (size_t m = 0; m < HTTP_METHODS; m++)
        for (size_t c = 0; c < HTTP_CLASSES && (method == SIZE_MAX || m == method); c++)
            sum += counter_get(&stats->requests[endpoint][m][c]);
    return sum;
}

static void labels_of(Buf *labels, const char *handler, const char *method, const char *class) {
    const char *pairs[] = {"handler", handler, "method", method, "status", class};
    buf_clear(labels);
    prom_labels(labels, pairs, class ? 3 : method ? 2 : 1);
}

static void write_requests(const HttpStats *stats, double created, Buf *out) {
    auto_buf Buf labels = {0}, born = {0};
    const char *name;
    prom_family(out, "http_requests_total", "counter", "Requests by handler, method and status.");
    prom_family(&born, "http_requests_created", "gauge", "When counting began.");
    for (size_t e = 0; (name = serve_endpoint_name(e)); e++)
        for (size_t m = 0; m < HTTP_METHODS; m++)
            for (size_t c = 0; c < HTTP_CLASSES; c++) {
                uint64_t count = counter_get(&stats->requests[e][m][c]);
                if (!count) continue;
                labels_of(&labels, name, methods[m], classes[c]);
                prom_value(out, "http_requests_total", labels.at, (double)count);
                prom_value(&born, "http_requests_created", labels.at, created);
            }
    buf_append(out, born.at, born.length);
}

static void write_sizes(const HttpStats *stats, const char *family, const Counter *sums,
                        double created, const char *help, Buf *out) {
    auto_buf Buf labels = {0}, born = {0};
    char count[64], sum[64], birth[64];
    const char *name;
    snprintf(count, sizeof count, "%s_count", family);
    snprintf(sum, sizeof sum, "%s_sum", family);
    snprintf(birth, sizeof birth, "%s_created", family);
    prom_family(out, family, "summary", help);
    prom_family(&born, birth, "gauge", help);
    for (size_t e = 0; (name = serve_endpoint_name(e)); e++) {
        uint64_t requests = count_of(stats, e, SIZE_MAX);
        if (!requests) continue;
        labels_of(&labels, name, NULL, NULL);
        prom_value(out, count, labels.at, (double)requests);
        prom_value(out, sum, labels.at, (double)counter_get(&sums[e]));
        prom_value(&born, birth, labels.at, created);
    }
    buf_append(out, born.at, born.length);
}

static void write_durations(const HttpStats *stats, double created, Buf *out) {
    auto_buf Buf labels = {0}, born = {0};
    const char *name, *help = "Seconds from a request's first byte to its reply.";
    prom_family(out, "http_request_duration_highr_seconds", "histogram", help);
    prom_histogram(out, "http_request_duration_highr_seconds", "", &stats->seconds_fine);
    prom_family(out, "http_request_duration_highr_seconds_created", "gauge", help);
    prom_value(out, "http_request_duration_highr_seconds_created", "", created);
    prom_family(out, "http_request_duration_seconds", "histogram", help);
    prom_family(&born, "http_request_duration_seconds_created", "gauge", help);
    for (size_t e = 0; (name = serve_endpoint_name(e)); e++)
        for (size_t m = 0; m < HTTP_METHODS; m++) {
            if (!count_of(stats, e, m)) continue;
            labels_of(&labels, name, methods[m], NULL);
            prom_histogram(out, "http_request_duration_seconds", labels.at, &stats->seconds[e][m]);
            prom_value(&born, "http_request_duration_seconds_created", labels.at, created);
        }
    buf_append(out, born.at, born.length);
}

void http_stats_write(const HttpStats *stats, double created, Buf *out) {
    write_requests(stats, created, out);
    write_sizes(stats, "http_request_size_bytes", stats->request_bytes, created,
                "Bytes of request bodies.", out);
    write_sizes(stats, "http_response_size_bytes", stats->reply_bytes, created,
                "Bytes of reply bodies.", out);
    write_durations(stats, created, out);
}
