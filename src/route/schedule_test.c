// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include "schedule.h"
#include <cmocka.h>

#define PODS 8

/* Pods d0.. to decode (or aggregated) and p0.. to prefill, as many as a test asks for. */
typedef struct Bench {
    RoutePod *decode[PODS], *prefill[PODS];
    RouteMember members[PODS], prefill_members[PODS];
    RouteServer server;
    RouteTried tried;
    RoutePrompt prompt;
    RouteRandom random;
} Bench;

static RoutePod *pod_new(char kind, size_t i) {
    char name[32];
    snprintf(name, sizeof name, "default/%c%zu", kind, i);
    return route_pod_new(name, "127.0.0.1", name);
}

/* groups[i]: of the i-th decode pod; prefill pods stand group by group. */
static void bench_open(Bench *b, bool apart, const char *decode_groups,
                       const char *prefill_groups) {
    *b = (Bench){.random = {1}, .server = {.apart = apart, .attempts = 3}};
    for (size_t i = 0; prefill_groups[i]; i++) {
        b->prefill[i] = pod_new('p', i);
        b->prefill_members[i] =
            (RouteMember){.pod = b->prefill[i], .group = (uint32_t)(prefill_groups[i] - '0')};
        b->server.prefill_count++;
    }
    for (size_t i = 0; decode_groups[i]; i++) {
        b->decode[i] = pod_new('d', i);
        RouteMember *member = &b->members[i];
        *member = (RouteMember){.pod = b->decode[i], .group = (uint32_t)(decode_groups[i] - '0')};
        for (uint32_t k = 0; k < b->server.prefill_count; k++)
            if (b->prefill_members[k].group == member->group && !member->prefill_count++)
                member->prefill_from = k;
        b->server.member_count++;
    }
    b->server.members = b->members;
    b->server.prefill = b->prefill_members;
}

static void bench_close(Bench *b) {
    for (size_t i = 0; i < PODS; i++) {
        if (b->decode[i]) b->decode[i]->in_flight = 0;
        if (b->prefill[i]) b->prefill[i]->in_flight = 0;
        route_pod_unref(b->decode[i]);
        route_pod_unref(b->prefill[i]);
    }
}

static const char *name_of(const RouteMember *member) { return member ? member->pod->name : "-"; }

/* "d0 p0", or "none". */
static const char *pick(Bench *b, int64_t now_us, char out[32]) {
    RoutePair pair;
    if (!route_pick(&b->server, &b->prompt, &b->tried, now_us, &b->random, &pair)) return "none";
    snprintf(out, 32, "%s %s", name_of(pair.decode), name_of(pair.prefill));
    return out;
}

static void load_scores_as_published(void **state) {
    (void)state;
    const struct { uint32_t in_flight, most; unsigned want; } cases[] = {
        {0, 0, 100}, {0, 10, 100}, {10, 10, 0}, {5, 10, 50}, {1, 3, 66}, {2, 3, 33}, {3, 3, 0}};
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        assert_int_equal(route_score_load(cases[i].in_flight, cases[i].most), cases[i].want);
    const struct { size_t matched, total; unsigned want; } matches[] = {
        {7, 13, 53}, {0, 13, 0}, {13, 13, 100}, {0, 0, 0}};
    for (size_t i = 0; i < COUNT_OF(matches); i++)
        assert_int_equal(route_score_prefix(matches[i].matched, matches[i].total), matches[i].want);
}

static void the_least_loaded_pod_is_picked(void **state) {
    (void)state;
    const struct { uint32_t load[3]; const char *want; } cases[] = {
        {{1, 0, 2}, "d1 -"}, {{0, 5, 5}, "d0 -"}, {{9, 8, 7}, "d2 -"}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        Bench b;
        char out[32];
        bench_open(&b, false, "000", "");
        for (size_t k = 0; k < 3; k++) b.decode[k]->in_flight = cases[i].load[k];
        assert_string_equal(pick(&b, 0, out), cases[i].want);
        for (size_t k = 0; k < 3; k++) { /* what is on its way counts as what is there */
            b.decode[k]->in_flight = cases[i].load[k] / 2;
            b.decode[k]->expected = cases[i].load[k] - cases[i].load[k] / 2;
        }
        assert_string_equal(pick(&b, 0, out), cases[i].want);
        for (size_t k = 0; k < 3; k++) b.decode[k]->expected = 0;
        bench_close(&b);
    }
}

