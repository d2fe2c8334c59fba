// SPDX-License-Identifier: Apache-2.0
#include "metrics.h"

#include <stdlib.h>

typedef enum Family {
    M_REQUESTS, M_DURATION, M_PREFILL, M_DECODE, M_TOKENS, M_ACTIVE, M_DOWNSTREAM, M_UPSTREAM,
    M_PREFIX_RATIO, M_STAGE, M_RETRIES, M_DEGRADED, M_GONE, M_BYTES, FAMILIES
} Family;

static const double long_s[] = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60};
static const double short_s[] = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                 0.1,    0.25,    0.5,    1,     2.5,    5,     10,   30,    60};
static const double ratios[] = {0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1};

static const struct {
    const char *name, *type, *help;
    const double *bounds;
    size_t bound_count;
} families[FAMILIES] = {
    [M_REQUESTS] = {"kthena_router_requests_total", "counter", "Requests that were answered."},
    [M_DURATION] = {"kthena_router_request_duration_seconds", "histogram",
                    "From a request's first byte to its last reply byte.", long_s,
                    COUNT_OF(long_s)},
    [M_PREFILL] = {"kthena_router_request_prefill_duration_seconds", "histogram",
                   "Calls of prefill pods.", long_s, COUNT_OF(long_s)},
    [M_DECODE] = {"kthena_router_request_decode_duration_seconds", "histogram",
                  "Calls of decode pods, to the last byte.", long_s, COUNT_OF(long_s)},
    [M_TOKENS] = {"kthena_router_tokens_total", "counter", "Tokens, as engines report them."},
    [M_ACTIVE] = {"kthena_router_active_requests", "gauge", "Requests under way."},
    [M_DOWNSTREAM] = {"kthena_router_active_downstream_requests", "gauge",
                      "Requests under way, by model."},
    [M_UPSTREAM] = {"kthena_router_active_upstream_requests", "gauge",
                    "Calls of engines under way."},
    [M_PREFIX_RATIO] = {"kthena_router_prefix_cache_match_ratio", "histogram",
                        "How much of a prompt's beginning the best pod has probably seen.", ratios,
                        COUNT_OF(ratios)},
    [M_STAGE] = {"baton_router_stage_seconds", "histogram",
                 "Time of a request's stages: route, prefill, transfer, first_token, decode.",
                 short_s, COUNT_OF(short_s)},
    [M_RETRIES] = {"baton_router_retries_total", "counter",
                   "Attempts that failed and were followed by another."},
    [M_DEGRADED] = {"baton_router_degraded_total", "counter",
                    "Requests whose prompt was not prefilled where it should have been."},
    [M_GONE] = {"baton_router_client_gone_total", "counter", "Clients that left before the end."},
    [M_BYTES] = {"baton_router_transfer_bytes_total", "counter",
                 "KV bytes that decode pods took from prefill pods."},
};

typedef struct Series {
    struct Series *next;   /* of the family, in the order they came */
    struct Series *bucket; /* in the table */
    uint64_t hash;
    Family family;
    char *labels;
    double value;
    Histogram histogram;
} Series;

#define BUCKETS 1024

struct RouteMetrics {
    Series *first[FAMILIES], **last[FAMILIES];
    Series *table[BUCKETS];
    size_t count;
    Buf labels;   /* of the series being looked for */
    Series over;  /* takes what is beyond LIMIT_SERIES, is never written */
};

RouteMetrics *route_metrics_new(void) {
    RouteMetrics *metrics = mem_new(sizeof *metrics);
    for (Family f = 0; f < FAMILIES; f++) metrics->last[f] = &metrics->first[f];
    histogram_init(&metrics->over.histogram, long_s, COUNT_OF(long_s));
    return metrics;
}

void route_metrics_free(RouteMetrics *metrics) {
    if (!metrics) return;
    for (Family f = 0; f < FAMILIES; f++)
        for (Series *series = metrics->first[f], *next; series; series = next) {
            next = series->next;
            free(series->labels);
            free(series);
        }
    buf_done(&metrics->labels);
    free(metrics);
}

static Series *series_get(RouteMetrics *m, Family family, const char *const *labels, size_t pairs) {
    buf_clear(&m->labels);
    buf_str(&m->labels, "");
    prom_labels(&m->labels, labels, pairs);
    uint64_t hash = hash64(m->labels.at, m->labels.length, family);
    Series **bucket = &m->table[hash % BUCKETS];
    for (Series *series = *bucket; series; series = series->bucket)
        if (series->hash == hash && series->family == family &&
            !strcmp(series->labels, m->labels.at))
            return series;
    if (m->count == LIMIT_SERIES) return &m->over;
    Series *series = mem_new(sizeof *series);
    m->count++;
    series->hash = hash;
    series->family = family;
    series->labels = mem_dup_str(m->labels.at);
    if (families[family].bounds)
        histogram_init(&series->histogram, families[family].bounds, families[family].bound_count);
    series->bucket = *bucket;
    *bucket = series;
    *m->last[family] = series;
    m->last[family] = &series->next;
    return series;
}

