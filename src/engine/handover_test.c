// SPDX-License-Identifier: Apache-2.0
/* Two engines: prefill here, decode there.  Answers equal one engine's bit for bit, over both
 * rails; whatever goes wrong is said, and the blocks of both sides come back. */
#include "engine_test.h"

static Engine *single, *prefill, *decode;

static EngineConf role_conf(EngineRole role, KvRail rail) {
    EngineConf conf = test_conf();
    conf.role = role;
    conf.rail = rail;
    return conf;
}

static int open_engines(void **state) {
    (void)state;
    Err err = {0};
    if (!kernels_init(getenv("BATON_KERNELS"), &err)) fail_msg("%s", err.message);
    EngineConf conf = test_conf();
    single = test_engine(&conf);
    conf = role_conf(ROLE_PRODUCER, KV_RAIL_AUTO);
    prefill = test_engine(&conf);
    conf = role_conf(ROLE_CONSUMER, KV_RAIL_AUTO);
    decode = test_engine(&conf);
    return 0;
}

static int close_engines(void **state) {
    (void)state;
    engine_close(single);
    engine_close(prefill);
    engine_close(decode);
    return 0;
}

/* A copy of what is asked, to be asked elsewhere. */
static Answer *same_question(Engine *e, const Answer *a) {
    Answer *b = ask(e, a->request.prompt, a->request.prompt_count, a->request.sampling.max_tokens);
    b->request.sampling = a->request.sampling;
    return b;
}

static Answer *offer(Engine *from, const Answer *question) {
    Answer *p = same_question(from, question);
    p->request.sampling.max_tokens = 1;
    p->request.hand_over = HAND_OFFER;
    return submit(from, p);
}

static void pull_from(Answer *d, const Engine *from, const Answer *offered) {
    d->request.hand_over = HAND_PULL;
    snprintf(d->request.peer_engine, sizeof d->request.peer_engine, "%s", engine_id(from));
    snprintf(d->request.peer_host, sizeof d->request.peer_host, "127.0.0.1");
    snprintf(d->request.peer_request, sizeof d->request.peer_request, "%s", offered->request.id);
    d->request.peer_port = engine_kv_port(from);
}

static Answer *random_question(uint64_t seed, size_t length, uint32_t max_tokens) {
    int32_t prompt[2048];
    for (size_t i = 0; i < length; i++)
        prompt[i] = (int32_t)(300 + (seed * 7919 + i * 104729) % 40000);
    Answer *a = ask(single, prompt, length, max_tokens);
    a->request.sampling.logprobs = (int32_t)(seed % 6) - 1;
    a->request.sampling.ignore_eos = true;
    if (seed % 3 == 1) {
        a->request.sampling.temperature = 0.9f;
        a->request.sampling.top_p = 0.95f;
        a->request.sampling.seeded = true;
        a->request.sampling.seed = seed;
    }
    return a;
}

static void both_at_rest(void) {
    assert_at_rest(prefill);
    assert_at_rest(decode);
}

static void answers_are_those_of_one_engine_bit_for_bit(void **state) {
    (void)state;
    static const size_t lengths[] = {1, 15, 16, 17, 32, 33, 100, 512};
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        Answer *want = answer_wait(submit(single, random_question(i, lengths[i], 12)));
        Answer *p = answer_wait(offer(prefill, want));
        assert_int_equal(p->request.offer_block_count, (lengths[i] + 15) / 16);
        Answer *d = same_question(decode, want);
        pull_from(d, prefill, p);
        answer_wait(submit(decode, d));
        answers_same(want, d);
        assert_int_equal(d->request.report.pulled, lengths[i]);
        assert_int_equal(d->request.report.computed, 0);
        assert_true(d->request.report.first_token_pulled);
        assert_int_equal(d->request.report.rail, KV_RAIL_SHM);
        assert_int_equal(d->request.report.bytes,
                         (lengths[i] + 15) / 16 * model_page_bytes(engine_model(decode)));
        assert_string_equal(d->request.report.degraded, "");
        answer_free(want);
        answer_free(p);
        answer_free(d);
    }
    both_at_rest();
}

static void sixteen_at_once_over_tcp_and_other_kernels(void **state) {
    (void)state;
    Err err = {0};
    EngineConf conf = role_conf(ROLE_BOTH, KV_RAIL_TCP);
    conf.model.threads = 1;
    Engine *other = test_engine(&conf);
    enum { N = 16 };
    Answer *want[N], *p[N], *d[N];
    for (size_t i = 0; i < N; i++)
        want[i] = submit(single, random_question(100 + i, 20 + i * 9, 8));
    for (size_t i = 0; i < N; i++) answer_wait(want[i]);
    /* the prompts are computed by another set */
    if (!kernels_init("avx2", &err) && !kernels_init("scalar", &err)) fail();
    for (size_t i = 0; i < N; i++) p[i] = offer(prefill, want[i]);
    for (size_t i = 0; i < N; i++) answer_wait(p[i]);
    if (!kernels_init(getenv("BATON_KERNELS"), &err)) fail();
    for (size_t i = 0; i < N; i++) {
        d[i] = same_question(other, want[i]);
        pull_from(d[i], prefill, p[i]);
        submit(other, d[i]);
    }
    for (size_t i = 0; i < N; i++) {
        answers_same(want[i], answer_wait(d[i]));
        assert_int_equal(d[i]->request.report.rail, KV_RAIL_TCP);
        answer_free(want[i]);
        answer_free(p[i]);
        answer_free(d[i]);
    }
    both_at_rest();
    assert_at_rest(other);
    engine_close(other);
}

