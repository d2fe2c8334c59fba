// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include "wire.h"
#include <cmocka.h>

static const KvFirstToken first = {.token = -7,
                                   .top_count = 20,
                                   .sampling_hash = 0x1122334455667788,
                                   .logprob = -1.5f,
                                   .rank = 3,
                                   .top_tokens = {9, 8, [19] = -1},
                                   .top_logprobs = {-0.25f, -8, [19] = -100}};
static const WireSealed sealed[2] = {{{1, 2}, 3, 4, 5}, {{6, 7}, 8, 9, UINT32_MAX}};

typedef struct Message { /* one of each kind, as bytes */
    const char *name;
    WireType type;
    size_t bytes;
} Message;

static const Message messages[] = {
    {"HELLO", WIRE_HELLO, 16 + 72 + 6},      {"REFUSE", WIRE_REFUSE, 16 + 8 + 3},
    {"GET", WIRE_GET, 16 + 32 + 5},          {"MANIFEST", WIRE_MANIFEST, 16 + 232 + 64},
    {"DONE", WIRE_DONE, 16 + 16},            {"CONFIRMED", WIRE_CONFIRMED, 16 + 8},
    {"GONE", WIRE_GONE, 16 + 24},            {"RENEW", WIRE_RENEW, 16 + 8},
    {"RELEASE", WIRE_RELEASE, 16 + 8 + 5},
};

static const WireHello hello = {.version_min = 1,
                                .version_max = 0x0203,
                                .dtype = 4,
                                .layout = 5,
                                .block_tokens = 16,
                                .shape = {10, 11, 12, 0x8877665544332211},
                                .epoch = 0xfedcba9876543210,
                                .block_bytes = 368640,
                                .generations_at = 1 << 20,
                                .capacity = 0x01020304,
                                .port = 5600,
                                .engine = "engine"};
static const WireManifest manifest = {.lease = 0xabcdef,
                                      .epoch = 0x5555,
                                      .lease_us = 10000000,
                                      .tokens = 17,
                                      .block_count = 2,
                                      .cached_tokens = 16,
                                      .first = first};
static const WireGet get = {
    .epoch = 77, .first = 3, .last = {0x10, 0x20}, .request = "req-1"};

static void put(Buf *to, WireType type) {
    if (type == WIRE_HELLO) wire_put_hello(to, &hello);
    if (type == WIRE_REFUSE) wire_put_refuse(to, WIRE_REFUSE_BUSY, "why");
    if (type == WIRE_GET) wire_put_get(to, 42, &get);
    if (type == WIRE_MANIFEST) wire_put_manifest(to, 42, &manifest, sealed);
    if (type == WIRE_DONE) wire_put_done(to, 42, (WireDone){9, 1 << 30});
    if (type == WIRE_CONFIRMED || type == WIRE_RENEW) wire_put_lease(to, type, 42, 9);
    if (type == WIRE_GONE) wire_put_gone(to, 42, (WireGone){9, WIRE_EXPIRED, 1500});
    if (type == WIRE_RELEASE) wire_put_release(to, 42, 9, "req-1");
}

/* Any message's body, read by the reader of its type. */
static bool read_body(WireType type, Str body, Err *err) {
    union {
        WireHello hello;
        WireRefuse refuse;
        WireGet get;
        WireManifest manifest;
        WireDone done;
        WireGone gone;
        WireRelease release;
        KvLease lease;
    } out;
    switch (type) {
    case WIRE_HELLO: return wire_hello(body, &out.hello, err);
    case WIRE_REFUSE: return wire_refuse(body, &out.refuse, err);
    case WIRE_GET: return wire_get(body, &out.get, err);
    case WIRE_MANIFEST: return wire_manifest(body, &out.manifest, err);
    case WIRE_DONE: return wire_done(body, &out.done, err);
    case WIRE_GONE: return wire_gone(body, &out.gone, err);
    case WIRE_RELEASE: return wire_release(body, &out.release, err);
    default: return wire_lease(type, body, &out.lease, err);
    }
}

