// SPDX-License-Identifier: Apache-2.0
/* How tokens are to be chosen: ranges checked, in the order and words of the API that we serve. */
#include "internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define GREEDY_BELOW 1e-5
#define LEAST_TEMPERATURE 0.01

static const char *double_text(char out[40], double value) {
    auto_buf Buf text = {0};
    buf_json_double(&text, value);
    snprintf(out, 40, "%s", text.at);
    return out;
}

static const char *int_text(char out[40], int64_t value) {
    snprintf(out, 40, "%lld", (long long)value);
    return out;
}

static bool read_penalties(const Ask *ask, Sampling *out, Problem *problem) {
    char text[40];
    const struct { const char *name; AskNumber given; float *field;
    } both[] = {{"presence_penalty", ask->presence_penalty, &out->presence_penalty},
                {"frequency_penalty", ask->frequency_penalty, &out->frequency_penalty}};
    for (size_t i = 0; i < COUNT_OF(both); i++) {
        double value = both[i].given.value;
        if (!(value >= -2 && value <= 2))
            return problem_set(problem, NULL, "%s must be in [-2, 2], got %s.", both[i].name,
                               double_text(text, value));
        *both[i].field = (float)value;
    }
    double repetition = ask->repetition_penalty.given ? ask->repetition_penalty.value : 1;
    if (!(repetition > 0))
        return problem_set(problem, NULL, "repetition_penalty must be greater than zero, got %s.",
                           double_text(text, repetition));
    out->repetition_penalty = (float)repetition;
    return true;
}

static bool read_shape(const Ask *ask, Sampling *out, Problem *problem) {
    char text[40];
    double temperature = ask->temperature.given ? ask->temperature.value : 1;
    if (temperature < 0)
        return problem_value(problem, "temperature", double_text(text, temperature),
                             "temperature must be non-negative, got %s.", text);
    if (!(temperature <= 2))
        return problem_value(problem, "temperature", double_text(text, temperature),
                             "temperature must be in [0, 2], got %s.", text);
    if (temperature < GREEDY_BELOW) temperature = 0;
    else if (temperature < LEAST_TEMPERATURE) temperature = LEAST_TEMPERATURE;
    double top_p = ask->top_p.given ? ask->top_p.value : 1;
    if (!(top_p > 0 && top_p <= 1))
        return problem_value(problem, "top_p", double_text(text, top_p),
                             "top_p must be in (0, 1], got %s.", text);
    int64_t top_k = ask->top_k.value;
    if (top_k < -1 || top_k > INT32_MAX)
        return problem_set(problem, NULL, "top_k must be 0 (disable), or at least 1, got %lld.",
                           (long long)top_k);
    double min_p = ask->min_p.value;
    if (!(min_p >= 0 && min_p <= 1))
        return problem_set(problem, NULL, "min_p must be in [0, 1], got %s.",
                           double_text(text, min_p));
    out->temperature = (float)temperature;
    out->top_p = (float)top_p;
    out->top_k = top_k < 0 ? 0 : (int32_t)top_k;
    out->min_p = (float)min_p;
    return true;
}

/* UINT32_MAX: as much as there is room for. */
static bool read_lengths(const Serve *serve, const Ask *ask, Choosing *out, Problem *problem) {
    char text[40];
    bool completion = ask->kind == ASK_COMPLETION;
    AskInt asked = ask->max_completion_tokens.given ? ask->max_completion_tokens : ask->max_tokens;
    const char *name = ask->max_completion_tokens.given ? "max_completion_tokens" : "max_tokens";
    int64_t most = asked.given ? asked.value : completion ? 16 : UINT32_MAX;
    out->prompt_only = completion && ask_is(ask->echo, false) && most == 0;
    if (out->prompt_only) most = 1;
    if (most < 1)
        return problem_value(problem, "max_tokens", int_text(text, most),
                             "max_tokens must be at least 1, got %s.", text);
    if (asked.given && (uint64_t)most > serve->context)
        return problem_value(problem, name, int_text(text, most),
                             "%s=%s cannot be greater than max_model_len=%zu. Please request fewer "
                             "output tokens.", name, text, serve->context);
    int64_t least = ask->min_tokens.value;
    if (least < 0)
        return problem_set(problem, NULL,
                           "min_tokens must be greater than or equal to 0, got %lld.",
                           (long long)least);
    if (asked.given ? least > most : least > (int64_t)serve->context)
        return problem_set(problem, NULL,
                           "min_tokens must be less than or equal to max_tokens=%lld, got %lld.",
                           (long long)(asked.given ? most : (int64_t)serve->context),
                           (long long)least);
    out->sampling.max_tokens = (uint32_t)most;
    out->sampling.min_tokens = (uint32_t)least;
    return true;
}

