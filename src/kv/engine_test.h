// SPDX-License-Identifier: Apache-2.0
/* engine_test.h - for tests of the agent: an engine that computes nothing, with a pool and an
 * agent.
 *
 * What the agent says on its thread comes to the test's thread as Events.  A prompt is a number:
 * the tokens and the bytes of its blocks follow from it, so anyone can check what was moved. */
#ifndef BATON_KV_ENGINE_TEST_H
#define BATON_KV_ENGINE_TEST_H

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"
#include <cmocka.h>

#define UNUSED __attribute__((unused))
#define PATIENCE_US 20000000 /* nothing here takes that long: then the test fails */

static const KvShape engine_shape UNUSED = {
    .layers = 2, .kv_heads = 2, .head_dim = 8, .fingerprint = 99}; /* blocks of 2 KiB */

typedef struct Event {
    enum { EVENT_ENDED, EVENT_RENEWED, EVENT_DONE } kind;
    KvLease lease;
    KvEnd end;
    int64_t deadline_us;
    KvPullResult result;
} Event;

typedef struct Engine {
    KvShape shape;
    KvPool *pool;
    KvAgent *agent;
    Mailbox *events;
    char id[64];
    unsigned renewals;
} Engine;

static void engine_event(Engine *engine, Event event) {
    Event *copy = mem_new(sizeof *copy);
    *copy = event;
    mailbox_send(engine->events, copy);
}

static void on_ended(KvLease lease, KvEnd end, void *user) {
    engine_event(user, (Event){.kind = EVENT_ENDED, .lease = lease, .end = end});
}
static void on_renewed(KvLease lease, int64_t deadline_us, void *user) {
    engine_event(user,
                 (Event){.kind = EVENT_RENEWED, .lease = lease, .deadline_us = deadline_us});
}
static void on_done(const KvPullResult *result, void *user) {
    engine_event(user, (Event){.kind = EVENT_DONE, .result = *result});
}

typedef struct EngineConf {
    const char *id;  /* NULL: made up, unlike any other */
    KvRail rail;
    const KvShape *shape; /* NULL: engine_shape */
    size_t blocks;   /* 0: 64 */
    int64_t lease_us; /* 0: 10 s */
    int port;
} EngineConf;

UNUSED static KvAgentConf engine_agent_conf(Engine *engine, EngineConf conf) {
    return (KvAgentConf){.pool = engine->pool,
                         .engine_id = engine->id,
                         .host = "127.0.0.1",
                         .port = conf.port,
                         .rail = conf.rail,
                         .lease_us = conf.lease_us ? conf.lease_us : 10000000,
                         .offer_ended = on_ended,
                         .offer_renewed = on_renewed,
                         .pull_done = on_done,
                         .user = engine};
}

UNUSED static void engine_open(Engine *engine, EngineConf conf) {
    Err err = {0};
    uint64_t unique;
    random_bytes(&unique, sizeof unique);
    *engine = (Engine){.shape = conf.shape ? *conf.shape : engine_shape, .events = mailbox_new()};
    if (conf.id) snprintf(engine->id, sizeof engine->id, "%s", conf.id);
    else snprintf(engine->id, sizeof engine->id, "engine-%016llx", (unsigned long long)unique);
    engine->pool = kv_pool_new(&engine->shape,
                               (conf.blocks ? conf.blocks : 64) * kv_block_bytes(&engine->shape),
                               &err);
    if (!engine->pool) fail_msg("%s", err.message);
    KvAgentConf agent_conf = engine_agent_conf(engine, conf);
    engine->agent = kv_agent_open(&agent_conf, &err);
    if (!engine->agent) fail_msg("%s", err.message);
}

/* ---- prompts ---- */

