// SPDX-License-Identifier: Apache-2.0
/* lease.c - leases: an array in no order.  An engine has tens to hundreds at a time; to walk them
 * costs less than to keep an index. */
#include "pool_data.h"

#include <stdlib.h>

static Lease *lease_find(const KvPool *pool, KvLease id) {
    for (size_t i = 0; i < pool->lease_count; i++)
        if (pool->leases[i].id == id) return &pool->leases[i];
    return NULL;
}

static void lease_done(Lease *lease) {
    free(lease->request);
    free(lease->blocks);
}

/* Out of the table, and its blocks to what they are without it.  The caller ends what it gets. */
static Lease lease_take(KvPool *pool, Lease *at) {
    Lease lease = *at;
    *at = pool->leases[--pool->lease_count];
    for (size_t i = 0; i < lease.block_count; i++) {
        assert(pool->blocks[lease.blocks[i]].leases > 0);
        pool->blocks[lease.blocks[i]].leases--;
        block_settle(pool, lease.blocks[i]);
    }
    return lease;
}

static KvLeaseInfo lease_info(const Lease *lease) {
    return (KvLeaseInfo){.id = lease->id,
                         .request = lease->request,
                         .blocks = lease->blocks,
                         .block_count = lease->block_count,
                         .tokens = lease->tokens,
                         .since_us = lease->since_us,
                         .deadline_us = lease->deadline_us};
}

KvLease kv_lease_open(KvPool *pool, const char *request, const KvBlock *blocks, size_t count,
                      size_t tokens, int64_t deadline_us) {
    assert(count > 0 && count == kv_blocks_for(tokens));
    Lease lease = {.request = mem_dup_str(request),
                   .blocks = mem_new(count * sizeof *blocks),
                   .block_count = count,
                   .tokens = tokens,
                   .since_us = clock_mono_us(),
                   .deadline_us = deadline_us};
    memcpy(lease.blocks, blocks, count * sizeof *blocks);
    while (lease.id == 0 || lease_find(pool, lease.id)) random_bytes(&lease.id, sizeof lease.id);
    for (size_t i = 0; i < count; i++) {
        assert(blocks[i] < pool->capacity && pool->blocks[blocks[i]].state != BLOCK_FREE);
        pool->blocks[blocks[i]].leases++;
        block_settle(pool, blocks[i]);
    }
    mem_reserve(pool->leases, pool->lease_room, pool->lease_count + 1);
    pool->leases[pool->lease_count++] = lease;
    pool->total.leases_opened++;
    return lease.id;
}

void kv_lease_renew(KvPool *pool, KvLease id, int64_t deadline_us) {
    Lease *lease = lease_find(pool, id);
    if (lease) lease->deadline_us = deadline_us;
}

bool kv_lease_close(KvPool *pool, KvLease id) {
    Lease *at = lease_find(pool, id);
    if (!at) return false;
    Lease lease = lease_take(pool, at);
    lease_done(&lease);
    pool->total.leases_released++;
    return true;
}

size_t kv_lease_count(const KvPool *pool) { return pool->lease_count; }

bool kv_lease_at(const KvPool *pool, size_t index, KvLeaseInfo *out) {
    if (index >= pool->lease_count) return false;
    *out = lease_info(&pool->leases[index]);
    return true;
}

size_t kv_lease_expire(KvPool *pool, int64_t now_us,
                       void (*expired)(const KvLeaseInfo *lease, void *user), void *user) {
    size_t count = 0;
    for (size_t i = 0; i < pool->lease_count;) {
        if (pool->leases[i].deadline_us > now_us) {
            i++;
            continue;
        }
        Lease lease = lease_take(pool, &pool->leases[i]); /* another one lies at i now */
        pool->total.leases_expired++;
        count++;
        KvLeaseInfo info = lease_info(&lease);
        if (expired) expired(&info, user);
        lease_done(&lease);
    }
    return count;
}

void lease_forget_all(KvPool *pool) {
    for (size_t i = 0; i < pool->lease_count; i++) lease_done(&pool->leases[i]);
    free(pool->leases);
}