static bool add_stop(Stops *stops, const json_t *value, Problem *problem) {
    Str text = {json_string_value(value), json_string_length(value)};
    if (!text.length) return problem_set(problem, NULL, "stop cannot contain an empty string.");
    if (text.length > LIMIT_STOP_BYTES)
        return problem_set(problem, "stop", "a stop string has %zu bytes, %d at most", text.length,
                           LIMIT_STOP_BYTES);
    if (stops->count == LIMIT_STOP_STRINGS)
        return problem_value(problem, "stop", NULL, "stop has more than %d strings.",
                             LIMIT_STOP_STRINGS);
    stops->at[stops->count++] = text;
    if (text.length > stops->longest) stops->longest = text.length;
    return true;
}

static bool read_stops(const Ask *ask, Stops *out, Problem *problem) {
    out->included = ask_is(ask->include_stop, false);
    if (json_is_string(ask->stop)) return add_stop(out, ask->stop, problem);
    size_t i;
    const json_t *one;
    json_array_foreach(ask->stop, i, one)
        if (!add_stop(out, one, problem)) return false;
    return true;
}

static bool out_of_vocabulary(const Serve *serve, const char *name, const Buf *ids,
                              Problem *problem) {
    auto_buf Buf list = {0};
    buf_printf(&list, "[%s]", ids->at);
    return problem_value(
        problem, name, list.at,
        "token_id(s) %s in %s contain out-of-vocab token ids. Vocabulary size: %zu", list.at, name,
        serve->vocab);
}

static void note_id(Buf *ids, int64_t id) {
    if (ids->length < 256) buf_printf(ids, "%s%lld", ids->length ? ", " : "", (long long)id);
}

static bool read_stop_tokens(const Serve *serve, const Ask *ask, Arena *arena, Sampling *out,
                             Problem *problem) {
    size_t count = json_array_size(ask->stop_token_ids), i;
    if (!count) return true;
    int32_t *ids = arena_new(arena, count * sizeof *ids);
    auto_buf Buf bad = {0};
    const json_t *one;
    json_array_foreach(ask->stop_token_ids, i, one) {
        int64_t id = ask_int_of(one);
        if (id < 0 || (size_t)id >= serve->vocab) note_id(&bad, id);
        ids[i] = (int32_t)id;
    }
    if (bad.length) return out_of_vocabulary(serve, "stop_token_ids", &bad, problem);
    out->stop_tokens = ids;
    out->stop_token_count = count;
    return true;
}

