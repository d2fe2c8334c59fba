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
 * Thread: the engine worker only.  The memory of leased blocks is read by the agent's thread and by
 * peers. */
#ifndef BATON_KV_POOL_H
#define BATON_KV_POOL_H

#include "kv.h"

typedef uint32_t KvBlock;
#define KV_NONE UINT32_MAX

typedef struct KvPool KvPool;
KvPool *kv_pool_new(const KvShape *shape, size_t bytes,
                    Err *err) MUST_CHECK; /* as many whole blocks as fit */
void kv_pool_free(KvPool *pool);
const KvShape *kv_pool_shape(const KvPool *pool);
int kv_pool_fd(const KvPool *pool); /* the memfd, borrowed; sealed against shrinking */
uint8_t *kv_pool_base(const KvPool *pool);

KvBlock kv_block_take(KvPool *pool); /* one reference; evicts a cached block; KV_NONE: none left */
void kv_block_ref(KvPool *pool, KvBlock block);
void kv_block_unref(KvPool *pool, KvBlock block);
uint8_t *kv_block_data(const KvPool *pool, KvBlock block); /* borrowed: valid while you hold it */
size_t kv_pool_takable(const KvPool *pool);        /* free + cached: how many takes would succeed */

/* Prefix index.  Tokens are compared, not only hashes: a collision cannot mix up two prompts. */
size_t kv_prefix_find(KvPool *pool, KvHash root, const int32_t *tokens, size_t count,
                      KvBlock *out); /* full blocks, each with a reference */
void kv_prefix_add(
    KvPool *pool, KvBlock block, KvHash before, KvHash hash,
    const int32_t tokens[KV_BLOCK_TOKENS]); /* a second block of the same hash stays out */
void kv_prefix_clear(KvPool *pool);

/* Leases: blocks kept for a peer that has been promised them. */
typedef uint64_t KvLease; /* random, never 0, not guessable */
typedef struct KvLeaseInfo {
    KvLease id;
    const char *request;
    const KvBlock *blocks;
    size_t block_count, tokens;
    int64_t since_us, deadline_us; /* monotonic */
} KvLeaseInfo;
KvLease kv_lease_open(KvPool *pool, const char *request, const KvBlock *blocks, size_t count,
                      size_t tokens, int64_t deadline_us);
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
