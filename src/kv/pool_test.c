// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "pool_data.h"
#include <cmocka.h>

static const KvShape tiny = {.layers = 1, .kv_heads = 1, .head_dim = 1, .fingerprint = 7};
#define TINY_BYTES 64

static KvPool *pool_of(size_t blocks) {
    Err err = {0};
    KvPool *pool = kv_pool_new(&tiny, blocks * TINY_BYTES, &err);
    assert_non_null(pool);
    return pool;
}

static void assert_sound(const KvPool *pool) {
    Err err = {0};
    if (!kv_pool_check(pool, &err)) fail_msg("%s", err.message);
}

static void assert_ledger(const KvPool *pool, size_t free, size_t cached, size_t held,
                          size_t leased) {
    KvLedger ledger;
    kv_ledger(pool, &ledger);
    assert_int_equal(ledger.free, free);
    assert_int_equal(ledger.cached, cached);
    assert_int_equal(ledger.held, held);
    assert_int_equal(ledger.leased, leased);
    assert_int_equal(kv_pool_takable(pool), free + cached);
    assert_sound(pool);
}

/* A request's life in small: blocks found, the rest taken and added to the index. */
static size_t request_start(KvPool *pool, const int32_t *tokens, size_t count, KvBlock *blocks) {
    KvHash root = kv_chain_root(&tiny, STR("")), before = root;
    size_t found = kv_prefix_find(pool, root, tokens, count, blocks), need = kv_blocks_for(count);
    for (size_t i = 0; i < need; i++) {
        if (i >= found && (blocks[i] = kv_block_take(pool)) == KV_NONE) {
            while (i-- > 0) kv_block_unref(pool, blocks[i]);
            return SIZE_MAX;
        }
    }
    for (size_t i = 0; (i + 1) * KV_BLOCK_TOKENS <= count; i++) {
        const int32_t *at = tokens + i * KV_BLOCK_TOKENS;
        KvHash hash = kv_chain_next(before, at, KV_BLOCK_TOKENS);
        if (i >= found) kv_prefix_add(pool, blocks[i], before, hash, at);
        before = hash;
    }
    return found;
}

static void fill(int32_t *tokens, size_t from_block, size_t blocks, int32_t value) {
    for (size_t i = 0; i < blocks * KV_BLOCK_TOKENS; i++)
        tokens[from_block * KV_BLOCK_TOKENS + i] = value;
}

static void a_pool_holds_as_many_whole_blocks_as_fit(void **state) {
    (void)state;
    Err err = {0};
    KvPool *pool = kv_pool_new(&tiny, 10 * TINY_BYTES + 63, &err);
    assert_non_null(pool);
    assert_int_equal(kv_pool_capacity(pool), 10);
    assert_int_equal(kv_pool_generations_at(pool), 640);
    assert_ledger(pool, 10, 0, 0, 0);
    for (KvBlock i = 0; i < 10; i++) {
        assert_int_equal(kv_block_take(pool), i);
        assert_ptr_equal(kv_block_data(pool, i), kv_pool_base(pool) + i * TINY_BYTES);
    }
    assert_int_equal(kv_block_take(pool), KV_NONE);
    assert_ledger(pool, 0, 0, 10, 0);
    kv_pool_free(pool);
}

static void a_pool_that_cannot_be_had_says_what_to_change(void **state) {
    (void)state;
    static const KvShape none = {0}, huge = {UINT32_MAX, UINT32_MAX, UINT32_MAX, 0};
    static const struct {
        const KvShape *shape;
        size_t bytes;
        ErrCode code;
        const char *message, *hint;
    } cases[] = {
        {&tiny, 63, ERR_INVALID, "a KV cache of 63 bytes holds no block: one has 64 bytes",
         "Raise --kv-cache-memory-bytes."},
        {&tiny, SIZE_MAX / 4, ERR_EXHAUSTED, "MiB of memory for the KV cache",
         "Lower --kv-cache-memory-bytes."},
        {&none, 1 << 20, ERR_INVALID, "a KV block of 0 layers, 0 heads and 0 dimensions", ""},
        {&huge, 1 << 20, ERR_INVALID, "cannot be made", ""},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        Err err = {0};
        assert_null(kv_pool_new(cases[i].shape, cases[i].bytes, &err));
        assert_int_equal(err.code, cases[i].code);
        assert_non_null(strstr(err.message, cases[i].message));
        assert_string_equal(err.hint, cases[i].hint);
    }
}

