// SPDX-License-Identifier: Apache-2.0
/* The two ends of a hand-over.  Prefill: the prompt's blocks are leased and offered together with
 * the first token. Decode: they are pulled, and the first token is taken as if it had been sampled
 * here.
 *
 *     WAITING ──blocks reserved──▶ LOADING ──pulled──▶ RUNNING, or finished with the first token
 *                                     └────failed────▶ WAITING, to be computed here (strict: an
 * error) */
#include <stdio.h>
#include <stdlib.h>

#include "internal.h"

/* ---- the agent's callbacks, on its thread: forwarded ---- */

static void on_offer_ended(KvLease lease, KvEnd end, void *user) {
    engine_send(user, &(Message){.kind = MESSAGE_OFFER_ENDED, .lease = lease, .end = end});
}

static void on_offer_renewed(KvLease lease, int64_t deadline_us, void *user) {
    engine_send(
        user,
        &(Message){.kind = MESSAGE_OFFER_RENEWED, .lease = lease, .deadline_us = deadline_us});
}

static void on_pull_done(const KvPullResult *result, void *user) {
    engine_send(user, &(Message){.kind = MESSAGE_PULLED, .pulled = *result});
}

bool handover_open(Engine *e, Err *err) {
    if (e->conf.role == ROLE_NONE) return true;
    KvAgentConf conf = {
        .pool = e->pool,
        .engine_id = e->id,
        .host = e->kv_host,
        .port = e->conf.kv_port,
        .rail = e->conf.rail,
        .lease_us = e->conf.lease_us,
        .offer_ended = on_offer_ended,
        .offer_renewed = on_offer_renewed,
        .pull_done = on_pull_done,
        .user = e,
    };
    return (e->agent = kv_agent_open(&conf, err)) != NULL;
}

/* ---- prefill ---- */

static KvFirstToken first_token(const EngineTask *t) {
    KvFirstToken first = {.token = t->first.token, .sampling_hash = t->sampling_hash};
    if (t->request->sampling.logprobs < 0) return first; /* rank 0: no log-probabilities */
    first.logprob = t->first.logprob;
    first.rank = t->first.rank;
    first.top_count = t->first.top_count;
    memcpy(first.top_tokens, t->first.top_tokens, sizeof first.top_tokens);
    memcpy(first.top_logprobs, t->first.top_logprobs, sizeof first.top_logprobs);
    return first;
}

/* The chain of all blocks of the prompt, the last one maybe partial. */
static KvHash *prompt_chain(const EngineTask *t, size_t *count) {
    size_t tokens = t->request->prompt_count;
    *count = kv_blocks_for(tokens);
    KvHash *chain = mem_new(*count * sizeof *chain), before = t->root;
    for (size_t i = 0; i < *count; i++) {
        size_t at = i * KV_BLOCK_TOKENS,
               n = tokens - at < KV_BLOCK_TOKENS ? tokens - at : KV_BLOCK_TOKENS;
        before = chain[i] = kv_chain_next(before, t->tokens + at, n);
    }
    return chain;
}

void handover_offer(Engine *e, EngineTask *t) {
    EngineRequest *r = t->request;
    size_t count;
    auto_free KvHash *chain = prompt_chain(t, &count);
    int64_t deadline = clock_mono_us() + e->conf.lease_us;
    KvOffer offer = {
        .request = r->id,
        .blocks = t->blocks,
        .chain = chain,
        .block_count = count,
        .tokens = r->prompt_count,
        .cached_tokens = r->report.cached,
        .first = first_token(t),
        .deadline_us = deadline,
    };
    offer.lease = kv_lease_open(e->pool, r->id, t->blocks, count, r->prompt_count, deadline);
    kv_agent_offer(e->agent, &offer);
    r->offer_blocks = mem_new(count * sizeof *r->offer_blocks);
    memcpy(r->offer_blocks, t->blocks, count * sizeof *r->offer_blocks);
    r->offer_block_count = count;
    r->offer_tokens = r->prompt_count;
    r->offer_cached = r->report.cached;
}

void handover_offer_ended(Engine *e, KvLease lease, KvEnd end) {
    KvLeaseInfo info;
    for (size_t i = 0; end == KV_END_EXPIRED && kv_lease_at(e->pool, i, &info); i++)
        if (info.id == lease)
            log_warn("%s: nobody pulled its %zu tokens of KV in time: the lease has expired",
                     info.request, info.tokens);
    kv_lease_close(e->pool, lease);
}

/* ---- decode ---- */

static KvPull pull_of(const EngineTask *t) {
    const EngineRequest *r = t->request;
    return (KvPull){.peer_engine = r->peer_engine,
                    .peer_host = r->peer_host,
                    .peer_port = r->peer_port,
                    .peer_request = r->peer_request,
                    .tokens = r->prompt_count,
                    .user = r->task_};
}

