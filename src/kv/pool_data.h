// SPDX-License-Identifier: Apache-2.0
/* pool_data.h - the inside of a pool, for the files that work on it: pool, prefix, lease, check. */
#ifndef BATON_KV_POOL_DATA_H
#define BATON_KV_POOL_DATA_H

#include "pool.h"

typedef enum BlockState {
    BLOCK_FREE,
    BLOCK_CACHED,
    BLOCK_HELD,
    BLOCK_LEASED,
    BLOCK_STATES
} BlockState;

typedef struct Block {
    BlockState state;         /* follows from refs, leases and indexed: block_settle() */
    uint32_t refs, leases;
    KvBlock older, newer;     /* neighbours in the list of free or of cached blocks */

    /* Of blocks in the prefix index. */
    uint64_t indexed;         /* 0: not in the index; otherwise a number of this stay in it */
    KvBlock bucket_next;
    KvBlock parent;           /* that held the tokens before; KV_NONE: there was none */
    uint64_t parent_indexed;  /* its `indexed` then: still the same while they are equal */
    uint32_t cached_children; /* blocks in state cached whose living parent this is */
    KvHash before, hash;
    int32_t tokens[KV_BLOCK_TOKENS];
} Block;

typedef struct BlockList {
    KvBlock oldest, newest;
    size_t count;
} BlockList;

typedef struct Lease {
    KvLease id;
    char *request;
    KvBlock *blocks;
    size_t block_count, tokens;
    int64_t since_us, deadline_us;
} Lease;

struct KvPool {
    KvShape shape;
    size_t block_bytes;
    uint32_t capacity;

    int fd;
    uint8_t *base;
    size_t mapped;
    _Atomic uint32_t *generations; /* in the memfd, behind the blocks */

    Block *blocks;
    size_t counts[BLOCK_STATES];
    BlockList free, cached;        /* free: last in, first out, so that few pages are touched */

    KvBlock *buckets;              /* of the index: chained, by hash.low */
    size_t bucket_count;           /* a power of two, >= capacity */
    uint64_t last_indexed;

    Lease *leases;                 /* in no order */
    size_t lease_count, lease_room;

    KvLedger total;                /* only its counters */
};

void block_settle(KvPool *pool, KvBlock id);    /* after refs, leases or indexed have changed */
void prefix_drop(KvPool *pool, KvBlock id);     /* out of the index; settle it then */
KvBlock prefix_parent(const KvPool *pool, const Block *block); /* KV_NONE: first, or it is gone */
KvBlock prefix_lookup(const KvPool *pool, KvHash hash);
void lease_forget_all(KvPool *pool);

#endif
