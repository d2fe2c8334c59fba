// SPDX-License-Identifier: Apache-2.0
#include "job.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- the end ---- */

static void choice_done(Choice *choice) {
    choice_text_done(&choice->text);
    buf_done(&choice->ids);
    buf_done(&choice->chat_logprobs);
    logprob_lists_done(&choice->lists);
    free(choice->request.prompt_logprobs);
    free(choice->request.offer_blocks);
}

static void job_free_if_over(Job *job) {
    if (job->http || job->ended < job->count) return;
    for (size_t i = 0; i < job->count; i++) choice_done(&job->choices[i]);
    free(job->choices);
    prompts_done(&job->prompts);
    ask_done(&job->ask);
    arena_done(&job->arena);
    buf_done(&job->head);
    buf_done(&job->out);
    job->serve->jobs--;
    free(job);
}

/* Whatever is left of it need not be computed. */
static void job_abort(Job *job) {
    for (size_t i = 0; i < job->count; i++) {
        Choice *choice = &job->choices[i];
        if (!choice->done) counter_add(&job->serve->stats.finished[FINISH_ABORT], 1);
        choice->done = true;
        if (!choice->ended) engine_abort(job->serve->engine, &choice->request);
    }
}

static void on_gone(HttpRequest *http, void *user) {
    Job *job = user;
    char detail[192];
    snprintf(detail, sizeof detail, "%s: the client has gone", job->id);
    serve_replied(job->serve, http, 499, job->bytes, detail);
    job->http = NULL;
    job_abort(job);
    job_free_if_over(job);
}

/* ---- replies ---- */

static void describe(const Job *job, char out[512]) {
    size_t prompt = 0, tokens = 0;
    auto_buf Buf stages = {0};
    for (size_t p = 0; p < job->prompts.count; p++) prompt += job->prompts.at[p].count;
    for (size_t i = 0; i < job->count; i++) tokens += job->choices[i].tokens;
    write_stages(job, &stages);
    snprintf(out, 512, "%s: %zu prompt tokens, %zu tokens; %.300s", job->id, prompt, tokens,
             stages.at);
}

static HttpHeaders headers_of(const Job *job, Buf *stages, HttpHeader out[4]) {
    write_stages(job, stages);
    size_t count = 0;
    out[count++] = (HttpHeader){STR("Baton-Stages"), {stages->at, stages->length}};
    const char *degraded = job_degraded(job);
    if (*degraded) out[count++] = (HttpHeader){STR("Baton-Degraded"), str_of(degraded)};
    if (job->stream && job->serve->conf->request_id_headers)
        out[count++] = (HttpHeader){STR("X-Request-Id"), str_of(strchr(job->id, '-') + 1)};
    return (HttpHeaders){out, count};
}

static void send_out(Job *job) {
    job->bytes += job->out.length;
    http_send(job->http, (Str){job->out.at, job->out.length});
    buf_clear(&job->out);
}

static void end_stream(Job *job, int status) {
    char detail[512];
    send_out(job);
    describe(job, detail);
    HttpRequest *http = job->http;
    job->http = NULL;
    serve_replied(job->serve, http, status, job->bytes, detail);
    http_end(http);
}

static void begin_stream(Job *job) {
    HttpHeader extra[4];
    auto_buf Buf stages = {0};
    http_begin(job->http, 200, "text/event-stream; charset=utf-8", headers_of(job, &stages, extra));
    job->began = true;
    if (job->ask.kind == ASK_CHAT) write_roles(job);
}

static void reply_whole(Job *job) {
    HttpHeader extra[4];
    auto_buf Buf stages = {0}, body = {0};
    char detail[512];
    write_reply(job, &body);
    describe(job, detail);
    HttpRequest *http = job->http;
    job->http = NULL;
    serve_reply(job->serve, http, 200, (Str){body.at, body.length}, headers_of(job, &stages, extra),
                detail);
}

/* Before the first byte a status tells, behind it an event of the stream. */
static void job_fail(Job *job, const Err *err) {
    Problem problem = {0};
    problem_from_err(&problem, err);
    log_warn("%s: failed: %s", job->id, err->message);
    job_abort(job);
    if (job->began) {
        write_stream_error(job, &problem);
        end_stream(job, problem.status);
    } else {
        HttpRequest *http = job->http;
        job->http = NULL;
        serve_reply_problem(job->serve, http, &problem);
    }
    problem_done(&problem);
}

/* ---- tokens ---- */