static void a_pod_that_has_seen_the_prompt_is_preferred_while_it_is_not_busy(void **state) {
    (void)state;
    Bench b;
    char out[32];
    bench_open(&b, false, "000", "");
    b.prompt = (RoutePrompt){{1, 2, 3, 4}, 4};
    route_prefix_add(&b.decode[1]->prefixes, b.prompt.hashes, 4);
    route_prefix_add(&b.decode[2]->prefixes, b.prompt.hashes, 2);
    assert_string_equal(pick(&b, 0, out), "d1 -"); /* 200, 150, 100 */
    assert_true(route_prompt_ratio(&b.server, &b.prompt) == 1.0);
    b.decode[1]->in_flight = 4;
    b.decode[2]->in_flight = 1;
    assert_string_equal(pick(&b, 0, out), "d2 -"); /* 0 + 100, 75 + 50, 100 + 0 */
    b.decode[0]->in_flight = 2;
    b.decode[2]->in_flight = 4;
    assert_string_equal(pick(&b, 0, out), "d1 -"); /* 50 + 0, 0 + 100, 0 + 50 */
    b.prompt.count = 0;                            /* an empty prompt says nothing */
    assert_string_equal(pick(&b, 0, out), "d0 -");
    bench_close(&b);
}

static void draws_are_shared_out(void **state) {
    (void)state;
    Bench b;
    char out[32];
    int got[3] = {0};
    bench_open(&b, false, "000", "");
    for (int i = 0; i < 3000; i++) got[pick(&b, 0, out)[1] - '0']++;
    for (int i = 0; i < 3; i++) assert_in_range(got[i], 850, 1150);
    bench_close(&b);
}

