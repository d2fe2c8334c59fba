// SPDX-License-Identifier: Apache-2.0
/* prefix.c - the prefix index: a hash table of full blocks, each linked to the block it continues.
 *
 * The link (parent and a number of the parent's stay in the index) is what makes a hit exact: block
 * i matches only if it continues the very block that matched as i-1.  A parent that left the index
 * leaves its children unreachable; they are replaced when their prompt is computed again. */
#include "pool_data.h"

static size_t bucket_of(const KvPool *pool, KvHash hash) {
    return (size_t)hash.low & (pool->bucket_count - 1);
}

KvBlock prefix_lookup(const KvPool *pool, KvHash hash) {
    KvBlock id = pool->buckets[bucket_of(pool, hash)];
    while (id != KV_NONE && !kv_hash_same(pool->blocks[id].hash, hash))
        id = pool->blocks[id].bucket_next;
    return id;
}

KvBlock prefix_parent(const KvPool *pool, const Block *block) {
    if (block->parent == KV_NONE) return KV_NONE;
    return pool->blocks[block->parent].indexed == block->parent_indexed ? block->parent : KV_NONE;
}

void prefix_drop(KvPool *pool, KvBlock id) {
    Block *block = &pool->blocks[id];
    KvBlock *at = &pool->buckets[bucket_of(pool, block->hash)];
    while (*at != id) at = &pool->blocks[*at].bucket_next;
    *at = block->bucket_next;
    block->bucket_next = KV_NONE;
    block->indexed = 0; /* from here on its children have no parent */
    block->cached_children = 0;
}

static bool same_tokens(const Block *block, const int32_t *tokens) {
    return !memcmp(block->tokens, tokens, sizeof block->tokens);
}

size_t kv_prefix_find(KvPool *pool, KvHash root, const int32_t *tokens, size_t count,
                      KvBlock *out) {
    size_t found = 0;
    KvHash before = root;
    for (; (found + 1) * KV_BLOCK_TOKENS <= count; found++, tokens += KV_BLOCK_TOKENS) {
        KvHash hash = kv_chain_next(before, tokens, KV_BLOCK_TOKENS);
        KvBlock id = prefix_lookup(pool, hash);
        if (id == KV_NONE) break;
        const Block *block = &pool->blocks[id];
        bool continues = found ? prefix_parent(pool, block) == out[found - 1]
                               : block->parent == KV_NONE && kv_hash_same(block->before, root);
        if (!continues || !same_tokens(block, tokens)) break;
        kv_block_ref(pool, id);
        out[found] = id;
        before = hash;
    }
    pool->total.prefix_queries += count;
    pool->total.prefix_hits += found * KV_BLOCK_TOKENS;
    return found;
}

void kv_prefix_add(KvPool *pool, KvBlock id, KvHash before, KvHash hash,
                   const int32_t tokens[KV_BLOCK_TOKENS]) {
    assert(id < pool->capacity);
    Block *block = &pool->blocks[id];
    assert(block->refs || block->leases);
    if (block->indexed) return;
    KvBlock parent = prefix_lookup(pool, before), other = prefix_lookup(pool, hash);
    if (other != KV_NONE) {
        const Block *there = &pool->blocks[other];
        bool collides = !kv_hash_same(there->before, before) || !same_tokens(there, tokens);
        if (!collides && prefix_parent(pool, there) == parent) return;
        prefix_drop(pool, other); /* nothing finds it any more: its parent has gone ... */
        block_settle(pool, other);
        if (collides) return;     /* ... or two prompts share a hash, and then neither is kept */
    }
    block->before = before;
    block->hash = hash;
    memcpy(block->tokens, tokens, sizeof block->tokens);
    block->parent = parent;
    block->parent_indexed = parent == KV_NONE ? 0 : pool->blocks[parent].indexed;
    block->indexed = ++pool->last_indexed;
    block->cached_children = 0;
    KvBlock *bucket = &pool->buckets[bucket_of(pool, hash)];
    block->bucket_next = *bucket;
    *bucket = id;
}

void kv_prefix_clear(KvPool *pool) {
    for (KvBlock id = 0; id < pool->capacity; id++) {
        if (!pool->blocks[id].indexed) continue;
        prefix_drop(pool, id);
        block_settle(pool, id);
    }
}
