// SPDX-License-Identifier: Apache-2.0
/* pool_check.c - proves a pool's invariants from what it was told: counts everything again. */
#include "pool_data.h"

typedef struct Recount { /* of one block */
    uint32_t leases, listed, found, cached_children;
    uint32_t place; /* in the list of cached blocks, from 1: the oldest */
} Recount;

static const char *const state_names[] = {"free", "cached", "held", "leased"};

static bool wrong(Err *err, KvBlock id, const char *what, uint64_t is, uint64_t should) {
    return err_set(err, ERR_INTERNAL, "KV block %u: %s is %llu, counted again it is %llu", id, what,
                   (unsigned long long)is, (unsigned long long)should);
}

static bool check_list(const KvPool *pool, const BlockList *list, BlockState state,
                       Recount *recounts, Err *err) {
    uint32_t place = 0;
    KvBlock before = KV_NONE;
    for (KvBlock id = list->oldest; id != KV_NONE; before = id, id = pool->blocks[id].newer) {
        const Block *block = &pool->blocks[id];
        if (++place > pool->capacity || recounts[id].listed++)
            return err_set(err, ERR_INTERNAL, "the list of %s KV blocks has a ring at block %u",
                           state_names[state], id);
        if (block->state != state)
            return err_set(err, ERR_INTERNAL, "KV block %u is %s, but listed as %s", id,
                           state_names[block->state], state_names[state]);
        if (block->older != before)
            return wrong(err, id, "its older neighbour", block->older, before);
        recounts[id].place = place;
    }
    if (list->newest != before || list->count != place)
        return err_set(err, ERR_INTERNAL, "the list of %s KV blocks has %zu blocks and ends at %u, "
                       "counted again %u and %u", state_names[state], list->count, list->newest,
                       place, before);
    return true;
}

static bool check_index(const KvPool *pool, Recount *recounts, Err *err) {
    for (size_t b = 0; b < pool->bucket_count; b++)
        for (KvBlock id = pool->buckets[b]; id != KV_NONE; id = pool->blocks[id].bucket_next) {
            const Block *block = &pool->blocks[id];
            if (recounts[id].found++) return wrong(err, id, "its places in the index", 2, 1);
            if (!block->indexed) return wrong(err, id, "its stay in the index", 0, 1);
            KvHash hash = kv_chain_next(block->before, block->tokens, KV_BLOCK_TOKENS);
            if (!kv_hash_same(hash, block->hash))
                return wrong(err, id, "its chain", block->hash.low, hash.low);
            KvBlock parent = prefix_parent(pool, block);
            if (parent == KV_NONE) continue;
            if (!kv_hash_same(pool->blocks[parent].hash, block->before))
                return wrong(err, id, "the chain of its parent", pool->blocks[parent].hash.low,
                             block->before.low);
            if (block->state == BLOCK_CACHED) recounts[parent].cached_children++;
        }
    return true;
}

static bool check_block(const KvPool *pool, KvBlock id, const Recount *recounts, Err *err) {
    const Block *block = &pool->blocks[id];
    const Recount *now = &recounts[id];
    BlockState state = now->leases    ? BLOCK_LEASED
                       : block->refs  ? BLOCK_HELD
                       : now->found   ? BLOCK_CACHED
                                      : BLOCK_FREE;
    if (block->leases != now->leases)
        return wrong(err, id, "its leases", block->leases, now->leases);
    if (!!block->indexed != now->found)
        return wrong(err, id, "being in the index", !!block->indexed, now->found);
    if (block->state != state)
        return err_set(
            err, ERR_INTERNAL,
            "KV block %u is %s, but %u references, %u leases and %u places in the prefix "
            "index make it %s",
            id, state_names[block->state], block->refs, now->leases, now->found,
            state_names[state]);
    if (now->listed != (state == BLOCK_FREE || state == BLOCK_CACHED))
        return wrong(err, id, "being listed", now->listed, !now->listed);
    if (block->indexed && block->cached_children != now->cached_children)
        return wrong(err, id, "its cached children", block->cached_children, now->cached_children);
    KvBlock parent = state == BLOCK_CACHED ? prefix_parent(pool, block) : KV_NONE;
    if (parent != KV_NONE && pool->blocks[parent].state == BLOCK_CACHED &&
        recounts[parent].place < now->place)
        return err_set(err, ERR_INTERNAL,
                       "KV block %u would be evicted before block %u, which continues it", parent,
                       id);
    return true;
}

static bool check_all(const KvPool *pool, Recount *recounts, Err *err) {
    size_t counts[BLOCK_STATES] = {0};
    for (size_t i = 0; i < pool->lease_count; i++)
        for (size_t k = 0; k < pool->leases[i].block_count; k++)
            recounts[pool->leases[i].blocks[k]].leases++;
    if (!check_list(pool, &pool->free, BLOCK_FREE, recounts, err) ||
        !check_list(pool, &pool->cached, BLOCK_CACHED, recounts, err) ||
        !check_index(pool, recounts, err))
        return false;
    for (KvBlock id = 0; id < pool->capacity; id++) {
        if (!check_block(pool, id, recounts, err)) return false;
        counts[pool->blocks[id].state]++;
    }
    for (size_t s = 0; s < BLOCK_STATES; s++)
        if (counts[s] != pool->counts[s])
            return err_set(err, ERR_INTERNAL, "%zu KV blocks are %s, counted again %zu",
                           pool->counts[s], state_names[s], counts[s]);
    return true;
}

bool kv_pool_check(const KvPool *pool, Err *err) {
    Recount *recounts = mem_try(pool->capacity, sizeof *recounts, "the check of the KV pool", err);
    if (!recounts) return false;
    bool ok = check_all(pool, recounts, err);
    mem_give(recounts, pool->capacity, sizeof *recounts);
    return ok;
}
