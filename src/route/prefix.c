// SPDX-License-Identifier: Apache-2.0
#include "prefix.h"

#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static size_t decimal(uint64_t value, char out[20]) {
    char digits[20], *at = digits + sizeof digits;
    do *--at = (char)('0' + value % 10);
    while (value /= 10);
    size_t length = (size_t)(digits + sizeof digits - at);
    memcpy(out, at, length);
    return length;
}

size_t route_prefix_chain(Str model, Str prompt, size_t block, size_t most, uint64_t *hashes) {
    char bytes[20 + PREFIX_BLOCK];
    uint64_t hash = XXH64(model.at, model.length, 0);
    size_t count = 0;
    assert(block > 0 && block <= PREFIX_BLOCK);
    for (size_t at = 0; at < prompt.length && count < most; at += block) {
        size_t length = prompt.length - at < block ? prompt.length - at : block;
        size_t digits = decimal(hash, bytes);
        memcpy(bytes + digits, prompt.at + at, length);
        hash = hashes[count++] = XXH64(bytes, digits + length, 0);
    }
    return count;
}

static uint32_t *bucket_of(const RoutePrefixes *known, uint64_t hash) {
    return &known->buckets[hash & (known->bucket_count - 1)];
}

static PrefixEntry *entry_at(const RoutePrefixes *known, uint32_t place) {
    return &known->entries[place - 1];
}

static uint32_t find(const RoutePrefixes *known, uint64_t hash) {
    if (!known->count) return 0;
    uint32_t place = *bucket_of(known, hash);
    while (place && entry_at(known, place)->hash != hash) place = entry_at(known, place)->next;
    return place;
}

size_t route_prefix_match(const RoutePrefixes *known, const uint64_t *hashes, size_t count) {
    if (!known->count) return 0;
    while (count && !find(known, hashes[count - 1])) count--;
    return count;
}

/* ---- the order of use ---- */

static void leave_order(RoutePrefixes *known, uint32_t place) {
    PrefixEntry *entry = entry_at(known, place);
    *(entry->newer ? &entry_at(known, entry->newer)->older : &known->newest) = entry->older;
    *(entry->older ? &entry_at(known, entry->older)->newer : &known->oldest) = entry->newer;
}

static void enter_newest(RoutePrefixes *known, uint32_t place) {
    PrefixEntry *entry = entry_at(known, place);
    entry->newer = 0;
    entry->older = known->newest;
    *(known->newest ? &entry_at(known, known->newest)->newer : &known->oldest) = place;
    known->newest = place;
}

/* ---- the buckets ---- */

static void leave_bucket(RoutePrefixes *known, uint32_t place) {
    PrefixEntry *entry = entry_at(known, place);
    uint32_t *at = bucket_of(known, entry->hash);
    while (*at != place) at = &entry_at(known, *at)->next;
    *at = entry->next;
}

static void enter_bucket(RoutePrefixes *known, uint32_t place) {
    PrefixEntry *entry = entry_at(known, place);
    uint32_t *bucket = bucket_of(known, entry->hash);
    entry->next = *bucket;
    *bucket = place;
}

static void grow(RoutePrefixes *known) {
    mem_reserve(known->entries, known->room, known->count + 1);
    if (known->bucket_count >= known->room) return;
    known->bucket_count = known->bucket_count ? known->bucket_count : 8;
    while (known->bucket_count < known->room) known->bucket_count *= 2;
    free(known->buckets);
    known->buckets = mem_new(known->bucket_count * sizeof *known->buckets);
    for (uint32_t place = 1; place <= known->count; place++) enter_bucket(known, place);
}

static void add(RoutePrefixes *known, uint64_t hash) {
    uint32_t place = find(known, hash);
    if (place) {
        leave_order(known, place);
        enter_newest(known, place);
        return;
    }
    if (known->count == known->limit) {
        place = known->oldest;
        leave_order(known, place);
        leave_bucket(known, place);
        known->evicted++;
    } else {
        grow(known);
        place = ++known->count;
    }
    entry_at(known, place)->hash = hash;
    enter_bucket(known, place);
    enter_newest(known, place);
}

void route_prefix_add(RoutePrefixes *known, const uint64_t *hashes, size_t count) {
    if (!known->limit) return;
    while (count) add(known, hashes[--count]);
}

void route_prefix_done(RoutePrefixes *known) {
    free(known->entries);
    free(known->buckets);
    *known = (RoutePrefixes){.limit = known->limit};
}
