// SPDX-License-Identifier: Apache-2.0
/* Two real agents in one process, over both rails. */
#include "engine_test.h"

static const KvRail rails[] = {KV_RAIL_SHM, KV_RAIL_TCP};

static int64_t in_ms(int64_t ms) { return clock_mono_us() + ms * 1000; }

static void rails_have_names(void **state) {
    (void)state;
    KvRail rail = KV_RAIL_AUTO;
    for (int r = 0; r < KV_RAILS; r++) {
        assert_true(kv_rail_from(kv_rail_name((KvRail)r), &rail));
        assert_int_equal(rail, r);
    }
    assert_false(kv_rail_from("rdma", &rail));
}

static void a_pull_brings_the_blocks_the_first_token_and_the_end_of_the_offer(void **state) {
    (void)state;
    for (size_t r = 0; r < COUNT_OF(rails); r++) {
        Engine prefill, decode;
        engine_open(&prefill, (EngineConf){0});
        engine_open(&decode, (EngineConf){.rail = rails[r]});
        KvLease lease = engine_offer(&prefill, "req-1", 7, 100, in_ms(10000));
        Plan plan;
        plan_init(&plan, &decode, &prefill, "req-1", 7, 100, 0);
        KvPullResult result = engine_pull(&plan);
        if (!result.ok) fail_msg("%s", result.err.message);
        assert_true(plan_arrived(&plan));
        assert_int_equal(result.rail, rails[r]);
        assert_string_equal(result.rail_reason,
                            r == 0 ? "" : "shm: not tried, this engine's rail is set to tcp");
        assert_int_equal(result.bytes, 7 * 2048);
        assert_int_equal(result.cached_tokens, 50);
        assert_int_equal(result.first.token, 7);
        assert_int_equal(result.first.top_count, 2);
        assert_int_equal(result.first.sampling_hash, 77);
        assert_true(result.first.logprob == -0.5f);
        assert_int_equal(result.first.top_tokens[1], 5);
        assert_true(result.first.top_logprobs[1] == -2.25f);
        assert_true(result.total_us >= result.connect_us && result.connect_us > 0);
        assert_ended(&prefill, lease, KV_END_RELEASED);
        plan_done(&plan);

        const KvAgentStats *in = kv_agent_stats(decode.agent), *out = kv_agent_stats(prefill.agent);
        assert_int_equal(counter_get(&in->pulls_ok), 1);
        assert_int_equal(counter_get(&in->rail_used[rails[r]]), 1);
        assert_int_equal(counter_get(&in->rail_downgraded), 0);
        assert_int_equal(counter_get(&in->bytes_in), 7 * 2048);
        assert_int_equal(counter_get(&out->bytes_out), 7 * 2048);
        assert_int_equal(counter_get(&out->offers), 1);
        assert_int_equal(counter_get(&out->offers_released), 1);
        engine_close(&decode);
        engine_close(&prefill);
    }
}

static void blocks_that_are_here_already_are_not_copied_but_proven(void **state) {
    (void)state;
    for (size_t r = 0; r < COUNT_OF(rails); r++)
        for (size_t skip = 0; skip <= 4; skip += 2) {
            Engine prefill, decode;
            engine_open(&prefill, (EngineConf){0});
            engine_open(&decode, (EngineConf){.rail = rails[r]});
            engine_offer(&prefill, "req", 3, 64, in_ms(10000));
            Plan plan;
            plan_init(&plan, &decode, &prefill, "req", 3, 64, skip);
            KvPullResult result = engine_pull(&plan);
            assert_true(result.ok);
            assert_int_equal(result.bytes, (4 - skip) * 2048);
            assert_true(plan_arrived(&plan));
            assert_int_equal(engine_wait(&prefill).end, KV_END_RELEASED);
            plan_done(&plan);
            engine_close(&decode);
            engine_close(&prefill);
        }
}

