// SPDX-License-Identifier: Apache-2.0
/* A real owner against readers that do everything wrong, over real sockets. */
#include "peer_test.h"

static int64_t in_ms(int64_t ms) { return clock_mono_us() + ms * 1000; }

/* A reader made by hand: its socket, and the message that came last. */
typedef struct Reader {
    Peer peer; /* for its bytes */
    WireHead head;
    Buf body;
} Reader;

static void reader_open(Reader *reader, const Engine *owner) {
    *reader = (Reader){.peer = {.fd = connect_to_port(kv_agent_port(owner->agent))}};
    assert_int_equal(pipe(reader->peer.stop), 0);
    reader->peer.hello = (WireHello){.version_min = WIRE_VERSION, .version_max = WIRE_VERSION};
    snprintf(reader->peer.hello.engine, sizeof reader->peer.hello.engine, "by hand");
}

static void reader_close(Reader *reader) {
    close(reader->peer.fd);
    close(reader->peer.stop[0]);
    close(reader->peer.stop[1]);
    buf_done(&reader->peer.out);
    buf_done(&reader->body);
}

/* false: the connection has ended. */
static bool reader_next(Reader *reader) {
    uint8_t bytes[WIRE_HEAD];
    Err err = {0};
    if (!peer_read(&reader->peer, bytes, sizeof bytes)) return false;
    assert_true(wire_head(bytes, &reader->head, &err));
    buf_clear(&reader->body);
    mem_reserve(reader->body.at, reader->body.capacity, (size_t)reader->head.length + 1);
    reader->body.length = reader->head.length;
    return peer_read(&reader->peer, reader->body.at, reader->head.length);
}

static void reader_expect(Reader *reader, WireType type) {
    if (!reader_next(reader)) fail_msg("the connection ended before %s", wire_name(type));
    if (reader->head.type != type)
        fail_msg("%s came, not %s", wire_name(reader->head.type), wire_name(type));
}

static void assert_ends(Reader *reader) { assert_false(reader_next(reader)); }

static void reader_hello(Reader *reader) {
    wire_put_hello(&reader->peer.out, &reader->peer.hello);
    peer_send(&reader->peer);
    reader_expect(reader, WIRE_HELLO);
}

static void reader_get(Reader *reader, uint64_t pull, const char *request, uint32_t first,
                       uint32_t prompt, size_t tokens) {
    auto_free KvHash *chain = mem_new(kv_blocks_for(tokens) * sizeof *chain);
    WireGet get = {.first = first};
    prompt_chain(&engine_shape, prompt, tokens, chain);
    get.last = chain[kv_blocks_for(tokens) - 1];
    snprintf(get.request, sizeof get.request, "%s", request);
    wire_put_get(&reader->peer.out, pull, &get);
    peer_send(&reader->peer);
}

static void reader_done(Reader *reader, KvLease lease) {
    wire_put_done(&reader->peer.out, 1, (WireDone){lease, 0});
    peer_send(&reader->peer);
}

static void reader_renew(Reader *reader, KvLease lease) {
    wire_put_lease(&reader->peer.out, WIRE_RENEW, 1, lease);
    peer_send(&reader->peer);
}

static WireGone reader_gone(Reader *reader) {
    WireGone gone = {0};
    Err err = {0};
    reader_expect(reader, WIRE_GONE);
    assert_true(wire_gone((Str){reader->body.at, reader->body.length}, &gone, &err));
    return gone;
}

/* ---- what a reader may say ---- */