UNUSED static void prompt_chain(const KvShape *shape, uint32_t prompt, size_t tokens,
                                KvHash *chain) {
    KvHash before = kv_chain_root(shape, STR(""));
    for (size_t i = 0; i < kv_blocks_for(tokens); i++) {
        int32_t block[KV_BLOCK_TOKENS];
        size_t count = tokens - i * KV_BLOCK_TOKENS;
        if (count > KV_BLOCK_TOKENS) count = KV_BLOCK_TOKENS;
        for (size_t k = 0; k < count; k++) block[k] = (int32_t)(prompt * 1000 + i * 16 + k);
        before = chain[i] = kv_chain_next(before, block, count);
    }
}

UNUSED static void prompt_fill(uint8_t *block, size_t bytes, uint32_t prompt, size_t index) {
    uint64_t value = (uint64_t)prompt << 32 | index;
    for (size_t i = 0; i + 8 <= bytes; i += 8) {
        value = value * 6364136223846793005u + 1442695040888963407u;
        memcpy(block + i, &value, 8);
    }
}

UNUSED static bool prompt_lies_in(const uint8_t *block, size_t bytes, uint32_t prompt,
                                  size_t index) {
    auto_free uint8_t *want = mem_new(bytes);
    prompt_fill(want, bytes, prompt, index);
    return !memcmp(block, want, bytes);
}

/* ---- the engine's work ---- */

#define PROMPT_BLOCKS_MAX 4096

UNUSED static KvLease engine_offer(Engine *engine, const char *request, uint32_t prompt,
                                   size_t tokens, int64_t deadline_us) {
    size_t count = kv_blocks_for(tokens), bytes = kv_block_bytes(&engine->shape);
    auto_free KvBlock *blocks = mem_new(count * sizeof *blocks);
    auto_free KvHash *chain = mem_new(count * sizeof *chain);
    prompt_chain(&engine->shape, prompt, tokens, chain);
    for (size_t i = 0; i < count; i++) {
        blocks[i] = kv_block_take(engine->pool);
        assert_int_not_equal(blocks[i], KV_NONE);
        prompt_fill(kv_block_data(engine->pool, blocks[i]), bytes, prompt, i);
    }
    KvLease lease = kv_lease_open(engine->pool, request, blocks, count, tokens, deadline_us);
    for (size_t i = 0; i < count; i++) kv_block_unref(engine->pool, blocks[i]);
    KvOffer offer = {.lease = lease,
                     .request = request,
                     .blocks = blocks,
                     .chain = chain,
                     .block_count = count,
                     .tokens = tokens,
                     .cached_tokens = (uint32_t)(tokens / 2),
                     .first = {.token = (int32_t)prompt,
                               .top_count = 2,
                               .sampling_hash = 77,
                               .logprob = -0.5f,
                               .rank = 1,
                               .top_tokens = {(int32_t)prompt, 5},
                               .top_logprobs = {-0.5f, -2.25f}},
                     .deadline_us = deadline_us};
    kv_agent_offer(engine->agent, &offer);
    return lease;
}

typedef struct Plan { /* one pull; begun by engine_pull(), ended by engine_pull_done() */
    Engine *engine;
    KvBlock *blocks;
    KvHash *chain;
    size_t count, skip;
    uint32_t prompt;
    KvPull pull;
} Plan;

/* Its destinations are filled with something else first. */
UNUSED static void plan_init(Plan *plan, Engine *engine, const Engine *peer, const char *request,
                             uint32_t prompt, size_t tokens, size_t skip) {
    *plan = (Plan){
        .engine = engine, .count = kv_blocks_for(tokens), .skip = skip, .prompt = prompt};
    plan->chain = mem_new(plan->count * sizeof *plan->chain);
    plan->blocks = mem_new((plan->count - skip + 1) * sizeof *plan->blocks);
    prompt_chain(&engine->shape, prompt, tokens, plan->chain);
    for (size_t i = 0; i < plan->count - skip; i++) {
        plan->blocks[i] = kv_block_take(engine->pool);
        assert_int_not_equal(plan->blocks[i], KV_NONE);
        memset(kv_block_data(engine->pool, plan->blocks[i]), 0xee, kv_block_bytes(&engine->shape));
    }
    plan->pull = (KvPull){.peer_engine = peer->id,
                          .peer_host = "127.0.0.1",
                          .peer_port = peer->agent ? kv_agent_port(peer->agent) : 1,
                          .peer_epoch = peer->agent ? kv_agent_epoch(peer->agent) : 0,
                          .peer_request = request,
                          .chain = plan->chain,
                          .block_count = plan->count,
                          .tokens = tokens,
                          .skip = skip,
                          .blocks = plan->blocks,
                          .deadline_us = clock_mono_us() + PATIENCE_US / 2,
                          .user = plan};
}

