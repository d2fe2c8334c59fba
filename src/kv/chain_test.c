// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdlib.h>
#include "kv.h"
#include <cmocka.h>

static const KvShape shape = {.layers = 30, .kv_heads = 3, .head_dim = 64, .fingerprint = 42};

static void a_block_is_k_and_v_of_16_tokens_in_halves(void **state) {
    (void)state;
    static const struct { KvShape shape; size_t bytes; } cases[] = {
        {{30, 3, 64, 0}, 368640},
        {{1, 1, 1, 0}, 64},
        {{32, 8, 128, 0}, 2097152},
        {{0, 3, 64, 0}, 0},
        {{30, 0, 64, 0}, 0},
        {{30, 3, 0, 0}, 0},
        {{UINT32_MAX, UINT32_MAX, UINT32_MAX, 0}, 0}, /* never a product that wrapped round */
        {{1 << 16, 1 << 16, 1 << 16, 0}, 0},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        assert_int_equal(kv_block_bytes(&cases[i].shape), cases[i].bytes);
}

static void tokens_are_rounded_up_to_blocks(void **state) {
    (void)state;
    static const size_t cases[][2] = {{0, 0}, {1, 1}, {16, 1}, {17, 2}, {32, 2}, {33, 3}};
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        assert_int_equal(kv_blocks_for(cases[i][0]), cases[i][1]);
    assert_int_equal(kv_blocks_for(SIZE_MAX), SIZE_MAX / 16 + 1);
}

/* The values of doc/kv-wire-format.md, computed with Python's xxhash. */
static void the_chain_has_the_values_of_the_document(void **state) {
    (void)state;
    int32_t tokens[KV_BLOCK_TOKENS];
    for (int i = 0; i < KV_BLOCK_TOKENS; i++) tokens[i] = i + 1;
    KvHash root = kv_chain_root(&shape, STR("tenant")), one = kv_chain_next(root, tokens, 16),
           two = kv_chain_next(one, tokens, 3);
    static const KvHash want[] = {{0x6497f5a59cc1c873, 0xa35583d11a72ba6f},
                                  {0x1fc5a50278a0ec05, 0xbcb5bbbc2e108205},
                                  {0x94dd9a2f6e07bf, 0x8418bc8573c25387}};
    const KvHash is[] = {root, one, two};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(is[i].low, want[i].low);
        assert_int_equal(is[i].high, want[i].high);
    }
}

static void all_that_makes_a_block_different_makes_another_chain(void **state) {
    (void)state;
    KvShape other = shape;
    other.fingerprint++;
    int32_t a[KV_BLOCK_TOKENS] = {0}, b[KV_BLOCK_TOKENS] = {0};
    b[15] = 1;
    KvHash root = kv_chain_root(&shape, STR(""));
    const KvHash all[] = {
        root,
        kv_chain_root(&other, STR("")),
        kv_chain_root(&shape, STR("salt")),
        kv_chain_next(root, a, 16),
        kv_chain_next(root, b, 16),
        kv_chain_next(root, a, 15), /* a part is no whole, though its missing token would be 0 */
        kv_chain_next(kv_chain_root(&shape, STR("salt")), a, 16),
    };
    for (size_t i = 0; i < COUNT_OF(all); i++)
        for (size_t k = 0; k < COUNT_OF(all); k++)
            assert_int_equal(kv_hash_same(all[i], all[k]), i == k);
}

static void a_checksum_sees_every_byte(void **state) {
    (void)state;
    uint8_t block[1000] = {0};
    uint64_t before = kv_block_checksum(block, sizeof block);
    for (size_t i = 0; i < sizeof block; i++) {
        block[i] = 1;
        assert_int_not_equal(kv_block_checksum(block, sizeof block), before);
        block[i] = 0;
    }
    assert_int_equal(kv_block_checksum((const uint8_t *)"", 0), 0x2d06800538d394c2); /* XXH3-64 */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_block_is_k_and_v_of_16_tokens_in_halves),
        cmocka_unit_test(tokens_are_rounded_up_to_blocks),
        cmocka_unit_test(the_chain_has_the_values_of_the_document),
        cmocka_unit_test(all_that_makes_a_block_different_makes_another_chain),
        cmocka_unit_test(a_checksum_sees_every_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
