// SPDX-License-Identifier: Apache-2.0
/* prefix.h - which pod has probably computed the beginning of a prompt before.
 *
 *     prompt   | 64 bytes | 64 bytes | 64 bytes | the rest |      at most 128 blocks
 *     hashes        h1         h2         h3         h4           h0 = XXH64(model)
 *                                       h(i) = XXH64(h(i-1) in decimal digits, then the block)
 *
 * A hash stands for everything up to the end of its block, so the longest match is the last hash of
 * a prompt that a pod knows.  Several routers in front of the same pods compute the same hashes.
 *
 * Of each pod the last LIMIT_PREFIXES hashes are kept.  The long end of a prompt is entered before
 * its beginning, so that beginnings, which prompts share, stay longest. */
#ifndef BATON_ROUTE_PREFIX_H
#define BATON_ROUTE_PREFIX_H

#include "base/base.h"

#define PREFIX_BLOCK 64
#define PREFIX_BLOCKS 128
#define PREFIX_BYTES (PREFIX_BLOCK * PREFIX_BLOCKS) /* of a prompt, more are not looked at */

size_t route_prefix_chain(Str model, Str prompt, size_t block, size_t most, uint64_t *hashes);

typedef struct PrefixEntry {
    uint64_t hash;
    uint32_t newer, older; /* 0: none; places count from 1 */
    uint32_t next;         /* in the bucket */
} PrefixEntry;
typedef struct RoutePrefixes { /* {.limit = n} is empty */
    PrefixEntry *entries;  /* [room]; place p is entries[p - 1] */
    uint32_t *buckets;     /* [bucket_count], a power of two */
    uint32_t limit, count, room, bucket_count;
    uint32_t newest, oldest;
    uint64_t evicted;      /* because the limit was reached */
} RoutePrefixes;

size_t route_prefix_match(const RoutePrefixes *known, const uint64_t *hashes,
                          size_t count); /* blocks */
void route_prefix_add(RoutePrefixes *known, const uint64_t *hashes, size_t count);
void route_prefix_done(RoutePrefixes *known);

#endif
