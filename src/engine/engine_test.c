// SPDX-License-Identifier: Apache-2.0
/* One engine: right tokens, whatever the company; scheduling, preemption, prefix reuse, aborts,
 * limits. */
#include "engine_test.h"

#include <math.h>

static Engine *shared; /* for tests that need nothing special */

static int open_shared(void **state) {
    (void)state;
    Err err = {0};
    if (!kernels_init(getenv("BATON_KERNELS"), &err)) fail_msg("%s", err.message);
    EngineConf conf = test_conf();
    shared = test_engine(&conf);
    return 0;
}

static int close_shared(void **state) {
    (void)state;
    engine_close(shared);
    return 0;
}

static Answer *ask_case(Engine *e, const json_t *c, uint32_t max_tokens) {
    int32_t *prompt;
    size_t count = case_ints(json_object_get(c, "prompt_tokens"), &prompt);
    Answer *a = ask(e, prompt, count, max_tokens);
    free(prompt);
    return a;
}

/* Up to the first step whose margin in exact arithmetic is too small to tell. */
static void greedy_tokens_are_those_of_exact_arithmetic(void **state) {
    (void)state;
    auto_json json_t *cases = greedy_cases();
    double off = 0;
    size_t places = 0, i;
    const json_t *c;
    json_array_foreach(cases, i, c) {
        const json_t *f32 = json_object_get(c, "f32"), *margins = json_object_get(f32, "margins");
        Answer *a = ask_case(shared, c, 64);
        a->request.sampling.logprobs = 5;
        answer_wait(submit(shared, a));
        const json_t *want = json_object_get(f32, "tokens"), *must = json_object_get(c, "tokens");
        for (size_t k = 0; k < json_array_size(want); k++) {
            if (json_number_value(json_array_get(margins, k)) < 0.02) break;
            if (a->tokens[k] != json_integer_value(json_array_get(want, k)))
                fail_msg("%s: token %zu is %d", json_string_value(json_object_get(c, "id")), k,
                         a->tokens[k]);
        }
        for (int64_t k = 0; k < json_integer_value(json_object_get(c, "must_match")); k++)
            assert_int_equal(a->tokens[k], json_integer_value(json_array_get(must, (size_t)k)));
        const json_t *top5 = json_object_get(f32, "top5");
        for (size_t k = 0; k < json_array_size(top5) && k < a->count; k++) {
            const json_t *ids = json_object_get(json_array_get(top5, k), "ids");
            const json_t *lps = json_object_get(json_array_get(top5, k), "logprobs");
            if (a->tokens[k] != json_integer_value(json_array_get(want, k))) break;
            for (size_t n = 0; n < 5; n++)
                for (size_t m = 0; m < 5; m++)
                    if (a->logprobs[k].top_tokens[n] ==
                        json_integer_value(json_array_get(ids, m))) {
                        off += fabs((double)a->logprobs[k].top_logprobs[n] -
                                    json_number_value(json_array_get(lps, m)));
                        places++;
                    }
        }
        answer_free(a);
    }
    print_message("mean change of a log-probability: %.5f over %zu\n", off / (double)places,
                  places);
    assert_true(off / (double)places < 0.01);
    assert_at_rest(shared);
}

static void an_answer_does_not_depend_on_company_chunks_threads_or_kernels(void **state) {
    (void)state;
    auto_json json_t *cases = greedy_cases();
    enum { N = 6, TOKENS = 6 };
    Answer *want[N];
    for (size_t i = 0; i < N; i++) {
        want[i] = ask_case(shared, json_array_get(cases, i), TOKENS);
        want[i]->request.sampling.logprobs = 3;
        answer_wait(submit(shared, want[i]));
    }
    static const struct {
        unsigned threads;
        size_t chunk, sequences;
        const char *kernels;
    } variants[] = {{1, 512, 64, NULL},
                    {3, 7, 7, NULL},
                    {4, 64, 3, NULL},
                    {2, 33, 33, "avx2"},
                    {2, 256, 64, "scalar"}};
    for (size_t v = 0; v < COUNT_OF(variants); v++) {
        Err err = {0};
        if (variants[v].kernels && !kernels_init(variants[v].kernels, &err))
            continue; /* not on this processor */
        EngineConf conf = test_conf();
        conf.model.threads = variants[v].threads;
        conf.max_batched_tokens = variants[v].chunk;
        conf.max_sequences = variants[v].sequences;
        Engine *e = test_engine(&conf);
        Answer *got[N];
        for (size_t i = 0; i < N; i++) {
            got[i] = ask_case(e, json_array_get(cases, i), TOKENS);
            got[i]->request.sampling.logprobs = 3;
            submit(e, got[i]);
        }
        for (size_t i = 0; i < N; i++) {
            answers_same(want[i], answer_wait(got[i]));
            answer_free(got[i]);
        }
        assert_at_rest(e);
        engine_close(e);
        if (!kernels_init(getenv("BATON_KERNELS"), &err)) fail();
    }
    for (size_t i = 0; i < N; i++) answer_free(want[i]);
}

