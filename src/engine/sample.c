// SPDX-License-Identifier: Apache-2.0
/* From logits to a token.  Order, as vLLM's: penalties and bias, temperature, min_p, top_k, top_p.
 * Everything here is exact arithmetic in a fixed order, so that a token does not depend on the
 * processor either. */
#include <math.h>
#include <stdlib.h>

#include "internal.h"

void sampler_init(Sampler *s, size_t vocab) {
    *s = (Sampler){.vocab = vocab};
    s->adjusted = mem_new(vocab * sizeof *s->adjusted);
    s->weights = mem_new(vocab * sizeof *s->weights);
    s->order = mem_new(vocab * sizeof *s->order);
    s->counts = mem_new(vocab * sizeof *s->counts);
}

void sampler_done(Sampler *s) {
    free(s->adjusted);
    free(s->weights);
    free(s->order);
    free(s->counts);
}

uint64_t sampling_hash(const Sampling *s) {
    /* All that the choice of a first token depends on; how many log-probabilities are shown is not.
     */
    struct {
        float numbers[6];
        int32_t top_k;
        uint32_t min_tokens, ignore_eos, seeded;
        uint64_t seed;
    } all = {{s->temperature, s->top_p, s->min_p, s->presence_penalty, s->frequency_penalty,
              s->repetition_penalty},
             s->top_k,
             s->min_tokens > 0,
             s->ignore_eos,
             s->seeded,
             s->seeded ? s->seed : 0};
    uint64_t h = hash64(&all, sizeof all, 0);
    for (size_t i = 0; i < s->bias_count; i++) {
        h = hash64(&s->bias[i].token, sizeof s->bias[i].token, h);
        h = hash64(&s->bias[i].bias, sizeof s->bias[i].bias, h);
    }
    if (s->min_tokens && s->stop_token_count) /* they are then kept from being chosen */
        h = hash64(s->stop_tokens, s->stop_token_count * sizeof *s->stop_tokens, h);
    return h;
}