static bool read_bias(const Serve *serve, const Ask *ask, Arena *arena, Sampling *out,
                      Problem *problem) {
    size_t count = json_object_size(ask->logit_bias);
    if (!count) return true;
    if (count > LIMIT_LOGIT_BIAS)
        return problem_set(problem, "logit_bias", "logit_bias has %zu entries, %d at most", count,
                           LIMIT_LOGIT_BIAS);
    LogitBias *bias = arena_new(arena, count * sizeof *bias);
    auto_buf Buf bad = {0};
    const char *key;
    const json_t *value;
    json_object_foreach((json_t *)ask->logit_bias, key, value) {
        char *end;
        errno = 0;
        long long id = strtoll(key, &end, 10);
        if (end == key || *end || errno)
            return problem_value(problem, "logit_bias", NULL,
                                 "Found token_id `%.64s` in logit_bias but token_id must be an "
                                 "integer or string representing an integer", key);
        if (!json_is_number(value))
            return problem_value(problem, "logit_bias", NULL,
                                 "the bias of token %lld in logit_bias is no number", id);
        double amount = json_number_value(value);
        if (id < 0 || (size_t)id >= serve->vocab) note_id(&bad, id);
        bias[out->bias_count++] = (LogitBias){
            (int32_t)id, (float)(amount > 100 ? 100 : amount < -100 ? -100 : amount)};
    }
    out->bias = bias;
    return !bad.length || out_of_vocabulary(serve, "logit_bias", &bad, problem);
}

static bool within(const Serve *serve, const char *kind, const char *name, int64_t asked,
                   int32_t *out, Problem *problem) {
    char text[40];
    int64_t count = asked == -1 ? (int64_t)serve->vocab : asked;
    if (count > serve->conf->max_logprobs)
        return problem_value(problem, name, int_text(text, count),
                             "Requested %s logprobs of %s, which is greater than max allowed: %lld",
                             kind, text, (long long)serve->conf->max_logprobs);
    *out = (int32_t)count;
    return true;
}

static bool read_logprobs(const Serve *serve, const Ask *ask, Sampling *out, Problem *problem) {
    bool chat = ask->kind == ASK_CHAT, echo = ask_is(ask->echo, false);
    bool stream = ask_is(ask->stream, false);
    AskInt sample = ask->logprobs, prompt = ask->prompt_logprobs;
    if (chat) sample = (AskInt){ask_is(ask->chat_logprobs, false), ask->top_logprobs.value};
    if (!prompt.given && echo && !chat) prompt = ask->logprobs;
    if (!prompt.given && echo && chat && !stream) prompt = (AskInt){true, ask->top_logprobs.value};
    out->logprobs = out->prompt_logprobs = -1;
    return (!sample.given ||
            within(serve, "sample", "logprobs", sample.value, &out->logprobs, problem)) &&
           (!prompt.given || within(serve, "prompt", "prompt_logprobs", prompt.value,
                                    &out->prompt_logprobs, problem));
}

bool choosing_read(const Serve *serve, const Ask *ask, Arena *arena, Choosing *out,
                   Problem *problem) {
    *out = (Choosing){.n = 1};
    Sampling *sampling = &out->sampling;
    int64_t n = ask->n.given ? ask->n.value : 1;
    if (n < 1)
        return problem_set(problem, NULL, "n must be at least 1, got %lld.", (long long)n);
    if (n > LIMIT_CHOICES)
        return problem_set(problem, NULL, "n must be at most %d, got %lld.", LIMIT_CHOICES,
                           (long long)n);
    out->n = (uint32_t)n;
    if (!read_penalties(ask, sampling, problem) || !read_shape(ask, sampling, problem) ||
        !read_lengths(serve, ask, out, problem) ||
        !read_stop_tokens(serve, ask, arena, sampling, problem) ||
        !read_stops(ask, &out->stops, problem))
        return false;
    if (n > 1 && sampling->temperature == 0)
        return problem_set(problem, NULL, "n must be 1 when using greedy sampling, got %lld.",
                           (long long)n);
    sampling->seeded = ask->seed.given && ask->seed.value != -1;
    sampling->seed = (uint64_t)ask->seed.value;
    sampling->ignore_eos = ask_is(ask->ignore_eos, false);
    return read_logprobs(serve, ask, sampling, problem) &&
           read_bias(serve, ask, arena, sampling, problem);
}

uint32_t choosing_fit(const Serve *serve, uint32_t max_tokens, size_t prompt_count) {
    size_t room = serve->context - prompt_count;
    return max_tokens < room ? max_tokens : (uint32_t)room;
}