static void a_prompt_seen_before_is_not_computed_again(void **state) {
    (void)state;
    int32_t prompt[100];
    for (int i = 0; i < 100; i++) prompt[i] = 2000 + i * 37;
    Answer *first = answer_wait(submit(shared, ask(shared, prompt, 100, 8)));
    Answer *again = answer_wait(submit(shared, ask(shared, prompt, 100, 8)));
    assert_int_equal(first->request.report.cached, 0);
    assert_int_equal(first->request.report.computed, 100);
    assert_int_equal(again->request.report.cached, 96);
    assert_int_equal(again->request.report.computed, 4);
    answers_same(first, again);
    Answer *salted = ask(shared, prompt, 100, 8);
    snprintf(salted->request.cache_salt, sizeof salted->request.cache_salt, "tenant-b");
    answer_wait(submit(shared, salted));
    assert_int_equal(salted->request.report.cached,
                     0); /* another tenant's cache stays out of reach */
    answers_same(first, salted);
    Answer *whole = answer_wait(
        submit(shared, ask(shared, prompt, 96, 1))); /* the last token is always computed */
    assert_int_equal(whole->request.report.cached, 80);
    answer_free(first);
    answer_free(again);
    answer_free(salted);
    answer_free(whole);
    assert_at_rest(shared);
}

static void prompt_logprobs_are_those_of_the_sampled_places(void **state) {
    (void)state;
    int32_t prompt[40];
    for (int i = 0; i < 40; i++) prompt[i] = 300 + i * 91;
    Answer *a = ask(shared, prompt, 40, 1);
    a->request.sampling.prompt_logprobs = 2;
    answer_wait(submit(shared, a));
    assert_non_null(a->request.prompt_logprobs);
    for (size_t i = 1; i < 40; i += 13) { /* the same number, asked for the other way */
        Answer *b = ask(shared, prompt, i, 1);
        LogitBias bias = {prompt[i], 100};
        b->request.sampling.bias = &bias;
        b->request.sampling.bias_count = 1;
        b->request.sampling.logprobs = 2;
        answer_wait(submit(shared, b));
        assert_int_equal(b->tokens[0], prompt[i]);
        assert_memory_equal(&b->logprobs[0], &a->request.prompt_logprobs[i], sizeof b->logprobs[0]);
        answer_free(b);
    }
    answer_free(a);
    assert_at_rest(shared);
}

static void when_blocks_run_out_the_youngest_waits_and_the_answers_stay(void **state) {
    (void)state;
    EngineConf conf = test_conf();
    conf.model.context = 400;
    conf.pool_bytes = 25 * 368640; /* one full sequence: 400 tokens */
    Engine *e = test_engine(&conf);
    enum { N = 5 };
    Answer *want[N], *got[N];
    int32_t prompt[N][90];
    for (int i = 0; i < N; i++) {
        for (int k = 0; k < 90; k++) prompt[i][k] = 1000 + i * 1111 + k * 17;
        want[i] = ask(shared, prompt[i], 90, 40);
        want[i]->request.sampling.ignore_eos = true;
        answer_wait(submit(shared, want[i]));
        got[i] = ask(e, prompt[i], 90, 40);
        got[i]->request.sampling.ignore_eos = true;
    }
    for (int i = 0; i < N; i++) submit(e, got[i]);
    for (int i = 0; i < N; i++) {
        answers_same(want[i], answer_wait(got[i]));
        answer_free(want[i]);
        answer_free(got[i]);
    }
    assert_true(counter_get(&engine_stats(e)->preemptions) > 0);
    assert_at_rest(e);
    engine_close(e);
}