static void note_token(Choice *choice, const EngineEvent *event) {
    Job *job = choice->job;
    const Sampling *sampling = &job->choosing.sampling;
    const Tokenizer *tokenizer = job->serve->tokenizer;
    bool whole = !job->choosing.prompt_only;
    choice->tokens += whole;
    if (job->stream) return;
    if (ask_is(job->ask.return_token_ids, false)) {
        if (choice->ids.length) buf_char(&choice->ids, ',');
        buf_json_int(&choice->ids, event->token);
    }
    if (sampling->logprobs < 0) return;
    if (job->ask.kind == ASK_CHAT) {
        if (choice->chat_logprobs.length) buf_char(&choice->chat_logprobs, ',');
        logprob_chat_write(tokenizer, &event->logprobs, sampling->logprobs, job->as_ids,
                           &choice->chat_logprobs);
        return;
    }
    if (!choice->began && ask_is(job->ask.echo, false))
        logprob_lists_add_prompt(&choice->lists, tokenizer, &choice->request, sampling->logprobs,
                                 job->as_ids);
    if (whole)
        logprob_lists_add(&choice->lists, tokenizer, &event->logprobs, sampling->logprobs,
                          job->as_ids);
}

static void finish_choice(Choice *choice, Finish finish) {
    Job *job = choice->job;
    choice->finish = finish;
    choice->done = true;
    job->done++;
    counter_add(&job->serve->stats.finished[finish], 1);
}

/* Adds the token's text; true if the choice is complete with it. */
static bool take_text(Choice *choice, const EngineEvent *event) {
    Job *job = choice->job;
    const Choosing *choosing = &job->choosing;
    bool hidden = event->token < 0 || (event->finish == FINISH_STOP && !choosing->stops.included);
    bool search = choice->tokens > choosing->sampling.min_tokens;
    if (!hidden) choice->stop = choice_text_add(&choice->text, event->token, search);
    if (choice->stop) {
        if (!event->last) engine_abort(job->serve->engine, &choice->request);
        finish_choice(choice, FINISH_STOP);
        return true;
    }
    if (!event->last) return false;
    choice_text_end(&choice->text);
    choice->stop_token = event->stop_token;
    finish_choice(choice, event->finish);
    return true;
}

static void take_event(Choice *choice, const EngineEvent *event) {
    Job *job = choice->job;
    if (event->finish == FINISH_ERROR) {
        finish_choice(choice, FINISH_ERROR);
        job_fail(job, &event->err);
        return;
    }
    if (event->token >= 0) note_token(choice, event);
    bool complete = take_text(choice, event), first = !choice->began;
    choice->began = true;
    if (!job->stream) {
        if (job->done == job->count) reply_whole(job);
        return;
    }
    if (!job->began) begin_stream(job);
    write_chunk(choice, choice_text_take(&choice->text, complete), event, first);
    if (job->done < job->count) {
        send_out(job);
        return;
    }
    write_stream_end(job);
    end_stream(job, 200);
}

void job_on_event(void *message, void *user) {
    EngineEvent *event = message;
    Choice *choice = event->request->user;
    (void)user;
    if (!choice) { /* of job_release_offer() */
        if (event->last) free(event->request);
        free(event);
        return;
    }
    Job *job = choice->job;
    if (event->last) {
        choice->ended = true;
        job->ended++;
        histogram_observe(&job->serve->stats.preemptions, choice->request.report.preemptions);
    }
    if (job->http && !choice->done) take_event(choice, event);
    free(event);
    job_free_if_over(job);
}

/* ---- the beginning ---- */

static void name_job(Job *job) {
    Str given = http_header(job->http->headers, "X-Request-Id");
    uint64_t random;
    char hex[17];
    random_bytes(&random, sizeof random);
    snprintf(hex, sizeof hex, "%016llx", (unsigned long long)random);
    if (!given.length) given = job->ask.request_id;
    if (!given.length) given = str_of(hex);
    if (given.length > LIMIT_REQUEST_ID) given.length = utf8_whole(given.at, LIMIT_REQUEST_ID);
    snprintf(job->id, sizeof job->id, "%s-%.*s", job->ask.kind == ASK_CHAT ? "chatcmpl" : "cmpl",
             STR_ARG(given));
}

static void set_hand_over(EngineRequest *request, const KvAsk *kv) {
    request->hand_over = kv->hand_over;
    if (kv->hand_over != HAND_PULL) return;
    snprintf(request->peer_engine, sizeof request->peer_engine, "%s", kv->peer_engine);
    snprintf(request->peer_request, sizeof request->peer_request, "%s", kv->peer_request);
    snprintf(request->peer_host, sizeof request->peer_host, "%s", kv->peer_host);
    request->peer_port = kv->peer_port;
}

