// SPDX-License-Identifier: Apache-2.0
#include "pool_data.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE ((size_t)4096)
#define MIB_OF(bytes) ((double)(bytes) / 1048576)

static bool list_empty(const BlockList *list) { return list->count == 0; }

static void list_remove(KvPool *pool, BlockList *list, KvBlock id) {
    Block *block = &pool->blocks[id];
    if (block->older != KV_NONE) pool->blocks[block->older].newer = block->newer;
    else list->oldest = block->newer;
    if (block->newer != KV_NONE) pool->blocks[block->newer].older = block->older;
    else list->newest = block->older;
    block->older = block->newer = KV_NONE;
    list->count--;
}

/* Just older than `newer`; KV_NONE: as the newest of all. */
static void list_insert(KvPool *pool, BlockList *list, KvBlock id, KvBlock newer) {
    Block *block = &pool->blocks[id];
    block->newer = newer;
    block->older = newer == KV_NONE ? list->newest : pool->blocks[newer].older;
    if (block->older != KV_NONE) pool->blocks[block->older].newer = id;
    else list->oldest = id;
    if (newer != KV_NONE) pool->blocks[newer].older = id;
    else list->newest = id;
    list->count++;
}

static BlockState state_of(const Block *block) {
    return block->leases    ? BLOCK_LEASED
           : block->refs    ? BLOCK_HELD
           : block->indexed ? BLOCK_CACHED
                            : BLOCK_FREE;
}

/* Keeps invariant 4: a cached block is older than its parent.  A request gives back its blocks from
 * first to last or the other way round; in both cases this takes one step.  Only a block that has
 * cached children while its own parent was idle (a request that held a second copy of the parent)
 * must be put last, and then its idle ancestors behind it. */
static void cache_place(KvPool *pool, KvBlock id) {
    Block *block = &pool->blocks[id];
    KvBlock parent = prefix_parent(pool, block);
    bool parent_idle = parent != KV_NONE && pool->blocks[parent].state == BLOCK_CACHED;
    if (parent != KV_NONE) pool->blocks[parent].cached_children++;
    if (parent_idle && !block->cached_children) {
        list_insert(pool, &pool->cached, id, parent);
        return;
    }
    list_insert(pool, &pool->cached, id, KV_NONE);
    while (parent != KV_NONE && pool->blocks[parent].state == BLOCK_CACHED) {
        list_remove(pool, &pool->cached, parent);
        list_insert(pool, &pool->cached, parent, KV_NONE);
        parent = prefix_parent(pool, &pool->blocks[parent]);
    }
}

static void cache_leave(KvPool *pool, KvBlock id) {
    list_remove(pool, &pool->cached, id);
    KvBlock parent = prefix_parent(pool, &pool->blocks[id]);
    if (parent != KV_NONE) pool->blocks[parent].cached_children--;
}

void block_settle(KvPool *pool, KvBlock id) {
    Block *block = &pool->blocks[id];
    BlockState before = block->state, now = state_of(block);
    if (before == now) return;
    if (before == BLOCK_FREE) list_remove(pool, &pool->free, id);
    if (before == BLOCK_CACHED) cache_leave(pool, id);
    pool->counts[before]--;
    pool->counts[now]++;
    block->state = now;
    if (now == BLOCK_FREE) list_insert(pool, &pool->free, id, KV_NONE);
    if (now == BLOCK_CACHED) cache_place(pool, id);
}

/* The memfd: blocks, then their generations.  Sealed, so that a peer that maps it never meets the
 * end of a file that has shrunk, and so that nobody can map it for writing but us, who have. */
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL)
#ifndef F_SEAL_FUTURE_WRITE /* Linux 5.1; glibc names it in <linux/fcntl.h> only */
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

