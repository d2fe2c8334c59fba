// SPDX-License-Identifier: Apache-2.0
/* The public calls, the worker thread, and the messages between them. */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>

const char *finish_name(Finish finish) {
    static const char *const names[FINISHES] = {"", "stop", "length", "abort", "error"};
    return names[finish];
}

/* ---- the worker ---- */

void engine_send(Engine *e, const Message *message) {
    Message *copy = mem_new(sizeof *copy);
    *copy = *message;
    mailbox_send(e->inbox, copy);
}

static void take_submit(Engine *e, EngineRequest *r) {
    EngineTask *t = task_new(e, r);
    if (t->hand_over != HAND_PULL || r->sampling.prompt_logprobs < 0) return;
    Err err = {0};
    err_set(
        &err, ERR_UNSUPPORTED,
        "log-probabilities of the prompt were asked for: they are computed where it is computed");
    handover_release(e, t);
    handover_give_up(e, t, &err);
}

static void take_abort(Engine *e, const EngineRequest *r) {
    EngineTask *t = task_find(e, r);
    if (!t) return; /* its last event is on its way */
    if (t->state == TASK_LOADING) { /* the agent still writes to its blocks */
        t->aborted = true;
        kv_agent_cancel(e->agent, t);
    } else {
        task_end(e, t, FINISH_ABORT, -1, NULL);
    }
}

static void handle(Engine *e, Message *m) {
    switch (m->kind) {
    case MESSAGE_SUBMIT: take_submit(e, m->request); break;
    case MESSAGE_ABORT: take_abort(e, m->request); break;
    case MESSAGE_LEDGER: m->answer(report_ledger(e), m->user); break;
    case MESSAGE_DRAIN:
        e->idle = m->idle;
        e->idle_user = m->user;
        break;
    case MESSAGE_STOP: e->stopping = true; break;
    case MESSAGE_PULLED: handover_pulled(e, &m->pulled); break;
    case MESSAGE_OFFER_ENDED: handover_offer_ended(e, m->lease, m->end); break;
    case MESSAGE_OFFER_RENEWED: kv_lease_renew(e->pool, m->lease, m->deadline_us); break;
    }
    free(m);
}

static void tell_if_idle(Engine *e) {
    for (int s = 0; s < TASK_STATES; s++)
        if (e->lists[s].count) return;
    if (!e->idle || kv_lease_count(e->pool)) return;
    void (*idle)(void *user) = e->idle;
    e->idle = NULL;
    idle(e->idle_user);
}

/* Ends everything, and takes what the agent still has to say. */
static void shut_down(Engine *e) {
    for (int s = 0; s < TASK_STATES; s++)
        for (EngineTask *t = e->lists[s].first, *next; t; t = next) {
            next = t->behind;
            take_abort(e, t->request);
        }
    kv_agent_close(e->agent); /* every pull and offer has called back when this returns */
    e->agent = NULL;
    for (Message *m; (m = mailbox_take(e->inbox, 0));) {
        if (m->kind == MESSAGE_SUBMIT) { /* came after the end: ended all the same */
            m->request->hand_over = HAND_NONE;
            take_submit(e, m->request);
            m->kind = MESSAGE_ABORT;
        }
        handle(e, m);
    }
    Err err = {0};
    if (!kv_pool_check(e->pool, &err))
        log_error("engine: the ledger does not balance at the end: %s", err.message);
}

static void *work(void *user) {
    Engine *e = user;
    while (!e->stopping) {
        size_t rows = plan_step(e);
        if (rows) run_step(e);
        report_gauges(e);
        tell_if_idle(e);
        /* With work at hand only what has come is taken; without, the next message is waited for.
         */
        for (Message *m = mailbox_take(e->inbox, rows ? 0 : -1); m; m = mailbox_take(e->inbox, 0))
            handle(e, m);
    }
    shut_down(e);
    return NULL;
}

/* ---- opening and closing ---- */

