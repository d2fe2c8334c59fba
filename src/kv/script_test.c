// SPDX-License-Identifier: Apache-2.0
/* A real reader against owners that do everything wrong, over real sockets. */
#include "peer_test.h"

/* ---- scripts ---- */

static void never_accepts(Peer *peer) { peer_readable(peer, peer->stop[0]); }
static void closes_at_hello(Peer *peer) {
    peer_accept(peer);
    peer_expect(peer, WIRE_HELLO); /* bytes that nobody has read would make it a reset */
}
static void says_nothing(Peer *peer) {
    peer_accept(peer);
    peer_silent(peer);
}
static void talks_http(Peer *peer) {
    static const char reply[] = "HTTP/1.1 400 Bad Request\r\n\r\n";
    peer_accept(peer);
    peer_bytes(peer, reply, sizeof reply - 1);
    peer_silent(peer);
}
static void half_a_hello(Peer *peer) {
    peer_accept(peer);
    if (!peer_expect(peer, WIRE_HELLO)) return;
    wire_put_hello(&peer->out, &peer->hello);
    peer_bytes(peer, peer->out.at, peer->out.length / 2);
}
static void hello_and_silence(Peer *peer) {
    peer_accept(peer);
    peer_hello(peer);
    peer_silent(peer);
}
static void other_version(Peer *peer) {
    peer->hello.version_min = 2;
    peer->hello.version_max = 3;
    hello_and_silence(peer);
}
static void newer_but_compatible(Peer *peer) {
    peer->hello.version_max = 9;
    peer_serve(peer);
}
static void other_engine(Peer *peer) {
    snprintf(peer->hello.engine, sizeof peer->hello.engine, "somebody");
    hello_and_silence(peer);
}
static void other_layout(Peer *peer) {
    peer->hello.layout = 2;
    hello_and_silence(peer);
}
static void wrong_magic(Peer *peer) {
    peer_accept(peer);
    wire_put_hello(&peer->out, &peer->hello);
    peer->out.at[WIRE_HEAD] = 'X';
    peer_send(peer);
    peer_silent(peer);
}
static void two_hellos(Peer *peer) {
    peer_accept(peer);
    peer_hello(peer);
    wire_put_hello(&peer->out, &peer->hello);
    peer_send(peer);
    peer_silent(peer);
}
static void manifest_before_hello(Peer *peer) {
    peer_accept(peer);
    peer_manifest(peer);
    peer_silent(peer);
}
static void a_get_from_the_owner(Peer *peer) {
    peer_accept(peer);
    peer_hello(peer);
    wire_put_get(&peer->out, 1, &(WireGet){.request = "x"});
    peer_send(peer);
    peer_silent(peer);
}
static void refuse(Peer *peer, WireRefusal reason) {
    peer_accept(peer);
    if (!peer_expect(peer, WIRE_HELLO)) return;
    wire_put_refuse(&peer->out, reason, "because");
    peer_send(peer);
}
static void refuses_version(Peer *peer) { refuse(peer, WIRE_REFUSE_VERSION); }
static void refuses_busy(Peer *peer) { refuse(peer, WIRE_REFUSE_BUSY); }
static void refuses_damaged(Peer *peer) { refuse(peer, WIRE_REFUSE_DAMAGED); }
static void refuses_unheard_of(Peer *peer) { refuse(peer, (WireRefusal)99); }