static void an_aborted_request_gives_its_blocks_back(void **state) {
    (void)state;
    int32_t prompt[600];
    for (int i = 0; i < 600; i++) prompt[i] = 500 + i * 7;
    for (int when = 0; when < 4;
         when++) { /* at once; after the first token; twice; after the end */
        Answer *a = ask(shared, prompt, when == 0 ? 600 : 20, 100);
        a->request.sampling.ignore_eos = true;
        if (when == 3) a->request.sampling.max_tokens = 1;
        submit(shared, a);
        if (when) answer_take(a);
        if (when < 3) {
            engine_abort(shared, &a->request);
            if (when == 2) engine_abort(shared, &a->request);
            answer_wait(a);
            assert_int_equal(a->finish, FINISH_ABORT);
        } else {
            engine_abort(shared, &a->request);
        }
        assert_at_rest(shared);
        answer_free(a);
    }
}

static void seeds_repeat_and_parameters_bend_the_choice(void **state) {
    (void)state;
    int32_t prompt[] = {504, 3575, 282, 4649, 314};
    Answer *runs[3];
    for (int i = 0; i < 3; i++) {
        runs[i] = ask(shared, prompt, 5, 24);
        runs[i]->request.sampling.temperature = 1;
        runs[i]->request.sampling.seeded = true;
        runs[i]->request.sampling.seed = i == 2 ? 8 : 7;
        runs[i]->request.sampling.ignore_eos = true;
        answer_wait(submit(shared, runs[i]));
    }
    answers_same(runs[0], runs[1]);
    assert_true(memcmp(runs[0]->tokens, runs[2]->tokens, 24 * sizeof(int32_t)) != 0);
    for (int i = 0; i < 3; i++) answer_free(runs[i]);

    Answer *greedy = answer_wait(submit(shared, ask(shared, prompt, 5, 4)));
    struct { float top_p, min_p; int32_t top_k; } narrow[] = {{1e-6f, 0, 0}, {1, 1, 0}, {1, 0, 1}};
    for (size_t i = 0; i < COUNT_OF(narrow); i++) { /* each leaves the best token only */
        Answer *a = ask(shared, prompt, 5, 4);
        a->request.sampling.temperature = 1.5f;
        a->request.sampling.top_p = narrow[i].top_p;
        a->request.sampling.min_p = narrow[i].min_p;
        a->request.sampling.top_k = narrow[i].top_k;
        answers_same(greedy, answer_wait(submit(shared, a)));
        answer_free(a);
    }
    Answer *other = ask(shared, prompt, 5, 4);
    LogitBias never = {greedy->tokens[0], -100};
    other->request.sampling.bias = &never;
    other->request.sampling.bias_count = 1;
    answer_wait(submit(shared, other));
    assert_int_not_equal(other->tokens[0], greedy->tokens[0]);
    answer_free(other);
    Answer *stop = ask(shared, prompt, 5, 4);
    stop->request.sampling.stop_tokens = &greedy->tokens[1];
    stop->request.sampling.stop_token_count = 1;
    answer_wait(submit(shared, stop));
    assert_true(stop->count == 2 && stop->finish == FINISH_STOP &&
                stop->stop_token == greedy->tokens[1]);
    answer_free(stop);
    answer_free(greedy);
    assert_at_rest(shared);
}

static void penalties_end_a_repetition(void **state) {
    (void)state;
    int32_t prompt[12];
    for (int i = 0; i < 12; i++) prompt[i] = i % 2 ? 3575 : 282;
    size_t repeats[3];
    for (int i = 0; i < 3; i++) {
        Answer *a = ask(shared, prompt, 12, 40);
        a->request.sampling.ignore_eos = true;
        if (i == 1) a->request.sampling.frequency_penalty = 2;
        if (i == 2) a->request.sampling.repetition_penalty = 2;
        answer_wait(submit(shared, a));
        repeats[i] = 0;
        for (size_t k = 0; k < a->count; k++)
            for (size_t m = 0; m < k; m++) repeats[i] += a->tokens[k] == a->tokens[m];
        answer_free(a);
    }
    assert_true(repeats[1] < repeats[0] && repeats[2] < repeats[0]);
}

static void siblings_wait_for_the_first_one_and_use_its_blocks(void **state) {
    (void)state;
    int32_t prompt[200];
    for (int i = 0; i < 200; i++) prompt[i] = 9000 + i * 3;
    Answer *first = ask(shared, prompt, 200, 6), *second = ask(shared, prompt, 200, 6);
    second->request.after = &first->request;
    submit(shared, first);
    submit(shared, second);
    answers_same(answer_wait(first), answer_wait(second));
    assert_int_equal(second->request.report.cached, 192);
    answer_free(first);
    answer_free(second);
}