#define SERIES(m, family, ...) \
    series_get(m, family, (const char *const[]){__VA_ARGS__}, \
               sizeof((const char *const[]){__VA_ARGS__}) / (2 * sizeof(const char *)))

/* ---- what happens ---- */

static const char *or_none(const char *text) { return text && *text ? text : "none"; }

static const char *path_of(const RouteRecord *r) {
    static const char *const paths[] = {"/v1/chat/completions", "/v1/completions"};
    for (size_t i = 0; i < COUNT_OF(paths); i++)
        if (str_eq(r->path, paths[i])) return paths[i];
    return "other";
}

static const char *status_text(int status, char out[16]) {
    out[0] = (char)('0' + status / 100 % 10);
    out[1] = (char)('0' + status / 10 % 10);
    out[2] = (char)('0' + status % 10);
    out[3] = 0;
    return out;
}

/* The model's name only lives in the request: it ends there. */
static const char *model_of(const RouteRecord *r, bool known, char out[256]) {
    if (!known || r->model.length > 255) return "unknown";
    memcpy(out, r->model.at, r->model.length);
    out[r->model.length] = 0;
    return out;
}

void route_metrics_begin(RouteMetrics *m) {
    series_get(m, M_ACTIVE, NULL, 0)->value++;
}

void route_metrics_downstream(RouteMetrics *m, const char *model, int change) {
    SERIES(m, M_DOWNSTREAM, "model", model)->value += change;
}

void route_metrics_upstream(RouteMetrics *m, const RouteRecord *r, int change) {
    SERIES(m, M_UPSTREAM, "model_server", or_none(r->server), "model_route", or_none(r->route),
           "backend_type", "model_server", "backend_name", or_none(r->server), "upstream_model",
           or_none(r->upstream_model))
        ->value += change;
}

void route_metrics_call(RouteMetrics *m, const RouteRecord *r, bool prefill, int status,
                        int64_t us) {
    char code[16], model[256];
    Series *series = SERIES(m, prefill ? M_PREFILL : M_DECODE, "model", model_of(r, true, model),
                            "path", path_of(r), "status_code", status_text(status, code));
    histogram_observe(&series->histogram, (double)us / 1e6);
}

void route_metrics_retry(RouteMetrics *m, const char *stage, const char *cause) {
    SERIES(m, M_RETRIES, "stage", stage, "cause", cause)->value++;
}

void route_metrics_degraded(RouteMetrics *m, const char *cause) {
    SERIES(m, M_DEGRADED, "cause", cause)->value++;
}

void route_metrics_gone(RouteMetrics *m, const char *stage) {
    SERIES(m, M_GONE, "stage", stage)->value++;
}

void route_metrics_prefix(RouteMetrics *m, const char *model, double ratio) {
    histogram_observe(&SERIES(m, M_PREFIX_RATIO, "model", model)->histogram, ratio);
}

static void stages(RouteMetrics *m, const RouteRecord *r, const char *model) {
    const struct {
        const char *name;
        int64_t us;
    } all[] = {
        {"route", route_span_us(r->began_us, r->called_us)},
        {"prefill", route_span_us(r->prefill_began_us, r->prefill_ended_us)},
        {"transfer", r->stages.transfer_us},
        {"first_token", route_first_token_us(r)},
        {"decode", route_span_us(r->first_us, r->decode_ended_us)},
    };
    for (size_t i = 0; i < COUNT_OF(all); i++)
        if (all[i].us > 0)
            histogram_observe(&SERIES(m, M_STAGE, "model", model, "stage", all[i].name)->histogram,
                              (double)all[i].us / 1e6);
    if (r->stages.bytes)
        SERIES(m, M_BYTES, "model", model, "rail", r->stages.rail)->value +=
            (double)r->stages.bytes;
}

void route_metrics_end(RouteMetrics *m, const RouteRecord *r, bool known_model) {
    char code[16], name[256];
    const char *model = model_of(r, known_model, name), *path = path_of(r);
    const char *type = r->server ? "model_server" : "unresolved";
    const char *route = or_none(r->route), *server = or_none(r->server),
               *upstream = or_none(r->upstream_model);
    status_text(r->status, code);
    series_get(m, M_ACTIVE, NULL, 0)->value--;
    SERIES(m, M_REQUESTS, "model", model, "path", path, "status_code", code, "error_type",
           r->finish, "model_route", route, "backend_type", type, "backend_name", server,
           "upstream_model", upstream)
        ->value++;
    histogram_observe(&SERIES(m, M_DURATION, "model", model, "path", path, "status_code", code,
                              "model_route", route, "backend_type", type, "backend_name", server,
                              "upstream_model", upstream)
                           ->histogram,
                      (double)route_span_us(r->began_us, r->ended_us) / 1e6);
    const struct {
        const char *type;
        int64_t count;
    } tokens[] = {{"input", r->usage.prompt}, {"output", r->usage.completion}};
    for (size_t i = 0; i < COUNT_OF(tokens); i++)
        if (tokens[i].count > 0)
            SERIES(m, M_TOKENS, "model", model, "path", path, "token_type", tokens[i].type,
                   "model_route", route, "backend_type", type, "backend_name", server,
                   "upstream_model", upstream)
                ->value += (double)tokens[i].count;
    stages(m, r, model);
}

