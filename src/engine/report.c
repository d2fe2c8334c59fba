// SPDX-License-Identifier: Apache-2.0
/* What the worker tells others about itself: the ledger as JSON, gauges, the buckets of its
 * histograms. */
#include "internal.h"

#include "text/text.h"

static const double first_token_bounds[] = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75,
                                            1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560};
static const double token_bounds[] = {.01, .025, .05, .075, .1,  .15, .2, .3, .4, .5,
                                      .75, 1,    2.5, 5,    7.5, 10,  20, 40, 80};
static const double request_bounds[] = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                        30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
static const double step_bounds[] = {1,   8,    16,   32,   64,   128,  256,
                                     512, 1024, 2048, 4096, 8192, 16384};
static const double length_bounds[] = {1,   2,    5,    10,   20,    50,    100,   200,
                                       500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};

void report_init(EngineStats *s) {
    const struct { Histogram *histogram; const double *bounds; size_t count; } all[] = {
        {&s->first_token, first_token_bounds, COUNT_OF(first_token_bounds)},
        {&s->inter_token, token_bounds, COUNT_OF(token_bounds)},
        {&s->per_output_token, token_bounds, COUNT_OF(token_bounds)},
        {&s->end_to_end, request_bounds, COUNT_OF(request_bounds)},
        {&s->queue, request_bounds, COUNT_OF(request_bounds)},
        {&s->prefill, request_bounds, COUNT_OF(request_bounds)},
        {&s->decode, request_bounds, COUNT_OF(request_bounds)},
        {&s->inference, request_bounds, COUNT_OF(request_bounds)},
        {&s->step_tokens, step_bounds, COUNT_OF(step_bounds)},
        {&s->request_prompt, length_bounds, COUNT_OF(length_bounds)},
        {&s->request_generation, length_bounds, COUNT_OF(length_bounds)},
        {&s->request_max_tokens, length_bounds, COUNT_OF(length_bounds)},
        {&s->request_computed, length_bounds, COUNT_OF(length_bounds)},
    };
    for (size_t i = 0; i < COUNT_OF(all); i++)
        histogram_init(all[i].histogram, all[i].bounds, all[i].count);
}

void report_gauges(Engine *e) {
    KvLedger ledger;
    kv_ledger(e->pool, &ledger);
    EngineStats *s = &e->stats;
    gauge_set(&s->running, (int64_t)e->lists[TASK_RUNNING].count);
    gauge_set(&s->waiting, (int64_t)e->lists[TASK_WAITING].count);
    gauge_set(&s->loading, (int64_t)e->lists[TASK_LOADING].count);
    gauge_set(&s->blocks_total, (int64_t)ledger.capacity);
    gauge_set(&s->blocks_free, (int64_t)ledger.free);
    gauge_set(&s->blocks_cached, (int64_t)ledger.cached);
    gauge_set(&s->blocks_held, (int64_t)ledger.held);
    gauge_set(&s->blocks_leased, (int64_t)ledger.leased);
    gauge_set(&s->leases, (int64_t)kv_lease_count(e->pool));
}

static void write_requests(const Engine *e, Buf *out) {
    static const char *const states[] = {"waiting", "loading", "running"};
    bool first = true;
    for (int s = 0; s < TASK_STATES; s++)
        for (const EngineTask *t = e->lists[s].first; t; t = t->behind, first = false) {
            buf_str(out, first ? "" : ",");
            buf_str(out, "{\"request\":");
            buf_json_str(out, str_of(t->request->id));
            buf_printf(
                out,
                ",\"state\":\"%s\",\"tokens\":%zu,\"computed\":%zu,\"blocks\":%zu,\"age_s\":%.3f}",
                states[s], t->token_count, t->computed, t->block_count,
                (double)(clock_mono_us() - t->request->clock.submitted) / 1e6);
        }
}

static void write_leases(const Engine *e, Buf *out) {
    KvLeaseInfo lease;
    int64_t now = clock_mono_us();
    for (size_t i = 0; kv_lease_at(e->pool, i, &lease); i++) {
        buf_str(out, i ? "," : "");
        buf_str(out, "{\"request\":");
        buf_json_str(out, str_of(lease.request));
        buf_printf(out, ",\"tokens\":%zu,\"blocks\":%zu,\"age_s\":%.3f,\"expires_in_s\":%.3f}",
                   lease.tokens, lease.block_count, (double)(now - lease.since_us) / 1e6,
                   (double)(lease.deadline_us - now) / 1e6);
    }
}

char *report_ledger(Engine *e) {
    static const char *const roles[] = {"none", "kv_producer", "kv_consumer", "kv_both"};
    KvLedger l;
    Err err = {0};
    kv_ledger(e->pool, &l);
    bool balanced = kv_pool_check(e->pool, &err);
    Buf out = {0};
    buf_str(&out, "{\"engine_id\":");
    buf_json_str(&out, str_of(e->id));
    buf_printf(&out, ",\"boot_epoch\":\"%016llx\",\"role\":\"%s\"",
               (unsigned long long)engine_epoch(e), roles[e->conf.role]);
    buf_printf(&out, ",\"block_tokens\":%d,\"block_bytes\":%zu", KV_BLOCK_TOKENS,
               model_page_bytes(e->model));
    buf_printf(
        &out, ",\"blocks\":{\"total\":%zu,\"free\":%zu,\"cached\":%zu,\"held\":%zu,\"leased\":%zu}",
        l.capacity, l.free, l.cached, l.held, l.leased);
    buf_printf(&out, ",\"balanced\":%s,\"imbalance\":", balanced ? "true" : "false");
    if (balanced) buf_str(&out, "null");
    else buf_json_str(&out, str_of(err.message));
    buf_str(&out, ",\"requests\":[");
    write_requests(e, &out);
    buf_str(&out, "],\"leases\":[");
    write_leases(e, &out);
    buf_printf(&out, "],\"leases_opened\":%llu,\"leases_released\":%llu,\"leases_expired\":%llu",
               (unsigned long long)l.leases_opened, (unsigned long long)l.leases_released,
               (unsigned long long)l.leases_expired);
    buf_printf(&out,
               ",\"prefix\":{\"queried_tokens\":%llu,\"hit_tokens\":%llu,\"evicted_blocks\":%llu}}",
               (unsigned long long)l.prefix_queries, (unsigned long long)l.prefix_hits,
               (unsigned long long)l.evictions);
    return buf_take(&out);
}
