// SPDX-License-Identifier: Apache-2.0
/* Replies and the events of streams as JSON: same members, same order, same nulls as the API that
 * we serve. */
#include "job.h"

#include <stdio.h>

static void put_str(Buf *out, const Buf *text) {
    buf_json_str(out, (Str){text->at ? text->at : "", text->length});
}

static void put_ids(Buf *out, const int32_t *ids, size_t count) {
    buf_char(out, '[');
    for (size_t i = 0; i < count; i++) {
        if (i) buf_char(out, ',');
        buf_json_int(out, ids[i]);
    }
    buf_char(out, ']');
}

static bool is_chat(const Job *job) { return job->ask.kind == ASK_CHAT; }

/* ---- what replies and chunks share ---- */

static void put_begin(const Job *job, const char *object, Buf *out) {
    buf_str(out, "{\"id\":");
    buf_json_str(out, str_of(job->id));
    buf_printf(out, ",\"object\":\"%s\",\"created\":%lld,\"model\":", object,
               (long long)job->created_s);
    buf_json_str(out, str_of(serve_name(job->serve)));
    buf_str(out, ",\"choices\":[");
}

void write_head(Job *job) {
    buf_str(&job->head, "data: ");
    put_begin(job, is_chat(job) ? "chat.completion.chunk" : "text_completion", &job->head);
}

static void put_fingerprint(const Job *job, Buf *out) {
    buf_printf(out, ",\"system_fingerprint\":\"%s\"", job->serve->fingerprint);
}

static void put_finish(const Choice *choice, Buf *out) {
    if (!choice->done) buf_str(out, ",\"finish_reason\":null");
    else buf_printf(out, ",\"finish_reason\":\"%s\"", finish_name(choice->finish));
}

static void put_stop_reason(const Choice *choice, Buf *out) {
    buf_str(out, ",\"stop_reason\":");
    if (choice->done && choice->stop) buf_json_str(out, *choice->stop);
    else if (choice->done && choice->stop_token >= 0) buf_json_int(out, choice->stop_token);
    else buf_str(out, "null");
}

static const char *role_of(const Job *job) {
    const Ask *ask = &job->ask;
    bool generation = ask_is(ask->add_generation_prompt, true);
    const json_t *last = json_array_get(ask->messages, json_array_size(ask->messages) - 1);
    const char *role = json_string_value(json_object_get(last, "role"));
    return generation || !role ? job->serve->conf->response_role : role;
}

/* The end of the chat itself, for echo: of the same role as the answer. */
static void put_echo(const Job *job, Buf *out) {
    const Ask *ask = &job->ask;
    json_t *last = json_array_get(ask->messages, json_array_size(ask->messages) - 1);
    const char *role = json_string_value(json_object_get(last, "role"));
    if (!ask_is(ask->echo, false) || !role || strcmp(role, role_of(job)) != 0) return;
    Problem problem = {0};
    auto_json json_t *one = json_pack("[O]", last);
    auto_json json_t *plain = messages_for_template(one, false, serve_name(job->serve), &problem);
    const json_t *text = json_object_get(json_array_get(plain, 0), "content");
    if (text) buf_append(out, json_string_value(text), json_string_length(text));
    problem_done(&problem);
}

/* The prompt that echo puts in front of a completion; with its ids asked for they stand for it. */
static void put_prompt_text(const Choice *choice, Buf *out) {
    const Job *job = choice->job;
    const Prompt *prompt = choice->prompt;
    if (ask_is(job->ask.return_token_ids, false)) return;
    if (prompt->text.length) {
        buf_append(out, prompt->text.at, prompt->text.length);
        return;
    }
    Detok detok;
    detok_init(&detok, job->serve->tokenizer, false);
    for (size_t i = 0; i < prompt->count; i++) detok_add(&detok, prompt->ids[i], out);
    detok_flush(&detok, out);
}

static void count_tokens(const Job *job, size_t *prompt, size_t *completion, size_t *cached) {
    *prompt = *completion = *cached = 0;
    for (size_t p = 0; p < job->prompts.count; p++) *prompt += job->prompts.at[p].count;
    for (size_t i = 0; i < job->count; i++) {
        const RequestReport *report = &job->choices[i].request.report;
        *completion += job->choices[i].tokens;
        if (i % job->choosing.n) continue;
        /* Both are beginnings of the prompt: what somebody had cached is the longer one. */
        *cached += report->cached > report->peer_cached ? report->cached : report->peer_cached;
    }
    if (*cached > *prompt) *cached = *prompt;
}

