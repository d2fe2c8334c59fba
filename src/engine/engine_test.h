// SPDX-License-Identifier: Apache-2.0
/* engine_test.h - real engines on the real model for the tests of this folder: start, ask, collect.
 */
#ifndef BATON_ENGINE_TEST_H
#define BATON_ENGINE_TEST_H

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include "internal.h"
#include "text/text.h"
#include <cmocka.h>

#define ANSWER_MAX 160

typedef struct Answer { /* what one request came to */
    EngineRequest request;
    int32_t tokens[ANSWER_MAX];
    TokenLogprobs logprobs[ANSWER_MAX];
    size_t count;
    Finish finish;
    int32_t stop_token;
    Err err;
    Mailbox *inbox;
} Answer;

static inline void deliver_to_answer(EngineEvent *event, void *user) {
    (void)user;
    mailbox_send(((Answer *)event->request->user)->inbox, event);
}

static inline const char *test_model(void) {
    static char path[512];
    const char *given = getenv("BATON_TEST_MODEL"), *cache = getenv("XDG_CACHE_HOME"),
               *home = getenv("HOME");
    if (given) return given;
    snprintf(path, sizeof path, "%s%s/baton/SmolLM2-135M-Instruct.Q4_1.gguf",
             cache  ? cache
             : home ? home
                    : "",
             cache ? "" : "/.cache");
    return path;
}

static inline EngineConf test_conf(void) {
    return (EngineConf){.model = {.path = test_model(), .threads = 2, .context = 2304},
                        .pool_bytes = 256 * MIB,
                        .max_sequences = 64,
                        .max_batched_tokens = 512,
                        .max_queued = 256,
                        .block_tokens = 16,
                        .prefix_caching = true,
                        .lease_us = 10000000,
                        .pull_us = 5000000,
                        .deliver = deliver_to_answer};
}

static inline Engine *test_engine(const EngineConf *conf) {
    Err err = {0};
    Engine *e = engine_open(conf, &err);
    if (!e) fail_msg("%s (%s)", err.message, err.hint);
    return e;
}

static inline Answer *ask(Engine *e, const int32_t *prompt, size_t count, uint32_t max_tokens) {
    (void)e;
    Answer *a = mem_new(sizeof *a);
    a->inbox = mailbox_new();
    a->request.user = a;
    a->request.prompt = mem_new(count * sizeof *prompt);
    memcpy(a->request.prompt, prompt, count * sizeof *prompt);
    a->request.prompt_count = count;
    a->request.sampling = (Sampling){.top_p = 1,
                                     .repetition_penalty = 1,
                                     .max_tokens = max_tokens,
                                     .logprobs = -1,
                                     .prompt_logprobs = -1};
    return a;
}

static inline Answer *submit(Engine *e, Answer *a) {
    static _Atomic int number;
    Err err = {0};
    if (!a->request.id[0])
        snprintf(a->request.id, sizeof a->request.id, "test-%d", atomic_fetch_add(&number, 1));
    if (!engine_submit(e, &a->request, &err)) fail_msg("%s", err.message);
    return a;
}

/* One event; true when it was the last. */
static inline bool answer_take(Answer *a) {
    EngineEvent *event = mailbox_take(a->inbox, 120000000);
    if (!event) fail_msg("%s: no event within 120 s", a->request.id);
    if (event->token >= 0 && a->count < ANSWER_MAX) {
        a->logprobs[a->count] = event->logprobs;
        a->tokens[a->count++] = event->token;
    }
    bool last = event->last;
    a->finish = event->finish;
    a->stop_token = event->stop_token;
    a->err = event->err;
    free(event);
    return last;
}

static inline Answer *answer_wait(Answer *a) {
    while (!answer_take(a)) {}
    return a;
}

static inline void answer_free(Answer *a) {
    mailbox_close(a->inbox, free);
    free(a->request.prompt);
    free(a->request.prompt_logprobs);
    free(a->request.offer_blocks);
    free(a);
}

static inline void answers_same(const Answer *a, const Answer *b) {
    assert_int_equal(a->count, b->count);
    assert_int_equal(a->finish, b->finish);
    assert_memory_equal(a->tokens, b->tokens, a->count * sizeof *a->tokens);
    assert_memory_equal(a->logprobs, b->logprobs, a->count * sizeof *a->logprobs);
}

typedef struct LedgerAsk { Mailbox *inbox; } LedgerAsk;
static inline void ledger_answer(char *json, void *user) { mailbox_send(user, json); }

/* At rest: balanced, nothing held or leased. */
static inline json_t *ledger_of(Engine *e) {
    Mailbox *inbox = mailbox_new();
    engine_ledger(e, ledger_answer, inbox);
    char *text = mailbox_take(inbox, 60000000);
    Err err = {0};
    json_t *tree = json_parse(str_of(text), &err);
    if (!tree) fail_msg("%s", err.message);
    free(text);
    mailbox_close(inbox, free);
    return tree;
}

static inline int64_t ledger_blocks(Engine *e, const char *kind) {
    auto_json json_t *ledger = ledger_of(e);
    assert_true(json_is_true(json_object_get(ledger, "balanced")));
    return json_integer_value(json_object_get(json_object_get(ledger, "blocks"), kind));
}

static inline void assert_at_rest(Engine *e) {
    for (int i = 0; i < 100 && ledger_blocks(e, "leased"); i++) mailbox_close(mailbox_new(), NULL);
    assert_int_equal(ledger_blocks(e, "held"), 0);
    assert_int_equal(ledger_blocks(e, "leased"), 0);
}

/* The cases of test/data/smollm2-greedy.jsonl, an array. */
static inline json_t *greedy_cases(void) {
    Err err = {0};
    size_t length;
    auto_free char *text = file_read("test/data/smollm2-greedy.jsonl", 16 * MIB, &length, &err);
    if (!text) fail_msg("%s", err.message);
    json_t *cases = json_array();
    Str rest = {text, length}, line;
    while (str_cut(&rest, '\n', &line))
        if (line.length) json_array_append_new(cases, json_parse(line, &err));
    return cases;
}

static inline size_t case_ints(const json_t *array, int32_t **out) {
    size_t n = json_array_size(array);
    *out = mem_new(n * sizeof **out);
    for (size_t i = 0; i < n; i++)
        (*out)[i] = (int32_t)json_integer_value(json_array_get(array, i));
    return n;
}

#endif