static void what_cannot_be_done_is_refused_with_numbers(void **state) {
    (void)state;
    Err err = {0};
    int32_t *prompt = mem_new(3000 * sizeof *prompt);
    Answer *a = ask(shared, prompt, 2304, 1);
    assert_false(engine_submit(shared, &a->request, &err));
    assert_string_equal(err.message, "prompt has 2304 tokens, the context is 2304 tokens");
    assert_string_equal(err.hint, "Shorten the prompt, or raise --max-model-len.");
    a->request.prompt_count = 5;
    a->request.hand_over = HAND_PULL;
    assert_false(engine_submit(shared, &a->request, &err));
    assert_string_equal(err.message,
                        "this engine pulls no KV: its kv_role is not kv_consumer or kv_both");
    answer_free(a);
    free(prompt);

    EngineConf conf = test_conf();
    conf.pool_bytes = 10 * MIB;
    assert_null(engine_open(&conf, &err));
    assert_string_equal(err.message,
                        "a KV cache of 10.0 MiB holds 448 tokens, the context is 2304 tokens");
    assert_string_equal(
        err.hint, "Raise --kv-cache-memory-bytes to 53084160, or lower --max-model-len to 448.");
    conf.pool_bytes = (size_t)1 << 50;
    assert_null(engine_open(&conf, &err));
    assert_int_equal(err.code, ERR_EXHAUSTED);
    conf = test_conf();
    conf.model.path = "/nowhere/model.gguf";
    assert_null(engine_open(&conf, &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "could not open '/nowhere/model.gguf'"));
}

static void a_full_queue_says_so(void **state) {
    (void)state;
    EngineConf conf = test_conf();
    conf.max_queued = 2;
    conf.max_sequences = 1;
    Engine *e = test_engine(&conf);
    int32_t prompt[] = {1, 2, 3};
    Answer *running = ask(e, prompt, 3, 120);
    running->request.sampling.ignore_eos = true;
    submit(e, running);
    answer_take(running);
    Answer *waiting[2] = {submit(e, ask(e, prompt, 3, 1)), submit(e, ask(e, prompt, 3, 1))},
           *third = ask(e, prompt, 3, 1);
    Err err = {0};
    assert_false(engine_submit(e, &third->request, &err));
    assert_int_equal(err.code, ERR_EXHAUSTED);
    assert_string_equal(err.message, "the queue is full: 2 requests wait");
    engine_close(e); /* ends the others with their last events */
    answer_wait(running);
    for (int i = 0; i < 2; i++) {
        answer_wait(waiting[i]);
        answer_free(waiting[i]);
    }
    answer_free(running);
    answer_free(third);
}

static void idle_arrived(void *user) { mailbox_send(user, mem_new(1)); }

static void draining_lets_running_requests_finish(void **state) {
    (void)state;
    EngineConf conf = test_conf();
    Engine *e = test_engine(&conf);
    int32_t prompt[] = {1, 2, 3};
    Answer *a = ask(e, prompt, 3, 30);
    a->request.sampling.ignore_eos = true;
    submit(e, a);
    Mailbox *idle = mailbox_new();
    engine_drain(e, idle_arrived, idle);
    Answer *late = ask(e, prompt, 3, 1);
    Err err = {0};
    assert_false(engine_submit(e, &late->request, &err));
    assert_string_equal(err.message, "the engine is shutting down");
    free(mailbox_take(idle, 60000000));
    answer_wait(a);
    assert_true(a->count == 30 && a->finish == FINISH_LENGTH);
    answer_free(a);
    answer_free(late);
    mailbox_close(idle, free);
    engine_close(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_tokens_are_those_of_exact_arithmetic),
        cmocka_unit_test(an_answer_does_not_depend_on_company_chunks_threads_or_kernels),
        cmocka_unit_test(a_prompt_seen_before_is_not_computed_again),
        cmocka_unit_test(prompt_logprobs_are_those_of_the_sampled_places),
        cmocka_unit_test(when_blocks_run_out_the_youngest_waits_and_the_answers_stay),
        cmocka_unit_test(an_aborted_request_gives_its_blocks_back),
        cmocka_unit_test(seeds_repeat_and_parameters_bend_the_choice),
        cmocka_unit_test(penalties_end_a_repetition),
        cmocka_unit_test(siblings_wait_for_the_first_one_and_use_its_blocks),
        cmocka_unit_test(what_cannot_be_done_is_refused_with_numbers),
        cmocka_unit_test(a_full_queue_says_so),
        cmocka_unit_test(draining_lets_running_requests_finish),
    };
    return cmocka_run_group_tests(tests, open_shared, close_shared);
}