static bool pool_map(KvPool *pool, Err *err) {
    size_t blocks = pool->capacity * pool->block_bytes, table = pool->capacity * sizeof(uint32_t);
    pool->mapped = (blocks + table + PAGE - 1) & ~(PAGE - 1);
    pool->fd = fault_hit("kv.memfd") ? -1
                                     : memfd_create("baton-kv", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (pool->fd < 0)
        return err_set(err, ERR_IO, "could not make a memfd for the KV cache: %s", strerror(errno));
    if (fault_hit("kv.memfd_size") || ftruncate(pool->fd, (off_t)pool->mapped) < 0)
        return err_set(err, ERR_IO, "could not make a KV cache of %.1f MiB: %s",
                       MIB_OF(pool->mapped), strerror(errno));
    void *base = fault_hit("kv.map") ? MAP_FAILED
                                     : mmap(NULL, pool->mapped, PROT_READ | PROT_WRITE, MAP_SHARED,
                                            pool->fd, 0);
    if (base == MAP_FAILED)
        return err_set(err, ERR_EXHAUSTED, "could not map the KV cache (%.1f MiB): %s",
                       MIB_OF(pool->mapped), strerror(errno));
    pool->base = base;
    if (fault_hit("kv.memfd_seal") || fcntl(pool->fd, F_ADD_SEALS, SEALS) < 0)
        return err_set(err, ERR_IO, "could not seal the KV cache: %s", strerror(errno));
    pool->generations = (_Atomic uint32_t *)(pool->base + blocks);
    return true;
}

static bool pool_tables(KvPool *pool, Err *err) {
    for (pool->bucket_count = 16; pool->bucket_count < pool->capacity;) pool->bucket_count *= 2;
    pool->blocks = mem_try(pool->capacity, sizeof *pool->blocks, "the ledger of KV blocks", err);
    if (!pool->blocks) return false;
    pool->buckets = mem_try(pool->bucket_count, sizeof *pool->buckets, "the prefix index", err);
    if (!pool->buckets) return false;
    memset(pool->buckets, 0xff, pool->bucket_count * sizeof *pool->buckets); /* KV_NONE */
    for (KvBlock id = pool->capacity; id-- > 0;) { /* block 0 goes first */
        pool->blocks[id] = (Block){
            .older = KV_NONE, .newer = KV_NONE, .bucket_next = KV_NONE, .parent = KV_NONE};
        list_insert(pool, &pool->free, id, KV_NONE);
    }
    pool->counts[BLOCK_FREE] = pool->capacity;
    return true;
}

KvPool *kv_pool_new(const KvShape *shape, size_t bytes, Err *err) {
    size_t block_bytes = kv_block_bytes(shape), capacity = block_bytes ? bytes / block_bytes : 0;
    if (!block_bytes) {
        err_set(
            err, ERR_INVALID,
            "a KV block of %u layers, %u heads and %u dimensions cannot be made: 1 to %zu bytes",
            shape->layers, shape->kv_heads, shape->head_dim, LIMIT_KV_BLOCK);
        return NULL;
    }
    if (capacity == 0) {
        err_set(err, ERR_INVALID, "a KV cache of %zu bytes holds no block: one has %zu bytes",
                bytes, block_bytes);
        err_hint(err, "Raise --kv-cache-memory-bytes.");
        return NULL;
    }
    if (bytes > mem_available() || capacity >= INT32_MAX) {
        err_set(err, ERR_EXHAUSTED,
                "could not get %.1f MiB of memory for the KV cache: %.1f MiB are available",
                MIB_OF(bytes), MIB_OF(mem_available()));
        err_hint(err, "Lower --kv-cache-memory-bytes.");
        return NULL;
    }
    KvPool *pool = mem_new(sizeof *pool);
    *pool = (KvPool){.shape = *shape,
                     .block_bytes = block_bytes,
                     .capacity = (uint32_t)capacity,
                     .fd = -1,
                     .free = {KV_NONE, KV_NONE, 0},
                     .cached = {KV_NONE, KV_NONE, 0}};
    if (!pool_map(pool, err) || !pool_tables(pool, err)) {
        err_hint(err, "Lower --kv-cache-memory-bytes.");
        kv_pool_free(pool);
        return NULL;
    }
    return pool;
}

void kv_pool_free(KvPool *pool) {
    if (!pool) return;
    lease_forget_all(pool);
    mem_give(pool->buckets, pool->bucket_count, sizeof *pool->buckets);
    mem_give(pool->blocks, pool->capacity, sizeof *pool->blocks);
    if (pool->base) munmap(pool->base, pool->mapped);
    if (pool->fd >= 0) close(pool->fd);
    free(pool);
}

const KvShape *kv_pool_shape(const KvPool *pool) { return &pool->shape; }
uint32_t kv_pool_capacity(const KvPool *pool) { return pool->capacity; }
int kv_pool_fd(const KvPool *pool) { return pool->fd; }
uint8_t *kv_pool_base(const KvPool *pool) { return pool->base; }
size_t kv_pool_generations_at(const KvPool *pool) { return pool->capacity * pool->block_bytes; }
size_t kv_pool_takable(const KvPool *pool) {
    return pool->counts[BLOCK_FREE] + pool->counts[BLOCK_CACHED];
}

uint32_t kv_block_generation(const KvPool *pool, KvBlock id) {
    assert(id < pool->capacity);
    return atomic_load_explicit(&pool->generations[id], memory_order_acquire);
}

KvBlock kv_block_take(KvPool *pool) {
    bool evict = list_empty(&pool->free);
    KvBlock id = evict ? pool->cached.oldest : pool->free.newest;
    if (id == KV_NONE) return KV_NONE;
    if (evict) {
        prefix_drop(pool, id);
        pool->total.evictions++;
    }
    Block *block = &pool->blocks[id];
    block->refs = 1;
    block_settle(pool, id);
    /* Other processes see the new generation before anything that is written now: x86-64 keeps the
     * order of stores, so the compiler alone must be told. */
    atomic_fetch_add_explicit(&pool->generations[id], 1, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
    return id;
}

void kv_block_ref(KvPool *pool, KvBlock id) {
    assert(id < pool->capacity && pool->blocks[id].state != BLOCK_FREE);
    pool->blocks[id].refs++;
    block_settle(pool, id);
}

void kv_block_unref(KvPool *pool, KvBlock id) {
    assert(id < pool->capacity && pool->blocks[id].refs > 0);
    pool->blocks[id].refs--;
    block_settle(pool, id);
}

uint8_t *kv_block_data(const KvPool *pool, KvBlock id) {
    assert(id < pool->capacity);
    return pool->base + (size_t)id * pool->block_bytes;
}

void kv_ledger(const KvPool *pool, KvLedger *out) {
    *out = pool->total;
    out->capacity = pool->capacity;
    out->free = pool->counts[BLOCK_FREE];
    out->cached = pool->counts[BLOCK_CACHED];
    out->held = pool->counts[BLOCK_HELD];
    out->leased = pool->counts[BLOCK_LEASED];
}
