// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include "prefix.h"
#include <cmocka.h>

static Str repeated(Buf *buf, const char *head, const char *text, int times) {
    buf_str(buf, head);
    for (int i = 0; i < times; i++) buf_str(buf, text);
    return (Str){buf->at, buf->length};
}

/* Published vectors: other routers in front of the same pods compute these numbers. */
static void prompts_hash_to_the_published_chain(void **state) {
    (void)state;
    auto_buf Buf tests = {0}, letters = {0};
    Str long_prompt = repeated(&tests, "A very long prompt ", "test ", 100);
    Str alphabet = repeated(&letters, "", "abcdefghijklmnopqrstuvwxyz", 8192 / 26 + 1);
    alphabet.length = 8192;
    const struct {
        const char *model;
        Str prompt;
        size_t block, most, count;
        uint64_t want[4];
        size_t at[4];
    } cases[] = {
        {"test-model", STR("Hello World"), 64, 128, 1, {1993528491812861608u}, {0}},
        {"test-model",
         STR("This is a longer prompt that should span multiple blocks based on the block size"),
         20, 128, 4,
         {8626393537367828840u, 16829149375953976751u, 13000309909902416355u, 4164474810863779859u},
         {0, 1, 2, 3}},
        {"test-model", long_prompt, 10, 3, 3,
         {16111477285489601796u, 3196756824981370828u, 16885010878743789486u}, {0, 1, 2}},
        {"bench-model", alphabet, 64, 128, 128,
         {2255003460060045391u, 11149546857834002314u, 3713727362220958295u}, {0, 1, 127}},
        {"test-model", STR(""), 64, 128, 0, {0}, {0}},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        uint64_t hashes[PREFIX_BLOCKS];
        size_t count = route_prefix_chain(str_of(cases[i].model), cases[i].prompt, cases[i].block,
                                          cases[i].most, hashes);
        assert_int_equal(count, cases[i].count);
        for (size_t k = 0; k < 4 && cases[i].want[k]; k++)
            assert_true(hashes[cases[i].at[k]] == cases[i].want[k]);
    }
}

static void the_longest_known_beginning_counts(void **state) {
    (void)state;
    const uint64_t known[3][3] = {{1, 2, 3}, {1, 2}, {1, 4, 5}}, query[] = {1, 2, 3};
    const size_t counts[] = {3, 2, 3}, want[] = {3, 2, 1};
    for (size_t i = 0; i < 3; i++) {
        RoutePrefixes prefixes = {.limit = 100};
        assert_int_equal(route_prefix_match(&prefixes, query, 3), 0);
        route_prefix_add(&prefixes, known[i], counts[i]);
        assert_int_equal(route_prefix_match(&prefixes, query, 3), want[i]);
        assert_int_equal(route_prefix_match(&prefixes, (const uint64_t[]){9, 8}, 2), 0);
        route_prefix_done(&prefixes);
    }
}

static void the_long_end_of_a_prompt_is_forgotten_first(void **state) {
    (void)state;
    const uint64_t hashes[] = {1, 2, 3, 4, 5};
    const struct { uint32_t limit; size_t count, want; uint64_t evicted; } cases[] = {
        {2, 3, 2, 1}, {3, 5, 3, 2}, {5, 5, 5, 0}, {1, 5, 1, 4}, {0, 5, 0, 0}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        RoutePrefixes prefixes = {.limit = cases[i].limit};
        route_prefix_add(&prefixes, hashes, cases[i].count);
        assert_int_equal(route_prefix_match(&prefixes, hashes, cases[i].count), cases[i].want);
        assert_int_equal(prefixes.evicted, cases[i].evicted);
        route_prefix_done(&prefixes);
    }
}

static void what_was_used_last_stays(void **state) {
    (void)state;
    RoutePrefixes prefixes = {.limit = 3};
    for (uint64_t hash = 1; hash <= 3; hash++) route_prefix_add(&prefixes, &hash, 1);
    route_prefix_add(&prefixes, (const uint64_t[]){1}, 1); /* 2 is the oldest now */
    route_prefix_add(&prefixes, (const uint64_t[]){4}, 1);
    const struct { uint64_t hash; size_t want; } cases[] = {{1, 1}, {2, 0}, {3, 1}, {4, 1}};
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        assert_int_equal(route_prefix_match(&prefixes, &cases[i].hash, 1), cases[i].want);
    route_prefix_done(&prefixes);
}

/* Against a list that is searched from end to end. */
static void many_prefixes_behave_as_a_plain_list_does(void **state) {
    (void)state;
    enum { LIMIT = 50, STEPS = 20000 };
    RoutePrefixes prefixes = {.limit = LIMIT};
    uint64_t list[LIMIT], random = 88172645463325252u;
    size_t count = 0;
    for (int step = 0; step < STEPS; step++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        uint64_t hash = random % 80 * 1024; /* many meet in one bucket */
        size_t at = 0;
        while (at < count && list[at] != hash) at++;
        assert_int_equal(route_prefix_match(&prefixes, &hash, 1), at < count);
        route_prefix_add(&prefixes, &hash, 1);
        if (at == count && count < LIMIT) count++;
        if (at == LIMIT) at = LIMIT - 1;
        memmove(list + 1, list, at * sizeof *list);
        list[0] = hash;
    }
    assert_int_equal(prefixes.count, LIMIT);
    route_prefix_done(&prefixes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_hash_to_the_published_chain),
        cmocka_unit_test(the_longest_known_beginning_counts),
        cmocka_unit_test(the_long_end_of_a_prompt_is_forgotten_first),
        cmocka_unit_test(what_was_used_last_stays),
        cmocka_unit_test(many_prefixes_behave_as_a_plain_list_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