static void auto_takes_shared_memory_and_says_why_when_it_cannot(void **state) {
    (void)state;
    static const struct {
        KvRail owner;
        const char *fault;
        KvRail used;
        const char *reason;
    } cases[] = {
        {KV_RAIL_AUTO, NULL, KV_RAIL_SHM, ""},
        {KV_RAIL_TCP, NULL, KV_RAIL_TCP,
         "shm: connection refused: no engine of that id in this network namespace"},
        {KV_RAIL_AUTO, "kv.user", KV_RAIL_TCP, "shm: *the engines run as different users"},
        {KV_RAIL_AUTO, "kv.map_peer", KV_RAIL_TCP, "shm: could not map its * MiB: *"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        Engine prefill, decode;
        engine_open(&prefill, (EngineConf){.rail = cases[i].owner});
        engine_open(&decode, (EngineConf){0});
        engine_offer(&prefill, "req", 3, 64, in_ms(10000));
        Plan plan;
        plan_init(&plan, &decode, &prefill, "req", 3, 64, 0);
        if (cases[i].fault) fault_arm(cases[i].fault, 1, true);
        KvPullResult result = engine_pull(&plan);
        fault_disarm_all();
        if (!result.ok) fail_msg("%s", result.err.message);
        assert_true(plan_arrived(&plan));
        assert_int_equal(result.rail, cases[i].used);
        assert_like(result.rail_reason, cases[i].reason);
        assert_int_equal(counter_get(&kv_agent_stats(decode.agent)->rail_downgraded),
                         cases[i].used == KV_RAIL_TCP);
        plan_done(&plan);
        engine_wait(&prefill);
        engine_close(&decode);
        engine_close(&prefill);
    }
}

static void a_forced_rail_that_cannot_be_used_is_an_error(void **state) {
    (void)state;
    Engine prefill, decode;
    engine_open(&prefill, (EngineConf){.rail = KV_RAIL_TCP});
    engine_open(&decode, (EngineConf){.rail = KV_RAIL_SHM});
    Plan plan;
    plan_init(&plan, &decode, &prefill, "req", 3, 64, 0);
    KvPullResult result = engine_pull(&plan);
    assert_false(result.ok);
    assert_like(
        result.err.message,
        "could not pull KV of request 'req' from engine 'engine-*' at 127.0.0.1:*: the shm "
        "rail cannot be used, and no other may be: connection refused: no engine of that id "
        "in this network namespace");
    assert_string_equal(result.err.hint,
                        "Run both engines on one host as one user, or leave the rail to auto.");
    assert_int_equal(counter_get(&kv_agent_stats(decode.agent)->failed_by_code[ERR_UNAVAILABLE]),
                     1);
    plan_done(&plan);
    engine_close(&decode);
    engine_close(&prefill);
}

static void an_offer_that_is_not_there_is_told_at_once_and_why(void **state) {
    (void)state;
    static const struct { const char *what; ErrCode code; const char *message; } cases[] = {
        {"unknown", ERR_NOT_FOUND, "*: it knows no offer of that request: it started * ms ago"},
        {"expired", ERR_UNAVAILABLE, "*: its offer expired * ms ago"},
        {"released", ERR_UNAVAILABLE, "*: its offer was already taken or released * ms ago"},
        {"retracted", ERR_UNAVAILABLE, "*: it has retracted its offer * ms ago"},
        {"epoch", ERR_UNAVAILABLE,
         "*: the engine has restarted (boot epoch * is not 0000000000000001): its offers are gone"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        for (size_t r = 0; r < COUNT_OF(rails); r++) {
            Engine prefill, decode;
            engine_open(&prefill, (EngineConf){0});
            engine_open(&decode, (EngineConf){.rail = rails[r]});
            Plan plan;
            plan_init(&plan, &decode, &prefill, cases[i].what, 3, 64, 0);
            const char *what = cases[i].what;
            bool expired = !strcmp(what, "expired");
            KvLease lease = 0;
            if (strcmp(what, "unknown") != 0)
                lease = engine_offer(&prefill, what, 3, 64, in_ms(expired ? 5 : 10000));
            if (expired) assert_ended(&prefill, lease, KV_END_EXPIRED);
            if (!strcmp(what, "released")) { /* who releases need not know the prompt */
                KvPull only = {.peer_engine = prefill.id,
                               .peer_host = "127.0.0.1",
                               .peer_port = kv_agent_port(prefill.agent),
                               .peer_request = what};
                kv_agent_release(decode.agent, &only);
                assert_ended(&prefill, lease, KV_END_RELEASED);
            }
            if (!strcmp(what, "retracted")) {
                kv_agent_retract(prefill.agent, lease);
                kv_agent_retract(prefill.agent, lease); /* twice is harmless */
                assert_ended(&prefill, lease, KV_END_RETRACTED);
            }
            if (!strcmp(what, "epoch")) plan.pull.peer_epoch = 1;
            KvPullResult result = engine_pull(&plan);
            assert_false(result.ok);
            assert_int_equal(result.err.code, cases[i].code);
            assert_like(result.err.message, cases[i].message);
            assert_true(result.total_us < 1000000);
            plan_done(&plan);
            engine_close(&decode);
            engine_close(&prefill);
        }
}

static void another_prompt_or_model_is_refused_before_a_byte_moves(void **state) {
    (void)state;
    static const KvShape other_model = {2, 2, 8, 100}, other_heads = {2, 1, 8, 99};
    static const struct {
        uint32_t prompt;
        size_t tokens;
        const KvShape *shape;
        const char *message, *hint;
    } cases[] = {
        {4, 64, NULL,
         "*: it offers blocks of another prompt: block 1 of 4 has chain *, expected *",
         "Send the same prompt to both engines, with the same chat template."},
        {3, 60, NULL, "*: it offers 64 tokens, the prompt has 60",
         "Send the same prompt to both engines, with the same chat template."},
        {3, 64, &other_model,
         "*: its blocks have 2 layers, 2 heads, 8 dimensions and model 0000000000000063, ours 2, "
         "2, 8 and 0000000000000064",
         "Start both engines with the same model file."},
        {3, 64, &other_heads, "*: its blocks have 2 layers, 2 heads, * ours 2, 1, *",
         "Start both engines with the same model file."},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        for (size_t r = 0; r < COUNT_OF(rails); r++) {
            Engine prefill, decode;
            engine_open(&prefill, (EngineConf){0});
            engine_open(&decode, (EngineConf){.rail = rails[r], .shape = cases[i].shape});
            KvLease lease = engine_offer(&prefill, "req", 3, 64, in_ms(10000));
            Plan plan;
            plan_init(&plan, &decode, &prefill, "req", cases[i].prompt, cases[i].tokens, 0);
            KvPullResult result = engine_pull(&plan);
            assert_false(result.ok);
            assert_int_equal(result.err.code, ERR_CONFLICT);
            assert_like(result.err.message, cases[i].message);
            assert_string_equal(result.err.hint, cases[i].hint);
            assert_int_equal(kv_block_data(decode.pool, plan.blocks[0])[0], 0xee);
            plan_done(&plan);
            engine_close(&decode);
            kv_agent_retract(prefill.agent, lease); /* it was not ours to release */
            assert_ended(&prefill, lease, KV_END_RETRACTED);
            engine_close(&prefill);
        }
}

static void nobody_there_is_an_error_with_the_address(void **state) {
    (void)state;
    Engine gone, decode;
    engine_open(&gone, (EngineConf){0});
    engine_open(&decode, (EngineConf){0});
    Plan plan;
    plan_init(&plan, &decode, &gone, "chatcmpl-1", 3, 64, 0);
    int port = kv_agent_port(gone.agent);
    char id[64], want[256];
    snprintf(id, sizeof id, "%s", gone.id);
    engine_close(&gone);
    plan.pull.peer_engine = id;
    KvPullResult result = engine_pull(&plan);
    assert_false(result.ok);
    assert_int_equal(result.err.code, ERR_UNAVAILABLE);
    assert_int_equal(result.rail, KV_RAIL_AUTO);
    assert_string_equal(result.rail_reason,
                        "shm: connection refused: no engine of that id in this network namespace");
    snprintf(want, sizeof want,
             "could not pull KV of request 'chatcmpl-1' from engine '%s' at 127.0.0.1:%d: "
             "connection refused",
             id, port);
    assert_string_equal(result.err.message, want);
    snprintf(want, sizeof want,
             "Check that the prefill engine runs and that this host reaches 127.0.0.1:%d.", port);
    assert_string_equal(result.err.hint, want);
    plan_done(&plan);
    engine_close(&decode);
}

static void a_pull_that_makes_no_sense_is_refused(void **state) {
    (void)state;
    Engine prefill, decode;
    engine_open(&prefill, (EngineConf){0});
    engine_open(&decode, (EngineConf){0});
    char longer[300];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    static const char *const messages[] = {
        "*: remote_engine_id has 0 bytes, 1 to 96 are possible",
        "*: remote_engine_id has 299 bytes, 1 to 96 are possible",
        "*: remote_request_id has 299 bytes, 1 to 255 are possible",
        "*: remote_host and remote_port name no address",
        "*: remote_host and remote_port name no address",
        "*: remote_host and remote_port name no address",
        "*: a prompt of 65 tokens has no 4 blocks",
    };
    for (size_t i = 0; i < COUNT_OF(messages); i++) {
        Plan plan;
        plan_init(&plan, &decode, &prefill, "req", 3, 64, 0);
        if (i == 0) plan.pull.peer_engine = NULL;
        if (i == 1) plan.pull.peer_engine = longer;
        if (i == 2) plan.pull.peer_request = longer;
        if (i == 3) plan.pull.peer_host = NULL;
        if (i == 4) plan.pull.peer_port = 0;
        if (i == 5) plan.pull.peer_port = 65536;
        if (i == 6) plan.pull.tokens = 65;
        KvPullResult result = engine_pull(&plan);
        assert_false(result.ok);
        assert_int_equal(result.err.code, ERR_INVALID);
        assert_like(result.err.message, messages[i]);
        assert_string_equal(result.err.hint,
                            "Pass kv_transfer_params on as the prefill engine returned them.");
        plan_done(&plan);
    }
    engine_close(&decode);
    engine_close(&prefill);
}

static void an_offer_nobody_comes_for_expires_at_its_deadline(void **state) {
    (void)state;
    Engine prefill;
    engine_open(&prefill, (EngineConf){0});
    int64_t begin = clock_mono_us();
    KvLease late = engine_offer(&prefill, "b", 2, 40, in_ms(60)),
            soon = engine_offer(&prefill, "a", 1, 40, in_ms(30));
    assert_ended(&prefill, soon, KV_END_EXPIRED);
    assert_true(clock_mono_us() - begin >= 30000);
    assert_ended(&prefill, late, KV_END_EXPIRED);
    assert_true(clock_mono_us() - begin >= 60000);
    assert_int_equal(counter_get(&kv_agent_stats(prefill.agent)->offers_expired), 2);
    engine_close(&prefill);
}

static void closing_ends_every_offer_and_pull_with_its_callback(void **state) {
    (void)state;
    Engine prefill, decode;
    engine_open(&prefill, (EngineConf){0});
    engine_open(&decode, (EngineConf){0});
    KvLease lease = engine_offer(&prefill, "a", 1, 40, in_ms(10000));
    kv_agent_close(prefill.agent);
    prefill.agent = NULL;
    assert_ended(&prefill, lease, KV_END_RETRACTED);
    Plan plan;
    plan_init(&plan, &decode, &prefill, "a", 1, 40, 0);
    plan.pull.peer_host = "192.0.2.1"; /* an address of nobody: connecting goes on for ever */
    kv_agent_pull(decode.agent, &plan.pull);
    kv_agent_close(decode.agent);
    decode.agent = NULL;
    KvPullResult result = engine_result(&decode);
    assert_false(result.ok);
    assert_like(result.err.message, "*: this engine is shutting down");
    plan_done(&plan);
    engine_close(&decode);
    engine_close(&prefill);
}

static void a_cancelled_pull_is_told_at_once_and_gives_the_offer_back(void **state) {
    (void)state;
    Engine prefill, decode;
    engine_open(&prefill, (EngineConf){0});
    engine_open(&decode, (EngineConf){0});
    KvLease lease = engine_offer(&prefill, "a", 1, 40, in_ms(10000));
    Plan plan;
    plan_init(&plan, &decode, &prefill, "a", 1, 40, 0);
    kv_agent_pull(decode.agent, &plan.pull);
    kv_agent_cancel(decode.agent, &plan);
    KvPullResult result = engine_result(&decode);
    if (!result.ok) { /* it may have been quicker than the cancel */
        assert_int_equal(result.err.code, ERR_UNAVAILABLE);
        assert_like(result.err.message, "*: it was cancelled");
    }
    assert_ended(&prefill, lease, KV_END_RELEASED);
    kv_agent_cancel(decode.agent, &plan); /* of nothing: harmless */
    plan_done(&plan);
    engine_close(&decode);
    engine_close(&prefill);
}

static void connections_are_kept_and_shared(void **state) {
    (void)state;
    for (size_t r = 0; r < COUNT_OF(rails); r++) {
        Engine prefill, decode;
        engine_open(&prefill, (EngineConf){.blocks = 400});
        engine_open(&decode, (EngineConf){.rail = rails[r], .blocks = 400});
        Plan plans[20];
        char requests[20][16];
        for (uint32_t i = 0; i < 20; i++) {
            snprintf(requests[i], sizeof requests[i], "req-%u", i);
            engine_offer(&prefill, requests[i], i + 1, 300, in_ms(10000));
            plan_init(&plans[i], &decode, &prefill, requests[i], i + 1, 300, 0);
        }
        for (uint32_t i = 0; i < 20; i++) kv_agent_pull(decode.agent, &plans[i].pull);
        for (uint32_t i = 0; i < 20; i++) {
            KvPullResult result = engine_result(&decode);
            if (!result.ok) fail_msg("%s", result.err.message);
            assert_true(plan_arrived(result.user));
        }
        for (uint32_t i = 0; i < 20; i++) {
            assert_int_equal(engine_wait(&prefill).end, KV_END_RELEASED);
            plan_done(&plans[i]);
        }
        engine_close(&decode); /* joins the thread: its inside may be looked at no more */
        assert_true(counter_get(&kv_agent_stats(prefill.agent)->offers_released) == 20);
        engine_close(&prefill);
    }
}

static void an_engine_may_pull_from_itself(void **state) {
    (void)state;
    for (size_t r = 0; r < COUNT_OF(rails); r++) {
        Engine both;
        engine_open(&both, (EngineConf){.rail = rails[r]});
        engine_offer(&both, "req", 3, 64, in_ms(10000));
        Plan plan;
        plan_init(&plan, &both, &both, "req", 3, 64, 0);
        kv_agent_pull(both.agent, &plan.pull);
        bool done = false;
        for (int i = 0; i < 2; i++) {
            Event event = engine_wait(&both);
            if (event.kind == EVENT_DONE) done = event.result.ok;
        }
        assert_true(done);
        assert_true(plan_arrived(&plan));
        plan_done(&plan);
        engine_close(&both);
    }
}

static void a_peer_that_restarts_is_pulled_from_again_without_a_manual_step(void **state) {
    (void)state;
    for (size_t r = 0; r < COUNT_OF(rails); r++) {
        Engine prefill, decode;
        engine_open(&prefill, (EngineConf){.id = "prefill-restart-test"});
        engine_open(&decode, (EngineConf){.rail = rails[r]});
        int port = kv_agent_port(prefill.agent);
        for (int boot = 0; boot < 3; boot++) {
            engine_offer(&prefill, "req", 3, 64, in_ms(10000));
            Plan plan;
            plan_init(&plan, &decode, &prefill, "req", 3, 64, 0);
            uint64_t epoch = kv_agent_epoch(prefill.agent);
            KvPullResult result = engine_pull(&plan);
            if (!result.ok) fail_msg("boot %d: %s", boot, result.err.message);
            engine_wait(&prefill);
            engine_close(&prefill);
            engine_open(&prefill, (EngineConf){.id = "prefill-restart-test", .port = port});
            plan.pull.peer_epoch = epoch; /* a ticket of the life before */
            result = engine_pull(&plan);
            assert_false(result.ok);
            assert_like(result.err.message,
                        "*: the engine has restarted (boot epoch * is not *): its offers are gone");
            plan_done(&plan);
        }
        engine_close(&decode);
        engine_close(&prefill);
    }
}

static void an_agent_that_cannot_listen_says_on_what(void **state) {
    (void)state;
    Engine first;
    Err err = {0};
    engine_open(&first, (EngineConf){0});
    char longer[KV_ENGINE_ID_MAX + 2];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    const struct { const char *id; int port; const char *message, *hint; } cases[] = {
        {"other-engine", kv_agent_port(first.agent), "the KV port of engine 'other-engine': *",
         "*"},
        {first.id, 0, "the KV socket of engine 'engine-*': *",
         "Give every engine of this host its own engine_id, or none at all."},
        {"", 0, "engine id '' has 0 bytes, 1 to 96 are possible",
         "Shorten engine_id in --kv-transfer-config, or leave it out."},
        {longer, 0, "engine id 'x*' has 97 bytes, 1 to 96 are possible",
         "Shorten engine_id in --kv-transfer-config, or leave it out."},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        KvAgentConf conf = engine_agent_conf(&first, (EngineConf){.port = cases[i].port});
        conf.engine_id = cases[i].id;
        assert_null(kv_agent_open(&conf, &err));
        assert_like(err.message, cases[i].message);
        assert_like(err.hint, cases[i].hint);
        assert_true(err.hint[0] != 0);
    }
    engine_close(&first);
}

static void every_failed_call_of_a_new_agent_is_an_error_and_leaks_nothing(void **state) {
    (void)state;
    static const char *const points[] = {"mem.try", "kv.reopen", "kv.thread"};
    Engine engine;
    engine_open(&engine, (EngineConf){0});
    KvAgentConf conf = engine_agent_conf(&engine, (EngineConf){0});
    conf.engine_id = "fault-test";
    for (size_t p = 0; p < COUNT_OF(points); p++) {
        Err err = {0};
        fault_arm(points[p], 1, false);
        assert_null(kv_agent_open(&conf, &err));
        fault_disarm_all();
        assert_int_not_equal(err.code, ERR_NONE);
    }
    engine_close(&engine);
}

/* The n-th read, write, connect, accept or allocation of both sides fails, for every n that a
 * transfer has: it ends in time, and what it calls good is good. */
static void every_failed_call_of_a_transfer_ends_it_cleanly(void **state) {
    (void)state;
    static const char *const points[] = {"io.read", "io.write", "io.connect", "io.accept",
                                         "kv.user", "kv.map_peer", "mem.try"};
    for (size_t r = 0; r < COUNT_OF(rails); r++)
        for (size_t p = 0; p < COUNT_OF(points); p++)
            for (unsigned n = 1; n <= 12; n++) {
                Engine prefill, decode;
                engine_open(&prefill, (EngineConf){0});
                engine_open(&decode, (EngineConf){.rail = rails[r]});
                KvLease lease = engine_offer(&prefill, "req", 3, 64, in_ms(10000));
                Plan plan;
                plan_init(&plan, &decode, &prefill, "req", 3, 64, 0);
                plan.pull.deadline_us = in_ms(2000);
                fault_arm(points[p], n, false);
                KvPullResult result = engine_pull(&plan);
                fault_disarm_all();
                if (result.ok) assert_true(plan_arrived(&plan));
                else assert_true(result.err.message[0] != 0);
                plan_done(&plan);
                engine_close(&decode);
                kv_agent_retract(prefill.agent, lease);
                engine_wait(&prefill);
                engine_close(&prefill);
            }
}

static void a_transfer_byte_by_byte_is_a_transfer(void **state) {
    (void)state;
    for (size_t r = 0; r < COUNT_OF(rails); r++) {
        Engine prefill, decode;
        engine_open(&prefill, (EngineConf){0});
        engine_open(&decode, (EngineConf){.rail = rails[r]});
        engine_offer(&prefill, "req", 3, 40, in_ms(10000));
        Plan plan;
        plan_init(&plan, &decode, &prefill, "req", 3, 40, 0);
        fault_arm("io.short", 1, true);
        KvPullResult result = engine_pull(&plan);
        fault_disarm_all();
        if (!result.ok) fail_msg("%s", result.err.message);
        assert_true(plan_arrived(&plan));
        plan_done(&plan);
        engine_wait(&prefill);
        engine_close(&decode);
        engine_close(&prefill);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rails_have_names),
        cmocka_unit_test(a_pull_brings_the_blocks_the_first_token_and_the_end_of_the_offer),
        cmocka_unit_test(blocks_that_are_here_already_are_not_copied_but_proven),
        cmocka_unit_test(auto_takes_shared_memory_and_says_why_when_it_cannot),
        cmocka_unit_test(a_forced_rail_that_cannot_be_used_is_an_error),
        cmocka_unit_test(an_offer_that_is_not_there_is_told_at_once_and_why),
        cmocka_unit_test(another_prompt_or_model_is_refused_before_a_byte_moves),
        cmocka_unit_test(nobody_there_is_an_error_with_the_address),
        cmocka_unit_test(a_pull_that_makes_no_sense_is_refused),
        cmocka_unit_test(an_offer_nobody_comes_for_expires_at_its_deadline),
        cmocka_unit_test(closing_ends_every_offer_and_pull_with_its_callback),
        cmocka_unit_test(a_cancelled_pull_is_told_at_once_and_gives_the_offer_back),
        cmocka_unit_test(connections_are_kept_and_shared),
        cmocka_unit_test(an_engine_may_pull_from_itself),
        cmocka_unit_test(a_peer_that_restarts_is_pulled_from_again_without_a_manual_step),
        cmocka_unit_test(an_agent_that_cannot_listen_says_on_what),
        cmocka_unit_test(every_failed_call_of_a_new_agent_is_an_error_and_leaks_nothing),
        cmocka_unit_test(every_failed_call_of_a_transfer_ends_it_cleanly),
        cmocka_unit_test(a_transfer_byte_by_byte_is_a_transfer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