static void every_message_has_the_length_of_the_document_and_is_read_again(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(messages); i++) {
        Buf bytes = {0};
        WireHead head;
        Err err = {0};
        put(&bytes, messages[i].type);
        if (bytes.length != messages[i].bytes)
            fail_msg("%s has %zu bytes", messages[i].name, bytes.length);
        assert_true(wire_head((const uint8_t *)bytes.at, &head, &err));
        assert_int_equal(head.type, messages[i].type);
        assert_int_equal(head.length, bytes.length - WIRE_HEAD);
        assert_int_equal(head.pull, i < 2 ? 0 : 42);
        assert_true(read_body(head.type, (Str){bytes.at + WIRE_HEAD, head.length}, &err));
        buf_done(&bytes);
    }
}

/* The reader sees nothing behind a body's end: each is copied to where ASan watches. */
static void a_message_cut_anywhere_is_refused(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(messages); i++) {
        WireType type = messages[i].type;
        bool has_text = type == WIRE_REFUSE || type == WIRE_GET || type == WIRE_RELEASE;
        Buf bytes = {0};
        Err err = {0};
        put(&bytes, type);
        for (size_t length = 0; length < bytes.length - WIRE_HEAD; length++) {
            char *body = mem_dup_bytes(bytes.at + WIRE_HEAD, length);
            bool ok = read_body(type, (Str){body, length}, &err);
            if (ok && !has_text) fail_msg("%s of %zu bytes", messages[i].name, length);
            free(body);
        }
        buf_done(&bytes);
    }
}