static void every_failed_call_of_a_new_pool_is_an_error_and_leaks_nothing(void **state) {
    (void)state;
    static const char *const points[] = {"kv.memfd", "kv.memfd_size", "kv.map", "kv.memfd_seal",
                                         "mem.try"};
    size_t failures = 0;
    for (size_t p = 0; p < COUNT_OF(points); p++)
        for (unsigned n = 1;; n++) {
            Err err = {0};
            fault_arm(points[p], n, false);
            KvPool *pool = kv_pool_new(&tiny, 100 * TINY_BYTES, &err);
            fault_disarm_all();
            kv_pool_free(pool);
            if (pool) break;
            failures++;
            assert_int_not_equal(err.code, ERR_NONE);
            assert_string_equal(err.hint, "Lower --kv-cache-memory-bytes.");
        }
    assert_int_equal(failures, 6);
}

static void a_peer_maps_the_same_bytes_and_can_neither_change_nor_cut_them(void **state) {
    (void)state;
    KvPool *pool = pool_of(100);
    KvBlock block = kv_block_take(pool);
    memset(kv_block_data(pool, block), 0xab, TINY_BYTES);
    const uint8_t *peer = mmap(NULL, 4096, PROT_READ, MAP_SHARED, kv_pool_fd(pool), 0);
    assert_ptr_not_equal(peer, MAP_FAILED);
    assert_int_equal(peer[block * TINY_BYTES + 63], 0xab);
    assert_int_equal(ftruncate(kv_pool_fd(pool), 0), -1);
    assert_int_equal(pwrite(kv_pool_fd(pool), "x", 1, 0), -1);
    void *writable = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, kv_pool_fd(pool), 0);
    assert_ptr_equal(writable, MAP_FAILED);
    memset(kv_block_data(pool, block), 0xcd, TINY_BYTES); /* the owner still writes */
    assert_int_equal(peer[block * TINY_BYTES + 63], 0xcd);
    munmap((void *)peer, 4096);
    kv_pool_free(pool);
}

static void a_block_gets_another_generation_whenever_it_is_taken(void **state) {
    (void)state;
    KvPool *pool = pool_of(1);
    KvBlock block = kv_block_take(pool);
    uint32_t first = kv_block_generation(pool, block);
    kv_block_ref(pool, block);
    kv_block_unref(pool, block);
    assert_int_equal(kv_block_generation(pool, block), first);
    kv_block_unref(pool, block);
    kv_block_take(pool);
    assert_int_equal(kv_block_generation(pool, block), first + 1);
    uint32_t in_memfd;
    memcpy(&in_memfd, kv_pool_base(pool) + kv_pool_generations_at(pool), sizeof in_memfd);
    assert_int_equal(in_memfd, first + 1);
    kv_pool_free(pool);
}

static void a_prefix_is_stored_once_and_found_up_to_its_last_full_block(void **state) {
    (void)state;
    KvPool *pool = pool_of(10);
    int32_t tokens[48];
    KvBlock a[3], b[3];
    fill(tokens, 0, 3, 1);
    assert_int_equal(request_start(pool, tokens, 40, a), 0);
    assert_int_equal(request_start(pool, tokens, 40, b), 2);
    assert_int_equal(b[0], a[0]);
    assert_int_equal(b[1], a[1]);
    assert_int_not_equal(b[2], a[2]);
    assert_ledger(pool, 6, 0, 4, 0);
    for (int i = 0; i < 3; i++) kv_block_unref(pool, a[i]);
    assert_ledger(pool, 7, 0, 3, 0);
    for (int i = 0; i < 3; i++) kv_block_unref(pool, b[i]);
    assert_ledger(pool, 8, 2, 0, 0); /* what was not full is not kept */
    KvLedger ledger;
    kv_ledger(pool, &ledger);
    assert_int_equal(ledger.prefix_queries, 80);
    assert_int_equal(ledger.prefix_hits, 32);
    kv_prefix_clear(pool);
    assert_ledger(pool, 10, 0, 0, 0);
    kv_pool_free(pool);
}