static void a_reader_by_hand_gets_manifest_blocks_and_confirmation(void **state) {
    (void)state;
    Engine owner;
    Reader reader;
    WireManifest manifest;
    Err err = {0};
    engine_open(&owner, (EngineConf){0});
    KvLease lease = engine_offer(&owner, "req", 3, 60, in_ms(10000));
    reader_open(&reader, &owner);
    reader_hello(&reader);
    reader_get(&reader, 42, "req", 1, 3, 60);
    reader_expect(&reader, WIRE_MANIFEST);
    assert_int_equal(reader.head.pull, 42);
    assert_true(wire_manifest((Str){reader.body.at, reader.body.length}, &manifest, &err));
    assert_int_equal(manifest.lease, lease);
    assert_int_equal(manifest.epoch, kv_agent_epoch(owner.agent));
    assert_int_equal(manifest.tokens, 60);
    assert_int_equal(manifest.lease_us, 10000000);
    WireSealed sealed[4];
    for (size_t i = 0; i < 4; i++) sealed[i] = wire_sealed(&manifest, i);
    for (size_t i = 1; i < 4; i++) {
        WireBlock block;
        reader_expect(&reader, WIRE_BLOCK);
        assert_true(wire_block((Str){reader.body.at, WIRE_BLOCK_FIXED}, &block, &err));
        assert_int_equal(block.index, i);
        assert_int_equal(block.generation, sealed[i].generation);
        const uint8_t *payload = (const uint8_t *)reader.body.at + WIRE_BLOCK_FIXED;
        assert_int_equal(reader.body.length - WIRE_BLOCK_FIXED, 2048);
        assert_true(prompt_lies_in(payload, 2048, 3, i));
        assert_int_equal(kv_block_checksum(payload, 2048), sealed[i].checksum);
    }
    reader_done(&reader, lease);
    reader_expect(&reader, WIRE_CONFIRMED);
    assert_ended(&owner, lease, KV_END_RELEASED);
    reader_done(&reader, lease); /* once more: it is gone, and nothing happens twice */
    assert_int_equal(reader_gone(&reader).reason, WIRE_RELEASED);
    assert_int_equal(counter_get(&kv_agent_stats(owner.agent)->late_releases), 0);
    reader_close(&reader);
    engine_close(&owner);
}

static void a_reader_of_another_prompt_gets_the_manifest_but_no_blocks(void **state) {
    (void)state;
    Engine owner;
    Reader reader;
    engine_open(&owner, (EngineConf){0});
    KvLease lease = engine_offer(&owner, "req", 3, 60, in_ms(10000));
    reader_open(&reader, &owner);
    reader_hello(&reader);
    reader_get(&reader, 1, "req", 0, 4, 60);
    reader_expect(&reader, WIRE_MANIFEST);
    reader_get(&reader, 2, "unknown", 0, 4, 60);
    assert_int_equal(reader_gone(&reader).reason, WIRE_UNKNOWN); /* and no BLOCK before it */
    reader_close(&reader);
    kv_agent_retract(owner.agent, lease);
    assert_ended(&owner, lease, KV_END_RETRACTED);
    engine_close(&owner);
}

static void the_request_alone_is_enough_to_release(void **state) {
    (void)state;
    Engine owner;
    Reader reader;
    engine_open(&owner, (EngineConf){0});
    KvLease lease = engine_offer(&owner, "req", 3, 60, in_ms(10000));
    reader_open(&reader, &owner);
    reader_hello(&reader);
    wire_put_release(&reader.peer.out, 1, 0, "somebody else's");
    wire_put_release(&reader.peer.out, 1, lease + 1, "");
    wire_put_release(&reader.peer.out, 1, 0, "req");
    wire_put_release(&reader.peer.out, 1, 0, "req");
    peer_send(&reader.peer);
    assert_ended(&owner, lease, KV_END_RELEASED);
    reader_close(&reader);
    engine_close(&owner);
}

static void a_lease_is_renewed_but_not_for_ever(void **state) {
    (void)state;
    Engine owner;
    Reader reader;
    engine_open(&owner, (EngineConf){.lease_us = 100000});
    int64_t begin = clock_mono_us();
    KvLease lease = engine_offer(&owner, "req", 3, 60, in_ms(100));
    reader_open(&reader, &owner);
    reader_hello(&reader);
    for (struct pollfd gone = {.fd = reader.peer.fd, .events = POLLIN}; poll(&gone, 1, 5) == 0;)
        reader_renew(&reader, lease);
    int64_t lived_us = clock_mono_us() - begin;
    assert_int_equal(reader_gone(&reader).reason, WIRE_EXPIRED);
    assert_ended(&owner, lease, KV_END_EXPIRED);
    assert_true(owner.renewals > 5);
    assert_true(lived_us >= 100000 * LIMIT_KV_RENEWALS &&
                lived_us < 100000 * LIMIT_KV_RENEWALS * 2);
    reader_close(&reader);
    engine_close(&owner);
}