static void prefill_is_picked_in_the_group_of_decode(void **state) {
    (void)state;
    const struct {
        const char *decode, *prefill; /* groups */
        uint32_t decode_load[3], prefill_load[4];
        const char *want;
    } cases[] = {
        {"01", "01", {0, 1}, {9, 0}, "d0 p0"},
        {"01", "01", {1, 0}, {0, 9}, "d1 p1"},
        {"00", "001", {1, 0}, {1, 0, 0}, "d1 p1"},
        {"01", "1", {0, 9}, {0}, "d1 p0"},       /* d0 has no partner */
        {"012", "22", {0, 0, 5}, {1, 0}, "d2 p1"},
        {"0", "1", {0}, {0}, "d0 -"},            /* nobody has: decode alone */
        {"0", "", {0}, {0}, "d0 -"},
        {"", "0", {0}, {0}, "none"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        Bench b;
        char out[32];
        bench_open(&b, true, cases[i].decode, cases[i].prefill);
        for (size_t k = 0; k < b.server.member_count; k++)
            b.decode[k]->in_flight = cases[i].decode_load[k];
        for (size_t k = 0; k < b.server.prefill_count; k++)
            b.prefill[k]->in_flight = cases[i].prefill_load[k];
        assert_string_equal(pick(&b, 0, out), cases[i].want);
        bench_close(&b);
    }
}

static void pods_that_were_tried_are_not_asked_again(void **state) {
    (void)state;
    Bench b;
    char out[32];
    bench_open(&b, true, "00", "00");
    b.decode[0]->in_flight = 1;
    b.prefill[0]->in_flight = 1;
    assert_string_equal(pick(&b, 0, out), "d1 p1");
    route_tried_add(&b.tried, b.prefill[1]);
    assert_string_equal(pick(&b, 0, out), "d1 p0");
    route_tried_add(&b.tried, b.decode[1]);
    assert_string_equal(pick(&b, 0, out), "d0 p0");
    route_tried_add(&b.tried, b.prefill[0]);
    assert_string_equal(pick(&b, 0, out), "d0 -");
    route_tried_add(&b.tried, b.decode[0]);
    assert_string_equal(pick(&b, 0, out), "none");
    bench_close(&b);
}

static void another_decode_pod_of_the_group_takes_what_prefill_offers(void **state) {
    (void)state;
    Bench b;
    bench_open(&b, true, "010", "01");
    b.decode[0]->in_flight = 1;
    const RouteMember *member = route_pick_decode(&b.server, 0, &b.prompt, &b.tried, 0, &b.random);
    assert_string_equal(name_of(member), "d2");
    route_tried_add(&b.tried, b.decode[2]);
    member = route_pick_decode(&b.server, 0, &b.prompt, &b.tried, 0, &b.random);
    assert_string_equal(name_of(member), "d0");
    route_tried_add(&b.tried, b.decode[0]);
    assert_null(route_pick_decode(&b.server, 0, &b.prompt, &b.tried, 0, &b.random));
    bench_close(&b);
}

/* ---- health ---- */

static void pod_fails(RoutePod *pod, int64_t now_us) {
    route_pod_begin(pod);
    route_pod_end(pod, POD_FAILED, "refused", now_us);
}

static void a_failed_pod_rests_longer_each_time(void **state) {
    (void)state;
    const int64_t rests_ms[] = {1000, 2000, 4000, 8000, 16000, 30000, 30000};
    RoutePod *pod = pod_new('d', 0);
    int64_t now_us = 1000;
    for (size_t i = 0; i < COUNT_OF(rests_ms); i++) {
        pod_fails(pod, now_us);
        assert_true(route_pod_rests(pod, now_us + rests_ms[i] * 1000 - 1));
        assert_false(route_pod_rests(pod, now_us + rests_ms[i] * 1000));
        now_us += rests_ms[i] * 1000;
    }
    assert_int_equal(pod->failed, 7);
    /* one request tries, the others wait for what it finds */
    route_pod_begin(pod);
    assert_true(route_pod_rests(pod, now_us));
    route_pod_end(pod, POD_NO_MATTER, NULL, now_us); /* its client left */
    assert_false(route_pod_rests(pod, now_us));
    route_pod_begin(pod);
    route_pod_end(pod, POD_ANSWERED, NULL, now_us);
    assert_int_equal(pod->failures, 0);
    route_pod_begin(pod);
    assert_false(route_pod_rests(pod, now_us));
    route_pod_end(pod, POD_ANSWERED, NULL, now_us);
    route_pod_unref(pod);
}

static void resting_pods_are_asked_when_nothing_else_is_left(void **state) {
    (void)state;
    Bench b;
    char out[32];
    bench_open(&b, true, "01", "01");
    b.decode[1]->in_flight = b.prefill[1]->in_flight = 7;
    pod_fails(b.decode[0], 0);
    assert_string_equal(pick(&b, 500000, out), "d1 p1");
    assert_string_equal(pick(&b, 1000000, out), "d0 p0"); /* it has rested */
    b.decode[0]->failures = 0;
    pod_fails(b.prefill[0], 0);
    assert_string_equal(pick(&b, 500000, out), "d1 p1"); /* with whom it would have to work */
    pod_fails(b.prefill[1], 0);
    assert_string_equal(pick(&b, 500000, out), "d0 p0"); /* all prefill pods rest */
    bench_close(&b);
}

int main(void) {
    log_set_level(LOG_OFF);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(load_scores_as_published),
        cmocka_unit_test(the_least_loaded_pod_is_picked),
        cmocka_unit_test(a_pod_that_has_seen_the_prompt_is_preferred_while_it_is_not_busy),
        cmocka_unit_test(draws_are_shared_out),
        cmocka_unit_test(prefill_is_picked_in_the_group_of_decode),
        cmocka_unit_test(pods_that_were_tried_are_not_asked_again),
        cmocka_unit_test(another_decode_pod_of_the_group_takes_what_prefill_offers),
        cmocka_unit_test(a_failed_pod_rests_longer_each_time),
        cmocka_unit_test(resting_pods_are_asked_when_nothing_else_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