static void the_salt_keeps_tenants_apart(void **state) {
    (void)state;
    KvPool *pool = pool_of(4);
    int32_t tokens[16];
    KvBlock block;
    fill(tokens, 0, 1, 1);
    request_start(pool, tokens, 16, &block);
    assert_int_equal(
        kv_prefix_find(pool, kv_chain_root(&tiny, STR("other")), tokens, 16, &block), 0);
    kv_pool_free(pool);
}

/* Three prompts P = [s p], Q = [s q], R = [r]; then blocks are taken one by one. */
static void the_end_of_a_prompt_is_evicted_before_its_beginning(void **state) {
    (void)state;
    for (int order = 0; order < 2; order++) {
        KvPool *pool = pool_of(5);
        int32_t p[48], q[32], r[16];
        KvBlock pb[3], qb[2], rb[1];
        fill(p, 0, 3, 1);
        fill(p, 2, 1, 2);
        fill(q, 0, 1, 1);
        fill(q, 1, 1, 3);
        fill(r, 0, 1, 4);
        request_start(pool, p, 48, pb);
        assert_int_equal(request_start(pool, q, 32, qb), 1);
        request_start(pool, r, 16, rb);
        for (int i = 0; i < 3; i++) kv_block_unref(pool, pb[order ? 2 - i : i]);
        kv_block_unref(pool, rb[0]);
        for (int i = 0; i < 2; i++) kv_block_unref(pool, qb[order ? 1 - i : i]);
        assert_ledger(pool, 0, 5, 0, 0);
        const KvBlock want[] = {pb[2], pb[1], rb[0], qb[1], pb[0]};
        for (int i = 0; i < 5; i++) {
            assert_int_equal(kv_block_take(pool), want[i]);
            assert_sound(pool);
        }
        assert_int_equal(kv_block_take(pool), KV_NONE);
        kv_pool_free(pool);
    }
}

static void a_second_copy_of_a_parent_does_not_turn_the_order_round(void **state) {
    (void)state;
    KvPool *pool = pool_of(6);
    int32_t t[48];
    KvBlock first[3], own[2];
    fill(t, 0, 3, 1);
    KvHash root = kv_chain_root(&tiny, STR("")), h1 = kv_chain_next(root, t, 16),
           h2 = kv_chain_next(h1, t, 16), h3 = kv_chain_next(h2, t, 16);
    own[0] = kv_block_take(pool); /* computed by two requests at once: the first one stays */
    own[1] = kv_block_take(pool);
    first[0] = kv_block_take(pool);
    kv_prefix_add(pool, first[0], root, h1, t);
    kv_prefix_add(pool, own[0], root, h1, t);
    kv_prefix_add(pool, own[1], h1, h2, t);
    first[2] = kv_block_take(pool);
    kv_prefix_add(pool, first[2], h2, h3, t);
    kv_block_unref(pool, first[0]); /* idle while its child is held ... */
    kv_block_unref(pool, first[2]); /* ... and its grandchild is newer than it */
    assert_sound(pool);
    kv_block_unref(pool, own[1]);
    kv_block_unref(pool, own[0]);
    assert_ledger(pool, 3, 3, 0, 0);
    for (int i = 0; i < 3; i++) kv_block_take(pool);
    assert_int_equal(kv_block_take(pool), first[2]);
    assert_int_equal(kv_block_take(pool), own[1]);
    assert_int_equal(kv_block_take(pool), first[0]);
    kv_pool_free(pool);
}

static void two_prompts_of_one_hash_are_never_mixed_up(void **state) {
    (void)state;
    KvPool *pool = pool_of(4);
    int32_t a[32], b[32];
    fill(a, 0, 2, 1);
    fill(b, 0, 2, 2);
    KvHash root = kv_chain_root(&tiny, STR("")), h = kv_chain_next(root, a, 16);
    KvBlock x = kv_block_take(pool), y = kv_block_take(pool), out[2];
    kv_prefix_add(pool, x, root, h, a);
    kv_prefix_add(pool, y, root, h, b); /* "the same hash", but other tokens */
    assert_int_equal(kv_prefix_find(pool, root, a, 16, out), 0);
    assert_int_equal(kv_prefix_find(pool, root, b, 16, out), 0);
    kv_block_unref(pool, x);
    kv_block_unref(pool, y);
    assert_ledger(pool, 4, 0, 0, 0);
    kv_pool_free(pool);
}