static void put_counts(Buf *out, size_t prompt, size_t completion) {
    buf_printf(out, "{\"prompt_tokens\":%zu,\"total_tokens\":%zu,\"completion_tokens\":%zu", prompt,
               prompt + completion, completion);
}

static void put_prompt_logprobs(const Choice *choice, Buf *out) {
    if (choice->request.prompt_logprobs)
        logprob_prompt_write(choice->job->serve->tokenizer, &choice->request,
                             choice->job->choosing.sampling.prompt_logprobs, out);
    else buf_str(out, "null");
}

static void put_collected_ids(const Choice *choice, Buf *out) {
    if (!ask_is(choice->job->ask.return_token_ids, false)) {
        buf_str(out, "null");
        return;
    }
    buf_char(out, '[');
    if (choice->ids.length) buf_append(out, choice->ids.at, choice->ids.length);
    buf_char(out, ']');
}

/* ---- the reply in one piece ---- */

static void put_chat_choice(const Choice *choice, const Buf *echo, Buf *out) {
    const Job *job = choice->job;
    auto_buf Buf content = {0};
    if (echo->length) buf_append(&content, echo->at, echo->length);
    if (choice->text.text.length)
        buf_append(&content, choice->text.text.at, choice->text.text.length);
    buf_printf(out, "{\"index\":%u,\"message\":{\"role\":", choice->index);
    buf_json_str(out, str_of(role_of(job)));
    buf_str(out, ",\"content\":");
    put_str(out, &content);
    buf_str(out, ",\"refusal\":null,\"annotations\":null,\"audio\":null,\"function_call\":null,"
                 "\"reasoning\":null},\"logprobs\":");
    if (job->choosing.sampling.logprobs >= 0) {
        buf_str(out, "{\"content\":[");
        if (choice->chat_logprobs.length)
            buf_append(out, choice->chat_logprobs.at, choice->chat_logprobs.length);
        buf_str(out, "]}");
    } else {
        buf_str(out, "null");
    }
    put_finish(choice, out);
    put_stop_reason(choice, out);
    buf_str(out, ",\"token_ids\":");
    put_collected_ids(choice, out);
    buf_str(out, ",\"routed_experts\":null}");
}

static void put_completion_choice(Choice *choice, Buf *out) {
    const Job *job = choice->job;
    bool echo = ask_is(job->ask.echo, false);
    auto_buf Buf text = {0};
    if (echo) put_prompt_text(choice, &text);
    if (choice->text.text.length && !job->choosing.prompt_only)
        buf_append(&text, choice->text.text.at, choice->text.text.length);
    buf_printf(out, "{\"index\":%u,\"text\":", choice->index);
    put_str(out, &text);
    buf_str(out, ",\"logprobs\":");
    if (job->choosing.sampling.logprobs >= 0) logprob_lists_write(&choice->lists, out);
    else buf_str(out, "null");
    put_finish(choice, out);
    put_stop_reason(choice, out);
    buf_str(out, ",\"token_ids\":");
    put_collected_ids(choice, out);
    buf_str(out, ",\"prompt_logprobs\":");
    put_prompt_logprobs(choice, out);
    buf_str(out, ",\"prompt_token_ids\":");
    if (ask_is(job->ask.return_token_ids, false))
        put_ids(out, choice->prompt->ids, choice->prompt->count);
    else buf_str(out, "null");
    buf_str(out, ",\"routed_experts\":null}");
}

static void put_usage(const Job *job, Buf *out) {
    size_t prompt, completion, cached;
    count_tokens(job, &prompt, &completion, &cached);
    buf_str(out, ",\"usage\":");
    put_counts(out, prompt, completion);
    if (job->serve->conf->prompt_details)
        buf_printf(out, ",\"prompt_tokens_details\":{\"cached_tokens\":%zu}", cached);
    else buf_str(out, ",\"prompt_tokens_details\":null");
    buf_str(out, ",\"completion_tokens_details\":null}");
}