static void heads_that_cannot_be_are_refused(void **state) {
    (void)state;
    static const struct { uint8_t head[WIRE_HEAD]; const char *message; } cases[] = {
        {{0, 0, 0, 0, 0}, "no message begins with 00 00 00 00 00 00"},
        {{0, 0, 0, 0, WIRE_TYPES}, "no message begins with 00 00 00 00 0b 00"},
        {{8, 0, 0, 0, WIRE_RENEW, 1}, "no message begins with 08 00 00 00 09 01"},
        {{8, 0, 0, 0, WIRE_RENEW, 0, 0, 1}, "no message begins with 08 00 00 00 09 00"},
        {{9, 0, 0, 0, WIRE_RENEW}, "a RENEW has 9 bytes, 8 to 8 are possible"},
        {{0, 0, 0, 1, WIRE_MANIFEST}, "a MANIFEST has 16777216 bytes, 232 to 4194304 are possible"},
        {{0xff, 0xff, 0xff, 0xff, WIRE_BLOCK},
         "a BLOCK has 4294967295 bytes, 8 to 268435464 are possible"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        WireHead head;
        Err err = {0};
        assert_false(wire_head(cases[i].head, &head, &err));
        assert_int_equal(err.code, ERR_DAMAGED);
        assert_string_equal(err.message, cases[i].message);
    }
}

static uint64_t number_at(const Buf *bytes, size_t offset, size_t size) {
    uint64_t value = 0;
    for (size_t i = 0; i < size; i++)
        value |= (uint64_t)(uint8_t)bytes->at[WIRE_HEAD + offset + i] << 8 * i;
    return value;
}

static void fields_lie_where_the_document_says(void **state) {
    (void)state;
    static const struct { WireType type; size_t offset, size; uint64_t value; } cases[] = {
        {WIRE_HELLO, 0, 8, 0x564b2d4e4f544142}, /* "BATON-KV" */
        {WIRE_HELLO, 8, 2, 1},
        {WIRE_HELLO, 10, 2, 0x0203},
        {WIRE_HELLO, 12, 1, 4},
        {WIRE_HELLO, 13, 1, 5},
        {WIRE_HELLO, 14, 2, 16},
        {WIRE_HELLO, 16, 4, 10},
        {WIRE_HELLO, 20, 4, 11},
        {WIRE_HELLO, 24, 4, 12},
        {WIRE_HELLO, 28, 4, 0x01020304},
        {WIRE_HELLO, 32, 8, 0x8877665544332211},
        {WIRE_HELLO, 40, 8, 0xfedcba9876543210},
        {WIRE_HELLO, 48, 8, 368640},
        {WIRE_HELLO, 56, 8, 1 << 20},
        {WIRE_HELLO, 64, 2, 5600},
        {WIRE_HELLO, 66, 1, 6},
        {WIRE_HELLO, 72, 2, 'e' | 'n' << 8},
        {WIRE_REFUSE, 0, 4, WIRE_REFUSE_BUSY},
        {WIRE_REFUSE, 8, 1, 'w'},
        {WIRE_GET, 0, 8, 77},
        {WIRE_GET, 8, 4, 3},
        {WIRE_GET, 16, 8, 0x10},
        {WIRE_GET, 24, 8, 0x20},
        {WIRE_GET, 32, 1, 'r'},
        {WIRE_MANIFEST, 8, 8, 0xabcdef},
        {WIRE_MANIFEST, 16, 8, 0x5555},
        {WIRE_MANIFEST, 24, 8, 10000000},
        {WIRE_MANIFEST, 32, 4, 17},
        {WIRE_MANIFEST, 36, 4, 2},
        {WIRE_MANIFEST, 40, 4, 16},
        {WIRE_MANIFEST, 44, 4, 0xfffffff9},
        {WIRE_MANIFEST, 48, 8, 0x1122334455667788},
        {WIRE_MANIFEST, 56, 4, 0xbfc00000}, /* -1.5 */
        {WIRE_MANIFEST, 60, 4, 3},
        {WIRE_MANIFEST, 64, 4, 20},
        {WIRE_MANIFEST, 72, 4, 9},
        {WIRE_MANIFEST, 76, 4, 0xbe800000}, /* -0.25 */
        {WIRE_MANIFEST, 80, 4, 8},
        {WIRE_MANIFEST, 224, 4, 0xffffffff},
        {WIRE_MANIFEST, 232, 8, 1},
        {WIRE_MANIFEST, 240, 8, 2},
        {WIRE_MANIFEST, 248, 8, 3},
        {WIRE_MANIFEST, 256, 4, 4},
        {WIRE_MANIFEST, 260, 4, 5},
        {WIRE_MANIFEST, 264, 8, 6},
        {WIRE_DONE, 0, 8, 9},
        {WIRE_DONE, 8, 8, 1 << 30},
        {WIRE_CONFIRMED, 0, 8, 9},
        {WIRE_GONE, 0, 8, 9},
        {WIRE_GONE, 8, 4, WIRE_EXPIRED},
        {WIRE_GONE, 16, 8, 1500},
        {WIRE_RENEW, 0, 8, 9},
        {WIRE_RELEASE, 0, 8, 9},
        {WIRE_RELEASE, 8, 1, 'r'},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        Buf bytes = {0};
        put(&bytes, cases[i].type);
        if (number_at(&bytes, cases[i].offset, cases[i].size) != cases[i].value)
            fail_msg("%s at %zu", wire_name(cases[i].type), cases[i].offset);
        buf_done(&bytes);
    }
    uint8_t block[WIRE_HEAD + WIRE_BLOCK_FIXED];
    wire_block_head(block, 42, &(WireBlock){6, 7}, 368640);
    static const uint8_t want[] = {0x08, 0xa0, 5, 0, WIRE_BLOCK, 0, 0, 0, 42, 0, 0, 0,
                                   0,    0,    0, 0, 6,          0, 0, 0, 7,  0, 0, 0};
    assert_memory_equal(block, want, sizeof want);
}

static void what_was_written_is_what_is_read(void **state) {
    (void)state;
    Err err = {0};
    Buf bytes = {0};
    WireHello h;
    WireManifest m;
    WireGet g;
    wire_put_hello(&bytes, &hello);
    assert_true(wire_hello((Str){bytes.at + WIRE_HEAD, bytes.length - WIRE_HEAD}, &h, &err));
    assert_true(kv_shape_same(&h.shape, &hello.shape));
    assert_int_equal(h.epoch, hello.epoch);
    assert_int_equal(h.capacity, hello.capacity);
    assert_int_equal(h.generations_at, hello.generations_at);
    assert_string_equal(h.engine, "engine");
    buf_clear(&bytes);
    wire_put_manifest(&bytes, 1, &manifest, sealed);
    assert_true(wire_manifest((Str){bytes.at + WIRE_HEAD, bytes.length - WIRE_HEAD}, &m, &err));
    assert_memory_equal(&m.first, &first, sizeof first);
    for (size_t i = 0; i < 2; i++) {
        WireSealed s = wire_sealed(&m, i);
        assert_memory_equal(&s, &sealed[i], sizeof s);
    }
    buf_clear(&bytes);
    wire_put_get(&bytes, 1, &get);
    assert_true(wire_get((Str){bytes.at + WIRE_HEAD, bytes.length - WIRE_HEAD}, &g, &err));
    assert_int_equal(g.first, 3);
    assert_true(kv_hash_same(g.last, get.last));
    assert_string_equal(g.request, "req-1");
    buf_done(&bytes);
}

/* A later version may add fields to a hello: they are passed over. */
static void a_longer_hello_is_read_all_the_same(void **state) {
    (void)state;
    Buf bytes = {0};
    WireHello h;
    Err err = {0};
    wire_put_hello(&bytes, &hello);
    buf_str(&bytes, "more");
    assert_true(wire_hello((Str){bytes.at + WIRE_HEAD, bytes.length - WIRE_HEAD}, &h, &err));
    assert_string_equal(h.engine, "engine");
    buf_done(&bytes);
}

static void every_flipped_bit_of_a_manifest_is_noticed(void **state) {
    (void)state;
    Buf bytes = {0};
    WireManifest m;
    Err err = {0};
    wire_put_manifest(&bytes, 1, &manifest, sealed);
    for (size_t bit = 0; bit < (bytes.length - WIRE_HEAD) * 8; bit++) {
        bytes.at[WIRE_HEAD + bit / 8] ^= (char)(1 << bit % 8);
        assert_false(
            wire_manifest((Str){bytes.at + WIRE_HEAD, bytes.length - WIRE_HEAD}, &m, &err));
        bytes.at[WIRE_HEAD + bit / 8] ^= (char)(1 << bit % 8);
    }
    buf_done(&bytes);
}

static void a_manifest_that_makes_no_sense_is_refused(void **state) {
    (void)state;
    static const struct { WireManifest manifest; const char *message;
    } cases[] = {
        {{.lease = 1, .lease_us = 1, .tokens = 33, .block_count = 2},
         "says 2 blocks and 33 tokens"},
        {{.lease = 0, .lease_us = 1, .tokens = 32, .block_count = 2}, "has lease 0 of 1 us"},
        {{.lease = 1, .lease_us = 0, .tokens = 32, .block_count = 2}, "has lease 1 of 0 us"},
        {{.lease = 1, .lease_us = -1, .tokens = 32, .block_count = 2}, "has lease 1 of -1 us"},
        {{.lease = 1, .lease_us = 1, .tokens = 32, .block_count = 2, .cached_tokens = 33},
         "33 cached tokens of 32"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        Buf bytes = {0};
        WireManifest m;
        Err err = {0};
        wire_put_manifest(&bytes, 1, &cases[i].manifest, sealed);
        assert_false(
            wire_manifest((Str){bytes.at + WIRE_HEAD, bytes.length - WIRE_HEAD}, &m, &err));
        if (!strstr(err.message, cases[i].message)) fail_msg("%s", err.message);
        buf_done(&bytes);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_has_the_length_of_the_document_and_is_read_again),
        cmocka_unit_test(a_message_cut_anywhere_is_refused),
        cmocka_unit_test(heads_that_cannot_be_are_refused),
        cmocka_unit_test(fields_lie_where_the_document_says),
        cmocka_unit_test(what_was_written_is_what_is_read),
        cmocka_unit_test(a_longer_hello_is_read_all_the_same),
        cmocka_unit_test(every_flipped_bit_of_a_manifest_is_noticed),
        cmocka_unit_test(a_manifest_that_makes_no_sense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