static void a_child_whose_parent_was_evicted_is_replaced_not_found(void **state) {
    (void)state;
    KvPool *pool = pool_of(3);
    int32_t t[32];
    KvBlock old[2], fresh[2], out[2];
    fill(t, 0, 2, 1);
    request_start(pool, t, 32, old);
    kv_block_unref(pool, old[0]); /* only the child is still held */
    KvBlock other = kv_block_take(pool);
    assert_int_equal(kv_block_take(pool), old[0]);
    KvHash root = kv_chain_root(&tiny, STR(""));
    assert_int_equal(kv_prefix_find(pool, root, t, 32, out), 0);
    kv_block_unref(pool, other);
    kv_block_unref(pool, old[0]);
    KvHash h1 = kv_chain_next(root, t, 16), h2 = kv_chain_next(h1, t, 16);
    for (int i = 0; i < 2; i++) fresh[i] = kv_block_take(pool);
    kv_prefix_add(pool, fresh[0], root, h1, t);
    assert_int_equal(kv_prefix_find(pool, root, t, 32, out), 1); /* no proof that old[1] fits */
    kv_block_unref(pool, out[0]);
    kv_prefix_add(pool, fresh[1], h1, h2, t);
    assert_int_equal(kv_prefix_find(pool, root, t, 32, out), 2);
    assert_int_equal(out[1], fresh[1]);
    for (int i = 0; i < 2; i++) {
        kv_block_unref(pool, out[i]);
        kv_block_unref(pool, fresh[i]);
    }
    kv_block_unref(pool, old[1]);
    assert_ledger(pool, 1, 2, 0, 0);
    kv_pool_free(pool);
}

static void leases_keep_blocks_whoever_else_lets_go(void **state) {
    (void)state;
    KvPool *pool = pool_of(4);
    int32_t t[32];
    KvBlock blocks[2];
    fill(t, 0, 2, 1);
    request_start(pool, t, 20, blocks);
    KvLease a = kv_lease_open(pool, "req-a", blocks, 2, 20, 1000),
            b = kv_lease_open(pool, "req-b", blocks, 1, 16, 2000);
    assert_true(a && b && a != b);
    for (int i = 0; i < 2; i++) kv_block_unref(pool, blocks[i]);
    assert_ledger(pool, 2, 0, 0, 2);
    kv_block_take(pool);
    kv_block_take(pool);
    assert_int_equal(kv_block_take(pool), KV_NONE);
    KvLeaseInfo info;
    assert_true(kv_lease_at(pool, 0, &info));
    assert_string_equal(info.request, "req-a");
    assert_int_equal(info.block_count, 2);
    assert_int_equal(info.tokens, 20);
    assert_int_equal(info.deadline_us, 1000);
    assert_true(kv_lease_close(pool, a));
    assert_false(kv_lease_close(pool, a)); /* twice is harmless */
    assert_false(kv_lease_close(pool, 0));
    assert_ledger(pool, 1, 0, 2, 1); /* block 0 is still promised to b */
    assert_true(kv_lease_close(pool, b));
    assert_ledger(pool, 1, 1, 2, 0);
    assert_int_equal(kv_lease_count(pool), 0);
    assert_false(kv_lease_at(pool, 0, &info));
    kv_pool_free(pool);
}

typedef struct Expired {
    KvPool *pool;
    char requests[64];
} Expired;

static void on_expired(const KvLeaseInfo *lease, void *user) {
    Expired *expired = user;
    strncat(expired->requests, lease->request, 8);
    assert_false(kv_lease_close(expired->pool, lease->id)); /* it is closed already */
    assert_sound(expired->pool);
}

static void leases_expire_at_their_deadline_unless_renewed(void **state) {
    (void)state;
    KvPool *pool = pool_of(4);
    KvBlock block = kv_block_take(pool);
    kv_lease_open(pool, "a", &block, 1, 1, 100);
    KvLease b = kv_lease_open(pool, "b", &block, 1, 1, 100);
    kv_lease_open(pool, "c", &block, 1, 1, 100);
    kv_lease_open(pool, "d", &block, 1, 1, 101);
    kv_lease_renew(pool, b, 200);
    kv_lease_renew(pool, 12345, 200); /* of no lease: nothing happens */
    kv_block_unref(pool, block);
    Expired expired = {.pool = pool};
    assert_int_equal(kv_lease_expire(pool, 99, on_expired, &expired), 0);
    assert_int_equal(kv_lease_expire(pool, 100, on_expired, &expired), 2);
    assert_string_equal(expired.requests, "ac");
    assert_int_equal(kv_lease_expire(pool, 199, on_expired, &expired), 1);
    assert_int_equal(kv_lease_expire(pool, 200, NULL, NULL), 1);
    KvLedger ledger;
    kv_ledger(pool, &ledger);
    assert_int_equal(ledger.leases_opened, 4);
    assert_int_equal(ledger.leases_expired, 4);
    assert_ledger(pool, 4, 0, 0, 0);
    kv_pool_free(pool);
}