static void blocks_that_are_here_already_are_not_pulled_again(void **state) {
    (void)state;
    Answer *q = random_question(707, 100, 4);
    for (int round = 0; round < 2; round++) {
        Answer *p = answer_wait(offer(prefill, q)), *d = same_question(decode, q);
        assert_int_equal(p->request.report.cached, round ? 96 : 0);
        pull_from(d, prefill, p);
        answer_wait(submit(decode, d));
        assert_int_equal(d->request.report.cached, round ? 96 : 0);
        assert_int_equal(d->request.report.pulled, round ? 4 : 100);
        assert_int_equal(d->request.report.peer_cached, round ? 96 : 0);
        assert_int_equal(d->request.report.bytes,
                         (round ? 1u : 7u) * model_page_bytes(engine_model(decode)));
        answer_free(p);
        answer_free(d);
    }
    answer_free(q);
    both_at_rest();
}

static void a_first_token_sampled_otherwise_is_sampled_again(void **state) {
    (void)state;
    Answer *want =
        answer_wait(submit(single, random_question(606, 48, 6))); /* no log-probabilities */
    Answer *p = answer_wait(offer(prefill, want)), *d = same_question(decode, want);
    d->request.sampling.logprobs = 4; /* the prefill engine was not asked for them */
    pull_from(d, prefill, p);
    answer_wait(submit(decode, d));
    assert_false(d->request.report.first_token_pulled);
    assert_int_equal(d->request.report.computed, 1);
    assert_int_equal(d->request.report.pulled, 47);
    assert_memory_equal(want->tokens, d->tokens, 6 * sizeof(int32_t));
    assert_int_equal(d->logprobs[0].top_count, 4);
    answer_free(want);
    answer_free(p);
    answer_free(d);
    both_at_rest();
}

typedef enum Spoil { DEAD_PORT, WRONG_ENGINE, UNKNOWN_REQUEST, OTHER_PROMPT, SPOILS } Spoil;

static void spoil(Answer *d, Spoil how) {
    if (how == DEAD_PORT) {
        d->request.peer_port = 1;
        snprintf(d->request.peer_engine, sizeof d->request.peer_engine, "gone");
    }
    if (how == WRONG_ENGINE)
        snprintf(d->request.peer_engine, sizeof d->request.peer_engine, "someone-else");
    if (how == UNKNOWN_REQUEST)
        snprintf(d->request.peer_request, sizeof d->request.peer_request, "never-heard-of");
    if (how == OTHER_PROMPT) d->request.prompt[20] ^= 1;
}

static void what_cannot_be_pulled_is_computed_here_and_said(void **state) {
    (void)state;
    static const char *const said[SPOILS] = {"connection refused", "someone-else", "never-heard-of",
                                             "another prompt"};
    for (int strict = 0; strict < 2; strict++)
        for (Spoil how = 0; how < SPOILS; how++) {
            Answer *q = random_question(500 + how * 10 + (uint64_t)strict, 40, 5);
            Answer *p = answer_wait(offer(prefill, q)), *d = same_question(decode, q);
            pull_from(d, prefill, p);
            spoil(d, how);
            d->request.strict = strict;
            Answer *want = same_question(single, d);
            answer_wait(submit(single, want));
            uint64_t before = counter_get(&engine_stats(decode)->degraded);
            answer_wait(submit(decode, d));
            assert_int_equal(counter_get(&engine_stats(decode)->degraded), before + 1);
            const char *text = strict ? d->err.message : d->request.report.degraded;
            if (!strstr(text, said[how])) fail_msg("'%s' does not say '%s'", text, said[how]);
            if (strict) {
                assert_int_equal(d->finish, FINISH_ERROR);
                assert_int_equal(d->count, 0);
            } else {
                answers_same(want, d);
                assert_int_equal(d->request.report.computed, 40);
            }
            answer_free(want);
            answer_free(q);
            answer_free(p);
            answer_free(d);
        }
    assert_at_rest(decode); /* the offers of prefill that nobody took expire by themselves */
}