static void a_reader_that_is_late_is_told_and_counted(void **state) {
    (void)state;
    Engine owner;
    Reader reader;
    engine_open(&owner, (EngineConf){.lease_us = 20000});
    KvLease lease = engine_offer(&owner, "req", 3, 60, in_ms(20));
    reader_open(&reader, &owner);
    reader_hello(&reader);
    reader_get(&reader, 1, "req", WIRE_NO_BLOCKS, 3, 60);
    reader_expect(&reader, WIRE_MANIFEST);
    assert_ended(&owner, lease, KV_END_EXPIRED);
    reader_done(&reader, lease);
    WireGone gone = reader_gone(&reader);
    assert_int_equal(gone.lease, lease);
    assert_int_equal(gone.reason, WIRE_EXPIRED);
    assert_true(gone.ago_us >= 0 && gone.ago_us < PATIENCE_US);
    assert_int_equal(counter_get(&kv_agent_stats(owner.agent)->late_releases), 1);
    assert_int_equal(counter_get(&kv_agent_stats(owner.agent)->offers_expired), 1);
    reader_close(&reader);
    engine_close(&owner);
}

static void the_first_of_two_readers_ends_the_offer_for_both(void **state) {
    (void)state;
    Engine owner;
    Reader first, second;
    engine_open(&owner, (EngineConf){0});
    KvLease lease = engine_offer(&owner, "req", 3, 60, in_ms(10000));
    reader_open(&first, &owner);
    reader_open(&second, &owner);
    reader_hello(&first);
    reader_hello(&second);
    reader_get(&first, 1, "req", WIRE_NO_BLOCKS, 3, 60);
    reader_get(&second, 1, "req", WIRE_NO_BLOCKS, 3, 60);
    reader_expect(&first, WIRE_MANIFEST);
    reader_expect(&second, WIRE_MANIFEST);
    reader_done(&first, lease);
    reader_expect(&first, WIRE_CONFIRMED);
    reader_done(&second, lease);
    assert_int_equal(reader_gone(&second).reason, WIRE_RELEASED);
    assert_ended(&owner, lease, KV_END_RELEASED);
    reader_close(&first);
    reader_close(&second);
    engine_close(&owner);
}

/* ---- what it may not ---- */

static void put_get_early(Reader *reader) { wire_put_get(&reader->peer.out, 1, &(WireGet){0}); }
static void put_garbage(Reader *reader) {
    buf_str(&reader->peer.out, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
}
static void put_other_version(Reader *reader) {
    reader->peer.hello.version_min = 7;
    reader->peer.hello.version_max = 9;
    wire_put_hello(&reader->peer.out, &reader->peer.hello);
}
static void put_hello_twice(Reader *reader) {
    reader_hello(reader);
    wire_put_hello(&reader->peer.out, &reader->peer.hello);
}
static void put_manifest(Reader *reader) {
    static const WireSealed sealed;
    reader_hello(reader);
    wire_put_manifest(&reader->peer.out, 1, &(WireManifest){.block_count = 1, .tokens = 1},
                      &sealed);
}
static void put_block(Reader *reader) {
    uint8_t head[WIRE_HEAD + WIRE_BLOCK_FIXED];
    reader_hello(reader);
    wire_block_head(head, 1, &(WireBlock){0, 0}, 1000000);
    buf_append(&reader->peer.out, head, sizeof head);
}
static void put_refuse(Reader *reader) {
    reader_hello(reader);
    wire_put_refuse(&reader->peer.out, WIRE_REFUSE_BUSY, "no");
}
static void put_zero_in_name(Reader *reader) {
    reader_hello(reader);
    wire_put_get(&reader->peer.out, 1, &(WireGet){.request = "ab"});
    reader->peer.out.at[reader->peer.out.length - 1] = 0;
}

static void a_reader_that_breaks_the_rules_is_refused_and_nobody_else_notices(void **state) {
    (void)state;
    static const struct {
        void (*put)(Reader *reader);
        WireRefusal reason;
        const char *text;
    } cases[] = {
        {put_get_early, WIRE_REFUSE_DAMAGED, "a GET came instead of a hello"},
        {put_garbage, WIRE_REFUSE_DAMAGED, "no message begins with 47 45 54 20 2f 20"},
        {put_other_version, WIRE_REFUSE_VERSION,
         "protocol versions 7 to 9 are spoken there, 1 here"},
        {put_hello_twice, WIRE_REFUSE_DAMAGED, "a HELLO came after the hello"},
        {put_manifest, WIRE_REFUSE_DAMAGED, "a MANIFEST came from the wrong side"},
        {put_block, WIRE_REFUSE_DAMAGED, "a BLOCK came from the wrong side"},
        {put_refuse, WIRE_REFUSE_DAMAGED, "a REFUSE came from the wrong side"},
        {put_zero_in_name, WIRE_REFUSE_DAMAGED, "a GET has a text of 2 bytes that cannot be read"},
    };
    Engine owner;
    engine_open(&owner, (EngineConf){0});
    KvLease lease = engine_offer(&owner, "req", 3, 60, in_ms(10000));
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        Reader reader;
        WireRefuse refuse;
        Err err = {0};
        reader_open(&reader, &owner);
        cases[i].put(&reader);
        peer_send(&reader.peer);
        reader_expect(&reader, WIRE_REFUSE);
        assert_true(wire_refuse((Str){reader.body.at, reader.body.length}, &refuse, &err));
        assert_string_equal(refuse.text, cases[i].text);
        assert_int_equal(refuse.reason, cases[i].reason);
        assert_ends(&reader);
        reader_close(&reader);
    }
    kv_agent_retract(owner.agent, lease);
    assert_ended(&owner, lease, KV_END_RETRACTED);
    engine_close(&owner);
}

