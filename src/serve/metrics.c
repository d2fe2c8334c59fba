// SPDX-License-Identifier: Apache-2.0
/* /metrics: the names, types, labels and buckets of `vllm serve`, and ours with the prefix baton:.
 *
 * A family stands here only if we have something true to say about it. */
#include "internal.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

static const double n_bounds[] = {1, 2, 5, 10, 20};
static const double preemption_bounds[] = {1, 2, 3, 4, 5, 10, 20};
static const double length_bounds[] = {1,   2,    5,    10,   20,    50,    100,   200,
                                       500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};

void serve_stats_init(ServeStats *stats) {
    histogram_init(&stats->params_n, n_bounds, COUNT_OF(n_bounds));
    histogram_init(&stats->params_max_tokens, length_bounds, COUNT_OF(length_bounds));
    histogram_init(&stats->preemptions, preemption_bounds, COUNT_OF(preemption_bounds));
    http_stats_init(&stats->http);
}

typedef struct Page { /* what is being written */
    Buf *out;
    const char *model;
    double created;
    double context;      /* histograms of lengths end there */
    bool without_engine; /* that label is left out */
} Page;

#define SERIES_MAX 16
typedef struct Series { const char *value; double number; } Series; /* value of the extra label */

/* engine="0", model_name and maybe one label more. */
static void labels_of(const Page *page, const char *name, const char *value, Buf *labels) {
    const char *pairs[] = {"engine", "0", "model_name", page->model, name, value};
    size_t first = page->without_engine;
    buf_clear(labels);
    prom_labels(labels, pairs + 2 * first, (name ? 3 : 2) - first);
}

static void gauges(const Page *page, const char *family, const char *help, const char *label,
                   const Series *series, size_t count) {
    auto_buf Buf labels = {0};
    prom_family(page->out, family, "gauge", help);
    for (size_t i = 0; i < count; i++) {
        labels_of(page, label, series[i].value, &labels);
        prom_value(page->out, family, labels.at, series[i].number);
    }
}

static void gauge(const Page *page, const char *family, const char *help, double number) {
    gauges(page, family, help, NULL, &(Series){NULL, number}, 1);
}

/* A counter is two families: its value, and when it began. */
static void counters(const Page *page, const char *family, const char *help, const char *label,
                     const Series *series, size_t count) {
    auto_buf Buf labels = {0};
    char total[96], born[96];
    snprintf(total, sizeof total, "%s_total", family);
    snprintf(born, sizeof born, "%s_created", family);
    prom_family(page->out, total, "counter", help);
    for (size_t i = 0; i < count; i++) {
        labels_of(page, label, series[i].value, &labels);
        prom_value(page->out, total, labels.at, series[i].number);
    }
    prom_family(page->out, born, "gauge", help);
    for (size_t i = 0; i < count; i++) {
        labels_of(page, label, series[i].value, &labels);
        prom_value(page->out, born, labels.at, page->created);
    }
}

static void counter(const Page *page, const char *family, const char *help, double number) {
    counters(page, family, help, NULL, &(Series){NULL, number}, 1);
}

static double value_of(const Counter *counter_) { return (double)counter_get(counter_); }

/* `most` > 0: without the buckets above it. */
static void histogram(const Page *page, const char *family, const char *help, const Histogram *h,
                      double most) {
    Histogram cut;
    histogram_init(&cut, h->bounds, h->bound_count);
    while (most > 0 && cut.bound_count > 1 && cut.bounds[cut.bound_count - 1] > most)
        cut.bound_count--;
    for (size_t i = 0; i <= h->bound_count; i++) {
        size_t to = i < cut.bound_count ? i : cut.bound_count;
        atomic_fetch_add(&cut.counts[to], atomic_load(&h->counts[i]));
    }
    atomic_store(&cut.sum_micro, atomic_load(&h->sum_micro));
    auto_buf Buf labels = {0};
    char born[96];
    snprintf(born, sizeof born, "%s_created", family);
    labels_of(page, NULL, NULL, &labels);
    prom_family(page->out, family, "histogram", help);
    prom_histogram(page->out, family, labels.at, &cut);
    prom_family(page->out, born, "gauge", help);
    prom_value(page->out, born, labels.at, page->created);
}