static void an_offer_nobody_takes_comes_back(void **state) {
    (void)state;
    EngineConf conf = role_conf(ROLE_PRODUCER, KV_RAIL_AUTO);
    conf.lease_us = 200000;
    Engine *e = test_engine(&conf);
    Answer *q = random_question(30, 64, 1), *p = answer_wait(offer(e, q));
    assert_int_equal(ledger_blocks(e, "leased"), 4);
    Mailbox *clock = mailbox_new();
    for (int i = 0; i < 50 && ledger_blocks(e, "leased"); i++) mailbox_take(clock, 100000);
    assert_at_rest(e);
    Answer *d = same_question(decode, q); /* and whoever comes late is told */
    pull_from(d, e, p);
    d->request.strict = true;
    answer_wait(submit(decode, d));
    assert_int_equal(d->finish, FINISH_ERROR);
    assert_non_null(strstr(d->err.message, p->request.id));
    mailbox_close(clock, NULL);
    answer_free(q);
    answer_free(p);
    answer_free(d);
    engine_close(e);
}

static void aborting_at_any_moment_gives_both_sides_their_blocks(void **state) {
    (void)state;
    for (uint64_t i = 0; i < 12; i++) {
        Answer *q = random_question(900 + i, 400, 50), *p = offer(prefill, q);
        if (i % 4 == 0) engine_abort(prefill, &p->request); /* no offer then */
        answer_wait(p);
        Answer *d = same_question(decode, q);
        pull_from(d, prefill, p);
        submit(decode, d);
        if (i % 4 == 2) answer_take(d);
        engine_abort(decode, &d->request);
        answer_wait(d);
        assert_int_equal(d->finish, FINISH_ABORT);
        assert_at_rest(decode);
        answer_free(q);
        answer_free(p);
        answer_free(d);
    }
    Mailbox *clock = mailbox_new();
    for (int i = 0; i < 120 && ledger_blocks(prefill, "leased"); i++) mailbox_take(clock, 100000);
    mailbox_close(clock, NULL);
    both_at_rest();
}

static void a_prompt_whose_logprobs_are_asked_for_is_computed_here(void **state) {
    (void)state;
    Answer *q = random_question(40, 30, 2);
    q->request.sampling.prompt_logprobs = 1;
    Answer *p = answer_wait(offer(prefill, q)), *d = same_question(decode, q);
    pull_from(d, prefill, p);
    answer_wait(submit(decode, d));
    assert_non_null(strstr(d->request.report.degraded, "log-probabilities of the prompt"));
    assert_non_null(d->request.prompt_logprobs);
    answer_free(q);
    answer_free(p);
    answer_free(d);
    Mailbox *clock = mailbox_new(); /* the peer was told at once, long before the lease ends */
    for (int i = 0; i < 20 && ledger_blocks(prefill, "leased"); i++) mailbox_take(clock, 50000);
    mailbox_close(clock, NULL);
    both_at_rest();
}

static void a_restarted_prefill_engine_is_taken_for_what_it_is(void **state) {
    (void)state;
    EngineConf conf = role_conf(ROLE_PRODUCER, KV_RAIL_AUTO);
    conf.engine_id = "prefill-restarts";
    Engine *e = test_engine(&conf);
    for (int life = 0; life < 3; life++) {
        Answer *q = random_question(60 + (uint64_t)life, 50, 3), *p = answer_wait(offer(e, q));
        Answer *lost = answer_wait(offer(e, q)), *d = same_question(decode, q);
        pull_from(d, e, p);
        answer_wait(submit(decode, d));
        assert_string_equal(d->request.report.degraded, "");
        Answer *late = same_question(decode, q);
        pull_from(late, e, lost);
        conf.kv_port = engine_kv_port(e);
        engine_close(e);
        e = test_engine(&conf); /* same id, same port, another life: the offer is gone */
        answer_wait(submit(decode, late));
        assert_non_null(strstr(late->request.report.degraded, "it started"));
        answers_same(d, late);
        answer_free(q);
        answer_free(p);
        answer_free(lost);
        answer_free(d);
        answer_free(late);
    }
    assert_at_rest(decode);
    engine_close(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_those_of_one_engine_bit_for_bit),
        cmocka_unit_test(sixteen_at_once_over_tcp_and_other_kernels),
        cmocka_unit_test(blocks_that_are_here_already_are_not_pulled_again),
        cmocka_unit_test(a_first_token_sampled_otherwise_is_sampled_again),
        cmocka_unit_test(what_cannot_be_pulled_is_computed_here_and_said),
        cmocka_unit_test(an_offer_nobody_takes_comes_back),
        cmocka_unit_test(aborting_at_any_moment_gives_both_sides_their_blocks),
        cmocka_unit_test(a_prompt_whose_logprobs_are_asked_for_is_computed_here),
        cmocka_unit_test(a_restarted_prefill_engine_is_taken_for_what_it_is),
    };
    return cmocka_run_group_tests(tests, open_engines, close_engines);
}
