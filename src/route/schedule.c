// SPDX-License-Identifier: Apache-2.0
#include "schedule.h"

uint64_t route_random(RouteRandom *random) { /* xorshift64* */
    uint64_t x = random->state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    random->state = x;
    return x * 0x2545f4914f6cdd1du;
}

void route_tried_add(RouteTried *tried, const RoutePod *pod) {
    if (tried->count < COUNT_OF(tried->at)) tried->at[tried->count++] = pod;
}

static bool was_tried(const RouteTried *tried, const RoutePod *pod) {
    for (size_t i = 0; i < tried->count; i++)
        if (tried->at[i] == pod) return true;
    return false;
}

unsigned route_score_load(uint32_t load, uint32_t most) {
    return most ? (unsigned)(100 * (uint64_t)(most - load) / most) : 100;
}

unsigned route_score_prefix(size_t matched, size_t total) {
    return total ? (unsigned)(100 * matched / total) : 0;
}

double route_prompt_ratio(const RouteServer *server, const RoutePrompt *prompt) {
    size_t best = 0;
    for (size_t i = 0; i < server->member_count && prompt->count; i++) {
        const RoutePrefixes *known = &server->members[i].pod->prefixes;
        size_t matched = route_prefix_match(known, prompt->hashes, prompt->count);
        if (matched > best) best = matched;
    }
    return prompt->count ? (double)best / (double)prompt->count : 0;
}

/* What is asked of the pods that may be picked. */
typedef struct Wish {
    const RouteServer *server;
    const RouteTried *tried;
    const RoutePrompt *prompt;
    int64_t now_us;
    RouteRandom *random;
    bool with_prefill; /* its group has a prefill pod that may be picked as well */
    bool rested;       /* pods that rest may not be picked */
    bool one_group;
    uint32_t group;
} Wish;

static bool may_run(const Wish *wish, const RoutePod *pod) {
    return !was_tried(wish->tried, pod) && !(wish->rested && route_pod_rests(pod, wish->now_us));
}

static bool fits(const Wish *wish, const RouteMember *member) {
    if (!may_run(wish, member->pod)) return false;
    if (wish->one_group && member->group != wish->group) return false;
    if (!wish->with_prefill) return true;
    for (uint32_t i = 0; i < member->prefill_count; i++)
        if (may_run(wish, wish->server->prefill[member->prefill_from + i].pod)) return true;
    return false;
}

static const RouteMember *best(const Wish *wish, const RouteMember *members, size_t count) {
    const RouteMember *winner = NULL;
    unsigned winner_score = 0, draws = 0;
    uint32_t most = 0;
    for (size_t i = 0; i < count; i++)
        if (route_pod_load(members[i].pod) > most && fits(wish, &members[i]))
            most = route_pod_load(members[i].pod);
    for (size_t i = 0; i < count; i++) {
        const RouteMember *member = &members[i];
        if (!fits(wish, member)) continue;
        size_t total = wish->prompt->count;
        size_t matched = route_prefix_match(&member->pod->prefixes, wish->prompt->hashes, total);
        unsigned score = route_score_load(route_pod_load(member->pod), most) +
                         route_score_prefix(matched, total);
        if (winner && score < winner_score) continue;
        draws = winner && score == winner_score ? draws + 1 : 1;
        if (draws > 1 && route_random(wish->random) % draws != 0) continue;
        winner = member;
        winner_score = score;
    }
    return winner;
}

static const RouteMember *best_even_resting(Wish *wish, const RouteMember *members, size_t count) {
    wish->rested = true;
    const RouteMember *winner = best(wish, members, count);
    wish->rested = false;
    return winner ? winner : best(wish, members, count);
}

bool route_pick(const RouteServer *server, const RoutePrompt *prompt, const RouteTried *tried,
                int64_t now_us, RouteRandom *random, RoutePair *pair) {
    Wish wish = {
        .server = server, .tried = tried, .prompt = prompt, .now_us = now_us, .random = random};
    *pair = (RoutePair){NULL, NULL};
    wish.with_prefill = server->apart;
    pair->decode = best_even_resting(&wish, server->members, server->member_count);
    wish.with_prefill = false;
    if (pair->decode && server->apart)
        pair->prefill = best_even_resting(&wish, &server->prefill[pair->decode->prefill_from],
                                          pair->decode->prefill_count);
    if (!pair->decode && server->apart)
        pair->decode = best_even_resting(&wish, server->members, server->member_count);
    return pair->decode != NULL;
}

const RouteMember *route_pick_decode(const RouteServer *server, uint32_t group,
                                     const RoutePrompt *prompt, const RouteTried *tried,
                                     int64_t now_us, RouteRandom *random) {
    Wish wish = {.server = server, .tried = tried, .prompt = prompt, .now_us = now_us,
                 .random = random, .one_group = true, .group = group};
    return best_even_resting(&wish, server->members, server->member_count);
}