/* ---- written ---- */

static void write_family(const RouteMetrics *m, Family f, Buf *out) {
    prom_family(out, families[f].name, families[f].type, families[f].help);
    for (const Series *series = m->first[f]; series; series = series->next) {
        if (families[f].bounds)
            prom_histogram(out, families[f].name, series->labels, &series->histogram);
        else prom_value(out, families[f].name, series->labels, series->value);
    }
}

typedef double (*PodValue)(const RoutePod *pod);
static double pod_in_flight(const RoutePod *pod) { return pod->in_flight; }
static double pod_resting(const RoutePod *pod) { return route_pod_rests(pod, clock_mono_us()); }
static double pod_ready(const RoutePod *pod) { return pod->ready; }
static double pod_failed(const RoutePod *pod) { return (double)pod->failed; }
static double pod_answered(const RoutePod *pod) { return (double)pod->answered; }
static double pod_prefixes(const RoutePod *pod) { return pod->prefixes.count; }
static double pod_evicted(const RoutePod *pod) { return (double)pod->prefixes.evicted; }

static void write_pods(const RouteTable *table, Buf *out) {
    static const struct {
        const char *name, *type, *help;
        PodValue value;
    } all[] = {
        {"baton_router_pod_in_flight", "gauge", "Calls of the pod under way.", pod_in_flight},
        {"baton_router_pod_ready", "gauge", "1: its manifest says that it is ready.", pod_ready},
        {"baton_router_pod_resting", "gauge", "1: it failed and is asked last.", pod_resting},
        {"baton_router_pod_failures_total", "counter", "Calls that failed.", pod_failed},
        {"baton_router_pod_answers_total", "counter", "Calls that were answered.", pod_answered},
        {"baton_router_pod_prefixes", "gauge", "Prompt beginnings remembered.", pod_prefixes},
        {"baton_router_pod_prefixes_evicted_total", "counter", "Prompt beginnings forgotten.",
         pod_evicted},
    };
    auto_buf Buf labels = {0};
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        prom_family(out, all[i].name, all[i].type, all[i].help);
        for (size_t k = 0; k < table->pod_count; k++) {
            buf_clear(&labels);
            prom_labels(&labels, (const char *const[]){"pod", table->pods[k]->full}, 1);
            prom_value(out, all[i].name, labels.at, all[i].value(table->pods[k]));
        }
    }
}

static void write_prefix_entries(const RouteTable *table, Buf *out) {
    double entries = 0;
    for (size_t i = 0; i < table->pod_count; i++) entries += table->pods[i]->prefixes.count;
    prom_family(out, "kthena_router_prefix_cache_entries", "gauge",
                "Prompt beginnings remembered.");
    prom_value(out, "kthena_router_prefix_cache_entries", "", entries);
}

void route_metrics_write(RouteMetrics *m, const RouteStore *store, uint64_t file_failures,
                         Buf *out) {
    auto_buf Buf labels = {0};
    for (Family f = 0; f < FAMILIES; f++) write_family(m, f, out);
    write_prefix_entries(route_store_table(store), out);
    write_pods(route_store_table(store), out);
    prom_family(out, "baton_router_ignored_fields_total", "counter",
                "Fields of objects that have no effect here.");
    for (RouteIgnored field = 0; field < ROUTE_IGNORED; field++) {
        buf_clear(&labels);
        prom_labels(&labels, (const char *const[]){"field", route_ignored_name(field)}, 1);
        prom_value(out, "baton_router_ignored_fields_total", labels.at,
                   (double)route_store_ignored(store, field));
    }
    prom_family(out, "baton_router_object_failures_total", "counter",
                "Manifests that were refused.");
    prom_value(out, "baton_router_object_failures_total", "", (double)file_failures);
    prom_family(out, "process_cpu_seconds_total", "counter", "CPU time of this process.");
    prom_value(out, "process_cpu_seconds_total", "", (double)clock_cpu_us() / 1e6);
    prom_family(out, "process_resident_memory_bytes", "gauge", "Memory of this process.");
    prom_value(out, "process_resident_memory_bytes", "", (double)mem_resident());
}