static void a_check_names_the_block_and_both_truths(void **state) {
    (void)state;
    static const struct { const char *part, *message; } cases[] = {
        {"refs", "KV block 2 is held, but 0 references, 0 leases and 0 places in the prefix index "
                 "make it free"},
        {"leases", "KV block 2: its leases is 1, counted again it is 0"},
        {"counts", "1 KV blocks are held, counted again 2"},
        {"list", "the list of free KV blocks has 1 blocks and ends at 3, counted again 2 and 3"},
        {"hash", "KV block 1: its chain is"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        KvPool *pool = pool_of(5);
        int32_t t[16];
        KvBlock b;
        Err err = {0};
        for (int k = 0; k < 3; k++) b = kv_block_take(pool);
        fill(t, 0, 1, 1);
        KvHash root = kv_chain_root(&tiny, STR(""));
        kv_prefix_add(pool, 1, root, kv_chain_next(root, t, 16), t);
        kv_block_unref(pool, 1);
        const char *part = cases[i].part;
        if (!strcmp(part, "refs")) pool->blocks[b].refs = 0;
        if (!strcmp(part, "leases")) pool->blocks[b].leases = 1;
        if (!strcmp(part, "counts")) pool->counts[BLOCK_HELD]--;
        if (!strcmp(part, "list")) pool->free.count--;
        if (!strcmp(part, "hash")) pool->blocks[1].hash.high++;
        assert_false(kv_pool_check(pool, &err));
        assert_int_equal(err.code, ERR_INTERNAL);
        if (!strstr(err.message, cases[i].message)) fail_msg("%s: %s", part, err.message);
        kv_pool_free(pool);
    }
}

/* The model: requests over prompts that share beginnings, against a reference that knows prefixes
 * as whole arrays of tokens and looks everything up by walking. */
#define BLOCKS 24
#define REQUESTS 6
#define PROMPT_BLOCKS 5

typedef struct Entry { /* the reference's index: which block holds this prefix */
    int32_t tokens[PROMPT_BLOCKS * KV_BLOCK_TOKENS];
    size_t count;
    KvBlock block;
    size_t number, parent; /* 0: the first block of a prompt */
} Entry;

typedef struct Request {
    int32_t tokens[PROMPT_BLOCKS * KV_BLOCK_TOKENS];
    size_t count, block_count;
    KvBlock blocks[PROMPT_BLOCKS];
} Request;

typedef struct Model {
    KvPool *pool;
    uint64_t seed;
    uint32_t refs[BLOCKS], leases[BLOCKS];
    Entry entries[BLOCKS];
    size_t entry_count, last_number;
    Request requests[REQUESTS];
    struct { KvLease id; KvBlock blocks[PROMPT_BLOCKS]; size_t count; } given[16];
    size_t given_count;
} Model;

static uint32_t next_random(Model *m, uint32_t below) {
    m->seed = m->seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(m->seed >> 33) % below;
}

static Entry *entry_of_block(Model *m, KvBlock block) {
    for (size_t i = 0; i < m->entry_count; i++)
        if (m->entries[i].block == block) return &m->entries[i];
    return NULL;
}

static Entry *entry_of_prefix(Model *m, const int32_t *tokens, size_t count) {
    for (size_t i = 0; i < m->entry_count; i++)
        if (m->entries[i].count == count && !memcmp(m->entries[i].tokens, tokens, count * 4))
            return &m->entries[i];
    return NULL;
}

static bool entry_lives(const Model *m, size_t number) {
    for (size_t i = 0; i < m->entry_count; i++)
        if (m->entries[i].number == number) return true;
    return false;
}

static bool is_cached(const Model *m, const Entry *entry) {
    return !m->refs[entry->block] && !m->leases[entry->block];
}

static void entry_drop(Model *m, Entry *entry) { *entry = m->entries[--m->entry_count]; }

static KvBlock model_take(Model *m) {
    size_t free = 0, cached = 0;
    for (KvBlock b = 0; b < BLOCKS; b++) {
        if (m->refs[b] || m->leases[b]) continue;
        if (entry_of_block(m, b)) cached++;
        else free++;
    }
    assert_int_equal(kv_pool_takable(m->pool), free + cached);
    KvBlock block = kv_block_take(m->pool);
    if (!free && !cached) {
        assert_int_equal(block, KV_NONE);
        return block;
    }
    assert_true(block < BLOCKS && !m->refs[block] && !m->leases[block]);
    Entry *evicted = entry_of_block(m, block);
    assert_int_equal(!!evicted, free == 0);
    if (evicted) {
        for (size_t i = 0; i < m->entry_count; i++) /* no cached child is left behind */
            assert_false(m->entries[i].parent == evicted->number && is_cached(m, &m->entries[i]));
        entry_drop(m, evicted);
    }
    m->refs[block] = 1;
    return block;
}

static void model_add(Model *m, const Request *r, size_t i) {
    size_t count = (i + 1) * KV_BLOCK_TOKENS;
    Entry *parent = i ? entry_of_prefix(m, r->tokens, count - KV_BLOCK_TOKENS) : NULL,
          *there = entry_of_prefix(m, r->tokens, count);
    size_t number = parent ? parent->number : 0;
    if (entry_of_block(m, r->blocks[i])) return;
    if (there) {
        size_t living = entry_lives(m, there->parent) ? there->parent : 0;
        if (living == number) return;
        entry_drop(m, there);
    }
    Entry *entry = &m->entries[m->entry_count++];
    *entry = (Entry){.count = count,
                     .block = r->blocks[i],
                     .number = ++m->last_number,
                     .parent = i && !number ? SIZE_MAX : number}; /* of no parent: never found */
    memcpy(entry->tokens, r->tokens, count * 4);
}

static size_t model_find(Model *m, const Request *r, KvBlock *out) {
    size_t found = 0, number = 0;
    for (; (found + 1) * KV_BLOCK_TOKENS <= r->count; found++) {
        Entry *entry = entry_of_prefix(m, r->tokens, (found + 1) * KV_BLOCK_TOKENS);
        if (!entry || entry->parent != number) break;
        out[found] = entry->block;
        number = entry->number;
    }
    return found;
}

static void model_start(Model *m, Request *r) {
    KvHash root = kv_chain_root(&tiny, STR("")), hash[PROMPT_BLOCKS + 1] = {root};
    r->count = 1 + next_random(m, PROMPT_BLOCKS * KV_BLOCK_TOKENS);
    for (size_t b = 0; b < PROMPT_BLOCKS; b++) /* two kinds of block: prompts share beginnings */
        fill(r->tokens, b, 1, (int32_t)(next_random(m, 3) == 0));
    KvBlock want[PROMPT_BLOCKS];
    size_t expected = model_find(m, r, want),
           found = kv_prefix_find(m->pool, root, r->tokens, r->count, r->blocks);
    assert_int_equal(found, expected);
    assert_memory_equal(r->blocks, want, found * sizeof *want);
    for (size_t i = 0; i < found; i++) m->refs[want[i]]++;
    size_t need = kv_blocks_for(r->count);
    for (r->block_count = found; r->block_count < need; r->block_count++)
        if ((r->blocks[r->block_count] = model_take(m)) == KV_NONE) break;
    for (size_t i = 0; i < r->block_count && (i + 1) * KV_BLOCK_TOKENS <= r->count; i++) {
        const int32_t *at = r->tokens + i * KV_BLOCK_TOKENS;
        hash[i + 1] = kv_chain_next(hash[i], at, KV_BLOCK_TOKENS);
        if (i < found || next_random(m, 8) == 0) continue; /* some are never added */
        kv_prefix_add(m->pool, r->blocks[i], hash[i], hash[i + 1], at);
        model_add(m, r, i);
    }
}

static void model_give_back(Model *m, Request *r) {
    uint32_t order = next_random(m, 3);
    while (r->block_count) {
        size_t at = order == 0   ? 0
                    : order == 1 ? r->block_count - 1
                                 : next_random(m, (uint32_t)r->block_count);
        KvBlock block = r->blocks[at];
        r->block_count--;
        memmove(r->blocks + at, r->blocks + at + 1, (r->block_count - at) * sizeof *r->blocks);
        m->refs[block]--;
        kv_block_unref(m->pool, block);
        if (next_random(m, 20) == 0) return; /* the rest later */
    }
}

static void model_lease(Model *m, const Request *r) {
    if (!r->block_count || m->given_count == COUNT_OF(m->given)) return;
    m->given[m->given_count].count = r->block_count;
    memcpy(m->given[m->given_count].blocks, r->blocks, sizeof r->blocks);
    for (size_t i = 0; i < r->block_count; i++) m->leases[r->blocks[i]]++;
    m->given[m->given_count++].id = kv_lease_open(m->pool, "r", r->blocks, r->block_count,
                                                  r->block_count * KV_BLOCK_TOKENS, INT64_MAX);
}

static void model_close_lease(Model *m) {
    if (!m->given_count) return;
    size_t at = next_random(m, (uint32_t)m->given_count);
    for (size_t i = 0; i < m->given[at].count; i++) m->leases[m->given[at].blocks[i]]--;
    assert_true(kv_lease_close(m->pool, m->given[at].id));
    assert_false(kv_lease_close(m->pool, m->given[at].id));
    m->given[at] = m->given[--m->given_count];
}

static void assert_as_model(Model *m) {
    size_t counts[BLOCK_STATES] = {0};
    for (KvBlock b = 0; b < BLOCKS; b++)
        counts[m->leases[b]          ? BLOCK_LEASED
               : m->refs[b]          ? BLOCK_HELD
               : entry_of_block(m, b) ? BLOCK_CACHED
                                      : BLOCK_FREE]++;
    assert_ledger(m->pool, counts[BLOCK_FREE], counts[BLOCK_CACHED], counts[BLOCK_HELD],
                  counts[BLOCK_LEASED]);
}

static void random_work_leaves_the_pool_as_the_reference_says(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        print_message("seed %d\n", (int)seed);
        Model m = {.pool = pool_of(BLOCKS), .seed = seed};
        for (int step = 0; step < 400; step++) {
            Request *r = &m.requests[next_random(&m, REQUESTS)];
            uint32_t what = next_random(&m, 100);
            if (what < 60) {
                if (r->block_count) model_give_back(&m, r);
                else model_start(&m, r);
            } else if (what < 75) {
                model_lease(&m, r);
            } else if (what < 98) {
                model_close_lease(&m);
            } else {
                kv_prefix_clear(m.pool);
                m.entry_count = 0;
            }
            assert_as_model(&m);
        }
        for (size_t i = 0; i < REQUESTS; i++)
            while (m.requests[i].block_count) model_give_back(&m, &m.requests[i]);
        while (m.given_count) model_close_lease(&m);
        KvLedger at_rest;
        kv_ledger(m.pool, &at_rest);
        assert_int_equal(at_rest.held + at_rest.leased, 0);
        kv_pool_free(m.pool);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pool_holds_as_many_whole_blocks_as_fit),
        cmocka_unit_test(a_pool_that_cannot_be_had_says_what_to_change),
        cmocka_unit_test(every_failed_call_of_a_new_pool_is_an_error_and_leaks_nothing),
        cmocka_unit_test(a_peer_maps_the_same_bytes_and_can_neither_change_nor_cut_them),
        cmocka_unit_test(a_block_gets_another_generation_whenever_it_is_taken),
        cmocka_unit_test(a_prefix_is_stored_once_and_found_up_to_its_last_full_block),
        cmocka_unit_test(the_salt_keeps_tenants_apart),
        cmocka_unit_test(the_end_of_a_prompt_is_evicted_before_its_beginning),
        cmocka_unit_test(a_second_copy_of_a_parent_does_not_turn_the_order_round),
        cmocka_unit_test(two_prompts_of_one_hash_are_never_mixed_up),
        cmocka_unit_test(a_child_whose_parent_was_evicted_is_replaced_not_found),
        cmocka_unit_test(leases_keep_blocks_whoever_else_lets_go),
        cmocka_unit_test(leases_expire_at_their_deadline_unless_renewed),
        cmocka_unit_test(a_check_names_the_block_and_both_truths),
        cmocka_unit_test(random_work_leaves_the_pool_as_the_reference_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