/* ---- the process ---- */

static double open_files(void) {
    DIR *dir = opendir("/proc/self/fd");
    double count = -3; /* ".", "..", and the one that reads this */
    while (dir && readdir(dir)) count++;
    if (dir) closedir(dir);
    return dir ? count : 0;
}

static double virtual_bytes(void) {
    Err err = {0};
    size_t length;
    auto_free char *pages = file_read("/proc/self/statm", 4 * KIB, &length, &err);
    return pages ? (double)strtoull(pages, NULL, 10) * (double)sysconf(_SC_PAGESIZE) : 0;
}

static void write_process(const Page *page) {
    struct rlimit files = {0};
    getrlimit(RLIMIT_NOFILE, &files);
    const struct { const char *name, *type, *help; double number;
    } rows[] = {
        {"process_virtual_memory_bytes", "gauge", "Address space in bytes.", virtual_bytes()},
        {"process_resident_memory_bytes", "gauge", "Memory in use in bytes.",
         (double)mem_resident()},
        {"process_start_time_seconds", "gauge", "Start, in seconds since 1970.", page->created},
        {"process_cpu_seconds_total", "counter", "CPU time of all threads in seconds.",
         (double)clock_cpu_us() / 1e6},
        {"process_open_fds", "gauge", "Open descriptors.", open_files()},
        {"process_max_fds", "gauge", "Descriptors that may be open.", (double)files.rlim_cur},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        prom_family(page->out, rows[i].name, rows[i].type, rows[i].help);
        prom_value(page->out, rows[i].name, "", rows[i].number);
    }
}

/* ---- scheduling ---- */

static void write_queue(const Page *page, const Serve *serve, const EngineStats *s) {
    double running = (double)gauge_get(&s->running), waiting = (double)gauge_get(&s->waiting),
           loading = (double)gauge_get(&s->loading), total = (double)gauge_get(&s->blocks_total);
    double used = (double)(gauge_get(&s->blocks_held) + gauge_get(&s->blocks_leased));
    gauge(page, "vllm:num_requests_running", "Requests that compute.", running);
    gauge(page, "vllm:num_requests_waiting", "Requests that wait to compute.", waiting + loading);
    gauges(page, "vllm:num_requests_waiting_by_reason",
           "Waiting requests: capacity for room, deferred for KV that is on its way.", "reason",
           (Series[]){{"capacity", waiting}, {"deferred", loading}}, 2);
    if (serve->conf->role == ROLE_CONSUMER || serve->conf->role == ROLE_BOTH)
        gauges(page, "vllm:num_requests_kv_fetch_by_stage",
               "Requests whose KV comes from a prefill engine.", "stage",
               (Series[]){{"waiting_to_start", 0}, {"in_progress", loading},
                          {"completed_waiting", 0}}, 3);
    gauges(page, "vllm:engine_sleep_state", "This engine does not sleep.", "sleep_state",
           (Series[]){{"awake", 1}, {"weights_offloaded", 0}, {"discard_all", 0}}, 3);
    gauge(page, "vllm:kv_cache_usage_perc", "Share of the KV cache in use, 1 is all of it.",
          total > 0 ? used / total : 0);
}