static void closes_at_get(Peer *peer) {
    for (int i = 0; i < 2; i++) {
        if (!peer_accept(peer)) return;
        peer_hello(peer);
        peer_expect(peer, WIRE_GET);
    }
    close(peer->fd);
    peer->fd = -1;
    peer_readable(peer, peer->listener); /* a third attempt would show here */
    peer->accepted += peer_readable(peer, peer->listener);
}
static void closes_at_get_once(Peer *peer) {
    peer_accept(peer);
    peer_hello(peer);
    peer_expect(peer, WIRE_GET);
    peer_serve(peer);
}
static void silent_at_get(Peer *peer) {
    peer_accept(peer);
    peer_hello(peer);
    peer_expect(peer, WIRE_GET);
    peer_silent(peer);
}
static void answers_another_pull(Peer *peer) {
    peer_accept(peer);
    peer_hello(peer);
    if (!peer_expect(peer, WIRE_GET)) return;
    peer->pull += 100;
    peer_manifest(peer);
    peer_blocks(peer, 0, peer->count);
    peer_silent(peer);
}
static void knows_nothing(Peer *peer) {
    peer_accept(peer);
    peer_hello(peer);
    if (peer_expect(peer, WIRE_GET)) peer_gone(peer, 0, WIRE_UNKNOWN);
    peer_silent(peer);
}
static void gone_for_an_unheard_of_reason(Peer *peer) {
    peer_accept(peer);
    peer_hello(peer);
    if (peer_expect(peer, WIRE_GET)) peer_gone(peer, 0, 99);
    peer_silent(peer);
}
static void manifest_and_silence(Peer *peer) {
    peer_until_manifest(peer);
    peer_silent(peer);
}
static void manifest_of_fewer_tokens(Peer *peer) {
    peer->manifest.tokens = 63;
    manifest_and_silence(peer);
}
static void manifest_of_another_last_block(Peer *peer) {
    peer->sealed[3].chain.low++;
    manifest_and_silence(peer);
}
static void manifest_of_another_epoch(Peer *peer) {
    peer->manifest.epoch++;
    manifest_and_silence(peer);
}
static void manifest_beyond_the_pool(Peer *peer) {
    peer->sealed[2].block = 4;
    manifest_and_silence(peer);
}
static void manifest_without_a_lease(Peer *peer) {
    peer->manifest.lease = 0;
    manifest_and_silence(peer);
}
static void manifest_twice(Peer *peer) {
    peer_until_manifest(peer);
    peer_manifest(peer);
    peer_silent(peer);
}
static void half_a_manifest(Peer *peer) {
    peer_accept(peer);
    peer_hello(peer);
    if (!peer_expect(peer, WIRE_GET)) return;
    wire_put_manifest(&peer->out, peer->pull, &peer->manifest, peer->sealed);
    peer_bytes(peer, peer->out.at, peer->out.length - 1);
    peer_silent(peer);
}
static void manifest_that_lies_about_its_length(Peer *peer) {
    peer_accept(peer);
    peer_hello(peer);
    if (!peer_expect(peer, WIRE_GET)) return;
    wire_put_manifest(&peer->out, peer->pull, &peer->manifest, peer->sealed);
    peer->out.at[0] -= 32; /* one block less */
    peer_send(peer);
    peer_silent(peer);
}
static void block_before_manifest(Peer *peer) {
    peer_accept(peer);
    peer_hello(peer);
    if (peer_expect(peer, WIRE_GET)) peer_blocks(peer, 0, 1);
    peer_silent(peer);
}
static void blocks_out_of_order(Peer *peer) {
    peer_until_manifest(peer);
    peer_put_block(peer, 1, peer->bytes);
    peer_put_block(peer, 0, peer->bytes);
    peer_send(peer);
    peer_silent(peer);
}
static void a_block_twice(Peer *peer) {
    peer_until_manifest(peer);
    peer_put_block(peer, 0, peer->bytes);
    peer_put_block(peer, 0, peer->bytes);
    peer_send(peer);
    peer_silent(peer);
}
static void half_a_block(Peer *peer) {
    peer_until_manifest(peer);
    peer_put_block(peer, 0, peer->bytes);
    peer_put_block(peer, 1, peer->bytes);
    peer_bytes(peer, peer->out.at, peer->out.length - peer->bytes / 2);
    peer_silent(peer);
}
static void half_a_block_and_an_end(Peer *peer) {
    for (int i = 0; i < 2; i++) {
        peer_until_manifest(peer);
        peer_put_block(peer, 0, peer->bytes);
        peer_bytes(peer, peer->out.at, peer->out.length / 2);
        buf_clear(&peer->out);
    }
}
static void half_a_block_and_an_end_once(Peer *peer) {
    peer_until_manifest(peer);
    peer_put_block(peer, 0, peer->bytes);
    peer_bytes(peer, peer->out.at, peer->out.length / 2);
    buf_clear(&peer->out);
    peer_serve(peer);
}
static void a_flipped_bit(Peer *peer) {
    peer_until_manifest(peer);
    peer_put_block(peer, 0, peer->bytes);
    peer_put_block(peer, 1, peer->bytes);
    peer->out.at[peer->out.length - 1] ^= 1;
    peer_send(peer);
    peer_silent(peer);
}
static void a_block_of_another_generation(Peer *peer) {
    peer_until_manifest(peer);
    peer->sealed[0].generation = 77;
    peer_blocks(peer, 0, 1);
    peer_silent(peer);
}
static void a_short_block(Peer *peer) {
    peer_until_manifest(peer);
    peer_put_block(peer, 0, peer->bytes - 1);
    peer_send(peer);
    peer_silent(peer);
}
static void a_long_block(Peer *peer) {
    peer_until_manifest(peer);
    peer_put_block(peer, 0, peer->bytes + 1);
    peer_send(peer);
    peer_silent(peer);
}
static void one_block_too_many(Peer *peer) {
    peer_until_manifest(peer);
    peer_blocks(peer, 0, peer->count);
    peer_blocks(peer, 0, 1);
    peer_silent(peer);
}
static void gone_in_the_middle(Peer *peer) {
    peer_until_manifest(peer);
    peer_blocks(peer, 0, 2);
    peer_gone(peer, PEER_LEASE, WIRE_EXPIRED);
    peer_silent(peer);
}
static void confirms_too_early(Peer *peer) {
    peer_until_manifest(peer);
    peer_confirm(peer);
    peer_silent(peer);
}
static void confirms_another_lease(Peer *peer) {
    peer_until_done(peer);
    peer->manifest.lease++;
    peer_confirm(peer);
    peer_silent(peer);
}
static void never_confirms(Peer *peer) {
    peer_until_done(peer);
    peer_silent(peer);
}
static void closes_instead_of_confirming(Peer *peer) { peer_until_done(peer); }
static void gone_instead_of_confirming(Peer *peer) {
    peer_until_done(peer);
    peer_gone(peer, PEER_LEASE, WIRE_EXPIRED);
    peer_silent(peer);
}
static void garbage_instead_of_confirming(Peer *peer) {
    peer_until_done(peer);
    for (int i = 0; i < 100; i++) peer_bytes(peer, "\xff\xfe\xfd", 3);
    peer_silent(peer);
}