static void put_chat_rest(const Job *job, Buf *out) {
    const Choice *first = &job->choices[0];
    buf_str(out, ",\"prompt_logprobs\":");
    put_prompt_logprobs(first, out);
    buf_str(out, ",\"prompt_token_ids\":");
    if (ask_is(job->ask.return_token_ids, false))
        put_ids(out, first->prompt->ids, first->prompt->count);
    else buf_str(out, "null");
    buf_str(out, ",\"prompt_text\":");
    if (ask_is(job->ask.return_prompt_text, false)) buf_json_str(out, first->prompt->text);
    else buf_str(out, "null");
}

void write_reply(const Job *job, Buf *out) {
    auto_buf Buf echo = {0};
    if (is_chat(job)) put_echo(job, &echo);
    put_begin(job, is_chat(job) ? "chat.completion" : "text_completion", out);
    for (size_t i = 0; i < job->count; i++) {
        if (i) buf_char(out, ',');
        if (is_chat(job)) put_chat_choice(&job->choices[i], &echo, out);
        else put_completion_choice(&job->choices[i], out);
    }
    buf_str(out, "],\"service_tier\":null");
    put_fingerprint(job, out);
    put_usage(job, out);
    if (is_chat(job)) put_chat_rest(job, out);
    buf_str(out, ",\"kv_transfer_params\":");
    const Choice *first = &job->choices[0];
    if (first->ended && first->request.offer_blocks)
        kv_offer_write(job->serve, &first->request, first->tokens == 1, out);
    else buf_str(out, "null");
    buf_str(out, ",\"ec_transfer_params\":null,\"metrics\":null}");
}

/* ---- streams ---- */

static void put_head(Job *job) { buf_append(&job->out, job->head.at, job->head.length); }

static void put_continuous(const Job *job, size_t prompt, size_t completion, Buf *out) {
    if (!job->continuous) return;
    buf_str(out, ",\"usage\":");
    put_counts(out, prompt, completion);
    buf_str(out, is_chat(job) ? ",\"completion_tokens_details\":null}" : "}");
}

void write_roles(Job *job) {
    Buf *out = &job->out;
    const Prompt *prompt = &job->prompts.at[0];
    for (size_t i = 0; i < job->count; i++) {
        put_head(job);
        buf_printf(out, "{\"index\":%zu,\"delta\":{\"role\":", i);
        buf_json_str(out, str_of(role_of(job)));
        buf_str(out, ",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]");
        put_continuous(job, prompt->count, 0, out);
        buf_str(out, ",\"prompt_token_ids\":");
        if (ask_is(job->ask.return_token_ids, false)) put_ids(out, prompt->ids, prompt->count);
        else buf_str(out, "null");
        buf_str(out, ",\"prompt_text\":");
        if (ask_is(job->ask.return_prompt_text, false)) buf_json_str(out, prompt->text);
        else buf_str(out, "null");
        buf_str(out, "}\n\n");
    }
    auto_buf Buf echo = {0};
    put_echo(job, &echo);
    for (size_t i = 0; i < job->count && echo.length; i++) {
        put_head(job);
        buf_printf(out, "{\"index\":%zu,\"delta\":{\"content\":", i);
        put_str(out, &echo);
        buf_str(out, "},\"logprobs\":null,\"finish_reason\":null}]");
        put_continuous(job, prompt->count, 0, out);
        buf_str(out, "}\n\n");
    }
}

static void put_chat_delta(const Choice *choice, Str text, const EngineEvent *event, Buf *out) {
    const Job *job = choice->job;
    int32_t top = job->choosing.sampling.logprobs;
    buf_printf(out, "{\"index\":%u,\"delta\":{\"content\":", choice->index);
    buf_json_str(out, text);
    buf_str(out, "},\"logprobs\":");
    if (top >= 0) {
        buf_str(out, "{\"content\":[");
        if (event->token >= 0)
            logprob_chat_write(job->serve->tokenizer, &event->logprobs, top, job->as_ids, out);
        buf_str(out, "]}");
    } else {
        buf_str(out, "null");
    }
    put_finish(choice, out);
    if (choice->done) put_stop_reason(choice, out);
}

