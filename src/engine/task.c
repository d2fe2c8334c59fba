// SPDX-License-Identifier: Apache-2.0
/* A request's blocks and tokens, and how it ends. */
#include <stdlib.h>

#include "internal.h"

void tasks_add(TaskList *list, EngineTask *task) {
    task->behind = NULL;
    task->before = list->last;
    *(list->last ? &list->last->behind : &list->first) = task;
    list->last = task;
    list->count++;
}

void tasks_add_first(TaskList *list, EngineTask *task) {
    task->before = NULL;
    task->behind = list->first;
    *(list->first ? &list->first->before : &list->last) = task;
    list->first = task;
    list->count++;
}

void tasks_remove(TaskList *list, EngineTask *task) {
    *(task->before ? &task->before->behind : &list->first) = task->behind;
    *(task->behind ? &task->behind->before : &list->last) = task->before;
    list->count--;
}

void task_move(Engine *e, EngineTask *task, TaskState state, bool first) {
    tasks_remove(&e->lists[task->state], task);
    task->state = state;
    (first ? tasks_add_first : tasks_add)(&e->lists[state], task);
}

EngineTask *task_find(Engine *e, const EngineRequest *request) {
    for (int s = 0; s < TASK_STATES; s++)
        for (EngineTask *t = e->lists[s].first; t; t = t->behind)
            if (t->request == request) return t;
    return NULL;
}

EngineTask *task_new(Engine *e, EngineRequest *request) {
    EngineTask *t = mem_new(sizeof *t);
    t->request = request;
    t->hand_over = request->hand_over;
    mem_reserve(t->tokens, t->token_capacity, request->prompt_count);
    memcpy(t->tokens, request->prompt, request->prompt_count * sizeof *t->tokens);
    t->token_count = request->prompt_count;
    t->root = kv_chain_root(kv_pool_shape(e->pool), str_of(request->cache_salt));
    t->sampling_hash = sampling_hash(&request->sampling);
    if (request->sampling.seeded) t->random = request->sampling.seed;
    else random_bytes(&t->random, sizeof t->random);
    if (request->after) {
        EngineTask *sibling = task_find(e, request->after);
        if (sibling && !sibling->generated) t->blocked_on = sibling;
    }
    t->state = TASK_WAITING;
    tasks_add(&e->lists[TASK_WAITING], t);
    return t;
}

static void add_block(Engine *e, EngineTask *t, KvBlock block) {
    mem_reserve(t->blocks, t->block_capacity, t->block_count + 1);
    mem_reserve(t->pages, t->page_capacity, t->block_count + 1);
    t->blocks[t->block_count] = block;
    t->pages[t->block_count++] = kv_block_data(e->pool, block);
}

bool task_reserve(Engine *e, EngineTask *t, size_t tokens) {
    size_t need = kv_blocks_for(tokens);
    if (need > t->block_count && need - t->block_count > kv_pool_takable(e->pool)) return false;
    while (t->block_count < need) {
        KvBlock block = kv_block_take(e->pool);
        assert(block != KV_NONE);
        add_block(e, t, block);
    }
    return true;
}

size_t task_find_prefix(Engine *e, EngineTask *t, size_t tokens) {
    assert(!t->block_count);
    if (!e->conf.prefix_caching || t->request->sampling.prompt_logprobs >= 0) return 0;
    size_t most = tokens / KV_BLOCK_TOKENS, step = e->conf.block_tokens / KV_BLOCK_TOKENS;
    KvBlock *found = mem_new((most + 1) * sizeof *found);
    size_t count = kv_prefix_find(e->pool, t->root, t->tokens, most * KV_BLOCK_TOKENS, found);
    size_t kept = count / step * step;
    for (size_t i = 0; i < count; i++) {
        if (i < kept) add_block(e, t, found[i]);
        else kv_block_unref(e->pool, found[i]);
    }
    free(found);
    counter_add(&e->stats.prefix_queries, tokens);
    counter_add(&e->stats.prefix_hits, kept * KV_BLOCK_TOKENS);
    return kept * KV_BLOCK_TOKENS;
}

void task_admitted(Engine *e, EngineTask *t) {
    if (t->request->clock.admitted) return;
    t->request->clock.admitted = clock_mono_us();
    atomic_fetch_sub(&e->queued, 1);
}

void task_seal(Engine *e, EngineTask *t) {
    for (; (t->sealed + 1) * KV_BLOCK_TOKENS <= t->computed; t->sealed++) {
        size_t i = t->sealed;
        const int32_t *tokens = t->tokens + i * KV_BLOCK_TOKENS;
        KvHash before = i ? t->chain[i - 1] : t->root;
        mem_reserve(t->chain, t->chain_capacity, i + 1);
        t->chain[i] = kv_chain_next(before, tokens, KV_BLOCK_TOKENS);
        if (e->conf.prefix_caching)
            kv_prefix_add(e->pool, t->blocks[i], before, t->chain[i], tokens);
    }
}

void task_drop_blocks(Engine *e, EngineTask *t) {
    while (t->block_count) kv_block_unref(e->pool, t->blocks[--t->block_count]);
    t->computed = t->sealed = 0;
}