/* [0, 1), from the seed and the token's place alone (splitmix64). */
static double uniform(uint64_t seed, uint64_t place) {
    uint64_t z = seed + (place + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static int32_t argmax(const float *x, size_t n) {
    float most = kernels->max(x, n);
    for (size_t i = 0; i < n; i++)
        if (x[i] == most) return (int32_t)i;
    return 0; /* all are NaN: a damaged model's own doing */
}

void describe_token(const float *logits, size_t vocab, int32_t token, int32_t top,
                    TokenLogprobs *out) {
    *out = (TokenLogprobs){.token = token, .rank = 1};
    if (top < 0) return;
    float most = kernels->max(logits, vocab), own = logits[token];
    float sum = kernels->exp_sum(logits, vocab, most, 1, NULL);
    double log_sum = exact_log((double)sum);
    for (size_t i = 0; i < vocab; i++) out->rank += logits[i] > own;
    out->logprob = (float)((double)own - (double)most - log_sum);
    size_t count = 0, limit = (size_t)top;
    float least = -INFINITY;
    for (size_t i = 0; i < vocab && limit; i++) {
        if (count == limit && !(logits[i] > least)) continue; /* ties: the lower id stays */
        size_t at = count < limit ? count++ : limit - 1;
        for (; at && logits[i] > out->top_logprobs[at - 1]; at--) {
            out->top_logprobs[at] = out->top_logprobs[at - 1];
            out->top_tokens[at] = out->top_tokens[at - 1];
        }
        out->top_logprobs[at] = logits[i];
        out->top_tokens[at] = (int32_t)i;
        least = out->top_logprobs[count - 1];
    }
    out->top_count = (uint32_t)count;
    for (size_t i = 0; i < count; i++)
        out->top_logprobs[i] = (float)((double)out->top_logprobs[i] - (double)most - log_sum);
}

static void forbid_ends(const Model *model, const EngineTask *t, float *logits, size_t vocab) {
    const Sampling *s = &t->request->sampling;
    for (size_t i = 0; i < vocab && !s->ignore_eos; i++)
        if (tokenizer_is_end_of_generation(model_tokenizer(model), (int32_t)i))
            logits[i] = -INFINITY;
    for (size_t i = 0; i < s->stop_token_count; i++) logits[s->stop_tokens[i]] = -INFINITY;
}

/* Penalties and bias, into sampler->adjusted when there are any. */
static const float *adjust(Sampler *sampler, const Model *model, const EngineTask *t,
                           const float *logits) {
    const Sampling *s = &t->request->sampling;
    bool penalties = s->presence_penalty != 0 || s->frequency_penalty != 0,
         repetition = s->repetition_penalty != 1;
    bool too_few = t->generated < s->min_tokens;
    if (!penalties && !repetition && !too_few && !s->bias_count) return logits;
    float *x = sampler->adjusted;
    memcpy(x, logits, sampler->vocab * sizeof *x);
    const int32_t *own = t->tokens + t->request->prompt_count;
    if (repetition)
        for (size_t i = 0; i < t->token_count; i++) { /* each token once, prompt and answer */
            float *at = &x[t->tokens[i]];
            if (!sampler->counts[t->tokens[i]]++)
                *at = *at > 0 ? *at / s->repetition_penalty : *at * s->repetition_penalty;
        }
    for (size_t i = 0; i < t->token_count; i++) sampler->counts[t->tokens[i]] = 0;
    for (size_t i = 0; penalties && i < t->generated; i++) {
        if (!sampler->counts[own[i]]++) x[own[i]] -= s->presence_penalty;
        x[own[i]] -= s->frequency_penalty;
    }
    for (size_t i = 0; i < t->generated; i++) sampler->counts[own[i]] = 0;
    for (size_t i = 0; i < s->bias_count; i++) x[s->bias[i].token] += s->bias[i].bias;
    if (too_few) forbid_ends(model, t, x, sampler->vocab);
    return x;
}

/* The heavier first, the lower id first among equals: an order without ties. */
static bool comes_first(const float *weights, int32_t a, int32_t b) {
    return weights[a] > weights[b] || (weights[a] == weights[b] && a < b);
}

/* Moves the `count` first of order[0..n) to its front, sorted: heap selection, O(n log count). */
static void sift_down(const float *weights, int32_t *heap, size_t at, size_t n) {
    for (size_t child; (child = 2 * at + 1) < n; at = child) { /* the last in order on top */
        if (child + 1 < n && comes_first(weights, heap[child], heap[child + 1])) child++;
        if (comes_first(weights, heap[child], heap[at])) return;
        int32_t swap = heap[at];
        heap[at] = heap[child];
        heap[child] = swap;
    }
}

static void select_first(const float *weights, int32_t *order, size_t n, size_t count) {
    for (size_t i = count / 2; i-- > 0;) sift_down(weights, order, i, count);
    for (size_t i = count; i < n; i++) {
        if (!comes_first(weights, order[i], order[0])) continue;
        int32_t swap = order[0];
        order[0] = order[i];
        order[i] = swap;
        sift_down(weights, order, 0, count);
    }
    for (size_t i = count; i-- > 1;) {
        int32_t swap = order[0];
        order[0] = order[i];
        order[i] = swap;
        sift_down(weights, order, 0, i);
    }
}

/* How many of the candidates, heaviest first, top_p keeps; sorts as many as it needs. */
static size_t keep_top_p(const float *weights, int32_t *order, size_t n, double total,
                         double top_p) {
    for (size_t sorted = 64;; sorted *= 8) {
        if (sorted > n) sorted = n;
        select_first(weights, order, n, sorted);
        double sum = 0;
        for (size_t i = 0; i < sorted; i++) {
            sum += weights[order[i]];
            if (sum >= top_p * total) return i + 1;
        }
        if (sorted == n) return n;
    }
}

static int32_t draw(Sampler *sampler, const Sampling *s, const float *logits, double u) {
    size_t vocab = sampler->vocab, n = 0;
    float *weights = sampler->weights, most = kernels->max(logits, vocab);
    kernels->exp_sum(logits, vocab, most, 1.0f / s->temperature, weights);
    for (size_t i = 0; i < vocab; i++)
        if (logits[i] > -INFINITY && weights[i] >= s->min_p)
            sampler->order[n++] = (int32_t)i; /* the heaviest weighs 1 */
    if (!n) return argmax(logits, vocab);
    if (s->top_k > 0 && (size_t)s->top_k < n) {
        select_first(weights, sampler->order, n, (size_t)s->top_k);
        n = (size_t)s->top_k;
    }
    double total = 0;
    for (size_t i = 0; i < n; i++) total += weights[sampler->order[i]];
    if (s->top_p < 1) {
        n = keep_top_p(weights, sampler->order, n, total, s->top_p);
        total = 0;
        for (size_t i = 0; i < n; i++) total += weights[sampler->order[i]];
    }
    double left = u * total;
    for (size_t i = 0; i < n; i++) {
        left -= weights[sampler->order[i]];
        if (left < 0) return sampler->order[i];
    }
    return sampler->order[n - 1];
}

void sample_token(Sampler *sampler, const Model *model, const EngineTask *t, const float *logits,
                  TokenLogprobs *out) {
    const Sampling *s = &t->request->sampling;
    const float *adjusted = adjust(sampler, model, t, logits);
    int32_t token = s->temperature > 0
                        ? draw(sampler, s, adjusted, uniform(t->random, t->generated))
                        : argmax(adjusted, sampler->vocab);
    describe_token(logits, sampler->vocab, token, s->logprobs, out);
}
