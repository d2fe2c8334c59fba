// SPDX-License-Identifier: Apache-2.0
/* pool.h - every KV block of one engine, and the ledger that says where each one is.
 *
 * Invariants (kv_pool_check() proves them; at rest held == leased == 0)
 *   1. free + cached + held + leased == capacity: a block is exactly one of
 *        leased  at least one lease covers it: nobody writes it
 *        held    otherwise, at least one request holds a reference
 *        cached  otherwise, the prefix index knows it: may be evicted, least recently used first
 *        free    otherwise
 *   2. a block in the prefix index is full, sealed and never written again
 *   3. a lease names its request and its deadline; closing it twice is harmless
 *   4. a cached block is evicted after every cached block that continues it: the end of a prompt
 *      goes before its beginning, whatever the order in which they were given back
 *
 * One memfd holds the blocks, and behind them a table with a count per block: its generation, which
 * changes whenever the block is taken anew.  Who reads a block from outside compares it before and
 * after.
 * Thread: the engine worker only.  The memory of leased blocks is read by the agent's thread and by
 * peers. */
#ifndef BATON_KV_POOL_H
#define BATON_KV_POOL_H

#include "chain.h"

typedef uint32_t KvBlock;
#define KV_NONE UINT32_MAX

typedef struct KvPool KvPool;
KvPool *kv_pool_new(const KvShape *shape, size_t bytes,
                    Err *err) MUST_CHECK; /* as many whole blocks as fit; touched when first used */
void kv_pool_free(KvPool *pool);

/* These never change: any thread. */
const KvShape *kv_pool_shape(const KvPool *pool);
uint32_t kv_pool_capacity(const KvPool *pool);
int kv_pool_fd(const KvPool *pool); /* the memfd, borrowed; sealed against shrinking */
uint8_t *kv_pool_base(const KvPool *pool);
size_t kv_pool_generations_at(const KvPool *pool); /* offset of the table: capacity x uint32 */

/* Also any thread, for a block that is leased. */
uint32_t kv_block_generation(const KvPool *pool, KvBlock block);

KvBlock kv_block_take(KvPool *pool); /* one reference; evicts a cached block; KV_NONE: none left */
void kv_block_ref(KvPool *pool, KvBlock block);
void kv_block_unref(KvPool *pool, KvBlock block);
uint8_t *kv_block_data(const KvPool *pool, KvBlock block); /* borrowed: valid while you hold it */
size_t kv_pool_takable(const KvPool *pool);        /* free + cached: how many takes would succeed */

/* Prefix index.  A hit compares the block's tokens, and that it continues the very block found
 * before it: a collision of hashes cannot mix up two prompts. */
size_t kv_prefix_find(KvPool *pool, KvHash root, const int32_t *tokens, size_t count,
                      KvBlock *out); /* full blocks, each with a reference */
void kv_prefix_add(
    KvPool *pool, KvBlock block, KvHash before, KvHash hash,
    const int32_t tokens[KV_BLOCK_TOKENS]); /* a second block of the same hash stays out */
void kv_prefix_clear(KvPool *pool);

/* Leases: blocks kept for a peer that has been promised them.  A lease that was given to an agent
 * is closed when the agent says that its offer has ended, not before: a write may be under way. */
typedef uint64_t KvLease; /* random, never 0, not guessable */
typedef struct KvLeaseInfo {
    KvLease id;
    const char *request;
    const KvBlock *blocks;
    size_t block_count, tokens;
    int64_t since_us, deadline_us; /* monotonic */
} KvLeaseInfo;
KvLease kv_lease_open(KvPool *pool, const char *request, const KvBlock *blocks, size_t count,
                      size_t tokens,
                      int64_t deadline_us); /* the blocks may be held, cached, leased */
void kv_lease_renew(KvPool *pool, KvLease lease, int64_t deadline_us);
bool kv_lease_close(KvPool *pool, KvLease lease); /* false: there is none (any more) */
size_t kv_lease_count(const KvPool *pool);
bool kv_lease_at(const KvPool *pool, size_t index, KvLeaseInfo *out); /* to list them */
size_t kv_lease_expire(KvPool *pool, int64_t now_us,
                       void (*expired)(const KvLeaseInfo *lease, void *user), void *user);

typedef struct KvLedger {
    size_t capacity, free, cached, held, leased;
    uint64_t evictions, prefix_queries, prefix_hits; /* tokens for the last two */
    uint64_t leases_opened, leases_released, leases_expired;
} KvLedger;
void kv_ledger(const KvPool *pool, KvLedger *out);
bool kv_pool_check(const KvPool *pool,
                   Err *err) MUST_CHECK; /* ERR_INTERNAL names the block and both truths */

#endif