#define LOST "*: the connection was closed"
#define WAITED " over tcp until the deadline, * ms after the start"

static void whatever_the_owner_does_the_pull_ends_in_time_with_the_cause(void **state) {
    (void)state;
    static const struct {
        const char *name;
        void (*script)(Peer *peer);
        ErrCode code; /* ERR_NONE: it succeeds */
        const char *message;
        bool released;     /* the reader gave the offer back */
        unsigned accepted; /* 0: 1 */
    } cases[] = {
        {"never accepts", never_accepts, ERR_DEADLINE, "*: waited for a hello" WAITED},
        {"closes at hello", closes_at_hello, ERR_UNAVAILABLE, LOST " instead of a hello"},
        {"says nothing", says_nothing, ERR_DEADLINE, "*: waited for a hello" WAITED},
        {"talks HTTP", talks_http, ERR_DAMAGED, "*: no message begins with 48 54 54 50 2f 31"},
        {"half a hello", half_a_hello, ERR_UNAVAILABLE, LOST " instead of a hello"},
        {"other version", other_version, ERR_UNSUPPORTED,
         "*: it speaks protocol versions 2 to 3, this engine 1"},
        {"newer but compatible", newer_but_compatible, ERR_NONE, ""},
        {"other engine", other_engine, ERR_UNAVAILABLE, "*: engine 'somebody' answers there"},
        {"other layout", other_layout, ERR_CONFLICT,
         "*: its blocks have type 1, layout 2, 16 tokens and 2048 bytes, ours 1, 1, 16 and 2048"},
        {"wrong magic", wrong_magic, ERR_DAMAGED, "*: a HELLO does not begin with BATON-KV"},
        {"two hellos", two_hellos, ERR_DAMAGED, "*: a HELLO came after the hello"},
        {"manifest before hello", manifest_before_hello, ERR_DAMAGED,
         "*: a MANIFEST came instead of a hello"},
        {"a GET from the owner", a_get_from_the_owner, ERR_DAMAGED,
         "*: a GET came from the wrong side"},
        {"refuses, version", refuses_version, ERR_UNSUPPORTED, "*: it refuses: because"},
        {"refuses, busy", refuses_busy, ERR_EXHAUSTED, "*: it refuses: because"},
        {"refuses, damaged", refuses_damaged, ERR_DAMAGED, "*: it refuses: because"},
        {"refuses, 99", refuses_unheard_of, ERR_UNAVAILABLE, "*: it refuses: because"},
        {"closes at GET, twice", closes_at_get, ERR_UNAVAILABLE, LOST, false, 2},
        {"closes at GET, once", closes_at_get_once, ERR_NONE, "", false, 2},
        {"silent at GET", silent_at_get, ERR_DEADLINE, "*: waited for its manifest" WAITED},
        {"answers another pull", answers_another_pull, ERR_DEADLINE,
         "*: waited for its manifest" WAITED},
        {"knows nothing", knows_nothing, ERR_NOT_FOUND,
         "*: it knows no offer of that request: it started 1234 ms ago"},
        {"gone, 99", gone_for_an_unheard_of_reason, ERR_UNAVAILABLE,
         "*: its offer is gone, reason 99 1234 ms ago"},
        {"manifest and silence", manifest_and_silence, ERR_DEADLINE,
         "*: waited for block 1 of 4" WAITED, true},
        {"fewer tokens", manifest_of_fewer_tokens, ERR_CONFLICT,
         "*: it offers 63 tokens, the prompt has 64"},
        {"another last block", manifest_of_another_last_block, ERR_CONFLICT,
         "*: it offers blocks of another prompt: block 4 of 4 has chain *, expected *"},
        {"another epoch", manifest_of_another_epoch, ERR_DAMAGED,
         "*: its manifest is of boot epoch 00000000000e90c5, its hello of 00000000000e90c4"},
        {"beyond the pool", manifest_beyond_the_pool, ERR_DAMAGED,
         "*: its manifest puts block 3 at 4, of 4"},
        {"without a lease", manifest_without_a_lease, ERR_DAMAGED, "*: a MANIFEST has lease 0 *"},
        {"manifest twice", manifest_twice, ERR_DAMAGED, "*: a MANIFEST came twice"},
        {"half a manifest", half_a_manifest, ERR_DEADLINE, "*: waited for its manifest" WAITED},
        {"a length that lies", manifest_that_lies_about_its_length, ERR_DAMAGED,
         "*: a MANIFEST does not have its checksum"},
        {"block before manifest", block_before_manifest, ERR_DAMAGED,
         "*: a BLOCK came that was not asked for"},
        {"out of order", blocks_out_of_order, ERR_DAMAGED, "*: block 2 came, block 1 of 4 was due"},
        {"a block twice", a_block_twice, ERR_DAMAGED, "*: block 1 came, block 2 of 4 was due"},
        {"half a block", half_a_block, ERR_DEADLINE, "*: waited for block 2 of 4" WAITED, true},
        {"half a block, end, twice", half_a_block_and_an_end, ERR_UNAVAILABLE, LOST, false, 2},
        {"half a block, end, once", half_a_block_and_an_end_once, ERR_NONE, "", false, 2},
        {"a flipped bit", a_flipped_bit, ERR_DAMAGED,
         "*: block 2 of 4 has checksum *, expected *", true},
        {"another generation", a_block_of_another_generation, ERR_DAMAGED,
         "*: block 1 of 4 came with 2048 bytes of generation 77, expected 2048 of 1"},
        {"a short block", a_short_block, ERR_DAMAGED, "*: block 1 of 4 came with 2047 bytes *"},
        {"a long block", a_long_block, ERR_DAMAGED, "*: block 1 of 4 came with 2049 bytes *"},
        {"one too many", one_block_too_many, ERR_DAMAGED,
         "*: a BLOCK came that was not asked for"},
        {"gone in the middle", gone_in_the_middle, ERR_UNAVAILABLE,
         "*: its offer expired 1234 ms ago"},
        {"confirms too early", confirms_too_early, ERR_DAMAGED,
         "*: a CONFIRMED came that nothing was to confirm"},
        {"confirms another lease", confirms_another_lease, ERR_DAMAGED,
         "*: a CONFIRMED came that nothing was to confirm"},
        {"never confirms", never_confirms, ERR_DEADLINE, "*: waited for the confirmation" WAITED,
         true},
        {"closes instead of confirming", closes_instead_of_confirming, ERR_UNAVAILABLE,
         "*: before the confirmation: the connection was closed"},
        {"gone instead of confirming", gone_instead_of_confirming, ERR_UNAVAILABLE,
         "*: all blocks had come, but they may have been overwritten meanwhile: its offer expired "
         "1234 ms ago"},
        {"garbage instead of confirming", garbage_instead_of_confirming, ERR_DAMAGED,
         "*: no message begins with ff fe fd ff fe fd"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        Engine decode;
        Peer peer;
        Plan plan;
        print_message("%s\n", cases[i].name);
        engine_open(&decode, (EngineConf){.rail = KV_RAIL_TCP});
        peer_init(&peer, cases[i].script);
        peer_start(&peer);
        plan_from_peer(&plan, &decode, &peer, cases[i].code == ERR_DEADLINE ? 200 : 10000);
        KvPullResult result = engine_pull(&plan);
        assert_int_equal(result.ok, cases[i].code == ERR_NONE);
        if (result.ok) assert_true(plan_arrived(&plan));
        else assert_like(result.err.message, cases[i].message);
        assert_int_equal(result.err.code, cases[i].code);
        assert_true(clock_mono_us() < plan.pull.deadline_us + 1000000);
        plan_done(&plan);
        engine_close(&decode);
        peer_done(&peer);
        assert_int_equal(peer.released, cases[i].released);
        if (peer.accepted != (cases[i].accepted ? cases[i].accepted : 1) &&
            cases[i].script != never_accepts)
            fail_msg("%s: %u connections", cases[i].name, peer.accepted);
    }
}

/* ---- late, but in order ---- */

static void wait_ms(const Peer *peer, int ms) {
    struct pollfd stop = {.fd = peer->stop[0], .events = POLLIN};
    poll(&stop, 1, ms);
}

static void byte_by_byte(Peer *peer) {
    peer_accept(peer);
    if (!peer_expect(peer, WIRE_HELLO)) return;
    wire_put_hello(&peer->out, &peer->hello);
    for (size_t i = 0; i < peer->out.length; i++) peer_bytes(peer, peer->out.at + i, 1);
    buf_clear(&peer->out);
    if (!peer_expect(peer, WIRE_GET)) return;
    wire_put_manifest(&peer->out, peer->pull, &peer->manifest, peer->sealed);
    for (size_t i = 0; i < peer->count; i++) peer_put_block(peer, i, peer->bytes);
    for (size_t i = 0; i < peer->out.length; i++) peer_bytes(peer, peer->out.at + i, 1);
    if (peer_expect(peer, WIRE_DONE)) {
        buf_clear(&peer->out);
        peer_confirm(peer);
    }
}

static void slow_at_every_step(Peer *peer) {
    peer_accept(peer);
    wait_ms(peer, 30);
    peer_hello(peer);
    if (!peer_expect(peer, WIRE_GET)) return;
    wait_ms(peer, 30);
    peer_manifest(peer);
    for (size_t i = 0; i < peer->count; i++) {
        wait_ms(peer, 30);
        peer_blocks(peer, i, i + 1);
    }
    if (!peer_expect(peer, WIRE_DONE)) return;
    wait_ms(peer, 60);
    peer_confirm(peer);
    peer_silent(peer);
}

static void slow_owners_are_waited_for_and_the_lease_is_renewed(void **state) {
    (void)state;
    static const struct {
        void (*script)(Peer *peer);
        int64_t lease_us;
        unsigned least, most; /* renewals */
    } cases[] = {
        {byte_by_byte, 10000000, 0, 0},
        {slow_at_every_step, 30000, 8, 2000},
        {slow_at_every_step, 1, 8, 2000}, /* hardly a lease */
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        Engine decode;
        Peer peer;
        Plan plan;
        engine_open(&decode, (EngineConf){.rail = KV_RAIL_TCP});
        peer_init(&peer, cases[i].script);
        peer.manifest.lease_us = cases[i].lease_us;
        peer_start(&peer);
        plan_from_peer(&plan, &decode, &peer, 10000);
        KvPullResult result = engine_pull(&plan);
        if (!result.ok) fail_msg("%s", result.err.message);
        assert_true(plan_arrived(&plan));
        plan_done(&plan);
        engine_close(&decode);
        peer_done(&peer);
        if (peer.renewals < cases[i].least || peer.renewals > cases[i].most)
            fail_msg("%u renewals", peer.renewals);
    }
}

/* One connection carries many pulls: one is cancelled in the middle of its block, the rest of which
 * must not end up anywhere. */
static void serves_two_pulls_at_once(Peer *peer) {
    peer_until_manifest(peer);
    uint64_t first = peer->pull;
    peer_put_block(peer, 0, peer->bytes);
    peer_put_block(peer, 1, peer->bytes);
    peer_bytes(peer, peer->out.at, peer->out.length - 1000);
    buf_drop_front(&peer->out, peer->out.length - 1000);
    if (!peer_expect(peer, WIRE_RELEASE)) return; /* the first was cancelled */
    peer_send(peer);
    peer_blocks(peer, 2, peer->count); /* under way before the RELEASE came */
    if (!peer_expect(peer, WIRE_GET)) return;
    assert_true(peer->pull != first);
    peer_manifest(peer);
    peer_blocks(peer, 0, peer->count);
    if (peer_expect(peer, WIRE_DONE)) peer_confirm(peer);
    peer_silent(peer);
}

static void a_cancelled_pull_leaves_the_connection_usable_and_its_blocks_alone(void **state) {
    (void)state;
    Engine decode;
    Peer peer;
    Plan cancelled, plan;
    engine_open(&decode, (EngineConf){.rail = KV_RAIL_TCP});
    peer_init(&peer, serves_two_pulls_at_once);
    peer_start(&peer);
    plan_from_peer(&cancelled, &decode, &peer, 10000);
    kv_agent_pull(decode.agent, &cancelled.pull);
    while (counter_get(&kv_agent_stats(decode.agent)->bytes_in) == 0) wait_ms(&peer, 1);
    kv_agent_cancel(decode.agent, &cancelled);
    KvPullResult result = engine_result(&decode);
    assert_like(result.err.message, "*: it was cancelled");
    uint8_t *target = kv_block_data(decode.pool, cancelled.blocks[1]);
    memset(target, 0xab, peer.bytes); /* half of it had come; now it is ours again */
    plan_from_peer(&plan, &decode, &peer, 10000);
    result = engine_pull(&plan);
    if (!result.ok) fail_msg("%s", result.err.message);
    assert_true(plan_arrived(&plan));
    for (size_t i = 0; i < peer.bytes; i++) assert_int_equal(target[i], 0xab);
    plan_done(&cancelled);
    plan_done(&plan);
    engine_close(&decode);
    peer_done(&peer);
    assert_int_equal(peer.accepted, 1);
}

static void silent_for_the_first_connection(Peer *peer) {
    peer_accept(peer);
    peer_hello(peer);
    int first = peer->fd;
    peer->fd = -1; /* left open, and never looked at again */
    peer_serve(peer);
    close(first);
}

static void who_shares_a_dead_connection_goes_on_over_a_fresh_one(void **state) {
    (void)state;
    Engine decode;
    Peer peer;
    Plan patient, hasty;
    engine_open(&decode, (EngineConf){.rail = KV_RAIL_TCP});
    peer_init(&peer, silent_for_the_first_connection);
    peer_start(&peer);
    plan_from_peer(&patient, &decode, &peer, 10000);
    plan_from_peer(&hasty, &decode, &peer, 400);
    kv_agent_pull(decode.agent, &patient.pull);
    kv_agent_pull(decode.agent, &hasty.pull);
    KvPullResult result = engine_result(&decode);
    assert_ptr_equal(result.user, &hasty);
    assert_like(result.err.message, "*: waited for its manifest" WAITED);
    result = engine_result(&decode);
    assert_ptr_equal(result.user, &patient);
    if (!result.ok) fail_msg("%s", result.err.message);
    assert_true(plan_arrived(&patient));
    plan_done(&patient);
    plan_done(&hasty);
    engine_close(&decode);
    peer_done(&peer);
}

/* ---- chance ---- */

static uint32_t chance(Peer *peer, uint32_t below) {
    peer->seed = peer->seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(peer->seed >> 33) % below;
}

/* Sends what lies in `out`, or something like it. */
static void send_badly(Peer *peer) {
    Buf *out = &peer->out;
    uint32_t what = chance(peer, 24);
    if (what == 0) out->at[chance(peer, (uint32_t)out->length)] ^= (char)(1 << chance(peer, 8));
    if (what == 1) out->length = chance(peer, (uint32_t)out->length);
    if (what == 2) peer_bytes(peer, out->at, out->length);
    if (what == 3) out->length = 0;
    if (what == 4) wait_ms(peer, (int)chance(peer, 30));
    if (what == 5) peer->cut = true;
    if (what == 6) buf_drop_front(out, chance(peer, (uint32_t)out->length));
    peer_send(peer);
}

static void does_anything(Peer *peer) {
    WireHead head;
    uint8_t body[4096];
    while (peer_accept(peer))
        while (peer_next(peer, &head, body)) {
            peer->pull = head.pull;
            if (head.type == WIRE_HELLO) wire_put_hello(&peer->out, &peer->hello);
            if (head.type == WIRE_GET)
                wire_put_manifest(&peer->out, peer->pull, &peer->manifest, peer->sealed);
            if (head.type == WIRE_DONE)
                wire_put_lease(&peer->out, WIRE_CONFIRMED, peer->pull, PEER_LEASE);
            if (peer->out.length) send_badly(peer);
            for (size_t i = 0; head.type == WIRE_GET && i < peer->count; i++) {
                peer_put_block(peer, i, peer->bytes);
                send_badly(peer);
            }
        }
}

static void by_chance_a_pull_never_hangs_and_never_brings_wrong_bytes(void **state) {
    (void)state;
    unsigned good = 0, seeds = 150;
    Engine decode;
    engine_open(&decode, (EngineConf){.rail = KV_RAIL_TCP});
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        Peer peer;
        Plan plan;
        peer_init(&peer, does_anything);
        peer.seed = seed;
        peer_start(&peer);
        plan_from_peer(&plan, &decode, &peer, 60);
        KvPullResult result = engine_pull(&plan);
        if (result.ok && (!plan_arrived(&plan) || result.first.token != 41 ||
                          result.cached_tokens != 32))
            fail_msg("seed %d brought something else", (int)seed);
        if (clock_mono_us() > plan.pull.deadline_us + 1000000) fail_msg("seed %d", (int)seed);
        good += result.ok;
        plan_done(&plan);
        peer_done(&peer);
    }
    engine_close(&decode);
    print_message("%u of %u pulls succeeded\n", good, seeds);
    assert_true(good > 0 && good < seeds);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whatever_the_owner_does_the_pull_ends_in_time_with_the_cause),
        cmocka_unit_test(slow_owners_are_waited_for_and_the_lease_is_renewed),
        cmocka_unit_test(a_cancelled_pull_leaves_the_connection_usable_and_its_blocks_alone),
        cmocka_unit_test(who_shares_a_dead_connection_goes_on_over_a_fresh_one),
        cmocka_unit_test(by_chance_a_pull_never_hangs_and_never_brings_wrong_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