/* A request that is over before it begins: the engine then lets the offer go. */
void job_release_offer(Serve *serve, const KvAsk *kv) {
    static int32_t prompt[] = {0};
    Err err = {0};
    EngineRequest *request = mem_new(sizeof *request);
    *request = (EngineRequest){.id = "refused", .prompt = prompt, .prompt_count = 1};
    request->sampling = (Sampling){.top_p = 1, .repetition_penalty = 1, .max_tokens = 1,
                                   .logprobs = -1, .prompt_logprobs = -1};
    set_hand_over(request, kv);
    if (engine_submit(serve->engine, request, &err)) engine_abort(serve->engine, request);
    else free(request);
}

static void init_choice(Job *job, size_t index) {
    Serve *serve = job->serve;
    Choice *choice = &job->choices[index];
    const Choosing *choosing = &job->choosing;
    EngineRequest *request = &choice->request;
    uint32_t child = (uint32_t)(index % choosing->n), random;
    choice->job = job;
    choice->index = (uint32_t)index;
    choice->prompt = &job->prompts.at[index / choosing->n];
    choice->stop_token = -1;
    choice_text_init(&choice->text, serve->tokenizer, ask_is(job->ask.skip_special, true),
                     &choosing->stops);
    random_bytes(&random, sizeof random);
    if (job->ask.kind == ASK_CHAT && job->count == 1)
        snprintf(request->id, sizeof request->id, "%s-%08x", job->id, random);
    else snprintf(request->id, sizeof request->id, "%s-%u-%08x", job->id, choice->index, random);
    request->user = choice;
    request->prompt = choice->prompt->ids;
    request->prompt_count = choice->prompt->count;
    request->sampling = choosing->sampling;
    Sampling *sampling = &request->sampling;
    sampling->max_tokens = choosing_fit(serve, sampling->max_tokens, request->prompt_count);
    if (sampling->min_tokens > sampling->max_tokens) sampling->min_tokens = sampling->max_tokens;
    sampling->seed += child; /* answers to one prompt differ */
    if (child) request->after = &job->choices[index - child].request;
    if (job->ask.cache_salt.length)
        snprintf(request->cache_salt, sizeof request->cache_salt, "%.*s",
                 STR_ARG(job->ask.cache_salt));
    if (index == 0) set_hand_over(request, &job->kv);
}

static void observe_params(Serve *serve, const Job *job) {
    histogram_observe(&serve->stats.params_n, job->choosing.n);
    AskInt asked = job->ask.max_completion_tokens.given ? job->ask.max_completion_tokens
                                                        : job->ask.max_tokens;
    if (asked.given) histogram_observe(&serve->stats.params_max_tokens, (double)asked.value);
    if (serve->conf->log_requests)
        log_info("%s: received: %zu prompts, %zu answers, %u tokens each at most%s", job->id,
                 job->prompts.count, job->count, job->choices[0].request.sampling.max_tokens,
                 job->stream ? ", as a stream" : "");
}

static void submit_all(Job *job) {
    Err err = {0};
    for (size_t i = 0; i < job->count; i++) {
        if (engine_submit(job->serve->engine, &job->choices[i].request, &err)) continue;
        for (size_t rest = i; rest < job->count; rest++) { /* never the engine's */
            job->choices[rest].ended = true;
            job->ended++;
        }
        job_fail(job, &err);
        job_free_if_over(job);
        return;
    }
}

void job_start(Serve *serve, HttpRequest *http, Ask *ask, Prompts *prompts,
               const Choosing *choosing, const KvAsk *kv, Arena *arena) {
    Job *job = mem_new(sizeof *job);
    *job = (Job){.serve = serve, .http = http, .ask = *ask, .prompts = *prompts,
                 .choosing = *choosing, .kv = *kv, .arena = *arena,
                 .created_s = clock_wall_us() / 1000000};
    serve->jobs++;
    name_job(job);
    const ServeConf *conf = serve->conf;
    job->stream = ask_is(ask->stream, false);
    job->usage = conf->force_usage || ask_is(ask->include_usage, false);
    job->continuous = conf->force_usage || (job->usage && ask_is(ask->continuous_usage, false));
    job->as_ids = ask_is(ask->tokens_as_ids, conf->tokens_as_ids);
    job->count = prompts->count * choosing->n;
    job->choices = mem_new(job->count * sizeof *job->choices);
    for (size_t i = 0; i < job->count; i++) init_choice(job, i);
    if (job->stream) write_head(job);
    observe_params(serve, job);
    http_on_gone(http, on_gone, job);
    submit_all(job);
}