static void a_connection_over_the_limit_is_refused(void **state) {
    (void)state;
    Engine owner;
    static Reader readers[LIMIT_KV_PEERS + 1];
    engine_open(&owner, (EngineConf){0});
    for (size_t i = 0; i < COUNT_OF(readers); i++) {
        reader_open(&readers[i], &owner);
        if (i < LIMIT_KV_PEERS) reader_hello(&readers[i]);
    }
    reader_expect(&readers[LIMIT_KV_PEERS], WIRE_REFUSE);
    for (size_t i = 0; i < COUNT_OF(readers); i++) reader_close(&readers[i]);
    engine_close(&owner);
}

static void a_connection_without_a_hello_is_closed(void **state) {
    (void)state;
    Engine owner;
    Reader reader;
    engine_open(&owner, (EngineConf){0});
    int64_t begin = clock_mono_us();
    reader_open(&reader, &owner);
    assert_ends(&reader);
    assert_true(clock_mono_us() - begin >= LIMIT_KV_HELLO_MS * 1000 - 100000);
    reader_close(&reader);
    engine_close(&owner);
}

/* ---- readers that do not read ---- */

#define LARGE_TOKENS (16 * 8000) /* 16 MiB: more than any socket holds */

static void an_offer_ends_though_its_reader_has_stopped_reading(void **state) {
    (void)state;
    Engine owner;
    Reader reader;
    engine_open(&owner, (EngineConf){.blocks = 8000, .lease_us = 50000});
    KvLease lease = engine_offer(&owner, "req", 3, LARGE_TOKENS, in_ms(1000));
    reader_open(&reader, &owner);
    reader_hello(&reader);
    reader_get(&reader, 1, "req", 0, 3, LARGE_TOKENS);
    reader_expect(&reader, WIRE_MANIFEST);
    reader_expect(&reader, WIRE_BLOCK);
    int64_t begin = clock_mono_us(); /* and not a byte more */
    assert_ended(&owner, lease, KV_END_EXPIRED);
    int64_t took_ms = (clock_mono_us() - begin) / 1000;
    assert_true(took_ms >= LIMIT_KV_DRAIN_MS && took_ms < LIMIT_KV_DRAIN_MS + 3000);
    while (reader_next(&reader)) assert_int_equal(reader.head.type, WIRE_BLOCK); /* then cut off */
    reader_close(&reader);
    engine_close(&owner);
}