static void put_completion_delta(Choice *choice, Str text, const EngineEvent *event, bool first,
                                 Buf *out) {
    const Job *job = choice->job;
    const Tokenizer *tokenizer = job->serve->tokenizer;
    int32_t top = job->choosing.sampling.logprobs;
    bool echo = first && ask_is(job->ask.echo, false), whole = !job->choosing.prompt_only;
    auto_buf Buf shown = {0};
    if (echo) put_prompt_text(choice, &shown);
    if (whole) buf_append(&shown, text.at, text.length);
    buf_printf(out, "{\"index\":%u,\"text\":", choice->index);
    put_str(out, &shown);
    buf_str(out, ",\"logprobs\":");
    if (top >= 0) {
        logprob_lists_clear(&choice->lists);
        if (echo)
            logprob_lists_add_prompt(&choice->lists, tokenizer, &choice->request, top, job->as_ids);
        if (whole && event->token >= 0)
            logprob_lists_add(&choice->lists, tokenizer, &event->logprobs, top, job->as_ids);
        logprob_lists_write(&choice->lists, out);
    } else {
        buf_str(out, "null");
    }
    put_finish(choice, out);
    put_stop_reason(choice, out);
    buf_str(out, ",\"prompt_token_ids\":");
    if (echo || (first && ask_is(job->ask.return_token_ids, false)))
        put_ids(out, choice->prompt->ids, choice->prompt->count);
    else buf_str(out, "null");
}

void write_chunk(Choice *choice, Str text, const EngineEvent *event, bool first) {
    Job *job = choice->job;
    Buf *out = &job->out;
    put_head(job);
    if (is_chat(job)) put_chat_delta(choice, text, event, out);
    else put_completion_delta(choice, text, event, first, out);
    buf_str(out, ",\"token_ids\":");
    if (!ask_is(job->ask.return_token_ids, false)) buf_str(out, "null");
    else put_ids(out, &event->token, event->token >= 0);
    buf_str(out, "}]");
    if (choice->done && !job->usage) put_fingerprint(job, out);
    put_continuous(job, choice->prompt->count, choice->tokens, out);
    buf_str(out, "}\n\n");
}

static const char done_event[] = "data: [DONE]\n\n";

void write_stream_end(Job *job) {
    Buf *out = &job->out;
    if (job->usage) {
        size_t prompt, completion, cached;
        count_tokens(job, &prompt, &completion, &cached);
        put_head(job);
        buf_str(out, "],\"usage\":");
        put_counts(out, prompt, completion);
        if (job->serve->conf->prompt_details)
            buf_printf(out, ",\"prompt_tokens_details\":{\"cached_tokens\":%zu}", cached);
        buf_char(out, '}');
        put_fingerprint(job, out);
        buf_str(out, "}\n\n");
    }
    buf_str(out, done_event);
}

void write_stream_error(Job *job, const Problem *problem) {
    buf_str(&job->out, "data: ");
    problem_body(problem, &job->out);
    buf_str(&job->out, "\n\n");
    buf_str(&job->out, done_event);
}

/* ---- headers ---- */

const char *job_degraded(const Job *job) {
    for (size_t i = 0; i < job->count; i++)
        if (job->choices[i].began && job->choices[i].request.report.degraded[0])
            return job->choices[i].request.report.degraded;
    return job->kv.degraded;
}

static int64_t later(int64_t at_us, int64_t than_us) { return at_us > than_us ? at_us : than_us; }

void write_stages(const Job *job, Buf *out) {
    RequestReport sum = {0};
    int64_t queue = 0, prefill = 0, transfer = 0, first_token = 0;
    const char *rail = "none";
    for (size_t i = 0; i < job->count; i++) {
        if (!job->choices[i].began) continue;
        const RequestReport *report = &job->choices[i].request.report;
        const RequestClock *clock = &job->choices[i].request.clock;
        sum.computed += report->computed;
        sum.cached += report->cached;
        sum.pulled += report->pulled;
        sum.bytes += report->bytes;
        if (report->rail != KV_RAIL_AUTO) rail = kv_rail_name(report->rail);
        queue = later(queue, clock->admitted - clock->submitted);
        prefill = later(prefill, clock->first_token - later(clock->admitted, clock->pull_ended));
        transfer = later(transfer, report->transfer_us);
        first_token = later(first_token, clock->first_token - clock->submitted);
    }
    buf_printf(out, "computed=%u; cached=%u; pulled=%u; bytes=%llu; rail=%s; queue_us=%lld",
               sum.computed, sum.cached, sum.pulled, (unsigned long long)sum.bytes, rail,
               (long long)queue);
    buf_printf(out, "; prefill_us=%lld; transfer_us=%lld; first_token_us=%lld", (long long)prefill,
               (long long)transfer, (long long)first_token);
}