static bool choose_pool(Engine *e, Err *err) {
    const Model *m = e->model;
    const ModelShape *s = model_shape(m);
    KvShape shape = {.layers = s->layers, .kv_heads = s->kv_heads, .head_dim = s->head_dim,
                     .fingerprint = model_fingerprint(m)};
    assert(kv_block_bytes(&shape) == model_page_bytes(m));
    size_t one = kv_blocks_for(model_context(m)) * model_page_bytes(m), bytes = e->conf.pool_bytes;
    if (!bytes) {
        size_t most = mem_available() / 5 * 2;
        bytes = 4 * one < most ? 4 * one : most > one ? most : one;
    }
    if (bytes < one) {
        err_set(
            err, ERR_INVALID, "a KV cache of %.1f MiB holds %zu tokens, the context is %zu tokens",
            (double)bytes / MIB, bytes / model_page_bytes(m) * KV_BLOCK_TOKENS, model_context(m));
        return err_hint(err,
                        "Raise --kv-cache-memory-bytes to %zu, or lower --max-model-len to %zu.",
                        one, bytes / model_page_bytes(m) * KV_BLOCK_TOKENS);
    }
    e->conf.pool_bytes = bytes;
    return (e->pool = kv_pool_new(&shape, bytes, err)) != NULL;
}

static bool prepare(Engine *e, Err *err) {
    size_t vocab = model_shape(e->model)->vocab, width = model_shape(e->model)->width;
    e->pieces = mem_new(e->conf.max_sequences * sizeof *e->pieces);
    e->planned = mem_new(e->conf.max_sequences * sizeof *e->planned);
    e->hidden = mem_try(e->conf.max_batched_tokens * width, sizeof(float), "hidden states", err);
    e->logits = mem_try(LOGIT_ROWS * vocab, sizeof(float), "logits", err);
    if (!e->hidden || !e->logits)
        return err_hint(err, "Lower --max-num-batched-tokens, or free memory.");
    sampler_init(&e->sampler, vocab);
    return true;
}

static void copy_conf(Engine *e, const EngineConf *conf) {
    e->conf = *conf;
    if (conf->engine_id && *conf->engine_id) {
        snprintf(e->id, sizeof e->id, "%s", conf->engine_id);
    } else {
        uint8_t r[16];
        random_bytes(r, sizeof r);
        snprintf(e->id, sizeof e->id,
                 "%02x%02x%02x%02x-%02x%02x-4%x%02x-%x%x%02x-%02x%02x%02x%02x%02x%02x", r[0], r[1],
                 r[2], r[3], r[4], r[5], r[6] & 15, r[7], 8 | (r[8] & 3), r[8] >> 4, r[9], r[10],
                 r[11], r[12], r[13], r[14], r[15]);
    }
    snprintf(e->kv_host, sizeof e->kv_host, "%s", conf->kv_host ? conf->kv_host : "127.0.0.1");
    snprintf(e->name, sizeof e->name, "%s", conf->name ? conf->name : "");
    e->conf.engine_id = e->id;
    e->conf.kv_host = e->kv_host;
    e->conf.name = e->name;
}

Engine *engine_open(const EngineConf *conf, Err *err) {
    assert(conf->max_sequences && conf->max_batched_tokens >= conf->max_sequences);
    Engine *e = mem_new(sizeof *e);
    copy_conf(e, conf);
    report_init(&e->stats);
    e->inbox = mailbox_new();
    bool ok = (e->model = model_open(&conf->model, err)) && choose_pool(e, err) &&
              prepare(e, err) && handover_open(e, err);
    if (ok) {
        e->conf.model.context = model_context(e->model);
        report_gauges(e);
        int failure = pthread_create(&e->worker, NULL, work, e);
        if (failure)
            ok = err_set(err, ERR_EXHAUSTED, "could not start the engine's thread: %s",
                         strerror(failure));
        e->worker_runs = ok;
    }
    if (ok) return e;
    engine_close(e);
    return NULL;
}