UNUSED static void plan_done(Plan *plan) {
    for (size_t i = 0; i < plan->count - plan->skip; i++)
        kv_block_unref(plan->engine->pool, plan->blocks[i]);
    free(plan->chain);
    free(plan->blocks);
}

UNUSED static bool plan_arrived(const Plan *plan) {
    for (size_t i = plan->skip; i < plan->count; i++)
        if (!prompt_lies_in(kv_block_data(plan->engine->pool, plan->blocks[i - plan->skip]),
                            kv_block_bytes(&plan->engine->shape), plan->prompt, i))
            return false;
    return true;
}

/* The next event that is not a renewal (those are counted); closes the lease of an ended offer. */
UNUSED static Event engine_wait(Engine *engine) {
    for (;;) {
        Event *event = mailbox_take(engine->events, PATIENCE_US);
        if (!event) fail_msg("engine %s: nothing happened", engine->id);
        Event copy = *event;
        free(event);
        if (copy.kind == EVENT_RENEWED) {
            engine->renewals++;
            kv_lease_renew(engine->pool, copy.lease, copy.deadline_us);
            continue;
        }
        if (copy.kind == EVENT_ENDED) assert_true(kv_lease_close(engine->pool, copy.lease));
        return copy;
    }
}

UNUSED static void assert_ended(Engine *engine, KvLease lease, KvEnd end) {
    Event event = engine_wait(engine);
    assert_int_equal(event.kind, EVENT_ENDED);
    assert_int_equal(event.lease, lease);
    assert_int_equal(event.end, end);
}

UNUSED static KvPullResult engine_result(Engine *engine) {
    Event event = engine_wait(engine);
    assert_int_equal(event.kind, EVENT_DONE);
    return event.result;
}

UNUSED static KvPullResult engine_pull(Plan *plan) {
    kv_agent_pull(plan->engine->agent, &plan->pull);
    KvPullResult result = engine_result(plan->engine);
    assert_ptr_equal(result.user, plan);
    return result;
}

/* Nothing is held or leased any more, and every offer and pull was counted. */
UNUSED static void engine_close(Engine *engine) {
    Err err = {0};
    kv_agent_close(engine->agent);
    for (Event *event; (event = mailbox_take(engine->events, 0)); free(event))
        if (event->kind == EVENT_ENDED) kv_lease_close(engine->pool, event->lease);
    KvLedger ledger;
    kv_ledger(engine->pool, &ledger);
    if (!kv_pool_check(engine->pool, &err)) fail_msg("%s", err.message);
    if (ledger.held || ledger.leased)
        fail_msg("engine %s: %zu blocks are held, %zu leased", engine->id, ledger.held,
                 ledger.leased);
    kv_pool_free(engine->pool);
    mailbox_close(engine->events, free);
}

/* `*` in the pattern stands for any text. */
UNUSED static bool text_is_like(const char *text, const char *pattern) {
    while (*pattern && *pattern != '*') {
        if (*pattern++ != *text++) return false;
    }
    if (!*pattern) return !*text;
    do
        if (text_is_like(text, pattern + 1)) return true;
    while (*text++);
    return false;
}

UNUSED static void assert_like(const char *text, const char *pattern) {
    if (!text_is_like(text, pattern)) fail_msg("'%s' is not like '%s'", text, pattern);
}

#endif
