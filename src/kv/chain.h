// SPDX-License-Identifier: Apache-2.0
/* chain.h - what a block of KV proves to be: a hash over model, salt and every token up to its end.
 *
 * h_0 = H(fingerprint, salt); h_i = H(h_{i-1}, count, tokens of block i).  H is XXH3-128.  The last
 * block of a prompt may hold fewer than 16 tokens; the count is hashed, so a part never passes for
 * a whole.  Every byte that is hashed is written down in doc/kv-wire-format.md.
 *
 * H finds mistakes, not forgers: who can choose tokens freely may find two prompts of one hash. The
 * prefix index therefore compares tokens too, and tenants are kept apart by their salt.
 * Thread: any. */
#ifndef BATON_KV_CHAIN_H
#define BATON_KV_CHAIN_H

#include "base/base.h"

#define KV_BLOCK_TOKENS 16

typedef struct KvShape { /* two engines with equal shapes hold interchangeable blocks */
    uint32_t layers, kv_heads, head_dim;
    uint64_t fingerprint; /* of the weights and all that changes their result */
} KvShape;

typedef struct KvHash { uint64_t low, high; } KvHash;

size_t kv_block_bytes(const KvShape *shape); /* 0: over LIMIT_KV_BLOCK, or a field is 0 */
size_t kv_blocks_for(size_t tokens);         /* rounded up */
bool kv_shape_same(const KvShape *a, const KvShape *b);
KvHash kv_chain_root(const KvShape *shape, Str salt);
KvHash kv_chain_next(KvHash before, const int32_t *tokens, size_t count); /* 1..16 tokens */
bool kv_hash_same(KvHash a, KvHash b);
uint64_t kv_block_checksum(const uint8_t *block, size_t bytes); /* XXH3-64 of the bytes */

#endif