static void write_tokens(const Page *page, const EngineStats *s) {
    double computed = value_of(&s->computed_tokens), cached = value_of(&s->cached_tokens),
           pulled = value_of(&s->pulled_tokens);
    const struct { const char *name, *help; const Counter *number;
    } rows[] = {
        {"vllm:prefix_cache_queries", "Tokens looked up in the prefix cache.", &s->prefix_queries},
        {"vllm:prefix_cache_hits", "Tokens found in the prefix cache.", &s->prefix_hits},
        {"vllm:external_prefix_cache_queries", "Tokens asked of prefill engines.",
         &s->external_queries},
        {"vllm:external_prefix_cache_hits", "Tokens whose KV prefill engines gave.",
         &s->external_hits},
        {"vllm:num_preemptions", "Requests put back for want of room.", &s->preemptions},
        {"vllm:prompt_tokens", "Tokens of prompts.", &s->prompt_tokens},
        {"vllm:generation_tokens", "Tokens generated.", &s->generation_tokens},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        counter(page, rows[i].name, rows[i].help, value_of(rows[i].number));
    counter(page, "vllm:mm_cache_queries", "Media looked up: models here read text.", 0);
    counter(page, "vllm:mm_cache_hits", "Media found: models here read text.", 0);
    counters(page, "vllm:prompt_tokens_by_source", "Tokens of prompts by where their KV came from.",
             "source", (Series[]){{"local_compute", computed}, {"local_cache_hit", cached},
                                  {"external_kv_transfer", pulled}}, 3);
    counter(page, "vllm:prompt_tokens_cached", "Tokens of prompts that were not computed here.",
            cached + pulled);
    counters(page, "vllm:prompt_tokens_cached_by_source",
             "Tokens of prompts that were not computed here, by who had them.", "source",
             (Series[]){{"device", cached}, {"host", 0}, {"p2p", pulled}, {"disk", 0},
                        {"external_unspecified", 0}}, 5);
}

static void write_ends(const Page *page, const Serve *serve, const EngineStats *s) {
    const Counter *finished = serve->stats.finished;
    counters(page, "vllm:request_success", "Answers by how they ended.", "finished_reason",
             (Series[]){{"stop", value_of(&finished[FINISH_STOP])},
                        {"length", value_of(&finished[FINISH_LENGTH])},
                        {"abort", value_of(&finished[FINISH_ABORT])},
                        {"error", value_of(&finished[FINISH_ERROR])}, {"repetition", 0}}, 5);
    Page front = *page; /* they never came to an engine */
    front.without_engine = true;
    counters(&front, "vllm:admission_rejections", "Requests refused because the queue was full.",
             "reason", (Series[]){{"max_num_queued_reqs", value_of(&s->rejected)},
                                  {"max_num_queued_tokens", 0}}, 2);
}

static void write_histograms(const Page *page, const Serve *serve, const EngineStats *s) {
    double context = page->context;
    const struct { const char *name, *help; const Histogram *h; double most;
    } rows[] = {
        {"vllm:request_prompt_tokens", "Tokens of a prompt.", &s->request_prompt, context},
        {"vllm:request_generation_tokens", "Tokens of an answer.", &s->request_generation, context},
        {"vllm:iteration_tokens_total", "Tokens of a step.", &s->step_tokens, 0},
        {"vllm:request_max_num_generation_tokens", "Tokens that an answer could have.",
         &s->request_max_tokens, context},
        {"vllm:request_params_n", "The parameter n.", &serve->stats.params_n, 0},
        {"vllm:request_params_max_tokens", "The parameter max_tokens.",
         &serve->stats.params_max_tokens, context},
        {"vllm:time_to_first_token_seconds", "From arrival to the first token.", &s->first_token,
         0},
        {"vllm:inter_token_latency_seconds", "From one token to the next.", &s->inter_token, 0},
        {"vllm:request_time_per_output_token_seconds", "Mean time of an answer's tokens.",
         &s->per_output_token, 0},
        {"vllm:e2e_request_latency_seconds", "From arrival to the last token.", &s->end_to_end, 0},
        {"vllm:request_queue_time_seconds", "From arrival to the first step.", &s->queue, 0},
        {"vllm:request_inference_time_seconds", "From the first step to the last token.",
         &s->inference, 0},
        {"vllm:request_prefill_time_seconds", "From the first step to the first token.",
         &s->prefill, 0},
        {"vllm:request_decode_time_seconds", "From the first token to the last.", &s->decode, 0},
        {"vllm:request_num_preemptions", "How often a request was put back.",
         &serve->stats.preemptions, 0},
        {"vllm:request_prefill_kv_computed_tokens", "Tokens of a prompt computed here.",
         &s->request_computed, context},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        histogram(page, rows[i].name, rows[i].help, rows[i].h, rows[i].most);
}

static void write_cache_config(const Page *page, const Serve *serve, const EngineStats *s) {
    const EngineConf *conf = engine_conf(serve->engine);
    long long blocks = (long long)gauge_get(&s->blocks_total);
    char size[24], count[24], bytes[24], tokens[24], concurrency[32];
    long long held = blocks * KV_BLOCK_TOKENS;
    snprintf(size, sizeof size, "%zu", conf->block_tokens);
    snprintf(count, sizeof count, "%lld", held / (long long)conf->block_tokens);
    snprintf(bytes, sizeof bytes, "%zu", conf->pool_bytes);
    snprintf(tokens, sizeof tokens, "%lld", held);
    snprintf(concurrency, sizeof concurrency, "%.4g", (double)held / page->context);
    const char *pairs[] = {"block_size", size, "cache_dtype", "auto",
                           "effective_attention_block_size", size,
                           "enable_prefix_caching", conf->prefix_caching ? "True" : "False",
                           "engine", "0", "is_attention_free", "False",
                           "kv_cache_max_concurrency", concurrency, "kv_cache_memory_bytes", bytes,
                           "kv_cache_size_tokens", tokens, "num_cpu_blocks", "None",
                           "num_gpu_blocks", count, "num_gpu_blocks_override", "None",
                           "prefix_caching_hash_algo", "xxh3_128", "sliding_window", "None"};
    auto_buf Buf labels = {0};
    prom_labels(&labels, pairs, COUNT_OF(pairs) / 2);
    prom_family(page->out, "vllm:cache_config_info", "gauge", "What the KV cache is.");
    prom_value(page->out, "vllm:cache_config_info", labels.at, 1);
}

/* ---- between engines ---- */

static void write_nixl(const Page *page, const KvAgentStats *s) {
    double failed = value_of(&s->pulls_failed);
    histogram(page, "vllm:nixl_xfer_time_seconds", "Time of a pull of KV.", &s->pull_seconds, 0);
    histogram(page, "vllm:nixl_bytes_transferred", "Bytes of a pull of KV.", &s->pull_bytes, 0);
    histogram(page, "vllm:nixl_num_descriptors", "Blocks of a pull of KV.", &s->pull_blocks, 0);
    counter(page, "vllm:nixl_num_failed_transfers", "Pulls of KV that failed.", failed);
    counter(page, "vllm:nixl_num_failed_notifications", "Counted among the failed transfers.", 0);
    counter(page, "vllm:nixl_num_kv_expired_reqs", "Offers of KV that nobody took in time.",
            value_of(&s->offers_expired));
    counter(page, "vllm:nixl_num_notifications_after_expiry",
            "Readers that were told that their offer had gone.", value_of(&s->late_releases));
}

static void write_baton_kv(const Page *page, const KvAgentStats *s) {
    Series failures[ERR_CODES];
    size_t count = 0;
    for (int code = ERR_INVALID; code < ERR_CODES; code++)
        failures[count++] = (Series){err_name((ErrCode)code), value_of(&s->failed_by_code[code])};
    counters(page, "baton:kv_pulls", "Pulls of KV.", "result",
             (Series[]){{"ok", value_of(&s->pulls_ok)}, {"failed", value_of(&s->pulls_failed)}}, 2);
    counters(page, "baton:kv_pull_failures", "Failed pulls by cause.", "cause", failures, count);
    counters(page, "baton:kv_rail_used", "Pulls by what carried them.", "rail",
             (Series[]){{"shm", value_of(&s->rail_used[KV_RAIL_SHM])},
                        {"tcp", value_of(&s->rail_used[KV_RAIL_TCP])}}, 2);
    counter(page, "baton:kv_rail_downgraded", "Pulls that could not use the best rail.",
            value_of(&s->rail_downgraded));
    counter(page, "baton:kv_offers", "Offers of KV to decode engines.", value_of(&s->offers));
    counter(page, "baton:kv_offers_released", "Offers that their reader gave back.",
            value_of(&s->offers_released));
    counter(page, "baton:kv_late_releases", "Readers that came after the end of an offer.",
            value_of(&s->late_releases));
    counters(page, "baton:kv_bytes", "Bytes of KV moved.", "direction",
             (Series[]){{"in", value_of(&s->bytes_in)}, {"out", value_of(&s->bytes_out)}}, 2);
}

static void write_baton(const Page *page, const Serve *serve, const EngineStats *s) {
    static const char *const here[DEGRADED_HERE] = {"no_connector", "role", "stream"};
    static const char *const roles[] = {"none", "kv_producer", "kv_consumer", "kv_both"};
    Series causes[ERR_CODES + DEGRADED_HERE];
    size_t count = 0;
    double all = 0;
    char threads[16];
    snprintf(threads, sizeof threads, "%lld", (long long)serve->conf->threads);
    const char *pairs[] = {"engine_id", engine_id(serve->engine), "kernels", kernels->name,
                           "model_name", page->model, "role", roles[serve->conf->role],
                           "threads", threads, "version", BATON_VERSION};
    auto_buf Buf labels = {0};
    prom_labels(&labels, pairs, COUNT_OF(pairs) / 2);
    prom_family(page->out, "baton:info", "gauge", "What runs here.");
    prom_value(page->out, "baton:info", labels.at, 1);
    gauges(page, "baton:kv_blocks", "Blocks of the KV cache by state; each is in one.", "state",
           (Series[]){{"free", (double)gauge_get(&s->blocks_free)},
                      {"cached", (double)gauge_get(&s->blocks_cached)},
                      {"held", (double)gauge_get(&s->blocks_held)},
                      {"leased", (double)gauge_get(&s->blocks_leased)}}, 4);
    gauge(page, "baton:kv_blocks_capacity", "Blocks of the KV cache.",
          (double)gauge_get(&s->blocks_total));
    gauge(page, "baton:kv_leases", "Promises of KV to decode engines that stand.",
          (double)gauge_get(&s->leases));
    gauge(page, "baton:draining", "1: no new requests are taken.", serve->draining);
    counter(page, "baton:steps", "Forward passes.", value_of(&s->steps));
    for (int code = ERR_INVALID; code < ERR_CODES; code++)
        causes[count++] = (Series){err_name((ErrCode)code), value_of(&s->degraded_by[code])};
    for (int i = 0; i < DEGRADED_HERE; i++)
        causes[count++] = (Series){here[i], value_of(&serve->stats.degraded[i])};
    for (size_t i = 0; i < count; i++) all += causes[i].number;
    counter(page, "baton:degraded", "Requests served in a worse way than was asked for.", all);
    counters(page, "baton:degraded_by_cause", "Requests served in a worse way, by cause.", "cause",
             causes, count);
}

void serve_metrics(const Serve *serve, Buf *out) {
    const EngineStats *s = engine_stats(serve->engine);
    const KvAgentStats *kv = engine_kv_stats(serve->engine);
    Page page = {.out = out, .model = serve_name(serve), .created = (double)serve->started_us / 1e6,
                 .context = (double)serve->context};
    write_process(&page);
    write_queue(&page, serve, s);
    write_tokens(&page, s);
    write_ends(&page, serve, s);
    write_histograms(&page, serve, s);
    write_cache_config(&page, serve, s);
    if (kv) {
        write_nixl(&page, kv);
        write_baton_kv(&page, kv);
    }
    write_baton(&page, serve, s);
    http_stats_write(&serve->stats.http, page.created, out);
}