static void a_reader_that_goes_away_in_the_middle_frees_the_offer_at_its_deadline(void **state) {
    (void)state;
    Engine owner;
    Reader reader;
    engine_open(&owner, (EngineConf){.blocks = 8000, .lease_us = 50000});
    KvLease lease = engine_offer(&owner, "req", 3, LARGE_TOKENS, in_ms(300));
    reader_open(&reader, &owner);
    reader_hello(&reader);
    reader_get(&reader, 1, "req", 0, 3, LARGE_TOKENS);
    reader_expect(&reader, WIRE_MANIFEST);
    reader_close(&reader);
    int64_t begin = clock_mono_us();
    assert_ended(&owner, lease, KV_END_EXPIRED);
    assert_true(clock_mono_us() - begin < 1500000);
    engine_close(&owner);
}

static void an_offer_that_is_retracted_in_the_middle_waits_for_its_last_block(void **state) {
    (void)state;
    Engine owner;
    Reader reader;
    engine_open(&owner, (EngineConf){.blocks = 8000});
    KvLease lease = engine_offer(&owner, "req", 3, LARGE_TOKENS, in_ms(10000));
    reader_open(&reader, &owner);
    reader_hello(&reader);
    reader_get(&reader, 1, "req", 0, 3, LARGE_TOKENS);
    reader_expect(&reader, WIRE_MANIFEST);
    reader_expect(&reader, WIRE_BLOCK);
    kv_agent_retract(owner.agent, lease);
    size_t blocks = 1;
    while (reader_next(&reader) && reader.head.type == WIRE_BLOCK) {
        assert_true(prompt_lies_in((const uint8_t *)reader.body.at + WIRE_BLOCK_FIXED, 2048, 3,
                                   blocks));
        blocks++;
    }
    assert_int_equal(reader.head.type, WIRE_GONE);
    assert_true(blocks < 8000);
    assert_ended(&owner, lease, KV_END_RETRACTED);
    reader_close(&reader);
    engine_close(&owner);
}

static void a_reader_that_asks_and_does_not_listen_is_cut_off(void **state) {
    (void)state;
    Engine owner;
    Reader reader;
    engine_open(&owner, (EngineConf){.blocks = 8000});
    KvLease lease = engine_offer(&owner, "req", 3, LARGE_TOKENS, in_ms(60000));
    reader_open(&reader, &owner);
    reader_hello(&reader);
    for (int i = 0; i < 1000; i++) /* each answer has 256 KiB */
        reader_get(&reader, 1, "req", WIRE_NO_BLOCKS, 3, 16);
    poll(NULL, 0, 500); /* time to answer far more than may wait */
    size_t answers = 0;
    while (reader_next(&reader) && reader.head.type == WIRE_MANIFEST) answers++;
    if (answers < 10 || answers > 200) fail_msg("%zu answers", answers);
    assert_int_equal(reader.head.type, WIRE_REFUSE);
    assert_non_null(memmem(reader.body.at, reader.body.length, "bytes of answers", 16));
    reader_close(&reader);
    kv_agent_retract(owner.agent, lease);
    assert_ended(&owner, lease, KV_END_RETRACTED);
    engine_close(&owner);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reader_by_hand_gets_manifest_blocks_and_confirmation),
        cmocka_unit_test(a_reader_of_another_prompt_gets_the_manifest_but_no_blocks),
        cmocka_unit_test(the_request_alone_is_enough_to_release),
        cmocka_unit_test(a_lease_is_renewed_but_not_for_ever),
        cmocka_unit_test(a_reader_that_is_late_is_told_and_counted),
        cmocka_unit_test(the_first_of_two_readers_ends_the_offer_for_both),
        cmocka_unit_test(a_reader_that_breaks_the_rules_is_refused_and_nobody_else_notices),
        cmocka_unit_test(a_connection_over_the_limit_is_refused),
        cmocka_unit_test(a_connection_without_a_hello_is_closed),
        cmocka_unit_test(an_offer_ends_though_its_reader_has_stopped_reading),
        cmocka_unit_test(a_reader_that_goes_away_in_the_middle_frees_the_offer_at_its_deadline),
        cmocka_unit_test(an_offer_that_is_retracted_in_the_middle_waits_for_its_last_block),
        cmocka_unit_test(a_reader_that_asks_and_does_not_listen_is_cut_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