void task_add_token(EngineTask *t, int32_t token) {
    mem_reserve(t->tokens, t->token_capacity, t->token_count + 1);
    t->tokens[t->token_count++] = token;
    t->generated++;
}

void task_prompt_done(Engine *e, EngineTask *t) {
    for (EngineTask *w = e->lists[TASK_WAITING].first; w; w = w->behind)
        if (w->blocked_on == t) w->blocked_on = NULL;
}

static void observe_end(Engine *e, const EngineTask *t, Finish finish) {
    EngineStats *s = &e->stats;
    const RequestClock *c = &t->request->clock;
    counter_add(&s->finished[finish], 1);
    if (!c->first_token) return;
    double decode = (double)(c->last_token - c->first_token) / 1e6;
    histogram_observe(&s->end_to_end, (double)(c->last_token - c->submitted) / 1e6);
    histogram_observe(&s->queue, (double)(c->admitted - c->submitted) / 1e6);
    histogram_observe(&s->prefill, (double)(c->first_token - c->admitted) / 1e6);
    histogram_observe(&s->inference, (double)(c->last_token - c->admitted) / 1e6);
    histogram_observe(&s->decode, decode);
    if (t->generated > 1)
        histogram_observe(&s->per_output_token, decode / (double)(t->generated - 1));
    histogram_observe(&s->request_prompt, (double)t->request->prompt_count);
    histogram_observe(&s->request_generation, (double)t->generated);
    histogram_observe(&s->request_max_tokens, t->request->sampling.max_tokens);
    histogram_observe(&s->request_computed, t->request->report.computed);
}

/* Blocks back first, then the event: who sees the end sees a balanced ledger. */
static void finish_with(Engine *e, EngineTask *t, EngineEvent *event) {
    bool offered =
        t->request->hand_over == HAND_OFFER && event->finish != FINISH_ABORT && t->generated;
    if (offered && (event->finish == FINISH_LENGTH || event->finish == FINISH_STOP))
        handover_offer(e, t);
    if (t->state == TASK_WAITING && t->hand_over == HAND_PULL) handover_release(e, t);
    if (!t->request->clock.admitted) atomic_fetch_sub(&e->queued, 1);
    task_prompt_done(e, t);
    task_drop_blocks(e, t);
    tasks_remove(&e->lists[t->state], t);
    observe_end(e, t, event->finish);
    report_gauges(e);
    free(t->tokens);
    free(t->blocks);
    free(t->pages);
    free(t->chain);
    free(t);
    event->last = true;
    e->conf.deliver(event, e->conf.user);
}

static EngineEvent *event_new(const EngineTask *t) {
    EngineEvent *event = mem_new(sizeof *event);
    event->request = t->request;
    event->token = event->stop_token = -1;
    return event;
}

void task_end(Engine *e, EngineTask *t, Finish finish, int32_t stop_token, const Err *err) {
    EngineEvent *event = event_new(t);
    event->finish = finish;
    event->stop_token = stop_token;
    if (err) event->err = *err;
    finish_with(e, t, event);
}

static bool is_stop_token(const Sampling *s, int32_t token) {
    for (size_t i = 0; i < s->stop_token_count; i++)
        if (s->stop_tokens[i] == token) return true;
    return false;
}

static void count_prompt(Engine *e, const EngineTask *t) {
    const RequestReport *report = &t->request->report;
    counter_add(&e->stats.prompt_tokens, t->request->prompt_count);
    counter_add(&e->stats.computed_tokens, report->computed);
    counter_add(&e->stats.cached_tokens, report->cached);
    counter_add(&e->stats.pulled_tokens, report->pulled);
}

bool task_take_token(Engine *e, EngineTask *t, const TokenLogprobs *chosen) {
    const Sampling *s = &t->request->sampling;
    RequestClock *clock = &t->request->clock;
    int64_t now = clock_mono_us();
    task_add_token(t, chosen->token);
    EngineEvent *event = event_new(t);
    event->token = chosen->token;
    if (s->logprobs >= 0) event->logprobs = *chosen;
    if (t->generated == 1) {
        clock->first_token = now;
        t->first = *chosen;
        histogram_observe(&e->stats.first_token, (double)(now - clock->submitted) / 1e6);
        count_prompt(e, t);
        task_prompt_done(e, t);
    } else {
        histogram_observe(&e->stats.inter_token, (double)(now - t->last_token_us) / 1e6);
    }
    clock->last_token = t->last_token_us = now;
    counter_add(&e->stats.generation_tokens, 1);

    if (t->generated >= s->min_tokens) {
        if (!s->ignore_eos &&
            tokenizer_is_end_of_generation(model_tokenizer(e->model), chosen->token)) {
            event->finish = FINISH_STOP;
        } else if (is_stop_token(s, chosen->token)) {
            event->finish = FINISH_STOP;
            event->stop_token = chosen->token;
        }
    }
    if (!event->finish &&
        (t->generated >= s->max_tokens || t->token_count >= model_context(e->model)))
        event->finish = FINISH_LENGTH;
    if (event->finish) {
        finish_with(e, t, event);
        return false;
    }
    e->conf.deliver(event, e->conf.user);
    return true;
}