void engine_close(Engine *e) {
    if (!e) return;
    if (e->worker_runs) {
        atomic_store(&e->draining, true);
        engine_send(e, &(Message){.kind = MESSAGE_STOP});
        pthread_join(e->worker, NULL);
    } else {
        kv_agent_close(e->agent);
    }
    mailbox_close(e->inbox, free);
    if (e->sampler.vocab) sampler_done(&e->sampler);
    if (e->model) {
        mem_give(e->hidden, e->conf.max_batched_tokens * model_shape(e->model)->width,
                 sizeof(float));
        mem_give(e->logits, LOGIT_ROWS * model_shape(e->model)->vocab, sizeof(float));
    }
    free(e->pieces);
    free(e->planned);
    kv_pool_free(e->pool);
    model_close(e->model);
    free(e);
}

/* ---- calls from other threads ---- */

static bool check_fits(const Engine *e, const EngineRequest *r, Err *err) {
    size_t context = model_context(e->model);
    if (r->prompt_count >= context) {
        err_set(err, ERR_INVALID, "prompt has %zu tokens, the context is %zu tokens",
                r->prompt_count, context);
        return err_hint(err, "Shorten the prompt, or raise --max-model-len.");
    }
    if (r->hand_over == HAND_OFFER && e->conf.role != ROLE_PRODUCER && e->conf.role != ROLE_BOTH)
        return err_set(err, ERR_INVALID,
                       "this engine offers no KV: its kv_role is not kv_producer or kv_both");
    if (r->hand_over == HAND_PULL && e->conf.role != ROLE_CONSUMER && e->conf.role != ROLE_BOTH)
        return err_set(err, ERR_INVALID,
                       "this engine pulls no KV: its kv_role is not kv_consumer or kv_both");
    return true;
}

bool engine_submit(Engine *e, EngineRequest *r, Err *err) {
    assert(r->prompt_count && r->sampling.max_tokens);
    if (!check_fits(e, r, err)) return false;
    if (atomic_load(&e->draining))
        return err_set(err, ERR_UNAVAILABLE, "the engine is shutting down");
    if (atomic_fetch_add(&e->queued, 1) >= e->conf.max_queued) {
        atomic_fetch_sub(&e->queued, 1);
        counter_add(&e->stats.rejected, 1);
        err_set(err, ERR_EXHAUSTED, "the queue is full: %zu requests wait", e->conf.max_queued);
        return err_hint(err, "Try again later, or raise --max-num-queued-reqs.");
    }
    r->clock = (RequestClock){.submitted = clock_mono_us()};
    r->report = (RequestReport){0};
    engine_send(e, &(Message){.kind = MESSAGE_SUBMIT, .request = r});
    return true;
}

void engine_abort(Engine *e, EngineRequest *r) {
    engine_send(e, &(Message){.kind = MESSAGE_ABORT, .request = r});
}

void engine_ledger(Engine *e, void (*answer)(char *json, void *user), void *user) {
    engine_send(e, &(Message){.kind = MESSAGE_LEDGER, .answer = answer, .user = user});
}

void engine_drain(Engine *e, void (*idle)(void *user), void *user) {
    atomic_store(&e->draining, true);
    engine_send(e, &(Message){.kind = MESSAGE_DRAIN, .idle = idle, .user = user});
}

const EngineStats *engine_stats(const Engine *e) { return &e->stats; }
const KvAgentStats *engine_kv_stats(const Engine *e) {
    return e->agent ? kv_agent_stats(e->agent) : NULL;
}
const Model *engine_model(const Engine *e) { return e->model; }
const char *engine_id(const Engine *e) { return e->id; }
int engine_kv_port(const Engine *e) { return e->agent ? kv_agent_port(e->agent) : 0; }
uint64_t engine_epoch(const Engine *e) { return e->agent ? kv_agent_epoch(e->agent) : 0; }
const EngineConf *engine_conf(const Engine *e) { return &e->conf; }