void handover_release(Engine *e, EngineTask *t) {
    KvPull pull = pull_of(t);
    kv_agent_release(e->agent, &pull);
    t->hand_over = HAND_NONE;
}

bool handover_pull(Engine *e, EngineTask *t) {
    EngineRequest *r = t->request;
    size_t cached = task_find_prefix(e, t, r->prompt_count - 1);
    if (!task_reserve(e, t, r->prompt_count)) {
        task_drop_blocks(e, t);
        return false;
    }
    size_t count, skip = cached / KV_BLOCK_TOKENS;
    auto_free KvHash *chain = prompt_chain(t, &count);
    task_admitted(e, t);
    r->clock.pull_began = clock_mono_us();
    r->report.cached = (uint32_t)cached;
    r->task_ = t;
    KvPull pull = pull_of(t);
    pull.chain = chain;
    pull.block_count = count;
    pull.skip = skip;
    pull.blocks = t->blocks + skip;
    pull.deadline_us = r->clock.pull_began + e->conf.pull_us;
    counter_add(&e->stats.external_queries, r->prompt_count - cached);
    task_move(e, t, TASK_LOADING, false);
    kv_agent_pull(e->agent, &pull);
    return true;
}

void handover_give_up(Engine *e, EngineTask *t, const Err *why) {
    EngineRequest *r = t->request;
    snprintf(r->report.degraded, sizeof r->report.degraded, "%.255s", why->message);
    counter_add(&e->stats.degraded, 1);
    counter_add(&e->stats.degraded_by[why->code], 1);
    t->hand_over = HAND_NONE;
    task_drop_blocks(e, t);
    if (r->strict || e->conf.strict) {
        task_end(e, t, FINISH_ERROR, -1, why);
        return;
    }
    log_warn("%s: prompt of %zu tokens is computed here: %s", r->id, r->prompt_count, why->message);
    if (t->state != TASK_WAITING) task_move(e, t, TASK_WAITING, true);
}

/* The first token that came with the KV, if it is the one that would be sampled here. */
static bool usable_first_token(const EngineTask *t, const KvFirstToken *first, size_t vocab) {
    const Sampling *s = &t->request->sampling;
    if (first->token < 0 || (size_t)first->token >= vocab ||
        first->sampling_hash != t->sampling_hash)
        return false;
    if (s->logprobs < 0) return true;
    if (!first->rank || first->top_count < (uint32_t)s->logprobs ||
        first->top_count > KV_FIRST_TOP_MAX)
        return false;
    for (uint32_t i = 0; i < first->top_count; i++)
        if (first->top_tokens[i] < 0 || (size_t)first->top_tokens[i] >= vocab) return false;
    return true;
}

static TokenLogprobs logprobs_of(const KvFirstToken *first, int32_t asked) {
    TokenLogprobs out = {.token = first->token, .logprob = first->logprob, .rank = first->rank};
    out.top_count = asked > 0 ? (uint32_t)asked : 0;
    memcpy(out.top_tokens, first->top_tokens, out.top_count * sizeof *out.top_tokens);
    memcpy(out.top_logprobs, first->top_logprobs, out.top_count * sizeof *out.top_logprobs);
    return out;
}

void handover_pulled(Engine *e, const KvPullResult *result) {
    EngineTask *t = result->user;
    EngineRequest *r = t->request;
    RequestReport *report = &r->report;
    assert(t->state == TASK_LOADING);
    r->clock.pull_ended = clock_mono_us();
    report->transfer_us = result->total_us;
    report->rail = result->rail;
    report->bytes = result->bytes;
    memcpy(report->rail_reason, result->rail_reason, sizeof report->rail_reason);
    if (t->aborted) {
        task_end(e, t, FINISH_ABORT, -1, NULL);
        return;
    }
    if (!result->ok) {
        report->cached = 0; /* found again when the prompt is computed */
        report->rail = KV_RAIL_AUTO;
        report->bytes = 0;
        Err why = result->err;
        if (err_http_status(why.code) < 500) why.code = ERR_DAMAGED; /* not the client's doing */
        handover_give_up(e, t, &why);
        return;
    }
    t->hand_over = HAND_NONE;
    bool first = usable_first_token(t, &result->first, e->sampler.vocab);
    t->computed =
        r->prompt_count - !first; /* without it, the last token is computed again for its logits */
    report->first_token_pulled = first;
    report->computed = !first;
    report->pulled = (uint32_t)t->computed - report->cached;
    report->peer_cached = result->cached_tokens;
    counter_add(&e->stats.external_hits, report->pulled);
    if (*report->rail_reason)
        log_info("%s: pulled over %s: %s", r->id, kv_rail_name(report->rail), report->rail_reason);
    task_seal(e, t);
    task_move(e, t, TASK_RUNNING, false);
    if (!first) return;
    TokenLogprobs chosen = logprobs_of(&result->first, r->sampling.logprobs);
    task_take_token(e, t, &chosen);
}
